//! How one request is sent: within the bound on requests in flight, within a time, repeated where
//! that is safe. What is asked for is in [`super`].

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::Duration,
};

use futures::{Stream, StreamExt};
use http::{
    Request, Response, StatusCode,
    header::{CONTENT_LENGTH, DATE, HeaderName, RETRY_AFTER},
};
use http_body_util::BodyExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use kube::{
    Client,
    api::WatchEvent,
    client::{Body, Connection},
    core::{Status, request::Error as BuildError},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};

use super::{
    Backoff, Error, ErrorKind, INTERACTIVE_RETRY_BUDGET, Permission, Scope, credentials, error::with_causes,
    operation::Operation,
};

/// How long one try of a request may take, its whole answer included. The API server itself gives
/// up after 60 s by default; a page of 500 snapshots takes well under a second.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a 401 or 403 has to repeat until it is believed. An API server that has just started
/// refuses what it allows, until it has read all roles and tokens.
pub const DENIED_FOR: Duration = Duration::from_secs(10);

/// The most bytes of an answer. A page of 500 snapshots is 1.3 MB; a single object is never larger
/// than what etcd stores, 1.5 MiB by default.
const MAX_BODY: usize = 4 << 20;

/// The most bytes of an answer that room is made for before they come.
const MAX_ANNOUNCED: usize = 1 << 20;

/// A request, or why it could not be put together.
pub(super) type Built = Result<Request<Vec<u8>>, BuildError>;

/// Puts a request together, once more for each try.
pub(super) type Build<'a> = dyn Fn() -> Built + 'a;

/// A request that could be put together, or why not in the words of this program.
fn built(operation: &Operation, request: Built) -> Result<Request<Vec<u8>>, Error> {
    request.map_err(|error| Error::other(operation, ErrorKind::Invalid, &error.to_string()))
}

/// Reads what was answered.
///
/// # Errors
/// [`ErrorKind::Unreadable`]: the same request would be answered in the same way.
pub(super) fn decode<T: DeserializeOwned>(operation: &Operation, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| not_understood(operation, &error))
}

pub(super) fn not_understood(operation: &Operation, error: &serde_json::Error) -> Error {
    Error::other(operation, ErrorKind::Unreadable, &format!("the answer cannot be understood: {error}"))
}

/// Sends requests.
pub(super) struct Requests {
    client: Client,
    in_flight: Semaphore,
    /// How long one request is repeated.
    budget: Duration,
    /// Whether a person waits for the answer, and wants one line.
    is_for_a_person: bool,
    /// The rights that are denied, and since when; see [`DENIED_FOR`].
    denied: RefCell<HashMap<(Permission, Scope), Instant>>,
    /// The time that the API server gave with its last answer, and when that came.
    clock: Cell<Option<(Timestamp, Instant)>>,
}

/// A place among the requests in flight, which is given back when this is dropped.
pub struct Slot<'a> {
    requests: &'a Requests,
    _permit: SemaphorePermit<'a>,
}

impl Requests {
    /// At most `concurrency` requests are in flight at a time, besides the watch, and each is repeated
    /// for `budget` at most.
    pub(super) fn new(client: Client, concurrency: usize, budget: Duration) -> Self {
        let in_flight = Semaphore::new(concurrency);
        let is_for_a_person = budget <= INTERACTIVE_RETRY_BUDGET;
        Requests {
            client,
            in_flight,
            budget,
            is_for_a_person,
            denied: RefCell::default(),
            clock: Cell::default(),
        }
    }

    /// The current time by the API server's clock; by this machine's before the first answer.
    pub(super) fn now(&self) -> Timestamp {
        let by_server = self
            .clock
            .get()
            .and_then(|(time, at)| time.checked_add(SignedDuration::try_from(at.elapsed()).ok()?).ok());
        by_server.unwrap_or_else(Timestamp::now)
    }

    pub(super) fn budget(&self) -> RetryBudget<'_> {
        RetryBudget { requests: self, left: self.budget, backoff: Backoff::between_tries() }
    }

    /// Waits for a place among the requests in flight.
    pub(super) async fn slot(&self, operation: &Operation) -> Result<Slot<'_>, Error> {
        match self.in_flight.acquire().await {
            Ok(permit) => Ok(Slot { requests: self, _permit: permit }),
            Err(_) => Err(Error::other(operation, ErrorKind::Unreachable, "no more requests are made")),
        }
    }

    /// Sends the request that `build` gives, which does no harm if it is carried out twice, again and
    /// again while the failure may pass. Returns the answer's body.
    pub(super) async fn send(&self, operation: &Operation, build: &Build<'_>) -> Result<Vec<u8>, Error> {
        let mut budget = self.budget();
        loop {
            let answer = self.slot(operation).await?.send(operation, build, &mut budget).await;
            match answer {
                Err(error) => budget.wait(operation, error).await?,
                answer => return answer,
            }
        }
    }

    /// Opens a WebSocket, once, within a time. As a watch, it takes no place among the requests in flight: what
    /// thaws a pod must not queue behind anything.
    pub(super) async fn websocket(
        &self,
        operation: &Operation,
        request: Built,
        within: Duration,
    ) -> Result<Connection, Error> {
        let request = built(operation, request)?;
        match timeout(within, self.client.connect(request)).await {
            Ok(opened) => opened.map_err(|error| failed(operation, error)),
            Err(_) => {
                let said = format!("no answer within {}", crate::text::duration(within));
                Err(Error::other(operation, ErrorKind::Unreachable, &said))
            }
        }
    }

    /// Opens a watch, once. It takes no place among the requests in flight: there is only one, and
    /// it must not queue behind a thousand creates.
    pub(super) async fn watch<T: Clone + DeserializeOwned + 'static>(
        &self,
        operation: Operation,
        request: Built,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, Error>> + use<T>, Error> {
        let request = built(&operation, request)?;
        let open =
            async { self.client.request_events(request).await.map_err(|error| failed(&operation, error)) };
        let events = in_time(&operation, open).await?;
        Ok(events.map(move |event| event.map_err(|error| failed(&operation, error))))
    }
}

impl Slot<'_> {
    /// Sends a request once and charges the time to the retry budget. Returns the answer's body.
    pub(super) async fn send(
        &self,
        operation: &Operation,
        build: &Build<'_>,
        budget: &mut RetryBudget<'_>,
    ) -> Result<Vec<u8>, Error> {
        // Only now: the time spent waiting for a slot says nothing about the API server.
        let began = Instant::now();
        // On the heap: thousands wait for a slot, and none of them has room for an exchange meanwhile.
        let exchange = Box::pin(async {
            let request = built(operation, build())?.map(Body::from);
            let response =
                self.requests.client.send(request).await.map_err(|error| failed(operation, error))?;
            if let Some(time) = time_of(&response) {
                self.requests.clock.set(Some((time, Instant::now())));
            }
            answer(operation, response).await
        });
        let answer = in_time(operation, exchange).await;
        budget.spend(began.elapsed());
        if answer.is_ok() && !self.requests.denied.borrow().is_empty() {
            self.requests.denied.borrow_mut().remove(&operation.permission_and_scope());
        }
        answer
    }
}

/// How long one request is repeated before it has failed, its own time included.
pub(super) struct RetryBudget<'a> {
    requests: &'a Requests,
    left: Duration,
    backoff: Backoff,
}

impl RetryBudget<'_> {
    fn spend(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// Waits until the request may be repeated; gives the error back if that cannot help, or if the
    /// budget is used up.
    pub(super) async fn wait(&mut self, operation: &Operation, error: Error) -> Result<(), Error> {
        let may_repeat = match error.is_denied() {
            true => self.may_be_wrongly_denied(operation),
            false => error.is_retriable(),
        };
        if !may_repeat || self.left.is_zero() {
            return Err(error);
        }
        let wait = self.backoff.next(error.retry_after()).min(self.left);
        self.spend(wait);
        match self.requests.is_for_a_person {
            true => tracing::debug!(again_in_ms = wait.as_millis() as u64, "{error}"),
            false => tracing::warn!(again_in_ms = wait.as_millis() as u64, "{error}"),
        }
        sleep(wait).await;
        Ok(())
    }

    /// Whether a denial has not been repeated for long enough to be believed.
    fn may_be_wrongly_denied(&self, operation: &Operation) -> bool {
        // A person asks again; and an optional operation is done without.
        if self.requests.is_for_a_person || operation.is_optional() {
            return false;
        }
        let now = Instant::now();
        let since = *self.requests.denied.borrow_mut().entry(operation.permission_and_scope()).or_insert(now);
        now.duration_since(since) < DENIED_FOR
    }
}

/// Gives a request no longer than [`TIMEOUT`].
async fn in_time<T>(
    operation: &Operation,
    exchange: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| {
        let said = format!("no answer within {}", crate::text::duration(TIMEOUT));
        Err(Error::other(operation, ErrorKind::Unreachable, &said))
    })
}

/// When an answer was given, by the clock of the one who gave it, in whole seconds.
fn time_of(response: &Response<Body>) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(response.headers().get(DATE)?.as_bytes()).ok()
}

/// Reads an answer to its end.
async fn answer(operation: &Operation, response: Response<Body>) -> Result<Vec<u8>, Error> {
    let code = response.status();
    let number = |header: HeaderName| response.headers().get(header)?.to_str().ok()?.parse::<u64>().ok();
    let retry_after = number(RETRY_AFTER).map(Duration::from_secs);
    let announced = number(CONTENT_LENGTH).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let body = whole(operation, response.into_body(), announced).await?;
    if code.is_success() {
        return Ok(body);
    }
    let status = serde_json::from_slice::<Status>(&body).ok();
    let text = String::from_utf8_lossy(&body);
    Err(Error::answered(operation, code.as_u16(), status, &text, retry_after))
}

/// Reads a body to its end, into one buffer: pieces that are put together afterwards would take twice
/// the room. One that is too large is not read on.
async fn whole(operation: &Operation, mut body: Body, announced: usize) -> Result<Vec<u8>, Error> {
    let too_large = || {
        let said = format!("the answer is larger than {} MiB", MAX_BODY >> 20);
        Error::other(operation, ErrorKind::TooLarge, &said)
    };
    if announced > MAX_BODY {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(announced.min(MAX_ANNOUNCED));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| failed(operation, error))?.into_data() {
            if bytes.len() + data.len() > MAX_BODY {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// What a failure of the client library means.
fn failed(operation: &Operation, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => {
            let code = match status.code {
                0 => StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
                code => code,
            };
            Error::answered(operation, code, Some(*status), "", None)
        }
        kube::Error::Auth(error) => {
            Error::other(operation, ErrorKind::Credentials, &credentials::of_auth(&error, None))
        }
        kube::Error::Service(error) => match credentials::of_request(error.as_ref()) {
            Some(said) => Error::other(operation, ErrorKind::Credentials, &said),
            None => Error::other(
                operation,
                ErrorKind::Unreachable,
                &with_causes(anyhow::Error::from_boxed(error)),
            ),
        },
        error => Error::other(operation, ErrorKind::Unreachable, &with_causes(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_the_time() {
        let time = |date: &str| {
            let response = Response::builder().header(DATE, date).body(Body::empty()).expect("a response");
            time_of(&response).map(|time| time.to_string())
        };
        assert_eq!(time("Sat, 21 Nov 2026 19:44:48 GMT").as_deref(), Some("2026-11-21T19:44:48Z"));
        assert_eq!(time("yesterday"), None);
    }
}
