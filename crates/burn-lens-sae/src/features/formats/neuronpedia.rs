//! What Neuronpedia takes: `batch-N.json` as SAEDashboard's runner writes it, and the lines of
//! the bulk import's `features/` and `activations/`.
//!
//! Better than there: densities in full precision, intervals as numbers and not parsed back out of
//! their titles, loss effects and hover tables where there were zeros.

use serde::{Deserialize, Serialize};

use crate::features::{
    Correlated, FeatureData, FeatureError, FeatureSet, GroupKind, SequenceData, TokenValue,
};

/// `batch-N.json`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are Neuronpedia's own, by its names")]
pub struct Batch {
    pub model_id: String,
    pub layer: usize,
    pub sae_set: String,
    pub sae_id_suffix: Option<String>,
    pub features: Vec<Feature>,
}

/// A feature of [`Batch`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Neuronpedia's own, by its names")]
pub struct Feature {
    pub feature_index: usize,
    pub neuron_alignment_indices: Vec<usize>,
    pub neuron_alignment_values: Vec<f32>,
    pub neuron_alignment_l1: Vec<f64>,
    pub correlated_neurons_indices: Vec<usize>,
    pub correlated_neurons_pearson: Vec<f64>,
    /// The cosine, whatever the name says.
    pub correlated_neurons_l1: Vec<f64>,
    pub correlated_features_indices: Vec<usize>,
    pub correlated_features_pearson: Vec<f64>,
    /// The cosine, whatever the name says.
    pub correlated_features_l1: Vec<f64>,
    pub neg_str: Vec<String>,
    pub neg_values: Vec<f32>,
    pub pos_str: Vec<String>,
    pub pos_values: Vec<f32>,
    pub frac_nonzero: f64,
    pub freq_hist_data_bar_values: Vec<f64>,
    pub freq_hist_data_bar_heights: Vec<f64>,
    pub logits_hist_data_bar_heights: Vec<f64>,
    pub logits_hist_data_bar_values: Vec<f64>,
    pub n_prompts_total: usize,
    pub n_tokens_in_prompt: usize,
    pub dataset: String,
    pub decoder_weights_dist: Vec<f64>,
    pub activations: Vec<Activation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vector: Vec<f32>,
}

/// A sequence of [`Feature`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are Neuronpedia's own, by its names")]
pub struct Activation {
    /// -1 in the top group.
    pub bin_min: f64,
    /// The largest activation in the top group.
    pub bin_max: f64,
    /// The share of the active tokens; -1 in the top group.
    pub bin_contains: f64,
    pub tokens: Vec<String>,
    pub values: Vec<f32>,
    pub qualifying_token_index: usize,
    #[serde(default, rename = "dfa_values", skip_serializing_if = "Option::is_none")]
    pub dfa_values: Option<Vec<f32>>,
    #[serde(default, rename = "dfa_maxValue", skip_serializing_if = "Option::is_none")]
    pub dfa_max_value: Option<f32>,
    #[serde(default, rename = "dfa_targetIndex", skip_serializing_if = "Option::is_none")]
    pub dfa_target_index: Option<usize>,
}

/// How Neuronpedia calls what features are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Neuronpedia's name of the model.
    pub model_id: String,
    /// The layer.
    pub layer: usize,
    /// The set of dictionaries, such as `res-jb`.
    pub sae_set: String,
    /// What is appended to the set, if anything.
    pub suffix: Option<String>,
    /// The data set that the tokens are of.
    pub dataset: String,
    /// The user who uploads.
    pub creator_id: String,
    /// When, in ISO 8601; the same for every line, so that files can be compared.
    pub created_at: String,
}

impl Source {
    /// `5-res-jb` or `5-res-jb__suffix`.
    #[must_use]
    pub fn id(&self) -> String {
        let suffix = self.suffix.as_ref().map(|suffix| format!("__{suffix}")).unwrap_or_default();
        format!("{}-{}{suffix}", self.layer, self.sae_set)
    }
}

impl Batch {
    /// Features as SAEDashboard's runner writes them.
    #[must_use]
    pub fn of(set: &FeatureSet, source: &Source) -> Self {
        Self {
            model_id: source.model_id.clone(),
            layer: source.layer,
            sae_set: source.sae_set.clone(),
            sae_id_suffix: source.suffix.clone(),
            features: set.features.iter().map(|data| feature(set, data, source)).collect(),
        }
    }

    /// From JSON.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn from_json(text: &str) -> Result<Self, FeatureError> {
        serde_json::from_str(text).map_err(|error| super::wrong("batch of Neuronpedia", &error))
    }

    /// As JSON.
    ///
    /// # Errors
    ///
    /// If a number cannot be written.
    pub fn to_json(&self) -> Result<String, FeatureError> {
        serde_json::to_string(self).map_err(|error| super::wrong("batch of Neuronpedia", &error))
    }
}

fn feature(set: &FeatureSet, data: &FeatureData, source: &Source) -> Feature {
    let logits = data.logits.as_ref();
    let texts = |values: &[TokenValue]| values.iter().map(|value| set.text_of(value.token)).collect();
    let values = |values: &[TokenValue]| values.iter().map(|value| value.value).collect();
    let (top, bottom) = logits.map_or((&[][..], &[][..]), |logits| (&logits.top[..], &logits.bottom[..]));
    let heights = |heights: &[u64]| heights.iter().map(|&height| height as f64).collect();
    let indices = |pairs: &[Correlated]| pairs.iter().map(|pair| pair.index).collect();
    let pearson = |pairs: &[Correlated]| pairs.iter().map(|pair| pair.pearson).collect();
    let cosine = |pairs: &[Correlated]| pairs.iter().map(|pair| pair.cosine).collect();
    Feature {
        feature_index: data.feature,
        neuron_alignment_indices: data.neuron_alignment.iter().map(|aligned| aligned.index).collect(),
        neuron_alignment_values: data.neuron_alignment.iter().map(|aligned| aligned.value).collect(),
        neuron_alignment_l1: data.neuron_alignment.iter().map(|aligned| aligned.l1_share).collect(),
        correlated_neurons_indices: indices(&data.correlated_neurons),
        correlated_neurons_pearson: pearson(&data.correlated_neurons),
        correlated_neurons_l1: cosine(&data.correlated_neurons),
        correlated_features_indices: indices(&data.correlated_features),
        correlated_features_pearson: pearson(&data.correlated_features),
        correlated_features_l1: cosine(&data.correlated_features),
        neg_str: texts(bottom),
        neg_values: values(bottom),
        pos_str: texts(top),
        pos_values: values(top),
        frac_nonzero: data.statistics.density(),
        freq_hist_data_bar_values: data.activations.bar_values(),
        freq_hist_data_bar_heights: heights(&data.activations.heights),
        logits_hist_data_bar_heights: logits
            .map_or_else(Vec::new, |logits| heights(&logits.histogram.heights)),
        logits_hist_data_bar_values: logits.map_or_else(Vec::new, |logits| logits.histogram.bar_values()),
        n_prompts_total: set.run.n_prompts,
        n_tokens_in_prompt: set.run.n_positions,
        dataset: source.dataset.clone(),
        decoder_weights_dist: data.decoder_head_shares.clone(),
        activations: sequences(set, data).map(|(activation, _)| activation).collect(),
        vector: Vec::new(),
    }
}

/// The sequences of a feature, with what they were made of.
fn sequences<'a>(
    set: &'a FeatureSet,
    data: &'a FeatureData,
) -> impl Iterator<Item = (Activation, &'a SequenceData)> {
    data.groups.iter().flat_map(move |group| {
        let share = group.n_active as f64 / (data.statistics.n_active as f64).max(1.0);
        let [bin_min, bin_max, bin_contains] = match group.kind {
            GroupKind::Interval { low, high } => [f64::from(low), f64::from(high), share],
            GroupKind::Top => [-1.0, f64::from(data.statistics.max), -1.0],
            GroupKind::Bottom => [f64::from(data.statistics.min), -1.0, -1.0],
        };
        group.sequences.iter().map(move |sequence| {
            let attribution = sequence.attribution.as_ref();
            let activation = Activation {
                bin_min,
                bin_max,
                bin_contains,
                tokens: sequence.tokens.iter().map(|&token| set.text_of(token)).collect(),
                values: sequence.activations.clone(),
                qualifying_token_index: sequence.target,
                dfa_values: attribution.map(|attribution| shown(&attribution.values, sequence)),
                dfa_max_value: attribution.and_then(|found| found.values.get(found.strongest).copied()),
                dfa_target_index: attribution.map(|_| sequence.target),
            };
            (activation, sequence)
        })
    })
}

/// The attributions of the tokens shown; 0 behind the target.
fn shown(values: &[f32], sequence: &SequenceData) -> Vec<f32> {
    (0..sequence.tokens.len()).map(|at| values.get(sequence.start + at).copied().unwrap_or(0.0)).collect()
}

/// A line of the bulk import's `features/batch-N.jsonl.gz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are Neuronpedia's own, by its names")]
pub struct BulkFeature {
    #[serde(rename = "modelId")]
    pub model_id: String,
    pub layer: String,
    pub index: String,
    #[serde(rename = "sourceSetName")]
    pub source_set_name: String,
    #[serde(rename = "creatorId")]
    pub creator_id: String,
    #[serde(rename = "createdAt")]
    pub created_at: String,
    #[serde(rename = "maxActApprox")]
    pub max_act_approx: f32,
    #[serde(rename = "hasVector")]
    pub has_vector: bool,
    pub vector: Vec<f32>,
    #[serde(rename = "vectorLabel")]
    pub vector_label: Option<String>,
    #[serde(rename = "vectorDefaultSteerStrength")]
    pub vector_default_steer_strength: f32,
    #[serde(rename = "hookName")]
    pub hook_name: Option<String>,
    #[serde(rename = "topkCosSimIndices")]
    pub topk_cos_sim_indices: Vec<usize>,
    #[serde(rename = "topkCosSimValues")]
    pub topk_cos_sim_values: Vec<f64>,
    pub neuron_alignment_indices: Vec<usize>,
    pub neuron_alignment_values: Vec<f32>,
    pub neuron_alignment_l1: Vec<f64>,
    pub correlated_neurons_indices: Vec<usize>,
    pub correlated_neurons_pearson: Vec<f64>,
    pub correlated_neurons_l1: Vec<f64>,
    pub correlated_features_indices: Vec<usize>,
    pub correlated_features_pearson: Vec<f64>,
    pub correlated_features_l1: Vec<f64>,
    pub neg_str: Vec<String>,
    pub neg_values: Vec<f32>,
    pub pos_str: Vec<String>,
    pub pos_values: Vec<f32>,
    pub frac_nonzero: f64,
    pub freq_hist_data_bar_heights: Vec<f64>,
    pub freq_hist_data_bar_values: Vec<f64>,
    pub logits_hist_data_bar_heights: Vec<f64>,
    pub logits_hist_data_bar_values: Vec<f64>,
    pub decoder_weights_dist: Vec<f64>,
}

/// A line of the bulk import's `activations/batch-N.jsonl.gz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are Neuronpedia's own, by its names")]
pub struct BulkActivation {
    pub id: String,
    pub tokens: Vec<String>,
    pub index: String,
    pub layer: String,
    pub model_id: String,
    pub data_index: Option<String>,
    pub data_source: Option<String>,
    pub max_value: f32,
    pub max_value_token_index: usize,
    pub min_value: f32,
    pub values: Vec<f32>,
    pub creator_id: String,
    pub dfa_values: Vec<f32>,
    pub dfa_target_index: Option<usize>,
    pub dfa_max_value: Option<f32>,
    pub created_at: String,
    pub loss_values: Vec<f32>,
    /// JSON in a string, as the database has it.
    pub logit_contributions: Option<String>,
    pub bin_min: f64,
    pub bin_max: f64,
    pub bin_contains: f64,
    pub qualifying_token_index: usize,
    pub z_indices: Vec<usize>,
    pub z_values: Vec<f32>,
}

/// The lines of the bulk import's feature file.
#[must_use]
pub fn bulk_features(set: &FeatureSet, source: &Source) -> Vec<BulkFeature> {
    let line = |data: &FeatureData| {
        let plain = feature(set, data, source);
        BulkFeature {
            model_id: source.model_id.clone(),
            layer: source.id(),
            index: data.feature.to_string(),
            source_set_name: source.sae_set.clone(),
            creator_id: source.creator_id.clone(),
            created_at: source.created_at.clone(),
            max_act_approx: data.statistics.max,
            has_vector: false,
            vector: Vec::new(),
            vector_label: data.label.clone(),
            vector_default_steer_strength: data.statistics.max,
            hook_name: Some(set.run.hook.clone()),
            topk_cos_sim_indices: data.correlated_features.iter().map(|pair| pair.index).collect(),
            topk_cos_sim_values: data.correlated_features.iter().map(|pair| pair.cosine).collect(),
            neuron_alignment_indices: plain.neuron_alignment_indices,
            neuron_alignment_values: plain.neuron_alignment_values,
            neuron_alignment_l1: plain.neuron_alignment_l1,
            correlated_neurons_indices: plain.correlated_neurons_indices,
            correlated_neurons_pearson: plain.correlated_neurons_pearson,
            correlated_neurons_l1: plain.correlated_neurons_l1,
            correlated_features_indices: plain.correlated_features_indices,
            correlated_features_pearson: plain.correlated_features_pearson,
            correlated_features_l1: plain.correlated_features_l1,
            neg_str: plain.neg_str,
            neg_values: plain.neg_values,
            pos_str: plain.pos_str,
            pos_values: plain.pos_values,
            frac_nonzero: plain.frac_nonzero,
            freq_hist_data_bar_heights: plain.freq_hist_data_bar_heights,
            freq_hist_data_bar_values: plain.freq_hist_data_bar_values,
            logits_hist_data_bar_heights: plain.logits_hist_data_bar_heights,
            logits_hist_data_bar_values: plain.logits_hist_data_bar_values,
            decoder_weights_dist: plain.decoder_weights_dist,
        }
    };
    set.features.iter().map(line).collect()
}

/// The lines of the bulk import's activation file.
#[must_use]
pub fn bulk_activations(set: &FeatureSet, source: &Source) -> Vec<BulkActivation> {
    let of = |data: &FeatureData| -> Vec<BulkActivation> {
        let lines = sequences(set, data).enumerate();
        lines.map(|(at, pair)| bulk_activation((data.feature, at), pair, source)).collect()
    };
    set.features.iter().flat_map(of).collect()
}

fn bulk_activation(
    (feature, at): (usize, usize),
    (plain, sequence): (Activation, &SequenceData),
    source: &Source,
) -> BulkActivation {
    let strongest =
        (0..plain.values.len()).rev().max_by(|&a, &b| plain.values[a].total_cmp(&plain.values[b]));
    let strongest = strongest.unwrap_or(0);
    BulkActivation {
        // Unique, and the same in every run.
        id: format!("{}-{}-{feature}-{at}", source.model_id, source.id()),
        index: feature.to_string(),
        layer: source.id(),
        model_id: source.model_id.clone(),
        data_index: Some(sequence.prompt.to_string()),
        data_source: Some(source.dataset.clone()).filter(|dataset| !dataset.is_empty()),
        max_value: plain.values.get(strongest).copied().unwrap_or(0.0),
        max_value_token_index: strongest,
        min_value: plain.values.iter().copied().reduce(f32::min).unwrap_or(0.0),
        creator_id: source.creator_id.clone(),
        created_at: source.created_at.clone(),
        loss_values: sequence.loss_effects.iter().map(|loss| loss.unwrap_or(0.0)).collect(),
        logit_contributions: (!sequence.hover.is_empty())
            .then(|| serde_json::to_string(&sequence.hover).ok())
            .flatten(),
        bin_min: plain.bin_min,
        bin_max: plain.bin_max,
        bin_contains: plain.bin_contains,
        qualifying_token_index: plain.qualifying_token_index,
        dfa_values: plain.dfa_values.unwrap_or_default(),
        dfa_target_index: plain.dfa_target_index,
        dfa_max_value: plain.dfa_max_value,
        tokens: plain.tokens,
        values: plain.values,
        z_indices: Vec::new(),
        z_values: Vec::new(),
    }
}

/// Records as lines of JSON.
///
/// # Errors
///
/// If a number cannot be written.
pub fn to_lines<T: Serialize>(records: &[T]) -> Result<String, FeatureError> {
    let mut text = String::new();
    for record in records {
        text.push_str(
            &serde_json::to_string(record).map_err(|error| super::wrong("line of Neuronpedia", &error))?,
        );
        text.push('\n');
    }
    Ok(text)
}

/// Records from lines of JSON.
///
/// # Errors
///
/// If a line is something else; the error says which.
pub fn from_lines<T: for<'de> Deserialize<'de>>(text: &str) -> Result<Vec<T>, FeatureError> {
    let line = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| FeatureError::Format {
            format: "line of Neuronpedia",
            what: format!("line {}: {error}", at + 1),
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}
