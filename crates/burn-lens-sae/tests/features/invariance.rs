//! The result depends on nothing but model, dictionary, tokens and what is asked for.

use std::{collections::BTreeMap, error::Error as _};

use burn_lens_hooks::HookPoint;
use burn_lens_sae::features::{
    Correlate, FeatureChoice, FeatureData, FeatureOptions, FeatureRun, FeatureSource, MemoryStore,
    StoreError, TensorStore, Vectors, build, collect, shard,
};
use burn_lens_tensor::{FloatType, burn::tensor::TensorData};
use proptest::prelude::*;

use crate::common::{Sae, model, options, prompts};

/// The features as JSON, run in `n_shards` shards.
fn extracted(run: &FeatureRun<'_>, n_shards: usize) -> Vec<String> {
    let mut stores = Vec::new();
    for index in 1..=n_shards {
        let mut store = MemoryStore::default();
        collect(run, shard(run.tokens.n_prompts(), index, n_shards).unwrap(), &mut store, &mut |_| ())
            .unwrap();
        stores.push(store);
    }
    stores.reverse();
    features(run, &stores)
}

fn features(run: &FeatureRun<'_>, stores: &[MemoryStore]) -> Vec<String> {
    let stores: Vec<&dyn TensorStore> = stores.iter().map(|store| store as &dyn TensorStore).collect();
    let mut found = Vec::new();
    let mut sink = |data: FeatureData| {
        found.push(serde_json::to_string(&data).unwrap());
        Ok(())
    };
    build(run, &stores, &mut sink, &mut |_| ()).unwrap();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_batch_size_sharding_memory_and_threads_give_the_same_bytes(
        batch_prompts in 1..20_usize,
        n_shards in 1..8_usize,
        threads in 1..6_usize,
        memory in prop_oneof![Just(1_u64), 1_000..100_000_u64, Just(1 << 30)],
    ) {
        let model = model("tl-ln", FloatType::F32);
        let sae = Sae::random(HookPoint::MlpPost(0), 12, 9, 21);
        let sae_b = Sae::random(HookPoint::MlpPost(1), 12, 4, 22);
        let tokens = prompts(&model, 11, 7, 9);
        let data = |options: &FeatureOptions, n_shards| {
            let run = FeatureRun {
                model: &model, model_name: "test", source: &sae, source_b: Some(&sae_b), tokens: &tokens, options,
            };
            extracted(&run, n_shards)
        };
        let plain = data(&options(), 1);
        let other = data(&FeatureOptions { batch_prompts, threads, memory, ..options() }, n_shards);
        for (plain, other) in plain.iter().zip(&other) {
            let at = plain.bytes().zip(other.bytes()).position(|(a, b)| a != b);
            prop_assert_eq!(at.map(|at| (&plain[at.saturating_sub(40)..at + 20], &other[at.saturating_sub(40)..at + 20])), None);
        }
        prop_assert_eq!(plain.len(), other.len());
    }

    #[test]
    fn a_feature_does_not_depend_on_which_others_are_asked_for(chosen in prop::sample::subsequence((0..9_usize).collect::<Vec<_>>(), 1..9)) {
        let model = model("tl-ln", FloatType::F32);
        let sae = Sae::random(HookPoint::ResidPost(0), 8, 9, 21);
        let tokens = prompts(&model, 5, 7, 9);
        let data = |features| {
            let options = FeatureOptions { features, ..options() };
            let run = FeatureRun { model: &model, model_name: "test", source: &sae, source_b: None, tokens: &tokens, options: &options };
            extracted(&run, 1)
        };
        let all = data(FeatureChoice::All);
        let some = data(FeatureChoice::Some(chosen.iter().rev().copied().collect()));
        for (found, &feature) in some.iter().zip(chosen.iter().rev()) {
            prop_assert_eq!(found, &all[feature]);
        }
    }
}

#[test]
fn features_correlated_with_the_chosen_ones_alone_are_otherwise_the_same() {
    let model = model("tl-ln", FloatType::F32);
    let sae = Sae::random(HookPoint::ResidPost(0), 8, 9, 21);
    let vectors = Vectors {
        name: "vectors".to_owned(),
        labels: (0..6).map(|at| format!("vector {at}")).collect(),
        vectors: sae.directions(&[0, 1, 2, 3, 4, 5]).unwrap(),
        hook: HookPoint::ResidPost(0),
    };
    let tokens = prompts(&model, 5, 7, 9);
    let chosen = [4, 1, 3];
    for source in [&sae as &dyn FeatureSource, &vectors] {
        let data = |correlate| -> Vec<FeatureData> {
            let features = FeatureChoice::Some(chosen.to_vec());
            let options = FeatureOptions { features, correlate, n_table_rows: 9, ..options() };
            let run = FeatureRun {
                model: &model,
                model_name: "test",
                source,
                source_b: None,
                tokens: &tokens,
                options: &options,
            };
            extracted(&run, 2).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
        };
        let all = data(Correlate::All);
        for (correlate, mut found) in
            [(Correlate::Chosen, data(Correlate::Chosen)), (Correlate::None, data(Correlate::None))]
        {
            for (found, all) in found.iter_mut().zip(&all) {
                let mut expected = all.clone();
                expected
                    .correlated_features
                    .retain(|with| correlate == Correlate::Chosen && chosen.contains(&with.index));
                assert_eq!(*found, expected, "{correlate:?} of {}", source.name());
                assert!(all.correlated_features.len() > expected.correlated_features.len());
            }
        }
    }
}

/// A store that fails after some writes, as a full disk or a killed process would.
struct Failing {
    store: MemoryStore,
    left: usize,
}

impl TensorStore for Failing {
    fn put(&mut self, name: &str, tensors: Vec<(String, TensorData)>) -> Result<(), StoreError> {
        self.left = self.left.checked_sub(1).ok_or("the disk is full")?;
        self.store.put(name, tensors)
    }
    fn get(&self, name: &str) -> Result<BTreeMap<String, TensorData>, StoreError> {
        self.store.get(name)
    }
    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.store.remove(name)
    }
    fn put_text(&mut self, name: &str, text: &str) -> Result<(), StoreError> {
        self.left = self.left.checked_sub(1).ok_or("the disk is full")?;
        self.store.put_text(name, text)
    }
    fn get_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.store.get_text(name)
    }
}

#[test]
fn an_interrupted_run_goes_on_wherever_it_was_interrupted() {
    let model = model("tl-ln", FloatType::F32);
    let (sae, tokens) = (Sae::random(HookPoint::ResidPost(0), 8, 6, 3), prompts(&model, 10, 6, 1));
    let options = FeatureOptions { batch_prompts: 2, ..options() };
    let run = FeatureRun {
        model: &model,
        model_name: "test",
        source: &sae,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    let whole = extracted(&run, 1);
    let mut interrupted = 0;
    for left in 0..40 {
        let mut store = Failing { store: MemoryStore::default(), left };
        if let Err(error) = collect(&run, 0..10, &mut store, &mut |_| ()) {
            assert!(error.source().is_some_and(|source| source.to_string().contains("full")), "{error}");
            interrupted += 1;
        }
        let mut store = store.store;
        collect(&run, 0..10, &mut store, &mut |_| ()).unwrap();
        assert_eq!(features(&run, &[store]), whole, "after {left} writes");
    }
    assert!(interrupted > 10);
}

#[test]
fn parts_that_make_no_whole_are_refused() {
    let model = model("tl-ln", FloatType::F32);
    let (sae, tokens, options) =
        (Sae::random(HookPoint::ResidPost(0), 8, 6, 3), prompts(&model, 10, 6, 1), options());
    let run = FeatureRun {
        model: &model,
        model_name: "test",
        source: &sae,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    let part = |run: &FeatureRun<'_>, prompts| {
        let mut store = MemoryStore::default();
        collect(run, prompts, &mut store, &mut |_| ()).unwrap();
        store
    };
    let refused = |stores: &[&MemoryStore]| {
        let stores: Vec<&dyn TensorStore> = stores.iter().map(|store| *store as &dyn TensorStore).collect();
        build(&run, &stores, &mut |_| Ok(()), &mut |_| ()).unwrap_err().to_string()
    };
    let (first, second) = (part(&run, 0..4), part(&run, 4..10));
    assert!(refused(&[&first]).contains("prompts 4 to 9 are in none"));
    assert!(refused(&[&second]).contains("prompts 0 to 3 are in none"));
    assert!(refused(&[&first, &second, &first]).contains("are there twice"));
    assert!(refused(&[&MemoryStore::default()]).contains("holds nothing"));
    assert!(refused(&[]).contains("no part at all"));
    let others = prompts(&model, 10, 6, 2);
    let other = part(&FeatureRun { tokens: &others, ..run }, 4..10);
    assert!(refused(&[&first, &other]).contains("fingerprint of the tokens"));
    assert!(shard(10, 3, 2).is_err() && shard(10, 0, 2).is_err());
}

#[test]
fn a_store_holds_one_run() {
    let model = model("tl-ln", FloatType::F32);
    let (sae, tokens, options) =
        (Sae::random(HookPoint::ResidPost(0), 8, 6, 3), prompts(&model, 4, 6, 1), options());
    let run = FeatureRun {
        model: &model,
        model_name: "test",
        source: &sae,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    let mut store = MemoryStore::default();
    collect(&run, 0..4, &mut store, &mut |_| ()).unwrap();
    let error = collect(&run, 0..3, &mut store, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("range of prompts"), "{error}");
    let mut other = sae.clone();
    other.w_dec[0] += 1.0;
    let error = collect(&FeatureRun { source: &other, ..run }, 0..4, &mut store, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("the dictionary's weights"), "{error}");
    let error =
        collect(&FeatureRun { model_name: "other", ..run }, 0..4, &mut store, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("the model"), "{error}");
}
