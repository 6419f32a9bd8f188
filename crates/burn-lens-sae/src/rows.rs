//! Sparse activations to and from tensors.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::{SaeError, features::SparseRows};

/// Every value that is not zero; NaN is not.
///
/// # Shapes
///
/// - `acts`: `[batch, pos, d_sae]`; returns `batch · pos` rows
pub(crate) fn of_dense(acts: Tensor<3>) -> Result<SparseRows, SaeError> {
    let width = acts.dims()[2];
    Ok(SparseRows::of_dense(&acts.try_into_vec_as::<f32>()?, width))
}

/// Rows of a few values each, in any order; zeros are left out.
///
/// # Shapes
///
/// - `values`, `indices`: `[row, k]`
pub(crate) fn of_top(values: Tensor<2>, indices: Tensor<2, Int>) -> Result<SparseRows, SaeError> {
    let k = values.dims()[1];
    let values = values.try_into_vec_as::<f32>()?;
    let indices = indices.try_into_vec_as::<i64>()?;
    let mut rows = SparseRows::default();
    for (values, indices) in values.chunks_exact(k).zip(indices.chunks_exact(k)) {
        let mut row: Vec<(u32, f32)> =
            indices.iter().map(|&index| index as u32).zip(values.iter().copied()).collect();
        row.retain(|&(_, value)| value != 0.0);
        row.sort_unstable_by_key(|&(index, _)| index);
        rows.push_row(row);
    }
    Ok(rows)
}

/// The sum over each row of value times the row of `matrix` at its index.
///
/// # Shapes
///
/// - `matrix`: `[d_sae, d]`; returns `[row, d]`
pub(crate) fn times(rows: &SparseRows, matrix: &Tensor<2>) -> Tensor<2> {
    let (device, dtype) = (matrix.device(), matrix.dtype());
    let zeros = Tensor::zeros([rows.n_rows(), matrix.dims()[1]], (&device, dtype));
    if rows.n_pairs() == 0 {
        return zeros;
    }
    let (starts, indices, values) = rows.parts();
    let of_row = |(row, pair): (usize, &[u64])| std::iter::repeat_n(row as i64, (pair[1] - pair[0]) as usize);
    let owners: Vec<i64> = starts.windows(2).enumerate().flat_map(of_row).collect();
    let indices: Vec<i64> = indices.iter().map(|&index| i64::from(index)).collect();
    let ints = |values: Vec<i64>| Tensor::<1, Int>::from_data(values.as_slice(), &device);
    let factors = Tensor::<1>::from_data(values, &device).cast(dtype);
    let parts = matrix.clone().select(0, ints(indices)) * factors.unsqueeze_dim(1);
    zeros.select_assign(0, ints(owners), parts, IndexingUpdateOp::Add)
}
