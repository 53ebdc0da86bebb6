//! What a new snapshot or group snapshot is to be, and what admission may have made of it.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use crate::{
    api::{
        GROUP_SNAPSHOT_API, GROUP_SNAPSHOT_KIND, GroupSelector, Metadata, NewMetadata,
        NewVolumeGroupSnapshot, NewVolumeSnapshot, SNAPSHOT_API, VolumeGroupSnapshot,
        VolumeGroupSnapshotSource, VolumeGroupSnapshotSpec, VolumeSnapshot, VolumeSnapshotSource,
        VolumeSnapshotSpec,
    },
    names,
    shard::Shard,
    snapshot::ClaimId,
    text,
};

/// What a new snapshot is to be.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    /// Its name, which is its label `name` too.
    pub name: String,
    /// What to take it of.
    pub source: Source,
    /// The class; `None` for the cluster's default.
    pub class: Option<String>,
    /// The schedule that it belongs to.
    pub schedule: String,
    /// The run that makes it.
    pub run: String,
    /// The uid of the Job that makes it, by which its next attempt finds it.
    pub run_uid: Option<String>,
    /// The uid of the claim, as it was just read. Of a group those of its claims, see [`crate::group::claim_uids`].
    pub claim_uid: Option<String>,
    /// What the claim's volume is, for whoever makes a volume from the snapshot without reading the claim. `None` of a
    /// group.
    pub claim_volume: Option<String>,
    /// The part of all claims that its claim is in.
    pub shard: Shard,
    /// Whether it is held.
    pub hold: bool,
    /// Further labels, for people.
    pub labels: BTreeMap<String, String>,
}

/// What a new snapshot is to be taken of, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Claim(ClaimId),
    /// The claims with this value of a label, at one instant.
    Group {
        namespace: String,
        label: String,
        value: String,
    },
}

impl Source {
    pub fn namespace(&self) -> &str {
        match self {
            Source::Claim(claim) => &claim.namespace,
            Source::Group { namespace, .. } => namespace,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Claim(claim) => write!(f, "claim {}", claim.name),
            Source::Group { value, .. } => write!(f, "group {value}"),
        }
    }
}

/// A snapshot or group snapshot as it was stored: what of it is compared with what was asked for.
pub trait Stored {
    fn metadata(&self) -> &Metadata;
    /// What it is taken of, in words that are the same for the same source.
    fn source(&self) -> Option<String>;
    fn class(&self) -> Option<&str>;
    /// The identity of the claims, from its annotation.
    fn claim_uid(&self) -> Option<&str>;
}

impl Stored for VolumeSnapshot {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn source(&self) -> Option<String> {
        self.spec.source.persistent_volume_claim_name.clone()
    }

    fn class(&self) -> Option<&str> {
        self.spec.volume_snapshot_class_name.as_deref()
    }

    fn claim_uid(&self) -> Option<&str> {
        self.metadata.annotations.claim_uid.as_deref()
    }
}

impl Stored for VolumeGroupSnapshot {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn source(&self) -> Option<String> {
        let selector = self.spec.source.selector.as_ref()?;
        let labels = selector.match_labels.iter().map(|(key, value)| selected(key, value));
        Some(labels.collect::<Vec<_>>().join(","))
    }

    fn class(&self) -> Option<&str> {
        self.spec.volume_group_snapshot_class_name.as_deref()
    }

    fn claim_uid(&self) -> Option<&str> {
        self.metadata.annotations.claim_uids.as_deref()
    }
}

fn selected(label: &str, value: &str) -> String {
    format!("{label}={value}")
}

impl NewSnapshot {
    /// The labels that this program goes by.
    fn own_labels(&self) -> BTreeMap<&'static str, String> {
        let mut labels = BTreeMap::from([
            (names::SCHEDULE_LABEL, self.schedule.clone()),
            (names::NAME_LABEL, self.name.clone()),
            (names::RUN_LABEL, self.run.clone()),
            (names::MANAGED_BY_LABEL, names::PROGRAM.to_owned()),
        ]);
        if !self.shard.is_whole() {
            labels.insert(names::SHARD_LABEL, self.shard.label_value());
        }
        if let Some(uid) = &self.run_uid {
            labels.insert(names::RUN_UID_LABEL, uid.clone());
        }
        if self.hold {
            labels.insert(names::HOLD_LABEL, "true".to_owned());
        }
        if let Source::Group { value, .. } = &self.source {
            labels.insert(names::GROUP_LABEL, value.clone());
        }
        labels
    }

    /// The annotation with the uids of what it is taken of.
    fn annotation(&self) -> &'static str {
        match self.source {
            Source::Claim(_) => names::CLAIM_UID_ANNOTATION,
            Source::Group { .. } => names::CLAIM_UIDS_ANNOTATION,
        }
    }

    fn metadata(&self) -> NewMetadata {
        let further = self.labels.iter().map(|(key, value)| (Cow::Owned(key.clone()), value.clone()));
        let own = self.own_labels().into_iter().map(|(key, value)| (Cow::Borrowed(key), value));
        let claim_uid = self.claim_uid.iter().map(|uid| (self.annotation(), uid.clone()));
        let volume = self.claim_volume.iter().map(|volume| (names::CLAIM_VOLUME_ANNOTATION, volume.clone()));
        NewMetadata {
            name: self.name.clone(),
            // Own ones last: none of the others may stand in their place.
            labels: further.chain(own).collect(),
            annotations: claim_uid.chain(volume).collect(),
        }
    }

    /// The snapshot of one claim.
    pub(super) fn object(&self) -> NewVolumeSnapshot {
        let claim = match &self.source {
            Source::Claim(claim) => Some(claim.name.clone()),
            Source::Group { .. } => None,
        };
        NewVolumeSnapshot {
            api_version: SNAPSHOT_API,
            kind: "VolumeSnapshot",
            metadata: self.metadata(),
            spec: VolumeSnapshotSpec {
                source: VolumeSnapshotSource { persistent_volume_claim_name: claim },
                volume_snapshot_class_name: self.class.clone(),
            },
        }
    }

    /// The snapshot of a group.
    pub(super) fn group_object(&self) -> NewVolumeGroupSnapshot {
        let selector = match &self.source {
            Source::Claim(_) => None,
            Source::Group { label, value, .. } => {
                Some(GroupSelector { match_labels: BTreeMap::from([(label.clone(), value.clone())]) })
            }
        };
        NewVolumeGroupSnapshot {
            api_version: GROUP_SNAPSHOT_API,
            kind: GROUP_SNAPSHOT_KIND,
            metadata: self.metadata(),
            spec: VolumeGroupSnapshotSpec {
                source: VolumeGroupSnapshotSource { selector },
                volume_group_snapshot_class_name: self.class.clone(),
            },
        }
    }

    /// What it is taken of, as [`Stored::source`] says it.
    fn asked_source(&self) -> String {
        match &self.source {
            Source::Claim(claim) => claim.name.clone(),
            Source::Group { label, value, .. } => selected(label, value),
        }
    }

    /// Whether `found` was made by this run for this source, whatever admission changed of it. The name is
    /// random, and nobody else's by any chance worth counting.
    pub(super) fn is(&self, found: &impl Stored) -> bool {
        let label = |key| found.metadata().labels.get(key).map(String::as_str);
        label(names::RUN_LABEL) == Some(&self.run)
            && label(names::RUN_UID_LABEL) == self.run_uid.as_deref()
            && found.source() == Some(self.asked_source())
    }

    /// What admission made another than was asked for, each in words; empty if nothing that matters.
    /// Labels and annotations that were added matter to others only, but for one that holds it; so do the further
    /// labels, see [`NewSnapshot::lost_labels`].
    pub fn changes(&self, stored: &impl Stored) -> Vec<String> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, asked: Option<&str>, stored: Option<&str>| {
            let say = |value: Option<&str>| value.map_or("missing".to_owned(), |value| format!("{value:?}"));
            if asked != stored {
                changes.push(text::foreign(&format!("{what} is {} instead of {}", say(stored), say(asked))));
            }
        };
        let metadata = stored.metadata();
        let stored_label = |key: &str| metadata.labels.get(key).map(String::as_str);
        for (key, value) in &self.own_labels() {
            compare(&format!("label {key}"), Some(value), stored_label(key));
        }
        if !self.hold {
            compare(&format!("label {}", names::HOLD_LABEL), None, stored_label(names::HOLD_LABEL));
        }
        let what = match self.source {
            Source::Claim(_) => "the claim",
            Source::Group { .. } => "the selector",
        };
        compare(what, Some(&self.asked_source()), stored.source().as_deref());
        // Left out, it is the cluster's default that is stored.
        if let Some(class) = &self.class {
            compare("the class", Some(class), stored.class());
        }
        // Of a claim, its age tells whose it is without the uid; with another one it is of a claim that never was. Of a
        // group nothing else tells which claims it should have.
        let claim_uid = stored.claim_uid();
        if claim_uid.is_some() || matches!(self.source, Source::Group { .. }) {
            let key = format!("annotation {}", self.annotation());
            compare(&key, self.claim_uid.as_deref(), claim_uid);
        }
        // What another object owns is not the schedule's to prune.
        let owner = metadata.owner_references.first();
        compare("its owner", None, owner.map(|owner| format!("{} {}", owner.kind, owner.name)).as_deref());
        changes
    }

    /// The further labels that the snapshot has not, or with another value.
    pub fn lost_labels(&self, stored: &impl Stored) -> Vec<&str> {
        let is_lost = |(key, value): &(&String, &String)| stored.metadata().labels.get(*key) != Some(*value);
        self.labels.iter().filter(is_lost).map(|(key, _)| key.as_str()).collect()
    }
}
