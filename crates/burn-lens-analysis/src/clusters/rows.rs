//! Points of one dimension, a row each.

use crate::AnalysisError;

/// Points of one dimension, a row each.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    values: Vec<f64>,
    width: usize,
}

impl Rows {
    /// `values` `[rows, width]`, row by row.
    ///
    /// # Errors
    ///
    /// If there is no row, rows are not whole, or a number is not finite.
    pub fn new(values: Vec<f64>, width: usize) -> Result<Self, AnalysisError> {
        let refuse = |reason: String| Err(AnalysisError::Refused { what: "rows to cluster", reason });
        if width == 0 || values.is_empty() || !values.len().is_multiple_of(width) {
            return refuse(format!("{} numbers are no rows of {width}", values.len()));
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(Self { values, width }),
            Some(at) => refuse(format!("row {} holds {} at {}", at / width, values[at], at % width)),
        }
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Never: there is at least one row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How long a row is.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// In order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks(self.width)
    }

    /// One row.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// How many rows differ from all before them.
    #[must_use]
    pub fn distinct(&self) -> usize {
        let mut rows: Vec<&[f64]> = self.iter().collect();
        rows.sort_by(|a, b| {
            a.iter()
                .zip(*b)
                .map(|(a, b)| a.total_cmp(b))
                .find(|o| o.is_ne())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        rows.dedup();
        rows.len()
    }
}

pub(super) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
