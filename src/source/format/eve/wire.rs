//! The parts of an EVE record that are looked at, borrowed from the line.
//!
//! Everything is lenient: a key may be absent, of another type, or there twice (the last one counts, as in most JSON
//! readers); a value that cannot be used is as if absent. Unknown keys are skipped without being kept, so a record with
//! megabytes of `dnp3` points costs time but no memory. What this does not do: decide anything.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use super::super::lenient::{Lenient, lenient};

/// Most values that are kept of one list.
const LIST_MAX: usize = 32;

/// A text; a number is taken as it is written.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(Option<Cow<'a, str>>);

impl Text<'_> {
    /// The text; `None` when absent or empty.
    pub(super) fn get(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }
}

impl<'de> Lenient<'de> for Text<'de> {
    fn text(text: Cow<'de, str>) -> Self {
        Self(Some(text))
    }
    fn number(number: i128) -> Self {
        Self(Some(Cow::Owned(number.to_string())))
    }
    fn float(number: f64) -> Self {
        Self(Some(Cow::Owned(number.to_string())))
    }
}
lenient!(Text<'de>, 'de);

/// A whole number of zero or more; a text with such a number counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Number(pub(super) Option<u64>);

impl Number {
    /// As a port, if it can be one.
    pub(super) fn port(self) -> Option<u16> {
        self.0.and_then(|number| u16::try_from(number).ok())
    }
}

impl<'de> Lenient<'de> for Number {
    fn text(text: Cow<'de, str>) -> Self {
        Self(text.trim().parse().ok())
    }
    fn number(number: i128) -> Self {
        Self(u64::try_from(number).ok())
    }
}
lenient!(Number, 'de);

/// A list of texts; a single text is a list of one.
#[derive(Debug, Default)]
pub(super) struct List<'a>(pub(super) Vec<Cow<'a, str>>);

impl<'de> Lenient<'de> for List<'de> {
    fn text(text: Cow<'de, str>) -> Self {
        Self(vec![text])
    }
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut texts = Vec::new();
        while let Some(Text(text)) = list.next_element()? {
            if texts.len() < LIST_MAX {
                texts.extend(text);
            }
        }
        Ok(Self(texts))
    }
}
lenient!(List<'de>, 'de);

/// What is used of `alert.metadata`: keys are the rule writer's own.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    /// First value of `signature_severity`.
    pub(super) signature_severity: Option<Cow<'a, str>>,
    /// Values that are CVE numbers, and those of `mitre_*_id`.
    pub(super) references: Vec<Cow<'a, str>>,
}

impl<'de> Lenient<'de> for Metadata<'de> {
    fn map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut found = Self::default();
        while let Some(Text(key)) = map.next_key()? {
            let key = key.unwrap_or_default();
            let List(values) = map.next_value()?;
            if key == "signature_severity" {
                found.signature_severity = values.into_iter().next();
                continue;
            }
            let mitre = key.starts_with("mitre_") && key.ends_with("_id");
            let room = LIST_MAX.saturating_sub(found.references.len());
            found.references.extend(values.into_iter().filter(|value| mitre || is_cve(value)).take(room));
        }
        Ok(found)
    }
}
lenient!(Metadata<'de>, 'de);

fn is_cve(text: &str) -> bool {
    let text = text.as_bytes();
    text.len() > 4 && text[..3].eq_ignore_ascii_case(b"cve") && matches!(text[3], b'-' | b'_')
}

/// Declares a JSON object of which some keys are read.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(super) struct $name<'a> {
            $($(#[$field_doc])* pub(super) $field: $type,)*
            life: PhantomData<&'a ()>,
        }

        impl<'de> Lenient<'de> for $name<'de> {
            fn map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
                let mut object = Self::default();
                while let Some(Text(key)) = map.next_key()? {
                    match key.as_deref().unwrap_or_default() {
                        $($key => object.$field = map.next_value()?,)*
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(object)
            }
        }
        lenient!($name<'de>, 'de);
    };
}

object! {
    Record {
        event_type: Text<'a> = "event_type",
        timestamp: Text<'a> = "timestamp",
        src_ip: Text<'a> = "src_ip",
        src_port: Number = "src_port",
        dest_ip: Text<'a> = "dest_ip",
        dest_port: Number = "dest_port",
        proto: Text<'a> = "proto",
        app_proto: Text<'a> = "app_proto",
        direction: Text<'a> = "direction",
        host: Text<'a> = "host",
        community_id: Text<'a> = "community_id",
        flow_id: Number = "flow_id",
        tenant_id: Number = "tenant_id",
        /// The outer tag first.
        vlan: List<'a> = "vlan",
        in_iface: Text<'a> = "in_iface",
        alert: Alert<'a> = "alert",
        flow: Flow<'a> = "flow",
        ether: Ether<'a> = "ether",
        modbus: Exchange<'a> = "modbus",
        dnp3: Exchange<'a> = "dnp3",
        enip: Exchange<'a> = "enip",
    }
}

object! {
    Alert {
        action: Text<'a> = "action",
        gid: Number = "gid",
        signature_id: Number = "signature_id",
        rev: Number = "rev",
        signature: Text<'a> = "signature",
        category: Text<'a> = "category",
        severity: Number = "severity",
        metadata: Metadata<'a> = "metadata",
        references: List<'a> = "references",
        /// Who attacks, when the rule says so.
        source: Party<'a> = "source",
        /// Who is attacked, when the rule says so.
        target: Party<'a> = "target",
    }
}

object! {
    /// `alert.source` and `alert.target`.
    Party {
        ip: Text<'a> = "ip",
        port: Number = "port",
    }
}

object! {
    /// `flow`; its addresses are there in newer versions only.
    Flow {
        src_ip: Text<'a> = "src_ip",
        src_port: Number = "src_port",
        dest_ip: Text<'a> = "dest_ip",
        dest_port: Number = "dest_port",
        pkts_toserver: Number = "pkts_toserver",
        pkts_toclient: Number = "pkts_toclient",
        bytes_toserver: Number = "bytes_toserver",
        bytes_toclient: Number = "bytes_toclient",
    }
}

object! {
    /// `ether`, off by default.
    Ether {
        src_mac: Text<'a> = "src_mac",
        dest_mac: Text<'a> = "dest_mac",
    }
}

object! {
    /// `modbus`, `dnp3` or `enip` inside an alert.
    Exchange {
        request: Message<'a> = "request",
        response: Message<'a> = "response",
    }
}

object! {
    /// One side of an OT exchange: the few keys that say what was asked for.
    Message {
        /// Modbus: `RdCoils`.
        function_code: Text<'a> = "function_code",
        /// Modbus.
        unit_id: Number = "unit_id",
        /// Modbus: `WRITE | COILS`.
        access_type: Text<'a> = "access_type",
        /// DNP3.
        application: Application<'a> = "application",
        /// EtherNet/IP.
        command: Text<'a> = "command",
        /// EtherNet/IP.
        cip: Cip<'a> = "cip",
    }
}

object! {
    /// `dnp3.request.application`.
    Application {
        function_code: Number = "function_code",
    }
}

object! {
    /// `enip.request.cip`.
    Cip {
        service: Text<'a> = "service",
    }
}

object! {
    /// A line that is no alert and may tell of a device.
    Inventory {
        timestamp: Text<'a> = "timestamp",
        host: Text<'a> = "host",
        src_ip: Text<'a> = "src_ip",
        src_port: Number = "src_port",
        dest_ip: Text<'a> = "dest_ip",
        dest_port: Number = "dest_port",
        dhcp: Dhcp<'a> = "dhcp",
        arp: Arp<'a> = "arp",
        enip: Enip<'a> = "enip",
    }
}

object! {
    Dhcp {
        client_mac: Text<'a> = "client_mac",
        assigned_ip: Text<'a> = "assigned_ip",
        /// `ack` says that the address is the client's now.
        message: Text<'a> = "dhcp_type",
        hostname: Text<'a> = "hostname",
    }
}

object! {
    /// `arp`, of newer versions.
    Arp {
        src_mac: Text<'a> = "src_mac",
        src_ip: Text<'a> = "src_ip",
    }
}

object! {
    /// `enip` of an event of its own.
    Enip {
        response: EnipAnswer<'a> = "response",
    }
}

object! {
    EnipAnswer {
        identity: EnipIdentity<'a> = "identity",
    }
}

object! {
    /// `enip.response.identity`, of newer versions.
    EnipIdentity {
        vendor_id: Text<'a> = "vendor_id",
        device_type: Text<'a> = "device_type",
        product_name: Text<'a> = "product_name",
        revision: Text<'a> = "revision",
        serial: Number = "serial",
    }
}
