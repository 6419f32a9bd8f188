//! Factored matrices, circuits and singular vectors against TransformerLens 3.9.0, and against dense
//! linear algebra where that is wrong (`oracle/circuits.py`).

use burn::tensor::TensorData;
use burn_lens::{
    analysis::{
        Circuits, Composition, Folding, Space, SvdInterpreter, VectorType, all_head_labels,
        effective_embedding,
    },
    hooks::HookPoint,
    linalg::{Complex, FactoredMatrix, Index, Matrices, Values, composition_scores},
    models::processing::Step,
    prelude::*,
};
use burn_lens_testkit::{
    Golden, Tolerance, assert_close, device, fixture, fixtures, float_types, shared_model,
};
use serde_json::Value;

use crate::common::{data, load, open};

/// One fixture: its cases and their tensors.
struct Suite {
    name: String,
    cases: Value,
    golden: Golden,
}

impl Suite {
    fn open(name: &str) -> Self {
        let folder = fixture(name);
        let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
        let cases = serde_json::from_str(&text).unwrap();
        Self { name: name.to_owned(), cases, golden: Golden::open(folder.join("cases.safetensors")) }
    }

    fn cases(&self) -> &[Value] {
        self.cases["cases"].as_array().unwrap()
    }

    /// The tensor that `case` calls `key`.
    fn tensor(&self, case: &Value, key: &str) -> &TensorData {
        self.golden.get(case[key].as_str().unwrap_or_else(|| panic!("{case}: no {key}")))
    }

    /// The argument `key` of `case`, on the device under test.
    fn matrices(&self, case: &Value, key: &str, dtype: FloatType) -> Matrices {
        let data = self.golden.get(case["args"][key].as_str().unwrap()).clone();
        let any = AnyTensor::from_data(data, &device()).unwrap().cast(dtype);
        any.try_into().unwrap()
    }

    fn factored(&self, case: &Value, [a, b]: [&str; 2], dtype: FloatType) -> FactoredMatrix {
        FactoredMatrix::new(self.matrices(case, a, dtype), self.matrices(case, b, dtype)).unwrap()
    }

    /// The model of the cases, processed as theirs was.
    fn model(&self, dtype: FloatType) -> HookedTransformer {
        let model = load(&fixture(self.cases["model"].as_str().unwrap()), dtype);
        let steps = self.cases["processing"].as_array().unwrap().iter();
        let steps: Vec<Step> = steps.map(|step| step.as_str().unwrap().parse().unwrap()).collect();
        // TransformerLens passes over a step in silence where it is not valid.
        let valid: Vec<Step> =
            steps.into_iter().filter(|step| step.invalid_for(model.config()).is_none()).collect();
        model.processed(&valid).unwrap()
    }
}

fn models() -> Vec<Suite> {
    let names = fixtures(|name| name.starts_with("circuits-") && name != "circuits-factored");
    names.iter().map(|name| Suite::open(name)).collect()
}

pub(crate) fn host(values: &Values) -> TensorData {
    // Golden files have no tensors without axes but those of one value.
    TensorData::new(values.data().to_vec(), values.shape().to_vec())
}

fn dense(m: &Matrices) -> TensorData {
    data(&m.clone().into_any().unwrap())
}

/// Each row of `found` is, in some order, that of `expected`; zeros may be left out.
#[track_caller]
pub(crate) fn same_sets(what: &str, found: &Values<Complex>, expected: &TensorData, tolerance: Tolerance) {
    let expected: Vec<f64> = expected.iter::<f64>().collect();
    let largest = expected.chunks(2).map(|z| z[0].hypot(z[1])).fold(1e-30, f64::max);
    let kept = *found.shape().last().unwrap();
    let rows = found.data().len() / kept.max(1);
    let there = expected.len() / 2 / rows.max(1);
    for row in 0..rows {
        let mut left: Vec<Complex> = (0..there)
            .map(|at| 2 * (row * there + at))
            .map(|at| Complex { re: expected[at], im: expected[at + 1] })
            .collect();
        let padded = found.data()[row * kept..(row + 1) * kept].iter().copied();
        for value in padded.chain(std::iter::repeat_n(Complex::default(), there - kept)) {
            let distance = |z: &Complex| (z.re - value.re).hypot(z.im - value.im);
            let nearest =
                (0..left.len()).min_by(|&a, &b| distance(&left[a]).total_cmp(&distance(&left[b]))).unwrap();
            let error = distance(&left.swap_remove(nearest)) / largest;
            assert!(error <= tolerance.0, "{what}: {value} is off by {error:.1e}");
        }
    }
}

fn index(text: &str) -> Vec<Index> {
    let mut parts = vec![String::new()];
    let mut inside = false;
    for character in text.chars() {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            ',' if !inside => parts.push(String::new()),
            other => parts.last_mut().unwrap().push(other),
        }
    }
    let part =
        |part: &String| if part == "..." { Index::Ellipsis } else { Index::Slice(part.parse().unwrap()) };
    parts.iter().map(part).collect()
}

/// The matrix that a method of the original gives, formed.
fn factored_result(suite: &Suite, case: &Value, dtype: FloatType) -> TensorData {
    let args = &case["args"];
    let m = || suite.factored(case, ["a", "b"], dtype);
    let gram = |m: &Matrices, transposed: bool| {
        let flat = if transposed { m.flat().transpose() } else { m.flat() };
        let lead = m.lead().to_vec();
        dense(&Matrices::new(lead, flat.clone().transpose().matmul(flat)))
    };
    match case["method"].as_str().unwrap() {
        "ab" => dense(&m().ab()),
        "ba" => dense(&m().ba().unwrap()),
        "t" => dense(&m().t().ab()),
        "s" => host(&m().singular_values().unwrap()),
        "svd" => {
            let svd = m().svd().unwrap();
            let [n, _, k] = svd.u.flat().dims();
            let s = Tensor::<3>::from_data(
                TensorData::new(svd.s.data().to_vec(), [n, 1, k]),
                (&device(), m().dtype()),
            );
            dense(&Matrices::new(m().lead().to_vec(), (svd.u.flat() * s).matmul(svd.vh().flat())))
        }
        "norm" => host(&m().norm().unwrap()),
        "trace" => host(&m().trace().unwrap()),
        "make_even" => dense(&m().make_even().unwrap().ab()),
        "make_even.left_gram" => gram(&m().make_even().unwrap().a(), false),
        "make_even.right_gram" => gram(&m().make_even().unwrap().b(), true),
        "collapse_l.gram" => gram(&m().collapse_l().unwrap(), false),
        "collapse_r.gram" => gram(&m().collapse_r().unwrap(), true),
        "get_corner" => dense(&m().get_corner(2).unwrap()),
        "unsqueeze" => dense(&m().unsqueeze(0).ab()),
        "index" => dense(&m().index(&index(args["index"].as_str().unwrap())).unwrap().ab()),
        "mul" => dense(&(&m() * args["scalar"].as_f64().unwrap()).ab()),
        "add" => dense(&m().add(&suite.factored(case, ["other_a", "other_b"], dtype)).unwrap().ab()),
        "sub" => dense(&m().sub(&suite.factored(case, ["other_a", "other_b"], dtype)).unwrap().ab()),
        "matmul" => multiplied(suite, case, dtype),
        "composition_scores" => {
            let left = suite.factored(case, ["left_a", "left_b"], dtype);
            let right = suite.factored(case, ["right_a", "right_b"], dtype);
            if args["broadcast"] == true {
                return host(&composition_scores(&left, &right).unwrap());
            }
            let product = left.matmul_factored(&right).unwrap().norm().unwrap();
            let (l, r) = (left.norm().unwrap(), right.norm().unwrap());
            let score = |i: usize| product.data()[i] / l.data()[i] / r.data()[i];
            TensorData::new((0..l.data().len()).map(score).collect::<Vec<_>>(), l.shape().to_vec())
        }
        other => panic!("no method {other}"),
    }
}

fn multiplied(suite: &Suite, case: &Value, dtype: FloatType) -> TensorData {
    let (m, args) = (suite.factored(case, ["a", "b"], dtype), &case["args"]);
    if args["other_a"].is_string() {
        let product = m.matmul_factored(&suite.factored(case, ["other_a", "other_b"], dtype)).unwrap();
        assert_eq!(product.mdim() as u64, case["mdim"].as_u64().unwrap(), "{}", case["id"]);
        return dense(&product.ab());
    }
    let other = suite.golden.get(args["other"].as_str().unwrap()).clone();
    let right = args["side"] == "right";
    let other = AnyTensor::from_data(other, &device()).unwrap().cast(dtype);
    if let AnyTensor::Float1(vector) = other {
        return data(&if right { m.matvec(vector) } else { m.matvec_left(vector) }.unwrap());
    }
    let other = Matrices::try_from(other).unwrap();
    let product = if right { m.matmul(other) } else { m.matmul_left(other) }.unwrap();
    assert_eq!(product.mdim() as u64, case["mdim"].as_u64().unwrap(), "{}", case["id"]);
    dense(&product.ab())
}

#[test]
fn factored_matrices_are_those_of_the_original() {
    let suite = Suite::open("circuits-factored");
    for dtype in float_types() {
        for case in suite.cases() {
            let id = case["id"].as_str().unwrap();
            if case["method"] == "eigenvalues" {
                let found = suite.factored(case, ["a", "b"], dtype).eigenvalues().unwrap();
                same_sets(id, &found, suite.tensor(case, "tensor"), Tolerance::of(dtype));
                continue;
            }
            let (found, expected) = (factored_result(&suite, case, dtype), suite.tensor(case, "tensor"));
            let shape: Vec<u64> =
                case["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
            assert_eq!(found.shape().iter().map(|&n| n as u64).collect::<Vec<_>>(), shape, "{id}");
            let expected =
                TensorData::new(expected.iter::<f64>().collect::<Vec<_>>(), found.shape().to_vec());
            assert_close(id, &found, &expected, Tolerance::of(dtype));
        }
    }
}

#[test]
fn circuits_are_those_of_the_original() {
    for suite in models() {
        for dtype in float_types() {
            let (model, tolerance) = (suite.model(dtype), Tolerance::of(dtype));
            // TransformerLens takes weights as they are.
            let circuits = Circuits::new(&model, Folding::Raw).unwrap();
            let mut checked = 0;
            for case in suite.cases() {
                let id = case["id"].as_str().unwrap();
                let what = format!("{} {id} in {dtype}", suite.name);
                let expected = || suite.tensor(case, "tensor");
                let values = match id {
                    "OV.singular_values" => circuits.ov().unwrap().singular_values().unwrap(),
                    "QK.singular_values" => circuits.qk().unwrap().singular_values().unwrap(),
                    "OV.norm" => circuits.ov().unwrap().norm().unwrap(),
                    "QK.norm" => circuits.qk().unwrap().norm().unwrap(),
                    "copying_scores" => circuits.copying_scores().unwrap(),
                    "copying_scores.OV" => circuits.ov_copying_scores().unwrap(),
                    "OV.eigenvalues" | "QK.eigenvalues" | "full_OV.eigenvalues" => {
                        let m = match id {
                            "OV.eigenvalues" => circuits.ov(),
                            "QK.eigenvalues" => circuits.qk(),
                            _ => circuits.full_ov(),
                        };
                        same_sets(
                            &what,
                            &m.unwrap().eigenvalues().unwrap(),
                            expected(),
                            Tolerance(10.0 * tolerance.0),
                        );
                        checked += 1;
                        continue;
                    }
                    "full_OV" | "full_QK" => {
                        let m = if id == "full_OV" { circuits.full_ov() } else { circuits.full_qk() };
                        assert_close(&what, &dense(&m.unwrap().ab()), expected(), tolerance);
                        checked += 1;
                        continue;
                    }
                    _ if case["method"] == "all_composition_scores" => {
                        let kind: Composition = case["args"]["mode"].as_str().unwrap().parse().unwrap();
                        let labels: Vec<&str> = case["labels"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|label| label.as_str().unwrap())
                            .collect();
                        assert_eq!(all_head_labels(&circuits.dims()), labels);
                        circuits.all_composition_scores(kind).unwrap()
                    }
                    _ => continue,
                };
                assert_close(&what, &host(&values), expected(), tolerance);
                checked += 1;
            }
            assert_eq!(checked, 14, "{}", suite.name);
        }
    }
}

#[test]
fn singular_vectors_are_those_of_the_original() {
    for suite in models() {
        for dtype in float_types() {
            // Vectors are as well determined as their singular values are apart: 1e-3 of the largest here.
            let (model, tolerance) = (suite.model(dtype), Tolerance(100.0 * Tolerance::of(dtype).0));
            let mut checked = 0;
            for case in suite.cases().iter().filter(|case| case["method"] == "get_singular_vectors") {
                let (id, args) = (case["id"].as_str().unwrap(), &case["args"]);
                let folding = if args["fold"] == false { Folding::Raw } else { Folding::Fold };
                let interpreter = SvdInterpreter::new(&model, folding).unwrap();
                let kind: VectorType = args["vector_type"].as_str().unwrap().parse().unwrap();
                let number = |key: &str| args[key].as_u64().map(|n| n as usize);
                let (layer, count) = (number("layer_index").unwrap(), number("num_vectors").unwrap());
                let found =
                    interpreter.get_singular_vectors(kind, layer, number("head_index"), count).unwrap();
                let s = suite.tensor(case, "singular_values");
                assert_close(id, &TensorData::new(found.values.clone(), [count]), s, Tolerance::of(dtype));
                let expected = suite.tensor(case, "tensor");
                let readout = found.readout.into_data();
                assert_close(id, &up_to_sign(&readout, expected), expected, tolerance);
                checked += 1;
            }
            assert!(checked >= 4, "{}: {checked} cases", suite.name);
        }
    }
}

/// `found` `[.., columns]`, with each column turned to where `expected` points.
pub(crate) fn up_to_sign(found: &TensorData, expected: &TensorData) -> TensorData {
    let columns = *found.shape().to_vec().last().unwrap();
    let (mut values, expected): (Vec<f64>, Vec<f64>) = (found.iter().collect(), expected.iter().collect());
    for column in 0..columns {
        let dot: f64 = (column..values.len()).step_by(columns).map(|at| values[at] * expected[at]).sum();
        if dot < 0.0 {
            (column..values.len()).step_by(columns).for_each(|at| values[at] = -values[at]);
        }
    }
    TensorData::new(values, found.shape().to_vec())
}

/// Folding on the fly gives the circuits of the model that `fold_ln` gives, and leaves those alone.
#[test]
fn folding_on_the_fly_is_folding() {
    let all = fixtures(|name| {
        ["tl-ln", "tl-rms-gqa", "gemma2", "tl-parallel", "tl-solu-ln", "gpt2", "qwen3"].contains(&name)
    });
    for name in all {
        for dtype in float_types() {
            let model = open(&name, dtype).0;
            if Step::FoldLn.invalid_for(model.config()).is_some() {
                continue;
            }
            let folded = model.processed(&[Step::FoldLn]).unwrap();
            let (fly, once) = (
                Circuits::new(&model, Folding::Fold).unwrap(),
                Circuits::new(&folded, Folding::Fold).unwrap(),
            );
            assert!(fly.notes()[0].contains("are folded"), "{name}: {:?}", fly.notes());
            assert_eq!(once.notes()[0], "the norms have no weights to fold", "{name}");
            let pairs = [(fly.full_ov(), once.full_ov()), (fly.qk(), once.qk())];
            for (a, b) in pairs {
                assert_close(&name, &dense(&a.unwrap().ab()), &dense(&b.unwrap().ab()), Tolerance::of(dtype));
            }
            let (a, b) = (
                SvdInterpreter::new(&model, Folding::Fold).unwrap(),
                SvdInterpreter::new(&folded, Folding::Fold).unwrap(),
            );
            for kind in VectorType::ALL {
                let head = kind.of_head().then_some(1);
                match (a.get_singular_vectors(kind, 1, head, 2), b.get_singular_vectors(kind, 1, head, 2)) {
                    (Ok(a), Ok(b)) => {
                        let (a, b) = (a.readout.into_data(), b.readout.into_data());
                        assert_close(
                            &format!("{name} {kind}"),
                            &a,
                            &b,
                            Tolerance(1e3 * Tolerance::of(dtype).0),
                        );
                    }
                    (Err(a), Err(_)) => assert!(a.to_string().contains("W_gate"), "{name}: {a}"),
                    _ => panic!("{name}: {kind} is there in one of two"),
                }
            }
        }
    }
}

/// Grouped heads share their factors, and their circuits are those of the repeated ones.
#[test]
fn grouped_heads_are_not_repeated() {
    for dtype in float_types() {
        let model = open("llama-gqa", dtype).0;
        let circuits = Circuits::new(&model, Folding::Raw).unwrap();
        let dims = circuits.dims();
        assert!(dims.n_kv_heads < dims.n_heads);
        let (w_v, w_o) = (model.w_v().unwrap(), model.w_o().unwrap());
        let (w_q, w_k) = (model.w_q().unwrap(), model.w_k().unwrap());
        let (ov, qk) = (circuits.ov().unwrap(), circuits.qk().unwrap());
        for layer in 0..dims.n_layers {
            for head in 0..dims.n_heads {
                let kv = head / (dims.n_heads / dims.n_kv_heads);
                let at = |w: &Tensor<4>, head: usize| {
                    w.clone().narrow(0, layer, 1).narrow(1, head, 1).squeeze_dim::<3>(0).squeeze_dim::<2>(0)
                };
                let expected = at(&w_v, kv).matmul(at(&w_o, head)).into_data();
                assert_close("OV", &ov.dense_at(&[layer, head]).into_data(), &expected, Tolerance::of(dtype));
                let expected = at(&w_q, head).matmul(at(&w_k, kv).transpose()).into_data();
                assert_close("QK", &qk.dense_at(&[layer, head]).into_data(), &expected, Tolerance::of(dtype));
            }
        }
    }
}

/// What the effective embedding says is in the stream of a run without attention and positions.
#[test]
fn the_effective_embedding_is_the_first_mlp_on_each_token() {
    for name in ["gpt2", "llama-gqa", "tl-parallel", "tl-attn-only", "gemma2"] {
        for dtype in float_types() {
            let model = open(name, dtype).0;
            let found = effective_embedding(&model).unwrap();
            assert_eq!(found.dims(), [model.dims().d_vocab, model.dims().d_model]);
            let embedded = |point: HookPoint| {
                let tokens: Tensor<2, Int> = Tensor::from_data([[3, 5]], &model.device());
                let zero =
                    |point: HookPoint| Hook::edit(point, |x: Tensor<3>, _: &mut HookContext| x.zeros_like());
                let fires = model.firing().always;
                let silent =
                    [HookPoint::AttnOut(0), HookPoint::PosEmbed].into_iter().filter(|p| fires.contains(p));
                let names = CacheOptions::names([point.to_string()]);
                let (_, cache) = model
                    .run(&(&tokens).into(), &RunOptions::default(), silent.map(zero).collect(), &names)
                    .unwrap();
                cache.get(point).unwrap().clone()
            };
            let AnyTensor::Float3(stream) = embedded(HookPoint::ResidPost(0)) else { panic!("a stream") };
            let rows = Tensor::cat(vec![found.clone().narrow(0, 3, 1), found.narrow(0, 5, 1)], 0);
            assert_close(
                name,
                &rows.into_data(),
                &stream.squeeze_dim::<2>(0).into_data(),
                Tolerance::of(dtype),
            );
        }
    }
}

#[test]
fn what_is_out_of_range_is_named() {
    let model = open("tl-ln", FloatType::F32).0;
    let interpreter = SvdInterpreter::new(&model, Folding::default()).unwrap();
    let message = |kind: &str, layer, head, count| {
        let kind: VectorType = kind.parse().unwrap();
        interpreter.get_singular_vectors(kind, layer, head, count).unwrap_err().to_string()
    };
    assert_eq!(message("OV", 2, Some(0), 1), "layer = 2 is outside a model of 2 layers");
    assert_eq!(message("OV", 0, Some(2), 1), "head 2 is outside 0..2");
    assert_eq!(message("OV", 0, None, 1), "singular vectors: each head has its own `OV`: which head?");
    assert_eq!(
        message("w_in", 0, Some(0), 1),
        "singular vectors: `w_in` belongs to the whole layer, not to a head"
    );
    assert_eq!(message("OV", 0, Some(0), 5), "singular vectors: 5 vectors were asked for, but there are 4");
    assert_eq!(message("w_out", 0, None, 9), "singular vectors: 9 vectors were asked for, but there are 8");
    assert_eq!(message("w_in", 0, None, 0), "singular vectors: 0 vectors were asked for, but there are 8");
    assert_eq!(message("w_gate", 0, None, 1), "this model has no weight `blocks.0.mlp.W_gate`");
    assert!("W_in".parse::<VectorType>().unwrap_err().to_string().contains("is none of `OV`, `w_in`"));
    assert!("R".parse::<Composition>().is_err() && "rows".parse::<Space>().is_err());
}

/// What the FactoredMatrix demo printed, from its random matrices (`oracle/factored_matrix_demo.py`).
#[test]
fn the_demo_prints_what_it_printed() {
    let inputs = Golden::open(fixture("factored-matrix-demo").join("inputs.safetensors"));
    let [a, b, c] = ["A", "B", "C"].map(|name| Tensor::<2>::from_data(inputs.get(name).clone(), &device()));
    let factored = FactoredMatrix::new(a, b).unwrap();
    let round = |x: f64, places: i32| (x * 10f64.powi(places)).round() / 10f64.powi(places);
    assert_eq!(round(factored.norm().unwrap().get(&[]), 4), 9.9105);
    let s: Vec<f64> = factored.singular_values().unwrap().data().iter().map(|&s| round(s, 4)).collect();
    assert_eq!(s, [8.3126, 5.3963]);
    let eigenvalues = factored.eigenvalues().unwrap();
    let mut eigenvalues: Vec<f64> = eigenvalues.data().iter().map(|value| round(value.re, 4)).collect();
    eigenvalues.sort_by(f64::total_cmp);
    assert_eq!(eigenvalues, [-6.2877, 2.3121]);
    let product = factored.matmul(c).unwrap();
    assert_eq!(round(product.norm().unwrap().get(&[]), 3), 171.409);
    assert_eq!(product.to_string(), "FactoredMatrix: Shape(torch.Size([5, 300])), Hidden Dim(2)");
}

/// The trained induction model: a previous-token head in layer 0, induction heads in layer 1 that read
/// it in their keys and copy what they attend to.
#[test]
fn circuits_of_a_trained_induction_model() {
    let Some(folder) = shared_model("induction-2l") else { return };
    for dtype in float_types() {
        let model = load(&folder, dtype);
        let circuits = Circuits::new(&model, Folding::default()).unwrap();
        let qk = circuits.qk_scores().unwrap();
        let previous = qk.previous_token.unwrap();
        let best = |values: &Values, layer: usize| {
            let row = values.at(&[layer]);
            (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
        };
        let writer = best(&previous, 0);
        let others = (0..4).filter(|&head| head != writer).map(|head| previous.get(&[0, head]));
        assert!(others.into_iter().all(|other| previous.get(&[0, writer]) > 2.0 * other), "{previous:?}");
        let scores = circuits.all_composition_scores(Composition::K).unwrap();
        let pairs = circuits.strongest_compositions(Composition::K, &scores, 3).unwrap();
        assert_eq!(pairs[0].writer, (0, writer), "{pairs:?}");
        assert!(pairs[0].z.unwrap() > 5.0, "{pairs:?}");
        let copying = circuits.copying_scores().unwrap();
        assert!(copying.get(&[1, pairs[0].reader.1]) > 0.8, "{copying:?}");
    }
}

/// The dense matrices of every trained model say the same as the factored ones.
#[test]
fn trained_models_agree_with_dense_arithmetic() {
    let dtype = burn_lens_testkit::finest();
    for name in ["induction-2l", "stories260k", "brackets", "sorted-list", "modular-addition"] {
        let Some(folder) = shared_model(name) else { continue };
        let model = load(&folder, dtype);
        let circuits = Circuits::new(&model, Folding::default()).unwrap();
        let dims = circuits.dims();
        let (ov, full) = (circuits.ov().unwrap(), circuits.full_ov().unwrap());
        let (norms, s) = (ov.norm().unwrap(), ov.singular_values().unwrap());
        for layer in 0..dims.n_layers {
            for head in 0..dims.n_heads {
                let at = [layer, head];
                let dense = ov.dense_at(&at);
                let svd = burn_lens::linalg::svd(dense.clone()).unwrap();
                let kept = s.at(&at).len();
                let expected = svd.s.narrow(0, 0, kept).into_data();
                assert_close(
                    name,
                    &TensorData::new(s.at(&at).to_vec(), [kept]),
                    &expected,
                    Tolerance::finest(1e-9),
                );
                let norm: f64 = dense.powi_scalar(2).sum().sqrt().into_scalar();
                assert!((norms.get(&at) / norm - 1.0).abs() < Tolerance::finest(1e-9).0, "{name} {at:?}");
                if full.ldim() == full.rdim() {
                    let trace: f64 = full.at(&at).diagonal().unwrap().data().iter().sum();
                    let sum: f64 =
                        full.at(&at).eigenvalues().unwrap().data().iter().map(|value| value.re).sum();
                    let scale = full.at(&at).norm().unwrap().get(&[]);
                    assert!(
                        (sum - trace).abs() < Tolerance::finest(1e-9).0 * scale,
                        "{name} {at:?}: {sum} {trace}"
                    );
                }
            }
        }
        let overlaps = circuits.space_overlaps(Space::Output, Space::Output).unwrap();
        for layer in 0..dims.n_layers {
            let itself = overlaps.get(&[layer, 0, layer, 0]);
            assert!((itself - 1.0).abs() < Tolerance::finest(1e-9).0, "{name}: {itself}");
        }
    }
}
