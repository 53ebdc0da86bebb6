//! What can go wrong between us and the API server: what was tried, what was said, and what to do
//! about it. What a failure means for a run and its exit code is decided in [`crate::report`].

use std::{fmt, time::Duration};

use kube::core::Status;

use super::{Permission, operation::Operation};
use crate::{api::SNAPSHOT_GROUP, report::Failure, text};

/// A request that failed. `Display` says what was tried, what the server said, and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    /// What was tried, as `list the snapshots of …`.
    tried: String,
    /// The right that it needs.
    permission: Option<Permission>,
    /// The class of the failure.
    kind: ErrorKind,
    /// The server's or the system's own words.
    said: String,
    /// How long the server wishes us to wait.
    retry_after: Option<Duration>,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such object.
    NotFound,
    /// The cluster does not serve the API at all.
    NotServed,
    /// The name is taken.
    AlreadyExists,
    /// The object is not in the state that the request was made for.
    Conflict,
    /// The resourceVersion or the continue token is too old.
    Expired,
    /// The Role does not allow it.
    Forbidden,
    /// A ResourceQuota is used up.
    Quota,
    /// Refused by other than the Role: the namespace is being deleted, an admission webhook.
    Refused,
    /// The API server does not know who we are.
    Unauthorized,
    /// The API server cannot make sense of the request.
    Invalid,
    /// Too many requests; this one was not carried out.
    Busy,
    /// The API server failed, perhaps after it carried the request out.
    Unavailable,
    /// There was no answer, or half of one.
    Unreachable,
    /// The answer is larger than it may be.
    TooLarge,
    /// The answer is not what the API's documents say.
    Unreadable,
    /// We cannot say who we are: no kubeconfig, no token, no certificate.
    Credentials,
}

impl Error {
    /// The API server answered with other than success. `status` is missing if the body was not
    /// the API's own.
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
            // A path that no API serves is answered in plain text.
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

    /// Something failed that is not an answer of the API server.
    pub(super) fn other(operation: &Operation, kind: ErrorKind, said: &str) -> Self {
        Error {
            tried: operation.tried(),
            permission: Some(operation.permission()),
            kind,
            said: text::foreign(said),
            retry_after: None,
        }
    }

    /// Somebody else's object has the name.
    pub(super) fn name_taken(operation: &Operation) -> Self {
        Self::other(
            operation,
            ErrorKind::AlreadyExists,
            "the name is taken by one that this run did not make",
        )
    }

    /// There is no way to the API server.
    pub(super) fn no_way(said: &str) -> Self {
        Error {
            tried: "find out where the API server is".to_owned(),
            permission: None,
            kind: ErrorKind::Credentials,
            said: text::foreign(said),
            retry_after: None,
        }
    }

    /// Why it failed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// How long the server wishes us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same request may be answered differently in a moment.
    pub(super) fn is_retriable(&self) -> bool {
        matches!(self.kind, ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::Unreachable)
    }

    /// Whether the API server refuses to let us do this.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self.kind, ErrorKind::Forbidden | ErrorKind::Unauthorized)
    }

    /// Whether the request may have been carried out although it failed.
    pub(super) fn is_unclear(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Unreachable)
    }

    /// Whether another run may succeed without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::AlreadyExists
            | ErrorKind::Conflict
            | ErrorKind::Expired
            | ErrorKind::Quota
            | ErrorKind::Busy
            | ErrorKind::Unavailable
            | ErrorKind::Unreachable
            // Who we are may be known late where things are new, or a token was just renewed.
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

    /// What the reader can do about it.
    fn advice(&self) -> Option<String> {
        match (self.kind, self.permission) {
            (ErrorKind::Forbidden, Some(Permission { group, resource, verb })) => Some(format!(
                "let the Role allow it: apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: \
                 [\"{verb}\"]"
            )),
            (ErrorKind::NotServed, Some(Permission { group: SNAPSHOT_GROUP, .. })) => Some(
                "install the snapshot CRDs (volumesnapshots, volumesnapshotclasses and \
                 volumesnapshotcontents of snapshot.storage.k8s.io/v1) and the snapshot controller"
                    .to_owned(),
            ),
            (ErrorKind::Unauthorized, _) => {
                Some("check the ServiceAccount's token, or the kubeconfig's credentials".to_owned())
            }
            (ErrorKind::Unreachable, _) => {
                Some("check that the API server can be reached from here".to_owned())
            }
            _ => None,
        }
    }
}

/// An error of a library with its causes, for the last of them is what an operator needs
/// ("Connection refused"). Some libraries repeat the cause in their own words: that is left out.
pub(super) fn with_causes(error: impl Into<anyhow::Error>) -> String {
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
        Failure { is_transient: error.is_transient(), message: error.to_string() }
    }
}
