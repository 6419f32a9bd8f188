//! Feature data against a slow reference, against the faults of other tools, and against itself.

mod common;
mod dictionaries;
mod faults;
mod faults_of_runs;
mod faults_table;
mod formats;
mod invariance;
mod reference;
