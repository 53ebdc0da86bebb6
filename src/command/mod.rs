//! The command line: from arguments to what they ask for, or to what is wrong with them. Pure.
//!
//! Flags stand for settings: what a value may be is decided where the variable of the same meaning
//! is read, in [`crate::settings`].

mod help;

use std::{ffi::OsString, path::PathBuf};

use lexopt::{Arg, Parser, ValueExt};

pub use help::{HELP, LIST_HELP, RESTORE_HELP};

use crate::{list::Extent, settings::Flag};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A run, with the settings of the environment.
    Run,
    /// Which snapshots there are.
    List(ListCommand),
    /// A new claim from a snapshot.
    Restore(RestoreCommand),
    /// A text for standard output: help, the version, a script for a shell.
    Text(&'static str),
}

/// How `list` was called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListCommand {
    /// What stands in the place of variables.
    pub flags: Vec<Flag>,
    /// The kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Its context.
    pub context: Option<String>,
    /// What is listed.
    pub extent: Extent,
    /// How it is shown.
    pub output: Output,
}

/// How a list is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// A table that fits the terminal.
    #[default]
    Table,
    /// A table of all there is to say.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// How `restore` was called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreCommand {
    /// What stands in the place of variables.
    pub flags: Vec<Flag>,
    /// The kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Its context.
    pub context: Option<String>,
}

const VERSION: &str = concat!("volume-snapshotter ", env!("CARGO_PKG_VERSION"), "\n");

/// The shells with the scripts that complete the command line in them.
pub const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", include_str!("completions/volume-snapshotter.bash")),
    ("zsh", include_str!("completions/_volume-snapshotter")),
    ("fish", include_str!("completions/volume-snapshotter.fish")),
];

/// One flag of a command.
#[derive(Clone, Copy, Debug)]
pub struct FlagSpec {
    /// Its letter.
    pub short: Option<char>,
    /// Its name, with the dashes.
    pub long: &'static str,
    /// What it means.
    meaning: Meaning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The variable of this name has the value that follows.
    Value(&'static str),
    /// The variable of this name is `true`.
    True(&'static str),
    Kubeconfig,
    Context,
    Output,
    AllSchedules,
    AllNamespaces,
    Help,
}

impl FlagSpec {
    /// Whether a value follows.
    pub fn takes_value(&self) -> bool {
        matches!(self.meaning, Meaning::Value(_) | Meaning::Kubeconfig | Meaning::Context | Meaning::Output)
    }
}

const fn flag(short: Option<char>, long: &'static str, meaning: Meaning) -> FlagSpec {
    FlagSpec { short, long, meaning }
}

/// The flags of `list`.
pub const LIST_FLAGS: &[FlagSpec] = &[
    flag(Some('l'), "--selector", Meaning::Value("SNAPSHOT_PVC_SELECTOR")),
    flag(Some('n'), "--namespace", Meaning::Value("SNAPSHOT_NAMESPACE")),
    flag(Some('A'), "--all-namespaces", Meaning::AllNamespaces),
    flag(None, "--kubeconfig", Meaning::Kubeconfig),
    flag(None, "--context", Meaning::Context),
    flag(None, "--job", Meaning::Value("SNAPSHOT_JOB")),
    flag(None, "--all", Meaning::AllSchedules),
    flag(None, "--retention", Meaning::Value("SNAPSHOT_RETENTION")),
    flag(Some('o'), "--output", Meaning::Output),
    flag(Some('h'), "--help", Meaning::Help),
];

/// The flags of `restore`.
pub const RESTORE_FLAGS: &[FlagSpec] = &[
    flag(None, "--claim", Meaning::Value("RESTORE_CLAIM")),
    flag(None, "--snapshot", Meaning::Value("RESTORE_SNAPSHOT")),
    flag(None, "--at", Meaning::Value("RESTORE_AT")),
    flag(None, "--to", Meaning::Value("RESTORE_TO")),
    flag(Some('n'), "--namespace", Meaning::Value("RESTORE_NAMESPACE")),
    flag(None, "--kubeconfig", Meaning::Kubeconfig),
    flag(None, "--context", Meaning::Context),
    flag(None, "--job", Meaning::Value("RESTORE_JOB")),
    flag(None, "--size", Meaning::Value("RESTORE_SIZE")),
    flag(None, "--storage-class", Meaning::Value("RESTORE_STORAGE_CLASS")),
    flag(None, "--access-modes", Meaning::Value("RESTORE_ACCESS_MODES")),
    flag(None, "--volume-mode", Meaning::Value("RESTORE_VOLUME_MODE")),
    flag(None, "--timeout", Meaning::Value("RESTORE_TIMEOUT")),
    flag(None, "--dry-run", Meaning::True("RESTORE_DRY_RUN")),
    flag(Some('h'), "--help", Meaning::Help),
];

/// What the flags of a command came to.
#[derive(Default)]
struct Read {
    flags: Vec<Flag>,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    extent: Extent,
    output: Output,
    /// What is no flag.
    arguments: Vec<OsString>,
    help: bool,
}

/// Reads the command line, without the program's name.
///
/// # Errors
/// What is wrong, in words.
pub fn command(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = Parser::from_args(arguments);
    let mut version = false;
    while let Some(argument) = parser.next().map_err(|error| said(&error, ""))? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Text(HELP)),
            Arg::Short('V') | Arg::Long("version") => version = true,
            Arg::Value(name) if !version => return subcommand(&name, &mut parser),
            other => return Err(unknown(&other.unexpected(), "")),
        }
    }
    Ok(if version { Command::Text(VERSION) } else { Command::Run })
}

fn subcommand(name: &OsString, parser: &mut Parser) -> Result<Command, String> {
    match name.to_str() {
        Some("list") => list(parser),
        Some("restore") => restore(parser),
        Some("completion") => completion(parser),
        _ => Err(format!(
            "unknown argument {:?}; the commands are list, restore and completion, and all settings of a run are \
             environment variables, see --help",
            name.to_string_lossy()
        )),
    }
}

fn list(parser: &mut Parser) -> Result<Command, String> {
    let Read { mut flags, kubeconfig, context, extent, output, arguments, help } =
        read(parser, "list", LIST_FLAGS)?;
    if help {
        return Ok(Command::Text(LIST_HELP));
    }
    let has = |variable: &str| flags.iter().any(|flag| flag.variable == variable);
    if extent.all_namespaces && has("SNAPSHOT_NAMESPACE") {
        return Err("--namespace and --all-namespaces exclude each other; see list --help".to_owned());
    }
    if !arguments.is_empty() && has("SNAPSHOT_PVC_SELECTOR") {
        return Err("claims are chosen by name or by --selector, not by both; see list --help".to_owned());
    }
    if !arguments.is_empty() {
        let value = arguments.join(std::ffi::OsStr::new(","));
        flags.push(Flag { variable: "SNAPSHOT_PVC_NAMES", name: "CLAIM", value });
    }
    Ok(Command::List(ListCommand { flags, kubeconfig, context, extent, output }))
}

fn restore(parser: &mut Parser) -> Result<Command, String> {
    let Read { flags, kubeconfig, context, arguments, help, .. } = read(parser, "restore", RESTORE_FLAGS)?;
    if help {
        return Ok(Command::Text(RESTORE_HELP));
    }
    if let Some(argument) = arguments.first() {
        return Err(format!(
            "unknown argument {:?}; what is wanted is said with flags, such as --claim and --to, see restore --help",
            argument.to_string_lossy()
        ));
    }
    Ok(Command::Restore(RestoreCommand { flags, kubeconfig, context }))
}

fn completion(parser: &mut Parser) -> Result<Command, String> {
    let Read { arguments, help, .. } =
        read(parser, "completion", &[flag(Some('h'), "--help", Meaning::Help)])?;
    let known = match arguments.as_slice() {
        _ if help => return Ok(Command::Text(HELP)),
        [shell] => COMPLETIONS.iter().find(|(name, _)| shell == name),
        _ => None,
    };
    known
        .map(|(_, script)| Command::Text(script))
        .ok_or_else(|| "completion takes the name of a shell: bash, zsh or fish; see --help".to_owned())
}

/// Reads the rest of the command line. Of a flag that is given twice the last counts, as kubectl
/// has it.
fn read(parser: &mut Parser, command: &str, specs: &[FlagSpec]) -> Result<Read, String> {
    let mut read = Read::default();
    loop {
        let spec = match parser.next().map_err(|error| said(&error, command))? {
            None => return Ok(read),
            Some(Arg::Value(argument)) => {
                read.arguments.push(argument);
                continue;
            }
            Some(argument) => {
                let is_it = |spec: &&FlagSpec| match argument {
                    Arg::Short(short) => spec.short == Some(short),
                    Arg::Long(long) => spec.long.strip_prefix("--") == Some(long),
                    Arg::Value(_) => false,
                };
                match specs.iter().find(is_it) {
                    Some(spec) => *spec,
                    None => {
                        let nearest = nearest(&argument, specs);
                        return Err(unknown(&argument.unexpected(), command) + &nearest);
                    }
                }
            }
        };
        let mut value = || parser.value().map_err(|error| said(&error, command));
        let text = |value: OsString| {
            value.string().map_err(|error| format!("{}: {error}; see {command} --help", spec.long))
        };
        match spec.meaning {
            Meaning::Value(variable) => set(&mut read.flags, variable, spec.long, value()?),
            Meaning::True(variable) => set(&mut read.flags, variable, spec.long, "true".into()),
            // An empty one would mean the file that is there by default.
            Meaning::Kubeconfig => match value()? {
                path if path.is_empty() => {
                    return Err(format!("{}: the value is empty; see {command} --help", spec.long));
                }
                path => read.kubeconfig = Some(path.into()),
            },
            Meaning::Context => read.context = Some(text(value()?)?),
            Meaning::Output => {
                read.output = match text(value()?)?.as_str() {
                    "table" => Output::Table,
                    "wide" => Output::Wide,
                    "json" => Output::Json,
                    "yaml" => Output::Yaml,
                    other => {
                        return Err(format!(
                            "--output={other:?}: no such format; table, wide, json or yaml is accepted"
                        ));
                    }
                }
            }
            Meaning::AllSchedules => read.extent.all_schedules = true,
            Meaning::AllNamespaces => read.extent.all_namespaces = true,
            Meaning::Help => read.help = true,
        }
    }
}

fn set(flags: &mut Vec<Flag>, variable: &'static str, name: &'static str, value: OsString) {
    flags.retain(|flag| flag.variable != variable);
    flags.push(Flag { variable, name, value });
}

/// What the library has to say, and where to look.
fn said(error: &lexopt::Error, command: &str) -> String {
    let command = if command.is_empty() { String::new() } else { format!("{command} ") };
    format!("{error}; see {command}--help")
}

fn unknown(error: &lexopt::Error, command: &str) -> String {
    match command {
        "" => format!("{error}; all settings of a run are environment variables, see --help"),
        command => said(error, command),
    }
}

fn nearest(argument: &Arg<'_>, specs: &[FlagSpec]) -> String {
    let Arg::Long(given) = argument else { return String::new() };
    let distance = |spec: &&FlagSpec| strsim::damerau_levenshtein(spec.long.trim_start_matches('-'), given);
    let nearest = specs.iter().min_by_key(distance);
    nearest.map_or(String::new(), |spec| format!("; the nearest is {}", spec.long))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    fn read(line: &str) -> Result<Command, String> {
        command(line.split_whitespace().map(Into::into))
    }

    fn flags(command: Command) -> Vec<(&'static str, &'static str, String)> {
        let flags = match command {
            Command::List(list) => list.flags,
            Command::Restore(restore) => restore.flags,
            other => panic!("{other:?}"),
        };
        flags
            .into_iter()
            .map(|flag| (flag.variable, flag.name, flag.value.to_string_lossy().into_owned()))
            .collect()
    }

    #[test]
    fn without_a_command_it_is_a_run_and_two_flags_are_known() {
        assert_eq!(read(""), Ok(Command::Run));
        assert_eq!(read("--help"), Ok(Command::Text(HELP)));
        assert_eq!(read("-V"), Ok(Command::Text(VERSION)));
        for line in ["snapshot", "--version --oops", "-x", "--frobnicate", "--version list"] {
            assert!(read(line).is_err_and(|error| error.contains("--help")), "{line}");
        }
    }

    #[test]
    fn flags_stand_in_for_variables() {
        let list = read("list data logs -nshop --job=weekly --retention last=3 --kubeconfig=/k --context prod -o json --all")
            .expect("list");
        let Command::List(read_list) = &list else { panic!("{list:?}") };
        assert_eq!((read_list.context.as_deref(), read_list.output), (Some("prod"), Output::Json));
        assert_eq!(read_list.kubeconfig.as_deref(), Some(std::path::Path::new("/k")));
        assert_eq!(read_list.extent, Extent { all_schedules: true, all_namespaces: false });
        assert_eq!(
            flags(list),
            [
                ("SNAPSHOT_NAMESPACE", "--namespace", "shop".into()),
                ("SNAPSHOT_JOB", "--job", "weekly".into()),
                ("SNAPSHOT_RETENTION", "--retention", "last=3".into()),
                ("SNAPSHOT_PVC_NAMES", "CLAIM", "data,logs".into()),
            ]
        );
        assert_eq!(
            flags(read("restore --to=a --dry-run --claim data --to b").expect("restore")),
            [
                ("RESTORE_DRY_RUN", "--dry-run", "true".into()),
                ("RESTORE_CLAIM", "--claim", "data".into()),
                ("RESTORE_TO", "--to", "b".into()),
            ]
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_to_do() {
        for (line, problem) in [
            ("list --sellector a", "the nearest is --selector"),
            ("restore --form x", "see restore --help"),
            ("restore data", "unknown argument \"data\"; what is wanted is said with flags"),
            ("restore --to", "missing argument for option '--to'"),
            ("restore --dry-run=client --to x", "--dry-run"),
            ("list -o xml", "--output=\"xml\": no such format; table, wide, json or yaml is accepted"),
            ("list -A -n shop", "exclude each other"),
            ("list data -l app=web", "not by both"),
            ("list -x", "see list --help"),
            ("list --kubeconfig= data", "--kubeconfig: the value is empty"),
            ("completion", "bash, zsh or fish"),
            ("completion tcsh", "bash, zsh or fish"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(problem) && !error.contains('\n'), "{line}: {error}");
        }
    }

    #[test]
    fn every_flag_sets_a_variable_that_exists() {
        for (specs, names) in
            [(LIST_FLAGS, settings::NAMES.as_slice()), (RESTORE_FLAGS, settings::RESTORE_NAMES.as_slice())]
        {
            for spec in specs {
                if let Meaning::Value(variable) | Meaning::True(variable) = spec.meaning {
                    assert!(names.contains(&variable), "{variable}");
                }
            }
        }
    }

    #[test]
    fn the_help_texts_name_every_setting_and_every_flag_and_fit_80_columns() {
        for name in settings::NAMES {
            assert!(HELP.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
        }
        for name in settings::RESTORE_NAMES {
            assert!(RESTORE_HELP.contains(name), "{name}");
        }
        for (help, specs) in [(LIST_HELP, LIST_FLAGS), (RESTORE_HELP, RESTORE_FLAGS)] {
            for spec in specs {
                let begins = match spec.short {
                    Some(short) => format!("  -{short}, {} ", spec.long),
                    None => format!("      {} ", spec.long),
                };
                assert!(help.lines().any(|line| line.starts_with(&begins)), "{begins}");
            }
            // And no others.
            for line in help.lines().filter(|line| line.starts_with("  -") || line.starts_with("      --")) {
                let long = line.split_whitespace().find(|word| word.starts_with("--")).expect("a flag");
                assert!(specs.iter().any(|spec| spec.long == long), "{line}");
            }
        }
        let examples = |line: &&str| !line.starts_with("  volume-snapshotter ");
        for line in [HELP, LIST_HELP, RESTORE_HELP].iter().flat_map(|help| help.lines()).filter(examples) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn the_examples_of_the_help_texts_are_understood() {
        for line in [LIST_HELP, RESTORE_HELP].iter().flat_map(|help| help.lines()) {
            let Some(example) = line.strip_prefix("  volume-snapshotter ") else { continue };
            let example = example
                .split(" | ")
                .next()
                .unwrap_or_default()
                .replace("2026-11-20 08:55", "2026-11-20T08:55");
            let command =
                read(&example.replace('"', "")).unwrap_or_else(|error| panic!("{example}: {error}"));
            if let Command::Restore(restore) = command {
                settings::RestoreSettings::parse([], restore.flags)
                    .unwrap_or_else(|(problems, _)| panic!("{example}: {problems}"));
            }
        }
    }

    #[test]
    fn the_scripts_for_shells_know_every_command_and_flag_and_no_others() {
        for (shell, script) in COMPLETIONS {
            let known = |spec: &FlagSpec| match shell {
                "fish" => format!("-l {} ", spec.long.trim_start_matches('-')),
                _ => spec.long.to_owned(),
            };
            for command in ["list", "restore", "completion"] {
                assert!(script.contains(command), "{shell}: {command}");
            }
            for spec in LIST_FLAGS.iter().chain(RESTORE_FLAGS) {
                assert!(script.contains(&known(spec)), "{shell}: {}", spec.long);
            }
            let words =
                script.split(|character: char| !character.is_ascii_alphanumeric() && character != '-');
            for word in words.filter(|word| word.starts_with("--") && word.len() > 3 && shell != "fish") {
                let all = LIST_FLAGS.iter().chain(RESTORE_FLAGS);
                assert!(word == "--version" || all.clone().any(|spec| spec.long == word), "{shell}: {word}");
            }
        }
    }
}
