//! The command `list`: shows the snapshots of the selected claims, and why each is kept or deleted.
//!
//! This module makes the requests. `schedules` derives the schedules from the answers, `rows` the state and
//! verdict of each snapshot, and `table`, `timeline` and `data` print them.

mod data;
mod groups;
mod rows;
mod schedules;
mod table;
mod timeline;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use k8s_openapi::jiff::Timestamp;

pub use data::{json, names, yaml};
pub use rows::{Found, Question, Retention, Row, State, rows};
pub use schedules::{Location, Origin, Schedule};
pub use table::{Look, table};
pub use timeline::{Names, timeline};

use crate::{
    api::{Claim, CronJob},
    cluster::{Cluster, Error, ErrorKind, Listed, Scope},
    group::Group,
    names,
    report::Failure,
    retention::{VolumeAnnotations, is_annotated},
    settings::{ClaimChoice, Settings},
    snapshot::{ClaimId, Record},
    text,
};
use schedules::{ConfigMaps, ReadMap};

/// What to list in addition to what the settings select.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Whether to include snapshots of other schedules.
    pub all_schedules: bool,
    pub all_namespaces: bool,
    /// Whether the members of a VolumeGroupSnapshot are shown with it. It is asked for only if there are members, or
    /// a schedule takes groups.
    pub groups: bool,
}

/// What the user specified. It wins over the schedules in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Whether the schedule was specified (`--job` or `SNAPSHOT_JOB`).
    pub schedule: bool,
    /// Whether the rules were specified (`--retention` or `SNAPSHOT_RETENTION`).
    pub retention: bool,
}

#[derive(Debug)]
pub struct Listing {
    /// Snapshots by namespace and claim, newest first.
    pub rows: Vec<Row>,
    /// Whether the snapshots may be of more than one namespace.
    pub namespaces: bool,
    /// Whether the snapshots are of more than one schedule.
    pub schedules: bool,
    /// Notes below the table: which rules apply, and how many snapshots are not shown.
    pub notes: Vec<String>,
    /// Warnings for the log.
    pub warnings: Vec<String>,
    /// Claims that the user named, but that neither exist nor have a snapshot.
    pub missing: Vec<String>,
    /// The scope of the search, such as "in namespace shop".
    pub location: String,
}

/// Lists the snapshots of the selected claims. The verdicts are those of a run at `now`, if the snapshots were as
/// `as_if` makes them.
///
/// # Errors
/// If a request fails that the list cannot do without.
pub async fn list(
    cluster: &Cluster,
    settings: &Settings,
    given: Given,
    extent: Extent,
    now: Timestamp,
    as_if: &mut dyn FnMut(&mut Record),
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
            (Scope::All, format!("in {}", text::count(chosen.len(), "selected namespace")))
        }
        (false, None) => (Scope::All, "in any namespace".to_owned()),
    };
    let is_chosen =
        |namespace: &str| chosen_namespaces.as_ref().is_none_or(|chosen| chosen.contains(namespace));

    let claim_selector = match &settings.claims {
        ClaimChoice::Selector(selector) => selector.as_str(),
        ClaimChoice::Names(_) => "",
    };
    let is_selective = !claim_selector.is_empty() || settings.only_annotated;
    let mut warnings = Vec::new();
    let claims = match cluster.claims(&scope, "", Some).await {
        Ok(claims) => Some(claims),
        // Without permission to read claims the snapshots are still listed.
        Err(error) if error.kind() == ErrorKind::Forbidden && !is_selective => {
            warnings.push(format!(
                "claims cannot be read, so their retention annotations are ignored and snapshots of a previous \
                 claim are not recognised: {error}"
            ));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let annotated = settings.only_annotated.then_some(settings.schedule.as_str());
    let selected = match is_selective {
        true => Some(matching(cluster, &scope, claim_selector, annotated, None).await?),
        false => None,
    };
    let mut records = cluster.records(&scope, "").await?;
    records.retain(|record| is_chosen(&record.namespace));
    records.iter_mut().for_each(as_if);
    let claims = claims.map(|claims| {
        claims.into_iter().filter(|claim| is_chosen(&claim.metadata.namespace)).collect::<Vec<Claim>>()
    });

    let known = schedules(cluster, &scope, settings, given, &records).await?;
    warnings.extend(known.warnings);
    let groups = match extent.groups {
        true => groups_of(cluster, &scope, &records, &known.schedules, &mut warnings).await?,
        false => Vec::new(),
    };
    let groups: Vec<Group> = groups.into_iter().filter(|group| is_chosen(&group.namespace)).collect();
    let question = Question {
        claims: claims.as_deref(),
        selected: selected.as_ref(),
        settings,
        schedules: &known.schedules,
        groups: &groups,
        only: given.schedule.then_some(settings.schedule.as_str()),
        all: extent.all_schedules,
        now,
    };
    let found = rows(records, &question);
    warnings.extend(found.warnings);
    let jobs: HashSet<&Option<String>> = found.rows.iter().map(|row| &row.record.schedule).collect();
    let schedules = extent.all_schedules || jobs.len() > 1;
    let mut notes = known.notes;
    notes.extend(next_due(&found.due));
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

/// Returns the VolumeGroupSnapshots, if there are any as far as is known: one request more, which clusters without
/// groups are spared.
async fn groups_of(
    cluster: &Cluster,
    scope: &Scope,
    records: &[Record],
    schedules: &[Schedule],
    warnings: &mut Vec<String>,
) -> Result<Vec<Group>, Error> {
    let members = records.iter().filter(|record| record.group.is_some()).count();
    let takes_groups =
        |schedule: &Schedule| schedule.settings.as_ref().is_ok_and(|settings| settings.group_label.is_some());
    if members == 0 && !schedules.iter().any(takes_groups) {
        return Ok(Vec::new());
    }
    let mut groups = Vec::new();
    match cluster.groups(scope, "", Listed::into(&mut groups, Some)).await {
        Ok(_) => Ok(groups),
        Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::NotServed) => {
            warnings.push(match members {
                0 => format!("groups cannot be read, so none is shown: {error}"),
                1 => format!("groups cannot be read, so 1 member of one is shown alone: {error}"),
                many => format!("groups cannot be read, so {many} members of them are shown alone: {error}"),
            });
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Returns a note on the claims that are not snapshotted in every run, those that are due first.
fn next_due(due: &BTreeSet<(Timestamp, String)>) -> Option<String> {
    let mut said: Vec<&str> = due.iter().take(rows::NAMED).map(|(_, said)| said.as_str()).collect();
    let more = due.len().saturating_sub(said.len());
    let more = format!("{more} more");
    if due.len() > rows::NAMED {
        said.push(&more);
    }
    (!said.is_empty()).then(|| format!("due again: {}", said.join(", ")))
}

/// Returns a note on the snapshots of the same claims that are not shown.
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

/// Returns the claims that a selector matches and whose annotations ask the schedule `annotated` for snapshots, if
/// it is one that takes only those.
async fn matching(
    cluster: &Cluster,
    scope: &Scope,
    selector: &str,
    annotated: Option<&str>,
    volumes: Option<&VolumeAnnotations>,
) -> Result<HashSet<ClaimId>, Error> {
    let id = |mut claim: Claim| {
        if let (Some(volumes), Some(schedule)) = (volumes, annotated) {
            volumes.lend(&mut claim, schedule);
        }
        annotated
            .is_none_or(|schedule| is_annotated(&claim.metadata.annotations, schedule))
            .then(|| ClaimId::of(&claim))
    };
    Ok(cluster.claims(scope, selector, id).await?.into_iter().collect())
}

/// The schedules that own the snapshots, with notes and warnings about them.
struct Known {
    schedules: Vec<Schedule>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

/// Finds the schedules by their CronJobs, and replaces their rules if the user specified any. If there are no
/// CronJobs, returns the schedule that was specified or assumed.
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
                "the settings of CronJob {} in namespace {} are not known: {}",
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

/// Finds the schedules of the CronJobs in `scope`. If these do not own all snapshots, and permissions allow
/// it, finds those of CronJobs in other namespaces too.
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

async fn of_cron_jobs(cluster: &Cluster, scope: &Scope, selector: &str) -> Result<Vec<Schedule>, Error> {
    let cron_jobs = cluster.cron_jobs(scope, selector, schedules::is_schedule).await?;
    let maps = config_maps(cluster, &cron_jobs).await?;
    Ok(cron_jobs.iter().map(|cron_job| schedules::schedule(cron_job, &maps)).collect())
}

/// Reads the ConfigMaps that the CronJobs take their settings from, each once.
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

/// Resolves the namespaces and claims that each schedule selects. The API server evaluates the selectors.
async fn locate(cluster: &Cluster, scope: &Scope, schedules: &mut [Schedule]) -> Result<(), Error> {
    let mut matched: HashMap<(String, Option<String>), Option<HashSet<ClaimId>>> = HashMap::new();
    let mut volumes: Option<Rc<VolumeAnnotations>> = None;
    for schedule in schedules {
        let Ok(settings) = &schedule.settings else { continue };
        if settings.volume_annotations {
            if volumes.is_none() {
                volumes = match cluster.volume_annotations().await {
                    Ok(read) => Some(Rc::new(read)),
                    Err(error) if error.kind() == ErrorKind::Forbidden => None,
                    Err(error) => return Err(error),
                };
            }
            schedule.volumes.clone_from(&volumes);
            if volumes.is_none() {
                schedule
                    .doubt
                    .get_or_insert_with(|| "the annotations of its volumes may not be read".to_owned());
            }
        }
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
            ClaimChoice::Selector(selector) if !selector.is_empty() || settings.only_annotated => selector,
            _ => continue,
        };
        let annotated = settings.only_annotated.then(|| schedule.name.clone());
        let choice = (selector.clone(), annotated);
        if !matched.contains_key(&choice) {
            let volumes = schedule.volumes.as_deref();
            let claims = match matching(cluster, scope, &choice.0, choice.1.as_deref(), volumes).await {
                Ok(claims) => Some(claims),
                Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Invalid) => None,
                Err(error) => return Err(error),
            };
            matched.insert(choice.clone(), claims);
        }
        schedule.selected = matched.get(&choice).cloned().flatten();
        if schedule.selected.is_none() {
            schedule.doubt.get_or_insert_with(|| "its claims are not known".to_owned());
        }
    }
    Ok(())
}
