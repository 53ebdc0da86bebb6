//! The command `restore`: a new claim with the data of a snapshot. It changes nothing that exists,
//! and deletes nothing.
//!
//! Here is the order of things. Which snapshot it is is decided in `choose`, what the
//! new claim is in `plan`, what happens to it in `wait`, and what a person does then in `next`. A group is restored
//! in `groups`, by the same means.

mod choose;
mod groups;
mod next;
mod plan;
mod wait;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::{
    api::{Claim, NewClaim, StorageClass},
    cluster::{Cluster, ErrorKind, Listed, Scope},
    group::Group,
    names,
    report::{Failure, Reason, RestoreReport, Restored, Stop},
    settings::{Choice, RestoreSettings},
    snapshot::{ClaimId, Record},
    text,
    volume::Source,
    yaml,
};
use choose::Chosen;
use next::{Deletable, Done, Pair};
use plan::Plan;
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
    /// The name of the Job, or a random one: for people, and to find what was made after a lost answer.
    run: &'a str,
    /// The new claim.
    id: ClaimId,
    /// Shows what is waited for, or takes that away.
    waiting: &'a dyn Fn(Option<&str>),
}

/// The snapshot that a claim is made from, as far as it matters after that.
struct Origin {
    snapshot: String,
    /// The claim that it was taken of.
    claim: Option<String>,
    held: bool,
    /// The name of the VolumeGroupSnapshot that it is a member of: deleted is that, and not the member.
    group: Option<String>,
}

impl Origin {
    fn of(record: &Record) -> Self {
        Origin {
            snapshot: record.snapshot.name.clone(),
            claim: record.claim.clone(),
            held: record.snapshot.held,
            group: record.group.as_ref().map(|group| group.name.clone()),
        }
    }
}

/// A claim that is to be made.
struct Planned {
    claim: NewClaim,
    /// The StorageClass that it gets if it names none, if that is known.
    by_default: Option<String>,
    /// Whether its volume is made only when a pod uses it.
    waits: bool,
}

/// Restores once, for at most [`RestoreSettings::bound`], and until `stop` comes. `run` is the Job's
/// name; a claim that carries the Job's uid, and is what is wished, is waited for. `waiting` is told what
/// is waited for, and when that is over.
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
        stop = stop => RestoreReport::of_stop(stop, &settings.made()),
        () = sleep(settings.bound()) => RestoreReport::of_stop(Stop::OutOfTime, &settings.made()),
        outcome = async {
            match &settings.group {
                Some(group) => groups::steps(&restore, group).await,
                None => restore.steps().await,
            }
        } => RestoreReport { outcome, stopped: None },
    };
    waiting(None);
    report
}

impl Restore<'_> {
    /// The restore without its end.
    async fn steps(&self) -> Result<Restored, Failure> {
        if let Some((made, origin)) = self.made_before().await? {
            says!(self, info, "going on with claim {}, which this Job's earlier attempt made", self.id.name);
            return self.wait(&made, origin, false).await;
        }
        let (Chosen { record, warnings: of_choice }, others) = self.find().await?;
        let (Planned { claim, by_default, waits }, warnings, source) = self.plan(&record).await?;
        let of_claims = plan::earlier_claims(self.settings, &others, &record, &source);
        for warning in of_choice.iter().chain(&warnings).chain(&of_claims) {
            says!(self, warn, "{warning}");
        }
        self.announce(&record, &claim, by_default.as_deref());
        let made = self.create(&claim, self.settings.dry_run).await?;
        if self.settings.dry_run {
            let data = yaml::document(&claim.object());
            let said = format!("dry run: nothing was changed; claim {} could be made", self.id.name);
            return Ok(Restored { said, data, next: String::new() });
        }
        self.wait(&made, Origin::of(&record), waits).await
    }

    /// Plans the claim that is made from a snapshot, with warnings, and what is known of the claim that it was taken
    /// of.
    async fn plan(&self, record: &Record) -> Result<(Planned, Vec<String>, Source), Failure> {
        let source = self.source(record).await?;
        let Plan { claim, warnings } =
            plan::plan(self.settings, &self.id.namespace, self.run, record, &source)?;
        let by_default = match claim.storage_class {
            Some(_) => None,
            None => self.default_class(&claim).await?,
        };
        let class = claim.storage_class.as_deref().or(by_default.as_deref());
        let waits = self.waits_for_consumer(class, &source).await?;
        Ok((Planned { claim, by_default, waits }, warnings, source))
    }

    /// Says what is being made.
    fn announce(&self, record: &Record, claim: &NewClaim, by_default: Option<&str>) {
        let name = &record.snapshot.name;
        let dated = record.snapshot.time();
        says!(
            self,
            info,
            "{} claim {} from snapshot {name}{}, which is from {dated} ({} ago): {}, {}, {}, {}",
            if self.settings.dry_run { "would make" } else { "making" },
            self.id.name,
            record.claim.as_ref().map_or(String::new(), |claim| format!(" of claim {}", text::name(claim))),
            text::age(Timestamp::now().duration_since(dated)),
            claim.size,
            claim.access_modes.iter().map(|mode| text::name(mode)).collect::<Vec<_>>().join(" and "),
            text::name(&claim.volume_mode),
            match (&claim.storage_class, by_default) {
                (Some(class), _) => format!("StorageClass {}", text::name(class)),
                (None, Some(class)) => format!("the default StorageClass {}", text::name(class)),
                (None, None) => "the default StorageClass".to_owned(),
            },
        );
    }

    async fn create(&self, claim: &NewClaim, dry_run: bool) -> Result<Claim, Failure> {
        match self.cluster.create_claim(claim, dry_run).await {
            Ok(made) => Ok(made),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(self.taken("")),
            Err(error) if error.kind() == ErrorKind::Quota => {
                Err(Failure::from(error)
                    .advising("raise the ResourceQuota, or delete a claim that nobody needs"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The claim, if an earlier attempt of the same Job made it and it is what is wished.
    async fn made_before(&self) -> Result<Option<(Claim, Origin)>, Failure> {
        let claim = match self.cluster.claim(&self.id).await {
            Ok(claim) => claim,
            // Without the right to read it, making it tells.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Forbidden) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let of_this_job = self.settings.run_uid.is_some()
            && claim.metadata.labels.run_uid == self.settings.run_uid
            && !self.settings.dry_run;
        if !of_this_job {
            return Err(self.taken(""));
        }
        let name = plan::snapshot_of(&claim).map(str::to_owned);
        let mut snapshot = match &name {
            None => None,
            Some(name) => match self.cluster.snapshot(&self.id.namespace, name).await {
                Ok(object) => Some(Record::from(object)),
                // A run may have pruned it after the volume was made.
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            },
        };
        self.lend_from_groups(snapshot.as_mut_slice()).await?;
        match (plan::unlike(self.settings, &claim, snapshot.as_ref()), name) {
            (None, Some(name)) => {
                let origin = match &snapshot {
                    Some(record) => Origin::of(record),
                    None => Origin { snapshot: name, claim: None, held: true, group: None },
                };
                let of_claim = origin.claim.or_else(|| self.settings.claim.clone());
                Ok(Some((claim, Origin { claim: of_claim, ..origin })))
            }
            (why, _) => {
                let why = why.unwrap_or_else(|| "it is made from no snapshot".to_owned());
                Err(self.taken(&format!(
                    ". It carries the uid of this Job, but is not what is asked for now: {why}"
                )))
            }
        }
    }

    fn taken(&self, why: &str) -> Failure {
        let ClaimId { namespace, name } = &self.id;
        Failure {
            message: format!(
                "there is a claim {name} in namespace {namespace} already, and a restore never touches one; choose \
                 another name with --to or RESTORE_TO{why}"
            ),
            is_transient: false,
            reason: Reason::Other,
        }
    }

    /// The snapshot, and all that were considered.
    async fn find(&self) -> Result<(Chosen, Vec<Record>), Failure> {
        let namespace = &self.id.namespace;
        let records = match &self.settings.choice {
            Choice::Named(name) => match self.cluster.snapshot(namespace, name).await {
                Ok(object) => vec![Record::from(object)],
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(Failure {
                        message: format!(
                            "there is no snapshot {name} in namespace {namespace}; see volume-snapshotter list --all"
                        ),
                        is_transient: false,
                        reason: Reason::Other,
                    });
                }
                Err(error) => return Err(error.into()),
            },
            Choice::Latest | Choice::At(_) => {
                let scope = Scope::Namespace(namespace.clone());
                let mut records = self.cluster.records(&scope, "").await?;
                let wanted = &self.settings.claim;
                records.retain(|record| record.group.is_none() || record.claim == *wanted);
                self.lend_from_groups(&mut records).await?;
                records
            }
        };
        let chosen = choose::choose(records.clone(), self.settings, Timestamp::now())?;
        Ok((chosen, records))
    }

    /// Gives members of groups the schedule and the labels of their group, if these are asked for: they have none
    /// themselves.
    async fn lend_from_groups(&self, records: &mut [Record]) -> Result<(), Failure> {
        let is_asked_for = self.settings.schedule.is_some() || !self.settings.labels.is_empty();
        if !is_asked_for || records.iter().all(|record| record.group.is_none()) {
            return Ok(());
        }
        let mut groups: Vec<Group> = Vec::new();
        let scope = Scope::Namespace(self.id.namespace.clone());
        match self.cluster.groups(&scope, "", Listed::into(&mut groups, Some)).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::NotServed) => {
                says!(
                    self,
                    warn,
                    "members of groups are not considered, because their schedule is not known: {error}"
                );
            }
            Err(error) => return Err(error.into()),
        }
        for record in records {
            let of = |group: &&Group| record.group.as_ref().is_some_and(|of| of.uid == group.uid());
            if let Some(group) = groups.iter().find(of) {
                record.schedule.clone_from(&group.schedule);
                record.labels.clone_from(&group.labels);
            }
        }
        Ok(())
    }

    async fn source(&self, record: &Record) -> Result<Source, Failure> {
        let Some(name) = record.claim.clone() else { return Ok(Source::Gone) };
        // Whoever may make snapshots may write anything there.
        if !names::is_object_name(&name) {
            return Ok(Source::Unread(format!(
                "snapshot {} says that it was taken of claim {}, and no claim can be called that",
                record.snapshot.name,
                text::name(&name)
            )));
        }
        let id = ClaimId { namespace: self.id.namespace.clone(), name };
        match self.cluster.claim(&id).await {
            Ok(claim) => Ok(Source::There(Box::new(claim))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Source::Gone),
            Err(error) if error.kind() == ErrorKind::Forbidden => Ok(Source::Unread(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a volume of the class is made only when a pod uses the claim; `false` also where that
    /// cannot be known, for Events tell it later.
    async fn waits_for_consumer(&self, class: Option<&str>, source: &Source) -> Result<bool, Failure> {
        let Some(class) = class else { return Ok(false) };
        let missing = || {
            let of = match (source, &self.settings.storage_class) {
                (Source::There(claim), None) => format!(", which claim {} has,", claim.metadata.name),
                _ => String::new(),
            };
            Failure {
                message: format!(
                    "there is no StorageClass {}{of} in the cluster; choose one of kubectl get storageclass with \
                     --storage-class or RESTORE_STORAGE_CLASS, of the driver that made the snapshot",
                    text::name(class)
                ),
                is_transient: false,
                reason: Reason::Other,
            }
        };
        if !names::is_object_name(class) {
            return Err(missing());
        }
        match self.cluster.storage_class(class).await {
            Ok(found) => Ok(found.volume_binding_mode == "WaitForFirstConsumer"),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(missing()),
            Err(error) => {
                tracing::debug!("{error}");
                Ok(false)
            }
        }
    }

    /// The class that a claim without one gets, if that can be told; the API server does in a dry run,
    /// for it is what puts the class in.
    ///
    /// # Errors
    /// If it gets none: nothing would make a volume, and the claim would wait for ever.
    async fn default_class(&self, claim: &NewClaim) -> Result<Option<String>, Failure> {
        let tried = self.create(claim, true).await?;
        if let Some(class) = tried.spec.storage_class_name.filter(|class| !class.is_empty()) {
            return Ok(Some(class));
        }
        let there_are = match self.cluster.storage_classes().await {
            Ok(classes) => {
                // An API server can be told not to put a class in; the controllers do it later.
                if classes.iter().any(StorageClass::is_default) {
                    return Ok(None);
                }
                let names: Vec<_> = classes.iter().map(|class| text::name(&class.metadata.name)).collect();
                match names.is_empty() {
                    true => "; there is none in the cluster".to_owned(),
                    false => format!("; there are {}", names.join(", ")),
                }
            }
            Err(error) => {
                tracing::debug!("{error}");
                "; see kubectl get storageclass".to_owned()
            }
        };
        Err(Failure {
            message: format!(
                "no StorageClass is given, none is known of the claim, and none is the cluster's default, so claim {} \
                 would never get a volume; choose one with --storage-class or RESTORE_STORAGE_CLASS{there_are}",
                self.id.name
            ),
            is_transient: false,
            reason: Reason::Other,
        })
    }

    async fn wait(&self, made: &Claim, mut origin: Origin, waits: bool) -> Result<Restored, Failure> {
        let began = Instant::now();
        let ready = wait::wait(self, made, &origin.snapshot, waits).await?;
        let at_first_consumer = matches!(ready, Ready::AtFirstConsumer);
        if at_first_consumer && let Some(group) = &origin.group {
            origin.held = self.is_group_held(group).await;
        }
        let Origin { snapshot, claim: old, held, group } = &origin;
        let ClaimId { namespace, name } = &self.id;
        let data = format!("persistentvolumeclaim/{name}\n");
        let deletable = match group {
            Some(group) => Deletable { kind: "volumegroupsnapshot", name: group },
            None => Deletable { kind: "volumesnapshot", name: snapshot },
        };
        let said = match ready {
            Ready::Bound => format!(
                "claim {name} in namespace {namespace} is Bound after {} and has the data of snapshot {snapshot}",
                since(began)
            ),
            Ready::AtFirstConsumer => {
                let hold = match held {
                    true => String::new(),
                    false => format!(
                        ", and nothing may delete the snapshot until then: kubectl label {} {} -n {namespace} \
                         volume-snapshotter/hold=true",
                        deletable.kind, deletable.name
                    ),
                };
                format!(
                    "claim {name} in namespace {namespace} is made; its StorageClass waits for the first consumer, so \
                     its volume is made from snapshot {snapshot} when a pod uses it{hold}"
                )
            }
        };
        let pair = Pair { old: old.as_deref(), new: name, at_first_consumer };
        let done = Done { namespace, pairs: &[pair], deletable, held: *held };
        Ok(Restored { said, data, next: next::steps(&done, self.settings) })
    }

    /// Whether a VolumeGroupSnapshot is held. If that cannot be told, it is not for this program to say that a hold
    /// may be taken off again.
    async fn is_group_held(&self, name: &str) -> bool {
        match self.cluster.group(&self.id.namespace, name).await {
            Ok(group) => group.is_held(),
            Err(error) => {
                tracing::debug!("{error}");
                true
            }
        }
    }
}

/// How long ago something began, in words.
fn since(began: Instant) -> String {
    text::duration(Duration::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)))
}
