//! Names and labels: what a snapshot is called and how it is recognised again.
//!
//! Here live the label keys, the rules that Kubernetes has for names and label values, and the
//! making of a snapshot's name. What the labels mean for a snapshot that exists is read in
//! [`crate::snapshot`].

/// Label that names the schedule a snapshot belongs to: the set that this schedule prunes.
///
/// The key and its default value are those of the bash script that this program replaces.
pub const SCHEDULE_LABEL: &str = "job";

/// Label that repeats the snapshot's own name, as the bash script sets it.
pub const NAME_LABEL: &str = "name";

/// Label that names the run (the Job) that made an object. For people only: names of Jobs are used again.
pub const RUN_LABEL: &str = "volume-snapshotter/run";

/// Label with the uid of the Job that made an object, by which the Job's next pod finds it and goes on
/// with it instead of making another.
pub const RUN_UID_LABEL: &str = "volume-snapshotter/run-uid";

/// Annotation of a snapshot: the uid of the claim that it was asked of. The snapshot itself has only the
/// claim's name.
pub const CLAIM_UID_ANNOTATION: &str = "volume-snapshotter/claim-uid";

/// Annotation of a claim: the retention rules for it. With a dot and a schedule's name appended, the
/// rules for it in that schedule, which win.
pub const RETENTION_ANNOTATION: &str = "volume-snapshotter/retention";

/// Annotation of a claim: the durations of k8s-snapshots.
pub const DELTAS_ANNOTATION: &str = "backup.kubernetes.io/deltas";

/// Label that takes a snapshot out of every schedule's hands, whatever its value, but for `false`.
pub const HOLD_LABEL: &str = "volume-snapshotter/hold";

/// Label that names the shard whose pod made a snapshot, where claims are shared among pods, so that
/// each is told of its own only.
pub const SHARD_LABEL: &str = "volume-snapshotter/shard";

/// Label of a restored claim that names the claim whose data it has.
pub const RESTORED_CLAIM_LABEL: &str = "volume-snapshotter/restored-claim";

/// Label of a restored claim that names the snapshot that it was made from.
pub const RESTORED_SNAPSHOT_LABEL: &str = "volume-snapshotter/restored-snapshot";

/// Annotation of a restored claim: the moment that its data is of. A colon fits no label.
pub const RESTORED_TIME_ANNOTATION: &str = "volume-snapshotter/restored-time";

/// The common label for the tool that manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY_LABEL`], and what this program calls itself towards the API server.
pub const PROGRAM: &str = "volume-snapshotter";

/// The most characters that a label value has, and thus a snapshot's name, which is one too.
pub const MAX_LABEL_VALUE: usize = 63;

/// What [`snapshot_name`] adds to the prefix: a dash and eight hexadecimal digits.
pub const NAME_SUFFIX: usize = 9;

/// The name of a new snapshot: the prefix, a dash, and `random` as eight hexadecimal digits.
pub fn snapshot_name(prefix: &str, random: u32) -> String {
    format!("{prefix}-{random:08x}")
}

/// What a run is called that no Kubernetes Job gave its name.
pub fn run_id(random: u32) -> String {
    format!("run-{random:08x}")
}

/// What a restore is called that no Kubernetes Job gave its name.
pub fn restore_id(random: u32) -> String {
    format!("restore-{random:08x}")
}

/// Whether `name` can be an object's name (an RFC 1123 subdomain of at most 253 characters).
pub fn is_object_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|part| {
            part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && part.bytes().next().is_some_and(|first| first != b'-')
                && part.bytes().last().is_some_and(|last| last != b'-')
        })
}

/// Whether `name` can be a namespace's name (an RFC 1123 label of at most 63 characters).
pub fn is_namespace_name(name: &str) -> bool {
    name.len() <= 63 && !name.contains('.') && is_object_name(name)
}

/// Whether `value` can be a label's value and is not empty.
pub fn is_label_value(value: &str) -> bool {
    let alphanumeric = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    value.len() <= MAX_LABEL_VALUE
        && alphanumeric(value.bytes().next())
        && alphanumeric(value.bytes().last())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
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
    fn label_values_begin_and_end_with_a_letter_or_digit() {
        for good in ["a", "My_Value.1", "volume-snapshotter-29384750", &"x".repeat(63)] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "not a label!", "ä", &"x".repeat(64)] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }
}
