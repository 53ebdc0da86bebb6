//! A client for http and https URLs that are not the API server's.
//!
//! Their paths are secrets, and the libraries log them. So requests are sent from a thread of their own on
//! which nothing is logged, whatever `RUST_LOG` says. What went wrong is said in an [`Error`], which shows no
//! more of the URL than its origin. Redirects are not followed: a secret is not taken to other places.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, USER_AGENT},
};
use http_body_util::BodyExt;
use hyper_util::client::proxy::matcher::Matcher;
use kube::{Client, Config, client::Body};
use tokio::time::{Instant, sleep, timeout};
use tracing::dispatcher::{self, Dispatch};

use crate::{cluster::with_causes, text, url::SecretUrl};

/// The most bytes of an answer that are read; what lies behind is not missed.
const MAX_BODY: usize = 64 << 10;

/// The pause after the first try; after the second it is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// What is sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    pub url: SecretUrl,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

/// How often and for how long it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Number of tries, of which each has an equal share of the time that is left.
    pub tries: u32,
    /// All of it together: names that are looked up, connections, answers and pauses.
    pub within: Duration,
}

/// A successful answer: 2xx.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// The first 64 KiB. It may repeat the URL: see [`SecretUrl::conceal`].
    pub body: String,
}

/// Why it was not delivered. `Display` shows nothing of the URL.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be sent at all: the CA file, the proxy.
    #[error("{0}")]
    Unusable(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("no answer within {}", text::duration(*.0))]
    Late(Duration),
    /// Any answer but 2xx. Its body is not shown: it may repeat the URL in many ways. As it is here, it was searched
    /// for the URL.
    #[error("HTTP {}{}", .0.as_u16(), explained(*.0))]
    Refused(StatusCode, String),
}

fn explained(status: StatusCode) -> String {
    match status.canonical_reason() {
        _ if status.is_redirection() => {
            ", a redirect, which is not followed: set the URL that it leads to".to_owned()
        }
        Some(reason) => format!(" {reason}"),
        None => String::new(),
    }
}

impl Error {
    /// Whether the same request may be answered better in a moment.
    fn is_transient(&self) -> bool {
        match self {
            Error::Unusable(_) => false,
            Error::Unreachable(_) | Error::Late(_) => true,
            Error::Refused(status, _) => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
        }
    }
}

/// Sends a request that does no harm if it arrives twice, and gives the answer. With `ca_file` the
/// certificates in it are trusted instead of the system's.
///
/// # Errors
/// If it is not answered with success in time; `limits` holds whatever happens.
pub async fn send(outgoing: Outgoing, ca_file: Option<PathBuf>, limits: Limits) -> Result<Answer, Error> {
    let exchange = tokio::task::spawn_blocking(move || in_silence(&outgoing, ca_file.as_deref(), limits));
    // A file system that hangs holds up the thread, and the thread nobody.
    match timeout(limits.within, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(Error::Unusable(error.to_string())),
        Err(_) => Err(Error::Late(limits.within)),
    }
}

/// Sends from this thread, and lets none of the libraries log a word meanwhile: their tasks run here as well.
fn in_silence(outgoing: &Outgoing, ca_file: Option<&Path>, limits: Limits) -> Result<Answer, Error> {
    dispatcher::with_default(&Dispatch::none(), || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Unusable(error.to_string()))?;
        let answer = runtime.block_on(async {
            let client = client(&outgoing.url, ca_file)?;
            repeat(limits, || once(&client, outgoing)).await
        });
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        answer
    })
}

/// Tries until it goes well, cannot go well, or the limits are reached.
async fn repeat<T>(limits: Limits, mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let end = Instant::now() + limits.within;
    let left = || end.saturating_duration_since(Instant::now());
    let mut number = 1;
    loop {
        let share = left() / (limits.tries.saturating_sub(number) + 1);
        let error = match timeout(share, attempt()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => Error::Late(share),
        };
        let pause = PAUSE * number;
        if number >= limits.tries || !error.is_transient() || left() <= pause {
            return Err(error);
        }
        sleep(pause).await;
        number += 1;
    }
}

async fn once(client: &Client, outgoing: &Outgoing) -> Result<Answer, Error> {
    let url = &outgoing.url;
    let request = Request::builder()
        .method(&outgoing.method)
        .uri(url.target())
        .header(CONTENT_TYPE, outgoing.content_type)
        .body(Body::from(outgoing.body.clone()))
        .map_err(|error| Error::Unusable(url.conceal(&error.to_string())))?;
    let unreachable = |error| Error::Unreachable(url.conceal(&with_causes(error)));
    let response = client.send(request).await.map_err(unreachable)?;
    let status = response.status();
    let mut frames = response.into_body();
    let mut body = Vec::new();
    while body.len() < MAX_BODY {
        match frames.frame().await {
            None => break,
            // An answer that is broken off is an answer: only its first line counts.
            Some(Err(_)) => break,
            Some(Ok(frame)) => body.extend(frame.into_data().unwrap_or_default()),
        }
    }
    body.truncate(MAX_BODY);
    let body = String::from_utf8_lossy(&body).into_owned();
    match status.is_success() {
        true => Ok(Answer { status, body }),
        false => Err(Error::Refused(status, url.conceal(&body))),
    }
}

/// A client for one URL. Reads the certificates that are trusted.
fn client(url: &SecretUrl, ca_file: Option<&Path>) -> Result<Client, Error> {
    let unusable = |said: String| Error::Unusable(said);
    let origin: Uri = url.origin().parse().map_err(|_| unusable("that is not a URL".to_owned()))?;
    let mut config = Config::new(origin);
    // The client library would resend by itself.
    config.default_retry = false;
    if let Some((name, password)) = url.user() {
        config.auth_info.username = Some(name.to_owned());
        config.auth_info.password = Some(password.to_owned().into());
    }
    let agent = HeaderValue::from_static(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    config.proxy_url = proxy(&config.cluster_url, |name| env::var(name).ok())?;
    let is_tls = url.is_https() || config.proxy_url.as_ref().and_then(Uri::scheme_str) == Some("https");
    match ca_file {
        Some(path) if is_tls => {
            config.root_cert = Some(Vec::new());
            config.root_cert_file = Some(path.to_owned());
        }
        // Where no certificate is looked at, none need be there.
        _ if !is_tls => config.root_cert = Some(Vec::new()),
        _ => {}
    }
    Client::try_from(config).map_err(|error| match (error, ca_file) {
        (kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. }, _) => {
            unusable("the proxy's protocol is not supported, only http is; see HTTPS_PROXY".to_owned())
        }
        (error, Some(path)) => unusable(format!(
            "cannot use the CA certificates in {}: {}",
            path.display(),
            url.conceal(&with_causes(error))
        )),
        (error, None) => unusable(format!(
            "cannot use the system's CA certificates: {}; SNAPSHOT_NOTIFY_CA_FILE can name others",
            url.conceal(&with_causes(error))
        )),
    })
}

/// The proxy that the environment names for a place, with user and password. Variables in capitals win, as
/// for the API server.
fn proxy(place: &Uri, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Uri>, Error> {
    let variable = |names: &[&str]| {
        let values = names.iter().filter_map(|name| variable(name));
        values.map(|value| value.trim().to_owned()).find(|value| !value.is_empty())
    };
    let by_scheme: &[&str] = match place.scheme_str() {
        Some("https") => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        _ => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
    };
    let Some(proxy) = variable(by_scheme) else { return Ok(None) };
    let excepted = variable(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
    // It knows the forms of NO_PROXY, and takes the password off a proxy's URL, which is needed here.
    if Matcher::builder().all("http://proxy").no(excepted).build().intercept(place).is_none() {
        return Ok(None);
    }
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    // The URL may contain a password.
    let uri =
        proxy.parse().map_err(|_| Error::Unusable("the proxy is not a URL; see HTTPS_PROXY".to_owned()))?;
    Ok(Some(uri))
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        io::{Read, Write},
        net::{SocketAddr, TcpListener},
        sync::mpsc::{Receiver, channel},
        thread,
    };

    use super::*;

    const LIMITS: Limits = Limits { tries: 1, within: Duration::from_secs(5) };

    /// Answers each request with the next of these texts, and hands on what was asked.
    fn server(answers: Vec<String>) -> (SocketAddr, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, asked) = channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.ends_with(b"the body") {
                    let read = stream.read(&mut buffer).expect("a request");
                    assert!(read > 0, "the request ends early");
                    request.extend_from_slice(&buffer[..read]);
                }
                sender.send(String::from_utf8(request).expect("UTF-8")).expect("somebody listens");
                // Who has read enough goes away.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        (address, asked)
    }

    fn answering(status: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    }

    async fn post(url: &str, limits: Limits) -> Result<Answer, Error> {
        let url = SecretUrl::parse(url).expect("a URL");
        let outgoing =
            Outgoing { method: Method::POST, url, content_type: "text/plain", body: b"the body".to_vec() };
        send(outgoing, None, limits).await
    }

    #[tokio::test]
    async fn a_request_arrives_as_it_was_meant() {
        let (address, asked) = server(vec![answering("200 OK", "fine")]);
        let url = format!("http://me:p%40ss@{address}/s3cr3t-path/{{exit}}?key=s3cr3t-key");
        let answer = post(&url, LIMITS).await.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "fine"));
        let asked = asked.recv().expect("a request").to_ascii_lowercase();
        assert!(asked.starts_with("post /s3cr3t-path/{exit}?key=s3cr3t-key http/1.1\r\n"), "{asked}");
        for header in [
            format!("host: {address}"),
            "authorization: basic bwu6cebzcw==".to_owned(),
            "content-type: text/plain".to_owned(),
            concat!("user-agent: volume-snapshotter/", env!("CARGO_PKG_VERSION")).to_owned(),
        ] {
            assert!(asked.contains(&format!("{header}\r\n")), "{header}: {asked}");
        }
        assert!(asked.ends_with("\r\n\r\nthe body"), "{asked}");
    }

    #[tokio::test]
    async fn a_refusal_says_why_and_nothing_of_the_url() {
        for (answer, said) in [
            (answering("404 Not Found", ""), "HTTP 404 Not Found"),
            (answering("400 Bad Request", "text format\nparsing error"), "HTTP 400 Bad Request"),
            (answering("404 Not Found", "Cannot POST /s3cr3t-path"), "HTTP 404 Not Found"),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/s3cr3t-path\r\nContent-Length: 0\r\n\r\n"
                    .to_owned(),
                "HTTP 302, a redirect, which is not followed: set the URL that it leads to",
            ),
        ] {
            let (address, asked) = server(vec![answer]);
            let three = Limits { tries: 3, ..LIMITS };
            let refused = post(&format!("http://{address}/s3cr3t-path"), three).await.expect_err("a refusal");
            assert_eq!(refused.to_string(), said);
            // It is not asked again: the next answer would be the same.
            assert_eq!(asked.iter().count(), 1);
        }
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again() {
        let busy = answering("503 Service Unavailable", "");
        let (address, asked) =
            server(vec![busy, "nonsense\r\n\r\n".to_owned(), answering("204 No Content", "")]);
        let limits = Limits { tries: 3, within: Duration::from_secs(10) };
        let answer = post(&format!("http://{address}/s3cr3t-path"), limits).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(asked.iter().count(), 3);
    }

    #[tokio::test]
    async fn an_endless_answer_is_not_read_to_its_end() {
        let (address, _asked) = server(vec![answering("200 OK", &"x".repeat(3 << 20))]);
        let answer = post(&format!("http://{address}/"), LIMITS).await.expect("an answer");
        assert_eq!(answer.body.len(), MAX_BODY);
    }

    #[tokio::test]
    async fn nobody_there_is_said_without_the_url() {
        let error =
            post("http://me:s3cr3t-password@127.0.0.1:1/s3cr3t-path", LIMITS).await.expect_err("nobody");
        let said = error.to_string();
        assert!(said.contains("Connection refused") && !said.contains("s3cr3t"), "{said}");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_holds_up_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let began = Instant::now();
        let limits = Limits { tries: 3, within: Duration::from_millis(300) };
        let error = post(&format!("http://{address}/"), limits).await.expect_err("silence");
        assert!(matches!(error, Error::Late(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_ca_file_that_cannot_be_used_is_named() {
        let url = SecretUrl::parse("https://127.0.0.1:1/s3cr3t-path").expect("a URL");
        for (content, why) in [(None, "No such file"), (Some("no certificate"), "")] {
            let path = env::temp_dir().join(format!("ca-{}-{}.pem", std::process::id(), content.is_some()));
            if let Some(content) = content {
                std::fs::write(&path, content).expect("a file");
            }
            let outgoing = Outgoing {
                method: Method::GET,
                url: url.clone(),
                content_type: "text/plain",
                body: Vec::new(),
            };
            let error = send(outgoing, Some(path.clone()), LIMITS).await.expect_err("no certificates");
            let said = error.to_string();
            assert!(matches!(error, Error::Unusable(_)), "{said}");
            assert!(said.contains(&path.display().to_string()) && said.contains(why), "{said}");
            assert!(!said.contains("s3cr3t"), "{said}");
            let _ = std::fs::remove_file(path);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn three_tries_fit_into_the_time_however_they_fail() {
        let within = Duration::from_secs(10);
        for (answered_after, tries) in [(0, 3), (3, 3), (60, 3)] {
            let (began, tried) = (Instant::now(), Cell::new(0));
            let failed = repeat(Limits { tries: 3, within }, async || {
                tried.set(tried.get() + 1);
                sleep(Duration::from_secs(answered_after)).await;
                Err::<(), _>(Error::Unreachable("nobody there".to_owned()))
            });
            assert!(failed.await.is_err());
            assert_eq!(tried.get(), tries, "{answered_after} s");
            assert!(began.elapsed() <= within, "{answered_after} s: {:?}", began.elapsed());
        }
        // There is no time for a second one.
        let tried = Cell::new(0);
        let short = Limits { tries: 3, within: Duration::from_millis(300) };
        let failed = repeat(short, async || {
            tried.set(tried.get() + 1);
            Err::<(), _>(Error::Unreachable("nobody there".to_owned()))
        });
        assert!(failed.await.is_err());
        assert_eq!(tried.get(), 1);
    }

    #[test]
    fn the_proxy_is_the_one_that_the_environment_names() {
        let https = "https://hc-ping.example/".parse::<Uri>().expect("a URL");
        let http = "http://pushgateway.monitoring.svc:9091/".parse::<Uri>().expect("a URL");
        for (place, variables, expected) in [
            (&https, vec![], None),
            (&https, vec![("HTTPS_PROXY", "http://proxy:3128")], Some("http://proxy:3128/")),
            (&https, vec![("https_proxy", "http://me:pw@proxy:3128")], Some("http://me:pw@proxy:3128/")),
            (&https, vec![("HTTPS_PROXY", "proxy:3128")], Some("http://proxy:3128/")),
            (&https, vec![("HTTP_PROXY", "http://proxy:3128")], None),
            (&https, vec![("ALL_PROXY", "http://proxy:3128")], Some("http://proxy:3128/")),
            (&https, vec![("HTTPS_PROXY", ""), ("https_proxy", " ")], None),
            (&https, vec![("HTTPS_PROXY", "http://proxy"), ("NO_PROXY", ".example")], None),
            (&https, vec![("HTTPS_PROXY", "http://proxy"), ("no_proxy", "*")], None),
            (
                &https,
                vec![("HTTPS_PROXY", "http://proxy"), ("NO_PROXY", "other.example")],
                Some("http://proxy/"),
            ),
            (&http, vec![("HTTPS_PROXY", "http://proxy")], None),
            (&http, vec![("HTTP_PROXY", "http://proxy")], Some("http://proxy/")),
            (&http, vec![("HTTP_PROXY", "http://proxy"), ("NO_PROXY", "10.0.0.0/8,.svc")], None),
        ] {
            let lookup = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let proxy = proxy(place, lookup).expect("a proxy").map(|uri| uri.to_string());
            assert_eq!(proxy.as_deref(), expected, "{place} {variables:?}");
        }
        let odd = proxy(&https, |_| Some("http://me:s3cr3t@no host".to_owned())).expect_err("no URL");
        assert!(!odd.to_string().contains("s3cr3t"), "{odd}");
    }
}
