//! The command `list`: which snapshots there are of the chosen claims, and why each stays or goes.
//!
//! Here is what is asked of the cluster. Which schedules that tells of is in `schedules`, what is
//! said of each snapshot in `rows`, and how it looks in `table` and `data`.

mod data;
mod rows;
mod schedules;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::jiff::Timestamp;

pub use data::{json, names, yaml};
pub use rows::{Found, Question, Retention, Row, State, rows};
pub use schedules::{Location, Origin, Schedule};
pub use table::{Look, table};

use crate::{
    api::{Claim, CronJob},
    cluster::{Cluster, Error, ErrorKind, Scope},
    names,
    report::Failure,
    settings::{ClaimChoice, Settings},
    snapshot::{ClaimId, Record},
    text,
};
use schedules::{ConfigMaps, ReadMap};

/// What is to be listed besides what the settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Whether those of other schedules as well.
    pub all_schedules: bool,
    /// Whether of all namespaces.
    pub all_namespaces: bool,
}

/// What the user gave, and what no schedule in the cluster overrules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Which schedule (`--job` or `SNAPSHOT_JOB`).
    pub schedule: bool,
    /// Which rules (`--retention` or `SNAPSHOT_RETENTION`).
    pub retention: bool,
}

/// What there is.
#[derive(Debug)]
pub struct Listing {
    /// The snapshots, by claim, newest first.
    pub rows: Vec<Row>,
    /// Whether they may be of more than one namespace.
    pub namespaces: bool,
    /// Whether they are of more than one schedule.
    pub schedules: bool,
    /// By which rules was judged, and what is not shown.
    pub notes: Vec<String>,
    /// What is to be known besides.
    pub warnings: Vec<String>,
    /// The claims that were named, of which there is neither a trace nor a snapshot.
    pub missing: Vec<String>,
    /// Where was looked, in words.
    pub location: String,
}

/// Lists the snapshots of the chosen claims; the verdicts are those of `now`.
///
/// # Errors
/// If the cluster does not tell.
pub async fn list(
    cluster: &Cluster,
    settings: &Settings,
    given: Given,
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
    let (scope, location) = match (is_one, &chosen_namespaces) {
        (true, _) => {
            let namespace = cluster.namespace().to_owned();
            (Scope::Namespace(namespace.clone()), format!("in namespace {}", text::name(&namespace)))
        }
        (false, Some(chosen)) => {
            (Scope::All, format!("in {}", text::count(chosen.len(), "chosen namespace")))
        }
        (false, None) => (Scope::All, "in any namespace".to_owned()),
    };
    let is_chosen =
        |namespace: &str| chosen_namespaces.as_ref().is_none_or(|chosen| chosen.contains(namespace));

    let claim_selector = match &settings.claims {
        ClaimChoice::Selector(selector) => selector.as_str(),
        ClaimChoice::Names(_) => "",
    };
    let mut warnings = Vec::new();
    let claims = match cluster.claims(&scope, "", Some).await {
        Ok(claims) => Some(claims),
        // Whoever may not read claims is told of the snapshots all the same.
        Err(error) if error.kind() == ErrorKind::Forbidden && claim_selector.is_empty() => {
            warnings.push(format!(
                "claims are not read, so their retention annotations are not heeded and snapshots of an earlier \
                 claim are not told apart: {error}"
            ));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let selected = match claim_selector {
        "" => None,
        selector => Some(matching(cluster, &scope, selector).await?),
    };
    let mut records = cluster.records(&scope, "").await?;
    records.retain(|record| is_chosen(&record.namespace));
    let claims = claims.map(|claims| {
        claims.into_iter().filter(|claim| is_chosen(&claim.metadata.namespace)).collect::<Vec<Claim>>()
    });

    let known = schedules(cluster, &scope, settings, given, &records).await?;
    warnings.extend(known.warnings);
    let question = Question {
        claims: claims.as_deref(),
        selected: selected.as_ref(),
        settings,
        schedules: &known.schedules,
        only: given.schedule.then_some(settings.schedule.as_str()),
        all: extent.all_schedules,
        now,
    };
    let found = rows(records, &question);
    warnings.extend(found.warnings);
    let jobs: HashSet<&Option<String>> = found.rows.iter().map(|row| &row.record.schedule).collect();
    let schedules = extent.all_schedules || jobs.len() > 1;
    let mut notes = known.notes;
    notes.extend(not_shown(&found.others));
    Ok(Listing {
        namespaces: !is_one,
        schedules,
        notes,
        warnings,
        missing: found.missing,
        location,
        rows: found.rows,
    })
}

/// How many snapshots of the same claims are not shown.
fn not_shown(others: &BTreeMap<Option<String>, usize>) -> Option<String> {
    let number: usize = others.values().sum();
    let of = |(name, number): (&Option<String>, &usize)| match name {
        Some(name) => format!("{number} of {}", text::name(name)),
        None => format!("{number} of none"),
    };
    let which: Vec<String> = others.iter().map(of).collect();
    (number > 0).then(|| {
        format!(
            "{} of other schedules {} not shown ({}); --all shows them",
            text::count(number, "snapshot"),
            if number == 1 { "is" } else { "are" },
            which.join(", ")
        )
    })
}

/// The claims that a selector matches.
async fn matching(cluster: &Cluster, scope: &Scope, selector: &str) -> Result<HashSet<ClaimId>, Error> {
    let id = |claim: Claim| Some(ClaimId { namespace: claim.metadata.namespace, name: claim.metadata.name });
    Ok(cluster.claims(scope, selector, id).await?.into_iter().collect())
}

/// The schedules that decide over the snapshots, and what is to be said of them.
struct Known {
    schedules: Vec<Schedule>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

/// The schedules that the cluster tells of by their CronJobs, with the rules that are given instead of
/// theirs if any are; and where it tells of none, the one that is given or assumed.
async fn schedules(
    cluster: &Cluster,
    scope: &Scope,
    settings: &Settings,
    given: Given,
    records: &[Record],
) -> Result<Known, Failure> {
    let (schedules, unread) = match of_cluster(cluster, scope, settings, given, records).await {
        Ok(schedules) => (schedules, None),
        Err(error) if error.kind() == ErrorKind::Forbidden => (Vec::new(), Some(error)),
        Err(error) => return Err(error.into()),
    };
    let mut known = Known { schedules, notes: Vec::new(), warnings: Vec::new() };
    for schedule in &known.schedules {
        if let (Err(problem), Origin::CronJob { namespace, name, .. }) =
            (&schedule.settings, &schedule.origin)
        {
            known.warnings.push(format!(
                "what CronJob {} in namespace {} does is not known: {}",
                text::name(name),
                text::name(namespace),
                text::foreign(problem)
            ));
        }
    }
    if given.retention {
        for schedule in &mut known.schedules {
            if let Ok(own) = &mut schedule.settings {
                own.retention = settings.retention.clone();
                schedule.doubt = Some("these are the rules of the command".to_owned());
            }
        }
        if known.schedules.is_empty() {
            known.schedules.push(Schedule::without_cron_job(settings, Origin::Given));
        }
        known.notes.push(format!("judged by the rules that are given: {}", settings.retention));
        return Ok(known);
    }
    if !known.schedules.is_empty() {
        let said: Vec<String> = known.schedules.iter().map(Schedule::said).collect();
        known.notes.push(said.join("; "));
        return Ok(known);
    }
    let assumed = Schedule::without_cron_job(settings, Origin::Assumed);
    let assuming = format!(
        "assuming that schedule {} keeps {}; other rules: --retention",
        text::name(&assumed.name),
        settings.retention
    );
    known.warnings.push(match unread {
        Some(error) => format!("the schedules' settings are not known, so {assuming} ({error})"),
        None => format!("no CronJob of {} was found for these snapshots, so {assuming}", names::PROGRAM),
    });
    known.schedules.push(assumed);
    Ok(known)
}

/// The schedules of the namespaces' CronJobs; and, where these do not explain all snapshots and it may be
/// seen, those of other namespaces.
async fn of_cluster(
    cluster: &Cluster,
    scope: &Scope,
    settings: &Settings,
    given: Given,
    records: &[Record],
) -> Result<Vec<Schedule>, Error> {
    if given.schedule && given.retention {
        return Ok(Vec::new());
    }
    let is_asked_for = |schedule: &Schedule| !given.schedule || schedule.name == settings.schedule;
    let mut schedules = of_cron_jobs(cluster, scope, "").await?;
    schedules.retain(is_asked_for);
    locate(cluster, scope, &mut schedules).await?;
    let Scope::Namespace(namespace) = scope else { return Ok(schedules) };
    schedules.retain(|schedule| schedule.owns(&schedule.name, namespace));

    let is_explained = |name: &str| schedules.iter().any(|schedule| schedule.name == name);
    let mut jobs = records.iter().filter_map(|record| record.schedule.as_deref());
    if jobs.all(|name| is_explained(name) || given.schedule && name != settings.schedule) {
        return Ok(schedules);
    }
    let label = format!("app.kubernetes.io/name={}", names::PROGRAM);
    match of_cron_jobs(cluster, &Scope::All, &label).await {
        Ok(mut elsewhere) => {
            let is_there = |schedule: &Schedule| match &schedule.origin {
                Origin::CronJob { namespace: of, .. } => of != namespace,
                Origin::Given | Origin::Assumed => false,
            };
            elsewhere.retain(|schedule| is_asked_for(schedule) && is_there(schedule));
            locate(cluster, scope, &mut elsewhere).await?;
            elsewhere.retain(|schedule| schedule.owns(&schedule.name, namespace));
            schedules.extend(elsewhere);
        }
        Err(error) => tracing::debug!("{error}"),
    }
    Ok(schedules)
}

/// The schedules of the CronJobs that a label selector matches.
async fn of_cron_jobs(cluster: &Cluster, scope: &Scope, selector: &str) -> Result<Vec<Schedule>, Error> {
    let cron_jobs = cluster.cron_jobs(scope, selector, schedules::is_schedule).await?;
    let maps = config_maps(cluster, &cron_jobs).await?;
    Ok(cron_jobs.iter().map(|cron_job| schedules::schedule(cron_job, &maps)).collect())
}

/// The ConfigMaps that the settings of CronJobs are in.
async fn config_maps(cluster: &Cluster, cron_jobs: &[CronJob]) -> Result<ConfigMaps, Error> {
    let mut maps = HashMap::new();
    for cron_job in cron_jobs {
        let namespace = &cron_job.metadata.namespace;
        for name in schedules::config_maps(cron_job) {
            let id = (namespace.clone(), name.to_owned());
            if maps.contains_key(&id) {
                continue;
            }
            let read = match cluster.config_map(namespace, name).await {
                Ok(map) => ReadMap::Data(map.data),
                Err(error) if error.kind() == ErrorKind::NotFound => ReadMap::Missing,
                Err(error) if error.kind() == ErrorKind::Forbidden => ReadMap::Unread,
                Err(error) => return Err(error),
            };
            maps.insert(id, read);
        }
    }
    Ok(maps)
}

/// Finds out where the claims of schedules are, and which: the API server reads selectors.
async fn locate(cluster: &Cluster, scope: &Scope, schedules: &mut [Schedule]) -> Result<(), Error> {
    let mut matched: HashMap<String, Option<HashSet<ClaimId>>> = HashMap::new();
    for schedule in schedules {
        let Ok(settings) = &schedule.settings else { continue };
        if let Some(selector) = &settings.namespace_selector {
            match cluster.namespaces(selector).await {
                Ok(namespaces) => schedule.location = Location::Chosen(namespaces.into_iter().collect()),
                Err(error) if error.kind() == ErrorKind::Forbidden => {
                    schedule.doubt.get_or_insert_with(|| "its namespaces may not be read".to_owned());
                }
                Err(error) => return Err(error),
            }
        }
        let selector = match &settings.claims {
            ClaimChoice::Selector(selector) if !selector.is_empty() => selector,
            _ => continue,
        };
        if !matched.contains_key(selector) {
            let claims = match matching(cluster, scope, selector).await {
                Ok(claims) => Some(claims),
                Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Invalid) => None,
                Err(error) => return Err(error),
            };
            matched.insert(selector.clone(), claims);
        }
        schedule.selected = matched.get(selector).cloned().flatten();
        if schedule.selected.is_none() {
            schedule.doubt.get_or_insert_with(|| "which claims it chooses is not known".to_owned());
        }
    }
    Ok(())
}
