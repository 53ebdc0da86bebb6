//! Derives schedules from the CronJobs that run this program: which snapshots each owns, and its retention
//! rules. Pure: the caller passes the objects.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ffi::OsString,
    rc::Rc,
};

use crate::{
    api::{Container, CronJob},
    names,
    retention::VolumeAnnotations,
    settings::{ClaimChoice, Settings},
    snapshot::ClaimId,
    text,
};

/// A schedule, with the settings that decide which snapshots it deletes.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Value of the label `job` on the snapshots that it owns.
    pub name: String,
    /// How the schedule is known.
    pub origin: Origin,
    /// The settings, or why they are invalid.
    pub settings: Result<Box<Settings>, String>,
    pub location: Location,
    /// The claims that its selector matches. `None` if it selects by name, or if they are not known.
    pub selected: Option<HashSet<ClaimId>>,
    /// What the volumes of claims are annotated with, if its runs heed that and it may be read.
    pub volumes: Option<Rc<VolumeAnnotations>>,
    /// Why its runs may not do what the settings say: it is suspended, or the settings are a guess.
    pub doubt: Option<String>,
}

/// How a schedule is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a CronJob and the ConfigMaps that its pods take their settings from.
    CronJob { namespace: String, name: String, config_maps: Vec<String> },
    /// From the command's flags and variables.
    Given,
    /// Not known; the default schedule is assumed.
    Assumed,
}

/// The namespaces of a schedule's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    One(String),
    /// The namespaces that a selector matches.
    Chosen(HashSet<String>),
    /// Not known, so any namespace.
    Any,
}

/// The ConfigMaps that pods take variables from, by namespace and name.
pub(super) type ConfigMaps = HashMap<(String, String), ReadMap>;

/// The result of reading a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadMap {
    Data(BTreeMap<String, String>),
    Missing,
    /// Permission to read it is missing.
    Unread,
}

impl Schedule {
    /// Returns a schedule that is known from no CronJob.
    pub fn without_cron_job(settings: &Settings, origin: Origin) -> Self {
        let doubt = match origin {
            Origin::Given => "these are the rules of the command",
            _ => "the schedule's settings are not known",
        };
        Schedule {
            name: settings.schedule.clone(),
            origin,
            settings: Ok(Box::new(Settings {
                claims: ClaimChoice::Selector(String::new()),
                ..settings.clone()
            })),
            location: Location::Any,
            selected: None,
            volumes: None,
            doubt: Some(doubt.to_owned()),
        }
    }

    /// Whether the schedule owns snapshots with this label value in this namespace.
    pub fn owns(&self, name: &str, namespace: &str) -> bool {
        self.name == name && self.covers(namespace)
    }

    fn covers(&self, namespace: &str) -> bool {
        match &self.location {
            Location::One(one) => one == namespace,
            Location::Chosen(chosen) => chosen.contains(namespace),
            Location::Any => true,
        }
    }

    /// Whether a run of the schedule discovers this claim. True if it is not known.
    pub fn finds(&self, claim: &ClaimId) -> bool {
        let Ok(settings) = &self.settings else { return true };
        match &settings.claims {
            ClaimChoice::Names(names) => names.contains(&claim.name),
            ClaimChoice::Selector(_) => {
                self.selected.as_ref().is_none_or(|selected| selected.contains(claim))
            }
        }
    }

    /// Describes the schedule, its rules and their origin in a sentence.
    pub fn said(&self) -> String {
        let name = text::name(&self.name);
        let keeps = match &self.settings {
            Ok(settings) => match &settings.group_label {
                Some(label) => format!("keeps {} and groups by the label {label}", settings.retention),
                None => format!("keeps {}", settings.retention),
            },
            Err(_) => "has settings that are not understood".to_owned(),
        };
        let from = match &self.origin {
            Origin::CronJob { name, config_maps, .. } => {
                let mut from = vec![format!("CronJob {}", text::name(name))];
                from.extend(config_maps.iter().map(|name| format!("ConfigMap {}", text::name(name))));
                from.extend(self.doubt.clone());
                from.join(", ")
            }
            Origin::Given | Origin::Assumed => self.doubt.clone().unwrap_or_default(),
        };
        format!("schedule {name} {keeps} ({from})")
    }
}

/// Whether a CronJob runs this program to create snapshots. The container is recognised by its name or image,
/// or by the label of the manifests, and must give no other command than `run`.
pub(super) fn is_schedule(cron_job: &CronJob) -> bool {
    container(cron_job).is_some_and(|container| {
        let words = container.command.iter().skip(1).chain(&container.args);
        words.filter(|word| !word.starts_with('-')).all(|word| word == "run")
    })
}

fn container(cron_job: &CronJob) -> Option<&Container> {
    let containers = &cron_job.spec.job_template.spec.template.spec.containers;
    let by_name = containers.iter().find(|container| container.name == names::PROGRAM);
    let by_image = || containers.iter().find(|container| is_image(&container.image));
    let by_label = || match (cron_job.metadata.labels.get("app.kubernetes.io/name"), containers.as_slice()) {
        (Some(label), [only]) if label == names::PROGRAM => Some(only),
        _ => None,
    };
    by_name.or_else(by_image).or_else(by_label)
}

/// Whether an image is named like this program, in any registry and version.
fn is_image(image: &str) -> bool {
    let path = image.split('@').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    last.split(':').next() == Some(names::PROGRAM)
}

/// Returns the names of the ConfigMaps that a CronJob's pods take settings from. Skips invalid names: the API
/// server does not validate these references, and the names become part of a URL.
pub(super) fn config_maps(cron_job: &CronJob) -> BTreeSet<&str> {
    let Some(container) = container(cron_job) else { return BTreeSet::new() };
    let whole = container.env_from.iter().filter_map(|source| source.config_map_ref.as_ref());
    let entries = container.env.iter().filter(|variable| is_setting(&variable.name)).filter_map(|variable| {
        Some(variable.value_from.as_ref()?.config_map_key_ref.as_ref()?.name.as_str())
    });
    let names = whole.map(|reference| reference.name.as_str()).chain(entries);
    names.filter(|name| names::is_object_name(name)).collect()
}

fn is_setting(name: &str) -> bool {
    name.starts_with("SNAPSHOT_")
}

/// Whether a variable only identifies the pod and has no influence on which snapshots are deleted.
fn is_of_the_pod(name: &str) -> bool {
    name.starts_with("SNAPSHOT_RUN_")
}

/// Returns the schedule of a CronJob.
pub(super) fn schedule(cron_job: &CronJob, maps: &ConfigMaps) -> Schedule {
    let read = variables(cron_job, maps);
    let mut variables = read.variables;
    // Each pod of an Indexed Job has its own index. Any valid one will do here.
    if variables.contains_key("SNAPSHOT_SHARDS") {
        variables.insert("JOB_COMPLETION_INDEX".to_owned(), "0".to_owned());
    }
    let name = variables.get("SNAPSHOT_JOB").map(|name| name.trim()).filter(|name| !name.is_empty());
    let name = name.unwrap_or(names::PROGRAM).to_owned();
    let pairs = variables.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let settings = match read.problem {
        Some(problem) => Err(problem),
        None => Settings::parse(pairs).map(Box::new).map_err(|problems| text::foreign(&problems.to_string())),
    };
    let namespace = &cron_job.metadata.namespace;
    let location = match &settings {
        Ok(settings) if settings.namespace_selector.is_some() => Location::Any,
        Ok(settings) => Location::One(settings.namespace.clone().unwrap_or_else(|| namespace.clone())),
        Err(_) => Location::One(namespace.clone()),
    };
    let is_dry = settings.as_ref().is_ok_and(|settings| settings.dry_run);
    let doubt = match (read.doubt, cron_job.spec.suspend, is_dry) {
        (Some(doubt), ..) => Some(doubt),
        (None, true, _) => Some("suspended".to_owned()),
        (None, false, true) => Some("dry run".to_owned()),
        (None, false, false) => None,
    };
    Schedule {
        name,
        origin: Origin::CronJob {
            namespace: namespace.clone(),
            name: cron_job.metadata.name.clone(),
            config_maps: config_maps(cron_job).into_iter().map(str::to_owned).collect(),
        },
        settings,
        location,
        selected: None,
        volumes: None,
        doubt,
    }
}

/// The variables of a CronJob's pods.
#[derive(Default)]
struct Told {
    variables: BTreeMap<String, String>,
    /// Why some variables are not known.
    doubt: Option<String>,
    /// Why no pod can start.
    problem: Option<String>,
}

/// Computes the variables of a CronJob's pods as the kubelet does: `envFrom` first, then `env`, and later
/// entries win.
fn variables(cron_job: &CronJob, maps: &ConfigMaps) -> Told {
    let mut told = Told::default();
    let Some(container) = container(cron_job) else { return told };
    let namespace = &cron_job.metadata.namespace;
    let read = |name: &str| maps.get(&(namespace.clone(), name.to_owned())).unwrap_or(&ReadMap::Unread);
    let missing =
        |what: String| format!("{what} is missing in namespace {namespace}, so no pod of it starts");
    let unread = |name: &str| format!("ConfigMap {} may not be read", text::name(name));

    for source in &container.env_from {
        let Some(reference) = &source.config_map_ref else {
            told.doubt = Some("settings may be in a Secret, which is not read".to_owned());
            continue;
        };
        match read(&reference.name) {
            ReadMap::Data(data) => {
                told.variables.extend(
                    data.iter().map(|(key, value)| (format!("{}{key}", source.prefix), value.clone())),
                );
            }
            ReadMap::Missing if reference.optional => {}
            ReadMap::Missing => {
                told.problem = Some(missing(format!("ConfigMap {}", text::name(&reference.name))))
            }
            ReadMap::Unread => told.doubt = Some(unread(&reference.name)),
        }
    }
    for variable in &container.env {
        let name = variable.name.clone();
        let Some(from) = &variable.value_from else {
            let value = expanded(&variable.value, &told.variables);
            told.variables.insert(name, value);
            continue;
        };
        let value = match (&from.config_map_key_ref, &from.field_ref) {
            (Some(reference), _) => match read(&reference.name) {
                ReadMap::Data(data) => match data.get(&reference.key) {
                    Some(value) => Some(value.clone()),
                    None if reference.optional => continue,
                    None => {
                        let (key, map) = (text::name(&reference.key), text::name(&reference.name));
                        told.problem = Some(missing(format!("{key} of ConfigMap {map}")));
                        continue;
                    }
                },
                ReadMap::Missing if reference.optional => continue,
                ReadMap::Missing if is_setting(&name) => {
                    told.problem = Some(missing(format!("ConfigMap {}", text::name(&reference.name))));
                    continue;
                }
                ReadMap::Missing | ReadMap::Unread => None,
            },
            (None, Some(field)) if field.field_path == "metadata.namespace" => Some(namespace.clone()),
            (None, _) => None,
        };
        match value {
            Some(value) => drop(told.variables.insert(name, value)),
            None => {
                // A value from `envFrom` is overridden, though the new one is not known.
                told.variables.remove(&name);
                if is_setting(&name) && !is_of_the_pod(&name) {
                    told.doubt = Some(format!("the value of {} is not known", text::name(&name)));
                }
            }
        }
    }
    told
}

/// Replaces `$(NAME)` by the variable of that name, if there is one, and `$$` by a dollar sign.
fn expanded(value: &str, variables: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let named = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some(after) = rest.strip_prefix('$') {
            text.push('$');
            rest = after;
        } else if let Some((known, after)) =
            named.and_then(|(name, after)| Some((variables.get(name)?, after)))
        {
            text.push_str(known);
            rest = after;
        } else {
            text.push('$');
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron_job(container: Value) -> CronJob {
        serde_json::from_value(json!({
            "metadata": {"name": "hourly", "namespace": "shop", "labels": {}},
            "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [container]}}}}},
        }))
        .expect("a CronJob")
    }

    fn maps(pairs: &[(&str, Value)]) -> ConfigMaps {
        let map = |value: &Value| match value {
            Value::Null => ReadMap::Missing,
            Value::Bool(_) => ReadMap::Unread,
            data => ReadMap::Data(serde_json::from_value(data.clone()).expect("data")),
        };
        pairs.iter().map(|(name, data)| (("shop".to_owned(), (*name).to_owned()), map(data))).collect()
    }

    #[test]
    fn a_cron_job_of_this_program_is_known_by_its_container_its_image_or_its_label() {
        for (container, expected) in [
            (json!({"name": "volume-snapshotter", "image": "x"}), true),
            (json!({"name": "x", "image": "registry:5000/team/volume-snapshotter:1.2@sha256:0a"}), true),
            (json!({"name": "x", "image": "volume-snapshotter"}), true),
            (json!({"name": "x", "image": "team/volume-snapshotter-demo:1"}), false),
            (json!({"name": "x", "image": "volume-snapshotter/other"}), false),
            (json!({"name": "volume-snapshotter", "args": ["restore"]}), false),
            (json!({"name": "volume-snapshotter", "command": ["/volume-snapshotter", "list"]}), false),
            (json!({"name": "volume-snapshotter", "command": ["/volume-snapshotter"]}), true),
            (json!({"name": "x", "image": "kubectl"}), false),
        ] {
            assert_eq!(is_schedule(&cron_job(container.clone())), expected, "{container}");
        }
        let mut labelled = cron_job(json!({"name": "x", "image": "mirror/vs"}));
        assert!(!is_schedule(&labelled));
        labelled.metadata.labels.insert("app.kubernetes.io/name".into(), "volume-snapshotter".into());
        assert!(is_schedule(&labelled));
        labelled.metadata.labels.insert("app.kubernetes.io/name".into(), "volume-snapshotter-restore".into());
        assert!(!is_schedule(&labelled));
    }

    #[test]
    fn settings_are_put_together_as_the_kubelet_does() {
        let cron_job = cron_job(json!({
            "name": "volume-snapshotter",
            "envFrom": [
                {"configMapRef": {"name": "settings-5h2k"}},
                {"configMapRef": {"name": "gone", "optional": true}},
                {"prefix": "SNAPSHOT_", "configMapRef": {"name": "weekly"}},
            ],
            "env": [
                {"name": "RUN", "value": "weekly"},
                {"name": "SNAPSHOT_NAME_PREFIX", "value": "$(RUN)-$(NONE)$$"},
                {"name": "SNAPSHOT_RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}},
                {"name": "SNAPSHOT_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                {"name": "SNAPSHOT_READY_INTERVAL", "valueFrom": {"configMapKeyRef": {"name": "weekly", "key": "wait"}}},
                {"name": "SNAPSHOT_SHARDS", "value": "8"},
            ],
        }));
        let maps = maps(&[
            ("settings-5h2k", json!({"SNAPSHOT_PVC_NAMES": "data", "SNAPSHOT_RETENTION": "last=1"})),
            ("gone", json!(null)),
            ("weekly", json!({"JOB": "weekly", "RETENTION": "last=8", "READY_ATTEMPTS": "5", "wait": "4m"})),
        ]);
        assert_eq!(
            config_maps(&cron_job).into_iter().collect::<Vec<_>>(),
            ["gone", "settings-5h2k", "weekly"]
        );
        let told = variables(&cron_job, &maps);
        assert_eq!(told.variables["SNAPSHOT_NAME_PREFIX"], "weekly-$(NONE)$");
        let mut fitting = cron_job.clone();
        fitting.spec.job_template.spec.template.spec.containers[0].env[1].value = "$(RUN)".into();
        // `wait` became a variable as well, of which the program knows nothing.
        let read = schedule(&fitting, &maps);
        assert!(read.settings.is_err_and(|problem| problem.contains("SNAPSHOT_wait")));
        let mut maps = maps;
        let ReadMap::Data(weekly) = maps.get_mut(&("shop".into(), "weekly".into())).expect("it") else {
            panic!("data")
        };
        weekly.remove("wait");
        fitting.spec.job_template.spec.template.spec.containers[0].env.remove(4);
        let read = schedule(&fitting, &maps);
        let settings = read.settings.as_ref().expect("settings");
        assert_eq!((read.name.as_str(), settings.retention.to_string()), ("weekly", "last=8".into()));
        assert_eq!((read.location.clone(), read.doubt.clone()), (Location::One("shop".into()), None));
        assert_eq!(
            read.said(),
            "schedule weekly keeps last=8 (CronJob hourly, ConfigMap gone, ConfigMap settings-5h2k, ConfigMap weekly)"
        );
    }

    #[test]
    fn what_is_not_known_of_the_settings_is_a_doubt_and_what_stops_every_pod_is_a_problem() {
        let told = |container: Value, maps: &ConfigMaps| {
            let mut container = container;
            container["name"] = json!("volume-snapshotter");
            let read = schedule(&cron_job(container), maps);
            (read.doubt.unwrap_or_default(), read.settings.err().unwrap_or_default())
        };
        let from = |name: &str| json!([{"configMapRef": {"name": name}}]);
        let set = json!([{"name": "SNAPSHOT_PVC_NAMES", "value": "data"}]);
        let none = maps(&[("gone", json!(null)), ("secret", json!(false))]);
        let (doubt, problem) = told(json!({"env": set, "envFrom": from("secret")}), &none);
        assert_eq!((doubt.as_str(), problem.as_str()), ("ConfigMap secret may not be read", ""));
        let (_, problem) = told(json!({"env": set, "envFrom": from("gone")}), &none);
        assert_eq!(problem, "ConfigMap gone is missing in namespace shop, so no pod of it starts");
        let (doubt, _) = told(json!({"env": set, "envFrom": [{"secretRef": {"name": "s"}}]}), &none);
        assert!(doubt.contains("in a Secret"), "{doubt}");
        let secret = json!([set[0], {"name": "SNAPSHOT_RETENTION", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
        let (doubt, _) = told(json!({"env": secret}), &none);
        assert_eq!(doubt, "the value of SNAPSHOT_RETENTION is not known");
        let (doubt, problem) = told(json!({"env": []}), &none);
        assert!(doubt.is_empty() && problem.contains("SNAPSHOT_PVC_NAMES"), "{problem}");
        // A name that goes nowhere near a request.
        let hostile = cron_job(json!({"name": "volume-snapshotter", "envFrom": from("../../secrets/x")}));
        assert!(config_maps(&hostile).is_empty());
        assert!(schedule(&hostile, &none).doubt.is_some_and(|doubt| doubt.contains("\"../../secrets/x\"")));
        let mut suspended = cron_job(json!({"name": "volume-snapshotter", "env": set}));
        suspended.spec.suspend = true;
        assert_eq!(schedule(&suspended, &none).doubt.as_deref(), Some("suspended"));
    }
}
