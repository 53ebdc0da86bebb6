//! All integration tests, in one binary, for linking is what takes long.

mod faults;
mod figures;
mod image;
mod invariants;
mod manifests;
mod place;
mod pod;
mod recordings;
mod retention;
mod scenarios;
mod shards;
