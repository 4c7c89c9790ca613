//! Pure: what an identification request came to, item by item. An item that failed comes with 200 like all others.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::destination::{DevicePut, DeviceRefusal, Remark};
use crate::model::text::{clip, one_line};
use crate::model::{SysId, TableName};

/// Longest words of the engine that are repeated, in bytes.
const WORDS_MAX: usize = 300;
/// Most different words of it that are told.
const REMARKS_MAX: usize = 3;

/// What the whole request was refused for, though its answer is 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// `data_source` is no choice there.
    DataSource(String),
}

/// Where an item of the answer belongs, and what became of it.
struct Verdict<'a> {
    at: usize,
    item: &'a Value,
}

/// The outcome of each device: `spans` are the places of its items in the request, the CI's first.
pub(super) fn outcomes(
    result: &Value,
    spans: &[(usize, usize, String)],
    data_source: &str,
) -> Result<Vec<Result<DevicePut, DeviceRefusal>>, Whole> {
    let items: Vec<Verdict<'_>> = result
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(at, item)| {
            let said = item.get("inputIndices").and_then(|all| all.get(0)).and_then(Value::as_u64);
            Verdict { at: said.map_or(at, |n| n as usize), item }
        })
        .collect();
    if let Some(words) = items.iter().find_map(|v| errors(v.item).find(|e| is_data_source(e, data_source))) {
        return Err(Whole::DataSource(words.text()));
    }
    Ok(spans.iter().map(|(from, to, class)| device(&items, *from, *to, class)).collect())
}

/// What is wrong with relations, each of its words once. One whose device was refused is no matter of its own.
pub(super) fn relations(result: &Value, place: &str) -> Vec<Remark> {
    let all = result.get("relations").and_then(Value::as_array).into_iter().flatten();
    let words: BTreeSet<String> =
        all.flat_map(errors).filter(|error| error.code != "ABANDONED").map(|error| error.text()).collect();
    let remark = |words: String| {
        Remark {
        code: "cmdb-relation-refused",
        field: words.clone(),
        text: format!("{place} keeps the devices, but not what connects them: {words}"),
        remedy: "see that the relation types `Owns::Owned by`, `Connects to::Connected by` and `Detects::Detected by` are \
                 there (cmdb_rel_type); then `otrelay devices resync`"
            .to_owned(),
    }
    };
    words.into_iter().take(REMARKS_MAX).map(remark).collect()
}

fn device(items: &[Verdict<'_>], from: usize, to: usize, class: &str) -> Result<DevicePut, DeviceRefusal> {
    let of = |range: std::ops::Range<usize>| items.iter().filter(move |v| range.contains(&v.at));
    // The CI's own words first, then those of what belongs to it; that another one failed is no reason of its own.
    let failed = of(from..to).flat_map(|v| errors(v.item)).find(|e| e.code != "ABANDONED");
    let failed = failed.or_else(|| of(from..to).flat_map(|v| errors(v.item)).next());
    if let Some(error) = failed {
        return Err(refusal(&error, class));
    }
    let Some(ci) = of(from..from + 1).next() else {
        return Err(DeviceRefusal::again("the answer says nothing of this device".to_owned()));
    };
    let text = |name: &str| ci.item.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = text("operation");
    if matches!(operation, "INSERT_AS_PARTIAL" | "INSERT_AS_INCOMPLETE") {
        return Err(DeviceRefusal {
            message: format!("the instance put it aside ({operation}): it is in no class, but in cmdb_ire_partial_payloads"),
            remedy: "give the device what its identification rule asks for (name, serial number or MAC), or change the \
                     rule there"
                .to_owned(),
            ..DeviceRefusal::default()
        });
    }
    let Ok(sys_id) = SysId::new(text("sysId")) else {
        return Err(DeviceRefusal::again("the answer names no CI and no error".to_owned()));
    };
    // A class is the name of a table; anything else is not shown to anybody.
    let named = TableName::new(text("className")).map_or_else(|_| String::new(), |name| name.to_string());
    Ok(DevicePut {
        created: operation == "INSERT",
        sys_id: Some(sys_id),
        class: if named.is_empty() { class.to_owned() } else { named },
    })
}

/// What would become of a device, in lines: its CI first, then what belongs to it, then what would fail and why.
pub(super) fn would(result: &Value, (from, to): (usize, usize), class: &str) -> Vec<String> {
    let items = result.get("items").and_then(Value::as_array).map_or(&[] as &[_], Vec::as_slice);
    let mut lines = Vec::new();
    for item in items.iter().take(to).skip(from) {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        let line = match text("operation") {
            "" => String::new(),
            "INSERT" => format!("{}: INSERT, a new one", text("className")),
            other => format!("{}: {other} of {}{}", text("className"), text("sysId"), matched(item)),
        };
        lines.extend((!line.is_empty()).then(|| clip(&one_line(&line), WORDS_MAX).into_owned()));
        lines.extend(errors(item).map(|error| {
            let DeviceRefusal { message, remedy, .. } = refusal(&error, class);
            if remedy.is_empty() { message } else { format!("{message} — {remedy}") }
        }));
    }
    lines
}

fn matched(item: &Value) -> String {
    let all = item.get("identificationAttempts").and_then(Value::as_array).into_iter().flatten();
    let by = all.filter(|one| one["attemptResult"] == "MATCHED").find_map(|one| one["attributes"].as_array());
    let names: Vec<&str> = by.into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() { String::new() } else { format!(", matched by {}", names.join(", ")) }
}

/// The engine's own words.
struct Error<'a> {
    code: &'a str,
    message: &'a str,
}

impl Error<'_> {
    fn text(&self) -> String {
        clip(&one_line(&format!("{}: {}", self.code, self.message)), WORDS_MAX).into_owned()
    }
}

fn errors(item: &Value) -> impl Iterator<Item = Error<'_>> {
    let own = item.get("errors").and_then(Value::as_array).into_iter().flatten();
    let parts =
        ["lookupItems", "relatedItems"].into_iter().filter_map(|name| item.get(name)?.as_array()).flatten();
    let theirs = parts.filter_map(|part| part.get("errors")?.as_array()).flatten();
    own.chain(theirs).map(|error| Error {
        code: error.get("error").and_then(Value::as_str).unwrap_or("ERROR"),
        message: error.get("message").and_then(Value::as_str).unwrap_or_default(),
    })
}

/// Whether it is the name of the data source that is not known there.
fn is_data_source(error: &Error<'_>, data_source: &str) -> bool {
    error.code == "INVALID_INPUT_DATA" && names_source(error.message, data_source)
}

/// Whether these words are about the data source.
pub(super) fn names_source(words: &str, data_source: &str) -> bool {
    let words = words.to_lowercase();
    words.contains("discovery_source")
        || words.contains("data source")
        || words.contains("source_name")
        || words.contains(&format!("[{}]", data_source.to_lowercase()))
}

fn refusal(error: &Error<'_>, class: &str) -> DeviceRefusal {
    let message = format!("the CMDB refused it: {}", error.text());
    let words = error.message.to_lowercase();
    let no_class = words.contains("class") || words.contains("table");
    let absent = match error.code {
        "IDENTIFICATION_RULE_MISSING" | "METADATA_RULE_MISSING" => true,
        "INVALID_INPUT_DATA" => no_class,
        _ => false,
    };
    if absent {
        return DeviceRefusal {
            message: format!("{message} (class {class})"),
            remedy: format!(
                "install the store app CMDB CI Class Models, which brings {class}, or name another class in \
                 [devices] class_map; then `otrelay sync`"
            ),
            // It goes by itself once the class is there.
            again: true,
            notice: Some(("cmdb-class-missing", class.to_owned())),
        };
    }
    let (again, remedy) = match error.code {
        "LOCK_TIMEOUT" | "ABANDONED" => (true, ""),
        "MISSING_MATCHING_ATTRIBUTES" | "REQUIRED_ATTRIBUTE_EMPTY" => (
            false,
            "the identification rule of its class asks for attributes that no source gives: add one to the rule, or give \
             the device a name or serial number at its source",
        ),
        "MULTI_MATCH" | "MULTIPLE_DUPLICATE_RECORDS" => (
            false,
            "several CIs there fit this device: merge them (Duplicate CI Remediator), then `otrelay queue retry`",
        ),
        "RECLASSIFICATION_NOT_ALLOWED" => (
            false,
            "the CI there has another class: allow the change there (reclassification restriction rules), or map the type \
             to that class in [devices] class_map",
        ),
        "INSERT_NOT_ALLOWED_FOR_SOURCE" => (
            false,
            "the IRE data source rule of this class keeps our data source from making CIs: allow it there",
        ),
        "MISSING_DEPENDENCY" | "MULTIPLE_DEPENDENCIES" => {
            (false, "the class depends on another CI there: see its dependent identification rule")
        }
        _ => (false, "see the words of the instance; then `otrelay queue retry`"),
    };
    DeviceRefusal { message, remedy: remedy.to_owned(), again, notice: None }
}
