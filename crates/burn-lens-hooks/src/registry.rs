//! Hooks that outlive a call: for a scope, until removed, or permanent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    HookPoint,
    hook::{Action, ContextValues, ForwardFn, GradFn, Hook, Splice, SpliceFn},
    selector::Selector,
};

/// Names an installed hook, to remove it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HookId(u64);

#[derive(Clone)]
pub(crate) enum Installed {
    Forward(Arc<Mutex<Box<ForwardFn<'static>>>>),
    Gradient(Arc<GradFn>),
    Splice(Splice, Arc<Mutex<Box<SpliceFn<'static>>>>),
}

#[derive(Clone)]
struct Entry {
    id: HookId,
    selector: Selector,
    action: Installed,
    prepend: bool,
    permanent: bool,
}

#[derive(Default)]
struct State {
    next: u64,
    entries: Vec<Entry>,
    contexts: HashMap<HookPoint, ContextValues>,
}

/// The hooks installed on one model. Cloning a model gives it an empty registry.
#[derive(Default)]
pub struct HookRegistry(Mutex<State>);

impl HookRegistry {
    /// A panic in somebody's hook leaves the list itself intact, so a poisoned lock is usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn install(&self, hook: Hook<'static>, permanent: bool) -> HookId {
        let mut state = self.state();
        let id = HookId(state.next);
        state.next += 1;
        let action = match hook.action {
            Action::Forward(f) => Installed::Forward(Arc::new(Mutex::new(f))),
            Action::Gradient(f) => Installed::Gradient(f),
            Action::Splice(splice, f) => Installed::Splice(splice, Arc::new(Mutex::new(f))),
        };
        let entry = Entry { id, selector: hook.selector, action, prepend: hook.prepend, permanent };
        state.entries.push(entry);
        id
    }

    /// Removes one hook; whether it was there.
    pub fn remove(&self, id: HookId) -> bool {
        let mut state = self.state();
        let before = state.entries.len();
        state.entries.retain(|entry| entry.id != id);
        state.entries.len() < before
    }

    /// Removes every hook, the permanent ones only on request, and clears the contexts.
    pub fn reset(&self, including_permanent: bool) {
        let mut state = self.state();
        state.entries.retain(|entry| entry.permanent && !including_permanent);
        state.contexts.clear();
    }

    /// Forgets the values that hooks kept.
    pub fn clear_contexts(&self) {
        self.state().contexts.clear();
    }

    /// How many hooks are installed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether no hook is installed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where something is spliced in, and what fires there, if nothing else is installed and all of it
    /// works position by position ([`Hook::by_position`]): what a partial pass can have, too.
    #[must_use]
    pub fn splices_by_position(&self) -> Option<Vec<(HookPoint, Vec<HookPoint>)>> {
        let state = self.state();
        let splices = state.entries.iter().map(|entry| match &entry.action {
            Installed::Splice(splice, _) if splice.by_position => Some((splice.host, splice.fires.clone())),
            _ => None,
        });
        splices.collect()
    }

    pub(crate) fn installed(&self) -> Vec<(Selector, Installed, bool)> {
        let state = self.state();
        state.entries.iter().map(|e| (e.selector.clone(), e.action.clone(), e.prepend)).collect()
    }

    pub(crate) fn take_contexts(&self) -> HashMap<HookPoint, ContextValues> {
        std::mem::take(&mut self.state().contexts)
    }

    pub(crate) fn put_contexts(&self, contexts: HashMap<HookPoint, ContextValues>) {
        self.state().contexts.extend(contexts);
    }
}

impl Clone for HookRegistry {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for HookRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HookRegistry({} hooks)", self.len())
    }
}

/// Keeps hooks installed while it lives.
#[derive(Debug)]
#[must_use = "the hooks are removed when this is dropped"]
pub struct HookScope<'m> {
    pub(crate) registry: &'m HookRegistry,
    pub(crate) ids: Vec<HookId>,
}

impl Drop for HookScope<'_> {
    fn drop(&mut self) {
        for &id in &self.ids {
            self.registry.remove(id);
        }
    }
}
