//! Many orders in one request: `POST /api/now/v1/batch`.
//!
//! The items run one after the other without a transaction, so each has an outcome of its own, judged as if it had been
//! sent alone. What the instance did not get to is not carried out and given back. When the answer to the whole is lost,
//! every item is doubtful. An instance that refuses batches is sent single requests for a day; one that is too slow for
//! them gets smaller ones.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::call::{Call, Path, ServiceNow};
use super::change;
use super::classify::{self, What};
use super::learned::{Absent, seconds};
use super::wire;
use crate::destination::{Item, Order, SendError, Sent};
use crate::model::{Class, DeliveryKind, HoldScope, TableName};
use crate::net::Answer;

/// Most items of one batch: it has 30 s in all.
const ITEMS: usize = 20;
/// Fewer are sent singly: that takes little longer, and each has an answer of its own.
const FEW: usize = 20;

/// So long no batch is tried at most after a 429: a window of its limits.
const LIMITED_MAX: Duration = Duration::from_hours(1);

/// What is known of the instance's batches.
#[derive(Debug)]
pub(super) struct Batching {
    most: AtomicUsize,
    /// It takes none.
    pub(super) refused: Absent,
    /// Until when it takes no more, in seconds of the clock.
    limited: AtomicU64,
    /// The next batch's number.
    next: AtomicU64,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            most: AtomicUsize::new(ITEMS),
            refused: Absent::default(),
            limited: AtomicU64::new(0),
            next: AtomicU64::new(1),
        }
    }
}

/// An order as one item: what is called, and how its answer is read.
pub(super) struct Single<'a> {
    pub(super) call: Call<'a>,
    pub(super) read: Read<'a>,
}

/// Reads the parsed answer and its status.
type Read<'a> = Box<dyn Fn(&Value, u16) -> Result<Sent, SendError> + Send + Sync + 'a>;

impl ServiceNow {
    /// How many of so many orders of that kind go into one request.
    pub(super) fn batch_size(&self, order: &Order, due: usize) -> usize {
        let is_batched = match order.kind {
            DeliveryKind::OpenTicket => order.table.as_str() != change::TABLE,
            DeliveryKind::PutRow => true,
            _ => false,
        };
        if is_batched { self.rows_together(due) } else { 1 }
    }

    /// How many of so many rows go into one request.
    pub(super) fn rows_together(&self, due: usize) -> usize {
        let now = self.now();
        let until = self.batching.limited.load(Ordering::Relaxed);
        // An end further off than any wait means that the clock was set back.
        let is_limited = seconds(now) < until && until <= seconds(now.after(LIMITED_MAX));
        if due < FEW || self.batching.refused.is_so(now) || is_limited {
            return 1;
        }
        self.batching.most.load(Ordering::Relaxed).clamp(1, ITEMS)
    }

    pub(super) async fn send_batch(&self, orders: &[Order]) -> Result<Vec<Item>, SendError> {
        let Some(first) = orders.first() else { return Ok(Vec::new()) };
        let singles = orders.iter().map(|order| self.single(order)).collect();
        self.send_singles(&first.table, singles, orders).await
    }

    /// The same of what is made already; `orders` are those of tickets, which get a second look.
    pub(super) async fn send_singles(
        &self,
        table: &TableName,
        singles: Vec<Result<Single<'_>, SendError>>,
        orders: &[Order],
    ) -> Result<Vec<Item>, SendError> {
        let requests: Vec<Value> = singles
            .iter()
            .enumerate()
            .filter_map(|(at, one)| Some(request(at, one.as_ref().ok()?)))
            .collect();
        let number = self.batching.next.fetch_add(1, Ordering::Relaxed);
        let attempt = self.attempt(What::Batch, table);
        let body =
            serde_json::to_vec(&json!({ "batch_request_id": number.to_string(), "rest_requests": requests }))
                .map_err(|_| attempt.reject("the batch cannot be written as JSON", "report it"))?;
        let called = self.call(&Call::post(What::Batch, table, Path::Batch, String::new(), body)).await;
        let value = match called {
            Ok((value, _)) => value,
            // What holds the destination is the refusal of a token.
            Err(e) if is_refusal(&e) && e.hold != HoldScope::Destination => {
                tracing::info!("{} takes no batches; single requests are made: {e}", self.place);
                self.batching.refused.learn(self.now());
                // Nothing was carried out.
                return Ok(singles.iter().map(|_| Item::NotDone).collect());
            }
            // The limit of this API alone. Nothing was carried out.
            Err(e) if e.class == Class::RetryAt && e.wait.is_some() => {
                let until = self.now().after(e.wait.unwrap_or_default().min(LIMITED_MAX));
                tracing::info!("{} takes no more batches for now; single requests are made: {e}", self.place);
                self.batching.limited.store(seconds(until), Ordering::Relaxed);
                return Ok(singles.iter().map(|_| Item::NotDone).collect());
            }
            Err(e) => {
                if e.doubtful {
                    self.fewer(singles.len() / 2);
                }
                return Err(e);
            }
        };
        self.read_batch(orders, singles, &value).await
    }

    async fn read_batch(
        &self,
        orders: &[Order],
        singles: Vec<Result<Single<'_>, SendError>>,
        value: &Value,
    ) -> Result<Vec<Item>, SendError> {
        let list =
            |name: &str| value.get(name).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let (serviced, unserviced) = (list("serviced_requests"), list("unserviced_requests"));
        let count = singles.len();
        let mut items = Vec::with_capacity(count);
        for (at, single) in singles.into_iter().enumerate() {
            let id = at.to_string();
            let single = match single {
                Ok(single) => single,
                Err(e) => {
                    items.push(Item::Done(Box::new(Err(e))));
                    continue;
                }
            };
            if unserviced.iter().any(|left| wire::text_of(left) == id) {
                items.push(Item::NotDone);
                continue;
            }
            let attempt = self.attempt(single.call.what, single.call.table);
            let done = match serviced.iter().find(|done| wire::field(done, "id") == id).map(answer) {
                Some(Some(answer)) => match self.verdict(answer, &attempt).await {
                    Ok((value, answer)) => {
                        (single.read)(&value, answer.status).inspect(|sent| self.learn_user(sent))
                    }
                    Err(e) => self.second_look(orders.get(at), single.call.path.narrowed(e)).await,
                },
                _ => Err(attempt.retry("the answer to the batch does not say what became of it")),
            };
            items.push(Item::Done(Box::new(done)));
        }
        let left = items.iter().filter(|item| matches!(item, Item::NotDone)).count();
        if left > 0 {
            self.fewer(count - left);
        } else {
            let more = self.batching.most.load(Ordering::Relaxed) + 1;
            self.batching.most.store(more.min(ITEMS), Ordering::Relaxed);
        }
        Ok(items)
    }

    /// An item that was refused is looked at as a single one is: it may be there, or it may be too large.
    async fn second_look(&self, order: Option<&Order>, e: SendError) -> Result<Sent, SendError> {
        let Some(order) = order.filter(|order| order.kind == DeliveryKind::OpenTicket) else { return Err(e) };
        if classify::is_too_large(&e) {
            self.open_ticket(order).await
        } else {
            self.unless_there(order, e).await
        }
    }

    fn fewer(&self, most: usize) {
        self.batching.most.store(most.clamp(1, ITEMS), Ordering::Relaxed);
    }

    fn single<'a>(&'a self, order: &'a Order) -> Result<Single<'a>, SendError> {
        match order.kind {
            DeliveryKind::PutRow => self.single_row(&order.table, &order.fields),
            _ => self.single_ticket(order),
        }
    }
}

/// Whether an answer to a batch says that none is taken, and that nothing was carried out. A key or token may be good for
/// tables and not for batches.
pub(super) fn is_refusal(e: &SendError) -> bool {
    !e.doubtful
        && matches!(e.status, Some(400 | 401 | 403 | 404 | 405 | 406 | 413 | 415))
        && e.class != Class::Retry
}

fn request(at: usize, single: &Single<'_>) -> Value {
    let Call { path, query, body, .. } = &single.call;
    let url = if query.is_empty() { path.text() } else { format!("{}?{query}", path.text()) };
    let json = |name: &str| json!({ "name": name, "value": "application/json" });
    json!({
        "id": at.to_string(),
        "method": "POST",
        "url": url,
        "headers": [json("Content-Type"), json("Accept")],
        "body": STANDARD.encode(body.as_deref().unwrap_or_default()),
        "exclude_response_headers": false,
    })
}

/// An item's answer as if it had come alone.
fn answer(item: &Value) -> Option<Answer> {
    let status = wire::field(item, "status_code").trim().parse().ok()?;
    let headers: Vec<(String, String)> = item
        .get("headers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|header| (wire::field(header, "name").to_ascii_lowercase(), wire::field(header, "value")))
        .collect();
    let kind = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
    let kind = kind.unwrap_or("application/json").split(';').next().unwrap_or_default();
    let content_type = Some(kind.trim().to_ascii_lowercase());
    let body =
        STANDARD.decode(wire::field(item, "body").split_ascii_whitespace().collect::<String>()).ok()?;
    Some(Answer { status, content_type, headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_read_as_an_answer_of_its_own() {
        let item = json!({"id": "1", "status_code": 201, "body": STANDARD.encode("{\"result\":{}}"),
            "headers": [{"name": "Content-Type", "value": "application/json;charset=UTF-8"}]});
        let read = answer(&item).unwrap();
        assert_eq!((read.status, read.content_type.as_deref()), (201, Some("application/json")));
        assert_eq!(read.body, b"{\"result\":{}}");
        let bare = answer(&json!({"status_code": "403", "body": ""})).unwrap();
        assert_eq!((bare.status, bare.content_type.as_deref()), (403, Some("application/json")));
        for broken in [json!({}), json!({"status_code": 201, "body": "%%"}), json!({"status_code": "x"})] {
            assert!(answer(&broken).is_none(), "{broken}");
        }
    }
}
