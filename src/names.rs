//! Names, labels and annotations of snapshots and restored claims.
//!
//! This module has the keys, Kubernetes' rules for names and label values, and the generation of names.
//! [`crate::snapshot`] interprets the labels of existing snapshots.

/// Label that names the schedule a snapshot belongs to. A schedule prunes only its own snapshots.
///
/// The key and its default value are those of the bash script that this program replaces, so existing
/// snapshots keep their schedule.
pub const SCHEDULE_LABEL: &str = "job";

/// Label that repeats the snapshot's own name, as the bash script sets it.
pub const NAME_LABEL: &str = "name";

/// Label that names the run (the Job) that created an object. It is informational, because Job names are
/// reused.
pub const RUN_LABEL: &str = "volume-snapshotter/run";

/// Label with the uid of the Job that created an object. The Job's next pod finds the object by it and
/// continues with it instead of creating another.
pub const RUN_UID_LABEL: &str = "volume-snapshotter/run-uid";

/// Annotation of a snapshot: the uid of the claim when the snapshot was requested. The spec has only the
/// claim's name.
pub const CLAIM_UID_ANNOTATION: &str = "volume-snapshotter/claim-uid";

/// Annotation of a snapshot: what the claim's volume was when the snapshot was requested, as JSON.
pub const CLAIM_VOLUME_ANNOTATION: &str = "volume-snapshotter/claim-volume";

/// Annotation of a group snapshot: the claims when it was requested, each as `name=uid`, comma-separated. The
/// snapshot controller looks them up by their labels, later.
pub const CLAIM_UIDS_ANNOTATION: &str = "volume-snapshotter/claim-uids";

/// Label of a group snapshot: the value that its claims have in common.
pub const GROUP_LABEL: &str = "volume-snapshotter/group";

/// Annotation of a claim: its retention rules. With `.<schedule>` appended, the key applies to that schedule
/// only, and wins.
pub const RETENTION_ANNOTATION: &str = "volume-snapshotter/retention";

/// Annotation of a claim: how often it is snapshotted. With `.<schedule>` appended, the key applies to that
/// schedule only, and wins.
pub const EVERY_ANNOTATION: &str = "volume-snapshotter/every";

/// Annotation of a claim: the durations of k8s-snapshots.
pub const DELTAS_ANNOTATION: &str = "backup.kubernetes.io/deltas";

/// Label that exempts a snapshot from pruning by every schedule. Any value except `false` counts.
pub const HOLD_LABEL: &str = "volume-snapshotter/hold";

/// Label that names the shard whose pod created a snapshot. A pod lists only the snapshots of its own shard
/// to continue with them.
pub const SHARD_LABEL: &str = "volume-snapshotter/shard";

/// Annotation of an adopted snapshot: the mark of the tool that made it, which adoption takes away.
pub const ADOPTED_FROM_ANNOTATION: &str = "volume-snapshotter/adopted-from";

/// Label by which snapscheduler knows its snapshots: the name of the SnapshotSchedule.
pub const SNAPSCHEDULER_LABEL: &str = "snapscheduler.backube/schedule";

/// Annotation by which gemini knows its snapshots: the name of the SnapshotGroup.
pub const GEMINI_ANNOTATION: &str = "gemini.fairwinds.com/group";

/// Label by which Velero knows its snapshots: the name of the Backup.
pub const VELERO_LABEL: &str = "velero.io/backup-name";

/// Label of a restored claim that names the claim whose data it has.
pub const RESTORED_CLAIM_LABEL: &str = "volume-snapshotter/restored-claim";

/// Label of a restored claim that names the snapshot that it was made from.
pub const RESTORED_SNAPSHOT_LABEL: &str = "volume-snapshotter/restored-snapshot";

/// Annotation of a restored claim: when its data was taken. Not a label, because label values cannot contain
/// colons.
pub const RESTORED_TIME_ANNOTATION: &str = "volume-snapshotter/restored-time";

/// What the annotations of pods that are hooks begin with, before the slash: ours, then Velero's.
pub const HOOK_ANNOTATIONS: [&str; 4] = [
    "pre.hook.volume-snapshotter",
    "post.hook.volume-snapshotter",
    "pre.hook.backup.velero.io",
    "post.hook.backup.velero.io",
];

/// Label of a snapshot that was seen to be taken while the hooks of every pod that mounts the claim held. It is
/// set afterwards, so one without it may be consistent too.
pub const CONSISTENT_LABEL: &str = "volume-snapshotter/consistent";

/// Annotation of a snapshot whose data was restored and read without fault: when, and what was found.
pub const VERIFIED_ANNOTATION: &str = "volume-snapshotter/verified";

/// Annotation of a snapshot that could not be verified: when, and why.
pub const VERIFY_FAILED_ANNOTATION: &str = "volume-snapshotter/verify-failed";

/// Label of a drill's Jobs, their pods and their claims; the value is that of [`RUN_UID_LABEL`], or a random one. No
/// run snapshots a claim that has it.
pub const DRILL_LABEL: &str = "volume-snapshotter/drill";

/// Annotation of a drill's Job: the claim whose snapshot it reads.
pub const DRILL_CLAIM_ANNOTATION: &str = "volume-snapshotter/drill-claim";

/// Annotation of a drill's Job: the snapshot that it reads.
pub const DRILL_SNAPSHOT_ANNOTATION: &str = "volume-snapshotter/drill-snapshot";

/// Annotation of a drill's Job: the uid of the snapshot that it reads.
pub const DRILL_SNAPSHOT_UID_ANNOTATION: &str = "volume-snapshotter/drill-snapshot-uid";

/// The recommended label for the tool that manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY_LABEL`], and the name in the User-Agent header.
pub const PROGRAM: &str = "volume-snapshotter";

/// Maximum length of a label value in bytes, and thus of a snapshot's name, which is also a label value.
pub const MAX_LABEL_VALUE: usize = 63;

/// Length of what [`snapshot_name`] adds to the prefix: a hyphen and eight hexadecimal digits.
pub const NAME_SUFFIX: usize = 9;

/// Returns the name of a new snapshot: the prefix, a hyphen, and `random` as eight hexadecimal digits.
pub fn snapshot_name(prefix: &str, random: u32) -> String {
    format!("{prefix}-{random:08x}")
}

/// Returns the id of a run outside a Kubernetes Job.
pub fn run_id(random: u32) -> String {
    format!("run-{random:08x}")
}

/// Returns the id of a restore outside a Kubernetes Job.
pub fn restore_id(random: u32) -> String {
    format!("restore-{random:08x}")
}

/// Returns the id of a drill outside a Kubernetes Job.
pub fn drill_id(random: u32) -> String {
    format!("verify-{random:08x}")
}

/// Returns the name of the Job that reads a claim's snapshot in a drill. `drill` is the value of [`DRILL_LABEL`]. The
/// name depends on nothing else, so that the drill's next attempt finds the Job and there are never two. It leaves
/// room for what Kubernetes appends to name the pod and the pod's claim.
pub fn drill_job_name(drill: &str, claim: &str) -> String {
    let bytes = drill.bytes().chain([b'/']).chain(claim.bytes());
    format!("volume-snapshotter-verify-{:016x}", crate::shard::hash_of(bytes))
}

/// Whether a text is a UUID, as the uids of objects are.
pub fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Returns a random UUID, version 4.
pub fn uuid(random: u128) -> String {
    let with_version = random & !(0xf << 76) | 4 << 76;
    let digits = format!("{:032x}", with_version & !(0b11 << 62) | 0b10 << 62);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &digits[range]);
    parts.join("-")
}

/// Whether `name` is a valid object name: an RFC 1123 subdomain of at most 253 characters.
pub fn is_object_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|part| {
            part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && part.bytes().next().is_some_and(|first| first != b'-')
                && part.bytes().last().is_some_and(|last| last != b'-')
        })
}

/// Whether `name` is a valid namespace name: an RFC 1123 label of at most 63 characters.
pub fn is_namespace_name(name: &str) -> bool {
    name.len() <= 63 && !name.contains('.') && is_object_name(name)
}

/// Whether `value` is a valid label value and not empty.
pub fn is_label_value(value: &str) -> bool {
    let alphanumeric = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    value.len() <= MAX_LABEL_VALUE
        && alphanumeric(value.bytes().next())
        && alphanumeric(value.bytes().last())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Whether `key` is a valid label key: a name of at most 63 characters, after a DNS subdomain and a slash if it has a
/// prefix.
pub fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_object_name(prefix) && is_label_value(name),
        None => is_label_value(key),
    }
}

/// Returns who uses a label, if it is not for users to set: this program, or a tool that would delete what carries
/// it.
pub fn user_of_label(key: &str) -> Option<&'static str> {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    match (prefix, key) {
        (_, SCHEDULE_LABEL | NAME_LABEL | MANAGED_BY_LABEL) | (PROGRAM, _) => Some(PROGRAM),
        ("argocd.argoproj.io", _) | (_, "app.kubernetes.io/instance") => Some("Argo CD"),
        ("kustomize.toolkit.fluxcd.io" | "helm.toolkit.fluxcd.io", _) => Some("Flux"),
        ("applyset.kubernetes.io", _) => Some("kubectl"),
        ("snapshot.storage.kubernetes.io", _) => Some("the snapshot controller"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_name_is_the_prefix_and_eight_hexadecimal_digits() {
        assert_eq!(snapshot_name("volume-snapshot", 0x0a1b_2c3d), "volume-snapshot-0a1b2c3d");
        assert_eq!(snapshot_name("x", 7), "x-00000007");
        assert_eq!(snapshot_name("", u32::MAX).len(), NAME_SUFFIX);
    }

    #[test]
    fn object_names_are_rfc_1123_subdomains() {
        for good in ["data", "a", "0", "data-0.web", "a.b.c", &"a".repeat(253)] {
            assert!(is_object_name(good), "{good}");
        }
        for bad in ["", "Data", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "a.-b", "ä", &"a".repeat(254)]
        {
            assert!(!is_object_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_namespace_has_no_dot_and_at_most_63_characters() {
        assert!(is_namespace_name(&"a".repeat(63)));
        assert!(!is_namespace_name(&"a".repeat(64)));
        assert!(!is_namespace_name("a.b"));
        assert!(!is_namespace_name(""));
    }

    #[test]
    fn label_keys_may_have_a_prefix() {
        for good in ["release", "app.kubernetes.io/part-of", "a/b", "My_Key.1", &"x".repeat(63)] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a/b/c", "A/b", "a b", "-a", "a=b", &"x".repeat(64)] {
            assert!(!is_label_key(bad), "{bad}");
        }
    }

    #[test]
    fn some_labels_are_not_for_users_to_set() {
        for (key, user) in [
            ("release", None),
            ("app.kubernetes.io/part-of", None),
            ("job", Some(PROGRAM)),
            ("name", Some(PROGRAM)),
            (HOLD_LABEL, Some(PROGRAM)),
            (MANAGED_BY_LABEL, Some(PROGRAM)),
            ("app.kubernetes.io/instance", Some("Argo CD")),
            ("argocd.argoproj.io/instance", Some("Argo CD")),
            ("kustomize.toolkit.fluxcd.io/name", Some("Flux")),
            ("applyset.kubernetes.io/part-of", Some("kubectl")),
        ] {
            assert_eq!(user_of_label(key), user, "{key}");
        }
    }

    #[test]
    fn label_values_begin_and_end_with_a_letter_or_digit() {
        for good in ["a", "My_Value.1", "volume-snapshotter-29384750", &"x".repeat(63)] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "not a label!", "ä", &"x".repeat(64)] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }

    #[test]
    fn a_uuid_is_known_by_its_form() {
        for (text, is_one) in [
            ("5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f10", true),
            ("5B2C8F3E-3F0A-4F4E-9D0B-6A1D2C7E9F10", true),
            ("5b2c8f3e3f0a4f4e9d0b6a1d2c7e9f10", false),
            ("5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f1x", false),
            ("5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f10-", false),
            ("volume-snapshotter-29384750", false),
            ("", false),
        ] {
            assert_eq!(is_uuid(text), is_one, "{text}");
        }
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert!(is_uuid(&uuid(1)));
    }
}
