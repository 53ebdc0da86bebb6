//! A watch: initial events, changes, bookmarks, the timeout, and the encoding as lines.
//!
//! Which changes a watch sees is decided in `store`, as they happen.

use crate::call::Call;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::log::Running;
use crate::registry::Resource;
use crate::store::{From, Interest, Kind, Notice, Object, Store, Watch};
use crate::table;
use crate::verbs::{Form, shown_json};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

/// Above this many bytes a chunk is sent on before more events are put in.
const CHUNK: usize = 64 * 1024;

/// A watch that is to be answered.
#[derive(Debug)]
pub(crate) struct Session {
    resource: &'static Resource,
    form: Form,
    bookmarks: bool,
    bookmark_every: Duration,
    until: Option<Instant>,
    /// Answered before anything else, and ends the watch.
    failure: Option<Failure>,
    first: VecDeque<Arc<Object>>,
    /// Whether a bookmark says where the first objects end.
    mark_end: bool,
    watch: Option<Watch>,
    /// Whether a table with headers went out; later ones have none.
    headed: bool,
}

impl Session {
    pub(crate) fn begin(
        cluster: &Cluster,
        resource: &'static Resource,
        call: &Call,
        form: Form,
        interest: Interest,
        from: From,
    ) -> Result<Session, Failure> {
        let bookmarks = call.flag("allowWatchBookmarks");
        let until = match call.parameter("timeoutSeconds") {
            "" | "0" => None,
            text => {
                let seconds = text.parse::<u32>().map_err(|_| Failure::no_number(text))?;
                Some(Instant::now() + Duration::from_secs(seconds.into()))
            }
        };
        let (watch, failure) = match cluster.store.watch(interest, from) {
            Ok(watch) => (Some(watch), None),
            // Not an error of the request: the answer is 200, and the stream's one event says it.
            Err(failure) => (None, Some(failure)),
        };
        let mut session = Session {
            resource,
            form,
            bookmarks,
            // An interval cannot be of no length.
            bookmark_every: cluster.options.bookmark_every.max(Duration::from_millis(1)),
            until,
            failure,
            first: VecDeque::new(),
            mark_end: bookmarks && from == From::Now,
            watch,
            headed: false,
        };
        if let Some(watch) = &mut session.watch {
            session.first = std::mem::take(&mut watch.first).into();
        }
        Ok(session)
    }

    /// The stream of chunks, each of whole lines.
    pub(crate) fn stream(self, cluster: Arc<Cluster>) -> impl futures::Stream<Item = Bytes> + Send + 'static {
        let running = cluster.log.begin_watch();
        let mut bookmark = interval_at(Instant::now() + self.bookmark_every, self.bookmark_every);
        bookmark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let muted = cluster.muted();
        let state = Stream { session: self, cluster, bookmark, over: false, muted, _running: running };
        futures::stream::unfold(state, |mut state| async { Some((state.hear().await?, state)) })
    }

    fn event(&mut self, kind: &str, object: &Object, line: &mut Vec<u8>) {
        line.extend_from_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
        match self.form {
            Form::Object => line.extend_from_slice(&shown_json(self.resource, object)),
            Form::Table(include) => {
                let metadata = json!({"resourceVersion": crate::object::resource_version(&object.value)});
                let rows = std::iter::once(&object.value);
                let table = table::table(self.resource, rows, metadata, include, !self.headed);
                self.headed = true;
                line.extend_from_slice(table.to_string().as_bytes());
            }
        }
        line.extend_from_slice(b"}\n");
    }

    fn bookmark(&self, version: u64, end_of_first: bool, line: &mut Vec<u8>) {
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if end_of_first {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Object => json!({
                "kind": self.resource.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": metadata,
            }),
            Form::Table(include) => {
                table::table(self.resource, std::iter::empty::<&Value>(), metadata, include, false)
            }
        };
        line.extend_from_slice(json!({"type": "BOOKMARK", "object": object}).to_string().as_bytes());
        line.push(b'\n');
    }
}

/// The line of an ERROR event.
pub(crate) fn error(failure: &Failure, line: &mut Vec<u8>) {
    line.extend_from_slice(json!({"type": "ERROR", "object": failure.status()}).to_string().as_bytes());
    line.push(b'\n');
}

struct Stream {
    session: Session,
    cluster: Arc<Cluster>,
    bookmark: tokio::time::Interval,
    over: bool,
    /// What the cluster said of mute watches when this one began.
    muted: u64,
    _running: Running,
}

impl Stream {
    /// Returns the next chunk; never completes once the watch is muted.
    async fn hear(&mut self) -> Option<Bytes> {
        let chunk = self.next().await;
        if self.cluster.muted() != self.muted {
            pending::<()>().await;
        }
        chunk
    }

    /// The next chunk; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        if self.over {
            return None;
        }
        if let Some(failure) = self.session.failure.take() {
            error(&failure, &mut chunk);
            self.over = true;
            return Some(chunk.into());
        }
        while let Some(object) = self.session.first.pop_front() {
            self.session.event("ADDED", &object, &mut chunk);
            if chunk.len() >= CHUNK {
                return Some(chunk.into());
            }
        }
        if self.session.mark_end {
            self.session.mark_end = false;
            let version = self.session.watch.as_ref()?.version;
            self.session.bookmark(version, true, &mut chunk);
        }
        if !chunk.is_empty() {
            return Some(chunk.into());
        }
        loop {
            let until = self.session.until;
            let bookmarks = self.session.bookmarks;
            let notices = &mut self.session.watch.as_mut()?.notices;
            tokio::select! {
                biased;
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return None,
                notice = notices.recv() => {
                    let mut notice = notice?;
                    loop {
                        self.take(notice, &mut chunk);
                        if self.over || chunk.len() >= CHUNK {
                            break;
                        }
                        match self.session.watch.as_mut()?.notices.try_recv() {
                            Ok(next) => notice = next,
                            Err(TryRecvError::Empty) => break,
                            Err(TryRecvError::Disconnected) => {
                                self.over = true;
                                break;
                            }
                        }
                    }
                    return Some(chunk.into());
                }
                _ = self.bookmark.tick(), if bookmarks => {
                    if let Some(version) = told(&self.cluster.store, self.session.watch.as_ref()?) {
                        self.session.bookmark(version, false, &mut chunk);
                        return Some(chunk.into());
                    }
                }
            }
        }
    }

    fn take(&mut self, notice: Notice, chunk: &mut Vec<u8>) {
        match notice {
            Notice::Event(kind, object) => {
                let kind = match kind {
                    Kind::Added => "ADDED",
                    Kind::Modified => "MODIFIED",
                    Kind::Deleted => "DELETED",
                };
                self.session.event(kind, &object, chunk);
            }
            Notice::Failed(failure) => {
                error(&failure, chunk);
                self.over = true;
            }
        }
    }
}

/// A bookmark must not overtake an event that is still waiting.
fn told(store: &Store, watch: &Watch) -> Option<u64> {
    store.version_if_told(&watch.notices)
}
