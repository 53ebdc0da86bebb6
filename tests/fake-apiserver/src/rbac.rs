//! Authorization by the stored Roles, ClusterRoles and their bindings.
//!
//! Of the default roles of a real cluster, only those of every user are built in: reviewing the user's own
//! access, and discovery.

use crate::auth::User;
use crate::failure::{self, Failure};
use crate::object;
use crate::store::Store;
use serde_json::Value;

/// The attributes of a request for authorization.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Deed {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    /// Empty: cluster-scoped, or all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Instead of a resource: a path that is none.
    pub(crate) path: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    /// Which binding allows it, or which role is missing; may be empty.
    pub(crate) reason: String,
}

impl Deed {
    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The message for a denied request.
    pub(crate) fn forbidden(&self, user: &str, reason: &str) -> Failure {
        let why = self.refusal(user, reason);
        match &self.path {
            Some(_) => Failure::forbidden_path(&why),
            None => Failure::forbidden(&self.group, &self.resource, &self.name, &why),
        }
    }

    fn refusal(&self, user: &str, reason: &str) -> String {
        let user = failure::quoted(user);
        let mut sentence = match &self.path {
            Some(path) => format!("User {user} cannot {} path {}", self.verb, failure::quoted(path)),
            None => {
                let scope = if self.namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace \"{}\"", self.namespace)
                };
                format!(
                    "User {user} cannot {} resource \"{}\" in API group \"{}\" {scope}",
                    self.verb,
                    self.full_resource(),
                    self.group,
                )
            }
        };
        if !reason.is_empty() {
            sentence.push_str(": ");
            sentence.push_str(reason);
        }
        sentence
    }
}

pub(crate) fn judge(store: &Store, user: &User, deed: &Deed) -> Verdict {
    let allowed = |reason: String| Verdict { allowed: true, reason };
    if user.is_in("system:masters") {
        return allowed(String::new());
    }
    if let Some(path) = &deed.path {
        let open = matches!(path.as_str(), "/version" | "/version/" | "/healthz" | "/livez" | "/readyz");
        let discovery = ["/api", "/apis", "/openapi"]
            .iter()
            .any(|root| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')));
        if open || (discovery && user.is_in("system:authenticated")) {
            return allowed(String::new());
        }
        return Verdict { allowed: false, reason: String::new() };
    }
    if user.is_in("system:authenticated")
        && deed.verb == "create"
        && deed.group == "authorization.k8s.io"
        && deed.resource == "selfsubjectaccessreviews"
    {
        return allowed(String::new());
    }
    let mut missing = Vec::new();
    let mut bindings = store.list("clusterrolebindings", None);
    if !deed.namespace.is_empty() {
        bindings.extend(store.list("rolebindings", Some(&deed.namespace)));
    }
    for binding in &bindings {
        let binding = &binding.value;
        let namespace = object::namespace(binding);
        let Some(subject) = subject(binding, user) else { continue };
        let (kind, name) = (object::text(binding, "/roleRef/kind"), object::text(binding, "/roleRef/name"));
        let role = match kind {
            "ClusterRole" => store.get("clusterroles", &(String::new(), name.to_owned())),
            "Role" => store.get("roles", &(namespace.to_owned(), name.to_owned())),
            _ => None,
        };
        let Some(role) = role else {
            let resource = format!("{}.rbac.authorization.k8s.io", kind.to_lowercase());
            missing.push(format!("{resource} \"{name}\" not found"));
            continue;
        };
        let rules = role.value.get("rules").and_then(Value::as_array);
        if rules.into_iter().flatten().any(|rule| allows(rule, deed)) {
            let binding = if namespace.is_empty() {
                format!("ClusterRoleBinding \"{}\"", object::name(binding))
            } else {
                format!("RoleBinding \"{}/{namespace}\"", object::name(binding))
            };
            return allowed(format!("RBAC: allowed by {binding} of {kind} \"{name}\" to {subject}"));
        }
    }
    let reason = match missing.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    };
    Verdict { allowed: false, reason }
}

/// The subject of a binding that is the user, as reasons name it.
fn subject(binding: &Value, user: &User) -> Option<String> {
    let subjects = binding.get("subjects").and_then(Value::as_array)?;
    subjects.iter().find_map(|subject| {
        let name = object::text(subject, "/name");
        match object::text(subject, "/kind") {
            "User" if name == user.name => Some(format!("User \"{name}\"")),
            "Group" if user.is_in(name) => Some(format!("Group \"{name}\"")),
            "ServiceAccount" => {
                let namespace = match object::text(subject, "/namespace") {
                    "" => object::namespace(binding),
                    namespace => namespace,
                };
                let (own_namespace, own_name) = user.service_account.as_ref()?;
                (own_namespace == namespace && own_name == name)
                    .then(|| format!("ServiceAccount \"{name}/{namespace}\""))
            }
            _ => None,
        }
    })
}

fn allows(rule: &Value, deed: &Deed) -> bool {
    let any = |field: &str, matches: &dyn Fn(&str) -> bool| {
        let values = rule.get(field).and_then(Value::as_array);
        values.into_iter().flatten().filter_map(Value::as_str).any(|value| value == "*" || matches(value))
    };
    let names = rule.get("resourceNames").and_then(Value::as_array);
    any("verbs", &|verb| verb == deed.verb)
        && any("apiGroups", &|group| group == deed.group)
        && any("resources", &|resource| {
            resource == deed.full_resource()
                || (!deed.subresource.is_empty()
                    && resource.strip_prefix("*/") == Some(deed.subresource.as_str()))
        })
        && names.is_none_or(|names| names.is_empty() || names.iter().any(|name| *name == deed.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;
    use serde_json::json;

    fn deed(verb: &str, resource: &str, name: &str) -> Deed {
        Deed {
            verb: verb.to_owned(),
            group: "snapshot.storage.k8s.io".to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            namespace: "app".to_owned(),
            ..Deed::default()
        }
    }

    #[test]
    fn rules_allow_what_they_name() {
        let group = "snapshot.storage.k8s.io";
        for (rule, deed, expected) in [
            (
                json!({"verbs": ["get"], "apiGroups": [group], "resources": ["a"]}),
                deed("get", "a", "x"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [group], "resources": ["a"]}),
                deed("list", "a", ""),
                false,
            ),
            (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["a"]}), deed("get", "a", "x"), false),
            (json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), deed("watch", "a", ""), true),
            (
                json!({"verbs": ["get"], "apiGroups": [group], "resources": ["a"], "resourceNames": ["x"]}),
                deed("get", "a", "x"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [group], "resources": ["a"], "resourceNames": ["x"]}),
                deed("get", "a", "y"),
                false,
            ),
            (
                json!({"verbs": ["list"], "apiGroups": [group], "resources": ["a"], "resourceNames": ["x"]}),
                deed("list", "a", ""),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [group], "resources": ["a"]}),
                Deed { subresource: "status".to_owned(), ..deed("get", "a", "x") },
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [group], "resources": ["*/status"]}),
                Deed { subresource: "status".to_owned(), ..deed("get", "a", "x") },
                true,
            ),
            (json!({}), deed("get", "a", "x"), false),
            (json!("nonsense"), deed("get", "a", "x"), false),
        ] {
            assert_eq!(allows(&rule, &deed), expected, "{rule} {deed:?}");
        }
    }

    #[test]
    fn bindings_reach_as_far_as_they_say() {
        let store = Store::new(100);
        let put = |plural: &str, value: Value| {
            let resource = registry::known(plural);
            store.write(|writer| writer.put(resource, value));
        };
        let rules = json!([{"verbs": ["list"], "apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"]}]);
        put("clusterroles", json!({"metadata": {"name": "lister"}, "rules": rules}));
        put(
            "rolebindings",
            json!({
                "metadata": {"name": "here", "namespace": "app"},
                "roleRef": {"kind": "ClusterRole", "name": "lister"},
                "subjects": [{"kind": "ServiceAccount", "name": "one", "namespace": "other"}],
            }),
        );
        put(
            "clusterrolebindings",
            json!({
                "metadata": {"name": "everywhere"},
                "roleRef": {"kind": "ClusterRole", "name": "lister"},
                "subjects": [{"kind": "Group", "name": "system:serviceaccounts:two"}],
            }),
        );
        put(
            "rolebindings",
            json!({
                "metadata": {"name": "dangling", "namespace": "app"},
                "roleRef": {"kind": "Role", "name": "gone"},
                "subjects": [{"kind": "ServiceAccount", "name": "three", "namespace": "app"}],
            }),
        );
        let list = deed("list", "volumesnapshots", "");
        let everywhere = Deed { namespace: String::new(), ..list.clone() };
        for (namespace, name, deed, expected) in [
            ("other", "one", &list, true),
            ("other", "one", &everywhere, false),
            ("app", "one", &list, false),
            ("two", "any", &list, true),
            ("two", "any", &everywhere, true),
            ("app", "three", &list, false),
        ] {
            let user = User::of_service_account(namespace, name);
            assert_eq!(judge(&store, &user, deed).allowed, expected, "{namespace}/{name} {deed:?}");
        }
        let dangling = judge(&store, &User::of_service_account("app", "three"), &list);
        assert_eq!(dangling.reason, "RBAC: role.rbac.authorization.k8s.io \"gone\" not found");
    }
}
