//! What cannot be drawn.

/// Why something could not be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VizError {
    /// A matrix has another size than its labels say.
    #[error("{what} has {found} values, but {rows} rows and {columns} columns need {}", rows * columns)]
    MatrixSize {
        /// Which matrix.
        what: String,
        /// How many row labels there are.
        rows: usize,
        /// How many column labels there are.
        columns: usize,
        /// How many values there are.
        found: usize,
    },
    /// A table row has another length than the header.
    #[error("row {row} of the table {title:?} has {found} cells, but there are {expected} columns")]
    RowLength {
        /// The table's title.
        title: String,
        /// Which row, from 0.
        row: usize,
        /// The number of columns.
        expected: usize,
        /// The number of cells.
        found: usize,
    },
    /// Layers do not all have the same number of heads.
    #[error("layer {layer} of {title:?} has {found} heads, but layer 0 has {expected}")]
    HeadCount {
        /// The section's title.
        title: String,
        /// The layer.
        layer: usize,
        /// How many heads layer 0 has.
        expected: usize,
        /// How many heads this one has.
        found: usize,
    },
    /// The layer and head to show first are not there.
    #[error(
        "layer {layer}, head {head} of {title:?} is to be shown first, but there are {layers} layers of {heads} heads"
    )]
    NoSuchHead {
        /// The section's title.
        title: String,
        /// The layer asked for.
        layer: usize,
        /// The head asked for.
        head: usize,
        /// How many layers there are.
        layers: usize,
        /// How many heads a layer has.
        heads: usize,
    },
    /// A value is not a finite number.
    #[error("value {index} of {what} is {value}, which cannot be drawn")]
    NotFinite {
        /// What it belongs to.
        what: String,
        /// Where.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A value on a logarithmic axis is not positive.
    #[error("{what} holds {value}, which a logarithmic axis cannot show")]
    NotPositive {
        /// What it belongs to.
        what: String,
        /// The value.
        value: f64,
    },
    /// An edge of a graph names a node that no row has.
    #[error("an edge of the graph {title:?} names `{node}`, which is in none of its rows")]
    NoSuchNode {
        /// The graph's title.
        title: String,
        /// The name.
        node: String,
    },
    /// An edge of a graph goes to its own row or to a lower one.
    #[error("the edge from `{from}` to `{to}` of the graph {title:?} does not lead upward")]
    Downward {
        /// The graph's title.
        title: String,
        /// Where it starts.
        from: String,
        /// Where it ends.
        to: String,
    },
    /// The plotting library failed: a bug of this crate.
    #[error("a plot failed: {0}")]
    Drawing(String),
    /// There is nothing to draw.
    #[error("{what} is empty")]
    Empty {
        /// What is empty.
        what: String,
    },
    /// The page's data could not be written as JSON.
    #[error("the page's data cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The template failed: a bug of this crate.
    #[error("the page's template failed")]
    Template(#[from] minijinja::Error),
}

/// Refuses NaN and infinities.
pub(crate) fn finite(what: impl Fn() -> String, values: &[f64]) -> Result<(), VizError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(VizError::NotFinite { what: what(), index, value: values[index] }),
    }
}
