//! The fake API server answers as a real cluster did.
//!
//! `tests/data/recordings` has requests and the answers of an API server of Kubernetes 1.36 with the CSI
//! snapshot controller. Each request is repeated over HTTP against the fake API server in the same state, and
//! the answers are compared: status code, content type and body. Values that differ between clusters are
//! numbered in the order of their appearance (uids, resourceVersions) or masked (times, continue tokens).
//! Headers about the transfer of the body are not compared. Commands in containers are run over a WebSocket; their
//! frames are compared.
//!
//! Objects that the cluster created by itself (Events of its provisioner, snapshots that are not ready yet)
//! are put in as recorded. The fake API server creates everything else itself.

use fake_apiserver::http::{self as client, Exec, Frame, Lines};
use fake_apiserver::{Command, FakeApiServer, GroupApi, Options, Pace, Plan, Script, objects};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// From a claim to a ready snapshot, and what goes wrong with a creation.
const CREATION: &[&str] = &[
    "01-pvc-get",
    "02-create",
    "03-watch-until-ready",
    "04-get-ready",
    "05-create-again",
    "06-create-dry-run",
    "07-create-two-sources",
    "08-create-empty-class",
    "09-create-bad-name",
    "10-create-bad-label",
    "11-create-unknown-field",
    "12-get-missing",
    "13-v1beta1-not-served",
    "14-group-not-served",
    "15-create-in-missing-namespace",
    "31-default-class",
    "48-version",
];

const READING: &[&str] = &[
    "16-list-page-1",
    "17-list-page-2",
    "18-list-bad-continue",
    "19-list-not-equal-selector",
    "20-list-bad-selector",
    "21-watch-too-old",
    "22-watch-timeout",
];

const DELETION: &[&str] =
    &["23-delete-wrong-uid", "24-delete-dry-run", "25-delete-with-uid", "26-delete-gone"];

/// Snapshots that do not become ready.
const ERRORS: &[&str] = &[
    "27-error-class-missing",
    "28-error-pvc-missing",
    "29-error-driver-mismatch",
    "30-error-pvc-unbound",
    "32-error-no-default-class",
    "33-error-two-default-classes",
];

/// Claims that are made from snapshots.
const RESTORING: &[&str] = &[
    "34-restore-create",
    "35-restore-bound",
    "36-restore-too-small",
    "37-restore-too-small-events",
    "38-delete-while-restoring",
    "39-get-while-restoring",
];

const PERMISSION: &[&str] = &[
    "40-forbidden",
    "41-unauthorized",
    "42-watch-forbidden",
    "43-access-review-denied",
    "44-access-review-allowed",
    "45-quota-exceeded",
    "49-namespace-terminating",
];

const EVENTS: &[&str] = &["46-event-create", "47-snapshot-events"];

/// A disk that the cluster did not make.
const STATIC: &[&str] = &["69-static-claim", "70-static-claim-snapshot"];

/// Events in the form of events.k8s.io.
const NEW_EVENTS: &[&str] =
    &["71-events-v1-create", "72-events-v1-bad", "73-events-v1-long-note", "80-events-forbidden"];

/// Commands in containers.
const EXEC: &[&str] = &[
    "78-exec-forbidden",
    "79-exec-missing-pod",
    "81-exec-ok",
    "82-exec-exit-3",
    "83-exec-not-found",
    "84-exec-no-container",
    "85-exec-container-unnamed",
    "86-exec-no-pod",
    "87-exec-protocol-unknown",
    "88-exec-client-leaves",
    "89-exec-after-client-left",
];

const EXEC_PERMISSION: &[&str] =
    &["90-exec-forbidden-ws", "91-exec-create-only", "92-exec-get-only", "93-exec-get-and-create"];

/// Group snapshots and their members.
const GROUPS: &[&str] = &[
    "50-group-create",
    "51-group-watch-until-ready",
    "52-group-get-ready",
    "53-group-members",
    "54-group-member-delete",
    "55-group-member-after-delete",
    "56-group-create-again",
    "57-group-bad-selector-both",
    "58-group-error-no-claims",
    "59-group-error-class-missing",
    "60-group-error-claim-pending",
    "61-group-default-class",
    "62-group-delete-wrong-uid",
    "63-group-delete",
    "64-group-after-delete",
    "65-group-members-after-delete",
    "66-group-v1beta1",
    "67-discovery-groups",
    "68-group-member-restored",
    "77-group-forbidden",
];

const JOBS: &[&str] = &["74-job-create", "75-job-pods", "76-job-delete"];

/// A claim that is recreated while its snapshot is in the queue.
const MADE_ANEW: &[&str] =
    &["94-queued-snapshot", "95-claim-made-anew", "96-queued-ready", "97-queued-content"];

/// Claims from snapshots that are bound to a free volume, or wait.
const WAITING: &[&str] = &[
    "98-restore-onto-free-volume",
    "99-restore-provisioned",
    "100-restore-provisioned-volume",
    "101-restore-waits-for-consumer",
    "102-restore-waits-events",
    "103-source-of-waiting-deleted",
    "104-source-of-waiting-after",
];

/// Objects that are unexpectedly allowed.
const ODD: &[&str] = &["105-status-odd", "106-names-hostile", "107-names-path"];

const POLICIES: &[&str] = &["108-delete-denied-by-policy", "109-create-relabelled"];

/// The claims after all of these.
const CLAIMS: &[&str] = &["110-claims-list"];

/// Recordings that the fake API server cannot reproduce, with the reason.
const NOT_REPLAYED: &[(&str, &str)] = &[];

const SNAPSHOTS: &str = "volumesnapshots";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings")
}

/// One request and its answer.
struct Recording {
    name: String,
    value: Value,
}

impl Recording {
    fn load(name: &str) -> Recording {
        let path = directory().join(format!("{name}.json"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Recording { name: name.to_owned(), value }
    }

    fn request(&self, field: &str) -> &Value {
        &self.value["request"][field]
    }

    fn answer(&self, field: &str) -> &Value {
        &self.value["answer"][field]
    }

    /// The object in the answer.
    fn object(&self) -> Value {
        self.answer("body").clone()
    }

    /// The objects of the list in the answer, with their types.
    fn items(&self) -> Vec<Value> {
        let list = self.answer("body");
        let kind = list["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
        let items = list["items"].as_array().into_iter().flatten().cloned();
        items
            .map(|mut item| {
                item["apiVersion"] = list["apiVersion"].clone();
                item["kind"] = kind.as_str().into();
                item
            })
            .collect()
    }

    /// What a client sent to get the object in the answer, as far as the answer shows it.
    fn as_created(&self) -> Value {
        let object = self.answer("body");
        let mut metadata = json!({"name": object["metadata"]["name"]});
        if let Some(labels) = object["metadata"].get("labels") {
            metadata["labels"] = labels.clone();
        }
        json!({
            "apiVersion": object["apiVersion"],
            "kind": object["kind"],
            "metadata": metadata,
            "spec": object["spec"],
        })
    }
}

/// Makes the requests of recordings again.
struct Replay<'a> {
    fake: &'a FakeApiServer,
    service_account: String,
    replayed: RefCell<BTreeSet<String>>,
}

impl<'a> Replay<'a> {
    fn new(fake: &'a FakeApiServer) -> Replay<'a> {
        Replay::of(fake, "app", "volume-snapshotter")
    }

    /// With another ServiceAccount.
    fn of(fake: &'a FakeApiServer, namespace: &str, name: &str) -> Replay<'a> {
        let service_account = fake.token(namespace, name);
        Replay { fake, service_account, replayed: RefCell::default() }
    }

    fn url(&self, recording: &Recording, values: &[(&str, &str)]) -> String {
        let mut path = recording.request("path").as_str().unwrap_or_default().to_owned();
        for (name, value) in values {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        format!("{}{path}", self.fake.url())
    }

    fn token(&self, recording: &Recording) -> &str {
        match recording.request("user").as_str().unwrap_or_default() {
            "admin" => self.fake.admin_token(),
            "service account" => &self.service_account,
            _ => "no.such.token",
        }
    }

    fn done(&self, recording: &Recording) {
        let new = self.replayed.borrow_mut().insert(recording.name.clone());
        assert!(new, "{} is replayed twice", recording.name);
    }

    async fn send(&self, recording: &Recording, values: &[(&str, &str)]) -> client::Response {
        let method = recording.request("method").as_str().unwrap_or_default().parse().expect("a method");
        let mut body = recording.value["request"].get("body").map(Value::to_string);
        for (name, value) in values {
            body = body.map(|body| body.replace(&format!("{{{name}}}"), value));
        }
        let body = body.map(|body| serde_json::from_str(&body).expect("JSON"));
        let url = self.url(recording, values);
        let merge = [("content-type", "application/merge-patch+json")];
        let headers = if method == http::Method::PATCH { &merge[..] } else { &[] };
        client::request(method, &url, Some(self.token(recording)), headers, body.as_ref())
            .await
            .expect("the fake API server answers")
    }

    /// Makes the request again and compares the answer, which is returned as it came.
    async fn replay(&self, name: &str) -> Value {
        self.replay_with(name, &[]).await
    }

    /// The same with placeholders in the path and the body.
    async fn replay_with(&self, name: &str, values: &[(&str, &str)]) -> Value {
        let recording = Recording::load(name);
        let response = self.send(&recording, values).await;
        compare(&recording, &response);
        self.done(&recording);
        body(&response)
    }

    /// Makes the request again until the answer is the recorded one, for what takes the cluster a moment.
    async fn replay_until_same(&self, name: &str) {
        let recording = Recording::load(name);
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let response = self.send(&recording, &[]).await;
            if is_same(&recording, &response) || Instant::now() > give_up {
                compare(&recording, &response);
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.done(&recording);
    }

    /// Begins the recorded watch again.
    async fn watch(&self, recording: &Recording, values: &[(&str, &str)]) -> Lines {
        let url = self.url(recording, values);
        let lines =
            client::lines(&url, Some(self.token(recording))).await.expect("the fake API server answers");
        assert_eq!(&Value::from(lines.status.as_u16()), recording.answer("status"), "{}", recording.name);
        assert_eq!(lines.content_type(), recording.answer("contentType"), "{}", recording.name);
        lines
    }

    /// Begins the recorded watch again and compares its events, as many as are recorded. The stream is left open.
    async fn replay_watch(&self, name: &str, values: &[(&str, &str)]) -> Lines {
        let recording = Recording::load(name);
        let mut lines = self.watch(&recording, values).await;
        let expected = recording.answer("events").as_array().expect("events are recorded");
        let mut events = Vec::new();
        while events.len() < expected.len() {
            let next = tokio::time::timeout(Duration::from_secs(10), lines.next()).await;
            match next.expect("an event comes in time").expect("the stream is whole") {
                Some(event) => events.push(event),
                None => break,
            }
        }
        assert_same(name, &Value::from(events), recording.answer("events"));
        self.done(&recording);
        lines
    }

    /// Runs the recorded command again and compares its frames, as many as are recorded; or the refusal.
    async fn replay_exec(&self, name: &str) -> Option<Exec> {
        let recording = Recording::load(name);
        let protocols = recording.request("protocols").as_array().expect("protocols are recorded");
        let protocols: Vec<&str> = protocols.iter().filter_map(Value::as_str).collect();
        let url = self.url(&recording, &[]);
        let answer = client::exec(&url, Some(self.token(&recording)), &protocols).await;
        self.done(&recording);
        let mut exec = match answer.expect("the fake API server answers") {
            Ok(exec) => exec,
            Err(response) => {
                compare(&recording, &response);
                return None;
            }
        };
        assert_eq!(
            (&json!(101), &json!(exec.protocol)),
            (recording.answer("status"), recording.answer("protocol"))
        );
        let expected = recording.answer("frames").as_array().expect("frames are recorded");
        // Where the client went away, that is recorded after the last frame.
        let expected: Vec<Value> =
            expected.iter().filter(|frame| frame.get("end").is_none()).map(with_status).collect();
        let mut frames = Vec::new();
        while frames.len() < expected.len() {
            let next = tokio::time::timeout(Duration::from_secs(10), exec.next()).await;
            match next.expect("a frame comes in time").expect("the stream is whole") {
                Some(Frame::Data { channel, data }) => frames.push(with_status(&json!({
                    // Nothing but binary messages gets here.
                    "opcode": 2,
                    "channel": channel,
                    "data": String::from_utf8_lossy(&data),
                }))),
                Some(Frame::Close { code, reason }) => frames.push(json!({"close": code, "reason": reason})),
                None => break,
            }
        }
        assert_same(name, &frames.into(), &expected.into());
        Some(exec)
    }

    /// All recordings of a group, and no others, were replayed.
    fn finish(self, group: &[&str]) {
        let expected: BTreeSet<String> = group.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(self.replayed.into_inner(), expected);
    }
}

/// A body as JSON, or as text if it is none.
fn body(response: &client::Response) -> Value {
    serde_json::from_slice(&response.body)
        .unwrap_or_else(|_| String::from_utf8_lossy(&response.body).into_owned().into())
}

fn is_same(recording: &Recording, response: &client::Response) -> bool {
    recording.answer("status") == response.status.as_u16()
        && normal(&body(response)) == normal(recording.answer("body"))
}

fn compare(recording: &Recording, response: &client::Response) {
    let name = &recording.name;
    assert_eq!(
        &Value::from(response.status.as_u16()),
        recording.answer("status"),
        "{name}: {}",
        body(response)
    );
    assert_eq!(response.content_type(), recording.answer("contentType"), "{name}");
    let warning = response.headers.get(http::header::WARNING).and_then(|value| value.to_str().ok());
    assert_eq!(&Value::from(warning), recording.answer("warning"), "{name}");
    assert_same(name, &body(response), recording.answer("body"));
}

fn assert_same(name: &str, found: &Value, recorded: &Value) {
    let pretty = |value| serde_json::to_string_pretty(&normal(value)).unwrap_or_default();
    let (found, recorded) = (pretty(found), pretty(recorded));
    assert!(found == recorded, "{name}: the fake API server answers\n{found}\ninstead of\n{recorded}");
}

/// A frame with the Status as an object: the order of its fields does not matter.
fn with_status(frame: &Value) -> Value {
    let mut frame = frame.clone();
    if frame["channel"] == 3 {
        let status = frame["data"].as_str().unwrap_or_default();
        frame["data"] = serde_json::from_str(status).unwrap_or_else(|error| panic!("{status}: {error}"));
    }
    frame
}

/// A value without what differs from one cluster to the next.
fn normal(value: &Value) -> Value {
    let mut names = Names::default();
    names.normal("", value)
}

/// Numbers for uids and resourceVersions, so that two that are the same stay the same.
#[derive(Default)]
struct Names {
    seen: BTreeMap<String, usize>,
}

impl Names {
    fn number(&mut self, what: &str, value: &str) -> String {
        let next = self.seen.len() + 1;
        let number = self.seen.entry(format!("{what} {value}")).or_insert(next);
        format!("<{what} {number}>")
    }

    fn normal(&mut self, key: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                // Sorted, so that numbers do not depend on the order in which fields were written.
                let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
                sorted.into_iter().map(|(key, value)| (key.clone(), self.normal(key, value))).collect()
            }
            Value::Array(values) if key == "items" => {
                let mut values: Vec<&Value> = values.iter().collect();
                values.sort_by_key(|value| place(value));
                values.into_iter().map(|value| self.normal("", value)).collect()
            }
            Value::Array(values) => values.iter().map(|value| self.normal("", value)).collect(),
            Value::String(text) if key == "resourceVersion" => self.number("version", text).into(),
            Value::String(text) if key == "continue" && !text.is_empty() => "<continue>".into(),
            Value::String(text) if is_time(text) => "<time>".into(),
            // A content has it in nanoseconds.
            Value::Number(_) if key == "creationTime" => "<time>".into(),
            Value::String(text) if is_event_name(text) => "<event>".into(),
            Value::String(text) if key == "name" && is_pod_name(text) => "<pod>".into(),
            Value::String(text) if text.starts_with("too old resource version: ") => {
                let asked = text.split(" (").next().unwrap_or_default();
                format!("{asked} (<version>)").into()
            }
            Value::String(text) => {
                let text = self.without_uids(text);
                self.without_hashes(&text).into()
            }
            other => other.clone(),
        }
    }

    fn without_uids(&mut self, text: &str) -> String {
        self.numbered("uid", text, 36, is_uid)
    }

    /// Names of members and of their contents have one, and so have processes.
    fn without_hashes(&mut self, text: &str) -> String {
        self.numbered("hash", text, 64, |part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// A text with numbers instead of those of its parts that are something.
    fn numbered(&mut self, what: &str, text: &str, length: usize, is: impl Fn(&str) -> bool) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            match rest.get(..length).filter(|part| is(part)) {
                Some(part) => {
                    result.push_str(&self.number(what, part));
                    rest = &rest[length..];
                }
                None => {
                    result.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        result
    }
}

/// Where an object with a random name belongs in a list: by its owner and claim. All others are in order.
fn place(item: &Value) -> Option<[&str; 2]> {
    let text = |pointer| item.pointer(pointer).and_then(Value::as_str);
    let owner = text("/metadata/ownerReferences/0/name")?;
    Some([owner, text("/spec/source/persistentVolumeClaimName")?])
}

fn is_uid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

/// What the controllers call an Event: the object's name and the time in hexadecimal nanoseconds.
fn is_event_name(text: &str) -> bool {
    let time = text.rsplit_once('.').map_or("", |(_, time)| time);
    time.len() == 16 && time.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the controller calls the pod of the recorded Job.
fn is_pod_name(text: &str) -> bool {
    text.strip_prefix("drill-1-").is_some_and(|suffix| suffix.len() == 5)
}

fn is_time(text: &str) -> bool {
    text.len() >= 20
        && text.ends_with('Z')
        && text.char_indices().all(|(at, c)| match at {
            4 | 7 => c == '-',
            10 => c == 'T',
            13 | 16 => c == ':',
            19 => c == '.' || c == 'Z',
            _ => c.is_ascii_digit() || c == 'Z',
        })
}

/// A fake API server with the recorded claim `data`, a class and a default snapshot class.
async fn fake(change: impl FnOnce(&mut Options)) -> FakeApiServer {
    // The recordings are shorter than the time between two bookmarks of a real server.
    let mut options = Options { bookmark_every: Duration::from_secs(60), ..Options::default() };
    change(&mut options);
    let fake = FakeApiServer::start(options).await;
    fake.furnish("app");
    fake.put(Recording::load("01-pvc-get").object());
    fake
}

/// Puts objects in by the order in which they were written, so that their resourceVersions are in that order too.
fn put_in_order(fake: &FakeApiServer, mut objects: Vec<Value>) {
    objects.sort_by_key(version);
    for object in objects {
        fake.put(object);
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn create(fake: &FakeApiServer, path: &str, object: &Value) {
    let url = format!("{}{path}", fake.url());
    let response =
        client::request(http::Method::POST, &url, Some(fake.admin_token()), &[], Some(object)).await;
    let response = response.expect("the fake API server answers");
    assert_eq!(response.status.as_u16(), 201, "{}", body(&response));
}

const SNAPSHOTS_PATH: &str = "/apis/snapshot.storage.k8s.io/v1/namespaces/app/volumesnapshots";

#[tokio::test]
async fn creations_are_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    let replay = Replay::new(&fake);
    replay.replay("01-pvc-get").await;
    let created = replay.replay("02-create").await;
    let created = created["metadata"]["resourceVersion"].as_str().expect("a resourceVersion").to_owned();
    replay.replay_watch("03-watch-until-ready", &[("created", &created)]).await;
    replay.replay("04-get-ready").await;
    replay.replay("05-create-again").await;
    replay.replay("06-create-dry-run").await;
    assert_eq!(fake.get(SNAPSHOTS, "app", "volume-snapshot-dry"), None);
    replay.replay("07-create-two-sources").await;
    replay.replay("08-create-empty-class").await;
    replay.replay("09-create-bad-name").await;
    replay.replay("10-create-bad-label").await;
    replay.replay("11-create-unknown-field").await;
    replay.replay("12-get-missing").await;
    replay.replay("13-v1beta1-not-served").await;
    replay.replay("14-group-not-served").await;
    replay.replay("15-create-in-missing-namespace").await;
    let mut without_class = Recording::load("31-default-class").as_created();
    without_class["spec"].as_object_mut().expect("a spec").remove("volumeSnapshotClassName");
    create(&fake, SNAPSHOTS_PATH, &without_class).await;
    replay.replay_until_same("31-default-class").await;
    replay.replay("48-version").await;
    replay.finish(CREATION);
}

#[tokio::test]
async fn lists_and_watches_are_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    let replay = Replay::new(&fake);
    let mut objects: BTreeMap<String, Value> = BTreeMap::new();
    for name in ["16-list-page-1", "17-list-page-2", "19-list-not-equal-selector"] {
        for object in Recording::load(name).items() {
            objects.insert(object["metadata"]["name"].to_string(), object);
        }
    }
    put_in_order(&fake, objects.into_values().collect());
    let first = replay.replay("16-list-page-1").await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    replay.replay_with("17-list-page-2", &[("continue", token)]).await;
    replay.replay("18-list-bad-continue").await;
    replay.replay("19-list-not-equal-selector").await;
    replay.replay("20-list-bad-selector").await;
    let began = Instant::now();
    let mut lines = replay.replay_watch("22-watch-timeout", &[]).await;
    let end = lines.next().await.expect("the stream is whole");
    assert_eq!(end, None, "22-watch-timeout");
    let lasted = began.elapsed();
    assert!((Duration::from_millis(950)..Duration::from_secs(3)).contains(&lasted), "{lasted:?}");
    fake.compact();
    let mut lines = replay.replay_watch("21-watch-too-old", &[]).await;
    let end = lines.next().await.expect("the stream is whole");
    assert_eq!(end, None, "21-watch-too-old");
    replay.finish(READING);
}

#[tokio::test]
async fn deletions_are_answered_as_recorded() {
    // The recorded deletions came while the cluster was still at the first.
    let fake = fake(|options| options.controller.deletion_delay = Duration::from_secs(60)).await;
    let replay = Replay::new(&fake);
    let mut snapshot = Recording::load("24-delete-dry-run").object();
    let name = snapshot["metadata"]["name"].as_str().expect("a name").to_owned();
    let metadata = snapshot["metadata"].as_object_mut().expect("metadata");
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.remove(field);
    }
    fake.put(snapshot);
    replay.replay("23-delete-wrong-uid").await;
    replay.replay("24-delete-dry-run").await;
    let stored = fake.get(SNAPSHOTS, "app", &name).expect("a dry run deletes nothing");
    assert_eq!(stored["metadata"].get("deletionTimestamp"), None);
    replay.replay("25-delete-with-uid").await;
    // Meanwhile the storage was done.
    let status = Recording::load("26-delete-gone").object()["status"].clone();
    fake.update(SNAPSHOTS, "app", &name, |snapshot| snapshot["status"] = status);
    replay.replay_until_same("26-delete-gone").await;
    replay.finish(DELETION);
}

#[tokio::test]
async fn errors_are_shown_as_recorded() {
    let with_default = fake(|_| {}).await;
    let replay = Replay::new(&with_default);
    let mut other = objects::snapshot_class("other");
    other["driver"] = "other.csi.example.com".into();
    with_default.put(other);
    let mut unbound = objects::claim("app", "unbound");
    unbound["spec"]["storageClassName"] = "none".into();
    with_default.put(unbound);
    for name in
        ["27-error-class-missing", "28-error-pvc-missing", "29-error-driver-mismatch", "30-error-pvc-unbound"]
    {
        create(&with_default, SNAPSHOTS_PATH, &Recording::load(name).as_created()).await;
        replay.replay_until_same(name).await;
    }

    let without_default = fake(|_| {}).await;
    without_default.put(objects::snapshot_class("default"));
    let second = Replay::new(&without_default);
    let name = "32-error-no-default-class";
    create(&without_default, SNAPSHOTS_PATH, &Recording::load(name).as_created()).await;
    second.replay_until_same(name).await;
    without_default.put(objects::default_snapshot_class("default"));
    without_default.put(objects::default_snapshot_class("second"));
    let name = "33-error-two-default-classes";
    create(&without_default, SNAPSHOTS_PATH, &Recording::load(name).as_created()).await;
    second.replay_until_same(name).await;

    replay.replayed.borrow_mut().append(&mut second.replayed.borrow_mut());
    replay.finish(ERRORS);
}

#[tokio::test]
async fn restores_are_answered_as_recorded() {
    // The Events of 37 are put in as they were: how often one is repeated depends on the moment.
    let fake = fake(|options| options.provisioner.events = false).await;
    let replay = Replay::new(&fake);
    fake.put(Recording::load("04-get-ready").object());
    replay.replay("34-restore-create").await;
    replay.replay_until_same("35-restore-bound").await;
    let too_small = Recording::load("36-restore-too-small");
    create(&fake, "/api/v1/namespaces/app/persistentvolumeclaims", &too_small.as_created()).await;
    replay.replay_until_same("36-restore-too-small").await;
    put_in_order(&fake, Recording::load("37-restore-too-small-events").items());
    replay.replay("37-restore-too-small-events").await;
    replay.replay("38-delete-while-restoring").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    replay.replay("39-get-while-restoring").await;
    // Once nothing is made from it any more, it goes.
    fake.remove("persistentvolumeclaims", "app", "too-small");
    let give_up = Instant::now() + Duration::from_secs(10);
    while fake.get(SNAPSHOTS, "app", "volume-snapshot-0a1b2c3d").is_some() {
        assert!(Instant::now() < give_up, "the snapshot goes once nothing is made from it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    replay.finish(RESTORING);
}

#[tokio::test]
async fn what_may_not_be_done_is_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    let replay = Replay::new(&fake);
    replay.replay("40-forbidden").await;
    replay.replay("41-unauthorized").await;
    let verbs: &[&str] = &["create", "get", "list", "delete"];
    fake.put(objects::role("app", "r", &[("snapshot.storage.k8s.io", SNAPSHOTS, verbs)]));
    fake.put(objects::role_binding("app", "r", "volume-snapshotter"));
    replay.replay("42-watch-forbidden").await;
    replay.replay("43-access-review-denied").await;
    replay.replay("44-access-review-allowed").await;
    for number in 0..12 {
        fake.put(objects::ready_snapshot("app", &format!("old-{number}"), "data", "2026-01-01T00:00:00Z"));
    }
    fake.quota("app", 1);
    replay.replay("45-quota-exceeded").await;
    // Something in the namespace keeps it from going.
    fake.put(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "stays", "namespace": "going", "finalizers": ["example.com/stays"]},
    }));
    let url = format!("{}/api/v1/namespaces/going", fake.url());
    let deleted = client::request(http::Method::DELETE, &url, Some(fake.admin_token()), &[], None).await;
    assert_eq!(deleted.expect("the fake API server answers").status.as_u16(), 200);
    replay.replay("49-namespace-terminating").await;
    replay.finish(PERMISSION);
}

#[tokio::test]
async fn a_disk_that_the_cluster_did_not_make_is_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    let replay = Replay::new(&fake);
    fake.put(objects::free_volume("outside", "", "1Gi"));
    let claim = Recording::load("69-static-claim").as_created();
    create(&fake, "/api/v1/namespaces/app/persistentvolumeclaims", &claim).await;
    replay.replay_until_same("69-static-claim").await;
    create(&fake, SNAPSHOTS_PATH, &Recording::load("70-static-claim-snapshot").as_created()).await;
    replay.replay_until_same("70-static-claim-snapshot").await;
    replay.finish(STATIC);
}

#[tokio::test]
async fn new_events_are_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    let replay = Replay::new(&fake);
    for name in NEW_EVENTS {
        replay.replay(name).await;
    }
    replay.finish(NEW_EVENTS);
}

#[tokio::test]
async fn jobs_are_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    let replay = Replay::new(&fake);
    let job = replay.replay("74-job-create").await;
    replay.replay_until_same("75-job-pods").await;
    let deleted = replay.replay("76-job-delete").await;
    assert_eq!(deleted["details"]["uid"], job["metadata"]["uid"]);
    let give_up = Instant::now() + Duration::from_secs(10);
    while !fake.list("pods", "app").is_empty() {
        assert!(Instant::now() < give_up, "the pod goes with its Job");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    replay.finish(JOBS);
}

/// The recorded commands, in a container that has no others and one file, which is written or not.
fn recorded_command(command: &Command, file: &Arc<AtomicBool>) -> Option<Script> {
    Some(match command.line().as_str() {
        "true" => Script::new(),
        "sh -c echo frozen" => Script::new().prints("frozen\n"),
        "sh -c echo cannot freeze >&2; exit 3" => Script::new().complains("cannot freeze\n").exits(3),
        // The real one took five seconds.
        "sh -c echo begun; sleep 5; echo done > /tmp/after-disconnect" => {
            let file = file.clone();
            let write = move |_: &_| file.store(true, Ordering::SeqCst);
            Script::new().prints("begun\n").wait(Duration::from_millis(300)).does(write)
        }
        "sh -c cat /tmp/after-disconnect || echo it did not" => {
            Script::new().prints(if file.load(Ordering::SeqCst) { "done\n" } else { "it did not\n" })
        }
        _ => return None,
    })
}

const EXEC_VERBS: [&[&str]; 4] = [&[], &["create"], &["get"], &["get", "create"]];

#[tokio::test]
async fn commands_are_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    fake.put(objects::running_pod("exec-rec", "app", &["db", "web"], &[]));
    let file = Arc::default();
    fake.commands(move |command| recorded_command(command, &file));
    let in_app = Replay::new(&fake);
    in_app.replay("78-exec-forbidden").await;
    in_app.replay("79-exec-missing-pod").await;
    for name in &EXEC[2..9] {
        in_app.replay_exec(name).await;
    }
    let left = in_app.replay_exec("88-exec-client-leaves").await;
    drop(left);
    let give_up = Instant::now() + Duration::from_secs(10);
    let command = || fake.processes().last().expect("a process").clone();
    while command().ended.is_none() {
        assert!(Instant::now() < give_up, "the command goes on without the client");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(command().abandoned < command().ended, "{:?}", command());
    in_app.replay_exec("89-exec-after-client-left").await;
    in_app.finish(EXEC);

    let in_own = Replay::of(&fake, "exec-rec", "hook");
    fake.put(objects::role_binding("exec-rec", "hook", "hook"));
    for (name, verbs) in EXEC_PERMISSION.iter().zip(EXEC_VERBS) {
        fake.put(objects::role("exec-rec", "hook", &[("", "pods/exec", verbs)]));
        in_own.replay_exec(name).await;
    }
    in_own.finish(EXEC_PERMISSION);
}

const GROUPS_PATH: &str = "/apis/groupsnapshot.storage.k8s.io/v1/namespaces/app/volumegroupsnapshots";

/// Waits for one of the members of a group, by its claim.
async fn member_of(fake: &FakeApiServer, group: &str, claim: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        let found = fake.list(SNAPSHOTS, "app").into_iter().find(|snapshot| {
            snapshot["metadata"]["ownerReferences"][0]["name"] == group
                && snapshot["spec"]["source"]["persistentVolumeClaimName"] == claim
                && is_so(snapshot)
        });
        if let Some(found) = found {
            return found;
        }
        assert!(Instant::now() < give_up, "the member of {group} for {claim} is not so");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn group_snapshots_are_answered_as_recorded() {
    const FIRST: &str = "volume-snapshot-0a1b2c3d";
    let fake = fake(|options| options.group_api = GroupApi::V1).await;
    fake.remove("persistentvolumeclaims", "app", "data");
    for (claim, app) in [("data", "shop"), ("logs", "shop"), ("bound", "half")] {
        fake.put(objects::bound_claim("app", claim, &[("app", app)]));
    }
    let mut pending = objects::claim("app", "pending");
    pending["metadata"]["labels"] = json!({"app": "half"});
    pending["spec"]["storageClassName"] = "none".into();
    fake.put(pending);
    let is_ready = |snapshot: &Value| snapshot["status"]["readyToUse"] == true;
    fake.plan(|member| {
        let of_first = member["metadata"]["ownerReferences"][0]["name"] == FIRST;
        let is_late = of_first && member["spec"]["source"]["persistentVolumeClaimName"] == "logs";
        Some(if is_late { Plan::never() } else { Plan::ready_after(Duration::ZERO) })
    });
    let late = Some(Plan::ready_after(Duration::from_secs(60)));
    fake.plan_group(move |group| late.clone().filter(|_| group["metadata"]["name"] == "default-class"));
    let replay = Replay::new(&fake);

    let created = replay.replay("50-group-create").await;
    let created = created["metadata"]["resourceVersion"].as_str().expect("a resourceVersion").to_owned();
    replay.replay_watch("51-group-watch-until-ready", &[("created", &created)]).await;
    replay.replay("52-group-get-ready").await;
    member_of(&fake, FIRST, "data", is_ready).await;
    replay.replay("53-group-members").await;
    let late = member_of(&fake, FIRST, "logs", |_| true).await;
    let late = late["metadata"]["name"].as_str().expect("a name");
    // Before the controller looks.
    fake.controller_pace(Pace::Stopped);
    replay.replay_with("54-group-member-delete", &[("member", late)]).await;
    fake.controller_pace(Pace::AtOnce);
    tokio::time::sleep(Duration::from_millis(50)).await;
    replay.replay_with("55-group-member-after-delete", &[("member", late)]).await;
    replay.replay("56-group-create-again").await;
    replay.replay("57-group-bad-selector-both").await;
    for name in ["58-group-error-no-claims", "59-group-error-class-missing", "60-group-error-claim-pending"] {
        create(&fake, GROUPS_PATH, &Recording::load(name).as_created()).await;
        replay.replay_until_same(name).await;
    }

    let mut without_class = Recording::load("61-group-default-class").as_created();
    without_class["spec"].as_object_mut().expect("a spec").remove("volumeGroupSnapshotClassName");
    create(&fake, GROUPS_PATH, &without_class).await;
    replay.replay_until_same("61-group-default-class").await;
    for claim in ["data", "logs"] {
        member_of(&fake, "default-class", claim, is_ready).await;
    }
    replay.replay("62-group-delete-wrong-uid").await;
    let group = fake.get("volumegroupsnapshots", "app", "default-class").expect("a group");
    // The recorded list came when the controller was at the second member.
    fake.controller_pace(Pace::Stopped);
    let uid = group["metadata"]["uid"].as_str().expect("a uid");
    replay.replay_with("63-group-delete", &[("uid", uid)]).await;
    fake.controller_takes(1);
    replay.replay_until_same("64-group-after-delete").await;
    fake.controller_takes(1);
    replay.replay_until_same("65-group-members-after-delete").await;
    fake.controller_pace(Pace::AtOnce);

    replay.replay("66-group-v1beta1").await;
    replay.replay("67-discovery-groups").await;
    let source = member_of(&fake, FIRST, "data", is_ready).await;
    let mut restored = Recording::load("68-group-member-restored").as_created();
    let spec = restored["spec"].as_object_mut().expect("a spec");
    for field in ["volumeName", "dataSourceRef"] {
        spec.remove(field);
    }
    spec["dataSource"]["name"] = source["metadata"]["name"].clone();
    create(&fake, "/api/v1/namespaces/app/persistentvolumeclaims", &restored).await;
    replay.replay_until_same("68-group-member-restored").await;
    replay.replay("77-group-forbidden").await;
    replay.finish(GROUPS);
}

const OTHERS_SNAPSHOTS: &str = "/apis/snapshot.storage.k8s.io/v1/namespaces/others/volumesnapshots";
const OTHERS_CLAIMS: &str = "/api/v1/namespaces/others/persistentvolumeclaims";

/// Creates the claim that a recording shows, as it was before it had a volume.
async fn create_claim(fake: &FakeApiServer, recording: &str) {
    let mut claim = Recording::load(recording).as_created();
    claim["spec"].as_object_mut().expect("a spec").remove("volumeName");
    create(fake, OTHERS_CLAIMS, &claim).await;
}

/// The uid of an object once it is as it should be.
async fn uid_when(
    fake: &FakeApiServer,
    resource: &str,
    name: &str,
    pointer: &str,
    expected: impl Into<Value>,
) -> String {
    let expected = expected.into();
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        let object = fake.get(resource, "others", name);
        if let Some(object) = object.filter(|object| object.pointer(pointer) == Some(&expected)) {
            return object["metadata"]["uid"].as_str().expect("a uid").to_owned();
        }
        assert!(Instant::now() < give_up, "{name} has no {pointer} of {expected}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const PHASE: &str = "/status/phase";
const READY: &str = "/status/readyToUse";

#[tokio::test]
async fn what_others_do_meanwhile_is_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    fake.furnish("others");
    fake.plan(|snapshot| (snapshot["metadata"]["name"] == "relabelled").then(Plan::never));
    let replay = Replay::new(&fake);
    let claims = "persistentvolumeclaims";

    // A claim that is recreated before the controller processes its snapshot.
    create_claim(&fake, "95-claim-made-anew").await;
    let old = uid_when(&fake, claims, "data", PHASE, "Bound").await;
    fake.controller_pace(Pace::Stopped);
    create(&fake, OTHERS_SNAPSHOTS, &Recording::load("94-queued-snapshot").as_created()).await;
    replay.replay("94-queued-snapshot").await;
    fake.delete(claims, "others", "data");
    tokio::time::sleep(Duration::from_millis(50)).await;
    create_claim(&fake, "95-claim-made-anew").await;
    replay.replay_until_same("95-claim-made-anew").await;
    let new = uid_when(&fake, claims, "data", PHASE, "Bound").await;
    assert_ne!(new, old);
    fake.controller_pace(Pace::AtOnce);
    replay.replay_until_same("96-queued-ready").await;
    let queued = uid_when(&fake, SNAPSHOTS, "queued", READY, true).await;
    let content = replay.replay_with("97-queued-content", &[("uid", &queued)]).await;
    let volume = fake.get("persistentvolumes", "", &format!("pvc-{new}")).expect("a volume");
    assert_eq!(content["spec"]["source"]["volumeHandle"], volume["spec"]["csi"]["volumeHandle"]);

    // Claims from a snapshot: bound to a free volume, provisioned, waiting.
    let good = Recording::load("103-source-of-waiting-deleted").as_created();
    create(&fake, OTHERS_SNAPSHOTS, &good).await;
    let good = uid_when(&fake, SNAPSHOTS, "good", READY, true).await;
    fake.put(objects::free_volume("spare", "hostpath", "1Mi"));
    create_claim(&fake, "98-restore-onto-free-volume").await;
    replay.replay_until_same("98-restore-onto-free-volume").await;
    create_claim(&fake, "99-restore-provisioned").await;
    replay.replay_until_same("99-restore-provisioned").await;
    let provisioned = uid_when(&fake, claims, "provisioned", PHASE, "Bound").await;
    replay.replay_with("100-restore-provisioned-volume", &[("uid", &provisioned)]).await;
    assert_eq!(fake.restored_from("others", "onto-spare"), None);
    assert_eq!(fake.restored_from("others", "provisioned"), Some(good));
    fake.put(objects::waiting_storage_class("late"));
    create_claim(&fake, "101-restore-waits-for-consumer").await;
    replay.replay_until_same("101-restore-waits-for-consumer").await;
    replay.replay_until_same("102-restore-waits-events").await;
    replay.replay("103-source-of-waiting-deleted").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    replay.replay("104-source-of-waiting-after").await;

    // What nobody would expect.
    create(&fake, OTHERS_SNAPSHOTS, &Recording::load("105-status-odd").as_created()).await;
    uid_when(&fake, SNAPSHOTS, "odd", READY, true).await;
    replay.replay("105-status-odd").await;
    replay.replay("106-names-hostile").await;
    replay.replay("107-names-path").await;

    // Policies.
    fake.admission_denies(
        |request| request.is("delete", SNAPSHOTS),
        "keep",
        "snapshots of this namespace are kept for the auditors",
    );
    replay.replay("108-delete-denied-by-policy").await;
    fake.admission_changes(
        |request| request.is("create", SNAPSHOTS),
        |snapshot| snapshot["metadata"]["labels"]["job"] = "audited".into(),
    );
    replay.replay("109-create-relabelled").await;
    replay.replay_until_same("110-claims-list").await;
    replay.finish(&[MADE_ANEW, WAITING, ODD, POLICIES, CLAIMS].concat());
}

#[tokio::test]
async fn events_are_answered_as_recorded() {
    let fake = fake(|_| {}).await;
    let replay = Replay::new(&fake);
    let events = Recording::load("47-snapshot-events").items();
    // One more, for which the recorded page had no room.
    let mut more = events.last().expect("events are recorded").clone();
    more["metadata"]["name"] = "no-class.18e9b4fe00000000".into();
    put_in_order(&fake, events);
    fake.put(more);
    replay.replay("46-event-create").await;
    replay.replay("47-snapshot-events").await;
    replay.finish(EVENTS);
}

#[tokio::test]
async fn the_controller_writes_events_as_recorded() {
    let fake = fake(|options| options.controller.events = true).await;
    fake.plan(|_| Some(Plan::ready_after(Duration::ZERO)));
    create(&fake, SNAPSHOTS_PATH, &objects::snapshot("app", "err-two-default", "data")).await;
    let recorded: BTreeSet<String> = Recording::load("47-snapshot-events")
        .items()
        .iter()
        .filter(|event| {
            event["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("err-two-default."))
        })
        .filter(|event| event["type"] == "Normal")
        .map(signature)
        .collect();
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        let found: BTreeSet<String> = fake.list("events", "app").iter().map(signature).collect();
        if found == recorded {
            return;
        }
        assert!(Instant::now() < give_up, "{found:#?} instead of {recorded:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An Event without its name and what goes with it.
fn signature(event: &Value) -> String {
    let mut event = event.clone();
    event["metadata"] = Value::Null;
    normal(&event).to_string()
}

#[test]
fn every_recording_is_replayed_or_said_not_to_be() {
    let groups = [
        CREATION,
        READING,
        DELETION,
        ERRORS,
        RESTORING,
        PERMISSION,
        EVENTS,
        STATIC,
        NEW_EVENTS,
        JOBS,
        EXEC,
        EXEC_PERMISSION,
        GROUPS,
        MADE_ANEW,
        WAITING,
        ODD,
        POLICIES,
        CLAIMS,
    ];
    let mut listed: Vec<&str> = groups.concat();
    listed.extend(NOT_REPLAYED.iter().map(|(name, _)| *name));
    listed.sort_unstable();
    let mut found: Vec<String> = std::fs::read_dir(directory())
        .expect("there are recordings")
        .map(|entry| entry.expect("a directory can be read").file_name().to_string_lossy().into_owned())
        .filter_map(|file| file.strip_suffix(".json").map(str::to_owned))
        .collect();
    found.sort_unstable();
    assert_eq!(listed, found);
}
