//! The JSON of sae_vis 0.2, field by field.
//!
//! Differences that its readers do not see: intervals are those of
//! [`FeatureData::groups`](crate::features::FeatureData::groups), quantiles are interpolated
//! between the points kept, and nothing is mutated when it is shown. What has no place there
//! (head shares, attribution, counts) is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::features::{
    Correlated, FeatureData, FeatureError, FeatureSet, FeatureStatistics, Histogram, Hover, SequenceData,
    TokenValue,
};

/// What `save_json` writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SaeVisData {
    /// By feature.
    pub feature_data_dict: BTreeMap<usize, SaeVisFeature>,
    /// Of all features, in the same order.
    pub feature_stats: SaeVisStatistics,
}

/// `FeatureData`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are sae_vis's own, by its names")]
pub struct SaeVisFeature {
    pub feature_tables_data: FeatureTables,
    pub acts_histogram_data: HistogramData,
    pub logits_table_data: LogitsTable,
    pub logits_histogram_data: HistogramData,
    pub sequence_data: SequenceMultiGroup,
    pub prompt_data: Sequence,
}

/// `FeatureTablesData`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are sae_vis's own, by its names")]
pub struct FeatureTables {
    pub neuron_alignment_indices: Vec<usize>,
    pub neuron_alignment_values: Vec<f32>,
    pub neuron_alignment_l1: Vec<f64>,
    pub correlated_neurons_indices: Vec<usize>,
    pub correlated_neurons_pearson: Vec<f64>,
    pub correlated_neurons_cossim: Vec<f64>,
    pub correlated_features_indices: Vec<usize>,
    pub correlated_features_pearson: Vec<f64>,
    pub correlated_features_cossim: Vec<f64>,
    pub correlated_b_features_indices: Vec<usize>,
    pub correlated_b_features_pearson: Vec<f64>,
    pub correlated_b_features_cossim: Vec<f64>,
}

/// `ActsHistogramData` and `LogitsHistogramData`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are sae_vis's own, by its names")]
pub struct HistogramData {
    pub bar_heights: Vec<f64>,
    pub bar_values: Vec<f64>,
    pub tick_vals: Vec<f64>,
    pub title: Option<String>,
}

/// `LogitsTableData`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are sae_vis's own, by its names")]
pub struct LogitsTable {
    pub bottom_token_ids: Vec<u32>,
    pub bottom_logits: Vec<f32>,
    pub top_token_ids: Vec<u32>,
    pub top_logits: Vec<f32>,
}

/// `SequenceMultiGroupData`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are sae_vis's own, by its names")]
pub struct SequenceMultiGroup {
    pub seq_group_data: Vec<SequenceGroup>,
}

/// `SequenceGroupData`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are sae_vis's own, by its names")]
pub struct SequenceGroup {
    pub title: String,
    pub seq_data: Vec<Sequence>,
}

/// `SequenceData`: lists of one entry for each token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are sae_vis's own, by its names")]
pub struct Sequence {
    pub token_ids: Vec<u32>,
    pub feat_acts: Vec<f32>,
    pub loss_contribution: Vec<f32>,
    pub token_logits: Vec<f32>,
    pub top_token_ids: Vec<Vec<u32>>,
    pub top_logits: Vec<Vec<f32>>,
    pub bottom_token_ids: Vec<Vec<u32>>,
    pub bottom_logits: Vec<Vec<f32>>,
}

/// `FeatureStatistics`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are sae_vis's own, by its names")]
pub struct SaeVisStatistics {
    pub max: Vec<f32>,
    pub frac_nonzero: Vec<f64>,
    pub skew: Vec<f64>,
    pub kurtosis: Vec<f64>,
    pub quantile_data: Vec<Vec<f64>>,
    pub quantiles: Vec<f64>,
    pub ranges_and_precisions: Vec<([f64; 2], u32)>,
}

/// Where the quantiles of sae_vis lie: ranges, and how many decimals in each.
const RANGES: [([f64; 2], u32); 3] = [([0.0, 0.95], 3), ([0.95, 0.99], 4), ([0.99, 1.0], 5)];

impl SaeVisData {
    /// From JSON that sae_vis wrote, or [`SaeVisData::to_json`].
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn from_json(text: &str) -> Result<Self, FeatureError> {
        serde_json::from_str(text).map_err(|error| super::wrong("sae_vis 0.2 JSON", &error))
    }

    /// As JSON that sae_vis 0.2 loads.
    ///
    /// # Errors
    ///
    /// If a number cannot be written.
    pub fn to_json(&self) -> Result<String, FeatureError> {
        serde_json::to_string(self).map_err(|error| super::wrong("sae_vis 0.2 JSON", &error))
    }
}

impl From<&FeatureSet> for SaeVisData {
    fn from(set: &FeatureSet) -> Self {
        let mut quantiles: Vec<f64> = RANGES
            .iter()
            .flat_map(|&([start, end], digits)| {
                let scale = 10_f64.powi(digits as i32);
                ((start * scale).round() as u64..(end * scale).round() as u64)
                    .map(move |at| at as f64 / scale)
            })
            .collect();
        quantiles.push(1.0);
        let mut features: Vec<&FeatureData> = set.features.iter().collect();
        features.sort_by_key(|data| data.feature);
        let of = |data: &&FeatureData| nonzero_quantiles(&data.statistics, &quantiles[..quantiles.len() - 1]);
        Self {
            feature_stats: SaeVisStatistics {
                max: features.iter().map(|data| data.statistics.max).collect(),
                frac_nonzero: features.iter().map(|data| data.statistics.density()).collect(),
                quantile_data: features.iter().map(of).collect(),
                quantiles,
                ranges_and_precisions: RANGES.to_vec(),
                ..SaeVisStatistics::default()
            },
            feature_data_dict: features.iter().map(|data| (data.feature, feature(data))).collect(),
        }
    }
}

/// The quantiles over all tokens, zeros at the beginning left out.
fn nonzero_quantiles(statistics: &FeatureStatistics, shares: &[f64]) -> Vec<f64> {
    let zeros = 1.0 - statistics.density();
    let value = |&share: &f64| {
        if statistics.n_active == 0 || share < zeros && statistics.min >= 0.0 {
            return 0.0;
        }
        f64::from(statistics.quantiles.value_at((share - zeros) / (1.0 - zeros)))
    };
    let mut values: Vec<f64> = shares.iter().map(value).collect();
    let first = values.iter().position(|value| value.abs() > 1e-6).unwrap_or(values.len());
    values.drain(..first);
    values
}

fn feature(data: &FeatureData) -> SaeVisFeature {
    let density = 100.0 * data.statistics.density();
    let title = |group: &crate::features::SequenceGroup| {
        group.title(data.statistics.n_active).replacen(", ", "<br>", 1)
    };
    let groups = data.groups.iter().map(|group| SequenceGroup {
        title: title(group),
        seq_data: group.sequences.iter().map(sequence).collect(),
    });
    let logits = data.logits.as_ref();
    let tokens =
        |values: Option<&Vec<TokenValue>>| values.into_iter().flatten().map(|value| value.token).collect();
    let values =
        |values: Option<&Vec<TokenValue>>| values.into_iter().flatten().map(|value| value.value).collect();
    SaeVisFeature {
        feature_tables_data: tables(data),
        acts_histogram_data: histogram(
            &data.activations,
            Some(format!("ACTIVATIONS<br>DENSITY = {density:.3}%")),
        ),
        logits_table_data: LogitsTable {
            bottom_token_ids: tokens(logits.map(|logits| &logits.bottom)),
            bottom_logits: values(logits.map(|logits| &logits.bottom)),
            top_token_ids: tokens(logits.map(|logits| &logits.top)),
            top_logits: values(logits.map(|logits| &logits.top)),
        },
        logits_histogram_data: logits.map(|logits| histogram(&logits.histogram, None)).unwrap_or_default(),
        sequence_data: SequenceMultiGroup { seq_group_data: groups.collect() },
        prompt_data: Sequence::default(),
    }
}

fn tables(data: &FeatureData) -> FeatureTables {
    let indices = |pairs: &[Correlated]| pairs.iter().map(|pair| pair.index).collect();
    let pearson = |pairs: &[Correlated]| pairs.iter().map(|pair| pair.pearson).collect();
    let cosine = |pairs: &[Correlated]| pairs.iter().map(|pair| pair.cosine).collect();
    FeatureTables {
        neuron_alignment_indices: data.neuron_alignment.iter().map(|aligned| aligned.index).collect(),
        neuron_alignment_values: data.neuron_alignment.iter().map(|aligned| aligned.value).collect(),
        neuron_alignment_l1: data.neuron_alignment.iter().map(|aligned| aligned.l1_share).collect(),
        correlated_neurons_indices: indices(&data.correlated_neurons),
        correlated_neurons_pearson: pearson(&data.correlated_neurons),
        correlated_neurons_cossim: cosine(&data.correlated_neurons),
        correlated_features_indices: indices(&data.correlated_features),
        correlated_features_pearson: pearson(&data.correlated_features),
        correlated_features_cossim: cosine(&data.correlated_features),
        correlated_b_features_indices: indices(&data.correlated_b_features),
        correlated_b_features_pearson: pearson(&data.correlated_b_features),
        correlated_b_features_cossim: cosine(&data.correlated_b_features),
    }
}

fn histogram(histogram: &Histogram, title: Option<String>) -> HistogramData {
    HistogramData {
        bar_heights: histogram.heights.iter().map(|&height| height as f64).collect(),
        bar_values: histogram.bar_values(),
        tick_vals: histogram.ticks(),
        title,
    }
}

fn sequence(data: &SequenceData) -> Sequence {
    let n = data.tokens.len();
    let lists = |of: fn(&Hover) -> &Vec<TokenValue>| -> (Vec<Vec<u32>>, Vec<Vec<f32>>) {
        let at = |at: usize| data.hover.get(at).and_then(Option::as_ref).map(of);
        (0..n)
            .map(|token| {
                let values = at(token).into_iter().flatten();
                values.map(|value| (value.token, value.value)).unzip()
            })
            .unzip()
    };
    let (top_token_ids, top_logits) = lists(|hover| &hover.top);
    let (bottom_token_ids, bottom_logits) = lists(|hover| &hover.bottom);
    Sequence {
        token_ids: data.tokens.clone(),
        feat_acts: data.activations.clone(),
        loss_contribution: (0..n)
            .map(|at| data.loss_effects.get(at).copied().flatten().unwrap_or(0.0))
            .collect(),
        token_logits: (0..n)
            .map(|at| data.logit_effects.get(at).copied().filter(|effect| effect.is_finite()).unwrap_or(0.0))
            .collect(),
        top_token_ids,
        top_logits,
        bottom_token_ids,
        bottom_logits,
    }
}
