//! Runs a command in a container of a pod, over a WebSocket.
//!
//! Output comes on a channel each for standard output and standard error, and how the command ended on a third.
//! A command goes on when its client is gone: an error says what is known of it, not that it has ended.

use std::{collections::VecDeque, time::Duration};

use futures::StreamExt;
use kube::{
    api::AttachParams,
    core::{Status, response::StatusSummary},
};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    CREATE_EXEC, Cluster, Error, ErrorKind, GET_EXEC, PODS, Scope, is_name, operation::Operation, path,
};
use crate::text;

/// How long the API server may take until the stream is open. It takes milliseconds, and while it is awaited a
/// pod may be frozen.
const OPENING: Duration = Duration::from_secs(5);

/// The most bytes of one message. The API server passes on what it reads, 32 kB at a time.
const MAX_MESSAGE: usize = 1 << 20;

/// How much of the end of the output is kept.
const MAX_OUTPUT: usize = 800;

/// The most bytes of a Status.
const MAX_STATUS: usize = 64 << 10;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// A command that is to be run in a container.
#[derive(Clone, Copy, Debug)]
pub struct PodCommand<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub container: &'a str,
    /// The program and its arguments.
    pub command: &'a [String],
    /// What it is, for messages: `the pre hook`.
    pub what: &'a str,
    /// How long it may take.
    pub timeout: Duration,
}

impl Cluster {
    /// Runs a command, once, and waits for its end.
    ///
    /// # Errors
    /// [`ErrorKind::CommandFailed`] with the end of its output if it ended badly. [`ErrorKind::Unreachable`] if
    /// nobody knows whether it ran or how it ended: the stream broke, or ended without a Status, or the time was
    /// over.
    pub async fn exec(&self, command: &PodCommand<'_>) -> Result<(), Error> {
        let PodCommand { namespace, pod, container, what, .. } = *command;
        let end = Instant::now() + command.timeout;
        let scope = Scope::Namespace(namespace.to_owned());
        let tried = format!("run {what} in container {} of pod {pod}", text::name(container));
        let operation = Operation::new(tried.clone(), &scope, GET_EXEC);
        is_name(&operation, pod)?;
        // Always by its name: of two containers the API server takes none.
        let parameters =
            AttachParams::default().container(container).stdin(false).stdout(true).stderr(true).tty(false);
        let request = path(&scope, PODS).exec(pod, command.command, &parameters);
        let opened = self.requests.websocket(&operation, request, OPENING.min(command.timeout)).await;
        let connection = opened.map_err(|error| match error.is_bare_denial() {
            // The second of two checks, which says nothing about what it misses.
            true => Error::denied(&Operation::new(tried, &scope, CREATE_EXEC)),
            false => error,
        })?;
        // Nothing was read yet, so nothing is lost when the socket is wrapped anew, with a limit.
        let limits =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let socket = connection.into_stream().into_inner();
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Client, Some(limits)).await;

        let mut output = Tail::default();
        let mut status = Vec::new();
        let broken = loop {
            match timeout_at(end, socket.next()).await {
                Err(_) => break format!("it did not end within {}", text::duration(command.timeout)),
                Ok(None | Some(Ok(Message::Close(_)))) => {
                    break "the stream ended, and nothing said how the command did".to_owned();
                }
                Ok(Some(Err(error))) => break format!("the stream broke: {error}"),
                Ok(Some(Ok(Message::Binary(message)))) => match message.split_first() {
                    Some((&(STDOUT | STDERR), text)) => output.push(text),
                    Some((&STATUS, part)) if status.len() + part.len() <= MAX_STATUS => {
                        status.extend_from_slice(part);
                        if let Ok(status) = serde_json::from_slice::<Status>(&status) {
                            return ended(&operation, command, status, &output);
                        }
                    }
                    _ => {}
                },
                // The library answers pings.
                Ok(Some(Ok(_))) => {}
            }
        };
        log(command, &output);
        let said = format!("{broken}; whether it runs on is not known{}", output.said());
        Err(Error::other(&operation, ErrorKind::Unreachable, &said))
    }
}

fn log(command: &PodCommand<'_>, output: &Tail) {
    let PodCommand { pod, container, what, .. } = command;
    tracing::debug!(pod, container, output = output.text(), "output of {what}");
}

/// What a Status means.
fn ended(
    operation: &Operation,
    command: &PodCommand<'_>,
    status: Status,
    output: &Tail,
) -> Result<(), Error> {
    log(command, output);
    if status.status == Some(StatusSummary::Success) {
        return Ok(());
    }
    let exit = status.details.iter().flat_map(|details| &details.causes);
    let exit = exit.into_iter().find(|cause| cause.reason == "ExitCode").map(|cause| &*cause.message);
    let said = match (exit, status.message.as_str()) {
        (Some(code), _) => format!("it exited with {}", text::name(code)),
        (None, "") => "it failed, and nothing says why".to_owned(),
        (None, message) => text::foreign(message),
    };
    Err(Error::other(operation, ErrorKind::CommandFailed, &format!("{said}{}", output.said())))
}

/// The end of what a command writes.
#[derive(Default)]
struct Tail {
    bytes: VecDeque<u8>,
    is_cut: bool,
}

impl Tail {
    fn push(&mut self, text: &[u8]) {
        let kept = &text[text.len().saturating_sub(MAX_OUTPUT)..];
        self.bytes.extend(kept);
        let over = self.bytes.len().saturating_sub(MAX_OUTPUT);
        self.bytes.drain(..over);
        self.is_cut |= over > 0 || kept.len() < text.len();
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = text::foreign(&String::from_utf8_lossy(&bytes));
        if self.is_cut { format!("…{text}") } else { text }
    }

    /// For the end of a message.
    fn said(&self) -> String {
        match self.text() {
            text if text.is_empty() => String::new(),
            text => format!("; it said: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_output_the_end_is_kept_and_made_safe() {
        let mut tail = Tail::default();
        assert_eq!(tail.said(), "");
        tail.push(b"cannot \x1b[31mfreeze\n");
        tail.push(b"\xff\n");
        assert_eq!(tail.said(), "; it said: cannot  [31mfreeze \u{fffd}");
        for _ in 0..100 {
            tail.push(&[b'x'; 100]);
        }
        tail.push(b"the end");
        let text = tail.text();
        assert!(text.starts_with("…xxx") && text.ends_with("xxxthe end"), "{text}");
        assert_eq!(text.chars().count(), MAX_OUTPUT + 1);
        tail.push(&[b'y'; 5000]);
        assert_eq!(tail.text(), format!("…{}", "y".repeat(MAX_OUTPUT)));
    }
}
