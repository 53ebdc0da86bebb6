//! Which snapshots of a claim stay, which go, and why.
//!
//! [`Rules`] is what a user writes; [`judge`] applies it under the safety rules that stand above
//! every policy. Everything here is a pure function: it knows no cluster, and the moment that it
//! judges by is handed in.

mod policy;
mod rules;

pub use policy::{Decision, Judgement, Verdict, judge};
pub use rules::{Rule, RuleError, Rules};
