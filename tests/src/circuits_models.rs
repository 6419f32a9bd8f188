//! Circuits and singular vectors: invariants, trained models, the demo, and refusals.

use burn::tensor::TensorData;
use burn_lens::{
    analysis::{Circuits, Composition, Folding, Space, SvdInterpreter, VectorType, effective_embedding},
    hooks::HookPoint,
    linalg::{FactoredMatrix, Values},
    models::processing::Step,
    prelude::*,
};
use burn_lens_testkit::{
    Golden, Tolerance, assert_close, device, fixture, fixtures, float_types, shared_model,
};

use crate::{
    circuits::dense,
    common::{load, open},
};

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
                cache.get(point).unwrap()
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
