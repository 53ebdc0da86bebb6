//! Injected faults: which request gets which, and their effect on the answer.
//!
//! `server` asks for the fault of each request, applies it before and after the request is carried out, and
//! passes the answer's body through it.

use crate::failure::Failure;
use crate::log::{Entry, Request};
use crate::meanwhile::{Actions, Meanwhile};
use crate::server::Server;
use crate::watch;
use futures::{Stream, StreamExt, stream};
use hyper::body::Bytes;
use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::yield_now;
use tokio::time::sleep;

/// Whether a fault occurs before or after the request is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The request is not carried out.
    Before,
    /// The request is carried out, but the client does not get the answer.
    After,
}

/// Whether a restarted server still has its watch history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Watches continue where they were.
    Kept,
    /// A watch from, or the next page of a list of, any resourceVersion given out so far is answered with 410.
    Lost,
}

/// What goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out, and answered, only after this time.
    Delay(Duration),
    /// The connection is closed without a byte of an answer.
    Cut(When),
    /// It is carried out, and the connection is closed after the head and this many bytes of the body, one less than
    /// the whole at the most. Of a watch see [`WatchFault::CutLine`].
    CutBody(usize),
    /// It is never answered. The connection stays open until the client closes it.
    Hang(When),
    /// It is answered with an error of this code: 502 and 504 as a load balancer's page in HTML and plain text, all
    /// others as a `Status` of the API server. 409 is that of a create whose name is taken.
    Error(u16, When),
    /// It is not carried out, but answered with 429 and perhaps a `Retry-After` header, in seconds.
    TooManyRequests {
        retry_after: Option<u32>,
        /// Whether the body is a `Status`, as where the server limits one kind of request; otherwise it is plain text,
        /// as priority and fairness says it.
        status: bool,
    },
    /// The server restarts, as [`FakeApiServer::restart`](crate::FakeApiServer::restart) does it, and never answers.
    Restart {
        /// Whether the request is carried out before.
        when: When,
        /// How long connections are refused.
        down_for: Duration,
        /// Whether old resourceVersions are still valid afterwards.
        history: History,
    },
    /// It is a watch, and its stream goes wrong. Any other request is answered as always.
    Watch(WatchFault),
    /// It runs a command in a container, and the stream goes wrong; the command runs on. Any other request is answered
    /// as always.
    Exec(ExecFault),
}

/// What goes wrong with the stream of a watch. Bookmarks are not counted as events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchFault {
    /// It ends, as by a timeout of the server's, right after this many events; with 0 at once.
    EndsAfterEvents(usize),
    /// It ends, as by a timeout of the server's, after this time.
    EndsAfter(Duration),
    /// Right after this many events, an ERROR event of code 410, and the end. The history is there still: see
    /// [`FakeApiServer::compact`](crate::FakeApiServer::compact).
    Expires(usize),
    /// There are no events, only bookmarks, which tell of resourceVersions as if the events had been sent.
    OnlyBookmarks,
    Twice,
    /// It stays open without any event or end, as when a connection was dropped on the way.
    Silent,
    /// As a silent one, but only after this many events: from then on no events, bookmarks or end. For all watches that
    /// are open at a moment of the test's choice there is [`FakeApiServer::mute_watches`](crate::FakeApiServer::mute_watches).
    MuteAfter(usize),
    /// After this many events, half of the next one's line, and the connection is closed.
    CutLine(usize),
    /// Right after this many events, a line that is no JSON. Then it goes on.
    Garbage(usize),
}

/// What goes wrong with the stream of a command that runs in a container. What is said of bytes counts those of
/// standard output and standard error together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecFault {
    /// The connection is closed after this many bytes, or at the end of the command if there are fewer.
    CutAfterBytes(usize),
    /// The connection is closed after this time, if the command runs that long.
    CutAfter(Duration),
    /// The stream ends in order after all output, but nothing says how the command ended.
    NoStatus,
    /// The stream ends in order after this time, if the command runs that long, and nothing says how it ended.
    EndsAfter(Duration),
    /// After this many bytes, or at the end of the command if there are fewer, nothing comes any more. The connection
    /// stays open.
    MuteAfterBytes(usize),
    /// This comes instead of the Status.
    Status(String),
}

impl Fault {
    /// Lets the fault strike on one side of carrying the request out. An error closes the connection; a failure is
    /// what the client is told. `forbidden` says why the user may not do this.
    pub(crate) async fn strike(
        &self,
        now: When,
        server: &Arc<Server>,
        forbidden: impl FnOnce() -> Failure,
    ) -> io::Result<Option<Failure>> {
        match *self {
            Fault::Delay(time) if now == When::Before => sleep(time).await,
            Fault::Cut(when) if when == now => return Err(cut()),
            Fault::Hang(when) if when == now => pending().await,
            Fault::Restart { when, down_for, history } if when == now => {
                // In a separate task, because this one ends with the connection.
                drop(server.begin_restart(down_for, history));
                pending().await
            }
            Fault::Error(code, when) if when == now => {
                return Ok(Some(match code {
                    401 => Failure::unauthorized(),
                    403 => forbidden(),
                    410 => server.cluster.store.expired(),
                    429 => Failure::too_many_requests(None, true),
                    code => Failure::of_server(code),
                }));
            }
            Fault::TooManyRequests { retry_after, status } if now == When::Before => {
                return Ok(Some(Failure::too_many_requests(retry_after, status)));
            }
            _ => {}
        }
        Ok(None)
    }
}

fn cut() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Closes the connection, but not before it has sent what it was given: it does so when nothing more is to be had at
/// once.
async fn cut_when_sent() -> io::Result<Bytes> {
    yield_now().await;
    Err(cut())
}

/// These bytes, and then the end of the connection.
pub(crate) fn then_cut(bytes: Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::iter([Ok(bytes)]).chain(stream::once(cut_when_sent()))
}

/// What a connection sends, up to an error that closes it.
pub(crate) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The stream of a watch, given in chunks of whole lines, as it is after the fault.
pub(crate) fn disturb(
    chunks: impl Stream<Item = Bytes> + Send + 'static,
    fault: WatchFault,
    server: Arc<Server>,
) -> Chunks {
    if let WatchFault::EndsAfter(time) = fault {
        return Box::pin(chunks.map(Ok).take_until(sleep(time)));
    }
    let lines = Box::pin(chunks.flat_map(|chunk| stream::iter(lines(&chunk))));
    let watch = Disturbed { lines, fault, server, events: 0, due: VecDeque::new(), struck: false };
    Box::pin(stream::unfold(watch, |mut watch| async { Some((watch.next().await?, watch)) }))
}

fn lines(chunk: &Bytes) -> Vec<Bytes> {
    chunk.split_inclusive(|byte| *byte == b'\n').map(|line| chunk.slice_ref(line)).collect()
}

fn is_event(line: &[u8]) -> bool {
    [&br#"{"type":"ADDED","#[..], br#"{"type":"MODIFIED","#, br#"{"type":"DELETED","#]
        .iter()
        .any(|start| line.starts_with(start))
}

/// A watch on its way through a fault.
struct Disturbed {
    lines: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    fault: WatchFault,
    server: Arc<Server>,
    /// How many events have come.
    events: usize,
    /// What is to be sent before anything else.
    due: VecDeque<Bytes>,
    /// Whether what was to come once has come: the half line, the ERROR event, the line that is no JSON.
    struck: bool,
}

impl Disturbed {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(part) = self.due.pop_front() {
                return Some(Ok(part));
            }
            match self.fault {
                WatchFault::CutLine(_) if self.struck => return Some(cut_when_sent().await),
                WatchFault::Expires(_) if self.struck => return None,
                WatchFault::EndsAfterEvents(events) if self.events >= events => return None,
                WatchFault::Silent => pending().await,
                WatchFault::MuteAfter(events) if self.events >= events => pending().await,
                WatchFault::Expires(events) if self.events >= events => {
                    let mut line = Vec::new();
                    watch::error(&self.server.cluster.store.expired(), &mut line);
                    self.due.push_back(line.into());
                    self.struck = true;
                    continue;
                }
                WatchFault::Garbage(events) if self.events >= events && !self.struck => {
                    self.due.push_back(Bytes::from_static(b"upstream connect error\n"));
                    self.struck = true;
                    continue;
                }
                _ => {}
            }
            let line = self.lines.next().await?;
            self.pass(line);
        }
    }

    fn pass(&mut self, line: Bytes) {
        if !is_event(&line) {
            return self.due.push_back(line);
        }
        self.events += 1;
        match self.fault {
            WatchFault::OnlyBookmarks => {}
            WatchFault::Twice => self.due.extend([line.clone(), line]),
            WatchFault::CutLine(events) if self.events > events => {
                self.due.push_back(line.slice(..line.len() / 2));
                self.struck = true;
            }
            _ => self.due.push_back(line),
        }
    }
}

/// How long a server that has just started answers as if it did not know what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// For this time, counted from when it listens.
    For(Duration),
    /// For this many requests that match.
    Requests(usize),
}

/// What a server does not know yet after a restart, because its caches are not full.
pub(crate) struct Cold {
    matches: Arc<dyn Fn(&Request) -> bool + Send + Sync>,
    code: u16,
    lasts: Lasts,
}

impl Cold {
    pub(crate) fn new(
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        code: u16,
        lasts: Lasts,
    ) -> Cold {
        Cold { matches: Arc::new(matches), code, lasts }
    }

    /// The rule that holds from now on.
    fn rule(&self) -> Arc<Rule> {
        let (matches, code) = (self.matches.clone(), self.code);
        let fault = Fault::Error(code, When::Before);
        match self.lasts {
            Lasts::Requests(number) => Arc::new(counted(move |request| matches(request), 1..=number, fault)),
            Lasts::For(time) => {
                let began = Instant::now();
                Arc::new(move |request| {
                    (request.at.duration_since(began) < time && matches(request)).then(|| fault.clone())
                })
            }
        }
    }
}

type Rule = dyn Fn(&Request) -> Option<Fault> + Send + Sync;

#[derive(Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<Arc<Rule>>>,
    /// What the server is to be like after each restart.
    cold: Mutex<Vec<Cold>>,
    turn: Mutex<()>,
}

impl Faults {
    pub(crate) fn add(&self, rule: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(rule));
    }

    pub(crate) fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.cold.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Lets the server be cold now, or after each restart.
    pub(crate) fn chill(&self, cold: Cold, now: bool) {
        if now {
            self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(cold.rule());
        } else {
            self.cold.lock().unwrap_or_else(PoisonError::into_inner).push(cold);
        }
    }

    /// The server has started again.
    pub(crate) fn restarted(&self) {
        let cold = self.cold.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.extend(cold.iter().map(Cold::rule));
    }

    /// Takes a request in and gives it the fault of the first rule that has one for it, and the actions that go with it.
    pub(crate) fn choose(
        &self,
        meanwhile: &Meanwhile,
        arrive: impl FnOnce() -> Arc<Entry>,
    ) -> (Arc<Entry>, Actions) {
        // One by one: rules and hooks that count see the requests in the order of the log.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = arrive();
        // Rules are a test's: they run without the lock, so that they may add others.
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // All of them, so that each counts what it is about, whatever the others do.
        let faults: Vec<Fault> = rules.iter().filter_map(|rule| rule(entry.request())).collect();
        if let Some(fault) = faults.into_iter().next() {
            entry.suffers(fault);
        }
        let actions = meanwhile.choose(entry.request());
        (entry, actions)
    }
}

/// The rule that gives a fault to those of the matching requests, counted from 1, that are in a range.
pub(crate) fn counted(
    matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    which: RangeInclusive<usize>,
    fault: Fault,
) -> impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |request| {
        let hit = matches(request) && which.contains(&(seen.fetch_add(1, Ordering::Relaxed) + 1));
        hit.then(|| fault.clone())
    }
}
