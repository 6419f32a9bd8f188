//! A norm with the hooks that TransformerLens puts in it: `hook_scale`, then `hook_normalized`.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, Hooks};
use burn_lens_tensor::{Norm, NormKind, TypedTensor, kernels, numeric};

/// A norm as part of a forward pass.
pub(crate) trait HookedNorm {
    /// Normalizes the last axis of `x`, in the accumulator type for half precision.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., d_model]`
    /// - `hook_scale`: `[.., 1]`; `hook_normalized` and the result: as `x`
    fn forward<const D: usize>(
        &self,
        hooks: &mut Hooks<'_>,
        points: [HookPoint; 2],
        x: Tensor<D>,
    ) -> Tensor<D>
    where
        Tensor<D>: TypedTensor;
}

impl HookedNorm for Norm {
    fn forward<const D: usize>(
        &self,
        hooks: &mut Hooks<'_>,
        [scale_point, normalized_point]: [HookPoint; 2],
        x: Tensor<D>,
    ) -> Tensor<D>
    where
        Tensor<D>: TypedTensor,
    {
        if self.kind == NormKind::None {
            return x;
        }
        if !hooks.wants(scale_point) && !hooks.wants(normalized_point) {
            return self.apply(x);
        }
        let (x, dtype) = numeric::widened(x);
        let x = self.centered(x);
        let scale = hooks.at(scale_point, self.scale(x.clone()));
        let normalized = x / scale;
        self.affine(hooks.at(normalized_point, kernels::cast(normalized, dtype)))
    }
}
