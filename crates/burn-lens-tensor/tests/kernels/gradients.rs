//! Gradients of the kernels beside those of the composed operations in `f64`.

use burn_lens_tensor::{
    burn::tensor::{IndexingUpdateOp, Tensor},
    kernels::{self, Activation, Turns},
};

use crate::common::{both, close, each_path, numbers, random};

/// A gradient is a product of a few rounded factors, and of a sum over a row.
const GRADIENT: f64 = 40.0;

/// The gradient of `Σ f(x) · g` by `x`.
fn gradient<const D: usize, const E: usize>(
    x: &Tensor<D>,
    g: &Tensor<E>,
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) -> Tensor<D> {
    let x = x.clone().autodiff().require_grad();
    let grads = (f(x.clone()) * g.clone().autodiff()).sum().backward();
    x.grad(&grads).expect("x is tracked").without_autodiff()
}

#[track_caller]
fn check<const D: usize, const E: usize>(
    what: &str,
    x: &[Tensor<D>; 2],
    g: &[Tensor<E>; 2],
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    let [found, expected] = [0, 1].map(|at| gradient(&x[at], &g[at], &f));
    close(what, found, expected, GRADIENT, 0.25);
}

#[test]
fn of_operations_over_rows() {
    each_path(|path| {
        let (x, g) = (random(20, [11, 203], 4.0), random(21, [11, 203], 1.0));
        for act in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            check(&format!("{act:?} on {path:?}"), &x, &g, |x| kernels::activation(x, act));
            let y = random(22, [11, 203], 2.0);
            let [found, expected] = [0, 1].map(|at| {
                let other = y[at].clone().autodiff();
                gradient(&x[at], &g[at], |x| kernels::gated(x, other.clone(), act))
            });
            close(&format!("{act:?} times y, by x"), found, expected, GRADIENT, 0.25);
            let [found, expected] = [0, 1].map(|at| {
                let other = x[at].clone().autodiff();
                gradient(&y[at], &g[at], |y| kernels::gated(other.clone(), y, act))
            });
            close(&format!("{act:?} times y, by y"), found, expected, GRADIENT, 0.25);
        }
        let on = |what: &str| format!("{what} on {path:?}");
        check(&on("softmax"), &x, &g, kernels::softmax);
        check(&on("log-softmax"), &x, &g, kernels::log_softmax);
        check(&on("soft-cap"), &x, &g, |x| kernels::soft_cap(x, 3.0));
        check(&on("layer norm"), &x, &g, |x| kernels::normalized(x, true, 1e-5, None, None));
        check(&on("RMS norm"), &x, &g, |x| kernels::normalized(x, false, 1e-5, None, None));
        check(&on("centered"), &x, &g, kernels::centered);
        let by_row = random(23, [11, 1], 1.0);
        check(&on("root mean square"), &x, &by_row, |x| kernels::root_mean_square(x, 1e-5));
    });
}

#[test]
fn of_slopes_far_out() {
    let far = [-3e38_f32, -1e20, -200.0, -12.0, 0.0, 12.0, 200.0, 1e20, 3e38];
    let ones = both(&[1.0; 9], [9]);
    let [x, _] = both(&far, [9]);
    for act in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        let found = gradient(&x, &ones[0], |x| kernels::activation(x, act));
        let [limit, _] = both(&far.map(|x| if x > 0.0 { 1.0 } else { 0.0 }), [9]);
        let [half, _] = both(&far.map(|x| if x == 0.0 { 0.5 } else { 0.0 }), [9]);
        // At -12 SiLU still has a slope of -6.8e-5.
        assert!((found - limit - half).abs().max().into_scalar::<f32>() < 1e-4, "{act:?}");
    }
}

#[test]
fn of_the_loss() {
    each_path(|path| {
        let (x, g) = (random(24, [11, 203], 4.0), random(25, [11], 1.0));
        let targets: Vec<usize> = numbers(26, 11, 100.0).iter().map(|x| (x + 101.0) as usize).collect();
        check(&format!("{path:?}"), &x, &g, |x| kernels::negative_log_likelihood(x, &targets));
    });
}

#[test]
fn of_the_weights_of_a_norm() {
    let (x, w, b) = (random(27, [11, 203], 4.0), random(28, [203], 1.0), random(29, [203], 1.0));
    let g = random(30, [11, 203], 1.0);
    let by_w = [0, 1].map(|at| {
        let (x, b) = (x[at].clone().autodiff(), b[at].clone().autodiff());
        gradient(&w[at], &g[at], |w| kernels::normalized(x.clone(), true, 1e-5, Some(&w), Some(&b)))
    });
    let [found, expected] = by_w;
    close("by w", found, expected, GRADIENT, 1.0);
    let by_b = [0, 1].map(|at| {
        let (x, w) = (x[at].clone().autodiff(), w[at].clone().autodiff());
        gradient(&b[at], &g[at], |b| kernels::normalized(x.clone(), true, 1e-5, Some(&w), Some(&b)))
    });
    let [found, expected] = by_b;
    close("by b", found, expected, GRADIENT, 1.0);
}

#[test]
fn of_a_rotation_is_the_rotation_back() {
    for adjacent in [false, true] {
        let angles: Vec<f32> = numbers(31, 5 * 3, 3.0);
        let turns = Turns {
            cos: angles.iter().map(|angle| angle.cos()).collect(),
            sin: angles.iter().map(|angle| angle.sin()).collect(),
            positions: 5,
            half: 3,
            adjacent,
        };
        let [x, _] = random(32, [2, 5, 4, 8], 1.0);
        let [g, _] = random(33, [2, 5, 4, 8], 1.0);
        let rotate = |x: Tensor<4>| kernels::rotate(x, &turns, |_| panic!("there is a kernel"));
        let back = |x: Tensor<4>| kernels::rotate(x, &turns.reversed(), |_| panic!("there is a kernel"));
        close("back", back(rotate(x.clone())), x.clone(), 4.0, 1.0);
        assert_eq!(gradient(&x, &g, rotate).into_data(), back(g.clone()).into_data());
        assert_eq!(rotate(x.clone()).narrow(3, 6, 2).into_data(), x.narrow(3, 6, 2).into_data());
    }
}

#[test]
fn of_the_largest_values() {
    let (x, g) = (random(30, [6, 203], 4.0), random(31, [6, 5], 1.0));
    let found = gradient(&x[0], &g[0], |x| kernels::top(x, 5).0);
    let (_, places) = kernels::top(x[0].clone(), 5);
    let expected = x[0].zeros_like().scatter(1, places, g[0].clone(), IndexingUpdateOp::Add);
    assert_eq!(found.into_data(), expected.into_data());
}
