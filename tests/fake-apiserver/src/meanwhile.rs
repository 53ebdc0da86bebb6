//! Concurrent changes by others: a test's actions that run just before or just after a request is carried
//! out.
//!
//! `server` asks for the actions of each request when it arrives, and runs them at their time.

use crate::fault::When;
use crate::log::Request;
use crate::others::Others;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Action = dyn Fn(&Others, &Request) + Send + Sync;

/// An action, and the requests that trigger it.
struct Hook {
    when: When,
    matches: Box<dyn Fn(&Request) -> bool + Send + Sync>,
    /// The index among the matching requests; `None` means all.
    only: Option<usize>,
    seen: AtomicUsize,
    action: Arc<Action>,
}

/// The actions that go with one request.
#[derive(Default)]
pub(crate) struct Actions(Vec<(When, Arc<Action>)>);

impl Actions {
    pub(crate) fn run(&self, now: When, others: &Others, request: &Request) {
        for (_, action) in self.0.iter().filter(|(when, _)| *when == now) {
            action(others, request);
        }
    }
}

/// All actions of a server.
#[derive(Default)]
pub(crate) struct Meanwhile(Mutex<Vec<Arc<Hook>>>);

impl Meanwhile {
    pub(crate) fn add(
        &self,
        when: When,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        only: Option<usize>,
        action: impl Fn(&Others, &Request) + Send + Sync + 'static,
    ) {
        let (matches, action) = (Box::new(matches), Arc::new(action));
        let hook = Hook { when, matches, only, seen: AtomicUsize::new(0), action };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(hook));
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The actions for a request that has arrived. Called for one request after the other.
    pub(crate) fn choose(&self, request: &Request) -> Actions {
        // A test's closures run without the lock.
        let hooks = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let hit = hooks.iter().filter(|hook| {
            (hook.matches)(request) && {
                let number = hook.seen.fetch_add(1, Ordering::Relaxed) + 1;
                hook.only.is_none_or(|only| only == number)
            }
        });
        Actions(hit.map(|hook| (hook.when, hook.action.clone())).collect())
    }
}

/// An action that is run once, as one that may be run often.
pub(crate) fn once(
    action: impl FnOnce(&Others) + Send + 'static,
) -> impl Fn(&Others, &Request) + Send + Sync + 'static {
    let action = Mutex::new(Some(action));
    move |others, _| {
        let action = action.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(action) = action {
            action(others);
        }
    }
}
