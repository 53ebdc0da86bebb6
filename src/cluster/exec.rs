//! Runs a command in a container of a pod, over a WebSocket.
//!
//! Output comes on a channel each for standard output and standard error, and how the command ended on a third.
//! A command goes on when its client is gone: an error says what is known of it, not that it has ended.

use std::{collections::VecDeque, time::Duration};

use futures::{SinkExt, StreamExt};
use kube::{
    api::AttachParams,
    core::{Status, response::StatusSummary},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Message,
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

/// How much of a line is kept while one is awaited. What is awaited is shorter.
const MAX_LINE: usize = 200;

/// How long the API server may be silent until it is asked for a sign of life.
const PING: Duration = Duration::from_secs(60);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// In version 5 of the protocol: the channel in the next byte is at its end.
const CLOSE: u8 = 255;

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

/// A command that runs, as far as is known, and whose input is open.
///
/// Dropping it closes the connection, and the API server ends the command's input then too. How the command ends is
/// not learned that way.
pub struct OpenCommand {
    socket: Socket,
    operation: Operation,
    pod: String,
    container: String,
    what: String,
    output: Tail,
    /// Standard output since the last line break, while a line is awaited.
    line: Vec<u8>,
    /// What came of its Status.
    status: Vec<u8>,
    has_input: bool,
    /// How it ended, or that nobody knows it.
    end: Option<Result<(), Error>>,
}

type Socket = WebSocketStream<Box<dyn Connection>>;

/// What a WebSocket is spoken over.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// What a message was.
enum Heard {
    /// Text on standard output.
    Text(Bytes),
    /// How the command ended, or that nobody knows it.
    End(Result<(), Error>),
    Other,
}

impl Cluster {
    /// Runs a command, once, and waits for its end.
    ///
    /// # Errors
    /// [`ErrorKind::CommandFailed`] with the end of its output if it ended badly. [`ErrorKind::Unreachable`] if
    /// nobody knows whether it ran or how it ended: the stream broke, or ended without a Status, or the time was
    /// over.
    pub async fn exec(&self, command: &PodCommand<'_>) -> Result<(), Error> {
        let end = Instant::now() + command.timeout;
        let (mut open, _) = self.open(command, false).await?;
        match timeout_at(end, open.ended()).await {
            Ok(ended) => ended,
            Err(_) => Err(open.not_in_time(command.timeout)),
        }
    }

    /// Starts a command with its input open. Its time has only to suffice for that.
    ///
    /// # Errors
    /// As [`Cluster::exec`]. [`ErrorKind::Invalid`] if the API server speaks only the protocol in which the end of
    /// an input cannot be said: the connection is closed at once.
    pub async fn exec_open(&self, command: &PodCommand<'_>) -> Result<OpenCommand, Error> {
        let (open, can_end_input) = self.open(command, true).await?;
        match can_end_input {
            true => Ok(open),
            false => Err(Error::other(
                &open.operation,
                ErrorKind::Invalid,
                "the API server speaks only v4.channel.k8s.io, in which the end of its input cannot be told to a \
                 command and its exit code be learned afterwards; Kubernetes 1.30 or newer speaks \
                 v5.channel.k8s.io",
            )),
        }
    }

    /// Starts a command. Returns with it whether the end of its input can be told.
    async fn open(&self, command: &PodCommand<'_>, stdin: bool) -> Result<(OpenCommand, bool), Error> {
        let PodCommand { namespace, pod, container, what, .. } = *command;
        let scope = Scope::Namespace(namespace.to_owned());
        let tried = format!("run {what} in container {} of pod {pod}", text::name(container));
        let operation = Operation::new(tried.clone(), &scope, GET_EXEC);
        is_name(&operation, pod)?;
        // Always by its name: of two containers the API server takes none.
        let parameters =
            AttachParams::default().container(container).stdin(stdin).stdout(true).stderr(true).tty(false);
        let request = path(&scope, PODS).exec(pod, command.command, &parameters);
        let opened = self.requests.websocket(&operation, request, OPENING.min(command.timeout)).await;
        let connection = opened.map_err(|error| match error.is_bare_denial() {
            // The second of two checks, which says nothing about what it misses.
            true => Error::denied(&Operation::new(tried, &scope, CREATE_EXEC)),
            false => error,
        })?;
        let can_end_input = connection.supports_stream_close();
        // Nothing was read yet, so nothing is lost when the socket is wrapped anew, with a limit.
        let limits =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let socket: Box<dyn Connection> = Box::new(connection.into_stream().into_inner());
        let socket = WebSocketStream::from_raw_socket(socket, Role::Client, Some(limits)).await;
        let open = OpenCommand {
            socket,
            operation,
            pod: pod.to_owned(),
            container: container.to_owned(),
            what: what.to_owned(),
            output: Tail::default(),
            line: Vec::new(),
            status: Vec::new(),
            has_input: stdin,
            end: None,
        };
        Ok((open, can_end_input))
    }
}

impl OpenCommand {
    /// Waits until the command has written a line to its standard output.
    ///
    /// # Errors
    /// As [`Cluster::exec`], also if it ends well without the line.
    pub async fn until_says(&mut self, line: &str, within: Duration) -> Result<(), Error> {
        let end = Instant::now() + within;
        loop {
            match timeout_at(end, self.hear()).await {
                Err(_) => {
                    let said = format!(
                        "it did not write the line {} within {}{}",
                        text::name(line),
                        text::duration(within),
                        self.output.said()
                    );
                    return Err(Error::other(&self.operation, ErrorKind::Unreachable, &said));
                }
                Ok(Heard::Text(text)) if self.has_said(line, &text) => {
                    self.line = Vec::new();
                    return Ok(());
                }
                Ok(Heard::End(Ok(()))) => {
                    let said = format!(
                        "it ended, and did not write the line {}{}",
                        text::name(line),
                        self.output.said()
                    );
                    return Err(Error::other(&self.operation, ErrorKind::CommandFailed, &said));
                }
                Ok(Heard::End(Err(error))) => return Err(error),
                Ok(Heard::Text(_) | Heard::Other) => {}
            }
        }
    }

    /// Whether the line is complete with this text. Of longer lines only so much is kept as tells them apart.
    fn has_said(&mut self, line: &str, text: &[u8]) -> bool {
        let mut has_said = false;
        for byte in text {
            match byte {
                b'\n' => {
                    has_said |= self.line.trim_ascii() == line.as_bytes();
                    self.line.clear();
                }
                _ if self.line.len() <= MAX_LINE => self.line.push(*byte),
                _ => {}
            }
        }
        has_said
    }

    /// Waits for the end of the command. It can be asked for again, also if this is dropped before.
    ///
    /// # Errors
    /// As [`Cluster::exec`].
    pub async fn ended(&mut self) -> Result<(), Error> {
        loop {
            if let Heard::End(ended) = self.hear().await {
                return ended;
            }
        }
    }

    /// Ends the input of the command, and waits for its end.
    ///
    /// # Errors
    /// As [`Cluster::exec`].
    pub async fn end_input(&mut self, within: Duration) -> Result<(), Error> {
        let ended = async {
            if self.has_input && self.end.is_none() {
                self.has_input = false;
                // Whether it arrived is told by what comes back.
                let sent = self.socket.send(Message::binary(vec![CLOSE, STDIN])).await;
                if let Err(error) = sent {
                    tracing::debug!(pod = self.pod, "cannot end the input of {}: {error}", self.what);
                }
            }
            self.ended().await
        };
        match timeout(within, ended).await {
            Ok(ended) => ended,
            Err(_) => Err(self.not_in_time(within)),
        }
    }

    /// Takes the next message, and remembers the end.
    async fn hear(&mut self) -> Heard {
        if let Some(end) = &self.end {
            return Heard::End(end.clone());
        }
        let heard = self.next().await;
        if let Heard::End(end) = &heard {
            self.end = Some(end.clone());
        }
        heard
    }

    /// Takes the next message. Pings an API server that is silent for long, because silence counts as a broken
    /// connection.
    async fn next(&mut self) -> Heard {
        let message = loop {
            match timeout(PING, self.socket.next()).await {
                Ok(message) => break message,
                Err(_) => {
                    if let Err(error) = self.socket.send(Message::Ping(Bytes::new())).await {
                        break Some(Err(error));
                    }
                }
            }
        };
        match message {
            None | Some(Ok(Message::Close(_))) => {
                Heard::End(Err(self.lost("the stream ended, and nothing said how the command did")))
            }
            Some(Err(error)) => Heard::End(Err(self.lost(&format!("the stream broke: {error}")))),
            Some(Ok(Message::Binary(message))) => match message.first() {
                Some(&STDOUT) => {
                    let text = message.slice(1..);
                    self.output.push(&text);
                    Heard::Text(text)
                }
                Some(&STDERR) => {
                    self.output.push(&message.slice(1..));
                    Heard::Other
                }
                Some(&STATUS) if self.status.len() + message.len() <= MAX_STATUS => {
                    self.status.extend_from_slice(&message.slice(1..));
                    match serde_json::from_slice::<Status>(&self.status) {
                        Ok(status) => Heard::End(self.means(status)),
                        Err(_) => Heard::Other,
                    }
                }
                _ => Heard::Other,
            },
            // The library answers pings.
            Some(Ok(_)) => Heard::Other,
        }
    }

    fn not_in_time(&self, time: Duration) -> Error {
        self.lost(&format!("it did not end within {}", text::duration(time)))
    }

    fn lost(&self, why: &str) -> Error {
        self.log();
        let said = format!("{why}; whether it runs on is not known{}", self.output.said());
        Error::other(&self.operation, ErrorKind::Unreachable, &said)
    }

    fn log(&self) {
        let OpenCommand { pod, container, what, .. } = self;
        tracing::debug!(pod, container, output = self.output.text(), "output of {what}");
    }

    /// What a Status means.
    fn means(&self, status: Status) -> Result<(), Error> {
        self.log();
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
        let said = format!("{said}{}", self.output.said());
        Err(Error::other(&self.operation, ErrorKind::CommandFailed, &said))
    }
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
