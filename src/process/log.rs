//! The log, on standard error.
//!
//! Logging never blocks. Otherwise a container runtime that is slow to read, or a pipe that nobody reads,
//! would delay the run, its time limit and its reaction to SIGTERM.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{
        OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

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

use super::terminal::is_colour_wanted;
use crate::{settings::LogFormat, text};

/// Capacity of the queue in lines; when it is full, lines are dropped. A run for 1,000 claims writes 3,000
/// lines within a second.
const WAITING_LINES: usize = 16_384;

/// How long the process waits at its end for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(300);

/// Starts logging to standard error: as text on a terminal and as JSON elsewhere, unless the settings say
/// otherwise.
pub fn start_log(format: Option<LogFormat>, filter: Targets) {
    let terminal = io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
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

/// Starts logging to standard error for a person who ran a command: messages without time and fields, unless
/// the settings ask for JSON.
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
        .with_writer(writer)
        .fmt_fields(only_message)
        .event_format(Plain { colour });
    init(layer.boxed(), filter);
}

/// Formats a line for a person: the message, prefixed by `error:` or `warning:` if it is one.
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
        // Messages escape foreign text themselves. This is the last line of defence for a terminal.
        let mut said = String::new();
        context.format_fields(Writer::new(&mut said), event)?;
        let is_safe = |character: &char| *character == '\n' || !text::is_treacherous(*character);
        let said: String = said.chars().filter(is_safe).collect();
        writeln!(writer, "{said}")
    }
}

/// The queue to the thread that writes to standard error.
static LINES: OnceLock<SyncSender<Line>> = OnceLock::new();

enum Line {
    Text(Vec<u8>),
    /// Answered once everything before it was written.
    Last(SyncSender<()>),
}

/// Returns a writer to standard error. It writes from a separate thread, except on a terminal, where a line
/// must not overtake the one that shows what is waited for.
fn writer() -> Box<dyn Write> {
    if io::stderr().is_terminal() {
        return Box::new(io::stderr());
    }
    let lines = LINES.get_or_init(|| {
        let (sender, receiver) = sync_channel(WAITING_LINES);
        // Without a thread there is no log. The termination message still reports the result.
        let _ = thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(receiver));
        sender
    });
    Box::new(Lines(lines.clone()))
}

struct Lines(SyncSender<Line>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line that does not fit is dropped; the alternative would be to block.
        let _ = self.0.try_send(Line::Text(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(lines: Receiver<Line>) {
    for line in lines {
        match line {
            // A closed pipe is no reason to stop.
            Line::Text(line) => drop(io::stderr().write_all(&line)),
            Line::Last(written) => drop(written.send(())),
        }
    }
}

/// Waits until the log is written, for at most 0.3 s.
pub fn finish_log() {
    let Some(lines) = LINES.get() else { return };
    let (written, is_written) = sync_channel(1);
    if lines.try_send(Line::Last(written)).is_ok() {
        let _ = is_written.recv_timeout(LAST_LINES);
    }
}
