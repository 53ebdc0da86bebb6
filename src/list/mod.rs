//! The command `list`: which snapshots there are of the chosen claims, and why each stays or goes.
//!
//! Here is what is asked of the cluster. What is made of the answers is in `rows`, and
//! how it looks in `table` and `data`.

mod data;
mod rows;
mod table;

use std::collections::HashSet;

use k8s_openapi::jiff::Timestamp;

pub use data::{json, yaml};
pub use rows::{Found, Retention, Row, State, rows};
pub use table::{Look, table};

use crate::{
    cluster::{Cause, Cluster, Scope},
    names,
    report::Failure,
    settings::{ClaimChoice, Settings},
    text,
};

/// What is to be listed besides what the settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Whether those of other schedules as well.
    pub all_schedules: bool,
    /// Whether of all namespaces.
    pub all_namespaces: bool,
}

/// What there is.
#[derive(Debug)]
pub struct Listing {
    /// The snapshots, by claim, newest first.
    pub rows: Vec<Row>,
    /// Whether they may be of more than one namespace.
    pub namespaces: bool,
    /// What is to be known besides.
    pub warnings: Vec<String>,
    /// The claims that were named, of which there is neither a trace nor a snapshot.
    pub missing: Vec<String>,
    /// Where was looked, in words.
    pub place: String,
}

/// Lists the snapshots of the chosen claims; the verdicts are those of `now`.
///
/// # Errors
/// If the cluster does not tell.
pub async fn list(
    cluster: &Cluster,
    settings: &Settings,
    extent: Extent,
    now: Timestamp,
) -> Result<Listing, Failure> {
    let chosen_namespaces = match &settings.namespace_selector {
        Some(selector) if !extent.all_namespaces => {
            Some(cluster.namespaces(selector).await?.into_iter().collect::<HashSet<String>>())
        }
        _ => None,
    };
    let is_one = !extent.all_namespaces && chosen_namespaces.is_none();
    let (scope, place) = match (is_one, &chosen_namespaces) {
        (true, _) => {
            let namespace = cluster.namespace().to_owned();
            (Scope::Namespace(namespace.clone()), format!("in namespace {namespace}"))
        }
        (false, Some(chosen)) => {
            (Scope::All, format!("in {}", text::count(chosen.len(), "chosen namespace")))
        }
        (false, None) => (Scope::All, "in any namespace".to_owned()),
    };
    let is_chosen =
        |namespace: &str| chosen_namespaces.as_ref().is_none_or(|chosen| chosen.contains(namespace));

    let selector = match extent.all_schedules {
        true => String::new(),
        false => format!("{}={}", names::JOB_LABEL, settings.job),
    };
    let claim_selector = match &settings.claims {
        ClaimChoice::Selector(selector) => selector.as_str(),
        ClaimChoice::Names(_) => "",
    };
    let mut warnings = Vec::new();
    let claims = match cluster.claims(&scope, claim_selector, Some).await {
        Ok(claims) => Some(claims),
        // Whoever may not read claims is told of the snapshots all the same.
        Err(error) if error.cause() == Cause::Forbidden && claim_selector.is_empty() => {
            warnings.push(format!(
                "claims are not read, so their retention annotations are not heeded and snapshots of an earlier \
                 claim are not told apart: {error}"
            ));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let mut records = cluster.records(&scope, &selector).await?;
    records.retain(|record| is_chosen(&record.namespace));
    let claims = claims.map(|claims| {
        claims.into_iter().filter(|claim| is_chosen(&claim.metadata.namespace)).collect::<Vec<_>>()
    });

    let found = rows(records, claims.as_deref(), settings, now);
    warnings.extend(found.warnings);
    Ok(Listing { rows: found.rows, namespaces: !is_one, warnings, missing: found.missing, place })
}
