//! Memory as a run takes it and gives it back.

use burn_lens_hooks::HookPoint;

use super::PlannedRun;

/// A tensor of a planned run.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Buffer {
    values: u64,
    /// The cache holds it too, so it stays, and what changes it needs a copy.
    kept: bool,
}

/// Counts values that are alive.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    run: &'a PlannedRun<'a>,
    live: u64,
    peak: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(run: &'a PlannedRun<'a>) -> Self {
        Self { run, live: 0, peak: 0 }
    }

    /// The most values that were ever alive.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// A new tensor.
    pub(super) fn make(&mut self, values: usize) -> Buffer {
        self.live += values as u64;
        self.peak = self.peak.max(self.live);
        Buffer { values: values as u64, kept: false }
    }

    /// Lets go of a tensor.
    pub(super) fn drop(&mut self, buffer: Buffer) {
        if !buffer.kept {
            self.live -= buffer.values;
        }
    }

    /// A tensor changed in place if nobody else holds it.
    pub(super) fn change(&mut self, buffer: Buffer) -> Buffer {
        if buffer.kept { self.make(buffer.values as usize) } else { buffer }
    }

    /// Whether the cache takes what is at `point`.
    pub(super) fn keeps(&self, point: HookPoint) -> bool {
        self.run.kept.contains(&point)
    }

    /// Whether anybody looks at `point`.
    pub(super) fn wants(&self, point: HookPoint) -> bool {
        self.keeps(point) || self.run.hooked.contains(&point)
    }

    /// A tensor at a hook point: shared with the cache where that keeps it whole, or copied for
    /// it in part. An edit is taken to give a new tensor.
    pub(super) fn at(&mut self, point: HookPoint, buffer: Buffer) -> Buffer {
        let mut buffer = buffer;
        if self.run.hooked.contains(&point) && !self.keeps(point) {
            let edited = self.make(buffer.values as usize);
            self.drop(buffer);
            buffer = edited;
        }
        if !self.keeps(point) {
            return buffer;
        }
        let pos = self.run.size[1];
        let kept = self.run.kept_pos.resolve(pos).map_or(pos, |kept| kept.len());
        if *self.run.kept_pos == burn_lens_tensor::Slice::All || point.pos_axis().is_none() {
            return Buffer { kept: true, ..buffer };
        }
        let _kept_for_good = self.make(buffer.values as usize / pos * kept);
        buffer
    }
}
