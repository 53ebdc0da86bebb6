//! How long a run may take, and how often one begins.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, JobSpec};

use super::{
    reading::{container_of, everything, with_settings},
    rendering::OVERLAYS,
    settings::{SettingsFile, parse, variables},
};

/// What each try is given for finding a node and pulling the image.
const START: Duration = Duration::from_secs(50);

/// How long a Job can take if every try takes as long as it can.
pub(crate) fn longest(job: &JobSpec, bound: Duration) -> Duration {
    let retries = job.backoff_limit.or(job.backoff_limit_per_index).expect("the number of tries is set");
    let retries = u32::try_from(retries).expect("it is not negative");
    let pauses: Duration = (0..retries).map(pause_before_retry).sum();
    (START + bound) * (retries + 1) + pauses
}

/// The Job controller's back-off: 10 s, doubled each time. Its documentation says that it ends at
/// six minutes, its source says ten: the longer one is taken.
fn pause_before_retry(retry: u32) -> Duration {
    Duration::from_secs(10).saturating_mul(2_u32.saturating_pow(retry)).min(Duration::from_secs(600))
}

pub(crate) fn deadline(job: &JobSpec) -> Duration {
    let seconds = job.active_deadline_seconds.expect("activeDeadlineSeconds is set");
    Duration::from_secs(u64::try_from(seconds).expect("activeDeadlineSeconds is not negative"))
}

#[test]
fn the_longest_run_with_all_its_retries_ends_before_the_deadline() {
    assert_eq!(
        [0, 1, 2, 5, 6, 60].map(|retry| pause_before_retry(retry).as_secs()),
        [10, 20, 40, 320, 600, 600]
    );
    for rendered in with_settings() {
        for job in rendered.jobs() {
            let given = variables(rendered, container_of(&job));
            let mut cases = vec![("as it is".to_owned(), given.clone())];
            // An example that someone switches on has to fit just as well.
            if let Some(file) = SettingsFile::read(&rendered.directory) {
                cases.extend(file.examples.iter().map(|example| {
                    let mut variables = file.with(example);
                    variables.insert("SNAPSHOT_RUN_ID".into(), given["SNAPSHOT_RUN_ID"].clone());
                    (example.0.clone(), variables)
                }));
            }
            for (case, variables) in cases {
                let settings = parse(&variables).unwrap_or_else(|problems| panic!("{case}: {problems}"));
                let (deadline, longest) = (deadline(&job), longest(&job, settings.lifetime()));
                assert!(longest <= deadline, "{}, {case}: {longest:?} > {deadline:?}", rendered.directory);
            }
        }
    }
}

/// Then a late one pushes none aside either: begun as late as it may be, it ends before the next is
/// too late to begin.
#[test]
fn an_hourly_run_takes_less_than_an_hour() {
    for rendered in everything() {
        for cron_job in rendered.all::<CronJob>() {
            let spec = cron_job.spec.expect("a CronJob has a specification");
            if spec.schedule == "@hourly" {
                let job = spec.job_template.spec.expect("a CronJob specifies its Jobs");
                assert!(deadline(&job) < Duration::from_secs(3600), "{}", rendered.directory);
            }
        }
    }
}

/// The settings say of a wait that it is the most that fits. So ten seconds a window more must not.
#[test]
fn the_longest_wait_that_a_settings_file_shows_is_the_longest_that_fits() {
    for rendered in OVERLAYS.iter() {
        let file = SettingsFile::read(&rendered.directory).expect("an overlay has settings");
        let example = file
            .examples
            .iter()
            .find(|(name, _)| name == "SNAPSHOT_READY_INTERVAL")
            .unwrap_or_else(|| panic!("{}: no example of a longer wait", rendered.directory));
        let settings = parse(&file.with(example)).expect("the example is accepted");
        let more = settings.lifetime() + Duration::from_secs(10) * settings.ready_attempts;
        for job in rendered.jobs() {
            assert!(longest(&job, more) > deadline(&job), "{}: {example:?}", rendered.directory);
        }
    }
}

#[test]
fn a_schedule_runs_one_job_at_a_time() {
    for rendered in everything() {
        for cron_job in rendered.all::<CronJob>() {
            let spec = cron_job.spec.expect("a CronJob has a specification");
            assert_eq!(spec.concurrency_policy.as_deref(), Some("Forbid"), "{}", rendered.directory);
            // Without it, a hundred missed starts stop a CronJob for good; below ten seconds it may
            // never start.
            let late = spec.starting_deadline_seconds.expect("startingDeadlineSeconds is set");
            assert!(late >= 10, "{}: {late}", rendered.directory);
        }
    }
}
