//! The kernels of the CPU as operations of our own on burn's backends.
//!
//! [`KernelOps`] has gradients; [`PlainOps`] is for tensors that are on no autodiff device.

mod autodiff;
#[cfg(feature = "cpu")]
mod flex;

use std::sync::Arc;

use burn::{
    backend::{
        Backend, Dispatch, backend_extension,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, Device, Int, Tensor},
};

use crate::{
    columns::Columns,
    kernels::{Activation, AttentionScores, RowOp, Seen},
};

/// Operations with a gradient.
#[backend_extension(Flex: cfg(feature = "cpu"), Autodiff)]
pub(crate) trait KernelOps: Backend {
    /// Maps each row.
    fn row_map(x: FloatTensor<Self>, op: RowOp) -> FloatTensor<Self>;

    /// The gradient of [`KernelOps::row_map`] at `saved`, its input or result as the operation
    /// says, times `grad`.
    fn row_map_backward(saved: FloatTensor<Self>, grad: FloatTensor<Self>, op: RowOp) -> FloatTensor<Self>;

    /// `act(x) · y`.
    fn gated_map(x: FloatTensor<Self>, y: FloatTensor<Self>, act: Activation) -> FloatTensor<Self>;

    /// `sqrt(mean(x²) + eps)` of each row.
    fn row_rms(x: FloatTensor<Self>, eps: f32) -> FloatTensor<Self>;

    /// `-log p(target)` of each row of `x`.
    fn row_nll(x: FloatTensor<Self>, targets: Arc<[usize]>) -> FloatTensor<Self>;

    /// Its gradient at `x`, times `grad`.
    fn row_nll_backward(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        targets: Arc<[usize]>,
    ) -> FloatTensor<Self>;
}

/// Which of the optional tensors of an operation are there. burn's macro takes no optional
/// tensors, so a stand-in is passed for those that are not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given([bool; 2]);

/// Operations without a gradient.
#[backend_extension(Flex: cfg(feature = "cpu"))]
pub(crate) trait PlainOps: Backend {
    /// The same numbers in another type, `f32` on one side.
    fn converted(x: FloatTensor<Self>, to: DType) -> FloatTensor<Self>;

    /// A whole norm.
    fn row_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        given: Given,
        norm: (bool, f32),
    ) -> FloatTensor<Self>;

    /// `x · w + b` along each row.
    fn row_affine(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        given: Given,
    ) -> FloatTensor<Self>;

    /// `x · w / scale`, with a scale for each row, as the next columns of `out`; gives `x` back.
    fn row_rescale(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        w: FloatTensor<Self>,
        out: Arc<Columns>,
    ) -> FloatTensor<Self>;

    /// `x` into the rows of `out` from `at` on.
    fn row_place(out: FloatTensor<Self>, x: FloatTensor<Self>, at: usize) -> FloatTensor<Self>;

    /// Where the `k` largest values of each row are, from the largest.
    fn row_top(x: FloatTensor<Self>, k: usize) -> IntTensor<Self>;

    /// `x w + b`, of which `w` may be of half precision.
    fn linear_map(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        given: Given,
    ) -> FloatTensor<Self>;

    /// Masked scores.
    fn attn_scores(q: FloatTensor<Self>, k: FloatTensor<Self>, how: AttentionScores) -> FloatTensor<Self>;

    /// Softmax of scores.
    fn attn_pattern(
        scores: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        given: Given,
        how: AttentionScores,
    ) -> FloatTensor<Self>;

    /// Values mixed by a pattern.
    fn attn_mixed(pattern: FloatTensor<Self>, v: FloatTensor<Self>) -> FloatTensor<Self>;

    /// All of attention, with scores and pattern rounded to a type and left where they are looked at.
    fn attn_whole(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        given: Given,
        how: (AttentionScores, DType, Arc<Seen>),
    ) -> FloatTensor<Self>;
}

/// Whether there are kernels for a device and a type.
#[cfg(feature = "cpu")]
pub(crate) fn has_kernels(device: &Device, dtype: DType) -> bool {
    dtype == DType::F32 && device.clone().without_autodiff() == Device::flex()
}

/// Whether there are kernels for a device and a type: without the CPU's backend there are none.
#[cfg(not(feature = "cpu"))]
pub(crate) fn has_kernels(_: &Device, _: DType) -> bool {
    false
}

/// A tensor that is not looked at, beside `x`.
fn stand_in<const D: usize>(x: &Tensor<D>) -> Tensor<1> {
    Tensor::empty([0], (&x.device(), x.dtype()))
}

/// `x` in another type, `f32` on one side.
pub(crate) fn converted<const D: usize>(x: Tensor<D>, to: DType) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::converted(x.into_dispatch(), to))
}

/// Maps each row of `x`.
pub(crate) fn map<const D: usize>(x: Tensor<D>, op: RowOp) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::row_map(x.into_dispatch(), op))
}

/// `act(x) · y`.
pub(crate) fn gated<const D: usize>(x: Tensor<D>, y: Tensor<D>, act: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::gated_map(x.into_dispatch(), y.into_dispatch(), act))
}

/// `[.., width]` to `[.., 1]`.
pub(crate) fn root_mean_square<const D: usize>(x: Tensor<D>, eps: f32) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::row_rms(x.into_dispatch(), eps))
}

/// `[rows, d_vocab_out]` to `[rows]`.
pub(crate) fn negative_log_likelihood(logits: Tensor<2>, targets: Arc<[usize]>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::row_nll(logits.into_dispatch(), targets))
}

/// A whole norm.
pub(crate) fn normalize<const D: usize>(
    x: Tensor<D>,
    layer: bool,
    eps: f32,
    w: Option<Tensor<1>>,
    b: Option<Tensor<1>>,
) -> Tensor<D> {
    let given = Given([w.is_some(), b.is_some()]);
    let [w, b] = [w, b].map(|t| t.unwrap_or_else(|| stand_in(&x)).into_dispatch());
    Tensor::from_dispatch(Dispatch::row_norm(x.into_dispatch(), w, b, given, (layer, eps)))
}

/// `x · w + b` along each row.
pub(crate) fn affine<const D: usize>(x: Tensor<D>, w: Option<Tensor<1>>, b: Option<Tensor<1>>) -> Tensor<D> {
    let given = Given([w.is_some(), b.is_some()]);
    let [w, b] = [w, b].map(|t| t.unwrap_or_else(|| stand_in(&x)).into_dispatch());
    Tensor::from_dispatch(Dispatch::row_affine(x.into_dispatch(), w, b, given))
}

/// `x · w / scale` as the next columns of `out`.
pub(crate) fn rescale<const D: usize>(x: Tensor<D>, scale: Tensor<D>, w: Tensor<1>, out: &Arc<Columns>) {
    let [x, scale] = [x, scale].map(Tensor::into_dispatch);
    drop(Dispatch::row_rescale(x, scale, w.into_dispatch(), Arc::clone(out)));
}

/// `x` into the rows of `out` from `at` on.
pub(crate) fn place<const D: usize>(out: Tensor<D>, x: Tensor<D>, at: usize) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::row_place(out.into_dispatch(), x.into_dispatch(), at))
}

/// Where the `k` largest values of each row are, from the largest.
pub(crate) fn top(x: Tensor<2>, k: usize) -> Tensor<2, Int> {
    Tensor::from_dispatch(Dispatch::row_top(x.into_dispatch(), k))
}

/// `x w + b`.
pub(crate) fn linear<const D: usize>(x: Tensor<D>, w: Tensor<2>, b: Option<Tensor<1>>) -> Tensor<D> {
    let given = Given([b.is_some(), false]);
    let b = b.unwrap_or_else(|| stand_in(&x)).into_dispatch();
    Tensor::from_dispatch(Dispatch::linear_map(x.into_dispatch(), w.into_dispatch(), b, given))
}

/// Masked scores.
pub(crate) fn attention_scores(q: Tensor<4>, k: Tensor<4>, how: AttentionScores) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::attn_scores(q.into_dispatch(), k.into_dispatch(), how))
}

/// Softmax of scores.
pub(crate) fn attention_pattern(
    scores: Tensor<4>,
    sinks: Option<Tensor<1>>,
    how: AttentionScores,
) -> Tensor<4> {
    let given = Given([sinks.is_some(), false]);
    let sinks = sinks.unwrap_or_else(|| stand_in(&scores)).into_dispatch();
    Tensor::from_dispatch(Dispatch::attn_pattern(scores.into_dispatch(), sinks, given, how))
}

/// Values mixed by a pattern.
pub(crate) fn attention_mixed(pattern: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::attn_mixed(pattern.into_dispatch(), v.into_dispatch()))
}

/// All of attention, with scores and pattern rounded to a type and left where they are looked at.
pub(crate) fn attention_whole(
    [q, k, v]: [Tensor<4>; 3],
    sinks: Option<Tensor<1>>,
    how: (AttentionScores, DType, Arc<Seen>),
) -> Tensor<4> {
    let given = Given([sinks.is_some(), false]);
    let sinks = sinks.unwrap_or_else(|| stand_in(&q)).into_dispatch();
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::attn_whole(q, k, v, sinks, given, how))
}
