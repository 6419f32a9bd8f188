//! Faults of the original in how it runs: numbers as in the table of faults in `docs/feature-data.md`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use burn_lens_hooks::{
    Firing, HookPoint, HookedModel, Hooks, Input, ModelDims, Output, Param, ReturnType, RunError, RunOptions,
    Wiring,
};
use burn_lens_models::HookedTransformer;
use burn_lens_sae::features::{
    FeatureChoice, FeatureData, FeatureOptions, FeatureRun, FeatureSet, FeatureSource, GroupKind,
    MemoryStore, SequenceOptions, SparseRows, StoreError, TensorStore, Window, collect, get_feature_data,
};
use burn_lens_tensor::{
    AnyTensor, FloatType,
    burn::tensor::{Device, Tensor, TensorData},
};
use burn_lens_testkit::device;

use crate::common::{Sae, extract, model, options, prompts};

const HOOK: HookPoint = HookPoint::ResidPost(1);

#[test]
fn faults_3_5_and_13_any_window_fits_any_prompt_and_few_are_enough() {
    let model = model("tl-ln", FloatType::F32);
    let (sae, tokens) = (Sae::random(HOOK, 8, 4, 5), prompts(&model, 9, 8, 2));
    for (before, after) in [(0, 0), (5, 0), (0, 3), (2, 2), (10, 10), (usize::MAX, usize::MAX)] {
        for window in [Window::Around { before, after }, Window::Inside { before, after }, Window::Prompt] {
            let sequences =
                SequenceOptions { window, n_top: 1000, n_per_interval: 1000, ..options().sequences };
            for data in extract(&model, &sae, &tokens, &FeatureOptions { sequences, ..options() }).features {
                fits(&data, window, &tokens);
            }
        }
    }
}

fn fits(data: &FeatureData, window: Window, tokens: &burn_lens_sae::features::TokenTable) {
    let n = tokens.n_positions();
    for sequence in data.groups.iter().flat_map(|group| &group.sequences) {
        let shown = sequence.start..sequence.start + sequence.tokens.len();
        assert_eq!(sequence.tokens, tokens.tokens(sequence.prompt..sequence.prompt + 1)[shown.clone()]);
        assert!(sequence.target_activation() > 0.0, "{window:?}");
        let target = sequence.start + sequence.target;
        match window {
            Window::Around { before, after } => {
                let start = target.saturating_sub(before);
                assert_eq!(shown, start..target.saturating_add(after).saturating_add(1).min(n));
            }
            Window::Inside { before, after } => {
                assert!(shown.start > 0 && sequence.target == before && shown.len() == before + after + 1);
            }
            Window::Prompt => assert_eq!(shown, 0..n),
        }
    }
    let top = data.groups.iter().find(|group| group.kind == GroupKind::Top);
    if !matches!(window, Window::Inside { .. }) {
        let all = top.map_or(0, |group| group.sequences.len()) as u64;
        assert_eq!(all, data.statistics.n_active, "fewer than asked for are all there are");
    }
}

/// A dictionary that counts how often it is asked.
struct Counting<'a> {
    sae: &'a Sae,
    encoded: AtomicUsize,
}

impl FeatureSource for Counting<'_> {
    fn name(&self) -> &str {
        self.sae.name()
    }
    fn n_features(&self) -> usize {
        self.sae.n_features()
    }
    fn hook_in(&self) -> HookPoint {
        self.sae.hook_in()
    }
    fn d_in(&self) -> usize {
        self.sae.d_in()
    }
    fn encode(&self, x: Tensor<3>) -> Result<SparseRows, StoreError> {
        self.encoded.fetch_add(1, Ordering::Relaxed);
        self.sae.encode(x)
    }
    fn directions(&self, features: &[usize]) -> Result<Tensor<2>, StoreError> {
        self.sae.directions(features)
    }
}

/// A model that remembers how it was run.
struct Watched<'a> {
    model: &'a HookedTransformer,
    runs: Mutex<Vec<RunOptions>>,
}

impl HookedModel for Watched<'_> {
    fn dims(&self) -> ModelDims {
        self.model.dims()
    }
    fn firing(&self) -> Firing {
        self.model.firing()
    }
    fn device(&self) -> Device {
        self.model.device()
    }
    fn forward(
        &self,
        input: &Input,
        options: &RunOptions,
        hooks: &mut Hooks<'_>,
    ) -> Result<Output, RunError> {
        self.runs.lock().unwrap().push(options.clone());
        self.model.forward(input, options, hooks)
    }
    fn param(&self, param: Param) -> Option<AnyTensor> {
        self.model.param(param)
    }
    fn wiring(&self) -> Option<Wiring> {
        self.model.wiring()
    }
}

/// Extracts, and gives how often the dictionary encoded and how the model was run.
fn watched(model: &HookedTransformer, sae: &Sae, options: &FeatureOptions) -> (usize, Vec<RunOptions>) {
    let tokens = prompts(model, 9, 8, 2);
    let model = Watched { model, runs: Mutex::default() };
    let source = Counting { sae, encoded: AtomicUsize::new(0) };
    let run = FeatureRun {
        model: &model,
        model_name: "m",
        source: &source,
        source_b: None,
        tokens: &tokens,
        options,
    };
    get_feature_data(&run).unwrap();
    (source.encoded.into_inner(), model.runs.into_inner().unwrap())
}

#[test]
fn faults_29_and_38_the_model_and_the_dictionary_run_once_however_many_features() {
    let model = model("tl-ln", FloatType::F32);
    let sae = Sae::random(HookPoint::MlpPost(0), 12, 40, 5);
    for features in [FeatureChoice::Some(vec![3]), FeatureChoice::All] {
        for memory in [1, 1 << 30] {
            let options = FeatureOptions { features: features.clone(), memory, ..options() };
            let (encoded, runs) = watched(&model, &sae, &options);
            assert_eq!((encoded, runs.len()), (3, 3), "nine prompts, three at once");
        }
    }
}

#[test]
fn fault_45_nothing_is_run_that_is_not_needed() {
    let model = model("tl-ln", FloatType::F32);
    let sae = Sae::random(HookPoint::MlpPost(0), 12, 4, 5);
    let (_, runs) = watched(&model, &sae, &options());
    assert!(runs.iter().all(|run| run.return_type == ReturnType::None && run.stop_at_layer.is_none()));
    let sequences = SequenceOptions { n_hover: 0, ..options().sequences };
    let (_, runs) = watched(&model, &sae, &FeatureOptions { sequences, ..options() });
    assert!(runs.iter().all(|run| run.return_type == ReturnType::None && run.stop_at_layer == Some(1)));
}

/// A store that knows how much was put into it.
#[derive(Default)]
struct Weighed {
    store: MemoryStore,
    bytes: BTreeMap<String, usize>,
}

impl TensorStore for Weighed {
    fn put(&mut self, name: &str, tensors: Vec<(String, TensorData)>) -> Result<(), StoreError> {
        self.bytes.insert(name.to_owned(), tensors.iter().map(|(_, data)| data.bytes().len()).sum());
        self.store.put(name, tensors)
    }
    fn get(&self, name: &str) -> Result<BTreeMap<String, TensorData>, StoreError> {
        self.store.get(name)
    }
    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.store.remove(name)
    }
    fn put_text(&mut self, name: &str, text: &str) -> Result<(), StoreError> {
        self.store.put_text(name, text)
    }
    fn get_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.store.get_text(name)
    }
}

#[test]
fn fault_37_activations_are_kept_sparse() {
    let model = model("tl-ln", FloatType::F32);
    let mut sae = Sae::random(HOOK, 8, 300, 5);
    sae.b_enc.iter_mut().for_each(|b| *b -= 8.0);
    let (tokens, options) = (prompts(&model, 9, 8, 2), options());
    let run = FeatureRun {
        model: &model,
        model_name: "m",
        source: &sae,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    let mut store = Weighed::default();
    collect(&run, 0..9, &mut store, &mut |_| ()).unwrap();
    let codes = store.bytes.iter().filter(|(name, _)| name.starts_with("codes")).map(|(_, bytes)| bytes);
    let codes: usize = codes.sum();
    let active: u64 =
        get_feature_data(&run).unwrap().features.iter().map(|data| data.statistics.n_active).sum();
    // An index and a value for each activation; a token, its role and the start of its row.
    assert_eq!(codes, active as usize * 8 + 72 * (4 + 1 + 8) + 3 * 8);
    assert!(active > 0 && codes < 72 * 300 * 4 / 4, "a quarter of the dense size: {codes}");
}

#[test]
fn fault_39_pickles_and_other_files_are_no_feature_data() {
    for text in ["\u{80}\u{4}\u{95}cposix\nsystem\n", "cbuiltins\neval\n(V1+1\ntR.", "{\"schema\": 1"] {
        let error = FeatureSet::from_json(text).unwrap_err().to_string();
        assert!(error.contains("no feature data"), "{error}");
    }
}

#[test]
fn fault_44_tokens_come_to_the_model_wherever_it_is() {
    let model = model("tl-ln", FloatType::F32);
    let (tokens, mask) = prompts(&model, 3, 4, 1).input(1..3, &model.device());
    assert_eq!((tokens.dims(), tokens.device(), mask.is_none()), ([2, 4], device(), true));
}
