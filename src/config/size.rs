//! `256MiB`, `8MB`, `512KiB`: text to bytes, and back for `otrelay config show`.

const UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

pub(super) const EXPECTED: &str = "a size such as \"256MiB\", \"8MB\" or \"2GiB\"";

/// Reads a size in bytes; case does not matter. The error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<u64, &'static str> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - unit.len()];
    let unit = unit.trim();
    if digits.is_empty() {
        return Err("it does not begin with a whole number");
    }
    if unit.is_empty() {
        return Err("the unit is missing (B, kB, MB, GB, KiB, MiB or GiB)");
    }
    let (_, bytes) = UNITS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(unit))
        .ok_or("the unit is none of B, kB, MB, GB, KiB, MiB, GiB")?;
    let number: u64 = digits.parse().map_err(|_| "the number is too large")?;
    // i64 is what the store counts in.
    number.checked_mul(*bytes).filter(|n| i64::try_from(*n).is_ok()).ok_or("the number is too large")
}

/// The shortest exact text.
pub(super) fn format(bytes: u64) -> String {
    let exact = UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (unit, size) = exact.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("8MB", 8_000_000),
            ("8 mib", 8 << 20),
            ("2GiB", 2 << 30),
            ("0B", 0),
            ("5kb", 5000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, wrong) in [
            ("", "it does not begin with a whole number"),
            ("-1MB", "it does not begin with a whole number"),
            ("256", "the unit is missing (B, kB, MB, GB, KiB, MiB or GiB)"),
            ("256M", "the unit is none of B, kB, MB, GB, KiB, MiB, GiB"),
            ("1.5GB", "the unit is none of B, kB, MB, GB, KiB, MiB, GiB"),
            ("99999999999999999999MB", "the number is too large"),
            ("9223372036854775807KiB", "the number is too large"),
        ] {
            assert_eq!(parse(text), Err(wrong), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["256MiB", "8MB", "1B", "1GiB", "1500B"] {
            assert_eq!(parse(&format(parse(text).unwrap())), parse(text), "{text}");
        }
        assert_eq!(format(256 << 20), "256MiB");
    }
}
