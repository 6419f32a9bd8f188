//! The sequences that a model is run on.

use std::path::Path;

use burn_lens::{
    Pretrained,
    analysis::clusters::Examples,
    burn::tensor::{Tensor, TensorData},
    hooks::{HookedModel as _, Input},
    io::read_safetensors,
    models::HookedTransformer,
};
use burn_lens_train::in_context::{Episode, Layout, held_out_episode};

use crate::{commands::train::Setup, error::CliError};

/// The examples that are asked for, one sequence for each number.
pub(super) fn examples(
    lens: &Pretrained,
    file: Option<&Path>,
    samples: &[usize],
) -> Result<Examples, CliError> {
    let d_in = lens.model.dims().d_in;
    let refuse = |reason: String| Err(CliError::NoExamples { model: lens.name.clone(), reason });
    if d_in == 0 {
        return refuse("it takes tokens, not vectors".to_owned());
    }
    if let Some(path) = file {
        return from_file(lens, path, samples);
    }
    let Some(Setup { recipe, .. }) = Setup::find(Path::new(&lens.name))? else {
        return refuse("it does not say what it was trained on".to_owned());
    };
    if recipe.problem.layout() != Layout::Interleaved {
        return refuse(
            "it was trained with x and y side by side, so there are no x and y queries (see `--layout interleaved`)"
                .to_owned(),
        );
    }
    let episodes: Result<Vec<Episode>, _> = samples
        .iter()
        .map(|&number| held_out_episode(&recipe.problem, recipe.training.seed, number))
        .collect();
    let episodes = episodes?;
    let input = recipe.problem.batch(&episodes).input(&lens.model);
    Ok(of(input, episodes))
}

fn of(input: Input, episodes: Vec<Episode>) -> Examples {
    let (x, y) = episodes.into_iter().map(|Episode { x, y }| (x, y)).unzip();
    Examples { input, x, y }
}

fn from_file(lens: &Pretrained, path: &Path, samples: &[usize]) -> Result<Examples, CliError> {
    let tensors = read_safetensors(path)?;
    let found: Vec<String> = tensors.keys().cloned().collect();
    let tensor = |tensor: &'static str| {
        let found = found.clone();
        tensors.get(tensor).ok_or_else(|| CliError::NoTensor { path: path.to_owned(), tensor, found })
    };
    let x = Floats::new(path, "x", tensor("x")?, 3, "[sample, example, width]")?;
    let [count, n, width] = x.shape[..] else { unreachable!("three axes were asked for") };
    let y = Floats::new(path, "y", tensor("y")?, 2, "[sample, example]")?;
    y.must_be(&[count, n], "as `x`")?;
    if let Some(&sample) = samples.iter().find(|&&sample| sample >= count) {
        return Err(CliError::OutOfRange { what: "sample", value: sample, count });
    }
    let episode = |&sample: &usize| Episode {
        x: x.values[sample * n * width..(sample + 1) * n * width]
            .chunks(width)
            .map(<[f64]>::to_vec)
            .collect(),
        y: y.values[sample * n..(sample + 1) * n].to_vec(),
    };
    let episodes: Vec<Episode> = samples.iter().map(episode).collect();
    let (model, d_in) = (&lens.model, lens.model.dims().d_in);
    let values = match tensors.get("vectors") {
        Some(data) => {
            let vectors = Floats::new(path, "vectors", data, 3, "[sample, pos, d_in]")?;
            vectors.must_be(&[count, 2 * n, d_in], "two positions for each example, of the model's d_in")?;
            let len = 2 * n * d_in;
            samples.iter().flat_map(|&at| vectors.values[at * len..(at + 1) * len].to_vec()).collect()
        }
        None if width + 1 == d_in => {
            episodes.iter().flat_map(|episode| Layout::Interleaved.vectors(episode)).collect::<Vec<f64>>()
        }
        None => {
            let reason = format!(
                "it takes vectors of {d_in}, but (x, y) of `x` and `y` in {} is {} wide; give what goes in as `vectors`",
                path.display(),
                width + 1
            );
            return Err(CliError::NoExamples { model: lens.name.clone(), reason });
        }
    };
    Ok(of(input(model, values, [samples.len(), 2 * n, d_in]), episodes))
}

fn input(model: &HookedTransformer, values: Vec<f64>, shape: [usize; 3]) -> Input {
    Input::Vectors(Tensor::from_data(TensorData::new(values, shape), (&model.device(), model.dtype())))
}

/// A file's `vectors` [batch, pos, d_in], as the model takes them.
pub(crate) fn vectors(lens: &Pretrained, path: &Path) -> Result<Input, CliError> {
    let tensors = read_safetensors(path)?;
    let found = || tensors.keys().cloned().collect();
    let missing = || CliError::NoTensor { path: path.to_owned(), tensor: "vectors", found: found() };
    let data = tensors.get("vectors").ok_or_else(missing)?;
    let vectors = Floats::new(path, "vectors", data, 3, "[batch, pos, d_in]")?;
    let [batch, pos, d_in] = vectors.shape[..] else { unreachable!("three axes were asked for") };
    Ok(input(&lens.model, vectors.values, [batch, pos, d_in]))
}

/// A tensor of floats, on the host.
struct Floats<'a> {
    path: &'a Path,
    tensor: &'static str,
    dtype: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl<'a> Floats<'a> {
    fn new(
        path: &'a Path,
        tensor: &'static str,
        data: &TensorData,
        rank: usize,
        expected: &str,
    ) -> Result<Self, CliError> {
        let dtype = format!("{:?}", data.dtype()).to_lowercase();
        let found =
            Self { path, tensor, dtype, shape: data.shape().to_vec(), values: data.iter::<f64>().collect() };
        if found.shape.len() != rank || found.shape.contains(&0) || !data.dtype().is_float() {
            return Err(found.wrong(expected.to_owned()));
        }
        Ok(found)
    }

    fn must_be(&self, shape: &[usize], why: &str) -> Result<(), CliError> {
        if self.shape == shape { Ok(()) } else { Err(self.wrong(format!("{shape:?}, {why}"))) }
    }

    fn wrong(&self, expected: String) -> CliError {
        let (path, dtype, shape) = (self.path.to_owned(), self.dtype.clone(), self.shape.clone());
        CliError::ExamplesShape { path, tensor: self.tensor, dtype, shape, expected }
    }
}
