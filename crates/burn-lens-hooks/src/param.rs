//! Every weight of a model, by one typed name each.
//!
//! In memory all parameters are vectors or matrices in the layout that a row-vector product
//! `x W` wants: `[in, out]`, heads side by side in `out` (`W_Q`: `[d_model, n_heads·d_head]`)
//! or in `in` (`W_O`: `[n_heads·d_head, d_model]`). TransformerLens's `[n_heads, …]` shapes are
//! views of these.

use std::{fmt, str::FromStr};

use burn_lens_tensor::nearest;

use crate::ModelDims;

macro_rules! params {
    (
        model { $($m:ident $m_name:literal $m_doc:literal;)* }
        block { $($b:ident $b_name:literal $b_doc:literal;)* }
    ) => {
        /// One weight of a model; `Display` gives TransformerLens's state-dict name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Param {
            $(#[doc = concat!("`", $m_name, "`: ", $m_doc)] $m,)*
            $(#[doc = concat!("`blocks.{layer}.", $b_name, "`: ", $b_doc)] $b(usize),)*
        }

        impl Param {
            /// Every weight that a model of `n_layers` blocks could have: those outside the blocks,
            /// then those of each block.
            #[must_use]
            pub fn every(n_layers: usize) -> Vec<Self> {
                let mut all = vec![$(Self::$m,)*];
                for layer in 0..n_layers {
                    all.extend([$(Self::$b(layer),)*]);
                }
                all
            }

            fn from_parts(layer: Option<usize>, kind: &str) -> Option<Self> {
                match (layer, kind) {
                    $((None, $m_name) => Some(Self::$m),)*
                    $((Some(layer), $b_name) => Some(Self::$b(layer)),)*
                    _ => None,
                }
            }

            /// The block that it belongs to.
            #[must_use]
            pub fn layer(self) -> Option<usize> {
                match self {
                    $(Self::$m => None,)*
                    $(Self::$b(layer) => Some(layer),)*
                }
            }
        }

        impl fmt::Display for Param {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$m => f.pad($m_name),)*
                    $(Self::$b(layer) => write!(f, concat!("blocks.{}.", $b_name), layer),)*
                }
            }
        }
    };
}

params! {
    model {
        Embed "embed.W_E" "`[d_vocab, d_model]`";
        ReadInW "read_in.W" "`[d_in, d_model]`";
        ReadInB "read_in.b" "`[d_model]`";
        EmbedLnW "embed.ln.w" "`[d_model]`";
        EmbedLnB "embed.ln.b" "`[d_model]`";
        PosEmbed "pos_embed.W_pos" "`[n_ctx, d_model]`";
        LnFinalW "ln_final.w" "`[d_model]`";
        LnFinalB "ln_final.b" "`[d_model]`";
        WU "unembed.W_U" "`[d_model, d_vocab_out]`";
        BU "unembed.b_U" "`[d_vocab_out]`";
        ReadOutW "read_out.W" "`[d_model, d_out]`";
        ReadOutB "read_out.b" "`[d_out]`";
    }
    block {
        Ln1W "ln1.w" "`[d_model]`";
        Ln1B "ln1.b" "`[d_model]`";
        WQ "attn.W_Q" "`[d_model, n_heads·d_head]`";
        BQ "attn.b_Q" "`[n_heads·d_head]`";
        WK "attn.W_K" "`[d_model, n_kv_heads·d_head]`";
        BK "attn.b_K" "`[n_kv_heads·d_head]`";
        WV "attn.W_V" "`[d_model, n_kv_heads·d_head]`";
        BV "attn.b_V" "`[n_kv_heads·d_head]`";
        QNorm "attn.q_norm.w" "`[d_head]`";
        KNorm "attn.k_norm.w" "`[d_head]`";
        Sinks "attn.sinks" "`[n_heads]`";
        WO "attn.W_O" "`[n_heads·d_head, d_model]`";
        BO "attn.b_O" "`[d_model]`";
        Ln1PostW "ln1_post.w" "`[d_model]`";
        Ln1PostB "ln1_post.b" "`[d_model]`";
        Ln2W "ln2.w" "`[d_model]`";
        Ln2B "ln2.b" "`[d_model]`";
        WGate "mlp.W_gate" "`[d_model, d_mlp]`";
        BGate "mlp.b_gate" "`[d_mlp]`";
        WIn "mlp.W_in" "`[d_model, d_mlp]`";
        BIn "mlp.b_in" "`[d_mlp]`";
        BPost "mlp.b_post" "`[d_mlp]`, gated MLPs only";
        MlpLnW "mlp.ln.w" "`[d_mlp]`";
        MlpLnB "mlp.ln.b" "`[d_mlp]`";
        WOut "mlp.W_out" "`[d_mlp, d_model]`";
        BOut "mlp.b_out" "`[d_model]`";
        Ln2PostW "ln2_post.w" "`[d_model]`";
        Ln2PostB "ln2_post.b" "`[d_model]`";
    }
}

impl Param {
    /// Its shape in memory.
    #[must_use]
    pub fn shape(self, dims: &ModelDims) -> Vec<usize> {
        let (d_model, d_mlp) = (dims.d_model, dims.d_mlp);
        let (query, key) = (dims.n_heads * dims.d_head, dims.n_kv_heads * dims.d_head);
        match self {
            Self::Embed => vec![dims.d_vocab, d_model],
            Self::PosEmbed => vec![dims.n_ctx, d_model],
            Self::ReadInW => vec![dims.d_in, d_model],
            Self::ReadOutW => vec![d_model, dims.d_out],
            Self::ReadOutB => vec![dims.d_out],
            Self::WU => vec![d_model, dims.d_vocab_out],
            Self::BU => vec![dims.d_vocab_out],
            Self::WQ(_) => vec![d_model, query],
            Self::BQ(_) => vec![query],
            Self::WK(_) | Self::WV(_) => vec![d_model, key],
            Self::BK(_) | Self::BV(_) => vec![key],
            Self::QNorm(_) | Self::KNorm(_) => vec![dims.d_head],
            Self::Sinks(_) => vec![dims.n_heads],
            Self::WO(_) => vec![query, d_model],
            Self::WGate(_) | Self::WIn(_) => vec![d_model, d_mlp],
            Self::BGate(_) | Self::BIn(_) | Self::BPost(_) | Self::MlpLnW(_) | Self::MlpLnB(_) => vec![d_mlp],
            Self::WOut(_) => vec![d_mlp, d_model],
            _ => vec![d_model],
        }
    }
}

/// A name that is not a weight's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown weight `{name}`{}", if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) })]
pub struct UnknownParam {
    /// The name as given.
    pub name: String,
    /// The closest names there are.
    pub nearest: Vec<String>,
}

impl FromStr for Param {
    type Err = UnknownParam;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let parts = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
        let layer = parts.and_then(|(layer, _)| layer.parse().ok());
        let param = match (parts, layer) {
            (Some((_, kind)), Some(layer)) => Self::from_parts(Some(layer), kind),
            _ => Self::from_parts(None, name),
        };
        param.filter(|param| param.to_string() == name).ok_or_else(|| {
            let layer = layer.unwrap_or(0);
            let near = |param: &Self| param.layer().is_none_or(|of| of == layer);
            let names = Self::every(layer.min(9_999) + 1);
            UnknownParam {
                name: name.to_owned(),
                nearest: nearest(name, names.iter().filter(|param| near(param)).map(ToString::to_string)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_and_from_str_are_inverse() {
        for param in Param::every(12) {
            assert_eq!(param.to_string().parse(), Ok(param));
        }
    }

    #[test]
    fn near_misses_name_the_nearest() {
        for (name, nearest) in [("blocks.1.attn.WQ", "blocks.1.attn.W_Q"), ("unembed.WU", "unembed.W_U")] {
            assert_eq!(name.parse::<Param>().unwrap_err().nearest[0], nearest);
        }
        assert!("blocks.01.attn.W_Q".parse::<Param>().is_err());
    }
}
