//! What a run came to as metrics, in the text format of Prometheus, and the key under which a Pushgateway keeps them.
//!
//! Pure: [`super::push`] sends them. A Pushgateway replaces what has the same name in the same group and keeps the
//! rest, which decides what is here:
//!
//! - What a failure must not erase has a name of its own and is there only if there is something to say: the last
//!   success.
//! - What is said of one claim is said of all, so that no claim's series vanishes because the run failed for it, or
//!   stays because it went well. What is not known is `NaN`, and what is not there is 0.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use crate::{
    names::PROGRAM,
    report::{ClaimReport, EXIT_DONE, End, Reason, Report, Stock},
    shard::Shard,
};

/// The most claims that have series of their own. Their text takes about a kilobyte each, in the memory of the run
/// and in the Pushgateway.
pub(super) const MOST_CLAIMS: usize = 1000;

/// All that is pushed of a run.
#[derive(Debug)]
struct Metrics {
    /// In seconds since 1970.
    ended: f64,
    took: Duration,
    exit: u8,
    outcomes: [(&'static str, usize); 6],
    failures: [(Reason, usize); Reason::ALL.len()],
    claims: Vec<Claim>,
}

/// What is pushed of one claim.
#[derive(Debug)]
struct Claim {
    namespace: String,
    name: String,
    stock: Option<Stock>,
    /// `None` if it has no new ready snapshot, or an earlier attempt made it.
    ready_after: Option<Duration>,
    deleted: usize,
    /// `None` if the snapshots were not all judged.
    kept: Option<usize>,
    failure: Option<Reason>,
}

/// The labels of a series, but for those of the group.
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Claim {
    fn of(claim: &ClaimReport, report: &Report) -> Self {
        let is_judged = matches!(claim.end, End::Done | End::NotPruned(_));
        Claim {
            namespace: claim.id.namespace.clone(),
            name: claim.id.name.clone(),
            stock: claim.stock,
            ready_after: claim.ready_after.filter(|_| !claim.taken_over),
            deleted: claim.deleted,
            kept: is_judged.then_some(claim.kept),
            failure: claim.reason(report.stopped),
        }
    }

    fn labels(&self) -> Labels<'_> {
        vec![("claim_namespace", &self.namespace), ("persistentvolumeclaim", &self.name)]
    }
}

/// As a float, which every value of Prometheus is.
pub(super) fn number(count: usize) -> f64 {
    // Exact as far as anything can be counted here.
    count as f64
}

pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Metrics {
    fn of(report: &Report, ended: SystemTime) -> Self {
        let of_outcome = |is: fn(&End) -> bool| report.claims.iter().filter(|claim| is(&claim.end)).count();
        let outcomes = [
            ("done", of_outcome(|end| matches!(end, End::Done))),
            ("not_pruned", of_outcome(|end| matches!(end, End::NotPruned(_)))),
            ("failed", of_outcome(|end| matches!(end, End::Failed(_)))),
            ("unfinished", of_outcome(|end| matches!(end, End::Unfinished(_)))),
            ("not_due", of_outcome(|end| matches!(end, End::NotDue(_)))),
            ("skipped", of_outcome(|end| matches!(end, End::PassedOver(_)))),
        ];
        let trouble = report.trouble.as_ref().map(|trouble| trouble.reason);
        let reasons = || report.claims.iter().filter_map(|claim| claim.reason(report.stopped)).chain(trouble);
        let failures = Reason::ALL.map(|reason| (reason, reasons().filter(|other| *other == reason).count()));
        let mut claims: Vec<&ClaimReport> =
            report.claims.iter().filter(|claim| !claim.is_passed_over()).collect();
        // Of too many those that are to be looked at: without a ready snapshot, or with the oldest one.
        if claims.len() > MOST_CLAIMS {
            claims.sort_by_key(|claim| claim.stock.and_then(|stock| stock.newest_ready));
            claims.truncate(MOST_CLAIMS);
        }
        Metrics {
            ended: unix(ended),
            took: report.took,
            exit: report.exit_code(),
            outcomes,
            failures,
            claims: claims.into_iter().map(|claim| Claim::of(claim, report)).collect(),
        }
    }

    fn encode_run(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let one = |value: f64| [(Labels::new(), value)];
        gauge(
            encoder,
            "volume_snapshotter_build_info",
            "The version that ran last, always 1.",
            [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        )?;
        gauge(
            encoder,
            "volume_snapshotter_last_run_timestamp_seconds",
            "When the last run ended.",
            one(self.ended),
        )?;
        if self.exit == EXIT_DONE {
            gauge(
                encoder,
                "volume_snapshotter_last_success_timestamp_seconds",
                "When the last run with exit code 0 ended.",
                one(self.ended),
            )?;
        }
        gauge(
            encoder,
            "volume_snapshotter_run_duration_seconds",
            "How long the last run took.",
            one(self.took.as_secs_f64()),
        )?;
        gauge(
            encoder,
            "volume_snapshotter_run_exit_code",
            "The exit code of the last run.",
            one(f64::from(self.exit)),
        )?;
        gauge(
            encoder,
            "volume_snapshotter_run_claims",
            "Number of claims of the last run, by outcome.",
            self.outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], number(count))),
        )?;
        gauge(
            encoder,
            "volume_snapshotter_run_failures",
            "Number of failures of the last run, by reason: one for each claim, and one if the run as a whole failed.",
            self.failures.map(|(reason, count)| (vec![("reason", reason.name())], number(count))),
        )
    }

    fn encode_claims(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut of_each = |name: &str, help: &str, value: &dyn Fn(&Claim) -> Option<f64>| {
            let series = self.claims.iter().filter_map(|claim| Some((claim.labels(), value(claim)?)));
            gauge(encoder, name, help, series)
        };
        of_each(
            "volume_snapshotter_claim_newest_ready_timestamp_seconds",
            "When the newest ready snapshot of the claim was taken, 0 if there is none.",
            &|claim| {
                let newest = claim.stock?.newest_ready;
                Some(newest.map_or(0.0, |newest| unix(newest.into())))
            },
        )?;
        of_each(
            "volume_snapshotter_claim_ready_snapshots",
            "Number of ready snapshots of the claim after the last run.",
            &|claim| Some(claim.stock?.ready.into()),
        )?;
        of_each(
            "volume_snapshotter_claim_held_snapshots",
            "Number of held snapshots of the claim after the last run.",
            &|claim| Some(claim.stock?.held.into()),
        )?;
        of_each(
            "volume_snapshotter_claim_terminating_snapshots",
            "Number of snapshots of the claim that were being deleted after the last run.",
            &|claim| Some(claim.stock?.terminating.into()),
        )?;
        of_each(
            "volume_snapshotter_claim_deleted_snapshots",
            "Number of older snapshots of the claim that the last run deleted.",
            &|claim| Some(number(claim.deleted)),
        )?;
        of_each(
            "volume_snapshotter_claim_kept_snapshots",
            "Number of older snapshots of the claim that the last run kept, NaN if it did not get that far.",
            &|claim| Some(claim.kept.map_or(f64::NAN, number)),
        )?;
        of_each(
            "volume_snapshotter_claim_ready_duration_seconds",
            "How long it took until the claim's new snapshot was ready, NaN if the last run did not see that.",
            &|claim| Some(claim.ready_after.map_or(f64::NAN, |after| after.as_secs_f64())),
        )?;
        gauge(
            encoder,
            "volume_snapshotter_claim_failures",
            "1 with the reason if the last run failed for the claim, else 0 without one.",
            self.claims.iter().map(|claim| {
                let mut labels = claim.labels();
                labels.extend(claim.failure.map(|reason| ("reason", reason.name())));
                (labels, f64::from(u8::from(claim.failure.is_some())))
            }),
        )
    }
}

/// A metric with all its series; nothing if there are none.
pub(super) fn gauge<'a>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> fmt::Result {
    let mut series = series.into_iter().peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        match labels.is_empty() {
            true => metric.encode_gauge(&value)?,
            false => metric.encode_family(&labels)?.encode_gauge(&value)?,
        }
    }
    Ok(())
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_run(&mut encoder)?;
        self.encode_claims(&mut encoder)
    }
}

/// The text that is pushed of a run that ended at that time.
///
/// # Errors
/// None that is known: it is written to memory.
pub(super) fn text(report: &Report, ended: SystemTime) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics::of(report, ended)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// The path of the group of a schedule, or of one of its pods: each replaces only its own metrics.
pub(super) fn path(namespace: &str, schedule: &str, shard: Shard) -> String {
    let mut path = "/metrics".to_owned();
    let shard = (!shard.is_whole()).then(|| ("shard", shard.label_value()));
    let labels =
        [("job", PROGRAM.to_owned()), ("namespace", namespace.to_owned()), ("schedule", schedule.to_owned())];
    for (name, value) in labels.into_iter().chain(shard) {
        path.push_str(&segments(name, &value));
    }
    path
}

/// A label of the grouping key; in base64 if the value would not be one segment of a path.
fn segments(name: &str, value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if value.bytes().all(is_plain) && value.bytes().any(|byte| byte != b'.') {
        return format!("/{name}/{value}");
    }
    let encoded = match value {
        // The Pushgateway wants to see that something is there.
        "" => "=".to_owned(),
        value => URL_SAFE.encode(value),
    };
    format!("/{name}@base64/{encoded}")
}

#[cfg(test)]
mod tests;
