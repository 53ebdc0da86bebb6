//! Backoff between attempts. Only this module uses the crate `backoff`, which is unmaintained, so a successor
//! can replace it here.

use std::time::Duration;

use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// Upper bound for a `Retry-After` of the API server. Priority and fairness sends seconds; an hour would
/// outlast the run.
const LONGEST_HEEDED: Duration = Duration::from_secs(30);

/// Upper bound for the computed backoff, before jitter.
const LONGEST: Duration = Duration::from_secs(10);

/// Exponential backoff with jitter, so that requests that failed together are not repeated together.
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Between the attempts of one request: from 0.2 s to 10 s.
    pub fn between_tries() -> Self {
        Self::growing(Duration::from_millis(200), LONGEST)
    }

    /// Between reads where no watch is available: from 0.25 s, so that a fast driver is noticed soon, to 5 s.
    pub fn between_reads() -> Self {
        Self::growing(Duration::from_millis(250), Duration::from_secs(5))
    }

    /// Between watches that break: from 0.5 s to 10 s.
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
                // The caller decides when to give up.
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// Returns the next backoff: at least `wished`, the API server's `Retry-After`, up to 30 s.
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
