//! Tests of syslog: what each product sends, odd messages, and what becomes of them. All lines are our own.

use super::super::{Finding, Settings as Common};
use super::*;
use crate::model::alert::{MESSAGE_MAX, TITLE_MAX};
use crate::model::{Alert, AlertState, Device, Engine, Severity, SourceName};

/// 2026-11-21T08:15:00Z.
const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);
const SENDER: &str = "10.20.0.5";

fn settings(payload: Payload) -> Settings {
    Settings {
        common: Common {
            site: Some("Plant North".to_owned()),
            ..Common::new("a1", "line4", SourceName::new("sensors").unwrap())
        },
        payload,
        time_zone: jiff::tz::TimeZone::UTC,
    }
}

fn decoded_with(settings: Settings, line: &[u8]) -> Decoded {
    Syslog::new(settings).read(line, SENDER.parse().ok(), NOW)
}

fn decoded(line: &str) -> Decoded {
    decoded_with(settings(Payload::Auto), line.as_bytes())
}

fn finding_with(settings: Settings, line: &str) -> Finding {
    match decoded_with(settings, line.as_bytes()).outcome {
        Outcome::Alert(finding) => *finding,
        other => panic!("{line}: {other:?}"),
    }
}

fn finding(line: &str) -> Finding {
    finding_with(settings(Payload::Auto), line)
}

fn alert(line: &str) -> Alert {
    finding(line).alert
}

fn same(one: &str, other: &str) -> bool {
    finding(one).fingerprint == finding(other).fingerprint
}

fn protocols(alert: &Alert) -> Vec<&str> {
    alert.protocols.iter().map(crate::model::Protocol::as_str).collect()
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// A generic event with these pairs.
fn cef(pairs: &str) -> String {
    format!("<134>Nov 21 08:00:00 ids-1 CEF:0|Acme|Watch|3.1|4711|Odd write|8|{pairs}")
}

#[test]
fn a_generic_event() {
    let alert = alert(&cef(
        "externalId=77 src=10.0.0.1 spt=49160 shost=hmi-3 smac=00-1B-1B-AA-BB-01 dst=10.0.0.2 dpt=502 proto=TCP \
         app=modbus act=blocked cat=Write rt=1594808260000 msg=One \\= two\\nthree cs1=high cs1Label=Risk dvchost=watch-2",
    ));
    assert_eq!((alert.title.as_str(), alert.id.as_deref()), ("Odd write", Some("77")));
    assert_eq!((alert.severity, alert.engine), (Severity::Major, Engine::Anomaly));
    assert_eq!((alert.source.ip, alert.source.port), (ip("10.0.0.1"), Some(49160)));
    assert_eq!(alert.source.name.as_deref(), Some("hmi-3"));
    assert_eq!(alert.source.mac.as_deref(), Some("00:1b:1b:aa:bb:01"));
    assert_eq!((alert.destination.ip, alert.destination.port), (ip("10.0.0.2"), Some(502)));
    assert_eq!((protocols(&alert), alert.category.as_deref()), (vec!["Modbus"], Some("Write")));
    assert_eq!(alert.time.to_string(), "2020-07-15T10:17:40Z");
    assert_eq!((alert.sensor.as_str(), alert.site.as_deref()), ("watch-2", Some("Plant North")));
    assert_eq!(
        alert.message,
        "\
Odd write
One = two
three
Protocol: Modbus
Action: blocked
Risk: high
Product: Acme Watch 3.1
Class: 4711
Id: 77"
    );
    assert!(alert.raw.starts_with("<134>Nov 21") && alert.raw.ends_with("dvchost=watch-2"));
}

#[test]
fn the_least_event() {
    let alert = alert("CEF:0|||1.0||Odd|");
    assert_eq!((alert.title.as_str(), alert.severity, alert.time), ("Odd", Severity::Major, NOW));
    assert_eq!((alert.source, alert.destination), Default::default());
    assert_eq!(alert.sensor, SENDER);
}

/// The cases that readers of CEF fail on.
#[test]
fn the_acceptance_list() {
    let with = |pairs: &str| alert(&cef(pairs));
    assert_eq!(with(" src=10.0.0.1").source.ip, ip("10.0.0.1"));
    assert_eq!(with("cat=a\\|b|c src=10.0.0.1").category.as_deref(), Some("a|b|c"));
    let equals = alert(r"CEF:0|V|P|1|a=b|N=m \\|5|src=10.0.0.1");
    assert_eq!((equals.title.as_str(), equals.severity), (r"N=m \", Severity::Minor));
    assert_eq!(with(r"cat=c:\dir\new").category.as_deref(), Some("c:\\dir ew"));
    assert_eq!(with("src=10.0.0.1  dst=10.0.0.2").destination.ip, ip("10.0.0.2"));
    assert_eq!(with("ad.nn=1 a[0]=2 src=10.0.0.1").source.ip, ip("10.0.0.1"));
    assert_eq!(with("cat=several words here src=10.0.0.1").category.as_deref(), Some("several words here"));
    let raw = with("not a pair in it");
    assert!(raw.raw.ends_with("not a pair in it"));
    assert_eq!(with("unheardOf=1 cfp15=1.5 c6a12=::1 src=10.0.0.1").source.ip, ip("10.0.0.1"));
    assert_eq!(alert("words before it CEF:1|V|P|1|7|N|5|").title, "N");
    assert_eq!(with("start=").time.to_string(), "2026-11-21T08:00:00Z");
    assert_eq!(alert("CEF:0|V|P|1|7|N|Very-High|").severity, Severity::Critical);
    assert_eq!(with("start=Sep 07 2018 14:50:39").time.to_string(), "2018-09-07T14:50:39Z");
    assert_eq!(with("src=fe80::1%eth0 c6a3=::2").source.ip, ip("fe80::1"));
    assert_eq!(alert("CEF: 0|V|P|1|7|N|5|").title, "N");
}

#[test]
fn bytes_that_are_no_text_are_replaced_and_said() {
    let line = [&b"CEF:0|V|P|1|7|N\x83e\x83X|5|msg="[..], b"\x83g src=10.0.0.1"].concat();
    let Outcome::Alert(finding) = decoded_with(settings(Payload::Cef), &line).outcome else { panic!() };
    assert_eq!(finding.alert.source.ip, ip("10.0.0.1"));
    assert!(finding.alert.message.contains("not UTF-8"), "{}", finding.alert.message);
    assert!(finding.alert.title.contains('\u{fffd}'));
}

#[test]
fn repeated_keys_are_said() {
    let alert = alert(&cef("src=10.0.0.1 src=10.0.0.9"));
    assert_eq!(alert.source.ip, ip("10.0.0.1"));
    assert!(alert.message.contains("Note: 1 keys are there twice"), "{}", alert.message);
}

#[test]
fn what_is_rejected_ignored_or_nothing() {
    let check = |payload, line: &str, expected: &str| {
        let outcome = match decoded_with(settings(payload), line.as_bytes()).outcome {
            Outcome::Alert(_) => "alert".to_owned(),
            Outcome::Ignored(kind) => kind.to_owned(),
            Outcome::Blank => "blank".to_owned(),
            Outcome::Reject(reason, detail) => {
                assert!(!detail.is_empty());
                reason.as_str().to_owned()
            }
        };
        assert_eq!(outcome, expected, "{payload:?} {line}");
    };
    for payload in Payload::ALL {
        check(payload, "", "blank");
        check(payload, " \r\n\0", "blank");
    }
    check(Payload::Auto, "GET / HTTP/1.1", "malformed");
    check(Payload::Auto, "<13>root: hello", "alert");
    check(Payload::Auto, "<13>Nov 21 08:00:00 h root: CEF:0|V|P", "malformed");
    check(Payload::Auto, "<13>Nov 21 08:00:00 h root: LEEF:1.0|V|P", "malformed");
    check(Payload::Auto, "<13>Nov 21 08:00:00 h root: CEF:x|V|P", "alert");
    check(Payload::Auto, "CEF:0|V|P|1|||5|", "missing field");
    check(Payload::Auto, "<13>", "blank");
    check(Payload::Cef, "<13>hello", "malformed");
    check(Payload::Leef, "<13>CEF:0|V|P|1|7|N|5|", "malformed");
    check(Payload::DefenderText, "<13>hello", "malformed");
    check(Payload::Plain, "hello", "alert");
    check(Payload::Plain, "CEF:0|V|P", "alert");
    check(Payload::Auto, "CEF:0|Claroty|CTD|5.0|HealthCheck|Health|0|", "health check");
    check(Payload::Auto, "CEF:0|Claroty|CTD|5.0|ActivityLog|Log|0|", "activity log");
    check(Payload::Auto, "CEF:0|Claroty|CTD|5.0|Insight|I|0|", "insight");
    check(Payload::Auto, "CEF:0|Claroty|CTD|5.0|Event/Login|E|0|", "event");
    check(Payload::Auto, "CEF:0|Claroty|xDome|1|comm_event|E|0|", "event");
}

const CTD: &str = "<14>1 2026-08-15T01:00:00Z Line2 syslog-Alert-Default - - - CEF:0|Claroty|CTD|4.10.0|\
    Alert/Configuration Download|New Asset|10|CtdSourceIp=10.1.30.40 CtdSourceHost=EWS-7 CtdSourcePort=1025 \
    CtdSourceMac=00:50:56:b9:e2:ad CtdSourceAssetType=Engineering Station CtdDestinationIp=10.1.30.1 \
    CtdTimeGenerated=Aug 14 2026 01:00:00 CtdExternalId=31 CtdDeviceExternalId=4 CtdProtocol=TFTP \
    CtdCategory=Integrity/New Asset CtdMessage=New asset: 10.1.30.1:Card 2 \\\\ Addr 255 CtdAlertScore=100 \
    CtdMitreAttackTechniqueIds=T1548, T0543 CtdAlertLink=https://ctd.example/alert/31?a=b CtdAlertStatus=";

#[test]
fn claroty_ctd() {
    let read = decoded(&format!("{CTD}New"));
    let Outcome::Alert(new) = read.outcome else { panic!() };
    let alert = &new.alert;
    assert_eq!((alert.title.as_str(), alert.id.as_deref()), ("New Asset", Some("31")));
    assert_eq!((alert.severity, alert.engine), (Severity::Critical, Engine::PolicyViolation));
    assert_eq!((alert.source.ip, alert.source.name.as_deref()), (ip("10.1.30.40"), Some("EWS-7")));
    assert_eq!((alert.destination.ip, protocols(alert)), (ip("10.1.30.1"), vec!["TFTP"]));
    assert_eq!(alert.time.to_string(), "2026-08-14T01:00:00Z");
    assert_eq!((alert.sensor.as_str(), alert.state), ("Line2", AlertState::Raised));
    assert_eq!(alert.references, ["T1548", "T0543", "https://ctd.example/alert/31?a=b"]);
    assert!(alert.message.contains("10.1.30.1:Card 2 \\ Addr 255"), "{}", alert.message);
    assert_eq!(
        read.devices,
        [Device {
            name: Some("EWS-7".to_owned()),
            ips: vec!["10.1.30.40".parse().unwrap()],
            macs: vec!["00:50:56:b9:e2:ad".to_owned()],
            kind: Some("Engineering Station".to_owned()),
            site: Some("Plant North".to_owned()),
            sensor: Some("Line2".to_owned()),
            first_seen: Some(alert.time),
            last_seen: Some(alert.time),
            ..Device::default()
        }]
    );
    let over = finding(&format!("{CTD}Resolved CtdResolvedAs=Approved"));
    assert_eq!((over.alert.state, over.fingerprint), (AlertState::Cleared, new.fingerprint));
    assert!(!same(&format!("{CTD}New"), &format!("{CTD}New").replace("ExternalId=31", "ExternalId=32")));
}

#[test]
fn claroty_in_its_other_forms() {
    let old = alert(
        "Nov 21 08:00:00 ctd UTC CEF:0|Claroty|CTD|2.7|Alert|Known Threat|Critical|src=10.0.0.1 dst=10.0.0.2 \
         cat=Security/Known Threat cn2=9 cn2Label=Alert ID start=Nov 21 2026 07:00:00",
    );
    assert_eq!((old.id.as_deref(), old.engine), (Some("9"), Engine::Malware));
    assert_eq!((old.severity, old.time.to_string().as_str()), (Severity::Critical, "2026-11-21T07:00:00Z"));
    let oem = alert(
        "CEF:0|Schneider|CTD|4|Alert/Host Scan|Host Scan|6|CtdSourceIp=10.0.0.1 CtdCategory=Security/Host Scan",
    );
    assert_eq!((oem.source.ip, oem.engine), (ip("10.0.0.1"), Engine::Anomaly));
    let cloud = alert(
        "CEF:0|Claroty|xDome|1|alert_affected_device|Alert|7|alert_name=Odd login alert_category=Risk \
         alert_description=It logged in device_ip_list=['10.0.0.1', '10.0.0.2'] device_type=HMI \
         device_asset_id=a-1 device_site_name=South alert_timestamp=2026-11-21T07:00:00+02:00",
    );
    assert_eq!((cloud.title.as_str(), cloud.source.ip), ("Odd login", ip("10.0.0.1")));
    assert_eq!((cloud.site.as_deref(), cloud.source.device_id.as_deref()), (Some("South"), Some("a-1")));
    assert_eq!(cloud.time.to_string(), "2026-11-21T05:00:00Z");
}

#[test]
fn nozomi() {
    let line = |class: &str, id: &str| {
        format!(
            "<134>1 2026-08-15T01:00:00Z n2os n2os - - - CEF:0|Nozomi Networks|N2OS|23.1|{class}|Program changed|9|\
             app=UNKNOWN proto=TCP dpt=102 dvchost=guardian-2 cs1=9.0 cs1Label=Risk cs2=true cs2Label=IsSecurity \
             cs3={id} cs3Label=Id flexString1=T0843, T0845 flexString3=Program change src=10.0.0.1 dst=10.0.0.2 \
             dmac=00:1b:1b:aa:bb:01 start=1594808260000 msg=It changed"
        )
    };
    let alert = alert(&line("SIGN:PROGRAM:CHANGE", "a-1"));
    assert_eq!((alert.id.as_deref(), alert.sensor.as_str()), (Some("a-1"), "guardian-2"));
    assert_eq!((alert.severity, alert.engine), (Severity::Critical, Engine::PolicyViolation));
    assert_eq!(
        (protocols(&alert), alert.time.to_string().as_str()),
        (vec!["Siemens S7"], "2020-07-15T10:17:40Z")
    );
    assert_eq!(alert.references, ["T0843", "T0845"]);
    assert!(alert.message.contains("\nRisk: 9.0\n"), "{}", alert.message);
    for (class, engine) in [
        ("SIGN:MALWARE-DETECTED", Engine::Malware),
        ("VI:NEW-NODE", Engine::PolicyViolation),
        ("SIGN:SCADA-MALFORMED", Engine::ProtocolViolation),
        ("PROC:CRITICAL-STATE-ON", Engine::Anomaly),
        ("NET:RST-FROM-PRODUCER", Engine::Operational),
        ("INCIDENT:WEIRD", Engine::Anomaly),
    ] {
        let line = line(class, "1").replace("Program changed", "x").replace("Program change", "x");
        assert_eq!(finding(&line).alert.engine, engine, "{class}");
    }
    assert!(!same(&line("VI:NEW-NODE", "1"), &line("VI:NEW-NODE", "2")));
    let other = line("VI:NEW-NODE", "1").replace("guardian-2", "guardian-3");
    assert!(!same(&line("VI:NEW-NODE", "1"), &other), "ids are those of one guardian");
}

#[test]
fn dragos() {
    let alert = alert(
        "<14>Aug  3 10:00:00 dragos CEF:0|Dragos|Platform|2.3|platform notification|New logic|3|id=812 \
         type=Threat Behavior content=Logic was loaded. occurredAt=2026-08-03T11:59:58.123456+02:00 \
         src_asset_ip=10.0.0.1 src_asset_hostname=ews dst_asset_ip=10.0.0.2 dst_asset_mac=001b.1baa.bb01",
    );
    assert_eq!((alert.id.as_deref(), alert.title.as_str()), (Some("812"), "New logic"));
    assert_eq!(
        (alert.severity, alert.time.to_string().as_str()),
        (Severity::Warning, "2026-08-03T09:59:58.123456Z")
    );
    assert_eq!((alert.source.ip, alert.source.name.as_deref()), (ip("10.0.0.1"), Some("ews")));
    assert_eq!(alert.destination.mac.as_deref(), Some("00:1b:1b:aa:bb:01"));
    assert!(alert.message.contains("Logic was loaded."));
}

#[test]
fn radiflow() {
    let read = decoded(
        "May 18 16:02:05 isid-lab isid-lab[1] CEF:0|radiflow|isid|7.0|104|(spp_modbus): Reserved code: in use.|High|\
         cat='Cyber' id=252 src=192.168.1.6 dst=192.168.1.85 pt=502 PtName=S7/S7Plus/61850-MMS SrcName=192.168.1.6 \
         DstName=plc 7 - 1 SrcMac=44:8A:5B:CB:72:42#012 DstMac=00:80:F4:0E:10:FC SrcVendor=Acme INT'L CO., LTD. \
         DstVendor=None SrcVlan=None",
    );
    let Outcome::Alert(finding) = read.outcome else { panic!() };
    let alert = finding.alert;
    assert_eq!(alert.title, "(spp_modbus): Reserved code: in use.");
    assert_eq!((alert.severity, alert.engine), (Severity::Major, Engine::ProtocolViolation));
    assert_eq!(protocols(&alert), ["Siemens S7", "IEC 61850 MMS"]);
    assert_eq!((alert.source.name, alert.destination.name.as_deref()), (None, Some("plc 7")));
    assert_eq!(alert.source.mac.as_deref(), Some("44:8a:5b:cb:72:42"));
    assert_eq!((alert.destination.port, alert.category.as_deref()), (Some(502), Some("Cyber")));
    assert!(alert.message.contains("Source vendor: Acme INT'L CO., LTD."));
    assert!(!alert.message.contains("None") && read.devices.is_empty());
    let new = decoded(
        "May 18 16:02:05 l l[1] CEF:0|radiflow|isid|7.0|9|New device detected|Medium|id=3 src=192.168.1.6 \
         SrcMac=44:8A:5B:CB:72:42 SrcVendor=Acme SrcType=Server",
    );
    assert_eq!(new.devices[0].vendor.as_deref(), Some("Acme"));
    assert_eq!(new.devices[0].kind.as_deref(), Some("Server"));
}

#[test]
fn defender_cef() {
    let line = "<9>Jul  3 10:15:02 sensor-plant1 CEF:0|Microsoft Defender for IoT|sensor-p1|24.1.5|\
        Microsoft Defender for IoT Alert|Address Scan Detected|10|msg=Address scan.\\nFrom: 10.10.10.22 protocol=SMB \
        severity=Minor type=Policy Violation UUID=12-1594808260000 start=Jul 03 2026 10:15:00 src_ip=10.10.10.22 \
        src_mac=00:11:22:33:44:55 dst_ip=N/A cat=Scan";
    let alert = alert(line);
    assert_eq!((alert.sensor.as_str(), alert.id.as_deref()), ("sensor-p1", Some("12-1594808260000")));
    assert_eq!((alert.severity, alert.engine), (Severity::Minor, Engine::PolicyViolation));
    assert_eq!((alert.source.ip, alert.destination.ip), (ip("10.10.10.22"), None));
    assert_eq!((protocols(&alert), alert.category.as_deref()), (vec!["SMB"], Some("Scan")));
    assert_eq!(alert.time.to_string(), "2020-07-15T10:17:40Z");
    for vendor in ["CyberX", "Azure Defender for IoT", "Microsoft Defender for IoT/CyberX", "Acme"] {
        let line = line.replace("|Microsoft Defender for IoT|", &format!("|{vendor}|"));
        assert_eq!(finding(&line).fingerprint, finding(&line).fingerprint);
        assert_eq!(finding(&line).alert.severity, Severity::Minor, "{vendor}");
    }
    for (number, severity) in
        [("10", Severity::Critical), ("8", Severity::Major), ("4", Severity::Minor), ("1", Severity::Warning)]
    {
        let line = line.replace("severity=Minor ", "").replace("|10|", &format!("|{number}|"));
        assert_eq!(finding(&line).alert.severity, severity);
    }
}

#[test]
fn defender_leef() {
    let alert = alert(
        "<9>May 5 12:29:23 sensor_Agent LEEF:1.0|CyberX|CyberX platform|2.5.0|CyberX platform Alert|\
         devTime=May 05 2019 15:28:54\tdevTimeFormat=MMM dd yyyy HH:mm:ss\tsev=2\tcat=XSense Alerts\t\
         title=Device is silent\tscore=81\talertId=6\tengine=Operational\tsenderName=sensor A\t\
         UUID=5-1557059334000\tsite=North\tzone=Z1\tdst=192.168.2.2\tdstName=192.168.2.2\tmsg=It is silent.",
    );
    assert_eq!((alert.title.as_str(), alert.id.as_deref()), ("Device is silent", Some("5-1557059334000")));
    assert_eq!((alert.severity, alert.engine), (Severity::Major, Engine::Operational));
    assert_eq!((alert.sensor.as_str(), alert.category), ("sensor A", None));
    assert_eq!((alert.site.as_deref(), alert.zone.as_deref()), (Some("North"), Some("Z1")));
    assert_eq!((alert.destination.ip, alert.destination.name), (ip("192.168.2.2"), None));
    assert_eq!(alert.time.to_string(), "2019-05-05T12:28:54Z");
}

#[test]
fn what_defender_leaves_out_its_title_says() {
    let leef = |vendor: &str, pairs: &str| {
        alert(&format!(
            "<9>May 5 12:29:23 s LEEF:1.0|{vendor}|platform|2.5.0|Alert|cat=XSense Alerts\tsev=2\t{pairs}"
        ))
    };
    let known = leef("CyberX", "title=Illegal HTTP Header Content");
    assert_eq!((known.severity, known.engine), (Severity::Critical, Engine::Anomaly));
    assert_eq!(known.category.as_deref(), Some("Abnormal HTTP Communication Behavior"));
    let stop = leef("CyberX", "title=Controller Stop");
    assert_eq!((stop.severity, stop.engine), (Severity::Warning, Engine::Operational));
    // What the message says counts.
    let said = leef("CyberX", "title=Controller Stop\tseverity=Major\tengine=Policy Violation");
    assert_eq!((said.severity, said.engine), (Severity::Major, Engine::PolicyViolation));
    // A title that nobody knows, and the same title of another product.
    let own = leef("CyberX", "title=A rule of our own");
    assert_eq!((own.severity, own.category), (Severity::Major, None));
    assert_eq!(leef("Acme", "title=Controller Stop").category, None);
}

#[test]
fn defender_text() {
    let line = "<9>Jul  3 10:15:02 sensor CyberX platform name: plant 1\nMicrosoft Defender for IoT Alert: Scan\n\
        Type: Anomaly\nSeverity: Critical\nSource: 10.0.0.1\nSource IP: 10.0.0.1\nProtocol: Modbus\nDestination: plc\n\
        Destination IP: 10.0.0.2\nMessage: It scans.\nAlert group: Scan\nUUID: 12-1594808260000";
    for payload in [Payload::Auto, Payload::DefenderText] {
        let alert = finding_with(settings(payload), line).alert;
        assert_eq!((alert.title.as_str(), alert.sensor.as_str()), ("Scan", "plant 1"));
        assert_eq!((alert.severity, alert.engine), (Severity::Critical, Engine::Anomaly));
        assert_eq!((alert.source.ip, &alert.source.name), (ip("10.0.0.1"), &None));
        assert_eq!((alert.destination.name.as_deref(), protocols(&alert)), (Some("plc"), vec!["Modbus"]));
        assert_eq!(alert.id.as_deref(), Some("12-1594808260000"));
    }
}

#[test]
fn generic_leef() {
    let line = "LEEF:2.0|Acme|Watch|1|probe|^|cat=Scan^sev=9^src=10.0.0.1^dst=10.0.0.2^dstPort=502^proto=TCP^\
        devTime=1594808260000^identHostName=hmi^msg=C:\\new";
    let alert = alert(line);
    assert_eq!((alert.title.as_str(), alert.severity), ("C:\\new", Severity::Critical));
    assert_eq!((protocols(&alert), alert.source.name.as_deref()), (vec!["Modbus"], Some("hmi")));
    assert_eq!(alert.time.to_string(), "2020-07-15T10:17:40Z");
    assert_eq!(finding(&line.replace("^msg=C:\\new", "")).alert.title, "probe");
}

#[test]
fn plain_text() {
    let alert = alert("<11>Nov 21 08:00:00 gw-1 watchdog[7]: link 3 is down\n second line");
    assert_eq!((alert.title.as_str(), alert.severity), ("link 3 is down", Severity::Major));
    assert_eq!(alert.message, "link 3 is down\n second line");
    assert_eq!((alert.engine, alert.sensor.as_str()), (Engine::Operational, "gw-1"));
    assert_eq!(
        (alert.category.as_deref(), alert.time.to_string().as_str()),
        (Some("watchdog"), "2026-11-21T08:00:00Z")
    );
    assert!(same("<11>Nov 21 08:00:00 gw a: x", "<11>Nov 21 09:00:00 gw a: x"));
    assert!(!same("<11>Nov 21 08:00:00 gw a: x", "<11>Nov 21 08:00:00 gw2 a: x"));
}

#[test]
fn identities() {
    let of = |pairs: &str| cef(pairs);
    assert!(same(&of("src=10.0.0.1 dst=10.0.0.2 spt=1"), &of("src=10.0.0.1 dst=10.0.0.2 spt=2 msg=x")));
    assert!(!same(&of("src=10.0.0.1"), &of("src=10.0.0.2")));
    let uuid = "externalId=5-1557059334000";
    assert!(same(&of(&format!("{uuid} src=10.0.0.1")), &of(&format!("{uuid} src=10.0.0.2"))));
    let counted = of("externalId=1 src=10.0.0.1");
    assert!(same(&counted, &of("externalId=1 src=10.0.0.1 msg=again")));
    assert!(!same(&counted, &of("externalId=1 src=10.0.0.2")), "a counter that began anew");
    assert!(!same(&counted, &counted.replace("Odd write", "PLC stop")), "a counter that began anew");
    assert!(!same(&counted, &of("externalId=2 src=10.0.0.1")));
    let behind_relay =
        |host: &str| counted.replace("<134>", "<13>Nov 21 08:00:00 relay <134>").replace("ids-1", host);
    assert!(!same(&behind_relay("ids-1"), &behind_relay("ids-2")), "two sensors behind one relay");
    assert_eq!(alert(&behind_relay("ids-2")).sensor, "ids-2");
    let acme = of("externalId=1");
    assert!(!same(&acme, &acme.replace("|Acme|", "|Other|")), "equal ids of two products are two findings");
}

#[test]
fn a_time_that_cannot_be_read_is_said() {
    let alert = alert(&cef("rt=garbage src=10.0.0.1"));
    assert_eq!(alert.time.to_string(), "2026-11-21T08:00:00Z");
    let said = "\nTime: that of the header of its message; the sensor's own, garbage, cannot be read";
    assert!(alert.message.ends_with(said), "{}", alert.message);
    assert!(!self::alert(&cef("src=10.0.0.1")).message.contains("cannot be read"));
    assert!(!self::alert(&cef("rt=1795248000000")).message.contains("cannot be read"));
}

#[test]
fn what_relays_make_of_control_characters() {
    let leef =
        "<14>Nov 21 08:00:00 gw LEEF:1.0|Acme|OTIDS|1|EV7|src=10.0.0.1\tdst=10.0.0.2\tsev=9\ttitle=PLC stop";
    let (plain, written) = (alert(leef), alert(&leef.replace('\t', "#011")));
    assert_eq!((written.title.as_str(), written.severity), ("PLC stop", Severity::Critical));
    assert_eq!((plain.destination, plain.severity), (written.destination, written.severity));
    let text = "<9>Nov 21 08:00:00 s1 CyberX platform name: p1#012Microsoft Defender for IoT Alert: Scan#012Type: \
                Anomaly#012Severity: Minor#012Source IP: 10.0.0.1#012Destination IP: 10.0.0.2#012Message: m#012UUID: 1-2";
    let alert = alert(text);
    assert_eq!((alert.title.as_str(), alert.severity), ("Scan", Severity::Minor));
    assert_eq!(alert.destination.ip, ip("10.0.0.2"));
}

#[test]
fn the_operators_tables_come_first() {
    let mut settings = settings(Payload::Auto);
    settings.common.severity_map.insert("8".to_owned(), Severity::Warning);
    settings.common.severity_map.insert("3".to_owned(), Severity::Critical);
    settings.common.engine_map.insert("4711".to_owned(), Engine::Malware);
    settings.common.engine_map.insert("watchdog".to_owned(), Engine::PolicyViolation);
    let alert = finding_with(settings.clone(), &cef("")).alert;
    assert_eq!((alert.severity, alert.engine), (Severity::Warning, Engine::Malware));
    let plain = finding_with(settings, "<11>Nov 21 08:00:00 gw watchdog: x").alert;
    assert_eq!((plain.severity, plain.engine), (Severity::Critical, Engine::PolicyViolation));
}

#[test]
fn long_and_hostile_texts_are_bounded() {
    let long = "x".repeat(100_000);
    let alert = alert(&format!("CEF:0|V|P|1|7|{long}|5|cat={long} msg={long} cs1={long} cs1Label={long}"));
    assert!(
        alert.title.len() <= TITLE_MAX && alert.message.len() <= MESSAGE_MAX && alert.raw.len() <= RAW_MAX
    );
    assert!(alert.message.contains("\nProduct: V P 1\n"), "what is cut is the product's text, not the rest");
    let shown = finding("CEF:0|V|P|1|7|a\u{1b}[31mb\u{202e}|5|msg=c\u{1b}d dvchost=\u{7}h").alert;
    assert_eq!((shown.title.as_str(), shown.sensor.as_str()), ("a[31mb", "h"));
    assert!(shown.message.contains("\ncd\n") && !shown.raw.contains('\u{1b}'));
}

/// Pieces that formats are made of, so that random messages get past the first check.
fn pieces() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    const WORDS: [&str; 24] = [
        "<9>",
        "1 ",
        "CEF:0|",
        "LEEF:2.0|",
        "LEEF:1.0|",
        "|",
        "\\",
        "=",
        " ",
        "\t",
        "#012",
        "src=",
        "cs1Label=Id",
        "cs1=",
        "[a b=\"",
        "\"]",
        "Nov 21 08:00:00 ",
        "2026-08-15T01:00:00Z ",
        "Claroty|CTD",
        "UUID=1-1594808260000",
        "\nMicrosoft Defender for IoT Alert: ",
        ", Source: ",
        "é\u{202e}",
        "\0",
    ];
    let word = prop_oneof![
        4 => (0..WORDS.len()).prop_map(|at| WORDS[at].as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived_and_bounded(bytes in pieces()) {
        for payload in Payload::ALL {
            let outcome = decoded_with(settings(payload), &bytes).outcome;
            if let Outcome::Alert(finding) = outcome {
                let alert = finding.alert;
                proptest::prop_assert!(!alert.title.is_empty() && alert.title.len() <= TITLE_MAX);
                proptest::prop_assert!(!alert.title.chars().any(char::is_control));
                proptest::prop_assert!(alert.message.len() <= MESSAGE_MAX && alert.raw.len() <= RAW_MAX);
                proptest::prop_assert!(!alert.sensor.is_empty());
            }
        }
    }
}
