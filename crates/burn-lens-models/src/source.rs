//! Where a parameter lies in a checkpoint, as data: a tensor's name and its layout there.

use burn::tensor::{Device, Tensor};
use burn_lens_tensor::{AnyTensor, FloatType, WeightError, Weights, computes, numeric};

use crate::{ModelConfig, ModelError, Param, Parameters, families::Architecture};

/// A parameter's place in a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The tensor's name there.
    pub name: String,
    /// How it is laid out there.
    pub layout: Layout,
}

/// How a checkpoint lays out what we hold as `[in, out]` (or a vector).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// As we do.
    Same,
    /// `[out, in]`, as torch's Linear.
    Transposed,
    /// Rows (or entries) `start..` of a fused `[total, in]` tensor, transposed.
    FusedRows {
        /// First row.
        start: usize,
        /// Rows of the fused tensor.
        total: usize,
    },
    /// Columns (or entries) `start..` of a fused `[in, total]` tensor.
    FusedColumns {
        /// First column.
        start: usize,
        /// Columns of the fused tensor.
        total: usize,
    },
    /// Part `part` of 3 in a fused `[heads · 3 · d_head, in]` tensor, transposed.
    Interleaved {
        /// 0 query, 1 key, 2 value.
        part: usize,
        /// Number of heads.
        heads: usize,
    },
    /// `[heads, in, d_head]` (or `[heads, d_head]`), as TransformerLens's `W_Q`.
    Heads {
        /// Number of heads.
        heads: usize,
    },
    /// `[heads, d_head, out]`, as TransformerLens's `W_O`.
    HeadsOut {
        /// Number of heads.
        heads: usize,
    },
    /// As we do, behind `skip` rows that are not used.
    SkipRows {
        /// How many.
        skip: usize,
    },
    /// As we do, less 1 (Gemma's norms).
    MinusOne,
    /// As we do, to be multiplied by a factor (Gemma's embedding).
    Scaled(f64),
}

impl Source {
    /// Stored as we hold it.
    pub fn same(name: impl Into<String>) -> Self {
        Self { name: name.into(), layout: Layout::Same }
    }

    /// Stored as torch's Linear stores its weight.
    pub fn linear(name: impl Into<String>) -> Self {
        Self { name: name.into(), layout: Layout::Transposed }
    }

    /// Stored with another layout.
    pub fn with(name: impl Into<String>, layout: Layout) -> Self {
        Self { name: name.into(), layout }
    }
}

impl Layout {
    /// The shape in the checkpoint of a parameter that we hold in `shape`.
    #[must_use]
    pub fn stored_shape(self, shape: &[usize]) -> Vec<usize> {
        let vector = shape.len() == 1;
        let (rows, cols) = (shape[0], *shape.last().unwrap_or(&0));
        match self {
            Self::Same | Self::MinusOne | Self::Scaled(_) => shape.to_vec(),
            Self::Transposed => shape.iter().rev().copied().collect(),
            Self::FusedRows { total, .. } | Self::FusedColumns { total, .. } if vector => vec![total],
            Self::FusedRows { total, .. } => vec![total, rows],
            Self::FusedColumns { total, .. } => vec![rows, total],
            Self::Interleaved { .. } if vector => vec![3 * rows],
            Self::Interleaved { .. } => vec![3 * cols, rows],
            Self::Heads { heads } if vector => vec![heads, rows / heads],
            Self::Heads { heads } => vec![heads, rows, cols / heads],
            Self::HeadsOut { heads } => vec![heads, rows / heads, cols],
            Self::SkipRows { skip } => vec![rows + skip, cols],
        }
    }

    /// Brings the stored tensor into our layout.
    fn vector(self, stored: AnyTensor, len: usize) -> Result<Tensor<1>, burn_lens_tensor::RankError> {
        if let Self::Heads { .. } = self {
            return Ok(Tensor::<2>::try_from(stored)?.reshape([len]));
        }
        let x = Tensor::<1>::try_from(stored)?;
        Ok(match self {
            Self::FusedRows { start, .. } | Self::FusedColumns { start, .. } => x.narrow(0, start, len),
            Self::Interleaved { part, heads } => {
                x.reshape([heads, 3, len / heads]).narrow(1, part, 1).reshape([len])
            }
            Self::MinusOne => x + 1.0,
            Self::Scaled(factor) => x * factor,
            _ => x,
        })
    }

    fn matrix(
        self,
        stored: AnyTensor,
        [rows, cols]: [usize; 2],
    ) -> Result<Tensor<2>, burn_lens_tensor::RankError> {
        match self {
            Self::Heads { .. } => {
                let x = Tensor::<3>::try_from(stored)?;
                return Ok(x.permute([1, 0, 2]).reshape([rows, cols]));
            }
            Self::HeadsOut { .. } => return Ok(Tensor::<3>::try_from(stored)?.reshape([rows, cols])),
            _ => {}
        }
        let x = Tensor::<2>::try_from(stored)?;
        Ok(match self {
            Self::Transposed => numeric::contiguous(x.transpose()),
            Self::FusedRows { start, .. } => numeric::contiguous(x.narrow(0, start, cols).transpose()),
            Self::FusedColumns { start, .. } => numeric::contiguous(x.narrow(1, start, cols)),
            Self::Interleaved { part, heads } => {
                let x = x.reshape([heads, 3, cols / heads, rows]).narrow(1, part, 1).reshape([cols, rows]);
                numeric::contiguous(x.transpose())
            }
            Self::SkipRows { skip } => x.narrow(0, skip, rows),
            Self::MinusOne => x + 1.0,
            Self::Scaled(factor) => x * factor,
            _ => x,
        })
    }
}

/// Reads every parameter of a model, one tensor at a time, in `dtype` on `device`.
///
/// A tied unembedding is a view of the embedding and takes no memory of its own.
///
/// # Errors
///
/// If a tensor is missing, of another shape, unreadable or holds NaN, or the checkpoint has
/// tensors left that this architecture does not use.
pub fn load_parameters(
    architecture: &dyn Architecture,
    config: &ModelConfig,
    weights: &mut dyn Weights,
    dtype: FloatType,
    device: &Device,
) -> Result<Parameters, ModelError> {
    let mut params = Parameters::default();
    let embed = architecture.source(config, Param::Embed);
    let names = weights.names();
    for param in config.params() {
        let source = architecture.source(config, param);
        if param == Param::WU && source.name == embed.name && embed.layout == Layout::Same {
            params.insert(param, params.get::<2>(Param::Embed)?.transpose());
            continue;
        }
        let name = architecture.stored_name(&source.name, &names);
        let shape = param.shape(&config.dims());
        let data = weights.get(&name, &source.layout.stored_shape(&shape))?;
        let found = data.dtype();
        let Some(stored_as) = FloatType::from_dtype(found) else {
            let (origin, found) = (weights.origin(), format!("{found:?}"));
            return Err(WeightError::Dtype { name, origin, found }.into());
        };
        let rank = |source| ModelError::ParamRank { param, source };
        // Arithmetic on weights happens before they are rounded to half precision.
        let computed = matches!(source.layout, Layout::MinusOne | Layout::Scaled(_));
        let wanted = if computed { dtype.accumulator() } else { dtype };
        // What the device cannot hold as the file has it, such as `bf16`, is converted on the host.
        let data = if computes(device, stored_as) { data } else { data.convert_dtype(wanted.dtype()) };
        let stored = AnyTensor::from_data(data, device).map_err(rank)?.cast(wanted);
        if let [rows, cols] = shape[..] {
            let matrix = source.layout.matrix(stored, [rows, cols]).map_err(rank)?;
            params.insert(param, AnyTensor::from(matrix).cast(dtype));
        } else {
            let vector = source.layout.vector(stored, shape[0]).map_err(rank)?;
            params.insert(param, AnyTensor::from(vector).cast(dtype));
        }
    }
    let surplus: Vec<String> =
        weights.unread().into_iter().filter(|name| !architecture.ignores(config, name)).collect();
    if !surplus.is_empty() {
        return Err(WeightError::Surplus { origin: weights.origin(), names: surplus }.into());
    }
    Ok(params)
}
