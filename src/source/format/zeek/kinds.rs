//! The logs of Zeek and its packages by name: a closed list, so that what a file calls itself cannot fill the store with
//! counters.

/// What a log is, by the name of its stream.
const KINDS: &[&str] = &[
    // Zeek's own.
    "analyzer",
    "barnyard2",
    "broker",
    "capture_loss",
    "cluster",
    "config",
    "conn",
    "dce_rpc",
    "dhcp",
    "dnp3",
    "dns",
    "dpd",
    "files",
    "ftp",
    "http",
    "intel",
    "irc",
    "kerberos",
    "known_certs",
    "known_devices",
    "known_hosts",
    "known_modbus",
    "known_services",
    "ldap",
    "ldap_search",
    "loaded_scripts",
    "management",
    "modbus",
    "modbus_register_change",
    "mqtt_connect",
    "mqtt_publish",
    "mqtt_subscribe",
    "mysql",
    "netcontrol",
    "netcontrol_drop",
    "netcontrol_shunt",
    "notice",
    "notice_alarm",
    "ntlm",
    "ntp",
    "ocsp",
    "openflow",
    "packet_filter",
    "pe",
    "postgresql",
    "print",
    "prof",
    "quic",
    "radius",
    "rdp",
    "redis",
    "reporter",
    "rfb",
    "signatures",
    "sip",
    "smb_cmd",
    "smb_files",
    "smb_mapping",
    "smtp",
    "snmp",
    "socks",
    "software",
    "ssh",
    "ssl",
    "stats",
    "stderr",
    "stdout",
    "suricata_alert",
    "suricata_eve",
    "syslog",
    "telemetry",
    "telemetry_histogram",
    "traceroute",
    "tunnel",
    "unknown_protocols",
    "weird",
    "weird_stats",
    "websocket",
    "wireguard",
    "x509",
    // Of packages.
    "arp",
    "bacnet",
    "bacnet_device_control",
    "bacnet_discovery",
    "bacnet_property",
    "bestguess",
    "bsap_ip_header",
    "bsap_ip_rdb",
    "bsap_ip_unknown",
    "bsap_serial_header",
    "bsap_serial_rdb",
    "bsap_serial_rdb_ext",
    "bsap_serial_unknown",
    "c1222",
    "cip",
    "cip_identity",
    "cip_io",
    "cotp",
    "dnp3_control",
    "dnp3_objects",
    "dnp3_read_objects",
    "ecat_aoe_info",
    "ecat_arp_info",
    "ecat_coe_info",
    "ecat_dev_info",
    "ecat_foe_info",
    "ecat_log_address",
    "ecat_registers",
    "ecat_soe_info",
    "enip",
    "ge_srtp",
    "genisys",
    "hart_ip",
    "iec104",
    "ipsec",
    "modbus_detailed",
    "modbus_mask_write_register",
    "modbus_read_device_identification",
    "modbus_read_write_multiple_registers",
    "omron_fins",
    "omron_fins_detail",
    "opcua_binary",
    "openvpn",
    "ospf",
    "profinet",
    "profinet_dce_rpc",
    "profinet_io_cm",
    "roc_plus",
    "s7comm",
    "s7comm_known_devices",
    "s7comm_plus",
    "s7comm_read_szl",
    "s7comm_upload_download",
    "stun",
    "stun_nat",
    "synchrophasor",
    "synchrophasor_cfg",
    "synchrophasor_cmd",
    "synchrophasor_data",
    "synchrophasor_hdr",
    "tds",
    "tds_rpc",
    "tds_sql_batch",
    "tftp",
];

/// The log called `path`, else `other`.
pub(super) fn named(path: &str) -> &'static str {
    if path.starts_with("opcua_binary") {
        return "opcua_binary";
    }
    KINDS.iter().find(|kind| **kind == path).copied().unwrap_or("other")
}

/// The log that a file is named after: `notice.log`, `notice-2024-04-12-19-29-12.log`,
/// `notice.13:00:00-14:00:00.log.gz`, `json_streaming_notice.log`.
pub(super) fn of_file(name: &str) -> &'static str {
    let name = name.rsplit('/').next().unwrap_or(name);
    let stem = name.split('.').next().unwrap_or(name);
    let stem = stem.strip_prefix("json_streaming_").unwrap_or(stem);
    match named(stem) {
        "other" => named(stem.split('-').next().unwrap_or(stem)),
        known => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_of_every_rotation() {
        for (file, kind) in [
            ("/opt/zeek/logs/current/notice.log", "notice"),
            ("notice-2024-04-12-19-29-12.log", "notice"),
            ("notice.2024-04-12-19-29-12.log", "notice"),
            ("/x/2024-04-12/notice.13:00:00-14:00:00.log.gz", "notice"),
            ("json_streaming_weird.log", "weird"),
            ("json_streaming_known_hosts.3.log", "known_hosts"),
            ("opcua_binary_browse.log", "opcua_binary"),
            ("evil\u{1b}[31m.log", "other"),
            ("", "other"),
        ] {
            assert_eq!(of_file(file), kind, "{file}");
        }
    }

    #[test]
    fn no_kind_is_there_twice() {
        let mut sorted = KINDS.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), KINDS.len());
    }
}
