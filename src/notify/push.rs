//! A push: the metrics of a run, sent to a Pushgateway, for a process that ends before anybody could scrape it.
//!
//! What is in them is in [`super::metrics`].

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use ::http::{Method, StatusCode};
use tokio::time::Instant;

use super::{
    drill_metrics,
    http::{self, Error, Limits, Outgoing},
    metrics,
};
use crate::{
    report::Report,
    settings::{Settings, VerifySettings},
    url::SecretUrl,
    verify::VerifyReport,
};

/// How often it is tried.
const TRIES: u32 = 3;

/// Pushes, if that is wanted, within this time. `namespace` is the run's, if it is known. What goes wrong is a line of
/// the log.
pub(super) async fn push(report: &Report, settings: &Settings, namespace: Option<&str>, within: Duration) {
    if settings.pushgateway().is_some() {
        push_text(metrics::text(report, SystemTime::now()), settings, namespace, within).await;
    }
}

/// Pushes what a drill came to, as [`push`] does of a run.
pub(super) async fn push_drill(
    report: &VerifyReport,
    settings: &VerifySettings,
    namespace: Option<&str>,
    within: Duration,
) {
    if settings.run.pushgateway().is_some() {
        push_text(drill_metrics::text(report, SystemTime::now()), &settings.run, namespace, within).await;
    }
}

async fn push_text(
    text: Result<String, fmt::Error>,
    settings: &Settings,
    namespace: Option<&str>,
    within: Duration,
) {
    let Some(gateway) = settings.pushgateway() else { return };
    let began = Instant::now();
    let pushed = match (namespace, text) {
        (Some(namespace), Ok(text)) => send(gateway, text, settings, namespace, within).await,
        (None, _) => Err("the run's namespace is not known".to_owned()),
        (_, Err(error)) => Err(error.to_string()),
    };
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match pushed {
        Ok(bytes) => tracing::debug!(duration_ms, bytes, "pushed metrics to {gateway}"),
        Err(error) => tracing::warn!(
            duration_ms,
            "cannot push metrics to {gateway}: {error}; this changes nothing of the run and its exit code"
        ),
    }
}

/// Returns how many bytes were sent.
async fn send(
    gateway: &SecretUrl,
    text: String,
    settings: &Settings,
    namespace: &str,
    within: Duration,
) -> Result<usize, String> {
    let body = text.into_bytes();
    let bytes = body.len();
    let path = metrics::path(namespace, &settings.schedule, settings.shard);
    let url = gateway.below(&path).map_err(|error| error.to_string())?;
    let outgoing = Outgoing {
        // PUT would erase what this push does not have, such as the last success.
        method: Method::POST,
        url,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        body,
    };
    let limits = Limits { tries: TRIES, within };
    match http::send(outgoing, settings.notify_ca_file.clone(), limits).await {
        Ok(_) => Ok(bytes),
        Err(error @ Error::Refused(StatusCode::BAD_REQUEST, _)) => {
            Err(format!("{error}; the log of the Pushgateway says why"))
        }
        Err(error @ Error::Refused(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _)) => {
            Err(format!(
                "{error}; SNAPSHOT_PUSHGATEWAY_URL has to end where the Pushgateway's own paths begin, before /metrics"
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}
