//! The settings of a restore: environment variables `RESTORE_*` (and `RUST_LOG`) and the flags that
//! stand in for them in, [`RestoreSettings`] or all that is wrong with them out.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgMatches, Args};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use tracing_subscriber::filter::Targets;

use super::{
    reader::{self, FILTER, Fallback, Flag, Problems, Reader, default_filter},
    values::{self, LogFormat, VolumeMode},
};
use crate::{quantity::Bytes, snapshot::Record};

/// What the variables' names begin with.
const PREFIX: &str = "RESTORE_";

/// How long a restore may take besides waiting for its claim, with all repetitions of its requests.
const ALLOWANCE: Duration = Duration::from_secs(300);

/// The longest that a restore may be told to wait for its claim.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// All that a user can choose.
#[derive(Clone, Debug)]
pub struct RestoreSettings {
    /// The claim whose data is wanted; unset where the snapshot says (`RESTORE_CLAIM`).
    pub claim: Option<String>,
    /// The group whose data is wanted instead, by the value that its claims have in common (`RESTORE_GROUP`).
    pub group: Option<String>,
    /// Which of its snapshots (`RESTORE_SNAPSHOT` or `RESTORE_AT`).
    pub choice: Choice,
    /// The name of the new claim; with a group a pattern, see [`RestoreSettings::name_of`] (`RESTORE_TO`).
    pub to: String,
    /// The namespace; unset for the pod's own, or the kubeconfig context's (`RESTORE_NAMESPACE`).
    pub namespace: Option<String>,
    /// The schedule whose snapshots alone are considered; unset for all (`RESTORE_JOB`).
    pub schedule: Option<String>,
    /// The labels that a snapshot has to have to be considered (`RESTORE_LABEL`).
    pub labels: BTreeMap<String, String>,
    /// Whether only snapshots are considered that a drill has verified (`RESTORE_VERIFIED`).
    pub verified: bool,
    /// The size; unset for the larger of claim and snapshot (`RESTORE_SIZE`).
    pub size: Option<Bytes>,
    /// The StorageClass; unset for the claim's (`RESTORE_STORAGE_CLASS`).
    pub storage_class: Option<String>,
    /// The access modes; unset for the claim's (`RESTORE_ACCESS_MODES`).
    pub access_modes: Option<Vec<String>>,
    /// The volume mode; unset for the claim's (`RESTORE_VOLUME_MODE`).
    pub volume_mode: Option<VolumeMode>,
    /// How long to wait until the new claim is Bound (`RESTORE_TIMEOUT`).
    pub timeout: Duration,
    /// Whether to change nothing (`RESTORE_DRY_RUN`).
    pub dry_run: bool,
    /// The name of the Job that this pod belongs to, for people; unset for a random one
    /// (`RESTORE_RUN_ID`).
    pub run_id: Option<String>,
    /// The uid of that Job: a claim that carries it is one that an earlier attempt made. Unset, nothing
    /// is taken over (`RESTORE_RUN_UID`).
    pub run_uid: Option<String>,
    /// The kubeconfig, where the command line names one, for commands to paste (`--kubeconfig`).
    pub kubeconfig: Option<PathBuf>,
    /// Its context, likewise (`--context`).
    pub context: Option<String>,
    /// The user to act as, likewise (`--as`).
    pub user: Option<String>,
    /// Where the termination message goes (`RESTORE_TERMINATION_LOG`).
    pub termination_log: PathBuf,
    /// How log lines look; unset for text (`RESTORE_LOG_FORMAT`).
    pub log_format: Option<LogFormat>,
    /// Which log lines are written (`RUST_LOG`).
    pub log_filter: Targets,
}

/// Which snapshot is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The latest that is ready.
    Latest,
    /// The latest ready one whose data was cut at this moment or before.
    At(Timestamp),
    /// The one of this name; with a group the VolumeGroupSnapshot.
    Named(String),
}

/// The variables as `envy` reads them, and the flags that stand in for them; see the settings of a run.
#[derive(Default, Deserialize, Args)]
#[serde(default)]
struct Variables {
    /// The claim whose data is wanted; it may be gone
    #[arg(long, value_name = "CLAIM")]
    claim: Option<String>,
    /// The group whose data is wanted, a new claim for each of its claims
    #[arg(long, value_name = "GROUP", conflicts_with = "claim")]
    group: Option<String>,
    /// This snapshot [default: the latest that is ready]; with --group a VolumeGroupSnapshot
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// The latest of that moment or before: 2026-11-20T08:55:00Z, or "2026-11-20 08:55" (UTC)
    #[arg(long, value_name = "TIME", conflicts_with = "snapshot")]
    at: Option<String>,
    /// The name of the new claim; with --group a pattern such as {claim}-restored
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Namespace [default: the pod's own, or the kubeconfig context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only snapshots of this schedule: value of the label 'job' [default: of any]
    #[serde(rename = "job")]
    #[arg(id = "job", long, value_name = "JOB")]
    schedule: Option<String>,
    /// Only snapshots with this label, or these: release=1.2.3,team=shop
    #[arg(long, value_name = "LABEL", conflicts_with = "snapshot")]
    label: Option<String>,
    /// Only snapshots that are verified: the latest that is proven
    #[arg(long, num_args = 0, default_missing_value = "true", conflicts_with = "snapshot")]
    verified: Option<String>,
    /// Size of the new claim: 10Gi [default: the larger of the claim's and the snapshot's]
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// StorageClass [default: the claim's]
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// Access modes: ReadWriteOnce, or RWO,ROX [default: the claim's]
    #[arg(long, value_name = "MODES")]
    access_modes: Option<String>,
    /// Filesystem or Block [default: the claim's]
    #[arg(long, value_name = "MODE")]
    volume_mode: Option<String>,
    /// How long to wait: 30s, 5m, 2h [default: 5m]
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Print the YAML of the claim that would be made, and make none
    #[arg(long, num_args = 0, default_missing_value = "true")]
    dry_run: Option<String>,
    #[arg(skip)]
    run_id: Option<String>,
    #[arg(skip)]
    run_uid: Option<String>,
    #[arg(skip)]
    termination_log: Option<String>,
    #[arg(skip)]
    log_format: Option<String>,
}

/// The names of all variables of a restore, in the order in which the documentation gives them.
pub const RESTORE_NAMES: [&str; 20] = [
    "RESTORE_CLAIM",
    "RESTORE_GROUP",
    "RESTORE_SNAPSHOT",
    "RESTORE_AT",
    "RESTORE_TO",
    "RESTORE_NAMESPACE",
    "RESTORE_JOB",
    "RESTORE_LABEL",
    "RESTORE_VERIFIED",
    "RESTORE_SIZE",
    "RESTORE_STORAGE_CLASS",
    "RESTORE_ACCESS_MODES",
    "RESTORE_VOLUME_MODE",
    "RESTORE_TIMEOUT",
    "RESTORE_DRY_RUN",
    "RESTORE_RUN_ID",
    "RESTORE_RUN_UID",
    "RESTORE_TERMINATION_LOG",
    "RESTORE_LOG_FORMAT",
    FILTER,
];

impl RestoreSettings {
    /// Adds the flags that stand in for variables to a command.
    pub fn add_flags(command: clap::Command) -> clap::Command {
        reader::add_flags::<Variables>(PREFIX, &RESTORE_NAMES, command)
    }

    /// Those of them that were given.
    pub fn flags(command: &clap::Command, matches: &ArgMatches) -> Vec<Flag> {
        reader::flags(PREFIX, &RESTORE_NAMES, command, matches)
    }

    /// Reads the settings from environment variables and the flags that win over them; other
    /// variables than `RESTORE_*` and `RUST_LOG` are passed over.
    ///
    /// # Errors
    /// Every problem that there is, at once, with what can be told all the same of how to report
    /// them.
    pub fn parse(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
    ) -> Result<Self, (Problems, Fallback)> {
        let mut reader = Reader::new(PREFIX, &RESTORE_NAMES);
        let excluding = [
            ["RESTORE_SNAPSHOT", "RESTORE_AT"],
            ["RESTORE_SNAPSHOT", "RESTORE_LABEL"],
            ["RESTORE_SNAPSHOT", "RESTORE_VERIFIED"],
            ["RESTORE_GROUP", "RESTORE_CLAIM"],
        ];
        let (variables, mut others) = reader.read::<Variables>(variables, flags, &excluding);
        let filter = others.take(FILTER);
        // Destructured, so that a variable that is added cannot be forgotten here.
        let Variables {
            claim,
            group,
            snapshot,
            at,
            to,
            namespace,
            schedule,
            label,
            verified,
            size,
            storage_class,
            access_modes,
            volume_mode,
            timeout,
            dry_run,
            run_id,
            run_uid,
            termination_log,
            log_format,
        } = variables;
        if to.is_none() {
            let problem = "no name for the new claim: give one with --to or RESTORE_TO, e.g. data-restored";
            reader.problem("RESTORE_TO", None, problem.to_owned());
        }
        if claim.is_none() && snapshot.is_none() && group.is_none() {
            let problem = "nothing to restore: name the claim with --claim or RESTORE_CLAIM, a group with --group or \
                           RESTORE_GROUP, or a snapshot with --snapshot or RESTORE_SNAPSHOT";
            reader.problem("RESTORE_CLAIM", None, problem.to_owned());
        }
        if claim.is_some() && group.is_some() {
            let problem = "a claim and a group are both given; give one of the two";
            reader.problem("RESTORE_GROUP", None, problem.to_owned());
        }
        if snapshot.is_some() && at.is_some() {
            let problem = "a snapshot and a moment are both given; give one of the two at most";
            reader.problem("RESTORE_AT", None, problem.to_owned());
        }
        if snapshot.is_some() && label.is_some() {
            let problem = "a snapshot and a label are both given; give one of the two at most";
            reader.problem("RESTORE_LABEL", None, problem.to_owned());
        }
        let verified = reader.optional("RESTORE_VERIFIED", verified, values::flag).unwrap_or(false);
        if snapshot.is_some() && verified {
            let problem =
                "a snapshot is given, and only verified ones are wanted; give one of the two at most";
            reader.problem("RESTORE_VERIFIED", None, problem.to_owned());
        }
        let snapshot = reader.optional("RESTORE_SNAPSHOT", snapshot, values::object_name);
        let at = reader.optional("RESTORE_AT", at, values::moment);
        let settings = RestoreSettings {
            claim: reader.optional("RESTORE_CLAIM", claim, values::object_name),
            choice: match (snapshot, at) {
                (Some(name), _) => Choice::Named(name),
                (None, Some(at)) => Choice::At(at),
                (None, None) => Choice::Latest,
            },
            to: match group {
                Some(_) => reader.optional("RESTORE_TO", to, values::claim_pattern).unwrap_or_default(),
                None => reader.optional("RESTORE_TO", to, values::object_name).unwrap_or_default(),
            },
            group: reader.optional("RESTORE_GROUP", group, values::label_value),
            namespace: reader.optional("RESTORE_NAMESPACE", namespace, values::namespace),
            schedule: reader.optional("RESTORE_JOB", schedule, values::label_value),
            labels: reader.optional("RESTORE_LABEL", label, values::labels).unwrap_or_default(),
            verified,
            size: reader.optional("RESTORE_SIZE", size, values::bytes),
            storage_class: reader.optional("RESTORE_STORAGE_CLASS", storage_class, values::object_name),
            access_modes: reader.optional("RESTORE_ACCESS_MODES", access_modes, values::access_modes),
            volume_mode: reader.optional("RESTORE_VOLUME_MODE", volume_mode, values::volume_mode),
            timeout: reader
                .optional("RESTORE_TIMEOUT", timeout, values::duration)
                .unwrap_or(Duration::from_secs(300)),
            dry_run: reader.optional("RESTORE_DRY_RUN", dry_run, values::flag).unwrap_or(false),
            run_id: reader.optional("RESTORE_RUN_ID", run_id, values::label_value),
            run_uid: reader.optional("RESTORE_RUN_UID", run_uid, values::label_value),
            kubeconfig: None,
            context: None,
            user: None,
            termination_log: reader
                .optional("RESTORE_TERMINATION_LOG", termination_log, values::path)
                .unwrap_or_else(|| PathBuf::from("/dev/termination-log")),
            log_format: reader.optional("RESTORE_LOG_FORMAT", log_format, values::log_format),
            log_filter: reader.optional(FILTER, filter, values::log_filter).unwrap_or_else(default_filter),
        };
        if settings.timeout > MAX_WAIT {
            reader.problem(
                "RESTORE_TIMEOUT",
                None,
                "a wait of more than 24 h; at most 24h is accepted".to_owned(),
            );
        }
        match reader.finish() {
            None => Ok(settings),
            Some(problems) => {
                let fallback = Fallback {
                    ping: None,
                    termination_log: settings.termination_log,
                    log_format: settings.log_format,
                };
                Err((problems, fallback))
            }
        }
    }

    /// The name of the new claim of a group's claim: the pattern with that in the place of `{claim}`.
    pub fn name_of(&self, claim: &str) -> String {
        self.to.replace(values::CLAIM_PLACEHOLDER, claim)
    }

    /// What the restore makes, in words.
    pub fn made(&self) -> String {
        match &self.group {
            Some(group) => format!("a claim of group {group}"),
            None => format!("claim {}", self.to),
        }
    }

    /// The labels as they are written: `release=1.2.3,team=shop`.
    pub fn said_labels(&self) -> String {
        let said: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        said.join(",")
    }

    /// Whether a snapshot has all of the labels.
    pub fn has_labels(&self, record: &Record) -> bool {
        self.labels.iter().all(|(key, value)| record.label(key) == Some(value))
    }

    /// The longest that a restore takes, whatever happens: it ends itself then.
    pub fn bound(&self) -> Duration {
        self.timeout + ALLOWANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(
        variables: &[(&str, &str)],
        flags: &[(&'static str, &'static str, &str)],
    ) -> Result<RestoreSettings, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let flag = |(name, variable, value): &(&'static str, &'static str, &str)| Flag {
            variable: (*variable).to_owned(),
            name: (*name).to_owned(),
            value: (*value).into(),
        };
        RestoreSettings::parse(variables, flags.iter().map(flag).collect())
            .map_err(|(problems, _)| problems.to_string())
    }

    fn with(name: &str, value: &str) -> Result<RestoreSettings, String> {
        let mut variables = vec![("RESTORE_CLAIM", "data"), ("RESTORE_TO", "restored")];
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value));
        parse(&variables, &[])
    }

    #[test]
    fn a_claim_and_a_name_are_all_that_has_to_be_set() {
        let settings = with("RESTORE_JOB", "").expect("settings");
        assert_eq!((settings.claim.as_deref(), settings.to.as_str()), (Some("data"), "restored"));
        assert_eq!(settings.choice, Choice::Latest);
        assert_eq!(
            (settings.timeout, settings.bound()),
            (Duration::from_secs(300), Duration::from_secs(600))
        );
        assert!(!settings.dry_run && settings.namespace.is_none() && settings.size.is_none());
        assert_eq!(settings.termination_log.to_str(), Some("/dev/termination-log"));
        // Those of a run are none of its business.
        assert!(with("SNAPSHOT_RETENTON", "x").is_ok());
    }

    #[test]
    fn a_snapshot_says_itself_of_which_claim_it_is() {
        let settings = parse(&[("RESTORE_SNAPSHOT", "a"), ("RESTORE_TO", "b")], &[]).expect("settings");
        assert_eq!((settings.claim, settings.choice), (None, Choice::Named("a".to_owned())));
    }

    #[test]
    fn of_a_group_each_claim_gets_a_name_by_the_pattern() {
        let of_group = |to| parse(&[("RESTORE_GROUP", "shop"), ("RESTORE_TO", to)], &[]);
        let settings = of_group("{claim}-restored").expect("settings");
        assert_eq!((settings.group.as_deref(), settings.claim.as_deref()), (Some("shop"), None));
        assert_eq!(settings.name_of("data"), "data-restored");
        for to in ["restored", "{claim}_x", "{claims}", "-{claim}", "{claim}{x}", ""] {
            let problem = of_group(to).expect_err(to);
            assert!(problem.contains("RESTORE_TO"), "{problem}");
        }
        let both = [("RESTORE_GROUP", "shop"), ("RESTORE_CLAIM", "data"), ("RESTORE_TO", "{claim}-x")];
        assert!(parse(&both, &[]).expect_err("both").contains("a claim and a group are both given"));
        // A flag wins over what it excludes.
        let group = ("--group", "RESTORE_GROUP", "shop");
        let settings = parse(&both[1..], &[group]).expect("settings");
        assert_eq!((settings.claim, settings.group.as_deref()), (None, Some("shop")));
    }

    #[test]
    fn a_moment_is_a_date_and_a_time_in_utc_or_with_an_offset() {
        for text in [
            "2026-11-20T08:55:00Z",
            "2026-11-20T09:55:00+01:00",
            "2026-11-20T09:55+01:00",
            "2026-11-20 08:55",
            "2026-11-20T08:55",
        ] {
            let at = with("RESTORE_AT", text).expect(text).choice;
            assert_eq!(at, Choice::At("2026-11-20T08:55:00Z".parse().expect("a time")), "{text}");
        }
        for text in ["2026-11-20", "yesterday", "08:55", "2026-13-20 08:55", "1h"] {
            let problem = with("RESTORE_AT", text).expect_err(text);
            assert!(problem.contains("e.g. 2026-11-20T08:55:00Z"), "{problem}");
        }
    }

    #[test]
    fn every_value_may_be_set_and_is_checked() {
        let modes = with("RESTORE_ACCESS_MODES", "RWO, ReadOnlyMany,ReadWriteOnce").expect("modes");
        assert_eq!(modes.access_modes, Some(vec!["ReadWriteOnce".to_owned(), "ReadOnlyMany".to_owned()]));
        assert_eq!(with("RESTORE_VOLUME_MODE", "Block").expect("mode").volume_mode, Some(VolumeMode::Block));
        assert_eq!(with("RESTORE_TIMEOUT", "90").expect("a timeout").timeout, Duration::from_secs(90));
        for (name, value, accepted) in [
            ("RESTORE_CLAIM", "Data", "lower-case letters"),
            ("RESTORE_SNAPSHOT", "a b", "lower-case letters"),
            ("RESTORE_TO", "-", "lower-case letters"),
            ("RESTORE_TO", "{claim}-new", "lower-case letters"),
            ("RESTORE_NAMESPACE", "a.b", "at most 63 characters"),
            ("RESTORE_JOB", "no label!", "not the value of a label"),
            ("RESTORE_LABEL", "1.2.3", "is not a label with its value; accepted are labels"),
            ("RESTORE_SIZE", "10gb", "e.g. 10Gi"),
            ("RESTORE_STORAGE_CLASS", "not a class", "lower-case letters"),
            ("RESTORE_ACCESS_MODES", "RW", "RWO, ROX, RWX and RWOP"),
            ("RESTORE_VOLUME_MODE", "block", "Filesystem or Block"),
            ("RESTORE_TIMEOUT", "0", "30, 30s, 5m or 1m30s"),
            ("RESTORE_TIMEOUT", "25h", "at most 24h"),
            ("RESTORE_DRY_RUN", "yes", "neither true nor false"),
            ("RESTORE_RUN_ID", "-", "not the value of a label"),
            ("RESTORE_RUN_UID", "-", "not the value of a label"),
            ("RESTORE_LOG_FORMAT", "xml", "text or json"),
            ("RESTORE_TIMEOT", "1m", "the nearest is RESTORE_TIMEOUT"),
        ] {
            let problems = with(name, value).expect_err(name);
            assert!(problems.starts_with("1 problem in the settings; nothing was changed\n"), "{problems}");
            assert!(problems.contains(name) && problems.contains(accepted), "{name}={value}: {problems}");
        }
    }

    #[test]
    fn what_is_missing_or_excludes_each_other_is_reported_at_once() {
        let problems = parse(&[("RESTORE_SIZE", "x")], &[]).expect_err("problems");
        assert!(problems.starts_with("3 problems"), "{problems}");
        assert!(problems.contains("--to or RESTORE_TO") && problems.contains("--claim or RESTORE_CLAIM"));
        let both = [("RESTORE_SNAPSHOT", "a"), ("RESTORE_AT", "2026-11-20 08:55"), ("RESTORE_TO", "b")];
        assert!(parse(&both, &[]).expect_err("both").contains("one of the two at most"));
        let both = [("RESTORE_SNAPSHOT", "a"), ("RESTORE_LABEL", "release=1"), ("RESTORE_TO", "b")];
        assert!(parse(&both, &[]).expect_err("both").contains("a snapshot and a label are both given"));
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_over_the_one_that_it_excludes() {
        let variables = [("RESTORE_CLAIM", "data"), ("RESTORE_TO", "b"), ("RESTORE_SNAPSHOT", "of-the-file")];
        let at = ("--at", "RESTORE_AT", "2026-11-20T08:55:00Z");
        let to = ("--to", "RESTORE_TO", "c");
        let settings = parse(&variables, &[at, to]).expect("settings");
        assert_eq!(settings.to, "c");
        assert!(matches!(settings.choice, Choice::At(_)));
        let problems = parse(&variables, &[("--size", "RESTORE_SIZE", "1gi")]).expect_err("problems");
        assert!(problems.contains("--size=\"1gi\": not an amount"), "{problems}");
        // What a script gave from a variable that it never set.
        let problems = parse(&variables, &[("--claim", "RESTORE_CLAIM", " ")]).expect_err("problems");
        assert!(problems.contains("--claim: the value is empty"), "{problems}");
    }
}
