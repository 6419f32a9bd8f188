//! The commands, a module each.

mod ablate;
mod attribute;
mod circuits;
mod clusters;
mod completions;
mod convert;
mod demo;
mod devices;
mod features;
mod generate;
mod heads;
mod hooks;
mod info;
mod lens;
mod patch;
mod run;
mod steer;
mod train;

pub(crate) use ablate::{AblateArgs, ablate};
pub(crate) use attribute::{AttributeArgs, attribute};
pub(crate) use circuits::{CircuitsArgs, circuits};
pub(crate) use clusters::{ClustersArgs, attention_clusters};
pub(crate) use completions::completions;
pub(crate) use convert::{ConvertArgs, convert};
pub(crate) use demo::demo;
pub(crate) use devices::devices;
pub(crate) use features::{FeaturesArgs, features};
pub(crate) use generate::generate;
pub(crate) use heads::{HeadsArgs, heads};
pub(crate) use hooks::hooks;
pub(crate) use info::info;
pub(crate) use lens::{LensArgs, lens};
pub(crate) use patch::{PatchArgs, patch};
pub(crate) use run::run;
pub(crate) use steer::{SteerArgs, steer};
pub(crate) use train::{TrainArgs, train};
