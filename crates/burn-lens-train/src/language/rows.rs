//! Rows of training data: BOS, then one sentence after the other.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{BOS, Piece, Task, Vocabulary, brackets, facts, filler, indirect_object, repeats, stream};
use crate::{Batch, Batches};

/// The language, as a source of batches.
#[derive(Clone, Debug)]
pub struct Language {
    words: Vocabulary,
    seed: u64,
}

/// Rows and tokens of the batch of each step, in turn. Most are short, since a sentence is
/// learned as well in a short row; the long ones reach every position.
const SHAPES: [[usize; 2]; 4] = [[12, 128], [32, 48], [32, 48], [32, 48]];

impl Language {
    /// The language, drawn from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { words: Vocabulary::new(), seed }
    }

    /// Its words.
    #[must_use]
    pub fn words(&self) -> &Vocabulary {
        &self.words
    }

    /// How many tokens that many steps take.
    #[must_use]
    pub fn tokens(&self, steps: usize) -> usize {
        SHAPES.iter().cycle().take(steps).map(|[rows, pos]| rows * pos).sum()
    }

    /// A fresh piece of a task.
    #[must_use]
    pub fn piece(&self, task: Task, rng: &mut ChaCha8Rng) -> Piece {
        match task {
            Task::IndirectObject => indirect_object::piece(&self.words, Names::new(rng).pair(rng), rng),
            Task::Capitals => facts::piece(&self.words, rng),
            Task::Brackets => brackets::piece(&self.words, rng),
            Task::Repeats => {
                let segment = rng.random_range(10..=40);
                repeats::piece(&self.words, [0, segment, 2 * segment], rng)
            }
        }
    }

    /// A row of `pos` tokens and their weights.
    fn row(&self, pos: usize, rng: &mut ChaCha8Rng) -> Piece {
        let mut row = Piece { tokens: vec![BOS], weights: vec![0.0], answers: Vec::new() };
        let mut append = |piece: Piece| {
            row.tokens.extend(piece.tokens);
            row.weights.extend(piece.weights);
            row.tokens.len() < pos
        };
        match rng.random_range(0..100) {
            0..20 => {
                append(repeats::phrases(&self.words, pos - 1, rng));
            }
            20..45 => {
                let lengths = repeats::lengths(pos - 1, rng);
                append(repeats::piece(&self.words, lengths, rng));
            }
            _ => {
                let mut names = Names::new(rng);
                while append(self.sentence(&mut names, rng)) {}
            }
        }
        row.tokens.truncate(pos);
        row.weights.truncate(pos);
        row
    }

    fn sentence(&self, names: &mut Names, rng: &mut ChaCha8Rng) -> Piece {
        match rng.random_range(0..100) {
            0..45 => indirect_object::piece(&self.words, names.pair(rng), rng),
            45..65 => facts::piece(&self.words, rng),
            65..90 => brackets::piece(&self.words, rng),
            _ => filler::piece(&self.words, rng),
        }
    }
}

impl Batches for Language {
    type Batch = Batch;

    fn batch(&mut self, step: usize) -> Batch {
        let [rows, pos] = SHAPES[step % SHAPES.len()];
        let mut rng = stream(self.seed, step as u64);
        let mut batch = Batch { batch: rows, pos, tokens: Vec::new(), weights: Vec::new() };
        for _ in 0..rows {
            let row = self.row(pos, &mut rng);
            batch.tokens.extend(row.tokens);
            batch.weights.extend(row.weights);
        }
        batch
    }
}

/// Names in a random order: within a row nobody occurs in two sentences, until all have.
struct Names {
    order: [&'static str; indirect_object::NAMES.len()],
    next: usize,
}

impl Names {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let mut order = indirect_object::NAMES;
        order.shuffle(rng);
        Self { order, next: 0 }
    }

    fn pair(&mut self, rng: &mut ChaCha8Rng) -> [&'static str; 2] {
        if self.next + 2 > self.order.len() {
            *self = Self::new(rng);
        }
        self.next += 2;
        [self.order[self.next - 2], self.order[self.next - 1]]
    }
}
