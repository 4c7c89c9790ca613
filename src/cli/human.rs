//! Text for people: tables, spans of time, JSON where it is asked for.

use std::io::Write;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::CliError;
use crate::model::Timestamp;
use crate::model::text::one_line;

/// A table without lines, as wide as it needs. Cells cannot hold control characters: what sensors write is shown, not
/// obeyed by the terminal.
pub(super) struct Listing(Table);

impl Listing {
    pub(super) fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.iter().map(|name| name.to_uppercase()));
        Self(table)
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        self.0.add_row(cells.iter().map(|cell| one_line(cell).into_owned()));
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for line in self.0.lines() {
            // The library puts a space on both sides of each cell.
            writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
        }
        Ok(())
    }
}

/// JSON, one value, indented.
pub(super) fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), CliError> {
    // A reader that has gone is for `main` to judge, as with plain text.
    serde_json::to_writer_pretty(&mut *out, value).map_err(|e| match e.io_error_kind() {
        Some(_) => CliError::Output(e.into()),
        None => CliError::Json(e),
    })?;
    writeln!(out)?;
    Ok(())
}

/// `3 min`, `2 h`, `5 d`: one unit is enough to act on.
pub(super) fn span(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

/// `3 min ago`, or `in 3 min`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", span(at.since(now))) } else { format!("{} ago", span(now.since(at))) }
}

/// `2026-11-21 08:15:00`, UTC.
pub(super) fn time(at: Timestamp) -> String {
    at.servicenow()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit() {
        for (secs, text) in [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 d")] {
            assert_eq!(span(Duration::from_secs(secs)), text);
        }
        let now = Timestamp::from_secs(1_000);
        assert_eq!(relative(Timestamp::from_secs(940), now), "60 s ago");
        assert_eq!(relative(Timestamp::from_secs(1_300), now), "in 5 min");
    }

    #[test]
    fn a_sensor_cannot_talk_to_the_terminal() {
        let mut listing = Listing::new(&["title"]);
        listing.row(&["a\u{1b}[2Jb\nc"]);
        let mut out = Vec::new();
        listing.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("a[2Jb c") && !text.contains('\u{1b}'), "{text:?}");
    }
}
