//! Restores a group: a new claim for each of its members, so that all of them are of one instant.
//!
//! Everything is checked before the first claim is made. A later attempt of the same Job goes on with what an earlier
//! one made, and with the group that it made it from.

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Planned, Restore, next,
    next::{Deletable, Done, Pair},
    plan, says, since, wait,
    wait::Ready,
};
use crate::{
    api::Claim,
    cluster::{ErrorKind, Listed, Scope},
    group::{Group, Member},
    names,
    report::{Failure, Reason, Restored},
    settings::{Choice, RestoreSettings},
    snapshot::{ClaimId, Record},
    text, yaml,
};

/// A VolumeGroupSnapshot with its members.
struct Candidate {
    group: Group,
    /// The two together.
    record: Record,
    /// By claim.
    members: Vec<Record>,
    /// Why no group of claims can be made from it.
    hindrance: Option<String>,
    /// Whether that may pass.
    is_transient: bool,
}

/// A new claim that there is already: the claim that its snapshot was taken of, and itself.
type Made = (String, Claim);

/// The restore of a group without its end.
pub(super) async fn steps(restore: &Restore<'_>, value: &str) -> Result<Restored, Failure> {
    let settings = restore.settings;
    let candidates = candidates(restore, value).await?;
    let made = made_before(restore, &candidates).await?;
    let (candidate, warnings) = match of_earlier_attempt(restore, &candidates, &made)? {
        Some(candidate) => (candidate, Vec::new()),
        None => choose(&candidates, value, settings, Timestamp::now())?,
    };
    for warning in warnings {
        says!(restore, warn, "{warning}");
    }
    let record = &candidate.record;
    let name = &record.snapshot.name;
    for member in &candidate.members {
        let claim = member.claim.as_deref().unwrap_or_default();
        // Whoever may make snapshots may write anything there.
        if !names::is_object_name(&settings.name_of(claim)) {
            return Err(permanent(format!(
                "no claim can be called {}, as {} has it for claim {} of group snapshot {name}",
                text::name(&settings.name_of(claim)),
                settings.to,
                text::name(claim)
            )));
        }
    }
    let own: Vec<RestoreSettings> =
        candidate.members.iter().map(|member| of_member(settings, member)).collect();
    let restores: Vec<Restore> = own.iter().map(|own| restore.of(own)).collect();

    // All of it is checked before anything is made.
    let mut planned = Vec::new();
    for (restore, member) in restores.iter().zip(&candidate.members) {
        let claim = member.claim.as_deref().unwrap_or_default();
        if let Some((_, claim)) = made.iter().find(|(of, _)| of == claim) {
            if let Some(why) = plan::unlike(restore.settings, claim, Some(member)) {
                return Err(restore.taken(&format!(
                    ". It carries the uid of this Job, but is not what is asked for now: {why}"
                )));
            }
            says!(
                restore,
                info,
                "going on with claim {}, which this Job's earlier attempt made",
                restore.id.name
            );
            planned.push(None);
            continue;
        }
        let (plan, warnings, _) = restore.plan(member).await?;
        for warning in warnings {
            says!(restore, warn, "{warning}");
        }
        restore.create(&plan.claim, true).await?;
        planned.push(Some(plan));
    }
    says!(
        restore,
        info,
        "{} {} from group snapshot {name} of group {value}, which is from {} ({} ago)",
        if settings.dry_run { "would make" } else { "making" },
        text::count(planned.iter().flatten().count(), "claim"),
        record.snapshot.time(),
        text::age(Timestamp::now().duration_since(record.snapshot.time())),
    );
    for ((restore, member), plan) in restores.iter().zip(&candidate.members).zip(&planned) {
        if let Some(plan) = plan {
            restore.announce(member, &plan.claim, plan.by_default.as_deref());
        }
    }
    let names = next::said(restores.iter().map(|restore| restore.id.name.as_str()));
    if settings.dry_run {
        let documents = planned.iter().flatten().map(|plan| yaml::document(&plan.claim.object()));
        let said = format!("dry run: nothing was changed; claims {names} could be made");
        return Ok(Restored { said, data: documents.collect::<Vec<_>>().join("---\n"), next: String::new() });
    }
    let claims = make(&restores, &candidate.members, planned, made).await?;
    wait_for_all(restore, candidate, &restores, &claims, &names).await
}

impl<'a> Restore<'a> {
    /// The restore of one of the claims.
    fn of(&self, settings: &'a RestoreSettings) -> Restore<'a> {
        let id = ClaimId { namespace: self.id.namespace.clone(), name: settings.to.clone() };
        Restore { cluster: self.cluster, settings, run: self.run, id, waiting: self.waiting }
    }
}

/// The settings for one member: what was asked for of the group is decided.
fn of_member(settings: &RestoreSettings, member: &Record) -> RestoreSettings {
    let claim = member.claim.as_deref().unwrap_or_default();
    RestoreSettings {
        to: settings.name_of(claim),
        claim: Some(claim.to_owned()),
        group: None,
        choice: Choice::Named(member.snapshot.name.clone()),
        schedule: None,
        labels: std::collections::BTreeMap::new(),
        ..settings.clone()
    }
}

// --- Which group -----------------------------------------------------------------------------------

/// The groups of a value, the newest first.
async fn candidates(restore: &Restore<'_>, value: &str) -> Result<Vec<Candidate>, Failure> {
    let settings = restore.settings;
    let scope = Scope::Namespace(restore.id.namespace.clone());
    let mut groups: Vec<Group> = Vec::new();
    if let Err(error) = restore.cluster.groups(&scope, "", Listed::into(&mut groups, Some)).await {
        let is_forbidden = error.kind() == ErrorKind::Forbidden;
        let failure = Failure::from(error);
        return Err(match is_forbidden {
            true => failure.advising("the component restore grants what --group needs"),
            false => failure,
        });
    }
    groups.retain(|group| group.value() == Some(value));
    // Afterwards, so that no group seems to lack a member that was made meanwhile.
    let records = match groups.is_empty() {
        true => Vec::new(),
        false => restore.cluster.records(&scope, "").await?,
    };
    let candidate = |group: Group| {
        let is_member = |record: &&Record| record.group.as_ref().is_some_and(|of| of.uid == group.uid());
        let mut members: Vec<Record> = records.iter().filter(is_member).cloned().collect();
        members.sort_by(|a, b| a.claim.cmp(&b.claim));
        for member in &mut members {
            // The group knows of which claims it was; its members do not.
            let uid = member.claim.as_ref().and_then(|claim| group.claims.get(claim));
            member.snapshot.claim_uid = uid.cloned();
        }
        let judged: Vec<Member> = members.iter().filter_map(Member::of_record).collect();
        let record = group.record(&judged);
        let hindrance = match record.snapshot.is_terminating() {
            true => record.snapshot.hindrance(),
            false => group.lacks(&judged).or_else(|| record.snapshot.hindrance()),
        };
        let snapshot = &record.snapshot;
        let is_transient =
            !snapshot.is_terminating() && !snapshot.incomplete && group.is_lost(&judged).is_none();
        Candidate { record, members, hindrance, is_transient, group }
    };
    let mut candidates: Vec<Candidate> = groups.into_iter().map(candidate).collect();
    candidates.retain(|candidate| {
        let record = &candidate.record;
        (settings.schedule.is_none() || record.schedule == settings.schedule) && settings.has_labels(record)
    });
    candidates.sort_by(|a, b| b.record.snapshot.order().cmp(&a.record.snapshot.order()));
    if candidates.is_empty() {
        return Err(permanent(format!(
            "there is no group snapshot of {} in namespace {}; see volume-snapshotter list --all",
            described(value, settings),
            restore.id.namespace
        )));
    }
    Ok(candidates)
}

/// Chooses the latest group, or the latest of a moment, or the named one, and refuses it if it is not complete:
/// that of an earlier one is another state of the application than the one that is asked for.
fn choose<'a>(
    candidates: &'a [Candidate],
    value: &str,
    settings: &RestoreSettings,
    now: Timestamp,
) -> Result<(&'a Candidate, Vec<String>), Failure> {
    let described = described(value, settings);
    let newest = candidates.iter().map(|candidate| candidate.record.snapshot.created);
    let newest = newest.filter(|made| *made < Timestamp::MAX).max();
    let now = newest.map_or(now, |newest| newest.max(now));
    let is_of_future = |candidate: &Candidate| candidate.record.snapshot.is_of_the_future(now);
    let mut warnings = Vec::new();
    let chosen = match &settings.choice {
        Choice::Named(name) => {
            candidates.iter().find(|candidate| candidate.group.name() == name).ok_or_else(|| {
                permanent(format!(
                    "there is no group snapshot {name} of {described}; see volume-snapshotter list --all"
                ))
            })?
        }
        Choice::Latest | Choice::At(_) => {
            let usable = || {
                candidates.iter().filter(|one| !one.record.snapshot.is_terminating() && !is_of_future(one))
            };
            for candidate in candidates.iter().filter(|candidate| is_of_future(candidate)) {
                warnings.push(format!(
                    "group snapshot {} is dated in the future, {}, and is skipped; to restore it anyway, name it with \
                     --snapshot",
                    candidate.group.name(),
                    candidate.record.snapshot.time()
                ));
            }
            let is_wanted = |candidate: &&Candidate| match settings.choice {
                Choice::At(at) => candidate.record.snapshot.time() <= at,
                Choice::Latest | Choice::Named(_) => true,
            };
            let found = usable().find(is_wanted);
            found.ok_or_else(|| {
                permanent(match (&settings.choice, usable().next_back()) {
                    (Choice::At(at), Some(oldest)) => format!(
                        "no group snapshot of {described} is from {at} or before; the oldest is {}, from {}",
                        oldest.group.name(),
                        oldest.record.snapshot.time()
                    ),
                    _ => format!(
                        "no group snapshot of {described} can be restored: each is being deleted or dated in the future"
                    ),
                })
            })?
        }
    };
    let Some(why) = &chosen.hindrance else { return Ok((chosen, warnings)) };
    let is_earlier = |one: &&Candidate| one.record.snapshot.order() < chosen.record.snapshot.order();
    let earlier = candidates.iter().filter(is_earlier).find(|candidate| candidate.hindrance.is_none());
    let earlier = match earlier {
        Some(earlier) => format!(
            "the latest complete one before it is {}, from {}: --snapshot {}",
            earlier.group.name(),
            earlier.record.snapshot.time(),
            earlier.group.name()
        ),
        None => "no earlier one is complete".to_owned(),
    };
    let snapshot = &chosen.record.snapshot;
    Err(Failure {
        message: format!(
            "group snapshot {} of {described}, from {}, cannot be restored: {why}; {earlier}",
            chosen.group.name(),
            snapshot.time()
        ),
        is_transient: chosen.is_transient,
        reason: Reason::Other,
    })
}

fn described(value: &str, settings: &RestoreSettings) -> String {
    let mut described = format!("group {value}");
    if let Some(schedule) = &settings.schedule {
        described.push_str(&format!(" of schedule {schedule}"));
    }
    if !settings.labels.is_empty() {
        described.push_str(&format!(" with label {}", settings.said_labels()));
    }
    described
}

fn permanent(message: String) -> Failure {
    Failure { message, is_transient: false, reason: Reason::Other }
}

// --- An earlier attempt ----------------------------------------------------------------------------

/// The new claims that an earlier attempt of the same Job made.
///
/// # Errors
/// If there is another claim by one of the names.
async fn made_before(restore: &Restore<'_>, candidates: &[Candidate]) -> Result<Vec<Made>, Failure> {
    let settings = restore.settings;
    let of_members = candidates.iter().flat_map(|one| &one.members).filter_map(|member| member.claim.clone());
    let asked = candidates.iter().flat_map(|one| one.group.claims.keys().cloned());
    let mut claims: Vec<String> = of_members.chain(asked).collect();
    claims.sort_unstable();
    claims.dedup();
    let mut made = Vec::new();
    // Those that others named are no part of a URL.
    for claim in claims.into_iter().filter(|claim| names::is_object_name(&settings.name_of(claim))) {
        let own = RestoreSettings { to: settings.name_of(&claim), ..settings.clone() };
        let one = restore.of(&own);
        match restore.cluster.claim(&one.id).await {
            Ok(found) => {
                let is_ours = settings.run_uid.is_some()
                    && found.metadata.labels.run_uid == settings.run_uid
                    && !settings.dry_run;
                match is_ours {
                    true => made.push((claim, found)),
                    false => return Err(one.taken("")),
                }
            }
            // Without the right to read it, making it tells.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Forbidden) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(made)
}

/// The group that an earlier attempt made claims from.
///
/// # Errors
/// If that is not what is asked for now, or cannot be finished any more.
fn of_earlier_attempt<'a>(
    restore: &Restore<'_>,
    candidates: &'a [Candidate],
    made: &[Made],
) -> Result<Option<&'a Candidate>, Failure> {
    let mut found: Option<&Candidate> = None;
    for (_, claim) in made {
        let snapshot = plan::snapshot_of(claim).unwrap_or_default();
        let is_of = |one: &&Candidate| one.members.iter().any(|member| member.snapshot.name == snapshot);
        let candidate = candidates.iter().find(is_of).ok_or_else(|| {
            undo(
                restore,
                made,
                &format!("it is made from snapshot {snapshot}, which is in no such group any more"),
            )
        })?;
        if found.is_some_and(|found| found.group.uid() != candidate.group.uid()) {
            return Err(undo(restore, made, "they are not made from one group snapshot"));
        }
        found = Some(candidate);
    }
    let Some(found) = found else { return Ok(None) };
    let name = found.group.name();
    let time = found.record.snapshot.time();
    match &restore.settings.choice {
        Choice::Named(wanted) if wanted != name => {
            return Err(undo(
                restore,
                made,
                &format!("it is made from group snapshot {name} and not from {wanted}"),
            ));
        }
        Choice::At(at) if time > *at => {
            return Err(undo(restore, made, &format!("group snapshot {name} is not from {at} or before")));
        }
        Choice::Named(_) | Choice::Latest | Choice::At(_) => {}
    }
    let is_made = |claim: &String| made.iter().any(|(of, _)| of == claim);
    match &found.hindrance {
        Some(why) if !found.group.claims.keys().all(is_made) => {
            Err(undo(restore, made, &format!("the rest cannot be made from group snapshot {name}: {why}")))
        }
        _ => Ok(Some(found)),
    }
}

fn undo(restore: &Restore<'_>, made: &[Made], why: &str) -> Failure {
    let names: Vec<_> = made.iter().map(|(_, claim)| text::name(&claim.metadata.name)).collect();
    permanent(format!(
        "an earlier attempt of this Job made {} {}, but {why}; delete what it made, if nobody uses it, and start a new \
         Job: kubectl delete pvc {} -n {}",
        if names.len() == 1 { "claim" } else { "claims" },
        names.join(", "),
        names.join(" "),
        restore.id.namespace
    ))
}

// --- The claims ------------------------------------------------------------------------------------

/// A new claim that was made.
struct New {
    claim: Claim,
    /// Whether its volume is made only when a pod uses it.
    waits: bool,
}

/// Makes the claims that are not there yet.
async fn make(
    restores: &[Restore<'_>],
    members: &[Record],
    planned: Vec<Option<Planned>>,
    mut made: Vec<Made>,
) -> Result<Vec<New>, Failure> {
    let mut claims: Vec<New> = Vec::new();
    let total = restores.len();
    for ((restore, member), plan) in restores.iter().zip(members).zip(planned) {
        let of = member.claim.as_deref().unwrap_or_default();
        let new = match (plan, made.iter().position(|(claim, _)| claim == of)) {
            (Some(plan), _) => {
                restore.create(&plan.claim, false).await.map(|claim| New { claim, waits: plan.waits })
            }
            (None, Some(at)) => Ok(New { claim: made.swap_remove(at).1, waits: false }),
            (None, None) => continue,
        };
        match new {
            Ok(new) => claims.push(new),
            Err(failure) if claims.is_empty() => return Err(failure),
            Err(failure) => {
                let names: Vec<_> = claims.iter().map(|new| text::name(&new.claim.metadata.name)).collect();
                return Err(Failure {
                    message: format!(
                        "{} of {total} claims of the group were made ({}), and the rest was not: {}. The next attempt of \
                         the same Job goes on with them; otherwise delete them before you try again: kubectl delete pvc \
                         {} -n {}",
                        claims.len(),
                        names.join(", "),
                        failure.message,
                        names.join(" "),
                        restore.id.namespace
                    ),
                    ..failure
                });
            }
        }
    }
    Ok(claims)
}

/// Waits until all claims are Bound, side by side.
async fn wait_for_all(
    restore: &Restore<'_>,
    candidate: &Candidate,
    restores: &[Restore<'_>],
    claims: &[New],
    names: &str,
) -> Result<Restored, Failure> {
    let began = Instant::now();
    let each = restores.iter().zip(&candidate.members).zip(claims).map(async |((restore, member), new)| {
        wait::wait(restore, &new.claim, &member.snapshot.name, new.waits).await
    });
    let mut waiting = Vec::new();
    let mut failures: Vec<Failure> = Vec::new();
    for ready in join_all(each).await {
        match ready {
            Ok(ready) => waiting.push(matches!(ready, Ready::AtFirstConsumer)),
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(first) = failures.first() {
        let messages: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
        return Err(Failure {
            message: format!(
                "{} of {} claims of the group: {}",
                failures.len(),
                claims.len(),
                messages.join("; ")
            ),
            is_transient: failures.iter().all(|failure| failure.is_transient),
            reason: first.reason,
        });
    }
    let namespace = &restore.id.namespace;
    let snapshot = candidate.group.name();
    let pairs: Vec<Pair> = restores
        .iter()
        .zip(&candidate.members)
        .zip(&waiting)
        .map(|((restore, member), waits)| Pair {
            old: member.claim.as_deref(),
            new: &restore.id.name,
            at_first_consumer: *waits,
        })
        .collect();
    let said = match waiting.contains(&true) {
        false => format!(
            "claims {names} in namespace {namespace} are Bound after {} and have the data of group snapshot {snapshot}, of \
             one instant",
            since(began)
        ),
        true => format!(
            "claims {names} in namespace {namespace} are made; a StorageClass waits for the first consumer, so volumes are \
             made from group snapshot {snapshot} when pods use them{}",
            match candidate.group.is_held() {
                true => String::new(),
                false => format!(
                    ", and nothing may delete it until then: kubectl label volumegroupsnapshot {snapshot} -n {namespace} \
                     volume-snapshotter/hold=true"
                ),
            }
        ),
    };
    let data = pairs.iter().map(|pair| format!("persistentvolumeclaim/{}\n", pair.new)).collect();
    let deletable = Deletable { kind: "volumegroupsnapshot", name: snapshot };
    let done = Done { namespace, pairs: &pairs, deletable, held: candidate.group.is_held() };
    Ok(Restored { said, data, next: next::steps(&done, restore.settings) })
}
