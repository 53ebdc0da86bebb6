//! Connections, and the way of a request through the server.
//!
//! [`answer`] is that way, step by step: read, recognise the user, log, delay, judge, carry out, answer. Whoever wants
//! to disturb a request does it there.

use crate::call::Call;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::log::Entry;
use crate::rbac;
use crate::verbs::{self, Answer, Content};
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, Infallible>;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Takes connections until the runtime ends.
pub(crate) async fn run(cluster: Arc<Cluster>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: some will come free.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        // Events are small and must not wait for more to send.
        let _ = stream.set_nodelay(true);
        let cluster = cluster.clone();
        match tls.clone() {
            None => drop(tokio::spawn(serve(cluster, stream))),
            Some(tls) => drop(tokio::spawn(async move {
                // A client that does not trust the certificate goes away by itself.
                if let Ok(stream) = tls.accept(stream).await {
                    serve(cluster, stream).await;
                }
            })),
        }
    }
}

async fn serve(cluster: Arc<Cluster>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let cluster = cluster.clone();
        async move { answer(cluster, request).await }
    });
    // An error here is a broken connection, which is the client's business.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    cluster: Arc<Cluster>,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let call = Call::read(&head.method, head.uri.path(), head.uri.query().unwrap_or_default(), &head.headers);
    let authorization =
        head.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let user = cluster.tokens.user(&cluster.store, authorization);
    let entry = cluster.log.arrived(&call, user.as_ref().map_or("", |user| &user.name), &body);
    let running = (call.verb != "watch").then(|| cluster.log.begin_request());

    // Faults before a request is carried out belong here.
    if !cluster.options.latency.is_zero() {
        tokio::time::sleep(cluster.options.latency).await;
    }
    let outcome = match &user {
        None => Err(Failure::unauthorized()),
        Some(user) => {
            let deed = call.deed();
            let verdict = rbac::judge(&cluster.store, user, &deed);
            if verdict.allowed {
                verbs::carry_out(&cluster, &call, user, &body)
            } else {
                let why = deed.refusal(user, &verdict);
                Err(match &deed.path {
                    Some(_) => Failure::forbidden_path(&why),
                    None => Failure::forbidden(&deed.group, &deed.resource, &deed.name, &why),
                })
            }
        }
    };
    // Faults after it was carried out belong here.

    let response = match outcome {
        Ok(answer) => respond(cluster, answer, entry),
        Err(failure) => refuse(&failure, &entry),
    };
    // The client cannot have read the answer yet, so it cannot seem to have more under way than it has.
    drop(running);
    Ok(response)
}

fn respond(cluster: Arc<Cluster>, answer: Answer, entry: Arc<Entry>) -> Response<Body> {
    let mut response = match answer.content {
        Content::Json(bytes) => whole(answer.code, JSON, bytes, &entry),
        Content::Text(text) => whole(answer.code, TEXT, Bytes::from_static(text.as_bytes()), &entry),
        Content::Watch(session) => {
            entry.answered(answer.code);
            let frames = session.stream(cluster, entry).map(|chunk| Ok(Frame::data(chunk)));
            with_body(answer.code, JSON, StreamBody::new(frames).boxed_unsync())
        }
    };
    for warning in answer.warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

fn refuse(failure: &Failure, entry: &Entry) -> Response<Body> {
    match failure.reason {
        Some(_) => whole(failure.code, JSON, failure.status().to_string().into(), entry),
        None => whole(failure.code, TEXT, failure.message.clone().into(), entry),
    }
}

fn whole(code: u16, content_type: &'static str, bytes: Bytes, entry: &Entry) -> Response<Body> {
    entry.answered(code);
    entry.received(bytes.len());
    with_body(code, content_type, Full::new(bytes).boxed_unsync())
}

fn with_body(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // As the server says it; caches between must not keep anything.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}
