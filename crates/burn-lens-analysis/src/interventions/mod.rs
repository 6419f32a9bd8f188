//! Interventions on a run, and what they change: sweeps, patching, attribution, circuits.

mod ablation;
mod apply;
mod attribution;
mod circuit;
mod edges;
mod engine;
mod heads;
mod intervention;
mod metric;
mod patching;
mod paths;
mod plan;
mod readout;
mod run;
mod steering;
mod sweep;

pub use ablation::{Ablation, AblationUnit, Reference, ablation_sweep};
pub use circuit::{Circuit, CircuitEdge, EdgeRuns, EdgeSet};
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
