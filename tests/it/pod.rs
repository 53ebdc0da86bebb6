//! The binary started as in a pod: the API server's address in the environment, the ServiceAccount's token,
//! CA and namespace in files, TLS, and nothing else.
//!
//! Kubernetes fixes the paths of those files. A private mount namespace with an empty `/run` lets a test
//! create them without touching the machine's own. Where that is not possible (it needs Linux, and some
//! sandboxes forbid it), the test says so. Another test covers a kubeconfig that names the files, on every
//! system.

use std::{io::Write, path::Path};

use fake_apiserver::Options;
use serde_json::Value;
use tokio::process::Command;

use crate::test_cluster::{BINARY, Running, TestCluster, all_permissions, embedded};

/// Creates the files where a pod has them, in a separate mount namespace, and starts the binary without the
/// privileges that the namespace was created with.
const AS_IN_A_POD: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$1"/* /run/secrets/kubernetes.io/serviceaccount/
shift
exec "$@"
"#;

pub(crate) async fn mount_namespaces_work() -> bool {
    // /var/run, which Kubernetes names, has to be a link to /run as everywhere by now.
    let tried = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs tmpfs /run && mkdir /var/run/secrets",
        ])
        .output()
        .await;
    tried.is_ok_and(|output| output.status.success())
}

pub(crate) fn over_tls() -> Options {
    Options { tls: true, ..Options::default() }
}

/// A directory with what the kubelet mounts into a pod.
pub(crate) async fn service_account(cluster: &TestCluster, rules: &Value) -> std::path::PathBuf {
    let token = cluster.token(rules).await;
    let directory = cluster.directory("serviceaccount");
    for (name, content) in [
        ("token", token.as_str()),
        ("ca.crt", cluster.fake().ca_pem().expect("TLS")),
        ("namespace", &cluster.namespace),
    ] {
        std::fs::write(directory.join(name), content).expect("a file");
    }
    directory
}

/// Starts the binary with these arguments where those files are as in a pod.
pub(crate) fn start_in_pod(
    cluster: &TestCluster,
    files: &Path,
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> Running {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", AS_IN_A_POD, "sh"]);
    command.arg(files).arg(BINARY).args(arguments);
    // On Gardener the address is a host's name as well.
    let port = cluster.fake().address().port().to_string();
    let pod = [
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("KUBERNETES_SERVICE_HOST", "localhost"),
        ("KUBERNETES_SERVICE_PORT", &port),
    ];
    cluster.start_process(command, &pod, settings)
}

/// Starts the binary by a kubeconfig that names those files.
fn start_by_files(cluster: &TestCluster, files: &Path, settings: &[(&str, &str)]) -> Running {
    let (token, ca) = (files.join("token"), files.join("ca.crt"));
    let kubeconfig = cluster.fake().kubeconfig_with_token_file(&token, &ca, &cluster.namespace);
    cluster.start_as(&cluster.file("kubeconfig", &kubeconfig), settings)
}

async fn has_run_well(cluster: &TestCluster, running: Running) {
    running.finish().await.assert_exit(0);
    let names = cluster.names().await;
    assert!(names.len() == 1 && names[0].starts_with("volume-snapshot-"), "{names:?}");
    assert!(cluster.fake().requests().iter().any(|request| {
        request.verb == "create"
            && request.user == format!("system:serviceaccount:{}:volume-snapshotter", cluster.namespace)
    }));
}

#[tokio::test]
async fn in_a_pod_the_service_account_and_the_clusters_ca_are_all_it_needs() {
    if !mount_namespaces_work().await {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no private mount namespace can be had here");
        return;
    }
    embedded(over_tls(), async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let files = service_account(cluster, &all_permissions()).await;
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RUN_ID", "volume-snapshotter-29384750")];
        has_run_well(cluster, start_in_pod(cluster, &files, &[], &settings)).await;
    })
    .await;
}

#[tokio::test]
async fn a_kubeconfig_may_name_a_token_file_and_a_ca_file() {
    embedded(over_tls(), async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let files = service_account(cluster, &all_permissions()).await;
        let settings = [("SNAPSHOT_PVC_NAMES", "data")];
        has_run_well(cluster, start_by_files(cluster, &files, &settings)).await;
    })
    .await;
}

#[tokio::test]
async fn another_clusters_ca_is_not_trusted() {
    embedded(over_tls(), async |cluster| {
        let files = service_account(cluster, &all_permissions()).await;
        embedded(over_tls(), async |other| {
            std::fs::write(files.join("ca.crt"), other.fake().ca_pem().expect("TLS")).expect("a file");
        })
        .await;
        let running = start_by_files(cluster, &files, &[("SNAPSHOT_PVC_NAMES", "data")]);
        // It is tried again for a minute, for a cluster's CA may be changing: one try is enough here.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        running.signal("TERM");
        let ran = running.finish().await;
        ran.assert_exit(143);
        assert!(!ran.lines("invalid peer certificate").is_empty(), "{:?}", ran.log);
    })
    .await;
}

#[test]
fn the_help_text_and_the_version_go_to_standard_output() {
    let output =
        |argument: &str| std::process::Command::new(BINARY).arg(argument).output().expect("it starts");
    let help = output("--help");
    assert!(help.status.success() && help.stderr.is_empty());
    assert!(String::from_utf8_lossy(&help.stdout).contains("SNAPSHOT_PVC_NAMES"));
    let version = output("--version");
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        concat!("volume-snapshotter ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let unknown = output("--frobnicate");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("try '--help'"));
}
