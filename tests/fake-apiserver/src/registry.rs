//! The resources that the server knows: how each is named, scoped and printed in discovery.
//!
//! One that is served in several versions, or groups, is here once for each. Its objects are stored in the form of the
//! first.
//!
//! What may be done with an object (validation, defaults, storage) is not here; a resource is only a description.

/// One resource of one API group and version.
#[derive(Debug)]
pub(crate) struct Resource {
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    /// API version within the group.
    pub(crate) version: &'static str,
    /// Plural name, as in paths. The store uses it too; both forms of Events share one.
    pub(crate) plural: &'static str,
    /// Singular name, which `kubectl` accepts too.
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    /// Names that `kubectl` accepts as abbreviations.
    pub(crate) short_names: &'static [&'static str],
    /// Whether its objects live in a namespace.
    pub(crate) namespaced: bool,
    /// Whether a CustomResourceDefinition defines it. A server treats such objects differently in many small ways:
    /// they have a generation, their lists repeat the type in each item, unknown fields are pruned.
    pub(crate) custom: bool,
    /// Whether `status` is written through a path of its own.
    pub(crate) status: bool,
    /// Verbs, as discovery lists them.
    pub(crate) verbs: &'static [&'static str],
}

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Group of snapshots, their classes and contents.
pub(crate) const SNAPSHOT_GROUP: &str = "snapshot.storage.k8s.io";

/// Group of group snapshots, their classes and contents.
pub(crate) const GROUP_SNAPSHOT_GROUP: &str = "groupsnapshot.storage.k8s.io";

/// Everything that can be served, in the order in which discovery shows it.
pub(crate) static RESOURCES: &[Resource] = &[
    builtin("", "namespaces", "namespace", "Namespace", &["ns"], false),
    builtin("", "persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim", &["pvc"], true)
        .with_status(),
    builtin("", "persistentvolumes", "persistentvolume", "PersistentVolume", &["pv"], false),
    builtin("", "events", "event", "Event", &["ev"], true),
    builtin("", "serviceaccounts", "serviceaccount", "ServiceAccount", &["sa"], true),
    builtin("", "nodes", "node", "Node", &["no"], false),
    builtin("", "configmaps", "configmap", "ConfigMap", &["cm"], true),
    builtin("", "resourcequotas", "resourcequota", "ResourceQuota", &["quota"], true).with_status(),
    builtin("events.k8s.io", "events", "event", "Event", &["ev"], true),
    custom("volumesnapshots", "volumesnapshot", "VolumeSnapshot", &["vs"], true).with_status(),
    custom(
        "volumesnapshotclasses",
        "volumesnapshotclass",
        "VolumeSnapshotClass",
        &["vsclass", "vsclasses"],
        false,
    ),
    custom(
        "volumesnapshotcontents",
        "volumesnapshotcontent",
        "VolumeSnapshotContent",
        &["vsc", "vscs"],
        false,
    )
    .with_status(),
    group_snapshots("v1"),
    group_snapshot_classes("v1"),
    group_snapshot_contents("v1"),
    group_snapshots("v1beta2"),
    group_snapshot_classes("v1beta2"),
    group_snapshot_contents("v1beta2"),
    group_snapshots("v1beta1"),
    group_snapshot_classes("v1beta1"),
    group_snapshot_contents("v1beta1"),
    builtin("storage.k8s.io", "storageclasses", "storageclass", "StorageClass", &["sc"], false),
    builtin("", "pods", "pod", "Pod", &["po"], true).with_status(),
    builtin("batch", "cronjobs", "cronjob", "CronJob", &["cj"], true).with_status(),
    builtin("batch", "jobs", "job", "Job", &[], true).with_status(),
    builtin("rbac.authorization.k8s.io", "roles", "role", "Role", &[], true),
    builtin("rbac.authorization.k8s.io", "rolebindings", "rolebinding", "RoleBinding", &[], true),
    builtin("rbac.authorization.k8s.io", "clusterroles", "clusterrole", "ClusterRole", &[], false),
    builtin(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        "clusterrolebinding",
        "ClusterRoleBinding",
        &[],
        false,
    ),
    Resource {
        verbs: &["create"],
        ..builtin(
            "authorization.k8s.io",
            "selfsubjectaccessreviews",
            "selfsubjectaccessreview",
            "SelfSubjectAccessReview",
            &[],
            false,
        )
    },
];

const fn builtin(
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    namespaced: bool,
) -> Resource {
    Resource {
        group,
        version: "v1",
        plural,
        singular,
        kind,
        short_names,
        namespaced,
        custom: false,
        status: false,
        verbs: ALL,
    }
}

const fn custom(
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    namespaced: bool,
) -> Resource {
    Resource { custom: true, ..builtin(SNAPSHOT_GROUP, plural, singular, kind, short_names, namespaced) }
}

const fn group_snapshots(version: &'static str) -> Resource {
    let resource =
        custom("volumegroupsnapshots", "volumegroupsnapshot", "VolumeGroupSnapshot", &["vgs"], true);
    Resource { group: GROUP_SNAPSHOT_GROUP, version, ..resource.with_status() }
}

const fn group_snapshot_classes(version: &'static str) -> Resource {
    let (plural, singular) = ("volumegroupsnapshotclasses", "volumegroupsnapshotclass");
    let short_names = &["vgsclass", "vgsclasses"];
    let resource = custom(plural, singular, "VolumeGroupSnapshotClass", short_names, false);
    Resource { group: GROUP_SNAPSHOT_GROUP, version, ..resource }
}

const fn group_snapshot_contents(version: &'static str) -> Resource {
    let (plural, singular) = ("volumegroupsnapshotcontents", "volumegroupsnapshotcontent");
    let resource = custom(plural, singular, "VolumeGroupSnapshotContent", &["vgsc", "vgscs"], false);
    Resource { group: GROUP_SNAPSHOT_GROUP, version, ..resource.with_status() }
}

impl Resource {
    const fn with_status(self) -> Resource {
        Resource { status: true, ..self }
    }

    /// Whether its objects have a `generation`.
    pub(crate) fn has_generation(&self) -> bool {
        self.custom || self.group == "batch" || self.plural == "pods"
    }

    /// `v1` or `group/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource with its group, as messages name it.
    pub(crate) fn qualified(&self) -> String {
        qualified(self.group, self.plural)
    }

    /// The kind with its group, as messages about invalid objects name it.
    pub(crate) fn qualified_kind(&self) -> String {
        qualified(self.group, self.kind)
    }

    /// Whether its objects are stored in its form.
    pub(crate) fn is_stored(&self) -> bool {
        stored(self.plural).is_some_and(|stored| stored.group == self.group && stored.version == self.version)
    }

    /// Whether this is the `events.k8s.io` form of Events, which are stored in the core form.
    pub(crate) fn is_new_event(&self) -> bool {
        self.group == "events.k8s.io"
    }
}

/// `name.group`, or only the name in the core group.
pub(crate) fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// The resource of a path.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|resource| resource.group == group && resource.version == version && resource.plural == plural)
}

/// The resource under whose name objects are stored: of several forms the first.
pub(crate) fn stored(plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| resource.plural == plural)
}

/// The same, of one that is sure to be there.
pub(crate) fn known(plural: &str) -> &'static Resource {
    stored(plural).expect("the registry has it")
}

/// The resource of an object, by its type.
pub(crate) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
}
