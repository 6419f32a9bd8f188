//! Copies of views into their place in a larger tensor.

use rayon::prelude::*;

/// A view of values in memory.
pub(crate) struct View<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) start: usize,
    pub(crate) shape: &'a [usize],
    pub(crate) strides: &'a [usize],
}

/// Writes the values of a view, in row-major order, to `out`, which has room for all of them.
pub(crate) fn place(out: &mut [f32], view: &View<'_>) {
    /// About how many values a thread takes at once.
    const CHUNK: usize = 64 * 1024;
    let Some((&width, outer)) = view.shape.split_last() else {
        out[0] = view.data[view.start];
        return;
    };
    if out.is_empty() {
        return;
    }
    let rows_at_once = (CHUNK / width).max(1);
    let copy = |(at, out): (usize, &mut [f32])| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let mut rest = at * rows_at_once + row;
            let mut start = view.start;
            for (len, stride) in outer.iter().zip(view.strides).rev() {
                start += rest % len * stride;
                rest /= len;
            }
            match view.strides[outer.len()] {
                1 => out.copy_from_slice(&view.data[start..start + width]),
                stride => {
                    for (at, out) in out.iter_mut().enumerate() {
                        *out = view.data[start + at * stride];
                    }
                }
            }
        }
    };
    if out.len() <= CHUNK {
        copy((0, out));
    } else {
        out.par_chunks_mut(rows_at_once * width).enumerate().for_each(copy);
    }
}
