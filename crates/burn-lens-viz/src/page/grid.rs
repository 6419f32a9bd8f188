//! A grid of cells with labels on both sides: heat maps over layers and heads, lens tables.

use serde::Serialize;

use super::percent;
use crate::{VizError, error::finite, visible};

/// Cells in rows and columns, each with a color and, if wanted, a text and a note.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// What the rows are, shown above their labels.
    pub row_axis: String,
    /// What the columns are.
    pub column_axis: String,
    /// A label for each row.
    pub rows: Vec<String>,
    /// A label for each column.
    pub columns: Vec<String>,
    /// `[row][column]`
    pub cells: Vec<Vec<Cell>>,
}

/// One cell of a [`Grid`].
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// Written in the cell; white space is made visible.
    pub text: String,
    /// Its color: negative values in one hue, positive ones in another, on the scale of the grid's
    /// largest magnitude.
    pub value: f64,
    /// Shown on hover and focus; lines are kept.
    pub note: String,
}

impl Grid {
    /// A heat map: values `[rows, columns]`, row-major, written out in each cell's note.
    #[must_use]
    pub fn heat_map(axes: [&str; 2], rows: Vec<String>, columns: Vec<String>, values: &[f64]) -> Self {
        let width = columns.len().max(1);
        let cell = |row: usize, column: usize, value: f64| Cell {
            text: String::new(),
            value,
            note: format!(
                "{} {}, {} {}: {value:.4}",
                axes[0],
                rows.get(row).map_or("", String::as_str),
                axes[1],
                columns[column]
            ),
        };
        let cells = values.chunks(width).enumerate();
        let cells = cells.map(|(row, values)| {
            values.iter().enumerate().map(|(at, &value)| cell(row, at, value)).collect()
        });
        let cells = cells.collect();
        Self { row_axis: axes[0].to_owned(), column_axis: axes[1].to_owned(), cells, rows, columns }
    }
}

/// What the template sees of a [`Grid`].
#[derive(Serialize)]
pub(super) struct GridView {
    corner: String,
    columns: Vec<String>,
    rows: Vec<RowView>,
    scale: String,
    filled: bool,
}

#[derive(Serialize)]
struct RowView {
    label: String,
    cells: Vec<CellView>,
}

#[derive(Serialize)]
struct CellView {
    text: String,
    percent: f64,
    negative: bool,
    note: String,
}

impl Grid {
    pub(super) fn view(&self, title: &str) -> Result<GridView, VizError> {
        let what = || format!("the grid of {title:?}");
        if self.rows.is_empty() || self.columns.is_empty() {
            return Err(VizError::Empty { what: what() });
        }
        let (rows, columns) = (self.rows.len(), self.columns.len());
        if self.cells.len() != rows || self.cells.iter().any(|row| row.len() != columns) {
            let found = self.cells.iter().map(Vec::len).sum();
            return Err(VizError::MatrixSize { what: what(), rows, columns, found });
        }
        let values: Vec<f64> = self.cells.iter().flatten().map(|cell| cell.value).collect();
        finite(what, &values)?;
        let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let cell = |cell: &Cell| CellView {
            text: if cell.text.is_empty() { String::new() } else { visible(&cell.text) },
            percent: if largest > 0.0 { percent(cell.value.abs() / largest) } else { 0.0 },
            negative: cell.value < 0.0,
            note: cell.note.clone(),
        };
        let row = |(label, cells): (&String, &Vec<Cell>)| RowView {
            label: visible(label),
            cells: cells.iter().map(cell).collect(),
        };
        Ok(GridView {
            corner: format!("{} \\ {}", self.row_axis, self.column_axis),
            columns: self.columns.iter().map(|column| visible(column)).collect(),
            rows: self.rows.iter().zip(&self.cells).map(row).collect(),
            scale: format!("from {lowest:.4} to {highest:.4}"),
            filled: self.cells.iter().flatten().any(|cell| !cell.text.is_empty()),
        })
    }
}
