//! Who is told what a run came to.

mod events;
mod ping;
mod services;
