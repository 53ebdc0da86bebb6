//! State that all requests and controllers share: store, tokens, plans, faults, actions and log.

use crate::auth::Tokens;
use crate::contents::Contents;
use crate::controller::{Orders, SnapshotData};
use crate::fault::Faults;
use crate::log::Log;
use crate::meanwhile::Meanwhile;
use crate::object;
use crate::pods::Pods;
use crate::policy::Policies;
use crate::process::Processes;
use crate::registry::{GROUP_SNAPSHOT_GROUP, Resource, SNAPSHOT_GROUP};
use crate::script::{Command, Script};
use crate::store::{Key, Store};
use crate::{Options, Plan, PodPlan, Provision};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

type Provider = Arc<dyn Fn(&Value) -> Option<Provision> + Send + Sync>;
type Planner = Arc<dyn Fn(&Value) -> Option<Plan> + Send + Sync>;
type PodPlanner = Arc<dyn Fn(&Value) -> Option<PodPlan> + Send + Sync>;
type Commands = Arc<dyn Fn(&Command) -> Option<Script> + Send + Sync>;

/// Number of writes that watches and later pages of lists can go back.
const HISTORY: usize = 50_000;

pub(crate) struct Cluster {
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) tokens: Tokens,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    pub(crate) meanwhile: Meanwhile,
    pub(crate) policies: Policies,
    /// Number of times that all watches were muted.
    mute: AtomicU64,
    /// Pace of the snapshot controller.
    pub(crate) orders: watch::Sender<Orders>,
    /// The source of each snapshot's data, by uid. Deleted snapshots are included.
    data: Mutex<HashMap<String, SnapshotData>>,
    /// Uids of the snapshots that volumes were created from, by the volume's name.
    restored: Mutex<HashMap<String, String>>,
    /// The claims that are being snapshotted, with the uids of the snapshots.
    sources: Mutex<HashMap<Key, HashSet<String>>>,
    pub(crate) contents: Contents,
    pub(crate) pods: Pods,
    pub(crate) processes: Processes,
    commands: Mutex<Option<Commands>>,
    planner: Mutex<Option<Planner>>,
    group_planner: Mutex<Option<Planner>>,
    provider: Mutex<Option<Provider>>,
    pod_planner: Mutex<Option<PodPlanner>>,
    /// Claims that went while the storage made their volumes.
    leaked: Mutex<Vec<Key>>,
    /// Delay until a namespace's quota notices that a snapshot is gone.
    quota_delays: Mutex<HashMap<String, Duration>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Cluster {
    pub(crate) fn new(options: Options) -> Cluster {
        Cluster {
            store: Store::new(HISTORY),
            options,
            tokens: Tokens::new(),
            log: Log::default(),
            faults: Faults::default(),
            meanwhile: Meanwhile::default(),
            policies: Policies::default(),
            mute: AtomicU64::new(0),
            orders: watch::Sender::new(Orders::default()),
            data: Mutex::default(),
            restored: Mutex::default(),
            sources: Mutex::default(),
            contents: Contents::default(),
            pods: Pods::default(),
            processes: Processes::default(),
            commands: Mutex::default(),
            planner: Mutex::default(),
            group_planner: Mutex::default(),
            provider: Mutex::default(),
            pod_planner: Mutex::default(),
            leaked: Mutex::default(),
            quota_delays: Mutex::default(),
        }
    }

    /// Whether a resource is served. Snapshots and group snapshots can be left out, as in a cluster without the
    /// CRDs.
    pub(crate) fn serves(&self, resource: &Resource) -> bool {
        match resource.group {
            SNAPSHOT_GROUP => self.options.snapshot_api,
            GROUP_SNAPSHOT_GROUP => self.options.group_api.serves(resource.version),
            _ => true,
        }
    }

    /// What users of a resource are warned of, if its version is deprecated.
    pub(crate) fn deprecation(&self, resource: &Resource) -> Option<String> {
        let newest = self.options.group_api.newest()?;
        let is_old = resource.group == GROUP_SNAPSHOT_GROUP && resource.version == "v1beta1";
        (is_old && newest != resource.version).then(|| {
            let (version, group, kind) = (resource.api_version(), resource.group, resource.kind);
            format!("{version} {kind} is deprecated; use {group}/{newest} {kind}")
        })
    }

    /// Returns how often watches were muted, for watches that start now.
    pub(crate) fn muted(&self) -> u64 {
        self.mute.load(Ordering::SeqCst)
    }

    /// Mutes all current watches.
    pub(crate) fn mute(&self) {
        self.mute.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the source of a snapshot's data, if it is known.
    pub(crate) fn data(&self, snapshot: &Value) -> Option<SnapshotData> {
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        data.get(object::uid(snapshot)).cloned()
    }

    pub(crate) fn set_data(&self, snapshot_uid: &str, of: SnapshotData) {
        self.data.lock().unwrap_or_else(PoisonError::into_inner).insert(snapshot_uid.to_owned(), of);
    }

    /// Returns the uid of the snapshot that a volume was created from.
    pub(crate) fn restored(&self, volume: &str) -> Option<String> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner).get(volume).cloned()
    }

    pub(crate) fn set_restored(&self, volume: &str, snapshot_uid: &str) {
        let mut restored = self.restored.lock().unwrap_or_else(PoisonError::into_inner);
        restored.insert(volume.to_owned(), snapshot_uid.to_owned());
    }

    /// The claims that are being snapshotted, with the uids of the snapshots. Lock this after the store.
    pub(crate) fn sources(&self) -> MutexGuard<'_, HashMap<Key, HashSet<String>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_planner(&self, planner: Planner) {
        *self.planner.lock().unwrap_or_else(PoisonError::into_inner) = Some(planner);
    }

    pub(crate) fn set_group_planner(&self, planner: Planner) {
        *self.group_planner.lock().unwrap_or_else(PoisonError::into_inner) = Some(planner);
    }

    /// Returns the plan for a snapshot.
    pub(crate) fn plan(&self, snapshot: &Value) -> Plan {
        self.planned(&self.planner, snapshot)
    }

    /// Returns the plan for a group snapshot.
    pub(crate) fn plan_group(&self, group: &Value) -> Plan {
        self.planned(&self.group_planner, group)
    }

    fn planned(&self, planner: &Mutex<Option<Planner>>, object: &Value) -> Plan {
        // A test's closure runs without the lock, so that it may set another one.
        let planner = planner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        planner
            .and_then(|planner| planner(object))
            .unwrap_or_else(|| Plan::ready_after(self.options.controller.ready_after))
    }

    pub(crate) fn set_commands(&self, commands: Commands) {
        *self.commands.lock().unwrap_or_else(PoisonError::into_inner) = Some(commands);
    }

    /// Returns what a command does.
    pub(crate) fn script(&self, command: &Command) -> Script {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone();
        commands.and_then(|commands| commands(command)).unwrap_or_else(Script::missing)
    }

    pub(crate) fn set_provider(&self, provider: Provider) {
        *self.provider.lock().unwrap_or_else(PoisonError::into_inner) = Some(provider);
    }

    /// Returns the plan for a claim.
    pub(crate) fn provision(&self, claim: &Value) -> Provision {
        let provider = self.provider.lock().unwrap_or_else(PoisonError::into_inner).clone();
        provider
            .and_then(|provider| provider(claim))
            .unwrap_or_else(|| Provision::after(self.options.provisioner.bound_after))
    }

    pub(crate) fn set_pod_planner(&self, planner: PodPlanner) {
        *self.pod_planner.lock().unwrap_or_else(PoisonError::into_inner) = Some(planner);
    }

    /// Returns the plan for a pod, if it has one.
    pub(crate) fn plan_pod(&self, pod: &Value) -> Option<PodPlan> {
        let planner = self.pod_planner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        planner.and_then(|planner| planner(pod))
    }

    /// Remembers that the volume of a claim was left behind.
    pub(crate) fn leak(&self, claim: &Key) {
        self.leaked.lock().unwrap_or_else(PoisonError::into_inner).push(claim.clone());
    }

    pub(crate) fn leaked(&self) -> Vec<Key> {
        self.leaked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_quota_delay(&self, namespace: &str, delay: Duration) {
        let mut delays = self.quota_delays.lock().unwrap_or_else(PoisonError::into_inner);
        delays.insert(namespace.to_owned(), delay);
    }

    /// Delay until a namespace's quota notices that a snapshot is gone.
    pub(crate) fn quota_delay(&self, namespace: &str) -> Duration {
        let delays = self.quota_delays.lock().unwrap_or_else(PoisonError::into_inner);
        delays.get(namespace).copied().unwrap_or_default()
    }
}
