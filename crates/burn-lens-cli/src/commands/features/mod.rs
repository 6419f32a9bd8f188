//! `burn-lens features`: what the features of a dictionary mean.

mod args;
mod merge;
mod output;
mod run;
mod setup;
mod show;
mod source;

pub(crate) use args::FeaturesArgs;

use crate::{error::CliError, progress::Progress, report::Report};
use args::FeaturesCommand;

/// Runs one of the commands.
pub(crate) fn features(args: &FeaturesArgs, progress: &Progress) -> Result<Report, CliError> {
    match &args.command {
        FeaturesCommand::Run(args) => run::run(args, progress),
        FeaturesCommand::Merge(args) => merge::merge(args, progress),
        FeaturesCommand::Show(args) => show::show(args, progress),
    }
}
