//! Continue tokens: how the place in a list travels through the client and back.
//!
//! Only the tokens; the lists are made by `verbs`.

use crate::failure::Failure;
use crate::registry::Resource;
use crate::store::Key;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// The resourceVersion of the first page; `None`: the objects as they are now, after the history was forgotten.
    pub(crate) version: Option<u64>,
    /// The last object of the page before.
    pub(crate) after: Key,
}

/// The token for what comes after a key. Keys are relative to what is listed, and those of custom resources begin
/// with a slash.
pub(crate) fn token(resource: &Resource, namespace: Option<&str>, place: &Place) -> String {
    let slash = if resource.custom { "/" } else { "" };
    let key = match namespace {
        None if resource.namespaced => format!("{}/{}", place.after.0, place.after.1),
        _ => place.after.1.clone(),
    };
    let version = place.version.map_or(-1, |version| i64::try_from(version).unwrap_or(i64::MAX));
    // The server writes the fields in this order.
    let text = format!(
        r#"{{"v":"meta.k8s.io/v1","rv":{version},"start":{}}}"#,
        Value::from(format!("{slash}{key}\0"))
    );
    URL_SAFE_NO_PAD.encode(text)
}

/// The place that a token means.
pub(crate) fn place(resource: &Resource, namespace: Option<&str>, token: &str) -> Result<Place, Failure> {
    let bad = |why: String| {
        Failure::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
    };
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) => at,
            _ => token.len(),
        };
        bad(format!("illegal base64 data at input byte {at}"))
    })?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| {
        bad(match bytes.first() {
            Some(first) => {
                format!("invalid character '{}' looking for beginning of value", char::from(*first))
            }
            None => "unexpected end of JSON input".to_owned(),
        })
    })?;
    if value["v"] != json!("meta.k8s.io/v1") {
        return Err(bad("server does not recognize this encoded version".to_owned()));
    }
    let version = match value["rv"].as_i64() {
        Some(-1) => None,
        Some(version) if version > 0 => u64::try_from(version).ok(),
        _ => return Err(bad("incorrect encoded start resourceVersion".to_owned())),
    };
    let start = value["start"].as_str().unwrap_or_default().trim_start_matches('/').trim_end_matches('\0');
    if start.is_empty() {
        return Err(bad("encoded start key empty".to_owned()));
    }
    let after = match (namespace, resource.namespaced) {
        (Some(namespace), true) => (namespace.to_owned(), start.to_owned()),
        (None, true) => {
            let (namespace, name) = start.split_once('/').unwrap_or((start, ""));
            (namespace.to_owned(), name.to_owned())
        }
        (_, false) => (String::new(), start.to_owned()),
    };
    Ok(Place { version, after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    #[test]
    fn tokens_come_back_as_they_went() {
        let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        for (resource, namespace, after) in [
            ("volumesnapshots", Some("app"), key("app", "x")),
            ("volumesnapshots", None, key("app", "x")),
            ("events", Some("app"), key("app", "x.1")),
            ("namespaces", None, key("", "app")),
        ] {
            let resource = registry::known(resource);
            for version in [Some(7), None] {
                let there = Place { version, after: after.clone() };
                let back = place(resource, namespace, &token(resource, namespace, &there));
                assert_eq!(back.ok(), Some(there));
            }
        }
    }

    #[test]
    fn a_token_is_the_one_that_a_server_gave() {
        let resource = registry::known("volumesnapshots");
        let place = Place { version: Some(450), after: ("app".into(), "volume-snapshot-00000001".into()) };
        assert_eq!(
            token(resource, Some("app"), &place),
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NDUwLCJzdGFydCI6Ii92b2x1bWUtc25hcHNob3QtMDAwMDAwMDFcdTAwMDAifQ"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let resource = registry::known("volumesnapshots");
        for token in ["abc", "", "!", "e30", "bnVsbA", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"] {
            assert_eq!(
                place(resource, Some("app"), token).err().map(|failure| failure.code),
                Some(400),
                "{token}"
            );
        }
    }
}
