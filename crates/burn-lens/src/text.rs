//! Text in, tensors and text out.

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_lens_hooks::{Hook, HookedModel, Input, RunOptions};
use burn_lens_io::{TokenBatch, TokenOptions, Tokenizer};
use burn_lens_models::{FinishReason, GenerateOptions, generate};

use crate::{Error, Pretrained};

/// Tokenized prompts, ready to run.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[batch, pos]`
    pub ids: Tensor<2, Int>,
    /// `[batch, pos]`, 1 for tokens and 0 for padding; `None` where nothing is padding.
    pub attention_mask: Option<Tensor<2, Int>>,
    /// The same on the host.
    pub batch: TokenBatch,
}

impl Tokens {
    /// Puts prompts on a device.
    #[must_use]
    pub fn new(batch: TokenBatch, device: &Device) -> Self {
        let tensor = |rows: &[Vec<i64>]| {
            let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
            Tensor::<2, Int>::from_data(TensorData::new(rows.concat(), shape), device)
        };
        let padded = batch.attention_mask.iter().flatten().any(|&token| token == 0);
        Self { ids: tensor(&batch.ids), attention_mask: padded.then(|| tensor(&batch.attention_mask)), batch }
    }

    /// As the input of a run.
    #[must_use]
    pub fn input(&self) -> Input {
        Input::Tokens(self.ids.clone())
    }

    /// Options for a run that returns logits and knows what is padding.
    #[must_use]
    pub fn options(&self) -> RunOptions {
        RunOptions { attention_mask: self.attention_mask.clone(), ..RunOptions::default() }
    }
}

/// A generated text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The prompt's tokens.
    pub prompt: Vec<i64>,
    /// The new tokens.
    pub tokens: Vec<i64>,
    /// What the new tokens add to the prompt's text.
    pub text: String,
    /// Why there are no more.
    pub finish: FinishReason,
}

impl Pretrained {
    /// The tokenizer.
    ///
    /// # Errors
    ///
    /// If the checkpoint has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        self.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer { model: self.name.clone() })
    }

    /// Tokenizes prompts with the model's own rules. Nothing is cut off: a prompt longer than
    /// the context is an error when it is run.
    ///
    /// # Errors
    ///
    /// If there is no tokenizer, or a prompt has no tokens.
    pub fn to_tokens<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tokens, Error> {
        self.to_tokens_with(texts, TokenOptions::default())
    }

    /// Tokenizes prompts with these options.
    ///
    /// # Errors
    ///
    /// As [`Pretrained::to_tokens`].
    pub fn to_tokens_with<S: AsRef<str>>(&self, texts: &[S], options: TokenOptions) -> Result<Tokens, Error> {
        let batch = self.tokenizer()?.to_tokens(texts, options)?;
        Ok(Tokens::new(batch, &self.model.device()))
    }

    /// Continues each prompt, until a text of `stop` appears or `options` end it.
    ///
    /// The tokenizer's end token is added to `options.eos` where `options.eos` is empty.
    ///
    /// # Errors
    ///
    /// If there is no tokenizer, a prompt is empty or too long, an option makes no sense, or a
    /// hook fails.
    pub fn generate<S: AsRef<str>>(
        &self,
        prompts: &[S],
        options: &GenerateOptions,
        stop: &[String],
        hooks: Vec<Hook<'_>>,
    ) -> Result<Vec<Completion>, Error> {
        let tokenizer = self.tokenizer()?;
        let mut options = options.clone();
        if options.eos.is_empty() && options.stop_at_eos {
            options.eos.extend(tokenizer.eos());
        }
        let mut ids = Vec::new();
        for prompt in prompts {
            // One by one: padding is the generator's business.
            let batch = tokenizer.to_tokens(&[prompt], TokenOptions::default())?;
            ids.extend(batch.ids);
        }
        let prompt_texts: Vec<String> =
            ids.iter().map(|ids| tokenizer.to_string(ids)).collect::<Result<_, _>>()?;
        let mut stopped = |row: usize, new: &[i64]| {
            let text = added_text(tokenizer, &ids[row], &prompt_texts[row], new).unwrap_or_default();
            stop.iter().any(|stop| text.contains(stop.as_str()))
        };
        let generated = generate(&self.model, &ids, &options, hooks, &mut stopped)?;
        let texts = ids.iter().zip(&prompt_texts).zip(&generated);
        let texts: Vec<String> = texts
            .map(|((prompt, text), new)| added_text(tokenizer, prompt, text, &new.tokens))
            .collect::<Result<_, Error>>()?;
        let completions = ids.into_iter().zip(generated).zip(texts);
        Ok(completions
            .map(|((prompt, new), text)| Completion { prompt, tokens: new.tokens, text, finish: new.finish })
            .collect())
    }
}

/// What `new` adds to the text of a prompt. Tokens are decoded behind their prompt: alone, many
/// tokenizers would drop the space in front of the first one.
fn added_text(
    tokenizer: &Tokenizer,
    prompt: &[i64],
    prompt_text: &str,
    new: &[i64],
) -> Result<String, Error> {
    let whole = tokenizer.to_string(&[prompt, new].concat())?;
    match whole.strip_prefix(prompt_text) {
        Some(added) => Ok(added.to_owned()),
        None => Ok(tokenizer.to_string(new)?), // the prompt ended within a character
    }
}
