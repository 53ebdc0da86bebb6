//! Hooks: commands in the pods that use a claim, before its snapshot is made and after it is taken.
//!
//! What pods ask for is read in [`annotations`](self::of_pod), and which claims belong together because a pod
//! with hooks mounts them all in [`plan`](self::units). Pure: the commands are run by [`crate::run`], through
//! [`crate::cluster`].

mod annotations;
mod plan;

pub(crate) use annotations::argv;
pub use annotations::{Hook, HookError, HookedPod, Hooks, OnError, of_pod};
pub use plan::{Unit, units};
