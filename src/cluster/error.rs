//! Errors of requests to the API server: what was tried, what the server said, and what to do about it.
//! [`crate::report`] decides what a failure means for a run and its exit code.

use std::{fmt, time::Duration};

use kube::core::Status;

use super::{Permission, operation::Operation};
use crate::{
    api::{GROUP_SNAPSHOT_GROUP, SNAPSHOT_GROUP},
    report::{Failure, Reason},
    text,
};

/// A failed request. `Display` prints what was tried, what the server said, and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    /// What was tried, such as `list the snapshots of …`; completes "cannot …".
    tried: String,
    /// The permission that the request needs.
    permission: Option<Permission>,
    kind: ErrorKind,
    /// The server's or the system's message.
    said: String,
    /// The server's `Retry-After`.
    retry_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object does not exist.
    NotFound,
    /// The cluster does not serve the API.
    NotServed,
    AlreadyExists,
    /// The object changed since it was read.
    Conflict,
    /// The resourceVersion or the continue token is too old.
    Expired,
    /// The Role does not allow it.
    Forbidden,
    /// A ResourceQuota is used up.
    Quota,
    /// Refused by something other than RBAC: the namespace is being deleted, or an admission policy or
    /// webhook denied it.
    Refused,
    /// The API server does not accept the credentials.
    Unauthorized,
    /// The API server rejects the request as invalid.
    Invalid,
    /// Too many requests. This one was not carried out.
    Busy,
    /// The API server failed. It may have carried the request out.
    Unavailable,
    /// There was no answer, or only a part of it. The request may have been carried out.
    Unreachable,
    /// The answer exceeds the size limit.
    TooLarge,
    /// The answer cannot be parsed.
    Unreadable,
    /// There are no usable credentials: no kubeconfig, token or certificate.
    Credentials,
    /// A command in a container ended badly, or could not be started.
    CommandFailed,
}

impl Error {
    /// Creates an error from an unsuccessful answer. `status` is `None` if the body was not a `Status`
    /// object.
    pub(super) fn answered(
        operation: &Operation,
        code: u16,
        status: Option<Status>,
        body: &str,
        retry_after: Option<Duration>,
    ) -> Self {
        let status = status.unwrap_or_default();
        let terminating = status
            .details
            .iter()
            .flat_map(|details| &details.causes)
            .any(|kind| kind.reason == "NamespaceTerminating");
        let kind = match (code, status.reason.as_str()) {
            // Unknown paths are answered in plain text.
            (404, "NotFound") => ErrorKind::NotFound,
            (404, _) => ErrorKind::NotServed,
            (409, "AlreadyExists") => ErrorKind::AlreadyExists,
            (409, _) => ErrorKind::Conflict,
            (410, _) => ErrorKind::Expired,
            (403, _) if terminating => ErrorKind::Refused,
            (403, _) if status.message.contains("exceeded quota") => ErrorKind::Quota,
            (403, _) if status.message.contains(&format!(" cannot {} ", operation.permission().verb)) => {
                ErrorKind::Forbidden
            }
            (403, _) => ErrorKind::Refused,
            (401, _) => ErrorKind::Unauthorized,
            (429, _) => ErrorKind::Busy,
            (500.., _) => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        };
        let said = match status.message.as_str() {
            "" => text::foreign(body),
            message => text::foreign(message),
        };
        let said = match said.as_str() {
            "" => format!("HTTP {code}"),
            _ if kind == ErrorKind::Unavailable => format!("{said} (HTTP {code})"),
            _ => said,
        };
        let details = status.details.map_or(0, |details| details.retry_after_seconds);
        let retry_after = retry_after.or_else(|| (details > 0).then(|| Duration::from_secs(details.into())));
        Error { tried: operation.tried(), permission: Some(operation.permission()), kind, said, retry_after }
    }

    /// Creates an error that is not an answer of the API server.
    pub(super) fn other(operation: &Operation, kind: ErrorKind, said: &str) -> Self {
        Error {
            tried: operation.tried(),
            permission: Some(operation.permission()),
            kind,
            said: text::foreign(said),
            retry_after: None,
        }
    }

    /// Creates an error for a name that another object has.
    pub(super) fn name_taken(operation: &Operation) -> Self {
        Self::other(
            operation,
            ErrorKind::AlreadyExists,
            "the name belongs to an object that this run did not create",
        )
    }

    /// Creates an error for a connection that cannot be configured.
    pub(super) fn no_way(said: &str) -> Self {
        Error {
            tried: "configure the connection to the API server".to_owned(),
            permission: None,
            kind: ErrorKind::Credentials,
            said: text::foreign(said),
            retry_after: None,
        }
    }

    /// Creates an error for a denial that did not say what was missing.
    pub(super) fn denied(operation: &Operation) -> Self {
        Self::other(operation, ErrorKind::Forbidden, "forbidden")
    }

    /// Whether this is a 403 that names neither what was denied nor who denied it.
    pub(super) fn is_bare_denial(&self) -> bool {
        self.kind == ErrorKind::Refused && self.said.trim_end().ends_with("is forbidden:")
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the server's `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether to repeat the same request.
    pub(super) fn is_retriable(&self) -> bool {
        matches!(self.kind, ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::Unreachable)
    }

    /// Whether the API server denied access.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self.kind, ErrorKind::Forbidden | ErrorKind::Unauthorized)
    }

    /// Whether the request may have been carried out despite the error.
    pub(super) fn is_unclear(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Unreachable)
    }

    /// Whether another run may succeed without intervention.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::AlreadyExists
            | ErrorKind::Conflict
            | ErrorKind::Expired
            | ErrorKind::Quota
            | ErrorKind::Busy
            | ErrorKind::Unavailable
            | ErrorKind::Unreachable
            | ErrorKind::CommandFailed
            // A new or renewed token may not be known to the API server yet.
            | ErrorKind::Unauthorized => true,
            ErrorKind::NotFound
            | ErrorKind::NotServed
            | ErrorKind::Forbidden
            | ErrorKind::Refused
            | ErrorKind::TooLarge
            | ErrorKind::Unreadable
            | ErrorKind::Invalid
            | ErrorKind::Credentials => false,
        }
    }

    /// Returns what the reader can do about it.
    fn advice(&self) -> Option<String> {
        match (self.kind, self.permission) {
            (ErrorKind::Forbidden, Some(Permission { group, resource, verb })) => Some(format!(
                "allow it in the Role: apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: \
                 [\"{verb}\"]"
            )),
            (ErrorKind::NotServed, Some(Permission { group: SNAPSHOT_GROUP, .. })) => Some(
                "install the snapshot CRDs (volumesnapshots, volumesnapshotclasses and \
                 volumesnapshotcontents of snapshot.storage.k8s.io/v1) and the snapshot controller"
                    .to_owned(),
            ),
            (ErrorKind::NotServed, Some(Permission { group: GROUP_SNAPSHOT_GROUP, .. })) => Some(
                "groups need groupsnapshot.storage.k8s.io/v1: install the CRDs of group snapshots and the \
                 snapshot controller of external-snapshotter 8.6 or later; older ones serve v1beta1 or v1beta2 only"
                    .to_owned(),
            ),
            (ErrorKind::Unauthorized, _) => {
                Some("check the ServiceAccount's token, or the kubeconfig's credentials".to_owned())
            }
            // Of a command that was begun nobody knows more.
            (ErrorKind::Unreachable, Some(Permission { resource: "pods/exec", .. })) => None,
            (ErrorKind::Unreachable, _) => {
                Some("check the network between here and the API server".to_owned())
            }
            _ => None,
        }
    }
}

/// Formats an error of a library with its causes, because the last cause is what an operator needs
/// ("Connection refused"). Omits causes that the message already contains.
pub(crate) fn with_causes(error: impl Into<anyhow::Error>) -> String {
    let mut said = String::new();
    for kind in error.into().chain().map(ToString::to_string) {
        if said.contains(&kind) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&kind);
    }
    said
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.tried, self.said)?;
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { is_transient: error.is_transient(), message: error.to_string(), reason: error.kind.into() }
    }
}

impl From<ErrorKind> for Reason {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Quota => Reason::Quota,
            ErrorKind::Forbidden => Reason::Forbidden,
            ErrorKind::Refused | ErrorKind::Invalid | ErrorKind::AlreadyExists => Reason::Refused,
            ErrorKind::Unauthorized | ErrorKind::Credentials => Reason::Credentials,
            ErrorKind::NotServed => Reason::NotServed,
            ErrorKind::NotFound => Reason::Missing,
            ErrorKind::Conflict => Reason::Disturbed,
            ErrorKind::CommandFailed => Reason::Hook,
            ErrorKind::Busy
            | ErrorKind::Expired
            | ErrorKind::Unavailable
            | ErrorKind::Unreachable
            | ErrorKind::TooLarge
            | ErrorKind::Unreadable => Reason::Unavailable,
        }
    }
}
