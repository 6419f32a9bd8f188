//! Factored matrices, circuits and singular vectors against TransformerLens 3.9.0, and against dense
//! linear algebra where that is wrong (`oracle/circuits.py`).

use burn::tensor::TensorData;
use burn_lens::{
    analysis::{Circuits, Composition, Folding, SvdInterpreter, VectorType, all_head_labels},
    linalg::{Complex, FactoredMatrix, Index, Matrices, Values, composition_scores},
    models::processing::Step,
    prelude::*,
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, device, fixture, fixtures, float_types};
use serde_json::Value;

use crate::common::{data, load};

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

pub(crate) fn dense(m: &Matrices) -> TensorData {
    data(m.clone().into_any().unwrap())
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
        return data(if right { m.matvec(vector) } else { m.matvec_left(vector) }.unwrap());
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
