//! Cuts a page into its records as it arrives, without ever holding the page: memory is one record.
//!
//! A page is a list (`[…]`), or an object with lists in it (`{"u_count": 3, "u_devices": […]}`). Only brackets and
//! strings are looked at, so that a record that is no JSON inside costs that record and not the page. The answer that
//! is neither (a log-in page, a proxy's apology) is told apart at its first byte.

/// Longest record that is handed on, in bytes.
pub const RECORD_MAX: usize = 256 * 1024;
/// Longest plain value beside a list that is handed on, in bytes.
const VALUE_MAX: usize = 1024;
/// Longest key that is handed on, in bytes.
const KEY_MAX: usize = 64;
/// How much of a too long record is kept as a sample, in bytes.
const SAMPLE_MAX: usize = 512;

/// A part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// One record of a list.
    Record(&'a [u8]),
    /// The beginning of a record that is longer than [`RECORD_MAX`].
    TooLong(&'a [u8]),
    /// A plain value beside the list: its key and its text, both as written, without the quotes of the key.
    Value(&'a [u8], &'a [u8]),
}

/// Why a page could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Neither a list nor an object.
    #[error("the answer is no JSON")]
    NotJson,
    /// It ends in the middle.
    #[error("the answer ends in the middle")]
    CutShort,
    /// An object without any list: an apology with a status of success.
    #[error("the answer has no list in it")]
    NoList,
    /// There is more after its end.
    #[error("the answer goes on after its end")]
    Trailing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first bracket.
    Start,
    /// In the object, between a value and the next key.
    Object,
    Key,
    /// After a key, before or in its plain value.
    Value,
    List,
    /// After the last bracket.
    End,
}

/// Cuts one page. [`feed`](Self::feed) it the bytes as they come, then ask [`finish`](Self::finish).
#[derive(Debug)]
pub struct Splitter {
    place: Place,
    /// Where a list's closing bracket leads: back to the object around it, or to the end.
    after_list: Place,
    /// Open brackets within the record or value.
    depth: u32,
    in_string: bool,
    escaped: bool,
    key: Vec<u8>,
    record: Vec<u8>,
    /// Whether the record has outgrown [`RECORD_MAX`]; `record` then holds its beginning.
    too_long: bool,
    /// Until there is a list: what the object says is wrong, as written.
    error: Option<Vec<u8>>,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// For one page.
    pub fn new() -> Self {
        Self {
            place: Place::Start,
            after_list: Place::End,
            depth: 0,
            in_string: false,
            escaped: false,
            key: Vec::new(),
            record: Vec::new(),
            too_long: false,
            error: Some(Vec::new()),
        }
    }

    /// Takes the next bytes and gives every piece that ends in them.
    ///
    /// # Errors
    /// [`Broken::NotJson`] and [`Broken::Trailing`]; the page cannot be read on.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Piece<'_>)) -> Result<(), Broken> {
        for byte in bytes {
            match self.place {
                Place::Start => self.start(*byte)?,
                Place::Object => self.object(*byte),
                Place::Key => self.in_key(*byte),
                Place::Value => self.value(*byte, &mut take),
                Place::List => self.list(*byte, &mut take),
                Place::End if is_blank(*byte) => {}
                Place::End => return Err(Broken::Trailing),
            }
        }
        Ok(())
    }

    /// Whether the page was complete.
    ///
    /// # Errors
    /// [`Broken::CutShort`], [`Broken::NoList`], or [`Broken::NotJson`] for an empty page.
    pub fn finish(&self) -> Result<(), Broken> {
        match self.place {
            Place::End if self.error.is_none() => Ok(()),
            Place::End => Err(Broken::NoList),
            Place::Start => Err(Broken::NotJson),
            _ => Err(Broken::CutShort),
        }
    }

    /// What an object without a list says is wrong; empty where it says nothing.
    pub fn error(&self) -> String {
        String::from_utf8_lossy(self.error.as_deref().unwrap_or_default()).trim_matches('"').to_owned()
    }

    fn start(&mut self, byte: u8) -> Result<(), Broken> {
        match byte {
            b'[' => (self.place, self.error) = (Place::List, None),
            b'{' => (self.place, self.after_list) = (Place::Object, Place::Object),
            // A byte order mark.
            0xef | 0xbb | 0xbf => {}
            byte if is_blank(byte) => {}
            _ => return Err(Broken::NotJson),
        }
        Ok(())
    }

    fn object(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.key.clear();
                self.place = Place::Key;
            }
            b'}' => self.place = Place::End,
            _ => {}
        }
    }

    fn in_key(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.place = Place::Value,
            byte if self.key.len() < KEY_MAX => self.key.push(byte),
            _ => {}
        }
    }

    /// A value beside the list; the list itself when it begins with `[`.
    fn value(&mut self, byte: u8, take: &mut impl FnMut(Piece<'_>)) {
        if self.record.is_empty() && !self.in_string && self.depth == 0 {
            match byte {
                b':' => return,
                b'[' => {
                    (self.place, self.error) = (Place::List, None);
                    return;
                }
                byte if is_blank(byte) => return,
                _ => {}
            }
        }
        if self.ends(byte, b'}') {
            if let (Some(error), b"error" | b"message") = (&mut self.error, self.key.as_slice()) {
                *error = self.record.trim_ascii().to_vec();
            }
            take(Piece::Value(&self.key, self.record.trim_ascii()));
            self.record.clear();
            self.place = if byte == b'}' { Place::End } else { Place::Object };
            return;
        }
        if self.record.len() < VALUE_MAX {
            self.record.push(byte);
        }
        self.step(byte);
    }

    fn list(&mut self, byte: u8, take: &mut impl FnMut(Piece<'_>)) {
        if self.ends(byte, b']') {
            self.hand_on(take);
            if byte == b']' {
                self.place = self.after_list;
            }
            return;
        }
        if self.record.is_empty() && is_blank(byte) {
            return;
        }
        if self.record.len() >= RECORD_MAX {
            self.too_long = true;
            self.record.truncate(SAMPLE_MAX);
            self.record.shrink_to(SAMPLE_MAX);
        }
        if !self.too_long {
            self.record.push(byte);
        }
        self.step(byte);
    }

    fn hand_on(&mut self, take: &mut impl FnMut(Piece<'_>)) {
        let record = self.record.trim_ascii();
        if !record.is_empty() {
            take(if self.too_long { Piece::TooLong(record) } else { Piece::Record(record) });
        }
        self.record.clear();
        self.too_long = false;
    }

    /// Whether what stands here ends with this byte: a comma or the closing bracket of what is around it.
    fn ends(&self, byte: u8, close: u8) -> bool {
        self.depth == 0 && !self.in_string && (byte == b',' || byte == close)
    }

    fn step(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            b'{' | b'[' if !self.in_string => self.depth = self.depth.saturating_add(1),
            b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(page: &[u8], chunk: usize) -> (Vec<String>, Result<(), Broken>) {
        let mut splitter = Splitter::new();
        let mut pieces = Vec::new();
        for bytes in page.chunks(chunk) {
            let fed = splitter.feed(bytes, |piece| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                pieces.push(match piece {
                    Piece::Record(record) => text(record),
                    Piece::TooLong(start) => format!("long {}", start.len()),
                    Piece::Value(key, value) => format!("{}={}", text(key), text(value)),
                });
            });
            if fed.is_err() {
                return (pieces, fed);
            }
        }
        (pieces, splitter.finish())
    }

    fn check(page: &str, expected: &[&str]) {
        for chunk in [1, 2, 7, 1000] {
            let (pieces, end) = cut(page.as_bytes(), chunk);
            assert_eq!(
                (pieces.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), end),
                (expected, Ok(()))
            );
        }
    }

    #[test]
    fn lists_and_wrapped_lists_are_cut_into_records() {
        check("[]", &[]);
        check(
            " \u{feff}[ {\"a\": [1, 2]} , {\"b\":\"],}\\\"\"},\n 3 ] \n",
            &["{\"a\": [1, 2]}", "{\"b\":\"],}\\\"\"}", "3"],
        );
        check(
            r#"{"u_count": 2, "u_devices": [{"u_id":1},{"u_id":2},], "more": {"x":[1]}}"#,
            &["u_count=2", "{\"u_id\":1}", "{\"u_id\":2}", "more={\"x\":[1]}"],
        );
    }

    #[test]
    fn an_object_without_a_list_is_no_page() {
        for (page, error) in [("{}", ""), (r#"{"u_count":0,"error":"no, no}"}"#, "no, no}")] {
            let mut splitter = Splitter::new();
            splitter.feed(page.as_bytes(), |_| ()).unwrap();
            assert_eq!((splitter.finish(), splitter.error().as_str()), (Err(Broken::NoList), error));
        }
        check(r#"{"error":null,"u_devices":[]}"#, &["error=null"]);
    }

    #[test]
    fn a_broken_record_costs_itself() {
        check(r#"[{"a":tru},{"b" 1},{"c":2}]"#, &[r#"{"a":tru}"#, r#"{"b" 1}"#, r#"{"c":2}"#]);
    }

    #[test]
    fn what_is_no_page_is_said() {
        for (page, broken) in [
            ("", Broken::NotJson),
            ("<html>", Broken::NotJson),
            ("null", Broken::NotJson),
            ("[{\"a\":1}", Broken::CutShort),
            ("[{\"a\":\"}]", Broken::CutShort),
            ("{\"u_count\":", Broken::CutShort),
            ("[] []", Broken::Trailing),
        ] {
            assert_eq!(cut(page.as_bytes(), 3).1, Err(broken), "{page}");
        }
    }

    #[test]
    fn a_record_of_any_length_takes_bounded_memory() {
        let page = format!("[{{\"a\":\"{}\"}},{{\"b\":1}}]", "x".repeat(RECORD_MAX));
        let (pieces, end) = cut(page.as_bytes(), 4096);
        assert_eq!((pieces, end), (vec!["long 512".to_owned(), "{\"b\":1}".to_owned()], Ok(())));
        let mut splitter = Splitter::new();
        let nested = "[".repeat(RECORD_MAX * 2);
        splitter.feed(nested.as_bytes(), |_| panic!("nothing ended")).unwrap();
        assert!(splitter.record.capacity() <= RECORD_MAX * 2);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_give_the_same(page in prop::collection::vec(
            prop::sample::select(b"[]{},:\"\\ab1 ".to_vec()), 0..200), chunk in 1_usize..20)
        {
            prop_assert_eq!(cut(&page, chunk), cut(&page, 1));
        }

        #[test]
        fn what_a_writer_writes_is_read_back(values in prop::collection::vec("\\PC{0,20}", 0..10)) {
            let records: Vec<_> = values.iter().map(|v| serde_json::json!({ "k": v, "n": [1, {"x": v}] })).collect();
            let (pieces, end) = cut(serde_json::to_string(&records).unwrap().as_bytes(), 5);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(pieces, records.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
    }
}
