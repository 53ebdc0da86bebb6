//! Who is told what a run came to.

mod ping;
mod services;
