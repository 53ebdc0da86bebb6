//! What belongs to the cluster: no installation takes away, or makes another of, what a second one
//! uses.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::Value;

use super::{
    reading::{everything, of_the_cluster},
    rendering::{CLASSES, OVERLAYS, Rendered, Tree, on_top_of},
    settings::SettingsFile,
};

/// What an API server knows an object by.
fn identities(rendered: &Rendered) -> BTreeSet<[String; 3]> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rendered
        .documents
        .iter()
        .map(|document| {
            let metadata = &document["metadata"];
            [text(&document["kind"]), text(&metadata["namespace"]), text(&metadata["name"])]
        })
        .collect()
}

/// The component cluster-wide on an overlay, with the names that come with it or without.
fn cluster_wide(tree: &Tree, name: &str, namespace: &str, more: &str) -> Option<Rendered> {
    let components = ["cluster-wide", "all-claims"];
    tree.render(name, &(on_top_of("gardener", namespace, &components) + more))
}

/// As an API server looks at the names of RBAC's objects.
fn is_accepted(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '%']) && ![".", ".."].contains(&name)
}

/// `kubectl delete -k` deletes what `kubectl apply -k` applies.
#[test]
fn deleting_an_installation_takes_nothing_of_the_cluster_that_another_one_uses() {
    for rendered in everything() {
        // The volume of an outside disk is named after the disk, and deleting it leaves the disk.
        let (volumes, of_the_cluster): (Vec<_>, Vec<_>) = rendered
            .documents
            .iter()
            .filter(|document| of_the_cluster(document))
            .partition(|document| document["kind"] == "PersistentVolume");
        for volume in volumes {
            let policy = &volume["spec"]["persistentVolumeReclaimPolicy"];
            assert_eq!(policy, "Retain", "{}", rendered.directory);
        }
        let is_cluster_wide = !rendered.all::<ClusterRole>().is_empty();
        assert_eq!(
            of_the_cluster.len(),
            if is_cluster_wide { 2 } else { 0 },
            "{}: {of_the_cluster:?}",
            rendered.directory
        );
    }
}

#[test]
fn two_cluster_wide_installations_have_no_object_in_common() {
    let tree = Tree::new("cluster-wide");
    let installations: Vec<_> = [
        ("one", "one", ""),
        ("two", "two", ""),
        // The namespace of the first, where a prefix or a suffix tells them apart.
        ("prefixed", "one", "namePrefix: a-\n"),
        ("suffixed", "one", "nameSuffix: -a\n"),
    ]
    .into_iter()
    .filter_map(|(name, namespace, more)| cluster_wide(&tree, name, namespace, more))
    .collect();
    // One that stands on another, in a namespace of its own.
    let above = on_top_of("one", "three", &[]).replace("components:\n", "")
        + "transformers:\n  - ../../../kustomize/components/cluster-wide/names\n";
    let installations: Vec<_> = installations.into_iter().chain(tree.render("above", &above)).collect();
    for (index, one) in installations.iter().enumerate() {
        for other in &installations[index + 1..] {
            let (one_has, other_has) = (identities(one), identities(other));
            let common: Vec<_> = one_has.intersection(&other_has).collect();
            assert!(common.is_empty(), "{} and {}: {common:?}", one.directory, other.directory);
        }
        let [role] = &one.all::<ClusterRole>()[..] else { panic!("one ClusterRole") };
        let [binding] = &one.all::<ClusterRoleBinding>()[..] else { panic!("one ClusterRoleBinding") };
        let namespace = one.jobs_namespace();
        for name in [&role.metadata.name, &binding.metadata.name, &Some(binding.role_ref.name.clone())] {
            let name = name.as_deref().unwrap_or_default();
            assert!(is_accepted(name), "{}: {name}", one.directory);
            assert!(name.contains(&format!(":{namespace}:")), "{}: {name}", one.directory);
        }
        assert_eq!(role.metadata.name.as_ref(), Some(&binding.role_ref.name), "{}", one.directory);
        let subjects: Vec<_> = binding.subjects.iter().flatten().collect();
        assert_eq!(subjects.len(), 1, "{}", one.directory);
        assert_eq!(subjects[0].namespace.as_deref(), Some(namespace), "{}", one.directory);
    }
}

impl Rendered {
    fn jobs_namespace(&self) -> &str {
        let cron_job = self.documents.iter().find(|document| document["kind"] == "CronJob");
        cron_job.and_then(|document| document["metadata"]["namespace"].as_str()).unwrap_or_default()
    }
}

/// Nobody notices that the names were forgotten until a second installation overwrites the first;
/// so what is applied then has names that an API server refuses.
#[test]
fn a_cluster_wide_installation_without_a_name_of_its_own_is_refused() {
    let tree = Tree::new("nameless");
    let text = on_top_of("gardener", "shop", &["cluster-wide"]);
    let (without, _) = text.split_once("transformers:").expect("there are transformers");
    let Some(rendered) = tree.render("nameless", without) else { return };
    for document in rendered.documents.iter().filter(|document| of_the_cluster(document)) {
        let name = document["metadata"]["name"].as_str().expect("an object has a name");
        assert!(!is_accepted(name), "{name}");
    }
}

#[test]
fn a_class_is_applied_apart_and_is_the_one_that_the_overlay_of_its_place_names() {
    let mut places = BTreeSet::new();
    for rendered in CLASSES.iter() {
        let cluster = rendered.directory.rsplit('/').next().expect("a directory has a name");
        let [class] = rendered.documents.as_slice() else { panic!("{cluster}: one class and nothing else") };
        assert_eq!(class["kind"], "VolumeSnapshotClass", "{cluster}");
        assert_eq!(class["metadata"]["namespace"], Value::Null, "{cluster}");
        assert_eq!(class["metadata"]["annotations"], Value::Null, "{cluster}: not the cluster's default");
        let settings =
            SettingsFile::read(&format!("deploy/overlays/{cluster}")).expect("an overlay of its place");
        assert_eq!(class["metadata"]["name"].as_str(), Some(settings.active["SNAPSHOT_CLASS_NAME"].as_str()));
        places.insert(cluster.to_owned());
    }
    // Whoever names a class of ours has it in the repository.
    for overlay in OVERLAYS.iter() {
        let settings = SettingsFile::read(&overlay.directory).expect("an overlay has settings");
        if settings.active["SNAPSHOT_CLASS_NAME"].starts_with("volume-snapshotter") {
            let cluster = overlay.directory.rsplit('/').next().expect("a directory has a name");
            assert!(places.contains(cluster), "{cluster}: there is no deploy/classes/{cluster}");
        }
    }
}
