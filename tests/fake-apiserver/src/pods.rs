//! Pods: whether they are frozen, the writers in them, and what goes when a pod goes.
//!
//! Nothing makes a pod run: one that is put in with the phase Running does. `exec` runs commands in it.

use crate::cluster::Cluster;
use crate::object;
use crate::store::{Change, Key, Kind};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

const PODS: &str = "pods";
const CLAIMS: &str = "persistentvolumeclaims";

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
pub(crate) struct Pods(Mutex<HashMap<Key, Vec<Freeze>>>);

impl Pods {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Freeze>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        .filter_map(|claim| cluster.store.get(CLAIMS, &(object::namespace(pod).to_owned(), claim.to_owned())))
        .map(|claim| object::text(&claim.value, "/spec/volumeName").to_owned())
        .filter(|volume| !volume.is_empty())
        .collect()
}

/// The names of a pod's claims.
pub(crate) fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    volumes.map(|one| object::text(one, "/persistentVolumeClaim/claimName")).filter(|name| !name.is_empty())
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
