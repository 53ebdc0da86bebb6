//! ResourceQuotas on the number of objects: admission, and their status.
//!
//! Only `count/<resource>.<group>` is known of what a quota can limit.

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::object;
use crate::registry::{Resource, known};
use crate::store::{Change, Kind, Writer};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};

const QUOTAS: &str = "resourcequotas";

fn count_of(resource: &Resource) -> String {
    format!("count/{}", resource.qualified())
}

/// How many of a namespace's objects count: those that are there, terminating ones too, and those that went a moment
/// ago, as long as the quota has not noticed.
fn used(cluster: &Cluster, writer: &Writer<'_>, resource: &Resource, namespace: &str) -> usize {
    let there = writer.count(resource.plural, namespace);
    let delay = cluster.quota_delay(namespace);
    if delay.is_zero() || resource.plural != "volumesnapshots" {
        return there;
    }
    let since = Instant::now().checked_sub(delay);
    there + writer.removed_snapshots(namespace, since)
}

/// Whether the namespace's quotas have room for one more.
pub(crate) fn check(
    cluster: &Cluster,
    writer: &Writer<'_>,
    resource: &Resource,
    object: &Value,
) -> Result<(), Failure> {
    if !resource.namespaced {
        return Ok(());
    }
    let what = count_of(resource);
    let namespace = object::namespace(object);
    for quota in writer.list_in(QUOTAS, namespace) {
        let Some(limit) = quota.value["spec"]["hard"].get(&what).and_then(number) else { continue };
        let used = used(cluster, writer, resource, namespace);
        if used >= limit {
            let why = format!(
                "exceeded quota: {}, requested: {what}=1, used: {what}={used}, limited: {what}={limit}",
                object::name(&quota.value)
            );
            return Err(Failure::forbidden(resource.group, resource.plural, object::name(object), &why));
        }
    }
    Ok(())
}

/// A quantity that is a number of objects.
fn number(quantity: &Value) -> Option<usize> {
    match quantity {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|number| usize::try_from(number).ok()),
    }
}

/// Keeps what the quotas say is used, until the store is gone. Who is let in does not depend on it.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    while let Some(change) = changes.recv().await {
        let namespace = &change.key.0;
        if change.resource.plural == QUOTAS && change.kind != Kind::Deleted {
            recount(&cluster, namespace);
        } else if change.kind != Kind::Modified && !namespace.is_empty() {
            recount(&cluster, namespace);
            let delay = cluster.quota_delay(namespace);
            if change.kind == Kind::Deleted && !delay.is_zero() {
                let (cluster, namespace) = (cluster.clone(), namespace.clone());
                tokio::spawn(async move {
                    sleep(delay).await;
                    recount(&cluster, &namespace);
                });
            }
        }
    }
}

fn recount(cluster: &Cluster, namespace: &str) {
    cluster.store.write(|writer| {
        let quotas: Vec<Value> = writer.list_in(QUOTAS, namespace).map(|quota| quota.value.clone()).collect();
        for quota in quotas {
            let hard = quota["spec"]["hard"].clone();
            let used: Map<String, Value> = hard
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(what, _)| {
                    let resource = crate::registry::RESOURCES.iter().find(|one| count_of(one) == *what)?;
                    Some((what.clone(), used(cluster, writer, resource, namespace).to_string().into()))
                })
                .collect();
            let key = (namespace.to_owned(), object::name(&quota).to_owned());
            writer.modify(known(QUOTAS), &key, |quota| quota["status"] = json!({"hard": hard, "used": used}));
        }
    });
}
