//! Discovery: version, groups, resources and health.
//!
//! Only the unaggregated form of discovery is served; clients ask for the aggregated one and fall back to it.
//! The OpenAPI document has only the parameter `fieldValidation`, which `kubectl` looks for before it leaves
//! validation to the server.

use crate::registry::{RESOURCES, Resource};
use serde_json::{Map, Value, json};

/// The answer of a path that does not belong to a resource.
#[derive(Debug)]
pub(crate) enum Page {
    Json(Value),
    Text(&'static str),
}

/// Returns the answer of a path, if there is one. `served` says which resources are served.
pub(crate) fn page(path: &str, served: impl Fn(&Resource) -> bool) -> Option<Page> {
    let resources = || RESOURCES.iter().filter(|resource| served(resource));
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let value = match segments.as_slice() {
        ["version"] => version(),
        ["healthz" | "livez" | "readyz"] => return Some(Page::Text("ok")),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["api", "v1"] => list("v1", resources().filter(|resource| resource.group.is_empty())),
        ["apis"] => {
            let mut names: Vec<&str> = Vec::new();
            for resource in resources().filter(|resource| !resource.group.is_empty()) {
                if !names.contains(&resource.group) {
                    names.push(resource.group);
                }
            }
            let groups: Vec<Value> = names.into_iter().map(|name| group(name, resources())).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] => {
            let resource = resources().find(|resource| !name.is_empty() && resource.group == *name)?;
            let mut value = group(resource.group, resources());
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        ["apis", name, version] => {
            let of_group = |resource: &&Resource| resource.group == *name && resource.version == *version;
            resources().find(of_group)?;
            list(&format!("{name}/{version}"), resources().filter(of_group))
        }
        ["openapi", "v3"] => {
            let mut paths = Map::new();
            for resource in resources() {
                let path = root(resource);
                let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
                paths.insert(path, url);
            }
            json!({ "paths": paths })
        }
        ["openapi", "v3", rest @ ..] => {
            let path = rest.join("/");
            resources().find(|resource| root(resource) == path)?;
            openapi(resources().filter(|resource| root(resource) == path))
        }
        _ => return None,
    };
    Some(Page::Json(value))
}

/// Path of a resource's group and version.
fn root(resource: &Resource) -> String {
    let prefix = if resource.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", resource.api_version())
}

fn openapi<'a>(resources: impl Iterator<Item = &'a Resource>) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let namespace = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{namespace}{}/{{name}}", root(resource), resource.plural);
        let patch = json!({
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "x-kubernetes-group-version-kind": {
                "group": resource.group,
                "version": resource.version,
                "kind": resource.kind,
            },
        });
        paths.insert(path, json!({ "patch": patch }));
    }
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": paths})
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": "v1.36.2",
        "gitCommit": "$Format:%H$",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.27.3",
        "compiler": "gc",
        "platform": "linux/amd64",
    })
}

/// A group with the versions of its resources. The first one is preferred.
fn group<'a>(name: &str, resources: impl Iterator<Item = &'a Resource>) -> Value {
    let mut versions: Vec<Value> = Vec::new();
    for resource in resources.filter(|resource| resource.group == name) {
        let version = json!({"groupVersion": resource.api_version(), "version": resource.version});
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

fn list<'a>(group_version: &str, resources: impl Iterator<Item = &'a Resource>) -> Value {
    let mut entries = Vec::new();
    for resource in resources {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = resource.short_names.into();
        }
        entries.push(entry);
        if resource.status {
            entries.push(json!({
                "name": format!("{}/status", resource.plural),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": ["get", "patch", "update"],
            }));
        }
        if resource.plural == "pods" {
            entries.push(json!({
                "name": "pods/exec",
                "singularName": "",
                "namespaced": true,
                "kind": "PodExecOptions",
                "verbs": ["create", "get"],
            }));
            entries.push(json!({
                "name": "pods/log",
                "singularName": "",
                "namespaced": true,
                "kind": "Pod",
                "verbs": ["get"],
            }));
        }
        if resource.plural == "serviceaccounts" {
            entries.push(json!({
                "name": "serviceaccounts/token",
                "singularName": "",
                "namespaced": true,
                "group": "authentication.k8s.io",
                "version": "v1",
                "kind": "TokenRequest",
                "verbs": ["create"],
            }));
        }
    }
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": entries,
    })
}
