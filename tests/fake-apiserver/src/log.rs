//! The log of requests, and the number of concurrent ones.
//!
//! Requests are logged when they arrive; the outcome is added later.

use crate::call::Call;
use crate::fault::Fault;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// One request, as the server saw it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    pub at: Instant,
    pub method: String,
    /// Path without the query, not decoded.
    pub path: String,
    /// Path and query, not decoded.
    pub uri: String,
    /// Query parameters, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Name of the user; empty if the token was not valid.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`; for a path that is no
    /// resource's, the method in lower case.
    pub verb: String,
    /// Plural name of the resource, with the subresource if there is one: `volumesnapshots/status`. Empty for a path
    /// that is no resource's.
    pub resource: String,
    /// Namespace in the path; empty if there is none.
    pub namespace: String,
    /// Name in the path; of a creation, the name in the body. Empty if there is none.
    pub name: String,
    /// Status code of the answer; 0 until there is one.
    pub status: u16,
    /// The request's body as JSON; `None` if it has none or it is not JSON.
    pub body: Option<Value>,
    /// Bytes of the answer's body that were sent; for a watch, so far.
    pub received: u64,
    /// Number of earlier requests with the same verb and resource, since the start or the last
    /// [`FakeApiServer::clear_requests`](crate::FakeApiServer::clear_requests).
    pub earlier: usize,
    /// The injected fault.
    pub fault: Option<Fault>,
    /// Whether the request was carried out, regardless of the answer.
    pub carried_out: bool,
}

impl Request {
    /// Whether it has this verb and is for this resource.
    pub fn is(&self, verb: &str, resource: &str) -> bool {
        self.verb == verb && self.resource == resource
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    request: Request,
    fault: OnceLock<Fault>,
    carried_out: AtomicBool,
    status: AtomicU16,
    received: AtomicU64,
}

impl Entry {
    /// The request as it arrived.
    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    pub(crate) fn suffers(&self, fault: Fault) {
        // Set only once.
        let _ = self.fault.set(fault);
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.fault.get()
    }

    pub(crate) fn carried_out(&self) {
        self.carried_out.store(true, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A counter with its maximum.
#[derive(Debug, Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    fn up(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn down(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn reset(&self) {
        self.most.store(self.now.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Running(Arc<Gauge>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.down();
    }
}

#[derive(Debug, Default)]
struct Entries {
    all: Vec<Arc<Entry>>,
    /// How many there are of each verb and resource.
    counts: HashMap<(&'static str, String), usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: Mutex<Entries>,
    requests: Arc<Gauge>,
    watches: Arc<Gauge>,
}

impl Log {
    /// A request has arrived whole.
    pub(crate) fn arrived(&self, call: &Call, user: &str, body: &[u8]) -> Arc<Entry> {
        let target = call.target.clone().unwrap_or_default();
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let mut name = target.name;
        if name.is_empty() && call.verb == "create" {
            name = json.as_ref().map(|body| crate::object::name(body).to_owned()).unwrap_or_default();
        }
        let resource = if target.subresource.is_empty() {
            target.plural
        } else {
            format!("{}/{}", target.plural, target.subresource)
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let count = entries.counts.entry((call.verb, resource.clone())).or_default();
        let earlier = *count;
        *count += 1;
        let entry = Arc::new(Entry {
            request: Request {
                at: Instant::now(),
                method: call.method.to_string(),
                path: call.path.clone(),
                uri: call.uri.clone(),
                query: call.query.clone(),
                user: user.to_owned(),
                verb: call.verb.to_owned(),
                resource,
                namespace: target.namespace,
                name,
                status: 0,
                body: json,
                received: 0,
                earlier,
                fault: None,
                carried_out: false,
            },
            fault: OnceLock::new(),
            carried_out: AtomicBool::new(false),
            status: AtomicU16::new(0),
            received: AtomicU64::new(0),
        });
        entries.all.push(entry.clone());
        entry
    }

    /// A request that is no watch is being carried out.
    pub(crate) fn begin_request(&self) -> Running {
        self.requests.up();
        Running(self.requests.clone())
    }

    pub(crate) fn begin_watch(&self) -> Running {
        self.watches.up();
        Running(self.watches.clone())
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .all
            .iter()
            .map(|entry| Request {
                fault: entry.fault().cloned(),
                carried_out: entry.carried_out.load(Ordering::Relaxed),
                status: entry.status.load(Ordering::Relaxed),
                received: entry.received.load(Ordering::Relaxed),
                ..entry.request.clone()
            })
            .collect()
    }

    pub(crate) fn clear(&self) {
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = Entries::default();
        self.requests.reset();
        self.watches.reset();
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.requests.most()
    }

    pub(crate) fn most_watches(&self) -> usize {
        self.watches.most()
    }

    pub(crate) fn watches(&self) -> usize {
        self.watches.now.load(Ordering::SeqCst)
    }
}
