//! What the accounts may do.

use std::collections::BTreeSet;

use k8s_openapi::{
    Resource,
    api::{
        core::v1::ServiceAccount,
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
    },
};
use volume_snapshotter::cluster::{
    EVENT_PERMISSIONS, GROUP_PERMISSIONS, HOOK_PERMISSIONS, NAMESPACE_PERMISSIONS, PERMISSIONS, Permission,
    VOLUME_PERMISSIONS,
};

use super::reading::{container_of, everything, namespace_of, pod_of};

/// The setting that takes a run from one namespace to many.
const NAMESPACE_SELECTOR: &str = "SNAPSHOT_NAMESPACE_SELECTOR";

/// The setting that makes a run execute commands in pods.
const HOOKS: &str = "SNAPSHOT_HOOKS";

/// The setting that makes a run take groups of claims.
const GROUP_LABEL: &str = "SNAPSHOT_GROUP_LABEL";

#[test]
fn the_bindings_give_roles_that_exist_to_the_account_that_the_pods_run_as() {
    for rendered in everything() {
        let directory = &rendered.directory;
        let in_namespace = rendered.all::<RoleBinding>().into_iter().map(|binding| {
            assert_eq!(binding.role_ref.kind, Role::KIND, "{directory}");
            let role: Role = rendered.named(&binding.role_ref.name);
            assert_eq!(namespace_of(&role.metadata), namespace_of(&binding.metadata), "{directory}");
            (binding.role_ref, binding.subjects)
        });
        let in_cluster = rendered.all::<ClusterRoleBinding>().into_iter().map(|binding| {
            assert_eq!(binding.role_ref.kind, ClusterRole::KIND, "{directory}");
            rendered.named::<ClusterRole>(&binding.role_ref.name);
            (binding.role_ref, binding.subjects)
        });
        let mut bound = BTreeSet::new();
        for (role, subjects) in in_namespace.chain(in_cluster) {
            assert_eq!(role.api_group, Role::GROUP, "{directory}");
            for subject in subjects.expect("a binding has subjects") {
                assert_eq!(subject.kind, ServiceAccount::KIND, "{directory}");
                let account: ServiceAccount = rendered.named(&subject.name);
                // An API server refuses a ServiceAccount subject without one.
                let namespace = subject.namespace.expect("the subject has a namespace");
                assert_eq!(namespace, namespace_of(&account.metadata), "{directory}");
                bound.insert(subject.name);
            }
        }
        for job in rendered.jobs() {
            let pod = pod_of(&job);
            let account = pod.service_account_name.as_ref().expect("the pod has an account");
            assert!(bound.contains(account), "{directory}: {account} has no rights");
            assert_eq!(pod.automount_service_account_token, Some(true), "{directory}: no token");
        }
    }
}

pub(crate) type Granted = BTreeSet<(String, String, String)>;

pub(crate) fn granted(directory: &str, rules: impl IntoIterator<Item = PolicyRule>) -> Granted {
    let mut granted = Granted::new();
    for rule in rules {
        assert_eq!(rule.resource_names, None, "{directory}");
        assert_eq!(rule.non_resource_urls, None, "{directory}");
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    granted.insert((group.clone(), resource.clone(), verb.clone()));
                }
            }
        }
    }
    granted
}

#[test]
fn roles_grant_exactly_the_rights_that_the_binary_uses_with_these_settings() {
    let of = |permissions: &[Permission]| -> Granted {
        let owned = |one: &Permission| (one.group.into(), one.resource.into(), one.verb.into());
        permissions.iter().map(owned).collect()
    };
    for rendered in everything() {
        let directory = rendered.directory.as_str();
        let of_roles = rendered.all::<Role>().into_iter().flat_map(|role| role.rules.unwrap_or_default());
        let of_cluster_roles =
            rendered.all::<ClusterRole>().into_iter().flat_map(|role| role.rules.unwrap_or_default());
        let (of_roles, of_cluster_roles) =
            (granted(directory, of_roles), granted(directory, of_cluster_roles));
        // All of them use the same account, so what one of them needs all of them have.
        let sets = |name: &str| {
            rendered.jobs().iter().any(|job| {
                container_of(job).env.iter().flatten().any(|variable| {
                    // An empty one is unset.
                    variable.name == name && variable.value.as_ref().is_some_and(|value| !value.is_empty())
                })
            })
        };
        let mut expected = of(PERMISSIONS);
        expected.extend(of(EVENT_PERMISSIONS));
        // The right to list volumes has no other use.
        assert_eq!(sets(NAMESPACE_SELECTOR), sets("SNAPSHOT_VOLUME_ANNOTATIONS"), "{directory}");
        if sets(HOOKS) {
            expected.extend(of(HOOK_PERMISSIONS));
        }
        if sets(GROUP_LABEL) {
            expected.extend(of(GROUP_PERMISSIONS));
        }
        if sets(NAMESPACE_SELECTOR) {
            expected.extend(of(NAMESPACE_PERMISSIONS));
            expected.extend(of(VOLUME_PERMISSIONS));
            assert_eq!(of_roles, Granted::new(), "{directory}");
            assert_eq!(of_cluster_roles, expected, "{directory}");
        } else {
            assert_eq!(of_roles, expected, "{directory}");
            assert_eq!(of_cluster_roles, Granted::new(), "{directory}");
        }
    }
}
