//! The settings of a drill: environment variables `VERIFY_*` and the flags that stand in for them, beside those of the
//! run that makes the snapshots, which say whose they are. [`VerifySettings`] or all that is wrong with them out.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgMatches, Args};
use serde::Deserialize;

use super::{
    Settings,
    reader::{self, Fallback, Flag, Problems, Reader},
    run::{Variable, variable},
    values::{self, Ping},
};
use crate::{retention::Window, url::PingUrl};

/// What the variables' names begin with.
const PREFIX: &str = "VERIFY_";

/// How long a drill may take to say what it came to, and to clean up, besides telling people of it.
const ALLOWANCE: Duration = Duration::from_secs(120);

/// The longest that the reading of one volume may be told to take.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that a drill may be told to take.
const MAX_TIME_LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// All that a user can choose.
#[derive(Clone, Debug)]
pub struct VerifySettings {
    /// The settings of the schedule whose snapshots are verified. What a run makes and prunes by is not used.
    pub run: Settings,
    /// How long a verification of the newest snapshot holds (`VERIFY_EVERY`).
    pub every: Window,
    /// How old the newest snapshot may be; unset for any age (`VERIFY_MAX_AGE`).
    pub max_age: Option<Window>,
    /// How many volumes are made and read at a time (`VERIFY_PARALLEL`).
    pub parallel: usize,
    /// How long the volume of one snapshot may take to be made and read (`VERIFY_TIMEOUT`).
    pub timeout: Duration,
    /// How long all of them may take together (`VERIFY_TIME_LIMIT`).
    pub time_limit: Duration,
    /// The image of the pod that reads; unset for that of the CronJobs (`VERIFY_IMAGE`).
    pub image: Option<String>,
    /// The program that checks the volume, and its arguments; unset for reading every byte (`VERIFY_COMMAND`).
    pub command: Option<Vec<String>>,
    /// Whether a volume without a byte in it is as good as another (`VERIFY_ALLOW_EMPTY`).
    pub allow_empty: bool,
    /// The StorageClass; unset for that of the snapshot's claim (`VERIFY_STORAGE_CLASS`).
    pub storage_class: Option<String>,
    /// Whether a StorageClass may keep the volumes of a drill when it is over (`VERIFY_ALLOW_RETAIN`).
    pub allow_retain: bool,
    /// A file with what else the pod needs (`VERIFY_POD_TEMPLATE`).
    pub pod_template: Option<PathBuf>,
    /// Who is pinged after a drill (`VERIFY_PING_URL`); see [`VerifySettings::ping`].
    pub ping_url: Option<PingUrl>,
}

/// The variables as `envy` reads them, and the flags that stand in for them; see the settings of a run.
#[derive(Default, Deserialize, Args)]
#[serde(default)]
struct DrillVariables {
    #[arg(skip)]
    every: Option<String>,
    /// Fail if the newest snapshot is older than that: 2d [default: of any age]
    #[arg(long, value_name = "AGE")]
    max_age: Option<String>,
    /// How many volumes are made and read at a time [default: 2]
    #[arg(long, value_name = "NUMBER")]
    parallel: Option<String>,
    /// How long one may take: 30m, 2h [default: 1h]
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    #[arg(skip)]
    time_limit: Option<String>,
    /// Image of the pod that reads [default: that of the CronJobs]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Program that checks the volume at /data: '["sh", "-c", "test -s /data/x"]' [default: read every byte]
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// An empty volume is no failure
    #[arg(long, num_args = 0, default_missing_value = "true")]
    allow_empty: Option<String>,
    /// StorageClass [default: that of the snapshot's claim]
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// A StorageClass may keep the volumes of the drill
    #[arg(long, num_args = 0, default_missing_value = "true")]
    allow_retain: Option<String>,
    /// File (YAML) with what else the pod needs
    #[arg(long, value_name = "FILE")]
    pod_template: Option<String>,
    #[arg(skip)]
    ping_url: Option<String>,
}

/// All variables of a drill, in the order in which the documentation gives them.
pub const VERIFY_VARIABLES: [Variable; 12] = [
    variable("VERIFY_EVERY", "7d", "how long a verification of the newest snapshot holds: 12h, 7d, 1mo"),
    variable("VERIFY_MAX_AGE", "", "how old the newest snapshot may be: 2d; an older one is a failure"),
    variable("VERIFY_PARALLEL", "2", "how many volumes are made and read at a time"),
    variable("VERIFY_TIMEOUT", "1h", "how long making and reading one volume may take: 30m, 2h"),
    variable("VERIFY_TIME_LIMIT", "6h", "how long the whole drill may take"),
    variable("VERIFY_IMAGE", "that of the CronJobs", "image of the pod that reads"),
    variable(
        "VERIFY_COMMAND",
        "read every byte",
        "program that checks the volume at /data, with its arguments as a JSON array: [\"sh\", \"-c\", \"…\"]",
    ),
    variable("VERIFY_ALLOW_EMPTY", "false", "true: a volume with nothing in it is no failure"),
    variable("VERIFY_STORAGE_CLASS", "that of the snapshot's claim", "StorageClass of the volumes"),
    variable(
        "VERIFY_ALLOW_RETAIN",
        "false",
        "true: go on with a StorageClass that keeps deleted volumes, which stay and cost",
    ),
    variable("VERIFY_POD_TEMPLATE", "", "file (YAML) with what else the pod needs"),
    variable(
        "VERIFY_PING_URL",
        "",
        "URL that is sent the final message, with the placeholders of SNAPSHOT_PING_URL, which is not pinged",
    ),
];

/// The names of [`VERIFY_VARIABLES`].
pub const VERIFY_NAMES: [&str; VERIFY_VARIABLES.len()] = {
    let mut names = [""; VERIFY_VARIABLES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = VERIFY_VARIABLES[index].name;
        index += 1;
    }
    names
};

impl VerifySettings {
    /// Adds the flags that stand in for variables to a command, those of `list` for the choice of claims among them.
    pub fn add_flags(command: clap::Command) -> clap::Command {
        reader::add_flags::<DrillVariables>(PREFIX, &VERIFY_NAMES, Settings::add_list_flags(command))
    }

    /// Those of them that were given: of the run's settings, and of the drill's.
    pub fn flags(command: &clap::Command, matches: &ArgMatches) -> (Vec<Flag>, Vec<Flag>) {
        (Settings::list_flags(command, matches), reader::flags(PREFIX, &VERIFY_NAMES, command, matches))
    }

    /// Reads the settings from environment variables and the flags that win over them; other variables than
    /// `SNAPSHOT_*`, `VERIFY_*` and `RUST_LOG` are passed over.
    ///
    /// # Errors
    /// Every problem that there is, at once, with what can be told all the same of how to report them.
    pub fn parse(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        (of_run, of_drill): (Vec<Flag>, Vec<Flag>),
    ) -> Result<Self, (Problems, Fallback)> {
        let variables: Vec<_> = variables.into_iter().collect();
        let run = Settings::parse_for_drill(variables.iter().cloned(), of_run);
        let mut reader = Reader::new(PREFIX, &VERIFY_NAMES);
        let (own, _) = reader.read::<DrillVariables>(variables, of_drill, &[]);
        // Destructured, so that a variable that is added cannot be forgotten here.
        let DrillVariables {
            every,
            max_age,
            parallel,
            timeout,
            time_limit,
            image,
            command,
            allow_empty,
            storage_class,
            allow_retain,
            pod_template,
            ping_url,
        } = own;
        let week = || "7d".parse::<Window>().map_err(values::ValueError::Every);
        let every = reader.optional("VERIFY_EVERY", every, values::window);
        let max_age = reader.optional("VERIFY_MAX_AGE", max_age, values::window);
        let parallel = reader.optional("VERIFY_PARALLEL", parallel, values::number(1, 100)).unwrap_or(2);
        let timeout = reader
            .optional("VERIFY_TIMEOUT", timeout, values::duration)
            .unwrap_or(Duration::from_secs(60 * 60));
        let time_limit = reader
            .optional("VERIFY_TIME_LIMIT", time_limit, values::duration)
            .unwrap_or(Duration::from_secs(6 * 60 * 60));
        let image = reader.optional("VERIFY_IMAGE", image, values::image);
        let command = reader.optional("VERIFY_COMMAND", command, values::command);
        let allow_empty = reader.optional("VERIFY_ALLOW_EMPTY", allow_empty, values::flag).unwrap_or(false);
        let storage_class = reader.optional("VERIFY_STORAGE_CLASS", storage_class, values::object_name);
        let allow_retain =
            reader.optional("VERIFY_ALLOW_RETAIN", allow_retain, values::flag).unwrap_or(false);
        let pod_template = reader.optional("VERIFY_POD_TEMPLATE", pod_template, values::path);
        let ping_url = reader.optional("VERIFY_PING_URL", ping_url, values::ping_url);
        let every = every.or_else(|| week().ok());
        if timeout > MAX_TIMEOUT {
            reader.problem("VERIFY_TIMEOUT", None, "more than a day; at most 24h is accepted".to_owned());
        } else if timeout < Duration::from_secs(1) {
            reader.problem("VERIFY_TIMEOUT", None, "less than a second".to_owned());
        }
        if time_limit > MAX_TIME_LIMIT {
            reader.problem(
                "VERIFY_TIME_LIMIT",
                None,
                "more than a week; at most 168h is accepted".to_owned(),
            );
        } else if time_limit < timeout && timeout <= MAX_TIMEOUT {
            let problem = format!(
                "{} is less than one volume may take; it has to be at least VERIFY_TIMEOUT, which is {}",
                crate::text::duration(time_limit),
                crate::text::duration(timeout)
            );
            reader.problem("VERIFY_TIME_LIMIT", None, problem);
        }
        let own_problems = reader.finish();
        match (run, own_problems, every) {
            (Ok(run), None, Some(every)) => Ok(VerifySettings {
                run,
                every,
                max_age,
                parallel: parallel as usize,
                timeout,
                time_limit,
                image,
                command,
                allow_empty,
                storage_class,
                allow_retain,
                pod_template,
                ping_url,
            }),
            (run, own_problems, _) => {
                let (mut fallback, problems) = match run {
                    Ok(run) => (fallback(&run), None),
                    Err((problems, fallback)) => (fallback, Some(problems)),
                };
                // Who watches the runs is not told of drills.
                fallback.ping = None;
                Err((Problems::joined([problems, own_problems]), fallback))
            }
        }
    }

    /// The longest that a drill takes, whatever happens: it ends itself then.
    pub fn bound(&self) -> Duration {
        self.time_limit + ALLOWANCE
    }

    /// Who is to be pinged; nobody after a dry run, which says nothing of the snapshots that there are.
    pub fn ping(&self) -> Option<Ping> {
        let url = self.ping_url.clone().filter(|_| !self.run.dry_run)?;
        Some(Ping {
            url,
            failures: self.run.ping_failures,
            ca_file: self.run.notify_ca_file.clone(),
            schedule: self.run.schedule.clone(),
            run_uid: self.run.run_uid.clone(),
            shard: self.run.shard,
        })
    }
}

fn fallback(run: &Settings) -> Fallback {
    Fallback { termination_log: run.termination_log.clone(), log_format: run.log_format, ping: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<VerifySettings, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        VerifySettings::parse(pairs, Default::default()).map_err(|(problems, _)| problems.to_string())
    }

    #[test]
    fn nothing_has_to_be_set() {
        let settings = parse(&[]).expect("settings");
        assert_eq!((settings.every.to_string().as_str(), &settings.max_age), ("7d", &None));
        assert_eq!((settings.parallel, settings.timeout.as_secs()), (2, 3600));
        assert_eq!(settings.bound().as_secs(), 6 * 3600 + 120);
        assert!(!settings.allow_empty && !settings.allow_retain && settings.command.is_none());
        assert_eq!(settings.run.schedule, "volume-snapshotter");
    }

    #[test]
    fn the_settings_of_the_run_say_whose_snapshots_they_are() {
        let settings = parse(&[
            ("SNAPSHOT_JOB", "nightly"),
            ("SNAPSHOT_PVC_NAMES", "data,logs"),
            // Of the ConfigMap that both use.
            ("SNAPSHOT_RETENTION", "daily=7"),
            ("SNAPSHOT_PING_URL", "https://host/run"),
            ("VERIFY_PING_URL", "https://host/drill"),
        ]);
        let settings = settings.expect("settings");
        assert_eq!(settings.run.schedule, "nightly");
        let ping = settings.ping().expect("a ping");
        assert!(ping.url.to_string().starts_with("https://host"));
        assert!(parse(&[("SNAPSHOT_PING_URL", "https://host/run")]).expect("settings").ping().is_none());
        let dry = parse(&[("SNAPSHOT_DRY_RUN", "true"), ("VERIFY_PING_URL", "https://host/")]);
        assert!(dry.expect("settings").ping().is_none());
    }

    #[test]
    fn every_value_is_checked_and_all_problems_are_said_at_once() {
        for (name, value, accepted) in [
            ("VERIFY_EVERY", "weekly", "e.g. 14d"),
            ("VERIFY_MAX_AGE", "0d", "not above zero"),
            ("VERIFY_PARALLEL", "0", "from 1 to 100"),
            ("VERIFY_TIMEOUT", "25h", "at most 24h"),
            ("VERIFY_TIMEOUT", "0.5s", "less than a second"),
            ("VERIFY_TIME_LIMIT", "169h", "at most 168h"),
            ("VERIFY_TIME_LIMIT", "30m", "at least VERIFY_TIMEOUT"),
            ("VERIFY_IMAGE", "two words", "not the name of an image"),
            ("VERIFY_COMMAND", "sqlite3 /data/x", "JSON array"),
            ("VERIFY_COMMAND", "[]", "no program"),
            ("VERIFY_ALLOW_EMPTY", "yes", "true nor false"),
            ("VERIFY_STORAGE_CLASS", "a b", "lower-case letters"),
            ("VERIFY_PING_URL", "host", "URL"),
            ("VERIFY_TIMEOT", "1m", "the nearest is VERIFY_TIMEOUT"),
            ("SNAPSHOT_JOB", "no label!", "not the value of a label"),
            ("SNAPSHOT_NAMESPACE_SELECTOR", "team=shop", "one namespace"),
        ] {
            let problems = parse(&[(name, value)]).expect_err(name);
            assert!(problems.starts_with("1 problem in the settings; nothing was changed\n"), "{problems}");
            assert!(problems.contains(accepted), "{name}={value}: {problems}");
        }
        let problems = parse(&[("SNAPSHOT_JOB", "!"), ("VERIFY_PARALLEL", "x")]).expect_err("problems");
        assert!(problems.starts_with("2 problems"), "{problems}");
    }
}
