//! Waiting until a new claim is Bound, or until it is known why it will not be.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::{Restore, says};
use crate::{
    api::{Claim, ObjectEvent},
    cluster::{Cause, Pause},
    report::Failure,
    text,
};

/// How waiting ended well.
pub(super) enum Ready {
    /// There is a volume.
    Bound,
    /// There will be one as soon as a pod uses the claim.
    AtFirstConsumer,
}

/// What is known of a claim that is not Bound.
#[derive(Default)]
struct News {
    /// What the provisioner, or the controller that binds, last complained of.
    complaint: Option<String>,
    /// What was last said that is no complaint.
    remark: Option<String>,
    /// When a complaint was last made.
    complained: Option<Timestamp>,
    /// Whether it is said that a pod is waited for.
    first_consumer: bool,
    /// Why nothing is known.
    unread: Option<String>,
}

/// Waits until the claim that was just made is Bound; no longer than the settings say.
/// `waits_for_consumer` is what is known of its StorageClass.
pub(super) async fn wait(
    restore: &Restore<'_>,
    made: &Claim,
    snapshot: &str,
    waits_for_consumer: bool,
) -> Result<Ready, Failure> {
    let began = Instant::now();
    let end = began + restore.settings.timeout;
    let mut pause = Pause::between_reads();
    let mut reported = None;
    let mut may_read_events = true;
    let mut warned_of_snapshot = false;
    loop {
        let news = match restore.cluster.claim(&restore.id).await {
            Ok(claim) => {
                if claim.metadata.uid != made.metadata.uid || claim.metadata.deletion_timestamp.is_some() {
                    return Err(deleted(restore));
                }
                match claim.status.phase.as_str() {
                    "Bound" => return Ok(Ready::Bound),
                    "Lost" => return Err(lost(restore)),
                    _ => {}
                }
                let news = match may_read_events {
                    true => news(restore, made, &mut may_read_events).await,
                    false => News::default(),
                };
                let has_consumer = claim.metadata.annotations.selected_node.is_some();
                if !has_consumer && (waits_for_consumer || news.first_consumer) {
                    return Ok(Ready::AtFirstConsumer);
                }
                news
            }
            Err(error) if error.cause() == Cause::NotFound => return Err(deleted(restore)),
            Err(error) if error.may_pass() => {
                says!(restore, warn, "{error}");
                News { unread: Some(error.to_string()), ..News::default() }
            }
            Err(error) => return Err(error.into()),
        };
        if news.complaint.is_some() && news.complaint != reported {
            let complaint = news.complaint.as_deref().unwrap_or_default();
            says!(restore, warn, "the volume is not there yet: {complaint}");
            reported.clone_from(&news.complaint);
        }
        snapshot_is_there(restore, snapshot, &news, &mut warned_of_snapshot).await?;

        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = news.unread.or(reported).or(news.remark);
            let why = why.unwrap_or_else(|| "nothing is said of it in Events".to_owned());
            return Err(not_in_time(restore, &why));
        }
        (restore.waiting)(Some(&format!(
            "waiting until claim {} is Bound: {} of {}{}",
            restore.id.name,
            text::duration(Duration::from_secs(began.elapsed().as_secs())),
            text::duration(restore.settings.timeout),
            news.remark.map_or(String::new(), |remark| format!("; {remark}"))
        )));
        sleep(pause.next(None).min(left)).await;
    }
}

/// What is said of the claim. Where Events may not be read, nothing, and that is said once.
async fn news(restore: &Restore<'_>, made: &Claim, may_read_events: &mut bool) -> News {
    match restore.cluster.claim_events(&restore.id, &made.metadata.uid).await {
        Ok(events) => gather(&events),
        Err(error) => {
            if error.cause() == Cause::Forbidden {
                *may_read_events = false;
            }
            says!(restore, warn, "what is said of the claim is not known: {error}");
            News::default()
        }
    }
}

fn gather(events: &[ObjectEvent]) -> News {
    let time = |event: &&ObjectEvent| event.last_timestamp.or(event.event_time);
    let is_complaint = |event: &&ObjectEvent| event.kind == "Warning";
    let is_first_consumer = |event: &&ObjectEvent| event.reason == "WaitForFirstConsumer";
    // Of one second the last in the list, which is in the order of their names.
    let complaint = events.iter().filter(is_complaint).max_by_key(time);
    let remark =
        events.iter().filter(|event| !is_complaint(event) && !is_first_consumer(event)).max_by_key(time);
    let said = |event: &ObjectEvent| text::foreign(&event.message);
    News {
        complaint: complaint.map(said),
        complained: complaint.and_then(|event| time(&event)),
        remark: remark.map(said),
        first_consumer: events.iter().any(|event| is_first_consumer(&event)),
        unread: None,
    }
}

/// Nothing is made from a snapshot that is gone, nor, as soon as the provisioner has seen it, from one
/// that is being deleted.
async fn snapshot_is_there(
    restore: &Restore<'_>,
    name: &str,
    news: &News,
    warned: &mut bool,
) -> Result<(), Failure> {
    let deleted_at = match restore.cluster.snapshot(&restore.id.namespace, name).await {
        Ok(snapshot) => snapshot.metadata.deletion_timestamp,
        Err(error) if error.cause() == Cause::NotFound => return Err(source_gone(restore, name, None)),
        // What matters is the claim.
        Err(_) => None,
    };
    let Some(deleted_at) = deleted_at else { return Ok(()) };
    // Events are dated by the provisioner's clock, in whole seconds.
    let since = deleted_at - SignedDuration::from_secs(1);
    if news.complained.is_some_and(|complained| complained >= since) {
        return Err(source_gone(restore, name, news.complaint.as_deref()));
    }
    if !*warned {
        *warned = true;
        says!(
            restore,
            warn,
            "somebody deleted snapshot {name}; if its volume was not begun before, it will never be"
        );
    }
    Ok(())
}

fn source_gone(restore: &Restore<'_>, snapshot: &str, complaint: Option<&str>) -> Failure {
    let (name, namespace) = (&restore.id.name, &restore.id.namespace);
    Failure {
        message: format!(
            "somebody deleted snapshot {snapshot} before claim {name} was Bound{}; delete the claim (kubectl delete pvc \
             {name} -n {namespace}) and restore from another snapshot",
            complaint.map_or(String::new(), |complaint| format!(": {complaint}"))
        ),
        may_pass: false,
    }
}

fn deleted(restore: &Restore<'_>) -> Failure {
    Failure {
        message: format!("somebody deleted claim {} before it was Bound", restore.id.name),
        may_pass: false,
    }
}

fn lost(restore: &Restore<'_>) -> Failure {
    let (name, namespace) = (&restore.id.name, &restore.id.namespace);
    Failure {
        message: format!(
            "claim {name} is Lost: its volume was made and is gone; see kubectl describe pvc {name} -n {namespace}"
        ),
        may_pass: false,
    }
}

fn not_in_time(restore: &Restore<'_>, why: &str) -> Failure {
    let (name, namespace) = (&restore.id.name, &restore.id.namespace);
    Failure {
        message: format!(
            "claim {name} was not Bound within {}: {why}; it is still there and may yet become so: kubectl describe pvc \
             {name} -n {namespace}; or wait longer next time: --timeout",
            text::duration(restore.settings.timeout)
        ),
        may_pass: true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, reason: &str, message: &str, second: u8) -> ObjectEvent {
        serde_json::from_value(json!({
            "type": kind, "reason": reason, "message": message,
            "lastTimestamp": format!("2026-11-20T08:55:{second:02}Z"), "eventTime": null,
        }))
        .expect("an event")
    }

    #[test]
    fn of_what_is_said_the_last_complaint_counts() {
        let news = gather(&[
            event("Warning", "ProvisioningFailed", "second", 57),
            event("Normal", "Provisioning", "External provisioner is\nprovisioning", 58),
            event("Warning", "ProvisioningFailed", "first", 56),
        ]);
        assert_eq!(news.complaint.as_deref(), Some("second"));
        assert_eq!(news.remark.as_deref(), Some("External provisioner is provisioning"));
        assert!(!news.first_consumer);
        let news = gather(&[event("Normal", "WaitForFirstConsumer", "waiting for first consumer", 1)]);
        assert!(news.first_consumer && news.complaint.is_none() && news.remark.is_none());
    }
}
