//! Measures time, CPU and memory of a process and its descendants.
//!
//! A second, small copy of this program starts the process, for two reasons. The system adds up the usage of
//! all children of a process, so each measured one has to be an only child. And it includes the parent's
//! memory at the fork, which here contains thousands of snapshots.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

/// The first argument of the second copy; the file for the result and the command line follow.
pub(crate) const MEASURE: &str = "--measure";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// When it ended, by the system's clock.
    pub(crate) ended: SystemTime,
    /// Of it and all its descendants, in user and kernel mode.
    pub(crate) cpu: Duration,
    /// The most memory that any one of them had at a time, in bytes.
    pub(crate) peak_memory: u64,
}

/// Runs a command to its end, with this environment and no other. Its output goes to a file beside `files`.
///
/// # Errors
/// If it cannot be started or does not succeed, with its output.
pub(crate) fn run(
    files: &Path,
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Usage> {
    let (result, output) = (files.with_extension("usage"), files.with_extension("output"));
    let log = fs::File::create(&output).context("cannot write the output's file")?;
    let status = Command::new(env::current_exe().context("where is this program?")?)
        .arg(MEASURE)
        .arg(&result)
        .arg(program)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the output's file")?)
        .stderr(log)
        .status()
        .context("cannot start the measuring process")?;
    let said = || fs::read_to_string(&output).unwrap_or_default();
    ensure!(status.success(), "{} ended with {status}:\n{}", program.display(), said());
    let usage: Value = serde_json::from_slice(&fs::read(&result).context("there is no result")?)?;
    let micros =
        |name: &str| usage[name].as_u64().map(Duration::from_micros).context("the result is not whole");
    Ok(Usage {
        wall: micros("wall_us")?,
        ended: UNIX_EPOCH + micros("ended_us")?,
        cpu: micros("cpu_us")?,
        peak_memory: usage["peak_memory"].as_u64().context("the result is not whole")?,
    })
}

/// What the second copy does: `RESULT PROGRAM ARGUMENT…`.
///
/// # Errors
/// If the program cannot be started or measured.
pub(crate) fn measure(arguments: &[String]) -> Result<ExitCode> {
    let [result, program, arguments @ ..] = arguments else {
        anyhow::bail!("{MEASURE} RESULT PROGRAM ARGUMENT…")
    };
    let began = Instant::now();
    let status =
        Command::new(program).args(arguments).status().with_context(|| format!("cannot start {program}"))?;
    let (wall, ended) = (began.elapsed(), SystemTime::now());
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("the system does not say what it took")?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let result_of = json!({
        "wall_us": u64::try_from(wall.as_micros())?,
        "ended_us": u64::try_from(ended.duration_since(UNIX_EPOCH)?.as_micros())?,
        "cpu_us": micros(usage.user_time()) + micros(usage.system_time()),
        // In KiB on Linux.
        "peak_memory": usage.max_rss() * 1024,
    });
    fs::write(result, result_of.to_string()).context("cannot write the result")?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(125)).unwrap_or(125)))
}
