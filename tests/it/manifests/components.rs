//! What each component brings, and what it leaves alone.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job, JobSpec},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    reading::{container_of, everything, with_settings},
    rendering::{COMPONENTS, MOVED, OTHER_IMAGE, OTHER_PREFIX, Rendered, Tree, on_an_overlay},
    settings::{parse, variables},
};

#[test]
fn schedules_over_the_same_claims_own_different_snapshots() {
    for rendered in with_settings() {
        let jobs: Vec<_> = rendered
            .jobs()
            .iter()
            .map(|job| parse(&variables(rendered, container_of(job))).expect("settings are accepted").job)
            .collect();
        let different: BTreeSet<_> = jobs.iter().collect();
        assert_eq!(different.len(), jobs.len(), "{}: {jobs:?}", rendered.directory);
    }
}

#[test]
fn what_is_taken_before_an_upgrade_is_held_and_prunes_nothing() {
    for rendered in with_settings() {
        for job in rendered.all::<Job>() {
            let spec = job.spec.expect("a Job has a specification");
            let settings = parse(&variables(rendered, container_of(&spec))).expect("settings are accepted");
            assert!(settings.hold, "{}", rendered.directory);
            assert_eq!(settings.retention, "all".parse().expect("a rule"), "{}", rendered.directory);
            let annotations = job.metadata.annotations.unwrap_or_default();
            for (key, value) in [
                ("argocd.argoproj.io/hook", "PreSync"),
                ("argocd.argoproj.io/hook-delete-policy", "BeforeHookCreation"),
                ("helm.sh/hook", "pre-upgrade"),
                ("helm.sh/hook-delete-policy", "before-hook-creation"),
            ] {
                assert_eq!(annotations.get(key).map(String::as_str), Some(value), "{}", rendered.directory);
            }
        }
    }
}

/// It is written twice, because kustomize cannot make a Job of a CronJob.
#[test]
fn the_job_before_an_upgrade_is_that_of_the_schedule_but_for_its_variables() {
    let Some(rendered) = COMPONENTS.iter().find(|rendered| rendered.directory == "before-upgrade") else {
        return;
    };
    let without_what_differs = |mut job: JobSpec| {
        let template = &mut job.template;
        template.metadata = None;
        template.spec.as_mut().expect("a pod").containers[0].env = None;
        job
    };
    let cron_job = rendered.all::<CronJob>().remove(0).spec.and_then(|spec| spec.job_template.spec);
    let job = rendered.all::<Job>().remove(0).spec;
    assert_eq!(cron_job.map(without_what_differs), job.map(without_what_differs));
}

#[test]
fn a_network_policy_selects_every_pod_and_opens_nothing_but_names_and_the_api_server() {
    for rendered in everything() {
        for policy in rendered.all::<NetworkPolicy>() {
            let spec = policy.spec.expect("a NetworkPolicy has a specification");
            let selected = spec.pod_selector.and_then(|selector| selector.match_labels).unwrap_or_default();
            assert!(!selected.is_empty(), "{}: it would hold for every pod", rendered.directory);
            for job in rendered.jobs() {
                let labels = job.template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
                for (key, value) in &selected {
                    assert_eq!(labels.get(key), Some(value), "{}", rendered.directory);
                }
            }
            let types: BTreeSet<_> = spec.policy_types.into_iter().flatten().collect();
            assert_eq!(types, BTreeSet::from(["Egress".into(), "Ingress".into()]), "{}", rendered.directory);
            assert_eq!(spec.ingress, None, "{}", rendered.directory);
            let mut ports = BTreeSet::new();
            for rule in spec.egress.expect("egress is open somewhere") {
                for port in rule.ports.expect("a rule without ports opens all") {
                    let Some(IntOrString::Int(number)) = port.port else {
                        panic!("{}: a port", rendered.directory)
                    };
                    ports.insert(number);
                }
            }
            assert_eq!(ports, BTreeSet::from([53, 443, 6443, 8053]), "{}", rendered.directory);
        }
    }
}

#[test]
fn everything_follows_another_namespace_name_prefix_and_registry() {
    for rendered in MOVED.iter() {
        let directory = &rendered.directory;
        for document in &rendered.documents {
            let name = document["metadata"]["name"].as_str().expect("an object has a name");
            // One class serves every installation, so it keeps its name.
            let prefixed = name.starts_with(OTHER_PREFIX);
            assert_eq!(prefixed, document["kind"] != "VolumeSnapshotClass", "{directory}: {name}");
            // A CronJob's Jobs have a hyphen and eight digits more, and pods are named after them.
            assert!(name.len() <= 52, "{directory}: {name}");
        }
        for job in rendered.jobs() {
            let image = container_of(&job).image.clone().expect("a container has an image");
            assert!(image.starts_with(&format!("{OTHER_IMAGE}:")), "{directory}: {image}");
        }
        rendered.names_a_class_of_its_own();
    }
}

impl Rendered {
    fn names_a_class_of_its_own(&self) {
        let classes: Vec<_> = self
            .documents
            .iter()
            .filter(|document| document["kind"] == "VolumeSnapshotClass")
            .map(|document| document["metadata"]["name"].as_str().expect("a class has a name"))
            .collect();
        for job in self.jobs() {
            let variables = variables(self, container_of(&job));
            let class = variables.get("SNAPSHOT_CLASS_NAME").expect("the overlay names its class");
            assert!(classes.contains(&class.as_str()), "{}: {class} is none of {classes:?}", self.directory);
        }
    }
}

/// Then the class is renamed like everything else, and what kustomize does not know is in a
/// namespace. It works all the same, and the setting that names the class follows.
#[test]
fn a_prefix_without_the_transformers_for_classes_still_names_the_class_that_there_is() {
    let tree = Tree::new("renamed");
    let text = on_an_overlay(&["dry-run"]);
    let (before, after) = text.split_once("transformers:\n").expect("there are transformers");
    let (_, after) = after.split_once('\n').expect("there is one");
    if let Some(rendered) = tree.render("renamed", &format!("{before}{after}")) {
        rendered.names_a_class_of_its_own();
    }
}
