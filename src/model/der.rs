//! Just enough of DER to look into certificates and keys: an element's tag and content, one after the other. Pure.
//!
//! Nothing is verified with it; it only finds the words for a person. What does not fit is `None`, never a panic.

/// `SEQUENCE`.
pub const SEQUENCE: u8 = 0x30;
/// `INTEGER`.
pub const INTEGER: u8 = 0x02;
/// `BIT STRING`.
pub const BIT_STRING: u8 = 0x03;
/// `OCTET STRING`.
pub const OCTET_STRING: u8 = 0x04;
/// `OBJECT IDENTIFIER`.
pub const OBJECT: u8 = 0x06;

/// Reads elements from the front.
#[derive(Clone, Copy, Debug)]
pub struct Der<'a>(pub &'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content. Lengths of more than four bytes are refused.
    pub fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let count = usize::from(first & 0x7f);
            if !(1..=4).contains(&count) || rest.len() < count {
                return None;
            }
            length = rest[..count].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = &rest[count..];
        }
        if rest.len() < length {
            return None;
        }
        let (content, after) = rest.split_at(length);
        self.0 = after;
        Some((tag, content))
    }

    /// The content of the next element, if it has that tag.
    pub fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let (found, content) = ahead.element()?;
        (found == tag).then(|| {
            *self = ahead;
            content
        })
    }

    /// Goes into the next element, if it has that tag.
    pub fn enter(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_and_what_does_not_fit_is_nothing() {
        let mut der = Der(&[0x30, 0x03, 0x02, 0x01, 0x07, 0x04, 0x81, 0x01, 0xff]);
        assert_eq!(der.take(INTEGER), None);
        let mut inner = der.enter(SEQUENCE).unwrap();
        assert_eq!((inner.take(INTEGER), inner.element()), (Some(&[7][..]), None));
        assert_eq!(der.element(), Some((OCTET_STRING, &[0xff][..])));
        for bad in [
            &[][..],
            &[2],
            &[2, 2, 1],
            &[2, 0x85, 0, 0, 0, 0, 0],
            &[2, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[2, 0x80],
        ] {
            assert_eq!(Der(bad).element(), None, "{bad:?}");
        }
    }
}
