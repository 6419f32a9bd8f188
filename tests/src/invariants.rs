//! What must hold whatever the numbers are.

use burn_lens::prelude::*;
use burn_lens_testkit::{Tolerance, assert_close, device, finest};
use proptest::prelude::*;

use crate::common::{cached, data, logits, open, run, whole_models};

/// One of each kind of model.
const MODELS: [&str; 10] = [
    "gpt2",
    "gpt-neo",
    "neox",
    "gptj",
    "llama-gqa",
    "gemma2",
    "qwen3",
    "tl-alibi",
    "tl-bidirectional",
    "tl-solu-ln",
];

fn tokens(rows: &[Vec<i64>], d_vocab: usize) -> Tensor<2, Int> {
    let ids: Vec<i64> = rows.iter().flatten().map(|&id| id % d_vocab as i64).collect();
    Tensor::from_data(burn::tensor::TensorData::new(ids, [rows.len(), rows[0].len()]), &device())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_is_its_rows(model in 0..MODELS.len(), rows in prop::collection::vec(prop::collection::vec(0i64..1000, 7), 1..5)) {
        let (model, _) = open(MODELS[model], finest());
        let together = logits(&model, &tokens(&rows, model.config().d_vocab));
        let apart: Vec<f64> = rows
            .iter()
            .flat_map(|row| logits(&model, &tokens(std::slice::from_ref(row), model.config().d_vocab)).iter::<f64>().collect::<Vec<_>>())
            .collect();
        let apart = burn::tensor::TensorData::new(apart, together.shape().to_vec());
        assert_close("batch", &together, &apart, Tolerance::of(finest()));
    }

    #[test]
    fn left_padding_changes_nothing(model in 0..MODELS.len(), row in prop::collection::vec(0i64..1000, 2..6), pad in 1usize..4) {
        let (model, _) = open(MODELS[model], finest());
        let d_vocab = model.config().d_vocab;
        let len = row.len();
        let plain = logits(&model, &tokens(std::slice::from_ref(&row), d_vocab));
        let padded = [vec![3; pad], row].concat();
        let mask: Vec<i64> = (0..pad + len).map(|at| i64::from(at >= pad)).collect();
        let options = RunOptions { attention_mask: Some(tokens(&[mask], 2)), ..RunOptions::default() };
        let output = model.run_with_hooks(&tokens(&[padded], d_vocab).into(), &options, vec![]).unwrap();
        let found = output.into_logits().unwrap().narrow(1, pad, len).into_data();
        assert_close("padding", &found, &plain, Tolerance::of(finest()));
    }

    #[test]
    fn logits_of_the_last_positions_are_those_of_all(
        model in 0..MODELS.len(),
        row in prop::collection::vec(0i64..1000, 3..8),
        read in 1usize..3,
        pad in 0usize..2,
        seen in any::<bool>(),
    ) {
        let (model, _) = open(MODELS[model], finest());
        let last = model.config().n_layers - 1;
        let tokens = tokens(&[[vec![3; pad], row].concat()], model.config().d_vocab);
        let [_, pos] = tokens.dims();
        let mask: Vec<i64> = (0..pos).map(|at| i64::from(at >= pad)).collect();
        let mask = (pad > 0).then(|| self::tokens(&[mask], 2));
        let options = |logits_pos: Slice| RunOptions { attention_mask: mask.clone(), logits_pos, ..RunOptions::default() };
        // A hook at the last block makes it run at every position.
        let look = || Hook::read(HookPoint::ResidPost(last), |_: &AnyTensor, _: &mut HookContext| {});
        let hooks = || if seen { vec![look()] } else { vec![] };
        let run = |options: &RunOptions| model.run_with_hooks(&(&tokens).into(), options, hooks()).unwrap().into_logits().unwrap();
        let whole = run(&options(Slice::All)).narrow(1, pos - read, read).into_data();
        let found = run(&options(Slice::range((pos - read) as isize, pos as isize))).into_data();
        assert_close("the last positions", &found, &whole, Tolerance::of(finest()));
    }

    #[test]
    fn right_padding_changes_nothing_and_the_loss_leaves_it_out(row in prop::collection::vec(0i64..1000, 3..6), pad in 1usize..4) {
        let (model, _) = open("tl-bidirectional", finest());
        let d_vocab = model.config().d_vocab;
        let len = row.len();
        let both = |input: Tensor<2, Int>, mask: Option<Tensor<2, Int>>| {
            let options = RunOptions { attention_mask: mask, ..RunOptions::returning(ReturnType::Both) };
            let output = model.run_with_hooks(&input.into(), &options, vec![]).unwrap();
            (output.logits.unwrap().narrow(1, 0, len).into_data(), output.loss.unwrap().into_data())
        };
        let plain = both(tokens(std::slice::from_ref(&row), d_vocab), None);
        let mask: Vec<i64> = (0..pad + len).map(|at| i64::from(at < len)).collect();
        let padded = both(tokens(&[[row, vec![3; pad]].concat()], d_vocab), Some(tokens(&[mask], 2)));
        assert_close("logits", &padded.0, &plain.0, Tolerance::of(finest()));
        assert_close("loss", &padded.1, &plain.1, Tolerance::of(finest()));
    }
}

/// A hook that reads everything, and one that returns what it got, change no bit.
#[test]
fn hooked_with_nothing_is_unhooked() {
    for name in whole_models() {
        let (model, golden) = open(&name, FloatType::F32);
        let tokens = golden.ints("tokens", &model.device());
        let plain = logits(&model, &tokens);
        let read = Hook::read("*", |_: &AnyTensor, _: &mut HookContext| {});
        assert_eq!(run(&model, &tokens, vec![read]), plain, "{name}");
        let same = Hook::edit("*", |x: AnyTensor, _: &mut HookContext| x);
        assert_eq!(run(&model, &tokens, vec![same]), plain, "{name}");
    }
}

/// Stopping before a layer and starting there again is the whole.
#[test]
fn start_after_stop_is_the_whole() {
    for name in MODELS {
        let (model, golden) = open(name, FloatType::F32);
        let tokens = golden.ints("tokens", &model.device());
        let plain = logits(&model, &tokens);
        for layer in 0..=model.config().n_layers {
            let stop = RunOptions { stop_at_layer: Some(layer as isize), ..RunOptions::default() };
            let output = model.run_with_hooks(&(&tokens).into(), &stop, vec![]).unwrap();
            let resid = output.resid.unwrap();
            if layer < model.config().n_layers {
                let cache = cached(&model, &tokens, &["blocks.*.hook_resid_pre"]);
                let expected = data(cache.get(HookPoint::ResidPre(layer)).unwrap());
                assert_eq!(resid.clone().into_data(), expected, "{name}");
            }
            let start = RunOptions { start_at_layer: Some(layer as isize), ..RunOptions::default() };
            let output = model.run_with_hooks(&Input::Resid(resid), &start, vec![]).unwrap();
            assert_eq!(output.into_logits().unwrap().into_data(), plain, "{name} at {layer}");
        }
    }
}

/// Embeddings as input are the tokens' run.
#[test]
fn embeddings_as_input() {
    for name in ["gpt2", "llama-gqa", "tl-ln"] {
        let (model, golden) = open(name, FloatType::F32);
        let tokens = golden.ints("tokens", &model.device());
        let embeds: Tensor<3> = cached(&model, &tokens, &["hook_embed"]).tensor("hook_embed").unwrap();
        let options = RunOptions { labels: Some(tokens.clone()), ..RunOptions::returning(ReturnType::Both) };
        let output = model.run_with_hooks(&Input::Embeds(embeds), &options, vec![]).unwrap();
        assert_eq!(output.logits.unwrap().into_data(), logits(&model, &tokens), "{name}");
        assert!(output.loss.is_some());
    }
}

/// Parts of the stream sum to the whole.
#[test]
fn the_stream_is_the_sum_of_its_parts() {
    for name in ["gpt2", "neox", "gemma2", "tl-attn-only", "llama-gqa", "tl-norm-before-and-after"] {
        let (model, golden) = open(name, finest());
        let tokens = golden.ints("tokens", &model.device());
        let cache = cached(&model, &tokens, &[]);
        let get = |point: HookPoint| -> Tensor<3> { cache.tensor(point).unwrap() };
        let mut sum = get(HookPoint::Embed);
        if cache.contains(HookPoint::PosEmbed) {
            sum = sum + get(HookPoint::PosEmbed);
        }
        for layer in 0..model.config().n_layers {
            sum = sum + get(HookPoint::AttnOut(layer));
            if cache.contains(HookPoint::MlpOut(layer)) {
                sum = sum + get(HookPoint::MlpOut(layer));
            }
        }
        let last = get(HookPoint::ResidPost(model.config().n_layers - 1)).into_data();
        assert_close(name, &sum.into_data(), &last, Tolerance::of(finest()));
    }
}

/// Controls are reproducible, and change what the model computes.
#[test]
fn controls() {
    let (model, golden) = open("llama-gqa", FloatType::F32);
    let tokens = golden.ints("tokens", &model.device());
    let with = |control: Control, seed: u64| {
        let params = control.apply(model.config(), model.parameters().clone(), seed).unwrap();
        logits(&HookedTransformer::new(model.config().clone(), params).unwrap(), &tokens)
    };
    let plain = logits(&model, &tokens);
    assert_eq!(with(Control::Trained, 0), plain);
    for control in [Control::Random, Control::Shuffled] {
        assert_ne!(with(control, 0), plain);
        assert_eq!(with(control, 0), with(control, 0));
        assert_ne!(with(control, 0), with(control, 1));
    }
    let params = Control::Shuffled.apply(model.config(), model.parameters().clone(), 0).unwrap();
    let sum = |params: &burn_lens::models::Parameters| -> f64 {
        params.iter().map(|(_, tensor)| data(tensor).iter::<f64>().sum::<f64>()).sum()
    };
    assert!((sum(&params) - sum(model.parameters())).abs() < 1e-3);
}

/// Stacks hold each layer's weights, and an access copies nothing.
#[test]
fn stacked_weights() {
    let (model, _) = open("tl-rms-gqa", FloatType::F32);
    let config = model.config().clone();
    let attention = &config.attention;
    let (w_q, w_k, w_o) = (model.w_q().unwrap(), model.w_k().unwrap(), model.w_o().unwrap());
    assert_eq!(w_q.dims(), [2, attention.n_heads, config.d_model, attention.d_head]);
    assert_eq!(w_k.dims(), [2, attention.n_kv_heads, config.d_model, attention.d_head]);
    assert_eq!(w_o.dims(), [2, attention.n_heads, attention.d_head, config.d_model]);
    let head: Tensor<2> = w_q.slice([1..2, 2..3]).squeeze_dims(&[0, 1]);
    let fused: Tensor<2> = model.parameters().get(Param::WQ(1)).unwrap();
    assert_eq!(head.into_data(), fused.narrow(1, 2 * attention.d_head, attention.d_head).into_data());
    assert!(!model.w_q().unwrap().can_mut(), "the stack is shared, not made anew");
    assert_eq!(model.w_e_pos().unwrap().dims()[0], config.d_vocab);
    assert!(model.w_gate().is_some());
}
