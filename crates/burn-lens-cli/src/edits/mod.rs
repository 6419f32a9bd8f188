//! Interventions from the command line: what they say, whether they fit, what they do.

mod apply;
mod error;
mod spec;
mod texts;
mod vector;

use std::convert::Infallible;

use burn_lens::{
    hooks::{Firing, Hook, HookContext, HookPoint, HookedModel as _, Selector},
    models::HookedTransformer,
    tensor::AnyTensor,
};

use crate::args::EditArgs;
use apply::Edit;
use spec::Place;

pub(crate) use error::EditError;
use error::Problem;
pub(crate) use spec::{Ablation, Addition, Scaling};
pub(crate) use texts::Texts;
use vector::Vector;

/// What an intervention does at its place.
#[derive(Clone, Debug)]
enum Change {
    Zero,
    Mean,
    Scale(f64),
    Add(Vector),
}

impl EditArgs {
    pub(crate) fn is_empty(&self) -> bool {
        self.ablate.is_empty() && self.scale.is_empty() && self.add.is_empty()
    }

    /// The interventions as the user wrote them.
    pub(crate) fn texts(&self) -> Vec<String> {
        let ablate = self.ablate.iter().map(|ablation| format!("--ablate {}", ablation.text));
        let scale = self.scale.iter().map(|scaling| format!("--scale {}", scaling.text));
        let add = self.add.iter().map(|addition| format!("--add {}", addition.text));
        ablate.chain(scale).chain(add).collect()
    }

    /// Hooks for a run of `model` on `texts`, ablations first, then scalings, then additions.
    ///
    /// # Errors
    ///
    /// If one does not fit the model or the texts; the error names it and the part.
    pub(crate) fn hooks(
        &self,
        model: &HookedTransformer,
        texts: &Texts,
    ) -> Result<Vec<Hook<'static>>, EditError> {
        let firing = model.firing();
        let mut hooks = Vec::new();
        for ablation in &self.ablate {
            let change = if ablation.mean { Change::Mean } else { Change::Zero };
            let hook = hook(&ablation.place, change, model, &firing, texts);
            hooks.push(hook.map_err(|problem| EditError::new("--ablate", &ablation.text, problem))?);
        }
        for scaling in &self.scale {
            let hook = hook(&scaling.place, Change::Scale(scaling.factor), model, &firing, texts);
            hooks.push(hook.map_err(|problem| EditError::new("--scale", &scaling.text, problem))?);
        }
        for addition in &self.add {
            let hook = Vector::read(&addition.file, addition.tensor.as_deref(), addition.factor)
                .and_then(|vector| hook(&addition.place, Change::Add(vector), model, &firing, texts));
            hooks.push(hook.map_err(|problem| EditError::new("--add", &addition.text, problem))?);
        }
        Ok(hooks)
    }
}

fn hook(
    place: &Place,
    change: Change,
    model: &HookedTransformer,
    firing: &Firing,
    texts: &Texts,
) -> Result<Hook<'static>, Problem> {
    let points = Selector::from(place.name.as_str()).resolve(firing)?;
    let mut edit = Edit::new(place.clone(), change, texts.clone());
    let dims = model.dims();
    let shape = |point: HookPoint| point.axes().iter().map(|&axis| dims.len_of(axis)).collect::<Vec<_>>();
    for &point in &points {
        edit.check(point, &shape(point))?;
    }
    Ok(Hook::try_edit(place.name.as_str(), move |x: AnyTensor, context: &mut HookContext<'_>| {
        Ok::<_, Infallible>(edit.apply(x, context.point, context.pos_offset))
    }))
}
