//! Events of the controllers.

use crate::object;
use crate::registry::known;
use crate::store::{Key, Writer};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The content of an Event.
pub(crate) struct Announcement<'a> {
    /// `apiVersion` and `kind` of the object.
    pub(crate) about: (&'a str, &'a str),
    pub(crate) object: &'a Value,
    pub(crate) component: &'a str,
    /// `Normal` or `Warning`.
    pub(crate) kind: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
}

/// Writes a new Event.
pub(crate) fn announce(writer: &mut Writer<'_>, said: &Announcement<'_>) {
    let (namespace, name) = (object::namespace(said.object), object::name(said.object));
    let now = object::now();
    let mut event = format!("{name}.{:016x}", Timestamp::now().as_nanosecond());
    // Two Events in the same nanosecond need different names.
    while writer.get("events", &(namespace.to_owned(), event.clone())).is_some() {
        event = format!("{name}.{:016x}", object::random());
    }
    writer.put(
        known("events"),
        json!({
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {
                "name": event,
                "namespace": namespace,
                "uid": object::new_uid(),
                "creationTimestamp": now,
            },
            "involvedObject": {
                "kind": said.about.1,
                "namespace": namespace,
                "name": name,
                "uid": object::uid(said.object),
                "apiVersion": said.about.0,
                "resourceVersion": object::resource_version(said.object),
            },
            "reason": said.reason,
            "message": said.message,
            "source": {"component": said.component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": said.kind,
            "eventTime": null,
            "reportingComponent": said.component,
            "reportingInstance": "",
        }),
    );
}

/// Writes an Event, or increments the count of an existing one with the same content.
pub(crate) fn repeat(writer: &mut Writer<'_>, said: &Announcement<'_>) {
    let uid = object::uid(said.object);
    let is_same = |event: &Value| {
        object::text(event, "/involvedObject/uid") == uid
            && object::text(event, "/reason") == said.reason
            && object::text(event, "/message") == said.message
    };
    let same: Option<Key> = writer
        .list("events")
        .find(|event| is_same(&event.value))
        .map(|event| (object::namespace(&event.value).to_owned(), object::name(&event.value).to_owned()));
    let Some(key) = same else { return announce(writer, said) };
    writer.modify(known("events"), &key, |event| {
        let count = event["count"].as_u64().unwrap_or(1) + 1;
        event["count"] = count.into();
        event["lastTimestamp"] = object::now().into();
    });
}
