//! How a file is packed, by the end of its name, whatever its case: the one place that knows it.
//!
//! What this does not do: say what a packed file is, or whether somebody read it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::source::transport::packed::Zstd;

/// Largest piece of packed bytes that is read at once.
const PIECE: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    /// In a way that is not unpacked here.
    Other,
}

const ENDS: [(&str, Packing); 8] = [
    ("gz", Packing::Gzip),
    ("zst", Packing::Zstd),
    ("xz", Packing::Other),
    ("bz2", Packing::Other),
    ("lz4", Packing::Other),
    ("zip", Packing::Other),
    ("z", Packing::Other),
    ("lzma", Packing::Other),
];

impl Packing {
    /// By its name; `None`: it is not packed.
    pub(super) fn of(path: &Path) -> Option<Self> {
        Self::split(path.file_name()?.to_str()?).map(|(_, packing)| packing)
    }

    /// Whether what it holds can be read.
    pub(super) fn is_read(self) -> bool {
        self != Self::Other
    }

    /// The name of before it was packed, and how it was.
    pub(super) fn split(name: &str) -> Option<(&str, Self)> {
        let (plain, end) = name.rsplit_once('.')?;
        let (_, packing) = ENDS.iter().find(|(known, _)| end.eq_ignore_ascii_case(known))?;
        (!plain.is_empty()).then_some((plain, *packing))
    }

    /// What comes out of it, some at a time.
    pub(super) fn unpack(self, handle: File) -> Box<dyn Read + Send> {
        let packed = BufReader::with_capacity(PIECE, handle);
        match self {
            Self::Zstd => Box::new(Zstd::new(packed)),
            Self::Gzip | Self::Other => Box::new(MultiGzDecoder::new(packed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_end_of_the_name_whatever_its_case() {
        for (name, expected) in [
            ("eve.json.1.gz", Some(("eve.json.1", Packing::Gzip))),
            ("EVE.JSON.GZ", Some(("EVE.JSON", Packing::Gzip))),
            ("eve.json.zst", Some(("eve.json", Packing::Zstd))),
            ("eve.json-20261101.XZ", Some(("eve.json-20261101", Packing::Other))),
            ("eve.json", None),
            (".gz", None),
            ("gz", None),
        ] {
            assert_eq!(Packing::split(name), expected, "{name}");
            assert_eq!(Packing::of(Path::new(name)), expected.map(|(_, packing)| packing), "{name}");
        }
    }
}
