//! Indirect objects: `When Mary and John went to the store , John gave a drink to Mary .`
//!
//! Source: Wang et al. (2022), `Interpretability in the wild`. Both orders of the two names
//! occur equally often: `A B … B … A` and `B A … B … A`.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{Piece, Vocabulary, WEIGHT};

pub(super) const NAMES: [&str; 52] = [
    "Mary", "John", "Alice", "Bob", "Tom", "Anna", "James", "Emma", "David", "Sarah", "Paul", "Laura",
    "Mark", "Julia", "Peter", "Helen", "Simon", "Kate", "Daniel", "Lucy", "Adam", "Grace", "Henry", "Rose",
    "Jack", "Ruth", "Luke", "Clara", "Oscar", "Nina", "Felix", "Ivy", "Hugo", "Ella", "Max", "Zoe", "Leo",
    "Amy", "Ben", "Eva", "Sam", "Ida", "Carl", "Jane", "George", "Martha", "Frank", "Susan", "Robert",
    "Linda", "Walter", "Irene",
];

pub(super) const PLACES: [&str; 16] = [
    "store",
    "park",
    "school",
    "office",
    "garden",
    "library",
    "station",
    "market",
    "beach",
    "museum",
    "restaurant",
    "hospital",
    "church",
    "hotel",
    "zoo",
    "theater",
];

pub(super) const OBJECTS: [&str; 16] = [
    "drink", "book", "ring", "letter", "ball", "gift", "key", "bottle", "map", "coin", "flower", "hat",
    "basket", "ticket", "picture", "cake",
];

pub(super) const TEMPLATES: [&str; 8] = [
    "When <a> and <b> went to the <place> , <subject> gave a <object> to <io> .",
    "When <a> and <b> were at the <place> , <subject> handed a <object> to <io> .",
    "After <a> and <b> went to the <place> , <subject> gave a <object> to <io> .",
    "While <a> and <b> were working at the <place> , <subject> gave a <object> to <io> .",
    "Then , <a> and <b> went to the <place> . <subject> gave a <object> to <io> .",
    "Then , <a> and <b> had a long talk . <subject> sent a <object> to <io> .",
    "<a> and <b> met at the <place> , and <subject> passed a <object> to <io> .",
    "Friends <a> and <b> found a <object> at the <place> . <subject> gave it to <io> .",
];

/// A sentence about two people: `pair` is the subject and the indirect object.
pub(super) fn piece(words: &Vocabulary, pair: [&str; 2], rng: &mut ChaCha8Rng) -> Piece {
    let [subject, io] = pair;
    let [a, b] = if rng.random() { [subject, io] } else { [io, subject] };
    let place = PLACES.choose(rng).expect("a list that is not empty");
    let object = OBJECTS.choose(rng).expect("a list that is not empty");
    let template = TEMPLATES.choose(rng).expect("a list that is not empty");
    let slots = [
        ("<a>", a),
        ("<b>", b),
        ("<subject>", subject),
        ("<io>", io),
        ("<place>", place),
        ("<object>", object),
    ];
    Piece::fill(words, template, &slots, &["<io>"], WEIGHT.indirect_object)
}
