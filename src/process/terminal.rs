//! Access to the terminal: its width, colours, and standard output.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
};

use crate::{settings::LogFormat, timeline::Look};

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

/// Returns how a picture is to be drawn on standard output. A pipe is as wide as `COLUMNS` says, or as
/// 80 columns.
pub fn canvas() -> Look {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (width, colour) = screen();
    let width = width.or_else(|| variable("COLUMNS").parse::<u16>().ok().map(usize::from));
    let unicode = is_unicode_wanted(variable);
    Look { width: width.unwrap_or(COLUMNS), colour, unicode }
}

/// How many columns a terminal usually has.
const COLUMNS: usize = 80;

/// Whether the locale is one of UTF-8, and the terminal shows more than letters.
fn is_unicode_wanted(variable: impl Fn(&str) -> String) -> bool {
    let locales = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().map(&variable);
    let locale = locales.into_iter().find(|locale| !locale.is_empty()).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    (locale.contains("utf-8") || locale.contains("utf8")) && variable("TERM") != "dumb"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_more_than_ascii_where_the_locale_is_one_of_utf_8() {
        let wanted = |variables: &[(&str, &str)]| {
            is_unicode_wanted(|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map_or(String::new(), |(_, value)| (*value).to_owned())
            })
        };
        for (variables, unicode) in [
            (&[][..], false),
            (&[("LANG", "en_GB.UTF-8")], true),
            (&[("LANG", "C.utf8"), ("LC_ALL", "")], true),
            (&[("LANG", "en_GB.UTF-8"), ("LC_ALL", "C")], false),
            (&[("LANG", "C"), ("LC_CTYPE", "UTF-8")], true),
            (&[("LC_ALL", "de_DE.ISO-8859-1"), ("LC_CTYPE", "UTF-8")], false),
            (&[("LANG", "en_GB.UTF-8"), ("TERM", "dumb")], false),
            (&[("LANG", "en_GB.UTF-8"), ("TERM", "xterm")], true),
        ] {
            assert_eq!(wanted(variables), unicode, "{variables:?}");
        }
    }
}
