//! Distribution of claims among the pods of an Indexed Job.
//!
//! A claim's shard depends only on its namespace, its name and the number of shards. Claims that come and go
//! do not move others, and each pod computes its own share without talking to the others. The function must
//! never change between versions, because pods of two versions share a Job during an update.
//!
//! The shard is a hash modulo the number of shards: 64-bit FNV-1a of `namespace/name`, then the finalizer of
//! 64-bit MurmurHash3. The slash makes the input unambiguous, since no name contains one. FNV-1a alone mixes
//! only towards the high bits: modulo two it is the parity of the bytes' sum, so similar names would cluster.

use std::fmt;

use crate::snapshot::ClaimId;

/// One of `count` parts of all claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// Returns part `index`, counted from 0, of `count` parts. `None` if `index` is out of range.
    pub fn new(index: u32, count: u32) -> Option<Shard> {
        (index < count).then_some(Shard { index, count })
    }

    /// Whether there is only one part.
    pub fn is_whole(&self) -> bool {
        self.count == 1
    }

    /// Whether a claim belongs to this part. Each claim belongs to exactly one part.
    pub fn holds(&self, claim: &ClaimId) -> bool {
        self.is_whole() || hash(claim) % u64::from(self.count) == u64::from(self.index)
    }

    /// Returns the shard as a label value, counted from 0: `3-of-8`. A pod finds the snapshots of its shard
    /// by it.
    pub fn label_value(&self) -> String {
        format!("{}-of-{}", self.index, self.count)
    }
}

impl Default for Shard {
    fn default() -> Self {
        Shard::WHOLE
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} (of 0 to {})", self.index, self.count.saturating_sub(1))
    }
}

fn hash(claim: &ClaimId) -> u64 {
    hash_of(claim.namespace.bytes().chain([b'/']).chain(claim.name.bytes()))
}

/// The hash of any bytes. It is the same in every version.
pub(crate) fn hash_of(bytes: impl Iterator<Item = u8>) -> u64 {
    mix(fnv_1a(bytes))
}

/// Fowler–Noll–Vo hash 1a, 64 bits.
fn fnv_1a(bytes: impl Iterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The finalizer of 64-bit MurmurHash3: every input bit affects every output bit.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn claim(namespace: &str, name: &str) -> ClaimId {
        ClaimId { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn shards(count: u32) -> impl Iterator<Item = Shard> {
        (0..count).filter_map(move |index| Shard::new(index, count))
    }

    /// The place of the shard that holds a claim; there has to be exactly one.
    fn place(claim: &ClaimId, count: u32) -> usize {
        let places: Vec<usize> = shards(count)
            .enumerate()
            .filter(|(_, shard)| shard.holds(claim))
            .map(|(place, _)| place)
            .collect();
        assert_eq!(places.len(), 1, "{claim:?} is in the shards {places:?} of {count}");
        places[0]
    }

    #[test]
    fn the_hash_is_what_it_is_called_and_stays_it() {
        // The first are published with the algorithm; the last pins how they are put together.
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(fnv_1a(text.bytes()), hash, "{text}");
        }
        assert_eq!((mix(0), mix(1)), (0, 0xb456_bcfc_34c2_cb2c));
        let places: Vec<usize> = (0..12).map(|n| place(&claim("shop", &format!("data-{n}")), 8)).collect();
        assert_eq!(places, [4, 4, 4, 3, 4, 7, 3, 0, 1, 6, 4, 4]);
    }

    #[test]
    fn there_is_no_shard_beyond_the_last() {
        assert_eq!(Shard::new(0, 1), Some(Shard::WHOLE));
        assert!(Shard::new(7, 8).is_some());
        assert_eq!((Shard::new(8, 8), Shard::new(0, 0)), (None, None));
    }

    #[test]
    fn a_shard_is_called_as_kubernetes_counts() {
        let shard = Shard::new(3, 8).expect("a shard");
        assert_eq!(shard.to_string(), "shard 3 (of 0 to 7)");
        assert_eq!(shard.label_value(), "3-of-8");
        assert!(crate::names::is_label_value(&shard.label_value()));
    }

    #[test]
    fn names_as_they_are_given_are_spread_evenly() {
        let numbered = |prefix: &str| (0..1000).map(|n| claim("shop", &format!("{prefix}{n}"))).collect();
        let by_namespace = (0..1000).map(|n| claim(&format!("tenant-{n:04}"), "data")).collect();
        // Letters whose lowest bits are all the same.
        let alike: Vec<ClaimId> = (0..1024)
            .map(|n| {
                let letter = |bit: u32| if n >> bit & 1 == 0 { 'a' } else { 'c' };
                claim("shop", &(0..10).map(letter).collect::<String>())
            })
            .collect();
        for claims in [numbered("data-"), numbered("pvc-0-disk-"), by_namespace, alike] {
            for count in [2, 3, 8, 16] {
                let mut held = vec![0_usize; count as usize];
                claims.iter().for_each(|claim| held[place(claim, count)] += 1);
                let fair = claims.len() / count as usize;
                assert!(
                    held.iter().all(|held| held.abs_diff(fair) < fair / 2),
                    "{count} shards hold {held:?}, {:?} and so on",
                    claims[0]
                );
            }
        }
    }

    proptest! {
        #[test]
        fn shards_are_disjoint_and_complete_and_no_claim_moves_another(
            claims in proptest::collection::btree_set(("[a-z0-9]{1,8}", "[a-z0-9.-]{1,20}"), 1..40),
            count in 1..20_u32,
            gone in any::<prop::sample::Index>(),
        ) {
            let claims: Vec<ClaimId> = claims.iter().map(|(namespace, name)| claim(namespace, name)).collect();
            let held = |claims: &[ClaimId]| -> Vec<BTreeSet<String>> {
                let names = |shard: Shard| {
                    let held = claims.iter().filter(|claim| shard.holds(claim));
                    held.map(|claim| format!("{}/{}", claim.namespace, claim.name)).collect()
                };
                shards(count).map(names).collect()
            };
            let before = held(&claims);
            prop_assert_eq!(before.iter().map(BTreeSet::len).sum::<usize>(), claims.len());
            prop_assert_eq!(before.iter().flatten().collect::<BTreeSet<_>>().len(), claims.len());

            let mut fewer = claims.clone();
            let gone = fewer.remove(gone.index(claims.len()));
            for (before, after) in before.iter().zip(held(&fewer)) {
                let mut before = before.clone();
                before.remove(&format!("{}/{}", gone.namespace, gone.name));
                prop_assert_eq!(before, after);
            }
        }
    }
}
