//! The config file as the operator writes it: every key that otrelay knows, with the text that documents it.
//!
//! The doc comments become the descriptions of `otrelay config schema`. Keys whose work comes later are here as well,
//! so that they are refused by name and not as unknown; what may stand where is decided by `check`.

use schemars::Schema;

use super::problem::Problems;
use super::read::{List, Named, Table as _, table};
use super::source::Source;
use super::values::{
    AnyOr, AttachWord, AuthKind, Backfill, DeviceMethod, EngineWord, Moment, OnCleared, OnDeleted,
    OnSeenAgain, OnUnprotected, OneOrMore, Period, RedactAs, ReportType, Role, SecretRef, SeverityWord, Size,
    WhenFull,
};

table! {
    /// The configuration of otrelay.
    File {
        /// This sensor.
        agent: Agent,
        /// When and what is pushed.
        sync: Sync,
        /// What is kept on disk.
        buffer: Buffer,
        /// Destinations by name.
        servicenow: Named<Destination>,
        /// What is read.
        source: List<Source>,
        /// Forwarding rules, in order.
        rule: List<Rule>,
        /// Device attributes.
        devices: Devices,
        /// Status page and metrics.
        status: Status,
        /// Alerts that nobody wants, before the rules.
        exclude: List<Exclude>,
        /// What of an alert may not leave this machine.
        redact: List<Redact>,
        /// Cases for `otrelay test`.
        test: List<Case>,
    }

    /// This sensor.
    Agent {
        /// Its name, 1 to 64 characters; shown, no identity. Default: the host name.
        name: String,
        /// Its identity, 1 to 64 characters: part of every fingerprint. Default: derived from the machine id.
        id: String,
        /// What this machine is.
        role: Role,
        /// Where it is; goes into tickets.
        site: String,
        /// Which part of the site; goes into tickets.
        zone: String,
        /// Where the buffer is. Default: `$STATE_DIRECTORY`, else `/var/lib/otrelay`.
        state_dir: String,
    }

    /// When and what is pushed.
    Sync {
        /// `false`: take in and keep, push nothing. Default true.
        enabled: bool,
        /// Time between two pushes, at least 5m. Default 60m.
        interval: Period,
        /// How often ticket states are read back, at least 5m. Default 24h.
        tickets_interval: Period,
        /// Alerts up to this old are forwarded when a source is first read; `0s`: only new ones; `all`. Default 7d.
        backfill: Backfill,
    }

    /// What is kept on disk.
    Buffer {
        /// Size of the whole state directory, at least 8MiB. Default 256MiB.
        max_size: Size,
        /// How long delivered alerts are kept. Default 30d.
        keep_delivered: Period,
        /// What happens when `max_size` is reached. Default `shed-lowest`.
        when_full: WhenFull,
    }

    /// A ServiceNow instance.
    #[schemars(extend("required" = ["instance", "auth"]))]
    Destination {
        /// Its address, `https://NAME.service-now.com`; with `headers` it may have a path.
        instance: String,
        /// How otrelay logs in.
        auth: AuthKind,
        /// Client id of the OAuth registry record.
        client_id: String,
        /// Its secret.
        client_secret: SecretRef,
        /// The integration user.
        username: String,
        /// Its password.
        password: SecretRef,
        /// With `auth = "refresh-token"`; without it what `otrelay login` kept.
        refresh_token: SecretRef,
        /// With `auth = "jwt-bearer"`: the key that signs, PEM, RSA or ECDSA.
        private_key: SecretRef,
        /// With `auth = "jwt-bearer"`: the user to act as.
        subject: String,
        /// With `auth = "jwt-bearer"`: which key signs, where the record there has several.
        key_id: String,
        /// With `auth = "api-key"`.
        api_key: SecretRef,
        /// The proxy on the way there. Default: `HTTPS_PROXY` of the environment, unless `NO_PROXY` exempts the host.
        proxy: Proxy,
        /// What is trusted.
        tls: Tls,
        /// Headers that go with each request, for an API gateway in front of the instance.
        headers: Named<SecretRef>,
        /// Own ceiling of requests, at least 1. Default 1000.
        requests_per_hour: i64,
        /// Requests at the same time, 1 to 16. Default 2.
        max_in_flight: i64,
        /// What is done with a table that keeps neither of our keys: after a lost answer nothing there tells whether a
        /// record was made. Default `hold`.
        on_unprotected: OnUnprotected,
    }

    /// An HTTP proxy that is asked with CONNECT.
    #[schemars(extend("required" = ["url"]))]
    Proxy {
        /// `http://host:port` or `https://host:port`.
        url: String,
        /// If it wants a login.
        username: String,
        /// If it wants a login.
        password: SecretRef,
    }

    /// Certificates. Which keys may be used depends on the table it stands in.
    Tls {
        /// PEM file with certificates that are trusted beside the system's.
        ca_file: String,
        /// Whether the system's certificates are trusted as well. Default true.
        system_roots: bool,
        /// `sha256:` and the fingerprint of the one certificate that is trusted.
        pin: String,
        /// The certificate that is shown to the other side, PEM.
        client_cert_file: String,
        /// Its key, PEM, mode 0600.
        client_key_file: String,
        /// The listener's certificate, PEM. Not supported yet.
        (later) cert_file: String,
        /// Its key, PEM. Not supported yet.
        (later) key_file: String,
        /// PEM file with the certificates that senders have to show. Not supported yet.
        (later) client_ca_file: String,
    }

    /// A forwarding rule.
    #[schemars(extend("required" = ["name"]))]
    Rule {
        /// Its name, one line.
        name: String,
        /// Default true.
        enabled: bool,
        /// This level and every higher one. Default `warning`.
        min_severity: SeverityWord,
        /// Protocol names, or `any` (default).
        protocols: AnyOr<String>,
        /// Engines, or `any` (default).
        engines: AnyOr<EngineWord>,
        /// Whether it takes alerts about the plant. Default true.
        report_alerts: bool,
        /// Whether it takes notifications about the sensor itself. Default false.
        report_system_notifications: bool,
        /// So many tickets an hour at most, at least 1; beyond it new findings fold into one parent ticket. Default: no limit.
        max_tickets_per_hour: i64,
        /// What is done with a matching alert.
        action: List<Action>,
    }

    /// What a matching rule does.
    Action {
        /// To which destination; may be left out when there is one.
        servicenow: String,
        /// What is reported. Default `incidents`.
        report_type: ReportType,
        /// The table of the ticket, default `incident`; with `application` the staging table.
        table: String,
        /// Field to template over the alert, laid over the table's defaults.
        fields: Named<String>,
        /// With `application`: our name to the column of the staging table, where that has another name.
        columns: Named<String>,
        /// What becomes of the ticket when the source says that the finding has ended. Default `note`.
        on_cleared: OnCleared,
        /// What is done when the finding is seen again after its ticket was closed there. Default `new`.
        on_seen_again: OnSeenAgain,
        /// At most one work note for more sightings in this time, at least 1s; `0s`: none. Default 24h.
        update_interval: Period,
        /// Evidence that is attached to the ticket: `raw`, the record as the sensor wrote it; `pcap`, the packet of an alert
        /// that has one. Default: none.
        attach: List<AttachWord>,
        /// With `on_cleared = "resolve"`: template of the field `close_code`. Default: one that the instance has.
        close_code: String,
        /// With `on_cleared = "resolve"`: template of the field `close_notes`.
        close_notes: String,
        /// With `on_cleared = "resolve"`: field to template, laid over what closes a record of the table: `state`,
        /// `resolution_code` and the like.
        resolve: Named<String>,
    }

    /// Alerts that nobody wants, before the rules. All keys that are given have to hold.
    #[schemars(extend("required" = ["name"]))]
    Exclude {
        /// Its name, one line: what it takes is counted by it.
        name: String,
        /// Not before this time: `2026-12-01T22:00` in the machine's local time, or with an offset.
        from: Moment,
        /// Before this time.
        until: Moment,
        /// Days and hours of each week in the machine's local time: `Sun 02:00-04:00`, `Mon-Fri 18:00-06:00`, `daily
        /// 12:00-12:30`.
        weekly: OneOrMore<String>,
        /// Names of sources; `*` is anything.
        sources: OneOrMore<String>,
        /// Sensors; `*` is anything.
        sensors: OneOrMore<String>,
        /// Addresses and networks (`10.20.0.0/16`); source or destination is in one of them.
        addresses: OneOrMore<String>,
        /// Titles, the whole text; `*` is anything.
        titles: OneOrMore<String>,
        /// Engines.
        engines: OneOrMore<EngineWord>,
        /// Protocol names.
        protocols: OneOrMore<String>,
    }

    /// What of an alert may not leave this machine, whatever tells of it. The original record is then not told either.
    #[schemars(extend("required" = ["fields"]))]
    Redact {
        /// `source.ip`, `source.mac`, `source.name`, `source.device_id`, the same of `destination`, `sensor`, `site`, `zone`,
        /// `category`, `message`, `references`, `raw`. A value is also taken out of the texts that quote it.
        fields: OneOrMore<String>,
        /// What it becomes. Default `pseudonym`; `message`, `references` and `raw` can only be removed.
        r#as: RedactAs,
    }

    /// A case for `otrelay test`.
    #[schemars(extend("required" = ["name", "input", "expect"]))]
    Case {
        /// Its name, one line.
        name: String,
        /// What a sensor writes.
        input: CaseInput,
        /// What is to become of it.
        expect: CaseExpect,
    }

    /// What a sensor writes.
    #[schemars(extend("required" = ["kind", "line"]))]
    CaseInput {
        /// Kind of source, as in `[[source]]`.
        kind: String,
        /// Name of the source whose settings are used. Default: the first one of the kind.
        source: String,
        /// Name of the file it is of, for formats that are told apart by it (`notice.log`).
        file: String,
        /// The record; several lines where it needs a header.
        line: String,
    }

    /// What is to become of it. What is left out is not looked at.
    CaseExpect {
        /// Exactly these rules match; `[]`: none.
        rules: List<String>,
        /// Its severity.
        severity: SeverityWord,
        /// Its engine.
        engine: EngineWord,
        /// Exactly these protocols, in any order.
        protocols: List<String>,
        /// Fields of the first ticket and their values; an empty text: the field is left out.
        fields: Named<String>,
    }

    /// Device attributes. Without this table they are kept and not pushed.
    Devices {
        /// Whether devices are pushed. Default true.
        enabled: bool,
        /// To which destination; may be left out when there is one.
        servicenow: String,
        /// By which API. Default `identify-reconcile`.
        method: DeviceMethod,
        /// A choice of `cmdb_ci.discovery_source` there. Default `otrelay`.
        data_source: String,
        /// Time between two pushes of devices, at least 5m. Default 60m.
        interval: Period,
        /// What is done with a device that its source no longer has. Default `note`.
        on_deleted: OnDeleted,
        /// Type of a device to a class of the CMDB, laid over the built-in table; "" is no CI at all.
        class_map: Named<String>,
        /// Staging tables of `method = "import-set"`: `device`, `connection`, `firmware`; "" sends none. Default
        /// `u_otrelay_device` and so on.
        tables: Named<String>,
        /// Our names of their columns, and what they are called there.
        columns: Named<String>,
        /// All rows of a table in one request, by the labels of their columns. Default false.
        insert_multiple: bool,
    }

    /// Status page and metrics.
    Status {
        /// Where the status page and `/metrics` are, an address of this machine alone. Default: nowhere.
        listen: String,
        /// File that the metrics are written to, for the textfile collector of `node_exporter`; its name ends in `.prom`.
        /// Default: none.
        textfile: String,
    }
}

impl File {
    /// Lays what a later file says beside what is here: its keys in tables, its entries after those of before.
    pub(super) fn lay_beside(&mut self, other: Self, problems: &mut Problems) {
        let Self { agent, sync, buffer, servicenow, source, rule, devices, status, exclude, redact, test } =
            other;
        self.agent.join(agent, problems);
        self.sync.join(sync, problems);
        self.buffer.join(buffer, problems);
        self.servicenow.add(servicenow, problems);
        self.source.append(source);
        self.rule.append(rule);
        self.devices.join(devices, problems);
        self.status.join(status, problems);
        self.exclude.append(exclude);
        self.redact.append(redact);
        self.test.append(test);
    }
}

/// In which table a key is at home, for keys that stand in the wrong one.
pub(super) fn home_of(key: &str) -> Option<String> {
    let homes: [(&str, &[&str]); 10] = [
        ("[agent]", Agent::KEYS),
        ("[sync]", Sync::KEYS),
        ("[buffer]", Buffer::KEYS),
        ("[servicenow.NAME]", Destination::KEYS),
        ("[[rule]]", Rule::KEYS),
        ("[[rule.action]]", Action::KEYS),
        ("[[exclude]]", Exclude::KEYS),
        ("[[redact]]", Redact::KEYS),
        ("[devices]", Devices::KEYS),
        ("the main level of the file", File::KEYS),
    ];
    let home = homes.iter().find(|(_, keys)| keys.contains(&key)).map(|(home, _)| (*home).to_owned());
    home.or_else(|| super::source::kind_of_key(key).map(|kind| format!("[[source]] with kind = \"{kind}\"")))
}

/// The JSON Schema of the file.
pub(super) fn schema() -> Schema {
    schemars::schema_for!(File)
}
