//! How a pack of bodies is made small: LZ4 for what repeats, then a Huffman code for single bytes. Used by `body.rs`.
//!
//! LZ4 alone leaves what does not repeat as it is, and of an alert that is mostly its payload: base64 or printable text,
//! six bits of news in eight. The code saves that quarter, and a fifth of what is written to flash in an alert's life
//! (docs/figures.md). zstd would do both, but is C.
//!
//! A packed pack is one of two, told apart by the first byte:
//!
//! - [`CODED`], the lengths of the parts, then both parts of an LZ4 block, each under a code of its own, because they have
//!   nothing in common: its tokens, lengths and offsets (`control`) and its literals.
//! - an LZ4 block as it is: its first byte is at least 16, because nothing can be repeated before something was there.
//!   Schema 2 and 3 wrote only these; today they are what a code would not make smaller.
//!
//! Unpacking trusts nothing: it makes no more than it was told to expect, and answers `None` to what does not add up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use lz4_flex::block;

/// First byte of a pack whose bytes are coded.
const CODED: u8 = 1;
/// Longest code in bits; decoding looks that many up at once.
const LONGEST: u32 = 11;
/// Bytes of the lengths of all codes, four bits each.
const LENGTHS: usize = 128;
/// Bytes before the coded parts: the tag; how long control and literals are, and the coded control; two sets of lengths.
const HEAD: usize = 1 + 3 * 4 + 2 * LENGTHS;

/// Lengths of the codes of all bytes; 0: the byte does not occur.
type Lengths = [u8; 256];

/// Packs what is not empty.
pub(super) fn pack(plain: &[u8]) -> Vec<u8> {
    let block = block::compress(plain);
    match coded(&block) {
        Some(coded) if coded.len() < block.len() => coded,
        _ => block,
    }
}

/// What was packed, of `size` bytes.
pub(super) fn unpack(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    if packed.first() == Some(&CODED) {
        return block::decompress(&decoded(packed, block::get_maximum_output_size(size))?, size).ok();
    }
    block::decompress(packed, size).ok()
}

fn coded(block: &[u8]) -> Option<Vec<u8>> {
    let (control, literals) = split(block)?;
    let (of_control, of_literals) = (lengths(&control), lengths(&literals));
    let mut out = Vec::with_capacity(HEAD + block.len());
    out.push(CODED);
    out.extend_from_slice(&u32::try_from(control.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&u32::try_from(literals.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for lengths in [&of_control, &of_literals] {
        out.extend(lengths.chunks_exact(2).map(|two| two[0] << 4 | two[1]));
    }
    encode(&control, &of_control, &mut out);
    let bits = u32::try_from(out.len() - HEAD).ok()?;
    out[9..13].copy_from_slice(&bits.to_le_bytes());
    encode(&literals, &of_literals, &mut out);
    Some(out)
}

/// The LZ4 block, of at most `most` bytes.
fn decoded(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    let (head, bits) = packed.split_at_checked(HEAD)?;
    let number = |at: usize| {
        let bytes = head.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (control, literals) = (number(1)?, number(5)?);
    if control.checked_add(literals)? > most {
        return None;
    }
    let (control_bits, literal_bits) = bits.split_at_checked(number(9)?)?;
    let (of_control, of_literals) = head[13..].split_at(LENGTHS);
    join(&decode(control_bits, control, of_control)?, &decode(literal_bits, literals, of_literals)?)
}

/// Parts an LZ4 block. A sequence is a token, the rest of the length of its literals, the literals, an offset of two
/// bytes, the rest of the length of the match; the last one ends with its literals.
fn split(block: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut control, mut literals) = (Vec::with_capacity(block.len() / 4), Vec::with_capacity(block.len()));
    let mut rest = block;
    loop {
        let token = *rest.split_off_first()?;
        control.push(token);
        let run = length(token >> 4, &mut rest, &mut control)?;
        literals.extend_from_slice(rest.split_off(..run)?);
        if rest.is_empty() {
            return Some((control, literals));
        }
        control.extend_from_slice(rest.split_off(..2)?);
        length(token & 15, &mut rest, &mut control)?;
    }
}

/// The LZ4 block that was parted.
fn join(mut control: &[u8], mut literals: &[u8]) -> Option<Vec<u8>> {
    let mut block = Vec::with_capacity(control.len() + literals.len());
    loop {
        let token = *control.split_off_first()?;
        block.push(token);
        let run = length(token >> 4, &mut control, &mut block)?;
        block.extend_from_slice(literals.split_off(..run)?);
        if control.is_empty() {
            return literals.is_empty().then_some(block);
        }
        block.extend_from_slice(control.split_off(..2)?);
        length(token & 15, &mut control, &mut block)?;
    }
}

/// A length that begins with four bits of a token; 15 is gone on with, up to the first byte that is not 255. What is read
/// is also appended to `to`.
fn length(four_bits: u8, from: &mut &[u8], to: &mut Vec<u8>) -> Option<usize> {
    let mut sum = usize::from(four_bits);
    let mut more = four_bits == 15;
    while more {
        let byte = *from.split_off_first()?;
        to.push(byte);
        sum = sum.checked_add(usize::from(byte))?;
        more = byte == 255;
    }
    Some(sum)
}

/// The lengths of a Huffman code for these bytes, none above [`LONGEST`].
fn lengths(bytes: &[u8]) -> Lengths {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    loop {
        let lengths = huffman(&counts);
        if lengths.iter().all(|length| u32::from(*length) <= LONGEST) {
            return lengths;
        }
        // Flatter, until it fits: at the latest with 1 everywhere, which is eight bits.
        counts.iter_mut().filter(|n| **n > 0).for_each(|n| *n = *n >> 1 | 1);
    }
}

fn huffman(counts: &[u32; 256]) -> Lengths {
    // Nodes: the bytes, then what joins two of them, which comes after both.
    let mut parent = [0_usize; 511];
    let mut heap: BinaryHeap<Reverse<(u32, usize)>> =
        (0..256).filter(|byte| counts[*byte] > 0).map(|byte| Reverse((counts[byte], byte))).collect();
    if let (1, Some(Reverse((_, only)))) = (heap.len(), heap.peek()) {
        let mut lengths = [0; 256];
        lengths[*only] = 1;
        return lengths;
    }
    let mut next = 256;
    while let (Some(Reverse((a, left))), Some(Reverse((b, right)))) = (heap.pop(), heap.pop()) {
        (parent[left], parent[right]) = (next, next);
        heap.push(Reverse((a + b, next)));
        next += 1;
        if heap.len() == 1 {
            break;
        }
    }
    let mut depth = [0_u8; 511];
    for node in (0..next.saturating_sub(1)).rev().filter(|node| parent[*node] > 0) {
        depth[node] = depth[parent[node]].saturating_add(1);
    }
    std::array::from_fn(|byte| depth[byte])
}

/// The codes: by length, then by byte, each one more than the one before it.
fn codes(lengths: &Lengths) -> [u32; 256] {
    let mut codes = [0; 256];
    let mut code = 0;
    for length in 1..=LONGEST {
        for byte in (0..256).filter(|byte| u32::from(lengths[*byte]) == length) {
            codes[byte] = code;
            code += 1;
        }
        code <<= 1;
    }
    codes
}

fn encode(bytes: &[u8], lengths: &Lengths, out: &mut Vec<u8>) {
    let codes = codes(lengths);
    // The lowest `filled` bits are not written yet; what is above them is.
    let (mut bits, mut filled) = (0_u64, 0);
    for byte in bytes {
        let byte = usize::from(*byte);
        bits = bits << lengths[byte] | u64::from(codes[byte]);
        filled += u32::from(lengths[byte]);
        if filled >= 32 {
            filled -= 32;
            out.extend_from_slice(&((bits >> filled) as u32).to_be_bytes());
        }
    }
    let last = ((bits << (32 - filled)) as u32).to_be_bytes();
    out.extend_from_slice(&last[..filled.div_ceil(8) as usize]);
}

/// Exactly `count` bytes of exactly these bits; the lengths as they are in the head.
fn decode(bits: &[u8], count: usize, lengths: &[u8]) -> Option<Vec<u8>> {
    // A byte takes at least a bit, so a lie about the number costs no memory.
    if count > bits.len().checked_mul(8)? {
        return None;
    }
    let table = table(lengths)?;
    let mut out = Vec::with_capacity(count);
    let (mut rest, mut window, mut filled) = (bits, 0_u64, 0_u32);
    let mut made_up = 0;
    for _ in 0..count {
        while filled < LONGEST {
            if let Some((four, after)) = rest.split_first_chunk() {
                (window, filled, rest) =
                    (window << 32 | u64::from(u32::from_be_bytes(*four)), filled + 32, after);
            } else {
                // Behind the last bit are as many zeros as the look-up needs.
                made_up += u32::from(rest.is_empty()) * 8;
                let byte = rest.split_off_first().copied().unwrap_or_default();
                (window, filled) = (window << 8 | u64::from(byte), filled + 8);
            }
        }
        let (byte, length) = table[(window >> (filled - LONGEST)) as usize & ((1 << LONGEST) - 1)];
        if length == 0 {
            return None;
        }
        filled -= u32::from(length);
        out.push(byte);
    }
    // No made up bit was used, and less than a byte is left.
    (rest.is_empty() && (made_up..made_up + 8).contains(&filled)).then_some(out)
}

/// For all that the next bits can be: which byte, and the length of its code; 0: no code begins like this.
fn table(lengths: &[u8]) -> Option<Vec<(u8, u8)>> {
    let lengths: Lengths = std::array::from_fn(|byte| lengths[byte / 2] >> (4 * (1 - byte % 2)) & 15);
    let codes = codes(&lengths);
    let mut table = vec![(0, 0); 1 << LONGEST];
    for (byte, length) in (0..=255).zip(lengths).filter(|(_, length)| *length > 0) {
        let shift = LONGEST.checked_sub(u32::from(length))?;
        let first = (codes[usize::from(byte)] as usize) << shift;
        // More codes than there is room for end here.
        table.get_mut(first..first + (1 << shift))?.fill((byte, length));
    }
    Some(table)
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
        let packed = pack(plain);
        assert!(packed.len() <= block::compress(plain).len());
        assert_eq!(unpack(&packed, plain.len()).as_deref(), Some(plain));
        packed
    }

    #[test]
    fn noise_in_base64_loses_a_quarter() {
        let noise = noise(64, 32_768);
        assert!(block::compress(&noise).len() >= noise.len());
        let packed = check(&noise);
        assert_eq!(packed[0], CODED);
        assert!(packed.len() < noise.len() * 76 / 100, "{}", packed.len());
    }

    #[test]
    fn what_a_code_does_not_help_is_an_lz4_block() {
        for plain in [&b"x"[..], b"short", &[7; 5_000], &(0..=255).collect::<Vec<u8>>()] {
            let packed = check(plain);
            assert_eq!(packed, block::compress(plain));
            assert!(packed[0] > CODED);
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
    fn codes_stay_short_however_rare_a_byte_is() {
        // Fibonacci numbers make the deepest tree there is.
        let (mut a, mut b) = (1, 1);
        let mut plain = Vec::new();
        for byte in 0..24 {
            plain.resize(plain.len() + a, byte);
            (a, b) = (b, a + b);
        }
        let lengths = lengths(&plain);
        assert!(lengths.iter().all(|length| u32::from(*length) <= LONGEST));
        let mut bits = Vec::new();
        encode(&plain, &lengths, &mut bits);
        let packed: Vec<u8> = lengths.chunks(2).map(|two| two[0] << 4 | two[1]).collect();
        assert_eq!(decode(&bits, plain.len(), &packed), Some(plain));
    }

    #[test]
    fn a_number_that_lies_makes_nothing() {
        let plain = noise(64, 9_000);
        let sound = pack(&plain);
        for (at, lie) in [(1, u32::MAX), (1, 0), (5, u32::MAX), (5, 8_000), (5, 9_100), (9, u32::MAX), (9, 0)]
        {
            let mut packed = sound.clone();
            packed[at..at + 4].copy_from_slice(&lie.to_le_bytes());
            assert_eq!(unpack(&packed, plain.len()), None, "{lie} at {at}");
        }
        for cut in 0..sound.len() {
            assert_eq!(unpack(&sound[..cut], plain.len()), None, "{cut} bytes of it");
        }
        assert_eq!(unpack(&[sound.clone(), vec![0]].concat(), plain.len()), None);
        assert_eq!(unpack(&sound, plain.len() - 1), None);
    }

    #[test]
    fn codes_without_room_make_nothing() {
        let packed = pack(&noise(64, 9_000));
        for nibbles in [0x11, 0xff, 0xcc, 0x00] {
            let mut packed = packed.clone();
            packed[13..HEAD].fill(nibbles);
            assert_eq!(unpack(&packed, 9_000), None, "{nibbles:x}");
        }
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
            packed.insert(0, CODED);
            if let Some(plain) = unpack(&packed, size) {
                prop_assert!(plain.len() <= size);
            }
        }

        #[test]
        fn a_changed_byte_makes_no_more_than_was_asked_for(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let plain = noise(64, 3_000);
            let mut packed = pack(&plain);
            *at.get_mut(&mut packed) = byte;
            if let Some(plain) = unpack(&packed, 3_000) {
                prop_assert!(plain.len() <= 3_000);
            }
        }
    }
}
