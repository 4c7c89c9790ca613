//! Messages in a stream of bytes (RFC 6587): counted (`123 <…`), or lines that end with LF or NUL. Pure.
//!
//! The sender chooses and does not say; the first bytes of a connection tell it, and it holds for the connection. Counting
//! is believed only where one to six digits, a blank and the beginning of a message follow each other: a line may begin
//! with a number. A count is never a reason to make room; what is longer than the limit is skipped without being kept.

/// Longest message, in bytes.
pub(super) const MESSAGE_MAX: usize = 64 * 1024;
/// How much of a message that is too long is shown.
const SHOWN: usize = 512;
/// Digits of a count that is believed.
const DIGITS_MAX: usize = 6;

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Message(&'a [u8]),
    /// The beginning of one that is longer than [`MESSAGE_MAX`]; the rest is skipped.
    TooLong(&'a [u8]),
    /// The beginning of a counted one whose end never came.
    Unfinished(&'a [u8]),
}

/// How messages are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Method {
    #[default]
    Unknown,
    Counted,
    Lines,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Skip {
    #[default]
    Nothing,
    Bytes(usize),
    /// Up to the end of the line.
    Line,
}

/// Takes bytes and gives messages. Keeps at most one message, what was read behind it, and nothing that is skipped.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    /// Where what was not given yet begins.
    at: usize,
    /// How far behind `at` there is no end of a line.
    searched: usize,
    method: Method,
    skip: Skip,
}

enum Next {
    /// A message of so many bytes behind so many others, and so many bytes with its end.
    Message {
        from: usize,
        len: usize,
        whole: usize,
    },
    /// A counted message that is too long.
    TooLong {
        from: usize,
        len: usize,
    },
    LineTooLong,
    /// More bytes are needed.
    More,
}

impl Framer {
    /// Where bytes are read into. What was given is forgotten first.
    pub(super) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * MESSAGE_MAX {
            self.buffer = Vec::new();
        }
        self.buffer.reserve(bytes);
        &mut self.buffer
    }

    /// The next message that is whole.
    pub(super) fn next(&mut self) -> Option<Frame<'_>> {
        if !self.skipped() {
            return None;
        }
        while self.buffer.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\r' | b'\n' | 0)) {
            self.at += 1;
            self.searched = 0;
        }
        let start = self.at;
        match self.look() {
            Next::More => None,
            Next::Message { from, len, whole } => {
                self.at += whole;
                self.searched = 0;
                Some(Frame::Message(&self.buffer[start + from..start + from + len]))
            }
            Next::TooLong { from, len } => {
                self.at += from;
                self.skip = Skip::Bytes(len);
                Some(Frame::TooLong(shown(&self.buffer[start + from..])))
            }
            Next::LineTooLong => {
                self.skip = Skip::Line;
                self.searched = 0;
                Some(Frame::TooLong(shown(&self.buffer[start..])))
            }
        }
    }

    /// The stream has ended: what is left. A line without its end is a message.
    pub(super) fn end(&mut self) -> Option<Frame<'_>> {
        let skipping = self.skip != Skip::Nothing;
        let rest = self.buffer[self.at..].trim_ascii();
        self.at = self.buffer.len();
        match self.method {
            _ if skipping || rest.is_empty() => None,
            Method::Counted => Some(Frame::Unfinished(shown(rest))),
            _ => Some(Frame::Message(rest)),
        }
    }

    fn skipped(&mut self) -> bool {
        let rest = &self.buffer[self.at..];
        match self.skip {
            Skip::Nothing => return true,
            Skip::Bytes(left) if left > rest.len() => {
                self.skip = Skip::Bytes(left - rest.len());
                self.at = self.buffer.len();
                return false;
            }
            Skip::Bytes(left) => self.at += left,
            Skip::Line => {
                let Some(end) = memchr::memchr2(b'\n', 0, rest) else {
                    self.at = self.buffer.len();
                    return false;
                };
                self.at += end + 1;
            }
        }
        self.skip = Skip::Nothing;
        true
    }

    fn look(&mut self) -> Next {
        let rest = &self.buffer[self.at..];
        if rest.is_empty() {
            return Next::More;
        }
        if self.method == Method::Unknown {
            match counted(rest, true) {
                Count::Perhaps => return Next::More,
                Count::No => self.method = Method::Lines,
                Count::Is(..) => self.method = Method::Counted,
            }
        }
        if self.method == Method::Counted {
            match counted(rest, false) {
                Count::Perhaps => return Next::More,
                Count::Is(from, len) if len > MESSAGE_MAX => return Next::TooLong { from, len },
                Count::Is(from, len) if rest.len() < from + len => return Next::More,
                Count::Is(from, len) => return Next::Message { from, len, whole: from + len },
                // It has lost count: up to the end of the line it is a message, and then a count again.
                Count::No => {}
            }
        }
        match memchr::memchr2(b'\n', 0, &rest[self.searched..]) {
            Some(end) if self.searched + end <= MESSAGE_MAX => {
                let len = self.searched + end;
                Next::Message { from: 0, len, whole: len + 1 }
            }
            None if rest.len() <= MESSAGE_MAX => {
                self.searched = rest.len();
                Next::More
            }
            _ => Next::LineTooLong,
        }
    }
}

/// Whether a frame begins with a count.
enum Count {
    No,
    /// The bytes that would tell have not come yet.
    Perhaps,
    /// The message begins here and is so long.
    Is(usize, usize),
}

/// `123 ` in front of a message; `strict`: and a message has to begin behind it.
fn counted(rest: &[u8], strict: bool) -> Count {
    const BEGINNINGS: [&[u8]; 3] = [b"<", b"CEF:", b"LEEF:"];
    let digits = rest.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > DIGITS_MAX || rest[0] == b'0' {
        return Count::No;
    }
    let Some(blank) = rest.get(digits) else { return Count::Perhaps };
    if *blank != b' ' {
        return Count::No;
    }
    let message = &rest[digits + 1..];
    let len = rest[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    if !strict || BEGINNINGS.iter().any(|beginning| message.starts_with(beginning)) {
        return Count::Is(digits + 1, len);
    }
    let may = BEGINNINGS.iter().any(|beginning| beginning.starts_with(message));
    if may { Count::Perhaps } else { Count::No }
}

fn shown(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(SHOWN)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the stream in pieces of each size, and compares what comes out.
    fn check(stream: &[u8], expected: &[&str]) {
        for size in [1, 2, 3, 7, 1000, stream.len().max(1)] {
            assert_eq!(frames(stream, size), expected, "in pieces of {size}: {}", stream.escape_ascii());
        }
    }

    fn frames(stream: &[u8], size: usize) -> Vec<String> {
        let mut framer = Framer::default();
        let mut all = Vec::new();
        let text = |frame: Frame<'_>| match frame {
            Frame::Message(bytes) => String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned(),
            Frame::TooLong(bytes) => {
                format!("too long: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(4)]))
            }
            Frame::Unfinished(bytes) => format!("unfinished: {}", String::from_utf8_lossy(bytes)),
        };
        for piece in stream.chunks(size) {
            framer.room(piece.len()).extend_from_slice(piece);
            while let Some(frame) = framer.next() {
                all.push(text(frame));
            }
            assert!(framer.buffer.len() - framer.at <= MESSAGE_MAX + 8);
        }
        all.extend(framer.end().map(text));
        all
    }

    #[test]
    fn lines() {
        check(b"<1>a\n<2>b\r\n\n<3>c", &["<1>a", "<2>b", "<3>c"]);
        check(b"<1>a\0<2>b\n\0", &["<1>a", "<2>b"]);
        check(b"12 foo\n7 <1>a\n", &["12 foo", "7 <1>a"]);
        check(b"12345", &["12345"]);
        check(b"", &[]);
        check(b"999999999 <1>a\n", &["999999999 <1>a"]);
        check(b"007 <1>a\n", &["007 <1>a"]);
        check(b"3 Ladies\n", &["3 Ladies"]);
    }

    #[test]
    fn counts() {
        check(b"4 <1>a5 <2>bc", &["<1>a", "<2>bc"]);
        check(b"4 <1>a 5 <2>bc\n4 <3>d", &["<1>a", "<2>bc", "<3>d"]);
        check(b"6 <1>a\nb4 <2>c", &["<1>a\nb", "<2>c"]);
        check(b"7 CEF:0|a5 hello", &["CEF:0|a", "hello"]);
        check(b"4 <1>a20 <2>b", &["<1>a", "unfinished: 20 <2>b"]);
        check(b"4 <1>alost count\n4 <2>b", &["<1>a", "lost count", "<2>b"]);
    }

    #[test]
    fn what_is_too_long_is_skipped() {
        let long = "x".repeat(MESSAGE_MAX + 1);
        let cut = ["too long: xxxx", "<1>a"];
        assert_eq!(frames(format!("{long}\n<1>a\n").as_bytes(), 5000), cut);
        assert_eq!(frames(format!("{long}{long}{long}\n<1>a\n").as_bytes(), 5000), cut);
        let counted = format!("{} <{}4 <1>a", long.len() + 1, long);
        assert_eq!(frames(counted.as_bytes(), 5000), ["too long: <xxx", "<1>a"]);
        assert_eq!(frames(long.as_bytes(), 5000), ["too long: xxxx"]);
        let most = "x".repeat(MESSAGE_MAX);
        assert_eq!(frames(format!("{most}\n").as_bytes(), 5000), [most.as_str()]);
        assert_eq!(frames(b"999999 <1>a", 3), ["too long: <1"]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            bytes in "[0-9 <>a\n]{0,60}", size in 1..20_usize,
        ) {
            proptest::prop_assert_eq!(frames(bytes.as_bytes(), size), frames(bytes.as_bytes(), 1000));
        }
    }
}
