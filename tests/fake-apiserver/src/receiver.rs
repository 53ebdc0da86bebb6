//! A small HTTP server for what is told outside of the cluster: it remembers what it was sent, and answers as a
//! test chooses.

use crate::tls::Tls;
use form_urlencoded::parse;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: Method,
    /// As it was sent, percent-encoded.
    pub path: String,
    /// Decoded.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: String,
}

impl Received {
    /// Returns the segments of the path.
    pub fn segments(&self) -> Vec<&str> {
        self.path.trim_matches('/').split('/').collect()
    }

    /// Returns a parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(parameter, _)| parameter == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    Answer(u16, String),
    /// Status 302 and this location.
    Redirect(String),
    /// The connection stays open, and nothing comes.
    Silence,
    /// The connection is closed without an answer.
    Cut,
}

impl Reply {
    pub fn new(status: u16, body: &str) -> Reply {
        Reply::Answer(status, body.to_owned())
    }
}

type Answer = dyn Fn(&Received) -> Reply + Send + Sync;

/// The server. It is gone when this is dropped.
pub struct Receiver {
    address: SocketAddr,
    tls: Option<Tls>,
    received: Arc<Mutex<Vec<Received>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Receiver {
    /// Listens on a loopback port, and serves on the runtime of the caller.
    ///
    /// # Panics
    ///
    /// If there is no port, or no certificate can be made.
    pub async fn start(tls: bool, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Receiver {
        let tls = tls.then(|| Tls::new().expect("a certificate"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let answer: Arc<Answer> = Arc::new(answer);
        let accepting = tokio::spawn(accept(listener, tls.clone(), received.clone(), answer));
        Receiver { address, tls, received, accepting }
    }

    /// Returns scheme, host and port.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the certificate authority, if the server speaks TLS.
    pub fn ca_pem(&self) -> Option<&'static str> {
        self.tls.as_ref().map(|tls| tls.ca_pem)
    }

    /// Returns all that was received, in the order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<Tls>,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Answer>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, received, answer) = (tls.clone(), received.clone(), answer.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, received, answer).await,
                // A client that does not trust the certificate goes away by itself.
                Some(tls) => {
                    if let Ok(stream) = tls.acceptor.accept(stream).await {
                        serve(stream, received, answer).await;
                    }
                }
            }
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Answer>,
) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (received, answer) = (received.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            let request = Received {
                method: head.method,
                path: head.uri.path().to_owned(),
                query: parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
                headers: head.headers,
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            received.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            reply(answer(&request)).await
        }
    });
    // An error here is a broken connection: the client's business, or a reply.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn reply(reply: Reply) -> io::Result<Response<Full<Bytes>>> {
    let (status, location, body) = match reply {
        Reply::Answer(status, body) => (status, None, body),
        Reply::Redirect(location) => (302, Some(location), String::new()),
        Reply::Silence => return std::future::pending().await,
        Reply::Cut => return Err(io::Error::other("cut")),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location.parse().map_err(io::Error::other)?);
    }
    Ok(response)
}
