//! The config that `otrelay init` writes: answers in, commented text out. Pure, but for what the text is then checked with.
//!
//! The text goes through the same checks as any config before it is written anywhere ([`rehearse`]), so an answer that
//! cannot be used is refused in the words of the config. Secrets stand in the text of a rehearsal only, which is never
//! written.

use std::fmt::Write as _;
use std::path::Path;

use super::secret::INLINE;
use super::{Config, ConfigError, Environment, Purpose, TemplateCheck, load};
use crate::model::SecretString;
use crate::model::secret::ExposeSecret as _;
use crate::model::words::words;

words! {
    /// How to log in, as far as it can be asked for in a few words; the rest is for an editor.
    pub enum LogIn {
        /// Client and user.
        Password = "password",
        /// Client alone.
        ClientCredentials = "client-credentials",
        /// Client, and `otrelay login` once.
        RefreshToken = "refresh-token",
        /// A key.
        ApiKey = "api-key",
        /// User and password without OAuth.
        Basic = "basic",
    }
}

impl LogIn {
    /// Whether it needs a client of OAuth.
    pub fn has_client(self) -> bool {
        matches!(self, Self::Password | Self::ClientCredentials | Self::RefreshToken)
    }

    /// Whether it needs a user.
    pub fn has_user(self) -> bool {
        matches!(self, Self::Password | Self::Basic)
    }
}

/// A secret: its key in the config, its name as a credential and as a file, its text.
#[derive(Clone, Debug)]
pub struct Kept {
    /// `password`.
    pub key: &'static str,
    /// `servicenow-password`.
    pub name: &'static str,
    /// What it is.
    pub text: SecretString,
}

/// Everything that was asked.
#[derive(Clone, Debug)]
pub struct Answers {
    /// `https://acme.service-now.com`.
    pub instance: String,
    /// How to log in.
    pub auth: LogIn,
    /// Of the OAuth registry record.
    pub client_id: Option<String>,
    /// The user there.
    pub username: Option<String>,
    /// Of the destination.
    pub secrets: Vec<Kept>,
    /// A private CA.
    pub ca_file: Option<String>,
    /// A proxy without log-in.
    pub proxy: Option<String>,
    /// Pattern of Suricata's EVE files.
    pub suricata: Option<String>,
    /// Pattern of Zeek's logs.
    pub zeek: Option<String>,
    /// Address of a Defender for `IoT` sensor, and its token.
    pub defender: Option<(String, Kept)>,
    /// `[agent] state_dir`.
    pub state_dir: Option<String>,
    /// Of the one rule.
    pub min_severity: String,
    /// `[sync] backfill`.
    pub backfill: String,
}

/// Where the secrets of the text are.
#[derive(Clone, Copy, Debug)]
pub enum Secrets<'a> {
    /// Credentials of the unit.
    Credentials,
    /// Files of this directory.
    Files(&'a Path),
    /// In the text itself: for [`rehearse`] only.
    Inline,
}

impl Answers {
    /// All secrets, the destination's first.
    pub fn all_secrets(&self) -> impl Iterator<Item = &Kept> {
        self.secrets.iter().chain(self.defender.as_ref().map(|(_, token)| token))
    }

    /// The config as text.
    pub fn text(&self, secrets: Secrets<'_>) -> String {
        let mut text = format!(
            "# Written by `otrelay init`. `otrelay config example` prints every key with its default, otrelay.toml(5) explains\n\
             # them; after a change: otrelay check && systemctl reload otrelay\n\n{}[sync]\nbackfill = {}    # older alerts are \
             not forwarded when a source is first read; \"0s\": none, \"all\": all\n\n[servicenow.prod]\n",
            self.state_dir
                .as_ref()
                .map_or(String::new(), |dir| format!("[agent]\nstate_dir = {}\n\n", quoted(dir))),
            quoted(&self.backfill),
        );
        let mut line = |key: &str, value: &str, comment: &str| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{key} = {value}{comment}");
        };
        line("instance", &quoted(&self.instance), "");
        line(
            "auth",
            &quoted(self.auth.as_str()),
            if self.auth == LogIn::RefreshToken { "    # once: otrelay login prod" } else { "" },
        );
        for (key, value) in [("client_id", &self.client_id), ("username", &self.username)] {
            if let Some(value) = value {
                line(key, &quoted(value), "");
            }
        }
        for kept in &self.secrets {
            line(kept.key, &reference(kept, secrets), "");
        }
        if let Some(proxy) = &self.proxy {
            line(
                "proxy",
                &format!("{{ url = {} }}", quoted(proxy)),
                "    # username and password where it asks for them",
            );
        }
        if let Some(file) = &self.ca_file {
            line(
                "tls",
                &format!("{{ ca_file = {} }}", quoted(file)),
                "    # trusted beside the system's certificates",
            );
        }
        for (name, kind, path) in [("eve", "suricata-eve", &self.suricata), ("zeek", "zeek", &self.zeek)] {
            if let Some(path) = path {
                let path = quoted(path);
                let _ = write!(
                    text,
                    "\n[[source]]\nname = \"{name}\"    # part of every ticket's identity, so keep it\nkind = \"{kind}\"\npath = {path}\n"
                );
            }
        }
        if let Some((url, token)) = &self.defender {
            let (url, token) = (quoted(url), reference(token, secrets));
            let _ = write!(
                text,
                "\n[[source]]\nname = \"defender\"    # part of every ticket's identity, so keep it\nkind = \"defender-sensor\"\nurl = {url}\ntoken = {token}\n"
            );
        }
        let severity = quoted(&self.min_severity);
        let _ = write!(
            text,
            "\n[[rule]]\nname = \"OT security incidents\"\nmin_severity = {severity}    # and higher: warning, minor, major, \
             critical\n\n[[rule.action]]\ntable = \"incident\"\n\n# [rule.action.fields]    # templates over the alert, laid over \
             the defaults of the table\n# assignment_group = \"OT SOC\"\n\n[status]\nlisten = \"127.0.0.1:9464\"    # the status \
             page, for this machine alone\n"
        );
        text
    }
}

fn reference(kept: &Kept, secrets: Secrets<'_>) -> String {
    match secrets {
        Secrets::Credentials => format!("{{ credential = \"{}\" }}", kept.name),
        Secrets::Files(dir) => format!("{{ file = {} }}", quoted(&dir.join(kept.name).to_string_lossy())),
        Secrets::Inline => quoted(kept.text.expose_secret()),
    }
}

/// As TOML writes a text.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Checks the answers as a config with everything in it, as the service would; nothing is written.
///
/// # Errors
/// With every answer that cannot be used.
pub fn rehearse(
    answers: &Answers,
    environment: &Environment,
    templates: TemplateCheck,
) -> Result<Config, ConfigError> {
    let text = answers.text(Secrets::Inline);
    let path = Path::new("the answers");
    load::alone(path, &text, environment, Purpose::Run, templates).map(|loaded| loaded.config).map_err(
        |mut error| {
            // That a secret stands in it is true of the draft alone, which is never written.
            error.problems.retain(|problem| problem.message != INLINE);
            for problem in &mut error.problems {
                if let Some(argument) = argument(answers, &problem.key) {
                    argument.clone_into(&mut problem.key);
                    // A line of what nobody sees says nothing.
                    if let Some(place) = &mut problem.place {
                        (place.line, place.column) = (0, 0);
                    }
                }
            }
            error
        },
    )
}

/// Which argument an answer came from, by its key in the draft.
fn argument(answers: &Answers, key: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 12] = [
        ("servicenow.prod.instance", "--instance"),
        ("servicenow.prod.auth", "--auth"),
        ("servicenow.prod.client_id", "--client-id"),
        ("servicenow.prod.client_secret", "--client-secret-file"),
        ("servicenow.prod.username", "--username"),
        ("servicenow.prod.password", "--password-file"),
        ("servicenow.prod.api_key", "--api-key-file"),
        ("servicenow.prod.proxy", "--proxy"),
        ("servicenow.prod.tls", "--ca-file"),
        ("rule[1].min_severity", "--min-severity"),
        ("sync.backfill", "--backfill"),
        ("agent.state_dir", "--state-dir"),
    ];
    // In the order of the text.
    let sources = [
        (answers.suricata.is_some(), "--suricata-path"),
        (answers.zeek.is_some(), "--zeek-path"),
        (answers.defender.is_some(), "--defender-url"),
    ];
    let given = sources.into_iter().filter(|(is_given, _)| *is_given).enumerate();
    for (at, (_, argument)) in given {
        if let Some(rest) = key.strip_prefix(&format!("source[{}].", at + 1)) {
            return Some(if rest == "token" { "--defender-token-file" } else { argument });
        }
    }
    let within =
        |own: &str| key.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    KNOWN.into_iter().find(|(own, _)| within(own)).map(|(_, argument)| argument)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servicenow::Auth;
    use crate::source::Input;

    fn secret(key: &'static str, name: &'static str, text: &str) -> Kept {
        Kept { key, name, text: text.to_owned().into() }
    }

    fn answers() -> Answers {
        Answers {
            instance: "https://acme.service-now.com".to_owned(),
            auth: LogIn::Password,
            client_id: Some("0f3c".to_owned()),
            username: Some("otrelay".to_owned()),
            secrets: vec![
                secret("client_secret", "servicenow-client-secret", "canary-1"),
                secret("password", "servicenow-password", "canary\"\\'''\t2 é"),
            ],
            ca_file: None,
            proxy: Some("http://proxy.example:3128".to_owned()),
            suricata: Some("/var/log/suricata/eve*.json".to_owned()),
            zeek: Some("/opt/zeek/logs/current/*.log".to_owned()),
            defender: Some((
                "https://sensor.example".to_owned(),
                secret("token", "defender-token", "canary-3"),
            )),
            state_dir: Some("/data/otrelay".to_owned()),
            min_severity: "minor".to_owned(),
            backfill: "all".to_owned(),
        }
    }

    fn rehearsed(answers: &Answers) -> Result<Config, ConfigError> {
        rehearse(answers, &Environment::new(|_| None), |_, _| Ok(()))
    }

    #[test]
    fn every_answer_arrives_and_secrets_are_quoted() {
        let config = rehearsed(&answers()).unwrap();
        let Auth::Password(auth) = &config.destinations[0].auth else { panic!() };
        assert_eq!(auth.password.expose(), "canary\"\\'''\t2 é");
        assert_eq!(config.destinations[0].proxy.as_ref().unwrap().url.as_str(), "http://proxy.example:3128/");
        assert_eq!(config.store.dir, Path::new("/data/otrelay"));
        let kinds: Vec<&str> = config.sources.iter().map(|source| source.kind).collect();
        assert_eq!(kinds, ["suricata-eve", "zeek", "defender-sensor"]);
        assert!(
            matches!(&config.sources[1].input, Input::Files { pattern } if pattern == "/opt/zeek/logs/current/*.log")
        );
    }

    #[test]
    fn what_is_written_holds_no_secret_and_is_a_config() {
        for (secrets, found) in [
            (Secrets::Credentials, "password = { credential = \"servicenow-password\" }"),
            (
                Secrets::Files(Path::new("/etc/otrelay/secrets")),
                "password = { file = \"/etc/otrelay/secrets/servicenow-password\" }",
            ),
        ] {
            let text = answers().text(secrets);
            assert!(text.contains(found) && !text.contains("canary"), "{text}");
            super::super::parse_str("otrelay.toml", &text).unwrap();
        }
    }

    #[test]
    fn each_way_to_log_in_makes_a_config() {
        let all = [
            (LogIn::Password, &["client_secret", "password"][..]),
            (LogIn::ClientCredentials, &["client_secret"]),
            (LogIn::RefreshToken, &["client_secret"]),
            (LogIn::ApiKey, &["api_key"]),
            (LogIn::Basic, &["password"]),
        ];
        for (auth, keys) in all {
            let secrets = keys.iter().map(|key| secret(key, "x", "canary")).collect();
            let client_id = auth.has_client().then(|| "c".to_owned());
            let username = auth.has_user().then(|| "u".to_owned());
            let answers = Answers { auth, client_id, username, secrets, ..answers() };
            rehearsed(&answers).unwrap_or_else(|e| panic!("{auth:?}: {e}"));
        }
    }

    #[test]
    fn an_answer_that_cannot_be_used_is_refused_in_the_words_of_the_config() {
        let said = |answers: Answers| {
            let error = rehearsed(&answers).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
            error
        };
        let wrong = said(Answers {
            instance: "http://acme.example".to_owned(),
            min_severity: "high".to_owned(),
            ..answers()
        });
        assert!(wrong.contains("http is for loopback") && wrong.contains("--min-severity: "), "{wrong}");
        assert!(!wrong.contains("rule[1]") && !wrong.contains("secret itself"), "{wrong}");
        let injected =
            Answers { instance: "https://a.service-now.com\"\nauth = \"basic".to_owned(), ..answers() };
        assert!(said(injected).contains("--instance: "));
        for (answers, argument) in [
            (Answers { proxy: Some("ftp://x".to_owned()), ..answers() }, "--proxy: "),
            (Answers { backfill: "soon".to_owned(), ..answers() }, "--backfill: "),
            (Answers { state_dir: Some("here".to_owned()), ..answers() }, "--state-dir: "),
            (Answers { ca_file: Some("/nowhere/ca.pem".to_owned()), ..answers() }, "--ca-file: "),
            (Answers { suricata: Some("eve.json".to_owned()), ..answers() }, "--suricata-path: "),
            (Answers { zeek: Some("*.log".to_owned()), ..answers() }, "--zeek-path: "),
        ] {
            let error = said(answers);
            assert!(error.contains(argument), "{argument}: {error}");
        }
    }
}
