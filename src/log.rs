//! Logs: a sentence for people plus fields for queries. To journald by its own protocol where stderr is connected to it
//! (`journal`); else one line each on stderr, under systemd with the priority that is read at the start of a line, on a
//! terminal with colour and time. In each case no more than a few lines a minute about one thing (`limit`).

mod journal;
mod limit;

use std::fmt;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use self::journal::Journal;
use self::limit::{Gate, Limit, Summary};
use crate::model::text::one_line;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// Errors: for the demo, whose simulator loses answers on purpose.
    Faults,
    /// Warnings and errors: for commands.
    Quiet,
    /// What happens: for the service.
    Normal,
    /// Also how: `--verbose`.
    Verbose,
}

/// What is never kept back: the numbers of what was, and starts, stops and reloads, which are an audit.
const EXEMPT: [&str; 2] = [module_path!(), "otrelay::app::service"];

/// Lines that are kept back, for the whole process: so is its journal.
static LIMIT: LazyLock<Arc<Limit>> = LazyLock::new(Arc::default);

/// Sets logging up for the process; a second call does nothing. `journal_stream` is `$JOURNAL_STREAM`, by which systemd
/// says which stream it reads.
pub fn init(volume: Volume, journal_stream: Option<&str>, no_color: bool) {
    let level = match volume {
        Volume::Faults => Level::ERROR,
        Volume::Quiet => Level::WARN,
        Volume::Normal => Level::INFO,
        Volume::Verbose => Level::DEBUG,
    };
    // Other crates speak up only when something is wrong: hyper's debug lines hold headers.
    let targets = Targets::new().with_default(Level::WARN).with_target("otrelay", level);
    let gate = Gate { limit: Arc::clone(&LIMIT), exempt: &EXEMPT };
    let registry = tracing_subscriber::registry().with(targets).with(gate);
    let terminal = std::io::stderr().is_terminal();
    let journal = journal_stream
        .filter(|stream| is_stderr(stream))
        .and_then(|_| Journal::connect(Path::new(journal::SOCKET)).ok());
    let done = match journal {
        Some(journal) => registry.with(journal).try_init(),
        None if journal_stream.is_some() && !terminal => {
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Prefixed);
            registry.with(layer).try_init()
        }
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .fmt_fields(clean_fields())
                .with_writer(std::io::stderr)
                .with_ansi(terminal && !no_color)
                .with_target(false);
            registry.with(layer).try_init()
        }
    };
    // Already set: tests run several agents in one process.
    drop(done);
}

/// Whether `device:inode` is where stderr goes; not so where the unit sends it to a file.
fn is_stderr(stream: &str) -> bool {
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// Tells, a minute after lines were kept back, how many they were. Until `stop`; what is left then is told at once.
/// Sleeps while nothing is kept back.
pub async fn tell_kept(stop: CancellationToken) {
    loop {
        let due = LIMIT.due();
        let sleep = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = LIMIT.kept.notified() => {}
            () = sleep => tell(LIMIT.summaries(Some(Instant::now()))),
        }
    }
    tell_all_kept();
}

/// The same at the end of the process.
pub fn tell_all_kept() {
    tell(LIMIT.summaries(None));
}

fn tell(summaries: Vec<Summary>) {
    for Summary { level, text } in summaries {
        match level {
            Level::ERROR => tracing::error!("{text}"),
            Level::WARN => tracing::warn!("{text}"),
            Level::INFO => tracing::info!("{text}"),
            _ => tracing::debug!("{text}"),
        }
    }
}

/// Fields of a line for people: each one line that is safe to show.
fn clean_fields() -> impl for<'w> FormatFields<'w> {
    tracing_subscriber::fmt::format::debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        let text = one_line(&text);
        if field.name() == "message" { write!(writer, "{text}") } else { write!(writer, "{field}={text}") }
    })
    .delimited(" ")
}

/// Of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// `<4>sentence field=value`: the priority of sd-daemon(3), no time (the journal has it).
struct Prefixed;

impl<S, N> FormatEvent<S, N> for Prefixed
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
        let priority = priority(*event.metadata().level());
        let mut line = String::new();
        context.field_format().format_fields(Writer::new(&mut line), event)?;
        // What came from outside must not begin a second line of the journal.
        writeln!(writer, "<{priority}>{}", one_line(&line))
    }
}
