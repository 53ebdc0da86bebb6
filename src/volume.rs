//! What a volume that is made from a snapshot is: its size, StorageClass, access modes and volume mode, for
//! [`crate::restore`] and [`crate::verify`]. Pure: they read the claim and say what is assumed.

use serde::{Deserialize, Serialize};

use crate::{
    api::{Claim, Quantity},
    quantity::Bytes,
    report::{Failure, Reason},
    settings::VolumeMode,
    snapshot::Record,
};

/// The claim that a snapshot was taken of.
pub enum Source {
    There(Box<Claim>),
    /// It was deleted, or the snapshot does not name it.
    Gone,
    /// It cannot be read, for this reason.
    Unread(String),
}

/// What a snapshot says of its claim's volume, noted when it was requested: the claim may be gone later, or who makes a
/// volume from the snapshot may not read claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NotedVolume {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// The larger of what the claim asked for and what it got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
}

impl NotedVolume {
    /// What is noted of a claim.
    pub fn of(claim: &Claim) -> Self {
        NotedVolume {
            access_modes: claim.spec.access_modes.clone(),
            size: sizes(claim).max().map(|size| size.to_string()),
            storage_class_name: class_of(claim),
            volume_mode: claim.spec.volume_mode.clone(),
        }
    }

    /// The annotation.
    pub fn written(&self) -> String {
        // It has no map with keys that are no strings, which is all that can fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the annotation. Anybody may have written anything there, so what is none counts as not there.
    pub fn read(annotation: &str) -> Option<Self> {
        serde_json::from_str(annotation).ok()
    }
}

/// What the user wants a volume to be, whatever the claim is.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    pub size: Option<Bytes>,
    pub storage_class: Option<String>,
    pub access_modes: Option<Vec<String>>,
    pub volume_mode: Option<VolumeMode>,
}

/// A volume to make from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    pub size: Bytes,
    /// `None` for the cluster's default StorageClass.
    pub storage_class: Option<String>,
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
    /// What nobody said, and what is assumed instead.
    pub assumed: Vec<&'static str>,
}

/// Plans the volume: as the user wishes, else as the claim is, else as it was when the snapshot was requested.
/// `advice` completes the message of a failure.
///
/// # Errors
/// If the size that is wished is smaller than the snapshot's, or if no size is known.
pub fn plan(wishes: &Wishes, record: &Record, source: &Source, advice: &str) -> Result<VolumePlan, Failure> {
    let claim = match source {
        Source::There(claim) => Some(claim.as_ref()),
        Source::Gone | Source::Unread(_) => None,
    };
    let size = size(wishes, record, claim, advice)?;
    let spec = claim.map(|claim| &claim.spec);
    // Where the claim is there, it says what its volume is now; an older note would only contradict it.
    let noted = record.volume.as_ref().filter(|_| claim.is_none());
    let mut assumed = Vec::new();
    let storage_class = wishes.storage_class.clone().or_else(|| {
        let of_note = || noted?.storage_class_name.clone().filter(|class| !class.is_empty());
        let of_claim = claim.and_then(class_of).or_else(of_note);
        if of_claim.is_none() {
            assumed.push("the cluster's default StorageClass (--storage-class)");
        }
        of_claim
    });
    let access_modes = wishes.access_modes.clone().unwrap_or_else(|| {
        let of_claim = spec.map(|spec| spec.access_modes.clone()).filter(|modes| !modes.is_empty());
        let of_note = || noted.map(|noted| noted.access_modes.clone()).filter(|modes| !modes.is_empty());
        of_claim.or_else(of_note).unwrap_or_else(|| {
            assumed.push("ReadWriteOnce (--access-modes)");
            vec!["ReadWriteOnce".to_owned()]
        })
    });
    let volume_mode = wishes.volume_mode.map(|mode| mode.to_string()).unwrap_or_else(|| {
        let of_claim = spec.and_then(|spec| spec.volume_mode.clone());
        of_claim.or_else(|| noted?.volume_mode.clone()).unwrap_or_else(|| {
            assumed.push("Filesystem (--volume-mode)");
            "Filesystem".to_owned()
        })
    });
    Ok(VolumePlan { size, storage_class, access_modes, volume_mode, assumed })
}

/// The class of a claim. An empty one means that the volume was created by hand: no provisioner would create another.
fn class_of(claim: &Claim) -> Option<String> {
    claim.spec.storage_class_name.clone().filter(|class| !class.is_empty())
}

/// What a claim asked for, and what it got.
fn sizes(claim: &Claim) -> impl Iterator<Item = Bytes> {
    let sizes = [claim.spec.resources.requests.storage.as_ref(), claim.status.capacity.storage.as_ref()];
    let parse = |size: &Quantity| size.0.parse::<Bytes>().ok();
    sizes.into_iter().flatten().filter_map(parse)
}

/// Returns the size of the volume: the user's, else the larger of claim and snapshot, because the claim may have been
/// expanded since.
fn size(wishes: &Wishes, record: &Record, claim: Option<&Claim>, advice: &str) -> Result<Bytes, Failure> {
    let name = &record.snapshot.name;
    let permanent = |message: String| Failure { message, is_transient: false, reason: Reason::Other };
    let least: Option<Bytes> = record.restore_size.as_deref().and_then(|size| size.parse().ok());
    if let Some(wanted) = &wishes.size {
        return match least {
            Some(least) if *wanted < least => Err(permanent(format!(
                "a volume of {wanted} is smaller than snapshot {name}, which needs {least}; ask for {least} or more, \
                 or leave the size out"
            ))),
            _ => Ok(wanted.clone()),
        };
    }
    let noted = record.volume.as_ref().filter(|_| claim.is_none());
    let noted = noted.and_then(|noted| noted.size.as_deref()?.parse::<Bytes>().ok());
    // `max` returns the last of equals: the claim's own spelling.
    least.into_iter().chain(noted).chain(claim.into_iter().flat_map(sizes)).max().ok_or_else(|| {
        permanent(format!(
            "the size of the volume is not known: snapshot {name} has no status.restoreSize, and the claim that it was \
             taken of is not available{advice}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::VolumeSnapshot;

    fn record(size: Value, noted: Option<&str>) -> Record {
        let mut object = json!({
            "metadata": {"name": "snap", "namespace": "app", "creationTimestamp": "2026-11-20T08:00:00Z"},
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
            "status": {"readyToUse": true, "restoreSize": size},
        });
        if let Some(noted) = noted {
            object["metadata"]["annotations"] = json!({ "volume-snapshotter/claim-volume": noted });
        }
        Record::from(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot"))
    }

    fn claim() -> Claim {
        let claim = json!({
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": "fast", "volumeMode": "Block",
                "resources": {"requests": {"storage": "1Gi"}},
            },
            "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}},
        });
        serde_json::from_value(claim).expect("a claim")
    }

    #[test]
    fn what_was_noted_stands_in_for_a_claim_that_is_gone_or_may_not_be_read() {
        let noted = serde_json::to_string(&NotedVolume::of(&claim())).expect("JSON");
        assert_eq!(
            noted,
            r#"{"accessModes":["ReadWriteMany"],"size":"2Gi","storageClassName":"fast","volumeMode":"Block"}"#
        );
        for source in [Source::Gone, Source::Unread("no right".to_owned())] {
            let plan =
                plan(&Wishes::default(), &record(json!("1Gi"), Some(&noted)), &source, "").expect("a plan");
            assert_eq!(
                (plan.size.to_string().as_str(), plan.storage_class.as_deref(), plan.volume_mode.as_str()),
                ("2Gi", Some("fast"), "Block")
            );
            assert_eq!((plan.access_modes.join(","), plan.assumed.len()), ("ReadWriteMany".to_owned(), 0));
        }
    }

    #[test]
    fn a_claim_that_is_there_wins_over_what_was_noted_of_it() {
        let noted = r#"{"accessModes":["ReadWriteOnce"],"size":"9Gi","storageClassName":"slow","volumeMode":"Filesystem"}"#;
        let source = Source::There(Box::new(claim()));
        let plan = plan(&Wishes::default(), &record(json!("1Gi"), Some(noted)), &source, "").expect("a plan");
        assert_eq!(
            (plan.size.to_string().as_str(), plan.storage_class.as_deref(), plan.volume_mode.as_str()),
            ("2Gi", Some("fast"), "Block")
        );
    }

    #[test]
    fn a_note_that_makes_no_sense_is_no_note() {
        for noted in ["", "odd", "[]", r#"{"size": 7}"#, r#"{"accessModes": null}"#] {
            let plan = plan(&Wishes::default(), &record(json!("1Gi"), Some(noted)), &Source::Gone, "");
            assert_eq!(plan.expect("a plan").assumed.len(), 3, "{noted}");
        }
        let unknown = plan(&Wishes::default(), &record(Value::Null, None), &Source::Gone, "; say it")
            .expect_err("none");
        assert!(unknown.message.ends_with("is not available; say it"), "{}", unknown.message);
    }
}
