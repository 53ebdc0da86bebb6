//! Waits until a new claim is Bound, or until it is known why it will not be.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::{Restore, says};
use crate::{
    api::{Claim, ObjectEvent, Volume},
    cluster::{Backoff, ErrorKind},
    names,
    report::{Failure, Reason},
    text,
};

pub(super) enum Ready {
    Bound,
    /// The volume will be created once a pod uses the claim.
    AtFirstConsumer,
}

/// What is known about a claim that is not Bound.
#[derive(Default)]
struct News {
    /// The latest Warning of the provisioner or the PersistentVolume controller.
    complaint: Option<String>,
    /// The latest Normal Event.
    remark: Option<String>,
    /// Time of the latest Warning.
    complained: Option<Timestamp>,
    /// Whether an Event says that the claim waits for its first consumer.
    first_consumer: bool,
    unread: Option<String>,
}

/// Waits until the new claim is Bound, for at most the timeout of the settings. `waits_for_consumer` says
/// whether its StorageClass is known to wait for the first consumer.
pub(super) async fn wait(
    restore: &Restore<'_>,
    made: &Claim,
    snapshot: &str,
    waits_for_consumer: bool,
) -> Result<Ready, Failure> {
    let began = Instant::now();
    let end = began + restore.settings.timeout;
    let mut backoff = Backoff::between_reads();
    let mut reported = None;
    let mut warned_of_events = false;
    let mut warned_of_snapshot = false;
    loop {
        let news = match restore.cluster.claim(&restore.id).await {
            Ok(claim) => {
                if claim.metadata.uid != made.metadata.uid || claim.metadata.deletion_timestamp.is_some() {
                    return Err(deleted(restore));
                }
                match claim.status.phase.as_str() {
                    "Bound" => {
                        return has_its_own_volume(restore, &claim, snapshot).await.map(|()| Ready::Bound);
                    }
                    "Lost" => return Err(lost(restore)),
                    _ => {}
                }
                let news = news(restore, made, &mut warned_of_events).await;
                let has_consumer = claim.metadata.annotations.selected_node.is_some();
                if !has_consumer && (waits_for_consumer || news.first_consumer) {
                    return Ok(Ready::AtFirstConsumer);
                }
                news
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(deleted(restore)),
            Err(error) if error.is_transient() => {
                says!(restore, warn, "{error}");
                News { unread: Some(error.to_string()), ..News::default() }
            }
            Err(error) => return Err(error.into()),
        };
        if news.complaint.is_some() && news.complaint != reported {
            let complaint = news.complaint.as_deref().unwrap_or_default();
            says!(restore, warn, "the volume does not exist yet: {complaint}");
            reported.clone_from(&news.complaint);
        }
        snapshot_is_there(restore, snapshot, &news, &mut warned_of_snapshot).await?;

        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = news.unread.or(reported).or(news.remark);
            let why = why.unwrap_or_else(|| "no Event gives a reason".to_owned());
            return Err(not_in_time(restore, &why));
        }
        (restore.waiting)(Some(&format!(
            "waiting until claim {} is Bound: {} of {}{}",
            restore.id.name,
            text::duration(Duration::from_secs(began.elapsed().as_secs())),
            text::duration(restore.settings.timeout),
            news.remark.map_or(String::new(), |remark| format!("; {remark}"))
        )));
        sleep(backoff.next(None).min(left)).await;
    }
}

/// Reads the Events of the claim. If they cannot be read, warns once and returns nothing; a later read may
/// succeed, because an API server that has just started denies requests for a moment.
async fn news(restore: &Restore<'_>, made: &Claim, warned: &mut bool) -> News {
    match restore.cluster.claim_events(&restore.id, &made.metadata.uid).await {
        Ok(events) => gather(&events),
        Err(error) => {
            if !std::mem::replace(warned, true) {
                says!(restore, warn, "continuing without the Events of the claim: {error}");
            }
            News::default()
        }
    }
}

fn gather(events: &[ObjectEvent]) -> News {
    let time = |event: &&ObjectEvent| event.last_timestamp.or(event.event_time);
    let is_complaint = |event: &&ObjectEvent| event.kind == "Warning";
    let is_first_consumer = |event: &&ObjectEvent| event.reason == "WaitForFirstConsumer";
    // Of several in the same second, the last in the list, which is sorted by name.
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

/// Fails if the source snapshot is gone, or if it is being deleted and the provisioner has noticed: no volume
/// will be created from it.
async fn snapshot_is_there(
    restore: &Restore<'_>,
    name: &str,
    news: &News,
    warned: &mut bool,
) -> Result<(), Failure> {
    let deleted_at = match restore.cluster.snapshot(&restore.id.namespace, name).await {
        Ok(snapshot) => snapshot.metadata.deletion_timestamp,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(source_gone(restore, name, None)),
        // A failed read does not matter: the claim decides.
        Err(_) => None,
    };
    let Some(deleted_at) = deleted_at else { return Ok(()) };
    // Events have the provisioner's clock, in whole seconds.
    let since = deleted_at - SignedDuration::from_secs(1);
    if news.complained.is_some_and(|complained| complained >= since) {
        return Err(source_gone(restore, name, news.complaint.as_deref()));
    }
    if !*warned {
        *warned = true;
        says!(
            restore,
            warn,
            "snapshot {name} is being deleted; the claim becomes Bound only if its volume was started before"
        );
    }
    Ok(())
}

/// The origin of a Bound claim's volume, as far as the claim shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Created for this claim, and thus from its data source.
    Made,
    /// Existed before: no provisioner was asked to create one.
    Found,
    /// Unknown: a provisioner was asked to create one, but another volume may have been bound first.
    Open,
}

/// Fails if the claim is bound to a volume that was not created for it. Kubernetes binds a claim to any free
/// volume that fits, whatever the claim's data source; such a volume does not have the snapshot's data.
async fn has_its_own_volume(restore: &Restore<'_>, claim: &Claim, snapshot: &str) -> Result<(), Failure> {
    let volume = claim.spec.volume_name.as_deref().unwrap_or_default();
    match origin(claim) {
        Origin::Made => return Ok(()),
        Origin::Found => return Err(other_volume(restore, volume, snapshot)),
        Origin::Open => {}
    }
    if names::is_object_name(volume) {
        match restore.cluster.volume(volume).await {
            Ok(read) if is_made_for(&read, claim) => return Ok(()),
            Ok(_) => return Err(other_volume(restore, volume, snapshot)),
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => tracing::debug!("{error}"),
        }
    }
    match restore.cluster.claim_events(&restore.id, &claim.metadata.uid).await {
        Ok(events) if events.iter().any(|event| says_made(event, volume)) => Ok(()),
        Err(error) if error.is_transient() => Err(error.into()),
        _ => Err(unknown_volume(restore, volume)),
    }
}

/// Determines the origin from the claim alone. The name of a volume created for a claim contains the claim's
/// uid: `pvc-<uid>` or, depending on the provisioner's flags, another prefix and only the beginning of the
/// uid.
fn origin(claim: &Claim) -> Origin {
    let volume = claim.spec.volume_name.as_deref().unwrap_or_default();
    let uid = claim.metadata.uid.as_str();
    let short = uid.replace('-', "");
    let is_beginning = |end: &str| end.len() >= 8 && short.starts_with(end);
    let is_after_claim = !uid.is_empty()
        && (volume.ends_with(&format!("-{uid}")) || volume.rsplit('-').next().is_some_and(is_beginning));
    match (is_after_claim, &claim.metadata.annotations.storage_provisioner) {
        (true, _) => Origin::Made,
        (false, None) => Origin::Found,
        (false, Some(_)) => Origin::Open,
    }
}

/// Whether a provisioner created the volume for this claim, and not before the claim.
fn is_made_for(volume: &Volume, claim: &Claim) -> bool {
    volume.metadata.annotations.provisioned_by.is_some()
        && volume.spec.claim_ref.as_ref().is_some_and(|claim_ref| claim_ref.uid == claim.metadata.uid)
        && volume.metadata.creation_timestamp >= claim.metadata.creation_timestamp
}

/// Whether the provisioner reported that it created the volume. `event` must be about this claim.
fn says_made(event: &ObjectEvent, volume: &str) -> bool {
    event.reason == "ProvisioningSucceeded" && event.message.split_whitespace().any(|word| word == volume)
}

fn other_volume(restore: &Restore<'_>, volume: &str, snapshot: &str) -> Failure {
    let (name, namespace) = (&restore.id.name, &restore.id.namespace);
    let volume = text::name(volume);
    Failure {
        message: format!(
            "claim {name} is Bound, but not to a volume created from snapshot {snapshot}: Kubernetes preferred volume \
             {volume}, which existed before, was free and has the same class, so the claim does not have the snapshot's \
             data. Delete the claim (kubectl delete pvc {name} -n {namespace}), but check first whether the data in volume \
             {volume} may be deleted: with the reclaim policy Delete it goes too (kubectl get pv {volume}). Then make sure \
             that no free volume of the class is left, or name another class with --storage-class, and restore again"
        ),
        is_transient: false,
        reason: Reason::Other,
    }
}

fn unknown_volume(restore: &Restore<'_>, volume: &str) -> Failure {
    let (name, namespace) = (&restore.id.name, &restore.id.namespace);
    let volume = text::name(volume);
    Failure {
        message: format!(
            "claim {name} in namespace {namespace} is Bound to volume {volume}, but it is not known whether that was created \
             from the snapshot: its name does not contain the claim's uid, the volume cannot be read, and no Event says who \
             created it. Check it (kubectl get pv {volume} -o yaml): a volume created for the claim is not older than the \
             claim. To have the next restore check it, allow this in a ClusterRole: apiGroups: [\"\"], resources: [\"persistentvolumes\"], \
             verbs: [\"get\"]"
        ),
        is_transient: false,
        reason: Reason::Other,
    }
}

fn source_gone(restore: &Restore<'_>, snapshot: &str, complaint: Option<&str>) -> Failure {
    let (name, namespace) = (&restore.id.name, &restore.id.namespace);
    Failure {
        message: format!(
            "snapshot {snapshot} was deleted before claim {name} was Bound{}; delete the claim (kubectl delete pvc \
             {name} -n {namespace}) and restore from another snapshot",
            complaint.map_or(String::new(), |complaint| format!(": {complaint}"))
        ),
        is_transient: false,
        reason: Reason::Other,
    }
}

fn deleted(restore: &Restore<'_>) -> Failure {
    Failure {
        message: format!("claim {} was deleted before it was Bound", restore.id.name),
        is_transient: false,
        reason: Reason::Other,
    }
}

fn lost(restore: &Restore<'_>) -> Failure {
    let (name, namespace) = (&restore.id.name, &restore.id.namespace);
    Failure {
        message: format!(
            "claim {name} is Lost: its volume was deleted; see kubectl describe pvc {name} -n {namespace}"
        ),
        is_transient: false,
        reason: Reason::Other,
    }
}

fn not_in_time(restore: &Restore<'_>, why: &str) -> Failure {
    let (name, namespace) = (&restore.id.name, &restore.id.namespace);
    Failure {
        message: format!(
            "claim {name} was not Bound within {}: {why}; it still exists and may still become Bound: kubectl describe \
             pvc {name} -n {namespace}; to wait longer: --timeout",
            text::duration(restore.settings.timeout)
        ),
        is_transient: true,
        reason: Reason::Other,
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

    fn bound(volume: &str, provisioner: Option<&str>) -> Claim {
        let mut claim = json!({
            "metadata": {
                "name": "b", "uid": "03430e92-755a-40a1-acf3-c6367ef4bafa", "annotations": {},
                "creationTimestamp": "2026-11-21T14:23:25Z",
            },
            "spec": {"volumeName": volume},
            "status": {"phase": "Bound"},
        });
        if let Some(provisioner) = provisioner {
            claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] = provisioner.into();
        }
        serde_json::from_value(claim).expect("a claim")
    }

    #[test]
    fn a_volume_made_for_a_claim_is_called_after_it_and_any_other_needs_more_evidence() {
        let driver = Some("hostpath.csi.k8s.io");
        for (volume, provisioner, expected) in [
            ("pvc-03430e92-755a-40a1-acf3-c6367ef4bafa", driver, Origin::Made),
            ("shoot--x-03430e92-755a-40a1-acf3-c6367ef4bafa", driver, Origin::Made),
            ("vol-03430e92755a", driver, Origin::Made),
            // Too short to be no accident.
            ("vol-03430", driver, Origin::Open),
            ("pvc-413b1b88-940d-4bd0-b012-4171ce48ddbd", driver, Origin::Open),
            ("spare", driver, Origin::Open),
            ("spare", None, Origin::Found),
            ("pvc-413b1b88-940d-4bd0-b012-4171ce48ddbd", None, Origin::Found),
            ("", None, Origin::Found),
        ] {
            assert_eq!(origin(&bound(volume, provisioner)), expected, "{volume}");
        }
    }

    #[test]
    fn a_volume_that_was_there_before_its_claim_was_not_made_for_it() {
        let claim = bound("odd", Some("odd.csi"));
        let volume = |created: &str, by: Option<&str>, uid: &str| -> Volume {
            let mut annotations = json!({});
            if let Some(by) = by {
                annotations["pv.kubernetes.io/provisioned-by"] = by.into();
            }
            serde_json::from_value(json!({
                "metadata": {"creationTimestamp": created, "annotations": annotations},
                "spec": {"claimRef": {"uid": uid}},
            }))
            .expect("a volume")
        };
        let uid = claim.metadata.uid.as_str();
        assert!(is_made_for(&volume("2026-11-21T14:23:25Z", Some("odd.csi"), uid), &claim));
        assert!(!is_made_for(&volume("2026-11-21T14:23:24Z", Some("odd.csi"), uid), &claim));
        assert!(!is_made_for(&volume("2026-11-21T14:23:25Z", None, uid), &claim));
        assert!(!is_made_for(&volume("2026-11-21T14:23:25Z", Some("odd.csi"), "other"), &claim));
        let made = event("Normal", "ProvisioningSucceeded", "Successfully provisioned volume odd", 1);
        assert!(says_made(&made, "odd") && !says_made(&made, "od"));
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
