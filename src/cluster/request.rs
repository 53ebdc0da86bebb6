//! How one request is sent: within the bound on requests in flight, within a time, repeated where
//! that is safe. What is asked for is in [`super`].

use std::time::Duration;

use futures::{Stream, StreamExt};
use http::{
    Request, Response, StatusCode,
    header::{CONTENT_LENGTH, HeaderName, RETRY_AFTER},
};
use http_body_util::BodyExt;
use kube::{
    Client,
    api::WatchEvent,
    client::Body,
    core::{Status, request::Error as BuildError},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use super::{Cause, Error, Pause, action::Action, error::with_causes};

/// How long one try of a request may take, its whole answer included. The API server itself gives
/// up after 60 s by default; a page of 500 snapshots takes well under a second.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads an answer.
pub(super) type Reader<'a> = dyn FnMut(&[u8]) -> Result<(), serde_json::Error> + 'a;

/// Reads an answer into its place.
fn reading<T: DeserializeOwned>(
    answer: &mut Option<T>,
) -> impl FnMut(&[u8]) -> Result<(), serde_json::Error> {
    |body| serde_json::from_slice(body).map(|read| *answer = Some(read))
}

/// A success that nobody read, of which no case is known.
fn unread(action: &Action) -> Error {
    Error::other(action, Cause::Unreachable, "the answer was not read")
}

/// The most bytes of an answer that room is made for before they come.
const MAX_ANNOUNCED: usize = 1 << 20;

/// A request, or why it could not be put together.
pub(super) type Built = Result<Request<Vec<u8>>, BuildError>;

/// Puts a request together, once more for each try.
pub(super) type Build<'a> = dyn Fn() -> Built + 'a;

/// A request that could be put together, or why not in the words of this program.
pub(super) fn built(action: &Action, request: Built) -> Result<Request<Vec<u8>>, Error> {
    request.map_err(|error| Error::other(action, Cause::Invalid, &error.to_string()))
}

/// Sends requests.
pub(super) struct Requests {
    client: Client,
    in_flight: Semaphore,
}

impl Requests {
    /// At most `concurrency` requests are in flight at a time, besides the watch.
    pub(super) fn new(client: Client, concurrency: usize) -> Self {
        Requests { client, in_flight: Semaphore::new(concurrency) }
    }

    /// Sends the request that `build` gives, which does no harm if it is carried out twice, again and again while the
    /// failure may pass.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        action: &Action,
        build: impl Fn() -> Built,
    ) -> Result<T, Error> {
        let mut answer = None;
        self.send_to(action, &build, &mut reading(&mut answer)).await?;
        answer.ok_or_else(|| unread(action))
    }

    /// As [`Requests::send`], for what reads the answer itself. Not generic: every kind of answer
    /// would have a copy of all that is done to get one.
    pub(super) async fn send_to(
        &self,
        action: &Action,
        build: &Build<'_>,
        reader: &mut Reader<'_>,
    ) -> Result<(), Error> {
        let mut patience = Patience::new();
        loop {
            match self.send_once_to(action, build, &mut patience, reader).await {
                Err(error) if error.is_passing() => patience.wait(error).await?,
                answer => return answer,
            }
        }
    }

    /// Sends a request once, at the cost of some patience.
    pub(super) async fn send_once<T: DeserializeOwned>(
        &self,
        action: &Action,
        build: &Build<'_>,
        patience: &mut Patience,
    ) -> Result<T, Error> {
        let mut answer = None;
        self.send_once_to(action, build, patience, &mut reading(&mut answer)).await?;
        answer.ok_or_else(|| unread(action))
    }

    async fn send_once_to(
        &self,
        action: &Action,
        build: &Build<'_>,
        patience: &mut Patience,
        reader: &mut Reader<'_>,
    ) -> Result<(), Error> {
        let Ok(_place) = self.in_flight.acquire().await else {
            return Err(Error::other(action, Cause::Unreachable, "no more requests are made"));
        };
        // Only now: the time spent waiting for a place says nothing about the API server.
        let began = Instant::now();
        // Only now as well, and on the heap: a thousand claims wait for a place, and none of them
        // holds a request or has room for an exchange meanwhile.
        let exchange = Box::pin(async {
            let request = built(action, build())?.map(Body::from);
            let response = self.client.send(request).await.map_err(|error| failed(action, error))?;
            answer(action, response, reader).await
        });
        let answer = in_time(action, exchange).await;
        patience.spend(began.elapsed());
        answer
    }

    /// Opens a watch, once. It takes no place among the requests in flight: there is only one, and
    /// it must not queue behind a thousand creates.
    pub(super) async fn watch<T: Clone + DeserializeOwned + 'static>(
        &self,
        action: Action,
        request: Request<Vec<u8>>,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, Error>> + use<T>, Error> {
        let open =
            async { self.client.request_events(request).await.map_err(|error| failed(&action, error)) };
        let events = in_time(&action, open).await?;
        Ok(events.map(move |event| event.map_err(|error| failed(&action, error))))
    }
}

/// How long one request is repeated before it has failed, its own time included.
pub(super) struct Patience {
    left: Duration,
    pause: Pause,
}

impl Patience {
    pub(super) fn new() -> Self {
        Patience { left: Duration::from_secs(60), pause: Pause::between_tries() }
    }

    fn spend(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// Waits until a request may be repeated; gives the error back once patience is at an end.
    pub(super) async fn wait(&mut self, error: Error) -> Result<(), Error> {
        if self.left.is_zero() {
            return Err(error);
        }
        let wait = self.pause.next(error.retry_after());
        self.spend(wait);
        tracing::warn!(again_in_ms = wait.as_millis() as u64, "{error}");
        sleep(wait).await;
        Ok(())
    }
}

/// Gives a request no longer than [`TIMEOUT`].
async fn in_time<T>(action: &Action, exchange: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| {
        let said = format!("no answer within {}", crate::text::duration(TIMEOUT));
        Err(Error::other(action, Cause::Unreachable, &said))
    })
}

/// Reads an answer to its end.
async fn answer(action: &Action, response: Response<Body>, reader: &mut Reader<'_>) -> Result<(), Error> {
    let code = response.status();
    let number = |header: HeaderName| response.headers().get(header)?.to_str().ok()?.parse::<u64>().ok();
    let retry_after = number(RETRY_AFTER).map(Duration::from_secs);
    let announced = number(CONTENT_LENGTH).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let body = whole(response.into_body(), announced).await.map_err(|error| failed(action, error))?;
    if !code.is_success() {
        let status = serde_json::from_slice::<Status>(&body).ok();
        let text = String::from_utf8_lossy(&body);
        return Err(Error::answered(action, code.as_u16(), status, &text, retry_after));
    }
    reader(&body).map_err(|error| {
        let said = format!("the answer cannot be read: {error}");
        Error::other(action, Cause::Unreachable, &said)
    })
}

/// Reads a body to its end, into one buffer: pieces that are put together afterwards would take twice
/// the room, and a page of a list is a megabyte.
async fn whole(mut body: Body, announced: usize) -> Result<Vec<u8>, kube::Error> {
    let mut bytes = Vec::with_capacity(announced.min(MAX_ANNOUNCED));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// What a failure of the client library means.
fn failed(action: &Action, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => {
            let code = match status.code {
                0 => StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
                code => code,
            };
            Error::answered(action, code, Some(*status), "", None)
        }
        kube::Error::Auth(error) => Error::other(action, Cause::Credentials, &with_causes(error)),
        kube::Error::Service(error) => {
            Error::other(action, Cause::Unreachable, &with_causes(anyhow::Error::from_boxed(error)))
        }
        error => Error::other(action, Cause::Unreachable, &with_causes(error)),
    }
}
