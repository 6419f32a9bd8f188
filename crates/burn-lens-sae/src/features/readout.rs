//! How a feature's direction reaches the logits: the model's own final norm and unembedding.
//!
//! With `C` the centering of a layer norm (the identity in an RMS norm), `w` and `b` the final
//! norm's weight and bias, and `σ(r) = √(mean((C r)²) + eps)`:
//!
//! `logits(r) = cap((C r ⊙ w) W_U / σ(r) + b W_U + b_U)`

use burn_lens_hooks::{HookPoint, HookedModel, ModelWeights as _, NormPlacement, NormSite, Param, RunError};
use burn_lens_tensor::{
    NormKind,
    burn::tensor::{DType, Tensor, TensorData},
};

use super::{FeatureError, StoreError};

/// Products of matrices get at least so many rows. With fewer, other kernels can run (those of the
/// CPU backend where there are at most 256 results), which round differently, and the result
/// would depend on how many rows come together.
pub(super) const FULL_ROWS: usize = 288;

/// What turns a final residual stream into logits.
pub(super) struct Readout {
    /// `w ⊙ W_U`, `[d_model, d_vocab]`, in `f32`.
    unembed: Tensor<2>,
    /// `b W_U + b_U`, `[d_vocab]`.
    pub(super) bias: Vec<f32>,
    kind: NormKind,
    eps: f64,
    pub(super) soft_cap: Option<f32>,
    /// What a direction is multiplied by to be one of the residual stream, `[d_out, d_model]`.
    writer: Option<Tensor<2>>,
}

impl Readout {
    /// The way from `hook_out` to the logits, or why there is none.
    pub(super) fn of(model: &dyn HookedModel, hook_out: HookPoint) -> Result<Self, String> {
        let unsupported = |error: RunError| error.to_string();
        let wiring = model.known_wiring().map_err(unsupported)?;
        let writer = writer(model, hook_out, wiring.placement)?;
        let single = |x: Tensor<2>| x.cast(DType::F32);
        let unembed = single(model.weight::<2>(Param::WU).map_err(unsupported)?);
        let norm = model.norm_at(NormSite::Final).map_err(unsupported)?;
        let d_vocab = unembed.dims()[1];
        let zeros = || Tensor::<1>::zeros([d_vocab], &unembed.device());
        let mut bias = model.find_weight::<1>(Param::BU).map_or_else(zeros, |b| b.cast(DType::F32));
        if let Some(b) = norm.b {
            bias = bias + b.cast(DType::F32).unsqueeze::<2>().matmul(unembed.clone()).squeeze_dim::<1>(0);
        }
        let unembed = match norm.w {
            Some(w) => unembed * w.cast(DType::F32).unsqueeze_dim::<2>(1),
            None => unembed,
        };
        let bias = host(bias).map_err(|error| error.to_string())?;
        let soft_cap = wiring.logits_soft_cap.map(|cap| cap as f32);
        Ok(Self { unembed, bias, kind: norm.kind, eps: norm.eps, soft_cap, writer: writer.map(single) })
    }

    /// How many logits there are.
    pub(super) fn d_vocab(&self) -> usize {
        self.unembed.dims()[1]
    }

    /// How long residual vectors are.
    pub(super) fn d_model(&self) -> usize {
        self.unembed.dims()[0]
    }

    /// Directions as the final norm sees them, centered: `[feature, d_model]`, row by row.
    pub(super) fn directions(&self, directions: Tensor<2>) -> Result<Vec<f32>, StoreError> {
        let directions = directions.cast(DType::F32);
        let mut rows = match &self.writer {
            Some(writer) => {
                let [n, d] = directions.dims();
                let filling = Tensor::zeros([FULL_ROWS.saturating_sub(n), d], &directions.device());
                let rows = if n < FULL_ROWS { Tensor::cat(vec![directions, filling], 0) } else { directions };
                let mut rows = host(rows.matmul(writer.clone()))?;
                rows.truncate(n * self.d_model());
                rows
            }
            None => host(directions)?,
        };
        self.center(&mut rows);
        Ok(rows)
    }

    /// Subtracts the mean of each row, in a layer norm.
    pub(super) fn center(&self, rows: &mut [f32]) {
        if self.kind != NormKind::Layer {
            return;
        }
        for row in rows.chunks_exact_mut(self.d_model()) {
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
            for x in row.iter_mut() {
                *x = (f64::from(*x) - mean) as f32;
            }
        }
    }

    /// `σ(r − a·d)` for centered `r` and `d`.
    pub(super) fn scale(&self, r: &[f32], a: f32, d: &[f32]) -> f64 {
        if self.kind == NormKind::None {
            return 1.0;
        }
        let a = f64::from(a);
        let square = |(&r, &d): (&f32, &f32)| (f64::from(r) - a * f64::from(d)).powi(2);
        let sum: f64 = r.iter().zip(d).map(square).sum();
        (sum / r.len() as f64 + self.eps).sqrt()
    }

    /// Centered rows on the device, for [`Readout::project`].
    pub(super) fn upload(&self, mut rows: Vec<f32>) -> Rows {
        let d = self.d_model();
        let n = rows.len() / d;
        let padded = n.max(FULL_ROWS);
        rows.resize(padded * d, 0.0);
        let data = TensorData::new(rows, [padded, d]);
        Rows { n, values: Tensor::from_data(data, (&self.unembed.device(), DType::F32)) }
    }

    /// The product of centered rows with `w ⊙ W_U`, for some of the vocabulary.
    pub(super) fn project(&self, rows: &Rows, first: usize, count: usize) -> Result<Vec<f32>, StoreError> {
        let mut values = host(rows.values.clone().matmul(self.unembed.clone().narrow(1, first, count)))?;
        values.truncate(rows.n * count);
        Ok(values)
    }
}

/// Residual vectors on the device, with rows of zeros behind where there are few.
pub(super) struct Rows {
    n: usize,
    /// `[row, d_model]`
    values: Tensor<2>,
}

/// What a direction at `hook_out` is multiplied by to be one of the residual stream.
fn writer(
    model: &dyn HookedModel,
    hook_out: HookPoint,
    placement: NormPlacement,
) -> Result<Option<Tensor<2>>, String> {
    let weight = |param| {
        if placement != NormPlacement::Pre {
            return Err(format!("a norm lies between `{hook_out}` and the residual stream in this model"));
        }
        model.weight::<2>(param).map(Some).map_err(|error| error.to_string())
    };
    match hook_out {
        HookPoint::Embed
        | HookPoint::PosEmbed
        | HookPoint::ResidPre(_)
        | HookPoint::AttnOut(_)
        | HookPoint::ResidMid(_)
        | HookPoint::MlpOut(_)
        | HookPoint::ResidPost(_) => Ok(None),
        HookPoint::MlpPost(layer) => weight(Param::WOut(layer)),
        HookPoint::AttnZ(layer) => weight(Param::WO(layer)),
        _ => Err(format!("`{hook_out}` does not write linearly to the residual stream")),
    }
}

/// The values of a tensor as `f32`.
pub(super) fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, StoreError> {
    Ok(tensor.try_into_data()?.try_into_vec_as::<f32>()?)
}

/// For `map_err` where a dictionary failed.
pub(super) fn failed(name: &str) -> impl Fn(StoreError) -> FeatureError + '_ {
    move |source| FeatureError::Dictionary { name: name.to_owned(), source }
}
