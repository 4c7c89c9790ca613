//! `[devices]`: where devices go, how often, and as which classes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Agent;
use super::check::{Check, MIN_INTERVAL};
use super::file::Devices;
use super::problem::At;
use super::read::Field;
use super::show::Origin;
use super::values::{DeviceMethod, OnDeleted};
use crate::model::names::is_field;
use crate::model::{DestinationName, TableName};
use crate::relay;
use crate::servicenow::cmdb;

/// What both sides of the wire need to know of devices.
pub(super) struct Checked {
    pub(super) relay: relay::Devices,
    pub(super) wire: cmdb::Settings,
}

/// Checks the table; `None`: devices are not pushed, or there was an error.
pub(super) fn check(
    field: &Field<Devices>,
    agent: Option<&Agent>,
    destinations: &[&str],
    c: &mut Check<'_>,
) -> Option<Checked> {
    let (devices, at) = field.get()?;
    c.effective.begin("[devices]", "devices");
    let enabled = c.value("enabled", &devices.enabled, true, |v| *v);
    let servicenow = servicenow(devices, at, destinations, c);
    let method = c.value("method", &devices.method, DeviceMethod::IdentifyReconcile, |m| m.as_str());
    let way = way(devices, method, c);
    let data_source = if devices.data_source.is_present() {
        c.line("data_source", &devices.data_source, 40)
    } else {
        c.effective.note("data_source", "otrelay", Origin::Default);
        Some("otrelay".to_owned())
    };
    let interval = c.duration("interval", &devices.interval, "60m", MIN_INTERVAL);
    let on_deleted = c.value("on_deleted", &devices.on_deleted, OnDeleted::Note, |w| w.as_str());
    let class_map = class_map(devices, c);
    if enabled != Some(true) {
        return None;
    }
    let agent = agent?;
    let (table, import) = match way? {
        Way::Identify => (TableName::new(cmdb::TABLE).ok()?, None),
        Way::Import(import) => (import.device.clone(), Some(import)),
    };
    let destination = DestinationName::new(&servicenow?).ok()?;
    Some(Checked {
        relay: relay::Devices { destination, table, interval: interval? },
        wire: cmdb::Settings {
            agent: agent.id.clone(),
            sensor: agent.name.clone(),
            data_source: data_source?,
            class_map: class_map?,
            on_deleted: match on_deleted? {
                OnDeleted::Retire => cmdb::OnDeleted::Retire,
                OnDeleted::Note => cmdb::OnDeleted::Note,
                OnDeleted::None => cmdb::OnDeleted::None,
            },
            import,
        },
    })
}

/// The destination; it may be left out when there is one.
fn servicenow(devices: &Devices, at: &At, destinations: &[&str], c: &mut Check<'_>) -> Option<String> {
    match (devices.servicenow.get(), destinations) {
        (Some((name, place)), all) => {
            c.effective.note("servicenow", name.clone(), place.into());
            if !c.complete || all.contains(&name.as_str()) {
                return Some(name.clone());
            }
            c.problems.error(place, "there is no destination with this name", |p| {
                let known: Vec<String> = all.iter().map(|name| format!("\"{name}\"")).collect();
                let p = p.quoted(name);
                if known.is_empty() {
                    p.hint("add [servicenow.NAME]")
                } else {
                    p.expected(known.join(" or "))
                }
            });
            None
        }
        (None, [only]) if !devices.servicenow.is_present() => {
            c.effective.note_field("servicenow", *only, &devices.servicenow);
            Some((*only).to_owned())
        }
        (None, [_, _, ..]) if !devices.servicenow.is_present() && is_on(devices) => {
            c.problems.error(&at.child("servicenow"), "missing: there is more than one destination", |p| {
                p.hint("say to which one devices go")
            });
            None
        }
        _ => None,
    }
}

fn is_on(devices: &Devices) -> bool {
    devices.enabled.get().is_none_or(|(enabled, _)| *enabled)
}

/// By which API, with what it needs.
enum Way {
    Identify,
    Import(cmdb::Import),
}

/// `None`: there was an error.
fn way(devices: &Devices, method: Option<DeviceMethod>, c: &mut Check<'_>) -> Option<Way> {
    let given = [devices.tables.at(), devices.columns.at(), devices.insert_multiple.at()];
    if !matches!(method, Some(DeviceMethod::ImportSet)) {
        for at in given.into_iter().flatten() {
            c.problems.error(at, "only method = \"import-set\" has staging tables", |p| {
                p.hint("set method = \"import-set\", or remove this key")
            });
        }
        return (method.is_some() && given.iter().all(Option::is_none)).then_some(Way::Identify);
    }
    let insert_multiple = c.value("insert_multiple", &devices.insert_multiple, false, |v| *v);
    let tables = tables(devices, c);
    let columns = columns(devices, insert_multiple == Some(true), c);
    let (insert_multiple, columns, [device, connection, firmware]) = (insert_multiple?, columns?, tables?);
    Some(Way::Import(cmdb::Import { device: device?, connection, firmware, columns, insert_multiple }))
}

/// `device`, `connection`, `firmware`.
fn tables(devices: &Devices, c: &mut Check<'_>) -> Option<[Option<TableName>; 3]> {
    const NAMES: [&str; 3] = ["device", "connection", "firmware"];
    let mut all = NAMES.map(|name| format!("u_otrelay_{name}"));
    let mut fine = devices.tables.get().is_some() || !devices.tables.is_present();
    for (name, table, at) in devices.tables.get().map_or(&[] as &[_], |(named, _)| named.0.as_slice()) {
        let place = NAMES.iter().position(|known| known == name);
        if place.is_none() {
            c.problems.error(at, "there is no such staging table", |p| {
                p.quoted(name).expected("device, connection or firmware").near(name, NAMES)
            });
        } else if table.is_empty() && name == "device" {
            c.problems.error(at, "the table of devices cannot be left out", |p| {
                p.hint("name it, or set enabled = false")
            });
        } else if !table.is_empty() && TableName::new(table).is_err() {
            c.problems.error(at, "this is no name of a table", |p| {
                p.quoted(table).expected("a staging table such as \"u_otrelay_device\"")
            });
        } else if let Some(place) = place {
            all[place].clone_from(table);
            continue;
        }
        fine = false;
    }
    let shown: serde_json::Map<String, Value> = NAMES
        .iter()
        .zip(&all)
        .map(|(name, table)| ((*name).to_owned(), Value::String(table.clone())))
        .collect();
    c.effective.note_field("tables", Value::Object(shown), &devices.tables);
    fine.then(|| all.map(|table| TableName::new(&table).ok()))
}

/// Our names of columns to theirs: names, or labels where all rows go at once.
fn columns(devices: &Devices, labels: bool, c: &mut Check<'_>) -> Option<BTreeMap<String, String>> {
    let Some((named, _)) = devices.columns.get() else {
        return (!devices.columns.is_present()).then(BTreeMap::new);
    };
    let known = cmdb::COLUMNS.map(|(name, _)| name);
    let (mut all, mut fine) = (BTreeMap::new(), true);
    for (name, column, at) in &named.0 {
        c.effective.note(&format!("columns.{name}"), column.clone(), at.into());
        let is_name = if labels {
            !column.trim().is_empty() && column.len() <= 80 && !column.contains(char::is_control)
        } else {
            is_field(column)
        };
        if !known.contains(&name.as_str()) {
            c.problems.error(at, "a row of a device has no such column", |p| {
                p.quoted(name).expected(format!("one of {}", known.join(", "))).near(name, known)
            });
        } else if !is_name {
            c.problems.error(at, "this is not the name of a column", |p| {
                let expected =
                    if labels { "a label of at most 80 letters" } else { "a-z 0-9 _, a letter first" };
                p.quoted(column).expected(expected)
            });
        } else {
            all.insert(name.clone(), column.clone());
            continue;
        }
        fine = false;
    }
    fine.then_some(all)
}

/// Type to class; an empty class means that the type gets no CI.
fn class_map(devices: &Devices, c: &mut Check<'_>) -> Option<BTreeMap<String, String>> {
    let Some((named, _)) = devices.class_map.get() else {
        return (!devices.class_map.is_present()).then(BTreeMap::new);
    };
    let (mut all, mut shown, mut fine) = (BTreeMap::new(), serde_json::Map::new(), true);
    for (kind, class, at) in &named.0 {
        if !class.is_empty() && TableName::new(class).is_err() {
            c.problems.error(at, "this is no name of a class", |p| {
                p.quoted(class).expected("a table of the CMDB such as \"cmdb_ci_ot_plc\"")
            });
            fine = false;
        }
        shown.insert(kind.clone(), Value::String(class.clone()));
        all.insert(kind.clone(), class.clone());
    }
    c.effective.note_field("class_map", Value::Object(shown), &devices.class_map);
    fine.then_some(all)
}
