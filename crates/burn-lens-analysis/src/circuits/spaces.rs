//! The spaces that heads read and write.

use std::str::FromStr;

use burn_lens_hooks::{HookedModel, Param};
use burn_lens_linalg::{Matrices, Values, baseline, subspace_overlap};

use super::Circuits;
use crate::AnalysisError;

/// A space of `d_head` dimensions (at most) that belongs to each head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// What its queries read: the columns of `W_Q`.
    Query,
    /// What its keys read: the columns of `W_K`.
    Key,
    /// What its values read: the columns of `W_V`.
    Value,
    /// What it writes: the rows of `W_O`.
    Output,
}

impl Space {
    const NAMES: [(&'static str, Self); 4] =
        [("query", Self::Query), ("key", Self::Key), ("value", Self::Value), ("output", Self::Output)];
}

impl FromStr for Space {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::NAMES.into_iter().find(|(name, _)| *name == text).map(|(_, space)| space).ok_or_else(|| {
            AnalysisError::Refused {
                what: "the space",
                reason: format!("`{text}` is none of `query`, `key`, `value`, `output`"),
            }
        })
    }
}

impl<M: HookedModel + ?Sized> Circuits<'_, M> {
    /// Vectors that span a space of each head, as columns: `[n_layers, heads, d_model, d_head]`, with
    /// `n_kv_heads` heads for keys and values.
    ///
    /// # Errors
    ///
    /// If the model does not give its weights.
    pub fn space(&self, space: Space) -> Result<Matrices, AnalysisError> {
        match space {
            Space::Query => self.heads_in(Param::WQ, self.dims.n_heads, self.layers()),
            Space::Key => self.heads_in(Param::WK, self.dims.n_kv_heads, self.layers()),
            Space::Value => self.heads_in(Param::WV, self.dims.n_kv_heads, self.layers()),
            Space::Output => {
                let w_o = self.heads_out(self.layers())?;
                Ok(Matrices::new(w_o.lead().to_vec(), w_o.flat().transpose()))
            }
        }
    }

    /// The overlap of a space of every head with a space of every head, 1 where one lies in the
    /// other: `[n_layers, heads, n_layers, heads]`.
    ///
    /// Random spaces have [`Circuits::overlap_baseline`].
    ///
    /// # Errors
    ///
    /// If the model does not give its weights, or one is not finite.
    pub fn space_overlaps(&self, a: Space, b: Space) -> Result<Values, AnalysisError> {
        Ok(subspace_overlap(self.space(a)?, self.space(b)?)?)
    }

    /// The overlap of two random spaces of `d_head` dimensions on average: `d_head / d_model`.
    #[must_use]
    pub fn overlap_baseline(&self) -> f64 {
        let d_head = self.dims.d_head.min(self.dims.d_model);
        baseline::overlap(d_head, d_head, self.dims.d_model)
    }
}
