//! Pings: the recipes of docs/monitoring.md against servers that speak as the tools do, what is pinged and what is
//! not, and what happens when nobody answers.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fake_apiserver::{Options, Plan, Received, Receiver, Reply, objects};
use tokio::process::Command;

use super::services::{self, Service, TOKEN, UUID};
use crate::{
    manifests::top,
    test_cluster::{BINARY, Ran, TestCluster, all_permissions, embedded},
};

pub(super) const DATA: (&str, &str) = ("SNAPSHOT_PVC_NAMES", "data");
const RUN_UID: &str = "5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f10";

/// What nobody may ever read in a log.
pub(super) const SECRET: &str = "s3cr3t-and-planted";

pub(super) fn put_claim(cluster: &TestCluster) {
    cluster.fake().put(objects::bound_claim(&cluster.namespace, "data", &[]));
}

/// The URL that the documents recommend for a tool, with the server in the place of the tool's own.
fn recipe(tool: &str, server: &Receiver) -> String {
    let page = std::fs::read_to_string(top().join("docs/monitoring.md")).expect("the page");
    let row = page.lines().find_map(|line| line.trim().strip_prefix(&format!("| {tool} | `")));
    let row = row.unwrap_or_else(|| panic!("no recipe for {tool}"));
    let url = row.split('`').next().expect("a URL");
    let target = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("a path").1;
    let url = format!("{}/{target}", server.url());
    url.replace("UUID", UUID).replace("TOKEN", TOKEN)
}

/// Runs with a ping to this URL.
async fn run(cluster: &TestCluster, url: &str, settings: &[(&str, &str)]) -> Ran {
    let settings = [settings, &[("SNAPSHOT_PING_URL", url), ("SNAPSHOT_RUN_UID", RUN_UID)]].concat();
    cluster.run(&settings).await
}

#[tokio::test]
async fn every_recipe_of_the_documents_tells_its_tool_how_a_run_went() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let services: [(&str, _, bool); 6] = [
            ("healthchecks", services::healthchecks as _, true),
            ("Uptime Kuma", services::uptime_kuma as _, true),
            ("Uptime Kuma", services::uptime_kuma_1 as _, true),
            ("Cronitor", services::cronitor as _, true),
            ("Dead Man's Snitch", services::dead_mans_snitch as _, false),
            ("Dead Man's Snitch, with failures", services::dead_mans_snitch as _, true),
        ];
        for (tool, answer, hears_of_failures) in services {
            let service = Service::start(answer).await;
            let url = recipe(tool, &service.receiver);
            let ran = run(cluster, &url, &[DATA]).await;
            ran.assert_exit(0);
            assert_eq!(ran.lines("cannot ping").len(), 0, "{tool}");
            let known = service.known();
            let [up] = known.as_slice() else { panic!("{tool}: {known:?}") };
            assert!(up.is_up, "{tool}: {up:?}");
            if tool != "healthchecks" {
                assert_eq!(up.message, "1 of 1 claim has a new ready snapshot", "{tool}");
            } else {
                assert_eq!(up.message, ran.message);
            }
            if ["healthchecks", "Cronitor"].contains(&tool) {
                assert_eq!(up.run, RUN_UID, "{tool}");
            }
            // The first request is a POST with the whole message, whoever understands it.
            let received = service.receiver.received();
            assert_eq!(
                (received[0].method.as_str(), received[0].body.as_str()),
                ("POST", ran.message.as_str())
            );
            assert!(ran.message.contains("data: volume-snapshot-"), "{}", ran.message);

            // There is no such claim: no other attempt follows.
            let ran = run(cluster, &url, &[("SNAPSHOT_PVC_NAMES", "missing")]).await;
            ran.assert_exit(2);
            assert_eq!(ran.lines("cannot ping").len(), 0, "{tool}");
            let known = service.known();
            assert_eq!(known.len(), if hears_of_failures { 2 } else { 1 }, "{tool}: {known:?}");
            if let Some(down) = known.get(1) {
                assert!(!down.is_up, "{tool}: {down:?}");
                let received = service.receiver.received();
                assert!(received.iter().any(|request| request.body == ran.message), "{tool}: {received:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_another_may_follow_raises_no_alarm_unless_it_is_asked_for() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        cluster.fake().plan(|_| Some(Plan::never()));
        let service = Service::start(services::healthchecks).await;
        let url = recipe("healthchecks", &service.receiver);
        let short = [DATA, ("SNAPSHOT_READY_ATTEMPTS", "1"), ("SNAPSHOT_READY_INTERVAL", "100ms")];
        let ran = run(cluster, &url, &short).await;
        ran.assert_exit(1);
        assert!(service.receiver.received().is_empty(), "the first of three attempts cried wolf");
        let all = [&short[..], &[("SNAPSHOT_PING_FAILURES", "all")]].concat();
        let ran = run(cluster, &url, &all).await;
        ran.assert_exit(1);
        let received = service.receiver.received();
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].path, format!("/{UUID}/1"));
        assert_eq!(received[0].body, ran.message);
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_pings_nobody() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let service = Service::start(services::healthchecks).await;
        let url = recipe("healthchecks", &service.receiver);
        run(cluster, &url, &[DATA, ("SNAPSHOT_DRY_RUN", "true")]).await.assert_exit(0);
        let missing = [("SNAPSHOT_PVC_NAMES", "missing"), ("SNAPSHOT_DRY_RUN", "true")];
        run(cluster, &url, &missing).await.assert_exit(2);
        assert!(service.receiver.received().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_keeps_a_run_from_beginning_is_pinged_as_well() {
    embedded(Options::default(), async |cluster| {
        let service = Service::start(services::healthchecks).await;
        let url = recipe("healthchecks", &service.receiver);
        // The settings.
        let ran = run(cluster, &url, &[DATA, ("SNAPSHOT_RETENTON", "last=3")]).await;
        ran.assert_exit(2);
        let received = service.receiver.received();
        assert_eq!(received[0].path, format!("/{UUID}/2"));
        assert!(
            received[0].body.contains("SNAPSHOT_RETENTON: there is no such setting"),
            "{}",
            received[0].body
        );
        assert_eq!(received[0].body, ran.message);
        // The kubeconfig.
        let nothing = cluster.file("kubeconfig", "no kubeconfig");
        let settings = [DATA, ("SNAPSHOT_PING_URL", &url)];
        let ran = cluster.start_as(&nothing, &settings).finish().await;
        ran.assert_exit(2);
        let received = service.receiver.received();
        assert_eq!((received.len(), received[1].body.as_str()), (2, ran.message.as_str()));
    })
    .await;
}

/// How a server can go wrong.
pub(super) fn wrong() -> Vec<(&'static str, Reply, &'static str)> {
    vec![
        ("is broken", Reply::new(500, ""), "HTTP 500 Internal Server Error"),
        ("knows no such path", Reply::new(404, &format!("Cannot GET /{SECRET}")), "HTTP 404 Not Found;"),
        ("refuses", Reply::new(403, "go away"), "HTTP 403 Forbidden;"),
        ("hangs up", Reply::Cut, "connection"),
        (
            "redirects",
            Reply::Redirect(format!("http://127.0.0.1:1/{SECRET}")),
            "redirect, which is not followed",
        ),
    ]
}

#[tokio::test]
async fn a_ping_that_fails_is_one_warning_and_changes_nothing() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        for (what, reply, said) in wrong() {
            let receiver = Receiver::start(false, move |_| reply.clone()).await;
            let ran = run(cluster, &format!("{}/{SECRET}", receiver.url()), &[DATA]).await;
            ran.assert_exit(0);
            let warnings: Vec<_> = ran.log.iter().filter(|line| line["level"] == "WARN").collect();
            let [warning] = warnings.as_slice() else { panic!("{what}: {warnings:?}") };
            let message = warning["message"].as_str().expect("a message");
            assert!(message.contains(said), "{what}: {message}");
            assert!(message.starts_with(&format!("cannot ping {}: ", receiver.url())), "{what}: {message}");
            let tries = receiver.received().len();
            let expected = match what {
                "is broken" | "hangs up" => 3,
                // By POST and by GET.
                "knows no such path" => 2,
                _ => 1,
            };
            assert_eq!(tries, expected, "{what}");
        }
        let ran = run(cluster, &format!("http://127.0.0.1:1/{SECRET}"), &[DATA]).await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("Connection refused").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_says_nothing_takes_ten_seconds_at_most() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let receiver = Receiver::start(false, |_| Reply::Silence).await;
        let ran = run(cluster, &receiver.url(), &[DATA]).await;
        ran.assert_exit(0);
        assert!(ran.took < Duration::from_secs(11), "{:?}", ran.took);
        assert_eq!(receiver.received().len(), 3);
        assert_eq!(ran.lines("no answer within").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_is_gone_within_a_second_whoever_is_to_be_told() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        cluster.fake().plan(|_| Some(Plan::never()));
        let receiver = Receiver::start(false, |_| Reply::Silence).await;
        let url = format!("{}/{SECRET}/{{exit}}", receiver.url());
        let settings = [DATA, ("SNAPSHOT_PING_URL", &url), ("SNAPSHOT_PING_FAILURES", "all")];
        let running = cluster.start(&all_permissions(), &settings).await;
        cluster.until("it waits", async || cluster.names().await.len() == 1).await;
        let began = Instant::now();
        running.signal("TERM");
        let ran = running.finish().await;
        ran.assert_exit(143);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        let received = receiver.received();
        assert_eq!(
            received.iter().map(|request| request.path.as_str()).collect::<Vec<_>>(),
            [format!("/{SECRET}/143")]
        );
    })
    .await;
}

#[tokio::test]
async fn a_signal_ends_the_telling_and_the_run_stays_what_it_was() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let receiver = Receiver::start(false, |_| Reply::Silence).await;
        let url = receiver.url();
        let running = cluster.start(&all_permissions(), &[DATA, ("SNAPSHOT_PING_URL", &url)]).await;
        cluster.until("it pings", async || !receiver.received().is_empty()).await;
        let began = Instant::now();
        running.signal("TERM");
        running.finish().await.assert_exit(0);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    })
    .await;
}

// --- Networks --------------------------------------------------------------------------------------

#[tokio::test]
async fn https_is_trusted_by_the_systems_certificates_or_by_those_of_a_file() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let receiver = Receiver::start(true, |_| Reply::new(200, "OK")).await;
        let file = cluster.file("ca.pem", receiver.ca_pem().expect("TLS"));
        let file = file.to_str().expect("a path");
        let url = format!("{}/{SECRET}", receiver.url());
        assert!(url.starts_with("https://"));
        // By the system's, which is told where they are.
        for variable in ["SNAPSHOT_NOTIFY_CA_FILE", "SSL_CERT_FILE"] {
            let before = receiver.received().len();
            let ran = run(cluster, &url, &[DATA, (variable, file)]).await;
            ran.assert_exit(0);
            assert_eq!(ran.lines("cannot ping").len(), 0, "{variable}: {:?}", ran.log);
            assert_eq!(receiver.received().len(), before + 1, "{variable}");
        }
        let ran = run(cluster, &url, &[DATA]).await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("invalid peer certificate").len(), 1, "{:?}", ran.log);
        assert_eq!(receiver.received().len(), 2);
    })
    .await;
}

/// A proxy that makes tunnels, and the heads of the requests for them.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = heads.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a connection");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read > 0) {
                head.extend_from_slice(&byte);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let target = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
            seen.lock().expect("nobody panicked").push(head);
            let Ok(mut server) = TcpStream::connect(target) else { continue };
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let (mut from, mut to) =
                (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    (address, heads)
}

#[tokio::test]
async fn a_ping_goes_through_the_proxy_but_for_the_hosts_that_it_is_not_for() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        for (tls, variable) in [(true, "HTTPS_PROXY"), (false, "http_proxy")] {
            let receiver = Receiver::start(tls, |_| Reply::new(200, "OK")).await;
            let ca = cluster.file("ca.pem", receiver.ca_pem().unwrap_or_default());
            let ca = ("SNAPSHOT_NOTIFY_CA_FILE", ca.to_str().expect("a path"));
            let url = format!("{}/{SECRET}", receiver.url());
            let (address, heads) = proxy();
            let proxy = format!("http://me:{SECRET}-pw@{address}");
            // The kubeconfig's server is the exception here, as in a pod the API server is.
            let server = cluster.fake().address().to_string();
            let through = [DATA, ca, (variable, &proxy), ("NO_PROXY", "10.0.0.0/8,example.com")];
            let through = match tls {
                true => [&through[..], &[]].concat(),
                false => through.to_vec(),
            };
            let ran = run(cluster, &url, &through).await;
            ran.assert_exit(0);
            assert_eq!(receiver.received().len(), 1, "{variable}: {:?}", ran.log);
            let asked = heads.lock().expect("nobody panicked").clone();
            let connect = format!("CONNECT {} HTTP/1.1\r\n", receiver.address());
            let of_ping: Vec<_> = asked.iter().filter(|head| head.starts_with(&connect)).collect();
            assert_eq!(of_ping.len(), 1, "{variable}: {server} {asked:?}");
            let head = of_ping[0].to_ascii_lowercase();
            // me:s3cr3t-and-planted-pw
            assert!(head.contains("proxy-authorization: basic "), "{head}");
            assert!(!head.contains(&format!("/{SECRET}")), "{head}");

            let besides = [DATA, ca, (variable, &proxy), ("NO_PROXY", "127.0.0.0/8")];
            run(cluster, &url, &besides).await.assert_exit(0);
            assert_eq!(receiver.received().len(), 2);
            let again = heads.lock().expect("nobody panicked").clone();
            assert_eq!(again.iter().filter(|head| head.starts_with(&connect)).count(), 1, "{again:?}");
        }
    })
    .await;
}

// --- Secrets ---------------------------------------------------------------------------------------

/// All that a log can have switched on, in both formats, and the termination message.
pub(super) async fn trace(cluster: &TestCluster, settings: &[(&str, &str)]) -> String {
    let kubeconfig = cluster.kubeconfig(&all_permissions()).await;
    let mut said = String::new();
    for format in ["text", "json"] {
        let message = cluster.file("message", "");
        let output = Command::new(BINARY)
            .env_clear()
            .env("KUBECONFIG", &kubeconfig)
            .env("SNAPSHOT_TERMINATION_LOG", &message)
            .env("SNAPSHOT_LOG_FORMAT", format)
            .env("RUST_LOG", "trace")
            .envs(settings.iter().copied())
            .output();
        let output = output.await.expect("it starts");
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        said.push_str(&std::fs::read_to_string(&message).expect("a message"));
    }
    said
}

/// Fails if something of a secret was said, in clear, percent-encoded or in base64.
pub(super) fn assert_kept_secret(said: &str, what: &str) {
    // The same in base64, wherever it begins in the text that was encoded.
    let base64 = ["czNjcjN0LWFuZC1wbGFudGVk", "MzY3IzdC1hbmQtcGxhbnRlZ", "zM2NyM3QtYW5kLXBsYW50ZW"];
    for secret in [SECRET, "s3cr3t", base64[0], base64[1], base64[2]] {
        if let Some(line) = said.lines().find(|line| line.contains(secret)) {
            panic!("{what}: {line}");
        }
    }
}

#[tokio::test]
async fn nothing_of_the_url_is_in_any_log_at_any_level() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let answers = wrong().into_iter().map(|(what, reply, _)| (what, reply));
        for (what, reply) in answers.chain([("is well", Reply::new(200, SECRET))]) {
            // What is done with an answer is the same behind TLS.
            for tls in [what == "is well", false] {
                let reply = reply.clone();
                let receiver = Receiver::start(tls, move |_: &Received| reply.clone()).await;
                let ca = cluster.file("ca.pem", receiver.ca_pem().unwrap_or_default());
                let ca = ca.to_str().expect("a path");
                let url = receiver.url().replace("://", &format!("://{SECRET}-user:{SECRET}-password@"));
                let url = format!("{url}/{SECRET}-path/{{exit}}?key={SECRET}-key&msg={{message}}");
                let settings = [DATA, ("SNAPSHOT_PING_URL", &url), ("SNAPSHOT_NOTIFY_CA_FILE", ca)];
                let said = trace(cluster, &settings).await;
                assert_kept_secret(&said, what);
                // It was pinged, with all of that.
                let received = receiver.received();
                assert!(received[0].path.contains(SECRET), "{what}: {received:?}");
                assert!(received[0].headers.contains_key("authorization"), "{what}: {received:?}");
                // The filter does switch on what the libraries have to say.
                assert!(said.contains("http.url=") && said.contains("requesting"), "{said}");
            }
        }
        let unreachable = format!("http://{SECRET}:{SECRET}@127.0.0.1:1/{SECRET}");
        for settings in [
            vec![DATA, ("SNAPSHOT_PING_URL", unreachable.as_str())],
            // Settings that cannot be understood, of which one is the URL.
            vec![DATA, ("SNAPSHOT_PING_URL", unreachable.as_str()), ("SNAPSHOT_HOLD", "maybe")],
            vec![DATA, ("SNAPSHOT_PING_URL", "https://s3cr3t-and-planted/{no-such-thing}")],
            vec![DATA, ("SNAPSHOT_PING_URL", "s3cr3t-and-planted")],
        ] {
            assert_kept_secret(&trace(cluster, &settings).await, "nobody is there");
        }
    })
    .await;
}
