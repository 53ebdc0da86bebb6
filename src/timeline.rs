//! The picture of which snapshots there are over time, and what keeps each: a lane for each claim, and in it a
//! row for each cause. Pure: what is shown, how wide, and the current time come from the caller.
//!
//! Hours and years share one line, so it has parts: the last day, the last week, the last four weeks, the last
//! year and so on, each with a scale of its own. The ruler below each lane names the ages.

use std::{cmp::Reverse, fmt::Write as _, ops::Range};

use k8s_openapi::jiff::Timestamp;

use crate::text;

/// How the picture is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// In columns. With less than [`LEAST`] it is drawn as if there were so many.
    pub width: usize,
    pub colour: bool,
    /// Whether with characters beyond ASCII.
    pub unicode: bool,
}

/// The snapshots of one claim.
#[derive(Clone, Debug)]
pub struct Lane {
    pub title: String,
    pub marks: Vec<Mark>,
}

/// One snapshot.
#[derive(Clone, Debug)]
pub struct Mark {
    pub time: Timestamp,
    pub kind: Kind,
    /// Why it stays or goes. Snapshots of one kind and one cause share a row.
    pub cause: String,
}

/// What a mark says. Rows are in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kept,
    Held,
    NotReady,
    /// Not ready, and there is an error.
    Failing,
    OfOthers,
    Unknown,
    Terminating,
    Goes,
}

/// The least width that can hold a row.
pub const LEAST: usize = 40;

/// The widest that the causes are. What is longer is wrapped.
const WIDEST_LABEL: usize = 24;

/// A part of the line has at least so many columns if there is room.
const LEAST_OF_PART: usize = 7;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// An age in seconds, and in words.
type Tick = (i64, &'static str);

/// The parts of the line, each from the end of the one before: the age at its far end, and the ages that its ruler
/// names, of which the first row is taken that fits.
const PARTS: [(Tick, &[&[Tick]]); 6] = [
    (
        (DAY, "24h"),
        &[
            &[
                (21 * HOUR, "21h"),
                (18 * HOUR, "18h"),
                (15 * HOUR, "15h"),
                (12 * HOUR, "12h"),
                (9 * HOUR, "9h"),
                (6 * HOUR, "6h"),
                (3 * HOUR, "3h"),
            ],
            &[(18 * HOUR, "18h"), (12 * HOUR, "12h"), (6 * HOUR, "6h")],
            &[(12 * HOUR, "12h")],
        ],
    ),
    (
        (7 * DAY, "7d"),
        &[
            &[(6 * DAY, "6d"), (5 * DAY, "5d"), (4 * DAY, "4d"), (3 * DAY, "3d"), (2 * DAY, "2d")],
            &[(5 * DAY, "5d"), (3 * DAY, "3d")],
            &[(4 * DAY, "4d")],
        ],
    ),
    ((28 * DAY, "4w"), &[&[(21 * DAY, "3w"), (14 * DAY, "2w")], &[(14 * DAY, "2w")]]),
    ((YEAR, "1y"), &[&[(274 * DAY, "9mo"), (182 * DAY, "6mo"), (91 * DAY, "3mo")], &[(182 * DAY, "6mo")]]),
    (
        (10 * YEAR, "10y"),
        &[&[(8 * YEAR, "8y"), (6 * YEAR, "6y"), (4 * YEAR, "4y"), (2 * YEAR, "2y")], &[(5 * YEAR, "5y")]],
    ),
    (
        (100 * YEAR, "100y"),
        &[&[(75 * YEAR, "75y"), (50 * YEAR, "50y"), (25 * YEAR, "25y")], &[(50 * YEAR, "50y")]],
    ),
];

/// The only part where nothing is older than an hour.
const HOUR_PART: (Tick, &[&[Tick]]) =
    ((HOUR, "60m"), &[&[(HOUR / 4 * 3, "45m"), (HOUR / 2, "30m"), (HOUR / 4, "15m")], &[(HOUR / 2, "30m")]]);

/// Draws the lanes, and below them what the marks mean. All lanes have the same scale.
pub fn draw(lanes: &[Lane], look: Look, now: Timestamp) -> String {
    let width = look.width.max(LEAST);
    let rows: Vec<Vec<Row<'_>>> = lanes.iter().map(|lane| rows(lane, now)).collect();
    let all = || rows.iter().flatten();
    let most = all().map(|row| row.ages.len()).max().unwrap_or(0);
    let longest = all().map(|row| text::width(row.cause)).max().unwrap_or(0);
    let label = longest.min(WIDEST_LABEL).min(width / 3);
    let numbers = most.to_string().len();
    let before = 1 + label + 1 + numbers + 1;
    let oldest = all().flat_map(|row| row.ages.iter().copied()).max().unwrap_or(0);
    let axis = Axis::new(oldest, width - before);
    let ruler = axis.ruler(look);

    let mut drawn = String::new();
    let mut has_several = false;
    for (lane, rows) in lanes.iter().zip(&rows) {
        for line in text::wrapped(&lane.title, width) {
            paint(&mut drawn, &line, Style::Heading, look);
            drawn.push('\n');
        }
        for (place, row) in rows.iter().enumerate() {
            let style = row.kind.style(place);
            let cells = axis.cells(&row.ages);
            has_several |= cells.iter().any(|cell| *cell > 1);
            let mut labels = text::wrapped(row.cause, label).into_iter().map(|line| cut(&line, label));
            let first = labels.next().unwrap_or_default();
            let _ = write!(drawn, " {first}{} {:>numbers$} ", blanks(label, &first), row.ages.len());
            draw_cells(&mut drawn, &cells, &axis, row.kind, style, look);
            drawn.push('\n');
            for line in labels {
                let _ = writeln!(drawn, " {line}");
            }
        }
        drawn.push_str(&" ".repeat(before));
        paint(&mut drawn, &ruler, Style::Faint, look);
        drawn.push_str("\n\n");
    }
    for line in text::wrapped(&legend(&rows, has_several, axis.parts.len() > 1, look), width) {
        drawn.push_str(&line);
        drawn.push('\n');
    }
    drawn
}

/// A row of a lane.
struct Row<'a> {
    kind: Kind,
    cause: &'a str,
    /// In seconds; what is dated in the future has none.
    ages: Vec<i64>,
}

/// The rows of a lane by kind, and among one kind the one with the newest snapshot first.
fn rows(lane: &Lane, now: Timestamp) -> Vec<Row<'_>> {
    let mut marks: Vec<&Mark> = lane.marks.iter().collect();
    marks.sort_by_key(|mark| Reverse(mark.time));
    let mut rows: Vec<Row<'_>> = Vec::new();
    for mark in marks {
        let age = now.duration_since(mark.time).as_secs().max(0);
        match rows.iter_mut().find(|row| row.kind == mark.kind && row.cause == mark.cause) {
            Some(row) => row.ages.push(age),
            None => rows.push(Row { kind: mark.kind, cause: &mark.cause, ages: vec![age] }),
        }
    }
    rows.sort_by_key(|row| row.kind);
    rows
}

/// The line: parts from the oldest to the newest.
struct Axis {
    parts: Vec<Part>,
}

struct Part {
    /// From the newest age to the oldest, in seconds; the oldest is of the next part.
    ages: Range<i64>,
    /// The columns, from the left.
    columns: Range<usize>,
    /// The oldest age in words.
    begin: &'static str,
    /// Ages between, of which the first row is taken that fits.
    ticks: &'static [&'static [Tick]],
}

impl Axis {
    fn new(oldest: i64, room: usize) -> Self {
        let is_short = oldest < HOUR;
        let last = PARTS.iter().position(|((end, _), _)| oldest < *end).unwrap_or(PARTS.len() - 1);
        let parts = if is_short { &[HOUR_PART][..] } else { &PARTS[..=last] };
        let mut axis = Axis { parts: Vec::new() };
        let (mut column, mut age) = (room, 0);
        let units = if is_short { 1 } else { 24 };
        for (((end, begin), ticks), width) in parts.iter().zip(widths(room, parts.len(), units)) {
            let columns = column - width..column;
            column = columns.start;
            axis.parts.push(Part { ages: age..*end, columns, begin, ticks });
            age = *end;
        }
        axis.parts.reverse();
        // What a single part does not need is left over on the left.
        let unused = column;
        for part in &mut axis.parts {
            part.columns = part.columns.start - unused..part.columns.end - unused;
        }
        axis
    }

    fn width(&self) -> usize {
        self.parts.last().map_or(0, |part| part.columns.end)
    }

    /// The column of an age; the leftmost for what is older than the line is long.
    fn column(&self, age: i64) -> usize {
        let Some(part) = self.parts.iter().find(|part| part.ages.contains(&age)) else { return 0 };
        let width = i64::try_from(part.columns.len()).unwrap_or(i64::MAX);
        let from_end = (age - part.ages.start) * width / (part.ages.end - part.ages.start);
        part.columns.end - 1 - usize::try_from(from_end).unwrap_or(0)
    }

    /// How many snapshots are in each column.
    fn cells(&self, ages: &[i64]) -> Vec<usize> {
        let mut cells = vec![0; self.width()];
        for age in ages {
            if let Some(cell) = cells.get_mut(self.column(*age)) {
                *cell += 1;
            }
        }
        cells
    }

    fn begins_part(&self, column: usize) -> bool {
        self.parts.iter().any(|part| part.columns.start == column)
    }

    /// The line with ages on it. Those that do not fit are left out.
    fn ruler(&self, look: Look) -> String {
        let (line, corner) = if look.unicode { ('─', '┴') } else { ('-', '|') };
        let mut ruler = vec![line; self.width()];
        put(&mut ruler, "now", self.width().saturating_sub(3), line);
        for part in &self.parts {
            if let Some(cell) = ruler.get_mut(part.columns.start) {
                *cell = corner;
            }
            put(&mut ruler, part.begin, part.columns.start + 1, line);
        }
        for ticks in self.parts.iter().map(|part| part.ticks) {
            let fitting = ticks.iter().find_map(|ticks| {
                let mut with = ruler.clone();
                ticks
                    .iter()
                    .all(|(age, words)| put(&mut with, words, self.column(*age), line))
                    .then_some(with)
            });
            ruler = fitting.unwrap_or(ruler);
        }
        ruler.into_iter().collect()
    }
}

/// Puts words onto a ruler, unless they would touch others.
fn put(ruler: &mut [char], words: &str, column: usize, line: char) -> bool {
    let is_word = |character: &char| character.is_ascii_alphanumeric();
    let end = column + words.len();
    let (before, after) = (column.checked_sub(1).and_then(|before| ruler.get(before)), ruler.get(end));
    let is_apart = !before.is_some_and(is_word) && !after.is_some_and(is_word);
    match ruler.get_mut(column..end) {
        Some(cells) if is_apart && cells.iter().all(|cell| *cell == line) => {
            cells.iter_mut().zip(words.chars()).for_each(|(cell, character)| *cell = character);
            true
        }
        _ => false,
    }
}

/// How wide the parts are, the newest first. That one has as many columns for each of its units, if there is
/// room, so that hourly snapshots are evenly spaced; the others share the rest.
fn widths(room: usize, parts: usize, units: usize) -> Vec<usize> {
    let others = parts - 1;
    let fair = match others {
        0 => room,
        _ => room * 3 / 2 / parts,
    };
    let first = match fair / units * units {
        0 if room >= units + others * LEAST_OF_PART => units,
        0 if others == 0 => room,
        0 => room / parts,
        first => first,
    };
    let rest = room - first;
    let share = |index: usize| rest / others + usize::from(index < rest % others);
    [first].into_iter().chain((0..others).map(share)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Heading,
    Faint,
    /// One of the colours that tell the rules apart.
    Rule(usize),
    Good,
    Warning,
    Bad,
}

/// Green, cyan and magenta, of which no two rows that follow each other have the same.
const RULE_COLOURS: [&str; 3] = ["32", "36", "35"];

impl Kind {
    fn mark(self, look: Look) -> char {
        let (unicode, ascii) = match self {
            Kind::Kept => ('●', '*'),
            Kind::Held => ('◆', 'H'),
            Kind::NotReady => ('○', 'o'),
            Kind::Failing => ('!', '!'),
            Kind::OfOthers => ('□', '#'),
            Kind::Unknown => ('?', '?'),
            Kind::Terminating => ('~', '~'),
            Kind::Goes => ('×', 'x'),
        };
        if look.unicode { unicode } else { ascii }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Kept => "stays",
            Kind::Held => "held",
            Kind::NotReady => "not ready",
            Kind::Failing => "not ready, with an error",
            Kind::OfOthers => "another schedule's",
            Kind::Unknown => "unknown",
            Kind::Terminating => "being deleted",
            Kind::Goes => "goes",
        }
    }

    /// How the marks of a row look, by its place in the lane.
    fn style(self, place: usize) -> Style {
        match self {
            Kind::Kept => Style::Rule(place),
            Kind::Held => Style::Good,
            Kind::NotReady | Kind::Terminating | Kind::Goes => Style::Warning,
            Kind::Failing => Style::Bad,
            Kind::OfOthers | Kind::Unknown => Style::Faint,
        }
    }
}

/// Draws the cells of a row: nothing, the mark, or how many there are.
fn draw_cells(drawn: &mut String, cells: &[usize], axis: &Axis, kind: Kind, style: Style, look: Look) {
    let grid = if look.unicode { '│' } else { '|' };
    let used = cells.iter().rposition(|cell| *cell > 0).map_or(0, |last| last + 1);
    let last_part = axis.parts.last().map_or(0, |part| part.columns.start + 1);
    // Characters of one style, which are painted together.
    let mut run = String::new();
    let mut style_of_run = Style::Plain;
    for (column, cell) in cells.iter().enumerate().take(used.max(last_part)) {
        let (character, style) = match cell {
            0 if axis.begins_part(column) => (grid, Style::Faint),
            0 => (' ', Style::Plain),
            1 => (kind.mark(look), style),
            2..=9 => (char::from_digit(u32::try_from(*cell).unwrap_or(9), 10).unwrap_or('+'), style),
            _ => ('+', style),
        };
        if style != style_of_run {
            paint(drawn, &run, style_of_run, look);
            run.clear();
            style_of_run = style;
        }
        run.push(character);
    }
    paint(drawn, &run, style_of_run, look);
}

/// What the marks mean that there are.
fn legend(rows: &[Vec<Row<'_>>], has_several: bool, has_parts: bool, look: Look) -> String {
    let mut kinds: Vec<Kind> = rows.iter().flatten().map(|row| row.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut said: Vec<String> =
        kinds.into_iter().map(|kind| format!("{} {}", kind.mark(look), kind.words())).collect();
    if has_several {
        said.push("2 to 9: so many in one column, +: ten or more".to_owned());
    }
    let mut legend = said.join("; ");
    legend.push_str(". Each is in the row of the first rule that keeps it.");
    if has_parts {
        let corner = if look.unicode { '│' } else { '|' };
        let _ = write!(legend, " At each {corner} the scale changes.");
    }
    legend
}

/// A line of a cause in at most `room` columns.
fn cut(line: &str, room: usize) -> String {
    if text::width(line) <= room {
        return line.to_owned();
    }
    let mut part = String::new();
    for character in line.chars() {
        part.push(character);
        if text::width(&part) >= room {
            part.pop();
            break;
        }
    }
    part.push('~');
    part
}

fn blanks(room: usize, text: &str) -> String {
    " ".repeat(room.saturating_sub(text::width(text)))
}

fn paint(drawn: &mut String, part: &str, style: Style, look: Look) {
    let code = match style {
        _ if !look.colour || part.is_empty() => "",
        Style::Plain => "",
        Style::Heading => "1",
        Style::Faint => "2",
        Style::Rule(place) => RULE_COLOURS[place % RULE_COLOURS.len()],
        Style::Good => "1;32",
        Style::Warning => "33",
        Style::Bad => "31",
    };
    match code {
        "" => drawn.push_str(part),
        code => {
            let _ = write!(drawn, "\u{1b}[{code}m{part}\u{1b}[0m");
        }
    }
}

#[cfg(test)]
mod tests;
