//! Input that cannot be right is an error that names it.

use burn_lens_linalg::{FactoredMatrix, LinalgError, composition_scores, principal_angles};
use burn_lens_tensor::burn::tensor::Tensor;

use crate::dense::{device, random};

#[test]
fn shapes_that_do_not_meet() {
    let message = |result: Result<FactoredMatrix, LinalgError>| result.unwrap_err().to_string();
    let new = FactoredMatrix::new(random(1, [2, 3, 4]), random(2, [2, 5, 3]));
    let expected =
        "a factored matrix: [2, 3, 4] and [2, 5, 3] do not fit: [.., ldim, mdim] and [.., mdim, rdim]";
    assert_eq!(message(new), expected);
    assert!(
        message(FactoredMatrix::new(random(1, [2, 3, 4]), random(2, [3, 4, 3]))).contains("leading axes")
    );
    let m = FactoredMatrix::new(random(1, [2, 3, 4]), random(2, [2, 4, 5])).unwrap();
    assert!(
        message(m.matmul(random(1, [2, 4, 3]))).contains("as many columns on the left as rows on the right")
    );
    assert!(message(m.matmul_left(random(1, [2, 4, 4]))).contains("[2, 4, 4] and [2, 3, 5]"));
    assert!(message(m.add(&m.t())).contains("a sum"));
    assert!(message(m.matmul_factored(&m)).contains("a product"));
    assert!(m.matvec(Tensor::zeros([4], &device())).is_err());
    assert!(composition_scores(&m, &m).is_err());
    let angles = principal_angles(Tensor::zeros([3, 1], &device()), Tensor::zeros([4, 1], &device()));
    assert!(angles.unwrap_err().to_string().contains("subspaces"));
}

#[test]
fn only_square_matrices_have_eigenvalues() {
    let m = FactoredMatrix::new(random(1, [2, 3, 4]), random(2, [2, 4, 5])).unwrap().named("OV");
    let expected = "`OV` is 3 × 5, but BA and eigenvalues need a square matrix";
    assert_eq!(m.eigenvalues().unwrap_err().to_string(), expected);
    assert!(m.eigen().is_err() && m.trace().is_err() && m.ba().is_err());
}

/// The message names the matrix and the leading index.
#[test]
fn what_is_not_finite() {
    for bad in [f64::NAN, f64::INFINITY] {
        let place = random(0, [6, 4, 2]).zeros_like().slice_fill([4..5, 1..2, 0..1], bad);
        let a = (random(1, [6, 4, 2]) + place).reshape([2, 3, 4, 2]);
        let m = FactoredMatrix::new(a, random(2, [6, 2, 4]).reshape([2, 3, 2, 4])).unwrap().named("OV");
        let expected = "`OV` at [1, 1] holds NaN or an infinity";
        assert_eq!(m.svd().unwrap_err().to_string(), expected);
        assert_eq!(m.singular_values().unwrap_err().to_string(), expected);
        assert_eq!(m.eigenvalues().unwrap_err().to_string(), expected);
        assert_eq!(m.eigen().unwrap_err().to_string(), expected);
        assert_eq!(m.norm().unwrap_err().to_string(), expected);
        assert_eq!(m.top_entries(3, burn_lens_linalg::Extreme::Largest).unwrap_err().to_string(), expected);
        assert_eq!(m.at(&[1]).svd().unwrap_err().to_string(), "`OV at [1]` at [1] holds NaN or an infinity");
        assert!(m.at(&[0]).svd().is_ok());
    }
}
