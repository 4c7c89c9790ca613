//! Zeek's logs, TSV with a header or JSON, one record to one alert or none.
//!
//! `notice` and the listed names of `weird` are alerts; every other log is counted by its kind, and read for what it
//! tells of devices (`devices`). Which log a record is of stands in the header (`#path`), in the record (`_path`), or
//! in the file's name. The header is the decoder's state: after a restart in mid-file it is behind the cursor.
//! What this does not do: read files, follow their rotation, decide what is forwarded.

mod devices;

mod header;

mod kinds;

mod notice;

mod row;

mod tables;

use std::sync::Arc;

use memchr::memmem;

use self::devices::Told;
use self::header::Header;
use self::row::Row;
use super::{Decoded, Decoder, Format, Outcome, Settings, Stream};
use super::{json, parts};
use crate::model::Timestamp;
use crate::source::RejectReason;

/// Zeek's logs as one source reads them. The operator's words are notes (`ssl::weak_key`) and names of weirds; a weird that
/// has one is a finding.
#[derive(Clone, Debug)]
pub struct Zeek {
    settings: Arc<Settings>,
    path_key: memmem::Finder<'static>,
}

impl Zeek {
    /// The format for one source.
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), path_key: memmem::Finder::new(b"\"_path\"") }
    }
}

impl Format for Zeek {
    fn decoder(&self, stream: &Stream<'_>) -> Box<dyn Decoder> {
        let mut log = Log {
            settings: Arc::clone(&self.settings),
            path_key: self.path_key.clone(),
            file_kind: kinds::of_file(stream.name),
            header: stream.state.map(Header::restored).unwrap_or_default(),
            rows: Rows::default(),
            begun: stream.state.is_some(),
            told: Told::default(),
        };
        log.header_changed();
        Box::new(log)
    }
}

struct Log {
    settings: Arc<Settings>,
    path_key: memmem::Finder<'static>,
    /// The log that the file's name says.
    file_kind: &'static str,
    header: Header,
    rows: Rows,
    /// Whether anything was read: the line of names of a log without a header is the first.
    begun: bool,
    told: Told,
}

/// What the rows under the present header are.
struct Rows {
    /// Of which log.
    kind: &'static str,
    /// Whether they are looked into.
    are_read: bool,
    /// Counts their columns.
    separator: memmem::Finder<'static>,
}

impl Default for Rows {
    fn default() -> Self {
        Self { kind: "other", are_read: false, separator: memmem::Finder::new(b"\t") }
    }
}

impl Decoder for Log {
    fn decode(&mut self, record: &[u8], received_at: Timestamp) -> Decoded {
        let line = trim_line_end(record);
        let line = json::begun(line);
        if line.trim_ascii().is_empty() {
            return Outcome::Blank.into();
        }
        let first = !std::mem::replace(&mut self.begun, true);
        match line {
            [b'#', ..] => self.header_line(line).into(),
            // No row of TSV begins with a brace: the first column is the time.
            _ if line.trim_ascii_start().starts_with(b"{") => self.json(line.trim_ascii(), received_at),
            _ => self.tsv(line, first, received_at),
        }
    }

    fn torn(&self, record: &[u8]) -> Option<usize> {
        json::torn(record)
    }

    fn state(&self) -> Option<String> {
        self.header.state()
    }
}

impl Log {
    fn header_line(&mut self, line: &[u8]) -> Outcome {
        let read = self.header.line(&String::from_utf8_lossy(line));
        self.header_changed();
        match read {
            Ok(()) => Outcome::Blank,
            Err(detail) => Outcome::Reject(RejectReason::Malformed, detail),
        }
    }

    fn header_changed(&mut self) {
        let kind = if self.header.path.is_empty() { self.file_kind } else { kinds::named(&self.header.path) };
        let has_macs = kind == "conn" && self.header.column("orig_l2_addr").is_some();
        self.rows = Rows {
            kind,
            are_read: has_macs || is_read(kind),
            separator: memmem::Finder::new(self.header.separator.as_bytes()).into_owned(),
        };
    }

    fn tsv(&mut self, line: &[u8], first: bool, received_at: Timestamp) -> Decoded {
        let malformed = |detail| Outcome::Reject(RejectReason::Malformed, detail).into();
        if self.header.fields.is_empty() {
            let names = first.then(|| Header::of_names(&String::from_utf8_lossy(line))).flatten();
            let Some(header) = names else {
                return malformed("a row before any header: what its columns mean is not known".into());
            };
            self.header = header;
            self.header_changed();
            return Outcome::Blank.into();
        }
        let found = self.rows.separator.find_iter(line).count() + 1;
        let expected = self.header.fields.len();
        if found != expected {
            let detail = format!("{found} columns where the header of the log has {expected} (cut short?)");
            return malformed(detail.into());
        }
        if !self.rows.are_read {
            return Outcome::Ignored(self.rows.kind).into();
        }
        let text = String::from_utf8_lossy(line);
        let row = Row::of_columns(&self.header, &text);
        record(&self.settings, &mut self.told, self.rows.kind, &row, line, received_at)
    }

    fn json(&mut self, line: &[u8], received_at: Timestamp) -> Decoded {
        let malformed = |detail| Outcome::Reject(RejectReason::Malformed, detail).into();
        if !line.ends_with(b"}") {
            return malformed("the JSON object does not end on its line (cut short?)".into());
        }
        let says_kind = self.path_key.find(line).is_some();
        // Most lines are of logs that nothing is read from: then they are counted and not parsed.
        if !says_kind && !is_read(self.file_kind) && !devices::may_have_macs(self.file_kind, line) {
            return Outcome::Ignored(self.file_kind).into();
        }
        let text = String::from_utf8_lossy(line);
        let (settings, told, file_kind) = (&self.settings, &mut self.told, self.file_kind);
        json::read(&text, |value| match value {
            Ok((object, whole)) => {
                let kind = object.get("_path").text().map_or(file_kind, kinds::named);
                let mut decoded = record(settings, told, kind, &Row::Json(&object), line, received_at);
                if let (Outcome::Alert(finding), false) = (&mut decoded.outcome, whole) {
                    parts::note(&mut finding.alert.message, json::CUT);
                }
                decoded
            }
            Err(error) => malformed(error.into()),
        })
    }
}

/// Whether records of this log are looked into.
fn is_read(kind: &str) -> bool {
    matches!(kind, "notice" | "weird") || devices::is_read(kind)
}

fn record(
    settings: &Settings,
    told: &mut Told,
    kind: &'static str,
    row: &Row<'_>,
    line: &[u8],
    received_at: Timestamp,
) -> Decoded {
    let outcome = match kind {
        "notice" => notice::notice(settings, row, line, received_at),
        "weird" => notice::weird(settings, row, line, received_at),
        _ => {
            let devices = devices::of(settings, told, kind, row, received_at);
            return Decoded { outcome: Outcome::Ignored(kind), devices };
        }
    };
    outcome.into()
}

/// Without line end only: blanks and tabs at the end of a row are columns.
fn trim_line_end(record: &[u8]) -> &[u8] {
    let line = record.strip_suffix(b"\n").unwrap_or(record);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests;
