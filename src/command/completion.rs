//! Completion: the script for a shell, and what a shell that has it is answered.
//!
//! The script is a few lines that run this program with a variable set, and the words so far. So what is
//! offered is always what this very program understands.

use std::{ffi::OsString, io};

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Shells, Zsh};

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

/// Answers a shell on standard output, if it is one that asks.
///
/// # Errors
/// If it cannot be answered.
pub fn complete(arguments: impl IntoIterator<Item = OsString>) -> Result<bool, clap::Error> {
    CompleteEnv::with_factory(|| super::program(names::PROGRAM))
        .var(VARIABLE)
        .shells(SHELLS)
        .try_complete(arguments, std::env::current_dir().ok().as_deref())
}
