//! Singular values, eigenvalues, norms and traces.

use burn_lens_linalg::{Complex, FactoredMatrix};
use burn_lens_tensor::{FloatType, burn::tensor::Tensor};
use proptest::prelude::*;

use crate::dense::{Case, Dense, cases, close, dense, random, same, square_cases};

/// Columns of length 1 at right angles.
#[track_caller]
fn orthonormal(m: &Dense) {
    let gram = m.t().times(m);
    same(&[gram], &[Dense::from_fn(m.cols, m.cols, |i, j| f64::from(u8::from(i == j)))]);
}

/// `u diag(s) vᵀ`
fn put_together(u: &Dense, s: &[f64], v: &Dense) -> Dense {
    Dense::from_fn(u.rows, v.rows, |i, j| (0..s.len()).map(|k| u.at(i, k) * s[k] * v.at(j, k)).sum())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn svd_puts_the_product_together(case in cases()) {
        let svd = case.factored().svd().unwrap();
        let [l, m, r] = case.dims;
        let k = l.min(m).min(r);
        prop_assert_eq!(svd.s.shape(), [&case.lead[..], &[k]].concat());
        prop_assert_eq!(svd.vh().shape(), [&case.lead[..], &[k, r]].concat());
        let (us, vs) = (dense(&svd.u), dense(&svd.v));
        for (i, expected) in case.product().iter().enumerate() {
            let s = &svd.s.data()[i * k..(i + 1) * k];
            prop_assert!(s.is_sorted_by(|a, b| a >= b) && s.iter().all(|&s| s >= 0.0), "{s:?}");
            orthonormal(&us[i]);
            orthonormal(&vs[i]);
            same(&[put_together(&us[i], s, &vs[i])], std::slice::from_ref(expected));
            for j in 0..k {
                let largest = (0..l).map(|row| us[i].at(row, j)).fold(0.0f64, |b, x| if x.abs() > b.abs() { x } else { b });
                prop_assert!(largest > 0.0, "the sign of column {j}");
            }
        }
        let alone = case.factored().singular_values().unwrap();
        alone.data().iter().zip(svd.s.data()).for_each(|(&a, &b)| close(a, b, svd.s.data()[0].max(1.0)));
    }

    #[test]
    fn the_norm_is_that_of_the_product(case in cases()) {
        let norms = case.factored().norm().unwrap();
        prop_assert_eq!(norms.shape(), &case.lead[..]);
        for (&norm, m) in norms.data().iter().zip(&case.product()) {
            close(norm, m.norm(), m.norm().max(1.0));
        }
    }

    #[test]
    fn even_and_collapsed_factors(case in cases()) {
        let m = case.factored();
        let even = m.make_even().unwrap();
        same(&dense(&even.ab()), &case.product());
        for (a, b) in dense(&even.a()).iter().zip(&dense(&even.b())) {
            close(a.norm(), b.norm(), a.norm().max(1.0));
            // Both are U√s and √sVᵀ: the same Gram matrix.
            same(&[a.t().times(a)], &[b.times(&b.t())]);
        }
        let (l, r) = (dense(&m.collapse_l().unwrap()), dense(&m.collapse_r().unwrap()));
        for (i, product) in case.product().iter().enumerate() {
            same(&[l[i].t().times(&l[i])], &[product.t().times(product)]);
            same(&[r[i].times(&r[i].t())], &[product.times(&product.t())]);
        }
    }

    /// Power sums of the eigenvalues are traces of powers, whatever the solver.
    #[test]
    fn eigenvalues_have_the_power_sums(case in square_cases()) {
        let values = case.factored().eigenvalues().unwrap();
        let [l, m, _] = case.dims;
        let k = l.min(m);
        prop_assert_eq!(values.shape(), [&case.lead[..], &[k]].concat());
        let traces = case.factored().trace().unwrap();
        for (i, product) in case.product().iter().enumerate() {
            let values = &values.data()[i * k..(i + 1) * k];
            let (mut power, mut powers) = (product.clone(), values.to_vec());
            for _ in 0..4 {
                let sum = powers.iter().fold((0.0, 0.0), |sum, v| (sum.0 + v.re, sum.1 + v.im));
                let scale = power.norm().max(product.norm()).max(1.0) * 10.0;
                close(sum.0, power.trace(), scale);
                close(sum.1, 0.0, scale);
                power = power.times(product);
                powers = powers.iter().zip(values).map(|(p, v)| times(*p, *v)).collect();
            }
            close(traces.data()[i], product.trace(), product.norm().max(1.0));
            let largest = values.first().map_or(0.0, Complex::abs);
            prop_assert!(values.windows(2).all(|pair| pair[0].abs() >= pair[1].abs() - 1e-9 * largest));
        }
    }

    #[test]
    fn eigenvectors_are_kept_in_their_direction(case in square_cases()) {
        let eigen = case.factored().eigen().unwrap();
        let (re, im) = (dense(&eigen.re), dense(&eigen.im));
        let k = case.dims[0].min(case.dims[1]);
        for (i, product) in case.product().iter().enumerate() {
            let (m_re, m_im) = (product.times(&re[i]), product.times(&im[i]));
            for j in 0..k {
                let value = eigen.values.data()[i * k + j];
                let length: f64 = (0..product.rows).map(|row| re[i].at(row, j).powi(2) + im[i].at(row, j).powi(2)).sum();
                prop_assert!((length - 1.0).abs() < 1e-9 || value.abs() < 1e-9 * product.norm());
                for row in 0..product.rows {
                    let vector = Complex { re: re[i].at(row, j), im: im[i].at(row, j) };
                    let expected = times(value, vector);
                    // A direction is as well determined as its eigenvalue is apart from the others.
                    prop_assert!((m_re.at(row, j) - expected.re).abs() < 1e-7 * product.norm().max(1.0));
                    prop_assert!((m_im.at(row, j) - expected.im).abs() < 1e-7 * product.norm().max(1.0));
                }
            }
        }
    }
}

fn times(a: Complex, b: Complex) -> Complex {
    Complex { re: a.re * b.re - a.im * b.im, im: a.re * b.im + a.im * b.re }
}

/// `tr(AᵀA · BBᵀ)` has no digits left here; the core has.
#[test]
fn a_norm_survives_cancellation() {
    for small in [1e-3, 1e-6, 1e-12] {
        let a = Tensor::<2>::from_data(
            [[1.0, 0.0], [0.0, small]],
            (&crate::dense::device(), FloatType::F64.dtype()),
        );
        let b = Tensor::<2>::from_data(
            [[0.0, 0.0], [0.0, 1.0]],
            (&crate::dense::device(), FloatType::F64.dtype()),
        );
        // A rotation of the inner axis hides the zeros from the Gram matrices.
        let (c, s) = (0.6, 0.8);
        let turn =
            Tensor::<2>::from_data([[c, -s], [s, c]], (&crate::dense::device(), FloatType::F64.dtype()));
        let m = FactoredMatrix::new(a.matmul(turn.clone()), turn.transpose().matmul(b)).unwrap();
        let norm = m.norm().unwrap().get(&[]);
        assert!((norm / small - 1.0).abs() < 1e-15 / small + 1e-9, "{norm} for {small}");
    }
}

#[test]
fn known_eigenvalues_come_sorted() {
    let (device, f64) = (crate::dense::device(), FloatType::F64.dtype());
    let rotation =
        Tensor::<2>::from_data([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, -5.0]], (&device, f64));
    let m = FactoredMatrix::new(rotation, Tensor::<2>::eye(3, &device).cast(f64)).unwrap();
    let values = m.eigenvalues().unwrap();
    let expected = [(-5.0, 0.0), (0.0, 2.0), (0.0, -2.0)];
    for (value, (re, im)) in values.data().iter().zip(expected) {
        close(value.re, re, 1.0);
        close(value.im, im, 1.0);
    }
    assert!((values.positive_share().get(&[]) - -5.0 / 9.0).abs() < 1e-12);
    assert_eq!(values.data()[1].to_string(), "0.0000+2.0000j");
}

#[test]
fn half_and_single_precision_are_decomposed_in_double() {
    let case = Case { lead: vec![2], dims: [6, 3, 5], seed: 11 };
    let (a, b) = case.factored().pair();
    for (float, tolerance) in [(FloatType::F32, 1e-6), (FloatType::Bf16, 2e-2)] {
        let cast = |m: &burn_lens_linalg::Matrices| m.flat().cast(float.dtype());
        let m = FactoredMatrix::new(cast(&a), cast(&b)).unwrap();
        let (found, expected) = (m.singular_values().unwrap(), case.factored().singular_values().unwrap());
        for (a, b) in found.data().iter().zip(expected.data()) {
            assert!((a - b).abs() < tolerance * expected.data()[0], "{a} {b}");
        }
        assert_eq!(m.svd().unwrap().u.dtype(), float.dtype());
    }
}

#[test]
fn the_same_on_every_run() {
    let m = Case { lead: vec![3], dims: [20, 8, 20], seed: 5 }.factored();
    let (first, second) = (m.svd().unwrap(), m.svd().unwrap());
    assert_eq!(first.u.flat().into_data(), second.u.flat().into_data());
    assert_eq!(m.eigenvalues().unwrap(), m.eigenvalues().unwrap());
}

#[test]
fn two_large_dense_products_agree() {
    let (a, b) = (random(1, [1, 300, 40]), random(2, [1, 40, 300]));
    let m = FactoredMatrix::new(a.clone(), b.clone()).unwrap();
    let dense = burn_lens_linalg::svd(a.matmul(b).squeeze_dim::<2>(0)).unwrap();
    let expected: Vec<f64> = dense.s.into_data().iter::<f64>().collect();
    for (&found, &expected) in m.singular_values().unwrap().data().iter().zip(&expected) {
        close(found, expected, m.singular_values().unwrap().data()[0]);
    }
    assert!(expected[40..].iter().all(|&s| s < 1e-9 * expected[0]));
}
