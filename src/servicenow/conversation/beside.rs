//! What stands beside the tickets (what a table takes, files, batches) may fail in any way, and the tickets go on.

use super::*;
use crate::destination::{Admission, Attachment, Item};

/// Every way in which one API may be refused while the others work.
fn refusals() -> Vec<Reply> {
    let said = |status, detail: &str| {
        json(status, &json!({"error": {"message": "No", "detail": detail}, "status": "failure"}).to_string())
    };
    vec![
        unauthenticated(),
        reply(403, &[("Content-Type", "text/html")], "<html><title>Forbidden</title></html>"),
        reply(200, &[("Content-Type", "text/html")], "<html><title>Log in</title></html>"),
        said(403, "Missing required api access scope"),
        said(403, "Access to unscoped api is not allowed"),
        said(500, "Transaction cancelled: maximum execution time exceeded"),
        reply(503, &[], ""),
        reply(302, &[("Location", "/login")], ""),
        limited(),
    ]
}

fn limited() -> Reply {
    let headers = [
        ("Content-Type", "application/json"),
        ("Retry-After", "3000"),
        ("X-RateLimit-Limit", "20"),
        ("X-RateLimit-Reset", "1795252500"),
    ];
    let words = json!({"message": "Rate limit exceeded", "detail": "Rate limit of 10 requests exceeded"});
    reply(429, &headers, &json!({"error": words, "status": "failure"}).to_string())
}

/// Where `part` is in the address the nth refusal, elsewhere a token or an empty list; who is refused in silence gets none.
fn shut(part: &'static str, nth: usize) -> Stub {
    with_token(move |request| {
        let line = request.lines().next().unwrap_or_default();
        if line.contains(part) {
            return refusals().into_iter().nth(nth).unwrap_or_else(|| Reply::Bytes(Vec::new()));
        }
        json(200, r#"{"result":[]}"#)
    })
}

#[tokio::test]
async fn whatever_reading_what_a_table_takes_is_answered_the_order_goes_out() {
    let mut order = order();
    order.fields.insert("category".to_owned(), "network".to_owned());
    for table in ["sys_properties", "sys_db_object", "sys_dictionary", "sys_choice", "sys_data_policy_rule"] {
        for nth in 0..=refusals().len() {
            let stub = shut(table, nth);
            let destination = destination(&stub, password()).checking();
            let asked = || stub.seen().iter().filter(|r| r.lines().next().unwrap().contains(table)).count();
            let mut first = None;
            for _ in 0..2 {
                match destination.admit(&order, &|| true).await {
                    Ok(Admission::Fits(remarks)) => {
                        let told =
                            remarks.iter().any(|r| r.code == "schema-unread" && r.text.contains(table));
                        // The build is asked for by nobody but us.
                        assert!(told || table == "sys_properties", "{table} {nth}: {remarks:?}");
                        let is_login = remarks.iter().any(|r| r.text.contains("our login"));
                        assert!(!is_login, "{table} {nth}: {remarks:?}");
                    }
                    other => panic!("{table}, refusal {nth}: {other:?}"),
                }
                // What is refused is left alone for an hour.
                assert_eq!(*first.get_or_insert_with(asked), asked(), "{table} {nth}");
            }
            assert!(first > Some(0));
            assert_eq!(destination.rate_limit().limit, None, "{table} {nth}: a limit of that table alone");
        }
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_had_while_a_schema_is_read_holds_as_ever() {
    let stub = Stub::start(|_, _| unauthenticated());
    let error = destination(&stub, password()).checking().admit(&order(), &|| true).await.unwrap_err();
    assert_eq!((error.class, error.hold), (Class::Hold, HoldScope::Destination), "{error}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = destination_at(format!("http://{closed}").parse().unwrap(), basic()).checking();
    let error = nobody.admit(&order(), &|| true).await.unwrap_err();
    assert_eq!((error.class, error.hold), (Class::Retry, HoldScope::Destination), "{error}");
}

#[tokio::test]
async fn schema_reads_that_are_all_refused_cost_one_more_token() {
    let stub = shut("/table/sys_", 0);
    let destination = destination(&stub, client_credentials()).checking();
    assert!(matches!(destination.admit(&order(), &|| true).await, Ok(Admission::Fits(_))));
    let tokens = stub.seen().iter().filter(|request| is_token_request(request)).count();
    assert_eq!(tokens, 2);
}

#[tokio::test]
async fn a_build_that_cannot_be_read_for_once_is_no_other_build() {
    let mut builds = 0;
    let stub = Stub::start(move |_, request| {
        let line = request.lines().next().unwrap_or_default();
        let rows = if line.contains("sys_properties") {
            builds += 1;
            if builds == 2 {
                return reply(500, &[], "");
            }
            json!([{"name": "glide.buildname", "value": "Zurich"}])
        } else if line.contains("sys_dictionary") {
            let column = |name: &str| json!({"name": "task", "element": name, "active": "true"});
            json!([column("short_description"), column("impact")])
        } else {
            json!([])
        };
        json(200, &json!({ "result": rows }).to_string())
    });
    let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
    let destination = destination_by(stub.url.clone(), basic(), Vec::new(), clock.clone()).checking();
    let asked = |part: &str| stub.seen().iter().filter(|request| request.contains(part)).count();
    for hours in 0..4 {
        assert!(matches!(destination.admit(&order(), &|| true).await, Ok(Admission::Fits(_))), "{hours}");
        assert_eq!(asked("/table/sys_dictionary"), 1, "read once, hour {hours}");
        assert_eq!(asked("/table/sys_properties"), hours + 1);
        clock.advance(Duration::from_hours(1));
    }
}

fn evidence() -> Order {
    let attachment = Attachment {
        table: table(),
        name: "otrelay-1-record.json".to_owned(),
        content_type: "application/json",
        bytes: b"{}".to_vec(),
    };
    let table = TableName::new("sys_attachment").unwrap();
    Order { kind: DeliveryKind::AttachRaw, table, attachment: Some(attachment), ..order() }
}

#[tokio::test]
async fn whatever_the_attachment_api_answers_the_tickets_do_not_wait_for_it() {
    for auth in [password(), basic()] {
        for nth in 0..refusals().len() {
            let stub = shut("/attachment", nth);
            let destination = destination(&stub, auth.clone());
            let error = destination.send(&evidence()).await.unwrap_err();
            // A firewall's page is about this file, until others fare the same.
            let scope = if nth == 1 { HoldScope::Delivery } else { HoldScope::Table };
            assert_eq!(
                (error.hold, error.is_general),
                (scope, error.hold == HoldScope::Table && error.is_general),
                "refusal {nth}: {error}"
            );
            assert!(!error.message.contains("our login"), "refusal {nth}: {error}");
            assert_eq!(destination.rate_limit().limit, None, "refusal {nth}");
            let stub = shut("table/sys_attachment", nth);
            let destination = self::destination(&stub, auth.clone());
            let asked = [Asked { mark: "otrelay-1-record.json".to_owned(), ..Asked::record(keys(0), false) }];
            let files = TableName::new("sys_attachment").unwrap();
            let error = destination.look_up(DeliveryKind::AttachRaw, &files, &asked).await.unwrap_err();
            assert_eq!(error.hold, HoldScope::Table, "refusal {nth}: {error}");
        }
    }
    let stub = shut("/oauth_token.do", 0);
    assert!(destination(&stub, password()).send(&evidence()).await.is_err(), "and the look says why");
    let stub = Stub::start(|_, _| unauthenticated());
    let error = destination(&stub, password()).send(&evidence()).await.unwrap_err();
    assert_eq!(error.hold, HoldScope::Destination, "no token: {error}");
}

#[tokio::test]
async fn an_instance_that_refuses_batches_by_any_words_is_sent_single_requests() {
    let words = |nth: usize| shut("/batch", nth);
    // 401, a page with 403, both words of a scope that is too small.
    for (nth, auth) in [(0, password()), (0, basic()), (1, basic()), (3, password()), (4, password())] {
        let stub = words(nth);
        let destination = destination(&stub, auth);
        assert!(destination.together(&order(), 40) > 1);
        let items = destination.send_all(&[order(), order()]).await.unwrap();
        assert!(items.iter().all(|item| matches!(item, Item::NotDone)), "{nth}");
        assert_eq!(destination.together(&order(), 40), 1, "{nth}");
    }
    // A token that is refused says nothing of batches.
    let stub = Stub::start(|_, _| unauthenticated());
    let destination = destination(&stub, password());
    let error = destination.send_all(&[order(), order()]).await.unwrap_err();
    assert_eq!((error.class, error.hold), (Class::Hold, HoldScope::Destination), "{error}");
    assert!(destination.together(&order(), 40) > 1);
}

/// A destination whose tables and whose staging tables have limits of their own.
async fn limits(tables: &'static str, rows: &'static str) -> Option<u32> {
    let stub = with_token(move |request| {
        let limit = if request.contains("/import/") { rows } else { tables };
        let headers = [
            ("Content-Type", "application/json"),
            ("X-RateLimit-Limit", limit),
            ("X-RateLimit-Reset", "1795252500"),
        ];
        reply(200, if limit.is_empty() { &headers[..1] } else { &headers[..] }, r#"{"result":[]}"#)
    });
    let destination = destination(&stub, password());
    let row = Order { kind: DeliveryKind::PutRow, ..order() };
    find(&destination, 1).await.unwrap();
    // No transform map made anything of it, which is nothing to this.
    assert_eq!(destination.send(&row).await.unwrap_err().class, Class::Hold);
    find(&destination, 1).await.unwrap();
    destination.rate_limit().limit
}

#[tokio::test]
async fn limits_are_kept_by_api_and_that_of_the_tables_counts_where_tickets_go_there() {
    assert_eq!(limits("100", "50").await, Some(100));
    assert_eq!(limits("100", "500").await, Some(100));
    assert_eq!(limits("", "50").await, None);
    assert_eq!(limits("", "").await, None);
    let stub = with_token(|_| limited());
    let rows_alone = destination(&stub, password());
    rows_alone.send(&Order { kind: DeliveryKind::PutRow, ..order() }).await.unwrap_err();
    assert_eq!(rows_alone.rate_limit().limit, Some(20));
}

#[tokio::test]
async fn the_limit_of_an_api_holds_what_goes_by_it_and_that_of_batches_nothing() {
    let last = refusals().len() - 1;
    let of = |kind, name: &str| {
        let table = TableName::new(name).unwrap();
        let keys = TicketKeys { sys_id: keys(0).sys_id, ..keys(0) };
        let mut order = Order { kind, table, keys, ..order() };
        order.fields.insert("severity".to_owned(), "2".to_owned());
        order
    };
    for (part, order) in [
        ("/em/jsonv2", of(DeliveryKind::PutEvent, "em_event")),
        ("/api/now/import", of(DeliveryKind::PutRow, "u_stage")),
        ("/sn_chg_rest", of(DeliveryKind::OpenTicket, "change_request")),
    ] {
        let stub = shut(part, last);
        let error = destination(&stub, basic()).send(&order).await.unwrap_err();
        assert_eq!((error.class, error.hold), (Class::RetryAt, HoldScope::Table), "{part}: {error}");
        assert_eq!(error.wait, Some(Duration::from_secs(3000)), "{part}");
        // Without a word the instance is busy, whatever was asked.
        let stub = with_token(|_| reply(429, &[], "Too Many Requests"));
        let error = destination(&stub, basic()).send(&order).await.unwrap_err();
        assert_eq!((error.class, error.hold), (Class::RetryAt, HoldScope::Destination), "{part}: {error}");
    }
    let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
    let stub = shut("/batch", last);
    let destination = destination_by(stub.url.clone(), basic(), Vec::new(), clock.clone());
    let items = destination.send_all(&[order(), order()]).await.unwrap();
    assert!(items.iter().all(|item| matches!(item, Item::NotDone)));
    assert_eq!(destination.together(&order(), 40), 1);
    assert_eq!(destination.rate_limit().limit, None);
    clock.advance(Duration::from_secs(3001));
    assert!(destination.together(&order(), 40) > 1, "not longer than it said");
}

#[tokio::test]
async fn a_limit_is_forgotten_when_its_hour_is_over() {
    let stub = shut("table/incident", refusals().len() - 1);
    let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
    let destination = destination_by(stub.url.clone(), basic(), Vec::new(), clock.clone());
    find(&destination, 1).await.unwrap_err();
    assert_eq!(destination.rate_limit().limit, Some(20));
    clock.advance(Duration::from_mins(59));
    assert_eq!(destination.rate_limit().limit, Some(20));
    clock.advance(Duration::from_mins(1));
    assert_eq!(destination.rate_limit().limit, None);
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_now_waits_and_is_not_sent_as_it_is() {
    let mut asked = 0;
    let stub = with_token(move |request| {
        let line = request.lines().next().unwrap_or_default();
        if !line.contains("sys_user_group") {
            return json(200, r#"{"result":[]}"#);
        }
        asked += 1;
        match asked {
            1 => reply(503, &[], ""),
            2 => {
                json(500, r#"{"error":{"message":"Transaction cancelled","detail":null},"status":"failure"}"#)
            }
            _ => json(200, &json!({"result": [{"sys_id": "a".repeat(32), "name": "OT SOC"}]}).to_string()),
        }
    });
    let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
    let destination = destination_by(stub.url.clone(), basic(), Vec::new(), clock.clone()).checking();
    let mut order = order();
    order.fields.insert("assignment_group".to_owned(), "OT SOC".to_owned());
    let groups = || stub.seen().iter().filter(|request| request.contains("/table/sys_user_group")).count();
    for turn in 1..3 {
        // Others of the same turn do not ask again.
        for _ in 0..2 {
            let error = destination.admit(&order, &|| true).await.unwrap_err();
            assert_eq!((error.class, error.hold), (Class::Retry, HoldScope::Action), "{error}");
            assert!(error.message.contains("`OT SOC` could not be looked up in sys_user_group"), "{error}");
            assert_eq!(groups(), turn);
        }
        clock.advance(Duration::from_mins(1));
    }
    assert!(matches!(destination.admit(&order, &|| true).await, Ok(Admission::Fits(_))));
    destination.send(&order).await.unwrap_err();
    let sent = stub.seen().pop().unwrap();
    assert!(sent.contains(&"a".repeat(32)) && !sent.contains("OT SOC"), "{sent}");
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_for_an_hour_keeps_no_alert_waiting() {
    let stub = shut("/table/sys_user_group", 6);
    let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
    let destination = destination_by(stub.url.clone(), basic(), Vec::new(), clock.clone()).checking();
    let mut order = order();
    order.fields.insert("assignment_group".to_owned(), "OT SOC".to_owned());
    assert!(destination.admit(&order, &|| true).await.is_err());
    clock.advance(Duration::from_mins(59));
    assert!(destination.admit(&order, &|| true).await.is_err());
    clock.advance(Duration::from_mins(1));
    assert!(matches!(destination.admit(&order, &|| true).await, Ok(Admission::Fits(_))));
}

/// A right that was taken away hides all tickets at once: they are not deleted.
#[tokio::test]
async fn tickets_that_are_all_gone_from_a_table_that_shows_nothing_are_not_deleted() {
    let ids: Vec<_> = (0..4).map(|n| keys(n).sys_id).collect();
    for shows in [true, false] {
        let stub = with_token(move |request| {
            let any = request.contains("sysparm_query=sys_created_on") && shows;
            let id = keys(9).sys_id;
            json(
                200,
                &if any { json!({"result": [{"sys_id": id.as_str()}]}) } else { json!({"result": []}) }
                    .to_string(),
            )
        });
        let destination = destination(&stub, basic());
        let found = destination.still_there(&table(), &ids).await;
        match found {
            Ok(found) => assert!(shows && found.is_empty()),
            Err(e) => assert!(!shows && e.message.contains("shows no record at all"), "{e}"),
        }
        // Of one or two nothing is asked: they may well have been all there was.
        assert_eq!(destination.still_there(&table(), &ids[..2]).await.unwrap(), vec![]);
    }
}
