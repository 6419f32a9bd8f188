//! Indexing, as 4.3.0 of TransformerLens has it.

use burn_lens_tensor::{AnyTensor, Slice, SliceError};

use super::{FactoredMatrix, side::product};
use crate::{LinalgError, Matrices, matrices::reshaped};

/// One entry of an index, with the meaning that it has between the brackets of a torch tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Index {
    /// `i`, `a:b:c`, a list, or `:`. On a leading axis a single index removes the axis; rows and
    /// columns keep theirs, with length 1. Lists on more than one leading axis go together, as
    /// in torch.
    Slice(Slice),
    /// A list of the places where this is true; as long as the axis.
    Mask(Vec<bool>),
    /// `...`: as many `:` as fit.
    Ellipsis,
    /// `None`: a new leading axis of length 1.
    NewAxis,
}

impl From<Slice> for Index {
    fn from(slice: Slice) -> Self {
        Self::Slice(slice)
    }
}

impl From<isize> for Index {
    fn from(index: isize) -> Self {
        Self::Slice(Slice::Index(index))
    }
}

/// What an index makes of one leading axis.
enum Kept {
    New,
    One(usize),
    Axis(Vec<usize>),
    /// Goes together with other lists.
    List(Vec<usize>),
}

/// The indices of leading axes, of rows and of columns.
type Divided = (Vec<Index>, Option<Index>, Option<Index>);

impl FactoredMatrix {
    /// The part that `indices` select; axes without an index are kept whole.
    ///
    /// Leading axes come first, then rows, which select in `A`, then columns, which select in
    /// `B`. Nothing is multiplied, and a selection of leading axes copies nothing.
    ///
    /// # Errors
    ///
    /// If there are more indices than axes, one does not fit its axis, or a new axis is asked for
    /// behind the leading ones.
    ///
    /// ```
    /// # use burn_lens_linalg::{FactoredMatrix, Index};
    /// # use burn_lens_tensor::{DeviceSpec, burn::tensor::Tensor};
    /// # let device = DeviceSpec::cpu().open()?;
    /// let heads = FactoredMatrix::new(Tensor::<3>::ones([3, 7, 2], &device), Tensor::<3>::ones([3, 2, 9], &device))?;
    /// assert_eq!(heads.index(&[Index::Ellipsis, 0.into()])?.shape(), [3, 7, 1]);
    /// assert_eq!(heads.index(&[1.into()])?.shape(), [7, 9]);
    /// assert_eq!(heads.index(&[Index::Slice(":".parse()?), Index::NewAxis])?.shape(), [3, 1, 7, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn index(&self, indices: &[Index]) -> Result<Self, LinalgError> {
        let (lead_indices, rows, cols) = self.divided(indices)?;
        let mut kept = Vec::new();
        let mut axis = 0;
        for index in &lead_indices {
            kept.push(match index {
                Index::NewAxis => Kept::New,
                index => {
                    axis += 1;
                    self.kept(axis - 1, index)?
                }
            });
        }
        let (lead, chosen) = selection(&self.lead, &kept)
            .map_err(|reason| LinalgError::Indices { matrix: self.naming().whole(), reason })?;
        let (mut left, mut right) = (self.left.select(&chosen), self.right.select(&chosen));
        if let Some(rows) = rows {
            left = left.select_rows(&self.positions(self.lead.len(), &rows)?);
        }
        if let Some(cols) = cols {
            right = right.select_rows(&self.positions(self.lead.len() + 1, &cols)?);
        }
        Ok(Self { lead, left, right, name: self.name.clone() })
    }

    /// `indices` without the ellipsis: those of leading axes, rows and columns.
    fn divided(&self, indices: &[Index]) -> Result<Divided, LinalgError> {
        let error =
            |reason: &str| LinalgError::Indices { matrix: self.naming().whole(), reason: reason.to_owned() };
        let is_axis = |index: &&Index| !matches!(index, Index::NewAxis | Index::Ellipsis);
        let found = indices.iter().filter(is_axis).count();
        if found > self.ndim() {
            return Err(LinalgError::TooManyIndices {
                matrix: self.naming().whole(),
                axes: self.ndim(),
                found,
            });
        }
        let ellipses = indices.iter().filter(|index| **index == Index::Ellipsis).count();
        if ellipses > 1 {
            return Err(error("there is more than one ellipsis"));
        }
        let whole = vec![Index::Slice(Slice::All); self.ndim() - found];
        let at = indices.iter().position(|index| *index == Index::Ellipsis).unwrap_or(indices.len());
        let after = indices.get(at + 1..).unwrap_or_default();
        let all = [&indices[..at], &whole, after].concat();
        let mut seen = 0;
        let end = all.iter().position(|index| {
            let past = seen == self.lead.len() && *index != Index::NewAxis;
            seen += usize::from(*index != Index::NewAxis);
            past
        });
        let (lead, matrix) = all.split_at(end.unwrap_or(all.len()));
        match matrix {
            [rows, cols] if *cols != Index::NewAxis => {
                Ok((lead.to_vec(), Some(rows.clone()), Some(cols.clone())))
            }
            _ => Err(error("a new axis can only stand before rows and columns")),
        }
    }

    fn kept(&self, axis: usize, index: &Index) -> Result<Kept, LinalgError> {
        let positions = self.positions(axis, index)?;
        Ok(match index {
            Index::Slice(Slice::Index(_)) => Kept::One(positions[0]),
            Index::Slice(Slice::List(_)) | Index::Mask(_) => Kept::List(positions),
            _ => Kept::Axis(positions),
        })
    }

    fn positions(&self, axis: usize, index: &Index) -> Result<Vec<usize>, LinalgError> {
        let len = self.shape()[axis];
        let error = |source: SliceError| LinalgError::Index { matrix: self.naming().whole(), axis, source };
        match index {
            Index::Slice(slice) => Ok(slice.resolve(len).map_err(error)?.to_vec()),
            Index::Mask(mask) if mask.len() == len => {
                let positions: Vec<usize> = (0..len).filter(|&at| mask[at]).collect();
                let nothing = SliceError::Empty { slice: "mask".to_owned(), len };
                if positions.is_empty() { Err(error(nothing)) } else { Ok(positions) }
            }
            Index::Mask(mask) => Err(LinalgError::Indices {
                matrix: self.naming().whole(),
                reason: format!("a mask of {} places on axis {axis}, which has {len}", mask.len()),
            }),
            Index::Ellipsis | Index::NewAxis => Ok((0..len).collect()),
        }
    }

    /// With a new axis of length 1 at `axis` of the leading axes.
    ///
    /// # Panics
    ///
    /// If there are fewer leading axes.
    #[must_use]
    #[track_caller]
    pub fn unsqueeze(&self, axis: usize) -> Self {
        assert!(axis <= self.lead.len(), "axis {axis} is behind the leading axes {:?}", self.lead);
        let mut lead = self.lead.clone();
        lead.insert(axis, 1);
        Self { lead, ..self.clone() }
    }

    /// The same matrices with other leading axes: `[layer, group, head]` as `[layer, head]`.
    ///
    /// # Panics
    ///
    /// If they do not hold as many matrices.
    #[must_use]
    #[track_caller]
    pub fn with_lead(&self, lead: &[usize]) -> Self {
        let count: usize = lead.iter().product();
        assert_eq!(count, self.count(), "{:?} as {lead:?}", self.lead);
        Self { lead: lead.to_vec(), ..self.clone() }
    }

    /// The first `k` of every axis, formed: `[.., k, k]`.
    ///
    /// # Errors
    ///
    /// If `k` is 0.
    pub fn get_corner(&self, k: usize) -> Result<Matrices, LinalgError> {
        let first = Index::Slice(Slice::range(0, isize::try_from(k).unwrap_or(isize::MAX)));
        Ok(self.index(&vec![first; self.ndim()])?.ab())
    }

    /// One row of each matrix: `[.., rdim]`.
    ///
    /// # Errors
    ///
    /// If there is no such row, or there are more than four leading axes.
    pub fn row(&self, row: usize) -> Result<AnyTensor, LinalgError> {
        let row = self.positions(self.lead.len(), &(isize::try_from(row).unwrap_or(isize::MAX)).into())?;
        let a = self.left.select_rows(&row);
        let row = product(a.dense(), self.right.dense().transpose());
        reshaped(row, &[&self.lead[..], &[self.rdim()]].concat(), &self.naming().whole())
    }

    /// One column of each matrix: `[.., ldim]`.
    ///
    /// # Errors
    ///
    /// If there is no such column, or there are more than four leading axes.
    pub fn col(&self, col: usize) -> Result<AnyTensor, LinalgError> {
        self.t().row(col)
    }
}

/// The leading axes that `kept` makes of `lead`, and the flat index of each matrix chosen.
fn selection(lead: &[usize], kept: &[Kept]) -> Result<(Vec<usize>, Vec<usize>), String> {
    let lists: Vec<usize> =
        kept.iter().enumerate().filter(|(_, k)| matches!(k, Kept::List(_))).map(|(i, _)| i).collect();
    let paired = paired_len(kept)?;
    // Lists that are not side by side give the first axis, as in torch.
    let apart =
        lists.windows(2).any(|pair| kept[pair[0] + 1..pair[1]].iter().any(|k| !matches!(k, Kept::One(_))));
    let place = if apart { 0 } else { lists.first().copied().unwrap_or(0) };
    let mut axes: Vec<(Option<usize>, usize)> = Vec::new(); // which entry of `kept`, and its length
    for (entry, k) in kept.iter().enumerate() {
        if entry == place && paired.is_some() && apart {
            axes.push((None, paired.unwrap_or(1)));
        }
        match k {
            Kept::New => axes.push((Some(entry), 1)),
            Kept::Axis(positions) => axes.push((Some(entry), positions.len())),
            Kept::List(_) if !apart && entry == place => axes.push((None, paired.unwrap_or(1))),
            Kept::List(_) | Kept::One(_) => {}
        }
    }
    let shape: Vec<usize> = axes.iter().map(|(_, len)| *len).collect();
    let chosen = (0..shape.iter().product::<usize>()).map(|flat| {
        let mut rest = flat;
        let mut at: Vec<(Option<usize>, usize)> = Vec::new();
        for &(entry, len) in axes.iter().rev() {
            at.push((entry, rest % len));
            rest /= len;
        }
        let of = |entry: Option<usize>| at.iter().find(|(of, _)| *of == entry).map_or(0, |(_, at)| *at);
        let positions = kept.iter().enumerate().filter_map(|(entry, k)| match k {
            Kept::New => None,
            Kept::One(position) => Some(*position),
            Kept::Axis(positions) => Some(positions[of(Some(entry))]),
            Kept::List(list) => Some(list[if list.len() == 1 { 0 } else { of(None) }]),
        });
        positions.zip(lead).fold(0, |flat, (at, len)| flat * len + at)
    });
    let chosen = chosen.collect();
    Ok((shape, chosen))
}

/// How many entries the lists have together.
fn paired_len(kept: &[Kept]) -> Result<Option<usize>, String> {
    let lens = kept.iter().filter_map(|k| if let Kept::List(list) = k { Some(list.len()) } else { None });
    lens.clone().try_fold(None, |sum: Option<usize>, len| match sum {
        None | Some(1) => Ok(Some(len)),
        Some(sum) if sum == len || len == 1 => Ok(Some(sum)),
        Some(sum) => Err(format!("lists of {sum} and {len} entries on leading axes do not go together")),
    })
}
