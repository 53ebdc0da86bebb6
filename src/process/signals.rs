use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::report::Stop;

/// Installs handlers for SIGTERM, which Kubernetes sends to end a pod, and SIGINT, which Ctrl-C sends. The
/// signals then no longer end the process, but resolve the returned future.
///
/// # Errors
/// If the handlers cannot be installed.
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
