//! A ping: a request to a URL that somebody watches, such as a dead man's switch.
//!
//! What is pinged is the end of a run, with its termination message as the body. Whether a failure is pinged
//! depends on whether the Job is tried again: a pod does not know which of its Job's attempts it is, and one
//! that may be followed by another must not raise an alarm. Who waits for the success that then does not come
//! finds out all the same.

use std::time::Duration;

use ::http::{Method, StatusCode};
use tokio::time::Instant;

use super::{
    Outcome,
    http::{self, Error, Limits, Outgoing},
};
use crate::{
    names,
    report::{EXIT_DONE, EXIT_NOT_PRUNED, EXIT_PERMANENT, truncate},
    settings::{Ping, PingFailures},
    url::{Placeholder, SecretUrl},
};

/// How often it is tried.
const TRIES: u32 = 3;

/// The most bytes of the message in a URL. Dead Man's Snitch keeps about 250 characters, others more; the body
/// has all of it.
const MAX_MESSAGE: usize = 250;

/// Whether a run that exits with this code is pinged.
fn is_wanted(ping: &Ping, exit: u8) -> bool {
    match exit {
        EXIT_DONE => true,
        // Who cannot read that it is a failure would take it for a success.
        _ if !ping.url.tells_failures() => false,
        // The manifests end the Job then.
        EXIT_PERMANENT | EXIT_NOT_PRUNED => true,
        _ => ping.failures == PingFailures::All,
    }
}

/// What stands for a placeholder.
fn value(placeholder: Placeholder, ping: &Ping, outcome: &Outcome, random: u128) -> String {
    let is_done = outcome.exit == EXIT_DONE;
    match placeholder {
        Placeholder::Exit => outcome.exit.to_string(),
        Placeholder::Status => if is_done { "up" } else { "down" }.to_owned(),
        Placeholder::State => if is_done { "complete" } else { "fail" }.to_owned(),
        Placeholder::DurationMs => outcome.took.as_millis().to_string(),
        Placeholder::DurationS => format!("{:.3}", outcome.took.as_secs_f64()),
        Placeholder::Message => {
            let mut message = outcome.summary.split_whitespace().collect::<Vec<_>>().join(" ");
            truncate(&mut message, MAX_MESSAGE);
            message
        }
        Placeholder::Schedule => ping.schedule.clone(),
        Placeholder::Shard => ping.shard.label_value(),
        Placeholder::Rid => {
            let of_job = ping.run_uid.as_ref().filter(|uid| names::is_uuid(uid));
            of_job.cloned().unwrap_or_else(|| names::uuid(random))
        }
    }
}

/// Pings, if that is wanted, within this time. What goes wrong is a line of the log.
pub(super) async fn ping(ping: &Ping, outcome: &Outcome, within: Duration) {
    if !is_wanted(ping, outcome.exit) {
        tracing::debug!("{} is not pinged: exit {}", ping.url, outcome.exit);
        return;
    }
    let began = Instant::now();
    let random = rand::random();
    let sent = match ping.url.filled(|placeholder| value(placeholder, ping, outcome, random)) {
        Ok(url) => send(ping, &url, outcome, within).await,
        Err(error) => Err(Error::Unusable(error.to_string())),
    };
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match sent {
        Ok(()) => tracing::debug!(duration_ms, "pinged {}", ping.url),
        Err(error) => tracing::warn!(
            duration_ms,
            "cannot ping {}: {error}; this changes nothing of the run and its exit code",
            ping.url
        ),
    }
}

async fn send(ping: &Ping, url: &SecretUrl, outcome: &Outcome, within: Duration) -> Result<(), Error> {
    let end = Instant::now() + within;
    let outgoing = Outgoing {
        method: Method::POST,
        url: url.clone(),
        content_type: "text/plain; charset=utf-8",
        body: outcome.message.clone().into_bytes(),
    };
    let limits = Limits { tries: TRIES, within };
    match http::send(outgoing.clone(), ping.ca_file.clone(), limits).await {
        // Uptime Kuma 1 answers GET alone, and anything else as if it were not there.
        Err(Error::Refused(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _)) => {
            let outgoing = Outgoing { method: Method::GET, body: Vec::new(), ..outgoing };
            let limits = Limits { tries: 1, within: end.saturating_duration_since(Instant::now()) };
            http::send(outgoing, ping.ca_file.clone(), limits).await?;
            Ok(())
        }
        sent => sent.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{shard::Shard, url::PingUrl};

    fn to(url: &str, failures: PingFailures) -> Ping {
        Ping {
            url: PingUrl::parse(url).expect("a URL"),
            failures,
            ca_file: None,
            schedule: "nightly".to_owned(),
            run_uid: Some("5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f10".to_owned()),
            shard: Shard::WHOLE,
        }
    }

    #[test]
    fn only_what_is_final_is_pinged_unless_all_is_asked_for() {
        let (plain, telling) = ("https://host/uuid", "https://host/uuid/{exit}");
        for (url, failures, pinged) in [
            (plain, PingFailures::Final, &[0][..]),
            (plain, PingFailures::All, &[0]),
            (telling, PingFailures::Final, &[0, 2, 3]),
            (telling, PingFailures::All, &[0, 1, 2, 3, 130, 143]),
        ] {
            let ping = to(url, failures);
            let wanted: Vec<u8> =
                [0, 1, 2, 3, 130, 143].into_iter().filter(|exit| is_wanted(&ping, *exit)).collect();
            assert_eq!(wanted, pinged, "{url} {failures:?}");
        }
    }

    #[test]
    fn each_placeholder_stands_for_what_the_run_came_to() {
        let mut ping = to("https://host/", PingFailures::Final);
        let mut outcome = Outcome {
            exit: 0,
            summary: format!("1 of 1 claim has\na new ready snapshot {}", "ä".repeat(250)),
            message: "all of it".to_owned(),
            took: Duration::from_millis(12_345),
        };
        let values = |ping: &Ping, outcome: &Outcome| {
            Placeholder::ALL.map(|placeholder| value(placeholder, ping, outcome, 0)).to_vec()
        };
        let of_success = values(&ping, &outcome);
        let message = &of_success[5];
        assert!(
            message.starts_with("1 of 1 claim has a new ready snapshot ä") && message.ends_with('…'),
            "{message}"
        );
        assert!(message.len() <= MAX_MESSAGE, "{message}");
        assert_eq!(of_success[..5], ["0", "up", "complete", "12345", "12.345"]);
        assert_eq!(of_success[6..], ["nightly", "0-of-1", "5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f10"]);
        outcome.exit = 3;
        assert_eq!(values(&ping, &outcome)[..3], ["3", "down", "fail"]);
        // healthchecks refuses what is not a UUID.
        for uid in [None, Some("uid-of-something".to_owned())] {
            ping.run_uid = uid;
            assert_eq!(value(Placeholder::Rid, &ping, &outcome, 0), "00000000-0000-4000-8000-000000000000");
        }
    }
}
