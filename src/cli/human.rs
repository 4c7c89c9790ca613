//! Text for people: tables, spans of time, JSON where it is asked for.

use std::io::{IsTerminal as _, Write};

use comfy_table::{ContentArrangement, Row, Table, presets};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::{CliError, Exit, Outcome, Terminal};
use crate::destination::Fields;
use crate::model::Timestamp;
use crate::model::text::one_line;
use crate::model::time::as_text;
pub(super) use crate::model::time::{relative, span};

/// A table without lines: as wide as it needs where a program reads it, at a terminal as wide as that, each row one line.
/// Cells cannot hold control characters: what sensors write is shown, not obeyed by the terminal.
pub(super) struct Listing {
    table: Table,
    /// Columns that are left out where there is little room.
    left_out: Vec<usize>,
    /// Whether every row has to be one line of the terminal.
    cut: bool,
}

/// Below this width columns are left out.
const NARROW: u16 = 120;
/// A terminal that says less is not believed.
const WIDTH_MIN: u16 = 40;

/// How wide the terminal is that is written to; `None`: it is none. `COLUMNS` counts before what it says itself.
pub(super) fn width(terminal: &Terminal<'_>) -> Option<u16> {
    let said = (terminal.environment.variables)("COLUMNS").and_then(|text| text.parse().ok());
    let own = || {
        let out = std::io::stdout();
        let size =
            out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).map_or(80, |size| size.ws_col));
        size.filter(|_| !cfg!(test))
    };
    said.or_else(own).map(|width: u16| width.max(WIDTH_MIN))
}

impl Listing {
    pub(super) fn new(header: &[&str]) -> Self {
        Self::fitting(None, header, &[])
    }

    /// One that fits that width, and then does without the columns of those names where it is narrow.
    pub(super) fn fitting(width: Option<u16>, header: &[&str], dispensable: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if let Some(width) = width {
            // The first blank of each line is taken away.
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width + 1);
        }
        let is_left_out =
            |name: &str| width.is_some_and(|width| width < NARROW) && dispensable.contains(&name);
        let left_out =
            header.iter().enumerate().filter(|(_, name)| is_left_out(name)).map(|(at, _)| at).collect();
        let mut listing = Self { table, left_out, cut: width.is_some() };
        let names: Vec<String> = header.iter().map(|name| name.to_uppercase()).collect();
        let names = listing.kept(&names.iter().map(String::as_str).collect::<Vec<_>>());
        listing.table.set_header(names);
        listing
    }

    fn kept(&self, cells: &[&str]) -> Row {
        let kept = cells.iter().enumerate().filter(|(at, _)| !self.left_out.contains(at));
        let mut row = Row::from(kept.map(|(_, cell)| one_line(cell).into_owned()).collect::<Vec<_>>());
        if self.cut {
            row.max_height(1);
        }
        row
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        let row = self.kept(cells);
        self.table.add_row(row);
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.print_on(out, false)
    }

    /// Prints it; without the header where it goes on from what was printed before.
    pub(super) fn print_on(&self, out: &mut dyn Write, goes_on: bool) -> std::io::Result<()> {
        for line in self.table.lines().skip(usize::from(goes_on)) {
            // The library puts a space on both sides of each cell.
            writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
        }
        Ok(())
    }
}

/// JSON, one value, indented; times as RFC 3339.
pub(super) fn json(out: &mut dyn Write, value: &impl Serialize) -> Outcome {
    // A reader that has gone is for `main` to judge, as with plain text.
    as_text(|| serde_json::to_writer_pretty(&mut *out, value)).map_err(|e| match e.io_error_kind() {
        Some(_) => CliError::Output(e.into()),
        None => CliError::Json(e),
    })?;
    writeln!(out)?;
    Ok(Exit::Fine)
}

/// A JSON list that is written row by row.
#[derive(Default)]
pub(super) struct JsonList {
    rows: usize,
}

impl JsonList {
    pub(super) fn row(&mut self, out: &mut dyn Write, value: &impl Serialize) -> Result<(), CliError> {
        out.write_all(if self.rows == 0 { b"[" } else { b"," })?;
        self.rows += 1;
        json(out, value).map(drop)
    }

    pub(super) fn end(self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "{}", if self.rows == 0 { "[]" } else { "]" })
    }
}

/// What a record would hold: `fields`, or the `error` for which it cannot be made.
pub(super) fn fields_or_error<S: Serializer>(
    fields: &Result<Fields, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    match fields {
        Ok(fields) => map.serialize_entry("fields", fields)?,
        Err(error) => map.serialize_entry("error", error)?,
    }
    map.end()
}

/// `2026-11-21 08:15:00`, UTC.
pub(super) fn time(at: Timestamp) -> String {
    at.servicenow()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn a_list_fits_the_terminal_a_row_a_line() {
        let mut listing = Listing::fitting(Some(80), &["time", "engine", "title"], &["engine"]);
        listing.row(&["2026-11-21 08:15:00", "anomaly", &"a long title ".repeat(20)]);
        listing.row(&["2026-11-21 08:15:01", "anomaly", "short"]);
        let mut out = Vec::new();
        listing.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains("anomaly") && lines[1].ends_with('…'), "{text}");
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
