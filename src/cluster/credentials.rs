//! Error messages about credentials that reveal no secrets. The client library's own messages repeat the
//! input that it could not parse: a line of a kubeconfig with its token, the output of an exec plugin. The
//! messages here contain only the kind of failure, exit statuses, positions in a file and harmless names.

use std::error::Error as StdError;

use kube::{
    client::AuthError,
    config::{KubeconfigError, LoadDataError},
};

/// Describes an error in a kubeconfig.
pub(super) fn of_kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::LoadContext(name) => {
            format!("there is no context {name:?} in the kubeconfig; see kubectl config get-contexts")
        }
        KubeconfigError::LoadClusterOfContext(name) => {
            format!("there is no cluster {name:?} in the kubeconfig")
        }
        KubeconfigError::ReadConfig(error, path) => {
            format!("cannot read the kubeconfig {}: {error}", path.display())
        }
        KubeconfigError::Parse(error) => {
            let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
            format!("the kubeconfig cannot be parsed{}", place.unwrap_or_default())
        }
        KubeconfigError::LoadCertificateAuthority(error) => of_data("certificate authority", error),
        KubeconfigError::LoadClientCertificate(error) => of_data("client certificate", error),
        KubeconfigError::LoadClientKey(error) => of_data("client key", error),
        KubeconfigError::ParseCertificates(_) => "the kubeconfig's certificates are not valid PEM".to_owned(),
        KubeconfigError::ParseClusterUrl(error) => format!("the kubeconfig's server is not a URL: {error}"),
        // The URL of a proxy may contain a password.
        KubeconfigError::ParseProxyUrl(_) => {
            "the proxy is not a URL; see proxy-url and HTTPS_PROXY".to_owned()
        }
        KubeconfigError::FindPath => {
            "no kubeconfig was found; run in a pod with a ServiceAccount, or set --kubeconfig or KUBECONFIG"
                .to_owned()
        }
        error @ (KubeconfigError::CurrentContextNotSet
        | KubeconfigError::KindMismatch
        | KubeconfigError::ApiVersionMismatch
        | KubeconfigError::MissingClusterUrl
        | KubeconfigError::ParseNoProxy(_)) => error.to_string(),
    }
}

fn of_data(what: &str, error: &LoadDataError) -> String {
    match error {
        LoadDataError::ReadFile(error, path) => {
            format!("cannot read the kubeconfig's {what} {}: {error}", path.display())
        }
        LoadDataError::DecodeBase64(_) => format!("the kubeconfig's {what} is not valid base64"),
        LoadDataError::NoBase64DataOrFile => format!("the kubeconfig has no {what}"),
    }
}

/// Describes an error while fetching credentials. `plugin` is the kubeconfig's exec plugin, if it has one.
pub(super) fn of_auth(error: &AuthError, plugin: Option<&str>) -> String {
    let plugin = plugin.map_or("the kubeconfig's exec plugin".to_owned(), |name| {
        format!("the kubeconfig's exec plugin {name:?}")
    });
    match error {
        AuthError::AuthExecStart(error) => format!("{plugin} cannot be started: {error}"),
        AuthError::AuthExecRun { out, .. } => {
            format!("{plugin} failed: {}; run it by hand to see why", out.status)
        }
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
            format!("{plugin} did not print an ExecCredential; run it by hand to see what it prints")
        }
        AuthError::ReadTokenFile(error, path) => {
            format!("cannot read the token file {}: {error}", path.display())
        }
        AuthError::MissingCommand => "the kubeconfig's exec plugin has no command".to_owned(),
        AuthError::InvalidBearerToken(_) | AuthError::InvalidBasicAuth(_) => INVALID_HEADER.to_owned(),
        AuthError::MalformedTokenExpirationDate(_) => {
            format!("{plugin} returned a token with an invalid expiration date")
        }
        _ => format!("{plugin} returned no usable credentials"),
    }
}

/// The message for a token that is not a valid header value.
pub(super) const INVALID_HEADER: &str = "the token or password has a character that is not allowed in an HTTP header, such as \
                                         a line break";

/// Describes an error with credentials if it caused a request to fail.
pub(super) fn of_request(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<AuthError>() {
            return Some(of_auth(error, None));
        }
        cause = error.source();
    }
    None
}

/// Describes why the client library rejects a configuration.
pub(super) fn of_client(error: kube::Error, plugin: Option<&str>) -> String {
    match error {
        kube::Error::Auth(error) => of_auth(&error, plugin),
        kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
            "the proxy's protocol is not supported, only http is; see proxy-url and HTTPS_PROXY".to_owned()
        }
        error => super::error::with_causes(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_error_with_credentials_names_what_to_look_at() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        for (error, said) in [
            (
                AuthError::AuthExecStart(missing()),
                "the kubeconfig's exec plugin \"login\" cannot be started: ",
            ),
            (AuthError::ExecPluginFailed, "\"login\" did not print an ExecCredential; run it by hand"),
            (
                AuthError::ReadTokenFile(missing(), "/run/token".into()),
                "cannot read the token file /run/token: ",
            ),
            (AuthError::MissingCommand, "the kubeconfig's exec plugin has no command"),
            (AuthError::UnrefreshableTokenResponse, "\"login\" returned no usable credentials"),
        ] {
            let words = of_auth(&error, Some("login"));
            assert!(words.contains(said), "{words}");
        }
        assert!(
            of_auth(&AuthError::ExecPluginFailed, None).starts_with("the kubeconfig's exec plugin did not")
        );
        for (error, said) in [
            (
                LoadDataError::ReadFile(missing(), "/ca.pem".into()),
                "cannot read the kubeconfig's certificate /ca.pem: ",
            ),
            (LoadDataError::NoBase64DataOrFile, "the kubeconfig has no certificate"),
        ] {
            let words = of_data("certificate", &error);
            assert!(words.starts_with(said), "{words}");
        }
    }
}
