//! Our side of `cargo xtask bench-peers`: a checkpoint and works to do on it, asked for line by line.
//!
//! On standard input `time WORK` answers with milliseconds and a checksum of the result, `peak`
//! with the most memory that the process ever held, in KiB. The peer's side is
//! `benches/peers/peer_server.py`.

use std::{
    io::{BufRead as _, Write as _},
    time::{Duration, Instant},
};

use burn_lens::{
    burn::tensor::TensorData,
    models::{Generated, KvCache, generate},
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    burn_lens_benches::keep_memory();
    // On a thread of the pool, as the command runs.
    Ok(rayon::scope(|_| serve().map_err(|error| error.to_string()))?)
}

fn serve() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).ok_or("usage: bench-peer CHECKPOINT")?;
    let start = Instant::now();
    let model = from_pretrained(&folder, &LoadOptions::default())?.model;
    answer(&format!("ready {:.3}", 1e3 * start.elapsed().as_secs_f64()))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["time", work, batch, pos] => {
                let size = [batch.parse()?, pos.parse()?];
                let (time, checksum) = timed(&model, work, size)?;
                answer(&format!("{:.3} {checksum:e}", 1e3 * time.as_secs_f64()))?;
            }
            ["peak"] => answer(&peak()?.to_string())?,
            _ => return Err(format!("what is `{line}`?").into()),
        }
    }
    Ok(())
}

fn answer(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// The high-water mark of resident memory, in KiB.
fn peak() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The same tokens as the peer's.
fn ids(model: &HookedTransformer, size: [usize; 2]) -> Tensor<2, Int> {
    let d_vocab = model.dims().d_vocab;
    let ids: Vec<i64> = (0..size[0] * size[1]).map(|at| (at * 7919 % d_vocab) as i64).collect();
    Tensor::from_data(TensorData::new(ids, size), &model.device())
}

/// Times `work` and sums up its result; summing up is not timed.
fn timed(model: &HookedTransformer, work: &str, size: [usize; 2]) -> Result<(Duration, f64), Failure> {
    let tokens = ids(model, size);
    let input = Input::from(&tokens);
    let logits = RunOptions::default();
    let start = Instant::now();
    match work {
        "logits" => {
            let found = model.run_with_hooks(&input, &logits, vec![])?.into_logits()?;
            Ok((start.elapsed(), last_row(found)))
        }
        "last" => {
            let options = RunOptions { logits_pos: Slice::Index(-1), ..logits };
            let found = model.run_with_hooks(&input, &options, vec![])?.into_logits()?;
            Ok((start.elapsed(), last_row(found)))
        }
        "loss" => {
            let loss = model.run_with_hooks(&input, &RunOptions::returning(ReturnType::Loss), vec![])?;
            Ok((start.elapsed(), loss.into_loss()?.into_scalar::<f32>().into()))
        }
        "cache" | "cache-resid" => {
            let cache = match work {
                "cache" => CacheOptions::default(),
                _ => CacheOptions::names(["blocks.*.hook_resid_post"]),
            };
            let (output, kept) = model.run_with_cache(&input, &logits, &cache)?;
            let time = start.elapsed();
            drop(kept);
            Ok((time, last_row(output.into_logits()?)))
        }
        "backward" => {
            let options = RunOptions::returning(ReturnType::Loss);
            let (output, kept) =
                model.run_with_cache(&input, &options, &CacheOptions::default().incl_bwd())?;
            let time = start.elapsed();
            drop(kept);
            Ok((time, output.into_loss()?.into_scalar::<f32>().into()))
        }
        "generate" => generated(model, &tokens),
        "decode" => decoded(model, &tokens),
        _ => Err(format!("no work is called `{work}`").into()),
    }
}

/// The mean magnitude of the last prompt's last row.
fn last_row(logits: Tensor<3>) -> f64 {
    let [batch, pos, _] = logits.dims();
    logits.narrow(0, batch - 1, 1).narrow(1, pos - 1, 1).abs().mean().into_scalar::<f32>().into()
}

/// How many tokens are generated.
const NEW: usize = 128;

fn generated(model: &HookedTransformer, tokens: &Tensor<2, Int>) -> Result<(Duration, f64), Failure> {
    let [_, pos] = tokens.dims();
    let rows: Vec<Vec<i64>> =
        tokens.try_to_vec_as::<i64>().expect("token ids").chunks(pos).map(<[i64]>::to_vec).collect();
    let options = GenerateOptions { max_new_tokens: NEW, stop_at_eos: false, ..GenerateOptions::default() };
    let start = Instant::now();
    let rows: Vec<Generated> = generate(model, &rows, &options, vec![], &mut |_, _| false)?;
    let time = start.elapsed();
    let total: i64 = rows.iter().map(|row| row.tokens[0]).sum();
    Ok((time, total as f64))
}

/// One token behind a prompt whose keys and values are there already.
fn decoded(model: &HookedTransformer, tokens: &Tensor<2, Int>) -> Result<(Duration, f64), Failure> {
    let mut past = KvCache::new(model.config().n_layers);
    let options = RunOptions { logits_pos: Slice::Index(-1), ..RunOptions::default() };
    let mut hooks = burn_lens::hooks::Hooks::none();
    model.forward_with_past(&Input::from(tokens), &options, &mut hooks, Some(&mut past))?;
    let next = Input::from(tokens.clone().narrow(1, 0, 1));
    let start = Instant::now();
    let output = model.forward_with_past(&next, &options, &mut hooks, Some(&mut past))?;
    let time = start.elapsed();
    Ok((time, last_row(output.into_logits()?)))
}
