//! Protocol names: canonical for people, folded for comparison.
//!
//! Folding drops case and everything but letters and digits, then an alias table maps what the sources write
//! (`modbustcp`, `s7comm`, `enip`, `cip`) to one name. Two names are the same protocol when their folded forms are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// A protocol by its canonical name (`Modbus`, `Siemens S7`); a name that the table does not know stays as written,
/// without control characters and at most 64 bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(Cow<'static, str>);

/// Canonical name, then the other folded forms that mean it. The folded canonical name is always one of them.
/// Names follow Defender for IoT's protocol list where it has one, else the protocol's own spelling.
const TABLE: &[(&str, &[&str])] = &[
    ("Modbus", &["modbustcp", "modbusrtu", "mbtcp", "modbustcpip"]),
    ("DNP3", &["dnp", "dnp30", "ieee1815"]),
    (
        "Siemens S7",
        &["s7", "s7comm", "s7communication", "siemenss7comm", "s7commplus", "s7plus", "siemenss7plus"],
    ),
    ("EtherNet/IP", &["enip", "cip", "ethernetipcip", "etherneti", "enipcip", "eip"]),
    ("BACnet", &["bacnetip", "bacnetapdu", "bacnetbvlc"]),
    ("IEC 60870-5-104", &["iec104", "iec60870", "iec608705104", "iec60870104"]),
    ("IEC 61850 MMS", &["mms", "iec61850", "iec61850mms", "61850mms"]),
    ("GOOSE", &["iec61850goose"]),
    ("OPC UA", &["opcua", "opcuabinary"]),
    ("OPC DA", &["opcda", "opc"]),
    ("PROFINET", &["profinetio", "profinetdcp", "pnio", "pndcp", "profinetrealtime"]),
    ("Omron FINS", &["fins", "omronfins", "omfins"]),
    ("Mitsubishi MELSEC", &["melsec", "melsoft", "slmp", "mitsubishimelsecq"]),
    ("GE SRTP", &["srtp", "gesrtp", "gesrtpicpc"]),
    ("Niagara Fox", &["fox", "tridiumfox", "niagara"]),
    ("Red Lion Crimson", &["redlion", "crimson"]),
    ("Foundation Fieldbus", &["ff", "ffhse", "foundationfieldbushse"]),
    ("HART-IP", &["hart", "hartip"]),
    ("EtherCAT", &["ecat"]),
    ("CODESYS", &["codesysv3", "codesysv2"]),
    ("MQTT", &[]),
    ("SNMP", &[]),
    ("HTTP", &["http1"]),
    ("HTTP/2", &["http2"]),
    ("TLS", &["ssl", "https"]),
    ("SSH", &[]),
    ("FTP", &["ftpdata"]),
    ("TFTP", &[]),
    ("Telnet", &[]),
    ("SMB", &["cifs", "smb2", "netbiosssn"]),
    ("DCE/RPC", &["dcerpc", "msrpc"]),
    ("DNS", &["doh2"]),
    ("mDNS", &[]),
    ("LLMNR", &[]),
    ("DHCP", &["bootp"]),
    ("NTP", &[]),
    ("RDP", &["msrdp"]),
    ("VNC", &["rfb"]),
    ("LDAP", &[]),
    ("Kerberos", &["krb5"]),
    ("IKE", &["ikev2", "ipsec"]),
    ("QUIC", &[]),
    ("SIP", &[]),
    ("SMTP", &[]),
    ("POP3", &[]),
    ("IMAP", &[]),
    ("NFS", &[]),
    ("PostgreSQL", &["pgsql"]),
    ("WebSocket", &[]),
    ("ICMP", &[]),
    ("ICMPv6", &["ipv6icmp", "icmp6"]),
    ("TCP", &[]),
    ("UDP", &[]),
    ("SCTP", &[]),
];

/// Lower case, letters and digits only; nothing else takes part in a comparison.
fn strip(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(64).collect()
}

/// Every stripped form to its canonical name: sources and rules ask it for every alert.
static BY_FORM: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    TABLE
        .iter()
        .flat_map(|(name, aliases)| std::iter::once(name).chain(*aliases).map(|form| (strip(form), *name)))
        .collect()
});

fn canonical(stripped: &str) -> Option<&'static str> {
    BY_FORM.get(stripped).copied()
}

/// The form in which protocols are compared: stripped, then the alias table. Empty for a name without any ASCII
/// letter or digit.
pub fn fold(name: &str) -> String {
    let stripped = strip(name);
    canonical(&stripped).map_or(stripped, strip)
}

impl Protocol {
    /// The protocol that a source calls `name`.
    pub fn named(name: &str) -> Self {
        match canonical(&strip(name)) {
            Some(known) => Self(Cow::Borrowed(known)),
            None => Self(Cow::Owned(super::text::clip(&super::text::one_line(name), 64).into_owned())),
        }
    }

    /// The canonical name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which it is compared, see [`fold`].
    pub fn folded(&self) -> String {
        fold(&self.0)
    }

    /// Names that the table knows, for messages and completion.
    pub fn known() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|(name, _)| *name)
    }
}

impl PartialEq for Protocol {
    fn eq(&self, other: &Self) -> bool {
        self.folded() == other.folded()
    }
}

impl Eq for Protocol {}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sources_write_becomes_one_name() {
        for (written, name) in [
            ("modbus", "Modbus"),
            ("MODBUS/TCP", "Modbus"),
            ("s7comm", "Siemens S7"),
            ("Siemens S7", "Siemens S7"),
            ("enip", "EtherNet/IP"),
            ("CIP", "EtherNet/IP"),
            ("ethernet-ip", "EtherNet/IP"),
            ("dnp3", "DNP3"),
            ("BACnet", "BACnet"),
            ("iec104", "IEC 60870-5-104"),
            ("Acme Bus", "Acme Bus"),
        ] {
            assert_eq!(Protocol::named(written).as_str(), name, "{written}");
        }
        assert_eq!(fold("CIP"), fold("EtherNet/IP"));
    }

    #[test]
    fn no_folded_form_means_two_protocols() {
        let mut seen = std::collections::BTreeMap::new();
        for (name, aliases) in TABLE {
            for form in std::iter::once(name).chain(aliases.iter()) {
                if let Some(other) = seen.insert(strip(form), *name) {
                    assert_eq!(other, *name, "{form} means two protocols");
                }
            }
        }
    }
}
