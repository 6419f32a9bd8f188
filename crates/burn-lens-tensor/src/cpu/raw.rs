//! The unsafe code of the kernels: new buffers that are written once, and strided products.

use std::mem::MaybeUninit;

use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::path::dispatch;

/// A copy of `source`, each chunk of `chunk` values changed by `f` while it is in the cache.
/// `f` gets the chunk and its index.
pub(super) fn copied(source: &[f32], chunk: usize, f: impl Fn(&mut [f32], usize) + Sync) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(source.len());
    let spare = &mut values.spare_capacity_mut()[..source.len()];
    let fill = |(at, (target, source)): (usize, (&mut [MaybeUninit<f32>], &[f32]))| {
        f(target.write_copy_of_slice(source), at);
    };
    if source.len() <= chunk {
        spare.chunks_mut(chunk).zip(source.chunks(chunk)).enumerate().for_each(fill);
    } else {
        spare.par_chunks_mut(chunk).zip(source.par_chunks(chunk)).enumerate().for_each(fill);
    }
    // SAFETY: the chunks cover the first `source.len()` values, and each was written.
    unsafe { values.set_len(source.len()) };
    values
}

/// What `f` makes of each value of `source`, some of them at once.
pub(super) fn mapped<S: Copy + Sync, T: Send>(source: &[S], f: impl Fn(S) -> T + Copy + Sync) -> Vec<T> {
    /// How many values a thread takes at once.
    const CHUNK: usize = 8 * 1024;
    let mut values: Vec<T> = Vec::with_capacity(source.len());
    let spare = &mut values.spare_capacity_mut()[..source.len()];
    if source.len() <= CHUNK {
        dispatch(Map { target: spare, source, f });
    } else {
        let chunks = spare.par_chunks_mut(CHUNK).zip(source.par_chunks(CHUNK));
        chunks.for_each(|(target, source)| dispatch(Map { target, source, f }));
    }
    // SAFETY: the chunks cover the first `source.len()` values, and each was written.
    unsafe { values.set_len(source.len()) };
    values
}

struct Map<'a, S, T, F> {
    target: &'a mut [MaybeUninit<T>],
    source: &'a [S],
    f: F,
}

impl<S: Copy, T, F: Fn(S) -> T> NullaryFnOnce for Map<'_, S, T, F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (target, &source) in self.target.iter_mut().zip(self.source) {
            target.write((self.f)(source));
        }
    }
}

/// A matrix inside a slice: `data[start + row · row_stride + column · column_stride]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) start: usize,
    pub(super) strides: [usize; 2],
}

/// Where a matrix of `rows` and `columns` ends.
fn last(start: usize, [row, column]: [usize; 2], rows: usize, columns: usize) -> usize {
    start + rows.saturating_sub(1) * row + columns.saturating_sub(1) * column
}

/// `out = a b`, or `out += a b` where `add`; `out` is `[rows, columns]` with `row_stride`, `a`
/// is `[rows, inner]`, `b` is `[inner, columns]`. On the calling thread.
pub(super) fn product(
    (out, row_stride): (&mut [f32], usize),
    sizes: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    add: bool,
) {
    let [rows, _, columns] = sizes;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(row_stride >= columns && last(0, [row_stride, 1], rows, columns) < out.len());
    // SAFETY: the assert holds every element inside `out`, whose values are initialized and which
    // is borrowed mutably, so overlaps neither `a` nor `b`; its rows do not overlap.
    unsafe { multiply((out.as_mut_ptr(), row_stride), sizes, [a, b], add, gemm::Parallelism::None) }
}

/// A new `[rows, columns]` that holds `a b + bias`, on all threads where that pays.
pub(super) fn new_product(sizes: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    /// Below this many multiplications one thread is faster.
    const THREADS_FROM: usize = 192 * 192 * 192;
    let [rows, inner, columns] = sizes;
    let len = rows * columns;
    let mut values: Vec<f32> = Vec::with_capacity(len);
    let spare = &mut values.spare_capacity_mut()[..len];
    if let Some(bias) = bias {
        let filled = |row: &mut [MaybeUninit<f32>]| {
            row.write_copy_of_slice(bias);
        };
        if len < 64 * 1024 {
            spare.chunks_exact_mut(columns.max(1)).for_each(filled);
        } else {
            spare.par_chunks_exact_mut(columns.max(1)).for_each(filled);
        }
    }
    let threads = if rows.saturating_mul(inner).saturating_mul(columns) < THREADS_FROM {
        gemm::Parallelism::None
    } else {
        gemm::Parallelism::Rayon(0)
    };
    let out = (spare.as_mut_ptr().cast::<f32>(), columns);
    // SAFETY: `out` is room for `rows` rows of `columns` values, which are read only where they
    // were initialized with the bias, and of which a product writes every one.
    unsafe {
        multiply(out, sizes, [a, b], bias.is_some(), threads);
        values.set_len(len);
    }
    values
}

/// `out = a b`, or `out += a b`.
///
/// # Safety
///
/// `out` must be valid for writes of `rows` rows of `columns` values whose beginnings lie the
/// given distance apart, overlap with nothing, and hold initialized values where `add`.
unsafe fn multiply(
    (out, row_stride): (*mut f32, usize),
    [rows, inner, columns]: [usize; 3],
    [a, b]: [Matrix<'_>; 2],
    add: bool,
    threads: gemm::Parallelism,
) {
    assert!(inner == 0 || rows == 0 || last(a.start, a.strides, rows, inner) < a.data.len());
    assert!(inner == 0 || columns == 0 || last(b.start, b.strides, inner, columns) < b.data.len());
    // SAFETY: `out` is as the caller promises, and the asserts hold every element that is read
    // inside its slice.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out,
            1,
            row_stride.cast_signed(),
            add,
            a.data.as_ptr().add(a.start),
            a.strides[1].cast_signed(),
            a.strides[0].cast_signed(),
            b.data.as_ptr().add(b.start),
            b.strides[1].cast_signed(),
            b.strides[0].cast_signed(),
            1.0_f32,
            1.0_f32,
            false,
            false,
            false,
            threads,
        );
    }
}
