//! What a model is run on: prompts or token ids from a file.

use std::path::Path;

use burn_lens::{
    Pretrained, Tokens,
    burn::tensor::{Tensor, TensorData},
    hooks::{HookedModel as _, RunError},
    io::{TokenBatch, TokenOptions, read_safetensors},
};

use crate::{args::PromptArgs, error::CliError};

/// The tokens that a command is asked to run on.
pub(crate) fn tokens(args: &PromptArgs, lens: &Pretrained) -> Result<Tokens, CliError> {
    if let Some(path) = &args.tokens {
        return Ok(Tokens::new(from_file(path)?, &lens.model.device()));
    }
    // Never cut a prompt silently: the run says so where one is too long.
    let options = TokenOptions { prepend_bos: args.prepend_bos, ..TokenOptions::default() };
    Ok(lens.to_tokens_with(&args.prompt, options)?)
}

/// `tokens` and, if it is there, `attention_mask` of a safetensors file.
pub(crate) fn from_file(path: &Path) -> Result<TokenBatch, CliError> {
    let mut tensors = read_safetensors(path)?;
    let found: Vec<String> = tensors.keys().cloned().collect();
    let tokens = tensors.remove("tokens").ok_or_else(|| CliError::NoTensor {
        path: path.to_owned(),
        tensor: "tokens",
        found,
    })?;
    let ids = rows(path, "tokens", &tokens, "[batch, pos]", None)?;
    let attention_mask = match tensors.get("attention_mask") {
        None => ids.iter().map(|row| vec![1; row.len()]).collect(),
        Some(mask) => {
            let shape = [ids.len(), ids.first().map_or(0, Vec::len)];
            rows(path, "attention_mask", mask, &format!("{shape:?}, as `tokens`"), Some(shape))?
        }
    };
    Ok(TokenBatch { ids, attention_mask })
}

fn rows(
    path: &Path,
    tensor: &'static str,
    data: &TensorData,
    expected: &str,
    wanted: Option<[usize; 2]>,
) -> Result<Vec<Vec<i64>>, CliError> {
    let shape = data.shape().to_vec();
    let fits = shape.len() == 2 && !shape.contains(&0) && wanted.is_none_or(|wanted| shape == wanted);
    if !fits || !data.dtype().is_int() && !data.dtype().is_uint() {
        let dtype = format!("{:?}", data.dtype()).to_lowercase();
        let expected = expected.to_owned();
        return Err(CliError::TokensShape { path: path.to_owned(), tensor, dtype, shape, expected });
    }
    let ids: Vec<i64> = data.iter::<i64>().collect();
    Ok(ids.chunks(shape[1]).map(<[i64]>::to_vec).collect())
}

/// Each prompt alone, without padding.
pub(crate) fn each_row(tokens: &Tokens, lens: &Pretrained) -> Vec<Tokens> {
    let rows = tokens.batch.ids.iter().zip(&tokens.batch.attention_mask);
    let real = rows.map(|(ids, mask)| -> Vec<i64> {
        ids.iter().zip(mask).filter(|(_, mask)| **mask != 0).map(|(&id, _)| id).collect()
    });
    real.map(|ids| {
        let attention_mask = vec![vec![1; ids.len()]];
        Tokens::new(TokenBatch { ids: vec![ids], attention_mask }, &lens.model.device())
    })
    .collect()
}

/// A tensor's values, read back.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f64>, CliError> {
    tensor.try_into_vec_as().map_err(|error| RunError::Device(format!("{error:?}")).into())
}
