//! Folding gives the same dictionary with other weights.

use burn_lens_sae::{SaeError, Whitening, fold_scaling_factor, fold_w_dec_norm, fold_whitening};
use burn_lens_tensor::{
    FloatType,
    burn::tensor::{Tensor, TensorData},
};
use burn_lens_testkit::{Golden, Tolerance, device, fixtures};

use super::{cases, close, inputs, load, manifest};

fn tensor<const D: usize>(golden: &Golden, name: &str) -> Tensor<D> {
    let dtype = FloatType::F64.dtype();
    Tensor::from_data(golden.get(name).clone(), (&device(), dtype))
}

fn whitening(golden: &Golden) -> Whitening {
    Whitening {
        mean: tensor(golden, "mean"),
        matrix: tensor(golden, "whitening"),
        inverse: tensor(golden, "unwhitening"),
    }
}

fn names() -> Vec<String> {
    let has_folds = |name: &str| {
        name.starts_with("sae-")
            && burn_lens_testkit::fixture(name).join("cases.safetensors").is_file()
            && cases(name).contains("mean")
    };
    fixtures(has_folds)
}

#[test]
fn folded_dictionaries_equal_those_of_sae_lens() {
    for name in names() {
        let (golden, (refused, factor)) = (cases(&name), manifest(&name));
        for kind in ["folded", "scaled", "whitened"] {
            let mut sae = load(&name, FloatType::F64);
            let x = inputs(&golden, 8, FloatType::F64);
            let result = match kind {
                "folded" => fold_w_dec_norm(&mut *sae),
                "scaled" => fold_scaling_factor(&mut *sae, factor),
                _ => fold_whitening(&mut *sae, &whitening(&golden)),
            };
            let what = format!("{name} {kind}");
            if refused.contains(&kind.to_owned()) {
                assert!(matches!(result, Err(SaeError::Refused { .. })), "{what}");
                continue;
            }
            // What a transcoder writes was neither scaled nor whitened; SAELens changes its decoder too.
            if kind != "folded" && name.contains("transcoder") {
                continue;
            }
            // SAELens divides the tied rows of a matching pursuit, which then have not norm 1.
            if kind == "scaled" && name.contains("matching-pursuit") {
                continue;
            }
            // The normalisation that SAELens's fold leaves in place although it says "none".
            let lies = name.contains("norm") && kind != "folded";
            result.unwrap_or_else(|error| panic!("{what}: {error}"));
            if lies {
                continue;
            }
            let tolerance = Tolerance::F64;
            close(&what, sae.encode_dense(x.clone()), golden.get(&format!("{kind}_acts")), tolerance);
            close(&what, sae.forward_dense(x), golden.get(&format!("{kind}_recons")), tolerance);
        }
    }
}

#[test]
fn a_fold_leaves_reconstructions_as_they_are() {
    for name in names() {
        let golden = cases(&name);
        let x = inputs(&golden, 8, FloatType::F64);
        let mut sae = load(&name, FloatType::F64);
        if fold_w_dec_norm(&mut *sae).is_ok() {
            close(&name, sae.forward_dense(x), golden.get("recons"), Tolerance::F64);
        }
    }
}

/// A dictionary for scaled activations and one for plain ones reconstruct alike.
#[test]
fn a_scaling_is_folded_exactly() {
    const FACTOR: f64 = 1.75;
    for name in ["sae-standard", "sae-gated", "sae-jumprelu", "sae-topk-rescaled", "sae-matching-pursuit"] {
        let x = inputs(&cases(name), 8, FloatType::F64);
        let plain = load(name, FloatType::F64);
        let expected: TensorData = (plain.forward_dense(x.clone() * FACTOR) / FACTOR).into_data();
        let mut folded = load(name, FloatType::F64);
        fold_scaling_factor(&mut *folded, FACTOR).unwrap();
        close(name, folded.forward_dense(x), &expected, Tolerance::F64);
    }
}

/// `x̂ = ẑ M⁻¹ + mean` with `z = (x − mean) M`.
#[test]
fn a_whitening_is_folded_exactly() {
    for name in ["sae-standard", "sae-standard-uncentred", "sae-gated-uncentred", "sae-jumprelu", "sae-topk"]
    {
        let golden = cases(name);
        let Whitening { mean, matrix, inverse } = whitening(&golden);
        let x = inputs(&golden, 8, FloatType::F64);
        let rows = x.clone().reshape([10, 8]);
        let z = (rows - mean.clone().unsqueeze()).matmul(matrix).reshape([2, 5, 8]);
        let z_hat = load(name, FloatType::F64).forward_dense(z).reshape([10, 8]);
        let expected = (z_hat.matmul(inverse) + mean.unsqueeze()).into_data();
        let mut folded = load(name, FloatType::F64);
        fold_whitening(&mut *folded, &whitening(&golden)).unwrap();
        close(name, folded.forward_dense(x), &expected, Tolerance::F64);
    }
}
