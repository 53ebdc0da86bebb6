//! A target: a claim that this run snapshots, or a group of claims that it snapshots at one instant, with what holds
//! for it and what came of it.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::cache::SnapshotCache;
use crate::{
    api::Claim,
    group::claim_uids,
    names::{EVERY_ANNOTATION, RETENTION_ANNOTATION},
    report::{ClaimReport, End, Failure, GroupReport, Reason},
    retention::{AnnotationError, ClaimIdentity, Every, Rules, every_of_claim, is_annotated, rules_of_claim},
    settings::{Annotations, Settings},
    snapshot::ClaimId,
    volume::NotedVolume,
};

/// A claim that this run snapshots, or a group of them.
pub(super) struct Target {
    /// Which claim. Of a group its value, in the place of a claim's name; the two are never in the same
    /// [`SnapshotCache`].
    pub(super) id: Rc<ClaimId>,
    /// What it is called in messages: with its namespace, if the run is about more than one.
    pub(super) called: String,
    /// The claim as it was read before its snapshot is made; `None` if claims may not be read. Of a group all of its
    /// claims together.
    pub(super) claim: Option<KnownClaim>,
    /// When that was read.
    pub(super) read: Instant,
    /// What is reported of it.
    pub(super) report: ReportSlot,
    /// The claims of a group; `None` for a claim.
    pub(super) group: Option<Rc<GroupClaims>>,
}

/// The claims of a group.
#[derive(Default)]
pub(super) struct GroupClaims {
    /// The value that they have in common, for messages.
    pub(super) called: String,
    /// What is reported of each.
    pub(super) reports: Vec<ReportSlot>,
}

/// What is known of a claim from one reading.
#[derive(Clone, Debug)]
pub(super) struct KnownClaim {
    /// Of a group those of its claims, see [`claim_uids`].
    pub(super) uid: Rc<str>,
    pub(super) created: Option<Timestamp>,
    /// What its volume is, as its snapshots note it; `None` for a group, which has several, and where it does not matter.
    pub(super) volume: Option<Rc<str>>,
    /// Whether somebody deleted it; it stays while a pod uses it.
    pub(super) is_terminating: bool,
    /// The rules that it is annotated with, or what is wrong with them; most claims have none.
    pub(super) rules: Annotated<Rules>,
    /// How often it wants a snapshot, or what is wrong with that; most claims do not say.
    pub(super) every: Annotated<Every>,
    /// Whether its annotations ask for snapshots at all.
    pub(super) is_annotated: bool,
}

impl KnownClaim {
    pub(super) fn of(claim: Claim, schedule: &str) -> Self {
        let (name, annotations) = (&claim.metadata.name, &claim.metadata.annotations);
        KnownClaim {
            rules: rules_of_claim(name, annotations, schedule).transpose().map(Box::new),
            every: every_of_claim(name, annotations, schedule).transpose().map(Box::new),
            is_annotated: is_annotated(annotations, schedule),
            volume: Some(NotedVolume::of(&claim).written().into()),
            uid: claim.metadata.uid.into(),
            created: claim.metadata.creation_timestamp,
            is_terminating: claim.metadata.deletion_timestamp.is_some(),
        }
    }

    /// What is known of a group whose claims these are, by name. What annotations ask for has to be the same for all of
    /// them.
    pub(super) fn of_group(group: &str, claims: &BTreeMap<String, KnownClaim>) -> Self {
        let uid = claim_uids(claims.iter().map(|(name, claim)| (name.as_str(), &*claim.uid)));
        KnownClaim {
            uid: uid.into(),
            // Older data than of the youngest claim is of another.
            created: claims.values().filter_map(|claim| claim.created).max(),
            is_terminating: claims.values().any(|claim| claim.is_terminating),
            rules: agreed(group, RETENTION_ANNOTATION, claims, |claim| &claim.rules),
            every: agreed(group, EVERY_ANNOTATION, claims, |claim| &claim.every),
            is_annotated: claims.values().all(|claim| claim.is_annotated),
            volume: None,
        }
    }

    pub(super) fn identity(&self) -> ClaimIdentity<'_> {
        ClaimIdentity { uid: &self.uid, created: self.created }
    }
}

/// What the claims of a group are annotated with, if it is the same; else what is wrong.
fn agreed<T: Clone + PartialEq>(
    group: &str,
    annotation: &str,
    claims: &BTreeMap<String, KnownClaim>,
    of: impl Fn(&KnownClaim) -> &Annotated<T>,
) -> Annotated<T> {
    let mut all = claims.iter().map(|(name, claim)| (name, of(claim)));
    let (first, annotated) = all.next()?;
    if let Some(Err(problem)) =
        claims.values().find_map(|claim| of(claim).as_deref().filter(|one| one.is_err()))
    {
        return Some(Box::new(Err(problem.clone())));
    }
    match all.find(|(_, other)| *other != annotated) {
        None => annotated.clone(),
        Some((other, _)) => {
            let error = AnnotationError::of_group(annotation, group, first, other);
            Some(Box::new(Err(error)))
        }
    }
}

/// What a claim is annotated with, or what is wrong with that.
type Annotated<T> = Option<Box<Result<T, AnnotationError>>>;

/// By which rules a claim's snapshots are pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// By these.
    Rules(Rules),
    /// By none, and nothing is deleted: this is what has to be mended.
    Broken(String),
    /// By none, and nothing is deleted: nobody has said by which. This is not a pod, or a claim that was chosen for
    /// its annotations has none any more.
    NotGiven,
}

impl Policy {
    /// The policy for a claim. Outside a pod a person may run this with settings that are not those of the
    /// cluster's schedule: its snapshots go only by rules that somebody gave.
    pub(super) fn of(claim: Option<&KnownClaim>, settings: &Settings, is_in_pod: bool) -> Self {
        // Who takes snapshots more often than was meant must not let the rules count them.
        if let Some(Err(problem)) = claim.and_then(|claim| claim.every.as_deref()) {
            return Policy::Broken(problem.to_string());
        }
        if settings.only_annotated && claim.is_some_and(|claim| !claim.is_annotated) {
            return Policy::NotGiven;
        }
        let is_given = is_in_pod || settings.is_retention_given;
        match claim.and_then(|claim| claim.rules.as_deref()) {
            Some(Err(problem)) => Policy::Broken(problem.to_string()),
            Some(Ok(rules)) if is_given || settings.annotations == Annotations::Any => {
                Policy::Rules(settings.rules_with(rules))
            }
            None if is_given => Policy::Rules(settings.retention.clone()),
            // What the schedule keeps is not known, so nobody can tell what would be more.
            Some(Ok(_)) | None => Policy::NotGiven,
        }
    }
}

impl Target {
    /// What it is called in messages, with what it is.
    pub(super) fn what(&self) -> String {
        match self.group {
            None => format!("claim {}", self.called),
            Some(_) => format!("group {}", self.called),
        }
    }

    /// Its claim, or the claims of the group.
    pub(super) fn claims(&self) -> Vec<Rc<ClaimId>> {
        match &self.group {
            None => vec![Rc::clone(&self.id)],
            Some(group) => group.reports.iter().map(ReportSlot::id).collect(),
        }
    }

    /// For the fields of log lines: the claim, and the group.
    pub(super) fn fields(&self) -> (Option<&str>, Option<&str>) {
        match self.group {
            None => (Some(&self.called), None),
            Some(_) => (None, Some(&self.called)),
        }
    }

    /// What kubectl calls its snapshots.
    pub(super) fn kind(&self) -> &'static str {
        match self.group {
            None => "volumesnapshot",
            Some(_) => "volumegroupsnapshot",
        }
    }

    /// Notes that there is no new snapshot of it, and says so.
    pub(super) fn fail(&self, failure: Failure) {
        let (claim, group) = self.fields();
        tracing::error!(claim, group, "{}", failure.message);
        self.report.update(|report| report.end = End::Failed(failure));
    }

    /// Whether somebody changed which claims these are.
    pub(super) fn is_same_as(&self, now: &KnownClaim) -> bool {
        self.claim.as_ref().is_none_or(|before| before.uid == now.uid)
    }

    /// How often the claim is snapshotted; `None` if in every run. What cannot be understood puts off nothing.
    pub(super) fn every<'a>(&'a self, settings: &'a Settings) -> Option<&'a Every> {
        match self.claim.as_ref().and_then(|claim| claim.every.as_deref()) {
            Some(Ok(every)) => settings.every_with(Some(every)),
            Some(Err(_)) => None,
            None => settings.every_with(None),
        }
    }
}

/// Where the report on a target is filled in, step by step, so that a run that is stopped can say how
/// far it came.
#[derive(Clone)]
pub(super) struct ReportSlot(Rc<RefCell<ClaimReport>>);

impl ReportSlot {
    pub(super) fn new(report: ClaimReport) -> Self {
        ReportSlot(Rc::new(RefCell::new(report)))
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut ClaimReport)) {
        change(&mut self.0.borrow_mut());
    }

    /// Notes that there is no new snapshot of the claim, and says so.
    pub(super) fn fail(&self, claim: &str, failure: Failure) {
        tracing::error!(claim, "{}", failure.message);
        self.update(|report| report.end = End::Failed(failure));
    }

    pub(super) fn id(&self) -> Rc<ClaimId> {
        Rc::clone(&self.0.borrow().id)
    }

    /// Notes what there is of the snapshots of a claim, or of a group.
    pub(super) fn take_stock(&self, cache: &SnapshotCache) {
        self.update(|report| report.stock = cache.stock(&report.id, report.uid.as_deref()));
    }

    /// Whether the claim is in a group.
    pub(super) fn is_in_group(&self) -> bool {
        self.0.borrow().group.is_some()
    }

    pub(super) fn get(&self) -> ClaimReport {
        self.0.borrow().clone()
    }

    /// What there is to report in the end, without a copy where nobody else has the slot any more.
    pub(super) fn into_report(self) -> ClaimReport {
        Rc::try_unwrap(self.0).map_or_else(|shared| shared.borrow().clone(), RefCell::into_inner)
    }
}

impl GroupClaims {
    /// Lets the reports on the claims say what the one on their group does. `members` are the names of the members of
    /// its snapshot, by their claims.
    pub(super) fn share(&self, group: &ReportSlot, members: &BTreeMap<String, String>) {
        let of_group = group.get();
        let first = self.reports.first().map(|first| first.get().claim);
        for slot in &self.reports {
            slot.update(|report| {
                let is_first = first.as_ref() == Some(&report.claim);
                let group = GroupReport {
                    group: self.called.clone(),
                    member: members.get(&report.id.name).cloned(),
                    same_as: first.clone().filter(|_| !is_first),
                };
                *report = ClaimReport {
                    claim: std::mem::take(&mut report.claim),
                    id: Rc::clone(&report.id),
                    uid: report.uid.clone(),
                    group: Some(Box::new(group)),
                    ..of_group.clone()
                };
            });
        }
    }
}

/// The snapshot that this run makes of a claim.
pub(super) struct New {
    pub(super) name: String,
    pub(super) uid: String,
    /// The uids of those that were there before it, as far as the time alone does not tell: the
    /// API server dates in whole seconds.
    pub(super) seen_before: Vec<String>,
    /// When its time to become ready began.
    pub(super) began: Instant,
    /// When it was seen to be ready.
    pub(super) ready: Instant,
    /// Whether an earlier attempt of this Job made it.
    pub(super) is_taken_over: bool,
}

/// The run's new snapshot went away while it was waited for, or while others were deleted in its favour.
pub(super) fn gone(target: &Target, snapshot: &str) -> Failure {
    Failure {
        message: format!(
            "somebody deleted snapshot {snapshot} of {} during the run; older snapshots stay",
            target.what()
        ),
        is_transient: true,
        reason: Reason::Disturbed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let pairs = [("SNAPSHOT_PVC_NAMES", "data")].iter().chain(pairs);
        Settings::parse(pairs.map(|(name, value)| ((*name).into(), (*value).into()))).expect("settings")
    }

    fn claim(annotations: serde_json::Value) -> KnownClaim {
        let claim = json!({"metadata": {"name": "data", "uid": "1", "annotations": annotations}});
        KnownClaim::of(serde_json::from_value(claim).expect("a claim"), "volume-snapshotter")
    }

    #[test]
    fn outside_a_pod_only_rules_that_somebody_gave_let_anything_go() {
        let given = settings(&[("SNAPSHOT_RETENTION", "last=3")]);
        let default = settings(&[]);
        let rules = |text: &str| Policy::Rules(text.parse().expect("rules"));
        let plain = claim(json!({}));
        let annotated = claim(json!({"volume-snapshotter/retention": "daily=7"}));
        for (claim, settings, in_pod, policy) in [
            (Some(&plain), &default, true, rules("last=1")),
            (Some(&plain), &default, false, Policy::NotGiven),
            (Some(&plain), &given, false, rules("last=3")),
            (Some(&annotated), &default, false, rules("daily=7")),
            (Some(&annotated), &given, true, rules("daily=7")),
            (None, &default, false, Policy::NotGiven),
            (None, &given, true, rules("last=3")),
        ] {
            assert_eq!(Policy::of(claim, settings, in_pod), policy);
        }
        let more = |pairs: &[(&str, &str)]| settings(&[&[("SNAPSHOT_ANNOTATIONS", "more")], pairs].concat());
        for (claim, settings, in_pod, policy) in [
            (Some(&annotated), &more(&[("SNAPSHOT_RETENTION", "last=3")]), false, rules("last=3,daily=7")),
            (Some(&annotated), &more(&[]), true, rules("last=1,daily=7")),
            (Some(&annotated), &more(&[]), false, Policy::NotGiven),
            (Some(&plain), &more(&[]), true, rules("last=1")),
        ] {
            assert_eq!(Policy::of(claim, settings, in_pod), policy);
        }
        let chosen = Settings::parse([("SNAPSHOT_PVC_ANNOTATED".into(), "true".into())]).expect("settings");
        assert_eq!(Policy::of(Some(&annotated), &chosen, true), rules("daily=7"));
        assert_eq!(Policy::of(Some(&plain), &chosen, true), Policy::NotGiven, "it lost its annotation");
        let broken = claim(json!({"volume-snapshotter/retention": "dayly=7"}));
        assert!(matches!(Policy::of(Some(&broken), &given, true), Policy::Broken(_)));
        let broken = claim(json!({"volume-snapshotter/every": "daily"}));
        assert!(matches!(Policy::of(Some(&broken), &given, true), Policy::Broken(_)));
    }
}
