//! `burn-lens train`: models that learn a task from examples in their context.

mod args;
mod cost;
mod folder;
mod output;

use std::{ops::ControlFlow, time::Instant};

use burn_lens::{Error as LensError, burn::tensor::Device};
use burn_lens_train::{History, Trainer, in_context::evaluate};

pub(crate) use args::TrainArgs;
pub(crate) use folder::{Setup, checkpoints};

use crate::{error::CliError, progress::Progress, report::Report};
use args::{DeviceArgs, NewRunArgs, ResumeArgs, TrainCommand};
use burn_lens_train::in_context::Problem;
use cost::Cost;
use folder::RunFolder;

/// Trains a model, or goes on with one.
pub(crate) fn train(args: &TrainArgs, progress: &Progress) -> Result<Report, CliError> {
    match (&args.command, args.command.new_run()) {
        (TrainCommand::Resume(args), _) => resume(args, progress),
        (_, Some((problem, new))) => start(problem, new, progress),
        (_, None) => unreachable!("every other command starts a run"),
    }
}

fn device(args: &DeviceArgs) -> Result<Device, CliError> {
    Ok(args.device.open().map_err(LensError::from)?)
}

fn start(problem: Problem, new: &NewRunArgs, progress: &Progress) -> Result<Report, CliError> {
    let recipe = new.recipe(problem);
    let checkpoint_every = (new.checkpoints > 0).then(|| recipe.training.steps.div_ceil(new.checkpoints));
    let setup = Setup { recipe, checkpoint_every, test: new.test };
    setup.check()?;
    let device = device(&new.device)?;
    let trainer = setup.recipe.trainer(&device)?;
    let cost = Cost::measure(&setup, &trainer)?;
    if new.dry_run {
        return Ok(cost.report(&setup));
    }
    let folder = RunFolder::create(&new.out, &setup)?;
    progress.note(&cost.to_string());
    go(&folder, trainer, History::default(), progress)
}

fn resume(args: &ResumeArgs, progress: &Progress) -> Result<Report, CliError> {
    let folder = RunFolder::open(&args.out)?;
    let device = device(&args.device)?;
    let recipe = &folder.setup().recipe;
    let (trainer, history) = match folder.snapshot()? {
        None => (recipe.trainer(&device)?, History::default()),
        Some(snapshot) => {
            let step = snapshot.step()?;
            progress.note(&format!("going on behind step {step} of {}", recipe.training.steps));
            (recipe.resume(&snapshot, &device)?, folder.history(step)?)
        }
    };
    go(&folder, trainer, history, progress)
}

/// Takes the steps that are left, and compares the model with the baselines.
fn go(
    folder: &RunFolder,
    mut trainer: Trainer,
    mut history: History,
    progress: &Progress,
) -> Result<Report, CliError> {
    /// So many lines where there is no bar.
    const LINES: usize = 20;
    let setup = folder.setup();
    let steps = setup.recipe.training.steps;
    let (counter, start) = (progress.counter("steps", steps), Instant::now());
    let (mut first, mut failed) = (None, None);
    trainer.run(&mut setup.recipe.episodes()?, &mut |at| {
        history.push(at.metrics());
        let done = at.step + 1;
        let before = *first.get_or_insert(at.step);
        counter.at(done);
        if done.is_multiple_of(steps.div_ceil(LINES)) {
            let each = start.elapsed().as_secs_f64() / (done - before) as f64;
            let left = cost::duration(each * (steps - done) as f64);
            counter.say(&format!("step {done} of {steps}: loss {:.4}, {left} left", at.loss));
        }
        if folder.due(at)
            && let Err(error) = folder.checkpoint(at, &history)
        {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    drop(counter);
    if let Some(error) = failed {
        return Err(error);
    }
    let model = folder.finish(trainer.parameters())?;
    let step = progress.step("comparing with the baselines");
    let curves = evaluate(&model, &setup.recipe.problem, setup.recipe.training.seed, setup.test)?;
    drop(step);
    output::write(folder, &history, &curves)
}
