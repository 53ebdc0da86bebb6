//! Lists: read page by page, and object by object, so that a list of any length takes the memory of one page.

use std::fmt;

use kube::{api::ListParams, core::Request as ApiRequest};
use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Error, ErrorKind, operation::Operation, request::Requests};
use crate::api::PageMetadata;

/// How many objects a page of a list has. 500 is what kubectl asks for.
pub(super) const PAGE: u32 = 500;

/// By how much a page is made smaller if its answer is too large: claims may have 256 kB of annotations each.
const SMALLER_PAGE: u32 = 8;

/// How often a list that expired half-way is begun anew.
const LIST_ATTEMPTS: usize = 3;

/// The way through a list, page by page.
pub(super) struct Pages {
    parameters: ListParams,
    /// Whether the last page was read.
    is_over: bool,
    /// How often the list was begun.
    attempt: usize,
    /// The state of the cluster that the whole list shows.
    resource_version: String,
}

impl Pages {
    pub(super) fn new(selector: &str) -> Self {
        Pages {
            parameters: ListParams::default().labels(selector).limit(PAGE),
            is_over: false,
            attempt: 1,
            resource_version: String::new(),
        }
    }

    /// Whether the page that was just read is the first.
    pub(super) fn is_first(&self) -> bool {
        self.parameters.continue_token.is_none()
    }

    /// Reads the next page; `None` after the last. A page that is too large is asked for in smaller ones,
    /// and a list that expires half-way is begun anew.
    pub(super) async fn next(
        &mut self,
        requests: &Requests,
        operation: &Operation,
        path: &ApiRequest,
    ) -> Result<Option<Vec<u8>>, Error> {
        while !self.is_over {
            let limit = self.parameters.limit.unwrap_or(PAGE);
            match requests.send(operation, &|| path.list(&self.parameters)).await {
                Ok(body) => return Ok(Some(body)),
                Err(error) if error.kind() == ErrorKind::TooLarge && limit > 1 => {
                    let smaller = (limit / SMALLER_PAGE).max(1);
                    tracing::debug!("asking for pages of {smaller} instead of {limit}: {error}");
                    self.parameters.limit = Some(smaller);
                }
                Err(error) if error.kind() == ErrorKind::Expired && self.attempt < LIST_ATTEMPTS => {
                    self.attempt += 1;
                    self.parameters.continue_token = None;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    pub(super) fn goes_on(&mut self, page: PageMetadata) {
        self.resource_version = page.resource_version;
        self.is_over = page.next.is_empty();
        self.parameters.continue_token = Some(page.next);
    }

    /// The state of the cluster that the whole list shows.
    pub(super) fn into_resource_version(self) -> String {
        self.resource_version
    }
}

/// Reads one page, hands each object to `take` as soon as it is read, so that there is never more than one of
/// them in memory besides the page's text, and returns what the page says of the list.
pub(super) fn read<T: DeserializeOwned>(
    body: &[u8],
    take: &mut dyn FnMut(T),
) -> Result<PageMetadata, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let metadata = Page(take).deserialize(&mut reader)?;
    reader.end()?;
    Ok(metadata)
}

struct Page<'a, T>(&'a mut dyn FnMut(T));

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Page<'_, T> {
    type Value = PageMetadata;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<PageMetadata, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Page<'_, T> {
    type Value = PageMetadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page of a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PageMetadata, A::Error> {
        let mut metadata = PageMetadata::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => metadata = map.next_value()?,
                "items" => map.next_value_seed(Items(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(metadata)
    }
}

struct Items<'a, T>(&'a mut dyn FnMut(T));

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Items<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Items<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the objects of a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<(), A::Error> {
        while let Some(object) = objects.next_element()? {
            (self.0)(object);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(body: &str) -> Result<(Vec<u32>, PageMetadata), String> {
        let mut objects = Vec::new();
        let metadata = read(body.as_bytes(), &mut |object| objects.push(object));
        metadata.map(|metadata| (objects, metadata)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_is_read_whatever_the_order_of_its_fields() {
        for body in [
            r#"{"kind": "List", "metadata": {"resourceVersion": "7", "continue": "c"}, "items": [1, 2]}"#,
            r#"{"items": [1, 2], "metadata": {"continue": "c", "resourceVersion": "7"}, "more": [{}]}"#,
        ] {
            let (objects, metadata) = page(body).expect("a page");
            assert_eq!(objects, [1, 2]);
            assert_eq!((metadata.resource_version.as_str(), metadata.next.as_str()), ("7", "c"));
        }
        assert_eq!(page("{}").expect("a page").0, [0; 0]);
    }

    #[test]
    fn what_is_no_page_is_an_error() {
        for body in ["", "[]", r#"{"items": {}}"#, r#"{"items": [1, "two"]}"#, r#"{"items": [1]"#, "{} {}"] {
            assert!(page(body).is_err(), "{body}");
        }
    }
}
