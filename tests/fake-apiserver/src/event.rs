//! The two forms of Events: `events.k8s.io` writes and reads other field names than the core group does.
//!
//! Events are stored in the core form. This module converts between the two.

use serde_json::{Map, Value, json};

/// The fields whose names differ: core, then `events.k8s.io`.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn renamed(object: Value, names: impl Fn(&str) -> Option<&'static str>, api_version: &str) -> Value {
    let Value::Object(fields) = object else { return object };
    let mut result: Map<String, Value> = fields
        .into_iter()
        .map(|(field, value)| (names(&field).map_or(field, str::to_owned), value))
        .collect();
    result.insert("apiVersion".into(), api_version.into());
    Value::Object(result)
}

/// From the form of `events.k8s.io` to the stored one.
pub(crate) fn to_core(object: Value) -> Value {
    let names = |field: &str| RENAMED.iter().find(|(_, new)| *new == field).map(|(core, _)| *core);
    complete(renamed(object, names, "v1"))
}

/// From the stored form to that of `events.k8s.io`.
pub(crate) fn from_core(object: Value) -> Value {
    let names = |field: &str| RENAMED.iter().find(|(core, _)| *core == field).map(|(_, new)| *new);
    renamed(object, names, "events.k8s.io/v1")
}

/// The fields that an Event always shows, even without a value.
pub(crate) fn complete(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
            fields.entry(field).or_insert(Value::Null);
        }
        fields.entry("source").or_insert_with(|| json!({}));
        for field in ["reportingComponent", "reportingInstance"] {
            fields.entry(field).or_insert_with(|| "".into());
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_in_the_form_it_went() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "regarding": {"name": "a"}, "note": "b", "eventTime": "c"});
        let core = to_core(new.clone());
        assert_eq!(core["involvedObject"]["name"], "a");
        assert_eq!(core["message"], "b");
        let back = from_core(core);
        assert_eq!(back["regarding"], new["regarding"]);
        assert_eq!(back["note"], "b");
        assert_eq!(back["deprecatedFirstTimestamp"], Value::Null);
    }
}
