//! Wires the process together: the command line, the settings, the log, the command, its report.

mod verify;

use std::{
    collections::HashSet,
    io,
    pin::{Pin, pin},
    process::ExitCode,
    time::Duration,
};

use crate::{
    adopt::{Choice, Which},
    cluster::{self, Access, Cluster, Scope},
    command::{
        self, AdoptCommand, ClusterFlags, Command, Format, Line, ListCommand, Output, ReadCommand,
        RestoreCommand, SimulateCommand, Wanted,
    },
    group::Group,
    list::{self, Extent, Given, Listing, Look, Names, Retention, Row},
    names, notify, process, read,
    report::{EXIT_DONE, EXIT_PERMANENT, EXIT_TRANSIENT, Failure, Reason, Report, RestoreReport, Stop},
    restore, run,
    settings::{self, RestoreSettings, Settings},
    simulate, text,
};
use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;

/// How many requests of `list` and `restore` may be in flight: they make one after the other.
const ONE_AT_A_TIME: usize = 1;

/// How long a person who presses a key waits for names from the cluster.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(2);

/// What the binary does, by the arguments and variables of this process; the exit code is to be its own.
///
/// It is here and not in `main.rs` so that the demo is the binary as well, without a second build.
pub fn main() -> ExitCode {
    // A shell asks what may stand next.
    match command::complete(std::env::args_os(), existing) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(_) => return ExitCode::FAILURE,
    }
    let exit = match command::command(std::env::args_os()) {
        Ok(Command::Run) => run_once(),
        Ok(Command::List(command)) => list_once(command),
        Ok(Command::Restore(command)) => restore_once(command),
        Ok(Command::Adopt(command)) => adopt_once(&command),
        Ok(Command::Simulate(command)) => simulate_once(&command),
        Ok(Command::Verify(command)) => verify::verify_once(command),
        Ok(Command::Read(command)) => read_once(&command),
        Ok(Command::Text(text)) => printed(&text),
        Err(problem) if problem.use_stderr() => {
            eprint!("{problem}");
            EXIT_PERMANENT
        }
        // The help text, which was asked for.
        Err(help) => printed(&help.to_string()),
    };
    process::finish_log();
    ExitCode::from(exit)
}

fn run_once() -> u8 {
    let settings = match Settings::parse_or_fallback(std::env::vars_os()) {
        Ok(settings) => settings,
        Err((problems, fallback)) => {
            process::start_log(fallback.log_format, settings::default_filter());
            tracing::error!(exit = EXIT_PERMANENT, "{problems}");
            process::leave_message(&problems.to_string(), &fallback.termination_log);
            let ping = fallback.ping.as_deref();
            tell_alone(async |stop| notify::tell_problems(&problems, ping, stop).await);
            return EXIT_PERMANENT;
        }
    };
    process::start_log(settings.log_format, settings.log_filter.clone());
    let access = Access {
        namespace: settings.namespace.as_deref(),
        kubeconfig: None,
        context: None,
        impersonate: None,
        concurrency: settings.concurrency,
        budget: cluster::RETRY_BUDGET,
    };
    let id = settings.run_id.clone().unwrap_or_else(|| names::run_id(rand::random()));
    // First what Kubernetes reads, then what people are told.
    let publish = async |report: Report, cluster: Option<&Cluster>, stop: Stopping<'_>| {
        process::publish(&report, &settings.termination_log);
        notify::tell(&report, &settings, cluster, &id, stop).await;
        report.exit_code()
    };
    let run = async |cluster: Cluster, mut stop: Stopping<'_>| {
        let report = run::run(&cluster, &settings, &id, stop.as_mut()).await;
        publish(report, Some(&cluster), stop).await
    };
    let report = match with_cluster(access, run) {
        Ok(exit) => return exit,
        Err(Unbegun::Stopped(stop)) => Report::of_stop(stop),
        Err(Unbegun::Trouble(failure)) => Report::of_trouble(failure),
    };
    let exit = report.exit_code();
    tell_alone(async |stop| {
        publish(report, None, stop).await;
    });
    exit
}

/// Tells people something where there is no run to tell of.
fn tell_alone(tell: impl AsyncFnOnce(Stopping<'_>)) {
    let told = in_runtime(async || {
        let mut stop: Pin<Box<dyn Future<Output = Stop>>> = Box::pin(process::stop_signals()?);
        tell(stop.as_mut()).await;
        Ok(())
    });
    if let Err(error) = told.flatten() {
        tracing::warn!("nobody is told: {error}");
    }
}

fn list_once(command: ListCommand) -> u8 {
    let ListCommand { flags, cluster: ClusterFlags { kubeconfig, context, user }, extent, output, labels } =
        command;
    let given = |variable: &str| {
        flags.iter().any(|flag| flag.variable == variable)
            || std::env::var_os(variable).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
    };
    let given = Given { schedule: given("SNAPSHOT_JOB"), retention: given("SNAPSHOT_RETENTION") };
    let settings = match Settings::parse_for_list(std::env::vars_os(), flags) {
        Ok(settings) => settings,
        Err(problems) => {
            process::start_plain_log(None, settings::default_filter());
            tracing::error!("{problems}");
            return EXIT_PERMANENT;
        }
    };
    process::start_plain_log(None, settings.log_filter.clone());
    let access = Access {
        namespace: settings.namespace.as_deref(),
        kubeconfig: kubeconfig.as_deref(),
        context: context.as_deref(),
        impersonate: user.as_deref(),
        concurrency: ONE_AT_A_TIME,
        budget: cluster::INTERACTIVE_RETRY_BUDGET,
    };
    let now = Timestamp::now();
    let list = async |cluster: Cluster, stop: Stopping<'_>| {
        tokio::select! {
            biased;
            stop = stop => Err(Unbegun::Stopped(stop)),
            listing = async { list::list(&cluster, &settings, given, extent, now, &mut |_| ()).await } => {
                listing.map_err(Unbegun::Trouble)
            }
        }
    };
    match with_cluster(access, list).flatten() {
        Ok(listing) => show(&listing, output, &labels, now),
        Err(Unbegun::Stopped(stop)) => Report::of_stop(stop).exit_code(),
        Err(Unbegun::Trouble(failure)) => {
            tracing::error!("{}", failure.message);
            Report::of_trouble(failure).exit_code()
        }
    }
}

fn show(listing: &Listing, output: Output, labels: &[String], now: Timestamp) -> u8 {
    for warning in &listing.warnings {
        tracing::warn!("{warning}");
    }
    for note in &listing.notes {
        tracing::info!("{note}");
    }
    let (width, colour) = process::screen();
    let look = Look {
        width,
        colour,
        wide: output == Output::Wide,
        namespaces: listing.namespaces,
        jobs: listing.schedules,
        labels,
    };
    let exit = match output {
        Output::Json => printed(&list::json(&listing.rows)),
        Output::Yaml => printed(&list::yaml(&listing.rows)),
        Output::Name => printed(&list::names(&listing.rows)),
        Output::Table | Output::Wide | Output::Timeline if listing.rows.is_empty() => {
            tracing::info!("no snapshots found {}", listing.location);
            EXIT_DONE
        }
        Output::Table | Output::Wide => printed(&list::table(&listing.rows, look, now)),
        Output::Timeline => {
            let names = Names { namespaces: listing.namespaces, schedules: listing.schedules };
            printed(&list::timeline(&listing.rows, names, process::canvas(), now))
        }
    };
    if listing.missing.is_empty() {
        return exit;
    }
    let missing = listing.missing.join(", ");
    tracing::error!("there is neither a claim nor a snapshot of one {}: {missing}", listing.location);
    EXIT_PERMANENT
}

fn adopt_once(command: &AdoptCommand) -> u8 {
    let AdoptCommand { flags, cluster, which, yes } = command;
    let settings = match Settings::parse_for_list(std::env::vars_os(), flags.clone()) {
        Ok(settings) => settings,
        Err(problems) => {
            process::start_plain_log(None, settings::default_filter());
            tracing::error!("{problems}");
            return EXIT_PERMANENT;
        }
    };
    process::start_plain_log(None, settings.log_filter.clone());
    let access = Access {
        namespace: settings.namespace.as_deref(),
        kubeconfig: cluster.kubeconfig.as_deref(),
        context: cluster.context.as_deref(),
        impersonate: cluster.user.as_deref(),
        concurrency: ONE_AT_A_TIME,
        budget: cluster::INTERACTIVE_RETRY_BUDGET,
    };
    let adopt = async |cluster: Cluster, stop: Stopping<'_>| {
        tokio::select! {
            biased;
            stop = stop => Err(Unbegun::Stopped(stop)),
            exit = adopt(&cluster, &settings, which, *yes) => exit.map_err(Unbegun::Trouble),
        }
    };
    match with_cluster(access, adopt).flatten() {
        Ok(exit) => exit,
        Err(Unbegun::Stopped(stop)) => Report::of_stop(stop).exit_code(),
        Err(Unbegun::Trouble(failure)) => {
            tracing::error!("{}", failure.message);
            Report::of_trouble(failure).exit_code()
        }
    }
}

/// Shows what of the snapshots would become of a schedule that owned them, and has it own them if `yes`.
async fn adopt(cluster: &Cluster, settings: &Settings, which: &Which, yes: bool) -> Result<u8, Failure> {
    let schedule = &settings.schedule;
    let choice = Choice::new(cluster, schedule, which).await?;
    let given = Given { schedule: true, retention: settings.is_retention_given };
    let extent = Extent { all_schedules: true, all_namespaces: false, groups: false };
    let now = Timestamp::now();
    let mut taken = HashSet::new();
    let mut listing = list::list(cluster, settings, given, extent, now, &mut |record| {
        if choice.means(record) && choice.refusal(record).is_none() {
            taken.insert(record.snapshot.uid.clone());
            record.schedule = Some(schedule.clone());
        }
    })
    .await?;
    let missing = choice.missing(listing.rows.iter().map(|row| &row.record));
    listing.rows.retain(|Row { record, .. }| {
        let is_taken = taken.contains(&record.snapshot.uid);
        if let Some(why) = choice.refusal(record).filter(|_| !is_taken && choice.means(record)) {
            tracing::info!("left alone: snapshot {}: {why}", text::name(&record.snapshot.name));
        }
        is_taken
    });
    let is_nothing = listing.rows.is_empty() && listing.missing.is_empty();
    let shown = match is_nothing {
        true => EXIT_DONE,
        false => show(&listing, Output::Table, &[], now),
    };
    if !missing.is_empty() {
        let missing: Vec<_> = missing.into_iter().map(text::name).collect();
        tracing::error!("there is no snapshot {} {}", missing.join(", "), listing.location);
        return Ok(EXIT_PERMANENT);
    }
    if is_nothing {
        tracing::info!("there is nothing to adopt {}", listing.location);
    }
    // Nothing is changed where something is not as the person thinks, or was not shown.
    if shown != EXIT_DONE || is_nothing {
        return Ok(shown);
    }
    let goes = |row: &&Row| matches!(row.retention, Retention::Goes(_) | Retention::WouldGo(_));
    let (number, go) = (listing.rows.len(), listing.rows.iter().filter(goes).count());
    if !yes {
        tracing::info!(
            "nothing was changed; --yes makes {} schedule {schedule}'s, and its next run may delete {go} of {number}",
            text::count(number, "snapshot")
        );
        return Ok(EXIT_DONE);
    }
    let adopted = choice.adopt(cluster, listing.rows.iter().map(|row| &row.record)).await;
    for failure in &adopted.failures {
        tracing::error!("{}", failure.message);
    }
    let from_now_on = match adopted.number {
        0 => String::new(),
        _ => format!("; schedule {schedule} owns and prunes them from its next run on"),
    };
    tracing::info!("adopted {} of {}{from_now_on}", adopted.number, text::count(number, "snapshot"));
    Ok(match adopted.failures.iter().map(|failure| failure.is_transient).min() {
        None => EXIT_DONE,
        Some(true) => EXIT_TRANSIENT,
        Some(false) => EXIT_PERMANENT,
    })
}

fn simulate_once(command: &SimulateCommand) -> u8 {
    let SimulateCommand { plan, format } = command;
    match (simulate::simulate(plan), format) {
        (Ok(outcome), Format::Text) => printed(&simulate::text(plan, &outcome, process::canvas())),
        (Ok(outcome), Format::Json) => printed(&simulate::json(plan, &outcome)),
        (Err(too_much), _) => {
            eprintln!("error: {too_much}");
            EXIT_PERMANENT
        }
    }
}

fn read_once(command: &ReadCommand) -> u8 {
    let filter = match settings::filter(std::env::var_os("RUST_LOG")) {
        Ok(filter) => filter,
        Err(problem) => {
            eprintln!("error: {problem}");
            return EXIT_PERMANENT;
        }
    };
    process::start_log(None, filter);
    let read = in_runtime(async || {
        let stop = process::stop_signals()?;
        Ok(read::read(&command.plan, stop).await)
    });
    match read.flatten() {
        Ok(report) => {
            process::publish_reading(&report, &command.termination_log);
            report.exit_code()
        }
        Err(error) => {
            tracing::error!(exit = EXIT_TRANSIENT, "the process cannot start: {error}");
            EXIT_TRANSIENT
        }
    }
}

fn restore_once(command: RestoreCommand) -> u8 {
    let mut settings = match RestoreSettings::parse(std::env::vars_os(), command.flags) {
        Ok(settings) => settings,
        Err((problems, fallback)) => {
            process::start_plain_log(fallback.log_format, settings::default_filter());
            tracing::error!(exit = EXIT_PERMANENT, "{problems}");
            process::leave_message(&problems.to_string(), &fallback.termination_log);
            return EXIT_PERMANENT;
        }
    };
    let ClusterFlags { kubeconfig, context, user } = command.cluster;
    (settings.kubeconfig, settings.context, settings.user) = (kubeconfig, context, user);
    process::start_plain_log(settings.log_format, settings.log_filter.clone());
    let access = Access {
        namespace: settings.namespace.as_deref(),
        kubeconfig: settings.kubeconfig.as_deref(),
        context: settings.context.as_deref(),
        impersonate: settings.user.as_deref(),
        concurrency: ONE_AT_A_TIME,
        budget: cluster::RETRY_BUDGET,
    };
    let id = settings.run_id.clone().unwrap_or_else(|| names::restore_id(rand::random()));
    let waiting = process::waiting_line(settings.log_format);
    let restore = async |cluster: Cluster, stop: Stopping<'_>| {
        restore::restore(&cluster, &settings, &id, stop, &waiting).await
    };
    let report = match with_cluster(access, restore) {
        Ok(report) => report,
        Err(Unbegun::Stopped(stop)) => RestoreReport::of_stop(stop, &settings.made()),
        Err(Unbegun::Trouble(failure)) => RestoreReport::of_trouble(failure),
    };
    process::publish_restore(&report, settings.log_format, &settings.termination_log);
    report.exit_code()
}

/// The names that there are, for completion; none if the cluster does not tell soon.
fn existing(wanted: Wanted, line: &Line) -> Vec<String> {
    let access = Access {
        namespace: line.namespace.as_deref(),
        kubeconfig: line.cluster.kubeconfig.as_deref(),
        context: line.cluster.context.as_deref(),
        impersonate: line.cluster.user.as_deref(),
        concurrency: ONE_AT_A_TIME,
        budget: Duration::ZERO,
    };
    let names = async |cluster: Cluster, _: Stopping<'_>| {
        let scope = Scope::Namespace(cluster.namespace().to_owned());
        let names = async {
            match wanted {
                Wanted::Claims => cluster.claims(&scope, "", |claim| Some(claim.metadata.name)).await,
                Wanted::Namespaces => cluster.namespaces("").await,
                Wanted::Snapshots if let Some(group) = &line.group => {
                    let groups = groups(&cluster, &scope).await?.into_iter();
                    Ok(groups
                        .filter(|one| one.value() == Some(group))
                        .map(|one| one.name().to_owned())
                        .collect())
                }
                Wanted::Groups => {
                    let groups = groups(&cluster, &scope).await?;
                    Ok(groups.iter().filter_map(|group| group.value().map(str::to_owned)).collect())
                }
                Wanted::Snapshots => {
                    let is_of = |claim: &Option<String>| line.claim.is_none() || line.claim == *claim;
                    let records = cluster.records(&scope, "").await?;
                    let of_claim = records.into_iter().filter(|record| is_of(&record.claim));
                    Ok(of_claim.map(|record| record.snapshot.name).collect())
                }
            }
        };
        timeout(COMPLETION_TIMEOUT, names).await
    };
    match with_cluster(access, names) {
        Ok(Ok(Ok(names))) => names,
        _ => Vec::new(),
    }
}

async fn groups(cluster: &Cluster, scope: &Scope) -> Result<Vec<Group>, cluster::Error> {
    let mut groups = Vec::new();
    cluster.groups(scope, "", cluster::Listed::into(&mut groups, Some)).await?;
    Ok(groups)
}

/// Ends when the process is told to stop.
type Stopping<'a> = Pin<&'a mut (dyn Future<Output = Stop> + 'a)>;

/// What kept a command from beginning.
enum Unbegun {
    Stopped(Stop),
    Trouble(Failure),
}

/// Connects to the cluster and does something there, which is told when to stop.
fn with_cluster<T>(
    access: Access<'_>,
    work: impl AsyncFnOnce(Cluster, Stopping<'_>) -> T,
) -> Result<T, Unbegun> {
    let done = in_runtime(async || match begin(access).await {
        Ok((cluster, mut stop)) => Ok(work(cluster, stop.as_mut()).await),
        Err(unbegun) => Err(unbegun),
    });
    done.map_err(cannot_start).flatten()
}

fn in_runtime<T>(work: impl AsyncFnOnce() -> T) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut done = None;
    {
        // By reference, so that there is one copy of the runtime's code for all commands.
        let work: Pin<&mut dyn Future<Output = ()>> = pin!(async { done = Some(work().await) });
        runtime.block_on(work);
    }
    // A name that is still being looked up must not hold up the exit.
    runtime.shutdown_background();
    done.ok_or_else(|| io::Error::other("nothing was done"))
}

async fn begin(access: Access<'_>) -> Result<(Cluster, Pin<Box<dyn Future<Output = Stop>>>), Unbegun> {
    let mut stop: Pin<Box<dyn Future<Output = Stop>>> =
        Box::pin(process::stop_signals().map_err(cannot_start)?);
    let connected = tokio::select! {
        biased;
        stop = &mut stop => return Err(Unbegun::Stopped(stop)),
        connected = cluster::connect(access) => connected,
    };
    match connected {
        Ok(cluster) => Ok((cluster, stop)),
        Err(error) => Err(Unbegun::Trouble(error.into())),
    }
}

fn cannot_start(error: io::Error) -> Unbegun {
    Unbegun::Trouble(Failure {
        message: format!("the process cannot start: {error}"),
        is_transient: true,
        reason: Reason::Other,
    })
}

/// The exit code of a text that was written to standard output.
fn printed(text: &str) -> u8 {
    if process::print(text) { EXIT_DONE } else { EXIT_TRANSIENT }
}
