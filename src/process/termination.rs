//! What a command came to, in the log and in the termination message that Kubernetes keeps.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use super::terminal::print;
use crate::{
    report::{EXIT_DONE, Report, RestoreReport},
    settings::LogFormat,
};

/// Writes the summary to the log, and the termination message to its file.
pub fn publish(report: &Report, termination_log: &Path) {
    let code = report.exit_code();
    let duration_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
    let (claims, ready, deleted) = (report.claims.len(), report.ready(), report.deleted());
    let summary = report.summary();
    if code == EXIT_DONE {
        tracing::info!(exit = code, claims, ready, deleted, duration_ms, "{summary}");
    } else {
        tracing::error!(exit = code, claims, ready, deleted, duration_ms, "{summary}");
    }
    leave_message(&report.termination_message(), termination_log);
}

/// Writes what a restore came to: the claim to standard output, the rest to the log and to the
/// termination message's file.
pub fn publish_restore(report: &RestoreReport, format: Option<LogFormat>, termination_log: &Path) {
    let (exit, said) = (report.exit_code(), report.message());
    match &report.outcome {
        // Where all is JSON, data is.
        Ok(restored) if format == Some(LogFormat::Json) => {
            tracing::info!(exit, data = restored.data, next = restored.next, "{said}")
        }
        Ok(restored) => {
            tracing::info!(exit, "{said}");
            print(&restored.data);
            if !restored.next.is_empty() {
                tracing::info!("{}", restored.next);
            }
        }
        Err(_) => tracing::error!(exit, "{said}"),
    }
    leave_message(&format!("{said}\n"), termination_log);
}

/// Leaves a message where Kubernetes looks for it. Outside a pod there is no such file, and none
/// is made: only a place that exists, or that the user named and that can be made, is written to.
pub fn leave_message(message: &str, termination_log: &Path) {
    if let Err(error) = write(message, termination_log) {
        tracing::debug!("no termination message was left in {}: {error}", termination_log.display());
    }
}

fn write(message: &str, termination_log: &Path) -> io::Result<()> {
    // Whoever opens a pipe or a socket waits for somebody at its other end, perhaps for ever.
    if let Ok(metadata) = fs::metadata(termination_log) {
        let kind = metadata.file_type();
        if kind.is_fifo() || kind.is_socket() {
            return Err(io::Error::other("it is a pipe or a socket, and not a file"));
        }
    }
    let in_dev = termination_log.starts_with("/dev");
    let mut file = OpenOptions::new().write(true).truncate(true).create(!in_dev).open(termination_log)?;
    file.write_all(message.as_bytes())
}
