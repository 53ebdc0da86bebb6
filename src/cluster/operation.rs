//! Describes a request for error messages and permissions. [`super::request`] sends it.

use super::{Permission, Scope};

/// The purpose of a request, for error messages, and the permission that it needs.
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

    /// Marks the operation as one that the caller can do without. A denial is not retried.
    pub(super) fn optional(self) -> Self {
        Operation { optional: true, ..self }
    }

    pub(super) fn is_optional(&self) -> bool {
        self.optional
    }

    pub(super) fn permission(&self) -> Permission {
        self.permission
    }

    /// Returns what a denial applies to. A Role may allow in one namespace what another does not.
    pub(super) fn permission_and_scope(&self) -> (Permission, Scope) {
        (self.permission, self.scope.clone())
    }

    pub(super) fn tried(&self) -> String {
        self.tried.clone()
    }
}
