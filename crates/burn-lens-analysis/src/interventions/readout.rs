//! A metric bound to a model and its prompts: which positions it reads, and its value from them.
//!
//! A logit, or a difference of two, needs only its tokens' columns of the unembedding; anything
//! else needs the logits, but only at the positions that it reads.

use burn::tensor::{Int, Tensor, module};
use burn_lens_hooks::{HookedModel, Input, ModelWeights, Param, RunError, RunOptions};
use burn_lens_tensor::numeric;

use super::{Metric, MetricKind, MetricPos};
use crate::{AnalysisError, error::to_host};

/// A metric whose tokens and positions are known.
#[derive(Clone)]
pub(super) struct Readout {
    kind: MetricKind,
    /// For each prompt, where it is read; `None` for every position.
    picks: Option<Vec<usize>>,
    /// The first position that is read.
    pub(super) first: usize,
    batch: usize,
    /// `[batch]` each.
    tokens: Vec<Vec<i64>>,
    unembed: Option<Unembed>,
    /// Next tokens `[batch, pos - 1]` and which of them count, `[batch, pos - 1]`.
    labels: Option<(Tensor<2, Int>, Tensor<2>)>,
}

#[derive(Clone)]
struct Unembed {
    w_u: Tensor<2>,
    b_u: Option<Tensor<1>>,
    cap: Option<f64>,
    /// The columns of the metric's tokens, `[batch, token, d_model]`, and their biases.
    columns: Option<(Tensor<3>, Option<Tensor<2>>)>,
}

/// The most logits that are held at once, in values.
const LOGITS: usize = 1 << 25;

impl Readout {
    /// # Errors
    ///
    /// If tokens or positions do not fit.
    pub(super) fn new<M: HookedModel + ?Sized>(
        model: &M,
        input: &Input,
        options: &RunOptions,
        metric: &Metric,
    ) -> Result<Self, AnalysisError> {
        let [batch, pos] = input.batch_pos();
        let d_vocab_out = model.dims().d_vocab_out;
        let mask = options.attention_mask.as_ref().map(rows_of).transpose()?;
        let kind = metric.kind.clone();
        let tokens = kind.tokens().into_iter().map(|tokens| one_each(tokens, batch, d_vocab_out));
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let picks = picks(metric, [batch, pos], mask.as_deref())?;
        let labels = match kind {
            MetricKind::Loss => Some(labels(input, options, mask.as_deref())?),
            _ => None,
        };
        if let MetricKind::Kl(reference) = &kind
            && reference.dims() != [batch, pos, d_vocab_out]
        {
            return Err(AnalysisError::Shape {
                what: "the reference logits",
                expected: format!("[{batch}, {pos}, {d_vocab_out}], those of the same prompts"),
                found: reference.dims().to_vec(),
            });
        }
        let first = picks.as_ref().map_or(0, |picks| picks.iter().copied().min().unwrap_or(0));
        let unembed = Unembed::new(model, &kind, &tokens);
        Ok(Self { kind, picks, first, batch, tokens, unembed, labels })
    }

    /// Whether it can be differentiated.
    pub(super) fn has_gradient(&self) -> bool {
        self.kind.has_gradient()
    }

    /// Whether the model gives the weights that reading the stream needs.
    pub(super) fn reads_stream(&self) -> bool {
        self.unembed.is_some()
    }

    /// The metric of stacked prompts, from the output of the final norm.
    ///
    /// # Shapes
    ///
    /// - `normed`: `[copies · batch, pos - first, d_model]`
    /// - returns: for each copy, the value of each prompt
    pub(super) fn of_stream(&self, normed: Tensor<3>) -> Result<Vec<Vec<f64>>, AnalysisError> {
        let unembed = self.unembed.as_ref().expect("checked by the plan");
        let copies = normed.dims()[0] / self.batch;
        let read = self.picked(normed);
        let [_, n_read, d_model] = read.dims();
        if let Some((columns, biases)) = &unembed.columns {
            let [_, n, _] = columns.dims();
            let columns = columns.clone().reshape([1, self.batch, n, d_model]);
            let read = read.reshape([copies, self.batch, 1, d_model]);
            let mut logits = (read * columns).sum_dim(3).reshape([copies * self.batch, n]);
            if let Some(biases) = biases {
                logits = logits + biases.clone().repeat_dim(0, copies);
            }
            let values = to_host(difference(&capped(logits, unembed.cap)))?;
            return Ok(values.chunks(self.batch).map(<[f64]>::to_vec).collect());
        }
        let d_vocab_out = unembed.w_u.dims()[1];
        let at_once = (LOGITS / (self.batch * n_read * d_vocab_out).max(1)).max(1);
        let mut values = Vec::with_capacity(copies);
        for start in (0..copies).step_by(at_once) {
            let count = at_once.min(copies - start);
            let part = read.clone().narrow(0, start * self.batch, count * self.batch);
            let logits = capped(module::linear(part, unembed.w_u.clone(), unembed.b_u.clone()), unembed.cap);
            for copy in 0..count {
                let own = logits.clone().narrow(0, copy * self.batch, self.batch);
                values.push(self.each_prompt(to_host(self.of_read(own))?)?);
            }
        }
        Ok(values)
    }

    /// The same from the stream at every position, through all logits: what reading less is measured
    /// against.
    pub(super) fn of_whole_stream(&self, normed: &Tensor<3>) -> Result<Vec<Vec<f64>>, AnalysisError> {
        let unembed = self.unembed.as_ref().expect("checked by the plan");
        let copies = normed.dims()[0] / self.batch;
        (0..copies)
            .map(|copy| {
                let own = normed.clone().narrow(0, copy * self.batch, self.batch);
                let logits = module::linear(own, unembed.w_u.clone(), unembed.b_u.clone());
                self.of_logits(&capped(logits, unembed.cap))
            })
            .collect()
    }

    /// The metric of one copy of the prompts, from all logits `[batch, pos, d_vocab_out]`.
    pub(super) fn of_logits(&self, logits: &Tensor<3>) -> Result<Vec<f64>, AnalysisError> {
        self.each_prompt(to_host(self.tracked(logits))?)
    }

    /// The same as a tensor, `[batch]` or `[1]`.
    pub(super) fn tracked(&self, logits: &Tensor<3>) -> Tensor<1> {
        let pos = logits.dims()[1];
        self.of_read(self.picked(logits.clone().narrow(1, self.first, pos - self.first)))
    }

    fn each_prompt(&self, values: Vec<f64>) -> Result<Vec<f64>, AnalysisError> {
        if values.len() == self.batch || values.len() == 1 {
            return Ok(values);
        }
        Err(AnalysisError::Shape {
            what: "what the metric returned",
            expected: format!("[{}], a value for each prompt, or [1]", self.batch),
            found: vec![values.len()],
        })
    }

    /// `[rows, pos - first, _]` to `[rows, n_read, _]`.
    fn picked(&self, x: Tensor<3>) -> Tensor<3> {
        let Some(picks) = &self.picks else { return x };
        let [rows, pos, width] = x.dims();
        if pos == 1 {
            return x;
        }
        if picks.iter().all(|&pick| pick == picks[0]) {
            return x.narrow(1, picks[0] - self.first, 1);
        }
        let at = |row: usize| (row * pos + picks[row % self.batch] - self.first) as i64;
        let indices: Vec<i64> = (0..rows).map(at).collect();
        let indices = Tensor::<1, Int>::from_data(indices.as_slice(), &x.device().without_autodiff());
        x.reshape([rows * pos, width]).select(0, indices).reshape([rows, 1, width])
    }

    /// From the logits at the positions read, `[batch, n_read, d_vocab_out]`.
    fn of_read(&self, logits: Tensor<3>) -> Tensor<1> {
        let [batch, n_read, _] = logits.dims();
        let of_tokens = |x: Tensor<3>| -> Tensor<2> {
            let ids: Vec<i64> = (0..batch)
                .flat_map(|row| (0..n_read).flat_map(move |_| self.tokens.iter().map(move |ids| ids[row])))
                .collect();
            let shape = [batch, n_read, self.tokens.len()];
            let data = burn::tensor::TensorData::new(ids, shape);
            let ids = Tensor::<3, Int>::from_data(data, &x.device().without_autodiff());
            let of_each = x.gather(2, ids);
            of_each.mean_dim(1).reshape([batch, self.tokens.len()])
        };
        match &self.kind {
            MetricKind::Logit(_) | MetricKind::LogitDiff(..) => difference(&of_tokens(logits)),
            MetricKind::Probability(_) => difference(&of_tokens(numeric::softmax(logits))),
            MetricKind::LogProbability(_) => difference(&of_tokens(numeric::log_softmax(logits))),
            MetricKind::Rank(_) => {
                let chosen = of_tokens(logits.clone()).reshape([batch, 1, 1]);
                let larger = logits.clone().greater(chosen.expand(logits.dims()));
                larger.float().sum_dim(2).mean_dim(1).reshape([batch])
            }
            MetricKind::Loss => {
                let (next, counts) = self.labels.as_ref().expect("bound with the loss");
                let log_probs = numeric::log_softmax(logits.narrow(1, 0, n_read - 1));
                let each =
                    log_probs.gather(2, next.clone().unsqueeze_dim::<3>(2)).reshape([batch, n_read - 1]);
                let counts = counts.clone().cast(each.dtype());
                ((-each * counts.clone()).sum_dim(1) / counts.sum_dim(1)).reshape([batch])
            }
            MetricKind::Kl(reference) => {
                let pos = reference.dims()[1];
                let reference = self.picked(reference.clone().narrow(1, self.first, pos - self.first));
                let p = numeric::log_softmax(reference);
                let q = numeric::log_softmax(logits);
                (p.clone().exp() * (p - q)).sum_dim(2).mean_dim(1).reshape([batch])
            }
            MetricKind::Custom(f) => f(logits),
        }
    }
}

impl Unembed {
    fn new<M: HookedModel + ?Sized>(model: &M, kind: &MetricKind, tokens: &[Vec<i64>]) -> Option<Self> {
        let wiring = model.wiring()?;
        let w_u = model.find_weight::<2>(Param::WU)?;
        let b_u = model.find_weight::<1>(Param::BU);
        let columns = kind.is_direction().then(|| {
            let (batch, n) = (tokens[0].len(), tokens.len());
            let ids: Vec<i64> = (0..batch).flat_map(|row| tokens.iter().map(move |ids| ids[row])).collect();
            let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &w_u.device());
            let d_model = w_u.dims()[0];
            let columns = w_u.clone().select(1, ids.clone()).transpose().reshape([batch, n, d_model]);
            (columns, b_u.clone().map(|b| b.select(0, ids).reshape([batch, n])))
        });
        Some(Self { w_u, b_u, cap: wiring.logits_soft_cap, columns })
    }
}

fn capped<const D: usize>(logits: Tensor<D>, cap: Option<f64>) -> Tensor<D> {
    match cap {
        None => logits,
        Some(cap) => numeric::soft_cap(logits, cap),
    }
}

/// The first column less the second, if there is one.
fn difference(columns: &Tensor<2>) -> Tensor<1> {
    let [rows, n] = columns.dims();
    let column = |at: usize| columns.clone().narrow(1, at, 1).reshape([rows]);
    if n == 1 { column(0) } else { column(0) - column(1) }
}

fn rows_of(mask: &Tensor<2, Int>) -> Result<Vec<Vec<bool>>, AnalysisError> {
    let pos = mask.dims()[1];
    let values: Vec<i64> =
        mask.try_to_vec_as::<i64>().map_err(|error| RunError::Device(format!("{error:?}")))?;
    Ok(values.chunks(pos).map(|row| row.iter().map(|&token| token != 0).collect()).collect())
}

fn one_each(tokens: &[usize], batch: usize, d_vocab_out: usize) -> Result<Vec<i64>, AnalysisError> {
    if let Some(&token) = tokens.iter().find(|&&token| token >= d_vocab_out) {
        return Err(AnalysisError::Token { token, d_vocab_out });
    }
    match tokens.len() {
        1 => Ok(vec![tokens[0] as i64; batch]),
        found if found == batch => Ok(tokens.iter().map(|&token| token as i64).collect()),
        found => Err(AnalysisError::Shape {
            what: "the tokens of the metric",
            expected: format!("[{batch}], one for each prompt, or a single one"),
            found: vec![found],
        }),
    }
}

fn picks(
    metric: &Metric,
    [batch, pos]: [usize; 2],
    mask: Option<&[Vec<bool>]>,
) -> Result<Option<Vec<usize>>, AnalysisError> {
    let last =
        |row: usize| mask.and_then(|mask| mask[row].iter().rposition(|&token| token)).unwrap_or(pos - 1);
    Ok(match (&metric.kind, &metric.pos) {
        (MetricKind::Loss, _) | (_, MetricPos::All) => None,
        (_, MetricPos::Last) => Some((0..batch).map(last).collect()),
        (_, MetricPos::At(at)) => {
            let index = burn_lens_tensor::Slice::Index(*at).resolve(pos);
            let index = index.map_err(|source| AnalysisError::Slice { axis: "positions", source })?;
            Some(vec![index.to_vec()[0]; batch])
        }
        (_, MetricPos::EachPrompt(each)) => {
            if each.len() != batch || each.iter().any(|&at| at >= pos) {
                return Err(AnalysisError::Shape {
                    what: "the positions of the metric",
                    expected: format!("[{batch}], one below {pos} for each prompt"),
                    found: vec![each.len()],
                });
            }
            Some(each.clone())
        }
    })
}

/// Next tokens, and which of them count.
fn labels(
    input: &Input,
    options: &RunOptions,
    mask: Option<&[Vec<bool>]>,
) -> Result<(Tensor<2, Int>, Tensor<2>), AnalysisError> {
    let tokens = match (&options.labels, input) {
        (Some(labels), _) => labels,
        (None, Input::Tokens(tokens)) => tokens,
        (None, _) => {
            let reason = "it needs tokens to predict: give RunOptions::labels".to_owned();
            return Err(AnalysisError::Refused { what: "the loss as a metric", reason });
        }
    };
    let [batch, pos] = tokens.dims();
    if pos < 2 || [batch, pos] != input.batch_pos() {
        return Err(AnalysisError::Shape {
            what: "the tokens to predict",
            expected: format!("{:?}, with at least two positions", input.batch_pos()),
            found: vec![batch, pos],
        });
    }
    let counts = |row: usize, at: usize| mask.is_none_or(|mask| mask[row][at] && mask[row][at + 1]);
    let counted: Vec<bool> = (0..batch)
        .flat_map(|row| (0..pos - 1).map(move |at| (row, at)))
        .map(|(row, at)| counts(row, at))
        .collect();
    if counted.chunks(pos - 1).any(|row| !row.contains(&true)) {
        let reason = "a prompt has no two neighboring tokens that are not padding".to_owned();
        return Err(AnalysisError::Refused { what: "the loss as a metric", reason });
    }
    let counted: Vec<f32> = counted.into_iter().map(|counts| f32::from(u8::from(counts))).collect();
    let counted = burn::tensor::TensorData::new(counted, [batch, pos - 1]);
    Ok((tokens.clone().narrow(1, 1, pos - 1), Tensor::from_data(counted, &tokens.device())))
}
