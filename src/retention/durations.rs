//! Durations in rules: `within=14d`, and the ISO 8601 durations of k8s-snapshots.

use std::{fmt, str::FromStr};

use k8s_openapi::jiff::{Span, Timestamp, civil::date, tz::TimeZone};

/// A length of time, such as how far `within` looks back. A calendar span, because months differ in length.
#[derive(Clone, Debug)]
pub struct Window {
    span: Span,
    text: String,
}

impl Window {
    /// Returns the time this far before `newest`, or `None` if that is before all time. Where a month has no
    /// such day, it is the month's last: a month before 31 March is 28 February. (restic goes on counting, to 3
    /// March, and so keeps up to three days less.)
    pub(super) fn before(&self, newest: Timestamp) -> Option<Timestamp> {
        let newest = TimeZone::UTC.to_datetime(newest);
        TimeZone::UTC.to_timestamp(newest.checked_sub(self.span).ok()?).ok()
    }

    /// Returns the time so many times this far after `begin`, or `None` if that is after all time.
    pub fn after(&self, begin: Timestamp, times: i64) -> Option<Timestamp> {
        let begin = TimeZone::UTC.to_datetime(begin);
        let span = self.span.checked_mul(times).ok()?;
        TimeZone::UTC.to_timestamp(begin.checked_add(span).ok()?).ok()
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str =
            "numbers with units are, each once: y, mo, w, d, h, m (minutes) or s, e.g. 14d, 36h or 1y6mo";
        let span = span(text)
            .ok_or_else(|| format!("{:?} is not a length of time; {ACCEPTED}", crate::text::foreign(text)))?;
        if span.is_zero() || span.is_negative() {
            return Err(format!("{text:?} is not above zero; {ACCEPTED}"));
        }
        // In restic `m` is a month. Next to days or years, and before hours, minutes are unlikely to be meant.
        let has_days =
            span.get_days() > 0 || span.get_weeks() > 0 || span.get_months() > 0 || span.get_years() > 0;
        let of_minutes = units(text).position(|unit| unit == "m");
        let is_before_hours = of_minutes < units(text).position(|unit| unit.starts_with('h'));
        if of_minutes.is_some() && (has_days || is_before_hours) && !text.starts_with('P') {
            return Err(format!("the m in {text:?} may be minutes or months; write min or mo"));
        }
        match date(9999, 1, 1).checked_sub(span) {
            Ok(begin) if begin.year() >= 0 => Ok(Window { span, text: text.to_owned() }),
            _ => Err(format!("{text:?} is more than 9999 years")),
        }
    }
}

/// Parses a length of time. Its units may come in any order, as in restic; `jiff` wants the largest first.
fn span(text: &str) -> Option<Span> {
    if let Ok(span) = text.parse() {
        return Some(span);
    }
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|character: char| character.is_ascii_alphabetic())?;
        let unit = rest[number..].find(|character: char| character.is_ascii_digit());
        let (part, after) = rest.split_at(unit.map_or(rest.len(), |unit| number + unit));
        parts.push(part.trim());
        rest = after;
    }
    const UNITS: [&str; 7] = ["y", "mo", "w", "d", "h", "m", "s"];
    parts.sort_by_key(|part| {
        let of_part = units(part).next().unwrap_or_default();
        UNITS.iter().position(|unit| of_part.starts_with(unit))
    });
    parts.join(" ").parse().ok()
}

/// The words of a length of time without the numbers: `1y 6mo` has `y` and `mo`.
fn units(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_ascii_alphabetic()).filter(|unit| !unit.is_empty())
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.span.fieldwise() == other.span.fieldwise()
    }
}

impl Eq for Window {}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The durations of k8s-snapshots. Each is the distance between the snapshots of one generation; the next one
/// is how far back that generation reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deltas {
    /// In microseconds, ascending; at least two, all above zero.
    sorted: Vec<i64>,
    text: String,
}

/// The longest delta. k8s-snapshots fails on one that leads back to before the year 1.
const MAX_DELTA_DAYS: i64 = 730_000;

/// Maximum number of deltas. Each costs a pass over all snapshots.
const MAX_DELTAS: usize = 100;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;

impl Deltas {
    /// In microseconds, ascending.
    pub(super) fn sorted(&self) -> &[i64] {
        &self.sorted
    }
}

impl FromStr for Deltas {
    type Err = String;

    /// Accepts what k8s-snapshots accepts: durations separated by spaces, in any order.
    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(' ').map(str::trim).filter(|word| !word.is_empty()).collect();
        let mut sorted = words.iter().map(|word| delta(word)).collect::<Result<Vec<i64>, String>>()?;
        if sorted.len() < 2 {
            return Err(
                "deltas needs at least two durations, with spaces between, e.g. PT1H P1D P7D".to_owned()
            );
        }
        if sorted.len() > MAX_DELTAS {
            return Err(format!("deltas takes at most {MAX_DELTAS} durations"));
        }
        sorted.sort_unstable();
        Ok(Deltas { sorted, text: words.join(" ") })
    }
}

impl fmt::Display for Deltas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn delta(word: &str) -> Result<i64, String> {
    let shown = crate::text::foreign(word);
    let error = |problem: &str| Err(format!("{shown:?} {problem}, e.g. PT1H P1D P7D"));
    match iso_8601(word) {
        None => error("is not an ISO 8601 duration"),
        Some(Iso8601 { calendar: true, .. }) => error("has months or years, whose length varies; give days"),
        Some(Iso8601 { negative: true, .. }) => error("is negative"),
        Some(Iso8601 { microseconds: 0, .. }) => error("is zero"),
        Some(Iso8601 { microseconds, .. }) => match i64::try_from(microseconds) {
            Ok(delta) if delta <= MAX_DELTA_DAYS * DAY => Ok(delta),
            _ => error("is too long; 730000 days are the most"),
        },
    }
}

/// An ISO 8601 duration as Python's `isodate`, which k8s-snapshots uses, parses it: fractions of any unit,
/// with a point or a comma, weeks next to other units, and a sign.
struct Iso8601 {
    negative: bool,
    /// Whether it has months or years.
    calendar: bool,
    microseconds: u128,
}

fn iso_8601(text: &str) -> Option<Iso8601> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let rest = rest.strip_prefix('P').filter(|rest| !rest.is_empty())?;
    let (dates, times) = match rest.split_once('T') {
        Some((dates, times)) => (dates, times),
        None => (rest, ""),
    };
    // Months and years have no fixed length. Only whether there are any matters.
    let date_units = [('Y', 0), ('M', 0), ('W', 7 * DAY), ('D', DAY)];
    let time_units = [('H', 3600 * SECOND), ('M', 60 * SECOND), ('S', SECOND)];
    let mut calendar = false;
    let mut microseconds = 0u128;
    for (mut rest, units) in [(dates, date_units.as_slice()), (times, time_units.as_slice())] {
        for (letter, unit) in units {
            let digits = rest.find(|character: char| !matches!(character, '0'..='9' | '.' | ','));
            let Some((number, after)) =
                digits.and_then(|end| Some((&rest[..end], rest[end..].strip_prefix(*letter)?)))
            else {
                continue;
            };
            let (whole, fraction) = decimal(number)?;
            calendar |= *unit == 0 && (whole > 0 || fraction > 0.0);
            let unit = u128::try_from(*unit).ok()?;
            let part = whole.checked_mul(unit)?.checked_add((fraction * unit as f64).round() as u128)?;
            microseconds = microseconds.checked_add(part)?;
            rest = after;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(Iso8601 { negative, calendar, microseconds })
}

/// Parses `12`, `0.5` or `0,5` into whole and fraction. A whole that exceeds `u64` is clamped.
fn decimal(text: &str) -> Option<(u128, f64)> {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !fraction.is_none_or(digits) {
        return None;
    }
    let whole = whole.parse().unwrap_or(u128::from(u64::MAX)).min(u128::from(u64::MAX));
    let fraction = fraction.map_or(Some(0.0), |fraction| format!("0.{fraction}").parse().ok())?;
    Some((whole, fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_counted_back_along_the_calendar() {
        let before = |text: &str, newest: &str| {
            let window: Window = text.parse().expect(text);
            window.before(newest.parse().expect("a time")).expect("a time").to_string()
        };
        for (window, newest, begin) in [
            ("14d", "2026-03-10T12:00:00Z", "2026-02-24T12:00:00Z"),
            ("36h", "2026-03-10T12:00:00Z", "2026-03-09T00:00:00Z"),
            ("90m", "2026-03-10T12:00:00Z", "2026-03-10T10:30:00Z"),
            ("1d30min", "2026-03-10T12:00:00Z", "2026-03-09T11:30:00Z"),
            ("1mo", "2026-03-31T00:00:00Z", "2026-02-28T00:00:00Z"),
            ("1y", "2024-02-29T00:00:00Z", "2023-02-28T00:00:00Z"),
            ("1y6mo", "2026-11-20T00:00:00Z", "2025-05-20T00:00:00Z"),
            ("2w", "2026-11-20T00:00:00Z", "2026-11-06T00:00:00Z"),
            ("P1DT12H", "2026-11-20T00:00:00Z", "2026-11-18T12:00:00Z"),
            ("9999y", "2026-11-20T00:00:00Z", "-007973-11-20T00:00:00Z"),
        ] {
            assert_eq!(before(window, newest), begin, "{window}");
        }
    }

    #[test]
    fn a_window_is_counted_forward_along_the_calendar() {
        let after = |text: &str, times: i64| {
            let window: Window = text.parse().expect(text);
            window.after("2026-01-31T00:00:00Z".parse().expect("a time"), times).map(|time| time.to_string())
        };
        assert_eq!(after("1h", 0).as_deref(), Some("2026-01-31T00:00:00Z"));
        assert_eq!(after("36h", 2).as_deref(), Some("2026-02-03T00:00:00Z"));
        assert_eq!(after("1mo", 1).as_deref(), Some("2026-02-28T00:00:00Z"));
        assert_eq!(after("9000y", 1), None);
    }

    #[test]
    fn the_units_of_a_window_come_in_any_order() {
        let window = |text: &str| text.parse::<Window>().expect(text);
        for (text, ordered) in [
            ("1y1d1mo", "1y1mo1d"),
            ("5d7mo", "7mo5d"),
            ("4h3d9mo", "9mo3d4h"),
            ("37h 6y 234d 5mo", "6y5mo234d37h"),
            ("24h30d", "30d24h"),
            ("30min1h", "1h30m"),
            ("30s 2w", "2w30s"),
            ("6 months 1 year", "1y6mo"),
            ("2 hours 1 day", "1d2h"),
        ] {
            assert_eq!(window(text), window(ordered), "{text}");
            assert_eq!(window(text).to_string(), text);
        }
        assert_ne!(window("1d"), window("2d"));
        assert_ne!(window("1d"), window("24h"), "a rule is shown as it was written");
    }

    #[test]
    fn an_m_that_may_be_months_is_refused_and_one_that_is_minutes_is_not() {
        for text in [
            "1y6m",
            "5m7d",
            "2w 3m",
            "1y1d1m",
            "2m2h",
            "2m 2hours",
            "1m14d",
            "7m5d",
            "6m4d8h",
            "6mo5m",
            "3y5m",
        ] {
            let said = text.parse::<Window>().expect_err(text);
            assert!(said.contains("may be minutes or months; write min or mo"), "{text}: {said}");
        }
        for text in ["90m", "2h2m", "1h30m15s", "2min2h", "PT2H2M", "P1DT2M"] {
            assert!(text.parse::<Window>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_window_that_is_none_is_refused() {
        for text in [
            "",
            "14",
            "0d",
            "-14d",
            "14d ago",
            "soon",
            "-7mo5d",
            "1y4mo-5d-3h",
            "1d1y2d",
            "1d2d",
            "5d3",
            "d5",
            "1h 14d ago",
            "\u{661}d",
            "10000y",
            "99999999999999d",
            "d",
            "P",
            "1.5y",
        ] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }

    #[test]
    fn deltas_are_sorted_and_at_least_two() {
        let sorted = |text: &str| text.parse::<Deltas>().map(|deltas| deltas.sorted);
        let hour = 3600 * SECOND;
        assert_eq!(sorted("P7D PT1H P1D"), Ok(vec![hour, DAY, 7 * DAY]));
        assert_eq!(sorted("PT1H30M PT2M"), Ok(vec![120 * SECOND, 5400 * SECOND]));
        assert_eq!(sorted("P0,5D PT90S"), Ok(vec![90 * SECOND, DAY / 2]));
        assert_eq!(sorted("P0Y0M1D P1W"), Ok(vec![DAY, 7 * DAY]));
        assert_eq!(sorted("PT0.000001S P730000D"), Ok(vec![1, 730_000 * DAY]));
        for (text, problem) in [
            ("", "at least two"),
            ("P1D", "at least two"),
            ("P1D P0D", "is zero"),
            ("PT P1D", "is zero"),
            ("-P1D P7D", "is negative"),
            ("P1M P7D", "months or years"),
            ("P1D P1Y", "months or years"),
            ("P0.5M P7D", "months or years"),
            ("P1D P730001D", "too long"),
            ("P1D P99999999999999999999999999999999999999999999D", "too long"),
            ("P1D PT1D", "not an ISO 8601 duration"),
            ("P1D P1D1W", "not an ISO 8601 duration"),
            ("P1D P1.D", "not an ISO 8601 duration"),
            ("P1D 1d", "not an ISO 8601 duration"),
            ("P1D p7d", "not an ISO 8601 duration"),
            ("P00010101T000000 P7D", "not an ISO 8601 duration"),
        ] {
            let said = sorted(text).expect_err(text);
            assert!(said.contains(problem), "{text}: {said}");
        }
        assert!(sorted(&["P1D"; 100].join(" ")).is_ok());
        assert!(sorted(&["P1D"; 101].join(" ")).is_err_and(|said| said.contains("at most 100")));
    }
}
