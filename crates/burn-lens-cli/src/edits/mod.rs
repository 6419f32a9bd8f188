//! Interventions from the command line: what they say, whether they fit, what they do.

mod apply;
mod error;
mod spec;
mod texts;
mod vector;

use std::convert::Infallible;

use burn_lens::{
    Pretrained,
    hooks::{Axis, Firing, Hook, HookContext, HookPoint, HookedModel as _, ModelDims, Selector},
    sae::{SaeOptions, SplicedSae, sae_hooks},
    tensor::{AnyTensor, FloatType},
};

use crate::{args::EditArgs, error::CliError, load::load_sae, progress::Progress, prompts};
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
        self.ablate.is_empty() && self.scale.is_empty() && self.add.is_empty() && self.sae.is_empty()
    }

    /// The interventions as the user wrote them.
    pub(crate) fn texts(&self) -> Vec<String> {
        let ablate = self.ablate.iter().map(|ablation| format!("--ablate {}", ablation.text));
        let scale = self.scale.iter().map(|scaling| format!("--scale {}", scaling.text));
        let add = self.add.iter().map(|addition| format!("--add {}", addition.text));
        let sae = self.sae.iter().map(|sae| format!("--sae {}", sae.display()));
        let flags = [("--no-error-term", self.no_error_term), ("--exclude-special", self.exclude_special)];
        let flags = flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag.to_owned());
        sae.chain(flags).chain(ablate).chain(scale).chain(add).collect()
    }

    /// Hooks for a run on `texts`: dictionaries, then ablations, scalings and additions.
    ///
    /// # Errors
    ///
    /// If one does not fit the model or the texts; the error names it and the part.
    pub(crate) fn hooks(
        &self,
        lens: &Pretrained,
        texts: &Texts,
        progress: &Progress,
    ) -> Result<Vec<Hook<'static>>, CliError> {
        let saes = self.saes(lens, progress)?;
        let mut hooks = sae_hooks(&lens.model, &saes)?;
        let firing = lens.model.firing().with_hooks(&hooks)?;
        let target = Target { firing, dims: lens.model.dims(), saes: &saes, texts };
        for ablation in &self.ablate {
            let change = if ablation.mean { Change::Mean } else { Change::Zero };
            let hook = target.hook(&ablation.place, change);
            hooks.push(hook.map_err(|problem| EditError::new("--ablate", &ablation.text, problem))?);
        }
        for scaling in &self.scale {
            let hook = target.hook(&scaling.place, Change::Scale(scaling.factor));
            hooks.push(hook.map_err(|problem| EditError::new("--scale", &scaling.text, problem))?);
        }
        for addition in &self.add {
            let hook = Vector::read(&addition.file, addition.tensor.as_deref(), addition.factor)
                .and_then(|vector| target.hook(&addition.place, Change::Add(vector)));
            hooks.push(hook.map_err(|problem| EditError::new("--add", &addition.text, problem))?);
        }
        Ok(hooks)
    }

    fn saes(&self, lens: &Pretrained, progress: &Progress) -> Result<Vec<SplicedSae>, CliError> {
        let excluded = if self.exclude_special { prompts::special(lens) } else { Vec::new() };
        // As the model, whose float type is always one of these.
        let dtype = FloatType::from_dtype(lens.model.dtype()).unwrap_or_default();
        let options = SaeOptions { dtype, ..SaeOptions::on(&lens.model.device()) };
        let spliced = |path| -> Result<SplicedSae, CliError> {
            let sae =
                SplicedSae::new(load_sae(path, &options, progress)?).excluding(excluded.iter().copied());
            Ok(SplicedSae { use_error_term: !self.no_error_term, ..sae })
        };
        self.sae.iter().map(spliced).collect()
    }
}

/// What interventions apply to.
struct Target<'t> {
    firing: Firing,
    dims: ModelDims,
    saes: &'t [SplicedSae],
    texts: &'t Texts,
}

impl Target<'_> {
    fn hook(&self, place: &Place, change: Change) -> Result<Hook<'static>, Problem> {
        let points = Selector::from(place.name.as_str()).resolve(&self.firing)?;
        let mut edit = Edit::new(place.clone(), change, self.texts.clone());
        for &point in &points {
            let lens: Vec<_> = point.axes().iter().map(|&axis| self.len_of(point, axis)).collect();
            edit.check(point, &lens)?;
        }
        Ok(Hook::try_edit(place.name.as_str(), move |x: AnyTensor, context: &mut HookContext<'_>| {
            Ok::<_, Infallible>(edit.apply(x, context.point, context.pos_offset))
        }))
    }

    /// How long an axis is, where model or dictionary fix it.
    fn len_of(&self, point: HookPoint, axis: Axis) -> Option<usize> {
        let HookPoint::Sae(host, _) = point else { return self.dims.len_of(axis) };
        let at_host = |sae: &&SplicedSae| sae.sae.config().hook_out().is_ok_and(|out| out == host.point());
        let config = self.saes.iter().find(at_host)?.sae.config();
        match axis {
            Axis::Feature => Some(config.d_sae),
            Axis::SaeIn => Some(config.d_in),
            Axis::SaeOut => Some(config.d_out),
            axis => self.dims.len_of(axis),
        }
    }
}
