//! The port, its connections, and the processing of a request.
//!
//! [`answer`] processes a request: parse, authenticate, log, delay, authorize, carry out, answer. `fault`
//! injects faults into it, and `meanwhile` actions of others.

use crate::call::Call;
use crate::cluster::Cluster;
use crate::exec;
use crate::failure::Failure;
use crate::fault::{self, Fault, History, When};
use crate::log::Entry;
use crate::others::Others;
use crate::rbac;
use crate::tls::Tls;
use crate::traffic::{Meter, Metered};
use crate::verbs::{self, Answer, Content};
use futures::{StreamExt, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Up to this many bytes the server says how long an answer is; a longer one is sent in chunks.
const UNCHUNKED: usize = 2048;
const CHUNK: usize = 32 * 1024;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// A server on one port for as long as it lives, whether it listens or not.
pub(crate) struct Server {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) address: SocketAddr,
    /// Bound and never listening, it keeps the port from everybody else while the server is down.
    _held: TcpSocket,
    runtime: Handle,
    /// What connections are accepted with from now on.
    tls: Mutex<Option<Tls>>,
    port: tokio::sync::Mutex<Port>,
    connections: Mutex<JoinSet<()>>,
    /// How many of the next connections are closed as soon as they are there.
    turned_away: AtomicUsize,
    pub(crate) meter: Arc<Meter>,
}

enum Port {
    Closed,
    Open(JoinHandle<()>),
    /// On the way from one to the other.
    Changing,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A socket on a port that more than one of this server's have.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // The connections of the time before are no hindrance, nor is the socket that holds the port.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Server {
    /// A server that does not listen yet.
    pub(crate) fn new(cluster: Arc<Cluster>, tls: Option<Tls>, runtime: Handle) -> io::Result<Arc<Server>> {
        let held = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Arc::new(Server {
            cluster,
            address: held.local_addr()?,
            _held: held,
            runtime,
            tls: Mutex::new(tls),
            port: tokio::sync::Mutex::new(Port::Closed),
            connections: Mutex::default(),
            turned_away: AtomicUsize::new(0),
            meter: Arc::default(),
        }))
    }

    /// Listens, if it does not yet.
    pub(crate) async fn open(self: &Arc<Server>) -> io::Result<()> {
        let mut port = self.port.lock().await;
        *port = match std::mem::replace(&mut *port, Port::Changing) {
            Port::Closed => {
                let _in_runtime = self.runtime.enter();
                let listener = bind(self.address)?.listen(1024)?;
                Port::Open(tokio::spawn(accept(self.clone(), listener)))
            }
            other => other,
        };
        Ok(())
    }

    /// Refuses connections from now on. Those that there are live on.
    pub(crate) async fn close(&self) -> io::Result<()> {
        let mut port = self.port.lock().await;
        *port = match std::mem::replace(&mut *port, Port::Changing) {
            Port::Open(accepting) => {
                accepting.abort();
                // With the task the listening socket is gone.
                let _ = accepting.await;
                Port::Closed
            }
            other => other,
        };
        Ok(())
    }

    pub(crate) async fn cut_connections(&self) {
        let mut connections = std::mem::take(&mut *self.connections());
        connections.shutdown().await;
    }

    /// Closes this many of the next connections as soon as they are there.
    pub(crate) fn turn_away(&self, connections: usize) {
        self.turned_away.store(connections, Ordering::SeqCst);
    }

    /// Begins a restart, which is over when the server listens again.
    pub(crate) fn begin_restart(self: &Arc<Server>, down_for: Duration, history: History) -> JoinHandle<()> {
        let server = self.clone();
        self.runtime.spawn(async move {
            server.close().await.expect("a port can be closed");
            server.cut_connections().await;
            if history == History::Lost {
                server.cluster.store.compact();
            }
            sleep(down_for).await;
            server.cluster.faults.restarted();
            server.open().await.expect("the port is held");
        })
    }

    pub(crate) fn tls(&self) -> Option<Tls> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_tls(&self, tls: Tls) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls);
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes connections until it is aborted.
async fn accept(server: Arc<Server>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: some will come free.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let one_less = |left: usize| left.checked_sub(1);
        if server.turned_away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            continue;
        }
        // Events are small and must not wait for more to send.
        let _ = stream.set_nodelay(true);
        let stream = Metered::new(stream, server.meter.clone());
        let mut connections = server.connections();
        while connections.try_join_next().is_some() {}
        let server = server.clone();
        match server.tls() {
            None => connections.spawn(serve(server.clone(), stream)),
            Some(tls) => connections.spawn(async move {
                // A client that does not trust the certificate goes away by itself.
                if let Ok(stream) = tls.acceptor.accept(stream).await {
                    serve(server, stream).await;
                }
            }),
        };
    }
}

async fn serve(server: Arc<Server>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request: http::Request<Incoming>| answer(server.clone(), request));
    // An error here is a broken connection: the client's business, or a fault.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// Answers a request. An error closes the connection.
async fn answer(server: Arc<Server>, mut request: http::Request<Incoming>) -> io::Result<Response<Body>> {
    let cluster = &server.cluster;
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let call = Call::read(&head.method, head.uri.path(), head.uri.query().unwrap_or_default(), &head.headers);
    let authorization =
        head.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let user = cluster.tokens.user(&cluster.store, authorization);
    let user_name = user.as_ref().map_or("", |user| &user.name);
    let (entry, actions) =
        cluster.faults.choose(&cluster.meanwhile, || cluster.log.arrived(&call, user_name, &body));
    let others = Others { cluster: cluster.clone() };
    let meanwhile = |when| actions.run(when, &others, entry.request());
    let running = (call.verb != "watch").then(|| cluster.log.begin_request());
    let deed = call.deed();
    let strike = async |when| match entry.fault() {
        Some(fault) => fault.strike(when, &server, || deed.forbidden(user_name, "")).await,
        None => Ok(None),
    };

    if !cluster.options.latency.is_zero() {
        sleep(cluster.options.latency).await;
    }
    let struck = strike(When::Before).await;
    meanwhile(When::Before);
    if struck.is_err() {
        meanwhile(When::After);
    }
    let mut outcome = match (struck?, &user) {
        (Some(failure), _) => Err(failure),
        (None, None) => Err(Failure::unauthorized()),
        (None, Some(user)) => {
            let verdict = rbac::judge(&cluster.store, user, &deed);
            if verdict.allowed {
                verbs::carry_out(cluster, &call, entry.request(), user, &body)
            } else {
                Err(deed.forbidden(user_name, &verdict.reason))
            }
        }
    };
    if outcome.is_ok() {
        entry.carried_out();
    }
    meanwhile(When::After);
    if let Some(failure) = strike(When::After).await? {
        outcome = Err(failure);
    }

    let response = match outcome {
        Ok(answer) => respond(&server, answer, entry, upgrade),
        Err(failure) => refuse(&failure, &entry),
    };
    // The client cannot have read the answer yet, so it cannot seem to have more under way than it has.
    drop(running);
    Ok(response)
}

fn respond(server: &Arc<Server>, answer: Answer, entry: Arc<Entry>, upgrade: OnUpgrade) -> Response<Body> {
    let mut response = match answer.content {
        Content::Json(bytes) => whole(answer.code, JSON, bytes, &entry),
        Content::Text(text) => whole(answer.code, TEXT, text, &entry),
        Content::Watch(session) => {
            entry.answered(answer.code);
            let chunks = session.stream(server.cluster.clone());
            let chunks = match entry.fault() {
                Some(Fault::Watch(fault)) => fault::disturb(chunks, fault.clone(), server.clone()),
                _ => Box::pin(chunks.map(Ok)),
            };
            let frames = chunks.map(move |chunk| {
                chunk.map(|chunk| {
                    entry.received(chunk.len());
                    Frame::data(chunk)
                })
            });
            with_body(answer.code, JSON, StreamBody::new(frames).boxed_unsync())
        }
        Content::Exec(session) => connect(server, *session, entry, upgrade),
    };
    for warning in answer.warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// Agrees to speak WebSocket. The client is connected with the process as soon as it has read that.
fn connect(
    server: &Arc<Server>,
    session: exec::Session,
    entry: Arc<Entry>,
    upgrade: OnUpgrade,
) -> Response<Body> {
    entry.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16());
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(session.protocol));
    if let Ok(accept) = HeaderValue::from_str(&session.accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    let fault = match entry.fault() {
        Some(Fault::Exec(fault)) => Some(fault.clone()),
        _ => None,
    };
    // It is a connection like the others, so that it can be cut.
    server.connections().spawn(async move {
        if let Ok(client) = upgrade.await {
            session.relay(client, entry, fault).await;
        }
    });
    response
}

fn refuse(failure: &Failure, entry: &Arc<Entry>) -> Response<Body> {
    let mut response = match failure.reason {
        Some(_) => whole(failure.code, JSON, failure.status().to_string().into(), entry),
        None if failure.message.is_empty() => {
            let mut response = whole(failure.code, TEXT, Bytes::new(), entry);
            response.headers_mut().remove(header::CONTENT_TYPE);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        None => {
            let content_type = if failure.message.starts_with('<') { "text/html" } else { TEXT };
            whole(failure.code, content_type, failure.message.clone().into(), entry)
        }
    };
    if let Some(seconds) = failure.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn whole(code: u16, content_type: &'static str, bytes: Bytes, entry: &Arc<Entry>) -> Response<Body> {
    entry.answered(code);
    let Some(Fault::CutBody(sent)) = entry.fault() else {
        if bytes.len() > UNCHUNKED {
            return in_chunks(code, content_type, bytes, entry.clone());
        }
        entry.received(bytes.len());
        let body = Full::new(bytes).map_err(|never| match never {});
        return with_body(code, content_type, body.boxed_unsync());
    };
    let sent = bytes.slice(..bytes.len().saturating_sub(1).min(*sent));
    entry.received(sent.len());
    let frames = fault::then_cut(sent).map(|part| part.map(Frame::data));
    let mut response = with_body(code, content_type, StreamBody::new(frames).boxed_unsync());
    // The client has to know that something is missing.
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
    response
}

/// An answer whose length the client learns from its end.
fn in_chunks(code: u16, content_type: &'static str, mut bytes: Bytes, entry: Arc<Entry>) -> Response<Body> {
    let chunks = std::iter::from_fn(move || {
        let chunk = bytes.split_to(bytes.len().min(CHUNK));
        (!chunk.is_empty()).then(|| {
            entry.received(chunk.len());
            Ok(Frame::data(chunk))
        })
    });
    with_body(code, content_type, StreamBody::new(stream::iter(chunks)).boxed_unsync())
}

fn with_body(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // As the server says it; caches between must not keep anything.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}
