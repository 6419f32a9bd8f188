//! The hooks inside a dictionary that is spliced into a model, under SAELens's names.

use crate::{
    Axis::{self, Batch, Feature, Pos, SaeIn, SaeOut},
    HookPoint,
    hook_point::Site,
};

/// The hook at which a dictionary is spliced in: for a transcoder, the one that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaeHost(Site);

impl SaeHost {
    /// A hook as host; `None` for one that is itself inside a dictionary.
    #[must_use]
    pub fn new(point: HookPoint) -> Option<Self> {
        Site::of(point).map(Self)
    }

    /// The hook.
    #[must_use]
    pub fn point(self) -> HookPoint {
        self.0.point()
    }
}

/// A place inside a dictionary, in firing order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SaeHook {
    /// `hook_sae_input`
    Input,
    /// `hook_sae_acts_pre`
    ActsPre,
    /// `hook_sae_acts_post`
    ActsPost,
    /// `hook_sae_recons`
    Recons,
    /// `hook_sae_error`
    Error,
    /// `hook_sae_output`
    Output,
}

impl SaeHook {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Input, Self::ActsPre, Self::ActsPost, Self::Recons, Self::Error, Self::Output];

    /// The last part of its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "hook_sae_input",
            Self::ActsPre => "hook_sae_acts_pre",
            Self::ActsPost => "hook_sae_acts_post",
            Self::Recons => "hook_sae_recons",
            Self::Error => "hook_sae_error",
            Self::Output => "hook_sae_output",
        }
    }

    /// What it holds, in a sentence.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Input => "what a dictionary reads, heads side by side, before it is normalised",
            Self::ActsPre => "pre-activations of features",
            Self::ActsPost => "activations of features",
            Self::Recons => "reconstruction, before the normalisation is undone",
            Self::Error => "what the reconstruction lacks",
            Self::Output => "what takes the place of the activation",
        }
    }

    /// Its axes, in a dictionary at `host`.
    #[must_use]
    pub fn axes(self, host: HookPoint) -> &'static [Axis] {
        match self {
            Self::Input => &[Batch, Pos, SaeIn],
            Self::ActsPre | Self::ActsPost => &[Batch, Pos, Feature],
            Self::Recons => &[Batch, Pos, SaeOut],
            Self::Error | Self::Output => host.axes(),
        }
    }
}
