//! Prints the commands to run after a restore, ready to paste. Pure.

use crate::{names, settings::RestoreSettings, snapshot::ClaimId};

/// The result of a restore, as far as the next steps depend on it.
pub(super) struct Done<'a> {
    pub(super) claim: &'a ClaimId,
    /// The claim that the snapshot was taken of.
    pub(super) old: Option<&'a str>,
    pub(super) snapshot: &'a str,
    /// Whether the snapshot is already held.
    pub(super) held: bool,
    /// Whether the volume is created only once a pod uses the claim.
    pub(super) at_first_consumer: bool,
}

/// Returns the steps, one per line. They stop at the first failure: an application scaled up on its old claim
/// would write to it.
pub(super) fn steps(done: &Done<'_>, settings: &RestoreSettings) -> String {
    let Done { claim: ClaimId { namespace, name }, snapshot, .. } = done;
    let kubectl = kubectl(settings);
    let old = done.old.filter(|old| names::is_object_name(old));
    let mut commands = Vec::new();
    let must_hold = done.at_first_consumer && !done.held;
    if must_hold {
        commands.push(format!(
            "{kubectl} label volumesnapshot {snapshot} -n {namespace} {}=true",
            names::HOLD_LABEL
        ));
    }
    let introduction = match old {
        Some(old) if old == name => {
            if !done.at_first_consumer {
                return format!(
                    "next: what uses claim {name} finds it by its name; if it is scaled down, scale it up again:\n\
                     {kubectl} scale deployment NAME -n {namespace} --replicas=1"
                );
            }
            format!(
                "next: scale up what uses claim {name}; it finds it by its name. These keep the snapshot meanwhile:"
            )
        }
        Some(old) => {
            commands.extend([
                "app=NAME-OF-THE-DEPLOYMENT".to_owned(),
                format!("replicas=$({kubectl} get deployment \"$app\" -n {namespace} -o jsonpath='{{.spec.replicas}}')"),
                format!(
                    "volume=$({kubectl} get deployment \"$app\" -n {namespace} -o jsonpath='{{.spec.template.spec.volumes\
                     [?(@.persistentVolumeClaim.claimName==\"{old}\")].name}}')"
                ),
                format!("{{ test -n \"$volume\" || {{ echo \"$app does not use claim {old}\" >&2; false; }}; }}"),
                format!("{kubectl} scale deployment \"$app\" -n {namespace} --replicas=0"),
                format!(
                    "{kubectl} patch deployment \"$app\" -n {namespace} --patch '{{\"spec\":{{\"template\":{{\"spec\":\
                     {{\"volumes\":[{{\"name\":\"'\"$volume\"'\",\"persistentVolumeClaim\":{{\"claimName\":\"{name}\"\
                     }}}}]}}}}}}}}'"
                ),
                format!("{kubectl} scale deployment \"$app\" -n {namespace} --replicas=\"$replicas\""),
                format!("{kubectl} rollout status deployment \"$app\" -n {namespace} --timeout=10m"),
            ]);
            format!(
                "next: let the Deployment that uses claim {old} use {name}. Put its name into the line with app= and \
                 paste these; they stop at the first that fails. (A StatefulSet finds its claims by their names: once \
                 nobody needs claim {old} any more, delete it and restore again with --to {old}.)"
            )
        }
        None if done.at_first_consumer => {
            format!("next: let a pod use claim {name}. These keep the snapshot until its volume is made:")
        }
        None => {
            return format!("next: let a pod use claim {name}: persistentVolumeClaim: {{claimName: {name}}}");
        }
    };
    if done.at_first_consumer {
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
        if must_hold {
            commands.push(format!(
                "{kubectl} label volumesnapshot {snapshot} -n {namespace} {}-",
                names::HOLD_LABEL
            ));
        }
    }
    format!("{introduction}\n{}", commands.join(" &&\n"))
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
        let claim = ClaimId { namespace: "shop".into(), name: to.into() };
        let done = Done { claim: &claim, old, snapshot: "snap", held: false, at_first_consumer };
        steps(&done, &settings(context))
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
