//! The recheck: what the API server says of the claims, and of everything else that a deletion depends on,
//! after the new snapshots became ready.
//!
//! Claims are deleted and made anew, annotated and restored while a run waits. A run that relied on what it
//! read when it began would delete the only copy of a volume. So all claims of a namespace are listed again
//! before anything in it is deleted, once for all targets that are ready by then.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Run, discover,
    shared::Shared,
    target::{KnownClaim, Target},
    watch,
};
use crate::{
    api::Claim,
    cluster::{Error, Listed, Scope},
    retention::VolumeAnnotations,
    snapshot::ClaimId,
};

/// The age up to which a recheck decides about deletions.
const FRESH: Duration = Duration::from_secs(10);

/// How long the watch may have been silent while the cache is relied on.
const HEARD: Duration = Duration::from_secs(2);

/// How long the first recheck waits for further targets to become ready. Later ones wait twice as long each,
/// up to [`LONGEST_GATHER`]. None waits once every target is settled.
const GATHER: Duration = Duration::from_secs(30);
const LONGEST_GATHER: Duration = Duration::from_secs(60);

/// How long it waits while a target waits for room under a quota, which other targets' deletions may give it.
const HURRIED_GATHER: Duration = Duration::from_secs(1);

/// What the API server said at one moment about the claims of some namespaces.
pub(super) struct Recheck {
    began: Instant,
    ended: Instant,
    /// The claims of each namespace that was asked for, or why they are not known. What is wrong in one
    /// namespace holds up no other.
    namespaces: BTreeMap<String, Result<Claims, Error>>,
    /// Why the snapshots that the schedule owns are not known, if that is so; and its groups.
    unread_snapshots: Option<Error>,
    unread_groups: Option<Error>,
    /// By namespace, the names of the snapshots that claims are being restored from.
    in_use: HashMap<String, HashSet<String>>,
}

/// The targets among the claims of a namespace.
#[derive(Default)]
struct Claims {
    alone: HashMap<Rc<ClaimId>, KnownClaim>,
    groups: HashMap<Rc<ClaimId>, KnownClaim>,
}

impl Recheck {
    /// Whether it may decide about a deletion that is made now.
    pub(super) fn is_fresh(&self) -> bool {
        // A long list takes its time; a recheck that is never fresh would let no run end.
        self.began.elapsed() <= FRESH.max((self.ended - self.began) * 2)
    }

    /// A target's claim as it is now, or all that a group would take now; `None` if it is gone.
    ///
    /// # Errors
    /// Why the claims of its namespace are not known.
    pub(super) fn claim(&self, target: &Target) -> Result<Option<&KnownClaim>, &Error> {
        match self.namespaces.get(&target.id.namespace) {
            Some(Ok(claims)) => Ok(match target.group {
                None => claims.alone.get(&target.id),
                Some(_) => claims.groups.get(&target.id),
            }),
            Some(Err(error)) => Err(error),
            None => Ok(None),
        }
    }

    /// Why the target's snapshots are not known, if that is so.
    pub(super) fn unread_snapshots(&self, target: &Target) -> Option<&Error> {
        match target.group {
            None => self.unread_snapshots.as_ref(),
            Some(_) => self.unread_groups.as_ref(),
        }
    }

    /// The names of the snapshots of a namespace that claims are being restored from.
    pub(super) fn in_use(&self, namespace: &str) -> Option<&HashSet<String>> {
        self.in_use.get(namespace)
    }
}

/// The rechecks of a run, one after the other, each for all targets that ask meanwhile.
pub(super) struct Rechecks {
    last: Shared<Recheck>,
    /// The namespaces of those that ask.
    wanted: RefCell<BTreeSet<String>>,
    gather: Cell<Duration>,
    /// How many targets may still become ready.
    unsettled: Cell<usize>,
    /// Ends the wait for further targets.
    enough: Notify,
}

/// Whether a recheck may wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Until further targets are ready, so that one recheck serves many.
    Gather,
    /// Not at all.
    AtOnce,
}

impl Rechecks {
    /// For so many targets.
    pub(super) fn new(targets: usize) -> Self {
        Rechecks {
            last: Shared::new(),
            wanted: RefCell::default(),
            gather: Cell::new(GATHER),
            unsettled: Cell::new(targets),
            enough: Notify::new(),
        }
    }

    /// Notes that a target is ready, or never will be.
    pub(super) fn settled(&self) {
        self.unsettled.set(self.unsettled.get().saturating_sub(1));
        if self.unsettled.get() == 0 {
            self.enough.notify_waiters();
        }
    }

    /// Notes that a target waits for room under a quota: what others have to delete is not to wait for it.
    pub(super) fn hurry(&self) {
        self.gather.set(HURRIED_GATHER);
        self.enough.notify_waiters();
    }

    /// A fresh recheck of a namespace that began at `after` or later.
    pub(super) async fn after(
        &self,
        run: &Run<'_>,
        namespace: &str,
        after: Instant,
        urgency: Urgency,
    ) -> Rc<Recheck> {
        self.wanted.borrow_mut().insert(namespace.to_owned());
        let is_good = |recheck: &Recheck| {
            recheck.began >= after && recheck.is_fresh() && recheck.namespaces.contains_key(namespace)
        };
        let ask = async || {
            if urgency == Urgency::Gather {
                self.gathered().await;
            }
            // This target's namespace is included even if an earlier recheck took its wish along.
            let mut namespaces = std::mem::take(&mut *self.wanted.borrow_mut());
            namespaces.insert(namespace.to_owned());
            recheck(run, namespaces).await
        };
        self.last.get(is_good, ask).await
    }

    /// Waits until every target is ready or never will be, or one waits for room, but no longer than it pays.
    async fn gathered(&self) {
        let longest = self.gather.get();
        let enough = self.enough.notified();
        if self.unsettled.get() > 0 && timeout(longest, enough).await.is_err() {
            self.gather.set((longest * 2).min(LONGEST_GATHER));
        }
    }
}

async fn recheck(run: &Run<'_>, namespaces: BTreeSet<String>) -> Recheck {
    let began = Instant::now();
    // The watch has told all that happened until the new snapshot was ready, in the order in which it did.
    // A watch that has been silent since may be broken.
    let is_known = run.settings.dry_run || !run.has_claims || run.cache.was_heard_within(HEARD);
    let unread_snapshots = match is_known {
        true => None,
        false => watch::list_owned(run).await.err(),
    };
    let unread_groups = match &run.groups {
        Some(groups) if !run.settings.dry_run && !groups.was_heard_within(HEARD) => {
            watch::list_groups(run, groups).await.err()
        }
        _ => None,
    };
    let volumes = match run.settings.volume_annotations {
        true => run.cluster.volume_annotations().await,
        false => Ok(VolumeAnnotations::default()),
    };
    let mut recheck = Recheck {
        began,
        ended: began,
        namespaces: BTreeMap::new(),
        unread_snapshots,
        unread_groups,
        in_use: HashMap::new(),
    };
    let mut lists = stream::iter(namespaces)
        .map(async |namespace| match &volumes {
            Ok(volumes) => (list(run, &namespace, volumes).await, namespace),
            Err(error) => (Err(error.clone()), namespace),
        })
        .buffer_unordered(discover::NAMESPACES_AT_A_TIME);
    while let Some((listed, namespace)) = lists.next().await {
        let claims = listed.map(|(claims, in_use)| {
            for source in in_use {
                recheck.in_use.entry(source.namespace).or_default().insert(source.name);
            }
            claims
        });
        recheck.namespaces.insert(namespace, claims);
    }
    recheck.ended = Instant::now();
    recheck
}

/// Lists the claims of a namespace, and keeps what deletions depend on: the targets among them, and what
/// claims are being restored from.
async fn list(
    run: &Run<'_>,
    namespace: &str,
    volumes: &VolumeAnnotations,
) -> Result<(Claims, Vec<Source>), Error> {
    let scope = Scope::Namespace(namespace.to_owned());
    let (mut claims, mut in_use) = (Claims::default(), Vec::new());
    let mut grouped: HashMap<Rc<ClaimId>, BTreeMap<String, KnownClaim>> = HashMap::new();
    let group_of = |claim: &Claim| {
        let groups = run.groups.as_ref()?;
        let value = claim.metadata.labels.get(run.settings.group_label.as_deref()?)?.to_owned();
        groups.snapshots.id_of(&ClaimId { namespace: claim.metadata.namespace.clone(), name: value })
    };
    let take = |listed: Listed<Claim>| match listed {
        Listed::Begin => {
            claims.alone.clear();
            grouped.clear();
            in_use.clear();
        }
        Listed::Object(mut claim) => {
            in_use.extend(sources(&claim));
            volumes.lend(&mut claim, &run.settings.schedule);
            // Whatever its state: the snapshot controller takes all that have the label.
            if let Some(group) = group_of(&claim) {
                let name = claim.metadata.name.clone();
                let known = KnownClaim::of(claim.clone(), &run.settings.schedule);
                grouped.entry(group).or_default().insert(name, known);
            }
            if let Some(id) = run.cache.id_of(&ClaimId::of(&claim)) {
                let mut known = KnownClaim::of(claim, &run.settings.schedule);
                if let Some(uid) = run.cache.shared(&known.uid) {
                    known.uid = uid;
                }
                known.volume = None;
                claims.alone.insert(id, known);
            }
        }
    };
    run.cluster.list_claims(&scope, "", take).await?;
    let of_group = |(id, claims): (Rc<ClaimId>, BTreeMap<String, KnownClaim>)| {
        let known = KnownClaim::of_group(&id.name, &claims);
        (id, known)
    };
    claims.groups = grouped.into_iter().map(of_group).collect();
    Ok((claims, in_use))
}

/// A snapshot that a claim is made from.
struct Source {
    namespace: String,
    name: String,
}

/// The snapshots that a claim names as its data source while it is not Bound. Its volume may not have been
/// made yet, and never is once such a snapshot is being deleted.
fn sources(claim: &Claim) -> Vec<Source> {
    if claim.status.phase == "Bound" {
        return Vec::new();
    }
    let named = [&claim.spec.data_source, &claim.spec.data_source_ref];
    named
        .into_iter()
        .flatten()
        .filter(|source| source.is_snapshot())
        .map(|source| Source {
            namespace: source.namespace.clone().unwrap_or_else(|| claim.metadata.namespace.clone()),
            name: source.name.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_snapshot_is_in_use_while_a_claim_that_names_it_is_not_bound() {
        let of = |spec: serde_json::Value, phase: &str| -> Vec<String> {
            let claim = json!({"metadata": {"namespace": "app"}, "spec": spec, "status": {"phase": phase}});
            let claim: Claim = serde_json::from_value(claim).expect("a claim");
            sources(&claim)
                .into_iter()
                .map(|source| format!("{}/{}", source.namespace, source.name))
                .collect()
        };
        let snapshot = json!({"kind": "VolumeSnapshot", "name": "a"});
        let elsewhere = json!({"kind": "VolumeSnapshot", "name": "a", "namespace": "other"});
        let clone = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        assert_eq!(of(json!({"dataSource": snapshot}), "Pending"), ["app/a"]);
        assert_eq!(of(json!({"dataSourceRef": snapshot}), ""), ["app/a"]);
        assert_eq!(of(json!({"dataSourceRef": snapshot}), "Lost"), ["app/a"]);
        assert_eq!(of(json!({"dataSourceRef": elsewhere}), "Pending"), ["other/a"]);
        assert_eq!(of(json!({"dataSource": clone}), "Pending"), [""; 0]);
        assert_eq!(of(json!({"dataSource": snapshot}), "Bound"), [""; 0]);
        assert_eq!(of(json!({}), "Pending"), [""; 0]);
    }
}
