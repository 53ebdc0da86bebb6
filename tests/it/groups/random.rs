//! Runs for groups while others do what they like, at moments and in an order that a seed chooses. Whatever comes of a
//! run, no member's last copy is deleted by it, and no group whose loss nobody could explain.

use fake_apiserver::{Fault, Plan, When};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;

use super::*;

/// How many seeds are played.
const SEEDS: u64 = 60;

type Act = fn(&Others, &str, &mut StdRng);

/// What others may do.
const ACTS: [Act; 11] = [
    |others, namespace, random| others.label(CLAIMS, namespace, claim(random), LABEL, Some("other")),
    |others, namespace, random| others.label(CLAIMS, namespace, claim(random), LABEL, None),
    |others, namespace, random| drop(others.replace_claim(namespace, claim(random))),
    |others, namespace, _| {
        drop(others.put(objects::bound_claim(namespace, "extra", &[("app", "web"), (LABEL, "shop")])));
    },
    |others, namespace, random| {
        if let Some(group) = any(others, GROUPS, namespace, random) {
            others.delete(GROUPS, namespace, &group);
        }
    },
    |others, namespace, random| {
        if let Some(group) = any(others, GROUPS, namespace, random) {
            drop(others.remove(GROUPS, namespace, &group));
        }
    },
    |others, namespace, random| {
        if let Some(member) = any(others, SNAPSHOTS, namespace, random) {
            others.delete(SNAPSHOTS, namespace, &member);
        }
    },
    |others, namespace, random| {
        if let Some(member) = any(others, SNAPSHOTS, namespace, random) {
            drop(others.remove(SNAPSHOTS, namespace, &member));
        }
    },
    |others, namespace, random| {
        if let Some(group) = any(others, GROUPS, namespace, random) {
            others.label(GROUPS, namespace, &group, "volume-snapshotter/hold", Some("true"));
        }
    },
    |others, namespace, random| {
        if let Some(group) = any(others, GROUPS, namespace, random) {
            others.label(GROUPS, namespace, &group, "job", Some("daily"));
        }
    },
    |others, namespace, random| {
        if let Some(member) = any(others, SNAPSHOTS, namespace, random) {
            others.update(SNAPSHOTS, namespace, &member, |member| {
                member["status"]["readyToUse"] = json!(false);
            });
        }
    },
];

fn claim(random: &mut StdRng) -> &'static str {
    ["data", "logs"].choose(random).copied().unwrap_or("data")
}

fn any(others: &Others, resource: &str, namespace: &str, random: &mut StdRng) -> Option<String> {
    let all = others.list(resource, namespace);
    all.choose(random).map(|one| name_of(one).to_owned())
}

#[tokio::test]
async fn whatever_others_do_no_member_loses_its_last_copy() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut slow = options();
        slow.controller.ready_after = millis(random.random_range(0..60));
        with_group(slow, async |cluster| {
            let mut random = StdRng::seed_from_u64(seed + 1000);
            for hours in 1..=random.random_range(1..4) {
                cluster.put_old_group(&format!("old-{hours}"), "shop", &["data", "logs"], hours);
            }
            if random.random_bool(0.3) {
                cluster.fake().plan(|member| {
                    let is_it = member["spec"]["source"]["persistentVolumeClaimName"] == "logs";
                    is_it.then(|| Plan::ready_after(millis(120)))
                });
            }
            for _ in 0..random.random_range(1..4) {
                // Not at a deletion itself: what happens after its last look a run cannot know.
                let (verb, resource) = *[
                    ("list", CLAIMS),
                    ("list", GROUPS),
                    ("list", SNAPSHOTS),
                    ("create", GROUPS),
                    ("get", GROUPS),
                ]
                .choose(&mut random)
                .expect("there are some");
                let nth = random.random_range(1..4);
                if random.random_bool(0.2) {
                    let verb = if resource == GROUPS { "delete" } else { verb };
                    let when = if random.random_bool(0.5) { When::Before } else { When::After };
                    cluster.fake().fault_nth(asks(verb, resource), nth, Fault::Error(503, when));
                    continue;
                }
                let act = *ACTS.choose(&mut random).expect("there are some");
                let (namespace, own) = (cluster.namespace.clone(), random.random());
                let act = move |others: &Others| act(others, &namespace, &mut StdRng::seed_from_u64(own));
                match random.random_bool(0.5) {
                    true => cluster.fake().before(asks(verb, resource), nth, act),
                    false => cluster.fake().after(asks(verb, resource), nth, act),
                }
            }
            let settings = [("SNAPSHOT_READY_INTERVAL", "300ms"), ("SNAPSHOT_READY_ATTEMPTS", "2")];
            for _ in 0..2 {
                let ran = cluster.run_groups(&settings).await;
                assert!([0, 1, 2, 3].contains(&ran.code), "seed {seed}: {}", ran.message);
                cluster.fake().clear_actions();
            }
        })
        .await;
    }
}
