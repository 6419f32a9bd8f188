//! A Hugging Face `config.json`, which remembers what was read of it.
//!
//! A key that a family neither reads nor knowingly ignores is an error: no silently wrong model.

use std::{cell::RefCell, collections::BTreeSet};

use serde_json::{Map, Value};

use crate::{ModelError, components::ActFn};

/// Keys that say nothing about what the model computes at inference: provenance, training,
/// generation defaults, labels of other heads.
const IGNORED: &[&str] = &[
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "classifier_dropout",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "embed_dropout",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "init_std",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "layerdrop",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "_num_labels",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "max_sequence_length",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_dropout",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "rotary_emb_interleaved",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "transformers.js_config",
    "typical_p",
    "unsloth_version",
    "unsloth_fixed",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
];

/// A configuration, key by key.
#[derive(Debug)]
pub struct HfConfig {
    map: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    pub(crate) architecture: String,
}

impl HfConfig {
    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// If it is not a JSON object, or names no class.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let map: Map<String, Value> = serde_json::from_str(text)?;
        let first = map.get("architectures").and_then(|list| list.get(0));
        let architecture = first
            .or_else(|| map.get("architecture"))
            .and_then(Value::as_str)
            .ok_or(ModelError::NoArchitecture)?
            .to_owned();
        let read = RefCell::new(BTreeSet::from(["architecture".to_owned()]));
        Ok(Self { map, read, architecture })
    }

    /// The class that it names.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The value under `key`, marked as read; JSON's null counts as absent.
    fn value(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| bad(key, expected, value))
    }

    fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T, ModelError> {
        value.ok_or_else(|| ModelError::MissingKey {
            key: key.to_owned(),
            architecture: self.architecture.clone(),
        })
    }

    /// A whole number, if given.
    ///
    /// # Errors
    ///
    /// If the value is something else.
    pub fn find_usize(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.typed(key, "a whole number", |value| usize::try_from(value.as_u64()?).ok())
    }

    /// A size: a whole number from 1 to 2³¹.
    ///
    /// # Errors
    ///
    /// If it is missing, or not such a number.
    pub fn size(&self, key: &str) -> Result<usize, ModelError> {
        let size = self.find_size(key)?;
        self.needed(key, size)
    }

    /// A size, if given.
    ///
    /// # Errors
    ///
    /// If the value is something else.
    pub fn find_size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.typed(key, "a whole number from 1 to 2147483648", |value| {
            usize::try_from(value.as_u64()?).ok().filter(|&size| (1..=1 << 31).contains(&size))
        })
    }

    /// A number of layers: a size of at most 100,000, since lists are made of that length.
    ///
    /// # Errors
    ///
    /// If it is missing, or not such a number.
    pub fn layers(&self, key: &str) -> Result<usize, ModelError> {
        const MOST: usize = 100_000;
        let layers = self.size(key)?;
        if layers > MOST {
            return Err(ModelError::BadValue {
                key: key.to_owned(),
                expected: format!("at most {MOST} layers"),
                found: layers.to_string(),
            });
        }
        Ok(layers)
    }

    /// A number.
    ///
    /// # Errors
    ///
    /// If it is missing or no number.
    pub fn f64(&self, key: &str) -> Result<f64, ModelError> {
        let value = self.find_f64(key)?;
        self.needed(key, value)
    }

    /// A number, if given.
    ///
    /// # Errors
    ///
    /// If the value is something else.
    pub fn find_f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// True or false, if given.
    ///
    /// # Errors
    ///
    /// If the value is something else.
    pub fn find_bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// True or false.
    ///
    /// # Errors
    ///
    /// If the value is something else.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        Ok(self.find_bool(key)?.unwrap_or(default))
    }

    /// A text, if given.
    ///
    /// # Errors
    ///
    /// If the value is something else.
    pub fn find_str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| bad(key, "a text", value))
    }

    /// A list of texts, if given.
    ///
    /// # Errors
    ///
    /// If the value is something else.
    pub fn find_list(&self, key: &str) -> Result<Option<Vec<String>>, ModelError> {
        self.typed(key, "a list of texts", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    /// The activation function under `key`.
    ///
    /// # Errors
    ///
    /// If it is missing or unknown.
    pub fn act_fn(&self, key: &str) -> Result<ActFn, ModelError> {
        let name = self.find_str(key)?;
        let name = self.needed(key, name)?;
        name.parse().map_err(|error| ModelError::Unsupported {
            key: key.to_owned(),
            value: name.to_owned(),
            reason: format!("{error}"),
        })
    }

    /// Refuses any value of `key` but `allowed`, which is also what its absence means.
    ///
    /// # Errors
    ///
    /// If there is another value.
    pub fn only(&self, key: &str, allowed: bool, reason: &str) -> Result<(), ModelError> {
        match self.find_bool(key)? {
            Some(value) if value != allowed => Err(ModelError::Unsupported {
                key: key.to_owned(),
                value: value.to_string(),
                reason: reason.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether `key` is there, be it null.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Marks keys that this family knowingly ignores.
    pub fn ignore(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|&key| key.to_owned()));
    }

    /// Fails if a key was neither read nor ignored.
    ///
    /// # Errors
    ///
    /// Names those keys.
    pub fn check_all_read(&self) -> Result<(), ModelError> {
        let read = self.read.borrow();
        let known = |key: &&String| read.contains(*key) || IGNORED.contains(&key.as_str());
        let keys: Vec<String> = self.map.keys().filter(|key| !known(key)).cloned().collect();
        if keys.is_empty() {
            return Ok(());
        }
        Err(ModelError::UnreadKeys { architecture: self.architecture.clone(), keys })
    }

    /// GPT-Neo's `attention_types`, such as `[[["global", "local"], 6]]`, written out.
    ///
    /// # Errors
    ///
    /// If it is missing or of another form.
    pub fn expanded_attention_types(&self) -> Result<Vec<String>, ModelError> {
        const MOST: usize = 100_000;
        let expand = |value: &Value| {
            let mut kinds = Vec::new();
            for group in value.as_array()? {
                let names = group.get(0)?.as_array()?;
                let names: Vec<&str> = names.iter().map(Value::as_str).collect::<Option<_>>()?;
                let times = usize::try_from(group.get(1)?.as_u64()?).ok()?;
                if kinds.len() + times.checked_mul(names.len())? > MOST {
                    return None;
                }
                for _ in 0..times {
                    kinds.extend(names.iter().map(|&name| name.to_owned()));
                }
            }
            Some(kinds)
        };
        let kinds = self.typed("attention_types", "a list of [[kinds], times]", expand)?;
        self.needed("attention_types", kinds)
    }

    /// The window of each layer: `layer_types` where given, else `slides(layer)`.
    ///
    /// # Errors
    ///
    /// If `layer_types` has another length or unknown entries.
    pub fn windows(
        &self,
        n_layers: usize,
        window: Option<usize>,
        slides: impl Fn(usize) -> bool,
    ) -> Result<Vec<Option<usize>>, ModelError> {
        let types = self.find_list("layer_types")?;
        let Some(window) = window else { return Ok(vec![None; n_layers]) };
        let Some(types) = types else {
            return Ok((0..n_layers).map(|layer| slides(layer).then_some(window)).collect());
        };
        if types.len() != n_layers {
            return Err(ModelError::BadValue {
                key: "layer_types".to_owned(),
                expected: format!("a list of {n_layers}"),
                found: format!("a list of {}", types.len()),
            });
        }
        types
            .into_iter()
            .map(|kind| match kind.as_str() {
                "sliding_attention" => Ok(Some(window)),
                "full_attention" => Ok(None),
                _ => Err(ModelError::Unsupported {
                    key: "layer_types".to_owned(),
                    value: kind,
                    reason: "only full_attention and sliding_attention are known".to_owned(),
                }),
            })
            .collect()
    }

    pub(crate) fn nested(&self, key: &str) -> Result<Option<Map<String, Value>>, ModelError> {
        self.typed(key, "an object", |value| value.as_object().cloned())
    }
}

pub(crate) fn bad(key: &str, expected: &str, found: &Value) -> ModelError {
    let mut found = found.to_string();
    if found.chars().count() > 60 {
        found = format!("{}…", found.chars().take(60).collect::<String>());
    }
    ModelError::BadValue { key: key.to_owned(), expected: expected.to_owned(), found }
}
