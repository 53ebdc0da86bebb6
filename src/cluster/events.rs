//! Creating Events, which only tells people of a run.

use kube::{api::PostParams, core::Request as ApiRequest};

use super::{CREATE_EVENT, Cluster, EVENT_GROUP, EVENTS, Error, Scope, operation::Operation};
use crate::api::NewEvent;

impl Cluster {
    /// Creates an Event, with one try: it is not worth more. One that is created twice does no harm.
    ///
    /// # Errors
    /// [`super::ErrorKind::Forbidden`] without permission, which is optional.
    pub async fn create_event(&self, event: &NewEvent) -> Result<(), Error> {
        let namespace = &event.namespace;
        let what = format!("create an Event on claim {}", event.claim);
        let operation = Operation::new(what, &Scope::Namespace(namespace.clone()), CREATE_EVENT).optional();
        // Two resources have this name, and only this one demands what an Event should have.
        let path = format!("/apis/{EVENT_GROUP}/v1/namespaces/{namespace}/{EVENTS}");
        let post = || {
            let body = event.object().to_string().into_bytes();
            ApiRequest::new(path.as_str()).create(&PostParams::default(), body)
        };
        let slot = self.requests.slot(&operation).await?;
        slot.send(&operation, &post, &mut self.requests.budget()).await?;
        Ok(())
    }
}
