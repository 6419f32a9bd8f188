//! What a model is run on: prompts or token ids from a file.

use std::path::Path;

use burn_lens::{
    Pretrained, Tokens,
    burn::tensor::{Tensor, TensorData},
    hooks::{HookedModel as _, RunError},
    io::{TokenBatch, TokenOptions, Tokenizer, read_safetensors, read_text},
    sae::features::TokenTable,
};

use crate::{
    args::{CorpusArgs, PromptArgs},
    error::CliError,
    progress::Progress,
};

/// The tokens that a command is asked to run on.
pub(crate) fn tokens(args: &PromptArgs, lens: &Pretrained) -> Result<Tokens, CliError> {
    if let Some(path) = &args.tokens {
        return Ok(Tokens::new(from_file(path)?, &lens.model.device()));
    }
    // Never cut a prompt silently: the run says so where one is too long.
    let options = TokenOptions { prepend_bos: args.prepend_bos, ..TokenOptions::default() };
    Ok(lens.to_tokens_with(&args.prompt, options)?)
}

/// The tokens of a file, or a text cut into prompts of one length.
pub(crate) fn corpus(
    args: &CorpusArgs,
    lens: &Pretrained,
    progress: &Progress,
) -> Result<TokenTable, CliError> {
    /// Longer prompts cost more than they show.
    const LONGEST: usize = 128;
    if let Some(path) = &args.tokens {
        let batch = from_file(path)?;
        return Ok(TokenTable::new(&batch.ids, Some(&batch.attention_mask))?);
    }
    let Some(path) = &args.text else { unreachable!("clap wants one of them") };
    let tokenizer = lens.tokenizer()?;
    let options = TokenOptions { prepend_bos: Some(false), ..TokenOptions::default() };
    let text = read_text(path)?;
    if text.trim().is_empty() {
        return Err(CliError::EmptyText { path: path.clone() });
    }
    let ids = tokenizer.to_tokens(&[text], options)?.ids.concat();
    if ids.is_empty() {
        return Err(CliError::EmptyText { path: path.clone() });
    }
    let n_ctx = lens.model.dims().n_ctx;
    let context = args.context.unwrap_or(LONGEST.min(n_ctx));
    if !(2..=n_ctx).contains(&context) {
        return Err(CliError::Context { context, n_ctx });
    }
    let bos = tokenizer.bos().filter(|_| tokenizer.default_prepend_bos());
    let piece = (context - usize::from(bos.is_some())).min(ids.len());
    let pieces = ids.chunks_exact(piece);
    let rest = pieces.remainder().len();
    if rest > 0 {
        progress.note(&format!(
            "the last {rest} tokens of {} do not fill a prompt and are left out",
            path.display()
        ));
    }
    let prompts: Vec<Vec<i64>> = pieces.map(|piece| bos.iter().chain(piece).copied().collect()).collect();
    Ok(TokenTable::new(&prompts, None)?)
}

/// Tokens that mark a beginning, an end or padding.
pub(crate) fn special(lens: &Pretrained) -> Vec<i64> {
    let tokenizer = lens.tokenizer.as_ref();
    let of = |tokenizer: &Tokenizer| [tokenizer.bos(), tokenizer.eos(), tokenizer.pad()];
    tokenizer.map(of).into_iter().flatten().flatten().collect()
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
