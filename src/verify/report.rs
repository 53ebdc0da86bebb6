//! What a drill came to: per claim, in total, as an exit code, and as the termination message. Pure.

use std::time::Duration;

use crate::{
    report::{EXIT_DONE, EXIT_NOT_PRUNED, EXIT_PERMANENT, EXIT_TRANSIENT, Failure, Reason, Stop, truncate},
    text,
};

/// Kubernetes truncates termination messages to this many bytes.
const MAX_MESSAGE: usize = 4096;

/// The result of a drill.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// One entry for each claim.
    pub claims: Vec<ClaimVerdict>,
    /// A failure of the drill as a whole.
    pub trouble: Option<Failure>,
    /// Why the drill ended early, if it did.
    pub stopped: Option<Stop>,
    pub dry_run: bool,
    pub took: Duration,
}

/// The result of a drill for one claim.
#[derive(Clone, Debug)]
pub struct ClaimVerdict {
    pub claim: String,
    pub namespace: String,
    /// The claim's uid as its snapshot has it; `None` if that is not known.
    pub claim_uid: Option<String>,
    /// The snapshot that was read, or is being read.
    pub snapshot: Option<String>,
    pub end: VerifyEnd,
    /// What could not be done after the verdict: noting it, or deleting the Job.
    pub remains: Option<String>,
}

/// How a drill ended for one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyEnd {
    /// The drill ended before there was a verdict. Whether its Job was made.
    Unfinished(bool),
    /// All of it was read. What was found.
    Verified(String),
    /// The newest snapshot was verified recently. Says when.
    Recent(String),
    /// In a dry run: what would be read.
    WouldVerify(String),
    /// It is not verified. Begins with a word for the kind of failure if it is about the data.
    Failed(Failure),
}

impl ClaimVerdict {
    /// Why the claim is not verified.
    pub fn reason(&self, stopped: Option<Stop>) -> Option<Reason> {
        match (&self.end, stopped) {
            (VerifyEnd::Verified(_) | VerifyEnd::Recent(_) | VerifyEnd::WouldVerify(_), _) => None,
            (VerifyEnd::Failed(failure), _) => Some(failure.reason),
            (VerifyEnd::Unfinished(_), Some(Stop::Signal(_))) => Some(Reason::Signal),
            (VerifyEnd::Unfinished(_), Some(Stop::OutOfTime)) => Some(Reason::TimeLimit),
            (VerifyEnd::Unfinished(_), None) => Some(Reason::Other),
        }
    }

    /// The result in one line, without the claim's name.
    pub fn line(&self) -> String {
        let snapshot = self.snapshot.as_deref().map_or("its snapshot".into(), text::name);
        let mut line = match &self.end {
            VerifyEnd::Unfinished(false) => "not begun".to_owned(),
            VerifyEnd::Unfinished(true) => format!("stopped before {snapshot} was read"),
            VerifyEnd::Verified(found) => format!("{snapshot} is verified: {found}"),
            VerifyEnd::Recent(why) => why.clone(),
            VerifyEnd::WouldVerify(what) => what.clone(),
            VerifyEnd::Failed(failure) => failure.message.clone(),
        };
        if let Some(remains) = &self.remains {
            line.push_str("; but ");
            line.push_str(remains);
        }
        line
    }

    fn is_failed(&self) -> bool {
        matches!(self.end, VerifyEnd::Failed(_) | VerifyEnd::Unfinished(_))
    }
}

impl VerifyReport {
    /// Returns the report of a drill that failed before it had claims.
    pub fn of_trouble(trouble: Failure) -> Self {
        VerifyReport { trouble: Some(trouble), ..VerifyReport::default() }
    }

    /// Returns the report of a drill that was stopped before it had claims.
    pub fn of_stop(stop: Stop) -> Self {
        VerifyReport { stopped: Some(stop), ..VerifyReport::default() }
    }

    /// Number of claims whose newest snapshot was verified by this drill.
    pub fn verified(&self) -> usize {
        self.claims.iter().filter(|claim| matches!(claim.end, VerifyEnd::Verified(_))).count()
    }

    /// Number of claims whose newest snapshot was verified recently.
    pub fn recent(&self) -> usize {
        self.claims.iter().filter(|claim| matches!(claim.end, VerifyEnd::Recent(_))).count()
    }

    /// Returns the exit code: 128 plus the signal's number if a signal ended the drill; else 1 if any failure is
    /// transient or the drill ended early, 2 if all failures are permanent, such as data that cannot be read, 3 if all
    /// is verified but not noted or cleaned up, and 0 if everything is done.
    pub fn exit_code(&self) -> u8 {
        if let Some(Stop::Signal(number)) = self.stopped {
            return 128 + number;
        }
        let failures = || {
            let of_claims = self.claims.iter().filter_map(|claim| match &claim.end {
                VerifyEnd::Failed(failure) => Some(failure),
                _ => None,
            });
            of_claims.chain(&self.trouble)
        };
        let is_unfinished = |claim: &ClaimVerdict| matches!(claim.end, VerifyEnd::Unfinished(_));
        if self.stopped.is_some()
            || failures().any(|failure| failure.is_transient)
            || (failures().next().is_none() && self.claims.iter().any(is_unfinished))
        {
            EXIT_TRANSIENT
        } else if failures().next().is_some() {
            EXIT_PERMANENT
        } else if self.claims.iter().any(|claim| claim.remains.is_some()) {
            EXIT_NOT_PRUNED
        } else {
            EXIT_DONE
        }
    }

    /// The result of the whole drill in one line.
    pub fn summary(&self) -> String {
        let recent = self.recent();
        let number = self.claims.len() - recent;
        let claims = text::count(number, "claim");
        let mut said = match (self.dry_run, number) {
            (_, 0) if recent > 0 => "nothing was to be verified".to_owned(),
            (_, 0) => "nothing was verified".to_owned(),
            (true, _) => {
                let would = |claim: &&ClaimVerdict| matches!(claim.end, VerifyEnd::WouldVerify(_));
                let number = self.claims.iter().filter(would).count();
                format!(
                    "dry run: nothing was changed; the newest snapshot of {number} of {claims} would be read"
                )
            }
            (false, _) => format!("the newest snapshot of {} of {claims} is verified", self.verified()),
        };
        match recent {
            0 => {}
            1 => said.push_str("; that of 1 claim was verified recently"),
            many => said.push_str(&format!("; those of {many} claims were verified recently")),
        }
        let ended = match self.stopped {
            Some(Stop::Signal(number)) => format!("; stopped by signal {number}"),
            Some(Stop::OutOfTime) => "; stopped at its time limit".to_owned(),
            None => String::new(),
        };
        said.push_str(&ended);
        if let Some(trouble) = &self.trouble {
            said.push_str("; ");
            said.push_str(&trouble.message);
        }
        said
    }

    /// The summary and a line for each claim, the failures first, within what Kubernetes keeps.
    pub fn termination_message(&self) -> String {
        let mut message = self.summary();
        // A message of trouble may be long itself.
        truncate(&mut message, MAX_MESSAGE - 1);
        message.push('\n');
        let (failed, other): (Vec<_>, Vec<_>) = self.claims.iter().partition(|claim| claim.is_failed());
        let all: Vec<_> = failed.into_iter().chain(other).collect();
        for (index, claim) in all.iter().enumerate() {
            let rest = format!("and {} more claims: see the log\n", all.len() - index);
            let line = format!("{}: {}\n", text::name(&claim.claim), claim.line());
            let room = match index + 1 == all.len() {
                true => MAX_MESSAGE,
                false => MAX_MESSAGE - rest.len(),
            };
            if message.len() + line.len() > room {
                if message.len() + rest.len() <= MAX_MESSAGE {
                    message.push_str(&rest);
                }
                break;
            }
            message.push_str(&line);
        }
        message
    }
}
