//! Where the API server is and who we are to it: the pod's ServiceAccount in a cluster, the
//! kubeconfig elsewhere.

use std::{env, path::Path, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::{Cluster, Error, credentials, error::with_causes, request::Requests};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a kubeconfig's program may take to fetch credentials; it may ask a person.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may be silent before it counts as dead. Longer than a watch lasts
/// (290 s), which may have nothing to tell; every other request has its own, shorter time.
const SILENCE: Duration = Duration::from_secs(300);

/// How long one request is repeated on behalf of a run, which nobody watches.
pub const RETRY_BUDGET: Duration = Duration::from_secs(60);

/// How long one request is repeated on behalf of a person who waits for the answer.
pub const INTERACTIVE_RETRY_BUDGET: Duration = Duration::from_secs(10);

/// What a user says of where the cluster is, and how it is to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The namespace; without one it is the pod's own, or that of the kubeconfig's context.
    pub namespace: Option<&'a str>,
    /// The kubeconfig; without one it is that of `KUBECONFIG`, or `~/.kube/config`.
    pub kubeconfig: Option<&'a Path>,
    /// The kubeconfig's context; without one it is the current one.
    pub context: Option<&'a str>,
    /// The user to act as.
    pub impersonate: Option<&'a str>,
    /// The most requests in flight at a time.
    pub concurrency: usize,
    /// How long one request is repeated.
    pub budget: Duration,
}

/// Connects to the cluster; no request is made yet.
///
/// # Errors
/// If there is neither a ServiceAccount nor a kubeconfig that can be used.
pub async fn connect(access: Access<'_>) -> Result<Cluster, Error> {
    // As kubectl has it, a kubeconfig that somebody names wins, even in a pod, and so does a context,
    // which only a kubeconfig has.
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
    // A kubeconfig may name a program that fetches the credentials. The client library waits for it
    // on the thread that asks, which here is the only one: the run would hear no signal meanwhile.
    let namespace = access.namespace.map(str::to_owned);
    let (concurrency, budget) = (access.concurrency, access.budget);
    let cluster =
        tokio::task::spawn_blocking(move || Cluster::of(config, namespace, in_pod, concurrency, budget));
    match timeout(CREDENTIALS_TIMEOUT, cluster).await {
        Ok(Ok(cluster)) => cluster,
        Ok(Err(error)) => Err(Error::no_way(&with_causes(error))),
        Err(_) => Err(Error::no_way("the kubeconfig's exec plugin gives no credentials in time")),
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
    /// The cluster of a configuration of the client library's; see [`connect`].
    ///
    /// # Errors
    /// If the configuration cannot be used: its certificates, its credentials.
    pub fn of(
        config: Config,
        namespace: Option<String>,
        in_pod: bool,
        concurrency: usize,
        budget: Duration,
    ) -> Result<Self, Error> {
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let plugin = config.auth_info.exec.as_ref().and_then(|plugin| plugin.command.clone());
        if !can_be_sent(&config.auth_info) {
            return Err(Error::no_way(credentials::INVALID_HEADER));
        }
        let client = Client::try_from(adapt(config))
            .map_err(|error| Error::no_way(&credentials::of_client(error, plugin.as_deref())))?;
        Ok(Cluster { requests: Requests::new(client, concurrency, budget), namespace, in_pod })
    }
}

/// Whether a request can carry the credentials. The client library takes that for granted, and panics.
fn can_be_sent(auth: &AuthInfo) -> bool {
    let token = auth.token.as_ref().map(|token| token.expose_secret());
    token.is_none_or(|token| HeaderValue::from_str(token).is_ok())
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
