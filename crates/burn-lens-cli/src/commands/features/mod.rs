//! `burn-lens features`: what the features of a dictionary mean.

mod args;
mod merge;
mod output;
mod prompt;
mod run;
mod setup;
mod show;
mod source;

pub(crate) use args::FeaturesArgs;

use std::time::{Duration, Instant};

use crate::{
    error::CliError,
    progress::{Counter, Progress},
    report::Report,
};
use args::FeaturesCommand;

/// Runs one of the commands.
pub(crate) fn features(args: &FeaturesArgs, progress: &Progress) -> Result<Report, CliError> {
    match &args.command {
        FeaturesCommand::Run(args) => run::run(args, progress),
        FeaturesCommand::Merge(args) => merge::merge(args, progress),
        FeaturesCommand::Show(args) => show::show(args, progress),
        FeaturesCommand::Prompt(args) => prompt::prompt(args, progress),
    }
}

/// A count that says how far it is now and then: beside the bar, or as a line in a log.
struct Paced {
    counter: Counter,
    what: &'static str,
    total: usize,
    begun: Instant,
    said: Instant,
}

impl Paced {
    fn new(progress: &Progress, what: &'static str, total: usize) -> Self {
        let now = Instant::now();
        Self { counter: progress.counter(what, total), what, total, begun: now, said: now }
    }

    fn at(&mut self, done: usize) {
        /// Between two lines.
        const PAUSE: Duration = Duration::from_secs(10);
        self.counter.at(done);
        if done > 0 && self.said.elapsed() >= PAUSE {
            self.said = Instant::now();
            let left = self.begun.elapsed().as_secs_f64() * (self.total as f64 / done as f64 - 1.0);
            self.counter.say(&format!("{done} of {} {}, about {left:.0} s left", self.total, self.what));
        }
    }
}
