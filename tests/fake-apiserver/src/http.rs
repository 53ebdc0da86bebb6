//! A small HTTP client for tests that check the bytes: one connection per request, no TLS, no retries. Commands
//! in containers are run over a WebSocket.

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// An answer with its complete body.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    /// Returns the body as JSON, or `null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns the `Content-Type` header, empty if there is none.
    pub fn content_type(&self) -> &str {
        content_type(&self.headers)
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// An answer whose body is read line by line, such as a watch.
#[derive(Debug)]
pub struct Lines {
    pub status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// Returns the `Content-Type` header, empty if there is none.
    pub fn content_type(&self) -> &str {
        content_type(&self.headers)
    }

    /// Returns the next line as JSON, or `None` at the end of the body.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or the line is not JSON.
    pub async fn next(&mut self) -> io::Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(io::Error::other);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

async fn send(
    method: Method,
    url: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: Bytes,
) -> io::Result<http::Response<Incoming>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url}: {why}"));
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("no http URL"))?;
    let authority = rest.split('/').next().unwrap_or_default();
    let target = match &rest[authority.len()..] {
        "" => "/",
        target => target,
    };
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the body, or when that is dropped; what goes wrong shows there.
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::builder().method(method).uri(target).header(header::HOST, authority);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body)).map_err(|error| invalid(&error.to_string()))?;
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Sends a request and reads the answer to its end. The body is sent as JSON unless `headers` say otherwise.
///
/// # Errors
///
/// If the URL is not plain HTTP, or the connection breaks.
pub async fn request(
    method: Method,
    url: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> io::Result<Response> {
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let (head, body) = send(method, url, token, headers, body).await?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response { status: head.status, headers: head.headers, body })
}

/// Sends a GET request and reads the answer line by line.
///
/// # Errors
///
/// If the URL is not plain HTTP, or the connection breaks.
pub async fn lines(url: &str, token: Option<&str>) -> io::Result<Lines> {
    let (head, body) = send(Method::GET, url, token, &[], Bytes::new()).await?.into_parts();
    Ok(Lines { status: head.status, headers: head.headers, body, buffer: Vec::new() })
}

/// A command that runs in a container.
#[derive(Debug)]
pub struct Exec {
    /// The protocol that the server chose.
    pub protocol: String,
    socket: WebSocketStream<TokioIo<Upgraded>>,
}

/// What the server sends of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Output on channel 1 or 2, or the Status on channel 3.
    Data { channel: u8, data: Bytes },
    /// The end of the stream, in order.
    Close { code: u16, reason: String },
}

impl Exec {
    /// Returns the next frame, or `None` at the end of the connection.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or what comes is not in the protocol.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            return match self.socket.next().await.transpose().map_err(io::Error::other)? {
                None => Ok(None),
                Some(Message::Binary(message)) => match message.first() {
                    Some(&channel) => Ok(Some(Frame::Data { channel, data: message.slice(1..) })),
                    None => Err(io::Error::other("a message without a channel")),
                },
                Some(Message::Close(frame)) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.as_str().to_owned())
                    });
                    Ok(Some(Frame::Close { code, reason }))
                }
                Some(Message::Ping(_) | Message::Pong(_)) => continue,
                Some(other) => Err(io::Error::other(format!("not in the protocol: {other}"))),
            };
        }
    }

    /// Sends a message on a channel: 0 is the command's input.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub async fn send(&mut self, channel: u8, data: &[u8]) -> io::Result<()> {
        let message: Vec<u8> = std::iter::once(channel).chain(data.iter().copied()).collect();
        self.socket.send(Message::binary(message)).await.map_err(io::Error::other)
    }

    /// Says that the command's input ends, which only `v5.channel.k8s.io` can.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub async fn end_input(&mut self) -> io::Result<()> {
        self.send(255, &[0]).await
    }

    /// Closes the connection in order.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub async fn close(&mut self) -> io::Result<()> {
        self.socket.close(None).await.map_err(io::Error::other)
    }
}

/// Runs a command in a container, in one of these protocols. The inner error is an answer that refuses it.
///
/// # Errors
///
/// If the URL is not plain HTTP, or the connection breaks.
pub async fn exec(url: &str, token: Option<&str>, protocols: &[&str]) -> io::Result<Result<Exec, Response>> {
    let (key, protocols) = (generate_key(), protocols.join(", "));
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", key.as_str()),
        ("sec-websocket-protocol", protocols.as_str()),
    ];
    let response = send(Method::GET, url, token, &headers, Bytes::new()).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        return Ok(Err(Response { status: head.status, headers: head.headers, body }));
    }
    let protocol = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    let protocol = protocol.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let upgraded = hyper::upgrade::on(response).await.map_err(io::Error::other)?;
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    Ok(Ok(Exec { protocol, socket }))
}
