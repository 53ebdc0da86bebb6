//! What a request is for: a right, and words for messages. How it is sent is in [`super::request`].

use super::{Right, Scope};

/// What a request is for, for messages, and the right that it needs.
#[derive(Clone)]
pub(super) struct Action {
    tried: String,
    right: Right,
    scope: Scope,
    optional: bool,
}

impl Action {
    /// `what` completes "cannot …".
    pub(super) fn new(what: String, scope: &Scope, right: Right) -> Self {
        let tried = match scope {
            Scope::Namespace(namespace) => format!("{what} in namespace {namespace}"),
            Scope::All => what,
        };
        Action { tried, right, scope: scope.clone(), optional: false }
    }

    /// What can be done without: a denial of it is believed at once.
    pub(super) fn optional(self) -> Self {
        Action { optional: true, ..self }
    }

    pub(super) fn is_optional(&self) -> bool {
        self.optional
    }

    pub(super) fn right(&self) -> Right {
        self.right
    }

    /// What a denial of it holds for: a Role may allow in one namespace what it does not in another.
    pub(super) fn permission(&self) -> (Right, Scope) {
        (self.right, self.scope.clone())
    }

    pub(super) fn tried(&self) -> String {
        self.tried.clone()
    }
}
