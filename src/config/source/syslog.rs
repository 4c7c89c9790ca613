//! `kind = "syslog"`: listeners for CEF, LEEF, the text of Defender for `IoT` and plain syslog; or files of such messages, as
//! a syslog server writes them.
//!
//! What is not encrypted and not on a loopback address needs a list of networks: a sender's address is all that there is
//! to know it by. So does TLS that asks for no client certificate.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::{Common, Kind, parts};
use crate::config::check::Check;
use crate::config::problem::At;
use crate::config::read::{Field, List, Named, table, word};
use crate::config::values::{EngineWord, SeverityWord};
use crate::net::listen::{Acceptor, ListenTls};
use crate::source::format::syslog::{self, Payload};
use crate::source::transport::syslog::{Listen, Listeners, Protocol};
use crate::source::{Input, Settings};

/// Most listeners of one source, and most networks.
const LISTENERS_MAX: usize = 16;
const NETWORKS_MAX: usize = 256;
const LISTEN: &str =
    "\"udp://ADDRESS:PORT\", \"tcp://ADDRESS:PORT\" or \"tls://ADDRESS:PORT\" with an IP address";
const ALLOW: &str = "a network or an address, e.g. \"10.20.0.0/16\"";

word! {
    /// What syslog messages hold.
    FormatWord {
        /// Found out from each message.
        Auto = "auto",
        /// Common Event Format.
        Cef = "cef",
        /// Log Event Extended Format.
        Leef = "leef",
        /// The text message of Defender for `IoT`.
        DefenderText = "defender-text",
        /// Text.
        Plain = "plain",
    }
}

/// Something was wrong and has been said.
struct Wrong;

table! {
    /// The certificate of the listeners, and whose certificates senders show.
    #[expect(clippy::struct_field_names, reason = "the names of the keys")]
    SyslogTls {
        /// PEM: the listener's certificate, then those between it and the root.
        cert_file: String,
        /// PEM: its private key.
        key_file: String,
        /// PEM: who signs the certificates that senders have to show. Without it none is asked for.
        client_ca_file: String,
    }
}

source! {
    /// Listeners for syslog, or files of it.
    #[schemars(extend("required" = ["name", "kind"]))]
    Syslog = "syslog" {
        /// Where it listens: `udp://…`, `tcp://…`, `tls://…`, each with an IP address and a port; at most 16.
        listen: List<String>,
        /// Instead of listening: files by glob, a message a line; an absolute path that may have `*`, `?`, `[…]`.
        path: String,
        /// For `tls://`.
        tls: SyslogTls,
        /// Networks that may send, at most 256. Needed where a listener is not on a loopback address, unless its senders show
        /// certificates.
        allow: List<String>,
        /// What the messages hold. Default `auto`.
        format: FormatWord,
        /// Messages a second of one sender, 1 to 1000000: a TCP sender is read no faster, datagrams beyond it are dropped and
        /// counted. Default 100000.
        sender_rate: i64,
        /// Severity as the sender writes it (`8`, `High`; of plain messages the syslog severity `0` to `7`) to ours, laid over
        /// the built-in tables.
        severity_map: Named<SeverityWord>,
        /// Category, event class, title, or program of plain messages to engine, laid over the built-in tables.
        engine_map: Named<EngineWord>,
        /// Zone of times without an offset: an IANA name or `+hh:mm`. Default UTC.
        time_zone: String,
    }
}

impl Kind for Syslog {
    const WORD: &'static str = "syslog";
    const LEAST: &'static str = "listen = [\"udp://127.0.0.1:5514\"]";

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let input =
            if self.path.is_present() { self.files(common.at, c) } else { self.listeners(common.at, c) };
        let payload = match (self.format.get(), self.format.is_present()) {
            (None, true) => None,
            (word, _) => Some(word.map_or(FormatWord::Auto, |(word, _)| *word)),
        };
        c.effective.note_field("format", payload.unwrap_or(FormatWord::Auto).as_str(), &self.format);
        let severity_map = parts::written_severities(&self.severity_map, c);
        let engine_map = parts::engines(&self.engine_map, c);
        let time_zone = parts::time_zone(&self.time_zone, c);
        let format = syslog::Syslog::new(syslog::Settings {
            common: common.format(severity_map, engine_map)?,
            payload: Payload::ALL[payload? as usize],
            time_zone: time_zone?,
        });
        common.settings(Self::WORD, input?, format)
    }
}

impl Syslog {
    fn files(&self, table: &At, c: &mut Check<'_>) -> Option<Input> {
        let foreign = [self.listen.at(), self.tls.at(), self.allow.at(), self.sender_rate.at()];
        for at in foreign.into_iter().flatten() {
            c.problems.error(at, "this key is for listeners, and `path` for files", |p| {
                p.hint("remove one of them, or make two sources")
            });
        }
        parts::files(&self.path, table, c).map(|pattern| Input::Files { pattern })
    }

    fn listeners(&self, table: &At, c: &mut Check<'_>) -> Option<Input> {
        let listen = self.listen(table, c);
        let tls = self.tls(listen.as_deref(), c);
        let allow = self.allow(c);
        if let (Some(listen), Ok(tls), Some(allow)) = (&listen, &tls, &allow) {
            self.is_guarded(listen, tls.as_ref(), allow, c);
        }
        let rate = self.rate(c);
        Some(Input::Syslog(Listeners { listen: listen?, tls: tls.ok()?, allow: allow?, rate: rate? }))
    }

    fn listen(&self, table: &At, c: &mut Check<'_>) -> Option<Vec<Listen>> {
        let (list, at) = c.required("listen", &self.listen, table, &format!("a list of {LISTEN}"))?;
        c.note_list("listen", &self.listen, list, |text| text.as_str());
        if list.written == 0 || list.written > LISTENERS_MAX {
            c.problems.error(at, "the number of listeners", |p| {
                p.found(list.written.to_string()).expected(format!("1 to {LISTENERS_MAX}"))
            });
            return None;
        }
        let mut checked: Vec<Listen> = Vec::new();
        for (text, at) in &list.items {
            match listener(text) {
                Some(listen) if checked.contains(&listen) => {
                    c.problems.error(at, "the same listener twice", |p| p.hint("remove one"));
                }
                Some(listen) => checked.push(listen),
                None => c
                    .problems
                    .error(at, "this is not a listener", |p| p.quoted(text).expected(LISTEN)),
            }
        }
        (checked.len() == list.written).then_some(checked)
    }

    /// `None`: no TLS, and no listener that needs it.
    fn tls(&self, listen: Option<&[Listen]>, c: &mut Check<'_>) -> Result<Option<ListenTls>, Wrong> {
        let wanted = listen.is_none_or(|all| all.iter().any(|listen| listen.protocol == Protocol::Tls));
        let Some((tls, at)) = self.tls.get() else {
            if let (true, Some(_), Some(at)) = (wanted, listen, self.listen.at()) {
                c.problems.error(at, "a tls:// listener without a certificate", |p| {
                    p.expected("tls = { cert_file = \"…\", key_file = \"…\" }")
                });
            }
            let fine = !self.tls.is_present() && (!wanted || listen.is_none());
            return if fine { Ok(None) } else { Err(Wrong) };
        };
        let files = [
            ("cert_file", &tls.cert_file),
            ("key_file", &tls.key_file),
            ("client_ca_file", &tls.client_ca_file),
        ];
        let mut paths = [None, None, None];
        for ((name, field), path) in files.into_iter().zip(&mut paths) {
            if name != "client_ca_file" || field.is_present() {
                *path = file(name, field, at, "an absolute path of a PEM file", c);
                path.as_ref().ok_or(Wrong)?;
            }
        }
        if !wanted {
            c.problems.warn(at, "no tls:// listener uses it", |p| p.hint("remove it, or listen on tls://"));
            return Ok(None);
        }
        let [cert_file, key_file, client_ca_file] = paths;
        let settings = ListenTls { cert_file: cert_file.ok_or(Wrong)?, key_file: key_file.ok_or(Wrong)?, client_ca_file };
        if let Err(error) = Acceptor::new(&settings) {
            c.problems.error(at, error.to_string(), |p| p.expected("PEM files that this user may read"));
            return Err(Wrong);
        }
        Ok(Some(settings))
    }

    fn allow(&self, c: &mut Check<'_>) -> Option<Vec<IpNet>> {
        let Some((list, at)) = self.allow.get() else { return (!self.allow.is_present()).then(Vec::new) };
        c.note_list("allow", &self.allow, list, |text| text.as_str());
        if list.written == 0 || list.written > NETWORKS_MAX {
            c.problems.error(at, "the number of networks", |p| {
                p.found(list.written.to_string()).expected(format!("1 to {NETWORKS_MAX}"))
            });
            return None;
        }
        let mut checked = Vec::new();
        for (text, at) in &list.items {
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            match network {
                Ok(network) => checked.push(network),
                Err(_) => c
                    .problems
                    .error(at, "this is not a network", |p| p.quoted(text).expected(ALLOW)),
            }
        }
        (checked.len() == list.written).then_some(checked)
    }

    /// Whoever can reach a listener that is not on a loopback address has to be known by something.
    fn is_guarded(&self, listen: &[Listen], tls: Option<&ListenTls>, allow: &[IpNet], c: &mut Check<'_>) {
        let certificates = tls.is_some_and(|tls| tls.client_ca_file.is_some());
        let open = listen.iter().find(|listen| {
            let proven = listen.protocol == Protocol::Tls && certificates;
            !listen.address.ip().to_canonical().is_loopback() && !proven && allow.is_empty()
        });
        if let (Some(open), Some(at)) = (open, self.listen.at()) {
            let message = format!("anybody who can reach {open} could send alerts");
            c.problems.error(at, message, |p| {
                p.expected("allow = [\"NETWORK\", …], or tls:// with tls.client_ca_file")
                    .hint("name the networks of the senders in `allow`, or listen on 127.0.0.1")
            });
        }
    }

    fn rate(&self, c: &mut Check<'_>) -> Option<u32> {
        let rate = c.value("sender_rate", &self.sender_rate, 100_000, |rate| *rate)?;
        let checked = u32::try_from(rate).ok().filter(|rate| (1..=1_000_000).contains(rate));
        if let (None, Some(at)) = (checked, self.sender_rate.at()) {
            c.problems.error(at, "this is not a rate", |p| {
                p.found(rate.to_string()).expected("1 to 1000000 messages a second")
            });
        }
        checked
    }
}

fn listener(text: &str) -> Option<Listen> {
    let (protocol, address) = text.split_once("://")?;
    let protocol = Protocol::parse(protocol)?;
    let address: SocketAddr = address.strip_suffix('/').unwrap_or(address).parse().ok()?;
    (address.port() != 0).then_some(Listen { protocol, address })
}

/// A file of a listener's certificate.
pub(super) fn file(
    name: &str,
    field: &Field<String>,
    table: &At,
    expected: &str,
    c: &mut Check<'_>,
) -> Option<PathBuf> {
    let (path, at) = c.required(name, field, table, expected)?;
    c.effective.note_field(&format!("tls.{name}"), path.clone(), field);
    if !path.starts_with('/') {
        c.problems.error(at, "the path has to be absolute", |p| p.quoted(path));
        return None;
    }
    c.service_reads(Path::new(path), at);
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use crate::config::parse_str;

    fn check(lines: &str, expected: &str) {
        let text = format!(
            "[sync]\nenabled = false\n[agent]\nname = \"a\"\nid = \"i\"\n[[source]]\nname = \"s\"\nkind = \"syslog\"\n{lines}\n"
        );
        let said = parse_str("t", &text).map_or_else(|error| error.to_string(), |_| String::new());
        assert!(
            if expected.is_empty() { said.is_empty() } else { said.contains(expected) },
            "{lines}: {said}"
        );
    }

    #[test]
    fn who_may_reach_a_listener_has_to_be_known() {
        let anybody = "anybody who can reach";
        check("listen = [\"udp://127.0.0.1:5514\", \"tcp://[::1]:5514\"]", "");
        check("listen = [\"udp://0.0.0.0:5514\"]", anybody);
        check("listen = [\"tcp://[::]:5514\"]", anybody);
        check("listen = [\"tcp://10.0.0.1:5514\"]", anybody);
        check(
            "listen = [\"udp://0.0.0.0:5514\"]\nallow = [\"10.20.0.0/16\", \"10.1.1.1\", \"fd00::/8\"]",
            "",
        );
        check("listen = [\"tls://0.0.0.0:6514\"]", "a tls:// listener without a certificate");
    }

    #[test]
    fn every_key_is_checked() {
        check("", "missing");
        check("listen = []", "the number of listeners");
        check("listen = [\"udp://localhost:5514\"]", "this is not a listener");
        check("listen = [\"http://127.0.0.1:5514\"]", "this is not a listener");
        check("listen = [\"udp://127.0.0.1:0\"]", "this is not a listener");
        check("listen = [\"udp://127.0.0.1:5514\", \"udp://127.0.0.1:5514\"]", "the same listener twice");
        let with = |line: &str| format!("listen = [\"udp://127.0.0.1:5514\"]\n{line}");
        check(&with("allow = [\"10.20.0.0/33\"]"), "this is not a network");
        check(&with("allow = []"), "the number of networks");
        check(&with("sender_rate = 0"), "this is not a rate");
        check(&with("format = \"xml\""), "unknown word");
        check(&with("severity_map = { High = \"critical\", high = \"major\" }"), "the same severity twice");
        check(
            &with(
                "severity_map = { 8 = \"critical\" }\nengine_map = { Scan = \"malware\" }\nformat = \"cef\"",
            ),
            "",
        );
        check(&with("time_zone = \"Mars\""), "unknown time zone");
        check("path = \"/var/log/ot/*.log\"\nformat = \"cef\"", "");
        check(&with("path = \"/var/log/ot/*.log\""), "this key is for listeners");
        check("path = \"ot.log\"", "the path has to be absolute");
        check(&with("tls = { cert_file = \"c.pem\", key_file = \"/k.pem\" }"), "has to be absolute");
        check(
            "listen = [\"tls://127.0.0.1:6514\"]\ntls = { cert_file = \"/nowhere/c.pem\", key_file = \"/nowhere/k.pem\" }",
            "could not use tls.cert_file /nowhere/c.pem",
        );
        check("listen = [\"tls://127.0.0.1:6514\"]\ntls = { cert_file = \"/nowhere/c.pem\" }", "missing");
    }
}
