//! The synthetic language of the bundled demonstration model.
//!
//! Four skills that circuits are known for, one file each, in sentences of plain words:
//! indirect objects, country and capital, matching brackets, and repetition of random words;
//! besides, filler sentences. The code is the data set: [`Language`] draws any amount of it
//! from a seed.
//!
//! # What counts
//!
//! Most tokens of random text follow from nothing, and their loss is noise. So each token has
//! a weight in the loss: much where it follows from those before it (the answer), a little
//! elsewhere, so that text still reads as text, and none in random words that were not said
//! before.

mod brackets;
mod evaluation;
mod facts;
mod filler;
mod indirect_object;
mod piece;
mod repeats;
mod rows;
mod start;
mod vocabulary;

use burn_lens_models::{
    AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, ModelConfig, NormConfig,
    NormPlacement,
    components::{ActFn, NormKind, Positions},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::TrainConfig;

pub use evaluation::{Evaluation, InductionScore, TaskScore, evaluate};
pub use piece::Piece;
pub use rows::Language;
pub use start::demo_parameters;
pub use vocabulary::{BOS, Vocabulary};

/// What the loss of a token counts.
struct Weights {
    /// Tokens that follow from nothing, or from grammar alone.
    background: f32,
    /// The indirect object; one in a sentence, and the hardest to learn.
    indirect_object: f32,
    /// The country or capital.
    fact: f32,
    /// A closing bracket.
    bracket: f32,
    /// A random word that was said before; there are many in a row.
    repeat: f32,
}

const WEIGHT: Weights =
    Weights { background: 0.1, indirect_object: 3.0, fact: 1.0, bracket: 1.0, repeat: 0.5 };

/// The skills that are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Who is given something.
    IndirectObject,
    /// Country and capital.
    Capitals,
    /// Which bracket closes.
    Brackets,
    /// Random words, said again.
    Repeats,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 4] = [Self::IndirectObject, Self::Capitals, Self::Brackets, Self::Repeats];

    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IndirectObject => "indirect_object",
            Self::Capitals => "capitals",
            Self::Brackets => "brackets",
            Self::Repeats => "repeats",
        }
    }
}

/// A stream of random numbers that depends on nothing but its seed and number.
fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// The architecture of the demonstration model: three blocks of four heads and an MLP, with
/// layer norm and learned positions, as GPT-2.
#[must_use]
pub fn demo_config(words: &Vocabulary) -> ModelConfig {
    let (n_layers, d_model, n_heads, d_head) = (3, 96, 4, 32);
    ModelConfig {
        architecture: "HookedTransformer".to_owned(),
        n_layers,
        d_model,
        n_ctx: 128,
        d_vocab: words.len(),
        d_vocab_out: words.len(),
        attention: AttentionConfig {
            qkv_bias: true,
            out_bias: true,
            ..AttentionConfig::plain(n_heads, d_head, n_layers)
        },
        mlp: Some(MlpConfig {
            d_mlp: 256,
            act_fn: ActFn::GeluTanh,
            kind: MlpKind::Plain,
            bias: MlpBias::BehindProduct,
        }),
        norm: NormConfig::plain(NormKind::Layer, 1e-5, NormPlacement::Pre),
        positions: Positions::Learned,
        layout: BlockLayout::Sequential,
        logits_soft_cap: None,
        unembed_bias: true,
        tied: false,
        interface: Interface::Tokens,
        default_prepend_bos: true,
    }
}

/// How the demonstration model is trained.
#[must_use]
pub fn demo_training(steps: usize, seed: u64) -> TrainConfig {
    TrainConfig {
        steps,
        seed,
        learning_rate: 2e-3,
        warmup_steps: (steps / 10).min(100),
        final_fraction: 0.02,
        beta_2: 0.98,
        weight_decay: 0.05,
        ..TrainConfig::default()
    }
}
