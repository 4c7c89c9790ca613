//! PEM text to its blocks, each of them or none: a block that cannot be read is an error with its line, never skipped.
//!
//! A byte order mark is no error, Notepad writes one; UTF-16 and bare DER are, with words of their own. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Most blocks in one text.
const BLOCKS_MAX: usize = 4096;

/// One block.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// The line that begins it, from 1.
    pub line: usize,
    /// `CERTIFICATE`, `PRIVATE KEY`.
    pub label: String,
    /// What it holds.
    pub der: Vec<u8>,
}

/// It may hold a key.
impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("line", &self.line).field("label", &self.label).finish_non_exhaustive()
    }
}

/// Why a text is not PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// One line is wrong.
    #[error("line {line}: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// In words, without anything of the text.
        why: &'static str,
    },
    /// The whole text is.
    #[error("{0}")]
    Whole(&'static str),
}

/// All blocks, in their order; none in a text without any.
///
/// # Errors
/// [`PemError`]: the first thing that is wrong.
pub fn blocks(text: &[u8]) -> Result<Vec<Block>, PemError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match text {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            return Err(PemError::Whole("it is text in UTF-16; save it as UTF-8"));
        }
        [0x30, 0x80..=0x84, ..] => {
            return Err(PemError::Whole(
                "it is DER, not PEM; convert it: openssl x509 -inform DER -in FILE -out FILE.pem",
            ));
        }
        _ => {}
    }
    // An open one holds base64 in place of DER.
    let (mut blocks, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for (n, line) in text.split(|byte| matches!(byte, b'\n')).enumerate() {
        let number = n + 1;
        let wrong = |why| Err(PemError::Line { line: number, why });
        let line = line.trim_ascii();
        if let Some(label) = marked(line, b"-----BEGIN ") {
            if open.is_some() {
                return wrong(
                    "a block begins inside another one; the line that ends the one above is missing",
                );
            }
            if blocks.len() == BLOCKS_MAX {
                return wrong("too many blocks");
            }
            open = Some(Block { line: number, label, der: Vec::new() });
        } else if let Some(label) = marked(line, b"-----END ") {
            let Some(block) = open.take() else {
                return wrong("a block ends here whose first line cannot be read; it is -----BEGIN …-----");
            };
            if label != block.label {
                return wrong("the block that ends here began with another name");
            }
            let Ok(der) = STANDARD.decode(&block.der) else {
                return Err(PemError::Line {
                    line: block.line,
                    why: "the block that begins here is not base64",
                });
            };
            blocks.push(Block { der, ..block });
        } else if memchr::memmem::find(line, b"-----BEGIN").is_some() {
            return wrong(
                "a block begins here in a way that cannot be read; expected -----BEGIN …----- and nothing else",
            );
        } else if let Some(block) = &mut open {
            if memchr::memmem::find(line, b"ENCRYPTED").is_some() {
                return wrong(
                    "the key is encrypted, and nobody is there to type its password; openssl pkey -in FILE -out FILE2 decrypts it",
                );
            }
            block.der.extend_from_slice(line);
        }
    }
    match open {
        Some(block) => Err(PemError::Line { line: block.line, why: "the block that begins here has no end" }),
        None => Ok(blocks),
    }
}

/// The name between `before` and the closing dashes.
fn marked(line: &[u8], before: &[u8]) -> Option<String> {
    let label = line.strip_prefix(before)?.strip_suffix(b"-----")?;
    let plain = (1..=64).contains(&label.len())
        && label.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ');
    plain.then(|| String::from_utf8_lossy(label).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAEC\nAwQF\n-----END CERTIFICATE-----\n";

    #[test]
    fn blocks_are_read_whatever_is_around_them() {
        let check = |text: &[u8], lines: &[usize]| {
            let found = blocks(text).unwrap();
            assert_eq!(found.iter().map(|b| b.line).collect::<Vec<_>>(), lines);
            assert!(found.iter().all(|b| b.der == [0, 1, 2, 3, 4, 5] && b.label == "CERTIFICATE"));
        };
        check(ONE.as_bytes(), &[1]);
        check(format!("\u{feff}{ONE}# and another\n{ONE}").as_bytes(), &[1, 6]);
        check(ONE.replace('\n', "\r\n").as_bytes(), &[1]);
        check(ONE.trim_end().as_bytes(), &[1]);
        check(b"nothing", &[]);
        check(b"", &[]);
    }

    #[test]
    fn no_block_is_skipped_in_silence() {
        let check = |text: &str, words: &str| {
            let error = blocks(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(&format!("x{ONE}"), "line 1: a block begins here in a way");
        check(&ONE.replace("-----BEGIN", "----BEGIN"), "line 4: a block ends here whose first line");
        check(&ONE.replace("CERTIFICATE-----\nAA", "CERTIFICATE----\nAA"), "line 1: a block begins here");
        check(
            &format!("{}{ONE}", ONE.replace("-----END CERTIFICATE-----\n", "")),
            "line 4: a block begins inside",
        );
        check(&ONE.replace("AAEC", "A!EC"), "line 1: the block that begins here is not base64");
        check(
            &ONE.replace("-----END CERTIFICATE-----\n", ""),
            "line 1: the block that begins here has no end",
        );
        check(
            &ONE.replace("END CERT", "END X CERT"),
            "line 4: the block that ends here began with another name",
        );
        check(&ONE.replace("AAEC", "Proc-Type: 4,ENCRYPTED"), "line 2: the key is encrypted");
        assert!(blocks(b"\xff\xfe-\0").unwrap_err().to_string().contains("UTF-16"));
        assert!(blocks(b"\x30\x82\x01\x02").unwrap_err().to_string().contains("DER"));
    }
}
