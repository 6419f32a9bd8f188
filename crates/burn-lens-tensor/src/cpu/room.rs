//! Room for new values, of which each block of a kernel writes its own part.

use std::{
    mem::MaybeUninit,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Room for values that nobody has written.
#[derive(Debug)]
pub(super) struct Room<'a> {
    values: &'a mut [MaybeUninit<f32>],
    /// How many values were written, in this part and in all others.
    written: &'a AtomicUsize,
}

/// Room where somebody wants the values.
pub(super) type Wanted<'a> = Option<Room<'a>>;

impl Room<'_> {
    /// The first `len` of the values as a part of their own.
    pub(super) fn take(&mut self, len: usize) -> Self {
        let (first, rest) = std::mem::take(&mut self.values).split_at_mut(len);
        self.values = rest;
        Self { values: first, written: self.written }
    }

    /// Writes rows of `keys` values: those of `rows`, whose rows hold what begins at column `start`, and `outside`
    /// in all other columns.
    pub(super) fn write(self, keys: usize, rows: &[f32], [start, width]: [usize; 2], outside: f32) {
        for (at, row) in self.values.chunks_exact_mut(keys.max(1)).enumerate() {
            let (before, rest) = row.split_at_mut(start);
            let (inside, behind) = rest.split_at_mut(width);
            inside.write_copy_of_slice(&rows[at * width..][..width]);
            for values in [before, behind] {
                values.fill(MaybeUninit::new(outside));
            }
            self.written.fetch_add(keys, Ordering::Relaxed);
        }
    }
}

/// What `f` writes into room for `len` values each, where `wanted`, and what it gives back.
///
/// # Panics
///
/// If `f` does not write all of it.
pub(super) fn filled<R>(
    wanted: [bool; 2],
    len: usize,
    f: impl FnOnce([Wanted<'_>; 2]) -> R,
) -> ([Option<Vec<f32>>; 2], R) {
    let written = [const { AtomicUsize::new(0) }; 2];
    let mut values = wanted.map(|wanted| wanted.then(|| Vec::with_capacity(len)));
    let [first, second] = &mut values;
    let result = f([room(first, len, &written[0]), room(second, len, &written[1])]);
    for (values, written) in values.iter_mut().zip(written) {
        if let Some(values) = values {
            assert_eq!(written.into_inner(), len, "values that were written");
            // SAFETY: each part of the room is written by a call that takes it, and once; together they wrote `len`
            // values, which is all of them.
            unsafe { values.set_len(len) };
        }
    }
    (values, result)
}

fn room<'a>(values: &'a mut Option<Vec<f32>>, len: usize, written: &'a AtomicUsize) -> Wanted<'a> {
    Some(Room { values: &mut values.as_mut()?.spare_capacity_mut()[..len], written })
}
