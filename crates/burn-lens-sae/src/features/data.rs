//! The data of a feature: what is computed, saved and shown.
//!
//! Everything here is plain numbers and token ids, so that it can be written as JSON, compared
//! and drawn without the model. `docs/feature-data.md` describes the JSON field by field.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use super::{FeatureError, Histogram, Quantiles};

/// The version of the JSON: readers refuse others.
pub const SCHEMA: u32 = 1;

/// Everything that is known of one feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureData {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which feature of the dictionary.
    pub feature: usize,
    /// Its name, where it has one (a probe, a steering vector).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What kind of activations it has.
    pub kind: FeatureKind,
    /// Where and how often it is active.
    pub statistics: FeatureStatistics,
    /// The distribution of its activations, zeros left out.
    pub activations: Histogram,
    /// What it does to the logits by itself; `None` where there is no way from it to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits: Option<LogitEffects>,
    /// The largest weights of its decoder direction, by magnitude.
    pub neuron_alignment: Vec<Aligned>,
    /// The entries of the dictionary's input that it goes with.
    pub correlated_neurons: Vec<Correlated>,
    /// The features of its own dictionary that it goes with.
    pub correlated_features: Vec<Correlated>,
    /// The features of the second dictionary that it goes with.
    pub correlated_b_features: Vec<Correlated>,
    /// The share of its decoder's norm in each head; empty unless it writes to `hook_z`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decoder_head_shares: Vec<f64>,
    /// Where it is active, group by group.
    pub groups: Vec<SequenceGroup>,
}

/// What kind of activations a feature has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// It is never active on these tokens.
    Dead,
    /// It has the same activation, not zero, at every token.
    Constant,
    /// It is active at half of the tokens or more.
    Dense,
    /// It is active at fewer than half of the tokens.
    Sparse,
}

/// Where and how often a feature is active. Only counted tokens: no padding, nothing ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureStatistics {
    /// How many tokens were counted.
    pub n_tokens: u64,
    /// At how many of them it is active (its activation is not zero).
    pub n_active: u64,
    /// At how many of them its activation is NaN or infinite; those count as not active.
    pub n_not_finite: u64,
    /// The largest activation; 0 if it is never active.
    pub max: f32,
    /// The smallest activation that is not zero; 0 if it is never active.
    pub min: f32,
    /// The mean over all tokens, zeros included.
    pub mean: f64,
    /// The root of the mean square over all tokens, zeros included.
    pub root_mean_square: f64,
    /// Of the activations that are not zero.
    pub quantiles: Quantiles,
}

impl FeatureStatistics {
    /// The share of tokens at which it is active.
    #[must_use]
    pub fn density(&self) -> f64 {
        if self.n_tokens == 0 { 0.0 } else { self.n_active as f64 / self.n_tokens as f64 }
    }

    /// The share of all counted tokens whose activation is below `value`.
    #[must_use]
    pub fn quantile_of(&self, value: f32) -> f64 {
        if self.n_tokens == 0 {
            return 0.0;
        }
        let zeros = (self.n_tokens - self.n_active) as f64;
        let below = self.quantiles.share_below(value) * self.n_active as f64;
        (if value > 0.0 { zeros + below } else { below }) / self.n_tokens as f64
    }
}

/// What a feature does to the logits by itself: `(C d_f ⊙ w) W_U`, per unit of activation and of
/// the final norm's scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogitEffects {
    /// The tokens that it makes likelier, strongest first.
    pub top: Vec<TokenValue>,
    /// The tokens that it makes less likely, strongest first.
    pub bottom: Vec<TokenValue>,
    /// The distribution over the vocabulary.
    pub histogram: Histogram,
    /// How many entries are NaN or infinite; those are in none of the above.
    pub n_not_finite: u64,
}

/// A token with a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenValue {
    /// The token.
    pub token: u32,
    /// Its number.
    pub value: f32,
}

/// One weight of a decoder direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aligned {
    /// Which entry.
    pub index: usize,
    /// The weight.
    pub value: f32,
    /// Its magnitude as a share of the sum of magnitudes.
    pub l1_share: f64,
}

/// How two columns of activations go together over all counted tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlated {
    /// Which entry or feature.
    pub index: usize,
    /// `cov(x, y) / (std(x) std(y))`
    pub pearson: f64,
    /// `Σxy / √(Σx² Σy²)`
    pub cosine: f64,
}

/// Some sequences at which a feature is active.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceGroup {
    /// How they were chosen.
    pub kind: GroupKind,
    /// How many active tokens belong to the group.
    pub n_active: u64,
    /// The sequences, strongest first.
    pub sequences: Vec<SequenceData>,
}

/// How the sequences of a group were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GroupKind {
    /// The largest activations.
    Top,
    /// The smallest; only for features with negative activations.
    Bottom,
    /// A sample of the activations in `low..high`; the last interval includes `high`.
    Interval {
        /// The lower end, included.
        low: f32,
        /// The upper end.
        high: f32,
    },
}

impl SequenceGroup {
    /// Its heading: `INTERVAL 0.100 - 0.200, CONTAINS 12.000%`; the share is of the active tokens.
    #[must_use]
    pub fn title(&self, n_active: u64) -> String {
        let share = if n_active == 0 { 0.0 } else { 100.0 * self.n_active as f64 / n_active as f64 };
        let extreme = |pick: fn(f32, f32) -> f32| {
            self.sequences.iter().map(SequenceData::target_activation).reduce(pick).unwrap_or(0.0)
        };
        match self.kind {
            GroupKind::Top => format!("TOP ACTIVATIONS, MAX = {:.3}", extreme(f32::max)),
            GroupKind::Bottom => format!("BOTTOM ACTIVATIONS, MIN = {:.3}", extreme(f32::min)),
            GroupKind::Interval { low, high } => {
                format!("INTERVAL {low:.3} - {high:.3}, CONTAINS {share:.3}%")
            }
        }
    }
}

/// A piece of a prompt around a token at which a feature is active.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SequenceData {
    /// Which prompt.
    pub prompt: usize,
    /// The position of the first token shown.
    pub start: usize,
    /// Which of the tokens shown it was chosen for.
    pub target: usize,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The feature's activation at each token.
    pub activations: Vec<f32>,
    /// What the feature's direction alone does to the logit of each token, per unit of activation;
    /// empty where there is no way to the logits. What is NaN is null in JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_nan")]
    pub logit_effects: Vec<f32>,
    /// At each token, `loss(with the feature) − loss(without)` of predicting it from the token
    /// before: negative where the feature helps. `None` at the first token of a prompt, and where
    /// there is no way to the logits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loss_effects: Vec<Option<f32>>,
    /// At each token, what the feature at the token before does to the prediction of this one;
    /// `None` where it was not active there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hover: Vec<Option<Hover>>,
    /// How many more windows with the same tokens were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeats: u64,
    /// Which positions the feature read its activation from, through attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<SourceAttribution>,
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let values = Vec::<Option<f32>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl SequenceData {
    /// The activation that it was chosen for.
    #[must_use]
    pub fn target_activation(&self) -> f32 {
        self.activations.get(self.target).copied().unwrap_or(0.0)
    }
}

/// Changes of log-probabilities, `log p(with) − log p(without)`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hover {
    /// The tokens made likelier, strongest first.
    pub top: Vec<TokenValue>,
    /// The tokens made less likely, strongest first.
    pub bottom: Vec<TokenValue>,
}

/// Direct feature attribution: `Σ_h pattern[h, target, source] · (v[source, h] · W_enc[h, f])`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceAttribution {
    /// The value for every position of the prompt, up to the target.
    pub values: Vec<f32>,
    /// The position with the largest value.
    pub strongest: usize,
}

/// The data of several features of one dictionary, as one file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureSet {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where the numbers come from.
    pub run: RunInfo,
    /// The tokens that occur, by id.
    pub vocabulary: BTreeMap<u32, TokenText>,
    /// The features, in the order asked for.
    pub features: Vec<FeatureData>,
}

/// Where numbers come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The model.
    pub model: String,
    /// The dictionary.
    pub sae: String,
    /// The second dictionary, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sae_b: Option<String>,
    /// What the dictionary reads.
    pub hook: String,
    /// What it writes.
    pub hook_out: String,
    /// How many features it has.
    pub d_sae: usize,
    /// How many prompts were run.
    pub n_prompts: usize,
    /// How long they are.
    pub n_positions: usize,
    /// How many tokens were counted.
    pub n_tokens: u64,
    /// What the reader should know: parts left out, features that are dead, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A token as text, and as bytes where these are no text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenText {
    /// The text; `U+FFFD` stands where bytes are not UTF-8.
    pub text: String,
    /// The bytes in hexadecimal, where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
}

impl TokenText {
    /// A token of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let text = String::from_utf8_lossy(bytes).into_owned();
        Self { bytes: (text.as_bytes() != bytes).then(hex), text }
    }
}

impl FeatureSet {
    /// As JSON.
    ///
    /// # Errors
    ///
    /// If a number cannot be written.
    pub fn to_json(&self) -> Result<String, FeatureError> {
        serde_json::to_string(self).map_err(|error| format_error(&error))
    }

    /// From JSON of the same [`SCHEMA`].
    ///
    /// # Errors
    ///
    /// If it is something else, or of another version.
    pub fn from_json(text: &str) -> Result<Self, FeatureError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u64,
        }
        let Version { schema: found } = serde_json::from_str(text).map_err(|error| format_error(&error))?;
        if found != u64::from(SCHEMA) {
            return Err(FeatureError::Schema { found, expected: SCHEMA });
        }
        serde_json::from_str(text).map_err(|error| format_error(&error))
    }

    /// The ids of all tokens that the features show, rising.
    #[must_use]
    pub fn token_ids(&self) -> BTreeSet<u32> {
        self.features.iter().flat_map(FeatureData::token_ids).collect()
    }

    /// The text of a token; its id in angle brackets if the vocabulary lacks it.
    #[must_use]
    pub fn text_of(&self, token: u32) -> String {
        self.vocabulary.get(&token).map_or_else(|| format!("<{token}>"), |token| token.text.clone())
    }
}

fn format_error(error: &serde_json::Error) -> FeatureError {
    FeatureError::Format { format: "feature data", what: error.to_string() }
}

impl FeatureData {
    /// The ids of all tokens that it shows.
    pub fn token_ids(&self) -> impl Iterator<Item = u32> + '_ {
        let logits = self.logits.iter().flat_map(|logits| logits.top.iter().chain(&logits.bottom));
        let sequences = self.groups.iter().flat_map(|group| &group.sequences);
        let shown = sequences.flat_map(|sequence| {
            let hover =
                sequence.hover.iter().flatten().flat_map(|hover| hover.top.iter().chain(&hover.bottom));
            sequence.tokens.iter().copied().chain(hover.map(|value| value.token))
        });
        logits.map(|value| value.token).chain(shown)
    }
}
