//! Validation of Jobs and pods: names, the template, volumes and how containers use them, numbers, and what may change.
//!
//! Only what can be wrong in a pod that mounts claims is here.

use crate::failure::Cause;
use crate::object;
use crate::validation::{self, LABEL_NAME_RULE};
use serde_json::Value;
use std::collections::HashSet;

pub(crate) fn job(job: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &job["spec"];
    let labels = spec.pointer("/template/metadata/labels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        if let Err(why) = validation::label_key(key) {
            causes.push(Cause::invalid("spec.template.labels", Some(key), &why));
        }
        // A name that is too long for a label is found here.
        match value.as_str().map(|value| (value, validation::label_value(value))) {
            Some((value, Err(why))) => {
                causes.push(Cause::invalid("spec.template.labels", Some(value), &why));
            }
            Some(_) => {}
            None => causes.push(Cause::wrong_type("spec.template.labels", value, "string")),
        }
    }
    let numbers =
        ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"];
    for field in numbers {
        let path = format!("spec.{field}");
        match spec.get(field) {
            None | Some(Value::Null) => {}
            Some(value) => match value.as_i64() {
                None => causes.push(Cause::wrong_type(&path, value, "integer")),
                Some(number) if number < 0 => causes.push(Cause {
                    reason: "FieldValueInvalid",
                    field: path,
                    message: format!("Invalid value: {number}: must be greater than or equal to 0"),
                }),
                Some(_) => {}
            },
        }
    }
    if let Some(old) = old {
        for field in ["completions", "selector", "template"] {
            if spec.get(field) != old["spec"].get(field) {
                causes.push(Cause::invalid(&format!("spec.{field}"), None, "field is immutable"));
            }
        }
        return;
    }
    let pod_spec = &spec["template"]["spec"];
    pod(pod_spec, "spec.template.spec", causes);
    const PATH: &str = "spec.template.spec.restartPolicy";
    match object::text(pod_spec, "/restartPolicy") {
        "Never" => {}
        "OnFailure" if spec.get("podFailurePolicy").is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            causes.push(Cause::invalid(PATH, Some("OnFailure"), why));
        }
        "OnFailure" => {}
        // What is not said is always.
        "" | "Always" => causes.push(Cause::required(PATH, "valid values: \"OnFailure\", \"Never\"")),
        other => causes.push(Cause::unsupported(PATH, other, &["OnFailure", "Never"])),
    }
}

fn entries<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The spec of a pod, at a path.
pub(crate) fn pod(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut volumes: HashSet<&str> = HashSet::new();
    for (index, volume) in entries(spec, "volumes").iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        let name = named(volume, &path, causes);
        if !name.is_empty() && !volumes.insert(name) {
            causes.push(Cause::duplicate(&format!("{path}.name"), name));
        }
        source(volume, &path, causes);
    }
    if entries(spec, "containers").is_empty() {
        causes.push(Cause::required(&format!("{path}.containers"), ""));
    }
    let mut names: HashSet<&str> = HashSet::new();
    for field in ["initContainers", "containers"] {
        for (index, container) in entries(spec, field).iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            let name = named(container, &path, causes);
            if !name.is_empty() && !names.insert(name) {
                causes.push(Cause::duplicate(&format!("{path}.name"), name));
            }
            if object::text(container, "/image").is_empty() {
                causes.push(Cause::required(&format!("{path}.image"), ""));
            }
            uses(container, &path, &volumes, causes);
            for (index, variable) in entries(container, "env").iter().enumerate() {
                let path = format!("{path}.env[{index}]");
                if object::text(variable, "/name").is_empty() {
                    causes.push(Cause::required(&format!("{path}.name"), ""));
                }
                if let Some(value) = variable.get("value").filter(|value| !value.is_string()) {
                    causes.push(Cause::wrong_type(&format!("{path}.value"), value, "string"));
                }
            }
            for field in ["command", "args"] {
                for value in entries(container, field).iter().filter(|value| !value.is_string()) {
                    causes.push(Cause::wrong_type(&format!("{path}.{field}"), value, "string"));
                }
            }
        }
    }
}

/// The name of a volume or a container, which is a DNS label.
fn named<'a>(value: &'a Value, path: &str, causes: &mut Vec<Cause>) -> &'a str {
    let name = object::text(value, "/name");
    let field = format!("{path}.name");
    if name.is_empty() {
        causes.push(Cause::required(&field, ""));
    } else if name.len() > 63 {
        causes.push(Cause::invalid(&field, Some(name), "must be no more than 63 bytes"));
    } else if !validation::is_dns_label(name) {
        causes.push(Cause::invalid(&field, Some(name), LABEL_NAME_RULE));
    }
    name
}

/// Where a volume comes from: one place.
fn source(volume: &Value, path: &str, causes: &mut Vec<Cause>) {
    let sources: Vec<&String> = volume
        .as_object()
        .into_iter()
        .flatten()
        .map(|(field, _)| field)
        .filter(|field| *field != "name")
        .collect();
    match sources.as_slice() {
        [] => causes.push(Cause::required(path, "must specify a volume type")),
        [_] => {}
        [_, second, ..] => {
            let field = format!("{path}.{second}");
            causes.push(Cause::forbidden(&field, "may not specify more than 1 volume type"));
        }
    }
    if let Some(claim) = volume.get("persistentVolumeClaim")
        && object::text(claim, "/claimName").is_empty()
    {
        causes.push(Cause::required(&format!("{path}.persistentVolumeClaim.claimName"), ""));
    }
    let Some(ephemeral) = volume.get("ephemeral") else { return };
    let path = format!("{path}.ephemeral.volumeClaimTemplate");
    let Some(template) = ephemeral.get("volumeClaimTemplate").filter(|template| template.is_object()) else {
        return causes.push(Cause::required(&path, ""));
    };
    let metadata = template.get("metadata").and_then(Value::as_object);
    for (field, value) in metadata.into_iter().flatten() {
        let is_allowed = matches!(field.as_str(), "labels" | "annotations" | "creationTimestamp");
        if !is_allowed && !value.is_null() {
            let field = format!("{path}.metadata.{field}");
            causes.push(Cause::forbidden(&field, "cannot be set for an ephemeral volume"));
        }
    }
    for (key, value) in template.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten()
    {
        let value = value.as_str().unwrap_or_default();
        let wrong = validation::label_key(key).and_then(|()| validation::label_value(value));
        if let Err(why) = wrong {
            causes.push(Cause::invalid(&format!("{path}.metadata.labels"), Some(value), &why));
        }
    }
    validation::claim_spec(&template["spec"], &format!("{path}.spec"), causes);
}

/// How a container uses the pod's volumes.
fn uses(container: &Value, path: &str, volumes: &HashSet<&str>, causes: &mut Vec<Cause>) {
    for (field, place) in [("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")] {
        let mut places: HashSet<&str> = HashSet::new();
        for (index, one) in entries(container, field).iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            let name = object::text(one, "/name");
            if name.is_empty() {
                causes.push(Cause::required(&format!("{path}.name"), ""));
            } else if !volumes.contains(name) {
                causes.push(Cause::not_found(&format!("{path}.name"), name));
            }
            let at = object::text(one, &format!("/{place}"));
            if at.is_empty() {
                causes.push(Cause::required(&format!("{path}.{place}"), ""));
            } else if !places.insert(at) {
                causes.push(Cause::invalid(&format!("{path}.{place}"), Some(at), "must be unique"));
            }
        }
    }
}
