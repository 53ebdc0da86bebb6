//! Claims distributed among the pods of an Indexed Job: each pod started as Kubernetes starts it, with its
//! index in the environment, and the component that defines such a Job.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path, process::Command, time::Duration};

use fake_apiserver::{Options, objects};
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::{Value, json};
use volume_snapshotter::{settings::Settings, shard::Shard, snapshot::ClaimId};

use crate::test_cluster::{Ran, TestCluster, all_permissions, embedded_only, everywhere, name_of};

const NEEDS_MANY: &str = "many claims are too much to ask of a real driver";

/// Runs all pods of a Job side by side, as `parallelism` lets them.
async fn run_all(cluster: &TestCluster, shards: u32, settings: &[(&str, &str)]) -> Vec<Ran> {
    let mut running = Vec::new();
    for index in 0..shards {
        let (index, shards) = (index.to_string(), shards.to_string());
        let pod = [("JOB_COMPLETION_INDEX", index.as_str()), ("SNAPSHOT_SHARDS", shards.as_str())];
        running.push(cluster.start(&all_permissions(), &[settings, pod.as_slice()].concat()).await);
    }
    let mut ran = Vec::new();
    for pod in running {
        ran.push(pod.finish().await);
    }
    ran
}

/// The claims of all snapshots that are not deleted, sorted; one with two snapshots occurs twice.
fn claims_of(snapshots: &[Value]) -> Vec<String> {
    let claim = |snapshot: &Value| {
        snapshot["spec"]["source"]["persistentVolumeClaimName"].as_str().map(str::to_owned)
    };
    let mut claims: Vec<String> = snapshots
        .iter()
        .filter(|snapshot| snapshot["metadata"]["deletionTimestamp"].is_null())
        .filter_map(claim)
        .collect();
    claims.sort();
    claims
}

#[tokio::test]
async fn the_pods_of_a_job_snapshot_every_claim_once_and_prune_each_their_own() {
    const SHARDS: u32 = 4;
    embedded_only(Options::default(), NEEDS_MANY, async |cluster| {
        let mut all = Vec::new();
        for number in 0..60 {
            let name = format!("data-{number:02}");
            let mut claim = objects::bound_claim(&cluster.namespace, &name, &[("app", "web")]);
            claim["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            cluster.fake().put(claim);
            let old = objects::ready_snapshot(
                &cluster.namespace,
                &format!("old-{number:02}"),
                &name,
                "2026-02-01T00:00:00Z",
            );
            cluster.fake().put(old);
            all.push(name);
        }
        cluster.fake().clear_requests();
        let settings = [("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_RUN_ID", "nightly-1")];
        let ran = run_all(cluster, SHARDS, &settings).await;
        ran.iter().for_each(|ran| ran.assert_exit(0));

        assert_eq!(
            claims_of(&cluster.snapshots().await),
            all,
            "each claim has its new snapshot, and no old one is left"
        );
        for (index, ran) in (0..SHARDS).zip(&ran) {
            let shard = Shard::new(index, SHARDS).expect("a shard");
            let own = |name: &&String| {
                shard.holds(&ClaimId { namespace: cluster.namespace.clone(), name: (*name).clone() })
            };
            let own: BTreeSet<&str> = all.iter().filter(own).map(String::as_str).collect();
            let made = ran.lines("made the snapshot");
            let made: BTreeSet<&str> = made.iter().filter_map(|line| line["claim"].as_str()).collect();
            assert!(!own.is_empty() && made == own, "{shard}: {made:?} instead of {own:?}");
            assert!(ran.message.contains(&format!("snapshot, in {shard}\n")), "{}", ran.message);
        }
        // The requests of each pod: its lists and its watch, and otherwise only those of its own claims.
        let mut requests = cluster.fake().requests();
        requests.retain(|request| request.user.contains("serviceaccount"));
        let verbs = |verb: &str| requests.iter().filter(|request| request.verb == verb).count();
        assert_eq!((verbs("list"), verbs("watch")), (3 * SHARDS as usize, SHARDS as usize));
        assert_eq!((verbs("create"), verbs("delete")), (60, 60));
    })
    .await;
}

#[tokio::test]
async fn a_pod_without_claims_succeeds_but_a_choice_without_any_does_not() {
    everywhere(async |cluster| {
        cluster.labelled_claim("data", json!({"app": "web"})).await;
        let id = ClaimId { namespace: cluster.namespace.clone(), name: "data".to_owned() };
        let its = (0..3)
            .find(|index| Shard::new(*index, 3).is_some_and(|shard| shard.holds(&id)))
            .expect("a shard");
        for choice in [("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_PVC_NAMES", "data")] {
            let before = cluster.names().await;
            let ran = run_all(cluster, 3, &[choice, ("SNAPSHOT_RETENTION", "all")]).await;
            for (index, ran) in (0_u32..).zip(&ran) {
                ran.assert_exit(0);
                if index != its {
                    assert_eq!(
                        ran.message,
                        format!(
                            "no snapshot was created: none of the targets is in shard {index} (of 0 to 2)\n"
                        )
                    );
                }
            }
            assert_eq!(cluster.names().await.len(), before.len() + 1, "one of three pods made one");
        }
        for ran in run_all(cluster, 3, &[("SNAPSHOT_PVC_SELECTOR", "app=nothing")]).await {
            ran.assert_exit(2);
            assert!(ran.message.contains("matches \"app=nothing\""), "{}", ran.message);
        }
    })
    .await;
}

#[tokio::test]
async fn the_next_pod_of_an_index_takes_over_what_the_one_before_made() {
    let mut options = Options::default();
    options.controller.ready_after = Duration::from_millis(1500);
    embedded_only(options, "needs a snapshot controller whose speed a test chooses", async |cluster| {
        for name in ["one", "two", "three", "four", "five", "six"] {
            cluster.claim(name).await;
        }
        let settings = [
            ("SNAPSHOT_PVC_NAMES", "one,two,three,four,five,six"),
            ("SNAPSHOT_RUN_ID", "nightly-2"),
            ("SNAPSHOT_READY_ATTEMPTS", "1"),
        ];
        let impatient = [settings.as_slice(), &[("SNAPSHOT_READY_INTERVAL", "300ms")]].concat();
        for ran in run_all(cluster, 2, &impatient).await {
            ran.assert_exit(1);
        }
        let names = cluster.names().await;
        assert_eq!(names.len(), 6);
        for ran in run_all(cluster, 2, &settings).await {
            ran.assert_exit(0);
            assert!(!ran.lines("going on with the snapshot").is_empty());
        }
        assert_eq!(cluster.names().await, names, "no second snapshot of any claim");
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_does_not_know_its_index_does_nothing() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_SHARDS", "2")]).await;
        ran.assert_exit(2);
        assert!(
            ran.message.contains("JOB_COMPLETION_INDEX: not set, but SNAPSHOT_SHARDS is 2"),
            "{}",
            ran.message
        );
        // An Indexed Job without the setting: every pod but the first would do it all again.
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("JOB_COMPLETION_INDEX", "1")]).await;
        ran.assert_exit(2);
        assert!(cluster.names().await.is_empty());
    })
    .await;
}

// --- The component -------------------------------------------------------------------------------

/// Renders the base with the component on top; `None` where there is no tool for it.
fn rendered() -> Option<Vec<Value>> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sharded-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    // Kustomize takes only relative paths.
    let up: String = directory.components().skip(1).map(|_| "../").collect();
    let from_root =
        |path: &str| format!("{up}{}", top.join(path).strip_prefix("/").expect("absolute").display());
    let overlay = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{}]\ncomponents: [{}]\n",
        from_root("kustomize/base"),
        from_root("kustomize/components/sharded")
    );
    fs::write(directory.join("kustomization.yaml"), overlay).expect("a file");
    let yaml = [["kubectl", "kustomize"], ["kustomize", "build"]].iter().find_map(|[program, verb]| {
        let output = Command::new(program).arg(verb).arg(&directory).output().ok()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {verb}: {stderr}");
        String::from_utf8(output.stdout).ok()
    });
    fs::remove_dir_all(&directory).expect("the directory goes");
    let Some(yaml) = yaml else {
        // Past the test harness, which shows nothing of a test that passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the sharded component: neither kubectl nor kustomize is installed"
        );
        return None;
    };
    Some(serde_saphyr::from_multiple(&yaml).expect("YAML"))
}

#[test]
fn the_component_gives_every_shard_a_pod_and_every_pod_its_index() {
    let Some(documents) = rendered() else { return };
    let document = documents.iter().find(|one| one["kind"] == "CronJob").expect("a CronJob");
    assert_eq!(name_of(document), "volume-snapshotter");
    let cron_job: CronJob = serde_json::from_value(document.clone()).expect("a CronJob");
    // Nothing in it that the type does not know.
    let back = serde_json::to_value(&cron_job).expect("JSON");
    assert_eq!(back["spec"]["jobTemplate"]["spec"], document["spec"]["jobTemplate"]["spec"]);
    let job = cron_job.spec.and_then(|spec| spec.job_template.spec).expect("a Job");

    assert_eq!(job.completion_mode.as_deref(), Some("Indexed"));
    let pods = job.completions.expect("completions");
    assert_eq!(job.parallelism, Some(pods), "all at once, for no pod waits for another");
    let container = &job.template.spec.as_ref().expect("a pod").containers[0];
    let variables = container.env.as_deref().unwrap_or_default();
    let shards = variables
        .iter()
        .find(|variable| variable.name == "SNAPSHOT_SHARDS")
        .and_then(|one| one.value.clone());
    assert_eq!(shards, Some(pods.to_string()), "a shard without a pod would never be snapshotted");
    assert!(variables.iter().any(|variable| variable.name == "SNAPSHOT_RUN_ID"), "the base's variables stay");

    // Every index counts its own tries, and one that cannot be helped ends no other.
    assert_eq!((job.backoff_limit_per_index, job.backoff_limit), (Some(2), None));
    let rules = job.pod_failure_policy.expect("a policy").rules;
    assert!(rules.iter().any(|rule| {
        rule.action == "FailIndex" && rule.on_exit_codes.as_ref().is_some_and(|codes| codes.values == [2, 3])
    }));
    assert!(rules.iter().any(|rule| rule.action == "Ignore"), "a drained node is no failure");
    assert!(rules.iter().all(|rule| rule.action != "FailJob"));

    // The variables as the kubelet gives them: Kubernetes adds the index to every container of an Indexed Job by itself.
    for index in 0..pods {
        let environment = [
            ("SNAPSHOT_PVC_NAMES", "data".to_owned()),
            ("SNAPSHOT_SHARDS", pods.to_string()),
            ("JOB_COMPLETION_INDEX", index.to_string()),
        ];
        let settings =
            Settings::parse(environment.map(|(name, value)| (name.into(), value.into()))).expect("settings");
        assert_eq!(Some(settings.shard), u32::try_from(index).ok().and_then(|index| Shard::new(index, 4)));
    }
}
