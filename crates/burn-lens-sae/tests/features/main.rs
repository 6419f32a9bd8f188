//! Feature data against a slow reference, against the faults of other tools, and against itself.

mod common;
mod dictionaries;
mod faults;
mod formats;
mod invariance;
mod reference;
