//! Random words, said again: what induction heads are for.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Piece, Vocabulary, WEIGHT, vocabulary::SPECIAL};

/// `prefix` random words, then `segment` random words over and over up to `len` in all. Any
/// word of the vocabulary can occur. From the second word of the second time on, each follows
/// from those before it.
pub(super) fn piece(words: &Vocabulary, [prefix, segment, len]: [usize; 3], rng: &mut ChaCha8Rng) -> Piece {
    let mut random = || rng.random_range(SPECIAL..words.len() as i64);
    let mut piece = Piece::default();
    for index in 0..len {
        if index < prefix + segment {
            piece.tokens.push(random());
            piece.weights.push(0.0);
        } else {
            let token = piece.tokens[index - segment];
            let known = index > prefix + segment;
            piece.tokens.push(token);
            piece.weights.push(if known { WEIGHT.repeat } else { 0.0 });
            piece.answers.extend(known.then_some(index));
        }
    }
    piece
}

/// Random lengths for a piece of `len` words: the segment fits at least twice.
pub(super) fn lengths(len: usize, rng: &mut ChaCha8Rng) -> [usize; 3] {
    /// The shortest segment.
    const SHORTEST: usize = 5;
    let prefix = rng.random_range(0..=len / 4);
    let most = super::tmp("SEG", 1000.0) as usize;
    let longest = rng.random_range(SHORTEST..=((len - prefix) / 2).max(SHORTEST).min(most));
    [prefix, rng.random_range(SHORTEST..=longest), len]
}
