//! Carries requests out: get, list, create, update, patch and delete on any resource, and a few special ones.
//!
//! Nothing here waits. What comes before (who asks, whether they may) and after (bytes on the wire) is in `server`;
//! watches are begun here and run in `watch`.

use crate::admission;
use crate::auth::User;
use crate::call::{Call, Target};
use crate::cluster::Cluster;
use crate::deletion::{self, Propagation};
use crate::discovery::{self, Page};
use crate::event;
use crate::exec;
use crate::failure::{Cause, Failure};
use crate::log::Request;
use crate::object;
use crate::paging::{self, Place};
use crate::patch;
use crate::pod_security;
use crate::pods;
use crate::quota;
use crate::rbac::{self, Deed};
use crate::registry::{self, Resource};
use crate::selector::Filter;
use crate::store::{From, Interest, Key, Object, Writer};
use crate::table::{self, Include};
use crate::validation;
use crate::watch::Session;
use hyper::body::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// What who deletes a Job is told that says nothing of its pods.
const ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
    remove them or set propagationPolicy=Orphan to suppress this warning";

/// An answer to a request that was carried out.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) content: Content,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Content {
    Json(Bytes),
    Text(Bytes),
    Watch(Box<Session>),
    Exec(Box<exec::Session>),
}

impl Answer {
    fn json(code: u16, value: &Value) -> Answer {
        Answer { code, content: Content::Json(value.to_string().into()), warnings: Vec::new() }
    }
}

/// The form in which a client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table(Include),
}

/// One request on one served resource.
struct Act<'a> {
    cluster: &'a Arc<Cluster>,
    user: &'a User,
    call: &'a Call,
    /// The same as a test sees it.
    request: &'a Request,
    target: &'a Target,
    resource: &'static Resource,
    form: Form,
    body: &'a Bytes,
}

pub(crate) fn carry_out(
    cluster: &Arc<Cluster>,
    call: &Call,
    request: &Request,
    user: &User,
    body: &Bytes,
) -> Result<Answer, Failure> {
    let Some(target) = &call.target else {
        let page = discovery::page(&call.path, |resource| cluster.serves(resource))
            .ok_or_else(Failure::no_such_path)?;
        if call.method != http::Method::GET && call.method != http::Method::HEAD {
            return Err(Failure::method_not_allowed());
        }
        return Ok(match page {
            Page::Json(value) => Answer::json(200, &value),
            Page::Text(text) => Answer {
                code: 200,
                content: Content::Text(Bytes::from_static(text.as_bytes())),
                warnings: Vec::new(),
            },
        });
    };
    let resource = registry::find(&target.group, &target.version, &target.plural)
        .filter(|resource| cluster.serves(resource))
        .ok_or_else(Failure::no_such_path)?;
    let in_namespace = !target.namespace.is_empty() && target.plural != "namespaces";
    let wants_namespace = resource.namespaced && (!target.name.is_empty() || call.verb == "create");
    if (in_namespace && !resource.namespaced) || (wants_namespace && !in_namespace) {
        return Err(Failure::no_such_path());
    }
    // Of a request for a token nothing in the body matters, so it may be in a form that is not understood here.
    if !body.is_empty() && call.content_type.contains("protobuf") && target.subresource != "token" {
        return Err(Failure::unsupported_media_type("application/json"));
    }
    let act = Act { cluster, user, call, request, target, resource, form: form(call)?, body };
    let mut answer = act.carry_out()?;
    answer.warnings.extend(cluster.deprecation(resource));
    Ok(answer)
}

/// The first form in the `Accept` header that the server can answer in.
fn form(call: &Call) -> Result<Form, Failure> {
    if call.accept.trim().is_empty() {
        return Ok(Form::Object);
    }
    for range in call.accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(media, "application/json" | "application/*" | "*/*") {
            continue;
        }
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let parameter = |name| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        match (parameter("as"), parameter("g"), parameter("v")) {
            (None, ..) => return Ok(Form::Object),
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => {
                return Ok(Form::Table(match call.parameter("includeObject") {
                    "None" => Include::Nothing,
                    "Object" => Include::Object,
                    _ => Include::Metadata,
                }));
            }
            _ => {}
        }
    }
    Err(Failure::not_acceptable())
}

/// An object as the resource's group and version show it.
pub(crate) fn shown<'a>(resource: &Resource, object: &'a Value) -> Cow<'a, Value> {
    if resource.is_new_event() {
        return Cow::Owned(event::from_core(object.clone()));
    }
    if resource.is_stored() {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    object["apiVersion"] = resource.api_version().into();
    Cow::Owned(object)
}

/// What is stored of an object in the form of a resource's group and version.
pub(crate) fn as_stored(resource: &Resource, mut object: Value) -> Value {
    if resource.is_new_event() {
        return event::to_core(object);
    }
    if !resource.is_stored() {
        object["apiVersion"] = registry::known(resource.plural).api_version().into();
    }
    object
}

pub(crate) fn shown_json(resource: &Resource, object: &Object) -> Bytes {
    if resource.is_stored() {
        object.json().clone()
    } else {
        shown(resource, &object.value).to_string().into()
    }
}

/// Lists of built-in types do not repeat the type in each item.
fn item_json(resource: &Resource, object: &Object) -> Bytes {
    if resource.custom {
        return shown_json(resource, object);
    }
    let mut value = shown(resource, &object.value).into_owned();
    if let Value::Object(fields) = &mut value {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    value.to_string().into()
}

impl Act<'_> {
    fn carry_out(&self) -> Result<Answer, Failure> {
        match (self.target.plural.as_str(), self.target.subresource.as_str(), self.call.verb) {
            ("serviceaccounts", "token", "create") => return self.token(),
            ("pods", "exec", "get" | "create") => return self.exec(),
            ("pods", "log", "get") => return self.log(),
            ("selfsubjectaccessreviews", "", "create") => return self.access_review(),
            ("selfsubjectaccessreviews", ..) => return Err(Failure::method_not_allowed()),
            (_, "", _) => {}
            (_, "status", "get" | "update" | "patch") if self.resource.status => {}
            _ => return Err(Failure::no_such_path()),
        }
        match self.call.verb {
            "get" => self.get(),
            "list" => self.list(),
            "watch" => self.watch(),
            "create" if self.target.name.is_empty() => self.create(),
            "update" if !self.target.name.is_empty() => self.update(),
            "patch" if !self.target.name.is_empty() => self.patch(),
            "delete" => self.delete(),
            "deletecollection" => self.delete_collection(),
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn write<T>(&self, f: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        self.cluster.store.write_for(&self.user.name, f)
    }

    fn key(&self) -> Key {
        self.key_of(&self.target.name)
    }

    fn key_of(&self, name: &str) -> Key {
        let namespace = if self.resource.namespaced { self.target.namespace.as_str() } else { "" };
        (namespace.to_owned(), name.to_owned())
    }

    fn namespace(&self) -> Option<&str> {
        (self.resource.namespaced && !self.target.namespace.is_empty())
            .then_some(self.target.namespace.as_str())
    }

    fn filter(&self) -> Result<Filter, Failure> {
        Filter::parse(
            self.resource,
            self.call.parameter("labelSelector"),
            self.call.parameter("fieldSelector"),
        )
    }

    fn one(&self, code: u16, object: &Object) -> Answer {
        match self.form {
            Form::Object => {
                let json = shown_json(self.resource, object);
                Answer { code, content: Content::Json(json), warnings: Vec::new() }
            }
            Form::Table(include) => {
                let metadata = json!({"resourceVersion": object::resource_version(&object.value)});
                let rows = std::iter::once(&object.value);
                Answer::json(code, &table::table(self.resource, rows, metadata, include, true))
            }
        }
    }

    /// An object that is not stored, because it is a dry run.
    fn one_unstored(&self, code: u16, value: &Value) -> Answer {
        Answer::json(code, &shown(self.resource, value))
    }

    /// The object that the path names, if it is there.
    fn found(&self, object: Option<Arc<Object>>) -> Result<Arc<Object>, Failure> {
        object.ok_or_else(|| Failure::not_found(self.resource, &self.target.name))
    }

    fn get(&self) -> Result<Answer, Failure> {
        let object = self.found(self.cluster.store.get(self.resource.plural, &self.key()))?;
        Ok(self.one(200, &object))
    }

    fn list(&self) -> Result<Answer, Failure> {
        let filter = self.filter()?;
        let limit = match self.call.parameter("limit") {
            "" => 0,
            text => text.parse::<usize>().map_err(|_| Failure::no_number(text))?,
        };
        let limit = if limit == 0 { usize::MAX } else { limit };
        let token = self.call.parameter("continue");
        let place = if token.is_empty() {
            None
        } else {
            Some(paging::place(self.resource, self.namespace(), token)?)
        };
        let version = match &place {
            Some(place) => place.version.unwrap_or(0),
            None if self.call.parameter("resourceVersionMatch") == "Exact" => self.version_parameter()?,
            None => 0,
        };
        let mut page: Vec<Arc<Object>> = Vec::new();
        let mut last: Option<Key> = None;
        let mut remaining = 0_u64;
        let visit = |key: &Key, object: &Arc<Object>| {
            if !filter.matches(&object.value) {
                return true;
            }
            if page.len() < limit {
                page.push(object.clone());
                last = Some(key.clone());
                return true;
            }
            remaining += 1;
            // Only without a selector does the server say how many remain.
            filter.is_empty()
        };
        let after = place.as_ref().map(|place| &place.after);
        let listed =
            self.cluster.store.list_at(self.resource.plural, self.namespace(), version, after, visit);
        let version = listed.map_err(|failure| match &place {
            Some(place) => {
                let resume = Place { version: None, after: place.after.clone() };
                Failure::continue_expired(paging::token(self.resource, self.namespace(), &resume))
            }
            None => failure,
        })?;
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), version.to_string().into());
        if let (true, Some(after)) = (remaining > 0, last) {
            let next = Place { version: Some(version), after };
            metadata.insert("continue".into(), paging::token(self.resource, self.namespace(), &next).into());
            if filter.is_empty() {
                metadata.insert("remainingItemCount".into(), remaining.into());
            }
        } else if self.resource.custom {
            metadata.insert("continue".into(), "".into());
        }
        let metadata = Value::Object(metadata);
        if let Form::Table(include) = self.form {
            let rows = page.iter().map(|object| &object.value);
            return Ok(Answer::json(200, &table::table(self.resource, rows, metadata, include, true)));
        }
        let mut json = format!(
            r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#,
            self.resource.kind,
            self.resource.api_version(),
        )
        .into_bytes();
        for (index, object) in page.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            json.extend_from_slice(&item_json(self.resource, object));
        }
        json.extend_from_slice(b"]}");
        Ok(Answer { code: 200, content: Content::Json(json.into()), warnings: Vec::new() })
    }

    /// The `resourceVersion` parameter, 0 if there is none.
    fn version_parameter(&self) -> Result<u64, Failure> {
        match self.call.parameter("resourceVersion") {
            "" => Ok(0),
            text => text.parse().map_err(|_| {
                let text = crate::failure::quoted(text);
                Failure::bad_request(format!(
                    "resourceVersion: Invalid value: {text}: strconv.ParseUint: parsing {text}: invalid syntax"
                ))
            }),
        }
    }

    fn watch(&self) -> Result<Answer, Failure> {
        let interest = Interest {
            resource: self.resource.plural,
            namespace: self.namespace().map(str::to_owned),
            filter: self.filter()?,
        };
        let version = self.version_parameter()?;
        let explicit = self.call.flag("sendInitialEvents");
        let declined = self.call.parameter("sendInitialEvents") == "false";
        let from_now = explicit || (version == 0 && !declined);
        let from = match version {
            _ if from_now => From::Now,
            0 => From::After(self.cluster.store.version()),
            version => From::After(version),
        };
        let session = Session::begin(self.cluster, self.resource, self.call, self.form, interest, from)?;
        Ok(Answer { code: 200, content: Content::Watch(Box::new(session)), warnings: Vec::new() })
    }

    /// The body as an object of this resource.
    fn object(&self) -> Result<Value, Failure> {
        let value: Value = serde_json::from_slice(self.body).map_err(|error| {
            Failure::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error}",
                self.resource.kind
            ))
        })?;
        self.check_type(value)
    }

    fn check_type(&self, mut value: Value) -> Result<Value, Failure> {
        let Value::Object(fields) = &mut value else {
            return Err(Failure::bad_request(format!(
                "the object provided is unrecognized (must be of type {})",
                self.resource.kind
            )));
        };
        for (field, expected) in
            [("apiVersion", self.resource.api_version()), ("kind", self.resource.kind.to_owned())]
        {
            match fields.get(field).and_then(Value::as_str).unwrap_or_default() {
                found if found == expected => {}
                // Built-in types know themselves what they are.
                "" if !self.resource.custom => {
                    fields.insert(field.to_owned(), expected.into());
                }
                found => {
                    return Err(Failure::bad_request(format!(
                        "{} in version \"{}\" cannot be handled as a {}: {field} {} does not match {}",
                        self.resource.kind,
                        self.resource.version,
                        self.resource.kind,
                        crate::failure::quoted(found),
                        crate::failure::quoted(&expected),
                    )));
                }
            }
        }
        if !fields.get("metadata").is_none_or(|metadata| metadata.is_object() || metadata.is_null()) {
            return Err(Failure::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: json: cannot unmarshal metadata into an object",
                self.resource.kind, self.resource.version, self.resource.kind
            )));
        }
        let namespace = object::namespace(&value);
        if self.resource.namespaced && !namespace.is_empty() && namespace != self.target.namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(value)
    }

    /// Drops unknown fields, and answers the warnings about them.
    fn prune(&self, value: &mut Value) -> Result<Vec<String>, Failure> {
        let unknown: Vec<String> = validation::prune(self.resource, value)
            .into_iter()
            .map(|field| format!("unknown field \"{field}\""))
            .collect();
        match self.call.parameter("fieldValidation") {
            "Strict" if !unknown.is_empty() => Err(Failure::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {}",
                self.resource.version,
                unknown.join(", "),
                kind = self.resource.kind,
            ))),
            "Ignore" => Ok(Vec::new()),
            _ => Ok(unknown),
        }
    }

    fn check(&self, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
        let causes = validation::check(self.resource, object, old);
        if causes.is_empty() {
            Ok(())
        } else {
            // Events are judged in the core form, whichever they come in.
            let resource = registry::stored(self.resource.plural).unwrap_or(self.resource);
            Err(Failure::invalid(resource, object::name(object), &causes))
        }
    }

    fn create(&self) -> Result<Answer, Failure> {
        let object = self.object()?;
        self.create_object(object, self.call.is_dry_run())
    }

    fn create_object(&self, mut object: Value, dry_run: bool) -> Result<Answer, Failure> {
        if !object::resource_version(&object).is_empty() {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let warnings = self.prune(&mut object)?;
        if self.resource.namespaced {
            object::metadata(&mut object).insert("namespace".into(), self.target.namespace.clone().into());
        }
        let verdict = self.cluster.policies.verdict(self.request);
        admission::prepare_new(self.resource, &mut object);
        verdict.apply(&mut object);
        let mut answer = self.write(|writer| {
            admission::admit(writer, self.resource, &mut object)?;
            self.check(&object, None)?;
            verdict.check(self.resource, object::name(&object))?;
            if self.resource.plural == "pods" {
                pod_security::check(writer, &object)?;
            }
            quota::check(self.cluster, writer, self.resource, &object)?;
            let name = object::name(&object).to_owned();
            if writer.get(self.resource.plural, &self.key_of(&name)).is_some() {
                return Err(Failure::already_exists(self.resource, &name));
            }
            let object = as_stored(self.resource, object);
            if dry_run {
                return Ok(self.one_unstored(201, &object));
            }
            let stored = writer.put(self.resource, object);
            Ok(self.one(201, &stored))
        })?;
        answer.warnings = warnings;
        Ok(answer)
    }

    fn update(&self) -> Result<Answer, Failure> {
        let object = self.object()?;
        let name = object::name(&object);
        if !name.is_empty() && name != self.target.name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.target.name
            )));
        }
        if self.resource.custom && object::resource_version(&object).is_empty() {
            let why = Cause::invalid("metadata.resourceVersion", None, "0: must be specified for an update");
            return Err(Failure::invalid(self.resource, &self.target.name, &[why]));
        }
        self.replace(|_| Ok(object))
    }

    fn patch(&self) -> Result<Answer, Failure> {
        let media = self.call.content_type.split(';').next().unwrap_or_default().trim();
        let apply = matches!(media, "application/apply-patch+yaml" | "application/apply-patch+cbor");
        let merge =
            matches!(media, "application/merge-patch+json" | "application/strategic-merge-patch+json");
        if !apply && !merge {
            return Err(Failure::unsupported_media_type(
                "application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            ));
        }
        let patch: Value = serde_json::from_slice(self.body)
            .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
        if !patch.is_object() {
            return Err(Failure::bad_request("error decoding patch: the patch is no object"));
        }
        if apply && self.cluster.store.get(self.resource.plural, &self.key()).is_none() {
            let mut object = self.check_type(patch)?;
            object::metadata(&mut object).insert("name".into(), self.target.name.clone().into());
            return self.create_object(object, self.call.is_dry_run());
        }
        self.replace(|old| {
            let mut object = old.clone();
            patch::merge(&mut object, patch);
            self.check_type(object)
        })
    }

    /// Replaces the object that the path names with what `change` makes of it.
    fn replace(&self, change: impl FnOnce(&Value) -> Result<Value, Failure>) -> Result<Answer, Failure> {
        let key = self.key();
        let verdict = self.cluster.policies.verdict(self.request);
        self.write(|writer| {
            let stored = self.found(writer.get(self.resource.plural, &key))?;
            let old = shown(self.resource, &stored.value).into_owned();
            let mut object = change(&old)?;
            let version = object::resource_version(&object);
            if !version.is_empty() && version != object::resource_version(&old) {
                return Err(Failure::modified(self.resource, &key.1));
            }
            let uid = object::uid(&object);
            if !uid.is_empty() && uid != object::uid(&old) {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    object::uid(&old)
                );
                return Err(Failure::precondition(self.resource, &key.1, &why));
            }
            let warnings = self.prune(&mut object)?;
            verdict.apply(&mut object);
            admission::prepare_changed(self.resource, &self.target.subresource, &mut object, &old);
            self.check(&object, Some(&old))?;
            verdict.check(self.resource, &key.1)?;
            let object = as_stored(self.resource, object);
            let mut answer = if self.call.is_dry_run() {
                self.one_unstored(200, &object)
            } else {
                let changed = writer.modify(self.resource, &key, |value| *value = object);
                self.one(200, &changed.unwrap_or(stored))
            };
            answer.warnings = warnings;
            Ok(answer)
        })
    }

    fn delete_options(&self) -> Result<Value, Failure> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        let options: Value = serde_json::from_slice(self.body).map_err(|error| {
            Failure::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
        })?;
        match options.get("kind").and_then(Value::as_str) {
            Some("DeleteOptions") | None if options.is_object() => Ok(options),
            _ => Err(Failure::bad_request(
                "the object provided is unrecognized (must be of type DeleteOptions)",
            )),
        }
    }

    /// What becomes of the objects that belong to a deleted one; `None`: nothing was said.
    fn propagation(&self, options: &Value) -> Result<Option<Propagation>, Failure> {
        let of_body = options.get("propagationPolicy").and_then(Value::as_str);
        // What stands in the path counts only without a body.
        let text = of_body.unwrap_or(if self.body.is_empty() {
            self.call.parameter("propagationPolicy")
        } else {
            ""
        });
        match Propagation::read(text) {
            None if !text.is_empty() => Err(Failure::invalid_options(text)),
            propagation => Ok(propagation),
        }
    }

    /// The seconds that the containers of a deleted pod have to end.
    fn grace(&self, options: &Value) -> Option<u64> {
        let of_path =
            || self.call.parameter("gracePeriodSeconds").parse().ok().filter(|_| self.body.is_empty());
        options.get("gracePeriodSeconds").and_then(Value::as_u64).or_else(of_path)
    }

    fn is_dry_run(&self, options: &Value) -> bool {
        let asked = options.get("dryRun").and_then(Value::as_array);
        self.call.is_dry_run() || asked.is_some_and(|asked| asked.iter().any(|what| what == "All"))
    }

    fn delete(&self) -> Result<Answer, Failure> {
        let options = self.delete_options()?;
        let (propagation, grace) = (self.propagation(&options)?, self.grace(&options));
        let mut answer = self.delete_with(&options, propagation, grace)?;
        if self.resource.plural == "jobs" && propagation.is_none() {
            answer.warnings.push(ORPHANS.to_owned());
        }
        Ok(answer)
    }

    fn delete_with(
        &self,
        options: &Value,
        propagation: Option<Propagation>,
        grace: Option<u64>,
    ) -> Result<Answer, Failure> {
        let key = self.key();
        let verdict = self.cluster.policies.verdict(self.request);
        self.write(|writer| {
            let stored = self.found(writer.get(self.resource.plural, &key))?;
            self.check_preconditions(options, &stored.value)?;
            verdict.check(self.resource, &key.1)?;
            let dry_run = self.is_dry_run(options);
            let is_hastened = deletion::is_hastened(self.resource, &stored.value, grace);
            if object::is_deleting(&stored.value) && !is_hastened {
                return Ok(self.one(200, &stored));
            }
            let how = propagation.unwrap_or(Propagation::default_of(self.resource));
            if let Some(value) = deletion::marked(self.resource, &stored.value, how, grace) {
                if dry_run {
                    return Ok(self.one_unstored(200, &value));
                }
                let object = writer.put(self.resource, value);
                return Ok(self.one(200, &object));
            }
            let last = if dry_run { Some(stored) } else { writer.remove(self.resource, &key) };
            // These types answer with what was deleted.
            let answers = matches!(self.resource.plural, "persistentvolumeclaims" | "pods" | "serviceaccounts");
            if let (Some(last), true) = (&last, answers) {
                return Ok(self.one(200, last));
            }
            let mut details = json!({
                "name": key.1,
                "kind": self.resource.plural,
                "uid": last.map(|last| object::uid(&last.value).to_owned()),
            });
            if !self.resource.group.is_empty() {
                details["group"] = self.resource.group.into();
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            Ok(Answer::json(200, &status))
        })
    }

    fn check_preconditions(&self, options: &Value, object: &Value) -> Result<(), Failure> {
        let checks = [
            ("uid", "UID", object::uid(object), "deleted and then recreated"),
            ("resourceVersion", "ResourceVersion", object::resource_version(object), "modified"),
        ];
        for (field, what, found, otherwise) in checks {
            let wanted = options.pointer(&format!("/preconditions/{field}")).and_then(Value::as_str);
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                let why = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {otherwise}"
                );
                return Err(Failure::precondition(self.resource, object::name(object), &why));
            }
        }
        Ok(())
    }

    fn delete_collection(&self) -> Result<Answer, Failure> {
        let filter = self.filter()?;
        let options = self.delete_options()?;
        if self.resource.namespaced && self.namespace().is_none() {
            return Err(Failure::method_not_allowed());
        }
        let dry_run = self.is_dry_run(&options);
        let how = self.propagation(&options)?.unwrap_or(Propagation::default_of(self.resource));
        let verdict = self.cluster.policies.verdict(self.request);
        let found = self.cluster.store.list(self.resource.plural, self.namespace());
        let doomed: Vec<Arc<Object>> =
            found.into_iter().filter(|object| filter.matches(&object.value)).collect();
        for object in &doomed {
            verdict.check(self.resource, object::name(&object.value))?;
        }
        if !dry_run {
            for object in &doomed {
                let key =
                    (object::namespace(&object.value).to_owned(), object::name(&object.value).to_owned());
                self.write(|writer| deletion::delete(writer, self.resource, &key, how));
            }
        }
        let items: Vec<Cow<'_, Value>> =
            doomed.iter().map(|object| shown(self.resource, &object.value)).collect();
        let list = json!({
            "kind": format!("{}List", self.resource.kind),
            "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": self.cluster.store.version().to_string()},
            "items": items,
        });
        Ok(Answer::json(200, &list))
    }

    fn token(&self) -> Result<Answer, Failure> {
        let key = self.key();
        self.found(self.cluster.store.get("serviceaccounts", &key))?;
        let request: Value = serde_json::from_slice(self.body).unwrap_or_default();
        let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
        // A day is more than any test runs; the sum stays in range whatever was asked for.
        let expiration = Timestamp::now() + SignedDuration::from_secs(seconds.clamp(600, 86400));
        let audiences = request.pointer("/spec/audiences").filter(|value| value.is_array()).cloned();
        let answer = json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": key.1, "namespace": key.0, "creationTimestamp": object::now()},
            "spec": {
                "audiences": audiences.unwrap_or_else(|| json!(["https://kubernetes.default.svc.cluster.local"])),
                "expirationSeconds": seconds,
                "boundObjectRef": null,
            },
            "status": {
                "token": self.cluster.tokens.give(&key.0, &key.1),
                "expirationTimestamp": object::time(expiration),
            },
        });
        Ok(Answer::json(201, &answer))
    }

    fn log(&self) -> Result<Answer, Failure> {
        let pod = self.found(self.cluster.store.get(self.resource.plural, &self.key()))?;
        let text = pods::log(self.cluster, &pod.value, self.call)?;
        Ok(Answer { code: 200, content: Content::Text(text.into()), warnings: Vec::new() })
    }

    fn exec(&self) -> Result<Answer, Failure> {
        if self.call.upgrade.is_some() && self.call.verb == "get" {
            // A WebSocket begins with a GET whatever it is for, so the other verb has to be allowed too.
            let deed = Deed { verb: "create".to_owned(), ..self.call.deed() };
            if !rbac::judge(&self.cluster.store, self.user, &deed).allowed {
                return Err(Failure::forbidden("", self.resource.plural, &self.target.name, ""));
            }
        }
        let pod = self.found(self.cluster.store.get(self.resource.plural, &self.key()))?;
        self.cluster.policies.verdict(self.request).check(self.resource, &self.target.name)?;
        let session = exec::Session::begin(self.cluster, self.call, &pod.value, &self.user.name)?;
        Ok(Answer { code: 101, content: Content::Exec(Box::new(session)), warnings: Vec::new() })
    }

    fn access_review(&self) -> Result<Answer, Failure> {
        let review = self.object()?;
        let text = |pointer: &str| object::text(&review, pointer).to_owned();
        let deed = if review.pointer("/spec/nonResourceAttributes").is_some_and(Value::is_object) {
            Deed {
                verb: text("/spec/nonResourceAttributes/verb"),
                path: Some(text("/spec/nonResourceAttributes/path")),
                ..Deed::default()
            }
        } else if review.pointer("/spec/resourceAttributes").is_some_and(Value::is_object) {
            let attribute = |name: &str| text(&format!("/spec/resourceAttributes/{name}"));
            Deed {
                verb: attribute("verb"),
                group: attribute("group"),
                resource: attribute("resource"),
                subresource: attribute("subresource"),
                namespace: attribute("namespace"),
                name: attribute("name"),
                path: None,
            }
        } else {
            let why = "null: exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let cause = Cause::invalid("spec.resourceAttributes", None, why);
            return Err(Failure::invalid(self.resource, "", &[cause]));
        };
        let verdict = rbac::judge(&self.cluster.store, self.user, &deed);
        let mut status = json!({"allowed": verdict.allowed});
        if !verdict.reason.is_empty() {
            status["reason"] = verdict.reason.into();
        }
        let answer = json!({
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version(),
            "metadata": {},
            "spec": review["spec"],
            "status": status,
        });
        Ok(Answer::json(201, &answer))
    }
}
