//! The terminal: what it can show, and what goes to standard output.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
};

use crate::settings::LogFormat;

/// Whether nobody said that colours are not wanted, or shown.
pub(super) fn is_colour_wanted() -> bool {
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
