//! `otrelay devices`: the inventory, one device with what each source says of it and what would be sent, and telling all
//! of it anew.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::ask::Asker;
use super::human::{Listing, json, relative, time};
use super::{CliError, Exit, Outcome, Terminal, begin, clock, load_as_caller, wait};
use crate::config::{Config, Purpose};
use crate::control::Question;
use crate::destination::DeviceOrder;
use crate::model::Timestamp;
use crate::model::text::one_line;
use crate::model::time::as_text;
use crate::servicenow::cmdb::class::usual_level;
use crate::servicenow::{ServiceNow, cmdb};
use crate::status::graph;
use crate::store::{DeviceFilter, DeviceRow};

/// Arguments of `otrelay devices`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevicesArgs {
    /// What else than a list is wanted
    #[command(subcommand)]
    pub command: Option<DevicesCommand>,
    /// What is listed
    #[command(flatten)]
    pub list: DeviceListArgs,
}

/// What a list of devices shows.
#[derive(Args, Clone, Debug)]
pub struct DeviceListArgs {
    /// At most so many rows; 0: all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Only with this text in a name, address, MAC, type, vendor, model, serial, system or protocol
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Only in this zone
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Only what changed within this time: 90m, 24h, 7d
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub since: Option<Duration>,
    /// Only what has still to be told
    #[arg(long)]
    pub changed: bool,
    /// As JSON
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// As CSV
    #[arg(long)]
    pub csv: bool,
}

/// `otrelay devices …`
#[derive(Subcommand, Clone, Debug)]
pub enum DevicesCommand {
    /// One device: which source said what, when, and which of it counts
    Show(ShowArgs),
    /// Who talks to whom, by zone and Purdue level, as a picture (SVG) on stdout
    Graph(GraphArgs),
    /// Tell all devices anew at the next sync, not only what has changed
    Resync,
}

/// Arguments of `otrelay devices show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Its id, an address, a MAC, or its name
    pub id: String,
    /// What would be sent to the CMDB
    #[arg(long, conflicts_with = "json")]
    pub payload: bool,
    /// Ask the instance what it would do with that; nothing is written there
    #[arg(long, conflicts_with_all = ["json", "payload"])]
    pub query: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `otrelay devices graph`.
#[derive(Args, Clone, Debug)]
pub struct GraphArgs {
    /// Only of this zone
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Only what changed within this time: 90m, 24h, 7d
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub since: Option<Duration>,
}

pub(super) fn period(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with m, h or d, such as 24h".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

pub(super) fn run(args: &DevicesArgs, terminal: &mut Terminal<'_>) -> Outcome {
    match &args.command {
        None => list(&args.list, terminal),
        Some(DevicesCommand::Show(args)) => show(args, terminal),
        Some(DevicesCommand::Graph(args)) => {
            let filter = DeviceFilter {
                zone: args.zone.clone(),
                since: args.since.map(|since| clock().now().before(since)),
                peers: true,
                ..DeviceFilter::default()
            };
            let rows: Vec<DeviceRow> = Asker::new(terminal)?.ask(&Question::Devices(filter))?;
            write!(terminal.out, "{}", graph::draw(&rows, usual_level, graph::Frame::File))?;
            Ok(Exit::Fine)
        }
        Some(DevicesCommand::Resync) => {
            let devices: u64 = Asker::new(terminal)?.ask(&Question::ResyncDevices)?;
            writeln!(terminal.err, "{devices} devices are told anew at the next sync of devices")?;
            Ok(Exit::Fine)
        }
    }
}

fn list(args: &DeviceListArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let filter = DeviceFilter {
        limit: args.limit,
        text: args.grep.clone(),
        kind: args.kind.clone(),
        zone: args.zone.clone(),
        since: args.since.map(|since| clock().now().before(since)),
        changed: args.changed,
        peers: false,
    };
    let rows: Vec<DeviceRow> = Asker::new(terminal)?.ask(&Question::Devices(filter))?;
    if args.json {
        return json(terminal.out, &rows);
    }
    if args.csv {
        csv(&rows, terminal.out)?;
        return Ok(Exit::Fine);
    }
    let mut listing =
        Listing::new(&["id", "name", "type", "address", "mac", "vendor", "zone", "sources", "told"]);
    for row in &rows {
        let d = &row.view.device;
        let mut sources: Vec<&str> = row.view.from.values().map(|from| from.source.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        listing.row(&[
            &row.id,
            d.name.as_deref().unwrap_or("-"),
            d.kind.as_deref().unwrap_or("-"),
            &first(&d.ips),
            &first(&d.macs),
            d.vendor.as_deref().unwrap_or("-"),
            d.zone.as_deref().unwrap_or("-"),
            &sources.join(", "),
            told(row),
        ]);
    }
    if !rows.is_empty() {
        listing.print(terminal.out)?;
    }
    let more = if args.limit > 0 && rows.len() == args.limit as usize { " (more with --limit)" } else { "" };
    let noun = if rows.len() == 1 { "device" } else { "devices" };
    writeln!(terminal.err, "{} {noun}{more}", rows.len())?;
    Ok(Exit::Fine)
}

fn told(row: &DeviceRow) -> &'static str {
    match (row.told_at, row.changed.is_empty()) {
        (None, _) => "not yet",
        (Some(_), true) => "yes",
        (Some(_), false) => "changed",
    }
}

/// The first, and how many more there are.
fn first<T: ToString>(all: &[T]) -> String {
    match all {
        [] => "-".to_owned(),
        [one] => one.to_string(),
        [one, rest @ ..] => format!("{} +{}", one.to_string(), rest.len()),
    }
}

const COLUMNS: [&str; 23] = [
    "id",
    "name",
    "type",
    "ips",
    "macs",
    "vendor",
    "model",
    "serial",
    "firmware",
    "operating_system",
    "protocols",
    "owner",
    "location",
    "site",
    "zone",
    "purdue_level",
    "criticality",
    "authorized",
    "first_seen",
    "last_seen",
    "sys_id",
    "class",
    "told",
];

fn csv(rows: &[DeviceRow], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))?;
    for row in rows {
        let d = &row.view.device;
        let all = |ips: Vec<String>| ips.join(" ");
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let at = |at: Option<Timestamp>| at.map(time).unwrap_or_default();
        let cells = [
            row.id.clone(),
            of(&d.name),
            of(&d.kind),
            all(d.ips.iter().map(ToString::to_string).collect()),
            all(d.macs.clone()),
            of(&d.vendor),
            of(&d.model),
            of(&d.serial),
            of(&d.firmware),
            of(&d.operating_system),
            d.protocols.join("; "),
            of(&d.owner),
            of(&d.location),
            of(&d.site),
            of(&d.zone),
            of(&d.purdue_level),
            of(&d.criticality),
            d.authorized.map(|is| is.to_string()).unwrap_or_default(),
            at(d.first_seen),
            at(d.last_seen),
            row.sys_id.clone(),
            row.class.clone(),
            told(row).to_owned(),
        ];
        let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

/// A cell of a CSV file (RFC 4180). What a spreadsheet would take for a formula is no formula any more.
fn quoted(cell: &str) -> String {
    let cell = one_line(cell);
    let formula = cell.starts_with(['=', '+', '-', '@']);
    let cell = if formula { format!("'{cell}") } else { cell.into_owned() };
    if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

fn show(args: &ShowArgs, terminal: &mut Terminal<'_>) -> Outcome {
    // What it needs may be for root alone, and asking makes root the owner of the state directory.
    let loaded = match (args.query, args.payload) {
        (true, _) => Some(load_as_caller(terminal, Purpose::Run)),
        (_, true) => Some(load_as_caller(terminal, Purpose::Show)),
        _ => None,
    };
    let row: Option<DeviceRow> = Asker::new(terminal)?.ask(&Question::Device { id: args.id.clone() })?;
    let Some(row) = row else {
        return Err(CliError::Words(format!("there is no device {}", one_line(&args.id))));
    };
    if args.json {
        return json(terminal.out, &row);
    }
    let Some(loaded) = loaded else {
        print(&row, terminal.out)?;
        return Ok(Exit::Fine);
    };
    let config = begin(loaded?, terminal)?;
    if args.query { query(&row, config, terminal) } else { payload(&row, &config, terminal) }
}

/// As the config would send it; without `[devices]` as its defaults would.
fn payload(row: &DeviceRow, config: &Config, terminal: &mut Terminal<'_>) -> Outcome {
    let own = config.destinations.iter().find_map(|destination| destination.devices.clone());
    let settings = own.unwrap_or_else(|| cmdb::Settings {
        agent: config.agent.id.clone(),
        sensor: config.agent.name.clone(),
        data_source: "otrelay".to_owned(),
        class_map: std::collections::BTreeMap::new(),
        on_deleted: cmdb::OnDeleted::Note,
        import: None,
    });
    let text = cmdb::shown(&settings, &order(row)).map_err(CliError::Words)?;
    writeln!(terminal.out, "{text}")?;
    Ok(Exit::Fine)
}

fn order(row: &DeviceRow) -> DeviceOrder {
    DeviceOrder {
        key: row.id.clone(),
        device: row.view.device.clone(),
        is_known: row.told_at.is_some(),
        peers: row.peers.clone(),
    }
}

/// Asks the destination of `[devices]`.
fn query(row: &DeviceRow, config: Config, terminal: &mut Terminal<'_>) -> Outcome {
    let own = config.destinations.into_iter().find(|destination| destination.devices.is_some());
    let none = || CliError::Words("devices go nowhere: set [devices] enabled = true".to_owned());
    let words = |e: &dyn std::fmt::Display| CliError::Words(e.to_string());
    let destination = ServiceNow::new(own.ok_or_else(none)?, clock()).map_err(|e| words(&e))?;
    let asked = wait(destination.query_device(&order(row)))?;
    let lines = asked.map_err(|e| {
        let remedy = if e.remedy.is_empty() { String::new() } else { format!(" — {}", e.remedy) };
        CliError::Words(format!("{e}{remedy}"))
    })?;
    for line in lines {
        writeln!(terminal.out, "{}", one_line(&line))?;
    }
    writeln!(terminal.err, "nothing was written there")?;
    Ok(Exit::Fine)
}

fn print(row: &DeviceRow, out: &mut dyn Write) -> std::io::Result<()> {
    let now = clock().now();
    writeln!(out, "device {}", row.id)?;
    let json = as_text(|| serde_json::to_value(&row.view.device)).unwrap_or_default();
    for (name, value) in json.as_object().into_iter().flatten() {
        let Some(text) = said(name, value) else { continue };
        let from = row.view.from.get(name);
        let from = from.map_or(String::new(), |f| format!("   ({}, {})", f.source, relative(f.at, now)));
        writeln!(out, "  {name:<17} {}{from}", one_line(&text))?;
    }
    match row.told_at {
        None => writeln!(out, "  told              not yet")?,
        Some(at) => writeln!(
            out,
            "  told              {} UTC, {} {}{}",
            time(at),
            row.class,
            row.sys_id,
            if row.changed.is_empty() {
                String::new()
            } else {
                format!("; changed since: {}", row.changed.join(", "))
            }
        )?,
    }
    for word in &row.sources {
        let json = as_text(|| serde_json::to_value(&word.device)).unwrap_or_default();
        let all: Vec<String> = json
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some(format!("{name} {}", said(name, value)?)))
            .collect();
        writeln!(out, "source {} ({}): {}", word.source, relative(word.at, now), one_line(&all.join("; ")))?;
    }
    Ok(())
}

/// A value for people; `None`: it says nothing.
fn said(name: &str, value: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    let joined = |parts: Vec<String>, by: &str| (!parts.is_empty()).then(|| parts.join(by));
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some("yes".to_owned()),
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(at) => {
            let micros = at.as_i64().filter(|_| name.ends_with("_seen"));
            Some(
                micros
                    .map_or_else(|| at.to_string(), |at| format!("{} UTC", time(Timestamp::from_micros(at)))),
            )
        }
        Value::Array(all) => {
            let by = match all.first() {
                Some(Value::Object(_) | Value::Array(_)) => "; ",
                // A pair: a name of the source's own, and its value.
                _ if name == "extra" => ": ",
                _ => ", ",
            };
            joined(all.iter().filter_map(|one| said(name, one)).collect(), by)
        }
        Value::Object(all) => {
            let part = |(name, value): (&String, &Value)| match value {
                Value::Bool(true) => Some(name.clone()),
                _ => Some(format!("{name} {}", said(name, value)?)),
            };
            joined(all.iter().filter_map(part).collect(), ", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Device;
    use crate::model::device::Connection;

    #[test]
    fn what_is_known_is_shown_in_words() {
        let check = |name: &str, value: serde_json::Value, expected: &str| {
            assert_eq!(said(name, &value).unwrap_or_default(), expected, "{name}");
        };
        let device = Device {
            last_seen: Some(Timestamp::from_secs(1_178_205_958)),
            connections: vec![Connection {
                ip: Some([192, 0, 2, 7].into()),
                inbound: true,
                protocols: vec!["DNP3".to_owned()],
                ports: vec![20_000, 502],
                last_seen: Some(Timestamp::from_secs(1_178_205_958)),
                ..Connection::default()
            }],
            extra: [("dnp3_role", "client"), ("asn", "7")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
            ..Device::default()
        };
        let mut json = serde_json::to_value(&device).unwrap();
        check("last_seen", json["last_seen"].take(), "2007-05-03 15:25:58 UTC");
        check("extra", json["extra"].take(), "dnp3_role: client; asn: 7");
        let connection =
            "inbound, ip 192.0.2.7, last_seen 2007-05-03 15:25:58 UTC, ports 20000, 502, protocols DNP3";
        check("connections", json["connections"].take(), connection);
        check("ips", json["ips"].take(), "");
    }

    #[test]
    fn a_cell_is_quoted_and_no_formula() {
        for (cell, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=cmd()", "'=cmd()"),
        ] {
            assert_eq!(quoted(cell), expected);
        }
    }

    #[test]
    fn a_csv_row_has_a_cell_for_each_column() {
        let device = Device { name: Some("PLC, 7".to_owned()), ..Device::default() };
        let row = DeviceRow {
            id: "d1".to_owned(),
            view: crate::device::merge::View { device, ..crate::device::merge::View::default() },
            changed: Vec::new(),
            changed_at: Timestamp::EPOCH,
            told_at: None,
            sys_id: String::new(),
            class: String::new(),
            seen_at: Timestamp::EPOCH,
            peers: Vec::new(),
            sources: Vec::new(),
        };
        let mut out = Vec::new();
        csv(&[row], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("d1,\"PLC, 7\","), "{line}");
        assert_eq!(line.matches(',').count(), COLUMNS.len());
    }

    #[test]
    fn times_are_read() {
        assert_eq!(period("90m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["", "d", "5", "5w", "-1h"] {
            assert!(period(wrong).is_err(), "{wrong}");
        }
    }
}
