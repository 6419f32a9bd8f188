//! Which heads read what earlier heads write.

use std::{fmt, str::FromStr};

use burn_lens_hooks::{HookedModel, ModelDims};
use burn_lens_linalg::{CompositionCores, FactoredMatrix, Values, baseline};

use super::Circuits;
use crate::AnalysisError;

/// Where a head reads an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Composition {
    /// In its queries.
    Q,
    /// In its keys.
    K,
    /// In its values.
    V,
}

impl Composition {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Q, Self::K, Self::V];
}

impl fmt::Display for Composition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Q => "Q",
            Self::K => "K",
            Self::V => "V",
        })
    }
}

impl FromStr for Composition {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| AnalysisError::Refused {
            what: "the composition",
            reason: format!("`{text}` is none of `Q`, `K`, `V`"),
        })
    }
}

/// How much one head reads of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompositionPair {
    /// Layer and head that write.
    pub writer: (usize, usize),
    /// Layer and head that read.
    pub reader: (usize, usize),
    /// `‖L R‖ / (‖L‖ ‖R‖)`
    pub score: f64,
    /// Standard deviations of the squared score above its mean for matrices in a random orientation
    /// to each other; `None` where a circuit is 0.
    pub z: Option<f64>,
}

/// `L0H0`, `L0H1`, … of every head, by layer.
#[must_use]
pub fn all_head_labels(dims: &ModelDims) -> Vec<String> {
    (0..dims.n_layers)
        .flat_map(|layer| (0..dims.n_heads).map(move |head| format!("L{layer}H{head}")))
        .collect()
}

impl<M: HookedModel + ?Sized> Circuits<'_, M> {
    /// How much each head reads, in its queries, keys or values, of what each head of an earlier
    /// layer writes: `‖OV_l R_r‖ / (‖OV_l‖ ‖R_r‖)` with `R` the head's QK (for queries), QKᵀ (keys) or
    /// OV (values). 0 for heads that are not in an earlier layer.
    ///
    /// # Shapes
    ///
    /// - returns `[n_layers, n_heads, n_layers, n_heads]`: writer, then reader
    ///
    /// # Errors
    ///
    /// If the model does not give its weights, or one is not finite.
    pub fn all_composition_scores(&self, kind: Composition) -> Result<Values, AnalysisError> {
        let ModelDims { n_layers, n_heads, .. } = self.dims;
        // The circuits themselves are dropped as soon as their cores are there.
        let writers = CompositionCores::of_writers(&self.ov()?)?;
        let readers = CompositionCores::of_readers(&self.read_by(kind)?)?;
        let scores = writers.scores_from(&readers, |writer| (writer / n_heads + 1) * n_heads)?;
        Ok(Values::new(vec![n_layers, n_heads, n_layers, n_heads], scores.into_data()))
    }

    fn read_by(&self, kind: Composition) -> Result<FactoredMatrix, AnalysisError> {
        Ok(match kind {
            Composition::Q => self.qk()?,
            Composition::K => self.qk()?.t(),
            Composition::V => self.ov()?,
        })
    }

    /// What composition scores would be for matrices in a random orientation to each other.
    #[must_use]
    pub fn composition_baseline(&self) -> f64 {
        baseline::composition(self.dims.d_model)
    }

    /// The `top` pairs of heads that compose most, of the scores of
    /// [`Circuits::all_composition_scores`].
    ///
    /// # Errors
    ///
    /// If the model does not give its weights, or one is not finite.
    pub fn strongest_compositions(
        &self,
        kind: Composition,
        scores: &Values,
        top: usize,
    ) -> Result<Vec<CompositionPair>, AnalysisError> {
        let heads = (0..self.dims.n_layers).flat_map(|l| (0..self.dims.n_heads).map(move |h| (l, h)));
        let heads: Vec<(usize, usize)> = heads.collect();
        let pairs = heads.iter().flat_map(|&writer| heads.iter().map(move |&reader| (writer, reader)));
        let earlier = pairs.filter(|(writer, reader)| writer.0 < reader.0);
        let mut pairs: Vec<CompositionPair> = earlier
            .map(|(writer, reader)| {
                let score = scores.get(&[writer.0, writer.1, reader.0, reader.1]);
                CompositionPair { writer, reader, score, z: None }
            })
            .collect();
        pairs.sort_by(|a, b| {
            b.score.total_cmp(&a.score).then((a.writer, a.reader).cmp(&(b.writer, b.reader)))
        });
        pairs.truncate(top);
        let (l, r) = (self.ov()?.singular_values()?, self.read_by(kind)?.singular_values()?);
        for pair in &mut pairs {
            let (l, r) = (l.at(&[pair.writer.0, pair.writer.1]), r.at(&[pair.reader.0, pair.reader.1]));
            let spread = baseline::composition_square(l, r, self.dims.d_model);
            pair.z = spread
                .filter(|(_, deviation)| *deviation > 0.0)
                .map(|(mean, deviation)| (pair.score.powi(2) - mean) / deviation);
        }
        Ok(pairs)
    }
}
