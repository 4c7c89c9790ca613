//! Another integration that tells the CMDB of the same devices: what `sys_object_source` says of our CIs.
//!
//! Only told: whose word counts is decided there, by reconciliation rules. What they keep from us is not sent again before
//! the device itself changes. It is looked when the engine found one of our new devices there already, else once an hour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::super::call::ServiceNow;
use super::super::classify::What;
use super::super::query::Query;
use super::super::wire;
use super::{Settings, TABLE};
use crate::destination::{DeviceOrder, DevicePut, DeviceRefusal, Remark, SendError};
use crate::model::text::{clip, one_line};
use crate::model::{SysId, TableName};

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
        let now = u64::try_from(self.now().as_secs()).unwrap_or_default();
        let due = now.abs_diff(self.looked_for_others.load(Ordering::Relaxed)) >= LOOK_EVERY_S;
        if known.is_empty() || !found && !due {
            return Vec::new();
        }
        self.looked_for_others.store(now, Ordering::Relaxed);
        let ids = known.iter().map(|(_, id)| id.as_str());
        // It is an extra: who may not read it hears that from `otrelay doctor`.
        let others = self.others_of(settings, ids).await.unwrap_or_default();
        let remark = |other: Other| Remark {
            code: "cmdb-other-source",
            field: other.name.clone(),
            text: other.text(&self.place),
            remedy: other.remedy(&settings.data_source),
        };
        others.into_iter().map(remark).collect()
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
        let ids: BTreeSet<&str> = ids.take(CIS_MAX).collect();
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
