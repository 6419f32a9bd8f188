//! Sparse activations, a row for each token: what an encoder gives and what is kept.

use super::threads;

/// Rows of `(index, value)` pairs, the indices of a row rising.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseRows {
    starts: Vec<u64>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl Default for SparseRows {
    fn default() -> Self {
        Self { starts: vec![0], indices: Vec::new(), values: Vec::new() }
    }
}

impl SparseRows {
    /// Adds a row.
    ///
    /// # Panics
    ///
    /// If its indices do not rise.
    pub fn push_row(&mut self, row: impl IntoIterator<Item = (u32, f32)>) {
        let start = self.indices.len();
        for (index, value) in row {
            assert!(
                self.indices.len() == start || self.indices.last().is_some_and(|&last| last < index),
                "the indices of a sparse row rise"
            );
            self.indices.push(index);
            self.values.push(value);
        }
        self.starts.push(self.indices.len() as u64);
    }

    /// Everything that is not 0 of a matrix, row by row, over several threads; NaN is not 0.
    ///
    /// # Panics
    ///
    /// If `values` is no whole number of rows of `width`.
    #[must_use]
    pub fn of_dense(values: &[f32], width: usize) -> Self {
        /// Values that are looked at together: most of them are 0.
        const CHUNK: usize = 32;
        assert!(values.len().is_multiple_of(width.max(1)), "a matrix has whole rows");
        let n_rows = values.len() / width.max(1);
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let ranges = threads::divide(std::iter::repeat_n(1, n_rows), n_threads);
        let parts = threads::run(ranges, |range| {
            let mut part = Self::default();
            for row in values[range.start * width..range.end * width].chunks_exact(width) {
                for (at, chunk) in row.chunks(CHUNK).enumerate() {
                    // All bits but the sign.
                    if chunk.iter().fold(0, |bits, value| bits | (value.to_bits() << 1)) != 0 {
                        let pairs = (at * CHUNK..).zip(chunk).filter(|(_, value)| **value != 0.0);
                        for (index, &value) in pairs {
                            part.indices.push(index as u32);
                            part.values.push(value);
                        }
                    }
                }
                part.starts.push(part.indices.len() as u64);
            }
            part
        });
        let mut rows = Self::default();
        for part in parts {
            let first = rows.indices.len() as u64;
            rows.starts.extend(part.starts[1..].iter().map(|start| first + start));
            rows.indices.extend(part.indices);
            rows.values.extend(part.values);
        }
        rows
    }

    /// Rows from their parts, if they fit together: `starts` from 0 to the number of pairs, and
    /// indices that rise within each row.
    #[must_use]
    pub fn from_parts(starts: Vec<u64>, indices: Vec<u32>, values: Vec<f32>) -> Option<Self> {
        let fits = starts.first() == Some(&0)
            && starts.is_sorted()
            && starts.last() == Some(&(indices.len() as u64))
            && values.len() == indices.len();
        let rows = Self { starts, indices, values };
        (fits && (0..rows.n_rows()).all(|row| rows.row(row).0.is_sorted_by(|a, b| a < b))).then_some(rows)
    }

    /// Where each row starts, the indices, the values.
    #[must_use]
    pub fn parts(&self) -> (&[u64], &[u32], &[f32]) {
        (&self.starts, &self.indices, &self.values)
    }

    /// How many rows there are.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many pairs there are.
    #[must_use]
    pub fn n_pairs(&self) -> usize {
        self.indices.len()
    }

    /// The indices and values of a row.
    #[must_use]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.starts[row] as usize..self.starts[row + 1] as usize;
        (&self.indices[range.clone()], &self.values[range])
    }

    /// The value at `(row, index)`; 0 where there is none.
    #[must_use]
    pub fn value(&self, row: usize, index: u32) -> f32 {
        let (indices, values) = self.row(row);
        indices.binary_search(&index).map_or(0.0, |at| values[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_rows_become_sparse_ones() {
        for width in [1_usize, 31, 32, 33, 100] {
            let values: Vec<f32> = (0..7 * width)
                .map(|at| match at % 5 {
                    0 => at as f32,
                    1 => f32::NAN,
                    2 => -0.0,
                    _ => 0.0,
                })
                .collect();
            let rows = SparseRows::of_dense(&values, width);
            let mut expected = SparseRows::default();
            for row in values.chunks(width) {
                expected.push_row((0..).zip(row.iter().copied()).filter(|(_, value)| *value != 0.0));
            }
            let bits =
                |rows: &SparseRows| rows.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(
                (&rows.starts, &rows.indices, bits(&rows)),
                (&expected.starts, &expected.indices, bits(&expected))
            );
        }
        assert_eq!(SparseRows::of_dense(&[], 3).n_rows(), 0);
    }
}
