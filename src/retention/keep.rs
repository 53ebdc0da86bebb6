//! What each rule keeps, of times alone. The safety rules above it are in [`super::policy`].

use std::num::NonZeroU32;

use k8s_openapi::jiff::{Timestamp, tz::TimeZone};

use super::{
    durations::Deltas,
    rules::{Period, Rule},
};

impl Rule {
    /// The places in `times`, which is ordered newest first, of those that the rule keeps, in
    /// ascending order. Takes n log n at most.
    pub fn keeps(&self, times: &[Timestamp]) -> Vec<usize> {
        match self {
            Rule::Last(number) => (0..times.len().min(at_most(*number))).collect(),
            Rule::Each(period, number) => newest_of_each(*period, at_most(*number), times),
            Rule::Within(window) => {
                let begin = times.first().and_then(|newest| window.before(*newest));
                let within = |time: &Timestamp| begin.is_none_or(|begin| *time > begin);
                (0..times.partition_point(within)).collect()
            }
            Rule::Deltas(deltas) => nearest_to_each(deltas, times),
            Rule::All => (0..times.len()).collect(),
        }
    }
}

fn at_most(number: NonZeroU32) -> usize {
    usize::try_from(number.get()).unwrap_or(usize::MAX)
}

/// restic's `--keep-hourly` to `--keep-yearly`: from the newest to the oldest, each whose period
/// differs from that of the one kept before, until the number is used up. While it is not, the
/// oldest of all is kept as well: the history reaches back as far as it can.
fn newest_of_each(period: Period, number: usize, times: &[Timestamp]) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut last = None;
    for (index, time) in times.iter().enumerate() {
        if kept.len() == number {
            break;
        }
        let bucket = Some(bucket(period, *time));
        if bucket != last || index + 1 == times.len() {
            last = bucket;
            kept.push(index);
        }
    }
    kept
}

/// Which hour, day, week, month or year a time is in.
fn bucket(period: Period, time: Timestamp) -> (i16, i8, i8, i8) {
    let time = TimeZone::UTC.to_datetime(time);
    match period {
        Period::Hour => (time.year(), time.month(), time.day(), time.hour()),
        Period::Day => (time.year(), time.month(), time.day(), 0),
        Period::Week => {
            let week = time.date().iso_week_date();
            (week.year(), week.week(), 0, 0)
        }
        Period::Month => (time.year(), time.month(), 0, 0),
        Period::Year => (time.year(), 0, 0, 0),
    }
}

/// What k8s-snapshots keeps: the newest, and for each generation, from its far end up to the
/// newest, the snapshot that is nearest to a point that moves on by the generation's step.
///
/// The original moves the point step by step, which takes for ever if the step is small; this one
/// goes straight to the first step at which another snapshot is nearer.
fn nearest_to_each(deltas: &Deltas, times: &[Timestamp]) -> Vec<usize> {
    // Ascending, with the place in `times`. Of several at one instant the first is ever the
    // nearest, and the others never are.
    let mut instants: Vec<(i64, usize)> =
        times.iter().enumerate().map(|(index, time)| (time.as_microsecond(), index)).collect();
    instants.dedup_by_key(|(time, _)| *time);
    instants.reverse();
    let Some(&(newest, _)) = instants.last() else {
        return Vec::new();
    };
    let mut kept = vec![0];
    for generation in deltas.sorted().windows(2).rev() {
        let [step, reach] = *generation else { continue };
        let mut point = newest - reach;
        // The last that is not younger than the point; the nearest is this one or the next.
        let mut at = instants.partition_point(|(time, _)| *time <= point).saturating_sub(1);
        let mut picked = None;
        while point < newest {
            // A tie goes to the newer one.
            while at + 1 < instants.len() && instants[at + 1].0 - point <= point - instants[at].0 {
                at += 1;
            }
            let (time, index) = instants[at];
            if picked != Some(at) {
                picked = Some(at);
                kept.push(index);
                point = time + step;
                continue;
            }
            let Some((next, _)) = instants.get(at + 1) else { break };
            // From the middle between the two on, the next one is nearer.
            let middle = time + (next - time + 1) / 2;
            let steps = ((middle - point + step - 1) / step).max(1);
            point += steps * step;
        }
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests;
