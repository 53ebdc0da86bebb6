//! Drills that are killed at each of their steps: what the next attempt makes of it, and what is left if there is none.

use fake_apiserver::{Fault, Options, PodPlan, Request, When};

use super::{IMAGE, InPod, in_pod, millis, plan, rights, table::pods_read};
use crate::test_cluster::{TestCluster, embedded_only};

/// The steps of a drill, by their requests. Before: the request is not carried out. After: it is, and there is no answer.
const STEPS: [(&str, &str, usize, When); 10] = [
    ("list", "volumesnapshots", 1, When::Before),
    ("list", "jobs", 1, When::Before),
    ("create", "jobs", 1, When::Before),
    ("create", "jobs", 1, When::After),
    ("list", "pods", 1, When::Before),
    ("list", "events", 1, When::Before),
    ("patch", "volumesnapshots", 1, When::Before),
    ("patch", "volumesnapshots", 1, When::After),
    ("delete", "jobs", 1, When::Before),
    ("delete", "jobs", 1, When::After),
];

async fn arrange(cluster: &TestCluster) {
    cluster.claim("data").await;
    cluster.taken("snap", "data").await;
    pods_read(cluster, &[("a", "12345")], &[]);
}

/// Kills a drill at a step, as a node that dies does.
async fn kill_at(
    cluster: &TestCluster,
    pod: &InPod<'_>,
    (verb, resource, n, when): (&'static str, &'static str, usize, When),
) {
    let fake = cluster.fake();
    let user = format!("system:serviceaccount:{}:volume-snapshotter", cluster.namespace);
    let is_it = move |request: &Request| request.is(verb, resource) && request.user == user;
    let is_at = is_it.clone();
    fake.clear_requests();
    fake.fault_nth(is_it, n, Fault::Hang(when));
    let running = pod.start(&[]);
    cluster
        .until("it is at the step", async || fake.requests().iter().filter(|one| is_at(one)).count() >= n)
        .await;
    // What hangs afterwards is carried out first.
    tokio::time::sleep(millis(50)).await;
    assert_eq!(running.kill().await, None, "it was done before");
    fake.clear_faults();
}

#[tokio::test]
async fn the_next_attempt_goes_on_where_a_killed_one_was_and_no_volume_is_made_twice() {
    for step in STEPS {
        in_pod(async |cluster| {
            arrange(cluster).await;
            let pod = InPod::new(cluster, &rights()).await;
            let made = || {
                let history = cluster.fake().requests();
                history.iter().filter(|one| one.is("create", "jobs") && one.status == 201).count()
            };
            kill_at(cluster, &pod, step).await;
            // One that hung was carried out or not, and has no status.
            let first = made() + usize::from((step.0, step.3) == ("create", When::After));
            cluster.fake().clear_requests();
            pod.start(&[]).finish().await.assert_exit(0);
            assert_eq!(first + made(), 1, "{step:?}");
            cluster.nothing_is_left().await;
            let noted = cluster.noted("snap", "verified").await;
            assert!(noted.as_ref().is_some_and(|note| note.ends_with(" 1 file, 5 B")), "{step:?}: {noted:?}");
            assert_eq!(cluster.noted("snap", "verify-failed").await, None, "{step:?}");
            assert_eq!(cluster.names().await, ["snap"]);
            assert!(cluster.try_claim("data").await.is_some());
        })
        .await;
    }
}

#[tokio::test]
async fn all_goes_with_the_drills_own_job_at_whichever_step_it_was_killed() {
    for step in STEPS {
        in_pod(async |cluster| {
            arrange(cluster).await;
            let pod = InPod::new(cluster, &rights()).await;
            kill_at(cluster, &pod, step).await;
            // The CronJob's history has no room for it any more.
            pod.end();
            cluster.nothing_is_left().await;
            assert_eq!(cluster.names().await, ["snap"]);
            assert!(cluster.try_claim("data").await.is_some());
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_drill_leaves_that_is_killed_outside_of_a_pod_goes_by_itself() {
    embedded_only(Options::default(), "needs pods whose end a test chooses", async |cluster| {
        arrange(cluster).await;
        plan(cluster.fake(), || PodPlan::succeeds("").running_for(millis(500)));
        let (fake, namespace) = (cluster.fake(), cluster.namespace.as_str());
        let running = {
            let kubeconfig = cluster.kubeconfig(&rights()).await;
            let mut command = tokio::process::Command::new(crate::test_cluster::BINARY);
            command.args(["verify", "data"]);
            let variables = [("KUBECONFIG", kubeconfig.to_str().expect("UTF-8"))];
            cluster.start_process(command, &variables, &[("VERIFY_IMAGE", IMAGE)])
        };
        cluster.until("its Job is there", async || !fake.list("jobs", namespace).is_empty()).await;
        assert_eq!(running.kill().await, None);
        let job = fake.list("jobs", namespace).remove(0);
        assert!(job["spec"]["ttlSecondsAfterFinished"].as_u64().is_some_and(|rest| rest <= 3600), "{job:#}");
        // Time passes.
        let name = job["metadata"]["name"].as_str().expect("a name");
        fake.update("jobs", namespace, name, |job| job["spec"]["ttlSecondsAfterFinished"] = 0.into());
        cluster.nothing_is_left().await;
        assert_eq!(cluster.names().await, ["snap"]);
    })
    .await;
}
