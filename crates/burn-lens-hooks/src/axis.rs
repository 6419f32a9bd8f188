//! The axis glossary: every shape in this project is spelt with these words.

use std::fmt;

/// What one axis of an activation runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Prompts.
    Batch,
    /// Token positions.
    Pos,
    /// Positions that attend (destinations).
    QueryPos,
    /// Positions attended to (sources).
    KeyPos,
    /// Query heads.
    Head,
    /// Key and value heads; fewer than query heads in grouped-query attention.
    KvHead,
    /// The residual stream.
    DModel,
    /// One head's inner space.
    DHead,
    /// MLP neurons.
    DMlp,
    /// Output vocabulary.
    Vocab,
    /// What a read-out gives.
    DOut,
    /// Experts of a mixture.
    Expert,
    /// Experts chosen for a token.
    TopExpert,
    /// Tokens routed to one expert.
    Routed,
    /// What a dictionary reads, heads side by side.
    SaeIn,
    /// The features of a dictionary.
    Feature,
    /// What a dictionary writes, heads side by side.
    SaeOut,
    /// A kept axis of length 1.
    One,
}

impl Axis {
    /// The glossary's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Pos => "pos",
            Self::QueryPos => "query_pos",
            Self::KeyPos => "key_pos",
            Self::Head => "n_heads",
            Self::KvHead => "n_kv_heads",
            Self::DModel => "d_model",
            Self::DHead => "d_head",
            Self::DMlp => "d_mlp",
            Self::Vocab => "d_vocab_out",
            Self::DOut | Self::SaeOut => "d_out",
            Self::Expert => "n_experts",
            Self::TopExpert => "experts_per_token",
            Self::Routed => "n_routed",
            Self::SaeIn => "d_in",
            Self::Feature => "d_sae",
            Self::One => "1",
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
