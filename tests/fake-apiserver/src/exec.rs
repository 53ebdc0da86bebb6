//! `pods/exec`: which container, which protocol, and the WebSocket between a client and a process.
//!
//! `verbs` begins a session when the request is carried out, so that a command runs even if a fault keeps the
//! answer from the client. `server` connects the session with the client.

use crate::call::Call;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::fault::ExecFault;
use crate::log::Entry;
use crate::object;
use crate::pods;
use crate::process::{self, Output, Pipes};
use crate::script::{Command, Script};
use futures::{SinkExt, StreamExt};
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// In version 5: the other end of the channel in the next byte is closed.
const CLOSE: u8 = 255;

/// The protocols that can be spoken, the newest first.
pub(crate) const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// How long the server waits for a client to close the connection too.
const PARTING: Duration = Duration::from_secs(1);

/// A process with which a client is to be connected.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) protocol: &'static str,
    /// The proof that the server speaks WebSocket.
    pub(crate) accept: String,
    stdout: bool,
    stderr: bool,
    tty: bool,
    pipes: Pipes,
}

impl Session {
    /// Starts the command that a request asks for.
    pub(crate) fn begin(
        cluster: &Arc<Cluster>,
        call: &Call,
        pod: &Value,
        user: &str,
    ) -> Result<Session, Failure> {
        let container = container(pod, call.parameter("container"))?.to_owned();
        if object::text(pod, "/spec/nodeName").is_empty() {
            let why = format!("pod {} does not have a host assigned", object::name(pod));
            return Err(Failure::bad_request(why));
        }
        let Some(upgrade) = &call.upgrade else {
            return Err(Failure::bad_request("Upgrade request required"));
        };
        let served = cluster.options.exec_protocols;
        let protocol = upgrade
            .protocols
            .iter()
            .find_map(|asked| PROTOCOLS.iter().find(|one| *one == asked && served.contains(one)))
            .ok_or_else(Failure::no_such_protocol)?;
        let argv = call.query.iter().filter(|(name, _)| name == "command");
        let command = Command {
            namespace: object::namespace(pod).to_owned(),
            pod: object::name(pod).to_owned(),
            argv: argv.map(|(_, value)| value.clone()).collect(),
            stdin: call.flag("stdin"),
            tty: call.flag("tty"),
            user: user.to_owned(),
            container,
        };
        let script = if pods::runs(pod, &command.container) {
            cluster.script(&command)
        } else {
            let why =
                format!("unable to upgrade connection: container not found (\"{}\")", command.container);
            Script::new().breaks(&why)
        };
        Ok(Session {
            protocol,
            accept: derive_accept_key(upgrade.key.as_bytes()),
            stdout: call.flag("stdout"),
            stderr: call.flag("stderr"),
            tty: command.tty,
            pipes: process::start(cluster, command, script),
        })
    }

    /// Connects the client with the process until one of the two is gone. The process goes on without the client.
    pub(crate) async fn relay(self, client: Upgraded, entry: Arc<Entry>, fault: Option<ExecFault>) {
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None).await;
        Relay { session: self, socket, entry, fault, sent: 0, mute: false }.run().await;
    }

    /// The channel of one kind of output; `None` if the client did not ask for it.
    fn channel(&self, error: bool) -> Option<u8> {
        // A terminal has one output.
        let error = error && !self.tty;
        match error {
            true => self.stderr.then_some(STDERR),
            false => self.stdout.then_some(STDOUT),
        }
    }
}

/// The container that is meant: the named one, or the only one.
fn container<'a>(pod: &'a Value, asked: &str) -> Result<&'a str, Failure> {
    let [containers, init] = pods::containers(pod);
    let name = object::name(pod);
    let why = match (asked, containers.as_slice()) {
        ("", [only]) => return Ok(only),
        ("", many) => {
            let mut why = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                why += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            why
        }
        (asked, _) => {
            if let Some(found) = containers.iter().chain(&init).find(|one| **one == asked) {
                return Ok(found);
            }
            format!("container {asked} is not valid for pod {name}")
        }
    };
    Err(Failure::bad_request(why))
}

/// A session while it lasts.
struct Relay {
    session: Session,
    socket: WebSocketStream<TokioIo<Upgraded>>,
    entry: Arc<Entry>,
    fault: Option<ExecFault>,
    /// Bytes of output that were sent.
    sent: usize,
    /// Whether the client gets nothing any more.
    mute: bool,
}

/// The connection is to be closed.
struct Over;

impl Relay {
    async fn run(mut self) {
        // Only its end is of interest.
        let _: Result<(), Over> = self.talk().await;
    }

    async fn talk(&mut self) -> Result<(), Over> {
        let deadline = match self.fault {
            Some(ExecFault::CutAfter(time) | ExecFault::EndsAfter(time)) => Instant::now().checked_add(time),
            _ => None,
        };
        self.check_limit()?;
        // The first word on the first channel that there is says that the command has begun.
        let first = self.session.channel(false).or(self.session.channel(true)).unwrap_or(STATUS);
        self.send(first, &[]).await?;
        loop {
            let out_of_time = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Binary(message))) => self.hear(&message),
                    Some(Ok(Message::Close(_))) => return self.part().await,
                    // Pings are answered by the library.
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(Over),
                },
                output = self.session.pipes.output.recv() => match output {
                    Some(Output::Print { error, text }) => self.print(error, text).await?,
                    Some(Output::End(status)) => self.end(&status).await?,
                    // It has ended, and the client was not told.
                    None => pending().await,
                },
                () = out_of_time => {
                    if matches!(self.fault, Some(ExecFault::EndsAfter(_))) {
                        self.part().await?;
                    }
                    return Err(Over);
                }
            }
        }
    }

    /// Takes what the client sends.
    fn hear(&mut self, message: &Bytes) {
        match (message.first(), message.get(1)) {
            (Some(&STDIN), Some(_)) => {
                if let Some(input) = &self.session.pipes.input {
                    // Nobody reads it if the process has ended.
                    let _ = input.send(message.slice(1..));
                }
            }
            (Some(&CLOSE), Some(&STDIN)) if self.session.protocol == PROTOCOLS[0] => {
                self.session.pipes.input = None;
            }
            // Sizes of the terminal, and nonsense.
            _ => {}
        }
    }

    async fn print(&mut self, error: bool, mut text: Bytes) -> Result<(), Over> {
        let Some(channel) = self.session.channel(error) else { return Ok(()) };
        if let Some(limit) = self.limit() {
            text.truncate(limit.saturating_sub(self.sent));
        }
        self.send(channel, &text).await?;
        self.sent += text.len();
        self.check_limit()
    }

    /// Tells how the process ended.
    async fn end(&mut self, status: &Value) -> Result<(), Over> {
        match &self.fault {
            Some(ExecFault::CutAfterBytes(_)) => return Err(Over),
            Some(ExecFault::MuteAfterBytes(_)) => {
                self.mute = true;
                return Ok(());
            }
            Some(ExecFault::NoStatus) => {}
            Some(ExecFault::Status(text)) => {
                let text = text.clone();
                self.send(STATUS, text.as_bytes()).await?;
            }
            _ => self.send(STATUS, status.to_string().as_bytes()).await?,
        }
        self.part().await
    }

    /// How many bytes of output the fault lets through.
    fn limit(&self) -> Option<usize> {
        match self.fault {
            Some(ExecFault::CutAfterBytes(bytes) | ExecFault::MuteAfterBytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    fn check_limit(&mut self) -> Result<(), Over> {
        if self.limit().is_some_and(|limit| self.sent >= limit) {
            if matches!(self.fault, Some(ExecFault::CutAfterBytes(_))) {
                return Err(Over);
            }
            self.mute = true;
        }
        Ok(())
    }

    async fn send(&mut self, channel: u8, data: &[u8]) -> Result<(), Over> {
        if self.mute {
            return Ok(());
        }
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(channel);
        message.extend_from_slice(data);
        self.socket.send(Message::binary(message)).await.map_err(|_| Over)?;
        self.entry.received(data.len());
        Ok(())
    }

    /// Closes the connection in order, and waits a little until the client does so too.
    async fn part(&mut self) -> Result<(), Over> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = self.socket.close(Some(frame)).await;
        let parting = async {
            while let Some(Ok(_)) = self.socket.next().await {}
            // With TLS a client takes an end without this for a broken connection.
            let connection = self.socket.get_mut();
            poll_fn(|context| Pin::new(&mut *connection).poll_shutdown(context)).await
        };
        // A client that goes away first has seen enough.
        let _ = timeout(PARTING, parting).await;
        Err(Over)
    }
}
