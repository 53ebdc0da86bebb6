//! What a drill came to as metrics, as [`super::metrics`] has it for a run: in the same group of the Pushgateway, under
//! names of its own, so that the one does not replace the other.

use std::{fmt, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    registry::Registry,
};

use super::metrics::{MOST_CLAIMS, gauge, number, unix};
use crate::{
    report::EXIT_DONE,
    verify::{ClaimVerdict, VerifyEnd, VerifyReport},
};

/// All that is pushed of a drill.
#[derive(Debug)]
struct Metrics {
    /// In seconds since 1970.
    ended: f64,
    took: f64,
    exit: u8,
    outcomes: [(&'static str, usize); 4],
    /// Namespace, name, and whether the claim is verified: now or recently.
    claims: Vec<(String, String, bool)>,
}

impl Metrics {
    fn of(report: &VerifyReport, ended: SystemTime) -> Self {
        let count = |is: fn(&VerifyEnd) -> bool| report.claims.iter().filter(|claim| is(&claim.end)).count();
        let is_verified =
            |claim: &ClaimVerdict| matches!(claim.end, VerifyEnd::Verified(_) | VerifyEnd::Recent(_));
        let mut claims: Vec<_> = report
            .claims
            .iter()
            .map(|claim| (claim.namespace.clone(), claim.claim.clone(), is_verified(claim)))
            .collect();
        // Of too many those that are to be looked at.
        if claims.len() > MOST_CLAIMS {
            claims.sort_by_key(|(.., is_verified)| *is_verified);
            claims.truncate(MOST_CLAIMS);
        }
        Metrics {
            ended: unix(ended),
            took: report.took.as_secs_f64(),
            exit: report.exit_code(),
            outcomes: [
                ("verified", count(|end| matches!(end, VerifyEnd::Verified(_)))),
                ("recent", count(|end| matches!(end, VerifyEnd::Recent(_)))),
                ("failed", count(|end| matches!(end, VerifyEnd::Failed(_)))),
                ("unfinished", count(|end| matches!(end, VerifyEnd::Unfinished(_)))),
            ],
            claims,
        }
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        let one = |value: f64| [(Vec::new(), value)];
        gauge(
            encoder,
            "volume_snapshotter_verify_last_run_timestamp_seconds",
            "When the last drill ended.",
            one(self.ended),
        )?;
        if self.exit == EXIT_DONE {
            gauge(
                encoder,
                "volume_snapshotter_verify_last_success_timestamp_seconds",
                "When the last drill with exit code 0 ended.",
                one(self.ended),
            )?;
        }
        gauge(
            encoder,
            "volume_snapshotter_verify_duration_seconds",
            "How long the last drill took.",
            one(self.took),
        )?;
        gauge(
            encoder,
            "volume_snapshotter_verify_exit_code",
            "The exit code of the last drill.",
            one(f64::from(self.exit)),
        )?;
        gauge(
            encoder,
            "volume_snapshotter_verify_claims",
            "Number of claims of the last drill, by outcome.",
            self.outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], number(count))),
        )?;
        gauge(
            encoder,
            "volume_snapshotter_verify_claim_verified",
            "1 if the newest snapshot of the claim was verified by the last drill or recently before it, else 0.",
            self.claims.iter().map(|(namespace, name, is_verified)| {
                let labels =
                    vec![("claim_namespace", namespace.as_str()), ("persistentvolumeclaim", name.as_str())];
                (labels, f64::from(u8::from(*is_verified)))
            }),
        )
    }
}

/// The text that is pushed of a drill that ended at that time.
///
/// # Errors
/// None that is known: it is written to memory.
pub(super) fn text(report: &VerifyReport, ended: SystemTime) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics::of(report, ended)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::report::{Failure, Reason};

    #[test]
    fn a_drill_has_names_of_its_own_and_a_failure_does_not_erase_the_last_success() {
        let claim = |name: &str, end: VerifyEnd| ClaimVerdict {
            claim: name.to_owned(),
            namespace: "app".to_owned(),
            claim_uid: None,
            snapshot: None,
            end,
            remains: None,
        };
        let failure = Failure { message: "x".to_owned(), is_transient: false, reason: Reason::Damaged };
        let mut report = VerifyReport {
            claims: vec![
                claim("data", VerifyEnd::Verified("3 files".to_owned())),
                claim("logs", VerifyEnd::Failed(failure)),
            ],
            took: Duration::from_secs(3),
            ..VerifyReport::default()
        };
        let ended = UNIX_EPOCH + Duration::from_secs(1000);
        let failed = text(&report, ended).expect("a text");
        assert!(!failed.contains("last_success"), "{failed}");
        let of = |claim: &str| {
            format!("verify_claim_verified{{claim_namespace=\"app\",persistentvolumeclaim=\"{claim}\"}}")
        };
        assert!(failed.contains(&format!("{} 1.0", of("data"))), "{failed}");
        assert!(failed.contains(&format!("{} 0.0", of("logs"))), "{failed}");
        assert!(failed.contains("verify_claims{outcome=\"failed\"} 1.0"), "{failed}");
        for line in failed.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("volume_snapshotter_verify_"), "{line}");
        }
        report.claims.truncate(1);
        let done = text(&report, ended).expect("a text");
        assert!(done.contains("volume_snapshotter_verify_last_success_timestamp_seconds 1000.0"), "{done}");
    }
}
