//! All integration tests, in one binary, for linking is what takes long.

mod alerts;
mod annotated;
mod attacks;
mod commands;
mod daemons;
mod documents;
mod every;
mod faults;
mod figures;
mod image;
mod invariants;
mod labels;
mod list;
mod manifests;
mod pod;
mod random;
mod recordings;
mod release;
mod restore;
mod retention;
mod scenarios;
mod shards;
mod test_cluster;
mod timeline;
