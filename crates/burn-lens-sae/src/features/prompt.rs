//! One prompt seen through its features: which of them matter at each token.

use burn_lens_hooks::{CacheOptions, HookPoint, Input, ReturnType, RunOptions};
use serde::{Deserialize, Serialize};

use super::{
    FeatureError, Hover,
    collect::{FeatureRun, encode, rows_of},
    effects::{Effects, Meeting},
    readout::{Readout, failed, host},
};

/// By what features of a prompt are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptMetric {
    /// The activation, largest first.
    Activation,
    /// How rare so large an activation is, rarest first.
    Quantile,
    /// How much the feature helps to predict the next token, most first.
    LossEffect,
}

/// A feature at a token of a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptFeature {
    /// The position in the prompt.
    pub position: usize,
    /// Which feature.
    pub feature: usize,
    /// Its activation there.
    pub activation: f32,
    /// The share of tokens with a smaller activation; `None` for a feature without data.
    pub quantile: Option<f64>,
    /// `loss(with) − loss(without)` of the next token; `None` at the last one, and where there is no
    /// way to the logits.
    pub loss_effect: Option<f32>,
    /// What the feature does to the prediction of the next token.
    pub hover: Option<Hover>,
}

impl PromptMetric {
    /// The features at one position, those that matter most first; those without the number last.
    #[must_use]
    pub fn ranked(self, features: &[PromptFeature], position: usize) -> Vec<&PromptFeature> {
        let rank = |feature: &PromptFeature| match self {
            Self::Activation => f64::from(feature.activation),
            Self::Quantile => feature.quantile.unwrap_or(f64::NEG_INFINITY),
            Self::LossEffect => -f64::from(feature.loss_effect.unwrap_or(f32::INFINITY)),
        };
        let mut here: Vec<_> = features.iter().filter(|feature| feature.position == position).collect();
        here.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then(a.feature.cmp(&b.feature)));
        here
    }
}

/// Every feature that is active at a token of the first prompt of `run`, in order of position and
/// feature. `quantile` gives the share of a corpus's tokens at which a feature is less active, as
/// [`FeatureStatistics::quantile_of`](super::FeatureStatistics::quantile_of) does; `None` for a feature
/// without data.
///
/// # Errors
///
/// If the model or the dictionary fails.
pub fn prompt_features(
    run: &FeatureRun<'_>,
    quantile: &mut dyn FnMut(usize, f32) -> Option<f64>,
) -> Result<Vec<PromptFeature>, FeatureError> {
    let final_resid = run.final_resid();
    let (tokens, attention_mask) = run.tokens.input(0..1, &run.model.device());
    let options = RunOptions { return_type: ReturnType::None, attention_mask, ..RunOptions::default() };
    let mut points: Vec<HookPoint> = vec![run.source.hook_in()];
    points.extend(final_resid.filter(|resid| *resid != run.source.hook_in()));
    let (_, cache) =
        run.model.run_with_cache(&Input::Tokens(tokens), &options, &CacheOptions::names(points))?;
    let codes = encode(run.source, &cache)?.1;
    let mut found = Vec::new();
    for position in (0..run.tokens.n_positions()).filter(|&position| run.tokens.is_real(position)) {
        let (features, activations) = codes.row(position);
        for (&feature, &activation) in features.iter().zip(activations) {
            let feature = feature as usize;
            found.push(PromptFeature {
                position,
                feature,
                activation,
                quantile: quantile(feature, activation),
                loss_effect: None,
                hover: None,
            });
        }
    }
    let readout = Readout::of(run.model, run.source.hook_out()).ok();
    if let (Some(point), Some(readout)) = (final_resid, readout) {
        let resid = host(rows_of(&cache.get(point)?, point)?).map_err(failed("the residual stream"))?;
        add_effects(run, &readout, &resid, &mut found)?;
    }
    Ok(found)
}

fn add_effects(
    run: &FeatureRun<'_>,
    readout: &Readout,
    resid: &[f32],
    found: &mut [PromptFeature],
) -> Result<(), FeatureError> {
    let (source, d) = (run.source, readout.d_model());
    let mut features: Vec<usize> = found.iter().map(|found| found.feature).collect();
    features.sort_unstable();
    features.dedup();
    if features.is_empty() {
        return Ok(());
    }
    let directions = source.directions(&features).map_err(failed(source.name()))?;
    let directions = readout.directions(directions).map_err(failed(source.name()))?;
    let tokens = run.tokens.tokens(0..1);
    let followed = |position: usize| position + 1 < tokens.len() && run.tokens.is_real(position + 1);
    let mut with_next: Vec<&mut PromptFeature> =
        found.iter_mut().filter(|found| followed(found.position)).collect();
    let meeting = |found: &&mut PromptFeature| Meeting {
        place: found.position as u64,
        slot: features.partition_point(|&feature| feature < found.feature) as u32,
        activation: found.activation,
        next: tokens[found.position + 1],
    };
    let meetings: Vec<Meeting> = with_next.iter().map(meeting).collect();
    let effects = Effects {
        readout,
        directions: &directions,
        k: run.options.sequences.n_hover,
        n_threads: run.options.n_threads(),
        memory: run.options.memory,
    };
    let rows = |places: &[u64]| {
        Ok(places
            .iter()
            .flat_map(|&place| &resid[place as usize * d..(place as usize + 1) * d])
            .copied()
            .collect())
    };
    let effects = effects.of(&meetings, rows, |_| ())?;
    for (found, effect) in with_next.iter_mut().zip(effects) {
        found.loss_effect = Some(effect.loss).filter(|loss| loss.is_finite());
        found.hover = Some(effect.hover).filter(|hover| !hover.top.is_empty());
    }
    Ok(())
}
