//! Kubeconfig files for clients.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

/// Where a client's credentials are.
pub(crate) enum Credentials<'a> {
    Inline { token: &'a str, ca_pem: Option<&'a str> },
    Files { token: &'a Path, ca: &'a Path },
}

/// Returns the text of the file: one cluster, one user and one context, all named `fake-apiserver`.
pub(crate) fn text(url: &str, namespace: &str, credentials: &Credentials<'_>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (ca, token) = match credentials {
        Credentials::Inline { token, ca_pem } => {
            let ca = ca_pem.map(|pem| format!("certificate-authority-data: {}", STANDARD.encode(pem)));
            (ca, format!("token: {}", quoted(token)))
        }
        Credentials::Files { token, ca } => {
            let ca = url
                .starts_with("https:")
                .then(|| format!("certificate-authority: {}", quoted(&ca.to_string_lossy())));
            (ca, format!("tokenFile: {}", quoted(&token.to_string_lossy())))
        }
    };
    let ca = ca.map_or(String::new(), |ca| format!("\n    {ca}"));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: fake-apiserver
  cluster:
    server: {url}{ca}
users:
- name: fake-apiserver
  user:
    {token}
contexts:
- name: fake-apiserver
  context:
    cluster: fake-apiserver
    user: fake-apiserver
    namespace: {}
current-context: fake-apiserver
",
        quoted(namespace)
    )
}
