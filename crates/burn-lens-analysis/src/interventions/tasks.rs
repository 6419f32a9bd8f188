//! Prompts of known tasks, clean and corrupt, for any tokenizer that can spell them.
//!
//! A prompt ends where the answer is the next token; the corrupt prompt has the same length and makes the
//! other token right. Words that a tokenizer does not know as single tokens are left out.

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{HookedModel, Input, RunOptions};
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Engine, EngineOptions, Metric};
use crate::AnalysisError;

/// How many draws in a row may not fit before a tokenizer is given up.
const TRIES: usize = 200;

/// The ids of a text as it stands in a sentence, without a beginning-of-sequence token; `None` where the
/// tokenizer cannot spell it.
pub type Spell<'a> = dyn Fn(&str) -> Option<Vec<i64>> + 'a;

/// One pair of prompts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskPrompt {
    /// Where the answer is right.
    pub clean: Vec<i64>,
    /// Where the other token is.
    pub corrupt: Vec<i64>,
    /// The right next token of the clean prompt.
    pub answer: i64,
    /// The right next token of the corrupt prompt.
    pub against: i64,
    /// The clean prompt, to read.
    pub text: String,
}

/// Which task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// `When Mary and John went to the store, John gave a drink to` → ` Mary`; corrupt, the other one
    /// gives. Source: Wang et al. (2022).
    IndirectObject,
    /// `The capital of France is` → ` Paris`; corrupt, another country.
    Capitals,
    /// `The war lasted from the year 1732 to the year 17` → a later year; corrupt, the year 01. The answer is
    /// a year later than the clean one, the other token an earlier one. Source: Hanna et al. (2023).
    GreaterThan,
}

/// How prompts are drawn.
#[derive(Clone, Copy, Debug)]
pub struct TaskOptions {
    /// How many.
    pub count: usize,
    /// The seed.
    pub seed: u64,
    /// Goes before each prompt.
    pub bos: Option<i64>,
}

const NAMES: [&str; 24] = [
    "Mary", "John", "Alice", "Bob", "Tom", "Anna", "James", "Emma", "David", "Sarah", "Paul", "Laura",
    "Mark", "Julia", "Peter", "Helen", "Simon", "Kate", "Daniel", "Lucy", "Adam", "Grace", "Henry", "Rose",
];
const PLACES: [&str; 8] = ["store", "park", "school", "office", "garden", "library", "station", "market"];
const OBJECTS: [&str; 6] = ["drink", "book", "ring", "letter", "ball", "gift"];
const TEMPLATES: [&str; 3] = [
    "When <a> and <b> went to the <place>, <s> gave a <object> to",
    "After <a> and <b> went to the <place>, <s> gave a <object> to",
    "Then, <a> and <b> went to the <place>. <s> gave a <object> to",
];
const CAPITALS: [[&str; 2]; 20] = [
    ["France", "Paris"],
    ["Germany", "Berlin"],
    ["Italy", "Rome"],
    ["Spain", "Madrid"],
    ["Portugal", "Lisbon"],
    ["England", "London"],
    ["Ireland", "Dublin"],
    ["Norway", "Oslo"],
    ["Sweden", "Stockholm"],
    ["Poland", "Warsaw"],
    ["Austria", "Vienna"],
    ["Greece", "Athens"],
    ["Russia", "Moscow"],
    ["Egypt", "Cairo"],
    ["Japan", "Tokyo"],
    ["China", "Beijing"],
    ["Iran", "Tehran"],
    ["Iraq", "Baghdad"],
    ["Canada", "Ottawa"],
    ["Cuba", "Havana"],
];
const EVENTS: [&str; 6] = ["war", "siege", "conflict", "expedition", "voyage", "plague"];

/// Draws prompts of a task.
///
/// # Errors
///
/// If the tokenizer does not spell enough of its words as single tokens.
pub fn task_prompts(
    kind: TaskKind,
    spell: &Spell<'_>,
    options: TaskOptions,
) -> Result<Vec<TaskPrompt>, AnalysisError> {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let words = Words { spell };
    let mut prompts = Vec::with_capacity(options.count);
    let mut failed = 0;
    words.check(kind)?;
    while prompts.len() < options.count {
        let drawn = match kind {
            TaskKind::IndirectObject => words.indirect_object(&mut rng),
            TaskKind::Capitals => words.capitals(&mut rng),
            TaskKind::GreaterThan => words.greater_than(&mut rng),
        };
        // Position on position: prompts of different lengths cannot be patched.
        match drawn.filter(|prompt| prompt.clean.len() == prompt.corrupt.len()) {
            Some(mut prompt) => {
                failed = 0;
                for ids in [&mut prompt.clean, &mut prompt.corrupt] {
                    ids.splice(0..0, options.bos);
                }
                prompts.push(prompt);
            }
            None if failed == TRIES => return Err(unspelled(kind)),
            None => failed += 1,
        }
    }
    Ok(prompts)
}

fn unspelled(kind: TaskKind) -> AnalysisError {
    let reason = "this tokenizer does not spell its words, names or numbers as single tokens".to_owned();
    let what = match kind {
        TaskKind::IndirectObject => "the indirect-object task",
        TaskKind::Capitals => "the task of capitals",
        TaskKind::GreaterThan => "the greater-than task",
    };
    AnalysisError::Refused { what, reason }
}

struct Words<'a> {
    spell: &'a Spell<'a>,
}

impl Words<'_> {
    /// The token of a word within a sentence.
    fn token(&self, word: &str) -> Option<i64> {
        match (self.spell)(word)?[..] {
            [id] => Some(id),
            _ => None,
        }
    }

    fn check(&self, kind: TaskKind) -> Result<(), AnalysisError> {
        let known =
            |words: &[&str]| words.iter().filter(|word| self.token(&format!(" {word}")).is_some()).count();
        let fits = match kind {
            TaskKind::IndirectObject => known(&NAMES) >= 2,
            TaskKind::Capitals => known(CAPITALS.as_flattened()) >= 4,
            TaskKind::GreaterThan => known(&EVENTS) >= 1 && self.token("41").is_some(),
        };
        if fits { Ok(()) } else { Err(unspelled(kind)) }
    }

    fn indirect_object(&self, rng: &mut ChaCha8Rng) -> Option<TaskPrompt> {
        let (io, subject) = (*NAMES.choose(rng)?, *NAMES.choose(rng)?);
        if io == subject {
            return None;
        }
        let [a, b] = if rng.random() { [io, subject] } else { [subject, io] };
        let text = TEMPLATES.choose(rng)?.replace("<a>", a).replace("<b>", b);
        let text = text.replace("<place>", PLACES.choose(rng)?).replace("<object>", OBJECTS.choose(rng)?);
        Some(TaskPrompt {
            clean: (self.spell)(&text.replace("<s>", subject))?,
            corrupt: (self.spell)(&text.replace("<s>", io))?,
            answer: self.token(&format!(" {io}"))?,
            against: self.token(&format!(" {subject}"))?,
            text: text.replace("<s>", subject),
        })
    }

    fn capitals(&self, rng: &mut ChaCha8Rng) -> Option<TaskPrompt> {
        let ([country, capital], [other, other_capital]) = (*CAPITALS.choose(rng)?, *CAPITALS.choose(rng)?);
        if country == other {
            return None;
        }
        let text = |country: &str| format!("The capital of {country} is");
        Some(TaskPrompt {
            clean: (self.spell)(&text(country))?,
            corrupt: (self.spell)(&text(other))?,
            answer: self.token(&format!(" {capital}"))?,
            against: self.token(&format!(" {other_capital}"))?,
            text: text(country),
        })
    }

    fn greater_than(&self, rng: &mut ChaCha8Rng) -> Option<TaskPrompt> {
        let (event, century) = (EVENTS.choose(rng)?, rng.random_range(11..18));
        let year = rng.random_range(2..98);
        let (later, earlier) = (rng.random_range(year + 1..100), rng.random_range(1..year));
        let text =
            |year: i32| format!("The {event} lasted from the year {century}{year:02} to the year {century}");
        Some(TaskPrompt {
            clean: (self.spell)(&text(year))?,
            corrupt: (self.spell)(&text(1))?,
            answer: self.token(&format!("{later:02}"))?,
            against: self.token(&format!("{earlier:02}"))?,
            text: text(year),
        })
    }
}

/// How well a model does a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskScores {
    /// The mean logit of the answer less that of the other token.
    pub logit_diff: f64,
    /// The share of prompts on which it is positive.
    pub accuracy: f64,
    /// How many prompts there were.
    pub prompts: usize,
}

/// Runs a model on the clean prompts, one length at a time.
///
/// # Errors
///
/// If there is no prompt, or a token does not fit the model.
pub fn score_task<M: HookedModel + ?Sized>(
    model: &M,
    prompts: &[TaskPrompt],
) -> Result<TaskScores, AnalysisError> {
    if prompts.is_empty() {
        return Err(AnalysisError::Empty {
            what: "the list of prompts",
            reason: "none was drawn".to_owned(),
        });
    }
    let mut lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.clean.len()).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut values = Vec::new();
    for length in lengths {
        let batch: Vec<&TaskPrompt> = prompts.iter().filter(|prompt| prompt.clean.len() == length).collect();
        let ids: Vec<i64> = batch.iter().flat_map(|prompt| prompt.clean.iter().copied()).collect();
        let tokens =
            Tensor::<2, Int>::from_data(TensorData::new(ids, [batch.len(), length]), &model.device());
        let ids =
            |of: fn(&TaskPrompt) -> i64| -> Vec<usize> { batch.iter().map(|p| of(p) as usize).collect() };
        let metric = Metric::logit_diff(ids(|prompt| prompt.answer), ids(|prompt| prompt.against));
        let engine = Engine::new(
            model,
            Input::Tokens(tokens),
            &RunOptions::default(),
            &metric,
            EngineOptions::default(),
        )?;
        values.extend(engine.measure(&[])?);
    }
    let right = values.iter().filter(|&&value| value > 0.0).count();
    Ok(TaskScores {
        logit_diff: super::sweep::mean(&values),
        accuracy: right as f64 / values.len() as f64,
        prompts: values.len(),
    })
}
