//! Answers that come packed although nobody asked: delivery networks do that. Unpacked within the cap of the answer, and
//! checked against their own sum. Pure.

use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit, decompress_to_vec_zlib_with_limit};

/// Why an answer could not be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Unpacked it is longer than the cap.
    TooLarge,
    /// It is not what its header says, or it is cut.
    Damaged,
    /// A kind that is not known here.
    Unknown,
}

/// Unpacks `body` to at most `limit` bytes. `encoding` is the header `Content-Encoding`.
pub(super) fn unpack(body: Vec<u8>, encoding: &str, limit: usize) -> Result<Vec<u8>, Trouble> {
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body),
        // Some announce what they then do not do.
        _ if body.is_empty() => Ok(body),
        "gzip" | "x-gzip" => gzip(&body, limit),
        "deflate" => inflated(decompress_to_vec_zlib_with_limit(&body, limit)),
        _ => Err(Trouble::Unknown),
    }
}

fn inflated(result: Result<Vec<u8>, miniz_oxide::inflate::DecompressError>) -> Result<Vec<u8>, Trouble> {
    result.map_err(|e| match e.status {
        TINFLStatus::HasMoreOutput => Trouble::TooLarge,
        _ => Trouble::Damaged,
    })
}

/// One member (RFC 1952), as every server sends it.
fn gzip(body: &[u8], limit: usize) -> Result<Vec<u8>, Trouble> {
    let packed = after_header(body).ok_or(Trouble::Damaged)?;
    let (packed, end) = packed.split_last_chunk::<8>().ok_or(Trouble::Damaged)?;
    let plain = inflated(decompress_to_vec_with_limit(packed, limit))?;
    let (sum, length) = end.split_at(4);
    let whole = sum == crc32(&plain).to_le_bytes() && length == (plain.len() as u32).to_le_bytes();
    if whole { Ok(plain) } else { Err(Trouble::Damaged) }
}

fn after_header(body: &[u8]) -> Option<&[u8]> {
    let (head, mut rest) = body.split_at_checked(10)?;
    let flags = head[3];
    if !head.starts_with(&[0x1f, 0x8b, 8]) || flags & 0xe0 != 0 {
        return None;
    }
    if flags & 4 != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    // File name and comment, each with a zero at its end.
    for flag in [8, 16] {
        if flags & flag != 0 {
            rest = &rest[memchr::memchr(0, rest)? + 1..];
        }
    }
    if flags & 2 != 0 { rest.get(2..) } else { Some(rest) }
}

/// The sum of gzip. Bit by bit: an answer is small, and packed ones are rare.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
pub(super) fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    body.extend(miniz_oxide::deflate::compress_to_vec(plain, 6));
    body.extend(crc32(plain).to_le_bytes());
    body.extend((plain.len() as u32).to_le_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = br#"{"result":[]}"#;

    #[test]
    fn known_kinds_are_unpacked() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(unpack(gzipped(PLAIN), "gzip", 100).unwrap(), PLAIN);
        assert_eq!(unpack(gzipped(PLAIN), " X-GZIP", 100).unwrap(), PLAIN);
        let zlib = miniz_oxide::deflate::compress_to_vec_zlib(PLAIN, 6);
        assert_eq!(unpack(zlib, "deflate", 100).unwrap(), PLAIN);
        assert_eq!(unpack(PLAIN.to_vec(), "identity", 1).unwrap(), PLAIN);
        assert_eq!(unpack(Vec::new(), "br", 1).unwrap(), b"");
        let mut named = gzipped(PLAIN);
        named[3] = 8 | 4;
        named.splice(10..10, *b"\x02\0xyname\0");
        assert_eq!(unpack(named, "gzip", 100).unwrap(), PLAIN);
    }

    #[test]
    fn bounds_and_damage() {
        let bomb = gzipped(&vec![0; 1 << 20]);
        assert!(bomb.len() < 2000);
        assert_eq!(unpack(bomb, "gzip", 64 << 10), Err(Trouble::TooLarge));
        assert_eq!(unpack(PLAIN.to_vec(), "br", 100), Err(Trouble::Unknown));
        assert_eq!(unpack(PLAIN.to_vec(), "gzip", 100), Err(Trouble::Damaged));
        let whole = gzipped(PLAIN);
        for end in 1..whole.len() {
            assert_eq!(unpack(whole[..end].to_vec(), "gzip", 100), Err(Trouble::Damaged), "{end}");
        }
        for at in [0, 2, 12, whole.len() - 8, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 0x40;
            assert_eq!(unpack(bad, "gzip", 100), Err(Trouble::Damaged), "{at}");
        }
    }
}
