//! Plans the new claim, from the settings and the claim that the snapshot was taken of. Pure.

use std::collections::BTreeMap;

use crate::{
    api::{Claim, NewClaim},
    names,
    quantity::Bytes,
    report::Failure,
    retention::ClaimIdentity,
    settings::{Choice, RestoreSettings},
    snapshot::Record,
    text,
    volume::{self, Source, VolumePlan, Wishes},
};

/// The claim to create, with warnings.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) claim: NewClaim,
    pub(super) warnings: Vec<String>,
}

/// Plans the claim that the restore `run` creates from a snapshot.
///
/// # Errors
/// If the requested size is smaller than the snapshot's, or if no size is known.
pub(super) fn plan(
    settings: &RestoreSettings,
    namespace: &str,
    run: &str,
    record: &Record,
    source: &Source,
) -> Result<Plan, Failure> {
    let snapshot = &record.snapshot;
    let mut warnings = Vec::new();
    let claim = match source {
        Source::There(claim) => Some(claim),
        Source::Gone | Source::Unread(_) => None,
    };
    let wishes = Wishes {
        size: settings.size.clone(),
        storage_class: settings.storage_class.clone(),
        access_modes: settings.access_modes.clone(),
        volume_mode: settings.volume_mode,
    };
    // Values that neither the settings nor the claim specify are assumed, with a warning.
    let VolumePlan { size, storage_class, access_modes, volume_mode, assumed } =
        volume::plan(&wishes, record, source, "; give it with --size or RESTORE_SIZE")?;
    if !assumed.is_empty() {
        let why = match (source, &record.claim) {
            (Source::There(claim), _) => format!("claim {} leaves some fields unset", claim.metadata.name),
            (Source::Gone, Some(name)) => format!("claim {name} is gone"),
            (Source::Gone, None) => format!("snapshot {} was taken of no claim", snapshot.name),
            (Source::Unread(error), _) => error.clone(),
        };
        warnings.push(format!("{why}, so assuming {}", assumed.join(", ")));
    }
    if let Some(claim) = claim.filter(|claim| identity(claim).is_previous(snapshot)) {
        warnings.push(format!(
            "snapshot {} is of a previous claim of the name {}",
            snapshot.name, claim.metadata.name
        ));
    }

    let mut labels = BTreeMap::from([
        (names::MANAGED_BY_LABEL, names::PROGRAM.to_owned()),
        (names::RUN_LABEL, run.to_owned()),
    ]);
    if let Some(uid) = &settings.run_uid {
        labels.insert(names::RUN_UID_LABEL, uid.clone());
    }
    let mut annotations = BTreeMap::from([(names::RESTORED_TIME_ANNOTATION, snapshot.time().to_string())]);
    let origins = [
        (names::RESTORED_SNAPSHOT_LABEL, Some(&snapshot.name)),
        (names::RESTORED_CLAIM_LABEL, record.claim.as_ref()),
    ];
    for (key, name) in origins {
        // Names that others wrote and that are not valid object names are not copied.
        let Some(name) = name.filter(|name| names::is_object_name(name)) else { continue };
        // A name may be four times as long as a label value.
        match names::is_label_value(name) {
            true => labels.insert(key, name.clone()),
            false => annotations.insert(key, name.clone()),
        };
    }
    let claim = NewClaim {
        name: settings.to.clone(),
        namespace: namespace.to_owned(),
        labels,
        annotations,
        access_modes,
        volume_mode,
        storage_class,
        size: size.to_string(),
        snapshot: snapshot.name.clone(),
    };
    Ok(Plan { claim, warnings })
}

/// Returns a warning if the claim was recreated and older snapshots are of the previous claim. The latest
/// snapshot of the new claim may then lack the wanted data.
pub(super) fn earlier_claims(
    settings: &RestoreSettings,
    others: &[Record],
    record: &Record,
    source: &Source,
) -> Option<String> {
    let Source::There(claim) = source else { return None };
    let since = claim.metadata.creation_timestamp?;
    let identity = identity(claim);
    let is_earlier = |other: &&Record| other.claim == record.claim && identity.is_previous(&other.snapshot);
    let earlier = others.iter().filter(is_earlier).count();
    (settings.choice == Choice::Latest && earlier > 0 && !identity.is_previous(&record.snapshot)).then(|| {
        format!(
            "{} of a previous claim of the name {}, which was recreated at {since}: to restore the data of the previous \
             claim, choose a snapshot with --snapshot or --at",
            match earlier {
                1 => "1 snapshot is".to_owned(),
                more => format!("{more} snapshots are"),
            },
            claim.metadata.name
        )
    })
}

fn identity(claim: &Claim) -> ClaimIdentity<'_> {
    ClaimIdentity { uid: &claim.metadata.uid, created: claim.metadata.creation_timestamp }
}

/// Returns the snapshot that a claim is created from, if it is in the claim's namespace.
pub(super) fn snapshot_of(claim: &Claim) -> Option<&str> {
    let is_local = |namespace: &String| namespace.is_empty() || *namespace == claim.metadata.namespace;
    let is_ours = claim
        .spec
        .data_source_ref
        .as_ref()
        .is_none_or(|source| source.is_snapshot() && source.namespace.as_ref().is_none_or(is_local));
    let source = claim.spec.data_source.as_ref().filter(|source| is_ours && source.is_snapshot())?;
    names::is_object_name(&source.name).then_some(source.name.as_str())
}

/// Returns why an existing claim with this Job's uid does not match the settings: they were changed, or
/// somebody planted the claim. `snapshot` is the claim's source, if it still exists.
pub(super) fn unlike(settings: &RestoreSettings, claim: &Claim, snapshot: Option<&Record>) -> Option<String> {
    let Some(name) = snapshot_of(claim) else {
        return Some("it is made from no snapshot".to_owned());
    };
    let (labels, annotations) = (&claim.metadata.labels, &claim.metadata.annotations);
    let made_from = labels.restored_snapshot.as_ref().or(annotations.restored_snapshot.as_ref());
    if made_from.is_none_or(|made_from| made_from != name) {
        return Some(format!("it is made from snapshot {name}, and its labels do not say so"));
    }
    match &settings.choice {
        Choice::Named(wanted) if wanted != name => {
            return Some(format!("it is made from snapshot {name} and not from {wanted}"));
        }
        Choice::At(at) => {
            let noted = annotations.restored_time.as_deref().and_then(|time| time.parse().ok());
            let time = snapshot.map(|record| record.snapshot.time()).or(noted);
            if time.is_none_or(|time| time > *at) {
                return Some(format!("it is made from snapshot {name}, which is not from {at} or before"));
            }
        }
        Choice::Named(_) | Choice::Latest => {}
    }
    if let Some(wanted) = &settings.claim {
        let noted = labels.restored_claim.as_ref().or(annotations.restored_claim.as_ref());
        let of_claim = snapshot.map_or(noted, |record| record.claim.as_ref());
        if noted != Some(wanted) || of_claim != Some(wanted) {
            let of_claim = of_claim.map_or("no claim".into(), |claim| text::name(claim));
            return Some(format!("it is made from snapshot {name} of claim {of_claim}, and not of {wanted}"));
        }
    }
    if let (Some(schedule), Some(record)) = (&settings.schedule, snapshot)
        && record.schedule.as_ref() != Some(schedule)
    {
        return Some(format!("it is made from snapshot {name}, which is not of schedule {schedule}"));
    }
    if let Some(record) = snapshot
        && !settings.has_labels(record)
    {
        let labels = settings.said_labels();
        return Some(format!("it is made from snapshot {name}, which does not have the label {labels}"));
    }
    let spec = &claim.spec;
    let size = spec.resources.requests.storage.as_ref().and_then(|size| size.0.parse::<Bytes>().ok());
    let is = |wanted: bool, what: &str| (!wanted).then(|| format!("it is of another {what}"));
    let same_modes = |modes: &Vec<String>| {
        modes.len() == spec.access_modes.len() && modes.iter().all(|mode| spec.access_modes.contains(mode))
    };
    is(settings.size.as_ref().is_none_or(|wanted| size.as_ref() == Some(wanted)), "size")
        .or_else(|| {
            let class = &settings.storage_class;
            is(class.is_none() || *class == spec.storage_class_name, "StorageClass")
        })
        .or_else(|| is(settings.access_modes.as_ref().is_none_or(same_modes), "access mode"))
        .or_else(|| {
            let mode = settings.volume_mode.map(|mode| mode.to_string());
            is(mode.is_none() || mode == spec.volume_mode, "volume mode")
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{api::VolumeSnapshot, yaml};

    fn settings(pairs: &[(&str, &str)]) -> RestoreSettings {
        let mut given =
            std::collections::HashMap::from([("RESTORE_TO", "data-restored"), ("RESTORE_CLAIM", "data")]);
        given.extend(pairs.iter().copied());
        RestoreSettings::parse(given.into_iter().map(|(name, value)| (name.into(), value.into())), Vec::new())
            .expect("settings")
    }

    fn record(name: &str, size: Value) -> Record {
        let object = json!({
            "metadata": {"name": name, "namespace": "app", "creationTimestamp": "2026-11-20T08:00:00Z"},
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
            "status": {"readyToUse": true, "restoreSize": size},
        });
        Record::from(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot"))
    }

    fn there(change: impl FnOnce(&mut Value)) -> Source {
        let mut claim = json!({
            "metadata": {"name": "data", "creationTimestamp": "2026-11-20T01:00:00Z"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "hostpath", "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": "1Gi"}},
            },
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        });
        change(&mut claim);
        Source::There(serde_json::from_value(claim).expect("a claim"))
    }

    fn planned(pairs: &[(&str, &str)], record: &Record, source: &Source) -> Result<Plan, String> {
        plan(&settings(pairs), "app", "restore-1", record, source).map_err(|failure| failure.message)
    }

    #[test]
    fn the_new_claim_is_as_the_old_one_and_says_where_it_came_from() {
        let plan = planned(&[], &record("snap", json!("1Gi")), &there(|_| {})).expect("a plan");
        assert_eq!(plan.warnings, [""; 0]);
        assert_eq!(
            yaml::document(&plan.claim.object()),
            "apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  annotations:
    volume-snapshotter/restored-time: \"2026-11-20T08:00:00Z\"
  labels:
    app.kubernetes.io/managed-by: volume-snapshotter
    volume-snapshotter/restored-claim: data
    volume-snapshotter/restored-snapshot: snap
    volume-snapshotter/run: restore-1
  name: data-restored
  namespace: app
spec:
  accessModes:
  - ReadWriteOnce
  dataSource:
    apiGroup: snapshot.storage.k8s.io
    kind: VolumeSnapshot
    name: snap
  resources:
    requests:
      storage: 1Gi
  storageClassName: hostpath
  volumeMode: Filesystem
"
        );
    }

    #[test]
    fn the_size_is_the_larger_of_claim_and_snapshot_unless_the_user_says() {
        let expanded = |claim: &mut Value| claim["spec"]["resources"]["requests"]["storage"] = json!("3Gi");
        let rounded = |claim: &mut Value| claim["status"]["capacity"]["storage"] = json!("2Gi");
        let unbound = |claim: &mut Value| claim["status"] = json!({});
        for (size, source, wanted, expected) in [
            (json!("1Gi"), there(|_| {}), "", Ok("1Gi")),
            (json!("2Gi"), there(|_| {}), "", Ok("2Gi")),
            (json!(2_147_483_648_u64), there(|_| {}), "", Ok("2147483648")),
            (json!("1Gi"), there(expanded), "", Ok("3Gi")),
            (json!("1Gi"), there(rounded), "", Ok("2Gi")),
            (json!(null), there(unbound), "", Ok("1Gi")),
            (json!("1Gi"), Source::Gone, "", Ok("1Gi")),
            (json!("1Gi"), there(|_| {}), "10Gi", Ok("10Gi")),
            (json!("1Gi"), there(expanded), "1024Mi", Ok("1024Mi")),
            (json!("0"), Source::Gone, "5Gi", Ok("5Gi")),
            (json!("1Gi"), there(|_| {}), "1023Mi", Err("is smaller than snapshot snap, which needs 1Gi")),
            (json!(null), Source::Gone, "", Err("give it with --size")),
            (json!("0"), Source::Gone, "", Err("give it with --size")),
        ] {
            let planned = planned(&[("RESTORE_SIZE", wanted)], &record("snap", size.clone()), &source);
            match (planned, expected) {
                (Ok(plan), Ok(expected)) => {
                    assert_eq!(plan.claim.size, expected, "{size}")
                }
                (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
                (planned, expected) => panic!("{size}: {planned:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn block_mode_and_access_modes_are_those_of_the_claim_unless_the_user_says() {
        let source = there(|claim| {
            claim["spec"]["volumeMode"] = json!("Block");
            claim["spec"]["accessModes"] = json!(["ReadWriteMany", "ReadOnlyMany"]);
        });
        let of = |pairs: &[(&str, &str)]| {
            let plan = planned(pairs, &record("snap", json!("1Gi")), &source).expect("a plan");
            assert!(plan.warnings.is_empty());
            let spec = plan.claim;
            (spec.volume_mode, spec.access_modes.join(","), spec.storage_class)
        };
        assert_eq!(of(&[]), ("Block".into(), "ReadWriteMany,ReadOnlyMany".into(), Some("hostpath".into())));
        let given = [
            ("RESTORE_VOLUME_MODE", "Filesystem"),
            ("RESTORE_ACCESS_MODES", "RWO"),
            ("RESTORE_STORAGE_CLASS", "fast"),
        ];
        assert_eq!(of(&given), ("Filesystem".into(), "ReadWriteOnce".into(), Some("fast".into())));
    }

    #[test]
    fn what_nobody_says_is_assumed_and_said() {
        let plan = |pairs: &[(&str, &str)], source: &Source| {
            planned(pairs, &record("snap", json!("1Gi")), source).expect("a plan")
        };
        let gone = plan(&[], &Source::Gone);
        assert_eq!(
            gone.warnings,
            [
                "claim data is gone, so assuming the cluster's default StorageClass (--storage-class), ReadWriteOnce \
              (--access-modes), Filesystem (--volume-mode)"
            ]
        );
        assert_eq!(gone.claim.storage_class, None);
        let given = [
            ("RESTORE_STORAGE_CLASS", "fast"),
            ("RESTORE_ACCESS_MODES", "RWO"),
            ("RESTORE_VOLUME_MODE", "Filesystem"),
        ];
        assert!(plan(&given, &Source::Gone).warnings.is_empty());
        let unread = plan(&given[..2], &Source::Unread("cannot read claim data".into()));
        assert_eq!(unread.warnings, ["cannot read claim data, so assuming Filesystem (--volume-mode)"]);
        // The volume was created by hand, and no provisioner would create another.
        let by_hand = plan(&[], &there(|claim| claim["spec"]["storageClassName"] = json!("")));
        assert_eq!(by_hand.claim.storage_class, None);
        assert!(by_hand.warnings[0].starts_with("claim data leaves some fields unset"));
    }

    #[test]
    fn names_too_long_for_a_label_are_annotations() {
        let long = "x".repeat(100);
        let metadata = planned(&[], &record(&long, json!("1Gi")), &there(|_| {})).expect("a plan").claim;
        assert_eq!(metadata.annotations.get("volume-snapshotter/restored-snapshot"), Some(&long));
        assert_eq!(
            metadata.labels.get("volume-snapshotter/restored-claim").map(String::as_str),
            Some("data")
        );
        // What no claim can be called is carried nowhere.
        let mut hostile = record("snap", json!("1Gi"));
        hostile.claim = Some("data\u{1b}[2K".to_owned());
        let metadata = planned(&[], &hostile, &Source::Gone).expect("a plan").claim;
        assert!(!format!("{metadata:?}").contains("restored-claim"), "{metadata:?}");
    }

    #[test]
    fn a_claim_is_gone_on_with_only_if_it_is_what_is_wished_now() {
        let uid = ("RESTORE_RUN_UID", "u-1");
        let record = |name: &str| record(name, json!("1Gi"));
        let made = |change: &dyn Fn(&mut Value)| -> Claim {
            let plan = planned(&[uid], &record("snap"), &there(|_| {})).expect("a plan");
            let mut object = plan.claim.object();
            object["spec"]["dataSourceRef"] = object["spec"]["dataSource"].clone();
            change(&mut object);
            serde_json::from_value(object).expect("a claim")
        };
        let why = |pairs: &[(&str, &str)], claim: &Claim, snapshot: Option<&Record>| {
            unlike(&settings(&[&[uid], pairs].concat()), claim, snapshot).unwrap_or_default()
        };
        let (claim, snapshot) = (made(&|_| {}), record("snap"));
        assert_eq!(claim.metadata.labels.run_uid.as_deref(), Some("u-1"));
        for pairs in [
            &[][..],
            &[("RESTORE_SNAPSHOT", "snap")],
            &[("RESTORE_AT", "2026-11-20 08:00")],
            &[("RESTORE_SIZE", "1024Mi"), ("RESTORE_STORAGE_CLASS", "hostpath")],
            &[("RESTORE_ACCESS_MODES", "RWO"), ("RESTORE_VOLUME_MODE", "Filesystem")],
        ] {
            assert_eq!(why(pairs, &claim, Some(&snapshot)), "", "{pairs:?}");
            // A run may have pruned it since.
            assert_eq!(why(pairs, &claim, None), "", "{pairs:?}");
        }
        for (pairs, said) in [
            (("RESTORE_SNAPSHOT", "other"), "from snapshot snap and not from other"),
            (("RESTORE_AT", "2026-11-20 07:59"), "not from 2026-11-20T07:59:00Z or before"),
            (("RESTORE_CLAIM", "logs"), "of claim data, and not of logs"),
            (("RESTORE_SIZE", "2Gi"), "of another size"),
            (("RESTORE_STORAGE_CLASS", "fast"), "of another StorageClass"),
            (("RESTORE_ACCESS_MODES", "RWX"), "of another access mode"),
            (("RESTORE_VOLUME_MODE", "Block"), "of another volume mode"),
        ] {
            for snapshot in [Some(&snapshot), None] {
                let why = why(&[pairs], &claim, snapshot);
                assert!(why.contains(said), "{pairs:?}: {why}");
            }
        }
        assert!(
            why(&[("RESTORE_JOB", "weekly")], &claim, Some(&snapshot)).contains("not of schedule weekly")
        );
        assert!(
            why(&[("RESTORE_LABEL", "release=1.2.3")], &claim, Some(&snapshot))
                .contains("does not have the label release=1.2.3")
        );
        let of_logs = Record { claim: Some("logs".to_owned()), ..record("snap") };
        assert!(why(&[], &claim, Some(&of_logs)).contains("of claim logs, and not of data"));
        for change in [
            &(|claim: &mut Value| claim["spec"]["dataSource"] = json!(null)) as &dyn Fn(&mut Value),
            &|claim| claim["spec"]["dataSource"]["kind"] = json!("PersistentVolumeClaim"),
            &|claim| claim["spec"]["dataSource"]["name"] = json!("../../x"),
            &|claim| claim["spec"]["dataSourceRef"]["namespace"] = json!("elsewhere"),
            &|claim| claim["spec"]["dataSourceRef"]["kind"] = json!("Other"),
            &|claim| claim["metadata"]["labels"] = json!({"volume-snapshotter/run-uid": "u-1"}),
            &|claim| claim["metadata"]["labels"]["volume-snapshotter/restored-snapshot"] = json!(null),
            &|claim| claim["metadata"]["labels"]["volume-snapshotter/restored-snapshot"] = json!("other"),
        ] {
            let planted = made(change);
            assert_ne!(why(&[], &planted, Some(&snapshot)), "", "{planted:?}");
        }
    }

    #[test]
    fn snapshots_of_an_earlier_claim_are_told_apart() {
        let anew = || there(|claim| claim["metadata"]["creationTimestamp"] = json!("2026-11-20T07:30:00Z"));
        let mut earlier = record("earlier", json!("1Gi"));
        earlier.snapshot.created = "2026-11-20T07:00:00Z".parse().expect("a time");
        let late = record("late", json!("1Gi"));
        let others = [late.clone(), earlier.clone()];
        let note = earlier_claims(&settings(&[]), &others, &late, &anew()).expect("a note");
        assert!(
            note.starts_with("1 snapshot is of a previous claim of the name data, which was recreated at"),
            "{note}"
        );
        assert_eq!(earlier_claims(&settings(&[("RESTORE_SNAPSHOT", "late")]), &others, &late, &anew()), None);
        assert_eq!(earlier_claims(&settings(&[]), &others, &late, &there(|_| {})), None);
        let plan = planned(&[], &earlier, &anew()).expect("a plan");
        assert_eq!(plan.warnings, ["snapshot earlier is of a previous claim of the name data"]);
    }
}
