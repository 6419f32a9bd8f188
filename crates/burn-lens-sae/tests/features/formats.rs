//! The formats of other tools, written and read back.

use burn_lens_hooks::HookPoint;
use burn_lens_sae::features::{
    FeatureKind, FeatureRun, FeatureSet, MemoryStore, PromptMetric, TensorStore, TokenText, build, collect,
    formats::{
        delphi::{self, Split},
        neuronpedia::{self, Batch, BulkActivation, BulkFeature, Source},
        sae_vis::SaeVisData,
    },
    prompt_features,
};
use burn_lens_tensor::FloatType;

use crate::common::{Random, Sae, comes_back, extract, model, options, prompts};

fn set() -> FeatureSet {
    let model = model("tl-ln", FloatType::F32);
    let sae = Sae::random(HookPoint::MlpPost(1), 12, 5, 3);
    let mut set = extract(&model, &sae, &prompts(&model, 8, 7, 4), &options());
    set.vocabulary = (0..13).map(|id| (id, TokenText::of(format!("t{id}<script>").as_bytes()))).collect();
    set
}

#[test]
fn our_own_comes_back_and_other_versions_do_not() {
    let set = set();
    let text = set.to_json().unwrap();
    comes_back(&set, &FeatureSet::from_json(&text).unwrap());
    let newer = text.replacen("\"schema\":1", "\"schema\":2", 1);
    assert!(FeatureSet::from_json(&newer).unwrap_err().to_string().contains("schema 2"));
    for wrong in ["", "{}", "[]", "{\"schema\":\"x\"}", "{\"schema\":1}"] {
        assert!(FeatureSet::from_json(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn numbers_come_back_to_the_last_bit() {
    let mut set = set();
    let mut random = Random(8);
    // A fifth of these come back as a neighbour where the parser does not round exactly.
    let numbers: Vec<f64> = (0..100).map(|_| f64::from(random.number()).exp().powi(40)).collect();
    for number in numbers {
        set.features[0].activations.low = number;
        let read = FeatureSet::from_json(&set.to_json().unwrap()).unwrap();
        assert_eq!(read.features[0].activations.low.to_bits(), number.to_bits(), "{number}");
    }
}

#[test]
fn sae_vis_comes_back_with_its_own_field_names() {
    let set = set();
    let data = SaeVisData::from(&set);
    let text = data.to_json().unwrap();
    comes_back(&data, &SaeVisData::from_json(&text).unwrap());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    // A dead feature has no sequence and no bar, and is there all the same.
    assert_eq!(json["feature_data_dict"].as_object().unwrap().len(), 5);
    let live = set.features.iter().find(|data| data.statistics.n_active > 1).unwrap();
    let feature = &json["feature_data_dict"][live.feature.to_string()];
    let group = &feature["sequence_data"]["seq_group_data"][0]["seq_data"][0];
    let n = group["token_ids"].as_array().unwrap().len();
    for list in [
        "feat_acts",
        "loss_contribution",
        "token_logits",
        "top_token_ids",
        "top_logits",
        "bottom_token_ids",
        "bottom_logits",
    ] {
        assert_eq!(group[list].as_array().unwrap().len(), n, "{list}");
    }
    assert_eq!(feature["acts_histogram_data"]["bar_heights"].as_array().unwrap().len(), 40);
    assert_eq!(feature["logits_table_data"]["top_logits"].as_array().unwrap().len(), 4);
    let stats = &json["feature_stats"];
    assert_eq!(stats["quantiles"].as_array().unwrap().len(), 950 + 400 + 1000 + 1);
    assert_eq!(stats["ranges_and_precisions"][0], serde_json::json!([[0.0, 0.95], 3]));
    assert!(SaeVisData::from_json("{\"feature_data_dict\": 3}").is_err());
}

fn source() -> Source {
    Source { model_id: "tiny".to_owned(), layer: 1, sae_set: "mlp-test".to_owned(), ..Source::default() }
}

#[test]
fn neuronpedia_comes_back_with_its_own_field_names() {
    let set = set();
    let batch = Batch::of(&set, &source());
    let text = batch.to_json().unwrap();
    comes_back(&batch, &Batch::from_json(&text).unwrap());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["model_id"], &json["layer"], &json["sae_id_suffix"]),
        (&"tiny".into(), &1.into(), &serde_json::Value::Null)
    );
    for (feature, data) in batch.features.iter().zip(&set.features) {
        assert_eq!(feature.frac_nonzero, data.statistics.density(), "in full precision");
        let n: usize = data.groups.iter().map(|group| group.sequences.len()).sum();
        assert_eq!(feature.activations.len(), n);
        if n == 0 {
            assert_eq!(data.kind, FeatureKind::Dead);
            continue;
        }
        let top = &feature.activations[0];
        assert_eq!((top.bin_min, top.bin_contains, top.bin_max as f32), (-1.0, -1.0, data.statistics.max));
        assert_eq!(top.values[top.qualifying_token_index], data.statistics.max);
        assert!(top.tokens[0].ends_with("<script>"), "texts are not changed");
        let share: f64 = data.groups[1..]
            .iter()
            .map(|group| group.n_active as f64 / data.statistics.n_active as f64)
            .sum();
        assert!((share - 1.0).abs() < 1e-12);
    }
}

#[test]
fn bulk_lines_come_back_and_a_bad_line_is_named() {
    let set = set();
    let (features, activations) =
        (neuronpedia::bulk_features(&set, &source()), neuronpedia::bulk_activations(&set, &source()));
    let text = neuronpedia::to_lines(&features).unwrap();
    comes_back(&features, &neuronpedia::from_lines::<BulkFeature>(&text).unwrap());
    assert!(text.contains("\"vectorDefaultSteerStrength\"") && text.contains("\"neg_str\""));
    let text = neuronpedia::to_lines(&activations).unwrap();
    comes_back(&activations, &neuronpedia::from_lines::<BulkActivation>(&text).unwrap());
    assert!(text.contains("\"maxValueTokenIndex\"") && text.contains("\"layer\":\"1-mlp-test\""));
    let mut ids: Vec<&String> = activations.iter().map(|line| &line.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), activations.len());
    let error =
        neuronpedia::from_lines::<BulkFeature>(&format!("{}\nx", text.lines().next().unwrap())).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn delphi_comes_back_and_holds_every_activation() {
    let model = model("tl-ln", FloatType::F32);
    let (sae, tokens, options) =
        (Sae::random(HookPoint::MlpPost(1), 12, 5, 3), prompts(&model, 8, 7, 4), options());
    let run = FeatureRun {
        model: &model,
        model_name: "m",
        source: &sae,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    let mut store = MemoryStore::default();
    collect(&run, 0..8, &mut store, &mut |_| ()).unwrap();
    let stores = [&store as &dyn TensorStore];
    let splits = delphi::cache(&stores, 2).unwrap();
    assert_eq!(
        splits.iter().map(Split::file_name).collect::<Vec<_>>(),
        ["0_1.safetensors", "2_4.safetensors"]
    );
    for split in &splits {
        let tensors = split.to_tensors().into_iter().collect();
        assert_eq!(Split::from_tensors(&split.file_name(), &tensors).unwrap(), *split);
        assert!(Split::from_tensors("x.safetensors", &tensors).is_err());
        assert!(Split::from_tensors("0_0.safetensors", &tensors).is_err());
    }
    let mut sink = |data: burn_lens_sae::features::FeatureData| {
        let of = splits.iter().flat_map(|split| split.locations.iter().zip(&split.activations));
        let found: Vec<f32> = of.filter(|(at, _)| at[2] as usize == data.feature).map(|(_, &x)| x).collect();
        assert_eq!(found.len() as u64, data.statistics.n_active);
        assert_eq!(found.iter().copied().fold(0.0, f32::max), data.statistics.max);
        Ok(())
    };
    build(&run, &stores, &mut sink, &mut |_| ()).unwrap();
}

#[test]
fn a_prompt_is_seen_through_the_features_of_a_corpus() {
    let model = model("tl-ln", FloatType::F32);
    let (sae, tokens, options) =
        (Sae::random(HookPoint::MlpPost(1), 12, 5, 3), prompts(&model, 8, 7, 4), options());
    let set = extract(&model, &sae, &tokens, &options);
    let run = FeatureRun {
        model: &model,
        model_name: "m",
        source: &sae,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    let mut quantile =
        |feature: usize, activation| Some(set.features[feature].statistics.quantile_of(activation));
    let found = prompt_features(&run, &mut quantile).unwrap();
    assert!(!found.is_empty());
    for feature in &found {
        // The corpus holds this prompt: the same numbers are in it.
        let data = &set.features[feature.feature];
        assert!(feature.activation <= data.statistics.max);
        let quantile = feature.quantile.unwrap();
        assert!((1.0 - data.statistics.density()..=1.0).contains(&quantile), "{quantile}");
        assert_eq!(feature.loss_effect.is_none(), feature.position == 6, "the last token has no next");
        for sequence in data.groups.iter().flat_map(|group| &group.sequences).filter(|s| s.prompt == 0) {
            if let Some(at) =
                (feature.position + 1).checked_sub(sequence.start).filter(|&at| at < sequence.tokens.len())
            {
                let (found, expected) = (feature.loss_effect.unwrap(), sequence.loss_effects[at].unwrap());
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} {expected}");
            }
        }
    }
    for metric in [PromptMetric::Activation, PromptMetric::Quantile, PromptMetric::LossEffect] {
        let ranked = metric.ranked(&found, 3);
        let value = |feature: &&burn_lens_sae::features::PromptFeature| match metric {
            PromptMetric::Activation => f64::from(feature.activation),
            PromptMetric::Quantile => feature.quantile.unwrap(),
            PromptMetric::LossEffect => -f64::from(feature.loss_effect.unwrap()),
        };
        assert!(ranked.is_sorted_by(|a, b| value(a) >= value(b)));
    }
}
