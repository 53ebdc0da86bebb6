//! What a claim's annotations ask for: its rules, and how often it is snapshotted. [`super::rules`] and
//! [`super::due`] define the syntax.

use std::collections::HashMap;

use super::{Every, RuleError, Rules};
use crate::{
    api::{Claim, ClaimAnnotations, Volume},
    names::{DELTAS_ANNOTATION, EVERY_ANNOTATION, RETENTION_ANNOTATION},
};

/// An annotation of a claim that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the annotation {annotation} of {whose} is invalid: {problem}")]
pub struct AnnotationError {
    annotation: String,
    /// `claim data`, or `volume pvc-1 of claim data`.
    whose: String,
    problem: String,
}

impl AnnotationError {
    /// Two claims of a group are annotated differently.
    pub fn of_group(annotation: &str, group: &str, one: &str, other: &str) -> Self {
        AnnotationError {
            annotation: annotation.to_owned(),
            whose: format!("claims {one} and {other} of group {group}"),
            problem: "it has to be the same on all claims of a group".to_owned(),
        }
    }
}

fn whose(claim: &str, annotations: &ClaimAnnotations) -> String {
    match &annotations.of_volume {
        Some(volume) => format!("volume {volume} of claim {claim}"),
        None => format!("claim {claim}"),
    }
}

/// The annotation that holds for a schedule, with its key: the one for this schedule, else the one for all.
fn of_schedule<'a>(
    key: &str,
    all: Option<&'a String>,
    of: &'a [(String, String)],
    schedule: &str,
) -> Option<(String, &'a str)> {
    match of.iter().find(|(name, _)| name == schedule) {
        Some((name, text)) => Some((format!("{key}.{name}"), text)),
        None => all.map(|text| (key.to_owned(), text.as_str())),
    }
}

/// The annotation that holds the rules for a schedule, if there is one besides that of k8s-snapshots.
fn retention<'a>(annotations: &'a ClaimAnnotations, schedule: &str) -> Option<(String, &'a str)> {
    let ClaimAnnotations { retention, retention_of, .. } = annotations;
    of_schedule(RETENTION_ANNOTATION, retention.as_ref(), retention_of, schedule)
}

/// The annotation that says how often a schedule snapshots the claim, if there is one besides that of
/// k8s-snapshots.
fn every<'a>(annotations: &'a ClaimAnnotations, schedule: &str) -> Option<(String, &'a str)> {
    let ClaimAnnotations { every, every_of, .. } = annotations;
    of_schedule(EVERY_ANNOTATION, every.as_ref(), every_of, schedule)
}

/// What the volumes of claims are annotated with, for claims that say nothing themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeAnnotations {
    /// By the claim's uid.
    of_claims: HashMap<String, ClaimAnnotations>,
}

impl VolumeAnnotations {
    /// Notes what a volume is annotated with. Whoever wrote that is trusted with all volumes of the cluster, and the
    /// claim that the volume names is the one that it is bound to.
    pub fn add(&mut self, volume: Volume) {
        let Volume { metadata, spec } = volume;
        let ClaimAnnotations { retention, retention_of, every, every_of, deltas, .. } = metadata.annotations;
        let is_empty = retention.is_none() && every.is_none() && deltas.is_none();
        let Some(claim) = spec.claim_ref.filter(|claim| !claim.uid.is_empty()) else { return };
        if is_empty && retention_of.is_empty() && every_of.is_empty() {
            return;
        }
        let of_volume = Some(metadata.name);
        let annotations = ClaimAnnotations {
            retention,
            retention_of,
            every,
            every_of,
            deltas,
            of_volume,
            ..ClaimAnnotations::default()
        };
        self.of_claims.insert(claim.uid, annotations);
    }

    /// Gives a claim that asks the schedule for nothing the annotations of its volume.
    pub fn lend(&self, claim: &mut Claim, schedule: &str) {
        let own = &mut claim.metadata.annotations;
        if is_annotated(own, schedule) {
            return;
        }
        if let Some(of_volume) = self.of_claims.get(&claim.metadata.uid) {
            let ClaimAnnotations { retention, retention_of, every, every_of, deltas, of_volume, .. } =
                of_volume.clone();
            *own = ClaimAnnotations {
                retention,
                retention_of,
                every,
                every_of,
                deltas,
                of_volume,
                ..std::mem::take(own)
            };
        }
    }
}

/// Whether a claim's annotations ask a schedule for snapshots: how many stay, or how often they are taken.
pub fn is_annotated(annotations: &ClaimAnnotations, schedule: &str) -> bool {
    annotations.deltas.is_some()
        || retention(annotations, schedule).is_some()
        || every(annotations, schedule).is_some()
}

/// Returns the rules for a claim in a schedule: the annotation for this schedule, else the one for all
/// schedules, else the one of k8s-snapshots. `None` if the claim has none of them, so that the settings
/// apply. An invalid annotation is an error and never ignored: ignoring it would delete what it was meant to
/// keep.
///
/// # Errors
/// The annotation that is invalid, and why.
pub fn rules_of_claim(
    claim: &str,
    annotations: &ClaimAnnotations,
    schedule: &str,
) -> Result<Option<Rules>, AnnotationError> {
    let (annotation, rules) = if let Some((annotation, text)) = retention(annotations, schedule) {
        (annotation, text.parse())
    } else if let Some(text) = &annotations.deltas {
        (DELTAS_ANNOTATION.to_owned(), Rules::of_deltas(text))
    } else {
        return Ok(None);
    };
    rules.map(Some).map_err(|source: RuleError| AnnotationError {
        annotation,
        whose: whose(claim, annotations),
        problem: source.to_string(),
    })
}

/// Returns how often a schedule snapshots a claim: the annotation for this schedule, else the one for all
/// schedules, else the smallest delta of k8s-snapshots, if the claim's rules are those deltas. `None` if the
/// claim has none of them, so that the settings apply.
///
/// # Errors
/// The annotation that is invalid, and why. Whoever passes over it snapshots the claim as often as any other,
/// and may keep far less time than the rules were meant for.
pub fn every_of_claim(
    claim: &str,
    annotations: &ClaimAnnotations,
    schedule: &str,
) -> Result<Option<Every>, AnnotationError> {
    let error = |annotation: String, problem: String| AnnotationError {
        annotation,
        whose: whose(claim, annotations),
        problem,
    };
    if let Some((annotation, text)) = every(annotations, schedule) {
        return text.parse().map(Some).map_err(|problem| error(annotation, problem));
    }
    match &annotations.deltas {
        Some(text) if retention(annotations, schedule).is_none() => match Rules::of_deltas(text) {
            Ok(rules) => Ok(Every::of_deltas(&rules)),
            Err(source) => Err(error(DELTAS_ANNOTATION.to_owned(), source.to_string())),
        },
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> ClaimAnnotations {
        let object = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        serde_json::from_value(serde_json::Value::Object(object)).expect("annotations")
    }

    #[test]
    fn the_annotation_for_the_schedule_wins_over_that_for_all_and_both_over_that_of_k8s_snapshots() {
        let rules = |pairs: &[(&str, &str)]| {
            rules_of_claim("data", &annotations(pairs), "hourly")
                .map(|rules| rules.map(|rules| rules.to_string()))
        };
        let all = ("volume-snapshotter/retention", "daily=7");
        let of_hourly = ("volume-snapshotter/retention.hourly", "hourly=24");
        let of_weekly = ("volume-snapshotter/retention.weekly", "weekly=4");
        let deltas = ("backup.kubernetes.io/deltas", "PT1H P1D");
        assert_eq!(rules(&[("volume-snapshotter/every", "1d")]), Ok(None));
        assert_eq!(rules(&[deltas, of_weekly]), Ok(Some("deltas=PT1H P1D".into())));
        assert_eq!(rules(&[all, deltas, of_weekly]), Ok(Some("daily=7".into())));
        assert_eq!(rules(&[all, of_hourly, of_weekly]), Ok(Some("hourly=24".into())));
    }

    #[test]
    fn a_claim_asks_for_snapshots_by_any_of_its_annotations_that_hold_for_the_schedule() {
        for (key, asks) in [
            ("volume-snapshotter/retention", true),
            ("volume-snapshotter/retention.hourly", true),
            ("volume-snapshotter/retention.weekly", false),
            ("volume-snapshotter/every", true),
            ("volume-snapshotter/every.hourly", true),
            ("volume-snapshotter/every.weekly", false),
            ("backup.kubernetes.io/deltas", true),
            ("volume-snapshotter/max-age", false),
        ] {
            assert_eq!(is_annotated(&annotations(&[(key, "")]), "hourly"), asks, "{key}");
        }
        assert!(!is_annotated(&annotations(&[]), "hourly"));
    }

    #[test]
    fn a_volume_speaks_for_a_claim_that_says_nothing_itself() {
        let volume = |uid: &str, annotations: serde_json::Value| -> Volume {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "pvc-1", "annotations": annotations},
                "spec": {"claimRef": {"namespace": "shop", "name": "data", "uid": uid}},
            }))
            .expect("a volume")
        };
        let rules = |uid: &str, own: &[(&str, &str)], of_volume: serde_json::Value| {
            let mut volumes = VolumeAnnotations::default();
            volumes.add(volume(uid, of_volume));
            let mut claim = Claim::default();
            claim.metadata.uid = "this".to_owned();
            claim.metadata.annotations = annotations(own);
            volumes.lend(&mut claim, "hourly");
            rules_of_claim("data", &claim.metadata.annotations, "hourly")
                .map(|rules| rules.map(|rules| rules.to_string()))
                .map_err(|error| error.to_string())
        };
        let deltas = || serde_json::json!({"backup.kubernetes.io/deltas": "PT1H P1D"});
        assert_eq!(rules("this", &[], deltas()), Ok(Some("deltas=PT1H P1D".into())));
        assert_eq!(rules("another", &[], deltas()), Ok(None), "a previous claim's volume");
        assert_eq!(rules("", &[], deltas()), Ok(None), "of no claim");
        let own = [("volume-snapshotter/every", "1d")];
        assert_eq!(rules("this", &own, deltas()), Ok(None), "the claim speaks for itself");
        let of_another = [("volume-snapshotter/every.weekly", "1d")];
        assert_eq!(rules("this", &of_another, deltas()), Ok(Some("deltas=PT1H P1D".into())));
        let problem = rules("this", &[], serde_json::json!({"volume-snapshotter/retention": "dayly=7"}));
        let problem = problem.expect_err("not understood");
        assert!(
            problem
                .starts_with("the annotation volume-snapshotter/retention of volume pvc-1 of claim data is"),
            "{problem}"
        );
    }

    #[test]
    fn how_often_is_said_for_the_schedule_then_for_all_then_by_the_smallest_delta() {
        let every = |pairs: &[(&str, &str)]| {
            every_of_claim("data", &annotations(pairs), "hourly")
                .map(|every| every.map(|every| every.to_string()))
                .map_err(|error| error.to_string())
        };
        let all = ("volume-snapshotter/every", "1d");
        let of_hourly = ("volume-snapshotter/every.hourly", "6h");
        let of_weekly = ("volume-snapshotter/every.weekly", "1w");
        let deltas = ("backup.kubernetes.io/deltas", "P7D PT2H P1D");
        let retention = ("volume-snapshotter/retention", "daily=7");
        assert_eq!(every(&[retention, of_weekly]), Ok(None));
        assert_eq!(every(&[all, of_hourly, of_weekly, deltas]), Ok(Some("6h".into())));
        assert_eq!(every(&[all, of_weekly, deltas]), Ok(Some("1d".into())));
        assert_eq!(every(&[of_weekly, deltas]), Ok(Some("2 h".into())));
        assert_eq!(every(&[retention, deltas]), Ok(None), "these deltas rule nothing");
        for (pair, begins) in [
            (
                ("volume-snapshotter/every", "daily"),
                "the annotation volume-snapshotter/every of claim data is",
            ),
            (
                ("volume-snapshotter/every.hourly", ""),
                "the annotation volume-snapshotter/every.hourly of claim data is",
            ),
            (
                ("backup.kubernetes.io/deltas", "P1D"),
                "the annotation backup.kubernetes.io/deltas of claim data is",
            ),
        ] {
            let problem = every(&[pair]).expect_err("not understood");
            assert!(problem.starts_with(begins), "{problem}");
        }
    }

    #[test]
    fn an_annotation_is_not_passed_over_even_if_it_is_empty() {
        for pairs in [
            [("volume-snapshotter/retention", "dayly=7"), ("backup.kubernetes.io/deltas", "PT1H P1D")]
                .as_slice(),
            &[("volume-snapshotter/retention.hourly", "x"), ("volume-snapshotter/retention", "last=1")],
            &[("volume-snapshotter/retention", "")],
            &[("backup.kubernetes.io/deltas", "")],
            &[("backup.kubernetes.io/deltas", "P1D")],
        ] {
            let problem = rules_of_claim("data", &annotations(pairs), "hourly")
                .expect_err("not understood")
                .to_string();
            let begins = format!("the annotation {} of claim data is invalid: ", pairs[0].0);
            assert!(problem.starts_with(&begins), "{problem}");
        }
    }
}
