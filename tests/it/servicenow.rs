//! The destination against the simulator: what fails on the way, and that the ticket is there once whatever fails.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use otrelay::clock::{Clock as _, ManualClock, SharedClock, SystemClock};
use otrelay::destination::{Asked, Destination, Fields, Found, Order, Remote, SendError, Sent, Since};
use otrelay::model::ticket::TicketKeys;
use otrelay::model::{
    Class, DeliveryKind, DestinationName, Fingerprint, Generation, HoldScope, Secret, TableName,
};
use otrelay::net::{Deadlines, TlsSettings};
use otrelay::servicenow::{Auth, Basic, Client, ClientCredentials, Password, ServiceNow, Settings, cmdb};
use otrelay::simulator::{Fault, FaultKind, Options, RateRule, Running, Simulator};

const API: &str = "/api/now/table";

fn client(secret: &str) -> Client {
    Client { id: "otrelay".to_owned(), secret: Secret::new("test", secret) }
}

fn password() -> Auth {
    let own = |text: &str| Secret::new("test", text);
    Auth::Password(Password {
        client: client("otrelay"),
        username: "admin".to_owned(),
        password: own("admin"),
    })
}

pub(crate) async fn start(options: Options) -> Running {
    Simulator::start(options).await.unwrap()
}

fn destination_with(simulator: &Running, auth: Auth, tls: TlsSettings) -> ServiceNow {
    built(settings(simulator, auth, tls), Arc::new(SystemClock))
}

/// The same by another clock.
pub(crate) fn destination_by(simulator: &Running, clock: SharedClock) -> ServiceNow {
    built(settings(simulator, password(), TlsSettings::default()), clock)
}

/// One that devices go to.
pub(crate) fn destination_of_devices(simulator: &Running, devices: cmdb::Settings) -> ServiceNow {
    let settings = settings(simulator, password(), TlsSettings::default());
    built(Settings { devices: Some(devices), ..settings }, Arc::new(SystemClock))
}

fn settings(simulator: &Running, auth: Auth, tls: TlsSettings) -> Settings {
    Settings {
        name: DestinationName::new("prod").unwrap(),
        instance: simulator.url().parse().unwrap(),
        auth,
        proxy: None,
        tls,
        headers: Vec::new(),
        devices: None,
    }
}

fn built(settings: Settings, clock: SharedClock) -> ServiceNow {
    let deadlines = Deadlines { connect: Duration::from_secs(2), whole: Duration::from_secs(2) };
    ServiceNow::with_deadlines(settings, clock, deadlines).unwrap()
}

pub(crate) fn destination(simulator: &Running) -> ServiceNow {
    destination_with(simulator, password(), TlsSettings::default())
}

fn incident() -> TableName {
    TableName::new("incident").unwrap()
}

pub(crate) fn order(number: u8) -> Order {
    let fields = [("short_description", "[major] Stop command"), ("impact", "1"), ("urgency", "2")];
    Order {
        kind: DeliveryKind::OpenTicket,
        table: incident(),
        keys: TicketKeys::derive(
            &Fingerprint::from_bytes([number; 32]),
            &DestinationName::new("prod").unwrap(),
            &incident(),
            Generation(0),
        ),
        fields: fields.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter().collect::<Fields>(),
        attachment: None,
        affected: Vec::new(),
    }
}

async fn find(destination: &ServiceNow, order: &Order) -> Result<Vec<Found>, SendError> {
    let asked = [Asked::record(order.keys.clone(), false)];
    Ok(destination.look_up(order.kind, &order.table, &asked).await?.found)
}

/// As the relay does it: create; whatever is doubtful is looked up before it is created again.
pub(crate) async fn deliver(destination: &ServiceNow, order: &Order) -> Result<Vec<Class>, SendError> {
    let mut classes = Vec::new();
    for _ in 0..5 {
        match destination.send(order).await {
            Ok(_) => return Ok(classes),
            Err(error) if matches!(error.class, Class::Retry | Class::RetryAt) => classes.push(error.class),
            Err(error) => return Err(error),
        }
        if !find(destination, order).await?.is_empty() {
            return Ok(classes);
        }
    }
    panic!("not delivered: {classes:?}");
}

fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind).on("POST", API).times(1)
}

#[tokio::test]
async fn a_ticket_is_created_found_and_not_made_twice() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    let order = order(1);
    assert_eq!(find(&destination, &order).await.unwrap(), vec![]);
    let opened = destination.send(&order).await.unwrap();
    assert_eq!((opened.status, opened.dropped.len()), (201, 0));
    let remote: Remote = opened.remote.unwrap();
    assert_eq!(remote.sys_id, order.keys.sys_id);
    assert!(remote.number.starts_with("INC"), "{remote:?}");

    let found = find(&destination, &order).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].remote, remote);

    // Its sys_id is taken, so it is looked at before it is condemned.
    let again = destination.send(&order).await.unwrap();
    assert_eq!((again.created, again.remote.as_ref()), (false, Some(&remote)));
    let records = simulator.records("incident");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].get("correlation_display"), "otrelay");
    assert!(simulator.ledger().iter().all(|entry| !entry.cookie));

    let closing = [("state", "7"), ("close_code", "Duplicate"), ("close_notes", "done")];
    assert!(simulator.edit("incident", remote.sys_id.as_str(), &closing));
    assert!(!find(&destination, &order).await.unwrap()[0].remote.active);
}

#[tokio::test]
async fn forty_tickets_are_found_with_one_request() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    let orders: Vec<Order> = (0..40).map(order).collect();
    for order in &orders[..39] {
        destination.send(order).await.unwrap();
    }
    let before = destination.requests();
    let asked: Vec<_> = orders.iter().map(|o| Asked::record(o.keys.clone(), false)).collect();
    let found = destination.look_up(DeliveryKind::OpenTicket, &incident(), &asked).await.unwrap();
    assert_eq!((found.found.len(), found.status), (39, Some(200)));
    assert_eq!(destination.requests(), before + 1);
}

#[tokio::test]
async fn every_login_works() {
    let property = ("glide.oauth.inbound.client.credential.grant_type.enabled".to_owned(), "true".to_owned());
    let simulator = start(Options { properties: vec![property], ..Options::default() }).await;
    let secret = |text: &str| Secret::new("test", text);
    let logins = [
        password(),
        Auth::ClientCredentials(ClientCredentials { client: client("otrelay") }),
        Auth::Basic(Basic { username: "admin".to_owned(), password: secret("admin") }),
    ];
    for (number, auth) in (10..).zip(logins) {
        let destination = destination_with(&simulator, auth.clone(), TlsSettings::default());
        assert!(destination.send(&order(number)).await.is_ok(), "{auth:?}");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_holds_and_names_the_causes() {
    let simulator = start(Options::default()).await;
    let wrong = Auth::ClientCredentials(ClientCredentials { client: client("canary-wrong") });
    let error =
        destination_with(&simulator, wrong, TlsSettings::default()).send(&order(1)).await.unwrap_err();
    assert_eq!((error.class, error.hold, error.doubtful), (Class::Hold, HoldScope::Destination, false));
    assert!(
        error.remedy.contains("client_secret") && error.remedy.contains("grant_type.enabled"),
        "{}",
        error.remedy
    );
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn revoked_and_expired_tokens_are_renewed_unseen() {
    let lifetime = Duration::from_secs(1);
    let simulator = start(Options { token_lifetime: lifetime, ..Options::default() }).await;
    let destination = destination(&simulator);
    destination.send(&order(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    destination.send(&order(2)).await.unwrap();
    simulator.revoke_tokens();
    destination.send(&order(3)).await.unwrap();
    simulator.add_fault(Fault::new(FaultKind::RevokeToken).on("POST", API).times(1));
    destination.send(&order(4)).await.unwrap();
    assert_eq!(simulator.records("incident").len(), 4);
    assert!(simulator.twins().is_empty());
}

#[tokio::test]
async fn a_lost_answer_makes_no_twin() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    let faults = [
        FaultKind::CommitDrop,
        FaultKind::CommitAccepted,
        FaultKind::TruncatedJson,
        FaultKind::Accepted,
        FaultKind::DropBefore,
        FaultKind::Delay(Duration::from_secs(3)),
        FaultKind::Status(500),
        FaultKind::Status(503),
    ];
    let count = faults.len();
    for (number, kind) in (1..).zip(faults) {
        let shown = format!("{kind:?}");
        simulator.add_fault(fault(kind));
        let classes = deliver(&destination, &order(number)).await.unwrap();
        assert_eq!(classes, [Class::Retry], "{shown}");
    }
    assert_eq!(simulator.records("incident").len(), count);
    assert!(simulator.twins().is_empty());
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_makes_no_twin() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    for (number, cut) in (0..60).zip((0..).step_by(9)) {
        simulator.add_fault(fault(FaultKind::CommitCut(cut)));
        deliver(&destination, &order(number)).await.unwrap();
    }
    assert_eq!(simulator.records("incident").len(), 60);
    assert!(simulator.twins().is_empty());
}

/// One create under a fault.
async fn under(kind: FaultKind) -> Result<Sent, SendError> {
    let simulator = start(Options::default()).await;
    simulator.add_fault(fault(kind));
    destination(&simulator).send(&order(1)).await
}

#[tokio::test]
async fn pages_in_place_of_answers_hold_the_destination() {
    for (kind, word) in [(FaultKind::Hibernate, "hibernating"), (FaultKind::HtmlLogin, "web page")] {
        let error = under(kind).await.unwrap_err();
        assert_eq!((error.class, error.hold), (Class::Hold, HoldScope::Destination), "{error}");
        assert!(error.message.contains(word) && !error.remedy.is_empty(), "{error}");
    }
}

#[tokio::test]
async fn limits_are_told_with_their_waits() {
    let error = under(FaultKind::RateLimit(90)).await.unwrap_err();
    assert_eq!((error.class, error.wait), (Class::RetryAt, Some(Duration::from_secs(90))));
    let error = under(FaultKind::Semaphore).await.unwrap_err();
    assert_eq!((error.class, error.wait), (Class::RetryAt, None));
}

#[tokio::test]
async fn a_rule_of_the_instance_shows_before_it_bites() {
    let rule = RateRule { limit: 2, window: Duration::from_hours(1) };
    let simulator = start(Options { rate_limit: Some(rule), ..Options::default() }).await;
    let destination = destination(&simulator);
    destination.send(&order(1)).await.unwrap();
    assert_eq!(destination.rate_limit().limit, Some(2));
    assert!(destination.rate_limit().reset_at.is_some());
    let mut last = None;
    for number in 2..5 {
        last = destination.send(&order(number)).await.err();
    }
    let error = last.unwrap();
    assert_eq!(error.class, Class::RetryAt, "{error}");
    assert!(error.wait.is_some_and(|w| w <= Duration::from_hours(1)), "{error:?}");
}

#[tokio::test]
async fn dropped_fields_are_read_off_the_answer() {
    let opened = under(FaultKind::DropField("impact".to_owned())).await.unwrap();
    let dropped: Vec<_> = opened.dropped.iter().map(|d| d.field.as_str()).collect();
    assert_eq!(dropped, ["impact"]);

    // Without its correlation_id no look-up finds it; the derived sys_id still does.
    let simulator = start(Options::default()).await;
    simulator.add_fault(Fault::new(FaultKind::DropField("correlation_id".to_owned())));
    let destination = destination(&simulator);
    let first = destination.send(&order(1)).await.unwrap();
    assert_eq!(first.dropped[0].field, "correlation_id");
    let again = destination.send(&order(1)).await.unwrap();
    assert_eq!((again.created, again.remote), (false, first.remote));
    assert_eq!(simulator.records("incident").len(), 1);
}

#[tokio::test]
async fn tables_that_are_hidden_or_absent_wait_alone() {
    let simulator = start(Options::default()).await;
    simulator.add_fault(Fault::new(FaultKind::HideTable("problem".to_owned())));
    let destination = destination(&simulator);
    for table in ["problem", "x_no_such_table"] {
        let order = Order { table: TableName::new(table).unwrap(), ..order(1) };
        for error in
            [find(&destination, &order).await.unwrap_err(), destination.send(&order).await.unwrap_err()]
        {
            assert_eq!(
                (error.class, error.hold, error.doubtful),
                (Class::Hold, HoldScope::Table, false),
                "{error}"
            );
            assert!(error.message.contains(table) && !error.remedy.is_empty(), "{error}");
        }
    }
    destination.send(&order(1)).await.unwrap();
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_it_is_named() {
    let simulator = start(Options { tls: true, ..Options::default() }).await;
    let error = destination(&simulator).send(&order(1)).await.unwrap_err();
    assert_eq!((error.class, error.doubtful), (Class::Hold, false), "{error}");
    assert!(error.message.contains("not trusted") && error.remedy.contains("tls.ca_file"), "{error}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(simulator.ca_pem().unwrap().as_bytes()).unwrap();
    let tls = TlsSettings { ca_file: Some(file.path().to_path_buf()), ..TlsSettings::default() };
    destination_with(&simulator, password(), tls).send(&order(1)).await.unwrap();
    assert_eq!(simulator.records("incident").len(), 1);
}

#[tokio::test]
async fn an_answer_with_somebody_elses_record_is_no_success() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    simulator.add_fault(fault(FaultKind::Replay));
    let error = destination.send(&order(1)).await.unwrap_err();
    assert_eq!((error.class, error.doubtful, error.status), (Class::Retry, true, Some(201)), "{error}");
    assert_eq!(find(&destination, &order(1)).await.unwrap(), vec![]);
    assert!(destination.send(&order(1)).await.unwrap().created);
}

#[tokio::test]
async fn what_a_table_does_to_our_keys_is_read_off_its_answers() {
    for (fields, sys_id, correlation_id) in [
        (&["sys_id"][..], false, true),
        (&["correlation_id"][..], true, false),
        (&["sys_id", "correlation_id"][..], false, false),
    ] {
        let simulator = start(Options::default()).await;
        for field in fields {
            simulator.add_fault(Fault::new(FaultKind::DropField((*field).to_owned())));
        }
        let kept = destination(&simulator).send(&order(1)).await.unwrap().kept.unwrap();
        assert_eq!((kept.sys_id, kept.correlation_id), (sys_id, correlation_id), "{fields:?}");
    }
}

#[tokio::test]
async fn an_event_told_twice_is_one_alert_there() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    let fields = [("severity", "2"), ("source", "otrelay"), ("node", "10.3.0.17"), ("additional_info", "{}")];
    let fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter().collect::<Fields>();
    let table = TableName::new("em_event").unwrap();
    let order = Order { kind: DeliveryKind::PutEvent, table, fields, ..order(1) };
    simulator.add_fault(Fault::new(FaultKind::CommitDrop).on("POST", "/api/global/em").times(1));
    let error = destination.send(&order).await.unwrap_err();
    assert_eq!((error.class, error.doubtful), (Class::Retry, true), "{error}");
    let sent = destination.send(&order).await.unwrap();
    assert_eq!((sent.created, sent.remote), (true, None));
    assert_eq!((simulator.records("em_event").len(), simulator.records("em_alert").len()), (2, 1));
    assert_eq!(simulator.records("em_alert")[0].get("message_key"), order.keys.correlation_id.as_str());
}

#[tokio::test]
async fn a_ticket_is_resolved_with_a_code_that_the_instance_has() {
    let simulator = Simulator::start(Options::default()).await.unwrap();
    let destination = destination(&simulator);
    let opened = destination.send(&order(1)).await.unwrap().remote.unwrap();
    let fields = |code: &str| {
        let given = [("close_code", code), ("close_notes", "It has ended.")];
        given.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    };
    let resolve = |fields: Fields| Order { kind: DeliveryKind::ResolveTicket, fields, ..order(1) };
    // A code of the operator's is theirs: the instance's refusal is told.
    let error = destination.send(&resolve(fields("No such code"))).await.unwrap_err();
    assert!(error.message.contains("Resolution code"), "{error}");
    // The default is looked up where the instance has another.
    for choice in simulator.records("sys_choice") {
        if choice.get("element") == "close_code" && choice.get("value") == "Solution provided" {
            simulator.delete("sys_choice", choice.get("sys_id"));
        }
    }
    let sent = destination.send(&resolve(fields(""))).await.unwrap();
    assert!(sent.created && sent.remote.unwrap().detail.resolved);
    let record = &simulator.records("incident")[0];
    assert_eq!((record.get("state"), record.get("close_code")), ("6", "Resolved by caller"));
    // What a person closed since is no failure, and neither is what is gone.
    assert!(simulator.edit("incident", opened.sys_id.as_str(), &[("state", "7")]));
    let sent = destination.send(&resolve(fields(""))).await.unwrap();
    assert!(!sent.created && !sent.remote.unwrap().active);
    assert!(simulator.delete("incident", opened.sys_id.as_str()));
    let sent = destination.send(&resolve(fields(""))).await.unwrap();
    assert_eq!((sent.created, sent.remote), (false, None));
}

/// How a connection breaks after the instance did the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaks {
    /// Closed without a byte.
    Closed,
    /// Reset: something of the request was never read.
    Reset,
    /// This side sends no more, and goes on reading.
    HalfClosed,
    /// Nothing comes any more, and nothing ends.
    Blackhole,
    /// The answer comes a byte at a time, for minutes.
    SlowLoris,
}

/// Something between us and the simulator, which breaks the connection of the first create that comes on it.
fn between(to: std::net::SocketAddr, how: Breaks) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let is_left = Arc::new(std::sync::atomic::AtomicBool::new(true));
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let is_left = Arc::clone(&is_left);
            std::thread::spawn(move || pass_on(near, to, how, &is_left));
        }
    });
    address
}

fn pass_on(
    mut near: std::net::TcpStream,
    to: std::net::SocketAddr,
    how: Breaks,
    is_left: &std::sync::atomic::AtomicBool,
) -> Option<()> {
    let mut far = std::net::TcpStream::connect(to).unwrap();
    loop {
        let (head, length) = head(&mut near)?;
        let is_it = head.starts_with(b"POST /api/now/table")
            && is_left.swap(false, std::sync::atomic::Ordering::SeqCst);
        // The last byte of a JSON object is known without being read.
        let unread = usize::from(is_it && how == Breaks::Reset);
        let mut body = exactly(&mut near, length - unread)?;
        body.extend(std::iter::repeat_n(b'}', unread));
        far.write_all(&[head, body].concat()).ok()?;
        let (answer, length) = self::head(&mut far)?;
        let answer = [answer, exactly(&mut far, length)?].concat();
        if !is_it {
            near.write_all(&answer).ok()?;
            continue;
        }
        let wait = || std::thread::sleep(Duration::from_secs(4));
        match how {
            Breaks::Closed | Breaks::Reset => {}
            Breaks::HalfClosed => {
                near.shutdown(std::net::Shutdown::Write).ok()?;
                wait();
            }
            Breaks::Blackhole => wait(),
            Breaks::SlowLoris => {
                for byte in answer {
                    near.write_all(&[byte]).ok()?;
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        return None;
    }
}

/// A head with its empty line, and how long its body is.
fn head(stream: &mut std::net::TcpStream) -> Option<(Vec<u8>, usize)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(exactly(stream, 1)?);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some((head, length.unwrap_or(0)))
}

fn exactly(stream: &mut std::net::TcpStream, count: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count];
    std::io::Read::read_exact(stream, &mut bytes).ok()?;
    Some(bytes)
}

/// F20. The connection is a used one each time: a look-up went over it before.
#[tokio::test]
async fn f20_however_a_connection_breaks_after_the_work_there_is_one_ticket() {
    for how in [Breaks::Closed, Breaks::Reset, Breaks::HalfClosed, Breaks::Blackhole, Breaks::SlowLoris] {
        let simulator = start(Options::default()).await;
        let far = simulator.url().trim_start_matches("http://").parse().unwrap();
        let instance = format!("http://{}", between(far, how)).parse().unwrap();
        let settings = settings(&simulator, password(), TlsSettings::default());
        let destination = built(Settings { instance, ..settings }, Arc::new(SystemClock));
        let order = order(1);
        assert_eq!(find(&destination, &order).await.unwrap(), vec![], "{how:?}");
        let error = destination.send(&order).await.unwrap_err();
        assert_eq!((error.class, error.doubtful), (Class::Retry, true), "{how:?}: {error}");
        assert_eq!(
            find(&destination, &order).await.unwrap().len(),
            1,
            "{how:?}: it is found, and not made again"
        );
        let creates = simulator
            .ledger()
            .iter()
            .filter(|entry| entry.method == "POST" && entry.path.starts_with(API))
            .count();
        assert_eq!((creates, simulator.records("incident").len()), (1, 1), "{how:?}: one request made it");
    }
}

#[tokio::test]
async fn what_is_changed_while_pages_are_read_makes_no_other_be_passed_over() {
    const COUNT: usize = 450;
    let clock = ManualClock::at(SystemClock.now());
    let simulator = start(Options { clock: clock.clone(), ..Options::default() }).await;
    for n in 0..COUNT {
        let key = format!("otrelay-{n}");
        let fields = [("correlation_id", key.as_str()), ("correlation_display", "otrelay")];
        simulator.plant("incident", &fields).unwrap();
    }
    let destination = destination(&simulator);
    let since = Since { at: clock.now().before(Duration::from_mins(2)), behind: None };
    // All of one second, and one of the first page is changed a minute later, when that page was read.
    let first = destination.changed(&incident(), &since).await.unwrap();
    clock.advance(Duration::from_mins(1));
    assert!(simulator.edit("incident", first.records[0].sys_id.as_str(), &[("state", "2")]));
    let mut read = vec![first.records.len()];
    let mut seen: Vec<_> = first.records.into_iter().map(|r| r.sys_id).collect();
    let mut next = first.next;
    while let Some(since) = next {
        let page = destination.changed(&incident(), &since).await.unwrap();
        read.push(page.records.len());
        seen.extend(page.records.into_iter().map(|r| r.sys_id));
        next = page.next;
    }
    assert_eq!(read, [200, 200, 51], "the one that was changed comes once more");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), COUNT);
}
