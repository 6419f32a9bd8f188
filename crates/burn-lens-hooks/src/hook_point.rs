//! One typed value for each hook name.
//!
//! The table below is the only list of hooks in the project: the enum, `Display`, `FromStr`,
//! the axes, the descriptions and `docs/hooks.md` all derive from it.

use std::{fmt, str::FromStr};

use burn_lens_tensor::nearest;

use crate::{
    Axis::{
        self, Batch, DHead, DMlp, DModel, DOut, Expert, Head, KeyPos, KvHead, One, Pos, QueryPos, Routed,
        TopExpert, Vocab,
    },
    SaeHook, SaeHost,
};

macro_rules! hook_points {
    (
        model { $($m:ident $m_name:literal [$($m_axis:ident)*] $m_doc:literal;)* }
        block { $($b:ident $b_name:literal [$($b_axis:ident)*] $b_doc:literal;)* }
        expert { $($e:ident $e_name:literal [$($e_axis:ident)*] $e_doc:literal;)* }
    ) => {
        /// A place in the forward pass whose activation can be read and edited.
        ///
        /// `Display` gives TransformerLens's name and `FromStr` is its exact inverse.
        ///
        /// ```
        /// # use burn_lens_hooks::HookPoint;
        /// let point: HookPoint = "blocks.3.attn.hook_pattern".parse()?;
        /// assert_eq!(point, HookPoint::AttnPattern(3));
        /// assert_eq!(point.to_string(), "blocks.3.attn.hook_pattern");
        /// let error = "blocks.3.attn.hook_patern".parse::<HookPoint>().unwrap_err();
        /// assert_eq!(error.nearest[0], "blocks.3.attn.hook_pattern");
        /// # Ok::<(), burn_lens_hooks::UnknownHook>(())
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum HookPoint {
            $(#[doc = concat!("`", $m_name, "`: ", $m_doc)] $m,)*
            $(#[doc = concat!("`blocks.{layer}.", $b_name, "`: ", $b_doc)] $b(usize),)*
            $(#[doc = concat!("`blocks.{layer}.mlp.experts.{expert}.", $e_name, "`: ", $e_doc)] $e(usize, usize),)*
            /// `{host}.hook_sae_…`: inside a dictionary that is spliced in at another hook.
            Sae(SaeHost, SaeHook),
        }

        /// Every hook of a model itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Site {
            $($m,)*
            $($b(usize),)*
            $($e(usize, usize),)*
        }

        impl Site {
            pub(crate) fn of(point: HookPoint) -> Option<Self> {
                Some(match point {
                    $(HookPoint::$m => Self::$m,)*
                    $(HookPoint::$b(layer) => Self::$b(layer),)*
                    $(HookPoint::$e(layer, expert) => Self::$e(layer, expert),)*
                    HookPoint::Sae(..) => return None,
                })
            }

            pub(crate) fn point(self) -> HookPoint {
                match self {
                    $(Self::$m => HookPoint::$m,)*
                    $(Self::$b(layer) => HookPoint::$b(layer),)*
                    $(Self::$e(layer, expert) => HookPoint::$e(layer, expert),)*
                }
            }
        }

        impl HookPoint {
            /// Every kind of hook of a model itself, with `layer` (and expert 0) filled in, in
            /// firing order within its group.
            #[must_use]
            pub fn kinds(layer: usize) -> Vec<Self> {
                vec![$(Self::$m,)* $(Self::$b(layer),)* $(Self::$e(layer, 0),)*]
            }

            /// The part of the name behind `blocks.{layer}.` (or the whole name).
            #[must_use]
            pub fn kind_name(self) -> &'static str {
                match self {
                    $(Self::$m => $m_name,)*
                    $(Self::$b(_) => $b_name,)*
                    $(Self::$e(..) => $e_name,)*
                    Self::Sae(_, hook) => hook.name(),
                }
            }

            /// The axes of its activation, outermost first.
            #[must_use]
            pub fn axes(self) -> &'static [Axis] {
                match self {
                    $(Self::$m => &[$($m_axis),*],)*
                    $(Self::$b(_) => &[$($b_axis),*],)*
                    $(Self::$e(..) => &[$($e_axis),*],)*
                    Self::Sae(host, hook) => hook.axes(host.point()),
                }
            }

            /// What the activation is, in a sentence.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$m => $m_doc,)*
                    $(Self::$b(_) => $b_doc,)*
                    $(Self::$e(..) => $e_doc,)*
                    Self::Sae(_, hook) => hook.description(),
                }
            }

            /// The block that it belongs to; `None` outside the blocks.
            #[must_use]
            pub fn layer(self) -> Option<usize> {
                match self {
                    $(Self::$m => None,)*
                    $(Self::$b(layer) => Some(layer),)*
                    $(Self::$e(layer, _) => Some(layer),)*
                    Self::Sae(host, _) => host.point().layer(),
                }
            }

            fn from_parts(layer: Option<usize>, expert: Option<usize>, kind: &str) -> Option<Self> {
                match (layer, expert, kind) {
                    $((None, None, $m_name) => Some(Self::$m),)*
                    $((Some(layer), None, $b_name) => Some(Self::$b(layer)),)*
                    $((Some(layer), Some(expert), $e_name) => Some(Self::$e(layer, expert)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for HookPoint {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$m => f.pad($m_name),)*
                    $(Self::$b(layer) => f.pad(&format!(concat!("blocks.{}.", $b_name), layer)),)*
                    $(Self::$e(layer, expert) => {
                        f.pad(&format!(concat!("blocks.{}.mlp.experts.{}.", $e_name), layer, expert))
                    })*
                    Self::Sae(host, hook) => f.pad(&format!("{}.{}", host.point(), hook.name())),
                }
            }
        }
    };
}

hook_points! {
    model {
        Tokens "hook_tokens" [Batch Pos] "token ids, as integers";
        ReadIn "hook_read_in" [Batch Pos DModel] "what the read-in of a model without a vocabulary made of its input vectors";
        EmbedLnScale "embed.ln.hook_scale" [Batch Pos One] "divisor of the norm after the embedding";
        EmbedLnNormalized "embed.ln.hook_normalized" [Batch Pos DModel] "embedding divided by its scale, before weight and bias";
        Embed "hook_embed" [Batch Pos DModel] "token embedding, or the vectors that stand in for it";
        PosEmbed "hook_pos_embed" [Batch Pos DModel] "learned position embedding";
        LnFinalScale "ln_final.hook_scale" [Batch Pos One] "divisor of the final norm";
        LnFinalNormalized "ln_final.hook_normalized" [Batch Pos DModel] "final residual divided by its scale, before weight and bias";
        UnembedIn "unembed.hook_in" [Batch Pos DModel] "input of the unembedding";
        UnembedOut "unembed.hook_out" [Batch Pos Vocab] "output of the unembedding, before any soft-cap";
        ReadOut "hook_read_out" [Batch Pos DOut] "output of the read-out of a model without a vocabulary";
    }
    block {
        ResidPre "hook_resid_pre" [Batch Pos DModel] "residual stream entering the block";
        AttnIn "hook_attn_in" [Batch Pos Head DModel] "the stream that each head's q, k and v read, before ln1";
        QInput "hook_q_input" [Batch Pos Head DModel] "the stream that each head's query reads, before ln1";
        KInput "hook_k_input" [Batch Pos KvHead DModel] "the stream that each head's key reads, before ln1";
        VInput "hook_v_input" [Batch Pos KvHead DModel] "the stream that each head's value reads, before ln1";
        Ln1Scale "ln1.hook_scale" [Batch Pos One] "divisor of the norm before (or, in post-norm models, after) attention";
        Ln1Normalized "ln1.hook_normalized" [Batch Pos DModel] "what ln1 normalized, before weight and bias";
        AttnQ "attn.hook_q" [Batch Pos Head DHead] "queries, before query norm and rotation";
        AttnK "attn.hook_k" [Batch Pos KvHead DHead] "keys, before key norm and rotation";
        AttnV "attn.hook_v" [Batch Pos KvHead DHead] "values";
        QNormScale "attn.q_norm.hook_scale" [Batch Pos Head One] "divisor of the query norm";
        QNormNormalized "attn.q_norm.hook_normalized" [Batch Pos Head DHead] "queries divided by their scale, before the norm's weight";
        KNormScale "attn.k_norm.hook_scale" [Batch Pos KvHead One] "divisor of the key norm";
        KNormNormalized "attn.k_norm.hook_normalized" [Batch Pos KvHead DHead] "keys divided by their scale, before the norm's weight";
        AttnRotQ "attn.hook_rot_q" [Batch Pos Head DHead] "queries after rotation";
        AttnRotK "attn.hook_rot_k" [Batch Pos KvHead DHead] "keys after rotation";
        AttnScores "attn.hook_attn_scores" [Batch Head QueryPos KeyPos] "scaled and masked scores (-inf where masked), before softmax";
        AttnPattern "attn.hook_pattern" [Batch Head QueryPos KeyPos] "attention probabilities";
        AttnZ "attn.hook_z" [Batch Pos Head DHead] "values mixed by the pattern";
        AttnResult "attn.hook_result" [Batch Pos Head DModel] "what each head adds to the stream, without b_O";
        Ln1PostScale "ln1_post.hook_scale" [Batch Pos One] "divisor of the norm on attention's output";
        Ln1PostNormalized "ln1_post.hook_normalized" [Batch Pos DModel] "attention's output divided by its scale, before the norm's weight";
        AttnOut "hook_attn_out" [Batch Pos DModel] "what attention adds to the stream";
        ResidMid "hook_resid_mid" [Batch Pos DModel] "residual stream between attention and MLP";
        MlpIn "hook_mlp_in" [Batch Pos DModel] "the stream that the MLP reads, before ln2";
        Ln2Scale "ln2.hook_scale" [Batch Pos One] "divisor of the norm before (or, in post-norm models, after) the MLP";
        Ln2Normalized "ln2.hook_normalized" [Batch Pos DModel] "what ln2 normalized, before weight and bias";
        MlpInput "mlp.hook_in" [Batch Pos DModel] "what the MLP's weights read, behind ln2 and its weight and bias";
        MlpPre "mlp.hook_pre" [Batch Pos DMlp] "neuron pre-activations (of the gate where gated)";
        MlpPreLinear "mlp.hook_pre_linear" [Batch Pos DMlp] "the linear branch of a gated MLP";
        MlpMid "mlp.hook_mid" [Batch Pos DMlp] "activations before the MLP's inner norm (SoLU)";
        MlpLnScale "mlp.ln.hook_scale" [Batch Pos One] "divisor of the MLP's inner norm";
        MlpLnNormalized "mlp.ln.hook_normalized" [Batch Pos DMlp] "activations divided by their scale, before weight and bias";
        MlpPost "mlp.hook_post" [Batch Pos DMlp] "neuron activations, as W_out reads them";
        ExpertWeights "mlp.hook_expert_weights" [Batch Pos Expert] "router probabilities over all experts";
        ExpertIndices "mlp.hook_expert_indices" [Batch Pos TopExpert] "experts chosen for each token, as integers";
        Ln2PostScale "ln2_post.hook_scale" [Batch Pos One] "divisor of the norm on the MLP's output";
        Ln2PostNormalized "ln2_post.hook_normalized" [Batch Pos DModel] "the MLP's output divided by its scale, before the norm's weight";
        MlpOut "hook_mlp_out" [Batch Pos DModel] "what the MLP adds to the stream";
        ResidPost "hook_resid_post" [Batch Pos DModel] "residual stream leaving the block";
    }
    expert {
        ExpertGate "hook_gate" [Routed DMlp] "one expert's gate, for the tokens routed to it";
        ExpertPre "hook_pre" [Routed DMlp] "one expert's pre-activations";
        ExpertPost "hook_post" [Routed DMlp] "one expert's activations";
    }
}

impl HookPoint {
    /// Which axis runs over prompts, if any does.
    #[must_use]
    pub fn batch_axis(self) -> Option<usize> {
        self.axes().iter().position(|&axis| axis == Batch)
    }

    /// Which axis runs over token positions; for scores and pattern, over destinations.
    #[must_use]
    pub fn pos_axis(self) -> Option<usize> {
        self.axes().iter().position(|&axis| matches!(axis, Pos | QueryPos))
    }

    /// Which axis runs over heads, if any does.
    #[must_use]
    pub fn head_axis(self) -> Option<usize> {
        self.axes().iter().position(|&axis| matches!(axis, Head | KvHead))
    }

    /// Whether its activation is made of integers, which have no gradient.
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Tokens | Self::ExpertIndices(_))
    }
}

/// A name that is not a hook's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown hook `{name}`{}", if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) })]
pub struct UnknownHook {
    /// The name as given.
    pub name: String,
    /// The closest names there are.
    pub nearest: Vec<String>,
}

impl FromStr for HookPoint {
    type Err = UnknownHook;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some((host, hook)) = name.rsplit_once('.').filter(|(_, hook)| hook.starts_with("hook_sae_")) {
            return parse_sae(name, host, hook);
        }
        parse(name).filter(|point| point.to_string() == name).ok_or_else(|| {
            let layer = layer_of(name).map_or(0, |(layer, _)| layer);
            UnknownHook {
                name: name.to_owned(),
                nearest: nearest(name, Self::kinds(layer).iter().map(ToString::to_string)),
            }
        })
    }
}

/// A hook inside a dictionary; the nearest names mend the host, or what stands behind it.
fn parse_sae(name: &str, host: &str, hook: &str) -> Result<HookPoint, UnknownHook> {
    let unknown = |nearest| UnknownHook { name: name.to_owned(), nearest };
    let point: HookPoint = host.parse().map_err(|error: UnknownHook| {
        unknown(error.nearest.iter().map(|host| format!("{host}.{hook}")).collect())
    })?;
    let Some(host) = SaeHost::new(point) else { return Err(unknown(vec![host.to_owned()])) };
    SaeHook::ALL
        .into_iter()
        .find(|known| known.name() == hook)
        .map(|hook| HookPoint::Sae(host, hook))
        .ok_or_else(|| {
            let names = SaeHook::ALL.into_iter().map(|hook| HookPoint::Sae(host, hook).to_string());
            unknown(nearest(name, names))
        })
}

fn layer_of(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    Some((layer.parse().ok()?, rest))
}

fn parse(name: &str) -> Option<HookPoint> {
    let Some((layer, rest)) = layer_of(name) else {
        return HookPoint::from_parts(None, None, name);
    };
    if let Some((expert, kind)) = rest.strip_prefix("mlp.experts.").and_then(|rest| rest.split_once('.')) {
        return HookPoint::from_parts(Some(layer), Some(expert.parse().ok()?), kind);
    }
    HookPoint::from_parts(Some(layer), None, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/hooks.md` has a row for every hook, with its axes and its sentence.
    #[test]
    fn the_documentation_is_the_table() {
        let docs = include_str!("../../../docs/hooks.md");
        let docs =
            docs.split("## Every hook").nth(1).and_then(|docs| docs.split("### What a run").next()).unwrap();
        let rows: Vec<&str> =
            docs.lines().filter(|line| line.starts_with("| `") && line.contains("`[")).collect();
        for point in HookPoint::kinds(0) {
            let name = point.kind_name();
            let name = if let Site::ExpertGate(..) | Site::ExpertPre(..) | Site::ExpertPost(..) =
                Site::of(point).unwrap()
            {
                format!("mlp.experts.{{expert}}.{name}")
            } else {
                name.to_owned()
            };
            let axes = point.axes().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let found = rows.iter().any(|row| {
                row.starts_with(&format!("| `{name}` | `[{axes}]`"))
                    && row.ends_with(&format!("| {} |", point.description()))
            });
            assert!(found, "docs/hooks.md: no row: {name} [{axes}] {}", point.description());
        }
        assert_eq!(
            rows.len(),
            HookPoint::kinds(0).len(),
            "docs/hooks.md has rows of hooks that are not there"
        );
    }

    #[test]
    fn display_and_from_str_are_inverse() {
        for layer in [0, 7, 123] {
            for point in HookPoint::kinds(layer) {
                assert_eq!(point.to_string().parse(), Ok(point));
            }
        }
    }

    #[test]
    fn hooks_in_dictionaries_are_named_behind_their_host() {
        for host in HookPoint::kinds(3) {
            let host = SaeHost::new(host).unwrap();
            for hook in SaeHook::ALL {
                let point = HookPoint::Sae(host, hook);
                assert_eq!(point.to_string().parse(), Ok(point));
                assert_eq!((point.layer(), SaeHost::new(point)), (host.point().layer(), None));
            }
        }
        let nearest = |name: &str| name.parse::<HookPoint>().unwrap_err().nearest[0].clone();
        let post = "blocks.3.hook_resid_post.hook_sae_acts_post";
        assert_eq!(nearest("blocks.3.hook_resid_post.hook_sae_act_post"), post);
        assert_eq!(nearest("blocks.3.hook_resid_pst.hook_sae_acts_post"), post);
        assert_eq!(nearest("blocks.3.hook_resid_post.hook_sae_acts_post.hook_sae_error"), post);
    }

    #[test]
    fn near_misses_are_refused() {
        for name in
            ["", "blocks", "blocks.01.hook_resid_pre", "blocks.-1.hook_resid_pre", "blocks.1.hook_embed"]
        {
            assert!(name.parse::<HookPoint>().is_err(), "{name}");
        }
    }

    #[test]
    fn nearest_keeps_the_layer() {
        let error = "blocks.4.hook_resid_pos".parse::<HookPoint>().unwrap_err();
        assert_eq!(error.nearest[0], "blocks.4.hook_resid_post");
    }

    #[test]
    fn position_axes_are_known_not_guessed() {
        for (point, axis) in [
            (HookPoint::AttnRotQ(0), 1),
            (HookPoint::QInput(0), 1),
            (HookPoint::AttnScores(0), 2),
            (HookPoint::ResidPre(0), 1),
        ] {
            assert_eq!(point.pos_axis(), Some(axis), "{point}");
        }
    }
}
