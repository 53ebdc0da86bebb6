//! What a test wants to become of a pod. `kubelet` carries it out.

use crate::others::Others;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

type Decision = Arc<dyn Fn(&Others, &Value) -> PodPlan + Send + Sync>;

/// What becomes of one pod.
#[derive(Debug, Clone)]
pub struct PodPlan {
    /// From when its claims are bound until it has a node.
    pub(crate) scheduled_after: Duration,
    /// From then until its containers run.
    pub(crate) started_after: Duration,
    /// How long its containers run; `None`: until the pod is deleted.
    pub(crate) runs_for: Option<Duration>,
    /// From its deletion until its containers have ended.
    pub(crate) stops_after: Duration,
    pub(crate) log: String,
    pub(crate) end: End,
}

/// How a pod ends.
#[derive(Clone)]
pub(crate) enum End {
    /// The containers end with this code, reason and termination message.
    Exits { code: i32, reason: &'static str, message: String },
    /// The kubelet ends it.
    Evicted { message: String },
    /// It gets no node.
    Unschedulable { message: String },
    /// Its containers are never started.
    Waits { reason: &'static str, message: String },
    /// A test says when it runs.
    Decided(Decision),
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            End::Exits { .. } => "Exits",
            End::Evicted { .. } => "Evicted",
            End::Unschedulable { .. } => "Unschedulable",
            End::Waits { .. } => "Waits",
            End::Decided(_) => "Decided",
        };
        f.write_str(name)
    }
}

impl PodPlan {
    fn new(end: End) -> PodPlan {
        PodPlan {
            scheduled_after: Duration::ZERO,
            started_after: Duration::ZERO,
            runs_for: Some(Duration::from_millis(5)),
            stops_after: Duration::from_millis(5),
            log: String::new(),
            end,
        }
    }

    /// It runs and succeeds, with a termination message.
    pub fn succeeds(message: &str) -> PodPlan {
        PodPlan::new(End::Exits { code: 0, reason: "Completed", message: message.to_owned() })
    }

    /// It runs and ends with an exit code, which is not 0, and a termination message.
    pub fn fails(code: i32, message: &str) -> PodPlan {
        PodPlan::new(End::Exits { code, reason: "Error", message: message.to_owned() })
    }

    /// It runs and is killed because it used more memory than its limit.
    pub fn out_of_memory() -> PodPlan {
        PodPlan::new(End::Exits { code: 137, reason: "OOMKilled", message: String::new() })
    }

    /// It runs and is evicted from its node.
    pub fn evicted(message: &str) -> PodPlan {
        PodPlan::new(End::Evicted { message: message.to_owned() })
    }

    /// It runs until it is deleted.
    pub fn runs() -> PodPlan {
        PodPlan { runs_for: None, ..PodPlan::succeeds("") }
    }

    /// No node fits; the message is the scheduler's, such as `0/1 nodes are available: 1 Insufficient memory.` Its claims
    /// that wait for a consumer wait on.
    pub fn unschedulable(message: &str) -> PodPlan {
        PodPlan::new(End::Unschedulable { message: message.to_owned() })
    }

    /// Its image cannot be pulled.
    pub fn image_missing(message: &str) -> PodPlan {
        PodPlan::new(End::Waits { reason: "ImagePullBackOff", message: message.to_owned() })
    }

    /// Its containers cannot be configured, as with a missing Secret, or an image that runs as root.
    pub fn misconfigured(message: &str) -> PodPlan {
        PodPlan::new(End::Waits { reason: "CreateContainerConfigError", message: message.to_owned() })
    }

    /// It runs, and what comes of it is decided then: the closure gets the pod, and may look at its volumes, or run a
    /// program. It may block. Of the plan that it returns, the times before the start do not count.
    pub fn decided(f: impl Fn(&Others, &Value) -> PodPlan + Send + Sync + 'static) -> PodPlan {
        PodPlan::new(End::Decided(Arc::new(f)))
    }

    /// Sets the time from when the claims are bound until it has a node. Default: none.
    #[must_use]
    pub fn scheduled_after(mut self, delay: Duration) -> PodPlan {
        self.scheduled_after = delay;
        self
    }

    /// Sets the time from its node to the start of its containers. Default: none.
    #[must_use]
    pub fn started_after(mut self, delay: Duration) -> PodPlan {
        self.started_after = delay;
        self
    }

    /// Sets how long its containers run. Default: 5 ms.
    #[must_use]
    pub fn running_for(mut self, time: Duration) -> PodPlan {
        self.runs_for = Some(time);
        self
    }

    /// Sets how long its containers take to end after the pod was deleted. Default: 5 ms.
    #[must_use]
    pub fn stopping_after(mut self, delay: Duration) -> PodPlan {
        self.stops_after = delay;
        self
    }

    /// Sets what its containers write to their log as soon as they run.
    #[must_use]
    pub fn logging(mut self, text: &str) -> PodPlan {
        self.log = text.to_owned();
        self
    }
}
