//! Telling people what a run came to: outside of the cluster, and after everything else is done.
//!
//! Nothing here changes what a run came to: its exit code and its termination message are settled before.
//! Whatever goes wrong here is a line of the log, and whatever takes long ends in time: see [`tell`].
//!
//! Who is pinged, and when, is in `ping`; how a request is sent to a foreign URL is in [`http`].

pub mod http;
mod ping;

use std::time::Duration;

use crate::{
    report::{EXIT_PERMANENT, Report, Stop},
    settings::{Ping, Problems, TELLING},
};

/// How long it may take when a signal ended the run: the process has to be gone within a second.
const AFTER_SIGNAL: Duration = Duration::from_millis(300);

/// What a run came to, in the forms in which it is told.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub exit: u8,
    /// In a line.
    pub summary: String,
    /// The termination message.
    pub message: String,
    pub took: Duration,
}

impl From<&Report> for Outcome {
    fn from(report: &Report) -> Self {
        Outcome {
            exit: report.exit_code(),
            summary: report.summary(),
            message: report.termination_message(),
            took: report.took,
        }
    }
}

impl From<&Problems> for Outcome {
    fn from(problems: &Problems) -> Self {
        let message = problems.to_string();
        Outcome { exit: EXIT_PERMANENT, summary: message.clone(), message, took: Duration::ZERO }
    }
}

/// Tells everybody who is to be told, side by side, for at most [`TELLING`], and until `stop` comes. `ended_by`
/// is what ended the run before its time: after a signal, which is not waited for a second time, there are
/// 300 ms.
pub async fn tell(
    outcome: &Outcome,
    ping: Option<&Ping>,
    ended_by: Option<Stop>,
    stop: impl Future<Output = Stop>,
) {
    let is_signalled = matches!(ended_by, Some(Stop::Signal(_)));
    let within = if is_signalled { AFTER_SIGNAL } else { TELLING };
    let telling = async {
        if let Some(ping) = ping {
            ping::ping(ping, outcome, within).await;
        }
    };
    if is_signalled {
        return telling.await;
    }
    tokio::select! {
        biased;
        _ = stop => tracing::debug!("told to stop while people were told of the run"),
        () = telling => {}
    }
}
