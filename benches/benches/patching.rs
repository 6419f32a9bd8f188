//! Patching sweeps at GPT-2 small's shape, and what each kind of reuse saves:
//! `benches/peers/peer_patching.py` measures the same with TransformerLens.
//!
//! Each step adds one part: a plain loop of hooked runs, blocks alone (the same work cell by cell), then
//! what is reused. The times of the first against TransformerLens's are what the kernels give. The table
//! at the end is that of `docs/interventions.md`.
//!
//! Wall-clock and processor time, since others may use the machine. Where `every` is more than one, every
//! so-manieth cell stands for all, and times are scaled.

use std::{sync::Arc, time::Instant};

use burn_lens::{
    analysis::interventions::{
        Engine, EngineOptions, HeadPart, Metric, Patch, Reuse, Sweep, SweepAxis, patching_sweep,
    },
    burn::tensor::TensorData,
    prelude::*,
};
use burn_lens_benches::{GPT2_SMALL, device, peak_mib};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 8;
const POS: usize = 16;

fn main() {
    // `cargo bench -- --list` and the like.
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let device = device();
    let model = GPT2_SMALL.model(&device);
    let clean = GPT2_SMALL.tokens(BATCH, POS, &device);
    let mut table = Vec::new();
    for first in [0, 4] {
        println!("\nprompts differ from position {first} on");
        let corrupt = changed(&clean, first);
        for patch in [Patch::Head(HeadPart::Out), Patch::ResidPre, Patch::HeadByPos(HeadPart::Out)] {
            let names = CacheOptions::names(patch.hooks(&model));
            let from =
                model.run_with_cache(&(&clean).into(), &RunOptions::default(), &names).expect("a run").1;
            let sweep = patching_sweep(&model, patch, &Arc::new(from), POS).expect("the model has it");
            // A cell by position is as much work as one over all positions.
            let times = if sweep.cells.len() > 1000 { 12 } else { 1 };
            let seconds = STEPS.map(|(name, reuse, every)| {
                let every = if name == "+ batching" { every } else { every * times };
                run(&model, &corrupt, (patch, name), (&sweep, every), reuse)
            });
            table.push((patch, first, seconds));
        }
    }
    print_table(&table);
    println!("\npeak {} MiB", peak_mib().unwrap_or(0));
}

/// What each step reuses, none for a plain loop; and of how many cells one stands for all.
const STEPS: [(&str, Option<Reuse>, usize); 6] = {
    let none = Reuse { layers: false, positions: false, readout: false, batching: false };
    let layers = Reuse { layers: true, ..none };
    let positions = Reuse { positions: true, ..layers };
    let readout = Reuse { readout: true, ..positions };
    [
        ("plain loop", None, 12),
        ("blocks", Some(none), 12),
        ("+ layers", Some(layers), 12),
        ("+ positions", Some(positions), 12),
        ("+ readout", Some(readout), 6),
        ("+ batching", Some(Reuse { batching: true, ..readout }), 1),
    ]
};

/// Wall-clock seconds of each sweep by step, and what each step gains over the one before.
fn print_table(rows: &[(Patch, usize, [f64; STEPS.len()])]) {
    let names: Vec<&str> = STEPS.iter().map(|(name, ..)| *name).collect();
    println!("\n| Sweep, prompts that differ from | {} | Whole gain |", names.join(" | "));
    println!("|---|{}---|", "---|".repeat(names.len()));
    for (patch, first, seconds) in rows {
        let cell = |at: usize| match at {
            0 => format!("{:.1} s", seconds[0]),
            at => format!("{:.1} s (× {:.2})", seconds[at], seconds[at - 1] / seconds[at]),
        };
        let cells: Vec<String> = (0..seconds.len()).map(cell).collect();
        let whole = seconds[0] / seconds[seconds.len() - 1];
        println!("| `{patch}`, position {first} | {} | × {whole:.1} |", cells.join(" | "));
    }
}

fn run(
    model: &HookedTransformer,
    corrupt: &Tensor<2, Int>,
    (patch, name): (Patch, &str),
    (sweep, every): (&Sweep, usize),
    reuse: Option<Reuse>,
) -> f64 {
    let metric = Metric::logit_diff([11], [7]);
    let options = EngineOptions { reuse: reuse.unwrap_or_default(), ..EngineOptions::default() };
    let engine = Engine::new(model, corrupt, &RunOptions::default(), &metric, options).expect("it fits");
    let cells: Vec<_> = sweep.cells.iter().skip(every / 2).step_by(every).cloned().collect();
    let count = cells.len();
    let part = Sweep { axes: vec![SweepAxis::counted("cell", count)], cells };
    // A hook that changes nothing: with it, cells are whole runs with hooks.
    let idle = Hook::read(HookPoint::ResidPre(0), |_: &Tensor<3>, _: &mut HookContext<'_>| {});
    let plain = reuse.is_none().then(|| model.hook_scope(vec![idle]).expect("it fires"));
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let result = engine.sweep(&part).expect("a sweep");
    let scale = sweep.cells.len() as f64 / count as f64;
    let (wall, cpu) = (start.elapsed().as_secs_f64() * scale, (cpu_seconds() - cpu) * scale);
    let cost = engine.prepare(&part).expect("it fits").cost();
    drop(plain);
    println!(
        "{patch:<24} {name:<12} {:>5} cells {wall:>8.2} s wall {cpu:>8.2} s processor  predicted {:>7.1} passes  (every {every})",
        sweep.cells.len(),
        cost.forwards * scale,
    );
    assert!(result.values().iter().all(|value| value.is_finite()), "a sweep gives numbers");
    wall
}

/// The tokens with every one from `first` on exchanged.
fn changed(tokens: &Tensor<2, Int>, first: usize) -> Tensor<2, Int> {
    let ids: Vec<i64> = tokens.try_to_vec_as().expect("tokens");
    let change =
        |(at, id): (usize, i64)| if at % POS >= first { (id + 13) % GPT2_SMALL.d_vocab as i64 } else { id };
    let ids: Vec<i64> = ids.into_iter().enumerate().map(change).collect();
    Tensor::from_data(TensorData::new(ids, [BATCH, POS]), &tokens.device())
}

/// Processor seconds of this process, all threads together.
fn cpu_seconds() -> f64 {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}
