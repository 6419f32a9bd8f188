//! Interventions on a run, and what they change.
//!
//! - [`Engine`]: sweeps of [`Intervention`]s under a [`Metric`], computing only what can change
//! - [`patching_sweep`]: TransformerLens's `patching`; [`ablation_sweep`], [`direct_path_sweep`],
//!   [`path_patch`], [`CausalTrace`], [`knock_out`], [`interchange`]: other cells
//! - [`Engine::attribute`], [`Engine::edge_attribution`]: estimates from gradients
//! - [`EdgeRuns`]: circuits, their faithfulness, pruning and selection by threshold
//! - [`detect_heads`], [`induction_scores`]: what heads attend to
//! - [`SteeringVector`]: directions that lead from one kind of text to another
//! - [`task_prompts`]: clean and corrupt prompts of known tasks

mod ablation;
mod apply;
mod attribution;
mod circuit;
mod edge_runs;
mod edges;
mod engine;
mod heads;
mod intervention;
mod metric;
mod patching;
mod paths;
mod plan;
mod prune;
mod readout;
mod run;
mod spliced;
mod steering;
mod sweep;
mod tasks;

pub use ablation::{Ablation, AblationUnit, Reference, ablation_sweep};
pub use circuit::{Circuit, CircuitEdge, CircuitSweep};
pub use edge_runs::{EdgeRuns, EdgeSet};
pub use edges::{EdgeGradients, EdgeNodes, EdgeScores, Receiver, Sender};
pub use engine::{Cost, Engine, EngineOptions, Reuse, SweepOutcome};
pub use heads::{
    DetectOptions, ErrorMeasure, HeadPattern, HeadScores, RepeatedTokens, detect_heads, induction_scores,
    score_cache,
};
pub use intervention::{Edit, EditFn, Intervention, Values};
pub use metric::{Metric, MetricFn, MetricKind, MetricPos};
pub use patching::{HeadPart, Patch, patching_sweep};
pub use paths::{
    CausalTrace, HeadPath, Noise, PathInput, direct_path_sweep, interchange, knock_out, path_patch,
};
pub use plan::Prepared;
pub use steering::{SteeringPos, SteeringVector};
pub use sweep::{OnProgress, Sweep, SweepAxis, SweepProgress, SweepResult, SweepState};
pub use tasks::{Spell, TaskKind, TaskOptions, TaskPrompt, TaskScores, score_task, task_prompts};
