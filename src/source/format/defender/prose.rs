//! What only the text of an alert says: addresses and the protocol. Pure guesswork with narrow rules; nothing found is
//! a good answer.

use std::net::IpAddr;

use crate::model::Protocol;

/// Words of a title or message (folded: lower case, everything but letters and digits a blank), and the protocol they
/// mean. The first that is found counts: the more special stand first.
const WORDS: &[(&str, &str)] = &[
    ("s7 plus", "Siemens S7"),
    ("s7plus", "Siemens S7"),
    ("s7comm", "Siemens S7"),
    ("s7", "Siemens S7"),
    ("modbus", "Modbus"),
    ("dnp3", "DNP3"),
    ("iin", "DNP3"),
    ("outstation", "DNP3"),
    ("outstation s", "DNP3"),
    ("asdu", "IEC 60870-5-104"),
    ("iec 60870", "IEC 60870-5-104"),
    ("iec104", "IEC 60870-5-104"),
    ("bacnet", "BACnet"),
    ("ethernet ip", "EtherNet/IP"),
    ("enip", "EtherNet/IP"),
    ("cip", "EtherNet/IP"),
    ("goose", "GOOSE"),
    ("sampled values", "Sampled Values"),
    ("mms", "IEC 61850 MMS"),
    ("opc ua", "OPC UA"),
    ("profinet", "PROFINET"),
    ("omron fins", "Omron FINS"),
    ("fins", "Omron FINS"),
    ("melsec", "Mitsubishi MELSEC"),
    ("ge srtp", "GE SRTP"),
    ("srtp", "GE SRTP"),
    ("emerson roc", "Emerson ROC"),
    ("deltav roc", "Emerson ROC"),
    ("deltav", "DeltaV"),
    ("totalflow", "ABB Totalflow"),
    ("foxboro i a", "Foxboro I/A"),
    ("lontalk", "LonTalk"),
    ("ovation", "Ovation"),
    ("vnetip", "Yokogawa VNet/IP"),
    ("vnet ip", "Yokogawa VNet/IP"),
    ("toshiba computer link", "Toshiba Computer Link"),
    ("suitelink", "Suitelink"),
    ("wonderware", "Suitelink"),
    ("sicam", "Siemens SICAM"),
    ("saia s bus", "SAIA S-Bus"),
    ("ams", "AMS"),
    ("beckhoff", "AMS"),
    ("gsm", "GSM"),
    ("codesys", "CODESYS"),
    ("lldp", "LLDP"),
    ("smb", "SMB"),
    ("psexec", "SMB"),
    ("rpc", "DCE/RPC"),
    ("snmp", "SNMP"),
    ("ssh", "SSH"),
    ("ftp", "FTP"),
    ("telnet", "Telnet"),
    ("rdp", "RDP"),
    ("vnc", "VNC"),
    ("http", "HTTP"),
    ("arp", "ARP"),
    ("icmp", "ICMP"),
    ("dynamic ip address", "DHCP"),
    ("database", "Database"),
];

pub(super) fn protocol(text: &str) -> Option<Protocol> {
    let mut folded = String::with_capacity(text.len() + 2);
    folded.push(' ');
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' };
        if c != ' ' || !folded.ends_with(' ') {
            folded.push(c);
        }
    }
    folded.push(' ');
    let said = |words: &str| {
        folded
            .match_indices(words)
            .any(|(at, _)| folded[..at].ends_with(' ') && folded[at + words.len()..].starts_with(' '))
    };
    WORDS.iter().find(|(words, _)| said(words)).map(|(_, name)| Protocol::named(name))
}

/// Most addresses that are looked for in one text.
const ADDRESSES_MAX: usize = 16;

/// The different addresses of a text in their order; networks (`10.11.0.0/16`) are no addresses.
pub(super) fn addresses(text: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for word in text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | ':' | '/'))) {
        if found.len() == ADDRESSES_MAX {
            break;
        }
        // A full stop or a colon ends a sentence; `fe80::` ends with two of its own.
        let word = word.trim_matches('.');
        let address = word.parse().ok().or_else(|| word.trim_end_matches(':').parse().ok());
        let address = address.or_else(|| with_port(word)).map(|ip: IpAddr| ip.to_canonical());
        if let Some(ip) = address
            && !ip.is_unspecified()
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

/// `10.0.0.1:502`.
fn with_port(word: &str) -> Option<IpAddr> {
    word.parse::<std::net::SocketAddrV4>().ok().map(|both| IpAddr::V4(*both.ip()))
}

/// Who began it and whom it went to, where a text has the addresses of exactly these: the first is named first. With
/// more addresses than two only the first is told.
pub(super) fn ends(message: &str, additional: &str) -> (Option<IpAddr>, Option<IpAddr>) {
    let mut all = addresses(message);
    if all.len() < 2 {
        let others = addresses(additional);
        if let [other] = others.as_slice()
            && !all.contains(other)
        {
            all.push(*other);
        }
    }
    match all.as_slice() {
        [] => (None, None),
        [first, second] => (Some(*first), Some(*second)),
        [first, ..] => (Some(*first), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_named_by_whole_words() {
        for (text, name) in [
            ("Illegal MODBUS Operation (Exception Raised by Master)", Some("Modbus")),
            ("An S7 Stop PLC Command was Sent", Some("Siemens S7")),
            ("Unauthorized Siemens S7 Plus Operation", Some("Siemens S7")),
            ("EtherNet/IP CIP Service Request Failed", Some("EtherNet/IP")),
            ("New Activity Detected - CIP Symbol", Some("EtherNet/IP")),
            ("Foxboro I/A Unauthorized Operation", Some("Foxboro I/A")),
            ("170.60.50.201 over port BACnet (47808)", Some("BACnet")),
            ("Unpermitted Usage of Internal Indication (IIN)", Some("DNP3")),
            ("Outstation's Configuration Changed", Some("DNP3")),
            ("Slave Device Received Illegal ASDU Type", Some("IEC 60870-5-104")),
            ("ARP Spoofing", Some("ARP")),
            ("Sharp rise of traffic", None),
            ("Address Scan Detected", None),
            ("", None),
        ] {
            assert_eq!(protocol(text).as_ref().map(Protocol::as_str), name, "{text}");
        }
    }

    #[test]
    fn addresses_are_read_out_of_sentences() {
        let text = |text: &str| addresses(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text("Device 192.0.2.1 talked to 192.0.2.7."), ["192.0.2.1", "192.0.2.7"]);
        assert_eq!(text("Scanned subnet: 10.11.0.0/16, from 10.1.1.1:502"), ["10.1.1.1"]);
        assert_eq!(text("peer fd00::1: and (fd00::2)"), ["fd00::1", "fd00::2"]);
        assert_eq!(text("version 1.2.3 at 12:30:00, dead:beef, std::abs, ::"), Vec::<String>::new());
        assert_eq!(text(&"192.0.2.1 ".repeat(50)).len(), 1);
    }

    #[test]
    fn ends_are_told_only_where_they_are_clear() {
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(
            ends("Device 192.0.2.1 went out", "198.51.100.7 over port 80"),
            (ip("192.0.2.1"), ip("198.51.100.7"))
        );
        assert_eq!(ends("192.0.2.1 to 192.0.2.2", "198.51.100.7"), (ip("192.0.2.1"), ip("192.0.2.2")));
        assert_eq!(ends("192.0.2.1 scanned 192.0.2.2, 192.0.2.3", ""), (ip("192.0.2.1"), None));
        assert_eq!(ends("nobody", ""), (None, None));
    }
}
