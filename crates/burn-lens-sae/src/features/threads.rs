//! Work over several threads, divided so that its result does not depend on how many.

use std::ops::Range;

/// Divides items into at most `n` contiguous ranges of about equal weight.
pub(super) fn divide(weights: impl IntoIterator<Item = usize> + Clone, n: usize) -> Vec<Range<usize>> {
    let total: usize = weights.clone().into_iter().sum();
    let share = total.div_ceil(n.max(1)).max(1);
    let mut ranges = Vec::new();
    let (mut start, mut weight, mut end) = (0, 0, 0);
    for (at, item) in weights.into_iter().enumerate() {
        weight += item;
        end = at + 1;
        if weight >= share && ranges.len() + 1 < n.max(1) {
            ranges.push(start..end);
            (start, weight) = (end, 0);
        }
    }
    if start < end {
        ranges.push(start..end);
    }
    ranges
}

/// Runs each task on a thread of its own; the last one here. `work` must not need rayon's pool: what waits here may be
/// the only thread of it.
pub(super) fn run<T: Send, R: Send>(tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let work = &work;
    std::thread::scope(|scope| {
        let mut tasks = tasks;
        let last = tasks.pop();
        let others: Vec<_> = tasks.into_iter().map(|task| scope.spawn(move || work(task))).collect();
        let last = last.map(work);
        let joined = others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let mut results: Vec<R> = joined.collect();
        results.extend(last);
        results
    })
}

/// Splits `data`, which has `width` values for each item, at the ends of `ranges`.
pub(super) fn split<'a, T>(mut data: &'a mut [T], width: usize, ranges: &[Range<usize>]) -> Vec<&'a mut [T]> {
    ranges
        .iter()
        .map(|range| {
            let (part, rest) = std::mem::take(&mut data).split_at_mut(range.len() * width);
            data = rest;
            part
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once() {
        for n in 1..6 {
            for weights in [vec![], vec![1], vec![5, 1, 1, 1, 9, 0], vec![0, 0, 0]] {
                let ranges = divide(weights.clone(), n);
                assert!(ranges.len() <= n);
                let covered: Vec<usize> = ranges.into_iter().flatten().collect();
                assert_eq!(covered, (0..weights.len()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn results_come_in_order() {
        assert_eq!(run(vec![1, 2, 3], |x| x * 10), [10, 20, 30]);
        assert!(run(Vec::<u8>::new(), |x| x).is_empty());
    }
}
