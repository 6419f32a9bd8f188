//! Which sequences are shown: the strongest, and a sample of each interval.
//!
//! The choice depends on the seed, the feature and the position of a token, never on how tokens
//! were batched: a sample is the tokens whose hash of these three is smallest.

use std::{cmp::Ordering, collections::HashMap, ops::Range};

use super::{GroupKind, Intervals, SequenceOptions, Window};

/// One feature's activations that are not zero, in order of position.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    /// `prompt · n_positions + position`
    pub(super) places: Vec<u64>,
    pub(super) values: Vec<f32>,
}

/// A group of chosen places.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chosen {
    pub(super) kind: GroupKind,
    pub(super) n_active: u64,
    /// The place, and how many others with the same tokens were left out.
    pub(super) places: Vec<(u64, u64)>,
}

/// What the choice must know of the prompts.
pub(super) trait Prompts {
    /// The tokens of a prompt and which of them are no padding.
    fn prompt(&self, prompt: usize) -> (&[u32], Range<usize>);
    /// How long prompts are.
    fn n_positions(&self) -> usize;
}

/// The positions shown for a place, and which of them the place is.
pub(super) fn window(options: &SequenceOptions, prompts: &dyn Prompts, place: u64) -> (Range<usize>, usize) {
    let n = prompts.n_positions() as u64;
    let position = (place % n) as usize;
    let real = prompts.prompt((place / n) as usize).1;
    let (before, after) = match options.window {
        Window::Around { before, after } | Window::Inside { before, after } => (before, after),
        Window::Prompt => (usize::MAX, usize::MAX),
    };
    let start = position.saturating_sub(before).max(real.start);
    let end = position.saturating_add(after).saturating_add(1).min(real.end);
    (start..end, position - start)
}

/// Chooses the sequences of one feature.
pub(super) fn choose(
    options: &SequenceOptions,
    feature: usize,
    column: &Column,
    prompts: &dyn Prompts,
) -> Vec<Chosen> {
    let eligible: Vec<usize> = (0..column.places.len())
        .filter(|&at| is_eligible(options.window, column.places[at], prompts))
        .collect();
    if eligible.is_empty() {
        return Vec::new();
    }
    let value = |&at: &usize| column.values[at];
    let (low, high) = eligible
        .iter()
        .map(value)
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let mut groups = vec![extreme(options, GroupKind::Top, column, &eligible, prompts)];
    let edges = edges(options, column, &eligible, low.min(0.0), high.max(0.0));
    groups.extend(edges.windows(2).enumerate().rev().map(|(at, edges)| {
        let is_last = at + 1 == options.n_intervals;
        interval(options, feature, column, &eligible, (edges[0], edges[1], is_last))
    }));
    if low < 0.0 {
        groups.push(extreme(options, GroupKind::Bottom, column, &eligible, prompts));
    }
    groups
}

fn is_eligible(window: Window, place: u64, prompts: &dyn Prompts) -> bool {
    let Window::Inside { before, after } = window else { return true };
    let n = prompts.n_positions() as u64;
    let position = (place % n) as usize;
    let real = prompts.prompt((place / n) as usize).1;
    position > real.start + before && position + after < real.end
}

/// The largest (or smallest) activations, strongest first, ties by place.
fn extreme(
    options: &SequenceOptions,
    kind: GroupKind,
    column: &Column,
    eligible: &[usize],
    prompts: &dyn Prompts,
) -> Chosen {
    let order = |&a: &usize, &b: &usize| {
        let strength = match kind {
            GroupKind::Bottom => column.values[a].total_cmp(&column.values[b]),
            _ => column.values[b].total_cmp(&column.values[a]),
        };
        strength.then(column.places[a].cmp(&column.places[b]))
    };
    let mut taken = Taken { options, prompts, places: Vec::new(), texts: HashMap::new() };
    let mut rest = eligible.to_vec();
    // Most often the first few are enough; so only as many are sorted as are looked at.
    let mut sorted = 0;
    let mut step = 4 * options.n_top.max(1);
    while sorted < rest.len() && taken.places.len() < options.n_top {
        let end = (sorted + step).min(rest.len());
        if end < rest.len() {
            rest[sorted..].select_nth_unstable_by(end - sorted, order);
        }
        rest[sorted..end].sort_unstable_by(order);
        rest[sorted..end].iter().for_each(|&at| taken.consider(column.places[at]));
        (sorted, step) = (end, step * 4);
    }
    Chosen { kind, n_active: eligible.len() as u64, places: taken.places }
}

/// The sequences taken so far, to keep others like them out.
struct Taken<'a> {
    options: &'a SequenceOptions,
    prompts: &'a dyn Prompts,
    places: Vec<(u64, u64)>,
    /// Which of `places` shows a text.
    texts: HashMap<Vec<u32>, usize>,
}

impl Taken<'_> {
    fn consider(&mut self, place: u64) {
        let full = self.places.len() >= self.options.n_top;
        if !self.options.distinct {
            if !full {
                self.places.push((place, 0));
            }
            return;
        }
        let n = self.prompts.n_positions() as u64;
        let (range, _) = window(self.options, self.prompts, place);
        let shown = |&(other, _): &(u64, u64)| {
            let (theirs, _) = window(self.options, self.prompts, other);
            other / n == place / n && theirs.contains(&((place % n) as usize))
        };
        if self.places.iter().any(shown) {
            return;
        }
        let text = self.prompts.prompt((place / n) as usize).0[range].to_vec();
        if let Some(&at) = self.texts.get(&text) {
            self.places[at].1 += 1;
        } else if !full {
            self.texts.insert(text, self.places.len());
            self.places.push((place, 0));
        }
    }
}

/// The ends of the intervals, rising.
fn edges(options: &SequenceOptions, column: &Column, eligible: &[usize], low: f32, high: f32) -> Vec<f32> {
    let n = options.n_intervals;
    if n == 0 {
        return Vec::new();
    }
    match options.intervals {
        Intervals::EqualWidth => {
            let (from, to) = (f64::from(low), f64::from(high));
            let inner = (1..n).map(|at| (from + (to - from) * at as f64 / n as f64) as f32);
            std::iter::once(low).chain(inner).chain([high]).collect()
        }
        Intervals::Quantiles => {
            let mut values: Vec<f32> = eligible.iter().map(|&at| column.values[at]).collect();
            values.sort_unstable_by(f32::total_cmp);
            (0..=n).map(|at| values[(at * values.len() / n).min(values.len() - 1)]).collect()
        }
    }
}

/// A sample of the activations in `low..high`, or `low..=high` for the last interval.
fn interval(
    options: &SequenceOptions,
    feature: usize,
    column: &Column,
    eligible: &[usize],
    (low, high, is_last): (f32, f32, bool),
) -> Chosen {
    let inside = |&at: &usize| {
        let value = column.values[at];
        low <= value && (value < high || is_last && value <= high)
    };
    let mut hashed: Vec<(u64, usize)> = eligible
        .iter()
        .copied()
        .filter(inside)
        .map(|at| (priority(options.seed, feature as u64, column.places[at]), at))
        .collect();
    let n_active = hashed.len() as u64;
    let k = options.n_per_interval.min(hashed.len());
    if k < hashed.len() {
        hashed.select_nth_unstable(k);
        hashed.truncate(k);
    }
    hashed.sort_unstable_by(|&(_, a), &(_, b)| by_strength(column, a, b));
    let places = hashed.into_iter().map(|(_, at)| (column.places[at], 0)).collect();
    Chosen { kind: GroupKind::Interval { low, high }, n_active, places }
}

fn by_strength(column: &Column, a: usize, b: usize) -> Ordering {
    column.values[b].total_cmp(&column.values[a]).then(column.places[a].cmp(&column.places[b]))
}

/// A number that looks random and depends on nothing but its arguments (SplitMix64, Steele et
/// al. 2014).
fn priority(seed: u64, feature: u64, place: u64) -> u64 {
    [seed, feature, place].into_iter().fold(0, |state, word| {
        let mut x = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Text(Vec<Vec<u32>>);

    impl Prompts for Text {
        fn prompt(&self, prompt: usize) -> (&[u32], Range<usize>) {
            (&self.0[prompt], 0..self.0[prompt].len())
        }
        fn n_positions(&self) -> usize {
            self.0[0].len()
        }
    }

    fn column(values: &[f32]) -> Column {
        let active = || values.iter().enumerate().filter(|(_, value)| **value != 0.0);
        Column {
            places: active().map(|(at, _)| at as u64).collect(),
            values: active().map(|(_, &v)| v).collect(),
        }
    }

    fn options(window: Window) -> SequenceOptions {
        SequenceOptions { window, n_top: 3, n_intervals: 4, n_per_interval: 2, ..SequenceOptions::default() }
    }

    const AROUND: Window = Window::Around { before: 1, after: 1 };

    #[test]
    fn intervals_are_half_open_and_leave_nothing_out() {
        let column = column(&[0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 4.0, 1.0]);
        let groups = choose(&options(AROUND), 0, &column, &Text(vec![(0..8).collect()]));
        let intervals: Vec<_> =
            groups.iter().filter(|g| matches!(g.kind, GroupKind::Interval { .. })).collect();
        // High to low: [3, 4], [2, 3), [1, 2), [0, 1); zeros are not active.
        assert_eq!(intervals.iter().map(|g| g.n_active).collect::<Vec<_>>(), [3, 1, 2, 1]);
        assert_eq!(groups.len(), 5, "no bottom group without negative activations");
    }

    #[test]
    fn the_top_shows_no_place_twice_and_no_text_twice() {
        // Prompt 1 repeats prompt 0.
        let text = Text(vec![vec![1, 2, 3, 4, 5, 6], vec![1, 2, 3, 4, 5, 6]]);
        let column = column(&[0.0, 5.0, 4.0, 0.0, 3.0, 0.0, 0.0, 5.0, 0.0, 0.0, 1.0, 0.0]);
        let top = &choose(&options(AROUND), 0, &column, &text)[0];
        // 4.0 is shown beside the first 5.0; the second 5.0 and 1.0 repeat texts.
        assert_eq!(top.places, [(1, 1), (4, 1)]);
        let all = SequenceOptions { distinct: false, ..options(AROUND) };
        assert_eq!(choose(&all, 0, &column, &text)[0].places, [(1, 0), (7, 0), (2, 0)]);
    }

    #[test]
    fn windows_fit_the_prompt_whatever_their_size() {
        let text = Text(vec![(0..4).collect()]);
        for (window_options, place, expected) in [
            (Window::Around { before: 0, after: 0 }, 0, (0..1, 0)),
            (Window::Around { before: 5, after: 0 }, 2, (0..3, 2)),
            (Window::Around { before: 100, after: 100 }, 1, (0..4, 1)),
            (Window::Prompt, 3, (0..4, 3)),
        ] {
            assert_eq!(window(&options(window_options), &text, place), expected);
        }
        let inside = options(Window::Inside { before: 1, after: 1 });
        let groups = choose(&inside, 0, &column(&[9.0, 8.0, 7.0, 6.0]), &text);
        assert_eq!(groups[0].places, [(2, 0)], "position 1 has no token before its window");
        let longer = options(Window::Inside { before: 10, after: 10 });
        assert_eq!(choose(&longer, 0, &column(&[9.0, 8.0, 7.0, 6.0]), &text), []);
    }

    #[test]
    fn fewer_than_wanted_are_all_there_are() {
        let groups = choose(&options(AROUND), 0, &column(&[0.0, 2.0]), &Text(vec![vec![7, 8]]));
        assert_eq!(groups[0].places, [(1, 0)]);
        assert_eq!(choose(&options(AROUND), 0, &column(&[0.0]), &Text(vec![vec![7]])), []);
    }

    #[test]
    fn samples_depend_on_seed_and_feature_alone() {
        let values: Vec<f32> = (0..1000_u16).map(|at| 1.0 + f32::from(at % 7)).collect();
        let text = Text(vec![(0..1000).collect()]);
        let sample = |seed, feature| {
            choose(&SequenceOptions { seed, ..options(AROUND) }, feature, &column(&values), &text)
        };
        assert_eq!(sample(1, 5), sample(1, 5));
        assert_ne!(sample(1, 5), sample(2, 5));
        assert_ne!(sample(1, 5), sample(1, 6));
    }

    #[test]
    fn more_than_two_to_the_24_active_tokens() {
        // Where `torch.multinomial` gives up.
        let n = (1 << 24) + 3;
        let column = Column { places: (0..n).collect(), values: vec![1.0; n as usize] };
        let options = SequenceOptions { n_intervals: 1, n_top: 1, distinct: false, ..options(AROUND) };
        let groups = choose(&options, 0, &column, &Text(vec![vec![0; n as usize]]));
        assert_eq!((groups[1].n_active, groups[1].places.len()), (n, 2));
        assert_eq!(groups[0].places, [(0, 0)]);
    }

    #[test]
    fn negative_activations_have_intervals_and_a_bottom() {
        let groups =
            choose(&options(AROUND), 0, &column(&[-4.0, 0.0, 0.0, 4.0]), &Text(vec![(0..4).collect()]));
        assert_eq!(
            groups.last().map(|g| (g.kind, g.places.clone())),
            Some((GroupKind::Bottom, vec![(0, 0), (3, 0)]))
        );
        assert_eq!(groups[1].kind, GroupKind::Interval { low: 2.0, high: 4.0 });
    }
}
