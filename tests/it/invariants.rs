//! Checks every deletion in the history of the fake API server against what must never happen.

use std::collections::HashMap;

use fake_apiserver::{Milestone, Stage};
use serde_json::Value;

use crate::test_cluster::name_of;

/// The state of a snapshot at a moment of the history.
struct State {
    claim: String,
    schedule: String,
    run: String,
    /// Its position in the order of creation.
    order: usize,
    ready: bool,
    untouchable: bool,
    deleted: bool,
}

/// Replays a history and returns the first violation.
///
/// # Errors
/// A description of the violation.
pub(crate) fn check(history: &[Milestone]) -> Result<(), String> {
    let mut states: HashMap<String, State> = HashMap::new();
    for (order, Milestone { stage, object, user, .. }) in history.iter().enumerate() {
        let uid = text(object, "/metadata/uid");
        let ours = user.contains("serviceaccount");
        match stage {
            Stage::Created => {
                let state = state(object, order);
                if ours && !state.run.is_empty() {
                    let twin = states
                        .values()
                        .find(|other| (&other.claim, &other.run) == (&state.claim, &state.run));
                    if let Some(twin) = twin.filter(|twin| !twin.deleted) {
                        return Err(format!("two snapshots of claim {} from run {}", twin.claim, twin.run));
                    }
                }
                states.insert(uid, state);
            }
            Stage::Ready => {
                let seen = state(object, order);
                let state = states.entry(uid).or_insert(seen);
                state.ready = true;
            }
            Stage::DeleteAccepted => {
                let order = states.get(&uid).map_or(0, |state| state.order);
                let mut now = state(object, order);
                now.ready |= states.get(&uid).is_some_and(|state| state.ready);
                if ours {
                    let name = name_of(object);
                    if now.untouchable {
                        return Err(format!("{name} is not to be touched, and was deleted"));
                    }
                    let newer = |other: &&State| {
                        (&other.claim, &other.schedule) == (&now.claim, &now.schedule)
                            && other.ready
                            && !other.deleted
                            && other.order > order
                    };
                    if !states.values().any(|other| newer(&other)) {
                        return Err(format!(
                            "{name} was deleted, and no newer one of claim {} was ready",
                            now.claim
                        ));
                    }
                }
                now.deleted = true;
                states.insert(uid, now);
            }
            Stage::Removed => {
                states.entry(uid).or_insert_with(|| state(object, order)).deleted = true;
            }
        }
    }
    Ok(())
}

fn state(object: &Value, order: usize) -> State {
    let hold = object.pointer("/metadata/labels/volume-snapshotter~1hold");
    State {
        claim: text(object, "/spec/source/persistentVolumeClaimName"),
        schedule: text(object, "/metadata/labels/job"),
        run: text(object, "/metadata/labels/volume-snapshotter~1run"),
        order,
        ready: object["status"]["readyToUse"] == true,
        untouchable: hold.is_some_and(|value| value != "false")
            || !object["status"]["volumeGroupSnapshotName"].is_null()
            || text(object, "/metadata/labels/job").is_empty(),
        deleted: false,
    }
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
