//! `key=value` pairs of CEF and LEEF, borrowed from the line and decoded when they are asked for.
//!
//! Lists are bounded; of a key that is there twice the first counts, as in every reader of the field.

use std::borrow::Cow;

/// Most pairs of one message; what comes after them stays in `raw` only.
const PAIRS_MAX: usize = 256;

/// The pairs of one message, in their order.
#[derive(Debug, Default)]
pub(super) struct Pairs<'a> {
    list: Vec<(&'a str, &'a str)>,
    /// Whether values are escaped as in CEF. LEEF has no escapes.
    escaped: bool,
}

impl<'a> Pairs<'a> {
    /// Pairs of a CEF extension: one blank between them, blanks in the values. A key is a word directly before `=` with
    /// a blank before it, so that a `=` within a value does no harm. Text before the first key is no pair.
    pub(super) fn spaced(text: &'a str, escaped: bool) -> Self {
        let mut list: Vec<(&str, &str)> = Vec::with_capacity(32);
        // Key and beginning of the value that is being read.
        let mut open: Option<(&str, usize)> = None;
        let mut after = 0;
        for at in memchr::memchr_iter(b'=', text.as_bytes()) {
            let before = &text[after..at];
            after = at + 1;
            let begin = before.rfind(char::is_whitespace).map_or(0, |blank| blank + width(before, blank));
            // Without a blank since the last `=` this one is part of a value, unless nothing has begun yet.
            if (begin == 0 && open.is_some()) || !is_key(&before[begin..]) {
                continue;
            }
            let key_at = at - (before.len() - begin);
            if let Some((key, from)) = open {
                list.push((key, &text[from..key_at]));
            }
            if list.len() == PAIRS_MAX {
                return Self { list, escaped };
            }
            open = Some((&text[key_at..at], at + 1));
        }
        if let Some((key, from)) = open {
            list.push((key, &text[from..]));
        }
        Self { list, escaped }
    }

    /// Pairs with a delimiter of their own, as in LEEF. Parts without `=` are no pairs.
    pub(super) fn delimited(text: &'a str, delimiter: char) -> Self {
        Self::parted(text.split(delimiter))
    }

    /// Pairs that are parted already.
    pub(super) fn parted(parts: impl Iterator<Item = &'a str>) -> Self {
        let pairs = parts.filter_map(|part| part.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.trim(), value)).filter(|(key, _)| !key.is_empty());
        Self { list: pairs.take(PAIRS_MAX).collect(), escaped: false }
    }

    /// Pairs that were found by other means.
    pub(super) fn of(list: Vec<(&'a str, &'a str)>) -> Self {
        Self { list, escaped: false }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// How many of them repeat a key.
    pub(super) fn repeated(&self) -> usize {
        let twice = |at: usize| self.list[..at].iter().any(|(key, _)| *key == self.list[at].0);
        (1..self.list.len()).filter(|at| twice(*at)).count()
    }

    /// The decoded value of `key`; `None` where it is absent, empty, or a word that means nothing (`N/A`).
    pub(super) fn get(&self, key: &str) -> Option<Cow<'a, str>> {
        // Dozens of keys are asked for in each message, and most are not there: the first byte tells.
        let first = key.as_bytes().first();
        let (_, value) =
            self.list.iter().find(|(name, _)| name.as_bytes().first() == first && *name == key)?;
        Some(self.decode(value)).filter(|value| !says_nothing(value))
    }

    /// The first of `keys` that says something.
    pub(super) fn first(&self, keys: &[&str]) -> Option<Cow<'a, str>> {
        keys.iter().find_map(|key| self.get(key))
    }

    /// The value of the custom field whose label is `label`, folded: `cs3=7 cs3Label=Alert Id` by `alertid`.
    pub(super) fn labelled(&self, label: &str) -> Option<Cow<'a, str>> {
        self.custom().find(|(name, _)| fold(name) == label).map(|(_, value)| value)
    }

    /// Custom fields that have a label and a value: label, value.
    pub(super) fn custom(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + '_ {
        self.list.iter().filter_map(|(key, label)| {
            let value = self.get(key.strip_suffix("Label")?)?;
            Some((self.decode(label), value)).filter(|(label, _)| !label.is_empty())
        })
    }

    fn decode(&self, value: &'a str) -> Cow<'a, str> {
        let value = value.trim();
        if !self.escaped {
            return Cow::Borrowed(value);
        }
        let decoded = unescape(value);
        match decoded {
            Cow::Borrowed(text) => Cow::Borrowed(unquoted(text)),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        }
    }
}

fn width(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

/// `word`, then `.anything` as often as one likes, then `[7]`.
fn is_key(text: &str) -> bool {
    let text = text.strip_suffix(']').map_or(Some(text), |indexed| {
        let (key, index) = indexed.rsplit_once('[')?;
        (!index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit())).then_some(key)
    });
    let Some(text) = text else { return false };
    let mut parts = text.split('.');
    let first = parts.next().unwrap_or_default();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    !first.is_empty()
        && first.chars().all(word)
        && parts.all(|part| !part.is_empty() && !part.contains(['|', '\\', '[', ']']))
}

/// Escapes of CEF (`\=`, `\\`, `\|`, `\n`, `\r`) and what relays make of control characters (`#012`, three octal digits:
/// a blank). Any other backslash stands for itself.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\\', b'#', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\\', b'#', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        let (decoded, taken) = match (tail.as_bytes(), control(tail)) {
            ([b'\\', b'n', ..], _) => ('\n', 2),
            ([b'\\', b'r', ..], _) => ('\r', 2),
            ([b'\\', byte @ (b'=' | b'\\' | b'|'), ..], _) => (char::from(*byte), 2),
            (_, true) => (' ', 4),
            ([first, ..], _) => (char::from(*first), 1),
            ([], _) => break,
        };
        out.push(decoded);
        rest = &tail[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// `#000` to `#037`.
fn control(tail: &str) -> bool {
    matches!(tail.as_bytes(), [b'#', b'0', b'0'..=b'3', b'0'..=b'7', ..])
}

/// Without one pair of quotes around it, unless there are more of them inside.
fn unquoted(text: &str) -> &str {
    ['\'', '"']
        .iter()
        .find_map(|quote| {
            text.strip_prefix(*quote)?.strip_suffix(*quote).filter(|inner| !inner.contains(*quote))
        })
        .unwrap_or(text)
}

/// Words that stand where a value is not known.
pub(super) fn says_nothing(value: &str) -> bool {
    const WORDS: [&str; 7] = ["none", "n/a", "na", "null", "(null)", "nil", "undefined"];
    value.is_empty() || value == "-" || WORDS.iter().any(|word| word.eq_ignore_ascii_case(value))
}

/// Lower case, letters and digits only.
pub(super) fn fold(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(extension: &str, expected: &[(&str, &str)]) {
        let pairs = Pairs::spaced(extension, true);
        let read: Vec<_> =
            pairs.list.iter().map(|(key, value)| (*key, pairs.decode(value).into_owned())).collect();
        let expected: Vec<_> = expected.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        assert_eq!(read, expected, "{extension}");
    }

    #[test]
    fn a_value_runs_to_the_next_key() {
        check(
            "src=10.0.0.1 msg=two words dst=10.0.0.2",
            &[("src", "10.0.0.1"), ("msg", "two words"), ("dst", "10.0.0.2")],
        );
        check(" msg=leading   two=after blanks ", &[("msg", "leading"), ("two", "after blanks")]);
        check(
            "a.b=1 c[0]=2 ad.x,y=3 src_ip=4",
            &[("a.b", "1"), ("c[0]", "2"), ("ad.x,y", "3"), ("src_ip", "4")],
        );
        check(
            "request=https://h.example/p?a=b&c=d x=1",
            &[("request", "https://h.example/p?a=b&c=d"), ("x", "1")],
        );
        check("msg=a \\= b|c\\|d \\\\ e\\qf x=", &[("msg", "a = b|c|d \\ e\\qf"), ("x", "")]);
        check("msg=one\\ntwo\\rthree", &[("msg", "one\ntwo\rthree")]);
        check("no pairs at all", &[]);
        check("junk before key=1", &[("key", "1")]);
        check("", &[]);
        check("==== a=b", &[("a", "b")]);
        check("k=v\\=w z\\=y=1", &[("k", "v=w z=y=1")]);
        check("SrcName=172.16.8.17 - 0 DstName=x", &[("SrcName", "172.16.8.17 - 0"), ("DstName", "x")]);
    }

    #[test]
    fn quotes_and_what_relays_put_in() {
        check(
            "cat='Link' v=Acme INT'L CO., LTD. w='a'b' u=\"x\"",
            &[("cat", "Link"), ("v", "Acme INT'L CO., LTD."), ("w", "'a'b'"), ("u", "x")],
        );
        check(
            "mac=00:30:DE:40:D0:8D#012 n=#1234 m=a#011b#777",
            &[("mac", "00:30:DE:40:D0:8D"), ("n", "#1234"), ("m", "a b#777")],
        );
    }

    #[test]
    fn the_first_of_a_key_counts_and_words_for_nothing_are_nothing() {
        let pairs = Pairs::spaced(
            "a=1 a=2 b=N/A c=None d=- e=NAND cs1=x cs1Label=My Label cs10=y cs10Label=Ten",
            true,
        );
        assert_eq!((pairs.get("a").as_deref(), pairs.repeated()), (Some("1"), 1));
        assert_eq!((pairs.get("b"), pairs.get("c"), pairs.get("d")), (None, None, None));
        assert_eq!(pairs.get("e").as_deref(), Some("NAND"));
        assert_eq!(pairs.labelled("mylabel").as_deref(), Some("x"));
        assert_eq!(pairs.labelled("ten").as_deref(), Some("y"));
        assert_eq!(pairs.first(&["b", "zz", "e"]).as_deref(), Some("NAND"));
    }

    #[test]
    fn lists_are_bounded() {
        let many = "a=1 ".repeat(10_000);
        assert_eq!(Pairs::spaced(&many, true).len(), PAIRS_MAX);
        assert_eq!(Pairs::delimited(&many, ' ').len(), PAIRS_MAX);
    }
}
