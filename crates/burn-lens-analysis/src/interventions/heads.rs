//! Which heads do what: TransformerLens's head detector, and induction scores.

use std::str::FromStr;

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{ActivationCache, CacheOptions, HookPoint, HookedModel, Input, ReturnType, RunOptions};
use burn_lens_tensor::nearest;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{AnalysisError, error::to_host};

/// What a head is expected to attend to.
#[derive(Clone, Debug, PartialEq)]
pub enum HeadPattern {
    /// The token before.
    PreviousToken,
    /// Earlier occurrences of the same token.
    DuplicateToken,
    /// The tokens behind earlier occurrences of the same token.
    Induction,
    /// Any: `[query_pos][key_pos]`, zero above the diagonal.
    Custom(Vec<Vec<f64>>),
}

impl HeadPattern {
    /// The patterns that have a name.
    pub const NAMED: [Self; 3] = [Self::PreviousToken, Self::DuplicateToken, Self::Induction];

    /// TransformerLens's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PreviousToken => "previous_token_head",
            Self::DuplicateToken => "duplicate_token_head",
            Self::Induction => "induction_head",
            Self::Custom(_) => "custom",
        }
    }

    /// The pattern that it expects of these tokens, `[query_pos, key_pos]`, row by row.
    ///
    /// # Errors
    ///
    /// If a custom one is of another size, or looks ahead.
    pub fn expected(&self, ids: &[i64]) -> Result<Vec<f64>, AnalysisError> {
        let n = ids.len();
        if let Self::Custom(rows) = self {
            let square = rows.len() == n && rows.iter().all(|row| row.len() == n);
            let ahead = rows.iter().enumerate().any(|(q, row)| row.iter().skip(q + 1).any(|&x| x != 0.0));
            if !square || ahead {
                return Err(AnalysisError::Shape {
                    what: "a detection pattern",
                    expected: format!("[{n}, {n}], zero above the diagonal"),
                    found: vec![rows.len(), rows.first().map_or(0, Vec::len)],
                });
            }
            return Ok(rows.concat());
        }
        let sees = |q: usize, k: usize| match self {
            Self::PreviousToken => k + 1 == q,
            Self::DuplicateToken => k < q && ids[q] == ids[k],
            Self::Induction => 0 < k && k <= q && ids[q] == ids[k - 1],
            Self::Custom(_) => false,
        };
        let cells = (0..n).flat_map(|q| (0..n).map(move |k| (q, k)));
        Ok(cells.map(|(q, k)| f64::from(u8::from(sees(q, k)))).collect())
    }
}

impl FromStr for HeadPattern {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = |pattern: &Self| pattern.name();
        Self::NAMED
            .into_iter()
            .find(|pattern| name(pattern).trim_end_matches("_head") == text.trim_end_matches("_head"))
            .ok_or_else(|| {
                let near = nearest(text, Self::NAMED.iter().map(|pattern| pattern.name().to_owned()));
                let near =
                    if near.is_empty() { Self::NAMED.map(|p| p.name().to_owned()).to_vec() } else { near };
                let reason = format!("`{text}` is unknown; did you mean {}?", near.join(" or "));
                AnalysisError::Refused { what: "a detection pattern", reason }
            })
    }
}

/// How a pattern is compared with the expected one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorMeasure {
    /// `Σ pattern · expected / Σ pattern`: the share of attention that is where it is expected.
    #[default]
    Mul,
    /// `1 - Σ |pattern - expected| / n_pos`. TransformerLens rounds the sum to three digits; this
    /// does not.
    Abs,
}

/// How heads are scored.
#[derive(Clone, Debug)]
pub struct DetectOptions {
    /// What they are expected to attend to.
    pub pattern: HeadPattern,
    /// How that is compared.
    pub measure: ErrorMeasure,
    /// Leaves attention to the first position out.
    pub exclude_bos: bool,
    /// Leaves attention to the own position out.
    pub exclude_current_token: bool,
    /// Only these `(layer, head)`; all if `None`. Others score -1.
    pub heads: Option<Vec<(usize, usize)>>,
}

impl DetectOptions {
    /// TransformerLens's defaults.
    #[must_use]
    pub fn new(pattern: HeadPattern) -> Self {
        Self {
            pattern,
            measure: ErrorMeasure::Mul,
            exclude_bos: false,
            exclude_current_token: false,
            heads: None,
        }
    }
}

/// A score for each head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadScores {
    /// How many layers.
    pub n_layers: usize,
    /// How many heads a layer has.
    pub n_heads: usize,
    /// `[layer, head]`, row-major.
    pub values: Vec<f64>,
}

impl HeadScores {
    /// One head's.
    #[must_use]
    pub fn of(&self, layer: usize, head: usize) -> f64 {
        self.values[layer * self.n_heads + head]
    }

    /// The `count` heads that score most, the first first.
    #[must_use]
    pub fn largest(&self, count: usize) -> Vec<((usize, usize), f64)> {
        let mut order: Vec<(usize, f64)> = self.values.iter().copied().enumerate().collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let place = |(at, value)| ((at / self.n_heads, at % self.n_heads), value);
        order.into_iter().take(count).map(place).collect()
    }
}

/// Scores every head on texts, one after the other; the mean over texts.
///
/// # Errors
///
/// If a text has fewer than two tokens or fills the context, a head does not exist, or the model
/// fires no patterns.
pub fn detect_heads<M: HookedModel + ?Sized>(
    model: &M,
    texts: &[Vec<i64>],
    options: &DetectOptions,
) -> Result<HeadScores, AnalysisError> {
    if texts.is_empty() {
        let reason = "it needs at least one text".to_owned();
        return Err(AnalysisError::Empty { what: "the list of texts", reason });
    }
    let dims = model.dims();
    let mut values = vec![0.0; dims.n_layers * dims.n_heads];
    for ids in texts {
        let scores = score_cache(model, &patterns(model, std::slice::from_ref(ids))?, ids, options)?;
        for (sum, score) in values.iter_mut().zip(scores.values) {
            *sum += score / texts.len() as f64;
        }
    }
    Ok(HeadScores { n_layers: dims.n_layers, n_heads: dims.n_heads, values })
}

/// Scores every head of one run that was kept.
///
/// # Errors
///
/// As [`detect_heads`], or if the patterns were not kept whole.
pub fn score_cache<M: HookedModel + ?Sized>(
    model: &M,
    cache: &ActivationCache,
    ids: &[i64],
    options: &DetectOptions,
) -> Result<HeadScores, AnalysisError> {
    let (dims, n) = (model.dims(), ids.len());
    if n < 2 || n > dims.n_ctx {
        let reason = format!("it has {n} tokens: between 2 and {} are needed", dims.n_ctx);
        return Err(AnalysisError::Refused { what: "head detection on this text", reason });
    }
    if let Some(&(layer, head)) =
        options.heads.iter().flatten().find(|(layer, head)| *layer >= dims.n_layers || *head >= dims.n_heads)
    {
        if head >= dims.n_heads {
            return Err(AnalysisError::Head { head, n_heads: dims.n_heads });
        }
        return Err(AnalysisError::Layer { layer: layer.cast_signed(), n_layers: dims.n_layers - 1 });
    }
    let expected = options.pattern.expected(ids)?;
    let mut values = vec![-1.0; dims.n_layers * dims.n_heads];
    for layer in 0..dims.n_layers {
        let pattern: Tensor<4> = cache.tensor(HookPoint::AttnPattern(layer))?;
        if pattern.dims() != [1, dims.n_heads, n, n] {
            return Err(AnalysisError::Shape {
                what: "attn.hook_pattern",
                expected: format!("[1, {}, {n}, {n}], of one text", dims.n_heads),
                found: pattern.dims().to_vec(),
            });
        }
        let patterns = to_host(pattern)?;
        for head in 0..dims.n_heads {
            if options.heads.as_ref().is_none_or(|heads| heads.contains(&(layer, head))) {
                let pattern = &patterns[head * n * n..][..n * n];
                values[layer * dims.n_heads + head] = score(pattern, &expected, n, options);
            }
        }
    }
    Ok(HeadScores { n_layers: dims.n_layers, n_heads: dims.n_heads, values })
}

fn score(pattern: &[f64], expected: &[f64], n: usize, options: &DetectOptions) -> f64 {
    let (mut hit, mut all, mut error) = (0.0, 0.0, 0.0);
    for (at, (&pattern, &expected)) in pattern.iter().zip(expected).enumerate() {
        let (query, key) = (at / n, at % n);
        if (options.exclude_bos && key == 0) || (options.exclude_current_token && key == query) {
            continue;
        }
        hit += pattern * expected;
        all += pattern;
        error += (pattern - expected).abs();
    }
    match options.measure {
        ErrorMeasure::Mul if all == 0.0 => 0.0,
        ErrorMeasure::Mul => hit / all,
        ErrorMeasure::Abs => 1.0 - error / n as f64,
    }
}

/// How much each head attends, on random tokens said twice, from each token of the second time to
/// the one behind its first occurrence: the mean over the second time and over `texts` draws.
///
/// Tokens are drawn from `tokens`, without those of `bos`, which goes first if given.
///
/// # Errors
///
/// If there are fewer than two tokens to draw from, or the text does not fit the context.
pub fn induction_scores<M: HookedModel + ?Sized>(
    model: &M,
    draw: &RepeatedTokens,
) -> Result<HeadScores, AnalysisError> {
    let dims = model.dims();
    let texts = draw.texts();
    let first = usize::from(draw.bos.is_some());
    let len = draw.segment;
    if len < 2 || draw.texts == 0 || draw.tokens.is_empty() || first + 2 * len > dims.n_ctx {
        let reason = format!(
            "{} texts of {len} tokens of {} said twice do not fit a context of {}",
            draw.texts,
            draw.tokens.len(),
            dims.n_ctx
        );
        return Err(AnalysisError::Refused { what: "an induction score", reason });
    }
    let cache = patterns(model, &texts)?;
    let n = first + 2 * len;
    let mut values = Vec::new();
    for layer in 0..dims.n_layers {
        let patterns = to_host(cache.tensor::<Tensor<4>>(HookPoint::AttnPattern(layer))?)?;
        for head in 0..dims.n_heads {
            let of_text = |text: usize| {
                let pattern = &patterns[(text * dims.n_heads + head) * n * n..][..n * n];
                (first + len..n - 1).map(|query| pattern[query * n + query - len + 1]).sum::<f64>()
            };
            let sum: f64 = (0..texts.len()).map(of_text).sum();
            values.push(sum / (texts.len() * (len - 1)) as f64);
        }
    }
    Ok(HeadScores { n_layers: dims.n_layers, n_heads: dims.n_heads, values })
}

/// Random tokens, said twice.
#[derive(Clone, Debug)]
pub struct RepeatedTokens {
    /// What is drawn from, evenly.
    pub tokens: Vec<i64>,
    /// Goes before each text.
    pub bos: Option<i64>,
    /// How many tokens are said twice.
    pub segment: usize,
    /// How many texts.
    pub texts: usize,
    /// The seed.
    pub seed: u64,
}

impl RepeatedTokens {
    /// The texts.
    #[must_use]
    pub fn texts(&self) -> Vec<Vec<i64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut text = || -> Vec<i64> {
            let count = self.tokens.len().max(1);
            let half: Vec<i64> = (0..self.segment)
                .filter_map(|_| self.tokens.get(rng.random_range(0..count)).copied())
                .collect();
            self.bos.into_iter().chain(half.iter().copied()).chain(half.iter().copied()).collect()
        };
        (0..self.texts).map(|_| text()).collect()
    }
}

fn patterns<M: HookedModel + ?Sized>(
    model: &M,
    texts: &[Vec<i64>],
) -> Result<ActivationCache, AnalysisError> {
    let points = (0..model.dims().n_layers).map(HookPoint::AttnPattern).collect::<Vec<_>>();
    let shape = [texts.len(), texts.first().map_or(0, Vec::len)];
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(texts.concat(), shape), &model.device());
    let options = RunOptions::returning(ReturnType::None);
    Ok(model.run_with_cache(&Input::Tokens(tokens), &options, &CacheOptions::names(points))?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn induction_looks_behind_the_earlier_occurrence() {
        let expected = HeadPattern::Induction.expected(&[5, 6, 5]).unwrap();
        assert_eq!(expected, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let expected = HeadPattern::DuplicateToken.expected(&[5, 6, 5]).unwrap();
        assert_eq!(expected[6..], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn names_are_read() {
        assert_eq!("induction".parse::<HeadPattern>().unwrap(), HeadPattern::Induction);
        let error = "inducton_head".parse::<HeadPattern>().unwrap_err().to_string();
        assert!(error.contains("did you mean induction_head"), "{error}");
    }
}
