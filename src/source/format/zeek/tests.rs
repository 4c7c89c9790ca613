//! Tests of the Zeek format: rows in both encodings, odd rows, and what becomes of them.

use proptest::prelude::*;

use super::*;
use crate::model::{Alert, AlertKind, Device, Engine, Fingerprint, Severity, SourceName};

const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);

fn settings() -> Settings {
    Settings {
        site: Some("Plant North".to_owned()),
        ..Settings::new("a1", "line4", SourceName::new("zeek").unwrap())
    }
}

fn decoder(file: &str) -> Box<dyn Decoder> {
    Zeek::new(settings()).decoder(&Stream { name: file, ..Stream::default() })
}

fn header(path: &str, fields: &str) -> String {
    format!(
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t{path}\n\
         #open\t2024-04-12-19-29-12\n#fields\t{}\n#types\ttime",
        fields.replace(' ', "\t")
    )
}

/// What becomes of the lines of a file that are not blank.
fn read(file: &str, text: &str) -> Vec<Decoded> {
    let mut decoder = decoder(file);
    let all = text.split('\n').map(|line| decoder.decode(line.as_bytes(), NOW));
    all.filter(|decoded| !matches!(decoded.outcome, Outcome::Blank)).collect()
}

fn tsv(path: &str, fields: &str, rows: &[&str]) -> Vec<Decoded> {
    let rows: Vec<_> = rows.iter().map(|row| row.replace('|', "\t")).collect();
    read("x.log", &format!("{}\n{}\n", header(path, fields), rows.join("\n")))
}

#[track_caller]
fn finding(decoded: &Decoded) -> (&Alert, Fingerprint) {
    match &decoded.outcome {
        Outcome::Alert(finding) => (&finding.alert, finding.fingerprint),
        other => panic!("{other:?}"),
    }
}

fn word(decoded: &Decoded) -> String {
    match &decoded.outcome {
        Outcome::Alert(finding) => format!("alert {}", finding.alert.title),
        Outcome::Ignored(kind) => format!("ignored {kind}"),
        Outcome::Blank => "blank".to_owned(),
        Outcome::Reject(reason, _) => format!("rejected {}", reason.as_str()),
    }
}

#[test]
fn json_that_is_nearly_right() {
    let notice = |ts: &str, more: &str| {
        let line = format!(r#"{{"ts":{ts},"note":"X::Y","msg":"m","src":"10.0.0.1"{more}}}"#);
        let all = read("notice.log", &line);
        let (alert, _) = finding(&all[0]);
        (alert.time.to_string(), alert.message.clone())
    };
    let read = "2020-01-01T00:00:00Z".to_owned();
    assert_eq!(notice("\"2020-01-01T00:00:00\"", ",\"n\":NaN"), (read.clone(), "m".to_owned()));
    let list = format!(",\"actions\":[{}1]", "1,".repeat(5_000));
    assert!(notice("1577836800", &list).1.contains("more values"));
    let (time, message) = notice("\"garbage\"", ",\"x\":\"a\u{1}b\"");
    assert_eq!(time, NOW.to_string());
    assert!(
        message.ends_with("\nTime: that of reading; the sensor's own, garbage, cannot be read"),
        "{message}"
    );
    let line = r#"{"ts":1577836800,"note{"ts":1577836800,"note":"X::Y"}"#;
    assert_eq!(decoder("notice.log").torn(line.as_bytes()), Some(22));
}

const NOTICE: &str =
    "ts uid id.orig_h id.orig_p id.resp_h id.resp_p fuid proto note msg sub src dst p n peer_descr actions";
const CERT: &str = "1521911720.629574|C1|10.0.0.9|39611|10.0.0.20|443|F1|tcp|SSL::Invalid_Server_Cert|\
    validation failed with (unable\\x09to get)|CN=x.example|10.0.0.9|10.0.0.20|443|-|worker-1|Notice::ACTION_LOG";

#[test]
fn a_notice_of_tsv() {
    let all = tsv("notice", NOTICE, &[CERT]);
    let (alert, _) = finding(&all[0]);
    assert_eq!(alert.title, "SSL: Invalid Server Cert");
    assert_eq!(
        alert.message,
        "validation failed with (unable\tto get)\nCN=x.example\nFile id: F1\nConnection: C1"
    );
    assert_eq!((alert.severity, alert.engine), (Severity::Warning, Engine::PolicyViolation));
    assert_eq!(alert.time.to_string(), "2018-03-24T17:15:20.629574Z");
    assert_eq!((alert.source.label(), alert.source.port), ("10.0.0.9".to_owned(), Some(39_611)));
    assert_eq!((alert.destination.label(), alert.destination.port), ("10.0.0.20".to_owned(), Some(443)));
    assert_eq!(alert.protocols[0].as_str(), "TLS");
    assert_eq!((alert.sensor.as_str(), alert.site.as_deref()), ("line4/worker-1", Some("Plant North")));
    assert_eq!(alert.references, ["note:SSL::Invalid_Server_Cert"]);
    assert!(alert.raw.starts_with("1521911720.629574\tC1\t"));
}

#[test]
fn the_same_notice_of_json_is_the_same_finding() {
    let json = r#"{"_path":"notice","_write_ts":"2018-03-24T17:15:20Z","ts":"2018-03-24T17:15:20.629574Z","uid":"C1",
        "id.orig_h":"10.0.0.9","id.orig_p":39611,"id.resp_h":"10.0.0.20","id.resp_p":443,"fuid":"F1","proto":"tcp",
        "note":"SSL::Invalid_Server_Cert","msg":"validation failed with (unable\tto get)","sub":"CN=x.example",
        "src":"10.0.0.9","dst":"10.0.0.20","p":443,"peer_descr":"worker-1","actions":["Notice::ACTION_LOG"]}"#;
    let json = json.replace('\n', "");
    let of_json = read("all.log", &json);
    let of_tsv = tsv("notice", NOTICE, &[CERT]);
    let ((one, print), (other, same_print)) = (finding(&of_json[0]), finding(&of_tsv[0]));
    assert_eq!(print, same_print);
    assert_eq!(Alert { raw: String::new(), ..one.clone() }, Alert { raw: String::new(), ..other.clone() });
}

#[test]
fn ports_and_times_are_no_part_of_a_finding() {
    let scan = |src: &str, port: &str, note: &str| {
        let row = format!("1.0|-|-|-|-|-|-|-|{note}|scanned at least 15 hosts|-|{src}|-|{port}|15|-|-");
        finding(&tsv("notice", NOTICE, &[&row])[0]).1
    };
    assert_eq!(scan("10.0.0.9", "8000", "Scan::Port_Scan"), scan("10.0.0.9", "8001", "Scan::Port_Scan"));
    assert_ne!(scan("10.0.0.9", "8000", "Scan::Port_Scan"), scan("10.0.0.8", "8000", "Scan::Port_Scan"));
    assert_ne!(scan("10.0.0.9", "8000", "Scan::Port_Scan"), scan("10.0.0.9", "8000", "Scan::Address_Scan"));
}

#[test]
fn acid_notices_by_technique() {
    let row = "1.0|C1|10.0.0.9|4000|10.0.0.20|44818|-|tcp|ATTACKICS::Inhibit_Response|\
        Indicator: T0858 Change Operating Mode (stop)|enip/cip|10.0.0.9|10.0.0.20|44818|-|-|-";
    let of = |row: &str| {
        let all = tsv("notice", NOTICE, &[row]);
        let alert = finding(&all[0]).0;
        (alert.severity, alert.engine, alert.protocols[0].as_str().to_owned(), alert.references.clone())
    };
    let (severity, engine, protocol, references) = of(row);
    assert_eq!(
        (severity, engine, protocol.as_str()),
        (Severity::Critical, Engine::PolicyViolation, "EtherNet/IP")
    );
    assert_eq!(references, ["note:ATTACKICS::Inhibit_Response", "T0858"]);
    let (severity, _, protocol, _) = of(&row.replace("T0858", "T0888").replace("enip/cip", "s7comm"));
    assert_eq!((severity, protocol.as_str()), (Severity::Minor, "Siemens S7"));
    let (severity, engine, ..) = of(&row.replace("ATTACKICS::Inhibit_Response", "ACID::Incident_Summary"));
    assert_eq!((severity, engine), (Severity::Critical, Engine::PolicyViolation));
    let (severity, engine, ..) = of(&row.replace("T0858 ", ""));
    assert_eq!((severity, engine), (Severity::Minor, Engine::PolicyViolation));
    // The same text of another module is no technique of ACID.
    let (severity, engine, ..) = of(&row.replace("ATTACKICS::Inhibit_Response", "Site::Own"));
    assert_eq!((severity, engine), (Severity::Minor, Engine::Anomaly));
}

#[test]
fn the_operators_tables_are_laid_over() {
    let mut settings = settings();
    settings.severity_map.insert("ssl::invalid_server_cert".to_owned(), Severity::Critical);
    settings.engine_map.insert("captureloss::too_much_loss".to_owned(), Engine::Anomaly);
    settings.severity_map.insert("bad_http_request".to_owned(), Severity::Minor);
    let zeek = Zeek::new(settings);
    let mut notice = zeek.decoder(&Stream { name: "notice.log", ..Stream::default() });
    let alert = |decoded: &Decoded| finding(decoded).0.clone();
    let cert = alert(&notice.decode(br#"{"ts":1,"note":"SSL::Invalid_Server_Cert"}"#, NOW));
    assert_eq!((cert.severity, cert.engine), (Severity::Critical, Engine::PolicyViolation));
    let loss = alert(&notice.decode(br#"{"ts":1,"note":"CaptureLoss::Too_Much_Loss"}"#, NOW));
    assert_eq!((loss.engine, loss.kind), (Engine::Anomaly, AlertKind::Alert));
    let mut weird = zeek.decoder(&Stream { name: "weird.log", ..Stream::default() });
    let bad = alert(&weird.decode(br#"{"ts":1,"name":"bad_HTTP_request"}"#, NOW));
    assert_eq!((bad.severity, bad.engine), (Severity::Minor, Engine::ProtocolViolation));
}

#[test]
fn notes_about_the_sensor_are_system_notifications() {
    let mut notice = decoder("notice.log");
    let loss = notice.decode(br#"{"ts":1,"note":"CaptureLoss::Too_Much_Loss","msg":"lost 12.5%"}"#, NOW);
    let alert = finding(&loss).0;
    assert_eq!((alert.kind, alert.engine), (AlertKind::SystemNotification, Engine::Operational));
    assert_eq!((alert.title.as_str(), alert.message.as_str()), ("CaptureLoss: Too Much Loss", "lost 12.5%"));
}

#[test]
fn weirds_of_the_list_are_alerts_and_the_others_are_counted() {
    let fields = "ts uid id.orig_h id.orig_p id.resp_h id.resp_p name addl notice peer source";
    let all = tsv(
        "weird",
        fields,
        &[
            "1.0|C1|10.0.0.9|4000|10.0.0.20|20000|dnp3_header_lacks_magic|0x1234|F|zeek|DNP3",
            "1.0|C1|10.0.0.9|4000|10.0.0.20|80|bad_HTTP_request|-|F|zeek|-",
            "1.0|-|-|-|-|-|-|-|F|zeek|-",
        ],
    );
    let words: Vec<_> = all.iter().map(word).collect();
    assert_eq!(words, ["alert dnp3_header_lacks_magic", "ignored weird", "rejected missing field"]);
    let alert = finding(&all[0]).0;
    assert_eq!((alert.severity, alert.engine), (Severity::Warning, Engine::ProtocolViolation));
    assert_eq!((alert.protocols[0].as_str(), alert.sensor.as_str()), ("DNP3", "line4"));
    assert_eq!(alert.message, "dnp3_header_lacks_magic\nDetail: 0x1234\nAnalyzer: DNP3\nConnection: C1");
}

#[test]
fn what_is_no_alert_and_what_is_rejected() {
    let check = |file: &str, text: &str, expected: &[&str]| {
        let words: Vec<_> = read(file, text).iter().map(word).collect();
        assert_eq!(words, expected, "{text}");
    };
    let conn = header("conn", "ts uid proto");
    check("conn.log", &format!("{conn}\n1.0\tC1\ttcp\n\n#close\t2024-04-12-19-34-07"), &["ignored conn"]);
    check("conn.log", &format!("{conn}\n1.0\tC1\n1.0\tC1\ttcp\tx"), &["rejected malformed"; 2]);
    check("my.log", &format!("{}\n1.0\tx", header("of_my_own", "ts x")), &["ignored other"]);
    check("conn.log", "1.0\tC1\ttcp", &["rejected malformed"]);
    check("notice.log", "{\"ts\":1,\"note\":\"A::B\"", &["rejected malformed"]);
    check("notice.log", "{\"ts\":1,}", &["rejected malformed"]);
    check("notice.log", "{\"ts\":1}", &["rejected missing field"]);
    check("notice.log", "{\"ts\":1,\"note\":[\"A::B\"]}", &["rejected missing field"]);
    check("notice.log", "{\"ts\":1,\"note\":\"Notice::Tally\"}", &["ignored notice"]);
    check("dns.2024-04-12-19-29-12.log", "{\"ts\":1,\"query\":\"x.example\"}", &["ignored dns"]);
    check("dns.log", "{\"_path\":\"weird\",\"name\":\"truncated_header\"}", &["ignored weird"]);
    check("dns.log", "\0\0\0", &["rejected malformed"]);
    check("notice_alarm.log", "{\"ts\":1,\"note\":\"A::B\"}", &["ignored notice_alarm"]);
    check("notice.log", "ts\tuid\tnote\tsrc\n1.0\tC1\tA::B_c\t10.0.0.1", &["alert A: B c"]);
}

#[test]
fn a_header_in_mid_file_replaces_the_one_before() {
    let one = header("weird", "ts name peer");
    let two = "#separator \\x7c\n#unset_field|?\n#path|weird\n#fields|ts|peer|addl|name";
    let text =
        format!("{one}\n1.0\tdnp3_header_lacks_magic\tzeek\n{two}\n1.0|zeek|?|dnp3_header_lacks_magic");
    let all = read("weird.log", &text);
    assert_eq!(finding(&all[0]).0.message, finding(&all[1]).0.message);
    assert_eq!(all.len(), 2);
}

#[test]
fn a_restart_in_mid_file_reads_on() {
    let zeek = Zeek::new(settings());
    let stream = Stream { name: "weird.log", ..Stream::default() };
    let mut before = zeek.decoder(&stream);
    assert_eq!(before.state(), None);
    for line in header("weird", "ts name peer").lines() {
        assert!(matches!(before.decode(line.as_bytes(), NOW).outcome, Outcome::Blank));
    }
    let state = before.state().unwrap();
    assert!(state.len() <= super::super::STATE_MAX);
    let mut after = zeek.decoder(&Stream { state: Some(&state), ..stream });
    let row = b"1.0\tdnp3_header_lacks_magic\tzeek\n";
    assert_eq!(finding(&after.decode(row, NOW)).1, finding(&before.decode(row, NOW)).1);
    assert_eq!(after.state().as_deref(), Some(state.as_str()));
}

#[test]
fn text_from_the_wire_is_made_safe() {
    let line = r#"{"ts":1,"note":"A::B\u001b[31m","msg":"() { :;}; \u0000\u202e x","src":"not an address"}"#;
    let all = read("notice.log", line);
    let alert = finding(&all[0]).0;
    assert_eq!(alert.title, "A: B[31m");
    assert_eq!(alert.message, "() { :;};  x");
    assert_eq!(alert.source, crate::model::Endpoint::default());
}

fn devices(path: &str, fields: &str, rows: &[&str]) -> Vec<Device> {
    tsv(path, fields, rows).into_iter().flat_map(|decoded| decoded.devices).collect()
}

#[test]
fn devices_of_inventory_logs() {
    let hosts = devices(
        "known_hosts",
        "ts host",
        &["1.0|10.0.0.1", "2.0|10.0.0.1", "9999.0|10.0.0.1", "1.0|224.0.0.1"],
    );
    assert_eq!(hosts.len(), 2, "the same again only after an hour, and no group");
    assert_eq!(hosts[0].ips[0].to_string(), "10.0.0.1");
    assert_eq!((hosts[0].sensor.as_deref(), hosts[0].site.as_deref()), (Some("line4"), Some("Plant North")));

    let service = devices(
        "known_services",
        "ts host port_num port_proto service",
        &["1.0|10.0.0.1|502|tcp|(empty)", "1.0|10.0.0.1|80|tcp|HTTP,-SSL"],
    );
    assert_eq!(
        (service[0].protocols.join(","), service[1].protocols.join(",")),
        ("Modbus".into(), "HTTP,TLS".into())
    );

    let modbus = devices(
        "known_modbus",
        "ts host device_type",
        &["1.0|10.0.0.1|Known::MODBUS_SLAVE", "1.0|10.0.0.2|Known::MODBUS_MASTER"],
    );
    assert_eq!((modbus[0].kind.as_deref(), modbus[1].kind.as_deref()), (Some("PLC"), None));

    let fields = "ts uids client_addr server_addr mac host_name assigned_addr";
    let dhcp = devices("dhcp", fields, &["1.0|C1|-|10.0.0.254|00:1B:1b:aa:bb:cc|hmi-3|10.0.0.7"]);
    assert_eq!(
        (dhcp[0].name.as_deref(), dhcp[0].macs.join(","), dhcp[0].dhcp),
        (Some("hmi-3"), "00:1b:1b:aa:bb:cc".into(), true)
    );

    let os = devices(
        "software",
        "ts host software_type name version.major version.minor",
        &["1.0|10.0.0.1|OS::WINDOWS|Windows|10|0", "1.0|10.0.0.1|HTTP::SERVER|() { :;}|-|-"],
    );
    assert_eq!(os.len(), 1);
    assert_eq!(os[0].operating_system.as_deref(), Some("Windows 10.0"));

    let conn = devices(
        "conn",
        "ts id.orig_h id.resp_h local_orig local_resp orig_l2_addr resp_l2_addr",
        &["1.0|10.0.0.1|192.0.2.7|T|F|00:1b:1b:aa:bb:cc|00:1b:1b:aa:bb:dd"],
    );
    assert_eq!((conn.len(), conn[0].macs_are_own), (1, false));
}

#[test]
fn devices_of_packages() {
    let cip = devices(
        "cip_identity",
        "ts source_h socket_address vendor_name device_type_name product_code revision serial_number product_name",
        &[
            "1.0|10.0.0.5|0.0.0.0|Acme|Programmable Logic Controller|22|20.11|0x00c0ffee|L61",
            "1.0|10.0.0.6|10.0.0.7|Acme|Own Thing|1|1.1|0x00000000|X",
        ],
    );
    assert_eq!((cip[0].kind.as_deref(), cip[0].ips[0].to_string()), (Some("PLC"), "10.0.0.5".into()));
    assert_eq!((cip[0].serial.as_deref(), cip[0].firmware.as_deref()), (Some("0x00c0ffee"), Some("20.11")));
    assert_eq!((cip[1].kind.as_deref(), cip[1].serial.as_deref()), (Some("Own Thing"), None));

    let s7 = devices(
        "s7comm_known_devices",
        "ts id.resp_h source_h automation_system_name module_name plant_name module_serial",
        &["1.0|10.0.0.8|-|LINE-4|CPU 000-1|(empty)|S X1"],
    );
    assert_eq!(
        (s7[0].name.as_deref(), s7[0].model.as_deref(), s7[0].serial.as_deref()),
        (Some("LINE-4"), Some("CPU 000-1"), Some("S X1"))
    );

    let bacnet = devices(
        "bacnet_discovery",
        "ts source_h pdu_service device_id_number object_type instance_number vendor object_name",
        &["1.0|10.0.0.9|i_am|-|device|1234|Acme|-", "1.0|10.0.0.9|who_is|-|-|-|-|-"],
    );
    assert_eq!((bacnet.len(), bacnet[0].vendor.as_deref()), (1, Some("Acme")));
    assert_eq!(bacnet[0].extra, [("bacnet_instance".to_owned(), "1234".to_owned())]);

    let fields = "ts uid id.resp_h unit object_id object_value";
    let rows = [
        "1.0|C1|10.0.0.3|1|VendorName|Acme",
        "1.0|C1|10.0.0.3|1|MajorMinorVersion|v2.1",
        "1.0|C2|10.0.0.4|17|ModelName|M340",
    ];
    let gathered = devices("modbus_read_device_identification", fields, &rows);
    assert_eq!(
        (gathered[1].vendor.as_deref(), gathered[1].firmware.as_deref()),
        (Some("Acme"), Some("v2.1"))
    );
    let module = &gathered[2].modules[0];
    assert_eq!((module.address.as_deref(), module.model.as_deref()), (Some("17"), Some("M340")));
    assert_eq!(gathered[2].model, None);
}

#[test]
fn devices_of_traffic_are_client_and_server() {
    let fields = "ts uid id.orig_h id.orig_p id.resp_h id.resp_p func exception";
    let rows = [
        "1.0|C1|10.0.0.9|4000|10.0.0.20|502|READ_COILS|-",
        "2.0|C1|10.0.0.9|4000|10.0.0.20|502|READ_COILS|-",
    ];
    let all = devices("modbus", fields, &rows);
    assert_eq!(all.len(), 2);
    let seen: Vec<_> = all
        .iter()
        .map(|device| {
            let peer = &device.connections[0];
            (
                device.ips[0].to_string(),
                device.extra[0].1.as_str(),
                peer.ip.unwrap().to_string(),
                peer.inbound,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("10.0.0.9".to_owned(), "client", "10.0.0.20".to_owned(), false),
            ("10.0.0.20".to_owned(), "server", "10.0.0.9".to_owned(), true)
        ]
    );
    // Picked up in the middle: the server began it.
    let turned = devices("modbus", fields, &["1.0|C1|10.0.0.20|502|10.0.0.9|4000|READ_COILS|-"]);
    assert_eq!(turned[0].ips[0].to_string(), "10.0.0.9");
}

#[test]
fn what_is_told_is_bounded() {
    let mut told = Told::default();
    let row = |n: u32| format!(r#"{{"ts":1,"host":"{}"}}"#, std::net::Ipv4Addr::from(0x0a00_0000 + n));
    for n in 0..20_000 {
        let text = row(n);
        json::read(&text, |object| {
            let object = object.unwrap().0;
            let row = Row::Json(&object);
            assert_eq!(devices::of(&settings(), &mut told, "known_hosts", &row, NOW).len(), 1);
        });
    }
    assert!(told.len() <= 4_096);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_read_without_a_panic(
        file in "(notice|weird|dhcp|modbus|x)\\.log",
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let mut decoder = decoder(&file);
        for line in lines {
            decoder.decode(&line, NOW);
            prop_assert!(decoder.state().is_none_or(|state| state.len() <= super::super::STATE_MAX));
        }
    }

    #[test]
    fn any_values_in_a_row_are_safe_to_show(values in prop::collection::vec("[^\t\n\r]{0,40}", 17)) {
        let text = format!("{}\n1{}", header("notice", NOTICE), values.join("\t"));
        for decoded in read("x.log", &text) {
            if let Outcome::Alert(finding) = decoded.outcome {
                let alert = finding.alert;
                prop_assert!(!alert.title.is_empty() && !alert.title.chars().any(char::is_control));
                let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
                prop_assert!(alert.message.chars().all(shown) && alert.raw.chars().all(shown));
            }
        }
    }
}
