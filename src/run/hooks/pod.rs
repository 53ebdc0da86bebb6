//! Freezes one pod and thaws it: its pre hook, its post hook, and which pods are frozen at any moment.
//!
//! A pod is in [`Frozen`] from before its pre hook is sent until it is thawed. What is left there when the run ends,
//! for whatever reason, is thawed with a time of its own.
//!
//! A pre hook with a line to wait for is kept open: it thaws when its input ends. Its connection is in [`Frozen`] too,
//! so that it outlives a run that is stopped, and is closed in any case when that is dropped.

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures::future::join_all;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::super::{Run, millis};
use super::advised;
use crate::{
    api::Pod,
    cluster::{Backoff, Cluster, Error, ErrorKind, OpenCommand, PodCommand},
    hooks::{Hook, HookedPod, OnError},
    report::{Failure, Reason, Stop},
    text,
};

/// How long a post hook is repeated besides the time that one try may take.
pub(super) const THAW_AGAIN: Duration = Duration::from_secs(30);

/// How often a post hook that exits with an error is run.
const THAW_TRIES: u32 = 3;

/// How long thawing may take after a signal, and each try of it. The manifests give a pod 10 s to end
/// (`terminationGracePeriodSeconds`).
const THAW_AT_STOP: Duration = Duration::from_secs(8);
const TRY_AT_STOP: Duration = Duration::from_millis(3500);

/// After a pre hook of which nobody knows how it ended, the post hook is run once more: the command may have gone
/// on, and frozen the pod after the first time.
pub(super) const LATEST_FREEZE: Duration = Duration::from_secs(30);
const LATEST_FREEZE_AT_STOP: Duration = Duration::from_secs(2);

pub(super) fn pre_of(pod: &HookedPod) -> Option<&Hook> {
    pod.hooks.as_ref().ok()?.pre.as_ref()
}

pub(super) fn post_of(pod: &HookedPod) -> Option<&Hook> {
    pod.hooks.as_ref().ok()?.post.as_ref()
}

// --- Which pods are frozen -------------------------------------------------------------------------

/// The pods whose pre hook was sent, and that were not thawed since.
#[derive(Default)]
pub(crate) struct Frozen(RefCell<Vec<FrozenPod>>);

struct FrozenPod {
    pod: Rc<HookedPod>,
    /// Whether its pre hook may not have frozen it yet.
    is_unclear: bool,
    /// Its pre hook, if that is kept open.
    open: Option<Open>,
}

/// A command that is kept open. Whoever waits for it locks it; when the run is stopped, that is given up.
type Open = Rc<Mutex<OpenCommand>>;

impl Frozen {
    fn begin(&self, pod: &Rc<HookedPod>) {
        self.0.borrow_mut().push(FrozenPod { pod: Rc::clone(pod), is_unclear: true, open: None });
    }

    fn change(&self, pod: &Rc<HookedPod>, change: impl Fn(&mut FrozenPod)) {
        for frozen in self.0.borrow_mut().iter_mut().filter(|frozen| Rc::ptr_eq(&frozen.pod, pod)) {
            change(frozen);
        }
    }

    fn is_clear(&self, pod: &Rc<HookedPod>) {
        self.change(pod, |frozen| frozen.is_unclear = false);
    }

    pub(super) fn end(&self, pod: &Rc<HookedPod>) {
        self.0.borrow_mut().retain(|frozen| !Rc::ptr_eq(&frozen.pod, pod));
    }

    /// The pre hook of a pod, if that is kept open.
    pub(super) fn open_command(&self, pod: &Rc<HookedPod>) -> Option<Open> {
        self.0.borrow().iter().find(|frozen| Rc::ptr_eq(&frozen.pod, pod))?.open.clone()
    }

    /// Thaws what the run leaves frozen.
    ///
    /// # Errors
    /// If that did not go well: which pods may still be frozen.
    pub(crate) async fn thaw(&self, cluster: &Cluster, stopped: Option<Stop>) -> Result<(), Failure> {
        let left = self.0.take();
        if left.is_empty() {
            return Ok(());
        }
        let is_signal = matches!(stopped, Some(Stop::Signal(_)));
        tracing::warn!("{} may be frozen: thawing before the run ends", text::count(left.len(), "pod"));
        let all = if is_signal { THAW_AT_STOP } else { Duration::MAX };
        let thaws = left.iter().map(async |frozen| {
            let pod = &frozen.pod;
            let why = match timeout(all, frozen.thaw(cluster, is_signal)).await {
                Ok(Ok(())) => return None,
                Ok(Err(why)) => why,
                Err(_) => format!("it was not thawed within {}", text::duration(all)),
            };
            Some(format!("pod {}/{} may still be frozen: {why}", pod.namespace, pod.name))
        });
        let left: Vec<String> = join_all(thaws).await.into_iter().flatten().collect();
        if left.is_empty() {
            return Ok(());
        }
        let message = left.join("; ");
        tracing::error!("{message}");
        // The next attempt would take the snapshots over, go well, and hide it.
        Err(Failure { message, is_transient: false, reason: Reason::Hook })
    }
}

impl FrozenPod {
    /// Thaws the pod, whatever it was that froze it. What it held is thawed too if it is gone.
    async fn thaw(&self, cluster: &Cluster, is_signal: bool) -> Result<(), String> {
        let released = match (&self.open, pre_of(&self.pod)) {
            (Some(open), Some(pre)) => {
                let within = if is_signal { TRY_AT_STOP.min(pre.timeout) } else { pre.timeout };
                release(&self.pod, open, within).await.map_err(|error| error.to_string())
            }
            _ => Err("the run ended while the pre hook was being started".to_owned()),
        };
        let Some(post) = post_of(&self.pod) else {
            return match released {
                Err(_) if is_gone(cluster, &self.pod).await => Ok(()),
                released => released,
            };
        };
        let time = match is_signal {
            true => Time { one: TRY_AT_STOP, all: THAW_AT_STOP },
            false => Time::of(post),
        };
        let mut thawed = run_post(cluster, &self.pod, post, time).await;
        if self.is_unclear && released.is_err() {
            sleep(LATEST_FREEZE_AT_STOP).await;
            thawed = run_post(cluster, &self.pod, post, time).await.or(thawed);
        }
        match thawed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

// --- Before the snapshots --------------------------------------------------------------------------

/// What came of a pre hook.
pub(super) enum Pre {
    /// It went well, or there is none.
    Holds,
    Failed {
        failure: Failure,
        on_error: OnError,
        /// Whether it may have frozen the pod.
        may_hold: bool,
        /// Whether it may still be running.
        may_run: bool,
    },
}

fn command<'a>(pod: &'a HookedPod, hook: &'a Hook, what: &'a str) -> PodCommand<'a> {
    PodCommand {
        namespace: &pod.namespace,
        pod: &pod.name,
        container: &hook.container,
        command: &hook.command,
        what,
        timeout: hook.timeout,
    }
}

/// Runs the pre hook of a pod, or starts it if it is kept open.
pub(super) async fn run_pre(run: &Run<'_>, pod: &Rc<HookedPod>) -> Pre {
    let hooks = match &pod.hooks {
        Ok(hooks) => hooks,
        Err(problem) => {
            return Pre::Failed {
                failure: Failure { message: problem.to_string(), is_transient: false, reason: Reason::Hook },
                on_error: OnError::Fail,
                may_hold: false,
                may_run: false,
            };
        }
    };
    let Some(pre) = &hooks.pre else { return Pre::Holds };
    // Before it is sent: it may be carried out without an answer.
    if hooks.post.is_some() || pre.ready_line.is_some() {
        run.frozen.begin(pod);
    }
    let began = Instant::now();
    let pre_hook = command(pod, pre, "the pre hook");
    let ran = match &pre.ready_line {
        None => run.cluster.exec(&pre_hook).await,
        Some(line) => open(run, pod, &pre_hook, line).await,
    };
    let Err(error) = ran else {
        run.frozen.is_clear(pod);
        tracing::info!(
            pod = pod.name,
            namespace = pod.namespace,
            container = pre.container,
            duration_ms = millis(began.elapsed()),
            "{}",
            if pre.ready_line.is_some() {
                "the pre hook is ready, and kept open"
            } else {
                "ran the pre hook"
            }
        );
        return Pre::Holds;
    };
    let may_run = matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Unavailable);
    // One that is to be kept open was started even if that cannot be done.
    let was_started = pre.ready_line.is_some() && error.kind() == ErrorKind::Invalid;
    let may_hold = may_run || was_started || error.kind() == ErrorKind::CommandFailed;
    if !may_run {
        run.frozen.is_clear(pod);
    }
    if !may_hold {
        run.frozen.end(pod);
    }
    Pre::Failed { failure: advised(error), on_error: pre.on_error, may_hold, may_run }
}

/// Starts a pre hook that is kept open, and waits for its line.
async fn open(run: &Run<'_>, pod: &Rc<HookedPod>, pre: &PodCommand<'_>, line: &str) -> Result<(), Error> {
    let end = Instant::now() + pre.timeout;
    let open = Rc::new(Mutex::new(run.cluster.exec_open(pre).await?));
    run.frozen.change(pod, |frozen| frozen.open = Some(Rc::clone(&open)));
    let left = end.saturating_duration_since(Instant::now());
    open.lock().await.until_says(line, left).await
}

// --- Afterwards ------------------------------------------------------------------------------------

/// How long a post hook may take: one try, and all of them.
#[derive(Clone, Copy)]
pub(super) struct Time {
    one: Duration,
    all: Duration,
}

impl Time {
    pub(super) fn of(hook: &Hook) -> Self {
        Time { one: hook.timeout, all: hook.timeout + THAW_AGAIN }
    }
}

/// Runs a post hook until it goes well. It takes no place that others could hold, and no part of their time.
pub(super) async fn run_post(
    cluster: &Cluster,
    pod: &HookedPod,
    post: &Hook,
    time: Time,
) -> Result<(), Error> {
    let began = Instant::now();
    let end = began + time.all;
    let mut backoff = Backoff::between_tries();
    let mut failures = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let one = post.timeout.min(time.one).min(left);
        let ran = cluster.exec(&PodCommand { timeout: one, ..command(pod, post, "the post hook") }).await;
        let Err(error) = ran else {
            tracing::info!(
                pod = pod.name,
                namespace = pod.namespace,
                container = post.container,
                duration_ms = millis(began.elapsed()),
                "ran the post hook"
            );
            return Ok(());
        };
        failures += u32::from(error.kind() == ErrorKind::CommandFailed);
        let is_hopeless =
            failures >= THAW_TRIES || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid);
        let pause = backoff.next(None);
        if is_hopeless || Instant::now() + pause >= end {
            return Err(error);
        }
        tracing::warn!(pod = pod.name, again_in_ms = millis(pause), "{error}");
        sleep(pause).await;
    }
}

/// Ends the input of a pre hook that is kept open, which thaws the pod.
pub(super) async fn release(
    pod: &HookedPod,
    open: &Mutex<OpenCommand>,
    within: Duration,
) -> Result<(), Error> {
    let began = Instant::now();
    open.lock().await.end_input(within).await?;
    tracing::info!(
        pod = pod.name,
        namespace = pod.namespace,
        duration_ms = millis(began.elapsed()),
        "ended the pre hook"
    );
    Ok(())
}

/// Whether a pod runs no more, and what it held went with it. Commands that went with their pod end badly too.
pub(super) async fn is_gone(cluster: &Cluster, pod: &HookedPod) -> bool {
    let runs =
        |other: Pod| (other.metadata.name == pod.name && other.status.phase == "Running").then_some(());
    cluster.pods(&pod.namespace, runs).await.is_ok_and(|running| running.is_empty())
}
