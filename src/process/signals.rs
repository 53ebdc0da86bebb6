//! The signals that end the process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::report::Stop;

/// From now on SIGTERM, which Kubernetes sends to end a pod, and SIGINT, which Ctrl-C sends, end the
/// process no more by themselves: they end the returned future.
///
/// # Errors
/// If the system does not let us handle them.
pub fn stop_signals() -> io::Result<impl Future<Output = Stop>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Stop::Signal(15),
            _ = interrupt.recv() => Stop::Signal(2),
        }
    })
}
