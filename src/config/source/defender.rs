//! What the two kinds that poll Defender for IoT have in common: where, with which token, what is trusted, how often.

use std::time::Duration;

use url::Url;

use super::{Common, parts};
use crate::config::check::Check;
use crate::config::destination::{self, network};
use crate::config::file::{Proxy, Tls};
use crate::config::problem::At;
use crate::config::read::{Field, List, Named};
use crate::config::values::{EngineWord, Period, SecretRef, SeverityWord, WriteBack};
use crate::model::SourceName;
use crate::net;
use crate::source::format::defender as format;
use crate::source::transport::defender as api;
use crate::source::transport::poll::http;
use crate::source::{Input, Settings};

const URL: &str = "\"https://HOST\"";
const POLL_MIN: Duration = Duration::from_secs(5);
const DEVICES_MIN: Duration = Duration::from_mins(5);

/// Declares the table of either kind: what they have in common, and between it its own keys.
macro_rules! polled {
    ($(#[$meta:meta])* $name:ident = $word:literal { $($keys:tt)* }) => {
        super::source! {
            $(#[$meta])*
            #[schemars(extend("required" = ["name", "kind", "url", "token"]))]
            $name = $word {
                /// Where it is: `https://HOST`.
                url: String,
                /// Its access token, made there in System settings > Integrations > Access tokens.
                token: $crate::config::values::SecretRef,
                /// What is trusted; these machines ship with a certificate of their own.
                tls: $crate::config::file::Tls,
                /// The proxy on the way there.
                proxy: $crate::config::file::Proxy,
                /// Time between two polls, at least 5s. Default 60s.
                poll_interval: $crate::config::values::Period,
                /// Time between two readings of devices, at least 5m. Default 60m.
                devices_interval: $crate::config::values::Period,
                $($keys)*
                /// Its word for a severity to ours, laid over `Warning`, `Minor`, `Major` and `Critical`.
                severity_map: $crate::config::read::Named<$crate::config::values::SeverityWord>,
                /// Its word for an engine to ours, laid over its five.
                engine_map: $crate::config::read::Named<$crate::config::values::EngineWord>,
            }
        }

        impl $name {
            /// The keys in common, and those of the other kind as absent.
            fn keys(&self, console: bool) -> $crate::config::source::defender::Keys<'_> {
                $crate::config::source::defender::Keys {
                    kind: $word,
                    console,
                    url: &self.url,
                    token: &self.token,
                    tls: &self.tls,
                    proxy: &self.proxy,
                    poll_interval: &self.poll_interval,
                    devices_interval: &self.devices_interval,
                    sensor: None,
                    write_back: None,
                    severity_map: &self.severity_map,
                    engine_map: &self.engine_map,
                }
            }
        }
    };
}
pub(super) use polled;

/// The keys of either kind.
pub(super) struct Keys<'a> {
    pub(super) kind: &'static str,
    pub(super) console: bool,
    pub(super) url: &'a Field<String>,
    pub(super) token: &'a Field<SecretRef>,
    pub(super) tls: &'a Field<Tls>,
    pub(super) proxy: &'a Field<Proxy>,
    pub(super) poll_interval: &'a Field<Period>,
    pub(super) devices_interval: &'a Field<Period>,
    pub(super) sensor: Option<&'a Field<String>>,
    pub(super) write_back: Option<(&'a Field<WriteBack>, &'a Field<List<String>>)>,
    pub(super) severity_map: &'a Field<Named<SeverityWord>>,
    pub(super) engine_map: &'a Field<Named<EngineWord>>,
}

/// Checks all of them.
pub(super) fn check(keys: &Keys<'_>, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
    let url = c.required("url", keys.url, common.at, URL).and_then(|(text, at)| {
        let url = address(text, at, c)?;
        c.effective.note_field("url", text.clone(), keys.url);
        Some(url)
    });
    let token = c
        .required("token", keys.token, common.at, "a token, e.g. { credential = \"defender-token\" }")
        .and_then(|_| destination::fetch("token", keys.token, c));
    let proxy = network::proxy_of(keys.proxy, url.as_ref(), c);
    let tls = network::tls_of(keys.tls, proxy.as_ref().ok().and_then(Option::as_ref), c);
    let interval = c.duration("poll_interval", keys.poll_interval, "60s", POLL_MIN);
    let devices_interval = c.duration("devices_interval", keys.devices_interval, "60m", DEVICES_MIN);
    let sensor = keys.sensor.map(|field| (field.is_present(), c.line("sensor", field, 200)));
    let severity_map = parts::severities(keys.severity_map, c);
    let engine_map = parts::engines(keys.engine_map, c);
    let handles = match keys.write_back {
        Some((word, of)) => handles(word, of, &common, c),
        None => Some(Vec::new()),
    };
    let mut told = common.format(severity_map, engine_map)?;
    told.sensor = match sensor {
        Some((true, said)) => said?,
        _ => told.source.as_str().to_owned(),
    };
    let format = format::Defender::new(format::Settings { common: told, console: keys.console });
    let api = api::Settings {
        http: http::Settings { url: url?, token: token?, tls: tls?, proxy: proxy.ok()? },
        console: keys.console,
        devices_interval: devices_interval?,
        handles: handles?,
        format: format.clone(),
    };
    let input = Input::Defender { interval: interval?, api: Box::new(api) };
    common.settings(keys.kind, input, format)
}

/// The sources whose closed tickets the console is told of.
fn handles(
    word: &Field<WriteBack>,
    of: &Field<List<String>>,
    common: &Common<'_>,
    c: &mut Check<'_>,
) -> Option<Vec<SourceName>> {
    let word = c.value("write_back", word, WriteBack::None, |word| word.as_str())?;
    let Some((list, at)) = of.get() else {
        let own = common.name.clone().filter(|_| matches!(word, WriteBack::Handle));
        if own.is_some() {
            c.problems.warn(
                common.at,
                "nothing will be written back: alerts of the console's API carry no UUID",
                |p| p.hint("name the source that takes in its syslog: write_back_for = [\"console-syslog\"]"),
            );
        }
        return (!of.is_present()).then(|| own.into_iter().collect());
    };
    c.note_list("write_back_for", of, list, |name| name.as_str());
    if matches!(word, WriteBack::None) {
        c.problems.error(at, "nothing is written back", |p| {
            p.hint("set write_back = \"handle\", or remove this key")
        });
        return None;
    }
    let mut all = Vec::new();
    for (name, at) in &list.items {
        match SourceName::new(name) {
            Ok(known) if !c.complete || common.all.contains(name) => all.push(known),
            _ => {
                c.problems.error(at, "there is no source with this name", |p| {
                    p.quoted(name).near(name, common.all.iter().map(String::as_str))
                });
            }
        }
    }
    (all.len() == list.written && !all.is_empty()).then_some(all)
}

/// The base address; it may have a path, for a gateway. Found text is repeated only when it cannot hold a password.
fn address(text: &str, at: &At, c: &mut Check<'_>) -> Option<Url> {
    let Some(url) = Url::parse(text.trim()).ok().filter(|url| !url.cannot_be_a_base()) else {
        let shown = (!text.contains('@')).then(|| format!("\"{text}\""));
        c.problems.error(at, "this is not an address", |p| {
            let p = p.expected(URL);
            let p = if text.contains("://") { p } else { p.hint("begin with https://") };
            shown.map_or(p.clone(), |shown| p.found(shown))
        });
        return None;
    };
    if let Err(wrong) = net::check_url(&url) {
        c.problems.error(at, wrong, |p| {
            let p = p.expected(URL);
            if url.scheme() == "http" { p.hint("the token is never sent unencrypted") } else { p }
        });
        return None;
    }
    if url.query().is_some() || url.fragment().is_some() {
        c.problems.error(at, "only the base address belongs here", |p| p.expected(URL));
        return None;
    }
    Some(url)
}
