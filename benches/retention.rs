//! Measures the retention policy for a claim with very many snapshots. It must take well under a second for
//! 100,000, and grow no faster than O(n log n), for every rule.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use volume_snapshotter::{
    retention::{Judgement, Rules, judge},
    snapshot::Snapshot,
};

const RULES: [&str; 11] = [
    "last=24",
    "hourly=24",
    "daily=7",
    "weekly=5",
    "monthly=12",
    "yearly=10",
    "within=14d",
    "within-hourly=3y",
    "deltas=PT1H P1D P7D P30D P360D",
    "deltas=PT0.000001S P7000D",
    "all",
];

/// A snapshot every quarter of an hour, in no order.
fn snapshots(number: usize) -> Vec<Snapshot> {
    let newest = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 56);
    let mut snapshots: Vec<Snapshot> = (0..number)
        .map(|index| {
            let created = newest - SignedDuration::from_mins(15) * i32::try_from(index).unwrap_or(i32::MAX);
            Snapshot {
                uid: format!("00000000-0000-0000-0000-{index:012x}"),
                ..Snapshot::ready_at(&format!("volume-snapshot-{index:08x}"), created)
            }
        })
        .collect();
    let mut setting = 0;
    for index in (1..snapshots.len()).rev() {
        setting = (setting * 31 + 17) % (index + 1);
        snapshots.swap(index, setting);
    }
    snapshots
}

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    let mut group = criterion.benchmark_group("judge");
    for number in [1_000, 10_000, 100_000] {
        let snapshots = snapshots(number);
        group.throughput(Throughput::Elements(number as u64));
        for text in RULES {
            let rules: Rules = text.parse().expect("rules");
            let by = Judgement::by_rules(&rules, Timestamp::MAX);
            group.bench_with_input(BenchmarkId::new(text, number), &snapshots, |bencher, snapshots| {
                bencher.iter(|| {
                    judge(black_box(snapshots), &by).iter().filter(|one| one.verdict.goes()).count()
                });
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
