//! The same for people: numbered steps, in the order in which they can be done. Pure.

use super::{MAPPED, ROLE, Setup, Staging, is_global, log_in, role_of};
use crate::model::text::one_line;

/// What is to be done there, a step each.
pub fn steps(setup: &Setup<'_>, by_hand: bool) -> Vec<String> {
    let mut all = Vec::new();
    if by_hand {
        all.push(format!("User Administration > Roles > New: name {ROLE}."));
        all.extend(setup.made().map(|(name, staging)| table(name, staging)));
        all.extend(setup.made().map(|(name, _)| access(name)));
        all.extend(setup.made().filter(|(_, staging)| staging.is_alerts).map(|(n, s)| map(n, s, setup)));
    } else {
        all.push(
            "System Update Sets > Retrieved Update Sets > Import Update Set from XML: the file of `otrelay instance-setup`. \
             Elevate to security_admin before, because of the access rules."
                .to_owned(),
        );
        all.push("Open it, Preview Update Set. What a preview can find is said below.".to_owned());
        if setup.made().next().is_some() {
            all.push(
                "Where the preview says that it knows no sys_import_set_row for super_class: skip those table records, \
                 make the tables by hand (Tables > New, Extends table = Import Set Row, the same names), then accept the rest."
                    .to_owned(),
            );
        }
        all.push("Commit Update Set.".to_owned());
        all.extend(setup.made().map(|(name, staging)| {
            format!(
                "Look at the table {name}: it extends Import Set Row, and its columns have the names {}. Where the instance \
                 has put u_ before them, say so in the config ([rule.action.columns], [devices] columns).",
                names(staging)
            )
        }));
    }
    rest(setup, &mut all);
    all
}

fn names(staging: &Staging) -> String {
    staging.columns.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn table(name: &str, staging: &Staging) -> String {
    let columns: Vec<String> = staging
        .columns
        .iter()
        .map(|(name, column)| format!("{name} ({}, String, {})", one_line(&column.label), column.length))
        .collect();
    format!(
        "System Definition > Tables > New: label {}, name {name}, Extends table = Import Set Row, no module, no access controls. \
         Columns: {}. Where the instance puts u_ before a name, say so in the config.",
        one_line(&staging.label),
        columns.join(", ")
    )
}

fn access(name: &str) -> String {
    format!(
        "System Security > Access Control (ACL) > New, three times (elevate to security_admin): type record, operations create, \
         read and write, name {name}, Requires role = {ROLE}."
    )
}

fn map(name: &str, staging: &Staging, setup: &Setup<'_>) -> String {
    let field = |(ours, target): &(&str, &str)| {
        let column = staging.columns.iter().find(|(_, column)| column.ours == Some(*ours));
        let coalesce = if *ours == "correlation_id" { " (coalesce)" } else { "" };
        column.map(|(column, _)| format!("{column} to {target}{coalesce}"))
    };
    let fields: Vec<String> = MAPPED.iter().filter_map(field).collect();
    format!(
        "System Import Sets > Administration > Transform Maps > New: source table {name}, target table {}, active, run business \
         rules. Field maps: {}. Severity and addresses have no column that every {} has: map them as you keep them.",
        setup.target,
        fields.join(", "),
        setup.target,
    )
}

/// What neither a set nor a table holds.
fn rest(setup: &Setup<'_>, all: &mut Vec<String>) {
    for (name, staging) in setup.not_made() {
        all.push(format!(
            "The table {name} belongs to an application ({}), and is not in the set: it has to have the columns {}, a transform \
             map that coalesces on the one with our correlation_id, and access for {ROLE}.",
            name.split('_').take(2).collect::<Vec<_>>().join("_"),
            names(staging)
        ));
    }
    if let Some(import) = setup.devices().and_then(|devices| devices.import.as_ref()) {
        let tables = [Some(&import.device), import.connection.as_ref(), import.firmware.as_ref()];
        for table in tables.into_iter().flatten() {
            all.push(format!(
                "A transform map for {table} that coalesces on correlation_id. Into which class its rows go is yours to decide, \
                 so none is made for it."
            ));
        }
        if import.insert_multiple {
            all.push(format!("Give {ROLE} the role import_transformer: rows go by insertMultiple."));
        }
    }
    let mut roles: Vec<String> =
        setup.tickets.iter().map(|table| format!("{} (for {table})", role_of(table))).collect();
    if let Some(source) = setup.data_source() {
        all.push(format!(
            "CMDB: add the choice {source} to Discovery source (sys_choice: table cmdb_ci, element discovery_source, value and \
             label {source}). Without it a push is refused. `otrelay instance-setup --choice` writes it for Import XML on the list \
             of sys_choice."
        ));
        roles.push(
            "itil or asset, since Zurich also sn_cmdb_editor, and cmdb_ot_editor (for devices)".to_owned(),
        );
    }
    if setup.devices().is_none() && setup.tickets.iter().any(|table| *table != "em_event") {
        all.push(format!(
            "Let {ROLE} read cmdb_ci (an access rule, or the role itil): a ticket names the CI of the device it is about. \
             Without it tickets have none."
        ));
    }
    if !roles.is_empty() {
        all.push(format!("Role {ROLE} > Contains Roles > Edit, add: {}.", roles.join("; ")));
    }
    for plugin in setup.tickets.iter().filter(|table| table.starts_with("sn_") && !is_global(table)) {
        all.push(format!(
            "The table {plugin} comes with a plugin or store application: see that it is installed."
        ));
    }
    all.push(format!(
        "User Administration > Users > New: Web service access only (newer: Identity type = Machine), time zone GMT, active; \
         roles: {ROLE} alone."
    ));
    all.push(format!("For auth of [servicenow.{}]: {}.", setup.settings.name, log_in(&setup.settings.auth)));
    all.push(format!(
        "Where APIs are opened one by one (access policies, scopes): {}, and the Batch API where you allow it.",
        setup.apis.iter().copied().collect::<Vec<_>>().join(", ")
    ));
    all.push("On the sensor: `otrelay doctor` looks whether all of it is there.".to_owned());
}
