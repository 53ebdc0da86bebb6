//! Who is told what a run came to.

mod dashboard;
mod events;
mod ping;
mod push;
mod services;
