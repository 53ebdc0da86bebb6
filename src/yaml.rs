//! JSON values as YAML, the block style that kubectl prints. Enough for what this program prints,
//! at a hundredth of a library's size; a test reads it back with one.

use std::fmt::Write;

use serde_json::Value;

use crate::text::is_treacherous;

/// A value as a YAML document, which ends with a newline.
pub fn document(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, 0);
    // What is not a mapping or a list stays on its line.
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Writes a value from where the line stands; entries of what is nested begin at `indent`.
fn write(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    pad(text, indent);
                }
                scalar(text, key);
                text.push(':');
                nested(text, value, indent);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(text, indent);
                }
                text.push_str("- ");
                let before = text.len();
                write(text, item, indent + 2);
                if !text[before..].ends_with('\n') {
                    text.push('\n');
                }
            }
        }
        Value::Object(_) => text.push_str("{}"),
        Value::Array(_) => text.push_str("[]"),
        Value::String(string) => scalar(text, string),
        other => drop(write!(text, "{other}")),
    }
}

/// Writes what stands behind a key: a scalar on its line, all else below it.
fn nested(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            text.push('\n');
            pad(text, indent + 2);
            write(text, value, indent + 2);
        }
        // As kubectl does it, a list is not further in than its key.
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            pad(text, indent);
            write(text, value, indent);
        }
        value => {
            text.push(' ');
            write(text, value, indent);
            text.push('\n');
        }
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

/// Writes a string plainly where no reader can take it for something else, and as JSON, which YAML
/// contains, elsewhere.
fn scalar(text: &mut String, string: &str) {
    let is_plain = string.starts_with(|first: char| first.is_ascii_alphabetic())
        && string
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'))
        && !matches!(
            string.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
        );
    match is_plain || is_quantity(string) {
        true => text.push_str(string),
        // JSON allows a few characters as they are that YAML does not.
        false => {
            text.push('"');
            for character in string.chars() {
                match character {
                    '"' => text.push_str("\\\""),
                    '\\' => text.push_str("\\\\"),
                    '\n' => text.push_str("\\n"),
                    '\t' => text.push_str("\\t"),
                    plain
                        if plain == ' '
                            || plain.is_ascii_graphic()
                            || plain.is_alphanumeric() && !is_treacherous(plain) =>
                    {
                        text.push(plain)
                    }
                    other => drop(write!(text, "\\U{:08x}", u32::from(other))),
                }
            }
            text.push('"');
        }
    }
}

/// `10Gi`, which kubectl writes plainly and no reader takes for a number.
fn is_quantity(string: &str) -> bool {
    let number = string.strip_suffix('i').and_then(|rest| rest.strip_suffix(['K', 'M', 'G', 'T', 'P', 'E']));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
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
             - \"plain text\"\n\
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
        assert_eq!(text, "claim: \"a\\U0000001b\\U0000009b\\U0000202e\\U00002028\\U00003164\\U0000200bä\"\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_value()) {
            let text = document(&value);
            let read: Value = serde_saphyr::from_str(&text).map_err(|error| {
                TestCaseError::fail(format!("{error}\n{text}"))
            })?;
            prop_assert_eq!(read, value, "{}", text);
        }
    }
}
