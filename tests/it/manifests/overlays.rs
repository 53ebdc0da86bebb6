//! What a person applies: names, namespaces, labels, and what it renders to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    reading::{container_of, everything, of_the_cluster},
    rendering::{
        MOVED, OTHER_NAMESPACE, OVERLAYS, Rendered, Tree, directories_in, documents, kustomize,
        shown_in_docs, top,
    },
    settings::{parse, variables},
};

#[test]
fn everything_in_an_overlay_is_in_the_namespace_of_the_overlay() {
    for rendered in OVERLAYS.iter() {
        let namespace = &kustomization(&rendered.directory)["namespace"];
        assert!(namespace.is_string(), "{}: no namespace to edit", rendered.directory);
        rendered.is_in(namespace.as_str().expect("a string"));
    }
    for rendered in MOVED.iter() {
        rendered.is_in(OTHER_NAMESPACE);
    }
}

impl Rendered {
    fn is_in(&self, namespace: &str) {
        for document in &self.documents {
            let metadata = &document["metadata"];
            let expected = if of_the_cluster(document) { Value::Null } else { json!(namespace) };
            assert_eq!(metadata["namespace"], expected, "{}: {}", self.directory, metadata["name"]);
        }
    }
}

fn kustomization(directory: &str) -> Value {
    let file = top().join(directory).join("kustomization.yaml");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn every_object_and_every_pod_says_what_it_belongs_to() {
    for rendered in everything() {
        for document in &rendered.documents {
            let metadata = &document["metadata"];
            for label in ["name", "component"] {
                let value = &metadata["labels"][format!("app.kubernetes.io/{label}")];
                assert!(value.is_string(), "{}: {}: {label}", rendered.directory, metadata["name"]);
            }
        }
        for job in rendered.jobs() {
            let labels = job.template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
            assert_eq!(
                labels.get("app.kubernetes.io/name").map(String::as_str),
                Some("volume-snapshotter"),
                "{}",
                rendered.directory
            );
        }
    }
}

#[test]
fn no_kustomization_uses_a_field_that_is_going_away() {
    let mut files = Vec::new();
    for directory in ["kustomize", "deploy"] {
        find_kustomizations(&top().join(directory), &mut files);
    }
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let directory =
            file.parent().and_then(|path| path.strip_prefix(top()).ok()).expect("a directory of ours");
        let kustomization = kustomization(&directory.to_string_lossy());
        for field in [
            "vars",
            "bases",
            "commonLabels",
            "patchesStrategicMerge",
            "patchesJson6902",
            "imageTags",
            "helmChartInflationGenerator",
        ] {
            assert!(kustomization.get(field).is_none(), "{}: {field}", file.display());
        }
    }
}

fn find_kustomizations(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory can be listed") {
        let path = entry.expect("an entry of a directory").path();
        if path.is_dir() {
            find_kustomizations(&path, found);
        } else if path.file_name().is_some_and(|name| name == "kustomization.yaml") {
            found.push(path);
        }
    }
}

#[test]
fn a_new_user_edits_the_settings_and_the_namespace_and_has_an_overlay_of_their_own() {
    let tree = Tree::new("new-user");
    for overlay in directories_in("deploy/overlays") {
        let directory = tree.overlay(&overlay);
        let edit = |file: &str, from: &str, to: &str| {
            let path = directory.join(file);
            let text = fs::read_to_string(&path).expect("a file of the overlay");
            assert_eq!(text.matches(from).count(), 1, "{overlay}/{file}: {from:?}");
            fs::write(&path, text.replace(from, to)).expect("the file can be written");
        };
        edit("settings.env", "SNAPSHOT_PVC_NAMES=data\n", "SNAPSHOT_PVC_NAMES=orders,customers\n");
        edit("kustomization.yaml", "namespace: default\n", "namespace: shop\n");
        let Some(yaml) = kustomize(&directory) else { continue };
        let rendered = Rendered { directory: overlay, documents: documents(&yaml).expect("YAML") };
        rendered.is_in("shop");
        let variables = variables(&rendered, container_of(&rendered.jobs()[0]));
        assert_eq!(variables["SNAPSHOT_PVC_NAMES"], "orders,customers", "{}", rendered.directory);
        parse(&variables).unwrap_or_else(|problems| panic!("{}: {problems}", rendered.directory));
    }
}

#[test]
fn the_namespace_of_kube_state_metrics_is_edited_in_one_place() {
    let tree = Tree::new("kube-state-metrics");
    let directory = tree.overlay("../kube-state-metrics");
    let file = directory.join("kustomization.yaml");
    let text = fs::read_to_string(&file).expect("a kustomization");
    assert_eq!(text.matches("namespace: monitoring\n").count(), 1);
    fs::write(&file, text.replace("namespace: monitoring\n", "namespace: elsewhere\n")).expect("a file");
    let Some(yaml) = kustomize(&directory) else { return };
    let documents = documents(&yaml).expect("YAML");
    let of = |kind: &str| {
        documents.iter().find(|document| document["kind"] == kind).expect("an object of each kind")
    };
    assert_eq!(of("ConfigMap")["metadata"]["namespace"], "elsewhere");
    assert_eq!(of("ClusterRoleBinding")["subjects"][0]["namespace"], "elsewhere");
}

#[test]
fn the_docs_show_kustomizations() {
    assert!(shown_in_docs().len() >= 3, "{:?}", shown_in_docs());
}

/// Compared as objects, for versions of kustomize may write the same thing in two ways.
#[test]
fn the_overlays_render_to_what_is_kept_in_tests_golden() {
    let golden = top().join("tests/golden");
    let names: BTreeSet<_> = directories_in("deploy/overlays").into_iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&golden).expect("a directory");
        for name in &names {
            if let Some(yaml) = kustomize(&top().join("deploy/overlays").join(name)) {
                fs::write(golden.join(format!("{name}.yaml")), yaml).expect("the file can be written");
            }
        }
    }
    let kept: BTreeSet<_> = fs::read_dir(&golden)
        .expect("tests/golden can be listed")
        .map(|entry| entry.expect("an entry of tests/golden").path())
        .map(|path| path.file_stem().expect("a file has a name").to_string_lossy().into_owned())
        // Those are of `crate::list` and `crate::timeline`.
        .filter(|name| !name.starts_with("list-") && !name.starts_with("simulate-"))
        .collect();
    let renew = "renew it with: UPDATE_GOLDEN=1 cargo test --test it manifests";
    assert_eq!(kept, names, "{renew}");
    for rendered in OVERLAYS.iter() {
        let name = rendered.directory.rsplit('/').next().expect("a directory has a name");
        let text = fs::read_to_string(golden.join(format!("{name}.yaml"))).expect("a file of tests/golden");
        let kept = documents(&text).expect("tests/golden holds YAML");
        assert_eq!(kept.len(), rendered.documents.len(), "{name}: {renew}");
        for (kept, rendered) in kept.iter().zip(&rendered.documents) {
            assert_eq!(kept, rendered, "{name}: {renew}");
        }
    }
}
