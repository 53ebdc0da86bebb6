//! Decides which snapshots of a claim are kept, which are deleted, and why.
//!
//! [`Rules`] is what a user writes. [`judge`] applies them, subject to the safety rules that override every
//! policy. Everything here is a pure function: it knows no cluster, and the caller passes the current time.

mod annotations;
mod durations;
mod keep;
mod policy;
mod rules;

pub use annotations::{AnnotationError, rules_of_claim};
pub use durations::{Deltas, Window};
pub use policy::{ClaimIdentity, Decision, Judgement, Verdict, cause, judge};
pub use rules::{Count, Period, Rule, RuleError, Rules};
