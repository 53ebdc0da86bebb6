//! A Kubernetes API server with a snapshot controller, in process, for tests and demonstrations.
//!
//! A [`FakeApiServer`] listens on a port of the loopback interface and answers real HTTP as a cluster of version 1.36 with the
//! CSI snapshot controller does: the same status codes, bodies and messages. A test fills it through [`FakeApiServer::put`],
//! says with [`FakeApiServer::plan`] how fast the storage is and with [`FakeApiServer::fault`] what goes wrong with requests, lets a
//! client loose on it, and looks at what is left ([`FakeApiServer::list`]), what was asked ([`FakeApiServer::requests`]) and what
//! became of the snapshots ([`FakeApiServer::snapshot_history`]).
//!
//! # What a test can arrange
//!
//! | to arrange | there is |
//! |---|---|
//! | objects as a cluster has them | [`objects`], [`FakeApiServer::furnish`] |
//! | any object, whatever a server would say of it: odd statuses, hostile names, dates in the past, finalizers and owners of others, deletions that last | [`FakeApiServer::put`], [`objects::terminating`], [`objects::kept`], [`objects::owned`], [`objects::group_member`] |
//! | large objects | [`objects::enlarged`] |
//! | what others do: label, annotate, change, delete | [`FakeApiServer::label`], [`FakeApiServer::annotate`], [`FakeApiServer::update`], [`FakeApiServer::delete`], [`FakeApiServer::remove`] |
//! | the same between two requests of the binary | [`FakeApiServer::before`], [`FakeApiServer::after`], [`FakeApiServer::at_each`], with [`Others`] |
//! | a claim that is made anew under its name | [`FakeApiServer::replace_claim`] |
//! | a snapshot controller that has a queue, and looks claims up late | [`FakeApiServer::controller_pace`], [`FakeApiServer::controller_takes`] |
//! | snapshots that are late, failing, dated, or do not go | [`FakeApiServer::plan`] |
//! | volumes that are late or fail | [`FakeApiServer::provision`] |
//! | a free volume that a claim gets instead of its data | [`objects::free_volume`] |
//! | a claim that waits for its first consumer, and the consumer | [`objects::waiting_storage_class`], [`FakeApiServer::use_claim`], [`objects::pod`] |
//! | a quota, perhaps a slow one | [`FakeApiServer::quota`], [`FakeApiServer::quota_frees_after`] |
//! | admission that changes or refuses | [`FakeApiServer::admission_changes`], [`FakeApiServer::admission_denies`] |
//! | who may do what | [`FakeApiServer::token`], [`objects::role`], [`objects::role_binding`], [`FakeApiServer::expire_token`] |
//! | a restarted server that does not know that yet | [`FakeApiServer::cold_after_restart`], [`FakeApiServer::cold`], [`FakeApiServer::restart`] |
//! | requests that fail, are late, or carried out without an answer | [`FakeApiServer::fault`], [`FakeApiServer::fault_nth`], [`FakeApiServer::fault_times`], [`Fault`] |
//! | watches that end, lie or go mute | [`WatchFault`], [`FakeApiServer::mute_watches`], [`FakeApiServer::end_watches`], [`FakeApiServer::expire_watches`], [`FakeApiServer::compact`] |
//! | a server that is away | [`FakeApiServer::refuse_connections`], [`FakeApiServer::cut_connections`], [`FakeApiServer::turn_away`] |
//! | schedules and their settings | [`objects::cron_job`], [`objects::config_map`] |
//!
//! | to look at | there is |
//! |---|---|
//! | what there is | [`FakeApiServer::get`], [`FakeApiServer::list`] |
//! | what was asked, to the letter of the URL | [`FakeApiServer::requests`], [`Request::uri`] |
//! | of which claim and volume a snapshot really is | [`FakeApiServer::snapshot_data`], [`Milestone::data`] |
//! | which snapshot's data a claim really has | [`FakeApiServer::restored_from`] |
//! | what became of snapshots, and who did it | [`FakeApiServer::snapshot_history`] |
//! | what there was at any moment | [`FakeApiServer::journal`] |
//! | bytes, requests at once, watches | [`FakeApiServer::traffic`], [`FakeApiServer::most_in_flight`], [`FakeApiServer::most_watches`] |
//!
//! # Where things are
//!
//! | module | what |
//! |---|---|
//! | `server` | the port, its connections, and the way of a request through the server |
//! | `fault` | what goes wrong with requests |
//! | `meanwhile` | what others do around a request |
//! | `call` | what a request means |
//! | `auth`, `rbac` | who asks, and whether they may |
//! | `verbs` | carrying requests out |
//! | `admission`, `policy`, `validation` | what happens to an object on its way in, and what it must be like |
//! | `watch`, `paging`, `table`, `selector`, `patch`, `event` | the parts of the API that are a topic of their own |
//! | `failure` | every message of refusal |
//! | `registry`, `discovery` | which resources there are |
//! | `store` | the objects, their history, those who watch |
//! | `controller`, `volumes`, `jobs`, `namespaces`, `quota` | what moves by itself |
//! | `announce` | what the controllers say in Events |
//! | `cluster` | what all of these share |
//! | `log`, `history`, `traffic` | what was asked, what became of the snapshots, and what went over the wire |
//! | `tls`, `kubeconfig` | how clients get in |
//! | [`Others`] | what happens to objects past the API |
//! | [`objects`], [`http`] | helpers for tests |
//!
//! The server and its controllers have threads of their own. A test may block, panic or stop its own clock.

mod admission;
mod announce;
mod auth;
mod call;
mod cluster;
mod controller;
mod discovery;
mod event;
mod failure;
mod fault;
mod history;
pub mod http;
mod jobs;
mod kubeconfig;
mod log;
mod meanwhile;
mod namespaces;
mod object;
pub mod objects;
mod others;
mod paging;
mod patch;
mod policy;
mod quota;
mod rbac;
mod registry;
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

pub use controller::{Controller, Pace, Plan, SnapshotData};
pub use fault::{Fault, History, Lasts, WatchFault, When};
pub use history::{Milestone, Stage, Write};
pub use log::Request;
pub use others::Others;
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

/// How a bed behaves. Build it with [`Options::default`] and change what must be different.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether it speaks TLS, with a certificate for `localhost` and 127.0.0.1 of an authority of its own.
    pub tls: bool,
    /// How fast the snapshot controller is.
    pub controller: Controller,
    /// How fast volumes are made.
    pub provisioner: Provisioner,
    /// Added to every request, watches too, before it is carried out. Nothing.
    pub latency: Duration,
    /// From one bookmark of a watch to the next, for clients that want bookmarks. 500 ms.
    pub bookmark_every: Duration,
    /// Whether snapshots, their classes and contents are served. In a cluster without their definitions they are not.
    pub snapshot_api: bool,
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
        }
    }
}

/// A running API server with its controllers. It stops when it is dropped.
///
/// Resources are given by their plural names: `volumesnapshots`, `persistentvolumeclaims`, `events` (in the form of the
/// core group). The namespace of cluster-scoped objects is empty. The namespaces `default` and `kube-system` exist from
/// the start, and nothing else does.
#[derive(Debug)]
pub struct FakeApiServer {
    cluster: Arc<Cluster>,
    others: Others,
    server: Arc<Server>,
    /// `None` once it is being stopped.
    runtime: Option<Runtime>,
}

impl FakeApiServer {
    /// Starts a bed on a free port of 127.0.0.1. It is ready for requests when this returns.
    ///
    /// # Panics
    ///
    /// There is no port, thread or certificate to be had.
    pub async fn start(options: Options) -> FakeApiServer {
        let tls = options.tls.then(|| Tls::new().expect("a certificate can be made"));
        // Two: a long list must not hold up the controllers' timers.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("testbed")
            .enable_all()
            .build()
            .expect("threads can be started");
        let cluster = Arc::new(Cluster::new(options));
        runtime.spawn(controller::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(volumes::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(namespaces::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(jobs::run(cluster.clone(), cluster.store.subscribe()));
        runtime.spawn(quota::run(cluster.clone(), cluster.store.subscribe()));
        let server = Server::new(cluster.clone(), tls, runtime.handle().clone()).expect("a port is free");
        server.open().await.expect("a bound socket can listen");
        let others = Others { cluster: cluster.clone() };
        let server = FakeApiServer { cluster, others, server, runtime: Some(runtime) };
        server.put(objects::namespace("default"));
        server.put(objects::namespace("kube-system"));
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Where it listens, with the scheme: `http://127.0.0.1:1234`.
    pub fn url(&self) -> String {
        let scheme = if self.ca_pem().is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// The certificate of the authority, in PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&'static str> {
        self.server.tls().map(|tls| tls.ca_pem)
    }

    /// The token of a user that may do everything.
    pub fn admin_token(&self) -> &str {
        self.cluster.tokens.admin()
    }

    /// The text of a kubeconfig with everything in it.
    pub fn kubeconfig(&self, token: &str, namespace: &str) -> String {
        let credentials = Credentials::Inline { token, ca_pem: self.ca_pem() };
        kubeconfig::text(&self.url(), namespace, &credentials)
    }

    /// The text of a kubeconfig that refers to files for the token and, with TLS, the authority's certificate. The files
    /// are not written.
    pub fn kubeconfig_with_token_file(&self, token_file: &Path, ca_file: &Path, namespace: &str) -> String {
        let credentials = Credentials::Files { token: token_file, ca: ca_file };
        kubeconfig::text(&self.url(), namespace, &credentials)
    }

    /// Puts the StorageClass `hostpath` and the VolumeSnapshotClass `default`, which is the default one, into the bed,
    /// both of the driver [`objects::DRIVER`], and a namespace.
    pub fn furnish(&self, namespace: &str) {
        self.put(objects::namespace(namespace));
        self.put(objects::storage_class("hostpath"));
        self.put(objects::default_snapshot_class("default"));
    }

    /// Puts an object straight into the store, past validation and admission, and answers it as stored.
    ///
    /// Every given field is kept, with those that a client cannot set; missing ones (uid, creationTimestamp, generation,
    /// a phase) are filled in, and a missing namespace is made. A VolumeSnapshot with a `status` and a claim with a phase
    /// other than Pending are left as they are; without, the controllers take them for new ones. An object that is there
    /// already is replaced.
    ///
    /// # Panics
    ///
    /// `apiVersion` and `kind` are of no resource, or there is no name.
    pub fn put(&self, object: Value) -> Value {
        self.others.put(object)
    }

    /// An object as it is now.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.others.get(resource, namespace, name)
    }

    /// All objects of a resource, by namespace and name; of all namespaces if `namespace` is empty.
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.others.list(resource, namespace)
    }

    /// Changes an object, past validation and admission, and answers it as stored; `None` if it is not there. Removing
    /// the last finalizer of a deleted object takes it out.
    pub fn update(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        f: impl FnOnce(&mut Value),
    ) -> Option<Value> {
        self.others.update(resource, namespace, name, f)
    }

    /// Sets a label of an object; `None` takes it away.
    ///
    /// # Panics
    ///
    /// The object is not there.
    pub fn label(&self, resource: &str, namespace: &str, name: &str, label: &str, value: Option<&str>) {
        self.others.label(resource, namespace, name, label, value);
    }

    /// Sets an annotation of an object; `None` takes it away.
    ///
    /// # Panics
    ///
    /// The object is not there.
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

    /// Deletes an object as `kubectl delete` does: one with finalizers is terminating until those are gone.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.others.delete(resource, namespace, name);
    }

    /// Takes an object out at once, whatever its finalizers, and answers its last state.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.others.remove(resource, namespace, name)
    }

    /// Deletes a claim and makes it anew from the same manifest, all in one moment, and answers the new one: another
    /// uid, and if the old one was bound, another volume. Labels, annotations and size are those of the old one.
    ///
    /// # Panics
    ///
    /// The claim is not there.
    pub fn replace_claim(&self, namespace: &str, name: &str) -> Value {
        self.others.replace_claim(namespace, name)
    }

    /// The same with a manifest that was changed before.
    ///
    /// # Panics
    ///
    /// The claim is not there.
    pub fn replace_claim_with(&self, namespace: &str, name: &str, f: impl FnOnce(&mut Value)) -> Value {
        self.others.replace_claim_with(namespace, name, f)
    }

    /// What a snapshot has the data of, which nothing on it tells: the claim that the controller found by the name when
    /// it got to the snapshot, and that claim's volume. `None`: the controller has not got there. Of a snapshot that was
    /// put in with a status it is the claim that was there by then; of a claim of before, say so with
    /// [`FakeApiServer::set_snapshot_data`]. Of snapshots that are gone [`Milestone::data`] tells it.
    pub fn snapshot_data(&self, namespace: &str, name: &str) -> Option<SnapshotData> {
        self.others.snapshot_data(namespace, name)
    }

    /// Says what a snapshot has the data of.
    ///
    /// # Panics
    ///
    /// The snapshot is not there.
    pub fn set_snapshot_data(&self, namespace: &str, name: &str, data: SnapshotData) {
        self.others.set_snapshot_data(namespace, name, data);
    }

    /// The uid of the snapshot whose data a claim has, as its volume was made from that; `None`: it has no volume yet, or
    /// one that was made empty or was there before, whatever the claim says that it is to be made from.
    pub fn restored_from(&self, namespace: &str, name: &str) -> Option<String> {
        self.others.restored_from(namespace, name)
    }

    /// Lets a pod use a claim for the first time: one whose class waits for that is bound then, if it can be. The same
    /// happens when a pod is created that has the claim among its volumes.
    ///
    /// # Panics
    ///
    /// The claim is not there.
    pub fn use_claim(&self, namespace: &str, name: &str) {
        self.others.use_claim(namespace, name);
    }

    /// A handle with which others change objects, for tasks of their own.
    pub fn others(&self) -> Others {
        self.others.clone()
    }

    /// Lets the snapshot controller work through its queue at another pace from now on.
    pub fn controller_pace(&self, pace: Pace) {
        self.cluster.orders.send_modify(|orders| orders.pace = pace);
    }

    /// Lets the snapshot controller take this many from its queue at once, whatever its pace: the oldest first.
    pub fn controller_takes(&self, number: usize) {
        self.cluster.orders.send_modify(|orders| orders.granted += number);
    }

    /// A token of a ServiceAccount, which is made if it is missing. It may do what the bindings in the bed allow.
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

    /// Says what happens with each new snapshot, from now on. The closure gets the object as created; `None`: ready
    /// after [`Controller::ready_after`]. A snapshot that was put in with a status is asked about when it is deleted.
    pub fn plan(&self, f: impl Fn(&Value) -> Option<Plan> + Send + Sync + 'static) {
        self.cluster.set_planner(Arc::new(f));
    }

    /// Says what happens with each claim that could be bound, from now on. The closure gets the claim as it is; `None`:
    /// bound after [`Provisioner::bound_after`]. It is asked again each time that something changes for the claim.
    pub fn provision(&self, f: impl Fn(&Value) -> Option<Provision> + Send + Sync + 'static) {
        self.cluster.set_provider(Arc::new(f));
    }

    /// Allows a namespace this many snapshots, with the ResourceQuota `q`. Those that are terminating count. More of
    /// them, of other names or on other resources, can be put in or created as in a real cluster, as long as they limit
    /// a `count/...`.
    pub fn quota(&self, namespace: &str, snapshots: usize) {
        self.put(objects::quota(namespace, "q", snapshots));
    }

    /// Lets the quotas of a namespace notice only after this time that a snapshot is gone, and leave its place.
    pub fn quota_frees_after(&self, namespace: &str, delay: Duration) {
        self.cluster.set_quota_delay(namespace, delay);
    }

    /// Forgets the history: a watch from, or the next page of a list of, any resourceVersion given out so far is
    /// answered with 410. Running watches go on.
    pub fn compact(&self) {
        self.cluster.store.compact();
    }

    /// Ends every running watch with an ERROR event of code 410, and forgets the history.
    pub fn expire_watches(&self) {
        self.cluster.store.compact();
        let failure = self.cluster.store.expired();
        self.cluster.store.end_watches(Some(&failure));
    }

    /// Ends every running watch as a timeout does: without an event.
    pub fn end_watches(&self) {
        self.cluster.store.end_watches(None);
    }

    /// Makes every running watch mute: it stays open, and nothing comes of it any more, not even its end. Watches that
    /// begin later are not touched.
    pub fn mute_watches(&self) {
        self.cluster.mute();
    }

    /// Lets something go wrong with requests from now on. The closure gets each as it arrives, in the order of
    /// [`FakeApiServer::requests`], and says what. Of several closures each sees every request, and the first that was given
    /// and has a fault for it wins.
    pub fn fault(&self, f: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) {
        self.cluster.faults.add(f);
    }

    /// Lets something go wrong with the `n`th of the requests that match from now on; the first is 1.
    pub fn fault_nth(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        n: usize,
        fault: Fault,
    ) {
        self.fault(fault::counted(matches, n..=n, fault));
    }

    /// Lets something go wrong with this many requests that match, from now on.
    pub fn fault_times(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        times: usize,
        fault: Fault,
    ) {
        self.fault(fault::counted(matches, 1..=times, fault));
    }

    /// Lets the server answer requests that match with `code`, 401 or 403, after each restart from now on, as one does
    /// whose caches are not full yet: whatever the user and its roles, in the words of a refusal that is meant.
    pub fn cold_after_restart(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        code: u16,
        lasts: Lasts,
    ) {
        self.cluster.faults.chill(fault::Cold::new(matches, code, lasts), false);
    }

    /// The same from now on and once, as if the server had just started.
    pub fn cold(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static, code: u16, lasts: Lasts) {
        self.cluster.faults.chill(fault::Cold::new(matches, code, lasts), true);
    }

    /// Lets nothing go wrong with requests from now on.
    pub fn clear_faults(&self) {
        self.cluster.faults.clear();
    }

    /// Lets an admission policy change what users create or write, in the requests that match from now on: labels,
    /// annotations, the class, anything. The closure gets the object with its defaults; it is validated afterwards.
    pub fn admission_changes(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) {
        self.cluster.policies.change(matches, change);
    }

    /// Lets the ValidatingAdmissionPolicy `policy` refuse the creations, changes and deletions that match from now on.
    /// The requests have to make sense: an object that is not there is not found, preconditions come first.
    pub fn admission_denies(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        policy: &str,
        message: &str,
    ) {
        self.cluster.policies.deny(matches, policy, message);
    }

    /// Takes all admission policies away.
    pub fn clear_admission(&self) {
        self.cluster.policies.clear();
    }

    /// Lets others do something just before the `n`th of the requests that match from now on is carried out; the first is
    /// 1. Whoever made the request reads, changes or deletes what is there after the action.
    ///
    /// A request that a fault keeps from being carried out counts as well: then the action runs just before the answer,
    /// or the end of the connection, and of one that hangs it does not run. So the `n`th try of a request that is
    /// repeated is the `n`th that matches.
    ///
    /// The action runs on the server's thread and must not wait. It can change everything through [`Others`], and what
    /// the controllers make of that comes later.
    ///
    /// ```no_run
    /// # let bed: testbed::TestBed = todo!();
    /// // Between the look at the claims and the first deletion somebody wants everything kept.
    /// bed.before(|request| request.is("delete", "volumesnapshots"), 1, |others| {
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

    /// The same just after it was carried out and before it is answered: whoever made the request is told what was there
    /// before the action. A watch has begun by then.
    pub fn after(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        n: usize,
        action: impl FnOnce(&Others) + Send + 'static,
    ) {
        self.cluster.meanwhile.add(When::After, matches, Some(n), meanwhile::once(action));
    }

    /// The same with every request that matches, which the action gets to see.
    pub fn at_each(
        &self,
        when: When,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        action: impl Fn(&Others, &Request) + Send + Sync + 'static,
    ) {
        self.cluster.meanwhile.add(when, matches, None, action);
    }

    /// Lets others do nothing more with requests from now on.
    pub fn clear_actions(&self) {
        self.cluster.meanwhile.clear();
    }

    /// Closes this many of the next connections as soon as they are there, without a byte.
    pub fn turn_away(&self, connections: usize) {
        self.server.turn_away(connections);
    }

    /// Closes the port: when this returns, connections are refused. Those that there are live on.
    pub async fn refuse_connections(&self) {
        self.server.close().await.expect("the port is still free");
    }

    /// Opens the port again.
    pub async fn accept_connections(&self) {
        self.server.open().await.expect("a bound socket can listen");
    }

    /// Closes all connections that there are.
    pub async fn cut_connections(&self) {
        self.server.cut_connections().await;
    }

    /// Restarts the server: closes the port and all connections, and opens the same port after a time. The objects, the
    /// tokens and the controllers stay. When this returns, it listens again.
    pub async fn restart(&self, down_for: Duration, history: History) {
        self.server.begin_restart(down_for, history).await.expect("the server comes back");
    }

    /// Changes to a certificate of a new authority, which [`FakeApiServer::ca_pem`] gives from now on. Connections that there
    /// are live on.
    ///
    /// # Panics
    ///
    /// The bed does not speak TLS, or no certificate can be made.
    pub fn rotate_ca(&self) {
        assert!(self.ca_pem().is_some(), "a bed without TLS has no authority");
        self.server.set_tls(Tls::new().expect("a certificate can be made"));
    }

    /// Makes a token of a ServiceAccount invalid, as if its time had come. The others of the account are not touched.
    pub fn expire_token(&self, token: &str) {
        self.cluster.tokens.expire(token);
    }

    /// The resourceVersion of the last write.
    pub fn resource_version(&self) -> u64 {
        self.cluster.store.version()
    }

    /// The requests since the start or the last [`FakeApiServer::clear_requests`], in the order in which they arrived.
    pub fn requests(&self) -> Vec<Request> {
        self.cluster.log.requests()
    }

    /// What happened to snapshots since the start, in order.
    pub fn snapshot_history(&self) -> Vec<Milestone> {
        self.cluster
            .store
            .milestones()
            .iter()
            .flat_map(|change| history::milestones(&self.cluster, change))
            .collect()
    }

    /// Everything that was written of snapshots and claims since the start, in order, whoever did it: enough to know for
    /// any moment what there was. A model that is to judge each deletion by the state of its moment goes through this.
    pub fn journal(&self) -> Vec<Write> {
        self.cluster.store.journal().iter().map(|change| history::write(&self.cluster, change)).collect()
    }

    /// What went over the wire since the start or the last [`FakeApiServer::clear_requests`].
    pub fn traffic(&self) -> Traffic {
        self.server.meter.read()
    }

    /// Forgets the requests, and what [`FakeApiServer::traffic`], [`FakeApiServer::most_in_flight`] and [`FakeApiServer::most_watches`]
    /// count.
    pub fn clear_requests(&self) {
        self.cluster.log.clear();
        self.server.meter.clear();
    }

    /// The most requests that were under way at once, not counting watches.
    pub fn most_in_flight(&self) -> usize {
        self.cluster.log.most_in_flight()
    }

    /// The most watches that were open at once.
    pub fn most_watches(&self) -> usize {
        self.cluster.log.most_watches()
    }

    /// The watches that are open now.
    pub fn watches(&self) -> usize {
        self.cluster.log.watches()
    }

    /// Stops: when this returns, the port is closed and every connection is cut.
    pub async fn stop(mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for the threads, which an async task must not do itself.
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
