//! What the demonstration model's training starts from: random weights, with three shortcuts.
//!
//! From random weights alone, induction heads take some ten times as many steps to appear as
//! the minutes that this training may take. So
//!
//! - positions are sinusoids, as in Vaswani et al. (2017),
//! - one head of the first block looks one position back, which on sinusoids is a rotation,
//! - the unembedding is the embedding, transposed, so that a head that copies one word
//!   copies every word.
//!
//! All of these are weights like any other from the first step on. What that head reads and
//! writes, every other head and every MLP start random.

use std::f32::consts::PI;

use burn::tensor::{Device, Tensor, TensorData};
use burn_lens_models::{ModelConfig, Param, Parameters, random_parameters};
use burn_lens_tensor::{FloatType, numeric::contiguous};

/// The size of the waves: about that of a random embedding.
const AMPLITUDE: f32 = 0.12;
/// The fastest and the slowest wave, in radians per position.
const WAVES: [f32; 2] = [0.8 * PI, 0.01];
/// How large a query and a key of the head that looks back are, per unit of what they read.
const GAIN: f32 = 2.0;

/// Weights to start training from, in `f32`.
///
/// # Panics
///
/// If the model has no learned positions, or a head is wider than the model.
#[must_use]
pub fn demo_parameters(config: &ModelConfig, seed: u64, device: &Device) -> Parameters {
    let mut params = random_parameters(config, seed, device, FloatType::F32);
    let (d_model, d_head) = (config.d_model, config.attention.d_head);
    let matrix = |values: Vec<f32>, rows: usize, columns: usize| {
        Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device)
    };
    let waves = |index: usize| {
        let (angle, axis) = ((index / d_model) as f32 * frequency(index % d_model, d_model), index % d_model);
        AMPLITUDE * if axis.is_multiple_of(2) { angle.sin() } else { angle.cos() }
    };
    let positions = (0..config.n_ctx * d_model).map(waves).collect();
    params.insert(Param::PosEmbed, matrix(positions, config.n_ctx, d_model));
    for (param, back) in [(Param::WQ(0), 1.0), (Param::WK(0), 0.0)] {
        let first = (0..d_model * d_head).map(|index| {
            let (row, column) = (index / d_head, index % d_head);
            GAIN * rotation(row, column, back * frequency(row, d_model))
        });
        let head = matrix(first.collect(), d_model, d_head);
        let others = params.find::<2>(param).expect("every model has queries and keys");
        let others_width = others.dims()[1] - d_head;
        let others = others.narrow(1, d_head, others_width);
        params.insert(param, Tensor::cat(vec![head, others], 1));
    }
    let w_e = params.find::<2>(Param::Embed).expect("every model has an embedding");
    params.insert(Param::WU, contiguous(w_e.transpose()));
    params
}

/// The frequency of an axis; sine and cosine share one.
fn frequency(axis: usize, d_model: usize) -> f32 {
    let [fastest, slowest] = WAVES;
    fastest * (slowest / fastest).powf((axis / 2) as f32 / (d_model / 2) as f32)
}

/// The matrix entry that turns a pair of sine and cosine (rows) back by `angle`.
fn rotation(row: usize, column: usize, angle: f32) -> f32 {
    match (row / 2 == column / 2, row % 2, column % 2) {
        (false, ..) => 0.0,
        (true, 0, 0) | (true, 1, 1) => angle.cos(),
        (true, 0, _) => angle.sin(),
        (true, ..) => -angle.sin(),
    }
}
