//! The only crate of burn-lens that opens files or sockets.
//!
//! - [`Checkpoint`]: a Hugging Face folder or a single weights file, as a
//!   [`Weights`](burn_lens_tensor::Weights) table; safetensors are memory-mapped and not copied
//! - [`Tokenizer`]: text to token ids and back, with `TransformerLens`'s rules for the BOS token
//! - [`resolve`], [`resolve_dictionary`]: a hub name or a path, to a path (feature `hub`, on by default)
//! - [`DictionaryFiles`]: which files of a folder are a sparse autoencoder
//! - [`read_settings`]: what a user wrote in TOML or JSON; [`read_yaml_texts`]: what others wrote in YAML
//! - [`save_safetensors`], [`read_safetensors`], [`write_atomically`]: results, to disk and back
//! - [`TensorFolder`]: intermediate results that a run leaves behind, each whole or not there
//!
//! Files and servers are not trusted. Whatever bytes they hold, the answer is an [`IoError`]
//! that names the file (and the tensor, where there is one), never a panic; no pickle is
//! executed. Nothing is printed: downloads report through [`HubOptions::progress`].

#![deny(unsafe_code)]

mod checkpoint;
mod dictionary_files;
mod error;
mod hub;
mod saving;
mod settings;
mod tensor_folder;
mod tokenizer;
mod yaml;

pub use checkpoint::{Access, Checkpoint, torch_values};
pub use dictionary_files::DictionaryFiles;
pub use error::IoError;
pub use hub::{DownloadProgress, HubOptions, resolve, resolve_dictionary};
pub use saving::{read_safetensors, safetensors_from_bytes, save_safetensors, write_atomically};
pub use settings::read_settings;
pub use tensor_folder::{TensorFolder, create_folder, read_gzip, read_text, write_gzip};
pub use tokenizer::{
    Occurrence, PaddingSide, StrToken, TokenBatch, TokenInput, TokenOptions, TokenRef, Tokenizer,
};
pub use yaml::read_yaml_texts;
