//! Causal methods on the bundled model, and what they must agree with.

use std::sync::Arc;

use burn_lens::{
    analysis::interventions::{
        Ablation, AblationUnit, CausalTrace, Engine, EngineOptions, HeadPart, HeadPath, Intervention, Metric,
        Noise, Patch, PathInput, Reference, RepeatedTokens, Sender, SteeringPos, SteeringVector, Sweep,
        SweepResult, TaskKind, TaskOptions, ablation_sweep, direct_path_sweep, induction_scores, interchange,
        knock_out, patching_sweep, path_patch, score_task, task_prompts,
    },
    prelude::*,
};

const CLEAN: &str = "When Mary and John went to the store , John gave a drink to";
const CORRUPT: &str = "When Mary and John went to the store , Mary gave a drink to";

/// The bundled model, and prompts of two people that differ in one word.
pub(crate) struct Pair {
    pub(crate) lens: Pretrained,
    pub(crate) clean: Tensor<2, Int>,
    pub(crate) corrupt: Tensor<2, Int>,
    pub(crate) metric: Metric,
}

impl Pair {
    pub(crate) fn open() -> Self {
        let options = LoadOptions {
            dtype: burn_lens_testkit::finest(),
            device: burn_lens_testkit::device_spec(),
            ..LoadOptions::default()
        };
        let lens = from_pretrained(burn_lens::DEMO, &options).unwrap();
        let ids = |text: &str| lens.to_tokens(&[text]).unwrap().ids;
        let token = |text: &str| lens.tokenizer().unwrap().to_single_token(text).unwrap() as usize;
        let metric = Metric::logit_diff([token(" Mary")], [token(" John")]);
        let (clean, corrupt) = (ids(CLEAN), ids(CORRUPT));
        Self { lens, clean, corrupt, metric }
    }

    fn engine(&self) -> Engine<'_, HookedTransformer> {
        self.on(&self.corrupt)
    }

    pub(crate) fn on(&self, tokens: &Tensor<2, Int>) -> Engine<'_, HookedTransformer> {
        let options = EngineOptions { verify: 4, ..EngineOptions::default() };
        Engine::new(&self.lens.model, tokens, &RunOptions::default(), &self.metric, options).unwrap()
    }

    fn cache(&self, tokens: &Tensor<2, Int>) -> Arc<ActivationCache> {
        let firing = self.lens.model.firing();
        let all = firing.always.iter().chain(&firing.optional).copied();
        let names = CacheOptions::names(all.filter(|point| !point.is_integer()).collect::<Vec<_>>());
        let run = self.lens.model.run_with_cache(&tokens.into(), &RunOptions::default(), &names);
        Arc::new(run.unwrap().1)
    }

    fn patched(&self, patch: Patch) -> SweepResult {
        let pos = self.clean.dims()[1];
        let sweep = patching_sweep(&self.lens.model, patch, &self.cache(&self.clean), pos).unwrap();
        self.engine().sweep(&sweep).unwrap()
    }

    pub(crate) fn clean_value(&self) -> f64 {
        self.on(&self.clean).measure(&[]).unwrap()[0]
    }
}

pub(crate) fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} against {expected}");
}

/// The head that looks back by one token in the first block, and the one that it tells the second block
/// where to look, carry the answer; no other head does.
#[test]
fn patching_finds_the_heads_of_the_indirect_object() {
    let pair = Pair::open();
    let result = pair.patched(Patch::Head(HeadPart::Out));
    let shares = result.normalized(pair.clean_value());
    let [previous, mover] = [result.largest(2)[1].0.clone(), result.largest(2)[0].0.clone()];
    assert_eq!((previous, mover), (vec!["0", "0"], vec!["1", "2"]));
    assert!(shares.iter().filter(|share| share.abs() > 0.05).count() == 2, "{shares:?}");
    // The information moves: second name, the token behind it, the last token.
    let result = pair.patched(Patch::ResidPre);
    let shares = result.normalized(pair.clean_value());
    let pos = pair.clean.dims()[1];
    for (layer, at) in [(0, 10), (1, 11), (2, 14)] {
        assert!(shares[layer * pos + at] > 0.9, "layer {layer}, position {at}: {shares:?}");
    }
}

/// On random words said twice, what carries the induction head's answer is the token-before head.
#[test]
fn patching_finds_the_induction_circuit() {
    let pair = Pair::open();
    let model = &pair.lens.model;
    let d_vocab = model.dims().d_vocab as i64;
    let draw =
        RepeatedTokens { tokens: (2..d_vocab).collect(), bos: Some(0), segment: 20, texts: 6, seed: 1 };
    let scores = induction_scores(model, &draw).unwrap();
    let ((layer, head), score) = scores.largest(1)[0];
    assert_eq!((layer, head), (1, 0));
    assert!(score > 0.8, "{score}");
    // The word behind the earlier occurrence of the last one, against another one.
    let clean = draw.texts().remove(0);
    let mut corrupt = clean.clone();
    let (asked, other) = (clean[10], clean[15]);
    // The text ends with the word before position 10; in the corrupt run the first time is another.
    let cut = 1 + 20 + 9;
    corrupt[10] = other;
    let metric = Metric::logit_diff([asked as usize], [other as usize]);
    let tensor = |ids: &[i64]| {
        let ids = ids[..cut].to_vec();
        Tensor::<2, Int>::from_data(burn::tensor::TensorData::new(ids, [1, cut]), &model.device())
    };
    let (clean, corrupt) = (tensor(&clean), tensor(&corrupt));
    let patch = Patch::Head(HeadPart::Out);
    let sweep = patching_sweep(model, patch, &pair.cache(&clean), cut).unwrap();
    let on = |tokens: &Tensor<2, Int>| {
        Engine::new(model, tokens, &RunOptions::default(), &metric, EngineOptions::default()).unwrap()
    };
    let result = on(&corrupt).sweep(&sweep).unwrap();
    let clean_value = on(&clean).measure(&[]).unwrap()[0];
    let shares = result.normalized(clean_value);
    let most = result.largest(1)[0].0.clone();
    assert_eq!(most, ["1", "0"], "{shares:?}");
    assert!(shares[4] > 0.5, "{shares:?}");
}

#[test]
fn exact_and_estimated_patching_name_the_same_heads() {
    let pair = Pair::open();
    let pos = pair.clean.dims()[1];
    let patch = Patch::Head(HeadPart::Out);
    let sweep = patching_sweep(&pair.lens.model, patch, &pair.cache(&pair.clean), pos).unwrap();
    let exact = pair.engine().sweep(&sweep).unwrap();
    let estimated = pair.engine().attribute(&sweep).unwrap();
    assert_eq!(exact.largest(2)[0].0, estimated.largest(2)[0].0);
    assert_eq!(exact.largest(2)[1].0, estimated.largest(2)[1].0);
}

#[test]
fn ablations_equal_hooks() {
    let pair = Pair::open();
    let (model, engine) = (&pair.lens.model, pair.engine());
    let shape = pair.corrupt.dims();
    let cache = pair.cache(&pair.clean);
    let reference = Reference { cache: Arc::clone(&cache), attention_mask: None };
    let by_hook = |layer: usize, head: usize, mean: bool| {
        let z: Tensor<4> = cache.tensor(HookPoint::AttnZ(layer)).unwrap();
        let mean_z = z.mean_dim(0).mean_dim(1);
        let hook = Hook::edit(HookPoint::AttnZ(layer), move |x: Tensor<4>, _: &mut HookContext| {
            let [batch, pos, heads, width] = x.dims();
            let new = mean_z.clone().expand([batch, pos, heads, width]).narrow(2, head, 1);
            x.slice_assign([0..batch, 0..pos, head..head + 1, 0..width], if mean { new } else { new * 0.0 })
        });
        let output =
            model.run_with_hooks(&(&pair.corrupt).into(), &RunOptions::default(), vec![hook]).unwrap();
        let logits: Vec<f64> = output.into_logits().unwrap().into_data().iter().collect();
        let last = &logits[(shape[1] - 1) * model.dims().d_vocab_out..];
        let token = |text: &str| pair.lens.tokenizer().unwrap().to_single_token(text).unwrap() as usize;
        last[token(" Mary")] - last[token(" John")]
    };
    for (ablation, mean) in [(Ablation::Zero, false), (Ablation::Mean(reference.clone()), true)] {
        let sweep = ablation_sweep(model, AblationUnit::Head, &ablation, shape).unwrap();
        let values = engine.sweep(&sweep).unwrap().values();
        for (layer, head) in [(0, 0), (1, 2), (2, 3)] {
            near(values[layer * 4 + head], by_hook(layer, head, mean));
        }
    }
    // Samples are of the reference, and a seed gives the same ones again.
    let values = |seed: u64| {
        let ablation = Ablation::Resample(reference.clone(), seed);
        engine.sweep(&ablation_sweep(model, AblationUnit::Mlp, &ablation, shape).unwrap()).unwrap().values()
    };
    assert_eq!(values(3), values(3));
    assert_ne!(values(3), values(4));
}

/// Knocked-out attention goes to the other sources, in proportion.
#[test]
fn knocked_out_attention_is_shared_among_the_rest() {
    let pair = Pair::open();
    let (query, key) = (Slice::Index(11), Slice::Index(10));
    let cell = knock_out(&[0], &Slice::Index(0), &query, &key);
    let out = pair.engine().measure(&cell).unwrap()[0];
    let pattern: Tensor<4> = pair.cache(&pair.corrupt).tensor("pattern0").unwrap();
    let values: Vec<f64> = pattern.into_data().iter().collect();
    let pos = pair.corrupt.dims()[1];
    let row: Vec<f64> = values[11 * pos..12 * pos].to_vec();
    let shared = move |x: Tensor<4>, _: &mut HookContext| {
        let new: Vec<f64> =
            row.iter().enumerate().map(|(at, p)| if at == 10 { 0.0 } else { p / (1.0 - row[10]) }).collect();
        let new = burn::tensor::TensorData::new(new, [1, 1, 1, row.len()]);
        let new = Tensor::<4>::from_data(new, (&x.device(), x.dtype()));
        x.slice_assign([0..1, 0..1, 11..12, 0..row.len()], new)
    };
    let hook = Hook::edit("pattern0", shared);
    let output =
        pair.lens.model.run_with_hooks(&(&pair.corrupt).into(), &RunOptions::default(), vec![hook]).unwrap();
    let logits: Vec<f64> = output.into_logits().unwrap().into_data().iter().collect();
    let token = |text: &str| pair.lens.tokenizer().unwrap().to_single_token(text).unwrap() as usize;
    let last = &logits[(pos - 1) * pair.lens.model.dims().d_vocab_out..];
    near(out, last[token(" Mary")] - last[token(" John")]);
}

/// All of a space is a patch; none of it changes nothing; orthogonal halves add up in the stream.
#[test]
fn interchanges_of_subspaces() {
    let pair = Pair::open();
    let from = pair.cache(&pair.clean);
    let at = HookPoint::ResidPre(1);
    let width = pair.lens.model.dims().d_model;
    let x: Tensor<3> = from.tensor(at).unwrap();
    let identity = Tensor::<2>::eye(width, &x.device()).cast(x.dtype());
    let measure = |one: Intervention| pair.engine().measure(&[one]).unwrap()[0];
    let whole = measure(interchange(at, &from, None));
    near(measure(interchange(at, &from, Some(identity.clone()))), whole);
    let half = |start: usize, end: usize| {
        interchange(at, &from, Some(identity.clone().narrow(1, start, end - start)))
    };
    let both = pair.engine().measure(&[half(0, width / 2), half(width / 2, width)]).unwrap()[0];
    near(both, whole);
}

/// With the clean stream restored at every position the answer is the clean one; without, noise destroys it.
#[test]
fn causal_traces_restore_the_answer() {
    let pair = Pair::open();
    let model = &pair.lens.model;
    let noise = Noise { pos: Slice::List(vec![4, 10]), scale: 3.0, samples: 4, seed: 0 };
    let trace = CausalTrace::new(model, &(&pair.clean).into(), &noise).unwrap();
    let options = EngineOptions { verify: 3, ..EngineOptions::default() };
    let engine =
        Engine::new(model, trace.noised.clone(), &RunOptions::default(), &pair.metric, options).unwrap();
    let sweep = trace.restore(HookPoint::ResidPost, 1);
    let result = engine.sweep(&sweep).unwrap();
    assert_eq!(result.base.len(), 4);
    assert!(result.base_value() < pair.clean_value() - 2.0, "noise does harm: {}", result.base_value());
    let all: Vec<Intervention> =
        sweep.cells[..pair.clean.dims()[1]].iter().flatten().flatten().cloned().collect();
    for value in engine.measure(&all).unwrap() {
        near(value, pair.clean_value());
    }
    let last = result.values().last().copied().unwrap();
    near(last, pair.clean_value());
}

#[test]
fn steering_vectors_are_differences() {
    let pair = Pair::open();
    let model = &pair.lens.model;
    let at = HookPoint::ResidPost(1);
    let ids = |text: &str| pair.lens.to_tokens(&[text]).unwrap().batch.ids.remove(0);
    let (positive, negative) = (vec![ids(CLEAN)], vec![ids(CORRUPT)]);
    let both = [&positive[..], &negative[..]];
    let mean = SteeringVector::mean_difference(model, at, both, SteeringPos::Last).unwrap();
    let pairs = SteeringVector::contrastive(model, at, both, SteeringPos::Last).unwrap();
    let pos = pair.clean.dims()[1];
    let last = |tokens: &Tensor<2, Int>| {
        pair.cache(tokens)
            .tensor::<Tensor<3>>(at)
            .unwrap()
            .narrow(1, pos - 1, 1)
            .reshape([model.dims().d_model])
    };
    let expected = last(&pair.clean) - last(&pair.corrupt);
    for vector in [mean.vector.clone(), pairs.vector] {
        let off: f64 = (vector - expected.clone()).abs().max().into_scalar();
        assert!(off < 1e-5, "{off}");
    }
    // Added to the corrupt run at its last position it gives that position's clean stream.
    let one = mean.intervention(1.0).pos(Slice::Index(-1));
    let patch = Intervention::patch(at, &pair.cache(&pair.clean)).pos(Slice::Index(-1));
    let measure = |one: Intervention| pair.engine().measure(&[one]).unwrap()[0];
    near(measure(one), measure(patch));
}

/// A path is the sum of what it goes through: to every later reader at once, it is the patch itself.
#[test]
fn paths_lead_from_senders_to_receivers() {
    let pair = Pair::open();
    let model = &pair.lens.model;
    let caches = [pair.cache(&pair.corrupt), pair.cache(&pair.clean)];
    let sender = Sender::Head(0, 0);
    let sweep = direct_path_sweep(model, sender, PathInput::V, [&caches[0], &caches[1]]).unwrap();
    let result = pair.engine().sweep(&sweep).unwrap();
    let base = result.base_value();
    // The mover's values read the token-before head.
    assert_eq!(result.largest(1)[0].0, ["1", "2"]);
    assert!(result.values()[..4].iter().all(|&value| value == 0.0), "nothing reads in its own block");
    let path =
        |receivers: Vec<(HeadPart, usize, usize)>| HeadPath { sender: (0, 0), receivers, hold_mlps: true };
    let run = (&Input::from(&pair.corrupt), &RunOptions::default());
    let cell = path_patch(model, run, &caches[1], &path(vec![(HeadPart::V, 1, 2)])).unwrap();
    let value = pair.engine().measure(&cell).unwrap()[0];
    near(value, result.values()[4 + 2]);
    // What does not come later receives nothing.
    let cell = path_patch(model, run, &caches[1], &path(vec![(HeadPart::Q, 0, 1)])).unwrap();
    near(pair.engine().measure(&cell).unwrap()[0], base);
}

/// A sweep of nothing is refused, not run.
#[test]
fn empty_sweeps_are_refused() {
    let pair = Pair::open();
    let error = pair.engine().sweep(&Sweep::default()).unwrap_err();
    assert!(error.to_string().contains("cells of a sweep"), "{error}");
}

/// The bundled model does the tasks that its words can spell; years are none of them.
#[test]
fn tasks_are_spelled_by_the_bundled_tokenizer() {
    let pair = Pair::open();
    let tokenizer = pair.lens.tokenizer().unwrap();
    let spell = |text: &str| -> Option<Vec<i64>> {
        let options = TokenOptions { prepend_bos: Some(false), ..TokenOptions::default() };
        let ids = tokenizer.to_tokens(&[text], options).ok()?.ids.remove(0);
        (!ids.contains(&tokenizer.unk()?)).then_some(ids)
    };
    let options = TaskOptions { count: 40, seed: 5, bos: Some(0) };
    for (kind, accuracy) in [(TaskKind::IndirectObject, 0.9), (TaskKind::Capitals, 0.9)] {
        let prompts = task_prompts(kind, &spell, options).unwrap();
        assert_eq!(prompts, task_prompts(kind, &spell, options).unwrap());
        for prompt in &prompts {
            let differing = prompt.clean.iter().zip(&prompt.corrupt).filter(|(a, b)| a != b).count();
            assert_eq!((prompt.clean.len(), differing), (prompt.corrupt.len(), 1), "{prompt:?}");
        }
        let scores = score_task(&pair.lens.model, &prompts).unwrap();
        assert!(scores.accuracy >= accuracy && scores.logit_diff > 1.0, "{kind:?}: {scores:?}");
    }
    let error = task_prompts(TaskKind::GreaterThan, &spell, options).unwrap_err();
    assert!(error.to_string().contains("greater-than"), "{error}");
}
