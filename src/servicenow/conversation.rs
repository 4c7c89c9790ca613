//! Whole calls against a scripted server: tokens, look-ups, creates, and what failures look like from outside.

mod beside;

use std::time::Duration;

use serde_json::json;

use super::{Auth, ServiceNow, Settings};
use crate::clock::{ManualClock, SharedClock};
use crate::destination::{Asked, Destination, Fields, Order, SendError, Sent, Since};
use crate::model::ticket::TicketKeys;
use crate::model::{
    Class, DeliveryKind, DestinationName, Fingerprint, Generation, HoldScope, Secret, TableName, Timestamp,
};
use crate::net::stub::{Reply, Stub, json, reply};
use crate::net::{Deadlines, TlsSettings};

const SECRET: &str = "canary-secret-71";
const PASSWORD: &str = "canary-password-72 &=+%";
const TOKEN: &str = "canary-token-73";
const REFRESH: &str = "canary-refresh-74";

fn client() -> super::Client {
    super::Client { id: "id".to_owned(), secret: Secret::new("test", SECRET) }
}

fn password() -> Auth {
    Auth::Password(super::Password {
        client: client(),
        username: "relay".to_owned(),
        password: Secret::new("test", PASSWORD),
    })
}

fn client_credentials() -> Auth {
    Auth::ClientCredentials(super::ClientCredentials { client: client() })
}

fn basic() -> Auth {
    Auth::Basic(super::Basic { username: "relay".to_owned(), password: Secret::new("test", PASSWORD) })
}

fn destination(stub: &Stub, auth: Auth) -> ServiceNow {
    destination_at(stub.url.clone(), auth)
}

fn destination_at(instance: url::Url, auth: Auth) -> ServiceNow {
    destination_with(instance, auth, Vec::new())
}

fn destination_with(instance: url::Url, auth: Auth, headers: Vec<(String, Secret)>) -> ServiceNow {
    destination_by(instance, auth, headers, ManualClock::at(Timestamp::from_secs(1_795_248_900)))
}

fn destination_by(
    instance: url::Url,
    auth: Auth,
    headers: Vec<(String, Secret)>,
    clock: SharedClock,
) -> ServiceNow {
    let settings = Settings {
        name: DestinationName::new("prod").unwrap(),
        instance,
        auth,
        proxy: None,
        tls: TlsSettings::default(),
        headers,
        devices: None,
    };
    let deadlines = Deadlines { connect: Duration::from_secs(2), whole: Duration::from_secs(2) };
    ServiceNow::with_deadlines(settings, clock, deadlines).unwrap()
}

fn table() -> TableName {
    TableName::new("incident").unwrap()
}

fn keys(n: u32) -> TicketKeys {
    TicketKeys::derive(
        &Fingerprint::from_bytes([1; 32]),
        &DestinationName::new("prod").unwrap(),
        &table(),
        Generation(n),
    )
}

fn order() -> Order {
    let fields = Fields::from([
        ("short_description".to_owned(), "Stop command".to_owned()),
        ("impact".to_owned(), "1".to_owned()),
    ]);
    Order {
        kind: DeliveryKind::OpenTicket,
        table: table(),
        keys: keys(0),
        fields,
        attachment: None,
        affected: Vec::new(),
    }
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

async fn find(destination: &ServiceNow, n: u32) -> Result<Vec<crate::destination::Found>, SendError> {
    let asked: Vec<_> = (0..n).map(|i| Asked::record(keys(i), false)).collect();
    Ok(destination.look_up(DeliveryKind::OpenTicket, &table(), &asked).await?.found)
}

#[tokio::test]
async fn a_ticket_is_looked_up_and_created_with_one_token() {
    let stub = with_token(|request| {
        if request.starts_with("GET ") { json(200, r#"{"result":[]}"#) } else { created(&echo(request)) }
    });
    let destination = destination(&stub, password());
    assert_eq!(find(&destination, 1).await.unwrap(), vec![]);
    let opened = destination.send(&order()).await.unwrap();
    let remote = opened.remote.unwrap();
    assert_eq!(remote.sys_id, keys(0).sys_id);
    assert_eq!((remote.number.as_str(), remote.state.as_str()), ("INC0010042", "1"));
    assert_eq!(opened.dropped, vec![]);
    assert_eq!(destination.requests(), 3);

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
         &sysparm_fields=sys_id%2Cnumber%2Cstate%2Cactive%2Ccorrelation_id%2Csys_created_on%2Csys_created_by%2Ccorrelation_display%2Csys_mod_count\
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

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_call_repeated() {
    // The first token is refused; the refresh gives another one.
    let stub = Stub::start(|_, request| {
        if request.contains("grant_type=refresh_token") {
            assert!(request.contains("refresh_token=canary-refresh-74"));
            return json(200, r#"{"access_token":"second","expires_in":1799}"#);
        }
        if is_token_request(request) {
            return token();
        }
        if request.contains("Bearer second") { created(&echo(request)) } else { unauthenticated() }
    });
    let destination = destination(&stub, password());
    assert_eq!(destination.send(&order()).await.unwrap().remote.unwrap().number, "INC0010042");
    assert_eq!(kinds(&stub), ["password", "call", "refresh_token", "call"]);
    // The refresh token was not echoed, so the old one stays good for the next time.
    destination.send(&order()).await.unwrap();
    assert_eq!(destination.requests(), 5);
}

#[tokio::test]
async fn a_dead_refresh_token_leads_to_one_new_password_grant() {
    let mut grants = 0;
    let stub = Stub::start(move |_, request| {
        if request.contains("grant_type=refresh_token") {
            return denied();
        }
        if is_token_request(request) {
            grants += 1;
            return json(
                200,
                &format!(r#"{{"access_token":"t{grants}","refresh_token":"r","expires_in":"1799"}}"#),
            );
        }
        if request.contains("Bearer t2") { created(&echo(request)) } else { unauthenticated() }
    });
    let destination = destination(&stub, password());
    destination.send(&order()).await.unwrap();
    assert_eq!(kinds(&stub), ["password", "call", "refresh_token", "password", "call"]);
}

/// An instance that takes each refresh token once: one that could not be written is written at the next renewal.
#[tokio::test]
async fn a_refresh_token_that_cannot_be_written_is_used_told_and_written_later() {
    let (mut used, mut given) = (Vec::new(), 0);
    let stub = Stub::start(move |_, request| {
        if !is_token_request(request) {
            return json(200, r#"{"result":[]}"#);
        }
        let token = request.split_once("refresh_token=").unwrap().1.to_owned();
        if used.contains(&token) || given == 3 {
            return json(401, r#"{"error":"server_error","error_description":"access_denied"}"#);
        }
        used.push(token);
        given += 1;
        // The access token is over at once, so that each call renews.
        let body =
            json!({"access_token": TOKEN, "refresh_token": format!("canary-next-{given}"), "expires_in": 0});
        json(200, &body.to_string())
    });
    let dir = tempfile::tempdir().unwrap();
    // The directory of the file is a link that leads nowhere yet: nothing can be written there, whoever runs this.
    let (link, real) = (dir.path().join("link"), dir.path().join("real"));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let kept = link.join("login-prod.json");
    let given = Some(Secret::new("test", "canary-first"));
    let auth = Auth::RefreshToken(super::RefreshToken { client: client(), token: given, kept: kept.clone() });
    let destination = destination(&stub, auth);

    for _ in 0..2 {
        find(&destination, 1).await.unwrap();
        let told = destination.concern().unwrap();
        assert!(told.text.contains("its next start may be refused"), "{told:?}");
        assert!(!format!("{told:?}").contains("canary"), "{told:?}");
    }
    std::fs::create_dir(&real).unwrap();
    find(&destination, 1).await.unwrap();
    assert_eq!(destination.concern(), None);
    assert!(std::fs::read_to_string(&kept).unwrap().contains("canary-next-3"));
    // A verdict on it ends its use; nothing of it stays in memory.
    find(&destination, 1).await.unwrap_err();
    assert_eq!(destination.concern(), None);
}

#[tokio::test]
async fn a_call_that_is_refused_twice_holds_the_destination() {
    let stub = with_token(|_| unauthenticated());
    let destination = destination(&stub, client_credentials());
    let error = destination.send(&order()).await.unwrap_err();
    assert_eq!((error.class, error.hold, error.doubtful), (Class::Hold, HoldScope::Destination, false));
    assert!(error.remedy.contains("Broadly scoped"), "{}", error.remedy);
    assert_eq!(kinds(&stub), ["client_credentials", "call", "client_credentials", "call"]);
}

#[tokio::test]
async fn basic_sends_the_pair_and_names_the_gate() {
    let stub = Stub::start(|_, request| {
        // relay:canary-password-72 &=+%
        assert!(
            request.contains("authorization: Basic cmVsYXk6Y2FuYXJ5LXBhc3N3b3JkLTcyICY9KyU="),
            "{request}"
        );
        unauthenticated()
    });
    let error = find(&destination(&stub, basic()), 1).await.unwrap_err();
    assert_eq!((error.class, error.status), (Class::Hold, Some(401)));
    assert!(error.remedy.contains("Web service access only"), "{}", error.remedy);
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn refusals_of_the_token_endpoint_name_all_causes() {
    async fn check(auth: Auth, reply: fn() -> Reply, class: Class, words: &[&str]) {
        let stub = Stub::start(move |_, _| reply());
        let destination = destination(&stub, auth);
        let error = destination.send(&order()).await.unwrap_err();
        let text = format!("{error}; {}", error.remedy);
        assert_eq!((error.class, error.doubtful), (class, false), "{text}");
        for word in words {
            assert!(text.contains(word), "expected `{word}` in: {text}");
        }
        assert!(!text.contains("wrong password"));
        assert!(error.message.starts_with("could not get a token from http://127.0.0.1:"), "{error}");
        assert_eq!(stub.seen().len(), 1, "a refusal is not hammered");
    }
    let ropc =
        ["server_error, access_denied", "locked out", "ropc.grant_type.disabled", "client_secret", "clone"];
    check(password(), denied, Class::Hold, &ropc).await;
    let cc = ["client.credential.grant_type.enabled", "OAuth Application User", "system log"];
    check(client_credentials(), denied, Class::Hold, &cc).await;
    let hibernating =
        || reply(200, &[("Content-Type", "text/html")], "<title>Instance Hibernating page</title>");
    check(password(), hibernating, Class::Hold, &["hibernating"]).await;
    check(password(), || json(200, "{}"), Class::Hold, &["without a usable access token"]).await;
    check(password(), || json(200, r#"{"access_token":"a\nb"}"#), Class::Hold, &["usable access token"])
        .await;
    check(password(), || json(200, r#"{"access_token":7}"#), Class::Hold, &["not that of a token endpoint"])
        .await;
    check(password(), || json(200, r#"{"error":"invalid_grant"}"#), Class::Hold, &["error in place"]).await;
    check(password(), || json(400, r#"{"error":"invalid_client"}"#), Class::Hold, &["invalid_client"]).await;
    check(password(), || json(200, r#"{"access_"#), Class::Retry, &["cut or damaged"]).await;
    check(password(), || reply(503, &[], ""), Class::Retry, &["503"]).await;
    check(password(), || reply(302, &[("Location", "/x")], ""), Class::Hold, &["redirects are not followed"])
        .await;
    check(password(), || reply(429, &[("Retry-After", "7")], ""), Class::RetryAt, &["429"]).await;
    check(password(), || Reply::Bytes(Vec::new()), Class::Retry, &["broke before its answer"]).await;
}

#[tokio::test]
async fn callers_share_one_grant_and_one_refusal() {
    let slow = |body: &'static str, status| {
        Stub::start(move |_, request| {
            if is_token_request(request) {
                std::thread::sleep(Duration::from_millis(200));
                return json(status, body);
            }
            json(200, r#"{"result":[]}"#)
        })
    };
    let stub = slow(r#"{"access_token":"t","expires_in":1799}"#, 200);
    let destination_ok = destination(&stub, password());
    let (a, b, c) =
        tokio::join!(find(&destination_ok, 1), find(&destination_ok, 1), find(&destination_ok, 1));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(kinds(&stub), ["password", "call", "call", "call"]);

    let stub = slow(r#"{"error":"server_error","error_description":"access_denied"}"#, 401);
    let destination_bad = destination(&stub, password());
    let (a, b, c) =
        tokio::join!(find(&destination_bad, 1), find(&destination_bad, 1), find(&destination_bad, 1));
    assert!(a.is_err() && b.is_err() && c.is_err());
    assert_eq!(kinds(&stub), ["password"]);
    // Who asks again soon hears the same; nothing is sent.
    assert!(find(&destination_bad, 1).await.is_err());
    assert_eq!(kinds(&stub), ["password"]);
}

#[tokio::test]
async fn a_token_at_its_end_is_renewed_before_the_call() {
    let stub = Stub::start(|_, request| {
        if is_token_request(request) {
            return json(200, r#"{"access_token":"t","expires_in":0}"#);
        }
        json(200, r#"{"result":[]}"#)
    });
    let destination = destination(&stub, client_credentials());
    find(&destination, 1).await.unwrap();
    find(&destination, 1).await.unwrap();
    assert_eq!(kinds(&stub), ["client_credentials", "call", "client_credentials", "call"]);
}

fn row(n: u32, sys_id: char, active: &str, created: &str) -> serde_json::Value {
    json!({
        "correlation_id": keys(n).correlation_id.as_str(), "sys_id": sys_id.to_string().repeat(32),
        "number": format!("INC{sys_id}"), "active": active, "state": "2", "sys_created_on": created,
    })
}

/// One look-up of ids 0, 1 and 2 in a table with these rows: what was found, as `id number active`.
async fn look_up(rows: serde_json::Value) -> Result<Vec<String>, SendError> {
    let body = json!({ "result": rows }).to_string();
    let stub = with_token(move |_| json(200, &body));
    let found = find(&destination(&stub, password()), 3).await?;
    let ids: Vec<_> = (0..3).map(|i| keys(i).correlation_id).collect();
    let number = |id| ids.iter().position(|i| i == id).unwrap();
    let mut lines: Vec<_> = found
        .iter()
        .map(|f| format!("{} {} {}", number(&f.correlation_id), f.remote.number, f.remote.active))
        .collect();
    lines.sort();
    Ok(lines)
}

#[tokio::test]
async fn of_twins_the_oldest_active_one_counts() {
    let rows = json!([
        row(0, 'a', "false", "2026-01-01 00:00:00"),
        row(0, 'b', "true", "2026-01-03 00:00:00"),
        row(0, 'c', "true", "2026-01-02 00:00:00"),
        row(2, 'd', "false", "2026-01-01 00:00:00"),
    ]);
    assert_eq!(look_up(rows).await.unwrap(), ["0 INCc true", "2 INCd false"]);
    let mut bare = row(1, 'e', "", "");
    bare.as_object_mut().unwrap().remove("active");
    assert_eq!(look_up(json!([bare])).await.unwrap(), ["1 INCe true"]);
}

#[tokio::test]
async fn strangers_in_a_look_up_hold_the_table() {
    let stranger =
        json!({"sys_id": "f".repeat(32), "correlation_id": "", "number": "INC1", "active": "true"});
    let hidden = json!({"sys_id": "f".repeat(32), "number": "INC1", "active": "true"});
    for rows in [json!([stranger]), json!([hidden]), json!([row(0, 'a', "true", ""), stranger])] {
        let error = look_up(rows).await.unwrap_err();
        assert_eq!((error.class, error.hold, error.doubtful), (Class::Hold, HoldScope::Table, false));
        assert!(error.message.contains("the instance ignored our look-up"), "{error}");
        assert!(error.remedy.contains("right to read the field correlation_id"), "{}", error.remedy);
    }
    // All that was asked for is there, so nothing can be doubled.
    let all = json!([row(0, 'a', "true", ""), row(1, 'b', "true", ""), row(2, 'c', "true", ""), stranger]);
    assert_eq!(look_up(all).await.unwrap().len(), 3);
}

#[tokio::test]
async fn damaged_look_ups_are_no_look_ups() {
    for rows in [json!({}), json!("x"), json!(null)] {
        assert_eq!(look_up(rows).await.unwrap_err().class, Class::Retry);
    }
    let mut bad = row(0, 'a', "true", "");
    bad["sys_id"] = json!("../../x");
    assert_eq!(look_up(json!([bad])).await.unwrap_err().class, Class::Retry);
    let stub = with_token(|_| json(200, "{}"));
    assert_eq!(find(&destination(&stub, password()), 41).await.unwrap_err().class, Class::Hold);
    assert_eq!(find(&destination(&stub, password()), 0).await.unwrap(), vec![]);
    assert_eq!(stub.seen().len(), 0);
}

#[tokio::test]
async fn a_look_up_reads_on_while_there_is_more() {
    let stub = with_token(|request| {
        let first = request.contains("sysparm_offset=0 ");
        let rows = if first { json!([row(0, 'a', "true", "")]) } else { json!([row(1, 'b', "true", "")]) };
        let headers = [("Content-Type", "application/json"), ("X-Total-Count", "15")];
        reply(200, &headers, &json!({ "result": rows }).to_string())
    });
    assert_eq!(find(&destination(&stub, password()), 2).await.unwrap().len(), 2);
    assert_eq!(kinds(&stub), ["password", "call", "call"]);
}

#[tokio::test]
async fn what_was_dropped_is_reported() {
    let stub = with_token(|request| {
        let mut record = echo(request);
        record["impact"] = json!("3");
        record["correlation_id"] = json!("");
        record["sys_id"] = json!("e".repeat(32));
        created(&record)
    });
    let opened = destination(&stub, password()).send(&order()).await.unwrap();
    let dropped: Vec<_> = opened.dropped.iter().map(|d| (d.field.as_str(), d.got.as_str())).collect();
    assert_eq!(dropped, [("correlation_id", ""), ("impact", "3")]);
    assert_eq!(opened.remote.unwrap().sys_id.as_str(), "e".repeat(32));
    assert!(opened.kept.unwrap().neither());
}

/// A create that is refused with these words, while the record with our `sys_id` carries this `correlation_id`; `None`:
/// there is no such record.
async fn taken(
    detail: &'static str,
    correlation_id: Option<String>,
    active: bool,
) -> Result<Sent, SendError> {
    let stub = with_token(move |request| {
        if request.starts_with("POST ") {
            let words = json!({"message": "Operation Failed", "detail": detail});
            return json(403, &json!({"error": words, "status": "failure"}).to_string());
        }
        assert!(request.starts_with(&format!("GET /api/now/table/incident/{}?", keys(0).sys_id)));
        let Some(correlation_id) = &correlation_id else {
            let words = json!({"message": "No Record found", "detail": "Record doesn't exist or ACL restricts the record retrieval"});
            return json(404, &json!({"error": words, "status": "failure"}).to_string());
        };
        let record = json!({"sys_id": keys(0).sys_id.as_str(), "number": "INC7", "state": "2",
            "active": active.to_string(), "correlation_id": correlation_id});
        json(200, &json!({ "result": record }).to_string())
    });
    destination(&stub, password()).send(&order()).await
}

#[tokio::test]
async fn a_taken_sys_id_is_ours_by_whatever_words_it_is_told() {
    for words in [
        "Unique Key violation detected by database",
        "Error during insert of incident (INC0010042)",
        "ACL Exception Insert Failed due to security constraints",
    ] {
        for key in [String::new(), keys(0).correlation_id.to_string()] {
            let sent = taken(words, Some(key.clone()), true).await.unwrap();
            assert_eq!((sent.created, sent.status, sent.dropped.is_empty()), (false, 200, !key.is_empty()));
            assert_eq!(sent.remote.unwrap().number, "INC7");
        }
        let sent = taken(words, Some(String::new()), false).await.unwrap();
        assert!(!sent.remote.unwrap().active, "closed there");
        assert!(taken(words, Some("PRTG-17".to_owned()), true).await.is_err(), "somebody else's");
    }
    let error = taken("Error during insert of incident (INC0010042)", None, true).await.unwrap_err();
    assert_eq!((error.class, error.doubtful), (Class::Reject, false), "{error}");
}

#[tokio::test]
async fn a_created_record_of_somebody_else_is_doubtful() {
    for foreign in ["otrelay-00000000000000000000000000000000", ""] {
        let stub = with_token(move |request| {
            let mut record = echo(request);
            record["sys_id"] = json!("e".repeat(32));
            record["correlation_id"] = json!(foreign);
            record["short_description"] = json!("Printer on fire");
            created(&record)
        });
        let error = destination(&stub, password()).send(&order()).await.unwrap_err();
        assert_eq!((error.class, error.doubtful, error.status), (Class::Retry, true, Some(201)));
        assert!(error.message.contains("another record (INC0010042)"), "{error}");
    }
}

#[tokio::test]
async fn what_is_doubtful_is_asked_for_by_its_sys_id_too() {
    let stub = with_token(|request| {
        if request.contains("sysparm_query=") {
            return json(200, r#"{"result":[]}"#);
        }
        json(
            200,
            &json!({ "result": row(0, 'a', "true", "") })
                .to_string()
                .replace(&"a".repeat(32), keys(0).sys_id.as_str()),
        )
    });
    let asked = [Asked::record(keys(0), true)];
    let destination = destination(&stub, password());
    let found = destination.look_up(DeliveryKind::OpenTicket, &table(), &asked).await.unwrap().found;
    assert_eq!((found.len(), &found[0].remote.sys_id), (1, &keys(0).sys_id));
    let asked = [Asked::record(keys(1), false)];
    let found = destination.look_up(DeliveryKind::OpenTicket, &table(), &asked).await.unwrap();
    assert_eq!((found.found.len(), found.status), (0, Some(200)));
}

#[tokio::test]
async fn no_record_found_to_a_look_up_is_none() {
    let stub = with_token(|_| {
        let words = json!({"message": "No Record found", "detail": null});
        json(404, &json!({"error": words, "status": "failure"}).to_string())
    });
    assert_eq!(find(&destination(&stub, basic()), 2).await.unwrap(), vec![]);
}

#[tokio::test]
async fn a_look_up_that_is_too_long_is_made_shorter_and_stays_so() {
    let stub = with_token(|request| {
        let asked = request.split("correlation_idIN").nth(1).unwrap().split("%5E").next().unwrap();
        if asked.split("%2C").count() > 10 { reply(414, &[], "") } else { json(200, r#"{"result":[]}"#) }
    });
    let destination = destination(&stub, basic());
    assert_eq!(find(&destination, 40).await.unwrap(), vec![]);
    assert_eq!(stub.seen().len(), 2 + 4);
    find(&destination, 40).await.unwrap();
    assert_eq!(stub.seen().len(), 2 + 4 + 4);
}

#[tokio::test]
async fn a_record_that_is_too_large_is_made_smaller() {
    let stub = with_token(|request| {
        let body = request.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        if body > 1_500 { reply(413, &[], "") } else { created(&echo(request)) }
    });
    let fields = Fields::from([("description".to_owned(), "x".repeat(4_000))]);
    let sent = destination(&stub, basic()).send(&Order { fields, ..order() }).await.unwrap();
    assert!(sent.created && sent.dropped.is_empty(), "{sent:?}");
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn an_event_goes_to_its_own_address_with_its_key() {
    let stub = with_token(|_| json(200, r#"{"result":{"Default Bulk Endpoint":"1 events were inserted"}}"#));
    let fields = Fields::from([("severity".to_owned(), "2".to_owned())]);
    let order = Order { kind: DeliveryKind::PutEvent, fields, ..order() };
    let sent = destination(&stub, basic()).send(&order).await.unwrap();
    assert_eq!((sent.created, sent.remote, sent.status), (true, None, 200));
    let seen = &stub.seen()[0];
    assert!(seen.starts_with("POST /api/global/em/jsonv2 HTTP/1.1"), "{seen}");
    let body: serde_json::Value = serde_json::from_str(seen.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["records"][0]["message_key"], json!(keys(0).correlation_id.as_str()));
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_never_ends_is_doubtful() {
    async fn check(answer: fn(&str) -> Reply, words: &str) {
        let stub = with_token(answer);
        let error = destination(&stub, password()).send(&order()).await.unwrap_err();
        assert_eq!((error.class, error.doubtful), (Class::Retry, true), "{error}");
        assert!(error.message.contains(words), "expected `{words}` in: {error}");
    }
    check(|_| Reply::Bytes(Vec::new()), "broke before its answer").await;
    check(|_| Reply::Bytes(b"HTTP/1.1 201 Created\r\nContent-Le".to_vec()), "broke before its answer").await;
    let cut =
        |_: &str| Reply::Bytes(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"result\":".to_vec());
    check(cut, "broke before its answer").await;
    check(|_| Reply::Hang(Duration::from_secs(3)), "no complete answer").await;
    let drip = |_: &str| {
        Reply::Drip(
            b"HTTP/1.1 201 Created\r\nContent-Length: 9000\r\n\r\n".to_vec(),
            Duration::from_millis(60),
        )
    };
    check(drip, "no complete answer").await;
    check(
        |_| Reply::Bytes(b"HTTP/1.1 201 Created\r\nContent-Length: 50000000\r\n\r\n".to_vec()),
        "longer than",
    )
    .await;
    let endless = |_: &str| {
        let head = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n\r\n".to_vec();
        Reply::Bytes([head, vec![b' '; 3_000_000]].concat())
    };
    check(endless, "longer than").await;
    let latin = |_: &str| {
        let head = b"HTTP/1.1 201 X\r\nContent-Type: application/json\r\n\r\n".to_vec();
        Reply::Bytes([head, b"{\"result\":{\"x\":\"\xe9\"}}".to_vec()].concat())
    };
    check(latin, "cut or damaged").await;
    check(|_| Reply::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), "broke before its answer").await;
}

#[tokio::test]
async fn a_closed_port_is_not_doubtful_and_a_redirect_is_not_followed() {
    let stub = with_token(|_| reply(302, &[("Location", "http://127.0.0.1:9/login?canary")], ""));
    let error = destination(&stub, password()).send(&order()).await.unwrap_err();
    assert_eq!((error.class, error.doubtful), (Class::Hold, false));
    assert!(error.message.contains("sends us on to 127.0.0.1"), "{error}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = destination_at(format!("http://{closed}").parse().unwrap(), basic())
        .send(&order())
        .await
        .unwrap_err();
    assert_eq!((error.class, error.doubtful), (Class::Retry, false));
    assert!(error.message.contains("connection refused"), "{error}");
}

#[tokio::test]
async fn the_last_word_on_the_limit_is_kept() {
    let stub = with_token(|_| {
        let limit = [
            ("Content-Type", "application/json"),
            ("X-RateLimit-Limit", "100"),
            ("X-RateLimit-Reset", "1795252500"),
            ("Retry-After", "120"),
        ];
        reply(
            429,
            &limit,
            r#"{"error":{"message":"Rate limit exceeded","detail":"Rate limit of 100"},"status":"failure"}"#,
        )
    });
    let destination = destination(&stub, password());
    let error = find(&destination, 1).await.unwrap_err();
    assert_eq!((error.class, error.wait), (Class::RetryAt, Some(Duration::from_mins(2))));
    assert_eq!(destination.rate_limit().limit, Some(100));
    assert_eq!(destination.rate_limit().reset_at, Some(Timestamp::from_secs(1_795_252_500)));
}

#[test]
fn addresses_that_are_no_instance_are_refused() {
    let check = |instance: &str, words: &str| {
        let settings = Settings {
            name: DestinationName::new("prod").unwrap(),
            instance: instance.parse().unwrap(),
            auth: password(),
            proxy: None,
            tls: TlsSettings::default(),
            headers: Vec::new(),
            devices: None,
        };
        let error = ServiceNow::new(settings, ManualClock::at(Timestamp::EPOCH)).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("canary"), "{error}");
    };
    check("http://acme.service-now.com", "not encrypted");
    check("https://canary:canary@acme.service-now.com", "user name or password");
    check("https://acme.service-now.com/nav_to.do", "bare address");
    check("https://acme.service-now.com/?x=canary", "bare address");
    check("https://169.254.169.254", "link-local");
}

/// Every way to fail, with a server that quotes all our secrets back: none is in any text we make of it.
#[tokio::test]
async fn no_secret_gets_into_an_error() {
    let all = [
        (password(), format!("{SECRET} {PASSWORD} {TOKEN} Bearer {TOKEN}")),
        (client_credentials(), format!("{SECRET} {TOKEN} Bearer {TOKEN}")),
        (basic(), PASSWORD.to_owned()),
        // Cut in the middle by the bound on the instance's words.
        (password(), format!("{}{PASSWORD}", "x".repeat(491))),
    ];
    for (auth, quoted) in all {
        for status in [200u16, 201, 202, 302, 400, 401, 403, 404, 408, 413, 429, 500, 503] {
            for at_token in [false, true] {
                let words =
                    json!({"error": {"message": quoted, "detail": quoted}, "error_description": quoted});
                let stub = Stub::start(move |_, request| {
                    if is_token_request(request) && !at_token {
                        token()
                    } else {
                        json(status, &words.to_string())
                    }
                });
                let destination = destination(&stub, auth.clone());
                let mut texts = format!("{destination:?} {auth:?}");
                for error in
                    [find(&destination, 1).await.unwrap_err(), destination.send(&order()).await.unwrap_err()]
                {
                    texts += &[error.to_string(), format!("{error:?}"), error.remedy.clone()].join(" ");
                }
                let shown = format!("{destination:?}");
                texts += &shown;
                for canary in ["canary", "Y2FuYXJ5"] {
                    assert!(!texts.contains(canary), "{canary} at {status} in {texts}");
                }
            }
        }
    }
}

/// A block page quotes what it was sent, in the forms it saw it in; its title is kept in lower case.
#[tokio::test]
async fn no_form_of_a_secret_gets_into_an_error() {
    let pair = "cmVsYXk6Y2FuYXJ5LXBhc3N3b3JkLTcyICY9KyU=";
    for quoted in [
        "canary-password-72+%26%3D%2B%25".to_owned(),
        "CANARY-PASSWORD-72 &=+%".to_owned(),
        "canary-password-72 &amp;=+%".to_owned(),
        format!("Basic {pair}"),
        pair.to_lowercase(),
        "canary-gateway-75".to_owned(),
    ] {
        let page = format!("<html><title>{quoted}</title></html>");
        let stub = Stub::start(move |_, _| reply(403, &[("Content-Type", "text/html")], &page));
        let headers = vec![("x-gateway-key".to_owned(), Secret::new("test", "canary-gateway-75"))];
        let destination = destination_with(stub.url.clone(), basic(), headers);
        let error = find(&destination, 1).await.unwrap_err();
        let text = format!("{error:?}").to_lowercase();
        for canary in ["canary", "y2fuyxj5", "%26%3d"] {
            assert!(!text.contains(canary), "{canary} of {quoted} in {text}");
        }
        assert!(text.contains("***"), "{text}");
    }
}

#[tokio::test]
async fn a_token_that_comes_as_plain_text_is_taken() {
    let stub = Stub::start(|_, request| {
        if is_token_request(request) {
            return reply(
                200,
                &[("Content-Type", "text/plain;charset=UTF-8")],
                r#" {"access_token":"plain"}"#,
            );
        }
        assert!(request.contains("authorization: Bearer plain"), "{request}");
        json(200, r#"{"result":[]}"#)
    });
    assert_eq!(find(&destination(&stub, client_credentials()), 1).await.unwrap(), vec![]);
}

#[tokio::test]
async fn behind_a_gateway_every_address_has_its_path_and_every_request_its_header() {
    let stub = Stub::start(|_, request| {
        assert!(request.contains("x-gateway-key: canary-gateway-75"), "{request}");
        if request.starts_with("POST /now/prod/oauth_token.do ") {
            return token();
        }
        assert!(request.starts_with("GET /now/prod/api/now/table/incident?"), "{request}");
        json(200, r#"{"result":[]}"#)
    });
    let headers = vec![("X-Gateway-Key".to_owned(), Secret::new("test", "canary-gateway-75"))];
    let instance = stub.url.join("/now/prod/").unwrap();
    assert_eq!(find(&destination_with(instance, password(), headers), 1).await.unwrap(), vec![]);
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn an_api_key_goes_in_its_header_and_a_certificate_needs_none() {
    let stub = Stub::start(|_, request| {
        assert!(!request.contains("authorization:"), "{request}");
        if request.contains("x-sn-apikey: canary-key-76") {
            json(200, r#"{"result":[]}"#)
        } else {
            unauthenticated()
        }
    });
    let key = Auth::ApiKey(super::ApiKey { key: Secret::new("test", "canary-key-76") });
    assert!(find(&destination(&stub, key), 1).await.is_ok());
    let error = find(&destination(&stub, Auth::ClientCertificate), 1).await.unwrap_err();
    assert!(error.class == Class::Hold && error.remedy.contains("sys_user_certificate"), "{error:?}");
    assert_eq!(stub.seen().len(), 2);
}

/// An answer of 2 MiB to a look-up would cost a hundred times that once it is parsed.
#[tokio::test]
async fn a_look_up_has_a_smaller_bound_than_a_create() {
    let long = json!({ "result": [], "more": "x".repeat(300 << 10) }).to_string();
    let stub = with_token(move |_| json(200, &long));
    let error = find(&destination(&stub, password()), 1).await.unwrap_err();
    assert!(error.message.contains("longer than 262144 bytes"), "{error}");
    let stub = with_token(|request| {
        let mut record = echo(request);
        record["u_notes"] = json!("x".repeat(300 << 10));
        created(&record)
    });
    assert!(destination(&stub, password()).send(&order()).await.is_ok());
}

fn unauthenticated() -> Reply {
    let words =
        json!({"message": "User Not Authenticated", "detail": "Required to provide Auth information"});
    json(401, &json!({"error": words, "status": "failure"}).to_string())
}

fn denied() -> Reply {
    json(401, r#"{"error_description":"access_denied","error":"server_error"}"#)
}

/// Each request as its grant type or `call`.
fn kinds(stub: &Stub) -> Vec<String> {
    let grant = |r: &String| {
        let form = r.split_once("grant_type=").filter(|_| is_token_request(r));
        form.map_or("call", |(_, rest)| rest.split('&').next().unwrap_or_default()).to_owned()
    };
    stub.seen().iter().map(grant).collect()
}

/// A row of a table, changed in that second.
fn changed_row(id: usize, second: usize, key: &str) -> serde_json::Value {
    json!({
        "sys_id": format!("{id:032x}"), "correlation_id": key, "number": format!("INC{id}"), "active": "true",
        "state": "1", "sys_updated_on": format!("2026-11-18 10:{:02}:{:02}", second / 60, second % 60),
    })
}

#[tokio::test]
async fn a_page_of_strangers_is_not_the_end_of_what_was_changed() {
    // The instance ignores whose records are asked for: 250 of others come before ours.
    let stub = with_token(|request| {
        let page: Vec<_> = if request.contains("sys_updated_on%3E2026-11-18%2010%3A03%3A20") {
            (201..250).map(|n| changed_row(n, n, "")).chain([changed_row(250, 250, "otrelay-1")]).collect()
        } else {
            (1..201).map(|n| changed_row(n, n, "")).collect()
        };
        let total = if page.len() == 200 { "250" } else { "50" };
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Total-Count", total),
            ("Date", "Wed, 18 Nov 2026 11:00:00 GMT"),
        ];
        reply(200, &headers, &json!({ "result": page }).to_string())
    });
    let destination = destination(&stub, password());
    let since = Since { at: Timestamp::from_servicenow("2026-11-18 10:00:00").unwrap(), behind: None };
    let first = destination.changed(&table(), &since).await.unwrap();
    assert_eq!((first.records.len(), first.strangers), (0, 200));
    let next = first.next.expect("there are more behind them");
    let second = destination.changed(&table(), &next).await.unwrap();
    assert_eq!((second.records.len(), second.strangers, second.next), (1, 49, None));
    assert_eq!(second.records[0].number, "INC250");
    let asked = &stub.seen()[1];
    for condition in ["correlation_displaySTARTSWITHotrelay", "correlation_idSTARTSWITHotrelay-"] {
        assert!(asked.contains(condition), "{asked}");
    }
}

#[tokio::test]
async fn tickets_are_asked_for_by_their_ids_and_strangers_prove_nothing() {
    let ids: Vec<_> = (0..2).map(|n| keys(n).sys_id).collect();
    let answer = |rows: Vec<serde_json::Value>| {
        with_token(move |_| json(200, &json!({ "result": rows.clone() }).to_string()))
    };
    // A table that keeps no correlation_id.
    let one = json!({ "sys_id": ids[1].as_str(), "number": "INC1", "state": "7", "active": "false" });
    let stub = answer(vec![one.clone()]);
    let found = destination(&stub, password()).still_there(&table(), &ids).await.unwrap();
    assert_eq!(found.iter().map(|r| (&r.sys_id, r.active)).collect::<Vec<_>>(), [(&ids[1], false)]);
    let asked = format!("sysparm_query=sys_idIN{}%2C{}&", ids[0], ids[1]);
    assert!(stub.seen()[1].contains(&asked), "{}", stub.seen()[1]);
    let stranger = json!({ "sys_id": "e".repeat(32), "number": "INC2", "state": "1" });
    let stub = answer(vec![one, stranger]);
    let error = destination(&stub, password()).still_there(&table(), &ids).await.unwrap_err();
    assert!(error.message.contains("not asked for"), "{error}");
}
