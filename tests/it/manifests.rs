//! What a person applies: the base, every overlay, and every component in several surroundings,
//! rendered as `kubectl apply -k` renders them, read as strictly as an API server reads them, and
//! compared with what the binary says of itself.
//!
//! Rendering needs `kubectl` or `kustomize`. Where neither is installed, the tests that need it say
//! so and pass. What the overlays render to is kept in `tests/golden`, so that a change of what
//! users apply shows in a review; `UPDATE_GOLDEN=1 cargo test --test it manifests` renews it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use k8s_openapi::{
    Metadata, Resource,
    api::{
        batch::v1::{CronJob, Job, JobSpec},
        core::v1::{
            ConfigMap, Container, PersistentVolumeClaim, PodSecurityContext, PodSpec, SecurityContext,
            ServiceAccount,
        },
        networking::v1::NetworkPolicy,
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
    serde::{Serialize, de::DeserializeOwned},
};
use serde_json::{Value, json};
use volume_snapshotter::{
    cluster::{NAMESPACE_RIGHTS, RIGHTS},
    settings::{NAMES, Settings},
};

/// The setting that takes a run from one namespace to many.
const NAMESPACE_SELECTOR: &str = "SNAPSHOT_NAMESPACE_SELECTOR";

// --- Rendering -----------------------------------------------------------------------------------

/// What kustomize makes of one directory.
pub(crate) struct Rendered {
    /// The directory, from the top of the repository or of a copy of it; or what was rendered.
    pub(crate) directory: String,
    pub(crate) documents: Vec<Value>,
}

static BASE: LazyLock<Vec<Rendered>> = LazyLock::new(|| rendered(["kustomize/base".to_owned()]));
static OVERLAYS: LazyLock<Vec<Rendered>> = LazyLock::new(|| rendered(overlay_directories()));

/// Each component on top of the base, as somebody with a kustomization of their own has it.
static COMPONENTS: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let tree = Tree::new("components");
    component_names().iter().filter_map(|name| tree.render(name, &on_the_base(&[name]))).collect()
});

/// Each component, and all of them together, on top of an overlay, where everything that can be
/// another is another: namespace, names, image.
static MOVED: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let tree = Tree::new("moved");
    let all = component_names();
    let one_each = all.iter().map(|name| (name.as_str(), vec![name.as_str()]));
    // Of the classes only one is used, but nothing forbids to have all of them.
    one_each
        .chain([("all-components", in_order(&all))])
        .filter_map(|(name, components)| tree.render(name, &on_an_overlay(&components)))
        .collect()
});

/// What the pages of `docs/` show.
static SHOWN: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let tree = Tree::new("docs");
    shown_in_docs().iter().filter_map(|(name, text)| tree.render(name, text)).collect()
});

pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn directories_in(directory: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(top().join(directory))
        .unwrap_or_else(|error| panic!("{directory}: {error}"))
        .map(|entry| entry.expect("an entry of a directory"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a directory's name is UTF-8"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "there is nothing in {directory}");
    names
}

fn overlay_directories() -> Vec<String> {
    directories_in("deploy/overlays").iter().map(|name| format!("deploy/overlays/{name}")).collect()
}

/// All but that of restores, which is another command with other settings: see `crate::restore`.
fn component_names() -> Vec<String> {
    let mut names = directories_in("kustomize/components");
    names.retain(|name| name != "restore");
    names
}

/// The components in an order in which all can be listed: those that change the CronJobs and Jobs
/// that are there after those that bring some.
fn in_order(names: &[String]) -> Vec<&str> {
    let brings = |name: &str| matches!(name, "second-schedule" | "before-upgrade");
    let (first, second): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|name| brings(name));
    first.into_iter().chain(second).collect()
}

/// A copy of what kustomize reads, in which other kustomizations can be tried.
pub(crate) struct Tree {
    top: PathBuf,
}

impl Tree {
    pub(crate) fn new(name: &str) -> Self {
        let tree = Self { top: Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifests").join(name) };
        let _ = fs::remove_dir_all(&tree.top);
        for directory in ["kustomize", "deploy"] {
            copy(&top().join(directory), &tree.top.join(directory));
        }
        tree
    }

    fn overlay(&self, name: &str) -> PathBuf {
        self.top.join("deploy/overlays").join(name)
    }

    /// Renders a kustomization that stands beside the overlays, with settings beside it.
    pub(crate) fn render(&self, name: &str, kustomization: &str) -> Option<Rendered> {
        let directory = self.overlay(name);
        fs::create_dir_all(&directory).expect("a directory");
        fs::copy(top().join("deploy/overlays/gardener/settings.env"), directory.join("settings.env"))
            .expect("settings");
        fs::write(directory.join("kustomization.yaml"), kustomization).expect("a kustomization");
        let documents = documents(&kustomize(&directory)?).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!documents.is_empty(), "{name} renders to nothing");
        Some(Rendered { directory: name.to_owned(), documents })
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a directory");
        for entry in fs::read_dir(from).expect("a directory can be listed") {
            let entry = entry.expect("an entry of a directory");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("a file can be copied");
    }
}

fn listed(components: &[&str]) -> String {
    components.iter().map(|name| format!("  - ../../../kustomize/components/{name}\n")).collect()
}

pub(crate) fn on_the_base(components: &[&str]) -> String {
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\n\
         kind: Kustomization\n\
         resources:\n  - ../../../kustomize/base\n\
         components:\n{}\
         configMapGenerator:\n  - name: volume-snapshotter-settings\n    envs: [settings.env]\n\
         generatorOptions:\n  disableNameSuffixHash: true\n  labels:\n    \
         app.kubernetes.io/name: volume-snapshotter\n    app.kubernetes.io/component: backup\n",
        listed(components)
    )
}

const OTHER_NAMESPACE: &str = "shop";
const OTHER_PREFIX: &str = "shop-";
const OTHER_IMAGE: &str = "mirror.example/backup/snapshots";

pub(crate) fn on_an_overlay(components: &[&str]) -> String {
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\n\
         kind: Kustomization\n\
         namespace: {OTHER_NAMESPACE}\n\
         namePrefix: {OTHER_PREFIX}\n\
         resources:\n  - ../eks\n\
         components:\n{}\
         transformers:\n  - ../../../kustomize/cluster-scoped\n\
         images:\n  - name: volume-snapshotter\n    newName: {OTHER_IMAGE}\n",
        // The overlay has that one already.
        listed(&components.iter().copied().filter(|name| *name != "snapshot-class-aws").collect::<Vec<_>>())
    )
}

/// The kustomizations among the YAML blocks of `docs/`, each named by its page and its number.
fn shown_in_docs() -> Vec<(String, String)> {
    let mut pages: Vec<_> = fs::read_dir(top().join("docs"))
        .expect("there is a directory docs")
        .map(|entry| entry.expect("an entry of docs").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    let mut shown = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page is UTF-8");
        let stem = page.file_stem().expect("a page has a name").to_string_lossy().into_owned();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|block| block.contains("apiVersion: kustomize.config.k8s.io")) {
            shown.push((format!("docs-{stem}-{}", shown.len() + 1), block.to_owned()));
        }
    }
    shown
}

/// Renders the directories; none at all if there is no tool for it.
fn rendered(directories: impl IntoIterator<Item = String>) -> Vec<Rendered> {
    let mut all = Vec::new();
    for directory in directories {
        let Some(yaml) = kustomize(&top().join(&directory)) else {
            // Not with eprintln!, which the test harness swallows when a test passes.
            let notice =
                format!("SKIPPED: {directory} is not checked: neither kubectl nor kustomize is installed\n");
            let _ = std::io::stderr().write_all(notice.as_bytes());
            continue;
        };
        let documents = documents(&yaml).unwrap_or_else(|error| panic!("{directory}: {error}"));
        assert!(!documents.is_empty(), "{directory} renders to nothing");
        all.push(Rendered { directory, documents });
    }
    all
}

fn kustomize(directory: &Path) -> Option<String> {
    for [program, verb] in [["kubectl", "kustomize"], ["kustomize", "build"]] {
        let output = match Command::new(program).arg(verb).arg(directory).output() {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{program} cannot be started: {error}"),
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {verb} {}: {stderr}", directory.display());
        // Not just anything that a wrapper of kubectl may have to say.
        assert!(!stderr.contains("deprecated"), "{program} {verb} {} warns: {stderr}", directory.display());
        return Some(String::from_utf8(output.stdout).expect("manifests are UTF-8"));
    }
    None
}

fn documents(yaml: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    serde_saphyr::from_multiple(yaml)
}

// --- Reading -------------------------------------------------------------------------------------

/// Reads an object so that nothing in it is overlooked: written out again, it has to be what it
/// was. A field that the type does not know would be lost on the way, and one that it requires
/// would appear.
fn strictly<T: DeserializeOwned + Serialize>(document: &Value) -> Result<T, String> {
    let object: T = serde_json::from_value(document.clone()).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(&object).map_err(|error| error.to_string())?;
    let mut differences = Vec::new();
    compare("", document, &back, &mut differences);
    if differences.is_empty() { Ok(object) } else { Err(differences.join("; ")) }
}

fn compare(path: &str, given: &Value, understood: &Value, differences: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            let inside = |key: &str| {
                if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
            };
            for (key, value) in given {
                match understood.get(key) {
                    Some(other) => compare(&inside(key), value, other, differences),
                    None => differences.push(format!("{}: unknown field", inside(key))),
                }
            }
            for key in understood.keys().filter(|key| !given.contains_key(*key)) {
                differences.push(format!("{}: required field missing", inside(key)));
            }
        }
        (Value::Array(given), Value::Array(understood)) if given.len() == understood.len() => {
            for (index, (value, other)) in given.iter().zip(understood).enumerate() {
                compare(&format!("{path}[{index}]"), value, other, differences);
            }
        }
        _ if given == understood => {}
        _ => differences.push(format!("{path}: {given} is understood as {understood}")),
    }
}

/// Reads an object of any kind that the manifests may hold.
pub(crate) fn read(document: &Value) -> Result<(), String> {
    let of = |field: &str| document[field].as_str().unwrap_or_default();
    match (of("apiVersion"), of("kind")) {
        ("v1", "ServiceAccount") => strictly::<ServiceAccount>(document).map(drop),
        ("v1", "ConfigMap") => strictly::<ConfigMap>(document).map(drop),
        ("v1", "PersistentVolumeClaim") => strictly::<PersistentVolumeClaim>(document).map(drop),
        ("networking.k8s.io/v1", "NetworkPolicy") => strictly::<NetworkPolicy>(document).map(drop),
        ("snapshot.storage.k8s.io/v1", "VolumeSnapshotClass") => {
            strictly::<VolumeSnapshotClass>(document).map(drop)
        }
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => strictly::<ClusterRole>(document).map(drop),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            strictly::<ClusterRoleBinding>(document).map(drop)
        }
        ("rbac.authorization.k8s.io/v1", "Role") => strictly::<Role>(document).map(drop),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => strictly::<RoleBinding>(document).map(drop),
        ("batch/v1", "CronJob") => strictly::<CronJob>(document).map(drop),
        ("batch/v1", "Job") => strictly::<Job>(document).map(drop),
        (version, kind) => Err(format!("{version} {kind}: unknown kind")),
    }
}

/// The fields of the CRD, of which there is no Rust type.
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeSnapshotClass {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    driver: String,
    deletion_policy: DeletionPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<BTreeMap<String, String>>,
}

#[derive(serde::Deserialize, serde::Serialize)]
enum DeletionPolicy {
    Delete,
    Retain,
}

/// Objects that belong to no namespace.
fn of_the_cluster(document: &Value) -> bool {
    ["ClusterRole", "ClusterRoleBinding", "VolumeSnapshotClass"].iter().any(|kind| document["kind"] == *kind)
}

impl Rendered {
    /// All objects of one kind.
    pub(crate) fn all<T: Resource + DeserializeOwned + Serialize>(&self) -> Vec<T> {
        self.documents
            .iter()
            .filter(|document| document["kind"] == T::KIND && document["apiVersion"] == T::API_VERSION)
            .map(|document| {
                strictly(document).unwrap_or_else(|error| panic!("{}: {}: {error}", self.directory, T::KIND))
            })
            .collect()
    }

    /// The object of a kind with this name.
    pub(crate) fn named<T>(&self, name: &str) -> T
    where
        T: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize,
    {
        self.all::<T>()
            .into_iter()
            .find(|object| object.metadata().name.as_deref() == Some(name))
            .unwrap_or_else(|| panic!("{}: there is no {} {name}", self.directory, T::KIND))
    }

    /// The specifications of all Jobs, those that a CronJob makes and those that stand alone. There
    /// is at least one.
    pub(crate) fn jobs(&self) -> Vec<JobSpec> {
        let made = self.all::<CronJob>().into_iter().map(|cron_job| {
            cron_job.spec.and_then(|spec| spec.job_template.spec).expect("a CronJob specifies its Jobs")
        });
        let alone = self.all::<Job>().into_iter().map(|job| job.spec.expect("a Job has a specification"));
        let jobs: Vec<_> = made.chain(alone).collect();
        assert!(!jobs.is_empty(), "{}: there is no CronJob", self.directory);
        jobs
    }
}

fn everything() -> impl Iterator<Item = &'static Rendered> {
    BASE.iter().chain(with_settings())
}

/// All that a person could apply; the base alone lacks the settings.
fn with_settings() -> impl Iterator<Item = &'static Rendered> {
    OVERLAYS.iter().chain(COMPONENTS.iter()).chain(MOVED.iter()).chain(SHOWN.iter())
}

pub(crate) fn pod_of(job: &JobSpec) -> &PodSpec {
    job.template.spec.as_ref().expect("a Job specifies its pods")
}

pub(crate) fn container_of(job: &JobSpec) -> &Container {
    match pod_of(job).containers.as_slice() {
        [container] => container,
        more => panic!("a pod has one container and not {}", more.len()),
    }
}

/// Where an object without a namespace ends up.
fn namespace_of(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

// --- Settings ------------------------------------------------------------------------------------

type Variables = BTreeMap<String, String>;

/// The variables that the container starts with, as far as the manifests set them.
fn variables(rendered: &Rendered, container: &Container) -> Variables {
    let mut variables = Variables::new();
    for source in container.env_from.iter().flatten() {
        let reference = source.config_map_ref.as_ref().expect("settings come from a ConfigMap");
        let config_map: ConfigMap = rendered.named(&reference.name);
        variables.extend(config_map.data.unwrap_or_default());
    }
    // Afterwards, because `env` wins over `envFrom`.
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, variable.name.as_str()) {
            (Some(value), _) => value.clone(),
            (None, "SNAPSHOT_RUN_ID") => "volume-snapshotter-29384755".to_owned(),
            (None, "SNAPSHOT_RUN_UID") => "5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f10".to_owned(),
            (None, name) => panic!("{}: {name} has no value of its own", rendered.directory),
        };
        variables.insert(variable.name.clone(), value);
    }
    // Kubernetes adds it in the pods of an Indexed Job; that such a Job is one is tested beside shards.
    if variables.contains_key("SNAPSHOT_SHARDS") {
        variables.insert("JOB_COMPLETION_INDEX".to_owned(), "0".to_owned());
    }
    variables
}

fn parse(variables: &Variables) -> Result<Settings, String> {
    // Until the binary reads the uid.
    let known = |name: &&String| name.as_str() != "SNAPSHOT_RUN_UID" || NAMES.contains(&name.as_str());
    let vars = variables
        .iter()
        .filter(|(name, _)| known(name))
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::parse(vars).map_err(|problems| problems.to_string())
}

/// Whether the binary reads a variable of this name. `Settings::parse` refuses the unknown ones
/// among `SNAPSHOT_*`; all others are none of its business, so a slip in the prefix would pass.
fn is_ours(name: &str) -> bool {
    name.starts_with("SNAPSHOT_") || ["RUST_LOG", "JOB_COMPLETION_INDEX"].contains(&name)
}

/// A `settings.env`: what it sets, and what it shows in a comment.
#[derive(Default)]
struct SettingsFile {
    path: PathBuf,
    active: Variables,
    examples: Vec<(String, String)>,
}

impl SettingsFile {
    fn read(overlay: &str) -> Option<Self> {
        let path = top().join(overlay).join("settings.env");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let mut file = Self { path, ..Self::default() };
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix('#') {
                file.examples.extend(assignment(comment.trim_start()));
            } else if !line.is_empty() {
                let (name, value) =
                    assignment(line).unwrap_or_else(|| panic!("{}: {line:?}", file.path.display()));
                let before = file.active.insert(name, value);
                assert!(before.is_none(), "{}: a second {line:?}", file.path.display());
            }
        }
        Some(file)
    }

    /// The settings with one of the examples switched on.
    fn with(&self, (name, value): &(String, String)) -> Variables {
        let mut variables = self.active.clone();
        match name.as_str() {
            "SNAPSHOT_PVC_SELECTOR" => variables.remove("SNAPSHOT_PVC_NAMES"),
            "SNAPSHOT_PVC_NAMES" => variables.remove("SNAPSHOT_PVC_SELECTOR"),
            _ => None,
        };
        variables.insert(name.clone(), value.clone());
        variables
    }
}

/// `NAME=value`, where the name is written like a variable's: prose is something else.
pub(crate) fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let like_a_variable = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(like_a_variable)).then(|| (name.to_owned(), value.to_owned()))
}

// --- Time ----------------------------------------------------------------------------------------

/// What each try is given for finding a node and pulling the image.
const START: Duration = Duration::from_secs(50);

/// How long a Job can take if every try takes as long as it can.
pub(crate) fn longest(job: &JobSpec, bound: Duration) -> Duration {
    let retries = job.backoff_limit.or(job.backoff_limit_per_index).expect("the number of tries is set");
    let retries = u32::try_from(retries).expect("it is not negative");
    let pauses: Duration = (0..retries).map(pause_before_retry).sum();
    (START + bound) * (retries + 1) + pauses
}

/// The Job controller's back-off: 10 s, doubled each time. Its documentation says that it ends at
/// six minutes, its source says ten: the longer one is taken.
fn pause_before_retry(retry: u32) -> Duration {
    Duration::from_secs(10).saturating_mul(2_u32.saturating_pow(retry)).min(Duration::from_secs(600))
}

pub(crate) fn deadline(job: &JobSpec) -> Duration {
    let seconds = job.active_deadline_seconds.expect("activeDeadlineSeconds is set");
    Duration::from_secs(u64::try_from(seconds).expect("activeDeadlineSeconds is not negative"))
}

// --- Pod Security --------------------------------------------------------------------------------

/// What the Pod Security Standard `restricted` (and `baseline`, which it contains) forbids in this
/// pod.
pub(crate) fn violations(pod: &PodSpec) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |allowed: bool, what: String| {
        if !allowed {
            found.push(what);
        }
    };
    let on = |field: Option<bool>| field == Some(true);

    check(!on(pod.host_network) && !on(pod.host_pid) && !on(pod.host_ipc), "a namespace of the host".into());
    for volume in pod.volumes.iter().flatten() {
        let allowed = volume.config_map.is_some()
            || volume.csi.is_some()
            || volume.downward_api.is_some()
            || volume.empty_dir.is_some()
            || volume.ephemeral.is_some()
            || volume.persistent_volume_claim.is_some()
            || volume.projected.is_some()
            || volume.secret.is_some();
        check(allowed, format!("the type of the volume {}", volume.name));
    }

    let nothing = PodSecurityContext::default();
    let of_pod = pod.security_context.as_ref().unwrap_or(&nothing);
    check(of_pod.run_as_user != Some(0), "root in the pod".into());
    check(of_pod.sysctls.iter().flatten().next().is_none(), "sysctls".into());
    check(of_pod.se_linux_options.is_none(), "SELinux options of the pod".into());
    check(of_pod.app_armor_profile.is_none(), "an AppArmor profile of the pod".into());
    check(of_pod.windows_options.is_none(), "Windows options of the pod".into());

    check(pod.ephemeral_containers.is_none(), "ephemeral containers".into());
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
        let name = &container.name;
        let nothing = SecurityContext::default();
        let own = container.security_context.as_ref().unwrap_or(&nothing);
        let capabilities = own.capabilities.clone().unwrap_or_default();
        let non_root = own.run_as_non_root.or(of_pod.run_as_non_root);
        let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
        let seccomp = seccomp.map(|profile| profile.type_.as_str());
        let ports = || container.ports.iter().flatten();

        check(!on(own.privileged), format!("{name}: privileged"));
        check(own.allow_privilege_escalation == Some(false), format!("{name}: allowPrivilegeEscalation"));
        check(on(non_root), format!("{name}: runAsNonRoot"));
        check(own.run_as_user != Some(0), format!("{name}: root"));
        check(matches!(seccomp, Some("RuntimeDefault" | "Localhost")), format!("{name}: seccompProfile"));
        check(capabilities.drop.iter().flatten().any(|name| name == "ALL"), format!("{name}: drop ALL"));
        check(
            capabilities.add.iter().flatten().all(|name| name == "NET_BIND_SERVICE"),
            format!("{name}: added capabilities"),
        );
        check(own.proc_mount.as_deref().is_none_or(|mount| mount == "Default"), format!("{name}: procMount"));
        check(own.se_linux_options.is_none(), format!("{name}: SELinux options"));
        check(own.app_armor_profile.is_none(), format!("{name}: an AppArmor profile"));
        check(own.windows_options.is_none(), format!("{name}: Windows options"));
        check(ports().all(|port| port.host_port.unwrap_or(0) == 0), format!("{name}: a port of the host"));
    }
    found
}

// --- The tests -----------------------------------------------------------------------------------

#[test]
fn every_manifest_is_of_a_known_kind_and_has_only_known_fields() {
    for rendered in everything() {
        for document in &rendered.documents {
            let name = &document["metadata"]["name"];
            read(document).unwrap_or_else(|error| panic!("{}: {name}: {error}", rendered.directory));
        }
    }
}

#[test]
fn a_misspelt_field_a_missing_one_and_an_unknown_kind_are_found() {
    let good = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "volume-snapshotter"},
        "spec": {
            "schedule": "@hourly",
            "jobTemplate": {"spec": {"template": {"spec": {
                "containers": [{
                    "name": "volume-snapshotter",
                    "securityContext": {"readOnlyRootFilesystem": true},
                }],
            }}}},
        },
    });
    assert_eq!(read(&good), Ok(()));

    let change = |path: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(path).expect("a path of the example") = value;
        read(&changed).expect_err("the change is found")
    };
    let pointer = "/spec/jobTemplate/spec/template/spec/containers/0";
    let container = "spec.jobTemplate.spec.template.spec.containers[0]";
    let security_context = format!("{pointer}/securityContext");
    assert_eq!(
        change(&security_context, json!({"readOnlyRootFilesytem": true})),
        format!("{container}.securityContext.readOnlyRootFilesytem: unknown field")
    );
    assert_eq!(
        change(pointer, json!({"image": "volume-snapshotter"})),
        format!("{container}.name: required field missing")
    );
    assert_eq!(change("/kind", json!("CronJobb")), "batch/v1 CronJobb: unknown kind");
    let version = json!("batch/v1beta1");
    assert_eq!(change("/apiVersion", version), "batch/v1beta1 CronJob: unknown kind");
    // The ConfigMap's values are strings, and a number among them is what a forgotten quote makes.
    let number = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"SNAPSHOT_CONCURRENCY": 8},
    });
    assert!(read(&number).is_err());
}

#[test]
fn a_key_that_stands_twice_in_a_manifest_is_found() {
    assert!(documents("kind: Role\nkind: Role\n").is_err());
}

#[test]
fn everything_in_an_overlay_is_in_the_namespace_of_the_overlay() {
    for rendered in OVERLAYS.iter() {
        let namespace = &kustomization(&rendered.directory)["namespace"];
        assert!(namespace.is_string(), "{}: no namespace to edit", rendered.directory);
        rendered.is_in(namespace.as_str().expect("a string"));
    }
    for rendered in MOVED.iter() {
        rendered.is_in(OTHER_NAMESPACE);
    }
}

impl Rendered {
    fn is_in(&self, namespace: &str) {
        for document in &self.documents {
            let metadata = &document["metadata"];
            let expected = if of_the_cluster(document) { Value::Null } else { json!(namespace) };
            assert_eq!(metadata["namespace"], expected, "{}: {}", self.directory, metadata["name"]);
        }
    }
}

fn kustomization(directory: &str) -> Value {
    let file = top().join(directory).join("kustomization.yaml");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn the_bindings_give_roles_that_exist_to_the_account_that_the_pods_run_as() {
    for rendered in everything() {
        let directory = &rendered.directory;
        let in_namespace = rendered.all::<RoleBinding>().into_iter().map(|binding| {
            assert_eq!(binding.role_ref.kind, Role::KIND, "{directory}");
            let role: Role = rendered.named(&binding.role_ref.name);
            assert_eq!(namespace_of(&role.metadata), namespace_of(&binding.metadata), "{directory}");
            (binding.role_ref, binding.subjects)
        });
        let in_cluster = rendered.all::<ClusterRoleBinding>().into_iter().map(|binding| {
            assert_eq!(binding.role_ref.kind, ClusterRole::KIND, "{directory}");
            rendered.named::<ClusterRole>(&binding.role_ref.name);
            (binding.role_ref, binding.subjects)
        });
        let mut bound = BTreeSet::new();
        for (role, subjects) in in_namespace.chain(in_cluster) {
            assert_eq!(role.api_group, Role::GROUP, "{directory}");
            for subject in subjects.expect("a binding has subjects") {
                assert_eq!(subject.kind, ServiceAccount::KIND, "{directory}");
                let account: ServiceAccount = rendered.named(&subject.name);
                // An API server refuses a ServiceAccount subject without one.
                let namespace = subject.namespace.expect("the subject has a namespace");
                assert_eq!(namespace, namespace_of(&account.metadata), "{directory}");
                bound.insert(subject.name);
            }
        }
        for job in rendered.jobs() {
            let pod = pod_of(&job);
            let account = pod.service_account_name.as_ref().expect("the pod has an account");
            assert!(bound.contains(account), "{directory}: {account} has no rights");
            assert_eq!(pod.automount_service_account_token, Some(true), "{directory}: no token");
        }
    }
}

pub(crate) type Granted = BTreeSet<(String, String, String)>;

pub(crate) fn granted(directory: &str, rules: impl IntoIterator<Item = PolicyRule>) -> Granted {
    let mut granted = Granted::new();
    for rule in rules {
        assert_eq!(rule.resource_names, None, "{directory}");
        assert_eq!(rule.non_resource_urls, None, "{directory}");
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    granted.insert((group.clone(), resource.clone(), verb.clone()));
                }
            }
        }
    }
    granted
}

#[test]
fn roles_grant_exactly_the_rights_that_the_binary_uses_with_these_settings() {
    let owned = |(group, resource, verb): (&str, &str, &str)| (group.into(), resource.into(), verb.into());
    let in_namespace: Granted =
        RIGHTS.iter().map(|right| owned((right.group, right.resource, right.verb))).collect();
    let over_namespaces: Granted = RIGHTS
        .iter()
        .chain(NAMESPACE_RIGHTS)
        .map(|right| owned((right.group, right.resource, right.verb)))
        .collect();
    for rendered in everything() {
        let directory = rendered.directory.as_str();
        let of_roles = rendered.all::<Role>().into_iter().flat_map(|role| role.rules.unwrap_or_default());
        let of_cluster_roles =
            rendered.all::<ClusterRole>().into_iter().flat_map(|role| role.rules.unwrap_or_default());
        let (of_roles, of_cluster_roles) =
            (granted(directory, of_roles), granted(directory, of_cluster_roles));
        // All of them use the same account, so what one of them needs all of them have.
        let selects = rendered.jobs().iter().any(|job| {
            let names: Vec<_> =
                container_of(job).env.iter().flatten().map(|variable| &variable.name).collect();
            names.contains(&&NAMESPACE_SELECTOR.to_owned())
        });
        if selects {
            assert_eq!(of_roles, Granted::new(), "{directory}");
            assert_eq!(of_cluster_roles, over_namespaces, "{directory}");
        } else {
            assert_eq!(of_roles, in_namespace, "{directory}");
            assert_eq!(of_cluster_roles, Granted::new(), "{directory}");
        }
    }
}

#[test]
fn the_settings_of_all_that_can_be_applied_are_accepted() {
    for rendered in with_settings() {
        for job in rendered.jobs() {
            let variables = variables(rendered, container_of(&job));
            for name in variables.keys() {
                assert!(is_ours(name), "{}: nobody reads {name}", rendered.directory);
            }
            if let Err(problems) = parse(&variables) {
                panic!("{}: {problems}", rendered.directory);
            }
        }
    }
}

#[test]
fn the_settings_files_set_and_document_only_known_variables_that_are_accepted() {
    let of_overlays = overlay_directories().into_iter().map(|overlay| (overlay, false));
    let of_components =
        component_names().into_iter().map(|name| (format!("kustomize/components/{name}"), true));
    for (directory, is_component) in of_overlays.chain(of_components) {
        let Some(mut file) = SettingsFile::read(&directory) else {
            assert!(is_component, "{directory} has no settings.env");
            continue;
        };
        assert!(!file.active.is_empty(), "{directory}: settings.env sets nothing");
        if is_component {
            // The rest comes from the overlay.
            file.active.insert("SNAPSHOT_PVC_NAMES".into(), "data".into());
        }
        let path = file.path.display();
        if let Err(problems) = parse(&file.active) {
            panic!("{path}: {problems}");
        }
        for (name, value) in file.active.iter().chain(file.examples.iter().map(|(name, value)| (name, value)))
        {
            assert!(is_ours(name), "{path}: nobody reads {name}");
            // Kustomize takes all of the line for the value.
            assert_eq!(value.trim(), value, "{path}: blanks around the value of {name}");
            assert!(!value.contains(['"', '\'', '#']), "{path}: {name} would hold {value:?}");
        }
        for example in &file.examples {
            let (name, value) = example;
            if let Err(problems) = parse(&file.with(example)) {
                panic!("{path}: with {name}={value}: {problems}");
            }
        }
    }
}

#[test]
fn the_longest_run_with_all_its_retries_ends_before_the_deadline() {
    assert_eq!(
        [0, 1, 2, 5, 6, 60].map(|retry| pause_before_retry(retry).as_secs()),
        [10, 20, 40, 320, 600, 600]
    );
    for rendered in with_settings() {
        for job in rendered.jobs() {
            let given = variables(rendered, container_of(&job));
            let mut cases = vec![("as it is".to_owned(), given.clone())];
            // An example that someone switches on has to fit just as well.
            if let Some(file) = SettingsFile::read(&rendered.directory) {
                cases.extend(file.examples.iter().map(|example| {
                    let mut variables = file.with(example);
                    variables.insert("SNAPSHOT_RUN_ID".into(), given["SNAPSHOT_RUN_ID"].clone());
                    (example.0.clone(), variables)
                }));
            }
            for (case, variables) in cases {
                let settings = parse(&variables).unwrap_or_else(|problems| panic!("{case}: {problems}"));
                let (deadline, longest) = (deadline(&job), longest(&job, settings.bound()));
                assert!(longest <= deadline, "{}, {case}: {longest:?} > {deadline:?}", rendered.directory);
            }
        }
    }
}

/// Then a late one pushes none aside either: begun as late as it may be, it ends before the next is
/// too late to begin.
#[test]
fn an_hourly_run_takes_less_than_an_hour() {
    for rendered in everything() {
        for cron_job in rendered.all::<CronJob>() {
            let spec = cron_job.spec.expect("a CronJob has a specification");
            if spec.schedule == "@hourly" {
                let job = spec.job_template.spec.expect("a CronJob specifies its Jobs");
                assert!(deadline(&job) < Duration::from_secs(3600), "{}", rendered.directory);
            }
        }
    }
}

/// The settings say of a wait that it is the most that fits. So ten seconds a window more must not.
#[test]
fn the_longest_wait_that_a_settings_file_shows_is_the_longest_that_fits() {
    for rendered in OVERLAYS.iter() {
        let file = SettingsFile::read(&rendered.directory).expect("an overlay has settings");
        let example = file
            .examples
            .iter()
            .find(|(name, _)| name == "SNAPSHOT_READY_INTERVAL")
            .unwrap_or_else(|| panic!("{}: no example of a longer wait", rendered.directory));
        let settings = parse(&file.with(example)).expect("the example is accepted");
        let more = settings.bound() + Duration::from_secs(10) * settings.ready_attempts;
        for job in rendered.jobs() {
            assert!(longest(&job, more) > deadline(&job), "{}: {example:?}", rendered.directory);
        }
    }
}

#[test]
fn every_overlay_shows_a_retention_that_survives_a_mistake_and_says_what_it_costs() {
    for overlay in overlay_directories() {
        let file = SettingsFile::read(&overlay).expect("an overlay has settings");
        assert_eq!(file.active["SNAPSHOT_RETENTION"], "last=1", "{overlay}");
        let recommended = "hourly=24,daily=7,weekly=4,monthly=12";
        let shown =
            file.examples.iter().any(|(name, value)| name == "SNAPSHOT_RETENTION" && value == recommended);
        assert!(shown, "{overlay}: {recommended}");
        let text = fs::read_to_string(&file.path).expect("a settings file can be read");
        assert!(text.contains("24 + 7 + 4 + 12 = 47"), "{overlay}");
    }
}

#[test]
fn exits_that_trying_again_cannot_help_end_the_job_and_a_drained_node_costs_no_try() {
    for rendered in everything() {
        for job in rendered.jobs() {
            // The API server accepts the policy only with this.
            assert_eq!(pod_of(&job).restart_policy.as_deref(), Some("Never"), "{}", rendered.directory);
            let policy = job.pod_failure_policy.as_ref().expect("podFailurePolicy is set");
            let [fail, ignore] = policy.rules.as_slice() else { panic!("two rules: {:?}", policy.rules) };

            // What fails in one shard ends no other.
            let action = if job.backoff_limit_per_index.is_some() { "FailIndex" } else { "FailJob" };
            assert_eq!(fail.action, action, "{}", rendered.directory);
            let exits = fail.on_exit_codes.as_ref().expect("it goes by exit codes");
            assert_eq!(
                exits.container_name.as_ref(),
                Some(&container_of(&job).name),
                "{}",
                rendered.directory
            );
            assert_eq!(exits.operator, "In", "{}", rendered.directory);
            assert_eq!(exits.values, [2, 3], "{}", rendered.directory);

            assert_eq!(ignore.action, "Ignore", "{}", rendered.directory);
            let conditions = ignore.on_pod_conditions.as_deref().expect("Ignore goes by conditions");
            let conditions: Vec<_> =
                conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str())).collect();
            assert_eq!(conditions, [("DisruptionTarget", "True")], "{}", rendered.directory);
        }
    }
}

#[test]
fn a_run_is_known_by_its_job_and_does_not_start_without_its_settings() {
    for rendered in everything() {
        for job in rendered.jobs() {
            let container = container_of(&job);
            for (variable, label) in [("SNAPSHOT_RUN_ID", "job-name"), ("SNAPSHOT_RUN_UID", "controller-uid")]
            {
                assert_eq!(
                    from_the_pod(container, variable),
                    [format!("metadata.labels['batch.kubernetes.io/{label}']")],
                    "{}: {variable}",
                    rendered.directory
                );
            }

            let sources = container.env_from.as_deref().expect("envFrom is set");
            assert!(!sources.is_empty(), "{}", rendered.directory);
            for source in sources {
                let config_map = source.config_map_ref.as_ref().expect("settings come from a ConfigMap");
                // Without its settings a run would prune by the default retention.
                assert_ne!(config_map.optional, Some(true), "{}", rendered.directory);
            }
            // SNAPSHOT_SERVICE_HOST of a Service named `snapshot` is a variable that the binary
            // refuses.
            assert_eq!(pod_of(&job).enable_service_links, Some(false), "{}", rendered.directory);
        }
    }
}

/// The fields of the pod that a variable is set from; empty for a variable that is not there.
pub(crate) fn from_the_pod(container: &Container, name: &str) -> Vec<String> {
    let variables = container.env.iter().flatten().filter(|variable| variable.name == name);
    variables
        .map(|variable| {
            let source = variable.value_from.as_ref().and_then(|source| source.field_ref.as_ref());
            source.map(|field| field.field_path.clone()).unwrap_or_default()
        })
        .collect()
}

#[test]
fn schedules_over_the_same_claims_own_different_snapshots() {
    for rendered in with_settings() {
        let jobs: Vec<_> = rendered
            .jobs()
            .iter()
            .map(|job| parse(&variables(rendered, container_of(job))).expect("settings are accepted").job)
            .collect();
        let different: BTreeSet<_> = jobs.iter().collect();
        assert_eq!(different.len(), jobs.len(), "{}: {jobs:?}", rendered.directory);
    }
}

#[test]
fn what_is_taken_before_an_upgrade_is_held_and_prunes_nothing() {
    for rendered in with_settings() {
        for job in rendered.all::<Job>() {
            let spec = job.spec.expect("a Job has a specification");
            let settings = parse(&variables(rendered, container_of(&spec))).expect("settings are accepted");
            assert!(settings.hold, "{}", rendered.directory);
            assert_eq!(settings.retention, "all".parse().expect("a rule"), "{}", rendered.directory);
            let annotations = job.metadata.annotations.unwrap_or_default();
            for (key, value) in [
                ("argocd.argoproj.io/hook", "PreSync"),
                ("argocd.argoproj.io/hook-delete-policy", "BeforeHookCreation"),
                ("helm.sh/hook", "pre-upgrade"),
                ("helm.sh/hook-delete-policy", "before-hook-creation"),
            ] {
                assert_eq!(annotations.get(key).map(String::as_str), Some(value), "{}", rendered.directory);
            }
        }
    }
}

/// It is written twice, because kustomize cannot make a Job of a CronJob.
#[test]
fn the_job_before_an_upgrade_is_that_of_the_schedule_but_for_its_variables() {
    let Some(rendered) = COMPONENTS.iter().find(|rendered| rendered.directory == "before-upgrade") else {
        return;
    };
    let without_what_differs = |mut job: JobSpec| {
        let template = &mut job.template;
        template.metadata = None;
        template.spec.as_mut().expect("a pod").containers[0].env = None;
        job
    };
    let cron_job = rendered.all::<CronJob>().remove(0).spec.and_then(|spec| spec.job_template.spec);
    let job = rendered.all::<Job>().remove(0).spec;
    assert_eq!(cron_job.map(without_what_differs), job.map(without_what_differs));
}

#[test]
fn a_network_policy_selects_every_pod_and_opens_nothing_but_names_and_the_api_server() {
    for rendered in everything() {
        for policy in rendered.all::<NetworkPolicy>() {
            let spec = policy.spec.expect("a NetworkPolicy has a specification");
            let selected = spec.pod_selector.and_then(|selector| selector.match_labels).unwrap_or_default();
            assert!(!selected.is_empty(), "{}: it would hold for every pod", rendered.directory);
            for job in rendered.jobs() {
                let labels = job.template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
                for (key, value) in &selected {
                    assert_eq!(labels.get(key), Some(value), "{}", rendered.directory);
                }
            }
            let types: BTreeSet<_> = spec.policy_types.into_iter().flatten().collect();
            assert_eq!(types, BTreeSet::from(["Egress".into(), "Ingress".into()]), "{}", rendered.directory);
            assert_eq!(spec.ingress, None, "{}", rendered.directory);
            let mut ports = BTreeSet::new();
            for rule in spec.egress.expect("egress is open somewhere") {
                for port in rule.ports.expect("a rule without ports opens all") {
                    let Some(IntOrString::Int(number)) = port.port else {
                        panic!("{}: a port", rendered.directory)
                    };
                    ports.insert(number);
                }
            }
            assert_eq!(ports, BTreeSet::from([53, 443, 6443, 8053]), "{}", rendered.directory);
        }
    }
}

#[test]
fn every_object_and_every_pod_says_what_it_belongs_to() {
    for rendered in everything() {
        for document in &rendered.documents {
            let metadata = &document["metadata"];
            for label in ["name", "component"] {
                let value = &metadata["labels"][format!("app.kubernetes.io/{label}")];
                assert!(value.is_string(), "{}: {}: {label}", rendered.directory, metadata["name"]);
            }
        }
        for job in rendered.jobs() {
            let labels = job.template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
            assert_eq!(
                labels.get("app.kubernetes.io/name").map(String::as_str),
                Some("volume-snapshotter"),
                "{}",
                rendered.directory
            );
        }
    }
}

#[test]
fn everything_follows_another_namespace_name_prefix_and_registry() {
    for rendered in MOVED.iter() {
        let directory = &rendered.directory;
        for document in &rendered.documents {
            let name = document["metadata"]["name"].as_str().expect("an object has a name");
            // One class serves every installation, so it keeps its name.
            let prefixed = name.starts_with(OTHER_PREFIX);
            assert_eq!(prefixed, document["kind"] != "VolumeSnapshotClass", "{directory}: {name}");
            // A CronJob's Jobs have a hyphen and eight digits more, and pods are named after them.
            assert!(name.len() <= 52, "{directory}: {name}");
        }
        for job in rendered.jobs() {
            let image = container_of(&job).image.clone().expect("a container has an image");
            assert!(image.starts_with(&format!("{OTHER_IMAGE}:")), "{directory}: {image}");
        }
        rendered.names_a_class_of_its_own();
    }
}

impl Rendered {
    fn names_a_class_of_its_own(&self) {
        let classes: Vec<_> = self
            .documents
            .iter()
            .filter(|document| document["kind"] == "VolumeSnapshotClass")
            .map(|document| document["metadata"]["name"].as_str().expect("a class has a name"))
            .collect();
        for job in self.jobs() {
            let variables = variables(self, container_of(&job));
            let class = variables.get("SNAPSHOT_CLASS_NAME").expect("the overlay names its class");
            assert!(classes.contains(&class.as_str()), "{}: {class} is none of {classes:?}", self.directory);
        }
    }
}

/// Then the class is renamed like everything else, and what kustomize does not know is in a
/// namespace. It works all the same, and the setting that names the class follows.
#[test]
fn a_prefix_without_the_transformers_for_classes_still_names_the_class_that_there_is() {
    let tree = Tree::new("renamed");
    let text = on_an_overlay(&["dry-run"]);
    let (before, after) = text.split_once("transformers:\n").expect("there are transformers");
    let (_, after) = after.split_once('\n').expect("there is one");
    if let Some(rendered) = tree.render("renamed", &format!("{before}{after}")) {
        rendered.names_a_class_of_its_own();
    }
}

#[test]
fn the_class_that_comes_with_an_overlay_is_the_one_that_its_settings_name() {
    for rendered in OVERLAYS.iter() {
        for document in rendered.documents.iter().filter(|document| document["kind"] == "VolumeSnapshotClass")
        {
            for job in rendered.jobs() {
                let variables = variables(rendered, container_of(&job));
                assert_eq!(
                    document["metadata"]["name"].as_str(),
                    variables.get("SNAPSHOT_CLASS_NAME").map(String::as_str),
                    "{}",
                    rendered.directory
                );
            }
        }
    }
}

#[test]
fn no_kustomization_uses_a_field_that_is_going_away() {
    let mut files = Vec::new();
    for directory in ["kustomize", "deploy"] {
        find_kustomizations(&top().join(directory), &mut files);
    }
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let directory =
            file.parent().and_then(|path| path.strip_prefix(top()).ok()).expect("a directory of ours");
        let kustomization = kustomization(&directory.to_string_lossy());
        for field in [
            "vars",
            "bases",
            "commonLabels",
            "patchesStrategicMerge",
            "patchesJson6902",
            "imageTags",
            "helmChartInflationGenerator",
        ] {
            assert!(kustomization.get(field).is_none(), "{}: {field}", file.display());
        }
    }
}

fn find_kustomizations(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory can be listed") {
        let path = entry.expect("an entry of a directory").path();
        if path.is_dir() {
            find_kustomizations(&path, found);
        } else if path.file_name().is_some_and(|name| name == "kustomization.yaml") {
            found.push(path);
        }
    }
}

#[test]
fn a_new_user_edits_the_settings_and_the_namespace_and_has_an_overlay_of_their_own() {
    let tree = Tree::new("new-user");
    for overlay in directories_in("deploy/overlays") {
        let directory = tree.overlay(&overlay);
        let edit = |file: &str, from: &str, to: &str| {
            let path = directory.join(file);
            let text = fs::read_to_string(&path).expect("a file of the overlay");
            assert_eq!(text.matches(from).count(), 1, "{overlay}/{file}: {from:?}");
            fs::write(&path, text.replace(from, to)).expect("the file can be written");
        };
        edit("settings.env", "SNAPSHOT_PVC_NAMES=data\n", "SNAPSHOT_PVC_NAMES=orders,customers\n");
        edit("kustomization.yaml", "namespace: default\n", "namespace: shop\n");
        let Some(yaml) = kustomize(&directory) else { continue };
        let rendered = Rendered { directory: overlay, documents: documents(&yaml).expect("YAML") };
        rendered.is_in("shop");
        let variables = variables(&rendered, container_of(&rendered.jobs()[0]));
        assert_eq!(variables["SNAPSHOT_PVC_NAMES"], "orders,customers", "{}", rendered.directory);
        parse(&variables).unwrap_or_else(|problems| panic!("{}: {problems}", rendered.directory));
    }
}

#[test]
fn the_docs_show_kustomizations() {
    assert!(shown_in_docs().len() >= 3, "{:?}", shown_in_docs());
}

/// Compared as objects, for versions of kustomize may write the same thing in two ways.
#[test]
fn the_overlays_render_to_what_is_kept_in_tests_golden() {
    let golden = top().join("tests/golden");
    let names: BTreeSet<_> = directories_in("deploy/overlays").into_iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&golden).expect("a directory");
        for name in &names {
            if let Some(yaml) = kustomize(&top().join("deploy/overlays").join(name)) {
                fs::write(golden.join(format!("{name}.yaml")), yaml).expect("the file can be written");
            }
        }
    }
    let kept: BTreeSet<_> = fs::read_dir(&golden)
        .expect("tests/golden can be listed")
        .map(|entry| entry.expect("an entry of tests/golden").path())
        .map(|path| path.file_stem().expect("a file has a name").to_string_lossy().into_owned())
        // Those are of `crate::list`.
        .filter(|name| !name.starts_with("list-"))
        .collect();
    let renew = "renew it with: UPDATE_GOLDEN=1 cargo test --test it manifests";
    assert_eq!(kept, names, "{renew}");
    for rendered in OVERLAYS.iter() {
        let name = rendered.directory.rsplit('/').next().expect("a directory has a name");
        let text = fs::read_to_string(golden.join(format!("{name}.yaml"))).expect("a file of tests/golden");
        let kept = documents(&text).expect("tests/golden holds YAML");
        assert_eq!(kept.len(), rendered.documents.len(), "{name}: {renew}");
        for (kept, rendered) in kept.iter().zip(&rendered.documents) {
            assert_eq!(kept, rendered, "{name}: {renew}");
        }
    }
}

#[test]
fn a_schedule_runs_one_job_at_a_time() {
    for rendered in everything() {
        for cron_job in rendered.all::<CronJob>() {
            let spec = cron_job.spec.expect("a CronJob has a specification");
            assert_eq!(spec.concurrency_policy.as_deref(), Some("Forbid"), "{}", rendered.directory);
            // Without it, a hundred missed starts stop a CronJob for good; below ten seconds it may
            // never start.
            let late = spec.starting_deadline_seconds.expect("startingDeadlineSeconds is set");
            assert!(late >= 10, "{}: {late}", rendered.directory);
        }
    }
}

#[test]
fn the_pod_is_allowed_where_pod_security_is_restricted_and_can_write_nothing() {
    for rendered in everything() {
        for job in rendered.jobs() {
            let pod = pod_of(&job);
            assert_eq!(violations(pod), [""; 0], "{}", rendered.directory);
            let user = pod.security_context.as_ref().and_then(|context| context.run_as_user);
            assert!(user.is_some_and(|user| user > 0), "{}: runAsUser is a number", rendered.directory);
            let context = container_of(&job).security_context.as_ref();
            let read_only = context.and_then(|context| context.read_only_root_filesystem);
            assert_eq!(read_only, Some(true), "{}", rendered.directory);
        }
    }
}

#[test]
fn a_pod_that_asks_for_more_than_restricted_allows_is_found() {
    let strict = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "c",
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    });
    let with = |path: &str, value: Value| {
        let mut pod = strict.clone();
        let (parent, key) = path.rsplit_once('/').expect("a path");
        pod.pointer_mut(parent).expect("a path of the example")[key] = value;
        violations(&strictly(&pod).expect("a pod"))
    };
    assert_eq!(with("/containers/0/name", json!("c")), [""; 0]);
    for (path, value, violation) in [
        ("/hostNetwork", json!(true), "a namespace of the host"),
        ("/volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), "the type of the volume v"),
        ("/securityContext/runAsUser", json!(0), "root in the pod"),
        ("/securityContext/runAsNonRoot", json!(false), "c: runAsNonRoot"),
        ("/securityContext/seccompProfile", json!({"type": "Unconfined"}), "c: seccompProfile"),
        ("/containers/0/securityContext/runAsNonRoot", json!(false), "c: runAsNonRoot"),
        ("/containers/0/securityContext/privileged", json!(true), "c: privileged"),
        (
            "/containers/0/securityContext/allowPrivilegeEscalation",
            json!(true),
            "c: allowPrivilegeEscalation",
        ),
        ("/containers/0/securityContext/capabilities", json!({"drop": ["KILL"]}), "c: drop ALL"),
        (
            "/containers/0/securityContext/capabilities",
            json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            "c: added capabilities",
        ),
        ("/containers/0/ports", json!([{"containerPort": 80, "hostPort": 80}]), "c: a port of the host"),
    ] {
        assert_eq!(with(path, value), [violation], "{path}");
    }
}
