//! How many new snapshots may be pending, created but not ready, at the same time.
//!
//! The snapshot controller makes five requests a second unless it is told otherwise, which is about one
//! snapshot a second: of a thousand that are created at once most would not be ready within their time. So a
//! run for many claims begins with few, and goes on as these become ready. Where the controller takes up new
//! snapshots promptly it is the storage that is slow, and storage systems work on many at the same time: each
//! that was taken up promptly lets one more be pending.

use std::{cell::Cell, time::Duration};

use tokio::sync::Notify;

/// With at most so many targets, all may be pending.
const FEW: usize = 100;

/// How many may be pending in the beginning. With a controller that makes one snapshot ready each second,
/// these are ready within the default wait of 90 s.
const INITIAL: usize = 50;

/// A controller that takes up a snapshot within this time, or within a tenth of the time that a snapshot has, if
/// that is less, has no queue to speak of.
const PROMPT: Duration = Duration::from_secs(5);

pub(super) struct Pace {
    limit: Cell<usize>,
    is_fixed: bool,
    prompt: Duration,
    raised: Notify,
}

impl Pace {
    /// For so many targets, whose snapshots have `wait` each to become ready; `setting` is
    /// `SNAPSHOT_MAX_PENDING`.
    pub(super) fn new(targets: usize, setting: Option<usize>, wait: Duration) -> Self {
        let limit = setting.unwrap_or(if targets <= FEW { FEW } else { INITIAL });
        Pace {
            limit: Cell::new(limit),
            is_fixed: setting.is_some(),
            prompt: PROMPT.min(wait / 10),
            raised: Notify::new(),
        }
    }

    /// Whether one more may be pending, besides so many.
    pub(super) fn allows(&self, pending: usize) -> bool {
        pending < self.limit.get()
    }

    /// Notes how long after its creation the snapshot controller was seen to have taken up a snapshot.
    pub(super) fn taken_up(&self, after: Duration) {
        if !self.is_fixed && after <= self.prompt {
            self.limit.set(self.limit.get() + 1);
            self.raised.notify_one();
        }
    }

    /// Waits until more may be pending than before.
    pub(super) async fn raised(&self) {
        self.raised.notified().await;
    }

    /// How many waits one after the other so many targets take at most, as far as that is known.
    pub(super) fn waves(&self, targets: usize) -> u32 {
        u32::try_from(targets.div_ceil(self.limit.get().max(1)).max(1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_targets_are_all_pending_at_once_and_many_only_behind_a_prompt_controller() {
        for (targets, setting, at_first, prompt) in
            [(1, None, 100, 101), (100, None, 100, 101), (101, None, 50, 51), (10_000, Some(7), 7, 7)]
        {
            let pace = Pace::new(targets, setting, Duration::from_secs(90));
            let limit = || (0..).take_while(|pending| pace.allows(*pending)).count();
            assert_eq!(limit(), at_first, "{targets}");
            pace.taken_up(Duration::from_secs(6));
            assert_eq!(limit(), at_first, "{targets}");
            pace.taken_up(Duration::from_secs(5));
            assert_eq!(limit(), prompt, "{targets}");
        }
        let hurried = Pace::new(101, None, Duration::from_secs(10));
        hurried.taken_up(Duration::from_millis(1001));
        assert!(!hurried.allows(50));
        hurried.taken_up(Duration::from_secs(1));
        assert!(hurried.allows(50));
    }

    #[test]
    fn the_waves_of_many_targets_are_counted() {
        for (targets, setting, waves) in [
            (0, None, 1),
            (1, None, 1),
            (100, None, 1),
            (101, None, 3),
            (1_000, Some(100), 10),
            (1_001, Some(100), 11),
        ] {
            assert_eq!(
                Pace::new(targets, setting, Duration::from_secs(90)).waves(targets),
                waves,
                "{targets}"
            );
        }
    }
}
