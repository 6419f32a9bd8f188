//! The command as a user runs it: the built binary, its output and its exit code.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "ids and masks are small whole numbers"
)]

mod demo;
mod describe;
mod edits;
mod errors;
mod generate;
mod run;
mod support;
