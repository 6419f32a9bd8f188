//! The commands, a module each.

mod completions;
mod demo;
mod devices;
mod generate;
mod hooks;
mod info;
mod run;

pub(crate) use completions::completions;
pub(crate) use demo::demo;
pub(crate) use devices::devices;
pub(crate) use generate::generate;
pub(crate) use hooks::hooks;
pub(crate) use info::info;
pub(crate) use run::run;
