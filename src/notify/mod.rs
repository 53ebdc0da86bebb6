//! Telling people what a run came to, after everything else is done.
//!
//! Nothing here changes what a run came to: its exit code and its termination message are settled before.
//! Whatever goes wrong here is a line of the log, and whatever takes long ends in time: see [`tell`].
//!
//! What is said on the claims is in `events`; who is pinged, and when, is in `ping`; what is pushed to a Pushgateway is
//! in `metrics`, of a drill in `drill_metrics`, and how in `push`; how a request is sent to a foreign URL is in [`http`].

mod drill_metrics;
mod events;
pub mod http;
mod metrics;
mod ping;
mod push;

use std::time::Duration;

use crate::{
    cluster::Cluster,
    report::{EXIT_PERMANENT, Report, Stop},
    settings::{Ping, Problems, Settings, TELLING, VerifySettings},
    verify::VerifyReport,
};

/// How long it may take when a signal ended the run: the process has to be gone within a second.
const AFTER_SIGNAL: Duration = Duration::from_millis(300);

/// What a run came to, in the forms in which it is told.
#[derive(Clone, Debug)]
struct Outcome {
    exit: u8,
    /// In a line.
    summary: String,
    /// The termination message.
    message: String,
    took: Duration,
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

impl From<&VerifyReport> for Outcome {
    fn from(report: &VerifyReport) -> Self {
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

/// Tells everybody who is to be told of a run, side by side, for at most [`TELLING`], and until `stop` comes. After
/// a signal ended the run, for which `stop` is not waited a second time, there are 300 ms. `id` is the Job's name;
/// without a cluster there are no Events, and metrics only if the settings name the namespace.
pub async fn tell(
    report: &Report,
    settings: &Settings,
    cluster: Option<&Cluster>,
    id: &str,
    stop: impl Future<Output = Stop>,
) {
    let within = if is_signalled(report) { AFTER_SIGNAL } else { TELLING };
    let announcing = async {
        if let Some(cluster) = cluster {
            events::announce(cluster, settings, report, id, within).await;
        }
    };
    let pinging = async {
        if let Some(ping) = settings.ping() {
            ping::ping(&ping, &Outcome::from(report), within).await;
        }
    };
    let namespace = cluster.map(Cluster::namespace).or(settings.namespace.as_deref());
    let pushing = push::push(report, settings, namespace, within);
    let telling = async {
        tokio::join!(announcing, pinging, pushing);
    };
    match is_signalled(report) {
        true => telling.await,
        false => until(stop, telling).await,
    }
}

/// Tells everybody who is to be told of a drill, as [`tell`] does of a run.
pub async fn tell_of_drill(
    report: &VerifyReport,
    settings: &VerifySettings,
    cluster: Option<&Cluster>,
    id: &str,
    stop: impl Future<Output = Stop>,
) {
    let is_signalled = matches!(report.stopped, Some(Stop::Signal(_)));
    let within = if is_signalled { AFTER_SIGNAL } else { TELLING };
    let announcing = async {
        if let Some(cluster) = cluster {
            events::announce_drill(cluster, settings, report, id, within).await;
        }
    };
    let pinging = async {
        if let Some(ping) = settings.ping() {
            ping::ping(&ping, &Outcome::from(report), within).await;
        }
    };
    let namespace = cluster.map(Cluster::namespace).or(settings.run.namespace.as_deref());
    let pushing = push::push_drill(report, settings, namespace, within);
    let telling = async {
        tokio::join!(announcing, pinging, pushing);
    };
    match is_signalled {
        true => telling.await,
        false => until(stop, telling).await,
    }
}

fn is_signalled(report: &Report) -> bool {
    matches!(report.stopped, Some(Stop::Signal(_)))
}

/// Tells that there was no run because of its settings, to whom they tell as far as they can be understood.
pub async fn tell_problems(problems: &Problems, ping: Option<&Ping>, stop: impl Future<Output = Stop>) {
    if let Some(ping) = ping {
        until(stop, ping::ping(ping, &Outcome::from(problems), TELLING)).await;
    }
}

async fn until(stop: impl Future<Output = Stop>, telling: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = stop => tracing::debug!("told to stop while people were told of the run"),
        () = telling => {}
    }
}
