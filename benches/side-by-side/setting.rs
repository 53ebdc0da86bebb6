//! The environment of a contender: an API server with claims and older snapshots, over TLS, and a token with
//! exactly the permissions of the manifests' Role.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use fake_apiserver::{FakeApiServer, Options, Stage, objects};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use volume_snapshotter::cluster::PERMISSIONS;

use crate::process::{self, Usage};

/// How long the snapshot controller takes from a snapshot's creation until it is ready: a fast driver's time.
pub(crate) const DRIVER: Duration = Duration::from_millis(600);

const SNAPSHOTS: &str = "volumesnapshots";
const NAMESPACE: &str = "bench";
const ACCOUNT: &str = "volume-snapshotter";

/// A furnished API server, for one run.
pub(crate) struct Setting {
    fake: FakeApiServer,
    files: PathBuf,
    claims: usize,
    /// Of the older snapshots how many are to stay, of each claim.
    pub(crate) retention: String,
    /// Of the older snapshots how many are to be there in the end.
    left: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) usage: Usage,
    /// From the moment the last snapshot was ready until the process ended.
    pub(crate) after_ready: Duration,
    /// Requests that reached the API server.
    pub(crate) requests: usize,
    /// Bytes on the wire in both directions, TLS included.
    pub(crate) bytes: u64,
    pub(crate) connections: u64,
}

impl Setting {
    /// Makes claims, and older snapshots of them in turn, one an hour and claim. As many of each claim stay as it has:
    /// the state that a schedule settles in, where one comes and one goes.
    pub(crate) async fn furnish(files: &Path, claims: usize, snapshots: usize) -> Result<Setting> {
        let mut options = Options { tls: true, ..Options::default() };
        options.controller.ready_after = DRIVER;
        let fake = FakeApiServer::start(options).await;
        fake.furnish(NAMESPACE);
        // The API server gives whole seconds.
        let now = Timestamp::from_second(Timestamp::now().as_second())?;
        let hours_ago = |hours: usize| -> Result<String> {
            Ok((now - SignedDuration::from_hours(i64::try_from(hours)?)).to_string())
        };
        let each = snapshots.div_ceil(claims).max(1);
        for claim in 0..claims {
            let mut claim = objects::bound_claim(NAMESPACE, &claim_name(claim), &[("backup", "enabled")]);
            claim["metadata"]["creationTimestamp"] = json!(hours_ago(each + 1)?);
            fake.put(claim);
        }
        for snapshot in 0..snapshots {
            let (claim, name) = (claim_name(snapshot % claims), format!("volume-snapshot-{snapshot:08x}"));
            let mut older =
                objects::ready_snapshot(NAMESPACE, &name, &claim, hours_ago(1 + snapshot / claims)?);
            older["metadata"]["labels"]["volume-snapshotter/run"] = json!("volume-snapshotter-29384750");
            older["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("volume-snapshotter");
            older["metadata"]["managedFields"] = managed_fields();
            fake.put(older);
        }
        let rules: Vec<_> =
            PERMISSIONS.iter().map(|right| (right.group, right.resource, [right.verb])).collect();
        let rules: Vec<_> =
            rules.iter().map(|(group, resource, verb)| (*group, *resource, verb.as_slice())).collect();
        fake.put(objects::role(NAMESPACE, ACCOUNT, &rules));
        fake.put(objects::role_binding(NAMESPACE, ACCOUNT, ACCOUNT));
        let left = (0..claims).map(|claim| older_of(claim, claims, snapshots).min(each - 1)).sum();
        let kubeconfig = fake.kubeconfig(&fake.token(NAMESPACE, ACCOUNT), NAMESPACE);
        std::fs::write(files.with_extension("kubeconfig"), kubeconfig)
            .context("cannot write a kubeconfig")?;
        Ok(Setting { fake, files: files.to_owned(), claims, retention: format!("last={each}"), left })
    }

    pub(crate) fn run_binary(&self, binary: &Path) -> Result<Sample> {
        let sample = self.run_pod(binary, 0, 1)?;
        self.check()?;
        Ok(sample)
    }

    /// Runs one pod of an Indexed Job of so many.
    pub(crate) fn run_pod(&self, binary: &Path, index: usize, shards: usize) -> Result<Sample> {
        let (index, shards) = (index.to_string(), shards.to_string());
        let message = self.files.with_extension("message");
        let choice = match self.claims {
            1 => ("SNAPSHOT_PVC_NAMES", "claim-0"),
            _ => ("SNAPSHOT_PVC_SELECTOR", "backup=enabled"),
        };
        self.run(
            binary,
            &[],
            &[
                choice,
                ("SNAPSHOT_CLASS_NAME", "default"),
                ("SNAPSHOT_RETENTION", &self.retention),
                ("SNAPSHOT_RUN_ID", "volume-snapshotter-29384810"),
                ("SNAPSHOT_TERMINATION_LOG", &message.to_string_lossy()),
                ("SNAPSHOT_SHARDS", &shards),
                ("JOB_COMPLETION_INDEX", &index),
            ],
        )
    }

    /// Runs the script once, as in a new container: what kubectl keeps of its discovery is not there yet.
    pub(crate) fn run_script(&self, bash: &Path, script: &str) -> Result<Sample> {
        let home = self.files.with_extension("home");
        if home.exists() {
            std::fs::remove_dir_all(&home).context("cannot empty the home directory")?;
        }
        std::fs::create_dir_all(&home).context("cannot make a home directory")?;
        let sample = self.run(
            bash,
            &["-c", script],
            &[
                ("PATH", &std::env::var("PATH").unwrap_or_default()),
                ("HOME", &home.to_string_lossy()),
                ("NAMESPACE", NAMESPACE),
                ("SNAPSHOT_CLASS_NAME", "default"),
                ("PVC_NAME", "claim-0"),
            ],
        )?;
        self.check()?;
        Ok(sample)
    }

    fn run(&self, program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Sample> {
        let kubeconfig = self.files.with_extension("kubeconfig");
        let kubeconfig = kubeconfig.to_string_lossy();
        let environment = [environment, &[("KUBECONFIG", kubeconfig.as_ref())]].concat();
        self.fake.clear_requests();
        let usage = process::run(&self.files, program, arguments, &environment)?;
        let (requests, traffic) = (self.fake.requests(), self.fake.traffic());
        let ready = self.ready()?;
        Ok(Sample {
            usage,
            after_ready: usage.ended.duration_since(ready).unwrap_or_default(),
            requests: requests.len(),
            bytes: traffic.bytes(),
            connections: traffic.connections,
        })
    }

    /// When the last of the new snapshots was ready.
    fn ready(&self) -> Result<SystemTime> {
        let (instant, time) = (Instant::now(), SystemTime::now());
        let history = self.fake.snapshot_history();
        let ready =
            history.iter().filter(|milestone| milestone.stage == Stage::Ready).map(|milestone| milestone.at);
        let last = ready.max().context("no snapshot became ready")?;
        Ok(time - (instant - last))
    }

    /// A run that does less than it should is fast: what is left has to be what was asked for.
    pub(crate) fn check(&self) -> Result<()> {
        let there: Vec<_> = self
            .fake
            .list(SNAPSHOTS, NAMESPACE)
            .into_iter()
            .filter(|snapshot| snapshot["metadata"]["deletionTimestamp"].is_null())
            .collect();
        ensure!(
            there.iter().all(|snapshot| snapshot["status"]["readyToUse"] == true),
            "a snapshot is not ready"
        );
        let expected = self.claims + self.left;
        ensure!(there.len() == expected, "{} snapshots are left instead of {expected}", there.len());
        Ok(())
    }

    /// How many requests a run needs: the least, and the most where what is to be deleted takes so long that
    /// everything is listed again, up to twice.
    pub(crate) fn expected_requests(&self, snapshots: usize) -> RangeInclusive<usize> {
        let pages = |objects: usize| objects.div_ceil(500).max(1);
        let find = if self.claims == 1 { 1 } else { pages(self.claims) };
        let deletions = snapshots - self.left;
        let recheck = if deletions > 0 { pages(self.claims) } else { 0 };
        let least = find + pages(snapshots) + 1 + self.claims + recheck + deletions;
        let again = if self.claims > 1_000 { 2 * (recheck + pages(snapshots + self.claims)) } else { 0 };
        least..=least + again
    }

    pub(crate) async fn leave(self) {
        self.fake.stop().await;
    }
}

fn claim_name(number: usize) -> String {
    format!("claim-{number}")
}

/// How many of the older snapshots are of this claim.
fn older_of(claim: usize, claims: usize, snapshots: usize) -> usize {
    snapshots / claims + usize::from(claim < snapshots % claims)
}

/// What the API server adds to a snapshot that this program made and the snapshot controller saw to: more than half of
/// the bytes of a list.
fn managed_fields() -> serde_json::Value {
    let fields = |paths: &[&str]| -> serde_json::Value {
        paths.iter().map(|path| ((*path).to_owned(), json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    let entry = |manager: &str, subresource: &str, fields_v1: serde_json::Value| {
        let mut entry = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "fieldsType": "FieldsV1", "fieldsV1": fields_v1,
            "manager": manager, "operation": "Update", "time": "2026-11-20T08:55:11Z",
        });
        if !subresource.is_empty() {
            entry["subresource"] = json!(subresource);
        }
        entry
    };
    json!([
        entry(
            "volume-snapshotter",
            "",
            json!({
                "f:metadata": {"f:labels": fields(&[
                    ".", "f:app.kubernetes.io/managed-by", "f:job", "f:name", "f:volume-snapshotter/run",
                ])},
                "f:spec": {".": {}, "f:source": fields(&[".", "f:persistentVolumeClaimName"]), "f:volumeSnapshotClassName": {}},
            })
        ),
        entry(
            "snapshot-controller",
            "",
            json!({
                "f:metadata": {"f:finalizers": fields(&[
                    ".", "v:\"snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection\"",
                    "v:\"snapshot.storage.kubernetes.io/volumesnapshot-bound-protection\"",
                ])},
            })
        ),
        entry(
            "snapshot-controller",
            "status",
            json!({
                "f:status": fields(&[
                    ".", "f:boundVolumeSnapshotContentName", "f:creationTime", "f:readyToUse", "f:restoreSize",
                ]),
            })
        ),
    ])
}
