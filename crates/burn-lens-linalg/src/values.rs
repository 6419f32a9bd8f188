//! Results on the host: numbers with axes.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::Complex;

/// Numbers on the host, row-major, with as many axes as they need.
///
/// ```
/// # use burn_lens_linalg::Values;
/// let scores = Values::new(vec![2, 3], vec![0.0, 0.1, 0.2, 1.0, 1.1, 1.2]);
/// assert_eq!(scores.at(&[1]), [1.0, 1.1, 1.2]);
/// assert_eq!(scores.get(&[1, 2]), 1.2);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Values<T = f64> {
    shape: Vec<usize>,
    data: Vec<T>,
}

impl<T> Values<T> {
    /// Row-major `data` with the axes `shape`; no axes for a single number.
    ///
    /// # Panics
    ///
    /// If there are not as many numbers as the shape holds.
    #[must_use]
    #[track_caller]
    pub fn new(shape: Vec<usize>, data: Vec<T>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "values for the shape {shape:?}");
        Self { shape, data }
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Every number, row-major.
    #[must_use]
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// Every number, row-major.
    #[must_use]
    pub fn into_data(self) -> Vec<T> {
        self.data
    }

    /// What stands at `index` of the first axes: the numbers along the others.
    ///
    /// # Panics
    ///
    /// If the index lies outside.
    #[must_use]
    #[track_caller]
    pub fn at(&self, index: &[usize]) -> &[T] {
        let fits = index.len() <= self.shape.len() && index.iter().zip(&self.shape).all(|(at, len)| at < len);
        assert!(fits, "index {index:?} is outside the shape {:?}", self.shape);
        let len: usize = self.shape[index.len()..].iter().product();
        let start = index.iter().zip(&self.shape).fold(0, |flat, (at, len)| flat * len + at) * len;
        &self.data[start..start + len]
    }

    /// The number at `index`, which has one entry for each axis.
    ///
    /// # Panics
    ///
    /// If the index lies outside.
    #[must_use]
    #[track_caller]
    pub fn get(&self, index: &[usize]) -> T
    where
        T: Copy,
    {
        assert_eq!(index.len(), self.shape.len(), "an index for each axis of the shape {:?}", self.shape);
        self.at(index)[0]
    }

    /// `f` of every number.
    #[must_use]
    pub fn map<U>(&self, f: impl Fn(&T) -> U) -> Values<U> {
        Values { shape: self.shape.clone(), data: self.data.iter().map(f).collect() }
    }

    /// The last axis taken together by `f`.
    ///
    /// # Panics
    ///
    /// If there are no axes.
    #[must_use]
    #[track_caller]
    pub fn reduce<U>(&self, f: impl Fn(&[T]) -> U) -> Values<U> {
        let (&len, lead) = self.shape.split_last().expect("an axis to reduce");
        let rows = lead.iter().product::<usize>();
        let data = (0..rows).map(|row| f(&self.data[row * len..(row + 1) * len])).collect();
        Values { shape: lead.to_vec(), data }
    }
}

impl Values<f64> {
    /// The numbers on a device.
    ///
    /// # Panics
    ///
    /// If there are not `D` axes.
    #[must_use]
    #[track_caller]
    pub fn to_tensor<const D: usize>(&self, device: &Device, dtype: DType) -> Tensor<D> {
        assert_eq!(self.shape.len(), D, "the rank of the shape {:?}", self.shape);
        Tensor::from_data(TensorData::new(self.data.clone(), self.shape.clone()), (device, dtype))
    }
}

impl Values<Complex> {
    /// `Σ Re λ / Σ |λ|` over the last axis: from −1 (all negative) to 1 (all positive). Of the
    /// eigenvalues of an OV circuit this is the copying score of Elhage et al. (2021).
    ///
    /// 0 where every number is 0.
    ///
    /// # Panics
    ///
    /// If there are no axes.
    #[must_use]
    pub fn positive_share(&self) -> Values {
        self.reduce(|values| {
            let total: f64 = values.iter().map(Complex::abs).sum();
            if total > 0.0 { values.iter().map(|value| value.re).sum::<f64>() / total } else { 0.0 }
        })
    }
}
