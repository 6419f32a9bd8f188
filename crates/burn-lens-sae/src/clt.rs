//! Cross-layer transcoders: the features of each layer read that layer's stream and write to the MLP
//! outputs of it and of every later one.
//!
//! `a_l = f(x_l W_encₗᵀ + b_enc_l)`, `ŷ_l = b_dec_l + Σ_{k ≤ l} a_k W_dec_k[:, l − k]`.
//! Source: Ameisen et al. (2025), "Circuit Tracing"; the files are those that circuit-tracer reads.

use burn::tensor::Tensor;
use burn_lens_hooks::HookPoint;
use burn_lens_tensor::{WeightError, Weights};

use crate::{
    SaeError, SaeOptions, Settings,
    autoencoder::{along, linear},
    crosscoder::{Stacks, activated},
    features::SparseRows,
    rows,
};

/// A cross-layer transcoder.
#[derive(Clone, Debug)]
pub struct CrossLayerTranscoder {
    name: String,
    model_name: Option<String>,
    /// What it reads and writes, without the block.
    hooks: [String; 2],
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    /// `[d_model, d_sae]`
    w_enc: Tensor<2>,
    /// `[d_sae]`
    b_enc: Tensor<1>,
    /// `[d_sae]`
    threshold: Option<Tensor<1>>,
    /// To this layer and each later one, `[d_sae, d_model]`.
    w_dec: Vec<Tensor<2>>,
    /// `[d_model]`
    b_dec: Tensor<1>,
}

impl CrossLayerTranscoder {
    /// Reads one: for each layer `W_enc_{l} [d_sae, d_model]`, `b_enc_{l}`, `b_dec_{l}`,
    /// `W_dec_{l} [d_sae, layer, d_model]`, whose layers are this one and the later ones, and, if it
    /// is there, `threshold_{l}`; and, of its configuration, `feature_input_hook` and
    /// `feature_output_hook` (`hook_resid_mid` and `hook_mlp_out`, as in circuit-tracer, if not given)
    /// and `model_name`.
    ///
    /// # Errors
    ///
    /// If a weight is missing, surplus or of another shape, or the configuration is of something else.
    pub fn read(
        weights: &mut dyn Weights,
        settings: &Settings,
        options: &SaeOptions,
    ) -> Result<Self, SaeError> {
        /// Its `model_kind`.
        const KIND: &str = "cross_layer_transcoder";
        if let Some(kind) = settings.text("model_kind")?.filter(|kind| *kind != KIND) {
            return Err(settings.wrong("model_kind", &kind.into(), KIND));
        }
        let hook =
            |key: &str, default: &str| Ok::<_, SaeError>(settings.text(key)?.unwrap_or(default).to_owned());
        let hooks =
            [hook("feature_input_hook", "hook_resid_mid")?, hook("feature_output_hook", "hook_mlp_out")?];
        let n_layers = weights.names().iter().filter(|name| name.starts_with("W_enc_")).count();
        if n_layers == 0 {
            weights.get("W_enc_0", &[1, 1])?; // names what is there
        }
        let mut layers = Vec::with_capacity(n_layers);
        for layer in 0..n_layers {
            layers.push(Layer::read(&mut Stacks { weights: &mut *weights, options }, layer, n_layers)?);
        }
        let unread = weights.unread();
        if !unread.is_empty() {
            return Err(WeightError::Surplus { origin: weights.origin(), names: unread }.into());
        }
        let model_name = settings.text("model_name")?.map(str::to_owned);
        let found = Self { name: weights.origin(), model_name, hooks, layers };
        for layer in 0..n_layers {
            found.hook_in(layer)?;
            found.hook_out(layer)?;
        }
        Ok(found)
    }

    /// The model that it is of, if its files say so.
    #[must_use]
    pub fn model_name(&self) -> Option<&str> {
        self.model_name.as_deref()
    }

    /// The activation that a layer's features read.
    ///
    /// # Errors
    ///
    /// If its files name none that exists.
    pub fn hook_in(&self, layer: usize) -> Result<HookPoint, SaeError> {
        self.hook(layer, &self.hooks[0])
    }

    /// The activation of a layer that its features and those of earlier layers write.
    ///
    /// # Errors
    ///
    /// If its files name none that exists.
    pub fn hook_out(&self, layer: usize) -> Result<HookPoint, SaeError> {
        self.hook(layer, &self.hooks[1])
    }

    fn hook(&self, layer: usize, name: &str) -> Result<HookPoint, SaeError> {
        let name = format!("blocks.{layer}.{name}");
        name.parse().map_err(|source| SaeError::Hook { name: self.name.clone(), source })
    }

    /// How many layers it has.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// The activations of one layer's features.
    ///
    /// # Shapes
    ///
    /// - `x`: what the layer reads, `[batch, pos, d_model]`; returns `[batch, pos, d_sae]`
    ///
    /// # Panics
    ///
    /// If there is no such layer.
    #[must_use]
    pub fn encode_dense(&self, layer: usize, x: Tensor<3>) -> Tensor<3> {
        let Layer { w_enc, b_enc, threshold, .. } = &self.layers[layer];
        activated(linear(x, w_enc) + along(b_enc), threshold.as_ref())
    }

    /// The activations of one layer's features, sparse, a row for each position.
    ///
    /// # Errors
    ///
    /// If the device fails.
    ///
    /// # Panics
    ///
    /// If there is no such layer.
    pub fn encode(&self, layer: usize, x: Tensor<3>) -> Result<SparseRows, SaeError> {
        rows::of_dense(self.encode_dense(layer, x))
    }

    /// What the features of every layer write to each layer's MLP output.
    ///
    /// # Shapes
    ///
    /// - `acts`: one for each layer, `[batch, pos, d_sae]`; returns one `[batch, pos, d_model]` for each
    ///
    /// # Panics
    ///
    /// If there are not as many as layers.
    #[must_use]
    pub fn decode_dense(&self, acts: &[Tensor<3>]) -> Vec<Tensor<3>> {
        assert_eq!(acts.len(), self.n_layers(), "activations of each layer");
        let output = |to: usize| {
            let parts = (0..=to).map(|from| linear(acts[from].clone(), &self.layers[from].w_dec[to - from]));
            parts.fold(along(&self.layers[to].b_dec), |sum, part| part + sum)
        };
        (0..self.n_layers()).map(output).collect()
    }

    /// What a feature adds to the MLP output of each layer from its own on, per unit of activation.
    ///
    /// # Shapes
    ///
    /// - returns `[layer, d_model]`
    ///
    /// # Panics
    ///
    /// If there is no such layer or feature.
    #[must_use]
    pub fn directions(&self, layer: usize, feature: usize) -> Tensor<2> {
        let rows = self.layers[layer].w_dec.iter().map(|w| w.clone().narrow(0, feature, 1)).collect();
        Tensor::cat(rows, 0)
    }
}

impl Layer {
    fn read(tensors: &mut Stacks<'_>, layer: usize, n_layers: usize) -> Result<Self, SaeError> {
        let name = |what: &str| format!("{what}_{layer}");
        let shape = tensors.weights.shape(&name("W_enc")).unwrap_or_default();
        let Ok([d_sae, d_model]) = <[usize; 2]>::try_from(shape) else {
            tensors.weights.get(&name("W_enc"), &[1, 1])?; // names its shape
            return Err(SaeError::Device(format!("`{}` is no matrix", name("W_enc"))));
        };
        let n_targets = n_layers - layer;
        let w_dec = tensors.get::<3>(&name("W_dec"), &[d_sae, n_targets, d_model])?;
        let has_threshold = tensors.weights.shape(&name("threshold")).is_some();
        Ok(Self {
            w_enc: tensors.get::<2>(&name("W_enc"), &[d_sae, d_model])?.transpose(),
            b_enc: tensors.get::<1>(&name("b_enc"), &[d_sae])?,
            threshold: if has_threshold {
                Some(tensors.get::<1>(&name("threshold"), &[d_sae])?)
            } else {
                None
            },
            w_dec: (0..n_targets).map(|to| w_dec.clone().narrow(1, to, 1).squeeze_dim(1)).collect(),
            b_dec: tensors.get::<1>(&name("b_dec"), &[d_model])?,
        })
    }
}
