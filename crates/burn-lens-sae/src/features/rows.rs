//! Sparse activations, a row for each token: what an encoder gives and what is kept.

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
