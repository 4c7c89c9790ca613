//! Which CI there a device is that an alert is about, where no devices are told: looked up by address, MAC and name,
//! many in one request, and remembered.
//!
//! A condition that the instance drops brings strangers, so each row is compared here. One CI or none: of two that may be
//! meant neither is. Whatever is refused or fails here holds no ticket; it goes out without a CI.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::call::{Call, Path, ServiceNow};
use super::classify::What;
use super::query::{Query, url_value};
use super::ticket::VALUES;
use super::wire;
use crate::destination::{MayAsk, Order, SendError};
use crate::model::{Endpoint, SysId, TableName, Timestamp};

/// The table of all CIs, and the column of a ticket that names one.
pub(super) const CI: &str = "cmdb_ci";
const COLUMNS: &str = "sys_id,name,ip_address,mac_address,sys_class_name,install_status,duplicate_of";
/// Parts of a device that are rows of that table as well, with its addresses.
const PARTS: [&str; 2] = ["cmdb_ci_network_adapter", "cmdb_ci_ip_address"];
/// `install_status` of what is no longer there: retired, absent.
const GONE: [&str; 2] = ["7", "100"];
/// Ends in one request: its address stays far below what gateways take.
const ENDS: usize = 20;
/// Longest name that is asked for, in bytes.
const NAME_MAX: usize = 100;
/// Rows of one request; as many say nothing for sure.
const ROWS: usize = 200;
/// Ends that are remembered; then it begins anew.
const REMEMBERED: usize = 2_000;
/// How long one that was found is believed, and one that was not.
const FOUND: Duration = Duration::from_hours(24);
const MISSING: Duration = Duration::from_hours(1);
/// How long nothing is asked after a refusal, and after a failure that passes.
const REFUSED: Duration = Duration::from_hours(1);
const FAILED: Duration = Duration::from_secs(30);

/// What is remembered of ends, by what they are known by.
#[derive(Debug, Default)]
pub(super) struct Cis(Mutex<Known>);

/// The one CI that an end is; none where there is none, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found(Option<SysId>);

#[derive(Debug, Default)]
struct Known {
    ends: HashMap<String, (Timestamp, Found)>,
    /// From when to when nothing is asked.
    rests: Option<(Timestamp, Timestamp)>,
}

impl Cis {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What was found, or not, where somebody asked lately.
    fn of(&self, end: &Endpoint, now: Timestamp) -> Option<&Found> {
        let (at, found) = self.ends.get(&key(end))?;
        let most = if found.0.is_some() { FOUND } else { MISSING };
        (*at <= now && now < at.after(most)).then_some(found)
    }

    fn learn(&mut self, end: &Endpoint, found: Found, now: Timestamp) {
        if self.ends.len() >= REMEMBERED {
            self.ends.clear();
        }
        self.ends.insert(key(end), (now, found));
    }
}

impl ServiceNow {
    /// Asks which CIs these ends are, as far as that is not known and may be asked now.
    pub(super) async fn know_cis(&self, table: &TableName, ends: &[Endpoint], may_ask: MayAsk<'_>) {
        if !self.has_column(table, CI) {
            return;
        }
        let now = self.now();
        let mut asked: Vec<&Endpoint> = Vec::new();
        {
            let known = self.cis.known();
            // A clock that was set back is no reason to rest.
            if known.rests.is_some_and(|(from, to)| from <= now && now < to) {
                return;
            }
            for end in ends.iter().filter(|end| can_ask(end) && known.of(end, now).is_none()) {
                if !asked.iter().any(|one| key(one) == key(end)) {
                    asked.push(end);
                }
            }
        }
        for some in asked.chunks(ENDS) {
            if !may_ask() {
                return;
            }
            match self.ask_cis(some).await {
                Ok(rows) => {
                    let cis: Vec<Ci> = rows.iter().filter_map(Ci::read).collect();
                    let mut known = self.cis.known();
                    for end in some {
                        let found = one(end, &cis).filter(|_| rows.len() < ROWS);
                        known.learn(end, Found(found.map(|ci| ci.sys_id.clone())), now);
                    }
                }
                Err(e) => {
                    let rest = if matches!(e.status, Some(400..=404)) { REFUSED } else { FAILED };
                    self.cis.known().rests = Some((now, now.after(rest)));
                    tracing::warn!(
                        "{}: tickets name no CI for now, as {CI} cannot be asked: {e}",
                        self.place
                    );
                    return;
                }
            }
        }
    }

    /// The CI of what a record is about, as far as it is known.
    pub(super) fn known_ci(&self, order: &Order) -> Option<String> {
        let (known, now) = (self.cis.known(), self.now());
        order.affected.iter().find_map(|end| known.of(end, now)?.0.as_ref().map(ToString::to_string))
    }

    async fn ask_cis(&self, ends: &[&Endpoint]) -> Result<Vec<Value>, SendError> {
        let Ok(table) = TableName::new(CI) else { return Ok(Vec::new()) };
        let Some(query) = query(ends) else { return Ok(Vec::new()) };
        let call = Call::get(
            What::Schema,
            &table,
            Path::Records(&table),
            format!(
                "sysparm_query={}&sysparm_fields={}&{VALUES}&sysparm_no_count=true&sysparm_limit={ROWS}",
                query.encoded(),
                url_value(COLUMNS)
            ),
        );
        let (mut value, answer) = self.call(&call).await?;
        if let Some(Value::Array(rows)) = value.get_mut("result").map(Value::take) {
            return Ok(rows);
        }
        let attempt = self.attempt(What::Schema, &table);
        Err(attempt.retry("the answer has no list of records").answered(answer.status))
    }
}

/// All that these ends may be known by, any of it.
fn query(ends: &[&Endpoint]) -> Option<Query> {
    let ips: Vec<String> = ends.iter().filter_map(|end| Some(end.ip?.to_string())).collect();
    let macs: Vec<&str> = ends.iter().filter_map(|end| mac(end)).collect();
    let names: Vec<&str> = ends.iter().filter_map(|end| name(end)).collect();
    let mut query = Query::default();
    for (column, values) in
        [("ip_address", ips.iter().map(String::as_str).collect()), ("mac_address", macs), ("name", names)]
    {
        if !values.is_empty() {
            query = query.or_one_of(column, values).ok()?;
        }
    }
    Some(query)
}

fn key(end: &Endpoint) -> String {
    let ip = end.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{ip} {} {}", text(&end.mac), text(&end.name))
}

fn can_ask(end: &Endpoint) -> bool {
    end.ip.is_some() || mac(end).is_some() || name(end).is_some()
}

/// Beside an address it may be a router's.
fn mac(end: &Endpoint) -> Option<&str> {
    end.mac.as_deref().filter(|_| end.ip.is_none())
}

/// A name that can be put into a list safely.
fn name(end: &Endpoint) -> Option<&str> {
    let is_safe = |name: &&str| {
        name.len() <= NAME_MAX && Query::default().one_of("name", [*name]).is_ok() && !name.trim().is_empty()
    };
    end.name.as_deref().filter(is_safe)
}

/// A CI as it is compared.
#[derive(Debug)]
struct Ci {
    sys_id: SysId,
    name: String,
    ip: Option<IpAddr>,
    mac: String,
}

impl Ci {
    /// Of a row that can be meant.
    fn read(row: &Value) -> Option<Self> {
        let text = |name: &str| wire::field(row, name);
        let is_one = !PARTS.contains(&text("sys_class_name").as_str())
            && !GONE.contains(&text("install_status").as_str())
            && text("duplicate_of").is_empty();
        Some(Self {
            sys_id: SysId::new(&text("sys_id")).ok().filter(|_| is_one)?,
            name: text("name").trim().to_lowercase(),
            ip: text("ip_address").trim().parse().ok(),
            mac: digits(&text("mac_address")),
        })
    }
}

/// A MAC as it is compared: people and tools write it in many ways.
fn digits(mac: &str) -> String {
    mac.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_lowercase()).collect()
}

/// The one CI that an end is.
fn one<'a>(end: &Endpoint, cis: &'a [Ci]) -> Option<&'a Ci> {
    let only = |found: Vec<&'a Ci>| match found.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let mac = end.mac.as_deref().map(digits).filter(|mac| !mac.is_empty());
    let has_mac = |ci: &&Ci| mac.as_ref().is_some_and(|mac| *mac == ci.mac);
    let named = end.name.as_ref().map(|name| name.trim().to_lowercase());
    let has_name = |ci: &&Ci| named.as_ref().is_some_and(|name| *name == ci.name);
    let first: Vec<&Ci> = match end.ip {
        Some(ip) => cis.iter().filter(|ci| ci.ip == Some(ip)).collect(),
        None => cis.iter().filter(has_mac).collect(),
    };
    match first.len() {
        1 => return only(first),
        // Of several the rest may tell.
        2.. => {
            let by_mac = only(first.iter().copied().filter(has_mac).collect());
            return by_mac.or_else(|| only(first.into_iter().filter(has_name).collect()));
        }
        0 => {}
    }
    // By its name alone, unless it has another address, or another MAC where there is no address.
    let is_other = |ci: &Ci| match end.ip {
        Some(_) => ci.ip.is_some(),
        None => mac.is_some() && !ci.mac.is_empty(),
    };
    only(cis.iter().filter(has_name).filter(|ci| !is_other(ci)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn end(ip: &str, mac: &str, name: &str) -> Endpoint {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Endpoint { ip: ip.parse().ok(), mac: text(mac), name: text(name), ..Endpoint::default() }
    }

    fn row(n: u8, name: &str, ip: &str, mac: &str) -> Value {
        json!({"sys_id": format!("{n:032x}"), "name": name, "ip_address": ip, "mac_address": mac,
            "sys_class_name": "cmdb_ci_ot_plc", "install_status": "1", "duplicate_of": ""})
    }

    #[test]
    fn one_ci_or_none_by_address_mac_or_name() {
        let mut rows = vec![
            row(1, "Mixer", "10.9.9.9", "00-1B-1B-44-55-66"),
            row(2, "Pump", "10.9.9.2", ""),
            row(3, "Pump", "10.9.9.3", ""),
            row(4, "Twin A", "10.9.9.4", "00:1b:1b:00:00:04"),
            row(5, "Twin B", "10.9.9.4", "00:1b:1b:00:00:05"),
            row(6, "Bare", "", ""),
            row(7, "Old", "10.9.9.7", ""),
            row(8, "Card", "10.9.9.9", "00:1b:1b:44:55:66"),
            row(9, "Double", "10.9.9.9", "00:1b:1b:44:55:66"),
        ];
        rows[6]["install_status"] = json!("7");
        rows[7]["sys_class_name"] = json!("cmdb_ci_network_adapter");
        rows[8]["duplicate_of"] = json!("0".repeat(32));
        let cis: Vec<Ci> = rows.iter().filter_map(Ci::read).collect();
        let check = |end: Endpoint, expected: Option<u8>| {
            let found = one(&end, &cis).map(|ci| ci.sys_id.to_string());
            assert_eq!(found, expected.map(|n| format!("{n:032x}")), "{end:?}");
        };
        let a = "00:1b:1b:44:55:66";
        check(end("10.9.9.9", "", ""), Some(1));
        check(end("", a, ""), Some(1));
        check(end("", "", "mixer"), Some(1));
        check(end("10.7.7.7", a, ""), None);
        check(end("10.7.7.7", "", "Mixer"), None);
        check(end("", "", "Pump"), None);
        check(end("10.9.9.3", "", "Pump"), Some(3));
        check(end("10.9.9.4", "", ""), None);
        check(end("10.9.9.4", "00:1b:1b:00:00:05", ""), Some(5));
        check(end("10.9.9.4", "", "twin a"), Some(4));
        check(end("10.7.7.7", a, "bare"), Some(6));
        check(end("10.9.9.7", "", ""), None);
        check(end("", "", ""), None);
    }

    #[test]
    fn a_question_has_all_ends_in_it_and_nothing_that_would_widen_it() {
        let ends = [
            end("10.9.9.9", "00:1b:1b:44:55:66", "Mixer"),
            end("", "00:1b:1b:00:00:04", "a,b"),
            end("", "", "javascript:gs.getUserID()"),
        ];
        let asked: Vec<&Endpoint> = ends.iter().filter(|end| can_ask(end)).collect();
        assert_eq!(asked.len(), 2);
        let expected = "ip_addressIN10.9.9.9^ORmac_addressIN00:1b:1b:00:00:04^ORnameINMixer";
        assert_eq!(query(&asked).unwrap().as_str(), expected);
    }

    #[test]
    fn what_was_found_holds_for_a_day_and_what_was_not_for_an_hour() {
        let now = Timestamp::from_secs(1_795_248_900);
        let (mut known, there, absent) = (Known::default(), end("10.9.9.9", "", ""), end("10.9.9.8", "", ""));
        let ci = SysId::new(&"a".repeat(32)).unwrap();
        let (one, none) = (Found(Some(ci)), Found(None));
        known.learn(&there, one.clone(), now);
        known.learn(&absent, none.clone(), now);
        let after = |hours: u64| now.after(Duration::from_hours(hours));
        assert_eq!((known.of(&there, now), known.of(&absent, now)), (Some(&one), Some(&none)));
        assert_eq!((known.of(&there, after(2)), known.of(&absent, after(2))), (Some(&one), None));
        assert_eq!(known.of(&there, after(24)), None);
        assert_eq!(known.of(&there, now.before(FAILED)), None, "the clock was set back");
        for n in 0..=REMEMBERED {
            known.learn(&end("", "", &format!("n{n}")), Found(None), now);
        }
        assert!(known.ends.len() <= REMEMBERED);
    }
}
