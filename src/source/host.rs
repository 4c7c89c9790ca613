//! This sensor's own facts. For now its name, the default of `[agent] name`.

/// The host name, or `sensor` where the machine has none.
pub fn name() -> String {
    sysinfo::System::host_name()
        .ok()
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| "sensor".to_owned())
}
