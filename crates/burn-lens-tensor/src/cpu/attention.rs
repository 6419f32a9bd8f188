//! Attention in blocks of queries: scores, pattern and mixture each on its own, or all three
//! with the scores of one block in the cache.
//!
//! Both ways run the same products and the same loops on the same blocks, so they give the same
//! bits. A block covers the keys between the first and the last that one of its queries sees.

use std::ops::Range;

use burn::tensor::{bf16, f16};
use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::{
    half::Value,
    math::tanh,
    path::dispatch,
    raw::{Matrix, product},
    room::{Wanted, filled},
    rows::LANES,
    softmax::softmax,
};
use crate::kernels::Sight;

/// How many terms of a sum over keys one product adds up. Fixed, and counted from the first
/// key, so that leaving out keys whose weight is zero leaves every bit of the sum as it is.
const KEYS: usize = 512;

/// A tensor `[batch, pos, heads, d_head]`, in whatever order it lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) start: usize,
    pub(crate) dims: [usize; 4],
    pub(crate) strides: [usize; 4],
}

impl<'a> Heads<'a> {
    /// The vectors of one head from `pos` on, as rows.
    fn rows(&self, batch: usize, pos: usize, head: usize) -> Matrix<'a> {
        let [b, p, h, e] = self.strides;
        Matrix { data: self.data, start: self.start + batch * b + pos * p + head * h, strides: [p, e] }
    }
}

/// What happens to a product of query and key, and who sees whom.
#[derive(Clone, Debug)]
pub(crate) struct Scoring<'a> {
    pub(crate) scale: f32,
    pub(crate) soft_cap: Option<f32>,
    /// ALiBi's slope of each head.
    pub(crate) slopes: Option<&'a [f32]>,
    /// The logit of each head's sink.
    pub(crate) sinks: Option<&'a [f32]>,
    pub(crate) sight: &'a Sight,
    /// What scores and pattern are rounded to.
    pub(crate) rounding: Rounding,
}

/// The type whose numbers are kept of scores and of the pattern, where all of attention is computed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Not,
    Bf16,
    F16,
}

impl Rounding {
    #[inline(always)]
    fn apply(self, row: &mut [f32]) {
        #[inline(always)]
        fn rounded<E: Value>(row: &mut [f32]) {
            for x in row {
                *x = E::nearest(*x).wide();
            }
        }
        match self {
            Self::Not => {}
            Self::Bf16 => rounded::<bf16>(row),
            Self::F16 => rounded::<f16>(row),
        }
    }
}

/// Queries that are computed together: of one head at positions in a row or, where there is
/// but one position, of the heads in a row that share keys.
#[derive(Clone, Copy, Debug)]
struct Block {
    batch: usize,
    head: usize,
    query: usize,
    rows: usize,
    by_head: bool,
}

impl Block {
    fn head_and_query(&self, row: usize) -> [usize; 2] {
        if self.by_head { [self.head + row, self.query] } else { [self.head, self.query + row] }
    }
}

/// One attention's sizes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    queries: usize,
    heads: usize,
    group: usize,
    keys: usize,
}

impl Sizes {
    fn new(q: [usize; 4], k: [usize; 4]) -> Self {
        let [batch, queries, heads, _] = q;
        let [_, keys, kv_heads, _] = k;
        Self { batch, queries, heads, group: heads / kv_heads.max(1), keys }
    }

    /// How many queries a block holds. It depends on the sizes alone.
    fn rows(&self) -> usize {
        let rows = if self.queries > 256 { 64 } else { 32 };
        rows.min(self.queries).max(1)
    }

    fn by_head(&self) -> bool {
        self.queries == 1
    }

    /// Every block, in the order `[batch, head, query]`.
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        for batch in 0..self.batch {
            if self.by_head() {
                let heads = (0..self.heads).step_by(self.group.max(1));
                blocks.extend(heads.map(|head| Block {
                    batch,
                    head,
                    query: 0,
                    rows: self.group,
                    by_head: true,
                }));
                continue;
            }
            for head in 0..self.heads {
                let queries = (0..self.queries).step_by(self.rows());
                blocks.extend(queries.map(|query| Block {
                    batch,
                    head,
                    query,
                    rows: self.rows().min(self.queries - query),
                    by_head: false,
                }));
            }
        }
        blocks
    }

    /// Gives `f` each block with the part of `out`, `[batch, heads, queries, keys]`, that is its.
    fn each_block(&self, mut out: &mut [f32], f: impl Fn(Block, &mut [f32]) + Sync) {
        let mut parts = Vec::new();
        for block in self.blocks() {
            let (part, rest) = std::mem::take(&mut out).split_at_mut(block.rows * self.keys);
            parts.push((block, part));
            out = rest;
        }
        parts.into_par_iter().rev().for_each(|(block, part)| f(block, part));
    }

    /// Each block with its part of `rooms`, which are `[batch, heads, queries, keys]`.
    fn blocks_with<'a>(&self, mut rooms: [Wanted<'a>; 2]) -> Vec<(Block, [Wanted<'a>; 2])> {
        let part = |block: Block| {
            let part =
                rooms.each_mut().map(|room| room.as_mut().map(|room| room.take(block.rows * self.keys)));
            (block, part)
        };
        self.blocks().into_iter().map(part).collect()
    }

    /// Gives `f` each block with the part of `out`, `[batch, queries, heads, d_head]`, where its
    /// first row begins, the distance between its rows, its part of `rooms`, and a buffer of its own.
    fn each_mixture(
        &self,
        out: &mut [f32],
        d_head: usize,
        rooms: [Wanted<'_>; 2],
        f: impl Fn(Block, (&mut [f32], usize), [Wanted<'_>; 2], &mut Vec<f32>) + Sync,
    ) {
        let row = self.heads * d_head;
        let blocks = self.blocks_with(rooms);
        if self.by_head() {
            let parts = out.par_chunks_mut((self.group * d_head).max(1)).zip(blocks);
            return parts.for_each_init(Vec::new, |buffer, (part, (block, rooms))| {
                f(block, (part, d_head), rooms, buffer);
            });
        }
        // Blocks of the same queries write rows between each other's: a thread takes those of all heads.
        let chunks = self.queries.div_ceil(self.rows());
        let mut parts = Vec::new();
        for out in out.chunks_mut((self.queries * row).max(1)) {
            parts.extend(out.chunks_mut((self.rows() * row).max(1)).map(|part| (part, Vec::new())));
        }
        for (block, rooms) in blocks {
            parts[block.batch * chunks + block.query / self.rows()].1.push((block, rooms));
        }
        let parts = parts.into_par_iter().rev().with_max_len(1);
        parts.for_each_init(Vec::new, |buffer, (part, blocks)| {
            for (block, rooms) in blocks {
                f(block, (&mut part[block.head * d_head..], row), rooms, buffer);
            }
        });
    }
}

/// The keys that some query of the block sees; the first is a multiple of [`LANES`], so that
/// sums over a row fall into the same lanes as in a whole row.
fn columns(scoring: &Scoring<'_>, block: &Block, keys: usize) -> Range<usize> {
    let [_, first] = block.head_and_query(0);
    let [_, last] = block.head_and_query(block.rows - 1);
    let start = scoring.sight.seen(first, keys).start / LANES * LANES;
    start..scoring.sight.seen(last, keys).end.max(start)
}

/// Turns products of a block into scores, scores into the pattern, or does both.
struct Finish<'a> {
    scoring: &'a Scoring<'a>,
    block: &'a Block,
    /// Which keys the rows hold.
    columns: Range<usize>,
    keys: usize,
    rows: &'a mut [f32],
    stride: usize,
    to: [bool; 2],
}

impl NullaryFnOnce for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { scoring, block, columns, keys, rows, stride, to: [scores, pattern] } = self;
        let width = columns.len();
        for (at, row) in rows.chunks_mut(stride).enumerate() {
            let [head, query] = block.head_and_query(at);
            let row = &mut row[..width];
            let seen = scoring.sight.seen(query, keys);
            let seen = seen.start.saturating_sub(columns.start)..seen.end.saturating_sub(columns.start);
            let seen = seen.start.min(width)..seen.end.min(width);
            if scores {
                scored(row, scoring, head, columns.start as f32 - scoring.sight.position(query) as f32);
                row[..seen.start].fill(f32::NEG_INFINITY);
                row[seen.end..].fill(f32::NEG_INFINITY);
                if let Some(tokens) = scoring.sight.tokens_of(block.batch, keys) {
                    for (x, _) in row.iter_mut().zip(&tokens[columns.clone()]).filter(|(_, token)| !**token) {
                        *x = f32::NEG_INFINITY;
                    }
                }
                scoring.rounding.apply(row);
            }
            if pattern {
                if scoring.sight.is_blind(block.batch, query, keys) {
                    row.fill(0.0);
                    continue;
                }
                let (before, rest) = row.split_at_mut(seen.start / LANES * LANES);
                let (inside, behind) = rest.split_at_mut(seen.end - before.len());
                before.fill(0.0);
                behind.fill(0.0);
                softmax(inside, scoring.sinks.map(|sinks| sinks[head]));
                scoring.rounding.apply(inside);
            }
        }
    }
}

/// Scale, soft-cap and ALiBi; `distance` is that from the query to the row's first key.
#[inline(always)]
fn scored(row: &mut [f32], scoring: &Scoring<'_>, head: usize, distance: f32) {
    let scale = scoring.scale;
    let inverse = 1.0 / scale;
    if inverse * scale == 1.0 && scale.to_bits().trailing_zeros() >= 23 {
        for x in row.iter_mut() {
            *x *= inverse; // exact: a power of two
        }
    } else {
        for x in row.iter_mut() {
            *x /= scale;
        }
    }
    if let Some(cap) = scoring.soft_cap {
        for x in row.iter_mut() {
            *x = tanh(*x / cap) * cap;
        }
    }
    if let Some(slopes) = scoring.slopes {
        let slope = slopes[head];
        for (at, x) in row.iter_mut().enumerate() {
            *x += slope * (distance + at as f32);
        }
    }
}

/// Products of a block's queries and the keys in `columns`, into `out` with rows of `stride`.
fn products(
    q: &Heads<'_>,
    k: &Heads<'_>,
    sizes: &Sizes,
    block: &Block,
    columns: &Range<usize>,
    out: (&mut [f32], usize),
) {
    let mut queries = q.rows(block.batch, block.query, block.head);
    if block.by_head {
        queries.strides[0] = q.strides[2];
    }
    let keys = k.rows(block.batch, columns.start, block.head / sizes.group);
    let keys = Matrix { strides: [keys.strides[1], keys.strides[0]], ..keys };
    product(out, [block.rows, q.dims[3], columns.len()], queries, keys, false);
}

/// Values mixed by the weights of a block, which hold the keys in `columns`.
fn mixture(
    weights: Matrix<'_>,
    v: &Heads<'_>,
    sizes: &Sizes,
    block: &Block,
    columns: &Range<usize>,
    out: (&mut [f32], usize),
) {
    let (out, stride) = out;
    let d_head = v.dims[3];
    if columns.is_empty() {
        out.chunks_mut(stride).take(block.rows).for_each(|row| row[..d_head].fill(0.0));
        return;
    }
    let mut start = columns.start;
    while start < columns.end {
        let end = ((start / KEYS + 1) * KEYS).min(columns.end);
        let part = Matrix { start: weights.start + (start - columns.start) * weights.strides[1], ..weights };
        let values = v.rows(block.batch, start, block.head / sizes.group);
        product((&mut *out, stride), [block.rows, end - start, d_head], part, values, start > columns.start);
        start = end;
    }
}

/// Scores `[batch, heads, queries, keys]`, `-inf` where a query does not see a key.
pub(crate) fn scores(q: &Heads<'_>, k: &Heads<'_>, scoring: &Scoring<'_>) -> Vec<f32> {
    let sizes = Sizes::new(q.dims, k.dims);
    let mut out = vec![0.0; sizes.batch * sizes.heads * sizes.queries * sizes.keys];
    sizes.each_block(&mut out, |block, out| {
        let columns = columns(scoring, &block, sizes.keys);
        for row in out.chunks_mut(sizes.keys) {
            row[..columns.start].fill(f32::NEG_INFINITY);
            row[columns.end..].fill(f32::NEG_INFINITY);
        }
        if columns.is_empty() {
            return;
        }
        let inside = &mut out[columns.start..];
        products(q, k, &sizes, &block, &columns, (&mut *inside, sizes.keys));
        dispatch(Finish {
            scoring,
            block: &block,
            columns,
            keys: sizes.keys,
            rows: inside,
            stride: sizes.keys,
            to: [true, false],
        });
    });
    out
}

struct Pattern<'a>(&'a Scoring<'a>, &'a Block, &'a mut [f32], usize);

impl NullaryFnOnce for Pattern<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self(scoring, block, rows, keys) = self;
        for (at, row) in rows.chunks_exact_mut(keys).enumerate() {
            let [head, query] = block.head_and_query(at);
            if scoring.sight.is_blind(block.batch, query, keys) {
                row.fill(0.0);
            } else {
                softmax(row, scoring.sinks.map(|sinks| sinks[head]));
            }
        }
    }
}

/// Turns scores `[batch, heads, queries, keys]` into the pattern, in place.
pub(crate) fn pattern(scores: &mut [f32], dims: [usize; 4], scoring: &Scoring<'_>) {
    let [batch, heads, queries, keys] = dims;
    let sizes = Sizes { batch, queries, heads, group: 1, keys };
    sizes.each_block(scores, |block, rows| dispatch(Pattern(scoring, &block, rows, keys)));
}

/// Values mixed by a pattern `[batch, heads, queries, keys]` into `[batch, queries, heads, d_head]`.
pub(crate) fn mixed(pattern: &[f32], dims: [usize; 4], v: &Heads<'_>) -> Vec<f32> {
    let [batch, heads, queries, keys] = dims;
    let sizes = Sizes::new([batch, queries, heads, 0], v.dims);
    let d_head = v.dims[3];
    let mut out = vec![0.0; batch * queries * heads * d_head];
    sizes.each_mixture(&mut out, d_head, [None, None], |block, out, _, _| {
        let start = ((block.batch * heads + block.head) * queries + block.query) * keys;
        let weights = Matrix { data: pattern, start, strides: [keys, 1] };
        mixture(weights, v, &sizes, &block, &(0..keys), out);
    });
    out
}

/// All of attention, `[batch, queries, heads, d_head]`, with no more scores in the cache than a
/// block's; and scores and pattern, `[batch, heads, queries, keys]`, where they are `wanted`.
pub(crate) fn attention(
    [q, k, v]: [&Heads<'_>; 3],
    scoring: &Scoring<'_>,
    wanted: [bool; 2],
) -> ([Option<Vec<f32>>; 2], Vec<f32>) {
    let sizes = Sizes::new(q.dims, k.dims);
    let (d_head, keys) = (v.dims[3], sizes.keys);
    let mut out = vec![0.0; sizes.batch * sizes.queries * sizes.heads * d_head];
    // Scores that are wanted leave the block before it becomes the pattern.
    let steps: &[[bool; 2]] = if wanted[0] { &[[true, false], [false, true]] } else { &[[true, true]] };
    let len = sizes.batch * sizes.heads * sizes.queries * keys;
    let (seen, ()) = filled(wanted, len, |rooms| {
        sizes.each_mixture(&mut out, d_head, rooms, |block, out, [mut scores, pattern], buffer| {
            let columns = columns(scoring, &block, keys);
            let place = [columns.start, columns.len()];
            let width = columns.len();
            buffer.resize(block.rows * width, 0.0);
            if width > 0 {
                products(q, k, &sizes, &block, &columns, (&mut *buffer, width));
            }
            for &to in steps {
                if width > 0 {
                    let columns = columns.clone();
                    let rows = &mut buffer[..];
                    dispatch(Finish { scoring, block: &block, columns, keys, rows, stride: width, to });
                }
                if let Some(scores) = scores.take() {
                    scores.write(keys, buffer, place, f32::NEG_INFINITY);
                }
            }
            if let Some(pattern) = pattern {
                pattern.write(keys, buffer, place, 0.0);
            }
            let weights = Matrix { data: buffer, start: 0, strides: [width, 1] };
            mixture(weights, v, &sizes, &block, &columns, out);
        });
    });
    (seen, out)
}
