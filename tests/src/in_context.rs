//! Models without a vocabulary, against transformers' GPT2Model behind the same read-in and
//! read-out: forward, conversion, every module's output, and training.

use std::path::PathBuf;

use burn::tensor::{Distribution, TensorData};
use burn_lens::{
    io::{Checkpoint, read_settings},
    models::{
        ModelError, Parameters,
        convert::{ConvertError, Converted, Converter, Names, RuleTable, convert},
        random_parameters,
    },
    prelude::*,
    tensor::{MemoryWeights, Weights},
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, device, fixture, float_types};

use crate::common::data;

/// The documented table of rules, with the sizes of the fixture.
pub(crate) fn rules() -> RuleTable {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/rules/gpt2-in-context.toml");
    let mut table: RuleTable = read_settings(path).unwrap();
    for (key, size) in [("n_layers", 2), ("d_model", 16), ("n_heads", 2), ("n_ctx", 9)] {
        table.model.insert(key.to_owned(), size.into());
    }
    table
}

pub(crate) fn converted(dtype: FloatType) -> (Converted, Golden) {
    let folder = fixture("icl-gpt2");
    let mut weights = Checkpoint::open_file(folder.join("model.pth")).unwrap();
    let converted = convert(&rules(), &mut weights, dtype, &device()).unwrap();
    (converted, Golden::open(folder.join("golden.safetensors")))
}

fn vectors(golden: &Golden, name: &str, dtype: FloatType) -> Input {
    Input::Vectors(Tensor::from_data(golden.get(name).clone(), (&device(), dtype.dtype())))
}

fn output(model: &HookedTransformer, input: &Input) -> TensorData {
    let output = model.run_with_hooks(input, &RunOptions::default(), Vec::new()).unwrap();
    output.into_logits().unwrap().into_data()
}

#[test]
fn forward_equals_gpt2_from_inputs_embeds() {
    for dtype in float_types() {
        let (Converted { model, dropped }, golden) = converted(dtype);
        assert_eq!(dropped, ["_backbone.wte.weight"]);
        let found = output(&model, &vectors(&golden, "x", dtype));
        assert_close("output", &found, golden.get("output64"), Tolerance::of(dtype));
        let read_in: Tensor<3> = model
            .run_with_cache(&vectors(&golden, "x", dtype), &RunOptions::default(), &CacheOptions::default())
            .unwrap()
            .1
            .tensor("hook_read_in")
            .unwrap();
        // As run_with_cache(model._read_in(X)): a float input skips the read-in.
        assert_eq!(output(&model, &Input::Embeds(read_in)).as_bytes(), found.as_bytes());
    }
}

#[test]
fn every_module_of_the_source_has_its_output_under_its_own_name() {
    let (Converted { model, .. }, golden) = converted(FloatType::F32);
    let table = rules();
    let options = CacheOptions::names(table.hooks(model.config().n_layers).unwrap());
    let input = vectors(&golden, "x", FloatType::F32);
    let (_, cache) = model.run_with_cache(&input, &RunOptions::default(), &options).unwrap();
    let found = table.activations(&model, &cache).unwrap();
    let mut modules = 0;
    for name in golden.names().filter_map(|name| name.strip_prefix("module/")) {
        let expected = golden.get(&format!("module/{name}"));
        let got = found.get(name).unwrap_or_else(|| panic!("no alias for {name}"));
        if name == "_backbone.wpe" {
            // GPT2Model looks positions up once, for all rows.
            assert_close(
                name,
                &TensorData::new(got.try_to_vec::<f32>().unwrap()[..9 * 16].to_vec(), [1, 9, 16]),
                expected,
                Tolerance::F32,
            );
        } else {
            assert_close(name, got, expected, Tolerance::of(FloatType::F32));
        }
        modules += 1;
    }
    assert_eq!(
        (modules, found.iter().count()),
        (golden.names().filter(|name| name.starts_with("module/")).count(), modules)
    );
    assert_eq!(found.get("_backbone.h.0.attn.c_attn").unwrap().shape().to_vec(), [2, 9, 3 * 16]);
    let tree = found.tree();
    let attention = tree.get("_backbone.h.1.attn").unwrap();
    let below: Vec<&str> = attention.children().map(|(name, _)| name).collect();
    assert_eq!(below, ["c_attn", "attn_dropout", "c_proj", "resid_dropout"]);
    assert_eq!(attention.value().unwrap().shape().to_vec(), [2, 9, 16]);

    let few = CacheOptions::names(["hook_read_in"]);
    let (_, cache) = model.run_with_cache(&input, &RunOptions::default(), &few).unwrap();
    let error = table.activations(&model, &cache).unwrap_err();
    assert!(matches!(error, ConvertError::NotKept { .. }), "{error}");
}

#[test]
fn the_state_dict_comes_back_bit_by_bit() {
    let (Converted { model, dropped }, _) = converted(FloatType::F32);
    let mut source = Checkpoint::open_file(fixture("icl-gpt2").join("model.pth")).unwrap();
    let written = rules().write(model.parameters()).unwrap();
    assert_eq!(written.len() + dropped.len(), source.names().len());
    for (name, found) in written {
        let shape = source.shape(&name).unwrap_or_else(|| panic!("{name} is not in the source"));
        let expected = source.get(&name, &shape).unwrap();
        assert_eq!(found.shape().to_vec(), shape, "{name}");
        assert_eq!(found.as_bytes(), expected.as_bytes(), "{name}");
    }
}

#[test]
fn saved_in_our_format_the_model_comes_back() {
    let (Converted { model, .. }, golden) = converted(FloatType::F32);
    let folder = tempfile::tempdir().unwrap();
    let lens = Pretrained { name: "icl".to_owned(), model, tokenizer: None, left_out: Vec::new() };
    lens.save(folder.path()).unwrap();
    let loaded = from_pretrained(
        folder.path().to_str().unwrap(),
        &LoadOptions { device: burn_lens_testkit::device_spec(), ..LoadOptions::default() },
    )
    .unwrap();
    assert_eq!(loaded.model.config().dims(), lens.model.config().dims());
    let input = vectors(&golden, "x", FloatType::F32);
    assert_eq!(output(&loaded.model, &input).as_bytes(), output(&lens.model, &input).as_bytes());
}

#[test]
fn leftovers_and_gaps_are_listed() {
    let source = Checkpoint::open_file(fixture("icl-gpt2").join("model.pth")).unwrap();
    let tensors = source.names().into_iter().filter(|name| name != "_read_out.bias").map(|name| {
        let mut source = Checkpoint::open_file(fixture("icl-gpt2").join("model.pth")).unwrap();
        let shape = source.shape(&name).unwrap();
        (name.clone(), source.get(&name, &shape).unwrap())
    });
    let mut weights = MemoryWeights::new(tensors);
    let mut table = rules();
    table.drop.clear();
    let error = convert(&table, &mut weights, FloatType::F32, &device()).unwrap_err();
    let ConvertError::Incomplete { leftovers, gaps, .. } = &error else { panic!("{error}") };
    assert_eq!(leftovers, &["_backbone.wte.weight"]);
    assert_eq!(gaps, &["read_out.b (no `_read_out.bias`)"]);

    let mut wrong = rules();
    wrong.model.insert("d_in".to_owned(), 4.into());
    let mut weights = Checkpoint::open_file(fixture("icl-gpt2").join("model.pth")).unwrap();
    let error = convert(&wrong, &mut weights, FloatType::F32, &device()).unwrap_err().to_string();
    assert!(error.contains("_read_in.weight") && error.contains("[16, 4]"), "{error}");
    let mut wrong = rules();
    wrong.weights[0].target = Names::One("read_in.V".to_owned());
    let error = wrong.source_of(Param::ReadInW).is_none();
    assert!(error);
    let error = convert(&wrong, &mut weights, FloatType::F32, &device()).unwrap_err().to_string();
    assert!(error.contains("unknown weight `read_in.V`") && error.contains("read_in.W"), "{error}");
}

/// A format that no table can describe: the final norm's weight less one.
struct LessOne(RuleTable);

/// The final norm's weight and `by`.
fn shifted(data: &TensorData, by: f64) -> TensorData {
    let values: Vec<f64> = data.iter::<f64>().map(|value| value + by).collect();
    TensorData::new(values, data.shape()).convert_dtype(data.dtype())
}

impl Converter for LessOne {
    fn config(&self) -> Result<ModelConfig, ConvertError> {
        self.0.config()
    }

    fn read(&self, weights: &mut dyn Weights) -> Result<Vec<(Param, TensorData)>, ConvertError> {
        let mut read = self.0.read(weights)?;
        for (param, data) in &mut read {
            if *param == Param::LnFinalW {
                *data = shifted(data, 1.0);
            }
        }
        Ok(read)
    }

    fn write(&self, params: &Parameters) -> Result<Vec<(String, TensorData)>, ConvertError> {
        let mut written = self.0.write(params)?;
        for (name, data) in &mut written {
            if name == "_backbone.ln_f.weight" {
                *data = shifted(data, -1.0);
            }
        }
        Ok(written)
    }

    fn drops(&self, name: &str) -> bool {
        self.0.drops(name)
    }
}

#[test]
fn a_format_with_arithmetic_is_a_converter_of_a_users_own() {
    let (Converted { model, .. }, golden) = converted(burn_lens_testkit::finest());
    let stored = LessOne(rules()).write(model.parameters()).unwrap();
    let mut weights = MemoryWeights::new(stored);
    let found = convert(&LessOne(rules()), &mut weights, burn_lens_testkit::finest(), &device()).unwrap();
    let input = vectors(&golden, "x", burn_lens_testkit::finest());
    let tolerance = Tolerance::of(burn_lens_testkit::finest());
    assert_close("output", &output(&found.model, &input), golden.get("output64"), tolerance);
    let plain = convert(&rules(), &mut weights, burn_lens_testkit::finest(), &device()).unwrap();
    let plain = output(&plain.model, &input);
    assert_ne!(plain.as_bytes(), output(&model, &input).as_bytes(), "the shift matters");
    // What is missing is listed without a word on where it should lie.
    let mut less = MemoryWeights::default();
    let error = convert(&LessOne(rules()), &mut less, burn_lens_testkit::finest(), &device())
        .unwrap_err()
        .to_string();
    assert!(error.contains("ln_final.w (no rule makes it)"), "{error}");
}

#[test]
fn processing_respects_the_missing_unembedding() {
    for dtype in float_types() {
        let (Converted { model, .. }, golden) = converted(dtype);
        let input = vectors(&golden, "x", dtype);
        let (processed, left_out) = model.processed_by_default().unwrap();
        let left_out: Vec<Step> = left_out.into_iter().map(|(step, _)| step).collect();
        assert_eq!(left_out, [Step::CenterUnembed]);
        let tolerance = Tolerance(10.0 * Tolerance::of(dtype).0); // folding rounds once more
        assert_close("processed", &output(&processed, &input), &output(&model, &input), tolerance);
        let error = model.processed(&[Step::CenterUnembed]).unwrap_err();
        assert!(
            matches!(&error, ModelError::Processing { reason, .. } if reason.contains("read-out")),
            "{error}"
        );
        let refactored = model.processed(&[Step::FoldLn, Step::RefactorFactoredAttnMatrices]).unwrap();
        assert_close("refactored", &output(&refactored, &input), &output(&model, &input), tolerance);
        assert!(model.w_u().is_none() && model.w_e().is_none() && model.w_e_pos().is_none());
    }
}

#[test]
fn a_configuration_alone_makes_a_model_with_or_without_positions() {
    for positions in ["standard", "none", "rotary"] {
        let mut table = rules();
        table.model.insert("positional_embedding_type".to_owned(), positions.into());
        table.model.insert("d_out".to_owned(), 4.into());
        let config = table.config().unwrap();
        let params = random_parameters(&config, 5, &device(), FloatType::F32);
        let model = HookedTransformer::new(config, params).unwrap();
        let x = Tensor::<3>::random([2, 7, 3], Distribution::Normal(0.0, 1.0), &device());
        let (out, cache) = model
            .run_with_cache(&Input::Vectors(x.clone()), &RunOptions::default(), &CacheOptions::default())
            .unwrap();
        assert_eq!(out.into_logits().unwrap().dims(), [2, 7, 4]);
        assert_eq!(cache.tensor::<Tensor<3>>("hook_read_out").unwrap().dims(), [2, 7, 4]);
        for layer in 0..2 {
            let pattern = data(cache.get(HookPoint::AttnPattern(layer)).unwrap());
            assert_eq!(pattern.shape().to_vec(), [2, 2, 7, 7]);
            for (row, values) in pattern.try_to_vec::<f32>().unwrap().chunks(7).enumerate() {
                assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!(values[row % 7 + 1..].iter().all(|&x| x == 0.0));
            }
        }
        // What stands in the future changes nothing before it.
        let changed = Tensor::cat(vec![x.clone().narrow(1, 0, 5), x.narrow(1, 0, 2)], 1);
        let (before, after) =
            (data(cache.get("hook_read_out").unwrap()), output(&model, &Input::Vectors(changed)));
        assert_eq!(before.try_to_vec::<f32>().unwrap()[..20], after.try_to_vec::<f32>().unwrap()[..20]);
    }
}

#[test]
fn what_does_not_fit_is_said() {
    let (Converted { model, .. }, golden) = converted(FloatType::F32);
    let tokens = Input::Tokens(Tensor::zeros([1, 2], &device()));
    let run = |input: &Input, options: &RunOptions| {
        model.run_with_hooks(input, options, Vec::new()).unwrap_err().to_string()
    };
    assert!(run(&tokens, &RunOptions::default()).contains("no vocabulary"));
    let narrow = Input::Vectors(Tensor::zeros([1, 2, 4], &device()));
    assert!(run(&narrow, &RunOptions::default()).contains("[batch, pos, 3]"));
    let loss = RunOptions::returning(ReturnType::Loss);
    assert!(run(&vectors(&golden, "x", FloatType::F32), &loss).contains("predicts no tokens"));
    let long = Input::Vectors(Tensor::zeros([1, 10, 3], &device()));
    assert!(run(&long, &RunOptions::default()).contains('9'));
    let hook = Hook::edit("unembed.hook_in", |x: Tensor<3>, _: &mut HookContext| x);
    let input = vectors(&golden, "x", FloatType::F32);
    assert!(model.run_with_hooks(&input, &RunOptions::default(), vec![hook]).is_err());
}
