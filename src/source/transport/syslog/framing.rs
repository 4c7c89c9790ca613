//! Messages in a stream of bytes (RFC 6587): counted (`123 <…`), or lines that end with LF or NUL. Pure.
//!
//! The sender chooses and does not say, and some change their mind; so each frame is looked at for itself. Counting is
//! believed only where one to six digits, a blank and the beginning of a message follow each other: a line may begin
//! with a number. A count is never a reason to make room; what is longer than the limit is skipped without being kept.
//!
//! Counts may be wrong: some senders count letters where bytes are meant, so that the end of a message stands behind it.
//! Such a rest ends at the next count or at the end of a line, whichever comes first, and is told as what it is. Where
//! neither comes within the longest message nothing in the stream can be believed any more, and it has to begin anew.

/// Longest message, in bytes.
pub(super) const MESSAGE_MAX: usize = 64 * 1024;
/// How much of a message that is too long is shown.
const SHOWN: usize = 512;
/// Digits of a count that is believed.
const DIGITS_MAX: usize = 6;
/// Longest count with the priority behind it: `999999 <191>`.
const MARK_MAX: usize = DIGITS_MAX + 6;
/// By how many bytes a count is too small where letters were counted, at most.
const SHORT_MAX: usize = 64;

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Message(&'a [u8]),
    /// The beginning of one that is longer than [`MESSAGE_MAX`]; the rest is skipped.
    TooLong(&'a [u8]),
    /// The beginning of a counted one whose end never came.
    Unfinished(&'a [u8]),
    /// What stands between a counted message and the next one: the count was too small.
    Rest(&'a [u8]),
    /// The count is lost and nothing follows that a message could begin at: the stream cannot be read on.
    Lost(&'a [u8]),
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
    /// Whether a counted message came before, and no line since: a count may follow anywhere.
    counts: bool,
    /// Whether it came directly before: what is here is its rest, unless a message begins.
    follows: bool,
    skip: Skip,
}

enum Next {
    /// A message of so many bytes behind so many others, and so many bytes with its end.
    Message {
        from: usize,
        len: usize,
        whole: usize,
    },
    /// So many bytes are the rest of a message whose count was too small, and so many with their end.
    Rest {
        len: usize,
        whole: usize,
    },
    Lost,
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
        while let Some(byte @ (b' ' | b'\r' | b'\n' | 0)) = self.buffer.get(self.at).copied() {
            self.follows &= byte == b' ';
            self.at += 1;
            self.searched = 0;
        }
        let start = self.at;
        match self.look() {
            Next::More => None,
            Next::Message { from, len, whole } => {
                self.at += whole;
                self.searched = 0;
                (self.counts, self.follows) = (from > 0 || (self.counts && len == whole), from > 0);
                Some(Frame::Message(&self.buffer[start + from..start + from + len]))
            }
            Next::Rest { len, whole } => {
                self.at += whole;
                self.searched = 0;
                self.follows &= whole == len;
                Some(Frame::Rest(shown(&self.buffer[start..start + len])))
            }
            Next::Lost => {
                self.at = self.buffer.len();
                Some(Frame::Lost(shown(&self.buffer[start..])))
            }
            Next::TooLong { from, len } => {
                self.at += from;
                self.searched = 0;
                self.skip = Skip::Bytes(len);
                (self.counts, self.follows) = (true, true);
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
        if skipping || rest.is_empty() {
            return None;
        }
        Some(match counted(rest) {
            // The digits before its own count were the rest of the message before.
            Count::Is(from, _) if own_count(&rest[..from], from, rest.len(), rest.len() + 1).is_some() => {
                Frame::Message(&rest[from..])
            }
            Count::Is(from, len) if len > MESSAGE_MAX => Frame::TooLong(shown(&rest[from..])),
            Count::Is(..) => Frame::Unfinished(shown(rest)),
            Count::Perhaps if self.counts => Frame::Unfinished(shown(rest)),
            _ if self.follows && !begins(rest) => Frame::Rest(shown(rest)),
            _ => Frame::Message(rest),
        })
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
        match counted(rest) {
            Count::Perhaps => Next::More,
            Count::Is(from, len) => self.look_counted(from, len),
            Count::No => self.look_for_end(),
        }
    }

    fn look_counted(&mut self, from: usize, len: usize) -> Next {
        let rest = &self.buffer[self.at..];
        let end = from + len.min(MESSAGE_MAX);
        let there = &rest[..end.min(rest.len())];
        // Another count within what is counted: digits that ended the message before may have become part of this one.
        if let Some((begin, blank)) = mark(there, self.searched.max(from + 1)) {
            if let Some(own) = own_count(&rest[..from], from, begin, blank) {
                return Next::Rest { len: own, whole: own };
            }
            self.searched = there.len();
        } else {
            self.searched = self.searched.max(there.len().saturating_sub(MARK_MAX));
        }
        if rest.len() < end {
            Next::More
        } else if len > MESSAGE_MAX {
            Next::TooLong { from, len }
        } else {
            Next::Message { from, len, whole: end }
        }
    }

    /// No count begins here: it goes to the end of the line, or to where the next count is, if there were some before.
    fn look_for_end(&mut self) -> Next {
        let rest = &self.buffer[self.at..];
        let line = memchr::memchr2(b'\n', 0, &rest[self.searched..]).map(|end| self.searched + end);
        let before = &rest[..line.unwrap_or(rest.len())];
        let next = if self.counts { mark(before, self.searched) } else { None };
        let end = next.map(|(begin, _)| (begin, begin)).or(line.map(|end| (end, end + 1)));
        match end {
            Some((len, whole)) if len <= MESSAGE_MAX => {
                let is_rest = self.follows && !begins(rest);
                if is_rest { Next::Rest { len, whole } } else { Next::Message { from: 0, len, whole } }
            }
            None if rest.len() <= MESSAGE_MAX => {
                self.searched = rest.len().saturating_sub(MARK_MAX);
                Next::More
            }
            _ if self.counts => Next::Lost,
            _ => Next::LineTooLong,
        }
    }
}

/// The first count with a priority behind it (`54 <14>`) whose `<` is not before `from`: where it begins, and its blank.
fn mark(text: &[u8], from: usize) -> Option<(usize, usize)> {
    memchr::memchr_iter(b'<', text.get(from..)?).find_map(|at| {
        let (before, after) = text.split_at_checked(from + at)?;
        let priority = after[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=3).contains(&priority) || after.get(priority + 1) != Some(&b'>') {
            return None;
        }
        let before = before.strip_suffix(b" ")?;
        let digits = before.iter().rev().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
        let run = &before[before.len() - digits..];
        let begin = run.iter().position(|digit| *digit != b'0')?;
        Some((before.len() - digits + begin, before.len()))
    })
}

/// Where in `count` (digits and a blank) the message's own count begins, when the digits before it ended the message
/// before: by it the message, which begins at `from`, ends where the next count stands (`begin` to `blank`), or as little
/// before it as its own count is too small.
fn own_count(count: &[u8], from: usize, begin: usize, blank: usize) -> Option<usize> {
    let digits = count.len() - 1;
    (1..digits).filter(|at| count[*at] != b'0').find(|at| {
        let end = from + number(&count[*at..digits]);
        end < blank && end + SHORT_MAX >= begin
    })
}

fn number(digits: &[u8]) -> usize {
    digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}

/// What a message begins with.
const BEGINNINGS: [&[u8]; 3] = [b"<", b"CEF:", b"LEEF:"];

fn begins(text: &[u8]) -> bool {
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}

/// Whether a frame begins with a count.
enum Count {
    No,
    /// The bytes that would tell have not come yet.
    Perhaps,
    /// The message begins here and is so long.
    Is(usize, usize),
}

/// `123 ` in front of the beginning of a message.
fn counted(rest: &[u8]) -> Count {
    let digits = rest.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > DIGITS_MAX || rest[0] == b'0' {
        return Count::No;
    }
    let Some(blank) = rest.get(digits) else { return Count::Perhaps };
    if *blank != b' ' {
        return Count::No;
    }
    let message = &rest[digits + 1..];
    if begins(message) {
        return Count::Is(digits + 1, number(&rest[..digits]));
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
            Frame::Rest(bytes) => format!("rest: {}", String::from_utf8_lossy(bytes)),
            Frame::Lost(bytes) => format!("lost: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(4)])),
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
        check(b"12 foo\n7 <1>a\n", &["12 foo", "unfinished: 7 <1>a"]);
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
        check(b"7 CEF:0|a5 hello", &["CEF:0|a", "rest: 5 hello"]);
        check(b"4 <1>a20 <2>b", &["<1>a", "unfinished: 20 <2>b"]);
        check(b"4 <1>alost count\n4 <2>b", &["<1>a", "rest: lost count", "<2>b"]);
        check(b"4 <1>alost\nno count\n", &["<1>a", "rest: lost", "no count"]);
        check(b"4 <1>a\n4 <2>b\nno count\n4 <3>c", &["<1>a", "<2>b", "no count", "<3>c"]);
    }

    #[test]
    fn each_frame_is_looked_at_for_itself() {
        check(b"<1>a dst=10.1.0.2\n4 <2>b4 <3>c", &["<1>a dst=10.1.0.2", "<2>b", "<3>c"]);
        check(b"4 <1>a<2>b\n4 <3>c", &["<1>a", "<2>b", "<3>c"]);
        check(b"4 <1>a<2>b4 <3>c", &["<1>a", "<2>b", "<3>c"]);
        check(b"<1>a msg=5 <2 and 5 <2>\n4 <3>c", &["<1>a msg=5 <2 and 5 <2>", "<3>c"]);
        check(b"4 <1>a4 CEF:0\n4 <3>c", &["<1>a", "CEF:", "rest: 0", "<3>c"]);
    }

    #[test]
    fn a_count_that_is_too_small_costs_the_end_of_its_message_only() {
        let text = "<1>Ger\u{e4}t ab";
        let stream = format!("{} {text}{} {text}{} {text}6 <2>end", 11, 11, 10);
        let (short, shorter) = (["<1>Ger\u{e4}t a", "rest: b"], ["<1>Ger\u{e4}t", "rest: ab"]);
        check(stream.as_bytes(), &[&short[..], &short[..], &shorter[..], &["<2>end"]].concat());
        // The end that is left over is a digit, and looks like part of the next count.
        let stream = format!("15 {0}15 {0}15 {0}", "<1>\u{e4} ip=10.1.0.2");
        let one = "<1>\u{e4} ip=10.1.0";
        let last = "<1>\u{e4} ip=10.1.0.2";
        check(stream.as_bytes(), &[one, "rest: .", "rest: 2", one, "rest: .", last]);
        let stream = format!("16 {0}16 {0}16 {0}", "<1>\u{e4} ip=10.1.0.2");
        let one = "<1>\u{e4} ip=10.1.0.";
        check(stream.as_bytes(), &[one, "rest: 2", one, last]);
    }

    #[test]
    fn a_count_that_is_too_large_costs_the_count_behind_it_only() {
        check(b"6 <1>a6 <2>bcd4 <3>c", &["<1>a6", "<2>bcd", "<3>c"]);
    }

    #[test]
    fn where_no_count_and_no_line_end_comes_the_stream_is_given_up() {
        let long = "x".repeat(MESSAGE_MAX + 1);
        assert_eq!(frames(format!("4 <1>a{long}").as_bytes(), 5000)[..2], ["<1>a", "lost: xxxx"]);
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
        assert_eq!(frames(b"999999 <1>a", 3), ["too long: <1>a"]);
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
