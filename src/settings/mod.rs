//! The settings: environment variables `SNAPSHOT_*` (and `RUST_LOG`) in, [`Settings`] or all that
//! is wrong with them out. Those of a restore, `RESTORE_*`, are [`RestoreSettings`]; those of a drill, `VERIFY_*`,
//! are [`VerifySettings`].
//!
//! Pure: the variables are handed in, and nothing is looked up. [`Settings`] are in `run` and
//! [`RestoreSettings`] in `restore`; both read with `reader`, which lets flags stand in for variables.
//! What one value may look like is in `values`; what a retention rule may look like is in
//! [`crate::retention`].

mod reader;
mod restore;
mod run;
mod values;
mod verify;

pub use reader::{Fallback, Flag, Problems, default_filter, filter};
pub use restore::{Choice, RESTORE_NAMES, RestoreSettings};
pub use run::{Annotations, ClaimChoice, NAMES, Settings, TELLING, VARIABLES, Variable};
pub use values::{EventChoice, LogFormat, Ping, PingFailures, VolumeMode, duration_flag};
pub use verify::{VERIFY_NAMES, VERIFY_VARIABLES, VerifySettings};
