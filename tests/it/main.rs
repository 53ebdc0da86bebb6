//! All integration tests, in one binary, for linking is what takes long.

mod figures;
mod manifests;
mod place;
mod pod;
mod recordings;
mod retention;
mod scenarios;
mod shards;
