//! Products of many rows by tile registers: of bfloat16, or of `f32` in three products of bfloat16.
//!
//! Each thread takes some columns: it puts their weights into the order that tiles read, then multiplies
//! all rows with them, 32 by 32 at a time, sums in `f32`. How sums are made depends on nothing but their
//! length.

use std::mem::MaybeUninit;

use burn::tensor::bf16;
use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::{
    half::Value,
    path::dispatch,
    product::Operand,
    tiles::{Block, SIDE, Sums, Tiles},
};

/// Numbers that are multiplied as a few products of bfloat16.
pub(super) trait Terms: Value {
    /// How many products of bfloat16 stand for one.
    const PRODUCTS: usize;

    /// The left and the right factor of product `at`.
    fn factors(self, at: usize) -> [bf16; 2];
}

impl Terms for bf16 {
    const PRODUCTS: usize = 1;

    #[inline(always)]
    fn factors(self, _: usize) -> [bf16; 2] {
        [self, self]
    }
}

/// A number is the sum of two of bfloat16, up to 2⁻¹⁸ of it; of their four products the smallest is left out.
/// Of an infinity, and of what bfloat16 rounds to one, the product is NaN.
impl Terms for f32 {
    const PRODUCTS: usize = 3;

    #[inline(always)]
    fn factors(self, at: usize) -> [bf16; 2] {
        let large = bf16::nearest(self);
        let small = || bf16::nearest(self - large.wide());
        match at {
            0 => [large, large],
            1 => [large, small()],
            _ => [small(), large],
        }
    }
}

#[inline(always)]
fn pair(first: bf16, second: bf16) -> u32 {
    u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
}

/// Some values, zeros behind them.
#[inline(always)]
fn padded<E: Value>(values: &[E]) -> [E; SIDE] {
    let mut all = [E::default(); SIDE];
    match values.first_chunk() {
        Some(whole) => all = *whole,
        None => all[..values.len()].copy_from_slice(values),
    }
    all
}

/// Puts 32 rows of the left matrix into blocks: `blocks[terms / 32][product]`.
struct PackRows<'a, E> {
    /// `[rows, inner]`, up to 32 rows.
    x: &'a [E],
    inner: usize,
    blocks: &'a mut [Block],
}

impl<E: Terms> NullaryFnOnce for PackRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { x, inner, blocks } = self;
        for (row, x) in x.chunks_exact(inner).enumerate() {
            for (x, blocks) in x.chunks(SIDE).zip(blocks.chunks_exact_mut(E::PRODUCTS)) {
                let x = padded(x);
                for (product, block) in blocks.iter_mut().enumerate() {
                    let pairs = &mut block.0[row * SIDE / 2..][..SIDE / 2];
                    for (pair_of, [first, second]) in pairs.iter_mut().zip(x.as_chunks().0) {
                        *pair_of = pair(first.factors(product)[0], second.factors(product)[0]);
                    }
                }
            }
        }
    }
}

/// Some columns of a product, by one thread.
struct Strip<'a, T, E> {
    _tiles: std::marker::PhantomData<T>,
    /// `[rows / 32][terms / 32][product]`
    x: &'a [Block],
    w: Operand<'a, E>,
    inner: usize,
    columns: usize,
    first: usize,
    bias: Option<&'a [f32]>,
    /// The columns of each row.
    out: Vec<&'a mut [MaybeUninit<E>]>,
}

/// The pairs of a block of the right matrix, `[tile][pair][column]`, at one pair of a block's terms.
#[inline(always)]
fn put(block: &mut Block, at: usize, pairs: impl Fn(usize) -> u32) {
    const TILE: usize = SIDE / 2;
    for tile in 0..2 {
        let place = &mut block.0[(tile * TILE + at) * TILE..][..TILE];
        for (column, place) in place.iter_mut().enumerate() {
            *place = pairs(tile * TILE + column);
        }
    }
}

impl<T: Tiles, E: Terms> Strip<'_, T, E> {
    /// The weights of the columns: `[columns / 32][terms / 32][product]`.
    #[inline(always)]
    fn packed(&self, width: usize) -> Vec<Block> {
        let steps = self.inner.div_ceil(SIDE);
        let of_block = steps * E::PRODUCTS;
        let mut blocks = vec![Block::ZERO; width.div_ceil(SIDE) * of_block];
        match self.w {
            Operand::Rows(w) => {
                // Pair by pair, along the rows of the weights.
                let row = |term: usize| {
                    let row = w.get(term * self.columns..(term + 1) * self.columns);
                    row.map_or(&[][..], |row| &row[self.first..self.first + width])
                };
                for at in 0..self.inner.div_ceil(2) {
                    let (first, second) = (row(2 * at), row(2 * at + 1));
                    let (step, at) = (2 * at / SIDE, at % (SIDE / 2));
                    for (of, first) in first.chunks(SIDE).enumerate() {
                        let second = second.get(of * SIDE..).unwrap_or_default();
                        let (first, second) = (padded(first), padded(&second[..second.len().min(SIDE)]));
                        for product in 0..E::PRODUCTS {
                            let block = &mut blocks[of * of_block + step * E::PRODUCTS + product];
                            put(block, at, |column| {
                                pair(first[column].factors(product)[1], second[column].factors(product)[1])
                            });
                        }
                    }
                }
            }
            Operand::Columns(w) => {
                for (column, w) in
                    w[self.first * self.inner..].chunks_exact(self.inner).take(width).enumerate()
                {
                    let blocks = &mut blocks[column / SIDE * of_block..][..of_block];
                    let (tile, column) = (column % SIDE / (SIDE / 2), column % (SIDE / 2));
                    for (w, blocks) in w.chunks(SIDE).zip(blocks.chunks_exact_mut(E::PRODUCTS)) {
                        let w = padded(w);
                        for (product, block) in blocks.iter_mut().enumerate() {
                            for (at, [first, second]) in w.as_chunks().0.iter().enumerate() {
                                block.0[(tile * SIDE / 2 + at) * (SIDE / 2) + column] =
                                    pair(first.factors(product)[1], second.factors(product)[1]);
                            }
                        }
                    }
                }
            }
        }
        blocks
    }
}

impl<T: Tiles, E: Terms> NullaryFnOnce for Strip<'_, T, E> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let width = self.out.first().map_or(0, |row| row.len());
        let w = self.packed(width);
        let of_block = self.inner.div_ceil(SIDE) * E::PRODUCTS;
        let bias: Vec<f32> = match self.bias {
            Some(bias) => bias[self.first..self.first + width].to_vec(),
            None => vec![0.0; width],
        };
        let tiles = T::start();
        let mut sums = Sums([0.0; SIDE * SIDE]);
        for (x, rows) in self.x.chunks_exact(of_block).zip(self.out.chunks_mut(SIDE)) {
            for (of, w) in w.chunks_exact(of_block).enumerate() {
                tiles.multiply(x, w, &mut sums);
                let bias = &bias[of * SIDE..width.min((of + 1) * SIDE)];
                for (row, sums) in rows.iter_mut().zip(sums.0.chunks_exact(SIDE)) {
                    let out = &mut row[of * SIDE..][..bias.len()];
                    for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                        out.write(E::nearest(sum + bias));
                    }
                }
            }
        }
    }
}

/// `x w + b` by tiles.
///
/// # Shapes
///
/// - `x`: `[rows, inner]`, `w`: `[inner, columns]`, `b`: `[columns]`; returns `[rows, columns]`
pub(super) fn linear<T: Tiles, E: Terms>(
    x: &[E],
    w: Operand<'_, E>,
    b: Option<&[f32]>,
    [rows, inner, columns]: [usize; 3],
) -> Vec<E> {
    /// Below this many multiplications one thread is faster.
    const THREADS_FROM: usize = 256 * 256 * 256;
    /// How many packed weights a thread works with at once: half of a second cache.
    const PACKED: usize = (1 << 20) / size_of::<Block>();
    /// Parts that a thread gets of the columns, so that none waits long for the others.
    const PARTS: usize = 4;
    let len = rows * columns;
    if len == 0 {
        return Vec::new();
    }
    if inner == 0 {
        return (0..len).map(|at| E::nearest(b.map_or(0.0, |b| b[at % columns]))).collect();
    }
    let threads = if len.saturating_mul(inner) < THREADS_FROM { 1 } else { rayon::current_num_threads() };
    let of_block = inner.div_ceil(SIDE) * E::PRODUCTS;

    let mut blocks = vec![Block::ZERO; rows.div_ceil(SIDE) * of_block];
    let pack = |(blocks, x)| dispatch(PackRows { x, inner, blocks });
    if threads == 1 {
        blocks.chunks_exact_mut(of_block).zip(x.chunks(SIDE * inner)).for_each(pack);
    } else {
        blocks.par_chunks_exact_mut(of_block).zip(x.par_chunks(SIDE * inner)).for_each(pack);
    }

    let most = (PACKED / of_block).max(1);
    let width = SIDE * columns.div_ceil(SIDE).div_ceil(threads * PARTS).min(most);
    let mut values: Vec<E> = Vec::with_capacity(len);
    let mut strips: Vec<Vec<_>> = (0..columns.div_ceil(width)).map(|_| Vec::with_capacity(rows)).collect();
    for row in values.spare_capacity_mut()[..len].chunks_exact_mut(columns) {
        for (strip, part) in strips.iter_mut().zip(row.chunks_mut(width)) {
            strip.push(part);
        }
    }
    let multiply = |(at, out): (usize, Vec<_>)| {
        let (x, first) = (&blocks, at * width);
        dispatch(Strip::<T, E> {
            _tiles: std::marker::PhantomData,
            x,
            w,
            inner,
            columns,
            first,
            bias: b,
            out,
        });
    };
    if threads == 1 {
        strips.into_iter().enumerate().for_each(multiply);
    } else {
        strips.into_par_iter().enumerate().for_each(multiply);
    }
    // SAFETY: the strips cover the first `len` values; of each, every row was written, as there are blocks
    // of `x` for all rows and blocks of `w` for all its columns.
    unsafe { values.set_len(len) };
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tiles::{Described, Registers};

    fn numbers(len: usize, mut state: u64) -> Vec<f32> {
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    /// The product in `f64`, and the same of magnitudes.
    fn dense<E: Value>(x: &[E], w: &[E], b: &[f32], [rows, inner, columns]: [usize; 3]) -> Vec<[f64; 2]> {
        let of = |at: usize| {
            let (row, column) = (at / columns, at % columns);
            let terms = (0..inner).map(|k| {
                f64::from(x[row * inner + k].wide() * 1.0) * f64::from(w[k * columns + column].wide())
            });
            let b = f64::from(b[column]);
            terms.fold([b, b.abs()], |[sum, size], term| [sum + term, size + term.abs()])
        };
        (0..rows * columns).map(of).collect()
    }

    /// The largest error of products of all sizes, as a share of the sum of magnitudes, beyond rounding the result.
    fn errors<T: Tiles, E: Terms>(rounding: f64) -> f64 {
        let mut worst = 0.0_f64;
        for size in [[9, 1, 1], [33, 31, 65], [64, 64, 64], [40, 77, 129], [100, 256, 300], [12, 2, 700]] {
            let [rows, inner, columns] = size;
            let [x, w] = [(rows * inner, 1), (inner * columns, 2)]
                .map(|(len, seed)| numbers(len, seed).into_iter().map(E::nearest).collect::<Vec<_>>());
            let b = numbers(columns, 3);
            let turned: Vec<E> =
                (0..columns * inner).map(|at| w[at % inner * columns + at / inner]).collect();
            let by_rows = linear::<T, E>(&x, Operand::Rows(&w), Some(&b), size);
            let by_columns = linear::<T, E>(&x, Operand::Columns(&turned), Some(&b), size);
            for ((found, other), [sum, magnitudes]) in
                by_rows.iter().zip(&by_columns).zip(dense(&x, &w, &b, size))
            {
                assert_eq!(found.wide().to_bits(), other.wide().to_bits(), "{size:?}, either layout");
                let error = (f64::from(found.wide()) - sum).abs() - rounding * sum.abs();
                worst = worst.max(error / magnitudes);
            }
        }
        worst
    }

    #[test]
    fn products_of_all_sizes_in_either_layout() {
        let half = 2.0_f64.powi(-8);
        let three = 2.0_f64.powi(-16);
        assert!(errors::<Described, bf16>(half) < 1e-6);
        assert!(errors::<Described, f32>(0.0) < three);
        if Registers::available() {
            assert!(errors::<Registers, bf16>(half) < 1e-6);
            assert!(errors::<Registers, f32>(0.0) < three);
        } else {
            println!("this processor has no tile registers: only their description was compared");
        }
    }

    #[test]
    fn nothing_times_nothing_is_the_bias() {
        let empty: [bf16; 0] = [];
        let b = [1.0, 2.0];
        let found = linear::<Described, bf16>(&empty, Operand::Rows(&empty), Some(&b), [9, 0, 2]);
        assert!(found.chunks(2).all(|row| row == [bf16::from_f32(1.0), bf16::from_f32(2.0)]));
        assert!(linear::<Described, bf16>(&empty, Operand::Rows(&empty), None, [0, 4, 0]).is_empty());
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let x = [f32::INFINITY, 1.0, f32::NAN, -2.0];
        let found = linear::<Described, f32>(&x, Operand::Rows(&[1.0]), None, [4, 1, 1]);
        assert!(found[0].is_nan() && found[1] == 1.0 && found[2].is_nan() && found[3] == -2.0);
    }
}
