//! Tokens given on the command line, as text or as `#id`.

use burn_lens::{Pretrained, hooks::HookedModel as _, tensor::nearest};

use crate::{error::CliError, next_tokens::shown};

/// A token of the output vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) id: usize,
    /// As it is shown.
    pub(crate) text: String,
}

/// The token that `text` is: a single token's text, or `#` and an id.
pub(crate) fn token(flag: &'static str, text: &str, lens: &Pretrained) -> Result<Answer, CliError> {
    let wrong = |reason: String| CliError::NotAToken { flag, text: text.to_owned(), reason };
    let by_id = text.strip_prefix('#').and_then(|id| id.parse::<usize>().ok());
    let id = match (by_id, &lens.tokenizer) {
        (Some(id), _) => id,
        (None, Some(tokenizer)) => {
            let id = tokenizer.to_single_token(text).map_err(|error| wrong(error.to_string()))?;
            let unk = tokenizer.unk().and_then(|unk| tokenizer.to_single_str_token(unk).ok());
            if tokenizer.unk() == Some(id) && unk.is_some_and(|unk| unk.text.trim() != text.trim()) {
                return Err(wrong(format!("it is not in the vocabulary{}", near(text, lens))));
            }
            usize::try_from(id).map_err(|_| wrong("its id is negative".to_owned()))?
        }
        (None, None) => return Err(wrong("the model has no tokenizer; give an id, as in `#17`".to_owned())),
    };
    let d_vocab_out = lens.model.dims().d_vocab_out;
    if id >= d_vocab_out {
        return Err(wrong(format!("the output vocabulary has {d_vocab_out} tokens")));
    }
    Ok(Answer { id, text: shown(lens.tokenizer.as_ref(), id as i64) })
}

/// The tokens spelled most like `text`.
fn near(text: &str, lens: &Pretrained) -> String {
    let Some(tokenizer) = &lens.tokenizer else { return String::new() };
    let words = (0..lens.model.dims().d_vocab as i64).filter_map(|id| tokenizer.to_single_str_token(id).ok());
    let near = nearest(text.trim(), words.map(|token| token.text.trim().to_owned()));
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// One token for each of `prompts` prompts, of one given for all or one for each.
pub(crate) fn for_each(
    flag: &'static str,
    texts: &[String],
    prompts: usize,
    lens: &Pretrained,
) -> Result<Vec<Answer>, CliError> {
    let tokens = texts.iter().map(|text| token(flag, text, lens)).collect::<Result<Vec<_>, _>>()?;
    match tokens.len() {
        1 => Ok(vec![tokens[0].clone(); prompts]),
        found if found == prompts => Ok(tokens),
        found => Err(CliError::AnswerCount { flag, found, prompts }),
    }
}
