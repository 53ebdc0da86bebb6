//! Wires the command `verify`.

use super::{Stopping, Unbegun, tell_alone, with_cluster};
use crate::{
    api::Container,
    cluster::{self, Access, Cluster, Scope},
    command::{ClusterFlags, VerifyCommand},
    names, notify, process,
    report::{EXIT_PERMANENT, Failure, Reason},
    settings::{self, VerifySettings},
    verify::{self, Template, VerifyReport},
};

/// How many requests of a drill may be in flight: it makes one after the other.
const ONE_AT_A_TIME: usize = 1;

pub(super) fn verify_once(command: VerifyCommand) -> u8 {
    let VerifyCommand { flags, cluster: ClusterFlags { kubeconfig, context, user } } = command;
    let settings = match VerifySettings::parse(std::env::vars_os(), flags) {
        Ok(settings) => settings,
        Err((problems, fallback)) => {
            process::start_plain_log(fallback.log_format, settings::default_filter());
            tracing::error!(exit = EXIT_PERMANENT, "{problems}");
            process::leave_message(&problems.to_string(), &fallback.termination_log);
            return EXIT_PERMANENT;
        }
    };
    let run = &settings.run;
    process::start_plain_log(run.log_format, run.log_filter.clone());
    let access = Access {
        namespace: run.namespace.as_deref(),
        kubeconfig: kubeconfig.as_deref(),
        context: context.as_deref(),
        impersonate: user.as_deref(),
        concurrency: ONE_AT_A_TIME,
        budget: cluster::RETRY_BUDGET,
    };
    let id = run.run_id.clone().unwrap_or_else(|| names::drill_id(rand::random()));
    let waiting = process::waiting_line(run.log_format);
    // First what Kubernetes reads, then what people are told.
    let publish = async |report: VerifyReport, cluster: Option<&Cluster>, stop: Stopping<'_>| {
        process::publish_verify(&report, &settings.run.termination_log);
        notify::tell_of_drill(&report, &settings, cluster, &id, stop).await;
        report.exit_code()
    };
    let work = async |cluster: Cluster, mut stop: Stopping<'_>| {
        let report = match prepare(&cluster, &settings).await {
            Ok((template, image)) => {
                let drill =
                    verify::verify(&cluster, &settings, &template, &image, &id, stop.as_mut(), &waiting);
                Box::pin(drill).await
            }
            Err(failure) => VerifyReport::of_trouble(failure),
        };
        publish(report, Some(&cluster), stop).await
    };
    let report = match with_cluster(access, work) {
        Ok(exit) => return exit,
        Err(Unbegun::Stopped(stop)) => VerifyReport::of_stop(stop),
        Err(Unbegun::Trouble(failure)) => VerifyReport::of_trouble(failure),
    };
    let exit = report.exit_code();
    tell_alone(async |stop| {
        publish(report, None, stop).await;
    });
    exit
}

/// What users add to the pods, and the pods' image.
async fn prepare(cluster: &Cluster, settings: &VerifySettings) -> Result<(Template, String), Failure> {
    let permanent = |message: String| Failure { message, is_transient: false, reason: Reason::Other };
    let template = match &settings.pod_template {
        None => Template::default(),
        Some(path) => {
            let said =
                |problem: String| permanent(format!("VERIFY_POD_TEMPLATE: {}: {problem}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| said(error.to_string()))?;
            Template::parse(&text).map_err(said)?
        }
    };
    let image = match &settings.image {
        Some(image) => image.clone(),
        None => own_image(cluster, settings).await?.ok_or_else(|| {
            permanent(
                "which image is to read the volumes is not known: neither a pod of the drill's Job nor a CronJob of \
                 volume-snapshotter tells; name it with --image or VERIFY_IMAGE"
                    .to_owned(),
            )
        })?,
    };
    Ok((template, image))
}

/// The image that this program runs from: that of the drill's own pod. A person runs what the CronJobs here run.
async fn own_image(cluster: &Cluster, settings: &VerifySettings) -> Result<Option<String>, Failure> {
    match &settings.run.run_uid {
        Some(uid) if cluster.is_in_own_namespace() => {
            let pods = cluster.pods_of_job(uid).await?;
            Ok(pods.into_iter().flat_map(|pod| pod.spec.containers).find_map(image))
        }
        _ => Ok(of_cron_jobs(cluster).await),
    }
}

/// The image of this program's container.
fn image(container: Container) -> Option<String> {
    (container.name == names::PROGRAM).then_some(container.image)
}

/// The image of the CronJobs of this program in the namespace.
async fn of_cron_jobs(cluster: &Cluster) -> Option<String> {
    let scope = Scope::Namespace(cluster.namespace().to_owned());
    let cron_jobs = match cluster.cron_jobs(&scope, "", |_| true).await {
        Ok(cron_jobs) => cron_jobs,
        Err(error) => {
            tracing::debug!("{error}");
            return None;
        }
    };
    let templates = cron_jobs.into_iter().map(|cron_job| cron_job.spec.job_template.spec.template);
    templates.flat_map(|template| template.spec.containers).find_map(image)
}
