//! What a sweep measures.

use std::{fmt, sync::Arc};

use burn::tensor::Tensor;

/// A function of the logits `[batch, pos, d_vocab_out]` at the positions that the metric reads: one
/// value for each prompt, `[batch]`, or one for all, `[1]`.
pub type MetricFn = dyn Fn(Tensor<3>) -> Tensor<1> + Send + Sync;

/// A number for each prompt, of the logits at some positions. Token lists hold one token for all
/// prompts, or one for each.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a sweep has one")]
pub enum MetricKind {
    /// The logit of a token.
    Logit(Vec<usize>),
    /// The logit of the first less that of the second.
    LogitDiff(Vec<usize>, Vec<usize>),
    /// The probability of a token.
    Probability(Vec<usize>),
    /// Its logarithm, in nats.
    LogProbability(Vec<usize>),
    /// How many tokens are more likely than this one.
    Rank(Vec<usize>),
    /// The mean of `-log p` of each next token of a prompt; padding is left out.
    Loss,
    /// How far the predictions are from those of a reference: `Σ p log(p / q)` with `p` of these
    /// logits `[batch, pos, d_vocab_out]` (every position), the mean over the positions read.
    Kl(Tensor<3>),
    /// Any function.
    Custom(Arc<MetricFn>),
}

impl fmt::Debug for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl MetricKind {
    /// Its name, as the command line has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Logit(_) => "logit",
            Self::LogitDiff(..) => "logit_diff",
            Self::Probability(_) => "probability",
            Self::LogProbability(_) => "log_probability",
            Self::Rank(_) => "rank",
            Self::Loss => "loss",
            Self::Kl(_) => "kl",
            Self::Custom(_) => "custom",
        }
    }

    pub(super) fn tokens(&self) -> Vec<&[usize]> {
        match self {
            Self::Logit(tokens)
            | Self::Probability(tokens)
            | Self::LogProbability(tokens)
            | Self::Rank(tokens) => vec![tokens],
            Self::LogitDiff(answers, against) => vec![answers, against],
            Self::Loss | Self::Kl(_) | Self::Custom(_) => Vec::new(),
        }
    }

    /// Whether the logits of its own tokens are all that it needs.
    pub(super) fn is_direction(&self) -> bool {
        matches!(self, Self::Logit(_) | Self::LogitDiff(..))
    }

    pub(super) fn has_gradient(&self) -> bool {
        !matches!(self, Self::Rank(_))
    }
}

/// Which positions a metric reads.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum MetricPos {
    /// The last token of each prompt, padding left out.
    #[default]
    Last,
    /// One position, negative from the end.
    At(isize),
    /// One for each prompt.
    EachPrompt(Vec<usize>),
    /// Every position.
    All,
}

/// What a sweep measures, and where.
#[derive(Clone, Debug)]
pub struct Metric {
    /// What.
    pub kind: MetricKind,
    /// At which positions; the loss always reads all.
    pub pos: MetricPos,
}

impl Metric {
    /// A metric of the logits at the last token of each prompt, or of all positions for the loss.
    #[must_use]
    pub fn new(kind: MetricKind) -> Self {
        let pos = if matches!(kind, MetricKind::Loss) { MetricPos::All } else { MetricPos::Last };
        Self { kind, pos }
    }

    /// The logit of an answer less that of another one, at the last token of each prompt.
    #[must_use]
    pub fn logit_diff(answers: impl Into<Vec<usize>>, against: impl Into<Vec<usize>>) -> Self {
        Self::new(MetricKind::LogitDiff(answers.into(), against.into()))
    }

    /// At other positions.
    #[must_use]
    pub fn at(self, pos: MetricPos) -> Self {
        Self { pos, ..self }
    }
}
