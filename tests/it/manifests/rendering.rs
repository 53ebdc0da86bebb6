//! What is rendered, and how.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::Value;

/// What kustomize makes of one directory.
pub(crate) struct Rendered {
    /// The directory, from the top of the repository or of a copy of it; or what was rendered.
    pub(crate) directory: String,
    pub(crate) documents: Vec<Value>,
}

pub(super) static BASE: LazyLock<Vec<Rendered>> = LazyLock::new(|| rendered(["kustomize/base".to_owned()]));
pub(super) static OVERLAYS: LazyLock<Vec<Rendered>> = LazyLock::new(|| rendered(overlay_directories()));

/// What is applied once for a cluster, and apart from the overlays.
pub(super) static CLASSES: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    rendered(directories_in("deploy/classes").iter().map(|cluster| format!("deploy/classes/{cluster}")))
});

/// What is applied once for a cluster too, for kube-state-metrics.
pub(crate) static KUBE_STATE_METRICS: LazyLock<Vec<Rendered>> =
    LazyLock::new(|| rendered(["deploy/kube-state-metrics".to_owned()]));

/// Each component on top of the base, as somebody with a kustomization of their own has it.
pub(super) static COMPONENTS: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let tree = Tree::new("components");
    component_names().iter().filter_map(|name| tree.render(name, &on_the_base(&[name]))).collect()
});

/// Each component, and all of them together, on top of an overlay, where everything that can be
/// another is another: namespace, names, image.
pub(super) static MOVED: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let tree = Tree::new("moved");
    let all = component_names();
    let one_each = all.iter().map(|name| (name.as_str(), vec![name.as_str()]));
    one_each
        .chain([("all-components", all.iter().map(String::as_str).collect())])
        .filter_map(|(name, components)| tree.render(name, &on_an_overlay(&components)))
        .collect()
});

/// What the pages of `docs/` show.
pub(super) static SHOWN: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let tree = Tree::new("docs");
    shown_in_docs().iter().filter_map(|(name, text)| tree.render(name, text)).collect()
});

pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn directories_in(directory: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(top().join(directory))
        .unwrap_or_else(|error| panic!("{directory}: {error}"))
        .map(|entry| entry.expect("an entry of a directory"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a directory's name is UTF-8"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "there is nothing in {directory}");
    names
}

pub(super) fn overlay_directories() -> Vec<String> {
    directories_in("deploy/overlays").iter().map(|name| format!("deploy/overlays/{name}")).collect()
}

/// All but those of restores and drills, which are other commands with other settings: see `crate::restore` and
/// `crate::verify`.
pub(super) fn component_names() -> Vec<String> {
    let mut names = directories_in("kustomize/components");
    names.retain(|name| name != "restore" && name != "verify");
    names
}

/// A copy of what kustomize reads, in which other kustomizations can be tried.
pub(crate) struct Tree {
    top: PathBuf,
}

impl Tree {
    pub(crate) fn new(name: &str) -> Self {
        let tree = Self { top: Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifests").join(name) };
        let _ = fs::remove_dir_all(&tree.top);
        for directory in ["kustomize", "deploy"] {
            copy(&top().join(directory), &tree.top.join(directory));
        }
        tree
    }

    pub(super) fn overlay(&self, name: &str) -> PathBuf {
        self.top.join("deploy/overlays").join(name)
    }

    /// Renders a kustomization that stands beside the overlays, with settings beside it.
    pub(crate) fn render(&self, name: &str, kustomization: &str) -> Option<Rendered> {
        let directory = self.overlay(name);
        fs::create_dir_all(&directory).expect("a directory");
        fs::copy(top().join("deploy/overlays/gardener/settings.env"), directory.join("settings.env"))
            .expect("settings");
        fs::write(directory.join("kustomization.yaml"), kustomization).expect("a kustomization");
        let documents = documents(&kustomize(&directory)?).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!documents.is_empty(), "{name} renders to nothing");
        Some(Rendered { directory: name.to_owned(), documents })
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a directory");
        for entry in fs::read_dir(from).expect("a directory can be listed") {
            let entry = entry.expect("an entry of a directory");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("a file can be copied");
    }
}

fn listed(components: &[&str]) -> String {
    components.iter().map(|name| format!("  - ../../../kustomize/components/{name}\n")).collect()
}

pub(crate) fn on_the_base(components: &[&str]) -> String {
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\n\
         kind: Kustomization\n\
         resources:\n  - ../../../kustomize/base\n\
         components:\n{}\
         configMapGenerator:\n  - name: volume-snapshotter-settings\n    envs: [settings.env]\n\
         generatorOptions:\n  disableNameSuffixHash: true\n  labels:\n    \
         app.kubernetes.io/name: volume-snapshotter\n    app.kubernetes.io/component: backup\n",
        listed(components)
    )
}

pub(super) const OTHER_NAMESPACE: &str = "shop";
pub(super) const OTHER_PREFIX: &str = "shop-";
pub(super) const OTHER_IMAGE: &str = "mirror.example/backup/snapshots";

/// What gives the objects of the cluster their names, for those who bring some.
fn transformers(components: &[&str]) -> &'static str {
    if components.contains(&"cluster-wide") {
        "transformers:\n  - ../../../kustomize/components/cluster-wide/names\n"
    } else {
        ""
    }
}

pub(crate) fn on_an_overlay(components: &[&str]) -> String {
    on_top_of("eks", OTHER_NAMESPACE, components)
        + &format!(
            "namePrefix: {OTHER_PREFIX}\nimages:\n  - name: volume-snapshotter\n    newName: {OTHER_IMAGE}\n"
        )
}

/// A kustomization that stands on an overlay, or on another one beside the overlays.
pub(super) fn on_top_of(below: &str, namespace: &str, components: &[&str]) -> String {
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\n\
         kind: Kustomization\n\
         namespace: {namespace}\n\
         resources:\n  - ../{below}\n\
         components:\n{}{}",
        listed(components),
        transformers(components)
    )
}

/// The kustomizations among the YAML blocks of `docs/`, each named by its page and its number.
pub(super) fn shown_in_docs() -> Vec<(String, String)> {
    let mut pages: Vec<_> = fs::read_dir(top().join("docs"))
        .expect("there is a directory docs")
        .map(|entry| entry.expect("an entry of docs").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    let mut shown = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page is UTF-8");
        let stem = page.file_stem().expect("a page has a name").to_string_lossy().into_owned();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|block| block.contains("apiVersion: kustomize.config.k8s.io")) {
            shown.push((format!("docs-{stem}-{}", shown.len() + 1), block.to_owned()));
        }
    }
    shown
}

/// Renders the directories; none at all if there is no tool for it.
fn rendered(directories: impl IntoIterator<Item = String>) -> Vec<Rendered> {
    let mut all = Vec::new();
    for directory in directories {
        let Some(yaml) = kustomize(&top().join(&directory)) else {
            // Not with eprintln!, which the test harness swallows when a test passes.
            let notice =
                format!("SKIPPED: {directory} is not checked: neither kubectl nor kustomize is installed\n");
            let _ = std::io::stderr().write_all(notice.as_bytes());
            continue;
        };
        let documents = documents(&yaml).unwrap_or_else(|error| panic!("{directory}: {error}"));
        assert!(!documents.is_empty(), "{directory} renders to nothing");
        all.push(Rendered { directory, documents });
    }
    all
}

pub(super) fn kustomize(directory: &Path) -> Option<String> {
    for [program, verb] in [["kubectl", "kustomize"], ["kustomize", "build"]] {
        let output = match Command::new(program).arg(verb).arg(directory).output() {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{program} cannot be started: {error}"),
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {verb} {}: {stderr}", directory.display());
        // Not just anything that a wrapper of kubectl may have to say.
        assert!(!stderr.contains("deprecated"), "{program} {verb} {} warns: {stderr}", directory.display());
        return Some(String::from_utf8(output.stdout).expect("manifests are UTF-8"));
    }
    None
}

pub(super) fn documents(yaml: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    serde_saphyr::from_multiple(yaml)
}
