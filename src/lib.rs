//! Takes a VolumeSnapshot of each chosen PersistentVolumeClaim, waits until it is ready, and only
//! then deletes the older ones that the retention policy no longer wants. One run of the binary
//! does this once; a CronJob repeats it; the snapshots themselves are the only state.
//!
//! This library exists for the binary and its tests. Its modules, from the ground up, each using
//! only those above it:
//!
//! | module | what lives there |
//! |---|---|
//! | [`text`], [`yaml`], [`quantity`] | how durations, counts, foreign messages, documents and amounts of storage are spelt |
//! | [`names`] | label keys, and what Kubernetes accepts as a name or a label's value |
//! | [`api`] | the fields of claims and snapshots that are read and written |
//! | [`snapshot`] | what is remembered of a snapshot |
//! | [`group`] | what a group snapshot is together with its members |
//! | [`hooks`] | which commands pods ask for around their claims' snapshots, and which claims belong together |
//! | [`shard`] | which pod of an Indexed Job takes a claim |
//! | [`url`] | foreign URLs, and what of them may be said |
//! | [`retention`] | which snapshots stay and why: rules, and the safety rules above them; when the next one is due; what claims ask for by annotations |
//! | [`timeline`] | the picture of which snapshots there are over time |
//! | [`settings`] | the environment variables, checked as a whole |
//! | [`report`] | what a run or a restore came to: exit code, summary, termination message |
//! | [`cluster`] | every request to the API server, its bounds and its repetition |
//! | [`run`] | the run: discover, create, watch, wait, prune |
//! | [`notify`] | who is told what a run came to, and how: Events, pings, metrics |
//! | [`volume`] | what a volume made from a snapshot is: size, class, modes |
//! | [`list`] | the command `list`: what there is, and why it stays or goes |
//! | [`simulate`] | the command `simulate`: how many snapshots a policy holds, without a cluster |
//! | [`restore`] | the command `restore`: a new claim from a snapshot |
//! | [`verify`] | the command `verify`: proves that volumes can be made from snapshots and read |
//! | [`adopt`] | the command `adopt`: gives a schedule the snapshots that another tool made |
//! | [`read`] | the command `read`: every byte of a volume, without a cluster |
//! | [`command`] | the command line |
//! | [`process`] | the log, the terminal, signals, the termination message's file |
//!
//! [`group`], [`hooks`], [`shard`], [`retention`], [`timeline`], [`settings`], [`report`], [`simulate`], [`command`] and what they
//! use are pure: they know neither clock nor cluster; so are the parts of [`list`], [`restore`] and [`adopt`]
//! that decide what is said and made. [`run`], [`list`], [`simulate`], [`restore`] and [`adopt`] know no HTTP, and
//! nothing of each other; [`read`] knows files, and no cluster. [`main`] wires the parts together and does nothing else.
//!
//! # What never happens
//!
//! The safety of users' backups rests on these, and each is held by tests:
//!
//! - A snapshot is deleted only while a newer one of the same claim is there and ready: every try of a
//!   deletion asks first ([`cluster::Cluster::delete`]). It goes only if the schedule owns it
//!   ([`snapshot::Snapshot::owned`]), and only by what the API server says after the new one became
//!   ready: the claim is the same by its uid, its annotations are those of now, and no claim is being
//!   restored from it ([`run`]).
//! - A group goes only while a newer one is there and ready with a member of each claim that the older one has
//!   ([`group::Group::snapshot`], [`retention::is_of_others`]). No member is ever deleted alone ([`cluster`]).
//! - The newest ready one stays, and so do held, terminating, future-dated and unreadable ones, those
//!   that another object owns, those of a previous claim, and those that a Job may still wait for
//!   ([`retention::judge`]).
//! - A deletion holds for exactly the object and the state that was judged
//!   ([`cluster::Cluster::delete`]), and no create is blindly repeated
//!   ([`cluster::Cluster::create`]). What admission made something else of is taken back
//!   ([`cluster::NewSnapshot::changes`]).
//! - Nothing that others wrote becomes part of a URL unchecked or fills the memory ([`cluster`]), or
//!   moves a terminal's cursor ([`text::foreign`]).
//! - A restore makes a claim, once, and changes or deletes nothing that exists
//!   ([`cluster::Cluster::create_claim`], [`cluster::RESTORE_PERMISSIONS`]).
//! - A drill deletes its own Jobs and nothing else, each by its uid, and none whose volume may just be being made
//!   ([`cluster::Cluster::delete_job`], [`verify`]). It notes a verdict only on the snapshot that was read, by its uid
//!   ([`cluster::Cluster::note_on_snapshot`]).
//! - An adoption changes marks that say whose a snapshot is, and nothing else; only of the state that was judged, and
//!   of none that another schedule or object owns ([`cluster::Cluster::adopt`], [`adopt::Choice::refusal`]).
//! - A setting that cannot be understood stops the run before anything is changed
//!   ([`settings::Settings::parse`]). Outside a pod nothing is deleted without an explicit retention.
//! - A run ends ([`settings::Settings::bound`]), and so does telling people of it, which changes nothing of what
//!   it came to ([`notify::tell`]).
//! - Of a URL that is a secret no more than its origin is logged ([`url::SecretUrl`], [`notify::http`]).
//! - Before a run ends, however it does, it thaws what its hooks have frozen ([`run::run`]).

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod adopt;
pub mod api;
pub mod cluster;
pub mod command;
mod entry;
pub mod group;
pub mod hooks;
pub mod list;
pub mod names;
pub mod notify;
pub mod process;
pub mod quantity;
pub mod read;
pub mod report;
pub mod restore;
pub mod retention;
pub mod run;
pub mod settings;
pub mod shard;
pub mod simulate;
pub mod snapshot;
pub mod text;
pub mod timeline;
pub mod url;
pub mod verify;
pub mod volume;
pub mod yaml;

pub use entry::main;
