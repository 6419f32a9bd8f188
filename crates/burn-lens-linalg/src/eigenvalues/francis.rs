//! The iteration: sweeps of reflections along a Hessenberg matrix, until eigenvalues come off its lower end.

use super::{LANES, Rows, lanes};
use crate::Complex;

/// Sweeps for one eigenvalue before giving up; after 10 and 20 of them a shift is exceptional.
const SWEEPS: usize = 60;

/// Sums of squares of which none overflowed and all that matters is there.
const SQUARED: std::ops::Range<f64> = 1e-200..1e200;

impl Rows {
    /// The eigenvalues of a Hessenberg matrix, found from its lower end.
    #[inline(always)]
    pub(super) fn deflate(mut self) -> Option<Vec<Complex>> {
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
///
/// The products are lists, not arrays: of an array the compiler takes each number apart, and works on one at a time.
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
