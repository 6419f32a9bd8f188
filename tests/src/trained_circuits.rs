//! Circuits of trained checkpoints against TransformerLens 3.9.0 (`oracle/trained_circuits.py`).

use burn::tensor::TensorData;
use burn_lens::{
    analysis::{Circuits, Folding, SvdInterpreter},
    prelude::*,
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, fixture, float_types, shared_model};

use crate::{
    circuits::{host, same_sets, up_to_sign},
    common::load,
};

/// Eigenvalues of matrices that are far from normal lose digits, vectors those that their singular values
/// have in common.
const LOST: f64 = 100.0;

#[test]
fn circuits_of_trained_models_are_those_of_the_original() {
    for name in ["induction-2l", "stories260k", "brackets", "sorted-list", "modular-addition"] {
        let Some(folder) = shared_model(name) else { continue };
        let golden = Golden::open(fixture("trained-circuits").join(format!("{name}.safetensors")));
        for dtype in float_types() {
            let model = load(&folder, dtype);
            for key in golden.names() {
                check(
                    &format!("{name} {key} in {dtype}"),
                    key,
                    &model,
                    golden.get(key),
                    Tolerance::of(dtype),
                );
            }
        }
    }
}

/// One tensor of the dump; `key` says what it is of.
fn check(what: &str, key: &str, model: &HookedTransformer, expected: &TensorData, tolerance: Tolerance) {
    // TransformerLens takes weights as they are.
    let circuits = Circuits::new(model, Folding::Raw).unwrap();
    let lost = Tolerance(LOST * tolerance.0);
    match key.split('.').collect::<Vec<_>>()[..] {
        [matrix, "singular_values"] => {
            let m = if matrix == "OV" { circuits.ov() } else { circuits.qk() };
            assert_close(what, &host(&m.unwrap().singular_values().unwrap()), expected, tolerance);
        }
        [matrix, "eigenvalues"] => {
            let m = match matrix {
                "OV" => circuits.ov(),
                "QK" => circuits.qk(),
                _ => circuits.full_ov(),
            };
            same_sets(what, &m.unwrap().eigenvalues().unwrap(), expected, lost);
        }
        ["composition", kind] => {
            let scores = circuits.all_composition_scores(kind.parse().unwrap()).unwrap();
            assert_close(what, &host(&scores), expected, tolerance);
        }
        [kind, layer, ..] => {
            let head = key.split('.').nth(2).map(|head| head.parse().unwrap());
            let interpreter = SvdInterpreter::new(model, Folding::Raw).unwrap();
            let count = *expected.shape().to_vec().last().unwrap();
            let (kind, layer) = (kind.parse().unwrap(), layer.parse().unwrap());
            let found = interpreter.get_singular_vectors(kind, layer, head, count).unwrap();
            let readout = found.readout.into_data();
            assert_close(what, &up_to_sign(&readout, expected), expected, lost);
        }
        _ => panic!("{what}: a tensor that no check knows"),
    }
}
