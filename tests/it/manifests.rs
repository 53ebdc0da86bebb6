//! What a person applies: the base and every overlay, rendered as `kubectl apply -k` renders them,
//! read as strictly as an API server reads them, and compared with what the binary says of itself.
//!
//! Rendering needs `kubectl` or `kustomize`. Where neither is installed, the tests that need it say
//! so and pass.

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
        batch::v1::{CronJob, JobSpec},
        core::v1::{ConfigMap, Container, PodSecurityContext, PodSpec, SecurityContext, ServiceAccount},
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    serde::{Serialize, de::DeserializeOwned},
};
use serde_json::{Value, json};
use volume_snapshotter::{cluster::RIGHTS, settings::Settings};

// --- Rendering -----------------------------------------------------------------------------------

/// What kustomize makes of one directory.
struct Rendered {
    /// The directory, from the top of the repository.
    directory: String,
    documents: Vec<Value>,
}

static BASE: LazyLock<Vec<Rendered>> = LazyLock::new(|| rendered(["kustomize/base".to_owned()]));
static OVERLAYS: LazyLock<Vec<Rendered>> = LazyLock::new(|| rendered(overlay_directories()));

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn overlay_directories() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(top().join("deploy/overlays"))
        .expect("deploy/overlays can be listed")
        .map(|entry| entry.expect("an entry of deploy/overlays"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("an overlay's name is UTF-8"))
        .map(|name| format!("deploy/overlays/{name}"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "there is no overlay");
    names
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
fn read(document: &Value) -> Result<(), String> {
    let of = |field: &str| document[field].as_str().unwrap_or_default();
    match (of("apiVersion"), of("kind")) {
        ("v1", "ServiceAccount") => strictly::<ServiceAccount>(document).map(drop),
        ("v1", "ConfigMap") => strictly::<ConfigMap>(document).map(drop),
        ("rbac.authorization.k8s.io/v1", "Role") => strictly::<Role>(document).map(drop),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => strictly::<RoleBinding>(document).map(drop),
        ("batch/v1", "CronJob") => strictly::<CronJob>(document).map(drop),
        (version, kind) => Err(format!("{version} {kind}: unknown kind")),
    }
}

impl Rendered {
    /// All objects of one kind.
    fn all<T: Resource + DeserializeOwned + Serialize>(&self) -> Vec<T> {
        self.documents
            .iter()
            .filter(|document| document["kind"] == T::KIND && document["apiVersion"] == T::API_VERSION)
            .map(|document| {
                strictly(document).unwrap_or_else(|error| panic!("{}: {}: {error}", self.directory, T::KIND))
            })
            .collect()
    }

    /// The object of a kind with this name.
    fn named<T>(&self, name: &str) -> T
    where
        T: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize,
    {
        self.all::<T>()
            .into_iter()
            .find(|object| object.metadata().name.as_deref() == Some(name))
            .unwrap_or_else(|| panic!("{}: there is no {} {name}", self.directory, T::KIND))
    }

    /// The specifications of all Jobs, of which there is at least one.
    fn jobs(&self) -> Vec<JobSpec> {
        let jobs: Vec<_> = self
            .all::<CronJob>()
            .into_iter()
            .map(|cron_job| {
                cron_job.spec.and_then(|spec| spec.job_template.spec).expect("a CronJob specifies its Jobs")
            })
            .collect();
        assert!(!jobs.is_empty(), "{}: there is no CronJob", self.directory);
        jobs
    }
}

fn everything() -> impl Iterator<Item = &'static Rendered> {
    BASE.iter().chain(OVERLAYS.iter())
}

fn pod_of(job: &JobSpec) -> &PodSpec {
    job.template.spec.as_ref().expect("a Job specifies its pods")
}

fn container_of(job: &JobSpec) -> &Container {
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
            (None, name) => panic!("{}: {name} has no value of its own", rendered.directory),
        };
        variables.insert(variable.name.clone(), value);
    }
    variables
}

fn parse(variables: &Variables) -> Result<Settings, String> {
    let vars = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::parse(vars).map_err(|problems| problems.to_string())
}

/// Whether the binary reads a variable of this name. `Settings::parse` refuses the unknown ones
/// among `SNAPSHOT_*`; all others are none of its business, so a slip in the prefix would pass.
fn is_ours(name: &str) -> bool {
    name.starts_with("SNAPSHOT_") || name == "RUST_LOG"
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
fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let like_a_variable = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(like_a_variable)).then(|| (name.to_owned(), value.to_owned()))
}

// --- Time ----------------------------------------------------------------------------------------

/// How long a Job can take if every try takes as long as it can.
fn longest(job: &JobSpec, bound: Duration) -> Duration {
    let retries =
        u32::try_from(job.backoff_limit.expect("backoffLimit is set")).expect("backoffLimit is not negative");
    let pauses: Duration = (0..retries).map(pause_before_retry).sum();
    bound * (retries + 1) + pauses
}

/// The Job controller's back-off: 10 s, doubled each time. Its documentation says that it ends at
/// six minutes, its source says ten: the longer one is taken.
fn pause_before_retry(retry: u32) -> Duration {
    Duration::from_secs(10).saturating_mul(2_u32.saturating_pow(retry)).min(Duration::from_secs(600))
}

fn deadline(job: &JobSpec) -> Duration {
    let seconds = job.active_deadline_seconds.expect("activeDeadlineSeconds is set");
    Duration::from_secs(u64::try_from(seconds).expect("activeDeadlineSeconds is not negative"))
}

// --- Pod Security --------------------------------------------------------------------------------

/// What the Pod Security Standard `restricted` (and `baseline`, which it contains) forbids in this
/// pod.
fn violations(pod: &PodSpec) -> Vec<String> {
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
        let file = top().join(&rendered.directory).join("kustomization.yaml");
        let text = fs::read_to_string(&file).expect("an overlay has a kustomization.yaml");
        let kustomization: Value = serde_saphyr::from_str(&text).expect("kustomization.yaml is YAML");
        let namespace = &kustomization["namespace"];
        assert!(namespace.is_string(), "{}: no namespace to edit", rendered.directory);
        for document in &rendered.documents {
            let metadata = &document["metadata"];
            assert_eq!(&metadata["namespace"], namespace, "{}: {}", rendered.directory, metadata["name"]);
        }
    }
}

#[test]
fn the_binding_gives_the_role_that_exists_to_the_account_that_the_pod_runs_as() {
    for rendered in everything() {
        let directory = &rendered.directory;
        let bindings: Vec<RoleBinding> = rendered.all();
        assert!(!bindings.is_empty(), "{directory}: there is no RoleBinding");
        let mut bound = BTreeSet::new();
        for binding in bindings {
            assert_eq!(binding.role_ref.api_group, Role::GROUP, "{directory}");
            assert_eq!(binding.role_ref.kind, Role::KIND, "{directory}");
            let role: Role = rendered.named(&binding.role_ref.name);
            assert_eq!(namespace_of(&role.metadata), namespace_of(&binding.metadata), "{directory}");
            for subject in binding.subjects.expect("a RoleBinding has subjects") {
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

#[test]
fn the_role_grants_exactly_the_rights_that_the_binary_uses() {
    let used: BTreeSet<(String, String, String)> =
        RIGHTS.iter().map(|right| (right.group.into(), right.resource.into(), right.verb.into())).collect();
    for rendered in everything() {
        let mut granted = BTreeSet::new();
        for rule in rendered.all::<Role>().into_iter().flat_map(|role| role.rules.unwrap_or_default()) {
            assert_eq!(rule.resource_names, None, "{}", rendered.directory);
            assert_eq!(rule.non_resource_urls, None, "{}", rendered.directory);
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    for verb in &rule.verbs {
                        granted.insert((group.clone(), resource.clone(), verb.clone()));
                    }
                }
            }
        }
        assert_eq!(granted, used, "{}", rendered.directory);
    }
}

#[test]
fn the_settings_of_every_overlay_are_accepted() {
    for rendered in OVERLAYS.iter() {
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
fn the_settings_file_documents_only_known_variables() {
    for overlay in overlay_directories() {
        let Some(file) = SettingsFile::read(&overlay) else {
            continue;
        };
        let path = file.path.display();
        assert!(!file.active.is_empty(), "{path} sets nothing");
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
    for rendered in OVERLAYS.iter() {
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

#[test]
fn exits_that_trying_again_cannot_help_end_the_job_and_a_drained_node_costs_no_try() {
    for rendered in everything() {
        for job in rendered.jobs() {
            // The API server accepts the policy only with this.
            assert_eq!(pod_of(&job).restart_policy.as_deref(), Some("Never"), "{}", rendered.directory);
            let policy = job.pod_failure_policy.as_ref().expect("podFailurePolicy is set");
            let [fail, ignore] = policy.rules.as_slice() else { panic!("two rules: {:?}", policy.rules) };

            assert_eq!(fail.action, "FailJob", "{}", rendered.directory);
            let exits = fail.on_exit_codes.as_ref().expect("FailJob goes by exit codes");
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
fn a_run_is_known_by_the_name_of_its_job_and_does_not_start_without_its_settings() {
    for rendered in everything() {
        for job in rendered.jobs() {
            let container = container_of(&job);
            let run_ids: Vec<_> = container
                .env
                .iter()
                .flatten()
                .filter(|variable| variable.name == "SNAPSHOT_RUN_ID")
                .collect();
            let [run_id] = run_ids.as_slice() else { panic!("{}: one SNAPSHOT_RUN_ID", rendered.directory) };
            let path = run_id
                .value_from
                .as_ref()
                .and_then(|source| source.field_ref.as_ref())
                .map(|field| field.field_path.as_str());
            assert_eq!(
                path,
                Some("metadata.labels['batch.kubernetes.io/job-name']"),
                "{}",
                rendered.directory
            );

            let [source] = container.env_from.as_deref().expect("envFrom is set") else {
                panic!("{}: one source of settings", rendered.directory)
            };
            let config_map = source.config_map_ref.as_ref().expect("settings come from a ConfigMap");
            // Without its settings a run would prune by the default retention.
            assert_ne!(config_map.optional, Some(true), "{}", rendered.directory);
            // SNAPSHOT_SERVICE_HOST of a Service named `snapshot` is a variable that the binary
            // refuses.
            assert_eq!(pod_of(&job).enable_service_links, Some(false), "{}", rendered.directory);
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
