//! A tensor whose rank is known at run time.

use burn::tensor::{DType, Device, ExecutionError, Int, Tensor, TensorData};

use crate::{FloatType, Indices, Slice, SliceError, kernels};

/// A tensor of any rank from 1 to 5, float or integer: what a cache or a weight table holds.
///
/// Cloning is cheap (a reference count), and an operation on a clone never changes the
/// original, so a stored tensor is safe from later edits.
///
/// ```
/// # use burn_lens_tensor::{AnyTensor, DeviceSpec, burn::tensor::Tensor};
/// # let device = DeviceSpec::cpu().open()?;
/// let any = AnyTensor::from(Tensor::<2>::zeros([2, 3], &device));
/// assert_eq!(any.shape(), [2, 3]);
/// let back: Tensor<2> = any.clone().try_into()?;
/// assert!(Tensor::<3>::try_from(any).is_err()); // rank 2, not 3
/// # let _ = back;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants are a rank and a kind each")]
pub enum AnyTensor {
    Float1(Tensor<1>),
    Float2(Tensor<2>),
    Float3(Tensor<3>),
    Float4(Tensor<4>),
    Float5(Tensor<5>),
    Int1(Tensor<1, Int>),
    Int2(Tensor<2, Int>),
    Int3(Tensor<3, Int>),
}

/// An [`AnyTensor`] that is not of the rank and kind wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found} of shape {shape:?}")]
pub struct RankError {
    /// What was wanted, in words.
    pub expected: String,
    /// What is there, in words.
    pub found: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// The concrete tensors that an [`AnyTensor`] can hold.
///
/// [`AnyTensor`] is one itself, for code that takes whatever comes.
pub trait TypedTensor: Clone {
    /// Forgets the rank.
    fn into_any(self) -> AnyTensor;

    /// Recovers the rank.
    ///
    /// # Errors
    ///
    /// If `any` is of another rank or kind.
    fn from_any(any: AnyTensor) -> Result<Self, RankError>;
}

impl TypedTensor for AnyTensor {
    fn into_any(self) -> AnyTensor {
        self
    }

    fn from_any(any: AnyTensor) -> Result<Self, RankError> {
        Ok(any)
    }
}

/// Applies `$body` to the tensor inside, whatever its rank, giving an `AnyTensor` back.
macro_rules! map {
    ($any:expr, $t:ident => $body:expr) => {
        match $any {
            AnyTensor::Float1($t) => AnyTensor::Float1($body),
            AnyTensor::Float2($t) => AnyTensor::Float2($body),
            AnyTensor::Float3($t) => AnyTensor::Float3($body),
            AnyTensor::Float4($t) => AnyTensor::Float4($body),
            AnyTensor::Float5($t) => AnyTensor::Float5($body),
            AnyTensor::Int1($t) => AnyTensor::Int1($body),
            AnyTensor::Int2($t) => AnyTensor::Int2($body),
            AnyTensor::Int3($t) => AnyTensor::Int3($body),
        }
    };
}

/// Applies `$body` to the tensor inside, whatever its rank.
macro_rules! each {
    ($any:expr, $t:ident => $body:expr) => {
        match $any {
            AnyTensor::Float1($t) => $body,
            AnyTensor::Float2($t) => $body,
            AnyTensor::Float3($t) => $body,
            AnyTensor::Float4($t) => $body,
            AnyTensor::Float5($t) => $body,
            AnyTensor::Int1($t) => $body,
            AnyTensor::Int2($t) => $body,
            AnyTensor::Int3($t) => $body,
        }
    };
}

/// Applies `$body` to a float tensor of any rank; integers pass through.
macro_rules! map_float {
    ($any:expr, $t:ident => $body:expr) => {
        match $any {
            AnyTensor::Float1($t) => AnyTensor::Float1($body),
            AnyTensor::Float2($t) => AnyTensor::Float2($body),
            AnyTensor::Float3($t) => AnyTensor::Float3($body),
            AnyTensor::Float4($t) => AnyTensor::Float4($body),
            AnyTensor::Float5($t) => AnyTensor::Float5($body),
            int => int,
        }
    };
}

macro_rules! typed {
    ($($variant:ident: $tensor:ty, $kind:literal;)*) => {$(
        impl From<$tensor> for AnyTensor {
            fn from(tensor: $tensor) -> Self {
                Self::$variant(tensor)
            }
        }

        impl TryFrom<AnyTensor> for $tensor {
            type Error = RankError;

            fn try_from(any: AnyTensor) -> Result<Self, RankError> {
                match any {
                    AnyTensor::$variant(tensor) => Ok(tensor),
                    other => Err(RankError {
                        expected: $kind.to_owned(),
                        found: other.kind().to_owned(),
                        shape: other.shape(),
                    }),
                }
            }
        }

        impl TypedTensor for $tensor {
            fn into_any(self) -> AnyTensor {
                self.into()
            }

            fn from_any(any: AnyTensor) -> Result<Self, RankError> {
                any.try_into()
            }
        }
    )*

        /// The same values in memory of their own.
///
/// What burn 0.22 reads from a WebGPU device is a view of a buffer that later reads may write again while
/// it is held. Whoever holds more than one result of [`Tensor::into_data`] of a GPU's tensors needs this;
/// [`AnyTensor::into_data`] does it.
#[must_use]
pub fn kept(data: TensorData) -> TensorData {
    let (bytes, shape, dtype) = (data.as_bytes().to_vec(), data.shape().clone(), data.dtype());
    TensorData::from_bytes_vec(bytes, shape, dtype)
}

impl AnyTensor {
            /// Rank and kind in words: `a float tensor of rank 3`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)*
                }
            }
        }
    };
}

typed! {
    Float1: Tensor<1>, "a float tensor of rank 1";
    Float2: Tensor<2>, "a float tensor of rank 2";
    Float3: Tensor<3>, "a float tensor of rank 3";
    Float4: Tensor<4>, "a float tensor of rank 4";
    Float5: Tensor<5>, "a float tensor of rank 5";
    Int1: Tensor<1, Int>, "an integer tensor of rank 1";
    Int2: Tensor<2, Int>, "an integer tensor of rank 2";
    Int3: Tensor<3, Int>, "an integer tensor of rank 3";
}

impl AnyTensor {
    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        each!(self, t => t.dims().to_vec())
    }

    /// The number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        each!(self, t => t.dims().len())
    }

    /// burn's dtype.
    #[must_use]
    pub fn dtype(&self) -> DType {
        each!(self, t => t.dtype())
    }

    /// Whether it holds floats.
    #[must_use]
    pub fn is_float(&self) -> bool {
        !matches!(self, Self::Int1(_) | Self::Int2(_) | Self::Int3(_))
    }

    /// The device that it lives on.
    #[must_use]
    pub fn device(&self) -> Device {
        each!(self, t => t.device())
    }

    /// The bytes it takes on its device.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        self.shape().iter().product::<usize>() * self.dtype().size()
    }

    /// The same values on another device.
    #[must_use]
    pub fn to_device(self, device: &Device) -> Self {
        map!(self, t => t.to_device(device))
    }

    /// The same values in another float type; integers are left as they are.
    #[must_use]
    pub fn cast(self, float: FloatType) -> Self {
        if self.dtype() == float.dtype() {
            return self;
        }
        map_float!(self, t => t.cast(float.dtype()))
    }

    /// The values, cut off from any autodiff graph.
    #[must_use]
    pub fn detach(self) -> Self {
        map_float!(self, t => t.without_autodiff())
    }

    /// Reads the values back to the host.
    ///
    /// # Errors
    ///
    /// If the device fails, which on a GPU can be the late report of an earlier failure.
    pub fn into_data(self) -> Result<TensorData, ExecutionError> {
        let is_on_host = kernels::available(&self.device(), DType::F32);
        let data = each!(self, t => t.try_into_data())?;
        Ok(if is_on_host { data } else { kept(data) })
    }

    /// Puts host values on a device, keeping their dtype (`bool`s and small integers become
    /// the device's integers).
    ///
    /// # Errors
    ///
    /// If the rank is not one that an [`AnyTensor`] can hold.
    pub fn from_data(data: TensorData, device: &Device) -> Result<Self, RankError> {
        let dtype = data.dtype();
        let rank = data.shape().to_vec().len();
        Ok(match (dtype.is_float(), rank) {
            (true, 1) => Self::Float1(Tensor::from_data(data, (device, dtype))),
            (true, 2) => Self::Float2(Tensor::from_data(data, (device, dtype))),
            (true, 3) => Self::Float3(Tensor::from_data(data, (device, dtype))),
            (true, 4) => Self::Float4(Tensor::from_data(data, (device, dtype))),
            (true, 5) => Self::Float5(Tensor::from_data(data, (device, dtype))),
            (false, 1) => Self::Int1(Tensor::from_data(data, device)),
            (false, 2) => Self::Int2(Tensor::from_data(data, device)),
            (false, 3) => Self::Int3(Tensor::from_data(data, device)),
            _ => {
                return Err(RankError {
                    expected: "a float tensor of rank 1 to 5 or an integer tensor of rank 1 to 3".to_owned(),
                    found: format!("{dtype:?}"),
                    shape: data.shape().to_vec(),
                });
            }
        })
    }

    /// Keeps some positions of one axis. The axis stays, with length 1 for an index.
    ///
    /// # Errors
    ///
    /// If the slice does not fit the axis.
    ///
    /// # Panics
    ///
    /// If there is no axis `axis`.
    pub fn slice_axis(self, axis: usize, slice: &Slice) -> Result<Self, SliceError> {
        if *slice == Slice::All {
            return Ok(self);
        }
        let len = self.shape()[axis];
        Ok(match slice.resolve(len)? {
            Indices::Range(start, stop) => map!(self, t => t.narrow(axis, start, stop - start)),
            Indices::List(list) => {
                let list: Vec<i64> = list.into_iter().map(|index| index as i64).collect();
                map!(self, t => {
                    let indices = Tensor::<1, Int>::from_data(list.as_slice(), &t.device());
                    t.select(axis, indices)
                })
            }
        })
    }

    /// Removes one axis of length 1.
    ///
    /// # Errors
    ///
    /// If no axis would be left.
    ///
    /// # Panics
    ///
    /// If the axis is not of length 1.
    pub fn remove_axis(self, axis: usize) -> Result<Self, RankError> {
        Ok(match self {
            Self::Float2(t) => Self::Float1(t.squeeze_dim(axis)),
            Self::Float3(t) => Self::Float2(t.squeeze_dim(axis)),
            Self::Float4(t) => Self::Float3(t.squeeze_dim(axis)),
            Self::Float5(t) => Self::Float4(t.squeeze_dim(axis)),
            Self::Int2(t) => Self::Int1(t.squeeze_dim(axis)),
            Self::Int3(t) => Self::Int2(t.squeeze_dim(axis)),
            Self::Float1(_) | Self::Int1(_) => {
                return Err(RankError {
                    expected: "a tensor of rank 2 or more".to_owned(),
                    found: self.kind().to_owned(),
                    shape: self.shape(),
                });
            }
        })
    }
}
