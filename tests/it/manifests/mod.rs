//! What a person applies: the base, every overlay, and every component in several surroundings,
//! rendered as `kubectl apply -k` renders them, read as strictly as an API server reads them, and
//! compared with what the binary says of itself.
//!
//! Rendering needs `kubectl` or `kustomize`. Where neither is installed, the tests that need it say
//! so and pass. What the overlays render to is kept in `tests/golden`, so that a change of what
//! users apply shows in a review; `UPDATE_GOLDEN=1 cargo test --test it manifests` renews it.

mod cluster;
mod components;
mod others;
mod overlays;
mod permissions;
mod pods;
mod reading;
mod rendering;
mod settings;
mod time;

pub(crate) use self::{
    permissions::{Granted, granted},
    pods::{from_the_pod, violations},
    reading::{container_of, pod_of, read},
    rendering::{KUBE_STATE_METRICS, Rendered, Tree, on_an_overlay, on_the_base, top},
    settings::{assignment, variables},
    time::{deadline, longest},
};
