use serde_json::{Value, json};

use super::*;

const OURS: Check = Check { is_users: false, allow_empty: false };
const USERS: Check = Check { is_users: true, allow_empty: false };

fn job(conditions: Value) -> Job {
    serde_json::from_value(json!({"metadata": {"name": "j"}, "status": {"conditions": conditions}}))
        .expect("a Job")
}

fn pod(status: Value) -> JobPod {
    serde_json::from_value(json!({"metadata": {"name": "j-x"}, "status": status})).expect("a pod")
}

/// A pod whose container is in this state.
fn with_state(phase: &str, state: Value) -> Value {
    json!({"phase": phase, "containerStatuses": [
        {"name": "sidecar", "state": {"terminated": {"exitCode": 0}}}, {"name": "verify", "state": state},
    ]})
}

fn ended(code: i32, reason: &str, message: &str) -> Value {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    with_state(phase, json!({"terminated": {"exitCode": code, "reason": reason, "message": message}}))
}

fn verdict(status: Value, check: Check) -> String {
    let (job, pod) = (job(json!([])), pod(status));
    said_of(Seen { job: &job, pod: Some(&pod) }.verdict(check))
}

fn said_of(verdict: Option<Verdict>) -> String {
    match verdict {
        None => "none".to_owned(),
        Some(Verdict::Verified(found)) => format!("verified: {found}"),
        Some(Verdict::Damaged(why)) => format!("damaged: {why}"),
        Some(Verdict::Empty(why)) => format!("empty: {why}"),
        Some(Verdict::Denied(why)) => format!("denied: {why}"),
        Some(Verdict::Failed(Failure { message, is_transient, reason })) => {
            format!("{reason:?} {}: {message}", if is_transient { "transient" } else { "permanent" })
        }
    }
}

fn reading(outcome: &str, more: Value) -> String {
    let mut reading = json!({"read": outcome, "files": 3, "bytes": 4096});
    for (key, value) in more.as_object().into_iter().flatten() {
        reading[key] = value.clone();
    }
    reading.to_string()
}

#[test]
fn what_our_own_reading_found_is_the_verdict() {
    let named =
        json!({"unreadable": 1, "named": [{"path": "/data/a\u{1b}[2K", "error": "Input/output error"}]});
    for (message, code, said) in [
        (reading("whole", json!({})), 0, "verified: 3 files, "),
        (reading("whole", json!({})), 1, "Other transient: the container ended with exit code 1, though"),
        (reading("unreadable", named), 2, "damaged: 1 file or directory cannot be read: /data/a"),
        (reading("denied", json!({"denied": 1})), 2, "denied: 1 file or directory may not be read"),
        (reading("empty", json!({"empty": true})), 2, "empty: there is nothing in it"),
        // Another version of the image might have been told to allow it.
        (reading("whole", json!({"empty": true})), 0, "empty: there is not one byte"),
        (
            reading("incomplete", json!({"ended": "told to stop"})),
            143,
            "Disturbed transient: not everything was read",
        ),
        (
            "cannot open".to_owned(),
            2,
            "Other permanent: the container ended with exit code 2, and not with a result: cannot",
        ),
        (String::new(), 0, "Other permanent: the container ended with exit code 0, and not with a result"),
        ("{\"read\":\"well\",\"files\":1,\"bytes\":1}".to_owned(), 0, "Other permanent"),
    ] {
        let verdict = verdict(ended(code, "Error", &message), OURS);
        assert!(verdict.starts_with(said), "{message}: {verdict}");
        assert!(!verdict.contains('\u{1b}'), "{verdict}");
    }
    let allowed = Check { allow_empty: true, ..OURS };
    let empty = ended(2, "Error", &reading("empty", json!({"empty": true})));
    assert!(verdict(empty, allowed).starts_with("verified: there is not one byte"));
}

#[test]
fn of_a_command_of_the_users_the_exit_code_is_the_verdict() {
    for (status, said) in [
        (ended(0, "Completed", ""), "verified: the command was content"),
        (ended(0, "Completed", "ok\n"), "verified: the command was content: ok"),
        (ended(1, "Error", "row 7 missing"), "damaged: the command ended with exit code 1: row 7 missing"),
        (ended(127, "Error", "sh: nope"), "Refused permanent: the command could not be started"),
        (ended(128, "StartError", "exec: nope"), "Refused permanent: the command could not be started"),
        (ended(143, "Error", ""), "Disturbed transient"),
        // It might say anything.
        (ended(1, "Error", &reading("whole", json!({}))), "damaged: the command ended with exit code 1"),
    ] {
        let verdict = verdict(status.clone(), USERS);
        assert!(verdict.starts_with(said), "{status}: {verdict}");
    }
}

#[test]
fn what_says_nothing_of_the_data_is_no_verdict_on_it() {
    let mut evicted = ended(137, "Error", "");
    evicted["reason"] = json!("Evicted");
    evicted["message"] = json!("The node was low on resource: ephemeral-storage.");
    let mut drained = ended(143, "Error", &reading("incomplete", json!({})));
    drained["conditions"] = json!([
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"},
    ]);
    let waits =
        |reason: &str| with_state("Pending", json!({"waiting": {"reason": reason, "message": "why"}}));
    for check in [OURS, USERS] {
        for (status, said) in [
            (
                ended(137, "OOMKilled", ""),
                "Other permanent: the container that read the volume was killed for using more",
            ),
            (
                evicted.clone(),
                "Disturbed transient: the pod was ended before it had read the volume: Evicted: The node",
            ),
            (
                drained.clone(),
                "Disturbed transient: the pod was ended before it had read the volume: EvictionBy",
            ),
            (
                json!({"phase": "Failed", "reason": "NodeLost"}),
                "Disturbed transient: the pod was ended before",
            ),
            (
                waits("ImagePullBackOff"),
                "Refused transient: the pod did not read the volume: its image cannot be pulled",
            ),
            (waits("InvalidImageName"), "Refused permanent"),
            (
                waits("CreateContainerConfigError"),
                "Refused permanent: the pod did not read the volume: its container cannot",
            ),
            (waits("ContainerCreating"), "none"),
            (waits("ErrImagePull"), "none"),
            (with_state("Running", json!({"running": {"startedAt": null}})), "none"),
            (json!({"phase": "Pending"}), "none"),
        ] {
            let verdict = verdict(status.clone(), check);
            assert!(verdict.starts_with(said), "{status}: {verdict}");
        }
    }
}

#[test]
fn without_a_pod_the_job_tells() {
    let condition = |kind: &str, reason: &str| json!([{"type": kind, "status": "True", "reason": reason, "message": "m"}]);
    for (conditions, said) in [
        (json!([]), "none"),
        (condition("Failed", "DeadlineExceeded"), "TimeLimit transient: the Job reached its deadline"),
        (condition("FailureTarget", "DeadlineExceeded"), "TimeLimit transient: the Job reached its deadline"),
        (
            condition("Failed", "BackoffLimitExceeded"),
            "Disturbed transient: the pod that read the volume is gone",
        ),
        (
            condition("Complete", "CompletionsReached"),
            "Disturbed transient: the Job is complete, but its pod is gone",
        ),
        (json!([{"type": "Failed", "status": "False"}]), "none"),
    ] {
        let job = job(conditions.clone());
        let verdict = said_of(Seen { job: &job, pod: None }.verdict(OURS));
        assert!(verdict.starts_with(said), "{conditions}: {verdict}");
    }
}

#[test]
fn a_claim_whose_volume_may_be_being_made_is_not_taken_from_under_it() {
    let waits = |reason: &str| with_state("Pending", json!({"waiting": {"reason": reason}}));
    let job = job(json!([]));
    assert!(Seen { job: &job, pod: None }.may_be_deleted(), "there is no claim without a pod");
    for (status, may) in [
        (json!({"phase": "Pending"}), false),
        (json!({"phase": "Failed", "reason": "Evicted"}), false),
        (waits("ContainerCreating"), false),
        (waits("PodInitializing"), false),
        (waits(""), false),
        (waits("ErrImagePull"), true),
        (waits("CreateContainerConfigError"), true),
        (with_state("Running", json!({"running": {}})), true),
        (ended(0, "Completed", ""), true),
        (ended(137, "OOMKilled", ""), true),
    ] {
        let pod = pod(status.clone());
        assert_eq!(Seen { job: &job, pod: Some(&pod) }.may_be_deleted(), may, "{status}");
    }
}

#[test]
fn what_is_waited_for_is_said() {
    let job = job(json!([]));
    let awaited = |status: Option<Value>, complaint: Option<&str>| {
        let pod = status.map(pod);
        let news = News { complaint: complaint.map(str::to_owned), ..News::default() };
        Seen { job: &job, pod: pod.as_ref() }.awaited(&news)
    };
    let unscheduled = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
    ]});
    assert_eq!(awaited(Some(unscheduled), None), "no node takes the pod: 0/3 nodes are available");
    assert_eq!(awaited(None, Some("FailedCreate: quota")), "there is no pod yet: FailedCreate: quota");
    assert_eq!(
        awaited(Some(json!({"phase": "Pending"})), Some("ProvisioningFailed: x")),
        "the volume is being made, or the pod is being started: ProvisioningFailed: x"
    );
    assert_eq!(
        awaited(Some(with_state("Running", json!({"running": {}}))), Some("old")),
        "the volume is being read"
    );
}

#[test]
fn some_events_say_that_no_waiting_helps() {
    let news = |reason: &str, message: &str| {
        let event = json!({"type": "Warning", "reason": reason, "message": message, "lastTimestamp": null});
        let mut news = News::default();
        news.hear_of_claim(&[serde_json::from_value(event).expect("an Event")]);
        news.hopeless.map_or("none".to_owned(), |failure| {
            format!("{:?} {}: {}", failure.reason, failure.is_transient, failure.message)
        })
    };
    for (reason, message, said) in [
        (
            "FailedCreate",
            "Error creating: pods \"x\" is forbidden: exceeded quota: q",
            "Quota true: a ResourceQuota",
        ),
        ("FailedBinding", "ephemeral volume data: exceeded quota: q", "Quota true: a ResourceQuota"),
        (
            "FailedCreate",
            "Error creating: pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"",
            "Refused false: the namespace's PodSecurity level",
        ),
        (
            "FailedCreate",
            "admission webhook \"x\" denied the request: no",
            "Refused false: the cluster does not allow",
        ),
        ("FailedCreate", "Internal error occurred", "none"),
        (
            "ProvisioningFailed",
            "storageclass.storage.k8s.io \"x\" not found",
            "Missing false: the StorageClass",
        ),
        ("ProvisioningFailed", "rpc error: out of space", "none"),
        ("FailedScheduling", "0/1 nodes are available", "none"),
    ] {
        let news = news(reason, message);
        assert!(news.starts_with(said), "{reason} {message}: {news}");
    }
    let mut news = News::default();
    let made = json!({"type": "Normal", "reason": "ProvisioningSucceeded", "message": "Successfully provisioned volume"});
    news.hear(&[serde_json::from_value(made.clone()).expect("an Event")]);
    assert!(!news.is_provisioned, "an Event of something else");
    news.hear_of_claim(&[serde_json::from_value(made).expect("an Event")]);
    assert!(news.is_provisioned && news.complaint.is_none());
}
