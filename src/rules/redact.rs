//! Redaction: what of an alert may not leave this machine, and what goes out in its place.
//!
//! It is applied to an alert as it is taken out of the buffer to be told of, so templates, rows, events, notes and
//! attachments see only what is left. What is stored, listed and matched by rules stays as it came.
//!
//! A value that goes is also taken out of every other field that may quote it: texts, references, the sensor's id of the
//! alert, sensor, protocols, site, zone, and the other end where it is the same machine. Of `plc.plant.example` the bare `plc`
//! goes too. The original record is never told of an alert of which anything was redacted: a packet in it holds the
//! addresses as bytes. The key of a ticket is no text: it is a hash, the same without redaction.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use percent_encoding::percent_decode_str;
use ring::hmac;

use crate::model::alert::{Endpoint, hex};
use crate::model::words::words;
use crate::model::{Alert, Protocol};

/// Most `[[redact]]` tables in a config.
pub const REDACT_MAX: usize = 64;
/// What stands where a value was that is removed.
const REDACTED: &str = "[redacted]";
/// Hex digits of a pseudonym of a text: 40 bits, so that a million names are unlikely to share one.
const DIGITS: usize = 10;

words! {
    /// What a value becomes.
    pub enum How {
        /// Another value that always stands for the same one, made with this machine's key: `240.0.0.0/4` for IPv4,
        /// `3fff::/20` for IPv6 (RFC 9637), a MAC with the bit of local administration, `device-3f9a2c41b7` for a name.
        Pseudonym = "pseudonym",
        /// Nothing.
        Remove = "remove",
        /// What it has in common with its neighbours: the /24 or /48, the maker's half of a MAC, the first letter of a name.
        Mask = "mask",
    }
}

macro_rules! fields {
    ($($name:ident $word:literal),* $(,)?) => {
        /// A part of an alert that can be redacted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Field { $(#[doc = concat!("`", $word, "`")] $name),* }

        impl Field {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in config and `explain`: the template variable.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

fields! {
    SourceIp "source.ip", SourceMac "source.mac", SourceName "source.name", SourceDevice "source.device_id",
    DestinationIp "destination.ip", DestinationMac "destination.mac", DestinationName "destination.name",
    DestinationDevice "destination.device_id",
    Sensor "sensor", Site "site", Zone "zone", Category "category",
    Message "message", References "references", Raw "raw",
}

impl Field {
    /// Reads the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.as_str() == text)
    }

    /// Whether it says which machine it is.
    pub fn is_of_an_end(self) -> bool {
        SOURCE.contains(&self) || DESTINATION.contains(&self)
    }

    /// Whether it is free text, of which nothing but all can be taken away.
    pub fn is_free_text(self) -> bool {
        matches!(self, Self::Message | Self::References | Self::Raw)
    }
}

/// What is redacted, and with which key.
#[derive(Clone)]
pub struct Redaction {
    fields: BTreeMap<Field, How>,
    key: hmac::Key,
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redaction").field("fields", &self.fields).finish_non_exhaustive()
    }
}

impl Default for Redaction {
    /// Nothing is redacted.
    fn default() -> Self {
        Self::new(BTreeMap::new(), &[])
    }
}

impl Redaction {
    /// Redacts these fields; `key` is this machine's own and never told.
    pub fn new(fields: BTreeMap<Field, How>, key: &[u8]) -> Self {
        Self { fields, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// What is redacted and how.
    pub fn fields(&self) -> &BTreeMap<Field, How> {
        &self.fields
    }

    /// What may leave of an alert.
    pub fn apply(&self, mut alert: Alert) -> Alert {
        if self.fields.is_empty() {
            return alert;
        }
        alert.raw.clear();
        let mut quoted = Quoted::new(self);
        self.endpoint(&mut alert.source, SOURCE, &mut quoted);
        self.endpoint(&mut alert.destination, DESTINATION, &mut quoted);
        if let Some(how) = self.fields.get(&Field::Sensor) {
            let shown = self.word("sensor", &alert.sensor, *how).unwrap_or_default();
            quoted.word(&alert.sensor, &shown);
            alert.sensor = shown;
        }
        self.optional(Field::Site, "site", &mut alert.site, &mut quoted);
        self.optional(Field::Zone, "zone", &mut alert.zone, &mut quoted);
        self.optional(Field::Category, "category", &mut alert.category, &mut Quoted::new(self));
        if self.fields.contains_key(&Field::Message) {
            alert.message.clear();
        }
        if self.fields.contains_key(&Field::References) {
            alert.references.clear();
        }
        // The longest first: a name may begin as another does.
        quoted.words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        self.quotes(&mut alert, &quoted);
        alert
    }

    /// Takes the values out of what may quote them and is not redacted itself.
    fn quotes(&self, alert: &mut Alert, quoted: &Quoted<'_>) {
        for text in [&mut alert.title, &mut alert.message] {
            *text = quoted.out_of(text);
        }
        for reference in &mut alert.references {
            *reference = quoted.out_of_url(reference);
        }
        // Its values are no names: it may quote some all the same.
        if let Some(category) = &mut alert.category {
            *category = quoted.out_of(category);
        }
        if let Some(id) = &mut alert.id {
            *id = quoted.field(id);
        }
        for protocol in &mut alert.protocols {
            let shown = quoted.out_of(protocol.as_str());
            if shown != protocol.as_str() {
                *protocol = Protocol::named(&shown);
            }
        }
        for (field, value) in [(Field::Site, &mut alert.site), (Field::Zone, &mut alert.zone)] {
            self.field(field, value, quoted);
        }
        if !self.fields.contains_key(&Field::Sensor) {
            alert.sensor = quoted.field(&alert.sensor);
        }
        for (end, fields) in [(&mut alert.source, SOURCE), (&mut alert.destination, DESTINATION)] {
            if !self.fields.contains_key(&fields[0])
                && let Some((ip, how)) = end.ip.and_then(|ip| Some((ip, quoted.how_of(ip)?)))
            {
                end.ip = self.ip(ip, how);
            }
            if !self.fields.contains_key(&fields[1])
                && let Some((mac, how)) =
                    end.mac.as_ref().and_then(|mac| Some((mac, quoted.how_of_mac(mac)?)))
            {
                end.mac = self.mac(mac, how);
            }
            self.field(fields[2], &mut end.name, quoted);
            self.field(fields[3], &mut end.device_id, quoted);
        }
    }

    fn field(&self, field: Field, value: &mut Option<String>, quoted: &Quoted<'_>) {
        if let Some(text) = value.as_mut().filter(|_| !self.fields.contains_key(&field)) {
            *text = quoted.field(text);
        }
    }

    /// A text of ours that quotes addresses of sources, e.g. the top talkers of a storm.
    pub fn sources(&self, text: &str) -> String {
        let mut quoted = Quoted::new(self);
        quoted.every_ip = self.fields.get(&Field::SourceIp).copied();
        quoted.out_of(text)
    }

    fn endpoint(&self, end: &mut Endpoint, fields: [Field; 4], quoted: &mut Quoted<'_>) {
        let how = fields.map(|field| self.fields.get(&field).copied());
        if let (Some(how), Some(ip)) = (how[0], end.ip) {
            quoted.ips.push((ip, how));
            end.ip = self.ip(ip, how);
        }
        if let (Some(how), Some(mac)) = (how[1], end.mac.take()) {
            quoted.macs.push((digits(&mac), how));
            end.mac = self.mac(&mac, how);
        }
        self.optional(fields[2], "device", &mut end.name, quoted);
        self.optional(fields[3], "id", &mut end.device_id, quoted);
    }

    fn optional(&self, field: Field, kind: &str, value: &mut Option<String>, quoted: &mut Quoted<'_>) {
        if let (Some(how), Some(text)) = (self.fields.get(&field), value.as_ref()) {
            let shown = self.word(kind, text, *how);
            quoted.word(text, shown.as_deref().unwrap_or_default());
            *value = shown;
        }
    }

    fn sign(&self, kind: &str, value: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(kind.as_bytes());
        context.update(&[0]);
        context.update(value);
        context.sign()
    }

    fn ip(&self, ip: IpAddr, how: How) -> Option<IpAddr> {
        match (how, ip) {
            (How::Remove, _) => None,
            (How::Mask, IpAddr::V4(ip)) => {
                let [a, b, c, _] = ip.octets();
                Some(Ipv4Addr::new(a, b, c, 0).into())
            }
            (How::Mask, IpAddr::V6(ip)) => {
                Some(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - 48))).into())
            }
            (How::Pseudonym, IpAddr::V4(ip)) => {
                let tag = self.sign("ip", &ip.octets());
                Some(Ipv4Addr::from_bits(0xf000_0000 | (first(tag.as_ref()) as u32 >> 4)).into())
            }
            (How::Pseudonym, IpAddr::V6(ip)) => {
                let tag = self.sign("ip", &ip.octets());
                Some(Ipv6Addr::from_bits((0x3fff_u128 << 112) | (first(tag.as_ref()) >> 20)).into())
            }
        }
    }

    fn mac(&self, mac: &str, how: How) -> Option<String> {
        match how {
            How::Remove => None,
            How::Mask => Some(format!("{}:00:00:00", mac.get(..8).unwrap_or("00:00:00"))),
            How::Pseudonym => {
                let tag = self.sign("mac", digits(mac).as_bytes());
                Some(mac_of(&format!("02{}", hex(&tag.as_ref()[..5]))))
            }
        }
    }

    fn word(&self, kind: &str, text: &str, how: How) -> Option<String> {
        match how {
            How::Remove => None,
            How::Mask => Some(text.chars().take(1).chain("***".chars()).collect()),
            How::Pseudonym => {
                let tag = self.sign(kind, text.as_bytes());
                Some(format!("{kind}-{}", &hex(tag.as_ref())[..DIGITS]))
            }
        }
    }
}

const SOURCE: [Field; 4] = [Field::SourceIp, Field::SourceMac, Field::SourceName, Field::SourceDevice];
const DESTINATION: [Field; 4] =
    [Field::DestinationIp, Field::DestinationMac, Field::DestinationName, Field::DestinationDevice];

/// The first 16 bytes as a number.
fn first(bytes: &[u8]) -> u128 {
    bytes.iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// The hex digits of a MAC, however it is written.
fn digits(mac: &str) -> String {
    mac.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_lowercase()).collect()
}

/// Values that texts may quote.
struct Quoted<'a> {
    redaction: &'a Redaction,
    ips: Vec<(IpAddr, How)>,
    /// Both ends' addresses are redacted: then no address at all is left in a text.
    every_ip: Option<How>,
    macs: Vec<(String, How)>,
    every_mac: Option<How>,
    words: Vec<(String, String)>,
}

impl<'a> Quoted<'a> {
    fn new(redaction: &'a Redaction) -> Self {
        let both = |source, destination| {
            let how = redaction.fields.get(&source).copied();
            redaction.fields.get(&destination).and(how)
        };
        Self {
            redaction,
            ips: Vec::new(),
            every_ip: both(Field::SourceIp, Field::DestinationIp),
            macs: Vec::new(),
            every_mac: both(Field::SourceMac, Field::DestinationMac),
            words: Vec::new(),
        }
    }

    fn word(&mut self, text: &str, shown: &str) {
        let mut quoted = |word: &str| self.words.push((word.to_lowercase(), shown.to_owned()));
        quoted(text);
        // People write the host's name without its domain.
        let host = text.split('.').next().unwrap_or_default();
        if host != text && text.parse::<IpAddr>().is_err() && host.contains(char::is_alphabetic) {
            quoted(host);
        }
    }

    /// How this address is redacted, if one of an end is the same.
    fn how_of(&self, ip: IpAddr) -> Option<How> {
        let (ip, known) = (ip.to_canonical(), |known: &IpAddr| known.to_canonical());
        self.ips.iter().find(|(one, _)| known(one) == ip).map(|(_, how)| *how)
    }

    fn how_of_mac(&self, mac: &str) -> Option<How> {
        let mac = digits(mac);
        self.macs.iter().find(|(known, _)| *known == mac).map(|(_, how)| *how)
    }

    /// A field that may be a value as it is, however short, or quote one.
    fn field(&self, text: &str) -> String {
        let lower = text.to_lowercase();
        match self.words.iter().find(|(word, _)| *word == lower) {
            Some((_, shown)) if shown.is_empty() => REDACTED.to_owned(),
            Some((_, shown)) => shown.clone(),
            None => self.out_of(text),
        }
    }

    /// The same of an address of a page, where a value may be written with `%2D`: then nothing of it is told.
    fn out_of_url(&self, url: &str) -> String {
        let plain = decoded(url);
        let shown = self.out_of(url);
        // What is left of it is as harmless as it seems.
        if plain == url || self.out_of(&decoded(&shown)) == decoded(&shown) {
            shown
        } else {
            REDACTED.to_owned()
        }
    }

    /// The text without them.
    fn out_of(&self, text: &str) -> String {
        let mut text = self.addresses(text);
        // A single letter is in every text.
        for (word, shown) in self.words.iter().filter(|(word, _)| word.chars().nth(1).is_some()) {
            text = without(&text, word, shown);
        }
        text
    }

    /// Addresses are compared by value, not by letters: IPv6 has many forms, a MAC has colons, dashes or dots.
    fn addresses(&self, text: &str) -> String {
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '-');
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(part) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c| !part(c)).unwrap_or(from.len());
            let (token, after) = from.split_at(end);
            out.push_str(before);
            out.push_str(&self.token(token));
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn token(&self, token: &str) -> String {
        let known = |text: &str| self.address(text);
        // IPv6 may begin and end with colons; a colon may also be the sentence's.
        let inner = token.trim_matches(['.', '-']);
        for bare in
            [inner, inner.trim_end_matches(':'), inner.trim_start_matches(':'), inner.trim_matches(':')]
        {
            // `10.0.0.1:502` and `10.0.0.1-10.0.0.9` are two each.
            if let Some(shown) = known(bare) {
                return token.replacen(bare, &shown, 1);
            }
        }
        let mut parts = token.split_inclusive([':', '-']).map(|part| {
            let value = part.trim_end_matches([':', '-', '.']);
            known(value).map(|shown| part.replacen(value, &shown, 1)).ok_or(part)
        });
        let changed = parts.clone().any(|part| part.is_ok());
        if changed {
            parts.by_ref().map(|part| part.unwrap_or_else(str::to_owned)).collect()
        } else {
            token.to_owned()
        }
    }

    fn address(&self, text: &str) -> Option<String> {
        let r = self.redaction;
        if let Ok(ip) = text.parse::<IpAddr>() {
            // `::ffff:a01:203` is 10.1.2.3 as an IPv6 socket sees it.
            let ip = ip.to_canonical();
            let how = self.how_of(ip).or(self.every_ip)?;
            return Some(r.ip(ip, how).map_or_else(|| REDACTED.to_owned(), |ip| ip.to_string()));
        }
        let mac = digits(text);
        let separators = text.matches([':', '-', '.']).count();
        if mac.len() == 12 && matches!(separators, 0 | 2 | 5) && text.len() == mac.len() + separators {
            // Twelve bare digits may be a number or a time: only the MAC of an end is known for one.
            let every = self.every_mac.filter(|_| separators > 0);
            let how = self.how_of_mac(&mac).or(every)?;
            return Some(r.mac(&mac_of(&mac), how).unwrap_or_else(|| REDACTED.to_owned()));
        }
        None
    }
}

/// Twelve digits as a MAC is written.
fn mac_of(digits: &str) -> String {
    let pairs: Vec<&str> = (0..6).filter_map(|i| digits.get(2 * i..2 * i + 2)).collect();
    pairs.join(":")
}

/// A text of which `%2D` and the like, and the plus of a form, are what they stand for.
fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// The text with each whole word (in lower case) as something else, whatever its case there.
fn without(text: &str, word: &str, shown: &str) -> String {
    let lower = text.to_lowercase();
    // Letters whose lower case has another length would shift the places: such a text is dropped rather than told.
    if lower.len() != text.len() {
        return if lower.contains(word) { REDACTED.to_owned() } else { text.to_owned() };
    }
    let shown = if shown.is_empty() { REDACTED } else { shown };
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for (at, found) in lower.match_indices(word) {
        let end = at + found.len();
        let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let whole = !joined(lower[..at].chars().next_back()) && !joined(lower[end..].chars().next());
        if !whole || !text.is_char_boundary(at) || !text.is_char_boundary(end) {
            continue;
        }
        out.push_str(&text[done..at]);
        out.push_str(shown);
        done = end;
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Protocol, Severity, Timestamp};

    fn redaction(fields: &[(&str, How)]) -> Redaction {
        let fields = fields.iter().map(|(name, how)| (Field::parse(name).unwrap(), *how)).collect();
        Redaction::new(fields, b"a machine's own")
    }

    fn both_addresses(how: How) -> Redaction {
        redaction(&[("source.ip", how), ("destination.ip", how)])
    }

    fn alert() -> Alert {
        let mut alert = Alert::sample("PLC-7 stopped by 10.1.2.3", Severity::Major, Timestamp::EPOCH);
        alert.source = Endpoint {
            ip: Some("10.1.2.3".parse().unwrap()),
            mac: Some("00:1b:1b:aa:bb:cc".to_owned()),
            name: Some("HMI Müller".to_owned()),
            port: Some(502),
            device_id: Some("42".to_owned()),
        };
        alert.destination = Endpoint {
            ip: Some("fe80::1".parse().unwrap()),
            name: Some("plc-7".to_owned()),
            ..Endpoint::default()
        };
        alert.message =
            "From 10.1.2.3:502 (00-1B-1B-AA-BB-CC, hmi müller) to [fe80:0:0:0::1], not 10.1.2.34".to_owned();
        alert.references = vec!["https://siem.example/?ip=10.1.2.3".to_owned()];
        alert.raw = "{\"packet\":\"…\"}".to_owned();
        alert.sensor = "line4".to_owned();
        alert
    }

    #[test]
    fn nothing_is_changed_where_nothing_is_asked_for() {
        assert_eq!(Redaction::default().apply(alert()), alert());
    }

    #[test]
    fn a_pseudonym_stands_for_the_same_value_and_for_no_other() {
        let r = both_addresses(How::Pseudonym);
        let (first, again) = (r.apply(alert()), r.apply(alert()));
        assert_eq!(first, again);
        let shown = first.source.ip.unwrap();
        assert!(matches!(shown, IpAddr::V4(ip) if ip.octets()[0] >= 240), "{shown}");
        assert!(first.destination.ip.unwrap().to_string().starts_with("3fff:"), "{:?}", first.destination.ip);
        let mut other = alert();
        other.source.ip = Some("10.1.2.4".parse().unwrap());
        assert_ne!(r.apply(other).source.ip, first.source.ip);
        let elsewhere = Redaction::new(r.fields.clone(), b"another machine");
        assert_ne!(elsewhere.apply(alert()).source.ip, first.source.ip, "the key tells machines apart");
        assert!(first.title.ends_with(&format!("by {shown}")), "{}", first.title);
        assert!(first.message.starts_with(&format!("From {shown}:502 (")), "{}", first.message);
    }

    #[test]
    fn no_form_of_a_redacted_value_is_left_in_any_text() {
        let all: Vec<(&str, How)> = Field::ALL.iter().map(|f| (f.as_str(), How::Remove)).collect();
        for how in [How::Pseudonym, How::Mask, How::Remove] {
            let fields: Vec<(&str, How)> = all
                .iter()
                .filter(|(name, _)| !Field::parse(name).unwrap().is_free_text())
                .map(|(name, _)| (*name, how))
                .collect();
            let text = format!("{:?}", redaction(&fields).apply(alert())).to_lowercase();
            for hidden in [
                "10.1.2.3",
                "fe80::1",
                "fe80:0:0:0::1",
                "aa:bb:cc",
                "aa-bb-cc",
                "müller",
                "plc-7",
                "line4",
                "packet",
            ] {
                assert!(!text.contains(hidden), "{how:?} leaves {hidden}: {text}");
            }
        }
        let bare = redaction(&all).apply(alert());
        assert_eq!((bare.message.as_str(), bare.references.len(), bare.site), ("", 0, None));
    }

    /// Whatever field quotes it: the value of an end that is redacted is in none.
    #[test]
    fn no_field_is_left_that_quotes_a_redacted_end() {
        let mut alert = alert();
        alert.source.name = Some("hmi-2.plant.example".to_owned());
        alert.id = Some("10.1.2.3:hmi-2:7".to_owned());
        alert.sensor = "tap at HMI-2".to_owned();
        alert.protocols = vec![Protocol::named("proto-10.1.2.3"), Protocol::named("Modbus")];
        alert.site = Some("hall of 00-1b-1b-aa-bb-cc".to_owned());
        alert.zone = Some("HMI-2.plant.example's".to_owned());
        alert.category = Some("hmi-2_backup".to_owned());
        // The same machine at both ends, and under another's name.
        alert.destination.ip = alert.source.ip;
        alert.destination.mac = alert.source.mac.clone();
        alert.destination.device_id = Some("10.1.2.3".to_owned());
        alert.message = "hmi-2_old and hmi-2.plant.example were hmi-20".to_owned();
        alert.references = vec!["https://siem.example/?host=hmi%2D2%2Eplant.example".to_owned()];
        let fields = ["source.ip", "source.mac", "source.name"];
        for how in [How::Pseudonym, How::Mask, How::Remove] {
            let shown = redaction(&fields.map(|name| (name, how))).apply(alert.clone());
            let text = format!("{shown:?}").to_lowercase().replace("hmi-20", "");
            for hidden in ["10.1.2.3", "aa:bb:cc", "aa-bb-cc", "hmi-2", "hmi%2d2", "plant.example"] {
                assert!(!text.contains(hidden), "{how:?} leaves {hidden}: {text}");
            }
            assert_eq!(shown.protocols[1].as_str(), "Modbus");
            assert!(shown.message.ends_with("were hmi-20"), "another name: {}", shown.message);
        }
    }

    #[test]
    fn one_end_alone_leaves_the_other_in_the_texts() {
        let shown = redaction(&[("source.ip", How::Remove)]).apply(alert());
        assert_eq!(
            shown.message,
            "From [redacted]:502 (00-1B-1B-AA-BB-CC, hmi müller) to [fe80:0:0:0::1], not 10.1.2.34"
        );
        assert_eq!((shown.source.ip, shown.raw.as_str()), (None, ""));
        assert_eq!(shown.destination, alert().destination);
    }

    #[test]
    fn a_mask_keeps_what_neighbours_share() {
        let fields = [
            ("source.ip", How::Mask),
            ("source.mac", How::Mask),
            ("source.name", How::Mask),
            ("destination.ip", How::Mask),
        ];
        let shown = redaction(&fields).apply(alert());
        assert_eq!(shown.source.ip.unwrap().to_string(), "10.1.2.0");
        assert_eq!(shown.destination.ip.unwrap().to_string(), "fe80::");
        assert_eq!(shown.source.mac.as_deref(), Some("00:1b:1b:00:00:00"));
        assert_eq!(shown.source.name.as_deref(), Some("H***"));
        assert!(shown.message.contains("(00:1b:1b:00:00:00, H***)"), "{}", shown.message);
    }

    #[test]
    fn bare_macs_and_mapped_addresses_go_like_their_other_forms() {
        let mut alert = alert();
        alert.message =
            "arp 001b1baabbcc=001B1BAABBCC [::ffff:a01:203]:502 ::ffff:10.1.2.3, 0:0:0:0:0:ffff:0a01:0203; \
                         ::ffff:a01:203: it; not 001b1baabbcd, 202611281530 or ::ffff:a01:204"
                .to_owned();
        let r = redaction(&[("source.ip", How::Mask), ("source.mac", How::Remove)]);
        assert_eq!(
            r.apply(alert.clone()).message,
            "arp [redacted]=[redacted] [10.1.2.0]:502 10.1.2.0, 10.1.2.0; 10.1.2.0: it; not 001b1baabbcd, \
             202611281530 or ::ffff:a01:204"
        );
        // An end that is told as a mapped address is the same machine.
        alert.source.ip = Some("::ffff:10.1.2.3".parse().unwrap());
        let shown = r.apply(alert).message;
        assert!(shown.contains("[10.1.2.0]:502 10.1.2.0, 10.1.2.0"), "{shown}");
        let mut alert = self::alert();
        alert.destination.ip = Some("fe80::".parse().unwrap());
        alert.message = "::1 asks fe80:: and 10.1.2.3".to_owned();
        assert_eq!(
            both_addresses(How::Remove).apply(alert).message,
            "[redacted] asks [redacted] and [redacted]"
        );
    }

    #[test]
    fn top_talkers_are_sources() {
        let r = redaction(&[("source.ip", How::Mask)]);
        assert_eq!(r.sources("10.1.2.3 (12), 2001:db8::9 (1)"), "10.1.2.0 (12), 2001:db8:: (1)");
        assert_eq!(Redaction::default().sources("10.1.2.3 (12)"), "10.1.2.3 (12)");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in "\\PC{0,80}", name in "\\PC{0,8}") {
            let mut alert = alert();
            alert.title = text;
            alert.source.name = Some(name);
            let r = redaction(&[("source.name", How::Pseudonym), ("source.ip", How::Mask), ("destination.mac", How::Mask)]);
            let once = r.apply(alert.clone());
            proptest::prop_assert_eq!(&once, &r.apply(alert));
        }
    }
}
