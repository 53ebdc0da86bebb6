//! Rows for people: a table that fits the terminal. Names are never cut, for they are what one
//! copies; what does not fit is the reason, which is wrapped.

use std::iter;

use k8s_openapi::jiff::Timestamp;

use super::{Retention, Row, State};
use crate::{snapshot::Verification, text};

/// How a table looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look<'a> {
    /// How many columns the terminal has; `None` if it is none, and nothing is wrapped.
    pub width: Option<usize>,
    /// Whether in colour.
    pub colour: bool,
    /// Whether with all columns, each snapshot on one line.
    pub wide: bool,
    /// Whether with the namespace.
    pub namespaces: bool,
    /// Whether with the schedule.
    pub jobs: bool,
    /// The keys of the labels that have a column.
    pub labels: &'a [String],
}

/// The least room that a reason is wrapped into; with less it goes onto a line of its own.
const LEAST: usize = 14;

const GAP: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Heading,
    Good,
    Warning,
    Bad,
    Faint,
}

struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    fn new(text: impl Into<String>, style: Style) -> Self {
        Cell { text: text.into(), style }
    }

    /// What others gave a name, or nothing.
    fn name(name: Option<&str>) -> Self {
        Cell::new(name.map_or("-".into(), text::name), Style::Plain)
    }

    fn width(&self) -> usize {
        text::width(&self.text)
    }
}

/// The table, with a line of headings. Ages are those of `now`.
pub fn table(rows: &[Row], look: Look<'_>, now: Timestamp) -> String {
    let verified = look.wide || rows.iter().any(|row| row.record.verification != Verification::default());
    let mut lines: Vec<Vec<Cell>> = vec![headings(look, verified)];
    let rows: Vec<(&Row, bool)> = rows
        .iter()
        .flat_map(|row| iter::once((row, false)).chain(row.members.iter().map(|row| (row, true))))
        .collect();
    lines.extend(rows.iter().map(|(row, is_member)| cells(row, *is_member, look, verified, now)));
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(Cell::width).max().unwrap_or(0))
        .collect();
    let before_last: usize = widths.iter().take(columns.saturating_sub(1)).map(|width| width + GAP).sum();
    let room = look.width.filter(|_| !look.wide).map(|width| width.saturating_sub(before_last));

    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let error = index.checked_sub(1).and_then(|row| rows.get(row)).and_then(|(row, is_member)| {
            // What is wrong with a member is said of its group.
            shown_error(row).filter(|_| !is_member)
        });
        write_line(&mut text, line, &widths, before_last, room, look.colour);
        if let Some(error) = error.filter(|_| !look.wide) {
            let room = look.width.map_or(usize::MAX, |width| width.saturating_sub(2).max(LEAST));
            for part in text::wrapped(&format!("error: {error}"), room) {
                text.push_str("  ");
                painted(&mut text, &part, Style::Bad, look.colour);
                text.push('\n');
            }
        }
    }
    text
}

/// The error of a snapshot that is stuck: one that is ready all the same is not.
fn shown_error(row: &Row) -> Option<&str> {
    row.record.snapshot.error.as_deref().filter(|_| !row.record.snapshot.ready)
}

fn headings(look: Look<'_>, verified: bool) -> Vec<Cell> {
    let mut names = Vec::new();
    // As kubectl heads its columns of labels.
    let labels = look.labels.iter().map(|key| key.rsplit('/').next().unwrap_or(key).to_uppercase());
    let labels: Vec<String> = labels.map(|heading| text::name(&heading).into_owned()).collect();
    if look.namespaces {
        names.push("NAMESPACE");
    }
    names.extend(["CLAIM", "SNAPSHOT", "AGE"]);
    if look.wide {
        names.push("TIME");
    }
    names.extend(["READY", "SIZE", "STATE"]);
    if verified {
        names.push("VERIFIED");
    }
    if look.jobs || look.wide {
        names.push("SCHEDULE");
    }
    if look.wide {
        names.push("CLASS");
    }
    names.extend(labels.iter().map(String::as_str));
    names.push("RETENTION");
    if look.wide {
        names.push("ERROR");
    }
    names.into_iter().map(|name| Cell::new(name, Style::Heading)).collect()
}

/// When it was verified, or that this failed since.
fn verification(verification: &Verification, now: Timestamp) -> Cell {
    match verification {
        Verification { failed: Some(_), .. } => Cell::new("failed", Style::Bad),
        Verification { verified: Some(time), .. } => {
            Cell::new(format!("{} ago", text::age(now.duration_since(*time))), Style::Good)
        }
        Verification { .. } => Cell::new("-", Style::Plain),
    }
}

/// The cells of a row. A member stands under its group, and its name, which is as long as a line, is shown only where
/// lines may be long.
fn cells(row: &Row, is_member: bool, look: Look<'_>, verified: bool, now: Timestamp) -> Vec<Cell> {
    let Row { record, group, members: _, state, retention } = row;
    let snapshot = &record.snapshot;
    let mut cells = Vec::new();
    if look.namespaces {
        cells.push(Cell::name(Some(&record.namespace)));
    }
    cells.push(match (group, &record.claim) {
        (Some(group), _) => Cell::new(format!("group {}", text::name(group)), Style::Plain),
        (None, Some(claim)) if is_member => Cell::new(format!("  {}", text::name(claim)), Style::Plain),
        (None, claim) => Cell::name(claim.as_deref()),
    });
    cells.push(match is_member && !look.wide {
        true => Cell::new("  member", Style::Faint),
        false => Cell::name(Some(&snapshot.name)),
    });
    let age = now.duration_since(snapshot.time());
    let is_known = snapshot.time() < Timestamp::MAX;
    cells.push(match is_known {
        true => Cell::new(text::age(age), Style::Plain),
        false => Cell::new("?", Style::Plain),
    });
    if look.wide {
        cells.push(match is_known {
            true => Cell::new(snapshot.time().to_string(), Style::Plain),
            false => Cell::new("?", Style::Plain),
        });
    }
    cells.push(match snapshot.ready {
        true => Cell::new("true", Style::Good),
        false => Cell::new("false", Style::Warning),
    });
    cells.push(Cell::name(record.restore_size.as_deref()));
    cells.push(Cell::new(
        state.word(),
        match state {
            State::Ok => Style::Plain,
            State::Held => Style::Good,
            State::Waiting | State::Terminating => Style::Warning,
            State::Error | State::Stuck => Style::Bad,
        },
    ));
    if verified {
        cells.push(verification(&record.verification, now));
    }
    if look.jobs || look.wide {
        cells.push(Cell::name(record.schedule.as_deref()));
    }
    if look.wide {
        cells.push(Cell::name(record.class.as_deref()));
    }
    cells.extend(look.labels.iter().map(|key| Cell::name(record.label(key))));
    cells.push(match retention {
        Retention::Kept(reason) if is_member => Cell::new(reason.as_str(), Style::Faint),
        Retention::Goes(reason) | Retention::WouldGo(reason) if is_member => {
            Cell::new(reason.as_str(), Style::Warning)
        }
        // Nobody keeps what is going: it waits for its finalizers.
        Retention::Kept(_) if snapshot.is_terminating() => Cell::new("being deleted", Style::Plain),
        Retention::Kept(reason) => Cell::new(format!("kept: {reason}"), Style::Plain),
        Retention::Goes(reason) => Cell::new(format!("will go: {reason}"), Style::Warning),
        Retention::WouldGo(reason) => Cell::new(format!("would go: {reason}"), Style::Warning),
        Retention::Unknown(reason) => Cell::new(format!("unknown: {}", text::foreign(reason)), Style::Faint),
        Retention::NotOurs => Cell::new("another schedule's", Style::Faint),
    });
    if look.wide {
        cells.push(Cell::new(shown_error(row).unwrap_or("-"), Style::Bad));
    }
    cells
}

/// Writes a line of the table, the last cell wrapped into `room`, or below if there is hardly any.
fn write_line(
    text: &mut String,
    line: &[Cell],
    widths: &[usize],
    before_last: usize,
    room: Option<usize>,
    colour: bool,
) {
    let Some((last, cells)) = line.split_last() else { return };
    for (cell, width) in cells.iter().zip(widths) {
        painted(text, &cell.text, cell.style, colour);
        text.extend(std::iter::repeat_n(' ', width - cell.width() + GAP));
    }
    let is_heading = last.style == Style::Heading;
    let fits = room.is_none_or(|room| room >= LEAST.min(widths.last().copied().unwrap_or(0)));
    if !fits {
        trim(text);
        // There is a line below for what this would head.
        if is_heading {
            text.push('\n');
            return;
        }
        text.push_str("\n    ");
    }
    let (indent, room) = match (fits, room) {
        (true, room) => (before_last, room.unwrap_or(usize::MAX)),
        (false, _) => (4, usize::MAX),
    };
    for (index, part) in text::wrapped(&last.text, room).into_iter().enumerate() {
        if index > 0 {
            text.extend(std::iter::repeat_n(' ', indent));
        }
        painted(text, &part, last.style, colour);
        text.push('\n');
    }
}

/// Takes blanks from the end of what was written.
fn trim(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
}

fn painted(text: &mut String, part: &str, style: Style, colour: bool) {
    let code = match style {
        _ if !colour => "",
        Style::Plain => "",
        Style::Heading => "1",
        Style::Good => "32",
        Style::Warning => "33",
        Style::Bad => "31",
        Style::Faint => "2",
    };
    match code {
        "" => text.push_str(part),
        code => text.push_str(&format!("\u{1b}[{code}m{part}\u{1b}[0m")),
    }
}
