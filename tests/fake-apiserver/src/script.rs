//! What a command does that a client runs in a container, as a test writes it. `process` carries it out.

use crate::others::Others;
use hyper::body::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A command that a client runs in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Whether the client is going to send something. If not, the command finds the end of its input at once.
    pub stdin: bool,
    pub tty: bool,
    /// Name of the user that runs it.
    pub user: String,
}

impl Command {
    /// Returns the program and its arguments, separated by spaces.
    pub fn line(&self) -> String {
        self.argv.join(" ")
    }
}

type OnInput = Arc<dyn Fn(&[u8]) -> Script + Send + Sync>;
type OnLine = Arc<dyn Fn(&str) -> Script + Send + Sync>;
type Deed = Arc<dyn Fn(&Others) + Send + Sync>;

#[derive(Clone)]
pub(crate) enum Step {
    /// To standard output, or to standard error.
    Print {
        error: bool,
        text: Bytes,
    },
    Wait(Duration),
    Hang,
    /// Reads the input to its end, and goes on with what is to be done with it.
    Input(OnInput),
    /// For each line of the input, as it comes.
    Lines(OnLine),
    Do(Deed),
    Freeze,
    Thaw,
    Background(Script),
    End(End),
}

/// How a command ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    /// The container has no such program.
    Missing,
    /// The node could not run it.
    Error(String),
}

/// What a command does, step by step. At the end it exits with 0.
///
/// It runs whether or not the client is still there. What it writes afterwards is lost.
///
/// ```
/// use fake_apiserver::{Command, Script};
/// use std::time::Duration;
///
/// fn database(command: &Command) -> Option<Script> {
///     Some(match command.line().as_str() {
///         "lock" => Script::new().wait(Duration::from_millis(50)).freeze().prints("locked\n"),
///         "unlock" => Script::new().thaw(),
///         // Held open: it is frozen until the client ends the input, or is gone.
///         "session" => Script::new().freeze().prints("locked\n").until_input_ends().thaw(),
///         "broken" => Script::new().complains("no such table\n").exits(3),
///         _ => return None,
///     })
/// }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Script {
    pub(crate) steps: VecDeque<Step>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("steps", &self.steps.len()).finish()
    }
}

impl Script {
    pub fn new() -> Script {
        Script::default()
    }

    /// Returns the script of a command that the container does not have.
    pub fn missing() -> Script {
        Script::new().and(Step::End(End::Missing))
    }

    fn and(mut self, step: Step) -> Script {
        self.steps.push_back(step);
        self
    }

    /// Writes to standard output.
    pub fn prints(self, text: impl Into<Vec<u8>>) -> Script {
        self.and(Step::Print { error: false, text: text.into().into() })
    }

    /// Writes to standard error.
    pub fn complains(self, text: impl Into<Vec<u8>>) -> Script {
        self.and(Step::Print { error: true, text: text.into().into() })
    }

    pub fn wait(self, time: Duration) -> Script {
        self.and(Step::Wait(time))
    }

    /// Never goes on.
    pub fn hangs(self) -> Script {
        self.and(Step::Hang)
    }

    /// Waits for the end of the input: until the client says so (which only `v5.channel.k8s.io` can), or is gone.
    pub fn until_input_ends(self) -> Script {
        self.with_input(|_| Script::new())
    }

    /// Reads the input to its end, and goes on with the script that the closure makes of it.
    pub fn with_input(self, next: impl Fn(&[u8]) -> Script + Send + Sync + 'static) -> Script {
        self.and(Step::Input(Arc::new(next)))
    }

    /// Runs a script for each line of the input as it comes, without its line break. Goes on at the end of the input.
    pub fn for_each_line(self, each: impl Fn(&str) -> Script + Send + Sync + 'static) -> Script {
        self.and(Step::Lines(Arc::new(each)))
    }

    /// Does something in the cluster. The closure runs on the server's thread and must not block.
    pub fn does(self, deed: impl Fn(&Others) + Send + Sync + 'static) -> Script {
        self.and(Step::Do(Arc::new(deed)))
    }

    /// Freezes the pod: see [`FakeApiServer::freeze`](crate::FakeApiServer::freeze).
    pub fn freeze(self) -> Script {
        self.and(Step::Freeze)
    }

    /// Thaws the pod.
    pub fn thaw(self) -> Script {
        self.and(Step::Thaw)
    }

    /// Starts another process of the container, without input and output, and goes on at once.
    pub fn background(self, script: Script) -> Script {
        self.and(Step::Background(script))
    }

    /// Ends with an exit code.
    pub fn exits(self, code: i32) -> Script {
        self.and(Step::End(End::Exit(code)))
    }

    /// Ends with an error of the node instead of an exit code: it could not run the command, or lost sight of it.
    pub fn breaks(self, message: &str) -> Script {
        self.and(Step::End(End::Error(message.to_owned())))
    }
}
