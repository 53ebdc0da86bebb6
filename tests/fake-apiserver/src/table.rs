//! Tables: what `kubectl get` asks for instead of objects.
//!
//! The columns of each resource, their cells, and the ages in the short form that people read.

use crate::object;
use crate::registry::Resource;
use jiff::Timestamp;
use serde_json::{Value, json};

/// How the cell is made from what is at a column's path.
#[derive(Debug, Clone, Copy)]
enum Show {
    /// As it is; nothing if it is missing.
    Plain,
    /// How long ago it was.
    Age,
    /// Access modes by their initials, joined.
    Modes,
    /// `kind/name` of the object that an Event is about.
    Regarding,
    /// As it is, or `<unset>`.
    OrUnset,
    Count,
    /// When an Event was last seen.
    LastSeen,
}

struct Column {
    name: &'static str,
    /// Type as the table says it.
    kind: &'static str,
    path: &'static str,
    show: Show,
    /// Above 0: only in wide output.
    priority: u8,
}

const fn column(name: &'static str, kind: &'static str, path: &'static str, show: Show) -> Column {
    Column { name, kind, path, show, priority: 0 }
}

const fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

const NAME: Column = column("Name", "string", "/metadata/name", Show::Plain);
const AGE: Column = column("Age", "string", "/metadata/creationTimestamp", Show::Age);
/// The age of a custom resource is a date, which `kubectl` shows as the server wrote it.
const DATE: Column = column("Age", "date", "/metadata/creationTimestamp", Show::Age);

const VOLUMESNAPSHOTS: &[Column] = &[
    NAME,
    column("ReadyToUse", "boolean", "/status/readyToUse", Show::Plain),
    column("SourcePVC", "string", "/spec/source/persistentVolumeClaimName", Show::Plain),
    column("SourceSnapshotContent", "string", "/spec/source/volumeSnapshotContentName", Show::Plain),
    column("RestoreSize", "string", "/status/restoreSize", Show::Plain),
    column("SnapshotClass", "string", "/spec/volumeSnapshotClassName", Show::Plain),
    column("SnapshotContent", "string", "/status/boundVolumeSnapshotContentName", Show::Plain),
    column("CreationTime", "date", "/status/creationTime", Show::Age),
    DATE,
];
const VOLUMESNAPSHOTCLASSES: &[Column] = &[
    NAME,
    column("Driver", "string", "/driver", Show::Plain),
    column("DeletionPolicy", "string", "/deletionPolicy", Show::Plain),
    DATE,
];
const VOLUMESNAPSHOTCONTENTS: &[Column] = &[
    NAME,
    column("ReadyToUse", "boolean", "/status/readyToUse", Show::Plain),
    column("RestoreSize", "integer", "/status/restoreSize", Show::Plain),
    column("DeletionPolicy", "string", "/spec/deletionPolicy", Show::Plain),
    column("Driver", "string", "/spec/driver", Show::Plain),
    column("VolumeSnapshotClass", "string", "/spec/volumeSnapshotClassName", Show::Plain),
    column("VolumeSnapshot", "string", "/spec/volumeSnapshotRef/name", Show::Plain),
    column("VolumeSnapshotNamespace", "string", "/spec/volumeSnapshotRef/namespace", Show::Plain),
    DATE,
];
const VOLUMEGROUPSNAPSHOTS: &[Column] = &[
    NAME,
    column("ReadyToUse", "boolean", "/status/readyToUse", Show::Plain),
    column("VolumeGroupSnapshotClass", "string", "/spec/volumeGroupSnapshotClassName", Show::Plain),
    column(
        "VolumeGroupSnapshotContent",
        "string",
        "/status/boundVolumeGroupSnapshotContentName",
        Show::Plain,
    ),
    column("CreationTime", "date", "/status/creationTime", Show::Age),
    DATE,
];
const VOLUMEGROUPSNAPSHOTCONTENTS: &[Column] = &[
    NAME,
    column("ReadyToUse", "boolean", "/status/readyToUse", Show::Plain),
    column("DeletionPolicy", "string", "/spec/deletionPolicy", Show::Plain),
    column("Driver", "string", "/spec/driver", Show::Plain),
    column("VolumeGroupSnapshotClass", "string", "/spec/volumeGroupSnapshotClassName", Show::Plain),
    column("VolumeGroupSnapshotNamespace", "string", "/spec/volumeGroupSnapshotRef/namespace", Show::Plain),
    column("VolumeGroupSnapshot", "string", "/spec/volumeGroupSnapshotRef/name", Show::Plain),
    DATE,
];
const PERSISTENTVOLUMECLAIMS: &[Column] = &[
    NAME,
    column("Status", "string", "/status/phase", Show::Plain),
    column("Volume", "string", "/spec/volumeName", Show::Plain),
    column("Capacity", "string", "/status/capacity/storage", Show::Plain),
    column("Access Modes", "string", "/status/accessModes", Show::Modes),
    column("StorageClass", "string", "/spec/storageClassName", Show::Plain),
    wide(column("VolumeAttributesClass", "string", "/spec/volumeAttributesClassName", Show::OrUnset)),
    AGE,
    wide(column("VolumeMode", "string", "/spec/volumeMode", Show::Plain)),
];
const PERSISTENTVOLUMES: &[Column] = &[
    NAME,
    column("Capacity", "string", "/spec/capacity/storage", Show::Plain),
    column("Access Modes", "string", "/spec/accessModes", Show::Modes),
    column("Reclaim Policy", "string", "/spec/persistentVolumeReclaimPolicy", Show::Plain),
    column("Status", "string", "/status/phase", Show::Plain),
    column("Claim", "string", "/spec/claimRef/name", Show::Plain),
    column("StorageClass", "string", "/spec/storageClassName", Show::Plain),
    AGE,
];
const NAMESPACES: &[Column] = &[NAME, column("Status", "string", "/status/phase", Show::Plain), AGE];
const EVENTS: &[Column] = &[
    column("Last Seen", "string", "", Show::LastSeen),
    column("Type", "string", "/type", Show::Plain),
    column("Reason", "string", "/reason", Show::Plain),
    column("Object", "string", "/involvedObject", Show::Regarding),
    column("Message", "string", "/message", Show::Plain),
    wide(NAME),
];
const STORAGECLASSES: &[Column] = &[
    NAME,
    column("Provisioner", "string", "/provisioner", Show::Plain),
    column("ReclaimPolicy", "string", "/reclaimPolicy", Show::Plain),
    column("VolumeBindingMode", "string", "/volumeBindingMode", Show::Plain),
    AGE,
];
const CONFIGMAPS: &[Column] = &[NAME, column("Data", "integer", "/data", Show::Count), AGE];
const OTHERS: &[Column] = &[NAME, AGE];

fn columns(resource: &Resource) -> &'static [Column] {
    match resource.plural {
        "volumesnapshots" => VOLUMESNAPSHOTS,
        "volumesnapshotclasses" | "volumegroupsnapshotclasses" => VOLUMESNAPSHOTCLASSES,
        "volumesnapshotcontents" => VOLUMESNAPSHOTCONTENTS,
        "volumegroupsnapshots" => VOLUMEGROUPSNAPSHOTS,
        "volumegroupsnapshotcontents" => VOLUMEGROUPSNAPSHOTCONTENTS,
        "persistentvolumeclaims" => PERSISTENTVOLUMECLAIMS,
        "persistentvolumes" => PERSISTENTVOLUMES,
        "namespaces" => NAMESPACES,
        "events" => EVENTS,
        "storageclasses" => STORAGECLASSES,
        "configmaps" => CONFIGMAPS,
        _ => OTHERS,
    }
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let value = object.pointer(column.path).cloned().unwrap_or_default();
    let age =
        |text: &str| text.parse::<Timestamp>().map_or("<unknown>".to_owned(), |then| age(then, now)).into();
    match column.show {
        Show::Plain => match value {
            // Built-in tables have an empty text where custom ones have nothing; both print as nothing.
            Value::Object(_) | Value::Array(_) => value.to_string().into(),
            other => other,
        },
        Show::Age => value.as_str().map_or(Value::Null, age),
        Show::Modes => {
            let modes = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            let initials =
                modes.map(|mode| mode.chars().filter(char::is_ascii_uppercase).collect::<String>());
            initials.collect::<Vec<_>>().join(",").into()
        }
        Show::Regarding => {
            let kind = object::text(&value, "/kind").to_lowercase();
            format!("{kind}/{}", object::text(&value, "/name")).into()
        }
        Show::OrUnset => match value {
            Value::String(_) => value,
            _ => "<unset>".into(),
        },
        Show::Count => value.as_object().map_or(0, serde_json::Map::len).into(),
        Show::LastSeen => {
            let seen =
                ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
            let seen = seen.iter().map(|path| object::text(object, path)).find(|text| !text.is_empty());
            seen.map_or("<unknown>".into(), age)
        }
    }
}

/// A time span as `kubectl` shows it: two units while it is short, one when it is long.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |major: i64, unit: &str, minor: i64, small: &str| {
        if minor == 0 { format!("{major}{unit}") } else { format!("{major}{unit}{minor}{small}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else if days < 2 * 365 {
        format!("{days}d")
    } else if days < 8 * 365 {
        two(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

/// What each row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// A table of objects in the form in which they are shown.
pub(crate) fn table<'a>(
    resource: &Resource,
    objects: impl Iterator<Item = &'a Value>,
    metadata: Value,
    include: Include,
    headers: bool,
) -> Value {
    let now = Timestamp::now();
    let columns = columns(resource);
    let rows: Vec<Value> = objects
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|column| cell(column, object, now)).collect();
            let mut row = json!({ "cells": cells });
            match include {
                Include::Nothing => {}
                Include::Metadata => {
                    row["object"] = json!({
                        "kind": "PartialObjectMetadata",
                        "apiVersion": "meta.k8s.io/v1",
                        "metadata": object["metadata"],
                    });
                }
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            let format = if column.name == "Name" { "name" } else { "" };
            json!({
                "name": column.name,
                "type": column.kind,
                "format": format,
                "description": column.name,
                "priority": column.priority,
            })
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": if headers { Value::Array(definitions) } else { Value::Null },
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let now = Timestamp::from_second(1_000_000_000).expect("is in range");
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 12 * 60, "3h12m"),
            (9 * 3600 + 12 * 60, "9h"),
            (50 * 3600, "2d2h"),
            (9 * 86400, "9d"),
            (800 * 86400, "2y70d"),
            (9 * 365 * 86400, "9y"),
        ] {
            let then = Timestamp::from_second(1_000_000_000 - seconds).expect("is in range");
            assert_eq!(age(then, now), expected, "{seconds}");
        }
    }
}
