//! What became of one Job of a drill: from its conditions, its pod and their Events to a verdict, or to what is waited
//! for. Pure.

use super::job::{CONTAINER, VOLUME};
use crate::{
    api::{ContainerState, ContainerTerminated, Job, JobPod, ObjectEvent},
    read::report::{Outcome, Reading},
    report::{Failure, Reason},
    text,
};

/// The most characters that are said of what others wrote.
const MOST_SAID: usize = 600;

/// What a drill says of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A volume was made from it, and all of it was read, or the user's command was content. What was found.
    Verified(String),
    /// Its data cannot be read, or the user's command was not content.
    Damaged(String),
    /// There is nothing in it.
    Empty(String),
    /// Something in it may not be read by the pod's user, so nobody knows.
    Denied(String),
    /// It was not read, for a reason that says nothing about its data.
    Failed(Failure),
}

/// How the volume is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    /// Whether a command of the user's stands in the place of this program's `read`.
    pub(super) is_users: bool,
    pub(super) allow_empty: bool,
}

/// What is known of one Job at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) job: &'a Job,
    pub(super) pod: Option<&'a JobPod>,
}

impl Seen<'_> {
    fn state(&self) -> Option<&ContainerState> {
        let statuses = &self.pod?.status.container_statuses;
        statuses.iter().find(|status| status.name == CONTAINER).map(|status| &status.state)
    }

    /// Whether the container has begun, so that the claim is Bound and the volume made.
    pub(super) fn has_begun(&self) -> bool {
        self.state().is_some_and(|state| match state {
            ContainerState { running: Some(_), .. } | ContainerState { terminated: Some(_), .. } => true,
            // Volumes are mounted before the image is pulled.
            ContainerState { waiting: Some(waiting), .. } => {
                !matches!(waiting.reason.as_str(), "" | "ContainerCreating" | "PodInitializing")
            }
            _ => false,
        })
    }

    /// Whether the Job may be deleted now. The claim goes with the pod, and a claim whose volume is being made must not
    /// go: its volume would be made all the same, and stay for ever. Before there is a pod there is no claim.
    pub(super) fn may_be_deleted(&self) -> bool {
        self.pod.is_none() || self.has_begun()
    }

    /// The verdict, once there is one.
    pub(super) fn verdict(&self, check: Check) -> Option<Verdict> {
        if let Some(state) = self.state() {
            if let Some(terminated) = &state.terminated {
                return Some(of_end(terminated, self.pod, check));
            }
            if let Some(failure) = self.cannot_start(state) {
                return Some(Verdict::Failed(failure));
            }
        }
        if let Some(pod) = self.pod.filter(|pod| pod.status.phase == "Failed") {
            return Some(Verdict::Failed(lost(pod)));
        }
        let condition = |kinds: &[&str]| {
            let conditions = &self.job.status.conditions;
            conditions
                .iter()
                .find(|condition| condition.is_true() && kinds.contains(&condition.kind.as_str()))
        };
        if let Some(failed) = condition(&["Failed", "FailureTarget"]) {
            let message = match failed.reason.as_str() {
                "DeadlineExceeded" => {
                    "the Job reached its deadline before the volume was read; see VERIFY_TIMEOUT".to_owned()
                }
                _ => format!("the pod that read the volume is gone: {}", said(&failed.message)),
            };
            let reason =
                if failed.reason == "DeadlineExceeded" { Reason::TimeLimit } else { Reason::Disturbed };
            return Some(failed_for(message, true, reason));
        }
        let complete = condition(&["Complete", "SuccessCriteriaMet"]);
        complete.filter(|_| self.pod.is_none()).map(|_| {
            let message =
                "the Job is complete, but its pod is gone, so what it found is not known".to_owned();
            failed_for(message, true, Reason::Disturbed)
        })
    }

    /// Why the container does not start, if that is not going to change.
    fn cannot_start(&self, state: &ContainerState) -> Option<Failure> {
        let waiting = state.waiting.as_ref()?;
        let (what, is_transient) = match waiting.reason.as_str() {
            "ImagePullBackOff" => ("its image cannot be pulled", true),
            "InvalidImageName" | "ErrImageNeverPull" => ("its image cannot be used", false),
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                ("its container cannot be started", false)
            }
            _ => return None,
        };
        Some(Failure {
            message: format!(
                "the pod did not read the volume: {what}: {}: {}",
                waiting.reason,
                said(&waiting.message)
            ),
            is_transient,
            reason: Reason::Refused,
        })
    }

    /// What is waited for, in words.
    pub(super) fn awaited(&self, news: &News) -> String {
        let complaint = |what: &str| match &news.complaint {
            Some(complaint) => format!("{what}: {complaint}"),
            None => what.to_owned(),
        };
        let Some(pod) = self.pod else { return complaint("there is no pod yet") };
        if self.state().is_some_and(|state| state.running.is_some()) {
            return "the volume is being read".to_owned();
        }
        let conditions = &pod.status.conditions;
        let unscheduled = conditions.iter().find(|one| one.kind == "PodScheduled" && one.status == "False");
        match unscheduled {
            Some(condition) => complaint(&format!("no node takes the pod: {}", said(&condition.message))),
            None => complaint("the volume is being made, or the pod is being started"),
        }
    }
}

/// What the Events of a Job, of its pod and of its claim tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The latest warning.
    pub(super) complaint: Option<String>,
    /// Why it is never going to be better, if that is known.
    pub(super) hopeless: Option<Failure>,
    /// Whether a volume was made for the claim. Without that the claim may be bound to a volume that was there before,
    /// was free, and has other data.
    pub(super) is_provisioned: bool,
}

impl News {
    /// Reads the Events of a Job or of its pod.
    pub(super) fn hear(&mut self, events: &[ObjectEvent]) {
        let time = |event: &&ObjectEvent| event.last_timestamp.or(event.event_time);
        // That there is no class is said without a warning.
        let last = events.iter().filter(|event| hopeless(event).is_some()).max_by_key(time);
        self.hopeless = last.and_then(hopeless).or(self.hopeless.take());
        let latest = events.iter().filter(|event| event.kind == "Warning").max_by_key(time);
        if let Some(event) = latest {
            self.complaint = Some(format!("{}: {}", text::foreign(&event.reason), said(&event.message)));
        }
    }

    /// Reads the Events of its claim.
    pub(super) fn hear_of_claim(&mut self, events: &[ObjectEvent]) {
        self.hear(events);
        self.is_provisioned |= events.iter().any(|event| event.reason == "ProvisioningSucceeded");
    }
}

/// What an Event says that no waiting will change.
fn hopeless(event: &ObjectEvent) -> Option<Failure> {
    let message = event.message.as_str();
    let failure = |what: &str, is_transient, reason| {
        Some(Failure { message: format!("{what}: {}", said(message)), is_transient, reason })
    };
    match event.reason.as_str() {
        "FailedCreate" | "FailedBinding" if message.contains("exceeded quota") => failure(
            "a ResourceQuota leaves no room for the drill's pod or volume; raise it, or lower VERIFY_PARALLEL",
            true,
            Reason::Quota,
        ),
        "FailedCreate" if message.contains("violates PodSecurity") => failure(
            "the namespace's PodSecurity level does not allow the pod; see VERIFY_POD_TEMPLATE",
            false,
            Reason::Refused,
        ),
        "FailedCreate" if message.contains("is forbidden") || message.contains("denied the request") => {
            failure("the cluster does not allow the drill's pod", false, Reason::Refused)
        }
        "FailedBinding" if message.contains("no storage class is set") => failure(
            "the snapshot does not say which StorageClass its claim has, and the cluster has no default; name one with \
             VERIFY_STORAGE_CLASS",
            false,
            Reason::Missing,
        ),
        "ProvisioningFailed" if message.contains("storageclass") && message.contains("not found") => failure(
            "the StorageClass of the snapshot's claim is gone; name another of the same driver with VERIFY_STORAGE_CLASS",
            false,
            Reason::Missing,
        ),
        _ => None,
    }
}

/// The name of the claim of a pod.
pub(super) fn claim_of(pod: &JobPod) -> String {
    format!("{}-{VOLUME}", pod.metadata.name)
}

fn failed_for(message: String, is_transient: bool, reason: Reason) -> Verdict {
    Verdict::Failed(Failure { message, is_transient, reason })
}

/// What others wrote, in a line of bounded length.
fn said(message: &str) -> String {
    let message = text::foreign(message);
    match message.char_indices().nth(MOST_SAID) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
        None => message,
    }
}

/// Why a pod failed as a whole.
fn lost(pod: &JobPod) -> Failure {
    let status = &pod.status;
    let disruption = status.conditions.iter().find(|one| one.kind == "DisruptionTarget" && one.is_true());
    let why = match (status.reason.as_str(), disruption) {
        ("", None) => "nothing says why".to_owned(),
        ("", Some(condition)) => {
            format!("{}: {}", text::foreign(&condition.reason), said(&condition.message))
        }
        (reason, _) => format!("{}: {}", text::foreign(reason), said(&status.message)),
    };
    let message = format!("the pod was ended before it had read the volume: {why}");
    Failure { message, is_transient: true, reason: Reason::Disturbed }
}

/// The verdict on a container that has ended.
fn of_end(end: &ContainerTerminated, pod: Option<&JobPod>, check: Check) -> Verdict {
    if end.reason == "OOMKilled" {
        let message = "the container that read the volume was killed for using more memory than its limit; raise \
                       resources.limits.memory in VERIFY_POD_TEMPLATE";
        return failed_for(message.to_owned(), false, Reason::Other);
    }
    // An eviction, or the end of a node, ends the container too, with a signal.
    if let Some(pod) = pod.filter(|pod| pod.status.phase == "Failed" && !pod.status.reason.is_empty()) {
        return Verdict::Failed(lost(pod));
    }
    let is_disrupted = pod.is_some_and(|pod| {
        pod.status
            .conditions
            .iter()
            .any(|condition| condition.kind == "DisruptionTarget" && condition.is_true())
    });
    if let (true, Some(pod), true) = (is_disrupted, pod, end.exit_code != 0) {
        return Verdict::Failed(lost(pod));
    }
    let cannot_start = matches!(end.reason.as_str(), "StartError" | "ContainerCannotRun");
    if cannot_start || (check.is_users && matches!(end.exit_code, 126 | 127)) {
        let message =
            format!("the command could not be started (exit {}): {}", end.exit_code, said(&end.message));
        return failed_for(message, false, Reason::Refused);
    }
    if check.is_users {
        let said = said(&end.message);
        return match end.exit_code {
            0 if said.is_empty() => Verdict::Verified("the command was content".to_owned()),
            0 => Verdict::Verified(format!("the command was content: {said}")),
            143 => failed_for("the command was told to stop".to_owned(), true, Reason::Disturbed),
            code => Verdict::Damaged(format!("the command ended with exit code {code}: {said}")),
        };
    }
    match Reading::from_message(&end.message) {
        Some(reading) => of_reading(&reading, end.exit_code, check),
        None => {
            let (code, said) = (end.exit_code, said(&end.message));
            let message = format!("the container ended with exit code {code}, and not with a result: {said}");
            failed_for(message, code == 143, Reason::Other)
        }
    }
}

/// The verdict on what this program's own `read` found.
fn of_reading(reading: &Reading, exit_code: i32, check: Check) -> Verdict {
    let summary = said(&reading.summary());
    match reading.outcome {
        Outcome::Unreadable => Verdict::Damaged(summary),
        Outcome::Denied => Verdict::Denied(summary),
        Outcome::Empty | Outcome::Whole if reading.empty || reading.outcome == Outcome::Empty => {
            match check.allow_empty {
                true => Verdict::Verified("there is not one byte in it, which is allowed".to_owned()),
                false => Verdict::Empty(format!("{summary}; if that is as it should be: VERIFY_ALLOW_EMPTY")),
            }
        }
        Outcome::Whole if exit_code == 0 => Verdict::Verified(reading.amount()),
        Outcome::Whole => {
            let message = format!("the container ended with exit code {exit_code}, though {summary}");
            failed_for(message, true, Reason::Other)
        }
        Outcome::Incomplete | Outcome::Empty => failed_for(summary, true, Reason::Disturbed),
    }
}

#[cfg(test)]
mod tests;
