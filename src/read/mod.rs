//! The command `read`: every byte of what is in a volume.
//!
//! `report` says what came of it.

pub mod report;
