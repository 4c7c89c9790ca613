//! One destination and one call: a token, the request, its answer judged; once more if the token was refused.
//!
//! Every address of the API stands here; what goes over it is put together in `ticket`, `change`, `row` and `event`. Nothing is remembered here but the token and two numbers the relay's
//! budget asks for: how many requests were made, and what the instance last said about its limit.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::Settings;
use super::auth::{Authorization, Line, Login};
use super::batch::{self, Batching};
use super::cis::Cis;
use super::classify::{self, Attempt, What};
use super::cmdb::KnownOthers;
use super::learned::Absent;
use super::query::url_value;
use super::schema::Known;
use super::ticket::DISPLAY;
use super::user::User;
use crate::clock::SharedClock;
use crate::destination::{FIND_MAX, RateLimit, SendError};
use crate::model::{
    Class, DeliveryKind, DestinationName, HealthIssue, HoldScope, Secret, SecretString, SysId, TableName,
    Timestamp,
};
use crate::net::{self, Answer, Deadlines, HttpClient, LOOK_UP_MAX, Method, NetError, Request};

/// The longest window of a limit.
const LIMIT_HOLDS: Duration = Duration::from_hours(1);
/// What to do where a call beside the tickets is refused.
const SHUT: &str = "the login may not use this API, or it is refused everywhere (then tickets wait too, and say why): give it a \
                    REST API access policy or an auth scope for this API, and the user the right to read and write there";
/// Longest answer of a call, in bytes: our answers are one record or a page of small ones.
const ANSWER_MAX: usize = 2 * 1024 * 1024;

/// Why a destination cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address cannot be used.
    #[error("`instance` of destination {name}: {problem}; expected https://NAME.service-now.com")]
    Instance {
        /// The destination.
        name: DestinationName,
        /// What is wrong.
        problem: String,
    },
    /// The log-in cannot be used.
    #[error("destination {name}: {problem}")]
    Auth {
        /// The destination.
        name: DestinationName,
        /// What is wrong.
        problem: String,
    },
    /// Trust files, proxy or headers cannot be used.
    #[error("destination {name}: {source}")]
    Net {
        /// The destination.
        name: DestinationName,
        /// What is wrong.
        source: NetError,
    },
}

/// A ServiceNow instance, as a [`crate::destination::Destination`].
#[derive(Debug)]
pub struct ServiceNow {
    pub(super) name: DestinationName,
    base: Url,
    /// `https://acme.service-now.com`, for messages.
    pub(super) place: String,
    http: HttpClient,
    login: Login,
    clock: ClockBox,
    pub(super) requests: AtomicU64,
    limits: Mutex<Limits>,
    /// The token that was fresh when a call beside the tickets was refused: for such calls it is not renewed again.
    shut_grant: AtomicU64,
    /// Keys in one look-up: fewer once something in between refused a long address.
    pub(super) look_up_max: AtomicUsize,
    /// Set once the instance has shown that it has no Change Management API.
    pub(super) no_change_api: Absent,
    /// What is known of its batches.
    pub(super) batching: Batching,
    /// What is known of its tables; `None`: nobody asks.
    pub(super) schema: Option<Known>,
    /// Which of its CIs alerts are about.
    pub(super) cis: Cis,
    /// Who we are there.
    pub(super) user: User,
    /// Which agent we are: `correlation_display` of what we make.
    pub(super) display: String,
    /// How devices are told.
    pub(super) devices: Option<super::cmdb::Settings>,
    /// Import sets that were not through in time.
    pub(super) sets: super::cmdb::Sets,
    /// The instance has only the plain form of identification.
    pub(super) plain_identify: Absent,
    /// Which others tell of the same devices, as far as it was looked.
    pub(super) others: KnownOthers,
}

/// A clock has no `Debug` of its own.
struct ClockBox(SharedClock);

impl std::fmt::Debug for ClockBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// An address of the API, without its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path<'a> {
    /// Table API: all records of a table.
    Records(&'a TableName),
    /// Table API: one record.
    Record(&'a TableName, &'a SysId),
    /// Import Set API: one row of a staging table.
    Import(&'a TableName),
    /// Import Set API: many rows, transformed later.
    ImportMany(&'a TableName),
    /// Event Management.
    Events,
    /// Several requests in one; only the address with a version is documented.
    Batch,
    /// Change Management: a change of this type (`normal`, `emergency`; empty: of the type in its fields).
    Change(&'a str),
    /// Identification and reconciliation of devices, with options.
    Identify,
    /// The same without options, where the instance is old.
    IdentifyPlain,
    /// What identification would do, with options and without.
    IdentifyQuery,
    /// The same without options.
    IdentifyQueryPlain,
    /// Bytes of this media type that are attached to a record.
    Attachment(&'a str),
}

/// Where a delivery of this kind goes at first, behind the address of the instance: for people who look at a request.
pub fn address(kind: DeliveryKind, table: &TableName) -> String {
    let path = match kind {
        DeliveryKind::PutEvent => Path::Events,
        DeliveryKind::PutRow => Path::Import(table),
        DeliveryKind::OpenTicket if table.as_str() == "change_request" => Path::Change("normal"),
        _ => Path::Records(table),
    };
    path.text()
}

impl Path<'_> {
    /// The limit of an API of its own, told with its wait, holds what goes by that API. A 429 without a word is the instance's,
    /// that has too much to do.
    pub(super) fn narrowed(self, e: SendError) -> SendError {
        let is_tables = matches!(self, Self::Records(_) | Self::Record(..));
        if is_tables || e.class != Class::RetryAt || e.wait.is_none() {
            return e;
        }
        SendError { is_general: true, hold: HoldScope::Table, ..e }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Records(table) => format!("/api/now/table/{table}"),
            Self::Record(table, sys_id) => format!("/api/now/table/{table}/{sys_id}"),
            Self::Import(table) => format!("/api/now/import/{table}"),
            Self::ImportMany(table) => format!("/api/now/import/{table}/insertMultiple"),
            Self::Events => "/api/global/em/jsonv2".to_owned(),
            Self::Batch => "/api/now/v1/batch".to_owned(),
            Self::Change("") => "/api/sn_chg_rest/change".to_owned(),
            Self::Change(kind) => format!("/api/sn_chg_rest/change/{}", url_value(kind)),
            Self::Identify => "/api/now/identifyreconcile/enhanced".to_owned(),
            Self::IdentifyPlain => "/api/now/identifyreconcile".to_owned(),
            Self::IdentifyQuery => "/api/now/identifyreconcile/queryEnhanced".to_owned(),
            Self::IdentifyQueryPlain => "/api/now/identifyreconcile/query".to_owned(),
            Self::Attachment(_) => "/api/now/attachment/file".to_owned(),
        }
    }
}

/// A call, before it has a token.
pub(super) struct Call<'a> {
    pub(super) what: What,
    /// Whose records it concerns, for messages.
    pub(super) table: &'a TableName,
    pub(super) method: Method,
    pub(super) path: Path<'a>,
    /// The query string, encoded; may be empty.
    pub(super) query: String,
    pub(super) body: Option<Vec<u8>>,
}

impl<'a> Call<'a> {
    /// One that reads.
    pub(super) fn get(what: What, table: &'a TableName, path: Path<'a>, query: String) -> Self {
        Self { what, table, method: Method::Get, path, query, body: None }
    }

    /// One that hands something over.
    pub(super) fn post(
        what: What,
        table: &'a TableName,
        path: Path<'a>,
        query: String,
        body: Vec<u8>,
    ) -> Self {
        Self { what, table, method: Method::Post, path, query, body: Some(body) }
    }
}

impl ServiceNow {
    /// Sets a destination up; no request is made.
    ///
    /// # Errors
    /// An address that is not allowed, trust files that cannot be read, nothing to trust at all.
    pub fn new(settings: Settings, clock: SharedClock) -> Result<Self, SetupError> {
        Self::with_deadlines(settings, clock, Deadlines::default())
    }

    /// As [`Self::new`], with deadlines of one's own.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_deadlines(
        settings: Settings,
        clock: SharedClock,
        deadlines: Deadlines,
    ) -> Result<Self, SetupError> {
        let Settings { name, instance, auth, proxy, tls, headers, devices } = settings;
        let refuse = |problem: String| SetupError::Instance { name: name.clone(), problem };
        net::check_url(&instance).map_err(refuse)?;
        // Only a gateway gives an instance a path, and it wants its header.
        if instance.path() != "/" && headers.is_empty()
            || instance.query().is_some()
            || instance.fragment().is_some()
        {
            return Err(refuse("it has a path or a query; only the bare address is wanted".to_owned()));
        }
        auth.check().map_err(|problem| SetupError::Auth { name: name.clone(), problem })?;
        let http = net::client_with(&tls, proxy.as_ref(), deadlines)
            .and_then(|http| http.with_headers(&headers))
            .map_err(|source| SetupError::Net { name: name.clone(), source })?;
        let place = instance.as_str().trim_end_matches('/').to_owned();
        let token_url = below(&instance, "/oauth_token.do");
        let user = User::of(&auth);
        let others = headers.into_iter().map(|(_, value)| value);
        let others =
            others.chain(proxy.and_then(|proxy| proxy.login).map(|(_, password)| password)).collect();
        Ok(Self {
            name: name.clone(),
            base: instance,
            login: Login::new(name, auth, token_url, place.clone(), others),
            place,
            http,
            clock: ClockBox(clock),
            requests: AtomicU64::new(0),
            limits: Mutex::default(),
            shut_grant: AtomicU64::new(0),
            look_up_max: AtomicUsize::new(FIND_MAX),
            no_change_api: Absent::default(),
            batching: Batching::default(),
            schema: None,
            user,
            display: DISPLAY.to_owned(),
            devices,
            sets: super::cmdb::Sets::default(),
            plain_identify: Absent::default(),
            cis: Cis::default(),
            others: KnownOthers::default(),
        })
    }

    /// The same, for this agent: [`super::display`].
    #[must_use]
    pub fn of_agent(mut self, display: String) -> Self {
        self.display = display;
        self
    }

    /// What a person has to know about this destination before it fails.
    pub fn concern(&self) -> Option<HealthIssue> {
        self.login.concern(self.clock.0.now())
    }

    /// Logs in once with a user's name and password, and gives the refresh token that came of it. Nothing is kept.
    ///
    /// # Errors
    /// [`SendError`]; also where the instance gave no refresh token.
    pub async fn obtain_refresh_token(
        &self,
        username: &str,
        password: &Secret,
    ) -> Result<SecretString, SendError> {
        let line = Line { http: &self.http, requests: &self.requests, now: self.clock.0.now() };
        let granted = self.login.first(username, password, &line).await?;
        granted.refresh.ok_or_else(|| {
            let message = format!("{} gave a token, but no refresh token", self.place);
            let remedy = "let the OAuth registry record issue refresh tokens (field Refresh Token Lifespan)";
            SendError::new(Class::Hold, HoldScope::Destination, message, remedy)
        })
    }

    pub(super) fn last_rate_limit(&self) -> RateLimit {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).of_now(self.now())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.0.now()
    }

    /// How an answer to such a call is judged and worded.
    pub(super) fn attempt<'a>(&'a self, what: What, table: &'a TableName) -> Attempt<'a> {
        Attempt { what, table, place: &self.place, now: self.clock.0.now() }
    }

    /// The parsed answer of a success, and the answer it came in. A 401 says that nothing was executed, so the call is
    /// made once more with a fresh token.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<(Value, Answer), SendError> {
        let authorization = self.authorization().await?;
        let first = self.once(call, &authorization).await;
        let is_beside = self.attempt(call.what, call.table).is_beside();
        let is_shut = is_beside && self.shut_grant.load(Ordering::Relaxed) == authorization.grant;
        match first {
            Err(error) if error.status == Some(401) && self.login.can_renew() && !is_shut => {
                self.login.refused(authorization.grant).await;
                let fresh = self.authorization().await?;
                let second = self.once(call, &fresh).await;
                if is_beside && second.as_ref().is_err_and(|e| e.status == Some(401)) {
                    self.shut_grant.store(fresh.grant, Ordering::Relaxed);
                }
                second
            }
            other => other,
        }
    }

    pub(super) async fn authorization(&self) -> Result<Authorization, SendError> {
        let line = Line { http: &self.http, requests: &self.requests, now: self.clock.0.now() };
        self.login.authorization(&line).await
    }

    async fn once(
        &self,
        call: &Call<'_>,
        authorization: &Authorization,
    ) -> Result<(Value, Answer), SendError> {
        let attempt = self.attempt(call.what, call.table);
        match self.http.send(self.request(call, authorization)).await {
            Ok(answer) => {
                if !attempt.is_beside() {
                    self.note_rate_limit(&answer, call.path);
                }
                self.judged(answer, &attempt, authorization).map_err(|e| call.path.narrowed(e))
            }
            Err(error) => {
                let mut error = classify::no_answer(&error, &attempt);
                error.message = self.login.scrubber(authorization).text(&error.message).into_owned();
                Err(error)
            }
        }
    }

    /// An answer that came in another one.
    pub(super) async fn verdict(
        &self,
        answer: Answer,
        attempt: &Attempt<'_>,
    ) -> Result<(Value, Answer), SendError> {
        let authorization = self.authorization().await?;
        self.judged(answer, attempt, &authorization)
    }

    fn judged(
        &self,
        mut answer: Answer,
        attempt: &Attempt<'_>,
        authorization: &Authorization,
    ) -> Result<(Value, Answer), SendError> {
        let judged = match classify::judge(&answer, attempt) {
            Ok(value) => Ok((value, answer)),
            // Judged once more without our secrets, in case it quotes us: its words get into the error. The verdict
            // stays: scrubbing may mend a damaged body.
            Err(verdict) => {
                self.login.scrubber(authorization).bytes(&mut answer.body);
                let clean = classify::judge(&answer, attempt).err();
                Err(clean.filter(|e| e.class == verdict.class).unwrap_or(verdict))
            }
        };
        judged.map_err(|mut error| {
            error.message = self.login.scrubber(authorization).text(&error.message).into_owned();
            let is_unexplained =
                error.status == Some(401) && error.class == Class::Hold && error.remedy.is_empty();
            if is_unexplained && attempt.is_beside() {
                SHUT.clone_into(&mut error.remedy);
            } else if is_unexplained {
                self.login.refused_call_remedy().clone_into(&mut error.remedy);
            }
            if error.status == Some(403)
                && let Some(remedy) = Login::scope_remedy(&error.message)
            {
                // Every table and every delivery fares the same.
                (error.class, error.hold) = (Class::Hold, HoldScope::Destination);
                remedy.clone_into(&mut error.remedy);
            }
            if attempt.is_beside() && error.hold == HoldScope::Delivery && error.is_general {
                // Something in between dislikes this file, or all of them; the tickets are no matter of it.
                error.is_general = false;
            } else if attempt.is_beside() || attempt.what == What::Batch && batch::is_refusal(&error) {
                error.is_general = error.hold == HoldScope::Destination;
                error.hold = HoldScope::Table;
            }
            error
        })
    }

    fn request(&self, call: &Call<'_>, authorization: &Authorization) -> Request {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut url = below(&self.base, &call.path.text());
        url.set_query((!call.query.is_empty()).then_some(&call.query));
        let mut headers = vec![("accept", "application/json".to_owned())];
        headers.extend(authorization.line());
        if call.body.is_some() {
            let kind = if let Path::Attachment(kind) = call.path { kind } else { "application/json" };
            headers.push(("content-type", kind.to_owned()));
        }
        let answer_max = if call.what == What::LookUp { LOOK_UP_MAX } else { ANSWER_MAX };
        Request { method: call.method, url, headers, body: call.body.clone(), answer_max }
    }

    fn note_rate_limit(&self, answer: &Answer, path: Path<'_>) {
        let now = self.now();
        if matches!(path, Path::Records(_) | Path::Record(..)) {
            self.limits.lock().unwrap_or_else(PoisonError::into_inner).tables_at = Some(now);
        }
        let Some(seen) = classify::rate_limit(answer) else { return };
        // By the instance's clock, as ours need not be right.
        let server_now = classify::server_date(answer).unwrap_or(now);
        let left = seen.reset_at.map(|at| at.since(server_now)).filter(|left| !left.is_zero());
        let told = Told { seen, at: now, for_: left.unwrap_or(LIMIT_HOLDS).min(LIMIT_HOLDS) };
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        match path {
            Path::Records(_) | Path::Record(..) => limits.tables = Some(told),
            // What is no longer taken together goes singly.
            Path::Batch => {}
            _ => limits.others = Some(told),
        }
    }
}

/// What the instance said of its hourly limits. Each of its rules is for one API, and what one API is told is not said of
/// another: where tickets go by the Table API, its limit is what we keep to, and what goes by another waits by itself when
/// that is at its end. The limits of others are kept to where nothing goes by the Table API. Calls beside the tickets tell
/// nothing here.
#[derive(Debug, Default)]
struct Limits {
    /// The Table API.
    tables: Option<Told>,
    /// When it was last called.
    tables_at: Option<Timestamp>,
    /// Changes, events, rows, devices.
    others: Option<Told>,
}

/// A limit as it was told last.
#[derive(Clone, Copy, Debug)]
struct Told {
    seen: RateLimit,
    at: Timestamp,
    /// So long until its window begins again, and it is told anew.
    for_: Duration,
}

impl Limits {
    fn of_now(&self, now: Timestamp) -> RateLimit {
        let holds = |told: &Told| told.at <= now && now < told.at.after(told.for_);
        let goes_by_tables = self.tables_at.is_some_and(|at| at <= now && now < at.after(LIMIT_HOLDS));
        let told = if goes_by_tables { self.tables } else { self.others };
        told.filter(holds).map(|told| told.seen).unwrap_or_default()
    }
}

/// An address of the instance, also where a gateway gives it a path.
fn below(instance: &Url, path: &str) -> Url {
    let mut url = instance.clone();
    url.set_path(&format!("{}{path}", instance.path().trim_end_matches('/')));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_the_api() {
        let table = TableName::new("incident").expect("a table");
        let sys_id = SysId::new(&"a".repeat(32)).expect("a sys_id");
        let paths = [
            (Path::Records(&table), "/api/now/table/incident"),
            (Path::Record(&table, &sys_id), "/api/now/table/incident/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            (Path::Import(&table), "/api/now/import/incident"),
            (Path::Events, "/api/global/em/jsonv2"),
            (Path::Batch, "/api/now/v1/batch"),
            (Path::Change("normal/.."), "/api/sn_chg_rest/change/normal%2F.."),
            (Path::Identify, "/api/now/identifyreconcile/enhanced"),
            (Path::IdentifyPlain, "/api/now/identifyreconcile"),
            (Path::Attachment("text/plain"), "/api/now/attachment/file"),
        ];
        for (path, text) in paths {
            assert_eq!(path.text(), text);
        }
    }
}
