//! An update set as *Retrieved Update Sets* imports it: `sys_remote_update_set`, then a `sys_update_xml` for each record, whose
//! payload is the record as XML within XML. Pure.
//!
//! Elements and attributes have names of ours; every value goes through [`Markup`], and there is no way to write one without.
//! In the order in which it can be committed: role, tables, columns, access, maps.

use super::{Column, MAPPED, ROLE, Setup, Staging};
use crate::clock::RELEASED_AT;
use crate::model::SysId;
use crate::model::markup::{Attribute, Markup};
use crate::model::text::clip;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
/// The scope: tables whose names begin with `u_` are nobody's but the instance's.
const SCOPE: &str = "global";
/// What is granted on a staging table, and no more.
const OPERATIONS: [&str; 3] = ["create", "read", "write"];
/// Longest description of a set, in bytes.
const DESCRIPTION_MAX: usize = 3_900;

/// A record that the set makes.
struct Update {
    /// The name that an instance knows it by in any set.
    name: String,
    /// As shown in the list.
    kind: &'static str,
    target: String,
    payload: String,
}

fn put_all(xml: &mut Markup, fields: &[Attribute<'_>]) {
    for (name, text) in fields {
        xml.with(name, &[], text);
    }
}

fn document() -> Markup {
    let mut xml = Markup::default();
    xml.raw(DECLARATION);
    xml
}

const MAKE: Attribute<'static> = ("action", "INSERT_OR_UPDATE");

/// References that are found by name where their `sys_id` is unknown.
const BY_NAME: [&str; 2] = ["super_class", "sys_user_role"];

/// A reference: its field, what is shown of it, its value.
type Reference<'a> = (&'static str, &'a str, &'a str);

impl Update {
    /// A record of a table, by its id.
    fn new(
        table: &'static str,
        own: &SysId,
        (kind, target): (&'static str, String),
        fields: &[Attribute<'_>],
        references: &[Reference<'_>],
    ) -> Self {
        let payload = payload(table, &[], own, fields, references);
        Self { name: format!("{table}_{own}"), kind, target, payload }
    }
}

/// The payload of one record: `fields` as they are, `references` with what is shown of what they lead to.
fn payload(
    table: &'static str,
    attributes: &[Attribute<'_>],
    own_id: &SysId,
    fields: &[Attribute<'_>],
    references: &[Reference<'_>],
) -> String {
    let mut xml = document();
    xml.open("record_update", &[("table", table)]);
    let mut own = vec![MAKE];
    own.extend_from_slice(attributes);
    xml.open(table, &own);
    put_all(&mut xml, fields);
    put_all(&mut xml, &[("sys_id", own_id.as_str())]);
    for (name, shown, value) in references {
        let both = [("display_value", *shown), ("name", *shown)];
        xml.with(name, if BY_NAME.contains(name) { &both } else { &both[..1] }, value);
    }
    xml.close(table);
    xml.close("record_update");
    xml.into_string()
}

fn id(parts: &[&str]) -> SysId {
    let mut all = vec!["otrelay instance-setup"];
    all.extend_from_slice(parts);
    SysId::derived(&all)
}

fn role() -> Update {
    Update::new(
        "sys_user_role",
        &id(&["sys_user_role", ROLE]),
        ("Role", ROLE.to_owned()),
        &[
            ("name", ROLE),
            ("description", "What otrelay needs: its staging tables, and the roles that it contains"),
            ("elevated_privilege", "false"),
            ("grantable", "true"),
        ],
        &[],
    )
}

fn table(name: &str, staging: &Staging, all: &mut Vec<Update>) {
    all.push(Update::new(
        "sys_db_object",
        &id(&["sys_db_object", name]),
        ("Table", staging.label.clone()),
        &[
            ("name", name),
            ("label", &staging.label),
            ("is_extendable", "false"),
            ("create_access_controls", "false"),
            ("ws_access", "true"),
        ],
        // No `sys_id` of it is known: an instance finds it by its name, or the preview says that it does not.
        &[("super_class", "sys_import_set_row", "sys_import_set_row")],
    ));
    all.extend(staging.columns.iter().map(|(element, column)| self::column(name, element, column)));
}

fn column(table: &str, element: &str, column: &Column) -> Update {
    let own = id(&["sys_dictionary", table, element]);
    let length = column.length.to_string();
    let fields = [
        ("name", table),
        ("element", element),
        ("column_label", &column.label),
        ("active", "true"),
        ("mandatory", "false"),
        ("read_only", "false"),
        ("max_length", &length),
    ];
    let (attributes, kind) =
        ([("element", element), ("table", table)], [("internal_type", "string", "string")]);
    Update {
        name: format!("sys_dictionary_{table}_{element}"),
        kind: "Dictionary",
        target: format!("{table}.{element}"),
        payload: payload("sys_dictionary", &attributes, &own, &fields, &kind),
    }
}

/// Who has the role may fill the table and read what became of the rows; nobody else gets or loses a right.
fn access(table: &str, all: &mut Vec<Update>) {
    let role = id(&["sys_user_role", ROLE]);
    for operation in OPERATIONS {
        let own = id(&["sys_security_acl", table, operation]);
        all.push(Update::new(
            "sys_security_acl",
            &own,
            ("Access Control", format!("{table} ({operation})")),
            &[
                ("name", table),
                ("active", "true"),
                ("admin_overrides", "true"),
                ("advanced", "false"),
                ("description", "For otrelay"),
            ],
            &[("operation", operation, operation), ("type", "record", "record")],
        ));
        all.push(Update::new(
            "sys_security_acl_role",
            &id(&["sys_security_acl_role", table, operation]),
            ("Access Roles", format!("{table} ({operation}).{ROLE}")),
            &[],
            &[("sys_security_acl", table, own.as_str()), ("sys_user_role", ROLE, role.as_str())],
        ));
    }
}

/// Coalesces on our key, so that a row that is sent again makes no second record.
fn map(table: &str, staging: &Staging, target: &str, all: &mut Vec<Update>) {
    let title = format!("otrelay: {table} to {target}");
    let own = id(&["sys_transform_map", table, target]);
    all.push(Update::new(
        "sys_transform_map",
        &own,
        ("Table Transform Map", title.clone()),
        &[
            ("name", &title),
            ("source_table", table),
            ("target_table", target),
            ("active", "true"),
            ("order", "100"),
            ("run_business_rules", "true"),
            ("copy_empty_fields", "false"),
        ],
        &[],
    ));
    for (ours, to) in MAPPED {
        let Some((from, _)) = staging.columns.iter().find(|(_, column)| column.ours == Some(ours)) else {
            continue;
        };
        all.push(Update::new(
            "sys_transform_entry",
            &id(&["sys_transform_entry", table, target, to]),
            ("Field Map", format!("{table}.{from} to {target}.{to}")),
            &[
                ("source_table", table),
                ("source_field", from),
                ("target_table", target),
                ("target_field", to),
                ("coalesce", if ours == "correlation_id" { "true" } else { "false" }),
                ("use_source_script", "false"),
            ],
            &[("map", &title, own.as_str())],
        ));
    }
}

/// What is said of it in the list, on one line.
fn description(setup: &Setup<'_>, count: usize) -> String {
    let made: Vec<&str> = setup.made().map(|(name, _)| name).collect();
    let tables = if made.is_empty() {
        "No staging table is in use, so it makes the role alone.".to_owned()
    } else {
        format!("Staging tables: {}. Access rules only for these.", made.join(", "))
    };
    let text = format!(
        "Made by otrelay {} for [servicenow.{}]: {count} records. Role {ROLE}. {tables} Not in it: the user, the OAuth record, \
         contained roles, the choice of the data source, maps for devices (`otrelay instance-setup --steps` lists them). \
         Unconfirmed, look at it in the preview: that the tables find their parent sys_import_set_row by name, that column names \
         get no u_ put before them, and that field maps are taken as records of their own. Never tried on an instance of yours: \
         first on one that is not production.",
        env!("CARGO_PKG_VERSION"),
        setup.settings.name,
    );
    clip(&text, DESCRIPTION_MAX).into_owned()
}

/// The file.
pub fn update_set(setup: &Setup<'_>) -> String {
    let mut updates = vec![role()];
    for (name, staging) in setup.made() {
        table(name, staging, &mut updates);
    }
    for (name, _) in setup.made() {
        access(name, &mut updates);
    }
    for (name, staging) in setup.made().filter(|(_, staging)| staging.is_alerts) {
        map(name, staging, setup.target.as_str(), &mut updates);
    }
    let title = format!("otrelay {}", setup.settings.name);
    let description = description(setup, updates.len());
    // Another content is another set: one that was committed is not loaded twice.
    let content: Vec<&str> = updates.iter().map(|update| update.payload.as_str()).collect();
    let set = id(&content);
    let at = RELEASED_AT.servicenow();
    let mut xml = document();
    xml.raw("\n");
    xml.open("unload", &[("unload_date", &at)]);
    xml.raw("\n");
    xml.open("sys_remote_update_set", &[MAKE]);
    xml.with("application", &[("display_value", "Global")], SCOPE);
    put_all(
        &mut xml,
        &[
            ("application_name", "Global"),
            ("application_scope", SCOPE),
            ("description", &description),
            ("name", &title),
            ("remote_sys_id", set.as_str()),
            ("state", "loaded"),
            ("sys_class_name", "sys_remote_update_set"),
            ("sys_created_by", "otrelay"),
            ("sys_created_on", &at),
            ("sys_id", set.as_str()),
            ("sys_mod_count", "0"),
        ],
    );
    xml.close("sys_remote_update_set");
    xml.raw("\n");
    for update in &updates {
        record(&mut xml, update, (&title, set.as_str()), &at);
    }
    xml.close("unload");
    xml.raw("\n");
    xml.into_string()
}

fn record(xml: &mut Markup, update: &Update, (title, set): (&str, &str), at: &str) {
    let own = id(&["sys_update_xml", set, &update.name]);
    xml.open("sys_update_xml", &[MAKE]);
    xml.with("application", &[("display_value", "Global")], SCOPE);
    put_all(
        xml,
        &[
            ("action", "INSERT_OR_UPDATE"),
            ("category", "customer"),
            ("name", &update.name),
            ("payload", &update.payload),
            ("replace_on_upgrade", "false"),
            ("sys_created_by", "otrelay"),
            ("sys_created_on", at),
            ("sys_id", own.as_str()),
            ("sys_mod_count", "0"),
            ("target_name", &update.target),
            ("type", update.kind),
            ("update_domain", SCOPE),
        ],
    );
    xml.with("remote_update_set", &[("display_value", title)], set);
    xml.close("sys_update_xml");
    xml.raw("\n");
}

/// The choice of the data source alone, as records for *Import XML*. In an update set a choice stands for its whole list, and
/// would take the others away. `None`: devices need none.
pub fn choice(setup: &Setup<'_>) -> Option<String> {
    let source = setup.data_source()?;
    let own = id(&["sys_choice", "cmdb_ci", "discovery_source", source]);
    let mut xml = document();
    xml.raw("\n");
    xml.open("unload", &[("unload_date", &RELEASED_AT.servicenow())]);
    xml.open("sys_choice", &[MAKE]);
    put_all(
        &mut xml,
        &[
            ("element", "discovery_source"),
            ("inactive", "false"),
            ("label", source),
            ("language", "en"),
            ("name", "cmdb_ci"),
            ("sys_id", own.as_str()),
            ("value", source),
        ],
    );
    xml.close("sys_choice");
    xml.close("unload");
    xml.raw("\n");
    Some(xml.into_string())
}
