//! What the pods may do, where they get their settings, and what becomes of a failure.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, SecurityContext};
use serde_json::{Value, json};

use super::reading::{container_of, everything, pod_of, strictly};

/// What the Pod Security Standard `restricted` (and `baseline`, which it contains) forbids in this
/// pod.
pub(crate) fn violations(pod: &PodSpec) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |allowed: bool, what: String| {
        if !allowed {
            found.push(what);
        }
    };
    let on = |field: Option<bool>| field == Some(true);

    check(!on(pod.host_network) && !on(pod.host_pid) && !on(pod.host_ipc), "a namespace of the host".into());
    for volume in pod.volumes.iter().flatten() {
        let allowed = volume.config_map.is_some()
            || volume.csi.is_some()
            || volume.downward_api.is_some()
            || volume.empty_dir.is_some()
            || volume.ephemeral.is_some()
            || volume.persistent_volume_claim.is_some()
            || volume.projected.is_some()
            || volume.secret.is_some();
        check(allowed, format!("the type of the volume {}", volume.name));
    }

    let nothing = PodSecurityContext::default();
    let of_pod = pod.security_context.as_ref().unwrap_or(&nothing);
    check(of_pod.run_as_user != Some(0), "root in the pod".into());
    check(of_pod.sysctls.iter().flatten().next().is_none(), "sysctls".into());
    check(of_pod.se_linux_options.is_none(), "SELinux options of the pod".into());
    check(of_pod.app_armor_profile.is_none(), "an AppArmor profile of the pod".into());
    check(of_pod.windows_options.is_none(), "Windows options of the pod".into());

    check(pod.ephemeral_containers.is_none(), "ephemeral containers".into());
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
        let name = &container.name;
        let nothing = SecurityContext::default();
        let own = container.security_context.as_ref().unwrap_or(&nothing);
        let capabilities = own.capabilities.clone().unwrap_or_default();
        let non_root = own.run_as_non_root.or(of_pod.run_as_non_root);
        let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
        let seccomp = seccomp.map(|profile| profile.type_.as_str());
        let ports = || container.ports.iter().flatten();

        check(!on(own.privileged), format!("{name}: privileged"));
        check(own.allow_privilege_escalation == Some(false), format!("{name}: allowPrivilegeEscalation"));
        check(on(non_root), format!("{name}: runAsNonRoot"));
        check(own.run_as_user != Some(0), format!("{name}: root"));
        check(matches!(seccomp, Some("RuntimeDefault" | "Localhost")), format!("{name}: seccompProfile"));
        check(capabilities.drop.iter().flatten().any(|name| name == "ALL"), format!("{name}: drop ALL"));
        check(
            capabilities.add.iter().flatten().all(|name| name == "NET_BIND_SERVICE"),
            format!("{name}: added capabilities"),
        );
        check(own.proc_mount.as_deref().is_none_or(|mount| mount == "Default"), format!("{name}: procMount"));
        check(own.se_linux_options.is_none(), format!("{name}: SELinux options"));
        check(own.app_armor_profile.is_none(), format!("{name}: an AppArmor profile"));
        check(own.windows_options.is_none(), format!("{name}: Windows options"));
        check(ports().all(|port| port.host_port.unwrap_or(0) == 0), format!("{name}: a port of the host"));
    }
    found
}

#[test]
fn the_pod_is_allowed_where_pod_security_is_restricted_and_can_write_nothing() {
    for rendered in everything() {
        for job in rendered.jobs() {
            let pod = pod_of(&job);
            // An etcd of kubeadm listens on the host, and root alone may read the key of its client.
            let on_the_host = [
                "a namespace of the host",
                "the type of the volume ca",
                "the type of the volume certificate",
                "the type of the volume key",
                "save: runAsNonRoot",
                "save: root",
                "check: runAsNonRoot",
                "check: root",
                "keep: runAsNonRoot",
                "keep: root",
            ];
            let expected = if pod.host_network == Some(true) { &on_the_host[..] } else { &[] };
            assert_eq!(violations(pod), expected, "{}", rendered.directory);
            let user = pod.security_context.as_ref().and_then(|context| context.run_as_user);
            assert!(user.is_some_and(|user| user > 0), "{}: runAsUser is a number", rendered.directory);
            assert_eq!(container_of(&job).volume_mounts, None, "{}", rendered.directory);
            for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
                let context = container.security_context.as_ref();
                let read_only = context.and_then(|context| context.read_only_root_filesystem);
                assert_eq!(read_only, Some(true), "{}: {}", rendered.directory, container.name);
            }
        }
    }
}

#[test]
fn a_pod_that_asks_for_more_than_restricted_allows_is_found() {
    let strict = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "c",
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    });
    let with = |path: &str, value: Value| {
        let mut pod = strict.clone();
        let (parent, key) = path.rsplit_once('/').expect("a path");
        pod.pointer_mut(parent).expect("a path of the example")[key] = value;
        violations(&strictly(&pod).expect("a pod"))
    };
    assert_eq!(with("/containers/0/name", json!("c")), [""; 0]);
    for (path, value, violation) in [
        ("/hostNetwork", json!(true), "a namespace of the host"),
        ("/volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), "the type of the volume v"),
        ("/securityContext/runAsUser", json!(0), "root in the pod"),
        ("/securityContext/runAsNonRoot", json!(false), "c: runAsNonRoot"),
        ("/securityContext/seccompProfile", json!({"type": "Unconfined"}), "c: seccompProfile"),
        ("/containers/0/securityContext/runAsNonRoot", json!(false), "c: runAsNonRoot"),
        ("/containers/0/securityContext/privileged", json!(true), "c: privileged"),
        (
            "/containers/0/securityContext/allowPrivilegeEscalation",
            json!(true),
            "c: allowPrivilegeEscalation",
        ),
        ("/containers/0/securityContext/capabilities", json!({"drop": ["KILL"]}), "c: drop ALL"),
        (
            "/containers/0/securityContext/capabilities",
            json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            "c: added capabilities",
        ),
        ("/containers/0/ports", json!([{"containerPort": 80, "hostPort": 80}]), "c: a port of the host"),
    ] {
        assert_eq!(with(path, value), [violation], "{path}");
    }
}

#[test]
fn exits_that_trying_again_cannot_help_end_the_job_and_a_drained_node_costs_no_try() {
    for rendered in everything() {
        for job in rendered.jobs() {
            // The API server accepts the policy only with this.
            assert_eq!(pod_of(&job).restart_policy.as_deref(), Some("Never"), "{}", rendered.directory);
            let policy = job.pod_failure_policy.as_ref().expect("podFailurePolicy is set");
            let [fail, ignore] = policy.rules.as_slice() else { panic!("two rules: {:?}", policy.rules) };

            // What fails in one shard ends no other.
            let action = if job.backoff_limit_per_index.is_some() { "FailIndex" } else { "FailJob" };
            assert_eq!(fail.action, action, "{}", rendered.directory);
            let exits = fail.on_exit_codes.as_ref().expect("it goes by exit codes");
            assert_eq!(
                exits.container_name.as_ref(),
                Some(&container_of(&job).name),
                "{}",
                rendered.directory
            );
            assert_eq!(exits.operator, "In", "{}", rendered.directory);
            assert_eq!(exits.values, [2, 3], "{}", rendered.directory);

            assert_eq!(ignore.action, "Ignore", "{}", rendered.directory);
            let conditions = ignore.on_pod_conditions.as_deref().expect("Ignore goes by conditions");
            let conditions: Vec<_> =
                conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str())).collect();
            assert_eq!(conditions, [("DisruptionTarget", "True")], "{}", rendered.directory);
        }
    }
}

#[test]
fn a_run_is_known_by_its_job_and_does_not_start_without_its_settings() {
    for rendered in everything() {
        for job in rendered.jobs() {
            let container = container_of(&job);
            for (variable, label) in [("SNAPSHOT_RUN_ID", "job-name"), ("SNAPSHOT_RUN_UID", "controller-uid")]
            {
                assert_eq!(
                    from_the_pod(container, variable),
                    [format!("metadata.labels['batch.kubernetes.io/{label}']")],
                    "{}: {variable}",
                    rendered.directory
                );
            }

            let sources = container.env_from.as_deref().expect("envFrom is set");
            assert!(!sources.is_empty(), "{}", rendered.directory);
            for source in sources {
                let config_map = source.config_map_ref.as_ref().expect("settings come from a ConfigMap");
                // Without its settings a run would prune by the default retention.
                assert_ne!(config_map.optional, Some(true), "{}", rendered.directory);
            }
            // SNAPSHOT_SERVICE_HOST of a Service named `snapshot` is a variable that the binary
            // refuses.
            assert_eq!(pod_of(&job).enable_service_links, Some(false), "{}", rendered.directory);
        }
    }
}

/// The fields of the pod that a variable is set from; empty for a variable that is not there.
pub(crate) fn from_the_pod(container: &Container, name: &str) -> Vec<String> {
    let variables = container.env.iter().flatten().filter(|variable| variable.name == name);
    variables
        .map(|variable| {
            let source = variable.value_from.as_ref().and_then(|source| source.field_ref.as_ref());
            source.map(|field| field.field_path.clone()).unwrap_or_default()
        })
        .collect()
}
