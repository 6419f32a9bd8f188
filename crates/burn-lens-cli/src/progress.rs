//! What a user sees while waiting: bars on a terminal, lines elsewhere, nothing if quiet.

use std::{
    collections::HashMap,
    io::{IsTerminal as _, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use burn_lens::io::{DownloadProgress, HubOptions};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::report::{HINT, bytes};

/// Where progress goes.
#[derive(Debug)]
pub(crate) struct Progress {
    mode: Mode,
}

#[derive(Clone, Debug)]
enum Mode {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

/// A step that ends when this is dropped.
#[must_use]
pub(crate) struct Step(Option<ProgressBar>);

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// A count that ends when this is dropped.
#[must_use]
pub(crate) struct Counter {
    bar: Option<ProgressBar>,
    /// Whether there are lines in its place.
    lines: bool,
}

impl Counter {
    /// So much is done.
    pub(crate) fn at(&self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    /// How it goes: beside the bar, or as a line where there is none.
    pub(crate) fn say(&self, how: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(how.to_owned()),
            None if self.lines => say(how),
            None => {}
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        let mode = match quiet {
            true => Mode::Quiet,
            false if std::io::stderr().is_terminal() => Mode::Bars(MultiProgress::new()),
            false => Mode::Lines,
        };
        Self { mode }
    }

    /// Says that something is under way, until the result is dropped.
    pub(crate) fn step(&self, what: &str) -> Step {
        match &self.mode {
            Mode::Quiet => Step(None),
            Mode::Lines => {
                say(what);
                Step(None)
            }
            Mode::Bars(bars) => {
                /// Between two pictures of the spinner.
                const TICK: Duration = Duration::from_millis(100);
                let bar = bars.add(ProgressBar::new_spinner().with_message(what.to_owned()));
                bar.enable_steady_tick(TICK);
                Step(Some(bar))
            }
        }
    }

    /// Counts up to `total`, until the result is dropped.
    pub(crate) fn counter(&self, what: &str, total: usize) -> Counter {
        let lines = matches!(self.mode, Mode::Lines);
        let Mode::Bars(bars) = &self.mode else { return Counter { bar: None, lines } };
        let bar = bars.add(ProgressBar::new(total as u64).with_message(what.to_owned()));
        let style = ProgressStyle::with_template("{bar:30} {pos:>8} / {len:8} {msg} {elapsed} (+{eta})");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Counter { bar: Some(bar), lines }
    }

    /// Says something worth knowing that is no error.
    pub(crate) fn note(&self, note: &str) {
        let line = format!("{HINT}note:{HINT:#} {note}");
        match &self.mode {
            Mode::Quiet => {}
            Mode::Lines => say(&line),
            Mode::Bars(bars) => bars.suspend(|| say(&line)),
        }
    }

    /// Removes what is left of bars.
    pub(crate) fn clear(&self) {
        if let Mode::Bars(bars) = &self.mode {
            // Nothing depends on it.
            let _ = bars.clear();
        }
    }

    /// Downloads from `revision` that report here.
    pub(crate) fn hub(&self, revision: Option<&str>) -> HubOptions {
        let downloads = Downloads { mode: self.mode.clone(), bars: Mutex::default() };
        HubOptions {
            revision: revision.map(str::to_owned),
            progress: Some(Arc::new(move |at| downloads.tell(at))),
            ..HubOptions::default()
        }
    }
}

/// A line on standard error. If that is closed there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

struct Downloads {
    mode: Mode,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Downloads {
    fn tell(&self, at: DownloadProgress<'_>) {
        match &self.mode {
            Mode::Lines if at.finished => {
                say(&format!("downloaded {} of {} ({})", at.file, at.repo, bytes(at.total)));
            }
            Mode::Quiet | Mode::Lines => {}
            Mode::Bars(all) => {
                let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
                let bar = bars.entry(at.file.to_owned()).or_insert_with(|| {
                    let bar = ProgressBar::new(at.total).with_message(at.file.to_owned());
                    let template = "{msg:30!} {bar:30} {bytes:>10} / {total_bytes:10} {bytes_per_sec}";
                    all.add(
                        bar.with_style(
                            ProgressStyle::with_template(template)
                                .unwrap_or_else(|_| ProgressStyle::default_bar()),
                        ),
                    )
                });
                bar.set_length(at.total);
                bar.set_position(at.done);
                if at.finished {
                    bar.finish_and_clear();
                }
            }
        }
    }
}
