//! Which claims belong together: those that a pod with hooks mounts. They are snapshotted while it is frozen once.

use std::collections::HashMap;

use super::HookedPod;

/// Claims that pods with hooks connect with each other, and those pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Positions of the claims, in their order.
    pub claims: Vec<usize>,
    /// For each pod its position, and those of its claims among [`Unit::claims`].
    pub pods: Vec<(usize, Vec<usize>)>,
}

/// The units of claims, which are given by namespace and name, each with its position, in the order of their first
/// claims. The claims of a group have one position, for they are snapshotted together. A claim that no pod with hooks
/// mounts is in no unit, and neither is a pod that mounts none of the claims.
pub fn units<'a>(claims: impl Iterator<Item = ((&'a str, &'a str), usize)>, pods: &[HookedPod]) -> Vec<Unit> {
    if pods.is_empty() {
        return Vec::new();
    }
    let position: HashMap<(&str, &str), usize> = claims.collect();
    let mounted = |pod: &HookedPod| {
        let positions = pod.claims.iter().filter_map(|claim| position.get(&(&*pod.namespace, &**claim)));
        let mut positions: Vec<usize> = positions.copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    };
    // Each claim's group is named by its first claim; a pod joins the groups of all its claims.
    let mut parent: HashMap<usize, usize> = HashMap::new();
    let mut mounts = Vec::new();
    for (at, pod) in pods.iter().enumerate() {
        let mounted = mounted(pod);
        let Some(&first) = mounted.first() else { continue };
        for &claim in &mounted {
            let (one, other) = (root(&parent, first), root(&parent, claim));
            parent.entry(first).or_insert(first);
            parent.entry(claim).or_insert(claim);
            parent.insert(one.max(other), one.min(other));
        }
        mounts.push((at, mounted));
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut unit_of: HashMap<usize, usize> = HashMap::new();
    let mut members: Vec<usize> = parent.keys().copied().collect();
    members.sort_unstable();
    for claim in members {
        let unit = *unit_of.entry(root(&parent, claim)).or_insert_with(|| {
            units.push(Unit::default());
            units.len() - 1
        });
        if let Some(unit) = units.get_mut(unit) {
            unit.claims.push(claim);
        }
    }
    for (pod, mounted) in mounts {
        let unit = mounted.first().and_then(|claim| unit_of.get(&root(&parent, *claim)));
        if let Some(unit) = unit.and_then(|unit| units.get_mut(*unit)) {
            let within = mounted.iter().filter_map(|claim| unit.claims.binary_search(claim).ok()).collect();
            unit.pods.push((pod, within));
        }
    }
    units
}

fn root(parent: &HashMap<usize, usize>, mut claim: usize) -> usize {
    while let Some(&above) = parent.get(&claim).filter(|above| **above != claim) {
        claim = above;
    }
    claim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::Hooks;

    #[test]
    fn claims_that_share_a_pod_form_one_unit() {
        type Given = (&'static str, &'static [&'static str]);
        // Pods by namespace and claims; then the units: claims, and each pod with its claims among them.
        type Expected = Vec<(Vec<usize>, Vec<(usize, Vec<usize>)>)>;
        let claims = [("a", "0"), ("b", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("a", "5")];
        let cases: [(&[Given], Expected); 7] = [
            (&[], vec![]),
            (&[("a", &["9"]), ("c", &["0"])], vec![]),
            (&[("a", &["0"])], vec![(vec![0], vec![(0, vec![0])])]),
            (
                &[("a", &["0", "1"]), ("b", &["1"])],
                vec![(vec![0], vec![(0, vec![0])]), (vec![1], vec![(1, vec![0])])],
            ),
            (&[("a", &["5", "2"]), ("a", &["2"])], vec![(vec![2, 5], vec![(0, vec![0, 1]), (1, vec![0])])]),
            // A chain, the link of which comes last.
            (
                &[("a", &["4", "5"]), ("a", &["2", "3"]), ("a", &["3", "4"])],
                vec![(vec![2, 3, 4, 5], vec![(0, vec![2, 3]), (1, vec![0, 1]), (2, vec![1, 2])])],
            ),
            (
                &[("a", &["0", "5"]), ("a", &["2", "3"]), ("b", &["1"])],
                vec![
                    (vec![0, 5], vec![(0, vec![0, 1])]),
                    (vec![1], vec![(2, vec![0])]),
                    (vec![2, 3], vec![(1, vec![0, 1])]),
                ],
            ),
        ];
        for (given, expected) in cases {
            let pods: Vec<HookedPod> = given
                .iter()
                .map(|(namespace, claims)| HookedPod {
                    namespace: (*namespace).to_owned(),
                    name: "pod".to_owned(),
                    claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
                    hooks: Ok(Hooks { pre: None, post: None }),
                })
                .collect();
            let expected: Vec<Unit> =
                expected.into_iter().map(|(claims, pods)| Unit { claims, pods }).collect();
            assert_eq!(units(claims.into_iter().zip(0..), &pods), expected, "{given:?}");
        }
    }
}
