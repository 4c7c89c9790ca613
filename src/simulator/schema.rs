//! Which tables and fields the instance has, and of which kind each field is. The lists are written in a small
//! notation and read once: `name` plain text, `name#160` text of at most 160 characters, `name@table` a reference,
//! `name:int|bool|date|choice|journal`, `!` before the name read-only, `=value` the default (`~` is a blank).

use std::collections::HashMap;

/// What a field holds, and with it what a write does to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, cut at so many characters.
    Text(usize),
    /// A whole number; anything else is dropped.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// `2026-11-02 09:15:00`; anything else is dropped.
    DateTime,
    /// A value of `sys_choice`, where that has any for the field.
    Choice,
    /// A `sys_id` of that table.
    Reference(String),
    /// Append-only; reads back empty.
    Journal,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) default: String,
    pub(super) read_only: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Schema {
    pub(super) fields: Vec<Field>,
    index: HashMap<String, u16>,
    /// Whether a field that is not known yet is added instead of dropped.
    pub(super) open: bool,
}

/// Most columns of an open table.
const MAX_FIELDS: usize = 500;

impl Schema {
    pub(super) fn position(&self, name: &str) -> Option<u16> {
        self.index.get(name).copied()
    }

    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|at| &self.fields[usize::from(at)])
    }

    /// Adds or replaces the fields of a list.
    pub(super) fn add(&mut self, list: &str) {
        for item in list.split_whitespace() {
            let field = parse(item);
            if let Some(at) = self.position(&field.name) {
                self.fields[usize::from(at)] = field;
            } else {
                self.index.insert(field.name.clone(), self.fields.len() as u16);
                self.fields.push(field);
            }
        }
    }

    /// On an open table: makes sure the field is there, if its name can be a column name.
    pub(super) fn learn(&mut self, name: &str) {
        let fits = name.len() <= 80
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if self.open && fits && self.position(name).is_none() && self.fields.len() < MAX_FIELDS {
            self.add(name);
        }
    }

    pub(super) fn set_default(&mut self, name: &str, value: &str) {
        if let Some(at) = self.position(name) {
            value.clone_into(&mut self.fields[usize::from(at)].default);
        }
    }
}

fn parse(item: &str) -> Field {
    let (item, default) = item.split_once('=').unwrap_or((item, ""));
    let read_only = item.starts_with('!');
    let item = item.trim_start_matches('!');
    let (name, kind) = if let Some((name, table)) = item.split_once('@') {
        (name, Kind::Reference(table.to_owned()))
    } else if let Some((name, max)) = item.split_once('#') {
        (name, Kind::Text(max.parse().unwrap_or(4000)))
    } else if let Some((name, kind)) = item.split_once(':') {
        let kind = match kind {
            "int" => Kind::Integer,
            "bool" => Kind::Boolean,
            "date" => Kind::DateTime,
            "choice" => Kind::Choice,
            _ => Kind::Journal,
        };
        (name, kind)
    } else {
        (item, Kind::Text(4000))
    };
    Field { name: name.to_owned(), kind, default: default.replace('~', " "), read_only }
}

/// What every record has.
const SYSTEM: &str = "!sys_id !sys_created_by !sys_created_on:date !sys_updated_by !sys_updated_on:date \
    !sys_mod_count:int=0 sys_tags !sys_class_name";

const TASK: &str = "active:bool=true activity_due:date additional_assignee_list approval=not~requested \
    approval_history:journal approval_set assigned_to@sys_user assignment_group@sys_user_group business_duration \
    business_service@cmdb_ci calendar_duration close_notes !closed_at:date !closed_by@sys_user cmdb_ci@cmdb_ci \
    comments:journal !comments_and_work_notes:journal company@core_company contact_type:choice \
    correlation_display#100 correlation_id#100 delivery_plan delivery_task description#8000 due_date:date \
    escalation:int=0 expected_start:date follow_up:date group_list impact:choice=3 knowledge:bool=false location \
    made_sla:bool=true !number opened_at:date opened_by@sys_user order parent@task !priority:choice \
    !reassignment_count:int=0 rejection_goto short_description#160 sla_due:date state:choice=1 \
    sys_domain@sys_user_group=global sys_domain_path=/ time_worked upon_approval=proceed upon_reject=cancel \
    urgency:choice=3 user_input:journal watch_list wf_activity work_end:date work_notes:journal work_notes_list \
    work_start:date";

const INCIDENT: &str = "business_stc calendar_stc caller_id@sys_user category:choice=inquiry caused_by \
    child_incidents:int=0 close_code:choice hold_reason:choice incident_state:choice=1 notify=1 \
    parent_incident@incident problem_id@problem !reopen_count:int=0 !resolved_at:date !resolved_by@sys_user \
    rfc@change_request severity:choice=3 subcategory";

const SECURITY: &str = "affected_user@sys_user alert_rule alert_sensor business_criticality=3 category \
    close_code external_risk_score:int risk_score:int=0 severity:choice=3 subcategory substate \
    dest_ip source_ip";

const PROBLEM: &str = "category cause_notes close_code duplicate_of@problem fix_notes known_error:bool=false \
    major_problem:bool=false problem_state resolution_code:choice subcategory workaround";

const CHANGE: &str = "backout_plan category close_code:choice end_date:date implementation_plan justification \
    on_hold:bool=false on_hold_reason phase reason risk:choice=3 start_date:date test_plan type:choice=normal";

const CI: &str = "asset_tag assigned_to@sys_user assignment_group@sys_user_group category company@core_company \
    correlation_id#100 discovery_source dns_domain first_discovered:date fqdn install_status=1 ip_address \
    last_discovered:date location mac_address managed_by@sys_user manufacturer@core_company model_id model_number \
    name#255 operational_status=1 os os_version owned_by@sys_user serial_number short_description#1000 subcategory \
    support_group@sys_user_group sys_domain@sys_user_group=global firmware_version hardware_version cmdb_ot_entity \
    has_module backplane_name backplane_id switch_position switch_remote_mode slot_number rack_number module_type \
    vendor device_type zone isa_entity_site connection_state validated source_name network_type_assignment ip_version comments cmdb_ci@cmdb_ci \
    life_cycle_stage life_cycle_stage_status purdue_level";

const OTHERS: &[(&str, &str)] = &[
    (
        "sys_user",
        "active:bool=true email first_name identity_type last_name locked_out:bool=false !name#151 \
      time_zone user_name#40 web_service_access_only:bool=false",
    ),
    (
        "sys_user_group",
        "active:bool=true description#1000 email manager@sys_user name#80 parent@sys_user_group type",
    ),
    (
        "sys_choice",
        "dependent_value element#80 inactive:bool=false label#255 language=en name#80 sequence:int \
      value#255",
    ),
    ("sys_properties", "description name#255 type=string value#8000"),
    ("sys_journal_field", "element#80 element_id#32 name#80 value#65000"),
    ("core_company", "manufacturer:bool=false name#80 vendor:bool=false"),
    (
        "em_event",
        "additional_info#65000 ci_type classification:int=0 cmdb_ci@cmdb_ci description#4000 event_class \
      message_key#1024 metric_name#100 node#100 processed:date resolution_state resource#100 severity:int source#100 \
      state=Ready time_of_event:date type#100",
    ),
    (
        "em_alert",
        "additional_info#65000 cmdb_ci@cmdb_ci description#4000 event_class event_count:int=1 message_key#1024 \
      metric_name#100 node#100 resolution_state resource#100 severity:int source#100 state=Open type#100",
    ),
    ("sys_attachment", "!content_type !download_link !file_name !size_bytes:int !table_name !table_sys_id"),
    (
        "sys_dictionary",
        "active:bool=true choice column_label default_value element internal_type mandatory:bool=false max_length \
      name read_only:bool=false reference",
    ),
    ("sys_db_object", "label name super_class@sys_db_object"),
    ("sys_data_policy2", "active:bool=true conditions model_table#80 short_description"),
    ("sys_data_policy_rule", "disabled:bool=false field#80 mandatory#40 sys_data_policy@sys_data_policy2"),
    (
        "cmdb_ot_entity",
        "business_criticality isa_entity_site ot_asset_type ot_correlation_id ot_device@cmdb_ci \
      purdue_level zone",
    ),
    ("cmdb_rel_ci", "child@cmdb_ci parent@cmdb_ci type"),
    ("cmdb_serial_number", "cmdb_ci@cmdb_ci serial_number serial_number_type valid:bool=true"),
    ("cmdb_key_value_v2", "cmdb_ci@cmdb_ci key value#4000"),
    ("sys_object_source", "id#1024 name source_feed target_sys_id target_table"),
    (
        "sys_import_set_row",
        "sys_import_set sys_import_row:int staging_table sys_import_state sys_import_state_comment \
      sys_target_sys_id sys_target_table",
    ),
];

/// Table, its parent, the prefix of its numbers.
const TASKS: &[(&str, &str, &str, &str)] = &[
    ("task", "", "TASK", ""),
    ("incident", "task", "INC", INCIDENT),
    ("problem", "task", "PRB", PROBLEM),
    ("change_request", "task", "CHG", CHANGE),
    ("sn_si_incident", "task", "SIR", SECURITY),
    ("sn_ot_incident", "task", "OTINC", INCIDENT),
];

/// Classes below `cmdb_ci`: the parent, then its children without their common prefix `cmdb_ci_`.
const CLASSES: &[(&str, &str)] = &[
    ("cmdb_ci", "hardware ot_system nids ip_address network_adapter appl service"),
    (
        "cmdb_ci_hardware",
        "computer netgear printer ups hvac ip_camera ip_phone handheld_computing stv game_console \
      iot ot",
    ),
    ("cmdb_ci_computer", "server"),
    (
        "cmdb_ci_server",
        "linux_server win_server unix_server esx_server aix_server hpux_server hyper_v_server \
      solaris_server osx_server",
    ),
    ("cmdb_ci_netgear", "ip_switch ip_router ip_firewall wap_network protocol_converter"),
    ("cmdb_ci_ot", "ot_control ot_supervisory ot_field_device"),
    (
        "cmdb_ci_ot_control",
        "ot_plc ot_rtu ot_dcs ot_dpu ot_cnc ot_ied ot_opc_server ot_scada_server \
      ot_industrial_3d_printer ot_qics ot_control_module",
    ),
    ("cmdb_ci_ot_supervisory", "ot_hmi ot_ews ot_historian ot_opc_client ot_scada_client"),
    (
        "cmdb_ci_ot_field_device",
        "ot_industrial_sensor ot_industrial_actuator ot_industrial_drive \
      ot_industrial_robot",
    ),
    ("cmdb_ci_ot_system", "ot_system_service"),
];

/// A table before it has rows.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) parent: String,
    pub(super) prefix: String,
    pub(super) schema: Schema,
}

/// Every table the instance knows, and those of the option `--table`.
pub(super) fn tables(extra: &[String]) -> Vec<Plan> {
    let mut plans: Vec<Plan> =
        TASKS.iter().map(|(name, parent, prefix, own)| plan(name, parent, prefix, &[TASK, own])).collect();
    for (name, state) in [("sn_si_incident", "10"), ("problem", "101"), ("change_request", "-5")] {
        if let Some(plan) = plans.iter_mut().find(|p| p.name == name) {
            plan.schema.set_default("state", state);
        }
    }
    plans.push(plan("cmdb_ci", "", "", &[CI]));
    for (parent, children) in CLASSES {
        plans.extend(children.split_whitespace().map(|c| plan(&format!("cmdb_ci_{c}"), parent, "", &[CI])));
    }
    plans.extend(OTHERS.iter().map(|(name, own)| plan(name, "", "", &[own])));
    for name in extra {
        if plans.iter().all(|p| p.name != *name) {
            let mut own = plan(name, "", "REC", &[TASK]);
            own.schema.open = true;
            plans.push(own);
        }
    }
    plans
}

fn plan(name: &str, parent: &str, prefix: &str, lists: &[&str]) -> Plan {
    let mut schema = Schema::default();
    schema.add(SYSTEM);
    for list in lists {
        schema.add(list);
    }
    schema.set_default("sys_class_name", name);
    Plan { name: name.to_owned(), parent: parent.to_owned(), prefix: prefix.to_owned(), schema }
}

/// Rows of `sys_choice` at the start, a line for some fields of some tables: `value=label` between bars, or one word for
/// both.
const CHOICES: &str = "\
incident,sn_ot_incident,sn_si_incident,problem,change_request impact,urgency,severity 1=1 - High|2=2 - Medium|3=3 - Low
incident,sn_ot_incident,sn_si_incident,problem,change_request priority 1=1 - Critical|2=2 - High|3=3 - Moderate|4=4 - Low
incident,sn_ot_incident,sn_si_incident,problem,change_request priority 5=5 - Planning
incident,sn_ot_incident,sn_si_incident,problem,change_request contact_type email=Email|phone=Phone
incident,sn_ot_incident,sn_si_incident,problem,change_request contact_type self-service=Self-service|chat=Chat
incident,sn_ot_incident,sn_si_incident,problem,change_request contact_type monitoring=Monitoring|virtual_agent=Virtual Agent
incident,sn_ot_incident,sn_si_incident,problem,change_request contact_type walk-in=Walk-in
incident,sn_ot_incident state,incident_state 1=New|2=In Progress|3=On Hold|6=Resolved|7=Closed|8=Canceled
incident,sn_ot_incident close_code Duplicate|Known error|Resolved by caller|Resolved by change|Resolved by problem
incident,sn_ot_incident close_code Resolved by request|Solution provided|Workaround provided|User error
incident,sn_ot_incident hold_reason 1=Awaiting Caller|3=Awaiting Problem|4=Awaiting Vendor|5=Awaiting Change
incident,sn_ot_incident category inquiry=Inquiry / Help|software=Software|hardware=Hardware|network=Network|database=Database
sn_ot_incident category safety=Safety|quality=Quality|productivity=Productivity
sn_si_incident state 10=Draft|16=Analysis|18=Contain|19=Eradicate|20=Recover|100=Review|3=Closed|7=Cancelled
problem state 101=New|102=Assess|103=Root Cause Analysis|104=Fix in Progress|106=Resolved|107=Closed
problem resolution_code fix_applied=Fix Applied|risk_accepted=Risk Accepted|canceled=Canceled|duplicate=Duplicate
change_request state -5=New|-4=Assess|-3=Authorize|-2=Scheduled|-1=Implement|0=Review|3=Closed|4=Canceled
change_request type normal=Normal|standard=Standard|emergency=Emergency
change_request close_code successful=Successful|successful_issues=Successful with issues|unsuccessful=Unsuccessful
cmdb_ci discovery_source Manual Entry|ServiceNow|Service-now|SG-OTDefender|otrelay";

/// They: table, element, value, label. Where a CI may be from is among them; an integration has to be one of these.
pub(super) fn choices() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
    let of_line = |line: &'static str| {
        let mut parts = line.splitn(3, ' ');
        let [tables, elements, list] = [(); 3].map(|()| parts.next().unwrap_or_default());
        let fields =
            tables.split(',').flat_map(move |table| elements.split(',').map(move |field| (table, field)));
        fields.flat_map(move |(table, field)| {
            list.split('|').map(move |choice| {
                let (value, label) = choice.split_once('=').unwrap_or((choice, choice));
                (table, field, value, label)
            })
        })
    };
    CHOICES.lines().flat_map(of_line)
}
