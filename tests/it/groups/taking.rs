//! What is made, of which claims, and what is said of it.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_group_is_taken_as_one_and_its_older_ones_are_pruned_as_one() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        let ran = cluster.run_groups(&[]).await;
        ran.assert_exit(0);
        let new = cluster.new_group();
        assert_eq!(cluster.groups(), [name_of(&new)]);
        assert_eq!(new["spec"]["source"]["selector"], json!({"matchLabels": {LABEL: "shop"}}));
        assert_eq!(new["metadata"]["labels"]["job"], "volume-snapshotter");
        assert_eq!(new["metadata"]["labels"]["volume-snapshotter/group"], "shop");
        let members = cluster.members(name_of(&new));
        let line = |claim: &str| {
            format!(
                "\n{claim}: {}, member of {} of group shop, ready after",
                name_of(&members[claim]),
                name_of(&new)
            )
        };
        assert!(ran.message.starts_with("2 of 2 claims have a new ready snapshot\n"), "{}", ran.message);
        for claim in ["data", "logs"] {
            assert!(ran.message.contains(&line(claim)), "{}", ran.message);
        }
        assert_eq!(ran.message.matches("1 older snapshot deleted, 0 kept").count(), 2, "{}", ran.message);
        let deleted = ran.lines("deleted the older snapshot");
        assert_eq!(deleted.len(), 1);
        assert_eq!((&deleted[0]["group"], &deleted[0]["snapshot"]), (&json!("shop"), &json!("old")));
    })
    .await;
}

#[tokio::test]
async fn claims_without_the_label_are_taken_alone_beside_groups() {
    with_group(options(), async |cluster| {
        cluster.put_grouped_claim("mail", "post");
        cluster.put_grouped_claim("empty", "");
        crate::faults::put_claim(cluster, "alone");
        crate::faults::put_ready(cluster, "alone-old", "alone", 1);
        let ran = cluster.run_groups(&[]).await;
        ran.assert_exit(0);
        assert!(ran.message.starts_with("5 of 5 claims have a new ready snapshot\n"), "{}", ran.message);
        let groups = cluster.fake().list(GROUPS, &cluster.namespace);
        let mut values: Vec<_> = groups
            .iter()
            .map(|group| group["spec"]["source"]["selector"]["matchLabels"][LABEL].as_str().expect("a value"))
            .collect();
        values.sort_unstable();
        assert_eq!(values, ["post", "shop"]);
        let singles = cluster.snapshots().await;
        let singles = singles.iter().filter(|one| one["metadata"]["ownerReferences"].is_null());
        let mut claims: Vec<_> = singles
            .filter(|one| one["metadata"]["deletionTimestamp"].is_null())
            .map(|one| one["spec"]["source"]["persistentVolumeClaimName"].as_str().expect("a claim"))
            .collect();
        claims.sort_unstable();
        assert_eq!(claims, ["alone", "empty"]);
    })
    .await;
}

#[tokio::test]
async fn a_group_carries_what_snapshots_carry_and_its_class() {
    with_group(options(), async |cluster| {
        cluster.fake().put(objects::group_snapshot_class("fast"));
        let settings = [
            ("SNAPSHOT_GROUP_CLASS_NAME", "fast"),
            ("SNAPSHOT_HOLD", "true"),
            ("SNAPSHOT_LABELS", "release=1.2.3"),
            ("SNAPSHOT_JOB", "hourly"),
            ("SNAPSHOT_NAME_PREFIX", "shop"),
            ("SNAPSHOT_RUN_ID", "hourly-1"),
        ];
        let ran = cluster.run_groups(&settings).await;
        ran.assert_exit(0);
        let groups = cluster.fake().list(GROUPS, &cluster.namespace);
        let [group] = groups.as_slice() else { panic!("{groups:?}") };
        assert!(name_of(group).starts_with("shop-"));
        assert_eq!(group["spec"]["volumeGroupSnapshotClassName"], "fast");
        assert_eq!(
            group["metadata"]["labels"],
            json!({
                "job": "hourly", "name": name_of(group), "release": "1.2.3",
                "app.kubernetes.io/managed-by": "volume-snapshotter",
                "volume-snapshotter/group": "shop", "volume-snapshotter/hold": "true",
                "volume-snapshotter/run": "hourly-1", "volume-snapshotter/run-uid": "uid-of-hourly-1",
            })
        );
        let uid = |claim: &str| {
            let claim = cluster.fake().get(CLAIMS, &cluster.namespace, claim).expect("a claim");
            claim["metadata"]["uid"].as_str().expect("a uid").to_owned()
        };
        let uids = format!("data={},logs={}", uid("data"), uid("logs"));
        assert_eq!(group["metadata"]["annotations"][ANNOTATION], uids);
    })
    .await;
}

#[tokio::test]
async fn retention_counts_groups_by_their_value() {
    with_group(options(), async |cluster| {
        cluster.put_grouped_claim("mail", "post");
        for hours in 1..=4 {
            cluster.put_old_group(&format!("shop-{hours}"), "shop", &["data", "logs"], hours);
            cluster.put_old_group(&format!("post-{hours}"), "post", &["mail"], hours);
        }
        for claim in ["data", "logs"] {
            cluster.annotate_claim(claim, json!({"volume-snapshotter/retention": "last=3"})).await;
        }
        let ran = cluster.run_groups(&[("SNAPSHOT_RETENTION", "last=2")]).await;
        ran.assert_exit(0);
        let old: Vec<String> =
            cluster.groups().into_iter().filter(|name| !name.starts_with("volume-snapshot-")).collect();
        assert_eq!(old, ["post-1", "shop-1", "shop-2"]);
        let said = ran.lines("an annotation gives the claim its own rules");
        assert_eq!(said.len(), 1);
        assert_eq!(said[0]["group"], "shop");
    })
    .await;
}

#[tokio::test]
async fn claims_of_a_group_that_are_annotated_differently_are_taken_and_nothing_goes() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "last=1"})).await;
        let ran = cluster.run_groups(&[]).await;
        ran.assert_exit(3);
        let said = "the annotation volume-snapshotter/retention of claims data and logs of group shop is invalid: it has \
                    to be the same on all claims of a group";
        assert!(ran.message.contains(said), "{}", ran.message);
        assert_eq!(cluster.groups().len(), 2);
        cluster.annotate_claim("logs", json!({"volume-snapshotter/retention": "last=1"})).await;
        cluster.run_groups(&[]).await.assert_exit(0);
        assert_eq!(cluster.groups().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_group_that_cannot_be_taken_fails_alone_before_anything_is_made() {
    type Change = fn(&TestCluster);
    let cases: [(&str, i32, Change); 5] = [
        (
            "it would also take claim extra, which has the label example.org/group=shop and is not chosen",
            2,
            |cluster| {
                let extra = objects::bound_claim(&cluster.namespace, "extra", &[(LABEL, "shop")]);
                cluster.fake().put(extra);
            },
        ),
        ("claim logs is Pending: it has no volume yet", 1, |cluster| {
            cluster.fake().update(CLAIMS, &cluster.namespace, "logs", |claim| {
                claim["status"] = json!({"phase": "Pending"});
            });
        }),
        ("claim logs is Lost", 2, |cluster| {
            cluster.fake().update(CLAIMS, &cluster.namespace, "logs", |claim| {
                claim["status"] = json!({"phase": "Lost"});
            });
        }),
        ("claim logs is of the driver ebs.example and claim data of hostpath.csi.k8s.io", 2, |cluster| {
            cluster.fake().update(CLAIMS, &cluster.namespace, "logs", |claim| {
                let annotations = &mut claim["metadata"]["annotations"];
                annotations["volume.kubernetes.io/storage-provisioner"] = json!("ebs.example");
            });
        }),
        ("claim logs is being deleted", 1, |cluster| {
            let claim = cluster.fake().get(CLAIMS, &cluster.namespace, "logs").expect("a claim");
            cluster.fake().put(objects::terminating(claim, "2026-11-21T12:00:00Z"));
        }),
    ];
    for (said, code, change) in cases {
        with_group(options(), async |cluster| {
            cluster.put_old_group("old", "shop", &["data", "logs"], 1);
            crate::faults::put_claim(cluster, "alone");
            change(cluster);
            let ran = cluster.run_groups(&[]).await;
            ran.assert_exit(code);
            assert!(ran.message.starts_with("1 of 3 claims has a new ready snapshot\n"), "{}", ran.message);
            assert!(ran.message.contains(said), "{}", ran.message);
            assert_eq!(ran.lines("and nothing was made").len(), 1, "once, and not for each claim");
            assert_eq!(cluster.groups(), ["old"]);
        })
        .await;
    }
}

#[tokio::test]
async fn a_dry_run_makes_and_deletes_no_group_and_says_what_it_would() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        let ran = cluster.run_groups(&[("SNAPSHOT_DRY_RUN", "true")]).await;
        ran.assert_exit(0);
        assert_eq!(cluster.groups(), ["old"]);
        assert!(
            ran.message.contains("logs: would create a snapshot, delete 1 older one and keep 0"),
            "{}",
            ran.message
        );
        let goes = ran.lines("goes: no rule keeps it");
        assert_eq!((goes.len(), &goes[0]["snapshot"], &goes[0]["group"]), (1, &json!("old"), &json!("shop")));
    })
    .await;
}

#[tokio::test]
async fn a_group_that_is_not_due_waits() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        // As a CronJob names its Jobs; one that a person made takes all.
        let id = format!("hourly-{}", Timestamp::now().as_second() / 60);
        let ran = cluster.run_groups(&[("SNAPSHOT_EVERY", "1d"), ("SNAPSHOT_RUN_ID", &id)]).await;
        ran.assert_exit(0);
        assert!(ran.message.starts_with("no snapshot was due; 2 claims are not due\n"), "{}", ran.message);
        assert_eq!(cluster.groups(), ["old"]);
    })
    .await;
}

#[tokio::test]
async fn groups_of_one_value_in_two_namespaces_are_two() {
    with_group(options(), async |cluster| {
        let other = cluster.another_namespace("b", json!({"snapshots": "true"})).await;
        cluster.fake().label("namespaces", "", &cluster.namespace, "snapshots", Some("true"));
        let mut claim = objects::bound_claim(&other.namespace, "data", &[("app", "web"), (LABEL, "shop")]);
        claim["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
        cluster.fake().put(claim);
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        let permissions = rules(
            &[
                PERMISSIONS,
                EVENT_PERMISSIONS,
                GROUP_PERMISSIONS,
                volume_snapshotter::cluster::NAMESPACE_PERMISSIONS,
            ]
            .concat(),
        );
        cluster.grant_everywhere(&permissions).await;
        let ran = cluster.run_groups(&[("SNAPSHOT_NAMESPACE_SELECTOR", "snapshots=true")]).await;
        ran.assert_exit(0);
        assert!(ran.message.starts_with("3 of 3 claims have a new ready snapshot\n"), "{}", ran.message);
        assert_eq!(cluster.groups().len(), 1);
        assert_eq!(cluster.fake().list(GROUPS, &other.namespace).len(), 1);
    })
    .await;
}
