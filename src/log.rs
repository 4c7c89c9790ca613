//! Logs: one line each on stderr, a sentence for people plus fields for queries. On a terminal with colour and time,
//! under systemd without either, but with the priority that journald reads at the start of a line.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::model::text::one_line;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// Warnings and errors: for commands.
    Quiet,
    /// What happens: for the service.
    Normal,
    /// Also how: `--verbose`.
    Verbose,
}

/// Sets logging up for the process; a second call does nothing.
pub fn init(volume: Volume, journald: bool, no_color: bool) {
    let level = match volume {
        Volume::Quiet => Level::WARN,
        Volume::Normal => Level::INFO,
        Volume::Verbose => Level::DEBUG,
    };
    // Other crates speak up only when something is wrong: hyper's debug lines hold headers.
    let targets = Targets::new().with_default(Level::WARN).with_target("otrelay", level);
    let registry = tracing_subscriber::registry().with(targets);
    let done = if journald {
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Journald);
        registry.with(layer).try_init()
    } else {
        let ansi = std::io::stderr().is_terminal() && !no_color;
        let layer =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi).with_target(false);
        registry.with(layer).try_init()
    };
    // Already set: tests run several agents in one process.
    drop(done);
}

/// `<4>sentence field=value`: the priority of sd-daemon(3), no time (the journal has it).
struct Journald;

impl<S, N> FormatEvent<S, N> for Journald
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let mut line = String::new();
        context.field_format().format_fields(Writer::new(&mut line), event)?;
        // What came from outside must not begin a second line of the journal.
        writeln!(writer, "<{priority}>{}", one_line(&line))
    }
}
