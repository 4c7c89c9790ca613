//! Evidence of a finding, as files for its ticket: the record as the sensor wrote it, and the packet of it as a capture.
//!
//! Only what is in the stored alert can be shown, and that is bounded: the beginning of the record. A packet that was cut
//! off, or is no base64, is none. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Alert, Timestamp};

/// Largest link type: the field of a capture that holds it has 16 bits for it.
const LINK_TYPE_MAX: u64 = 0xffff;
/// Ethernet: what a record that does not say is of.
const ETHERNET: u32 = 1;
/// Longest packet that a reader of captures expects.
const SNAP_LENGTH: u32 = 262_144;

/// A file for a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// End of its name.
    pub extension: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The record, or its beginning; none where the source has none.
pub fn record(alert: &Alert) -> Option<File> {
    let raw = alert.raw.trim();
    if raw.is_empty() {
        return None;
    }
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(raw).is_ok();
    let (extension, content_type) =
        if is_json { ("json", "application/json") } else { ("txt", "text/plain") };
    Some(File { extension, content_type, bytes: format!("{raw}\n").into_bytes() })
}

/// The packet of an EVE alert as a capture of one packet; none where the record has none.
pub fn capture(alert: &Alert) -> Option<File> {
    // Most records have none, and parsing costs more than looking.
    if !alert.raw.contains("\"packet\"") {
        return None;
    }
    let record: Record = serde_json::from_str(&alert.raw).ok()?;
    let packet = STANDARD.decode(record.packet?).ok().filter(|packet| !packet.is_empty())?;
    let link_type = match record.packet_info {
        Some(info) => u32::try_from(info.linktype.filter(|n| *n <= LINK_TYPE_MAX)?).ok()?,
        None => ETHERNET,
    };
    let bytes = pcap(alert.time, link_type, &packet)?;
    Some(File { extension: "pcap", content_type: "application/vnd.tcpdump.pcap", bytes })
}

#[derive(serde::Deserialize)]
struct Record {
    #[serde(default)]
    packet: Option<String>,
    #[serde(default)]
    packet_info: Option<PacketInfo>,
}

#[derive(serde::Deserialize)]
struct PacketInfo {
    #[serde(default)]
    linktype: Option<u64>,
}

/// A capture as libpcap writes it: its header, then the header of a packet, then the packet.
fn pcap(at: Timestamp, link_type: u32, packet: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(packet.len()).ok().filter(|length| *length <= SNAP_LENGTH)?;
    // The format knows no time before 1970, and none after 2106.
    let micros = u64::try_from(at.as_micros()).unwrap_or_default();
    let seconds = u32::try_from(micros / 1_000_000).unwrap_or_default();
    let mut bytes = Vec::with_capacity(40 + packet.len());
    bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
    for version in [2_u16, 4] {
        bytes.extend(version.to_le_bytes());
    }
    let rest = (micros % 1_000_000) as u32;
    for word in [0, 0, SNAP_LENGTH, link_type, seconds, rest, length, length] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes.extend(packet);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;

    fn alert(raw: &str) -> Alert {
        let at = Timestamp::from_micros(1_795_000_000_123_456);
        Alert { raw: raw.to_owned(), ..Alert::sample("t", Severity::Major, at) }
    }

    #[test]
    fn the_record_is_what_the_sensor_wrote() {
        let check = |raw: &str, expected: Option<(&str, &str)>| {
            let file = record(&alert(raw));
            let got = file.as_ref().map(|f| (f.extension, std::str::from_utf8(&f.bytes).unwrap()));
            assert_eq!(got, expected, "{raw}");
        };
        check("", None);
        check("{\"a\":1}", Some(("json", "{\"a\":1}\n")));
        check("{\"a\":1…", Some(("txt", "{\"a\":1…\n")));
        check("CEF:0|x", Some(("txt", "CEF:0|x\n")));
    }

    #[test]
    fn a_packet_becomes_a_well_formed_capture() {
        let file = capture(&alert(r#"{"packet":"AAECAwQ=","packet_info":{"linktype":101}}"#)).unwrap();
        assert_eq!(file.extension, "pcap");
        let word = |at: usize| u32::from_le_bytes(file.bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), file.bytes.len()), (0xa1b2_c3d4, 24 + 16 + 5));
        assert_eq!((file.bytes[4], file.bytes[6], word(16), word(20)), (2, 4, SNAP_LENGTH, 101));
        assert_eq!((word(24), word(28), word(32), word(36)), (1_795_000_000, 123_456, 5, 5));
        assert_eq!(file.bytes[40..], [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_is_no_packet_makes_no_capture() {
        for raw in [
            "",
            "{}",
            r#"{"packet":null}"#,
            r#"{"packet":""}"#,
            r#"{"packet":"not base64!"}"#,
            r#"{"packet":7}"#,
            r#"{"packet":"AAEC"#,
            r#"{"packet":"AAEC","packet_info":{"linktype":99999}}"#,
            r#"{"packet":"AAEC","packet_info":{"linktype":-1}}"#,
            r#"{"packet":"AAEC","packet_info":{}}"#,
        ] {
            assert_eq!(capture(&alert(raw)), None, "{raw}");
        }
        assert!(capture(&alert(r#"{"packet":"AAEC"}"#)).is_some(), "Ethernet where nothing is said");
        let early = Alert { time: Timestamp::from_micros(-5), ..alert(r#"{"packet":"AAEC"}"#) };
        assert_eq!(capture(&early).unwrap().bytes[24..32], [0; 8]);
    }
}
