//! What a feature does to the prediction at a token: `log p(with) − log p(without)`.
//!
//! "Without" means the direct effect: the final residual stream `r` less `a d_f`. Where the
//! dictionary is at the last layer that is the patched forward pass; elsewhere it leaves out what
//! later blocks would make of it, as every such tool does. No product with `W_U` is needed for a
//! feature at a token. With `L = C r ⊙ w W_U` (once for each token) and `ℓ = C d_f ⊙ w W_U` (once for
//! each feature):
//!
//! `δ = z' − z = L (1/σ' − 1/σ) − a ℓ / σ'`, and the effect is `log Σ e^z' − log Σ e^z − δ`.
//!
//! Both products are made for a tile of the vocabulary at a time, for all tokens and features
//! that meet, and are read once.

use std::ops::Range;

use pulp::Arch;

use super::{
    FeatureError, Hover, TokenValue,
    kernels::{Largest, largest_sum, range, sum_exp},
    readout::{Readout, Rows, failed},
    threads,
};

/// A feature at a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Meeting {
    /// `prompt · n_positions + position`
    pub(super) place: u64,
    /// Which feature of those at hand.
    pub(super) slot: u32,
    /// The activation there.
    pub(super) activation: f32,
    /// The token that follows.
    pub(super) next: u32,
}

/// The effect of a feature at a token on the prediction of the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Effect {
    /// `loss(with) − loss(without)` of the token that follows; NaN where that cannot be predicted, or
    /// something is not finite.
    pub(super) loss: f32,
    /// Empty where something is not finite.
    pub(super) hover: Hover,
}

/// What all effects need.
pub(super) struct Effects<'a> {
    pub(super) readout: &'a Readout,
    /// Centered directions, `[slot, d_model]`.
    pub(super) directions: &'a [f32],
    /// Rows of each hover table.
    pub(super) k: usize,
    pub(super) n_threads: usize,
    /// Bytes that the tiles may take.
    pub(super) memory: u64,
}

/// The state of one meeting while the vocabulary goes by.
struct Running {
    /// `a / σ'`
    scaled: f32,
    /// `1/σ' − 1/σ`
    change: f32,
    /// `1/σ'`
    inverse: f32,
    /// Where its direction is in a tile.
    row: usize,
    /// `Σ e^(z' − most − shift)`
    sum: f64,
    /// The largest `z' − most` so far.
    shift: f32,
    /// Of `δ`.
    largest: Largest,
    /// Of `−δ`.
    smallest: Largest,
    at_next: f32,
    next: u32,
}

/// The state of one token.
struct Place {
    /// `1/σ`
    inverse: f32,
    /// The largest logit so far.
    most: f32,
    /// `Σ e^(z − most)`
    sum: f64,
    meetings: Range<usize>,
}

/// A part of the vocabulary: its first token, `L` and `ℓ` and the bias there.
struct Tile<'a> {
    first: u32,
    places: &'a [f32],
    features: &'a [f32],
    bias: &'a [f32],
    soft_cap: Option<f32>,
}

impl Effects<'_> {
    /// The effects of meetings, which are in order of their places. `resid` gives the final residual
    /// stream at places in order, row by row.
    pub(super) fn of(
        &self,
        meetings: &[Meeting],
        resid: impl Fn(&[u64]) -> Result<Vec<f32>, FeatureError>,
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<Effect>, FeatureError> {
        let mut effects = Vec::with_capacity(meetings.len());
        while effects.len() < meetings.len() {
            let block = self.block(&meetings[effects.len()..]);
            let mut places: Vec<u64> = block.iter().map(|meeting| meeting.place).collect();
            places.dedup();
            let mut rows = resid(&places)?;
            self.readout.center(&mut rows);
            effects.extend(self.of_block(block, places.len(), rows)?);
            progress(effects.len());
        }
        Ok(effects)
    }

    /// As many meetings as there is memory for; at least those of one token.
    fn block<'m>(&self, meetings: &'m [Meeting]) -> &'m [Meeting] {
        let most = (self.memory / 4 / (self.place_bytes() as u64)).max(1) as usize;
        let mut places = 0;
        let mut end = 0;
        for same in meetings.chunk_by(|a, b| a.place == b.place) {
            places += 1;
            end += same.len();
            if places >= most {
                break;
            }
        }
        &meetings[..end]
    }

    /// What a token takes: its residual vector twice and its part of a tile.
    fn place_bytes(&self) -> usize {
        4 * (2 * self.readout.d_model() + self.tile_width())
    }

    fn tile_width(&self) -> usize {
        /// Wide enough for a product to be quick, narrow enough for a row to stay in the cache.
        const WIDTH: usize = 1024;
        WIDTH.min(self.readout.d_vocab())
    }

    fn of_block(
        &self,
        meetings: &[Meeting],
        n_places: usize,
        rows: Vec<f32>,
    ) -> Result<Vec<Effect>, FeatureError> {
        let d = self.readout.d_model();
        let mut slots: Vec<u32> = meetings.iter().map(|meeting| meeting.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        let direction = |slot: u32| &self.directions[slot as usize * d..(slot as usize + 1) * d];
        let features: Vec<f32> = slots.iter().flat_map(|&slot| direction(slot)).copied().collect();
        let (mut states, mut running) = (Vec::with_capacity(n_places), Vec::with_capacity(meetings.len()));
        for (same, r) in meetings.chunk_by(|a, b| a.place == b.place).zip(rows.chunks_exact(d)) {
            let scale = self.readout.scale(r, 0.0, r);
            let start = running.len();
            running.extend(same.iter().map(|meeting| {
                let without = self.readout.scale(r, meeting.activation, direction(meeting.slot));
                Running {
                    scaled: (f64::from(meeting.activation) / without) as f32,
                    change: (1.0 / without - 1.0 / scale) as f32,
                    inverse: (1.0 / without) as f32,
                    row: slots.partition_point(|&slot| slot < meeting.slot),
                    sum: 0.0,
                    shift: f32::NEG_INFINITY,
                    largest: Largest::new(self.k),
                    smallest: Largest::new(self.k),
                    at_next: f32::NAN,
                    next: meeting.next,
                }
            }));
            states.push(Place {
                inverse: (1.0 / scale) as f32,
                most: f32::NEG_INFINITY,
                sum: 0.0,
                meetings: start..running.len(),
            });
        }
        let (rows, features) = (self.readout.upload(rows), self.readout.upload(features));
        self.sweep(&rows, &features, &mut states, &mut running)?;
        Ok(states
            .iter()
            .flat_map(|place| running[place.meetings.clone()].iter().map(|state| state.effect(place)))
            .collect())
    }

    /// Goes through the vocabulary, tile by tile.
    fn sweep(
        &self,
        rows: &Rows,
        features: &Rows,
        states: &mut [Place],
        running: &mut [Running],
    ) -> Result<(), FeatureError> {
        let ranges = threads::divide(states.iter().map(|place| place.meetings.len() + 1), self.n_threads);
        let (mut first, d_vocab) = (0, self.readout.d_vocab());
        while first < d_vocab {
            let count = self.tile_width().min(d_vocab - first);
            let product =
                |rows: &Rows| self.readout.project(rows, first, count).map_err(failed("the unembedding"));
            let (place_tile, feature_tile) = (product(rows)?, product(features)?);
            let tile = Tile {
                first: first as u32,
                places: &place_tile,
                features: &feature_tile,
                bias: &self.readout.bias[first..first + count],
                soft_cap: self.readout.soft_cap,
            };
            let mut tasks = Vec::new();
            let (mut states_left, mut running_left) = (&mut *states, &mut *running);
            for range in &ranges {
                let (mine, rest) = states_left.split_at_mut(range.len());
                let n_meetings = mine.iter().map(|place| place.meetings.len()).sum();
                let (my_running, running_rest) = running_left.split_at_mut(n_meetings);
                (states_left, running_left) = (rest, running_rest);
                tasks.push((range.start, mine, my_running));
            }
            // The inner loops are compiled for each set of vector instructions; none contracts or
            // reorders arithmetic, so that the numbers are the same.
            threads::run(tasks, |(start, states, running)| {
                Arch::new().dispatch(|| tile.pass(start, states, running));
            });
            first += count;
        }
        Ok(())
    }
}

impl Tile<'_> {
    /// One tile for some tokens, the first of which is number `start`.
    #[expect(clippy::inline_always, reason = "compiled with the vector instructions of its caller")]
    #[inline(always)]
    fn pass(&self, start: usize, states: &mut [Place], mut running: &mut [Running]) {
        let width = self.bias.len();
        let (mut logits, mut below, mut delta) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
        let zeros = vec![0.0; width];
        for (at, place) in states.iter_mut().enumerate() {
            let row = &self.places[(start + at) * width..(start + at + 1) * width];
            for ((logit, &x), &bias) in logits.iter_mut().zip(row).zip(self.bias) {
                *logit = x * place.inverse + bias;
            }
            if let Some(cap) = self.soft_cap {
                for logit in &mut logits {
                    *logit = cap * (*logit / cap).tanh();
                }
            }
            let most = range(&logits).1.max(place.most);
            let factor = f64::from(place.most - most).exp();
            for (below, &logit) in below.iter_mut().zip(&logits) {
                *below = logit - most;
            }
            place.sum = place.sum * factor + sum_exp(&below, &zeros, 0.0);
            place.most = most;
            let (mine, rest) = running.split_at_mut(place.meetings.len());
            running = rest;
            for state in mine {
                self.deltas(row, &logits, state, &mut delta);
                state.take(self.first, factor, &below, &delta);
            }
        }
    }

    /// `z' − z`
    #[expect(clippy::inline_always, reason = "compiled with the vector instructions of its caller")]
    #[inline(always)]
    fn deltas(&self, row: &[f32], logits: &[f32], state: &Running, delta: &mut [f32]) {
        let width = self.bias.len();
        let direction = &self.features[state.row * width..(state.row + 1) * width];
        match self.soft_cap {
            None => {
                for ((delta, &x), &d) in delta.iter_mut().zip(row).zip(direction) {
                    *delta = x * state.change - d * state.scaled;
                }
            }
            Some(cap) => {
                let with_bias = row.iter().zip(direction).zip(self.bias).zip(logits);
                for (delta, (((&x, &d), &bias), &logit)) in delta.iter_mut().zip(with_bias) {
                    let without = x * state.inverse - d * state.scaled + bias;
                    *delta = cap * (without / cap).tanh() - logit;
                }
            }
        }
    }
}

impl Running {
    /// Takes in a tile: `below` is `z − most` and `delta` is `z' − z` there.
    #[expect(clippy::inline_always, reason = "compiled with the vector instructions of its caller")]
    #[inline(always)]
    fn take(&mut self, first: u32, factor: f64, below: &[f32], delta: &[f32]) {
        let (low, high) = range(delta);
        let most = largest_sum(below, delta);
        self.sum *= factor;
        if most > self.shift {
            self.sum *= f64::from(self.shift - most).exp();
            self.shift = most;
        }
        self.sum += sum_exp(below, delta, self.shift);
        if self.largest.takes(high) {
            (first..).zip(delta).for_each(|(token, &x)| self.largest.offer(token, x));
        }
        if self.smallest.takes(-low) {
            (first..).zip(delta).for_each(|(token, &x)| self.smallest.offer(token, -x));
        }
        if let Some(&x) = self.next.checked_sub(first).and_then(|at| delta.get(at as usize)) {
            self.at_next = x;
        }
    }

    fn effect(&self, place: &Place) -> Effect {
        let difference = (self.sum.ln() + f64::from(self.shift) - place.sum.ln()) as f32;
        if !difference.is_finite() {
            return Effect { loss: f32::NAN, hover: Hover::default() };
        }
        let value = |token, delta: f32| TokenValue { token, value: difference - delta };
        Effect {
            loss: self.at_next - difference,
            hover: Hover {
                top: self.smallest.found.iter().map(|&(token, x)| value(token, -x)).collect(),
                bottom: self.largest.found.iter().map(|&(token, x)| value(token, x)).collect(),
            },
        }
    }
}
