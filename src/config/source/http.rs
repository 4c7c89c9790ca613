//! `kind = "http"`: a listener that alerts as JSON are pushed to.

use std::net::SocketAddr;

use super::syslog::{SyslogTls, file};
use super::{Common, Kind, parts};
use crate::config::Purpose;
use crate::config::check::Check;
use crate::config::destination::fetch;
use crate::config::problem::At;
use crate::config::read::Named;
use crate::config::values::{EngineWord, SecretRef, SeverityWord};
use crate::net::listen::{Acceptor, ListenError, ListenTls};
use crate::source::format::alert_json::AlertJson;
use crate::source::{Input, Settings};

source! {
    /// A listener that alerts as JSON are pushed to with `POST /alerts` (`otrelay config schema --alert`); OCSF detection
    /// findings and webhooks of Defender for IoT too.
    #[schemars(extend("required" = ["name", "kind"]))]
    Http = "http" {
        /// Address and port. Default `127.0.0.1:8514`. Another than a loopback address needs `tls`, and `token` or
        /// `tls.client_ca_file`.
        listen: String,
        /// What senders show: `Authorization: Bearer TOKEN`.
        token: SecretRef,
        /// The listener's certificate, and who may come.
        tls: SyslogTls,
        /// Other words than the four to severity, e.g. `high = "critical"`.
        severity_map: Named<SeverityWord>,
        /// Other words than the five, or category texts, to engine.
        engine_map: Named<EngineWord>,
        /// Zone of times without an offset: an IANA name or `+hh:mm`. Default UTC.
        time_zone: String,
    }
}

/// What a file of the certificate is.
const PEM: &str = "the absolute path of a PEM file";
const DEFAULT: &str = "127.0.0.1:8514";
/// Shortest token that is not warned about, in bytes.
const TOKEN_MIN: usize = 16;

impl Kind for Http {
    const WORD: &'static str = "http";
    const LEAST: &'static str = "listen = \"127.0.0.1:8514\"";

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let listen = self.listen(c);
        let token = self.token.is_present().then(|| fetch("token", &self.token, c));
        let tls = match self.tls.get() {
            Some((tls, at)) => Some(certificate(tls, at, c)),
            None => self.tls.is_present().then_some(None),
        };
        let severity_map = parts::severities(&self.severity_map, c);
        let engine_map = parts::engines(&self.engine_map, c);
        let time_zone = parts::time_zone(&self.time_zone, c);
        if let Some(listen) = listen {
            self.open_to(listen, common.at, c);
        }
        if let (Some(Some(token)), Some(at)) = (&token, self.token.at())
            && c.purpose != Purpose::Show
            && (1..TOKEN_MIN).contains(&token.expose().len())
        {
            c.problems.warn(at, "the token is short", |p| {
                p.hint("`openssl rand -hex 32` makes one that cannot be guessed")
            });
        }
        let format = AlertJson::new(common.zoned(severity_map, engine_map, time_zone)?);
        // What is there and wrong has its problem; what is not there is no part of it.
        let (token, tls) = (token.map_or(Some(None), |token| token.map(Some))?, tls.map_or(Some(None), |tls| tls.map(Some))?);
        let input = Input::Http { listen: listen?, token, tls };
        common.settings(Self::WORD, input, format)
    }
}

impl Http {
    fn listen(&self, c: &mut Check<'_>) -> Option<SocketAddr> {
        let text = c.value("listen", &self.listen, DEFAULT.to_owned(), Clone::clone)?;
        let address = text.trim().parse().ok().filter(|address: &SocketAddr| address.port() != 0);
        if let (None, Some(at)) = (address, self.listen.at()) {
            c.problems.error(at, "this is not an address with a port", |p| {
                p.quoted(text).expected("e.g. \"127.0.0.1:8514\" or \"[::1]:8514\"")
            });
        }
        address
    }

    /// Who can reach it has to show something, and nothing goes through the plant in plain.
    fn open_to(&self, listen: SocketAddr, table: &At, c: &mut Check<'_>) {
        let at = self.listen.at().cloned().unwrap_or_else(|| table.clone());
        let by_certificate = self.tls.get().is_some_and(|(tls, _)| tls.client_ca_file.is_present());
        let is_shown = self.token.is_present() || by_certificate;
        if listen.ip().is_loopback() {
            if !is_shown {
                c.problems.warn(&at, "every user of this machine may push alerts", |p| {
                    p.hint("add a token: token = { credential = \"push-token\" }")
                });
            }
            return;
        }
        if !self.tls.is_present() {
            c.problems.error(&at, "alerts would be pushed unencrypted from elsewhere", |p| {
                p.quoted(listen).hint("add tls with cert_file and key_file, or listen on 127.0.0.1")
            });
        }
        if !is_shown {
            c.problems.error(&at, "everybody who can reach it may push alerts", |p| {
                p.hint("add a token, or tls.client_ca_file for senders with certificates")
            });
        }
    }
}

/// `tls`; the files are read, but not when the config is only shown.
fn certificate(tls: &SyslogTls, table: &At, c: &mut Check<'_>) -> Option<ListenTls> {
    let cert_file = file("cert_file", &tls.cert_file, table, PEM, c);
    let key_file = file("key_file", &tls.key_file, table, PEM, c);
    let client_ca_file = if tls.client_ca_file.is_present() {
        Some(file("client_ca_file", &tls.client_ca_file, table, PEM, c)?)
    } else {
        None
    };
    let files = ListenTls { cert_file: cert_file?, key_file: key_file?, client_ca_file };
    if c.purpose == Purpose::Show {
        return Some(files);
    }
    match Acceptor::new(&files) {
        Ok(_) => Some(files),
        Err(error) => {
            let field = match &error {
                ListenError::File { key: "key_file", .. } => &tls.key_file,
                ListenError::File { key: "client_ca_file", .. } => &tls.client_ca_file,
                _ => &tls.cert_file,
            };
            c.problems.error(field.at().unwrap_or(table), error.to_string(), |p| {
                p.hint("the user that otrelay runs as has to be able to read it")
            });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigError, Environment, Loaded, Purpose, load};
    use crate::source::Input;

    fn loaded(keys: &str) -> Result<Loaded, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("otrelay.toml");
        let text = format!(
            "[sync]\nenabled = false\n[agent]\nname = \"a\"\nid = \"a\"\n[[source]]\nname = \"push\"\nkind = \"http\"\n{keys}\n"
        );
        std::fs::write(&path, text).unwrap();
        let token = |name: &str| match name {
            "LONG" => Some("0123456789abcdef".to_owned()),
            "SHORT" => Some("canary-5f2".to_owned()),
            _ => None,
        };
        load(&Environment::new(token).with_config(Some(path)), Purpose::Run, |_, _| Ok(()))
    }

    /// What is wrong or odd about the source.
    #[track_caller]
    fn check(keys: &str, words: &[&str]) {
        let problems = match loaded(keys) {
            Ok(loaded) => loaded.warnings,
            Err(error) => error.problems,
        };
        let found: Vec<_> =
            problems.iter().map(ToString::to_string).filter(|problem| problem.contains("source")).collect();
        assert_eq!(found.len(), words.len(), "{keys}: {found:#?}");
        for word in words {
            assert!(found.iter().any(|problem| problem.contains(word)), "{word}: {found:#?}");
        }
        assert!(found.iter().all(|problem| !problem.contains("canary")), "{found:#?}");
    }

    #[test]
    fn where_it_listens_decides_what_it_needs() {
        check("token = { env = \"LONG\" }", &[]);
        check("listen = \"[::1]:9000\"\ntoken = { env = \"LONG\" }", &[]);
        check("", &["every user of this machine may push alerts"]);
        check("token = { env = \"SHORT\" }", &["the token is short"]);
        check("token = { env = \"LONG\" }\nlisten = \"localhost:1\"", &["this is not an address with a port"]);
        check("token = { env = \"LONG\" }\nlisten = \"127.0.0.1:0\"", &["this is not an address with a port"]);
        check("listen = \"0.0.0.0:8514\"", &["unencrypted from elsewhere", "everybody who can reach it"]);
        check("listen = \"0.0.0.0:8514\"\ntoken = { env = \"LONG\" }", &["unencrypted from elsewhere"]);
        check("token = { env = \"LONG\" }\npath = \"/x\"", &["unknown key"]);
    }

    #[test]
    fn its_certificate_is_looked_at() {
        let check = |tls: &str, words: &[&str]| {
            check(&format!("token = {{ env = \"LONG\" }}\ntls = {{ {tls} }}"), words);
        };
        check("cert_file = \"/nowhere/c.pem\", key_file = \"k.pem\"", &["the path has to be absolute"]);
        check("cert_file = \"/nowhere/c.pem\", key_file = \"/nowhere/k.pem\"", &["/nowhere/c.pem"]);
        check("cert_file = \"/nowhere/c.pem\"", &["key_file"]);
        check("cert_file = \"/nowhere/c.pem\", key_file = \"/k\", ca_file = \"/x\"", &["unknown key", "/nowhere/c.pem"]);
    }

    #[test]
    fn its_settings() {
        let loaded = loaded("token = { env = \"LONG\" }\nseverity_map = { High = \"critical\" }").unwrap();
        let Input::Http { listen, token, tls } = &loaded.config.sources[0].input else { panic!("no listener") };
        assert_eq!((listen.to_string().as_str(), tls.is_none()), ("127.0.0.1:8514", true));
        assert_eq!(token.as_ref().unwrap().expose(), "0123456789abcdef");
        assert!(!loaded.effective.to_string().contains("0123456789abcdef"));
    }
}
