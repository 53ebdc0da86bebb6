//! All integration tests, in one binary, for linking is what takes long.

mod alerts;
mod attacks;
mod commands;
mod daemons;
mod documents;
mod etcd;
mod faults;
mod figures;
mod image;
mod invariants;
mod list;
mod manifests;
mod notify;
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
