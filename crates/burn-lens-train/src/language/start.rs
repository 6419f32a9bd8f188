//! What the demonstration model's training starts from: random weights, and the outline of
//! one induction head.
//!
//! Without the outline no induction head appeared in trial runs of 900 to 1800 steps, which is
//! as long as this training may take. So
//!
//! - words and positions start on separate axes of the residual stream, positions as sinusoids
//!   (Vaswani et al., 2017), and what blocks write starts small beside both;
//! - head 0.0 looks one position back, which on sinusoids is a rotation;
//! - head 1.0 compares: its query reads what the value of 0.0 reads, and its key what 0.0
//!   writes; and it copies: it writes what its value reads;
//! - the unembedding is the embedding, transposed and scaled.
//!
//! That outline gives head 1.0 an induction score of about 0.3 and predicts next to nothing.
//! It consists of weights like any other, which training is free to change. The other heads,
//! the MLPs and all other skills start random.

use std::f32::consts::PI;

use burn::tensor::{Device, Tensor, TensorData};
use burn_lens_models::{ModelConfig, Param, Parameters, random_parameters};
use burn_lens_tensor::{FloatType, numeric::contiguous};

/// The fastest and the slowest wave, in radians per position.
const WAVES: [f32; 2] = [0.8 * PI, 0.01];

/// The size of waves; about as much in all as a word.
const WAVE: f32 = 0.5;

/// How much larger than random weights the start is.
struct Gains {
    embed: f32,
    unembed: f32,
    /// What heads and MLPs write.
    written: f32,
    /// What head 0.0 writes.
    looked_back: f32,
    /// What head 1.0 writes.
    copied: f32,
    /// The queries and keys of both heads.
    compared: f32,
}

const GAIN: Gains =
    Gains { embed: 3.0, unembed: 0.3, written: 0.2, looked_back: 0.7, copied: 2.0, compared: 1.5 };

/// Weights to start training from, in `f32`.
///
/// # Panics
///
/// If the model has fewer than two blocks or no MLP, or a head is as wide as the model.
#[must_use]
pub fn demo_parameters(config: &ModelConfig, seed: u64, device: &Device) -> Parameters {
    let mut params = random_parameters(config, seed, device, FloatType::F32);
    let d_head = config.attention.d_head;
    let embed = words_only(weight(&params, Param::Embed).transpose() * GAIN.embed, d_head);
    params.insert(Param::Embed, contiguous(embed.clone().transpose()));
    params.insert(Param::WU, embed * GAIN.unembed);
    params.insert(Param::PosEmbed, positions(config, device));
    let looked_back = weight(&params, Param::WO(0)).narrow(0, 0, d_head) * GAIN.looked_back;
    for layer in 0..config.n_layers {
        for param in [Param::WO(layer), Param::WOut(layer)] {
            params.insert(param, weight(&params, param) * GAIN.written);
        }
    }
    plant_previous_token_head(&mut params, config, looked_back.clone());
    plant_induction_head(&mut params, d_head, looked_back);
    params
}

/// Head 0.0: queries and keys read waves, the query one position back; the value reads words.
fn plant_previous_token_head(params: &mut Parameters, config: &ModelConfig, written: Tensor<2>) {
    let (d_model, d_head, device) = (config.d_model, config.attention.d_head, written.device());
    for (param, back) in [(Param::WQ(0), 1.0), (Param::WK(0), 0.0)] {
        let entry = |index: usize| {
            let (row, column) = (index / d_head, index % d_head);
            GAIN.compared * rotation(row, column, back * frequency(row, d_head))
        };
        let entries: Vec<f32> = (0..d_model * d_head).map(entry).collect();
        let head = Tensor::from_data(TensorData::new(entries, [d_model, d_head]), &device);
        set_head(params, param, head, 1);
    }
    let read = weight(params, Param::WV(0)).narrow(1, 0, d_head);
    set_head(params, Param::WV(0), words_only(read, d_head), 1);
    set_head(params, Param::WO(0), written, 0);
}

/// Head 1.0: queries read what the value of 0.0 reads, keys what it writes; words are copied.
fn plant_induction_head(params: &mut Parameters, d_head: usize, written: Tensor<2>) {
    let read = weight(params, Param::WV(0)).narrow(1, 0, d_head);
    set_head(params, Param::WQ(1), read * GAIN.compared, 1);
    set_head(params, Param::WK(1), written.transpose() * (GAIN.compared / GAIN.looked_back), 1);
    let copied = words_only(weight(params, Param::WV(1)).narrow(1, 0, d_head), d_head);
    set_head(params, Param::WV(1), copied.clone(), 1);
    set_head(params, Param::WO(1), copied.transpose() * GAIN.copied, 0);
}

/// Waves `[n_ctx, d_model]` on the first `d_head` axes, in pairs of sine and cosine.
fn positions(config: &ModelConfig, device: &Device) -> Tensor<2> {
    let (n_ctx, d_model, d_head) = (config.n_ctx, config.d_model, config.attention.d_head);
    let wave = |index: usize| {
        let (pos, axis) = ((index / d_model) as f32, index % d_model);
        let angle = pos * frequency(axis, d_head);
        match axis {
            axis if axis >= d_head => 0.0,
            axis if axis.is_multiple_of(2) => WAVE * angle.sin(),
            _ => WAVE * angle.cos(),
        }
    };
    let waves: Vec<f32> = (0..n_ctx * d_model).map(wave).collect();
    Tensor::from_data(TensorData::new(waves, [n_ctx, d_model]), device)
}

/// The frequency of an axis; sine and cosine share one.
fn frequency(axis: usize, d_head: usize) -> f32 {
    let [fastest, slowest] = WAVES;
    fastest * (slowest / fastest).powf((axis / 2) as f32 / (d_head / 2) as f32)
}

/// The entry of the matrix that turns a pair of sine and cosine (rows) back by `angle`.
fn rotation(row: usize, column: usize, angle: f32) -> f32 {
    match (row / 2 == column / 2, row % 2, column % 2) {
        (false, ..) => 0.0,
        (true, 0, 0) | (true, 1, 1) => angle.cos(),
        (true, 0, _) => angle.sin(),
        (true, ..) => -angle.sin(),
    }
}

/// A matrix `[d_model, any]` that reads nothing from the axes of positions.
fn words_only(matrix: Tensor<2>, d_head: usize) -> Tensor<2> {
    let [d_model, columns] = matrix.dims();
    let silent = Tensor::zeros([d_head, columns], (&matrix.device(), matrix.dtype()));
    Tensor::cat(vec![silent, matrix.narrow(0, d_head, d_model - d_head)], 0)
}

fn weight(params: &Parameters, param: Param) -> Tensor<2> {
    params.find(param).expect("a model with two blocks and MLPs has it")
}

/// Replaces the first head along `axis`.
fn set_head(params: &mut Parameters, param: Param, head: Tensor<2>, axis: usize) {
    let (all, width) = (weight(params, param), head.dims()[axis]);
    let others = all.clone().narrow(axis, width, all.dims()[axis] - width);
    params.insert(param, Tensor::cat(vec![head, others], axis));
}
