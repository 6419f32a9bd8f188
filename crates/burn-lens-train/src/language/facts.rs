//! Facts: `The capital of France is Paris .`

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{Piece, Vocabulary, WEIGHT};

/// Countries and their capitals.
pub(super) const CAPITALS: [[&str; 2]; 40] = [
    ["France", "Paris"],
    ["Germany", "Berlin"],
    ["Italy", "Rome"],
    ["Spain", "Madrid"],
    ["Portugal", "Lisbon"],
    ["England", "London"],
    ["Ireland", "Dublin"],
    ["Norway", "Oslo"],
    ["Sweden", "Stockholm"],
    ["Finland", "Helsinki"],
    ["Denmark", "Copenhagen"],
    ["Poland", "Warsaw"],
    ["Austria", "Vienna"],
    ["Hungary", "Budapest"],
    ["Greece", "Athens"],
    ["Turkey", "Ankara"],
    ["Russia", "Moscow"],
    ["Ukraine", "Kyiv"],
    ["Romania", "Bucharest"],
    ["Bulgaria", "Sofia"],
    ["Serbia", "Belgrade"],
    ["Croatia", "Zagreb"],
    ["Belgium", "Brussels"],
    ["Switzerland", "Bern"],
    ["Iceland", "Reykjavik"],
    ["Egypt", "Cairo"],
    ["Morocco", "Rabat"],
    ["Kenya", "Nairobi"],
    ["Ghana", "Accra"],
    ["Nigeria", "Abuja"],
    ["Japan", "Tokyo"],
    ["China", "Beijing"],
    ["Thailand", "Bangkok"],
    ["Vietnam", "Hanoi"],
    ["Iran", "Tehran"],
    ["Iraq", "Baghdad"],
    ["Syria", "Damascus"],
    ["Canada", "Ottawa"],
    ["Cuba", "Havana"],
    ["Peru", "Lima"],
];

pub(super) const TEMPLATES: [&str; 6] = [
    "The capital of <country> is <capital> .",
    "The capital city of <country> is <capital> .",
    "In <country> , the capital is <capital> .",
    "People who visit <country> often start in <capital> .",
    "The train to <country> stops in <capital> .",
    "<capital> is the capital of <country> .",
];

/// A sentence about a country and its capital. The one that comes second is the answer.
pub(super) fn piece(words: &Vocabulary, rng: &mut ChaCha8Rng) -> Piece {
    let [country, capital] = CAPITALS.choose(rng).expect("a list that is not empty");
    let template = TEMPLATES.choose(rng).expect("a list that is not empty");
    let slots = [("<country>", *country), ("<capital>", *capital)];
    Piece::fill(words, template, &slots, &["<country>", "<capital>"], WEIGHT.fact)
}
