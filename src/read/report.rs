//! What a reading came to: in words, as an exit code, and as the termination message, which a drill reads again.
//!
//! Pure. The fields of the message are a promise: an image of another version may have written it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    report::{EXIT_DONE, EXIT_PERMANENT, EXIT_TRANSIENT, Stop},
    text,
};

/// Kubernetes truncates termination messages to this many bytes.
const MAX_MESSAGE: usize = 4096;

/// How many of those that were not read are named.
pub const MOST_NAMED: usize = 20;

/// The most characters of a path that are repeated.
const MAX_PATH: usize = 300;

/// How many are named in one sentence.
const NAMED_IN_WORDS: usize = 3;

/// How a reading ended. If more than one holds, the first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Something is damaged: it is there, and cannot be read.
    Unreadable,
    /// It ended before everything was read.
    Incomplete,
    /// Something belongs to somebody else, and may not be read.
    Denied,
    /// There is not one byte, and that was not allowed.
    Empty,
    /// Everything was read.
    Whole,
}

/// What was read, and what was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The result. By this field a message is known to be one of a reading.
    #[serde(rename = "read")]
    pub outcome: Outcome,
    /// Number of regular files that were read to their end. Each name of a file with several counts.
    pub files: u64,
    /// Bytes that were read, those of files that cannot be read to their end included. The holes of sparse files are no
    /// bytes.
    pub bytes: u64,
    #[serde(default)]
    pub directories: u64,
    /// Number of symbolic links, which are not followed.
    #[serde(default)]
    pub symlinks: u64,
    /// Number of pipes, sockets and devices, which are not opened.
    #[serde(default)]
    pub special: u64,
    /// Number of what is meant to be left out: other file systems, and a `lost+found` that only root may read.
    #[serde(default)]
    pub skipped: u64,
    /// Number of files and directories that somebody deleted meanwhile.
    #[serde(default)]
    pub vanished: u64,
    /// Number of files and directories that cannot be read.
    #[serde(default)]
    pub unreadable: u64,
    /// Number of files and directories that may not be read.
    #[serde(default)]
    pub denied: u64,
    /// Whether there is not one byte, allowed or not.
    #[serde(default)]
    pub empty: bool,
    #[serde(default)]
    pub duration_ms: u64,
    /// The first of those that cannot or may not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<Unread>,
    /// Why it ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// What was not read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    pub path: String,
    pub error: String,
}

/// Why a reading ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The process was told to stop.
    Stopped(Stop),
    /// Another attempt may help, or not.
    Trouble { message: String, is_transient: bool },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Stopped(Stop::Signal(number)) => write!(f, "told to stop (signal {number})"),
            Ended::Stopped(Stop::OutOfTime) => f.write_str("the time is over (--timeout)"),
            Ended::Trouble { message, .. } => f.write_str(message),
        }
    }
}

/// The result of a reading, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub reading: Reading,
    pub ended: Option<Ended>,
}

impl Reading {
    /// Reads a termination message. `None` if it is none of a reading.
    pub fn from_message(message: &str) -> Option<Self> {
        serde_json::from_str(message.trim()).ok()
    }

    /// One line of JSON, which fits a termination message: what is too long for it is named in the log only.
    pub fn message(&self) -> String {
        let mut short = self.clone();
        loop {
            // It has no map with keys that are no strings, which is all that can fail.
            let line = serde_json::to_string(&short).unwrap_or_default();
            if line.len() < MAX_MESSAGE || (short.named.pop().is_none() && short.ended.take().is_none()) {
                return format!("{line}\n");
            }
        }
    }

    /// How much was read: `12 files, 3.4 GB`.
    pub fn amount(&self) -> String {
        format!("{}, {}", text::count_of(self.files, "file"), text::bytes(self.bytes))
    }

    /// What was found, in one sentence.
    pub fn summary(&self) -> String {
        let (amount, took) = (self.amount(), text::duration(Duration::from_millis(self.duration_ms)));
        let others = self.others();
        match self.outcome {
            Outcome::Whole if self.empty => {
                format!("there is not one byte to read, which is allowed{others}")
            }
            Outcome::Whole => format!("everything was read: {amount} in {took}{others}"),
            Outcome::Empty => format!("there is nothing in it: not one byte to read{others}"),
            Outcome::Unreadable => {
                let number = text::count_of(self.unreadable, "file or directory");
                format!("{number} cannot be read: {}; read: {amount}{others}", self.names())
            }
            Outcome::Denied => {
                let number = text::count_of(self.denied, "file or directory");
                format!(
                    "{number} may not be read: {}; nobody knows whether they are whole: who may read is in docs/verify.md; \
                     read: {amount}{others}",
                    self.names()
                )
            }
            Outcome::Incomplete => {
                let why = self.ended.as_deref().unwrap_or("it ended early");
                format!("not everything was read: {why}; read: {amount} in {took}{others}")
            }
        }
    }

    fn names(&self) -> String {
        let said = self.named.iter().take(NAMED_IN_WORDS);
        let said: Vec<String> = said.map(|one| format!("{} ({})", one.path, one.error)).collect();
        let all = self.unreadable.saturating_add(self.denied);
        let more = all.saturating_sub(said.len() as u64);
        match more {
            0 => said.join(", "),
            more => format!("{} and {more} more", said.join(", ")),
        }
    }

    /// What else is worth a word.
    fn others(&self) -> String {
        let parts = [
            (self.skipped, "left out"),
            (self.vanished, "deleted meanwhile"),
            (self.special, "not opened, being no files"),
        ];
        let said: Vec<String> = parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{number} {what}"))
            .collect();
        if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) }
    }
}

impl Report {
    pub fn exit_code(&self) -> u8 {
        match (&self.ended, self.reading.outcome) {
            (Some(Ended::Stopped(Stop::Signal(number))), _) => 128_u8.saturating_add(*number),
            (_, Outcome::Whole) => EXIT_DONE,
            (Some(Ended::Stopped(Stop::OutOfTime)), Outcome::Incomplete)
            | (Some(Ended::Trouble { is_transient: true, .. }), Outcome::Incomplete) => EXIT_TRANSIENT,
            _ => EXIT_PERMANENT,
        }
    }
}

/// A path as it is said: what would move a cursor, is not seen or is no UTF-8 is escaped, and what is overlong is cut.
pub fn shown(path: &[u8]) -> String {
    let mut said = String::new();
    let mut length = 0;
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match text::is_treacherous(character) {
                true => said.extend(character.escape_default()),
                false => said.push(character),
            }
            length += 1;
            if length >= MAX_PATH {
                said.push('…');
                return said;
            }
        }
        said.push_str(&chunk.invalid().escape_ascii().to_string());
        length += chunk.invalid().len();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(outcome: Outcome) -> Reading {
        Reading {
            outcome,
            files: 1200,
            bytes: 3_400_000_000,
            directories: 7,
            symlinks: 1,
            special: 0,
            skipped: 0,
            vanished: 0,
            unreadable: 0,
            denied: 0,
            empty: false,
            duration_ms: 12_000,
            named: Vec::new(),
            ended: None,
        }
    }

    fn unread(path: &str) -> Unread {
        Unread { path: path.to_owned(), error: "Input/output error (os error 5)".to_owned() }
    }

    #[test]
    fn every_outcome_is_a_sentence_and_an_exit_code() {
        let damaged = Reading {
            unreadable: 5,
            named: ["/data/a", "/data/b", "/data/c", "/data/d"].map(unread).into(),
            ..reading(Outcome::Unreadable)
        };
        let denied = Reading {
            denied: 1,
            named: vec![Unread { path: "/data/key".into(), error: "Permission denied (os error 13)".into() }],
            skipped: 1,
            ..reading(Outcome::Denied)
        };
        let stopped = Reading { ended: Some("told to stop".to_owned()), ..reading(Outcome::Incomplete) };
        let trouble = |is_transient| Some(Ended::Trouble { message: String::new(), is_transient });
        for (reading, ended, code, said) in [
            (reading(Outcome::Whole), None, 0, "everything was read: 1200 files, 3.4 GB in 12 s"),
            (
                Reading { empty: true, skipped: 1, ..reading(Outcome::Whole) },
                None,
                0,
                "there is not one byte to read, which is allowed (1 left out)",
            ),
            (reading(Outcome::Empty), None, 2, "there is nothing in it: not one byte to read"),
            (
                damaged,
                None,
                2,
                "5 files or directories cannot be read: /data/a (Input/output error (os error 5)), /data/b (Input/output \
                 error (os error 5)), /data/c (Input/output error (os error 5)) and 2 more; read: 1200 files, 3.4 GB",
            ),
            (
                denied,
                None,
                2,
                "1 file or directory may not be read: /data/key (Permission denied (os error 13)); nobody knows whether \
                 they are whole: who may read is in docs/verify.md; read: 1200 files, 3.4 GB (1 left out)",
            ),
            (
                stopped.clone(),
                Some(Ended::Stopped(Stop::Signal(15))),
                143,
                "not everything was read: told to stop; read: 1200 files, 3.4 GB in 12 s",
            ),
            (
                stopped.clone(),
                Some(Ended::Stopped(Stop::OutOfTime)),
                1,
                "not everything was read: told to stop",
            ),
            (stopped.clone(), trouble(true), 1, "not everything was read"),
            (stopped, trouble(false), 2, "not everything was read"),
            (reading(Outcome::Unreadable), trouble(true), 2, "0 files or directories cannot be read"),
        ] {
            let outcome = reading.outcome;
            assert!(reading.summary().starts_with(said), "{}", reading.summary());
            assert_eq!(Report { reading, ended }.exit_code(), code, "{outcome:?}");
        }
    }

    #[test]
    fn a_message_is_read_again_as_it_was_written_and_fits() {
        let mut long = Reading { unreadable: 1_000_000, ..reading(Outcome::Unreadable) };
        assert_eq!(Reading::from_message(&long.message()), Some(long.clone()));
        long.named = (0..MOST_NAMED).map(|_| unread(&"\\\"ä".repeat(300))).collect();
        long.ended = Some("x".repeat(10_000));
        let message = long.message();
        assert!(message.len() <= 4096, "{}", message.len());
        let read = Reading::from_message(&message).expect("a message");
        assert_eq!((read.outcome, read.unreadable), (Outcome::Unreadable, 1_000_000));
        for other in ["", "{}", "everything was read", "{\"read\":\"perhaps\",\"files\":1,\"bytes\":1}"] {
            assert_eq!(Reading::from_message(other), None, "{other}");
        }
        // What a later version adds is passed over, and what an earlier one did not know is nothing.
        let small = Reading::from_message("{\"read\":\"whole\",\"files\":1,\"bytes\":2,\"new\":[]}");
        assert!(small.is_some_and(|small| small.files == 1 && small.bytes == 2 && !small.empty));
    }

    #[test]
    fn a_path_moves_no_cursor() {
        for (path, said) in [
            (&b"/data/a b"[..], "/data/a b"),
            (b"/data/\x1b[31m\n", "/data/\\u{1b}[31m\\n"),
            ("/data/\u{202e}\u{e4}".as_bytes(), "/data/\\u{202e}\u{e4}"),
            (b"/data/\xff\xfe", "/data/\\xff\\xfe"),
        ] {
            assert_eq!(shown(path), said);
        }
        assert_eq!(shown(&[b'x'; 5000]).chars().count(), MAX_PATH + 1);
    }
}
