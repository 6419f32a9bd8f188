//! Attribution to logits: which tokens, in which direction of the stream, and what each row
//! contributes.

use burn::tensor::{Int, Tensor};
use burn_lens_hooks::{HookedModel, ModelWeights, NormSite, Param};
use burn_lens_tensor::{AnyTensor, TypedTensor};

use super::{Component, FrozenNorm, ResidStack, Residuals};
use crate::AnalysisError;

/// The tokens whose logits are attributed, with their axes spelled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answers {
    /// One token for all prompts and positions.
    One(usize),
    /// One for each prompt, `[batch]`.
    EachPrompt(Vec<usize>),
    /// One for each position, `[pos]`.
    EachPos(Vec<usize>),
    /// One for each prompt and position, `[batch][pos]`.
    EachPromptAndPos(Vec<Vec<usize>>),
}

impl From<usize> for Answers {
    fn from(token: usize) -> Self {
        Self::One(token)
    }
}

impl Answers {
    /// `[batch, pos]`, 1 where one serves all, and the tokens row by row.
    fn grid(&self, [batch, pos]: [usize; 2]) -> Result<([usize; 2], Vec<usize>), AnalysisError> {
        let wrong = |found: Vec<usize>, expected: String| {
            Err(AnalysisError::Shape { what: "the answer tokens", expected, found })
        };
        match self {
            Self::One(token) => Ok(([1, 1], vec![*token])),
            Self::EachPrompt(tokens) if tokens.len() == batch => Ok(([batch, 1], tokens.clone())),
            Self::EachPrompt(tokens) => wrong(vec![tokens.len()], format!("[{batch}], one for each prompt")),
            Self::EachPos(tokens) if tokens.len() == pos => Ok(([1, pos], tokens.clone())),
            Self::EachPos(tokens) => wrong(vec![tokens.len()], format!("[{pos}], one for each position")),
            Self::EachPromptAndPos(rows) => {
                if rows.len() != batch || rows.iter().any(|row| row.len() != pos) {
                    let found = vec![rows.len(), rows.first().map_or(0, Vec::len)];
                    return wrong(found, format!("[{batch}, {pos}], one for each prompt and position"));
                }
                Ok(([batch, pos], rows.concat()))
            }
        }
    }
}

/// What each row contributes to a logit, or to a difference of two.
#[derive(Clone, Debug)]
pub struct LogitAttrs {
    pub(crate) components: Vec<Component>,
    pub(crate) values: Tensor<3>,
    pub(crate) unembed_bias: Tensor<2>,
    pub(crate) axes: [bool; 2],
}

impl LogitAttrs {
    /// What each row is.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// TransformerLens's labels of the rows.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        self.components.iter().map(ToString::to_string).collect()
    }

    /// `[component, batch, pos]`
    #[must_use]
    pub fn values(&self) -> Tensor<3> {
        self.values.clone()
    }

    /// `[batch, pos]`: what no row carries, the final norm's bias times the unembedding, and the
    /// unembedding's bias.
    #[must_use]
    pub fn unembed_bias(&self) -> Tensor<2> {
        self.unembed_bias.clone()
    }

    /// `[batch, pos]`: the rows and the unembedding's bias together. For rows that make up the whole
    /// stream this is the logit (or difference) before any soft-cap.
    #[must_use]
    pub fn total(&self) -> Tensor<2> {
        self.values.clone().sum_dim(0).squeeze_dim::<2>(0) + self.unembed_bias.clone()
    }

    /// The values in TransformerLens's shape, without the axes that the stack has not.
    #[must_use]
    pub fn into_any(self) -> AnyTensor {
        let [n, batch, pos] = self.values.dims();
        match self.axes {
            [true, true] => self.values.into_any(),
            [false, true] => self.values.reshape([n, pos]).into_any(),
            [true, false] => self.values.reshape([n, batch]).into_any(),
            [false, false] => self.values.reshape([n]).into_any(),
        }
    }
}

/// A direction in the stream for each prompt and position, seen from behind the final norm.
#[derive(Clone)]
pub(crate) struct Directions {
    /// `[batch or 1, pos or 1, d_model]`
    pub(crate) dirs: Tensor<3>,
    /// `[batch, pos, 1]`: what products with `dirs` are divided by.
    pub(crate) divisor: Option<Tensor<3>>,
}

impl Directions {
    /// The same direction seen from before `norm`.
    pub(crate) fn pulled_back(&self, norm: &FrozenNorm) -> Self {
        let divisor = match (&self.divisor, norm.scale()) {
            (Some(a), Some(b)) => Some(a.clone() * b),
            (a, b) => a.clone().or(b),
        };
        Self { dirs: norm.transposed(self.dirs.clone()), divisor }
    }

    /// Products of rows with the direction: `[component, batch, pos]`.
    pub(crate) fn dot(&self, rows: Tensor<4>) -> Tensor<3> {
        let [n, batch, pos, width] = rows.dims();
        let products: Tensor<3> = if self.dirs.dims()[..2] == [1, 1] {
            let dir: Tensor<2> = self.dirs.clone().reshape([width, 1]);
            rows.reshape([n * batch * pos, width]).matmul(dir).reshape([n, batch, pos])
        } else {
            (rows * self.dirs.clone().unsqueeze_dim::<4>(0)).sum_dim(3).squeeze_dim(3)
        };
        self.divide(products)
    }

    /// Divides `[component, batch, pos]`.
    pub(crate) fn divide(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.divisor {
            None => x,
            Some(divisor) => {
                let divisor: Tensor<2> = divisor.clone().cast(x.dtype()).squeeze_dim(2);
                x / divisor.unsqueeze_dim::<3>(0)
            }
        }
    }

    /// The product of one vector `[d_model]` with the direction: `[batch, pos]`, expanded.
    pub(crate) fn dot_vector(&self, vector: Tensor<1>, [batch, pos]: [usize; 2]) -> Tensor<2> {
        let [b, p, width] = self.dirs.dims();
        let product = self.dirs.clone().reshape([b * p, width]).matmul(vector.reshape([width, 1]));
        let product: Tensor<2> = product.reshape([b, p]);
        self.divide(product.expand([batch, pos]).unsqueeze_dim(0)).squeeze_dim(0)
    }
}

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// What each row of a stack contributes to the logit of `tokens`, or to how much larger it is
    /// than that of `incorrect_tokens`: TransformerLens's `logit_attrs`.
    ///
    /// The final norm is applied with the scale of the run. Where its weight is not folded into the
    /// unembedding it is taken into account, and what the biases contribute is given apart
    /// ([`LogitAttrs::unembed_bias`]), so that a whole decomposition sums to the logit.
    ///
    /// # Shapes
    ///
    /// - `stack`: `[component, batch, pos, d_model]`, from any method with
    ///   [`Normalize::None`](super::Normalize::None)
    /// - returns: `[component, batch, pos]`
    ///
    /// # Errors
    ///
    /// If the stack was normalized or projected, a token is outside the vocabulary, the tokens do
    /// not fit the stack's axes, or the final scale was not kept.
    pub fn logit_attrs(
        &self,
        stack: &ResidStack,
        tokens: impl Into<Answers>,
        incorrect_tokens: Option<&Answers>,
    ) -> Result<LogitAttrs, AnalysisError> {
        self.check_raw(stack, "logit_attrs of this stack")?;
        let [_, batch, pos, _] = stack.values.dims();
        let norm = self.frozen(NormSite::Final, stack)?;
        let (dirs, unembed_bias) =
            self.unembed_directions([batch, pos], &tokens.into(), incorrect_tokens, &norm)?;
        Ok(LogitAttrs {
            components: stack.components.clone(),
            values: dirs.pulled_back(&norm).dot(stack.values.clone()),
            unembed_bias,
            axes: [stack.has_batch_dim && !stack.batch_slice.is_index(), !stack.pos_slice.is_index()],
        })
    }

    /// `W_U[:, answer] - W_U[:, against]` behind the final norm, and what its bias and `b_U`
    /// contribute, `[batch, pos]`.
    pub(crate) fn unembed_directions(
        &self,
        shape: [usize; 2],
        answers: &Answers,
        against: Option<&Answers>,
        norm: &FrozenNorm,
    ) -> Result<(Directions, Tensor<2>), AnalysisError> {
        let (mut dirs, mut b_u) = self.unembed_columns(shape, answers)?;
        if let Some(against) = against {
            let (other, other_b_u) = self.unembed_columns(shape, against)?;
            dirs = dirs - other;
            b_u = b_u - other_b_u;
        }
        let dirs = Directions { dirs, divisor: None };
        let mut bias = b_u.expand(shape);
        if let Some(norm_bias) = norm.bias() {
            bias = bias + dirs.dot_vector(norm_bias, shape);
        }
        Ok((dirs, bias))
    }

    fn unembed_columns(
        &self,
        shape: [usize; 2],
        answers: &Answers,
    ) -> Result<(Tensor<3>, Tensor<2>), AnalysisError> {
        let ([batch, pos], tokens) = answers.grid(shape)?;
        let w_u: Tensor<2> = self.model.weight(Param::WU)?;
        let [d_model, d_vocab_out] = w_u.dims();
        if let Some(&token) = tokens.iter().find(|&&token| token >= d_vocab_out) {
            return Err(AnalysisError::Token { token, d_vocab_out });
        }
        let ids: Vec<i64> = tokens.iter().map(|&token| token as i64).collect();
        let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &w_u.device());
        let columns: Tensor<2> = w_u.clone().select(1, ids.clone());
        let b_u = match self.model.find_weight::<1>(Param::BU) {
            Some(b_u) => b_u.select(0, ids).reshape([batch, pos]),
            None => Tensor::<2>::zeros([batch, pos], &w_u.device()).cast(w_u.dtype()),
        };
        Ok((columns.transpose().reshape([batch, pos, d_model]), b_u))
    }
}
