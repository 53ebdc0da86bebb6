//! Words for people: durations and counts as they are said, and foreign text made safe to print.
//!
//! What is said about a run is decided in [`crate::report`]; here is only the spelling.

use std::{borrow::Cow, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use unicode_width::UnicodeWidthStr;

/// The most characters of a foreign message that are repeated; the rest is cut off with `…`.
const MAX_FOREIGN: usize = 1024;

/// The most characters of a foreign name that are repeated; a name may be of any length where nothing
/// but a schema checks it.
const MAX_NAME: usize = 253;

/// Text that came from a cluster, made safe for a log line, a terminal and the termination message:
/// what would move the cursor, turn the direction of writing or not be seen becomes a space, and what
/// is overlong is cut.
pub fn foreign(text: &str) -> String {
    let mut safe: String = text
        .trim()
        .chars()
        .take(MAX_FOREIGN)
        .map(|character| if is_treacherous(character) { ' ' } else { character })
        .collect();
    if text.trim().chars().nth(MAX_FOREIGN).is_some() {
        safe.push('…');
    }
    safe
}

/// A name that came from a cluster. One that can be a name or a label's value is itself; any other is
/// quoted, with everything escaped that is not plain ASCII, so that it is seen to be odd and can
/// neither forge a row nor look like another name.
pub fn name(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::from("\"");
    let mut characters = text.chars();
    quoted.extend(characters.by_ref().take(MAX_NAME).flat_map(char::escape_default));
    if characters.next().is_some() {
        quoted.push('…');
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

/// Whether a terminal, or a reader, makes something else of a character than what it is: control
/// characters, ends of lines and paragraphs, what turns the direction of writing, and what has no
/// width or no shape.
pub fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// How many columns of a terminal a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Text in lines of at most `room` columns, broken between words where that is possible.
pub fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let width = width(word);
        if used > 0 && used + 1 + width > room {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += width;
        }
    }
    lines
}

/// `1 snapshot`, `2 snapshots`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `1 file`, `1200 files`, `2 files or directories`.
pub fn count_of(number: u64, noun: &str) -> String {
    if number == 1 {
        return format!("1 {noun}");
    }
    let plural = |word: &str| match word.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{word}s"),
    };
    let nouns: Vec<String> = noun.split(" or ").map(plural).collect();
    format!("{number} {}", nouns.join(" or "))
}

/// An amount of data in the decimal units of disks: `999 B`, `1.5 kB`, `3.4 GB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut amount = number as f64 / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // Not 1000.0 of a unit, but 1.0 of the next one.
    while amount >= 999.95 {
        let Some(larger) = units.next() else { break };
        (amount, unit) = (amount / 1000.0, Some(larger));
    }
    format!("{amount:.1} {}", unit.unwrap_or(&""))
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

/// A moment to the minute, in UTC: `2026-11-20 08:55 UTC`.
pub fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// An age as kubectl shows it, in at most two units: `45s`, `12m`, `3h20m`, `2d4h`, `40d`, `3y10d`.
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
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
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
    fn amounts_are_in_the_units_of_disks() {
        for (number, said) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_549, "1.5 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (3_400_000_000, "3.4 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(number), said);
        }
        assert_eq!(count_of(1, "file or directory"), "1 file or directory");
        assert_eq!(count_of(0, "file or directory"), "0 files or directories");
    }

    #[test]
    fn foreign_text_moves_no_cursor_and_turns_no_direction() {
        for treacherous in [
            '\u{7}',
            '\r',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{2060}',
            '\u{feff}',
            '\u{3164}',
            '\u{e0041}',
        ] {
            let text = format!("a{treacherous}b");
            assert_eq!(foreign(&text), "a b", "{treacherous:?}");
            assert_eq!(name(&text), format!("\"a{}b\"", treacherous.escape_default()), "{treacherous:?}");
        }
        assert_eq!(foreign("für 中文 עברית – “ok” 🙂"), "für 中文 עברית – “ok” 🙂");
    }

    #[test]
    fn a_name_that_can_be_one_is_itself_and_any_other_is_quoted() {
        for plain in ["data", "data-0.web", "My_Value.1", "a".repeat(253).as_str()] {
            assert_eq!(name(plain), plain);
        }
        for (odd, said) in [
            ("", "\"\""),
            ("../../victim", "\"../../victim\""),
            ("data  forged", "\"data  forged\""),
            ("data\u{1b}[2K\r\nforged", r#""data\u{1b}[2K\r\nforged""#),
            ("say \"so\" \\", r#""say \"so\" \\""#),
            ("dаta", r#""d\u{430}ta""#),
        ] {
            assert_eq!(name(odd), said);
        }
        let long = name(&"/".repeat(1_000_000)).into_owned();
        assert_eq!(long.chars().count(), MAX_NAME + 3);
    }

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrapped("kept: 1st of last=3", 12), ["kept: 1st of", "last=3"]);
        assert_eq!(wrapped("kept: 1st of last=3", usize::MAX), ["kept: 1st of last=3"]);
        assert_eq!(wrapped("a-very-long-word is not broken", 6), ["a-very-long-word", "is not", "broken"]);
        assert_eq!(wrapped("", 6), [""]);
        // Wide characters take two columns, combining ones none.
        assert_eq!(wrapped("快照 还没有 准备好", 11), ["快照 还没有", "准备好"]);
        assert_eq!(wrapped("cafe\u{301} cafe\u{301}", 9), ["cafe\u{301} cafe\u{301}"]);
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
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (126_230_400, "4y1d"),
            (252_288_000, "8y"),
            (300_000_000, "9y"),
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
