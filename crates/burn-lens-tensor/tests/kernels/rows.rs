//! Operations over rows.

use burn_lens_tensor::{
    burn::tensor::Tensor,
    kernels::{self, Activation},
};

use crate::common::{both, close, each_path, numbers, random, same_in_any_pool, values};

/// Exponential, division, product: a rounding each. The polynomial behind GELU's error function
/// has ten terms, with errors of 3 roundings, which are 6 units just below a power of two.
const POINTWISE: f64 = 8.0;

/// A softmax divides by a sum of up to 2,000 terms, in 16 lanes.
const SUMMED: f64 = 16.0;

/// The composed GELU subtracts numbers near 1 in `f64` for very negative inputs.
const F64_CANCELLATION: f64 = 1e-14;

/// The exponent inside GELU's tanh form is rounded, and is 3 to 5 where the result is 0.1 to 0.01 below
/// zero: relative errors of a small result are five times those of the exponent. (Composed in
/// `f32`, a result this small is wrong in the fourth digit.)
const TANH_TAIL: f64 = 0.1;

const ACTIVATIONS: [Activation; 3] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];

/// Long enough for several threads, and no multiple of any number of lanes.
const LONG: [usize; 2] = [37, 1003];

#[test]
fn activations() {
    each_path(|path| {
        for act in ACTIVATIONS {
            for span in [0.01, 3.0, 30.0] {
                let [x, exact] = random(1, LONG, span);
                let [y, exact_y] = random(2, LONG, 2.0);
                let what = format!("{act:?} up to {span} on {path:?}");
                let tail = if act == Activation::GeluTanh && span > 1.0 { TANH_TAIL } else { 0.0 };
                let floor = tail.max(F64_CANCELLATION / 1e-7);
                let found = kernels::activation(x.clone(), act);
                close(&what, found, kernels::activation(exact.clone(), act), POINTWISE, floor);
                let (found, expected) = (kernels::gated(x, y, act), kernels::gated(exact, exact_y, act));
                close(&format!("{what}, gated"), found, expected, POINTWISE + 1.0, 2.0 * floor);
            }
        }
    });
}

#[test]
fn activations_of_huge_numbers_infinities_and_nan() {
    let special =
        [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, 1e30, -1e30, 1e-30, f32::MAX, f32::MIN];
    each_path(|path| {
        for act in ACTIVATIONS {
            let [x, exact] = both(&special, [special.len()]);
            // In f64 1e30³ is no overflow: the composed result is the limit, which is ours too.
            let what = format!("{act:?} on {path:?}");
            close(&what, kernels::activation(x, act), kernels::activation(exact, act), POINTWISE, 1e-30);
        }
    });
}

#[test]
fn soft_cap() {
    each_path(|path| {
        for span in [1e-3, 20.0, 400.0] {
            let [x, exact] = random(3, LONG, span);
            let what = format!("up to {span} on {path:?}");
            close(&what, kernels::soft_cap(x, 30.0), kernels::soft_cap(exact, 30.0), POINTWISE, 0.0);
        }
    });
}

#[test]
fn softmax_and_log_softmax() {
    each_path(|path| {
        for shape in [[37, 1003], [1, 2000], [3, 1], [64, 17], [5, 16]] {
            let [x, exact] = random(4, shape, 8.0);
            let what = format!("{shape:?} on {path:?}");
            close(&what, kernels::softmax(x.clone()), kernels::softmax(exact.clone()), SUMMED, 0.0);
            // A log-probability near 0 is a difference of numbers near 8.
            close(&what, kernels::log_softmax(x), kernels::log_softmax(exact), SUMMED, 8.0);
        }
    });
}

#[test]
fn softmax_of_rows_with_infinities_and_nan() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let rows = [
        [1.0, -inf, 0.5, 2.0],
        [-inf, -inf, -inf, -inf],
        [inf, 0.0, 1.0, 2.0],
        [nan, 0.0, 1.0, 2.0],
        [0.0, 1.0, 2.0, nan],
        [1e30, -1e30, 0.0, 1e30],
    ];
    each_path(|path| {
        let [x, exact] = both(rows.as_flattened(), [rows.len(), 4]);
        let what = format!("{path:?}");
        close(&what, kernels::softmax(x.clone()), kernels::softmax(exact.clone()), SUMMED, 0.0);
        close(&what, kernels::log_softmax(x), kernels::log_softmax(exact), SUMMED, 0.0);
    });
}

#[test]
fn norms_and_their_parts() {
    each_path(|path| {
        for (layer, width) in [(true, 768), (false, 768), (true, 20), (false, 3)] {
            let [x, exact] = random(5, [2, 19, width], 3.0);
            let [w, exact_w] = random(6, [width], 2.0);
            let [b, exact_b] = random(7, [width], 2.0);
            let what = format!("layer {layer}, {width} on {path:?}");
            let run = |x: &Tensor<3>, w: Option<&Tensor<1>>, b: Option<&Tensor<1>>| {
                kernels::normalized(x.clone(), layer, 1e-5, w, b)
            };
            for (with_w, with_b) in [(false, false), (true, false), (false, true), (true, true)] {
                let found = run(&x, with_w.then_some(&w), with_b.then_some(&b));
                let expected = run(&exact, with_w.then_some(&exact_w), with_b.then_some(&exact_b));
                close(&what, found, expected, SUMMED, 1.0);
            }
            let (center, exact_center) = if layer {
                (kernels::centered(x.clone()), kernels::centered(exact.clone()))
            } else {
                (x.clone(), exact.clone())
            };
            close(&what, center.clone(), exact_center.clone(), SUMMED, 1.0);
            let scale = kernels::root_mean_square(center.clone(), 1e-5);
            let exact_scale = kernels::root_mean_square(exact_center, 1e-5);
            close(&what, scale.clone(), exact_scale, SUMMED, 0.0);
            let parts = (center / scale) * w.clone().unsqueeze() + b.clone().unsqueeze();
            assert_eq!(parts.into_data(), run(&x, Some(&w), Some(&b)).into_data(), "{what}: bits");
        }
    });
}

#[test]
fn the_loss_of_rows() {
    each_path(|path| {
        let [x, exact] = random(8, [37, 1003], 9.0);
        let targets: Vec<usize> = (0..37).map(|row| row * 27 % 1003).collect();
        let found = kernels::negative_log_likelihood(x.clone(), &targets);
        close(&format!("{path:?}"), found, kernels::negative_log_likelihood(exact, &targets), SUMMED, 8.0);
        let [rare, exact] = both(&[0.0, f32::NEG_INFINITY, 1.0, f32::NAN, 0.0, 1.0], [2, 3]);
        let found = kernels::negative_log_likelihood(rare, &[1, 0]);
        close("infinite", found, kernels::negative_log_likelihood(exact, &[1, 0]), SUMMED, 0.0);
    });
}

#[test]
fn views_and_shared_tensors_are_read_right() {
    let [x, exact] = random(9, [30, 40], 3.0);
    let view = |x: &Tensor<2>| x.clone().transpose().narrow(0, 3, 30).narrow(1, 5, 21);
    let found = kernels::softmax(view(&x));
    close("view", found, kernels::softmax(view(&exact)), SUMMED, 0.0);
    let before = values(x.clone());
    let _ = kernels::activation(x.clone(), Activation::Silu);
    let _ = kernels::activation(x.clone().narrow(0, 2, 4), Activation::Silu);
    assert_eq!(values(x), before, "a tensor that others hold was changed");
    let [empty, _] = both(&[], [0, 4]);
    assert_eq!(kernels::softmax(empty).dims(), [0, 4]);
}

/// A product of `inner` terms below 1, each rounded once.
const PRODUCT: f64 = 60.0;

#[test]
fn products_with_a_matrix() {
    each_path(|path| {
        // Of each way to multiply, on both sides of where it begins.
        let few =
            [(1, 768, 3000), (1, 7, 5), (3, 20, 70), (8, 100, 4500), (2, 8, 16), (9, 30, 20), (25, 50, 37)];
        let more =
            [(32, 40, 300), (33, 40, 300), (64, 90, 513), (96, 17, 128), (97, 60, 129), (300, 700, 90)];
        for (rows, inner, columns) in few.into_iter().chain(more) {
            let [x, exact] = random(10, [1, rows, inner], 1.0);
            let [w, exact_w] = random(11, [inner, columns], 1.0);
            let [b, exact_b] = random(12, [columns], 1.0);
            let what = format!("[{rows}, {inner}] [{inner}, {columns}] on {path:?}");
            let found = kernels::linear(x.clone(), w.clone(), Some(b));
            close(&what, found, kernels::linear(exact.clone(), exact_w.clone(), Some(exact_b)), PRODUCT, 4.0);
            let found = kernels::linear(x, w.clone().transpose().reshape([columns, inner]).transpose(), None);
            close(&what, found, kernels::linear(exact, exact_w.clone(), None), PRODUCT, 4.0);
            // What is multiplied may be a transposed view too.
            let [x, exact] = random(13, [inner, rows], 1.0).map(Tensor::transpose);
            let found = kernels::linear(x.unsqueeze::<3>(), w, None);
            close(&what, found, kernels::linear(exact.unsqueeze::<3>(), exact_w, None), PRODUCT, 4.0);
        }
    });
}

#[test]
fn products_with_several_matrices_are_those_with_each() {
    each_path(|path| {
        for rows in [1, 3, 96, 97] {
            let x = random(16, [1, rows, 70], 1.0);
            let weights =
                [(17, 300), (18, 20), (19, 4)].map(|(seed, columns)| random(seed, [70, columns], 1.0));
            let bias = random(20, [300], 1.0);
            for of in [0, 1] {
                let [w, v, u] = [0, 1, 2].map(|at| &weights[at][of]);
                let maps = [(w, Some(&bias[of])), (v, None), (u, None)];
                let expected = maps.map(|(w, b)| kernels::linear(x[of].clone(), w.clone(), b.cloned()));
                let found = kernels::linears(&x[of], maps);
                for (found, expected) in found.into_iter().zip(expected) {
                    assert_eq!(found.into_data(), expected.into_data(), "{rows} rows, {of}, on {path:?}");
                }
            }
        }
    });
}

#[test]
fn neither_instructions_nor_threads_change_a_bit() {
    let [x, _] = random(13, [50, 1003], 5.0);
    let [w, _] = random(14, [1003, 700], 1.0);
    let targets: Vec<usize> = numbers(15, 50, 500.0).iter().map(|x| (x + 500.0) as usize).collect();
    let all = || -> Tensor<1> {
        let flat = |t: Tensor<2>| t.flatten::<1>(0, 1);
        let first = x.clone().narrow(0, 0, 2);
        let mut parts: Vec<Tensor<1>> =
            ACTIVATIONS.map(|act| flat(kernels::activation(x.clone(), act))).to_vec();
        parts.push(flat(kernels::softmax(x.clone())));
        parts.push(flat(kernels::log_softmax(x.clone())));
        parts.push(flat(kernels::soft_cap(x.clone(), 3.0)));
        parts.push(flat(kernels::normalized(x.clone(), true, 1e-5, None, None)));
        parts.push(kernels::negative_log_likelihood(x.clone(), &targets));
        parts.push(flat(kernels::linear(first, w.clone(), None)));
        Tensor::cat(parts, 0)
    };
    let expected = all().into_data();
    each_path(|path| assert_eq!(all().into_data().as_bytes(), expected.as_bytes(), "{path:?}"));
    same_in_any_pool(all);
}

#[test]
fn a_norm_with_a_given_scale() {
    each_path(|path| {
        for width in [768, 20, 3] {
            let [x, exact] = random(5, [2, 19, width], 3.0);
            let [w, exact_w] = random(6, [width], 2.0);
            let [scale, exact_scale] = random(7, [2, 19, 1], 1.0);
            let [other, exact_other] = random(8, [2, 19, 7], 1.0);
            let [v, exact_v] = random(9, [7], 1.0);
            let (scale, exact_scale) = (scale + 2.0, exact_scale + 2.0);
            let found = kernels::rescaled(vec![(x, scale.clone(), w), (other, scale, v)]);
            let parts = vec![(exact, exact_scale.clone(), exact_w), (exact_other, exact_scale, exact_v)];
            close(&format!("{width} on {path:?}"), found, kernels::rescaled(parts), 3.0, 0.0);
        }
    });
}

#[test]
fn views_are_copied_into_their_place() {
    let [x, exact] = random(20, [5, 700, 30], 1.0);
    let [out, exact_out] = random(21, [11, 30, 700], 1.0);
    let [shared, _] = random(21, [11, 30, 700], 1.0);
    let turned = |x: &Tensor<3>| x.clone().permute([0, 2, 1]);
    let expected = |at: usize, x: Tensor<3>| {
        let n = x.dims()[0];
        exact_out.clone().slice_assign([at..at + n, 0..30, 0..700], x)
    };
    let held = shared.clone();
    close("turned", kernels::placed(shared, 4, turned(&x)), expected(4, turned(&exact)), 0.0, 0.0);
    close("others keep theirs", held, exact_out.clone(), 0.0, 0.0);
    let part = |x: &Tensor<3>| turned(x).narrow(0, 2, 1);
    close("one", kernels::placed(out.clone(), 10, part(&x)), expected(10, part(&exact)), 0.0, 0.0);
    let whole = |x: &Tensor<3>| turned(x).reshape([5, 30, 700]);
    close("contiguous", kernels::placed(out, 0, whole(&x)), expected(0, whole(&exact)), 0.0, 0.0);
    let [line, _] = random(22, [9], 1.0);
    let found = values(kernels::placed(line.clone(), 8, line.clone().narrow(0, 0, 1)));
    let before = values(line);
    assert_eq!((&found[..8], found[8]), (&before[..8], before[0]), "one axis");
}

#[test]
fn the_largest_of_each_row() {
    /// The places of the largest values by sorting all of them.
    fn sorted(row: &[f32], k: usize) -> Vec<i64> {
        let mut places: Vec<usize> = (0..row.len()).collect();
        let key = |x: f32| if x.is_nan() { f32::INFINITY } else { x };
        places.sort_by(|&a, &b| {
            let nan = row[b].is_nan().cmp(&row[a].is_nan());
            nan.then(key(row[b]).partial_cmp(&key(row[a])).unwrap())
        });
        places.truncate(k);
        places.into_iter().map(|place| place as i64).collect()
    }
    each_path(|path| {
        for (rows, width) in [(1, 1), (3, 15), (9, 16), (5, 97), (12, 1000)] {
            let mut values = numbers(31, rows * width, 4.0);
            // Ties, values without an order, and a row in ascending order.
            for (at, x) in values.iter_mut().enumerate() {
                match at % 11 {
                    0 => *x = (*x * 2.0).round(),
                    5 if at % 33 == 5 => *x = f32::NAN,
                    7 if at % 77 == 7 => *x = f32::INFINITY,
                    8 => *x = f32::NEG_INFINITY,
                    _ => {}
                }
            }
            if let Some(row) = values.get_mut(width..2 * width) {
                row.iter_mut().enumerate().for_each(|(at, x)| *x = at as f32);
            }
            let [x, _] = both(&values, [rows, width]);
            for k in [1, 2, 7, 16, 64, width] {
                let (found, places) = kernels::top(x.clone(), k);
                let places: Vec<i64> = places.into_data().iter().collect();
                let found: Vec<f32> = found.into_data().iter().collect();
                let k = k.min(width);
                let expected: Vec<i64> = values.chunks(width).flat_map(|row| sorted(row, k)).collect();
                assert_eq!(places, expected, "{k} of [{rows}, {width}] on {path:?}");
                for (at, (found, &place)) in found.iter().zip(&places).enumerate() {
                    let value = values[at / k * width + place as usize];
                    assert!(*found == value || found.is_nan() && value.is_nan());
                }
            }
        }
    });
}
