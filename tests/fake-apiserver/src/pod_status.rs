//! The status of pods as the kubelet writes it.

use crate::object;
use crate::pod_plan::End;
use crate::pods;
use crate::store::Writer;
use serde_json::{Value, json};

const CLAIMS: &str = "persistentvolumeclaims";

/// How many bytes of a termination message are kept.
const LONGEST_MESSAGE: usize = 4096;

/// The conditions of a pod that has a node.
pub(crate) fn conditions(ready: &str, reason: &str) -> Value {
    let all = [
        ("PodReadyToStartContainers", "True"),
        ("Initialized", "True"),
        ("Ready", ready),
        ("ContainersReady", ready),
        ("PodScheduled", "True"),
    ];
    let of = |(kind, status): (&str, &str)| {
        let mut condition = json!({
            "type": kind,
            "status": status,
            "lastProbeTime": null,
            "lastTransitionTime": object::now(),
        });
        if status == "False" && !reason.is_empty() {
            condition["reason"] = reason.into();
        }
        condition
    };
    all.into_iter().map(of).collect()
}

/// Sets the state of all containers.
pub(crate) fn set_containers(pod: &mut Value, state: &Value, ready: bool) {
    let [names, _] = pods::containers(pod);
    let image = |index: usize| object::text(pod, &format!("/spec/containers/{index}/image")).to_owned();
    let statuses: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            json!({
                "name": name,
                "image": image(index),
                "imageID": "",
                "lastState": {},
                "ready": ready,
                "restartCount": 0,
                "started": ready,
                "state": state,
            })
        })
        .collect();
    pod["status"]["containerStatuses"] = statuses.into();
}

/// Ends all containers, and the pod.
pub(crate) fn end_containers(pod: &mut Value, end: &End, started: Option<&str>, log: &str) {
    let (code, reason, message) = match end {
        End::Exits { code, reason, message } => (*code, *reason, message.clone()),
        _ => (137, "Error", String::new()),
    };
    pod["status"]["phase"] = if code == 0 { "Succeeded" } else { "Failed" }.into();
    pod["status"]["conditions"] = conditions("False", if code == 0 { "PodCompleted" } else { "PodFailed" });
    if let End::Evicted { message } = end {
        pod["status"]["reason"] = "Evicted".into();
        pod["status"]["message"] = message.as_str().into();
        if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
            conditions.push(json!({
                "type": "DisruptionTarget",
                "status": "True",
                "lastProbeTime": null,
                "lastTransitionTime": object::now(),
                "reason": "TerminationByKubelet",
                "message": message,
            }));
        }
    }
    // What never ran has nothing to say.
    let Some(started) = started else { return };
    let falls_back =
        object::text(pod, "/spec/containers/0/terminationMessagePolicy") == "FallbackToLogsOnError";
    let message = if message.is_empty() && falls_back && code != 0 { tail(log) } else { message };
    let mut state = json!({
        "exitCode": code,
        "reason": reason,
        "startedAt": started,
        "finishedAt": object::now(),
        "containerID": format!("containerd://{}", object::uid(pod)),
    });
    if !message.is_empty() {
        state["message"] = pods::first_bytes(&message, LONGEST_MESSAGE).into();
    }
    set_containers(pod, &json!({"terminated": state}), false);
}

/// The end of a log as a termination message has it: 80 lines, 2048 bytes.
fn tail(log: &str) -> String {
    let skipped = pods::first_bytes(log, log.len().saturating_sub(2048)).len();
    let lines: Vec<&str> = log[skipped..].split_inclusive('\n').collect();
    lines[lines.len().saturating_sub(80)..].concat()
}

/// What is wrong with how the containers use their volumes.
pub(crate) fn mount_trouble(writer: &Writer<'_>, pod: &Value) -> Option<String> {
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    for (volume, claim) in pods::claimed(pod) {
        let key = (object::namespace(pod).to_owned(), claim);
        let Some(claim) = writer.get(CLAIMS, &key) else { continue };
        let is_block = object::volume_mode(&claim.value) == "Block";
        for container in list(&pod["spec"], "containers") {
            let uses = |field: &str| list(&container, field).iter().any(|one| one["name"] == volume.as_str());
            let (mode, field) = match (is_block, uses("volumeMounts"), uses("volumeDevices")) {
                (true, true, _) => ("Block", "volumeMounts"),
                (false, _, true) => ("Filesystem", "volumeDevices"),
                _ => continue,
            };
            return Some(format!(
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
                 volumes=[{volume}]: volume {volume} has volumeMode {mode}, but is specified in {field}"
            ));
        }
    }
    None
}
