//! The cost of a run: compared with the bash script that it replaces, and as claims and snapshots grow.
//!
//! `cargo bench --package benches --bench side-by-side` builds the binary and starts an API server with a
//! snapshot controller in this process. It runs both contenders in turn, several times each, in the state of
//! a new container, and prints a table. Then it prints a second one for this program alone, with up to 10,000
//! claims and 100,000 older snapshots, and fails if a run takes more memory than it may. It needs no network. The script needs `bash`, `openssl` and `kubectl`,
//! and is skipped with a message if one of them is missing.
//!
//! Arguments after `--`: `script` or `scale` for only one of the two tables, `--rounds N` for the number of
//! rounds (default: 5, and 3 at scale), `--size CLAIMS,SNAPSHOTS` for a single line of the second table,
//! `--shards N` for the cost of sharing its claims among pods, and `--binary PATH` for another binary, such as
//! the static one of the image.
//!
//! The API server runs in this process on the same processors. Its time is part of the wall times, but not of
//! the CPU times and memory, which are those of the contenders. The API server counts requests and bytes.

mod process;
mod setting;
mod table;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::jiff::Timestamp;

use setting::{DRIVER, Sample, Setting};
use table::{Table, least, median, million, millis};

const SCRIPT: &str = include_str!("script.sh");

const TOOLS: [&str; 3] = ["bash", "kubectl", "openssl"];

/// Claims and older snapshots, at scale.
const SCALE: [(usize, usize); 11] = [
    (1, 10),
    (1, 1_000),
    (1, 10_000),
    (10, 10),
    (10, 1_000),
    (100, 1_000),
    (1_000, 10),
    (1_000, 1_000),
    (1_000, 10_000),
    (5_000, 50_000),
    (10_000, 100_000),
];

/// Up to so many claims a run may take so much memory at its peak, in bytes: from 5,000 on half of the limit that
/// the manifests and docs/scale.md give it.
const MEMORY: [(usize, u64); 3] = [(1_000, 16_000_000), (5_000, 64 << 19), (10_000, 96 << 19)];

/// What is to be done.
struct Wanted {
    script: bool,
    scale: bool,
    rounds: Option<usize>,
    /// Claims and older snapshots, instead of [`SCALE`].
    size: Option<(usize, usize)>,
    /// How many pods share the claims of `size`, instead of the second table.
    shards: Option<usize>,
    binary: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == process::MEASURE) {
        return process::measure(&arguments[1..]);
    }
    let wanted = wanted(&arguments)?;
    ensure!(
        !cfg!(debug_assertions),
        "figures of a debug build mean nothing: run cargo bench --package benches --bench side-by-side"
    );
    let binary = match &wanted.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    println!("{}", circumstances());
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("side-by-side-{}", std::process::id()));
    fs::create_dir_all(&directory).context("cannot make a directory")?;
    let files = directory.join("run");
    if wanted.script {
        beside_the_script(&files, &binary, wanted.rounds.unwrap_or(5)).await?;
    }
    if wanted.scale {
        let sizes = wanted.size.map_or_else(|| SCALE.to_vec(), |size| vec![size]);
        match wanted.shards {
            Some(shards) => shared(&files, &binary, &sizes, shards).await?,
            None => at_scale(&files, &binary, &sizes, wanted.rounds.unwrap_or(3)).await?,
        }
    }
    fs::remove_dir_all(&directory).context("cannot remove the directory")?;
    Ok(ExitCode::SUCCESS)
}

fn wanted(arguments: &[String]) -> Result<Wanted> {
    let mut wanted =
        Wanted { script: true, scale: true, rounds: None, size: None, shards: None, binary: None };
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            // What cargo tells every benchmark.
            "--bench" => {}
            "script" => wanted.scale = false,
            "scale" => wanted.script = false,
            "--rounds" => {
                let rounds =
                    arguments.next().and_then(|rounds| rounds.parse().ok()).filter(|rounds| *rounds > 0);
                wanted.rounds = Some(rounds.context("--rounds takes a number above zero")?);
            }
            "--shards" => {
                let shards =
                    arguments.next().and_then(|shards| shards.parse().ok()).filter(|shards| *shards > 0);
                wanted.shards = Some(shards.context("--shards takes a number above zero")?);
                wanted.script = false;
            }
            "--size" => {
                let numbers = arguments.next().and_then(|size| size.split_once(','));
                let size = numbers
                    .and_then(|(claims, snapshots)| Some((claims.parse().ok()?, snapshots.parse().ok()?)));
                wanted.size =
                    Some(size.filter(|(claims, _)| *claims > 0).context("--size takes CLAIMS,SNAPSHOTS")?);
                wanted.script = false;
            }
            "--binary" => {
                let path = arguments.next().context("--binary takes a path")?;
                let binary = fs::canonicalize(path).with_context(|| format!("there is no {path}"))?;
                wanted.binary = Some(binary);
            }
            other => {
                bail!(
                    "unknown argument {other:?}; script, scale, --rounds N, --size CLAIMS,SNAPSHOTS, --shards N and --binary PATH are known"
                )
            }
        }
    }
    Ok(wanted)
}

/// Builds the binary as the image has it, where cargo puts it; what cargo says is seen, for this takes a while.
fn build() -> Result<PathBuf> {
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--locked",
            "--release",
            "--package",
            "volume-snapshotter",
            "--bin",
            "volume-snapshotter",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cannot start cargo")?;
    ensure!(built.success(), "the binary does not build");
    // The target directory may be another than the usual one; this program is in release/deps of it.
    let this = env::current_exe().context("where is this program?")?;
    let directory = this.parent().and_then(Path::parent).context("where is the target directory?")?;
    Ok(directory.join("volume-snapshotter"))
}

/// When and where this is measured, for the reader of the figures.
fn circumstances() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| "an unknown processor".to_owned());
    let load = read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned();
    format!(
        "{}, {} processors of {processor}, load {load} at the beginning; the snapshot controller takes {}",
        Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        std::thread::available_parallelism().map_or(0, usize::from),
        table::seconds(DRIVER),
    )
}

/// One claim with one older snapshot: this program and the script in turn.
async fn beside_the_script(files: &Path, binary: &Path, rounds: usize) -> Result<()> {
    let tools: Vec<Option<PathBuf>> = TOOLS.iter().map(|tool| find(tool)).collect();
    for (tool, _) in TOOLS.iter().zip(&tools).filter(|(_, found)| found.is_none()) {
        println!("SKIPPED: the script is not measured, for there is no {tool} here");
    }
    let tools: Option<Vec<PathBuf>> = tools.into_iter().collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(once(files, |setting| setting.run_binary(binary)).await?);
        if let Some(tools) = &tools {
            theirs.push(once(files, |setting| setting.run_script(&tools[0], SCRIPT)).await?);
        }
    }

    let sizes = match &tools {
        Some(tools) => {
            let sizes: Result<Vec<u64>> = tools.iter().map(|tool| size(tool)).collect();
            Some(sizes?.iter().sum())
        }
        None => None,
    };
    let mut table =
        Table::new(&["one claim, one older snapshot", "volume-snapshotter", "bash script", "ratio"]);
    let times = |samples: &[Sample], of: &dyn Fn(&Sample) -> Duration| median(samples.iter().map(of));
    let mut row = |name: &str, of: &dyn Fn(&[Sample]) -> f64, say: &dyn Fn(f64) -> String| {
        let (our, their) = (of(&ours), (!theirs.is_empty()).then(|| of(&theirs)));
        table.contest(name, our, their, say);
    };
    row("wall time", &|all| times(all, &|one| one.usage.wall).as_secs_f64(), &|s| format!("{s:.2} s"));
    row(
        "of it besides the driver's",
        &|all| times(all, &|one| one.usage.wall.saturating_sub(DRIVER)).as_secs_f64(),
        &millis,
    );
    row("from ready to exit", &|all| times(all, &|one| one.after_ready).as_secs_f64(), &millis);
    row("CPU time", &|all| times(all, &|one| one.usage.cpu).as_secs_f64(), &millis);
    row("CPU time, the least", &|all| least(all.iter().map(|one| one.usage.cpu)).as_secs_f64(), &millis);
    row(
        "peak memory, largest process",
        &|all| median(all.iter().map(|one| one.usage.peak_memory)) as f64,
        &million,
    );
    row("requests", &|all| median(all.iter().map(|one| one.requests)) as f64, &|n| format!("{n}"));
    row("connections", &|all| median(all.iter().map(|one| one.connections)) as f64, &|n| format!("{n}"));
    row("bytes on the wire", &|all| median(all.iter().map(|one| one.bytes)) as f64, &|b| {
        format!("{:.1} kB", b / 1e3)
    });
    table.contest("files to run it", size(binary)? as f64, sizes.map(|size: u64| size as f64), &million);
    println!("\n{table}");
    println!("Medians of {rounds} runs each, in turn; ratio: script to volume-snapshotter.");
    if let Some(tools) = &tools {
        println!(
            "The script's files are {}, without their libraries and the rest of their image; {}.",
            TOOLS.join(", "),
            kubectl_version(&tools[1]).unwrap_or_else(|| "kubectl of an unknown version".to_owned()),
        );
    }
    Ok(())
}

/// This program alone, with more and more to do.
async fn at_scale(files: &Path, binary: &Path, sizes: &[(usize, usize)], rounds: usize) -> Result<()> {
    let mut table = Table::new(&[
        "claims",
        "older snapshots",
        "requests",
        "on the wire",
        "wall",
        "ready to exit",
        "CPU",
        "CPU per claim",
        "peak memory",
    ]);
    let mut too_much = Vec::new();
    for &(claims, snapshots) in sizes {
        let mut samples = Vec::new();
        let mut expected = 0..=0;
        for _ in 0..rounds {
            let setting = Setting::furnish(files, claims, snapshots).await?;
            expected = setting.expected_requests(snapshots);
            let sample = setting.run_binary(binary);
            setting.leave().await;
            samples.push(sample?);
        }
        let requests = median(samples.iter().map(|one| one.requests));
        ensure!(
            expected.contains(&requests),
            "{requests} requests instead of {expected:?}: {claims} claims, {snapshots} snapshots"
        );
        let memory = median(samples.iter().map(|one| one.usage.peak_memory));
        let bound = MEMORY.iter().find(|(up_to, _)| claims <= *up_to).map(|(_, bound)| *bound);
        if let Some(bound) = bound.filter(|bound| memory > *bound) {
            let (memory, bound) = (million(memory as f64), million(bound as f64));
            too_much.push(format!("{claims} claims, {snapshots} snapshots: {memory} instead of {bound}"));
        }
        let cpu = least(samples.iter().map(|one| one.usage.cpu)).as_secs_f64();
        table.row(vec![
            claims.to_string(),
            snapshots.to_string(),
            requests.to_string(),
            format!("{:.0} kB", median(samples.iter().map(|one| one.bytes)) as f64 / 1e3),
            table::seconds(median(samples.iter().map(|one| one.usage.wall))),
            millis(median(samples.iter().map(|one| one.after_ready)).as_secs_f64()),
            millis(cpu),
            format!("{:.2} ms", cpu * 1e3 / claims as f64),
            million(memory as f64),
        ]);
    }
    println!("\n{table}");
    println!("Medians of {rounds} runs, of CPU the least. Of each claim as many snapshots stay as it had.");
    ensure!(too_much.is_empty(), "more memory than is allowed: {}", too_much.join("; "));
    Ok(())
}

/// The pods of an Indexed Job, one after the other, so that none takes processor time from another.
async fn shared(files: &Path, binary: &Path, sizes: &[(usize, usize)], shards: usize) -> Result<()> {
    let mut table = Table::new(&[
        "claims",
        "older snapshots",
        "pods",
        "requests of all",
        "on the wire, all",
        "CPU of all",
        "CPU of one",
        "longest wall",
        "peak memory of one",
    ]);
    for &(claims, snapshots) in sizes {
        let setting = Setting::furnish(files, claims, snapshots).await?;
        let samples: Result<Vec<Sample>> =
            (0..shards).map(|index| setting.run_pod(binary, index, shards)).collect();
        let samples = samples?;
        setting.check()?;
        setting.leave().await;
        let cpu: Duration = samples.iter().map(|one| one.usage.cpu).sum();
        table.row(vec![
            claims.to_string(),
            snapshots.to_string(),
            shards.to_string(),
            samples.iter().map(|one| one.requests).sum::<usize>().to_string(),
            format!("{:.0} MB", samples.iter().map(|one| one.bytes).sum::<u64>() as f64 / 1e6),
            millis(cpu.as_secs_f64()),
            millis(median(samples.iter().map(|one| one.usage.cpu)).as_secs_f64()),
            table::seconds(samples.iter().map(|one| one.usage.wall).max().unwrap_or_default()),
            million(samples.iter().map(|one| one.usage.peak_memory).max().unwrap_or_default() as f64),
        ]);
    }
    println!("\n{table}");
    Ok(())
}

/// One run against a new API server.
async fn once(files: &Path, run: impl Fn(&Setting) -> Result<Sample>) -> Result<Sample> {
    let setting = Setting::furnish(files, 1, 1).await?;
    let sample = run(&setting);
    setting.leave().await;
    sample
}

/// Where the shell finds a program.
fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// How large a file is, in bytes; of a link the file that it leads to.
fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("there is no {}", path.display()))?.len())
}

fn kubectl_version(kubectl: &Path) -> Option<String> {
    let output = Command::new(kubectl).args(["version", "--client"]).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    Some(said.lines().next()?.replace("Client Version:", "kubectl"))
}
