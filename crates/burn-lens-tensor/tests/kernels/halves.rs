//! Half types: computed in `f32`, then rounded.

use burn_lens_tensor::{
    burn::tensor::{DType, Tensor},
    kernels::{self, Activation, AttentionScores, Looks, Sight, SimdPath},
};

use crate::common::{close, each_path, random, same_in_any_pool};

const HALVES: [DType; 2] = [DType::BF16, DType::F16];

/// Random numbers of a half type, and the same in `f32`.
fn halved<const D: usize>(seed: u64, shape: [usize; D], dtype: DType) -> [Tensor<D>; 2] {
    let x = random(seed, shape, 2.0)[0].clone().cast(dtype);
    [x.clone(), x.cast(DType::F32)]
}

/// Fails where `found` is not `expected`, of `f32`, rounded.
#[track_caller]
fn rounded<const D: usize>(what: &str, found: Tensor<D>, expected: Tensor<D>) {
    let expected = expected.cast(found.dtype()).cast(DType::F32);
    close(what, found.cast(DType::F32), expected, 0.0, 0.0);
}

/// Fails where `found` is neither `expected`, of `f32`, rounded, nor the number beside it.
#[track_caller]
fn neighbors(what: &str, found: Tensor<2>, expected: Tensor<2>) {
    /// One unit of the last place of `bf16` in those of `f32`, and what sums of small numbers lose.
    const ULPS: f64 = 65_536.0;
    let expected = expected.cast(found.dtype()).cast(DType::F32);
    close(what, found.cast(DType::F32), expected, ULPS, 1e-3);
}

#[test]
fn products_are_those_of_f32_rounded() {
    each_path(|path| {
        for dtype in HALVES {
            for [rows, inner, columns] in
                [[1, 40, 600], [1, 700, 300], [3, 77, 513], [8, 64, 30], [40, 77, 129], [2, 5, 1]]
            {
                let what = format!("{dtype:?} [{rows}, {inner}] [{inner}, {columns}] on {path:?}");
                let ([x, wide_x], [w, wide_w]) =
                    (halved(1, [rows, inner], dtype), halved(2, [inner, columns], dtype));
                let [b, wide_b] = halved(3, [columns], dtype);
                // Tiles sum in another order, so that a sum in between two numbers may go to the other.
                let tiles = path == SimdPath::Amx && dtype == DType::BF16 && rows > 8;
                let compare = if tiles { neighbors } else { rounded };
                let found = kernels::linear(x.clone(), w, Some(b));
                compare(&what, found, kernels::linear(wide_x.clone(), wide_w, Some(wide_b)));
                let [w, wide_w] = halved(4, [columns, inner], dtype).map(Tensor::transpose);
                compare(&what, kernels::linear(x, w, None), kernels::linear(wide_x, wide_w, None));
            }
        }
    });
}

#[test]
fn activations_are_those_of_f32_rounded() {
    for dtype in HALVES {
        let [x, wide_x] = halved(5, [70, 300], dtype);
        let [y, wide_y] = halved(6, [70, 300], dtype);
        for act in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            let what = format!("{act:?} in {dtype:?}");
            rounded(&what, kernels::activation(x.clone(), act), kernels::activation(wide_x.clone(), act));
            let found = kernels::gated(x.clone(), y.clone(), act);
            rounded(&what, found, kernels::gated(wide_x.clone(), wide_y.clone(), act));
        }
    }
}

#[test]
fn norms_are_rounded_before_and_after_weight_and_bias() {
    for dtype in HALVES {
        let [x, wide_x] = halved(13, [70, 300], dtype);
        let [w, wide_w] = halved(14, [300], dtype);
        let [b, wide_b] = halved(15, [300], dtype);
        for layer in [true, false] {
            let what = format!("a norm in {dtype:?}");
            let plain = kernels::normalized(x.clone(), layer, 1e-5, None, None);
            rounded(&what, plain.clone(), kernels::normalized(wide_x.clone(), layer, 1e-5, None, None));
            let affine = kernels::affine(plain.clone(), Some(&w), Some(&b));
            let expected = plain.cast(DType::F32) * wide_w.clone().unsqueeze() + wide_b.clone().unsqueeze();
            rounded(&what, affine.clone(), expected);
            let whole = kernels::normalized(x.clone(), layer, 1e-5, Some(&w), Some(&b));
            assert_eq!(whole.into_data(), affine.into_data(), "{what} at once");
        }
    }
}

#[test]
fn attention_is_that_of_f32_rounded_at_each_step() {
    let how = AttentionScores {
        scale: 8.0,
        soft_cap: Some(2.0),
        slopes: None,
        sight: Sight { first: 3, causal: true, window: Some(70), tokens: None },
    };
    for dtype in HALVES {
        let [q, wide_q] = halved(7, [2, 150, 4, 16], dtype);
        let [k, wide_k] = halved(8, [2, 2, 153, 16], dtype);
        let [v, wide_v] = halved(9, [2, 2, 153, 16], dtype);
        let [sinks, wide_sinks] = halved(10, [4], dtype);
        let scores = kernels::scores(&q, &k, &how).unwrap();
        rounded("scores", scores.clone(), kernels::scores(&wide_q, &wide_k, &how).unwrap());
        let wide = scores.clone().cast(DType::F32);
        let pattern = kernels::pattern(scores.clone(), Some(&sinks), &how).unwrap();
        rounded("a pattern", pattern.clone(), kernels::pattern(wide, Some(&wide_sinks), &how).unwrap());
        let wide = pattern.clone().cast(DType::F32);
        let z = kernels::mixed(&pattern, &v).unwrap();
        rounded("z", z.clone(), kernels::mixed(&wide, &wide_v).unwrap());
        let looks = Looks { scores: true, pattern: true };
        let whole = kernels::attention([&q, &k, &v], Some(&sinks), &how, looks).unwrap();
        assert_eq!(whole.scores.unwrap().into_data(), scores.into_data(), "scores at once, of {dtype:?}");
        assert_eq!(
            whole.pattern.unwrap().into_data(),
            pattern.into_data(),
            "a pattern at once, of {dtype:?}"
        );
        assert_eq!(whole.z.into_data(), z.into_data(), "all at once, of {dtype:?}");
    }
}

#[test]
fn threads_change_no_bit() {
    let [x, _] = halved(11, [40, 300], DType::BF16);
    let [w, _] = halved(12, [300, 900], DType::BF16);
    let first = x.clone().narrow(0, 0, 4);
    same_in_any_pool(|| kernels::linear(first.clone(), w.clone(), None));
    same_in_any_pool(|| kernels::activation(kernels::linear(x.clone(), w.clone(), None), Activation::Gelu));
}
