//! The prompt of the demonstration: who gets the drink?

use burn_lens::{
    Pretrained, Tokens,
    burn::tensor::Tensor,
    hooks::{CacheOptions, HookedModel as _, RunError},
};

use super::{Head, induction::Patterns};
use crate::{
    error::CliError,
    next_tokens::{NextToken, next_tokens, percent},
};

/// Indirect object identification (Wang et al., 2022): the name that was not repeated.
pub(super) const TEXT: &str = "When Mary and John went to the store , John gave a drink to";

/// The name that continues it, and the one that does not.
const NAMES: [&str; 2] = ["Mary", "John"];

/// How many next tokens are listed.
const MOST: usize = 10;

/// The prompt, run.
pub(super) struct Prompt {
    /// Its tokens as text.
    pub(super) tokens: Vec<String>,
    pub(super) next: Vec<NextToken>,
    pub(super) patterns: Patterns,
    /// The name that continues it, as a token.
    pub(super) right: String,
    /// The one that does not.
    pub(super) wrong: String,
    ids: Tokens,
    names: [usize; 2],
    answer: Answer,
}

/// How the model chooses between the names.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) logit_difference: f64,
    /// Of the right name.
    pub(super) probability: f64,
}

impl Prompt {
    /// Runs the model on the prompt.
    pub(super) fn run(lens: &Pretrained) -> Result<Self, CliError> {
        let tokenizer = lens.tokenizer()?;
        let ids = lens.to_tokens(&[TEXT])?;
        let name = |name: &str| {
            // One token with its space, where the tokenizer keeps spaces.
            let spaced = tokenizer.to_single_token(&format!(" {name}"));
            let id = spaced.or_else(|_| tokenizer.to_single_token(name))?;
            Ok::<_, CliError>((
                usize::try_from(id).unwrap_or_default(),
                tokenizer.to_single_str_token(id)?.text,
            ))
        };
        let [(right, right_text), (wrong, wrong_text)] = [name(NAMES[0])?, name(NAMES[1])?];
        let (output, cache) = lens.model.run_with_cache(
            &ids.input(),
            &ids.options(),
            &CacheOptions::names([Patterns::NAMES]),
        )?;
        let logits = last(output.into_logits()?)?;
        let tokens = tokenizer.to_str_tokens(&ids.batch.ids[0], None)?.into_iter().map(|token| token.text);
        Ok(Self {
            tokens: tokens.collect(),
            next: next_tokens(&logits, MOST, Some(tokenizer)),
            patterns: Patterns::of(&cache, lens.model.config())?,
            right: right_text,
            wrong: wrong_text,
            names: [right, wrong],
            answer: Answer::of(&logits, [right, wrong]),
            ids,
        })
    }

    /// How the model answers with one head set to zero.
    pub(super) fn answer(&self, lens: &Pretrained, ablated: Option<Head>) -> Result<Answer, CliError> {
        let Some(head) = ablated else { return Ok(self.answer) };
        let output =
            lens.model.run_with_hooks(&self.ids.input(), &self.ids.options(), vec![head.ablation()])?;
        Ok(Answer::of(&last(output.into_logits()?)?, self.names))
    }

    /// The answer in words.
    pub(super) fn verdict(&self) -> String {
        let Answer { logit_difference, probability } = self.answer;
        let verb = if logit_difference > 0.0 { "prefers" } else { "does not prefer" };
        format!(
            "The model {verb} {:?} (probability {}) over {:?}: the logit difference is {logit_difference:+.3}.",
            self.right,
            percent(probability),
            self.wrong
        )
    }
}

impl Answer {
    fn of(logits: &[f64], [right, wrong]: [usize; 2]) -> Self {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        Self {
            logit_difference: logits[right] - logits[wrong],
            probability: (logits[right] - largest).exp() / total,
        }
    }
}

/// The logits of the last position of the first prompt.
fn last(logits: Tensor<3>) -> Result<Vec<f64>, CliError> {
    let [_, pos, _] = logits.dims();
    let last = logits.narrow(0, 0, 1).narrow(1, pos - 1, 1);
    last.try_into_vec_as().map_err(|error| RunError::Device(format!("{error:?}")).into())
}
