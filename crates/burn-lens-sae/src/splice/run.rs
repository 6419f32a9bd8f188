//! What one dictionary does in one run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Bool, Int, Tensor};
use burn_lens_hooks::{HookPoint, Hooks, RunError, SaeHook, SaeHost};
use burn_lens_tensor::AnyTensor;

use super::{SplicedSae, vectors::Vectors};
use crate::{Codes, Prepared};

/// What a run has shown so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// `[batch, pos]`
    pub(super) tokens: Option<Tensor<2, Int>>,
    /// What a transcoder reads, `[batch, pos, d_in]`.
    pub(super) read: Option<Tensor<3>>,
}

pub(super) fn seen(state: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One dictionary in one run.
pub(super) struct Run {
    pub(super) spliced: SplicedSae,
    pub(super) host: SaeHost,
    pub(super) transcodes: bool,
    pub(super) state: Arc<Mutex<Seen>>,
}

/// What encoding with hooks gave.
struct Encoded {
    /// The input before and after its hooks.
    input: Tensor<3>,
    edited: Tensor<3>,
    prepared: Prepared,
    /// Before the hooks on activations.
    codes: Codes,
    acts: Tensor<3>,
    input_changed: bool,
    pre_changed: bool,
    acts_changed: bool,
}

impl Run {
    fn point(&self, hook: SaeHook) -> HookPoint {
        HookPoint::Sae(self.host, hook)
    }

    pub(super) fn fires(&self) -> Vec<HookPoint> {
        let fires = |hook: &SaeHook| match hook {
            SaeHook::ActsPre => self.spliced.sae.has_pre_acts(),
            SaeHook::Error => self.spliced.use_error_term,
            _ => true,
        };
        SaeHook::ALL.iter().filter(|hook| fires(hook)).map(|&hook| self.point(hook)).collect()
    }

    pub(super) fn at(&self, x: AnyTensor, hooks: &mut Hooks<'_>) -> Result<Option<AnyTensor>, RunError> {
        let sae = &*self.spliced.sae;
        if sae.reads_context() && hooks.pos_offset() > 0 {
            return Err(RunError::Options(format!(
                "{} codes a position by those before it, which a key-value cache leaves out: run without one \
                 (--no-kv-cache)",
                sae.config().name
            )));
        }
        let head = sae.config().head;
        let y = Vectors::of(x, self.host.point(), head)?;
        let read = match seen(&self.state).read.take() {
            Some(read) if self.transcodes => read,
            _ => y.x.clone(),
        };
        let dtype = sae.base().w_dec.dtype();
        let encoded = self.encode(read.cast(dtype), hooks);
        let out = if self.spliced.use_error_term {
            self.with_error(&encoded, &y, hooks)
        } else {
            let recons = sae.recons(&encoded.live());
            let recons = hooks.at(self.point(SaeHook::Recons), recons);
            let out = self.finished(&encoded.prepared, &encoded.edited, recons).cast(y.x.dtype());
            Some(self.past_excluded(out, &y.x))
        };
        let changed = out.is_some();
        let out = y.restored(out.unwrap_or_else(|| y.x.clone()));
        let (out, edited) = hooks.at_changed(self.point(SaeHook::Output), out);
        Ok((changed || edited).then_some(out))
    }

    fn encode(&self, input: Tensor<3>, hooks: &mut Hooks<'_>) -> Encoded {
        let sae = &*self.spliced.sae;
        let (edited, input_changed) = hooks.at_changed(self.point(SaeHook::Input), input.clone());
        let prepared = sae.prepare(edited.clone());
        let mut pre_changed = false;
        let codes = sae.codes(prepared.x.clone(), &mut |pre| {
            let (pre, changed) = hooks.at_changed(self.point(SaeHook::ActsPre), pre);
            pre_changed |= changed;
            pre
        });
        let (acts, acts_changed) = hooks.at_changed(self.point(SaeHook::ActsPost), codes.acts.clone());
        Encoded { input, edited, prepared, codes, acts, input_changed, pre_changed, acts_changed }
    }

    /// A reconstruction as it is at the hook, with what skips the features.
    fn finished(&self, prepared: &Prepared, input: &Tensor<3>, recons: Tensor<3>) -> Tensor<3> {
        let out = prepared.undo(recons);
        match self.spliced.sae.skip(input) {
            Some(skip) => out + skip,
            None => out,
        }
    }

    /// The activation, and whatever hooks changed; `None` where that is nothing.
    ///
    /// Nothing is added and taken away again: the decoder is linear, so what an edit of activations
    /// changes is their difference, decoded. Gradients reach the activation only through the
    /// features, as in SAELens, where the error is no part of the graph.
    fn with_error(&self, encoded: &Encoded, y: &Vectors, hooks: &mut Hooks<'_>) -> Option<Tensor<3>> {
        let sae = &*self.spliced.sae;
        let tracked = [&y.x, &encoded.acts, &encoded.prepared.x].iter().any(|x| x.is_tracked());
        let edited = encoded.input_changed || encoded.pre_changed || encoded.acts_changed;
        let recons = self.point(SaeHook::Recons);
        let whole = tracked || encoded.input_changed || hooks.wants(recons);
        let live = whole.then(|| sae.recons(&encoded.live()));
        let clean = |encoded: &Encoded| self.clean(encoded, if edited { None } else { live.clone() });
        let (hooked, recons_changed) = match live.clone() {
            Some(live) => {
                let (hooked, changed) = hooks.at_changed(recons, live);
                (Some(hooked), changed)
            }
            None => (None, false),
        };
        let mut delta = match (hooked, &live) {
            (Some(hooked), Some(_)) if tracked || encoded.input_changed => {
                let out = self.finished(&encoded.prepared, &encoded.edited, hooked);
                Some(out - clean(encoded).detach())
            }
            (Some(hooked), Some(live)) if recons_changed => {
                let difference = self.edit(encoded) + (hooked - live.clone());
                Some(encoded.prepared.undo_linear(difference))
            }
            _ => edited.then(|| encoded.prepared.undo_linear(self.edit(encoded))),
        };
        let point = self.point(SaeHook::Error);
        if hooks.wants(point) {
            let error = y.x.clone().cast(encoded.acts.dtype()).detach() - clean(encoded).detach();
            let error = self.masked(error);
            let (hooked, changed) = hooks.at_changed(point, y.alone(error.clone().cast(y.x.dtype())));
            if let (true, Ok(hooked)) = (changed, Vectors::of(hooked, point, sae.config().head)) {
                let change = hooked.x.cast(encoded.acts.dtype()) - error;
                delta = Some(delta.map_or(change.clone(), |delta| delta + change));
            }
        }
        let delta = self.masked(delta?).cast(y.x.dtype());
        let kept = if tracked { y.x.clone().detach() } else { y.x.clone() };
        Some(self.past_excluded(kept + delta, &y.x))
    }

    /// What the edits of activations change, decoded.
    fn edit(&self, encoded: &Encoded) -> Tensor<3> {
        let before = if encoded.pre_changed { self.codes_of(&encoded.input) } else { encoded.codes.clone() };
        self.spliced.sae.decode_linear(encoded.acts.clone() - before.acts)
    }

    fn codes_of(&self, input: &Tensor<3>) -> Codes {
        let sae = &*self.spliced.sae;
        sae.codes(sae.prepare(input.clone()).x, &mut |pre| pre)
    }

    /// What the dictionary makes of its input without any hook; `live` where no hook changed it.
    fn clean(&self, encoded: &Encoded, live: Option<Tensor<3>>) -> Tensor<3> {
        let sae = &*self.spliced.sae;
        let prepared = sae.prepare(encoded.input.clone());
        let recons = live.unwrap_or_else(|| {
            let unedited = !encoded.input_changed && !encoded.pre_changed;
            let codes = if unedited { encoded.codes.clone() } else { self.codes_of(&encoded.input) };
            sae.recons(&codes)
        });
        self.finished(&prepared, &encoded.input, recons)
    }

    /// Where the activation passes by the dictionary, `[batch, pos, 1]`.
    fn excluded(&self) -> Option<Tensor<3, Bool>> {
        let tokens = seen(&self.state).tokens.clone()?;
        let at = |&token: &i64| tokens.clone().equal_elem(token);
        let mask = self.spliced.exclude_tokens.iter().map(at).reduce(Tensor::bool_or)?;
        Some(mask.unsqueeze_dim(2))
    }

    /// Zero where the activation passes.
    fn masked(&self, x: Tensor<3>) -> Tensor<3> {
        match self.excluded() {
            Some(mask) => {
                let dims = x.dims();
                x.mask_fill(mask.expand(dims), 0.0)
            }
            None => x,
        }
    }

    /// `y` where the activation passes.
    fn past_excluded(&self, out: Tensor<3>, y: &Tensor<3>) -> Tensor<3> {
        match self.excluded() {
            Some(mask) => {
                let dims = out.dims();
                out.mask_where(mask.expand(dims), y.clone())
            }
            None => out,
        }
    }
}

impl Encoded {
    /// The codes after their hooks.
    fn live(&self) -> Codes {
        Codes { acts: self.acts.clone(), predicted: self.codes.predicted.clone() }
    }
}
