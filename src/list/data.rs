//! Rows for scripts, as JSON or YAML. The fields are a promise: scripts read them.

use serde_json::{Value, json};

use super::{Retention, Row};
use crate::yaml;

/// All rows, as one JSON document.
pub fn json(rows: &[Row]) -> String {
    // A value of text, numbers and maps with text keys is always JSON.
    let mut text = serde_json::to_string_pretty(&document(rows)).unwrap_or_default();
    text.push('\n');
    text
}

/// All rows, as one YAML document.
pub fn yaml(rows: &[Row]) -> String {
    yaml::document(&document(rows))
}

fn document(rows: &[Row]) -> Value {
    json!({"items": rows.iter().map(item).collect::<Vec<_>>()})
}

fn item(row: &Row) -> Value {
    let Row { record, state, retention } = row;
    let snapshot = &record.snapshot;
    let (verdict, reason) = match retention {
        Retention::Kept(reason) => ("kept", Some(reason)),
        Retention::Goes(reason) => ("goes", Some(reason)),
        Retention::NotOurs => ("other-schedule", None),
    };
    json!({
        "namespace": record.namespace,
        "claim": record.claim,
        "snapshot": snapshot.name,
        "uid": snapshot.uid,
        "time": snapshot.time().to_string(),
        "created": snapshot.created.to_string(),
        "ready": snapshot.ready,
        "restoreSize": record.restore_size,
        "class": record.class,
        "job": record.job,
        "run": snapshot.run,
        "held": snapshot.held,
        "state": state.word(),
        "retention": {"verdict": verdict, "reason": reason},
        "error": snapshot.error,
    })
}
