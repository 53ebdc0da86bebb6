//! The settings of a run: environment variables `SNAPSHOT_*` in, [`Settings`] or all that is wrong with
//! them out. `list` reads the same ones, some of them from flags.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, ArgMatches, Args};
use serde::Deserialize;
use tracing_subscriber::filter::Targets;

use super::{
    reader::{self, FILTER, Fallback, Flag, Problems, Reader, default_filter},
    values::{self, EventChoice, LogFormat, Ping, PingFailures},
};
use crate::{
    names,
    retention::{Every, Rules},
    shard::Shard,
    url::{PingUrl, Placeholder, SecretUrl},
};

/// What the variables' names begin with.
const PREFIX: &str = "SNAPSHOT_";

const PING_URL: &str = "SNAPSHOT_PING_URL";
const GROUP_LABEL: &str = "SNAPSHOT_GROUP_LABEL";
const GROUP_CLASS: &str = "SNAPSHOT_GROUP_CLASS_NAME";

const NAMESPACE_SELECTOR: &str = "SNAPSHOT_NAMESPACE_SELECTOR";

/// The variable in which Kubernetes tells each pod of an Indexed Job which one it is, from 0.
const INDEX: &str = "JOB_COMPLETION_INDEX";

/// The most shards. What many pods gain over few is less than what they cost: each lists all
/// snapshots.
const MAX_SHARDS: u32 = 1000;

/// How long a run may take besides waiting for snapshots: finding, listing, creating and pruning,
/// with all their repetitions. Five minutes are 4,000 claims with a create and a delete each at
/// the default concurrency of 8 and 300 ms a request.
const ALLOWANCE: Duration = Duration::from_secs(300);

/// How long it may take, after a run, to tell people what it came to.
pub const TELLING: Duration = Duration::from_secs(10);

/// The pauses between the attempts of a Job, finding a node and pulling the image included.
const JOB_PAUSES: Duration = Duration::from_secs(600);

/// What the manifests give every Job at most.
const SHORTEST_JOB_LIFETIME: Duration = Duration::from_secs(3600);

/// The longest that a run may be told to wait for a snapshot.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that a pod may be kept frozen.
const MAX_FREEZE: Duration = Duration::from_secs(300);

/// All that a user can choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which claims (`SNAPSHOT_PVC_NAMES` or `SNAPSHOT_PVC_SELECTOR`).
    pub claims: ClaimChoice,
    /// Whether, of these, only claims are snapshotted whose annotations ask for it (`SNAPSHOT_PVC_ANNOTATED`).
    pub only_annotated: bool,
    /// Whether the annotations of a volume count for a claim that has none (`SNAPSHOT_VOLUME_ANNOTATIONS`).
    pub volume_annotations: bool,
    /// What claims may ask for by annotations (`SNAPSHOT_ANNOTATIONS`).
    pub annotations: Annotations,
    /// The namespace; unset for the pod's own, or the kubeconfig context's
    /// (`SNAPSHOT_NAMESPACE`).
    pub namespace: Option<String>,
    /// All namespaces that a label selector matches, instead of one (`SNAPSHOT_NAMESPACE_SELECTOR`).
    pub namespace_selector: Option<String>,
    /// The VolumeSnapshotClass; unset for the cluster's default (`SNAPSHOT_CLASS_NAME`).
    pub class: Option<String>,
    /// The label whose value makes groups of claims, each of which is taken at one instant; unset for none
    /// (`SNAPSHOT_GROUP_LABEL`).
    pub group_label: Option<String>,
    /// The VolumeGroupSnapshotClass; unset for the default one of the claims' driver (`SNAPSHOT_GROUP_CLASS_NAME`).
    pub group_class: Option<String>,
    /// What the snapshots' names begin with (`SNAPSHOT_NAME_PREFIX`).
    pub name_prefix: String,
    /// The schedule: value of the label `job` (`SNAPSHOT_JOB`).
    pub schedule: String,
    /// How many windows to wait (`SNAPSHOT_READY_ATTEMPTS`).
    pub ready_attempts: u32,
    /// How long one window is (`SNAPSHOT_READY_INTERVAL`).
    pub ready_interval: Duration,
    /// Which snapshots stay (`SNAPSHOT_RETENTION`).
    pub retention: Rules,
    /// Whether somebody said so, and it is not the default.
    pub is_retention_given: bool,
    /// How often a claim is snapshotted that does not say; unset for in every run (`SNAPSHOT_EVERY`).
    pub every: Option<Every>,
    /// Whether to prune even where claims may not be read, as the bash script did
    /// (`SNAPSHOT_PRUNE_UNREAD_CLAIMS`).
    pub prune_unread_claims: bool,
    /// The most requests in flight at a time (`SNAPSHOT_CONCURRENCY`).
    pub concurrency: usize,
    /// The most new snapshots that may be pending, created but not ready, at a time; unset for a number that
    /// follows the snapshot controller (`SNAPSHOT_MAX_PENDING`).
    pub max_pending: Option<usize>,
    /// Whether to change nothing (`SNAPSHOT_DRY_RUN`).
    pub dry_run: bool,
    /// Whether to hold what this run makes (`SNAPSHOT_HOLD`).
    pub hold: bool,
    /// Whether the hooks of pods are run (`SNAPSHOT_HOOKS`).
    pub hooks: bool,
    /// How long a pod stays frozen at most, from the end of the pre hooks on, while its claims' snapshots are not
    /// taken (`SNAPSHOT_FREEZE_TIMEOUT`).
    pub freeze_timeout: Duration,
    /// Further labels of what this run makes (`SNAPSHOT_LABELS`).
    pub labels: BTreeMap<String, String>,
    /// The part of the chosen claims that this pod takes (`SNAPSHOT_SHARDS` and
    /// `JOB_COMPLETION_INDEX`).
    pub shard: Shard,
    /// The name of the Job that this pod belongs to; unset for a random one (`SNAPSHOT_RUN_ID`).
    pub run_id: Option<String>,
    /// The uid of the Job, by which its next attempt finds what this one made; unset where nothing is to
    /// be taken over (`SNAPSHOT_RUN_UID`).
    pub run_uid: Option<String>,
    /// On which claims' outcomes an Event is created (`SNAPSHOT_EVENTS`).
    pub events: EventChoice,
    /// Who is pinged after a run (`SNAPSHOT_PING_URL`); see [`Settings::ping`].
    pub ping_url: Option<PingUrl>,
    /// Which failures are pinged (`SNAPSHOT_PING_FAILURES`).
    pub ping_failures: PingFailures,
    /// Where the metrics of a run are pushed to (`SNAPSHOT_PUSHGATEWAY_URL`); see [`Settings::pushgateway`].
    pub pushgateway_url: Option<SecretUrl>,
    /// The certificates that are trusted where a run is told of, instead of the system's; not those of the
    /// API server (`SNAPSHOT_NOTIFY_CA_FILE`).
    pub notify_ca_file: Option<PathBuf>,
    /// Where the termination message goes (`SNAPSHOT_TERMINATION_LOG`).
    pub termination_log: PathBuf,
    /// How log lines look; unset for text on a terminal and JSON elsewhere
    /// (`SNAPSHOT_LOG_FORMAT`).
    pub log_format: Option<LogFormat>,
    /// Which log lines are written (`RUST_LOG`).
    pub log_filter: Targets,
}

/// Which claims are snapshotted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimChoice {
    /// These, each once, in the order in which they were given.
    Names(Vec<String>),
    /// Those that a label selector matches; the API server reads it.
    Selector(String),
}

/// What claims may ask for by annotations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Annotations {
    /// Whatever they want: the annotations replace the settings.
    #[default]
    Any,
    /// To keep more than the schedule does, so that whoever may annotate a claim cannot have its snapshots deleted.
    /// How often is the schedule's business then: more frequent snapshots push older ones out of `last=7`.
    More,
}

/// The variables as `envy` reads them, and the flags of `list` that stand in for some of them. Every
/// field is text: what each may hold is checked by the project's own parsers, so that the messages give
/// the whole name of the variable or flag, and all problems come at once.
#[derive(Default, Deserialize, Args)]
#[serde(default)]
struct Variables {
    /// These claims [default: all]
    #[arg(value_name = "CLAIM", action = ArgAction::Append, conflicts_with = "pvc_selector")]
    pvc_names: Option<String>,
    /// Claims by label selector: app=web
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    pvc_selector: Option<String>,
    #[arg(skip)]
    pvc_annotated: Option<String>,
    #[arg(skip)]
    annotations: Option<String>,
    #[arg(skip)]
    volume_annotations: Option<String>,
    /// Namespace [default: the pod's own, or the kubeconfig context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[arg(skip)]
    namespace_selector: Option<String>,
    #[arg(skip)]
    class_name: Option<String>,
    #[arg(skip)]
    group_label: Option<String>,
    #[arg(skip)]
    group_class_name: Option<String>,
    #[arg(skip)]
    name_prefix: Option<String>,
    /// Only this schedule: value of the label 'job' [default: all that are found]
    #[serde(rename = "job")]
    #[arg(id = "job", long, value_name = "JOB")]
    schedule: Option<String>,
    #[arg(skip)]
    ready_attempts: Option<String>,
    #[arg(skip)]
    ready_interval: Option<String>,
    /// Show what these rules would keep: hourly=24,daily=7
    #[arg(long, value_name = "RULES")]
    retention: Option<String>,
    #[arg(skip)]
    every: Option<String>,
    #[arg(skip)]
    prune_unread_claims: Option<String>,
    #[arg(skip)]
    concurrency: Option<String>,
    #[arg(skip)]
    max_pending: Option<String>,
    #[arg(skip)]
    dry_run: Option<String>,
    #[arg(skip)]
    hold: Option<String>,
    #[arg(skip)]
    hooks: Option<String>,
    #[arg(skip)]
    freeze_timeout: Option<String>,
    #[arg(skip)]
    labels: Option<String>,
    #[arg(skip)]
    shards: Option<String>,
    #[arg(skip)]
    run_id: Option<String>,
    #[arg(skip)]
    run_uid: Option<String>,
    #[arg(skip)]
    events: Option<String>,
    #[arg(skip)]
    ping_url: Option<String>,
    #[arg(skip)]
    ping_failures: Option<String>,
    #[arg(skip)]
    pushgateway_url: Option<String>,
    #[arg(skip)]
    notify_ca_file: Option<String>,
    #[arg(skip)]
    termination_log: Option<String>,
    #[arg(skip)]
    log_format: Option<String>,
}

/// A variable as the help text gives it.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its whole name.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What holds without it, in words; empty where it has no default.
    pub default: &'static str,
}

pub(super) const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, meaning, default }
}

/// All variables of a run, in the order in which the documentation gives them.
pub const VARIABLES: [Variable; 36] = [
    variable("SNAPSHOT_PVC_NAMES", "", "claims, comma-separated: data or data,logs"),
    variable("SNAPSHOT_PVC_SELECTOR", "", "claims by label selector: app=web"),
    variable(
        "SNAPSHOT_PVC_ANNOTATED",
        "false",
        "true: claims that carry the annotation volume-snapshotter/retention or volume-snapshotter/every, also for \
         this schedule alone, or backup.kubernetes.io/deltas; with the selector: those that it matches",
    ),
    variable("SNAPSHOT_NAMESPACE", "the pod's own, or the kubeconfig context's", "namespace"),
    variable("SNAPSHOT_NAMESPACE_SELECTOR", "", "all namespaces that match, instead of one"),
    variable("SNAPSHOT_CLASS_NAME", "the cluster's default", "VolumeSnapshotClass"),
    variable(
        "SNAPSHOT_GROUP_LABEL",
        "",
        "claims with the same value of this label are taken at one instant, as one VolumeGroupSnapshot",
    ),
    variable(
        "SNAPSHOT_GROUP_CLASS_NAME",
        "the default of the claims' driver",
        "VolumeGroupSnapshotClass, with SNAPSHOT_GROUP_LABEL",
    ),
    variable("SNAPSHOT_NAME_PREFIX", "volume-snapshot", "what names begin with"),
    variable("SNAPSHOT_JOB", "volume-snapshotter", "label 'job': the schedule that owns them"),
    variable("SNAPSHOT_READY_ATTEMPTS", "3", "how many windows to wait"),
    variable("SNAPSHOT_READY_INTERVAL", "30s", "how long one is: 30, 30s, 5m, 1m30s"),
    variable(
        "SNAPSHOT_RETENTION",
        "last=1; outside a pod nothing is deleted unless this is set",
        "what stays, if any rule keeps it: last=N, hourly=N, daily=N, weekly=N, monthly=N, yearly=N (daily=all: \
         of every day), within=14d, within-hourly=2d to within-yearly=5y, deltas=PT1H P1D P7D, \
         verified=N, all",
    ),
    variable(
        "SNAPSHOT_EVERY",
        "in every run",
        "how often a claim is snapshotted: 6h, 1d, 1w; a Job that a person makes takes all",
    ),
    variable(
        "SNAPSHOT_ANNOTATIONS",
        "any",
        "what claims may ask for by annotations: any, or more: to keep more than the settings do, and nothing else",
    ),
    variable(
        "SNAPSHOT_VOLUME_ANNOTATIONS",
        "false",
        "true: the annotations of a volume count for a claim that has none; needs the right to list volumes",
    ),
    variable(
        "SNAPSHOT_PRUNE_UNREAD_CLAIMS",
        "false",
        "true: delete also where claims may not be read, and their annotations are not known",
    ),
    variable("SNAPSHOT_CONCURRENCY", "8", "requests in flight"),
    variable(
        "SNAPSHOT_MAX_PENDING",
        "all of up to 100 claims; of more what the snapshot controller keeps up with",
        "new snapshots that are created but not ready, at a time",
    ),
    variable("SNAPSHOT_DRY_RUN", "false", "true: say what would happen, change nothing"),
    variable("SNAPSHOT_HOLD", "false", "true: no schedule ever deletes what this run makes"),
    variable("SNAPSHOT_HOOKS", "false", "true: run the hooks of the pods that mount the claims"),
    variable("SNAPSHOT_FREEZE_TIMEOUT", "30s", "how long hooks keep a pod frozen at most: 30, 30s, up to 5m"),
    variable("SNAPSHOT_LABELS", "", "further labels of what this run makes: release=1.2.3,team=shop"),
    variable("SNAPSHOT_SHARDS", "1", "pods of an Indexed Job that share the claims"),
    variable(INDEX, "", "which of them this one is, from 0; set by Kubernetes"),
    variable("SNAPSHOT_RUN_ID", "random", "the Job's name, for people and labels"),
    variable(
        "SNAPSHOT_RUN_UID",
        "nothing is taken over",
        "the Job's uid, by which its next attempt goes on with the same snapshots",
    ),
    variable("SNAPSHOT_EVENTS", "warnings", "Events on claims: all, warnings (of failures) or off"),
    variable(
        "SNAPSHOT_PING_URL",
        "",
        "URL that is sent the final message by POST; in it {exit}, {status}, {state}, {duration_ms}, {duration_s}, \
         {message}, {schedule}, {shard} and {rid}. Only success is sent without {exit}, {status} or {state}",
    ),
    variable(
        "SNAPSHOT_PING_FAILURES",
        "final",
        "final: exit codes 2 and 3; all: also those that another attempt may mend",
    ),
    variable("SNAPSHOT_PUSHGATEWAY_URL", "", "Pushgateway that is sent the metrics of each run"),
    variable(
        "SNAPSHOT_NOTIFY_CA_FILE",
        "the system's",
        "CA certificates (PEM) for those who are told what a run came to",
    ),
    variable("SNAPSHOT_TERMINATION_LOG", "/dev/termination-log", "file for the final message"),
    variable("SNAPSHOT_LOG_FORMAT", "text on a terminal, else json", "text or json"),
    variable(FILTER, "info", "log filter"),
];

/// The names of [`VARIABLES`].
pub const NAMES: [&str; VARIABLES.len()] = {
    let mut names = [""; VARIABLES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = VARIABLES[index].name;
        index += 1;
    }
    names
};

/// Of which two a flag that sets the one overrules the other's variable.
const EXCLUDING: [[&str; 2]; 3] = [
    ["SNAPSHOT_PVC_NAMES", "SNAPSHOT_PVC_SELECTOR"],
    ["SNAPSHOT_PVC_NAMES", "SNAPSHOT_PVC_ANNOTATED"],
    ["SNAPSHOT_NAMESPACE", "SNAPSHOT_NAMESPACE_SELECTOR"],
];

impl Settings {
    /// Reads the settings from environment variables; others than `SNAPSHOT_*`, `RUST_LOG` and
    /// `JOB_COMPLETION_INDEX` are passed over.
    ///
    /// # Errors
    /// Every problem that there is, at once: unknown names, values that cannot be understood,
    /// settings that exclude each other.
    pub fn parse(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Problems> {
        Self::parse_or_fallback(variables).map_err(|(problems, _)| problems)
    }

    /// Like [`Settings::parse`], with what can be told all the same of how to report the problems.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn parse_or_fallback(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, (Problems, Fallback)> {
        Self::read(variables, Vec::new(), false)
    }

    /// Adds the flags of `list` that stand in for variables to a command.
    pub fn add_list_flags(command: clap::Command) -> clap::Command {
        reader::add_flags::<Variables>(PREFIX, &NAMES, command)
    }

    /// Those of them that were given.
    pub fn list_flags(command: &clap::Command, matches: &ArgMatches) -> Vec<Flag> {
        reader::flags(PREFIX, &NAMES, command, matches)
    }

    /// The settings as `volume-snapshotter list` takes them: flags win over variables, and where
    /// no claim is chosen all are.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn parse_for_list(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
    ) -> Result<Self, Problems> {
        Self::read(variables, flags, true).map_err(|(problems, _)| problems)
    }

    /// The settings as a drill takes them: as [`Settings::parse_for_list`], with what can be told all the same of how
    /// to report problems. A Job can be owned by another of its own namespace only, so there is one namespace.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub(super) fn parse_for_drill(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
    ) -> Result<Self, (Problems, Fallback)> {
        let settings = Self::read(variables, flags, true)?;
        if settings.namespace_selector.is_none() {
            return Ok(settings);
        }
        let mut reader = Reader::new(PREFIX, &NAMES);
        reader.problem(
            NAMESPACE_SELECTOR,
            None,
            format!(
                "a drill is of one namespace, because a Job belongs to another of its own namespace only; set \
                 SNAPSHOT_NAMESPACE instead of {NAMESPACE_SELECTOR}, and install the drill in each namespace"
            ),
        );
        let fallback = Fallback {
            ping: None,
            termination_log: settings.termination_log,
            log_format: settings.log_format,
        };
        Err((Problems::joined([reader.finish(), None]), fallback))
    }

    fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
        for_list: bool,
    ) -> Result<Self, (Problems, Fallback)> {
        let mut reader = Reader::new(PREFIX, &NAMES);
        let (variables, mut others) = reader.read::<Variables>(variables, flags, &EXCLUDING);
        let (filter, index) = (others.take(FILTER), others.take(INDEX));
        // Destructured, so that a variable that is added cannot be forgotten here.
        let Variables {
            pvc_names,
            pvc_selector,
            pvc_annotated,
            annotations,
            volume_annotations,
            namespace,
            namespace_selector,
            class_name,
            group_label,
            group_class_name,
            name_prefix,
            schedule,
            ready_attempts,
            ready_interval,
            retention,
            every,
            prune_unread_claims,
            concurrency,
            max_pending,
            dry_run,
            hold,
            hooks,
            freeze_timeout,
            labels,
            shards,
            run_id,
            run_uid,
            events,
            ping_url,
            ping_failures,
            pushgateway_url,
            notify_ca_file,
            termination_log,
            log_format,
        } = variables;

        if namespace.is_some() && namespace_selector.is_some() {
            reader.problem(
                "SNAPSHOT_NAMESPACE",
                None,
                "SNAPSHOT_NAMESPACE and SNAPSHOT_NAMESPACE_SELECTOR are both set; set one of the two at most"
                    .to_owned(),
            );
        }
        // Whoever wants groups does not get single snapshots without a word.
        if group_class_name.is_some() && group_label.is_none() {
            reader.problem(
                GROUP_CLASS,
                None,
                format!("it is set, and {GROUP_LABEL} is not, so there are no groups; set both or none"),
            );
        }
        let is_retention_given = retention.is_some();
        let only_annotated =
            reader.optional("SNAPSHOT_PVC_ANNOTATED", pvc_annotated, values::flag).unwrap_or(false);
        let settings = Settings {
            claims: claims(&mut reader, pvc_names, pvc_selector, only_annotated, for_list),
            only_annotated,
            volume_annotations: reader
                .optional("SNAPSHOT_VOLUME_ANNOTATIONS", volume_annotations, values::flag)
                .unwrap_or(false),
            annotations: reader
                .optional("SNAPSHOT_ANNOTATIONS", annotations, values::annotations)
                .unwrap_or_default(),
            namespace: reader.optional("SNAPSHOT_NAMESPACE", namespace, values::namespace),
            // The API server reads selectors; it knows more forms than anybody remembers.
            namespace_selector,
            class: reader.optional("SNAPSHOT_CLASS_NAME", class_name, values::object_name),
            group_label: reader.optional(GROUP_LABEL, group_label, values::label_key),
            group_class: reader.optional(GROUP_CLASS, group_class_name, values::object_name),
            name_prefix: reader
                .optional("SNAPSHOT_NAME_PREFIX", name_prefix, values::name_prefix)
                .unwrap_or_else(|| "volume-snapshot".to_owned()),
            schedule: reader
                .optional("SNAPSHOT_JOB", schedule, values::label_value)
                .unwrap_or_else(|| names::PROGRAM.to_owned()),
            ready_attempts: reader
                .optional("SNAPSHOT_READY_ATTEMPTS", ready_attempts, values::number(1, 1000))
                .unwrap_or(3),
            ready_interval: reader
                .optional("SNAPSHOT_READY_INTERVAL", ready_interval, values::duration)
                .unwrap_or(Duration::from_secs(30)),
            retention: reader.optional("SNAPSHOT_RETENTION", retention, values::rules).unwrap_or_default(),
            is_retention_given,
            every: reader.optional("SNAPSHOT_EVERY", every, values::every),
            prune_unread_claims: reader
                .optional("SNAPSHOT_PRUNE_UNREAD_CLAIMS", prune_unread_claims, values::flag)
                .unwrap_or(false),
            concurrency: reader
                .optional("SNAPSHOT_CONCURRENCY", concurrency, values::number(1, 256))
                .unwrap_or(8) as usize,
            max_pending: reader
                .optional("SNAPSHOT_MAX_PENDING", max_pending, values::number(1, 100_000))
                .map(|number| number as usize),
            dry_run: reader.optional("SNAPSHOT_DRY_RUN", dry_run, values::flag).unwrap_or(false),
            hold: reader.optional("SNAPSHOT_HOLD", hold, values::flag).unwrap_or(false),
            hooks: reader.optional("SNAPSHOT_HOOKS", hooks, values::flag).unwrap_or(false),
            freeze_timeout: reader
                .optional("SNAPSHOT_FREEZE_TIMEOUT", freeze_timeout, values::duration)
                .unwrap_or(Duration::from_secs(30)),
            labels: reader.optional("SNAPSHOT_LABELS", labels, values::own_labels).unwrap_or_default(),
            // A list is of all claims, whichever pod takes them.
            shard: if for_list { Shard::WHOLE } else { shard(&mut reader, shards, index) },
            run_id: reader.optional("SNAPSHOT_RUN_ID", run_id, values::label_value),
            run_uid: reader.optional("SNAPSHOT_RUN_UID", run_uid, values::label_value),
            events: reader
                .optional("SNAPSHOT_EVENTS", events, values::events)
                .unwrap_or(EventChoice::Warnings),
            ping_url: reader.optional(PING_URL, ping_url, values::ping_url),
            ping_failures: reader
                .optional("SNAPSHOT_PING_FAILURES", ping_failures, values::ping_failures)
                .unwrap_or(PingFailures::Final),
            pushgateway_url: reader.optional("SNAPSHOT_PUSHGATEWAY_URL", pushgateway_url, values::url),
            notify_ca_file: reader.optional("SNAPSHOT_NOTIFY_CA_FILE", notify_ca_file, values::path),
            termination_log: reader
                .optional("SNAPSHOT_TERMINATION_LOG", termination_log, values::path)
                .unwrap_or_else(|| PathBuf::from("/dev/termination-log")),
            log_format: reader.optional("SNAPSHOT_LOG_FORMAT", log_format, values::log_format),
            log_filter: reader.optional(FILTER, filter, values::log_filter).unwrap_or_else(default_filter),
        };
        if settings.longest_wait() > MAX_WAIT {
            reader.problem(
                "SNAPSHOT_READY_INTERVAL",
                None,
                format!(
                    "{} windows of {} are a wait of more than a day; at most 24 h are accepted for \
                     SNAPSHOT_READY_ATTEMPTS × SNAPSHOT_READY_INTERVAL",
                    settings.ready_attempts,
                    crate::text::duration(settings.ready_interval)
                ),
            );
        }
        // Else one shard's success would hide that another fails.
        let is_ambiguous = |url: &PingUrl| !settings.shard.is_whole() && !url.has(Placeholder::Shard);
        if settings.ping_url.as_ref().is_some_and(is_ambiguous) {
            reader.problem(
                PING_URL,
                None,
                format!(
                    "each of several pods pings it, and one that succeeds would hide one that fails; {} in the URL \
                     gives each a check of its own",
                    Placeholder::Shard.written()
                ),
            );
        }
        if settings.freeze_timeout > MAX_FREEZE {
            reader.problem(
                "SNAPSHOT_FREEZE_TIMEOUT",
                None,
                format!(
                    "{} is too long for a pod to be frozen; at most 5m are accepted",
                    crate::text::duration(settings.freeze_timeout)
                ),
            );
        }
        match reader.finish() {
            None => Ok(settings),
            Some(problems) => {
                let fallback = Fallback {
                    ping: settings.ping().map(Box::new),
                    termination_log: settings.termination_log,
                    log_format: settings.log_format,
                };
                Err((problems, fallback))
            }
        }
    }

    /// The rules for a claim that is annotated with rules of its own.
    pub fn rules_with(&self, own: &Rules) -> Rules {
        match self.annotations {
            Annotations::Any => own.clone(),
            Annotations::More => self.retention.or(own),
        }
    }

    /// How often a claim is snapshotted that is annotated with an interval of its own; `None` if in every run.
    pub fn every_with<'a>(&'a self, own: Option<&'a Every>) -> Option<&'a Every> {
        match self.annotations {
            Annotations::Any => own.or(self.every.as_ref()),
            Annotations::More => self.every.as_ref(),
        }
    }

    /// The longest that a run waits for one snapshot: attempts × interval. A snapshot that is not
    /// ready after that is waited for by nobody.
    pub fn longest_wait(&self) -> Duration {
        self.ready_interval.saturating_mul(self.ready_attempts)
    }

    /// The longest that a Job of this schedule lives, all its attempts together; what it made may be taken
    /// over until then. The manifests end every Job within an hour (`activeDeadlineSeconds`) and allow
    /// three attempts.
    pub fn job_lifetime(&self) -> Duration {
        (self.lifetime() * 3 + JOB_PAUSES).max(SHORTEST_JOB_LIFETIME)
    }

    /// The longest that a whole run takes, whatever happens: it ends itself then.
    pub fn bound(&self) -> Duration {
        self.longest_wait() + ALLOWANCE
    }

    /// The longest that the process lives: the run, and telling what it came to. The CronJob's
    /// `activeDeadlineSeconds` has to leave room for this, once for each attempt of the Job.
    pub fn lifetime(&self) -> Duration {
        self.bound() + TELLING
    }

    /// Where metrics are to be pushed to; nowhere after a dry run.
    pub fn pushgateway(&self) -> Option<&SecretUrl> {
        self.pushgateway_url.as_ref().filter(|_| !self.dry_run)
    }

    /// Who is to be pinged; nobody after a dry run, which says nothing about the backups that there are.
    pub fn ping(&self) -> Option<Ping> {
        let url = self.ping_url.clone().filter(|_| !self.dry_run)?;
        Some(Ping {
            url,
            failures: self.ping_failures,
            ca_file: self.notify_ca_file.clone(),
            schedule: self.schedule.clone(),
            run_uid: self.run_uid.clone(),
            shard: self.shard,
        })
    }
}

/// A pod that does not know its part would take another's, or none: then nothing is done.
fn shard(reader: &mut Reader, shards: Option<String>, index: Option<String>) -> Shard {
    const SHARDS: &str = "SNAPSHOT_SHARDS";
    let is_set = shards.is_some();
    let Some(count) =
        reader.optional(SHARDS, shards, values::number(1, MAX_SHARDS)).or((!is_set).then_some(1))
    else {
        return Shard::WHOLE;
    };
    let Some(text) = index else {
        if count > 1 {
            reader.problem(
                INDEX,
                None,
                format!(
                    "not set, but {SHARDS} is {count}: Kubernetes sets it in the pods of a Job with completionMode: \
                     Indexed; accepted is a whole number from 0 to {}",
                    count - 1
                ),
            );
        }
        return Shard::WHOLE;
    };
    let shard = text.parse().ok().and_then(|index| Shard::new(index, count));
    if shard.is_none() {
        let accepted = match count {
            1 => "0 is accepted, for there is one shard".to_owned(),
            _ => format!("a whole number from 0 to {} is accepted", count - 1),
        };
        reader.problem(
            INDEX,
            Some(&text),
            format!("not the index of a shard; {accepted}; {SHARDS} has to be the Job's completions"),
        );
    }
    shard.unwrap_or_default()
}

fn claims(
    reader: &mut Reader,
    names: Option<String>,
    selector: Option<String>,
    only_annotated: bool,
    all_by_default: bool,
) -> ClaimChoice {
    const NAMES: &str = "SNAPSHOT_PVC_NAMES";
    const SELECTOR: &str = "SNAPSHOT_PVC_SELECTOR";
    const ANNOTATED: &str = "SNAPSHOT_PVC_ANNOTATED";
    match (names, selector) {
        (Some(_), None) if only_annotated => {
            reader.problem(
                NAMES,
                None,
                format!(
                    "{NAMES} and {ANNOTATED} are both set; {ANNOTATED}=true goes alone or with {SELECTOR}"
                ),
            );
            ClaimChoice::Names(Vec::new())
        }
        (Some(names), None) => {
            let names = reader.optional(NAMES, Some(names), values::claim_names);
            ClaimChoice::Names(names.unwrap_or_default())
        }
        (None, Some(selector)) => ClaimChoice::Selector(selector),
        (Some(_), Some(_)) => {
            reader.problem(
                NAMES,
                None,
                format!("{NAMES} and {SELECTOR} are both set; set exactly one of the two"),
            );
            ClaimChoice::Names(Vec::new())
        }
        // An empty selector matches everything.
        (None, None) if all_by_default || only_annotated => ClaimChoice::Selector(String::new()),
        (None, None) => {
            reader.problem(
                NAMES,
                None,
                format!(
                    "neither {NAMES} nor {SELECTOR} is set; set one of the two, e.g. {NAMES}=data or \
                     {SELECTOR}=app=web, or {ANNOTATED}=true"
                ),
            );
            ClaimChoice::Names(Vec::new())
        }
    }
}

#[cfg(test)]
mod tests;
