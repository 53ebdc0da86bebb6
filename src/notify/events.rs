//! Events on the claims: what is said of a claim is decided here; [`crate::cluster`] makes the requests.
//!
//! `kubectl describe pvc` shows them for an hour. They are a help and no record: few are created, in little time,
//! and none if the Role does not allow it.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;

use crate::{
    api::NewEvent,
    cluster::{Cluster, Error, ErrorKind},
    report::{ClaimReport, End, Report, Step, Stop, truncate},
    settings::{EventChoice, Settings, VerifySettings},
    text,
    verify::{ClaimVerdict, VerifyEnd, VerifyReport},
};

/// The most Events of a run.
const MOST: usize = 100;

/// How long all of them may take together.
const WITHIN: Duration = Duration::from_secs(5);

/// The most bytes of a note that the API server accepts.
const MAX_NOTE: usize = 1024;

/// What is said of one claim, but for the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    is_warning: bool,
    reason: &'static str,
    action: &'static str,
}

/// What is said of a claim; nothing if a signal stopped the run before it came to anything: its next attempt will.
fn said(claim: &ClaimReport, report: &Report) -> Option<Said> {
    let (is_warning, reason, action) = match &claim.end {
        End::Failed(_) => (true, "SnapshotFailed", "Snapshot"),
        End::NotPruned(_) => (true, "PruningFailed", "Prune"),
        End::Done => (false, "SnapshotReady", "Snapshot"),
        End::PassedOver(_) => (false, "SnapshotSkipped", "Snapshot"),
        End::NotDue(_) => (false, "SnapshotNotDue", "Snapshot"),
        End::Unfinished(_) if matches!(report.stopped, Some(Stop::Signal(_))) => return None,
        End::Unfinished(Step::Pruning) => (true, "PruningFailed", "Prune"),
        End::Unfinished(_) => (true, "SnapshotFailed", "Snapshot"),
    };
    Some(Said { is_warning, reason, action })
}

/// What is said after a run, the failures first. Nothing changes in a dry run, so nothing is said of one.
fn all_said(report: &Report, choice: EventChoice) -> Vec<(&ClaimReport, Said)> {
    if choice == EventChoice::Off || report.dry_run {
        return Vec::new();
    }
    let all = report.claims.iter().filter_map(|claim| Some((claim, said(claim, report)?)));
    let is_wanted = |said: &Said| said.is_warning || choice == EventChoice::All;
    let mut all: Vec<_> = all.filter(|(_, said)| is_wanted(said)).collect();
    all.sort_by_key(|(_, said)| !said.is_warning);
    all
}

/// The words, as short as the API server wants them.
fn note(claim: &ClaimReport, report: &Report) -> String {
    let mut note = claim.line(report.dry_run);
    if matches!(claim.end, End::Unfinished(_)) {
        let why = report.trouble.as_ref().map(|trouble| trouble.message.as_str());
        note.push_str(": ");
        note.push_str(why.unwrap_or("the run reached its time limit"));
    }
    shortened(&note)
}

/// A line that the API server takes for a note.
fn shortened(note: &str) -> String {
    let mut note = text::foreign(note);
    truncate(&mut note, MAX_NOTE);
    note
}

/// The name of an Event: that of the claim, cut where it is too long, and what makes it unique.
fn name(claim: &str, random: u64) -> String {
    const ROOM: usize = 253 - 17;
    let mut end = claim.len().min(ROOM);
    while !claim.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}.{random:016x}", claim[..end].trim_end_matches(['-', '.']))
}

fn event(claim: &ClaimReport, said: Said, report: &Report, instance: &str) -> NewEvent {
    NewEvent {
        name: name(&claim.id.name, rand::random()),
        namespace: claim.id.namespace.clone(),
        claim: claim.id.name.clone(),
        claim_uid: claim.uid.as_deref().map(str::to_owned),
        is_warning: said.is_warning,
        reason: said.reason,
        action: said.action,
        note: note(claim, report),
        time: Timestamp::now(),
        instance: instance.to_owned(),
    }
}

/// Creates the Events that are wanted of a run, within this time. `instance` is the Job's name. What goes wrong is
/// a line of the log.
pub(super) async fn announce(
    cluster: &Cluster,
    settings: &Settings,
    report: &Report,
    instance: &str,
    within: Duration,
) {
    let all = all_said(report, settings.events);
    let event = |(claim, said): &(&ClaimReport, Said)| event(claim, *said, report, instance);
    create_all(cluster, &all, event, settings.concurrency, within).await;
}

/// Creates the Events that are wanted of a drill, as [`announce`] does those of a run.
pub(super) async fn announce_drill(
    cluster: &Cluster,
    settings: &VerifySettings,
    report: &VerifyReport,
    instance: &str,
    within: Duration,
) {
    let all = all_said_of_drill(report, settings.run.events);
    let event = |(claim, said): &(&ClaimVerdict, Said)| NewEvent {
        name: name(&claim.claim, rand::random()),
        namespace: claim.namespace.clone(),
        claim: claim.claim.clone(),
        claim_uid: claim.claim_uid.clone(),
        is_warning: said.is_warning,
        reason: said.reason,
        action: said.action,
        note: shortened(&claim.line()),
        time: Timestamp::now(),
        instance: instance.to_owned(),
    };
    create_all(cluster, &all, event, settings.run.concurrency, within).await;
}

/// What is said after a drill, the failures first.
fn all_said_of_drill(report: &VerifyReport, choice: EventChoice) -> Vec<(&ClaimVerdict, Said)> {
    if choice == EventChoice::Off || report.dry_run {
        return Vec::new();
    }
    let is_signalled = matches!(report.stopped, Some(Stop::Signal(_)));
    let said = |claim: &ClaimVerdict| {
        let (is_warning, reason) = match &claim.end {
            VerifyEnd::Verified(_) => (false, "SnapshotVerified"),
            VerifyEnd::Recent(_) | VerifyEnd::WouldVerify(_) => return None,
            VerifyEnd::Unfinished(_) if is_signalled => return None,
            VerifyEnd::Failed(_) | VerifyEnd::Unfinished(_) => (true, "SnapshotNotVerified"),
        };
        Some(Said { is_warning, reason, action: "Verify" })
    };
    let all = report.claims.iter().filter_map(|claim| Some((claim, said(claim)?)));
    let mut all: Vec<_> = all.filter(|(_, said)| said.is_warning || choice == EventChoice::All).collect();
    all.sort_by_key(|(_, said)| !said.is_warning);
    all
}

/// Creates an Event of each, the first alone, within this time.
async fn create_all<T>(
    cluster: &Cluster,
    all: &[T],
    event: impl Fn(&T) -> NewEvent,
    concurrency: usize,
    within: Duration,
) {
    let unsent = all.len().saturating_sub(MOST);
    let all = all.get(..MOST).unwrap_or(all);
    let Some((first, rest)) = all.split_first() else { return };
    let (created, failed) = (Cell::new(0), RefCell::new(None::<Error>));
    let create = async |one: &T| {
        if failed.borrow().is_some() {
            return;
        }
        match cluster.create_event(&event(one)).await {
            Ok(()) => created.set(created.get() + 1),
            Err(error) => *failed.borrow_mut() = Some(error),
        }
    };
    let sending = async {
        // Alone: without the right, or without a server, one request is enough to know.
        create(first).await;
        stream::iter(rest).for_each_concurrent(concurrency, &create).await;
    };
    let is_over = timeout(within.min(WITHIN), sending).await.is_ok();
    let (created, wanted) = (created.get(), all.len());
    let unchanged = "this changes nothing of the run and its exit code";
    match failed.into_inner() {
        Some(error) if error.kind() == ErrorKind::Forbidden => {
            tracing::debug!("no Events are created: {error}")
        }
        Some(error) => {
            tracing::warn!("Events on claims: {created} of {wanted} were created: {error}; {unchanged}");
        }
        None if !is_over => {
            tracing::warn!("Events on claims: {created} of {wanted} were created in time; {unchanged}");
        }
        None => tracing::debug!("Events on claims: {created} were created"),
    }
    if unsent > 0 {
        tracing::info!("Events on claims: {unsent} more were not created, for a run creates {MOST} at most");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{Failure, Reason},
        snapshot::ClaimId,
    };

    fn claim(name: &str, end: End) -> ClaimReport {
        let id = ClaimId { namespace: "app".to_owned(), name: name.to_owned() };
        ClaimReport {
            end,
            ..ClaimReport::new(name.to_owned(), id.into(), Some(format!("uid-of-{name}").into()))
        }
    }

    fn failure(message: &str) -> Failure {
        Failure { message: message.to_owned(), is_transient: true, reason: Reason::NotReady }
    }

    /// One claim for each end that there is.
    fn every_end(stopped: Option<Stop>) -> Report {
        let claims = vec![
            claim("done", End::Done),
            claim("skipped", End::PassedOver("it is Pending".to_owned())),
            claim("not-due", End::NotDue("not due before noon".to_owned())),
            claim("failed", End::Failed(failure("it was not ready"))),
            claim("not-pruned", End::NotPruned("1 older snapshot could not be deleted".to_owned())),
            claim("waiting", End::Unfinished(Step::AwaitingReady)),
            claim("pruning", End::Unfinished(Step::Pruning)),
        ];
        Report { claims, stopped, ..Report::default() }
    }

    #[test]
    fn failures_are_said_first_and_successes_only_if_they_are_asked_for() {
        let failures = ["failed: SnapshotFailed", "not-pruned: PruningFailed"];
        let unfinished = ["waiting: SnapshotFailed", "pruning: PruningFailed"];
        let successes = ["done: SnapshotReady", "skipped: SnapshotSkipped", "not-due: SnapshotNotDue"];
        let signal = Some(Stop::Signal(15));
        for (stopped, choice, expected) in [
            (Some(Stop::OutOfTime), EventChoice::Warnings, [&failures[..], &unfinished].concat()),
            (Some(Stop::OutOfTime), EventChoice::All, [&failures[..], &unfinished, &successes].concat()),
            // The next attempt goes on with it.
            (signal, EventChoice::Warnings, failures.to_vec()),
            (signal, EventChoice::All, [&failures[..], &successes].concat()),
            (signal, EventChoice::Off, vec![]),
        ] {
            let mut report = every_end(stopped);
            let all = |report: &Report| -> Vec<String> {
                let all = all_said(report, choice).into_iter();
                all.map(|(claim, said)| format!("{}: {}", claim.claim, said.reason)).collect()
            };
            assert_eq!(all(&report), expected, "{stopped:?} {choice:?}");
            report.dry_run = true;
            assert_eq!(all(&report), [""; 0], "{stopped:?} {choice:?}");
        }
        let is_warning = |said: &(&ClaimReport, Said)| said.1.is_warning;
        let report = every_end(None);
        assert_eq!(all_said(&report, EventChoice::All).iter().filter(|said| is_warning(said)).count(), 4);
    }

    #[test]
    fn a_note_is_a_line_of_what_the_server_accepts() {
        let report = Report { trouble: Some(failure("cannot list the snapshots")), ..every_end(None) };
        assert_eq!(note(&report.claims[3], &report), "it was not ready");
        assert_eq!(
            note(&report.claims[5], &report),
            "stopped before its snapshot was ready; the Job's next attempt continues with it: cannot list the snapshots"
        );
        let long = claim("data", End::Failed(failure(&format!("a\nb\u{1b}[2K{}", "ä".repeat(2000)))));
        let note = note(&long, &report);
        assert!(note.starts_with("a b [2Kä") && note.ends_with('…'), "{note}");
        assert!(note.len() <= 1024 && note.len() > 1000, "{}", note.len());
    }

    #[test]
    fn an_event_has_a_name_that_an_object_can_have() {
        assert_eq!(name("data", 0x17), "data.0000000000000017");
        for long in ["x".repeat(253), format!("{}-.{}", "x".repeat(234), "y".repeat(17))] {
            let name = name(&long, u64::MAX);
            assert!(crate::names::is_object_name(&name), "{name}");
        }
    }

    #[test]
    fn an_event_is_about_the_claim_that_was_found() {
        let report = every_end(None);
        let (claim, said) = all_said(&report, EventChoice::Warnings)[0];
        let mut event = event(claim, said, &report, "hourly-1");
        event.time = "2026-11-21T12:54:52Z".parse().expect("a time");
        event.name = "failed.17".to_owned();
        assert_eq!(
            event.object(),
            serde_json::json!({
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": "failed.17", "namespace": "app"},
                "eventTime": "2026-11-21T12:54:52.000000Z",
                "type": "Warning",
                "reason": "SnapshotFailed",
                "action": "Snapshot",
                "note": "it was not ready",
                "reportingController": "volume-snapshotter",
                "reportingInstance": "hourly-1",
                "regarding": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": "app", "name": "failed", "uid": "uid-of-failed",
                },
            })
        );
    }
}
