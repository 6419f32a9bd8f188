//! Text generation, with a key-value cache.

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{Hook, HookPoint, HookedModel, Hooks, Input, RunError, RunOptions};
use burn_lens_tensor::Slice;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{HookedTransformer, KvCache, Sampling};

/// How to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// At most this many tokens for each prompt.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Tokens that end a prompt's continuation (they are part of it).
    pub eos: Vec<i64>,
    /// Whether they do; if not, `eos` is not looked at.
    pub stop_at_eos: bool,
    /// Compute each position once. Off, every step runs the whole text again, and hooks see it
    /// whole; the tokens are the same.
    pub use_past_kv_cache: bool,
    /// Row `r` draws from stream `r` of a ChaCha generator with this seed.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 10,
            sampling: Sampling::default(),
            eos: Vec::new(),
            stop_at_eos: true,
            use_past_kv_cache: true,
            seed: 0,
        }
    }
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// As many tokens as were asked for.
    Length,
    /// An end token.
    Eos,
    /// The caller's own check.
    Stop,
    /// The model's context is full.
    Context,
}

/// One prompt's continuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, without the prompt.
    pub tokens: Vec<i64>,
    /// Why there are no more.
    pub finish: FinishReason,
}

/// Called with the row and its new tokens after each one; true ends that row.
pub type StopCheck<'a> = dyn FnMut(usize, &[i64]) -> bool + 'a;

/// Continues each prompt.
///
/// Prompts of different lengths are padded on the left; a prompt's continuation is the same
/// alone and in any batch (up to the rounding of the backend, and for sampling, in the same
/// row), but for where the context ends: a batch ends when its longest prompt fills it. Hooks run at every step; with a key-value cache they see only the new positions, and
/// [`HookContext::pos_offset`](burn_lens_hooks::HookContext) says which these are.
///
/// # Errors
///
/// If a prompt is empty or too long for the model, an option makes no sense, or a hook fails.
pub fn generate(
    model: &HookedTransformer,
    prompts: &[Vec<i64>],
    options: &GenerateOptions,
    hooks: Vec<Hook<'_>>,
    stop: &mut StopCheck<'_>,
) -> Result<Vec<Generated>, RunError> {
    options.sampling.check()?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if prompts.iter().any(Vec::is_empty) || prompts.is_empty() {
        return Err(RunError::EmptyInput { shape: vec![prompts.len(), 0] });
    }
    let n_ctx = model.config().n_ctx;
    if longest > n_ctx {
        return Err(RunError::TooLong { pos: longest, n_ctx });
    }
    let mut hooks = Hooks::resolve(hooks, model.registry(), &model.firing())?;
    let result = Run::new(model, prompts, options).steps(&mut hooks, stop);
    hooks.finish(model.registry())?;
    result
}

struct Run<'a> {
    model: &'a HookedTransformer,
    options: &'a GenerateOptions,
    /// `[batch][pos]`, padded on the left.
    texts: Vec<Vec<i64>>,
    padding: Vec<usize>,
    rngs: Vec<ChaCha8Rng>,
    rows: Vec<Row>,
    past: Option<KvCache>,
}

#[derive(Default)]
struct Row {
    tokens: Vec<i64>,
    finish: Option<FinishReason>,
}

impl<'a> Run<'a> {
    fn new(model: &'a HookedTransformer, prompts: &[Vec<i64>], options: &'a GenerateOptions) -> Self {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let padding: Vec<usize> = prompts.iter().map(|prompt| longest - prompt.len()).collect();
        let padded = |(prompt, &padding): (&Vec<i64>, &usize)| [vec![0; padding], prompt.clone()].concat();
        let rng = |row: usize| {
            let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
            rng.set_stream(row as u64);
            rng
        };
        Self {
            model,
            options,
            texts: prompts.iter().zip(&padding).map(padded).collect(),
            rngs: (0..prompts.len()).map(rng).collect(),
            rows: prompts.iter().map(|_| Row::default()).collect(),
            past: options.use_past_kv_cache.then(|| KvCache::new(model.config().n_layers)),
            padding,
        }
    }

    fn steps(mut self, hooks: &mut Hooks<'_>, stop: &mut StopCheck<'_>) -> Result<Vec<Generated>, RunError> {
        let n_ctx = self.model.config().n_ctx;
        for _ in 0..self.options.max_new_tokens {
            if self.rows.iter().all(|row| row.finish.is_some()) {
                break;
            }
            if self.texts[0].len() > n_ctx {
                for row in &mut self.rows {
                    row.finish.get_or_insert(FinishReason::Context);
                }
                break;
            }
            let logits = self.last_logits(hooks)?;
            if hooks.failed() {
                break; // `finish` reports it
            }
            self.choose(logits, stop);
        }
        let finished =
            |row: Row| Generated { tokens: row.tokens, finish: row.finish.unwrap_or(FinishReason::Length) };
        Ok(self.rows.into_iter().map(finished).collect())
    }

    /// Logits of the last position, for each row.
    fn last_logits(&mut self, hooks: &mut Hooks<'_>) -> Result<Vec<Vec<f64>>, RunError> {
        let done = self.past.as_ref().map_or(0, KvCache::len);
        let (batch, len) = (self.texts.len(), self.texts[0].len());
        let device = self.model.device();
        let ids: Vec<i64> = self.texts.iter().flat_map(|text| text[done..].iter().copied()).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, len - done]), &device);
        let mask = self.padding.iter().any(|&padding| padding > 0).then(|| {
            let row = |&padding: &usize| (done..len).map(move |pos| i64::from(pos >= padding));
            let mask: Vec<i64> = self.padding.iter().flat_map(row).collect();
            Tensor::<2, Int>::from_data(TensorData::new(mask, [batch, len - done]), &device)
        });
        // Hooks on the unembedding see every position, as anywhere else.
        let seen = hooks.wants(HookPoint::UnembedIn) || hooks.wants(HookPoint::UnembedOut);
        let logits_pos = if seen { Slice::All } else { Slice::Index(-1) };
        let options = RunOptions { attention_mask: mask, logits_pos, ..RunOptions::default() };
        let output =
            self.model.forward_with_past(&Input::Tokens(ids), &options, hooks, self.past.as_mut())?;
        if hooks.failed() {
            return Ok(Vec::new());
        }
        let logits = output.into_logits()?;
        let last = logits.dims()[1] - 1;
        let logits = logits.narrow(1, last, 1);
        let d_vocab = logits.dims()[2];
        let values: Vec<f64> =
            logits.try_into_vec_as().map_err(|error| RunError::Device(format!("{error:?}")))?;
        if let Some(at) = values.iter().position(|value| value.is_nan()) {
            return Err(RunError::Options(format!("the logits of prompt {} hold NaN", at / d_vocab)));
        }
        Ok(values.chunks(d_vocab).map(<[f64]>::to_vec).collect())
    }

    fn choose(&mut self, logits: Vec<Vec<f64>>, stop: &mut StopCheck<'_>) {
        for (at, logits) in logits.into_iter().enumerate() {
            let (row, text) = (&mut self.rows[at], &mut self.texts[at]);
            if row.finish.is_some() {
                text.push(0); // ends nowhere: the row is over
                continue;
            }
            let history = &text[self.padding[at]..];
            let token = self.options.sampling.sample(logits, history, &mut self.rngs[at]) as i64;
            text.push(token);
            row.tokens.push(token);
            if self.options.stop_at_eos && self.options.eos.contains(&token) {
                row.finish = Some(FinishReason::Eos);
            } else if stop(at, &row.tokens) {
                row.finish = Some(FinishReason::Stop);
            }
        }
    }
}
