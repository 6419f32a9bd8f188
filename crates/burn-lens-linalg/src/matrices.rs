//! Dense matrices with leading axes.

use burn::tensor::{DType, Device, Tensor};
use burn_lens_tensor::AnyTensor;

use crate::LinalgError;

/// Dense matrices `[.., rows, cols]` with any number of leading axes, which are kept flattened
/// into one.
#[derive(Clone, Debug)]
pub struct Matrices {
    lead: Vec<usize>,
    flat: Tensor<3>,
}

impl Matrices {
    /// `flat`, whose first axis stands for the leading axes `lead`.
    ///
    /// # Shapes
    ///
    /// - `flat`: `[product of lead, rows, cols]`
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    #[must_use]
    #[track_caller]
    pub fn new(lead: Vec<usize>, flat: Tensor<3>) -> Self {
        assert_eq!(lead.iter().product::<usize>(), flat.dims()[0], "the leading axes {lead:?}");
        Self { lead, flat }
    }

    /// The lengths of the leading axes.
    #[must_use]
    pub fn lead(&self) -> &[usize] {
        &self.lead
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        let [_, rows, cols] = self.flat.dims();
        [&self.lead[..], &[rows, cols]].concat()
    }

    /// With the leading axes as one: `[product of lead, rows, cols]`.
    #[must_use]
    pub fn flat(&self) -> Tensor<3> {
        self.flat.clone()
    }

    /// The device that they live on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.flat.device()
    }

    /// burn's dtype.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.flat.dtype()
    }

    /// The matrix at `index` of the leading axes: `[rows, cols]`.
    ///
    /// # Panics
    ///
    /// If the index lies outside.
    #[must_use]
    #[track_caller]
    pub fn at(&self, index: &[usize]) -> Tensor<2> {
        let fits = index.len() == self.lead.len() && index.iter().zip(&self.lead).all(|(at, len)| at < len);
        assert!(fits, "index {index:?} is outside the leading axes {:?}", self.lead);
        let flat = index.iter().zip(&self.lead).fold(0, |flat, (at, len)| flat * len + at);
        self.flat.clone().narrow(0, flat, 1).squeeze_dim(0)
    }

    /// As a tensor of rank `D`.
    ///
    /// # Panics
    ///
    /// If `D` is not the number of axes.
    #[must_use]
    #[track_caller]
    pub fn tensor<const D: usize>(&self) -> Tensor<D> {
        let shape = self.shape();
        let dims: [usize; D] =
            shape.as_slice().try_into().unwrap_or_else(|_| panic!("the shape {shape:?} is not of rank {D}"));
        self.flat.clone().reshape(dims)
    }

    /// As a tensor whose rank is known at run time.
    ///
    /// # Errors
    ///
    /// If there are more than three leading axes.
    pub fn into_any(self) -> Result<AnyTensor, LinalgError> {
        let shape = self.shape();
        reshaped(self.flat, &shape, "the matrix")
    }
}

/// `flat` with the axes `shape`.
pub(crate) fn reshaped<const D: usize>(
    flat: Tensor<D>,
    shape: &[usize],
    matrix: &str,
) -> Result<AnyTensor, LinalgError> {
    Ok(match *shape {
        [a] => AnyTensor::Float1(flat.reshape([a])),
        [a, b] => AnyTensor::Float2(flat.reshape([a, b])),
        [a, b, c] => AnyTensor::Float3(flat.reshape([a, b, c])),
        [a, b, c, d] => AnyTensor::Float4(flat.reshape([a, b, c, d])),
        [a, b, c, d, e] => AnyTensor::Float5(flat.reshape([a, b, c, d, e])),
        _ => {
            return Err(LinalgError::Rank {
                matrix: matrix.to_owned(),
                shape: shape.to_vec(),
                expected: "one to five axes".to_owned(),
            });
        }
    })
}

macro_rules! from_tensor {
    ($($rank:literal),*) => {$(
        impl From<Tensor<$rank>> for Matrices {
            fn from(tensor: Tensor<$rank>) -> Self {
                let dims = tensor.dims();
                let (lead, matrix) = dims.split_at($rank - 2);
                let flat = [lead.iter().product(), matrix[0], matrix[1]];
                Self { lead: lead.to_vec(), flat: tensor.reshape(flat) }
            }
        }
    )*};
}

from_tensor!(2, 3, 4, 5);

impl TryFrom<AnyTensor> for Matrices {
    type Error = LinalgError;

    fn try_from(any: AnyTensor) -> Result<Self, LinalgError> {
        Ok(match any {
            AnyTensor::Float2(tensor) => tensor.into(),
            AnyTensor::Float3(tensor) => tensor.into(),
            AnyTensor::Float4(tensor) => tensor.into(),
            AnyTensor::Float5(tensor) => tensor.into(),
            other => {
                return Err(LinalgError::Rank {
                    matrix: "the matrix".to_owned(),
                    shape: other.shape(),
                    expected: "floats and at least two axes".to_owned(),
                });
            }
        })
    }
}
