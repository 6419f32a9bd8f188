//! What a run will cost, said before it is paid.

use std::{fmt, time::Instant};

use burn_lens_train::{Batches as _, Trainer};
use serde_json::json;

use super::folder::Setup;
use crate::{
    error::CliError,
    report::{Report, bytes, grouped},
};

/// What a run will cost.
pub(super) struct Cost {
    parameters: usize,
    steps: usize,
    batch: usize,
    positions: usize,
    seconds: f64,
    disk: u64,
}

impl Cost {
    /// Takes a few steps with a copy, to see how long one takes.
    pub(super) fn measure(setup: &Setup, trainer: &Trainer) -> Result<Self, CliError> {
        /// The first is slower than those that follow.
        const TRIED: usize = 3;
        let recipe = &setup.recipe;
        let (mut copy, mut data) = (trainer.clone(), recipe.episodes()?);
        let mut fastest = f64::INFINITY;
        for step in 0..TRIED {
            let start = Instant::now();
            copy.step(&data.batch(step))?;
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        let steps = recipe.training.steps;
        let parameters = trainer.parameters().num_params();
        let models = setup.checkpoint_every.map_or(0, |every| steps.div_ceil(every)) + 1;
        // Each model is 4 bytes a weight; the state is weights and two moments.
        let disk = 4 * parameters as u64 * (models as u64 + 3);
        let (batch, positions) = (recipe.batch, recipe.problem.positions());
        Ok(Self { parameters, steps, batch, positions, seconds: fastest * steps as f64, disk })
    }

    /// As the result of a run that is not made.
    pub(super) fn report(&self, setup: &Setup) -> Report {
        let mut report = Report::default();
        report.line(self);
        report.json = json!({
            "parameters": self.parameters, "steps": self.steps, "seconds": self.seconds,
            "disk_bytes": self.disk, "training": setup,
        });
        report
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} parameters, {} steps of {} sequences of {} positions: about {}, and {} on disk",
            grouped(self.parameters),
            grouped(self.steps),
            grouped(self.batch),
            self.positions,
            duration(self.seconds),
            bytes(self.disk),
        )
    }
}

/// Seconds, in the unit that suits them.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
