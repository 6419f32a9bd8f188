//! Positions of texts in a batch: which column of a tensor is position 3 of prompt 1.

use burn_lens::tensor::Slice;

use super::error::Problem;

/// The texts that interventions apply to.
#[derive(Clone, Debug)]
pub(crate) struct Texts {
    /// One for each prompt of the batch.
    rows: Vec<Row>,
    /// `[batch][column]`: which columns are no padding; `None` where none is.
    real: Option<Vec<Vec<bool>>>,
    /// Whether texts grow.
    pub(super) generating: bool,
}

/// One text.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The column of position 0.
    start: usize,
    /// What negative positions count from.
    len: usize,
    /// One past the last position that is ever run.
    end: usize,
}

impl Texts {
    /// Texts of one run: positions are columns of the `[batch, pos]` tokens.
    pub(crate) fn of_run(attention_mask: &[Vec<i64>]) -> Self {
        let row = |mask: &Vec<i64>| Row { start: 0, len: mask.len(), end: mask.len() };
        let real: Vec<Vec<bool>> =
            attention_mask.iter().map(|mask| mask.iter().map(|&token| token != 0).collect()).collect();
        let padded = real.iter().flatten().any(|&real| !real);
        Self {
            rows: attention_mask.iter().map(row).collect(),
            real: padded.then_some(real),
            generating: false,
        }
    }

    /// Prompts of these lengths, padded on the left and continued by up to `new` tokens, with
    /// at most `n_ctx` columns. Positions count from each prompt's first token.
    pub(crate) fn of_generation(lengths: &[usize], new: usize, n_ctx: usize) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let row = |&len: &usize| {
            let start = longest - len;
            // The last new token is not run any more.
            let end = (len + new).saturating_sub(1).min(n_ctx.saturating_sub(start)).max(len);
            Row { start, len, end }
        };
        let real =
            lengths.iter().map(|len| (0..longest).map(|column| column >= longest - len).collect()).collect();
        let padded = lengths.iter().any(|&len| len < longest);
        Self { rows: lengths.iter().map(row).collect(), real: padded.then_some(real), generating: true }
    }

    /// How many texts there are.
    pub(super) fn batch(&self) -> usize {
        self.rows.len()
    }

    /// Which columns of the prompts are no padding; `None` where none is.
    pub(super) fn real(&self) -> Option<&[Vec<bool>]> {
        self.real.as_deref()
    }

    /// Where column `column` of text `row` stands in `slice`, if it is chosen: 0 for the first
    /// position that the slice names.
    pub(super) fn place(&self, slice: &Slice, row: usize, column: usize) -> Option<usize> {
        let Row { start, len, .. } = self.rows[row];
        let at = column.checked_sub(start)?;
        let absolute = |index: isize| {
            if index < 0 { len.checked_sub(index.unsigned_abs()) } else { Some(index.unsigned_abs()) }
        };
        match slice {
            Slice::All => Some(at),
            Slice::Index(index) => (absolute(*index) == Some(at)).then_some(0),
            Slice::List(list) => list.iter().position(|&index| absolute(index) == Some(at)),
            Slice::Range { start, stop, step } => {
                let first = start.map_or(0, |index| absolute(index).unwrap_or(0));
                let stop = stop.map_or(usize::MAX, |index| absolute(index).unwrap_or(0));
                let behind = at.checked_sub(first)?;
                (at < stop && behind.is_multiple_of(*step)).then_some(behind / step)
            }
        }
    }

    /// How many positions `slice` chooses; `None` where that depends on how long the text gets
    /// or differs between texts.
    pub(super) fn count(&self, slice: &Slice) -> Option<usize> {
        let open = matches!(slice, Slice::All | Slice::Range { stop: None, .. });
        if self.generating && open {
            return None;
        }
        let chosen = |row: usize| {
            let Row { start, end, .. } = self.rows[row];
            (start..start + end).filter(|&column| self.place(slice, row, column).is_some()).count()
        };
        let first = chosen(0);
        (1..self.rows.len()).all(|row| chosen(row) == first).then_some(first)
    }

    /// Refuses a slice that names a position that some text never has, or none at all.
    pub(super) fn check(&self, slice: &Slice) -> Result<(), Problem> {
        for (row, &Row { start, len, end }) in self.rows.iter().enumerate() {
            let named = match slice {
                Slice::Index(index) => vec![*index],
                Slice::List(list) => list.clone(),
                _ => Vec::new(),
            };
            let outside = |&index: &isize| {
                if index < 0 { index.unsigned_abs() > len } else { index.unsigned_abs() >= end }
            };
            let reached = (start..start + end).any(|column| self.place(slice, row, column).is_some());
            if named.iter().any(outside) || !reached {
                let (slice, last) = (slice.to_string(), end.saturating_sub(1));
                return Err(Problem::Position { slice, row, last, generated: end - len });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(texts: &Texts, slice: &str, row: usize, columns: usize) -> Vec<usize> {
        let slice = slice.parse().unwrap();
        (0..columns).filter(|&column| texts.place(&slice, row, column).is_some()).collect()
    }

    #[test]
    fn in_a_run_positions_are_columns() {
        let texts = Texts::of_run(&[vec![1, 1, 1, 1], vec![1, 1, 0, 0]]);
        assert_eq!(chosen(&texts, "-1", 1, 4), [3]);
        assert_eq!(chosen(&texts, "1:", 0, 4), [1, 2, 3]);
        assert_eq!(chosen(&texts, "3,0", 0, 4), [0, 3]);
        assert_eq!(texts.place(&"3,0".parse().unwrap(), 0, 3), Some(0));
        assert_eq!(texts.count(&"::2".parse().unwrap()), Some(2));
        assert!(texts.check(&"4".parse().unwrap()).is_err());
        assert!(texts.check(&"-4".parse().unwrap()).is_ok());
        assert!(texts.check(&"-5".parse().unwrap()).is_err());
        assert!(texts.check(&"3:2".parse().unwrap()).is_err());
    }

    #[test]
    fn in_generation_positions_count_from_each_prompt() {
        // Columns: the second prompt has two of padding.
        let texts = Texts::of_generation(&[4, 2], 3, 32);
        assert_eq!(chosen(&texts, "0", 0, 7), [0]);
        assert_eq!(chosen(&texts, "0", 1, 7), [2]);
        assert_eq!(chosen(&texts, "-1", 0, 7), [3]);
        assert_eq!(chosen(&texts, "-1", 1, 7), [3]);
        assert_eq!(chosen(&texts, "-1:", 0, 7), [3, 4, 5, 6]);
        assert_eq!(chosen(&texts, ":-1", 1, 7), [2]);
        assert_eq!(texts.count(&"-1:".parse().unwrap()), None);
        assert_eq!(texts.count(&"0:2".parse().unwrap()), Some(2));
        // Positions 0 to 5 are run, and 0 to 3.
        assert!(texts.check(&"3".parse().unwrap()).is_ok());
        assert!(texts.check(&"4".parse().unwrap()).is_err());
    }
}
