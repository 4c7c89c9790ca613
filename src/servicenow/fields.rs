//! A record's fields: the default templates, the text as it may go out, and what became of it there. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::wire;
use crate::desk::{DroppedField, Fields};
use crate::model::{TableName, text};

/// Longest `short_description`, in characters: the column of every task table.
const SHORT_DESCRIPTION_MAX: usize = 160;
/// Longest value of any other field, in characters.
const FIELD_MAX: usize = 4000;
/// Most fields in one record.
const FIELDS_MAX: usize = 100;
/// Longest value of the instance that is quoted back, in bytes.
const GOT_MAX: usize = 200;

/// Append-only; they read back empty.
const JOURNAL: [&str; 3] = ["work_notes", "comments", "comments_and_work_notes"];

const SHORT_DESCRIPTION: &str = "[{{ severity }}] {{ title }}{% if sensor %} ({{ sensor }}){% endif %}";

const DESCRIPTION: &str = "\
{{ message or title }}

Severity: {{ severity }}
Engine: {{ engine }}
{% if category %}Category: {{ category }}
{% endif %}{% if protocols %}Protocols: {{ protocols | join(', ') }}
{% endif %}\
{% if source and (source.ip or source.mac or source.name) %}\
Source: {{ source.name or '' }} {{ source.ip or '' }}{% if source.port %} port {{ source.port }}{% endif %}\
{% if source.mac %} ({{ source.mac }}){% endif %}
{% endif %}\
{% if destination and (destination.ip or destination.mac or destination.name) %}\
Destination: {{ destination.name or '' }} {{ destination.ip or '' }}\
{% if destination.port %} port {{ destination.port }}{% endif %}\
{% if destination.mac %} ({{ destination.mac }}){% endif %}
{% endif %}\
Sensor: {{ sensor }}
{% if site %}Site: {{ site }}
{% endif %}{% if zone %}Zone: {{ zone }}
{% endif %}\
First seen: {{ first_seen }}
Last seen: {{ last_seen }}
Occurrences: {{ occurrences }}
{% if references %}References: {{ references | join(', ') }}
{% endif %}{% if rule %}Forwarded by rule: {{ rule }}
{% endif %}";

const IMPACT: &str = "{% if severity == 'critical' or severity == 'major' %}1{% elif severity == 'minor' %}2\
                      {% else %}3{% endif %}";
const URGENCY: &str = "{% if severity == 'critical' %}1{% elif severity == 'major' or severity == 'minor' %}2\
                       {% else %}3{% endif %}";

/// The templates of a table's fields (minijinja over the alert), before the operator's own are laid over them.
///
/// Only fields that every instance has in that table: an unknown field is dropped there without a word. Tables that are
/// not known here get a short description and a description.
pub fn default_fields(table: &TableName) -> BTreeMap<&'static str, &'static str> {
    let mut fields = BTreeMap::from([("short_description", SHORT_DESCRIPTION), ("description", DESCRIPTION)]);
    if matches!(table.as_str(), "incident" | "sn_ot_incident" | "problem") {
        fields.extend([("impact", IMPACT), ("urgency", URGENCY)]);
    }
    if matches!(table.as_str(), "incident" | "sn_ot_incident") {
        fields.insert("contact_type", "monitoring");
    }
    fields
}

/// Why a record cannot be made of these fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FieldError {
    #[error("`{0}` is not a field name (a-z 0-9 _ and u_ names, at most 80)")]
    Name(String),
    #[error("the record has {0} fields; at most {FIELDS_MAX} are allowed")]
    TooMany(usize),
}

/// The fields as they go out: clean, bounded, without empty ones (`""` clears nothing and fails on choices).
pub(super) fn outgoing(fields: &Fields) -> Result<Fields, FieldError> {
    if fields.len() > FIELDS_MAX {
        return Err(FieldError::TooMany(fields.len()));
    }
    let mut out = Fields::new();
    for (name, value) in fields {
        if !is_field_name(name) {
            return Err(FieldError::Name(text::clip(&text::one_line(name), 80).into_owned()));
        }
        let value = clean(name, value);
        if !value.is_empty() {
            out.insert(name.clone(), value);
        }
    }
    Ok(out)
}

fn is_field_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=80).contains(&name.len()) && name.bytes().all(plain) && !name.as_bytes()[0].is_ascii_digit()
}

fn clean(name: &str, value: &str) -> String {
    let (value, max) = if name == "short_description" {
        (text::one_line(value), SHORT_DESCRIPTION_MAX)
    } else {
        (text::lines(value), FIELD_MAX)
    };
    clip_chars(without_code_tags(&value).trim(), max)
}

/// At most `max` characters; `…` marks a cut.
fn clip_chars(value: &str, max: usize) -> String {
    match value.char_indices().nth(max) {
        None => value.to_owned(),
        Some(_) => {
            let mut cut: String = value.chars().take(max - 1).collect();
            cut.push('…');
            cut
        }
    }
}

/// Journal fields render what stands between `[code]` and `[/code]` as HTML. Taking a tag out may put a new one
/// together (`[co[code]de]`), so it is repeated until none is left; each round shortens the text.
fn without_code_tags(value: &str) -> String {
    let mut value = value.to_owned();
    while let Some(next) = one_round(&value) {
        value = next;
    }
    value
}

fn one_round(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    let mut found = false;
    while let Some(at) = rest.find('[') {
        out.push_str(&rest[..at]);
        match code_tag(&rest[at..]) {
            Some(length) => {
                found = true;
                rest = &rest[at + length..];
            }
            None => {
                out.push('[');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Length in bytes of a tag at the start of `text`: `[code]`, `[/CODE]`, `[ / code ]`, `[code x=y]`.
fn code_tag(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('[')?.trim_start();
    let inner = inner.strip_prefix('/').unwrap_or(inner).trim_start();
    let word = inner.get(..4).filter(|w| w.eq_ignore_ascii_case("code"))?;
    let after = &inner[word.len()..];
    let ends = after.trim_start().starts_with(']') || after.starts_with(char::is_whitespace);
    let close = after.find(']').filter(|&at| ends && at <= 80)?;
    Some(text.len() - after.len() + close + 1)
}

/// Which of the sent fields the record does not show as sent.
pub(super) fn dropped(sent: &Fields, record: &Value) -> Vec<DroppedField> {
    sent.iter()
        .filter(|(name, _)| !JOURNAL.contains(&name.as_str()))
        .filter_map(|(name, value)| {
            let got = record.get(name.as_str()).unwrap_or(&Value::Null);
            (!is_kept(value, got)).then(|| DroppedField {
                field: name.clone(),
                got: text::clip(&text::one_line(&wire::text_of(got)), GOT_MAX).into_owned(),
            })
        })
        .collect()
}

fn is_kept(sent: &str, got: &Value) -> bool {
    if let Some(shown) = got.get("display_value").and_then(Value::as_str)
        && same_text(sent, shown)
    {
        return true;
    }
    let got = wire::text_of(got);
    let is_id = |t: &str| crate::model::SysId::new(t).is_ok();
    same_text(sent, &got)
        || same_number(sent, &got)
        || matches!((sent, got.as_str()), ("true", "1") | ("1", "true") | ("false", "0") | ("0", "false"))
        // A reference that was given by its name and found there.
        || (is_id(&got) && !is_id(sent))
}

/// Line ends and blanks at the ends are the instance's business.
fn same_text(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let plain = |t: &str| t.replace("\r\n", "\n").replace('\r', "\n").trim().to_owned();
    plain(a) == plain(b)
}

fn same_number(a: &str, b: &str) -> bool {
    let number = |t: &str| t.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    matches!((number(a), number(b)), (Some(x), Some(y)) if (x - y).abs() < f64::EPSILON)
}

/// The body of a create: the fields, then our keys over them.
pub(super) fn record(fields: &Fields, keys: &Fields) -> Value {
    let text = |(name, value): (&String, &String)| (name.clone(), Value::String(value.clone()));
    Value::Object(fields.iter().chain(keys).map(text).collect::<Map<_, _>>())
}
