//! The most likely next tokens of a position.

use burn_lens::io::Tokenizer;
use serde::Serialize;

use crate::report::{Align, table};

/// A token that may come next.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NextToken {
    pub(crate) id: usize,
    /// Its text; `null` without a tokenizer, or for an id that no token has.
    pub(crate) token: Option<String>,
    pub(crate) logit: f64,
    pub(crate) probability: f64,
}

/// The `most` likely tokens, the likeliest first.
pub(crate) fn next_tokens(logits: &[f64], most: usize, tokenizer: Option<&Tokenizer>) -> Vec<NextToken> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let next = |id: usize| NextToken {
        id,
        token: token_text(tokenizer, id as i64),
        logit: logits[id],
        probability: (logits[id] - largest).exp() / total,
    };
    order.into_iter().take(most).map(next).collect()
}

/// The text of a token id, where there is a tokenizer that knows it.
pub(crate) fn token_text(tokenizer: Option<&Tokenizer>, id: i64) -> Option<String> {
    tokenizer?.to_single_str_token(id).ok().map(|token| token.text)
}

/// A token as it is shown: its text in quotes, so that white space is seen, or its id.
pub(crate) fn shown(tokenizer: Option<&Tokenizer>, id: i64) -> String {
    token_text(tokenizer, id).map_or_else(|| format!("#{id}"), |text| format!("{text:?}"))
}

/// A token as pages show it, which make white space visible themselves: its text, or its id.
pub(crate) fn plain(tokenizer: Option<&Tokenizer>, id: i64) -> String {
    token_text(tokenizer, id).unwrap_or_else(|| format!("#{id}"))
}

/// As a table.
pub(crate) fn next_token_table(next: &[NextToken]) -> String {
    let columns = [
        ("token", Align::Left),
        ("id", Align::Right),
        ("logit", Align::Right),
        ("probability", Align::Right),
    ];
    let row = |next: &NextToken| {
        let token = next.token.as_ref().map_or_else(|| format!("#{}", next.id), |text| format!("{text:?}"));
        vec![token, next.id.to_string(), format!("{:.3}", next.logit), percent(next.probability)]
    };
    table(&columns, &next.iter().map(row).collect::<Vec<_>>())
}

/// `0.1234` as `12.34 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_are_a_softmax() {
        let next = next_tokens(&[0.0, 3f64.ln(), f64::NEG_INFINITY], 2, None);
        assert_eq!(next.iter().map(|next| next.id).collect::<Vec<_>>(), [1, 0]);
        assert!((next[0].probability - 0.75).abs() < 1e-12);
    }
}
