//! A piece of text whose tokens count differently.

use super::{Vocabulary, WEIGHT};

/// A sentence, or another stretch of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Token ids, without BOS.
    pub tokens: Vec<i64>,
    /// What predicting each token counts in the loss.
    pub weights: Vec<f32>,
    /// Which tokens (indices into `tokens`) follow from those before them.
    pub answers: Vec<usize>,
}

impl Piece {
    /// Adds a token that does not follow from those before it.
    pub(super) fn push(&mut self, token: i64) {
        self.tokens.push(token);
        self.weights.push(WEIGHT.background);
    }

    /// Adds a token that follows from those before it.
    pub(super) fn answer(&mut self, token: i64, weight: f32) {
        self.answers.push(self.tokens.len());
        self.tokens.push(token);
        self.weights.push(weight);
    }

    /// Fills the slots (`<name>`) of a template; the **last** occurrence of a slot named
    /// in `answers` is an answer of weight `weight`.
    pub(super) fn fill(
        words: &Vocabulary,
        template: &str,
        slots: &[(&str, &str)],
        answers: &[&str],
        weight: f32,
    ) -> Self {
        let mut piece = Self::default();
        let marks: Vec<&str> = template.split(' ').collect();
        let answer = marks.iter().rposition(|mark| answers.contains(mark));
        for (index, mark) in marks.iter().enumerate() {
            let word = slots.iter().find(|(slot, _)| slot == mark).map_or(*mark, |(_, word)| word);
            if Some(index) == answer {
                piece.answer(words.id(word), weight);
            } else {
                piece.push(words.id(word));
            }
        }
        piece
    }
}
