//! `kind = "suricata-eve"`: EVE JSON of Suricata, in files or over a socket.

use super::parts::{self, ApartWord};
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::problem::At;
use crate::config::read::{List, Named};
use crate::config::values::{EngineWord, SeverityWord};
use crate::source::format::eve::{self, Eve};
use crate::source::transport::unix::{Listen, Way};
use crate::source::{Input, Settings};

source! {
    /// EVE JSON of Suricata: files, or a socket that it writes to.
    #[schemars(extend("required" = ["name", "kind"]))]
    SuricataEve = "suricata-eve" {
        /// Files by glob: an absolute path that may have `*`, `?`, `[…]`.
        path: String,
        /// Instead of files: the socket of Suricata's `filetype`, `unix_stream:///run/otrelay/eve.sock` or `unix_dgram://…`.
        listen: String,
        /// What tells equal addresses apart: any of `network` (tenant and VLAN), `interface`, `mac`. Default `["network"]`.
        identity: List<ApartWord>,
        /// Rule priority to severity, laid over 1 = critical, 2 = major, 3 = minor, else warning.
        severity_map: Named<SeverityWord>,
        /// Category text to engine, laid over the built-in table.
        engine_map: Named<EngineWord>,
        /// Whether `alert.metadata.signature_severity` overrides the priority. Default true.
        signature_severity: bool,
        /// Zone of timestamps without an offset: an IANA name or `+hh:mm`. Default UTC.
        time_zone: String,
    }
}

impl Kind for SuricataEve {
    const WORD: &'static str = "suricata-eve";
    const LEAST: &'static str = "path = \"/var/log/suricata/eve*.json\"";

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let input = self.input(common.at, c);
        let apart = parts::apart(&self.identity, c);
        let severity_map = parts::priorities(&self.severity_map, c);
        let engine_map = parts::engines(&self.engine_map, c);
        let signature_severity = c.value("signature_severity", &self.signature_severity, true, |v| *v);
        let time_zone = parts::time_zone(&self.time_zone, c);
        let format = Eve::new(eve::Settings {
            common: common.format(severity_map, engine_map)?,
            apart: apart?,
            signature_severity: signature_severity?,
            time_zone: time_zone?,
        });
        common.settings(Self::WORD, input?, format)
    }
}

const LISTEN: &str = "\"unix_stream:///run/otrelay/eve.sock\" or \"unix_dgram://…\"";

impl SuricataEve {
    fn input(&self, table: &At, c: &mut Check<'_>) -> Option<Input> {
        if !self.listen.is_present() {
            return parts::files(&self.path, table, c).map(|pattern| Input::Files { pattern });
        }
        if let Some(at) = self.path.at() {
            c.problems.error(at, "`path` is for files, and `listen` for a socket", |p| {
                p.hint("remove one of them, or make two sources")
            });
        }
        let (text, at) = self.listen.get()?;
        c.effective.note_field("listen", text.clone(), &self.listen);
        let listen = socket(text);
        if listen.is_none() {
            c.problems.error(at, "this is no socket to listen on", |p| {
                p.quoted(text).expected(LISTEN)
            });
        }
        listen.map(Input::Unix)
    }
}

/// `unix_stream:///run/otrelay/eve.sock`. A path has at most 107 bytes there (unix(7)).
fn socket(text: &str) -> Option<Listen> {
    let (way, path) = text.split_once("://")?;
    let way = Way::parse(way)?;
    let fits = path.starts_with('/') && !path.ends_with('/') && path.len() <= 107 && !path.contains('\0');
    fits.then(|| Listen { way, path: path.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_a_way_and_an_absolute_path() {
        let listen = socket("unix_dgram:///run/eve.sock").unwrap();
        assert_eq!((listen.way, listen.path.to_str()), (Way::Datagram, Some("/run/eve.sock")));
        let long = format!("unix_stream:///{}", "x".repeat(107));
        for bad in ["", "/run/eve.sock", "unix_stream://run/eve", "unix_stream:///run/", "tcp:///run/eve", &long] {
            assert_eq!(socket(bad), None, "{bad}");
        }
    }
}
