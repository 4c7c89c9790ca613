//! A Defender for IoT console as `otrelay demo` has it beside it: a few alerts behind a token, and nothing else. The tests
//! have a mock of their own (`tests/it/support/console.rs`), held to the contract; this one only shows that a console is
//! asked like any other source.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::net::listen;
use crate::net::places::Doors;
use crate::net::serve::{Handler, Head, Limits, Reply, serve};

/// What has to be shown to it.
pub const TOKEN: &str = "demo-console-token";
/// 2026-05-18 06:00 UTC in milliseconds: the day of the recording beside it.
const DAY: i64 = 1_779_084_000_000;

/// A console on a free port of this machine.
#[derive(Debug)]
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
}

impl Console {
    /// Takes its port.
    ///
    /// # Errors
    /// There is none.
    pub fn bind() -> std::io::Result<Self> {
        let listener = listen::tcp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it is asked.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let limits = Limits::default();
        serve(self.listener, None, (limits, Doors::new(limits.connections)), Arc::new(Answers), stop).await;
    }
}

struct Answers;

impl Handler for Answers {
    /// Everything is answered by its head.
    fn judge(&self, head: &Head) -> Option<Reply> {
        let known = head.method == "GET" && head.header("authorization") == Some(TOKEN);
        Some(match head.path.as_str() {
            _ if !known => reply(401, &json!({"error": "Unauthorized"})),
            "/external/v2/alerts" => reply(200, &alerts()),
            "/external/v1/appliances" => reply(200, &json!([])),
            _ => reply(404, &json!({"error": "not found"})),
        })
    }

    fn refuse(&self, status: u16) -> Reply {
        reply(status, &json!({"error": "refused"}))
    }

    async fn answer(&self, _: Head, _: Vec<u8>) -> Reply {
        self.refuse(404)
    }
}

fn reply(status: u16, body: &Value) -> Reply {
    let headers = vec![("content-type", "application/json".to_owned())];
    Reply { status, headers, body: body.to_string().into_bytes() }
}

/// As a console writes them; two are of one kind, one is none of the rules'.
fn alerts() -> Value {
    let alert = |id: i64, severity: &str, engine: &str, title: &str, message: &str| {
        json!({
            "id": id, "time": DAY + id * 60_000, "title": title, "severity": severity, "engine": engine,
            "message": message, "handled": false, "sensorId": 4, "sensorName": "sensor-west",
            "siteName": "Plant West", "zoneName": "Line 2", "sourceDevice": id, "destinationDevice": null,
        })
    };
    json!([
        alert(
            1,
            "Critical",
            "Anomaly",
            "PLC Stop Command Was Sent",
            "The source device 10.50.2.20 sent a stop command to 10.50.1.11."
        ),
        alert(
            2,
            "Critical",
            "Malware",
            "Suspicion of Malicious Activity (WannaCry)",
            "Device 10.50.3.7 shows activity of WannaCry."
        ),
        alert(
            3,
            "Major",
            "Protocol Violation",
            "Illegal MODBUS Operation (Exception Raised by Master)",
            "A MODBUS master 10.50.2.20 raised an exception.\nIt talked to 10.50.1.12."
        ),
        alert(
            4,
            "Warning",
            "Operational",
            "Device is Suspected to be Disconnected (Unresponsive)",
            "Device 10.50.1.14 does not answer."
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_who_shows_the_token_and_nobody_else() {
        let console = Console::bind().unwrap();
        let (url, stop) = (console.url(), CancellationToken::new());
        let asked = async {
            let client = crate::net::client(
                &crate::net::TlsSettings { pin: Some([0; 32]), ..Default::default() },
                None,
            )
            .unwrap();
            let ask = |path: &str, token: &str| {
                let request = crate::net::Request {
                    method: crate::net::Method::Get,
                    url: format!("{url}{path}").parse().unwrap(),
                    headers: vec![("authorization", token.to_owned())],
                    body: None,
                    answer_max: 64 * 1024,
                };
                client.send(request)
            };
            let good = ask("/external/v2/alerts", TOKEN).await.unwrap();
            assert_eq!(good.status, 200);
            let alerts: Value = serde_json::from_slice(&good.body).unwrap();
            assert_eq!(alerts.as_array().map(Vec::len), Some(4));
            assert_eq!(ask("/external/v2/alerts", "another").await.unwrap().status, 401);
            assert_eq!(ask("/external/v1/devices", TOKEN).await.unwrap().status, 404);
            stop.cancel();
        };
        tokio::join!(console.run(stop.clone()), asked);
    }
}
