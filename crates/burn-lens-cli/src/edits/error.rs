//! What can be wrong with an intervention.

use std::path::PathBuf;

use burn_lens::{
    hooks::{HookPoint, RunError},
    io::IoError,
    tensor::SliceError,
};

/// An intervention that does not fit the model, the texts or its file.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {text}: {problem}")]
pub(crate) struct EditError {
    flag: &'static str,
    text: String,
    #[source]
    problem: Box<Problem>,
}

impl EditError {
    pub(crate) fn new(flag: &'static str, text: &str, problem: Problem) -> Self {
        Self { flag, text: text.to_owned(), problem: Box::new(problem) }
    }

    /// The error of the model's own selection, if it is one.
    pub(crate) fn run_error(&self) -> Option<&RunError> {
        match &*self.problem {
            Problem::Select(error) => Some(error),
            _ => None,
        }
    }
}

/// Why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The name selects nothing.
    #[error(transparent)]
    Select(#[from] RunError),
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The activation is made of integers.
    #[error("`{0}` is made of integers, which cannot be changed")]
    Integers(HookPoint),
    /// The activation lacks the axis.
    #[error("hook `{point}` has no {axis} axis, so `{key}` cannot be given; its axes are [{}]", axes(*point))]
    NoAxis {
        /// The hook.
        point: HookPoint,
        /// The part of the intervention.
        key: &'static str,
        /// What it would need.
        axis: &'static str,
    },
    /// An index outside the axis.
    #[error("`{key}={slice}` does not fit hook `{point}`, which has {len} {what}, 0 to {}", len.saturating_sub(1))]
    Outside {
        /// The hook.
        point: HookPoint,
        /// The part of the intervention.
        key: &'static str,
        /// Its value.
        slice: String,
        /// How long the axis is.
        len: usize,
        /// What it counts.
        what: &'static str,
        /// Why it does not fit.
        source: SliceError,
    },
    /// A position that no text reaches.
    #[error("`pos={slice}` is outside prompt {row}, whose positions are 0 to {last}{}", if *generated > 0 { format!(" (new tokens included; the prompt has {})", last + 1 - generated) } else { String::new() })]
    Position {
        /// The slice.
        slice: String,
        /// Which prompt.
        row: usize,
        /// The last position that is run.
        last: usize,
        /// How many of them are generated.
        generated: usize,
    },
    /// The mean of something that grows.
    #[error("the mean of `{0}` cannot be used in `generate`: the number of sources grows with each token")]
    MeanGrows(HookPoint),
    /// A vector file with no or several tensors.
    #[error("{} holds {}; write FILE:TENSOR to choose one", path.display(), if found.is_empty() { "no tensor".to_owned() } else { format!("the tensors {}", found.join(", ")) })]
    WhichTensor {
        /// The file.
        path: PathBuf,
        /// Its tensors.
        found: Vec<String>,
    },
    /// A vector file without the tensor asked for.
    #[error("{} has no tensor `{tensor}`; it holds {}", path.display(), found.join(", "))]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        tensor: String,
        /// Its tensors.
        found: Vec<String>,
    },
    /// A vector of integers.
    #[error("tensor `{tensor}` in {} is of {dtype}, expected floats", path.display())]
    NotFloat {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: String,
    },
    /// A vector of another shape.
    #[error("tensor `{tensor}` has shape {found:?}, which does not fit the chosen part of `{point}`: expected [{}], or [{last}] to add the same everywhere", expected.join(", "))]
    VectorShape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The hook.
        point: HookPoint,
        /// The shape of what was chosen.
        expected: Vec<String>,
        /// The length of the last axis.
        last: String,
    },
}

fn axes(point: HookPoint) -> String {
    point.axes().iter().map(|axis| axis.name()).collect::<Vec<_>>().join(", ")
}
