//! What a restore says where the API server answers with an error, request by request: each error is that of what
//! was tried, and none is taken for another.

use fake_apiserver::{Fault, Options, Provision, Request, When};
use serde_json::json;

use super::{NEEDS_FAULTS, millis, restore_rights};
use crate::{
    commands::Said,
    test_cluster::{TestCluster, embedded_only},
};

/// Whether the binary asks this of the object with this name.
fn asks(
    verb: &'static str,
    resource: &'static str,
    name: &'static str,
) -> impl Fn(&Request) -> bool + Send + Sync {
    move |request| {
        request.user.contains("serviceaccount") && request.is(verb, resource) && request.name == name
    }
}

async fn restore(cluster: &TestCluster) -> Said {
    cluster.say(&restore_rights(), &["restore", "--snapshot=old", "--to=b"]).await
}

#[tokio::test]
async fn an_error_that_nobody_expects_is_said_as_it_is() {
    for (verb, resource, name, tried) in [
        ("get", "persistentvolumeclaims", "b", "cannot read claim b"),
        ("get", "volumesnapshots", "old", "cannot read snapshot old"),
        ("get", "persistentvolumeclaims", "data", "cannot read claim data"),
        ("create", "persistentvolumeclaims", "b", "cannot create claim b"),
    ] {
        embedded_only(Options::default(), NEEDS_FAULTS, async |cluster| {
            cluster.claim("data").await;
            cluster.older("old", "data").await;
            cluster.fake().fault_nth(asks(verb, resource, name), 1, Fault::Error(400, When::Before));
            let said = restore(cluster).await;
            assert_ne!(said.code, 0, "{verb} {name}");
            said.assert_says(tried).assert_says("unknown");
            for other in ["already", "there is no snapshot", "ResourceQuota", "as claim data is gone"] {
                assert!(!said.err.contains(other), "{verb} {name}: {}", said.err);
            }
            assert!(cluster.try_claim("b").await.is_none(), "{verb} {name}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_quota_of_claims_that_is_used_up_is_named() {
    embedded_only(Options::default(), NEEDS_FAULTS, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().put(json!({
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": cluster.namespace},
            "spec": {"hard": {"persistentvolumeclaims": "1"}},
        }));
        let said = restore(cluster).await;
        assert_ne!(said.code, 0);
        said.assert_says("exceeded quota: q").assert_says("raise the ResourceQuota, or delete a claim");
    })
    .await;
}

#[tokio::test]
async fn the_next_attempt_does_not_need_the_snapshot_that_a_run_has_pruned_meanwhile() {
    let settings = [("RESTORE_CLAIM", "data"), ("RESTORE_TO", "b"), ("RESTORE_RUN_UID", "uid-7")];
    for (is_pruned, fault) in [(true, None), (false, Some(Fault::Error(400, When::Before)))] {
        embedded_only(Options::default(), NEEDS_FAULTS, async |cluster| {
            cluster.claim("data").await;
            cluster.older("old", "data").await;
            let say = async || cluster.say_with(&restore_rights(), &settings, &["restore"]).await;
            say().await.assert_exit(0);
            if is_pruned {
                cluster.delete_snapshot("old").await;
            }
            if let Some(fault) = &fault {
                cluster.fake().fault_nth(asks("get", "volumesnapshots", "old"), 1, fault.clone());
            }
            let said = say().await;
            match fault {
                None => drop(said.assert_exit(0)),
                Some(_) => drop(said.assert_says("cannot read snapshot old")),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn where_claims_may_not_be_read_the_old_one_counts_as_unread_and_not_as_gone() {
    embedded_only(Options::default(), NEEDS_FAULTS, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let mut rights = restore_rights();
        for rule in rights.as_array_mut().expect("rules") {
            if rule["resources"] == json!(["persistentvolumeclaims"]) {
                rule["verbs"] = json!(["create", "watch"]);
            }
        }
        let said = cluster
            .say(&rights, &["restore", "--snapshot=old", "--to=b", "--storage-class=default", "--timeout=3s"])
            .await;
        assert!(!said.err.contains("claim data is gone"), "{}", said.err);
        assert!(said.err.contains("so assuming ReadWriteOnce"), "{}", said.err);
        assert!(said.message.contains("cannot read claim b"), "{}", said.message);
    })
    .await;
}

/// While a restore waits for its volume it reads the claim, the claim's Events and the snapshot, again and again.
#[tokio::test]
async fn errors_while_the_volume_is_waited_for_are_those_of_what_was_read() {
    type Row = (&'static str, &'static str, &'static str, usize, u16, bool, &'static str);
    let rows: [Row; 4] = [
        ("get", "persistentvolumeclaims", "b", 2, 400, true, "cannot read claim b"),
        // An outage is waited out.
        ("get", "persistentvolumeclaims", "b", 2, 503, false, "Bound after"),
        // That the snapshot cannot be read does not matter, as long as nobody says that it is gone.
        ("get", "volumesnapshots", "old", 2, 400, false, "Bound after"),
        ("list", "events", "", 1, 400, false, "Bound after"),
    ];
    for (verb, resource, name, number, code, fails, said) in rows {
        embedded_only(Options::default(), NEEDS_FAULTS, async |cluster| {
            cluster.fake().provision(|_| Some(Provision { after: Some(millis(2000)), error: None }));
            cluster.claim("data").await;
            cluster.older("old", "data").await;
            cluster.fake().fault_nth(asks(verb, resource, name), number, Fault::Error(code, When::Before));
            let answer = restore(cluster).await;
            assert_eq!(answer.code != 0, fails, "{verb} {resource} {code}: {}", answer.err);
            answer.assert_says(said);
            // What is missing all the time is said once.
            assert!(answer.err.matches("continuing without the Events").count() <= 1, "{}", answer.err);
        })
        .await;
    }
}

#[tokio::test]
async fn a_claim_whose_volume_is_lost_under_a_restore_ends_it() {
    embedded_only(Options::default(), NEEDS_FAULTS, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().provision(|_| Some(Provision { after: None, error: None }));
        let arguments = ["restore", "--snapshot=old", "--to=b"];
        let saying = cluster.begin_to_say(&restore_rights(), &[], &arguments).await;
        cluster.until("the claim is made", async || cluster.try_claim("b").await.is_some()).await;
        cluster.fake().update("persistentvolumeclaims", &cluster.namespace, "b", |claim| {
            claim["status"]["phase"] = json!("Lost");
        });
        let said = saying.finish().await;
        assert_ne!(said.code, 0);
        said.assert_says("claim b is Lost: its volume was deleted");
    })
    .await;
}
