//! Which claims there are to snapshot: chosen by name or by selector, and bound to a volume.

use futures::future::join_all;

use super::{Place, Progress, fail};
use crate::{
    api::Claim,
    cluster::{Cause, Cluster},
    report::{ClaimReport, Failure},
    settings::ClaimChoice,
};

/// Finds the chosen claims, gives each its place in the report, and returns those that can be
/// snapshotted, each with its place. One that cannot has failed, and holds up no other.
///
/// # Errors
/// If the choice as a whole came to nothing.
pub(super) async fn claims(
    cluster: &Cluster,
    choice: &ClaimChoice,
    progress: &Progress,
) -> Result<Vec<(usize, String)>, Failure> {
    let found: Vec<(String, Result<(), Failure>)> = match choice {
        ClaimChoice::Names(names) => by_name(cluster, names).await,
        ClaimChoice::Selector(selector) => {
            let claims = cluster.claims(selector).await?;
            if claims.is_empty() {
                return Err(Failure {
                    message: format!(
                        "no claim in namespace {} matches {selector:?}; check SNAPSHOT_PVC_SELECTOR and the \
                         claims' labels",
                        cluster.namespace()
                    ),
                    may_pass: false,
                });
            }
            claims.into_iter().map(|claim| (claim.metadata.name.clone(), usable(cluster, &claim))).collect()
        }
    };
    *progress.claims.borrow_mut() = found.iter().map(|(name, _)| ClaimReport::new(name.clone())).collect();
    let mut claims = Vec::new();
    for (index, (name, result)) in found.into_iter().enumerate() {
        match result {
            Ok(()) => claims.push((index, name)),
            Err(failure) => fail(Place { progress, index }, &name, failure),
        }
    }
    Ok(claims)
}

async fn by_name(cluster: &Cluster, names: &[String]) -> Vec<(String, Result<(), Failure>)> {
    let answers = join_all(names.iter().map(|name| cluster.claim(name))).await;
    let mut unchecked = None;
    let found = names
        .iter()
        .zip(answers)
        .map(|(name, answer)| {
            let result = match answer {
                Ok(claim) => usable(cluster, &claim),
                // The bash script's Role says nothing of claims, and is enough to run.
                Err(error) if error.cause() == Cause::Forbidden => {
                    unchecked = Some(error);
                    Ok(())
                }
                Err(error) if error.cause() == Cause::NotFound => Err(Failure {
                    message: format!(
                        "there is no claim {name} in namespace {}; check SNAPSHOT_PVC_NAMES and \
                         SNAPSHOT_NAMESPACE",
                        cluster.namespace()
                    ),
                    may_pass: false,
                }),
                Err(error) => Err(error.into()),
            };
            (name.clone(), result)
        })
        .collect();
    if let Some(error) = unchecked {
        tracing::warn!("claims are not checked before they are snapshotted: {error}");
    }
    found
}

/// Whether a claim can be snapshotted. The snapshot controller would keep a snapshot of one that
/// cannot for ever, and try again and again.
fn usable(cluster: &Cluster, claim: &Claim) -> Result<(), Failure> {
    let name = &claim.metadata.name;
    let namespace = cluster.namespace();
    let (problem, may_pass) = match claim.status.phase.as_str() {
        _ if claim.metadata.deletion_timestamp.is_some() => ("is being deleted", false),
        "Bound" => return Ok(()),
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
