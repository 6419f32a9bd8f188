//! The eigenvalues of a small real matrix, without its eigenvectors.
//!
//! What is wanted of a circuit is a matrix of `d_head` rows for each head, hundreds of them. A general
//! decomposition spends most of its time on vectors and on blocking that only large matrices repay;
//! here a matrix is a few rows in the first cache, and every inner loop runs along one.
//!
//! Source: Francis's implicit double shift; Golub and Van Loan, *Matrix Computations* (4th ed., 2013),
//! §7.4 and §7.5; the shifts and tests for convergence of EISPACK's `hqr`.

#![expect(
    clippy::inline_always,
    reason = "a loop takes the instruction set of the function that it is inlined into"
)]

use faer::MatRef;
use pulp::{Arch, NullaryFnOnce};

use crate::Complex;

/// Sweeps for one eigenvalue before giving up; after 10 and 20 of them a shift is exceptional.
const SWEEPS: usize = 60;

/// Sums of squares of which none overflowed and all that matters is there.
const SQUARED: std::ops::Range<f64> = 1e-200..1e200;

/// The eigenvalues of `m`, in no order; `None` where the iteration does not converge.
pub(crate) fn eigenvalues(m: MatRef<'_, f64>) -> Option<Vec<Complex>> {
    let n = m.nrows();
    let mut rows = Rows { n, stride: n.next_multiple_of(LANES) + LANES, data: Vec::new() };
    rows.data.resize(n * rows.stride, 0.0);
    (0..n).for_each(|i| rows.row_mut(i).iter_mut().enumerate().for_each(|(j, x)| *x = m[(i, j)]));
    Arch::new().dispatch(Search(rows))
}

/// The search for eigenvalues, compiled for what the processor has.
struct Search(Rows);

impl NullaryFnOnce for Search {
    type Output = Option<Vec<Complex>>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self(mut h) = self;
        h.balance();
        h.reduce();
        h.deflate()
    }
}

/// Numbers in a wide register.
const LANES: usize = 8;

/// A square matrix, row by row, with room for [`LANES`] numbers behind each: what is done to a row is done to as many at
/// once, from any column on, and what becomes of those behind it does not matter.
struct Rows {
    n: usize,
    stride: usize,
    data: Vec<f64>,
}

impl std::ops::Index<(usize, usize)> for Rows {
    type Output = f64;

    #[inline(always)]
    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.data[i * self.stride + j]
    }
}

impl std::ops::IndexMut<(usize, usize)> for Rows {
    #[inline(always)]
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.data[i * self.stride + j]
    }
}

impl Rows {
    #[inline(always)]
    fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.stride..][..self.n]
    }

    #[inline(always)]
    fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.data[i * self.stride..][..self.n]
    }

    /// The registers of row `i` from the one that holds column `from`.
    #[inline(always)]
    fn wide(&self, i: usize, from: usize) -> &[[f64; LANES]] {
        &self.data[i * self.stride..][..self.n.next_multiple_of(LANES)].as_chunks().0[from / LANES..]
    }

    #[inline(always)]
    fn wide_mut(&mut self, i: usize, from: usize) -> &mut [[f64; LANES]] {
        &mut self.data[i * self.stride..][..self.n.next_multiple_of(LANES)].as_chunks_mut().0[from / LANES..]
    }

    /// Scales rows and columns by powers of two until the norms of each row and its column are alike:
    /// the same eigenvalues, exactly, with less rounding behind them.
    #[inline(always)]
    fn balance(&mut self) {
        let n = self.n;
        let mut changed = true;
        while changed {
            changed = false;
            // Of all rows at once; those that are not alike are then looked at one by one.
            let (mut rows, mut columns) = (vec![0.0; n], vec![0.0; n]);
            for i in 0..n {
                let row = self.row(i);
                rows[i] = row.iter().map(|x| x.abs()).sum::<f64>() - row[i].abs();
                columns.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.abs());
                columns[i] -= row[i].abs();
            }
            for i in (0..n).filter(|&i| factor(rows[i], columns[i]).is_some()) {
                let off = |j: &usize| *j != i;
                let row = (0..n).filter(off).map(|j| self[(i, j)].abs()).sum();
                let column = (0..n).filter(off).map(|j| self[(j, i)].abs()).sum();
                if let Some(factor) = factor(row, column) {
                    changed = true;
                    self.row_mut(i).iter_mut().for_each(|x| *x /= factor);
                    (0..n).for_each(|j| self[(j, i)] *= factor);
                }
            }
        }
    }

    /// Reduces the matrix to Hessenberg form by reflections.
    #[inline(always)]
    fn reduce(&mut self) {
        let n = self.n;
        let mut v = vec![0.0; n.next_multiple_of(LANES)];
        let mut along = Vec::new();
        for k in 0..n.saturating_sub(2) {
            v[k] = 0.0;
            (k + 1..n).for_each(|i| v[i] = self[(i, k)]);
            if v[k + 2..].iter().all(|&x| x == 0.0) {
                continue;
            }
            let alpha = -v.iter().map(|x| x * x).sum::<f64>().sqrt().copysign(v[k + 1]);
            v[k + 1] -= alpha;
            let tau = 2.0 / v.iter().map(|x| x * x).sum::<f64>();
            along.clear();
            along.resize(self.wide(0, k).len(), [0.0; LANES]);
            for (i, &v) in v.iter().enumerate().take(n).skip(k + 1) {
                axpy(&mut along, v, self.wide(i, k));
            }
            for (i, &v) in v.iter().enumerate().take(n).skip(k + 1) {
                axpy(self.wide_mut(i, k), -tau * v, &along);
            }
            let v = &v.as_chunks().0[(k + 1) / LANES..];
            for i in 0..n {
                let row = self.wide_mut(i, k + 1);
                let along = dot(row, v);
                axpy(row, -tau * along, v);
            }
            (k + 2..n).for_each(|i| self[(i, k)] = 0.0);
        }
    }

    /// The eigenvalues of a Hessenberg matrix, found from its lower end.
    #[inline(always)]
    fn deflate(mut self) -> Option<Vec<Complex>> {
        let n = self.n;
        let norm: f64 = self.data.iter().map(|x| x.abs()).sum();
        let mut found = Vec::with_capacity(n);
        let (mut end, mut shift, mut sweeps) = (n, 0.0, 0);
        while end > 0 {
            let last = end - 1;
            let start = self.start_of_block(last, norm);
            let x = self[(last, last)];
            if start == last {
                found.push(Complex { re: x + shift, im: 0.0 });
                (end, sweeps) = (last, 0);
                continue;
            }
            let y = self[(last - 1, last - 1)];
            let w = self[(last, last - 1)] * self[(last - 1, last)];
            if start + 1 == last {
                found.extend(pair(x, y, w, shift));
                (end, sweeps) = (last - 1, 0);
                continue;
            }
            if sweeps == SWEEPS {
                return None;
            }
            let mut shifts = (x, y, w);
            if sweeps > 0 && sweeps % 10 == 0 {
                shift += x;
                (0..end).for_each(|i| self[(i, i)] -= x);
                let s = self[(last, last - 1)].abs() + self[(last - 1, last - 2)].abs();
                shifts = (0.75 * s, 0.75 * s, -0.4375 * s * s);
            }
            sweeps += 1;
            self.sweep(start, last, shifts);
        }
        Some(found)
    }

    /// The first row of the block that ends with row `last`: above it the subdiagonal is 0.
    #[inline(always)]
    fn start_of_block(&mut self, last: usize, norm: f64) -> usize {
        for i in (1..=last).rev() {
            let around = self[(i - 1, i - 1)].abs() + self[(i, i)].abs();
            let around = if around == 0.0 { norm } else { around };
            if self[(i, i - 1)].abs() <= f64::EPSILON * around {
                self[(i, i - 1)] = 0.0;
                return i;
            }
        }
        0
    }

    /// One double-shifted sweep over the block from row `start` to row `last`.
    #[inline(always)]
    fn sweep(&mut self, start: usize, last: usize, (x, y, w): (f64, f64, f64)) {
        // Where two subdiagonals in a row are small, the sweep may begin there.
        let mut at = last - 2;
        let mut column = loop {
            let z = self[(at, at)];
            let (r, s) = (x - z, y - z);
            let column = [
                (r * s - w) / self[(at + 1, at)] + self[(at, at + 1)],
                self[(at + 1, at + 1)] - z - r - s,
                self[(at + 2, at + 1)],
            ];
            let size: f64 = column.iter().map(|x| x.abs()).sum();
            let column = column.map(|x| x / size);
            if at == start {
                break column;
            }
            let small = self[(at, at - 1)].abs() * (column[1].abs() + column[2].abs());
            let around = self[(at - 1, at - 1)].abs() + z.abs() + self[(at + 1, at + 1)].abs();
            if small <= f64::EPSILON * column[0].abs() * around {
                break column;
            }
            at -= 1;
        };
        for i in at + 2..=last {
            self[(i, i - 2)] = 0.0;
            if i > at + 2 {
                self[(i, i - 3)] = 0.0;
            }
        }
        let mut late = Late::from(at);
        for k in at..last {
            let three = k + 1 < last;
            if k > at {
                column =
                    [self[(k, k - 1)], self[(k + 1, k - 1)], if three { self[(k + 2, k - 1)] } else { 0.0 }];
            }
            let mut size = 1.0;
            if !SQUARED.contains(&squares(column)) {
                size = column.iter().map(|x| x.abs()).sum();
                if size == 0.0 {
                    continue;
                }
                column = column.map(|x| x / size);
            }
            let [p, q, r] = column;
            let s = squares(column).sqrt().copysign(p);
            // What will stand left of the block; reflecting whole registers of rows changes it.
            let below = if k > at {
                -s * size
            } else if start < at {
                -self[(k, k - 1)]
            } else {
                0.0
            };
            let p = p + s;
            let reflection = Reflection { first: [p / s, q / s, r / s], then: [q / p, r / p], three };
            self.reflect_rows(k, last, &reflection);
            if k > 0 {
                self[(k, k - 1)] = below;
            }
            if late.is_full(k) {
                self.catch_up(start, &mut late);
                late.restart(k);
            }
            self.reflect_columns(k, late.first..=(k + 3).min(last), &reflection);
            late.add(k, &reflection);
        }
        self.catch_up(start, &mut late);
    }

    /// Applies reflections to the columns of the rows from `start` up to where they began.
    #[inline(always)]
    fn catch_up(&mut self, start: usize, late: &mut Late) {
        let first = late.first;
        let product = late.product();
        for i in start..first {
            let at = i * self.stride + first;
            let row = self.data[at..].first_chunk_mut::<LANES>().expect("room behind each row");
            let mut sums = [0.0; LANES];
            for (x, m) in row.iter().zip(product) {
                for lane in 0..LANES {
                    sums[lane] = x.mul_add(m[lane], sums[lane]);
                }
            }
            *row = sums;
        }
    }

    /// Applies a reflection to two or three rows, up to column `last`, by whole registers.
    #[inline(always)]
    fn reflect_rows(&mut self, k: usize, last: usize, by: &Reflection) {
        let registers = k / LANES..last / LANES + 1;
        let (a, rest) = self.data[k * self.stride..].split_at_mut(self.stride);
        let (b, rest) = rest.split_at_mut(self.stride);
        let [a, b] = [a, b].map(|row| &mut row.as_chunks_mut::<LANES>().0[registers.clone()]);
        let ([x, y, z], [q, r]) = (by.first, by.then);
        if by.three {
            let c = &mut rest.as_chunks_mut::<LANES>().0[registers];
            for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                let p = lanes(|lane| r.mul_add(c[lane], q.mul_add(b[lane], a[lane])));
                *a = lanes(|lane| p[lane].mul_add(-x, a[lane]));
                *b = lanes(|lane| p[lane].mul_add(-y, b[lane]));
                *c = lanes(|lane| p[lane].mul_add(-z, c[lane]));
            }
        } else {
            for (a, b) in a.iter_mut().zip(b) {
                let p = lanes(|lane| q.mul_add(b[lane], a[lane]));
                *a = lanes(|lane| p[lane].mul_add(-x, a[lane]));
                *b = lanes(|lane| p[lane].mul_add(-y, b[lane]));
            }
        }
    }

    /// Applies a reflection to two or three columns of some rows.
    #[inline(always)]
    fn reflect_columns(&mut self, k: usize, rows: std::ops::RangeInclusive<usize>, by: &Reflection) {
        let ([x, y, z], [q, r]) = (by.first, by.then);
        for i in rows {
            let row = &mut self.row_mut(i)[k..];
            if by.three {
                let [a, b, c] = row.first_chunk_mut::<3>().expect("three columns");
                let p = z.mul_add(*c, y.mul_add(*b, x * *a));
                *a -= p;
                *b = p.mul_add(-q, *b);
                *c = p.mul_add(-r, *c);
            } else {
                let [a, b] = row.first_chunk_mut::<2>().expect("two columns");
                let p = y.mul_add(*b, x * *a);
                *a -= p;
                *b = p.mul_add(-q, *b);
            }
        }
    }
}

/// A reflection of two or three entries: `I − first · (1, then)ᵀ`; of two, the third of each is 0.
struct Reflection {
    first: [f64; 3],
    then: [f64; 2],
    three: bool,
}

/// Reflections of columns, as many as touch [`LANES`] of them, that the rows above still lack. No reflection of the sweep
/// depends on those rows, and they take all of them at once, as one product along the row.
struct Late {
    /// The first column.
    first: usize,
    /// The product of the reflections, column by column.
    columns: Vec<[f64; LANES]>,
    /// The same row by row, once it is asked for.
    rows: Vec<[f64; LANES]>,
}

impl Late {
    /// None yet, the first at column `first`.
    #[inline(always)]
    fn from(first: usize) -> Self {
        let mut late = Self { first, columns: vec![[0.0; LANES]; LANES], rows: vec![[0.0; LANES]; LANES] };
        late.restart(first);
        late
    }

    #[inline(always)]
    fn restart(&mut self, first: usize) {
        self.first = first;
        for (at, column) in self.columns.iter_mut().enumerate() {
            *column = [0.0; LANES];
            column[at] = 1.0;
        }
    }

    /// Whether a reflection at column `k` reaches beyond these columns.
    #[inline(always)]
    fn is_full(&self, k: usize) -> bool {
        k + 3 > self.first + LANES
    }

    #[inline(always)]
    fn add(&mut self, k: usize, by: &Reflection) {
        let ([x, y, z], [q, r]) = (by.first, by.then);
        let [a, b, c] = self.columns[k - self.first..].first_chunk_mut().expect("three columns");
        let p = lanes(|lane| z.mul_add(c[lane], y.mul_add(b[lane], x * a[lane])));
        *a = lanes(|lane| a[lane] - p[lane]);
        *b = lanes(|lane| p[lane].mul_add(-q, b[lane]));
        *c = lanes(|lane| p[lane].mul_add(-r, c[lane]));
    }

    /// The product of the reflections, row by row.
    #[inline(always)]
    fn product(&mut self) -> &[[f64; LANES]] {
        for (at, row) in self.rows.iter_mut().enumerate() {
            for (x, column) in row.iter_mut().zip(&self.columns) {
                *x = column[at];
            }
        }
        &self.rows
    }
}

/// A wide register of numbers.
#[inline(always)]
fn lanes(f: impl FnMut(usize) -> f64) -> [f64; LANES] {
    std::array::from_fn(f)
}

/// The sum of squares.
#[inline(always)]
fn squares([x, y, z]: [f64; 3]) -> f64 {
    z.mul_add(z, y.mul_add(y, x * x))
}

/// The eigenvalues of a block of two.
#[inline(always)]
fn pair(x: f64, y: f64, w: f64, shift: f64) -> [Complex; 2] {
    let p = 0.5 * (y - x);
    let q = p * p + w;
    let z = q.abs().sqrt();
    let x = x + shift;
    if q >= 0.0 {
        let z = p + z.copysign(p);
        let other = if z == 0.0 { x } else { x - w / z };
        [Complex { re: x + z, im: 0.0 }, Complex { re: other, im: 0.0 }]
    } else {
        [Complex { re: x + p, im: z }, Complex { re: x + p, im: -z }]
    }
}

/// The power of two that a column is to be multiplied with, and its row divided by, if that makes a difference.
#[inline(always)]
fn factor(row: f64, column: f64) -> Option<f64> {
    if row == 0.0 || column == 0.0 {
        return None;
    }
    // Within a factor of two there is nothing to gain.
    if (0.5..2.0).contains(&(row / column)) {
        return None;
    }
    let power = ((row / column).log2() / 2.0).round().clamp(-100.0, 100.0);
    let factor = 2.0_f64.powi(power as i32);
    (column * factor + row / factor < 0.95 * (column + row)).then_some(factor)
}

#[inline(always)]
fn axpy(y: &mut [[f64; LANES]], a: f64, x: &[[f64; LANES]]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = lanes(|lane| a.mul_add(x[lane], y[lane]));
    }
}

/// A product of two vectors.
#[inline(always)]
fn dot(x: &[[f64; LANES]], y: &[[f64; LANES]]) -> f64 {
    let mut sums = [0.0; LANES];
    for (x, y) in x.iter().zip(y) {
        sums = lanes(|lane| x[lane].mul_add(y[lane], sums[lane]));
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use faer::Mat;

    use super::*;

    /// Numbers that look random, between -1 and 1.
    fn random(n: usize, mut state: u64) -> Mat<f64> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
        };
        Mat::from_fn(n, n, |_, _| next())
    }

    /// Each eigenvalue of one list has one of the other near it.
    #[track_caller]
    fn same(found: &[Complex], expected: &[Complex], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let mut left = expected.to_vec();
        for z in found {
            let away = |w: &Complex| (z.re - w.re).hypot(z.im - w.im);
            let nearest = (0..left.len()).min_by(|&a, &b| away(&left[a]).total_cmp(&away(&left[b])));
            let nearest = left.swap_remove(nearest.expect("as many"));
            assert!(away(&nearest) < tolerance, "{z} is {:e} from {nearest}", away(&nearest));
        }
    }

    fn of_faer(m: &Mat<f64>) -> Vec<Complex> {
        m.eigenvalues().unwrap().iter().map(|z| Complex { re: z.re, im: z.im }).collect()
    }

    #[test]
    fn as_a_general_decomposition_finds_them() {
        for n in [0, 1, 2, 3, 4, 5, 17, 64, 130] {
            for seed in 0..4 {
                let m = random(n, seed);
                same(&eigenvalues(m.as_ref()).unwrap(), &of_faer(&m), 1e-11);
            }
        }
    }

    #[test]
    fn of_matrices_whose_eigenvalues_are_known() {
        let real = |values: &[f64]| values.iter().map(|&re| Complex { re, im: 0.0 }).collect::<Vec<_>>();
        let triangle = Mat::from_fn(6, 6, |i, j| if j >= i { (i + 2 * j) as f64 } else { 0.0 });
        same(&eigenvalues(triangle.as_ref()).unwrap(), &real(&[0.0, 3.0, 6.0, 9.0, 12.0, 15.0]), 1e-12);
        let turn = Mat::from_fn(2, 2, |i, j| [[0.0, -2.0], [2.0, 0.0]][i][j]);
        let expected = [Complex { re: 0.0, im: 2.0 }, Complex { re: 0.0, im: -2.0 }];
        same(&eigenvalues(turn.as_ref()).unwrap(), &expected, 1e-14);
        // A cyclic shift has the roots of one; no shift of the iteration tells them apart by size.
        let n = 12;
        let shift = Mat::from_fn(n, n, |i, j| f64::from(u8::from((i + 1) % n == j)));
        let roots = (0..n).map(|k| (k as f64 * std::f64::consts::TAU / n as f64).sin_cos());
        let roots: Vec<Complex> = roots.map(|(im, re)| Complex { re, im }).collect();
        same(&eigenvalues(shift.as_ref()).unwrap(), &roots, 1e-12);
        same(&eigenvalues(Mat::zeros(5, 5).as_ref()).unwrap(), &real(&[0.0; 5]), 1e-300);
    }

    #[test]
    fn rows_and_columns_of_very_different_sizes() {
        let plain = random(8, 9);
        let scale = |i: usize| 2.0_f64.powi(12 * (i as i32 - 4));
        let scaled = Mat::from_fn(8, 8, |i, j| plain[(i, j)] * scale(i) / scale(j));
        same(&eigenvalues(scaled.as_ref()).unwrap(), &of_faer(&plain), 1e-12);
    }

    #[test]
    fn what_is_not_finite_ends() {
        assert!(eigenvalues(Mat::from_fn(4, 4, |_, _| f64::NAN).as_ref()).is_none());
    }
}
