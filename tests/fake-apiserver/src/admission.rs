//! Prepares objects for the store: metadata that the server owns, defaults, admission.
//!
//! `validation` decides whether an object is valid.

use crate::event;
use crate::failure::Failure;
use crate::jobs;
use crate::object;
use crate::registry::Resource;
use crate::store::Writer;
use serde_json::{Value, json};

/// Fields of the metadata that only the server writes.
const OWNED: [&str; 7] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// Sets the fields of a new object that clients cannot set.
pub(crate) fn prepare_new(resource: &Resource, object: &mut Value) {
    let metadata = object::metadata(object);
    for field in OWNED {
        metadata.remove(field);
    }
    metadata.remove("managedFields");
    metadata.retain(|_, value| !value.is_null());
    if resource.status {
        object.as_object_mut().map(|fields| fields.remove("status"));
    }
    if object::name(object).is_empty() {
        let prefix = object::text(object, "/metadata/generateName").to_owned();
        if !prefix.is_empty() {
            object::metadata(object).insert("name".into(), (prefix + &object::name_suffix()).into());
        }
    }
    stamp(resource, object);
    if resource.plural == "jobs" {
        jobs::complete(object);
    }
    set_defaults(resource, object);
}

/// Sets the metadata that every stored object has.
pub(crate) fn stamp(resource: &Resource, object: &mut Value) {
    let metadata = object::metadata(object);
    metadata.entry("uid").or_insert_with(|| object::new_uid().into());
    metadata.entry("creationTimestamp").or_insert_with(|| object::now().into());
    if resource.has_generation() {
        metadata.entry("generation").or_insert_with(|| 1.into());
    }
    if !resource.namespaced {
        metadata.remove("namespace");
    }
}

/// Sets defaults.
pub(crate) fn set_defaults(resource: &Resource, object: &mut Value) {
    match resource.plural {
        "namespaces" => {
            let name = object::name(object).to_owned();
            object::section(&mut object["metadata"], "labels")
                .entry("kubernetes.io/metadata.name")
                .or_insert_with(|| name.into());
            object::section(object, "spec").entry("finalizers").or_insert_with(|| json!(["kubernetes"]));
            object::section(object, "status").entry("phase").or_insert_with(|| "Active".into());
        }
        "persistentvolumeclaims" => {
            let spec = object::section(object, "spec");
            spec.entry("volumeMode").or_insert_with(|| "Filesystem".into());
            // Each of the two fields is filled from the other.
            if let Some(source) = spec.get("dataSource").cloned() {
                spec.entry("dataSourceRef").or_insert(source);
            } else if let Some(source) = spec.get("dataSourceRef").cloned() {
                spec.insert("dataSource".into(), source);
            }
            object::section(object, "status").entry("phase").or_insert_with(|| "Pending".into());
        }
        "persistentvolumes" => {
            let spec = object::section(object, "spec");
            spec.entry("volumeMode").or_insert_with(|| "Filesystem".into());
            spec.entry("persistentVolumeReclaimPolicy").or_insert_with(|| "Retain".into());
            object::section(object, "status").entry("phase").or_insert_with(|| "Available".into());
        }
        "pods" => drop(object::section(object, "status").entry("phase").or_insert_with(|| "Pending".into())),
        "jobs" | "cronjobs" => drop(object::section(object, "status")),
        "storageclasses" => {
            let fields = object.as_object_mut();
            if let Some(fields) = fields {
                fields.entry("reclaimPolicy").or_insert_with(|| "Delete".into());
                fields.entry("volumeBindingMode").or_insert_with(|| "Immediate".into());
            }
        }
        "events" => *object = event::complete(object.take()),
        _ => {}
    }
}

/// Applies admission to a new object: rejects it, or changes it.
pub(crate) fn admit(
    writer: &Writer<'_>,
    resource: &'static Resource,
    object: &mut Value,
) -> Result<(), Failure> {
    if resource.namespaced {
        let namespace = object::namespace(object).to_owned();
        let namespaces = crate::registry::stored("namespaces").unwrap_or(resource);
        let found = writer
            .get("namespaces", &(String::new(), namespace.clone()))
            .ok_or_else(|| Failure::not_found(namespaces, &namespace))?;
        if object::is_deleting(&found.value) {
            return Err(Failure::namespace_terminating(resource, object::name(object), &namespace));
        }
    }
    if resource.plural == "persistentvolumeclaims" && object.pointer("/spec/storageClassName").is_none() {
        let is_default = |class: &Value| {
            object::annotation(class, "storageclass.kubernetes.io/is-default-class") == Some("true")
        };
        if let Some(class) = writer.list("storageclasses").find(|class| is_default(&class.value)) {
            let name = object::name(&class.value).to_owned();
            object::section(object, "spec").insert("storageClassName".into(), name.into());
        }
    }
    Ok(())
}

/// Restores the metadata of a changed object that clients cannot change.
pub(crate) fn prepare_changed(resource: &Resource, subresource: &str, object: &mut Value, old: &Value) {
    if subresource == "status" {
        let status = object.get("status").cloned();
        *object = old.clone();
        if let (Some(fields), Some(status)) = (object.as_object_mut(), status) {
            fields.insert("status".into(), status);
        }
        return;
    }
    let metadata = object::metadata(object);
    metadata.remove("managedFields");
    for field in OWNED.into_iter().chain(["name", "namespace"]) {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.retain(|_, value| !value.is_null());
    // Removing the last entry removes the field.
    for field in ["labels", "annotations", "finalizers"] {
        let is_empty = match metadata.get(field) {
            Some(Value::Object(entries)) => entries.is_empty(),
            Some(Value::Array(entries)) => entries.is_empty(),
            _ => false,
        };
        if is_empty {
            metadata.remove(field);
        }
    }
    if let (Value::Object(fields), Value::Object(old)) = (&mut *object, old) {
        // An object without a status does not clear it.
        if resource.status || (fields.get("status").is_none() && old.contains_key("status")) {
            match old.get("status") {
                Some(status) => fields.insert("status".into(), status.clone()),
                None => fields.remove("status"),
            };
        }
        for field in ["apiVersion", "kind"] {
            if let Some(value) = old.get(field) {
                fields.insert(field.to_owned(), value.clone());
            }
        }
        let unversioned =
            |key: &String| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind");
        let changed = fields
            .keys()
            .chain(old.keys())
            .filter(|key| unversioned(key))
            .any(|key| fields.get(key) != old.get(key));
        if resource.has_generation() && changed {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object::metadata(object).insert("generation".into(), generation.into());
        }
    }
}
