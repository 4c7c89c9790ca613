//! Encoded queries, built from typed parts and never from text. Pure.
//!
//! The instance drops a condition that it does not understand and answers with every row, so a query that is wrong is
//! worse than none: what cannot be said safely is refused here. Only values of our own making get in; the caret is
//! doubled all the same, since a second lock costs nothing.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a part was refused. Names the part, not the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("a field name in a query has characters other than a-z 0-9 _ and .")]
    Field,
    #[error("a value in a query has control characters")]
    Control,
    #[error("a value in a query begins with `javascript:`, which the instance would run")]
    Script,
    #[error("a value in an IN list is empty or has a comma, which the instance would split at")]
    List,
}

/// An encoded query under construction: conditions joined by AND, then the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    text: String,
}

impl Query {
    /// `field` is one of `values`.
    pub(super) fn one_of<'a>(
        mut self,
        field: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, QueryError> {
        let mut list = String::new();
        for value in values {
            if value.is_empty() || value.contains(',') {
                return Err(QueryError::List);
            }
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(&escaped(value)?);
        }
        if list.is_empty() {
            return Err(QueryError::List);
        }
        self.push(checked(field)?, "IN", &list);
        Ok(self)
    }

    /// Or `field` is one of `values`: stands beside the conditions before it as one with them.
    pub(super) fn or_one_of<'a>(
        self,
        field: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, QueryError> {
        let more = Self::default().one_of(field, values)?.text;
        Ok(Self { text: if self.text.is_empty() { more } else { format!("{}^OR{more}", self.text) } })
    }

    /// `field` is this value.
    pub(super) fn is(mut self, field: &str, value: &str) -> Result<Self, QueryError> {
        if value.is_empty() {
            return Err(QueryError::List);
        }
        let value = escaped(value)?;
        self.push(checked(field)?, "=", &value);
        Ok(self)
    }

    pub(super) fn starts_with(mut self, field: &str, value: &str) -> Result<Self, QueryError> {
        if value.is_empty() {
            return Err(QueryError::List);
        }
        let value = escaped(value)?;
        self.push(checked(field)?, "STARTSWITH", &value);
        Ok(self)
    }

    /// `field` is this or later (or larger).
    pub(super) fn at_least(mut self, field: &str, value: &str) -> Result<Self, QueryError> {
        let value = escaped(value)?;
        self.push(checked(field)?, ">=", &value);
        Ok(self)
    }

    /// One field is later (or larger) than its value, or the other than its own. The instance joins an OR to the condition
    /// before it only, so this stands beside the others as one.
    pub(super) fn either_above(
        mut self,
        (field, value): (&str, &str),
        (other, others): (&str, &str),
    ) -> Result<Self, QueryError> {
        let (value, others) = (escaped(value)?, escaped(others)?);
        self.push(checked(field)?, ">", &value);
        self.push("OR", checked(other)?, &format!(">{others}"));
        Ok(self)
    }

    /// Oldest (or smallest) first by this field.
    pub(super) fn order_by(mut self, field: &str) -> Result<Self, QueryError> {
        self.push("ORDERBY", checked(field)?, "");
        Ok(self)
    }

    /// The query as people read it.
    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Percent-encoded as one value of a URL's query string.
    pub(super) fn encoded(&self) -> String {
        url_value(&self.text)
    }

    fn push(&mut self, first: &str, second: &str, third: &str) {
        if !self.text.is_empty() {
            self.text.push('^');
        }
        self.text.push_str(first);
        self.text.push_str(second);
        self.text.push_str(third);
    }
}

/// Any text as one value of a URL's query string.
pub(super) fn url_value(text: &str) -> String {
    utf8_percent_encode(text, QUERY_VALUE).to_string()
}

fn checked(field: &str) -> Result<&str, QueryError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.');
    let first_is_letter = field.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if first_is_letter && field.len() <= 80 && field.bytes().all(plain) {
        Ok(field)
    } else {
        Err(QueryError::Field)
    }
}

fn escaped(value: &str) -> Result<String, QueryError> {
    if value.chars().any(char::is_control) {
        return Err(QueryError::Control);
    }
    if value.trim_start().get(..11).is_some_and(|head| head.eq_ignore_ascii_case("javascript:")) {
        return Err(QueryError::Script);
    }
    Ok(value.replace('^', "^^"))
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn list(values: &[&str]) -> Result<Query, QueryError> {
        Query::default().one_of("correlation_id", values.iter().copied())
    }

    #[test]
    fn a_look_up_reads_as_the_contract_writes_it() {
        let query = list(&["otrelay-1", "otrelay-2"]).unwrap().order_by("sys_created_on").unwrap();
        assert_eq!(query.as_str(), "correlation_idINotrelay-1,otrelay-2^ORDERBYsys_created_on");
        assert_eq!(query.encoded(), "correlation_idINotrelay-1%2Cotrelay-2%5EORDERBYsys_created_on");
    }

    #[test]
    fn what_would_widen_or_run_is_refused() {
        for (value, why) in [
            ("a,b", QueryError::List),
            ("", QueryError::List),
            ("a\nb", QueryError::Control),
            ("a\u{0}", QueryError::Control),
            ("javascript:gs.getUserID()", QueryError::Script),
            ("  JavaScript:x", QueryError::Script),
        ] {
            assert_eq!(list(&[value]), Err(why), "{value:?}");
        }
        assert_eq!(list(&[]), Err(QueryError::List));
        for field in ["", "a^b", "A", "a=b", "ORDERBY", "1a", "a b"] {
            assert_eq!(Query::default().order_by(field), Err(QueryError::Field), "{field}");
        }
        assert_eq!(list(&["a^NQactive=true"]).unwrap().as_str(), "correlation_idINa^^NQactive=true");
    }

    /// How the instance reads a query: split at single carets, then at the first operator.
    fn parse(text: &str) -> Vec<String> {
        let mut parts = vec![String::new()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let last = parts.last_mut().unwrap();
            match c {
                '^' if chars.peek() == Some(&'^') => {
                    chars.next();
                    last.push('^');
                }
                '^' => parts.push(String::new()),
                c => last.push(c),
            }
        }
        parts
    }

    proptest! {
        #[test]
        fn what_was_asked_is_what_is_read(
            values in prop::collection::vec("[a-zA-Z0-9^&=+#% ;:é_-]{1,20}|\\PC{1,12}|javascript:x|\\^NQ.{0,5}", 1..6)
        ) {
            let borrowed: Vec<&str> = values.iter().map(String::as_str).collect();
            let Ok(query) = list(&borrowed) else { return Ok(()) };
            let query = query.order_by("sys_id").unwrap();
            let wire = query.encoded();
            prop_assert!(wire.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b)), "{}", wire);
            let read = percent_decode_str(&wire).decode_utf8().unwrap();
            let parts = parse(&read);
            prop_assert_eq!(parts.len(), 2);
            let found: Vec<&str> = parts[0].strip_prefix("correlation_idIN").unwrap().split(',').collect();
            prop_assert_eq!(found, borrowed);
            prop_assert_eq!(&parts[1], "ORDERBYsys_id");
        }
    }
}
