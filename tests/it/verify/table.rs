//! The table of outcomes: for each way in which a drill can end its exit code, what it says, what it notes on the
//! snapshot, and what it leaves behind, which is nothing. `cargo test --test it -- verify::table --nocapture` prints it.
//!
//! Where something is read, the pod runs this program's own `read`, on a directory of the test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use fake_apiserver::{Options, PodPlan, Provision, objects};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{found, millis, plan, rights, verify_with};
use crate::test_cluster::{BINARY, TestCluster, embedded_only};

const NEEDS_PODS: &str = "needs pods whose end a test chooses";

/// How many rows are played at a time: most of them wait most of the time.
const AT_A_TIME: usize = 4;

/// What is noted on the snapshot.
#[derive(Clone, Copy)]
enum Noted {
    Verified(&'static str),
    Failed(&'static str),
    Nothing,
}

#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    /// What is arranged before the drill begins.
    arrange: fn(&TestCluster),
    variables: &'static [(&'static str, &'static str)],
    template: Option<&'static str>,
    /// The mode of the claim's volume, which the snapshot has too.
    mode: &'static str,
    exit: i32,
    says: &'static str,
    noted: Noted,
    stays: Stays,
}

/// Until when the Job stays after the drill. One whose volume may be being made is not taken from under it.
#[derive(Clone, Copy, PartialEq)]
enum Stays {
    No,
    ToDeadline,
    ToEnd,
}

/// What most rows have.
const ROW: Row = Row {
    name: "",
    arrange: |_| {},
    variables: &[],
    template: None,
    mode: "Filesystem",
    exit: 0,
    says: "",
    noted: Noted::Nothing,
    stays: Stays::No,
};

/// Runs this program's own `read`, as the pod's container would, on paths in the place of the volume.
fn reads(pod: &Value, paths: &[PathBuf]) -> PodPlan {
    static READINGS: AtomicUsize = AtomicUsize::new(0);
    let arguments = pod["spec"]["containers"][0]["args"].as_array().cloned().unwrap_or_default();
    let arguments: Vec<&str> = arguments.iter().filter_map(Value::as_str).collect();
    let Some((&"/data", arguments)) = arguments.split_last() else { panic!("the volume is read: {pod:#}") };
    let number = READINGS.fetch_add(1, Ordering::Relaxed);
    let message =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reading-{}-{number}", std::process::id()));
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--termination-log").arg(&message).args(paths).env_clear();
    let output = command.output().expect("the binary starts");
    let said = std::fs::read_to_string(&message).expect("a termination message");
    std::fs::remove_file(&message).expect("it was there");
    let plan = match output.status.code().expect("an exit code") {
        0 => PodPlan::succeeds(&said),
        code => PodPlan::fails(code, &said),
    };
    plan.logging(&String::from_utf8_lossy(&output.stderr))
}

/// Has the pods read these paths.
fn pods_read_paths(cluster: &TestCluster, paths: Vec<PathBuf>) {
    plan(cluster.fake(), move || {
        let paths = paths.clone();
        PodPlan::decided(move |_, pod| reads(pod, &paths))
    });
}

/// Has the pods read a directory with these files, and these paths.
pub(super) fn pods_read(cluster: &TestCluster, files: &[(&str, &str)], more: &[&str]) {
    let directory = cluster.directory("volume");
    for (name, content) in files {
        std::fs::write(directory.join(name), content).expect("a file");
    }
    pods_read_paths(cluster, [directory].into_iter().chain(more.iter().map(PathBuf::from)).collect());
}

fn pods(cluster: &TestCluster, outcome: fn() -> PodPlan) {
    plan(cluster.fake(), outcome);
}

/// Limits what the namespace may use.
fn limit(cluster: &TestCluster, hard: Value) {
    cluster.fake().put(json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": cluster.namespace},
        "spec": {"hard": hard},
    }));
}

const ROWS: &[Row] = &[
    Row {
        name: "good",
        arrange: |cluster| pods_read(cluster, &[("a", "12345"), ("b", "67")], &[]),
        says: "is verified: 2 files, 7 B",
        noted: Noted::Verified(" 2 files, 7 B"),
        ..ROW
    },
    Row {
        name: "a file that cannot be read",
        // The first page of a process is not there: reading it is an EIO.
        arrange: |cluster| pods_read(cluster, &[("a", "12345")], &["/proc/self/mem"]),
        exit: 2,
        says: "is damaged: 1 file or directory cannot be read: /proc/self/mem (",
        noted: Noted::Failed(" damaged: 1 file or directory cannot be read: /proc/self/mem ("),
        ..ROW
    },
    Row {
        name: "a file that may not be read",
        arrange: |cluster| {
            pods(cluster, || {
                let named = json!([{"path": "/data/key", "error": "Permission denied (os error 13)"}]);
                PodPlan::fails(2, &found("denied", json!({"denied": 1, "named": named})))
            })
        },
        exit: 2,
        says: "1 file or directory may not be read: /data/key (Permission denied",
        noted: Noted::Failed(" not readable for the pod: "),
        ..ROW
    },
    Row {
        name: "nothing in it",
        arrange: |cluster| pods_read(cluster, &[("nothing", "")], &[]),
        exit: 2,
        says: "is empty: there is nothing in it",
        noted: Noted::Failed(" empty: "),
        ..ROW
    },
    Row {
        name: "nothing in it, which is allowed",
        arrange: |cluster| pods_read(cluster, &[], &[]),
        variables: &[("VERIFY_ALLOW_EMPTY", "true")],
        says: "which is allowed",
        noted: Noted::Verified("which is allowed"),
        ..ROW
    },
    Row {
        name: "too old",
        arrange: |cluster| {
            pods_read(cluster, &[("a", "12345")], &[]);
            cluster.fake().update("volumesnapshots", &cluster.namespace, "snap", |snapshot| {
                snapshot["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
                snapshot["status"]["creationTime"] = json!("2020-01-01T00:00:00Z");
            });
        },
        variables: &[("VERIFY_MAX_AGE", "26h")],
        exit: 2,
        says: "VERIFY_MAX_AGE is 26h",
        ..ROW
    },
    Row {
        name: "not read to its end",
        arrange: |cluster| {
            pods(cluster, || {
                let ended = json!({"ended": "told to stop (signal 15)"});
                PodPlan::fails(143, &found("incomplete", ended))
            })
        },
        exit: 1,
        says: "not everything was read: told to stop (signal 15)",
        noted: Noted::Failed(" not read: "),
        ..ROW
    },
    Row {
        name: "evicted",
        arrange: |cluster| pods(cluster, || PodPlan::evicted("The node was low on resource: memory.")),
        exit: 1,
        says: "the pod was ended before it had read the volume: Evicted: The node was low on resource: memory.",
        noted: Noted::Failed(" not read: "),
        ..ROW
    },
    Row {
        name: "out of memory",
        arrange: |cluster| pods(cluster, PodPlan::out_of_memory),
        exit: 2,
        says: "was killed for using more memory than its limit",
        noted: Noted::Failed(" not read: "),
        ..ROW
    },
    Row {
        name: "no image",
        arrange: |cluster| pods(cluster, || PodPlan::image_missing("Back-off pulling image \"x\"")),
        exit: 1,
        says: "its image cannot be pulled: ImagePullBackOff: Back-off pulling image",
        noted: Noted::Failed(" not read: "),
        ..ROW
    },
    Row {
        name: "a container that cannot be started",
        arrange: |cluster| pods(cluster, || PodPlan::misconfigured("secret \"x\" not found")),
        exit: 2,
        says: "its container cannot be started: CreateContainerConfigError: secret",
        noted: Noted::Failed(" not read: "),
        ..ROW
    },
    Row {
        name: "a quota without room for the pod",
        arrange: |cluster| {
            pods(cluster, || PodPlan::succeeds(""));
            limit(cluster, json!({"pods": "0"}));
        },
        exit: 1,
        says: "a ResourceQuota leaves no room for the drill's pod or volume",
        noted: Noted::Failed(" not read: a ResourceQuota"),
        ..ROW
    },
    Row {
        name: "a quota without room for the volume",
        arrange: |cluster| {
            pods(cluster, || PodPlan::succeeds(""));
            // The claim `data` uses it up.
            limit(cluster, json!({"persistentvolumeclaims": "1"}));
        },
        exit: 1,
        says: "a ResourceQuota leaves no room for the drill's pod or volume",
        noted: Noted::Failed(" not read: a ResourceQuota"),
        ..ROW
    },
    Row {
        name: "a level of PodSecurity that the pod meets",
        arrange: |cluster| {
            pods_read(cluster, &[("a", "12345")], &[]);
            cluster.fake().put(objects::restrict(&cluster.namespace, "restricted"));
        },
        says: "is verified: 1 file, 5 B",
        noted: Noted::Verified(" 1 file, 5 B"),
        ..ROW
    },
    Row {
        name: "one that it does not meet",
        arrange: |cluster| {
            pods_read(cluster, &[("a", "12345")], &[]);
            cluster.fake().put(objects::restrict(&cluster.namespace, "restricted"));
        },
        template: Some("spec: {securityContext: {runAsNonRoot: false, runAsUser: 0}}"),
        exit: 2,
        says: "the namespace's PodSecurity level does not allow the pod; see VERIFY_POD_TEMPLATE",
        noted: Noted::Failed(" not read: the namespace's PodSecurity level"),
        ..ROW
    },
    Row {
        name: "a class that waits for its first consumer",
        arrange: |cluster| {
            pods_read(cluster, &[("a", "12345")], &[]);
            cluster.fake().put(objects::waiting_storage_class("late"));
        },
        variables: &[("VERIFY_STORAGE_CLASS", "late")],
        says: "is verified: 1 file, 5 B",
        noted: Noted::Verified(" 1 file, 5 B"),
        ..ROW
    },
    Row {
        name: "a class that is gone",
        arrange: |cluster| pods(cluster, || PodPlan::succeeds("")),
        variables: &[("VERIFY_STORAGE_CLASS", "gone")],
        exit: 2,
        says: "the StorageClass of the snapshot's claim is gone",
        noted: Noted::Failed(" not read: "),
        ..ROW
    },
    Row {
        name: "a class that nothing names",
        arrange: |cluster| {
            pods(cluster, || PodPlan::succeeds(""));
            cluster.fake().annotate(
                "volumesnapshots",
                &cluster.namespace,
                "snap",
                "volume-snapshotter/claim-volume",
                None,
            );
        },
        exit: 2,
        says: "the snapshot does not say which StorageClass its claim has, and the cluster has no default",
        noted: Noted::Failed(" not read: the snapshot does not say"),
        ..ROW
    },
    Row {
        name: "a Block volume",
        arrange: |cluster| {
            let device = cluster.file("device", "\0\0block");
            plan(cluster.fake(), move || {
                let device = device.clone();
                PodPlan::decided(move |_, pod| {
                    let container = &pod["spec"]["containers"][0];
                    let devices = json!([{"name": "data", "devicePath": "/data"}]);
                    assert_eq!(
                        (&container["volumeDevices"], &container["volumeMounts"]),
                        (&devices, &Value::Null)
                    );
                    reads(pod, std::slice::from_ref(&device))
                })
            });
        },
        mode: "Block",
        says: "is verified: 1 file, 7 B",
        noted: Noted::Verified(" 1 file, 7 B"),
        ..ROW
    },
    Row {
        name: "no node",
        arrange: |cluster| {
            pods(cluster, || PodPlan::unschedulable("0/1 nodes are available: 1 Insufficient memory."))
        },
        variables: &[("VERIFY_TIMEOUT", "2s")],
        exit: 1,
        says: "no node takes the pod: 0/1 nodes are available: 1 Insufficient memory.",
        noted: Noted::Failed("within 2 s"),
        stays: Stays::ToDeadline,
        ..ROW
    },
    Row {
        name: "a volume that is not made",
        arrange: |cluster| {
            pods(cluster, || PodPlan::succeeds(""));
            cluster.fake().provision(|_| Some(Provision::fails("the pool is full")));
        },
        variables: &[("VERIFY_TIMEOUT", "2s")],
        exit: 1,
        says: "ProvisioningFailed: failed to provision volume with StorageClass",
        noted: Noted::Failed("the pool is full"),
        stays: Stays::ToDeadline,
        ..ROW
    },
    Row {
        name: "a volume that is made too late",
        arrange: |cluster| {
            pods(cluster, || PodPlan::succeeds(""));
            cluster.fake().provision(|_| Some(Provision::after(millis(5000))));
        },
        variables: &[("VERIFY_TIMEOUT", "2s")],
        exit: 1,
        says: "it was not read within 2 s (VERIFY_TIMEOUT): ",
        noted: Noted::Failed("within 2 s"),
        stays: Stays::ToEnd,
        ..ROW
    },
];

/// Has the time pass that a Job may live, or stay after its end.
fn expire(cluster: &TestCluster, stays: Stays) {
    let (fake, namespace) = (cluster.fake(), cluster.namespace.as_str());
    let jobs = fake.list("jobs", namespace);
    assert_eq!(jobs.len(), 1, "{jobs:#?}");
    for field in ["activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
        assert!(jobs[0]["spec"][field].as_u64().is_some_and(|seconds| seconds <= 3600), "{:#}", jobs[0]);
    }
    let name = jobs[0]["metadata"]["name"].as_str().expect("a name");
    fake.update("jobs", namespace, name, |job| {
        if stays == Stays::ToDeadline {
            job["spec"]["activeDeadlineSeconds"] = 1.into();
        }
        job["spec"]["ttlSecondsAfterFinished"] = 0.into();
    });
}

/// Plays a row, and answers its line of the table.
async fn play(row: &Row, cluster: &TestCluster) -> String {
    let mut claim = objects::claim(&cluster.namespace, "data");
    claim["spec"]["volumeMode"] = json!(row.mode);
    cluster.post(&cluster.claims_path(), &claim).await;
    let is_bound =
        async || cluster.try_claim("data").await.is_some_and(|one| one["status"]["phase"] == "Bound");
    cluster.until("the claim is bound", is_bound).await;
    cluster.taken("snap", "data").await;
    let volume = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": cluster.storage_class, "volumeMode": row.mode,
    });
    let note = json!({"volume-snapshotter/claim-volume": volume.to_string()});
    cluster.patch_snapshot("snap", json!({"metadata": {"annotations": note}})).await;
    (row.arrange)(cluster);
    let template = row.template.map(|template| cluster.file("pod.yaml", template));
    let template = template.as_ref().and_then(|path| path.to_str()).map(|path| ("VERIFY_POD_TEMPLATE", path));
    let variables: Vec<_> = row.variables.iter().copied().chain(template).collect();
    let said = verify_with(cluster, &rights(), &variables, &["data"]).await;
    assert_eq!(said.code, row.exit, "{}: {}", row.name, said.err);
    assert!(said.err.contains(row.says), "{}: {}", row.name, said.err);
    let (verified, failed) =
        (cluster.noted("snap", "verified").await, cluster.noted("snap", "verify-failed").await);
    let is_noted = match row.noted {
        Noted::Verified(part) => {
            failed.is_none() && verified.as_ref().is_some_and(|note| note.contains(part))
        }
        Noted::Failed(part) => verified.is_none() && failed.as_ref().is_some_and(|note| note.contains(part)),
        Noted::Nothing => verified.is_none() && failed.is_none(),
    };
    assert!(is_noted, "{}: {verified:?} {failed:?}", row.name);
    if row.stays != Stays::No {
        said.assert_says("is left to its own deadline");
        expire(cluster, row.stays);
    }
    cluster.nothing_is_left().await;
    assert_eq!(cluster.names().await, ["snap"], "{}", row.name);
    assert!(cluster.try_claim("data").await.is_some(), "{}", row.name);
    let verdict = said.message.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&said.message);
    let verdict: String = verdict.trim_end().chars().take(90).collect();
    let left = match row.stays {
        Stays::No => "nothing",
        Stays::ToDeadline => "nothing after its Job's deadline",
        Stays::ToEnd => "nothing after its Job's end",
    };
    format!("{:<42} {} | {verdict:<90} | {left}", row.name, row.exit)
}

#[tokio::test]
async fn each_outcome_has_its_verdict_and_its_exit_code_and_leaves_nothing_behind() {
    let table = Mutex::new(Vec::new());
    let row = async |(place, row): (usize, &Row)| {
        embedded_only(Options::default(), NEEDS_PODS, async |cluster| {
            let line = play(row, cluster).await;
            table.lock().unwrap_or_else(PoisonError::into_inner).push((place, line));
        })
        .await;
    };
    stream::iter(ROWS.iter().enumerate()).for_each_concurrent(AT_A_TIME, row).await;
    let mut table = table.into_inner().unwrap_or_else(PoisonError::into_inner);
    table.sort();
    for (_, line) in table {
        println!("{line}");
    }
}
