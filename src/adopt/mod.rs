//! The command `adopt`: gives a schedule the snapshots that another tool made, so that one schedule owns and prunes
//! them.
//!
//! Which ones is decided here, from what was read; what the schedule would then do with them is not.

use std::collections::HashSet;

use crate::{
    cluster::{Cluster, Error, ErrorKind, Scope},
    names,
    report::Failure,
    snapshot::{Maker, Owner, Record},
    text,
};

/// Which snapshots a person means, of those of the selected claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// By name; any if empty.
    pub names: Vec<String>,
    /// By a label selector, or by the annotation that gemini has instead of a label.
    pub from: Option<String>,
}

/// Which snapshots are to become whose.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    schedule: &'a str,
    names: &'a [String],
    from: From<'a>,
}

/// What of snapshots is looked at.
#[derive(Clone, Debug)]
enum From<'a> {
    Any,
    /// The uids of those that the selector matched.
    Matched(HashSet<String>),
    /// The SnapshotGroup; any if `None`.
    Gemini(Option<&'a str>),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Adopted {
    pub number: usize,
    /// Why the others were not adopted.
    pub failures: Vec<Failure>,
}

impl<'a> Choice<'a> {
    /// Asks the API server which snapshots the selector matches.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it cannot read the selector.
    pub async fn new(cluster: &Cluster, schedule: &'a str, which: &'a Which) -> Result<Self, Error> {
        let from = match &which.from {
            None => From::Any,
            Some(from) => match gemini(from) {
                Some(group) => From::Gemini(group),
                None => {
                    let scope = Scope::Namespace(cluster.namespace().to_owned());
                    let records = cluster.records(&scope, from).await?;
                    From::Matched(records.into_iter().map(|record| record.snapshot.uid).collect())
                }
            },
        };
        Ok(Choice { schedule, names: &which.names, from })
    }

    /// Whether the person means this one.
    pub fn means(&self, record: &Record) -> bool {
        let is_from = match &self.from {
            From::Any => true,
            From::Matched(uids) => uids.contains(&record.snapshot.uid),
            From::Gemini(group) => record.maker.as_ref().is_some_and(|maker| {
                maker.key == names::GEMINI_ANNOTATION && group.is_none_or(|group| group == maker.name)
            }),
        };
        is_from && (self.names.is_empty() || self.names.contains(&record.snapshot.name))
    }

    /// Returns why a snapshot is left alone, or `None` if it can be adopted.
    pub fn refusal(&self, record: &Record) -> Option<String> {
        match record {
            Record { schedule: Some(own), .. } if own == self.schedule => {
                Some("it is this schedule's already".to_owned())
            }
            Record { schedule: Some(other), .. } => {
                Some(format!("it is schedule {}'s (label job)", text::name(other)))
            }
            Record { maker: Some(Maker { key: names::VELERO_LABEL, name }), .. } => {
                Some(format!("it is of Velero's backup {}, and Velero deletes it", text::name(name)))
            }
            Record { claim: None, .. } => Some("it was taken of no claim".to_owned()),
            Record { snapshot, .. } => match snapshot.owner {
                _ if snapshot.is_terminating() => Some("it is being deleted".to_owned()),
                Some(Owner::Group) => Some("it is a member of a VolumeGroupSnapshot".to_owned()),
                Some(Owner::Other) => Some("another object owns it".to_owned()),
                None => None,
            },
        }
    }

    /// Returns the names that no snapshot of `records` has.
    pub fn missing<'r>(&self, records: impl Iterator<Item = &'r Record>) -> Vec<&'a str> {
        let there: HashSet<&str> = records.map(|record| record.snapshot.name.as_str()).collect();
        self.names.iter().map(String::as_str).filter(|name| !there.contains(name)).collect()
    }

    /// Adopts these, one after the other, each only in the state that was read.
    pub async fn adopt<'r>(&self, cluster: &Cluster, records: impl Iterator<Item = &'r Record>) -> Adopted {
        let mut adopted = Adopted::default();
        for record in records {
            match cluster.adopt(record, self.schedule).await {
                Ok(()) => adopted.number += 1,
                // What is right for one is right for all: the next ones would be denied too.
                Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Unauthorized) => {
                    adopted.failures.push(error.into());
                    break;
                }
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                    let advice = "it changed since it was read: look again, and repeat this";
                    let failure = Failure::from(error).advising(advice);
                    adopted.failures.push(Failure { is_transient: true, ..failure });
                }
                Err(error) => adopted.failures.push(error.into()),
            }
        }
        adopted
    }
}

/// Returns the SnapshotGroup, or any, if `from` is gemini's annotation and no label selector.
fn gemini(from: &str) -> Option<Option<&str>> {
    let rest = from.trim().strip_prefix(names::GEMINI_ANNOTATION)?;
    match rest.trim_start().strip_prefix('=') {
        Some(group) => Some(Some(group.trim_start_matches('=').trim())),
        None => rest.is_empty().then_some(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::VolumeSnapshot;

    fn record(change: impl Fn(&mut Value)) -> Record {
        let mut object = json!({
            "metadata": {"name": "a", "namespace": "app", "uid": "1"},
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
        });
        change(&mut object);
        Record::from(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot"))
    }

    fn labelled(labels: Value) -> Record {
        record(|object| object["metadata"]["labels"] = labels.clone())
    }

    fn any() -> Choice<'static> {
        Choice { schedule: "hourly", names: &[], from: From::Any }
    }

    #[test]
    fn what_somebody_else_owns_is_left_alone() {
        let owned = |kind: &str| {
            record(|object| object["metadata"]["ownerReferences"] = json!([{"kind": kind, "name": "x"}]))
        };
        let snapscheduler = json!({"snapscheduler.backube/schedule": "hourly"});
        for (record, expected) in [
            (record(|_| ()), None),
            (labelled(snapscheduler.clone()), None),
            (labelled(json!({"volume-snapshotter/hold": "true"})), None),
            (record(|object| object["status"] = json!("odd")), None),
            (labelled(json!({"job": "hourly"})), Some("it is this schedule's already")),
            (labelled(json!({"job": "weekly"})), Some("it is schedule weekly's (label job)")),
            (labelled(json!({"job": ""})), Some("it is schedule \"\"'s (label job)")),
            (
                labelled(json!({"velero.io/backup-name": "b", "snapscheduler.backube/schedule": "x"})),
                Some("it is of Velero's backup b, and Velero deletes it"),
            ),
            (
                record(|object| object["spec"]["source"] = json!({"volumeSnapshotContentName": "c"})),
                Some("it was taken of no claim"),
            ),
            (
                record(|object| object["metadata"]["deletionTimestamp"] = json!("2026-11-20T11:00:00Z")),
                Some("it is being deleted"),
            ),
            (owned("VolumeGroupSnapshot"), Some("it is a member of a VolumeGroupSnapshot")),
            (owned("ReplicationSource"), Some("another object owns it")),
        ] {
            assert_eq!(any().refusal(&record).as_deref(), expected, "{record:?}");
        }
    }

    #[test]
    fn a_snapshot_has_to_match_all_that_is_given() {
        let names = ["a".to_owned(), "gone".to_owned()];
        let of_gemini = record(|object| {
            object["metadata"]["annotations"] = json!({"gemini.fairwinds.com/group": "postgres"});
        });
        let other = record(|object| object["metadata"]["name"] = json!("b"));
        let named = Choice { names: &names, ..any() };
        assert!(named.means(&of_gemini) && !named.means(&other) && any().means(&other));
        assert_eq!(named.missing([&of_gemini, &other].into_iter()), ["gone"]);
        for (from, expected) in [
            (From::Gemini(None), [true, false]),
            (From::Gemini(Some("postgres")), [true, false]),
            (From::Gemini(Some("mysql")), [false, false]),
            (From::Matched(HashSet::from(["1".to_owned()])), [true, true]),
            (From::Matched(HashSet::new()), [false, false]),
        ] {
            let choice = Choice { from, ..any() };
            let labelled = labelled(json!({"gemini.fairwinds.com/group": "postgres"}));
            assert_eq!([choice.means(&of_gemini), choice.means(&labelled)], expected, "{choice:?}");
        }
        let unmatched = Choice { from: From::Gemini(Some("mysql")), ..named };
        assert!(!unmatched.means(&of_gemini));
    }

    #[test]
    fn geminis_annotation_is_told_from_a_label_selector() {
        for (from, expected) in [
            ("gemini.fairwinds.com/group=postgres", Some(Some("postgres"))),
            (" gemini.fairwinds.com/group == postgres ", Some(Some("postgres"))),
            ("gemini.fairwinds.com/group", Some(None)),
            ("gemini.fairwinds.com/groups=a", None),
            ("snapscheduler.backube/schedule=hourly", None),
        ] {
            assert_eq!(gemini(from), expected, "{from}");
        }
    }
}
