//! Tests of the EVE format: real lines, odd lines, and what becomes of them.

use super::super::Settings as Common;
use super::*;
use crate::model::SourceName;
use crate::model::alert::RAW_MAX;

pub(super) fn settings() -> Settings {
    Settings {
        common: Common {
            site: Some("Plant North".to_owned()),
            ..Common::new("an-id", "line4", SourceName::new("eve").unwrap())
        },
        apart: Apart::default(),
        signature_severity: true,
        time_zone: jiff::tz::TimeZone::UTC,
    }
}

const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);

fn read(line: &str) -> Outcome {
    Reader::new(settings()).line(line.as_bytes(), NOW)
}

fn alert_with(settings: Settings, line: &str) -> (Alert, Fingerprint) {
    match Reader::new(settings).line(line.as_bytes(), NOW) {
        Outcome::Alert(finding) => (finding.alert, finding.fingerprint),
        other => panic!("{line}: {other:?}"),
    }
}

fn alert(line: &str) -> Alert {
    alert_with(settings(), line).0
}

/// An alert with these members beside and inside `alert`.
fn line(beside: &str, inside: &str) -> String {
    let comma = |text: &str| if text.is_empty() { String::new() } else { format!(",{text}") };
    format!(
        r#"{{"timestamp":"2023-09-18T06:13:41.532140+0000","event_type":"alert"{},"alert":{{"gid":1,"signature_id":2250005,"rev":2,"signature":"SURICATA Modbus invalid Function code"{}}}}}"#,
        comma(beside),
        comma(inside)
    )
}

fn fingerprint(beside: &str) -> Fingerprint {
    alert_with(settings(), &line(beside, "")).1
}

const MODBUS: &str = r#"{"timestamp":"2023-09-18T06:13:41.532140+0000","flow_id":928532049924531,"in_iface":"eth1",
"event_type":"alert","src_ip":"10.0.0.11","src_port":502,"dest_ip":"10.0.0.7","dest_port":49160,"proto":"TCP",
"ether":{"src_mac":"00:1B:1b:aa:bb:01","dest_mac":"00:1b:1b:aa:bb:02"},"community_id":"1:abc=","host":"ids-4",
"alert":{"action":"allowed","gid":1,"signature_id":2250005,"rev":2,"signature":"SURICATA Modbus invalid Function code",
"category":"Generic Protocol Command Decode","severity":3,
"metadata":{"cve":["CVE_2021_44228"],"mitre_technique_id":["T0855"],"created_at":["2010_07_30"]},
"references":["https://example.test/a"]},"app_proto":"modbus","direction":"to_client",
"modbus":{"id":1,"request":{"unit_id":3,"function_code":"WrSingleCoil","access_type":"WRITE | COILS"}},
"flow":{"pkts_toserver":12,"pkts_toclient":10,"bytes_toserver":1034,"bytes_toclient":900}}"#;

#[test]
fn a_full_alert() {
    let line = MODBUS.replace('\n', "");
    let alert = alert(&line);
    assert_eq!(
        alert.message,
        "\
SURICATA Modbus invalid Function code
Protocol: Modbus over TCP
Modbus request: WrSingleCoil (WRITE | COILS), unit 3
Action: allowed
Flow: 12 packets, 1034 bytes to server; 10 packets, 900 bytes to client
Signature: 1:2250005 revision 2
Flow id: 928532049924531
Community id: 1:abc="
    );
    assert_eq!(alert.references, ["sid:1:2250005:2", "CVE-2021-44228", "T0855", "https://example.test/a"]);
    assert_eq!(alert.time.to_string(), "2023-09-18T06:13:41.53214Z");
    assert_eq!(alert.received_at, NOW);
    assert_eq!((alert.severity, alert.engine), (Severity::Minor, Engine::ProtocolViolation));
    assert_eq!((alert.sensor.as_str(), alert.site.as_deref()), ("ids-4", Some("Plant North")));
    assert_eq!(alert.raw, line);
    assert_eq!(alert.protocols[0].as_str(), "Modbus");
}

#[test]
fn the_least_alert() {
    let alert = alert(r#"{"event_type":"alert","alert":{"signature_id":7}}"#);
    assert_eq!((alert.title.as_str(), alert.time), ("1:7:0", NOW));
    assert_eq!((alert.severity, alert.engine), (Severity::Minor, Engine::Anomaly));
    assert_eq!((alert.source, alert.destination), Default::default());
    assert!(alert.protocols.is_empty());
    assert_eq!(alert.sensor, "line4");
    assert_eq!(alert.message, "1:7:0\nSignature: 1:7 revision 0");
}

#[test]
fn what_is_no_alert_and_what_is_rejected() {
    let check = |line: &str, expected: Option<RejectReason>| match read(line) {
        Outcome::Ignored(_) | Outcome::Blank => assert_eq!(None, expected, "{line}"),
        Outcome::Reject(reason, detail) => {
            assert_eq!(Some(reason), expected, "{line}: {detail}");
            assert!(!detail.is_empty());
        }
        Outcome::Alert(alert) => panic!("{line}: {alert:?}"),
    };
    check("", None);
    check(" \r\n", None);
    check(r#"{"event_type":"flow"}"#, None);
    check(r#"{"event_type":"stats","stats":{"detect":{"alert":0}}}"#, None);
    check(r#"{"event_type":"Alert","x":"alert"}"#, None);
    check(r#"{"event_type":["alert"]}"#, None);
    check("garbage", Some(RejectReason::Malformed));
    check("\0\0\0", Some(RejectReason::Malformed));
    check(r#"["alert"]"#, Some(RejectReason::Malformed));
    check(r#"{"event_type":"alert","alert":{"signature_id":1}"#, Some(RejectReason::Malformed));
    check(r#"{"event_type":"alert"} trailing"#, Some(RejectReason::Malformed));
    check(r#"{"event_type":"alert"}{"event_type":"alert"}"#, Some(RejectReason::Malformed));
    check(r#"{"event_type":"alert"}"#, Some(RejectReason::MissingField));
    check(r#"{"event_type":"alert","alert":[]}"#, Some(RejectReason::MissingField));
    check(r#"{"event_type":"alert","alert":{"signature_id":-4}}"#, Some(RejectReason::MissingField));
    check(r#"{"event_type":"alert","alert":{"signature_id":"x"}}"#, Some(RejectReason::MissingField));
    let deep = format!(r#"{{"event_type":"alert","alert":{}"#, "[".repeat(5_000_000));
    check(&deep, Some(RejectReason::Malformed));
    let deep = format!(r#"{{"event_type":"alert","alert":{}}}"#, "{\"source\":".repeat(300));
    check(&deep, Some(RejectReason::Malformed));
}

#[test]
fn odd_types_are_read_or_ignored() {
    let line = r#"{"event_type":"alert","src_ip":12,"src_port":"4000","dest_ip":"::FFFF:10.0.0.1","dest_port":70000,
        "proto":6,"app_proto":null,"flow":"none","flow_id":1.0,"ether":[1,{"a":[2]}],"host":true,"timestamp":{},
        "alert":{"signature_id":"2000001","gid":3.0,"severity":"2","signature":5,"category":["x"],
        "metadata":{"signature_severity":"Critical","cve":"cve-2020-1"},"references":"one"}}"#;
    let alert = alert(line);
    assert_eq!(alert.source.ip, None);
    assert_eq!(alert.source.port, Some(4000));
    assert_eq!(alert.destination.ip.unwrap().to_string(), "::ffff:10.0.0.1");
    assert_eq!(alert.destination.port, None);
    assert_eq!(alert.protocols[0].as_str(), "TCP");
    assert_eq!((alert.title.as_str(), alert.severity), ("5", Severity::Critical));
    assert_eq!(alert.references, ["sid:3:2000001:0", "CVE-2020-1", "one"]);
}

#[test]
fn a_key_that_is_there_twice_counts_once_and_the_last_does() {
    let line = r#"{"event_type":"flow","event_type":"alert","alert":{"signature_id":1,"signature_id":2},"proto":"TCP","proto":"UDP"}"#;
    assert_eq!(alert(line).title, "1:2:0");
    assert_eq!(alert(line).protocols[0].as_str(), "UDP");
}

#[test]
fn what_stands_around_the_object_is_ignored() {
    let plain = line("", "");
    for around in [format!("@cee: {plain}"), format!("\u{feff}{plain}\r\n"), format!("\0\0\0{plain}\n")] {
        assert_eq!(alert(&around).raw, plain);
    }
}

#[test]
fn invalid_utf8_is_replaced_not_refused() {
    let mut bytes = line("", "").into_bytes();
    let at = bytes.windows(6).position(|w| w == b"Modbus").unwrap();
    bytes[at] = 0xff;
    let Outcome::Alert(both) = Reader::new(settings()).line(&bytes, NOW) else { panic!() };
    assert_eq!(both.alert.title, "SURICATA \u{fffd}odbus invalid Function code");
    // Where nobody looks it does not even cost a second reading.
    let mut bytes = line(r#""payload_printable":"x""#, "").into_bytes();
    let at = bytes.windows(3).position(|w| w == b"\"x\"").unwrap();
    bytes[at + 1] = 0xff;
    let Outcome::Alert(both) = Reader::new(settings()).line(&bytes, NOW) else { panic!() };
    assert!(both.alert.raw.contains('\u{fffd}'));
}

#[test]
fn texts_are_clean_and_clipped() {
    let signature = format!(r#""signature":"a\u0000b\u001b[31m\nc{}""#, "é".repeat(600));
    let got = alert(&line(&format!(r#""payload":"{}""#, "A".repeat(40_000)), &signature));
    assert!(got.title.starts_with("ab[31m c") && got.title.len() <= TITLE_MAX);
    assert!(got.raw.len() <= RAW_MAX && got.raw.ends_with('…'));
    assert!(got.message.len() <= crate::model::alert::MESSAGE_MAX);
}

#[test]
fn severity_by_table_rule_word_and_category() {
    let mut own = settings();
    own.common.severity_map.insert("1".to_owned(), Severity::Minor);
    own.common.severity_map.insert("9".to_owned(), Severity::Critical);
    let of = |settings: &Settings, inside: &str| alert_with(settings.clone(), &line("", inside)).0.severity;
    assert_eq!(of(&own, r#""severity":1"#), Severity::Minor);
    assert_eq!(of(&own, r#""severity":9"#), Severity::Critical);
    assert_eq!(of(&own, r#""severity":2"#), Severity::Major);
    assert_eq!(of(&own, r#""severity":99999999999"#), Severity::Warning);
    let informational = r#""severity":2,"metadata":{"signature_severity":["Informational"]}"#;
    assert_eq!(of(&own, informational), Severity::Warning);
    assert_eq!(of(&own, r#""severity":2,"metadata":{"signature_severity":["High"]}"#), Severity::Major);
    own.signature_severity = false;
    assert_eq!(of(&own, informational), Severity::Major);
    assert_eq!(of(&own, r#""severity":1,"category":"Not Suspicious Traffic""#), Severity::Minor);
}

#[test]
fn engine_by_category_sid_and_own_table() {
    let mut own = settings();
    own.common.engine_map.insert("plant rules".to_owned(), Engine::Operational);
    own.common.engine_map.insert("misc attack".to_owned(), Engine::Malware);
    let of = |inside: &str| alert_with(own.clone(), &line("", inside)).0.engine;
    assert_eq!(of(""), Engine::ProtocolViolation);
    assert_eq!(of(r#""signature_id":2000001"#), Engine::Anomaly);
    assert_eq!(of(r#""category":" POTENTIAL Corporate Privacy Violation""#), Engine::PolicyViolation);
    assert_eq!(of(r#""category":"Plant Rules""#), Engine::Operational);
    assert_eq!(of(r#""category":"Misc Attack""#), Engine::Malware);
    assert_eq!(of(r#""category":"something else""#), Engine::Anomaly);
    assert_eq!(of(r#""category":"","engine":"fw""#), Engine::ProtocolViolation);
}

#[test]
fn who_began_it() {
    let check = |beside: &str, inside: &str, expected: &str| {
        let alert = alert(&line(beside, inside));
        let show = |end: &crate::model::Endpoint| {
            let ip = end.ip.map(|ip| ip.to_string()).unwrap_or_default();
            format!("{ip}:{}", end.port.map(|port| port.to_string()).unwrap_or_default())
        };
        assert_eq!(
            format!("{} {}", show(&alert.source), show(&alert.destination)),
            expected,
            "{beside} {inside}"
        );
    };
    let ends = |from: &str, to: &str| {
        format!(r#""src_ip":"10.0.0.1","src_port":{from},"dest_ip":"10.0.0.2","dest_port":{to}"#)
    };
    let flow = r#""flow":{"src_ip":"10.0.0.2","src_port":2,"dest_ip":"10.0.0.1","dest_port":1}"#;
    // The rule's own word is first.
    let told = r#""source":{"ip":"10.0.0.2","port":5},"target":{"ip":"10.0.0.1"}"#;
    check(&ends("1", "502"), told, "10.0.0.2:5 10.0.0.1:");
    check(&ends("1", "502"), r#""source":{"ip":"10.0.0.2"}"#, "10.0.0.1:1 10.0.0.2:502");
    // The one known OT server port, even against flow and direction.
    check(
        &format!(r#"{},{flow},"direction":"to_client""#, ends("1", "44818")),
        "",
        "10.0.0.1:1 10.0.0.2:44818",
    );
    check(&format!(r#"{},"direction":"to_server""#, ends("20000", "1")), "", "10.0.0.2:1 10.0.0.1:20000");
    // Two of them decide nothing.
    check(
        &format!(r#"{},"direction":"to_client""#, ends("47808", "47808")),
        "",
        "10.0.0.2:47808 10.0.0.1:47808",
    );
    // Then the flow, then the direction, then as written.
    check(&format!(r#"{},{flow},"direction":"to_server""#, ends("1", "2")), "", "10.0.0.2:2 10.0.0.1:1");
    check(&format!(r#"{},"flow":{{}},"direction":"to_client""#, ends("1", "2")), "", "10.0.0.2:2 10.0.0.1:1");
    check(&ends("1", "2"), "", "10.0.0.1:1 10.0.0.2:2");
    check(r#""src_ip":"fe80:0000:0000:0000:0000:0000:0000:0001%eth0","dest_ip":"x""#, "", "fe80::1: :");
}

#[test]
fn protocols_by_parser_port_and_transport() {
    let check = |beside: &str, expected: &[&str]| {
        let names: Vec<_> =
            alert(&line(beside, "")).protocols.iter().map(|p| p.as_str().to_owned()).collect();
        assert_eq!(names, expected, "{beside}");
    };
    check(r#""app_proto":"enip","dest_port":502,"proto":"TCP""#, &["EtherNet/IP"]);
    check(r#""app_proto":"failed","dest_port":102,"proto":"TCP""#, &["Siemens S7"]);
    check(r#""app_proto":"unknown","src_port":2404,"dest_port":9,"proto":"TCP""#, &["IEC 60870-5-104"]);
    check(r#""src_port":47808,"dest_port":47808,"proto":"UDP""#, &["BACnet"]);
    check(r#""src_port":502,"dest_port":102,"proto":"006""#, &["TCP"]);
    check(r#""proto":"IPv6-ICMP""#, &["ICMPv6"]);
    check(r#""proto":"253""#, &["253"]);
    check(r#""app_proto":"acme-bus""#, &["acme-bus"]);
    check("", &[]);
}

#[test]
fn one_finding_whatever_the_ports_and_the_time() {
    let base = fingerprint(
        r#""src_ip":"10.0.0.1","src_port":1024,"dest_ip":"fe80::1","dest_port":80,"proto":"TCP""#,
    );
    let same = r#""src_ip":"10.0.0.1","src_port":1025,"dest_ip":"fe80:0000:0000:0000:0000:0000:0000:0001","proto":"006","app_proto":"failed""#;
    assert_eq!(fingerprint(same), base);
    let turned = r#""src_ip":"fe80::1","dest_ip":"10.0.0.1","proto":"TCP","direction":"to_client""#;
    assert_eq!(fingerprint(turned), base);
    for other in [
        r#""src_ip":"10.0.0.2","dest_ip":"fe80::1","proto":"TCP""#,
        r#""src_ip":"10.0.0.1","dest_ip":"fe80::1","proto":"UDP""#,
        r#""src_ip":"10.0.0.1","dest_ip":"fe80::1","proto":"TCP","app_proto":"http""#,
        r#""dest_ip":"fe80::1","proto":"TCP""#,
    ] {
        assert_ne!(fingerprint(other), base, "{other}");
    }
}

#[test]
fn the_fingerprint_is_made_of_what_the_design_says() {
    let source = SourceName::new("eve").unwrap();
    let identity = Identity::Derived {
        signature: "1:2250005",
        source: "10.0.0.7",
        destination: "10.0.0.11",
        protocol: "Modbus",
    };
    let plain = MODBUS.replace('\n', "");
    let (_, got) = alert_with(settings(), &plain);
    assert_eq!(got, Fingerprint::derive("an-id", &source, &identity), "the identity, not the name");
    let tagged = plain.replacen('{', r#"{"tenant_id":3,"vlan":[100,7],"#, 1);
    let (_, got) = alert_with(settings(), &tagged);
    assert_eq!(got, Fingerprint::derive_in("an-id", &source, "tenant=3;vlan=100;", &identity));
}

/// What a full reading of the line says; the prefilter must never disagree.
fn is_alert(line: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(line).is_ok_and(|value| value["event_type"] == "alert")
}

#[test]
fn the_prefilter_agrees_with_full_reading() {
    let words = [
        "alert",
        "\\u0061lert",
        "al\\u0065rt",
        "\\u0061\\u006C\\u0065\\u0072\\u0074",
        "aler\\u0074",
        "flow",
        "alert ",
    ];
    let keys = ["event_type", "event\\u005ftype", "\\u0065vent_type", "type"];
    let layouts = [
        r#"{"KEY":"WORD","alert":{"signature_id":1}}"#,
        r#"{ "alert" : {"signature_id":1}, "KEY" : "WORD" }"#,
        r#"{"a":"\u0000","alert":{"signature_id":1},"KEY":	"WORD"}"#,
        r#"{"b":{"KEY":"WORD"},"alert":{"signature_id":1}}"#,
        r#"{"KEY":"flow","b":["WORD"],"\u0061lert":{"signature_id":1}}"#,
        r#"{"KEY":"WORD","\u0061lert":{"signature_id":1}}"#,
    ];
    let mut alerts = 0;
    for word in words {
        for key in keys {
            for layout in layouts {
                let line = layout.replace("KEY", key).replace("WORD", word);
                let got = matches!(read(&line), Outcome::Alert(_));
                assert_eq!(got, is_alert(line.as_bytes()), "{line}");
                alerts += usize::from(got);
            }
        }
    }
    assert_eq!(alerts, 5 * 3 * 4);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived_and_bounded(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut line = b"{\"event_type\":\"alert\",\"alert\":{\"signature_id\":1,\"signature\":\"".to_vec();
        line.extend(&bytes);
        line.extend(b"\"}}");
        let reader = Reader::new(settings());
        for line in [&line[..], &bytes] {
            if let Outcome::Alert(both) = reader.line(line, NOW) {
                proptest::prop_assert!(!both.alert.title.is_empty() && both.alert.title.len() <= TITLE_MAX);
                proptest::prop_assert!(!both.alert.title.chars().any(char::is_control));
            }
        }
    }
}

#[test]
fn what_is_ignored_is_counted_by_suricatas_own_types() {
    for (line, kind) in [
        (r#"{"event_type":"flow"}"#, "flow"),
        (r#"{"timestamp":"x","event_type" : "dns","dns":{}}"#, "dns"),
        (r#"{"event_type":"flow","flow":{"alerted":true},"x":"alert"}"#, "flow"),
        (r#"{"event_type":"of its own"}"#, "other"),
        (r#"{"event_type":7}"#, "other"),
        (r#"{"event_type":"a type that is longer than any"}"#, "other"),
        (r#"{"x":1}"#, "other"),
        (r#"{"event_type"}"#, "other"),
    ] {
        assert!(matches!(read(line), Outcome::Ignored(known) if known == kind), "{line}: {:?}", read(line));
    }
}

#[test]
fn equal_addresses_of_different_networks_are_different_findings() {
    let ends = r#""src_ip":"10.0.0.1","dest_ip":"10.0.0.2","#;
    let of = |beside: &str, apart: Apart| {
        alert_with(Settings { apart, ..settings() }, &line(&format!("{ends}{beside}"), "")).1
    };
    let (tagged, other) = (r#""vlan":[100,7],"in_iface":"eth1""#, r#""vlan":[200],"in_iface":"eth2""#);
    let default = Apart::default();
    assert_ne!(of(tagged, default), of(other, default));
    assert_eq!(of(tagged, default), of(r#""vlan":[100,8],"in_iface":"eth2""#, default), "the outer tag");
    assert_eq!(of(r#""in_iface":"eth1""#, default), of(r#""x":0"#, default), "absent is empty");
    assert_ne!(of(r#""tenant_id":1"#, default), of(r#""tenant_id":2"#, default));
    let none = Apart { network: false, ..default };
    assert_eq!(of(tagged, none), of(other, none));
    assert_ne!(of(tagged, Apart { interface: true, ..none }), of(other, Apart { interface: true, ..none }));
    let macs =
        |mac: &str| format!(r#""ether":{{"src_mac":"00:1b:1b:aa:bb:{mac}","dest_mac":"00:1b:1b:aa:bb:ff"}}"#);
    let by_mac = Apart { mac: true, ..default };
    assert_eq!(of(&macs("01"), default), of(&macs("02"), default));
    assert_ne!(of(&macs("01"), by_mac), of(&macs("02"), by_mac));
}

#[test]
fn a_finding_is_one_with_and_without_a_recognised_protocol() {
    let ends = r#""src_ip":"10.0.0.1","src_port":49160,"dest_ip":"10.0.0.2","dest_port":502,"proto":"TCP""#;
    let known = fingerprint(&format!(r#"{ends},"app_proto":"modbus""#));
    assert_eq!(known, fingerprint(ends));
    assert_eq!(known, fingerprint(&format!(r#"{ends},"app_proto":"failed""#)));
    assert_ne!(known, fingerprint(&format!(r#"{ends},"app_proto":"http""#)));
}

#[test]
fn numbers_that_are_none_and_broken_text_cost_no_alert() {
    let alert = |extra: &str| {
        format!(
            r#"{{"event_type":"alert","timestamp":"ts-error","alert":{{"signature":"s","signature_id":1{extra}}}}}"#
        )
    };
    for extra in
        [r#","score":NaN"#, r#","score":-inf"#, r#","x":"\ud800""#, ",\"x\":\"a\u{1}b\"", r#","x":"\q""#]
    {
        let Outcome::Alert(finding) = Reader::new(settings()).line(alert(extra).as_bytes(), NOW) else {
            panic!("{extra}")
        };
        assert_eq!(finding.alert.time, NOW);
        let said = "Time: that of reading; the sensor's own, ts-error, cannot be read";
        assert!(finding.alert.message.contains(said), "{}", finding.alert.message);
    }
}

#[test]
fn a_line_that_another_shipper_wrapped_is_counted_with_a_hint() {
    let line =
        r#"{"@timestamp":"x","message":"{\"timestamp\":\"t\",\"event_type\":\"alert\",\"alert\":{}}"}"#;
    let Outcome::Reject(reason, why) = Reader::new(settings()).line(line.as_bytes(), NOW) else { panic!() };
    assert!(reason == RejectReason::Malformed && why.contains("a log shipper wrapped it"), "{why}");
}
