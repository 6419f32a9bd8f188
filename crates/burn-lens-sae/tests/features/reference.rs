//! Everything once more, slowly, in `f64`, with a patched forward pass for each effect.

use burn_lens_hooks::{
    CacheOptions, Hook, HookContext, HookPoint, HookedModel as _, Input, ModelWeights as _, NormSite, Param,
    RunOptions,
};
use burn_lens_models::HookedTransformer;
use burn_lens_sae::features::{
    Correlated, FeatureData, FeatureRun, FeatureSource as _, GroupKind, SequenceData, TokenTable, TokenValue,
    get_feature_data,
};
use burn_lens_tensor::{
    AnyTensor, FloatType,
    burn::tensor::{DType, Tensor, TensorData},
    numeric,
};
use burn_lens_testkit::device;

use crate::common::{Sae, model, options, prompts};

/// Relative to 1 and to the number: what the issue promises.
const CLOSE: f64 = 1e-5;

#[track_caller]
fn close(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= CLOSE * expected.abs().max(1.0),
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn layer_norm_not_folded() {
    check("tl-ln", HookPoint::MlpPost(1), 12);
}

#[test]
fn layer_norm_without_weights() {
    check("tl-lnpre", HookPoint::ResidPost(1), 8);
}

#[test]
fn rms_norm() {
    check("tl-rms-gqa", HookPoint::MlpOut(1), 8);
}

#[test]
fn soft_capped_logits() {
    check("tl-soft-caps", HookPoint::MlpOut(1), 8);
}

#[test]
fn heads() {
    check("tl-attn-only", HookPoint::AttnZ(1), 8);
}

#[test]
fn another_vocabulary_at_the_end() {
    check("tl-d-vocab-out", HookPoint::ResidPost(1), 8);
}

#[test]
fn an_mlp_of_an_earlier_layer() {
    check("tl-ln", HookPoint::MlpPost(0), 12);
}

#[test]
fn heads_of_an_earlier_layer() {
    check("tl-attn-only", HookPoint::AttnZ(0), 8);
}

#[test]
fn the_residual_stream_before_a_layer() {
    check("tl-rms-gqa", HookPoint::ResidPre(1), 8);
}

/// Dense activations `[token][feature]` and what they were computed from, `[token][d_in]`.
struct Dense {
    codes: Vec<Vec<f64>>,
    x: Vec<Vec<f64>>,
}

fn dense(model: &HookedTransformer, sae: &Sae, tokens: &TokenTable) -> Dense {
    let input = tokens.input(0..tokens.n_prompts(), &device()).0;
    let cache = CacheOptions::names([sae.hook]);
    let (_, cache) = model.run_with_cache(&Input::Tokens(input), &RunOptions::default(), &cache).unwrap();
    let x: Vec<f64> = cache.get(sae.hook).unwrap().into_data().unwrap().iter().collect();
    let x: Vec<Vec<f64>> = x.chunks(sae.d_in).map(<[f64]>::to_vec).collect();
    let code = |x: &Vec<f64>, feature: usize| {
        let weights = &sae.w_enc[feature * sae.d_in..(feature + 1) * sae.d_in];
        let terms = x.iter().zip(&sae.b_dec).zip(weights);
        let pre: f64 = terms.map(|((x, b), w)| (x - f64::from(*b)) * f64::from(*w)).sum();
        (pre + f64::from(sae.b_enc[feature])).max(0.0)
    };
    let codes = x.iter().map(|x| (0..sae.n_features()).map(|feature| code(x, feature)).collect()).collect();
    Dense { codes, x }
}

/// Whether nothing comes between a hook and the final norm but what adds it to the residual stream.
fn is_last(model: &HookedTransformer, hook: HookPoint) -> bool {
    let last = model.dims().n_layers - 1;
    let attn_only = model.config().mlp.is_none();
    match hook {
        HookPoint::MlpPost(layer) | HookPoint::MlpOut(layer) | HookPoint::ResidPost(layer) => layer == last,
        HookPoint::AttnZ(layer) => layer == last && attn_only,
        _ => false,
    }
}

/// What a feature adds to the residual stream, `[1, d_model]`.
fn residual_direction(model: &HookedTransformer, sae: &Sae, feature: usize) -> Tensor<2> {
    let row = &sae.w_dec[feature * sae.d_in..(feature + 1) * sae.d_in];
    let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    let row = Tensor::<2>::from_data(TensorData::new(row, [1, sae.d_in]), (&device(), DType::F64));
    let weight = |param| model.weight::<2>(param).unwrap();
    match sae.hook {
        HookPoint::MlpPost(layer) => row.matmul(weight(Param::WOut(layer))),
        HookPoint::AttnZ(layer) => row.matmul(weight(Param::WO(layer))),
        _ => row,
    }
}

/// Log-probabilities `[token][vocabulary]` of a run in which `a d` is taken away at every position:
/// where the dictionary is, if that is the last thing in the model (there no position sees another's
/// change); else from the final residual stream, which is the direct effect.
fn patched(
    model: &HookedTransformer,
    sae: &Sae,
    tokens: &TokenTable,
    feature: Option<usize>,
    dense: &Dense,
) -> Vec<Vec<f64>> {
    let input = tokens.input(0..tokens.n_prompts(), &device()).0;
    let hooks: Vec<Hook<'_>> = feature
        .into_iter()
        .map(|feature| {
            let (hook, direction): (HookPoint, Vec<f64>) = if is_last(model, sae.hook) {
                let row = &sae.w_dec[feature * sae.d_in..(feature + 1) * sae.d_in];
                (sae.hook, row.iter().map(|&x| f64::from(x)).collect())
            } else {
                let end = HookPoint::ResidPost(model.dims().n_layers - 1);
                (end, residual_direction(model, sae, feature).into_data().iter().collect())
            };
            Hook::edit(hook, move |x: AnyTensor, _: &mut HookContext<'_>| {
                let taken =
                    dense.codes.iter().flat_map(|codes| direction.iter().map(|&d| codes[feature] * d));
                let values: Vec<f64> =
                    x.clone().into_data().unwrap().iter::<f64>().zip(taken).map(|(x, t)| x - t).collect();
                AnyTensor::from_data(TensorData::new(values, x.shape()), &device()).unwrap()
            })
        })
        .collect();
    let output = model.run_with_hooks(&Input::Tokens(input), &RunOptions::default(), hooks).unwrap();
    let logits = numeric::log_softmax(output.into_logits().unwrap());
    let width = logits.dims()[2];
    logits.into_data().iter().collect::<Vec<f64>>().chunks(width).map(<[f64]>::to_vec).collect()
}

fn check(fixture: &str, hook: HookPoint, d_in: usize) {
    const N_FEATURES: usize = 6;
    let (single, double) = (model(fixture, FloatType::F32), model(fixture, FloatType::F64));
    let sae = Sae::random(hook, d_in, N_FEATURES, 7);
    let sae_b = Sae::random(hook, d_in, 5, 8);
    let tokens = prompts(&single, 7, 9, 3);
    let options = options();
    let run = FeatureRun {
        model: &single,
        model_name: "test",
        source: &sae,
        source_b: Some(&sae_b),
        tokens: &tokens,
        options: &options,
    };
    let set = get_feature_data(&run).unwrap();
    assert!(!set.run.notes.iter().any(|note| note.contains("no effects")), "{:?}", set.run.notes);

    let (dense, dense_b) = (dense(&double, &sae, &tokens), dense(&double, &sae_b, &tokens));
    let clean = patched(&double, &sae, &tokens, None, &dense);
    for data in &set.features {
        let column: Vec<f64> = dense.codes.iter().map(|codes| codes[data.feature]).collect();
        statistics(data, &column);
        logits(data, &double, &sae);
        correlations(&data.correlated_neurons, &column, &dense.x, None);
        correlations(&data.correlated_features, &column, &dense.codes, Some(data.feature));
        correlations(&data.correlated_b_features, &column, &dense_b.codes, None);
        sequences(data, &column, &tokens);
        let without = patched(&double, &sae, &tokens, Some(data.feature), &dense);
        effects(data, &column, &tokens, (&clean, &without));
    }
}

fn statistics(data: &FeatureData, column: &[f64]) {
    let active: Vec<f64> = column.iter().copied().filter(|&x| x > 0.0).collect();
    let statistics = &data.statistics;
    assert_eq!((statistics.n_tokens, statistics.n_active), (column.len() as u64, active.len() as u64));
    close("max", f64::from(statistics.max), active.iter().copied().fold(0.0, f64::max));
    close("mean", statistics.mean, column.iter().sum::<f64>() / column.len() as f64);
    let mut heights = vec![0; data.activations.heights.len()];
    let (low, high) = (data.activations.low, data.activations.high);
    for x in &active {
        let bin = ((x - low) / (high - low) * heights.len() as f64).max(0.0) as usize;
        heights[bin.min(data.activations.heights.len() - 1)] += 1;
    }
    assert_eq!(data.activations.heights, heights);
}

/// `(C d ⊙ w) W_U`, in `f64`.
fn logits(data: &FeatureData, model: &HookedTransformer, sae: &Sae) {
    let direction = residual_direction(model, sae, data.feature);
    let norm = model.norm_at(NormSite::Final).unwrap();
    let mut direction = norm.centered(direction);
    if let Some(w) = norm.w {
        direction = direction * w.unsqueeze();
    }
    let effects: Vec<f64> =
        direction.matmul(model.weight::<2>(Param::WU).unwrap()).into_data().iter().collect();
    let found = data.logits.as_ref().unwrap();
    table("top logits", &found.top, &effects, 1.0);
    table("bottom logits", &found.bottom, &effects, -1.0);
    assert_eq!(found.histogram.heights.iter().sum::<u64>() as usize, effects.len());
    for sequence in data.groups.iter().flat_map(|group| &group.sequences) {
        for (&token, &effect) in sequence.tokens.iter().zip(&sequence.logit_effects) {
            close("logit effect", f64::from(effect), effects.get(token as usize).copied().unwrap_or(0.0));
        }
    }
}

/// A table holds the largest (or smallest) of all numbers, in order.
#[track_caller]
fn table(what: &str, found: &[TokenValue], all: &[f64], sign: f64) {
    let mut sorted: Vec<f64> = all.iter().map(|x| sign * x).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    for (found, &expected) in found.iter().zip(&sorted) {
        close(what, sign * f64::from(found.value), expected);
        close(what, f64::from(found.value), all[found.token as usize]);
    }
}

fn correlations(found: &[Correlated], column: &[f64], others: &[Vec<f64>], own: Option<usize>) {
    let n = column.len() as f64;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / n;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let centered = |x: &[f64]| x.iter().map(|value| value - mean(x)).collect::<Vec<f64>>();
    let mut expected = Vec::new();
    for index in (0..others[0].len()).filter(|&index| Some(index) != own) {
        let other: Vec<f64> = others.iter().map(|row| row[index]).collect();
        let (x, y) = (centered(column), centered(&other));
        let spread = (product(&x, &x) * product(&y, &y)).sqrt();
        if spread > 1e-12 {
            let cosine = product(column, &other) / (product(column, column) * product(&other, &other)).sqrt();
            expected.push((product(&x, &y) / spread, cosine, index));
        }
    }
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert_eq!(found.len(), expected.len().min(3));
    for (found, ranked) in found.iter().zip(&expected) {
        // Two that are equal but for rounding may change places.
        let (pearson, cosine, _) = expected.iter().find(|(_, _, index)| *index == found.index).unwrap();
        close("pearson, by rank", found.pearson, ranked.0);
        close("pearson", found.pearson, *pearson);
        close("cosine", found.cosine, *cosine);
    }
}

fn sequences(data: &FeatureData, column: &[f64], tokens: &TokenTable) {
    let n = tokens.n_positions();
    let place = |sequence: &SequenceData| sequence.prompt * n + sequence.start + sequence.target;
    let mut order: Vec<usize> = (0..column.len()).filter(|&at| column[at] > 0.0).collect();
    order.sort_by(|&a, &b| column[b].total_cmp(&column[a]));
    let top: Vec<usize> = data.groups[0].sequences.iter().map(place).collect();
    assert_eq!(top, order[..order.len().min(6)]);
    let mut counted = 0;
    for group in &data.groups {
        if let GroupKind::Interval { low, high } = group.kind {
            counted += group.n_active;
            assert!(group.sequences.len() as u64 == group.n_active.min(2));
            for sequence in &group.sequences {
                let value = sequence.target_activation();
                assert!(low <= value && value <= high);
            }
        }
        for sequence in &group.sequences {
            let first = sequence.prompt * n + sequence.start;
            let all = tokens.tokens(sequence.prompt..sequence.prompt + 1);
            assert_eq!(sequence.tokens, all[sequence.start..sequence.start + sequence.tokens.len()]);
            for (at, &activation) in sequence.activations.iter().enumerate() {
                close("activation", f64::from(activation), column[first + at]);
            }
        }
    }
    assert_eq!(counted as usize, order.len(), "every active token is in one interval");
}

fn effects(
    data: &FeatureData,
    column: &[f64],
    tokens: &TokenTable,
    (clean, without): (&[Vec<f64>], &[Vec<f64>]),
) {
    let n = tokens.n_positions();
    for sequence in data.groups.iter().flat_map(|group| &group.sequences) {
        for at in 0..sequence.tokens.len() {
            let position = sequence.start + at;
            if position == 0 {
                assert_eq!(
                    (sequence.loss_effects[at], &sequence.hover[at]),
                    (None, &None),
                    "nothing is before it"
                );
                continue;
            }
            let before = sequence.prompt * n + position - 1;
            let change: Vec<f64> =
                clean[before].iter().zip(&without[before]).map(|(with, without)| with - without).collect();
            let Some(&expected) = change.get(sequence.tokens[at] as usize) else { continue };
            close("loss effect", f64::from(sequence.loss_effects[at].unwrap()), -expected);
            assert_eq!(sequence.hover[at].is_some(), column[before] > 0.0);
            if let Some(hover) = &sequence.hover[at] {
                assert_eq!(hover.top.len(), 3);
                table("hover top", &hover.top, &change, 1.0);
                table("hover bottom", &hover.bottom, &change, -1.0);
            }
        }
    }
}

#[test]
fn attribution_sums_to_what_the_feature_reads() {
    let model = model("tl-rms-gqa", FloatType::F32);
    let width = model.dims().n_heads * model.dims().d_head;
    let sae = Sae::random(HookPoint::AttnZ(0), width, 5, 1);
    let tokens = prompts(&model, 4, 8, 5);
    let dense = dense(&model, &sae, &tokens);
    let set = crate::common::extract(&model, &sae, &tokens, &options());
    let mut seen = 0;
    for data in &set.features {
        assert_eq!(data.decoder_head_shares.len(), model.dims().n_heads);
        close("shares", data.decoder_head_shares.iter().sum(), 1.0);
        for sequence in data.groups.iter().flat_map(|group| &group.sequences) {
            let target = sequence.start + sequence.target;
            let attribution = sequence.attribution.as_ref().unwrap();
            assert_eq!(attribution.values.len(), target + 1);
            let x = &dense.x[sequence.prompt * 8 + target];
            let reader = &sae.w_enc[data.feature * width..(data.feature + 1) * width];
            let read: f64 = x.iter().zip(reader).map(|(x, w)| x * f64::from(*w)).sum();
            close("attribution", attribution.values.iter().map(|&x| f64::from(x)).sum(), read);
            assert!(attribution.values.iter().all(|&x| x <= attribution.values[attribution.strongest]));
            seen += 1;
        }
    }
    assert!(seen > 10);
}
