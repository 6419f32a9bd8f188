//! Squared norms of the blocks of a matrix.

use burn::tensor::{DType, Tensor};
use pulp::{Arch, NullaryFnOnce};

use super::CompositionCores;
use crate::{
    LinalgError,
    factored::side::product,
    host::{Host, is_on_host, par},
};

/// `‖L R‖²` for each `L` of `writers` and each `R` of `readers` from `first(writer)` on: `[n, n_r]`, 0 for the
/// others. By the products themselves.
pub(super) fn squares(
    writers: &CompositionCores,
    readers: &CompositionCores,
    first: &impl Fn(usize) -> usize,
) -> Result<Vec<f64>, LinalgError> {
    /// The entries of a block of products: 32 MiB of `f32`.
    const BLOCK: usize = 1 << 23;
    let ([n, k, d], [n_r, k_r, _]) = (writers.cores.dims(), readers.cores.dims());
    let mut squares = vec![0.0; n * n_r];
    let mut start = 0;
    while start < n {
        let from = first(start);
        let cols = n_r - from;
        let most = (BLOCK / (k * cols * k_r).max(1)).max(1);
        let len = (start..n).take(most).take_while(|&i| first(i) == from).count().max(1);
        if cols > 0 {
            let r = readers.cores.clone().narrow(0, from, cols).reshape([1, cols * k_r, d]).transpose();
            let l = writers.cores.clone().narrow(0, start, len).reshape([1, len * k, d]);
            let sums = squares_of_blocks(product(l, r), [len, k, cols, k_r])?;
            for (i, sums) in sums.into_iter().enumerate() {
                squares[(start + i) * n_r + from..][..cols].copy_from_slice(&sums);
            }
        }
        start += len;
    }
    Ok(squares)
}

/// The sum of squares of each block of `k × k_r` entries of a matrix of `n × n_r` blocks.
fn squares_of_blocks(all: Tensor<3>, [n, k, n_r, k_r]: [usize; 4]) -> Result<Vec<Vec<f64>>, LinalgError> {
    let name = || "a composition".to_owned();
    if !is_on_host(&all) || all.dtype() != DType::F32 {
        let squares = (all.clone() * all).reshape([n, k, n_r * k_r]);
        let sums = Host::read(squares.sum_dim(1).reshape([n, n_r, k_r]).sum_dim(2), &name())?;
        return (0..n).map(|i| sums.values(i, 0..n_r, name)).collect();
    }
    let data = all
        .try_into_data()
        .map_err(|error| LinalgError::Device { matrix: name(), reason: format!("{error:?}") })?;
    let rows = data.as_slice::<f32>().expect("the dtype is f32");
    par(n, |i| {
        let rows = &rows[i * k * n_r * k_r..][..k * n_r * k_r];
        let sums = Arch::new().dispatch(Squares { rows, n_r, k_r });
        let finite = sums.iter().all(|sum| sum.is_finite());
        if finite { Ok(sums) } else { Err(LinalgError::NotFinite { matrix: name() }) }
    })
}

/// Adds up the squares of `k_r` entries of each row at a time, for each of `n_r` blocks, in `f64`: squares of
/// what `f32` holds may be too large for it.
struct Squares<'a> {
    rows: &'a [f32],
    n_r: usize,
    k_r: usize,
}

impl NullaryFnOnce for Squares<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn call(self) -> Vec<f64> {
        const LANES: usize = 8;
        let Self { rows, n_r, k_r } = self;
        let mut sums = vec![0.0; n_r];
        for row in rows.chunks_exact((n_r * k_r).max(1)) {
            for (sum, block) in sums.iter_mut().zip(row.chunks_exact(k_r.max(1))) {
                let mut lanes = [0.0_f64; LANES];
                let (chunks, rest) = block.as_chunks::<LANES>();
                for chunk in chunks {
                    for lane in 0..LANES {
                        let x = f64::from(chunk[lane]);
                        lanes[lane] = x.mul_add(x, lanes[lane]);
                    }
                }
                let rest = rest.iter().map(|&x| f64::from(x) * f64::from(x));
                *sum += lanes.iter().copied().chain(rest).sum::<f64>();
            }
        }
        sums
    }
}
