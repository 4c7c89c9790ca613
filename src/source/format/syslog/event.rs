//! What CEF and LEEF have in common: who reports, what kind of event, and pairs.

use std::borrow::Cow;

use super::super::super::RejectReason;
use super::pairs::Pairs;

/// A CEF or LEEF message, taken apart.
#[derive(Debug, Default)]
pub(super) struct Event<'a> {
    pub(super) vendor: Cow<'a, str>,
    pub(super) product: Cow<'a, str>,
    pub(super) version: Cow<'a, str>,
    /// Class of the event: `Device Event Class ID`, `EventID`.
    pub(super) class: Cow<'a, str>,
    /// Name; LEEF has none.
    pub(super) name: Cow<'a, str>,
    /// Severity as written in the header; LEEF has none there.
    pub(super) severity: Cow<'a, str>,
    pub(super) pairs: Pairs<'a>,
}

/// Why a message was not taken: reason, and what is wrong, for people.
pub(super) type Refusal = (RejectReason, Cow<'static, str>);

/// Where `mark` begins a header: the mark, digits (a version), a bar. Words may stand before it.
/// What follows the mark.
pub(super) fn find<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    memchr::memmem::find_iter(text.as_bytes(), mark).find_map(|at| {
        let rest = text[at + mark.len()..].trim_start_matches(' ');
        let version = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let bar = (1..=8).contains(&version) && rest.as_bytes().get(version) == Some(&b'|');
        bar.then_some(rest)
    })
}
