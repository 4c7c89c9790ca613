//! Packed input, unpacked within bounds of size and ratio: a few kilobytes can say terabytes. Pure.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// Up to here any ratio is taken, in bytes.
const FREE: usize = 1024 * 1024;
/// How much longer than packed it may be, beyond that. Logs of one kind come to 50 or 100.
const RATIO_MAX: usize = 200;
/// Largest window of zstd, in bytes: it is allocated on the word of the sender.
const WINDOW_MAX: u64 = 8 * 1024 * 1024;

/// Why it cannot be unpacked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unpack {
    /// Unpacked it is longer than the bound, or out of proportion.
    #[error("unpacked it is longer than {0} bytes, or out of proportion to what was sent")]
    TooLarge(usize),
    /// It is not what it was said to be, or it is cut.
    #[error("it is not whole {0}")]
    Damaged(&'static str),
    /// A coding that is not known here.
    #[error("only gzip and zstd are unpacked")]
    Unknown,
}

/// Unpacks a body by its `Content-Encoding`, to at most `max` bytes.
pub(super) fn unpack(body: Vec<u8>, encoding: &str, max: usize) -> Result<Vec<u8>, Unpack> {
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" if body.len() <= max => Ok(body),
        "" | "identity" => Err(Unpack::TooLarge(max)),
        "gzip" | "x-gzip" => collect(MultiGzDecoder::new(body.as_slice()), body.len(), max, "gzip"),
        "zstd" => zstd(&body, max),
        _ => Err(Unpack::Unknown),
    }
}

/// Frame after frame.
fn zstd(body: &[u8], max: usize) -> Result<Vec<u8>, Unpack> {
    const NAME: &str = "zstd";
    let (mut rest, mut all) = (body, Vec::new());
    while !rest.is_empty() {
        if window(rest).is_none_or(|window| window > WINDOW_MAX) {
            return Err(Unpack::Damaged("zstd with a window of at most 8 MiB"));
        }
        let frame = StreamingDecoder::new(&mut rest).map_err(|_| Unpack::Damaged(NAME))?;
        let more = collect(frame, body.len(), max - all.len(), NAME)?;
        // A frame of nothing is none that a sender would write twice.
        if more.is_empty() && !rest.is_empty() && all.is_empty() {
            return Err(Unpack::Damaged(NAME));
        }
        all.extend_from_slice(&more);
    }
    Ok(all)
}

/// How much memory a frame of zstd asks for (RFC 8878, 3.1.1.1); `None`: no such frame.
fn window(frame: &[u8]) -> Option<u64> {
    let rest = frame.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let byte = *rest.first()?;
        let base = 1_u64 << (10 + u32::from(byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // A single segment: the window is the content.
    let rest = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    let mut size = [0; 8];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    size[..length].copy_from_slice(rest.get(..length)?);
    let size = u64::from_le_bytes(size);
    Some(if length == 2 { size + 256 } else { size })
}

fn collect(mut from: impl Read, packed: usize, max: usize, name: &'static str) -> Result<Vec<u8>, Unpack> {
    let bound = max.min(packed.saturating_mul(RATIO_MAX).max(FREE));
    let mut all = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(all),
            Ok(length) if all.len() + length > bound => return Err(Unpack::TooLarge(max)),
            Ok(length) => {
                if all.len() + length > all.capacity() {
                    // Doubled, but never beyond the bound.
                    all.reserve_exact(all.capacity().max(chunk.len()).min(bound - all.len()).max(length));
                }
                all.extend_from_slice(&chunk[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Unpack::Damaged(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn what_was_packed_comes_back() {
        let text = "alert ".repeat(10_000).into_bytes();
        for (encoding, packed) in [("gzip", gzip(&text)), ("zstd", zstd(&text)), ("identity", text.clone())] {
            assert_eq!(unpack(packed.clone(), encoding, 1 << 20).unwrap(), text, "{encoding}");
            let twice = [packed.clone(), packed].concat();
            assert_eq!(unpack(twice, encoding, 1 << 20).unwrap().len(), 2 * text.len(), "{encoding}");
        }
        assert_eq!(unpack(Vec::new(), "br", 10), Err(Unpack::Unknown));
        assert_eq!(unpack(b"x".to_vec(), "gzip", 10), Err(Unpack::Damaged("gzip")));
        let cut = gzip(&text);
        assert_eq!(unpack(cut[..cut.len() - 9].to_vec(), "gzip", 1 << 20), Err(Unpack::Damaged("gzip")));
    }

    #[test]
    fn bombs_are_bounded_by_size_and_by_ratio() {
        let zeros = vec![0; 8 << 20];
        let bomb = gzip(&zeros);
        assert!(bomb.len() < 10_000);
        let too_large = Err(Unpack::TooLarge(16 << 20));
        assert_eq!(unpack(bomb, "gzip", 16 << 20), too_large);
        assert_eq!(unpack(zstd(&zeros), "zstd", 16 << 20), too_large);
        assert_eq!(unpack(gzip(&zeros[..2000]), "gzip", 1000), Err(Unpack::TooLarge(1000)));
        assert_eq!(unpack(gzip(&zeros[..2000]), "gzip", 2000).unwrap().len(), 2000);
    }

    #[test]
    fn a_window_is_not_taken_on_the_senders_word() {
        // A header that asks for 128 GiB, and one for a single segment of as much.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0, 0];
        assert!(matches!(unpack(frame.to_vec(), "zstd", 1 << 20), Err(Unpack::Damaged(_))));
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0x20, 0, 0, 0, 1, 0, 0];
        assert!(matches!(unpack(frame.to_vec(), "zstd", 1 << 20), Err(Unpack::Damaged(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_within_bounds(mut bytes in prop::collection::vec(any::<u8>(), 0..200), zst in any::<bool>()) {
            if zst {
                bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
            }
            if let Ok(all) = unpack(bytes, if zst { "zstd" } else { "gzip" }, 1000) {
                prop_assert!(all.len() <= 1000);
            }
        }
    }
}
