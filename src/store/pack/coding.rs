//! How a pack of bodies is made small: LZ4 for what repeats, then DEFLATE for single bytes. Used by `body.rs`.
//!
//! LZ4 alone leaves what does not repeat as it is, and of an alert that is mostly its payload: base64 or printable text,
//! six bits of news in eight. The Huffman code of DEFLATE saves that quarter, and a fifth of what is written to flash in
//! an alert's life (docs/figures.md). DEFLATE of the text itself is larger and slower than of the LZ4 block.
//!
//! A packed pack is one of two, told apart by the first byte:
//!
//! - [`DEFLATED`], then an LZ4 block in raw DEFLATE.
//! - an LZ4 block as it is: its first byte is at least 16, because nothing can be repeated before something was there.
//!   Schema 2 and 3 wrote only these, and they stay as they are; today they are what DEFLATE would not make smaller, and
//!   what came in a burst: it costs a quarter of the intake's CPU then, and the bytes of a day come from quiet hours.
//!
//! Unpacking trusts nothing: it makes no more than it was told to expect, and answers `None` to what does not add up.

use lz4_flex::block;
use miniz_oxide::{deflate, inflate};

/// First byte of a pack that went through DEFLATE.
const DEFLATED: u8 = 1;
/// The fastest there is: LZ4 has found nearly all that repeats.
const LEVEL: u8 = 1;

/// How much time there is for a pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) enum Pace {
    /// As small as it gets.
    #[default]
    Calm,
    /// As quick as it gets.
    Burst,
}

/// Packs what is not empty.
pub(in crate::store) fn pack(plain: &[u8], pace: Pace) -> Vec<u8> {
    let block = block::compress(plain);
    if pace == Pace::Burst {
        return block;
    }
    let mut packed = vec![DEFLATED];
    packed.append(&mut deflate::compress_to_vec(&block, LEVEL));
    if packed.len() < block.len() { packed } else { block }
}

/// What was packed, of `size` bytes.
pub(in crate::store) fn unpack(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let plain = match packed.split_first()? {
        (&DEFLATED, rest) => {
            let most = block::get_maximum_output_size(size);
            block::decompress(&inflate::decompress_to_vec_with_limit(rest, most).ok()?, size).ok()?
        }
        _ => block::decompress(packed, size).ok()?,
    };
    (plain.len() == size).then_some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text of `letters` letters that does not repeat.
    fn noise(letters: u8, length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        std::iter::repeat_with(|| b'0' + random.u8(..letters)).take(length).collect()
    }

    fn check(plain: &[u8]) -> Vec<u8> {
        assert_eq!(pack(plain, Pace::Burst), block::compress(plain));
        let packed = pack(plain, Pace::Calm);
        assert!(packed.len() <= block::compress(plain).len());
        assert_eq!(unpack(&packed, plain.len()).as_deref(), Some(plain));
        packed
    }

    #[test]
    fn noise_in_base64_loses_a_quarter() {
        let noise = noise(64, 32_768);
        assert!(block::compress(&noise).len() >= noise.len());
        let packed = check(&noise);
        assert_eq!(packed[0], DEFLATED);
        assert!(packed.len() < noise.len() * 76 / 100, "{}", packed.len());
    }

    #[test]
    fn what_deflate_does_not_help_is_an_lz4_block() {
        for plain in [&b"x"[..], b"short", &(0..=255).collect::<Vec<u8>>()] {
            let packed = check(plain);
            assert_eq!(packed, block::compress(plain));
            assert!(packed[0] > DEFLATED);
        }
    }

    #[test]
    fn packs_of_schema_3_are_read() {
        for plain in [&b"x"[..], &noise(64, 9_000)] {
            let packed = block::compress(plain);
            assert!(packed[0] >= 16);
            assert_eq!(unpack(&packed, plain.len()).as_deref(), Some(plain));
        }
    }

    #[test]
    fn what_is_cut_or_too_long_makes_nothing() {
        let plain = noise(64, 9_000);
        let sound = pack(&plain, Pace::Calm);
        for cut in 0..sound.len() {
            assert_eq!(unpack(&sound[..cut], plain.len()), None, "{cut} bytes of it");
        }
        assert_eq!(unpack(&sound, plain.len() - 1), None);
        assert_eq!(unpack(&sound, plain.len() + 1), None);
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut bomb = vec![DEFLATED];
        bomb.append(&mut deflate::compress_to_vec(&vec![0; 16 << 20], 9));
        assert!(bomb.len() < 20_000);
        assert_eq!(unpack(&bomb, 32_768), None);
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(letters in 1_u8..200, runs in prop::collection::vec((any::<u16>(), 1_usize..400), 1..60)) {
            let pool = noise(letters, 70_000);
            let plain: Vec<u8> = runs.iter().flat_map(|(at, n)| &pool[usize::from(*at)..][..*n]).copied().collect();
            check(&plain);
        }

        #[test]
        fn any_bytes_come_back(plain in prop::collection::vec(any::<u8>(), 1..3_000)) {
            check(&plain);
        }

        #[test]
        fn hostile_bytes_make_no_more_than_was_asked_for(mut packed in prop::collection::vec(any::<u8>(), 0..2_000), size in 0_usize..5_000) {
            if let Some(plain) = unpack(&packed, size) {
                prop_assert!(plain.len() <= size);
            }
            packed.insert(0, DEFLATED);
            if let Some(plain) = unpack(&packed, size) {
                prop_assert!(plain.len() <= size);
            }
        }

        #[test]
        fn a_changed_byte_makes_no_more_than_was_asked_for(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let plain = noise(64, 3_000);
            let mut packed = pack(&plain, Pace::Calm);
            *at.get_mut(&mut packed) = byte;
            if let Some(plain) = unpack(&packed, 3_000) {
                prop_assert!(plain.len() <= 3_000);
            }
        }
    }
}
