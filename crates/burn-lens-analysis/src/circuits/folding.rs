//! Norms folded into the weights that read through them, without changing the model.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookedModel, ModelWeights, NormPlacement, NormSite, Param};
use burn_lens_tensor::{NormKind, numeric};

use crate::AnalysisError;

/// Whether a norm's weights count as part of what reads through the norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Folding {
    /// They do: `W ← diag(w) W`, and in a layer norm, which leaves no mean for `W` to read, `W` less
    /// its mean over `d_model`. Nothing happens to a model that was processed with `fold_ln`.
    #[default]
    Fold,
    /// Weights are taken as they are stored, as TransformerLens does.
    Raw,
}

/// Folds the norms of one model.
#[derive(Debug)]
pub(super) struct Folder {
    /// Whether the norms inside blocks, and the final one, are folded.
    blocks: bool,
    last: bool,
    notes: Vec<String>,
}

impl Folder {
    pub(super) fn new<M: HookedModel + ?Sized>(model: &M, folding: Folding) -> Result<Self, AnalysisError> {
        let has = |param: Param| model.param(param).is_some();
        let (ln1, ln2) = (has(Param::Ln1W(0)), has(Param::Ln2W(0)));
        let placement = match model.wiring() {
            Some(wiring) => wiring.placement,
            None if folding == Folding::Fold && (ln1 || ln2 || has(Param::LnFinalW)) => {
                model.known_wiring()?;
                NormPlacement::Pre
            }
            None => NormPlacement::Pre,
        };
        let before = placement != NormPlacement::Post;
        let fold = folding == Folding::Fold;
        let folder = Self {
            blocks: fold && before && (ln1 || ln2),
            last: fold && has(Param::LnFinalW),
            notes: Vec::new(),
        };
        let notes = folder.noted(&has, placement, folding);
        Ok(Self { notes, ..folder })
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    fn noted(&self, has: &impl Fn(Param) -> bool, placement: NormPlacement, folding: Folding) -> Vec<String> {
        let mut notes = Vec::new();
        let unfolded = has(Param::Ln1W(0)) || has(Param::Ln2W(0)) || has(Param::LnFinalW);
        match folding {
            Folding::Raw if unfolded => {
                notes.push("the norms' weights are left out of what reads through them, as asked".to_owned());
            }
            Folding::Fold if self.blocks || self.last => {
                let of =
                    [(self.blocks, "ln1 and ln2 into what reads them"), (self.last, "ln_final into W_U")];
                let of: Vec<&str> = of.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
                notes.push(format!("the norms' weights are folded: {}", of.join(", ")));
            }
            _ => notes.push("the norms have no weights to fold".to_owned()),
        }
        let mut left_out = |is: bool, text: &str| {
            if is {
                notes.push(text.to_owned());
            }
        };
        left_out(
            placement != NormPlacement::Pre,
            "the norms on what halves write are not part of their circuits",
        );
        left_out(has(Param::EmbedLnW), "the norm of the embedding is not part of W_E");
        left_out(has(Param::QNorm(0)), "the norms of queries and keys are not part of QK");
        notes
    }

    /// `param` with the norm at `site` folded in.
    pub(super) fn reader<M: HookedModel + ?Sized>(
        &self,
        model: &M,
        param: Param,
        site: NormSite,
    ) -> Result<Tensor<2>, AnalysisError> {
        let w = weight(model, param)?;
        if !(if site == NormSite::Final { self.last } else { self.blocks }) {
            return Ok(w);
        }
        let norm = model.norm_at(site)?;
        Ok(folded(w, norm.w, norm.kind))
    }

    /// `param`, which reads the norm inside a SoLU MLP, with that folded in.
    pub(super) fn inner_reader<M: HookedModel + ?Sized>(
        &self,
        model: &M,
        param: Param,
        norm: Param,
    ) -> Result<Tensor<2>, AnalysisError> {
        let w = weight(model, param)?;
        Ok(if self.blocks { folded(w, model.find_weight(norm), NormKind::Layer) } else { w })
    }
}

/// `diag(norm) W`, and for a layer norm without the mean that it would read; `w` where there is no
/// weight to fold.
fn folded(w: Tensor<2>, norm: Option<Tensor<1>>, kind: NormKind) -> Tensor<2> {
    let Some(norm) = norm else {
        return w;
    };
    let w = w * numeric::widened(norm).0.unsqueeze_dim(1);
    if kind == NormKind::Layer { w.clone() - w.mean_dim(0) } else { w }
}

/// A weight in the type that is computed in: `f32` for half precision.
pub(super) fn weight<M: HookedModel + ?Sized>(model: &M, param: Param) -> Result<Tensor<2>, AnalysisError> {
    Ok(numeric::widened(model.weight::<2>(param)?).0)
}
