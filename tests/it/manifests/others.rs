//! The objects of other tools that the pages on moving show, with the fields that their CRDs have: a field that none
//! has would be a rumour.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::PersistentVolumeClaimSpec,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde::{Deserialize, Serialize};

/// A struct of optional fields, of which one that is not among them is an error.
macro_rules! object {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Deserialize, Serialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            $(#[serde(default, skip_serializing_if = "Option::is_none")] $field: Option<$type>,)*
        }
    )*};
}

object! {
    SnapshotSchedule { api_version: String, kind: String, metadata: ObjectMeta, spec: SnapshotScheduleSpec }
    SnapshotScheduleSpec {
        claim_selector: LabelSelector,
        retention: SnapshotRetention,
        schedule: String,
        disabled: bool,
        snapshot_template: SnapshotTemplate,
    }
    SnapshotRetention { expires: String, max_count: i32 }
    SnapshotTemplate { labels: BTreeMap<String, String>, snapshot_class_name: String }

    SnapshotGroup { api_version: String, kind: String, metadata: ObjectMeta, spec: SnapshotGroupSpec }
    SnapshotGroupSpec {
        persistent_volume_claim: GroupClaim,
        schedule: Vec<GroupSchedule>,
        template: GroupTemplate,
    }
    GroupClaim { claim_name: String, spec: PersistentVolumeClaimSpec }
    GroupSchedule { every: String, keep: i32 }
    GroupTemplate { spec: GroupTemplateSpec }
    GroupTemplateSpec { volume_snapshot_class_name: String }

    Schedule { api_version: String, kind: String, metadata: ObjectMeta, spec: ScheduleSpec }
    ScheduleSpec {
        paused: bool,
        schedule: String,
        skip_immediately: bool,
        template: BackupSpec,
        use_owner_references_in_backup: bool,
    }
    BackupSpec {
        csi_snapshot_timeout: String,
        excluded_namespaces: Vec<String>,
        excluded_resources: Vec<String>,
        included_namespaces: Vec<String>,
        label_selector: LabelSelector,
        snapshot_move_data: bool,
        snapshot_volumes: bool,
        ttl: String,
    }

    SnapshotRule { api_version: String, kind: String, metadata: ObjectMeta, spec: SnapshotRuleSpec }
    SnapshotRuleSpec {
        deltas: String,
        persistent_volume_claim: String,
        backend: String,
        disk: BTreeMap<String, String>,
    }
}
