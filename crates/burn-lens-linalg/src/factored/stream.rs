//! Entries of products that are too large to form, a block of rows at a time.

use std::cmp::Ordering;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::{FactoredMatrix, side::product};
use crate::{LinalgError, Values, host::Host};

/// One entry of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entry {
    /// Its row.
    pub row: usize,
    /// Its column.
    pub col: usize,
    /// What stands there.
    pub value: f64,
}

/// Which entries count as the top ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extreme {
    /// The largest.
    #[default]
    Largest,
    /// The smallest: the most negative.
    Smallest,
    /// Those of largest magnitude.
    Magnitude,
}

impl Extreme {
    fn key(self, value: f64) -> f64 {
        match self {
            Self::Largest => value,
            Self::Smallest => -value,
            Self::Magnitude => value.abs(),
        }
    }
}

/// The best entries so far.
struct Top {
    k: usize,
    which: Extreme,
    entries: Vec<Entry>,
    /// What an entry must exceed to get in.
    bar: f64,
}

impl Top {
    fn new(k: usize, which: Extreme) -> Self {
        Self { k, which, entries: Vec::with_capacity(2 * k), bar: f64::NEG_INFINITY }
    }

    fn row(&mut self, row: usize, values: &[f32]) {
        for (col, &value) in values.iter().enumerate() {
            let value = f64::from(value);
            if self.which.key(value) > self.bar {
                self.entries.push(Entry { row, col, value });
                if self.entries.len() >= 2 * self.k {
                    self.settle();
                }
            }
        }
    }

    /// Best first; of equals, the one that comes first in the matrix.
    fn order(&self, a: &Entry, b: &Entry) -> Ordering {
        self.which.key(b.value).total_cmp(&self.which.key(a.value)).then((a.row, a.col).cmp(&(b.row, b.col)))
    }

    fn settle(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|a, b| self.order(a, b));
        entries.truncate(self.k);
        if entries.len() == self.k {
            self.bar = entries.last().map_or(self.bar, |entry| self.which.key(entry.value));
        }
        self.entries = entries;
    }

    fn merged(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self.settle();
        self
    }
}

impl FactoredMatrix {
    /// The `k` top entries of each matrix, best first: `[.., k]` (or all, if there are fewer).
    ///
    /// The product is formed a block of rows at a time and never held: of `W_E W_OV W_U` with
    /// 50,257² entries, tens of megabytes at once. Entries are compared in `f32`.
    ///
    /// # Errors
    ///
    /// If the product holds NaN or an infinity, or the device fails.
    pub fn top_entries(&self, k: usize, which: Extreme) -> Result<Values<Entry>, LinalgError> {
        let kept = k.min(self.ldim() * self.rdim());
        let mut all = Vec::with_capacity(self.count() * kept);
        for i in 0..self.count() {
            let mut top = Top::new(kept, which);
            self.blocks(i, |start, block| {
                let cols = self.rdim();
                let found = block.par_chunks(cols.max(1) * ROWS_A_THREAD).enumerate().map(|(chunk, rows)| {
                    let mut top = Top::new(kept, which);
                    for (row, values) in rows.chunks(cols.max(1)).enumerate() {
                        top.row(start + chunk * ROWS_A_THREAD + row, values);
                    }
                    top
                });
                let found = found.reduce(|| Top::new(kept, which), Top::merged);
                let best = std::mem::replace(&mut top, Top::new(kept, which));
                top = best.merged(found);
            })?;
            all.extend(top.entries);
        }
        Ok(Values::new([&self.lead[..], &[kept]].concat(), all))
    }

    /// The `k` top entries of each of `rows`, best first: `[.., rows, k]` (or all, if there are
    /// fewer).
    ///
    /// # Errors
    ///
    /// If there is no such row, the product holds NaN or an infinity, or the device fails.
    pub fn row_top_k(&self, rows: &[usize], k: usize, which: Extreme) -> Result<Values<Entry>, LinalgError> {
        let list = rows.iter().map(|&row| isize::try_from(row).unwrap_or(isize::MAX)).collect();
        let mut index = vec![super::Index::Ellipsis];
        index.extend([burn_lens_tensor::Slice::List(list), burn_lens_tensor::Slice::All].map(Into::into));
        let (part, kept) = (self.index(&index)?, k.min(self.rdim()));
        let mut all = Vec::with_capacity(self.count() * rows.len() * kept);
        for i in 0..self.count() {
            part.blocks(i, |start, block| {
                let found = block.par_chunks(self.rdim().max(1)).enumerate().map(|(row, values)| {
                    let mut top = Top::new(kept, which);
                    top.row(rows[start + row], values);
                    top.settle();
                    top.entries
                });
                all.par_extend(found.flatten_iter());
            })?;
        }
        Ok(Values::new([&self.lead[..], &[rows.len(), kept]].concat(), all))
    }

    /// The diagonal of each matrix: `[.., min(ldim, rdim)]`.
    ///
    /// # Errors
    ///
    /// If the diagonal holds NaN or an infinity, or the device fails.
    pub fn diagonal(&self) -> Result<Values, LinalgError> {
        let k = self.ldim().min(self.rdim());
        let mut all = Vec::with_capacity(self.count() * k);
        for i in 0..self.count() {
            if self.mdim() == 0 {
                all.extend(std::iter::repeat_n(0.0, k));
                continue;
            }
            let [a, b] = [&self.left, &self.right].map(|side| side.select(&[i]).dense().narrow(1, 0, k));
            let diagonal = Host::read((a * b).sum_dim(2), &self.naming().whole())?;
            let diagonal = diagonal.mat(0, || self.naming().at(i))?;
            all.extend((0..k).map(|at| diagonal[(at, 0)]));
        }
        Ok(Values::new([&self.lead[..], &[k]].concat(), all))
    }

    /// Matrix `i` in blocks of rows: `f` of the first row's number and the block, row-major.
    fn blocks(&self, i: usize, mut f: impl FnMut(usize, &[f32])) -> Result<(), LinalgError> {
        let (rows, cols) = (self.ldim(), self.rdim());
        let block = (BLOCK / cols.max(1)).clamp(1, rows.max(1));
        let left = self.left.select(&[i]);
        let right = self.right.select(&[i]).dense().transpose();
        for start in (0..rows).step_by(block) {
            let chosen: Vec<usize> = (start..(start + block).min(rows)).collect();
            let a: Tensor<3> = left.select_rows(&chosen).dense();
            let part = product(a, right.clone());
            let data = part.without_autodiff().try_into_data().map_err(|error| LinalgError::Device {
                matrix: self.naming().at(i),
                reason: format!("{error:?}"),
            })?;
            let data = data.convert::<f32>();
            let values = data.as_slice::<f32>().expect("converted to f32");
            if !values.par_iter().all(|value| value.is_finite()) {
                return Err(LinalgError::NotFinite { matrix: self.naming().at(i) });
            }
            f(start, values);
        }
        Ok(())
    }
}

/// The entries of a block: 64 MiB of `f32`.
const BLOCK: usize = 1 << 24;

/// Rows of a block that one task looks through.
const ROWS_A_THREAD: usize = 16;
