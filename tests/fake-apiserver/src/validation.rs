//! Validation: names, labels, and the schemas and rules of VolumeSnapshot and VolumeGroupSnapshot.
//!
//! Only what the server checks in objects that the tests send is here. Nothing is changed, but for
//! [`prune`], which drops the fields that the schema does not know as the server does.

use crate::failure::Cause;
use crate::object;
use crate::registry::Resource;
use crate::workload;
use serde_json::{Map, Value};

const NAME_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(crate) const LABEL_NAME_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
    and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const KEY_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// How many bytes all annotations of an object may have together.
const ANNOTATIONS: usize = 256 * 1024;

/// Everything wrong with an object that is to be stored; `old` is what it replaces.
pub(crate) fn check(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata(resource, object);
    match resource.plural {
        "volumesnapshots" => SNAPSHOT.check(object, old, &mut causes),
        "volumegroupsnapshots" => GROUP_SNAPSHOT.check(object, old, &mut causes),
        "volumegroupsnapshotclasses" => group_class(object, old, &mut causes),
        "persistentvolumeclaims" => claim(object, old, &mut causes),
        "jobs" => workload::job(object, old, &mut causes),
        "pods" if old.is_none() => workload::pod(&object["spec"], "spec", &mut causes),
        "events" if resource.is_new_event() && old.is_none() => event(object, &mut causes),
        _ => {}
    }
    causes
}

fn metadata(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::name(object);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if let Err(why) = object_name(resource, name) {
        causes.push(Cause::invalid("metadata.name", Some(name), &why));
    }
    match object.pointer("/metadata/labels") {
        None | Some(Value::Null) => {}
        Some(Value::Object(labels)) => {
            for (key, value) in labels {
                if let Err(why) = label_key(key) {
                    causes.push(Cause::invalid("metadata.labels", Some(key), &why));
                }
                match value {
                    Value::String(value) => {
                        if let Err(why) = label_value(value) {
                            causes.push(Cause::invalid("metadata.labels", Some(value), &why));
                        }
                    }
                    other => {
                        causes.push(Cause::wrong_type(&format!("metadata.labels.{key}"), other, "string"))
                    }
                }
            }
        }
        Some(other) => causes.push(Cause::wrong_type("metadata.labels", other, "object")),
    }
    if let Some(annotations) = object.pointer("/metadata/annotations").and_then(Value::as_object) {
        for key in annotations.keys() {
            if let Err(why) = label_key(&key.to_lowercase()) {
                causes.push(Cause::invalid("metadata.annotations", Some(key), &why));
            }
        }
        let text = |value: &Value| value.as_str().map_or(0, str::len);
        let bytes: usize = annotations.iter().map(|(key, value)| key.len() + text(value)).sum();
        if bytes > ANNOTATIONS {
            causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS));
        }
    }
    causes
}

/// Whether an object of that resource may have this name.
fn object_name(resource: &Resource, name: &str) -> Result<(), String> {
    // The names of RBAC's objects are path segments, nothing more.
    if resource.group == "rbac.authorization.k8s.io" {
        return if name.contains(['/', '%']) || matches!(name, "." | "..") {
            Err("may not contain '/' or '%'".to_owned())
        } else {
            Ok(())
        };
    }
    if resource.plural == "namespaces" {
        return if name.len() > 63 {
            Err(at_most(63))
        } else if is_dns_label(name) {
            Ok(())
        } else {
            Err(LABEL_NAME_RULE.to_owned())
        };
    }
    if name.len() > 253 {
        Err(at_most(253))
    } else if is_subdomain(name) {
        Ok(())
    } else {
        Err(NAME_RULE.to_owned())
    }
}

fn at_most(bytes: usize) -> String {
    format!("must be no more than {bytes} bytes")
}

pub(crate) fn is_dns_label(text: &str) -> bool {
    is_enclosed(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| c == '-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns_label)
}

fn is_word(text: &str) -> bool {
    is_enclosed(text, |c| c.is_ascii_alphanumeric(), |c| matches!(c, '-' | '_' | '.'))
}

/// Whether a text begins and ends with an `edge` and has only edges and `inner` characters.
fn is_enclosed(text: &str, edge: fn(char) -> bool, inner: fn(char) -> bool) -> bool {
    text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || inner(c))
}

/// Whether a label may have this key.
pub(crate) fn label_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some(("", _)) => return Err("prefix part must be non-empty".to_owned()),
        Some((prefix, name)) => {
            if prefix.len() > 253 {
                return Err(format!("prefix part {}", at_most(253)));
            }
            if !is_subdomain(prefix) {
                return Err(format!("prefix part {NAME_RULE}"));
            }
            name
        }
        None => key,
    };
    if name.is_empty() {
        Err("name part must be non-empty".to_owned())
    } else if name.len() > 63 {
        Err(format!("name part {}", at_most(63)))
    } else if is_word(name) {
        Ok(())
    } else {
        Err(KEY_RULE.to_owned())
    }
}

/// Whether a label may have this value.
pub(crate) fn label_value(value: &str) -> Result<(), String> {
    if value.len() > 63 {
        Err(at_most(63))
    } else if value.is_empty() || is_word(value) {
        Ok(())
    } else {
        Err(VALUE_RULE.to_owned())
    }
}

/// What has a source, of one of two kinds, and a class.
struct Shape {
    class: &'static str,
    /// The fields of the two sources, with their types.
    sources: [(&'static str, &'static str); 2],
    /// The rule about them.
    either: &'static str,
}

const SNAPSHOT: Shape = Shape {
    class: "volumeSnapshotClassName",
    sources: [("persistentVolumeClaimName", "string"), ("volumeSnapshotContentName", "string")],
    either: "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set",
};

const GROUP_SNAPSHOT: Shape = Shape {
    class: "volumeGroupSnapshotClassName",
    sources: [("selector", "object"), ("volumeGroupSnapshotContentName", "string")],
    either: "exactly one of selector and volumeGroupSnapshotContentName must be set",
};

impl Shape {
    fn check(&self, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
        let spec = match object.get("spec") {
            None | Some(Value::Null) => return causes.push(Cause::required("spec", "")),
            Some(Value::Object(spec)) => spec,
            Some(other) => return causes.push(Cause::wrong_type("spec", other, "object")),
        };
        let class = format!("spec.{}", self.class);
        match spec.get(self.class) {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if name.is_empty() => {
                let why = format!("{} must not be the empty string when set", self.class);
                causes.push(Cause::invalid(&class, Some(""), &why));
            }
            Some(Value::String(_)) => {}
            Some(other) => causes.push(Cause::wrong_type(&class, other, "string")),
        }
        let source = match spec.get("source") {
            None | Some(Value::Null) => return causes.push(Cause::required("spec.source", "")),
            Some(Value::Object(source)) => source,
            Some(other) => return causes.push(Cause::wrong_type("spec.source", other, "object")),
        };
        let has =
            |source: &Map<String, Value>, field| source.get(field).is_some_and(|value| !value.is_null());
        for (field, expected) in self.sources {
            let Some(found) = source.get(field).filter(|found| !found.is_null()) else { continue };
            if !(if expected == "string" { found.is_string() } else { found.is_object() }) {
                causes.push(Cause::wrong_type(&format!("spec.source.{field}"), found, expected));
            }
        }
        labels_to_match(source, causes);
        if let Some(old) = old.and_then(|old| old.pointer("/spec/source")).and_then(Value::as_object) {
            for (field, _) in self.sources {
                if has(old, field) && !has(source, field) {
                    let why = format!("{field} is required once set");
                    causes.push(Cause::invalid("spec.source", None, &why));
                } else if has(old, field) && old[field] != source[field] {
                    let why = format!("{field} is immutable");
                    causes.push(Cause::invalid(
                        &format!("spec.source.{field}"),
                        source[field].as_str(),
                        &why,
                    ));
                }
            }
        }
        let [one, other] = self.sources.map(|(field, _)| has(source, field));
        if one == other {
            causes.push(Cause::invalid("spec.source", None, self.either));
        }
    }
}

/// The part of a selector that is looked at.
fn labels_to_match(source: &Map<String, Value>, causes: &mut Vec<Cause>) {
    const FIELD: &str = "spec.source.selector.matchLabels";
    match source.get("selector").and_then(|selector| selector.get("matchLabels")) {
        None | Some(Value::Null) => {}
        Some(Value::Object(labels)) => {
            for (key, value) in labels.iter().filter(|(_, value)| !value.is_string()) {
                causes.push(Cause::wrong_type(&format!("{FIELD}.{key}"), value, "string"));
            }
        }
        Some(other) => causes.push(Cause::wrong_type(FIELD, other, "object")),
    }
}

fn group_class(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    for field in ["deletionPolicy", "driver"] {
        match object.get(field) {
            None | Some(Value::Null) => causes.push(Cause::required(field, "")),
            Some(Value::String(_)) => {}
            Some(other) => causes.push(Cause::wrong_type(field, other, "string")),
        }
        if let Some(old) = old
            && object.get(field) != old.get(field)
        {
            let why = format!("{field} is immutable once set");
            causes.push(Cause::invalid(field, object[field].as_str(), &why));
        }
    }
    let policy = object::text(object, "/deletionPolicy");
    if !matches!(policy, "" | "Delete" | "Retain") {
        causes.push(Cause::unsupported("deletionPolicy", policy, &["Delete", "Retain"]));
    }
}

fn claim(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if let Some(old) = old {
        let fixed = |claim: &Value| {
            let mut spec = claim.get("spec").cloned().unwrap_or_default();
            if let Some(spec) = spec.as_object_mut() {
                spec.remove("resources");
                spec.remove("volumeAttributesClassName");
                // Set once, by whoever binds the claim.
                if object::text(old, "/spec/volumeName").is_empty() {
                    spec.remove("volumeName");
                }
            }
            spec
        };
        if fixed(object) != fixed(old) {
            causes.push(Cause::forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
            ));
        }
        return;
    }
    claim_spec(&object["spec"], "spec", causes);
}

/// What every claim says, also one that is a template.
pub(crate) fn claim_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let modes = spec.get("accessModes").and_then(Value::as_array);
    if modes.is_none_or(Vec::is_empty) {
        let field = format!("{path}.accessModes");
        causes.push(Cause::required(&field, "at least 1 access mode is required"));
    }
    const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.into_iter().flatten().filter_map(Value::as_str) {
        if !MODES.contains(&mode) {
            causes.push(Cause::unsupported(&format!("{path}.accessModes"), mode, &MODES));
        }
    }
    let size = spec.pointer("/resources/requests/storage");
    if !size.is_some_and(|size| size.is_string() || size.is_number()) {
        causes.push(Cause::required(&format!("{path}.resources[storage]"), ""));
    }
}

/// The `events.k8s.io` form is stricter than the core one.
fn event(object: &Value, causes: &mut Vec<Cause>) {
    if object::text(object, "/eventTime").is_empty() {
        // One in the old way, which is not looked at any further.
        return causes.push(Cause::required("eventTime", ""));
    }
    for field in ["reportingController", "reportingInstance", "action", "reason"] {
        if object::text(object, &format!("/{field}")).is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let kind = object::text(object, "/type");
    if !matches!(kind, "Normal" | "Warning") {
        causes.push(Cause::invalid("type", Some(kind), "has invalid value"));
    }
    let note = object::text(object, "/note");
    if note.len() > 1024 {
        // The server says it in the words of the core form, and leaves the text out.
        causes.push(Cause::invalid("message", Some(""), "can have at most 1024 characters"));
    }
    let regarding = object::text(object, "/regarding/namespace");
    let namespace = object::namespace(object);
    // Events about cluster-scoped objects live in the namespace `default`.
    let expected = if regarding.is_empty() { "default" } else { regarding };
    if namespace != expected {
        causes.push(Cause::invalid(
            "involvedObject.namespace",
            Some(regarding),
            "does not match event.namespace",
        ));
    }
}

const TOP_FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
const SNAPSHOT_FIELDS: &[(&str, &[&str])] = &[
    ("", TOP_FIELDS),
    ("/spec", &["source", "volumeSnapshotClassName"]),
    ("/spec/source", &["persistentVolumeClaimName", "volumeSnapshotContentName"]),
    (
        "/status",
        &[
            "boundVolumeSnapshotContentName",
            "creationTime",
            "error",
            "readyToUse",
            "restoreSize",
            "volumeGroupSnapshotName",
        ],
    ),
    ("/status/error", &["message", "time"]),
];
const GROUP_SNAPSHOT_FIELDS: &[(&str, &[&str])] = &[
    ("", TOP_FIELDS),
    ("/spec", &["source", "volumeGroupSnapshotClassName"]),
    ("/spec/source", &["selector", "volumeGroupSnapshotContentName"]),
    ("/spec/source/selector", &["matchExpressions", "matchLabels"]),
    ("/status", &["boundVolumeGroupSnapshotContentName", "creationTime", "error", "readyToUse"]),
    ("/status/error", &["message", "time"]),
];

/// Drops the fields that the schema of a snapshot or a group snapshot does not know, and says which those were.
pub(crate) fn prune(resource: &Resource, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let fields = match resource.plural {
        "volumesnapshots" => SNAPSHOT_FIELDS,
        "volumegroupsnapshots" => GROUP_SNAPSHOT_FIELDS,
        _ => return unknown,
    };
    for (pointer, known) in fields {
        let Some(Value::Object(fields)) = object.pointer_mut(pointer) else { continue };
        fields.retain(|field, value| {
            let keep = known.contains(&field.as_str());
            // A null where none is allowed counts as absent.
            if keep && value.is_null() {
                return false;
            }
            if !keep {
                let path = format!("{pointer}/{field}");
                unknown.push(path.trim_start_matches('/').replace('/', "."));
            }
            keep
        });
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;
    use serde_json::json;

    fn messages(object: Value, old: Option<Value>) -> Vec<String> {
        let resource = registry::known("volumesnapshots");
        check(resource, &object, old.as_ref())
            .into_iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    #[test]
    fn keys_and_values_of_labels() {
        for (key, valid) in [
            ("a", true),
            ("example.com/a_b.c", true),
            ("a/b/c", false),
            ("/a", false),
            ("a/", false),
            ("", false),
            ("-a", false),
            ("Example.com/a", false),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(label_key(key).is_ok(), valid, "{key}");
        }
        for (value, valid) in
            [("", true), ("a", true), ("a b", false), ("a.", false), (&"a".repeat(64), false)]
        {
            assert_eq!(label_value(value).is_ok(), valid, "{value}");
        }
    }

    #[test]
    fn the_source_of_a_snapshot_is_fixed() {
        let old = json!({"metadata": {"name": "x"}, "spec": {"source": {"persistentVolumeClaimName": "a"}}});
        let mut new = old.clone();
        assert_eq!(messages(new.clone(), Some(old.clone())), Vec::<String>::new());
        new["spec"]["source"] = json!({"persistentVolumeClaimName": "b"});
        assert_eq!(
            messages(new.clone(), Some(old.clone())),
            [
                "spec.source.persistentVolumeClaimName: Invalid value: \"b\": persistentVolumeClaimName is immutable"
            ]
        );
        new["spec"]["source"] = json!({"volumeSnapshotContentName": "b"});
        assert_eq!(
            messages(new, Some(old)),
            ["spec.source: Invalid value: persistentVolumeClaimName is required once set"]
        );
    }

    #[test]
    fn snapshots_of_a_wrong_shape_are_refused_not_panicked_over() {
        for object in [
            json!({}),
            json!({"metadata": 3}),
            json!({"metadata": {"name": "x", "labels": 3}, "spec": {"source": {"persistentVolumeClaimName": "a"}}}),
            json!({"metadata": {"name": "x"}, "spec": 3}),
            json!({"metadata": {"name": "x"}, "spec": {"source": []}}),
            json!({"metadata": {"name": "x"}, "spec": {"source": {"persistentVolumeClaimName": 3}}}),
            json!({"metadata": {"name": "x"}, "spec": {"source": {}}}),
            json!([]),
        ] {
            assert!(!messages(object.clone(), None).is_empty(), "{object}");
        }
    }

    #[test]
    fn a_group_has_a_selector_or_a_content_and_keeps_it() {
        let resource = registry::known("volumegroupsnapshots");
        let group = |source: Value| json!({"metadata": {"name": "x"}, "spec": {"source": source}});
        let wrong = |source: Value, old: Option<Value>| -> Vec<String> {
            let causes = check(resource, &group(source), old.map(group).as_ref());
            causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
        };
        let labels = json!({"selector": {"matchLabels": {"app": "shop"}}});
        let expressions = json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}});
        let content = json!({"volumeGroupSnapshotContentName": "x"});
        for source in [&labels, &expressions, &content, &json!({"selector": {}})] {
            assert_eq!(wrong(source.clone(), Some(source.clone())), Vec::<String>::new());
        }
        let either = "spec.source: Invalid value: exactly one of selector and volumeGroupSnapshotContentName must be set";
        let selector = "spec.source.selector: Invalid value: \"string\": spec.source.selector in body must be of type object: \"string\"";
        let label = "spec.source.selector.matchLabels.app: Invalid value: \"integer\": spec.source.selector.matchLabels.app in body must be of type string: \"integer\"";
        for (source, old, expected) in [
            (json!({}), None, either),
            (json!({"selector": "app=shop"}), None, selector),
            (json!({"selector": {"matchLabels": {"app": 1}}}), None, label),
            (content, Some(labels.clone()), "spec.source: Invalid value: selector is required once set"),
            (expressions, Some(labels), "spec.source.selector: Invalid value: selector is immutable"),
        ] {
            assert_eq!(wrong(source.clone(), old), [expected], "{source}");
        }
    }
}
