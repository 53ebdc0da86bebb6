//! The hooks around the snapshots of a unit: claims that pods with hooks mount together.
//!
//! All pre hooks of the unit's pods, then the creates, then each pod's post hook as soon as every snapshot of its
//! claims is taken, or failed, or the pod has been frozen for long enough. Waiting until the snapshots are ready
//! goes on meanwhile. What the hooks are is read in [`crate::hooks`].
//!
//! How a pod is frozen and thawed is in [`pod`].

mod pod;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    ACTIVE_PER_REQUEST, Run, await_ready, create, create_and_wait, create_now,
    discover::{Choice, Found, NAMESPACES_AT_A_TIME},
    target::{New, Target},
};
use crate::{
    cluster::{Cluster, Error, ErrorKind},
    hooks::{self, Hook, HookedPod, OnError, Unit},
    names,
    report::{Consistency, End, Failure, Reason, Step},
    settings::Settings,
    shard::Shard,
    snapshot::{ClaimId, Snapshot},
    text,
};
pub(super) use pod::Frozen;
use pod::{LATEST_FREEZE, Pre, THAW_AGAIN, Time, is_gone, post_of, pre_of, release, run_post, run_pre};

/// Which targets belong together, and which pods make them so.
#[derive(Default)]
pub(super) struct Plan {
    pods: Vec<Rc<HookedPod>>,
    units: Vec<Unit>,
    unit_of: HashMap<usize, usize>,
}

/// What to do when it is a target's turn.
pub(super) enum Turn<'a> {
    /// No pod with hooks mounts it.
    Alone,
    /// It is the first of a unit.
    First(&'a Unit),
    /// The first of its unit took it along.
    TakenAlong,
}

impl Plan {
    pub(super) fn new(pods: Vec<HookedPod>, targets: &[Target]) -> Self {
        let claims = targets
            .iter()
            .enumerate()
            .flat_map(|(at, target)| target.claims().into_iter().map(move |id| (id, at)));
        let claims: Vec<(Rc<ClaimId>, usize)> = claims.collect();
        let claims = claims.iter().map(|(id, at)| ((&*id.namespace, &*id.name), *at));
        let units = hooks::units(claims, &pods);
        let of_unit = |(at, unit): (usize, &Unit)| unit.claims.iter().map(|claim| (*claim, at)).collect();
        let unit_of = units.iter().enumerate().flat_map(|unit| -> Vec<_> { of_unit(unit) }).collect();
        Plan { pods: pods.into_iter().map(Rc::new).collect(), units, unit_of }
    }

    pub(super) fn turn(&self, target: usize) -> Turn<'_> {
        match self.unit_of.get(&target).and_then(|unit| self.units.get(*unit)) {
            None => Turn::Alone,
            Some(unit) if unit.claims.first() == Some(&target) => Turn::First(unit),
            Some(_) => Turn::TakenAlong,
        }
    }

    /// What hooks take at most besides all other waits.
    pub(super) fn longest(&self, settings: &Settings) -> Duration {
        let of_pod = |pod: &Rc<HookedPod>| match &pod.hooks {
            Ok(hooks) => {
                let pre = hooks.pre.as_ref().map_or(Duration::ZERO, |pre| pre.timeout);
                let end =
                    hooks.pre.as_ref().filter(|pre| pre.ready_line.is_some()).map_or(Duration::ZERO, |_| pre);
                let post = hooks.post.as_ref().map_or(Duration::ZERO, |post| post.timeout + THAW_AGAIN);
                pre + settings.freeze_timeout + (end + post + THAW_AGAIN) * 2
            }
            Err(_) => Duration::ZERO,
        };
        let one = self.pods.iter().map(of_pod).max().unwrap_or_default();
        let waves = self.units.len().div_ceil(settings.concurrency);
        one.saturating_mul(u32::try_from(waves).unwrap_or(u32::MAX))
    }

    /// Says what a dry run leaves out.
    pub(super) fn describe(&self) {
        for (at, claims) in self.units.iter().flat_map(|unit| &unit.pods) {
            let Some(pod) = self.pods.get(*at) else { continue };
            let claims = text::count(claims.len(), "claim");
            match &pod.hooks {
                Ok(hooks) => tracing::info!(
                    pod = pod.name,
                    namespace = pod.namespace,
                    pre = hooks.pre.as_ref().map(shown),
                    post = hooks.post.as_ref().map(shown),
                    "would run the hooks of pod {} for {claims}",
                    pod.name
                ),
                Err(problem) => tracing::error!(pod = pod.name, namespace = pod.namespace, "{problem}"),
            }
        }
    }
}

/// A hook without its arguments, which may hold a password.
fn shown(hook: &Hook) -> String {
    let program = hook.command.first().map_or("", String::as_str);
    text::foreign(&format!("{program} in container {}", hook.container))
}

/// Finds the pods with hooks: one list of pods for each namespace of the claims. Claims of a namespace whose pods
/// cannot be listed fail. Returns what is in the shard, which takes claims that pods hold together as if they were
/// the first of them: two runs that freeze one pod would thaw it for each other.
pub(super) async fn with_pods(
    cluster: &Cluster,
    shard: Shard,
    found: Vec<Choice>,
) -> (Vec<Choice>, Vec<HookedPod>) {
    let usable =
        |choice: &Choice| matches!(choice.found, Found::Usable(_)).then(|| choice.id.namespace.clone());
    let namespaces: BTreeSet<String> = found.iter().filter_map(usable).collect();
    let lists: Vec<_> = stream::iter(namespaces)
        .map(async |namespace| {
            let listed = cluster.pods(&namespace, |pod| hooks::of_pod(&namespace, pod)).await;
            (namespace, listed)
        })
        .buffered(NAMESPACES_AT_A_TIME)
        .collect()
        .await;
    let (mut pods, mut unread) = (Vec::new(), HashMap::new());
    for (namespace, listed) in lists {
        match listed {
            Ok(listed) => pods.extend(listed),
            Err(error) => drop(unread.insert(namespace, advised(error))),
        }
    }
    // The claims of a group have the position of the first of them.
    let mut group_at: HashMap<&ClaimId, usize> = HashMap::new();
    let at_of: Vec<usize> = found
        .iter()
        .enumerate()
        .map(|(at, choice)| choice.group.as_deref().map_or(at, |group| *group_at.entry(group).or_insert(at)))
        .collect();
    let sharded = |choice: &Choice| choice.group.as_deref().unwrap_or(&choice.id).clone();
    let claims = found.iter().zip(&at_of).map(|(Choice { id, .. }, at)| ((&*id.namespace, &*id.name), *at));
    let units = hooks::units(claims, &pods);
    let mut of_unit: HashMap<usize, bool> = HashMap::new();
    for unit in units {
        let ids = unit.claims.iter().filter_map(|at| found.get(*at)).map(sharded);
        let first = ids.min_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let holds = first.is_some_and(|first| shard.holds(&first));
        of_unit.extend(unit.claims.into_iter().map(|at| (at, holds)));
    }
    let is_held = |(choice, at): (&Choice, &usize)| {
        of_unit.get(at).copied().unwrap_or_else(|| shard.holds(&sharded(choice)))
    };
    let is_held: Vec<bool> = found.iter().zip(&at_of).map(is_held).collect();
    let held = found.into_iter().zip(is_held).filter(|(_, is_held)| *is_held).map(|(choice, _)| {
        let found = match (choice.found, unread.get(&choice.id.namespace)) {
            (Found::Usable(_), Some(failure)) => Found::Failed(failure.clone()),
            (found, _) => found,
        };
        Choice { found, ..choice }
    });
    (held.collect(), pods)
}

fn advised(error: Error) -> Failure {
    let is_forbidden = error.kind() == ErrorKind::Forbidden;
    let failure = Failure::from(error);
    match is_forbidden {
        true => failure.advising("the component hooks grants what SNAPSHOT_HOOKS=true needs"),
        false => failure,
    }
}

// --- A unit ----------------------------------------------------------------------------------------

/// Takes the snapshots of a unit, and tells `settle` of each of its targets, once, whether there is a new ready
/// one.
pub(super) async fn snapshot(
    run: &Run<'_>,
    targets: &[Target],
    plan: &Plan,
    unit: &Unit,
    settle: &dyn Fn(usize, Result<New, Failure>),
) {
    let claims = unit.claims.iter().filter_map(|at| Some((*at, targets.get(*at)?)));
    // What an earlier attempt of this Job made was made with hooks, or cannot be mended.
    let (over, fresh): (Vec<_>, Vec<_>) =
        claims.partition(|(_, target)| create::made_before(run, target).is_some());
    let members: Vec<Member> = fresh.into_iter().map(|(at, target)| Member::new(at, target)).collect();
    let position = |claim: &usize| {
        let at = unit.claims.get(*claim)?;
        members.iter().position(|member| member.at == *at)
    };
    let pods = unit.pods.iter().filter_map(|(pod, claims)| {
        let members: Vec<usize> = claims.iter().filter_map(position).collect();
        let pod = plan.pods.get(*pod)?;
        (!members.is_empty()).then(|| PodState::new(Rc::clone(pod), members))
    });
    let pods = pods.collect();
    let together = Together { run, members, pods, changed: Notify::new() };
    let over = over.into_iter().map(async |(at, target)| settle(at, create_and_wait(run, target).await));
    let fresh = (0..together.members.len()).map(|at| together.claim(at, settle));
    tokio::join!(join_all(over), together.freeze_and_thaw(), join_all(fresh));
}

/// The targets of a unit that get a new snapshot, and the pods that mount them.
struct Together<'a> {
    run: &'a Run<'a>,
    members: Vec<Member<'a>>,
    pods: Vec<PodState>,
    /// Something of a member or a pod changed.
    changed: Notify,
}

struct Member<'a> {
    /// Its position among all targets.
    at: usize,
    target: &'a Target,
    state: Cell<State>,
    /// Why the snapshot is not consistent, if that is known.
    spoiled: RefCell<Option<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its snapshot is still to be taken.
    Pending,
    Taken,
    /// There will be none.
    Over,
}

struct PodState {
    pod: Rc<HookedPod>,
    /// The positions of its members.
    members: Vec<usize>,
    pre: RefCell<Option<Pre>>,
    has_thaw_begun: Cell<bool>,
    /// What came of the post hook.
    thawed: RefCell<Option<Result<(), Failure>>>,
}

impl<'a> Member<'a> {
    fn new(at: usize, target: &'a Target) -> Self {
        Member { at, target, state: Cell::new(State::Pending), spoiled: RefCell::default() }
    }

    fn spoil(&self, why: String) {
        let target = self.target;
        let (claim, group) = target.fields();
        tracing::warn!(claim, group, "the snapshot will not be consistent: {why}");
        target.report.update(|report| report.consistency = Some(Consistency::Inconsistent(why.clone())));
        *self.spoiled.borrow_mut() = Some(why);
    }
}

impl PodState {
    fn new(pod: Rc<HookedPod>, members: Vec<usize>) -> Self {
        PodState {
            pod,
            members,
            pre: RefCell::default(),
            has_thaw_begun: Cell::new(false),
            thawed: RefCell::default(),
        }
    }
}

impl Together<'_> {
    fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until a condition holds.
    async fn until(&self, is_so: impl Fn() -> bool) {
        let mut changed = pin!(self.changed.notified());
        loop {
            changed.as_mut().enable();
            if is_so() {
                return;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }

    async fn pre_hooks_ended(&self) {
        self.until(|| self.pods.iter().all(|pod| pod.pre.borrow().is_some())).await;
    }

    fn pods_of(&self, member: usize) -> impl Iterator<Item = &PodState> {
        self.pods.iter().filter(move |pod| pod.members.contains(&member))
    }

    /// The hooks of all pods. A place is waited for before anything is frozen, and given back once all is thawed.
    async fn freeze_and_thaw(&self) {
        let run = self.run;
        let most = run.settings.concurrency * ACTIVE_PER_REQUEST;
        let number = u32::try_from(self.members.len().min(most)).unwrap_or(u32::MAX);
        let places = (run.freezing.acquire().await, run.active.acquire_many(number).await);
        for member in &self.members {
            member.target.report.update(|report| report.end = End::Unfinished(Step::Freezing));
        }
        let give_back = async {
            self.until(|| self.pods.iter().all(|pod| pod.thawed.borrow().is_some())).await;
            drop(places);
        };
        tokio::join!(join_all(self.pods.iter().map(|pod| self.pod(pod))), give_back);
    }

    /// The hooks of one pod.
    async fn pod(&self, state: &PodState) {
        let run = self.run;
        let pre = run_pre(run, &state.pod).await;
        let (holds, may_hold, may_run) = match &pre {
            Pre::Holds => (true, true, false),
            Pre::Failed { may_hold, may_run, .. } => (false, *may_hold, *may_run),
        };
        *state.pre.borrow_mut() = Some(pre);
        self.notify();
        let open = run.frozen.open_command(&state.pod);
        if holds {
            let holding = self.hold(state);
            match &open {
                None => holding.await,
                // Its end comes first: what is taken later does not count.
                Some(open) => tokio::select! {
                    biased;
                    _ = async { open.lock().await.ended().await } => self.spoil_all(state, || {
                        format!("the pre hook of pod {}, which is kept open, ended by itself", state.pod.name)
                    }),
                    () = holding => {}
                },
            }
        }
        state.has_thaw_begun.set(true);
        let mut may_run = may_run;
        let pre = pre_of(&state.pod);
        let mut not_released = None;
        if let (Some(open), Some(pre)) = (&open, pre) {
            if let Err(error) = release(&state.pod, open, pre.timeout).await {
                may_run &= error.kind() != ErrorKind::CommandFailed;
                if holds {
                    self.spoil_all(state, || error.to_string());
                }
                not_released = Some((pre, error));
            } else {
                may_run = false;
            }
        }
        let post = post_of(&state.pod).filter(|_| may_hold);
        let thawed = match (post, not_released) {
            (Some(post), _) => match run_post(run.cluster, &state.pod, post, Time::of(post)).await {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => self.went(state),
                Err(error) => not_thawed(&state.pod, post, &error),
            },
            (None, None) => Ok(()),
            (None, Some(_)) if is_gone(run.cluster, &state.pod).await => self.went(state),
            (None, Some((pre, error))) => not_thawed(&state.pod, pre, &error),
        };
        let went_well = thawed.is_ok();
        *state.thawed.borrow_mut() = Some(thawed);
        self.notify();
        if may_run && let Some(post) = post {
            let longest = pre_of(&state.pod).map_or(LATEST_FREEZE, |pre| pre.timeout);
            sleep(longest.min(LATEST_FREEZE)).await;
            if let Err(error) = run_post(run.cluster, &state.pod, post, Time::of(post)).await {
                tracing::debug!(pod = state.pod.name, "once more, in case the pre hook ended late: {error}");
            }
        }
        // Otherwise there is another try at the end of the run.
        if went_well {
            run.frozen.end(&state.pod);
        }
    }

    /// Waits until every snapshot of a pod's claims is taken, or there will be none, or it is too late.
    async fn hold(&self, state: &PodState) {
        self.pre_hooks_ended().await;
        let freeze_timeout = self.run.settings.freeze_timeout;
        let members = || self.members_of(state);
        let taken = self.until(|| members().all(|member| member.state.get() != State::Pending));
        if timeout(freeze_timeout, taken).await.is_err() {
            for member in members().filter(|member| member.state.get() == State::Pending) {
                member.spoil(format!(
                    "it was not taken within {} after the pre hooks (SNAPSHOT_FREEZE_TIMEOUT), and pod {} is thawed",
                    text::duration(freeze_timeout),
                    state.pod.name
                ));
            }
        }
    }

    fn members_of(&self, state: &PodState) -> impl Iterator<Item = &Member<'_>> {
        state.members.iter().filter_map(|at| self.members.get(*at))
    }

    fn spoil_all(&self, state: &PodState, why: impl Fn() -> String) {
        for member in self.members_of(state) {
            member.spoil(why());
        }
    }

    /// The pod is gone, and thawed with that.
    fn went(&self, state: &PodState) -> Result<(), Failure> {
        let pod = &state.pod.name;
        self.spoil_all(state, || {
            format!("pod {pod} is gone, and what it held went with it at an unknown time")
        });
        Ok(())
    }

    /// The way of one target, from the end of the pre hooks on.
    async fn claim(&self, at: usize, settle: &dyn Fn(usize, Result<New, Failure>)) {
        let Some(member) = self.members.get(at) else { return };
        let (run, target) = (self.run, member.target);
        self.pre_hooks_ended().await;
        let new = match self.allowed(at, member) {
            Ok(()) => create_now(run, target).await,
            Err(failure) => Err(failure),
        };
        let new = match new {
            Ok(new) => new,
            Err(failure) => {
                member.state.set(State::Over);
                self.notify();
                return settle(member.at, Err(failure));
            }
        };
        let (name, uid) = (new.name.clone(), new.uid.clone());
        let ready = async {
            let ready = await_ready(run, target, new, &|known| self.see(at, known)).await;
            if member.state.get() == State::Pending {
                member.state.set(State::Over);
                self.notify();
            }
            ready
        };
        let label = async {
            self.until(|| self.pods_of(at).all(|pod| pod.thawed.borrow().is_some())).await;
            let report = target.report.get();
            if report.consistency == Some(Consistency::Consistent) {
                label(run, target, &name, &uid).await;
            }
        };
        let (ready, ()) = tokio::join!(ready, label);
        let post = self.pods_of(at).find_map(|pod| pod.thawed.borrow().clone()?.err());
        settle(
            member.at,
            match (ready, post) {
                (Ok(_), Some(failure)) => Err(Failure {
                    message: format!(
                        "snapshot {name} of {} is ready, but {}; older snapshots stay",
                        target.what(),
                        failure.message
                    ),
                    ..failure
                }),
                (ready, _) => ready,
            },
        );
    }

    /// Whether a target may be snapshotted after what came of the pre hooks.
    fn allowed(&self, at: usize, member: &Member) -> Result<(), Failure> {
        let mut why = None;
        for pod in self.pods_of(at) {
            match &*pod.pre.borrow() {
                Some(Pre::Failed { failure, on_error: OnError::Fail, .. }) => return Err(failure.clone()),
                Some(Pre::Failed { failure, on_error: OnError::Continue, .. }) => {
                    why.get_or_insert_with(|| failure.message.clone());
                }
                Some(Pre::Holds) | None => {}
            }
        }
        if let Some(why) = why {
            member.spoil(why);
        }
        Ok(())
    }

    /// Looks at what is known of a new snapshot.
    fn see(&self, at: usize, known: &Snapshot) {
        let Some(member) = self.members.get(at) else { return };
        // A driver need not say when; what is ready was taken.
        let is_taken = known.taken_at.is_some() || known.ready;
        if member.state.get() != State::Pending || !is_taken {
            return;
        }
        member.state.set(State::Taken);
        if member.spoiled.borrow().is_none() {
            if self.pods_of(at).any(|pod| pod.has_thaw_begun.get()) {
                member.spoil("a pod was thawed before it was seen to be taken".to_owned());
            } else if self.pods_of(at).any(|pod| pre_of(&pod.pod).is_some()) {
                // A post hook alone holds nothing.
                let report = &member.target.report;
                report.update(|report| report.consistency = Some(Consistency::Consistent));
            }
        }
        let (claim, group) = member.target.fields();
        tracing::info!(claim, group, snapshot = known.name, "the snapshot is taken");
        self.notify();
    }
}

/// What it means that a hook did not thaw a pod.
fn not_thawed(pod: &HookedPod, hook: &Hook, error: &Error) -> Result<(), Failure> {
    let message = format!("{error}; pod {} may still be frozen", pod.name);
    match hook.on_error {
        OnError::Fail => Err(Failure { message, is_transient: false, reason: Reason::Hook }),
        OnError::Continue => {
            tracing::warn!(pod = pod.name, "{message}");
            Ok(())
        }
    }
}

/// Says on the snapshot that it is consistent.
async fn label(run: &Run<'_>, target: &Target, name: &str, uid: &str) {
    let label = (names::CONSISTENT_LABEL, "true");
    if let Err(error) = run.label(target, name, uid, label).await {
        let problem = advised(error).message;
        let (claim, group) = target.fields();
        tracing::warn!(
            claim,
            group,
            snapshot = name,
            "the snapshot is consistent, but its label is missing: {problem}"
        );
    }
}
