//! Which hooks a pod asks for, in our words or in Velero's.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{Pod, PodContainer, PodFields},
    names::{self, HOOK_ANNOTATIONS},
    text,
};

/// How long a command may take if its annotations do not say. As in Velero.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that one may be told to take. A connection that is silent for longer counts as broken.
const MAX_TIMEOUT: Duration = Duration::from_secs(240);

const MIN_TIMEOUT: Duration = Duration::from_millis(100);

/// The keys after the prefix and the slash. The last one is for pre hooks alone.
const KEYS: [&str; 5] = ["container", "command", "timeout", "on-error", "ready-line"];

/// The most bytes of a line that is waited for.
const MAX_LINE: usize = 100;

/// A running pod that asks for hooks, or tries to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookedPod {
    pub namespace: String,
    pub name: String,
    /// The names of the claims that it mounts.
    pub claims: Vec<String>,
    /// What it asks for, or why that cannot be understood.
    pub hooks: Result<Hooks, HookError>,
}

/// The hooks of a pod: at least one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Before the snapshots are made.
    pub pre: Option<Hook>,
    /// After they are taken.
    pub post: Option<Hook>,
}

/// A command in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub container: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long one try may take. A command that is kept open may take as long until it writes its line, and again
    /// until it ends.
    pub timeout: Duration,
    pub on_error: OnError,
    /// Only of a pre hook: its command is kept open. It holds when it has written this line, and thaws when its
    /// input ends.
    pub ready_line: Option<String>,
}

/// What becomes of the claims if a hook fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// They fail.
    #[default]
    Fail,
    /// They are snapshotted all the same.
    Continue,
}

/// Why the annotations of a pod cannot be understood. Nothing is run in such a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the annotation {annotation} of pod {pod} is invalid: {problem}")]
pub struct HookError {
    annotation: String,
    pod: String,
    problem: String,
}

/// What a pod of a namespace asks for. `None` if it has no hooks, mounts no claim, or does not run.
pub fn of_pod(namespace: &str, pod: Pod) -> Option<HookedPod> {
    if pod.status.phase != "Running" {
        return None;
    }
    let claims = claims(&pod);
    if claims.is_empty() {
        return None;
    }
    let invalid = |annotation: String, problem| HookError {
        annotation: text::foreign(&annotation),
        pod: text::name(&pod.metadata.name).into_owned(),
        problem,
    };
    let hooks = match read(&pod.metadata.annotations.0, &pod.spec) {
        Ok(None) => return None,
        Ok(Some(_)) if !names::is_object_name(&pod.metadata.name) => {
            Err(invalid("of a hook".to_owned(), "that is not the name of a pod".to_owned()))
        }
        Ok(Some(hooks)) => Ok(hooks),
        Err((annotation, problem)) => Err(invalid(annotation, problem)),
    };
    let name = text::name(&pod.metadata.name).into_owned();
    Some(HookedPod { namespace: namespace.to_owned(), name, claims, hooks })
}

/// The claims that a pod mounts.
fn claims(pod: &Pod) -> Vec<String> {
    let claims = pod.spec.volumes.iter().filter_map(|volume| match &volume.persistent_volume_claim {
        Some(claim) => Some(claim.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.metadata.name, volume.name)),
    });
    let mut claims: Vec<String> = claims.filter(|name| !name.is_empty()).collect();
    claims.sort();
    claims.dedup();
    claims
}

/// An annotation, and what is wrong with it.
type Problem = (String, String);

/// Whose annotations they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Author {
    Us,
    Velero,
}

fn read(annotations: &BTreeMap<String, String>, pod: &PodFields) -> Result<Option<Hooks>, Problem> {
    let [our_pre, our_post, velero_pre, velero_post] = HOOK_ANNOTATIONS;
    let is_ours =
        |key: &String| key.split_once('/').is_some_and(|(prefix, _)| prefix == our_pre || prefix == our_post);
    // Ours win as a whole: a pre hook of one and a post hook of the other would be a pair that nobody wrote.
    let (author, pre, post) = match annotations.keys().any(is_ours) {
        true => (Author::Us, our_pre, our_post),
        false => (Author::Velero, velero_pre, velero_post),
    };
    let hooks =
        Hooks { pre: hook(annotations, author, pre, pod)?, post: hook(annotations, author, post, pod)? };
    Ok((hooks.pre.is_some() || hooks.post.is_some()).then_some(hooks))
}

/// The hook whose annotations begin with a prefix.
fn hook(
    annotations: &BTreeMap<String, String>,
    author: Author,
    prefix: &str,
    pod: &PodFields,
) -> Result<Option<Hook>, Problem> {
    let key = |name: &str| format!("{prefix}/{name}");
    let get = |name: &str| annotations.get(&key(name)).map(|value| value.trim());
    let keys = match prefix == HOOK_ANNOTATIONS[0] {
        true => &KEYS[..],
        false => &KEYS[..KEYS.len() - 1],
    };
    if author == Author::Us {
        // A misspelt one must not be as if it were not there.
        let unknown = annotations.keys().find(|annotation| {
            annotation
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|name| !keys.contains(&name))
        });
        if let Some(unknown) = unknown {
            return Err((unknown.clone(), format!("there are only {}", keys.join(", "))));
        }
        if let Some(name) = keys.iter().find(|name| get(name).is_some())
            && get("command").is_none()
        {
            return Err((key(name), format!("without {} there is nothing to run", key("command"))));
        }
    }
    let Some(command) = get("command") else { return Ok(None) };
    let in_words = |name: &str, problem: String| (key(name), problem);
    Ok(Some(Hook {
        command: argv(command).map_err(|problem| in_words("command", problem))?,
        container: container(get("container"), author, pod)
            .map_err(|problem| in_words("container", problem))?,
        timeout: match get("timeout") {
            None => DEFAULT_TIMEOUT,
            Some(value) => timeout(value).ok_or_else(|| {
                let value = text::foreign(value);
                in_words(
                    "timeout",
                    format!("{value:?} is not a duration of 100ms to 4m such as 30s or 1m30s"),
                )
            })?,
        },
        on_error: match get("on-error").map(str::to_ascii_lowercase).as_deref() {
            None | Some("fail") => OnError::Fail,
            Some("continue") => OnError::Continue,
            Some(value) => {
                let value = text::foreign(value);
                return Err(in_words("on-error", format!("{value:?} is neither fail nor continue")));
            }
        },
        ready_line: match get("ready-line").filter(|_| author == Author::Us) {
            Some(line) if line.is_empty() || line.len() > MAX_LINE || line.chars().any(char::is_control) => {
                let line = text::foreign(line);
                let problem = format!("{line:?} is not a line of 1 to {MAX_LINE} bytes");
                return Err(in_words("ready-line", problem));
            }
            line => line.map(str::to_owned),
        },
    }))
}

/// A command is a JSON array, or the name of a program without arguments. No shell reads it.
pub(crate) fn argv(command: &str) -> Result<Vec<String>, String> {
    let argv = if command.starts_with('[') {
        serde_json::from_str::<Vec<String>>(command)
            .map_err(|error| format!("it begins like a JSON array of strings and is none: {error}"))?
    } else if command.contains(char::is_whitespace) {
        return Err(format!(
            "no shell reads it: write a program with arguments as a JSON array, such as {}",
            serde_json::json!(["sh", "-c", text::foreign(command)])
        ));
    } else {
        vec![command.to_owned()]
    };
    match argv.first().is_some_and(|program| !program.is_empty()) {
        true => Ok(argv),
        false => Err("it names no program".to_owned()),
    }
}

/// The container that is named, else the only one; with Velero's annotations the first one.
fn container(named: Option<&str>, author: Author, pod: &PodFields) -> Result<String, String> {
    let sidecars =
        pod.init_containers.iter().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut running = pod.containers.iter().chain(sidecars).map(|container| container.name.as_str());
    match (named, pod.containers.as_slice()) {
        (Some(named), _) => match running.any(|name| name == named) {
            true => Ok(named.to_owned()),
            false => Err(format!(
                "no container {} runs in the pod; it has {}",
                text::name(named),
                all(&pod.containers)
            )),
        },
        (None, [first, ..]) if author == Author::Velero => Ok(first.name.clone()),
        (None, [only]) => Ok(only.name.clone()),
        (None, containers) => Err(format!("it is missing, and the pod has {}: name one", all(containers))),
    }
}

fn all(containers: &[PodContainer]) -> String {
    let names: Vec<_> = containers.iter().map(|container| text::name(&container.name)).collect();
    match names.is_empty() {
        true => "no containers".to_owned(),
        false => names.join(", "),
    }
}

fn timeout(text: &str) -> Option<Duration> {
    let timeout = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok().map(Duration::from_secs),
        false => text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok()),
    };
    timeout.filter(|timeout| (MIN_TIMEOUT..=MAX_TIMEOUT).contains(timeout))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::PodMetadata;

    /// A running pod with containers `db` and `web`, a sidecar `proxy` and an init container `init`.
    fn pod(annotations: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "db-0", "annotations": annotations},
            "spec": {
                "containers": [{"name": "db"}, {"name": "web"}],
                "initContainers": [{"name": "init"}, {"name": "proxy", "restartPolicy": "Always"}],
                "volumes": [
                    {"name": "config", "configMap": {"name": "c"}},
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
                    {"name": "again", "persistentVolumeClaim": {"claimName": "data-db-0", "readOnly": true}},
                    {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                ],
            },
            "status": {"phase": "Running"},
        }))
        .expect("a pod")
    }

    /// Reads annotations that are given without what they begin with: `pre` and `post` are ours, `velero-pre` and
    /// `velero-post` Velero's.
    fn read(pairs: &[(&str, &str)]) -> Option<Result<Hooks, String>> {
        let annotations = pairs.iter().map(|(key, value)| {
            let (prefix, name) = key.split_once('/').expect("a key");
            let prefix = match prefix {
                "pre" => HOOK_ANNOTATIONS[0],
                "post" => HOOK_ANNOTATIONS[1],
                "velero-pre" => HOOK_ANNOTATIONS[2],
                _ => HOOK_ANNOTATIONS[3],
            };
            (format!("{prefix}/{name}"), Value::from(*value))
        });
        let pod = pod(&Value::Object(annotations.collect()));
        of_pod("app", pod).map(|pod| pod.hooks.map_err(|error| error.to_string()))
    }

    fn hook(container: &str, command: &[&str], timeout: u64, on_error: OnError) -> Option<Hook> {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let timeout = Duration::from_secs(timeout);
        Some(Hook { container: container.into(), command, timeout, on_error, ready_line: None })
    }

    #[test]
    fn hooks_are_read_in_our_words_and_in_veleros_and_ours_win() {
        use OnError::{Continue, Fail};
        let ours = hook("db", &["/freeze"], 30, Fail);
        let container = ("pre/container", "db");
        for (pairs, pre, post) in [
            (vec![("pre/command", "/freeze"), container], ours.clone(), None),
            (vec![("pre/command", " /freeze "), container], ours.clone(), None),
            (vec![("pre/command", "[\"/freeze\"]"), container], ours.clone(), None),
            (
                vec![("pre/command", "[\"sh\", \"-c\", \"a  b\"]"), container, ("pre/timeout", "1m30s")],
                hook("db", &["sh", "-c", "a  b"], 90, Fail),
                None,
            ),
            (
                vec![("post/command", "/thaw"), ("post/container", "proxy"), ("post/on-error", "continue")],
                None,
                hook("proxy", &["/thaw"], 30, Continue),
            ),
            // Velero's words: the first container, and values that begin with a capital.
            (
                vec![
                    ("velero-pre/command", "/freeze"),
                    ("velero-pre/on-error", "Continue"),
                    ("velero-post/command", "[\"/thaw\"]"),
                    ("velero-post/container", "web"),
                    ("velero-post/timeout", "5"),
                    ("velero-post/on-error", "Fail"),
                ],
                hook("db", &["/freeze"], 30, Continue),
                hook("web", &["/thaw"], 5, Fail),
            ),
            (
                vec![("pre/command", "/session"), container, ("pre/ready-line", " frozen ")],
                hook("db", &["/session"], 30, Fail)
                    .map(|hook| Hook { ready_line: Some("frozen".to_owned()), ..hook }),
                None,
            ),
            // Velero knows no such thing.
            (
                vec![("velero-pre/command", "/freeze"), ("velero-pre/ready-line", "frozen")],
                ours.clone(),
                None,
            ),
            // Ours win, and not by halves.
            (
                vec![
                    ("pre/command", "/freeze"),
                    container,
                    ("velero-pre/command", "/other"),
                    ("velero-post/command", "/thaw"),
                ],
                ours,
                None,
            ),
        ] {
            assert_eq!(read(&pairs), Some(Ok(Hooks { pre, post })), "{pairs:?}");
        }
        for none in [&[][..], &[("velero-pre/container", "db")], &[("velero-pre/comand", "/freeze")]] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_said_and_never_passed_over() {
        let command = ("pre/command", "/freeze");
        let named = ("pre/container", "db");
        for (pairs, said) in [
            (
                vec![("pre/comand", "/freeze")],
                "pre.hook.volume-snapshotter/comand of pod db-0 is invalid: there are only",
            ),
            (
                vec![("post/timeout", "3s")],
                "post.hook.volume-snapshotter/timeout of pod db-0 is invalid: without",
            ),
            (vec![command], "it is missing, and the pod has db, web: name one"),
            (vec![command, ("pre/container", "init")], "no container init runs in the pod; it has db, web"),
            (vec![command, ("pre/container", "a\nb")], "no container \"a\\nb\" runs"),
            (vec![("pre/command", "sync -f /data"), named], "no shell reads it"),
            (vec![("velero-pre/command", "sync -f /data")], "[\"sh\",\"-c\",\"sync -f /data\"]"),
            (vec![("pre/command", "[\"sync\""), named], "begins like a JSON array"),
            (vec![("pre/command", "[\"sync\", 1]"), named], "begins like a JSON array"),
            (vec![("pre/command", "[]"), named], "it names no program"),
            (vec![("pre/command", ""), named], "it names no program"),
            (vec![command, named, ("pre/timeout", "soon")], "\"soon\" is not a duration of 100ms to 4m"),
            (vec![command, named, ("pre/timeout", "0s")], "is not a duration"),
            (vec![command, named, ("pre/timeout", "5m")], "is not a duration"),
            (vec![command, named, ("pre/timeout", "-1s")], "is not a duration"),
            (vec![command, named, ("pre/ready-line", "")], "ready-line of pod db-0 is invalid: \"\" is not"),
            (vec![command, named, ("pre/ready-line", "a\nb")], "is not a line of 1 to 100 bytes"),
            (
                vec![("post/command", "/thaw"), ("post/container", "db"), ("post/ready-line", "x")],
                "there are only container, command, timeout, on-error",
            ),
            (vec![command, named, ("pre/on-error", "ignore")], "\"ignore\" is neither fail nor continue"),
        ] {
            let problem = read(&pairs).expect("hooks").expect_err("a problem");
            assert!(problem.contains(said), "{pairs:?}: {problem}");
            assert!(problem.starts_with("the annotation "), "{problem}");
        }
    }

    #[test]
    fn only_pods_that_run_and_mount_a_claim_count() {
        let annotations = json!({"velero": 1, "pre.hook.backup.velero.io/command": "/freeze"});
        let mut running = pod(&json!({"pre.hook.backup.velero.io/command": "/freeze", "other": "x"}));
        assert!(serde_json::from_value::<Pod>(json!({"metadata": {"annotations": annotations}})).is_ok());
        let found = of_pod("app", running.clone()).expect("a pod");
        assert_eq!(found.claims, ["data-db-0", "db-0-scratch"]);
        for phase in ["Pending", "Succeeded", "Failed", "Unknown", ""] {
            running.status.phase = phase.to_owned();
            assert_eq!(of_pod("app", running.clone()), None, "{phase}");
        }
        running.status.phase = "Running".to_owned();
        // What no API server would have stored is not repeated, and nothing is run in it.
        let odd = Pod {
            metadata: PodMetadata { name: "../a\u{1b}[2J".into(), ..running.metadata.clone() },
            ..running.clone()
        };
        let odd = of_pod("app", odd).expect("a pod");
        assert_eq!(odd.name, "\"../a\\u{1b}[2J\"");
        assert!(odd.hooks.expect_err("a problem").to_string().contains("that is not the name of a pod"));
        running.spec.volumes.truncate(1);
        assert_eq!(of_pod("app", running), None);
    }
}
