//! Matching brackets: `( [ ] { ( ) } ) .`
//!
//! Whether a bracket opens or closes next is random; which one closes is not.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Piece, Vocabulary, WEIGHT};

/// Opening and closing brackets.
pub(super) const KINDS: [[&str; 2]; 3] = [["(", ")"], ["[", "]"], ["{", "}"]];

/// Most brackets that are open at once.
pub(super) const DEPTH: usize = 4;

/// Most pairs in one piece.
const PAIRS: usize = 7;

/// One balanced expression and a full stop.
pub(super) fn piece(words: &Vocabulary, rng: &mut ChaCha8Rng) -> Piece {
    let mut piece = Piece::default();
    let mut left = rng.random_range(2..=PAIRS);
    let mut open: Vec<&str> = Vec::new();
    while left > 0 || !open.is_empty() {
        let opens = open.is_empty() || (left > 0 && open.len() < DEPTH && rng.random_bool(0.55));
        if opens {
            let [opening, closing] = KINDS[rng.random_range(0..KINDS.len())];
            piece.push(words.id(opening));
            open.push(closing);
            left -= 1;
        } else if let Some(closing) = open.pop() {
            piece.answer(words.id(closing), WEIGHT.bracket);
        }
    }
    piece.push(words.id("."));
    piece
}

/// The ids of the closing brackets.
pub(super) fn closing(words: &Vocabulary) -> Vec<i64> {
    KINDS.iter().map(|[_, closing]| words.id(closing)).collect()
}
