//! Pods: whether they are frozen, the writers in them, their logs, their claims, and what goes when a pod goes.
//!
//! A pod runs that is put in with the phase Running, or that `kubelet` has started. `exec` runs commands in it.

use crate::call::Call;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::object;
use crate::store::{Change, Key, Kind, Writer};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

const PODS: &str = "pods";
const CLAIMS: &str = "persistentvolumeclaims";

/// The only node.
pub(crate) const NODE: &str = "node-1";
/// The address of its kubelet, which pods have that it looks after.
pub(crate) const HOST_IP: &str = "10.0.0.1";

/// A time during which a pod was frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freeze {
    pub since: Instant,
    /// `None`: it still is.
    pub until: Option<Instant>,
}

impl Freeze {
    /// Returns how long it was, or has been so far.
    pub fn duration(&self) -> Duration {
        self.until.unwrap_or_else(Instant::now).saturating_duration_since(self.since)
    }
}

/// What is known of pods besides the objects.
#[derive(Default)]
pub(crate) struct Pods {
    freezes: Mutex<HashMap<Key, Vec<Freeze>>>,
    /// By uid.
    logs: Mutex<HashMap<String, String>>,
}

impl Pods {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Freeze>>> {
        self.freezes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_log(&self, uid: &str, text: &str) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.insert(uid.to_owned(), text.to_owned());
    }

    fn log_of(&self, uid: &str) -> String {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(uid).cloned().unwrap_or_default()
    }

    /// Freezes a pod, unless it is frozen. When this returns, its writers are still.
    pub(crate) fn freeze(&self, namespace: &str, pod: &str) {
        let mut freezes = self.lock();
        let freezes = freezes.entry((namespace.to_owned(), pod.to_owned())).or_default();
        if freezes.last().is_none_or(|last| last.until.is_some()) {
            freezes.push(Freeze { since: Instant::now(), until: None });
        }
    }

    pub(crate) fn thaw(&self, namespace: &str, pod: &str) {
        let mut freezes = self.lock();
        let freezes = freezes.get_mut(&(namespace.to_owned(), pod.to_owned()));
        if let Some(last) = freezes.and_then(|freezes| freezes.last_mut()) {
            last.until.get_or_insert_with(Instant::now);
        }
    }

    pub(crate) fn freezes(&self, namespace: &str, pod: &str) -> Vec<Freeze> {
        self.lock().get(&(namespace.to_owned(), pod.to_owned())).cloned().unwrap_or_default()
    }

    /// Does something unless the pod is frozen. It cannot become so meanwhile.
    fn unless_frozen(&self, key: &Key, deed: impl FnOnce()) {
        let freezes = self.lock();
        let last = freezes.get(key).and_then(|freezes| freezes.last());
        if last.is_none_or(|last| last.until.is_some()) {
            deed();
        }
    }
}

/// Ends what goes with a pod that is gone, until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    while let Some(change) = changes.recv().await {
        if change.resource.plural == PODS && change.kind == Kind::Deleted {
            let (namespace, pod) = &change.key;
            cluster.processes.kill(namespace, pod);
            cluster.pods.thaw(namespace, pod);
        }
    }
}

/// Counts up on all volumes of a pod at equal intervals, while it is there and not frozen.
pub(crate) async fn write(cluster: Arc<Cluster>, pod: Key, every: Duration) {
    let uid = match cluster.store.get(PODS, &pod) {
        Some(found) => object::uid(&found.value).to_owned(),
        None => return,
    };
    // An interval cannot be of no length.
    let mut ticks = interval(every.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let found = cluster.store.get(PODS, &pod).filter(|found| object::uid(&found.value) == uid);
        let Some(found) = found else { return };
        let volumes = volumes(&cluster, &found.value);
        cluster.pods.unless_frozen(&pod, || {
            let volumes = volumes.iter().map(String::as_str);
            cluster.contents.change(volumes, |content| *content = (content.as_u64().unwrap_or(0) + 1).into());
        });
    }
}

/// The names of the volumes that a pod's claims are bound to.
fn volumes(cluster: &Cluster, pod: &Value) -> Vec<String> {
    claims(pod)
        .filter_map(|claim| cluster.store.get(CLAIMS, &(object::namespace(pod).to_owned(), claim)))
        .map(|claim| object::text(&claim.value, "/spec/volumeName").to_owned())
        .filter(|volume| !volume.is_empty())
        .collect()
}

/// The names of a pod's claims, those of its ephemeral volumes included.
pub(crate) fn claims(pod: &Value) -> impl Iterator<Item = String> {
    claimed(pod).map(|(_, claim)| claim)
}

/// A pod's volumes with the claims that they are of.
pub(crate) fn claimed(pod: &Value) -> impl Iterator<Item = (String, String)> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    volumes.filter_map(move |one| {
        let (volume, claim) =
            (object::text(one, "/name"), object::text(one, "/persistentVolumeClaim/claimName"));
        let claim = match one.get("ephemeral") {
            Some(_) => ephemeral_claim(pod, volume),
            None => claim.to_owned(),
        };
        (!claim.is_empty()).then(|| (volume.to_owned(), claim))
    })
}

/// The names and claim templates of a pod's ephemeral volumes.
pub(crate) fn ephemeral(pod: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    volumes
        .filter_map(|one| Some((object::text(one, "/name"), one.pointer("/ephemeral/volumeClaimTemplate")?)))
}

/// The name of the claim of an ephemeral volume.
pub(crate) fn ephemeral_claim(pod: &Value, volume: &str) -> String {
    format!("{}-{volume}", object::name(pod))
}

/// Whether a claim was made for a pod, and not only has the name.
pub(crate) fn is_claim_of(claim: &Value, pod: &Value) -> bool {
    let owners = claim.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|one| one["controller"] == true && one["uid"] == pod["metadata"]["uid"])
}

/// Whether a pod that is there uses a claim: it has a node. One that was deleted and has ended uses its ephemeral volumes
/// no more.
pub(crate) fn are_using(writer: &Writer<'_>, claim: &Value) -> bool {
    let uses = |pod: &Value| {
        let is_shut_down = object::is_deleting(pod) && !object::is_graceful(pod);
        let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
        !object::text(pod, "/spec/nodeName").is_empty()
            && volumes.into_iter().flatten().any(|volume| {
                let by_name = object::text(volume, "/persistentVolumeClaim/claimName") == object::name(claim);
                let as_ephemeral = !is_shut_down
                    && volume.get("ephemeral").is_some()
                    && ephemeral_claim(pod, object::text(volume, "/name")) == object::name(claim)
                    && is_claim_of(claim, pod);
                by_name || as_ephemeral
            })
    };
    writer.list_in(PODS, object::namespace(claim)).any(|pod| uses(&pod.value))
}

/// Whether the kubelet looks after the containers of a pod.
pub(crate) fn is_hosted(pod: &Value) -> bool {
    object::text(pod, "/status/hostIP") == HOST_IP
        && !matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// How many seconds the containers of a pod have to end.
pub(crate) fn grace(pod: &Value) -> u64 {
    pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30)
}

/// At most this many bytes of a text from its beginning, whole characters.
pub(crate) fn first_bytes(text: &str, bytes: usize) -> &str {
    let ends = text.char_indices().map(|(at, one)| at + one.len_utf8());
    let end = ends.take_while(|end| *end <= bytes).last().unwrap_or(0);
    &text[..end]
}

/// The log of one of a pod's containers, or of the only one.
pub(crate) fn log(cluster: &Cluster, pod: &Value, call: &Call) -> Result<String, Failure> {
    let name = object::name(pod);
    let [containers, init] = containers(pod);
    let container =
        match (call.parameter("container"), containers.as_slice()) {
            ("", [only]) if init.is_empty() => only,
            ("", all) => {
                let all: Vec<&str> = init.iter().chain(all).copied().collect();
                return Err(Failure::bad_request(format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    all.join(" ")
                )));
            }
            (wanted, all) => all.iter().chain(&init).find(|one| **one == wanted).ok_or_else(|| {
                Failure::bad_request(format!("container {wanted} is not valid for pod {name}"))
            })?,
        };
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let status = statuses.into_iter().flatten().find(|status| status["name"] == *container);
    let waiting = status.map_or_else(
        || Some(if object::text(pod, "/spec/nodeName").is_empty() { "" } else { "ContainerCreating" }),
        |status| status.pointer("/state/waiting/reason").and_then(Value::as_str),
    );
    match waiting {
        // One that has no node has no log.
        Some("") => return Ok(String::new()),
        Some(reason) => {
            return Err(Failure::bad_request(format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {reason}"
            )));
        }
        None => {}
    }
    let mut text = cluster.pods.log_of(object::uid(pod));
    if let Ok(lines) = call.parameter("tailLines").parse::<usize>() {
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        text = all[all.len().saturating_sub(lines)..].concat();
    }
    if let Ok(bytes) = call.parameter("limitBytes").parse::<usize>() {
        text = first_bytes(&text, bytes).to_owned();
    }
    Ok(text)
}

/// The names of a pod's containers, and those of its init containers.
pub(crate) fn containers(pod: &Value) -> [Vec<&str>; 2] {
    ["/spec/containers", "/spec/initContainers"].map(|pointer| {
        let containers = pod.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        containers.map(|container| object::text(container, "/name")).collect()
    })
}

/// Whether a container runs, as far as the pod's status tells.
pub(crate) fn runs(pod: &Value, container: &str) -> bool {
    let statuses = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let mut statuses = statuses.into_iter().filter_map(|pointer| pod.pointer(pointer)?.as_array()).flatten();
    match statuses.find(|status| object::text(status, "/name") == container) {
        Some(status) => status.pointer("/state/running").is_some(),
        None => object::text(pod, "/status/phase") == "Running",
    }
}
