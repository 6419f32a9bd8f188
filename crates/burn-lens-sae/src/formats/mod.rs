//! The formats that dictionaries come in, a file each. [`SAE_FORMATS`] is the only list of them.

mod dictionary_learning;
mod gemma_scope;
mod llama_scope;
mod openai;
mod original;
mod sae_lens;
mod sparsify;

use burn_lens_hooks::HookPoint;
use burn_lens_tensor::Weights;

use crate::{SaeError, SaeOptions, Settings, SparseAutoencoder, Whitening, draft::Draft};

/// What was found of a dictionary.
pub struct SaeFiles<'w> {
    /// The folder or file, for messages.
    pub origin: String,
    /// Its configuration, if there is one.
    pub config: Option<Settings>,
    /// Its weights; the path that they are from can say which hook they are for.
    pub weights: &'w mut dyn Weights,
    /// The whitening of its inputs, if there is a file of it.
    pub whitening: Option<Whitening>,
}

/// A format of dictionaries.
pub struct SaeFormat {
    /// What it is called.
    pub name: &'static str,
    /// The files that it consists of.
    pub files: &'static str,
    /// Whether files are of this format.
    recognises: fn(&SaeFiles<'_>) -> bool,
    draft: fn(&mut SaeFiles<'_>, &SaeOptions) -> Result<Draft, SaeError>,
}

/// Every format that is read, the surest first.
pub static SAE_FORMATS: &[&SaeFormat] = &[
    &sparsify::SPARSIFY,
    &dictionary_learning::DICTIONARY_LEARNING,
    &llama_scope::LLAMA_SCOPE,
    &openai::OPENAI,
    &gemma_scope::GEMMA_SCOPE,
    &original::ORIGINAL,
    &sae_lens::SAE_LENS,
];

/// The format of some files.
///
/// # Errors
///
/// If none fits.
pub fn recognised(files: &SaeFiles<'_>) -> Result<&'static SaeFormat, SaeError> {
    const MOST: usize = 8;
    SAE_FORMATS.iter().copied().find(|format| (format.recognises)(files)).ok_or_else(|| {
        SaeError::UnknownFormat {
            origin: files.origin.clone(),
            formats: SAE_FORMATS.iter().map(|format| format.name.to_owned()).collect(),
            tensors: files.weights.names().into_iter().take(MOST).collect(),
        }
    })
}

/// Reads a dictionary in any of the formats.
///
/// # Errors
///
/// If the format is not recognised, or a setting or weight is missing, surplus or wrong.
pub fn read_sae(
    mut files: SaeFiles<'_>,
    options: &SaeOptions,
) -> Result<Box<dyn SparseAutoencoder>, SaeError> {
    let format = recognised(&files)?;
    let mut draft = (format.draft)(&mut files, options)?;
    draft.config.metadata.entry("format").or_insert_with(|| format.name.into());
    draft.build(files.weights, options, files.whitening.as_ref())
}

impl SaeFiles<'_> {
    fn has(&self, tensor: &str) -> bool {
        self.weights.shape(tensor).is_some()
    }

    fn has_all(&self, tensors: &[&str]) -> bool {
        tensors.iter().all(|tensor| self.has(tensor))
    }

    fn says(&self, keys: &[&str]) -> bool {
        self.config.as_ref().is_some_and(|config| keys.iter().all(|key| config.has(key)))
    }

    /// The configuration, which `recognises` has seen.
    fn config(&self) -> Result<&Settings, SaeError> {
        self.config.as_ref().ok_or_else(|| SaeError::Untold {
            origin: self.origin.clone(),
            what: "what it is",
            how: "its configuration file is missing",
        })
    }

    /// The two sizes of a matrix.
    fn sizes(&self, tensor: &str) -> Result<[usize; 2], SaeError> {
        let shape = self.weights.shape(tensor).unwrap_or_default();
        <[usize; 2]>::try_from(shape.clone()).map_err(|_| {
            burn_lens_tensor::WeightError::Shape {
                name: tensor.to_owned(),
                origin: self.weights.origin(),
                expected: vec![0, 0],
                found: shape,
            }
            .into()
        })
    }

    /// The parts of the path of the weights, lower-case, last first.
    fn path_parts(&self) -> Vec<String> {
        self.weights.origin().split(['/', '\\']).rev().map(str::to_lowercase).collect()
    }

    /// The first number behind one of `marks` in a path, from the end.
    fn layer_in_path(&self, marks: &[&str]) -> Option<usize> {
        self.path_parts().iter().find_map(|part| marks.iter().find_map(|mark| number_behind(part, mark)))
    }
}

/// The number right behind the first occurrence of `mark` that one follows.
fn number_behind(text: &str, mark: &str) -> Option<usize> {
    text.match_indices(mark).find_map(|(at, mark)| {
        let digits: String = text[at + mark.len()..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

/// A hook's name, where its layer is known.
fn named(hook: impl Fn(usize) -> HookPoint, layer: Option<usize>) -> Option<String> {
    layer.map(|layer| hook(layer).to_string())
}
