//! Products with weights of half precision, each result rounded once.
//!
//! `gemm` computes some columns at a time in `f32`, so that neither the weights nor the results are ever
//! whole in it.

use rayon::prelude::*;

use super::{
    few_rows,
    half::{Value, convert_into, converted},
    product::{self, Operand},
    raw,
};

/// How many numbers of weights and results there are in `f32` at once: 64 MiB.
const AT_ONCE: usize = 1 << 24;

/// Columns that are multiplied at once at least: fewer make `gemm` read its left side too often.
const NARROWEST: usize = 256;

/// `x w + b`, rounded.
///
/// # Shapes
///
/// - `x`: `[rows, inner]`, `w`: `[inner, columns]`, `b`: `[columns]`; returns `[rows, columns]`
pub(crate) fn linear<E: Value>(
    x: Operand<'_>,
    w: Operand<'_, E>,
    b: Option<&[f32]>,
    size: [usize; 3],
) -> Vec<E> {
    let [rows, inner, columns] = size;
    let width = (AT_ONCE / (rows + inner).max(1)).max(NARROWEST);
    if rows <= few_rows::most(&w) || width >= columns {
        return converted(&product::linear(x, w, b, size));
    }
    by_columns(x, w, b, (size, width))
}

fn by_columns<E: Value>(
    x: Operand<'_>,
    w: Operand<'_, E>,
    b: Option<&[f32]>,
    ([rows, inner, columns], most): ([usize; 3], usize),
) -> Vec<E> {
    let mut values = vec![E::default(); rows * columns];
    for first in (0..columns).step_by(most) {
        let width = most.min(columns - first);
        let part: Vec<f32>;
        let w = match w {
            Operand::Columns(w) => {
                part = converted(&w[first * inner..][..width * inner]);
                Operand::Columns(&part)
            }
            Operand::Rows(w) => {
                let mut numbers = vec![0.0; inner * width];
                let rows = numbers.par_chunks_exact_mut(width).zip(w.par_chunks_exact(columns));
                rows.for_each(|(numbers, row)| convert_into(numbers, &row[first..][..width]));
                part = numbers;
                Operand::Rows(&part)
            }
        };
        let b = b.map(|b| &b[first..][..width]);
        let (x, w) = (x.matrix(rows, inner), w.matrix(inner, width));
        let numbers = raw::new_product([rows, inner, width], x, w, b);
        let rows = values.par_chunks_exact_mut(columns).zip(numbers.par_chunks_exact(width));
        rows.for_each(|(row, numbers)| convert_into(&mut row[first..][..width], numbers));
    }
    values
}

#[cfg(test)]
mod tests {
    use burn::tensor::bf16;

    use super::*;

    #[test]
    fn some_columns_at_a_time_are_all_of_them_at_once() {
        let [rows, inner, columns] = [100, 130, 300];
        let number = |at: usize| ((at * 7919) % 1009) as f32 / 504.5 - 1.0;
        let x: Vec<f32> = (0..rows * inner).map(number).collect();
        let w: Vec<bf16> = (0..inner * columns).map(|at| bf16::from_f32(number(at + 5))).collect();
        let b: Vec<f32> = (0..columns).map(number).collect();
        for (w, b) in [(Operand::Rows(&w[..]), Some(&b[..])), (Operand::Columns(&w), None)] {
            let (x, size) = (Operand::Rows(&x[..]), [rows, inner, columns]);
            let whole: Vec<bf16> = converted(&product::linear(x, w, b, size));
            assert_eq!(by_columns(x, w, b, (size, 64)), whole);
        }
    }
}
