//! Analyses of a transformer, written against [`HookedModel`](burn_lens_hooks::HookedModel) and
//! [`ActivationCache`](burn_lens_hooks::ActivationCache) alone: they run on any model that
//! implements the trait.
