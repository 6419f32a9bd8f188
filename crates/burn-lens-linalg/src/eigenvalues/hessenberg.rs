//! A matrix made similar to one that is simpler to search: balanced, then zero below its subdiagonal.

use super::{LANES, Rows, lanes};

impl Rows {
    /// Scales rows and columns by powers of two until the norms of each row and its column are alike:
    /// the same eigenvalues, exactly, with less rounding behind them.
    #[inline(always)]
    pub(super) fn balance(&mut self) {
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
    pub(super) fn reduce(&mut self) {
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
