//! Everything that could make a run delete the wrong group, or lose a member's data.

use fake_apiserver::{Fault, Pace, Plan, When};
use serde_json::json;

use super::*;

/// Settings for a run that does not wait for long.
const BRIEF: (&str, &str) = ("SNAPSHOT_READY_INTERVAL", "400ms");

/// Whether a snapshot that is about to be planned is the member of a claim.
fn is_of(claim: &'static str) -> impl Fn(&Value) -> bool {
    move |member| member["spec"]["source"]["persistentVolumeClaimName"] == claim
}

/// The group that the run made, among all that there are.
fn new_of(others: &Others, namespace: &str) -> Value {
    let all = others.list(GROUPS, namespace);
    let new = all.into_iter().find(|group| name_of(group).starts_with("volume-snapshot-"));
    new.expect("the run has made a group")
}

#[tokio::test]
async fn a_member_that_is_never_ready_lets_nothing_older_go() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        cluster.fake().plan(|member| is_of("logs")(member).then(|| Plan::fails("no space")));
        let ran = cluster.run_groups(&[BRIEF, ("SNAPSHOT_READY_ATTEMPTS", "2")]).await;
        ran.assert_exit(1);
        let new = cluster.new_group();
        assert_eq!(new["status"]["readyToUse"], true, "the group says that it is ready");
        assert_eq!(cluster.groups(), ["old", name_of(&new)]);
        let why = format!(
            "data: snapshot {} of group shop was not ready within 0.80 s (2 × 0.40 s): its member {} of claim logs is not \
             ready: no space; older snapshots stay; see kubectl describe volumegroupsnapshot {} -n {}\nlogs: as claim data \
             of group shop\n",
            name_of(&new),
            name_of(&cluster.members(name_of(&new))["logs"]),
            name_of(&new),
            cluster.namespace,
        );
        assert!(ran.message.ends_with(&why), "{}\n{why}", ran.message);
        assert_eq!(ran.lines("the snapshot is not ready yet (attempt 1 of 2)").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_quota_for_one_of_two_members_lets_nothing_older_go() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        // The older two, and one more.
        cluster.fake().quota(&cluster.namespace, 3);
        let ran = cluster.run_groups(&[BRIEF, ("SNAPSHOT_READY_ATTEMPTS", "1")]).await;
        ran.assert_exit(1);
        let new = cluster.new_group();
        assert_eq!(cluster.members(name_of(&new)).len(), 1);
        assert_eq!(cluster.groups(), ["old", name_of(&new)]);
        assert!(
            ran.message.contains("it has no member of claim logs; a ResourceQuota that is used up keeps"),
            "{}",
            ran.message
        );
    })
    .await;
}

#[tokio::test]
async fn a_quota_of_groups_makes_room_with_what_is_superseded() {
    with_group(options(), async |cluster| {
        for (name, hours) in [("oldest", 3), ("older", 2), ("old", 1)] {
            cluster.put_old_group(name, "shop", &["data", "logs"], hours);
        }
        let quota = objects::quota_of(
            &cluster.namespace,
            "groups",
            "volumegroupsnapshots.groupsnapshot.storage.k8s.io",
            3,
        );
        cluster.fake().put(quota);
        let ran = cluster.run_groups(&[]).await;
        ran.assert_exit(0);
        assert_eq!(cluster.groups(), [name_of(&cluster.new_group())]);
        assert_eq!(ran.lines("the quota is used up").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_group_that_somebody_replaces_while_it_is_waited_for_is_not_the_runs() {
    let mut slow = options();
    slow.controller.ready_after = millis(400);
    with_group(slow, async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        let running = cluster.start_groups(&[]).await;
        cluster.until("the group is made", async || cluster.groups().len() == 2).await;
        let new = cluster.new_group();
        cluster.fake().remove(GROUPS, &cluster.namespace, name_of(&new));
        let mut other = objects::group_snapshot(&cluster.namespace, name_of(&new), &[(LABEL, "shop")]);
        other["metadata"]["labels"] = new["metadata"]["labels"].clone();
        other["metadata"]["annotations"] = new["metadata"]["annotations"].clone();
        cluster.fake().put(other);
        let ran = running.finish().await;
        ran.assert_exit(1);
        let said = format!("somebody deleted snapshot {} of group shop during the run", name_of(&new));
        assert!(ran.message.contains(&said), "{}", ran.message);
        assert!(cluster.groups().contains(&"old".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn nothing_goes_once_the_new_group_or_a_member_of_it_went() {
    for whole in [true, false] {
        for (verb, resource, when) in [("list", CLAIMS, When::After), ("delete", GROUPS, When::Before)] {
            with_group(options(), async |cluster| {
                for (name, hours) in [("older", 2), ("old", 1)] {
                    cluster.put_old_group(name, "shop", &["data", "logs"], hours);
                }
                // The first list of claims chooses them, the second looks for the groups, the third is the recheck.
                let nth = if resource == CLAIMS { 3 } else { 1 };
                let namespace = cluster.namespace.clone();
                let spoil = move |others: &Others| {
                    let new = new_of(others, &namespace);
                    match whole {
                        true => drop(others.remove(GROUPS, &namespace, name_of(&new))),
                        false => {
                            let members = members_of(others, &namespace, name_of(&new));
                            others.delete(SNAPSHOTS, &namespace, name_of(&members["logs"]));
                        }
                    }
                };
                match when {
                    When::Before => {
                        // The first answer is lost, so that there is another try.
                        let busy = Fault::Error(503, When::Before);
                        cluster.fake().fault_nth(asks(verb, resource), 1, busy);
                        cluster.fake().before(asks(verb, resource), nth, spoil);
                    }
                    When::After => cluster.fake().after(asks(verb, resource), nth, spoil),
                }
                let ran = cluster.run_groups(&[("SNAPSHOT_CONCURRENCY", "1")]).await;
                ran.assert_exit(1);
                assert!(ran.message.contains("somebody deleted snapshot"), "{}", ran.message);
                let left = cluster.groups();
                assert!(left.contains(&"old".to_owned()), "{verb} {resource}: {left:?}");
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_group_that_lost_a_member_counts_for_nothing_and_is_left_alone() {
    with_group(options(), async |cluster| {
        for (name, hours) in [("oldest", 3), ("older", 2), ("old", 1)] {
            cluster.put_old_group(name, "shop", &["data", "logs"], hours);
        }
        let lost = cluster.members("old")["logs"].clone();
        cluster.fake().delete(SNAPSHOTS, &cluster.namespace, name_of(&lost));
        let ran = cluster.run_groups(&[("SNAPSHOT_RETENTION", "last=2")]).await;
        ran.assert_exit(0);
        // Of those that are complete two stay, the new one and "older".
        assert_eq!(cluster.groups(), ["old", "older", name_of(&cluster.new_group())]);
        assert_eq!(ran.lines("1 snapshot of which a member was deleted, old first").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn the_newest_complete_group_stays_while_the_new_one_has_lost_a_member() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        let namespace = cluster.namespace.clone();
        // At once when it is taken.
        cluster.fake().plan(|_| Some(Plan::ready_after(millis(300))));
        let running = cluster.start_groups(&[]).await;
        cluster
            .until("the members are made", async || {
                let others = cluster.fake().others();
                cluster.groups().len() == 2
                    && members_of(&others, &namespace, name_of(&new_of(&others, &namespace))).len() == 2
            })
            .await;
        let member = cluster.members(name_of(&cluster.new_group()))["data"].clone();
        cluster.fake().delete(SNAPSHOTS, &cluster.namespace, name_of(&member));
        let ran = running.finish().await;
        ran.assert_exit(1);
        let said =
            format!("will never be ready: somebody deleted its member {} of claim data", name_of(&member));
        assert!(ran.message.contains(&said), "{}", ran.message);
        assert_eq!(cluster.groups().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_comes_to_the_group_before_it_is_made_fails_it() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        let namespace = cluster.namespace.clone();
        cluster.fake().before(asks("create", GROUPS), 1, move |others| {
            others.put(objects::bound_claim(&namespace, "extra", &[(LABEL, "shop")]));
        });
        let ran = cluster.run_groups(&[]).await;
        ran.assert_exit(1);
        let said = "will never be ready: it has a member of claim extra, which was not asked for";
        assert!(ran.message.contains(said), "{}", ran.message);
        assert!(cluster.groups().contains(&"old".to_owned()));
        // What was made of it stays too: it holds data of a claim of which there is no other copy.
        let next = cluster.run_groups(&[("SNAPSHOT_PVC_SELECTOR", "")]).await;
        assert_eq!(next.code, 2, "an empty selector is none");
        let next = cluster.run_groups(&[]).await;
        next.assert_exit(2);
        let said = "group shop is not snapshotted, and nothing was made: it would also take claim extra";
        assert!(next.message.contains(said), "{}", next.message);
        assert_eq!(cluster.groups().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn claims_that_change_before_the_recheck_fail_the_group_and_keep_its_older_ones() {
    type Change = (&'static str, fn(&Others, &str));
    let changes: [Change; 4] = [
        ("claim logs of group shop was deleted and made anew", |others, namespace| {
            others.replace_claim(namespace, "logs");
        }),
        ("claim logs left group shop or was deleted", |others, namespace| {
            others.label(CLAIMS, namespace, "logs", LABEL, Some("other"));
        }),
        ("claim logs left group shop or was deleted", |others, namespace| {
            others.remove(CLAIMS, namespace, "logs");
        }),
        ("claim extra came to group shop", |others, namespace| {
            others.put(objects::claim(namespace, "extra"));
            others.label(CLAIMS, namespace, "extra", LABEL, Some("shop"));
        }),
    ];
    for (said, change) in changes {
        with_group(options(), async |cluster| {
            cluster.put_old_group("old", "shop", &["data", "logs"], 1);
            let namespace = cluster.namespace.clone();
            cluster.fake().before(asks("list", CLAIMS), 3, move |others| change(others, &namespace));
            let ran = cluster.run_groups(&[]).await;
            ran.assert_exit(1);
            assert!(ran.message.contains(said), "{}", ran.message);
            assert_eq!(cluster.groups().len(), 2, "{said}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_claim_that_is_made_anew_or_leaves_keeps_the_groups_that_have_its_data() {
    for is_replaced in [true, false] {
        with_group(options(), async |cluster| {
            for (name, hours) in [("older", 2), ("old", 1)] {
                cluster.put_old_group(name, "shop", &["data", "logs"], hours);
            }
            match is_replaced {
                true => drop(cluster.fake().replace_claim(&cluster.namespace, "logs")),
                false => cluster.fake().label(CLAIMS, &cluster.namespace, "logs", LABEL, None),
            }
            let settings = [("SNAPSHOT_PVC_SELECTOR", LABEL)];
            for _ in 0..2 {
                let ran = cluster.run_groups(&settings).await;
                ran.assert_exit(0);
                let said = "2 snapshots of claims that are no longer in the group, or were made anew";
                assert_eq!(ran.lines(said).len(), 1);
            }
            let left = cluster.groups();
            assert_eq!(left.len(), 3, "{left:?}");
            assert!(left.contains(&"old".to_owned()) && left.contains(&"older".to_owned()));
        })
        .await;
    }
}

#[tokio::test]
async fn a_claim_that_came_to_the_group_later_does_not_keep_older_groups() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        cluster.put_grouped_claim("more", "shop");
        cluster.run_groups(&[]).await.assert_exit(0);
        let new = cluster.new_group();
        assert_eq!(cluster.groups(), [name_of(&new)]);
        assert_eq!(cluster.members(name_of(&new)).len(), 3);
    })
    .await;
}

#[tokio::test]
async fn what_is_held_owned_or_of_others_is_left_alone() {
    with_group(options(), async |cluster| {
        cluster.put_grouped_claim("mail", "post");
        for (name, hours) in [("held", 6), ("owned", 5), ("foreign", 4), ("wide", 3), ("old", 2)] {
            cluster.put_old_group(name, "shop", &["data", "logs"], hours);
        }
        cluster.put_old_group("post", "post", &["mail"], 1);
        let others = cluster.fake().others();
        let namespace = cluster.namespace.as_str();
        others.label(GROUPS, namespace, "held", "volume-snapshotter/hold", Some("before-upgrade"));
        others.update(GROUPS, namespace, "owned", |group| {
            group["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "velero.io/v1", "kind": "Backup", "name": "b", "uid": "b"}]);
        });
        others.label(GROUPS, namespace, "foreign", "job", Some("daily"));
        others.update(GROUPS, namespace, "wide", |group| {
            group["spec"]["source"]["selector"]["matchLabels"]["tier"] = json!("db");
        });
        let ran = cluster.run_groups(&[]).await;
        ran.assert_exit(0);
        let left: Vec<String> =
            cluster.groups().into_iter().filter(|name| !name.starts_with("volume-snapshot-")).collect();
        assert_eq!(left, ["foreign", "held", "owned", "wide"]);
        let own = cluster.groups().len() - left.len();
        assert_eq!(own, 2, "one of each group");
    })
    .await;
}

#[tokio::test]
async fn a_group_of_which_a_member_is_being_restored_from_stays() {
    with_group(options(), async |cluster| {
        for (name, hours) in [("older", 2), ("old", 1)] {
            cluster.put_old_group(name, "shop", &["data", "logs"], hours);
        }
        let member = cluster.members("older")["logs"].clone();
        let mut claim = objects::claim_from_snapshot(&cluster.namespace, "restored", name_of(&member));
        claim["spec"]["storageClassName"] = json!("no-such-class");
        cluster.fake().put(claim);
        let ran = cluster.run_groups(&[]).await;
        ran.assert_exit(0);
        assert_eq!(cluster.groups(), ["older", name_of(&cluster.new_group())]);
        assert_eq!(ran.lines("stays: a claim is being restored from it").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_group_that_changes_before_it_is_deleted_is_judged_again() {
    for holds in [true, false] {
        with_group(options(), async |cluster| {
            cluster.put_old_group("old", "shop", &["data", "logs"], 1);
            let namespace = cluster.namespace.clone();
            cluster.fake().before(asks("delete", GROUPS), 1, move |others| {
                let label = if holds { "volume-snapshotter/hold" } else { "team" };
                others.label(GROUPS, &namespace, "old", label, Some("true"));
            });
            let ran = cluster.run_groups(&[]).await;
            ran.assert_exit(0);
            assert_eq!(cluster.groups().contains(&"old".to_owned()), holds);
            let deletes = cluster.fake().requests().iter().filter(|one| asks("delete", GROUPS)(one)).count();
            assert_eq!(deletes, if holds { 1 } else { 2 });
        })
        .await;
    }
}

#[tokio::test]
async fn a_lost_answer_to_the_create_makes_no_second_group() {
    for fault in [Fault::Error(503, When::After), Fault::Cut(When::After)] {
        with_group(options(), async |cluster| {
            cluster.put_old_group("old", "shop", &["data", "logs"], 1);
            cluster.fake().fault_nth(asks("create", GROUPS), 1, fault.clone());
            let ran = cluster.run_groups(&[]).await;
            ran.assert_exit(0);
            assert_eq!(cluster.groups(), [name_of(&cluster.new_group())]);
            let made = cluster.fake().requests();
            let made = made.iter().filter(|one| asks("create", GROUPS)(one) && one.carried_out).count();
            assert_eq!(made, 1);
        })
        .await;
    }
}

#[tokio::test]
async fn a_signal_leaves_the_group_to_the_next_attempt_which_takes_it_over() {
    with_group(options(), async |cluster| {
        cluster.put_old_group("old", "shop", &["data", "logs"], 1);
        cluster.fake().controller_pace(Pace::Stopped);
        let attempt = [("SNAPSHOT_RUN_ID", "hourly-1")];
        let running = cluster.start_groups(&attempt).await;
        cluster.until("the group is made", async || cluster.groups().len() == 2).await;
        tokio::time::sleep(millis(200)).await;
        running.signal("TERM");
        let ran = running.finish().await;
        ran.assert_exit(143);
        let new = cluster.new_group();
        let said = format!(
            "data: stopped before {} of group shop was ready; the Job's next attempt continues with it\n",
            name_of(&new)
        );
        assert!(ran.message.contains(&said), "{}", ran.message);
        assert_eq!(cluster.groups().len(), 2);

        cluster.fake().controller_pace(Pace::AtOnce);
        let next = cluster.run_groups(&attempt).await;
        next.assert_exit(0);
        assert!(next.message.contains("ready (created by an earlier attempt)"), "{}", next.message);
        assert_eq!(cluster.groups(), [name_of(&new)]);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_takes_over_no_group_that_lacks_a_claim() {
    with_group(options(), async |cluster| {
        cluster.fake().controller_pace(Pace::Stopped);
        let attempt = [("SNAPSHOT_RUN_ID", "hourly-1"), BRIEF, ("SNAPSHOT_READY_ATTEMPTS", "1")];
        cluster.run_groups(&attempt).await.assert_exit(1);
        cluster.put_grouped_claim("more", "shop");
        cluster.fake().controller_pace(Pace::AtOnce);
        let next = cluster.run_groups(&attempt).await;
        next.assert_exit(0);
        assert!(!next.message.contains("earlier attempt"), "{}", next.message);
        assert!(next.message.starts_with("3 of 3 claims have"), "{}", next.message);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_takes_over_no_group_that_was_taken_before_a_claim_came() {
    with_group(options(), async |cluster| {
        cluster.fake().plan(|member| is_of("logs")(member).then(Plan::never));
        let attempt = [("SNAPSHOT_RUN_ID", "hourly-1"), BRIEF, ("SNAPSHOT_READY_ATTEMPTS", "1")];
        cluster.run_groups(&attempt).await.assert_exit(1);
        assert_eq!(cluster.members(&cluster.groups()[0]).len(), 2);
        cluster.put_grouped_claim("more", "shop");
        cluster.fake().plan(|_| None);
        let next = cluster.run_groups(&attempt).await;
        next.assert_exit(0);
        assert!(next.message.starts_with("3 of 3 claims have"), "{}", next.message);
        assert_eq!(cluster.groups().len(), 2);
    })
    .await;
}

/// It has the only copy of a claim that nobody asked for.
#[tokio::test]
async fn a_group_with_a_member_that_was_not_asked_for_stays_however_old_it_is() {
    with_group(options(), async |cluster| {
        let old = cluster.put_old_group("old", "shop", &["data", "logs"], 240);
        cluster.fake().put(objects::bound_claim(&cluster.namespace, "extra", &[]));
        cluster.fake().put(objects::member(&old, "extra"));
        cluster.run_groups(&[]).await.assert_exit(0);
        assert!(cluster.groups().contains(&"old".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn before_a_deletion_is_repeated_every_member_of_the_new_group_is_looked_at() {
    let mut slow = options();
    slow.controller.ready_after = millis(300);
    with_group(slow, async |cluster| {
        for (name, hours) in [("older", 2), ("old", 1)] {
            cluster.put_old_group(name, "shop", &["data", "logs"], hours);
        }
        let namespace = cluster.namespace.clone();
        // Not carried out, and by the next try a member is gone of which no watch tells.
        cluster.fake().fault_nth(asks("delete", GROUPS), 1, Fault::Error(503, When::Before));
        cluster.fake().after(asks("delete", GROUPS), 1, move |others| {
            let new = new_of(others, &namespace);
            others.delete(
                SNAPSHOTS,
                &namespace,
                name_of(&members_of(others, &namespace, name_of(&new))["logs"]),
            );
        });
        let settings = [
            ("SNAPSHOT_CONCURRENCY", "1"),
            ("SNAPSHOT_READY_INTERVAL", "1s"),
            ("SNAPSHOT_READY_ATTEMPTS", "3"),
        ];
        let running = cluster.start_groups(&settings).await;
        cluster.until("the group is made", async || cluster.groups().len() == 3).await;
        tokio::time::sleep(millis(100)).await;
        cluster.fake().mute_watches();
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("somebody deleted snapshot"), "{}", ran.message);
        assert_eq!(cluster.groups().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn after_a_long_silence_the_groups_are_listed_again_before_anything_goes() {
    let mut slow = options();
    slow.controller.ready_after = millis(300);
    with_group(slow, async |cluster| {
        for (name, hours) in [("older", 2), ("old", 1)] {
            cluster.put_old_group(name, "shop", &["data", "logs"], hours);
        }
        let namespace = cluster.namespace.clone();
        // When the window ends, groups and members are listed; this happens in between, and no watch tells of it.
        cluster.fake().after(asks("list", GROUPS), 2, move |others| {
            others.remove(GROUPS, &namespace, "old");
        });
        cluster.fake().fault_nth(asks("list", SNAPSHOTS), 2, Fault::Delay(millis(3000)));
        let settings = [
            ("SNAPSHOT_READY_INTERVAL", "1s"),
            ("SNAPSHOT_READY_ATTEMPTS", "5"),
            ("SNAPSHOT_RETENTION", "last=2"),
        ];
        let running = cluster.start_groups(&settings).await;
        cluster.until("the group is made", async || cluster.groups().len() == 3).await;
        tokio::time::sleep(millis(100)).await;
        cluster.fake().mute_watches();
        let ran = running.finish().await;
        ran.assert_exit(0);
        assert_eq!(cluster.groups(), ["older", name_of(&cluster.new_group())]);
    })
    .await;
}
