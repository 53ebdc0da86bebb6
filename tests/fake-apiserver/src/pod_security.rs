//! Pod Security admission: what the label `pod-security.kubernetes.io/enforce` of a namespace lets in.
//!
//! Of the standards, what pods that only mount claims can have wrong is checked. Warnings and audit are not there.

use crate::failure::Failure;
use crate::object;
use crate::store::Writer;
use serde_json::Value;

const LABEL: &str = "pod-security.kubernetes.io/enforce";

/// Refuses a pod that its namespace does not let in.
pub(crate) fn check(writer: &Writer<'_>, pod: &Value) -> Result<(), Failure> {
    let namespace = writer.get("namespaces", &(String::new(), object::namespace(pod).to_owned()));
    let level = namespace.and_then(|namespace| object::label(&namespace.value, LABEL).map(str::to_owned));
    let level = level.unwrap_or_default();
    let spec = &pod["spec"];
    let wrong = match level.as_str() {
        "baseline" => baseline(spec),
        "restricted" => baseline(spec).into_iter().chain(restricted(spec)).collect(),
        _ => Vec::new(),
    };
    if wrong.is_empty() {
        return Ok(());
    }
    let why = format!("violates PodSecurity \"{level}:latest\": {}", wrong.join(", "));
    Err(Failure::forbidden("", "pods", object::name(pod), &why))
}

fn containers(spec: &Value) -> Vec<&Value> {
    let of = |field: &str| spec.get(field).and_then(Value::as_array).into_iter().flatten();
    of("initContainers").chain(of("containers")).collect()
}

/// The names of the containers for which something holds, as messages list them: `container "a"`, `containers "a", "b"`.
fn named(spec: &Value, holds: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<String> = containers(spec)
        .into_iter()
        .filter(|container| holds(container))
        .map(|container| format!("\"{}\"", object::text(container, "/name")))
        .collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("container {one}")),
        many => Some(format!("containers {}", many.join(", "))),
    }
}

fn baseline(spec: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let host: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if !host.is_empty() {
        wrong.push(format!("host namespaces ({})", host.join(", ")));
    }
    if let Some(who) = named(spec, |one| one["securityContext"]["privileged"] == true) {
        wrong.push(format!("privileged ({who} must not set securityContext.privileged=true)"));
    }
    const ALLOWED: [&str; 14] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
        "",
    ];
    let odd = |one: &Value| added(one).iter().any(|name| !ALLOWED.contains(&name.as_str()));
    if let Some(who) = named(spec, odd) {
        let names: Vec<String> = containers(spec)
            .into_iter()
            .flat_map(added)
            .filter(|name| !ALLOWED.contains(&name.as_str()))
            .map(|name| format!("\"{name}\""))
            .collect();
        wrong.push(format!(
            "non-default capabilities ({who} must not include {} in securityContext.capabilities.add)",
            names.join(", ")
        ));
    }
    let volumes: Vec<String> = volumes(spec, |volume| volume.get("hostPath").is_some());
    if !volumes.is_empty() {
        wrong.push(format!("hostPath volumes ({})", of_volumes(&volumes)));
    }
    wrong
}

fn added(container: &Value) -> Vec<String> {
    let added = container.pointer("/securityContext/capabilities/add").and_then(Value::as_array);
    added.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn volumes(spec: &Value, is_meant: impl Fn(&Value) -> bool) -> Vec<String> {
    let all = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    all.filter(|volume| is_meant(volume))
        .map(|volume| format!("\"{}\"", object::text(volume, "/name")))
        .collect()
}

fn of_volumes(names: &[String]) -> String {
    format!("volume{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

fn restricted(spec: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let of = |one: &Value, field: &str| one["securityContext"][field].clone();
    if let Some(who) = named(spec, |one| of(one, "allowPrivilegeEscalation") != false) {
        wrong.push(format!(
            "allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
        ));
    }
    let keeps = |one: &Value| {
        let dropped = one.pointer("/securityContext/capabilities/drop").and_then(Value::as_array);
        !dropped.is_some_and(|dropped| dropped.iter().any(|name| name == "ALL"))
    };
    let adds = |one: &Value| added(one).iter().any(|name| name != "NET_BIND_SERVICE");
    let mut capabilities = Vec::new();
    if let Some(who) = named(spec, keeps) {
        capabilities.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if let Some(who) = named(spec, adds) {
        let names: Vec<String> =
            containers(spec).into_iter().flat_map(added).map(|name| format!("\"{name}\"")).collect();
        capabilities
            .push(format!("{who} must not include {} in securityContext.capabilities.add", names.join(", ")));
    }
    if !capabilities.is_empty() {
        wrong.push(format!("unrestricted capabilities ({})", capabilities.join("; ")));
    }
    let of_pod = |field: &str| spec["securityContext"][field].clone();
    let is_root = |one: &Value| {
        let own = of(one, "runAsNonRoot");
        if own.is_null() { of_pod("runAsNonRoot") != true } else { own != true }
    };
    if let Some(who) = named(spec, is_root) {
        wrong.push(format!("runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"));
    }
    if of_pod("runAsUser") == 0 {
        wrong.push("runAsUser=0 (pod must not set runAsUser=0)".to_owned());
    } else if let Some(who) = named(spec, |one| of(one, "runAsUser") == 0) {
        wrong.push(format!("runAsUser=0 ({who} must not set runAsUser=0)"));
    }
    let is_unconfined = |one: &Value| {
        let own = object::text(one, "/securityContext/seccompProfile/type").to_owned();
        let kind = if own.is_empty() {
            object::text(spec, "/securityContext/seccompProfile/type").to_owned()
        } else {
            own
        };
        !matches!(kind.as_str(), "RuntimeDefault" | "Localhost")
    };
    if let Some(who) = named(spec, is_unconfined) {
        wrong.push(format!(
            "seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        ));
    }
    wrong
}
