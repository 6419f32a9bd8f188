//! How well a model speaks the language, and which of its heads are induction heads.

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{CacheOptions, HookPoint, HookedModel, Input, ReturnType, RunOptions};
use burn_lens_models::HookedTransformer;
use serde::Serialize;

use super::{BOS, Language, Piece, Task, Vocabulary, brackets, repeats, stream};
use crate::TrainError;

/// How well a model speaks the language.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// One for each task.
    pub tasks: Vec<TaskScore>,
    /// One for each head, by layer and then head.
    pub induction: Vec<InductionScore>,
}

/// How many answers of one task are right.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskScore {
    /// The task's name.
    pub task: &'static str,
    /// Fresh sequences.
    pub samples: usize,
    /// Tokens in them that follow from those before.
    pub answers: usize,
    /// Those of the highest logit; for brackets, among closing brackets.
    pub correct: usize,
    /// `correct / answers`
    pub accuracy: f64,
}

/// How much a head attends to what came behind the previous occurrence of the same token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InductionScore {
    /// The head, as `layer.head`.
    pub head: String,
    /// The mean attention, over the second half of random sequences that are said twice.
    pub score: f64,
}

/// Rows of one run.
const ROWS: usize = 32;

/// Evaluates a model on fresh text: `samples` sequences of each task, drawn from `seed`.
///
/// # Errors
///
/// If the model cannot run on the language's tokens.
pub fn evaluate(
    model: &HookedTransformer,
    language: &Language,
    samples: usize,
    seed: u64,
) -> Result<Evaluation, TrainError> {
    let score = |task| score(model, language, task, samples, seed);
    Ok(Evaluation {
        tasks: Task::ALL.into_iter().map(score).collect::<Result<_, _>>()?,
        induction: induction(model, language.words(), seed)?,
    })
}

/// Streams of random numbers that training, which counts up from 0, does not reach.
fn fresh(seed: u64, number: u64) -> rand_chacha::ChaCha8Rng {
    stream(seed, u64::MAX - number)
}

fn score(
    model: &HookedTransformer,
    language: &Language,
    task: Task,
    samples: usize,
    seed: u64,
) -> Result<TaskScore, TrainError> {
    let mut rng = fresh(seed, task as u64);
    let pieces: Vec<Piece> = (0..samples).map(|_| language.piece(task, &mut rng)).collect();
    let choices = (task == Task::Brackets).then(|| brackets::closing(language.words()));
    let (mut answers, mut correct) = (0, 0);
    for pieces in pieces.chunks(ROWS) {
        answers += pieces.iter().map(|piece| piece.answers.len()).sum::<usize>();
        correct += correct_answers(model, pieces, choices.as_deref())?;
    }
    Ok(TaskScore {
        task: task.name(),
        samples,
        answers,
        correct,
        accuracy: correct as f64 / answers.max(1) as f64,
    })
}

/// Runs BOS and then each piece, padded with BOS at the end, and counts right answers.
fn correct_answers(
    model: &HookedTransformer,
    pieces: &[Piece],
    choices: Option<&[i64]>,
) -> Result<usize, TrainError> {
    let pos = 1 + pieces.iter().map(|piece| piece.tokens.len()).max().unwrap_or(0);
    let rows = pieces.iter().flat_map(|piece| {
        let padding = std::iter::repeat(&BOS);
        std::iter::once(&BOS).chain(&piece.tokens).chain(padding).take(pos).copied()
    });
    let input = input(model, rows.collect(), [pieces.len(), pos]);
    let logits = model.run_with_hooks(&input, &RunOptions::default(), Vec::new())?.into_logits()?;
    let [_, _, d_vocab] = logits.dims();
    let logits = values(&logits)?;
    let mut correct = 0;
    for (row, piece) in pieces.iter().enumerate() {
        for &answer in &piece.answers {
            // Behind BOS, token `answer` is at position `answer + 1` and predicted at `answer`.
            let at = (row * pos + answer) * d_vocab;
            correct += usize::from(best(&logits[at..at + d_vocab], choices) == piece.tokens[answer]);
        }
    }
    Ok(correct)
}

/// The token of the highest logit, among `choices` if given.
fn best(logits: &[f32], choices: Option<&[i64]>) -> i64 {
    let tokens = (0..).zip(logits).filter(|(token, _)| choices.is_none_or(|choices| choices.contains(token)));
    tokens.max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(BOS, |(token, _)| token)
}

fn induction(
    model: &HookedTransformer,
    words: &Vocabulary,
    seed: u64,
) -> Result<Vec<InductionScore>, TrainError> {
    /// Words in the sequence that is said twice.
    const SEGMENT: usize = 40;
    let pos = 1 + 2 * SEGMENT;
    let mut rng = fresh(seed, Task::ALL.len() as u64);
    let pieces = (0..ROWS).map(|_| repeats::piece(words, [0, SEGMENT, 2 * SEGMENT], &mut rng));
    let tokens = pieces.flat_map(|piece| std::iter::once(BOS).chain(piece.tokens)).collect();
    let layers = 0..model.dims().n_layers;
    let keep = CacheOptions::names(layers.clone().map(HookPoint::AttnPattern));
    let (_, cache) = model.run_with_cache(
        &input(model, tokens, [ROWS, pos]),
        &RunOptions::returning(ReturnType::None),
        &keep,
    )?;
    let mut scores = Vec::new();
    for layer in layers {
        let pattern: Tensor<4> = cache.tensor(HookPoint::AttnPattern(layer))?;
        let [_, n_heads, ..] = pattern.dims();
        let pattern = values(&pattern.mean_dim(0))?;
        for head in 0..n_heads {
            let attended = (SEGMENT + 1..pos).map(|query| {
                let key = query + 1 - SEGMENT;
                f64::from(pattern[(head * pos + query) * pos + key])
            });
            let score = attended.sum::<f64>() / SEGMENT as f64;
            scores.push(InductionScore { head: format!("{layer}.{head}"), score });
        }
    }
    Ok(scores)
}

fn input(model: &HookedTransformer, tokens: Vec<i64>, shape: [usize; 2]) -> Input {
    Input::Tokens(Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), &model.device()))
}

fn values<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>, TrainError> {
    tensor.try_to_vec_as::<f32>().map_err(|error| TrainError::Device(format!("{error:?}")))
}
