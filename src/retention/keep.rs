//! What each rule keeps, as a function of times alone. [`super::policy`] applies the safety rules on top.

use k8s_openapi::jiff::{Timestamp, tz::TimeZone};

use super::{
    durations::{Deltas, Window},
    rules::{Count, Period, Rule},
};

impl Rule {
    /// Returns the indices of the times that the rule keeps, ascending. `times` must be ordered newest first; for
    /// [`Rule::Verified`] they are those of verified snapshots alone.
    /// Takes O(n log n).
    pub fn keeps(&self, times: &[Timestamp]) -> Vec<usize> {
        match self {
            Rule::Last(count) | Rule::Verified(count) => (0..times.len().min(at_most(*count))).collect(),
            Rule::Each(period, count) => newest_of_each(*period, at_most(*count), times, times.len()),
            Rule::Within(window) => (0..within(window, times)).collect(),
            Rule::WithinEach(period, window) => {
                newest_of_each(*period, usize::MAX, times, within(window, times))
            }
            Rule::Deltas(deltas) => nearest_to_each(deltas, times),
            Rule::All => (0..times.len()).collect(),
        }
    }
}

impl Rule {
    /// Whether the rule keeps as many as it ever will: its number is used up, and not by the oldest of all, or
    /// snapshots since `begin` reach back as far as it does. `times` are what there is, newest first.
    pub fn is_used_up(&self, times: &[Timestamp], begin: Timestamp) -> bool {
        let Some(newest) = times.first() else { return false };
        match self {
            Rule::Last(Count::All) | Rule::Each(_, Count::All) | Rule::All => false,
            Rule::Last(count) => times.len() >= at_most(*count),
            // Here nothing is ever verified.
            Rule::Verified(_) => true,
            Rule::Each(period, count) => periods(*period, times) >= at_most(*count),
            Rule::Within(window) | Rule::WithinEach(_, window) => {
                window.before(*newest).is_some_and(|reach| reach >= begin)
            }
            Rule::Deltas(deltas) => {
                let reach = deltas.sorted().last().copied().unwrap_or(0);
                newest.as_microsecond() - begin.as_microsecond() >= reach
            }
        }
    }
}

/// Returns how many periods have one of `times`, which are newest first.
fn periods(period: Period, times: &[Timestamp]) -> usize {
    times.chunk_by(|a, b| bucket(period, *a) == bucket(period, *b)).count()
}

fn at_most(count: Count) -> usize {
    match count {
        Count::AtMost(number) => usize::try_from(number.get()).unwrap_or(usize::MAX),
        Count::All => usize::MAX,
    }
}

/// Returns how many of `times` are younger than the window, counted back from the newest.
fn within(window: &Window, times: &[Timestamp]) -> usize {
    let begin = times.first().and_then(|newest| window.before(*newest));
    times.partition_point(|time| begin.is_none_or(|begin| *time > begin))
}

/// Implements restic's `--keep-hourly` to `--keep-yearly`, and those of `--keep-within-hourly` to
/// `--keep-within-yearly`: from the newest to the oldest of the first `among` times, each whose period differs
/// from that of the one kept before, until `number` are kept. While fewer are kept, the oldest of all is kept as
/// well if it is among them, so that the history reaches back as far as possible.
fn newest_of_each(period: Period, number: usize, times: &[Timestamp], among: usize) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut last = None;
    for (index, time) in times.iter().enumerate().take(among) {
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

/// Returns the hour, day, week, month or year that a time is in.
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

/// Implements the expiry of k8s-snapshots. It keeps the newest snapshot and, for each generation, from its
/// far end towards the newest, the snapshot nearest to a point that advances by the generation's step.
///
/// The original advances the point one step at a time, which takes forever if the step is small. This
/// implementation jumps to the first step at which another snapshot is nearer.
fn nearest_to_each(deltas: &Deltas, times: &[Timestamp]) -> Vec<usize> {
    // Ascending, with the index in `times`. Of several at the same instant, the first is always the nearest,
    // and the others never are.
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
        // The last one not after the point. The nearest is this one or the next.
        let mut at = instants.partition_point(|(time, _)| *time <= point).saturating_sub(1);
        let mut picked = None;
        while point < newest {
            // Ties go to the newer one.
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
            // From the midpoint between the two on, the next one is nearer.
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
