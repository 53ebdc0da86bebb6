//! Which rules apply to a claim. [`super::rules`] defines the syntax.

use super::{RuleError, Rules};
use crate::{
    api::ClaimAnnotations,
    names::{DELTAS_ANNOTATION, RETENTION_ANNOTATION},
};

/// An annotation of a claim that holds no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the annotation {annotation} of claim {claim} is invalid: {source}")]
pub struct AnnotationError {
    annotation: String,
    claim: String,
    source: RuleError,
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
    let of_schedule = annotations.retention_of.iter().find(|(name, _)| name == schedule);
    let (annotation, rules) = if let Some((name, text)) = of_schedule {
        (format!("{RETENTION_ANNOTATION}.{name}"), text.parse())
    } else if let Some(text) = &annotations.retention {
        (RETENTION_ANNOTATION.to_owned(), text.parse())
    } else if let Some(text) = &annotations.deltas {
        (DELTAS_ANNOTATION.to_owned(), Rules::of_deltas(text))
    } else {
        return Ok(None);
    };
    rules.map(Some).map_err(|source| AnnotationError { annotation, claim: claim.to_owned(), source })
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
