//! A mock Defender for IoT sensor or management console, held to what its documentation says and to nothing of the
//! agent: its own HTTP, its own JSON, a ledger of who asked for what. It can be late, repeat itself, turn its answers
//! round, break off, fail when an answer is too much, forget newer versions of its API, and show a log-in page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

/// The token that is right.
pub(crate) const TOKEN: &str = "1234b734a9244d54ab8d40aedddcabcd";
/// 2025-06-01, in milliseconds: the console's clock begins here.
pub(crate) const NOW: i64 = 1_748_736_000_000;
const HOUR: i64 = 3_600_000;

/// An alert as the console keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) id: i64,
    pub(crate) sensor: i64,
    pub(crate) time: i64,
    pub(crate) title: String,
    pub(crate) severity: &'static str,
    pub(crate) handled: bool,
    /// Not in any answer before this time of the console: it came late from its sensor.
    pub(crate) visible_at: i64,
}

/// A sensor of the console.
#[derive(Clone, Debug)]
pub(crate) struct Sensor {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) zone: String,
    pub(crate) connected: bool,
}

/// How it misbehaves with its next answers, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// This status, with an error in JSON.
    Status(u16),
    /// A log-in page with status 200.
    Page,
    /// To another address.
    Redirect,
    /// The connection is cut after so many bytes of the body.
    Cut(usize),
    /// The answer comes so late.
    Late(Duration),
    /// The answer as it was when this fault was set.
    Stale,
}

/// What it has, and how it behaves.
pub(crate) struct State {
    /// A management console; else a sensor.
    pub(crate) console: bool,
    pub(crate) now: i64,
    pub(crate) token: String,
    pub(crate) alerts: Vec<Alert>,
    pub(crate) sensors: Vec<Sensor>,
    pub(crate) devices: Vec<Value>,
    pub(crate) connections: Vec<Value>,
    pub(crate) cves: Vec<Value>,
    pub(crate) deleted: Vec<i64>,
    /// Versions of the alerts' API that are there.
    pub(crate) versions: Vec<u8>,
    /// The integration API and the list of sensors.
    pub(crate) integration: bool,
    /// Largest page of the integration API, whatever is asked for.
    pub(crate) page_max: usize,
    /// It fails when an answer has more alerts.
    pub(crate) alerts_max: usize,
    /// Every record comes twice.
    pub(crate) repeats: bool,
    /// 0: as kept; else the order of a shuffle.
    pub(crate) order: u64,
    pub(crate) faults: Vec<Fault>,
    stale: Vec<Alert>,
    /// Path and query of every request with the right token, in order.
    pub(crate) asked: Vec<String>,
    /// How many came without it.
    pub(crate) refused: u64,
    /// Alerts that were handled from outside, by UUID.
    pub(crate) written_back: Vec<String>,
    /// So many UUIDs that it is told of it does not know.
    pub(crate) refuses_handling: u32,
    /// So many times it says that it failed, after the work.
    pub(crate) loses_handling: u32,
}

/// A mock at work; it ends when dropped.
pub(crate) struct Console {
    state: Arc<Mutex<State>>,
    url: String,
    ca: Option<String>,
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
}

impl Console {
    /// On loopback without TLS.
    pub(crate) fn start(console: bool) -> Self {
        Self::serve(console, None)
    }

    /// With a certificate of a CA of its own.
    pub(crate) fn start_tls(console: bool) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self::serve(console, Some((Arc::new(config), ca.pem())))
    }

    fn serve(console: bool, tls: Option<(Arc<rustls::ServerConfig>, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::new(console)));
        let stop = Arc::new(AtomicBool::new(false));
        let (config, ca) = tls.unzip();
        let url = match &config {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), state, config) = (stream, Arc::clone(&shared), config.clone()) else {
                    continue;
                };
                std::thread::spawn(move || match config {
                    None => converse(stream, &state),
                    Some(config) => {
                        if let Ok(tls) = rustls::ServerConnection::new(config) {
                            converse(rustls::StreamOwned::new(tls, stream), &state);
                        }
                    }
                });
            }
        });
        Self { state, url, ca, stop, address }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The CA's certificate, with TLS.
    pub(crate) fn ca_pem(&self) -> &str {
        self.ca.as_deref().unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn new(console: bool) -> Self {
        Self {
            console,
            now: NOW,
            token: TOKEN.to_owned(),
            alerts: Vec::new(),
            sensors: Vec::new(),
            devices: Vec::new(),
            connections: Vec::new(),
            cves: Vec::new(),
            deleted: Vec::new(),
            versions: vec![1, 2],
            integration: console,
            page_max: usize::MAX,
            alerts_max: usize::MAX,
            repeats: false,
            order: 0,
            faults: Vec::new(),
            stale: Vec::new(),
            asked: Vec::new(),
            refused: 0,
            written_back: Vec::new(),
            refuses_handling: 0,
            loses_handling: 0,
        }
    }

    /// One more alert of a sensor, now; its id.
    pub(crate) fn raise(&mut self, sensor: i64) -> i64 {
        let id = self.alerts.len() as i64 + 1;
        self.raise_at(sensor, self.now - HOUR / 60 * (id % 7), self.now);
        id
    }

    /// One more alert of a time; it is in answers from `visible_at` on.
    pub(crate) fn raise_at(&mut self, sensor: i64, time: i64, visible_at: i64) {
        let id = self.alerts.len() as i64 + 1;
        let titles =
            ["Address Scan Detected", "Illegal MODBUS Operation (Function Code Zero)", "Controller Stop"];
        self.alerts.push(Alert {
            id,
            sensor,
            time,
            title: titles[id as usize % 3].to_owned(),
            severity: ["Critical", "Major", "Minor", "Warning"][id as usize % 4],
            handled: false,
            visible_at,
        });
    }

    pub(crate) fn handle(&mut self, id: i64) {
        self.alerts[id as usize - 1].handled = true;
    }

    /// Sets how it misbehaves next.
    pub(crate) fn fail(&mut self, faults: &[Fault]) {
        self.faults = faults.to_vec();
        self.stale = self.alerts.clone();
    }

    pub(crate) fn sensor(&mut self, id: i64, name: &str, site: &str, zone: &str) {
        self.sensors.push(Sensor {
            id,
            name: name.to_owned(),
            site: site.to_owned(),
            zone: zone.to_owned(),
            connected: true,
        });
    }

    /// Written by hand: fifty thousand of them should not become trees first.
    fn alert(&self, alert: &Alert, version: u8) -> String {
        let Alert { id, sensor, time, title, severity, handled, .. } = alert;
        let none = if self.console { "0" } else { "null" };
        let address = id % 250 + 1;
        let mut text = format!(
            r#"{{"id":{id},"time":{time},"engine":"Anomaly","severity":"{severity}","title":"{title}","message":"Device 192.0.2.{address} did something\nthat it should not.","sourceDevice":null,"destinationDevice":{none},"additionalInformation":null"#
        );
        if version >= 2 {
            let _ = write!(
                text,
                r#","sourceDeviceAddress":"192.0.2.{address}","destinationDeviceAddress":null,"remediationSteps":["Look at it."]"#
            );
        }
        if self.console {
            let _ = write!(text, r#","handled":{handled},"sensorId":{sensor},"siteId":1,"zoneId":1"#);
            let known = self.sensors.iter().find(|known| known.id == *sensor);
            if let (Some(Sensor { name, site, zone, .. }), true) = (known, version >= 2) {
                let _ = write!(text, r#","sensorName":"{name}","siteName":"{site}","zoneName":"{zone}""#);
            }
        }
        text + "}"
    }
}

type Query = BTreeMap<String, String>;

/// What is answered.
struct Reply {
    status: u16,
    body: String,
    html: bool,
}

fn json_reply(value: &Value) -> Reply {
    Reply { status: 200, body: value.to_string(), html: false }
}

fn error(status: u16, words: &str) -> Reply {
    Reply { status, body: json!({ "error": words }).to_string(), html: false }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, query: &Query, body: &str) -> Reply {
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        match (method, self.console, parts.as_slice()) {
            ("GET", false, ["api", version, "alerts"]) | ("GET", true, ["external", version, "alerts"]) => {
                self.alerts_reply(version, query)
            }
            ("PUT", true, ["external", "v1", "alerts", _]) if self.refuses_handling > 0 => {
                self.refuses_handling -= 1;
                error(500, "no alert found for this UUID")
            }
            ("PUT", true, ["external", "v1", "alerts", uuid]) => {
                if self.loses_handling > 0 {
                    self.loses_handling -= 1;
                    self.faults.insert(0, Fault::Status(500));
                }
                if body.contains("\"handle\"") || body.contains("\"handleAndLearn\"") {
                    self.written_back.push((*uuid).to_owned());
                    json_reply(&json!({"content": "Alert update request finished successfully"}))
                } else {
                    error(500, "Invalid action")
                }
            }
            ("GET", false, ["api", "v1", "devices"]) | ("GET", true, ["external", "v1", "devices"]) => {
                json_reply(&json!(self.devices))
            }
            ("GET", false, ["api", "v1", "devices", "connections"]) => json_reply(&json!(self.connections)),
            ("GET", false, ["api", "v1", "devices", "cves"]) => json_reply(&json!(self.cves)),
            ("GET", true, ["external", "v1", "appliances"]) => json_reply(&self.appliances()),
            ("GET", true, ["external", "v3", "integration", rest @ ..]) if self.integration => {
                self.integration_reply(rest, query)
            }
            _ => error(404, "not found"),
        }
    }

    fn alerts_reply(&self, version: &str, query: &Query) -> Reply {
        let Some(version) =
            version.trim_start_matches('v').parse().ok().filter(|v| self.versions.contains(v))
        else {
            return error(404, "not found");
        };
        let handled = match query.get("state").map(String::as_str) {
            None => None,
            Some("handled") => Some(true),
            Some("unhandled") => Some(false),
            Some(_) => return error(500, "Invalid state"),
        };
        let number = |name: &str| query.get(name).map(|text| text.parse::<i64>());
        let (Ok(from), Ok(to)) = (number("fromTime").transpose(), number("toTime").transpose()) else {
            return error(500, "Invalid time");
        };
        let stale = !self.stale.is_empty() && matches!(self.faults.first(), Some(Fault::Stale));
        let kept = if stale { &self.stale } else { &self.alerts };
        let mut all: Vec<&Alert> = kept
            .iter()
            .filter(|alert| {
                alert.visible_at <= self.now && handled.is_none_or(|handled| alert.handled == handled)
            })
            .filter(|alert| from.is_none_or(|from| alert.time >= from) && to.is_none_or(|to| alert.time < to))
            .collect();
        if all.len() > self.alerts_max {
            return error(500, "Unexpected error occurred");
        }
        if self.repeats {
            all.extend(all.clone());
        }
        if self.order > 0 {
            all.sort_by_key(|alert| (alert.id as u64).wrapping_mul(self.order.wrapping_mul(2) + 1) % 1_009);
        }
        let mut body = String::from("[");
        for (at, alert) in all.iter().enumerate() {
            if at > 0 {
                body.push(',');
            }
            body.push_str(&self.alert(alert, version));
        }
        body.push(']');
        Reply { status: 200, body, html: false }
    }

    fn appliances(&self) -> Value {
        let all = self.sensors.iter().map(|sensor| {
            json!({
                "id": sensor.id, "name": sensor.name, "uid": "x", "interfaceAddress": "https://192.0.2.9/", "version": "22.1",
                "zoneId": 1, "isActivated": true, "isInLearningMode": false,
                "state": {"id": 1, "xsenseId": sensor.id, "sensorLastMessage": self.now - HOUR,
                    "connectionState": {"id": 1, "isConsideredConnected": sensor.connected, "description": "x"}},
            })
        });
        all.collect()
    }

    fn integration_reply(&self, rest: &[&str], query: &Query) -> Reply {
        let page = |key: &str, all: &[Value]| {
            let number =
                |name: &str, default| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
            let size = number("size", 50).min(self.page_max);
            let some: Vec<_> = all.iter().skip(number("page", 0).saturating_mul(size)).take(size).collect();
            json_reply(&json!({"u_count": all.len(), key: some}))
        };
        match rest {
            ["sensors"] => {
                let all = self.sensors.iter().map(|sensor| {
                    let state = if sensor.connected { "SYNCED" } else { "DISCONNECTED" };
                    json!({"u_id": sensor.id, "u_name": sensor.name, "u_interface_address": "192.0.2.9",
                        "u_connection_state": state, "u_version": "22.2.5.7-r-21", "u_zone_id": null})
                });
                json_reply(&all.collect())
            }
            ["devices", _] => page("u_devices", &self.devices),
            ["connections", _] => page("u_connections", &self.connections),
            ["devicecves", _] => page("u_device_cves", &self.cves),
            ["deleteddevices", _] => json_reply(&self.deleted.iter().map(|id| json!({"u_id": id})).collect()),
            _ => error(404, "not found"),
        }
    }
}

/// Requests and answers on one connection, until one side closes it.
fn converse(stream: impl Read + Write, state: &Mutex<State>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        let (reply, fault) = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if request.token.as_deref() == Some(state.token.as_str()) {
                state.asked.push(request.target.clone());
                let (path, query) = split(&request.target);
                let reply = state.answer(&request.method, path, &query, &request.body);
                let fault = (!state.faults.is_empty()).then(|| state.faults.remove(0));
                (reply, fault)
            } else {
                state.refused += 1;
                (error(401, "Unauthorized"), None)
            }
        };
        let now = state.lock().unwrap_or_else(PoisonError::into_inner).now;
        if write(stream.get_mut(), reply, fault, now).is_none() {
            return;
        }
    }
}

struct Asked {
    method: String,
    target: String,
    token: Option<String>,
    body: String,
}

fn read(stream: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut token, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Asked { method, target, token, body: String::from_utf8(body).ok()? })
}

fn split(target: &str) -> (&str, Query) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    (path, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// `None`: the connection is to be closed.
fn write(stream: &mut impl Write, mut reply: Reply, fault: Option<Fault>, now: i64) -> Option<()> {
    let mut location = "";
    let mut cut = usize::MAX;
    match fault {
        Some(Fault::Status(status)) => reply = error(status, "Unexpected error occurred"),
        Some(Fault::Page) => {
            let body = "<!DOCTYPE html><html><body>Log in</body></html>".to_owned();
            reply = Reply { status: 200, body, html: true };
        }
        Some(Fault::Redirect) => {
            reply = Reply { status: 302, body: String::new(), html: true };
            location = "location: https://login.example/\r\n";
        }
        Some(Fault::Cut(bytes)) => cut = bytes,
        Some(Fault::Late(time)) => std::thread::sleep(time),
        Some(Fault::Stale) | None => {}
    }
    let kind = if reply.html { "text/html" } else { "application/json" };
    let seconds = SystemTime::UNIX_EPOCH + Duration::from_millis(now as u64);
    let date = jiff::Timestamp::try_from(seconds).ok()?;
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).ok()?;
    let head = format!(
        "HTTP/1.1 {} X\r\ndate: {date}\r\ncontent-type: {kind}\r\n{location}content-length: {}\r\n\r\n",
        reply.status,
        reply.body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let body = reply.body.as_bytes();
    stream.write_all(&body[..body.len().min(cut)]).ok()?;
    stream.flush().ok()?;
    (cut >= body.len()).then_some(())
}
