//! Words for people: durations and counts as they are said, and foreign text made safe to print.
//!
//! What is said about a run is decided in [`crate::report`]; here is only the spelling.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

/// The most characters of a foreign message that are repeated; the rest is cut off with `…`.
const MAX_FOREIGN: usize = 1024;

/// Text that came from a cluster, made safe for a log line, a terminal and the termination
/// message: control characters become spaces, and what is overlong is cut.
pub fn foreign(text: &str) -> String {
    let mut safe: String = text
        .trim()
        .chars()
        .take(MAX_FOREIGN)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    if text.trim().chars().nth(MAX_FOREIGN).is_some() {
        safe.push('…');
    }
    safe
}

/// `1 snapshot`, `2 snapshots`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `1st`, `2nd`, `3rd`, `4th`, `11th`, `21st`.
pub fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (1, teens) if teens != 11 => "st",
        (2, teens) if teens != 12 => "nd",
        (3, teens) if teens != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// A duration as one says it: `0.61 s`, `30 s`, `1 min 30 s`, `2 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 10 && duration.subsec_millis() > 0 {
        return format!("{:.2} s", duration.as_secs_f64());
    }
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let said: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number} {unit}"))
        .collect();
    if said.is_empty() { "0 s".to_owned() } else { said.join(" ") }
}

/// An age as kubectl shows it, in at most two units: `45s`, `12m`, `3h20m`, `2d4h`, `40d`.
pub fn age(age: SignedDuration) -> String {
    let seconds = age.as_secs().max(0);
    let two = |large: i64, unit: char, small: i64, below: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{below}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_one_line_of_bounded_length() {
        assert_eq!(foreign(" a\nb\u{1b}[31mc\r\n"), "a b [31mc");
        let long = foreign(&"ä".repeat(1_000_000));
        assert_eq!(long.chars().count(), MAX_FOREIGN + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn durations_are_said_in_the_largest_units_that_fit() {
        for (millis, said) in [
            (0, "0 s"),
            (612, "0.61 s"),
            (3_000, "3 s"),
            (30_000, "30 s"),
            (90_000, "1 min 30 s"),
            (3_600_000, "1 h"),
            (3_661_000, "1 h 1 min 1 s"),
            (12_345, "12 s"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), said);
        }
    }

    #[test]
    fn ages_are_those_of_kubectl() {
        for (seconds, said) in [
            (-5, "0s"),
            (45, "45s"),
            (130, "2m10s"),
            (180, "3m"),
            (3_600, "60m"),
            (12_000, "3h20m"),
            (14_400, "4h"),
            (100_000, "27h"),
            (187_200, "2d4h"),
            (3_500_000, "40d"),
        ] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn ordinals_end_as_they_are_spoken() {
        for (number, said) in
            [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st"), (112, "112th")]
        {
            assert_eq!(ordinal(number), said);
        }
    }

    #[test]
    fn counts_take_the_plural_but_for_one() {
        assert_eq!(count(0, "claim"), "0 claims");
        assert_eq!(count(1, "claim"), "1 claim");
        assert_eq!(count(2, "claim"), "2 claims");
    }
}
