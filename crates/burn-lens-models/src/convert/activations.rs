//! A run's activations under the names of the source's own modules.

use burn::tensor::{Tensor, TensorData};
use burn_lens_hooks::{ActivationCache, HookPoint, RunError};
use burn_lens_tensor::AnyTensor;
use indexmap::IndexMap;

use super::{
    ConvertError, NameTree, RuleTable,
    rearrange::{Rearrange, concatenated},
    table::{ActivationRule, filled, layers, sizes},
};
use crate::{HookedTransformer, ModelError, Param};

/// What the source's modules give, by their names: `_backbone.h.0.attn.c_attn`.
#[derive(Clone, Debug, Default)]
pub struct SourceActivations(IndexMap<String, TensorData>);

impl SourceActivations {
    /// The output of a module.
    #[must_use]
    pub fn get(&self, module: &str) -> Option<&TensorData> {
        self.0.get(module)
    }

    /// All of them, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorData)> {
        self.0.iter().map(|(name, data)| (name.as_str(), data))
    }

    /// As a tree by dots.
    #[must_use]
    pub fn tree(&self) -> NameTree<&TensorData> {
        self.iter().collect()
    }
}

impl RuleTable {
    /// The hooks that the table's modules are made of, for `CacheOptions::names`.
    ///
    /// # Errors
    ///
    /// If a rule names no hook.
    pub fn hooks(&self, n_layers: usize) -> Result<Vec<HookPoint>, ConvertError> {
        let mut points = Vec::new();
        for rule in &self.activations {
            for layer in layers(&rule.module, n_layers) {
                for hook in rule.hook.as_slice() {
                    let point: HookPoint = filled(hook, layer).parse()?;
                    if !points.contains(&point) {
                        points.push(point);
                    }
                }
            }
        }
        Ok(points)
    }

    /// What the source's modules would have given in the run that `cache` kept.
    ///
    /// # Errors
    ///
    /// If a rule names no hook, or one that was not kept, or its layout does not fit.
    pub fn activations(
        &self,
        model: &HookedTransformer,
        cache: &ActivationCache,
    ) -> Result<SourceActivations, ConvertError> {
        let mut found = IndexMap::new();
        for rule in &self.activations {
            for layer in layers(&rule.module, model.config().n_layers) {
                found.insert(filled(&rule.module, layer), activation(rule, layer, model, cache)?);
            }
        }
        Ok(SourceActivations(found))
    }
}

fn activation(
    rule: &ActivationRule,
    layer: Option<usize>,
    model: &HookedTransformer,
    cache: &ActivationCache,
) -> Result<TensorData, ConvertError> {
    let mut sizes = sizes(&model.config().dims());
    let pattern = rule.rearrange.as_deref().map(Rearrange::parse).transpose()?;
    let mut parts = Vec::new();
    for hook in rule.hook.as_slice() {
        let point: HookPoint = filled(hook, layer).parse()?;
        let not_kept =
            |_| ConvertError::NotKept { name: filled(&rule.module, layer), hook: point.to_string() };
        let tensor = cache.get(point).map_err(not_kept)?;
        let tensor = match &rule.norm {
            None => tensor,
            Some(norm) => normed(tensor, &filled(norm, layer), model)?,
        };
        let data = tensor.into_data().map_err(RunError::from).map_err(ModelError::from)?;
        sizes.extend(
            point.axes().iter().zip(data.shape().to_vec()).map(|(axis, len)| (axis.name().to_owned(), len)),
        );
        parts.push(match &pattern {
            None => data,
            Some(pattern) => pattern.apply(&data, &sizes)?,
        });
    }
    match <[TensorData; 1]>::try_from(parts) {
        Ok([whole]) => Ok(whole),
        Err(parts) => {
            let last = parts.first().map_or(0, |part| part.shape().to_vec().len().saturating_sub(1));
            concatenated(&parts, last)
        }
    }
}

/// With the weight and bias of `norm`, where it has them.
fn normed(x: AnyTensor, norm: &str, model: &HookedTransformer) -> Result<AnyTensor, ConvertError> {
    let rank = |source| ConvertError::Rank { name: norm.to_owned(), source };
    let mut x = Tensor::<3>::try_from(x).map_err(rank)?;
    let param = |part: &str| Ok::<_, ConvertError>(format!("{norm}.{part}").parse::<Param>()?);
    if let Some(w) = model.parameters().find::<1>(param("w")?) {
        x = x * w.unsqueeze();
    }
    if let Some(b) = model.parameters().find::<1>(param("b")?) {
        x = x + b.unsqueeze();
    }
    Ok(x.into())
}
