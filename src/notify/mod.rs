//! Telling people what a run came to: outside of the cluster, and after everything else is done.
//!
//! How a request is sent to a foreign URL is in [`http`].

pub mod http;
