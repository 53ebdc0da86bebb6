//! The garbage collector: what belongs to an object goes with it, by `ownerReferences`, whatever it is.
//!
//! It reacts to changes of the store. What was put into the store with an owner that never was there is left alone; what
//! a client creates for an owner that is not there goes at once. The members of a group snapshot are in `groups`.

use crate::cluster::Cluster;
use crate::deletion::{self, FOREGROUND, ORPHAN, Propagation};
use crate::object;
use crate::registry::{self, known};
use crate::store::{Change, Key, Kind, Writer};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// An object that belongs to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Dependent {
    plural: &'static str,
    key: Key,
    uid: String,
}

impl Dependent {
    fn get(&self, writer: &Writer<'_>) -> Option<Value> {
        let object = writer.get(self.plural, &self.key)?;
        (object::uid(&object.value) == self.uid).then(|| object.value.clone())
    }
}

struct Collector {
    cluster: Arc<Cluster>,
    /// What belongs to whom, by the owner's uid.
    owned: HashMap<String, HashSet<Dependent>>,
    /// Uids of objects that are gone.
    gone: HashSet<String>,
}

/// Runs until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    let mut collector = Collector { cluster, owned: HashMap::new(), gone: HashSet::new() };
    while let Some(change) = changes.recv().await {
        collector.see(&change);
    }
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().filter(|owner| object::text(owner, "/kind") != "VolumeGroupSnapshot")
}

/// Whether an owner waits for this one.
fn blocks(object: &Value, owner: &str) -> bool {
    owners(object).any(|one| object::text(one, "/uid") == owner && one["blockOwnerDeletion"] == true)
}

impl Collector {
    fn see(&mut self, change: &Change) {
        let object = &change.object.value;
        let uid = object::uid(object).to_owned();
        if change.kind == Kind::Deleted {
            for dependent in self.owned.remove(&uid).unwrap_or_default() {
                self.collect(&dependent, &uid);
            }
            self.gone.insert(uid.clone());
            for owner in owners(object) {
                let owner_uid = object::text(owner, "/uid").to_owned();
                if let Some(owned) = self.owned.get_mut(&owner_uid) {
                    owned.retain(|dependent| dependent.uid != uid);
                }
                if let Some(owner) = self.find(object, owner) {
                    self.go_on(&owner, &owner_uid);
                }
            }
            return;
        }
        let dependent =
            Dependent { plural: change.resource.plural, key: change.key.clone(), uid: uid.clone() };
        let mut is_alone = owners(object).next().is_some();
        for owner in owners(object) {
            let owner_uid = object::text(owner, "/uid").to_owned();
            is_alone &= self.gone.contains(&owner_uid)
                || (!change.user.is_empty() && self.find(object, owner).is_none());
            self.owned.entry(owner_uid).or_default().insert(dependent.clone());
        }
        if is_alone && change.kind == Kind::Added {
            self.cluster.store.write(|writer| {
                if dependent.get(writer).is_some() {
                    deletion::delete(writer, change.resource, &change.key, Propagation::Background);
                }
            });
        }
        if object::is_deleting(object) {
            self.go_on(&dependent, &uid);
        }
    }

    /// The object that a reference means, if it is there. One of a kind that is not known here is taken to be.
    fn find(&self, object: &Value, owner: &Value) -> Option<Dependent> {
        let (api_version, kind) = (object::text(owner, "/apiVersion"), object::text(owner, "/kind"));
        let uid = object::text(owner, "/uid").to_owned();
        let Some(resource) = registry::of_kind(api_version, kind) else {
            return Some(Dependent { plural: "", key: Key::default(), uid });
        };
        let namespace = if resource.namespaced { object::namespace(object) } else { "" };
        let key = (namespace.to_owned(), object::text(owner, "/name").to_owned());
        let found = self.cluster.store.get(resource.plural, &key)?;
        (object::uid(&found.value) == uid).then_some(Dependent { plural: resource.plural, key, uid })
    }

    /// Deletes what belonged to an owner that is gone, unless it has another one.
    fn collect(&self, dependent: &Dependent, owner: &str) {
        self.cluster.store.write(|writer| {
            let Some(object) = dependent.get(writer) else { return };
            let is_gone = |one: &&Value| {
                let uid = object::text(one, "/uid");
                uid == owner || self.gone.contains(uid)
            };
            if owners(&object).all(|one| is_gone(&one)) {
                deletion::delete(writer, known(dependent.plural), &dependent.key, Propagation::Background);
            } else {
                disown(writer, dependent, |uid| uid == owner || self.gone.contains(uid));
            }
        });
    }

    /// Goes on with the deletion of an object that waits for what belongs to it.
    fn go_on(&self, owner: &Dependent, uid: &str) {
        let none = HashSet::new();
        let dependents = self.owned.get(uid).unwrap_or(&none);
        self.cluster.store.write(|writer| {
            let Some(object) = owner.get(writer).filter(object::is_deleting) else { return };
            if object::has_finalizer(&object, ORPHAN) {
                for dependent in dependents {
                    disown(writer, dependent, |one| one == uid);
                }
                writer
                    .modify(known(owner.plural), &owner.key, |owner| object::remove_finalizer(owner, ORPHAN));
            } else if object::has_finalizer(&object, FOREGROUND) {
                let mut is_blocked = false;
                for dependent in dependents {
                    let Some(found) = dependent.get(writer) else { continue };
                    if !blocks(&found, uid) {
                        continue;
                    }
                    is_blocked = true;
                    let owns = self.owned.get(&dependent.uid).is_some_and(|owned| !owned.is_empty());
                    let how = if owns { Propagation::Foreground } else { Propagation::Background };
                    deletion::delete(writer, known(dependent.plural), &dependent.key, how);
                    // It may have gone at once; its own change comes back here.
                }
                if !is_blocked {
                    writer.modify(known(owner.plural), &owner.key, |owner| {
                        object::remove_finalizer(owner, FOREGROUND)
                    });
                }
            }
        });
    }
}

/// Takes references to owners away.
fn disown(writer: &mut Writer<'_>, dependent: &Dependent, is_left: impl Fn(&str) -> bool) {
    if dependent.get(writer).is_none() {
        return;
    }
    writer.modify(known(dependent.plural), &dependent.key, |object| {
        let metadata = object::metadata(object);
        if let Some(Value::Array(owners)) = metadata.get_mut("ownerReferences") {
            owners.retain(|owner| !is_left(object::text(owner, "/uid")));
            if owners.is_empty() {
                metadata.remove("ownerReferences");
            }
        }
    });
}
