//! Failures: the `Status` objects of rejected requests.
//!
//! All messages are in this module, because they repeat the API server's wording. Other modules decide which
//! failure applies.

use crate::object;
use crate::registry::{self, Resource};
use serde_json::{Map, Value, json};

/// The failure of a request.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    /// `None` for an answer in plain text, as for unknown paths, or an HTML page, as from a proxy.
    pub(crate) reason: Option<&'static str>,
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
    /// A continue token to resume an expired list.
    pub(crate) resume: Option<String>,
    /// `Retry-After` in seconds.
    pub(crate) retry_after: Option<u32>,
}

/// One invalid field of an object.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Cause {
    /// A value that is not allowed. `value` is how the message shows it; an object is not shown.
    pub(crate) fn invalid(field: &str, value: Option<&str>, why: &str) -> Cause {
        let message = match value {
            Some(value) => format!("Invalid value: {}: {why}", quoted(value)),
            None => format!("Invalid value: {why}"),
        };
        Cause { reason: "FieldValueInvalid", field: field.to_owned(), message }
    }

    /// A field that must be there.
    pub(crate) fn required(field: &str, why: &str) -> Cause {
        let message =
            if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Cause { reason: "FieldValueRequired", field: field.to_owned(), message }
    }

    /// A field that must not be changed or set.
    pub(crate) fn forbidden(field: &str, why: &str) -> Cause {
        Cause { reason: "FieldValueForbidden", field: field.to_owned(), message: format!("Forbidden: {why}") }
    }

    /// A reference to something that the object does not have.
    pub(crate) fn not_found(field: &str, value: &str) -> Cause {
        let message = format!("Not found: {}", quoted(value));
        Cause { reason: "FieldValueNotFound", field: field.to_owned(), message }
    }

    /// An entry that is there twice.
    pub(crate) fn duplicate(field: &str, value: &str) -> Cause {
        let message = format!("Duplicate value: {}", quoted(value));
        Cause { reason: "FieldValueDuplicate", field: field.to_owned(), message }
    }

    /// A field that has too many bytes.
    pub(crate) fn too_long(field: &str, bytes: usize) -> Cause {
        let message = format!("Too long: may not be more than {bytes} bytes");
        Cause { reason: "FieldValueTooLong", field: field.to_owned(), message }
    }

    /// A value that is none of those which are allowed.
    pub(crate) fn unsupported(field: &str, value: &str, allowed: &[&str]) -> Cause {
        let allowed: Vec<String> = allowed.iter().map(|value| quoted(value)).collect();
        Cause {
            reason: "FieldValueNotSupported",
            field: field.to_owned(),
            message: format!(
                "Unsupported value: {}: supported values: {}",
                quoted(value),
                allowed.join(", ")
            ),
        }
    }

    /// A field of another type than the schema's.
    pub(crate) fn wrong_type(field: &str, found: &Value, expected: &str) -> Cause {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Cause {
            reason: "FieldValueTypeInvalid",
            field: field.to_owned(),
            message: format!(
                "Invalid value: \"{found}\": {field} in body must be of type {expected}: \"{found}\""
            ),
        }
    }
}

/// A text as messages quote it.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: String) -> Failure {
        Failure { reason: Some(reason), ..Failure::plain(code, &message) }
    }

    fn plain(code: u16, message: &str) -> Failure {
        Failure {
            code,
            reason: None,
            message: message.to_owned(),
            details: None,
            resume: None,
            retry_after: None,
        }
    }

    fn with(mut self, name: &str, group: &str, kind: &str, causes: Option<Value>) -> Failure {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !group.is_empty() {
            details.insert("group".into(), group.into());
        }
        if !kind.is_empty() {
            details.insert("kind".into(), kind.into());
        }
        if let Some(causes) = causes {
            details.insert("causes".into(), causes);
        }
        self.details = Some(Value::Object(details));
        self
    }

    /// The path is not one that the server has. Plain text, which clients stumble over.
    pub(crate) fn no_such_path() -> Failure {
        Failure::plain(404, "404 page not found\n")
    }

    pub(crate) fn unauthorized() -> Failure {
        Failure::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message.into())
    }

    /// A query parameter that must be a number.
    pub(crate) fn no_number(text: &str) -> Failure {
        Failure::bad_request(format!("strconv.ParseInt: parsing {}: invalid syntax", quoted(text)))
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Failure {
        Failure::new(404, "NotFound", format!("{} {} not found", resource.qualified(), quoted(name))).with(
            name,
            resource.group,
            resource.plural,
            None,
        )
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Failure {
        Failure::new(
            409,
            "AlreadyExists",
            format!("{} {} already exists", resource.qualified(), quoted(name)),
        )
        .with(name, resource.group, resource.plural, None)
    }

    /// The object changed since the client read it.
    pub(crate) fn modified(resource: &Resource, name: &str) -> Failure {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: the object has been modified; please apply your changes to the latest version and try again",
            resource.qualified(),
            quoted(name),
        );
        Failure::new(409, "Conflict", message).with(name, resource.group, resource.plural, None)
    }

    /// A precondition of a deletion does not hold; `why` is the rest of the sentence.
    pub(crate) fn precondition(resource: &Resource, name: &str, why: &str) -> Failure {
        let message =
            format!("Operation cannot be fulfilled on {} {}: {why}", resource.qualified_kind(), quoted(name));
        Failure::new(409, "Conflict", message).with(name, resource.group, resource.kind, None)
    }

    pub(crate) fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Failure {
        let each: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let all = match each.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} {} is invalid: {all}", resource.qualified_kind(), quoted(name));
        let causes = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        Failure::new(422, "Invalid", message).with(name, resource.group, resource.kind, Some(causes))
    }

    /// A deletion that says nothing understandable of what belongs to the object.
    pub(crate) fn invalid_options(propagation: &str) -> Failure {
        let cause =
            Cause::unsupported("propagationPolicy", propagation, &["Background", "Foreground", "Orphan"]);
        let message =
            format!("DeleteOptions.meta.k8s.io \"\" is invalid: {}: {}", cause.field, cause.message);
        let causes = json!([{"reason": cause.reason, "message": cause.message, "field": cause.field}]);
        Failure::new(422, "Invalid", message).with("", "meta.k8s.io", "DeleteOptions", Some(causes))
    }

    /// Not allowed; `group` and `plural` need not be of a resource that is served.
    pub(crate) fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Failure {
        let what = registry::qualified(group, plural);
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} {} is forbidden: {why}", quoted(name))
        };
        Failure::new(403, "Forbidden", message).with(name, group, plural, None)
    }

    /// Not allowed for a path that is no resource's.
    pub(crate) fn forbidden_path(why: &str) -> Failure {
        Failure::new(403, "Forbidden", format!("forbidden: {why}")).with("", "", "", None)
    }

    /// An admission policy does not want it; its binding has the policy's name.
    pub(crate) fn denied_by_policy(resource: &Resource, name: &str, policy: &str, message: &str) -> Failure {
        let why =
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {message}");
        let causes = json!([{"message": why}]);
        let forbidden = Failure::forbidden(resource.group, resource.plural, name, &why);
        Failure::new(422, "Invalid", forbidden.message).with(
            name,
            resource.group,
            resource.plural,
            Some(causes),
        )
    }

    pub(crate) fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Failure {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut failure = Failure::forbidden(resource.group, resource.plural, name, &why);
        if let Some(Value::Object(details)) = &mut failure.details {
            details.insert(
                "causes".into(),
                json!([{
                    "reason": "NamespaceTerminating",
                    "message": format!("namespace {namespace} is being terminated"),
                    "field": "metadata.namespace",
                }]),
            );
        }
        failure
    }

    /// The history before `kept` is forgotten.
    pub(crate) fn too_old(asked: u64, kept: u64) -> Failure {
        Failure::new(410, "Expired", format!("too old resource version: {asked} ({kept})"))
    }

    /// The history that a continue token needs is forgotten; `resume` goes on with the objects as they are now.
    pub(crate) fn continue_expired(resume: String) -> Failure {
        let message = "The provided continue parameter is too old to display a consistent list result. You can \
             start a new list without the continue parameter, or use the continue token in this response to retrieve \
             the remainder of the results. Continuing with the provided token results in an inconsistent list - \
             objects that were created, modified, or deleted between the time the first chunk was returned and now \
             may show up in the list.";
        Failure { resume: Some(resume), ..Failure::new(410, "Expired", message.to_owned()) }
    }

    pub(crate) fn method_not_allowed() -> Failure {
        Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource".into(),
        )
        .with("", "", "", None)
    }

    /// A client wants to speak a protocol that nobody speaks: the node says so, without a word.
    pub(crate) fn no_such_protocol() -> Failure {
        Failure::plain(403, "")
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Failure {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Failure::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn not_acceptable() -> Failure {
        let message = "only the following media types are accepted: application/json";
        Failure::new(406, "NotAcceptable", message.to_owned())
    }

    /// There are more requests than the server takes: as a `Status`, or in the words of priority and fairness.
    pub(crate) fn too_many_requests(retry_after: Option<u32>, status: bool) -> Failure {
        let failure = if status {
            let message = "Too many requests, please try again later.".to_owned();
            Failure::new(429, "TooManyRequests", message).with("", "", "", None)
        } else {
            Failure::plain(429, "Too many requests, please try again later.\n")
        };
        Failure { retry_after, ..failure }
    }

    /// The server, or something on the way to it, is not well.
    pub(crate) fn of_server(code: u16) -> Failure {
        match code {
            500 => {
                let why = "etcdserver: request timed out";
                let causes = json!([{"message": why}]);
                Failure::new(500, "InternalError", format!("Internal error occurred: {why}")).with(
                    "",
                    "",
                    "",
                    Some(causes),
                )
            }
            409 => Failure::new(409, "AlreadyExists", "an object of this name already exists".to_owned()),
            502 => Failure::plain(
                502,
                "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                 <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
            ),
            503 => {
                let message = "the server is currently unable to handle the request".to_owned();
                Failure::new(503, "ServiceUnavailable", message)
            }
            504 => Failure::plain(504, "upstream request timeout"),
            code => Failure::new(code, "Unknown", "unknown".to_owned()),
        }
    }

    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if let Some(reason) = self.reason {
            status["reason"] = reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        if let Some(seconds) = self.retry_after {
            object::section(&mut status, "details").insert("retryAfterSeconds".into(), seconds.into());
        }
        if let Some(token) = &self.resume {
            status["metadata"] = json!({"continue": token});
        }
        status
    }
}
