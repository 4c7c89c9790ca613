//! Tests of alerts as JSON: the three shapes, their defaults, and what is refused.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Alert, Fingerprint, SourceName};

const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);

fn format() -> AlertJson {
    AlertJson::new(Settings {
        site: Some("Plant North".to_owned()),
        severity_map: BTreeMap::from([("high".to_owned(), Severity::Critical)]),
        engine_map: BTreeMap::from([("scan".to_owned(), Engine::PolicyViolation)]),
        ..Settings::new("a1", "line4", SourceName::new("push").unwrap())
    })
}

#[track_caller]
fn finding(line: &str) -> (Alert, Fingerprint) {
    match format().read(line.as_bytes(), NOW) {
        Outcome::Alert(finding) => (finding.alert, finding.fingerprint),
        other => panic!("{line}: {other:?}"),
    }
}

fn alert(line: &str) -> Alert {
    finding(line).0
}

#[test]
fn the_least_alert() {
    let alert = alert(r#"{"title":"Door open"}"#);
    assert_eq!((alert.title.as_str(), alert.message.as_str()), ("Door open", "Door open"));
    assert_eq!((alert.severity, alert.engine), (Severity::Major, Engine::Anomaly));
    assert_eq!((alert.state, alert.kind, alert.time), (AlertState::Raised, AlertKind::Alert, NOW));
    assert_eq!((alert.sensor.as_str(), alert.site.as_deref()), ("line4", Some("Plant North")));
    assert_eq!(alert.raw, r#"{"title":"Door open"}"#);
}

#[test]
fn what_stands_behind_a_long_list_counts() {
    let list = vec!["1"; 5_000].join(",");
    let line = format!(
        r#"{{"title":"t","ids":[{list}],"severity":"critical","source":{{"ip":"10.9.9.1"}},"protocols":["Modbus"]}}"#
    );
    let alert = alert(&line);
    assert_eq!((alert.severity, alert.source.label()), (Severity::Critical, "10.9.9.1".to_owned()));
    assert_eq!(alert.protocols.len(), 1);
    assert!(alert.message.starts_with("t\nNote: the record has more values"), "{}", alert.message);
    let members: Vec<_> = (0..5_000).map(|n| format!("\"k{n}\":0")).collect();
    let many = format!(r#"{{"title":"t",{},"severity":"critical"}}"#, members.join(","));
    let refused = format().read(many.as_bytes(), NOW);
    assert!(matches!(&refused, Outcome::Reject(_, why) if why.starts_with("more than 4096")), "{refused:?}");
}

#[test]
fn times_of_every_kind() {
    let message = |time: &str| {
        let alert = alert(&format!(r#"{{"title":"t","time":"{time}"}}"#));
        (alert.time.to_string(), alert.message)
    };
    for time in
        ["2020-01-01T00:00:00", "2020-01-01 00:00:00", "2020-01-01 00:00:00 UTC", "2020-01-01T01:00:00+0100"]
    {
        assert_eq!(message(time), ("2020-01-01T00:00:00Z".to_owned(), "t".to_owned()), "{time}");
    }
    let said = "t\nTime: that of reading; the sensor's own, yesterday, cannot be read";
    assert_eq!(message("yesterday"), (NOW.to_string(), said.to_owned()));
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
    let settings = Settings { time_zone: zone, ..Settings::new("a", "s", SourceName::new("x").unwrap()) };
    let read = AlertJson::new(settings).read(br#"{"title":"t","time":"2020-01-01T02:00:00"}"#, NOW);
    assert!(matches!(&read, Outcome::Alert(found) if found.alert.time.to_string() == "2020-01-01T00:00:00Z"));
}

#[test]
fn what_is_nearly_json_is_an_alert() {
    for rest in ["\"s\":NaN", "\"s\":-Infinity", "\"s\":\"a\tb\"", "\"s\":\"\\ud83d\""] {
        assert_eq!(alert(&format!("{{\"title\":\"t\",{rest}}}")).title, "t");
    }
    assert_eq!(alert("\0\0\0{\"title\":\"t\"}").title, "t");
}

#[test]
fn every_field() {
    let line = r#"{"id":17,"time":"2026-11-20T10:00:00+01:00","title":" PLC\u0007 stop\n","message":"a\nb",
        "severity":"Critical","engine":"policy_violation","protocols":["s7comm","Modbus"],"category":"c",
        "source":{"ip":"10.0.0.9","mac":"00-1B-1B-AA-BB-CC","name":"eng","port":4000,"device_id":3},
        "destination":"plc-7","sensor":"s2","site":"S","zone":"Z","state":"cleared","kind":"alert",
        "references":"CVE-2021-44228","raw":"the original","of_mine":{"x":[1]}}"#;
    let alert = alert(&line.replace('\n', ""));
    assert_eq!(
        (alert.id.as_deref(), alert.title.as_str(), alert.message.as_str()),
        (Some("17"), "PLC stop", "a\nb")
    );
    assert_eq!(alert.time.to_string(), "2026-11-20T09:00:00Z");
    assert_eq!((alert.severity, alert.engine), (Severity::Critical, Engine::PolicyViolation));
    assert_eq!(alert.protocols.iter().map(Protocol::as_str).collect::<Vec<_>>(), ["Siemens S7", "Modbus"]);
    assert_eq!((alert.source.mac.as_deref(), alert.source.port), (Some("00:1b:1b:aa:bb:cc"), Some(4000)));
    assert_eq!((alert.source.label(), alert.source.device_id.as_deref()), ("eng".to_owned(), Some("3")));
    assert_eq!(alert.destination.name.as_deref(), Some("plc-7"));
    assert_eq!(
        (alert.sensor.as_str(), alert.site.as_deref(), alert.zone.as_deref()),
        ("s2", Some("S"), Some("Z"))
    );
    assert_eq!((alert.state, alert.references.join(",")), (AlertState::Cleared, "CVE-2021-44228".to_owned()));
    assert_eq!(alert.raw, "the original");
}

#[test]
fn what_the_schema_names_is_what_is_read() {
    let schema = schema();
    let keys: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let stored = serde_json::to_value(alert(
        r#"{"id":"1","title":"t","category":"c","zone":"z","references":["x"],"raw":"r"}"#,
    ));
    let stored = stored.unwrap();
    let mut fields: Vec<_> = stored.as_object().unwrap().keys().map(String::as_str).collect();
    // Ours, and nobody else's to say.
    fields.retain(|field| *field != "received_at");
    fields.sort_unstable();
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys, fields);
    let ends: Vec<_> = schema["$defs"]["end"]["oneOf"][1]["properties"].as_object().unwrap().keys().collect();
    assert_eq!(ends.len(), 5);
}

#[test]
fn what_is_refused_says_why() {
    let check = |line: &str, reason: RejectReason, words: &str| match format().read(line.as_bytes(), NOW) {
        Outcome::Reject(found, detail) => {
            assert_eq!(found, reason, "{line}: {detail}");
            assert!(detail.contains(words), "{line}: {detail}");
        }
        other => panic!("{line}: {other:?}"),
    };
    check("{}", RejectReason::MissingField, "`title`");
    check(r#"{"title":" "}"#, RejectReason::MissingField, "`title`");
    check(r#"{"title":["a"]}"#, RejectReason::MissingField, "`title`");
    check(
        r#"{"title":"a","severity":"bad\u001b"}"#,
        RejectReason::Malformed,
        "`severity` is \"bad\": expected \"warning\"",
    );
    check(r#"{"title":"a","severity":{}}"#, RejectReason::Malformed, "`severity` is an object");
    check(r#"{"title":"a","engine":"magic"}"#, RejectReason::Malformed, "`engine`");
    check(r#"{"title":"a","state":"open"}"#, RejectReason::Malformed, "`state`");
    check(r#"{"title":"a","kind":"b"}"#, RejectReason::Malformed, "`kind`");
    check("[]", RejectReason::Malformed, "an array where an alert is an object");
    check("{\"title\":\"a\"", RejectReason::Malformed, "not JSON");
    check("{\"title\":\"a\"} {}", RejectReason::Malformed, "not JSON");
    check("\0", RejectReason::Malformed, "not JSON");
    assert!(matches!(format().read(b" \r\n", NOW), Outcome::Blank));
}

#[test]
fn the_operators_words() {
    assert_eq!(alert(r#"{"title":"a","severity":"High"}"#).severity, Severity::Critical);
    assert_eq!(alert(r#"{"title":"a","category":"Scan"}"#).engine, Engine::PolicyViolation);
    assert_eq!(alert(r#"{"title":"a","category":"Scan","engine":"malware"}"#).engine, Engine::Malware);
    let disk = alert(r#"{"title":"a","kind":"system_notification","engine":"malware"}"#);
    assert_eq!((disk.kind, disk.engine), (AlertKind::SystemNotification, Engine::Operational));
}

#[test]
fn what_makes_one_finding() {
    let print = |line: &str| finding(line).1;
    let own = print(r#"{"id":"7","title":"a"}"#);
    assert_eq!(own, print(r#"{"id":7,"title":"b","source":"10.0.0.1","state":"cleared"}"#));
    let derived = print(r#"{"title":"a","source":"10.0.0.1","destination":"plc","protocols":["s7comm"]}"#);
    assert_ne!(own, derived);
    let other_port = r#"{"title":"a","source":{"ip":"::ffff:10.0.0.1","port":9},"destination":{"name":"plc"},
        "protocols":"Siemens S7","severity":"minor","time":5}"#;
    assert_eq!(derived, print(&other_port.replace('\n', "")));
    assert_ne!(derived, print(r#"{"title":"a","source":"10.0.0.1","protocols":["s7comm"]}"#));
}

#[test]
fn a_webhook_of_defender() {
    let line = r#"{"id":2,"engine":"Anomaly","severity":"Critical","title":"Address Scan Detected","handled":false,
        "time":1594808260000,"siteID":1,"zoneID":1,"sensorID":4,"sensorName":"line9","siteName":"Plant","zoneName":"Z",
        "sourceDevice":4,"destinationDevice":0,"sourceDeviceAddress":"10.10.10.22","destinationDeviceAddress":"N/A",
        "additionalInformation":null,"remediationSteps":["Look.","Ask."],"message":"Scan.\nOf 10.11.0.0/16"}"#;
    let line = line.replace('\n', "");
    let (alert, print) = finding(&line);
    assert_eq!(
        (alert.id.as_deref(), alert.sensor.as_str(), alert.zone.as_deref()),
        (Some("4:2"), "line9", Some("Z"))
    );
    assert_eq!((alert.severity, alert.engine), (Severity::Critical, Engine::Anomaly));
    assert_eq!(alert.time.to_string(), "2020-07-15T10:17:40Z");
    assert_eq!(alert.message, "Scan.\nOf 10.11.0.0/16\nRemediation: Look.\nAsk.");
    assert_eq!(
        (alert.source.label(), alert.source.device_id.as_deref()),
        ("10.10.10.22".to_owned(), Some("4"))
    );
    assert_eq!(alert.destination, Endpoint::default());
    let (handled, same) =
        finding(&line.replace("\"handled\":false", "\"Handled\":true").replace("sensorID", "sensorId"));
    assert_eq!((handled.state, same), (AlertState::Cleared, print));
    assert_ne!(finding(&line.replace("\"sensorID\":4", "\"sensorID\":5")).1, print);
}

#[test]
fn a_detection_finding_of_ocsf() {
    let line = r#"{"class_uid":2004,"activity_id":1,"severity_id":4,"time":1594808260000,"message":"More.",
        "finding_info":{"uid":"f-1","title":"Program download","desc":"To a PLC.","types":["Programming"],
        "attacks":[{"technique":{"uid":"T0843"}}],"src_url":"https://tool.example/f-1"},
        "vulnerabilities":[{"cve":{"uid":"CVE-2021-44228"}}],"metadata":{"product":{"name":"Tool"}},
        "device":{"hostname":"sensor-2"},
        "evidences":[{"src_endpoint":{"ip":"10.0.0.9","port":4000},"dst_endpoint":{"ip":"10.0.0.20","hostname":"plc"},
        "connection_info":{"protocol_name":"s7comm"}}]}"#;
    let line = line.replace('\n', "");
    let alert = alert(&line);
    assert_eq!((alert.id.as_deref(), alert.title.as_str()), (Some("f-1"), "Program download"));
    assert_eq!((alert.message.as_str(), alert.severity), ("More.\nTo a PLC.", Severity::Critical));
    assert_eq!((alert.sensor.as_str(), alert.category.as_deref()), ("sensor-2", Some("Programming")));
    assert_eq!(alert.references, ["CVE-2021-44228", "T0843", "https://tool.example/f-1"]);
    assert_eq!((alert.source.port, alert.destination.name.as_deref()), (Some(4000), Some("plc")));
    assert_eq!(alert.protocols[0].as_str(), "Siemens S7");
    let closed = finding(&line.replace("\"activity_id\":1", "\"activity_id\":3"));
    assert_eq!((closed.0.state, closed.1), (AlertState::Cleared, finding(&line).1));
    let other = format().read(line.replace("2004", "4001").as_bytes(), NOW);
    assert!(matches!(other, Outcome::Ignored("ocsf")), "{other:?}");
    let bare = format().read(br#"{"class_uid":2004}"#, NOW);
    assert!(matches!(bare, Outcome::Reject(RejectReason::MissingField, _)), "{bare:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        format().read(&bytes, NOW);
    }

    #[test]
    fn any_texts_are_safe_to_show(title in ".*", message in ".*", name in ".*", class in prop::option::of(2003..2006)) {
        let line = serde_json::json!({
            "title": title, "message": message, "source": name, "sensorId": name, "siteName": name, "class_uid": class,
            "finding_info": { "title": title, "desc": message },
        });
        if let Outcome::Alert(finding) = format().read(line.to_string().as_bytes(), NOW) {
            let alert = finding.alert;
            prop_assert!(!alert.title.is_empty() && !alert.title.chars().any(char::is_control));
            let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
            prop_assert!(alert.message.chars().all(shown) && alert.raw.chars().all(shown));
            prop_assert!(!alert.sensor.chars().any(char::is_control));
        }
    }
}
