//! What Zeek's names mean: notes and weirds to severity and engine, techniques of ATT&CK for ICS to severity.
//!
//! Zeek gives a notice neither. The operator's own tables are laid over these by the caller.

use crate::model::{Engine, Protocol, Severity};

pub(super) type Grade = (Severity, Engine);

/// Grade of a note. A module without a line of its own in the table, and a note that nobody knows, are minor anomalies.
pub(super) fn note(note: &str) -> Grade {
    use Engine::{Anomaly, Malware, Operational, PolicyViolation, ProtocolViolation};
    use Severity::{Critical, Major, Minor, Warning};
    let (module, name) = note.split_once("::").unwrap_or((note, ""));
    match (module, name) {
        ("Intel", "Notice")
        | ("TeamCymruMalwareHashRegistry", "Match")
        | ("Heartbleed", "SSL_Heartbeat_Attack_Success")
        | ("FTP", "Site_Exec_Success") => (Critical, Malware),

        (
            "Signatures",
            "Sensitive_Signature" | "Multiple_Signatures" | "Multiple_Sig_Responders" | "Count_Signature",
        ) => (Major, Malware),
        ("Signatures", "Signature_Summary") => (Minor, Malware),

        ("SSH", "Login_By_Password_Guesser") => (Critical, Anomaly),
        ("HTTP", "SQL_Injection_Attacker" | "SQL_Injection_Victim")
        | ("FTP", "Bruteforcing")
        | ("SSH", "Password_Guessing")
        | ("Scan", "Port_Scan" | "Address_Scan") => (Major, Anomaly),

        ("Heartbleed", _) => (Major, ProtocolViolation),
        ("Conn", "Retransmission_Inconsistency") | ("Weird", "Activity") => (Minor, ProtocolViolation),

        ("SSH", "Watched_Country_Login" | "Interesting_Hostname_Login")
        | ("Software", "Vulnerable_Version") => (Major, PolicyViolation),
        ("ProtocolDetector", "Protocol_Found" | "Server_Found")
        | ("Software", "Software_Version_Change")
        | ("DNS", "External_Name")
        | ("SSL", "Weak_Key" | "Old_Version" | "Weak_Cipher") => (Minor, PolicyViolation),
        (
            "SSL",
            "Invalid_Server_Cert"
            | "Invalid_Ocsp_Response"
            | "Certificate_Expired"
            | "Certificate_Expires_Soon"
            | "Certificate_Not_Valid_Yet",
        ) => (Warning, PolicyViolation),

        ("CaptureLoss", "Too_Much_Loss" | "Too_Little_Traffic") => (Major, Operational),
        (
            "PacketFilter",
            "Dropped_Packets"
            | "Compile_Failure"
            | "Install_Failure"
            | "Too_Long_To_Compile_Filter"
            | "No_More_Conn_Shunts_Available"
            | "Cannot_BPF_Shunt_Conn",
        ) => (Minor, Operational),
        ("Conn", "Content_Gap") => (Warning, Operational),

        _ => (Minor, Anomaly),
    }
}

pub(super) fn is_about_the_sensor(note: &str) -> bool {
    note.starts_with("CaptureLoss::") || note.starts_with("PacketFilter::")
}

/// A note that only says that other notes were left out: no finding.
pub(super) const TALLY: &str = "Notice::Tally";

/// Whether a note was raised by ACID: ATT&CK for ICS over what the ICSNPP parsers see.
pub(super) fn is_acid(note: &str) -> bool {
    note.starts_with("ATTACKICS::") || note.starts_with("ACID::")
}

/// Severity of a technique of ATT&CK for ICS; one that is not in ACID's list is as any other change to a process.
pub(super) fn technique(id: &str) -> Severity {
    match id {
        "T0814" | "T0843" | "T0858" | "T0878" | "T0889" => Severity::Critical,
        "T0801" | "T0846" | "T0861" | "T0888" => Severity::Minor,
        _ => Severity::Major,
    }
}

/// The weirds that are findings. The others are noise in every plant: sensors write tens of thousands of them.
pub(super) const WEIRDS: [&str; 7] = [
    "dnp3_corrupt_header_checksum",
    "dnp3_first_application_layer_chunk_missing",
    "dnp3_header_lacks_magic",
    "dnp3_negative_or_zero_length_link_layer",
    "dnp3_unexpected_flow_direction",
    "modbus_diag_invalid_request_data",
    "modbus_diag_unknown_request_subfunction",
];

pub(super) const WEIRD: Grade = (Severity::Warning, Engine::ProtocolViolation);

/// The protocol that a weird's name begins with (`dnp3_header_lacks_magic`), or that Zeek's analyzer is called by.
pub(super) fn named_protocol(name: &str) -> Option<Protocol> {
    let protocol = Protocol::named(name.split('_').next().unwrap_or(name));
    Protocol::known().any(|known| known == protocol.as_str()).then_some(protocol)
}

/// The protocol that a note's module is about, where the module is called after it.
pub(super) fn module_protocol(note: &str) -> Option<Protocol> {
    let module = note.split("::").next().unwrap_or(note);
    // `Heartbleed` is about TLS; the others are named after their protocol.
    named_protocol(if module == "Heartbleed" { "TLS" } else { module })
}

/// Protocol of a server port beyond those of plants.
pub(super) fn it_port(port: u16) -> Option<&'static str> {
    Some(match port {
        20 | 21 => "FTP",
        22 => "SSH",
        23 => "Telnet",
        25 | 465 | 587 => "SMTP",
        53 => "DNS",
        67 | 68 => "DHCP",
        69 => "TFTP",
        80 | 8080 => "HTTP",
        88 => "Kerberos",
        110 => "POP3",
        123 => "NTP",
        139 | 445 => "SMB",
        143 => "IMAP",
        161 | 162 => "SNMP",
        389 => "LDAP",
        443 => "TLS",
        1883 | 8883 => "MQTT",
        2049 => "NFS",
        3389 => "RDP",
        5060 => "SIP",
        5432 => "PostgreSQL",
        5900 => "VNC",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports_are_canonical() {
        for name in (0..=u16::MAX).filter_map(it_port) {
            assert!(Protocol::known().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn notes_of_the_table_and_beside_it() {
        use Severity::{Critical, Major, Minor, Warning};
        for (name, expected) in [
            ("Intel::Notice", (Critical, Engine::Malware)),
            ("Heartbleed::SSL_Heartbeat_Attack_Success", (Critical, Engine::Malware)),
            ("Heartbleed::SSL_Heartbeat_Attack", (Major, Engine::ProtocolViolation)),
            ("SSL::Invalid_Server_Cert", (Warning, Engine::PolicyViolation)),
            ("SSL::New_Note", (Minor, Engine::Anomaly)),
            ("CaptureLoss::Too_Much_Loss", (Major, Engine::Operational)),
            ("Site::Own_Note", (Minor, Engine::Anomaly)),
            ("no module", (Minor, Engine::Anomaly)),
        ] {
            assert_eq!(note(name), expected, "{name}");
        }
        assert_eq!(module_protocol("Heartbleed::X").unwrap().as_str(), "TLS");
        assert_eq!(named_protocol("dnp3_header_lacks_magic").unwrap().as_str(), "DNP3");
        assert_eq!(named_protocol("truncated_header"), None);
    }
}
