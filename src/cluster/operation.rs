//! What a request is for: a right, and words for messages. How it is sent is in [`super::request`].

use super::{Permission, Scope};

/// What a request is for, for messages, and the right that it needs.
#[derive(Clone)]
pub(super) struct Operation {
    tried: String,
    permission: Permission,
    scope: Scope,
    optional: bool,
}

impl Operation {
    /// `what` completes "cannot …".
    pub(super) fn new(what: String, scope: &Scope, permission: Permission) -> Self {
        let tried = match scope {
            Scope::Namespace(namespace) => format!("{what} in namespace {namespace}"),
            Scope::All => what,
        };
        Operation { tried, permission, scope: scope.clone(), optional: false }
    }

    /// What can be done without: a denial of it is believed at once.
    pub(super) fn optional(self) -> Self {
        Operation { optional: true, ..self }
    }

    pub(super) fn is_optional(&self) -> bool {
        self.optional
    }

    pub(super) fn permission(&self) -> Permission {
        self.permission
    }

    /// What a denial of it holds for: a Role may allow in one namespace what it does not in another.
    pub(super) fn permission_and_scope(&self) -> (Permission, Scope) {
        (self.permission, self.scope.clone())
    }

    pub(super) fn tried(&self) -> String {
        self.tried.clone()
    }
}
