//! The Import Set API and attachments.
//!
//! A staging table is transformed into its target as the option `imports` says; `sn_si_incident_import` is known from
//! the start. Without a coalesce field each row makes a record, also a repeated one.

use crate::model::gather::Gather as _;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::call::{Answer, Call, Made};
use super::instance::{Context, Instance};

/// Outcomes that are kept.
const MAX_KEPT: usize = 1000;

/// Rows that wait for their transform; then those of the sets before are transformed at once.
const MAX_WAITING: usize = 10_000;

/// Bytes of attachments that are kept; what does not fit is refused.
const MAX_FILES: usize = 64 << 20;

pub(super) const IMPORT_ROWS: &str = "sys_import_set_row";

#[derive(Debug)]
pub(super) struct Transform {
    map: ImportMap,
    /// Its row of `sys_import_set_row`.
    row: String,
    wanted: Map<String, Value>,
}

/// Where a staging table leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportMap {
    /// The staging table's name.
    pub staging: String,
    /// The table that gets the records.
    pub target: String,
    /// The field that decides between update and insert; none: always insert.
    pub coalesce: Option<String>,
}

impl std::str::FromStr for ImportMap {
    type Err = String;

    /// `STAGING=TARGET` or `STAGING=TARGET:COALESCE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (staging, target) =
            text.split_once('=').ok_or_else(|| format!("`{text}` is not STAGING=TARGET[:COALESCE]"))?;
        let (target, coalesce) = match target.split_once(':') {
            Some((target, field)) => (target, Some(field.to_owned())),
            None => (target, None),
        };
        Ok(Self { staging: staging.to_owned(), target: target.to_owned(), coalesce })
    }
}

impl Instance {
    /// `/api/now/import/{staging}[/insertMultiple | /{sys_id}]`.
    pub(super) fn import(&mut self, ctx: Context<'_>, call: &Call, rest: &str) -> Result<Answer, Answer> {
        let (staging, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let known = self.options.imports.iter().find(|m| m.staging == staging).cloned();
        let builtin = || {
            (staging == "sn_si_incident_import").then(|| ImportMap {
                staging: staging.to_owned(),
                target: "sn_si_incident".to_owned(),
                coalesce: None,
            })
        };
        let map = known.or_else(builtin).ok_or_else(|| Answer::no_table(staging))?;
        match (&call.method, rest) {
            (&Method::POST, "") => self.import_one(ctx, call, &map),
            (&Method::POST, "insertMultiple") => self.import_many(ctx, call, &map),
            (&Method::GET, id) if !id.is_empty() => {
                self.imports.get(id).map(|kept| Answer::json(200, kept)).ok_or_else(Answer::no_record)
            }
            _ => Err(Answer::no_verb(&call.method)),
        }
    }

    fn import_one(&mut self, ctx: Context<'_>, call: &Call, map: &ImportMap) -> Result<Answer, Answer> {
        let wanted = call.object()?;
        let (result, made) = self.transform(ctx, map, &wanted);
        let set = format!("ISET{:07}", 10_001 + self.imports.len());
        let body = json!({"import_set": set, "staging_table": map.staging, "result": [result]});
        let row = self.new_id();
        if self.imports.len() >= MAX_KEPT {
            self.imports.pop_first();
        }
        self.imports.insert(row.clone(), body.clone());
        let location = format!("{}/api/now/import/{}/{row}", self.base, map.staging);
        let mut answer = Answer::json(201, &body).with("location", location);
        answer.made.extend(made);
        Ok(answer)
    }

    /// One row through the map: its element of `result`, and the record if one was made.
    fn transform(
        &mut self,
        ctx: Context<'_>,
        map: &ImportMap,
        wanted: &Map<String, Value>,
    ) -> (Value, Option<Made>) {
        let name = format!("{} to {}", map.staging, map.target);
        let failed = |text: &str| json!({"transform_map": name, "table": map.target, "status": "error", "error_message": text});
        if !self.tables.contains_key(&map.target) {
            return (failed("Invalid table"), None);
        }
        let old = map.coalesce.as_ref().and_then(|field| {
            let key = wanted.get(field)?.as_str().filter(|k| !k.is_empty())?;
            let table = self.tables.get(&map.target)?;
            let (_, row) = table.rows().find(|(_, row)| table.value(row, field) == key)?;
            Some(table.value(row, "sys_id").to_owned())
        });
        let mod_count = |instance: &Self, id: &str| {
            instance.find(&map.target, id).map(|(t, _, row)| t.value(row, "sys_mod_count").to_owned())
        };
        let (done, status) = match &old {
            Some(id) => {
                let before = mod_count(self, id);
                let done = self.update(ctx, &map.target, id, wanted, true);
                let status = if mod_count(self, id) == before { "ignored" } else { "updated" };
                (done, status)
            }
            None => (self.insert(ctx, &map.target, wanted, true), "inserted"),
        };
        match done {
            Ok(made) => {
                let shown = self.display(&map.target, &made.sys_id).unwrap_or_default();
                let link = format!("{}/api/now/table/{}/{}", self.base, map.target, made.sys_id);
                let result = json!({
                    "transform_map": name, "table": map.target, "display_name": "number",
                    "display_value": shown, "record_link": link, "status": status, "sys_id": made.sys_id,
                });
                (result, old.is_none().then_some(made))
            }
            Err(refusal) => {
                let body: Value = serde_json::from_slice(&refusal.body).unwrap_or_default();
                (failed(body["error"]["detail"].as_str().unwrap_or("Target record not found")), None)
            }
        }
    }

    /// Keys are column labels; the outcome is not in the answer but in `sys_import_set_row`, and not at once: whoever looks
    /// first sees rows that are pending.
    fn import_many(&mut self, ctx: Context<'_>, call: &Call, map: &ImportMap) -> Result<Answer, Answer> {
        let body = call.object()?;
        let (set, many) = (self.new_id(), self.new_id());
        if self.transforms.len() > MAX_WAITING {
            drop(self.run_transforms(ctx));
        }
        let mut row_number = 0;
        for record in body.get("records").and_then(Value::as_array).into_iter().flatten() {
            let Value::Object(record) = record else { continue };
            let columns = record.iter().map(|(label, v)| (label.to_lowercase().replace(' ', "_"), v.clone()));
            let row = json!({"sys_import_set": set, "sys_import_row": row_number.to_string(),
                "staging_table": map.staging, "sys_import_state": "pending", "sys_target_table": map.target});
            row_number += 1;
            let row = row.as_object().cloned().unwrap_or_default();
            if let Ok(made) = self.insert(ctx, IMPORT_ROWS, &row, false) {
                self.transforms.push(Transform {
                    map: map.clone(),
                    row: made.sys_id,
                    wanted: columns.collect(),
                });
            }
        }
        Ok(Answer::json(201, &json!({"import_set_id": set, "multi_import_set_id": many})))
    }

    /// Transforms what waits. Gives the records that were made.
    pub(super) fn run_transforms(&mut self, ctx: Context<'_>) -> Vec<Made> {
        let mut all = Vec::new();
        for Transform { map, row, wanted } in std::mem::take(&mut self.transforms) {
            let (result, made) = self.transform(ctx, &map, &wanted);
            let done = json!({"sys_import_state": result["status"], "sys_import_state_comment": result["error_message"],
                "sys_target_sys_id": result["sys_id"]});
            let done = done.as_object().cloned().unwrap_or_default();
            drop(self.update(ctx, IMPORT_ROWS, &row, &done, false));
            all.extend(made);
        }
        all
    }

    /// `/api/now/attachment[/file]`: upload, list, read, read the bytes, delete.
    pub(super) fn attachment(&mut self, ctx: Context<'_>, call: &Call, rest: &str) -> Result<Answer, Answer> {
        const TABLE: &str = "sys_attachment";
        match (&call.method, rest) {
            (&Method::POST, "file") => self.upload(ctx, call),
            (&Method::GET, "") => Ok(self.table_api(ctx, call, TABLE, false)),
            (&Method::GET, id) if id.ends_with("/file") => {
                let id = id.trim_end_matches("/file");
                let (Some(bytes), Some((table, _, row))) = (self.files.get(id), self.find(TABLE, id)) else {
                    return Err(Answer::no_record());
                };
                let mut answer = Answer::empty(200).with("content-type", table.value(row, "content_type"));
                answer.body.clone_from(bytes);
                Ok(answer)
            }
            (&Method::GET, id) => Ok(self.table_api(ctx, call, &format!("{TABLE}/{id}"), false)),
            (&Method::DELETE, id) => {
                self.files.remove(id);
                Ok(self.table_api(ctx, call, &format!("{TABLE}/{id}"), false))
            }
            _ => Err(Answer::no_verb(&call.method)),
        }
    }

    fn upload(&mut self, ctx: Context<'_>, call: &Call) -> Result<Answer, Answer> {
        let need = |name: &str| {
            let missing = || Answer::error(400, "Missing parameter", Some(name));
            call.params.get(name).filter(|v| !v.is_empty()).ok_or_else(missing)
        };
        let (table, record, file) = (need("table_name")?, need("table_sys_id")?, need("file_name")?);
        self.table(table, ctx.tweaks)?;
        self.find(table, record).ok_or_else(Answer::no_record)?;
        if self.files.values().map(Vec::len).sum::<usize>() + call.body.len() > MAX_FILES {
            return Err(Answer::refused("The simulator keeps 64 MB of attachments; delete some"));
        }
        let made = self.insert(ctx, "sys_attachment", &Map::new(), false)?;
        let link = format!("{}/api/now/attachment/{}/file", self.base, made.sys_id);
        let size = call.body.len().to_string();
        let kind = call.header("content-type").unwrap_or("application/octet-stream");
        let fields = [
            ("table_name", table),
            ("table_sys_id", record),
            ("file_name", file),
            ("content_type", kind),
            ("size_bytes", &size),
            ("download_link", &link),
        ];
        self.overwrite(&made, &fields);
        self.files.insert(made.sys_id.clone(), call.body.to_vec());
        let result: Map<String, Value> =
            fields.iter().map(|(n, v)| ((*n).to_owned(), json!(v))).into_object();
        let mut result = Value::Object(result);
        result["sys_id"] = json!(made.sys_id);
        let mut answer = Answer::result(201, &result)
            .with("location", format!("{}/api/now/attachment/{}", self.base, made.sys_id));
        answer.made.push(made);
        Ok(answer)
    }

    /// Sets fields that callers may not write.
    fn overwrite(&mut self, made: &Made, fields: &[(&str, &str)]) {
        let Some((table, seq, row)) = self.find(&made.table, &made.sys_id) else { return };
        let mut row = row.clone();
        for (field, value) in fields {
            table.set(&mut row, field, value);
        }
        if let Some(table) = self.tables.get_mut(&made.table) {
            table.put(seq, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::trial::{Trial, header};
    use super::*;

    fn trial() -> Trial {
        let imports =
            vec!["u_alerts=incident:correlation_id".parse().unwrap(), "u_lost=u_nowhere".parse().unwrap()];
        Trial::with(Options { imports, ..Options::default() })
    }

    #[test]
    fn rows_are_inserted_updated_or_ignored() {
        let mut trial = trial();
        let mut send = |impact: &str| {
            let body = json!({"correlation_id": "otrelay-1", "impact": impact});
            let (status, mut answer) = trial.call("POST", "/api/now/import/u_alerts", &body);
            assert_eq!((status, &answer["staging_table"]), (201, &json!("u_alerts")));
            answer["result"][0].take()
        };
        let first = send("2");
        assert_eq!((&first["status"], &first["display_value"]), (&json!("inserted"), &json!("INC0010001")));
        assert_eq!(send("2")["status"], json!("ignored"));
        let third = send("1");
        assert_eq!((&third["status"], &third["sys_id"]), (&json!("updated"), &first["sys_id"]));
        assert_eq!(trial.instance.records("incident").len(), 1);
    }

    #[test]
    fn failures_are_told_inside_the_result() {
        let mut trial = trial();
        let (status, answer) = trial.call("POST", "/api/now/import/u_lost", &json!({}));
        assert_eq!((status, &answer["result"][0]["status"]), (201, &json!("error")));
        let (_, answer) = trial.call("POST", "/api/now/import/u_alerts", &json!({"state": "6"}));
        assert!(answer["result"][0]["error_message"].as_str().unwrap().starts_with("Data Policy Exception"));
        assert_eq!(trial.call("POST", "/api/now/import/u_other", &json!({})).0, 400);
    }

    #[test]
    fn outcomes_can_be_read_again() {
        let mut trial = trial();
        let answer = trial.answer("POST", "/api/now/import/sn_si_incident_import", "{}");
        let place = header(&answer, "location").unwrap().strip_prefix("http://sim").unwrap().to_owned();
        let (status, again) = trial.call("GET", &place, &Value::Null);
        assert_eq!((status, again), (200, serde_json::from_slice(&answer.body).unwrap()));
        assert_eq!(trial.instance.records("sn_si_incident").len(), 1);
    }

    #[test]
    fn many_at_once_by_label() {
        let mut trial = trial();
        let body =
            json!({"records": [{"Short Description": "a", "Correlation Id": "x"}, {"Correlation Id": "y"}]});
        let (status, answer) = trial.call("POST", "/api/now/import/u_alerts/insertMultiple", &body);
        assert_eq!(status, 201);
        assert!(answer["import_set_id"].is_string() && answer["multi_import_set_id"].is_string());
        assert_eq!(trial.list("sys_import_set_row", "", "sys_import_state"), ["pending", "pending"]);
        assert_eq!(trial.list("incident", "", "correlation_id"), ["x", "y"]);
        assert_eq!(trial.list("sys_import_set_row", "", "sys_import_state"), ["inserted", "inserted"]);
        assert_eq!(trial.list("sys_import_set_row", "", "sys_import_row"), ["0", "1"]);
    }

    #[test]
    fn files() {
        let mut trial = Trial::new();
        let id = trial.make("incident", &json!({}))["sys_id"].as_str().unwrap().to_owned();
        let target =
            format!("/api/now/attachment/file?table_name=incident&table_sys_id={id}&file_name=a.pcap");
        let login = [("authorization", "Basic YWRtaW46YWRtaW4="), ("accept", "*/*"), ("content-type", "a/b")];
        let answer = trial.raw("POST", &target, &login, "bytes");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &body["result"]["size_bytes"]), (201, &json!("5")));
        let file = body["result"]["sys_id"].as_str().unwrap();
        let got = trial.answer("GET", &format!("/api/now/attachment/{file}/file"), "");
        assert_eq!((got.body.as_slice(), header(&got, "content-type")), (b"bytes".as_slice(), Some("a/b")));
        assert_eq!(trial.raw("POST", "/api/now/attachment/file?table_name=x", &login, "").status, 400);
        assert_eq!(trial.answer("DELETE", &format!("/api/now/attachment/{file}"), "").status, 204);
        assert_eq!(trial.answer("GET", &format!("/api/now/attachment/{file}/file"), "").status, 404);
    }
}
