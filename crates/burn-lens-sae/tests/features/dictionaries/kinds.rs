//! Codes and reconstructions of every kind, as SAELens computes them.

use std::collections::BTreeSet;

use burn_lens_hooks::HookPoint;
use burn_lens_sae::{
    SAE_KINDS,
    features::{FeatureSource as _, SaeFeatures},
};
use burn_lens_tensor::{
    FloatType,
    burn::tensor::{Tensor, TensorData},
};
use burn_lens_testkit::{Tolerance, device, fixtures, float_types};

use super::{cases, close, inputs, load};

/// Kinds of sparsify's, which SAELens does not have; their oracles are elsewhere.
const NOT_IN_SAE_LENS: [&str; 3] = ["groupmax", "topk_skip_transcoder", "topk_transcoder"];

fn names() -> Vec<String> {
    fixtures(|name| name.starts_with("sae-") && burn_lens_testkit::fixture(name).join("cfg.json").is_file())
        .into_iter()
        .filter(|name| burn_lens_testkit::fixture(name).join("sae_weights.safetensors").is_file())
        .collect()
}

#[test]
fn every_kind_equals_sae_lens() {
    let mut seen = BTreeSet::new();
    for name in names() {
        for dtype in float_types() {
            let sae = load(&name, dtype);
            seen.insert(sae.kind());
            let golden = cases(&name);
            let x = inputs(&golden, sae.config().d_in, dtype);
            let tolerance = Tolerance::of(dtype);
            close(&format!("{name} acts"), sae.encode_dense(x.clone()), golden.get("acts"), tolerance);
            close(&format!("{name} recons"), sae.forward_dense(x.clone()), golden.get("recons"), tolerance);
            let mut pre = None;
            sae.codes(sae.prepare(x).x, &mut |x| {
                pre = Some(x.clone());
                x
            });
            assert_eq!(pre.is_some(), sae.has_pre_acts(), "{name}");
            if let Some(pre) = pre {
                close(&format!("{name} pre"), pre, golden.get("pre"), tolerance);
            }
        }
    }
    let all: BTreeSet<&str> = SAE_KINDS.iter().map(|kind| kind.name).collect();
    let known: BTreeSet<&str> = seen.into_iter().chain(NOT_IN_SAE_LENS).collect();
    assert_eq!(known, all, "every kind has a fixture");
}

#[test]
fn sparse_codes_are_the_dense_ones_without_zeros() {
    for name in names() {
        let sae = load(&name, FloatType::F32);
        let golden = cases(&name);
        let x = inputs(&golden, sae.config().d_in, FloatType::F32);
        let rows = sae.encode(x.clone()).unwrap();
        let dense = sae.encode_dense(x.clone()).into_data().try_to_vec::<f32>().unwrap();
        let d_sae = sae.config().d_sae;
        assert_eq!(rows.n_rows(), dense.len() / d_sae, "{name}");
        assert_eq!(rows.n_pairs(), dense.iter().filter(|&&value| value != 0.0).count(), "{name}");
        for (at, &value) in dense.iter().enumerate() {
            assert_eq!(rows.value(at / d_sae, (at % d_sae) as u32), value, "{name}: value {at}");
        }
        if !sae.reads_context() {
            // What is decoded of a few rows is what the dense product gives.
            let prepared = sae.prepare(x.clone());
            let decoded = sae.decode(&rows).unwrap();
            let [n, d_out] = decoded.dims();
            let [batch, pos, _] = x.dims();
            assert_eq!(n, batch * pos);
            let found = prepared.undo(decoded.reshape([batch, pos, d_out]));
            let found = sae.skip(&x).map_or(found.clone(), |skip| found + skip);
            close(&format!("{name} decode"), found, golden.get("recons"), Tolerance::F32);
        }
    }
}

#[test]
fn a_part_has_the_activations_of_the_whole() {
    let mut parted = BTreeSet::new();
    for name in names() {
        let sae = load(&name, FloatType::F64);
        let features = [sae.config().d_sae - 1, 0, 2];
        let Some(part) = sae.part(&features) else { continue };
        parted.insert(sae.kind());
        let x = inputs(&cases(&name), sae.config().d_in, FloatType::F64);
        let whole = sae.encode_dense(x.clone());
        let columns = features.map(|feature| whole.clone().narrow(2, feature, 1)).to_vec();
        let expected = Tensor::cat(columns, 2).into_data();
        close(&format!("{name} in part"), part.encode_dense(x), &expected, Tolerance::F64);
    }
    let expected = [
        "gated",
        "jumprelu",
        "jumprelu_skip_transcoder",
        "jumprelu_transcoder",
        "skip_transcoder",
        "standard",
        "transcoder",
    ];
    assert_eq!(parted, BTreeSet::from(expected), "kinds whose features do not depend on each other");
}

#[test]
fn fewer_than_k_can_be_active_and_signs_are_kept() {
    let few = load("sae-topk-few", FloatType::F64);
    let x = inputs(&cases("sae-topk-few"), 8, FloatType::F64);
    let rows = few.encode(x).unwrap();
    let counts: Vec<usize> = (0..rows.n_rows()).map(|row| rows.row(row).0.len()).collect();
    assert!(counts.iter().any(|&count| count < 8) && rows.n_pairs() > 0, "{counts:?}");

    let signed = load("sae-abstopk", FloatType::F64);
    let rows = signed.encode(inputs(&cases("sae-abstopk"), 8, FloatType::F64)).unwrap();
    assert!((0..rows.n_rows()).all(|row| rows.row(row).0.len() == 4));
    assert!(rows.parts().2.iter().any(|&value| value < 0.0));
}

#[test]
fn a_vector_of_zeros_is_not_divided_by_its_norm() {
    let sae = load("sae-standard-constant-norm", FloatType::F32);
    let x = Tensor::<3>::zeros([1, 2, 8], &device());
    let out = sae.forward_dense(x).into_data().try_to_vec::<f32>().unwrap();
    assert!(out.iter().all(|value| value.is_finite()), "{out:?}");
}

#[test]
fn every_kind_is_a_source_of_features() {
    for name in names() {
        let sae = load(&name, FloatType::F32);
        let config = sae.config().clone();
        let x = inputs(&cases(&name), config.d_in, FloatType::F32);
        let expected = sae.encode(x.clone()).unwrap();
        if config.head.is_some() {
            continue; // needs a model
        }
        let source = SaeFeatures::new(sae).unwrap();
        assert_eq!(source.n_features(), config.d_sae);
        assert_eq!(source.hook_in().to_string(), config.hook_name.unwrap());
        assert_eq!(source.hook_out() == source.hook_in(), config.hook_name_out.is_none(), "{name}");
        assert_eq!(source.encode(x).unwrap(), expected, "{name}");
        assert_eq!(source.directions(&[3, 1]).unwrap().dims(), [2, config.d_out], "{name}");
        let readers = source.readers(&[0]).unwrap();
        assert!(readers.is_none_or(|readers| readers.dims() == [1, config.d_in]), "{name}");
    }
    assert_eq!(
        SaeFeatures::new(load("sae-transcoder", FloatType::F32)).unwrap().hook_out(),
        HookPoint::MlpOut(0)
    );
}

#[test]
fn later_positions_do_not_reach_earlier_ones() {
    let sae = load("sae-temporal", FloatType::F64);
    let x = inputs(&cases("sae-temporal"), 8, FloatType::F64);
    let whole: Vec<f64> = sae.encode_dense(x.clone()).into_data().iter().collect();
    let start = sae.encode_dense(x.narrow(1, 0, 3)).into_data();
    let expected: Vec<f64> = whole.chunks(5 * 24).flat_map(|row| row[..3 * 24].iter().copied()).collect();
    let expected = TensorData::new(expected, [2, 3, 24]);
    assert!(burn_lens_testkit::relative_error(&start, &expected) < 1e-12);
}
