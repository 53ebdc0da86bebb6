//! From environment variables and flags to values, or to all that is wrong with them. Which
//! variables there are is in [`super`] and [`super::restore`].

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use clap::{ArgMatches, Args};
use serde::de::DeserializeOwned;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::values::{LogFormat, Ping, ValueError};

/// What the names of variables end with whose values are secrets.
const OF_SECRETS: &str = "_URL";

/// The variable that filters the log, by the name that Rust programs use.
pub(super) const FILTER: &str = "RUST_LOG";

/// A flag of the command line, which stands in the place of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The variable that it sets.
    pub variable: String,
    /// The flag, for messages: `--size`.
    pub name: String,
    /// What it was given.
    pub value: OsString,
}

/// Adds the flags of `A` to a command. Their help texts say which variables they stand in for.
pub(super) fn add_flags<A: Args>(prefix: &str, names: &[&str], command: clap::Command) -> clap::Command {
    A::augment_args(command).mut_args(|argument| match variable(prefix, names, &argument) {
        Some(variable) => {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            argument.help(format!("{help} [env: {variable}]"))
        }
        None => argument,
    })
}

/// The variable that a flag stands in for: the flag's id is its name in lower case, without the prefix.
fn variable(prefix: &str, names: &[&str], argument: &clap::Arg) -> Option<String> {
    let variable = format!("{prefix}{}", argument.get_id().as_str().to_ascii_uppercase());
    names.contains(&variable.as_str()).then_some(variable)
}

/// The flags of a command that were given and stand in for variables.
pub(super) fn flags(
    prefix: &str,
    names: &[&str],
    command: &clap::Command,
    matches: &ArgMatches,
) -> Vec<Flag> {
    let given = |argument: &clap::Arg| {
        let variable = variable(prefix, names, argument)?;
        // More than one are names of claims.
        let values: Vec<&OsStr> = matches.get_raw(argument.get_id().as_str())?.collect();
        let name = match (argument.get_long(), argument.get_value_names()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some([name, ..])) => name.to_string(),
            (None, _) => variable.clone(),
        };
        Some(Flag { variable, name, value: values.join(OsStr::new(",")) })
    };
    command.get_arguments().filter_map(given).collect()
}

/// All that is wrong with the settings. `Display` gives a line for each problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// All problems of several readings of the variables.
    pub(super) fn joined(all: impl IntoIterator<Item = Option<Problems>>) -> Self {
        Problems(all.into_iter().flatten().flat_map(|problems| problems.0).collect())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    /// The variable's whole name, or the flag.
    name: String,
    /// Its value, where that is the problem.
    value: Option<String>,
    /// What is wrong and what would be accepted.
    problem: String,
}

/// The values of the variables without the prefix.
pub(super) struct Others(Vec<(String, String)>);

impl Others {
    /// The value of one of them.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// Where the termination message goes, how log lines look, and who is pinged, as far as that can be told from
/// settings that have problems: the problems are to be reported as well.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// See [`super::Settings::termination_log`].
    pub termination_log: PathBuf,
    /// See [`super::Settings::log_format`].
    pub log_format: Option<LogFormat>,
    /// See [`super::Settings::ping`].
    pub ping: Option<Box<Ping>>,
}

/// `info`, of this program alone: what its libraries have to say is said again in its own words, with
/// what was tried and what follows.
pub fn default_filter() -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO)
}

/// The log's filter by itself, for a command that has no settings: the value of `RUST_LOG`, if it is set.
///
/// # Errors
/// What is wrong with the value, and what is accepted.
pub fn filter(value: Option<OsString>) -> Result<Targets, String> {
    let text = value.map(|value| value.to_string_lossy().trim().to_owned()).unwrap_or_default();
    if text.is_empty() {
        return Ok(default_filter());
    }
    super::values::log_filter(&text).map_err(|error| format!("{FILTER}={text:?}: {error}"))
}

/// Collects the problems while the values are read.
pub(super) struct Reader {
    /// What the variables' names begin with.
    prefix: &'static str,
    /// All that there are.
    names: &'static [&'static str],
    /// The variables that flags set, with the flags.
    flags: Vec<(String, String)>,
    problems: Vec<Problem>,
}

impl Reader {
    /// For variables of this prefix and these names.
    pub(super) fn new(prefix: &'static str, names: &'static [&'static str]) -> Self {
        Reader { prefix, names, flags: Vec::new(), problems: Vec::new() }
    }

    /// The value of a secret is not repeated.
    pub(super) fn problem(&mut self, name: &str, value: Option<&str>, problem: String) {
        let value = value.filter(|_| !name.ends_with(OF_SECRETS));
        let flag = self.flags.iter().find(|(variable, _)| variable == name).map(|(_, flag)| flag.as_str());
        self.problems.push(Problem {
            name: crate::text::foreign(flag.unwrap_or(name)),
            value: value.map(crate::text::foreign),
            problem,
        });
    }

    /// Nothing, or all that was wrong.
    pub(super) fn finish(self) -> Option<Problems> {
        (!self.problems.is_empty()).then_some(Problems(self.problems))
    }

    /// The values, as `envy` puts them into `V`, and those of variables without the prefix. A flag
    /// wins over its variable, and over those that `excluded` names beside it.
    pub(super) fn read<V: DeserializeOwned + Default>(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
        excluded: &[[&str; 2]],
    ) -> (V, Others) {
        self.flags = flags.iter().map(|flag| (flag.variable.clone(), flag.name.clone())).collect();
        let is_set = |name: &str| flags.iter().any(|flag| flag.variable == name);
        let is_overruled = |name: &OsString| {
            let name = name.to_str().unwrap_or_default();
            let by_other =
                |[one, other]: &[&str; 2]| name == *one && is_set(other) || name == *other && is_set(one);
            is_set(name) || excluded.iter().any(by_other)
        };
        let variables: Vec<_> = variables.into_iter().filter(|(name, _)| !is_overruled(name)).collect();
        for flag in &flags {
            if flag.value.to_str().is_some_and(|value| value.trim().is_empty()) {
                self.problem(&flag.variable, None, "the value is empty".to_owned());
            }
        }
        let of_flags = flags.into_iter().map(|flag| (OsString::from(flag.variable), flag.value));
        let pairs = self.accept(variables.into_iter().chain(of_flags));
        let (pairs, others): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(name, _)| name.starts_with(self.prefix));
        match envy::prefixed(self.prefix).from_iter(pairs) {
            Ok(variables) => (variables, Others(others)),
            // Every field is optional text, so this has no cause that is known.
            Err(error) => {
                self.problem(self.prefix, None, error.to_string());
                (V::default(), Others(others))
            }
        }
    }

    /// The variables that are this program's, known, readable and not empty.
    fn accept(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
        let mut accepted = Vec::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().map(str::to_owned) else {
                let name = name.to_string_lossy();
                if name.starts_with(self.prefix) {
                    self.problem(&name, None, "the name is not valid UTF-8".to_owned());
                }
                continue;
            };
            let is_known = self.names.contains(&name.as_str());
            if !name.starts_with(self.prefix) && !is_known {
                continue;
            }
            if !is_known {
                self.problem(&name, None, self.unknown(&name));
                continue;
            }
            match value.into_string() {
                Ok(value) if value.trim().is_empty() => {}
                Ok(value) => accepted.push((name, value.trim().to_owned())),
                Err(value) => self.problem(
                    &name,
                    Some(&value.to_string_lossy()),
                    "the value is not valid UTF-8".to_owned(),
                ),
            }
        }
        self.problems.sort_by(|a, b| a.name.cmp(&b.name));
        accepted
    }

    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        value: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let value = value?;
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(name, Some(&value), error.to_string());
                None
            }
        }
    }

    /// What to say of a variable that begins like ours and is none.
    fn unknown(&self, name: &str) -> String {
        let nearest = self
            .names
            .iter()
            .filter(|known| known.starts_with(self.prefix))
            // Who left the end out meant the whole, however far that is.
            .min_by_key(|known| (!known.starts_with(name), strsim::damerau_levenshtein(known, name)));
        let mut said = "there is no such setting".to_owned();
        if let Some(nearest) = nearest {
            said.push_str(&format!("; the nearest is {nearest}"));
        }
        // Kubernetes sets such variables for a Service named `snapshot` or `snapshot-…`.
        let of_service = name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.ends_with("_PORT")
            || name.contains("_PORT_");
        if of_service {
            said.push_str(
                "; if Kubernetes set it for a Service of that name, give the pod enableServiceLinks: false",
            );
        }
        said
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}: {}", self.name, self.problem),
            None => write!(f, "{}: {}", self.name, self.problem),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the settings; nothing was changed", crate::text::count(self.0.len(), "problem"))?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
