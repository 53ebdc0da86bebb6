//! What kubectl knows: its commands from a table, for those who have no kubectl; their flags from its own help.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use super::output;

/// Commands without commands of their own.
const COMMANDS: [&str; 34] = [
    "annotate",
    "api-resources",
    "api-versions",
    "attach",
    "autoscale",
    "cordon",
    "cp",
    "debug",
    "delete",
    "describe",
    "diff",
    "drain",
    "edit",
    "events",
    "exec",
    "explain",
    "expose",
    "get",
    "kustomize",
    "label",
    "logs",
    "options",
    "patch",
    "port-forward",
    "proxy",
    "replace",
    "run",
    "scale",
    "taint",
    "uncordon",
    "version",
    "wait",
    // Of these the second word is what they are about, or a flag.
    "apply",
    "create",
];

/// Commands that want another.
const GROUPS: [(&str, &[&str]); 6] = [
    ("auth", &["can-i", "reconcile", "whoami"]),
    ("certificate", &["approve", "deny"]),
    ("config", &["current-context", "get-contexts", "set-context", "use-context", "view"]),
    ("rollout", &["history", "pause", "restart", "resume", "status", "undo"]),
    ("set", &["env", "image", "resources", "selector", "serviceaccount", "subject"]),
    ("top", &["node", "pod"]),
];

/// What `create` makes by name; without one it reads a file.
const CREATE: [&str; 17] = [
    "clusterrole",
    "clusterrolebinding",
    "configmap",
    "cronjob",
    "deployment",
    "ingress",
    "job",
    "namespace",
    "poddisruptionbudget",
    "priorityclass",
    "quota",
    "role",
    "rolebinding",
    "secret",
    "service",
    "serviceaccount",
    "token",
];

/// What `create secret` makes.
const SECRETS: [&str; 3] = ["docker-registry", "generic", "tls"];

/// Flags that every command takes, and that may stand before it with a value.
const BEFORE: [&str; 3] = ["--namespace", "-n", "--context"];

/// The commands of a line, such as `["set", "env"]`.
///
/// # Errors
/// If kubectl has no such command.
pub(super) fn command(arguments: &[String]) -> Result<Vec<&str>, String> {
    let mut words = arguments.iter().map(String::as_str);
    let first = loop {
        match words.next() {
            Some(flag) if BEFORE.contains(&flag) => drop(words.next()),
            Some(flag) if flag.starts_with('-') => {}
            Some(word) => break word,
            None => return Err("kubectl without a command".to_owned()),
        }
    };
    let second = words.next().filter(|word| !word.starts_with('-'));
    if let Some((_, commands)) = GROUPS.iter().find(|(group, _)| *group == first) {
        let second = second.unwrap_or_default();
        return match commands.contains(&second) {
            true => Ok(vec![first, second]),
            false => Err(format!("kubectl {first} has no command {second:?}")),
        };
    }
    match (first, second) {
        ("create", Some("secret")) => match words.next() {
            Some(third) if SECRETS.contains(&third) => Ok(vec![first, "secret", third]),
            third => Err(format!("kubectl create secret makes no {third:?}")),
        },
        ("create", Some(second)) if CREATE.contains(&second) => Ok(vec![first, second]),
        ("create", Some(second)) => Err(format!("kubectl create makes no {second:?}")),
        (first, _) if COMMANDS.contains(&first) => Ok(vec![first]),
        (first, _) => Err(format!("kubectl has no command {first:?}")),
    }
}

/// The flags of each command, as far as they were asked for.
#[derive(Default)]
pub(super) struct Flags {
    known: BTreeMap<Vec<String>, BTreeSet<String>>,
}

impl Flags {
    /// The flags of a command, with those of all commands; nothing where kubectl is not installed.
    pub(super) fn of(&mut self, command: &[&str]) -> Option<&BTreeSet<String>> {
        let key: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        if !self.known.contains_key(&key) {
            let mut help = String::new();
            for arguments in [&[command, &["--help"]].concat(), &vec!["options"]] {
                let said = output(Command::new("kubectl").args(arguments))?;
                help.push_str(&String::from_utf8_lossy(&said.stdout));
            }
            let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
            let flags = lines.filter_map(|line| line.split(':').next()).flat_map(|line| line.split(", "));
            let flags: BTreeSet<String> =
                flags.filter_map(|flag| flag.split('=').next()).map(str::to_owned).collect();
            assert!(flags.contains("--namespace"), "kubectl {command:?} --help is not understood:\n{help}");
            self.known.insert(key.clone(), flags);
        }
        self.known.get(&key)
    }
}

/// The flags of a line.
pub(super) fn flags(arguments: &[String]) -> impl Iterator<Item = &str> {
    let flags = arguments.iter().take_while(|word| *word != "--").filter(|word| word.len() > 1);
    flags.filter(|word| word.starts_with('-')).map(|word| match word.starts_with("--") {
        true => word.split('=').next().unwrap_or(word),
        // A short flag's value may follow at once.
        false => word.get(..2).unwrap_or(word),
    })
}

#[test]
fn commands_that_kubectl_does_not_have_are_found_without_kubectl() {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let known = [
        ("get pods", "get"),
        ("-n shop logs job/x", "logs"),
        ("set env --local -f -", "set env"),
        ("create -f -", "create"),
        ("create job x", "create job"),
        ("create secret generic x", "create secret generic"),
        ("auth can-i --list", "auth can-i"),
    ];
    for (line, expected) in known {
        assert_eq!(command(&words(line)).map(|found| found.join(" ")), Ok(expected.to_owned()), "{line}");
    }
    for line in [
        "set volume deployment/shop",
        "set",
        "volume",
        "create claim x",
        "create secret x",
        "-n shop",
        "rollout job",
    ] {
        assert!(command(&words(line)).is_err(), "{line}");
    }
}
