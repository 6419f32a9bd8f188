//! Norms applied to parts of a stream: with the run's statistics, or with each row's own.
//!
//! A norm is `P(x) / s · w + b`, where `P` subtracts the mean (layer norm) or does nothing (RMS
//! norm) and `s` is the scale. With `s` taken from the run it is linear up to `b`, so what it
//! makes of a sum is the sum of what it makes of the parts. Because `P` is its own transpose,
//! `(P(x) · w) · d = x · P(w · d)`: a direction can be pulled back through it once, instead of
//! pushing every part forward.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookedModel, ModelWeights, NormPlacement, NormSite};
use burn_lens_tensor::{Norm, NormKind, Slice};

use super::{Place, ResidStack, Residuals, slice_axis};
use crate::AnalysisError;

/// Which norm to apply to the rows of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Normalize {
    /// None.
    #[default]
    None,
    /// For attribution: centered (layer norm) and divided by the scale that the run had, without
    /// the norm's weight and bias. Linear: normalized parts sum to the normalized whole.
    /// TransformerLens's `apply_ln` of a decomposition.
    Attribution,
    /// For a lens: the norm itself, with the statistics of each row, its weight and its bias.
    /// Not linear. TransformerLens's `apply_ln` of `accumulated_resid` at the last layer.
    Lens,
}

/// A norm whose statistics are those of the run.
#[derive(Clone)]
pub(crate) struct FrozenNorm {
    norm: Norm,
    /// `[batch, pos, 1]`
    scale: Option<Tensor<3>>,
}

impl FrozenNorm {
    pub(crate) fn of<M: HookedModel + ?Sized>(
        residuals: &Residuals<'_, M>,
        site: NormSite,
        pos: &Slice,
    ) -> Result<Self, AnalysisError> {
        let norm = residuals.model.norm_at(site)?;
        let scale = match norm.kind {
            NormKind::None => None,
            _ => Some(residuals.get(site.scale_hook(), pos)?),
        };
        Ok(Self { norm, scale })
    }

    /// Without weight and bias.
    pub(crate) fn unweighted(mut self) -> Self {
        (self.norm.w, self.norm.b) = (None, None);
        self
    }

    /// `P(x) · w`: the part that acts on the last axis alone.
    pub(crate) fn linear<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.norm.kind == NormKind::None {
            return x;
        }
        let x = self.norm.centered(x);
        match &self.norm.w {
            None => x,
            Some(w) => x * w.clone().unsqueeze(),
        }
    }

    /// `P(w · d)`, the transpose of [`FrozenNorm::linear`].
    pub(crate) fn transposed<const D: usize>(&self, d: Tensor<D>) -> Tensor<D> {
        if self.norm.kind == NormKind::None {
            return d;
        }
        let d = match &self.norm.w {
            None => d,
            Some(w) => d * w.clone().unsqueeze(),
        };
        self.norm.centered(d)
    }

    /// `[batch, pos, 1]`
    pub(crate) fn scale(&self) -> Option<Tensor<3>> {
        self.scale.clone()
    }

    /// `[d_model]`
    pub(crate) fn bias(&self) -> Option<Tensor<1>> {
        self.norm.b.clone()
    }

    /// What it makes of the whole stream or output, bias included.
    pub(crate) fn whole(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.linear(x);
        let x = match &self.scale {
            None => x,
            Some(scale) => x.clone() / scale.clone().cast(x.dtype()),
        };
        match &self.norm.b {
            None => x,
            Some(b) => x + b.clone().unsqueeze(),
        }
    }
}

/// Norms that a part of a stream goes through one after the other.
#[derive(Clone, Default)]
pub(crate) struct Chain(pub(crate) Vec<FrozenNorm>);

impl Chain {
    /// The parts of all norms that act on the last axis alone.
    pub(crate) fn linear<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.0.iter().fold(x, |x, norm| norm.linear(x))
    }

    /// The product of all scales, `[batch, pos, 1]`.
    pub(crate) fn divisor(&self) -> Option<Tensor<3>> {
        self.0.iter().filter_map(FrozenNorm::scale).reduce(|a, b| a * b)
    }

    /// Divides rows `[component, batch, pos, _]` by the scales.
    pub(crate) fn divide(&self, rows: Tensor<4>) -> Tensor<4> {
        match self.divisor() {
            None => rows,
            Some(divisor) => rows.clone() / divisor.cast(rows.dtype()).unsqueeze_dim::<4>(0),
        }
    }

    /// What all norms make of rows `[component, batch, pos, d_model]`, biases left out.
    pub(crate) fn rows(&self, rows: Tensor<4>) -> Tensor<4> {
        if self.0.is_empty() { rows } else { self.divide(self.linear(rows)) }
    }
}

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// The norm that reads the stream at `place`.
    pub(crate) fn read_norm(&self, place: Place) -> Result<NormSite, AnalysisError> {
        let site = match (place.layer == self.dims.n_layers, place.mlp_input) {
            (true, _) => return Ok(NormSite::Final),
            (false, false) => NormSite::Ln1(place.layer),
            (false, true) => NormSite::Ln2(place.layer),
        };
        if self.wiring.placement == NormPlacement::Post {
            let reason =
                "this model's blocks read the stream without a norm (theirs are behind attention and MLP)";
            return Err(AnalysisError::Refused {
                what: "normalizing inside the model",
                reason: reason.to_owned(),
            });
        }
        Ok(site)
    }

    /// A stack as the norm at `layer` (its second norm with `mlp_input`) sees it: TransformerLens's
    /// method. `None` and -1 stand for the final norm.
    ///
    /// With [`Normalize::Attribution`] each row is centered (layer norm) and divided by the scale
    /// of the run; with [`Normalize::Lens`] it goes through the norm alone. A model without norms
    /// leaves it as it is.
    ///
    /// # Shapes
    ///
    /// - `stack`: `[component, batch, pos, d_model]`; returns the same
    ///
    /// # Errors
    ///
    /// If the stack was normalized or projected already, the scale was not kept, or the block's
    /// norms are not on what it reads.
    pub fn apply_ln_to_stack(
        &self,
        stack: &ResidStack,
        layer: impl Into<Option<isize>>,
        mlp_input: bool,
        normalize: Normalize,
    ) -> Result<ResidStack, AnalysisError> {
        let place = self.place(&super::StackOptions { mlp_input, ..super::StackOptions::at(layer) })?;
        self.normalized(stack.clone(), place, normalize)
    }

    pub(crate) fn normalized(
        &self,
        mut stack: ResidStack,
        place: Place,
        normalize: Normalize,
    ) -> Result<ResidStack, AnalysisError> {
        if normalize == Normalize::None {
            return Ok(stack);
        }
        self.check_raw(&stack, "normalizing a stack")?;
        let site = self.read_norm(place)?;
        stack.values = match normalize {
            Normalize::Lens => self.model.norm_at(site)?.apply(stack.values),
            _ => Chain(vec![self.frozen(site, &stack)?.unweighted()]).rows(stack.values),
        };
        stack.normalized = true;
        Ok(stack)
    }

    /// The norm at `site` with the scales of a stack's prompts and positions.
    pub(crate) fn frozen(&self, site: NormSite, stack: &ResidStack) -> Result<FrozenNorm, AnalysisError> {
        let mut norm = FrozenNorm::of(self, site, &stack.pos_slice)?;
        if let Some(scale) = norm.scale.take() {
            norm.scale = Some(slice_axis(scale, 0, &stack.batch_slice, "batch")?);
        }
        if let Some(scale) = &norm.scale {
            let ([_, batch, pos, _], found) = (stack.values.dims(), scale.dims());
            if found[..2] != [batch, pos] {
                return Err(AnalysisError::Shape {
                    what: "the stack",
                    expected: format!(
                        "[component, {}, {}, d_model], as the cache's scales",
                        found[0], found[1]
                    ),
                    found: stack.values.dims().to_vec(),
                });
            }
        }
        Ok(norm)
    }

    pub(crate) fn check_raw(&self, stack: &ResidStack, what: &'static str) -> Result<(), AnalysisError> {
        let reason = if stack.normalized {
            "its rows went through a norm already: take them with Normalize::None".to_owned()
        } else if !stack.is_resid || stack.values.dims()[3] != self.dims.d_model {
            format!("its rows are not of the residual stream of width {}", self.dims.d_model)
        } else {
            return Ok(());
        };
        Err(AnalysisError::Refused { what, reason })
    }
}
