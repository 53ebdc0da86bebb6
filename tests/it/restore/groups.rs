//! `restore --group`: a new claim for each claim of a group, all of one instant, or none.

use super::*;

use crate::list::groups::{put_group, served};

const LABEL: &str = "volume-snapshotter/group";
const PATTERN: [&str; 4] = ["--group", "shop", "--to", "{claim}-restored"];

/// Claims `data` and `logs`, and two group snapshots of them that are complete.
async fn with_groups(scenario: impl AsyncFn(&TestCluster)) {
    embedded_only(served(), "it needs group snapshots of the past", async |cluster| {
        cluster.labelled_claim("data", json!({LABEL: "shop"})).await;
        cluster.labelled_claim("logs", json!({LABEL: "shop"})).await;
        put_group(cluster, "older", "2026-11-20T10:00:00Z", &["data", "logs"]);
        put_group(cluster, "newer", "2026-11-20T11:00:00Z", &["data", "logs"]);
        scenario(cluster).await;
    })
    .await;
}

fn rights() -> Value {
    rules(&[RESTORE_PERMISSIONS, RESTORE_GROUP_PERMISSIONS].concat())
}

async fn restore_group(cluster: &TestCluster, arguments: &[&str]) -> Said {
    let arguments = [&["restore"], &PATTERN[..], arguments].concat();
    cluster.say(&rights(), &arguments).await
}

/// The group that a claim was made from a member of.
async fn group_of(cluster: &TestCluster, claim: &str) -> String {
    let claim = cluster.try_claim(claim).await.expect("the new claim");
    let snapshot = claim["spec"]["dataSource"]["name"].as_str().expect("a snapshot").to_owned();
    let snapshot = cluster.snapshot(&snapshot).await;
    snapshot["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn each_claim_of_the_latest_group_becomes_a_new_one() {
    with_groups(async |cluster| {
        let said = restore_group(cluster, &[]).await;
        said.assert_exit(0).assert_says(
            "making 2 claims from group snapshot newer of group shop, which is from 2026-11-20T11:00:00Z",
        );
        said.assert_says("making claim data-restored from snapshot snapshot-");
        assert!(!said.err.contains("warning"), "{}", said.err);
        assert_eq!(said.out, "persistentvolumeclaim/data-restored\npersistentvolumeclaim/logs-restored\n");
        assert!(
            said.message.starts_with("claims data-restored and logs-restored in namespace "),
            "{}",
            said.message
        );
        assert!(
            said.message.contains("have the data of group snapshot newer, of one instant"),
            "{}",
            said.message
        );
        said.assert_says(
            "next: let the Deployment that uses claims data and logs use data-restored and logs-restored",
        );
        for claim in ["data", "logs"] {
            let new = format!("{claim}-restored");
            assert_eq!(group_of(cluster, &new).await, "newer");
            let metadata = cluster.try_claim(&new).await.expect("the new claim")["metadata"].clone();
            assert_eq!(metadata["labels"]["volume-snapshotter/restored-claim"], claim);
            assert_eq!(metadata["annotations"]["volume-snapshotter/restored-time"], "2026-11-20T11:00:00Z");
        }
        // Once more: nothing that exists is touched.
        let said = restore_group(cluster, &[]).await;
        said.assert_exit(2).assert_says("there is a claim data-restored in namespace ");
        assert_eq!(claim_names(cluster).await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_group_is_chosen_by_a_moment_by_its_name_its_schedule_or_its_labels() {
    with_groups(async |cluster| {
        let fake = cluster.fake();
        fake.label("volumegroupsnapshots", &cluster.namespace, "older", "job", Some("weekly"));
        fake.label("volumegroupsnapshots", &cluster.namespace, "older", "release", Some("1.2.3"));
        let cases: [&[&str]; 4] = [
            &["--at", "2026-11-20 10:59"],
            &["--snapshot", "older"],
            &["--job", "weekly"],
            &["--label", "release=1.2.3"],
        ];
        for (number, arguments) in cases.into_iter().enumerate() {
            let to = format!("{{claim}}-{number}");
            let all = [&["restore", "--group", "shop", "--to", &to], arguments].concat();
            cluster.say(&rights(), &all).await.assert_exit(0);
            for claim in ["data", "logs"] {
                assert_eq!(group_of(cluster, &format!("{claim}-{number}")).await, "older", "{arguments:?}");
            }
        }
        for (arguments, said) in [
            (
                ["--at", "2026-11-20 09:00"],
                "no group snapshot of group shop is from 2026-11-20T09:00:00Z or before; the \
              oldest is older, from 2026-11-20T10:00:00Z",
            ),
            (["--snapshot", "nope"], "there is no group snapshot nope of group shop"),
            (["--job", "nope"], "there is no group snapshot of group shop of schedule nope in namespace"),
            (["--group", "shops"], "there is no group snapshot of group shops in namespace"),
        ] {
            restore_group(cluster, &arguments).await.assert_exit(2).assert_says(said);
        }
        assert_eq!(claim_names(cluster).await.len(), 10);
    })
    .await;
}

/// A member alone has neither labels nor a schedule; its group has.
#[tokio::test]
async fn a_claim_finds_its_members_too() {
    with_groups(async |cluster| {
        let fake = cluster.fake();
        fake.label("volumegroupsnapshots", &cluster.namespace, "older", "job", Some("weekly"));
        // Without a right to read groups, as long as nothing of them is asked for.
        let said = restore(cluster, &["--claim", "data", "--to", "one"]).await;
        said.assert_exit(0);
        assert_eq!(group_of(cluster, "one").await, "newer");
        let weekly = ["--claim", "logs", "--job", "weekly", "--to"];
        let said = restore(cluster, &[&weekly[..], &["two"]].concat()).await;
        said.assert_exit(2).assert_says(
            "members of groups are not considered, because their schedule is not known: cannot list",
        );
        said.assert_says("there is no snapshot of claim logs of schedule weekly");
        let arguments = [&["restore"], &weekly[..], &["two"]].concat();
        cluster.say(&rights(), &arguments).await.assert_exit(0);
        assert_eq!(group_of(cluster, "two").await, "older");
        let said = restore(cluster, &PATTERN).await;
        said.assert_exit(2).assert_says("resources: [\"volumegroupsnapshots\"], verbs: [\"list\"]");
        said.assert_says("the component restore grants what --group needs");
    })
    .await;
}

#[tokio::test]
async fn a_group_that_is_not_complete_is_refused_and_the_latest_that_is_complete_is_named() {
    with_groups(async |cluster| {
        let earlier =
            "the latest complete one before it is newer, from 2026-11-20T11:00:00Z: --snapshot newer";
        put_group(cluster, "half", "2026-11-20T12:00:00Z", &["data"]);
        let said = restore_group(cluster, &[]).await;
        said.assert_exit(2)
            .assert_says("group snapshot half of group shop, from 2026-11-20T12:00:00Z, cannot be restored");
        said.assert_says("it has no member of claim logs").assert_says(earlier);

        // One that is only late may yet be ready.
        let late = put_group(cluster, "late", "2026-11-20T13:00:00Z", &["data", "logs"]).remove(1);
        cluster.fake().update("volumesnapshots", &cluster.namespace, &late, |member| {
            member["status"] = json!({"readyToUse": false});
        });
        let said = restore_group(cluster, &[]).await;
        said.assert_exit(1)
            .assert_says(&format!("its member {late} of claim logs is not ready"))
            .assert_says(earlier);

        // A member that somebody deleted stays as long as its group, and is no source.
        let robbed = put_group(cluster, "robbed", "2026-11-20T14:00:00Z", &["data", "logs"]).remove(0);
        cluster.fake().delete("volumesnapshots", &cluster.namespace, &robbed);
        let said = restore_group(cluster, &[]).await;
        said.assert_exit(2)
            .assert_says(&format!("somebody deleted its member {robbed} of claim data"))
            .assert_says(earlier);
        let said = restore_group(cluster, &["--snapshot", "half"]).await;
        said.assert_exit(2).assert_says("it has no member of claim logs").assert_says(earlier);

        // One that is being deleted is not the latest.
        for name in ["half", "late", "robbed"] {
            cluster.fake().update("volumegroupsnapshots", &cluster.namespace, name, |group| {
                group["metadata"]["deletionTimestamp"] = json!("2026-11-20T15:00:00Z");
            });
        }
        assert_eq!(claim_names(cluster).await.len(), 2, "nothing was made");
        restore_group(cluster, &[]).await.assert_exit(0);
        assert_eq!(group_of(cluster, "logs-restored").await, "newer");
    })
    .await;
}

#[tokio::test]
async fn all_is_checked_before_the_first_claim_is_made() {
    with_groups(async |cluster| {
        let unchanged = async |said: &str, exit: i32, arguments: &[&str]| {
            let before = claim_names(cluster).await;
            restore_group(cluster, arguments).await.assert_exit(exit).assert_says(said);
            assert_eq!(claim_names(cluster).await, before, "{said}");
        };
        // The second of the two cannot be made, for one reason or another.
        cluster.claim("logs-restored").await;
        unchanged("there is a claim logs-restored in namespace ", 2, &[]).await;
        cluster.fake().remove("persistentvolumeclaims", &cluster.namespace, "logs-restored");
        let of_logs = |request: &fake_apiserver::Request| request.is("create", "persistentvolumeclaims");
        cluster.fake().fault_nth(of_logs, 2, Fault::Error(422, When::Before));
        unchanged("cannot create claim logs-restored from snapshot", 2, &[]).await;
        cluster.fake().clear_faults();
        unchanged("a volume of 1Ki is smaller than snapshot", 2, &["--size", "1Ki"]).await;
        // A name that was planted.
        let group = cluster.fake().get("volumegroupsnapshots", &cluster.namespace, "newer").expect("a group");
        cluster.fake().put(objects::member(&group, "../x"));
        unchanged("it has a member of claim ../x, which was not asked for", 2, &[]).await;

        let said = restore_group(cluster, &["--snapshot", "older", "--dry-run"]).await;
        said.assert_exit(0).assert_says("would make 2 claims from group snapshot older");
        said.assert_says("claims data-restored and logs-restored could be made");
        let documents: Vec<Value> =
            said.out.split("---\n").map(|document| serde_saphyr::from_str(document).expect("YAML")).collect();
        let names: Vec<&Value> = documents.iter().map(|one| &one["metadata"]["name"]).collect();
        assert_eq!(names, ["data-restored", "logs-restored"]);
        assert_eq!(claim_names(cluster).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_next_attempt_of_a_job_finishes_what_the_first_began_from_the_same_group() {
    with_groups(async |cluster| {
        let job =
            [("RESTORE_RUN_UID", "7c1e"), ("RESTORE_GROUP", "shop"), ("RESTORE_TO", "{claim}-restored")];
        let attempt = async |uid: &str| {
            let job = [&[("RESTORE_RUN_UID", uid)], &job[1..]].concat();
            cluster.say_with(&rights(), &job, &["restore"]).await
        };
        // Each of the two would fit.
        cluster.fake().put(objects::quota_of(&cluster.namespace, "few", "persistentvolumeclaims", 3));
        let said = attempt("7c1e").await;
        said.assert_exit(1)
            .assert_says("1 of 2 claims of the group were made (data-restored), and the rest was not");
        said.assert_says("exceeded quota").assert_says("kubectl delete pvc data-restored -n ");
        cluster.fake().remove("resourcequotas", &cluster.namespace, "few");
        // There is a newer one by now, and it would be of another instant.
        put_group(cluster, "newest", "2026-11-20T12:00:00Z", &["data", "logs"]);
        // Another Job does not take it over.
        attempt("8d2f").await.assert_exit(2).assert_says("there is a claim data-restored in namespace ");
        let said = attempt("7c1e").await;
        said.assert_exit(0)
            .assert_says("going on with claim data-restored, which this Job's earlier attempt made");
        for claim in ["data-restored", "logs-restored"] {
            assert_eq!(group_of(cluster, claim).await, "newer");
        }
        // And once more, with nothing left to do.
        attempt("7c1e").await.assert_exit(0);
        assert_eq!(claim_names(cluster).await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_finished_any_more_is_said() {
    with_groups(async |cluster| {
        let job =
            [("RESTORE_RUN_UID", "7c1e"), ("RESTORE_GROUP", "shop"), ("RESTORE_TO", "{claim}-restored")];
        cluster.fake().put(objects::quota_of(&cluster.namespace, "few", "persistentvolumeclaims", 3));
        cluster.say_with(&rights(), &job, &["restore"]).await.assert_exit(1);
        cluster.fake().remove("resourcequotas", &cluster.namespace, "few");
        let moved = [&job[..], &[("RESTORE_AT", "2026-11-20 10:30")]].concat();
        let said = cluster.say_with(&rights(), &moved, &["restore"]).await;
        said.assert_exit(2).assert_says("group snapshot newer is not from 2026-11-20T10:30:00Z or before");
        bound(cluster, "data-restored").await;
        cluster.fake().delete("volumegroupsnapshots", &cluster.namespace, "newer");
        cluster
            .until("the group is gone", async || {
                cluster.fake().get("volumegroupsnapshots", &cluster.namespace, "newer").is_none()
            })
            .await;
        let said = cluster.say_with(&rights(), &job, &["restore"]).await;
        said.assert_exit(2)
            .assert_says("an earlier attempt of this Job made claim data-restored, but it is made from");
        said.assert_says("kubectl delete pvc data-restored -n ");
        assert_eq!(claim_names(cluster).await.len(), 3);
    })
    .await;
}

/// Of a group whose volumes are made later, it is the group that nothing may delete.
#[tokio::test]
async fn a_group_is_held_where_volumes_wait_for_their_first_consumer() {
    with_groups(async |cluster| {
        cluster.fake().put(objects::waiting_storage_class("waits"));
        let said = restore_group(cluster, &["--storage-class", "waits"]).await;
        said.assert_exit(0).assert_says("kubectl label volumegroupsnapshot newer -n ");
        assert!(said.message.contains("nothing may delete it until then"), "{}", said.message);
        let arguments = ["restore", "--claim", "data", "--to", "alone", "--storage-class", "waits"];
        let said = cluster.say(&rights(), &arguments).await;
        said.assert_exit(0).assert_says("kubectl label volumegroupsnapshot newer -n ");
        assert!(!said.err.contains("label volumesnapshot "), "{}", said.err);
        cluster.fake().label(
            "volumegroupsnapshots",
            &cluster.namespace,
            "newer",
            "volume-snapshotter/hold",
            Some("true"),
        );
        let arguments = [&arguments[..4], &["again", "--storage-class", "waits"]].concat();
        let said = cluster.say(&rights(), &arguments).await;
        said.assert_exit(0);
        assert!(!said.err.contains("kubectl label"), "a hold that others put on stays: {}", said.err);
    })
    .await;
}
