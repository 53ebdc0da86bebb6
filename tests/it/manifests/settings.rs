//! The settings that the pods start with, and those that the settings files show.

use std::{collections::BTreeMap, ffi::OsString, fs, io::ErrorKind, path::PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Container};
use volume_snapshotter::settings::{NAMES, Settings};

use super::{
    reading::{container_of, with_settings},
    rendering::{Rendered, component_names, overlay_directories, top},
};

pub(crate) type Variables = BTreeMap<String, String>;

/// The variables that the container starts with, as far as the manifests set them.
pub(crate) fn variables(rendered: &Rendered, container: &Container) -> Variables {
    let mut variables = Variables::new();
    for source in container.env_from.iter().flatten() {
        let reference = source.config_map_ref.as_ref().expect("settings come from a ConfigMap");
        let config_map: ConfigMap = rendered.named(&reference.name);
        variables.extend(config_map.data.unwrap_or_default());
    }
    // Afterwards, because `env` wins over `envFrom`.
    for variable in container.env.iter().flatten() {
        let key = variable.value_from.as_ref().and_then(|source| source.config_map_key_ref.as_ref());
        let value = match (&variable.value, key, variable.name.as_str()) {
            (Some(value), None, _) => {
                assert_eq!(variable.value_from, None, "{}: {variable:?}", rendered.directory);
                value.clone()
            }
            (None, Some(key), name) => {
                let data = rendered.named::<ConfigMap>(&key.name).data.unwrap_or_default();
                let value = data.get(&key.key);
                value.unwrap_or_else(|| panic!("{}: {name}: {key:?}", rendered.directory)).clone()
            }
            (None, None, "SNAPSHOT_RUN_ID") => "volume-snapshotter-29384755".to_owned(),
            // From a Secret that is not in the repository.
            (None, None, name @ ("SNAPSHOT_PING_URL" | "SNAPSHOT_PUSHGATEWAY_URL")) => {
                let source = variable.value_from.as_ref().and_then(|source| source.secret_key_ref.as_ref());
                let secret = source.unwrap_or_else(|| panic!("{}: no Secret", rendered.directory));
                // Without it the pod starts all the same.
                assert_eq!(secret.optional, Some(true), "{}", rendered.directory);
                match name {
                    "SNAPSHOT_PING_URL" => "https://ping.example/{shard}/{exit}".to_owned(),
                    _ => "http://me:it@pushgateway.example:9091".to_owned(),
                }
            }
            (None, None, "SNAPSHOT_RUN_UID") => "5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f10".to_owned(),
            // An annotation that is not there is empty.
            (None, None, "SNAPSHOT_LABELS") => String::new(),
            (_, _, name) => panic!("{}: {name} has no value of its own, or two", rendered.directory),
        };
        variables.insert(variable.name.clone(), value);
    }
    // Kubernetes adds it in the pods of an Indexed Job; that such a Job is one is tested beside shards.
    if variables.get("SNAPSHOT_SHARDS").is_some_and(|shards| !shards.is_empty()) {
        variables.insert("JOB_COMPLETION_INDEX".to_owned(), "0".to_owned());
    }
    variables
}

pub(super) fn parse(variables: &Variables) -> Result<Settings, String> {
    // Until the binary reads the uid.
    let known = |name: &&String| name.as_str() != "SNAPSHOT_RUN_UID" || NAMES.contains(&name.as_str());
    let vars = variables
        .iter()
        .filter(|(name, _)| known(name))
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::parse(vars).map_err(|problems| problems.to_string())
}

/// Whether the binary reads a variable of this name. `Settings::parse` refuses the unknown ones
/// among `SNAPSHOT_*`; all others are none of its business, so a slip in the prefix would pass.
fn is_ours(name: &str) -> bool {
    name.starts_with("SNAPSHOT_") || ["RUST_LOG", "JOB_COMPLETION_INDEX"].contains(&name)
}

/// A `settings.env`: what it sets, and what it shows in a comment.
#[derive(Default)]
pub(super) struct SettingsFile {
    path: PathBuf,
    pub(super) active: Variables,
    pub(super) examples: Vec<(String, String)>,
}

impl SettingsFile {
    pub(super) fn read(overlay: &str) -> Option<Self> {
        let path = top().join(overlay).join("settings.env");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let mut file = Self { path, ..Self::default() };
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix('#') {
                file.examples.extend(assignment(comment.trim_start()));
            } else if !line.is_empty() {
                let (name, value) =
                    assignment(line).unwrap_or_else(|| panic!("{}: {line:?}", file.path.display()));
                let before = file.active.insert(name, value);
                assert!(before.is_none(), "{}: a second {line:?}", file.path.display());
            }
        }
        Some(file)
    }

    /// The settings with one of the examples switched on.
    pub(super) fn with(&self, (name, value): &(String, String)) -> Variables {
        let mut variables = self.active.clone();
        match name.as_str() {
            "SNAPSHOT_PVC_SELECTOR" | "SNAPSHOT_PVC_ANNOTATED" => variables.remove("SNAPSHOT_PVC_NAMES"),
            "SNAPSHOT_PVC_NAMES" => variables.remove("SNAPSHOT_PVC_SELECTOR"),
            _ => None,
        };
        variables.insert(name.clone(), value.clone());
        variables
    }
}

/// `NAME=value`, where the name is written like a variable's: prose is something else.
pub(crate) fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let like_a_variable = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(like_a_variable)).then(|| (name.to_owned(), value.to_owned()))
}

#[test]
fn the_settings_of_all_that_can_be_applied_are_accepted() {
    for rendered in with_settings() {
        for job in rendered.jobs() {
            let variables = variables(rendered, container_of(&job));
            for name in variables.keys() {
                assert!(is_ours(name), "{}: nobody reads {name}", rendered.directory);
            }
            if let Err(problems) = parse(&variables) {
                panic!("{}: {problems}", rendered.directory);
            }
        }
    }
}

#[test]
fn the_settings_files_set_and_document_only_known_variables_that_are_accepted() {
    let of_overlays = overlay_directories().into_iter().map(|overlay| (overlay, false));
    let of_components =
        component_names().into_iter().map(|name| (format!("kustomize/components/{name}"), true));
    for (directory, is_component) in of_overlays.chain(of_components) {
        let Some(mut file) = SettingsFile::read(&directory) else {
            assert!(is_component, "{directory} has no settings.env");
            continue;
        };
        assert!(!file.active.is_empty(), "{directory}: settings.env sets nothing");
        if is_component {
            // The rest comes from the overlay.
            file.active.insert("SNAPSHOT_PVC_NAMES".into(), "data".into());
        }
        let path = file.path.display();
        if let Err(problems) = parse(&file.active) {
            panic!("{path}: {problems}");
        }
        for (name, value) in file.active.iter().chain(file.examples.iter().map(|(name, value)| (name, value)))
        {
            assert!(is_ours(name), "{path}: nobody reads {name}");
            // Kustomize takes all of the line for the value.
            assert_eq!(value.trim(), value, "{path}: blanks around the value of {name}");
            assert!(!value.contains(['"', '\'', '#']), "{path}: {name} would hold {value:?}");
        }
        for example in &file.examples {
            let (name, value) = example;
            if let Err(problems) = parse(&file.with(example)) {
                panic!("{path}: with {name}={value}: {problems}");
            }
        }
    }
}

#[test]
fn every_overlay_shows_a_retention_that_survives_a_mistake_and_says_what_it_costs() {
    for overlay in overlay_directories() {
        let file = SettingsFile::read(&overlay).expect("an overlay has settings");
        assert_eq!(file.active["SNAPSHOT_RETENTION"], "last=1", "{overlay}");
        let recommended = "hourly=24,daily=7,weekly=4,monthly=12";
        let shown =
            file.examples.iter().any(|(name, value)| name == "SNAPSHOT_RETENTION" && value == recommended);
        assert!(shown, "{overlay}: {recommended}");
        let text = fs::read_to_string(&file.path).expect("a settings file can be read");
        assert!(text.contains("24 + 7 + 4 + 12 = 47"), "{overlay}");
    }
}
