//! The `burn-lens` command.
//!
//! Each command turns arguments into a [`Report`], which is printed at one place, as text or as
//! JSON. Results go to standard output; progress, notes and errors to standard error.

mod allocator;
mod answers;
mod args;
mod commands;
mod edits;
mod error;
mod files;
mod load;
mod measure;
mod next_tokens;
mod progress;
mod prompts;
mod report;

use std::{
    io::{self, Write as _},
    panic,
    process::ExitCode,
};

use clap::Parser as _;

use args::{Cli, Command};
use error::CliError;
use progress::Progress;
use report::Report;

fn main() -> ExitCode {
    allocator::keep_memory();
    let cli = Cli::parse(); // exits with 2 where the arguments make no sense
    panic::set_hook(Box::new(|info| {
        let _ = writeln!(anstream::stderr(), "{}", error::internal(info));
    }));
    let progress = Progress::new(cli.quiet);
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| in_pool(&cli, &progress)));
    progress.clear();
    match outcome {
        Ok(Ok(report)) => finish(print(&report, cli.json)),
        Ok(Err(error)) => fail(&error),
        Err(_) => ExitCode::FAILURE, // the hook has said why
    }
}

/// Runs on a thread of the pool: kernels start dozens of parallel regions for each token, and one that is started from
/// outside has to wake two threads.
fn in_pool(cli: &Cli, progress: &Progress) -> Result<Report, CliError> {
    rayon::scope(|_| run(cli, progress))
}

fn run(cli: &Cli, progress: &Progress) -> Result<Report, CliError> {
    match &cli.command {
        Command::Demo(args) => commands::demo(args, progress),
        Command::Info(args) => commands::info(args, progress),
        Command::Hooks(args) => commands::hooks(args, progress),
        Command::Generate(args) => commands::generate(args, progress),
        Command::Run(args) => commands::run(args, progress),
        Command::Attribute(args) => commands::attribute(args, progress),
        Command::Lens(args) => commands::lens(args, progress),
        Command::Patch(args) => commands::patch(args, progress),
        Command::Edges(args) => commands::edges(args, progress),
        Command::Ablate(args) => commands::ablate(args, progress),
        Command::Steer(args) => commands::steer(args, progress),
        Command::Heads(args) => commands::heads(args, progress),
        Command::Circuits(args) => commands::circuits(args, progress),
        Command::Features(args) => commands::features(args, progress),
        Command::Sae(args) => commands::sae(args, progress),
        Command::Train(args) => commands::train(args, progress),
        Command::AttentionClusters(args) => commands::attention_clusters(args, progress),
        Command::Convert(args) => commands::convert(args, progress),
        Command::Devices => Ok(commands::devices()),
        Command::Completions(args) => Ok(commands::completions(args)),
    }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &report.json).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(report.text.as_bytes())?;
    }
    out.flush()
}

/// A reader that has seen enough, such as `head`, is no failure.
fn finish(printed: io::Result<()>) -> ExitCode {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&CliError::Output(error)),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: &CliError) -> ExitCode {
    // There is nowhere left to say that standard error is gone.
    let _ = write!(anstream::stderr(), "{}", error.report());
    ExitCode::FAILURE
}
