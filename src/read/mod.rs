//! The command `read`: every byte of what is in a volume, which shows whether it can be read.
//!
//! A thread reads (`tree`), and counts what it reads (`tally`). The task here watches over it: it says how far the reading
//! is, and ends it when the process is told to stop or the time is over. `report` says what came of it. No cluster is asked.

pub mod report;
mod tally;
mod tree;

use std::{
    future::pending,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::oneshot,
    time::{self, MissedTickBehavior, interval, timeout},
};

use crate::{report::Stop, text};
use report::{Ended, Report};
use tally::Tally;
use tree::Reader;

/// How long the thread may take to notice that it is to end. One that waits for a disk may not notice at all.
const LAST_CHUNK: Duration = Duration::from_millis(500);

/// What is read, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Directories, files or block devices.
    pub paths: Vec<PathBuf>,
    /// Whether one in which there is not one byte is as good as another.
    pub allow_empty: bool,
    /// How long it may take; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// How often it is said how far it is.
    pub progress: Duration,
}

/// Reads everything, unless it is told to stop.
pub async fn read(plan: &Plan, stop: impl Future<Output = Stop>) -> Report {
    let began = Instant::now();
    let tally = Arc::new(Tally::default());
    let mut done = begin(plan.paths.clone(), tally.clone());
    let time_over = async {
        match plan.timeout {
            Some(limit) => time::sleep(limit).await,
            None => pending().await,
        }
    };
    let is_done = tokio::select! {
        biased;
        stop = stop => {
            tally.end(Ended::Stopped(stop));
            timeout(LAST_CHUNK, &mut done).await.is_ok()
        }
        finished = &mut done => {
            if finished.is_err() {
                let message = "the thread that read ended unexpectedly".to_owned();
                tally.end(Ended::Trouble { message, is_transient: true });
            }
            finished.is_ok()
        }
        () = time_over => {
            tally.end(Ended::Stopped(Stop::OutOfTime));
            timeout(LAST_CHUNK, &mut done).await.is_ok()
        }
        () = say_how_far(&tally, plan.progress, began) => false,
    };
    tally.report(is_done, plan.allow_empty, began.elapsed())
}

/// Starts the thread that reads. What is returned resolves when it has.
fn begin(paths: Vec<PathBuf>, tally: Arc<Tally>) -> oneshot::Receiver<()> {
    let (sender, done) = oneshot::channel();
    let read = {
        let tally = tally.clone();
        move || {
            let mut reader = Reader::new(&tally);
            for path in paths {
                if !tally.is_stopped() {
                    reader.read(&path);
                }
            }
            // Nobody waits if the time is over.
            let _ = sender.send(());
        }
    };
    if let Err(error) = thread::Builder::new().name("read".to_owned()).spawn(read) {
        let message = format!("the thread that reads cannot start: {error}");
        tally.end(Ended::Trouble { message, is_transient: true });
    }
    done
}

/// Says again and again how far the reading is.
async fn say_how_far(tally: &Tally, every: Duration, began: Instant) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut bytes_before, mut at_before) = (0, began);
    loop {
        ticks.tick().await;
        let (bytes, now) = (tally.bytes(), Instant::now());
        let seconds = now.duration_since(at_before).as_secs_f64().max(0.001);
        let rate = (bytes.saturating_sub(bytes_before) as f64 / seconds) as u64;
        (bytes_before, at_before) = (bytes, now);
        let mut files = 0;
        tally.count(|counts| files = counts.files);
        tracing::info!(
            files,
            bytes,
            rate,
            "read so far: {}, {} ({}/s)",
            text::count_of(files, "file"),
            text::bytes(bytes),
            text::bytes(rate)
        );
    }
}
