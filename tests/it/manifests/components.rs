//! What each component brings, and what it leaves alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job, JobSpec},
        core::v1::{PersistentVolume, PersistentVolumeClaim},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use serde_json::{Value, json};
use volume_snapshotter::settings::ClaimChoice;

use super::{
    reading::{container_of, everything, pod_of, with_settings},
    rendering::{
        COMPONENTS, MOVED, OTHER_IMAGE, OTHER_NAMESPACE, OTHER_PREFIX, Rendered, Tree, directories_in,
        on_top_of, top,
    },
    settings::{parse, variables},
};

#[test]
fn schedules_over_the_same_claims_own_different_snapshots() {
    for rendered in with_settings() {
        let jobs: Vec<_> = rendered
            .jobs()
            .iter()
            .map(|job| {
                parse(&variables(rendered, container_of(job))).expect("settings are accepted").schedule
            })
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

/// Whether the Job takes snapshots: restores and drills are commands.
fn is_run(job: &JobSpec) -> bool {
    container_of(job).args.is_none()
}

/// Whether the Job is that of the component etcd-snapshot, which has a claim of its own.
fn saves_etcd(job: &JobSpec) -> bool {
    let labels = job.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    labels.and_then(|labels| labels.get("app.kubernetes.io/component")).is_some_and(|label| label == "etcd")
}

/// Whether a NetworkPolicy's selector is about a pod with these labels.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let expressed = selector.match_expressions.iter().flatten().all(|requirement| {
        let (label, values) = (labels.get(&requirement.key), requirement.values.iter().flatten());
        match requirement.operator.as_str() {
            "In" => label.is_some_and(|label| values.into_iter().any(|value| value == label)),
            "Exists" => label.is_some(),
            "DoesNotExist" => label.is_none(),
            other => panic!("{other} is not used"),
        }
    });
    equal && expressed
}

#[test]
fn a_network_policy_selects_every_pod_and_opens_nothing_but_names_and_the_api_server() {
    // With the pods of restores, which the others have not.
    let all = LAYERS.iter().filter(|rendered| !rendered.all::<NetworkPolicy>().is_empty());
    for rendered in everything().chain(all) {
        for policy in rendered.all::<NetworkPolicy>() {
            let spec = policy.spec.expect("a NetworkPolicy has a specification");
            let selector = spec.pod_selector.expect("it is about some pods");
            // One is for the pods that save an etcd, in addition to the one for all.
            let name = policy.metadata.name.unwrap_or_default();
            let is_of_etcd = name.ends_with("volume-snapshotter-etcd");
            let is_of_drills = name.ends_with("volume-snapshotter-verify");
            let of_others = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "shop".to_owned())]);
            assert!(!selects(&selector, &of_others), "{}: it would hold for every pod", rendered.directory);
            // The pods of a drill, and those that it makes to read what it has restored: src/verify/job.rs.
            let mut labels: BTreeMap<String, String> =
                BTreeMap::from([("app.kubernetes.io/name".into(), "volume-snapshotter-verify".into())]);
            let is_of_all = !is_of_etcd && !is_of_drills;
            assert_eq!(selects(&selector, &labels), is_of_all, "{}: {name}", rendered.directory);
            labels.insert("volume-snapshotter/drill".into(), "uid".into());
            assert_eq!(selects(&selector, &labels), is_of_drills, "{}: {name}", rendered.directory);
            for job in rendered.jobs() {
                let expected = is_of_all || is_of_etcd && saves_etcd(&job);
                let labels = job.template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
                assert_eq!(selects(&selector, &labels), expected, "{}: {labels:?}", rendered.directory);
            }
            let types: BTreeSet<_> = spec.policy_types.into_iter().flatten().collect();
            assert_eq!(types, BTreeSet::from(["Egress".into(), "Ingress".into()]), "{}", rendered.directory);
            assert_eq!(spec.ingress, None, "{}", rendered.directory);
            if is_of_drills {
                assert_eq!(spec.egress, None, "{}", rendered.directory);
                continue;
            }
            let mut ports = BTreeSet::new();
            for rule in spec.egress.expect("egress is open somewhere") {
                for port in rule.ports.expect("a rule without ports opens all") {
                    let Some(IntOrString::Int(number)) = port.port else {
                        panic!("{}: a port", rendered.directory)
                    };
                    ports.insert(number);
                }
            }
            let expected = if is_of_etcd { &[2379][..] } else { &[53, 443, 6443, 8053] };
            assert_eq!(ports, expected.iter().copied().collect(), "{}", rendered.directory);
        }
    }
}

/// What a comment offers to copy has to do what it says.
#[test]
fn the_rule_that_the_network_policy_shows_can_be_added() {
    let file = top().join("kustomize/components/network-policy/networkpolicy.yaml");
    let text = std::fs::read_to_string(file).expect("the policy");
    let comments = text.lines().filter_map(|line| line.trim().strip_prefix('#'));
    let patch: Vec<&str> = comments.skip_while(|line| !line.contains("- target:")).collect();
    assert!(patch.len() > 5, "{patch:?}");
    let kustomization = on_top_of("gardener", OTHER_NAMESPACE, &["network-policy", "ping"]) + "patches:\n";
    let Some(rendered) = Tree::new("opened").render("opened", &(kustomization + &patch.join("\n") + "\n"))
    else {
        return;
    };
    let policy = rendered.named::<NetworkPolicy>("volume-snapshotter");
    let policy = policy.spec.expect("a NetworkPolicy has a specification");
    let last = policy.egress.and_then(|mut rules| rules.pop()).expect("a rule");
    let ports: Vec<_> = last.ports.into_iter().flatten().filter_map(|port| port.port).collect();
    assert_eq!(ports, [IntOrString::Int(3001)]);
}

/// Otherwise the claim waits for ever, or gets a new and empty disk.
#[test]
fn an_outside_disk_and_its_claim_name_each_other_and_no_class() {
    let mut seen = 0;
    for rendered in everything() {
        for volume in rendered.all::<PersistentVolume>() {
            let directory = &rendered.directory;
            let spec = volume.spec.expect("a volume has a specification");
            let reference = spec.claim_ref.expect("a volume names its claim");
            let claim: PersistentVolumeClaim =
                rendered.named(reference.name.as_deref().expect("a name of a claim"));
            let wants = claim.spec.expect("a claim has a specification");
            assert_eq!(wants.volume_name, volume.metadata.name, "{directory}");
            let classes = [&wants.storage_class_name, &spec.storage_class_name];
            assert_eq!(classes.map(|class| class.as_deref()), [Some(""), Some("")], "{directory}");
            assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Retain"), "{directory}");
            let namespace = reference.namespace.as_deref();
            // A page shows one that is filled in.
            if directory.starts_with("docs-") {
                assert_eq!(namespace, claim.metadata.namespace.as_deref(), "{directory}");
                assert!(!json!(spec.csi).to_string().contains('%'), "{directory}: {:?}", spec.csi);
            } else {
                assert_eq!(namespace, Some("%namespace%"), "{directory}");
            }
            seen += 1;
        }
    }
    assert!(seen > 3 || COMPONENTS.is_empty(), "{seen}");
}

// --- In whichever order ----------------------------------------------------------------------------

/// All components, in every order that matters: each before all others and after all others, in one
/// kustomization and in two, of which the upper one stands on the lower. The first is what the
/// others have to be.
static LAYERS: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let tree = Tree::new("layers");
    let all = directories_in("kustomize/components");
    let in_one = |components: &[&str]| on_top_of("gardener", OTHER_NAMESPACE, components) + OTHER_IMAGES;
    let above = |below: &str, components: &[&str]| on_top_of(below, OTHER_NAMESPACE, components);
    let mut renders = Vec::new();
    for one in &all {
        let one = one.as_str();
        let others: Vec<_> = all.iter().map(String::as_str).filter(|name| *name != one).collect();
        let (first, last) = ([&[one], others.as_slice()].concat(), [others.as_slice(), &[one]].concat());
        let (lower, upper) = (format!("{one}-lower"), format!("{one}-upper"));
        renders.extend([
            tree.render(&format!("{one}-first"), &in_one(&first)),
            tree.render(&format!("{one}-last"), &in_one(&last)),
        ]);
        tree.render(&lower, &in_one(&[one]));
        renders.push(tree.render(&format!("{one}-below-the-others"), &above(&lower, &others)));
        tree.render(&upper, &in_one(&others));
        renders.push(tree.render(&format!("{one}-above-the-others"), &above(&upper, &[one])));
    }
    renders.into_iter().flatten().collect()
});

const OTHER_IMAGES: &str =
    "images:\n  - name: volume-snapshotter\n    newName: mirror.example/backup/snapshots\n";

/// Documents by what they are, with variables by their names and rules of roles in some order: none of these orders
/// means anything here.
fn sorted(rendered: &Rendered) -> BTreeMap<String, Value> {
    fn sort(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::Array(variables)) = fields.get_mut("env") {
                    variables.sort_by_key(|variable| variable["name"].to_string());
                }
                if let Some(Value::Array(rules)) = fields.get_mut("rules") {
                    rules.sort_by_key(Value::to_string);
                }
                fields.values_mut().for_each(sort);
            }
            Value::Array(items) => items.iter_mut().for_each(sort),
            _ => {}
        }
    }
    let documents = rendered.documents.iter().cloned().map(|mut document| {
        sort(&mut document);
        (format!("{} {}", document["kind"], document["metadata"]["name"]), document)
    });
    documents.collect()
}

#[test]
fn the_order_in_which_components_are_listed_makes_no_difference() {
    let Some(first) = LAYERS.first() else { return };
    let expected = sorted(first);
    assert_eq!(expected.len(), first.documents.len());
    for rendered in LAYERS.iter() {
        let different = sorted(rendered);
        let (names, others): (Vec<_>, Vec<_>) = (expected.keys().collect(), different.keys().collect());
        assert_eq!(names, others, "{}", rendered.directory);
        for (name, document) in &different {
            assert_eq!(document, &expected[name], "{}: {name}", rendered.directory);
        }
    }
}

#[test]
fn what_changes_runs_changes_all_of_them_and_restores_and_drills_are_left_alone() {
    for rendered in LAYERS.iter() {
        let (runs, others): (Vec<_>, Vec<_>) = rendered.jobs().into_iter().partition(is_run);
        let commands: BTreeSet<_> = others.iter().filter_map(|job| container_of(job).args.clone()).collect();
        let expected = ["restore", "verify"].map(|command| vec![command.to_owned()]);
        assert_eq!((commands, runs.len()), (BTreeSet::from(expected), 4), "{}", rendered.directory);
        let (of_etcd, runs): (Vec<_>, Vec<_>) = runs.into_iter().partition(saves_etcd);
        for job in &of_etcd {
            let settings = parse(&variables(rendered, container_of(job))).expect("settings are accepted");
            assert!(settings.dry_run, "{}: dry-run", rendered.directory);
            let ClaimChoice::Selector(selector) = &settings.claims else { panic!("{:?}", settings.claims) };
            let claims = rendered.all::<PersistentVolumeClaim>();
            let chosen = claims.iter().filter(|claim| {
                let labels = claim.metadata.labels.as_ref().expect("a claim has labels");
                selector.split(',').all(|one| {
                    one.split_once('=')
                        .is_some_and(|(key, value)| labels.get(key).is_some_and(|label| label == value))
                })
            });
            let chosen: Vec<_> = chosen.filter_map(|claim| claim.metadata.name.clone()).collect();
            let volumes = pod_of(job).volumes.iter().flatten();
            let written: Vec<_> = volumes
                .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()))
                .collect();
            assert_eq!(chosen, written, "{}: the claim that is written is snapshotted", rendered.directory);
            assert_eq!(chosen.len(), 1, "{}", rendered.directory);
            assert_eq!(
                (job.completions, settings.namespace_selector),
                (None, None),
                "{}",
                rendered.directory
            );
        }
        assert_eq!(of_etcd.len(), 1, "{}", rendered.directory);
        for job in &runs {
            let settings = parse(&variables(rendered, container_of(job))).expect("settings are accepted");
            assert!(settings.dry_run, "{}: dry-run", rendered.directory);
            assert!(settings.hooks, "{}: hooks", rendered.directory);
            let group_label = settings.group_label.as_deref();
            assert_eq!(group_label, Some("volume-snapshotter/group"), "{}: groups", rendered.directory);
            assert_eq!(
                settings.claims,
                ClaimChoice::Selector("volume-snapshotter/exclude!=true".to_owned()),
                "{}: all-claims",
                rendered.directory
            );
            assert!(settings.only_annotated, "{}: annotated-claims", rendered.directory);
            assert_eq!(job.completions, Some(4), "{}: sharded", rendered.directory);
        }
        assert!(others.iter().all(|job| job.completions.is_none()), "{}", rendered.directory);
    }
}

/// A check that waits for what has no schedule would raise an alarm for nothing.
#[test]
fn schedules_ping_and_push_and_nothing_else_does() {
    for rendered in LAYERS.iter() {
        for job in rendered.jobs().iter().filter(|job| is_run(job)) {
            let container = container_of(job);
            let variables = variables(rendered, container);
            let is_of_schedule = rendered.all::<CronJob>().iter().any(|cron_job| {
                let spec = cron_job.spec.as_ref().and_then(|spec| spec.job_template.spec.as_ref());
                spec == Some(job)
            });
            for url in ["SNAPSHOT_PING_URL", "SNAPSHOT_PUSHGATEWAY_URL"] {
                let is_set = variables.get(url).is_some_and(|url| !url.is_empty());
                assert_eq!(is_set, is_of_schedule, "{}: {url}", rendered.directory);
            }
        }
    }
}

#[test]
fn an_image_of_an_overlay_reaches_what_is_added_above_it() {
    for rendered in LAYERS.iter() {
        for job in rendered.jobs() {
            let image = container_of(&job).image.clone().unwrap_or_default();
            assert_eq!(image, "mirror.example/backup/snapshots:0.1.0", "{}", rendered.directory);
        }
    }
}

/// The Jobs of the second schedule are copies of those of the first. What makes it a schedule of
/// its own must not be copied: each would prune what the other keeps.
#[test]
fn a_second_schedule_stays_one_of_its_own_whatever_the_first_one_is_made_to_own() {
    let tree = Tree::new("nightly");
    let nightly =
        "patches:\n  - target:\n      kind: CronJob\n      name: volume-snapshotter\n    patch: |\n";
    let variable = |name: &str, value: &str| {
        format!(
            "      - op: add\n        path: /spec/jobTemplate/spec/template/spec/containers/0/env/-\n        \
             value:\n          name: {name}\n          value: {value}\n"
        )
    };
    let below = on_top_of("gardener", OTHER_NAMESPACE, &["dry-run"])
        + nightly
        + &variable("SNAPSHOT_JOB", "nightly")
        + &variable("SNAPSHOT_RETENTION", "last=3");
    tree.render("nightly", &below);
    let above = on_top_of("nightly", OTHER_NAMESPACE, &["second-schedule"]);
    let Some(rendered) = tree.render("weekly", &above) else { return };
    let of = |name: &str| {
        let job = rendered.named::<CronJob>(name).spec.and_then(|spec| spec.job_template.spec);
        let job = job.expect("a CronJob specifies its Jobs");
        parse(&variables(&rendered, container_of(&job))).expect("settings are accepted")
    };
    let (first, second) = (of("volume-snapshotter"), of("volume-snapshotter-weekly"));
    assert_eq!((first.schedule.as_str(), second.schedule.as_str()), ("nightly", "volume-snapshotter-weekly"));
    assert_eq!(first.retention, "last=3".parse().expect("a rule"));
    assert_eq!(second.retention, "last=8".parse().expect("a rule"));
    assert_eq!(second.name_prefix, "volume-snapshot-weekly");
}

/// One line of an overlay, or one of an Argo CD Application, names the release.
#[test]
fn what_is_taken_before_an_upgrade_is_labelled_by_an_annotation_of_the_overlay() {
    let tree = Tree::new("release");
    let overlay = on_top_of("gardener", OTHER_NAMESPACE, &["before-upgrade"])
        + "commonAnnotations:\n  volume-snapshotter/labels: release=1.2.3\n";
    let Some(rendered) = tree.render("release", &overlay) else { return };
    let jobs = rendered.all::<Job>();
    assert_eq!(jobs.len(), 1);
    let template = jobs[0].spec.clone().expect("a Job has a specification").template;
    let annotations = template.metadata.and_then(|metadata| metadata.annotations).unwrap_or_default();
    assert_eq!(annotations["volume-snapshotter/labels"], "release=1.2.3");
    let container = &template.spec.expect("a pod has a specification").containers[0];
    let variables = container.env.iter().flatten();
    let labels: Vec<_> = variables.filter(|variable| variable.name == "SNAPSHOT_LABELS").collect();
    let source = labels[0].value_from.as_ref().and_then(|source| source.field_ref.as_ref());
    assert_eq!(labels.len(), 1);
    assert_eq!(
        source.map(|field| field.field_path.as_str()),
        Some("metadata.annotations['volume-snapshotter/labels']")
    );
}

// --- Elsewhere -------------------------------------------------------------------------------------

#[test]
fn everything_follows_another_namespace_name_prefix_and_registry() {
    for rendered in MOVED.iter() {
        let directory = &rendered.directory;
        for document in &rendered.documents {
            let name = document["metadata"]["name"].as_str().expect("an object has a name");
            assert!(name.starts_with(OTHER_PREFIX), "{directory}: {name}");
            // A CronJob's Jobs have a hyphen and eight digits more, and pods are named after them.
            assert!(name.len() <= 52, "{directory}: {name}");
        }
        for job in rendered.jobs() {
            let image = container_of(&job).image.clone().expect("a container has an image");
            assert!(image.starts_with(&format!("{OTHER_IMAGE}:")), "{directory}: {image}");
        }
    }
}
