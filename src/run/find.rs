//! Which claims there are to snapshot: chosen by name or by selector, bound to a volume, each with
//! the rules that hold for it.

use std::collections::HashSet;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{Place, Progress, fail};
use crate::{
    api::Claim,
    cluster::{Cause, Cluster, Scope},
    report::{ClaimReport, Failure},
    retention::{Rules, rules_of_claim},
    settings::{ClaimChoice, Settings},
    snapshot::ClaimId,
    text,
};

/// A claim that can be snapshotted.
pub(super) struct Chosen {
    /// Which claim.
    pub(super) id: ClaimId,
    /// What it is called in messages: with its namespace, if the run is about more than one.
    pub(super) called: String,
    /// Since when it exists: snapshots that are older were taken of another claim of that name.
    /// `None` if claims may not be read.
    pub(super) since: Option<Timestamp>,
    /// When that was read.
    pub(super) read: Instant,
    /// The rules that hold for it, or what is wrong with those that it is annotated with: then
    /// nothing of it is deleted.
    pub(super) retention: Result<Rules, String>,
}

/// Finds the chosen claims that are in this pod's shard, gives each its place in the report, and returns those that can be
/// snapshotted, each with its place, and where their snapshots are. One that cannot has failed, and
/// holds up no other.
///
/// # Errors
/// If the choice as a whole came to nothing.
pub(super) async fn claims(
    cluster: &Cluster,
    settings: &Settings,
    progress: &Progress,
) -> Result<(Scope, Vec<(usize, Chosen)>), Failure> {
    let scope = match settings.namespace_selector {
        Some(_) => Scope::All,
        None => Scope::Namespace(cluster.namespace().to_owned()),
    };
    let namespaces = match &settings.namespace_selector {
        Some(selector) => namespaces(cluster, selector).await?,
        None => vec![cluster.namespace().to_owned()],
    };
    let read = Instant::now();
    let found = match &settings.claims {
        ClaimChoice::Names(names) => {
            let of = |namespace: &String| {
                let id = |name: &String| ClaimId { namespace: namespace.clone(), name: name.clone() };
                names.iter().map(id).filter(|id| settings.shard.holds(id)).collect::<Vec<_>>()
            };
            by_name(cluster, namespaces.iter().flat_map(of).collect(), settings).await
        }
        ClaimChoice::Selector(selector) => {
            by_selector(cluster, &scope, &namespaces, selector, settings).await?
        }
    };
    let called = |id: &ClaimId| match scope {
        Scope::Namespace(_) => id.name.clone(),
        Scope::All => format!("{}/{}", id.namespace, id.name),
    };
    *progress.claims.borrow_mut() = found.iter().map(|(id, _)| ClaimReport::new(called(id))).collect();
    let mut claims = Vec::new();
    for (index, (id, result)) in found.into_iter().enumerate() {
        let called = called(&id);
        match result {
            Ok(Usable { since, retention }) => {
                match &retention {
                    Err(problem) => tracing::error!(claim = called, "{problem}"),
                    Ok(rules) if *rules != settings.retention => {
                        tracing::info!(claim = called, retention = %rules, "an annotation gives the claim its own rules");
                    }
                    Ok(_) => {}
                }
                claims.push((index, Chosen { id, called, since, read, retention }));
            }
            Err(failure) => fail(Place { progress, index }, &called, failure),
        }
    }
    Ok((scope, claims))
}

/// What is known of a claim that can be snapshotted; see [`Chosen`].
struct Usable {
    since: Option<Timestamp>,
    retention: Result<Rules, String>,
}

/// The chosen claims, each usable or not.
type Found = Vec<(ClaimId, Result<Usable, Failure>)>;

async fn namespaces(cluster: &Cluster, selector: &str) -> Result<Vec<String>, Failure> {
    let namespaces = cluster.namespaces(selector).await?;
    if namespaces.is_empty() {
        return Err(Failure {
            message: format!(
                "no namespace matches {selector:?}; check SNAPSHOT_NAMESPACE_SELECTOR and the namespaces' labels"
            ),
            may_pass: false,
        });
    }
    Ok(namespaces)
}

async fn by_selector(
    cluster: &Cluster,
    scope: &Scope,
    namespaces: &[String],
    selector: &str,
    settings: &Settings,
) -> Result<Found, Failure> {
    let chosen: HashSet<&String> = namespaces.iter().collect();
    let mut any = false;
    let judged = |claim: Claim| {
        let id = ClaimId { namespace: claim.metadata.namespace.clone(), name: claim.metadata.name.clone() };
        let is_chosen = chosen.contains(&id.namespace);
        any |= is_chosen;
        (is_chosen && settings.shard.holds(&id)).then(|| {
            let usable = usable(&id, &claim, settings);
            (id, usable)
        })
    };
    let found = cluster.claims(scope, selector, judged).await?;
    // Of all shards together: that one of them has none is in the nature of sharing.
    if !any {
        let place = match namespaces {
            [namespace] => format!("namespace {namespace}"),
            many => text::count(many.len(), "chosen namespace"),
        };
        return Err(Failure {
            message: format!(
                "no claim in {place} matches {selector:?}; check SNAPSHOT_PVC_SELECTOR and the claims' labels"
            ),
            may_pass: false,
        });
    }
    Ok(found)
}

async fn by_name(cluster: &Cluster, ids: Vec<ClaimId>, settings: &Settings) -> Found {
    let answers = join_all(ids.iter().map(|id| cluster.claim(id))).await;
    let mut unread = None;
    let found = ids
        .into_iter()
        .zip(answers)
        .map(|(id, answer)| {
            let result = match answer {
                Ok(claim) => usable(&id, &claim, settings),
                // The bash script's Role says nothing of claims, and is enough to run.
                Err(error) if error.cause() == Cause::Forbidden => {
                    unread = Some(error);
                    Ok(Usable { since: None, retention: Ok(settings.retention.clone()) })
                }
                Err(error) if error.cause() == Cause::NotFound => Err(Failure {
                    message: format!(
                        "there is no claim {} in namespace {}; check SNAPSHOT_PVC_NAMES and SNAPSHOT_NAMESPACE",
                        id.name, id.namespace
                    ),
                    may_pass: false,
                }),
                Err(error) => Err(error.into()),
            };
            (id, result)
        })
        .collect();
    if let Some(error) = unread {
        tracing::warn!(
            "claims are not checked before they are snapshotted, their retention annotations are not heeded, and \
             snapshots of earlier claims of their names are not told from their own: {error}"
        );
    }
    found
}

/// Whether a claim can be snapshotted. The snapshot controller would keep a snapshot of one that
/// cannot for ever, and try again and again.
fn usable(id: &ClaimId, claim: &Claim, settings: &Settings) -> Result<Usable, Failure> {
    let ClaimId { namespace, name } = id;
    let (problem, may_pass) = match claim.status.phase.as_str() {
        _ if claim.metadata.deletion_timestamp.is_some() => ("is being deleted", false),
        "Bound" => {
            let retention = rules_of_claim(name, &claim.metadata.annotations, &settings.job)
                .map(|rules| rules.unwrap_or_else(|| settings.retention.clone()));
            return Ok(Usable { since: claim.metadata.creation_timestamp, retention });
        }
        "Lost" => ("is Lost: its volume is gone", false),
        "Pending" => ("is Pending: it has no volume yet", true),
        _ => ("is not Bound", true),
    };
    Err(Failure {
        message: format!(
            "claim {name} in namespace {namespace} {problem}; see kubectl describe pvc {name} -n {namespace}"
        ),
        may_pass,
    })
}
