//! Features of a dictionary as places of interventions: sweeps equal a plain loop of spliced runs.

use std::sync::Arc;

use burn::tensor::TensorData;
use burn_lens::{
    analysis::interventions::{Edit, Engine, EngineOptions, Intervention, Metric, Sweep, SweepAxis},
    hooks::{SaeHook, SaeHost},
    load_sae,
    prelude::*,
    sae::{SaeModel as _, SaeOptions, SplicedSae, read_sae_lens, sae_hooks},
    tensor::MemoryWeights,
};
use burn_lens_testkit::finest;
use proptest::prelude::*;

use crate::{
    causal::Pair,
    interventions::{POS, close, random_model},
};

const FEATURES: usize = 7;

/// A dictionary of the vectors at `host` with weights that are waves.
fn dictionary(model: &HookedTransformer, host: HookPoint, seed: u64) -> SplicedSae {
    let dims = model.dims();
    let width: usize = host.axes().iter().skip(2).map(|&axis| dims.len_of(axis).unwrap()).product();
    let wave = |name: &str, shape: &[usize], size: f64| {
        let at = seed as f64 + name.len() as f64;
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|i| size * (at + 2.3 * i as f64).sin()).collect();
        (name.to_owned(), TensorData::new(values, shape))
    };
    let mut weights = MemoryWeights::new([
        wave("W_enc", &[width, FEATURES], 0.8),
        wave("W_dec", &[FEATURES, width], 0.6),
        wave("b_enc", &[FEATURES], 0.3),
        wave("b_dec", &[width], 0.1),
    ]);
    let config = format!(r#"{{"d_in": {width}, "d_sae": {FEATURES}, "hook_name": "{host}"}}"#);
    let options = SaeOptions { dtype: finest(), ..SaeOptions::on(&model.device()) };
    SplicedSae::new(read_sae_lens(&config, "cfg.json", &mut weights, &options).unwrap())
}

fn acts(host: HookPoint) -> HookPoint {
    HookPoint::Sae(SaeHost::new(host).unwrap(), SaeHook::ActsPost)
}

/// One feature at one position becomes zero, that of the clean run, or twice what it is.
#[derive(Clone, Copy, Debug)]
struct Cell {
    feature: usize,
    pos: usize,
    kind: usize,
}

impl Cell {
    fn all() -> Vec<Self> {
        let at = |feature| (0..POS).map(move |pos| Self { feature, pos, kind: (feature + pos) % 3 });
        (0..FEATURES).step_by(2).flat_map(at).collect()
    }

    fn intervention(self, at: HookPoint, clean: &Arc<ActivationCache>) -> Intervention {
        let one = match self.kind {
            0 => Intervention::zero(at),
            1 => Intervention::patch(at, clean),
            _ => Intervention::new(at, Edit::Scale(2.0)),
        };
        one.units(Slice::Index(self.feature as isize)).pos(Slice::Index(self.pos as isize))
    }

    fn hook(self, at: HookPoint, clean: &Arc<ActivationCache>) -> Hook<'_> {
        Hook::edit(at, move |x: Tensor<3>, _: &mut HookContext<'_>| {
            let batch = x.dims()[0];
            let place = [0..batch, self.pos..self.pos + 1, self.feature..self.feature + 1];
            let old = x.clone().slice(place.clone());
            let new = match self.kind {
                0 => old.zeros_like(),
                1 => clean.tensor::<Tensor<3>>(at).unwrap().slice(place.clone()),
                _ => old * 2.0,
            };
            x.slice_assign(place, new)
        })
    }
}

/// Token 3 less token 4 at the last position.
fn measured(logits: Tensor<3>) -> Vec<f64> {
    let [batch, pos, d_vocab] = logits.dims();
    let logits: Vec<f64> = logits.into_data().iter().collect();
    let row = |row: usize| (row * pos + pos - 1) * d_vocab;
    (0..batch).map(|at| logits[row(at) + 3] - logits[row(at) + 4]).collect()
}

fn ids(model: &HookedTransformer, ids: [[i64; POS]; 2]) -> Input {
    Input::Tokens(Tensor::<2, Int>::from_data(ids, &model.device()))
}

/// Compares a sweep over features with a loop of spliced runs; how many cells were run in full.
#[track_caller]
fn check(model: &HookedTransformer, sae: &SplicedSae, host: HookPoint) -> usize {
    let clean = ids(model, [[1, 5, 3, 9, 0, 2], [4, 4, 10, 2, 7, 1]]);
    let corrupt = ids(model, [[1, 5, 8, 9, 0, 2], [4, 4, 10, 2, 6, 1]]);
    let (run, at) = (RunOptions::default(), acts(host));
    let saes = std::slice::from_ref(sae);
    let names = CacheOptions::names([at]);
    let cache = Arc::new(model.run_with_cache_with_saes(&clean, &run, saes, &names).unwrap().1);
    let cells = Cell::all();
    let sweep = Sweep::list(
        SweepAxis::counted("cell", cells.len()),
        cells.iter().map(|cell| vec![cell.intervention(at, &cache)]).collect(),
    );
    let (found, full) = {
        let _spliced = model.hook_scope(sae_hooks(model, saes).unwrap()).unwrap();
        let options = EngineOptions { verify: 3, ..EngineOptions::default() };
        let engine =
            Engine::new(model, corrupt.clone(), &run, &Metric::logit_diff([3], [4]), options).unwrap();
        (engine.sweep(&sweep).unwrap(), engine.prepare(&sweep).unwrap().cost().full)
    };
    for (cell, found) in cells.iter().zip(&found.cells) {
        let hooks = vec![cell.hook(at, &cache)];
        let output = model.run_with_hooks_with_saes(&corrupt, &run, saes, hooks).unwrap();
        let expected = measured(output.into_logits().unwrap());
        assert!(close(found, &expected), "{host} {cell:?}: {found:?} against {expected:?}");
    }
    full
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sweeps_over_features_equal_spliced_runs(
        choice in (1usize..4, 1usize..3, 1usize..3, 0usize..2, 0usize..3, 0usize..3, 0usize..3, 0usize..3),
        extras in 0usize..256,
        host in 0usize..7,
        error_term in any::<bool>(),
        seed in 0u64..1000,
    ) {
        let (a, b, c, d, e, f, g, h) = choice;
        let model = random_model([a, b, c, d, e, f, g, h], extras, seed);
        let last = a - 1;
        let host = [
            HookPoint::ResidPre(last),
            HookPoint::ResidPre(0),
            HookPoint::AttnZ(0),
            HookPoint::AttnOut(last),
            HookPoint::ResidMid(0),
            HookPoint::MlpOut(last),
            HookPoint::ResidPost(last),
        ][host];
        let host = if model.firing().always.contains(&host) { host } else { HookPoint::ResidPost(0) };
        let sae = dictionary(&model, host, seed);
        let sae = if error_term { sae.with_error_term() } else { sae };
        prop_assert_eq!(check(&model, &sae, host), 0);
    }
}

/// Where the dictionary stands before the keys, or knows more than its own position, all is run.
#[test]
fn what_reuse_does_not_cover_is_run_in_full() {
    let model = random_model([2, 1, 2, 0, 0, 0, 1, 1], 0, 5);
    let host = HookPoint::AttnV(1);
    assert!(check(&model, &dictionary(&model, host, 1), host) > 0);
    let host = HookPoint::ResidPost(0);
    let sae = dictionary(&model, host, 1);
    assert_eq!(check(&model, &sae, host), 0);
    assert!(check(&model, &sae.excluding([9]), host) > 0);
}

/// Activations of features have gradients: behind the last block without a final norm, estimates are
/// exact.
#[test]
fn features_are_attributed() {
    let model = random_model([2, 1, 2, 0, 0, 2, 1, 1], 0, 5);
    let host = HookPoint::ResidPost(1);
    let sae = dictionary(&model, host, 2).with_error_term();
    let _spliced = model.hook_scope(sae_hooks(&model, &[sae]).unwrap()).unwrap();
    let corrupt = ids(&model, [[1, 5, 8, 9, 0, 2], [4, 4, 10, 2, 6, 1]]);
    let metric = Metric::logit_diff([3], [4]);
    let engine =
        Engine::new(&model, corrupt, &RunOptions::default(), &metric, EngineOptions::default()).unwrap();
    let cell = |feature| vec![Intervention::zero(acts(host)).units(Slice::Index(feature))];
    let sweep =
        Sweep::list(SweepAxis::counted("feature", FEATURES), (0..FEATURES as isize).map(cell).collect());
    let (exact, estimated) = (engine.sweep(&sweep).unwrap(), engine.attribute(&sweep).unwrap());
    for (exact, estimated) in exact.cells.iter().zip(&estimated.cells) {
        assert!(close(estimated, exact), "{estimated:?} against {exact:?}");
    }
    assert!(exact.cells.iter().any(|cell| !close(cell, &exact.base)), "some feature does something");
}

/// The bundled dictionary on the bundled model: a feature's name is a hook and a number.
#[test]
fn features_of_the_bundled_dictionary() {
    let pair = Pair::open();
    let (model, input, run) = (&pair.lens.model, Input::from(&pair.clean), RunOptions::default());
    let options = SaeOptions { dtype: finest(), ..SaeOptions::on(&model.device()) };
    let sae = SplicedSae::new(load_sae("demo", &options).unwrap()).with_error_term();
    let host = sae.sae.config().hook_in().unwrap();
    let names = CacheOptions::names([acts(host)]);
    let saes = [sae];
    let (output, cache) = model.run_with_cache_with_saes(&input, &run, &saes, &names).unwrap();
    let plain = model.run_with_hooks(&input, &run, vec![]).unwrap();
    assert_eq!(output.into_logits().unwrap().into_data(), plain.into_logits().unwrap().into_data());

    let acts_post: Tensor<3> = cache.tensor(acts(host)).unwrap();
    let [_, pos, features] = acts_post.dims();
    let values: Vec<f64> = acts_post.into_data().iter().collect();
    let active: Vec<usize> =
        (0..features).filter(|&feature| values[(pos - 1) * features + feature] > 0.0).collect();
    assert!(!active.is_empty() && active.len() < features / 4, "{} of {features}", active.len());

    let _spliced = model.hook_scope(sae_hooks(model, &saes).unwrap()).unwrap();
    let engine = pair.on(&pair.clean);
    let cell = |&feature: &usize| {
        vec![Intervention::zero(acts(host)).units(Slice::Index(feature as isize)).pos(Slice::Index(-1))]
    };
    let labels = active.iter().map(ToString::to_string).collect();
    let sweep = Sweep::list(SweepAxis::new("feature", labels), active.iter().map(cell).collect());
    let cost = engine.prepare(&sweep).unwrap().cost();
    assert_eq!((cost.cells, cost.full), (active.len(), 0));
    assert!(cost.forwards < 0.5 * active.len() as f64, "{cost:?}");
    let result = engine.sweep(&sweep).unwrap();
    let base = result.base_value();
    assert!(result.values().iter().any(|value| (value - base).abs() > 0.05), "{result:?}");
}
