//! Products with weight matrices.

use burn::tensor::{Tensor, module};

use super::{fused, half, widened};
use crate::backend;

/// `x w + b`.
///
/// # Shapes
///
/// - `x`: `[.., d_in]`, `w`: `[d_in, d_out]`, `b`: `[d_out]`; returns `[.., d_out]`
#[must_use]
pub fn linear<const D: usize>(x: Tensor<D>, w: Tensor<2>, b: Option<Tensor<1>>) -> Tensor<D> {
    if fused(&x, false) && fused(&w, false) && b.as_ref().is_none_or(|b| fused(b, false)) {
        backend::linear(x, w, b)
    } else if half(&x) && half(&w) && b.as_ref().is_none_or(half) {
        backend::linear(x, w, b.map(widened))
    } else {
        module::linear(x, w, b)
    }
}

/// `x w + b` for each of several matrices: where `x` has few rows, in one parallel region, since starting one takes as
/// long as reading hundreds of kilobytes. The same bits as [`linear`] gives.
///
/// # Shapes
///
/// - `x`: `[.., d_in]`, each `w`: `[d_in, d_out]`, `b`: `[d_out]`; returns `[.., d_out]` of each
#[must_use]
pub fn linears<const D: usize, const N: usize>(
    x: &Tensor<D>,
    maps: [(&Tensor<2>, Option<&Tensor<1>>); N],
) -> [Tensor<D>; N] {
    let map = |(w, b): (&Tensor<2>, Option<&Tensor<1>>)| linear(x.clone(), w.clone(), b.cloned());
    #[cfg(feature = "cpu")]
    {
        use rayon::prelude::*;

        use crate::cpu::few_rows::MOST;

        let rows: usize = x.dims()[..D - 1].iter().product();
        // Products of more rows take so long that it does not matter.
        if rows <= MOST && (fused(x, false) || half(x)) {
            let mut results = maps.map(|of| (of, None));
            results.par_iter_mut().for_each(|(of, result)| *result = Some(map(*of)));
            return results.map(|(of, result)| result.unwrap_or_else(|| map(of)));
        }
    }
    maps.map(map)
}
