//! A Defender for IoT sensor and console are polled: each alert once, each change of it once, whatever the other side
//! does in between. The other side is the mock of `support::console`, which knows nothing of the agent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use otrelay::clock::SystemClock;
use otrelay::heartbeat::Heartbeat;
use otrelay::model::cursor::Remembered;
use otrelay::model::{AlertKind, AlertState, Cursor, Device, Secret, SourceName};
use otrelay::net::TlsSettings;
use otrelay::source::format::{Settings as Common, defender as format};
use otrelay::source::transport::defender::{Defender, Settings};
use otrelay::source::transport::poll::{self, Poll, http};
use otrelay::source::{Batch, Reading, Source};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::agent::Agent;
use crate::support::console::{Console, Fault, NOW, TOKEN};
use crate::support::{simulator, until};

/// What a store would hold after the batches of some rounds.
#[derive(Default)]
struct Ledger {
    marks: HashMap<String, Cursor>,
    read: bool,
    /// Every sighting of an alert, by id: was it raised or cleared, and was it backlog.
    told: BTreeMap<String, Vec<(AlertState, bool)>>,
    notifications: Vec<(String, AlertState)>,
    devices: Vec<Device>,
    rejected: u64,
    trouble: Option<String>,
    batches: u64,
    /// Most sightings of one batch.
    largest: usize,
    alerts: Vec<otrelay::model::Alert>,
}

impl Ledger {
    fn commit(&mut self, batch: Batch) {
        for cursor in batch.finished {
            let Cursor::Mark(mark) = cursor else { panic!("a file") };
            self.marks.remove(&mark.name);
        }
        for cursor in batch.cursors {
            let Cursor::Mark(mark) = &cursor else { panic!("a file") };
            self.marks.insert(mark.name.clone(), cursor);
        }
        self.largest = self.largest.max(batch.sightings.len());
        for sighting in batch.sightings {
            let alert = sighting.alert;
            let id = alert.id.clone().unwrap();
            match alert.kind {
                AlertKind::Alert => self.told.entry(id).or_default().push((alert.state, sighting.backlog)),
                AlertKind::SystemNotification => self.notifications.push((id, alert.state)),
            }
            if self.alerts.len() < 1_000 {
                self.alerts.push(alert);
            }
        }
        self.devices.extend(batch.devices);
        self.rejected += batch.reject_counts.iter().sum::<u64>();
        self.trouble = batch.trouble;
        self.batches += 1;
        self.read = true;
    }

    fn remembered(&self) -> Remembered {
        Remembered { cursors: self.marks.values().cloned().collect(), read_before: self.read }
    }

    /// Each of these was told so, in this order, and no other was told.
    #[track_caller]
    fn has_told(&self, expected: &[(&str, &[AlertState])]) {
        let told: Vec<_> = self
            .told
            .iter()
            .map(|(id, states)| (id.as_str(), states.iter().map(|(state, _)| *state).collect::<Vec<_>>()))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(id, states)| (*id, states.to_vec())).collect();
        assert_eq!(told, expected);
    }
}

use AlertState::{Cleared, Raised};

struct Poller {
    url: String,
    token: String,
    tls: TlsSettings,
    console: bool,
    interval: Duration,
}

impl Poller {
    fn of(console: &Console) -> Self {
        Self {
            url: console.url().to_owned(),
            token: TOKEN.to_owned(),
            tls: TlsSettings::default(),
            console: console.state().console,
            interval: Duration::from_millis(10),
        }
    }

    fn http(&self) -> http::Settings {
        http::Settings {
            url: self.url.parse().unwrap(),
            token: Secret::new("test", self.token.clone()),
            tls: self.tls.clone(),
            proxy: None,
        }
    }

    fn make(&self, ledger: &Ledger, reading: Reading) -> Poll<Defender> {
        let name = SourceName::new("defender").unwrap();
        let format = format::Defender::new(format::Settings {
            common: Common {
                site: Some("Plant North".to_owned()),
                ..Common::new("agent", "line4", name.clone())
            },
            console: self.console,
        });
        let api = Defender::new(Settings {
            http: self.http(),
            console: self.console,
            devices_interval: Duration::from_secs(3_600),
            handles: Vec::new(),
            format,
        });
        let settings = poll::Settings { name, kind: "defender-console", interval: self.interval, reading };
        Poll::new(settings, api, ledger.remembered(), Arc::new(SystemClock), Heartbeat::default())
    }

    /// One round of a poller that was started anew.
    fn round(&self, ledger: &mut Ledger) {
        let poll = self.make(ledger, Reading::Once);
        runtime().block_on(async {
            let (out, mut batches) = mpsc::channel(2);
            let collect = async {
                while let Some(batch) = batches.recv().await {
                    ledger.commit(batch);
                }
            };
            let (ended, ()) = tokio::join!(poll.run(out, CancellationToken::new()), collect);
            ended.unwrap();
        });
    }

    /// Rounds of one poller for as long as `goes_on`, which looks at the console now and then and may change it.
    fn follow(&self, ledger: &mut Ledger, mut goes_on: impl FnMut() -> bool) {
        let poll = self.make(ledger, Reading::Follow);
        runtime().block_on(async {
            let (out, mut batches) = mpsc::channel(2);
            let stop = CancellationToken::new();
            let collect = async {
                while let Some(batch) = batches.recv().await {
                    ledger.commit(batch);
                }
            };
            let drive = async {
                while goes_on() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                stop.cancel();
            };
            let (ended, (), ()) = tokio::join!(poll.run(out, stop.clone()), collect, drive);
            ended.unwrap();
        });
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn each_alert_of_a_sensor_and_each_change_is_told_once() {
    let sensor = Console::start(false);
    let (poller, mut ledger) = (Poller::of(&sensor), Ledger::default());
    {
        let mut state = sensor.state();
        for _ in 0..3 {
            let id = state.raise(0);
            state.alerts[id as usize - 1].time -= 60_000;
        }
        state.handle(2);
    }
    poller.round(&mut ledger);
    ledger.has_told(&[("1", &[Raised]), ("2", &[Cleared]), ("3", &[Raised])]);
    assert!(ledger.told.values().flatten().all(|(_, backlog)| *backlog));
    let batches = ledger.batches;

    // The same alerts again: nothing is told, and after the one that says all is well nothing is written.
    poller.round(&mut ledger);
    assert_eq!(ledger.batches, batches + 1);
    {
        let mut state = sensor.state();
        state.now += 600_000;
        state.handle(1);
        state.raise(0);
        let came_and_went = state.raise(0);
        state.handle(came_and_went);
    }
    poller.round(&mut ledger);
    poller.round(&mut ledger);
    ledger.has_told(&[
        ("1", &[Raised, Cleared]),
        ("2", &[Cleared]),
        ("3", &[Raised]),
        ("4", &[Raised]),
        ("5", &[Raised, Cleared]),
    ]);
    assert!(ledger.told["4"].iter().all(|(_, backlog)| !backlog));
    let alert = ledger.alerts.iter().find(|alert| alert.id.as_deref() == Some("4")).unwrap();
    assert_eq!(
        (alert.sensor.as_str(), alert.source.ip.unwrap().to_string().as_str()),
        ("line4", "192.0.2.5")
    );
    assert_eq!((ledger.trouble.as_deref(), sensor.state().refused), (None, 0));
}

#[test]
fn sensors_of_a_console_keep_their_names_and_numbers_apart() {
    let console = Console::start(true);
    {
        let mut state = console.state();
        state.sensor(4, "west", "Plant West", "Line 2");
        state.sensor(5, "east", "Plant East", "Line 9");
        for sensor in [4, 5] {
            state.raise(sensor);
        }
        // Numbers of different sensors may be the same.
        state.alerts[1].id = 1;
    }
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    poller.round(&mut ledger);
    ledger.has_told(&[("4:1", &[Raised]), ("5:1", &[Raised])]);
    let place = |sensor: &str| {
        let alert = ledger.alerts.iter().find(|alert| alert.sensor == sensor).unwrap();
        (alert.site.clone().unwrap(), alert.zone.clone().unwrap())
    };
    assert_eq!(place("west"), ("Plant West".to_owned(), "Line 2".to_owned()));
    assert_eq!(place("east"), ("Plant East".to_owned(), "Line 9".to_owned()));
    let sensors: Vec<_> = ledger.devices.iter().filter(|device| device.is_sensor).collect();
    assert_eq!(
        sensors.iter().map(|device| device.name.as_deref().unwrap()).collect::<Vec<_>>(),
        ["west", "east"]
    );
}

#[test]
fn an_older_console_is_read_as_far_as_it_goes() {
    let console = Console::start(true);
    {
        let mut state = console.state();
        (state.versions, state.integration) = (vec![1], false);
        state.sensor(4, "west", "Plant West", "Line 2");
        state.raise(4);
        state.devices =
            vec![json!({"id": 7, "name": "plc", "type": "PLC", "ipAddresses": ["192.0.2.7"], "sensorId": 4})];
    }
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    poller.round(&mut ledger);
    ledger.has_told(&[("4:1", &[Raised])]);
    assert_eq!((ledger.alerts[0].sensor.as_str(), ledger.trouble.as_deref()), ("west", None));
    let plc = ledger.devices.iter().find(|device| device.id.as_deref() == Some("7")).unwrap();
    assert_eq!((plc.sensor.as_deref(), plc.kind.as_deref()), (Some("west"), Some("PLC")));
}

#[test]
fn repeats_other_orders_and_old_answers_change_nothing() {
    let console = Console::start(true);
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    console.state().repeats = true;
    let mut expected = BTreeMap::new();
    for round in 0..12 {
        {
            let mut state = console.state();
            state.order = round;
            state.now += 300_000;
            for _ in 0..5 {
                expected.insert(format!("4:{}", state.raise(4)), vec![Raised]);
            }
        }
        poller.round(&mut ledger);
        {
            let mut state = console.state();
            state.fail(&[Fault::Stale, Fault::Stale, Fault::Stale, Fault::Stale, Fault::Stale, Fault::Stale]);
            let id = (round * 5 + 2) as i64;
            state.handle(id);
            expected.insert(format!("4:{id}"), vec![Raised, Cleared]);
        }
        // What is known from before, then the truth, then what was known before once more.
        poller.round(&mut ledger);
        console.state().faults.clear();
        poller.round(&mut ledger);
    }
    let told: BTreeMap<_, Vec<_>> = ledger
        .told
        .iter()
        .map(|(id, all)| (id.clone(), all.iter().map(|(state, _)| *state).collect()))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn a_sensor_that_numbers_anew_loses_no_alert_and_shares_no_ticket() {
    let (console, simulator) = (Console::start(true), simulator());
    let agent = agent(&simulator, &console, TOKEN);
    let raise = |times: [i64; 3]| {
        let mut state = console.state();
        state.now += 86_400_000;
        let now = state.now;
        state.alerts.clear();
        for time in times {
            state.raise_at(4, now - time, now);
            state.alerts.last_mut().unwrap().severity = "Critical";
        }
    };
    raise([1_000, 2_000, 3_000]);
    agent.once().ends(0).says("3 tickets created");
    // It was set up again: first the newest, then three of the same time.
    raise([1_000, 2_000, 3_000]);
    agent.once().ends(0).says("3 tickets created");
    raise([5_000; 3]);
    agent.once().ends(0).says("3 tickets created");
    agent.once().ends(0).says("0 tickets created");
    // What is over is over for the last of them.
    console.state().handle(2);
    agent.once().ends(0);
    let alerts = agent.json(&["alerts"]);
    let findings: BTreeSet<_> =
        alerts.as_array().unwrap().iter().map(|alert| alert["fingerprint"].to_string()).collect();
    let status = agent.status();
    let source = status["sources"].as_array().unwrap().iter().find(|source| source["name"] == "console");
    assert_eq!((findings.len(), source.unwrap()["cleared"].as_u64()), (9, Some(1)), "{alerts}");
}

#[test]
fn an_alert_that_comes_late_is_found() {
    let console = Console::start(true);
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    console.state().raise(4);
    let three_days = 3 * 24 * 3_600_000;
    console.state().raise_at(4, NOW - three_days, NOW + 60_000);
    let mut changed = false;
    poller.follow(&mut ledger, || {
        let mut state = console.state();
        // A question without a time asks for all that is there.
        let all = state.asked.iter().filter(|asked| asked.ends_with("/alerts")).count();
        if all > 0 && !changed {
            state.now += 120_000;
            state.raise(4);
            state.asked.clear();
            changed = true;
            return true;
        }
        all < 2
    });
    ledger.has_told(&[("4:1", &[Raised]), ("4:2", &[Raised]), ("4:3", &[Raised])]);
    let asked = console.state().asked.clone();
    let since: Vec<_> = asked.iter().filter_map(|asked| asked.split_once("fromTime=")).collect();
    assert!(!since.is_empty(), "every question was for everything");
    let newest = console.state().alerts.iter().map(|alert| alert.time).max().unwrap();
    assert!(since.iter().all(|(_, time)| (newest - 2 * 3_600_000..newest).contains(&time.parse().unwrap())));
}

#[test]
fn answers_that_break_off_anywhere_lose_and_double_nothing() {
    let console = Console::start(true);
    {
        let mut state = console.state();
        for _ in 0..40 {
            state.raise(4);
        }
    }
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    // Before the alerts: sensors, vulnerabilities, connections, devices, deleted devices.
    for cut in (0..14_000).step_by(1_700) {
        let before = [Fault::Late(Duration::ZERO); 5];
        console.state().fail(&[&before[..], &[Fault::Cut(cut)]].concat());
        poller.round(&mut ledger);
        assert!(ledger.trouble.is_some(), "{cut}");
    }
    console.state().faults.clear();
    poller.round(&mut ledger);
    assert_eq!((ledger.told.len(), ledger.trouble.as_deref(), ledger.rejected), (40, None, 0));
    assert!(ledger.told.values().all(|states| states.len() == 1), "{:?}", ledger.told);
}

#[test]
fn many_alerts_at_the_first_connection_come_in_pieces() {
    const ALERTS: usize = 10_000;
    let console = Console::start(true);
    {
        let mut state = console.state();
        for alert in 0..ALERTS as i64 {
            state.raise_at(4, NOW - 60_000 - alert * 60_000, NOW);
        }
    }
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    poller.round(&mut ledger);
    assert_eq!((ledger.told.len(), ledger.trouble.as_deref()), (ALERTS, None));
    assert!(ledger.largest < 1_024, "{} alerts in one batch", ledger.largest);
    console.state().handle(77);
    let batches = ledger.batches;
    poller.round(&mut ledger);
    assert_eq!((ledger.told.len(), ledger.batches), (ALERTS, batches + 1));
    let told: usize = ledger.told.values().map(Vec::len).sum();
    assert_eq!((told, ledger.told["4:77"].len()), (ALERTS + 1, 2));
    // What is remembered of them all fits into few rows.
    assert!(ledger.marks.len() < 100, "{} marks", ledger.marks.len());
}

#[test]
fn a_console_that_cannot_answer_all_at_once_is_asked_in_spans() {
    let console = Console::start(false);
    {
        let mut state = console.state();
        state.now = jiff::Timestamp::now().as_millisecond();
        let now = state.now;
        state.alerts_max = 100;
        for alert in 0..400 {
            state.raise_at(0, now - alert * 4 * 3_600_000, now);
        }
    }
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    poller.round(&mut ledger);
    assert_eq!((ledger.told.len(), ledger.trouble.as_deref()), (400, None));
    assert!(ledger.told.values().all(|states| states.len() == 1));
}

#[test]
fn a_sensor_that_is_away_is_told_once_and_its_return_once() {
    let console = Console::start(true);
    console.state().sensor(4, "west", "Plant West", "Line 2");
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    for connected in [true, false, false, true, true, false] {
        console.state().sensors[0].connected = connected;
        poller.round(&mut ledger);
    }
    let states: Vec<_> = ledger.notifications.iter().map(|(_, state)| *state).collect();
    assert_eq!(states, [Raised, Cleared, Raised]);
    assert!(ledger.notifications.iter().all(|(id, _)| id == "sensor:4:connection"));
}

#[test]
fn devices_come_with_what_belongs_to_them_page_by_page() {
    let console = Console::start(true);
    {
        let mut state = console.state();
        state.page_max = 120;
        state.devices = (1..=1_300)
            .map(|id| json!({"u_id": id, "u_name": format!("d{id}"), "u_device_type": "PLC", "u_ip_address_objects": []}))
            .collect();
        state.connections = (2..=1_300)
            .map(|id| json!({"u_src_device_id": 1, "u_dest_device_id": id, "u_connection_type": "One Way"}))
            .take(200)
            .collect();
        state.cves = vec![json!({"u_id": 3, "u_cves": [{"u_cve_id": "CVE-2020-1", "u_score": "10.0"}]})];
        state.deleted = vec![9_999];
    }
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    poller.round(&mut ledger);
    let device = |id: &str| {
        ledger.devices.iter().filter(|device| device.id.as_deref() == Some(id)).collect::<Vec<_>>()
    };
    assert_eq!(ledger.devices.len(), 1_301);
    assert_eq!((device("1").len(), device("1")[0].connections.len()), (1, 200));
    assert!(device("2")[0].connections[0].inbound);
    assert_eq!(device("3")[0].cves[0].id, "CVE-2020-1");
    assert!(device("9999")[0].deleted);
    assert_eq!(ledger.trouble, None);
}

#[test]
fn devices_that_cannot_be_read_do_not_hold_up_alerts() {
    let console = Console::start(true);
    console.state().raise(4);
    console.state().fail(&[Fault::Status(403), Fault::Status(500)]);
    let (poller, mut ledger) = (Poller::of(&console), Ledger::default());
    let mut raised = false;
    poller.follow(&mut ledger, || {
        let mut state = console.state();
        let alerts = state.asked.iter().filter(|asked| asked.contains("/alerts")).count();
        if alerts > 2 && !raised {
            state.now += 60_000;
            state.raise(4);
            state.asked.clear();
            raised = true;
            return true;
        }
        alerts < 3 || !raised
    });
    ledger.has_told(&[("4:1", &[Raised]), ("4:2", &[Raised])]);
    let said = ledger.trouble.unwrap();
    assert!(said.contains("integration/sensors: the token is refused (403)"), "{said}");
    let devices = console.state().asked.iter().filter(|asked| !asked.contains("/alerts")).count();
    assert_eq!(devices, 0, "what failed is asked for again in minutes, not in every round");
}

/// The trouble of one round, for people.
fn trouble(poller: &Poller) -> String {
    let mut ledger = Ledger::default();
    poller.round(&mut ledger);
    assert!(ledger.told.is_empty());
    let words = ledger.trouble.expect("a trouble");
    assert!(!words.contains(TOKEN) && !words.contains("canary"), "{words}");
    words
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let console = Console::start(true);
    let mut poller = Poller::of(&console);
    let check = |poller: &Poller, faults: &[Fault], words: &[&str]| {
        console.state().fail(faults);
        let said = trouble(poller);
        console.state().faults.clear();
        for words in words {
            assert!(said.contains(words), "no `{words}` in: {said}");
        }
    };
    check(&poller, &[Fault::Page], &["no JSON", "`url`"]);
    check(&poller, &[Fault::Redirect], &["another address (302)", "log-in page"]);
    check(&poller, &[Fault::Status(503); 9], &["not available (503): Unexpected error"]);
    check(&poller, &[Fault::Status(403)], &["token is refused (403)", "Access tokens"]);
    poller.token = "canary-wrong".to_owned();
    check(&poller, &[], &["token is refused (401): Unauthorized", "Access tokens"]);
    assert_eq!(console.state().refused, 1, "after a refusal nothing more is asked in that round");
    poller.token = TOKEN.to_owned();
    poller.console = false;
    check(&poller, &[], &["no such address (404)", "`kind`"]);
    poller.url = "http://127.0.0.1:9".to_owned();
    check(&poller, &[], &["connection refused", "firewall"]);
}

#[test]
fn only_the_certificate_that_was_named_is_trusted() {
    let (console, other) = (Console::start_tls(true), Console::start_tls(true));
    console.state().raise(4);
    let dir = tempfile::tempdir().unwrap();
    let mut poller = Poller::of(&console);
    let said = trouble(&poller);
    assert!(said.contains("not trusted here") && said.contains("tls.ca_file"), "{said}");
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, other.ca_pem()).unwrap();
    poller.tls.ca_file = Some(file.clone());
    let said = trouble(&poller);
    assert!(said.contains("no trusted TLS connection"), "{said}");
    poller.tls = TlsSettings { pin: Some([7; 32]), ..TlsSettings::default() };
    let said = trouble(&poller);
    assert!(said.contains("not the pinned one"), "{said}");
    assert!(console.state().asked.is_empty() && console.state().refused == 0);

    std::fs::write(&file, console.ca_pem()).unwrap();
    poller.tls = TlsSettings { ca_file: Some(file), ..TlsSettings::default() };
    let mut ledger = Ledger::default();
    poller.round(&mut ledger);
    ledger.has_told(&[("4:1", &[Raised])]);
}

/// An agent that polls this console beside its EVE files.
fn agent(simulator: &otrelay::simulator::Running, console: &Console, token: &str) -> Agent {
    let agent = Agent::new(simulator);
    let rules = format!(
        r#"
[[source]]
name = "console"
kind = "defender-console"
url = "{}"
token = "{token}"
poll_interval = "5s"
{}"#,
        console.url(),
        crate::support::agent::CRITICAL
    );
    agent.rules(&rules)
}

#[test]
fn alerts_of_a_console_become_incidents_once_even_after_kill() {
    const ALERTS: usize = 3_000;
    let (console, simulator) = (Console::start(true), simulator());
    {
        let mut state = console.state();
        state.sensor(4, "west", "Plant West", "Line 2");
        for alert in 0..ALERTS as i64 {
            state.raise_at(4, NOW - alert * 1_000, NOW);
            // A few of the most severe: each of them is a ticket.
            state.alerts[alert as usize].severity = if alert % 300 == 7 { "Critical" } else { "Minor" };
        }
    }
    let agent = agent(&simulator, &console, TOKEN);
    let source = |agent: &Agent| agent.source("console");
    {
        let service = agent.start();
        until("some alerts are stored", || (source(&agent)["alerts"].as_u64()? > 0).then_some(()));
        service.kill();
    }
    console.state().handle(8);
    agent.once().ends(0);
    let status = source(&agent);
    assert_eq!(
        (status["kind"].as_str(), status["name"].as_str()),
        (Some("defender-console"), Some("console"))
    );
    assert_eq!(status["alerts"], json!(ALERTS + 1), "{status:#}");
    assert_eq!(simulator.records("incident").len(), 10);
    assert!(simulator.twins().is_empty());
    agent.once().ends(0);
    assert_eq!(source(&agent)["alerts"], json!(ALERTS + 1));
    assert_eq!(simulator.records("incident").len(), 10);
}

#[test]
fn a_refused_token_is_a_health_issue_and_is_shown_nowhere() {
    let (console, simulator) = (Console::start(true), simulator());
    let agent = agent(&simulator, &console, "canary-9e1");
    let said = [agent.once(), agent.run(&["status"])];
    assert!(said[1].out.contains("the token is refused (401)"), "{said:#?}");
    assert!(said[1].out.contains("Access tokens"), "{said:#?}");
    assert!(!format!("{said:?}").contains("canary"), "{said:#?}");
}

#[test]
fn fifty_thousand_alerts_fit_into_the_memory_that_is_there() {
    const ALERTS: u64 = 50_000;
    let (console, simulator) = (Console::start(true), simulator());
    {
        let mut state = console.state();
        for alert in 0..ALERTS as i64 {
            state.raise_at(4, NOW - alert * 1_000, NOW);
            state.alerts[alert as usize].severity = "Minor";
        }
    }
    let agent = agent(&simulator, &console, TOKEN);
    let service = agent.start();
    let stored = || (agent.source("console")["alerts"].as_u64()? == ALERTS).then_some(());
    let end = tokio::time::Instant::now() + Duration::from_secs(600);
    while stored().is_none() && tokio::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(300));
    }
    let peak = service.peak_kib();
    assert_eq!(stored(), Some(()), "{:#}", agent.status());
    assert!(peak < 64 * 1_024, "{peak} KiB");
}

/// An agent whose alerts come as the console's syslog has them, with its UUIDs, and that writes back to it.
fn told_by_syslog(simulator: &otrelay::simulator::Running, console: &Console) -> Agent {
    let rules = format!(
        r#"
[[source]]
name = "feed"
kind = "json-lines"
path = "DIR/log/console*.jsonl"
[[source]]
name = "console"
kind = "defender-console"
url = "{}"
token = "{TOKEN}"
poll_interval = "5s"
write_back = "handle"
write_back_for = ["feed"]
{}"#,
        console.url(),
        crate::support::agent::CRITICAL
    );
    let agent = Agent::new(simulator);
    let rules = rules.replace("DIR", agent.dir().to_str().unwrap());
    agent.rules(&rules)
}

fn told(agent: &Agent, numbers: std::ops::Range<u32>, id: impl Fn(u32) -> String) {
    let line = |number: u32| {
        let alert = json!({"id": id(number), "title": format!("Told {number}"), "severity": "critical",
            "time": "2026-05-18T06:00:00Z", "source": {"ip": format!("192.0.2.{number}")}});
        format!("{alert}\n")
    };
    agent.feed_to("console.jsonl", numbers.map(line).collect::<String>());
}

fn close(simulator: &otrelay::simulator::Running, title: &str) {
    let record = simulator
        .records("incident")
        .into_iter()
        .find(|r| r.get("short_description").contains(title))
        .unwrap();
    let fields = [("state", "7"), ("close_code", "User error"), ("close_notes", "-")];
    assert!(simulator.edit("incident", record.get("sys_id"), &fields));
}

#[test]
fn the_console_is_told_once_of_what_people_closed_and_nothing_comes_back() {
    let (console, simulator) = (Console::start(true), simulator());
    let agent = told_by_syslog(&simulator, &console);
    // 5 has the number of the API for an id: the console means something else by it.
    told(&agent, 1..6, |n| if n == 5 { n.to_string() } else { format!("{n}-1557059334000") });
    agent.once().ends(0).says("5 tickets created");
    assert_eq!(console.state().written_back, [""; 0], "nothing is closed");
    for title in ["Told 1", "Told 2", "Told 5"] {
        close(&simulator, title);
    }
    agent.run(&["sync"]).ends(0);
    agent.once().ends(0);
    assert_eq!(console.state().written_back, ["1-1557059334000", "2-1557059334000"]);
    let trouble = agent.source("console")["trouble"].to_string();
    assert!(trouble.contains("1 closed alerts cannot be marked as handled: they carry no UUID"), "{trouble}");
    assert!(trouble.contains("write_back_for"), "{trouble}");
    // The console says so itself, and again nothing is told, there or here.
    for _ in 0..2 {
        agent.once().ends(0);
    }
    assert_eq!(console.state().written_back.len(), 2);
    let notes: Vec<String> =
        simulator.records("incident").iter().flat_map(|r| simulator.journal(r.get("sys_id"))).collect();
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(agent.status()["backlog"], 0);
    // Seen again it is another ticket, and its closing is told once more.
    told(&agent, 1..2, |n| format!("{n}-1557059334000"));
    agent.once().ends(0).says("1 ticket created");
    assert_eq!(console.state().written_back.len(), 2);
}

#[test]
fn a_console_that_refuses_is_said_and_told_again_after_a_restart() {
    let (console, simulator) = (Console::start(true), simulator());
    let agent = told_by_syslog(&simulator, &console);
    told(&agent, 1..2, |n| format!("{n}-1557059334000"));
    agent.once().ends(0);
    close(&simulator, "Told 1");
    agent.run(&["sync"]).ends(0);
    console.state().refuses_handling = u32::MAX;
    agent.run(&["run", "--once"]);
    let trouble = agent.source("console")["trouble"].to_string();
    assert!(trouble.contains("no alert found") && trouble.contains("write_back"), "{trouble}");
    // The answer to the next is lost after the work: once more is as good.
    console.state().refuses_handling = 0;
    console.state().loses_handling = 1;
    agent.run(&["run", "--once"]);
    agent.run(&["run", "--once"]);
    assert_eq!(console.state().written_back, ["1-1557059334000"; 2]);
    agent.once().ends(0);
    assert_eq!((console.state().written_back.len(), agent.source("console")["trouble"].is_null()), (2, true));
}

#[test]
fn wrong_keys_of_writing_back_are_said() {
    let (console, simulator) = (Console::start(true), simulator());
    let agent = told_by_syslog(&simulator, &console);
    let config = std::fs::read_to_string(agent.config_path()).unwrap();
    for (from, to, words) in [
        ("[\"feed\"]", "[\"fed\"]", "there is no source with this name"),
        ("write_back = \"handle\"", "write_back = \"none\"", "nothing is written back"),
        ("write_back = \"handle\"", "write_back = \"handleAndLearn\"", "write_back"),
        ("kind = \"defender-console\"", "kind = \"defender-sensor\"", "write_back"),
    ] {
        std::fs::write(agent.config_path(), config.replace(from, to)).unwrap();
        agent.run(&["check"]).ends(78).says(words);
    }
    // Only for its own alerts, none of which carries what the console takes.
    std::fs::write(agent.config_path(), config.replace("write_back_for = [\"feed\"]\n", "")).unwrap();
    agent.run(&["check"]).ends(0).says("carry no UUID").says("write_back_for = [\"console-syslog\"]");
}
