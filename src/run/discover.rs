//! Which claims there are to snapshot: by name, by selector or by annotation, bound to a volume.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    rc::Rc,
};

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    Progress, gather, hooks,
    target::{GroupClaims, KnownClaim, Policy, ReportSlot, Target},
};
use crate::{
    api::Claim,
    cluster::{Cluster, Error, ErrorKind, Scope},
    hooks::HookedPod,
    names::{DELTAS_ANNOTATION, EVERY_ANNOTATION, RETENTION_ANNOTATION},
    report::{ClaimReport, End, Failure, Reason},
    retention::{VolumeAnnotations, is_annotated},
    settings::{ClaimChoice, Settings},
    shard::Shard,
    snapshot::ClaimId,
    text,
};

/// Up to so many claims that were named are read one by one; more are found in lists.
const READ_ONE_BY_ONE: usize = 4;

/// How many namespaces are listed at a time.
pub(super) const NAMESPACES_AT_A_TIME: usize = 8;

/// A claim that was chosen.
pub(super) struct Choice {
    pub(super) id: ClaimId,
    /// `None` if it is not there, or may not be read.
    pub(super) uid: Option<Rc<str>>,
    /// The namespace and value of the group that it is in; see [`super::gather`].
    pub(super) group: Option<Rc<ClaimId>>,
    pub(super) found: Found,
}

impl Choice {
    fn of(claim: Claim, settings: &Settings, chosen: Chosen) -> Self {
        let (id, uid) = (ClaimId::of(&claim), Rc::from(claim.metadata.uid.as_str()));
        let value = settings.group_label.as_ref().and_then(|label| claim.metadata.labels.get(label));
        // As of settings, an empty value is none.
        let group = value.filter(|value| !value.is_empty()).map(|value| {
            Rc::new(ClaimId { namespace: claim.metadata.namespace.clone(), name: value.to_owned() })
        });
        let mut found = usable(claim, settings, chosen);
        if let Found::Usable(Some(known)) = &mut found {
            // One copy for thousands of reports.
            known.uid = Rc::clone(&uid);
        }
        Choice { id, uid: Some(uid), group, found }
    }

    fn unread(id: ClaimId, found: Found) -> Self {
        Choice { id, uid: None, group: None, found }
    }
}

/// What was found of one claim.
pub(super) enum Found {
    /// It can be snapshotted; `None` if it may not be read.
    Usable(Option<KnownClaim>),
    /// It was named, and cannot be snapshotted.
    Failed(Failure),
    /// It was matched, and there is nothing to snapshot: why, in words.
    PassedOver(String),
}

/// Finds the claims that the settings choose and that are in this pod's shard, and gives each a report.
/// Returns those that can be snapshotted, in the order in which they are begun: one of each namespace in
/// turn. One that cannot has failed, and holds up no other. With hooks, also the pods that ask for them.
///
/// # Errors
/// If the choice as a whole came to nothing.
pub(super) async fn targets(
    cluster: &Cluster,
    settings: &Settings,
    progress: &Progress,
) -> Result<(Scope, Vec<Target>, Vec<HookedPod>), Failure> {
    let scope = match settings.namespace_selector {
        Some(_) => Scope::All,
        None => Scope::Namespace(cluster.namespace().to_owned()),
    };
    let namespaces = match &settings.namespace_selector {
        Some(selector) => namespaces(cluster, selector).await?,
        None => vec![cluster.namespace().to_owned()],
    };
    let read = Instant::now();
    let volumes = match settings.volume_annotations {
        true => cluster.volume_annotations().await?,
        false => VolumeAnnotations::default(),
    };
    let found = match &settings.claims {
        ClaimChoice::Names(names) => by_name(cluster, &namespaces, names, settings, &volumes).await?,
        ClaimChoice::Selector(selector) => {
            by_selector(cluster, &namespaces, selector, settings, &volumes, progress).await?
        }
    };
    let found = match &settings.group_label {
        Some(label) => gather::groups(cluster, settings, label, &volumes, found).await,
        None => found,
    };
    let (found, pods) = match (settings.hooks, &settings.group_label) {
        (true, _) => hooks::with_pods(cluster, settings.shard, found).await,
        (false, Some(_)) => (in_shard(settings.shard, found), Vec::new()),
        (false, None) => (found, Vec::new()),
    };
    let mut targets = Vec::new();
    let mut groups: Vec<FoundGroup> = Vec::new();
    let mut group_of: HashMap<Rc<ClaimId>, usize> = HashMap::new();
    let mut passed_over = 0;
    let mut kinds_of_volumes: HashSet<Rc<str>> = HashSet::new();
    let called_of = |id: &ClaimId| match scope {
        Scope::Namespace(_) => id.name.clone(),
        Scope::All => format!("{}/{}", id.namespace, id.name),
    };
    for Choice { id, uid, group, found } in found {
        let called = called_of(&id);
        let id = Rc::new(id);
        let report = ReportSlot::new(ClaimReport::new(called.clone(), Rc::clone(&id), uid));
        progress.claims.borrow_mut().push(report.clone());
        if let Some(group) = group {
            let at = *group_of.entry(Rc::clone(&group)).or_insert(groups.len());
            if at == groups.len() {
                groups.push(FoundGroup::new(group));
            }
            if let Some(group) = groups.get_mut(at) {
                group.add(&id.name, found, report);
            }
            continue;
        }
        match found {
            Found::Usable(mut claim) => {
                // Most volumes are of one class and size, so one text serves them all.
                if let Some(volume) = claim.as_mut().and_then(|claim| claim.volume.as_mut()) {
                    match kinds_of_volumes.get(volume) {
                        Some(shared) => *volume = Rc::clone(shared),
                        None => drop(kinds_of_volumes.insert(Rc::clone(volume))),
                    }
                }
                let policy = Policy::of(claim.as_ref(), settings, cluster.is_in_pod());
                let target = Target { id, called, claim, read, report, group: None };
                say_policy(&target, &policy, settings);
                targets.push(target);
            }
            Found::Failed(failure) => report.fail(&called, failure),
            Found::PassedOver(why) => {
                tracing::debug!(claim = called, "skipped: {why}");
                passed_over += 1;
                report.update(|report| report.end = End::PassedOver(why));
            }
        }
    }
    for group in groups {
        let called = called_of(&group.id);
        targets.extend(group.target(called, read, settings, cluster.is_in_pod(), progress));
    }
    if passed_over > 0 {
        tracing::warn!(
            "{} skipped: no volume yet, or being deleted; RUST_LOG=debug names them",
            match passed_over {
                1 => "1 claim is".to_owned(),
                many => format!("{many} claims are"),
            }
        );
    }
    Ok((scope, in_turn(targets), pods))
}

/// A group whose claims are being put together.
struct FoundGroup {
    id: Rc<ClaimId>,
    claims: BTreeMap<String, KnownClaim>,
    reports: Vec<ReportSlot>,
    failure: Option<Failure>,
}

impl FoundGroup {
    fn new(id: Rc<ClaimId>) -> Self {
        FoundGroup { id, claims: BTreeMap::new(), reports: Vec::new(), failure: None }
    }

    fn add(&mut self, claim: &str, found: Found, report: ReportSlot) {
        self.reports.push(report);
        match found {
            Found::Usable(Some(known)) => drop(self.claims.insert(claim.to_owned(), known)),
            Found::Failed(failure) => self.failure = Some(failure),
            // A group of which nothing may be read, or part of which is passed over, has failed as a whole before.
            Found::Usable(None) | Found::PassedOver(_) => {}
        }
    }

    /// The target that the claims are together, unless they cannot be snapshotted. What comes of it is the report on
    /// each of them.
    fn target(
        self,
        called: String,
        read: Instant,
        settings: &Settings,
        is_in_pod: bool,
        progress: &Progress,
    ) -> Option<Target> {
        let FoundGroup { id, claims, reports, failure } = self;
        let known = KnownClaim::of_group(&called, &claims);
        let uid = failure.is_none().then(|| Rc::clone(&known.uid));
        let report = ReportSlot::new(ClaimReport::new(called.clone(), Rc::clone(&id), uid));
        let group = Rc::new(GroupClaims { called: called.clone(), reports });
        group.share(&report, &BTreeMap::new());
        progress.groups.borrow_mut().push((Rc::clone(&group), report.clone()));
        let policy = Policy::of(Some(&known), settings, is_in_pod);
        let target = Target { id, called, claim: Some(known), read, report, group: Some(group) };
        match failure {
            None => {
                say_policy(&target, &policy, settings);
                let claims: Vec<&str> = claims.keys().map(String::as_str).collect();
                tracing::info!(
                    group = target.called,
                    claims = claims.len(),
                    "takes at one instant: {}",
                    claims.join(", ")
                );
                Some(target)
            }
            Some(failure) => {
                target.fail(failure);
                None
            }
        }
    }
}

/// Those that this pod takes. A group stays in one shard.
fn in_shard(shard: Shard, found: Vec<Choice>) -> Vec<Choice> {
    let is_held = |choice: &Choice| shard.holds(choice.group.as_deref().unwrap_or(&choice.id));
    found.into_iter().filter(is_held).collect()
}

/// The part of the claims that has to be found. Which claims pods with hooks, or groups, hold together is known only
/// once all of them are.
fn share(settings: &Settings) -> Shard {
    if settings.hooks || settings.group_label.is_some() { Shard::WHOLE } else { settings.shard }
}

/// Says by which rules a claim is pruned, where it is not by those of the settings.
fn say_policy(target: &Target, policy: &Policy, settings: &Settings) {
    let (claim, group) = target.fields();
    match policy {
        Policy::Broken(problem) => tracing::error!(claim, group, "{problem}"),
        Policy::Rules(rules) if *rules != settings.retention => {
            tracing::info!(claim, group, retention = %rules, "an annotation gives the claim its own rules");
        }
        Policy::Rules(_) | Policy::NotGiven => {}
    }
}

/// One target of each namespace in turn, so that a large namespace does not starve those behind it.
fn in_turn(targets: Vec<Target>) -> Vec<Target> {
    let mut number = targets.len();
    let mut order: Vec<VecDeque<Target>> = Vec::new();
    let mut position: HashMap<String, usize> = HashMap::new();
    for target in targets {
        let at = *position.entry(target.id.namespace.clone()).or_insert(order.len());
        if at == order.len() {
            order.push(VecDeque::new());
        }
        if let Some(queue) = order.get_mut(at) {
            queue.push_back(target);
        }
    }
    let mut turned = Vec::with_capacity(number);
    while number > 0 {
        for queue in &mut order {
            if let Some(target) = queue.pop_front() {
                turned.push(target);
                number -= 1;
            }
        }
    }
    turned
}

async fn namespaces(cluster: &Cluster, selector: &str) -> Result<Vec<String>, Failure> {
    let namespaces = cluster.namespaces(selector).await?;
    if namespaces.is_empty() {
        return Err(Failure {
            message: format!(
                "no namespace matches {selector:?}; check SNAPSHOT_NAMESPACE_SELECTOR and the namespaces' labels"
            ),
            is_transient: false,
            reason: Reason::Missing,
        });
    }
    Ok(namespaces)
}

/// Lists the claims of each of the given namespaces. What is wrong in one holds up no other.
async fn list_claims<T>(
    cluster: &Cluster,
    namespaces: &[String],
    selector: &str,
    keep: impl Fn(Claim) -> Option<T>,
) -> Vec<(String, Result<Vec<T>, Error>)> {
    let keep = &keep;
    stream::iter(namespaces.to_vec())
        .map(async |namespace| {
            let listed = cluster.claims(&Scope::Namespace(namespace.clone()), selector, keep).await;
            (namespace, listed)
        })
        .buffered(NAMESPACES_AT_A_TIME)
        .collect()
        .await
}

async fn by_selector(
    cluster: &Cluster,
    namespaces: &[String],
    selector: &str,
    settings: &Settings,
    volumes: &VolumeAnnotations,
    progress: &Progress,
) -> Result<Vec<Choice>, Failure> {
    let share = share(settings);
    let lists = list_claims(cluster, namespaces, selector, |mut claim| {
        let id = ClaimId::of(&claim);
        volumes.lend(&mut claim, &settings.schedule);
        // The API server selects by labels only.
        if settings.only_annotated && !is_annotated(&claim.metadata.annotations, &settings.schedule) {
            return None;
        }
        Some(share.holds(&id).then(|| Choice::of(claim, settings, Chosen::BySelector)))
    });
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for (namespace, listed) in lists.await {
        match listed {
            Ok(listed) => found.extend(listed),
            Err(error) => unread.push((namespace, error)),
        }
    }
    if let Some(failure) = unread_namespaces(&unread, namespaces.len()) {
        if unread.len() == namespaces.len() {
            return Err(failure);
        }
        progress.trouble.set(Some(failure));
    } else if found.is_empty() {
        // Of all shards together: that one of them has none is in the nature of sharing.
        let place = match namespaces {
            [namespace] => format!("namespace {namespace}"),
            many => text::count(many.len(), "chosen namespace"),
        };
        let mut message = match settings.only_annotated {
            false => {
                format!(
                    "no claim in {place} matches {selector:?}; check SNAPSHOT_PVC_SELECTOR and the claims' labels"
                )
            }
            true => format!(
                "no claim in {place} asks for snapshots by an annotation: {RETENTION_ANNOTATION}, {EVERY_ANNOTATION} or \
                 {DELTAS_ANNOTATION}; annotate one, or unset SNAPSHOT_PVC_ANNOTATED"
            ),
        };
        if settings.only_annotated && !selector.is_empty() {
            message.push_str(&format!("; SNAPSHOT_PVC_SELECTOR has to match as well: {selector:?}"));
        }
        return Err(Failure { message, is_transient: false, reason: Reason::Missing });
    }
    Ok(found.into_iter().flatten().collect())
}

/// Says of each namespace why its claims are not known, and returns what that means for the run.
fn unread_namespaces(unread: &[(String, Error)], namespaces: usize) -> Option<Failure> {
    let (_, first) = unread.first()?;
    let failure = Failure::from(first.clone());
    if namespaces == 1 {
        return Some(failure);
    }
    for (namespace, error) in unread {
        tracing::error!(namespace, "{error}");
    }
    Some(Failure {
        message: format!(
            "no claim was snapshotted in {} of {}: {}",
            unread.len(),
            text::count(namespaces, "namespace"),
            failure.message
        ),
        is_transient: unread.iter().any(|(_, error)| Failure::from(error.clone()).is_transient),
        reason: failure.reason,
    })
}

async fn by_name(
    cluster: &Cluster,
    namespaces: &[String],
    names: &[String],
    settings: &Settings,
    volumes: &VolumeAnnotations,
) -> Result<Vec<Choice>, Failure> {
    let of = |namespace: &String| {
        let id = |name: &String| ClaimId { namespace: namespace.clone(), name: name.clone() };
        names.iter().map(id).filter(|id| share(settings).holds(id)).collect::<Vec<_>>()
    };
    let ids: Vec<ClaimId> = namespaces.iter().flat_map(of).collect();
    if ids.len() > READ_ONE_BY_ONE {
        let wanted: HashSet<&ClaimId> = ids.iter().collect();
        let lists = list_claims(cluster, namespaces, "", |mut claim| {
            let id = ClaimId::of(&claim);
            volumes.lend(&mut claim, &settings.schedule);
            wanted.contains(&id).then(|| Choice::of(claim, settings, Chosen::ByName))
        });
        let (mut listed, mut unread) = (HashMap::new(), HashMap::new());
        for (namespace, claims) in lists.await {
            match claims {
                Ok(claims) => listed.extend(claims.into_iter().map(|choice| (choice.id.clone(), choice))),
                Err(error) => drop(unread.insert(namespace, error)),
            }
        }
        // Whoever may not list may still be allowed to read them one by one.
        match unread.values().find(|error| error.kind() == ErrorKind::Forbidden) {
            Some(error) => tracing::debug!("{error}"),
            None => {
                let choice = |id: ClaimId| {
                    listed.remove(&id).unwrap_or_else(|| {
                        let failure = match unread.get(&id.namespace) {
                            Some(error) => error.clone().into(),
                            None => missing(&id),
                        };
                        Choice::unread(id, Found::Failed(failure))
                    })
                };
                return Ok(ids.into_iter().map(choice).collect());
            }
        }
    }
    let answers: Vec<_> = stream::iter(&ids)
        .map(async |id| cluster.claim(id).await)
        .buffered(NAMESPACES_AT_A_TIME)
        .collect()
        .await;
    let mut unread = None;
    let found = ids
        .into_iter()
        .zip(answers)
        .map(|(id, answer)| {
            let found = match answer {
                Ok(mut claim) => {
                    volumes.lend(&mut claim, &settings.schedule);
                    return Choice::of(claim, settings, Chosen::ByName);
                }
                // The bash script's Role says nothing of claims, and is enough to make snapshots.
                Err(error) if error.kind() == ErrorKind::Forbidden => {
                    unread = Some(error);
                    Found::Usable(None)
                }
                Err(error) if error.kind() == ErrorKind::NotFound => Found::Failed(missing(&id)),
                Err(error) => Found::Failed(error.into()),
            };
            Choice::unread(id, found)
        })
        .collect();
    if let Some(error) = unread {
        tracing::warn!("claims are not checked before they are snapshotted: {error}");
    }
    Ok(found)
}

fn missing(id: &ClaimId) -> Failure {
    Failure {
        message: format!(
            "there is no claim {} in namespace {}; check SNAPSHOT_PVC_NAMES and SNAPSHOT_NAMESPACE",
            id.name, id.namespace
        ),
        is_transient: false,
        reason: Reason::Missing,
    }
}

/// How a claim came to be chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chosen {
    ByName,
    BySelector,
}

/// Whether a claim can be snapshotted. The snapshot controller would keep a snapshot of one that
/// cannot for ever, and try again and again.
///
/// One that a selector matched and that has no volume yet, or is being deleted, is no failure: there is
/// nothing to lose, or somebody wants to lose it.
fn usable(claim: Claim, settings: &Settings, chosen: Chosen) -> Found {
    let ClaimId { namespace, name } = ClaimId::of(&claim);
    let (problem, is_transient, is_failure) = match claim.status.phase.as_str() {
        _ if claim.metadata.deletion_timestamp.is_some() => ("is being deleted", false, false),
        // A selector that matches everything matches them too, and they are gone in a moment.
        _ if claim.metadata.labels.drill.is_some() => ("is a drill's, made from a snapshot", false, false),
        "Bound" => return Found::Usable(Some(KnownClaim::of(claim, &settings.schedule))),
        "Lost" => ("is Lost: its volume is gone", false, true),
        "Pending" => ("is Pending: it has no volume yet", true, false),
        _ => ("is not Bound", true, false),
    };
    match chosen {
        Chosen::BySelector if !is_failure => Found::PassedOver(format!("it {problem}")),
        Chosen::ByName | Chosen::BySelector => Found::Failed(Failure {
            message: format!(
                "claim {name} in namespace {namespace} {problem}; see kubectl describe pvc {name} -n {namespace}"
            ),
            is_transient,
            reason: Reason::NotBound,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_begun_one_of_each_namespace_in_turn() {
        let id =
            |namespace: &str, name: &str| ClaimId { namespace: namespace.to_owned(), name: name.to_owned() };
        let target = |namespace: &str, name: &str| Target {
            id: Rc::new(id(namespace, name)),
            called: format!("{namespace}/{name}"),
            claim: None,
            read: Instant::now(),
            report: ReportSlot::new(ClaimReport::new(String::new(), Rc::new(id(namespace, name)), None)),
            group: None,
        };
        let targets = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("c", "1"), ("c", "2")];
        let turned = in_turn(targets.iter().map(|(namespace, name)| target(namespace, name)).collect());
        let order: Vec<&str> = turned.iter().map(|target| target.called.as_str()).collect();
        assert_eq!(order, ["a/1", "b/1", "c/1", "a/2", "c/2", "a/3"]);
    }
}
