//! Processes in containers: they carry out the scripts of commands, and outlive the clients that started them.
//!
//! `exec` starts them and connects their input and output with a client.

use crate::cluster::Cluster;
use crate::object;
use crate::others::Others;
use crate::script::{Command, End, Script, Step};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// Most bytes that are read from a process at once.
const CHUNK: usize = 32 * 1024;
/// Chunks of output that wait for the client. A process with more to say waits too.
const WAITING: usize = 16;

/// A process in a container, as a test sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Process {
    pub command: Command,
    pub began: Instant,
    /// When it ended; `None` while it runs.
    pub ended: Option<Instant>,
    /// Its exit code: 137 if it went with its pod. `None` while it runs, and if it could not be started.
    pub exit: Option<i32>,
    /// When its client was gone, if that was before it ended.
    pub abandoned: Option<Instant>,
    /// What it got as input so far.
    pub input: Vec<u8>,
    /// Whether it found the end of its input, because the client said so or is gone.
    pub input_ended: bool,
    /// Whether a script started it in the background, not a client.
    pub background: bool,
}

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Output {
    Print { error: bool, text: Bytes },
    End(Value),
}

/// The ends of a process's pipes that a client holds. Without them the process has no input, and its output is lost.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) output: mpsc::Receiver<Output>,
    /// `None` once it is at its end.
    pub(crate) input: Option<mpsc::UnboundedSender<Bytes>>,
    record: Arc<Record>,
}

impl Drop for Pipes {
    fn drop(&mut self) {
        let mut process = self.record.lock();
        if process.ended.is_none() {
            process.abandoned = Some(Instant::now());
        }
    }
}

#[derive(Debug)]
struct Record {
    process: Mutex<Process>,
    /// Whether it is to end at once.
    killed: watch::Sender<bool>,
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All processes since the start.
#[derive(Debug, Default)]
pub(crate) struct Processes(Mutex<Vec<Arc<Record>>>);

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Record>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn list(&self) -> Vec<Process> {
        self.lock().iter().map(|record| record.lock().clone()).collect()
    }

    /// Kills the processes of a pod.
    pub(crate) fn kill(&self, namespace: &str, pod: &str) {
        for record in self.lock().iter() {
            let is_of_pod = {
                let command = &record.lock().command;
                command.namespace == namespace && command.pod == pod
            };
            if is_of_pod {
                record.killed.send_replace(true);
            }
        }
    }
}

/// Starts a process.
pub(crate) fn start(cluster: &Arc<Cluster>, command: Command, script: Script) -> Pipes {
    let (output, from_process) = mpsc::channel(WAITING);
    let (to_process, input) = mpsc::unbounded_channel();
    let to_process = command.stdin.then_some(to_process);
    let record = spawn(cluster, command, script, input, output, false);
    Pipes { output: from_process, input: to_process, record }
}

fn spawn(
    cluster: &Arc<Cluster>,
    command: Command,
    script: Script,
    input: mpsc::UnboundedReceiver<Bytes>,
    output: mpsc::Sender<Output>,
    background: bool,
) -> Arc<Record> {
    let record = Arc::new(Record {
        process: Mutex::new(Process {
            command,
            began: Instant::now(),
            ended: None,
            exit: None,
            abandoned: None,
            input: Vec::new(),
            input_ended: false,
            background,
        }),
        killed: watch::Sender::new(false),
    });
    cluster.processes.lock().push(record.clone());
    let running = Running { cluster: cluster.clone(), record: record.clone(), input, output };
    tokio::spawn(running.run(script));
    record
}

struct Running {
    cluster: Arc<Cluster>,
    record: Arc<Record>,
    input: mpsc::UnboundedReceiver<Bytes>,
    output: mpsc::Sender<Output>,
}

impl Running {
    async fn run(mut self, script: Script) {
        let mut killed = self.record.killed.subscribe();
        let end = tokio::select! {
            // An error means that nobody can kill it any more, which does not happen while the record is here.
            _ = killed.wait_for(|killed| *killed) => End::Exit(137),
            end = self.carry_out(script) => end,
        };
        let program = {
            let mut process = self.record.lock();
            process.ended = Some(Instant::now());
            process.exit = match end {
                End::Exit(code) => Some(code),
                End::Missing | End::Error(_) => None,
            };
            process.command.argv.first().cloned().unwrap_or_default()
        };
        // Nobody listens if the client is gone.
        let _ = self.output.send(Output::End(status(end, &program))).await;
    }

    async fn carry_out(&mut self, script: Script) -> End {
        let command = self.record.lock().command.clone();
        let mut steps = script.steps;
        // What came of the input and was not used.
        let mut unread: VecDeque<u8> = VecDeque::new();
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Print { error, mut text } => {
                    while !text.is_empty() {
                        let text = text.split_to(text.len().min(CHUNK));
                        let _ = self.output.send(Output::Print { error, text }).await;
                    }
                }
                Step::Wait(time) => sleep(time).await,
                Step::Hang => pending().await,
                Step::Input(next) => {
                    while let Some(bytes) = self.read().await {
                        unread.extend(bytes);
                    }
                    let next = next(unread.make_contiguous());
                    unread.clear();
                    push_front(&mut steps, next);
                }
                Step::Lines(each) => {
                    let line = loop {
                        if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                            let line: Vec<u8> = unread.drain(..=end).collect();
                            break Some(line);
                        }
                        match self.read().await {
                            Some(bytes) => unread.extend(bytes),
                            None => break None,
                        }
                    };
                    if let Some(line) = line {
                        let line = String::from_utf8_lossy(&line);
                        let next = each(line.trim_end_matches(['\n', '\r']));
                        steps.push_front(Step::Lines(each));
                        push_front(&mut steps, next);
                    }
                }
                Step::Do(deed) => deed(&Others { cluster: self.cluster.clone() }),
                Step::Freeze => self.cluster.pods.freeze(&command.namespace, &command.pod),
                Step::Thaw => self.cluster.pods.thaw(&command.namespace, &command.pod),
                Step::Background(script) => {
                    // The other ends are dropped: no input, and output that is lost.
                    let (output, _) = mpsc::channel(1);
                    let (_, input) = mpsc::unbounded_channel();
                    spawn(&self.cluster, command.clone(), script, input, output, true);
                }
                Step::End(end) => return end,
            }
        }
        End::Exit(0)
    }

    /// The next bytes of the input; `None` at its end.
    async fn read(&mut self) -> Option<Bytes> {
        let bytes = self.input.recv().await;
        let mut process = self.record.lock();
        match &bytes {
            Some(bytes) => process.input.extend_from_slice(bytes),
            None => process.input_ended = true,
        }
        bytes
    }
}

fn push_front(steps: &mut VecDeque<Step>, script: Script) {
    for step in script.steps.into_iter().rev() {
        steps.push_front(step);
    }
}

/// What a client is told at the end.
fn status(end: End, program: &str) -> Value {
    let failure = |message: String, reason: &str, cause: Value| {
        json!({
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": {"causes": [cause]},
        })
    };
    let error = match end {
        End::Exit(0) => return json!({"metadata": {}, "status": "Success"}),
        End::Exit(code) => {
            let message = format!(
                "command terminated with non-zero exit code: command terminated with exit code {code}"
            );
            let cause = json!({"reason": "ExitCode", "message": code.to_string()});
            return failure(message, "NonZeroExitCode", cause);
        }
        End::Missing => {
            let id: String = (0..4).map(|_| format!("{:016x}", object::random())).collect();
            format!(
                "Internal error occurred: error executing command in container: failed to exec in container: failed to \
                 start exec \"{id}\": OCI runtime exec failed: exec failed: unable to start container process: exec: \
                 \"{program}\": executable file not found in $PATH"
            )
        }
        End::Error(message) => message,
    };
    let mut status =
        failure(format!("Internal error occurred: {error}"), "InternalError", json!({"message": error}));
    status["code"] = 500.into();
    status
}
