//! The result depends on nothing but model, dictionary, tokens and what is asked for.

use burn_lens_hooks::HookPoint;
use burn_lens_sae::features::{
    FeatureChoice, FeatureData, FeatureOptions, FeatureRun, MemoryStore, TensorStore, build, collect, shard,
};
use burn_lens_tensor::FloatType;
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
