//! Access to the parts that every Kubernetes object has, and generation of names, uids and times.
//!
//! This module knows no resources and no store. Getters return an empty value if a field is missing or has
//! another type, because clients may send anything.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};

/// Finalizer that protects a snapshot while a claim is being created from it.
pub(crate) const SOURCE_PROTECTION: &str =
    "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// Finalizer that protects a snapshot while its content exists.
pub(crate) const BOUND_PROTECTION: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
/// Finalizer that protects a claim while it is being snapshotted.
pub(crate) const CLAIM_SOURCE_PROTECTION: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
/// Finalizer that protects a claim while it is in use.
pub(crate) const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";

/// The text at a path, or an empty one.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// The value of a label.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// The volume mode of a claim, which has a default.
pub(crate) fn volume_mode(claim: &Value) -> &str {
    match text(claim, "/spec/volumeMode") {
        "" => "Filesystem",
        mode => mode,
    }
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Whether a deleted object has time to end, though it has no finalizers. Only pods have.
pub(crate) fn is_graceful(object: &Value) -> bool {
    let seconds = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64);
    is_deleting(object) && seconds.is_some_and(|seconds| seconds > 0)
}

pub(crate) fn has_finalizers(object: &Value) -> bool {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .is_some_and(|finalizers| !finalizers.is_empty())
}

pub(crate) fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .is_some_and(|finalizers| finalizers.iter().any(|one| one == finalizer))
}

pub(crate) fn add_finalizer(object: &mut Value, finalizer: &str) {
    if has_finalizer(object, finalizer) {
        return;
    }
    match metadata(object).entry("finalizers").or_insert_with(|| json!([])) {
        Value::Array(finalizers) => finalizers.push(finalizer.into()),
        other => *other = json!([finalizer]),
    }
}

pub(crate) fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let metadata = metadata(object);
    if let Some(Value::Array(finalizers)) = metadata.get_mut("finalizers") {
        finalizers.retain(|one| one != finalizer);
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        }
    }
}

/// The value below a key, made an object if it is missing.
pub(crate) fn inner<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    section(value, key);
    &mut value[key]
}

/// The object below a key, made if it is missing or something else.
pub(crate) fn section<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    let inner = &mut value[key];
    if !inner.is_object() {
        *inner = json!({});
    }
    inner.as_object_mut().expect("was just made an object")
}

pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    section(object, "metadata")
}

pub(crate) fn annotate(object: &mut Value, key: &str, value: &str) {
    section(&mut object["metadata"], "annotations").insert(key.to_owned(), value.into());
}

/// The time as Kubernetes writes it: UTC, whole seconds.
pub(crate) fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// The time now as Kubernetes writes it.
pub(crate) fn now() -> String {
    time(Timestamp::now())
}

/// A random number. The standard library seeds its hashers randomly, which is enough for unique names and
/// saves a dependency.
pub(crate) fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(0);
    hasher.finish()
}

/// A new uid: a random UUID.
pub(crate) fn new_uid() -> String {
    let (a, b) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        0x8000 | (b >> 48) & 0x3fff,
        b & 0xffff_ffff_ffff,
    )
}

/// What the server appends to a `generateName`: five characters that spell no words.
pub(crate) fn name_suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut number = random();
    (0..5)
        .map(|_| {
            let letter = LETTERS[(number % LETTERS.len() as u64) as usize];
            number /= LETTERS.len() as u64;
            char::from(letter)
        })
        .collect()
}

/// Bytes that a quantity such as `1Gi` or `500M` means; `None` if it is not a plain one.
pub(crate) fn bytes(quantity: &str) -> Option<u64> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor: f64 = match unit {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024f64,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => return None,
    };
    Some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_look_like_random_uuids_and_differ() {
        let (a, b) = (new_uid(), new_uid());
        assert_ne!(a, b);
        assert_eq!(a.len(), 36);
        assert_eq!(&a[14..15], "4");
    }

    #[test]
    fn quantities_are_bytes() {
        for (text, expected) in [
            ("1Gi", Some(1 << 30)),
            ("1.5Ki", Some(1536)),
            ("500M", Some(500_000_000)),
            ("7", Some(7)),
            ("x", None),
            ("1Q", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn finalizers_are_added_once_and_the_empty_list_goes() {
        let mut object = json!({"metadata": {"finalizers": "nonsense"}});
        add_finalizer(&mut object, "a");
        add_finalizer(&mut object, "a");
        assert_eq!(object, json!({"metadata": {"finalizers": ["a"]}}));
        remove_finalizer(&mut object, "a");
        assert_eq!(object, json!({"metadata": {}}));
    }
}
