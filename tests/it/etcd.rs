//! The component `etcd-snapshot` with a real etcd: what its containers are told to do is done, in their order, and what comes of
//! it is restored into a second etcd, by the line that docs/etcd.md has for that.
//!
//! Needs `etcd`, `etcdctl`, `openssl` and `kubectl` or `kustomize`, and says so where one is missing. `etcdutl` came with etcd 3.5;
//! without it the same arguments are given to `etcdctl`, from which it was split off.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use fake_apiserver::Options;
use k8s_openapi::api::{
    batch::v1::{CronJob, JobSpec},
    core::v1::{Container, PersistentVolumeClaim},
};
use serde_json::{Value, json};

use crate::{
    daemons::{Daemon, free_port, skip, version},
    manifests::{
        Rendered, Tree, container_of, deadline, longest, on_an_overlay, on_the_base, pod_of, top, variables,
    },
    test_cluster::{embedded_only, name_of},
};

/// How long `save` may take, by its arguments, and `check`, which reads the same from a disk.
const SAVE_AND_CHECK: Duration = Duration::from_secs(600);

fn job_of(rendered: &Rendered) -> JobSpec {
    let is_of_etcd = |job: &CronJob| {
        job.metadata.name.as_deref().is_some_and(|name| name.ends_with("volume-snapshotter-etcd"))
    };
    let cron_job =
        rendered.all::<CronJob>().into_iter().find(is_of_etcd).expect("the CronJob of the component");
    cron_job.spec.and_then(|spec| spec.job_template.spec).expect("a CronJob specifies its Jobs")
}

fn steps(job: &JobSpec) -> &[Container] {
    pod_of(job).init_containers.as_deref().expect("init containers")
}

fn component(name: &str, components: &[&str]) -> Option<Rendered> {
    let rendered = Tree::new(name).render(name, &on_the_base(components));
    if rendered.is_none() {
        skip("the component etcd-snapshot is not tried: neither kubectl nor kustomize is installed");
    }
    rendered
}

/// A node: what the pod's containers have as `/snapshot` and `/certificates` are directories here.
struct Place {
    directory: PathBuf,
    endpoints: String,
}

impl Place {
    fn new(name: &str) -> Self {
        static PLACES: AtomicUsize = AtomicUsize::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("etcd-{name}-{}-{number}", std::process::id()));
        for inner in ["snapshot", "certificates", "first", "second", "programs"] {
            fs::create_dir_all(directory.join(inner)).expect("a directory");
        }
        let place = Self { directory, endpoints: String::new() };
        place.certificates();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// One certificate for the server, its clients and the CA, under the names that the pod has.
    fn certificates(&self) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=etcd", "-keyout", "tls.key", "-out", "tls.crt"]);
        openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
        let said = openssl.current_dir(self.path("certificates")).output().expect("openssl");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        fs::copy(self.path("certificates/tls.crt"), self.path("certificates/ca.crt")).expect("a copy");
    }

    /// Starts an etcd that accepts clients with a certificate only; its data is in `data` of the directory.
    fn etcd(&mut self, directory: &str) -> Daemon {
        let certificate = |file: &str| self.path("certificates").join(file).display().to_string();
        let (crt, key, ca) = (certificate("tls.crt"), certificate("tls.key"), certificate("ca.crt"));
        let (client, peer) = (free_port(), free_port());
        self.endpoints = format!("https://127.0.0.1:{client}");
        let (clients, peers) = (self.endpoints.clone(), format!("http://127.0.0.1:{peer}"));
        Daemon::start("etcd", &self.path(directory), "/health", |port| {
            [
                "--data-dir=data".to_owned(),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
                format!("--cert-file={crt}"),
                format!("--key-file={key}"),
                format!("--trusted-ca-file={ca}"),
                "--client-cert-auth".to_owned(),
                format!("--listen-metrics-urls=http://127.0.0.1:{port}"),
            ]
            .into()
        })
    }

    /// What `etcdctl` answers to a person with the certificate.
    fn etcdctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_ENDPOINTS", &self.endpoints).current_dir(self.path("certificates"));
        let said =
            command.args(["--cacert=ca.crt", "--cert=tls.crt", "--key=tls.key"]).args(arguments).output();
        let said = said.expect("etcdctl");
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).expect("UTF-8")
    }

    /// Does what a container does, with its own variables and directories and nothing else: what it says, or says when it fails.
    fn contain(&self, container: &Container) -> Result<String, String> {
        let mounted: Vec<(String, String)> = container
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| (mount.mount_path.clone(), self.path(&mount.mount_path[1..]).display().to_string()))
            .collect();
        let here = |text: &String| {
            mounted.iter().fold(text.clone(), |text, (there, here)| text.replace(there.as_str(), here))
        };
        let command: Vec<String> =
            container.command.iter().chain(&container.args).flatten().map(here).collect();
        let mut variables = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            variables.insert(variable.name.clone(), here(variable.value.as_ref().expect("a value")));
        }
        if let Some(endpoints) = variables.get_mut("ETCDCTL_ENDPOINTS") {
            endpoints.clone_from(&self.endpoints);
        }
        let program = etcd_program(&command[0]);
        let mut process = Command::new(program);
        let path =
            format!("{}:{}", self.path("programs").display(), std::env::var("PATH").unwrap_or_default());
        process.env_clear().envs(variables).env("PATH", path);
        let said = process.args(&command[1..]).current_dir("/").stdin(Stdio::null()).output();
        let said = said.unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        if said.status.success() { Ok(text) } else { Err(text) }
    }

    /// Does what the init containers do, up to the first that fails: its name, and what it said.
    fn start(&self, steps: &[Container]) -> Result<Vec<String>, (String, String)> {
        let one = |step| self.contain(step).map_err(|said| (step.name.clone(), said));
        steps.iter().map(one).collect()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("snapshot")).expect("a directory");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The program itself, or in place of an `etcdutl` that is not installed the one that it was split off from.
fn etcd_program(program: &str) -> &str {
    if program != "etcdutl" {
        return program;
    }
    match Command::new(program).arg("version").stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip("etcdutl is not installed (it came with etcd 3.5): etcdctl does its work");
            "etcdctl"
        }
        _ => program,
    }
}

fn is_missing() -> bool {
    ["etcd", "etcdctl", "openssl"]
        .iter()
        .any(|program| version(program, "no etcd is saved and restored").is_none())
}

/// The line with which docs/etcd.md restores a file.
fn restoring_line() -> Vec<String> {
    let page = fs::read_to_string(top().join("docs/etcd.md")).expect("docs/etcd.md");
    let line = page.lines().map(str::trim).find(|line| line.starts_with("etcdutl snapshot restore"));
    line.expect("docs/etcd.md restores").split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn what_was_saved_checked_kept_and_snapshotted_is_restored_into_a_second_etcd() {
    if is_missing() {
        return;
    }
    let Some(rendered) = component("etcd-round-trip", &["etcd-snapshot"]) else { return };
    let job = job_of(&rendered);
    embedded_only(Options::default(), "etcd is not in the cluster", async |cluster| {
        let mut place = Place::new("cluster");
        let first = place.etcd("first");
        place.etcdctl(&["put", "/registry/greeting", "as it was"]);
        let said = place.start(steps(&job)).unwrap_or_else(|failed| panic!("{failed:?}"));
        assert!(said[1].contains("TOTAL KEYS"), "{said:?}");
        assert!(said[2].starts_with("kept etcd.db, "), "{said:?}");
        assert_eq!(place.files(), ["etcd.db"], "one file, and nothing temporary");
        for (step, said) in steps(&job).iter().zip(&said) {
            let last: Vec<_> = said.lines().filter(|line| !line.starts_with('{')).collect();
            println!("{}:\n  {}", step.name, last.join("\n  "));
        }

        // The claim of the component, with what is on it by now, and the run that comes last.
        let [claim] = &rendered.all::<PersistentVolumeClaim>()[..] else { panic!("one claim") };
        cluster.labelled_claim("etcd-snapshot", json!(claim.metadata.labels)).await;
        cluster.claim("data").await;
        let file = fs::read(place.path("snapshot/etcd.db")).expect("the file");
        cluster.fake().set_content(&cluster.namespace, "etcd-snapshot", json!(file));
        let settings = variables(&rendered, container_of(&job));
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let ran = cluster.run(&settings).await;
        ran.assert_exit(0);
        println!("run:\n  {}", ran.message.trim_end().replace('\n', "\n  "));
        let snapshots = cluster.snapshots().await;
        let [snapshot] = &snapshots[..] else { panic!("one snapshot, of that claim alone: {snapshots:?}") };
        assert_eq!(snapshot["spec"]["source"]["persistentVolumeClaimName"], "etcd-snapshot");
        assert_eq!(snapshot["metadata"]["labels"]["job"], "volume-snapshotter-etcd");

        // What happens afterwards is not in it.
        place.etcdctl(&["put", "/registry/greeting", "as it became"]);
        drop(first);
        let content = cluster.fake().snapshot_content(&cluster.namespace, name_of(snapshot));
        let content: Vec<u8> = serde_json::from_value(content.expect("it was taken")).expect("bytes");
        fs::write(place.path("restored.db"), content).expect("a file");
        let line = restoring_line();
        let here = |word: &String| match word.as_str() {
            "/mnt/etcd.db" => place.path("restored.db").display().to_string(),
            "/var/lib/etcd-restored" => place.path("second/data").display().to_string(),
            word => word.to_owned(),
        };
        let words: Vec<String> = line[1..].iter().map(here).collect();
        assert!(words.iter().filter(|word| word.starts_with('/')).count() == 2, "{line:?}");
        let said = Command::new(etcd_program(&line[0])).args(&words).output().expect("it starts");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let second = place.etcd("second");
        let value = place.etcdctl(&["get", "/registry/greeting", "--print-value-only"]);
        println!("{}\nthe second etcd:\n  /registry/greeting = {}", line.join(" "), value.trim());
        assert_eq!(value, "as it was\n");
        drop(second);
    })
    .await;
}

#[test]
fn what_cannot_be_saved_or_read_never_replaces_the_last_file() {
    if is_missing() {
        return;
    }
    let Some(rendered) = component("etcd-failures", &["etcd-snapshot", "etcd-snapshot/kubeadm"]) else {
        return;
    };
    let mut place = Place::new("failures");
    let etcd = place.etcd("first");
    let mut job = job_of(&rendered);
    place.start(steps(&job)).unwrap_or_else(|failed| panic!("{failed:?}"));
    let last = fs::read(place.path("snapshot/etcd.db")).expect("the file");

    // Some of the file, as if the storage had lost the rest; or one bit, of which no page's structure tells.
    let (save, rest) = steps(&job).split_first().expect("save, check, keep");
    for (damage, by) in [("no database", "check"), ("a third", ""), ("a bit", "keep")] {
        place.contain(save).expect("it is saved");
        let mut file = fs::read(place.path("snapshot/new.db")).expect("the file");
        match damage {
            "no database" => file.truncate(100),
            "a third" => file.truncate(file.len() / 3),
            _ => {
                let end = file.len() - 33;
                file[end] ^= 1;
            }
        }
        fs::write(place.path("snapshot/new.db"), file).expect("a file");
        let (failed, said) = place.start(rest).expect_err("the file is damaged");
        println!("{damage}: {failed}: {}", said.lines().last().unwrap_or_default());
        assert!(failed == by || by.is_empty(), "{damage}: {failed}: {said}");
        assert_eq!(said.contains("new.db is damaged: its SHA-256 is "), failed == "keep", "{said}");
        assert_eq!(place.files(), ["etcd.db", "new.db"], "{damage}");
        assert_eq!(fs::read(place.path("snapshot/etcd.db")).expect("the file"), last, "{damage}");
    }

    // What was left behind is in nobody's way.
    place.start(steps(&job)).unwrap_or_else(|failed| panic!("{failed:?}"));
    assert_eq!(place.files(), ["etcd.db"]);

    // A claim that is nearly full is told of before it is too small; and the storage sees the new name.
    for (program, text) in [
        ("stat", "case $1 in -f) echo '2 * 4096' ;; *) exec /usr/bin/stat \"$@\" ;; esac"),
        ("sync", "echo \"flushed with $*\"; ls; exec /usr/bin/sync \"$@\""),
    ] {
        let program = place.path("programs").join(program);
        fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("a file");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program can be run");
    }
    let said = place.start(steps(&job)).unwrap_or_else(|failed| panic!("{failed:?}"));
    assert!(said[2].starts_with("flushed with -f etcd.db\netcd.db\nkept etcd.db, "), "{said:?}");
    assert!(said[2].contains("8192 bytes are free\nwarning: the next file may not fit"), "{said:?}");
    let last = fs::read(place.path("snapshot/etcd.db")).expect("the file");

    // And of an etcd that does not answer nothing is checked or kept.
    drop(etcd);
    let pod = job.template.spec.as_mut().expect("a pod");
    let save = &mut pod.init_containers.as_mut().expect("init containers")[0];
    for argument in save.args.iter_mut().flatten() {
        *argument = argument.replace("--command-timeout=5m", "--command-timeout=2s");
    }
    let (failed, said) = place.start(steps(&job)).expect_err("nobody answers");
    println!("{failed}: {}", said.lines().last().unwrap_or_default());
    assert_eq!(failed, "save");
    assert_eq!(place.files(), ["etcd.db"]);
    assert_eq!(fs::read(place.path("snapshot/etcd.db")).expect("the file"), last);
}

#[test]
fn the_steps_come_in_order_and_only_saving_and_keeping_write() {
    for (name, components) in [
        ("etcd-service", &["etcd-snapshot"][..]),
        ("etcd-kubeadm", &["etcd-snapshot", "etcd-snapshot/kubeadm"]),
    ] {
        let Some(rendered) = component(name, components) else { return };
        let job = job_of(&rendered);
        let mut writing = Vec::new();
        for step in steps(&job) {
            for mount in step.volume_mounts.iter().flatten() {
                if mount.read_only != Some(true) {
                    writing.push((step.name.as_str(), mount.mount_path.as_str()));
                }
            }
        }
        assert_eq!(writing, [("save", "/snapshot"), ("keep", "/snapshot")], "{name}");
        // A mount at this place is what keeps the API server from adding one of the token.
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        for step in steps(&job) {
            let mount = step.volume_mounts.iter().flatten().find(|mount| mount.mount_path == token);
            assert_eq!(mount.map(|mount| mount.name.as_str()), Some("no-token"), "{name}: {}", step.name);
        }
        let steps: Vec<_> = steps(&job).iter().map(|step| step.name.as_str()).collect();
        assert_eq!(steps, ["save", "check", "keep"], "{name}");
        // Three tries, each with the longest wait that an overlay's settings allow beside the steps before it.
        let bound = Duration::from_secs(1080) + SAVE_AND_CHECK;
        assert!(longest(&job, bound) <= deadline(&job), "{name}: {:?}", longest(&job, bound));
        let args: Vec<_> = pod_of(&job)
            .init_containers
            .iter()
            .flatten()
            .flat_map(|one| one.args.clone())
            .flatten()
            .collect();
        assert!(args.contains(&"--command-timeout=5m".to_owned()), "{name}: {args:?}");
    }
}

#[test]
fn on_a_control_plane_node_of_kubeadm_the_pod_sees_three_files_of_the_host() {
    let kustomization = on_an_overlay(&["etcd-snapshot", "etcd-snapshot/kubeadm", "all-claims", "sharded"]);
    let Some(rendered) = Tree::new("etcd-host").render("etcd-host", &kustomization) else { return };
    let job = job_of(&rendered);
    let pod = pod_of(&job);
    assert_eq!((pod.host_network, pod.dns_policy.as_deref()), (Some(true), Some("ClusterFirstWithHostNet")));
    assert_eq!(json!(pod.node_selector), json!({"node-role.kubernetes.io/control-plane": ""}));
    let tolerated: Vec<_> = pod.tolerations.iter().flatten().filter_map(|one| one.key.as_deref()).collect();
    assert_eq!(tolerated, ["node-role.kubernetes.io/control-plane"]);
    let of_the_host: BTreeMap<_, _> = pod
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| Some((volume.name.as_str(), volume.host_path.as_ref()?)))
        .map(|(name, path)| (name, (path.path.as_str(), path.type_.as_deref())))
        .collect();
    let pki = "/etc/kubernetes/pki/etcd";
    assert_eq!(
        json!(of_the_host),
        json!({
            "ca": [format!("{pki}/ca.crt"), "File"],
            "certificate": [format!("{pki}/healthcheck-client.crt"), "File"],
            "key": [format!("{pki}/healthcheck-client.key"), "File"],
        })
    );
    // Only the container that needs them.
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
        let mounts = container.volume_mounts.iter().flatten();
        let files: Vec<_> = mounts.filter(|mount| of_the_host.contains_key(mount.name.as_str())).collect();
        assert_eq!(files.len(), if container.name == "save" { 3 } else { 0 }, "{}", container.name);
        assert!(files.iter().all(|mount| mount.read_only == Some(true)), "{}", container.name);
    }
    let endpoints: Vec<_> =
        steps(&job)[0].env.iter().flatten().filter_map(|one| one.value.as_deref()).collect();
    assert_eq!(endpoints, ["https://127.0.0.1:2379"]);
    let names: Vec<&Value> = rendered.documents.iter().map(|one| &one["metadata"]["name"]).collect();
    assert!(names.contains(&&json!("shop-etcd-snapshot")), "{names:?}");
}
