//! Dictionaries that are installed on a model, in passes of single blocks.

use burn_lens_hooks::{HookPoint, HookedModel, SaeHook, SaeHost, Wiring};

use super::plan::{Entry, entry};

/// The hooks behind which something is spliced in.
#[derive(Debug, Default)]
pub(super) struct Spliced(Vec<HookPoint>);

impl Spliced {
    /// `None` where a pass of single blocks would not be what a whole run is: other hooks are installed,
    /// or something stands between the stream and the keys and values, which are computed without hooks.
    pub(super) fn of<M: HookedModel + ?Sized>(model: &M, wiring: &Wiring) -> Option<Self> {
        let Some(registry) = model.registry() else { return Some(Self::default()) };
        let fits = |(host, fires): (HookPoint, Vec<HookPoint>)| {
            host.layer()?;
            let fits = match host {
                HookPoint::ResidPre(layer) => fires.contains(&output(layer)?),
                host => entry(host, wiring, &model.dims()) != Entry::Pre,
            };
            fits.then_some(host)
        };
        registry.splices_by_position()?.into_iter().map(fits).collect::<Option<_>>().map(Self)
    }

    /// Whether anything is spliced into a block.
    pub(super) fn has_layer(&self, layer: usize) -> bool {
        self.0.iter().any(|host| host.layer() == Some(layer))
    }

    /// Whether something is spliced in at a hook.
    pub(super) fn has(&self, host: HookPoint) -> bool {
        self.0.contains(&host)
    }

    /// The hook that holds what attention and the stream of a block go on from: its input, or what
    /// took its place.
    pub(super) fn entering(&self, layer: usize) -> HookPoint {
        let point = HookPoint::ResidPre(layer);
        if self.has(point) { output(layer).unwrap_or(point) } else { point }
    }
}

/// What takes the place of the stream that enters a block.
fn output(layer: usize) -> Option<HookPoint> {
    SaeHost::new(HookPoint::ResidPre(layer)).map(|host| HookPoint::Sae(host, SaeHook::Output))
}
