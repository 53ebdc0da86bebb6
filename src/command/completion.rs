//! Completion: the script for a shell, and what a shell that has it is answered.
//!
//! The script is a few lines that run this program with a variable set, and the words so far. So what is
//! offered is always what this very program understands.

use std::{
    ffi::{OsStr, OsString},
    io,
};

use clap::{Arg, Args, FromArgMatches, ValueEnum};
use clap_complete::{
    ArgValueCompleter, CompletionCandidate,
    env::{Bash, CompleteEnv, EnvCompleter, Fish, Shells, Zsh},
};

use super::ClusterFlags;
use crate::names;

/// The variable by which a shell asks.
const VARIABLE: &str = "VOLUME_SNAPSHOTTER_COMPLETE";

const SHELLS: Shells<'static> = Shells(&[&Bash, &Zsh, &Fish]);

#[derive(Args)]
pub(super) struct CompletionFlags {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl CompletionFlags {
    /// The script, by which the shell finds the program as the user does: by its name.
    pub(super) fn script(&self) -> io::Result<String> {
        let shell: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
        };
        let mut script = Vec::new();
        let name = names::PROGRAM;
        shell.write_registration(VARIABLE, name, name, name, &mut script)?;
        Ok(String::from_utf8_lossy(&script).into_owned())
    }
}

/// What only the cluster knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Names of claims.
    Claims,
    /// Names of namespaces.
    Namespaces,
    /// Names of snapshots, or of VolumeGroupSnapshots.
    Snapshots,
    /// What the claims of groups have in common.
    Groups,
}

/// What the words that are there already say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Which cluster.
    pub cluster: ClusterFlags,
    /// The namespace.
    pub namespace: Option<String>,
    /// The claim.
    pub claim: Option<String>,
    /// The group.
    pub group: Option<String>,
}

/// Answers a shell on standard output, if it is one that asks. `ask` gives the names that there are.
///
/// # Errors
/// If it cannot be answered.
pub fn complete(
    arguments: impl IntoIterator<Item = OsString>,
    ask: fn(Wanted, &Line) -> Vec<String>,
) -> Result<bool, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let program = || {
        let line = line(&arguments);
        ["list", "restore", "adopt"].into_iter().fold(super::program(names::PROGRAM), |program, name| {
            program.mut_subcommand(name, |command| {
                command.mut_args(|argument| match wanted(&argument) {
                    Some(wanted) => argument.add(completer(wanted, line.clone(), ask)),
                    None => argument,
                })
            })
        })
    };
    CompleteEnv::with_factory(program)
        .var(VARIABLE)
        .shells(SHELLS)
        .try_complete(arguments.clone(), std::env::current_dir().ok().as_deref())
}

/// What a flag takes, by its id.
fn wanted(argument: &Arg) -> Option<Wanted> {
    match argument.get_id().as_str() {
        "claim" | "pvc_names" => Some(Wanted::Claims),
        "namespace" => Some(Wanted::Namespaces),
        "snapshot" => Some(Wanted::Snapshots),
        "group" => Some(Wanted::Groups),
        _ => None,
    }
}

fn completer(wanted: Wanted, line: Line, ask: fn(Wanted, &Line) -> Vec<String>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let begun = current.to_string_lossy();
        let mut names = ask(wanted, &line);
        // Nothing else can be one, and a shell would do with it whatever it says.
        let is_one = match wanted {
            Wanted::Groups => names::is_label_value,
            Wanted::Claims | Wanted::Namespaces | Wanted::Snapshots => names::is_object_name,
        };
        names.retain(|name| is_one(name) && name.starts_with(begun.as_ref()));
        names.sort();
        names.dedup();
        names.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// Reads the words behind `--`, as far as they can be understood yet.
fn line(arguments: &[OsString]) -> Line {
    let words = arguments.iter().skip_while(|word| *word != "--").skip(1);
    let program = super::program(names::PROGRAM).ignore_errors(true);
    let Ok(matches) = program.try_get_matches_from(words) else { return Line::default() };
    // The others have none of these flags.
    let Some(("list" | "restore" | "adopt", matches)) = matches.subcommand() else { return Line::default() };
    let text = |id: &str| matches.try_get_one::<String>(id).ok().flatten().cloned();
    Line {
        cluster: ClusterFlags::from_arg_matches(matches).unwrap_or_default(),
        namespace: text("namespace"),
        claim: text("claim"),
        group: text("group"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_words_say_already_is_known_before_they_are_complete() {
        let read = |words: &str| line(&words.split(' ').map(OsString::from).collect::<Vec<_>>());
        let shop = Line {
            cluster: ClusterFlags { context: Some("prod".to_owned()), ..ClusterFlags::default() },
            namespace: Some("shop".to_owned()),
            claim: Some("data".to_owned()),
            group: None,
        };
        let begin = "volume-snapshotter -- volume-snapshotter";
        assert_eq!(read(&format!("{begin} restore -n shop --context=prod --claim data --snapshot ")), shop);
        assert_eq!(read(&format!("{begin} restore -n shop --context prod --claim data --snapshot")), shop);
        assert_eq!(read(&format!("{begin} list -n shop da")).namespace, shop.namespace);
        let others =
            ["li", "--help", "completion b", "version", "help list"].map(|words| format!("{begin} {words}"));
        for nothing in others.iter().map(String::as_str).chain(["volume-snapshotter", begin]) {
            assert_eq!(read(nothing), Line::default(), "{nothing}");
        }
    }
}
