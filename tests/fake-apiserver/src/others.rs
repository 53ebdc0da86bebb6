//! Changes that other clients and controllers make.

use crate::admission;
use crate::cluster::Cluster;
use crate::controller::{self, SnapshotData};
use crate::deletion;
use crate::object;
use crate::objects;
use crate::pods::Freeze;
use crate::process::Process;
use crate::registry;
use crate::store::Writer;
use crate::verbs;
use crate::volumes;
use serde_json::{Value, json};
use std::sync::Arc;

/// Changes objects at once, without validation, admission and permissions: to prepare a cluster, and for
/// actions in the middle of a client's requests ([`FakeApiServer::before`](crate::FakeApiServer::before),
/// [`FakeApiServer::after`](crate::FakeApiServer::after)).
///
/// A [`FakeApiServer`](crate::FakeApiServer) has the same methods. This is a handle that can be cloned and
/// moved to other tasks.
#[derive(Debug, Clone)]
pub struct Others {
    pub(crate) cluster: Arc<Cluster>,
}

impl Others {
    /// Puts an object straight into the store: see [`FakeApiServer::put`](crate::FakeApiServer::put).
    pub fn put(&self, mut object: Value) -> Value {
        let (api_version, kind) = (object::text(&object, "/apiVersion"), object::text(&object, "/kind"));
        let Some(resource) = registry::of_kind(api_version, kind) else {
            panic!("no resource is of kind {kind:?} in {api_version:?}");
        };
        assert!(!object::name(&object).is_empty(), "an object has a name: {object}");
        object = verbs::as_stored(resource, object);
        let namespace = object::namespace(&object).to_owned();
        if resource.namespaced {
            assert!(
                !namespace.is_empty(),
                "an object of kind {kind} has a namespace: {object}",
                kind = resource.kind
            );
            if self.get("namespaces", "", &namespace).is_none() {
                self.put(objects::namespace(&namespace));
            }
        }
        self.cluster.store.write(|writer| {
            let key = (namespace, object::name(&object).to_owned());
            if let Some(old) = writer.get(resource.plural, &key) {
                let uid = object::uid(&old.value).to_owned();
                object::metadata(&mut object).entry("uid").or_insert_with(|| uid.into());
            }
            admission::stamp(resource, &mut object);
            admission::set_defaults(resource, &mut object);
            let stored = writer.put(resource, object).value.clone();
            if resource.plural == "volumesnapshots" && stored.get("status").is_some() {
                self.know_data(writer, &stored);
            }
            stored
        })
    }

    /// A snapshot stored with a status is assumed to be of the existing claim.
    fn know_data(&self, writer: &Writer<'_>, snapshot: &Value) {
        let claim = object::text(snapshot, "/spec/source/persistentVolumeClaimName").to_owned();
        let claim = writer.get("persistentvolumeclaims", &(object::namespace(snapshot).to_owned(), claim));
        if let (Some(claim), None) = (claim, self.cluster.data(snapshot)) {
            let data = controller::data_of(&claim.value);
            self.cluster.contents.take(object::uid(snapshot), &data.volume);
            self.cluster.set_data(object::uid(snapshot), data);
        }
    }

    /// An object as it is now.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        self.cluster.store.get(resource, &key).map(|object| object.value.clone())
    }

    /// All objects of a resource, by namespace and name; of all namespaces if `namespace` is empty.
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let namespace = (!namespace.is_empty()).then_some(namespace);
        self.cluster.store.list(resource, namespace).iter().map(|object| object.value.clone()).collect()
    }

    /// Changes an object, past validation and admission, and answers it as stored; `None` if it is not there. Removing
    /// the last finalizer of a deleted object takes it out.
    pub fn update(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        f: impl FnOnce(&mut Value),
    ) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        let resource = registry::stored(resource)?;
        let changed = self.cluster.store.write(|writer| writer.modify(resource, &key, f));
        changed.map(|object| object.value.clone())
    }

    /// Sets a label of an object; `None` takes it away.
    pub fn label(&self, resource: &str, namespace: &str, name: &str, label: &str, value: Option<&str>) {
        self.set(resource, namespace, name, "labels", label, value);
    }

    /// Sets an annotation of an object; `None` takes it away.
    pub fn annotate(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        annotation: &str,
        value: Option<&str>,
    ) {
        self.set(resource, namespace, name, "annotations", annotation, value);
    }

    fn set(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        section: &str,
        key: &str,
        value: Option<&str>,
    ) {
        let changed = self.update(resource, namespace, name, |object| {
            let metadata = object::metadata(object);
            let entries = metadata.entry(section).or_insert_with(|| json!({}));
            match (entries.as_object_mut(), value) {
                (Some(entries), Some(value)) => drop(entries.insert(key.to_owned(), value.into())),
                (Some(entries), None) => drop(entries.remove(key)),
                (None, _) => {}
            }
            if entries.as_object().is_some_and(serde_json::Map::is_empty) {
                metadata.remove(section);
            }
        });
        assert!(changed.is_some(), "there is no {namespace}/{name} among the {resource}");
    }

    /// Deletes an object as `kubectl delete` does: one with finalizers is terminating until those are gone.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let resource = registry::known(resource);
        self.cluster.store.write(|writer| deletion::delete_gracefully(writer, resource, &key));
    }

    /// Takes an object out at once, whatever its finalizers, and answers its last state.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        let resource = registry::stored(resource)?;
        let removed = self.cluster.store.write(|writer| writer.remove(resource, &key));
        removed.map(|object| object.value.clone())
    }

    /// Deletes a claim and recreates it from the same manifest: see
    /// [`FakeApiServer::replace_claim`](crate::FakeApiServer::replace_claim).
    pub fn replace_claim(&self, namespace: &str, name: &str) -> Value {
        self.replace_claim_with(namespace, name, |_| {})
    }

    /// The same with a manifest that was changed before.
    pub fn replace_claim_with(&self, namespace: &str, name: &str, f: impl FnOnce(&mut Value)) -> Value {
        let key = (namespace.to_owned(), name.to_owned());
        let claims = registry::known("persistentvolumeclaims");
        self.cluster.store.write(|writer| {
            let Some(old) = writer.remove(claims, &key) else {
                panic!("there is no claim {namespace}/{name} to replace");
            };
            let mut claim = volumes::manifest(&old.value);
            f(&mut claim);
            admission::stamp(claims, &mut claim);
            admission::set_defaults(claims, &mut claim);
            if object::text(&old.value, "/status/phase") == "Bound" {
                volumes::bind_anew(writer, &mut claim, &old.value);
            }
            writer.put(claims, claim).value.clone()
        })
    }

    /// What a snapshot has the data of: see [`FakeApiServer::snapshot_data`](crate::FakeApiServer::snapshot_data).
    pub fn snapshot_data(&self, namespace: &str, name: &str) -> Option<SnapshotData> {
        self.cluster.data(&self.get("volumesnapshots", namespace, name)?)
    }

    /// The snapshot whose data a claim has: see [`FakeApiServer::restored_from`](crate::FakeApiServer::restored_from).
    pub fn restored_from(&self, namespace: &str, name: &str) -> Option<String> {
        let claim = self.get("persistentvolumeclaims", namespace, name)?;
        self.cluster.restored(object::text(&claim, "/spec/volumeName"))
    }

    /// Lets a pod use a claim: see [`FakeApiServer::use_claim`](crate::FakeApiServer::use_claim).
    pub fn use_claim(&self, namespace: &str, name: &str) {
        self.annotate("persistentvolumeclaims", namespace, name, volumes::SELECTED_NODE, Some("node-1"));
    }

    /// Sets the source of a snapshot's data, which is not known for one that was stored directly.
    pub fn set_snapshot_data(&self, namespace: &str, name: &str, data: SnapshotData) {
        let snapshot = self.get("volumesnapshots", namespace, name);
        let snapshot = snapshot.unwrap_or_else(|| panic!("there is no snapshot {namespace}/{name}"));
        self.cluster.set_data(object::uid(&snapshot), data);
    }

    /// The content of a claim's volume: see [`FakeApiServer::content`](crate::FakeApiServer::content).
    pub fn content(&self, namespace: &str, claim: &str) -> Value {
        self.volume_of(namespace, claim)
            .map(|volume| self.cluster.contents.of_volume(&volume))
            .unwrap_or_default()
    }

    /// Sets the content of a claim's volume.
    pub fn set_content(&self, namespace: &str, claim: &str, content: Value) {
        let volume = self.volume_of(namespace, claim);
        let volume = volume.unwrap_or_else(|| panic!("claim {namespace}/{claim} has no volume"));
        self.cluster.contents.change([volume.as_str()], |old| *old = content.clone());
    }

    fn volume_of(&self, namespace: &str, claim: &str) -> Option<String> {
        let claim = self.get("persistentvolumeclaims", namespace, claim)?;
        Some(object::text(&claim, "/spec/volumeName").to_owned()).filter(|volume| !volume.is_empty())
    }

    /// What a snapshot holds: see [`FakeApiServer::snapshot_content`](crate::FakeApiServer::snapshot_content).
    pub fn snapshot_content(&self, namespace: &str, name: &str) -> Option<Value> {
        self.cluster.contents.of_snapshot(object::uid(&self.get("volumesnapshots", namespace, name)?))
    }

    /// Sets what a snapshot holds, which was put in.
    pub fn set_snapshot_content(&self, namespace: &str, name: &str, content: Value) {
        let snapshot = self.get("volumesnapshots", namespace, name);
        let snapshot = snapshot.unwrap_or_else(|| panic!("there is no snapshot {namespace}/{name}"));
        self.cluster.contents.set_snapshot(object::uid(&snapshot), content);
    }

    /// Freezes a pod: see [`FakeApiServer::freeze`](crate::FakeApiServer::freeze).
    pub fn freeze(&self, namespace: &str, pod: &str) {
        self.cluster.pods.freeze(namespace, pod);
    }

    /// Thaws a pod.
    pub fn thaw(&self, namespace: &str, pod: &str) {
        self.cluster.pods.thaw(namespace, pod);
    }

    /// When a pod was frozen, in order; the last of them may last.
    pub fn freezes(&self, namespace: &str, pod: &str) -> Vec<Freeze> {
        self.cluster.pods.freezes(namespace, pod)
    }

    /// Whether a pod is frozen.
    pub fn is_frozen(&self, namespace: &str, pod: &str) -> bool {
        self.freezes(namespace, pod).last().is_some_and(|last| last.until.is_none())
    }

    /// All processes that were started in containers: see [`FakeApiServer::processes`](crate::FakeApiServer::processes).
    pub fn processes(&self) -> Vec<Process> {
        self.cluster.processes.list()
    }
}
