//! Where the API server is and who we are to it: the pod's ServiceAccount in a cluster, the
//! kubeconfig elsewhere.

use std::{env, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use kube::{Client, Config, config::KubeConfigOptions};

use tokio::time::timeout;

use super::{Cluster, Error, error::with_causes, request::Requests};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a kubeconfig's program may take to fetch credentials; it may ask a person.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may be silent before it counts as dead. Longer than a watch lasts
/// (290 s), which may have nothing to tell; every other request has its own, shorter time.
const SILENCE: Duration = Duration::from_secs(300);

/// What a user says of where the cluster is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access<'a> {
    /// The namespace; without one it is the pod's own, or that of the kubeconfig's context.
    pub namespace: Option<&'a str>,
    /// The kubeconfig's context; without one it is the current one.
    pub context: Option<&'a str>,
}

/// Connects to the cluster; no request is made yet.
///
/// # Errors
/// If there is neither a ServiceAccount nor a kubeconfig that can be used.
pub async fn connect(access: Access<'_>, concurrency: usize) -> Result<Cluster, Error> {
    // As kubectl has it, a kubeconfig that somebody names wins, even in a pod, and so does a context,
    // which only a kubeconfig has.
    let in_pod = access.context.is_none()
        && env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        && env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty());
    let config = match in_pod {
        true => Config::incluster()
            .map_err(|error| Error::no_way(&format!("the pod's ServiceAccount: {}", with_causes(error))))?,
        false => Config::from_kubeconfig(&KubeConfigOptions {
            context: access.context.map(str::to_owned),
            ..KubeConfigOptions::default()
        })
        .await
        .map_err(|error| Error::no_way(&format!("the kubeconfig: {}", with_causes(error))))?,
    };
    // A kubeconfig may name a program that fetches the credentials. The client library waits for it
    // on the thread that asks, which here is the only one: the run would hear no signal meanwhile.
    let namespace = access.namespace.map(str::to_owned);
    let cluster = tokio::task::spawn_blocking(move || Cluster::of(config, namespace, concurrency));
    match timeout(CREDENTIALS_TIMEOUT, cluster).await {
        Ok(Ok(cluster)) => cluster,
        Ok(Err(error)) => Err(Error::no_way(&with_causes(error))),
        Err(_) => Err(Error::no_way("the kubeconfig's program for credentials gives none in time")),
    }
}

impl Cluster {
    /// The cluster of a configuration of the client library's; see [`connect`].
    ///
    /// # Errors
    /// If the configuration cannot be used: its certificates, its credentials.
    pub fn of(config: Config, namespace: Option<String>, concurrency: usize) -> Result<Self, Error> {
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(adapt(config)).map_err(|error| Error::no_way(&with_causes(error)))?;
        Ok(Cluster { requests: Requests::new(client, concurrency), namespace })
    }
}

/// Sets what the client library's defaults leave open.
fn adapt(mut config: Config) -> Config {
    // It would resend every request, a POST included, up to 15 times; `super::request` decides.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    let agent = HeaderValue::from_static(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_library_repeats_nothing_by_itself_and_notices_a_dead_connection() {
        let config = adapt(Config::new(http::Uri::from_static("https://localhost:6443")));
        assert!(!config.default_retry);
        assert!(config.read_timeout > Some(Duration::from_secs(super::super::WATCH_SECONDS.into())));
        assert!(config.connect_timeout.is_some() && config.write_timeout.is_some());
    }
}
