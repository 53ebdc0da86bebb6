//! Access to the terminal: its width, colours, and standard output.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
};

use crate::settings::LogFormat;

/// Whether colours are wanted: neither `NO_COLOR` is set nor `TERM=dumb`.
pub(super) fn is_colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns the number of columns of standard output, if it is a terminal, and whether to use colours.
pub fn screen() -> (Option<usize>, bool) {
    if !io::stdout().is_terminal() {
        return (None, false);
    }
    let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    (width.filter(|width| *width > 0), is_colour_wanted())
}

/// Returns a function that shows on a terminal what is waited for, on a line that the next call overwrites.
/// Elsewhere, and with the JSON format, it logs at level debug.
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
            // Some terminals wrap when the last column is used.
            Some(waiting) => waiting.chars().take(width.saturating_sub(1)).collect(),
            None if shown.get() => String::new(),
            None => return,
        };
        shown.set(waiting.is_some());
        // A closed terminal is no reason to stop.
        let _ = write!(io::stderr(), "\r\u{1b}[2K{line}");
    }
}

/// Writes data to standard output. Returns `false` if that fails.
pub fn print(data: &str) -> bool {
    io::stdout().write_all(data.as_bytes()).and_then(|()| io::stdout().flush()).is_ok()
}
