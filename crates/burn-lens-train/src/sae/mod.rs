//! Training of sparse autoencoders: the standard step and the topk step.
//!
//! With `x̃ = x − b_dec`, `p = x̃ W_enc + b_enc` and `n` the norms of the decoder's rows:
//!
//! - standard (Bricken et al. 2023): `a = relu(p)`, and the loss is
//!   `mean ‖x̂ − x‖² + λ mean Σ a n` with `λ` rising from 0 at first
//! - topk (Gao et al. 2024): `a` is the `k` largest of `p n`, then relu; the decoder's rows count as
//!   of norm 1. What is left over is approximated by features that are dead, as a further loss
//!
//! as SAELens 6 has them. [`ActivationBuffer`] gives shuffled activations of a model, and
//! [`SaeTrainer`] takes the steps and says how each went.

mod buffer;
mod config;
mod loss;
mod trainer;
mod weights;

pub use buffer::ActivationBuffer;
pub use config::{SaeConfig, Sparsity};
pub use trainer::{SaeStep, SaeTrainer, train_sae};
pub use weights::SaeWeights;
