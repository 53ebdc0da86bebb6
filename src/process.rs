//! The process around a run: its command line, its log, the signals that end it, and the message
//! that it leaves to Kubernetes. What a run does is in [`crate::run`].

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    path::Path,
};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    report::{Report, Stop},
    settings::LogFormat,
};

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A run, with the settings of the environment.
    Run,
    /// The help text.
    Help,
    /// The version.
    Version,
}

/// What `--help` prints.
pub const HELP: &str = "\
Takes a VolumeSnapshot of each chosen PersistentVolumeClaim, waits until it is
ready, and only then deletes the older ones that the retention policy no longer
wants. Runs once and exits; a CronJob repeats it.

Usage: volume-snapshotter [--help | --version]

All settings are environment variables. One of the first two must be set.

  SNAPSHOT_PVC_NAMES        claims, comma-separated: data or data,logs
  SNAPSHOT_PVC_SELECTOR     claims by label selector: app=web
  SNAPSHOT_NAMESPACE        where [the pod's own, or the kubeconfig context's]
  SNAPSHOT_NAMESPACE_SELECTOR
                            all namespaces that match, instead of one
  SNAPSHOT_CLASS_NAME       VolumeSnapshotClass [the cluster's default]
  SNAPSHOT_NAME_PREFIX      what names begin with [volume-snapshot]
  SNAPSHOT_JOB              label 'job': the schedule that owns them
                            [volume-snapshotter]
  SNAPSHOT_READY_ATTEMPTS   how many windows to wait [3]
  SNAPSHOT_READY_INTERVAL   how long one is: 30, 30s, 5m, 1m30s [30s]
  SNAPSHOT_RETENTION        what stays, if any rule keeps it: last=N, hourly=N,
                            daily=N, weekly=N, monthly=N, yearly=N, within=14d,
                            deltas=PT1H P1D P7D, all [last=1]
  SNAPSHOT_CONCURRENCY      requests in flight [8]
  SNAPSHOT_DRY_RUN          true: say what would happen, change nothing [false]
  SNAPSHOT_HOLD             true: no schedule ever deletes what this run makes
                            [false]
  SNAPSHOT_SHARDS           pods of an Indexed Job that share the claims [1]
  JOB_COMPLETION_INDEX      which of them this one is, from 0; Kubernetes sets it
  SNAPSHOT_RUN_ID           the Job's name, so that its next attempt goes on
                            with the same snapshots [random]
  SNAPSHOT_TERMINATION_LOG  file for the final message [/dev/termination-log]
  SNAPSHOT_LOG_FORMAT       text or json [text on a terminal, else json]
  RUST_LOG                  log filter [info]

In a pod it uses the ServiceAccount; elsewhere the kubeconfig, as kubectl does.

Exit codes:
  0    every claim has a new ready snapshot, and what had to go is gone
  1    some claim has none; another attempt may help
  2    some claim has none; trying again cannot help (settings, permissions,
       no snapshot API, no such claim, nothing selected)
  3    all snapshots are ready, but some old ones could not be deleted
  143  told to stop (SIGTERM)

Example:
  SNAPSHOT_PVC_NAMES=data SNAPSHOT_DRY_RUN=true volume-snapshotter
";

/// Reads the command line, without the program's name.
///
/// # Errors
/// What is wrong, in words, if an argument is not known.
pub fn command(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Command, String> {
    let mut command = Command::Run;
    for argument in arguments {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--version" | "-V") => command = Command::Version,
            _ => {
                return Err(format!(
                    "unknown argument {:?}; all settings are environment variables, see --help",
                    argument.to_string_lossy()
                ));
            }
        }
    }
    Ok(command)
}

/// Begins to write the log to standard error: text on a terminal and JSON elsewhere, unless the
/// settings say otherwise.
pub fn start_log(format: Option<LogFormat>, filter: Targets) {
    let terminal = io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let layer = match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => {
            let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            layer.with_ansi(colour).boxed()
        }
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

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

/// Writes the summary to the log, and the termination message to its file.
pub fn publish(report: &Report, termination_log: &Path) {
    let code = report.exit_code();
    let duration_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
    let (claims, ready, deleted) = (report.claims.len(), report.ready(), report.deleted());
    let summary = report.summary();
    if code == crate::report::EXIT_DONE {
        tracing::info!(exit = code, claims, ready, deleted, duration_ms, "{summary}");
    } else {
        tracing::error!(exit = code, claims, ready, deleted, duration_ms, "{summary}");
    }
    leave_message(&report.termination_message(), termination_log);
}

/// Leaves a message where Kubernetes looks for it. Outside a pod there is no such file, and none
/// is made: only a place that exists, or that the user named and that can be made, is written to.
pub fn leave_message(message: &str, termination_log: &Path) {
    let in_dev = termination_log.starts_with("/dev");
    let written = OpenOptions::new()
        .write(true)
        .truncate(true)
        .create(!in_dev)
        .open(termination_log)
        .and_then(|mut file| file.write_all(message.as_bytes()));
    if let Err(error) = written {
        tracing::debug!("no termination message was left in {}: {error}", termination_log.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    #[test]
    fn the_command_line_has_two_flags_and_nothing_else() {
        let read = |arguments: &[&str]| command(arguments.iter().map(Into::into));
        assert_eq!(read(&[]), Ok(Command::Run));
        assert_eq!(read(&["--help"]), Ok(Command::Help));
        assert_eq!(read(&["-V"]), Ok(Command::Version));
        assert!(read(&["snapshot"]).is_err_and(|error| error.contains("see --help")));
        assert!(read(&["--version", "--oops"]).is_err());
    }

    #[test]
    fn the_help_text_names_every_setting() {
        for name in settings::NAMES {
            assert!(HELP.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
        }
    }
}
