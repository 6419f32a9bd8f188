//! Every `ActivationCache` method and form of argument against TransformerLens 3.9.0, and against
//! a dense computation where that is wrong (`oracle/activation_cache.py`).

use burn::tensor::TensorData;
use burn_lens::{
    analysis::{
        AnalysisError, Answers, AttributionOptions, Component, LensOptions, LogitAttrs, NeuronOptions,
        Normalize, ResidStack, Residuals, StackOptions, Sublayers, Unit, direct_logit_attribution,
        logit_lens,
    },
    models::processing::Step,
    prelude::*,
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, fixture, fixtures, float_types};
use serde_json::Value;

use crate::common::{cached, data, load, open};

/// One fixture: a model, its processing, its cases.
struct Suite {
    name: String,
    cases: Value,
    golden: Golden,
}

impl Suite {
    fn open(name: &str) -> Self {
        let folder = fixture(name);
        let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
        Self {
            name: name.to_owned(),
            cases: serde_json::from_str(&text).unwrap(),
            golden: Golden::open(folder.join("cases.safetensors")),
        }
    }

    fn model(&self, dtype: FloatType) -> (HookedTransformer, Tensor<2, Int>) {
        let base = self.cases["model"].as_str().unwrap();
        let steps: Vec<Step> = self.cases["processing"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step.as_str().unwrap().parse().unwrap())
            .collect();
        let model = load(&fixture(base), dtype);
        // TransformerLens passes over this step in silence where it is not valid.
        let centers = model.wiring().unwrap().norm == burn_lens::tensor::NormKind::Layer;
        let valid = |step: &Step| centers || step.to_string() != "center_writing_weights";
        let steps: Vec<Step> = steps.into_iter().filter(valid).collect();
        let model = model.processed(&steps).unwrap();
        let tokens = open(base, dtype).1.ints("tokens", &model.device());
        (model, tokens)
    }
}

fn slice(value: &Value) -> Slice {
    if value.is_null() {
        return Slice::All;
    }
    let numbers = |value: &Value| -> Vec<isize> {
        value.as_array().unwrap().iter().map(|n| n.as_i64().unwrap() as isize).collect()
    };
    if let Some(index) = value["int"].as_i64() {
        return Slice::Index(index as isize);
    }
    if !value["list"].is_null() {
        return Slice::List(numbers(&value["list"]));
    }
    match numbers(&value["range"])[..] {
        [stop] => Slice::Range { start: None, stop: Some(stop), step: 1 },
        [start, stop] => Slice::range(start, stop),
        [start, stop, step] => Slice::Range { start: Some(start), stop: Some(stop), step: step as usize },
        _ => panic!("{value} is not a slice"),
    }
}

fn stack_options(args: &Value) -> StackOptions {
    StackOptions {
        layer: args["layer"].as_i64().map(|layer| layer as isize),
        mlp_input: args["mlp_input"].as_bool().unwrap_or(false),
        pos_slice: slice(&args["pos_slice"]),
        normalize: normalize(args),
    }
}

fn normalize(args: &Value) -> Normalize {
    match args["normalize"].as_str() {
        Some("attribution") => Normalize::Attribution,
        Some("lens") => Normalize::Lens,
        _ => Normalize::None,
    }
}

fn tokens(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as usize).collect()
}

fn answers(axes: &Value, value: &Value) -> Option<Answers> {
    if value.is_null() {
        return None;
    }
    let axes: Vec<&str> = axes.as_array().unwrap().iter().map(|axis| axis.as_str().unwrap()).collect();
    Some(match axes[..] {
        [] => Answers::One(value.as_u64().unwrap() as usize),
        ["batch"] => Answers::EachPrompt(tokens(value)),
        ["pos"] => Answers::EachPos(tokens(value)),
        _ => Answers::EachPromptAndPos(value.as_array().unwrap().iter().map(tokens).collect()),
    })
}

/// What a case asks of one cache.
struct Case<'a> {
    id: String,
    description: &'a Value,
    suite: &'a Suite,
    residuals: &'a Residuals<'a, HookedTransformer>,
    tolerance: Tolerance,
}

impl Case<'_> {
    fn args(&self) -> &Value {
        &self.description["args"]
    }

    fn onto(&self) -> Option<Tensor<2>> {
        let text = self.args()["project_output_onto"].as_str()?;
        let like = self.residuals.accumulated_resid(&StackOptions::default(), false).unwrap().values();
        let onto =
            Tensor::<2>::from_data(self.suite.golden.get("onto").clone(), (&like.device(), like.dtype()));
        Some(if text == "onto" { onto } else { onto.narrow(1, 0, 1) })
    }

    fn neurons(&self) -> NeuronOptions {
        NeuronOptions {
            neuron_slice: slice(&self.args()["neuron_slice"]),
            project_output_onto: self.onto(),
            incl_remainder: self.args()["incl_remainder"].as_bool().unwrap_or(false),
        }
    }

    fn stack(&self, method: &str, options: &StackOptions) -> ResidStack {
        let (residuals, args) = (self.residuals, self.args());
        let flag = |name: &str, default: bool| args[name].as_bool().unwrap_or(default);
        let stack = match method {
            "accumulated_resid" => residuals.accumulated_resid(options, flag("incl_mid", false)),
            "decompose_resid" => {
                let mode: Sublayers = args["mode"].as_str().unwrap_or("all").parse().unwrap();
                residuals.decompose_resid(options, mode, flag("incl_embeds", true))
            }
            "stack_head_results" => residuals.stack_head_results(options, flag("incl_remainder", false)),
            "stack_neuron_results" => residuals.stack_neuron_results(options, &self.neurons()),
            "get_full_resid_decomposition" => residuals.get_full_resid_decomposition(
                options,
                flag("expand_neurons", true),
                self.onto().as_ref(),
            ),
            _ => panic!("{}: no method {method}", self.id),
        };
        stack.unwrap_or_else(|error| panic!("{}: {error}", self.id))
    }

    /// A stack to normalize or attribute, raw and with the case's slices.
    fn argument(&self) -> ResidStack {
        let args = self.args();
        let options = StackOptions { normalize: Normalize::None, ..stack_options(args) };
        let stack = self.stack(args["stack"].as_str().unwrap(), &options);
        stack.slice_batch(&slice(&args["batch_slice"])).unwrap()
    }

    fn labels(&self, labels: &[String]) {
        let expected: Vec<&str> = self.description["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| label.as_str().unwrap())
            .collect();
        assert_eq!(labels, expected, "{}", self.id);
    }

    /// Compares, allowing for the axis of a single projection that TransformerLens drops.
    fn close(&self, found: &TensorData) {
        let expected = self.suite.golden.get(self.description["tensor"].as_str().unwrap());
        let mut shape = found.shape().to_vec();
        if self.args()["project_output_onto"] == "onto[:, 0]" {
            assert_eq!(shape.pop(), Some(1), "{}", self.id);
        }
        let found = crate::common::reshaped(found, shape);
        assert_close(&self.id, &found, expected, self.tolerance);
    }

    fn check_stack(&self, stack: ResidStack) {
        self.labels(&stack.labels());
        self.close(&data(stack.into_any()));
    }

    /// A stack without rows, which TransformerLens gives, is an error here.
    fn check_empty(&self) {
        let options = stack_options(self.args());
        let result = match self.description["method"].as_str().unwrap() {
            "stack_head_results" => self.residuals.stack_head_results(&options, false),
            "stack_neuron_results" => self.residuals.stack_neuron_results(&options, &self.neurons()),
            "decompose_resid" => {
                let mode: Sublayers = self.args()["mode"].as_str().unwrap_or("all").parse().unwrap();
                let embeds = self.args()["incl_embeds"].as_bool().unwrap_or(true);
                self.residuals.decompose_resid(&options, mode, embeds)
            }
            method => panic!("{}: {method} without rows", self.id),
        };
        assert!(matches!(result, Err(AnalysisError::Empty { .. })), "{}", self.id);
    }

    fn check(&self) {
        if self.description["shape"][0] == 0 {
            return self.check_empty();
        }
        let (residuals, args) = (self.residuals, self.args());
        match self.description["method"].as_str().unwrap() {
            // `hook_result` is what its hook holds, before any norm behind attention; where there is
            // one, what reaches the stream is in the stack.
            "compute_head_results" if self.description["tl_wrong"].is_string() => {
                let stack = residuals.stack_head_results(&StackOptions::default(), false).unwrap();
                let expected =
                    self.suite.golden.get(self.description["tensor"].as_str().unwrap()).shape().to_vec();
                let [n_layers, batch, pos, heads, d_model] = expected[..] else {
                    panic!("{}: shape", self.id)
                };
                let by_layer = stack.values().reshape([n_layers, heads, batch, pos, d_model]);
                self.close(&by_layer.permute([0, 2, 3, 1, 4]).into_data());
            }
            "compute_head_results" => {
                let cache = residuals.compute_head_results().unwrap();
                let residuals = Residuals::new(residuals.model(), &cache).unwrap();
                self.close(&data(residuals.stack_activation("result", -1, None).unwrap()));
            }
            "stack_activation" => {
                let name = args["activation_name"].as_str().unwrap();
                let layer = args["layer"].as_i64().map(|layer| layer as isize);
                let found = residuals.stack_activation(name, layer, args["sublayer_type"].as_str());
                self.close(&data(found.unwrap_or_else(|error| panic!("{}: {error}", self.id))));
            }
            "get_neuron_results" => {
                let layer = args["layer"].as_u64().unwrap() as usize;
                let pos = slice(&args["pos_slice"]);
                let results = residuals.get_neuron_results(layer, &pos, &self.neurons()).unwrap();
                // TransformerLens drops the axis of a single position or neuron.
                let mut found = AnyTensor::from(results);
                if slice(&args["neuron_slice"]).is_index() {
                    found = found.remove_axis(2).unwrap();
                }
                if pos.is_index() {
                    found = found.remove_axis(1).unwrap();
                }
                self.close(&data(&found));
            }
            "apply_ln_to_stack" => {
                let layer = args["layer"].as_i64().map(|layer| layer as isize);
                let mlp_input = args["mlp_input"].as_bool().unwrap();
                let stack = residuals.apply_ln_to_stack(&self.argument(), layer, mlp_input, normalize(args));
                self.check_stack(stack.unwrap_or_else(|error| panic!("{}: {error}", self.id)));
            }
            "logit_attrs" => self.check_logit_attrs(),
            "logit_lens" => self.check_lens(),
            // The rows themselves are never formed; `logit_attrs` of them is checked.
            "sources" => {}
            method => self.check_stack(self.stack(method, &stack_options(args))),
        }
    }

    fn check_logit_attrs(&self) {
        let args = self.args();
        let answer = answers(&args["axes"], &args["tokens"]).unwrap();
        let against = answers(&args["axes"], &args["incorrect_tokens"]);
        if args["stack"] == "sources" {
            let pos_slice = slice(&args["pos_slice"]);
            let options = AttributionOptions { answers: answer, against, by: Unit::Source, pos_slice };
            let attrs = direct_logit_attribution(self.residuals, &options).unwrap();
            let rows: Vec<i64> = (0..)
                .zip(attrs.components())
                .filter(|(_, component)| matches!(component, Component::Source(..)))
                .map(|(row, _)| row)
                .collect();
            let labels: Vec<String> = rows.iter().map(|&row| attrs.labels()[row as usize].clone()).collect();
            self.labels(&labels);
            let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &attrs.values().device());
            self.close(&attrs.values().select(0, rows).squeeze_dim::<2>(2).into_data());
            return;
        }
        let attrs = self.residuals.logit_attrs(&self.argument(), answer, against.as_ref());
        let attrs: LogitAttrs = attrs.unwrap_or_else(|error| panic!("{}: {error}", self.id));
        self.labels(&attrs.labels());
        self.close(&data(attrs.into_any()));
    }

    fn check_lens(&self) {
        let args = self.args();
        let expected = self.suite.golden.get(self.description["tensor"].as_str().unwrap());
        let d_vocab = *expected.shape().to_vec().last().unwrap();
        let options = LensOptions {
            pos_slice: slice(&args["pos_slice"]),
            incl_mid: args["incl_mid"].as_bool().unwrap(),
            top_k: 1,
            targets: (0..d_vocab).collect(),
        };
        let lens = logit_lens(self.residuals, &options, None).unwrap();
        let labels: Vec<String> = lens.components.iter().map(ToString::to_string).collect();
        self.labels(&labels);
        let cells = lens.cells.iter().flatten().flatten();
        let found: Vec<f64> = cells.flat_map(|cell| cell.targets.iter().map(|token| token.logit)).collect();
        self.close(&TensorData::new(found, expected.shape().to_vec()));
    }
}

/// The cache of a case: whole, or cut as it says.
fn prepared(case: &Value, cache: &ActivationCache) -> ActivationCache {
    let mut cache = cache.clone();
    for step in case["before"].as_array().into_iter().flatten() {
        assert_eq!(step["method"], "apply_slice_to_batch_dim");
        cache = cache.apply_slice_to_batch_dim(&slice(&step["args"]["batch_slice"])).unwrap();
    }
    cache
}

#[test]
fn every_method_equals_transformer_lens_or_the_mathematics() {
    let names = fixtures(|name| name.starts_with("cache-") && name != "cache-shortformer");
    assert!(names.len() >= 8, "{names:?}");
    for dtype in float_types() {
        // Fixtures are exact to 1e-16; remainders cancel, so an order of magnitude is lost.
        let tolerance = Tolerance(10.0 * Tolerance::of(dtype).0);
        for name in &names {
            let suite = Suite::open(name);
            let (model, tokens) = suite.model(dtype);
            let whole = cached(&model, &tokens, &[]);
            for case in suite.cases["cases"].as_array().unwrap() {
                let cache = prepared(case, &whole);
                let residuals = Residuals::new(&model, &cache).unwrap();
                let id = format!("{} {} in {dtype}", suite.name, case["id"].as_str().unwrap());
                Case { id, description: case, suite: &suite, residuals: &residuals, tolerance }.check();
            }
        }
    }
}
