//! Attention: scores, pattern, mixture, or all of it at once.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::{DType, Tensor, TensorData};

use super::{cast, fused, half, in_f32, widened};
use crate::backend;

/// Which keys each query sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The position of the first query among the keys.
    pub first: usize,
    /// Queries see no key behind them.
    pub causal: bool,
    /// How many keys a query sees at most, itself the last.
    pub window: Option<usize>,
    /// `[batch · keys]`, true for tokens and false for padding; `None` where there is none.
    pub tokens: Option<Arc<[bool]>>,
}

impl Sight {
    /// The position of a query.
    #[must_use]
    pub fn position(&self, query: usize) -> usize {
        self.first + query
    }

    /// The keys that a query sees, padding aside.
    #[must_use]
    pub fn seen(&self, query: usize, keys: usize) -> Range<usize> {
        let position = self.position(query);
        let end = if self.causal { keys.min(position + 1) } else { keys };
        let start = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        start.min(end)..end
    }

    /// Which keys of a prompt are tokens.
    pub(crate) fn tokens_of(&self, batch: usize, keys: usize) -> Option<&[bool]> {
        self.tokens.as_ref().map(|tokens| &tokens[batch * keys..][..keys])
    }

    /// Whether a query sees a key.
    #[must_use]
    pub fn sees(&self, batch: usize, query: usize, key: usize, keys: usize) -> bool {
        self.seen(query, keys).contains(&key) && self.tokens_of(batch, keys).is_none_or(|tokens| tokens[key])
    }

    /// Whether a query sees nothing at all.
    #[must_use]
    pub fn is_blind(&self, batch: usize, query: usize, keys: usize) -> bool {
        let seen = self.seen(query, keys);
        match self.tokens_of(batch, keys) {
            None => seen.is_empty(),
            Some(tokens) => tokens[seen].iter().all(|&token| !token),
        }
    }
}

/// How products of queries and keys become scores, and scores a pattern.
#[derive(Clone, Debug)]
pub struct AttentionScores {
    /// Products are divided by it.
    pub scale: f64,
    /// `cap · tanh(score / cap)`.
    pub soft_cap: Option<f64>,
    /// ALiBi: `slope · (key - query)` is added, a slope for each head.
    pub slopes: Option<Arc<[f32]>>,
    /// Who sees whom.
    pub sight: Sight,
}

fn have_kernels(tensors: &[&Tensor<4>], sinks: Option<&Tensor<1>>) -> bool {
    tensors.iter().all(|x| fused(x, false)) && sinks.is_none_or(|sinks| fused(sinks, false))
}

/// Masked scores, `-inf` where a query does not see a key; `None` where there is no kernel.
///
/// # Shapes
///
/// - `q`: `[batch, pos, n_heads, d_head]`, `k`: `[batch, n_kv_heads, key_pos, d_head]`
/// - returns: `[batch, n_heads, pos, key_pos]`
#[must_use]
pub fn scores(q: &Tensor<4>, k: &Tensor<4>, how: &AttentionScores) -> Option<Tensor<4>> {
    let scores = |q, k| backend::attention_scores(q, k, how.clone());
    if half(q) && half(k) {
        return Some(in_f32(q.clone(), |q| scores(q, widened(k.clone()))));
    }
    have_kernels(&[q, k], None).then(|| scores(q.clone(), k.clone()))
}

/// Softmax over keys (and each head's sink, which is then dropped), zero for queries that see
/// nothing; gives the scores back where there is no kernel.
///
/// # Shapes
///
/// - `scores`: `[batch, n_heads, pos, key_pos]`, `sinks`: `[n_heads]`; returns as `scores`
///
/// # Errors
///
/// The scores, where there is no kernel.
pub fn pattern(
    scores: Tensor<4>,
    sinks: Option<&Tensor<1>>,
    how: &AttentionScores,
) -> Result<Tensor<4>, Tensor<4>> {
    if half(&scores) && sinks.is_none_or(half) {
        let sinks = sinks.cloned().map(widened);
        return Ok(in_f32(scores, |scores| backend::attention_pattern(scores, sinks, how.clone())));
    }
    if !have_kernels(&[&scores], sinks) {
        return Err(scores);
    }
    Ok(backend::attention_pattern(scores, sinks.cloned(), how.clone()))
}

/// Values mixed by the pattern; `None` where there is no kernel.
///
/// # Shapes
///
/// - `pattern`: `[batch, n_heads, pos, key_pos]`, `v`: `[batch, n_kv_heads, key_pos, d_head]`
/// - returns: `[batch, pos, n_heads, d_head]`
#[must_use]
pub fn mixed(pattern: &Tensor<4>, v: &Tensor<4>) -> Option<Tensor<4>> {
    if half(pattern) && half(v) {
        return Some(in_f32(pattern.clone(), |p| backend::attention_mixed(p, widened(v.clone()))));
    }
    have_kernels(&[pattern, v], None).then(|| backend::attention_mixed(pattern.clone(), v.clone()))
}

/// What of attention somebody looks at, beside its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// Masked scores.
    pub scores: bool,
    /// The pattern.
    pub pattern: bool,
}

/// What [`attention`] gives.
#[derive(Clone, Debug)]
pub struct Attended {
    /// `[batch, n_heads, pos, key_pos]`, as of [`scores`], where somebody looks.
    pub scores: Option<Tensor<4>>,
    /// `[batch, n_heads, pos, key_pos]`, as of [`pattern`], where somebody looks.
    pub pattern: Option<Tensor<4>>,
    /// `[batch, pos, n_heads, d_head]`, as of [`mixed`].
    pub z: Tensor<4>,
}

/// Where the kernel leaves the values that somebody looks at: an operation of burn gives but one tensor.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) looks: Looks,
    values: Mutex<[Option<Vec<f32>>; 2]>,
}

impl Seen {
    fn new(looks: Looks) -> Arc<Self> {
        Arc::new(Self { looks, values: Mutex::new([None, None]) })
    }

    /// Leaves scores and pattern.
    #[cfg(feature = "cpu")]
    pub(crate) fn leave(&self, values: [Option<Vec<f32>>; 2]) {
        *self.values.lock().unwrap_or_else(PoisonError::into_inner) = values;
    }

    fn take(&self) -> [Option<Vec<f32>>; 2] {
        std::mem::take(&mut self.values.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All of attention by blocks of queries that stay in the cache; scores and pattern are written to memory only where
/// somebody looks at them. `None` where there is no kernel. The same bits as [`scores`], [`pattern`] and
/// [`mixed`] one after the other.
///
/// # Shapes
///
/// - `q`: `[batch, pos, n_heads, d_head]`, `k`, `v`: `[batch, n_kv_heads, key_pos, d_head]`
/// - `sinks`: `[n_heads]`
#[must_use]
pub fn attention(
    [q, k, v]: [&Tensor<4>; 3],
    sinks: Option<&Tensor<1>>,
    how: &AttentionScores,
    looks: Looks,
) -> Option<Attended> {
    let seen = Seen::new(looks);
    let whole = |[q, k, v]: [Tensor<4>; 3], sinks: Option<Tensor<1>>, rounding| {
        backend::attention_whole([q, k, v], sinks, (how.clone(), rounding, Arc::clone(&seen)))
    };
    let dtype = q.dtype();
    let z = if [q, k, v].into_iter().all(half) && sinks.is_none_or(half) {
        let (k, v, sinks) = (widened(k.clone()), widened(v.clone()), sinks.cloned().map(widened));
        in_f32(q.clone(), |q| whole([q, k, v], sinks, dtype))
    } else if have_kernels(&[q, k, v], sinks) {
        whole([q.clone(), k.clone(), v.clone()], sinks.cloned(), dtype)
    } else {
        return None;
    };
    let [batch, pos, n_heads, _] = q.dims();
    let dims = [batch, n_heads, pos, k.dims()[2]];
    let tensor = |values| Tensor::from_data(TensorData::new(values, dims), (&q.device(), DType::F32));
    let [scores, pattern] = seen.take().map(|values| values.map(|values| cast(tensor(values), dtype)));
    Some(Attended { scores, pattern, z })
}
