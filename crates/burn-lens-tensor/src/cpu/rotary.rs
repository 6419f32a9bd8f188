//! Rotary position embedding in place.

use super::rows::RowKernel;
use crate::kernels::Turns;

/// Turns every head of a position.
pub(crate) struct Rotate<'a> {
    pub(crate) turns: &'a Turns,
    pub(crate) d_head: usize,
}

impl RowKernel for Rotate<'_> {
    /// A row holds the heads of one position, side by side.
    #[inline(always)]
    fn change(&self, rows: &mut [f32], row: usize, first: usize) {
        let Self { turns, d_head } = *self;
        let half = turns.half;
        for (at, row) in rows.chunks_exact_mut(row).enumerate() {
            let table = (first + at) % turns.positions * half;
            let (cos, sin) = (&turns.cos[table..table + half], &turns.sin[table..table + half]);
            for head in row.chunks_exact_mut(d_head) {
                if turns.adjacent {
                    let (pairs, _) = head[..2 * half].as_chunks_mut::<2>();
                    for (([a, b], cos), sin) in pairs.iter_mut().zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                } else {
                    let (left, right) = head[..2 * half].split_at_mut(half);
                    for (((a, b), cos), sin) in left.iter_mut().zip(right).zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        }
    }
}
