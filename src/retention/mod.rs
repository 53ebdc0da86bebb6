//! Decides which snapshots of a claim are kept, which are deleted, and why; and whether a new one is due.
//!
//! [`Rules`] is what a user writes. [`judge`] applies them, subject to the safety rules that override every
//! policy. [`due::not_due`] says whether it is time for the next snapshot. Everything here is a pure function: it knows no cluster, and the caller passes the current time.

mod annotations;
pub mod due;
mod durations;
mod keep;
mod policy;
mod rules;

pub use annotations::{AnnotationError, VolumeAnnotations, every_of_claim, is_annotated, rules_of_claim};
pub use due::Every;
pub use durations::{Deltas, Window};
pub use policy::{ClaimIdentity, Decision, Judgement, Verdict, cause, is_of_others, judge};
pub use rules::{Count, Period, Rule, RuleError, Rules};
