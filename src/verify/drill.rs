//! The steps of a drill: find the claims, choose a snapshot of each, make the Jobs, a few at a time, wait for their
//! verdicts, note them, and delete the Jobs.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    choose::{Asked, Choice, choose},
    job::{self, Drill},
    report::{ClaimVerdict, VerifyEnd, VerifyReport},
    template::Template,
    verdict::{Check, News, Seen, Verdict, claim_of},
};
use crate::{
    api::{Claim, Job, JobPod, StorageClass},
    cluster::{Backoff, Cluster, Error, ErrorKind, NewJob, Scope},
    names,
    report::{Failure, Reason, Stop},
    retention::{ClaimIdentity, is_annotated},
    settings::{ClaimChoice, VerifySettings},
    snapshot::{ClaimId, Record},
    text,
    volume::{self, Source, Wishes},
};

/// How often it is tried to note a verdict on a snapshot that others change meanwhile.
const NOTE_ATTEMPTS: usize = 5;

/// How long what cannot get better is waited for all the same: quotas are counted late, and freed by others.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it may take to delete Jobs after Ctrl-C.
const CLEANING_UP: Duration = Duration::from_secs(10);

/// What every step has at hand.
struct Run<'a> {
    cluster: &'a Cluster,
    settings: &'a VerifySettings,
    template: &'a Template,
    image: &'a str,
    /// The drill's Job, or a random name.
    id: &'a str,
    /// Value of the label by which the drill's Jobs are found.
    label: String,
    /// Whether the drill's Jobs belong to its own, which outlives this process.
    owner: Option<(String, String)>,
    progress: &'a Progress,
    waiting: &'a dyn Fn(Option<&str>),
    began: Instant,
}

/// What is to be reported, and what is to be cleaned up, filled in step by step.
#[derive(Default)]
struct Progress {
    claims: RefCell<Vec<ClaimVerdict>>,
    /// The Jobs that there are, and whether each may be deleted, by their uids.
    jobs: RefCell<BTreeMap<String, Standing>>,
}

/// A Job that is there.
#[derive(Clone, Debug)]
struct Standing {
    name: String,
    claim: String,
    may_be_deleted: bool,
}

/// A Job that is waited for.
struct Active {
    claim: String,
    record: Record,
    job: Job,
    since: Instant,
    /// When it was first said that it will never begin.
    hopeless_since: Option<Instant>,
    news: News,
    /// What was last said of it.
    said: String,
}

/// Verifies once, for at most [`VerifySettings::bound`], and until `stop` comes. `id` is the Job's name; `image` is that
/// of the pods. `waiting` is told what is waited for, and when that is over.
pub async fn verify(
    cluster: &Cluster,
    settings: &VerifySettings,
    template: &Template,
    image: &str,
    id: &str,
    stop: impl Future<Output = Stop>,
    waiting: &dyn Fn(Option<&str>),
) -> VerifyReport {
    let began = Instant::now();
    let progress = Progress::default();
    let of_job = settings.run.run_uid.clone().filter(|_| !settings.run.dry_run);
    let owner = match (&settings.run.run_id, &of_job) {
        (Some(name), Some(uid)) if cluster.is_in_own_namespace() => Some((name.clone(), uid.clone())),
        _ => None,
    };
    let label = of_job.unwrap_or_else(|| names::uuid(rand::random()));
    let run =
        Run { cluster, settings, template, image, id, label, owner, progress: &progress, waiting, began };
    tracing::info!(
        namespace = cluster.namespace(),
        schedule = settings.run.schedule,
        run = id,
        parallel = settings.parallel,
        dry_run = settings.run.dry_run,
        bound_s = settings.bound().as_secs(),
        "the drill begins"
    );
    let (stopped, trouble) = tokio::select! {
        biased;
        stop = stop => (Some(stop), None),
        () = sleep(settings.time_limit) => (Some(Stop::OutOfTime), None),
        trouble = run.steps() => (None, trouble.err()),
    };
    waiting(None);
    if tokio::time::timeout(CLEANING_UP, run.clean_up()).await.is_err() {
        tracing::warn!("not all Jobs of the drill could be deleted in time; they end and go by themselves");
    }
    let claims = progress.claims.take();
    VerifyReport { claims, trouble, stopped, dry_run: settings.run.dry_run, took: began.elapsed() }
}

impl Run<'_> {
    /// The drill without its end.
    async fn steps(&self) -> Result<(), Failure> {
        let scope = Scope::Namespace(self.cluster.namespace().to_owned());
        let schedule = &self.settings.run.schedule;
        let owned = format!("{}={schedule}", names::SCHEDULE_LABEL);
        let mut of_claims: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for record in self.cluster.records(&scope, &owned).await? {
            // Whoever may make snapshots may write anything there.
            let Some(claim) = record.claim.clone().filter(|claim| names::is_object_name(claim)) else {
                continue;
            };
            of_claims.entry(claim).or_default().push(record);
        }
        let claims = self.claims(&of_claims).await?;
        let attempted = match self.settings.run.run_uid {
            Some(_) if !self.settings.run.dry_run => self.cluster.drill_jobs(&self.label).await?,
            _ => Vec::new(),
        };
        let mut queue = self.queue(claims, of_claims);
        let mut active = Vec::new();
        self.take_over(&mut queue, attempted, &mut active).await?;
        let mut backoff = Backoff::between_reads();
        let mut classes = BTreeMap::new();
        loop {
            while active.len() < self.settings.parallel
                && let Some((claim, record, known)) = queue.pop_front()
            {
                match self.begin(&claim, &record, known, &mut classes).await {
                    Ok(Some(job)) => {
                        active.push(Active::new(claim, record, job));
                        backoff = Backoff::between_reads();
                    }
                    Ok(None) => {}
                    Err(failure) => self.end(&claim, VerifyEnd::Failed(failure), None),
                }
            }
            if active.is_empty() && queue.is_empty() {
                return Ok(());
            }
            sleep(backoff.next(None)).await;
            self.look(&mut active).await?;
        }
    }

    /// The claims that the settings choose, and what is known of each. In a pod nobody asks for claims: the schedule's
    /// snapshots name them. A person may read claims as a rule, and then they count.
    async fn claims(
        &self,
        of_claims: &BTreeMap<String, Vec<Record>>,
    ) -> Result<BTreeMap<String, Option<Box<Claim>>>, Failure> {
        let run = &self.settings.run;
        let is_person = !self.cluster.is_in_pod();
        let names = match &run.claims {
            ClaimChoice::Selector(selector) if is_person && (!selector.is_empty() || run.only_annotated) => {
                let scope = Scope::Namespace(self.cluster.namespace().to_owned());
                let keep = |claim: Claim| {
                    let is_chosen =
                        !run.only_annotated || is_annotated(&claim.metadata.annotations, &run.schedule);
                    is_chosen.then(|| (claim.metadata.name.clone(), Some(Box::new(claim))))
                };
                return Ok(self.cluster.claims(&scope, selector, keep).await?.into_iter().collect());
            }
            ClaimChoice::Names(names) => names.clone(),
            ClaimChoice::Selector(_) => of_claims.keys().cloned().collect(),
        };
        let mut claims = BTreeMap::new();
        let mut may_read = is_person;
        for name in names {
            let id = ClaimId { namespace: self.cluster.namespace().to_owned(), name: name.clone() };
            let claim = match may_read {
                true => match self.cluster.claim_if_permitted(&id).await {
                    Ok(claim) => Some(Box::new(claim)),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) if error.kind() == ErrorKind::Forbidden => {
                        tracing::debug!("{error}");
                        may_read = false;
                        None
                    }
                    Err(error) => return Err(error.into()),
                },
                false => None,
            };
            claims.insert(name, claim);
        }
        Ok(claims)
    }

    /// What is to be read, what was verified longest ago first, so that what this drill does not get to is what the next
    /// one begins with. All else is reported at once.
    fn queue(
        &self,
        claims: BTreeMap<String, Option<Box<Claim>>>,
        mut of_claims: BTreeMap<String, Vec<Record>>,
    ) -> VecDeque<(String, Record, Option<Box<Claim>>)> {
        let mut queue = Vec::new();
        for (claim, known) in claims {
            let records = of_claims.remove(&claim).unwrap_or_default();
            let last = records.iter().filter_map(|record| record.verification.verified).max();
            let asked = Asked {
                every: &self.settings.every,
                max_age: self.settings.max_age.as_ref(),
                claim: known.as_ref().map(|claim| ClaimIdentity {
                    uid: &claim.metadata.uid,
                    created: claim.metadata.creation_timestamp,
                }),
                now: self.cluster.now(),
            };
            let mut verdict = ClaimVerdict {
                claim: claim.clone(),
                namespace: self.cluster.namespace().to_owned(),
                claim_uid: known.as_ref().map(|claim| claim.metadata.uid.clone()),
                snapshot: None,
                end: VerifyEnd::Unfinished(false),
                remains: None,
            };
            match choose(&claim, records, asked) {
                Choice::Verify(record) => {
                    verdict.snapshot = Some(record.snapshot.name.clone());
                    verdict.claim_uid = verdict.claim_uid.or_else(|| record.snapshot.claim_uid.clone());
                    queue.push((last, claim, *record, known));
                }
                Choice::Recent(why) => {
                    tracing::info!(claim, "{why}");
                    verdict.end = VerifyEnd::Recent(why);
                }
                Choice::Failed(failure) => {
                    tracing::error!(claim, "{}", failure.message);
                    verdict.end = VerifyEnd::Failed(failure);
                }
            }
            self.progress.claims.borrow_mut().push(verdict);
        }
        queue.sort_by_key(|(last, ..)| *last);
        queue.into_iter().map(|(_, claim, record, known)| (claim, record, known)).collect()
    }

    /// Goes on with the Jobs of this drill's earlier attempts. One for another snapshot than the one that is chosen now
    /// is taken over as well: its verdict is about a snapshot that was the newest when the drill began.
    async fn take_over(
        &self,
        queue: &mut VecDeque<(String, Record, Option<Box<Claim>>)>,
        attempted: Vec<Job>,
        active: &mut Vec<Active>,
    ) -> Result<(), Failure> {
        for job in attempted {
            let (name, uid) = (job.metadata.name.clone(), job.metadata.uid.clone());
            let Some(claim) = job.metadata.annotations.claim.clone() else { continue };
            let is_named_so = name == names::drill_job_name(&self.label, &claim);
            if !is_named_so || job.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let annotations = &job.metadata.annotations;
            let record = match &annotations.snapshot {
                Some(snapshot) => match self.cluster.snapshot(self.cluster.namespace(), snapshot).await {
                    Ok(object) => Some(Record::from(object)),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => return Err(error.into()),
                },
                None => None,
            };
            let record = record.filter(|record| job::is_of(&job, &self.label, &claim, record));
            let at = queue.iter().position(|(queued, ..)| *queued == claim);
            match (record, at) {
                (Some(record), Some(at)) => {
                    queue.remove(at);
                    let snapshot = record.snapshot.name.as_str();
                    tracing::info!(
                        claim,
                        snapshot,
                        "going on with Job {name}, which this drill's earlier attempt made"
                    );
                    self.stand(&job, &claim, false);
                    self.update(&claim, |verdict| {
                        verdict.snapshot = Some(snapshot.to_owned());
                        verdict.end = VerifyEnd::Unfinished(true);
                    });
                    active.push(Active::new(claim, record, job));
                }
                // Its verdict was noted, or its snapshot is gone.
                _ => {
                    tracing::info!(
                        claim,
                        "Job {name} of this drill's earlier attempt is not needed any more"
                    );
                    self.stand(&job, &claim, true);
                    if let Err(error) = self.cluster.delete_job(self.cluster.namespace(), &name, &uid).await {
                        tracing::warn!("{error}");
                    } else {
                        self.progress.jobs.borrow_mut().remove(&uid);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the Job that reads a snapshot; `None` in a dry run.
    async fn begin(
        &self,
        claim: &str,
        record: &Record,
        known: Option<Box<Claim>>,
        classes: &mut BTreeMap<Option<String>, Result<(), Failure>>,
    ) -> Result<Option<Job>, Failure> {
        let source = known.map_or(Source::Gone, Source::There);
        let wishes = Wishes { storage_class: self.settings.storage_class.clone(), ..Wishes::default() };
        let volume =
            volume::plan(&wishes, record, &source, "; a person who may read the claim can verify it")?;
        let snapshot = record.snapshot.name.as_str();
        if !volume.assumed.is_empty() {
            let what: Vec<_> =
                volume.assumed.iter().filter_map(|assumed| assumed.split(" (").next()).collect();
            tracing::warn!(
                claim,
                snapshot,
                "nothing says what the claim's volume is, so assuming {}",
                what.join(", ")
            );
        }
        if !self.settings.allow_retain {
            let class = volume.storage_class.clone();
            let judged = match classes.get(&class) {
                Some(judged) => judged.clone(),
                None => {
                    let judged = self.does_not_retain(class.as_deref()).await;
                    classes.insert(class, judged.clone());
                    judged
                }
            };
            judged?;
        }
        let drill = Drill {
            namespace: self.cluster.namespace(),
            label: &self.label,
            run: self.id,
            owner: self.owner.as_ref().map(|(name, uid)| (name.as_str(), uid.as_str())),
            image: self.image,
            command: self.settings.command.as_deref(),
            timeout: self.settings.timeout.as_secs(),
            template: self.template,
        };
        let new = job::job(&drill, claim, record, &volume);
        let dated = record.snapshot.time();
        let age = text::age(self.cluster.now().duration_since(dated));
        let dry_run = self.settings.run.dry_run;
        let job = self.create(&new, claim, record).await?;
        if dry_run {
            let what = format!("would read {snapshot}, which is {age} old, from a volume of {}", volume.size);
            tracing::info!(claim, snapshot, "{what}");
            self.end(claim, VerifyEnd::WouldVerify(what), None);
            return Ok(None);
        }
        tracing::info!(
            claim,
            snapshot,
            "made Job {}, which reads {snapshot}, {age} old, from a volume of {}{}",
            new.name,
            volume.size,
            volume
                .storage_class
                .as_ref()
                .map_or(String::new(), |class| format!(" of class {}", text::name(class)))
        );
        self.stand(&job, claim, true);
        self.update(claim, |verdict| verdict.end = VerifyEnd::Unfinished(true));
        Ok(Some(job))
    }

    async fn create(&self, new: &NewJob, claim: &str, record: &Record) -> Result<Job, Failure> {
        let is_own = |found: &Job| job::is_of(found, &self.label, claim, record);
        match self.cluster.create_job(new, self.settings.run.dry_run, is_own).await {
            Ok(job) if is_own(&job) => Ok(job),
            Ok(job) => {
                // Without its labels nobody would find it again.
                let (namespace, name, uid) =
                    (self.cluster.namespace(), &job.metadata.name, &job.metadata.uid);
                if !self.settings.run.dry_run
                    && let Err(error) = self.cluster.delete_job(namespace, name, uid).await
                {
                    tracing::warn!("{error}");
                }
                Err(Failure {
                    message: format!(
                        "admission took labels or annotations of Job {name} away, by which the drill knows it; see the \
                         cluster's admission webhooks and policies"
                    ),
                    is_transient: false,
                    reason: Reason::Refused,
                })
            }
            // An attempt before this one made it after it was listed, or it is being deleted.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                match self.cluster.job(self.cluster.namespace(), &new.name).await {
                    Ok(job) if is_own(&job) => Ok(job),
                    Ok(_) => Err(Failure {
                        message: format!(
                            "there is a Job {} already, for another snapshot, or being deleted; the next attempt makes \
                             another",
                            new.name
                        ),
                        is_transient: true,
                        reason: Reason::Disturbed,
                    }),
                    Err(_) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the volumes of a class go with their claims; `None` is the default class.
    ///
    /// # Errors
    /// If they stay, or if there is no such class. Where classes may not be read, it is said and gone on.
    async fn does_not_retain(&self, class: Option<&str>) -> Result<(), Failure> {
        let read = match class {
            Some(name) => self.cluster.storage_class(name).await,
            None => match self.cluster.storage_classes().await {
                Ok(classes) => match classes.into_iter().find(StorageClass::is_default) {
                    Some(class) => Ok(class),
                    // An API server can be told to put in a class in another way.
                    None => return Ok(()),
                },
                Err(error) => Err(error),
            },
        };
        match read {
            Ok(class) if class.reclaim_policy == "Retain" => {
                let name = text::name(&class.metadata.name).into_owned();
                Err(Failure {
                    message: format!(
                        "StorageClass {name} keeps the volumes of deleted claims (reclaimPolicy: Retain), so each drill \
                         would leave one; name a class that deletes them with VERIFY_STORAGE_CLASS, or set \
                         VERIFY_ALLOW_RETAIN=true and delete them yourself"
                    ),
                    is_transient: false,
                    reason: Reason::Refused,
                })
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure {
                message: format!(
                    "StorageClass {} of the snapshot's claim is gone; name another of the same driver with \
                     VERIFY_STORAGE_CLASS",
                    text::name(class.unwrap_or_default())
                ),
                is_transient: false,
                reason: Reason::Missing,
            }),
            Err(error) => {
                tracing::info!(
                    "whether the drill's volumes are deleted with their claims is not known ({error}); with reclaimPolicy: \
                     Retain they would stay"
                );
                Ok(())
            }
        }
    }

    /// Looks at all Jobs that are waited for, and settles those that have a verdict.
    async fn look(&self, active: &mut Vec<Active>) -> Result<(), Failure> {
        let (jobs, pods) = match self.jobs_and_pods().await {
            Ok(read) => read,
            Err(error) if error.is_transient() => {
                tracing::warn!("{error}");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut waited = Vec::new();
        for mut one in std::mem::take(active) {
            match self.look_at(&mut one, &jobs, &pods).await {
                Some((verdict, may_be_deleted)) => self.settle(one, verdict, may_be_deleted).await,
                None => waited.push(one),
            }
        }
        if let Some(first) = waited.first() {
            (self.waiting)(Some(&format!(
                "{}: {} ({})",
                first.claim,
                first.said,
                text::duration(Duration::from_secs(first.since.elapsed().as_secs()))
            )));
        }
        *active = waited;
        Ok(())
    }

    async fn jobs_and_pods(&self) -> Result<(Vec<Job>, Vec<JobPod>), Error> {
        // In this order: a Job that is complete in the first list has its pod in the second.
        let jobs = self.cluster.drill_jobs(&self.label).await?;
        let pods = self.cluster.drill_pods(&self.label).await?;
        Ok((jobs, pods))
    }

    /// The verdict on one Job, if there is one, and whether the Job may be deleted now.
    async fn look_at(&self, one: &mut Active, jobs: &[Job], pods: &[JobPod]) -> Option<(Verdict, bool)> {
        let uid = one.job.metadata.uid.as_str();
        let failed = |message: String, is_transient, reason| {
            Some((Verdict::Failed(Failure { message, is_transient, reason }), true))
        };
        let Some(job) = jobs.iter().find(|job| job.metadata.uid == uid) else {
            self.progress.jobs.borrow_mut().remove(uid);
            return failed("somebody deleted its Job".to_owned(), true, Reason::Disturbed);
        };
        let is_of_job = |pod: &&JobPod| {
            let labels = &pod.metadata.labels;
            let uid_of = |key: &str| labels.get(key).map(String::as_str);
            // The second is what clusters before 1.27 have.
            uid_of("batch.kubernetes.io/controller-uid").or_else(|| uid_of("controller-uid")) == Some(uid)
        };
        let seen = Seen { job, pod: pods.iter().find(is_of_job) };
        let may_be_deleted = seen.may_be_deleted();
        if let Some(standing) = self.progress.jobs.borrow_mut().get_mut(uid) {
            standing.may_be_deleted = may_be_deleted;
        }
        if job.metadata.deletion_timestamp.is_some() {
            return failed("somebody deleted its Job".to_owned(), true, Reason::Disturbed);
        }
        let check =
            Check { is_users: self.settings.command.is_some(), allow_empty: self.settings.allow_empty };
        let verdict = seen.verdict(check);
        // Events go after an hour, so it is heard in time that the volume is a new one.
        if !one.news.is_provisioned {
            self.hear(one, seen).await;
        }
        if let Some(Verdict::Verified(_)) = verdict
            && !one.news.is_provisioned
        {
            let message = "a volume was read, but no Event says that it was made from the snapshot: it may be one that was \
                           there before and was free (kubectl get pv), or Events are not to be had"
                .to_owned();
            return failed(message, true, Reason::Other);
        }
        if let Some(verdict) = verdict {
            return Some((verdict, may_be_deleted));
        }
        let awaited = seen.awaited(&one.news);
        if awaited != one.said {
            tracing::info!(claim = one.claim, snapshot = one.record.snapshot.name, "{awaited}");
            one.said.clone_from(&awaited);
        }
        let hopeless = one.news.hopeless.as_ref().filter(|_| !seen.has_begun());
        one.hopeless_since = hopeless.and(one.hopeless_since.or(Some(Instant::now())));
        if let (Some(failure), Some(since)) = (hopeless, one.hopeless_since)
            && (!failure.is_transient || since.elapsed() >= PATIENCE)
        {
            // Nothing is provisioned where that is so.
            return Some((Verdict::Failed(failure.clone()), true));
        }
        if one.since.elapsed() >= self.settings.timeout {
            let message = format!(
                "it was not read within {} (VERIFY_TIMEOUT): {awaited}",
                text::duration(self.settings.timeout)
            );
            let verdict = Verdict::Failed(Failure { message, is_transient: true, reason: Reason::TimeLimit });
            return Some((verdict, may_be_deleted));
        }
        None
    }

    /// Reads the Events that say why something does not go on, or that a volume was made.
    async fn hear(&self, one: &mut Active, seen: Seen<'_>) {
        let mut news = News { is_provisioned: one.news.is_provisioned, ..News::default() };
        let of = async |kind: &str, name: &str| match self.cluster.events_of(kind, name).await {
            Ok(events) => events,
            Err(error) => {
                tracing::debug!("{error}");
                Vec::new()
            }
        };
        match seen.pod {
            None => news.hear(&of("Job", &seen.job.metadata.name).await),
            Some(pod) => {
                if !seen.has_begun() {
                    news.hear(&of("Pod", &pod.metadata.name).await);
                }
                news.hear_of_claim(&of("PersistentVolumeClaim", &claim_of(pod)).await);
            }
        }
        one.news = news;
    }

    /// Notes a verdict on the snapshot, and deletes the Job. In this order: whoever kills the drill in between has its next
    /// attempt find the Job and note the verdict again.
    async fn settle(&self, one: Active, verdict: Verdict, may_be_deleted: bool) {
        let Active { claim, record, job, .. } = one;
        let snapshot = record.snapshot.name.as_str();
        let now = self.cluster.now();
        let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let about = |kind: &str, why: String, reason| {
            (
                format!("{kind}: {why}"),
                VerifyEnd::Failed(Failure {
                    message: format!("snapshot {snapshot} is {kind}: {why}"),
                    is_transient: false,
                    reason,
                }),
            )
        };
        // Whether the snapshot was found to be bad, so that an earlier verification holds no more.
        let is_bad = matches!(verdict, Verdict::Damaged(_) | Verdict::Empty(_));
        let (why, end) = match verdict {
            Verdict::Verified(found) => (None, VerifyEnd::Verified(found)),
            Verdict::Damaged(why) => {
                let (why, end) = about("damaged", why, Reason::Damaged);
                (Some(why), end)
            }
            Verdict::Empty(why) => {
                let (why, end) = about("empty", why, Reason::Damaged);
                (Some(why), end)
            }
            Verdict::Denied(why) => {
                let (why, end) = about("not readable for the pod", why, Reason::Forbidden);
                (Some(why), end)
            }
            Verdict::Failed(failure) => {
                let why = format!("not read: {}", failure.message);
                let message = format!("snapshot {snapshot} is not verified: {}", failure.message);
                (Some(why), VerifyEnd::Failed(Failure { message, ..failure }))
            }
        };
        let verified = match &end {
            VerifyEnd::Verified(found) => Some(format!("{time} {found}")),
            _ => None,
        };
        let failed = why.map(|why| format!("{time} {why}"));
        let mut notes = vec![(names::VERIFY_FAILED_ANNOTATION, failed.as_deref())];
        if verified.is_some() || is_bad {
            notes.push((names::VERIFIED_ANNOTATION, verified.as_deref()));
        }
        let (end, not_noted) = match self.note(&record, &notes).await {
            Ok(()) => (end, None),
            // Of which data the verdict is nobody knows then.
            Err(failure) if failure.reason == Reason::Disturbed => match end {
                VerifyEnd::Verified(_) => (VerifyEnd::Failed(failure), None),
                end => (end, Some(failure.message)),
            },
            Err(failure) => {
                (end, Some(format!("that could not be noted on the snapshot: {}", failure.message)))
            }
        };
        let uid = job.metadata.uid.clone();
        let remains = match may_be_deleted {
            true => {
                self.stand(&job, &claim, true);
                match self.cluster.delete_job(self.cluster.namespace(), &job.metadata.name, &uid).await {
                    Ok(()) => {
                        self.progress.jobs.borrow_mut().remove(&uid);
                        None
                    }
                    Err(error) => Some(format!("its Job stays until it goes by itself: {error}")),
                }
            }
            false => {
                self.progress.jobs.borrow_mut().remove(&uid);
                tracing::warn!(
                    claim,
                    "Job {} is left to its own deadline: its volume may be being made, and would stay for ever without its \
                     claim",
                    job.metadata.name
                );
                None
            }
        };
        let remains = match (not_noted, remains) {
            (Some(one), Some(other)) => Some(format!("{one}; {other}")),
            (one, other) => one.or(other),
        };
        self.end(&claim, end, remains);
    }

    /// Notes a verdict on the snapshot that was read: on the same object, whatever others changed of it meanwhile.
    async fn note(&self, record: &Record, notes: &[(&'static str, Option<&str>)]) -> Result<(), Failure> {
        let (name, uid) = (&record.snapshot.name, &record.snapshot.uid);
        let disturbed = |what: &str| Failure {
            message: format!("snapshot {name} was {what} while it was being verified"),
            is_transient: true,
            reason: Reason::Disturbed,
        };
        let mut backoff = Backoff::between_reads();
        let mut attempt = 1;
        loop {
            let read = match self.cluster.snapshot(self.cluster.namespace(), name).await {
                Ok(read) if read.metadata.uid == *uid => read,
                Ok(_) => return Err(disturbed("replaced")),
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(disturbed("deleted")),
                Err(error) => return Err(error.into()),
            };
            match self.cluster.note_on_snapshot(&read, notes).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Conflict && attempt < NOTE_ATTEMPTS => attempt += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(disturbed("deleted")),
                Err(error) => return Err(error.into()),
            }
            sleep(backoff.next(None)).await;
        }
    }

    /// Deletes what the drill leaves, unless its next attempt goes on with it: in a pod the Jobs belong to the drill's own
    /// Job, and go with that.
    async fn clean_up(&self) {
        if self.owner.is_some() {
            return;
        }
        for (uid, Standing { name, claim, may_be_deleted }) in self.progress.jobs.take() {
            if !may_be_deleted {
                tracing::warn!(
                    claim,
                    "Job {name} is left to its own deadline: its volume may be being made, and would stay for ever without \
                     its claim"
                );
            } else if let Err(error) = self.cluster.delete_job(self.cluster.namespace(), &name, &uid).await {
                tracing::warn!(claim, "Job {name} stays until it goes by itself: {error}");
            }
        }
    }

    fn stand(&self, job: &Job, claim: &str, may_be_deleted: bool) {
        let standing = Standing { name: job.metadata.name.clone(), claim: claim.to_owned(), may_be_deleted };
        self.progress.jobs.borrow_mut().insert(job.metadata.uid.clone(), standing);
    }

    fn update(&self, claim: &str, change: impl FnOnce(&mut ClaimVerdict)) {
        if let Some(verdict) = self.progress.claims.borrow_mut().iter_mut().find(|one| one.claim == claim) {
            change(verdict);
        }
    }

    /// Reports how it ended for a claim.
    fn end(&self, claim: &str, end: VerifyEnd, remains: Option<String>) {
        (self.waiting)(None);
        self.update(claim, |verdict| {
            verdict.end = end;
            verdict.remains = remains;
            let line = verdict.line();
            match (&verdict.end, &verdict.remains) {
                (VerifyEnd::Failed(_), _) => tracing::error!(claim, "{line}"),
                (_, Some(_)) => tracing::warn!(claim, "{line}"),
                (VerifyEnd::WouldVerify(_), None) => {}
                (_, None) => tracing::info!(claim, "{line}"),
            }
        });
        tracing::debug!(claim, "after {}", text::duration(self.began.elapsed()));
    }
}

impl Active {
    fn new(claim: String, record: Record, job: Job) -> Self {
        Active {
            claim,
            record,
            job,
            since: Instant::now(),
            hopeless_since: None,
            news: News::default(),
            said: String::new(),
        }
    }
}
