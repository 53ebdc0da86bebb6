//! How long to pause before something is tried again. The only module that uses the crate
//! `backoff`, which is not maintained any more: a successor replaces it here.

use std::time::Duration;

use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// The longest that a `Retry-After` of the API server is heeded. Priority and fairness answers
/// with seconds; an hour would outlast the run.
const LONGEST_HEEDED: Duration = Duration::from_secs(30);

/// The longest pause of our own, before jitter.
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses that grow, with jitter, so that many that failed together do not return together.
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Between the tries of one request: 0.2 s at first, 10 s at most.
    pub fn between_tries() -> Self {
        Self::growing(Duration::from_millis(200), LONGEST)
    }

    /// Between reads of what no watch tells: 0.25 s at first, so that a fast driver is noticed
    /// fast, 5 s at most.
    pub fn between_reads() -> Self {
        Self::growing(Duration::from_millis(250), Duration::from_secs(5))
    }

    /// Between watches that break: 0.5 s at first, 10 s at most.
    pub fn between_watches() -> Self {
        Self::growing(Duration::from_millis(500), LONGEST)
    }

    fn growing(first: Duration, most: Duration) -> Self {
        Backoff(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(first)
                .with_max_interval(most)
                .with_multiplier(2.0)
                .with_randomization_factor(0.3)
                // When to give up is decided by who pauses.
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// The next pause. The API server's own wish is heeded within bounds.
    pub fn next(&mut self, wished: Option<Duration>) -> Duration {
        let backoff = self.0.next_backoff().unwrap_or(LONGEST);
        backoff.max(wished.unwrap_or_default().min(LONGEST_HEEDED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_bounds() {
        let mut backoff = Backoff::between_reads();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.next(None)).collect();
        assert_eq!(pauses.len(), 20);
        assert!(pauses[0] < Duration::from_millis(326), "{pauses:?}");
        assert!(pauses[19] > Duration::from_secs(3), "{pauses:?}");
        assert!(pauses.iter().all(|backoff| *backoff <= Duration::from_millis(6500)), "{pauses:?}");
    }

    #[test]
    fn the_servers_wish_is_heeded_within_bounds() {
        let next = |wish| Backoff::between_tries().next(Some(Duration::from_secs(wish)));
        assert_eq!(next(7), Duration::from_secs(7));
        assert_eq!(next(3600), LONGEST_HEEDED);
        assert!(next(0) < Duration::from_secs(1));
    }
}
