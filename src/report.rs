//! The result of a run or a restore: per claim, in total, as an exit code, and as the termination message that Kubernetes
//! keeps. Pure: [`crate::process`] writes the message to its file.

use std::{rc::Rc, time::Duration};

use k8s_openapi::jiff::Timestamp;

use crate::{shard::Shard, snapshot::ClaimId, text};

/// Kubernetes truncates termination messages to this many bytes.
const MAX_MESSAGE: usize = 4096;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// One entry for each target.
    pub claims: Vec<ClaimReport>,
    /// A failure of the run as a whole, before or besides its targets.
    pub trouble: Option<Failure>,
    /// Why the run ended early, if it did.
    pub stopped: Option<Stop>,
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// The part of the targets that this pod handles.
    pub shard: Shard,
    pub took: Duration,
}

/// The result of a run for one target.
#[derive(Clone, Debug)]
pub struct ClaimReport {
    /// What the claim is called in messages: with its namespace, if the run is about more than one.
    pub claim: String,
    pub id: Rc<ClaimId>,
    /// The claim's uid when it was found; `None` if it was not there, or may not be read.
    pub uid: Option<Rc<str>>,
    /// Name of the snapshot that this run created or took over.
    pub snapshot: Option<String>,
    /// Whether an earlier attempt of the same Job created the snapshot.
    pub taken_over: bool,
    /// Time from creation to ready.
    pub ready_after: Option<Duration>,
    /// Whether the snapshot is consistent, as far as hooks can tell. `None` if no pod with hooks mounts the claim, or
    /// as long as it is not known.
    pub consistency: Option<Consistency>,
    /// Number of older snapshots that were deleted.
    pub deleted: usize,
    /// Number of deletions in flight. If the run is stopped, whether they were carried out is unknown.
    pub deleting: usize,
    /// Number of older snapshots that were kept.
    pub kept: usize,
    /// What there is of the claim's snapshots at the end; `None` if that is not known.
    pub stock: Option<Stock>,
    /// The group that the claim is in; `None` if it is snapshotted alone.
    pub group: Option<Box<GroupReport>>,
    pub end: End,
}

/// The part of a claim in the report on its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// What the group is called in messages.
    pub group: String,
    /// Name of the VolumeSnapshot of the claim that is a member of the new group snapshot.
    pub member: Option<String>,
    /// The first claim of the group, whose report says the same; `None` if this is it.
    pub same_as: Option<String>,
}

/// Whether a snapshot was taken while the hooks held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It was seen to be taken after all pre hooks, and before a post hook began.
    Consistent,
    /// Why it is not, or may not be.
    Inconsistent(String),
}

/// What there is of a claim's snapshots that its schedule owns, those of a previous claim left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// The time of the newest of those that are ready.
    pub newest_ready: Option<Timestamp>,
    /// Number of those that a claim can be made of.
    pub ready: u32,
    pub held: u32,
    /// Number of those that are being deleted, which are none of the others.
    pub terminating: u32,
}

/// How a run ended for one target.
#[derive(Clone, Debug)]
pub enum End {
    /// The run ended in this step.
    Unfinished(Step),
    /// There is a new ready snapshot, and everything superseded was deleted.
    Done,
    /// There is no new ready snapshot.
    Failed(Failure),
    /// There is a new ready snapshot, but superseded ones could not be deleted.
    NotPruned(String),
    /// There was nothing to snapshot, which is not a failure. Holds the reason.
    PassedOver(String),
    /// Its newest snapshot is recent enough, which is a success. Says since and until when.
    NotDue(String),
}

/// A step of a run for one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Waiting,
    /// The pre hooks of the pods that mount the claim are being run.
    Freezing,
    /// The snapshot is being created.
    Creating,
    /// The snapshot exists and is not ready yet.
    AwaitingReady,
    /// The snapshot is ready, and older ones are being deleted.
    Pruning,
}

/// Why there is no new ready snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Complete message for an operator.
    pub message: String,
    /// Whether another attempt may succeed without intervention. Decides between exit codes 1 and 2.
    pub is_transient: bool,
    /// What kind of failure it is, for statistics.
    pub reason: Reason,
}

/// What kinds of failure there are, coarse enough to be counted. Names what was in the way and not where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The snapshot was not ready in time.
    NotReady,
    /// A ResourceQuota is used up.
    Quota,
    /// The Role does not allow something.
    Forbidden,
    /// An admission policy or webhook, or the namespace's end, or the API server finds the request invalid.
    Refused,
    /// There are no credentials that the API server accepts.
    Credentials,
    /// The cluster does not serve the API.
    NotServed,
    /// The API server does not answer, or not with what can be used.
    Unavailable,
    /// There is no such claim or namespace, or none matches.
    Missing,
    /// The claim has no volume.
    NotBound,
    /// Somebody changed or deleted the snapshot or the claim meanwhile.
    Disturbed,
    /// A hook failed.
    Hook,
    /// Older snapshots could not be deleted.
    NotPruned,
    /// A drill found that a volume made from a snapshot cannot be read, or that there is nothing in it.
    Damaged,
    /// The newest snapshot is older than a drill accepts.
    TooOld,
    /// The run reached its time limit.
    TimeLimit,
    /// A signal stopped the run.
    Signal,
    Other,
}

impl Reason {
    /// Those that a run can have.
    pub const ALL: [Reason; 15] = [
        Reason::NotReady,
        Reason::Quota,
        Reason::Forbidden,
        Reason::Refused,
        Reason::Credentials,
        Reason::NotServed,
        Reason::Unavailable,
        Reason::Missing,
        Reason::NotBound,
        Reason::Disturbed,
        Reason::Hook,
        Reason::NotPruned,
        Reason::TimeLimit,
        Reason::Signal,
        Reason::Other,
    ];

    /// As it is in a label.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NotReady => "not_ready",
            Reason::Quota => "quota",
            Reason::Forbidden => "forbidden",
            Reason::Refused => "refused",
            Reason::Credentials => "credentials",
            Reason::NotServed => "not_served",
            Reason::Unavailable => "unavailable",
            Reason::Missing => "missing",
            Reason::NotBound => "not_bound",
            Reason::Disturbed => "disturbed",
            Reason::Hook => "hook",
            Reason::NotPruned => "not_pruned",
            Reason::Damaged => "damaged",
            Reason::TooOld => "too_old",
            Reason::TimeLimit => "time_limit",
            Reason::Signal => "signal",
            Reason::Other => "other",
        }
    }
}

impl Failure {
    /// Appends what the reader can do about the failure.
    pub fn advising(mut self, advice: &str) -> Self {
        self.message.push_str("; ");
        self.message.push_str(advice);
        self
    }
}

/// Why a run ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Number of the signal.
    Signal(u8),
    OutOfTime,
}

/// Every target is done. The CronJob's `podFailurePolicy` depends on the exit codes.
pub const EXIT_DONE: u8 = 0;
/// A target has no new ready snapshot, and another attempt may help.
pub const EXIT_TRANSIENT: u8 = 1;
/// A target has no new ready snapshot, and another attempt cannot help.
pub const EXIT_PERMANENT: u8 = 2;
/// All snapshots are ready, but superseded ones could not be deleted.
pub const EXIT_NOT_PRUNED: u8 = 3;

impl ClaimReport {
    /// Returns the report of a target that was not started.
    pub fn new(claim: String, id: Rc<ClaimId>, uid: Option<Rc<str>>) -> Self {
        ClaimReport {
            claim,
            id,
            uid,
            snapshot: None,
            taken_over: false,
            ready_after: None,
            consistency: None,
            deleted: 0,
            deleting: 0,
            kept: 0,
            stock: None,
            group: None,
            end: End::Unfinished(Step::Waiting),
        }
    }

    pub fn is_passed_over(&self) -> bool {
        matches!(self.end, End::PassedOver(_))
    }

    pub fn is_not_due(&self) -> bool {
        matches!(self.end, End::NotDue(_))
    }

    /// Whether the target has a new ready snapshot.
    pub fn is_ready(&self) -> bool {
        match self.end {
            End::Done | End::NotPruned(_) | End::Unfinished(Step::Pruning) => true,
            End::Unfinished(_) | End::Failed(_) | End::PassedOver(_) | End::NotDue(_) => false,
        }
    }

    /// Why the claim has no new ready snapshot, or older ones are still there that had to go.
    pub fn reason(&self, stopped: Option<Stop>) -> Option<Reason> {
        match (&self.end, stopped) {
            (End::Done | End::PassedOver(_) | End::NotDue(_), _) => None,
            (End::Failed(failure), _) => Some(failure.reason),
            (End::NotPruned(_), _) => Some(Reason::NotPruned),
            (End::Unfinished(_), Some(Stop::Signal(_))) => Some(Reason::Signal),
            (End::Unfinished(_), Some(Stop::OutOfTime)) => Some(Reason::TimeLimit),
            // The run as a whole came to nothing before, for a reason of its own.
            (End::Unfinished(_), None) => Some(Reason::Other),
        }
    }

    /// The first claim of the group, and the group, if what is wrong was said of that claim already.
    fn same_failure_as(&self) -> Option<(&str, &str)> {
        let GroupReport { group, same_as, .. } = self.group.as_deref()?;
        let is_failure = matches!(self.end, End::Failed(_) | End::NotPruned(_));
        same_as.as_deref().filter(|_| is_failure).map(|first| (first, group.as_str()))
    }

    /// Returns the result in one line, without the claim's name.
    pub fn line(&self, dry_run: bool) -> String {
        let named = self.snapshot.as_deref().unwrap_or("its snapshot");
        let snapshot = match self.group.as_deref() {
            None => named.to_owned(),
            Some(GroupReport { group, member: None, .. }) => format!("{named} of group {group}"),
            Some(GroupReport { group, member: Some(member), .. }) => {
                format!("{member}, member of {named} of group {group},")
            }
        };
        match &self.end {
            End::Unfinished(Step::Waiting) => "not started".to_owned(),
            End::Unfinished(Step::Freezing) => "stopped while the pre hooks were being run".to_owned(),
            End::Unfinished(Step::Creating) => "stopped while its snapshot was being created".to_owned(),
            End::Unfinished(Step::AwaitingReady) => {
                format!("stopped before {snapshot} was ready; the Job's next attempt continues with it")
            }
            End::Unfinished(Step::Pruning) => {
                let perhaps = match self.deleting {
                    0 => String::new(),
                    deleting => format!(", {deleting} more may have been deleted"),
                };
                format!(
                    "{snapshot} is ready; stopped while older snapshots were being deleted: {} deleted{perhaps}",
                    self.deleted
                )
            }
            End::PassedOver(why) => format!("skipped: {why}"),
            End::NotDue(why) => why.clone(),
            End::Done if dry_run => format!(
                "would create a snapshot, delete {} and keep {}",
                text::count(self.deleted, "older one"),
                self.kept
            ),
            End::Done => format!(
                "{snapshot} ready {}{}, {} deleted, {} kept",
                match self.taken_over {
                    true => "(created by an earlier attempt)".to_owned(),
                    false => format!("after {}", text::duration(self.ready_after.unwrap_or_default())),
                },
                match &self.consistency {
                    None => String::new(),
                    Some(Consistency::Consistent) => ", consistent".to_owned(),
                    Some(Consistency::Inconsistent(why)) => format!(", not consistent ({why})"),
                },
                text::count(self.deleted, "older snapshot"),
                self.kept
            ),
            End::Failed(failure) => failure.message.clone(),
            End::NotPruned(problem) if dry_run => problem.clone(),
            End::NotPruned(problem) => {
                let consistent = match &self.consistency {
                    None => String::new(),
                    Some(Consistency::Consistent) => " and consistent".to_owned(),
                    Some(Consistency::Inconsistent(why)) => format!(" and not consistent ({why})"),
                };
                format!("{snapshot} is ready{consistent}, but {problem}")
            }
        }
    }
}

impl Report {
    /// Returns the report of a run that failed before it had targets.
    pub fn of_trouble(trouble: Failure) -> Self {
        Report { trouble: Some(trouble), ..Report::default() }
    }

    /// Returns the report of a run that was stopped before it had targets.
    pub fn of_stop(stop: Stop) -> Self {
        Report { stopped: Some(stop), ..Report::default() }
    }

    /// Number of targets with a new ready snapshot.
    pub fn ready(&self) -> usize {
        self.claims.iter().filter(|claim| claim.is_ready()).count()
    }

    /// Number of snapshots that were deleted; 0 in a dry run.
    pub fn deleted(&self) -> usize {
        if self.dry_run { 0 } else { self.claims.iter().map(|claim| claim.deleted).sum() }
    }

    /// Returns the exit code: 128 plus the signal's number if a signal ended the run; else 1 if any failure
    /// is transient or the run ended early, 2 if all failures are permanent, 3 if superseded snapshots could
    /// not be deleted, and 0 if everything is done.
    pub fn exit_code(&self) -> u8 {
        if let Some(Stop::Signal(number)) = self.stopped {
            return 128 + number;
        }
        let ends = || self.claims.iter().map(|claim| &claim.end);
        let failures = || {
            let of_claims = ends().filter_map(|end| match end {
                End::Failed(failure) => Some(failure),
                _ => None,
            });
            of_claims.chain(&self.trouble)
        };
        if self.stopped.is_some() || failures().any(|failure| failure.is_transient) {
            EXIT_TRANSIENT
        } else if failures().next().is_some() {
            EXIT_PERMANENT
        } else if ends().any(|end| matches!(end, End::Unfinished(_))) {
            EXIT_TRANSIENT
        } else if ends().any(|end| matches!(end, End::NotPruned(_))) {
            EXIT_NOT_PRUNED
        } else {
            EXIT_DONE
        }
    }

    /// Whether all targets belong to other pods.
    fn has_nothing_to_do(&self) -> bool {
        !self.shard.is_whole() && self.claims.is_empty() && self.trouble.is_none() && self.stopped.is_none()
    }

    /// Returns the result of the whole run in one line.
    pub fn summary(&self) -> String {
        let passed_over = self.claims.iter().filter(|claim| claim.is_passed_over()).count();
        let not_due = self.claims.iter().filter(|claim| claim.is_not_due()).count();
        let number = self.claims.len() - passed_over - not_due;
        let claims = text::count(number, "claim");
        let mut said = match (self.dry_run, number == 0) {
            (_, true) if self.has_nothing_to_do() => {
                format!("no snapshot was created: none of the targets is in {}", self.shard)
            }
            (_, true) if not_due > 0 => "no snapshot was due".to_owned(),
            (_, true) => "no snapshot was created".to_owned(),
            (true, _) => {
                format!("dry run: nothing was changed; {} of {claims} could be snapshotted", self.ready())
            }
            (false, _) => {
                let have = if number == 1 || self.ready() == 1 { "has" } else { "have" };
                format!("{} of {claims} {have} a new ready snapshot", self.ready())
            }
        };
        if !self.shard.is_whole() && !self.claims.is_empty() {
            said.push_str(&format!(", in {}", self.shard));
        }
        match not_due {
            0 => {}
            1 => said.push_str("; 1 claim is not due"),
            many => said.push_str(&format!("; {many} claims are not due")),
        }
        let is_inconsistent = |claim: &&ClaimReport| {
            matches!(claim.consistency, Some(Consistency::Inconsistent(_))) && claim.is_ready()
        };
        match self.claims.iter().filter(is_inconsistent).count() {
            0 => {}
            1 => said.push_str("; 1 of them is not consistent"),
            many => said.push_str(&format!("; {many} of them are not consistent")),
        }
        match passed_over {
            0 => {}
            1 => said.push_str("; 1 claim was skipped"),
            many => said.push_str(&format!("; {many} claims were skipped")),
        }
        match self.stopped {
            Some(Stop::Signal(_)) => said.push_str("; a signal stopped the run"),
            Some(Stop::OutOfTime) => said.push_str("; the run reached its time limit"),
            None => {}
        }
        if let Some(trouble) = &self.trouble {
            said.push_str("; ");
            said.push_str(&trouble.message);
        }
        said
    }

    /// Returns the termination message: the summary, then a line per target, failures first. Lines that do
    /// not fit into 4096 bytes are replaced by their number.
    pub fn termination_message(&self) -> String {
        const ROOM_FOR_REST: usize = 40;
        let mut message = self.summary();
        truncate(&mut message, MAX_MESSAGE / 2);
        message.push('\n');
        let (well, badly): (Vec<_>, Vec<_>) = self
            .claims
            .iter()
            .partition(|claim| matches!(claim.end, End::Done | End::PassedOver(_) | End::NotDue(_)));
        let mut left = self.claims.len();
        for claim in badly.into_iter().chain(well) {
            let line = match claim.same_failure_as() {
                Some((first, group)) => format!("{}: as claim {first} of group {group}\n", claim.claim),
                None => format!("{}: {}\n", claim.claim, claim.line(self.dry_run)),
            };
            if message.len() + line.len() + ROOM_FOR_REST > MAX_MESSAGE {
                message.push_str(&format!("and {}: see the log\n", text::count(left, "more claim")));
                break;
            }
            message.push_str(&line);
            left -= 1;
        }
        message
    }
}

/// What a restore came to.
#[derive(Debug)]
pub struct RestoreReport {
    /// What is there now, or why not.
    pub outcome: Result<Restored, Failure>,
    /// What ended it before its time.
    pub stopped: Option<Stop>,
}

/// A restore that went well.
#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    /// In a sentence.
    pub said: String,
    /// What goes to standard output: the claim, or in a dry run its YAML.
    pub data: String,
    /// What a person does next, ready to paste; empty after a dry run.
    pub next: String,
}

impl RestoreReport {
    /// What the process exits with: as [`Report::exit_code`] has it.
    pub fn exit_code(&self) -> u8 {
        match (&self.stopped, &self.outcome) {
            (Some(Stop::Signal(number)), _) => 128 + number,
            (Some(Stop::OutOfTime), _) => EXIT_TRANSIENT,
            (None, Ok(_)) => EXIT_DONE,
            (None, Err(Failure { is_transient: true, .. })) => EXIT_TRANSIENT,
            (None, Err(_)) => EXIT_PERMANENT,
        }
    }

    /// The whole restore in one line.
    pub fn message(&self) -> &str {
        match &self.outcome {
            Ok(restored) => &restored.said,
            Err(failure) => &failure.message,
        }
    }

    /// A restore that came to nothing.
    pub fn of_trouble(trouble: Failure) -> Self {
        RestoreReport { outcome: Err(trouble), stopped: None }
    }

    /// A restore that was ended before it was done.
    pub fn of_stop(stop: Stop, what: &str) -> Self {
        let why = match stop {
            Stop::Signal(_) => "told to stop",
            Stop::OutOfTime => "the restore's time was over",
        };
        let message = format!("{why}; if {what} was made it stays, and may still become Bound");
        let failure = Failure { message, is_transient: true, reason: Reason::Other };
        RestoreReport { outcome: Err(failure), stopped: Some(stop) }
    }
}

/// Truncates `text` to at most `most` bytes at a character boundary, with an ellipsis at the end.
pub fn truncate(text: &mut String, most: usize) {
    if text.len() > most {
        let mut end = most.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, end: End) -> ClaimReport {
        ClaimReport {
            snapshot: Some(format!("volume-snapshot-{name}")),
            ready_after: Some(Duration::from_millis(612)),
            deleted: 1,
            kept: 2,
            end,
            ..ClaimReport::new(
                name.to_owned(),
                Rc::new(ClaimId { namespace: "app".to_owned(), name: name.to_owned() }),
                None,
            )
        }
    }

    fn failure(is_transient: bool) -> Failure {
        Failure { message: "cannot: because".to_owned(), is_transient, reason: Reason::Other }
    }

    fn report(ends: Vec<End>) -> Report {
        let claims = ends.into_iter().enumerate().map(|(index, end)| claim(&format!("c{index}"), end));
        Report { claims: claims.collect(), ..Report::default() }
    }

    #[test]
    fn the_exit_code_says_whether_trying_again_can_help() {
        let not_pruned = || End::NotPruned("cannot delete".to_owned());
        let (passing, permanent) = (|| End::Failed(failure(true)), || End::Failed(failure(false)));
        for (ends, code) in [
            (vec![End::Done], 0),
            (vec![End::Done, not_pruned()], 3),
            (vec![End::Done, not_pruned(), permanent()], 2),
            (vec![permanent(), passing(), not_pruned()], 1),
            (vec![End::Done, End::Unfinished(Step::AwaitingReady)], 1),
        ] {
            let said = format!("{ends:?}");
            assert_eq!(report(ends).exit_code(), code, "{said}");
        }
        assert_eq!(Report::of_trouble(failure(true)).exit_code(), 1);
        assert_eq!(Report::of_trouble(failure(false)).exit_code(), 2);
        let unbegun =
            Report { trouble: Some(failure(false)), ..report(vec![End::Unfinished(Step::Waiting)]) };
        assert_eq!(unbegun.exit_code(), 2);
        assert_eq!(Report::of_stop(Stop::Signal(15)).exit_code(), 143);
        let stopped = Report { stopped: Some(Stop::OutOfTime), ..report(vec![End::Done, permanent()]) };
        assert_eq!(stopped.exit_code(), 1);
    }

    #[test]
    fn a_claim_that_is_not_due_is_a_success_and_is_said_to_be_so() {
        let not_due = || End::NotDue("not due before noon".to_owned());
        let some = report(vec![End::Done, not_due(), not_due()]);
        assert_eq!(some.summary(), "1 of 1 claim has a new ready snapshot; 2 claims are not due");
        assert_eq!((some.exit_code(), some.ready()), (0, 1));
        let none = report(vec![not_due()]);
        assert_eq!(none.exit_code(), 0);
        assert_eq!(
            none.termination_message(),
            "no snapshot was due; 1 claim is not due\nc0: not due before noon\n"
        );
        let failed = report(vec![End::Failed(failure(false)), not_due()]);
        assert_eq!(failed.summary(), "0 of 1 claim has a new ready snapshot; 1 claim is not due");
        assert_eq!(failed.exit_code(), 2);
    }

    #[test]
    fn a_pod_of_several_says_which_part_it_speaks_of() {
        let shard = Shard::new(3, 8).expect("a shard");
        let part = Report { shard, ..report(vec![End::Done, End::Done]) };
        assert_eq!(part.summary(), "2 of 2 claims have a new ready snapshot, in shard 3 (of 0 to 7)");
        let nothing = Report { shard, ..Report::default() };
        assert_eq!(nothing.exit_code(), 0, "other pods have claims");
        assert_eq!(
            nothing.termination_message(),
            "no snapshot was created: none of the targets is in shard 3 (of 0 to 7)\n"
        );
        let trouble = Report { shard, ..Report::of_trouble(failure(false)) };
        assert_eq!(trouble.summary(), "no snapshot was created; cannot: because");
    }

    #[test]
    fn the_termination_message_says_what_failed_first() {
        let report = report(vec![
            End::Done,
            End::Failed(failure(true)),
            End::Unfinished(Step::AwaitingReady),
            End::NotPruned("1 older snapshot that had to go could not be deleted: because".to_owned()),
        ]);
        assert_eq!(
            report.termination_message(),
            "2 of 4 claims have a new ready snapshot\n\
             c1: cannot: because\n\
             c2: stopped before volume-snapshot-c2 was ready; the Job's next attempt continues with it\n\
             c3: volume-snapshot-c3 is ready, but 1 older snapshot that had to go could not be deleted: because\n\
             c0: volume-snapshot-c0 ready after 0.61 s, 1 older snapshot deleted, 2 kept\n"
        );
    }

    #[test]
    fn whether_a_snapshot_is_consistent_is_said_where_it_is_known() {
        let not = || Some(Consistency::Inconsistent("it came late".to_owned()));
        let not_pruned = End::NotPruned("1 could not be deleted".to_owned());
        let claims = [
            ("a", End::Done, None),
            ("b", End::Done, Some(Consistency::Consistent)),
            ("c", End::Done, not()),
            ("d", not_pruned.clone(), Some(Consistency::Consistent)),
            ("e", not_pruned, not()),
            ("f", End::Failed(failure(true)), not()),
        ];
        let claims = claims.map(|(name, end, consistency)| ClaimReport { consistency, ..claim(name, end) });
        let report = Report { claims: claims.into(), ..Report::default() };
        assert_eq!(
            report.termination_message(),
            "5 of 6 claims have a new ready snapshot; 2 of them are not consistent\n\
             d: volume-snapshot-d is ready and consistent, but 1 could not be deleted\n\
             e: volume-snapshot-e is ready and not consistent (it came late), but 1 could not be deleted\n\
             f: cannot: because\n\
             a: volume-snapshot-a ready after 0.61 s, 1 older snapshot deleted, 2 kept\n\
             b: volume-snapshot-b ready after 0.61 s, consistent, 1 older snapshot deleted, 2 kept\n\
             c: volume-snapshot-c ready after 0.61 s, not consistent (it came late), 1 older snapshot deleted, 2 kept\n"
        );
    }

    #[test]
    fn the_termination_message_fits_whatever_it_has_to_say() {
        for length in [10, 100, 5000] {
            let failure = Failure { message: "ä".repeat(length), is_transient: true, reason: Reason::Other };
            let many = report(vec![End::Failed(failure.clone()); 2000]);
            for report in [many, Report::of_trouble(failure)] {
                let message = report.termination_message();
                assert!(message.len() <= 4096, "{}", message.len());
                assert!(report.claims.is_empty() || message.contains("2000 claims"), "{message}");
            }
        }
        let report = report(vec![End::Done; 100]);
        let message = report.termination_message();
        let lines = message.lines().filter(|line| line.contains(" ready after ")).count();
        assert!(message.ends_with(&format!("and {} more claims: see the log\n", 100 - lines)), "{message}");
    }
}
