//! Parses requests: verb, resource, namespace, name and parameters, from method, path, query and headers.
//!
//! Parsing does not check whether the resource is served, because permissions are checked first.

use crate::rbac::Deed;
use http::{HeaderMap, Method, header};

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Path and query, not decoded.
    pub(crate) uri: String,
    pub(crate) query: Vec<(String, String)>,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`; for a path that is no
    /// resource's, the method in lower case.
    pub(crate) verb: &'static str,
    pub(crate) target: Option<Target>,
    pub(crate) accept: String,
    pub(crate) content_type: String,
    /// If the client wants to speak WebSocket.
    pub(crate) upgrade: Option<Upgrade>,
}

/// What a client asks for that wants to speak WebSocket.
#[derive(Debug, Clone)]
pub(crate) struct Upgrade {
    /// The protocols within it that the client speaks, the preferred one first.
    pub(crate) protocols: Vec<String>,
    pub(crate) key: String,
}

/// The resource that a path names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
}

impl Call {
    pub(crate) fn read(method: &Method, path: &str, raw_query: &str, headers: &HeaderMap) -> Call {
        let query: Vec<(String, String)> =
            form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect();
        let text =
            |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let target = target(path);
        let uri = if raw_query.is_empty() { path.to_owned() } else { format!("{path}?{raw_query}") };
        let mut call = Call {
            method: method.clone(),
            path: path.to_owned(),
            uri,
            query,
            verb: "",
            target,
            accept: text(header::ACCEPT),
            content_type: text(header::CONTENT_TYPE),
            upgrade: text(header::UPGRADE).eq_ignore_ascii_case("websocket").then(|| Upgrade {
                protocols: text(header::SEC_WEBSOCKET_PROTOCOL)
                    .split(',')
                    .map(|protocol| protocol.trim().to_owned())
                    .collect(),
                key: text(header::SEC_WEBSOCKET_KEY),
            }),
        };
        call.verb = call.find_verb();
        call
    }

    fn find_verb(&self) -> &'static str {
        let named = self.target.as_ref().map(|target| !target.name.is_empty());
        match (self.method.as_str(), named) {
            ("GET" | "HEAD", Some(true)) => "get",
            ("GET" | "HEAD", Some(false)) if self.flag("watch") => "watch",
            ("GET" | "HEAD", Some(false)) => "list",
            ("POST", Some(_)) => "create",
            ("PUT", Some(_)) => "update",
            ("PATCH", Some(_)) => "patch",
            ("DELETE", Some(true)) => "delete",
            ("DELETE", Some(false)) => "deletecollection",
            ("GET", None) => "get",
            ("HEAD", None) => "head",
            ("POST", None) => "post",
            ("PUT", None) => "put",
            ("PATCH", None) => "patch",
            ("DELETE", None) => "delete",
            _ => "",
        }
    }

    /// Returns a query parameter, empty if it is missing.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether a boolean query parameter is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1" | "True" | "TRUE" | "t" | "T")
    }

    /// Whether this is a dry run.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.query.iter().any(|(key, value)| key == "dryRun" && value == "All")
    }

    /// Returns the attributes for authorization. Like the server, treats a list or watch of one name as one
    /// with that name.
    pub(crate) fn deed(&self) -> Deed {
        let Some(target) = &self.target else {
            return Deed { verb: self.verb.to_owned(), path: Some(self.path.clone()), ..Deed::default() };
        };
        let mut name = target.name.clone();
        if name.is_empty() && matches!(self.verb, "list" | "watch" | "deletecollection") {
            let wanted = self.parameter("fieldSelector").split(',').find_map(|part| {
                part.strip_prefix("metadata.name=").map(|value| value.trim_start_matches('='))
            });
            name = wanted.unwrap_or_default().to_owned();
        }
        Deed {
            verb: self.verb.to_owned(),
            group: target.group.clone(),
            resource: target.plural.clone(),
            subresource: target.subresource.clone(),
            namespace: target.namespace.clone(),
            name,
            path: None,
        }
    }
}

fn decoded(segment: &str) -> String {
    // A plus sign in a path is not a space.
    let pair = format!("{}=", segment.replace('+', "%2B"));
    form_urlencoded::parse(pair.as_bytes()).next().map(|(key, _)| key.into_owned()).unwrap_or_default()
}

fn target(path: &str) -> Option<Target> {
    let segments: Vec<String> = path.split('/').skip(1).map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        // `/namespaces/x` and what is below it that is no resource is the namespace itself.
        ["namespaces", namespace, rest @ ..]
            if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
        {
            (*namespace, rest)
        }
        rest => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return None,
    };
    let is_namespace = plural == "namespaces" && group.is_empty();
    if plural.is_empty() || (is_namespace && !namespace.is_empty()) {
        return None;
    }
    // The server treats a request for a namespace as one in that namespace.
    let namespace = if is_namespace { name } else { namespace };
    Some(Target {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood() {
        for (path, expected) in [
            ("/api/v1/namespaces", Some(["", "v1", "namespaces", "", "", ""])),
            ("/api/v1/namespaces/app", Some(["", "v1", "namespaces", "app", "app", ""])),
            ("/api/v1/namespaces/app/events", Some(["", "v1", "events", "app", "", ""])),
            ("/api/v1/namespaces/app/namespaces", None),
            ("/api/v1/events", Some(["", "v1", "events", "", "", ""])),
            (
                "/api/v1/namespaces/app/serviceaccounts/a/token",
                Some(["", "v1", "serviceaccounts", "app", "a", "token"]),
            ),
            ("/apis/g.example/v1/namespaces/a/b/c%2Fd", Some(["g.example", "v1", "b", "a", "c/d", ""])),
            ("/apis/g.example/v1/b/c", Some(["g.example", "v1", "b", "", "c", ""])),
            ("/api/v1", None),
            ("/apis", None),
            ("/version", None),
            ("", None),
        ] {
            let found =
                target(path).map(|t| [t.group, t.version, t.plural, t.namespace, t.name, t.subresource]);
            assert_eq!(found, expected.map(|parts| parts.map(str::to_owned)), "{path}");
        }
    }
}
