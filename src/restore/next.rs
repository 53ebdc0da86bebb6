//! Prints the commands to run after a restore, ready to paste. Pure.

use crate::{names, settings::RestoreSettings};

/// The result of a restore, as far as the next steps depend on it.
pub(super) struct Done<'a> {
    pub(super) namespace: &'a str,
    /// The new claims; of a group there are several.
    pub(super) pairs: &'a [Pair<'a>],
    pub(super) deletable: Deletable<'a>,
    /// Whether that is already held.
    pub(super) held: bool,
}

/// A new claim, and the one that its snapshot was taken of.
pub(super) struct Pair<'a> {
    pub(super) old: Option<&'a str>,
    pub(super) new: &'a str,
    /// Whether its volume is created only once a pod uses it.
    pub(super) at_first_consumer: bool,
}

/// What a run may delete while a volume is still to be made from it: a snapshot, or the group of which it is a member.
#[derive(Clone, Copy)]
pub(super) struct Deletable<'a> {
    /// As kubectl takes it.
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
}

/// Returns the steps, one per line. They stop at the first failure: an application scaled up on its old claim
/// would write to it.
pub(super) fn steps(done: &Done<'_>, settings: &RestoreSettings) -> String {
    let Done { namespace, pairs, deletable: Deletable { kind, name: deletable }, held } = done;
    let kubectl = kubectl(settings);
    let waiting: Vec<&Pair> = pairs.iter().filter(|pair| pair.at_first_consumer).collect();
    let old = |pair: &Pair| pair.old.filter(|old| names::is_object_name(old)).map(str::to_owned);
    let renamed: Vec<(String, &str)> = pairs
        .iter()
        .filter_map(|pair| Some((old(pair)?, pair.new)))
        .filter(|(old, new)| old != new)
        .collect();
    let has_old_name = |pair: &&Pair| old(pair).is_some_and(|old| old == pair.new);
    let new = said(pairs.iter().map(|pair| pair.new));
    let is_one = pairs.len() == 1;
    let (claims, them) = match is_one {
        true => ("claim", "it by its name"),
        false => ("claims", "them by their names"),
    };
    let mut commands = Vec::new();
    let must_hold = !waiting.is_empty() && !held;
    let hold = format!("{kubectl} label {kind} {deletable} -n {namespace} {}", names::HOLD_LABEL);
    if must_hold {
        commands.push(format!("{hold}=true"));
    }
    let introduction = if pairs.iter().all(|pair| has_old_name(&pair)) {
        if waiting.is_empty() {
            return format!(
                "next: what uses {claims} {new} finds {them}; if it is scaled down, scale it up again:\n\
                 {kubectl} scale deployment NAME -n {namespace} --replicas=1"
            );
        }
        format!(
            "next: scale up what uses {claims} {new}; it finds {them}. These keep the snapshot meanwhile:"
        )
    } else if !renamed.is_empty() {
        commands.extend([
            "app=NAME-OF-THE-DEPLOYMENT".to_owned(),
            format!("replicas=$({kubectl} get deployment \"$app\" -n {namespace} -o jsonpath='{{.spec.replicas}}')"),
        ]);
        let volume = |old: &str| {
            format!(
                "volume=$({kubectl} get deployment \"$app\" -n {namespace} -o jsonpath='{{.spec.template.spec.volumes\
                 [?(@.persistentVolumeClaim.claimName==\"{old}\")].name}}')"
            )
        };
        let uses = |old: &str| {
            format!("{{ test -n \"$volume\" || {{ echo \"$app does not use claim {old}\" >&2; false; }}; }}")
        };
        let scale = |replicas: &str| {
            format!("{kubectl} scale deployment \"$app\" -n {namespace} --replicas={replicas}")
        };
        let patch = |new: &str| {
            format!(
                "{kubectl} patch deployment \"$app\" -n {namespace} --patch '{{\"spec\":{{\"template\":{{\"spec\":\
                 {{\"volumes\":[{{\"name\":\"'\"$volume\"'\",\"persistentVolumeClaim\":{{\"claimName\":\"{new}\"\
                 }}}}]}}}}}}}}'"
            )
        };
        // All is looked at before anything is changed.
        for (old, _) in &renamed {
            commands.extend([volume(old), uses(old)]);
        }
        commands.push(scale("0"));
        for (old, new) in &renamed {
            if !is_one {
                commands.push(volume(old));
            }
            commands.push(patch(new));
        }
        commands.extend([
            scale("\"$replicas\""),
            format!("{kubectl} rollout status deployment \"$app\" -n {namespace} --timeout=10m"),
        ]);
        let of_old = said(renamed.iter().map(|(old, _)| old.as_str()));
        match renamed.as_slice() {
            [(old, new)] if is_one => format!(
                "next: let the Deployment that uses claim {old} use {new}. Put its name into the line with app= and \
                 paste these; they stop at the first that fails. (A StatefulSet finds its claims by their names: once \
                 nobody needs claim {old} any more, delete it and restore again with --to {old}.)"
            ),
            _ => format!(
                "next: let the Deployment that uses claims {of_old} use {new}. Put its name into the line with app= and \
                 paste these; they stop at the first that fails. (If several Deployments use them, take out of these what \
                 is about claims of others. A StatefulSet finds its claims by their names: once nobody needs claims \
                 {of_old} any more, delete them and restore again with --to '{{claim}}'.)"
            ),
        }
    } else if !waiting.is_empty() {
        format!("next: let a pod use {claims} {new}. These keep the snapshot until its volume is made:")
    } else {
        let mounts: Vec<String> = pairs.iter().map(|pair| format!("{{claimName: {}}}", pair.new)).collect();
        return format!("next: let a pod use {claims} {new}: persistentVolumeClaim: {}", mounts.join(", "));
    };
    for Pair { new: name, .. } in &waiting {
        commands.extend([
            format!(
                "{kubectl} wait pvc/{name} -n {namespace} --for=jsonpath='{{.status.phase}}'=Bound --timeout=10m"
            ),
            format!(
                "{{ {kubectl} get pvc {name} -n {namespace} -o yaml | grep -q volume.kubernetes.io/storage-provisioner \
                 || {{ echo \"claim {name} is bound to a volume that was there before, and has not the snapshot's data\" \
                 >&2; false; }}; }}"
            ),
        ]);
    }
    if must_hold {
        commands.push(format!("{hold}-"));
    }
    format!("{introduction}\n{}", commands.join(" &&\n"))
}

/// `data`, `data and logs`, `data, logs and wal`.
pub(super) fn said<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// Returns `kubectl` with the flags that select the cluster of the restore.
fn kubectl(settings: &RestoreSettings) -> String {
    let mut kubectl = "kubectl".to_owned();
    if let Some(kubeconfig) = &settings.kubeconfig {
        kubectl.push_str(&format!(" --kubeconfig={}", quoted(&kubeconfig.to_string_lossy())));
    }
    if let Some(context) = &settings.context {
        kubectl.push_str(&format!(" --context={}", quoted(context)));
    }
    if let Some(user) = &settings.user {
        kubectl.push_str(&format!(" --as={}", quoted(user)));
    }
    kubectl
}

/// Quotes a word for a shell if necessary.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(context: Option<&str>) -> RestoreSettings {
        let pairs = [("RESTORE_TO", "data-restored"), ("RESTORE_CLAIM", "data")];
        let pairs = pairs.map(|(name, value)| (name.into(), value.into()));
        let mut settings = RestoreSettings::parse(pairs, Vec::new()).expect("settings");
        settings.context = context.map(str::to_owned);
        settings.kubeconfig = context.map(|_| "/k".into());
        settings
    }

    fn said(old: Option<&str>, to: &str, at_first_consumer: bool, context: Option<&str>) -> String {
        said_of(&[Pair { old, new: to, at_first_consumer }], context)
    }

    fn said_of(pairs: &[Pair], context: Option<&str>) -> String {
        let deletable = Deletable { kind: "volumesnapshot", name: "snap" };
        steps(&Done { namespace: "shop", pairs, deletable, held: false }, &settings(context))
    }

    #[test]
    fn of_a_group_all_claims_are_looked_at_before_any_is_changed() {
        let pair = |old, new| Pair { old: Some(old), new, at_first_consumer: false };
        let said = said_of(&[pair("data", "data-new"), pair("logs", "logs-new")], None);
        assert!(said.starts_with(
            "next: let the Deployment that uses claims data and logs use data-new and logs-new."
        ));
        let scaled = said.find("--replicas=0").expect("scaled down");
        for claim in ["data", "logs"] {
            assert!(said.find(&format!("does not use claim {claim}")).expect("looked at") < scaled, "{said}");
            let volume = said.rfind(&format!("claimName==\"{claim}\"")).expect("its volume");
            let patched = said.find(&format!("{{\"claimName\":\"{claim}-new\"}}")).expect("patched");
            assert!(scaled < volume && volume < patched, "{said}");
        }
        assert_eq!(said.matches("--replicas").count(), 2);
        let under_old_names = said_of(&[pair("data", "data"), pair("logs", "logs")], None);
        assert!(
            under_old_names.starts_with("next: what uses claims data and logs finds them by their names")
        );
    }

    #[test]
    fn a_deployment_is_given_the_new_claim_in_steps_that_stop_at_the_first_failure() {
        let said = said(Some("data"), "data-restored", false, Some("it's prod"));
        let mut lines = said.lines();
        assert!(
            lines
                .next()
                .is_some_and(|line| line.starts_with("next: let the Deployment that uses claim data"))
        );
        let commands: Vec<&str> = lines.collect();
        assert!(commands.iter().rev().skip(1).all(|line| line.ends_with(" &&")), "{said}");
        assert!(!commands[commands.len() - 1].contains("&&"));
        assert!(
            said.contains(r"kubectl --kubeconfig=/k --context='it'\''s prod' scale deployment"),
            "{said}"
        );
        assert!(said.contains(r#""persistentVolumeClaim":{"claimName":"data-restored"}}]}}}}'"#), "{said}");
        assert!(said.contains(r#"claimName=="data")].name}')"#), "{said}");
    }

    #[test]
    fn a_snapshot_that_is_waited_with_is_held_until_the_volume_is_there() {
        let said = said(Some("data"), "data-restored", true, None);
        let hold = said.find("volume-snapshotter/hold=true").expect("held");
        let bound = said.find("'{.status.phase}'=Bound").expect("waited for");
        let free = said.find("volume-snapshotter/hold-").expect("freed");
        assert!(hold < bound && bound < free, "{said}");
    }

    #[test]
    fn under_the_old_name_nothing_has_to_be_patched_and_a_hostile_name_is_not_repeated() {
        for at_first_consumer in [false, true] {
            assert!(!said(Some("data"), "data", at_first_consumer, None).contains("patch"));
            let hostile = said(Some("data'; rm -rf /"), "data-restored", at_first_consumer, None);
            assert!(!hostile.contains("rm -rf"), "{hostile}");
        }
    }
}
