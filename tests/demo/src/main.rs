//! Watch the binary at work, without a cluster.
//!
//! `cargo run --package demo` starts an API server with a snapshot controller in this process, creates a few
//! claims with older snapshots, and runs the binary three times like an hourly schedule. Then it runs once
//! more on a claim with snapshots of a few days to show what calendar rules keep, takes two claims at one
//! instant, and has two snapshots verified, of which one is damaged. `cargo run --package demo -- --serve`
//! keeps the API server running for kubectl and manual runs.
//!
//! The demo is also the binary: started under the binary's name it calls the library's `main`, so nothing
//! else needs to be built.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{self, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fake_apiserver::{FakeApiServer, GroupApi, Options, Plan, PodPlan, objects};
use http::{Request, header::ACCEPT};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use serde_json::{Value, json};
use tokio::process::Command;
use volume_snapshotter::cluster::{EVENT_PERMISSIONS, GROUP_PERMISSIONS, PERMISSIONS};

const NAMESPACE: &str = "shop";
const SNAPSHOTS: &str = "volumesnapshots";

/// What a reader needs to see of each snapshot; kubectl has three columns more, on its content.
const COLUMNS: [&str; 6] = ["NAME", "READYTOUSE", "SOURCEPVC", "AGE", "JOB", "HOLD"];

/// The name under which this file is the binary.
const BINARY: &str = "volume-snapshotter";

fn main() -> ExitCode {
    // Before anything else: the binary has a runtime of its own.
    if env::args_os().next().is_some_and(|name| Path::new(&name).ends_with(BINARY)) {
        return volume_snapshotter::main();
    }
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn demo() -> Result<()> {
    let serve = match env::args().nth(1).as_deref() {
        None => false,
        Some("--serve") => true,
        Some(other) => anyhow::bail!("unknown argument {other:?}; --serve is the only one"),
    };
    let fake = furnished_bed().await;
    // The runs have the permissions of the Role and no more; a person with kubectl may do everything.
    let token = match serve {
        true => fake.admin_token().to_owned(),
        false => fake.token(NAMESPACE, BINARY),
    };
    let files = Files::new(&fake.kubeconfig(&token, NAMESPACE))?;
    let outcome = match serve {
        true => serve_until_interrupted(&files).await,
        false => three_hours(&fake, &files).await,
    };
    let _ = fs::remove_dir_all(&files.directory);
    fake.stop().await;
    outcome
}

/// What the demo leaves in the file system while it runs.
struct Files {
    directory: PathBuf,
    /// This file under the binary's name.
    binary: PathBuf,
    kubeconfig: PathBuf,
    message: PathBuf,
}

impl Files {
    fn new(kubeconfig: &str) -> Result<Files> {
        let directory = env::temp_dir().join(format!("volume-snapshotter-demo-{}", std::process::id()));
        let files = Files {
            binary: directory.join(BINARY),
            kubeconfig: directory.join("kubeconfig"),
            message: directory.join("termination-log"),
            directory,
        };
        // A demo that was killed may have had this number before.
        let _ = fs::remove_dir_all(&files.directory);
        fs::create_dir(&files.directory).context("cannot make a directory")?;
        fs::write(&files.kubeconfig, kubeconfig).context("cannot write a kubeconfig")?;
        let demo = env::current_exe().context("where is this program?")?;
        symlink(demo, &files.binary).context("cannot link this program to the binary's name")?;
        Ok(files)
    }
}

/// The claims, and what earlier days left behind.
async fn furnished_bed() -> FakeApiServer {
    // With TLS, because kubectl sends tokens only over TLS.
    let mut options = Options { tls: true, group_api: GroupApi::V1, ..Options::default() };
    // What a fast driver takes.
    options.controller.ready_after = Duration::from_millis(600);
    let fake = FakeApiServer::start(options).await;
    fake.furnish(NAMESPACE);
    let hours_ago = |hours: i64| {
        let time = Timestamp::now() - SignedDuration::from_hours(hours);
        time.round(k8s_openapi::jiff::Unit::Second).unwrap_or(time).to_string()
    };
    for name in ["data", "media", "orders"] {
        let mut claim = objects::bound_claim(NAMESPACE, name, &[]);
        claim["metadata"]["creationTimestamp"] = json!(hours_ago(400 * 24));
        fake.put(claim);
    }
    for name in ["wiki-db", "wiki-files"] {
        fake.put(objects::bound_claim(NAMESPACE, name, &[("volume-snapshotter/group", "wiki")]));
    }

    let older = |name: &str, claim: &str, hours: i64, labels: Value| {
        let mut snapshot = objects::ready_snapshot(NAMESPACE, name, claim, hours_ago(hours));
        for (key, value) in labels.as_object().into_iter().flatten() {
            snapshot["metadata"]["labels"][key] = value.clone();
        }
        fake.put(snapshot);
    };
    older("volume-snapshot-0d41c7f2", "data", 2, json!({}));
    older("volume-snapshot-5b90e6a1", "data", 1, json!({}));
    older("volume-snapshot-93aa07de", "media", 1, json!({}));
    older("before-upgrade", "data", 50, json!({"volume-snapshotter/hold": "true"}));
    older("weekly-7c1f22b8", "data", 120, json!({"job": "weekly"}));
    for hours in (1..=4).chain((8..=72).step_by(8)) {
        older(&format!("orders-{hours:02}-hours-ago"), "orders", hours, json!({"job": "orders"}));
    }

    let rules: Vec<_> = [PERMISSIONS, EVENT_PERMISSIONS, GROUP_PERMISSIONS]
        .concat()
        .iter()
        .map(|right| (right.group, right.resource, [right.verb]))
        .collect();
    let rules: Vec<_> =
        rules.iter().map(|(group, resource, verb)| (*group, *resource, verb.as_slice())).collect();
    fake.put(objects::role(NAMESPACE, BINARY, &rules));
    fake.put(objects::role_binding(NAMESPACE, BINARY, BINARY));
    fake
}

async fn three_hours(fake: &FakeApiServer, files: &Files) -> Result<()> {
    heading("Two claims, data and media, with what earlier days left behind");
    show(fake, "data,media").await?;

    heading("11:00. The hourly run: SNAPSHOT_PVC_NAMES=data,media SNAPSHOT_RETENTION=last=2");
    let hourly = [("SNAPSHOT_PVC_NAMES", "data,media"), ("SNAPSHOT_RETENTION", "last=2")];
    run(files, &hourly, 0).await?;
    println!("\nBoth claims have a new ready snapshot, and the two newest of each stay. The held one");
    println!("does not count, and the weekly one belongs to another schedule: neither is touched.\n");
    show(fake, "data,media").await?;

    an_hour_later(fake);
    heading("12:00. The next run, an hour later");
    run(files, &hourly, 0).await?;
    println!("\nOnce the new ones are ready, what is now the third newest goes.\n");
    show(fake, "data,media").await?;

    an_hour_later(fake);
    fake.plan(|snapshot| {
        let stuck = snapshot["spec"]["source"]["persistentVolumeClaimName"] == "media";
        stuck.then(|| Plan::fails("rpc error: code = Unavailable desc = storage backend is down"))
    });
    heading("13:00. The storage of media is down");
    run(files, &hourly, 1).await?;
    println!("\nThe snapshot of media never becomes ready, so nothing of media is deleted: the run");
    println!("exits with 1, and Kubernetes tries again. data is not held up by it.\n");
    show(fake, "data,media").await?;

    heading("Another claim, orders, has three days of snapshots: SNAPSHOT_RETENTION=hourly=3,daily=2");
    show(fake, "orders").await?;
    println!();
    let orders = [
        ("SNAPSHOT_PVC_NAMES", "orders"),
        ("SNAPSHOT_JOB", "orders"),
        ("SNAPSHOT_NAME_PREFIX", "orders"),
        ("SNAPSHOT_RETENTION", "hourly=3,daily=2"),
    ];
    run(files, &orders, 0).await?;
    println!("\nThe newest of each of the last three hours that have one, and of each of the last two");
    println!("days (in UTC). SNAPSHOT_DRY_RUN=true shows the same and deletes nothing.\n");
    show(fake, "orders").await?;

    heading("Two claims of a wiki share the label volume-snapshotter/group=wiki: the component groups");
    let wiki = [
        ("SNAPSHOT_PVC_NAMES", "wiki-db,wiki-files"),
        ("SNAPSHOT_JOB", "wiki"),
        ("SNAPSHOT_NAME_PREFIX", "wiki"),
        ("SNAPSHOT_GROUP_LABEL", "volume-snapshotter/group"),
        ("SNAPSHOT_RETENTION", "last=7"),
    ];
    run(files, &wiki, 0).await?;
    println!("\nBoth were taken at one instant. They stay, go and are restored together.\n");
    command(fake, files, &["list", "--job", "wiki", "--retention", "last=7"], 0).await?;

    heading("The drill of the week: the newest snapshot of data becomes a throw-away volume, and is read");
    pods_read(fake, files, false)?;
    command(fake, files, &["verify", "data"], 0).await?;

    heading("And that of media, which has lost a block without anybody noticing");
    pods_read(fake, files, true)?;
    command(fake, files, &["verify", "media"], 2).await?;
    ensure!(fake.list("jobs", NAMESPACE).is_empty(), "a Job of a drill is left");
    println!(
        "\nThe throw-away volumes are gone. What was found is noted on the snapshots: restore --verified"
    );
    println!("takes only what is proven, and the newest verified one is never pruned.\n");
    let notes = ["list", "data", "media", "--job", BINARY, "--retention", "last=2"];
    command(fake, files, &notes, 0).await?;

    heading("On your own cluster");
    println!("1. Build the image and push it where your cluster can pull it:   just image");
    println!("2. Pick the overlay of your place (gardener, gke, aks, eks), say deploy/overlays/gardener:");
    println!("   your claims go into its settings.env, your namespace into its kustomization.yaml");
    println!("3. Install it:                kubectl apply -k deploy/overlays/gardener");
    println!("4. Take a first snapshot now: kubectl create job --from=cronjob/volume-snapshotter first");
    Ok(())
}

async fn serve_until_interrupted(files: &Files) -> Result<()> {
    println!("An API server with five claims and their snapshots is up. In another terminal:\n");
    println!(
        "  export KUBECONFIG={} PATH=\"{}:$PATH\"",
        files.kubeconfig.display(),
        files.directory.display()
    );
    println!("  kubectl get volumesnapshots");
    println!("  export SNAPSHOT_PVC_NAMES=data SNAPSHOT_RETENTION=last=2");
    println!("  SNAPSHOT_DRY_RUN=true volume-snapshotter");
    println!("  volume-snapshotter");
    println!("  volume-snapshotter list");
    println!("  volume-snapshotter restore --claim data --to data-restored");
    println!("  SNAPSHOT_CLASS_NAME=missing SNAPSHOT_READY_INTERVAL=1s volume-snapshotter");
    println!("  kubectl describe pvc data");
    println!("\nCtrl-C here ends it.");
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
}

fn heading(text: &str) {
    println!("\n=== {text}\n");
}

/// Dates every snapshot of data and media back by an hour, instead of waiting.
fn an_hour_later(fake: &FakeApiServer) {
    let earlier = |time: &mut Value| {
        if let Some(parsed) = time.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
            *time = json!((parsed - SignedDuration::from_hours(1)).to_string());
        }
    };
    for snapshot in fake.list(SNAPSHOTS, NAMESPACE) {
        if snapshot["spec"]["source"]["persistentVolumeClaimName"] == "orders" {
            continue;
        }
        let name = snapshot["metadata"]["name"].as_str().unwrap_or_default();
        fake.update(SNAPSHOTS, NAMESPACE, name, |snapshot| {
            earlier(&mut snapshot["metadata"]["creationTimestamp"]);
            if let Some(time) = snapshot.pointer_mut("/status/creationTime") {
                earlier(time);
            }
        });
    }
}

/// Runs the binary as the CronJob does, but with its log in text and in detail.
async fn run(files: &Files, settings: &[(&str, &str)], expected: i32) -> Result<()> {
    let output = Command::new(&files.binary)
        .env_clear()
        .env("KUBECONFIG", &files.kubeconfig)
        .envs(settings.iter().copied())
        .env("SNAPSHOT_READY_ATTEMPTS", "2")
        .env("SNAPSHOT_READY_INTERVAL", "2s")
        .env("SNAPSHOT_LOG_FORMAT", "text")
        .env("SNAPSHOT_TERMINATION_LOG", &files.message)
        .env("RUST_LOG", "volume_snapshotter=debug")
        .stderr(Stdio::piped())
        .output()
        .await
        .context("cannot start the binary")?;
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        // Without the time: the demo's hours are not the clock's.
        println!("  {}", line.split_once(' ').map_or(line, |(_, rest)| rest.trim_start()));
    }
    let code = output.status.code().context("the binary was ended by a signal")?;
    println!("\nIt exits with {code} and leaves this message for `kubectl describe pod`:\n");
    let left = fs::read_to_string(&files.message).context("there is no termination message")?;
    left.lines().for_each(|line| println!("  {line}"));
    fs::remove_file(&files.message).context("cannot remove the termination message")?;
    ensure!(code == expected, "the binary exits with {code} instead of {expected}");
    Ok(())
}

/// Runs a command of the binary as a person with all permissions does, from a laptop.
async fn command(fake: &FakeApiServer, files: &Files, arguments: &[&str], expected: i32) -> Result<()> {
    println!("$ {BINARY} {}\n", arguments.join(" "));
    let kubeconfig = files.directory.join("kubeconfig-of-a-person");
    fs::write(&kubeconfig, fake.kubeconfig(fake.admin_token(), NAMESPACE))
        .context("cannot write a kubeconfig")?;
    let output = Command::new(&files.binary)
        .args(arguments)
        .env_clear()
        .env("KUBECONFIG", &kubeconfig)
        .env("VERIFY_IMAGE", "volume-snapshotter:0.1.0")
        .env("SNAPSHOT_LOG_FORMAT", "text")
        .env("SNAPSHOT_TERMINATION_LOG", &files.message)
        .output()
        .await
        .context("cannot start the binary")?;
    String::from_utf8_lossy(&output.stdout).lines().for_each(|line| println!("{line}"));
    String::from_utf8_lossy(&output.stderr).lines().for_each(|line| println!("{line}"));
    let code = output.status.code().context("the binary was ended by a signal")?;
    if code != 0 {
        println!("\nIt exits with {code}.");
    }
    ensure!(code == expected, "the binary exits with {code} instead of {expected}");
    Ok(())
}

/// Has the pods of drills run the real `read`, on a directory in the place of the volume.
fn pods_read(fake: &FakeApiServer, files: &Files, damaged: bool) -> Result<()> {
    let volume = files.directory.join("volume");
    fs::create_dir_all(volume.join("orders")).context("cannot make a directory")?;
    fs::write(volume.join("orders/2026-11.json"), "x".repeat(70_000)).context("cannot write a file")?;
    fs::write(volume.join("customers.db"), "x".repeat(4_000_000)).context("cannot write a file")?;
    let mut paths = vec![volume.clone()];
    if damaged {
        // To Linux, reading what is not there in a process's memory is an I/O error, as a bad block is.
        let broken = volume.join("film.mp4");
        symlink("/proc/self/mem", &broken).context("cannot make a link")?;
        paths.push(broken);
    }
    let (binary, message) = (files.binary.clone(), files.directory.join("reading"));
    fake.plan_pod(move |_| {
        let (binary, message, volume, paths) =
            (binary.clone(), message.clone(), volume.clone(), paths.clone());
        Some(PodPlan::decided(move |_, _| {
            let mut read = process::Command::new(&binary);
            read.arg("read").arg("--termination-log").arg(&message).args(&paths).env_clear();
            let inside = |text: &str| text.replace(&*volume.to_string_lossy(), "/data");
            match (read.output(), fs::read_to_string(&message)) {
                (Ok(output), Ok(said)) => {
                    let plan = match output.status.code() {
                        Some(0) => PodPlan::succeeds(&inside(&said)),
                        code => PodPlan::fails(code.unwrap_or(1), &inside(&said)),
                    };
                    plan.logging(&inside(&String::from_utf8_lossy(&output.stderr)))
                }
                (output, said) => PodPlan::fails(1, &format!("the demo cannot read: {output:?}, {said:?}")),
            }
        }))
    });
    Ok(())
}

/// Prints the table that kubectl asks the API server for, of some claims.
async fn show(fake: &FakeApiServer, claims: &str) -> Result<()> {
    // Those that are being deleted are gone in a moment.
    tokio::time::sleep(Duration::from_millis(50)).await;
    println!("$ kubectl get volumesnapshots -L job -L volume-snapshotter/hold");
    let kubeconfig = Kubeconfig::from_yaml(&fake.kubeconfig(fake.admin_token(), NAMESPACE))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let request =
        Request::get(format!("/apis/snapshot.storage.k8s.io/v1/namespaces/{NAMESPACE}/{SNAPSHOTS}"))
            .header(ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())?;
    let table: Value = Client::try_from(config)?.request(request).await?;

    let definitions = table["columnDefinitions"].as_array().context("a table has columns")?;
    let column = |name: &str| {
        definitions.iter().position(|definition| {
            definition["name"].as_str().is_some_and(|defined| defined.eq_ignore_ascii_case(name))
        })
    };
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    for row in table["rows"].as_array().into_iter().flatten() {
        let labels = &row["object"]["metadata"]["labels"];
        let line = COLUMNS.map(|name| {
            let cell = match name {
                "JOB" => &labels["job"],
                "HOLD" => &labels["volume-snapshotter/hold"],
                name => column(name).map_or(&Value::Null, |index| &row["cells"][index]),
            };
            cell.as_str().map_or_else(|| cell.to_string(), str::to_owned).replace("null", "")
        });
        if claims.split(',').any(|claim| claim == line[2]) {
            lines.push(line);
        }
    }
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .enumerate()
            .map(|(index, cell)| {
                let width = lines.iter().map(|line| line[index].len()).max().unwrap_or_default();
                format!("{cell:width$}")
            })
            .collect();
        println!("{}", padded.join("   ").trim_end());
    }
    Ok(())
}
