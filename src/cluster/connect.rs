//! Connects to the API server: with the pod's ServiceAccount in a cluster, with a kubeconfig elsewhere.

use std::{env, path::Path, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::{Cluster, Error, credentials, error::with_causes, request::Requests};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the kubeconfig's exec plugin may take. It may have to ask a person.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may be silent before it counts as broken. Longer than a watch (290 s), which may
/// have no events. All other requests have shorter timeouts.
const SILENCE: Duration = Duration::from_secs(300);

/// Retry budget of one request in a run, which nobody waits for.
pub const RETRY_BUDGET: Duration = Duration::from_secs(60);

/// Retry budget of one request in an interactive command.
pub const INTERACTIVE_RETRY_BUDGET: Duration = Duration::from_secs(10);

/// How to reach the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The namespace. Default: the pod's own, or that of the kubeconfig's context.
    pub namespace: Option<&'a str>,
    /// The kubeconfig. Default: `KUBECONFIG`, or `~/.kube/config`.
    pub kubeconfig: Option<&'a Path>,
    /// The kubeconfig's context. Default: the current one.
    pub context: Option<&'a str>,
    /// The user to impersonate.
    pub impersonate: Option<&'a str>,
    /// Maximum number of requests in flight.
    pub concurrency: usize,
    /// Retry budget of one request.
    pub budget: Duration,
}

/// Configures the connection to the cluster. Makes no request to the API server.
///
/// # Errors
/// If there is neither a usable ServiceAccount nor a usable kubeconfig.
pub async fn connect(access: Access<'_>) -> Result<Cluster, Error> {
    // As in kubectl, an explicit kubeconfig wins even in a pod, and so does a context, which only a
    // kubeconfig has.
    let in_pod = access.context.is_none()
        && access.kubeconfig.is_none()
        && env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        && env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty());
    let mut config = match in_pod {
        true => Config::incluster()
            .map_err(|error| Error::no_way(&format!("the pod's ServiceAccount: {}", with_causes(error))))?,
        false => from_kubeconfig(access)
            .await
            .map_err(|error| Error::no_way(&credentials::of_kubeconfig(&error)))?,
    };
    if let Some(user) = access.impersonate {
        config.auth_info.impersonate = Some(user.to_owned());
    }
    // A kubeconfig may name an exec plugin. The client library waits for it on the calling thread, which is
    // the only one here, so the process would not react to signals.
    let namespace = access.namespace.map(str::to_owned);
    let (concurrency, budget) = (access.concurrency, access.budget);
    let cluster =
        tokio::task::spawn_blocking(move || Cluster::of(config, namespace, in_pod, concurrency, budget));
    match timeout(CREDENTIALS_TIMEOUT, cluster).await {
        Ok(Ok(cluster)) => cluster,
        Ok(Err(error)) => Err(Error::no_way(&with_causes(error))),
        Err(_) => Err(Error::no_way("the kubeconfig's exec plugin returned no credentials in time")),
    }
}

async fn from_kubeconfig(access: Access<'_>) -> Result<Config, KubeconfigError> {
    let options =
        KubeConfigOptions { context: access.context.map(str::to_owned), ..KubeConfigOptions::default() };
    match access.kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await,
        None => Config::from_kubeconfig(&options).await,
    }
}

impl Cluster {
    /// Creates a cluster from a configuration of the client library; see [`connect`].
    ///
    /// # Errors
    /// If the certificates or credentials of the configuration cannot be used.
    pub fn of(
        config: Config,
        namespace: Option<String>,
        in_pod: bool,
        concurrency: usize,
        budget: Duration,
    ) -> Result<Self, Error> {
        let own_namespace = config.default_namespace.clone();
        let namespace = namespace.unwrap_or_else(|| own_namespace.clone());
        let plugin = config.auth_info.exec.as_ref().and_then(|plugin| plugin.command.clone());
        if !can_be_sent(&config.auth_info) {
            return Err(Error::no_way(credentials::INVALID_HEADER));
        }
        let client = Client::try_from(adapt(config))
            .map_err(|error| Error::no_way(&credentials::of_client(error, plugin.as_deref())))?;
        Ok(Cluster { requests: Requests::new(client, concurrency, budget), namespace, own_namespace, in_pod })
    }
}

/// Whether the credentials are a valid header value. The client library panics otherwise.
fn can_be_sent(auth: &AuthInfo) -> bool {
    let token = auth.token.as_ref().map(|token| token.expose_secret());
    token.is_none_or(|token| HeaderValue::from_str(token).is_ok())
}

/// Overrides defaults of the client library.
fn adapt(mut config: Config) -> Config {
    // The client library would resend every request, POST included, up to 15 times. `super::request` decides
    // instead.
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
