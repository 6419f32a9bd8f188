//! Positions along one axis, with Python's indexing rules.

use std::{fmt, str::FromStr};

/// Which positions of an axis to keep. Negative numbers count from the end.
///
/// `Index` stands for a single position; whether its axis is kept with length 1 or removed is
/// the caller's decision (`run_with_cache` keeps it, cache methods remove it).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Slice {
    /// Every position.
    #[default]
    All,
    /// One position.
    Index(isize),
    /// `start..stop` in steps of `step`, ends clamped to the axis as Python does.
    Range {
        /// First position; the axis' beginning where `None`.
        start: Option<isize>,
        /// One past the last position; the axis' end where `None`.
        stop: Option<isize>,
        /// Distance between positions, at least 1.
        step: usize,
    },
    /// The positions listed, in that order, repeats allowed.
    List(Vec<isize>),
}

/// What a [`Slice`] comes to on an axis of known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Indices {
    /// A contiguous run `start..stop`.
    Range(usize, usize),
    /// Positions one by one.
    List(Vec<usize>),
}

impl Indices {
    /// How many positions are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Range(start, stop) => stop - start,
            Self::List(list) => list.len(),
        }
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The positions one by one.
    #[must_use]
    pub fn to_vec(&self) -> Vec<usize> {
        match self {
            Self::Range(start, stop) => (*start..*stop).collect(),
            Self::List(list) => list.clone(),
        }
    }
}

/// A slice that does not fit its axis, or text that is not a slice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SliceError {
    /// A position outside the axis.
    #[error("position {index} is outside an axis of length {len}")]
    OutOfRange {
        /// The position asked for.
        index: isize,
        /// The axis' length.
        len: usize,
    },
    /// The slice keeps nothing.
    #[error("slice `{slice}` keeps no position of an axis of length {len}")]
    Empty {
        /// The slice as written.
        slice: String,
        /// The axis' length.
        len: usize,
    },
    /// Text that does not parse.
    #[error("`{0}` is not a slice: expected `5`, `-1`, `2:7`, `:-1`, `0:10:2` or `1,4,6`")]
    Syntax(String),
}

impl Slice {
    /// `start..stop`.
    #[must_use]
    pub fn range(start: isize, stop: isize) -> Self {
        Self::Range { start: Some(start), stop: Some(stop), step: 1 }
    }

    /// Whether this is a single position, whose axis a caller may want removed.
    #[must_use]
    pub fn is_index(&self) -> bool {
        matches!(self, Self::Index(_))
    }

    /// The positions that this means on an axis of length `len`.
    ///
    /// # Errors
    ///
    /// If a position lies outside the axis, or nothing would be kept.
    ///
    /// ```
    /// # use burn_lens_tensor::{Indices, Slice};
    /// assert_eq!(Slice::Index(-1).resolve(5)?, Indices::Range(4, 5));
    /// assert_eq!("1:100".parse::<Slice>()?.resolve(5)?, Indices::Range(1, 5));
    /// assert!(Slice::Index(5).resolve(5).is_err());
    /// # Ok::<(), burn_lens_tensor::SliceError>(())
    /// ```
    pub fn resolve(&self, len: usize) -> Result<Indices, SliceError> {
        let indices = match self {
            Self::All => Indices::Range(0, len),
            Self::Index(index) => {
                let at = position(*index, len)?;
                Indices::Range(at, at + 1)
            }
            Self::Range { start, stop, step } => {
                let start = start.map_or(0, |index| clamped(index, len));
                let stop = stop.map_or(len, |index| clamped(index, len)).max(start);
                if *step == 1 {
                    Indices::Range(start, stop)
                } else {
                    Indices::List((start..stop).step_by((*step).max(1)).collect())
                }
            }
            Self::List(list) => {
                Indices::List(list.iter().map(|&index| position(index, len)).collect::<Result<_, _>>()?)
            }
        };
        if indices.is_empty() {
            return Err(SliceError::Empty { slice: self.to_string(), len });
        }
        Ok(indices)
    }
}

fn position(index: isize, len: usize) -> Result<usize, SliceError> {
    let at = if index < 0 { len.checked_sub(index.unsigned_abs()) } else { Some(index.unsigned_abs()) };
    at.filter(|&at| at < len).ok_or(SliceError::OutOfRange { index, len })
}

fn clamped(index: isize, len: usize) -> usize {
    if index < 0 { len.saturating_sub(index.unsigned_abs()) } else { index.unsigned_abs().min(len) }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str(":"),
            Self::Index(index) => write!(f, "{index}"),
            Self::Range { start, stop, step } => {
                if let Some(start) = start {
                    write!(f, "{start}")?;
                }
                f.write_str(":")?;
                if let Some(stop) = stop {
                    write!(f, "{stop}")?;
                }
                if *step != 1 {
                    write!(f, ":{step}")?;
                }
                Ok(())
            }
            Self::List(list) => {
                let text: Vec<String> = list.iter().map(ToString::to_string).collect();
                f.write_str(&text.join(","))
            }
        }
    }
}

impl FromStr for Slice {
    type Err = SliceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || SliceError::Syntax(text.to_owned());
        let number = |part: &str| part.trim().parse::<isize>().map_err(|_| syntax());
        let optional = |part: &str| if part.trim().is_empty() { Ok(None) } else { number(part).map(Some) };
        if text.contains(':') {
            let parts: Vec<&str> = text.split(':').collect();
            let step = match parts.get(2) {
                None => 1,
                Some(part) => {
                    part.trim().parse::<usize>().ok().filter(|&step| step > 0).ok_or_else(syntax)?
                }
            };
            if parts.len() > 3 {
                return Err(syntax());
            }
            let (start, stop) = (optional(parts[0])?, optional(parts[1])?);
            return Ok(if start.is_none() && stop.is_none() && step == 1 {
                Self::All
            } else {
                Self::Range { start, stop, step }
            });
        }
        let list = text.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
        Ok(if let [index] = list[..] { Self::Index(index) } else { Self::List(list) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_slice_are_inverse() {
        for text in [":", "3", "-1", "2:7", ":-1", "0:10:2", "1,4,6"] {
            assert_eq!(text.parse::<Slice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_not_a_slice() {
        for text in ["", "x", "1:2:0", "1:2:3:4", "1,,2"] {
            assert!(text.parse::<Slice>().is_err(), "{text}");
        }
    }

    #[test]
    fn follows_python() {
        let kept = |text: &str| text.parse::<Slice>().unwrap().resolve(6).map(|i| i.to_vec());
        assert_eq!(kept("-3:").unwrap(), [3, 4, 5]);
        assert_eq!(kept("::4").unwrap(), [0, 4]);
        assert_eq!(kept("5,0,-1").unwrap(), [5, 0, 5]);
        assert!(matches!(kept("4:2"), Err(SliceError::Empty { .. })));
        assert!(matches!(kept("-7"), Err(SliceError::OutOfRange { index: -7, len: 6 })));
    }
}
