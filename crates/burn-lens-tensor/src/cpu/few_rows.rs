//! A few rows times a weight matrix, at the speed at which memory gives the weights.
//!
//! Products of many rows copy the weights into an order that suits them, which pays when each is
//! used often. Here each weight is read once, where it lies or into the cache. Threads share the columns; a sum has the
//! same order whatever their number.

use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::{
    half::Value,
    path::dispatch,
    product::Operand,
    raw::{Matrix, product},
    rows::{LANES, total},
};

/// Up to how many rows this is the faster way, with row-major weights.
pub(crate) const MOST: usize = 96;

/// Up to how many rows this is the faster way.
pub(super) fn most<E>(w: &Operand<'_, E>) -> usize {
    match w {
        Operand::Rows(_) => MOST,
        Operand::Columns(_) => 24,
    }
}

/// Up to how many rows weights are multiplied where they lie. For more, a few columns are put in a row first: rows of
/// weights lie so far apart that a processor cannot read one after the other at speed.
const IN_PLACE: usize = 32;

/// Columns that are put in a row: they stay in the second cache.
const PACKED: usize = 128;

/// Terms of a sum that are added before it is stored.
const TERMS: usize = 8;

/// Columns that a thread takes at least: reading short stretches of each row of the weights is slow.
const NARROWEST: usize = 256;

/// Columns of row-major weights that are worked on at once: long stretches are read faster, but
/// several rows use them again while they are in the first cache.
const fn strip(rows: usize) -> usize {
    if rows == 1 { 4096 } else { 512 }
}

/// `out += x w` for the columns from `first` on, of which `out` holds `columns` a row.
struct Strip<'a, E> {
    x: &'a [f32],
    inner: usize,
    w: Operand<'a, E>,
    /// The distance between rows of row-major weights.
    stride: usize,
    first: usize,
    out: &'a mut [f32],
    columns: usize,
}

impl<E: Value> NullaryFnOnce for Strip<'_, E> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        match self.w {
            Operand::Rows(w) => self.by_rows(w),
            Operand::Columns(w) => self.by_columns(w),
        }
    }
}

impl<E: Value> Strip<'_, E> {
    #[inline(always)]
    fn by_rows(self, w: &[E]) {
        let Self { x, inner, stride, first, out, columns, .. } = self;
        let of = |k: usize| &w[k * stride + first..][..columns];
        let whole = inner / TERMS * TERMS;
        for k in (0..whole).step_by(TERMS) {
            let w: [&[E]; TERMS] =
                [of(k), of(k + 1), of(k + 2), of(k + 3), of(k + 4), of(k + 5), of(k + 6), of(k + 7)];
            for (out, x) in out.chunks_exact_mut(columns).zip(x.chunks_exact(inner)) {
                let x = x[k..].first_chunk::<TERMS>().expect("a whole group");
                for at in 0..columns {
                    let mut sum = out[at];
                    for term in 0..TERMS {
                        sum = x[term].mul_add(w[term][at].wide(), sum);
                    }
                    out[at] = sum;
                }
            }
        }
        for k in whole..inner {
            for (out, x) in out.chunks_exact_mut(columns).zip(x.chunks_exact(inner)) {
                for (out, w) in out.iter_mut().zip(of(k)) {
                    *out = x[k].mul_add(w.wide(), *out);
                }
            }
        }
    }

    #[inline(always)]
    fn by_columns(self, w: &[E]) {
        const AT_ONCE: usize = 4;
        let Self { x, inner, first, out, columns, .. } = self;
        let of = |column: usize| &w[(first + column) * inner..][..inner];
        if columns == out.len() {
            // One row: memory gives one stretch after the other faster than several at once.
            for (column, out) in out.iter_mut().enumerate() {
                *out += dot(x, of(column));
            }
            return;
        }
        let whole = columns / AT_ONCE * AT_ONCE;
        for column in (0..whole).step_by(AT_ONCE) {
            let w = [of(column), of(column + 1), of(column + 2), of(column + 3)];
            // Two rows at a time: eight sums, as many as a processor adds to at once.
            for (out, x) in out.chunks_mut(2 * columns).zip(x.chunks(2 * inner)) {
                let sums = match x.split_at_checked(inner) {
                    Some((first, second)) if !second.is_empty() => eight_dots([first, second], w),
                    _ => [four_dots(x, w), [0.0; AT_ONCE]],
                };
                for (out, sums) in out.chunks_exact_mut(columns).zip(sums) {
                    for (out, sum) in out[column..].iter_mut().zip(sums) {
                        *out += sum;
                    }
                }
            }
        }
        for column in whole..columns {
            for (out, x) in out.chunks_exact_mut(columns).zip(x.chunks_exact(inner)) {
                out[column] += dot(x, of(column));
            }
        }
    }
}

/// `lanes += x w`, lane by lane.
#[inline(always)]
fn added<E: Value>(lanes: &mut [f32; LANES], x: &[f32; LANES], w: &[E; LANES]) {
    for lane in 0..LANES {
        lanes[lane] = x[lane].mul_add(w[lane].wide(), lanes[lane]);
    }
}

/// `lanes += x w` for what is left of a vector behind whole chunks.
#[inline(always)]
fn added_rest<E: Value>(lanes: &mut [f32; LANES], x: &[f32], w: &[E]) {
    for ((lane, x), w) in lanes.iter_mut().zip(x).zip(w) {
        *lane = x.mul_add(w.wide(), *lane);
    }
}

/// Products of `x` with four vectors of its length.
#[inline(always)]
fn four_dots<E: Value>(x: &[f32], [a, b, c, d]: [&[E]; 4]) -> [f32; 4] {
    let [mut of_a, mut of_b, mut of_c, mut of_d] = [[0.0_f32; LANES]; 4];
    let (chunks, rest) = x.as_chunks::<LANES>();
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let ((c, c_rest), (d, d_rest)) = (c.as_chunks::<LANES>(), d.as_chunks::<LANES>());
    for ((((x, a), b), c), d) in chunks.iter().zip(a).zip(b).zip(c).zip(d) {
        added(&mut of_a, x, a);
        added(&mut of_b, x, b);
        added(&mut of_c, x, c);
        added(&mut of_d, x, d);
    }
    added_rest(&mut of_a, rest, a_rest);
    added_rest(&mut of_b, rest, b_rest);
    added_rest(&mut of_c, rest, c_rest);
    added_rest(&mut of_d, rest, d_rest);
    [total(of_a), total(of_b), total(of_c), total(of_d)]
}

/// [`four_dots`] of two vectors.
#[inline(always)]
fn eight_dots<E: Value>([x, y]: [&[f32]; 2], [a, b, c, d]: [&[E]; 4]) -> [[f32; 4]; 2] {
    let [mut x_a, mut x_b, mut x_c, mut x_d] = [[0.0_f32; LANES]; 4];
    let [mut y_a, mut y_b, mut y_c, mut y_d] = [[0.0_f32; LANES]; 4];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let ((c, c_rest), (d, d_rest)) = (c.as_chunks::<LANES>(), d.as_chunks::<LANES>());
    for (((((x, y), a), b), c), d) in x.iter().zip(y).zip(a).zip(b).zip(c).zip(d) {
        added(&mut x_a, x, a);
        added(&mut x_b, x, b);
        added(&mut x_c, x, c);
        added(&mut x_d, x, d);
        added(&mut y_a, y, a);
        added(&mut y_b, y, b);
        added(&mut y_c, y, c);
        added(&mut y_d, y, d);
    }
    for (lanes, w) in [(&mut x_a, a_rest), (&mut x_b, b_rest), (&mut x_c, c_rest), (&mut x_d, d_rest)] {
        added_rest(lanes, x_rest, w);
    }
    for (lanes, w) in [(&mut y_a, a_rest), (&mut y_b, b_rest), (&mut y_c, c_rest), (&mut y_d, d_rest)] {
        added_rest(lanes, y_rest, w);
    }
    [[total(x_a), total(x_b), total(x_c), total(x_d)], [total(y_a), total(y_b), total(y_c), total(y_d)]]
}

/// The product of two vectors, in four times as many sums as there are lanes: one alone would wait
/// for each addition to end.
#[inline(always)]
fn dot<E: Value>(x: &[f32], w: &[E]) -> f32 {
    const SUMS: usize = 4 * LANES;
    let mut sums = [0.0_f32; SUMS];
    let ((x, x_rest), (w, w_rest)) = (x.as_chunks::<SUMS>(), w.as_chunks::<SUMS>());
    for (x, w) in x.iter().zip(w) {
        for at in 0..SUMS {
            sums[at] = x[at].mul_add(w[at].wide(), sums[at]);
        }
    }
    let mut lanes = [0.0_f32; LANES];
    for lane in 0..LANES {
        lanes[lane] = (sums[lane] + sums[lane + LANES]) + (sums[lane + 2 * LANES] + sums[lane + 3 * LANES]);
    }
    let ((x, x_rest), (w, w_rest)) = (x_rest.as_chunks::<LANES>(), w_rest.as_chunks::<LANES>());
    for (x, w) in x.iter().zip(w) {
        added(&mut lanes, x, w);
    }
    added_rest(&mut lanes, x_rest, w_rest);
    total(lanes)
}

/// Some columns of a matrix `[inner, all]`, in `f32`.
fn packed<E: Value>(w: &[E], [inner, all]: [usize; 2], first: usize, columns: usize) -> Vec<f32> {
    let mut packed = vec![0.0; inner * columns];
    dispatch(Pack { w, all, first, columns, packed: &mut packed });
    packed
}

struct Pack<'a, E> {
    w: &'a [E],
    all: usize,
    first: usize,
    columns: usize,
    packed: &'a mut [f32],
}

impl<E: Value> NullaryFnOnce for Pack<'_, E> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (packed, w) in self.packed.chunks_exact_mut(self.columns).zip(self.w.chunks_exact(self.all)) {
            for (packed, w) in packed.iter_mut().zip(&w[self.first..]) {
                *packed = w.wide();
            }
        }
    }
}

/// `x w + b`, as [`linear`](super::product::linear) gives it; `x` is not empty.
pub(super) fn few_rows<E: Value>(
    x: &[f32],
    w: Operand<'_, E>,
    b: Option<&[f32]>,
    [rows, columns]: [usize; 2],
) -> Vec<f32> {
    /// Below this many multiplications one thread is faster.
    const THREADS_FROM: usize = 1 << 16;
    let (inner, all) = (x.len() / rows, columns);
    let threads = if x.len() * columns < THREADS_FROM { 1 } else { rayon::current_num_threads() };
    let strips = columns.div_ceil(strip(rows)).next_multiple_of(threads);
    let width = match w {
        Operand::Rows(_) if rows > IN_PLACE => PACKED,
        _ => columns.div_ceil(strips.max(1)).next_multiple_of(LANES).max(NARROWEST),
    };
    let fill = |at: usize, out: &mut [f32]| {
        let (first, columns) = (at * width, out.len() / rows);
        if let Some(b) = b {
            out.chunks_exact_mut(columns).for_each(|out| out.copy_from_slice(&b[first..first + columns]));
        }
        match w {
            Operand::Rows(w) if rows > IN_PLACE => {
                let packed = packed(w, [inner, all], first, columns);
                let x = Matrix { data: x, start: 0, strides: [inner, 1] };
                let w = Matrix { data: &packed, start: 0, strides: [columns, 1] };
                product((out, columns), [rows, inner, columns], x, w, b.is_some());
            }
            _ => dispatch(Strip { x, inner, w, stride: all, first, out, columns }),
        }
    };
    if rows == 1 {
        let mut out = vec![0.0; columns];
        if threads == 1 {
            out.chunks_mut(width).enumerate().for_each(|(at, out)| fill(at, out));
        } else {
            out.par_chunks_mut(width).enumerate().for_each(|(at, out)| fill(at, out));
        }
        return out;
    }
    let part = |at: usize| {
        let mut part = vec![0.0; rows * width.min(columns - at * width)];
        fill(at, &mut part);
        part
    };
    let count = columns.div_ceil(width);
    let parts: Vec<Vec<f32>> = if threads == 1 {
        (0..count).map(part).collect()
    } else {
        (0..count).into_par_iter().map(part).collect()
    };
    let mut out = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for part in &parts {
            let columns = part.len() / rows;
            out.extend_from_slice(&part[row * columns..][..columns]);
        }
    }
    out
}
