//! What a sync came to, for people: the lines that `sync` and `run --once` have in common.

use std::io::Write;

use super::human::relative;
use crate::model::Timestamp;
use crate::model::text::one_line;
use crate::relay::{DeviceReport, Report};

/// Most lines of a kind; what the server says is of no known length.
const LINES_MAX: usize = 20;

/// `3 created, 0 found there already`, and what was told later of tickets that are there.
pub(super) fn delivered(report: &Report, created: &str) -> String {
    let updated = if report.updated > 0 { format!(", {} updated", report.updated) } else { String::new() };
    format!("{} {created}, {} found there already{updated}", report.created, report.found)
}

/// What came of devices, what failed and what waits, each with its reason, and when it is tried again.
pub(super) fn details(report: &Report, now: Timestamp, out: &mut dyn Write) -> std::io::Result<()> {
    let d = &report.devices;
    if *d != DeviceReport::default() {
        writeln!(
            out,
            "devices: {} created, {} updated, {} to retry, {} dead",
            d.created, d.updated, d.again, d.dead
        )?;
    }
    for (word, lines) in
        [("failed", &report.failures), ("waits", &report.waiting), ("not all read back", &report.unread)]
    {
        for line in lines.iter().take(LINES_MAX) {
            writeln!(out, "{word}: {}", one_line(line))?;
        }
    }
    match report.next_at {
        Some(at) => writeln!(out, "next try {}", relative(at, now)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_failed_what_waits_and_why() {
        let report = Report {
            created: 3,
            updated: 2,
            again: 1,
            next_at: Some(Timestamp::from_secs(3_600)),
            waiting: vec!["prod: `requests_per_hour = 10`: 10 were made".to_owned()],
            failures: vec!["prod is\u{1b}[2J away".to_owned()],
            ..Report::default()
        };
        assert_eq!(
            delivered(&report, "tickets created"),
            "3 tickets created, 0 found there already, 2 updated"
        );
        assert_eq!(delivered(&Report::default(), "created"), "0 created, 0 found there already");
        let mut out = Vec::new();
        details(&report, Timestamp::EPOCH, &mut out).unwrap();
        let expected = "failed: prod is[2J away\nwaits: prod: `requests_per_hour = 10`: 10 were made\n\
                        next try in 60 min\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
