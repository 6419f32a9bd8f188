//! Squared norms of all products of some cores with others, from inner products of their Gram matrices.

use std::ops::Range;

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use pulp::{Arch, Simd, WithSimd};

use super::CompositionCores;
use crate::{LinalgError, host::par};

/// The sides of a block of a Gram matrix: those of all cores together stay in the processor's second cache.
const SIDE: usize = 32;

/// The entries of a block.
const BLOCK: usize = SIDE * SIDE;

/// `‖L R‖²` for each `L` of `writers` and each `R` of `readers` from `first(writer)` on: `[n, n_r]`, 0 for the
/// others. By inner products of Gram matrices where those are exact, and by the products themselves where they
/// are not.
pub(super) fn squares(
    writers: &CompositionCores,
    readers: &CompositionCores,
    first: &(impl Fn(usize) -> usize + Sync),
) -> Result<Vec<f64>, LinalgError> {
    /// Inner products below this part of the norms of the matrices have lost digits.
    const LEAST: f64 = 1.0 / 256.0;
    /// Norms of cores whose Gram matrices and products of these have room in `f32`.
    const NORMS: Range<f64> = 1e-4..1e8;
    let of = [&writers.cores, &readers.cores];
    let data = of.map(|cores| (cores.dims(), cores.clone().try_into_data()));
    let [left, right] = data.each_ref().map(|([n, k, d], data)| {
        let data = data.as_ref().map_err(|error| LinalgError::Device {
            matrix: "a composition".to_owned(),
            reason: format!("{error:?}"),
        })?;
        Ok(Cores { values: data.as_slice().expect("the dtype is f32"), n: *n, k: *k, d: *d })
    });
    let (left, right) = (left?, right?);
    let [mut squares, l_norms, r_norms] = inner_products(left, right, first)?;
    let pairs = (0..left.n).flat_map(|i| (first(i)..right.n).map(move |j| (i, j)));
    let unsure: Vec<(usize, usize)> = pairs
        .filter(|&(i, j)| {
            let in_range = NORMS.contains(&writers.norms[i]) && NORMS.contains(&readers.norms[j]);
            let least = LEAST * (l_norms[i] * r_norms[j]).sqrt();
            !(in_range && squares[i * right.n + j] >= least)
        })
        .collect();
    let again = par(unsure.len(), |at| {
        let (i, j) = unsure[at];
        let mut product = vec![0.0_f32; left.k * right.k];
        let out = MatMut::from_row_major_slice_mut(&mut product, left.k, right.k);
        matmul(out, Accum::Replace, left.core(i), right.core(j).transpose(), 1.0, Par::Seq);
        Ok(product.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>())
    })?;
    for ((i, j), square) in unsure.into_iter().zip(again) {
        squares[i * right.n + j] = square;
    }
    // What is before a writer's first reader came with others of the same product.
    for (i, row) in squares.chunks_exact_mut(right.n.max(1)).enumerate() {
        row[..first(i)].fill(0.0);
    }
    let finite = squares.iter().all(|square| square.is_finite());
    if finite { Ok(squares) } else { Err(LinalgError::NotFinite { matrix: "a composition".to_owned() }) }
}

/// Cores `[n, k, d]` of `f32`, row by row.
#[derive(Clone, Copy)]
struct Cores<'a> {
    values: &'a [f32],
    n: usize,
    k: usize,
    d: usize,
}

impl<'a> Cores<'a> {
    fn core(self, at: usize) -> MatRef<'a, f32> {
        let size = self.k * self.d;
        MatRef::from_row_major_slice(&self.values[at * size..][..size], self.k, self.d)
    }

    /// `SIDE` columns of all cores at a time, behind each other: `[n, k, SIDE]` each, with zeros where columns end.
    fn panels(self) -> Result<Vec<Vec<f32>>, LinalgError> {
        par(self.d.div_ceil(SIDE), |at| {
            let place = at * SIDE..((at + 1) * SIDE).min(self.d);
            let mut panel = Vec::with_capacity(self.n * self.k * SIDE);
            for row in self.values.chunks_exact(self.d) {
                panel.extend_from_slice(&row[place.clone()]);
                panel.resize(panel.len() + SIDE - place.len(), 0.0);
            }
            Ok(panel)
        })
    }
}

/// `‖L Rᵀ‖² = ⟨LᵀL, RᵀR⟩` for each core `L` of `left` and each `R` of `right` from `first` on: `[n, n_r]`, and
/// anything for the others. Behind it the squared norms of `LᵀL` and `RᵀR`, `[n]` and `[n_r]`.
///
/// A third of the operations of the products `L Rᵀ`: for each pair `d²` multiplications, half of them by symmetry,
/// in place of `k² d`. Blocks of all Gram matrices are computed, multiplied and forgotten one after the other.
fn inner_products(
    left: Cores<'_>,
    right: Cores<'_>,
    first: &(impl Fn(usize) -> usize + Sync),
) -> Result<[Vec<f64>; 3], LinalgError> {
    /// Into how many parts the work is cut, however many threads there are: sums are the same for any number.
    const PARTS: usize = 16;
    let panels = [left.panels()?, right.panels()?];
    let n_panels = panels[0].len();
    let blocks: Vec<[usize; 2]> = (0..n_panels).flat_map(|i| (i..n_panels).map(move |j| [i, j])).collect();
    let size = [left.n * right.n, left.n, right.n];
    let parts = par(PARTS, |part| {
        let mut sums = size.map(|len| vec![0.0; len]);
        let mut grams = [left.n, right.n].map(|n| vec![0.0; n * BLOCK]);
        for &[i, j] in blocks.iter().skip(part).step_by(PARTS) {
            // A block above the diagonal stands for its mirror image also.
            let weight = if i == j { 1.0 } else { 2.0 };
            for side in 0..2 {
                let [a, b] = [i, j].map(|at| &panels[side][at][..]);
                let (out, norms) = (&mut grams[side][..], &mut sums[1 + side][..]);
                Arch::new().dispatch(Grams { a, b, k: [left.k, right.k][side], out, norms, weight });
            }
            add_products(&mut sums[0], &grams, first, weight);
        }
        Ok(sums)
    })?;
    let zero = size.map(|len| vec![0.0; len]);
    Ok(parts.into_iter().fold(zero, |mut all, part| {
        for (all, part) in all.iter_mut().zip(part) {
            all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
        }
        all
    }))
}

/// Adds `weight` times the products of blocks with blocks, each a row, to `sums`, some writers at a time.
fn add_products(
    sums: &mut [f64],
    [left, right]: &[Vec<f32>; 2],
    first: &impl Fn(usize) -> usize,
    weight: f64,
) {
    /// How many writers are multiplied at a time.
    const WRITERS: usize = 48;
    let n_r = right.len() / BLOCK;
    for (at, left) in left.chunks(WRITERS * BLOCK).enumerate() {
        let (start, rows) = (at * WRITERS, left.len() / BLOCK);
        let from = (start..start + rows).map(first).min().unwrap_or(n_r);
        let cols = n_r - from;
        if cols == 0 {
            continue;
        }
        let mut products = vec![0.0; rows * cols];
        let out = MatMut::from_row_major_slice_mut(&mut products, rows, cols);
        let l = MatRef::from_row_major_slice(left, rows, BLOCK);
        let r = MatRef::from_row_major_slice(&right[from * BLOCK..], cols, BLOCK);
        matmul(out, Accum::Replace, l, r.transpose(), 1.0, Par::Seq);
        for (row, products) in products.chunks_exact(cols).enumerate() {
            let sums = &mut sums[(start + row) * n_r + from..][..cols];
            sums.iter_mut().zip(products).for_each(|(sum, &x)| *sum += weight * f64::from(x));
        }
    }
}

/// `AᵀB` of each of some panels `A` with its `B`, and what their squares add to norms.
struct Grams<'a> {
    /// Panels `[n, k, SIDE]`, as `b`.
    a: &'a [f32],
    b: &'a [f32],
    k: usize,
    /// `[n, SIDE, SIDE]`
    out: &'a mut [f32],
    /// `[n]`
    norms: &'a mut [f64],
    weight: f64,
}

impl WithSimd for Grams<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        /// Rows, and registers of columns, of a tile of sums that stay in registers.
        const ROWS: usize = 4;
        const COLUMNS: usize = 2;
        let Self { a, b, k, out, norms, weight } = self;
        let panels = a.chunks_exact(k * SIDE).zip(b.chunks_exact(k * SIDE));
        for ((out, norm), (a, b)) in out.chunks_exact_mut(BLOCK).zip(norms).zip(panels) {
            let (a, out) = (a.as_chunks::<ROWS>().0, S::as_mut_simd_f32s(out).0);
            let b = S::as_simd_f32s(b).0.as_chunks::<COLUMNS>().0;
            let (row_tiles, col_tiles) = (SIDE / ROWS, SIDE / S::F32_LANES / COLUMNS);
            let mut squares = [simd.splat_f32s(0.0); COLUMNS];
            for i in 0..row_tiles {
                for j in 0..col_tiles {
                    let mut tile = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
                    for (a, b) in a.chunks_exact(row_tiles).zip(b.chunks_exact(col_tiles)) {
                        for (sums, &x) in tile.iter_mut().zip(&a[i]) {
                            let x = simd.splat_f32s(x);
                            for (sum, &y) in sums.iter_mut().zip(&b[j]) {
                                *sum = simd.mul_add_f32s(x, y, *sum);
                            }
                        }
                    }
                    for (row, sums) in tile.into_iter().enumerate() {
                        let out = &mut out[((i * ROWS + row) * col_tiles + j) * COLUMNS..][..COLUMNS];
                        out.copy_from_slice(&sums);
                        for (square, sum) in squares.iter_mut().zip(sums) {
                            *square = simd.mul_add_f32s(sum, sum, *square);
                        }
                    }
                }
            }
            let sum: f32 = squares.into_iter().map(|square| simd.reduce_sum_f32s(square)).sum();
            *norm += weight * f64::from(sum);
        }
    }
}
