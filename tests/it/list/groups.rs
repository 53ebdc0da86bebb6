//! Groups in the list: one entry each, with the members under it.

use super::*;

use fake_apiserver::GroupApi;
use volume_snapshotter::{
    api::{VolumeGroupSnapshot, VolumeSnapshot},
    cluster::{Permission, RESTORE_GROUP_PERMISSIONS},
    group::Group,
};

const LABEL: &str = "volume-snapshotter/group";
const SHOP: &[(&str, &str)] = &[(LABEL, "shop")];

/// A cluster with the CRDs of groups.
pub(crate) fn served() -> Options {
    Options { group_api: GroupApi::V1, ..Options::default() }
}

/// A ready group of the claims `data` and `logs`, as a run makes it.
pub(crate) fn group(namespace: &str, name: &str, time: &str) -> Value {
    let mut group = objects::ready_group_snapshot(namespace, name, SHOP, time);
    group["metadata"]["labels"][LABEL] = json!("shop");
    group["metadata"]["annotations"]["volume-snapshotter/claim-uids"] = json!("data=uid-data,logs=uid-logs");
    group
}

/// Puts in a group with members of `claims`, and returns the names of these.
pub(crate) fn put_group(cluster: &TestCluster, name: &str, time: &str, claims: &[&str]) -> Vec<String> {
    let mut group = group(&cluster.namespace, name, time);
    let fake = cluster.fake();
    let uid = |claim: &str| {
        let claim = fake.get("persistentvolumeclaims", &cluster.namespace, claim);
        claim.map_or(String::new(), |claim| claim["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    };
    let uids = format!("data={},logs={}", uid("data"), uid("logs"));
    group["metadata"]["annotations"]["volume-snapshotter/claim-uids"] = json!(uids);
    let group = fake.put(group);
    let member = |claim: &&str| {
        let member = fake.put(objects::member(&group, claim));
        member["metadata"]["name"].as_str().unwrap_or_default().to_owned()
    };
    claims.iter().map(member).collect()
}

/// Claims `data` and `logs` of the group `shop`, two of whose snapshots are there, and a claim that is in no group.
async fn with_groups(scenario: impl AsyncFn(&TestCluster)) {
    embedded_only(served(), "it needs group snapshots of the past", async |cluster| {
        cluster.labelled_claim("data", json!({LABEL: "shop"})).await;
        cluster.labelled_claim("logs", json!({LABEL: "shop"})).await;
        cluster.claim("other").await;
        cluster.older("alone", "other").await;
        put_group(cluster, "older", "2026-11-20T10:00:00Z", &["data", "logs"]);
        put_group(cluster, "newer", "2026-11-20T11:00:00Z", &["data", "logs"]);
        let settings = [("SNAPSHOT_PVC_SELECTOR", "!none"), ("SNAPSHOT_GROUP_LABEL", LABEL)];
        schedule(cluster, "volume-snapshotter", &settings).await;
        scenario(cluster).await;
    })
    .await;
}

fn rights() -> Value {
    rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS, RESTORE_GROUP_PERMISSIONS].concat())
}

async fn items(cluster: &TestCluster, arguments: &[&str]) -> Vec<Value> {
    let said = cluster.say(&rights(), &[&["list", "-o", "json"], arguments].concat()).await;
    said.assert_exit(0);
    let list: Value = serde_json::from_str(&said.out).expect("JSON");
    list["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn a_group_is_one_entry_with_its_members_under_it() {
    with_groups(async |cluster| {
        let said = cluster.say(&rights(), &["list"]).await;
        said.assert_exit(0);
        said.assert_says(
            "schedule volume-snapshotter keeps last=1 and groups by the label volume-snapshotter/group (",
        );
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        let rows = lines(&said.out);
        let of = |row: usize| (rows[row][0], rows[row][1], rows[row][rows[row].len() - 1]);
        assert_eq!(of(1), ("other", "alone", "kept: 1st of last=1"), "{}", said.out);
        assert_eq!(of(2), ("group shop", "newer", "kept: 1st of last=1"));
        assert_eq!(of(3), ("data", "member", "as the group"));
        assert_eq!(of(4), ("logs", "member", "as the group"));
        assert_eq!(of(5), ("group shop", "older", "will go: no rule keeps it"));
        assert_eq!(of(6), ("data", "member", "as the group"));
        assert_eq!(rows.len(), 8);
        // The names of members are long.
        assert!(said.out.lines().all(|line| line.chars().count() < 100), "{}", said.out);
        let wide = cluster.say(&rights(), &["list", "-o", "wide"]).await;
        assert_eq!(wide.out.matches(" snapshot-").count(), 4, "{}", wide.out);

        let all = items(cluster, &[]).await;
        assert_eq!(all.len(), 3);
        let newer = &all[1];
        assert_eq!((&newer["group"], &newer["claim"]), (&json!("shop"), &Value::Null));
        assert_eq!(newer["retention"], json!({"verdict": "kept", "reason": "1st of last=1"}));
        let members: Vec<&Value> = newer["members"].as_array().expect("members").iter().collect();
        assert_eq!(members.iter().map(|one| &one["claim"]).collect::<Vec<_>>(), ["data", "logs"]);
        assert!(members.iter().all(|one| one["group"].is_null() && one.get("members").is_none()));
        assert!(all[0].get("members").is_none() && all[0]["group"].is_null());

        // A claim finds its groups, whole.
        let of_logs = items(cluster, &["logs"]).await;
        assert_eq!(of_logs.len(), 2);
        assert_eq!(of_logs[0]["members"].as_array().map(Vec::len), Some(2));
        assert_eq!(items(cluster, &["other"]).await.len(), 1);

        let names = cluster.say(&rights(), &["list", "-o", "name", "data"]).await;
        let line = |name: &str| format!("volumegroupsnapshot.groupsnapshot.storage.k8s.io/{name}\n");
        assert_eq!(names.out, line("newer") + &line("older"));
        let drawn = cluster.say(&rights(), &["list", "--timeline"]).await;
        assert!(drawn.out.contains("group shop: 2 snapshots; newest ready "), "{}", drawn.out);
        assert!(!drawn.out.contains("data"), "{}", drawn.out);
    })
    .await;
}

#[tokio::test]
async fn what_a_group_lacks_is_said_and_it_is_judged_as_one() {
    with_groups(async |cluster| {
        put_group(cluster, "half", "2026-11-20T12:00:00Z", &["data"]);
        let gone = put_group(cluster, "robbed", "2026-11-20T09:00:00Z", &["data", "logs"]).remove(1);
        cluster.fake().delete("volumesnapshots", &cluster.namespace, &gone);
        let all = items(cluster, &["data"]).await;
        let said: Vec<String> = all
            .iter()
            .map(|one| {
                format!("{} {} {}", one["snapshot"], one["state"], one["retention"]["reason"])
                    .replace('"', "")
            })
            .collect();
        let expected = [
            "half error a member of it was deleted",
            "newer ok 1st of last=1",
            "older ok no rule keeps it",
            "robbed error a member of it was deleted",
        ];
        assert_eq!(said, expected);
        assert!(all[0]["error"].to_string().contains("it has no member of claim logs"), "{}", all[0]);
        assert!(
            all[3]["error"].to_string().contains(&format!("somebody deleted its member {gone}")),
            "{}",
            all[3]
        );
        assert_eq!(all[3]["members"][1]["state"], "terminating");
        let table = cluster.say(&rights(), &["list", "data"]).await;
        assert!(table.out.contains("  error: it has no member of claim logs"), "{}", table.out);

        // A claim is being restored from a member of the older one.
        let member =
            items(cluster, &["data"]).await[2]["members"][0]["snapshot"].as_str().expect("a name").to_owned();
        let mut waiting = objects::claim_from_snapshot(&cluster.namespace, "new", &member);
        waiting["spec"]["storageClassName"] = json!("waits");
        cluster.fake().put(objects::waiting_storage_class("waits"));
        cluster.fake().put(waiting);
        let all = items(cluster, &["data"]).await;
        assert_eq!(all[2]["retention"]["reason"], "a claim is being restored from it");
        cluster.fake().delete("persistentvolumeclaims", &cluster.namespace, "new");

        // Rules that differ are none.
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "last=5"})).await;
        let said = cluster.say(&rights(), &["list", "data"]).await;
        said.assert_says(
            "nothing of group shop is deleted: the annotation volume-snapshotter/retention of claims data and logs",
        );
        assert!(!said.out.contains("will go"), "{}", said.out);
        cluster.annotate_claim("logs", json!({"volume-snapshotter/retention": "last=5"})).await;
        let all = items(cluster, &["data"]).await;
        assert_eq!(all[2]["retention"]["reason"], "2nd of last=5");

        // Of claims that were made anew, it is of previous ones.
        cluster.fake().replace_claim(&cluster.namespace, "logs");
        let all = items(cluster, &["data"]).await;
        assert_eq!(all[1]["retention"]["reason"], "of a previous claim of this name");
    })
    .await;
}

/// As before there were groups.
#[tokio::test]
async fn groups_are_asked_for_only_where_there_can_be_some() {
    embedded_only(served(), "it counts requests", async |cluster| {
        cluster.claim("data").await;
        cluster.older("alone", "data").await;
        default_schedule(cluster).await;
        let asked = || {
            let requests = cluster.fake().requests();
            requests.iter().filter(|request| request.resource == "volumegroupsnapshots").count()
        };
        let said = cluster.say(&list_rights(), &["list"]).await;
        said.assert_exit(0);
        assert_eq!((asked(), said.err.lines().count()), (0, 1), "{}", said.err);
        // Now there is a member, and no right.
        let member = put_group(cluster, "one", "2026-11-20T10:00:00Z", &["data"]).remove(0);
        let said = cluster.say(&list_rights(), &["list", "--all"]).await;
        said.assert_exit(0)
            .assert_says("groups cannot be read, so 1 member of one is shown alone: cannot list");
        said.assert_says("resources: [\"volumegroupsnapshots\"], verbs: [\"list\"]");
        assert!(said.out.contains(&member), "{}", said.out);
        assert_eq!(asked(), 1);
        let few: [Permission; 1] = [RESTORE_GROUP_PERMISSIONS[1]];
        let rights = rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS, &few].concat());
        let said = cluster.say(&rights, &["list", "--all"]).await;
        assert!(said.out.contains("group shop") && said.err.lines().count() == 1, "{}{}", said.out, said.err);
    })
    .await;
}

/// What `adopt` offers are snapshots, as before.
#[tokio::test]
async fn adopt_leaves_members_alone() {
    with_groups(async |cluster| {
        let rights = rules(&[volume_snapshotter::cluster::ADOPT_PERMISSIONS, SCHEDULE_PERMISSIONS].concat());
        let said = cluster.say(&rights, &["adopt", "data", "--yes"]).await;
        said.assert_says("is a member of a VolumeGroupSnapshot").assert_says("there is nothing to adopt");
        assert!(cluster.snapshots().await.iter().all(|one| {
            one["metadata"]["ownerReferences"].is_null() || one["metadata"]["labels"].is_null()
        }));
    })
    .await;
}

#[test]
fn groups_look_as_is_kept_in_tests_golden() {
    let now: Timestamp = "2026-11-20T12:00:00Z".parse().expect("a time");
    let claims: Vec<_> = ["data", "logs"]
        .map(|name| {
            let mut claim = objects::bound_claim("shop", name, SHOP);
            claim["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            claim["metadata"]["uid"] = json!(format!("uid-{name}"));
            serde_json::from_value(claim).expect("a claim")
        })
        .into();
    let (mut groups, mut records) = (Vec::new(), Vec::new());
    for (name, time, members, ready) in [
        ("volume-snapshot-5b90e6a1", "2026-11-20T11:00:05Z", &["data"][..], true),
        ("volume-snapshot-0d41c7f2", "2026-11-20T10:00:04Z", &["data", "logs"], true),
        ("volume-snapshot-77aa10bc", "2026-11-20T09:00:04Z", &["data", "logs"], false),
        ("volume-snapshot-19c0ffee", "2026-11-19T23:00:04Z", &["data", "logs"], true),
        ("volume-snapshot-de1e7ed0", "2026-11-19T22:00:04Z", &["data", "logs"], true),
    ] {
        let mut group = group("shop", name, time);
        group["metadata"]["uid"] = json!(name);
        for (index, claim) in members.iter().enumerate() {
            let mut member = objects::member(&group, claim);
            member["metadata"]["name"] = json!(format!("snapshot-{}{index}", "27d2fb51".repeat(8)));
            member["metadata"]["uid"] = json!(format!("{name}-{claim}"));
            if !ready && *claim == "logs" {
                member["status"] = json!({"readyToUse": false, "error": {"message": "storage is down"}});
            }
            let member = serde_json::from_value::<VolumeSnapshot>(member).expect("a snapshot");
            records.push(Record::from(member));
        }
        groups.push(Group::from(serde_json::from_value::<VolumeGroupSnapshot>(group).expect("a group")));
    }
    let settings = Settings::parse_for_list(Vec::new(), Vec::new()).expect("settings");
    let given = [("SNAPSHOT_PVC_SELECTOR", "backup=enabled"), ("SNAPSHOT_GROUP_LABEL", LABEL)];
    let given = given.map(|(name, value)| (name.into(), value.into()));
    let given = Settings::parse(given.into_iter().chain([("SNAPSHOT_RETENTION".into(), "last=2".into())]));
    let schedule = Schedule {
        location: Location::One("shop".into()),
        doubt: None,
        settings: Ok(Box::new(given.expect("settings"))),
        ..Schedule::without_cron_job(&settings, Origin::Assumed)
    };
    let question = Question {
        claims: Some(&claims),
        selected: None,
        settings: &settings,
        schedules: &[schedule],
        groups: &groups,
        only: None,
        all: false,
        now,
    };
    let rows = list::rows(records, &question).rows;
    let at = |width| Look { width: Some(width), ..Look::default() };
    for (name, text) in [
        ("list-groups-80.txt", list::table(&rows, at(80), now)),
        ("list-groups-wide.txt", list::table(&rows, Look { wide: true, ..at(80) }, now)),
        ("list-groups.json", list::json(&rows)),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).expect("the file can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, kept, "{name}: renew it with UPDATE_GOLDEN=1 cargo test --test it list");
    }
}
