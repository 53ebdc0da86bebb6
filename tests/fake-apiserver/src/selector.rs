//! Label and field selectors: parsing with the server's messages, and matching.
//!
//! Which fields a resource can be selected by is decided here too; how selectors act on lists and watches is not.

use crate::failure::{Failure, quoted};
use crate::object;
use crate::registry::Resource;
use crate::validation;
use serde_json::Value;
use std::cmp::Ordering;

/// Labels and fields together: what a list or a watch is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Exists,
    DoesNotExist,
    In,
    NotIn,
    GreaterThan,
    LessThan,
}

#[derive(Debug, Clone, PartialEq)]
struct FieldRequirement {
    field: String,
    value: String,
    equal: bool,
}

impl Filter {
    /// From the two query parameters of a request; missing ones are empty.
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Filter, Failure> {
        let label_requirements = parse_labels(labels).map_err(Failure::bad_request)?;
        let field_requirements = parse_fields(fields).map_err(Failure::bad_request)?;
        for requirement in &field_requirements {
            if !is_selectable(resource, &requirement.field) {
                return Err(Failure::bad_request(unsupported(resource, &requirement.field)));
            }
        }
        Ok(Filter { labels: label_requirements, fields: field_requirements })
    }

    /// Whether everything matches, so that the server can count what remains of a list.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.fields.iter().all(|requirement| requirement.matches(object))
            && self.labels.iter().all(|requirement| requirement.matches(object))
    }
}

impl FieldRequirement {
    fn matches(&self, object: &Value) -> bool {
        let value = match self.field.as_str() {
            "source" => match object::text(object, "/source/component") {
                "" => object::text(object, "/reportingComponent"),
                component => component,
            },
            field => {
                let mut value = object;
                for step in field.split('.') {
                    value = value.get(step).unwrap_or(&Value::Null);
                }
                value.as_str().unwrap_or_default()
            }
        };
        (value == self.value) == self.equal
    }
}

impl Requirement {
    fn matches(&self, object: &Value) -> bool {
        let label = object::label(object, &self.key);
        match (self.operator, label) {
            (Operator::Exists, label) => label.is_some(),
            (Operator::DoesNotExist, label) => label.is_none(),
            (Operator::In, Some(label)) => self.values.iter().any(|value| value == label),
            // An object without the label is not in the set either: this surprises, and deletes too much.
            (Operator::NotIn, None) => true,
            (Operator::NotIn, Some(label)) => self.values.iter().all(|value| value != label),
            (Operator::GreaterThan, Some(label)) => self.compares(label, Ordering::Greater),
            (Operator::LessThan, Some(label)) => self.compares(label, Ordering::Less),
            (Operator::In | Operator::GreaterThan | Operator::LessThan, None) => false,
        }
    }

    fn compares(&self, label: &str, wanted: Ordering) -> bool {
        match (label.parse::<i64>(), self.values.first().map(|value| value.parse::<i64>())) {
            (Ok(label), Some(Ok(value))) => label.cmp(&value) == wanted,
            _ => false,
        }
    }
}

fn unsupported(resource: &Resource, field: &str) -> String {
    if resource.custom || matches!(resource.plural, "events" | "namespaces") {
        format!("field label not supported: {field}")
    } else {
        let field = quoted(field);
        format!("{field} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    }
}

fn is_selectable(resource: &Resource, field: &str) -> bool {
    match field {
        "metadata.name" => true,
        "metadata.namespace" => resource.namespaced,
        "status.phase" => matches!(resource.plural, "namespaces" | "pods"),
        "spec.nodeName" | "spec.restartPolicy" => resource.plural == "pods",
        "status.successful" => resource.plural == "jobs",
        "reason" | "reportingComponent" | "source" | "type" => resource.plural == "events",
        field => {
            resource.plural == "events"
                && field.strip_prefix("involvedObject.").is_some_and(|part| {
                    matches!(
                        part,
                        "kind"
                            | "namespace"
                            | "name"
                            | "uid"
                            | "apiVersion"
                            | "resourceVersion"
                            | "fieldPath"
                    )
                })
        }
    }
}

fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>, String> {
    let mut requirements = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = part.split_once("==") {
            (field, value, true)
        } else if let Some((field, value)) = part.split_once('=') {
            (field, value, true)
        } else {
            return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
        };
        requirements.push(FieldRequirement { field: field.to_owned(), value: value.to_owned(), equal });
    }
    Ok(requirements)
}

#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(&self) -> &'a str {
        match self {
            Token::Word(text) | Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

const SYMBOLS: [char; 7] = ['=', '!', '(', ')', ',', '<', '>'];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if SYMBOLS.contains(&first) {
            if rest.starts_with("==") || rest.starts_with("!=") { 2 } else { 1 }
        } else {
            rest.find(|c: char| SYMBOLS.contains(&c) || c.is_whitespace()).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length);
        tokens.push(if SYMBOLS.contains(&first) { Token::Symbol(token) } else { Token::Word(token) });
        rest = after.trim_start();
    }
    tokens.push(Token::End);
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.take();
        let absent = token == Token::Symbol("!");
        if absent {
            token = self.take();
        }
        let Token::Word(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        validation::label_key(key).map_err(|why| format!("key: Invalid value: {}: {why}", quoted(key)))?;
        let bare = |operator| Requirement { key: key.to_owned(), operator, values: Vec::new() };
        if absent {
            return Ok(bare(Operator::DoesNotExist));
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(bare(Operator::Exists));
        }
        let token = self.take();
        let (operator, is_set) = match &token {
            Token::Word("in") => (Operator::In, true),
            Token::Word("notin") => (Operator::NotIn, true),
            Token::Symbol("=" | "==") => (Operator::In, false),
            Token::Symbol("!=") => (Operator::NotIn, false),
            Token::Symbol(">") => (Operator::GreaterThan, false),
            Token::Symbol("<") => (Operator::LessThan, false),
            other => {
                return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text()));
            }
        };
        let values = if is_set { self.set()? } else { vec![self.value()?] };
        for (index, value) in values.iter().enumerate() {
            validation::label_value(value)
                .map_err(|why| format!("values[{index}][{key}]: Invalid value: {}: {why}", quoted(value)))?;
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                return Err(format!(
                    "values[{index}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                    quoted(value)
                ));
            }
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    }

    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.take() {
            Token::Word(value) => Ok(value.to_owned()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        let open = self.take();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let mut values = Vec::new();
        loop {
            match self.take() {
                Token::Word(value) => values.push(value.to_owned()),
                Token::Symbol(",") => {
                    values.push(String::new());
                    continue;
                }
                Token::Symbol(")") => {
                    values.push(String::new());
                    break;
                }
                other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
            }
            match self.take() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => break,
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(requirements),
            Token::Word(_) | Token::Symbol("!") => {}
            other => {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text()));
            }
        }
        let requirement =
            parser.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
        requirements.push(requirement);
        match parser.take() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(format!("found '{}', expected: identifier after ','", other.text())),
            },
            other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;
    use serde_json::json;

    #[test]
    fn label_selectors_match_as_the_server_says() {
        let object = json!({"metadata": {"labels": {"job": "a", "tier": "2", "empty": ""}}});
        for (selector, expected) in [
            ("", true),
            ("job", true),
            ("!job", false),
            ("! job", false),
            ("none", false),
            ("!none", true),
            ("job=a", true),
            ("job==a", true),
            ("job = a", true),
            ("job=b", false),
            ("job!=a", false),
            ("job!=b", true),
            ("none!=b", true),
            ("job in (a,b)", true),
            ("job in (b, c)", false),
            ("none in (a)", false),
            ("job notin (a,b)", false),
            ("job notin (b)", true),
            ("none notin (a)", true),
            ("empty=", true),
            ("empty in ()", true),
            ("job=", false),
            ("tier>1", true),
            ("tier<2", false),
            ("none>1", false),
            ("job=a,tier=2", true),
            ("job=a,tier=3", false),
            ("in=in", false),
            ("job in (in,a)", true),
        ] {
            let requirements = parse_labels(selector).unwrap_or_else(|why| panic!("{selector}: {why}"));
            let filter = Filter { labels: requirements, fields: Vec::new() };
            assert_eq!(filter.matches(&object), expected, "{selector}");
        }
    }

    #[test]
    fn label_selectors_that_do_not_parse_are_refused() {
        for (selector, expected) in [
            ("a===b", "unable to parse requirement: found '=', expected: identifier"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
        ] {
            assert_eq!(parse_labels(selector).err().as_deref(), Some(expected), "{selector}");
        }
        for selector in ["-a=b", "a=b!", "a>x", "a=(", "a=-"] {
            assert!(parse_labels(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn field_selectors_know_their_resource() {
        let snapshots = registry::known("volumesnapshots");
        let events = registry::known("events");
        let object =
            json!({"metadata": {"name": "a"}, "involvedObject": {"name": "b"}, "source": {"component": "c"}});
        for (resource, selector, expected) in [
            (snapshots, "metadata.name=a", Some(true)),
            (snapshots, "metadata.name!=a", Some(false)),
            (snapshots, "metadata.name==b", Some(false)),
            (snapshots, "metadata.namespace=x", Some(false)),
            (snapshots, "status.readyToUse=true", None),
            (snapshots, "nonsense", None),
            (events, "involvedObject.name=b,source=c", Some(true)),
            (events, "involvedObject.nonsense=b", None),
        ] {
            let matched = Filter::parse(resource, "", selector).ok().map(|filter| filter.matches(&object));
            assert_eq!(matched, expected, "{selector}");
        }
    }
}
