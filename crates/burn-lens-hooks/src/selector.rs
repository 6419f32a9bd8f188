//! Which hooks: a name, a glob or a predicate.

use std::{fmt, sync::Arc};

use burn_lens_tensor::nearest;
use globset::GlobBuilder;

use crate::{Hook, HookPoint, RunError, get_act_name, hook::Splice};

/// Chooses hook points: by exact name (`blocks.3.attn.hook_pattern`, or short: `pattern3`), by
/// glob (`blocks.*.attn.hook_z`, `blocks.{0,2}.hook_resid_*`) or by predicate.
///
/// Globs and predicates choose among the hooks that always fire. An optional hook, such as
/// `hook_result`, is chosen where its own name is spelt out (`blocks.*.attn.hook_result`), or
/// where nothing else matches.
#[derive(Clone)]
pub struct Selector(Kind);

#[derive(Clone)]
enum Kind {
    Point(HookPoint),
    /// A name or a glob, as the user wrote it.
    Text(String),
    Predicate(Arc<dyn Fn(HookPoint) -> bool + Send + Sync>),
}

/// The hooks that a model can fire.
#[derive(Clone, Debug, Default)]
pub struct Firing {
    /// Those that fire in every run, in firing order.
    pub always: Vec<HookPoint>,
    /// Those that fire when asked for, in firing order.
    pub optional: Vec<HookPoint>,
    /// Those that the model has, but that this run does not reach.
    pub unreached: Vec<HookPoint>,
}

impl Firing {
    /// Moves the points that `reached` refuses to `unreached`.
    #[must_use]
    pub fn within(self, reached: impl Fn(HookPoint) -> bool) -> Self {
        let Self { always, optional, mut unreached } = self;
        let mut keep = |points: Vec<HookPoint>| -> Vec<HookPoint> {
            let (kept, cut) = points.into_iter().partition(|&point| reached(point));
            unreached.extend::<Vec<HookPoint>>(cut);
            kept
        };
        let (always, optional) = (keep(always), keep(optional));
        Self { always, optional, unreached }
    }

    /// With what `hooks` splice in: what a run with them fires.
    ///
    /// # Errors
    ///
    /// If two of them would fire the same point.
    pub fn with_hooks(self, hooks: &[Hook<'_>]) -> Result<Self, RunError> {
        self.with_splices(hooks.iter().filter_map(Hook::spliced))
    }

    /// With what is spliced in at hooks that this fires, right behind each.
    pub(crate) fn with_splices<'s>(
        mut self,
        splices: impl IntoIterator<Item = &'s Splice>,
    ) -> Result<Self, RunError> {
        for Splice { host, fires, .. } in splices {
            if let Some(point) = fires.iter().find(|point| self.always.contains(point)) {
                return Err(RunError::Options(format!(
                    "two dictionaries are to be spliced in at one hook: `{point}` would fire twice"
                )));
            }
            if let Some(at) = self.always.iter().position(|point| point == host) {
                let behind = self.always.split_off(at + 1);
                self.always.extend(fires.iter().copied().chain(behind));
            } else if self.optional.contains(host) {
                self.always.extend(fires);
            } else {
                self.unreached.extend(fires);
            }
        }
        Ok(self)
    }

    fn find(&self, point: HookPoint) -> Result<HookPoint, RunError> {
        if self.always.contains(&point) || self.optional.contains(&point) {
            return Ok(point);
        }
        let all = self.always.iter().chain(&self.optional);
        if self.unreached.contains(&point) {
            return Err(RunError::CannotFire {
                point,
                reason: "this run does not reach it (see its input, start_at_layer, stop_at_layer and return type)"
                    .to_owned(),
                nearest: Vec::new(),
            });
        }
        let every = all.clone().chain(&self.unreached);
        let layers = every.filter_map(|point| point.layer()).max().map_or(0, |last| last + 1);
        let reason = match point.layer() {
            Some(layer) if layer >= layers => format!("the model has {layers} layers"),
            _ => "this model computes no such activation".to_owned(),
        };
        Err(RunError::CannotFire {
            point,
            reason,
            nearest: nearest(&point.to_string(), all.map(ToString::to_string)),
        })
    }
}

impl Selector {
    /// The hooks for which `choose` is true.
    pub fn matching(choose: impl Fn(HookPoint) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::Predicate(Arc::new(choose)))
    }

    /// The hooks that this selects in a model that fires `firing`.
    ///
    /// # Errors
    ///
    /// If a name is unknown or cannot fire in this model, a glob does not parse, or a glob or
    /// predicate selects nothing.
    pub fn resolve(&self, firing: &Firing) -> Result<Vec<HookPoint>, RunError> {
        match &self.0 {
            Kind::Point(point) => Ok(vec![firing.find(*point)?]),
            Kind::Text(text) if text.contains(['*', '?', '[', '{']) => resolve_glob(text, firing),
            Kind::Text(text) => Ok(vec![firing.find(get_act_name(text, None, None).parse()?)?]),
            Kind::Predicate(choose) => choose_from(firing, "the predicate", |point| choose(point), |_| false),
        }
    }
}

fn resolve_glob(text: &str, firing: &Firing) -> Result<Vec<HookPoint>, RunError> {
    let glob = GlobBuilder::new(text)
        .build()
        .map_err(|error| RunError::Pattern { pattern: text.to_owned(), reason: error.kind().to_string() })?
        .compile_matcher();
    // `blocks.*.attn.hook_{z,result}` and `*hook_result` name the hook; `blocks.*` does not.
    let last = text.rsplit('.').next().unwrap_or(text);
    let spelt_out = |point: HookPoint| {
        let name = point.kind_name();
        !last.contains(['*', '?', '[']) || text.contains(name.rsplit('.').next().unwrap_or(name))
    };
    choose_from(firing, text, |point| glob.is_match(point.to_string()), spelt_out)
}

fn choose_from(
    firing: &Firing,
    pattern: &str,
    choose: impl Fn(HookPoint) -> bool,
    with_optional: impl Fn(HookPoint) -> bool,
) -> Result<Vec<HookPoint>, RunError> {
    let mut chosen: Vec<HookPoint> = firing.always.iter().copied().filter(|&point| choose(point)).collect();
    let optional: Vec<HookPoint> = firing.optional.iter().copied().filter(|&point| choose(point)).collect();
    if chosen.is_empty() {
        chosen = optional;
    } else {
        chosen.extend(optional.into_iter().filter(|&point| with_optional(point)));
    }
    if chosen.is_empty() {
        return Err(RunError::NoMatch { pattern: pattern.to_owned() });
    }
    Ok(chosen)
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Point(point) => write!(f, "Selector({point})"),
            Kind::Text(text) => write!(f, "Selector({text})"),
            Kind::Predicate(_) => f.write_str("Selector(predicate)"),
        }
    }
}

impl From<HookPoint> for Selector {
    fn from(point: HookPoint) -> Self {
        Self(Kind::Point(point))
    }
}

impl From<&str> for Selector {
    fn from(text: &str) -> Self {
        Self(Kind::Text(text.to_owned()))
    }
}

impl From<String> for Selector {
    fn from(text: String) -> Self {
        Self(Kind::Text(text))
    }
}
