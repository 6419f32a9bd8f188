//! The tokens behind singular vectors.

use std::{fmt, str::FromStr};

use burn::tensor::Tensor;
use burn_lens_hooks::{HookedModel, NormSite, Param};
use burn_lens_linalg::svd_leading;

use super::{Circuits, Folding};
use crate::{AnalysisError, error::to_host};

/// Whose singular vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorType {
    /// What a head writes: the right singular vectors of `W_V W_O`.
    Ov,
    /// What an MLP reads: those of `W_inᵀ` (`[d_mlp, d_model]`).
    WIn,
    /// What the gate of a gated MLP reads: those of `W_gateᵀ`.
    WGate,
    /// What an MLP writes: those of `W_out`.
    WOut,
    /// What a head's queries look for: the left singular vectors of `W_Q W_Kᵀ`.
    QkLeft,
    /// What its keys offer: the right ones.
    QkRight,
}

impl VectorType {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Ov, Self::WIn, Self::WGate, Self::WOut, Self::QkLeft, Self::QkRight];

    /// Whether each head has its own.
    #[must_use]
    pub fn of_head(self) -> bool {
        matches!(self, Self::Ov | Self::QkLeft | Self::QkRight)
    }
}

impl fmt::Display for VectorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ov => "OV",
            Self::WIn => "w_in",
            Self::WGate => "w_gate",
            Self::WOut => "w_out",
            Self::QkLeft => "QK_left",
            Self::QkRight => "QK_right",
        })
    }
}

impl FromStr for VectorType {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| {
            let names = Self::ALL.map(|kind| format!("`{kind}`")).join(", ");
            AnalysisError::Refused { what: "the vector type", reason: format!("`{text}` is none of {names}") }
        })
    }
}

/// Singular vectors and what they say through the unembedding.
#[derive(Clone, Debug)]
pub struct SingularVectors {
    /// `W_Uᵀ v` of each vector: `[d_vocab_out, 1, num_vectors]`.
    pub readout: Tensor<3>,
    /// The singular values, descending: `[num_vectors]`.
    pub values: Vec<f64>,
    /// The vectors, as rows: `[num_vectors, d_model]`.
    pub vectors: Tensor<2>,
}

/// Tokens of one singular vector, each with its entry in the readout.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorTokens {
    /// The singular value.
    pub value: f64,
    /// The tokens with the largest entries, from the largest.
    pub top: Vec<(usize, f64)>,
    /// The tokens with the smallest entries, from the smallest.
    pub bottom: Vec<(usize, f64)>,
}

impl SingularVectors {
    /// The `k` top and the `k` bottom tokens of each vector.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn tokens(&self, k: usize) -> Result<Vec<VectorTokens>, AnalysisError> {
        let [d_vocab_out, _, count] = self.readout.dims();
        let values = to_host(self.readout.clone())?;
        let tokens = |vector: usize| {
            let mut all: Vec<(usize, f64)> =
                (0..d_vocab_out).map(|token| (token, values[token * count + vector])).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let bottom = all.iter().rev().take(k).copied().collect();
            all.truncate(k);
            VectorTokens { value: self.values[vector], top: all, bottom }
        };
        Ok((0..count).map(tokens).collect())
    }
}

/// Singular vectors of a model's matrices, read through its unembedding.
///
/// Signs are those of `burn-lens-linalg`: the entry of largest magnitude of the left singular vector
/// is positive. A vector and its negative say the same, so its top and its bottom tokens belong
/// together.
///
/// With weights folded and centered, the matrices that read have a direction in which they read
/// nothing (all ones); their last vector has the singular value 0, and what it says is noise.
///
/// Source: `SVDInterpreter` of TransformerLens; Millidge and Black, *The Singular Value Decompositions
/// of Transformer Weight Matrices are Highly Interpretable* (2022).
#[derive(Debug)]
pub struct SvdInterpreter<'m, M: HookedModel + ?Sized> {
    circuits: Circuits<'m, M>,
}

impl<'m, M: HookedModel + ?Sized> SvdInterpreter<'m, M> {
    /// An interpreter of `model`.
    ///
    /// # Errors
    ///
    /// As [`Circuits::new`].
    pub fn new(model: &'m M, folding: Folding) -> Result<Self, AnalysisError> {
        Ok(Self { circuits: Circuits::new(model, folding)? })
    }

    /// What was done to the weights: see [`Circuits::notes`].
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.circuits.notes()
    }

    /// The first `num_vectors` singular vectors of a matrix of `layer`, of `head` where each head has
    /// its own.
    ///
    /// # Errors
    ///
    /// If the model has no such layer, head or matrix, a head is missing or not asked for, there are
    /// fewer vectors, or a weight is not finite.
    pub fn get_singular_vectors(
        &self,
        vector_type: VectorType,
        layer: usize,
        head: Option<usize>,
        num_vectors: usize,
    ) -> Result<SingularVectors, AnalysisError> {
        self.circuits.check_head(layer, head)?;
        let (vectors, values) = match (vector_type.of_head(), head) {
            (true, Some(head)) => self.of_head(vector_type, layer, head, num_vectors)?,
            (false, None) => self.of_mlp(vector_type, layer, num_vectors)?,
            (true, None) => {
                return Err(refused(format!("each head has its own `{vector_type}`: which head?")));
            }
            (false, Some(_)) => {
                return Err(refused(format!("`{vector_type}` belongs to the whole layer, not to a head")));
            }
        };
        let readout = vectors.clone().matmul(self.circuits.w_u()?).transpose();
        Ok(SingularVectors { readout: readout.unsqueeze_dim(1), values, vectors })
    }

    /// Vectors `[count, d_model]` and values of a head's circuit.
    fn of_head(
        &self,
        vector_type: VectorType,
        layer: usize,
        head: usize,
        count: usize,
    ) -> Result<(Tensor<2>, Vec<f64>), AnalysisError> {
        let of = layer..layer + 1;
        let circuits = &self.circuits;
        let heads = if vector_type == VectorType::Ov { circuits.ov_of(of)? } else { circuits.qk_of(of)? };
        let one =
            heads.at(&[0, head]).named(&format!("{} of L{layer}H{head}", &vector_type.to_string()[..2]));
        check_count(count, one.ldim().min(one.mdim()).min(one.rdim()))?;
        let svd = one.svd()?;
        let vectors = if vector_type == VectorType::QkLeft { svd.u } else { svd.v };
        Ok((vectors.tensor::<2>().transpose().narrow(0, 0, count), svd.s.into_data()[..count].to_vec()))
    }

    /// The same of an MLP's matrix.
    fn of_mlp(
        &self,
        vector_type: VectorType,
        layer: usize,
        count: usize,
    ) -> Result<(Tensor<2>, Vec<f64>), AnalysisError> {
        let (site, model) = (NormSite::Ln2(layer), self.circuits.model);
        let matrix = match vector_type {
            VectorType::WGate => self.circuits.reader(Param::WGate(layer), site)?.transpose(),
            VectorType::WIn => self.circuits.reader(Param::WIn(layer), site)?.transpose(),
            _ => self.circuits.folder.inner_reader(model, Param::WOut(layer), Param::MlpLnW(layer))?,
        };
        let [rows, cols] = matrix.dims();
        check_count(count, rows.min(cols))?;
        let svd = svd_leading(matrix, count)?;
        let values = to_host(svd.s)?;
        Ok((svd.v.transpose(), values))
    }
}

fn check_count(asked: usize, most: usize) -> Result<(), AnalysisError> {
    if (1..=most).contains(&asked) {
        return Ok(());
    }
    Err(refused(format!("{asked} vectors were asked for, but there are {most}")))
}

fn refused(reason: String) -> AnalysisError {
    AnalysisError::Refused { what: "singular vectors", reason }
}
