//! Publishes the result of a command in the log and in the termination message that Kubernetes keeps.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use super::terminal::print;
use crate::{
    read,
    report::{EXIT_DONE, Report, RestoreReport},
    settings::LogFormat,
    verify::VerifyReport,
};

/// Logs the summary of a run, and writes its termination message.
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

/// Publishes the result of a restore: the claim on standard output, the rest in the log and in the
/// termination message.
pub fn publish_restore(report: &RestoreReport, format: Option<LogFormat>, termination_log: &Path) {
    let (exit, said) = (report.exit_code(), report.message());
    match &report.outcome {
        // With JSON, the data is a field of the log line.
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

/// Logs the summary of a drill, and writes its termination message.
pub fn publish_verify(report: &VerifyReport, termination_log: &Path) {
    let code = report.exit_code();
    let duration_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
    let (claims, verified) = (report.claims.len(), report.verified());
    let summary = report.summary();
    if code == EXIT_DONE {
        tracing::info!(exit = code, claims, verified, duration_ms, "{summary}");
    } else {
        tracing::error!(exit = code, claims, verified, duration_ms, "{summary}");
    }
    leave_message(&report.termination_message(), termination_log);
}

/// Logs the summary of a reading, and writes its result to the termination message.
pub fn publish_reading(report: &read::report::Report, termination_log: &Path) {
    let (reading, exit, said) = (&report.reading, report.exit_code(), report.reading.summary());
    let (files, bytes, duration_ms) = (reading.files, reading.bytes, reading.duration_ms);
    if exit == EXIT_DONE {
        tracing::info!(exit, files, bytes, duration_ms, "{said}");
    } else {
        tracing::error!(exit, files, bytes, duration_ms, "{said}");
    }
    leave_message(&reading.message(), termination_log);
}

/// Writes a message to the file where Kubernetes looks for it. Outside a pod the default file does not exist
/// and is not created, because it is in `/dev`; a file elsewhere, which the user named, is.
pub fn leave_message(message: &str, termination_log: &Path) {
    if let Err(error) = write(message, termination_log) {
        tracing::debug!("cannot write the termination message to {}: {error}", termination_log.display());
    }
}

fn write(message: &str, termination_log: &Path) -> io::Result<()> {
    // Opening a pipe or a socket may block forever, until somebody opens the other end.
    if let Ok(metadata) = fs::metadata(termination_log) {
        let kind = metadata.file_type();
        if kind.is_fifo() || kind.is_socket() {
            return Err(io::Error::other("it is a pipe or a socket, not a file"));
        }
    }
    let in_dev = termination_log.starts_with("/dev");
    let mut file = OpenOptions::new().write(true).truncate(true).create(!in_dev).open(termination_log)?;
    file.write_all(message.as_bytes())
}
