//! What has been read so far, shared by the thread that reads and the task that watches over it.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::report::{Ended, MOST_NAMED, Outcome, Reading, Report, Unread};

/// How many of those that were not read have a line in the log; the rest is only counted.
const MOST_LOGGED: u64 = 1000;

/// The numbers of a [`Reading`], as they grow.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) files: u64,
    pub(super) directories: u64,
    pub(super) symlinks: u64,
    pub(super) special: u64,
    pub(super) skipped: u64,
    pub(super) vanished: u64,
    pub(super) unreadable: u64,
    pub(super) denied: u64,
    pub(super) empty: bool,
    named: Vec<Unread>,
    ended: Option<Ended>,
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Mutex<Counts>,
    bytes: AtomicU64,
    is_stopped: AtomicBool,
}

/// Why something was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is damaged, as far as anybody can tell.
    Unreadable,
    /// It belongs to somebody else.
    Denied,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A thread that panicked leaves numbers that are as good as before.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts());
    }

    pub(super) fn add_bytes(&self, number: usize) {
        self.bytes.fetch_add(number as u64, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the reading is to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Ends the reading early. The first reason counts.
    pub(super) fn end(&self, why: Ended) {
        self.counts().ended.get_or_insert(why);
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Names something that was not read, in the log too.
    pub(super) fn miss(&self, path: String, error: String, why: Why) {
        let mut counts = self.counts();
        let is_denied = why == Why::Denied;
        match why {
            Why::Unreadable => counts.unreadable += 1,
            Why::Denied => counts.denied += 1,
        }
        match counts.unreadable + counts.denied {
            ..MOST_LOGGED if is_denied => tracing::warn!("{path} may not be read: {error}"),
            ..MOST_LOGGED => tracing::error!("{path} cannot be read: {error}"),
            MOST_LOGGED => tracing::error!("more than {MOST_LOGGED} are not read; the rest is only counted"),
            _ => {}
        }
        // What is damaged is named first, for it is worse.
        if counts.named.len() < MOST_NAMED {
            counts.named.push(Unread { path, error });
        } else if !is_denied && counts.unreadable <= MOST_NAMED as u64 {
            counts.named.pop();
            counts.named.insert(0, Unread { path, error });
        }
    }

    /// What came of it, at this moment. `is_done`: the thread has read all that it could.
    pub(super) fn report(&self, is_done: bool, allow_empty: bool, took: Duration) -> Report {
        let counts = self.counts();
        let is_whole = is_done && counts.ended.is_none();
        let outcome = match () {
            () if counts.unreadable > 0 => Outcome::Unreadable,
            () if !is_whole => Outcome::Incomplete,
            () if counts.denied > 0 => Outcome::Denied,
            () if counts.empty && !allow_empty => Outcome::Empty,
            () => Outcome::Whole,
        };
        let reading = Reading {
            outcome,
            files: counts.files,
            bytes: self.bytes(),
            directories: counts.directories,
            symlinks: counts.symlinks,
            special: counts.special,
            skipped: counts.skipped,
            vanished: counts.vanished,
            unreadable: counts.unreadable,
            denied: counts.denied,
            empty: counts.empty,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            named: counts.named.clone(),
            ended: counts.ended.as_ref().map(Ended::to_string),
        };
        Report { reading, ended: counts.ended.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_worse_than_an_early_end_and_that_than_what_nobody_may_read() {
        let done = |prepare: fn(&Tally), allow_empty| {
            let tally = Tally::default();
            prepare(&tally);
            tally.report(true, allow_empty, Duration::ZERO).reading.outcome
        };
        let damage = |tally: &Tally| tally.miss("a".into(), "b".into(), Why::Unreadable);
        let deny = |tally: &Tally| tally.miss("a".into(), "b".into(), Why::Denied);
        let end = |tally: &Tally| tally.end(Ended::Trouble { message: "c".into(), is_transient: true });
        let empty = |tally: &Tally| tally.count(|counts| counts.empty = true);
        assert_eq!(done(|_| (), false), Outcome::Whole);
        assert_eq!((done(empty, false), done(empty, true)), (Outcome::Empty, Outcome::Whole));
        assert_eq!(done(deny, true), Outcome::Denied);
        assert_eq!((done(end, true), done(damage, true)), (Outcome::Incomplete, Outcome::Unreadable));
        let all = Tally::default();
        empty(&all);
        deny(&all);
        end(&all);
        assert_eq!(all.report(true, true, Duration::ZERO).reading.outcome, Outcome::Incomplete);
        damage(&all);
        assert_eq!(all.report(false, true, Duration::ZERO).reading.outcome, Outcome::Unreadable);
    }

    #[test]
    fn a_reading_that_is_not_done_is_not_whole() {
        let report = Tally::default().report(false, true, Duration::ZERO);
        assert_eq!(report.reading.outcome, Outcome::Incomplete);
    }

    #[test]
    fn damage_is_named_though_many_others_may_not_be_read() {
        let tally = Tally::default();
        for number in 0..100 {
            tally.miss(format!("denied-{number}"), String::new(), Why::Denied);
        }
        tally.miss("damaged".into(), String::new(), Why::Unreadable);
        let named = tally.report(true, false, Duration::ZERO).reading.named;
        assert_eq!((named.len(), named[0].path.as_str()), (MOST_NAMED, "damaged"));
    }
}
