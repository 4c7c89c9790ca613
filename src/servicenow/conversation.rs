//! Whole calls against a scripted server: tokens, look-ups, creates, and what failures look like from outside.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Auth, ServiceNow, Settings};
use crate::clock::ManualClock;
use crate::desk::{Desk, Fields, Order, SendError};
use crate::model::ticket::TicketKeys;
use crate::model::{Class, DeskName, Fingerprint, Generation, HoldReason, Secret, TableName, Timestamp};
use crate::net::stub::{Reply, Stub, json, reply};
use crate::net::{Deadlines, TlsSettings};

const SECRET: &str = "canary-secret-71";
const PASSWORD: &str = "canary-password-72 &=+%";
const TOKEN: &str = "canary-token-73";
const REFRESH: &str = "canary-refresh-74";

fn password() -> Auth {
    Auth::Password {
        client_id: "id".to_owned(),
        client_secret: Secret::new("test", SECRET),
        username: "relay".to_owned(),
        password: Secret::new("test", PASSWORD),
    }
}

fn client_credentials() -> Auth {
    Auth::ClientCredentials { client_id: "id".to_owned(), client_secret: Secret::new("test", SECRET) }
}

fn basic() -> Auth {
    Auth::Basic { username: "relay".to_owned(), password: Secret::new("test", PASSWORD) }
}

fn desk(stub: &Stub, auth: Auth) -> ServiceNow {
    let settings = Settings {
        name: DeskName::new("prod").unwrap(),
        instance: stub.url.clone(),
        auth,
        proxy: None,
        tls: TlsSettings::default(),
    };
    let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
    let deadlines = Deadlines { connect: Duration::from_secs(2), whole: Duration::from_secs(2) };
    ServiceNow::with_deadlines(settings, clock, deadlines).unwrap()
}

fn table() -> TableName {
    TableName::new("incident").unwrap()
}

fn keys(n: u32) -> TicketKeys {
    TicketKeys::derive(
        &Fingerprint::from_bytes([1; 32]),
        &DeskName::new("prod").unwrap(),
        &table(),
        Generation(n),
    )
}

fn order() -> Order {
    let fields = Fields::from([
        ("short_description".to_owned(), "Stop command".to_owned()),
        ("impact".to_owned(), "1".to_owned()),
    ]);
    Order { table: table(), keys: keys(0), fields }
}

fn token() -> Reply {
    let body =
        json!({"access_token": TOKEN, "refresh_token": REFRESH, "token_type": "Bearer", "expires_in": 1799});
    json(200, &body.to_string())
}

fn is_token_request(request: &str) -> bool {
    request.starts_with("POST /oauth_token.do ")
}

/// A token for each token request, and `answer` for the rest.
fn with_token(mut answer: impl FnMut(&str) -> Reply + Send + 'static) -> Stub {
    Stub::start(move |_, request| if is_token_request(request) { token() } else { answer(request) })
}

/// What the instance answers to a create: the record as sent, with a number and a state.
fn echo(request: &str) -> serde_json::Value {
    let body = request.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let mut record: serde_json::Value = serde_json::from_str(body).unwrap();
    record["number"] = json!("INC0010042");
    record["state"] = json!("1");
    record
}

fn created(record: &serde_json::Value) -> Reply {
    json(201, &json!({ "result": record }).to_string())
}

async fn find(desk: &ServiceNow, n: u32) -> Result<Vec<crate::desk::Found>, SendError> {
    let ids: Vec<_> = (0..n).map(|i| keys(i).correlation_id).collect();
    desk.find(&table(), &ids).await
}

#[tokio::test]
async fn a_ticket_is_looked_up_and_created_with_one_token() {
    let stub = with_token(|request| {
        if request.starts_with("GET ") { json(200, r#"{"result":[]}"#) } else { created(&echo(request)) }
    });
    let desk = desk(&stub, password());
    assert_eq!(find(&desk, 1).await.unwrap(), vec![]);
    let opened = desk.open(&order()).await.unwrap();
    assert_eq!(opened.sys_id, keys(0).sys_id);
    assert_eq!((opened.number.as_str(), opened.state.as_str()), ("INC0010042", "1"));
    assert_eq!(opened.dropped, vec![]);
    assert_eq!(desk.requests(), 3);

    let seen = stub.seen();
    assert!(seen[0].contains("content-type: application/x-www-form-urlencoded"), "{}", seen[0]);
    assert!(
        seen[0].ends_with(
            "grant_type=password&client_id=id&client_secret=canary-secret-71&username=relay\
             &password=canary-password-72+%26%3D%2B%25"
        ),
        "{}",
        seen[0]
    );
    let look_up = format!(
        "GET /api/now/table/incident?sysparm_query=correlation_idIN{}%5EORDERBYsys_created_on%5EORDERBYsys_id\
         &sysparm_fields=sys_id%2Cnumber%2Cstate%2Cactive%2Ccorrelation_id%2Csys_created_on\
         &sysparm_display_value=false&sysparm_exclude_reference_link=true&sysparm_limit=12&sysparm_offset=0 HTTP/1.1",
        keys(0).correlation_id
    );
    assert!(seen[1].starts_with(&look_up), "{}", seen[1]);
    assert!(seen[1].contains("authorization: Bearer canary-token-73"));
    let sent = echo(&seen[2]);
    assert_eq!(sent["correlation_id"], keys(0).correlation_id.as_str());
    assert_eq!(sent["correlation_display"], "otrelay");
    assert_eq!(sent["sys_id"], keys(0).sys_id.as_str());
    assert_eq!(sent["short_description"], "Stop command");
}
