//! Pure: from a type in a source's words to a class of the CMDB. A table, which `[devices] class_map` goes over.

use std::collections::BTreeMap;

use crate::model::Device;

/// Where what nothing says anything of belongs.
pub const OTHER: &str = "cmdb_ci_ot";
/// The class of sensors.
pub const SENSOR: &str = "cmdb_ci_nids";
/// The class of modules in a slot.
pub const MODULE: &str = "cmdb_ci_ot_control_module";

/// Type, folded, to class; an empty class: no CI at all.
const CLASSES: &[(&str, &str)] = &[
    ("plc", "cmdb_ci_ot_plc"),
    ("controller", "cmdb_ci_ot_plc"),
    ("rtu", "cmdb_ci_ot_rtu"),
    ("dcscontroller", "cmdb_ci_ot_dcs"),
    ("dcs", "cmdb_ci_ot_dcs"),
    ("ied", "cmdb_ci_ot_ied"),
    ("hmi", "cmdb_ci_ot_hmi"),
    ("engineeringstation", "cmdb_ci_ot_ews"),
    ("historian", "cmdb_ci_ot_historian"),
    ("robotcontroller", "cmdb_ci_ot_control"),
    ("alarmsystem", "cmdb_ci_ot_control"),
    ("slot", MODULE),
    ("industrialrobot", "cmdb_ci_ot_industrial_robot"),
    ("meter", "cmdb_ci_ot_industrial_sensor"),
    ("servodrive", "cmdb_ci_ot_industrial_actuator"),
    ("pneumaticdevice", "cmdb_ci_ot_industrial_actuator"),
    ("variablefrequencydrive", "cmdb_ci_ot_industrial_drive"),
    ("industrialpackagingsystem", "cmdb_ci_ot_field_device"),
    ("industrialscale", "cmdb_ci_ot_field_device"),
    ("switch", "cmdb_ci_ip_switch"),
    ("router", "cmdb_ci_ip_router"),
    ("firewall", "cmdb_ci_ip_firewall"),
    ("wirelessaccesspoint", "cmdb_ci_wap_network"),
    ("wlanaccesspoint", "cmdb_ci_wap_network"),
    ("accesspoint", "cmdb_ci_wap_network"),
    ("protocolconverter", "cmdb_ci_netgear"),
    ("vpngateway", "cmdb_ci_netgear"),
    ("multicastbroadcast", "cmdb_ci_netgear"),
    ("wifipineapple", "cmdb_ci_netgear"),
    ("server", "cmdb_ci_server"),
    ("dbserver", "cmdb_ci_server"),
    ("backupserver", "cmdb_ci_server"),
    ("ntpserver", "cmdb_ci_server"),
    ("domaincontroller", "cmdb_ci_server"),
    ("storage", "cmdb_ci_server"),
    ("workstation", "cmdb_ci_computer"),
    ("terminalstation", "cmdb_ci_computer"),
    ("ipcamera", "cmdb_ci_ip_camera"),
    ("iptelephone", "cmdb_ci_ip_phone"),
    ("printer", "cmdb_ci_printer"),
    ("ups", "cmdb_ci_ups"),
    ("uninterruptablepowersupply", "cmdb_ci_ups"),
    ("uninterruptiblepowersupply", "cmdb_ci_ups"),
    ("hvac", "cmdb_ci_hvac"),
    ("smartphone", "cmdb_ci_handheld_computing"),
    ("tablet", "cmdb_ci_handheld_computing"),
    ("smarttv", "cmdb_ci_stv"),
    ("gameconsole", "cmdb_ci_game_console"),
    ("ioadapter", "cmdb_ci_network_adapter"),
    // Places and crowds are no devices.
    ("physicallocation", ""),
    ("internet", ""),
    ("group", ""),
    ("externalmanagement", ""),
];

/// Types of the internet of things: one class.
const THINGS: &[&str] = &[
    "alarmsiren",
    "atm",
    "barcodescanner",
    "doorcontrolpanel",
    "dvr",
    "elevator",
    "firealarm",
    "firedetector",
    "humiditysensor",
    "intercom",
    "marquee",
    "motiondetector",
    "peoplecounter",
    "peoplecountersystem",
    "punchclock",
    "smartlight",
    "smartswitch",
    "thermostat",
    "turnstile",
];

/// The beginning of an operating system's name, folded, to the class that goes over the type's.
const SYSTEMS: &[(&str, &str)] = &[
    ("windowsserver", "cmdb_ci_win_server"),
    ("server2", "cmdb_ci_win_server"),
    ("windows", "cmdb_ci_computer"),
    ("linux", "cmdb_ci_linux_server"),
    ("aix", "cmdb_ci_aix_server"),
    ("vmwareesx", "cmdb_ci_esx_server"),
    ("esx", "cmdb_ci_esx_server"),
    ("hpux", "cmdb_ci_hpux_server"),
    ("hyperv", "cmdb_ci_hyper_v_server"),
    ("solaris", "cmdb_ci_solaris_server"),
    ("macos", "cmdb_ci_osx_server"),
    ("osx", "cmdb_ci_osx_server"),
    ("unix", "cmdb_ci_unix_server"),
];

/// Classes that an operating system does not change: the network's and things, and what has a class of its own in OT.
fn keeps_its_class(class: &str) -> bool {
    let fixed = ["cmdb_ci_iot", "cmdb_ci_netgear", "cmdb_ci_wap_network", "cmdb_ci_network_adapter"];
    class.starts_with("cmdb_ci_ip_") || fixed.contains(&class) || class.starts_with("cmdb_ci_ot_")
}

/// The class of a device; `None`: it gets no CI.
pub fn of(kind: Option<&str>, system: Option<&str>, own: &BTreeMap<String, String>) -> Option<String> {
    let kind = fold(kind.unwrap_or_default());
    if let Some((_, class)) = own.iter().find(|(name, _)| fold(name) == kind && !kind.is_empty()) {
        return (!class.is_empty()).then(|| class.clone());
    }
    let thing = THINGS.contains(&kind.as_str()).then_some("cmdb_ci_iot");
    let known = CLASSES.iter().find(|(name, _)| *name == kind).map(|(_, class)| *class);
    let class = thing.or(known).unwrap_or(OTHER);
    if class.is_empty() {
        return None;
    }
    let system = fold(system.unwrap_or_default());
    let by_system = SYSTEMS.iter().find(|(start, _)| system.starts_with(start)).map(|(_, class)| *class);
    let by_system = by_system.filter(|_| !keeps_its_class(class));
    Some(by_system.unwrap_or(class).to_owned())
}

fn fold(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The Purdue level that devices of a type usually have.
pub fn usual_level(d: &Device) -> Option<usize> {
    let class = of(d.kind.as_deref(), d.operating_system.as_deref(), &BTreeMap::new())?;
    match class.strip_prefix("cmdb_ci_")? {
        "ot_field_device"
        | "ot_industrial_sensor"
        | "ot_industrial_actuator"
        | "ot_industrial_drive"
        | "ot_industrial_robot" => Some(0),
        "ot_plc" | "ot_rtu" | "ot_dcs" | "ot_ied" | "ot_control" | "ot_control_module" => Some(1),
        "ot_hmi" | "ot_ews" => Some(2),
        "ot_historian" => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(kind: &str, system: Option<&str>) -> Option<String> {
        of(Some(kind), system, &BTreeMap::new())
    }

    #[test]
    fn each_type_has_its_class_and_what_is_unknown_is_an_ot_device() {
        for (kind, expected) in [
            ("PLC", "cmdb_ci_ot_plc"),
            ("DCS Controller", "cmdb_ci_ot_dcs"),
            ("Engineering Station", "cmdb_ci_ot_ews"),
            ("Alarm System", "cmdb_ci_ot_control"),
            ("Variable Frequency Drive", "cmdb_ci_ot_industrial_drive"),
            ("I/O Adapter", "cmdb_ci_network_adapter"),
            ("Multicast/Broadcast", "cmdb_ci_netgear"),
            ("People Counter", "cmdb_ci_iot"),
            ("Uninterruptable Power Supply", "cmdb_ci_ups"),
            ("Unclassified", OTHER),
            ("Turbine", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(class(kind, None).as_deref(), Some(expected), "{kind}");
        }
        assert_eq!(class("Physical Location", None), None);
        assert_eq!(of(None, None, &BTreeMap::new()).as_deref(), Some(OTHER));
    }

    #[test]
    fn an_operating_system_goes_over_the_type_but_not_over_the_networks() {
        for (kind, system, expected) in [
            ("Server", "Windows Server 2019", "cmdb_ci_win_server"),
            ("Workstation", "Windows 10", "cmdb_ci_computer"),
            ("Server", "HP UX", "cmdb_ci_hpux_server"),
            ("Unknown", "Linux", "cmdb_ci_linux_server"),
            ("Switch", "Linux", "cmdb_ci_ip_switch"),
            ("Thermostat", "Linux", "cmdb_ci_iot"),
            ("PLC", "Linux", "cmdb_ci_ot_plc"),
        ] {
            assert_eq!(class(kind, Some(system)).as_deref(), Some(expected), "{kind} {system}");
        }
    }

    #[test]
    fn the_operators_map_goes_over_all() {
        let own = BTreeMap::from([("Robot controller".to_owned(), "u_robot".to_owned())]);
        assert_eq!(of(Some("Robot Controller"), Some("Linux"), &own).as_deref(), Some("u_robot"));
    }
}
