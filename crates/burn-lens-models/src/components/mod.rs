//! The parts of a transformer, one per file. None knows an architecture by name.

mod act_fn;
mod alibi;
mod attention;
mod embed;
mod mask;
mod mlp;
mod norm;
mod reader;
mod rotary;
mod unembed;

pub use act_fn::{ActFn, UnknownActFn};
pub use burn_lens_tensor::{Norm, NormKind};
pub use rotary::{Pairing, Rotary, RotaryScaling};

pub(crate) use alibi::Alibi;
pub(crate) use attention::{Attention, AttentionInput, LayerKeyValues, Reach};
pub(crate) use embed::{Embed, PosEmbed};
pub(crate) use mask::{Masks, PositionIds};
pub(crate) use mlp::Mlp;
pub(crate) use norm::HookedNorm;
pub(crate) use reader::{ReadIn, ReadOut};
pub(crate) use rotary::RotaryTables;
pub(crate) use unembed::Unembed;

/// Where position enters a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Nowhere.
    None,
    /// A learned vector for each position, added to the embedding.
    Learned,
    /// Queries and keys are rotated by their position.
    Rotary(Rotary),
    /// A bias on the scores, linear in the distance.
    Alibi,
}
