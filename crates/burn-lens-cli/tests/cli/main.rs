//! The command as a user runs it: the built binary, its output and its exit code.

mod attribute;
mod causal;
mod circuits;
mod clusters;
mod convert;
mod demo;
mod describe;
mod edits;
mod errors;
mod features;
mod features_page;
mod generate;
mod run;
mod sae;
mod support;
mod train;
mod walk_through;
