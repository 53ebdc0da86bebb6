//! The command `restore`: a new claim with the data of a snapshot. It changes nothing that exists,
//! and deletes nothing.
//!
//! Here is the order of things. Which snapshot it is is decided in `choose`, what the
//! new claim is in `plan`, and what happens to it in `wait`.

mod choose;
mod plan;
mod wait;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::{
    api::Claim,
    cluster::{Cause, Cluster, Scope},
    report::{self, Failure, Stop},
    settings::{Choice, RestoreSettings},
    snapshot::{ClaimId, Record},
    text, yaml,
};
use plan::{Plan, Source};
use wait::Ready;

/// Says something, once the line that says what is waited for is out of the way.
macro_rules! says {
    ($restore:expr, $level:ident, $($said:tt)+) => {{
        ($restore.waiting)(None);
        tracing::$level!(claim = $restore.id.name, $($said)+);
    }};
}
use says;

/// What every step of a restore has at hand.
struct Restore<'a> {
    cluster: &'a Cluster,
    settings: &'a RestoreSettings,
    /// Marks the claim that this restore makes, so that its next attempt goes on with it.
    run: &'a str,
    /// The new claim.
    id: ClaimId,
    /// Shows what is waited for, or takes that away.
    waiting: &'a dyn Fn(Option<&str>),
}

/// What a restore came to.
#[derive(Debug)]
pub struct RestoreReport {
    /// What is there now, or why not.
    pub outcome: Result<Restored, Failure>,
    /// What ended it before its time.
    pub stopped: Option<Stop>,
}

/// A restore that went well.
#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    /// In a sentence.
    pub said: String,
    /// What goes to standard output: the claim, or in a dry run its YAML.
    pub data: String,
}

impl RestoreReport {
    /// What the process exits with: as [`report::Report::exit_code`] has it.
    pub fn exit_code(&self) -> u8 {
        match (&self.stopped, &self.outcome) {
            (Some(Stop::Signal(number)), _) => 128 + number,
            (Some(Stop::OutOfTime), _) => report::EXIT_TRY_AGAIN,
            (None, Ok(_)) => report::EXIT_DONE,
            (None, Err(Failure { may_pass: true, .. })) => report::EXIT_TRY_AGAIN,
            (None, Err(_)) => report::EXIT_HOPELESS,
        }
    }

    /// The whole restore in one line.
    pub fn message(&self) -> &str {
        match &self.outcome {
            Ok(restored) => &restored.said,
            Err(failure) => &failure.message,
        }
    }

    /// A restore that came to nothing.
    pub fn of_trouble(trouble: Failure) -> Self {
        RestoreReport { outcome: Err(trouble), stopped: None }
    }

    /// A restore that was ended before it was done.
    pub fn of_stop(stop: Stop, to: &str) -> Self {
        let why = match stop {
            Stop::Signal(_) => "told to stop",
            Stop::OutOfTime => "the restore's time was over",
        };
        let message = format!("{why}; if claim {to} was made it stays, and may still become Bound");
        RestoreReport { outcome: Err(Failure { message, may_pass: true }), stopped: Some(stop) }
    }
}

/// Restores once, for at most [`RestoreSettings::bound`], and until `stop` comes. `run` is the
/// Kubernetes Job's name: a claim that it has made already is waited for. `waiting` is told what is
/// waited for, and when that is over.
pub async fn restore(
    cluster: &Cluster,
    settings: &RestoreSettings,
    run: &str,
    stop: impl Future<Output = Stop>,
    waiting: &dyn Fn(Option<&str>),
) -> RestoreReport {
    let id = ClaimId { namespace: cluster.namespace().to_owned(), name: settings.to.clone() };
    let restore = Restore { cluster, settings, run, id, waiting };
    let report = tokio::select! {
        biased;
        stop = stop => RestoreReport::of_stop(stop, &settings.to),
        () = sleep(settings.bound()) => RestoreReport::of_stop(Stop::OutOfTime, &settings.to),
        outcome = restore.steps() => RestoreReport { outcome, stopped: None },
    };
    waiting(None);
    report
}

impl Restore<'_> {
    /// The restore without its end.
    async fn steps(&self) -> Result<Restored, Failure> {
        if let Some(made) = self.made_before().await? {
            let snapshot =
                made.spec.data_source.as_ref().map(|source| source.name.clone()).unwrap_or_default();
            says!(self, info, "going on with claim {}, which this Job's earlier attempt made", self.id.name);
            return self.wait(&made, &snapshot, true, false).await;
        }
        let (record, others) = self.find().await?;
        let source = self.source(&record).await?;
        let Plan { claim, warnings } =
            plan::plan(self.settings, &self.id.namespace, self.run, &record, &source)?;
        for warning in warnings.iter().chain(&plan::earlier_claims(self.settings, &others, &record, &source))
        {
            says!(self, warn, "{warning}");
        }
        let class = claim.storage_class.as_deref();
        let mut waits = self.waits_for_consumer(class, &source).await?;
        let name = &record.snapshot.name;
        let dated = record.snapshot.time();
        says!(
            self,
            info,
            "{} claim {} from snapshot {name}{}, which is from {dated} ({} ago): {}, {}, {}, {}",
            if self.settings.dry_run { "would make" } else { "making" },
            self.id.name,
            record.claim.as_ref().map_or(String::new(), |claim| format!(" of claim {claim}")),
            text::age(Timestamp::now().duration_since(dated)),
            claim.size,
            claim.access_modes.join(" and "),
            claim.volume_mode,
            class.map_or("the default StorageClass".to_owned(), |class| format!("StorageClass {class}")),
        );
        let made = match self.cluster.create_claim(&claim, self.settings.dry_run).await {
            Ok(made) => made,
            Err(error) if error.cause() == Cause::AlreadyExists => return Err(self.taken()),
            Err(error) => return Err(error.into()),
        };
        if self.settings.dry_run {
            let data = yaml::document(&claim.object());
            let said = format!("dry run: nothing was changed; claim {} could be made", self.id.name);
            return Ok(Restored { said, data });
        }
        if class.is_none() {
            // The cluster has put its default in.
            waits = self
                .waits_for_consumer(made.spec.storage_class_name.as_deref(), &Source::Gone)
                .await
                .unwrap_or(false);
        }
        self.wait(&made, name, record.snapshot.held, waits).await
    }

    /// The claim, if an earlier attempt of the same Job made it.
    async fn made_before(&self) -> Result<Option<Claim>, Failure> {
        match self.cluster.claim(&self.id).await {
            Ok(claim)
                if self.settings.run_id.is_some()
                    && claim.metadata.labels.run.as_deref() == Some(self.run) =>
            {
                Ok(Some(claim))
            }
            Ok(_) => Err(self.taken()),
            // Without the right to read it, making it tells.
            Err(error) if matches!(error.cause(), Cause::NotFound | Cause::Forbidden) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn taken(&self) -> Failure {
        let ClaimId { namespace, name } = &self.id;
        Failure {
            message: format!(
                "there is a claim {name} in namespace {namespace} already, and a restore never touches one; choose \
                 another name with --to or RESTORE_TO"
            ),
            may_pass: false,
        }
    }

    /// The snapshot, and all that were considered.
    async fn find(&self) -> Result<(Record, Vec<Record>), Failure> {
        let namespace = &self.id.namespace;
        let records = match &self.settings.choice {
            Choice::Named(name) => match self.cluster.snapshot(namespace, name).await {
                Ok(object) => vec![Record::from(object)],
                Err(error) if error.cause() == Cause::NotFound => {
                    return Err(Failure {
                        message: format!(
                            "there is no snapshot {name} in namespace {namespace}; see volume-snapshotter list --all"
                        ),
                        may_pass: false,
                    });
                }
                Err(error) => return Err(error.into()),
            },
            Choice::Latest | Choice::At(_) => {
                let scope = Scope::Namespace(namespace.clone());
                self.cluster.records(&scope, "").await?
            }
        };
        let record = choose::choose(records.clone(), self.settings)?;
        Ok((record, records))
    }

    async fn source(&self, record: &Record) -> Result<Source, Failure> {
        let Some(name) = record.claim.clone() else { return Ok(Source::Gone) };
        let id = ClaimId { namespace: self.id.namespace.clone(), name };
        match self.cluster.claim(&id).await {
            Ok(claim) => Ok(Source::There(Box::new(claim))),
            Err(error) if error.cause() == Cause::NotFound => Ok(Source::Gone),
            Err(error) if error.cause() == Cause::Forbidden => Ok(Source::Unread(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a volume of the class is made only when a pod uses the claim; `false` also where that
    /// cannot be known, for Events tell it later.
    async fn waits_for_consumer(&self, class: Option<&str>, source: &Source) -> Result<bool, Failure> {
        let Some(class) = class else { return Ok(false) };
        match self.cluster.storage_class(class).await {
            Ok(found) => Ok(found.volume_binding_mode == "WaitForFirstConsumer"),
            Err(error) if error.cause() == Cause::NotFound => {
                let of = match (source, &self.settings.storage_class) {
                    (Source::There(claim), None) => format!(", which claim {} has,", claim.metadata.name),
                    _ => String::new(),
                };
                Err(Failure {
                    message: format!(
                        "there is no StorageClass {class}{of} in the cluster; choose one of kubectl get storageclass \
                         with --storage-class or RESTORE_STORAGE_CLASS, of the driver that made the snapshot"
                    ),
                    may_pass: false,
                })
            }
            Err(error) => {
                tracing::debug!("{error}");
                Ok(false)
            }
        }
    }

    async fn wait(&self, made: &Claim, snapshot: &str, held: bool, waits: bool) -> Result<Restored, Failure> {
        let began = Instant::now();
        let ready = wait::wait(self, made, snapshot, waits).await?;
        let ClaimId { namespace, name } = &self.id;
        let data = format!("persistentvolumeclaim/{name}\n");
        let said = match ready {
            Ready::Bound => format!(
                "claim {name} in namespace {namespace} is Bound after {} and has the data of snapshot {snapshot}",
                text::duration(Duration::from_millis(
                    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
                ))
            ),
            Ready::AtFirstConsumer => {
                let hold = match held {
                    true => String::new(),
                    false => format!(
                        ", and nothing may delete the snapshot until then: kubectl label volumesnapshot {snapshot} -n \
                         {namespace} volume-snapshotter/hold=true"
                    ),
                };
                format!(
                    "claim {name} in namespace {namespace} is made; its StorageClass waits for the first consumer, so \
                     its volume is made from snapshot {snapshot} when a pod uses it{hold}"
                )
            }
        };
        Ok(Restored { said, data })
    }
}
