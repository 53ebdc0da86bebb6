//! What becomes of pods: the claims of their ephemeral volumes, the scheduler, and the kubelet of the only node, with the
//! speed and the end of a test's [`PodPlan`].
//!
//! A pod without a plan stays Pending; only the claims that wait for a consumer get one. One that is put into the store
//! with another phase is left as it is. Each pod with a plan has a task of its own, which is told of changes that may
//! concern it.

use crate::admission;
use crate::announce::{self, Announcement};
use crate::cluster::Cluster;
use crate::object;
use crate::others::Others;
use crate::pod_plan::{End, PodPlan};
use crate::pod_status::{conditions, end_containers, mount_trouble, set_containers};
use crate::pods::{self, HOST_IP, NODE};
use crate::quota;
use crate::registry::known;
use crate::store::{Change, Key, Kind, Writer};
use crate::volumes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

const PODS: &str = "pods";
const CLAIMS: &str = "persistentvolumeclaims";

/// From a claim that could not be created until the next try.
const CLAIM_BACKOFF: Duration = Duration::from_millis(200);

struct Kubelet {
    cluster: Arc<Cluster>,
    /// The tasks of pods, by uid, with their namespaces.
    pods: HashMap<String, (String, Arc<Notify>)>,
}

/// Runs until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    let mut kubelet = Kubelet { cluster, pods: HashMap::new() };
    while let Some(change) = changes.recv().await {
        match (change.resource.plural, change.kind) {
            (PODS, Kind::Added) => kubelet.take(&change.object.value),
            (PODS, kind) => {
                let uid = object::uid(&change.object.value);
                if let Some((_, notify)) = kubelet.pods.get(uid) {
                    notify.notify_one();
                }
                if kind == Kind::Deleted {
                    kubelet.pods.remove(uid);
                }
            }
            (CLAIMS, _) => {
                for (_, notify) in kubelet.pods.values().filter(|(namespace, _)| *namespace == change.key.0) {
                    notify.notify_one();
                }
            }
            _ => {}
        }
    }
}

impl Kubelet {
    fn take(&mut self, pod: &Value) {
        if object::text(pod, "/status/phase") != "Pending" || object::is_deleting(pod) {
            return;
        }
        let id = Id {
            key: (object::namespace(pod).to_owned(), object::name(pod).to_owned()),
            uid: object::uid(pod).to_owned(),
        };
        let notify = Arc::new(Notify::new());
        let plan = self.cluster.plan_pod(pod);
        self.pods.insert(id.uid.clone(), (id.key.0.clone(), notify.clone()));
        tokio::spawn(live(Life { cluster: self.cluster.clone(), id, notify }, plan));
    }
}

/// A pod by name and uid.
struct Id {
    key: Key,
    uid: String,
}

impl Id {
    fn get(&self, writer: &Writer<'_>) -> Option<Value> {
        let pod = writer.get(PODS, &self.key)?;
        (object::uid(&pod.value) == self.uid).then(|| pod.value.clone())
    }
}

struct Life {
    cluster: Arc<Cluster>,
    id: Id,
    notify: Arc<Notify>,
}

/// What hinders a pod from getting a node.
enum Hindrance {
    /// It is gone, or going.
    Gone,
    /// Its claims are not there or not bound.
    Waits(String),
    /// A claim could not be created.
    Refused,
}

async fn live(life: Life, plan: Option<PodPlan>) {
    let unschedulable = match &plan {
        Some(PodPlan { end: End::Unschedulable { message }, .. }) => Some(message.clone()),
        _ => None,
    };
    // What the scheduler says, until all claims are bound.
    loop {
        let hindrance = life.cluster.store.write(|writer| {
            let hindrance = life.claims(writer, unschedulable.is_none());
            match (&unschedulable, &hindrance) {
                (_, Some(Hindrance::Gone)) => {}
                (Some(message), _) => life.complain(writer, message),
                (None, Some(Hindrance::Waits(message))) if plan.is_some() => life.complain(writer, message),
                (None, _) => {}
            }
            hindrance
        });
        match hindrance {
            Some(Hindrance::Gone) => return,
            Some(Hindrance::Refused) => sleep(CLAIM_BACKOFF).await,
            None if plan.is_some() && unschedulable.is_none() => break,
            _ => life.notify.notified().await,
        }
    }
    let Some(plan) = plan else { return };
    sleep(plan.scheduled_after).await;
    let mount = life.cluster.store.write(|writer| life.bind(writer));
    let Some(trouble) = mount else { return };
    if let Some(why) = trouble {
        life.cluster.store.write(|writer| life.tell(writer, "kubelet", "Warning", "FailedMount", &why));
        return life.end_when_deleted(&plan, false).await;
    }
    if life.is_deleted_within(plan.started_after).await {
        return life.finish(&plan, None, false).await;
    }
    if let End::Waits { reason, message } = &plan.end {
        life.wait_for_ever(reason, message);
        return life.end_when_deleted(&plan, false).await;
    }
    let started = object::now();
    life.start(&started);
    let plan = match &plan.end {
        End::Decided(decide) => {
            let (decide, others) = (decide.clone(), Others { cluster: life.cluster.clone() });
            let pod = life.cluster.store.write(|writer| life.id.get(writer)).unwrap_or_default();
            let decided = tokio::task::spawn_blocking(move || decide(&others, &pod)).await;
            decided.unwrap_or_else(|_| PodPlan::fails(134, "the closure of a test panicked"))
        }
        _ => plan,
    };
    life.cluster.pods.set_log(&life.id.uid, &plan.log);
    match plan.runs_for {
        Some(time) if !life.is_deleted_within(time).await => life.finish(&plan, Some(&started), true).await,
        Some(_) => life.finish(&plan, Some(&started), false).await,
        None => life.end_when_deleted(&plan, true).await,
    }
}

impl Life {
    /// Creates the claims of ephemeral volumes, hands claims that wait for a consumer to the provisioner, and says what
    /// is missing. `None`: nothing is.
    fn claims(&self, writer: &mut Writer<'_>, may_be_scheduled: bool) -> Option<Hindrance> {
        let Some(pod) = self.id.get(writer).filter(|pod| !object::is_deleting(pod)) else {
            return Some(Hindrance::Gone);
        };
        for (volume, template) in pods::ephemeral(&pod) {
            let name = pods::ephemeral_claim(&pod, volume);
            let key = (self.id.key.0.clone(), name.clone());
            let made = match writer.get(CLAIMS, &key) {
                None => self.make_claim(writer, &pod, &name, template),
                Some(claim) if pods::is_claim_of(&claim.value, &pod) => continue,
                Some(_) => Err(format!(
                    "PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                    key.0, key.0, self.id.key.1
                )),
            };
            if let Err(why) = made {
                let why = format!("ephemeral volume {volume}: {why}");
                self.tell(writer, "ephemeral_volume", "Warning", "FailedBinding", &why);
                return Some(Hindrance::Refused);
            }
        }
        let nodes = |why: &str| {
            format!(
                "0/1 nodes are available: {why}. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
            )
        };
        let mut waits = None;
        for name in pods::claims(&pod) {
            let key = (self.id.key.0.clone(), name.clone());
            let Some(claim) = writer.get(CLAIMS, &key) else {
                waits.get_or_insert(nodes(&format!("persistentvolumeclaim \"{name}\" not found")));
                continue;
            };
            if object::is_deleting(&claim.value) {
                waits.get_or_insert(nodes(&format!("persistentvolumeclaim \"{name}\" is being deleted")));
            } else if object::text(&claim.value, "/status/phase") != "Bound" {
                if may_be_scheduled {
                    volumes::select_node(writer, &key);
                }
                waits.get_or_insert(nodes("pod has unbound immediate PersistentVolumeClaims"));
            }
        }
        waits.map(Hindrance::Waits)
    }

    /// Creates the claim of an ephemeral volume as a client would.
    fn make_claim(
        &self,
        writer: &mut Writer<'_>,
        pod: &Value,
        name: &str,
        template: &Value,
    ) -> Result<(), String> {
        let mut claim = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name,
                "namespace": self.id.key.0,
                "ownerReferences": [{
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": self.id.key.1,
                    "uid": object::uid(pod),
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
            "spec": template["spec"],
        });
        for field in ["labels", "annotations"] {
            if let Some(value) = template.pointer(&format!("/metadata/{field}")) {
                claim["metadata"][field] = value.clone();
            }
        }
        let claims = known(CLAIMS);
        admission::prepare_new(claims, &mut claim);
        let admitted = admission::admit(writer, claims, &mut claim)
            .and_then(|()| quota::check(&self.cluster, writer, claims, &claim));
        admitted.map_err(|failure| format!("create PVC {name}: {}", failure.message))?;
        writer.put(claims, claim);
        Ok(())
    }

    fn tell(&self, writer: &mut Writer<'_>, component: &str, kind: &str, reason: &str, message: &str) {
        let Some(pod) = self.id.get(writer) else { return };
        let about = ("v1", "Pod");
        announce::repeat(writer, &Announcement { about, object: &pod, component, kind, reason, message });
    }

    fn modify(&self, writer: &mut Writer<'_>, f: impl FnOnce(&mut Value)) {
        if self.id.get(writer).is_some() {
            writer.modify(known(PODS), &self.id.key, f);
        }
    }

    /// The scheduler says why a pod has no node, once.
    fn complain(&self, writer: &mut Writer<'_>, message: &str) {
        let Some(pod) = self.id.get(writer) else { return };
        if object::text(&pod, "/status/conditions/0/message") == message {
            return;
        }
        self.modify(writer, |pod| {
            pod["status"]["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": null,
                "lastTransitionTime": object::now(),
                "reason": "Unschedulable",
                "message": message,
            }]);
        });
        self.tell(writer, "default-scheduler", "Warning", "FailedScheduling", message);
    }

    /// Gives the pod its node, whose kubelet begins. Answers what is wrong with its mounts, if something is; `None`: the
    /// pod is gone.
    fn bind(&self, writer: &mut Writer<'_>) -> Option<Option<String>> {
        let pod = self.id.get(writer).filter(|pod| !object::is_deleting(pod))?;
        let message = format!("Successfully assigned {}/{} to {NODE}", self.id.key.0, self.id.key.1);
        self.tell(writer, "default-scheduler", "Normal", "Scheduled", &message);
        let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
        self.modify(writer, |pod| {
            pod["spec"]["nodeName"] = NODE.into();
            pod["status"]["conditions"] = conditions("False", "ContainersNotReady");
            pod["status"]["hostIP"] = HOST_IP.into();
            pod["status"]["startTime"] = object::now().into();
            set_containers(pod, &waiting, false);
        });
        Some(mount_trouble(writer, &pod))
    }

    fn start(&self, started: &str) {
        self.cluster.store.write(|writer| {
            self.modify(writer, |pod| {
                pod["status"]["phase"] = "Running".into();
                pod["status"]["conditions"] = conditions("True", "");
                set_containers(pod, &json!({"running": {"startedAt": started}}), true);
            });
            self.tell(writer, "kubelet", "Normal", "Started", "Started container");
        });
    }

    /// The containers are never started.
    fn wait_for_ever(&self, reason: &str, message: &str) {
        self.cluster.store.write(|writer| {
            self.modify(writer, |pod| {
                let waiting = json!({"waiting": {"reason": reason, "message": message}});
                set_containers(pod, &waiting, false);
            });
            self.tell(writer, "kubelet", "Warning", "Failed", message);
        });
    }

    /// Waits, and answers whether the pod was deleted meanwhile.
    async fn is_deleted_within(&self, time: Duration) -> bool {
        tokio::select! {
            () = sleep(time) => self.is_deleted(),
            () = self.deleted() => true,
        }
    }

    fn is_deleted(&self) -> bool {
        let pod = self.cluster.store.write(|writer| self.id.get(writer));
        pod.is_none_or(|pod| object::is_deleting(&pod))
    }

    async fn deleted(&self) {
        while !self.is_deleted() {
            self.notify.notified().await;
        }
    }

    async fn end_when_deleted(&self, plan: &PodPlan, has_started: bool) {
        self.deleted().await;
        let started = has_started.then(object::now);
        self.finish(plan, started.as_deref(), false).await;
    }

    /// Ends the containers: by themselves, or because the pod was deleted. What was deleted goes then.
    async fn finish(&self, plan: &PodPlan, started: Option<&str>, by_itself: bool) {
        let killed = End::Exits { code: 143, reason: "Error", message: String::new() };
        if !by_itself {
            sleep(plan.stops_after).await;
        }
        let end = if by_itself { &plan.end } else { &killed };
        self.cluster.store.write(|writer| {
            self.modify(writer, |pod| {
                end_containers(pod, end, started, &plan.log);
                if object::is_deleting(pod) {
                    pod["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                }
            });
            if let (true, End::Evicted { message }) = (by_itself, end) {
                self.tell(writer, "kubelet", "Warning", "Evicted", message);
            }
        });
    }
}
