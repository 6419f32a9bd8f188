//! Many interventions measured by one metric, and what came out.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::Intervention;
use crate::AnalysisError;

/// One axis of a sweep's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepAxis {
    /// `layer`, `pos`, `head`, …
    pub name: String,
    /// What each entry stands for.
    pub labels: Vec<String>,
}

impl SweepAxis {
    /// An axis of these labels.
    #[must_use]
    pub fn new(name: &str, labels: Vec<String>) -> Self {
        Self { name: name.to_owned(), labels }
    }

    /// An axis of `0..len`.
    #[must_use]
    pub fn counted(name: &str, len: usize) -> Self {
        Self::new(name, (0..len).map(|at| at.to_string()).collect())
    }
}

/// A set of interventions, each measured alone. A cell is what is done in one run.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// The axes of the result, outermost first.
    pub axes: Vec<SweepAxis>,
    /// Row-major; `None` for a cell that does not exist, whose value is zero (the missing key heads of
    /// grouped queries).
    pub cells: Vec<Option<Vec<Intervention>>>,
}

impl Sweep {
    /// Cells along one axis.
    #[must_use]
    pub fn list(axis: SweepAxis, cells: Vec<Vec<Intervention>>) -> Self {
        Self { axes: vec![axis], cells: cells.into_iter().map(Some).collect() }
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.labels.len()).collect()
    }

    pub(super) fn check(&self) -> Result<(), AnalysisError> {
        let expected: usize = self.shape().iter().product();
        if self.cells.len() == expected && expected > 0 {
            return Ok(());
        }
        Err(AnalysisError::Shape {
            what: "the cells of a sweep",
            expected: format!("{expected} cells, for axes of {:?}", self.shape()),
            found: vec![self.cells.len()],
        })
    }

    /// Distinguishes this sweep from others that a saved state could be of.
    pub(super) fn fingerprint(&self, seed: &[f64]) -> u64 {
        // FNV-1a over what the cells say; values of other runs enter through `seed`.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        eat(format!("{:?}", self.axes).as_bytes());
        for cell in &self.cells {
            eat(format!("{cell:?}").as_bytes());
        }
        for value in seed {
            eat(&value.to_bits().to_le_bytes());
        }
        hash
    }
}

/// How far a sweep is; what an interrupted one is resumed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepState {
    /// Of the sweep, its prompts and its metric.
    pub(super) fingerprint: u64,
    /// For each cell the value of each prompt, once it is known.
    #[serde(with = "bits")]
    pub(super) cells: Vec<Option<Vec<f64>>>,
}

/// Values as the integers that their bits are: text does not bring every last bit back.
mod bits {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    type Cells<T> = Vec<Option<Vec<T>>>;

    fn mapped<T: Copy, U>(cells: &[Option<Vec<T>>], map: impl Fn(T) -> U) -> Cells<U> {
        cells.iter().map(|cell| Some(cell.as_ref()?.iter().map(|&value| map(value)).collect())).collect()
    }

    pub(super) fn serialize<S: Serializer>(cells: &[Option<Vec<f64>>], to: S) -> Result<S::Ok, S::Error> {
        mapped(cells, f64::to_bits).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Cells<f64>, D::Error> {
        Ok(mapped(&Cells::<u64>::deserialize(from)?, f64::from_bits))
    }
}

impl SweepState {
    /// How many cells are done.
    #[must_use]
    pub fn done(&self) -> usize {
        self.cells.iter().filter(|cell| cell.is_some()).count()
    }
}

/// How far a sweep is, as a progress callback sees it.
#[derive(Clone, Copy, Debug)]
pub struct SweepProgress<'a> {
    /// Cells done.
    pub done: usize,
    /// Cells in all.
    pub total: usize,
    /// What resumes the sweep from here.
    pub state: &'a SweepState,
}

/// Called after each batch of cells; `Break` interrupts the sweep.
pub type OnProgress<'a> = dyn FnMut(SweepProgress<'_>) -> ControlFlow<()> + 'a;

/// What a sweep measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepResult {
    /// The axes, outermost first.
    pub axes: Vec<SweepAxis>,
    /// For each cell, row-major, the value of each prompt (or one value, for a metric of that kind);
    /// nothing for a cell that does not exist.
    pub cells: Vec<Vec<f64>>,
    /// The metric of the base run, of each prompt.
    pub base: Vec<f64>,
}

impl SweepResult {
    /// The mean over prompts of each cell, row-major; zero for a cell that does not exist.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.cells.iter().map(|cell| mean(cell)).collect()
    }

    /// The standard error of each mean; zero for a single prompt.
    #[must_use]
    pub fn standard_errors(&self) -> Vec<f64> {
        self.cells.iter().map(|cell| standard_error(cell)).collect()
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.labels.len()).collect()
    }

    /// The metric of the base run, the mean over prompts.
    #[must_use]
    pub fn base_value(&self) -> f64 {
        mean(&self.base)
    }

    /// Each value as a share of the way from the base run to `target`: 0 where the intervention
    /// changes nothing (or the cell does not exist), 1 where it gives all of the target.
    #[must_use]
    pub fn normalized(&self, target: f64) -> Vec<f64> {
        let base = self.base_value();
        let share =
            |cell: &Vec<f64>| if cell.is_empty() { 0.0 } else { (mean(cell) - base) / (target - base) };
        self.cells.iter().map(share).collect()
    }

    /// The `count` cells that are farthest from the base run, with their labels.
    #[must_use]
    pub fn largest(&self, count: usize) -> Vec<(Vec<&str>, f64)> {
        let base = self.base_value();
        let cells = self.cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty());
        let mut order: Vec<(usize, f64)> = cells.map(|(at, cell)| (at, mean(cell))).collect();
        order.sort_by(|a, b| (b.1 - base).abs().total_cmp(&(a.1 - base).abs()).then(a.0.cmp(&b.0)));
        order.into_iter().take(count).map(|(at, value)| (self.labels_at(at), value)).collect()
    }

    /// The labels of a cell, one for each axis.
    #[must_use]
    pub fn labels_at(&self, cell: usize) -> Vec<&str> {
        let mut rest = cell;
        let mut labels: Vec<&str> = Vec::new();
        for axis in self.axes.iter().rev() {
            labels.push(&axis.labels[rest % axis.labels.len()]);
            rest /= axis.labels.len();
        }
        labels.reverse();
        labels
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn standard_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let center = mean(values);
    let squares: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
    (squares / (n - 1.0) / n).sqrt()
}
