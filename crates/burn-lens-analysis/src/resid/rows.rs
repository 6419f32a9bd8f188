//! Rows of a stack under way.

use burn::tensor::Tensor;
use burn_lens_tensor::{kernels, numeric};

use super::{Component, ResidStack, Residuals, StackOptions, reader::Reader};
use crate::AnalysisError;

/// Rows that are made some at a time, each into its place among all, so that none is held twice.
pub(crate) struct Rows {
    components: Vec<Component>,
    /// `[total, batch, pos, width]`, once there are some.
    values: Option<Tensor<4>>,
    total: usize,
}

impl Rows {
    /// Room for `total` rows.
    pub(crate) fn new(total: usize) -> Self {
        Self { components: Vec::with_capacity(total), values: None, total }
    }

    /// Adds rows `[component, batch, pos, width]`, one for each component.
    pub(crate) fn push(&mut self, components: impl IntoIterator<Item = Component>, rows: Tensor<4>) {
        let start = self.components.len();
        self.components.extend(components);
        let end = self.components.len();
        let [n, batch, pos, width] = rows.dims();
        assert!(n == end - start && end <= self.total, "{n} rows from {start} to {end} of {}", self.total);
        if n == 0 {
            return;
        }
        if n == self.total {
            self.values = Some(rows);
            return;
        }
        let room = || numeric::zeros([self.total, batch, pos, width], &rows.device(), rows.dtype());
        let values = self.values.take().unwrap_or_else(room);
        self.values = Some(kernels::placed(values, start, rows));
    }

    /// The sum of the rows so far: `[1, batch, pos, width]`.
    pub(crate) fn sum(&self) -> Option<Tensor<4>> {
        let values = self.values.as_ref()?;
        Some(values.clone().narrow(0, 0, self.components.len()).sum_dim(0))
    }

    /// The stack of these rows, which `reader` made.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub(crate) fn into_stack<M: ?Sized>(
        self,
        what: &'static str,
        options: &StackOptions,
        reader: &Reader,
        of: &Residuals<'_, M>,
    ) -> Result<ResidStack, AnalysisError> {
        let Some(values) = self.values else {
            let reason = "nothing of this kind writes before this layer, and no remainder was asked for";
            return Err(AnalysisError::Empty { what, reason: reason.to_owned() });
        };
        assert_eq!(self.components.len(), self.total, "rows of {what}");
        let is_resid = values.dims()[3] == of.dims.d_model;
        let mut stack = ResidStack::new(self.components, values, options.pos_slice.clone())?;
        stack.has_batch_dim = of.cache.has_batch_dim();
        stack.normalized = reader.normalized;
        stack.is_resid = is_resid;
        Ok(stack)
    }
}
