//! The controller that empties namespaces that are being deleted, and then takes them out.

use crate::cluster::Cluster;
use crate::deletion;
use crate::object;
use crate::registry::{self, RESOURCES};
use crate::store::{Change, Kind};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// Runs until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    let mut going: HashSet<String> = HashSet::new();
    while let Some(change) = changes.recv().await {
        if change.resource.plural == "namespaces" {
            let name = &change.key.1;
            if change.kind == Kind::Deleted {
                going.remove(name);
            } else if object::is_deleting(&change.object.value) && going.insert(name.clone()) {
                empty(&cluster, name);
                finish(&cluster, name);
            }
        } else if change.kind == Kind::Deleted && going.contains(&change.key.0) {
            finish(&cluster, &change.key.0);
        }
    }
}

/// Deletes everything in a namespace, as a client would. What has finalizers stays until those are gone.
fn empty(cluster: &Cluster, namespace: &str) {
    for resource in RESOURCES.iter().filter(|resource| resource.namespaced && resource.is_stored()) {
        for object in cluster.store.list(resource.plural, Some(namespace)) {
            let key = (namespace.to_owned(), object::name(&object.value).to_owned());
            cluster.store.write(|writer| deletion::delete_gracefully(writer, resource, &key));
        }
    }
}

/// Takes a namespace out if nothing is left in it.
fn finish(cluster: &Cluster, namespace: &str) {
    cluster.store.write(|writer| {
        if writer.population(namespace) == 0 {
            writer.remove(registry::known("namespaces"), &(String::new(), namespace.to_owned()));
        }
    });
}
