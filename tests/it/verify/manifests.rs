//! The component `verify`: what a person applies.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::{CronJob, JobSpec},
    core::v1::ConfigMap,
    rbac::v1::{Role, RoleBinding},
};
use volume_snapshotter::{
    cluster::VERIFY_PERMISSIONS,
    settings::{NAMES, VERIFY_NAMES, VerifySettings},
    verify::Template,
};

use crate::manifests::{
    Granted, Rendered, Tree, assignment, container_of, deadline, granted, longest, on_an_overlay,
    on_the_base, pod_of, top, violations,
};

const COMPONENT: &str = "kustomize/components/verify";

/// `of` is a name of the test's own: each has a tree to itself, for they run side by side.
fn rendered(of: &str) -> Vec<Rendered> {
    let tree = Tree::new(&format!("verify-{of}"));
    [("verify-on-the-base", on_the_base(&["verify"])), ("verify-moved", on_an_overlay(&["verify"]))]
        .into_iter()
        .filter_map(|(name, text)| tree.render(name, &text))
        .collect()
}

fn job_of(rendered: &Rendered) -> JobSpec {
    let is_drill = |one: &CronJob| {
        one.metadata.name.as_deref().is_some_and(|name| name.ends_with("volume-snapshotter-verify"))
    };
    let cron_job = rendered.all::<CronJob>().into_iter().find(is_drill).expect("the CronJob of the drill");
    cron_job.spec.and_then(|spec| spec.job_template.spec).expect("a Job")
}

#[test]
fn the_drill_has_the_rights_that_it_uses_and_none_on_claims() {
    for rendered in rendered("rights") {
        let directory = rendered.directory.as_str();
        let (job, pod) = (job_of(&rendered), pod_of(&job_of(&rendered)).clone());
        assert_eq!(violations(&pod), [""; 0], "{directory}");
        assert_eq!(container_of(&job).args.as_deref(), Some(&["verify".to_owned()][..]));
        assert_eq!(pod.enable_service_links, Some(false), "{directory}");
        let account = pod.service_account_name.expect("an account");
        let binding = rendered
            .all::<RoleBinding>()
            .into_iter()
            .find(|binding| binding.subjects.iter().flatten().any(|subject| subject.name == account))
            .expect("a binding");
        let role: Role = rendered.named(&binding.role_ref.name);
        let used: Granted = VERIFY_PERMISSIONS
            .iter()
            .map(|one| (one.group.into(), one.resource.into(), one.verb.into()))
            .collect();
        let granted = granted(directory, role.rules.unwrap_or_default());
        assert_eq!(granted, used, "{directory}");
        assert!(!granted.iter().any(|(_, resource, _)| resource == "persistentvolumeclaims"), "{directory}");
        assert!(!granted.iter().any(|(_, resource, verb)| resource == "volumesnapshots" && verb == "delete"));
    }
}

#[test]
fn the_settings_and_examples_are_accepted_and_fit_the_deadline() {
    let text = std::fs::read_to_string(top().join(COMPONENT).join("verify.env")).expect("verify.env");
    let examples: Vec<(String, String)> =
        text.lines().filter_map(|line| assignment(line.strip_prefix('#')?)).collect();
    assert!(examples.len() >= 6, "{examples:?}");
    for rendered in rendered("settings") {
        let job = job_of(&rendered);
        let container = container_of(&job);
        let mut variables = BTreeMap::new();
        for source in container.env_from.iter().flatten() {
            let reference = source.config_map_ref.as_ref().expect("settings come from a ConfigMap");
            variables.extend(rendered.named::<ConfigMap>(&reference.name).data.unwrap_or_default());
        }
        for one in container.env.iter().flatten() {
            variables.insert(one.name.clone(), one.value.clone().unwrap_or_else(|| "verify-1".to_owned()));
        }
        for name in variables.keys() {
            assert!(
                NAMES.contains(&name.as_str()) || VERIFY_NAMES.contains(&name.as_str()),
                "nobody reads {name}"
            );
        }
        for example in examples.iter().map(Some).chain([None]) {
            let mut variables = variables.clone();
            variables.extend(example.cloned());
            let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
            let settings = VerifySettings::parse(variables, Default::default());
            let settings = settings.unwrap_or_else(|(problems, _)| panic!("{example:?}: {problems}"));
            assert!(longest(&job, settings.bound()) <= deadline(&job), "{example:?}");
        }
    }
}

#[test]
fn the_pods_template_is_accepted_as_it_is() {
    let text = std::fs::read_to_string(top().join(COMPONENT).join("pod.yaml")).expect("pod.yaml");
    assert_eq!(Template::parse(&text), Ok(Template::default()), "everything is commented out");
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with(' ')
                    || rest.starts_with("securityContext")
                    || rest.starts_with("containers") =>
            {
                format!("  {rest}\n")
            }
            Some(_) => String::new(),
            None => format!("{line}\n"),
        })
        // Two ways to set the user; one of the two at a time.
        .filter(|line| !line.contains("runAsUser: 0"))
        .collect();
    let template = Template::parse(&uncommented).unwrap_or_else(|problem| panic!("{problem}\n{uncommented}"));
    assert_ne!(template, Template::default());
}
