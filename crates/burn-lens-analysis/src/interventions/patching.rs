//! TransformerLens's `patching` module: which sweeps there are, with their axes and labels.

use std::{fmt, str::FromStr, sync::Arc};

use burn_lens_hooks::{ActivationCache, HookPoint, HookedModel};
use burn_lens_tensor::{Slice, nearest};

use super::{Intervention, Sweep, SweepAxis};
use crate::AnalysisError;

/// One of TransformerLens's sweeps: `get_act_patch_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Patch {
    /// `resid_pre`: `[layer, pos]`
    ResidPre,
    /// `resid_mid`: `[layer, pos]`
    ResidMid,
    /// `resid_post`: `[layer, pos]`
    ResidPost,
    /// `attn_out`: `[layer, pos]`
    AttnOut,
    /// `mlp_out`: `[layer, pos]`
    MlpOut,
    /// `attn_head_{kind}_all_pos`: `[layer, head]`
    Head(HeadPart),
    /// `attn_head_{kind}_by_pos`: `[layer, pos, head]`; `[layer, head, dest_pos]` for the pattern
    HeadByPos(HeadPart),
    /// `attn_head_pattern_dest_src_pos`: `[layer, head, dest_pos, src_pos]`
    PatternBySource,
    /// `block_every`: `[patch_type, layer, pos]`
    BlockEvery,
    /// `attn_head_all_pos_every`: `[patch_type, layer, head]`
    HeadEvery,
    /// `attn_head_by_pos_every`: `[patch_type, layer, pos, head]`
    HeadByPosEvery,
}

/// Which activation of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadPart {
    /// What it mixed: `hook_z`, which its output is linear in.
    Out,
    /// Its queries.
    Q,
    /// Its keys.
    K,
    /// Its values.
    V,
    /// Its pattern.
    Pattern,
}

impl HeadPart {
    /// Every part, in TransformerLens's order.
    pub const ALL: [Self; 5] = [Self::Out, Self::Q, Self::K, Self::V, Self::Pattern];

    fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Pattern => "pattern",
        }
    }

    fn point(self, layer: usize) -> HookPoint {
        match self {
            Self::Out => HookPoint::AttnZ(layer),
            Self::Q => HookPoint::AttnQ(layer),
            Self::K => HookPoint::AttnK(layer),
            Self::V => HookPoint::AttnV(layer),
            Self::Pattern => HookPoint::AttnPattern(layer),
        }
    }

    fn is_grouped(self) -> bool {
        matches!(self, Self::K | Self::V)
    }
}

impl Patch {
    /// Every sweep.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::ResidPre, Self::ResidMid, Self::ResidPost, Self::AttnOut, Self::MlpOut];
        all.extend(HeadPart::ALL.map(Self::Head));
        all.extend(HeadPart::ALL.map(Self::HeadByPos));
        all.extend([Self::PatternBySource, Self::BlockEvery, Self::HeadEvery, Self::HeadByPosEvery]);
        all
    }

    /// The same, one position at a time, where there is such a sweep.
    #[must_use]
    pub fn by_pos(self) -> Self {
        match self {
            Self::Head(part) => Self::HeadByPos(part),
            Self::HeadEvery => Self::HeadByPosEvery,
            other => other,
        }
    }

    /// The hooks of the other run that the sweep reads.
    #[must_use]
    pub fn hooks<M: HookedModel + ?Sized>(self, model: &M) -> Vec<HookPoint> {
        let mut hooks = Vec::new();
        for layer in 0..model.dims().n_layers {
            match self {
                Self::BlockEvery => hooks.extend([
                    HookPoint::ResidPre(layer),
                    HookPoint::AttnOut(layer),
                    HookPoint::MlpOut(layer),
                ]),
                Self::HeadEvery | Self::HeadByPosEvery => {
                    hooks.extend(HeadPart::ALL.map(|part| part.point(layer)));
                }
                Self::PatternBySource => hooks.push(HookPoint::AttnPattern(layer)),
                Self::Head(part) | Self::HeadByPos(part) => hooks.push(part.point(layer)),
                Self::ResidPre => hooks.push(HookPoint::ResidPre(layer)),
                Self::ResidMid => hooks.push(HookPoint::ResidMid(layer)),
                Self::ResidPost => hooks.push(HookPoint::ResidPost(layer)),
                Self::AttnOut => hooks.push(HookPoint::AttnOut(layer)),
                Self::MlpOut => hooks.push(HookPoint::MlpOut(layer)),
            }
        }
        hooks
    }
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResidPre => f.write_str("resid_pre"),
            Self::ResidMid => f.write_str("resid_mid"),
            Self::ResidPost => f.write_str("resid_post"),
            Self::AttnOut => f.write_str("attn_out"),
            Self::MlpOut => f.write_str("mlp_out"),
            Self::Head(part) => write!(f, "head_{}", part.name()),
            Self::HeadByPos(part) => write!(f, "head_{}_by_pos", part.name()),
            Self::PatternBySource => f.write_str("pattern_dest_src_pos"),
            Self::BlockEvery => f.write_str("block_every"),
            Self::HeadEvery => f.write_str("head_every"),
            Self::HeadByPosEvery => f.write_str("head_by_pos_every"),
        }
    }
}

impl FromStr for Patch {
    type Err = AnalysisError;

    /// Its name as `Display` has it, or TransformerLens's (`get_act_patch_attn_head_out_all_pos`);
    /// `head_z` is `head_out`, and `pattern` is `head_pattern`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_prefix("get_act_patch_").unwrap_or(text);
        let name = name.strip_prefix("attn_").filter(|rest| rest.starts_with("head_")).unwrap_or(name);
        let name = name.strip_suffix("_all_pos").unwrap_or(name).replace("_all_pos_every", "_every");
        let name = match name.as_str() {
            "head_z" => "head_out",
            "head_z_by_pos" => "head_out_by_pos",
            "pattern" => "head_pattern",
            "pattern_by_pos" => "head_pattern_by_pos",
            "head_pattern_dest_src_pos" => "pattern_dest_src_pos",
            name => name,
        };
        let all = Self::all();
        all.iter().copied().find(|patch| patch.to_string() == name).ok_or_else(|| {
            let near = nearest(name, all.iter().map(ToString::to_string));
            let near = if near.is_empty() {
                format!("; there are {}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            } else {
                format!("; did you mean {}?", near.join(" or "))
            };
            AnalysisError::Refused { what: "a patching sweep", reason: format!("there is no `{text}`{near}") }
        })
    }
}

/// The cells of one of TransformerLens's sweeps over prompts of `pos` positions: each replaces one
/// activation by that of `from`, the clean run.
///
/// # Errors
///
/// If the model has no such activation.
pub fn patching_sweep<M: HookedModel + ?Sized>(
    model: &M,
    patch: Patch,
    from: &Arc<ActivationCache>,
    pos: usize,
) -> Result<Sweep, AnalysisError> {
    let firing = model.firing();
    if let Some(missing) = patch.hooks(model).into_iter().find(|point| !firing.always.contains(point)) {
        let reason = format!("this model computes no `{missing}`");
        return Err(AnalysisError::Refused { what: "a patching sweep", reason });
    }
    let dims = model.dims();
    let builder = Builder { from, layers: dims.n_layers, heads: [dims.n_heads, dims.n_kv_heads], pos };
    Ok(match patch {
        Patch::ResidPre => builder.stream(HookPoint::ResidPre),
        Patch::ResidMid => builder.stream(HookPoint::ResidMid),
        Patch::ResidPost => builder.stream(HookPoint::ResidPost),
        Patch::AttnOut => builder.stream(HookPoint::AttnOut),
        Patch::MlpOut => builder.stream(HookPoint::MlpOut),
        Patch::Head(part) => builder.heads(part, builder.own(part)),
        Patch::HeadByPos(HeadPart::Pattern) => builder.pattern_by_dest(),
        Patch::HeadByPos(part) => builder.heads_by_pos(part, builder.own(part)),
        Patch::PatternBySource => builder.pattern_by_source(),
        Patch::BlockEvery => stacked(
            &["resid_pre", "attn_out", "mlp_out"],
            vec![
                builder.stream(HookPoint::ResidPre),
                builder.stream(HookPoint::AttnOut),
                builder.stream(HookPoint::MlpOut),
            ],
        ),
        Patch::HeadEvery => {
            let parts = HeadPart::ALL.map(|part| builder.heads(part, dims.n_heads));
            stacked(&HeadPart::ALL.map(HeadPart::name), parts.into())
        }
        Patch::HeadByPosEvery => {
            let parts = HeadPart::ALL.map(|part| builder.heads_by_pos(part, dims.n_heads));
            stacked(&HeadPart::ALL.map(HeadPart::name), parts.into())
        }
    })
}

struct Builder<'a> {
    from: &'a Arc<ActivationCache>,
    layers: usize,
    /// Query heads, key-value heads.
    heads: [usize; 2],
    pos: usize,
}

fn index(at: usize) -> Slice {
    Slice::Index(at.cast_signed())
}

impl Builder<'_> {
    fn patch(&self, at: HookPoint) -> Intervention {
        Intervention::patch(at, self.from)
    }

    /// How many heads the activation itself has.
    fn own(&self, part: HeadPart) -> usize {
        self.heads[usize::from(part.is_grouped())]
    }

    fn sweep(axes: &[(&str, usize)], cell: impl Fn(&[usize]) -> Option<Intervention>) -> Sweep {
        let count: usize = axes.iter().map(|axis| axis.1).product();
        let cells = (0..count).map(|at| {
            let mut rest = at;
            let mut place: Vec<usize> = axes
                .iter()
                .rev()
                .map(|axis| {
                    let here = rest % axis.1;
                    rest /= axis.1;
                    here
                })
                .collect();
            place.reverse();
            cell(&place).map(|intervention| vec![intervention])
        });
        Sweep {
            axes: axes.iter().map(|(name, len)| SweepAxis::counted(name, *len)).collect(),
            cells: cells.collect(),
        }
    }

    fn stream(&self, point: fn(usize) -> HookPoint) -> Sweep {
        Self::sweep(&[("layer", self.layers), ("pos", self.pos)], |at| {
            Some(self.patch(point(at[0])).pos(index(at[1])))
        })
    }

    fn heads(&self, part: HeadPart, heads: usize) -> Sweep {
        Self::sweep(&[("layer", self.layers), ("head", heads)], |at| {
            (at[1] < self.own(part)).then(|| self.patch(part.point(at[0])).heads(index(at[1])))
        })
    }

    fn heads_by_pos(&self, part: HeadPart, heads: usize) -> Sweep {
        Self::sweep(&[("layer", self.layers), ("pos", self.pos), ("head", heads)], |at| {
            let patch = || self.patch(part.point(at[0])).pos(index(at[1])).heads(index(at[2]));
            (at[2] < self.own(part)).then(patch)
        })
    }

    fn pattern_by_dest(&self) -> Sweep {
        Self::sweep(&[("layer", self.layers), ("head", self.heads[0]), ("dest_pos", self.pos)], |at| {
            Some(self.patch(HookPoint::AttnPattern(at[0])).heads(index(at[1])).pos(index(at[2])))
        })
    }

    fn pattern_by_source(&self) -> Sweep {
        let axes =
            [("layer", self.layers), ("head", self.heads[0]), ("dest_pos", self.pos), ("src_pos", self.pos)];
        Self::sweep(&axes, |at| {
            let patch = self.patch(HookPoint::AttnPattern(at[0])).heads(index(at[1]));
            Some(patch.pos(index(at[2])).sources(index(at[3])))
        })
    }
}

/// Sweeps of the same axes, one after the other.
fn stacked(labels: &[&str], parts: Vec<Sweep>) -> Sweep {
    let first = SweepAxis::new("patch_type", labels.iter().map(|&label| label.to_owned()).collect());
    let mut axes = vec![first];
    axes.extend(parts[0].axes.iter().cloned());
    Sweep { axes, cells: parts.into_iter().flat_map(|part| part.cells).collect() }
}
