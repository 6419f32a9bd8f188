//! The next token from logits.
//!
//! Order, as TransformerLens: repetition penalty, temperature, frequency penalty, top-k,
//! top-p. Where both top-k and top-p are given both apply (there, top-p is then ignored).

use std::collections::HashMap;

use burn_lens_hooks::RunError;
use rand::{Rng, RngExt};

/// How the next token is chosen. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Keep the `k` most likely tokens.
    pub top_k: Option<usize>,
    /// Keep the most likely tokens until their probability first exceeds this.
    pub top_p: Option<f64>,
    /// Subtracted from a logit for each earlier occurrence of its token.
    pub frequency_penalty: f64,
    /// Divides (where positive) or multiplies (where negative) the logits of earlier tokens.
    pub repetition_penalty: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: None, frequency_penalty: 0.0, repetition_penalty: 1.0 }
    }
}

impl Sampling {
    /// Refuses values that mean nothing.
    ///
    /// # Errors
    ///
    /// Names the value.
    pub fn check(&self) -> Result<(), RunError> {
        let bad = |what: String| Err(RunError::Options(what));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad(format!("temperature = {} must be 0 or a positive number", self.temperature));
        }
        if self.top_k == Some(0) {
            return bad("top_k = 0 would leave no token; give at least 1".to_owned());
        }
        if let Some(p) = self.top_p.filter(|&p| !(p > 0.0 && p <= 1.0)) {
            return bad(format!("top_p = {p} must be above 0 and at most 1"));
        }
        if !self.frequency_penalty.is_finite() {
            return bad(format!("frequency_penalty = {} must be finite", self.frequency_penalty));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return bad(format!("repetition_penalty = {} must be positive", self.repetition_penalty));
        }
        Ok(())
    }

    /// Chooses a token. `history` is the prompt and what was generated so far; `rng` is only
    /// used above temperature 0.
    ///
    /// # Panics
    ///
    /// If there are no logits.
    pub fn sample(&self, mut logits: Vec<f64>, history: &[i64], rng: &mut impl Rng) -> usize {
        let mut counts: HashMap<usize, f64> = HashMap::new();
        for token in history.iter().filter_map(|&token| usize::try_from(token).ok()) {
            if token < logits.len() {
                *counts.entry(token).or_default() += 1.0;
            }
        }
        for &token in counts.keys() {
            let logit = &mut logits[token];
            *logit = if *logit > 0.0 {
                *logit / self.repetition_penalty
            } else {
                *logit * self.repetition_penalty
            };
        }
        if self.temperature > 0.0 {
            for logit in &mut logits {
                *logit /= self.temperature;
            }
        }
        for (token, count) in counts {
            logits[token] -= self.frequency_penalty * count;
        }
        if self.temperature == 0.0 {
            return argmax(&logits);
        }
        self.draw(&logits, rng)
    }

    fn draw(&self, logits: &[f64], rng: &mut impl Rng) -> usize {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        order.truncate(self.top_k.unwrap_or(usize::MAX));
        let most = logits[order[0]];
        let mut weights: Vec<f64> = order.iter().map(|&token| (logits[token] - most).exp()).collect();
        if let Some(p) = self.top_p {
            let total: f64 = weights.iter().sum();
            let mut seen = 0.0;
            let kept = weights.iter().position(|weight| {
                seen += weight / total;
                seen > p
            });
            weights.truncate(kept.map_or(weights.len(), |last| last + 1));
        }
        let mut target = rng.random::<f64>() * weights.iter().sum::<f64>();
        for (&token, weight) in order.iter().zip(&weights) {
            target -= weight;
            if target < 0.0 {
                return token;
            }
        }
        order[weights.len() - 1]
    }
}

fn argmax(logits: &[f64]) -> usize {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).fold(0, better)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn drawn(sampling: Sampling, logits: &[f64], history: &[i64]) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut seen: Vec<usize> =
            (0..2000).map(|_| sampling.sample(logits.to_vec(), history, &mut rng)).collect();
        seen.sort_unstable();
        seen
    }

    #[test]
    fn temperature_zero_is_greedy() {
        assert!(drawn(Sampling::default(), &[0.0, 3.0, 2.9], &[]).iter().all(|&token| token == 1));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let ones = drawn(sampling, &[0.0, 3.0f64.ln()], &[]).iter().filter(|&&token| token == 1).count();
        assert!((1400..1600).contains(&ones), "{ones} of 2000, expected about 1500");
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.5f64.ln(), 0.3f64.ln(), 0.15f64.ln(), 0.05f64.ln()];
        let top = |top_k, top_p| {
            let mut seen =
                drawn(Sampling { temperature: 1.0, top_k, top_p, ..Sampling::default() }, &logits, &[]);
            seen.dedup();
            seen
        };
        assert_eq!(top(Some(2), None), [0, 1]);
        assert_eq!(top(None, Some(0.4)), [0]); // the first token alone exceeds 0.4
        assert_eq!(top(None, Some(0.6)), [0, 1]);
        assert_eq!(top(Some(1), Some(0.99)), [0]);
    }

    #[test]
    fn penalties_move_greedy_choices() {
        let frequency = Sampling { frequency_penalty: 1.0, ..Sampling::default() };
        assert_eq!(drawn(frequency, &[1.5, 1.0], &[0])[0], 1);
        let repetition = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(drawn(repetition, &[1.5, 1.0], &[0])[0], 1);
        assert_eq!(drawn(repetition, &[-1.0, -1.5], &[0])[0], 1);
    }
}
