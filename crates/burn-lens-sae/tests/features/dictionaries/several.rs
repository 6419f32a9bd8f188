//! Features of several activations, against dictionaries of one.

use burn_lens_sae::{
    CrossLayerTranscoder, Crosscoder, SaeOptions, Settings, SparseAutoencoder, read_sae_lens,
};
use burn_lens_tensor::{
    FloatType, MemoryWeights,
    burn::tensor::{Tensor, TensorData},
};
use burn_lens_testkit::{Tolerance, assert_close, device};

use crate::common::Random;

const D: usize = 4;
const H: usize = 10;

fn options() -> SaeOptions {
    SaeOptions { dtype: FloatType::F64, ..SaeOptions::on(&device()) }
}

fn data(random: &mut Random, shape: &[usize]) -> TensorData {
    let len: usize = shape.iter().product();
    let values: Vec<f64> = (0..len).map(|_| f64::from(random.number())).collect();
    TensorData::new(values, shape.to_vec())
}

fn tensor<const N: usize>(data: &TensorData) -> Tensor<N> {
    Tensor::from_data(data.clone(), (&device(), FloatType::F64.dtype()))
}

fn dictionary(config: &str, tensors: &[(&str, Tensor<2>, Option<Tensor<1>>)]) -> Box<dyn SparseAutoencoder> {
    let named = tensors.iter().map(|(name, matrix, vector)| {
        let data = match vector {
            Some(vector) => vector.clone().into_data(),
            None => matrix.clone().into_data(),
        };
        ((*name).to_owned(), data)
    });
    read_sae_lens(config, "cfg.json", &mut MemoryWeights::new(named), &options()).unwrap()
}

fn config(kind: &str, d_in: usize, d_out: usize) -> String {
    format!(
        r#"{{"architecture": "{kind}", "d_in": {d_in}, "d_out": {d_out}, "d_sae": {H}, "apply_b_dec_to_input": false,
           "sae_lens_version": "6.0.0", "metadata": {{}}}}"#
    )
}

/// A crosscoder is a dictionary of its sources side by side.
#[test]
fn a_crosscoder_is_a_dictionary_of_sources_side_by_side() {
    let mut random = Random(3);
    let (w_enc, w_dec) = (data(&mut random, &[2, D, H]), data(&mut random, &[H, 2, D]));
    let (b_enc, b_dec) = (data(&mut random, &[H]), data(&mut random, &[2, D]));
    let named = |names: [&str; 4], w_dec: TensorData| {
        let tensors = [w_enc.clone(), w_dec, b_enc.clone(), b_dec.clone()];
        MemoryWeights::new(names.map(str::to_owned).into_iter().zip(tensors))
    };
    let crosscoder =
        Crosscoder::read(&mut named(["W_enc", "W_dec", "b_enc", "b_dec"], w_dec.clone()), &options())
            .unwrap();
    let none = || Tensor::<2>::zeros([1, 1], &device());
    let whole = dictionary(
        &config("standard", 2 * D, 2 * D),
        &[
            ("W_enc", tensor::<3>(&w_enc).reshape([2 * D, H]), None),
            ("W_dec", tensor::<3>(&w_dec).reshape([H, 2 * D]), None),
            ("b_enc", none(), Some(tensor(&b_enc))),
            ("b_dec", none(), Some(tensor::<2>(&b_dec).reshape([2 * D]))),
        ],
    );
    let x: Tensor<3> = tensor(&data(&mut random, &[2, 3, 2 * D]));
    let sources = [x.clone().narrow(2, 0, D), x.clone().narrow(2, D, D)];
    let acts = crosscoder.encode_dense(&sources);
    assert_close(
        "acts",
        &acts.clone().into_data(),
        &whole.encode_dense(x.clone()).into_data(),
        Tolerance::F64,
    );
    let out = Tensor::cat(crosscoder.decode_dense(&acts), 2).into_data();
    assert_close("recons", &out, &whole.forward_dense(x).into_data(), Tolerance::F64);
    assert_eq!(crosscoder.decoder_norms().dims(), [H, 2]);
    assert_eq!(crosscoder.encode(&sources).unwrap().n_rows(), 6);

    // The other layout of the same numbers.
    let turned = tensor::<3>(&w_dec).swap_dims(0, 1).into_data();
    let names = ["encoder.weight", "decoder.weight", "encoder.bias", "decoder.bias"];
    let other = Crosscoder::read(&mut named(names, turned), &options()).unwrap();
    assert_eq!(other.encode_dense(&sources).into_data(), acts.into_data());
    let wrong = named(["W_enc", "W_dec", "b_enc", "b_dek"], w_dec);
    let error = Crosscoder::read(&mut wrong.clone(), &options()).unwrap_err().to_string();
    assert!(error.contains("`b_dec` is missing"), "{error}");
}

/// Each pair of layers is a transcoder.
#[test]
fn a_cross_layer_transcoder_is_the_sum_of_its_pairs() {
    const LAYERS: usize = 3;
    let mut random = Random(4);
    let mut tensors = Vec::new();
    for layer in 0..LAYERS {
        for (what, shape) in [
            ("W_enc", vec![H, D]),
            ("b_enc", vec![H]),
            ("b_dec", vec![D]),
            ("W_dec", vec![H, LAYERS - layer, D]),
        ] {
            tensors.push((format!("{what}_{layer}"), data(&mut random, &shape)));
        }
    }
    let threshold = TensorData::new(vec![0.5_f64; H], [H]);
    tensors.push(("threshold_1".to_owned(), threshold.clone()));
    let mut weights = MemoryWeights::new(tensors.clone());
    let clt = CrossLayerTranscoder::read(&mut weights, &Settings::default(), &options()).unwrap();
    assert_eq!(clt.n_layers(), LAYERS);
    let get = |name: String| tensors.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    let x: Vec<Tensor<3>> = (0..LAYERS).map(|_| tensor(&data(&mut random, &[1, 4, D]))).collect();
    let acts: Vec<Tensor<3>> = (0..LAYERS).map(|layer| clt.encode_dense(layer, x[layer].clone())).collect();
    let none = || Tensor::<2>::zeros([1, 1], &device());
    for (to, found) in clt.decode_dense(&acts).into_iter().enumerate() {
        let mut expected = tensor::<1>(&get(format!("b_dec_{to}"))).unsqueeze::<3>().expand([1, 4, D]);
        for from in 0..=to {
            let pair = dictionary(
                &config(if from == 1 { "jumprelu_transcoder" } else { "transcoder" }, D, D),
                &[
                    ("W_enc", tensor::<2>(&get(format!("W_enc_{from}"))).transpose(), None),
                    (
                        "W_dec",
                        tensor::<3>(&get(format!("W_dec_{from}"))).narrow(1, to - from, 1).squeeze_dim(1),
                        None,
                    ),
                    ("b_enc", none(), Some(tensor(&get(format!("b_enc_{from}"))))),
                    ("b_dec", none(), Some(Tensor::zeros([D], (&device(), FloatType::F64.dtype())))),
                    ("threshold", none(), Some(tensor(&threshold))),
                ][..if from == 1 { 5 } else { 4 }],
            );
            expected = expected + pair.forward_dense(x[from].clone());
        }
        assert_close(&format!("to {to}"), &found.into_data(), &expected.into_data(), Tolerance::F64);
    }
    assert_eq!(clt.directions(1, 2).dims(), [2, D]);
    tensors.push(("W_skip_0".to_owned(), threshold));
    let error =
        CrossLayerTranscoder::read(&mut MemoryWeights::new(tensors), &Settings::default(), &options())
            .unwrap_err();
    assert!(error.to_string().contains("W_skip_0"), "{error}");
    let error = CrossLayerTranscoder::read(&mut MemoryWeights::default(), &Settings::default(), &options())
        .unwrap_err();
    assert!(error.to_string().contains("`W_enc_0` is missing"), "{error}");
}
