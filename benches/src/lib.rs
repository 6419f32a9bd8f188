//! What the benchmarks share: models of known shapes, and a forward pass without hooks.

mod plain;

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_lens::{
    models::{HookedTransformer, ModelConfig, architecture_config, random_parameters},
    tensor::{DeviceSpec, FloatType},
};

pub use plain::PlainGpt2;

/// Makes mimalloc keep what is freed, as the command does (`crates/burn-lens-cli/src/allocator.rs`).
pub fn keep_memory() {
    /// `mi_option_purge_delay`: milliseconds, or never where it is negative.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets a number that the allocator reads.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

/// The device under measurement: `BURN_LENS_DEVICE`, or the CPU. Memory is kept from then on ([`keep_memory`]).
///
/// # Panics
///
/// If it cannot be opened.
#[must_use]
pub fn device() -> Device {
    keep_memory();
    let name = std::env::var("BURN_LENS_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let spec: DeviceSpec = name.parse().expect("BURN_LENS_DEVICE names a device");
    spec.open().expect("the device opens")
}

/// The shape of a GPT-2 model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What reports call it.
    pub name: &'static str,
    /// Blocks.
    pub n_layers: usize,
    /// Width of the stream.
    pub d_model: usize,
    /// Heads.
    pub n_heads: usize,
    /// Vocabulary.
    pub d_vocab: usize,
}

/// The shape of GPT-2 small.
pub const GPT2_SMALL: Shape =
    Shape { name: "gpt2-small", n_layers: 12, d_model: 768, n_heads: 12, d_vocab: 50257 };

/// The shape of gelu-1l, whose MLP has 2048 neurons.
pub const GELU_1L: Shape = Shape { name: "gelu-1l", n_layers: 1, d_model: 512, n_heads: 8, d_vocab: 48_262 };

/// A few milliseconds for each pass, where a hook's cost would show.
pub const TINY: Shape = Shape { name: "tiny", n_layers: 4, d_model: 64, n_heads: 4, d_vocab: 512 };

impl Shape {
    /// A model of this shape with random weights, in `f32`.
    ///
    /// # Panics
    ///
    /// Never: the configuration is whole.
    #[must_use]
    pub fn model(self, device: &Device) -> HookedTransformer {
        self.model_in(FloatType::F32, device)
    }

    /// A model of this shape with random weights.
    ///
    /// # Panics
    ///
    /// Never: the configuration is whole.
    #[must_use]
    pub fn model_in(self, dtype: FloatType, device: &Device) -> HookedTransformer {
        let config = self.config();
        let params = random_parameters(&config, 0, device, dtype);
        HookedTransformer::new(config, params).expect("random parameters fit their configuration")
    }

    fn config(self) -> ModelConfig {
        let Self { n_layers, d_model, n_heads, d_vocab, .. } = self;
        let text = format!(
            r#"{{"architectures": ["GPT2LMHeadModel"], "n_layer": {n_layers}, "n_embd": {d_model}, "n_head": {n_heads},
            "vocab_size": {d_vocab}, "n_positions": 1024, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}}"#
        );
        architecture_config(&text).expect("a GPT-2 configuration").1
    }

    /// Random tokens `[batch, pos]`.
    #[must_use]
    pub fn tokens(self, batch: usize, pos: usize, device: &Device) -> Tensor<2, Int> {
        let ids: Vec<i64> = (0..batch * pos).map(|at| (at * 7919 % self.d_vocab) as i64).collect();
        Tensor::from_data(TensorData::new(ids, [batch, pos]), device)
    }
}

/// The most memory that the process has held, in MiB, where the system says so.
#[must_use]
pub fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}
