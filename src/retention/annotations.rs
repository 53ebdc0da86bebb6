//! Whose rules hold for a claim. What a rule may look like is in [`super::rules`].

use super::Rules;
use crate::api::ClaimAnnotations;

/// The rules that hold for a claim: its own annotation, else that of k8s-snapshots, else the
/// settings'. An annotation that cannot be understood is never passed over, for what it wanted kept
/// would be deleted.
///
/// # Errors
/// What is wrong with the annotation, in words that name it and the claim.
pub fn rules_of_claim(
    claim: &str,
    annotations: &ClaimAnnotations,
    settings: &Rules,
) -> Result<Rules, String> {
    let (annotation, rules) = match annotations {
        ClaimAnnotations { retention: Some(text), .. } => ("volume-snapshotter/retention", text.parse()),
        ClaimAnnotations { deltas: Some(text), .. } => {
            ("backup.kubernetes.io/deltas", Rules::of_deltas(text))
        }
        ClaimAnnotations { retention: None, deltas: None, .. } => return Ok(settings.clone()),
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
                ..ClaimAnnotations::default()
            };
            rules_of_claim("data", &annotations, &settings).map(|rules| rules.to_string())
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
