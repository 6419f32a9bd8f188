//! What the original does wrong, one by one: the numbers are those of the table of faults in
//! `docs/feature-data.md`. Those about histograms, sums and the choice of sequences are tested beside the
//! code (`histogram.rs`, `correlate.rs`, `select.rs`, `decoder.rs`), those of pages in `burn-lens-viz`.

use burn_lens_hooks::HookPoint;
use burn_lens_sae::features::{
    FeatureChoice, FeatureData, FeatureKind, FeatureOptions, FeatureRun, FeatureSet, GroupKind, Intervals,
    SequenceData, SequenceOptions, TokenTable, TokenText, Vectors, Window, get_feature_data,
};
use burn_lens_tensor::{
    FloatType,
    burn::tensor::{Tensor, TensorData},
};
use burn_lens_testkit::device;

use crate::common::{Random, Sae, comes_back, extract, model, options, prompts};

const HOOK: HookPoint = HookPoint::ResidPost(1);

fn sae(n_features: usize) -> Sae {
    Sae::random(HOOK, 8, n_features, 5)
}

fn data(sae: &Sae, options: &FeatureOptions) -> Vec<FeatureData> {
    let model = model("tl-ln", FloatType::F32);
    extract(&model, sae, &prompts(&model, 9, 8, 2), options).features
}

/// Multiplies what a feature reads.
fn scaled(sae: &Sae, feature: usize, factor: f32) -> Sae {
    let mut sae = sae.clone();
    sae.w_enc[feature * 8..(feature + 1) * 8].iter_mut().for_each(|w| *w *= factor);
    sae.b_enc[feature] *= factor;
    sae
}

#[test]
fn fault_1_the_second_dictionary_has_its_own_bias_and_width() {
    let model = model("tl-ln", FloatType::F32);
    let (sae, tokens, options) = (sae(4), prompts(&model, 9, 8, 2), options());
    // A second dictionary that is the first one, with a feature more in front.
    let mut sae_b = Sae::random(HOOK, 8, 5, 99);
    sae_b.w_enc[8..].copy_from_slice(&sae.w_enc);
    sae_b.b_enc[1..].copy_from_slice(&sae.b_enc);
    sae_b.b_dec.clone_from(&sae.b_dec);
    let run = FeatureRun {
        model: &model,
        model_name: "m",
        source: &sae,
        source_b: Some(&sae_b),
        tokens: &tokens,
        options: &options,
    };
    for data in get_feature_data(&run).unwrap().features {
        let best = data.correlated_b_features[0];
        assert_eq!(best.index, data.feature + 1);
        assert!((best.pearson - 1.0).abs() < 1e-9 && (best.cosine - 1.0).abs() < 1e-9);
    }
}

#[test]
fn fault_4_nothing_is_before_the_first_token() {
    for data in data(&sae(4), &options()) {
        for sequence in
            data.groups.iter().flat_map(|group| &group.sequences).filter(|sequence| sequence.start == 0)
        {
            assert_eq!((sequence.loss_effects[0], &sequence.hover[0]), (None, &None));
        }
    }
}

#[test]
fn faults_6_to_9_intervals_hold_every_active_token_once_and_the_largest_is_shown() {
    for intervals in [Intervals::EqualWidth, Intervals::Quantiles] {
        let sequences = SequenceOptions { intervals, ..options().sequences };
        for data in data(&sae(5), &FeatureOptions { sequences, ..options() }) {
            let intervals: Vec<_> =
                data.groups.iter().filter(|g| matches!(g.kind, GroupKind::Interval { .. })).collect();
            let counted: u64 = intervals.iter().map(|group| group.n_active).sum();
            assert_eq!(counted, data.statistics.n_active);
            let shown = data.groups[0].sequences[0].target_activation();
            assert_eq!(shown, data.statistics.max);
            let zeros = |group: &&&burn_lens_sae::features::SequenceGroup| {
                group.sequences.iter().any(|sequence| sequence.target_activation() == 0.0)
            };
            assert_eq!(intervals.iter().filter(zeros).count(), 0, "no interval shows an inactive token");
        }
    }
}

#[test]
fn fault_10_intervals_with_one_title_are_two_groups() {
    let sae = scaled(&sae(1), 0, 1e-5);
    let data = &data(&sae, &options())[0];
    let titles: Vec<String> = data.groups.iter().map(|group| group.title(data.statistics.n_active)).collect();
    assert_eq!(titles.len(), 5);
    assert!(
        titles.iter().filter(|title| title.starts_with("INTERVAL 0.000 - 0.000")).count() >= 2,
        "{titles:?}"
    );
}

#[test]
fn fault_11_only_signed_activations_have_a_bottom() {
    let model = model("tl-ln", FloatType::F32);
    let tokens = prompts(&model, 9, 8, 2);
    let has_bottom = |data: &FeatureData| data.groups.iter().any(|group| group.kind == GroupKind::Bottom);
    assert!(!extract(&model, &sae(3), &tokens, &options()).features.iter().any(has_bottom));
    let data = TensorData::new(Random(4).numbers(16), [2, 8]);
    let vectors = Vectors {
        name: "probes".to_owned(),
        labels: vec!["a".to_owned(), "b".to_owned()],
        vectors: Tensor::from_data(data, &device()),
        hook: HOOK,
    };
    let set = extract(&model, &vectors, &tokens, &options());
    assert!(set.features.iter().all(has_bottom));
    assert_eq!(set.features[1].label.as_deref(), Some("b"));
    assert!(set.features.iter().all(|data| data.statistics.min < 0.0));
}

#[test]
fn fault_12_repeated_prompts_are_shown_once() {
    let model = model("tl-ln", FloatType::F32);
    let once = prompts(&model, 1, 8, 2);
    let prompt: Vec<i64> = once.tokens(0..1).iter().map(|&token| i64::from(token)).collect();
    let tokens = TokenTable::new(&vec![prompt; 6], None).unwrap();
    let sequences = SequenceOptions { distinct: true, ..options().sequences };
    for data in extract(&model, &sae(3), &tokens, &FeatureOptions { sequences, ..options() }).features {
        let top = &data.groups[0].sequences;
        let mut texts: Vec<_> = top.iter().map(|sequence| &sequence.tokens).collect();
        texts.dedup();
        assert_eq!(texts.len(), top.len());
        assert_eq!(top[0].repeats, 5);
    }
}

#[test]
fn faults_17_and_18_hover_tables_are_pairs_and_only_where_the_feature_was_active() {
    for data in data(&sae(4), &options()) {
        for sequence in data.groups.iter().flat_map(|group| &group.sequences) {
            assert_eq!(sequence.tokens.len(), sequence.hover.len());
            for at in 1..sequence.tokens.len() {
                let active = sequence.activations[at - 1] != 0.0;
                assert_eq!(sequence.hover[at].is_some(), active);
                assert_eq!(sequence.loss_effects[at] == Some(0.0), !active);
            }
        }
    }
}

#[test]
fn faults_20_to_23_dead_constant_and_single_activations() {
    let mut sae = sae(3);
    // Dead, always 1, and active at the one place where it is strongest.
    sae.w_enc[..16].fill(0.0);
    (sae.b_enc[0], sae.b_enc[1]) = (-1.0, 1.0);
    let max = data(&sae, &options())[2].groups[0].sequences[..2]
        .iter()
        .map(SequenceData::target_activation)
        .collect::<Vec<_>>();
    sae.b_enc[2] -= f32::midpoint(max[0], max[1]);
    let data = data(&sae, &options());
    assert_eq!(
        [data[0].kind, data[1].kind, data[2].kind],
        [FeatureKind::Dead, FeatureKind::Constant, FeatureKind::Sparse]
    );
    assert_eq!((data[0].statistics.n_active, data[0].statistics.max, data[0].groups.len()), (0, 0.0, 0));
    assert!(
        data[0].logits.is_some() && !data[0].neuron_alignment.is_empty(),
        "what its weights say is there"
    );
    assert_eq!(data[1].activations.heights, [72]);
    assert_eq!((data[2].statistics.n_active, data[2].activations.heights.len()), (1, 1));
    for dead in &data[..2] {
        assert!(
            dead.correlated_neurons.is_empty() && dead.correlated_features.is_empty(),
            "no NaN ranks first"
        );
    }
    let text = serde_json::to_string(&data).unwrap();
    comes_back(&data, &serde_json::from_str::<Vec<FeatureData>>(&text).unwrap());
}

#[test]
fn fault_24_nan_in_weights_is_reported_and_stays_where_it_is() {
    let clean = sae(3);
    let mut broken = clean.clone();
    broken.w_enc[8] = f32::NAN;
    broken.w_dec[16] = f32::NAN;
    let (clean, data) = (data(&clean, &options()), data(&broken, &options()));
    assert_eq!(data[1].statistics.n_not_finite, 72);
    assert_eq!(data[1].kind, FeatureKind::Dead);
    assert_eq!(data[2].logits.as_ref().unwrap().n_not_finite, 13);
    let effects =
        data[2].groups.iter().flat_map(|group| &group.sequences).flat_map(|sequence| &sequence.loss_effects);
    assert!(effects.clone().all(|effect| effect.is_none_or(|effect| effect == 0.0)) && effects.count() > 0);
    // Its correlations with the others are gone; nothing else is.
    assert_eq!(
        (&data[0].statistics, &data[0].groups, &data[0].logits),
        (&clean[0].statistics, &clean[0].groups, &clean[0].logits)
    );
    let text = serde_json::to_string(&data).unwrap();
    comes_back(&data, &serde_json::from_str::<Vec<FeatureData>>(&text).unwrap());
}

#[test]
fn fault_32_tokens_are_bytes() {
    assert_eq!(TokenText::of("Привет".as_bytes()), TokenText { text: "Привет".to_owned(), bytes: None });
    let half = TokenText::of(&[0xd0]);
    assert_eq!((half.text.as_str(), half.bytes.as_deref()), ("\u{fffd}", Some("d0")));
    assert_eq!(FeatureSet::default().text_of(50_000), "<50000>", "an id that no token has");
}

#[test]
fn fault_41_features_come_once_and_in_order() {
    let features = FeatureChoice::Some(vec![4, 1, 4]);
    let data = data(&sae(5), &FeatureOptions { features, ..options() });
    assert_eq!(data.iter().map(|data| data.feature).collect::<Vec<_>>(), [4, 1]);
    let model = model("tl-ln", FloatType::F32);
    let (sae, tokens) = (sae(5), prompts(&model, 2, 4, 1));
    let options = FeatureOptions { features: FeatureChoice::Some(vec![1, 5]), ..options() };
    let run = FeatureRun {
        model: &model,
        model_name: "m",
        source: &sae,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    let error = get_feature_data(&run).unwrap_err().to_string();
    assert!(error.contains("no feature 5") && error.contains("0 to 4"), "{error}");
}

#[test]
fn faults_42_and_43_padding_and_ignored_tokens_are_not_counted() {
    let model = model("tl-ln", FloatType::F32);
    let table = prompts(&model, 6, 8, 2);
    let ids: Vec<Vec<i64>> =
        (0..6).map(|at| table.tokens(at..at + 1).iter().map(|&t| i64::from(t)).collect()).collect();
    let mask: Vec<Vec<i64>> =
        (0..6).map(|at| (0..8).map(|pos| i64::from(pos < 4 + at % 3)).collect()).collect();
    let tokens = TokenTable::new(&ids, Some(&mask)).unwrap();
    let ignored = table.tokens(0..1)[1];
    let options = FeatureOptions {
        ignore_tokens: [ignored].into(),
        ignore_positions: [0].into(),
        sequences: SequenceOptions { window: Window::Prompt, ..options().sequences },
        ..options()
    };
    let counts = |prompt: usize, pos: usize| {
        mask[prompt][pos] == 1 && pos > 0 && ids[prompt][pos] != i64::from(ignored)
    };
    let n = (0..6)
        .flat_map(|prompt| (0..8).map(move |pos| (prompt, pos)))
        .filter(|&(prompt, pos)| counts(prompt, pos))
        .count();
    for data in extract(&model, &sae(4), &tokens, &options).features {
        assert_eq!(data.statistics.n_tokens as usize, n);
        for sequence in data.groups.iter().flat_map(|group| &group.sequences) {
            assert!(counts(sequence.prompt, sequence.start + sequence.target));
            assert_eq!(
                sequence.tokens.len(),
                4 + sequence.prompt % 3,
                "padding is not shown, ignored tokens are"
            );
        }
    }
}

#[test]
fn fault_16_what_lies_behind_a_norm_is_refused_and_said() {
    let model = model("tl-norm-before-and-after", FloatType::F32);
    let tokens = prompts(&model, 4, 8, 2);
    let sae = Sae::random(HookPoint::MlpPost(1), 12, 3, 5);
    let set = extract(&model, &sae, &tokens, &options());
    assert!(set.run.notes.iter().any(|note| note.contains("a norm lies between")), "{:?}", set.run.notes);
    assert!(set.features.iter().all(|data| data.logits.is_none() && !data.groups.is_empty()));
    let sae = Sae::random(HookPoint::AttnPattern(0), 8, 3, 5);
    let options = options();
    let run = FeatureRun {
        model: &model,
        model_name: "m",
        source: &sae,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    assert!(get_feature_data(&run).unwrap_err().to_string().contains("hook_pattern"));
    let narrow = Sae::random(HOOK, 7, 3, 5);
    let run = FeatureRun { source: &narrow, ..run };
    let error = get_feature_data(&run).unwrap_err().to_string();
    assert!(error.contains("reads 7") && error.contains("8 entries"), "{error}");
}
