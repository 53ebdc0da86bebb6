//! The process around a command: its log, its terminal, the signals that end it, and the message
//! that it leaves to Kubernetes. What the commands do is in [`crate::run`], [`crate::list`] and
//! [`crate::restore`].

use std::{
    cell::Cell,
    fmt,
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    path::Path,
};

use tokio::signal::unix::{SignalKind, signal};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Writer, debug_fn},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    report::{EXIT_DONE, Report, Stop},
    restore::RestoreReport,
    settings::LogFormat,
    text,
};

/// Begins to write the log to standard error: text on a terminal and JSON elsewhere, unless the
/// settings say otherwise.
pub fn start_log(format: Option<LogFormat>, filter: Targets) {
    let terminal = io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let layer = match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => layer.with_ansi(terminal && is_colour_wanted()).boxed(),
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    init(layer, filter);
}

fn init(layer: Box<dyn Layer<Registry> + Send + Sync>, filter: Targets) {
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// Begins to write the log to standard error for a person who gave a command: what is said and no
/// more, unless the settings ask for JSON.
pub fn start_plain_log(format: Option<LogFormat>, filter: Targets) {
    if format == Some(LogFormat::Json) {
        return start_log(format, filter);
    }
    let colour = io::stderr().is_terminal() && is_colour_wanted();
    let only_message = debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    });
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .fmt_fields(only_message)
        .event_format(Plain { colour });
    init(layer.boxed(), filter);
}

/// A line for a person: what is said, after a word of warning where one is due.
struct Plain {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Plain
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
        let (word, code) = match *event.metadata().level() {
            Level::ERROR => ("error", "31"),
            Level::WARN => ("warning", "33"),
            _ => ("", ""),
        };
        match (word, self.colour) {
            ("", _) => {}
            (word, true) => write!(writer, "\u{1b}[{code}m{word}:\u{1b}[0m ")?,
            (word, false) => write!(writer, "{word}: ")?,
        }
        // What is said of others was made safe where it was said; a terminal gets nothing that was not.
        let mut said = String::new();
        context.format_fields(Writer::new(&mut said), event)?;
        let is_safe = |character: &char| *character == '\n' || !text::is_treacherous(*character);
        let said: String = said.chars().filter(is_safe).collect();
        writeln!(writer, "{said}")
    }
}

/// Whether nobody said that colours are not wanted, or shown.
fn is_colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// What standard output is: how many columns it has if it is a terminal, and whether it wants colour.
pub fn screen() -> (Option<usize>, bool) {
    if !io::stdout().is_terminal() {
        return (None, false);
    }
    let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    (width.filter(|width| *width > 0), is_colour_wanted())
}

/// Shows on a terminal what is waited for, on a line that the next one overwrites; elsewhere, and in
/// JSON, it is only in the log's details.
pub fn waiting_line(format: Option<LogFormat>) -> impl Fn(Option<&str>) {
    let terminal = io::stderr().is_terminal() && format != Some(LogFormat::Json);
    let shown = Cell::new(false);
    move |waiting: Option<&str>| {
        if !terminal {
            if let Some(waiting) = waiting {
                tracing::debug!("{waiting}");
            }
            return;
        }
        let width =
            terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
        let line = match waiting {
            // The last column is left free: some terminals go to the next line with it.
            Some(waiting) => waiting.chars().take(width.saturating_sub(1)).collect(),
            None if shown.get() => String::new(),
            None => return,
        };
        shown.set(waiting.is_some());
        // A terminal that is gone is no reason to stop.
        let _ = write!(io::stderr(), "\r\u{1b}[2K{line}");
    }
}

/// Writes data to standard output; `false` if nobody takes it.
pub fn print(data: &str) -> bool {
    io::stdout().write_all(data.as_bytes()).and_then(|()| io::stdout().flush()).is_ok()
}

/// Writes what a restore came to: the claim to standard output, the rest to the log and to the
/// termination message's file.
pub fn publish_restore(report: &RestoreReport, format: Option<LogFormat>, termination_log: &Path) {
    let (exit, said) = (report.exit_code(), report.message());
    match &report.outcome {
        // Where all is JSON, data is.
        Ok(restored) if format == Some(LogFormat::Json) => {
            tracing::info!(exit, data = restored.data, next = restored.next, "{said}")
        }
        Ok(restored) => {
            tracing::info!(exit, "{said}");
            print(&restored.data);
            if !restored.next.is_empty() {
                tracing::info!("{}", restored.next);
            }
        }
        Err(_) => tracing::error!(exit, "{said}"),
    }
    leave_message(&format!("{said}\n"), termination_log);
}

/// From now on SIGTERM, which Kubernetes sends to end a pod, and SIGINT, which Ctrl-C sends, end the
/// process no more by themselves: they end the returned future.
///
/// # Errors
/// If the system does not let us handle them.
pub fn stop_signals() -> io::Result<impl Future<Output = Stop>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Stop::Signal(15),
            _ = interrupt.recv() => Stop::Signal(2),
        }
    })
}

/// Writes the summary to the log, and the termination message to its file.
pub fn publish(report: &Report, termination_log: &Path) {
    let code = report.exit_code();
    let duration_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
    let (claims, ready, deleted) = (report.claims.len(), report.ready(), report.deleted());
    let summary = report.summary();
    if code == EXIT_DONE {
        tracing::info!(exit = code, claims, ready, deleted, duration_ms, "{summary}");
    } else {
        tracing::error!(exit = code, claims, ready, deleted, duration_ms, "{summary}");
    }
    leave_message(&report.termination_message(), termination_log);
}

/// Leaves a message where Kubernetes looks for it. Outside a pod there is no such file, and none
/// is made: only a place that exists, or that the user named and that can be made, is written to.
pub fn leave_message(message: &str, termination_log: &Path) {
    let in_dev = termination_log.starts_with("/dev");
    let written = OpenOptions::new()
        .write(true)
        .truncate(true)
        .create(!in_dev)
        .open(termination_log)
        .and_then(|mut file| file.write_all(message.as_bytes()));
    if let Err(error) = written {
        tracing::debug!("no termination message was left in {}: {error}", termination_log.display());
    }
}
