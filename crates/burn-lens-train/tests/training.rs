//! Training differentiates the model that is analysed, goes down, and is reproducible.

use burn::tensor::{Device, TensorData};
use burn_lens_models::{
    AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, ModelConfig, ModelError,
    NormConfig, NormPlacement, Param, Parameters,
    components::{ActFn, NormKind, Positions},
    random_parameters,
};
use burn_lens_tensor::{AnyTensor, DeviceSpec, FloatType};
use burn_lens_train::{Batch, TrainConfig, TrainError, Trainable, Trainer, train, train_from};

const D_VOCAB: usize = 7;

#[test]
fn gradients_agree_with_finite_differences() {
    let (config, device) = (tiny(), device());
    let params = random_parameters(&config, 3, &device, FloatType::F64);
    let batch = repeats(0);
    // With no momentum, no decay and one step, `AdamW` moves every weight by
    // `rate · g / (|g| + epsilon)`; a huge epsilon makes that proportional to `g`.
    let (rate, epsilon) = (1e-3, 1e6);
    let training = TrainConfig {
        steps: 1,
        learning_rate: rate,
        warmup_steps: 0,
        epsilon,
        weight_decay: 0.0,
        clip_norm: None,
        ..TrainConfig::default()
    };
    let stepped =
        train_from(&training, &config, &params, &mut |_: usize| batch.clone(), &mut |_| {}).unwrap();
    for param in config.params() {
        let (before, after) = (values(&params, param), values(&stepped, param));
        for index in [0, before.len() / 2, before.len() - 1] {
            let gradient = (before[index] - after[index]) / rate * epsilon;
            let loss_at = |change: f64| loss(&config, &changed(&params, param, index, change), &batch);
            let expected = (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4;
            assert!(
                (gradient - expected).abs() < 1e-6 + 1e-4 * expected.abs(),
                "{param}[{index}]: {gradient} instead of {expected}",
            );
        }
    }
}

#[test]
fn the_loss_goes_down() {
    let training =
        TrainConfig { steps: 150, learning_rate: 1e-2, warmup_steps: 10, ..TrainConfig::default() };
    let mut losses = Vec::new();
    let mut observer = |progress: &burn_lens_train::Progress<'_>| losses.push(progress.loss);
    train(&training, &tiny(), &device(), &mut repeats, &mut observer).unwrap();
    assert_eq!(losses.len(), 150);
    let last = losses[140..].iter().sum::<f64>() / 10.0;
    assert!(losses[0] > 1.5 && last < 0.3, "from {} to {last}", losses[0]);
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let run = |seed| {
        let training = TrainConfig { steps: 8, seed, ..TrainConfig::default() };
        let params = train(&training, &tiny(), &device(), &mut repeats, &mut |_| {}).unwrap();
        tiny()
            .params()
            .into_iter()
            .flat_map(|param| values(&params, param))
            .map(f64::to_bits)
            .collect::<Vec<_>>()
    };
    let first = run(5);
    for _ in 0..3 {
        assert!(first == run(5));
    }
    assert!(first != run(6));
}

#[test]
fn gradients_are_clipped_to_the_norm_over_all_parameters() {
    let (config, device) = (tiny(), device());
    let params = random_parameters(&config, 3, &device, FloatType::F64);
    let moved = |clip_norm| {
        let training = TrainConfig {
            learning_rate: 1.0,
            warmup_steps: 0,
            epsilon: 1e6,
            weight_decay: 0.0,
            clip_norm,
            ..TrainConfig::default()
        };
        let mut trainer = Trainer::new(&training, &config, &params).unwrap();
        let norm = trainer.step(&repeats(0)).unwrap().grad_norm;
        let after = trainer.parameters();
        let squares = config.params().into_iter().flat_map(|param| {
            let (before, after) = (values(&params, param), values(&after, param));
            before.into_iter().zip(after).map(|(a, b)| (a - b) * (a - b)).collect::<Vec<_>>()
        });
        (norm, squares.sum::<f64>().sqrt() * 1e6)
    };
    let (norm, free) = moved(None);
    assert!((norm - free).abs() < 1e-3 * norm, "{norm} {free}");
    let (same, clipped) = moved(Some(norm / 4.0));
    assert!((same - norm).abs() < 1e-9 && (clipped - norm / 4.0).abs() < 1e-3 * norm, "{same} {clipped}");
}

#[test]
fn only_matrices_decay() {
    let (config, device) = (tiny(), device());
    let params = random_parameters(&config, 3, &device, FloatType::F64);
    let training = TrainConfig {
        learning_rate: 0.5,
        warmup_steps: 0,
        epsilon: 1e9,
        weight_decay: 0.5,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(&training, &config, &params).unwrap();
    trainer.step(&repeats(0)).unwrap();
    let after = trainer.parameters();
    for param in config.params() {
        let kept = if param.shape(&config.dims()).len() == 2 { 0.75 } else { 1.0 };
        for (before, after) in values(&params, param).into_iter().zip(values(&after, param)) {
            assert!((before * kept - after).abs() < 1e-6, "{param}: {before} to {after}");
        }
    }
}

#[test]
fn mistakes_are_errors() {
    let (config, device) = (tiny(), device());
    let params = random_parameters(&config, 3, &device, FloatType::F32);
    let mut trainer = Trainer::new(&TrainConfig::default(), &config, &params).unwrap();
    let batch = repeats(0);
    let short = Batch { weights: vec![1.0], ..batch.clone() };
    assert!(matches!(trainer.step(&short), Err(TrainError::BatchLength { what: "weights", found: 1, .. })));
    let mut unweighted = batch.clone();
    unweighted.weights.fill(0.0);
    assert!(matches!(trainer.step(&unweighted), Err(TrainError::BatchWeights)));
    let mut foreign = batch;
    foreign.tokens[3] = D_VOCAB as i64;
    assert!(matches!(trainer.step(&foreign), Err(TrainError::Run(_))));

    let backwards = TrainConfig { learning_rate: -1.0, ..TrainConfig::default() };
    let error = Trainer::new(&backwards, &config, &params).unwrap_err();
    assert_eq!(error.to_string(), "training setting `learning_rate` is -1, expected a positive number");
    let mut without = params;
    without.remove(Param::WU);
    let error = Trainable::new(&config, &without).unwrap_err();
    assert!(matches!(error, TrainError::Model(ModelError::MissingParam(Param::WU))), "{error}");
}

fn device() -> Device {
    DeviceSpec::cpu().open().unwrap()
}

/// Rows of three random tokens, said again and again.
fn repeats(step: usize) -> Batch {
    let (batch, pos) = (4, 12);
    let token =
        |row: usize, at: usize| ((step * 31 + row * 17 + (at % 3) * (step + row + 1)) % D_VOCAB) as i64;
    let tokens = (0..batch).flat_map(|row| (0..pos).map(move |at| token(row, at))).collect();
    let weights = (0..batch * pos).map(|index| if index % pos > 3 { 1.0 } else { 0.0 }).collect();
    Batch { batch, pos, tokens, weights }
}

fn tiny() -> ModelConfig {
    let (n_layers, d_model) = (2, 16);
    ModelConfig {
        architecture: "HookedTransformer".to_owned(),
        n_layers,
        d_model,
        n_ctx: 12,
        d_vocab: D_VOCAB,
        d_vocab_out: D_VOCAB,
        attention: AttentionConfig {
            qkv_bias: true,
            out_bias: true,
            ..AttentionConfig::plain(2, 8, n_layers)
        },
        mlp: Some(MlpConfig {
            d_mlp: 24,
            act_fn: ActFn::GeluTanh,
            kind: MlpKind::Gated,
            bias: MlpBias::Projections,
        }),
        norm: NormConfig::plain(NormKind::Layer, 1e-5, NormPlacement::Pre),
        positions: Positions::Learned,
        layout: BlockLayout::Sequential,
        logits_soft_cap: None,
        unembed_bias: true,
        tied: false,
        interface: Interface::Tokens,
        default_prepend_bos: true,
    }
}

fn loss(config: &ModelConfig, params: &Parameters, batch: &Batch) -> f64 {
    Trainable::new(config, params).unwrap().loss(config, batch).unwrap().into_scalar::<f64>()
}

fn values(params: &Parameters, param: Param) -> Vec<f64> {
    let (_, tensor) = params.iter().find(|(name, _)| *name == param).unwrap();
    tensor.clone().into_data().unwrap().iter::<f64>().collect()
}

fn changed(params: &Parameters, param: Param, index: usize, change: f64) -> Parameters {
    let mut data = values(params, param);
    data[index] += change;
    params.clone().map(|name, tensor| {
        if name != param {
            return tensor;
        }
        AnyTensor::from_data(TensorData::new(data.clone(), tensor.shape()), &tensor.device()).unwrap()
    })
}
