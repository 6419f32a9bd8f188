//! Mechanistic interpretability of transformers, on burn.
//!
//! Load a checkpoint, run it with a hook on every activation, keep and edit what you like.
//! Names are `TransformerLens`'s, and a familiar name always means the familiar tensor.
//!
//! ```
//! use burn_lens::prelude::*;
//!
//! let lens = burn_lens::from_pretrained(burn_lens::DEMO, &LoadOptions::default())?;
//! let tokens = lens.to_tokens(&["When Mary and John went to the store , John gave a drink to"])?;
//!
//! // Keep what you need …
//! let names = CacheOptions::names(["blocks.*.attn.hook_pattern"]);
//! let (output, cache) = lens.model.run_with_cache(&tokens.input(), &tokens.options(), &names)?;
//! let pattern: Tensor<4> = cache.tensor("pattern0")?; // [batch, n_heads, query_pos, key_pos]
//!
//! // … and see what changes when a head is ablated.
//! let ablate = Hook::edit("blocks.1.attn.hook_z", |z: Tensor<4>, _: &mut HookContext| {
//!     let [batch, pos, _, d_head] = z.dims();
//!     z.slice_fill([0..batch, 0..pos, 0..1, 0..d_head], 0.0)
//! });
//! let ablated = lens.model.run_with_hooks(&tokens.input(), &tokens.options(), vec![ablate])?;
//! # let _ = (output, pattern, ablated);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Everything this crate re-exports can be depended on alone: [`hooks`] (names, hooks, cache),
//! [`analysis`] (the residual stream taken apart, attribution, lenses),
//! [`sae`] (dictionaries of features and what they mean), [`models`] (components, families,
//! weight processing, generation), [`io`] (files, hub,
//! tokenizer), [`tensor`] (devices, dtypes), [`linalg`].

mod demo;
mod error;
mod features;
mod pretrained;
mod sae_files;
mod text;

pub use burn_lens_analysis as analysis;
pub use burn_lens_hooks as hooks;
pub use burn_lens_io as io;
pub use burn_lens_linalg as linalg;
pub use burn_lens_models as models;
pub use burn_lens_sae as sae;
pub use burn_lens_tensor as tensor;

pub use burn;
pub use demo::DEMO;
pub use error::Error;
pub use features::{FeatureFolder, token_texts};
pub use pretrained::{LoadOptions, Pretrained, Process, UnknownProcess, from_pretrained};
pub use sae_files::{load_cross_layer_transcoder, load_crosscoder, load_sae, load_sae_with, save_sae};
pub use text::{Completion, Tokens};

/// What nearly every program needs.
pub mod prelude {
    pub use burn::tensor::{Device, Int, Tensor};
    pub use burn_lens_hooks::{
        ActivationCache, CacheOptions, Hook, HookContext, HookPoint, HookedModel, Input, ReturnType,
        RunOptions, Selector,
    };
    pub use burn_lens_io::{PaddingSide, TokenOptions, Tokenizer};
    pub use burn_lens_models::{
        Control, GenerateOptions, HookedTransformer, ModelConfig, Param, Sampling, processing::Step,
    };
    pub use burn_lens_tensor::{AnyTensor, DeviceSpec, FloatType, Slice};

    pub use crate::{Error, LoadOptions, Pretrained, Process, from_pretrained};
}
