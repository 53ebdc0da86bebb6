//! Authentication: the tokens that the server accepts, and their users.
//!
//! `rbac` decides what a user may do.

use crate::object;
use crate::store::Store;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The user that makes a request.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    /// Namespace and name of a ServiceAccount.
    pub(crate) service_account: Option<(String, String)>,
}

impl User {
    fn admin() -> User {
        User {
            name: "kubernetes-admin".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
            service_account: None,
        }
    }

    fn anonymous() -> User {
        User {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            service_account: None,
        }
    }

    pub(crate) fn of_service_account(namespace: &str, name: &str) -> User {
        User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            service_account: Some((namespace.to_owned(), name.to_owned())),
        }
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }
}

/// The tokens that were issued.
#[derive(Debug)]
pub(crate) struct Tokens {
    admin: String,
    /// Namespace and name of each token's ServiceAccount.
    given: Mutex<HashMap<String, (String, String)>>,
}

impl Tokens {
    pub(crate) fn new() -> Tokens {
        Tokens { admin: format!("admin.{}", object::new_uid()), given: Mutex::default() }
    }

    /// Returns the token of a user with all permissions.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// Issues a token for a ServiceAccount.
    pub(crate) fn give(&self, namespace: &str, name: &str) -> String {
        let token = format!("{namespace}.{name}.{}", object::new_uid());
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.insert(token.clone(), (namespace.to_owned(), name.to_owned()));
        token
    }

    /// Invalidates a token.
    pub(crate) fn expire(&self, token: &str) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    /// Returns the user of an `Authorization` header, or `None` if the token is not valid.
    pub(crate) fn user(&self, store: &Store, header: Option<&str>) -> Option<User> {
        let Some(header) = header else { return Some(User::anonymous()) };
        let token = header.strip_prefix("Bearer ")?.trim();
        if token == self.admin {
            return Some(User::admin());
        }
        let key = self.given.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()?;
        // Tokens of a deleted account are not valid.
        store.get("serviceaccounts", &key)?;
        Some(User::of_service_account(&key.0, &key.1))
    }
}
