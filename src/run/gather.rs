//! Which of the chosen claims are groups: those with the same value of the label that `SNAPSHOT_GROUP_LABEL` names, in
//! one namespace.
//!
//! The snapshot controller takes every claim that has the label, whether or not this run chose it. So all of them are
//! listed, and a group that would take anything else than what was chosen, or cannot be taken, fails before anything
//! is made.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use futures::{StreamExt, stream};

use super::{
    discover::{Choice, Found, NAMESPACES_AT_A_TIME},
    target::KnownClaim,
};
use crate::{
    api::Claim,
    cluster::{Cluster, Error, Scope},
    report::{Failure, Reason},
    retention::VolumeAnnotations,
    settings::Settings,
    snapshot::ClaimId,
    text,
};

/// A claim that has the label of a group.
struct Labelled {
    value: String,
    name: String,
    phase: String,
    /// The provisioner that was asked to make its volume; `None` if none was, or that is not known.
    driver: Option<String>,
    known: KnownClaim,
}

impl Labelled {
    fn of(claim: Claim, label: &str, schedule: &str) -> Option<Self> {
        Some(Labelled {
            value: claim.metadata.labels.get(label)?.to_owned(),
            name: claim.metadata.name.clone(),
            phase: claim.status.phase.clone(),
            driver: claim.metadata.annotations.storage_provisioner.clone(),
            known: KnownClaim::of(claim, schedule),
        })
    }
}

/// Looks for the groups of the chosen claims. Those of a group that can be taken are as they were just read; those of
/// one that cannot have all failed. Without the right to read claims, nothing tells which are in a group.
pub(super) async fn groups(
    cluster: &Cluster,
    settings: &Settings,
    label: &str,
    volumes: &VolumeAnnotations,
    mut found: Vec<Choice>,
) -> Vec<Choice> {
    for choice in &mut found {
        if matches!(choice.found, Found::Usable(None)) {
            choice.found = Found::Failed(Failure {
                message: format!(
                    "claim {} may not be read, so nobody knows which group it is in (SNAPSHOT_GROUP_LABEL={label}): let \
                     the Role allow it: apiGroups: [\"\"], resources: [\"persistentvolumeclaims\"], verbs: [\"get\", \
                     \"list\"]",
                    choice.id.name
                ),
                is_transient: false,
                reason: Reason::Forbidden,
            });
        }
    }
    let namespaces: BTreeSet<String> =
        found.iter().filter_map(|choice| Some(choice.group.as_ref()?.namespace.clone())).collect();
    let lists: HashMap<String, Result<Vec<Labelled>, Error>> = stream::iter(namespaces)
        .map(async |namespace| {
            let keep = |mut claim: Claim| {
                volumes.lend(&mut claim, &settings.schedule);
                Labelled::of(claim, label, &settings.schedule)
            };
            let listed = cluster.claims(&Scope::Namespace(namespace.clone()), label, keep).await;
            (namespace, listed)
        })
        .buffered(NAMESPACES_AT_A_TIME)
        .collect()
        .await;
    let mut chosen: HashMap<Rc<ClaimId>, BTreeMap<String, Option<Rc<str>>>> = HashMap::new();
    for choice in &found {
        if let Some(group) = &choice.group {
            let claims = chosen.entry(Rc::clone(group)).or_default();
            claims.insert(choice.id.name.clone(), choice.uid.clone());
        }
    }
    let is_chosen = |namespace: &str, name: &str| {
        found.iter().any(|choice| choice.id.namespace == namespace && choice.id.name == name)
    };
    let judged: HashMap<&Rc<ClaimId>, Result<BTreeMap<String, KnownClaim>, Failure>> = chosen
        .iter()
        .map(|(group, chosen)| {
            let claims = match lists.get(&group.namespace) {
                Some(Ok(listed)) => {
                    let labelled = listed.iter().filter(|claim| claim.value == group.name);
                    let is_chosen = |name: &str| is_chosen(&group.namespace, name);
                    check(&group.name, label, chosen, &is_chosen, &labelled.collect::<Vec<_>>())
                }
                Some(Err(error)) => Err(error.clone().into()),
                None => Ok(BTreeMap::new()),
            };
            (group, claims)
        })
        .collect();
    for choice in &mut found {
        let Some(judged) = choice.group.as_ref().and_then(|group| judged.get(group)) else { continue };
        match judged {
            Ok(claims) => {
                if let Some(known) = claims.get(&choice.id.name) {
                    choice.found = Found::Usable(Some(known.clone()));
                }
            }
            Err(failure) => choice.found = Found::Failed(failure.clone()),
        }
    }
    found
}

/// Checks that a group would take exactly the chosen claims, and can. Returns them by their names. `is_chosen` tells
/// whether a claim of the namespace was chosen, whatever was known of its labels.
///
/// # Errors
/// Which claim is in the way, and why.
fn check(
    group: &str,
    label: &str,
    chosen: &BTreeMap<String, Option<Rc<str>>>,
    is_chosen: &dyn Fn(&str) -> bool,
    labelled: &[&Labelled],
) -> Result<BTreeMap<String, KnownClaim>, Failure> {
    let fail = |why: String, is_transient: bool, reason: Reason| Failure {
        message: text::foreign(&format!("group {group} is not snapshotted, and nothing was made: {why}")),
        is_transient,
        reason,
    };
    let changed = |name: &str| {
        let why = format!("claim {name} could not be read, or was changed while it was read");
        fail(why, true, Reason::Disturbed)
    };
    let mut drivers: BTreeMap<&str, &str> = BTreeMap::new();
    for claim in labelled {
        let name = claim.name.as_str();
        if !chosen.contains_key(name) && is_chosen(name) {
            return Err(changed(name));
        }
        if !chosen.contains_key(name) {
            let why = format!(
                "it would also take claim {name}, which has the label {label}={group} and is not chosen; choose it as \
                 well, or give it another label"
            );
            return Err(fail(why, false, Reason::Refused));
        }
        if claim.known.is_terminating {
            return Err(fail(format!("claim {name} is being deleted"), true, Reason::NotBound));
        }
        if claim.phase != "Bound" {
            let why = match claim.phase.as_str() {
                "Lost" => "is Lost: its volume is gone",
                "Pending" => "is Pending: it has no volume yet",
                _ => "is not Bound",
            };
            return Err(fail(
                format!("claim {name} {why}; see kubectl describe pvc {name}"),
                claim.phase != "Lost",
                Reason::NotBound,
            ));
        }
        if let Some(driver) = &claim.driver {
            drivers.entry(driver).or_insert(name);
        }
    }
    let mut drivers = drivers.into_iter();
    if let (Some((one, of_one)), Some((other, of_other))) = (drivers.next(), drivers.next()) {
        let why = format!(
            "claim {of_one} is of the driver {one} and claim {of_other} of {other}; one driver has to have all"
        );
        return Err(fail(why, false, Reason::Refused));
    }
    for (name, uid) in chosen {
        let is_same = labelled
            .iter()
            .any(|claim| claim.name == *name && uid.as_ref().is_none_or(|uid| *uid == claim.known.uid));
        if !is_same {
            return Err(changed(name));
        }
    }
    Ok(labelled.iter().map(|claim| (claim.name.clone(), claim.known.clone())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labelled(name: &str, change: &dyn Fn(&mut Value)) -> Labelled {
        let mut claim = json!({
            "metadata": {
                "name": name, "uid": name, "labels": {"app": "shop"},
                "annotations": {"volume.kubernetes.io/storage-provisioner": "csi.example"},
            },
            "status": {"phase": "Bound"},
        });
        change(&mut claim);
        Labelled::of(serde_json::from_value(claim).expect("a claim"), "app", "hourly").expect("a label")
    }

    #[test]
    fn a_group_takes_what_was_chosen_or_nothing() {
        let chosen = |names: &[&str]| -> BTreeMap<String, Option<Rc<str>>> {
            names.iter().map(|name| ((*name).to_owned(), Some(Rc::from(*name)))).collect()
        };
        let set = |pointer: &'static str, value: Value| {
            move |claim: &mut Value| *claim.pointer_mut(pointer).expect("a field") = value.clone()
        };
        type Change = Box<dyn Fn(&mut Value)>;
        let as_it_is: fn() -> Change = || Box::new(|_| {});
        let driver = "/metadata/annotations/volume.kubernetes.io~1storage-provisioner";
        type Case = (&'static [&'static str], Change, Option<(&'static str, bool)>);
        let cases: Vec<Case> = vec![
            (&["data", "logs"], as_it_is(), None),
            (
                &["data"],
                as_it_is(),
                Some(("it would also take claim logs, which has the label app=shop", false)),
            ),
            (
                &["data", "logs", "more"],
                as_it_is(),
                Some(("claim more could not be read, or was changed while it was read", true)),
            ),
            (
                &["data", "logs"],
                Box::new(set("/metadata/uid", json!("other"))),
                Some(("claim logs could not be read, or was changed", true)),
            ),
            (
                &["data", "logs"],
                Box::new(set("/status/phase", json!("Pending"))),
                Some(("logs is Pending", true)),
            ),
            (&["data", "logs"], Box::new(set("/status/phase", json!("Lost"))), Some(("logs is Lost", false))),
            (
                &["data", "logs"],
                Box::new(set(driver, json!("ebs.example"))),
                Some(("claim data is of the driver csi.example and claim logs of ebs.example", false)),
            ),
            (&["data", "logs"], Box::new(set("/metadata/annotations", json!({}))), None),
            (
                &["data", "logs"],
                Box::new(|claim| claim["metadata"]["deletionTimestamp"] = json!("2026-11-21T12:00:00Z")),
                Some(("claim logs is being deleted", true)),
            ),
        ];
        for (names, change, problem) in cases {
            let (data, logs) = (labelled("data", &|_| {}), labelled("logs", &change));
            match (check("shop", "app", &chosen(names), &|_| false, &[&data, &logs]), problem) {
                (Ok(claims), None) => assert_eq!(claims.len(), 2, "{names:?}"),
                (Err(failure), Some((words, is_transient))) => {
                    assert!(failure.message.contains(words), "{failure:?}");
                    assert_eq!(failure.is_transient, is_transient, "{failure:?}");
                }
                (found, problem) => panic!("{names:?}: {found:?} instead of {problem:?}"),
            }
        }
        // It had no label when it was chosen.
        let (data, logs) = (labelled("data", &|_| {}), labelled("logs", &|_| {}));
        let failure = check("shop", "app", &chosen(&["data"]), &|name| name == "logs", &[&data, &logs]);
        assert!(failure.is_err_and(|failure| failure.is_transient));
    }
}
