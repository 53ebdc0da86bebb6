//! Groups in the list: each VolumeGroupSnapshot is one entry with its members under it. Pure.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use k8s_openapi::jiff::Timestamp;

use super::{
    Retention, Row, Schedule, State,
    rows::{Found, Judging, rank, refusal},
};
use crate::{
    api::Claim,
    group::{Group, Member, claim_uids},
    names::RETENTION_ANNOTATION,
    retention::{AnnotationError, ClaimIdentity, Judgement, Rules, judge, rules_of_claim},
    settings::Settings,
    snapshot::{ClaimId, Record, Snapshot},
    text,
};

/// A group with its members.
pub(super) struct Grouped {
    group: Group,
    /// The two together.
    record: Record,
    /// What it lacks to be ready.
    lacks: Option<String>,
    members: Vec<Record>,
}

/// Takes the members of known groups out of the snapshots. A group that has lost all of its members is one too.
pub(super) fn gathered(records: Vec<Record>, groups: &[Group]) -> (Vec<Grouped>, Vec<Record>) {
    let mut of_group: HashMap<&str, Vec<Record>> =
        groups.iter().map(|group| (group.uid(), Vec::new())).collect();
    let mut others = Vec::new();
    for record in records {
        let group = record.group.as_ref().and_then(|group| of_group.get_mut(group.uid.as_str()));
        match group {
            Some(members) => members.push(record),
            None => others.push(record),
        }
    }
    let grouped = groups.iter().map(|group| {
        let mut members = of_group.remove(group.uid()).unwrap_or_default();
        members.sort_by(|a, b| (&a.claim, &a.snapshot.name).cmp(&(&b.claim, &b.snapshot.name)));
        let judged: Vec<Member> = members.iter().filter_map(Member::of_record).collect();
        Grouped { record: group.record(&judged), lacks: group.lacks(&judged), group: group.clone(), members }
    });
    (grouped.collect(), others)
}

impl Grouped {
    /// The group and its members.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.members.iter().chain([&self.record])
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Record> {
        self.members.iter()
    }

    /// The claims that were asked for and those of its members.
    pub(super) fn claims(&self) -> impl Iterator<Item = ClaimId> {
        let of_members = self.members.iter().filter_map(|member| member.claim.clone());
        let names = self.group.claims.keys().cloned().chain(of_members);
        names.map(|name| ClaimId { namespace: self.group.namespace.clone(), name })
    }

    /// The entry of the list. What becomes of the group becomes of its members.
    pub(super) fn row(self, row: &mut impl FnMut(Record) -> Row) -> Row {
        let Grouped { group, record, lacks, members } = self;
        let mut entry = row(record);
        if matches!(entry.state, State::Error | State::Waiting)
            && let Some(lacks) = lacks
        {
            entry.record.snapshot.error = Some(match group.error() {
                Some(own) if !lacks.contains(own) => format!("{lacks}: {own}"),
                _ => lacks,
            });
        }
        entry.group = Some(group.value().unwrap_or(group.name()).to_owned());
        let of_group = "as the group".to_owned();
        let retention = match &entry.retention {
            Retention::Kept(_) => Retention::Kept(of_group),
            Retention::Goes(_) => Retention::Goes(of_group),
            Retention::WouldGo(_) => Retention::WouldGo(of_group),
            Retention::Unknown(_) => Retention::Unknown(of_group),
            Retention::NotOurs => Retention::NotOurs,
        };
        let member = |record| Row { retention: retention.clone(), ..row(record) };
        entry.members = members.into_iter().map(member).collect();
        entry
    }

    /// Whether a claim is being restored from one of its members.
    fn is_in_use(&self, in_use: &HashMap<String, HashSet<String>>) -> bool {
        let in_use = in_use.get(&self.group.namespace);
        in_use.is_some_and(|in_use| self.members.iter().any(|member| in_use.contains(&member.snapshot.name)))
    }
}

/// Returns the verdicts on groups, by uid: as those on snapshots, with all groups of one value and schedule judged
/// together.
pub(super) fn verdicts(
    judging: &Judging<'_>,
    grouped: &[Grouped],
    found: &mut Found,
) -> HashMap<String, Retention> {
    let mut owned: BTreeMap<(&str, &str, &str, &str), Vec<&Grouped>> = BTreeMap::new();
    for one in grouped {
        if let (Some((label, value)), Some(schedule)) = (&one.group.selector, &one.group.schedule) {
            owned.entry((&one.group.namespace, schedule, label, value)).or_default().push(one);
        }
    }
    let mut verdicts: HashMap<String, Retention> = HashMap::new();
    for ((namespace, name, label, value), groups) in owned {
        let owners = || judging.question.schedules.iter().filter(|schedule| schedule.owns(name, namespace));
        if owners().next().is_none() {
            continue;
        }
        let of = Of { namespace, label, value };
        for (uid, new) in owners().flat_map(|schedule| by(judging, schedule, &of, &groups, found)) {
            let location = verdicts.entry(uid).or_insert_with(|| new.clone());
            if rank(&new) > rank(location) {
                *location = new;
            }
        }
        for group in groups {
            let none = || Retention::Kept("no schedule takes this group".to_owned());
            verdicts.entry(group.record.snapshot.uid.clone()).or_insert_with(none);
        }
    }
    verdicts
}

/// What groups are of.
struct Of<'a> {
    namespace: &'a str,
    label: &'a str,
    value: &'a str,
}

/// Returns the verdicts of a run of one schedule on the groups of one value.
fn by(
    judging: &Judging<'_>,
    schedule: &Schedule,
    of: &Of<'_>,
    groups: &[&Grouped],
    found: &mut Found,
) -> Vec<(String, Retention)> {
    let all = |retention: Retention| -> Vec<(String, Retention)> {
        groups.iter().map(|group| (group.record.snapshot.uid.clone(), retention.clone())).collect()
    };
    let settings = match &schedule.settings {
        Ok(settings) if settings.group_label.as_deref() == Some(of.label) => settings,
        Ok(_) => return Vec::new(),
        Err(_) => {
            let name = &schedule.name;
            return all(Retention::Unknown(format!("the settings of schedule {name} are invalid")));
        }
    };
    let claims = judging.claims.map(|claims| {
        let is_of = |(id, claim): &(&ClaimId, &&Claim)| {
            id.namespace == of.namespace
                && claim.metadata.labels.get(of.label) == Some(of.value)
                && schedule.finds(id)
        };
        let claims = claims.iter().filter(is_of);
        claims.map(|(id, claim)| (id.name.as_str(), *claim)).collect::<BTreeMap<&str, &Claim>>()
    });
    let mut why_kept = None;
    let mut rules = settings.retention.clone();
    if let Some(claims) = &claims {
        match agreed(settings, schedule, of.value, claims) {
            Ok(Some(own)) => rules = settings.rules_with(&own),
            Ok(None) => {}
            Err(problem) => {
                let value = text::name(of.value);
                found.warnings.push(format!("nothing of group {value} is deleted: {problem}"));
                why_kept = Some("the claims' annotations are invalid");
            }
        }
        let refused = claims.values().find_map(|claim| refusal(claim));
        why_kept = match claims.is_empty() {
            true => Some("the claims are gone"),
            false => refused.or(why_kept),
        };
    }
    let uids = claims
        .as_ref()
        .map(|claims| claim_uids(claims.iter().map(|(name, claim)| (*name, claim.metadata.uid.as_str()))));
    let created =
        claims.iter().flat_map(BTreeMap::values).filter_map(|claim| claim.metadata.creation_timestamp);
    let created: Option<Timestamp> = created.max();
    let in_use: HashSet<String> = groups
        .iter()
        .filter(|group| group.is_in_use(&judging.in_use))
        .map(|group| group.record.snapshot.name.clone())
        .collect();
    let snapshots: Vec<Snapshot> = groups.iter().map(|group| group.record.snapshot.clone()).collect();
    let judgement = Judgement {
        claim: uids.as_deref().map(|uid| ClaimIdentity { uid, created }),
        in_use: Some(&in_use),
        longest_wait: settings.longest_wait(),
        job_lifetime: settings.job_lifetime(),
        ..Judgement::by_rules(&rules, judging.now)
    };
    let is_certain = schedule.doubt.is_none() && claims.is_some();
    let decisions = judge(&snapshots, &judgement).into_iter().map(|decision| {
        let verdict = decision.verdict;
        let retention = match (verdict.goes(), why_kept) {
            (_, Some(reason)) => Retention::Kept(reason.to_owned()),
            (true, None) if is_certain => Retention::Goes(verdict.to_string()),
            (true, None) => Retention::WouldGo(verdict.to_string()),
            (false, None) => Retention::Kept(verdict.to_string()),
        };
        (decision.snapshot.uid.clone(), retention)
    });
    decisions.collect()
}

/// The rules that the claims of a group are annotated with, which have to be the same for all.
fn agreed(
    settings: &Settings,
    schedule: &Schedule,
    value: &str,
    claims: &BTreeMap<&str, &Claim>,
) -> Result<Option<Rules>, String> {
    let mut first: Option<(&str, Option<Rules>)> = None;
    for (name, claim) in claims {
        let mut lent = Cow::Borrowed(*claim);
        if let Some(volumes) = &schedule.volumes {
            volumes.lend(lent.to_mut(), &schedule.name);
        }
        let own = rules_of_claim(name, &lent.metadata.annotations, &settings.schedule)
            .map_err(|problem| text::foreign(&problem.to_string()))?;
        match &first {
            None => first = Some((name, own)),
            Some((other, rules)) if *rules != own => {
                let (value, other, name) = (text::name(value), text::name(other), text::name(name));
                let error = AnnotationError::of_group(RETENTION_ANNOTATION, &value, &other, &name);
                return Err(error.to_string());
            }
            Some(_) => {}
        }
    }
    Ok(first.and_then(|(_, rules)| rules))
}
