//! The status page, `/metrics`, `/health` and `/ready`, for people and scrapers of this machine. Reads only.
//!
//! Each answer is made of one look at the store, beside the runtime's thread and two at a time, so that neither memory nor
//! the rest of the service depends on how many look. `views` and `lists` decide what is shown, `chart` where; the
//! templates escape by construction, and every text from outside passes `words::clean`. Hosts, methods and headers are
//! `net::web`'s. Without a viewer nothing of this wakes.

mod chart;
mod lists;
mod views;
mod words;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{Stream, unfold};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::graph::{self, Frame, UsualLevel};
use super::metrics::{self, Format};
use super::{Live, Status};
use crate::clock::SharedClock;
use crate::model::DeliveryState;
use crate::model::text::clip;
use crate::net::web;
use crate::store::{DeviceFilter, ListFilter, Reader, Ring, Store, StoreError};

/// Between two looks for one who has the page open.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A connection that had nothing to say for so many looks says that it is there.
const SILENT: u32 = 6;
/// Pages that may be open with updates.
const VIEWERS: usize = 16;
/// Answers that are made at the same time.
const AT_ONCE: usize = 2;
/// Tickets of the first page.
const NEWEST: u32 = 8;
/// Rows of a list.
const ROWS: u32 = 100;
/// Rows of findings, which come with their whole records.
const FINDINGS: u32 = 50;

/// What the page tells of the config.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `[agent] site` and `zone`.
    pub place: Vec<String>,
    /// Time between two syncs; `None`: sync is off.
    pub interval: Option<Duration>,
    /// Rules that are enabled.
    pub rules: usize,
    /// Address of each destination's instance.
    pub instances: BTreeMap<String, String>,
    /// Requests an hour of each destination.
    pub budgets: BTreeMap<String, u32>,
}

/// What is known of the running service beside its store.
pub type LiveNow = Arc<dyn Fn() -> Live + Send + Sync>;

/// What the page needs.
#[derive(Clone)]
pub struct Page {
    /// `[agent] name`.
    pub agent: String,
    /// What is shown.
    pub store: Store,
    /// The service.
    pub live: LiveNow,
    /// The config, which a reload changes.
    pub facts: watch::Receiver<Facts>,
    /// For the picture of devices.
    pub usual_level: UsualLevel,
    /// The time.
    pub clock: SharedClock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Now,
    Alerts,
    Tickets,
    Devices,
    Queue,
    Health,
}

impl Entry {
    const ALL: [Self; 6] = [Self::Now, Self::Alerts, Self::Tickets, Self::Devices, Self::Queue, Self::Health];

    fn name(self) -> &'static str {
        ["Now", "Alerts", "Tickets", "Devices", "Queue", "Health"][self as usize]
    }

    fn path(self) -> &'static str {
        // `/health` is for machines.
        ["/", "/alerts", "/tickets", "/devices", "/queue", "/issues"][self as usize]
    }

    fn live(self) -> &'static str {
        ["/live/now", "/live/alerts", "/live/tickets", "/live/devices", "/live/queue", "/live/issues"]
            [self as usize]
    }

    /// The same as text.
    fn command(self) -> &'static str {
        [
            "otrelay status",
            "otrelay alerts",
            "otrelay tickets",
            "otrelay devices",
            "otrelay queue list",
            "otrelay status",
        ][self as usize]
    }
}

struct Shared {
    page: Page,
    templates: Environment<'static>,
    looks: Semaphore,
    viewers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Page {
    /// Serves until `stop`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let shared = Arc::new(Shared {
            page: self,
            templates: templates(),
            looks: Semaphore::new(AT_ONCE),
            viewers: Arc::new(Semaphore::new(VIEWERS)),
            stop: stop.clone(),
        });
        web::serve(listener, router(shared), stop).await;
    }

    /// How things are. Blocking.
    fn status(&self, reader: &Reader) -> Result<Status, StoreError> {
        let (conditions, gathered) = (self.store.conditions(), self.store.gathered());
        let live = Live { gathered, conditions, ..(self.live)() };
        Ok(Status::new(&self.agent, self.clock.now(), reader.overview()?, Some(live)))
    }

    /// Writes the metrics to a file, when they are others than `before`. Blocking.
    ///
    /// # Errors
    /// When the store cannot be read, or the file or its directory not written.
    pub fn write(&self, path: &Path, before: &mut String) -> std::io::Result<()> {
        let reader = self.store.reader().map_err(std::io::Error::other)?;
        let status = self.status(&reader).map_err(std::io::Error::other)?;
        metrics::textfile(path, &status, before)
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for entry in Entry::ALL {
        let show = move |State(shared): State<Arc<Shared>>| async move { shared.show(entry).await };
        let live = move |State(shared): State<Arc<Shared>>| async move { shared.live(entry) };
        router = router.route(entry.path(), get(show)).route(entry.live(), get(live));
    }
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    router
        .route("/style.css", file("text/css; charset=utf-8", include_str!("files/style.css")))
        .route("/live.js", file("text/javascript; charset=utf-8", include_str!("files/live.js")))
        .route("/icon.svg", file("image/svg+xml", include_str!("files/icon.svg")))
        .route("/metrics", get(numbers))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .fallback(|| async { (StatusCode::NOT_FOUND, "There is no such page.\n") })
        .with_state(shared)
}

/// The templates. What they are given is escaped, whoever wrote it.
fn templates() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => {
            minijinja::escape_formatter(out, state, &Value::from(words::clean(text)))
        }
        _ => minijinja::escape_formatter(out, state, value),
    });
    for (name, text) in [
        ("shell", include_str!("files/shell.html")),
        ("now", include_str!("files/now.html")),
        ("bars", include_str!("files/bars.html")),
        ("list", include_str!("files/list.html")),
        ("picture", include_str!("files/picture.html")),
    ] {
        // A test renders each; one that does not parse would be an answer of 500.
        let _ = environment.add_template(name, text);
    }
    environment
}

/// Why there is no answer, for the log and the one who asked.
struct Trouble(String);

impl<E: std::error::Error> From<E> for Trouble {
    fn from(e: E) -> Self {
        Self(e.to_string())
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let words = format!("The store cannot be read now: {}\n", clip(&self.0, 300));
        (StatusCode::SERVICE_UNAVAILABLE, words::clean(&words)).into_response()
    }
}

/// What is between the ends of a page, and when it was looked at.
struct Body {
    html: String,
    stamp: String,
}

impl Shared {
    /// Does something with the store, beside the runtime's thread.
    async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &Reader, Status) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        // It is closed by nobody.
        let _place = self.looks.acquire().await?;
        let shared = Arc::clone(self);
        let read = move || {
            let page = &shared.page;
            let reader = page.store.reader()?;
            let status = page.status(&reader)?;
            work(&shared, &reader, status)
        };
        tokio::task::spawn_blocking(read).await?
    }

    async fn body(self: &Arc<Self>, entry: Entry) -> Result<Body, Trouble> {
        self.look(move |shared, reader, status| shared.render(entry, reader, status)).await
    }

    fn render(&self, entry: Entry, reader: &Reader, status: Status) -> Result<Body, Trouble> {
        let stamp = status.now.servicenow().get(11..19).unwrap_or_default().to_owned();
        let facts = self.page.facts.borrow().clone();
        let now = status.now;
        let first = |limit| ListFilter { limit, ..ListFilter::default() };
        let tables = match entry {
            Entry::Now => {
                let look = views::Look {
                    counts: reader.counters()?,
                    half_hours: reader.history(Ring::HalfHour)?,
                    days: reader.history(Ring::Day)?,
                    waiting: reader.waiting()?,
                    tickets: reader.tickets(&first(NEWEST))?,
                    status,
                };
                let day = Value::from_safe_string(self.template("bars", views::day(&look))?);
                let html = self.template("now", views::now(&look, &facts, day))?;
                return Ok(Body { html, stamp });
            }
            Entry::Alerts => {
                let look = views::Look {
                    counts: reader.counters()?,
                    half_hours: reader.history(Ring::HalfHour)?,
                    days: reader.history(Ring::Day)?,
                    waiting: Vec::new(),
                    tickets: Vec::new(),
                    status,
                };
                let charts = [views::day(&look), views::month(&look)];
                let mut html = String::new();
                for chart in charts {
                    html.push_str(&self.template("bars", chart)?);
                }
                let rejected = reader.rejected(&first(20))?;
                let tables = lists::alerts(
                    &reader.alerts(&first(FINDINGS))?,
                    &reader.filtered(&first(ROWS))?,
                    &rejected,
                    now,
                );
                html.push_str(&self.template("list", context! { tables => Value::from(Serde(&tables)) })?);
                return Ok(Body { html, stamp });
            }
            Entry::Tickets => lists::tickets(&reader.tickets(&first(ROWS))?, &facts, now),
            Entry::Devices => {
                let filter = DeviceFilter { limit: ROWS, peers: true, ..DeviceFilter::default() };
                let rows = reader.devices(&filter)?;
                let tables = lists::devices(&rows, &status, now);
                let mut html = self.template("list", context! { tables => Value::from(Serde(&tables)) })?;
                if !rows.is_empty() {
                    let picture = graph::draw(&rows, self.page.usual_level, Frame::Page);
                    let picture = Value::from_safe_string(picture);
                    html.push_str(&self.template("picture", context! { picture })?);
                }
                return Ok(Body { html, stamp });
            }
            Entry::Queue => lists::queue(
                &reader.waiting()?,
                &reader.deliveries(DeliveryState::Dead, &first(ROWS))?,
                &reader.deliveries(DeliveryState::Pending, &first(FINDINGS))?,
                &status,
            ),
            Entry::Health => lists::health(&status, &facts),
        };
        let html = self.template("list", context! { tables => Value::from(Serde(&tables)) })?;
        Ok(Body { html, stamp })
    }

    fn template(&self, name: &str, values: Value) -> Result<String, Trouble> {
        Ok(self.templates.get_template(name)?.render(values)?)
    }

    async fn show(self: &Arc<Self>, entry: Entry) -> Result<Html<String>, Trouble> {
        let body = self.body(entry).await?;
        let pages: Vec<Value> =
            Entry::ALL.iter().map(|entry| context! { name => entry.name(), path => entry.path() }).collect();
        let place = self.page.facts.borrow().place.join(" · ");
        let place = format!(
            "{place}{}otrelay {}",
            if place.is_empty() { "" } else { " · " },
            env!("CARGO_PKG_VERSION")
        );
        let values = context! {
            agent => self.page.agent.as_str(),
            name => entry.name(),
            title => format!("{} · {}", entry.name(), self.page.agent),
            place,
            pages,
            live => entry.live(),
            command => entry.command(),
            stamp => body.stamp,
            body => Value::from_safe_string(body.html),
        };
        Ok(Html(self.template("shell", values)?))
    }

    fn live(self: &Arc<Self>, entry: Entry) -> Response {
        let Ok(place) = Arc::clone(&self.viewers).try_acquire_owned() else {
            let words = "Too many pages are open already.\n";
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "60")], words).into_response();
        };
        let viewer = Viewer { shared: Arc::clone(self), entry, seen: None, silent: 0, _place: place };
        Sse::new(viewer.events()).into_response()
    }
}

/// One who has a page open.
struct Viewer {
    shared: Arc<Shared>,
    entry: Entry,
    /// What was sent last.
    seen: Option<u64>,
    silent: u32,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    /// The page whenever it has changed, until the service stops.
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, |mut viewer| async move {
            let event = viewer.next().await?;
            Some((Ok(event), viewer))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            let wait = if self.seen.is_none() { Duration::ZERO } else { LOOK_EVERY };
            tokio::select! {
                () = self.shared.stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            self.silent += 1;
            // A store that cannot be read now may be at the next look.
            if let Ok(body) = self.shared.body(self.entry).await {
                let mut hasher = DefaultHasher::new();
                body.html.hash(&mut hasher);
                let hash = hasher.finish();
                if self.seen.replace(hash) != Some(hash) {
                    self.silent = 0;
                    let data =
                        format!("<i data-stamp=\"{}\"></i>{}", body.stamp, body.html).replace('\r', " ");
                    return Some(Event::default().event("parts").data(data));
                }
            } else if self.seen.is_none() {
                self.seen = Some(0);
            }
            if self.silent >= SILENT {
                self.silent = 0;
                return Some(Event::default().comment("still here"));
            }
        }
    }
}

async fn numbers(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Trouble> {
    let format = Format::asked(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    let text = shared.look(move |_, _, status| Ok(metrics::text(&status, format))).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// Whether the store can be read, which is when it can be asked how things are, and alerts are taken in.
async fn ready(State(shared): State<Arc<Shared>>) -> Result<Response, Trouble> {
    let refusal = shared.look(|shared, _, _| Ok(shared.page.store.refusal())).await?;
    let Some(issue) = refusal else { return Ok("ready\n".into_response()) };
    let words = format!("not ready: {}\n", issue.told());
    Ok((StatusCode::SERVICE_UNAVAILABLE, words).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_can_be_read() {
        let templates = templates();
        for name in ["shell", "now", "bars", "list", "picture"] {
            assert!(templates.get_template(name).is_ok(), "{name}: {:?}", templates.get_template(name).err());
        }
    }

    #[test]
    fn whatever_is_given_is_text() {
        let templates = templates();
        let evil = "\"'><script>alert(1)</script>\u{202e}\u{1b}[31m";
        let facts = vec![context! { name => evil, value => evil, note => evil, class => evil }];
        let verdict = context! { class => evil, title => evil, words => evil };
        let html = templates.get_template("now").unwrap().render(context! { verdict, facts }).unwrap();
        assert!(!html.contains("<script") && !html.contains("\"'>") && !html.contains('\u{202e}'), "{html}");
        assert!(html.contains("&lt;script&gt;") && !html.contains('\u{1b}'), "{html}");
    }
}
