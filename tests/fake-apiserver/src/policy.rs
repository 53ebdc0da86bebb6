//! Admission policies of a test: they change or reject what users send.
//!
//! `verbs` applies them to each create, update and delete.

use crate::failure::Failure;
use crate::log::Request;
use crate::registry::Resource;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

enum Effect {
    Change(Box<dyn Fn(&mut Value) + Send + Sync>),
    Deny { policy: String, message: String },
}

struct Policy {
    matches: Box<dyn Fn(&Request) -> bool + Send + Sync>,
    effect: Effect,
}

/// All policies of a server.
#[derive(Default)]
pub(crate) struct Policies(Mutex<Vec<Arc<Policy>>>);

impl Policies {
    fn add(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static, effect: Effect) {
        let policy = Arc::new(Policy { matches: Box::new(matches), effect });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(policy);
    }

    pub(crate) fn change(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) {
        self.add(matches, Effect::Change(Box::new(change)));
    }

    pub(crate) fn deny(
        &self,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
        policy: &str,
        message: &str,
    ) {
        let (policy, message) = (policy.to_owned(), message.to_owned());
        self.add(matches, Effect::Deny { policy, message });
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What the policies have to say of a request. Their closures are a test's: this must be asked without a lock.
    pub(crate) fn verdict(&self, request: &Request) -> Verdict {
        let policies = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Verdict(policies.into_iter().filter(|policy| (policy.matches)(request)).collect())
    }
}

/// What the policies have to say of a request: those that are about it.
pub(crate) struct Verdict(Vec<Arc<Policy>>);

impl Verdict {
    /// The object as the policies want it.
    pub(crate) fn apply(&self, object: &mut Value) {
        for policy in &self.0 {
            if let Effect::Change(change) = &policy.effect {
                change(object);
            }
        }
    }

    /// Fails if a policy refuses the request for an object.
    pub(crate) fn check(&self, resource: &Resource, name: &str) -> Result<(), Failure> {
        let denial = self.0.iter().find_map(|policy| match &policy.effect {
            Effect::Deny { policy, message } => Some((policy, message)),
            Effect::Change(_) => None,
        });
        match denial {
            Some((policy, message)) => Err(Failure::denied_by_policy(resource, name, policy, message)),
            None => Ok(()),
        }
    }
}
