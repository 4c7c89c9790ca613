//! From an event and its vendor's profile to an alert.

use std::borrow::Cow;
use std::net::IpAddr;

use super::super::super::RejectReason;
use super::super::defender::titles;
pub(super) use super::super::parts::short as word;
use super::super::parts::{self, References, WORD_MAX};
use super::super::{Decoded, Finding, Outcome, eve};
use super::event::Event;
use super::pairs::fold;
use super::profile::{self, EndKeys, Profile};
use super::{Reading, time, vendor};
use crate::model::alert::{MESSAGE_MAX, TITLE_MAX};
use crate::model::text::{self, clip, one_line};
use crate::model::{
    Alert, AlertKind, AlertState, Device, Endpoint, Engine, Fingerprint, Identity, Protocol, Severity,
    Timestamp,
};

/// Most addresses, protocols or references that are looked at in one value.
const LIST_MAX: usize = 32;
/// Longest id that is taken for a counter, in digits; times in milliseconds are longer.
const COUNTER_MAX: usize = 9;
/// Most labelled custom fields in the message.
const CUSTOM_MAX: usize = 16;

/// Makes the alert, or says why there is none.
pub(super) fn of(event: &Event<'_>, reading: &Reading<'_>) -> Decoded {
    let profile = profile::of(event);
    if let Some(kind) = (profile.ignored)(event) {
        return Outcome::Ignored(kind).into();
    }
    let Some(title) = title(event, profile) else {
        let detail = "neither a name nor a title";
        return Outcome::Reject(RejectReason::MissingField, Cow::Borrowed(detail)).into();
    };
    let alert = Look { event, profile, reading }.alert(title);
    let fingerprint = Look { event, profile, reading }.fingerprint(&alert);
    let devices = devices(event, profile, &alert);
    Decoded { outcome: Outcome::Alert(Box::new(Finding { alert, fingerprint })), devices }
}

/// A key of a profile: a pair, a field of the header (`|name`) or a labelled custom field (`#alertid`).
fn get<'a>(event: &Event<'a>, key: &str) -> Option<Cow<'a, str>> {
    let field = match key {
        "|name" => &event.name,
        "|class" => &event.class,
        "|product" => &event.product,
        "|severity" => &event.severity,
        _ => {
            return match key.strip_prefix('#') {
                Some(label) => event.pairs.labelled(label),
                None => event.pairs.get(key),
            };
        }
    };
    (!field.is_empty()).then(|| field.clone())
}

fn first<'a>(event: &Event<'a>, keys: &[&str]) -> Option<Cow<'a, str>> {
    keys.iter().find_map(|key| get(event, key))
}

fn title(event: &Event<'_>, profile: &Profile) -> Option<String> {
    let told = match profile.name {
        // Class and name of CTD may disagree; the category's type is right.
        "claroty-ctd" => get(event, "CtdCategory")
            .and_then(|category| category.split_once('/').map(|(_, kind)| kind.trim().to_owned())),
        _ => None,
    };
    let told = told.filter(|kind| !kind.is_empty()).map(Cow::Owned);
    let shown = |text: Cow<'_, str>| clip(one_line(&text).trim(), TITLE_MAX).into_owned();
    let keys = profile.title.iter().filter_map(|key| get(event, key)).map(shown);
    told.map(shown).into_iter().chain(keys).find(|title| !title.is_empty())
}

/// Everything that an alert is made of.
#[derive(Clone, Copy)]
struct Look<'a, 'e> {
    event: &'a Event<'e>,
    profile: &'static Profile,
    reading: &'a Reading<'a>,
}

impl Look<'_, '_> {
    fn first(&self, keys: &[&str]) -> Option<Cow<'_, str>> {
        first(self.event, keys)
    }

    fn word(&self, keys: &[&str]) -> Option<String> {
        self.first(keys).map(|text| word(&text)).filter(|text| !text.is_empty())
    }

    fn alert(&self, title: String) -> Alert {
        let alert = self.reading.settings.common.alert(self.reading.received_at);
        // What Defender's message does not say, its title does.
        let known = (self.profile.name == "defender").then(|| titles::known(&title)).flatten();
        let category = self.word(self.profile.category).filter(|category| category != "XSense Alerts");
        let category = category.or_else(|| Some(known?.category.to_owned()));
        let source = self.end(&self.profile.source);
        let destination = self.end(&self.profile.destination);
        let protocols = self.protocols(&source, &destination);
        let (time, undated) = self.time();
        let mut message = self.message(&title, &protocols);
        if let Some(written) = undated {
            let dated = self.reading.message.time.map(|_| "the header of its message");
            parts::undated(&mut message, dated, &written);
        }
        let engine = self.engine(&title, category.as_deref().unwrap_or_default(), known);
        Alert {
            id: self.word(self.profile.id),
            time,
            severity: self.severity(known),
            engine,
            message,
            protocols,
            category,
            source,
            destination,
            sensor: self.sensor(),
            site: self.word(self.profile.site).or(alert.site),
            zone: self.word(self.profile.zone).or(alert.zone),
            state: self.state(),
            kind: self.kind(),
            references: self.references(&title),
            raw: self.reading.raw(),
            title,
            ..alert
        }
    }

    /// The product's own id, within the product and its sensor; with a counter, what it is about too. Without one: title, addresses, protocol.
    fn fingerprint(&self, alert: &Alert) -> Fingerprint {
        let product = match self.profile.name {
            "generic" => format!("{}/{}", fold(&self.event.vendor), fold(&self.event.product)),
            name => name.to_owned(),
        };
        if let Some(id) = &alert.id {
            let site = self.word(&["CtdDeviceExternalId"]).unwrap_or_default();
            let mut own = format!("{product}/{}/{site}/{id}", alert.sensor);
            // Small numbers are counters: they begin anew, and are given twice.
            if id.len() <= COUNTER_MAX && id.bytes().all(|byte| byte.is_ascii_digit()) {
                for part in [&*self.event.class, &alert.title, &end(&alert.source), &end(&alert.destination)]
                {
                    own.push('\0');
                    own.push_str(part);
                }
            }
            return self.reading.settings.common.fingerprint(&Identity::Own(&own));
        }
        derived(self.reading, alert)
    }

    /// When it was; and what the product wrote in the place of a time, where nothing of it can be read.
    fn time(&self) -> (Timestamp, Option<String>) {
        let zone = &self.reading.settings.time_zone;
        let now = self.reading.received_at;
        // Defender's id ends in the time in UTC; its other times have no zone.
        let of_id = || {
            let id = (self.profile.name == "defender").then(|| self.first(&["UUID"])).flatten()?;
            let (_, millis) = id.rsplit_once('-')?;
            (millis.len() == 13).then(|| time::any(millis, zone, now)).flatten()
        };
        let format = self.first(&["devTimeFormat"]);
        let read = |key: &&str| {
            let text = get(self.event, key)?;
            match &format {
                Some(format) if *key == "devTime" => time::by_format(&text, format, zone, now),
                _ => time::any(&text, zone, now),
            }
        };
        if let Some(time) = of_id().or_else(|| self.profile.time.iter().find_map(read)) {
            return (time, None);
        }
        (self.reading.message.time.unwrap_or(now), self.word(self.profile.time))
    }

    fn severity(&self, known: Option<titles::Known>) -> Severity {
        for key in self.profile.severity {
            let Some(written) = get(self.event, key) else { continue };
            let mapped = self.reading.settings.common.severity(written.trim());
            if let Some(severity) = mapped.or_else(|| vendor::severity(&written)) {
                return severity;
            }
        }
        known.map_or(Severity::Major, |known| known.severity)
    }

    fn engine(&self, title: &str, category: &str, known: Option<titles::Known>) -> Engine {
        let words = [category, &self.event.class, title];
        let mapped = || words.iter().find_map(|word| self.reading.settings.common.engine(word));
        let named = || self.profile.engine.iter().find_map(|key| Engine::parse(&get(self.event, key)?));
        mapped()
            .or_else(named)
            .or_else(|| (self.profile.by_class)(self.event))
            .or_else(|| Some(known?.engine))
            .or_else(|| words.iter().find_map(|word| vendor::by_words(word)))
            .unwrap_or(Engine::Anomaly)
    }

    fn end(&self, keys: &EndKeys) -> Endpoint {
        let ips = keys.ip.iter().find_map(|key| get(self.event, key).filter(|text| !text.is_empty()));
        let mut ip = ips.as_deref().and_then(|text| items(text).find_map(address));
        let mut name =
            self.word(keys.name).map(|name| bare(&name).to_owned()).filter(|name| !name.is_empty());
        if let Some(of_name) = name.as_deref().and_then(address) {
            // An address in the place of the name says nothing new.
            ip = ip.or(Some(of_name));
            name = None;
        } else if let (None, None, Some(text)) = (ip, &name, &ips) {
            name = Some(word(text)).filter(|text| !text.is_empty());
        }
        Endpoint {
            ip,
            mac: keys.mac.iter().find_map(|key| items(&get(self.event, key)?).find_map(mac)),
            name,
            port: self.first(keys.port).and_then(|port| port.parse().ok()).filter(|port| *port != 0),
            device_id: self.word(keys.device_id),
        }
    }

    /// What the product names; where it names only the transport, the protocol of the port.
    fn protocols(&self, source: &Endpoint, destination: &Endpoint) -> Vec<Protocol> {
        let named = self.profile.protocol.iter().find_map(|key| {
            let list = protocols(&get(self.event, key)?);
            (!list.is_empty()).then_some(list)
        });
        let transport = |list: &Vec<Protocol>| list.iter().all(|name| matches!(name.as_str(), "TCP" | "UDP"));
        if let Some(list) = &named
            && !transport(list)
        {
            return named.unwrap_or_default();
        }
        let of = |end: &Endpoint| end.port.and_then(eve::tables::ot_port);
        match of(destination).or_else(|| of(source)) {
            Some(name) => vec![Protocol::named(name)],
            None => named.unwrap_or_default(),
        }
    }

    fn sensor(&self) -> String {
        let reading = self.reading;
        // `Sensor` and `CyberX platform` are what Defender's LEEF has in the place of the sensor's name.
        let vague = |name: &String| name == "Sensor" || name.starts_with("CyberX platform");
        let told = self.word(self.profile.sensor).filter(|name| !vague(name));
        told.unwrap_or_else(|| reading.sensor())
    }

    fn state(&self) -> AlertState {
        let over = self.profile.cleared.iter().any(|(key, word)| {
            self.event.pairs.get(key).is_some_and(|value| value.eq_ignore_ascii_case(word))
        });
        if over { AlertState::Cleared } else { AlertState::Raised }
    }

    /// Health of the product itself is not a finding about the plant.
    fn kind(&self) -> AlertKind {
        let health = self.profile.name == "nozomi" && self.event.class.starts_with("HEALTH");
        if health { AlertKind::SystemNotification } else { AlertKind::Alert }
    }

    fn references(&self, title: &str) -> Vec<String> {
        let mut all = References::default();
        let mut add = |text: &str| all.add(text);
        for value in self.profile.references.iter().filter_map(|key| get(self.event, key)) {
            if value.contains("://") { add(&value) } else { items(&value).for_each(&mut add) }
        }
        vulnerabilities(title).for_each(&mut add);
        if let Some(message) = self.first(self.profile.message) {
            vulnerabilities(&message).for_each(&mut add);
        }
        all.0
    }

    fn message(&self, title: &str, protocols: &[Protocol]) -> String {
        let mut out = title.to_owned();
        let mut line = |label: &str, value: &str| {
            let value = one_line(value);
            let value = value.trim();
            if !value.is_empty() {
                let value = clip(value, WORD_MAX);
                for part in ["\n", label, ": ", &value] {
                    out.push_str(part);
                }
            }
        };
        if let Some(protocol) = protocols.first() {
            line("Protocol", protocol.as_str());
        }
        for (label, key) in self.profile.details {
            if let Some(value) = get(self.event, key) {
                line(label, &value);
            }
        }
        for (label, value) in self.event.pairs.custom().take(CUSTOM_MAX) {
            line(&word(&label), &value);
        }
        let product = format!("{} {} {}", self.event.vendor, self.event.product, self.event.version);
        line("Product", product.trim());
        line("Class", &self.event.class);
        if let Some(id) = self.first(self.profile.id) {
            line("Id", &id);
        }
        let repeated = self.event.pairs.repeated();
        if repeated > 0 {
            line("Note", &format!("{repeated} keys are there twice, the first counts"));
        }
        if self.reading.mended {
            line("Note", "bytes that are not UTF-8 were replaced");
        }
        // What the product says comes first and may be long: it is cut, the rest stays whole.
        let said = self.first(self.profile.message).filter(|said| said.trim() != title);
        let Some(said) = said else { return clip(&out, MESSAGE_MAX).into_owned() };
        let said = text::lines(said.trim()).replace("\r\n", "\n");
        let room = MESSAGE_MAX.saturating_sub(out.len() + 1);
        let (first, rest) = out.split_at(title.len());
        clip(&format!("{first}\n{}{rest}", clip(&said, room)), MESSAGE_MAX).into_owned()
    }
}

/// What of an end takes part in an identity.
fn end(end: &Endpoint) -> String {
    let ip = end.ip.map(|ip| ip.to_string());
    ip.or_else(|| end.mac.clone()).or_else(|| end.name.clone()).unwrap_or_default()
}

/// Identity of an alert whose source has no id for it. Where no end is known the sensor stands for it.
pub(super) fn derived(reading: &Reading<'_>, alert: &Alert) -> Fingerprint {
    let (mut source, destination) = (end(&alert.source), end(&alert.destination));
    if source.is_empty() && destination.is_empty() {
        source = format!("sensor {}", alert.sensor);
    }
    let identity = Identity::Derived {
        signature: &alert.title,
        source: &source,
        destination: &destination,
        protocol: alert.protocols.first().map(Protocol::as_str).unwrap_or_default(),
    };
    reading.settings.common.fingerprint(&identity)
}

/// A device that the product has just met.
fn devices(event: &Event<'_>, profile: &Profile, alert: &Alert) -> Vec<Device> {
    let title = alert.title.to_lowercase();
    if !profile.inventory.iter().any(|known| title.contains(known)) {
        return Vec::new();
    }
    let nothing = Endpoint::default();
    let (end, keys) = match &alert.source {
        end if *end != nothing => (end, &profile.source),
        _ => (&alert.destination, &profile.destination),
    };
    if *end == nothing {
        return Vec::new();
    }
    let attribute =
        |keys: &[&str]| first(event, keys).map(|text| word(&text)).filter(|text| !text.is_empty());
    vec![Device {
        id: end.device_id.clone(),
        name: end.name.clone(),
        ips: end.ip.into_iter().collect(),
        macs: end.mac.clone().into_iter().collect(),
        kind: attribute(keys.kind),
        vendor: attribute(keys.vendor),
        site: alert.site.clone(),
        zone: alert.zone.clone(),
        sensor: Some(alert.sensor.clone()),
        first_seen: Some(alert.time),
        last_seen: Some(alert.time),
        ..Device::default()
    }]
}

/// Parts of a list as products write them: `a, b`, `['a', 'b']`.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ';', ' ', '[', ']', '\'', '"', '\n']).filter(|item| !item.is_empty()).take(LIST_MAX)
}

/// An address is compared as an address; a zone (`%eth0`) is dropped.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.split_once('%').map_or(text, |(address, _)| address).parse().ok()
}

/// `00:1b:1b:aa:bb:cc` of six pairs of hex digits with `:`, `-`, or `.` between them, or nothing.
fn mac(text: &str) -> Option<String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b':' | b'-' | b'.')).take(13).collect();
    if digits.len() != 12 || text.len() > 17 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut out = String::with_capacity(17);
    for (at, digit) in digits.iter().enumerate() {
        if at > 0 && at % 2 == 0 {
            out.push(':');
        }
        out.push(char::from(digit.to_ascii_lowercase()));
    }
    (out != "00:00:00:00:00:00").then_some(out)
}

/// A name without the ` - 1` that iSID puts behind it.
fn bare(name: &str) -> &str {
    match name.rsplit_once(" - ") {
        Some((before, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => before.trim_end(),
        _ => name,
    }
}

/// `Modbus`; `S7/S7Plus/61850-MMS`; a number of IANA. `EtherNet/IP` is one name.
fn protocols(text: &str) -> Vec<Protocol> {
    const NOTHING: [&str; 5] = ["unknown", "other", "any", "undefined", "failed"];
    let known = |name: &str| {
        !name.trim().is_empty() && !NOTHING.iter().any(|no| no.eq_ignore_ascii_case(name.trim()))
    };
    let one = |name: &str| Protocol::named(&eve::tables::ip_protocol(name.trim()));
    let mut list: Vec<Protocol> = Vec::new();
    for name in text.split([',', ';']).take(LIST_MAX).filter(|name| known(name)) {
        let whole = one(name);
        let is_one = !name.contains('/') || Protocol::known().any(|known| known == whole.as_str());
        let parts = if is_one {
            vec![whole]
        } else {
            name.split('/').take(LIST_MAX).filter(|name| known(name)).map(one).collect()
        };
        for protocol in parts {
            if list.len() < LIST_MAX && !list.contains(&protocol) {
                list.push(protocol);
            }
        }
    }
    list
}

fn vulnerabilities(text: &str) -> impl Iterator<Item = &str> {
    memchr::memmem::find_iter(text.as_bytes(), b"CVE-").take(LIST_MAX).filter_map(|at| {
        let rest = &text[at + 4..];
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest.get(4..)?.strip_prefix('-')?;
        let long = digits(number);
        (digits(rest) == 4 && (4..=7).contains(&long)).then(|| &text[at..at + 4 + 5 + long])
    })
}

/// A message that is no event of a product: its text is all there is.
pub(super) fn plain(reading: &Reading<'_>) -> Outcome {
    let message = &reading.message;
    let text = text::lines(message.text.trim());
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let Some(first) = lines.next() else { return Outcome::Blank };
    let title = clip(&one_line(first), TITLE_MAX).into_owned();
    let app = message.app.map(word).filter(|app| !app.is_empty());
    let settings = &reading.settings.common;
    let mapped = [app.as_deref().unwrap_or_default(), &title].iter().find_map(|word| settings.engine(word));
    let number = message.severity();
    let alert = Alert {
        time: message.time.unwrap_or(reading.received_at),
        severity: settings.severity(&number.to_string()).unwrap_or_else(|| vendor::syslog_severity(number)),
        engine: mapped.or_else(|| vendor::by_words(&title)).unwrap_or(Engine::Operational),
        message: clip(&text, MESSAGE_MAX).into_owned(),
        category: app,
        sensor: reading.sensor(),
        references: vulnerabilities(&title).map(word).collect(),
        raw: reading.raw(),
        title,
        ..settings.alert(reading.received_at)
    };
    let fingerprint = derived(reading, &alert);
    Outcome::Alert(Box::new(Finding { alert, fingerprint }))
}
