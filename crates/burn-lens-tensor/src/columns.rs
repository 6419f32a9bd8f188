//! A matrix that is written some columns after the other, before anybody reads it.

use std::sync::{Mutex, PoisonError};

/// Room for a matrix whose columns come some at a time. Nothing is written before they come.
#[derive(Debug)]
pub(crate) struct Columns {
    rows: usize,
    /// How many columns there is room for.
    width: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    values: Vec<f32>,
    /// How many columns have come.
    written: usize,
}

impl Columns {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        let values = Vec::with_capacity(rows * columns);
        Self { rows, width: columns, state: Mutex::new(State { values, written: 0 }) }
    }

    /// Adds `width` columns: `write` gets the index of a row and its part of them, writes it and gives it back.
    ///
    /// # Panics
    ///
    /// If there is no room for them, or `write` gives something else.
    #[cfg(feature = "cpu")]
    pub(crate) fn append(
        &self,
        width: usize,
        write: impl for<'a> Fn(usize, &'a mut [std::mem::MaybeUninit<f32>]) -> &'a mut [f32] + Sync,
    ) {
        use rayon::prelude::*;

        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = state.written..state.written + width;
        assert!(place.end <= self.width, "{place:?} of {} columns", self.width);
        if self.rows * width > 0 {
            let room = &mut state.values.spare_capacity_mut()[..self.rows * self.width];
            room.par_chunks_exact_mut(self.width).enumerate().for_each(|(row, room)| {
                let room = &mut room[place.clone()];
                let begin = room.as_ptr().addr();
                let written = write(row, room);
                assert!(
                    written.as_ptr().addr() == begin && written.len() == width,
                    "not what was to be written"
                );
            });
        }
        state.written = place.end;
    }

    /// The matrix, row by row.
    ///
    /// # Panics
    ///
    /// If columns are missing.
    pub(crate) fn into_values(self) -> Vec<f32> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(state.written, self.width, "columns that were written");
        // SAFETY: of each row, all columns up to `written` were given back as written by `append`, which counts them
        // only then.
        unsafe { state.values.set_len(self.rows * self.width) };
        state.values
    }
}
