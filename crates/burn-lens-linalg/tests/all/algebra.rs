//! Products, sums and accessors.

use burn_lens_linalg::{FactoredMatrix, Matrices};
use burn_lens_tensor::{AnyTensor, burn::tensor::Tensor};
use proptest::prelude::*;

use crate::dense::{Case, Dense, cases, close, dense, random, same, square_cases};

fn values(any: AnyTensor) -> Vec<f64> {
    any.into_data().unwrap().iter::<f64>().collect()
}

fn vector(seed: u64, len: usize) -> Tensor<1> {
    random(seed, [1, 1, len]).reshape([len])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn accessors(case in cases()) {
        let m = case.factored();
        let expected = case.product();
        let [l, mid, r] = case.dims;
        prop_assert_eq!([m.ldim(), m.mdim(), m.rdim()], case.dims);
        prop_assert_eq!(m.shape(), [&case.lead[..], &[l, r]].concat());
        prop_assert_eq!((m.ndim(), m.has_leading_dims()), (case.lead.len() + 2, !case.lead.is_empty()));
        same(&dense(&m.ab()), &expected);
        same(&dense(&m.t().ab()), &expected.iter().map(Dense::t).collect::<Vec<_>>());
        let (a, b) = m.pair();
        prop_assert_eq!(a.shape(), [&case.lead[..], &[l, mid]].concat());
        prop_assert_eq!(b.shape(), [&case.lead[..], &[mid, r]].concat());
        same(&dense(&m.unsqueeze(0).ab()), &expected);
        prop_assert_eq!(m.unsqueeze(0).shape(), [&[1], &case.lead[..], &[l, r]].concat());
        let corner = dense(&m.get_corner(2).unwrap());
        let first = Dense::from_fn(l.min(2), r.min(2), |i, j| expected[0].at(i, j));
        same(&corner[..1], &[first]);
    }

    #[test]
    fn ba_is_the_other_product(case in square_cases()) {
        let [l, mid, r] = case.dims;
        let (a, b) = (dense(&case.matrices(1, l, mid)), dense(&case.matrices(2, mid, r)));
        let expected: Vec<Dense> = a.iter().zip(&b).map(|(a, b)| b.times(a)).collect();
        same(&dense(&case.factored().ba().unwrap()), &expected);
    }

    #[test]
    fn products_with_matrices(case in cases(), cols in 1..9usize, shared in any::<bool>()) {
        let m = case.factored();
        let [l, mid, r] = case.dims;
        let of = |what, rows, cols| {
            if shared {
                Matrices::from(random(what, [1, rows, cols]).squeeze_dim::<2>(0))
            } else {
                case.matrices(what, rows, cols)
            }
        };
        let (x, y) = (of(5, r, cols), of(6, cols, l));
        let at = |all: &[Dense], i: usize| all[if shared { 0 } else { i }].clone();
        let (dense_x, dense_y) = (dense(&x), dense(&y));
        let right = m.matmul(x).unwrap();
        let left = m.matmul_left(y).unwrap();
        let product = case.product();
        same(&dense(&right.ab()), &product.iter().enumerate().map(|(i, m)| m.times(&at(&dense_x, i))).collect::<Vec<_>>());
        same(&dense(&left.ab()), &product.iter().enumerate().map(|(i, m)| at(&dense_y, i).times(m)).collect::<Vec<_>>());
        // The inner dimension is kept, or shrinks to a side of the dense matrix.
        prop_assert_eq!(right.mdim(), mid.min(r));
        prop_assert_eq!(left.mdim(), mid.min(l));
        prop_assert_eq!((right.ldim(), right.rdim(), left.ldim(), left.rdim()), (l, cols, cols, r));
    }

    #[test]
    fn products_with_factored_matrices(case in cases(), inner in 0..9usize, right in 1..9usize) {
        let m = case.factored();
        let [_, mid, r] = case.dims;
        let other = Case { dims: [r, inner, right], seed: case.seed ^ 7, ..case.clone() };
        let product = m.matmul_factored(&other.factored()).unwrap();
        let expected: Vec<Dense> = case.product().iter().zip(&other.product()).map(|(a, b)| a.times(b)).collect();
        same(&dense(&product.ab()), &expected);
        prop_assert_eq!(product.mdim(), mid.min(inner));
    }

    #[test]
    fn products_with_vectors(case in cases()) {
        let m = case.factored();
        let (x, y) = (vector(3, m.rdim()), vector(4, m.ldim()));
        let (dense_x, dense_y) = (dense(&x.clone().unsqueeze_dim::<2>(1).into()), dense(&y.clone().unsqueeze_dim::<2>(0).into()));
        let right: Vec<f64> = case.product().iter().flat_map(|m| m.times(&dense_x[0]).data).collect();
        let left: Vec<f64> = case.product().iter().flat_map(|m| dense_y[0].times(m).data).collect();
        let found = m.matvec(x).unwrap();
        prop_assert_eq!(found.shape(), [&case.lead[..], &[m.ldim()]].concat());
        values(found).into_iter().zip(right).for_each(|(a, b)| close(a, b, 100.0));
        values(m.matvec_left(y).unwrap()).into_iter().zip(left).for_each(|(a, b)| close(a, b, 100.0));
    }

    #[test]
    fn sums_and_multiples(case in cases(), inner in 0..9usize, factor in -3.0..3.0f64) {
        let m = case.factored();
        let other = Case { dims: [case.dims[0], inner, case.dims[2]], seed: case.seed ^ 9, ..case.clone() };
        let n = other.factored();
        let each = |f: fn(f64, f64) -> f64| -> Vec<Dense> {
            let pairs = case.product().into_iter().zip(other.product());
            pairs.map(|(a, b)| Dense::from_fn(a.rows, a.cols, |i, j| f(a.at(i, j), b.at(i, j)))).collect()
        };
        same(&dense(&m.add(&n).unwrap().ab()), &each(|a, b| a + b));
        same(&dense(&m.sub(&n).unwrap().ab()), &each(|a, b| a - b));
        prop_assert_eq!(m.add(&n).unwrap().mdim(), m.mdim() + n.mdim());
        let scaled: Vec<Dense> =
            case.product().iter().map(|m| Dense::from_fn(m.rows, m.cols, |i, j| factor * m.at(i, j))).collect();
        same(&dense(&(&m * factor).ab()), &scaled);
        same(&dense(&(factor * &m).ab()), &scaled);
        same(&dense(&(-&m).ab()), &dense(&(&m * -1.0).ab()));
    }

    #[test]
    fn leading_axes_broadcast(seed in any::<u64>(), x in 1..4usize, y in 1..4usize) {
        let (a, b) = (random(seed, [x, 4, 2]).reshape([x, 1, 4, 2]), random(seed ^ 1, [y, 2, 5]));
        let m = FactoredMatrix::new(a.clone(), b.clone()).unwrap();
        prop_assert_eq!(m.shape(), [x, y, 4, 5]);
        let (a, b) = (dense(&a.into()), dense(&b.into()));
        let expected: Vec<Dense> = a.iter().flat_map(|a| b.iter().map(|b| a.times(b))).collect();
        same(&dense(&m.ab()), &expected);
    }

    /// A chain of embeddings around heads, none of which is multiplied out, is the same matrix.
    #[test]
    fn shared_factors_are_only_factors(case in cases(), wide in 1..12usize) {
        let [l, _, r] = case.dims;
        let (before, after) = (random(case.seed ^ 3, [1, wide, l]), random(case.seed ^ 4, [1, r, wide]));
        let full = case.factored().matmul_left(before.clone().squeeze_dim::<2>(0)).unwrap();
        let full = full.matmul(after.clone().squeeze_dim::<2>(0)).unwrap();
        let (before, after) = (dense(&before.into()), dense(&after.into()));
        let expected: Vec<Dense> = case.product().iter().map(|m| before[0].times(m).times(&after[0])).collect();
        same(&dense(&full.ab()), &expected);
        let norms = full.norm().unwrap();
        prop_assert_eq!(norms.shape(), &case.lead[..]);
        norms.data().iter().zip(&expected).for_each(|(&norm, m)| close(norm, m.norm(), m.norm().max(1.0)));
        let traces = full.trace().unwrap();
        traces.data().iter().zip(&expected).for_each(|(&t, m)| close(t, m.trace(), m.norm().max(1.0)));
        for (s, m) in full.singular_values().unwrap().data().chunks(full.mdim().min(wide).max(1)).zip(&expected) {
            let squares: f64 = s.iter().map(|s| s * s).sum();
            close(squares, m.norm().powi(2), m.norm().powi(2).max(1.0));
        }
        let powers = full.eigenvalues().unwrap().reduce(|values| values.iter().map(|v| v.re * v.re - v.im * v.im).sum::<f64>());
        for (&sum, m) in powers.data().iter().zip(&expected) {
            close(sum, m.times(m).trace(), m.norm().powi(2).max(1.0));
        }
    }
}

#[test]
fn it_prints_as_the_original() {
    let case = Case { lead: vec![12, 12], dims: [7, 3, 5], seed: 0 };
    assert_eq!(
        case.factored().to_string(),
        "FactoredMatrix: Shape(torch.Size([12, 12, 7, 5])), Hidden Dim(3)"
    );
}
