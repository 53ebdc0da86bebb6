//! Which claims there are to snapshot: chosen by name or by selector, bound to a volume, each with
//! the rules that hold for it.

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;

use super::{Place, Progress, fail};
use crate::{
    api::{Claim, ClaimAnnotations},
    cluster::{Cause, Cluster},
    report::{ClaimReport, Failure},
    retention::Rules,
    settings::{ClaimChoice, Settings},
};

/// A claim that can be snapshotted.
pub(super) struct Chosen {
    /// Its name.
    pub(super) name: String,
    /// Since when it exists: snapshots that are older were taken of another claim of that name.
    /// `None` if claims may not be read.
    pub(super) since: Option<Timestamp>,
    /// The rules that hold for it, or what is wrong with those that it is annotated with: then
    /// nothing of it is deleted.
    pub(super) retention: Result<Rules, String>,
}

/// Finds the chosen claims, gives each its place in the report, and returns those that can be
/// snapshotted, each with its place. One that cannot has failed, and holds up no other.
///
/// # Errors
/// If the choice as a whole came to nothing.
pub(super) async fn claims(
    cluster: &Cluster,
    settings: &Settings,
    progress: &Progress,
) -> Result<Vec<(usize, Chosen)>, Failure> {
    let found = match &settings.claims {
        ClaimChoice::Names(names) => by_name(cluster, names, settings).await,
        ClaimChoice::Selector(selector) => by_selector(cluster, selector, settings).await?,
    };
    *progress.claims.borrow_mut() = found.iter().map(|(name, _)| ClaimReport::new(name.clone())).collect();
    let mut claims = Vec::new();
    for (index, (name, result)) in found.into_iter().enumerate() {
        match result {
            Ok(chosen) => {
                if let Err(problem) = &chosen.retention {
                    tracing::error!(claim = name, "{problem}");
                }
                claims.push((index, chosen));
            }
            Err(failure) => fail(Place { progress, index }, &name, failure),
        }
    }
    Ok(claims)
}

/// The chosen claims by name, each usable or not.
type Found = Vec<(String, Result<Chosen, Failure>)>;

async fn by_selector(cluster: &Cluster, selector: &str, settings: &Settings) -> Result<Found, Failure> {
    let claims = cluster.claims(selector).await?;
    if claims.is_empty() {
        return Err(Failure {
            message: format!(
                "no claim in namespace {} matches {selector:?}; check SNAPSHOT_PVC_SELECTOR and the claims' \
                 labels",
                cluster.namespace()
            ),
            may_pass: false,
        });
    }
    Ok(claims
        .into_iter()
        .map(|claim| (claim.metadata.name.clone(), choose(cluster, claim, settings)))
        .collect())
}

async fn by_name(cluster: &Cluster, names: &[String], settings: &Settings) -> Found {
    let answers = join_all(names.iter().map(|name| cluster.claim(name))).await;
    let mut unread = None;
    let found = names
        .iter()
        .zip(answers)
        .map(|(name, answer)| {
            let result = match answer {
                Ok(claim) => choose(cluster, claim, settings),
                // The bash script's Role says nothing of claims, and is enough to run.
                Err(error) if error.cause() == Cause::Forbidden => {
                    unread = Some(error);
                    Ok(Chosen { name: name.clone(), since: None, retention: Ok(settings.retention.clone()) })
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
    if let Some(error) = unread {
        tracing::warn!(
            "claims are not checked before they are snapshotted, and their retention annotations are not heeded: \
             {error}"
        );
    }
    found
}

/// Takes a claim if it can be snapshotted. The snapshot controller would keep a snapshot of one
/// that cannot for ever, and try again and again.
fn choose(cluster: &Cluster, claim: Claim, settings: &Settings) -> Result<Chosen, Failure> {
    let name = claim.metadata.name;
    let namespace = cluster.namespace();
    let (problem, may_pass) = match claim.status.phase.as_str() {
        _ if claim.metadata.deletion_timestamp.is_some() => ("is being deleted", false),
        "Bound" => {
            let retention = rules(&name, &claim.metadata.annotations, &settings.retention);
            return Ok(Chosen { name, since: claim.metadata.creation_timestamp, retention });
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

/// The rules that hold for a claim: its own annotation, else that of k8s-snapshots, else the
/// settings'. An annotation that cannot be understood is never passed over, for what it wanted kept
/// would be deleted.
fn rules(claim: &str, annotations: &ClaimAnnotations, settings: &Rules) -> Result<Rules, String> {
    let (annotation, rules) = match annotations {
        ClaimAnnotations { retention: Some(text), .. } => ("volume-snapshotter/retention", text.parse()),
        ClaimAnnotations { deltas: Some(text), .. } => {
            ("backup.kubernetes.io/deltas", Rules::of_deltas(text))
        }
        ClaimAnnotations { retention: None, deltas: None } => return Ok(settings.clone()),
    };
    rules.map_err(|error| format!("the annotation {annotation} of claim {claim} is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claims_annotation_wins_over_that_of_k8s_snapshots_and_both_over_the_settings() {
        let settings: Rules = "last=5".parse().expect("rules");
        let rules = |retention: Option<&str>, deltas: Option<&str>| {
            let annotations = ClaimAnnotations {
                retention: retention.map(str::to_owned),
                deltas: deltas.map(str::to_owned),
            };
            super::rules("data", &annotations, &settings).map(|rules| rules.to_string())
        };
        assert_eq!(rules(None, None).as_deref(), Ok("last=5"));
        assert_eq!(rules(None, Some("PT1H P1D")).as_deref(), Ok("deltas=PT1H P1D"));
        assert_eq!(rules(Some("daily=7"), Some("PT1H P1D")).as_deref(), Ok("daily=7"));
        // Nothing that is there is passed over, not even if it is empty.
        for (retention, deltas) in
            [(Some("dayly=7"), Some("PT1H P1D")), (Some(""), None), (None, Some("")), (None, Some("P1D"))]
        {
            let problem = rules(retention, deltas).expect_err("not understood");
            assert!(
                problem.starts_with("the annotation ")
                    && problem.contains(" of claim data is not understood: "),
                "{problem}"
            );
        }
    }
}
