//! The process around a command: its log, its terminal, the signals that end it, and the message
//! that it leaves to Kubernetes. What the commands do is in [`crate::run`], [`crate::list`] and
//! [`crate::restore`].

mod log;
mod signals;
mod terminal;
mod termination;

pub use log::{finish_log, start_log, start_plain_log};
pub use signals::stop_signals;
pub use terminal::{print, screen, waiting_line};
pub use termination::{leave_message, publish, publish_restore};
