//! The process around a command: the log, the terminal, the signals that end it, and its termination message.
//! The commands are [`crate::run`], [`crate::list`], [`crate::simulate`] and [`crate::restore`].

mod log;
mod signals;
mod terminal;
mod termination;

pub use log::{finish_log, start_log, start_plain_log};
pub use signals::stop_signals;
pub use terminal::{canvas, print, screen, waiting_line};
pub use termination::{leave_message, publish, publish_reading, publish_restore, publish_verify};
