//! What a row of a stack is.

use std::fmt;

/// One part of the residual stream, or the stream at one place. `Display` gives
/// TransformerLens's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// The stream that a block reads: `3_pre`.
    ResidPre(usize),
    /// The stream between a block's attention and MLP: `3_mid`.
    ResidMid(usize),
    /// The stream behind the last block: `final_post`.
    FinalPost,
    /// The token embedding.
    Embed,
    /// The learned position embedding.
    PosEmbed,
    /// What a block's attention adds: `3_attn_out`.
    AttnOut(usize),
    /// What a block's MLP adds: `3_mlp_out`.
    MlpOut(usize),
    /// What one head adds, without the output bias: `L3H5`.
    Head(usize, usize),
    /// What one neuron adds, without the output bias: `L3N512`.
    Neuron(usize, usize),
    /// What one head moves from one position, without the output bias: `L3H5<-7`.
    Source(usize, usize, usize),
    /// The output biases of all heads and neurons that were taken apart.
    Bias,
    /// The final norm's bias and the unembedding's, which no part of the stream carries.
    UnembedBias,
    /// The stream less the other rows.
    Remainder,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResidPre(layer) => f.pad(&format!("{layer}_pre")),
            Self::ResidMid(layer) => f.pad(&format!("{layer}_mid")),
            Self::FinalPost => f.pad("final_post"),
            Self::Embed => f.pad("embed"),
            Self::PosEmbed => f.pad("pos_embed"),
            Self::AttnOut(layer) => f.pad(&format!("{layer}_attn_out")),
            Self::MlpOut(layer) => f.pad(&format!("{layer}_mlp_out")),
            Self::Head(layer, head) => f.pad(&format!("L{layer}H{head}")),
            Self::Neuron(layer, neuron) => f.pad(&format!("L{layer}N{neuron}")),
            Self::Source(layer, head, pos) => f.pad(&format!("L{layer}H{head}<-{pos}")),
            Self::Bias => f.pad("bias"),
            Self::UnembedBias => f.pad("unembed_bias"),
            Self::Remainder => f.pad("remainder"),
        }
    }
}
