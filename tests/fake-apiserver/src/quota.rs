//! ResourceQuotas on the number of objects and on storage: admission, and their status.
//!
//! Of what a quota can limit, `count/<resource>.<group>`, `pods`, `persistentvolumeclaims` and `requests.storage` are known.

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

const STORAGE: &str = "requests.storage";

fn count_of(resource: &Resource) -> String {
    format!("count/{}", resource.qualified())
}

/// How much of something that a quota limits the namespace uses; `None` if that is not known here.
fn used_of(cluster: &Cluster, writer: &Writer<'_>, what: &str, namespace: &str) -> Option<u64> {
    let number = match what {
        // Those that have ended do not count.
        "pods" => {
            let is_over = |pod: &Value| matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed");
            writer.list_in("pods", namespace).filter(|pod| !is_over(&pod.value)).count()
        }
        "persistentvolumeclaims" => writer.count(what, namespace),
        STORAGE => {
            let claims = writer.list_in("persistentvolumeclaims", namespace);
            return Some(claims.map(|claim| storage(&claim.value)).sum());
        }
        _ => {
            let resource = crate::registry::RESOURCES.iter().find(|one| count_of(one) == what)?;
            used(cluster, writer, resource, namespace)
        }
    };
    u64::try_from(number).ok()
}

/// How much of something that a quota limits a new object takes.
fn requested(resource: &Resource, what: &str, object: &Value) -> u64 {
    match (resource.plural, what) {
        ("pods", "pods") | ("persistentvolumeclaims", "persistentvolumeclaims") => 1,
        ("persistentvolumeclaims", STORAGE) => storage(object),
        _ => u64::from(count_of(resource) == what),
    }
}

/// The bytes that a claim asks for.
fn storage(claim: &Value) -> u64 {
    object::bytes(object::text(claim, "/spec/resources/requests/storage")).unwrap_or(0)
}

/// An amount as a message shows it: of storage in the largest unit that divides it.
fn shown(what: &str, amount: u64) -> String {
    let units = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut amount, mut unit) = (amount, "");
    for larger in units.into_iter().filter(|_| what == STORAGE) {
        if amount == 0 || amount % 1024 != 0 {
            break;
        }
        (amount, unit) = (amount / 1024, larger);
    }
    format!("{amount}{unit}")
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
    let namespace = object::namespace(object);
    for quota in writer.list_in(QUOTAS, namespace) {
        let Some(hard) = quota.value["spec"]["hard"].as_object() else { continue };
        for (what, limit) in hard {
            let (asked, Some(limit)) = (requested(resource, what, object), number(limit)) else { continue };
            let used = used_of(cluster, writer, what, namespace).unwrap_or(0);
            if asked > 0 && used.saturating_add(asked) > limit {
                let [asked, used, limit] = [asked, used, limit].map(|amount| shown(what, amount));
                let why = format!(
                    "exceeded quota: {}, requested: {what}={asked}, used: {what}={used}, limited: {what}={limit}",
                    object::name(&quota.value)
                );
                return Err(Failure::forbidden(resource.group, resource.plural, object::name(object), &why));
            }
        }
    }
    Ok(())
}

/// A quantity that is a number of objects or of bytes.
fn number(quantity: &Value) -> Option<u64> {
    match quantity {
        Value::String(text) => object::bytes(text),
        other => other.as_u64(),
    }
}

/// Keeps what the quotas say is used, until the store is gone. Who is let in does not depend on it.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    while let Some(change) = changes.recv().await {
        let namespace = &change.key.0;
        if change.resource.plural == QUOTAS && change.kind != Kind::Deleted {
            recount(&cluster, namespace);
        } else if !namespace.is_empty() && (change.kind != Kind::Modified || change.resource.plural == "pods")
        {
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
                    let used = used_of(cluster, writer, what, namespace)?;
                    Some((what.clone(), shown(what, used).into()))
                })
                .collect();
            let key = (namespace.to_owned(), object::name(&quota).to_owned());
            writer.modify(known(QUOTAS), &key, |quota| quota["status"] = json!({"hard": hard, "used": used}));
        }
    });
}
