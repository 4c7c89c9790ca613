//! Vendor profiles: which key holds what. Data, and the few decisions that data cannot say (`vendor`).
//!
//! A key that begins with `|` is a field of the header, one that begins with `#` is the label of a custom field, folded.

use super::event::Event;
use super::vendor;
use crate::model::Engine;

/// Keys of one end. Of each list the first that says something counts.
#[derive(Debug)]
pub(super) struct EndKeys {
    pub(super) ip: &'static [&'static str],
    pub(super) mac: &'static [&'static str],
    pub(super) name: &'static [&'static str],
    pub(super) port: &'static [&'static str],
    pub(super) device_id: &'static [&'static str],
    /// Manufacturer and type: for records that tell of a new device.
    pub(super) vendor: &'static [&'static str],
    pub(super) kind: &'static [&'static str],
}

const NO_KEYS: EndKeys =
    EndKeys { ip: &[], mac: &[], name: &[], port: &[], device_id: &[], vendor: &[], kind: &[] };

/// How one product's messages are read.
#[derive(Debug)]
pub(super) struct Profile {
    /// Part of the identity of its alerts, so that equal ids of two products are two findings. Never change one.
    pub(super) name: &'static str,
    pub(super) source: EndKeys,
    pub(super) destination: EndKeys,
    pub(super) protocol: &'static [&'static str],
    pub(super) title: &'static [&'static str],
    pub(super) message: &'static [&'static str],
    pub(super) severity: &'static [&'static str],
    /// Keys that may hold the name of an engine.
    pub(super) engine: &'static [&'static str],
    pub(super) category: &'static [&'static str],
    /// The product's own stable id of an alert.
    pub(super) id: &'static [&'static str],
    pub(super) time: &'static [&'static str],
    pub(super) sensor: &'static [&'static str],
    pub(super) site: &'static [&'static str],
    pub(super) zone: &'static [&'static str],
    /// Techniques, vulnerabilities, links.
    pub(super) references: &'static [&'static str],
    /// Label and key of what else belongs into the message.
    pub(super) details: &'static [(&'static str, &'static str)],
    /// Key and word that say that the alert is over.
    pub(super) cleared: &'static [(&'static str, &'static str)],
    /// Titles of alerts that tell of a new device.
    pub(super) inventory: &'static [&'static str],
    /// Kind of a record that is no alert; from a closed list.
    pub(super) ignored: fn(&Event<'_>) -> Option<&'static str>,
    /// Engine of class, title and category; `None`: by the words of the common table.
    pub(super) by_class: fn(&Event<'_>) -> Option<Engine>,
}

/// Everything standard, and the spellings that products without a profile use.
pub(super) const GENERIC: Profile = Profile {
    name: "generic",
    source: EndKeys {
        ip: &["src", "src_ip", "CtdSourceIp", "src_asset_ip", "c6a2"],
        mac: &["smac", "srcMAC", "src_mac"],
        name: &["shost", "srcName", "identHostName"],
        port: &["spt", "srcPort", "src_port"],
        ..NO_KEYS
    },
    destination: EndKeys {
        ip: &["dst", "dst_ip", "CtdDestinationIp", "dst_asset_ip", "c6a3"],
        mac: &["dmac", "dstMAC", "dst_mac"],
        name: &["dhost", "dstName"],
        port: &["dpt", "dstPort", "dst_port"],
        ..NO_KEYS
    },
    protocol: &["app", "protocol", "PtName", "CtdProtocol", "proto"],
    title: &["|name", "title", "flexString3", "msg", "|class"],
    message: &["msg", "message", "reason"],
    severity: &["|severity", "severity", "sev"],
    engine: &["engine", "cat", "type"],
    category: &["cat"],
    id: &["externalId", "UUID", "CtdExternalId", "#id", "id"],
    time: &["rt", "start", "occurredAt", "CtdTimeGenerated", "devTime", "end"],
    sensor: &["dvchost", "senderName", "dvc"],
    site: &[],
    zone: &[],
    references: &["threatAttackID", "cve", "#cve", "#mitre"],
    details: &[("Action", "act"), ("Outcome", "outcome"), ("Reason", "reason")],
    cleared: &[],
    inventory: &[],
    ignored: |_| None,
    by_class: |_| None,
};

/// Microsoft Defender for IoT, under all its names.
pub(super) const DEFENDER: Profile = Profile {
    name: "defender",
    source: EndKeys {
        ip: &["src_ip", "src"],
        mac: &["src_mac", "srcMAC", "smac"],
        name: &["srcName", "shost"],
        port: &["spt", "srcPort"],
        ..NO_KEYS
    },
    destination: EndKeys {
        ip: &["dst_ip", "dst"],
        mac: &["dst_mac", "dstMAC", "dmac"],
        name: &["dstName", "dhost"],
        port: &["dpt", "dstPort"],
        ..NO_KEYS
    },
    protocol: &["protocol", "app", "proto"],
    title: &["|name", "title"],
    message: &["msg"],
    // `sev` of its LEEF is on another scale: not used.
    severity: &["severity", "|severity"],
    engine: &["type", "engine"],
    id: &["UUID", "alertId"],
    time: &["start", "devTime"],
    sensor: &["senderName", "|product"],
    site: &["site"],
    zone: &["zone"],
    details: &[("Score", "score")],
    ..GENERIC
};

/// Claroty CTD, and the copies of it that other makers sell. Old versions use the standard keys.
pub(super) const CLAROTY_CTD: Profile = Profile {
    name: "claroty-ctd",
    source: EndKeys {
        ip: &["CtdSourceIp", "src"],
        mac: &["CtdSourceMac", "smac"],
        name: &["CtdSourceHost", "shost"],
        port: &["CtdSourcePort", "spt"],
        device_id: &["CtdSourceAssetId"],
        vendor: &["CtdSourceVendor"],
        kind: &["CtdSourceAssetType"],
    },
    destination: EndKeys {
        ip: &["CtdDestinationIp", "dst"],
        mac: &["CtdDestinationMac", "dmac"],
        name: &["CtdDestinationHost", "dhost"],
        port: &["CtdDestinationPort", "dpt"],
        device_id: &["CtdDestinationAssetId"],
        vendor: &["CtdDestinationVendor"],
        kind: &["CtdDestinationAssetType"],
    },
    protocol: &["CtdProtocol", "app", "proto"],
    message: &["CtdMessage", "msg"],
    severity: &["|severity"],
    category: &["CtdCategory", "cat"],
    id: &["CtdExternalId", "externalId", "#alertid", "cn2"],
    time: &["CtdTimeGenerated", "rt", "start"],
    sensor: &["CtdSensorName", "dvchost"],
    site: &["CtdSiteName"],
    references: &["CtdMitreAttackTechniqueIds", "CtdCveIds", "CtdAlertLink"],
    details: &[
        ("Source zone", "CtdSourceZone"),
        ("Source type", "CtdSourceAssetType"),
        ("Destination zone", "CtdDestinationZone"),
        ("Destination type", "CtdDestinationAssetType"),
        ("Score", "CtdAlertScore"),
        ("Status", "CtdAlertStatus"),
        ("Resolved as", "CtdResolvedAs"),
        ("Signature", "CtdSignatureName"),
    ],
    cleared: &[("CtdAlertStatus", "resolved")],
    inventory: &["new asset"],
    ignored: vendor::claroty_ignored,
    by_class: vendor::claroty_engine,
    ..GENERIC
};

/// Claroty xDome.
pub(super) const CLAROTY_XDOME: Profile = Profile {
    name: "claroty-xdome",
    source: EndKeys {
        ip: &["device_ip_list", "src"],
        mac: &["device_mac_list", "smac"],
        name: &["device_name", "shost"],
        port: &["spt"],
        device_id: &["device_asset_id"],
        vendor: &["device_manufacturer"],
        kind: &["device_type"],
    },
    title: &["alert_name", "|name", "alert_type_name"],
    message: &["alert_description", "msg"],
    category: &["alert_category", "cat"],
    id: &["alert_id", "externalId"],
    time: &["alert_timestamp", "rt", "start"],
    site: &["device_site_name"],
    details: &[
        ("Type", "alert_type_name"),
        ("Device type", "device_type"),
        ("Device category", "device_category"),
        ("Manufacturer", "device_manufacturer"),
        ("Operating system", "device_os"),
    ],
    ignored: vendor::xdome_ignored,
    ..GENERIC
};

/// Nozomi Networks Guardian and CMC.
pub(super) const NOZOMI: Profile = Profile {
    name: "nozomi",
    protocol: &["app", "proto"],
    title: &["|name", "flexString3", "|class"],
    message: &["msg"],
    severity: &["|severity"],
    engine: &[],
    category: &["cat", "|class"],
    id: &["#id", "cs3", "externalId"],
    time: &["start", "rt", "end"],
    sensor: &["dvchost", "dvc"],
    references: &["flexString1"],
    details: &[("Tactics", "flexString2")],
    by_class: vendor::nozomi_engine,
    ..GENERIC
};

pub(super) const DRAGOS: Profile = Profile {
    name: "dragos",
    source: EndKeys {
        ip: &["src_asset_ip", "src"],
        mac: &["src_asset_mac", "smac"],
        name: &["src_asset_hostname", "asset_hostname", "src_asset_domain", "shost"],
        port: &["spt"],
        device_id: &["src_asset_id"],
        ..NO_KEYS
    },
    destination: EndKeys {
        ip: &["dst_asset_ip", "dst"],
        mac: &["dst_asset_mac", "dmac"],
        name: &["dst_asset_hostname", "dst_asset_domain", "dhost"],
        port: &["dpt"],
        device_id: &["dst_asset_id"],
        ..NO_KEYS
    },
    title: &["|name", "type", "|class"],
    message: &["content", "msg"],
    severity: &["|severity"],
    engine: &[],
    category: &["type", "cat"],
    id: &["id", "externalId"],
    time: &["occurredAt", "rt", "start"],
    ..GENERIC
};

/// Radiflow iSID.
pub(super) const RADIFLOW: Profile = Profile {
    name: "radiflow",
    source: EndKeys {
        ip: &["src"],
        mac: &["SrcMac"],
        name: &["SrcName"],
        vendor: &["SrcVendor"],
        kind: &["SrcType"],
        ..NO_KEYS
    },
    destination: EndKeys {
        ip: &["dst"],
        mac: &["DstMac"],
        name: &["DstName"],
        port: &["pt"],
        device_id: &[],
        vendor: &["DstVendor"],
        kind: &["DstType"],
    },
    protocol: &["PtName"],
    message: &["msg"],
    severity: &["|severity"],
    engine: &[],
    id: &["id"],
    sensor: &["dvchost"],
    details: &[
        ("Source vendor", "SrcVendor"),
        ("Source type", "SrcType"),
        ("Source VLAN", "SrcVlan"),
        ("Destination vendor", "DstVendor"),
        ("Destination type", "DstType"),
    ],
    inventory: &["new mac detected", "new device detected"],
    ..GENERIC
};

/// The profile of a message, by vendor and product of its header.
pub(super) fn of(event: &Event<'_>) -> &'static Profile {
    let is = |text: &str, name: &str| text.eq_ignore_ascii_case(name);
    let vendor = &*event.vendor;
    if is(vendor, "claroty") || is(vendor, "schneider") || is(vendor, "schneider electric") {
        let copy = !is(vendor, "claroty") && !is(&event.product, "ctd");
        return match event.product.to_ascii_lowercase().as_str() {
            _ if copy => &GENERIC,
            product if product.contains("xdome") || event.pairs.get("alert_name").is_some() => &CLAROTY_XDOME,
            _ => &CLAROTY_CTD,
        };
    }
    let vendor = vendor.to_ascii_lowercase();
    let class_end = event.class.len().checked_sub("defender for iot alert".len());
    let defender_class =
        class_end.and_then(|at| event.class.get(at..)).is_some_and(|end| is(end, "defender for iot alert"));
    match vendor.as_str() {
        name if name.starts_with("nozomi") => &NOZOMI,
        name if name.starts_with("dragos") => &DRAGOS,
        "radiflow" => &RADIFLOW,
        name if name.contains("defender for iot") || name.contains("cyberx") => &DEFENDER,
        "azure security center for iot" => &DEFENDER,
        _ if defender_class => &DEFENDER,
        _ => &GENERIC,
    }
}
