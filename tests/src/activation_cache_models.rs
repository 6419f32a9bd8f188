//! The residual stream of random models, of a model of a user's own, and through a tuned lens.

use burn_lens::{
    analysis::{
        AttributionOptions, LensOptions, Residuals, StackOptions, Sublayers, TunedLens, Unit,
        direct_logit_attribution, logit_lens,
    },
    hooks::{BlockLayout, NormPlacement},
    models::{
        AttentionConfig, MlpBias, MlpConfig, MlpKind, NormConfig,
        components::{ActFn, Positions},
        random_parameters,
    },
    prelude::*,
    tensor::{MemoryWeights, NormKind},
};
use burn_lens_testkit::{Tolerance, assert_close, finest};
use proptest::prelude::*;

use crate::common::{cached, open};

/// Sums of many parts may cancel: ten times the tolerance of one activation.
fn tolerance() -> Tolerance {
    Tolerance(10.0 * Tolerance::of(finest()).0)
}

/// A model of a random configuration with random weights.
fn random_model(choice: [usize; 8], seed: u64) -> HookedTransformer {
    with_random_weights(random_config(choice, seed), seed)
}

/// A random configuration.
pub(crate) fn random_config(choice: [usize; 8], seed: u64) -> ModelConfig {
    let [n_layers, kv, group, layout, placement, norm, mlp, positions] = choice;
    let kinds = [NormKind::Layer, NormKind::Rms, NormKind::None];
    let config = ModelConfig {
        architecture: "HookedTransformer".to_owned(),
        n_layers,
        d_model: 12,
        n_ctx: 8,
        d_vocab: 11,
        attention: AttentionConfig {
            n_kv_heads: kv,
            qkv_bias: seed.is_multiple_of(2),
            out_bias: seed.is_multiple_of(3),
            ..AttentionConfig::plain(kv * group, 5, n_layers)
        },
        mlp: (mlp > 0).then(|| MlpConfig {
            d_mlp: 9,
            act_fn: ActFn::GeluTanh,
            kind: if mlp == 1 { MlpKind::Plain } else { MlpKind::Gated },
            bias: MlpBias::projections(seed.is_multiple_of(2)),
        }),
        norm: NormConfig::plain(
            kinds[norm],
            1e-5,
            [NormPlacement::Pre, NormPlacement::Post, NormPlacement::Both][placement],
        ),
        positions: [Positions::None, Positions::Learned, Positions::Alibi][positions].clone(),
        layout: [BlockLayout::Sequential, BlockLayout::Parallel][layout],
        ..open("tl-ln", finest()).0.config().clone()
    };
    ModelConfig { d_vocab_out: config.d_vocab, ..config }
}

/// A model with random weights, biases and norm weights.
pub(crate) fn with_random_weights(config: ModelConfig, seed: u64) -> HookedTransformer {
    let params = random_parameters(&config, seed, &burn_lens_testkit::device(), finest());
    // Biases and norm weights that are not 0 and 1.
    let shifted = params.map(|param, tensor| match tensor {
        AnyTensor::Float1(x) => {
            let at = param.to_string().len() as f64;
            let wave: Vec<f64> = (0..x.dims()[0]).map(|i| 0.3 * (at + 1.7 * i as f64).sin()).collect();
            let wave = burn::tensor::TensorData::new(wave, [x.dims()[0]]);
            AnyTensor::Float1(x.clone() + Tensor::from_data(wave, (&x.device(), x.dtype())))
        }
        tensor => tensor,
    });
    HookedTransformer::new(config, shifted).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_sum_in_random_models(
        choice in (1usize..4, 1usize..3, 1usize..3, 0usize..2, 0usize..3, 0usize..3, 0usize..3, 0usize..3),
        seed in 0u64..1000,
        slice in prop::sample::select(vec![Slice::All, Slice::Index(-1), Slice::range(1, 4), Slice::List(vec![4, 0])]),
    ) {
        let (a, b, c, d, e, f, g, h) = choice;
        let model = random_model([a, b, c, d, e, f, g, h], seed);
        let tokens = Tensor::<2, Int>::from_data([[1, 5, 3, 9, 0], [4, 4, 10, 2, 7]], &model.device());
        let cache = cached(&model, &tokens, &[]);
        let residuals = Residuals::new(&model, &cache).unwrap();
        let options = StackOptions { pos_slice: slice.clone(), ..StackOptions::default() };
        let streams = residuals.accumulated_resid(&options, false).unwrap();
        let whole = streams.values().narrow(0, streams.len() - 1, 1).squeeze_dim::<3>(0).into_data();
        let parts = residuals.decompose_resid(&options, Sublayers::All, true).unwrap();
        assert_close("decomposed", &parts.sum().into_data(), &whole, tolerance());
        let full = residuals.get_full_resid_decomposition(&options, true, None).unwrap();
        assert_close("full", &full.sum().into_data(), &whole, tolerance());
        let logits = AnyTensor::from(cache.tensor::<Tensor<3>>("unembed.hook_out").unwrap());
        let logits: Tensor<3> = logits.slice_axis(1, &slice).unwrap().try_into().unwrap();
        let expected = logits.clone().narrow(2, 3, 1).squeeze_dim::<2>(2);
        for by in [Unit::Component, Unit::Head, Unit::Neuron, Unit::Source] {
            let options =
                AttributionOptions { answers: 3.into(), against: None, by, pos_slice: slice.clone() };
            let attrs = direct_logit_attribution(&residuals, &options).unwrap();
            let what = format!("{choice:?} {seed} by {by:?}");
            assert_close(&what, &attrs.total().into_data(), &expected.clone().into_data(), tolerance());
        }
    }
}

/// Two embeddings summed and unembedded: a model of a user's own.
pub(crate) struct Bigram {
    pub(crate) w_e: Tensor<2>,
    pub(crate) w_u: Tensor<2>,
}

impl HookedModel for Bigram {
    fn dims(&self) -> burn_lens::hooks::ModelDims {
        let [d_vocab, d_model] = self.w_e.dims();
        burn_lens::hooks::ModelDims {
            d_model,
            d_vocab,
            d_vocab_out: d_vocab,
            n_layers: 1,
            ..Default::default()
        }
    }

    fn firing(&self) -> burn_lens::hooks::Firing {
        let always =
            vec![HookPoint::Embed, HookPoint::ResidPre(0), HookPoint::MlpOut(0), HookPoint::ResidPost(0)];
        burn_lens::hooks::Firing { always, ..Default::default() }
    }

    fn device(&self) -> Device {
        self.w_e.device()
    }

    fn param(&self, param: Param) -> Option<AnyTensor> {
        (param == Param::WU).then(|| self.w_u.clone().into())
    }

    fn wiring(&self) -> Option<burn_lens::hooks::Wiring> {
        Some(burn_lens::hooks::Wiring {
            layout: BlockLayout::Sequential,
            placement: NormPlacement::Pre,
            norm: NormKind::None,
            final_norm: NormKind::None,
            eps: 0.0,
            causal: true,
            clip_qkv: None,
            logits_soft_cap: None,
        })
    }

    fn forward(
        &self,
        input: &Input,
        _: &RunOptions,
        hooks: &mut burn_lens::hooks::Hooks<'_>,
    ) -> Result<burn_lens::hooks::Output, burn_lens::hooks::RunError> {
        let Input::Embeds(x) = input else { unreachable!() };
        let x = hooks.at(HookPoint::Embed, x.clone());
        let x = hooks.at(HookPoint::ResidPre(0), x);
        let mlp = hooks.at(HookPoint::MlpOut(0), x.clone() * 0.5);
        let x = hooks.at(HookPoint::ResidPost(0), x + mlp);
        Ok(burn_lens::hooks::Output {
            logits: Some(x.matmul(self.w_u.clone().unsqueeze())),
            ..Default::default()
        })
    }
}

/// Nothing here needs our own transformer.
#[test]
fn a_model_of_a_users_own_is_taken_apart() {
    let device = burn_lens_testkit::device();
    let model = Bigram {
        w_e: Tensor::from_data([[1.0, 2.0], [3.0, -1.0]], &device),
        w_u: Tensor::from_data([[1.0, 0.0], [0.5, 2.0]], &device),
    };
    let input = Input::Embeds(Tensor::from_data([[[1.0, 2.0], [3.0, -1.0]]], &device));
    let (output, cache) =
        model.run_with_cache(&input, &RunOptions::default(), &CacheOptions::default()).unwrap();
    let residuals = Residuals::new(&model, &cache).unwrap();
    let mlp = residuals.decompose_resid(&StackOptions::default(), Sublayers::All, true).unwrap();
    assert_eq!(mlp.labels(), ["embed", "0_mlp_out"]);
    let attrs = residuals.logit_attrs(&mlp, 1, None).unwrap();
    let logits = output.into_logits().unwrap().narrow(2, 1, 1).squeeze_dim::<2>(2);
    assert_close("a user's model", &attrs.total().into_data(), &logits.into_data(), Tolerance::F32);
}

/// A tuned lens maps each stream before the final norm; the last stream is the model's own.
#[test]
fn a_tuned_lens_is_an_affine_map_for_each_layer() {
    let (model, golden) = open("gpt2", finest());
    let tokens = golden.ints("tokens", &model.device());
    let cache = cached(&model, &tokens, &[]);
    let residuals = Residuals::new(&model, &cache).unwrap();
    let (n_layers, d_model) = (model.config().n_layers, model.config().d_model);
    let wave = |count: usize, at: f64| -> Vec<f64> {
        (0..count).map(|i| 0.1 * (at + 0.37 * i as f64).sin()).collect()
    };
    let mut tensors = std::collections::BTreeMap::new();
    for layer in 0..n_layers {
        let (w, b) = (wave(d_model * d_model, layer as f64), wave(d_model, -1.0 - layer as f64));
        tensors.insert(format!("{layer}.weight"), burn::tensor::TensorData::new(w, [d_model, d_model]));
        tensors.insert(format!("{layer}.bias"), burn::tensor::TensorData::new(b, [d_model]));
    }
    let mut weights = MemoryWeights::new(tensors.clone());
    let tuned = TunedLens::load(&model, &mut weights).unwrap();
    let options = LensOptions { top_k: 1, targets: vec![3], ..LensOptions::default() };
    let lens = logit_lens(&residuals, &options, Some(&tuned)).unwrap();
    let plain = logit_lens(&residuals, &options, None).unwrap();
    assert_eq!(lens.cells.last(), plain.cells.last());

    // The first stream by hand: x + W x + b, then the model from the last layer on.
    let x: Tensor<3> = cache.tensor("blocks.0.hook_resid_pre").unwrap();
    let (device, dtype) = (x.device(), x.dtype());
    let w = Tensor::<2>::from_data(tensors["0.weight"].clone(), (&device, dtype));
    let b = Tensor::<1>::from_data(tensors["0.bias"].clone(), (&device, dtype));
    let mapped = x.clone() + x.matmul(w.transpose().unsqueeze()) + b.unsqueeze();
    let options = RunOptions { start_at_layer: Some(n_layers as isize), ..RunOptions::default() };
    let output = model.run_with_hooks(&Input::Resid(mapped), &options, vec![]).unwrap();
    let expected: Vec<f64> = output.into_logits().unwrap().narrow(2, 3, 1).into_data().iter().collect();
    let found: Vec<f64> = lens.cells[0].iter().flatten().map(|cell| cell.targets[0].logit).collect();
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < Tolerance::finest(1e-8).0, "{found} against {expected}");
    }

    tensors.remove("1.bias");
    let error = TunedLens::load(&model, &mut MemoryWeights::new(tensors)).unwrap_err();
    assert!(error.to_string().contains("`1.bias`"), "{error}");
}
