//! Random interference: others delete, make anew, hold, annotate, relabel and restore at random moments of
//! runs of the real binary, and every deletion of a snapshot is judged by a model of the rules.
//!
//! The model is written from the rules as the documentation has them, and shares no line with
//! `src/retention`. It knows `last=N` and `all`. It goes through all that the API server stored, and asks for
//! each snapshot that the binary deleted: did the state at that moment condemn it?
//!
//! # What may be missed, and what not
//!
//! A deletion has preconditions on the snapshot's own uid and resourceVersion, and on nothing else: the API
//! server offers no others. So:
//! - of the snapshot itself, its labels, owners, status and age, the state at the very moment counts;
//! - of the claims, which are listed, changes may be missed that came after the list that the run looked at
//!   was carried out: with one claim the last list before the deletion, which must not be older than
//!   [`FRESH`]; with several claims any list of that age, for each may have been looked at for another one;
//! - of the other snapshots, which are watched, all that happened before the new one became ready counts, and
//!   all later changes but for those of the last [`HEARD_OF`]. Where a watch was made mute it is what an
//!   unnoticed silence may cost, [`HEARD_OF_MUTE`];
//! - that there is a newer ready snapshot of the same claim, and that it really has that claim's data,
//!   whatever its labels say, may be [`KEEPER_KNOWN`] old.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fake_apiserver::{Fault, Options, Others, Pace, Request, Stage, When, Write, objects};
use futures::{StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::test_cluster::{TestCluster, all_permissions, embedded, name_of};

const CLAIMS: &str = "persistentvolumeclaims";
const SNAPSHOTS: &str = "volumesnapshots";

/// What a busy machine may add to any of the times below.
const SLACK: Duration = Duration::from_millis(1500);

/// How old the list of the claims may be.
const FRESH: Duration = Duration::from_secs(10);

/// How long it may take until an event of a watch that works has arrived.
const HEARD_OF: Duration = SLACK;

/// How old what is known of other snapshots may be if a watch is mute: until the silence is noticed, and
/// while a look at what was known by then is fresh.
const HEARD_OF_MUTE: Duration = Duration::from_secs(2 + 10);

/// How long ago the new snapshot may have been seen.
const KEEPER_KNOWN: Duration = Duration::from_secs(1);

/// The annotation with a claim's own rules.
const RETENTION: &str = "volume-snapshotter/retention";

// --- The model -------------------------------------------------------------------------------------

/// Everything that is stored at one moment.
#[derive(Clone, Default)]
struct World {
    /// By uid.
    snapshots: HashMap<String, Value>,
    /// By name.
    claims: HashMap<String, Value>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

fn created(object: &Value) -> Timestamp {
    time(object, "/metadata/creationTimestamp").expect("all objects have one")
}

fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

fn is_ready(snapshot: &Value) -> bool {
    snapshot["status"]["readyToUse"] == true
}

fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

fn claim_name(snapshot: &Value) -> &str {
    text(snapshot, "/spec/source/persistentVolumeClaimName")
}

/// Whether a snapshot is the schedule's to prune at all, whatever the claim wants.
fn is_touchable(snapshot: &Value) -> bool {
    let held = snapshot.pointer("/metadata/labels/volume-snapshotter~1hold");
    text(snapshot, "/metadata/labels/job") == "volume-snapshotter"
        && held.is_none_or(|value| value == "false")
        && !is_deleting(snapshot)
        && snapshot["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)
        && text(snapshot, "/status/volumeGroupSnapshotName").is_empty()
        && snapshot["status"]["restoreSize"] != json!(-5)
}

impl World {
    fn apply(&mut self, write: &Write) {
        let (key, all) = match write.resource {
            SNAPSHOTS => (uid(&write.object), &mut self.snapshots),
            _ => (name_of(&write.object), &mut self.claims),
        };
        match write.gone {
            true => drop(all.remove(key)),
            false => drop(all.insert(key.to_owned(), write.object.clone())),
        }
    }

    /// Whether a snapshot is of this very claim, by what is written on it.
    fn is_of(snapshot: &Value, claim: &Value) -> bool {
        claim_name(snapshot) == name_of(claim)
            && match text(snapshot, "/metadata/annotations/volume-snapshotter~1claim-uid") {
                "" => created(snapshot) >= created(claim),
                asked_of => asked_of == uid(claim),
            }
    }

    fn is_being_restored(&self, snapshot: &Value) -> bool {
        self.claims.values().any(|claim| {
            claim["status"]["phase"] != "Bound"
                && ["/spec/dataSource/name", "/spec/dataSourceRef/name"]
                    .iter()
                    .any(|field| text(claim, field) == name_of(snapshot))
        })
    }

    /// How many the claim wants kept; `None`: all of them.
    fn keeps(claim: &Value, by_default: usize) -> Option<usize> {
        match claim["metadata"]["annotations"][RETENTION].as_str() {
            None => Some(by_default),
            Some(rules) => rules.strip_prefix("last=")?.parse().ok(),
        }
    }
}

/// What a deletion was judged by.
struct Deletion<'a> {
    /// The snapshot as it was just before.
    snapshot: &'a Value,
    /// By default so many are kept.
    keeps: usize,
    /// By the snapshots' uids: the uid of the claim whose data it really has.
    data: &'a HashMap<String, String>,
    /// The place of each snapshot's creation in the order of all writes.
    order: &'a HashMap<String, u64>,
    at: Timestamp,
}

impl Deletion<'_> {
    /// Why the state at one moment keeps the snapshot; `None` if it condemns it. The claims, the other
    /// snapshots and what speaks for the newer one may be those of three moments.
    fn objection(&self, claims: &World, neighbours: &World, keepers: &World) -> Option<String> {
        let snapshot = self.snapshot;
        if !is_touchable(snapshot) {
            return Some("it is not the schedule's to touch".to_owned());
        }
        if claims.is_being_restored(snapshot) {
            return Some("a claim is being restored from it".to_owned());
        }
        let Some(claim) = claims.claims.get(claim_name(snapshot)) else {
            return Some("its claim is gone".to_owned());
        };
        if is_deleting(claim) {
            return Some("its claim is being deleted".to_owned());
        }
        if !World::is_of(snapshot, claim) {
            return Some("it is of a previous claim".to_owned());
        }
        let Some(keeps) = World::keeps(claim, self.keeps) else {
            return Some("the claim wants all kept".to_owned());
        };
        let counts = |other: &&Value| {
            uid(other) != uid(snapshot)
                && is_ready(other)
                && is_touchable(other)
                && World::is_of(other, claim)
                // What this run made counts, though somebody is quick to restore from it.
                && (!claims.is_being_restored(other) || self.is_newer(other))
        };
        let counting: Vec<&Value> = neighbours.snapshots.values().filter(counts).collect();
        let keeper = counting.iter().find(|other| {
            let known = keepers.snapshots.get(uid(other));
            self.is_newer(other)
                && self.data.get(uid(other)).map(String::as_str) == Some(uid(claim))
                && known.is_some_and(|known| is_ready(known) && !is_deleting(known))
        });
        if keeper.is_none() {
            return Some("no newer ready snapshot has the data of this claim".to_owned());
        }
        if is_ready(snapshot) {
            // Of those made in one second nobody can tell which is newer.
            let newer = counting.iter().filter(|other| created(other) >= created(snapshot)).count();
            return (newer < keeps).then(|| format!("{newer} newer ones count, and {keeps} are to be kept"));
        }
        // A run waits for two seconds here, and a Job lives for at least an hour with its attempts.
        let age = self.at.duration_since(created(snapshot));
        let of_job = !text(snapshot, "/metadata/labels/volume-snapshotter~1run-uid").is_empty();
        let awaited = SignedDuration::from_secs(if of_job { 3600 } else { 2 });
        (age < awaited).then(|| format!("it is {age} old, and may still be waited for"))
    }

    fn is_newer(&self, other: &Value) -> bool {
        self.order.get(uid(other)) > self.order.get(uid(self.snapshot))
    }
}

/// The run's requests, each with the moment at which it was carried out, after all that others did to it.
type Carried = Arc<Mutex<Vec<(Request, Instant)>>>;

/// What is known of a scene once it is over.
struct Scene<'a> {
    journal: &'a [Write],
    requests: &'a [Request],
    carried: &'a [(Request, Instant)],
    keeps: usize,
    claims: usize,
    mute: bool,
}

impl Scene<'_> {
    /// Judges all deletions of the binary: how many there were.
    ///
    /// # Errors
    /// The first one that the state did not condemn, in words.
    fn judge(&self) -> Result<usize, String> {
        let data: HashMap<String, String> = self
            .journal
            .iter()
            .filter_map(|write| Some((uid(&write.object).to_owned(), write.data.clone()?.claim)))
            .collect();
        let mut order = HashMap::new();
        let mut worlds = vec![World::default()];
        let mut deletions = 0;
        for (index, write) in self.journal.iter().enumerate() {
            let before = worlds.last().expect("the first one").clone();
            if write.resource == SNAPSHOTS {
                order.entry(uid(&write.object).to_owned()).or_insert(write.version);
                let was = before.snapshots.get(uid(&write.object));
                let is_deletion = was.is_some_and(|was| !is_deleting(was))
                    && (write.gone || is_deleting(&write.object))
                    && write.user.contains("serviceaccount");
                if let Some(snapshot) = was.filter(|_| is_deletion) {
                    deletions += 1;
                    let deletion = Deletion {
                        snapshot,
                        keeps: self.keeps,
                        data: &data,
                        order: &order,
                        at: Timestamp::now(),
                    };
                    self.judge_one(&deletion, index, &worlds)?;
                }
            }
            let mut after = before;
            after.apply(write);
            worlds.push(after);
        }
        Ok(deletions)
    }

    /// `worlds[n]` is what there was before the write `n`.
    fn judge_one(&self, deletion: &Deletion<'_>, index: usize, worlds: &[World]) -> Result<(), String> {
        let name = name_of(deletion.snapshot);
        let complain = |why: &str| Err(format!("{name} was deleted, but {why}"));
        let write = &self.journal[index];
        let mut tries = self.requests.iter().filter(|request| {
            request.is("delete", SNAPSHOTS) && request.name == name && request.at <= write.at
        });
        let Some(asked) = tries.next_back().map(|request| request.at) else {
            return complain("nobody asked for it");
        };
        let since = |moment: Instant| {
            let first = self.journal.partition_point(|write| write.at <= moment).min(index);
            &worlds[first..=index]
        };

        // The claims, as they were listed.
        let oldest = asked.checked_sub(FRESH + SLACK).unwrap_or(asked);
        let mut looks = self
            .carried
            .iter()
            .filter(|(request, at)| request.is("list", CLAIMS) && *at < asked && *at >= oldest)
            .map(|(_, at)| *at);
        let look = if self.claims == 1 { looks.next_back() } else { looks.next() };
        let Some(look) = look else { return complain("no fresh list of the claims was carried out before") };

        // The other snapshots, as the watch has told.
        let ready = self.journal[..index].iter().rev().find(|write| {
            write.resource == SNAPSHOTS
                && is_ready(&write.object)
                && name_of(&write.object).starts_with("volume-snapshot-")
                && claim_name(&write.object) == claim_name(deletion.snapshot)
        });
        let Some(ready) = ready else { return complain("the run had no snapshot of its own ready") };
        let heard_of = if self.mute { HEARD_OF_MUTE + SLACK } else { HEARD_OF };
        let heard = asked.checked_sub(heard_of).unwrap_or(asked);
        let neighbours = since(if self.mute { heard } else { heard.max(self.first_ready(ready)) });
        let keepers = since(asked.checked_sub(KEEPER_KNOWN + SLACK).unwrap_or(asked));

        let mut objection = String::new();
        for claims in since(look) {
            for neighbours in neighbours {
                for keepers in keepers {
                    match deletion.objection(claims, neighbours, keepers) {
                        None => return Ok(()),
                        Some(why) => objection = why,
                    }
                }
            }
        }
        complain(&objection)
    }

    /// When a snapshot became ready: the moment before which nothing may be missed.
    fn first_ready(&self, ready: &Write) -> Instant {
        let same = |write: &&Write| {
            write.resource == SNAPSHOTS && uid(&write.object) == uid(&ready.object) && is_ready(&write.object)
        };
        self.journal.iter().find(same).map_or(ready.at, |write| write.at)
    }
}

// --- What others do --------------------------------------------------------------------------------

/// Something that somebody does. Numbers choose among what there is at the moment.
#[derive(Clone, Copy, Debug)]
enum Act {
    ReplaceClaim(usize),
    RemoveClaim(usize),
    Annotate(usize, Option<&'static str>),
    Hold(usize, Option<&'static str>),
    Relabel(usize),
    Own(usize),
    Spoil(usize),
    Unready(usize),
    Delete(usize),
    DeleteNew,
    Remove(usize),
    Restore(usize),
    EndRestores,
    Snapshot(usize),
}

/// When somebody does it.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Before(&'static str, &'static str, usize),
    After(&'static str, &'static str, usize),
    Later(Duration),
}

fn random_act(random: &mut StdRng) -> Act {
    let which = random.random_range(0..100usize);
    let rules = [Some("all"), Some("last=1"), Some("last=2"), Some("last=3"), Some("lats=1"), None];
    match random.random_range(0..17) {
        0 | 1 => Act::ReplaceClaim(which),
        2 => Act::RemoveClaim(which),
        3 | 4 => Act::Annotate(which, rules[random.random_range(0..rules.len())]),
        5 => Act::Hold(which, Some("true")),
        6 => Act::Hold(which, None),
        7 => Act::Relabel(which),
        8 => Act::Own(which),
        9 => Act::Spoil(which),
        10 => Act::Unready(which),
        11 => Act::Delete(which),
        12 => Act::DeleteNew,
        13 => Act::Remove(which),
        14 => Act::Restore(which),
        15 => Act::EndRestores,
        _ => Act::Snapshot(which),
    }
}

fn random_moment(random: &mut StdRng) -> Moment {
    const ASKED: [(&str, &str); 7] = [
        ("get", CLAIMS),
        ("list", SNAPSHOTS),
        ("watch", SNAPSHOTS),
        ("create", SNAPSHOTS),
        ("list", CLAIMS),
        ("delete", SNAPSHOTS),
        ("delete", SNAPSHOTS),
    ];
    let (verb, resource) = ASKED[random.random_range(0..ASKED.len())];
    let number = random.random_range(1..3);
    match random.random_range(0..5) {
        0 | 1 => Moment::Before(verb, resource, number),
        2 | 3 => Moment::After(verb, resource, number),
        _ => Moment::Later(Duration::from_millis(random.random_range(0..2500))),
    }
}

/// Does it, if there is anything to do it to. One at a time, so that nobody takes another's object away.
fn act(turn: &Mutex<()>, others: &Others, namespace: &str, act: Act) {
    let _turn = turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let chosen = |resource: &str, which: usize| {
        let all = others.list(resource, namespace);
        let all: Vec<&Value> = all.iter().filter(|one| !name_of(one).starts_with("restore-")).collect();
        (!all.is_empty()).then(|| name_of(all[which % all.len()]).to_owned())
    };
    let change = |resource: &str, name: Option<String>, change: &dyn Fn(&mut Value)| {
        if let Some(name) = name {
            others.update(resource, namespace, &name, |object| change(object));
        }
    };
    let labelled = |which: usize, label: &str, value: Option<&str>| {
        change(SNAPSHOTS, chosen(SNAPSHOTS, which), &|snapshot| {
            let labels = snapshot["metadata"]["labels"].as_object_mut();
            match (labels, value) {
                (Some(labels), Some(value)) => drop(labels.insert(label.to_owned(), json!(value))),
                (Some(labels), None) => drop(labels.remove(label)),
                (None, _) => {}
            }
        });
    };
    match act {
        Act::ReplaceClaim(which) => {
            if let Some(name) = chosen(CLAIMS, which) {
                others.replace_claim(namespace, &name);
            }
        }
        Act::RemoveClaim(which) => {
            if let Some(name) = chosen(CLAIMS, which) {
                others.remove(CLAIMS, namespace, &name);
            }
        }
        Act::Annotate(which, rules) => change(CLAIMS, chosen(CLAIMS, which), &|claim| match rules {
            Some(rules) => claim["metadata"]["annotations"][RETENTION] = json!(rules),
            None => {
                if let Some(all) = claim["metadata"]["annotations"].as_object_mut() {
                    all.remove(RETENTION);
                }
            }
        }),
        Act::Hold(which, value) => labelled(which, "volume-snapshotter/hold", value),
        Act::Relabel(which) => labelled(which, "job", Some("weekly")),
        Act::Own(which) => change(SNAPSHOTS, chosen(SNAPSHOTS, which), &|snapshot| {
            snapshot["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "example.com/v1", "kind": "Backup", "name": "b", "uid": "b"}]);
        }),
        Act::Spoil(which) => change(SNAPSHOTS, chosen(SNAPSHOTS, which), &|snapshot| {
            snapshot["status"]["restoreSize"] = json!(-5);
        }),
        Act::Unready(which) => change(SNAPSHOTS, chosen(SNAPSHOTS, which), &|snapshot| {
            snapshot["status"]["readyToUse"] = json!(false);
        }),
        Act::Delete(which) => {
            if let Some(name) = chosen(SNAPSHOTS, which) {
                others.delete(SNAPSHOTS, namespace, &name);
            }
        }
        Act::DeleteNew => {
            let all = others.list(SNAPSHOTS, namespace);
            let new = all.iter().filter(|one| name_of(one).starts_with("volume-snapshot-"));
            if let Some(new) = new.max_by_key(|one| created(one)) {
                others.delete(SNAPSHOTS, namespace, name_of(new));
            }
        }
        Act::Remove(which) => {
            if let Some(name) = chosen(SNAPSHOTS, which) {
                others.remove(SNAPSHOTS, namespace, &name);
            }
        }
        Act::Restore(which) => {
            if let Some(name) = chosen(SNAPSHOTS, which) {
                let mut claim = objects::claim_from_snapshot(namespace, &format!("restore-{which}"), &name);
                claim["spec"]["storageClassName"] = json!("no-such-class");
                if others.get(CLAIMS, namespace, name_of(&claim)).is_none() {
                    others.put(claim);
                }
            }
        }
        Act::EndRestores => {
            for claim in others.list(CLAIMS, namespace) {
                if name_of(&claim).starts_with("restore-") {
                    others.remove(CLAIMS, namespace, name_of(&claim));
                }
            }
        }
        Act::Snapshot(which) => {
            if let Some(claim) = chosen(CLAIMS, which) {
                let now = Timestamp::now().round(Unit::Second).expect("a time");
                let name = format!("theirs-{which}");
                if others.get(SNAPSHOTS, namespace, &name).is_none() {
                    others.put(objects::ready_snapshot(namespace, &name, &claim, now));
                }
            }
        }
    }
}

// --- A scene ---------------------------------------------------------------------------------------

/// What came of a scene.
#[derive(Default)]
struct Played {
    deletions: usize,
    acts: usize,
    runs: usize,
}

fn ours(request: &Request) -> bool {
    request.user.contains("serviceaccount")
}

/// Plays the scene of one seed, and panics with the seed if a deletion was wrong. All is drawn before
/// anything happens, so that a seed means the same scene; only the timing is the machine's.
async fn play(seed: u64) -> Played {
    let mut random = StdRng::seed_from_u64(seed);
    let claims = random.random_range(1..3usize);
    let keeps = random.random_range(1..4usize);
    let mute = random.random_bool(0.2);
    let slow_deletions = random.random_bool(0.4).then(|| random.random_range(100..2500u64));
    let busy = random.random_bool(0.3);
    let paced = random.random_bool(0.3).then(|| random.random_range(2..10u32));
    let ready_after = Duration::from_millis(random.random_range(0..300));
    let concurrency = random.random_range(1..4usize).to_string();
    let older: Vec<(usize, i64, u32)> = (0..random.random_range(2..9))
        .map(|_| {
            (random.random_range(0..claims), random.random_range(1..2000), random.random_range(0..100u32))
        })
        .collect();
    let acts: Vec<(Moment, Act)> = (0..random.random_range(1..6))
        .map(|_| (random_moment(&mut random), random_act(&mut random)))
        .collect();

    let played = Mutex::new(Played::default());
    let mut options = Options::default();
    options.controller.ready_after = ready_after;
    embedded(options, async |cluster| {
        let fake = cluster.fake();
        let names: Vec<String> = (0..claims).map(|claim| format!("data-{claim}")).collect();
        for name in &names {
            let mut claim = objects::bound_claim(&cluster.namespace, name, &[]);
            claim["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
            fake.put(claim);
        }
        put_older(cluster, &names, &older);
        let token = cluster.token(&all_permissions()).await;
        let kubeconfig = cluster.file("kubeconfig", &cluster.kubeconfig_for(token));
        if let Some(pace) = paced {
            fake.controller_pace(Pace::PerSecond(pace));
        }
        if let Some(delay) = slow_deletions {
            let delay = Fault::Delay(Duration::from_millis(delay));
            fake.fault(move |request| {
                (ours(request) && request.is("delete", SNAPSHOTS)).then(|| delay.clone())
            });
        }
        if busy {
            let busy = Fault::TooManyRequests { retry_after: Some(1), status: true };
            fake.fault_times(|request| ours(request) && request.is("delete", SNAPSHOTS), 2, busy);
        }
        let turn = Arc::new(Mutex::new(()));
        let mut later = Vec::new();
        for (moment, what) in acts.iter().copied() {
            let (turn, namespace) = (Arc::clone(&turn), cluster.namespace.clone());
            match moment {
                Moment::Before(verb, resource, number) => fake.before(
                    move |request| ours(request) && request.is(verb, resource),
                    number,
                    move |others| act(&turn, others, &namespace, what),
                ),
                Moment::After(verb, resource, number) => fake.after(
                    move |request| ours(request) && request.is(verb, resource),
                    number,
                    move |others| act(&turn, others, &namespace, what),
                ),
                Moment::Later(after) => {
                    let others = fake.others();
                    later.push(tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        act(&turn, &others, &namespace, what);
                    }));
                }
            }
        }
        // Last of all, so that what others do just before a request has happened by then.
        let carried = Carried::default();
        let log = Arc::clone(&carried);
        fake.at_each(When::Before, ours, move |_, request| {
            log.lock().expect("no panic").push((request.clone(), Instant::now()));
        });

        let (interval, attempts) = if mute { ("1s", "2") } else { ("5s", "1") };
        for number in 1..=2 {
            let (id, last) = (format!("run-{number}"), format!("last={keeps}"));
            let chosen = names.join(",");
            let settings = [
                ("SNAPSHOT_PVC_NAMES", chosen.as_str()),
                ("SNAPSHOT_RUN_ID", &id),
                ("SNAPSHOT_RETENTION", &last),
                ("SNAPSHOT_READY_ATTEMPTS", attempts),
                ("SNAPSHOT_READY_INTERVAL", interval),
                ("SNAPSHOT_CONCURRENCY", &concurrency),
            ];
            let running = cluster.start_as(&kubeconfig, &settings);
            if mute && number == 1 {
                let asked =
                    || fake.requests().iter().any(|request| ours(request) && request.is("create", SNAPSHOTS));
                // The run may fail before it comes to that.
                let deadline = Instant::now() + Duration::from_secs(3);
                while !asked() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(ready_after).await;
                fake.mute_watches();
            }
            let ran = running.finish().await;
            assert!((0..=3).contains(&ran.code), "SNAPSHOTTER_RANDOM_SEED={seed}: exit {}", ran.code);
        }
        for act in later {
            act.await.expect("no panic");
        }
        let (journal, requests) = (fake.journal(), fake.requests());
        let requests: Vec<Request> = requests.into_iter().filter(ours).collect();
        let carried = carried.lock().expect("no panic").clone();
        let scene = Scene { journal: &journal, requests: &requests, carried: &carried, keeps, claims, mute };
        match scene.judge() {
            Ok(deletions) => {
                *played.lock().expect("no panic") = Played { deletions, acts: acts.len(), runs: 2 };
            }
            Err(violation) => {
                panic!("SNAPSHOTTER_RANDOM_SEED={seed}: {violation}\n{acts:?}\n{}", told(&scene))
            }
        }
        assert!(
            fake.snapshot_history().iter().filter(|one| one.stage == Stage::Created).count() >= older.len(),
            "the history has it all"
        );
    })
    .await;
    played.into_inner().expect("no panic")
}

/// Snapshots of all kinds, oldest first, as they would have been made.
fn put_older(cluster: &TestCluster, names: &[String], older: &[(usize, i64, u32)]) {
    let mut older = older.to_vec();
    older.sort_by_key(|(_, minutes, _)| std::cmp::Reverse(*minutes));
    for (number, (claim, minutes, kind)) in older.into_iter().enumerate() {
        // Two may well be of one minute.
        let time = Timestamp::now() - SignedDuration::from_mins(minutes);
        let time = time.round(Unit::Minute).expect("a time");
        let (name, claim) = (format!("old-{number}"), &names[claim]);
        let mut snapshot = match kind {
            0..10 => objects::unready_snapshot(&cluster.namespace, &name, claim, time),
            _ => objects::ready_snapshot(&cluster.namespace, &name, claim, time),
        };
        let metadata = &mut snapshot["metadata"];
        match kind {
            0..5 => metadata["labels"]["volume-snapshotter/run-uid"] = json!("another"),
            10..20 => metadata["labels"]["volume-snapshotter/hold"] = json!("true"),
            20..25 => metadata["labels"]["job"] = json!("weekly"),
            25..30 => {
                metadata["ownerReferences"] =
                    json!([{"apiVersion": "v1", "kind": "VolumeGroupSnapshot", "name": "g", "uid": "g"}]);
            }
            30..60 => {
                let claim = cluster.fake().get(CLAIMS, &cluster.namespace, claim).expect("a claim");
                metadata["annotations"] = json!({"volume-snapshotter/claim-uid": uid(&claim)});
            }
            _ => {}
        }
        cluster.fake().put(snapshot);
    }
}

/// What happened, for whoever has to understand a failure.
fn told(scene: &Scene<'_>) -> String {
    let Some(begin) = scene.journal.first().map(|write| write.at) else { return String::new() };
    let mut lines: Vec<(Duration, String)> = Vec::new();
    for write in scene.journal {
        let object = &write.object;
        let mut line = format!(
            "  {} {} {} {}",
            if write.gone { "gone" } else { "is" },
            name_of(object),
            text(object, "/metadata/labels/job"),
            if is_deleting(object) { "terminating" } else { "" },
        );
        let _ = match write.resource {
            SNAPSHOTS => write!(line, "ready={} of {}", is_ready(object), claim_name(object)),
            _ => write!(line, "{} {}", uid(object), object["metadata"]["annotations"][RETENTION]),
        };
        lines.push((write.at.saturating_duration_since(begin), line));
    }
    for (request, at) in scene.carried {
        let line = format!("{} {} {}", request.verb, request.resource, request.name);
        lines.push((at.saturating_duration_since(begin), line));
    }
    lines.sort();
    lines.iter().fold(String::new(), |mut all, (at, line)| {
        let _ = writeln!(all, "{:8.3} {line}", at.as_secs_f64());
        all
    })
}

/// `SNAPSHOTTER_RANDOM_SECONDS` makes it longer, `SNAPSHOTTER_RANDOM_SEED` repeats what failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_others_do_no_snapshot_is_deleted_that_the_state_at_its_deletion_does_not_condemn() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("SNAPSHOTTER_RANDOM_SECONDS").unwrap_or(15);
    let end = Instant::now() + Duration::from_secs(seconds);
    let seed = number("SNAPSHOTTER_RANDOM_SEED");
    let seeds: Box<dyn Iterator<Item = u64>> = match seed {
        Some(seed) => Box::new(std::iter::once(seed)),
        // Short enough to be typed.
        None => {
            Box::new(std::iter::from_fn(move || (Instant::now() < end).then(|| rand::random::<u64>() >> 32)))
        }
    };
    let (mut scenes, mut all) = (0, Played::default());
    let mut played = stream::iter(seeds).map(play).buffer_unordered(12);
    while let Some(one) = played.next().await {
        scenes += 1;
        all.deletions += one.deletions;
        all.acts += one.acts;
        all.runs += one.runs;
    }
    let _ = writeln!(
        std::io::stderr(),
        "random: {scenes} scenes, {} runs, {} acts of others, {} deletions judged in {seconds} s; all were right",
        all.runs,
        all.acts,
        all.deletions
    );
    assert!(seed.is_some() || all.deletions > scenes / 4, "too few deletions to tell anything");
}
