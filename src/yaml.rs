//! JSON values as YAML, the block style that kubectl prints, and safe to print on a terminal.

use std::fmt::Write;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::DoubleQuoted;

use crate::text::is_treacherous;

/// A value as a YAML document, which ends with a newline.
pub fn document(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { compact_list_indent: true, prefer_block_scalars: false };
    // A value of text, numbers and maps with text keys is always YAML.
    let text = serde_saphyr::to_string_with_options(&Safe(value), options).unwrap_or_default();
    escaped(&text)
}

/// A value whose treacherous strings are in double quotes, where they can be escaped.
struct Safe<'a>(&'a Value);

struct Text<'a>(&'a str);

impl Serialize for Safe<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (Text(key), Safe(value))))
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Safe)),
            Value::String(string) => Text(string).serialize(serializer),
            other => other.serialize(serializer),
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.contains(is_treacherous) {
            true => DoubleQuoted(self.0).serialize(serializer),
            false => serializer.serialize_str(self.0),
        }
    }
}

/// YAML allows characters as they are that a terminal would obey, and the serializer writes them so. In a
/// key, which the serializer may leave without quotes, the escape stands for itself: keys are this
/// program's own, or Kubernetes has checked them.
fn escaped(yaml: &str) -> String {
    let mut safe = String::with_capacity(yaml.len());
    for character in yaml.chars() {
        match is_treacherous(character) && character != '\n' {
            false => safe.push(character),
            true => drop(write!(safe, "\\U{:08x}", u32::from(character))),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_looks_as_kubectl_prints_it() {
        let value = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-restored", "labels": {"a/b": "true"}, "annotations": {}},
            "spec": {"accessModes": ["ReadWriteOnce"], "size": "10Gi", "at": "2026-11-20T08:55:00Z", "count": 3},
            "items": [{"a": 1, "b": [true, null]}, [], "plain text"],
        });
        assert_eq!(
            document(&value),
            "apiVersion: v1\n\
             items:\n\
             - a: 1\n  b:\n  - true\n  - null\n\
             - []\n\
             - plain text\n\
             kind: PersistentVolumeClaim\n\
             metadata:\n  annotations: {}\n  labels:\n    a/b: \"true\"\n  name: data-restored\n\
             spec:\n  accessModes:\n  - ReadWriteOnce\n  at: \"2026-11-20T08:55:00Z\"\n  count: 3\n  size: 10Gi\n"
        );
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "[\\PC\\x00-\u{20}\u{7f}-\u{ad}\u{200b}-\u{206f}\u{feff}\u{e0041}]{0,12}".prop_map(Value::from),
            "[a-zA-Z0-9:#&*!|>'%@,{}\\[\\]?\" ~\n\t-]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z0-9 :/.#-]{1,6}", inner, 0..4)
                    .prop_map(|entries| entries.into_iter().collect()),
            ]
        })
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let text = document(&json!({"claim": "a\u{1b}\u{9b}\u{202e}\u{2028}\u{3164}\u{200b}ä"}));
        assert_eq!(text, "claim: \"a\\e\\x9B\\U0000202e\\L\\U00003164\\U0000200bä\"\n");
    }

    #[test]
    fn a_key_that_a_terminal_would_obey_does_not_reach_it() {
        assert_eq!(document(&json!({"a\u{202e}": 1})), "a\\U0000202e: 1\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_value()) {
            let text = document(&value);
            let read: Value = serde_saphyr::from_str(&text).map_err(|error| {
                TestCaseError::fail(format!("{error}\n{text}"))
            })?;
            prop_assert_eq!(read, value, "{}", text);
            let is_obeyed = |character: char| is_treacherous(character) && character != '\n';
            prop_assert!(!text.contains(is_obeyed), "{:?}", text);
        }
    }
}
