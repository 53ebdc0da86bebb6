//! The Job controller: defaults, pods, the status, and what ends a Job: success, too many failed pods, its pod failure
//! policy, its deadline. A finished Job goes when its time to live is over.
//!
//! What becomes of the pods is in `kubelet`, and what goes with a Job in `garbage`. A Job that was put into the store with a
//! status, or without a selector, is left as it is.

use crate::announce::{self, Announcement};
use crate::cluster::Cluster;
use crate::deletion::{self, Propagation};
use crate::object;
use crate::pod_security;
use crate::quota;
use crate::registry::known;
use crate::store::{Change, Key, Kind, Writer};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

const JOBS: &str = "jobs";
const PODS: &str = "pods";

/// The finalizer with which the controller makes sure to count every pod.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// From a pod that could not be created until the next try, doubled with each.
const CREATION_BACKOFF: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Sets the fields that are missing.
pub(crate) fn default(fields: &mut Map<String, Value>, values: Value) {
    let Value::Object(values) = values else { return };
    for (field, value) in values {
        fields.entry(field).or_insert(value);
    }
}

/// Fills in what a new Job has without anybody having said it: the labels by which its pods are known, and defaults.
pub(crate) fn complete(job: &mut Value) {
    let (name, uid) = (object::name(job).to_owned(), object::uid(job).to_owned());
    let labels = json!({
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    });
    let spec = object::section(job, "spec");
    default(
        spec,
        json!({
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
            "manualSelector": false,
            "completionMode": "NonIndexed",
            "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed",
        }),
    );
    let template = spec.entry("template").or_insert_with(|| json!({}));
    default(object::section(object::inner(template, "metadata"), "labels"), labels);
    complete_pod(object::section(template, "spec"));
    // Of the Job's own template the server takes the labels over, unless the Job has some already.
    let labels = template["metadata"]["labels"].clone();
    object::metadata(job).entry("labels").or_insert(labels);
}

/// The defaults of a pod's spec.
pub(crate) fn complete_pod(spec: &mut Map<String, Value>) {
    default(
        spec,
        json!({
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        }),
    );
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(template) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec")
            && let Some(template) = template.as_object_mut()
        {
            default(template, json!({"volumeMode": "Filesystem"}));
        }
    }
    for container in spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(container) = container.as_object_mut() else { continue };
        default(
            container,
            json!({
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            }),
        );
    }
}

/// The pod of a Job.
fn pod(job: &Value) -> Value {
    let mut spec = job.pointer("/spec/template/spec").cloned().unwrap_or_default();
    let toleration = |key: &str| {
        json!({
            "key": format!("node.kubernetes.io/{key}"),
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        })
    };
    if let Some(spec) = spec.as_object_mut() {
        default(
            spec,
            json!({
                "tolerations": [toleration("not-ready"), toleration("unreachable")],
                "priority": 0,
                "enableServiceLinks": true,
                "preemptionPolicy": "PreemptLowerPriority",
            }),
        );
    }
    let prefix = format!("{}-", object::name(job));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("{prefix}{}", object::name_suffix()),
            "generateName": prefix,
            "namespace": object::namespace(job),
            "uid": object::new_uid(),
            "generation": 1,
            "creationTimestamp": object::now(),
            "labels": job["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [{
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": object::name(job),
                "uid": object::uid(job),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
            "finalizers": [TRACKING],
        },
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    })
}

/// What is known of a Job besides the object.
struct Known {
    key: Key,
    since: Instant,
    /// How often in a row a pod could not be created.
    refused: u32,
    /// Before this no pod is created.
    not_before: Option<Instant>,
    has_deadline: bool,
    has_time_to_live: bool,
}

struct Worker {
    cluster: Arc<Cluster>,
    /// By uid.
    jobs: HashMap<String, Known>,
    /// To look at a Job again.
    again: UnboundedSender<String>,
}

/// Runs until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    let (again, mut due) = unbounded_channel();
    let mut worker = Worker { cluster, jobs: HashMap::new(), again };
    loop {
        tokio::select! {
            biased;
            change = changes.recv() => match change {
                Some(change) => worker.see(&change),
                None => return,
            },
            Some(uid) = due.recv() => worker.look_at(&uid),
        }
    }
}

/// The uid of the Job that a pod belongs to.
fn job_of(pod: &Value) -> Option<&str> {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut owners = owners.into_iter().flatten();
    let owner = owners.find(|owner| owner["controller"] == true && owner["kind"] == "Job")?;
    Some(object::text(owner, "/uid"))
}

fn is_over(pod: &Value) -> bool {
    matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn condition<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().find(|one| one["type"] == kind && one["status"] == "True")
}

fn is_finished(job: &Value) -> bool {
    condition(job, "Complete").is_some() || condition(job, "Failed").is_some()
}

fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

impl Worker {
    fn see(&mut self, change: &Change) {
        let object = &change.object.value;
        match (change.resource.plural, change.kind) {
            (JOBS, Kind::Deleted) => {
                self.jobs.remove(object::uid(object));
                // Nobody counts its pods any more.
                for pod in self.cluster.store.list(PODS, Some(&change.key.0)) {
                    if job_of(&pod.value) == Some(object::uid(object)) {
                        self.untrack(&pod.value);
                    }
                }
            }
            (JOBS, kind) => {
                let uid = object::uid(object).to_owned();
                // One that was put in without a selector, or has begun, is left as it is.
                let is_new = kind == Kind::Added
                    && object.pointer("/spec/selector").is_some()
                    && object["status"].as_object().is_none_or(Map::is_empty);
                if is_new {
                    let known = Known {
                        key: change.key.clone(),
                        since: change.at,
                        refused: 0,
                        not_before: None,
                        has_deadline: false,
                        has_time_to_live: false,
                    };
                    self.jobs.insert(uid.clone(), known);
                }
                self.look_at(&uid);
            }
            (PODS, _) => match job_of(object).map(str::to_owned) {
                Some(uid) if self.jobs.contains_key(&uid) => self.look_at(&uid),
                _ if object::has_finalizer(object, TRACKING) => {
                    let owner = job_of(object).map(str::to_owned);
                    let jobs = self.cluster.store.list(JOBS, Some(&change.key.0));
                    // One that was left behind by its Job.
                    if !jobs.iter().any(|job| Some(object::uid(&job.value)) == owner.as_deref()) {
                        self.untrack(object);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn untrack(&self, pod: &Value) {
        let key = (object::namespace(pod).to_owned(), object::name(pod).to_owned());
        self.cluster.store.write(|writer| {
            if writer.get(PODS, &key).is_some_and(|found| object::uid(&found.value) == object::uid(pod)) {
                writer.modify(known(PODS), &key, |pod| object::remove_finalizer(pod, TRACKING));
            }
        });
    }

    /// Looks at a Job again at a time.
    fn remind(&self, uid: &str, at: Option<Instant>) {
        // A time too far away to be counted never comes.
        let Some(at) = at else { return };
        let (again, uid) = (self.again.clone(), uid.to_owned());
        tokio::spawn(async move {
            sleep_until(at).await;
            // Nobody listens if the server was stopped meanwhile.
            let _ = again.send(uid);
        });
    }

    /// Does for a Job what can be done now.
    fn look_at(&mut self, uid: &str) {
        let Some(mut found) = self.jobs.remove(uid) else { return };
        let cluster = self.cluster.clone();
        let again = cluster.store.write(|writer| advance(&cluster, writer, uid, &mut found));
        let job = cluster.store.get(JOBS, &found.key).map(|job| job.value.clone()).unwrap_or_default();
        let seconds = |pointer: &str| job.pointer(pointer).and_then(Value::as_u64).map(Duration::from_secs);
        if let Some(limit) = seconds("/spec/activeDeadlineSeconds").filter(|_| !found.has_deadline) {
            found.has_deadline = true;
            self.remind(uid, found.since.checked_add(limit));
        }
        if is_finished(&job)
            && let Some(rest) = seconds("/spec/ttlSecondsAfterFinished")
            && !found.has_time_to_live
        {
            found.has_time_to_live = true;
            let at = Instant::now().checked_add(rest);
            self.remind(uid, at);
            let (cluster, key, uid) = (cluster.clone(), found.key.clone(), uid.to_owned());
            tokio::spawn(async move {
                let Some(at) = at else { return };
                sleep_until(at).await;
                cluster.store.write(|writer| {
                    if writer.get(JOBS, &key).is_some_and(|job| object::uid(&job.value) == uid) {
                        deletion::delete(writer, known(JOBS), &key, Propagation::Foreground);
                    }
                });
            });
        }
        self.jobs.insert(uid.to_owned(), found);
        self.remind(uid, again);
    }
}

/// Takes a Job one step further, and answers when to look at it again though nothing has changed.
fn advance(cluster: &Cluster, writer: &mut Writer<'_>, uid: &str, known_of: &mut Known) -> Option<Instant> {
    let key = known_of.key.clone();
    let job = writer.get(JOBS, &key).filter(|job| object::uid(&job.value) == uid)?.value.clone();
    let is_of_it = |pod: &Value| job_of(pod) == Some(uid);
    let pods: Vec<Value> =
        writer.list_in(PODS, &key.0).map(|pod| pod.value.clone()).filter(|pod| is_of_it(pod)).collect();
    let (mut succeeded, mut failed) = (number(&job, "/status/succeeded"), number(&job, "/status/failed"));
    let mut policy = None;
    for pod in &pods {
        let has_succeeded = object::text(pod, "/status/phase") == "Succeeded";
        // One that is going counts as failed before it has ended.
        let has_failed = !has_succeeded && (is_over(pod) || object::is_deleting(pod));
        if !object::has_finalizer(pod, TRACKING) || !(has_succeeded || has_failed) {
            continue;
        }
        match failure_policy(&job, pod).filter(|_| has_failed) {
            Some(Verdict::Ignore) => {}
            verdict => {
                succeeded += u64::from(has_succeeded);
                failed += u64::from(has_failed);
                if has_failed {
                    // The first failure is replaced after the time, each further one after twice that.
                    let factor = 1 << failed.saturating_sub(1).min(6);
                    known_of.not_before = Instant::now().checked_add(cluster.options.job_backoff * factor);
                }
                if let Some(Verdict::FailJob(why)) = verdict {
                    policy.get_or_insert(why);
                }
            }
        }
        let key = (key.0.clone(), object::name(pod).to_owned());
        writer.modify(known(PODS), &key, |pod| object::remove_finalizer(pod, TRACKING));
    }
    let running = |pod: &&Value| !is_over(pod) && !object::is_deleting(pod);
    let mut active: Vec<String> =
        pods.iter().filter(running).map(|pod| object::name(pod).to_owned()).collect();
    let ending = pods.iter().filter(|pod| !is_over(pod) && object::is_deleting(pod)).count();
    let ready = pods.iter().filter(running).filter(|pod| is_ready(pod)).count();
    let mut again = None;
    let mut conditions: Vec<Value> = Vec::new();
    let mut completed = false;
    if !is_finished(&job) {
        let wanted = number(&job, "/spec/completions").max(1);
        let deadline = job.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_u64);
        let is_late = deadline.is_some_and(|limit| known_of.since.elapsed() >= Duration::from_secs(limit));
        let failure = match condition(&job, "FailureTarget") {
            Some(target) => Some((
                object::text(target, "/reason").to_owned(),
                object::text(target, "/message").to_owned(),
            )),
            None if condition(&job, "SuccessCriteriaMet").is_some() => None,
            None => policy.map(|why| ("PodFailurePolicy".to_owned(), why)).or_else(|| {
                let too_many = failed > number(&job, "/spec/backoffLimit");
                match (too_many, is_late && succeeded < wanted) {
                    (true, _) => {
                        Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
                    }
                    (_, true) => Some(("DeadlineExceeded", "Job was active longer than specified deadline")),
                    _ => None,
                }
                .map(|(reason, message)| (reason.to_owned(), message.to_owned()))
            }),
        };
        if let Some((reason, message)) = failure {
            let is_known = condition(&job, "FailureTarget").is_some();
            if !is_known {
                conditions.push(new_condition("FailureTarget", &reason, &message));
                for pod in active.drain(..) {
                    let key = (key.0.clone(), pod.clone());
                    deletion::delete(writer, known(PODS), &key, Propagation::Background);
                    tell(writer, &job, "Normal", "SuccessfulDelete", &format!("Deleted pod: {pod}"));
                }
            } else if active.is_empty() && ending == 0 {
                conditions.push(new_condition("Failed", &reason, &message));
                tell(writer, &job, "Warning", &reason, &message);
            }
        } else if succeeded >= wanted {
            let reached = ("CompletionsReached", "Reached expected number of succeeded pods");
            if condition(&job, "SuccessCriteriaMet").is_none() {
                conditions.push(new_condition("SuccessCriteriaMet", reached.0, reached.1));
            } else if active.is_empty() && ending == 0 {
                conditions.push(new_condition("Complete", reached.0, reached.1));
                completed = true;
                tell(writer, &job, "Normal", "Completed", "Job completed");
            }
        } else if job["spec"]["suspend"] != true && !object::is_deleting(&job) {
            let wanted = (wanted - succeeded).min(number(&job, "/spec/parallelism"));
            if known_of.not_before.is_some_and(|time| time > Instant::now()) {
                again = known_of.not_before;
            } else {
                let missing = usize::try_from(wanted).unwrap_or(0).saturating_sub(active.len());
                for _ in 0..missing {
                    match make_pod(cluster, writer, &job) {
                        Ok(name) => {
                            known_of.refused = 0;
                            active.push(name);
                        }
                        Err(()) => {
                            let wait = CREATION_BACKOFF * (1 << known_of.refused.min(6));
                            known_of.refused += 1;
                            known_of.not_before = Instant::now().checked_add(wait.min(LONGEST_BACKOFF));
                            again = known_of.not_before;
                            break;
                        }
                    }
                }
            }
        }
    }
    writer.modify(known(JOBS), &key, |job| {
        let status = object::section(job, "status");
        status.entry("startTime").or_insert_with(|| object::now().into());
        status.insert("ready".into(), ready.into());
        status.insert("terminating".into(), ending.into());
        status.entry("uncountedTerminatedPods").or_insert_with(|| json!({}));
        for (field, count) in [("active", active.len() as u64), ("succeeded", succeeded), ("failed", failed)]
        {
            // None is said by nothing.
            match count {
                0 => status.remove(field),
                count => status.insert(field.into(), count.into()),
            };
        }
        if completed {
            status.insert("completionTime".into(), object::now().into());
        }
        if !conditions.is_empty()
            && let Some(all) = status.entry("conditions").or_insert_with(|| json!([])).as_array_mut()
        {
            all.append(&mut conditions);
        }
    });
    again
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn new_condition(kind: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": "True",
        "lastProbeTime": object::now(),
        "lastTransitionTime": object::now(),
        "reason": reason,
        "message": message,
    })
}

/// Creates a pod of a Job, if the cluster lets it in, and answers its name.
fn make_pod(cluster: &Cluster, writer: &mut Writer<'_>, job: &Value) -> Result<String, ()> {
    let pod = pod(job);
    let admitted =
        pod_security::check(writer, &pod).and_then(|()| quota::check(cluster, writer, known(PODS), &pod));
    match admitted {
        Ok(()) => {
            let name = object::name(&pod).to_owned();
            writer.put(known(PODS), pod);
            tell(writer, job, "Normal", "SuccessfulCreate", &format!("Created pod: {name}"));
            Ok(name)
        }
        Err(failure) => {
            let why = format!("Error creating: {}", failure.message);
            tell(writer, job, "Warning", "FailedCreate", &why);
            Err(())
        }
    }
}

fn tell(writer: &mut Writer<'_>, job: &Value, kind: &str, reason: &str, message: &str) {
    let about = ("batch/v1", "Job");
    let said = Announcement { about, object: job, component: "job-controller", kind, reason, message };
    announce::repeat(writer, &said);
}

/// What a Job's policy says of a failed pod.
enum Verdict {
    FailJob(String),
    Ignore,
    Count,
}

/// The first rule of a Job's `podFailurePolicy` that is about a pod.
fn failure_policy(job: &Value, pod: &Value) -> Option<Verdict> {
    let rules = job.pointer("/spec/podFailurePolicy/rules").and_then(Value::as_array)?;
    for (index, rule) in rules.iter().enumerate() {
        let Some(why) = applies(rule, pod) else { continue };
        return Some(match object::text(rule, "/action") {
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {index}")),
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        });
    }
    None
}

/// Why a rule is about a pod, if it is.
fn applies(rule: &Value, pod: &Value) -> Option<String> {
    let of_pod = format!("pod {}/{}", object::namespace(pod), object::name(pod));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if let Some(codes) = rule.get("onExitCodes") {
        let values = list(&codes["values"]);
        let container = object::text(codes, "/containerName");
        for status in list(&pod["status"]["containerStatuses"]) {
            let (name, code) = (object::text(&status, "/name"), &status["state"]["terminated"]["exitCode"]);
            let is_meant = container.is_empty() || container == name;
            // Success is never a failure, whatever the rule lists.
            if !is_meant || code.as_i64().is_none_or(|code| code == 0) {
                continue;
            }
            if values.contains(code) == (object::text(codes, "/operator") == "In") {
                return Some(format!("Container {name} for {of_pod} failed with exit code {code}"));
            }
        }
    }
    for pattern in list(&rule["onPodConditions"]) {
        let (kind, status) = (object::text(&pattern, "/type"), object::text(&pattern, "/status"));
        let wanted = if status.is_empty() { "True" } else { status };
        let has = |one: &Value| one["type"] == kind && one["status"] == wanted;
        if list(&pod["status"]["conditions"]).iter().any(has) {
            return Some(format!(
                "Pod {}/{} has condition {kind}",
                object::namespace(pod),
                object::name(pod)
            ));
        }
    }
    None
}
