//! Composition scores, subspaces and what random ones give.

use burn_lens_linalg::{
    CompositionCores, FactoredMatrix, Matrices, baseline, composition_scores, orthonormal_basis,
    principal_angles, subspace_overlap,
};
use burn_lens_tensor::burn::tensor::{DType, Tensor, TensorData};
use proptest::prelude::*;

use crate::dense::{Case, cases, close, device, random};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn composition_is_the_norm_of_the_product(case in cases(), inner in 0..6usize, right in 1..6usize, n in 1..4usize) {
        let other = Case { lead: vec![n], dims: [case.dims[2], inner, right], seed: case.seed ^ 1 };
        let scores = composition_scores(&case.factored(), &other.factored()).unwrap();
        prop_assert_eq!(scores.shape(), [&case.lead[..], &[n]].concat());
        let (lefts, rights) = (case.product(), other.product());
        for (i, l) in lefts.iter().enumerate() {
            for (j, r) in rights.iter().enumerate() {
                let norms = l.norm() * r.norm();
                let expected = if norms > 0.0 { l.times(r).norm() / norms } else { 0.0 };
                let found = scores.data()[i * n + j];
                // The root of a sum of squares that cancels keeps half the digits.
                prop_assert!((found - expected).abs() < 1e-10 || (found * found - expected * expected).abs() < 1e-12);
                prop_assert!((0.0..=1.0 + 1e-10).contains(&found));
            }
        }
    }
}

#[test]
fn scores_from_a_reader_on_are_those_of_all() {
    let (l, r) =
        (Case { lead: vec![4], dims: [9, 3, 7], seed: 1 }, Case { lead: vec![5], dims: [7, 2, 6], seed: 2 });
    let whole = composition_scores(&l.factored(), &r.factored()).unwrap();
    let writers = CompositionCores::of_writers(&l.factored()).unwrap();
    let readers = CompositionCores::of_readers(&r.factored()).unwrap();
    let first = |writer: usize| [3, 0, 0, 9][writer];
    let part = writers.scores_from(&readers, first).unwrap();
    for i in 0..4 {
        for j in 0..5 {
            close(part.get(&[i, j]), if j < first(i) { 0.0 } else { whole.get(&[i, j]) }, 1.0);
        }
    }
}

/// Circuits of `f32` with more columns inside than the stream is wide's root: their scores come from Gram matrices,
/// but for pairs that hardly meet and for entries whose squares have no room.
#[test]
fn composition_by_gram_matrices() {
    const N: usize = 60;
    const D: usize = 72;
    let half = |seed: u64, scale: f64, meet: f64, first_half: bool, n: usize| {
        let all: Tensor<3> = random(seed, [n, 40, D]).mul_scalar(scale);
        let [a, b] = [all.clone().narrow(2, 0, D / 2), all.narrow(2, D / 2, D / 2)];
        let [a, b] = if first_half { [a, b.mul_scalar(meet)] } else { [a.mul_scalar(meet), b] };
        Tensor::cat(vec![a, b], 2).cast(DType::F32)
    };
    let first = |writer: usize| writer / 5 * 4;
    for (scale, meet) in [(1.0, 1.0), (1.0, 0.1), (1.0, 1e-3), (1e-6, 1.0), (1e9, 1.0), (1.0, 0.0)] {
        let (b, a) = (half(1, scale, meet, true, N), half(2, scale, meet, false, N - 3).swap_dims(1, 2));
        let outer = |seed: u64, n: usize| random(seed, [n, 90, 40]).cast(DType::F32);
        let (w, r) = (outer(3, N), outer(4, N - 3).swap_dims(1, 2));
        let scores = |dtype: DType| {
            let m = |n: usize, x: &Tensor<3>| Matrices::new(vec![n], x.clone().cast(dtype));
            let writers = FactoredMatrix::new(m(N, &w), m(N, &b)).unwrap();
            let readers = FactoredMatrix::new(m(N - 3, &a), m(N - 3, &r)).unwrap();
            let writers = CompositionCores::of_writers(&writers).unwrap();
            let readers = CompositionCores::of_readers(&readers).unwrap();
            writers.scores_from(&readers, first).unwrap()
        };
        let (found, expected) = (scores(DType::F32), scores(DType::F64));
        for (at, (found, expected)) in found.data().iter().zip(expected.data()).enumerate() {
            // What is 0 in f64 is 0 here; cores of f32 of parts that are 0 are so too.
            let tolerance = 1e-5 * expected;
            assert!((found - expected).abs() <= tolerance, "{scale} {meet}, pair {at}: {found}, {expected}");
            assert_eq!(*expected == 0.0, meet == 0.0 || at % (N - 3) < first(at / (N - 3)), "pair {at}");
        }
    }
}

/// Squares of what `f32` holds may be too large for it: 1e20 here.
#[test]
fn composition_of_large_circuits_in_f32() {
    let scores = |scale: f64| {
        let circuits = |seed: u64, dims: [usize; 3]| {
            let case = Case { lead: vec![3], dims, seed }.factored();
            let f32 = |side: Matrices, scale: f64| {
                Matrices::new(vec![3], side.flat().mul_scalar(scale).cast(DType::F32))
            };
            FactoredMatrix::new(f32(case.a(), scale), f32(case.b(), 1.0)).unwrap()
        };
        composition_scores(&circuits(1, [20, 4, 12]), &circuits(2, [12, 4, 20])).unwrap()
    };
    let (plain, large) = (scores(1.0), scores(1e10));
    plain.data().iter().zip(large.data()).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} {b}"));
}

/// Means over random orientations, with their own standard error as the tolerance.
#[test]
fn baselines_are_the_means_over_random_matrices() {
    const SAMPLES: usize = 2000;
    let d = 12;
    let spectra = ([3.0, 2.0, 0.5], [1.0, 1.0]);
    let turned = |seed: u64, s: &[f64]| {
        let q = orthonormal_basis(random(seed, [1, d, d]).squeeze_dim::<2>(0)).unwrap();
        let s = Tensor::<1>::from_data(TensorData::new(s.to_vec(), [s.len()]), (&device(), q.dtype()));
        let k = s.dims()[0];
        q.narrow(1, 0, k) * s.unsqueeze()
    };
    let mut squares = Vec::new();
    let mut overlaps = Vec::new();
    for seed in 0..SAMPLES as u64 {
        let (l, r) = (turned(2 * seed, &spectra.0), turned(2 * seed + 1, &spectra.1));
        let eye = |k: usize| Tensor::<2>::eye(k, &device()).cast(l.dtype());
        let left = FactoredMatrix::new(eye(3), l.clone().transpose()).unwrap();
        let right = FactoredMatrix::new(r.clone(), eye(2)).unwrap();
        squares.push(composition_scores(&left, &right).unwrap().get(&[]).powi(2));
        overlaps.push(subspace_overlap(l, r).unwrap().get(&[]));
    }
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let deviation = |x: &[f64]| (mean(&x.iter().map(|v| (v - mean(x)).powi(2)).collect::<Vec<_>>())).sqrt();
    let (expected, spread) = baseline::composition_square(&spectra.0, &spectra.1, d).unwrap();
    close(expected, baseline::composition(d).powi(2), 1.0);
    let error = |x: &[f64]| 4.0 * deviation(x) / (SAMPLES as f64).sqrt();
    assert!((mean(&squares) - expected).abs() < error(&squares), "{} {expected}", mean(&squares));
    // The standard deviation of a standard deviation of N samples is about σ/√(2N), for tails like these twice that.
    assert!((deviation(&squares) / spread - 1.0).abs() < 0.1, "{} {spread}", deviation(&squares));
    let overlap = baseline::overlap(3, 2, d);
    assert!((mean(&overlaps) - overlap).abs() < error(&overlaps), "{} {overlap}", mean(&overlaps));
    assert_eq!(baseline::composition_square(&[0.0], &[1.0], 4), None);
}

fn columns(values: &[&[f64]]) -> Tensor<2> {
    let (cols, rows) = (values.len(), values[0].len());
    let data: Vec<f64> = (0..rows * cols).map(|at| values[at % cols][at / cols]).collect();
    Tensor::from_data(
        TensorData::new(data, [rows, cols]),
        (&device(), burn_lens_tensor::FloatType::F64.dtype()),
    )
}

#[test]
fn known_angles() {
    for angle in [0.0, 1e-9, 1e-4, 0.3, 1.0, std::f64::consts::FRAC_PI_2] {
        let a = columns(&[&[1.0, 0.0, 0.0, 0.0], &[0.0, 1.0, 0.0, 0.0]]);
        // One direction shared; the other turned. Scaled and mixed: only the space counts.
        let b = columns(&[&[2.0, 0.0, 0.0, 0.0], &[5.0, angle.cos(), angle.sin(), 0.0]]);
        let angles = principal_angles(a.clone(), b.clone()).unwrap();
        close(angles[0], 0.0, 1e-4);
        assert!((angles[1] - angle).abs() < 1e-14 + 1e-12 * angle, "{angles:?} for {angle}");
        let overlap = subspace_overlap(a, b).unwrap().get(&[]);
        close(overlap, f64::midpoint(1.0, angle.cos().powi(2)), 1.0);
    }
    // A space of lower rank than the columns suggest, inside the other.
    let (a, b) =
        (columns(&[&[1.0, 1.0, 0.0], &[2.0, 2.0, 0.0]]), columns(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0]]));
    assert_eq!(orthonormal_basis(a.clone()).unwrap().dims(), [3, 1]);
    assert_eq!(principal_angles(a.clone(), b.clone()).unwrap().len(), 1);
    close(subspace_overlap(a, b).unwrap().get(&[]), 1.0, 1.0);
}

#[test]
fn overlaps_of_every_pair() {
    let (a, b) = (random(1, [3, 8, 2]), random(2, [4, 8, 3]));
    let all = subspace_overlap(a.clone(), b.clone()).unwrap();
    assert_eq!(all.shape(), [3, 4]);
    let (a, b) = (Matrices::from(a), Matrices::from(b));
    for i in 0..3 {
        for j in 0..4 {
            let angles = principal_angles(a.at(&[i]), b.at(&[j])).unwrap();
            let mean = angles.iter().map(|angle| angle.cos().powi(2)).sum::<f64>() / angles.len() as f64;
            close(all.get(&[i, j]), mean, 1.0);
        }
    }
}
