//! Packed input, unpacked within bounds of size and ratio: a few kilobytes can say terabytes. Pure.

use std::error::Error;
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError as Frame, ReadFrameHeaderError as Header};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Up to here any ratio is taken, in bytes.
const FREE: usize = 1024 * 1024;
/// How much longer than packed it may be, beyond that. Logs of one kind come to 50 or 100.
const RATIO_MAX: usize = 200;
/// Largest window of zstd, in bytes: it is allocated on the word of the sender.
const WINDOW_MAX: u64 = 8 * 1024 * 1024;
/// Most frames of zstd in a row that hold nothing: who reads would wait for what never comes.
const EMPTY_MAX: usize = 64;

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
        "zstd" => collect(Zstd::new(body.as_slice()), body.len(), max, "zstd with a window of at most 8 MiB"),
        _ => Err(Unpack::Unknown),
    }
}

/// Frames of zstd, one after the other, as they stand in a body or a file.
pub(super) struct Zstd<R> {
    from: R,
    frame: FrameDecoder,
    begun: bool,
    /// Frames without content in a row.
    empty: usize,
}

impl<R: BufRead> Zstd<R> {
    pub(super) fn new(from: R) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(WINDOW_MAX);
        Self { from, frame, begun: false, empty: 0 }
    }

    /// Begins the next frame; whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.from.fill_buf()?.is_empty() {
            if self.empty == EMPTY_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "too many frames without content"));
            }
            self.empty += 1;
            let mut from: &mut dyn Read = &mut self.from;
            match self.frame.reset(&mut from) {
                Ok(()) => {
                    self.begun = true;
                    return Ok(true);
                }
                // What somebody put there for others.
                Err(Frame::ReadFrameHeaderError(Header::SkipFrame { length, .. })) => {
                    io::copy(&mut from.take(u64::from(length)), &mut io::sink())?;
                }
                Err(error) => return Err(cause(&error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.begun && self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let mut from: &mut dyn Read = &mut self.from;
                self.frame
                    .decode_blocks(&mut from, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| cause(&error))?;
            }
            if self.begun && self.frame.can_collect() > 0 {
                self.empty = 0;
                return self.frame.read(buffer);
            }
            if !self.begin()? {
                return Ok(0);
            }
        }
    }
}

/// What the disk says is no fault of what was packed, and is told as the disk said it.
fn cause(error: &Frame) -> io::Error {
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(one) = at {
        if let Some(number) = one.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(number);
        }
        at = one.source();
    }
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
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
    fn frames_without_content_end() {
        let empty = zstd(b"");
        let few = [empty.repeat(EMPTY_MAX - 1), zstd(b"x")].concat();
        assert_eq!(unpack(few, "zstd", 10).unwrap(), b"x");
        assert!(unpack(empty.repeat(EMPTY_MAX + 1), "zstd", 10).is_err());
        // A frame for others, of three bytes.
        let skipped = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(b"x")].concat();
        assert_eq!(unpack(skipped, "zstd", 10).unwrap(), b"x");
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
