//! Heads that look for what followed the last time.

use burn_lens::{
    Pretrained, Tokens,
    burn::tensor::Tensor,
    hooks::{ActivationCache, CacheOptions, HookPoint, HookedModel as _, RunError, RunOptions},
    io::{TokenBatch, Tokenizer},
    models::ModelConfig,
};

use super::Head;
use crate::error::CliError;

/// How many random sequences there are.
const ROWS: usize = 8;

/// How long each is before it is repeated, if the vocabulary and the context allow.
const HALF: usize = 16;

/// Attention patterns of the first text of a run.
pub(super) struct Patterns {
    /// `[layer][head][query_pos · n_tokens + key_pos]`
    pub(super) layers: Vec<Vec<Vec<f64>>>,
}

/// Random sequences, repeated, and what heads do with them.
pub(super) struct Induction {
    /// The first sequence's tokens as text.
    pub(super) tokens: Vec<String>,
    /// Patterns on the first sequence.
    pub(super) patterns: Patterns,
    /// `[layer][head]`
    scores: Vec<Vec<f64>>,
    ids: Tokens,
    half: usize,
    /// 1 if there is a BOS token.
    start: usize,
}

impl Patterns {
    /// What a run must keep.
    pub(super) const NAMES: &str = "blocks.*.attn.hook_pattern";

    /// The patterns of the first text.
    pub(super) fn of(cache: &ActivationCache, config: &ModelConfig) -> Result<Self, CliError> {
        Self::of_row(cache, config, 0)
    }

    fn of_row(cache: &ActivationCache, config: &ModelConfig, row: usize) -> Result<Self, CliError> {
        let layers = (0..config.n_layers).map(|layer| {
            let pattern: Tensor<4> = cache.tensor(HookPoint::AttnPattern(layer))?;
            let [_, _, queries, keys] = pattern.dims();
            let values = values(pattern.narrow(0, row, 1))?;
            Ok(values.chunks(queries * keys).map(<[f64]>::to_vec).collect())
        });
        Ok(Self { layers: layers.collect::<Result<_, CliError>>()? })
    }
}

impl Induction {
    /// Scores every head on repeated random sequences.
    pub(super) fn find(lens: &Pretrained, seed: u64) -> Result<Self, CliError> {
        let (tokenizer, config) = (lens.tokenizer()?, lens.model.config());
        let bos = tokenizer.bos().filter(|_| tokenizer.default_prepend_bos());
        let start = usize::from(bos.is_some());
        let words = words(tokenizer, config.d_vocab);
        let half = HALF.min(words.len()).min(config.n_ctx.saturating_sub(start) / 2);
        if half < 2 {
            return Err(CliError::DemoContext { n_ctx: config.n_ctx, needed: start + 4 });
        }
        let mut random = Random(seed);
        let rows: Vec<Vec<i64>> = (0..ROWS)
            .map(|_| {
                let once = random.sample(&words, half);
                bos.into_iter().chain(once.iter().copied()).chain(once.iter().copied()).collect()
            })
            .collect();
        let attention_mask = rows.iter().map(|row| vec![1; row.len()]).collect();
        let ids = Tokens::new(TokenBatch { ids: rows, attention_mask }, &lens.model.device());
        let (_, cache) = lens.model.run_with_cache(
            &ids.input(),
            &ids.options(),
            &CacheOptions::names([Patterns::NAMES]),
        )?;
        let mut scores = vec![vec![0.0; config.attention.n_heads]; config.n_layers];
        for row in 0..ROWS {
            add_scores(&mut scores, &Patterns::of_row(&cache, config, row)?, start, half);
        }
        let tokens = tokenizer.to_str_tokens(&ids.batch.ids[0], None)?.into_iter().map(|token| token.text);
        Ok(Self {
            tokens: tokens.collect(),
            patterns: Patterns::of(&cache, config)?,
            scores,
            ids,
            half,
            start,
        })
    }

    /// Heads with their scores, the highest first.
    pub(super) fn ranked(&self) -> Vec<(Head, f64)> {
        let heads = self.scores.iter().enumerate().flat_map(|(layer, scores)| {
            scores.iter().enumerate().map(move |(head, &score)| (Head { layer, head }, score))
        });
        let mut ranked: Vec<(Head, f64)> = heads.collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
    }

    /// The head with the highest score.
    pub(super) fn best(&self) -> Head {
        self.ranked().first().map_or(Head { layer: 0, head: 0 }, |&(head, _)| head)
    }

    /// The head of the same layer with the lowest score.
    pub(super) fn least(&self) -> Head {
        let best = self.best();
        let ranked = self.ranked();
        ranked.into_iter().rfind(|(head, _)| head.layer == best.layer).map_or(best, |(head, _)| head)
    }

    /// The pattern of `head` on the first sequence.
    pub(super) fn pattern(&self, head: Head) -> &[f64] {
        &self.patterns.layers[head.layer][head.head]
    }

    /// What the scores are.
    pub(super) fn explanation(&self) -> String {
        format!(
            "{ROWS} sequences of {} random tokens, each repeated once. The score of a head is how much a token of the \
             second copy attends to the one that followed it in the first.",
            self.half
        )
    }

    /// The mean loss on the second copy (its first token, which nothing predicts, left out), with
    /// one head set to zero.
    pub(super) fn loss(&self, lens: &Pretrained, ablated: Option<Head>) -> Result<f64, CliError> {
        let options = RunOptions { loss_per_token: true, ..self.ids.options() };
        let hooks = ablated.into_iter().map(Head::ablation).collect();
        let output = lens.model.run_with_hooks(&self.ids.input(), &options, hooks)?;
        let Some(losses) = output.loss_per_token else {
            return Err(RunError::Options("the model gave no loss".to_owned()).into());
        };
        // Entry `i` is the loss on token `i + 1`; the second copy's second token is the first predictable one.
        let second = losses.narrow(1, self.start + self.half, self.half - 1);
        let second = values(second)?;
        Ok(second.iter().sum::<f64>() / second.len() as f64)
    }
}

fn add_scores(scores: &mut [Vec<f64>], patterns: &Patterns, start: usize, half: usize) {
    let pos = start + 2 * half;
    let second_copy = start + half..pos;
    let weight = 1.0 / (ROWS * half) as f64;
    for (scores, heads) in scores.iter_mut().zip(&patterns.layers) {
        for (score, pattern) in scores.iter_mut().zip(heads) {
            let followed = second_copy.clone().map(|at| pattern[at * pos + at + 1 - half]);
            *score += weight * followed.sum::<f64>();
        }
    }
}

/// Tokens that are no special ones.
fn words(tokenizer: &Tokenizer, d_vocab: usize) -> Vec<i64> {
    let special = [tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.unk()];
    let size = tokenizer.vocab_size().min(d_vocab) as i64;
    (0..size)
        .filter(|&id| !special.contains(&Some(id)) && tokenizer.to_single_str_token(id).is_ok())
        .collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f64>, CliError> {
    tensor.try_into_vec_as().map_err(|error| RunError::Device(format!("{error:?}")).into())
}

/// `SplitMix64`: the same sequences for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `count` different ones of `words`, in random order.
    fn sample(&mut self, words: &[i64], count: usize) -> Vec<i64> {
        let mut words = words.to_vec();
        for at in 0..count {
            let left = (words.len() - at) as u64;
            words.swap(at, at + (self.next() % left) as usize);
        }
        words.truncate(count);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_induction_head_scores_one() {
        let (start, half) = (1, 3);
        let pos = start + 2 * half;
        let mut pattern = vec![0.0; pos * pos];
        for at in start + half..pos {
            pattern[at * pos + at - half + 1] = 1.0;
        }
        let patterns = Patterns { layers: vec![vec![pattern, vec![0.0; pos * pos]]] };
        let mut scores = vec![vec![0.0; 2]];
        for _ in 0..ROWS {
            add_scores(&mut scores, &patterns, start, half);
        }
        assert!((scores[0][0] - 1.0).abs() < 1e-12 && scores[0][1] == 0.0, "{scores:?}");
    }

    #[test]
    fn samples_do_not_repeat() {
        let words: Vec<i64> = (10..30).collect();
        let mut sample = Random(0).sample(&words, 20);
        sample.sort_unstable();
        assert_eq!(sample, words);
    }
}
