//! Runs scenarios on the fake API server, or on a real cluster if `SNAPSHOTTER_TEST_KUBECONFIG` names a
//! kubeconfig. Starts the binary as a process with its own role and token.
//!
//! Scenarios do everything through the API, so that they are the same on both. What only the fake API server
//! can do (speed and errors of the snapshot controller, dates in the past) is available through
//! [`TestCluster::fake`], in scenarios that are [`embedded`].

use std::{
    collections::BTreeMap,
    env,
    io::Write,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fake_apiserver::{FakeApiServer, Options};
use futures::FutureExt;
use http::Request;
use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, NamedAuthInfo},
};
use serde_json::{Value, json};
use tokio::{process::Command, time::sleep};
use volume_snapshotter::cluster::{EVENT_PERMISSIONS, PERMISSIONS, Permission};

/// How long a scenario waits for the cluster.
const LONGEST_WAIT: Duration = Duration::from_secs(90);

const ACCOUNT: &str = "volume-snapshotter";

/// The cluster of a scenario.
pub(crate) struct TestCluster {
    admin: Client,
    pub(crate) namespace: String,
    pub(crate) snapshot_class: String,
    pub(crate) storage_class: String,
    /// Names the API server and its CA; the user is put in.
    cluster: Kubeconfig,
    fake: Option<FakeApiServer>,
    files: PathBuf,
    /// What is not in the namespace and has to be deleted as well.
    outside: Mutex<Vec<String>>,
}

/// The result of a run of the binary.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) message: String,
    /// The log, a JSON object a line.
    pub(crate) log: Vec<Value>,
    pub(crate) took: Duration,
}

/// Runs a scenario on the fake API server, and on a real cluster if there is one.
pub(crate) async fn everywhere(scenario: impl AsyncFn(&TestCluster)) {
    embedded(Options::default(), &scenario).await;
    if let Some(kubeconfig) = env::var_os("SNAPSHOTTER_TEST_KUBECONFIG") {
        play(TestCluster::real(Path::new(&kubeconfig)).await, &scenario).await;
        tally(&PLAYED);
    }
}

/// How many scenarios were played on the real cluster, and how many cannot be.
static PLAYED: AtomicUsize = AtomicUsize::new(0);
static ONLY_EMBEDDED: AtomicUsize = AtomicUsize::new(0);

/// Counts a scenario, and says how many there were: the last line of a test run is the result.
fn tally(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
    let (played, embedded) = (PLAYED.load(Ordering::Relaxed), ONLY_EMBEDDED.load(Ordering::Relaxed));
    // Past the capture of the test harness, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "on the real cluster: {played} played, {embedded} only embedded");
}

/// Runs a scenario on the fake API server only.
pub(crate) async fn embedded(options: Options, scenario: impl AsyncFn(&TestCluster)) {
    play(TestCluster::embedded(options).await, &scenario).await;
}

/// Like [`embedded`], for a scenario that is impossible on a real cluster, with a message that says so.
pub(crate) async fn embedded_only(options: Options, reason: &str, scenario: impl AsyncFn(&TestCluster)) {
    if env::var_os("SNAPSHOTTER_TEST_KUBECONFIG").is_some() {
        let name = std::thread::current().name().unwrap_or("a scenario").to_owned();
        // Past the capture of the test harness, which shows nothing of a test that passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED on the real cluster: {name}: {reason}");
        tally(&ONLY_EMBEDDED);
    }
    embedded(options, scenario).await;
}

async fn play(cluster: TestCluster, scenario: &impl AsyncFn(&TestCluster)) {
    let played = AssertUnwindSafe(scenario(&cluster)).catch_unwind().await;
    cluster.leave().await;
    if let Err(panic) = played {
        std::panic::resume_unwind(panic);
    }
}

impl TestCluster {
    async fn embedded(options: Options) -> Self {
        let fake = FakeApiServer::start(options).await;
        let kubeconfig =
            Kubeconfig::from_yaml(&fake.kubeconfig(fake.admin_token(), "default")).expect("a kubeconfig");
        fake.furnish("default");
        Self::prepare(kubeconfig, "hostpath".into(), "default".into(), Some(fake)).await
    }

    async fn real(kubeconfig: &Path) -> Self {
        let kubeconfig =
            Kubeconfig::read_from(kubeconfig).expect("SNAPSHOTTER_TEST_KUBECONFIG names a kubeconfig");
        let class = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is set"));
        let storage_class = class("SNAPSHOTTER_TEST_STORAGE_CLASS");
        let snapshot_class = class("SNAPSHOTTER_TEST_SNAPSHOT_CLASS");
        Self::prepare(kubeconfig, storage_class, snapshot_class, None).await
    }

    async fn prepare(
        kubeconfig: Kubeconfig,
        storage_class: String,
        snapshot_class: String,
        fake: Option<FakeApiServer>,
    ) -> Self {
        static PLACES: AtomicUsize = AtomicUsize::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let files = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
        std::fs::create_dir_all(&files).expect("a directory for the scenario's files");
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default()).await;
        let admin = Client::try_from(config.expect("a usable kubeconfig")).expect("a client");
        let namespace = format!("vs-test-{:08x}", rand::random::<u32>());
        let outside = Mutex::default();
        let cluster = TestCluster {
            admin,
            namespace,
            snapshot_class,
            storage_class,
            cluster: kubeconfig,
            fake,
            files,
            outside,
        };
        cluster
            .post(
                "/api/v1/namespaces",
                &json!({
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": cluster.namespace, "labels": {"volume-snapshotter-test": "true"}},
                }),
            )
            .await;
        cluster
    }

    async fn leave(self) {
        let finalized = self.snapshots().await.into_iter().filter(|snapshot| {
            snapshot["metadata"]["finalizers"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == FINALIZER))
        });
        for snapshot in finalized {
            let finalizers: Vec<_> = snapshot["metadata"]["finalizers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|one| *one != FINALIZER)
                .collect();
            self.patch_snapshot(name_of(&snapshot), json!({"metadata": {"finalizers": finalizers}})).await;
        }
        let outside = std::mem::take(&mut *self.outside.lock().expect("no test panicked with it"));
        let namespace = format!("/api/v1/namespaces/{}", self.namespace);
        for path in outside.iter().chain([&namespace]) {
            // The scenario may have deleted it itself.
            let _ = self.send("DELETE", path, &Value::Null).await;
        }
        let _ = std::fs::remove_dir_all(&self.files);
        if let Some(fake) = self.fake {
            fake.stop().await;
        }
    }

    /// The fake API server, in an embedded scenario.
    pub(crate) fn fake(&self) -> &FakeApiServer {
        self.fake.as_ref().expect("an embedded scenario")
    }

    // --- What a person would do with kubectl -------------------------------------------------------

    /// The same cluster with another namespace, which is created with these labels.
    pub(crate) async fn another_namespace(&self, suffix: &str, labels: Value) -> TestCluster {
        let namespace = format!("{}-{suffix}", self.namespace);
        self.post(
            "/api/v1/namespaces",
            &json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels},
            }),
        )
        .await;
        self.outside
            .lock()
            .expect("no test panicked with it")
            .push(format!("/api/v1/namespaces/{namespace}"));
        TestCluster {
            admin: self.admin.clone(),
            namespace,
            snapshot_class: self.snapshot_class.clone(),
            storage_class: self.storage_class.clone(),
            cluster: self.cluster.clone(),
            fake: None,
            files: self.files.clone(),
            outside: Mutex::default(),
        }
    }

    /// Grants the binary's ServiceAccount permissions in all namespaces.
    pub(crate) async fn grant_everywhere(&self, rules: &Value) {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let metadata = json!({"name": self.namespace});
        for (resource, object) in [
            ("clusterroles", json!({"kind": "ClusterRole", "rules": rules})),
            (
                "clusterrolebindings",
                json!({
                    "kind": "ClusterRoleBinding",
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.namespace},
                    "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace}],
                }),
            ),
        ] {
            let mut object = object;
            object["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
            object["metadata"] = metadata.clone();
            self.post(&format!("{RBAC}/{resource}"), &object).await;
            let path = format!("{RBAC}/{resource}/{}", self.namespace);
            self.outside.lock().expect("no test panicked with it").push(path);
        }
    }

    /// Makes an object that is in no namespace, and is deleted with the scenario.
    pub(crate) async fn post_outside(&self, path: &str, name: &str, object: &Value) {
        self.post(path, object).await;
        self.outside.lock().expect("no test panicked with it").push(format!("{path}/{name}"));
    }

    /// Deletes an object that is in no namespace, and waits until it is gone.
    pub(crate) async fn delete_outside(&self, path: &str) {
        self.delete(path).await;
        // Of a volume that is in use, or was, nobody else takes the protection off in time.
        let free = json!({"metadata": {"finalizers": null}});
        let _ = self.send("PATCH", path, &free).await;
        self.until(&format!("{path} is gone"), async || self.try_read(path).await.is_none()).await;
    }

    /// Makes a claim and waits until it is bound.
    pub(crate) async fn claim(&self, name: &str) {
        self.labelled_claim(name, json!({})).await;
    }

    /// Makes a claim with labels and waits until it is bound.
    pub(crate) async fn labelled_claim(&self, name: &str, labels: Value) {
        self.new_claim(name, labels, &self.storage_class).await;
        let path = format!("{}/{name}", self.claims_path());
        let began = Instant::now();
        let mut chosen_node = false;
        while self.read(&path).await["status"]["phase"] != "Bound" {
            assert!(began.elapsed() < LONGEST_WAIT, "claim {name} is not bound");
            // A class that waits for a consumer is told what the scheduler would tell it.
            if began.elapsed() > Duration::from_secs(3) && !chosen_node {
                chosen_node = true;
                let nodes = self.read("/api/v1/nodes").await;
                if let Some(node) = nodes["items"].get(0) {
                    let annotation = json!({"volume.kubernetes.io/selected-node": name_of(node)});
                    self.patch(&path, &json!({"metadata": {"annotations": annotation}})).await;
                }
            }
            sleep(Duration::from_millis(if self.fake.is_some() { 2 } else { 100 })).await;
        }
    }

    /// All claims of the namespace.
    pub(crate) async fn claims(&self) -> Vec<Value> {
        let mut list = self.read(&self.claims_path()).await;
        serde_json::from_value(list["items"].take()).expect("items")
    }

    /// One claim, if it is there.
    pub(crate) async fn try_claim(&self, name: &str) -> Option<Value> {
        self.try_read(&format!("{}/{name}", self.claims_path())).await
    }

    /// Creates a claim that never becomes Bound.
    pub(crate) async fn pending_claim(&self, name: &str) {
        self.new_claim(name, json!({}), "no-such-class").await;
    }

    /// Deletes a claim and waits until it is gone.
    pub(crate) async fn delete_claim(&self, name: &str) {
        let path = format!("{}/{name}", self.claims_path());
        self.delete(&path).await;
        self.until(&format!("claim {name} is gone"), async || self.try_read(&path).await.is_none()).await;
    }

    pub(crate) async fn annotate_claim(&self, name: &str, annotations: Value) {
        let path = format!("{}/{name}", self.claims_path());
        self.patch(&path, &json!({"metadata": {"annotations": annotations}})).await;
    }

    async fn new_claim(&self, name: &str, labels: Value, class: &str) {
        self.post(
            &self.claims_path(),
            &json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "labels": labels},
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                    "resources": {"requests": {"storage": "1Mi"}},
                },
            }),
        )
        .await;
    }

    /// Makes a snapshot as a schedule would, without waiting for it.
    pub(crate) async fn new_snapshot(&self, name: &str, claim: &str, labels: Value) -> Value {
        self.post(
            &self.snapshots_path(),
            &json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "metadata": {"name": name, "labels": labels},
                "spec": {
                    "volumeSnapshotClassName": self.snapshot_class,
                    "source": {"persistentVolumeClaimName": claim},
                },
            }),
        )
        .await
    }

    /// Makes a snapshot of the default schedule and waits until it is ready.
    pub(crate) async fn older(&self, name: &str, claim: &str) {
        self.older_labelled(name, claim, json!({"job": "volume-snapshotter", "name": name})).await;
    }

    /// Makes a snapshot with these labels and waits until it is ready.
    pub(crate) async fn older_labelled(&self, name: &str, claim: &str, labels: Value) {
        self.new_snapshot(name, claim, labels).await;
        self.until(&format!("snapshot {name} is ready"), async || {
            self.snapshot(name).await["status"]["readyToUse"] == true
        })
        .await;
    }

    pub(crate) async fn patch_snapshot(&self, name: &str, patch: Value) {
        self.patch(&format!("{}/{name}", self.snapshots_path()), &patch).await;
    }

    pub(crate) async fn patch_snapshot_status(&self, name: &str, status: Value) {
        let path = format!("{}/{name}/status", self.snapshots_path());
        self.patch(&path, &json!({"status": status})).await;
    }

    /// Deletes a snapshot; a finalizer of ours keeps it terminating.
    pub(crate) async fn delete_but_keep(&self, name: &str) {
        self.keep(name).await;
        self.delete_snapshot(name).await;
    }

    /// Gives a snapshot a finalizer of ours.
    pub(crate) async fn keep(&self, name: &str) {
        let mut finalizers = self.snapshot(name).await["metadata"]["finalizers"].clone();
        finalizers.as_array_mut().expect("finalizers").push(json!(FINALIZER));
        self.patch_snapshot(name, json!({"metadata": {"finalizers": finalizers}})).await;
    }

    /// Deletes the namespace, which takes its time.
    pub(crate) async fn delete_namespace(&self) {
        self.delete(&format!("/api/v1/namespaces/{}", self.namespace)).await;
    }

    pub(crate) async fn delete_snapshot(&self, name: &str) {
        self.delete(&format!("{}/{name}", self.snapshots_path())).await;
    }

    pub(crate) async fn snapshot(&self, name: &str) -> Value {
        self.read(&format!("{}/{name}", self.snapshots_path())).await
    }

    /// All snapshots of the namespace.
    pub(crate) async fn snapshots(&self) -> Vec<Value> {
        // A cluster without the snapshot API has none.
        let list = self.try_read(&self.snapshots_path()).await;
        list.map(|mut list| serde_json::from_value(list["items"].take()).expect("items")).unwrap_or_default()
    }

    /// The names of all snapshots that nobody has deleted.
    pub(crate) async fn names(&self) -> Vec<String> {
        let alive = |snapshot: &Value| snapshot["metadata"]["deletionTimestamp"].is_null();
        let mut names: Vec<String> = self
            .snapshots()
            .await
            .iter()
            .filter(|one| alive(one))
            .map(|one| name_of(one).to_owned())
            .collect();
        names.sort();
        names
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !is_so().await {
            assert!(began.elapsed() < LONGEST_WAIT, "it never came to pass that {what}");
            sleep(Duration::from_millis(if self.fake.is_some() { 2 } else { 100 })).await;
        }
    }

    // --- The binary --------------------------------------------------------------------------------

    /// Runs the binary once with the permissions that it needs and these settings in addition to the class.
    pub(crate) async fn run(&self, settings: &[(&str, &str)]) -> Ran {
        self.run_with_permissions(&all_permissions(), settings).await
    }

    /// Runs the binary once with other permissions.
    pub(crate) async fn run_with_permissions(&self, rules: &Value, settings: &[(&str, &str)]) -> Ran {
        self.start(rules, settings).await.finish().await
    }

    pub(crate) async fn start(&self, rules: &Value, settings: &[(&str, &str)]) -> Running {
        let kubeconfig = self.kubeconfig(rules).await;
        self.start_as(&kubeconfig, settings)
    }

    /// Starts the binary with a kubeconfig.
    pub(crate) fn start_as(&self, kubeconfig: &Path, settings: &[(&str, &str)]) -> Running {
        let variables = [("KUBECONFIG", kubeconfig.to_str().expect("a path"))];
        self.start_process(Command::new(BINARY), &variables, settings)
    }

    /// Writes a kubeconfig for the binary's ServiceAccount, which gets these permissions.
    pub(crate) async fn kubeconfig(&self, rules: &Value) -> PathBuf {
        let token = self.token(rules).await;
        self.file("kubeconfig", &self.kubeconfig_for(token))
    }

    /// Starts a command with the settings of a scenario and nothing else in its environment.
    pub(crate) fn start_process(
        &self,
        mut command: Command,
        variables: &[(&str, &str)],
        settings: &[(&str, &str)],
    ) -> Running {
        let message = self.file("termination-log", "");
        // Like in the manifests, a Job name identifies one Job unless a scenario says otherwise.
        let id = settings
            .iter()
            .find(|(name, _)| *name == "SNAPSHOT_RUN_ID")
            .map(|(_, id)| format!("uid-of-{id}"));
        let environment: BTreeMap<&str, &str> = [
            ("SNAPSHOT_CLASS_NAME", self.snapshot_class.as_str()),
            // Outside a pod nothing is pruned without it.
            ("SNAPSHOT_RETENTION", "last=1"),
            ("SNAPSHOT_TERMINATION_LOG", message.to_str().expect("a path")),
            ("SNAPSHOT_LOG_FORMAT", "json"),
        ]
        .into_iter()
        .chain(id.as_deref().map(|uid| ("SNAPSHOT_RUN_UID", uid)))
        .chain(variables.iter().copied())
        .chain(settings.iter().copied())
        .collect();
        let process = command
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        Running { process, message, began: Instant::now() }
    }

    /// Returns a token of the binary's ServiceAccount, which gets exactly these permissions.
    pub(crate) async fn token(&self, rules: &Value) -> String {
        let namespace = &self.namespace;
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        let metadata = json!({"name": ACCOUNT});
        if self.try_read(&format!("{accounts}/{ACCOUNT}")).await.is_none() {
            self.post(
                &accounts,
                &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            )
            .await;
            self.post(
                &format!("{rbac}/rolebindings"),
                &json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
                    "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
                }),
            )
            .await;
        }
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules,
        });
        let path = format!("{rbac}/roles/{ACCOUNT}");
        if self.try_read(&path).await.is_none() {
            self.post(&format!("{rbac}/roles"), &role).await;
        } else {
            self.patch(&path, &json!({"rules": rules})).await;
        }
        if self.fake.is_none() {
            // The authorizer learns of roles and bindings by a watch of its own.
            sleep(Duration::from_secs(1)).await;
        }
        let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let answer = self.post(&format!("{accounts}/{ACCOUNT}/token"), &asked).await;
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// The text of a kubeconfig with a token and this namespace.
    pub(crate) fn kubeconfig_for(&self, token: String) -> String {
        let mut kubeconfig = self.cluster.clone();
        let name = kubeconfig.current_context.clone().expect("a current context");
        for context in &mut kubeconfig.contexts {
            if let Some(inner) = context.context.as_mut().filter(|_| context.name == name) {
                inner.user = Some(ACCOUNT.to_owned());
                inner.namespace = Some(self.namespace.clone());
            }
        }
        let user = json!({"token": token});
        let auth_info: AuthInfo = serde_json::from_value(user).expect("a user");
        kubeconfig.auth_infos = vec![NamedAuthInfo {
            name: ACCOUNT.to_owned(),
            auth_info: Some(auth_info),
            ..NamedAuthInfo::default()
        }];
        let mut written = serde_json::to_value(&kubeconfig).expect("a kubeconfig");
        // The library hides a secret when it writes one.
        written["users"][0]["user"]["token"] = json!(token);
        written.to_string()
    }

    /// A new file of the scenario.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let path = self.files.join(format!("{name}-{}", FILES.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&path, content).expect("a file of the scenario");
        path
    }

    /// A new directory of the scenario.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.files.join(name);
        std::fs::create_dir_all(&path).expect("a directory of the scenario");
        path
    }

    // --- Requests ----------------------------------------------------------------------------------

    pub(crate) fn claims_path(&self) -> String {
        format!("/api/v1/namespaces/{}/persistentvolumeclaims", self.namespace)
    }

    pub(crate) fn snapshots_path(&self) -> String {
        format!("/apis/snapshot.storage.k8s.io/v1/namespaces/{}/volumesnapshots", self.namespace)
    }

    pub(crate) async fn read(&self, path: &str) -> Value {
        self.send("GET", path, &Value::Null).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub(crate) async fn try_read(&self, path: &str) -> Option<Value> {
        self.send("GET", path, &Value::Null).await.ok()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.send("POST", path, body).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) {
        self.send("PATCH", path, body).await.unwrap_or_else(|error| panic!("PATCH {path}: {error}"));
    }

    async fn delete(&self, path: &str) {
        self.send("DELETE", path, &Value::Null)
            .await
            .unwrap_or_else(|error| panic!("DELETE {path}: {error}"));
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).expect("JSON") };
        let request = Request::builder().method(method).uri(path).header("content-type", content).body(body);
        self.admin.request(request.expect("a request")).await
    }
}

/// A finalizer of the scenarios' own.
const FINALIZER: &str = "volume-snapshotter/test";

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_volume-snapshotter");

/// The rules of the Role that the manifests have.
pub(crate) fn all_permissions() -> Value {
    rules(&[PERMISSIONS, EVENT_PERMISSIONS].concat())
}

/// The rules of a Role with all permissions except `watch`.
pub(crate) fn permissions_without_watch() -> Value {
    rules(&PERMISSIONS.iter().filter(|permission| permission.verb != "watch").copied().collect::<Vec<_>>())
}

/// The rules of a Role with these permissions.
pub(crate) fn rules(permissions: &[Permission]) -> Value {
    permissions
        .iter()
        .map(
            |permission| json!({"apiGroups": [permission.group], "resources": [permission.resource], "verbs": [permission.verb]}),
        )
        .collect()
}

/// The rules of the Role that the bash script has.
pub(crate) fn permissions_of_the_bash_script() -> Value {
    json!([{
        "apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"],
        "verbs": ["create", "get", "list", "delete"],
    }])
}

/// The name of an object.
pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

/// The binary while it runs.
pub(crate) struct Running {
    process: tokio::process::Child,
    message: PathBuf,
    began: Instant,
}

impl Running {
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.id().expect("it still runs");
        let sent = std::process::Command::new("kill").args([format!("-{signal}"), id.to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id().expect("it still runs")
    }

    /// Waits for its end without reading anything that it says; `None` if it does not end in time.
    pub(crate) async fn ends_unheard(&mut self, within: Duration) -> Option<i32> {
        let ended = tokio::time::timeout(within, self.process.wait()).await.ok()?;
        ended.expect("its end").code()
    }

    /// Kills it as a node that dies would; the exit code, if it was done already.
    pub(crate) async fn kill(mut self) -> Option<i32> {
        // It may have ended in this very moment.
        let _ = self.process.start_kill();
        self.process.wait().await.expect("its end").code()
    }

    pub(crate) async fn finish(self) -> Ran {
        let output: Output = self.process.wait_with_output().await.expect("its output");
        let took = self.began.elapsed();
        assert!(output.stdout.is_empty(), "nothing but data goes to standard output");
        let log = String::from_utf8(output.stderr).expect("UTF-8");
        let log = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not a JSON line: {line}")))
            .collect();
        let message = std::fs::read_to_string(&self.message).expect("the termination message");
        Ran { code: output.status.code().expect("an exit code"), message, log, took }
    }
}

impl Ran {
    /// The log lines whose message contains `text`.
    pub(crate) fn lines(&self, text: &str) -> Vec<&Value> {
        self.log
            .iter()
            .filter(|line| line["message"].as_str().is_some_and(|said| said.contains(text)))
            .collect()
    }

    /// Fails, with all that is known of the run, unless it exited with `code`.
    #[track_caller]
    pub(crate) fn assert_exit(&self, code: i32) {
        let log: Vec<String> = self.log.iter().map(Value::to_string).collect();
        assert_eq!(self.code, code, "{}\n{}", self.message, log.join("\n"));
    }
}
