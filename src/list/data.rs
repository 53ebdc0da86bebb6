//! Rows for scripts, as JSON or YAML. The fields are a promise: scripts read them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Retention, Row};
use crate::{
    api::{GROUP_SNAPSHOT_GROUP, SNAPSHOT_GROUP},
    names, text, yaml,
};

/// The snapshots' names, a line each, as kubectl takes them. Groups are named and their members are not, because
/// these go with their group.
pub fn names(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let name = text::name(&row.record.snapshot.name);
        match row.group {
            None => format!("volumesnapshot.{SNAPSHOT_GROUP}/{name}\n"),
            Some(_) => format!("volumegroupsnapshot.{GROUP_SNAPSHOT_GROUP}/{name}\n"),
        }
    };
    rows.iter().map(line).collect()
}

/// All rows, as one JSON document.
pub fn json(rows: &[Row]) -> String {
    // A value of text, numbers and maps with text keys is always JSON.
    let mut text = escaped(&serde_json::to_string_pretty(&document(rows)).unwrap_or_default());
    text.push('\n');
    text
}

/// JSON may have any character in a string but for the first 32, and it goes to terminals.
fn escaped(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        // Between the strings there are only newlines, and in them are none.
        match text::is_treacherous(character) && character != '\n' {
            false => safe.push(character),
            true => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    safe.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    safe
}

/// All rows, as one YAML document.
pub fn yaml(rows: &[Row]) -> String {
    yaml::document(&document(rows))
}

fn document(rows: &[Row]) -> Value {
    json!({"items": rows.iter().map(item).collect::<Vec<_>>()})
}

fn item(row: &Row) -> Value {
    let Row { record, group, members, state, retention } = row;
    let snapshot = &record.snapshot;
    let (verdict, reason) = match retention {
        Retention::Kept(reason) => ("kept", Some(reason)),
        Retention::Goes(reason) => ("goes", Some(reason)),
        Retention::WouldGo(reason) => ("would-go", Some(reason)),
        Retention::Unknown(reason) => ("unknown", Some(reason)),
        Retention::NotOurs => ("other-schedule", None),
    };
    // Those that people gave it, not those that this program goes by.
    let further = |(key, _): &(&String, &String)| names::user_of_label(key) != Some(names::PROGRAM);
    let labels: BTreeMap<_, _> = record.labels.iter().filter(further).collect();
    let mut item = json!({
        "namespace": record.namespace,
        "claim": record.claim,
        "group": group,
        "snapshot": snapshot.name,
        "uid": snapshot.uid,
        "time": snapshot.time().to_string(),
        "created": snapshot.created.to_string(),
        "ready": snapshot.ready,
        "restoreSize": record.restore_size,
        "class": record.class,
        "job": record.schedule,
        "run": snapshot.run,
        "held": snapshot.held,
        "verified": record.verification.verified.map(|time| time.to_string()),
        "verifyFailed": record.verification.failed,
        "labels": labels,
        "state": state.word(),
        "terminatingSince": snapshot.terminating_since.map(|since| since.to_string()),
        "retention": {"verdict": verdict, "reason": reason},
        "error": snapshot.error,
    });
    if group.is_some() {
        item["members"] = members.iter().map(self::item).collect();
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_read_back() {
        let value = json!({"claim": "a\u{1b}[2K\u{9b}\u{7f}\u{202e}\u{2028}\u{e0041}ä\n"});
        let text = escaped(&serde_json::to_string_pretty(&value).expect("JSON"));
        assert!(
            !text.chars().any(|character| text::is_treacherous(character) && character != '\n'),
            "{text:?}"
        );
        assert!(text.contains(r"\u001b[2K\u009b\u007f\u202e\u2028\udb40\udc41ä\n"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }
}
