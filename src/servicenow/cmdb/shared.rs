//! Another integration that tells the CMDB of the same devices: what `sys_object_source` says of our CIs.
//!
//! Only told: whose word counts is decided there, by reconciliation rules. What they keep from us is not sent again before
//! the device itself changes. It is looked when the engine found one of our new devices there already, else once an hour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::call::ServiceNow;
use super::super::classify::What;
use super::super::learned::{OTHERS_MAX, seconds};
use super::super::query::Query;
use super::super::wire;
use super::{Settings, TABLE};
use crate::destination::{DeviceOrder, DevicePut, DeviceRefusal, Remark, Reviewed, SendError};
use crate::model::gather::Gather as _;
use crate::model::text::{clip, one_line};
use crate::model::{SysId, TableName};

/// What it is called in `status`.
const CODE: &str = "cmdb-other-source";
/// Where each source of a CI has a row.
const SOURCES: &str = "sys_object_source";
/// CIs that are looked at.
const CIS_MAX: usize = 40;
/// Rows that are read of them.
const ROWS_MAX: usize = 400;
/// Other integrations that are named.
const NAMED_MAX: usize = 5;
/// Time between two looks that nothing gives reason for.
const LOOK_EVERY_S: u64 = 3_600;
/// Longest name of one that is repeated, in bytes.
const NAME_MAX: usize = 80;

/// Another data source on CIs of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// On how many of those that were looked at.
    pub cis: usize,
    /// One of them.
    pub example: String,
}

impl Other {
    /// What is the case.
    pub fn text(&self, place: &str) -> String {
        let Self { name, cis, example } = self;
        format!(
            "`{name}` tells the CMDB of {place} of the same devices as otrelay: {cis} of the CIs looked at, {example} one of them"
        )
    }

    /// What to do.
    pub fn remedy(&self, own: &str) -> String {
        let name = &self.name;
        format!(
            "if both read the same sensor or console, end one of them; else decide there whose word counts: reconciliation \
             rules of cmdb_ci with `{own}` and `{name}` (docs/devices.md, Another integration)"
        )
    }
}

/// The others that were named: what is looked at again, to see whether it is still so.
#[derive(Debug, Default)]
pub(in super::super) struct KnownOthers {
    /// When it was last looked, in seconds.
    pub(in super::super) looked_at: AtomicU64,
    /// Name, and one of the CIs.
    names: Mutex<BTreeMap<String, String>>,
}

impl KnownOthers {
    pub(in super::super) fn names(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn know(&self, others: &[Other]) {
        let mut names = self.names();
        for other in others {
            if names.len() < OTHERS_MAX || names.contains_key(&other.name) {
                names.insert(other.name.clone(), other.example.clone());
            }
        }
    }
}

impl ServiceNow {
    /// Other integrations that have these CIs too, as remarks.
    pub(super) async fn others(
        &self,
        settings: &Settings,
        orders: &[DeviceOrder],
        outcomes: &[Result<DevicePut, DeviceRefusal>],
    ) -> Vec<Remark> {
        let known: Vec<(&DeviceOrder, &SysId)> = orders
            .iter()
            .zip(outcomes)
            .filter_map(|(order, put)| {
                let put = put.as_ref().ok().filter(|put| !put.created)?;
                Some((order, put.sys_id.as_ref()?))
            })
            .collect();
        let found = known.iter().any(|(order, _)| !order.is_known);
        if known.is_empty() || !found && !self.is_time_to_look() {
            return Vec::new();
        }
        self.others.looked_at.store(seconds(self.now()), Ordering::Relaxed);
        let ids = known.iter().map(|(_, id)| id.as_str());
        // It is an extra: who may not read it hears that from `otrelay doctor`.
        let others = self.others_of(settings, ids).await.unwrap_or_default();
        self.others.know(&others);
        others.into_iter().map(|other| self.remark(settings, other)).collect()
    }

    fn is_time_to_look(&self) -> bool {
        let looked_at = self.others.looked_at.load(Ordering::Relaxed);
        seconds(self.now()).abs_diff(looked_at) >= LOOK_EVERY_S
    }

    fn remark(&self, settings: &Settings, other: Other) -> Remark {
        let (text, remedy) = (other.text(&self.place), other.remedy(&settings.data_source));
        Remark { code: CODE, field: other.name, text, remedy }
    }

    /// Whether the others that were named are still there, once an hour or as a person wants it: at the CIs where they were seen, and where
    /// they are no longer, at those that `otrelay doctor` looks at.
    pub(in super::super) async fn review_others(&self, is_order: bool) -> Reviewed {
        let mut reviewed = Reviewed::default();
        let known = self.others.names().clone();
        if known.is_empty() {
            return reviewed;
        }
        let over = |names: Vec<String>| names.into_iter().map(|name| (CODE, name)).collect();
        let Some(settings) = self.devices.as_ref().filter(|settings| settings.import.is_none()) else {
            // Nothing is told by identification any more: there is nothing to fight over.
            self.others.names().clear();
            reviewed.over = over(known.into_keys().collect());
            return reviewed;
        };
        if !is_order && !self.is_time_to_look() {
            return reviewed;
        }
        self.others.looked_at.store(seconds(self.now()), Ordering::Relaxed);
        // What cannot be seen now stays as it was.
        let Ok(mut others) = self.others_of(settings, known.values().map(String::as_str)).await else {
            return reviewed;
        };
        let gone = |others: &[Other]| {
            let is_there = |name: &String| others.iter().any(|other| other.name == *name);
            known.keys().filter(|name| !is_there(name)).cloned().collect::<Vec<String>>()
        };
        if !gone(&others).is_empty() {
            let Ok(more) = self.other_sources().await else { return reviewed };
            let is_new = |other: &Other| others.iter().all(|known| known.name != other.name);
            let more: Vec<Other> = more.unwrap_or_default().into_iter().filter(is_new).collect();
            others.extend(more);
        }
        let gone = gone(&others);
        self.others.names().retain(|name, _| !gone.contains(name));
        self.others.know(&others);
        reviewed.over = over(gone);
        reviewed.remarks = others.into_iter().map(|other| self.remark(settings, other)).collect();
        reviewed
    }

    /// Other integrations that have CIs of ours, as `otrelay doctor` looks: at some that have our name. `None`: none has.
    ///
    /// # Errors
    /// [`SendError`]: it may not be read, or nothing gets through.
    pub async fn other_sources(&self) -> Result<Option<Vec<Other>>, SendError> {
        let Some(settings) = &self.devices else { return Ok(None) };
        let query =
            Query::default().is("name", &settings.data_source).and_then(|q| q.order_by("target_sys_id"));
        let Ok(query) = query else { return Ok(None) };
        let rows = self.source_rows(&query, CIS_MAX).await?;
        let ours = rows.iter().filter(|row| wire::field(row, "name") == settings.data_source);
        let ids: BTreeSet<String> = ours.map(|row| wire::field(row, "target_sys_id")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).filter(|id| SysId::new(id).is_ok()).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        self.others_of(settings, ids.into_iter()).await.map(Some)
    }

    async fn others_of<'a>(
        &self,
        settings: &Settings,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<Other>, SendError> {
        let ids: BTreeSet<&str> = ids.take(CIS_MAX).into_set();
        let Ok(query) = Query::default().one_of("target_sys_id", ids.iter().copied()) else {
            return Ok(Vec::new());
        };
        let rows = self.source_rows(&query, ROWS_MAX).await?;
        let mut others: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in &rows {
            let (name, target) = (wire::field(row, "name"), wire::field(row, "target_sys_id"));
            // A condition that the instance does not know is dropped there, and strangers come.
            if name != settings.data_source && !name.is_empty() && ids.contains(target.as_str()) {
                others.entry(clip(&one_line(&name), NAME_MAX).into_owned()).or_default().insert(target);
            }
        }
        let other = |(name, cis): (String, BTreeSet<String>)| Other {
            name,
            cis: cis.len(),
            example: cis.first().cloned().unwrap_or_default(),
        };
        Ok(others.into_iter().take(NAMED_MAX).map(other).collect())
    }

    async fn source_rows(&self, query: &Query, limit: usize) -> Result<Vec<serde_json::Value>, SendError> {
        let (Ok(table), Ok(from)) = (TableName::new(TABLE), TableName::new(SOURCES)) else {
            return Ok(Vec::new());
        };
        let attempt = self.attempt(What::LookUp, &table);
        self.records_of(&attempt, &from, query, "name,target_sys_id", limit).await
    }
}
