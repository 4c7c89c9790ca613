//! What a set makes and what it leaves alone.

use std::collections::BTreeMap;

use super::*;
use crate::model::{DestinationName, Secret};
use crate::net::TlsSettings;
use crate::servicenow::{Basic, Settings};

fn settings(devices: Option<cmdb::Settings>) -> Settings {
    Settings {
        name: DestinationName::new("prod").unwrap(),
        instance: url::Url::parse("https://acme.example").unwrap(),
        auth: Auth::Basic(Basic {
            username: "relay".to_owned(),
            password: Secret::new("test", "pw".to_owned()),
        }),
        proxy: None,
        tls: TlsSettings::default(),
        headers: Vec::new(),
        devices,
    }
}

fn devices(import: Option<cmdb::Import>) -> cmdb::Settings {
    cmdb::Settings {
        agent: "agent-1".to_owned(),
        sensor: "cell-7".to_owned(),
        data_source: "o<t>relay".to_owned(),
        class_map: BTreeMap::new(),
        on_deleted: cmdb::OnDeleted::Note,
        import,
    }
}

fn import(insert_multiple: bool) -> cmdb::Import {
    let table = |name: &str| TableName::new(name).unwrap();
    cmdb::Import {
        device: table("u_device"),
        connection: Some(table("u_connection")),
        firmware: None,
        columns: BTreeMap::from([("vendor".to_owned(), "Vendor & \"Maker\" ]]>".to_owned())]),
        insert_multiple,
    }
}

fn table(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

fn action<'a>(
    kind: DeliveryKind,
    table: &'a TableName,
    columns: &'a BTreeMap<String, String>,
    fields: &'a BTreeMap<String, String>,
) -> Action<'a> {
    Action { kind, table, columns, fields, attaches: false }
}

#[test]
fn a_set_has_tables_columns_access_and_a_map_and_is_the_same_each_time() {
    let (settings, target, alerts) = (settings(None), table("incident"), table("u_alerts"));
    let columns = BTreeMap::from([("title".to_owned(), "u_title".to_owned())]);
    let fields =
        BTreeMap::from([("u_plant".to_owned(), "x".to_owned()), ("u_title".to_owned(), "y".to_owned())]);
    let actions = [action(DeliveryKind::PutRow, &alerts, &columns, &fields)];
    let text = update_set(&plan(&settings, &actions, &target));
    assert_eq!(text, update_set(&plan(&settings, &actions, &target)));
    let count = |words: &str| text.matches(words).count();
    assert_eq!(
        count("<name>sys_dictionary_u_alerts_"),
        crate::servicenow::ROW_COLUMNS.len() + 1,
        "and u_plant"
    );
    assert_eq!((count("<name>sys_security_acl_role_"), count("<type>Access Control</type>")), (3, 3));
    assert_eq!((count("<name>sys_transform_map_"), count("<name>sys_transform_entry_")), (1, MAPPED.len()));
    assert!(text.contains("&lt;source_field&gt;u_title&lt;/source_field&gt;"), "by the name there");
    assert!(text.contains("&lt;coalesce&gt;true&lt;/coalesce&gt;"));
    // In the order in which it can be committed.
    let at = |words: &str| text.find(words).unwrap();
    let order = [
        "<name>sys_user_role_",
        "<name>sys_db_object_",
        "<name>sys_dictionary_",
        "<name>sys_security_acl_",
        "<name>sys_transform_map_",
        "<name>sys_transform_entry_",
    ]
    .map(at);
    assert!(order.is_sorted(), "{order:?}");
    let other = table("problem");
    assert_ne!(text, update_set(&plan(&settings, &actions, &other)), "another content is another set");
}

#[test]
fn what_is_there_already_is_left_alone() {
    let (settings, target) = (settings(Some(devices(None))), table("incident"));
    let (incident, scoped) = (table("incident"), table("x_acme_alert"));
    let none = BTreeMap::new();
    let actions = [
        action(DeliveryKind::OpenTicket, &incident, &none, &none),
        action(DeliveryKind::PutRow, &scoped, &none, &none),
    ];
    let setup = plan(&settings, &actions, &target);
    let text = update_set(&setup);
    assert_eq!(text.matches("<sys_update_xml ").count(), 1, "the role alone: {text}");
    let steps = steps(&setup, false).join("\n");
    for words in [
        "sn_incident_write",
        "x_acme_alert belongs to an application (x_acme)",
        "discovery_source",
        "cmdb_ot_editor",
    ] {
        assert!(steps.contains(words), "{words}: {steps}");
    }
    let choice = choice(&setup).unwrap();
    assert!(choice.contains("<value>o&lt;t&gt;relay</value>") && !choice.contains("o<t>"), "{choice}");
}

#[test]
fn tables_of_devices_have_their_own_columns_and_labels() {
    let (settings, target) = (settings(Some(devices(Some(import(true))))), table("incident"));
    let setup = plan(&settings, &[], &target);
    let text = update_set(&setup);
    assert!(text.contains("<name>sys_dictionary_u_device_vendor</name>"), "a label is no name");
    assert!(text.contains("Vendor &amp;amp; &amp;quot;Maker&amp;quot; ]]&amp;gt;"), "{text}");
    assert!(text.contains("<name>sys_dictionary_u_connection_direction</name>"));
    assert!(!text.contains("<name>sys_dictionary_u_connection_serial</name>"));
    assert!(
        !text.contains("<name>sys_transform_map_"),
        "the class of a device is the administrator's to decide"
    );
    assert!(choice(&setup).is_none(), "a staging table needs no data source");
    let all = steps(&setup, true).join("\n");
    for words in
        ["A transform map for u_device", "import_transformer", "snc_basic_auth_api_access", "Import Set API"]
    {
        assert!(all.contains(words), "{words}: {all}");
    }
}

#[test]
fn labels_are_words() {
    assert_eq!(
        (label("source_ip"), label("u_plant"), label("")),
        ("Source IP".into(), "Plant".into(), String::new())
    );
}
