//! The numbers of the status for Prometheus: `OpenMetrics` at `/metrics`, and the older text format for files that
//! `node_exporter` collects. Names begin with `otrelay_`, counters end in `_total`, times are seconds.
//!
//! Labels are names of the config and words of closed lists, so that their number is bounded.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Status;
use crate::model::Timestamp;
use crate::model::text::one_line;
use crate::store::{DestinationRow, SourceRow};

/// How the numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `OpenMetrics` 1.0.
    Open,
    /// What was before it, and what `node_exporter` reads from files.
    Text,
}

impl Format {
    /// What a scraper asks for: `OpenMetrics`, unless it names only the older one.
    pub(super) fn asked(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default();
        let only_text = accept.contains("text/plain") && !accept.contains("application/openmetrics-text");
        if only_text { Self::Text } else { Self::Open }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;

/// The numbers of a status.
pub(super) fn text(status: &Status, format: Format) -> String {
    let mut registry = Registry::with_prefix("otrelay");
    let build = vec![("version", status.version.clone())];
    registry.register("build", "The version that runs", Info::new(build));
    sources(&mut registry, &status.overview.sources);
    destinations(&mut registry, &status.overview.destinations);
    whole(&mut registry, status);
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = encode(&mut text, &registry);
    let text = in_order(&text);
    match format {
        Format::Open => text,
        Format::Text => older(&text),
    }
}

/// The same with the samples of each family in order: the library has them as its hash map does.
fn in_order(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    for family in lines.chunk_by_mut(|one, next| one.starts_with('#') == next.starts_with('#')) {
        if !family.first().is_some_and(|line| line.starts_with('#')) {
            family.sort_unstable();
        }
    }
    lines.join("\n") + "\n"
}

fn label(name: &'static str, value: &str) -> (&'static str, String) {
    (name, one_line(value).into_owned())
}

fn counters(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn times(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    let family = Seconds::default();
    registry.register_with_unit(name, help, Unit::Seconds, family.clone());
    family
}

fn add(family: &Counters, labels: &Labels, n: i64) {
    family.get_or_create(labels).inc_by(n.max(0) as u64);
}

fn date(family: &Seconds, labels: &Labels, at: Option<Timestamp>) {
    if let Some(at) = at {
        family.get_or_create(labels).set(seconds(at));
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

fn sources(registry: &mut Registry, rows: &[SourceRow]) {
    let records = counters(registry, "records", "Records read");
    let alerts = counters(registry, "alerts", "Alerts among the records");
    let decided = counters(registry, "alert_decisions", "What was decided about alerts");
    let filtered = counters(registry, "alerts_filtered", "Alerts that no rule forwarded, by reason");
    let excluded = counters(registry, "alerts_excluded", "Alerts that an exclusion kept from the rules");
    let unauthenticated =
        counters(registry, "alerts_unauthenticated", "Alerts whose sender nobody vouches for");
    let ignored = counters(registry, "records_ignored", "Records that are no alerts, by kind");
    let rejected = counters(registry, "records_rejected", "Records that were not understood, by reason");
    let up = gauges(registry, "source_up", "Whether the source can be read (1) or not (0)");
    let behind = Gauges::default();
    let help = "What lies in its files and is not read";
    registry.register_with_unit("source_behind", help, Unit::Bytes, behind.clone());
    let help = "When something last came of the source, seconds since 1970";
    let last_read = times(registry, "source_last_read_timestamp", help);
    let help = "When the source last gave an alert, seconds since 1970";
    let last_alert = times(registry, "source_last_alert_timestamp", help);
    for row in rows {
        let source = || label("source", &row.name);
        let own = vec![source()];
        add(&records, &own, row.lines);
        add(&alerts, &own, row.alerts);
        add(&unauthenticated, &own, row.unauthenticated);
        for (decision, n) in [
            ("new", row.new),
            ("repeat", row.repeats),
            ("cleared", row.cleared),
            ("filtered", row.filtered.values().sum()),
            ("excluded", row.excluded.values().sum()),
        ] {
            add(&decided, &vec![source(), ("decision", decision.to_owned())], n);
        }
        for (family, name, counts) in [
            (&filtered, "reason", &row.filtered),
            (&excluded, "exclusion", &row.excluded),
            (&ignored, "kind", &row.ignored),
            (&rejected, "reason", &row.rejected),
        ] {
            for (word, n) in counts {
                add(family, &vec![source(), label(name, word)], *n);
            }
        }
        if let Some(bytes) = row.behind {
            behind.get_or_create(&own).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        up.get_or_create(&own).set(i64::from(row.trouble.is_none()));
        date(&last_read, &own, Some(row.last_read_at));
        date(&last_alert, &own, row.last_alert_at);
    }
}

fn destinations(registry: &mut Registry, rows: &[DestinationRow]) {
    let created = counters(registry, "tickets_created", "Records made at the destination");
    let found = counters(registry, "tickets_found", "Records that were found there already");
    let retries = counters(registry, "delivery_retries", "Sends that have to be tried again");
    let backlog = gauges(registry, "backlog_deliveries", "Deliveries that wait");
    let dead = gauges(registry, "dead_letters", "Deliveries that need a person");
    let help = "What of the destination waits: all of it, or tables";
    let holds = gauges(registry, "destination_holds", help);
    let help = "Requests in this hour of the budget";
    let requests = gauges(registry, "destination_requests_this_hour", help);
    let help = "When the destination last did what was asked, seconds since 1970";
    let last_ok = times(registry, "destination_last_success_timestamp", help);
    for row in rows {
        let labels = vec![label("destination", &row.name)];
        let count = |name: &str| row.counts.get(name).copied().unwrap_or(0);
        add(&created, &labels, count("created"));
        add(&found, &labels, count("found"));
        add(&retries, &labels, count("retries"));
        backlog.get_or_create(&labels).set(count("pending") + count("claimed"));
        dead.get_or_create(&labels).set(count("dead"));
        holds.get_or_create(&labels).set(row.holds.len() as i64);
        requests.get_or_create(&labels).set(row.requests_this_hour);
        date(&last_ok, &labels, row.last_ok_at);
    }
}

fn whole(registry: &mut Registry, status: &Status) {
    let overview = &status.overview;
    let gauge = |n: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(n);
        gauge
    };
    let help = "Taken in and in no other number before their commit";
    registry.register("records_gathered", help, gauge(status.gathered as i64));
    let shed =
        counters(registry, "alerts_shed", "Undelivered alerts that were given up for room, by severity");
    for (severity, n) in &overview.shed_by_severity {
        add(&shed, &vec![label("severity", severity)], *n);
    }
    let issues = gauges(registry, "health_issues", "What needs a person, by code");
    for issue in &status.health {
        issues.get_or_create(&vec![label("code", &issue.code)]).inc();
    }
    registry.register("sync_running", "Whether a sync runs", gauge(i64::from(status.syncing)));
    let repairs: Counter = Counter::default();
    repairs.inc_by(overview.repairs.len() as u64);
    registry.register("store_repairs", "Times that the database was found damaged and made anew", repairs);
    let bytes = gauge(overview.bytes as i64);
    registry.register_with_unit("store_size", "Size of the database", Unit::Bytes, bytes);
    let last = overview.last_sync.as_ref();
    let took = last.map(|sync| sync.ended_at.since(sync.started_at).as_secs_f64());
    let began = last.map(|sync| seconds(sync.started_at));
    let (next, oldest) = (status.next_sync_at.map(seconds), overview.oldest_pending_at.map(seconds));
    for (name, help, value) in [
        ("last_sync_timestamp", "When the last sync began, seconds since 1970", began),
        ("last_sync_duration", "How long the last sync took", took),
        ("next_sync_timestamp", "When the next sync is due, seconds since 1970", next),
        (
            "backlog_oldest_timestamp",
            "When the oldest delivery that waits was made, seconds since 1970",
            oldest,
        ),
    ] {
        let Some(value) = value else { continue };
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        registry.register_with_unit(name, help, Unit::Seconds, gauge);
    }
}

/// The same in the older text format: there the type of a counter stands by its whole name, an info is a gauge, and
/// neither units nor an end are written.
fn older(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1_024);
    let mut lines = text.lines().peekable();
    // A family begins with its help and says its type in the next line.
    while let Some(line) = lines.next() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let kind = lines.peek().and_then(|next| next.strip_prefix("# TYPE ")?.split_once(' '));
            let end = match kind.map(|(_, kind)| kind) {
                Some("counter") => "_total",
                Some("info") => "_info",
                _ => "",
            };
            out.extend(["# HELP ", name, end, " ", help, "\n"]);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (end, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            out.extend(["# TYPE ", name, end, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Writes the numbers to a file as `node_exporter` reads it, when they have changed; a reader never sees half of it.
/// `before` is what was written last. Blocking.
pub(super) fn textfile(path: &Path, status: &Status, before: &mut String) -> std::io::Result<()> {
    let text = text(status, Format::Text);
    if *before == text {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".otrelay-").suffix(".tmp").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.persist(path)?;
    *before = text;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HealthIssue;
    use crate::status::Live;
    use crate::store::Overview;

    fn status() -> Status {
        let source = SourceRow {
            name: "eve \"1\"\n".to_owned(),
            kind: "suricata-eve".to_owned(),
            first_read_at: None,
            last_read_at: Timestamp::from_micros(1_500_000),
            again: 0,
            rewound: false,
            rewound_since: None,
            last_alert_at: None,
            trouble: Some("x".to_owned()),
            behind: Some(8_123),
            lines: 7,
            alerts: 5,
            new: 1,
            repeats: 2,
            cleared: 0,
            devices: 0,
            unauthenticated: 0,
            filtered: [("severity".to_owned(), 2)].into(),
            excluded: [].into(),
            ignored: [("flow".to_owned(), 2)].into(),
            rejected: [].into(),
        };
        let overview = Overview { sources: vec![source], ..Overview::default() };
        let concerns = vec![HealthIssue::new("disk-full", "x".to_owned(), "y")];
        Status::new("a", Timestamp::EPOCH, overview, Some(Live { concerns, ..Live::default() }))
    }

    #[test]
    fn numbers_have_the_names_of_the_field() {
        let text = text(&status(), Format::Open);
        for line in [
            "# TYPE otrelay_alerts counter",
            r#"otrelay_alerts_total{source="eve \"1\" "} 5"#,
            r#"otrelay_alert_decisions_total{source="eve \"1\" ",decision="filtered"} 2"#,
            r#"otrelay_source_last_read_timestamp_seconds{source="eve \"1\" "} 1.5"#,
            r#"otrelay_health_issues{code="disk-full"} 1"#,
            "# UNIT otrelay_store_size_bytes bytes",
        ] {
            assert!(text.lines().any(|had| had == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_older_format_names_counters_by_their_whole_name() {
        let text = text(&status(), Format::Text);
        assert!(text.contains("# HELP otrelay_alerts_total "), "{text}");
        assert!(text.contains("# TYPE otrelay_alerts_total counter\notrelay_alerts_total{"), "{text}");
        assert!(text.contains("# TYPE otrelay_build_info gauge\n"), "{text}");
        assert!(!text.contains("EOF") && !text.contains("UNIT"), "{text}");
    }

    #[test]
    fn a_scraper_gets_what_it_asks_for() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::asked(Some(prometheus)), Format::Open);
        assert_eq!(Format::asked(Some("text/plain")), Format::Text);
        assert_eq!(Format::asked(None), Format::Open);
    }

    #[test]
    fn a_file_is_written_whole_and_only_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("otrelay.prom");
        let mut before = String::new();
        textfile(&path, &status(), &mut before).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("otrelay_alerts_total"));
        std::fs::remove_file(&path).unwrap();
        textfile(&path, &status(), &mut before).unwrap();
        assert!(!path.exists(), "nothing has changed");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
