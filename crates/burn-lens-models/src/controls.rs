//! Controls: the same architecture with weights that learnt nothing.

use std::{fmt, str::FromStr};

use burn::tensor::{Device, Tensor, TensorData};
use burn_lens_tensor::{AnyTensor, FloatType};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::{ModelConfig, ModelError, Param, Parameters};

/// What to replace trained weights by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Control {
    /// Nothing: the trained weights.
    #[default]
    Trained,
    /// A fresh initialisation, as before training.
    Random,
    /// Each tensor's own values in a random order: same distribution, no structure.
    Shuffled,
}

impl Control {
    /// Replaces the weights. Each tensor draws from its own stream, so results do not depend
    /// on the order of loading.
    ///
    /// # Errors
    ///
    /// If a weight cannot be read from its device.
    pub fn apply(
        self,
        config: &ModelConfig,
        params: Parameters,
        seed: u64,
    ) -> Result<Parameters, ModelError> {
        match self {
            Self::Trained => Ok(params),
            Self::Random => {
                let Some((_, first)) = params.iter().next() else { return Ok(params) };
                let (device, dtype) = (first.device(), params.dtype()?);
                let dtype = FloatType::from_dtype(dtype).unwrap_or_default();
                Ok(random_parameters(config, seed, &device, dtype))
            }
            Self::Shuffled => params.iter().map(|(param, tensor)| shuffled(param, tensor, seed)).collect(),
        }
    }
}

fn stream(seed: u64, param: Param) -> ChaCha8Rng {
    // FNV-1a of the name: a stream that stays the same when parameters are added.
    let hash = param.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(hash);
    rng
}

fn shuffled(param: Param, tensor: &AnyTensor, seed: u64) -> Result<(Param, AnyTensor), ModelError> {
    let (device, dtype, shape) = (tensor.device(), tensor.dtype(), tensor.shape());
    let data = tensor.clone().into_data().map_err(burn_lens_hooks::RunError::from)?;
    let mut values: Vec<f64> = data.iter::<f64>().collect();
    values.shuffle(&mut stream(seed, param));
    let data = TensorData::new(values, shape).convert_dtype(dtype);
    let tensor =
        AnyTensor::from_data(data, &device).map_err(|source| ModelError::ParamRank { param, source })?;
    Ok((param, tensor))
}

/// Fresh weights: matrices normal with standard deviation `0.8 / sqrt(d_model)` (as
/// TransformerLens's `gpt2` initialisation), norm weights 1, biases 0.
#[must_use]
pub fn random_parameters(config: &ModelConfig, seed: u64, device: &Device, dtype: FloatType) -> Parameters {
    let deviation = 0.8 / (config.d_model as f64).sqrt();
    let draw = |param: Param| -> (Param, AnyTensor) {
        let shape = param.shape(&config.dims());
        let tensor = if let [rows, cols] = shape[..] {
            let mut rng = stream(seed, param);
            let normal = Normal::new(0.0, deviation).ok(); // none only for a deviation that is not finite
            let values = (0..rows * cols).map(|_| normal.map_or(0.0, |normal| normal.sample(&mut rng)));
            // In the type that is kept, so that a large matrix is not held twice.
            let data = match dtype {
                FloatType::F64 => TensorData::new(values.collect::<Vec<f64>>(), [rows, cols]),
                _ => TensorData::new(values.map(|value| value as f32).collect(), [rows, cols]),
            };
            Tensor::<2>::from_data(data, (device, dtype.dtype())).into()
        } else {
            let ones = matches!(
                param,
                Param::EmbedLnW
                    | Param::LnFinalW
                    | Param::Ln1W(_)
                    | Param::Ln1PostW(_)
                    | Param::Ln2W(_)
                    | Param::Ln2PostW(_)
                    | Param::MlpLnW(_)
                    | Param::QNorm(_)
                    | Param::KNorm(_)
            );
            let zeros = Tensor::<1>::zeros([shape[0]], (device, dtype.dtype()));
            AnyTensor::from(if ones { zeros + 1.0 } else { zeros })
        };
        (param, tensor)
    };
    config.params().into_iter().map(draw).collect()
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Trained => "trained",
            Self::Random => "random",
            Self::Shuffled => "shuffled",
        })
    }
}

/// A name that is not a control's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown control `{0}`: expected trained, random or shuffled")]
pub struct UnknownControl(pub String);

impl FromStr for Control {
    type Err = UnknownControl;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Trained, Self::Random, Self::Shuffled]
            .into_iter()
            .find(|control| control.to_string() == name)
            .ok_or_else(|| UnknownControl(name.to_owned()))
    }
}
