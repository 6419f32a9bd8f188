//! Plain sentences, so that text reads as text.

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{Piece, Vocabulary, indirect_object::PLACES};

const ADJECTIVES: [&str; 14] = [
    "old", "young", "small", "big", "happy", "sad", "brown", "white", "quiet", "loud", "lazy", "brave",
    "clever", "tired",
];
const ANIMALS: [&str; 14] = [
    "cat", "dog", "bird", "horse", "mouse", "fox", "bear", "rabbit", "cow", "duck", "frog", "goat", "lion",
    "sheep",
];
const VERBS: [&str; 12] = [
    "sat", "slept", "ran", "played", "waited", "danced", "sang", "jumped", "walked", "hid", "stood", "rested",
];
const PLACED: [&str; 6] = ["in", "near", "behind", "beside", "outside", "past"];
const TIMES: [&str; 6] = ["morning", "evening", "night", "summer", "winter", "day"];

/// Every word that slots are filled with.
pub(super) const WORDS: [&[&str]; 5] = [&ADJECTIVES, &ANIMALS, &VERBS, &PLACED, &TIMES];

pub(super) const TEMPLATES: [&str; 5] = [
    "The <adjective> <animal> <verb> <placed> the <place> .",
    "Every <time> , the <animal> <verb> <placed> the <place> .",
    "A <adjective> <animal> and a <adjective> <animal> <verb> <placed> the <place> .",
    "It was a <adjective> <time> , and the <animal> <verb> .",
    "The <animal> <verb> all <time> .",
];

/// A sentence that follows from nothing.
pub(super) fn piece(words: &Vocabulary, rng: &mut ChaCha8Rng) -> Piece {
    let template = TEMPLATES.choose(rng).expect("a list that is not empty");
    let mut piece = Piece::default();
    for mark in template.split(' ') {
        let list: &[&str] = match mark {
            "<adjective>" => &ADJECTIVES,
            "<animal>" => &ANIMALS,
            "<verb>" => &VERBS,
            "<placed>" => &PLACED,
            "<place>" => &PLACES,
            "<time>" => &TIMES,
            _ => &[],
        };
        piece.push(words.id(list.choose(rng).unwrap_or(&mark)));
    }
    piece
}
