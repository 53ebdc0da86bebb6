//! The command `verify`: a drill. It makes a throw-away volume from the newest snapshot of each claim, has it read, and
//! notes on the snapshot what came of it. It deletes its own Jobs, and nothing else; Kubernetes then deletes their pods,
//! claims and volumes.
//!
//! Here is the order of things. Which snapshot it is is decided in `choose`, what the Job is in `job`, what users may add
//! to its pod in `template`, what became of it in `verdict`, and what all of it came to in `report`. The steps are in `drill`.
//!
//! A drill in a pod makes Jobs that belong to its own Job, so that Kubernetes deletes them with it, and names them so
//! that its next attempt finds them. Each Job also ends and goes by itself, after a deadline and a time to live: whenever
//! a drill is killed, nothing stays for longer than that.

mod choose;
mod drill;
mod job;
mod report;
mod template;
mod verdict;

pub use drill::verify;
pub use report::{ClaimVerdict, VerifyEnd, VerifyReport};
pub use template::Template;
