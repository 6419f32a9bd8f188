//! The kernels on burn's CPU backend: from its tensors to slices and back.

use std::sync::Arc;

use burn::{
    backend::{
        Flex, TensorMetadata,
        flex::{FlexTensor, Layout},
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{Bytes, DType, Element, Shape, bf16, f16},
};
use bytemuck::Pod;

use super::{Given, KernelOps, PlainOps};
use crate::{
    columns::Columns,
    cpu::{
        activation::{Gated, Slope, SoftCap, SoftCapSlope},
        attention::{self, Heads, Rounding, Scoring},
        half::{self, Value},
        loss::{NegativeLogLikelihood, NegativeLogLikelihoodSlope},
        norm::{Affine, Center, Normalize, NormalizeSlope, Rescale, RootMeanSquare},
        placed::{self, View},
        product::{self, Operand},
        rotary::Rotate,
        rounded,
        rows::{self, PairKernel, RowKernel},
        softmax::{LogSoftmax, LogSoftmaxSlope, Softmax, SoftmaxSlope},
        top,
    },
    kernels::{Activation, AttentionScores, RowOp, Seen},
};

/// A tensor of new values.
fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// `x` in row-major order.
fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.layout().contiguous_offsets().is_some() { x } else { x.to_contiguous() }
}

/// The values of a tensor in row-major order.
fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("the tensor is contiguous and of f32")
}

/// The values of `x` to change in place, if no one else holds them.
fn owned<E: Element + Pod>(x: &mut FlexTensor) -> Option<&mut [E]> {
    let whole = x.is_contiguous()
        && x.layout().start_offset() == 0
        && x.bytes().len() == x.layout().num_elements() * size_of::<E>();
    if whole { x.try_storage_mut() } else { None }
}

/// Changes the values of `x`, of a half type, in place, or those of a copy.
fn rounded<E: Value + Element + Pod>(mut x: FlexTensor, change: impl Fn(&mut [E])) -> FlexTensor {
    if let Some(data) = owned(&mut x) {
        change(data);
        return x;
    }
    let mut data = x.as_slice::<E>().expect("the tensor is contiguous and of this type").to_vec();
    change(&mut data);
    FlexTensor::new(Bytes::from_elems(data), Layout::contiguous(x.shape()), x.dtype())
}

fn last(x: &FlexTensor) -> usize {
    x.layout().shape().to_vec().last().copied().unwrap_or(1)
}

/// Runs a kernel over rows of `row` values, in place where nobody else holds them; half types are rounded.
fn changed<K: RowKernel>(kernel: &K, x: FlexTensor, row: usize) -> FlexTensor {
    let mut x = contiguous(x);
    if x.layout().num_elements() == 0 || row == 0 {
        return x;
    }
    match x.dtype() {
        DType::BF16 => return rounded::<bf16>(x, |data| rows::in_place_rounded(kernel, data, row)),
        DType::F16 => return rounded::<f16>(x, |data| rows::in_place_rounded(kernel, data, row)),
        _ => {}
    }
    if let Some(data) = owned(&mut x) {
        rows::in_place(kernel, data, row);
        return x;
    }
    let shape = x.shape();
    tensor(rows::copied(kernel, values(&x), row), shape)
}

/// Runs a kernel over rows of `x` beside those of `other`: in place where nobody else holds `x`.
fn paired<K: PairKernel>(kernel: &K, x: FlexTensor, other: FlexTensor, row: usize) -> FlexTensor {
    let (mut x, other) = (contiguous(x), contiguous(other));
    if x.layout().num_elements() == 0 || row == 0 {
        return x;
    }
    match x.dtype() {
        DType::BF16 => {
            let other = other.as_slice().expect("the tensor is contiguous and of this type");
            return rounded::<bf16>(x, |data| rows::paired_rounded(kernel, data, other, row));
        }
        DType::F16 => {
            let other = other.as_slice().expect("the tensor is contiguous and of this type");
            return rounded::<f16>(x, |data| rows::paired_rounded(kernel, data, other, row));
        }
        _ => {}
    }
    if let Some(data) = owned(&mut x) {
        rows::paired(kernel, data, values(&other), row);
        return x;
    }
    let mut data = values(&x).to_vec();
    rows::paired(kernel, &mut data, values(&other), row);
    let shape = x.shape();
    tensor(data, shape)
}

impl KernelOps for Flex {
    fn row_map(x: FloatTensor<Self>, op: RowOp) -> FloatTensor<Self> {
        let row = last(&x);
        match op {
            RowOp::Activation(act) => changed(&act, x, 1),
            RowOp::SoftCap(cap) => changed(&SoftCap(cap), x, 1),
            RowOp::Softmax => changed(&Softmax, x, row),
            RowOp::LogSoftmax => changed(&LogSoftmax, x, row),
            RowOp::Center => changed(&Center, x, row),
            RowOp::Normalize { layer, eps } => changed(&Normalize { layer, eps, w: None, b: None }, x, row),
            RowOp::Rotate(turns, d_head) => {
                let heads = x.layout().shape()[2];
                changed(&Rotate { turns: &turns, d_head }, x, heads * row)
            }
        }
    }

    fn row_map_backward(saved: FloatTensor<Self>, grad: FloatTensor<Self>, op: RowOp) -> FloatTensor<Self> {
        let row = last(&grad);
        match op {
            RowOp::Activation(act) => paired(&Slope(act), grad, saved, 1),
            RowOp::SoftCap(cap) => paired(&SoftCapSlope(cap), grad, saved, 1),
            RowOp::Softmax => paired(&SoftmaxSlope, grad, saved, row),
            RowOp::LogSoftmax => paired(&LogSoftmaxSlope, grad, saved, row),
            RowOp::Center => changed(&Center, grad, row),
            RowOp::Normalize { layer, eps } => paired(&NormalizeSlope { layer, eps }, grad, saved, row),
            RowOp::Rotate(turns, d_head) => {
                let heads = grad.layout().shape()[2];
                changed(&Rotate { turns: &turns.reversed(), d_head }, grad, heads * row)
            }
        }
    }

    fn gated_map(x: FloatTensor<Self>, y: FloatTensor<Self>, act: Activation) -> FloatTensor<Self> {
        paired(&Gated(act), x, y, 1)
    }

    fn row_rms(x: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let x = contiguous(x);
        let mut shape = x.shape().to_vec();
        if let Some(width) = shape.last_mut() {
            *width = 1;
        }
        tensor(rows::reduced(&RootMeanSquare(eps), values(&x), last(&x)), Shape::from(shape))
    }

    fn row_nll(x: FloatTensor<Self>, targets: Arc<[usize]>) -> FloatTensor<Self> {
        let x = contiguous(x);
        let losses = rows::reduced(&NegativeLogLikelihood(&targets), values(&x), last(&x));
        tensor(losses, Shape::from(vec![targets.len()]))
    }

    fn row_nll_backward(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        targets: Arc<[usize]>,
    ) -> FloatTensor<Self> {
        let grad = contiguous(grad);
        let row = last(&x);
        changed(&NegativeLogLikelihoodSlope { targets: &targets, grads: values(&grad) }, x, row)
    }
}

/// A view of four axes as `[batch, pos, heads, d_head]`; `order` says which axis is which.
fn heads(x: &FlexTensor, order: [usize; 4]) -> Heads<'_> {
    let shape = x.layout().shape();
    let strides = x.layout().strides();
    Heads {
        data: x.storage(),
        start: x.layout().start_offset(),
        dims: order.map(|axis| shape[axis]),
        strides: order.map(|axis| strides[axis].unsigned_abs()),
    }
}

/// `x` itself, or a copy where an axis runs backwards.
fn forwards(x: FlexTensor) -> FlexTensor {
    if x.layout().strides().iter().any(|&stride| stride < 0) { x.to_contiguous() } else { x }
}

const POS_FIRST: [usize; 4] = [0, 1, 2, 3];
const HEADS_FIRST: [usize; 4] = [0, 2, 1, 3];

fn scoring<'a>(how: &'a AttentionScores, sinks: Option<&'a FlexTensor>) -> Scoring<'a> {
    Scoring {
        scale: how.scale as f32,
        soft_cap: how.soft_cap.map(|cap| cap as f32),
        slopes: how.slopes.as_deref(),
        sinks: sinks.map(values),
        sight: &how.sight,
        rounding: Rounding::Not,
    }
}

/// A matrix of a product, in one of the layouts that products take.
enum Held {
    Rows(FlexTensor),
    Columns(FlexTensor),
}

impl Held {
    /// `[.., columns]` as one matrix.
    fn of(x: FlexTensor) -> Self {
        let (shape, strides) = (x.layout().shape(), x.layout().strides());
        let by_columns = match shape.len().checked_sub(2) {
            None => false,
            Some(at) => {
                let rows = shape[at];
                let one_matrix = shape[..at].iter().all(|&len| len == 1) && rows > 1;
                one_matrix && strides[at] == 1 && strides[at + 1] == rows.cast_signed()
            }
        };
        if by_columns { Self::Columns(x) } else { Self::Rows(contiguous(x)) }
    }

    fn tensor(&self) -> &FlexTensor {
        let (Self::Rows(x) | Self::Columns(x)) = self;
        x
    }

    /// The matrix among the values that the tensor has in memory.
    fn operand<'a, E>(&self, storage: &'a [E]) -> Operand<'a, E> {
        let layout = self.tensor().layout();
        let data = &storage[layout.start_offset()..][..layout.num_elements()];
        match self {
            Self::Rows(_) => Operand::Rows(data),
            Self::Columns(_) => Operand::Columns(data),
        }
    }
}

impl PlainOps for Flex {
    fn converted(x: FloatTensor<Self>, to: DType) -> FloatTensor<Self> {
        let x = contiguous(x);
        let bytes = match (x.dtype(), to) {
            (DType::BF16, _) => x.as_slice().map(|x| Bytes::from_elems(half::converted::<bf16, f32>(x))),
            (DType::F16, _) => x.as_slice().map(|x| Bytes::from_elems(half::converted::<f16, f32>(x))),
            (_, DType::BF16) => x.as_slice().map(|x| Bytes::from_elems(half::converted::<f32, bf16>(x))),
            (_, _) => x.as_slice().map(|x| Bytes::from_elems(half::converted::<f32, f16>(x))),
        };
        let bytes = bytes.expect("the tensor is contiguous, and one type is f32");
        FlexTensor::new(bytes, Layout::contiguous(x.shape()), to)
    }

    fn row_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        Given([has_w, has_b]): Given,
        (layer, eps): (bool, f32),
    ) -> FloatTensor<Self> {
        let row = last(&x);
        let [w, b] = [w, b].map(contiguous);
        let (w, b) = (has_w.then(|| values(&w)), has_b.then(|| values(&b)));
        changed(&Normalize { layer, eps, w, b }, x, row)
    }

    fn row_affine(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        Given([has_w, has_b]): Given,
    ) -> FloatTensor<Self> {
        let row = last(&x);
        let [w, b] = [w, b].map(contiguous);
        let (w, b) = (has_w.then(|| values(&w)), has_b.then(|| values(&b)));
        changed(&Affine { w, b }, x, row)
    }

    fn row_rescale(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        w: FloatTensor<Self>,
        out: Arc<Columns>,
    ) -> FloatTensor<Self> {
        let [x, scale, w] = [x, scale, w].map(contiguous);
        Rescale { scale: values(&scale), w: values(&w) }.append(&out, values(&x));
        x
    }

    fn row_place(out: FloatTensor<Self>, x: FloatTensor<Self>, at: usize) -> FloatTensor<Self> {
        let (mut out, x) = (contiguous(out), forwards(x));
        let layout = x.layout();
        let strides: Vec<usize> = layout.strides().iter().map(|stride| stride.unsigned_abs()).collect();
        let (data, start, shape) = (x.storage(), layout.start_offset(), &layout.shape()[..]);
        let view = View { data, start, shape, strides: &strides };
        let row: usize = out.layout().shape()[1..].iter().product();
        let place = at * row..at * row + layout.num_elements();
        if let Some(data) = owned(&mut out) {
            placed::place(&mut data[place], &view);
            return out;
        }
        let mut data = values(&out).to_vec();
        placed::place(&mut data[place], &view);
        let shape = out.shape();
        tensor(data, shape)
    }

    fn row_top(x: FloatTensor<Self>, k: usize) -> IntTensor<Self> {
        let x = contiguous(x);
        let found = top::top(values(&x), last(&x), k);
        let shape = Shape::from(vec![x.layout().shape()[0], k]);
        FlexTensor::new(Bytes::from_elems(found), Layout::contiguous(shape), DType::I64)
    }

    fn linear_map(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        Given([has_b, _]): Given,
    ) -> FloatTensor<Self> {
        let b = contiguous(b);
        let bias = has_b.then(|| values(&b));
        let columns = last(&w);
        let (x, w) = (Held::of(x), Held::of(w));
        let mut shape = x.tensor().shape().to_vec();
        let inner = std::mem::replace(shape.last_mut().expect("a product has an axis"), columns);
        let rows = shape[..shape.len() - 1].iter().product();
        let (shape, size) = (Shape::from(shape), [rows, inner, columns]);
        assert_eq!(w.tensor().layout().shape()[0], inner, "linear: x and w disagree about d_in");
        let dtype = x.tensor().dtype();
        if (dtype, w.tensor().dtype()) == (DType::BF16, DType::BF16) {
            let (x, w) = (x.operand(x.tensor().storage()), w.operand(w.tensor().storage()));
            if let Some(out) = product::linear_bf16(x, w, bias, size) {
                return FlexTensor::new(Bytes::from_elems(out), Layout::contiguous(shape), dtype);
            }
        }
        let wide = match x {
            x if dtype == DType::F32 => x,
            Held::Rows(x) | Held::Columns(x) => Held::Rows(Self::converted(x, DType::F32)),
        };
        let (x, of) = (wide.operand(wide.tensor().storage()), w.tensor());
        let out = match (dtype, of.dtype()) {
            (DType::BF16, DType::BF16) => {
                Bytes::from_elems(rounded::linear(x, w.operand(of.storage::<bf16>()), bias, size))
            }
            (DType::F16, DType::F16) => {
                Bytes::from_elems(rounded::linear(x, w.operand(of.storage::<f16>()), bias, size))
            }
            (DType::F32, DType::F32) => {
                Bytes::from_elems(product::linear_f32(x, w.operand(of.storage::<f32>()), bias, size))
            }
            (x, w) => panic!("linear: x is {x:?} and w {w:?}"),
        };
        FlexTensor::new(out, Layout::contiguous(shape), dtype)
    }

    fn attn_scores(q: FloatTensor<Self>, k: FloatTensor<Self>, how: AttentionScores) -> FloatTensor<Self> {
        let (q, k) = (forwards(q), forwards(k));
        let (q, k) = (heads(&q, POS_FIRST), heads(&k, HEADS_FIRST));
        let [batch, queries, n_heads, _] = q.dims;
        let scores = attention::scores(&q, &k, &scoring(&how, None));
        tensor(scores, Shape::from(vec![batch, n_heads, queries, k.dims[1]]))
    }

    fn attn_pattern(
        scores: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        Given([has_sinks, _]): Given,
        how: AttentionScores,
    ) -> FloatTensor<Self> {
        let shape = scores.shape();
        let dims = [0, 1, 2, 3].map(|axis| shape[axis]);
        let sinks = contiguous(sinks);
        let scoring = scoring(&how, has_sinks.then_some(&sinks));
        let mut scores = contiguous(scores);
        if let Some(data) = owned(&mut scores) {
            attention::pattern(data, dims, &scoring);
            return scores;
        }
        let mut data = values(&scores).to_vec();
        attention::pattern(&mut data, dims, &scoring);
        tensor(data, shape)
    }

    fn attn_mixed(pattern: FloatTensor<Self>, v: FloatTensor<Self>) -> FloatTensor<Self> {
        let (pattern, v) = (contiguous(pattern), forwards(v));
        let v = heads(&v, HEADS_FIRST);
        let shape = pattern.shape();
        let dims = [0, 1, 2, 3].map(|axis| shape[axis]);
        let mixed = attention::mixed(values(&pattern), dims, &v);
        tensor(mixed, Shape::from(vec![dims[0], dims[2], dims[1], v.dims[3]]))
    }

    fn attn_whole(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        Given([has_sinks, _]): Given,
        (how, rounding, seen): (AttentionScores, DType, Arc<Seen>),
    ) -> FloatTensor<Self> {
        let [q, k, v] = [q, k, v].map(forwards);
        let sinks = contiguous(sinks);
        let (q, k, v) = (heads(&q, POS_FIRST), heads(&k, HEADS_FIRST), heads(&v, HEADS_FIRST));
        let [batch, queries, n_heads, _] = q.dims;
        let rounding = match rounding {
            DType::BF16 => Rounding::Bf16,
            DType::F16 => Rounding::F16,
            _ => Rounding::Not,
        };
        let scoring = Scoring { rounding, ..scoring(&how, has_sinks.then_some(&sinks)) };
        let wanted = [seen.looks.scores, seen.looks.pattern];
        let (values, z) = attention::attention([&q, &k, &v], &scoring, wanted);
        seen.leave(values);
        tensor(z, Shape::from(vec![batch, queries, n_heads, v.dims[3]]))
    }
}
