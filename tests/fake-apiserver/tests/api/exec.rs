//! Commands in containers: scripts, input, faults, and what outlives the client.

use crate::{send, send_as, server, until};
use fake_apiserver::http::{self as client, Exec, Frame, Response};
use fake_apiserver::{ExecFault, FakeApiServer, Fault, Process, Request, Script, When, objects};
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const PATH: &str = "/api/v1/namespaces/app/pods/db/exec?container=main&stdout=true&stderr=true";
const BOTH: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// A server with a running pod `db` of one container `main`.
async fn with_pod() -> FakeApiServer {
    let server = server(|_| {}).await;
    server.put(objects::running_pod("app", "db", &["main"], &["data"]));
    server
}

async fn try_exec(server: &FakeApiServer, path: &str, protocols: &[&str]) -> Result<Exec, Response> {
    let url = format!("{}{path}", server.url());
    client::exec(&url, Some(server.admin_token()), protocols).await.expect("an answer")
}

async fn exec(server: &FakeApiServer, command: &str) -> Exec {
    try_exec(server, &format!("{PATH}&command={command}"), BOTH).await.expect("it runs")
}

/// What a client has seen of a command at the end of the stream.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    stdout: String,
    stderr: String,
    status: Value,
    /// Code of the frame that closes the stream; 0 if there was none.
    closed: u16,
}

async fn read(exec: &mut Exec) -> Seen {
    let mut seen = Seen::default();
    let reading = async {
        while let Ok(Some(frame)) = exec.next().await {
            match frame {
                Frame::Data { channel, data } => {
                    let text = String::from_utf8_lossy(&data).into_owned();
                    match channel {
                        1 => seen.stdout += &text,
                        2 => seen.stderr += &text,
                        3 => seen.status = serde_json::from_str(&text).unwrap_or(text.into()),
                        other => panic!("channel {other}: {text}"),
                    }
                }
                Frame::Close { code, .. } => seen.closed = code,
            }
        }
    };
    timeout(Duration::from_secs(10), reading).await.expect("the stream ends");
    seen
}

async fn run(server: &FakeApiServer, command: &str) -> Seen {
    read(&mut exec(server, command).await).await
}

fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn last(server: &FakeApiServer) -> Process {
    server.processes().last().expect("a process").clone()
}

fn is_exec(request: &Request) -> bool {
    request.is("get", "pods/exec")
}

#[tokio::test]
async fn a_script_prints_waits_acts_and_ends() {
    let server = with_pod().await;
    server.commands(|command| {
        Some(match command.line().as_str() {
            "all" => Script::new()
                .prints("one ")
                .complains("what?")
                .wait(Duration::from_millis(50))
                .prints("two")
                .does(|others| others.label("pods", "app", "db", "done", Some("yes")))
                .exits(7),
            "lost" => Script::new().breaks("the node is lost"),
            _ => return None,
        })
    });
    let began = Instant::now();
    let seen = run(&server, "all").await;
    assert!(began.elapsed() >= Duration::from_millis(50));
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str(), seen.closed), ("one two", "what?", 1000));
    assert_eq!(seen.status["details"]["causes"], json!([{"reason": "ExitCode", "message": "7"}]));
    assert_eq!(server.get("pods", "app", "db").expect("a pod")["metadata"]["labels"]["done"], "yes");
    let process = last(&server);
    assert_eq!((process.exit, process.abandoned), (Some(7), None));
    assert_eq!(
        (process.command.container.as_str(), process.command.user.as_str()),
        ("main", "kubernetes-admin")
    );
    let lost = run(&server, "lost").await.status;
    assert_eq!(lost["message"], "Internal error occurred: the node is lost");
    assert_eq!(last(&server).exit, None);
    let missing = run(&server, "missing").await.status;
    assert!(
        missing["message"]
            .as_str()
            .expect("a message")
            .contains("exec: \"missing\": executable file not found")
    );

    // What was not asked for is not sent.
    for (wanted, stdout, stderr) in [
        ("stdout=true", "one two", ""),
        ("stderr=true", "", "what?"),
        ("stdout=true&stderr=true&tty=true", "one what?two", ""),
    ] {
        let path = format!("/api/v1/namespaces/app/pods/db/exec?command=all&{wanted}");
        let seen = read(&mut try_exec(&server, &path, BOTH).await.expect("it runs")).await;
        assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), (stdout, stderr), "{wanted}");
        assert_eq!(seen.status["reason"], "NonZeroExitCode", "{wanted}");
    }
}

#[tokio::test]
async fn input_is_read_to_its_end_or_line_by_line() {
    let server = with_pod().await;
    server.commands(|command| {
        Some(match command.line().as_str() {
            "count" => {
                Script::new().with_input(|input| Script::new().prints(format!("{} bytes", input.len())))
            }
            "session" => Script::new()
                .for_each_line(|line| match line {
                    "FLUSH TABLES WITH READ LOCK;" => Script::new().freeze().prints("ok\n"),
                    "boom" => Script::new().exits(2),
                    other => Script::new().complains(format!("what is {other}?\n")),
                })
                .thaw(),
            _ => return None,
        })
    });
    let mut count = exec(&server, "count&stdin=true").await;
    count.send(0, b"12345").await.expect("sent");
    count.send(0, b"67").await.expect("sent");
    sleep(Duration::from_millis(30)).await;
    assert_eq!(last(&server).ended, None);
    count.end_input().await.expect("sent");
    let seen = read(&mut count).await;
    assert_eq!((seen.stdout.as_str(), &seen.status), ("7 bytes", &success()));
    assert_eq!(last(&server).input, b"1234567");
    // Who does not say that there is input ends it at once.
    assert_eq!(run(&server, "count").await.stdout, "0 bytes");

    let mut session = exec(&server, "session&stdin=true").await;
    session.send(0, b"FLUSH TABLES WITH READ LOCK;\r\nnon").await.expect("sent");
    until("frozen", || server.is_frozen("app", "db")).await;
    session.send(0, b"sense\n").await.expect("sent");
    session.end_input().await.expect("sent");
    let seen = read(&mut session).await;
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("ok\n", "what is nonsense?\n"));
    assert!(!server.is_frozen("app", "db"));
    let mut session = exec(&server, "session&stdin=true").await;
    session.send(0, b"boom\nand more\n").await.expect("sent");
    assert_eq!(read(&mut session).await.status["reason"], "NonZeroExitCode");
}

#[tokio::test]
async fn a_client_that_goes_ends_the_input_and_nothing_else() {
    let server = with_pod().await;
    server.commands(|command| {
        Some(match command.line().as_str() {
            "held" => Script::new().freeze().prints("frozen\n").until_input_ends().thaw(),
            "deaf" => Script::new().freeze().prints("frozen\n").hangs(),
            "slow" => Script::new().wait(Duration::from_millis(100)).prints("lost\n").exits(4),
            _ => return None,
        })
    });
    for protocols in [&["v5.channel.k8s.io"], &["v4.channel.k8s.io"]] {
        let path = format!("{PATH}&command=held&stdin=true");
        let mut held = try_exec(&server, &path, protocols).await.expect("it runs");
        assert_eq!(held.protocol, protocols[0]);
        until("frozen", || server.is_frozen("app", "db")).await;
        // In version 4 that is nothing; in version 5 it ends the input of nobody.
        held.send(if protocols[0].starts_with("v4") { 255 } else { 9 }, &[0]).await.expect("sent");
        sleep(Duration::from_millis(30)).await;
        assert!(server.is_frozen("app", "db"));
        if protocols[0].starts_with("v4") {
            held.close().await.expect("closed");
        }
        drop(held);
        until("thawed", || !server.is_frozen("app", "db")).await;
        until("ended", || last(&server).ended.is_some()).await;
        assert!(last(&server).abandoned.is_some(), "{:?}", last(&server));
        assert_eq!(last(&server).exit, Some(0));
    }
    drop(exec(&server, "slow").await);
    until("ended", || last(&server).ended.is_some()).await;
    assert!(last(&server).abandoned < last(&server).ended);
    assert_eq!(last(&server).exit, Some(4));
    drop(exec(&server, "deaf&stdin=true").await);
    until("abandoned", || last(&server).abandoned.is_some()).await;
    assert_eq!(last(&server).ended, None);
    assert!(server.is_frozen("app", "db"));
    let freezes = server.freezes("app", "db");
    assert_eq!(freezes.len(), 3);
    assert!(freezes[0].until.is_some() && freezes[0].duration() >= Duration::from_millis(30), "{freezes:?}");
    assert_eq!(freezes[2].until, None);

    // With its pod everything goes.
    server.delete("pods", "app", "db");
    until("killed", || last(&server).exit == Some(137)).await;
    assert!(!server.is_frozen("app", "db"));
}

#[tokio::test]
async fn a_process_in_the_background_goes_on_after_the_command() {
    let server = with_pod().await;
    server.commands(|_| {
        let dead_man = Script::new().wait(Duration::from_millis(100)).thaw();
        Some(Script::new().freeze().background(dead_man))
    });
    assert_eq!(run(&server, "freeze").await.status, success());
    assert!(server.is_frozen("app", "db"));
    until("thawed", || !server.is_frozen("app", "db")).await;
    let background: Vec<bool> = server.processes().iter().map(|process| process.background).collect();
    assert_eq!(background, [false, true]);
}

#[tokio::test]
async fn a_process_waits_for_a_client_that_does_not_read() {
    const MUCH: usize = 32 << 20;
    let server = with_pod().await;
    server.commands(|_| Some(Script::new().prints(vec![b'x'; MUCH])));
    let mut slow = exec(&server, "much").await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(last(&server).ended, None);
    let seen = read(&mut slow).await;
    assert_eq!((seen.stdout.len(), seen.status), (MUCH, success()));
    let received = server.requests().last().expect("a request").received;
    assert_eq!(received, (MUCH + success().to_string().len()) as u64);
}

#[tokio::test]
async fn where_nothing_can_run_it_is_said_as_a_cluster_says_it() {
    let server = with_pod().await;
    server.commands(|_| Some(Script::new()));
    let refusal = async |path: &str| {
        let path = format!("/api/v1/namespaces/app/pods/{path}&stdout=true&command=true");
        let response = try_exec(&server, &path, BOTH).await.expect_err("a refusal");
        (response.status.as_u16(), response.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    // Nothing put it on a node.
    server.put(objects::pod("app", "waits", "data"));
    let told = refusal("waits/exec?container=main").await;
    assert_eq!(told, (400, "pod waits does not have a host assigned".into()));
    server.put(objects::with_sidecar(objects::running_pod("app", "two", &["a", "b"], &[]), "proxy"));
    let told = refusal("two/exec?x=").await;
    let message = "a container name must be specified for pod two, choose one of: [a b] or one of the init containers: [proxy]";
    assert_eq!(told, (400, message.into()));
    let told = refusal("two/exec?container=c").await;
    assert_eq!(told, (400, "container c is not valid for pod two".into()));
    let sidecar = "/api/v1/namespaces/app/pods/two/exec?container=proxy&command=true&stdout=true";
    assert_eq!(read(&mut try_exec(&server, sidecar, BOTH).await.expect("it runs")).await.status, success());

    // A container that does not run is noticed late: by the node.
    let done = |pod: &mut Value| pod["status"]["phase"] = "Succeeded".into();
    let stopped = |pod: &mut Value| {
        pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 0}});
    };
    for changes in [&[&stopped as &dyn Fn(&mut Value)][..], &[&done, &stopped]] {
        changes.iter().for_each(|change| drop(server.update("pods", "app", "db", change)));
        let status = run(&server, "true").await.status;
        let message = "Internal error occurred: unable to upgrade connection: container not found (\"main\")";
        assert_eq!((&status["message"], &status["code"]), (&json!(message), &json!(500)));
    }

    // Without a WebSocket there is nothing to be had.
    for method in ["GET", "POST"] {
        let path = "/api/v1/namespaces/app/pods/two/exec?container=a&command=true";
        let answer = send(&server, method, path, None).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["message"]),
            (400, &json!("Upgrade request required"))
        );
    }
    server.admission_denies(is_exec, "hands-off", "nobody gets in");
    let (code, message) = refusal("two/exec?container=a").await;
    assert_eq!(code, 422);
    assert!(message.contains("ValidatingAdmissionPolicy 'hands-off'"), "{message}");
}

#[tokio::test]
async fn an_older_server_speaks_version_4_only() {
    let server = server(|options| options.exec_protocols = &["v4.channel.k8s.io"]).await;
    server.put(objects::running_pod("app", "db", &["main"], &[]));
    server.commands(|_| Some(Script::new().prints("hello")));
    let mut exec = exec(&server, "hello").await;
    assert_eq!(exec.protocol, "v4.channel.k8s.io");
    let seen = read(&mut exec).await;
    assert_eq!((seen.stdout.as_str(), seen.status, seen.closed), ("hello", success(), 1000));
    let refused =
        try_exec(&server, &format!("{PATH}&command=hello"), &BOTH[..1]).await.expect_err("a refusal");
    assert_eq!((refused.status.as_u16(), refused.body.len()), (403, 0));
    assert_eq!(server.processes().len(), 1);
}

#[tokio::test]
async fn streams_go_wrong_as_their_faults_say_and_commands_run_on() {
    let server = with_pod().await;
    let ms = Duration::from_millis;
    server.commands(move |_| Some(Script::new().prints("12345").wait(ms(100)).prints("6789").exits(3)));
    let exit = json!("NonZeroExitCode");
    for (fault, stdout, status, closed) in [
        (ExecFault::CutAfterBytes(0), "", Value::Null, 0),
        (ExecFault::CutAfterBytes(3), "123", Value::Null, 0),
        (ExecFault::CutAfterBytes(7), "1234567", Value::Null, 0),
        (ExecFault::CutAfterBytes(100), "123456789", Value::Null, 0),
        (ExecFault::CutAfter(ms(50)), "12345", Value::Null, 0),
        (ExecFault::CutAfter(ms(5000)), "123456789", exit.clone(), 1000),
        (ExecFault::EndsAfter(ms(50)), "12345", Value::Null, 1000),
        (ExecFault::NoStatus, "123456789", Value::Null, 1000),
    ] {
        server.clear_faults();
        server.fault_nth(is_exec, 1, Fault::Exec(fault.clone()));
        let seen = run(&server, "any").await;
        assert_eq!(
            (seen.stdout.as_str(), &seen.status["reason"], seen.closed),
            (stdout, &status, closed),
            "{fault:?}"
        );
        until("ended", || last(&server).exit == Some(3)).await;
        // In the second half of the output the two race.
        if fault != ExecFault::CutAfterBytes(7) {
            let while_it_ran = stdout.len() < 9;
            assert_eq!(last(&server).abandoned.is_some(), while_it_ran, "{fault:?}");
        }
    }
    server.fault_nth(is_exec, 1, Fault::Exec(ExecFault::Status("<html>".into())));
    assert_eq!(run(&server, "any").await.status, "<html>");
    for (bytes, stdout) in [(0, ""), (2, "12"), (100, "123456789")] {
        server.fault_nth(is_exec, 1, Fault::Exec(ExecFault::MuteAfterBytes(bytes)));
        let mut mute = exec(&server, "any").await;
        let mut heard = String::new();
        let listening = async {
            while let Some(Frame::Data { data, .. }) = mute.next().await.expect("it stays open") {
                heard += &String::from_utf8_lossy(&data);
            }
        };
        timeout(ms(250), listening).await.expect_err("nothing more comes, and no end");
        assert_eq!(heard, stdout);
        assert_eq!((last(&server).exit, last(&server).abandoned), (Some(3), None));
    }
}

#[tokio::test]
async fn the_faults_of_any_request_are_those_of_a_command_too() {
    let server = with_pod().await;
    server.commands(|_| Some(Script::new()));
    let path = format!("{PATH}&command=true");
    let url = format!("{}{path}", server.url());
    for (fault, code, started) in [
        (Fault::Error(500, When::Before), 500, 0),
        (Fault::Error(500, When::After), 500, 1),
        (Fault::Error(403, When::Before), 403, 0),
        (Fault::TooManyRequests { retry_after: Some(1), status: true }, 429, 0),
    ] {
        server.fault_nth(is_exec, 1, fault.clone());
        let before = server.processes().len();
        let refused = try_exec(&server, &path, BOTH).await.expect_err("a refusal");
        assert_eq!(refused.status.as_u16(), code, "{fault:?}");
        assert_eq!(server.processes().len() - before, started, "{fault:?}");
        assert_eq!(server.requests().last().expect("a request").carried_out, started == 1, "{fault:?}");
    }
    for (when, started) in [(When::Before, 0), (When::After, 1)] {
        let before = server.processes().len();
        server.fault_nth(is_exec, 1, Fault::Cut(when));
        client::exec(&url, Some(server.admin_token()), BOTH).await.expect_err("cut");
        server.fault_nth(is_exec, 1, Fault::Hang(when));
        let hanging = client::exec(&url, Some(server.admin_token()), BOTH);
        timeout(Duration::from_millis(50), hanging).await.expect_err("no answer");
        assert_eq!(server.processes().len() - before, 2 * started, "{when:?}");
    }
    until("all ended", || server.processes().iter().all(|process| process.exit == Some(0))).await;
    server.fault_nth(is_exec, 1, Fault::Delay(Duration::from_millis(50)));
    let began = Instant::now();
    assert_eq!(run(&server, "true").await.status, success());
    assert!(began.elapsed() >= Duration::from_millis(50));

    // A connection that is cut is cut, and the command is not.
    server
        .commands(|_| Some(Script::new().prints("begun").until_input_ends().wait(Duration::from_millis(30))));
    let mut held = exec(&server, "held&stdin=true").await;
    until("it runs", || last(&server).command.line() == "held").await;
    server.cut_connections().await;
    let seen = read(&mut held).await;
    assert_eq!((seen.status, seen.closed), (Value::Null, 0));
    until("ended", || last(&server).exit == Some(0)).await;
}

#[tokio::test]
async fn both_verbs_are_needed_and_they_are_those_of_the_subresource() {
    let server = with_pod().await;
    server.commands(|_| Some(Script::new()));
    let token = server.token("app", "hook");
    server.put(objects::role_binding("app", "hook", "hook"));
    let url = format!("{}{PATH}&command=true", server.url());
    let both: &[&str] = &["get", "create"];
    for (resource, verbs, allowed) in [
        ("pods", both, false),
        ("pods/exec", both, true),
        ("*/exec", &["*"], true),
        ("pods/exec", &both[..1], false),
    ] {
        server.put(objects::role("app", "hook", &[("", resource, verbs)]));
        let answer = client::exec(&url, Some(&token), BOTH).await.expect("an answer");
        assert_eq!(answer.is_ok(), allowed, "{resource} {verbs:?}");
    }
    // The verb of a POST is `create` alone.
    server.put(objects::role("app", "hook", &[("", "pods/exec", &["create"])]));
    let post = send_as(&server, &token, "POST", &format!("{PATH}&command=true"), None).await;
    assert_eq!(post.json()["message"], "Upgrade request required");
    let resources = send(&server, "GET", "/api/v1", None).await.json();
    let found =
        resources["resources"].as_array().expect("resources").iter().find(|one| one["name"] == "pods/exec");
    assert_eq!(found.expect("is listed")["kind"], "PodExecOptions");
}

#[tokio::test]
async fn over_tls_an_end_in_order_can_be_told_from_a_cut() {
    let server = server(|options| options.tls = true).await;
    server.put(objects::running_pod("app", "db", &["main"], &[]));
    server.commands(|_| Some(Script::new().prints("12345")));
    for (fault, clean) in [
        (Fault::Delay(Duration::ZERO), true),
        (Fault::Exec(ExecFault::NoStatus), true),
        (Fault::Exec(ExecFault::CutAfterBytes(3)), false),
    ] {
        server.fault_nth(is_exec, 1, fault.clone());
        let stream = crate::trusting(&server, server.ca_pem(), "localhost").await.expect("trust");
        let mut request =
            format!("wss://localhost{PATH}&command=any").into_client_request().expect("a request");
        let bearer = format!("Bearer {}", server.admin_token());
        for (name, value) in [("authorization", bearer.as_str()), ("sec-websocket-protocol", BOTH[1])] {
            request.headers_mut().insert(name, value.parse().expect("a header"));
        }
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("it runs");
        let mut last = None;
        while let Some(message) = socket.next().await {
            last = Some(message);
        }
        assert_eq!(last.is_some_and(|last| last.is_ok()), clean, "{fault:?}");
    }
}
