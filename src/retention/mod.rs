//! Which snapshots of a claim stay, which go, and why.
//!
//! [`Rules`] is what a user writes; [`judge`] applies it under the safety rules that stand above
//! every policy. Everything here is a pure function: it knows no cluster, and the moment that it
//! judges by is handed in.

mod annotations;
mod durations;
mod keep;
mod policy;
mod rules;

pub use annotations::rules_of_claim;
pub use durations::{Deltas, Window};
pub use policy::{ClaimIdentity, Decision, Judgement, Verdict, judge};
pub use rules::{Period, Rule, RuleError, Rules};
