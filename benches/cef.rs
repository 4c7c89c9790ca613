//! How fast syslog messages are read: the goal is CEF over TCP at 80 000 messages a second and core, stored; reading is the
//! smaller part of that. `cargo bench --bench cef`; for people, not a gate.

use std::hint::black_box;

use divan::counter::{BytesCount, ItemsCount};
use otrelay::model::{SourceName, Timestamp};
use otrelay::source::format::Outcome;
use otrelay::source::format::Settings as Common;
use otrelay::source::format::syslog::{Payload, Settings, Syslog};

const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);
const MESSAGES: usize = 10_000;

fn main() {
    divan::main();
}

fn syslog(payload: Payload) -> Syslog {
    Syslog::new(Settings {
        common: Common {
            site: Some("Plant North".to_owned()),
            ..Common::new("a1", "line4", SourceName::new("sensors").expect("a good name"))
        },
        payload,
        time_zone: jiff::tz::TimeZone::UTC,
    })
}

/// About 400 bytes, as a sensor writes them.
fn cef(number: usize) -> String {
    format!(
        "<134>1 2026-08-15T01:00:00Z guardian-2 n2os - - - CEF:0|Nozomi Networks|N2OS|23.1|SIGN:PROGRAM:CHANGE|Program \
         changed|9|app=modbus proto=TCP src=10.0.{}.{} spt={} smac=00:1b:1b:aa:bb:01 dst=10.0.0.2 dpt=502 \
         dmac=00:1b:1b:aa:bb:02 dvchost=guardian-2 cs1=9.0 cs1Label=Risk cs3=a-{number} cs3Label=Id \
         flexString1=T0843 start=1594808260000 msg=The program of the controller was changed by an engineering station",
        number / 250 % 250,
        number % 250,
        49_152 + number % 10_000,
    )
}

fn leef(number: usize) -> String {
    format!(
        "<9>May 5 12:29:23 sensor LEEF:1.0|CyberX|CyberX platform|2.5.0|CyberX platform Alert|\
         devTime=May 05 2019 15:28:54\tdevTimeFormat=MMM dd yyyy HH:mm:ss\tsev=2\ttitle=Device is silent\tscore=81\t\
         engine=Operational\tsenderName=sensor A\tUUID={number}-1557059334000\tsite=North\tzone=Z1\tdst=192.168.2.2\t\
         msg=The device is suspected to be disconnected"
    )
}

fn plain(number: usize) -> String {
    format!("<11>Nov 21 08:00:00 gw-1 watchdog[7]: link {number} is down")
}

#[divan::bench(args = ["cef", "leef", "plain"])]
fn messages(bencher: divan::Bencher<'_, '_>, kind: &str) {
    let write = match kind {
        "cef" => cef,
        "leef" => leef,
        _ => plain,
    };
    let format = syslog(Payload::Auto);
    let messages: Vec<String> = (0..MESSAGES).map(write).collect();
    let bytes: usize = messages.iter().map(String::len).sum();
    bencher.counter(ItemsCount::new(MESSAGES)).counter(BytesCount::new(bytes)).bench(|| {
        for message in &messages {
            let decoded = format.read(black_box(message.as_bytes()), None, NOW);
            assert!(matches!(decoded.outcome, Outcome::Alert(_)));
        }
    });
}
