//! Weights under our names, wherever and however a format keeps them.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use burn_lens_tensor::{AnyTensor, FloatType, WeightError, Weights};

use crate::{SaeError, fold::norms};

/// Where a weight lies in a file, and what makes it ours.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// As it is.
    Named(String),
    /// A matrix, transposed.
    Transposed(String),
    /// One number for all entries.
    Scalar(String),
    /// One number for all entries, over the norms of a matrix's rows.
    OverNorms(String, String),
    /// Its exponential.
    Exp(String),
    /// `[feature, target, d]`, summed over targets.
    Summed(String),
    /// The rows of one, each times the entry of another.
    Rows(String, String),
    /// Not in the file: every entry is this.
    Filled(f64),
    /// As elsewhere, times a number.
    Times(Box<Place>, f64),
}

impl Place {
    /// As elsewhere, times a number.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        if factor == 1.0 { self } else { Self::Times(Box::new(self), factor) }
    }
}

/// Where to put a dictionary, and what its files do not say.
#[derive(Clone, Debug)]
pub struct SaeOptions {
    /// Where to put it.
    pub device: Device,
    /// The float type to hold and run it in.
    pub dtype: FloatType,
    /// The hook that it reads, in place of what its files say.
    pub hook_name: Option<String>,
    /// The hook that it writes, in place of what its files say.
    pub hook_name_out: Option<String>,
    /// What inputs are multiplied by so that their mean norm is `√d_in`, where the files ask for that
    /// and do not say it.
    pub scaling_factor: Option<f64>,
    /// How many features are active, where the files do not say it.
    pub k: Option<usize>,
}

impl SaeOptions {
    /// In `f32` on a device, as the files say.
    #[must_use]
    pub fn on(device: &Device) -> Self {
        Self {
            device: device.clone(),
            dtype: FloatType::F32,
            hook_name: None,
            hook_name_out: None,
            scaling_factor: None,
            k: None,
        }
    }
}

/// Reads weights under our names.
pub struct Reader<'w> {
    weights: &'w mut dyn Weights,
    places: BTreeMap<String, Place>,
    ignored: BTreeSet<String>,
    device: Device,
    dtype: FloatType,
}

impl<'w> Reader<'w> {
    /// Reads from `weights`; a name that is not in `places` is the file's own.
    #[must_use]
    pub fn new(weights: &'w mut dyn Weights, places: BTreeMap<String, Place>, options: &SaeOptions) -> Self {
        let (device, dtype) = (options.device.clone(), options.dtype);
        Self { weights, places, ignored: BTreeSet::new(), device, dtype }
    }

    /// Lets tensors be left over.
    #[must_use]
    pub fn ignoring(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.ignored.extend(names);
        self
    }

    fn place(&self, name: &str) -> Place {
        self.places.get(name).cloned().unwrap_or_else(|| Place::Named(name.to_owned()))
    }

    /// Whether the weight is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self.place(name) {
            Place::Named(at) => self.weights.shape(&at).is_some(),
            _ => true,
        }
    }

    /// A matrix.
    ///
    /// # Errors
    ///
    /// If it is missing, has another shape or cannot be read.
    pub fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, SaeError> {
        let place = self.place(name);
        self.matrix_at(&place, shape)
    }

    fn matrix_at(&mut self, place: &Place, [rows, columns]: [usize; 2]) -> Result<Tensor<2>, SaeError> {
        Ok(match place {
            Place::Named(at) => self.tensor(at, &[rows, columns])?,
            Place::Transposed(at) => {
                let tensor = self.tensor::<2>(at, &[columns, rows])?;
                tensor.transpose()
            }
            Place::Rows(at, factors) => {
                let tensor = self.tensor::<2>(at, &[rows, columns])?;
                let factors = self.tensor::<1>(factors, &[rows])?;
                tensor * factors.unsqueeze_dim(1)
            }
            Place::Summed(at) => {
                let targets = self.weights.shape(at).and_then(|shape| shape.get(1).copied()).unwrap_or(1);
                let tensor = self.tensor::<3>(at, &[rows, targets, columns])?;
                tensor.sum_dim(1).squeeze_dim(1)
            }
            Place::Filled(value) => Tensor::full([rows, columns], *value, (&self.device, self.dtype.dtype())),
            Place::Times(place, factor) => self.matrix_at(place, [rows, columns])? * *factor,
            Place::Exp(at) => self.tensor::<2>(at, &[rows, columns])?.exp(),
            Place::Scalar(at) | Place::OverNorms(at, _) => {
                let value = self.scalar(at)?;
                Tensor::full([rows, columns], value, (&self.device, self.dtype.dtype()))
            }
        })
    }

    /// A vector.
    ///
    /// # Errors
    ///
    /// As [`Reader::matrix`].
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Tensor<1>, SaeError> {
        let place = self.place(name);
        self.vector_at(&place, len)
    }

    fn vector_at(&mut self, place: &Place, len: usize) -> Result<Tensor<1>, SaeError> {
        let filled = |value: f64| Tensor::full([len], value, (&self.device, self.dtype.dtype()));
        Ok(match place {
            Place::Filled(value) => filled(*value),
            Place::Scalar(at) => {
                // Some files have one threshold for all features, some one for each.
                if self.weights.shape(at).is_some_and(|shape| shape == [len]) {
                    return self.tensor(at, &[len]);
                }
                let value = self.scalar(at)?;
                Tensor::full([len], value, (&self.device, self.dtype.dtype()))
            }
            Place::OverNorms(at, matrix) => {
                let columns = self.weights.shape(matrix).and_then(|shape| shape.get(1).copied());
                let matrix = self.tensor::<2>(matrix, &[len, columns.unwrap_or(1)])?;
                norms(&matrix).recip() * self.scalar(at)?
            }
            Place::Exp(at) => self.tensor::<1>(at, &[len])?.exp(),
            Place::Times(place, factor) => self.vector_at(place, len)? * *factor,
            Place::Named(at) | Place::Transposed(at) | Place::Summed(at) | Place::Rows(at, _) => {
                self.tensor(at, &[len])?
            }
        })
    }

    /// One number, of shape `[]` or `[1]`.
    fn scalar(&mut self, at: &str) -> Result<f64, SaeError> {
        let shape = self.weights.shape(at).filter(|shape| shape.as_slice() == [1]).unwrap_or_default();
        let data = self.weights.get(at, &shape)?;
        Ok(data.iter::<f64>().next().unwrap_or_default())
    }

    fn tensor<const D: usize>(&mut self, at: &str, shape: &[usize]) -> Result<Tensor<D>, SaeError>
    where
        AnyTensor: TryInto<Tensor<D>>,
    {
        let data: TensorData = self.weights.get(at, shape)?;
        let wrong = || {
            SaeError::Weight(WeightError::Shape {
                name: at.to_owned(),
                origin: self.weights.origin(),
                expected: shape.to_vec(),
                found: shape.to_vec(),
            })
        };
        let any = AnyTensor::from_data(data, &self.device).map_err(|_| wrong())?.cast(self.dtype);
        any.try_into().map_err(|_| wrong())
    }

    /// Refuses tensors that nobody asked for.
    ///
    /// # Errors
    ///
    /// If there are any.
    pub fn finish(self) -> Result<(), SaeError> {
        let names: Vec<String> =
            self.weights.unread().into_iter().filter(|name| !self.ignored.contains(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(WeightError::Surplus { origin: self.weights.origin(), names }.into())
    }
}
