//! What one value may look like: a function for each form, from text to value or to what is wrong
//! and what would be accepted. Which variable has which form is in [`super`].

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::Annotations;
use crate::{
    hooks::argv,
    names::{self, is_label_value, is_namespace_name, is_object_name},
    quantity::{Bytes, NoAmount},
    retention::{Every, RuleError, Rules, Window},
    shard::Shard,
    url::{PingUrl, SecretUrl, UrlError},
};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Which failures are pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingFailures {
    /// Those after which the Job is not tried again.
    Final,
    /// Those of every attempt.
    All,
}

/// On which outcomes of a claim an Event is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventChoice {
    All,
    /// On failures.
    Warnings,
    Off,
}

/// Who is pinged when, and what stands for the placeholders but what the run came to.
#[derive(Clone, Debug)]
pub struct Ping {
    pub url: PingUrl,
    pub failures: PingFailures,
    /// The certificates that are trusted, instead of the system's.
    pub ca_file: Option<PathBuf>,
    pub schedule: String,
    pub run_uid: Option<String>,
    pub shard: Shard,
}

/// What a volume is to the pod that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeMode {
    /// A directory.
    Filesystem,
    /// A device.
    Block,
}

impl fmt::Display for VolumeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VolumeMode::Filesystem => "Filesystem",
            VolumeMode::Block => "Block",
        })
    }
}

/// What is wrong with a value, and what would be accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    #[error("not the name of an object; accepted are {OBJECT_NAME}")]
    ObjectName,
    #[error(
        "not the name of a namespace; accepted are lower-case letters, digits and '-', at most 63 characters, \
         beginning and ending with a letter or digit"
    )]
    Namespace,
    #[error(
        "not the value of a label; accepted are letters, digits, '-', '_' and '.', at most 63 characters, beginning \
         and ending with a letter or digit"
    )]
    LabelValue,
    #[error(
        "not a pattern for the names of claims; accepted is a name with {{claim}} in it, which stands for the name of \
         each claim of the group, e.g. {{claim}}-restored"
    )]
    ClaimPattern,
    #[error(
        "not the key of a label; accepted are letters, digits, '-', '_' and '.', at most 63 characters, after a \
         domain and a slash if need be, e.g. volume-snapshotter/group"
    )]
    LabelKey,
    #[error(
        "no name can begin with that; accepted are lower-case letters, digits, '-' and '.', at most {longest} \
         characters (the name is also a label's value), beginning with a letter or digit, e.g. volume-snapshot"
    )]
    NamePrefix { longest: usize },
    #[error(
        "a name is missing beside a comma; accepted are claims' names, comma-separated, e.g. data or data,logs"
    )]
    MissingName,
    #[error(
        "{0:?} is not the name of a claim; accepted are {OBJECT_NAME}, comma-separated, e.g. data or data,logs"
    )]
    ClaimName(String),
    #[error("not a number in range; a whole number from {least} to {most} is accepted")]
    Number { least: u32, most: u32 },
    #[error(
        "not a length of time of 0.1 s or more; accepted are seconds or a number with its unit, e.g. 30, 30s, 5m or \
         1m30s"
    )]
    Duration,
    #[error("neither true nor false; one of these two is accepted")]
    Flag,
    #[error("neither any nor more; one of these two is accepted")]
    Annotations,
    #[error("not a path")]
    Path,
    #[error("no such format; text or json is accepted")]
    LogFormat,
    #[error(
        "not a log filter; accepted are error, warn, info, debug, trace or off, also by module, e.g. \
         info,kube_client=debug"
    )]
    LogFilter,
    #[error(
        "not a moment; accepted are a date and a time, in UTC or with an offset, e.g. 2026-11-20T08:55:00Z, \
         2026-11-20T09:55+01:00 or \"2026-11-20 08:55\""
    )]
    Moment,
    #[error(
        "{0:?} is not an access mode; accepted are ReadWriteOnce, ReadOnlyMany, ReadWriteMany and ReadWriteOncePod, \
         comma-separated, or RWO, ROX, RWX and RWOP"
    )]
    AccessMode(String),
    #[error("no such volume mode; Filesystem or Block is accepted")]
    VolumeMode,
    #[error("no such choice; final or all is accepted")]
    PingFailures,
    #[error("no such choice; all, warnings or off is accepted")]
    Events,
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error(transparent)]
    Bytes(#[from] NoAmount),
    #[error(transparent)]
    Retention(#[from] RuleError),
    #[error("{0}")]
    Every(String),
    #[error("not the name of an image; accepted is a name without blanks, e.g. busybox:1")]
    Image,
    #[error("{0}")]
    Command(String),
    #[error("{0}; accepted are labels, comma-separated, e.g. release=1.2.3,team=shop")]
    Labels(String),
}

const OBJECT_NAME: &str = "lower-case letters, digits, '-' and '.', at most 253 characters, beginning and \
                           ending with a letter or digit";

pub(super) fn object_name(text: &str) -> Result<String, ValueError> {
    match is_object_name(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::ObjectName),
    }
}

pub(super) fn namespace(text: &str) -> Result<String, ValueError> {
    match is_namespace_name(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::Namespace),
    }
}

pub(super) fn label_value(text: &str) -> Result<String, ValueError> {
    match is_label_value(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::LabelValue),
    }
}

/// A prefix whose names are both an object's name and a label's value.
pub(super) fn name_prefix(text: &str) -> Result<String, ValueError> {
    let longest = names::MAX_LABEL_VALUE - names::NAME_SUFFIX;
    let example = names::snapshot_name(text, 0);
    match is_object_name(&example) && is_label_value(&example) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::NamePrefix { longest }),
    }
}

/// Claims, each once, in the order in which they were given.
pub(super) fn claim_names(text: &str) -> Result<Vec<String>, ValueError> {
    let mut seen = HashSet::new();
    let mut claims = Vec::new();
    for name in text.split(',').map(str::trim) {
        if name.is_empty() {
            return Err(ValueError::MissingName);
        }
        if !is_object_name(name) {
            return Err(ValueError::ClaimName(name.to_owned()));
        }
        if seen.insert(name) {
            claims.push(name.to_owned());
        }
    }
    Ok(claims)
}

pub(super) fn number(least: u32, most: u32) -> impl FnOnce(&str) -> Result<u32, ValueError> {
    move |text| match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(ValueError::Number { least, most }),
    }
}

/// `30` (seconds), `30s`, `5m`, `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, ValueError> {
    let parsed = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok().map(Duration::from_secs),
        false => text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok()),
    };
    match parsed {
        Some(duration) if duration >= Duration::from_millis(100) => Ok(duration),
        _ => Err(ValueError::Duration),
    }
}

/// A duration as settings have it, for a flag that stands for none.
///
/// # Errors
/// What is accepted.
pub fn duration_flag(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|error| error.to_string())
}

pub(super) fn flag(text: &str) -> Result<bool, ValueError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ValueError::Flag),
    }
}

pub(super) fn annotations(text: &str) -> Result<Annotations, ValueError> {
    match text {
        "any" => Ok(Annotations::Any),
        "more" => Ok(Annotations::More),
        _ => Err(ValueError::Annotations),
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, ValueError> {
    match text.contains('\0') {
        true => Err(ValueError::Path),
        false => Ok(PathBuf::from(text)),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, ValueError> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(ValueError::LogFormat),
    }
}

pub(super) fn url(text: &str) -> Result<SecretUrl, ValueError> {
    Ok(SecretUrl::parse(text)?)
}

pub(super) fn ping_url(text: &str) -> Result<PingUrl, ValueError> {
    Ok(PingUrl::parse(text)?)
}

pub(super) fn ping_failures(text: &str) -> Result<PingFailures, ValueError> {
    match text {
        "final" => Ok(PingFailures::Final),
        "all" => Ok(PingFailures::All),
        _ => Err(ValueError::PingFailures),
    }
}

pub(super) fn events(text: &str) -> Result<EventChoice, ValueError> {
    match text {
        "all" => Ok(EventChoice::All),
        "warnings" => Ok(EventChoice::Warnings),
        "off" => Ok(EventChoice::Off),
        _ => Err(ValueError::Events),
    }
}

/// A level, or levels by module: `debug`, `info,kube_client=debug`. A module without a level would
/// do as well for the library, and so would a level that is misspelt: it would silence everything.
pub(super) fn log_filter(text: &str) -> Result<Targets, ValueError> {
    let is_level =
        |part: &str| part.rsplit('=').next().is_some_and(|level| level.trim().parse::<LevelFilter>().is_ok());
    match text.parse::<Targets>() {
        Ok(targets) if text.split(',').all(is_level) => Ok(targets),
        _ => Err(ValueError::LogFilter),
    }
}

/// A moment: RFC 3339, or without an offset in UTC.
pub(super) fn moment(text: &str) -> Result<Timestamp, ValueError> {
    let in_utc = || format!("{text}Z").parse().ok();
    // A date alone would be read as its midnight, before all that was taken that day.
    let has_time = text.contains(':');
    text.parse().ok().or_else(in_utc).filter(|_| has_time).ok_or(ValueError::Moment)
}

/// An amount of storage.
pub(super) fn bytes(text: &str) -> Result<Bytes, ValueError> {
    Ok(text.parse()?)
}

/// Rules of retention.
pub(super) fn rules(text: &str) -> Result<Rules, ValueError> {
    Ok(text.parse()?)
}

/// How often.
pub(super) fn every(text: &str) -> Result<Every, ValueError> {
    text.parse().map_err(ValueError::Every)
}

/// A length of time in days and the like.
pub(super) fn window(text: &str) -> Result<Window, ValueError> {
    text.parse().map_err(ValueError::Every)
}

/// The name of an image, which only a node can check.
pub(super) fn image(text: &str) -> Result<String, ValueError> {
    match text.chars().all(|character| character.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::Image),
    }
}

/// A program and its arguments.
pub(super) fn command(text: &str) -> Result<Vec<String>, ValueError> {
    argv(text).map_err(ValueError::Command)
}

/// What stands for the name of a claim in a pattern.
pub(super) const CLAIM_PLACEHOLDER: &str = "{claim}";

/// A pattern for the names of claims: `{claim}-restored`.
pub(super) fn claim_pattern(text: &str) -> Result<String, ValueError> {
    let is_pattern =
        text.contains(CLAIM_PLACEHOLDER) && names::is_object_name(&text.replace(CLAIM_PLACEHOLDER, "x"));
    match is_pattern {
        true => Ok(text.to_owned()),
        false => Err(ValueError::ClaimPattern),
    }
}

/// The key of a label.
pub(super) fn label_key(text: &str) -> Result<String, ValueError> {
    match names::is_label_key(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::LabelKey),
    }
}

/// Labels, each once: `release=1.2.3,team=shop`.
pub(super) fn labels(text: &str) -> Result<BTreeMap<String, String>, ValueError> {
    let mut labels = BTreeMap::new();
    for pair in text.split(',').map(str::trim) {
        let shown = crate::text::foreign(pair);
        let problem = |problem: &str| Err(ValueError::Labels(format!("{shown:?} {problem}")));
        let Some((key, value)) = pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            return problem("is not a label with its value");
        };
        if !names::is_label_key(key) {
            return problem("does not begin with the key of a label");
        }
        if !is_label_value(value) {
            return problem("does not end with the value of a label");
        }
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return problem("is there twice");
        }
    }
    Ok(labels)
}

/// Labels for what a run makes.
pub(super) fn own_labels(text: &str) -> Result<BTreeMap<String, String>, ValueError> {
    let labels = labels(text)?;
    match labels.keys().find_map(|key| Some((key, names::user_of_label(key)?))) {
        Some((key, user)) => Err(ValueError::Labels(format!("the label {key} is used by {user}"))),
        None => Ok(labels),
    }
}

/// Access modes, each once, in the order in which they were given.
pub(super) fn access_modes(text: &str) -> Result<Vec<String>, ValueError> {
    const MODES: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let mut modes = Vec::new();
    for given in text.split(',').map(str::trim) {
        let known = MODES.iter().find(|(name, short)| given == *name || given == *short);
        let Some((name, _)) = known else {
            return Err(ValueError::AccessMode(given.to_owned()));
        };
        if !modes.iter().any(|mode| mode == name) {
            modes.push((*name).to_owned());
        }
    }
    Ok(modes)
}

pub(super) fn volume_mode(text: &str) -> Result<VolumeMode, ValueError> {
    match text {
        "Filesystem" => Ok(VolumeMode::Filesystem),
        "Block" => Ok(VolumeMode::Block),
        _ => Err(ValueError::VolumeMode),
    }
}
