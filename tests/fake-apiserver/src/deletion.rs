//! What a deletion makes of an object: it goes at once, or it is terminating while finalizers, or the containers of a
//! pod, keep it.
//!
//! What belongs to an object is deleted by `garbage`, and who may delete is decided in `verbs`.

use crate::object;
use crate::pods;
use crate::registry::Resource;
use crate::store::{Key, Object, Writer};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::sync::Arc;

/// The finalizer of an object that waits until what belongs to it is gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that waits until what belongs to it belongs to it no more.
pub(crate) const ORPHAN: &str = "orphan";

/// What becomes of the objects that belong to a deleted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    pub(crate) fn read(text: &str) -> Option<Propagation> {
        match text {
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            _ => None,
        }
    }

    /// What holds for a request that says nothing. Jobs leave their pods behind, as they did when they were new.
    pub(crate) fn default_of(resource: &Resource) -> Propagation {
        if resource.plural == "jobs" { Propagation::Orphan } else { Propagation::Background }
    }
}

/// The object as a deletion leaves it; `None` if it goes at once. `grace` are the seconds that the containers of a pod
/// have to end.
pub(crate) fn marked(
    resource: &Resource,
    object: &Value,
    propagation: Propagation,
    grace: Option<u64>,
) -> Option<Value> {
    let mut value = object.clone();
    if resource.plural == "namespaces" {
        object::metadata(&mut value).insert("deletionTimestamp".into(), object::now().into());
        object::section(&mut value, "status").insert("phase".into(), "Terminating".into());
        return Some(value);
    }
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => object::add_finalizer(&mut value, FOREGROUND),
        Propagation::Orphan => object::add_finalizer(&mut value, ORPHAN),
    }
    let grace = if resource.plural == "pods" && pods::is_hosted(&value) {
        grace.unwrap_or_else(|| pods::grace(&value))
    } else {
        0
    };
    if grace == 0 && !object::has_finalizers(&value) {
        return None;
    }
    let ends = Timestamp::now().saturating_add(SignedDuration::from_secs(grace.min(86400) as i64));
    let ends = ends.map_or_else(|_| object::now(), object::time);
    let metadata = object::metadata(&mut value);
    metadata.insert("deletionTimestamp".into(), ends.into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if resource.has_generation() {
        let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
        metadata.insert("generation".into(), generation.into());
    }
    Some(value)
}

/// Whether a second deletion of a terminating pod ends it at once.
pub(crate) fn is_hastened(resource: &Resource, object: &Value, grace: Option<u64>) -> bool {
    resource.plural == "pods" && grace == Some(0) && object::is_graceful(object)
}

/// Deletes an object that is not terminating yet.
pub(crate) fn delete(
    writer: &mut Writer<'_>,
    resource: &'static Resource,
    key: &Key,
    propagation: Propagation,
) -> Option<Arc<Object>> {
    let stored = writer.get(resource.plural, key)?;
    if object::is_deleting(&stored.value) {
        return Some(stored);
    }
    match marked(resource, &stored.value, propagation, None) {
        Some(value) => Some(writer.put(resource, value)),
        None => writer.remove(resource, key),
    }
}

/// Deletes an object as `kubectl delete` does.
pub(crate) fn delete_gracefully(writer: &mut Writer<'_>, resource: &'static Resource, key: &Key) {
    delete(writer, resource, key, Propagation::Background);
}
