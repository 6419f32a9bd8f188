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

/// `len` random words in phrases, each said several times, in a random order. From the second
/// word of a phrase that was said before on, each word follows; unlike in [`piece`], not from
/// how far back it was said.
pub(super) fn phrases(words: &Vocabulary, len: usize, rng: &mut ChaCha8Rng) -> Piece {
    let count = rng.random_range(2..=8);
    let mut phrases: Vec<(bool, Vec<i64>)> = Vec::new();
    for _ in 0..count {
        let length = rng.random_range(3..=8);
        phrases.push((false, (0..length).map(|_| rng.random_range(SPECIAL..words.len() as i64)).collect()));
    }
    let mut piece = Piece::default();
    while piece.tokens.len() < len {
        let (known, phrase) = &mut phrases[rng.random_range(0..count)];
        for (index, &token) in phrase.iter().enumerate() {
            if *known && index > 0 {
                piece.answer(token, WEIGHT.repeat);
            } else {
                piece.tokens.push(token);
                piece.weights.push(0.0);
            }
        }
        *known = true;
    }
    piece
}

/// Random lengths for a piece of `len` words: the segment fits at least twice.
pub(super) fn lengths(len: usize, rng: &mut ChaCha8Rng) -> [usize; 3] {
    /// The shortest segment; the words of shorter ones could be guessed from their distance.
    const SHORTEST: usize = 12;
    let prefix = rng.random_range(0..=len / 4);
    [prefix, rng.random_range(SHORTEST..=((len - prefix) / 2).max(SHORTEST)), len]
}
