//! A Kubernetes API server with a snapshot controller, in process, for tests and demonstrations.
//!
//! A [`FakeApiServer`] listens on a loopback port and answers real HTTP like a cluster of version 1.36 with
//! the CSI snapshot controller: with the same status codes, bodies and messages. A test fills it through
//! [`FakeApiServer::put`], sets the storage's speed with [`FakeApiServer::plan`] and injects faults with
//! [`FakeApiServer::fault`]. Then it runs a client, and checks the remaining objects
//! ([`FakeApiServer::list`]), the requests ([`FakeApiServer::requests`]) and the history of the snapshots
//! ([`FakeApiServer::snapshot_history`]).
//!
//! Pods run scripts of a test's choice. Data, on the volumes of claims, in snapshots and in claims made from
//! those, is any JSON value:
//!
//! ```
//! use fake_apiserver::{FakeApiServer, Options, Script, objects};
//! # use std::time::Duration;
//!
//! # async fn example() {
//! let server = FakeApiServer::start(Options::default()).await;
//! server.furnish("app");
//! server.put(objects::bound_claim("app", "data", &[]));
//! server.put(objects::running_pod("app", "db-0", &["db"], &["data"]));
//! server.start_writer("app", "db-0", Duration::from_millis(1));
//! server.commands(|command| match command.line().as_str() {
//!     "freeze" => Some(Script::new().freeze().prints("frozen\n")),
//!     "thaw" => Some(Script::new().thaw()),
//!     _ => None,
//! });
//! // A client runs `freeze`, makes snapshots, waits until they are taken, and runs `thaw`. Then:
//! assert!(!server.is_frozen("app", "db-0"));
//! assert!(server.freezes("app", "db-0").iter().all(|freeze| freeze.duration() < Duration::from_secs(30)));
//! assert_eq!(server.snapshot_content("app", "of-data"), server.snapshot_content("app", "of-logs"));
//! # }
//! ```
//!
//! # What a test can arrange
//!
//! | to arrange | there is |
//! |---|---|
//! | objects as a cluster has them | [`objects`], [`FakeApiServer::furnish`] |
//! | any object, whatever a server would say of it: odd statuses, hostile names, dates in the past, finalizers and owners of others, deletions that last | [`FakeApiServer::put`], [`objects::terminating`], [`objects::kept`], [`objects::owned`], [`objects::group_member`] |
//! | large objects | [`objects::enlarged`] |
//! | changes by others: label, annotate, update, delete | [`FakeApiServer::label`], [`FakeApiServer::annotate`], [`FakeApiServer::update`], [`FakeApiServer::delete`], [`FakeApiServer::remove`] |
//! | the same between two requests of the binary | [`FakeApiServer::before`], [`FakeApiServer::after`], [`FakeApiServer::at_each`], with [`Others`] |
//! | a claim that is recreated with the same name | [`FakeApiServer::replace_claim`] |
//! | a snapshot controller with a queue, which looks up claims late | [`FakeApiServer::controller_pace`], [`FakeApiServer::controller_takes`] |
//! | snapshots that are late, fail, have given dates, or stay terminating | [`FakeApiServer::plan`] |
//! | snapshots that are taken long before they are ready | [`Plan::taken_after`] |
//! | data on volumes, which snapshots copy and restores bring back | [`FakeApiServer::set_content`] |
//! | volumes that are late or fail | [`FakeApiServer::provision`] |
//! | a free volume that a claim gets instead of its data | [`objects::free_volume`] |
//! | a claim that waits for its first consumer, and the consumer | [`objects::waiting_storage_class`], [`FakeApiServer::use_claim`], [`objects::pod`] |
//! | group snapshots, in the versions that the cluster's CRDs have | [`Options::group_api`], [`objects::group_snapshot`] |
//! | groups that are late, fail, or are taken long before they are ready; members that are never ready | [`FakeApiServer::plan_group`], [`FakeApiServer::plan`] |
//! | groups of the past, with their members | [`objects::ready_group_snapshot`], [`objects::member`] |
//! | Jobs, whose pods get a node and end as a test wants: well, badly, evicted, out of memory, stuck | [`FakeApiServer::plan_pod`], [`PodPlan`], [`Options::job_backoff`] |
//! | pods that are not let in | [`objects::quota_of`], [`objects::restrict`] |
//! | a pod that runs, with several containers, with sidecars | [`objects::running_pod`], [`objects::with_sidecar`] |
//! | commands in its containers: output, input, exit codes, time | [`FakeApiServer::commands`], [`Script`] |
//! | commands that hang, outlive their client, or hold a lock while the client is there | [`Script::hangs`], [`Script::until_input_ends`], [`Script::background`] |
//! | an application that writes, and is frozen and thawed | [`FakeApiServer::start_writer`], [`Script::freeze`], [`FakeApiServer::freeze`] |
//! | a server that speaks only the old protocol with commands | [`Options::exec_protocols`] |
//! | a quota, optionally a slow one | [`FakeApiServer::quota`], [`FakeApiServer::quota_frees_after`], [`objects::quota_of`] |
//! | admission that changes or refuses | [`FakeApiServer::admission_changes`], [`FakeApiServer::admission_denies`] |
//! | permissions | [`FakeApiServer::token`], [`objects::role`], [`objects::role_binding`], [`FakeApiServer::expire_token`] |
//! | a restarted server with cold caches | [`FakeApiServer::cold_after_restart`], [`FakeApiServer::cold`], [`FakeApiServer::restart`] |
//! | requests that fail, are late, or carried out without an answer | [`FakeApiServer::fault`], [`FakeApiServer::fault_nth`], [`FakeApiServer::fault_times`], [`Fault`] |
//! | watches that end, lie or go mute | [`WatchFault`], [`FakeApiServer::mute_watches`], [`FakeApiServer::end_watches`], [`FakeApiServer::expire_watches`], [`FakeApiServer::compact`] |
//! | commands whose stream is cut, goes mute, or ends without a Status | [`ExecFault`] |
//! | a server that is down | [`FakeApiServer::refuse_connections`], [`FakeApiServer::cut_connections`], [`FakeApiServer::turn_away`] |
//! | schedules and their settings | [`objects::cron_job`], [`objects::config_map`] |
//! | whoever is told of a run outside of the cluster | [`Receiver`] |
//!
//! | to look at | there is |
//! |---|---|
//! | objects | [`FakeApiServer::get`], [`FakeApiServer::list`] |
//! | what was asked, to the letter of the URL | [`FakeApiServer::requests`], [`Request::uri`] |
//! | the real source of a snapshot's data | [`FakeApiServer::snapshot_data`], [`Milestone::data`] |
//! | what is on a volume, and what a snapshot holds of it | [`FakeApiServer::content`], [`FakeApiServer::snapshot_content`] |
//! | commands that were run: by whom, with which input, how they ended, whether their client was there | [`FakeApiServer::processes`] |
//! | when and how long a pod was frozen | [`FakeApiServer::freezes`], [`FakeApiServer::is_frozen`] |
//! | volumes that nobody knows of any more | [`FakeApiServer::leaked_volumes`] |
//! | the real source of a claim's data | [`FakeApiServer::restored_from`] |
//! | the history of snapshots and groups, with the users | [`FakeApiServer::snapshot_history`], [`FakeApiServer::group_history`] |
//! | the state at any moment | [`FakeApiServer::journal`] |
//! | bytes, requests at once, watches | [`FakeApiServer::traffic`], [`FakeApiServer::most_in_flight`], [`FakeApiServer::most_watches`] |
//!
//! # Modules
//!
//! | module | what |
//! |---|---|
//! | `server` | the port, its connections, and the processing of a request |
//! | `fault` | injected faults |
//! | `meanwhile` | actions of others around a request |
//! | `call` | parsing of requests |
//! | `auth`, `rbac` | authentication and authorization |
//! | `verbs` | carrying requests out |
//! | `admission`, `policy`, `pod_security`, `validation`, `workload` | defaults, admission and validation |
//! | `watch`, `paging`, `table`, `selector`, `patch`, `event` | the parts of the API that are a topic of their own |
//! | `failure` | all failure messages |
//! | `registry`, `discovery` | which resources there are |
//! | `store` | the objects, their history, and the watchers |
//! | `exec`, `process` | running commands in containers |
//! | `controller`, `groups`, `volumes`, `jobs`, `kubelet`, `pods`, `namespaces`, `quota` | controllers |
//! | `deletion`, `garbage` | what goes, when, and what goes with it |
//! | `contents` | what is on volumes and in snapshots |
//! | `announce` | Events of the controllers |
//! | `cluster` | shared state |
//! | `log`, `history`, `traffic` | what was asked, what became of the snapshots, and what went over the wire |
//! | `tls`, `kubeconfig` | client access |
//! | `receiver` | a server beside the API server |
//! | [`Others`] | changes of objects without the API |
//! | [`Script`] | what commands do |
//! | [`objects`], [`http`] | helpers for tests |
//!
//! The server and its controllers have their own threads. A test may block, panic or pause its clock.

mod admission;
mod announce;
mod auth;
mod call;
mod cluster;
mod contents;
mod controller;
mod deletion;
mod discovery;
mod event;
mod exec;
mod failure;
mod fault;
mod garbage;
mod groups;
mod history;
pub mod http;
mod jobs;
mod kubeconfig;
mod kubelet;
mod log;
mod meanwhile;
mod namespaces;
mod object;
pub mod objects;
mod others;
mod paging;
mod patch;
mod pod_plan;
mod pod_security;
mod pod_status;
mod pods;
mod policy;
mod process;
mod quota;
mod rbac;
mod receiver;
mod registry;
mod script;
mod selector;
mod server;
mod store;
mod table;
mod tls;
mod traffic;
mod validation;
mod verbs;
mod volumes;
mod watch;
mod workload;

pub use controller::{Controller, Pace, Plan, SnapshotData};
pub use fault::{ExecFault, Fault, History, Lasts, WatchFault, When};
pub use groups::GroupApi;
pub use history::{Milestone, Stage, Write};
pub use log::Request;
pub use others::Others;
pub use pod_plan::PodPlan;
pub use pods::Freeze;
pub use process::Process;
pub use receiver::{Received, Receiver, Reply};
pub use script::{Command, Script};
pub use traffic::Traffic;
pub use volumes::{Provision, Provisioner};

use cluster::Cluster;
use kubeconfig::Credentials;
use serde_json::{Value, json};
use server::Server;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tls::Tls;
use tokio::runtime::Runtime;

/// Behaviour of the server. Start with [`Options::default`] and change what a test needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether to use TLS, with a certificate for `localhost` and 127.0.0.1 of its own authority.
    pub tls: bool,
    /// Speed of the snapshot controller.
    pub controller: Controller,
    /// Speed of volume provisioning.
    pub provisioner: Provisioner,
    /// Delay before each request, including watches, is carried out. Default: none.
    pub latency: Duration,
    /// Interval of bookmarks, for clients that ask for them. Default: 500 ms.
    pub bookmark_every: Duration,
    /// Whether snapshots, their classes and contents are served. If not, the server is like a cluster without
    /// the CRDs.
    pub snapshot_api: bool,
    /// Which versions of group snapshots, their classes and contents are served. Default: none.
    pub group_api: GroupApi,
    /// The protocols of `pods/exec` that are served. Default: `v5.channel.k8s.io` and `v4.channel.k8s.io`; before
    /// Kubernetes 1.30 only the latter, in which a client cannot say that its input ends.
    pub exec_protocols: &'static [&'static str],
    /// From a failed pod of a Job until the next one, doubled with each. Default: 10 s.
    pub job_backoff: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tls: false,
            controller: Controller::default(),
            provisioner: Provisioner::default(),
            latency: Duration::ZERO,
            bookmark_every: Duration::from_millis(500),
            snapshot_api: true,
            group_api: GroupApi::default(),
            exec_protocols: exec::PROTOCOLS,
            job_backoff: Duration::from_secs(10),
        }
    }
}

/// A running API server with its controllers. It stops when it is dropped.
///
/// Methods name resources by their plural: `volumesnapshots`, `persistentvolumeclaims`, `events` (in the form
/// of the core group). The namespace of cluster-scoped objects is empty. Only the namespaces `default` and
/// `kube-system` exist from the start.
#[derive(Debug)]
pub struct FakeApiServer {
    cluster: Arc<Cluster>,
    others: Others,
    server: Arc<Server>,
    /// `None` once the server is being stopped.
    runtime: Option<Runtime>,
}

impl FakeApiServer {
    /// Starts a server on a free port of 127.0.0.1. It is ready for requests when this returns.
    ///
    /// # Panics
    ///
    /// If no port, thread or certificate is available.
    pub async fn start(options: Options) -> FakeApiServer {
        let tls = options.tls.then(|| Tls::new().expect("a certificate can be made"));
        // Two threads, so that a long list does not delay the controllers' timers.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fake-apiserver")
            .enable_all()
            .build()
            .expect("threads can be started");
        let cluster = Arc::new(Cluster::new(options));
        runtime.spawn(controller::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(volumes::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(namespaces::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(jobs::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(kubelet::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(garbage::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(quota::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(pods::run(cluster.clone(), cluster.store.subscribe()));
        let server = Server::new(cluster.clone(), tls, runtime.handle().clone()).expect("a port is free");
        server.open().await.expect("a bound socket can listen");
        let others = Others { cluster: cluster.clone() };
        let server = FakeApiServer { cluster, others, server, runtime: Some(runtime) };
        server.put(objects::namespace("default"));
        server.put(objects::namespace("kube-system"));
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Returns the URL, such as `http://127.0.0.1:1234`.
    pub fn url(&self) -> String {
        let scheme = if self.ca_pem().is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// Returns the certificate of the authority in PEM, or `None` without TLS.
    pub fn ca_pem(&self) -> Option<&'static str> {
        self.server.tls().map(|tls| tls.ca_pem)
    }

    /// Returns the token of a user with all permissions.
    pub fn admin_token(&self) -> &str {
        self.cluster.tokens.admin()
    }

    /// Returns a kubeconfig with embedded credentials.
    pub fn kubeconfig(&self, token: &str, namespace: &str) -> String {
        let credentials = Credentials::Inline { token, ca_pem: self.ca_pem() };
        kubeconfig::text(&self.url(), namespace, &credentials)
    }

    /// Returns a kubeconfig that refers to files for the token and, with TLS, the authority's certificate.
    /// The files are not written.
    pub fn kubeconfig_with_token_file(&self, token_file: &Path, ca_file: &Path, namespace: &str) -> String {
        let credentials = Credentials::Files { token: token_file, ca: ca_file };
        kubeconfig::text(&self.url(), namespace, &credentials)
    }

    /// Stores the StorageClass `hostpath`, the default VolumeSnapshotClass `default` and, if group snapshots are
    /// served, the default VolumeGroupSnapshotClass `default-group`, all of the driver [`objects::DRIVER`], and a
    /// namespace.
    pub fn furnish(&self, namespace: &str) {
        self.put(objects::namespace(namespace));
        if self.cluster.options.group_api != GroupApi::None {
            self.put(objects::default_group_snapshot_class("default-group"));
        }
        self.put(objects::storage_class("hostpath"));
        self.put(objects::default_snapshot_class("default"));
    }

    /// Stores an object without validation and admission, and returns it as stored.
    ///
    /// All given fields are kept, including those that a client cannot set. Missing ones (uid,
    /// creationTimestamp, generation, a phase) are filled in, and a missing namespace is created.
    /// Snapshots and group snapshots with a `status`, and claims with a phase other than Pending, are left as they are;
    /// the controllers treat others as new. An existing object is replaced.
    ///
    /// # Panics
    ///
    /// If `apiVersion` and `kind` are unknown, or the name is missing.
    pub fn put(&self, object: Value) -> Value {
        self.others.put(object)
    }

    /// Returns the current state of an object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.others.get(resource, namespace, name)
    }

    /// Returns all objects of a resource, sorted by namespace and name; of all namespaces if `namespace` is
    /// empty.
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.others.list(resource, namespace)
    }

    /// Changes an object without validation and admission, and returns it as stored, or `None` if it does not
    /// exist. Removing the last finalizer of a deleted object removes it.
    pub fn update(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        f: impl FnOnce(&mut Value),
    ) -> Option<Value> {
        self.others.update(resource, namespace, name, f)
    }

    /// Sets a label of an object; `None` removes it.
    ///
    /// # Panics
    ///
    /// If the object does not exist.
    pub fn label(&self, resource: &str, namespace: &str, name: &str, label: &str, value: Option<&str>) {
        self.others.label(resource, namespace, name, label, value);
    }

    /// Sets an annotation of an object; `None` removes it.
    ///
    /// # Panics
    ///
    /// If the object does not exist.
    pub fn annotate(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        annotation: &str,
        value: Option<&str>,
    ) {
        self.others.annotate(resource, namespace, name, annotation, value);
    }

    /// Deletes an object like `kubectl delete`: one with finalizers is terminating until they are removed.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.others.delete(resource, namespace, name);
    }

    /// Removes an object at once, despite finalizers, and returns its last state.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.others.remove(resource, namespace, name)
    }

    /// Deletes a claim and recreates it from the same manifest atomically, and returns the new one. It has
    /// another uid and, if the old one was Bound, another volume. Labels, annotations and size are the same.
    ///
    /// # Panics
    ///
    /// If the claim does not exist.
    pub fn replace_claim(&self, namespace: &str, name: &str) -> Value {
        self.others.replace_claim(namespace, name)
    }

    /// Like [`FakeApiServer::replace_claim`], with a changed manifest.
    ///
    /// # Panics
    ///
    /// If the claim does not exist.
    pub fn replace_claim_with(&self, namespace: &str, name: &str, f: impl FnOnce(&mut Value)) -> Value {
        self.others.replace_claim_with(namespace, name, f)
    }

    /// Returns the source of a snapshot's data, which the snapshot itself does not show: the claim that the
    /// controller found by name when it processed the snapshot, and that claim's volume. `None` if the
    /// controller has not processed it yet. For a snapshot that was put in with a status, it is the claim
    /// that existed then; use [`FakeApiServer::set_snapshot_data`] for a previous claim. [`Milestone::data`]
    /// has it for deleted snapshots.
    pub fn snapshot_data(&self, namespace: &str, name: &str) -> Option<SnapshotData> {
        self.others.snapshot_data(namespace, name)
    }

    /// Sets the source of a snapshot's data.
    ///
    /// # Panics
    ///
    /// If the snapshot does not exist.
    pub fn set_snapshot_data(&self, namespace: &str, name: &str, data: SnapshotData) {
        self.others.set_snapshot_data(namespace, name, data);
    }

    /// Returns the uid of the snapshot that a claim's volume was created from. `None` if it has no volume
    /// yet, or one that was created empty or existed before, whatever the claim's data source.
    pub fn restored_from(&self, namespace: &str, name: &str) -> Option<String> {
        self.others.restored_from(namespace, name)
    }

    /// Returns what is on the volume of a claim; `null` if nothing was ever written, or the claim has no volume. A
    /// snapshot copies it at the moment when it is taken, and a claim that is created from a snapshot gets the copy.
    pub fn content(&self, namespace: &str, claim: &str) -> Value {
        self.others.content(namespace, claim)
    }

    /// Writes to the volume of a claim.
    ///
    /// # Panics
    ///
    /// If the claim does not exist or has no volume.
    pub fn set_content(&self, namespace: &str, claim: &str, content: Value) {
        self.others.set_content(namespace, claim, content);
    }

    /// Returns what a snapshot copied from its claim's volume when it was taken; `None` before that. A snapshot that was
    /// put in with a status has what the volume held then, if the claim was there.
    pub fn snapshot_content(&self, namespace: &str, name: &str) -> Option<Value> {
        self.others.snapshot_content(namespace, name)
    }

    /// Sets what a snapshot holds.
    ///
    /// # Panics
    ///
    /// If the snapshot does not exist.
    pub fn set_snapshot_content(&self, namespace: &str, name: &str, content: Value) {
        self.others.set_snapshot_content(namespace, name, content);
    }

    /// Starts a writer in a pod. It counts up on the volumes of all its claims, at once and at equal intervals, while
    /// the pod is there and not frozen: the content of each is a number.
    pub fn start_writer(&self, namespace: &str, pod: &str, every: Duration) {
        let pod = (namespace.to_owned(), pod.to_owned());
        if let Some(runtime) = &self.runtime {
            runtime.spawn(pods::write(self.cluster.clone(), pod, every));
        }
    }

    /// Sets what commands do that clients run in containers. The closure gets each command; `None` means that the
    /// container does not have it. Without a closure there are no commands.
    ///
    /// Commands run in pods that are Running and have a node, such as [`objects::running_pod`], and in those of their
    /// containers that run.
    pub fn commands(&self, f: impl Fn(&Command) -> Option<Script> + Send + Sync + 'static) {
        self.cluster.set_commands(Arc::new(f));
    }

    /// Returns all processes that were started in containers, in order, whether they run or not.
    pub fn processes(&self) -> Vec<Process> {
        self.others.processes()
    }

    /// Freezes a pod, unless it is frozen: its writers are still until it is thawed, or gone.
    pub fn freeze(&self, namespace: &str, pod: &str) {
        self.others.freeze(namespace, pod);
    }

    /// Thaws a pod, if it is frozen.
    pub fn thaw(&self, namespace: &str, pod: &str) {
        self.others.thaw(namespace, pod);
    }

    /// Returns the times during which a pod was frozen, in order. The last one may last.
    pub fn freezes(&self, namespace: &str, pod: &str) -> Vec<Freeze> {
        self.others.freezes(namespace, pod)
    }

    pub fn is_frozen(&self, namespace: &str, pod: &str) -> bool {
        self.others.is_frozen(namespace, pod)
    }

    /// Makes a pod the first consumer of a claim, so that a claim whose class waits for it is bound, if
    /// possible. Creating a pod with the claim among its volumes does the same.
    ///
    /// # Panics
    ///
    /// If the claim does not exist.
    pub fn use_claim(&self, namespace: &str, name: &str) {
        self.others.use_claim(namespace, name);
    }

    /// Returns a handle to change objects from other tasks.
    pub fn others(&self) -> Others {
        self.others.clone()
    }

    /// Sets the pace of the snapshot controller.
    pub fn controller_pace(&self, pace: Pace) {
        self.cluster.orders.send_modify(|orders| orders.pace = pace);
    }

    /// Makes the snapshot controller process this many from its queue at once, oldest first, regardless of
    /// its pace.
    pub fn controller_takes(&self, number: usize) {
        self.cluster.orders.send_modify(|orders| orders.granted += number);
    }

    /// Returns a token of a ServiceAccount, which is created if it is missing. It has the permissions of the
    /// stored bindings.
    pub fn token(&self, namespace: &str, service_account: &str) -> String {
        if self.get("serviceaccounts", namespace, service_account).is_none() {
            self.put(json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": service_account, "namespace": namespace},
            }));
        }
        self.cluster.tokens.give(namespace, service_account)
    }

    /// Sets the plan for new snapshots. The closure gets the object as created; `None` means ready after
    /// [`Controller::ready_after`]. For a snapshot that was put in with a status, it is called when the
    /// snapshot is deleted.
    pub fn plan(&self, f: impl Fn(&Value) -> Option<Plan> + Send + Sync + 'static) {
        self.cluster.set_planner(Arc::new(f));
    }

    /// Sets the plan for new group snapshots, as [`FakeApiServer::plan`] for snapshots. Their members are snapshots,
    /// with a plan of their own each, from [`FakeApiServer::plan`]: the closure gets the member without a status, with
    /// its claim and its owner. They are made when the data is taken, which is when the controller starts the group
    /// unless its plan says otherwise: a group that is never ready, and not taken either, has none.
    pub fn plan_group(&self, f: impl Fn(&Value) -> Option<Plan> + Send + Sync + 'static) {
        self.cluster.set_group_planner(Arc::new(f));
    }

    /// Sets the plan for claims that could be bound. The closure gets the current claim; `None` means bound
    /// after [`Provisioner::bound_after`]. It is called again whenever something changes for the claim.
    pub fn provision(&self, f: impl Fn(&Value) -> Option<Provision> + Send + Sync + 'static) {
        self.cluster.set_provider(Arc::new(f));
    }

    /// Sets what becomes of new pods, of Jobs and others. The closure gets the pod as created; `None` means that it stays
    /// Pending. Without a closure all do.
    pub fn plan_pod(&self, f: impl Fn(&Value) -> Option<PodPlan> + Send + Sync + 'static) {
        self.cluster.set_pod_planner(Arc::new(f));
    }

    /// Returns the claims, as namespace and name, that went while the storage made their volumes, which nobody knows of
    /// any more: a real provisioner may leave those behind.
    pub fn leaked_volumes(&self) -> Vec<(String, String)> {
        self.cluster.leaked()
    }

    /// Limits the snapshots of a namespace with the ResourceQuota `q`. Terminating ones count. Further
    /// quotas, with other names or for other resources, can be stored or created as in a real cluster, as
    /// long as they limit a `count/...`, `pods`, `persistentvolumeclaims` or `requests.storage`.
    pub fn quota(&self, namespace: &str, snapshots: usize) {
        self.put(objects::quota(namespace, "q", snapshots));
    }

    /// Delays the release of quota in a namespace after a snapshot is gone.
    pub fn quota_frees_after(&self, namespace: &str, delay: Duration) {
        self.cluster.set_quota_delay(namespace, delay);
    }

    /// Drops the history: a watch from, or the next page of a list of, any resourceVersion so far is answered
    /// with 410. Running watches continue.
    pub fn compact(&self) {
        self.cluster.store.compact();
    }

    /// Ends every running watch with an ERROR event of code 410, and drops the history.
    pub fn expire_watches(&self) {
        self.cluster.store.compact();
        let failure = self.cluster.store.expired();
        self.cluster.store.end_watches(Some(&failure));
    }

    /// Ends every running watch without an event, like a timeout.
    pub fn end_watches(&self) {
        self.cluster.store.end_watches(None);
    }

    /// Mutes every running watch: it stays open without any event or end. Later watches are not affected.
    pub fn mute_watches(&self) {
        self.cluster.mute();
    }

    /// Injects faults. The closure gets each request as it arrives, in the order of
    /// [`FakeApiServer::requests`], and returns its fault. Every closure sees every request; the first one in
    /// order of registration that returns a fault wins.
    pub fn fault(&self, f: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) {
        self.cluster.faults.add(f);
    }

    /// Injects a fault into the `n`th matching request from now on, counted from 1.
    pub fn fault_nth(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        n: usize,
        fault: Fault,
    ) {
        self.fault(fault::counted(matches, n..=n, fault));
    }

    /// Injects a fault into this many matching requests from now on.
    pub fn fault_times(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        times: usize,
        fault: Fault,
    ) {
        self.fault(fault::counted(matches, 1..=times, fault));
    }

    /// Makes the server answer matching requests with `code`, 401 or 403, after each restart, like a server
    /// with cold caches: regardless of the user and its roles, with the message of a real denial.
    pub fn cold_after_restart(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        code: u16,
        lasts: Lasts,
    ) {
        self.cluster.faults.chill(fault::Cold::new(matches, code, lasts), false);
    }

    /// Like [`FakeApiServer::cold_after_restart`], but once and from now on.
    pub fn cold(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static, code: u16, lasts: Lasts) {
        self.cluster.faults.chill(fault::Cold::new(matches, code, lasts), true);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.cluster.faults.clear();
    }

    /// Adds an admission policy that changes the objects of matching create and update requests: labels,
    /// annotations, the class, anything. The closure gets the object with its defaults; validation comes
    /// afterwards.
    pub fn admission_changes(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) {
        self.cluster.policies.change(matches, change);
    }

    /// Adds the ValidatingAdmissionPolicy `policy`, which rejects matching creates, updates and deletes.
    /// Other errors come first: missing objects, failed preconditions.
    pub fn admission_denies(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        policy: &str,
        message: &str,
    ) {
        self.cluster.policies.deny(matches, policy, message);
    }

    /// Removes all admission policies.
    pub fn clear_admission(&self) {
        self.cluster.policies.clear();
    }

    /// Runs an action just before the `n`th matching request from now on is carried out, counted from 1. The
    /// request sees the state after the action.
    /// 1. Whoever made the request reads, changes or deletes what is there after the action.
    ///
    /// Requests that a fault prevents from being carried out count as well. Their action runs just before the
    /// answer or the end of the connection; it does not run for requests that hang. So the `n`th attempt of a
    /// repeated request is the `n`th match.
    ///
    /// The action runs on the server's thread and must not block. It can change everything through
    /// [`Others`]; controllers react later.
    ///
    /// ```no_run
    /// # let server: fake_apiserver::FakeApiServer = todo!();
    /// // Between the look at the claims and the first deletion somebody wants everything kept.
    /// server.before(|request| request.is("delete", "volumesnapshots"), 1, |others| {
    ///     others.annotate("persistentvolumeclaims", "app", "data", "volume-snapshotter/retention", Some("all"));
    /// });
    /// ```
    pub fn before(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        n: usize,
        action: impl FnOnce(&Others) + Send + 'static,
    ) {
        self.cluster.meanwhile.add(When::Before, matches, Some(n), meanwhile::once(action));
    }

    /// Like [`FakeApiServer::before`], but just after the request was carried out and before it is answered,
    /// so the client sees the state before the action. A watch has started by then.
    pub fn after(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        n: usize,
        action: impl FnOnce(&Others) + Send + 'static,
    ) {
        self.cluster.meanwhile.add(When::After, matches, Some(n), meanwhile::once(action));
    }

    /// Like [`FakeApiServer::before`], but for every matching request, which is passed to the action.
    pub fn at_each(
        &self,
        when: When,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        action: impl Fn(&Others, &Request) + Send + Sync + 'static,
    ) {
        self.cluster.meanwhile.add(when, matches, None, action);
    }

    /// Removes all actions.
    pub fn clear_actions(&self) {
        self.cluster.meanwhile.clear();
    }

    /// Closes this many of the next connections at once, without sending a byte.
    pub fn turn_away(&self, connections: usize) {
        self.server.turn_away(connections);
    }

    /// Closes the port: when this returns, new connections are refused. Existing ones stay open.
    pub async fn refuse_connections(&self) {
        self.server.close().await.expect("the port is still free");
    }

    pub async fn accept_connections(&self) {
        self.server.open().await.expect("a bound socket can listen");
    }

    /// Closes all current connections.
    pub async fn cut_connections(&self) {
        self.server.cut_connections().await;
    }

    /// Restarts the server: closes the port and all connections, and opens the same port after a time.
    /// Objects, tokens and controllers stay. When this returns, it listens again.
    pub async fn restart(&self, down_for: Duration, history: History) {
        self.server.begin_restart(down_for, history).await.expect("the server comes back");
    }

    /// Switches to a certificate of a new authority, which [`FakeApiServer::ca_pem`] returns from now on.
    /// Existing connections stay open.
    ///
    /// # Panics
    ///
    /// If the server does not use TLS, or no certificate can be created.
    pub fn rotate_ca(&self) {
        assert!(self.ca_pem().is_some(), "a server without TLS has no authority");
        self.server.set_tls(Tls::new().expect("a certificate can be made"));
    }

    /// Expires a token of a ServiceAccount. Other tokens of the account stay valid.
    pub fn expire_token(&self, token: &str) {
        self.cluster.tokens.expire(token);
    }

    /// Returns the resourceVersion of the last write.
    pub fn resource_version(&self) -> u64 {
        self.cluster.store.version()
    }

    /// Returns the requests since the start or the last [`FakeApiServer::clear_requests`], in the order of
    /// their arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.cluster.log.requests()
    }

    /// Returns the milestones of snapshots since the start, in order.
    pub fn snapshot_history(&self) -> Vec<Milestone> {
        self.cluster
            .store
            .milestones()
            .iter()
            .filter(|change| change.resource.plural == "volumesnapshots")
            .flat_map(|change| history::milestones(&self.cluster, change))
            .collect()
    }

    /// Returns the milestones of group snapshots since the start, in order.
    pub fn group_history(&self) -> Vec<Milestone> {
        self.cluster
            .store
            .milestones()
            .iter()
            .filter(|change| change.resource.plural == "volumegroupsnapshots")
            .flat_map(|change| history::milestones(&self.cluster, change))
            .collect()
    }

    /// Returns all writes of snapshots, group snapshots and claims since the start, in order, whoever made them. They
    /// determine the state at any moment, so a model can check each deletion against the state at that time.
    pub fn journal(&self) -> Vec<Write> {
        self.cluster.store.journal().iter().map(|change| history::write(&self.cluster, change)).collect()
    }

    /// Returns bytes and connections since the start or the last [`FakeApiServer::clear_requests`].
    pub fn traffic(&self) -> Traffic {
        self.server.meter.read()
    }

    /// Clears the requests, and resets [`FakeApiServer::traffic`], [`FakeApiServer::most_in_flight`] and
    /// [`FakeApiServer::most_watches`].
    pub fn clear_requests(&self) {
        self.cluster.log.clear();
        self.server.meter.clear();
    }

    /// Returns the maximum number of concurrent requests, without watches.
    pub fn most_in_flight(&self) -> usize {
        self.cluster.log.most_in_flight()
    }

    /// Returns the maximum number of concurrent watches.
    pub fn most_watches(&self) -> usize {
        self.cluster.log.most_watches()
    }

    /// Returns the number of open watches.
    pub fn watches(&self) -> usize {
        self.cluster.log.watches()
    }

    /// Stops the server: when this returns, the port and all connections are closed.
    pub async fn stop(mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for the threads blocks, which an async task must not do.
            let stopped =
                tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            let _ = stopped.await;
        }
    }
}

impl Drop for FakeApiServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
