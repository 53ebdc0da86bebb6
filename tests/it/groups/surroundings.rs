//! Rights, versions of the API, watches that break, hooks, shards.

use fake_apiserver::{Command, Plan, Script};
use futures::future::join_all;
use serde_json::json;
use volume_snapshotter::cluster::HOOK_PERMISSIONS;

use super::*;

#[tokio::test]
async fn where_groups_are_not_served_in_v1_the_version_that_is_needed_is_said() {
    for api in [GroupApi::None, GroupApi::V1beta1, GroupApi::V1beta2] {
        with_group(Options { group_api: api, ..Options::default() }, async |cluster| {
            crate::faults::put_claim(cluster, "alone");
            let ran = cluster.run_groups(&[]).await;
            ran.assert_exit(2);
            assert!(ran.message.starts_with("1 of 3 claims has a new ready snapshot\n"), "{}", ran.message);
            let said = "install the CRDs of group snapshots and the snapshot controller of external-snapshotter 8.6 or later";
            assert!(ran.message.contains(said), "{}", ran.message);
        })
        .await;
    }
}

#[tokio::test]
async fn without_the_component_the_missing_right_is_said_and_claims_in_no_group_do_not_suffer() {
    with_group(options(), async |cluster| {
        crate::faults::put_claim(cluster, "alone");
        let settings = [("SNAPSHOT_GROUP_LABEL", LABEL), ("SNAPSHOT_PVC_SELECTOR", "app=web")];
        let ran = cluster.run_with_permissions(&rules(PERMISSIONS), &settings).await;
        ran.assert_exit(2);
        let said = "allow it in the Role: apiGroups: [\"groupsnapshot.storage.k8s.io\"], resources: \
                    [\"volumegroupsnapshots\"], verbs: [\"list\"]";
        assert!(ran.message.contains(said), "{}", ran.message);
        assert!(ran.message.starts_with("1 of 3 claims has a new ready snapshot\n"), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn each_right_of_the_component_is_needed_but_the_one_to_watch() {
    // A denial is believed only after a while.
    join_all(["create", "get", "list", "watch", "delete"].map(|verb| {
        with_group(options(), async move |cluster| {
            cluster.put_old_group("old", "shop", &["data", "logs"], 1);
            let all = [PERMISSIONS, EVENT_PERMISSIONS, GROUP_PERMISSIONS].concat();
            let is_it = |resource: &str, of: &str| resource == GROUPS && of == verb;
            let some: Vec<_> = all.iter().filter(|one| !is_it(one.resource, one.verb)).copied().collect();
            // Whoever reads a group again is one whose deletion had a conflict.
            let namespace = cluster.namespace.clone();
            cluster.fake().before(asks("delete", GROUPS), 1, move |others| {
                others.label(GROUPS, &namespace, "old", "team", Some("shop"));
            });
            let settings = [("SNAPSHOT_GROUP_LABEL", LABEL), ("SNAPSHOT_PVC_SELECTOR", "app=web")];
            let ran = cluster.run_with_permissions(&rules(&some), &settings).await;
            let code = match verb {
                "watch" => 0,
                "get" | "delete" => 3,
                _ => 2,
            };
            ran.assert_exit(code);
            if code != 0 {
                let said = format!("[\"volumegroupsnapshots\"], verbs: [\"{verb}\"]");
                assert!(ran.message.contains(&said), "{}", ran.message);
                assert!(cluster.groups().contains(&"old".to_owned()));
            }
        })
    }))
    .await;
}

#[tokio::test]
async fn a_group_becomes_ready_whatever_becomes_of_the_watches() {
    type Break = fn(&FakeApiServer);
    let breaks: [Break; 3] = [
        |fake| fake.end_watches(),
        |fake| {
            fake.compact();
            fake.expire_watches();
        },
        |fake| fake.mute_watches(),
    ];
    for spoil in breaks {
        let mut slow = options();
        slow.controller.ready_after = millis(700);
        with_group(slow, async |cluster| {
            cluster.put_old_group("old", "shop", &["data", "logs"], 1);
            let running = cluster
                .start_groups(&[("SNAPSHOT_READY_INTERVAL", "3s"), ("SNAPSHOT_READY_ATTEMPTS", "2")])
                .await;
            cluster.until("the group is made", async || cluster.groups().len() == 2).await;
            tokio::time::sleep(millis(100)).await;
            spoil(cluster.fake());
            let ran = running.finish().await;
            ran.assert_exit(0);
            assert_eq!(cluster.groups(), [name_of(&cluster.new_group())]);
        })
        .await;
    }
}

#[tokio::test]
async fn without_the_setting_groups_are_neither_asked_for_nor_touched() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        let ran = cluster.run_with_permissions(&permissions(), &[("SNAPSHOT_PVC_SELECTOR", "app=web")]).await;
        ran.assert_exit(0);
        assert_eq!(cluster.groups(), ["old"]);
        let requests = cluster.fake().requests();
        assert!(!requests.iter().any(|one| one.user.contains("serviceaccount") && one.resource == GROUPS));
        let lists = requests.iter().filter(|one| asks("list", SNAPSHOTS)(one)).count();
        assert_eq!(lists, 1);
    })
    .await;
}

#[tokio::test]
async fn a_run_for_one_group_costs_seven_requests_two_of_them_watches() {
    with_group(options(), async |cluster| {
        cluster.run_groups(&[]).await.assert_exit(0);
        let requests = cluster.fake().requests();
        let ours = requests.iter().filter(|request| request.user.contains("serviceaccount"));
        let mut asked: Vec<String> =
            ours.map(|request| format!("{} {}", request.verb, request.resource)).collect();
        asked.sort();
        assert_eq!(
            asked,
            [
                format!("create {GROUPS}"),
                // Those that are chosen, and those that the groups would take.
                format!("list {CLAIMS}"),
                format!("list {CLAIMS}"),
                format!("list {GROUPS}"),
                format!("list {SNAPSHOTS}"),
                format!("watch {GROUPS}"),
                format!("watch {SNAPSHOTS}"),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn the_pods_of_a_group_are_frozen_until_it_is_taken() {
    with_group(options(), async |cluster| {
        let mut pods = Vec::new();
        for (pod, claim) in [("db", "data"), ("log", "logs")] {
            let mut object = objects::running_pod(&cluster.namespace, pod, &["main"], &[claim]);
            object["metadata"]["annotations"] = json!({
                "pre.hook.volume-snapshotter/command": "freeze", "post.hook.volume-snapshotter/command": "thaw",
            });
            cluster.fake().put(object);
            cluster.fake().start_writer(&cluster.namespace, pod, millis(1));
            pods.push(pod);
        }
        cluster.fake().commands(|command: &Command| {
            Some(match command.line().as_str() {
                "freeze" => Script::new().freeze(),
                _ => Script::new().thaw(),
            })
        });
        // Taken long before it is ready.
        cluster.fake().plan_group(|_| Some(Plan::ready_after(millis(1500)).taken_after(millis(300))));
        let settings = [
            ("SNAPSHOT_GROUP_LABEL", LABEL),
            ("SNAPSHOT_PVC_SELECTOR", "app=web"),
            ("SNAPSHOT_HOOKS", "true"),
        ];
        let permissions = rules(&[PERMISSIONS, HOOK_PERMISSIONS, GROUP_PERMISSIONS].concat());
        let ran = cluster.run_with_permissions(&permissions, &settings).await;
        ran.assert_exit(0);
        for claim in ["data", "logs"] {
            assert!(ran.message.contains(&format!("\n{claim}: ")), "{}", ran.message);
        }
        assert_eq!(ran.message.matches(", consistent, ").count(), 2, "{}", ran.message);
        let group = cluster.new_group();
        assert_eq!(group["metadata"]["labels"]["volume-snapshotter/consistent"], "true");
        for pod in pods {
            let freezes = cluster.fake().freezes(&cluster.namespace, pod);
            assert_eq!(freezes.len(), 1, "{pod}");
            let duration = freezes[0].duration();
            assert!(duration >= millis(300) && duration < millis(1400), "{pod}: {duration:?}");
            assert!(!cluster.fake().is_frozen(&cluster.namespace, pod));
        }
    })
    .await;
}

#[tokio::test]
async fn a_group_stays_in_one_shard() {
    with_group(options(), async |cluster| {
        for number in 0..6 {
            for claim in ["data", "logs", "more"] {
                cluster.put_grouped_claim(&format!("{claim}-{number}"), &format!("group-{number}"));
            }
        }
        crate::faults::put_claim(cluster, "alone");
        for index in ["0", "1", "2"] {
            let settings = [("SNAPSHOT_SHARDS", "3"), ("JOB_COMPLETION_INDEX", index)];
            cluster.run_groups(&settings).await.assert_exit(0);
        }
        let groups = cluster.groups();
        assert_eq!(groups.len(), 7);
        for group in groups {
            let members = cluster.members(&group).len();
            assert!(members == 2 || members == 3, "{group}: {members}");
        }
        let singles = cluster.snapshots().await;
        assert_eq!(singles.iter().filter(|one| one["metadata"]["ownerReferences"].is_null()).count(), 1);
    })
    .await;
}
