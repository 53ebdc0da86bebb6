//! The objects: one map per resource, one resourceVersion for all, a history, and the watchers.
//!
//! The store knows no HTTP, users or validation. Whatever must be checked and written atomically happens
//! inside [`Store::write`], under the store's only lock. Nothing waits while it is held.

use crate::failure::Failure;
use crate::history;
use crate::object;
use crate::registry::{self, Resource};
use crate::selector::Filter;
use hyper::body::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// Namespace (empty for cluster-scoped objects) and name. Lists are in this order.
pub(crate) type Key = (String, String);

/// One version of an object. It never changes, so it is serialised once, however many lists and watches show it.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) value: Value,
    json: OnceLock<Bytes>,
}

impl Object {
    fn new(value: Value) -> Arc<Object> {
        Arc::new(Object { value, json: OnceLock::new() })
    }

    pub(crate) fn json(&self) -> &Bytes {
        self.json.get_or_init(|| self.value.to_string().into())
    }
}

/// How an object changed, in the words of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Added,
    Modified,
    Deleted,
}

#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: &'static Resource,
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) before: Option<Arc<Object>>,
    /// The object after the write; for a deletion its last state with the deletion's resourceVersion.
    pub(crate) object: Arc<Object>,
    /// Who wrote it; empty: the cluster itself.
    pub(crate) user: String,
    /// When it was written, which is what delays count from.
    pub(crate) at: Instant,
}

/// What a watch is told.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Event(Kind, Arc<Object>),
    /// The last notice: the watch has failed.
    Failed(Failure),
}

/// What a watch is about.
#[derive(Debug, Clone)]
pub(crate) struct Interest {
    pub(crate) resource: &'static str,
    /// `None`: all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) filter: Filter,
}

impl Interest {
    fn covers(&self, resource: &Resource, key: &Key) -> bool {
        self.resource == resource.plural
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.0)
    }

    /// What the change is to somebody who only sees the objects that match.
    fn notice(&self, change: &Change) -> Option<Notice> {
        if !self.covers(change.resource, &change.key) {
            return None;
        }
        let before = change.before.as_ref().is_some_and(|object| self.filter.matches(&object.value));
        let after = change.kind != Kind::Deleted && self.filter.matches(&change.object.value);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(Notice::Event(Kind::Added, change.object.clone())),
            (true, true) => Some(Notice::Event(Kind::Modified, change.object.clone())),
            (true, false) if change.kind == Kind::Deleted => {
                Some(Notice::Event(Kind::Deleted, change.object.clone()))
            }
            // It matches no more. The watch sees it as it was when it last did.
            (true, false) => {
                let mut last = change.before.as_ref()?.value.clone();
                object::metadata(&mut last)
                    .insert("resourceVersion".into(), change.version.to_string().into());
                Some(Notice::Event(Kind::Deleted, Object::new(last)))
            }
        }
    }
}

#[derive(Debug)]
struct Watcher {
    interest: Interest,
    notices: UnboundedSender<Notice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// With the objects as they are.
    Now,
    /// With what changed after this resourceVersion.
    After(u64),
}

/// A watch that has begun.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The objects at the beginning, if they were asked for.
    pub(crate) first: Vec<Arc<Object>>,
    pub(crate) notices: UnboundedReceiver<Notice>,
    /// The resourceVersion at the beginning.
    pub(crate) version: u64,
}

#[derive(Debug)]
struct Inner {
    version: u64,
    objects: HashMap<&'static str, BTreeMap<Key, Arc<Object>>>,
    /// How many objects each namespace has, so that an empty one is found without looking at everything.
    population: HashMap<String, usize>,
    history: VecDeque<Arc<Change>>,
    /// Changes up to this resourceVersion are forgotten.
    forgotten: u64,
    history_limit: usize,
    watchers: Vec<Watcher>,
    subscribers: Vec<UnboundedSender<Arc<Change>>>,
    /// Those changes of snapshots and group snapshots that are milestones. They are never forgotten.
    milestones: Vec<Arc<Change>>,
    /// Every change of what a test wants to look back on. They are never forgotten.
    journal: Vec<Arc<Change>>,
}

/// The store. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Store(Mutex<Inner>);

impl Store {
    pub(crate) fn new(history_limit: usize) -> Store {
        Store(Mutex::new(Inner {
            version: 1,
            objects: HashMap::new(),
            population: HashMap::new(),
            history: VecDeque::new(),
            forgotten: 0,
            history_limit,
            watchers: Vec::new(),
            subscribers: Vec::new(),
            milestones: Vec::new(),
            journal: Vec::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panics inside a closure of its own must not take the server down with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads and writes in one go, for the cluster itself.
    pub(crate) fn write<T>(&self, f: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        self.write_for("", f)
    }

    /// Reads and writes in one go, for a user.
    pub(crate) fn write_for<T>(&self, user: &str, f: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        f(&mut Writer { inner: self.lock(), user })
    }

    /// What happened to snapshots and group snapshots, in order.
    pub(crate) fn milestones(&self) -> Vec<Arc<Change>> {
        self.lock().milestones.clone()
    }

    /// What was written of snapshots, group snapshots and claims, in order.
    pub(crate) fn journal(&self) -> Vec<Arc<Change>> {
        self.lock().journal.clone()
    }

    pub(crate) fn get(&self, resource: &str, key: &Key) -> Option<Arc<Object>> {
        self.lock().objects.get(resource)?.get(key).cloned()
    }

    /// Now, in key order; `None`: of all namespaces.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let inner = self.lock();
        inner.range(resource, namespace, None).map(|(_, object)| object.clone()).collect()
    }

    /// The resourceVersion of the last write.
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    /// The objects as they were at a resourceVersion (0: now), from a key on, with the resourceVersion they are of.
    ///
    /// `visit` gets them in order and says whether it wants more.
    pub(crate) fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        version: u64,
        after: Option<&Key>,
        mut visit: impl FnMut(&Key, &Arc<Object>) -> bool,
    ) -> Result<u64, Failure> {
        let inner = self.lock();
        if version == 0 || version >= inner.version {
            for (key, object) in inner.range(resource, namespace, after) {
                if !visit(key, object) {
                    break;
                }
            }
            return Ok(inner.version);
        }
        if version < inner.forgotten {
            return Err(Failure::too_old(version, inner.forgotten));
        }
        let mut then: BTreeMap<&Key, &Arc<Object>> = inner.range(resource, namespace, after).collect();
        // From the newest change back: the last one undone is the first after the version.
        for change in inner.history.iter().rev().take_while(|change| change.version > version) {
            let wanted = change.resource.plural == resource
                && namespace.is_none_or(|namespace| namespace == change.key.0)
                && after.is_none_or(|after| change.key > *after);
            if wanted {
                match &change.before {
                    Some(object) => then.insert(&change.key, object),
                    None => then.remove(&change.key),
                };
            }
        }
        for (key, object) in then {
            if !visit(key, object) {
                break;
            }
        }
        Ok(version)
    }

    /// Begins a watch. It misses nothing and gets nothing twice.
    pub(crate) fn watch(&self, interest: Interest, from: From) -> Result<Watch, Failure> {
        let mut inner = self.lock();
        let (sender, notices) = unbounded_channel();
        let mut first = Vec::new();
        match from {
            From::Now => {
                let objects = inner.range(interest.resource, interest.namespace.as_deref(), None);
                first.extend(
                    objects.map(|(_, object)| object).filter(|o| interest.filter.matches(&o.value)).cloned(),
                );
            }
            From::After(version) => {
                if version < inner.forgotten {
                    return Err(Failure::too_old(version, inner.forgotten));
                }
                let start = inner.history.partition_point(|change| change.version <= version);
                for notice in inner.history.iter().skip(start).filter_map(|change| interest.notice(change)) {
                    // The receiver is still here, a few lines up.
                    let _ = sender.send(notice);
                }
            }
        }
        inner.watchers.retain(|watcher| !watcher.notices.is_closed());
        inner.watchers.push(Watcher { interest, notices: sender });
        Ok(Watch { first, notices, version: inner.version })
    }

    /// The resourceVersion up to which a watch has been told everything, or `None` if notices are still waiting.
    pub(crate) fn version_if_told(&self, notices: &UnboundedReceiver<Notice>) -> Option<u64> {
        let inner = self.lock();
        notices.is_empty().then_some(inner.version)
    }

    /// Every change from now on, for the controllers.
    pub(crate) fn subscribe(&self) -> UnboundedReceiver<Arc<Change>> {
        let (sender, receiver) = unbounded_channel();
        self.lock().subscribers.push(sender);
        receiver
    }

    pub(crate) fn compact(&self) {
        let mut inner = self.lock();
        inner.history.clear();
        // One more, so that also a resourceVersion that was just handed out is too old.
        inner.version += 1;
        inner.forgotten = inner.version;
    }

    /// Ends every running watch: with this failure, or just so.
    pub(crate) fn end_watches(&self, failure: Option<&Failure>) {
        for watcher in self.lock().watchers.drain(..) {
            if let Some(failure) = failure {
                // Nobody listens if the client has just gone.
                let _ = watcher.notices.send(Notice::Failed(failure.clone()));
            }
        }
    }

    /// The failure that a watch gets whose history is gone.
    pub(crate) fn expired(&self) -> Failure {
        let inner = self.lock();
        Failure::too_old(inner.forgotten.saturating_sub(1), inner.version)
    }
}

impl Inner {
    fn range<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&'a str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> + use<'a> {
        use std::ops::Bound;
        let start = match (after, namespace) {
            (Some(key), _) => Bound::Excluded(key.clone()),
            (None, Some(namespace)) => Bound::Included((namespace.to_owned(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        self.objects
            .get(resource)
            .into_iter()
            .flat_map(move |objects| objects.range((start.clone(), Bound::Unbounded)))
            .skip_while(move |(key, _)| namespace.is_some_and(|namespace| key.0.as_str() < namespace))
            .take_while(move |(key, _)| namespace.is_none_or(|namespace| key.0 == namespace))
    }

    fn publish(&mut self, change: Change) {
        let change = Arc::new(change);
        if !history::stages(&change).is_empty() {
            self.milestones.push(change.clone());
        }
        let is_wanted = matches!(
            change.resource.plural,
            "volumesnapshots" | "volumegroupsnapshots" | "persistentvolumeclaims"
        );
        if is_wanted {
            self.journal.push(change.clone());
        }
        self.watchers.retain(|watcher| match watcher.interest.notice(&change) {
            Some(notice) => watcher.notices.send(notice).is_ok(),
            None => true,
        });
        self.subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
        self.history.push_back(change);
        while self.history.len() > self.history_limit {
            if let Some(oldest) = self.history.pop_front() {
                self.forgotten = oldest.version;
            }
        }
    }
}

/// The store while it is locked.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    inner: MutexGuard<'a, Inner>,
    user: &'a str,
}

impl Writer<'_> {
    pub(crate) fn get(&self, resource: &str, key: &Key) -> Option<Arc<Object>> {
        self.inner.objects.get(resource)?.get(key).cloned()
    }

    /// All objects of a resource.
    pub(crate) fn list(&self, resource: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.inner.range(resource, None, None).map(|(_, object)| object)
    }

    /// All objects of a resource in a namespace.
    pub(crate) fn list_in(&self, resource: &str, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        let namespace = namespace.to_owned();
        let first = (namespace.clone(), String::new());
        let objects = self.inner.objects.get(resource).into_iter();
        let from_first = objects.flat_map(move |objects| objects.range(first.clone()..));
        from_first.take_while(move |(key, _)| key.0 == namespace).map(|(_, object)| object)
    }

    /// How many snapshots of a namespace went since a time; `None`: ever.
    pub(crate) fn removed_snapshots(&self, namespace: &str, since: Option<Instant>) -> usize {
        let milestones = self.inner.milestones.iter().rev();
        milestones
            .take_while(|change| since.is_none_or(|since| change.at > since))
            .filter(|change| change.resource.plural == "volumesnapshots")
            .filter(|change| change.kind == Kind::Deleted && change.key.0 == namespace)
            .count()
    }

    /// How many objects of a resource a namespace has.
    pub(crate) fn count(&self, resource: &str, namespace: &str) -> usize {
        self.inner.range(resource, Some(namespace), None).count()
    }

    /// How many objects of any resource a namespace has.
    pub(crate) fn population(&self, namespace: &str) -> usize {
        self.inner.population.get(namespace).copied().unwrap_or(0)
    }

    /// Writes an object under the key of its metadata, new or not, and gives it its resourceVersion.
    pub(crate) fn put(&mut self, resource: &'static Resource, mut value: Value) -> Arc<Object> {
        let resource = registry::stored(resource.plural).unwrap_or(resource);
        let key = (object::namespace(&value).to_owned(), object::name(&value).to_owned());
        let inner = &mut *self.inner;
        inner.version += 1;
        object::metadata(&mut value).insert("resourceVersion".into(), inner.version.to_string().into());
        let object = Object::new(value);
        let before = inner.objects.entry(resource.plural).or_default().insert(key.clone(), object.clone());
        let kind = if before.is_some() { Kind::Modified } else { Kind::Added };
        if before.is_none() && !key.0.is_empty() {
            *inner.population.entry(key.0.clone()).or_default() += 1;
        }
        let version = inner.version;
        inner.publish(Change {
            version,
            resource,
            key,
            kind,
            before,
            object: object.clone(),
            user: self.user.to_owned(),
            at: Instant::now(),
        });
        object
    }

    /// Takes an object out, and answers its last state.
    pub(crate) fn remove(&mut self, resource: &'static Resource, key: &Key) -> Option<Arc<Object>> {
        let last = self.get(resource.plural, key)?.value.clone();
        self.remove_as(resource, key, last)
    }

    /// Takes an object out whose last state is this one.
    fn remove_as(&mut self, resource: &'static Resource, key: &Key, mut last: Value) -> Option<Arc<Object>> {
        let resource = registry::stored(resource.plural).unwrap_or(resource);
        let inner = &mut *self.inner;
        let before = inner.objects.get_mut(resource.plural)?.remove(key)?;
        if let Some(count) = inner.population.get_mut(&key.0) {
            *count = count.saturating_sub(1);
        }
        inner.version += 1;
        let version = inner.version;
        object::metadata(&mut last).insert("resourceVersion".into(), version.to_string().into());
        let object = Object::new(last);
        inner.publish(Change {
            version,
            resource,
            key: key.clone(),
            kind: Kind::Deleted,
            before: Some(before),
            object: object.clone(),
            user: self.user.to_owned(),
            at: Instant::now(),
        });
        Some(object)
    }

    /// Changes an object, if it is there and the change is one. An object whose deletion waited for the finalizer
    /// that the change took away is gone afterwards.
    pub(crate) fn modify(
        &mut self,
        resource: &'static Resource,
        key: &Key,
        f: impl FnOnce(&mut Value),
    ) -> Option<Arc<Object>> {
        let before = self.get(resource.plural, key)?;
        let mut value = before.value.clone();
        f(&mut value);
        if value == before.value {
            return Some(before);
        }
        // A namespace waits for its contents instead, and a pod for its containers.
        let waits = resource.plural == "namespaces" || object::is_graceful(&value);
        if object::is_deleting(&value) && !object::has_finalizers(&value) && !waits {
            return self.remove_as(resource, key, value);
        }
        Some(self.put(resource, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims() -> &'static Resource {
        registry::known("persistentvolumeclaims")
    }

    fn put(store: &Store, namespace: &str, name: &str, label: &str) -> u64 {
        let value = json!({"metadata": {"namespace": namespace, "name": name, "labels": {"x": label}}});
        store.write(|writer| writer.put(claims(), value));
        store.version()
    }

    fn names_at(store: &Store, namespace: Option<&str>, version: u64) -> Vec<String> {
        let mut names = Vec::new();
        store
            .list_at("persistentvolumeclaims", namespace, version, None, |key, object| {
                names.push(format!(
                    "{}/{}={}",
                    key.0,
                    key.1,
                    object::label(&object.value, "x").unwrap_or_default()
                ));
                true
            })
            .expect("is kept");
        names
    }

    #[test]
    fn the_past_is_listed_as_it_was() {
        let store = Store::new(100);
        put(&store, "a", "one", "1");
        let then = put(&store, "b", "two", "1");
        put(&store, "a", "one", "2");
        put(&store, "a", "three", "1");
        store.write(|writer| writer.remove(claims(), &("b".into(), "two".into())));
        assert_eq!(names_at(&store, None, then), ["a/one=1", "b/two=1"]);
        assert_eq!(names_at(&store, Some("a"), then), ["a/one=1"]);
        assert_eq!(names_at(&store, None, 0), ["a/one=2", "a/three=1"]);
        store.compact();
        assert!(store.list_at("persistentvolumeclaims", None, then, None, |_, _| true).is_err());
    }

    #[test]
    fn a_watch_sees_what_starts_and_stops_matching() {
        let store = Store::new(100);
        let before = store.version();
        put(&store, "a", "one", "no");
        put(&store, "a", "one", "yes");
        put(&store, "a", "one", "yes");
        put(&store, "a", "one", "no");
        put(&store, "b", "one", "yes");
        let filter = Filter::parse(claims(), "x=yes", "").expect("parses");
        let interest = Interest { resource: "persistentvolumeclaims", namespace: Some("a".into()), filter };
        let mut watch = store.watch(interest, From::After(before)).expect("is kept");
        let mut kinds = Vec::new();
        while let Ok(Notice::Event(kind, object)) = watch.notices.try_recv() {
            kinds.push((kind, object::label(&object.value, "x").unwrap_or_default().to_owned()));
        }
        assert_eq!(
            kinds,
            [
                (Kind::Added, "yes".to_owned()),
                (Kind::Modified, "yes".to_owned()),
                (Kind::Deleted, "yes".to_owned()),
            ]
        );
    }

    #[test]
    fn history_is_bounded() {
        let store = Store::new(2);
        let first = put(&store, "a", "one", "1");
        put(&store, "a", "one", "2");
        put(&store, "a", "one", "3");
        let interest =
            Interest { resource: "persistentvolumeclaims", namespace: None, filter: Filter::default() };
        assert!(store.watch(interest.clone(), From::After(first)).is_ok());
        put(&store, "a", "one", "4");
        let failure = store.watch(interest, From::After(first)).expect_err("is forgotten");
        assert_eq!(failure.code, 410);
    }
}
