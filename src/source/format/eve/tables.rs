//! What Suricata's numbers and words mean: priorities, categories, port numbers, protocol names.
//!
//! From `classification.config` and the protocols that Suricata has no parser for. The operator's own tables are laid
//! over these by the caller.

use std::borrow::Cow;

use crate::model::{Engine, Severity};

/// Longest event type that Suricata has, in bytes.
pub(super) const EVENT_TYPE_MAX: usize = 16;

/// The event type as it is counted: one of Suricata's, else `other`.
pub(super) fn event_type(word: &str) -> &'static str {
    const KNOWN: [&str; 46] = [
        "anomaly",
        "arp",
        "bittorrent_dht",
        "dcerpc",
        "dhcp",
        "dnp3",
        "dns",
        "doh2",
        "drop",
        "engine",
        "enip",
        "fileinfo",
        "flow",
        "frame",
        "ftp",
        "ftp_data",
        "http",
        "http2",
        "ike",
        "ikev2",
        "inspectedrules",
        "krb5",
        "ldap",
        "mdns",
        "metadata",
        "modbus",
        "mqtt",
        "netflow",
        "nfs",
        "packet",
        "pgsql",
        "pop3",
        "quic",
        "rdp",
        "rfb",
        "sip",
        "smb",
        "smtp",
        "snmp",
        "ssh",
        "stats",
        "stream_tcp",
        "template",
        "tftp",
        "tls",
        "websocket",
    ];
    KNOWN.binary_search(&word).map_or("other", |at| KNOWN[at])
}

/// Severity of a rule's priority; 3 is what Suricata gives a rule that says nothing.
pub(super) fn severity(priority: u64) -> Severity {
    match priority {
        1 => Severity::Critical,
        2 => Severity::Major,
        3 => Severity::Minor,
        _ => Severity::Warning,
    }
}

/// Severity of a rule's `signature_severity`; `None` for a word that is not one.
pub(super) fn signature_severity(word: &str) -> Option<Severity> {
    const WORDS: [(&str, Severity); 5] = [
        ("critical", Severity::Critical),
        ("major", Severity::Major),
        ("minor", Severity::Minor),
        ("informational", Severity::Warning),
        ("audit", Severity::Warning),
    ];
    let word = word.trim();
    WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, severity)| *severity)
}

/// Engine of a category text (folded to lower case); `None` for a text that Suricata does not ship.
pub(super) fn engine(category: &str) -> Option<Engine> {
    Some(match category {
        "a network trojan was detected"
        | "malware command and control activity detected"
        | "domain observed used for c2 detected"
        | "exploit kit activity detected"
        | "targeted malicious activity was detected"
        | "executable code was detected"
        | "crypto currency mining activity detected"
        | "possibly unwanted program detected"
        | "successful credential theft detected"
        | "possible social engineering attempted"
        | "successful user privilege gain"
        | "successful administrator privilege gain" => Engine::Malware,

        "potential corporate privacy violation"
        | "inappropriate content was detected"
        | "attempt to login by a default username and password"
        | "an attempted login using a suspicious username was detected"
        | "device retrieving external ip address detected"
        | "access to a potentially vulnerable web application"
        | "a suspicious filename was detected" => Engine::PolicyViolation,

        "generic protocol command decode"
        | "detection of a non-standard protocol or event"
        | "a client was using an unusual port"
        | "generic icmp event"
        | "decode of an rpc query" => Engine::ProtocolViolation,

        "attempted information leak"
        | "information leak"
        | "large scale information leak"
        | "detection of a network scan"
        | "attempted denial of service"
        | "denial of service"
        | "detection of a denial of service attack"
        | "attempted user privilege gain"
        | "unsuccessful user privilege gain"
        | "attempted administrator privilege gain"
        | "web application attack"
        | "misc attack"
        | "potentially bad traffic"
        | "a suspicious string was detected"
        | "a system call was detected" => Engine::Anomaly,

        "not suspicious traffic" | "unknown traffic" | "misc activity" | "a tcp connection was detected" => {
            Engine::Operational
        }

        _ => return None,
    })
}

/// Engine of an alert without category: the sids of Suricata's own decoder, stream and protocol events are packets
/// that break a protocol.
pub(super) fn engine_of_sid(sid: u64) -> Engine {
    if (2_200_000..=2_299_999).contains(&sid) { Engine::ProtocolViolation } else { Engine::Anomaly }
}

/// Protocol of an OT server port. 102 is S7 or MMS; S7 is by far the more common in plants.
pub(in crate::source::format) fn ot_port(port: u16) -> Option<&'static str> {
    Some(match port {
        102 => "Siemens S7",
        502 => "Modbus",
        789 => "Red Lion Crimson",
        1089..=1091 => "Foundation Fieldbus",
        1911 | 4911 => "Niagara Fox",
        2222 | 44818 => "EtherNet/IP",
        2404 => "IEC 60870-5-104",
        4840 => "OPC UA",
        5006 | 5007 => "Mitsubishi MELSEC",
        9600 => "Omron FINS",
        18245 => "GE SRTP",
        20000 => "DNP3",
        34962..=34964 => "PROFINET",
        47808 => "BACnet",
        _ => return None,
    })
}

/// The `app_proto` values of Suricata, so that their canonical names are looked up once.
pub(super) const APP_PROTOS: [&str; 36] = [
    "modbus",
    "dnp3",
    "enip",
    "mqtt",
    "snmp",
    "http",
    "http1",
    "http2",
    "tls",
    "ssh",
    "ftp",
    "ftp-data",
    "telnet",
    "smb",
    "dcerpc",
    "dns",
    "mdns",
    "llmnr",
    "dhcp",
    "ntp",
    "tftp",
    "rdp",
    "rfb",
    "ldap",
    "krb5",
    "ike",
    "quic",
    "sip",
    "smtp",
    "pop3",
    "imap",
    "nfs",
    "pgsql",
    "websocket",
    "doh2",
    "bittorrent-dht",
];

/// What a DNP3 application function code asks for, as ` (cold restart)`; empty when it is none of the standard's.
pub(super) fn dnp3_function(code: u64) -> &'static str {
    const REQUESTS: [&str; 31] = [
        " (confirm)",
        " (read)",
        " (write)",
        " (select)",
        " (operate)",
        " (direct operate)",
        " (direct operate, no answer)",
        " (freeze)",
        " (freeze, no answer)",
        " (freeze and clear)",
        " (freeze and clear, no answer)",
        " (freeze at time)",
        " (freeze at time, no answer)",
        " (cold restart)",
        " (warm restart)",
        " (initialize data)",
        " (initialize application)",
        " (start application)",
        " (stop application)",
        " (save configuration)",
        " (enable unsolicited)",
        " (disable unsolicited)",
        " (assign class)",
        " (measure delay)",
        " (record time)",
        " (open file)",
        " (close file)",
        " (delete file)",
        " (get file info)",
        " (authenticate file)",
        " (abort file)",
    ];
    match code {
        129 => " (response)",
        130 => " (unsolicited response)",
        _ => usize::try_from(code).ok().and_then(|at| REQUESTS.get(at)).copied().unwrap_or_default(),
    }
}

/// The name of an IP protocol that Suricata wrote as its number (`6`, in older builds `006`); a name stays as it is.
pub(in crate::source::format) fn ip_protocol(written: &str) -> Cow<'_, str> {
    if !written.bytes().all(|byte| byte.is_ascii_digit()) {
        return Cow::Borrowed(written);
    }
    Cow::Borrowed(match written.trim_start_matches('0') {
        "1" => "ICMP",
        "6" => "TCP",
        "17" => "UDP",
        "58" => "IPv6-ICMP",
        "132" => "SCTP",
        "" if !written.is_empty() => "0",
        number => number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn names_of_ports_and_app_protos_are_canonical() {
        for port in 0..=u16::MAX {
            if let Some(name) = ot_port(port) {
                assert_eq!(Protocol::named(name).as_str(), name);
                assert!(Protocol::known().any(|known| known == name), "{name}");
            }
        }
    }

    #[test]
    fn numbers_of_ip_protocols_become_names() {
        for (written, name) in [
            ("6", "TCP"),
            ("006", "TCP"),
            ("017", "UDP"),
            ("58", "IPv6-ICMP"),
            ("132", "SCTP"),
            ("001", "ICMP"),
            ("089", "89"),
            ("000", "0"),
            ("TCP", "TCP"),
            ("", ""),
        ] {
            assert_eq!(ip_protocol(written), name, "{written}");
        }
    }

    #[test]
    fn severities() {
        assert_eq!(
            [0, 1, 2, 3, 4, 255].map(severity).map(Severity::as_str),
            ["warning", "critical", "major", "minor", "warning", "warning"]
        );
        assert_eq!(signature_severity(" Audit "), Some(Severity::Warning));
        assert_eq!(signature_severity("MAJOR"), Some(Severity::Major));
        assert_eq!(signature_severity("High"), None);
    }
}
