//! Small servers that answer as the documents of those say whom a run can ping.

use std::sync::{Arc, Mutex};

use fake_apiserver::{Received, Receiver, Reply};
use http::Method;

/// What a service knows of the last run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) is_up: bool,
    pub(super) message: String,
    pub(super) duration: String,
    pub(super) run: String,
}

/// A service that somebody watches.
pub(super) struct Service {
    pub(super) receiver: Receiver,
    known: Arc<Mutex<Vec<Known>>>,
}

type Answer = fn(&Received) -> Result<(Reply, Known), Reply>;

impl Service {
    pub(super) async fn start(answer: Answer) -> Service {
        let known: Arc<Mutex<Vec<Known>>> = Arc::default();
        let learnt = known.clone();
        let receiver = Receiver::start(false, move |request| match answer(request) {
            Ok((reply, known)) => {
                learnt.lock().expect("nobody panicked").push(known);
                reply
            }
            Err(reply) => reply,
        });
        Service { receiver: receiver.await, known }
    }

    /// Everything that it learnt, in that order.
    pub(super) fn known(&self) -> Vec<Known> {
        self.known.lock().expect("nobody panicked").clone()
    }
}

pub(super) const UUID: &str = "0c8983c9-9d73-446f-adb5-0641fdacc9d4";
pub(super) const TOKEN: &str = "c2354d53d2";

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn refused(status: u16, body: &str) -> Reply {
    Reply::new(status, body)
}

/// The Pinging API of healthchecks: HEAD, GET and POST, a body of at most 10 kB, exit status 0 to 255, and `rid`
/// a UUID.
pub(super) fn healthchecks(request: &Received) -> Result<(Reply, Known), Reply> {
    if ![Method::HEAD, Method::GET, Method::POST].contains(&request.method) {
        return Err(refused(405, ""));
    }
    let run = request.parameter("rid").unwrap_or_default();
    if request.parameter("rid").is_some() && !is_uuid(run) {
        return Err(refused(400, "invalid uuid format"));
    }
    let is_up = match request.segments()[..] {
        [uuid] | [uuid, "0"] if uuid == UUID => true,
        [uuid, "fail"] if uuid == UUID => false,
        [uuid, exit] if uuid == UUID => match exit.parse::<u8>() {
            Ok(_) => false,
            Err(_) => return Err(refused(400, "invalid url format")),
        },
        _ => return Err(refused(404, "not found")),
    };
    let message: String = request.body.chars().take(10_000).collect();
    let known = Known { is_up, message, duration: String::new(), run: run.to_owned() };
    Ok((Reply::new(200, "OK"), known))
}

/// The push endpoint of Uptime Kuma 2: any method; `status` is up or it is down, `msg`, and `ping` a number of
/// milliseconds of at most a day.
pub(super) fn uptime_kuma(request: &Received) -> Result<(Reply, Known), Reply> {
    let ["api", "push", token] = request.segments()[..] else {
        return Err(refused(404, &format!("Cannot {} {}", request.method, request.path)));
    };
    let ping = request.parameter("ping").unwrap_or_default();
    if !ping.is_empty() && !ping.parse::<f64>().is_ok_and(|ping| (0.0..=86_400_000.0).contains(&ping)) {
        return Err(refused(400, r#"{"ok":false,"msg":"Invalid ping value"}"#));
    }
    if token != TOKEN {
        return Err(refused(404, r#"{"ok":false,"msg":"Monitor not found or not active."}"#));
    }
    let known = Known {
        is_up: request.parameter("status").unwrap_or("up") == "up",
        message: request.parameter("msg").unwrap_or("OK").to_owned(),
        duration: ping.to_owned(),
        run: String::new(),
    };
    Ok((Reply::new(200, r#"{"ok":true}"#), known))
}

/// Uptime Kuma 1, which has that endpoint for GET alone; Express says of any other method that it is not there.
pub(super) fn uptime_kuma_1(request: &Received) -> Result<(Reply, Known), Reply> {
    match request.method {
        Method::GET => uptime_kuma(request),
        _ => Err(refused(404, &format!("<pre>Cannot {} {}</pre>", request.method, request.path))),
    }
}

/// The Telemetry API of Cronitor: GET, HEAD and POST; `state`, a `message` of at most 2,000 characters, `metric`
/// as count, duration or error_count, `series`, `status_code`.
pub(super) fn cronitor(request: &Received) -> Result<(Reply, Known), Reply> {
    let ["p", "KEY", "MONITOR"] = request.segments()[..] else { return Err(refused(404, "")) };
    let state = request.parameter("state").unwrap_or_default();
    let message = request.parameter("message").unwrap_or_default();
    let metric = request.parameter("metric").unwrap_or_default();
    let is_metric = metric.split_once(':').is_some_and(|(name, value)| {
        ["count", "duration", "error_count"].contains(&name) && value.parse::<f64>().is_ok()
    });
    let is_code = request.parameter("status_code").is_none_or(|code| code.parse::<i32>().is_ok());
    let is_good = ["run", "complete", "fail", "ok"].contains(&state)
        && message.chars().count() <= 2000
        && (metric.is_empty() || is_metric)
        && is_code
        && [Method::GET, Method::HEAD, Method::POST].contains(&request.method);
    if !is_good {
        return Err(refused(400, "invalid"));
    }
    let known = Known {
        is_up: state == "complete",
        message: message.to_owned(),
        duration: metric.to_owned(),
        run: request.parameter("series").unwrap_or_default().to_owned(),
    };
    Ok((Reply::new(200, "OK"), known))
}

/// Dead Man's Snitch: GET, POST, PUT and PATCH; `m` is a message, `s` an exit status, of which 0, none and an
/// empty one are success.
pub(super) fn dead_mans_snitch(request: &Received) -> Result<(Reply, Known), Reply> {
    if ![Method::GET, Method::POST, Method::PUT, Method::PATCH].contains(&request.method) {
        return Err(refused(405, "405 Method Not Allowed"));
    }
    let [token] = request.segments()[..] else { return Err(refused(404, "")) };
    if token.is_empty() {
        return Err(refused(404, "You are checking in without a token."));
    }
    let known = Known {
        is_up: ["", "0"].contains(&request.parameter("s").unwrap_or_default()),
        message: request.parameter("m").unwrap_or_default().to_owned(),
        ..Known::default()
    };
    Ok((Reply::new(202, "Got it, thanks!\n"), known))
}
