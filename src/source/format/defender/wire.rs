//! The parts of the console's and the sensor's JSON that are looked at, borrowed from one record.
//!
//! Their own samples disagree with their own tables, so everything is lenient. Keys are compared without case, `_` and
//! the prefix `u_`, so that one shape reads the older APIs (`ipAddresses`) and the integration API
//! (`u_ip_address_objects`). A key may be absent, there twice (the last usable value counts) or of another type; a value
//! that cannot be used is as if absent. Unknown keys are skipped without being kept. What this does not do: decide
//! anything.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess};

use super::super::lenient::{Any, Lenient, lenient};
use crate::model::device::PARTS_MAX;

/// What the product writes where it knows nothing.
fn says_nothing(text: &str) -> bool {
    text.is_empty()
        || ["n/a", "na", "null", "none", "undefined"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A text; a number is taken as it is written. Blanks around it and `N/A` count as nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Text<'a>(Option<Cow<'a, str>>);

impl Text<'_> {
    /// The text; `None` when absent or without a meaning.
    pub(super) fn get(&self) -> Option<&str> {
        self.0.as_deref().map(str::trim).filter(|text| !says_nothing(text))
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
    /// The first of a list that says something.
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut first = Self::default();
        while let Some(text) = list.next_element::<Self>()? {
            if first.get().is_none() {
                first = text;
            }
        }
        Ok(first)
    }
    /// `{"name": "PLC"}` where a plain text was announced.
    fn map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut name = Self::default();
        while let Some(key) = map.next_key::<Key<'_>>()? {
            if key.is("name") {
                name = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(name)
    }
}
lenient!(Text<'de>, 'de);

/// A whole number; a text with such a number counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Number(pub(super) Option<i64>);

impl<'de> Lenient<'de> for Number {
    fn text(text: Cow<'de, str>) -> Self {
        Self(text.trim().parse().ok())
    }
    fn number(number: i128) -> Self {
        Self(i64::try_from(number).ok())
    }
}
lenient!(Number, 'de);

/// Yes or no; as a word or as 0 and 1 as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flag(pub(super) Option<bool>);

impl<'de> Lenient<'de> for Flag {
    fn text(text: Cow<'de, str>) -> Self {
        Self(match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" => Some(false),
            _ => None,
        })
    }
    fn number(number: i128) -> Self {
        Self(Some(number != 0))
    }
    fn flag(flag: bool) -> Self {
        Self(Some(flag))
    }
}
lenient!(Flag, 'de);

/// A list; a single value is a list of one, and values beyond [`PARTS_MAX`] are skipped.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Lenient<'de> + Deserialize<'de> + PartialEq> Lenient<'de> for List<T> {
    fn text(text: Cow<'de, str>) -> Self {
        Self::one(T::text(text))
    }
    fn number(number: i128) -> Self {
        Self::one(T::number(number))
    }
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut all = Vec::new();
        while all.len() < PARTS_MAX {
            let Some(value) = list.next_element::<T>()? else { return Ok(Self(all)) };
            if value != T::default() {
                all.push(value);
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self(all))
    }
    fn map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::map(map).map(Self::one)
    }
}

impl<T: Default + PartialEq> List<T> {
    fn one(value: T) -> Self {
        Self(if value == T::default() { Vec::new() } else { vec![value] })
    }
}

impl<'de, T: Lenient<'de> + Deserialize<'de> + PartialEq> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any::<Self>(PhantomData))
    }
}

/// A key of an object, to be compared folded.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(from)?;
        Ok(Self(text.unwrap_or_default()))
    }
}

impl Key<'_> {
    fn is(&self, folded: &str) -> bool {
        key_is(&self.0, folded)
    }
}

/// Whether `key` is `folded` when case, `_` and the prefix `u_` do not count.
pub(super) fn key_is(key: &str, folded: &str) -> bool {
    let bare = key.strip_prefix("u_").or_else(|| key.strip_prefix("U_")).unwrap_or(key);
    let letters = bare.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase());
    letters.eq(folded.bytes())
}

/// A key that is there twice: a value that says nothing does not undo one that does.
fn keep<T: Default + PartialEq>(field: &mut T, value: T) {
    if value != T::default() {
        *field = value;
    }
}

/// Declares a JSON object of which some keys are read; several keys may mean the same.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $($key:literal)|+,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(super) struct $name<'a> {
            $($(#[$field_doc])* pub(super) $field: $type,)*
            life: PhantomData<&'a ()>,
        }

        impl<'de> Lenient<'de> for $name<'de> {
            fn map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
                let mut object = Self::default();
                while let Some(key) = map.next_key::<Key<'_>>()? {
                    $(if $(key.is($key))||+ {
                        keep(&mut object.$field, map.next_value()?);
                        continue;
                    })*
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(object)
            }
            /// An object in a list where an object was announced.
            fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
                Ok(List::<Self>::list(list)?.0.into_iter().next().unwrap_or_default())
            }
        }
        lenient!($name<'de>, 'de);
    };
}

object! {
    /// An alert of a sensor or a console.
    Alert {
        id: Text<'a> = "id",
        time: Text<'a> = "time",
        title: Text<'a> = "title" | "name",
        message: Text<'a> = "message",
        severity: Text<'a> = "severity",
        engine: Text<'a> = "engine" | "type",
        category: Text<'a> = "category" | "alertgroup",
        protocol: Text<'a> = "protocol",
        handled: Flag = "handled",
        source_device: Text<'a> = "sourcedevice",
        destination_device: Text<'a> = "destinationdevice",
        source_address: Text<'a> = "sourcedeviceaddress",
        destination_address: Text<'a> = "destinationdeviceaddress",
        remediation: List<Text<'a>> = "remediationsteps",
        additional: Additional<'a> = "additionalinformation",
        sensor_id: Text<'a> = "sensorid",
        sensor_name: Text<'a> = "sensorname",
        site_name: Text<'a> = "sitename",
        zone_id: Text<'a> = "zoneid",
        zone_name: Text<'a> = "zonename",
    }
}

object! {
    Additional {
        description: Text<'a> = "description",
        information: List<Text<'a>> = "information",
    }
}

object! {
    /// A device of the sensor's, the console's or the integration API.
    Device {
        id: Text<'a> = "id",
        name: Text<'a> = "name",
        kind: Kind<'a> = "type" | "devicetype",
        vendor: Text<'a> = "vendor",
        operating_system: Text<'a> = "operatingsystem",
        ips: List<Text<'a>> = "ipaddresses",
        ip_objects: List<Address<'a>> = "ipaddressobjects",
        macs: List<Text<'a>> = "macaddresses",
        mac_objects: List<Address<'a>> = "macaddressobjects",
        programming: Flag = "engineeringstation",
        authorized: Flag = "authorized",
        scanner: Flag = "scanner",
        dhcp: Flag = "hasdynamicaddress",
        protocols: List<Named<'a>> = "protocols" | "protocolobjects",
        firmware: List<Firmware<'a>> = "firmware" | "firmwares",
        purdue_level: Text<'a> = "purduelayer" | "purduelevel",
        criticality: Text<'a> = "importance" | "criticality",
        owner: Text<'a> = "owner",
        location: Text<'a> = "location",
        appliance: Text<'a> = "appliance" | "sensorname",
        site: Text<'a> = "site" | "sitename",
        zone: Text<'a> = "zone" | "zonename",
        zone_id: Text<'a> = "zoneid",
        sensor_id: Text<'a> = "sensorid",
        sensor_ids: List<SensorId<'a>> = "sensorids",
        vlans: List<Vlan<'a>> = "vlans",
        first_seen: Text<'a> = "firstdiscovered" | "discovered",
        last_seen: Text<'a> = "lastactivity" | "lastseen",
    }
}

/// A device's type: `"PLC"`, or `{"u_category": …, "u_purdue_layer": …, "u_name": "PLC"}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kind<'a>(pub(super) KindObject<'a>);

object! {
    /// The object form of a device's type.
    KindObject {
        name: Text<'a> = "name",
        purdue_level: Text<'a> = "purduelayer",
    }
}

impl<'de> Lenient<'de> for Kind<'de> {
    fn text(text: Cow<'de, str>) -> Self {
        Self(KindObject { name: Text::text(text), ..KindObject::default() })
    }
    fn map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        KindObject::map(map).map(Self)
    }
}
lenient!(Kind<'de>, 'de);

/// Declares an object with one text in it, for which the plain text may stand.
macro_rules! wrapped {
    ($(#[$doc:meta])* $name:ident = $($key:literal)|+) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(super) struct $name<'a>(pub(super) Text<'a>);

        impl<'de> Lenient<'de> for $name<'de> {
            fn text(text: Cow<'de, str>) -> Self {
                Self(Text::text(text))
            }
            fn number(number: i128) -> Self {
                Self(Text::number(number))
            }
            fn map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
                let mut found = Self::default();
                while let Some(key) = map.next_key::<Key<'_>>()? {
                    if $(key.is($key))||+ {
                        found = Self(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }
        lenient!($name<'de>, 'de);
    };
}

wrapped! {
    /// An address, without the MACs that are only guessed to belong to it.
    Address = "ipaddress" | "macaddress" | "address"
}
wrapped! {
    Named = "name" | "protocol"
}
wrapped! {
    /// A sensor that saw the device.
    SensorId = "sensorid" | "id"
}
wrapped! {
    Vlan = "vlan" | "id"
}

object! {
    /// Firmware of a device or of a module in it.
    Firmware {
        address: Text<'a> = "address",
        module_address: Text<'a> = "moduleaddress",
        serial: Text<'a> = "serial",
        model: Text<'a> = "model",
        version: Text<'a> = "firmwareversion" | "version",
        additional: Text<'a> = "additionaldata",
        vendor: Text<'a> = "vendor",
        rack: Text<'a> = "rack",
        slot: Text<'a> = "slot",
    }
}

object! {
    /// Two devices that talk to each other.
    Connection {
        first: Text<'a> = "firstdeviceid" | "srcdeviceid",
        first_name: Text<'a> = "srcdevicename",
        second: Text<'a> = "seconddeviceid" | "destdeviceid",
        second_name: Text<'a> = "destdevicename",
        kind: Text<'a> = "connectiontype",
        last_seen: Text<'a> = "lastseen",
        ports: List<Number> = "ports",
        protocols: List<Named<'a>> = "protocols",
    }
}

object! {
    /// Vulnerabilities: one of an address, or the list of a device.
    Vulnerable {
        device: Text<'a> = "id",
        addresses: List<Address<'a>> = "ipaddressobjects",
        one: Text<'a> = "cveid",
        score: Text<'a> = "score",
        address: Text<'a> = "ipaddress",
        vector: Text<'a> = "attackvector",
        description: Text<'a> = "description",
        cves: List<Cve<'a>> = "cves",
    }
}

object! {
    /// One vulnerability in a device's list.
    Cve {
        id: Text<'a> = "cveid" | "id",
        score: Text<'a> = "score",
        vector: Text<'a> = "attackvector",
        description: Text<'a> = "description",
    }
}

object! {
    /// A device that is gone.
    Deleted {
        id: Text<'a> = "id",
    }
}

object! {
    /// A sensor as its console sees it.
    Sensor {
        id: Text<'a> = "id",
        uid: Text<'a> = "uid",
        name: Text<'a> = "name",
        address: Text<'a> = "interfaceaddress",
        version: Text<'a> = "version",
        zone_id: Text<'a> = "zoneid",
        zone: Text<'a> = "zone" | "zonename",
        site: Text<'a> = "site" | "sitename",
        is_activated: Flag = "isactivated",
        is_learning: Flag = "isinlearningmode",
        intelligence: Text<'a> = "dataintelligenceversion",
        /// Integration API.
        connection_state: Text<'a> = "connectionstate",
        /// Older API.
        state: State<'a> = "state",
    }
}

object! {
    /// How a console and a sensor get on, older API.
    State {
        connection: ConnectionState<'a> = "connectionstate",
        last_message: Text<'a> = "sensorlastmessage",
    }
}

object! {
    /// The older API's connection state.
    ConnectionState {
        connected: Flag = "isconsideredconnected",
        description: Text<'a> = "description",
    }
}

/// A record as text; mended where it is not JSON as it stands.
pub(super) struct Record<'r> {
    text: Cow<'r, str>,
    mended: OnceCell<String>,
}

impl<'r> Record<'r> {
    pub(super) fn new(record: &'r [u8]) -> Self {
        Self { text: String::from_utf8_lossy(record), mended: OnceCell::new() }
    }

    /// What it says, and the text that says it. The text of the error is for people.
    pub(super) fn read<'s, T: Deserialize<'s>>(&'s self) -> Result<(T, &'s str), String> {
        let error = match serde_json::from_str(&self.text) {
            Ok(object) => return Ok((object, &self.text)),
            Err(error) => error,
        };
        let mended = self.mended.get_or_init(|| super::mend::mend(&self.text));
        let object = serde_json::from_str(mended).map_err(|_| format!("not JSON: {error}"))?;
        Ok((object, mended))
    }
}
