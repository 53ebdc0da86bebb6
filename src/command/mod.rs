//! The command line: from arguments to what they ask for, or to what is wrong with them.
//!
//! Flags stand for settings: which flags there are and what a value may be is decided where the variable
//! of the same meaning is read, in [`crate::settings`]. Pure but for completion, which answers a shell and asks
//! the cluster by a function that it is given.

mod completion;
mod help;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgGroup, ArgMatches, Args, FromArgMatches, ValueEnum, error::ErrorKind};

use completion::CompletionFlags;
pub use completion::{Line, Wanted, complete};

use crate::{
    adopt::Which,
    list::Extent,
    names, read,
    retention::{Rules, Window},
    settings::{self, Flag, RestoreSettings, Settings, VerifySettings},
    simulate::{self, Plan},
};

/// The name of the binary as a plugin of kubectl, which runs it as `kubectl volume-snapshotter`.
const PLUGIN: &str = "kubectl-volume_snapshotter";

/// Where Kubernetes looks for a termination message.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// With what a command does where others have the line that the list of commands has.
const TEMPLATE: &str = "{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A run, with the settings of the environment.
    Run,
    /// Which snapshots there are.
    List(ListCommand),
    /// A new claim from a snapshot.
    Restore(RestoreCommand),
    /// Snapshots of other tools for a schedule.
    Adopt(AdoptCommand),
    /// What a policy would hold.
    Simulate(SimulateCommand),
    /// Whether volumes can be made from snapshots and read.
    Verify(VerifyCommand),
    /// Every byte of a volume.
    Read(ReadCommand),
    /// A text for standard output: the version, a script for a shell.
    Text(String),
}

/// How `list` was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListCommand {
    /// What stands in the place of variables.
    pub flags: Vec<Flag>,
    /// Which cluster.
    pub cluster: ClusterFlags,
    /// What is listed.
    pub extent: Extent,
    /// How it is shown.
    pub output: Output,
    /// The keys of the labels that the table has columns for.
    pub labels: Vec<String>,
}

/// How `restore` was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreCommand {
    /// What stands in the place of variables.
    pub flags: Vec<Flag>,
    /// Which cluster.
    pub cluster: ClusterFlags,
}

/// How `adopt` was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptCommand {
    /// What stands in the place of variables.
    pub flags: Vec<Flag>,
    /// Which cluster.
    pub cluster: ClusterFlags,
    /// Which snapshots, of those of the claims.
    pub which: Which,
    /// Whether they are adopted, and not only shown.
    pub yes: bool,
}

/// How `simulate` was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulateCommand {
    /// What is simulated.
    pub plan: Plan,
    /// How it is said.
    pub format: Format,
}

/// How `verify` was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyCommand {
    /// What stands in the place of variables: of those of a run, and of those of a drill.
    pub flags: (Vec<Flag>, Vec<Flag>),
    /// Which cluster.
    pub cluster: ClusterFlags,
}

/// How `read` was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadCommand {
    /// What is read.
    pub plan: read::Plan,
    /// Where the result goes that Kubernetes keeps.
    pub termination_log: PathBuf,
}

/// Where the cluster is, and who asks it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ClusterFlags {
    /// Kubeconfig file [default: that of KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// User to act as
    #[arg(id = "as", long, value_name = "USER")]
    pub user: Option<String>,
}

/// How much is listed, and how it is shown.
#[derive(Args)]
struct ListFlags {
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// All snapshots, whoever made them
    #[arg(long)]
    all: bool,
    /// How the list is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
    /// Labels to show as columns of the table: release,team
    #[arg(short = 'L', long, value_name = "KEYS", value_delimiter = ',', conflicts_with = "timeline")]
    label_columns: Vec<String>,
    /// Draw which snapshots there are over time, and what keeps each
    #[arg(long, conflicts_with = "output")]
    timeline: bool,
}

/// What is adopted.
#[derive(Args)]
struct AdoptFlags {
    /// Snapshots with this label (any selector), or gemini's annotation:
    /// snapscheduler.backube/schedule=hourly
    #[arg(long, value_name = "SELECTOR")]
    from: Option<String>,
    /// Snapshots by name
    #[arg(long, value_name = "SNAPSHOT", value_delimiter = ',')]
    snapshot: Vec<String>,
    /// Adopt them; without it they are only shown
    #[arg(short, long)]
    yes: bool,
}

/// What a drill has in common with a run.
#[derive(Args)]
struct VerifyFlags {
    /// Say what would be read, and change nothing [env: SNAPSHOT_DRY_RUN]
    #[arg(long, num_args = 0, default_missing_value = "true")]
    dry_run: Option<String>,
}

/// What is simulated, and how it is said.
#[derive(Args)]
struct SimulateFlags {
    /// What stays, if any rule keeps it: hourly=24,daily=7,weekly=4
    #[arg(long, value_name = "RULES")]
    retention: Rules,
    /// Time between two runs: 15m, 6h, 1d
    #[arg(long, value_name = "DURATION", value_parser = simulate::length, default_value = "1h")]
    every: Window,
    /// How long the runs go on: 30d, 6mo, 10y
    #[arg(id = "for", long, value_name = "DURATION", value_parser = simulate::length, default_value = "1y")]
    length: Window,
    /// How the result is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// What is read, and how.
#[derive(Args)]
struct ReadFlags {
    /// Directory, file or block device
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A volume with nothing in it is no failure
    #[arg(long)]
    allow_empty: bool,
    /// How long it may take: 90s, 30m, 2h [default: as long as it takes]
    #[arg(long, value_name = "DURATION", value_parser = settings::duration_flag)]
    timeout: Option<Duration>,
    /// How often it is said how far it is
    #[arg(long, value_name = "DURATION", value_parser = settings::duration_flag, default_value = "10s")]
    progress: Duration,
    /// File for the result as one line of JSON
    #[arg(long, value_name = "FILE", default_value = TERMINATION_LOG)]
    termination_log: PathBuf,
}

/// How a result is said.
#[allow(missing_docs, reason = "a doc comment would be a help text")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// How a list is shown.
// With a line for each, `--help` would be longer than `-h`.
#[allow(missing_docs, reason = "a doc comment would be a help text")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    // Fits the terminal.
    #[default]
    Table,
    // All there is to say, each snapshot on one line.
    Wide,
    Json,
    Yaml,
    // As `kubectl get -o name` has it.
    Name,
    // The flag `--timeline`.
    #[value(skip)]
    Timeline,
}

/// The whole command line, for help texts, man pages and completion, of the program by this name.
pub fn program(name: &str) -> clap::Command {
    let text = |text: &str| text.replace("{program}", name);
    let list = ClusterFlags::augment_args(ListFlags::augment_args(Settings::add_list_flags(
        clap::Command::new("list"),
    )));
    let restore = ClusterFlags::augment_args(RestoreSettings::add_flags(clap::Command::new("restore")));
    let simulate = SimulateFlags::augment_args(clap::Command::new("simulate"));
    let adopt = ClusterFlags::augment_args(AdoptFlags::augment_args(Settings::add_list_flags(
        clap::Command::new("adopt"),
    )));
    // All that there are is never meant.
    let which = ["pvc_names", "pvc_selector", "from", "snapshot"];
    let adopt = adopt
        .group(ArgGroup::new("which").args(which).required(true).multiple(true))
        .mut_arg("pvc_names", |argument| argument.help("Snapshots of these claims [env: SNAPSHOT_PVC_NAMES]"))
        .mut_arg("pvc_selector", |argument| argument.help(help::ADOPT_SELECTOR))
        .mut_arg("job", |argument| argument.help(help::ADOPT_JOB));
    let verify = VerifyFlags::augment_args(VerifySettings::add_flags(clap::Command::new("verify")));
    let verify = ClusterFlags::augment_args(verify)
        .mut_arg("retention", |argument| argument.hide(true))
        .mut_arg("pvc_names", |argument| argument.help(help::VERIFY_CLAIMS))
        .mut_arg("job", |argument| argument.help(help::VERIFY_JOB));
    let read = ReadFlags::augment_args(clap::Command::new("read"));
    let completion = CompletionFlags::augment_args(clap::Command::new("completion"));
    clap::Command::new(names::PROGRAM)
        .bin_name(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(help::PROGRAM)
        .after_help(text(&help::after()))
        // As kubectl has it, of a flag that is given twice the last counts.
        .args_override_self(true)
        .max_term_width(100)
        .subcommand(
            list.about("Show the snapshots there are, and why each stays or goes")
                .help_template(TEMPLATE)
                .before_help(help::LIST)
                .after_help(text(help::LIST_AFTER)),
        )
        .subcommand(
            restore
                .about("Make a new claim from a snapshot")
                .help_template(TEMPLATE)
                .before_help(help::RESTORE)
                .override_usage(text(help::RESTORE_USAGE))
                .after_help(text(help::RESTORE_AFTER)),
        )
        .subcommand(
            simulate
                .about("Say how many snapshots a policy would hold, without a cluster")
                .help_template(TEMPLATE)
                .before_help(help::SIMULATE)
                .after_help(text(help::SIMULATE_AFTER)),
        )
        .subcommand(
            adopt
                .about("Give a schedule the snapshots that another tool made")
                .help_template(TEMPLATE)
                .before_help(help::ADOPT)
                .override_usage(text(help::ADOPT_USAGE))
                .after_help(text(help::ADOPT_AFTER)),
        )
        .subcommand(
            verify
                .about("Prove that volumes can be made from the newest snapshots, and read")
                .help_template(TEMPLATE)
                .before_help(help::VERIFY)
                .after_help(text(help::VERIFY_AFTER)),
        )
        .subcommand(
            read.about("Read every byte of a volume, and say what cannot be read")
                .help_template(TEMPLATE)
                .before_help(help::READ)
                .after_help(text(help::READ_AFTER)),
        )
        .subcommand(
            completion
                .about("Print a script that completes the command line in a shell")
                .after_help(text(help::COMPLETION_AFTER)),
        )
        .subcommand(clap::Command::new("version").about("Print the version"))
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// What is wrong, in words; or the help text, if that is asked for.
pub fn command(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let file = arguments.first().and_then(|program| Path::new(program).file_name());
    let name = match file.is_some_and(|file| file == PLUGIN) {
        true => "kubectl volume-snapshotter",
        false => names::PROGRAM,
    };
    let mut program = program(name);
    let matches = program.try_get_matches_from_mut(arguments)?;
    let Some((name, matches)) = matches.subcommand() else { return Ok(Command::Run) };
    let subcommand = program.find_subcommand(name).unwrap_or(&program);
    match name {
        "list" => list(subcommand, matches),
        "restore" => Ok(Command::Restore(RestoreCommand {
            flags: RestoreSettings::flags(subcommand, matches),
            cluster: ClusterFlags::from_arg_matches(matches)?,
        })),
        "adopt" => {
            let AdoptFlags { from, snapshot, yes } = AdoptFlags::from_arg_matches(matches)?;
            Ok(Command::Adopt(AdoptCommand {
                flags: Settings::list_flags(subcommand, matches),
                cluster: ClusterFlags::from_arg_matches(matches)?,
                which: Which { names: snapshot, from },
                yes,
            }))
        }
        "verify" => Ok(Command::Verify(VerifyCommand {
            flags: VerifySettings::flags(subcommand, matches),
            cluster: ClusterFlags::from_arg_matches(matches)?,
        })),
        "simulate" => {
            let SimulateFlags { retention, every, length, output } =
                SimulateFlags::from_arg_matches(matches)?;
            let plan = Plan { rules: retention, every, length };
            Ok(Command::Simulate(SimulateCommand { plan, format: output }))
        }
        "read" => {
            let ReadFlags { paths, allow_empty, timeout, progress, termination_log } =
                ReadFlags::from_arg_matches(matches)?;
            let plan = read::Plan { paths, allow_empty, timeout, progress };
            Ok(Command::Read(ReadCommand { plan, termination_log }))
        }
        "completion" => {
            let script = CompletionFlags::from_arg_matches(matches)?.script();
            script.map(Command::Text).map_err(|error| program.error(ErrorKind::Io, error))
        }
        _ => Ok(Command::Text(program.render_version())),
    }
}

fn list(command: &clap::Command, matches: &ArgMatches) -> Result<Command, clap::Error> {
    let ListFlags { all_namespaces, all, output, timeline, label_columns } =
        ListFlags::from_arg_matches(matches)?;
    Ok(Command::List(ListCommand {
        flags: Settings::list_flags(command, matches),
        cluster: ClusterFlags::from_arg_matches(matches)?,
        extent: Extent { all_schedules: all, all_namespaces, groups: true },
        output: if timeline { Output::Timeline } else { output },
        labels: label_columns,
    }))
}

#[cfg(test)]
mod tests;
