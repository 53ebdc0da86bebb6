//! Wires the process together: the command line, the settings, the log, the run, its report.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::{
    io::{self, Write},
    pin::pin,
    process::ExitCode,
};

use volume_snapshotter::{
    cluster, names,
    process::{self, Command},
    report::{EXIT_HOPELESS, Failure, Report},
    run,
    settings::{self, Settings},
};

fn main() -> ExitCode {
    match process::command(std::env::args_os().skip(1)) {
        Ok(Command::Run) => ExitCode::from(run_once()),
        Ok(Command::Help) => print(process::HELP),
        Ok(Command::Version) => print(concat!("volume-snapshotter ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(problem) => {
            eprintln!("volume-snapshotter: {problem}");
            ExitCode::from(EXIT_HOPELESS)
        }
    }
}

fn run_once() -> u8 {
    let settings = match Settings::parse_or_fallback(std::env::vars_os()) {
        Ok(settings) => settings,
        Err((problems, fallback)) => {
            process::start_log(fallback.log_format, settings::default_filter());
            tracing::error!(exit = EXIT_HOPELESS, "{problems}");
            process::leave_message(&problems.to_string(), &fallback.termination_log);
            return EXIT_HOPELESS;
        }
    };
    process::start_log(settings.log_format, settings.log_filter.clone());
    let report = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let report = runtime.block_on(connect_and_run(&settings));
            // A name that is still being looked up must not hold up the exit.
            runtime.shutdown_background();
            report
        }
        Err(error) => cannot_start(&error),
    };
    process::publish(&report, &settings.termination_log);
    report.exit_code()
}

async fn connect_and_run(settings: &Settings) -> Report {
    let mut stop = match process::stop_signals() {
        Ok(stop) => pin!(stop),
        Err(error) => return cannot_start(&error),
    };
    let connected = tokio::select! {
        biased;
        stop = &mut stop => return Report::of_stop(stop),
        connected = cluster::connect(settings.namespace.as_deref(), settings.concurrency) => connected,
    };
    let id = settings.run_id.clone().unwrap_or_else(|| names::run_id(rand::random()));
    match connected {
        Ok(cluster) => run::run(&cluster, settings, &id, stop).await,
        Err(error) => Report::of_trouble(error.into()),
    }
}

fn cannot_start(error: &io::Error) -> Report {
    Report::of_trouble(Failure { message: format!("the process cannot start: {error}"), may_pass: true })
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
