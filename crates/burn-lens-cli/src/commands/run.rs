//! `burn-lens run`

use std::{collections::BTreeMap, path::Path};

use burn_lens::{
    Pretrained, Process, Tokens,
    burn::tensor::TensorData,
    hooks::{
        ActivationCache, Axis, CacheOptions, Hook, HookPoint, HookedModel as _, Output, RunOptions, Selector,
    },
    io::save_safetensors,
    models::Control,
    tensor::Indices,
};
use serde_json::{Value, json};

use super::plan::plan;
use crate::{
    args::RunArgs,
    edits::Texts,
    error::{CliError, check_folder},
    load::load,
    next_tokens::{next_token_table, next_tokens, shown},
    progress::Progress,
    prompts,
    report::{DIM, Report, bytes},
};

/// Runs a model once.
pub(crate) fn run(args: &RunArgs, progress: &Progress) -> Result<Report, CliError> {
    if let Some(path) = &args.save {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let tokens = prompts::tokens(&args.input, &lens)?;
    let hooks = args.edits.hooks(&lens, &Texts::of_run(&tokens.batch.attention_mask), progress)?;
    if args.plan {
        let options = RunOptions { stop_at_layer: args.stop_at_layer, ..tokens.options() };
        let kept =
            if args.save.is_some() { points(args, &lens, &tokens, (&options, &hooks))? } else { Vec::new() };
        return plan(args, &lens, (&tokens, &options), hooks, &kept);
    }
    match &args.save {
        None => {
            let step = progress.step("running");
            let output = lens.model.run_with_hooks(&tokens.input(), &tokens.options(), hooks)?;
            drop(step);
            next(args, &lens, &tokens, output)
        }
        Some(path) => {
            let options = RunOptions { stop_at_layer: args.stop_at_layer, ..tokens.options() };
            let points = points(args, &lens, &tokens, (&options, &hooks))?;
            note_size(&points, args, &lens, &tokens, progress);
            let cache = CacheOptions {
                pos_slice: args.pos.clone().unwrap_or_default(),
                ..CacheOptions::names(points)
            };
            let step = progress.step("running");
            let (output, cache) = lens.model.run(&tokens.input(), &options, hooks, &cache)?;
            drop(step);
            save(path, args, &lens, (&tokens, output, &cache), progress)
        }
    }
}

/// The likely next tokens of each prompt's last position.
fn next(args: &RunArgs, lens: &Pretrained, tokens: &Tokens, output: Output) -> Result<Report, CliError> {
    const MOST: usize = 10;
    let tokenizer = lens.tokenizer.as_ref();
    let logits = output.into_logits()?;
    let mut report = Report::default();
    let mut list = Vec::new();
    for (row, (ids, mask)) in tokens.batch.ids.iter().zip(&tokens.batch.attention_mask).enumerate() {
        let end = mask.iter().rposition(|&token| token != 0).unwrap_or(mask.len() - 1);
        let logits = logits.clone().narrow(0, row, 1).narrow(1, end, 1);
        let likely = next_tokens(&prompts::values(logits)?, MOST, tokenizer);
        let real: Vec<i64> =
            ids.iter().zip(mask).filter(|(_, mask)| **mask != 0).map(|(&id, _)| id).collect();
        report.heading(match args.input.prompt.get(row) {
            Some(prompt) => prompt.clone(),
            None => format!("row {row} of the tokens"),
        });
        let pieces: Vec<String> = real.iter().map(|&id| shown(tokenizer, id)).collect();
        report.line(format_args!("{DIM}{} tokens: {}{DIM:#}", pieces.len(), pieces.join(" ")));
        report.text.push_str(&next_token_table(&likely));
        list.push(json!({ "prompt": args.input.prompt.get(row), "tokens": real, "next": likely }));
    }
    report.json = json!({ "model": lens.name, "prompts": list });
    Ok(report)
}

/// The activations to keep: what is named, as far as the run reaches it.
fn points(
    args: &RunArgs,
    lens: &Pretrained,
    tokens: &Tokens,
    (options, hooks): (&RunOptions, &[Hook<'_>]),
) -> Result<Vec<HookPoint>, CliError> {
    let reached = lens.model.firing_in(&tokens.input(), options).with_hooks(hooks)?;
    if args.names.is_empty() {
        return Ok(reached.always);
    }
    let all = lens.model.firing().with_hooks(hooks)?;
    let mut points = Vec::new();
    for name in &args.names {
        let selector = Selector::from(name.as_str());
        selector.resolve(&all)?;
        let chosen = selector.resolve(&reached).map_err(|source| CliError::NotReached {
            name: name.clone(),
            stop: options.stop_at_layer.unwrap_or_default(),
            source: Box::new(source),
        })?;
        points.extend(chosen);
    }
    Ok(points)
}

/// Says how much memory the activations take, where that is much.
fn note_size(points: &[HookPoint], args: &RunArgs, lens: &Pretrained, tokens: &Tokens, progress: &Progress) {
    /// Below this nobody minds.
    const MUCH: u64 = 1 << 30;
    let dims = lens.model.dims();
    let [batch, pos] = tokens.ids.dims();
    let kept = args.pos.clone().unwrap_or_default().resolve(pos);
    let mut total = 0;
    for &point in points {
        let len = |&axis: &Axis| match axis {
            Axis::Batch => batch,
            Axis::KeyPos => pos,
            // A slice that does not fit is the run's error, which names the activation.
            Axis::Pos | Axis::QueryPos => kept.as_ref().map_or(0, Indices::len),
            axis => dims.len_of(axis).unwrap_or(0),
        };
        total += point.axes().iter().map(|axis| len(axis) as u64).product::<u64>();
    }
    let total = total * lens.model.dtype().size() as u64;
    if total > MUCH {
        progress.note(&format!(
            "the {} activations to keep take {}; --names and --pos keep fewer",
            points.len(),
            bytes(total)
        ));
    }
}

/// Writes tokens, logits and activations.
fn save(
    path: &Path,
    args: &RunArgs,
    lens: &Pretrained,
    (tokens, output, cache): (&Tokens, Output, &ActivationCache),
    progress: &Progress,
) -> Result<Report, CliError> {
    let mut tensors = vec![("tokens".to_owned(), integers(&tokens.batch.ids))];
    if tokens.attention_mask.is_some() {
        tensors.push(("attention_mask".to_owned(), integers(&tokens.batch.attention_mask)));
    }
    if let Some(logits) = output.logits {
        let data = logits.try_into_data().map_err(burn_lens::hooks::RunError::from)?;
        tensors.push(("logits".to_owned(), data));
    }
    tensors.extend(cache.to_tensors()?);
    let list: Vec<Value> = tensors
        .iter()
        .map(|(name, data)| {
            let dtype = format!("{:?}", data.dtype()).to_lowercase();
            json!({ "name": name, "shape": data.shape().to_vec(), "dtype": dtype })
        })
        .collect();
    let size: u64 = tensors.iter().map(|(_, data)| data.bytes().len() as u64).sum();
    let step = progress.step(&format!("writing {}", path.display()));
    save_safetensors(path, tensors, metadata(args, lens))?;
    drop(step);
    let mut report = Report::default();
    report.line(format_args!("wrote {}: {} tensors, {}", path.display(), list.len(), bytes(size)));
    report.json = json!({ "saved": path, "bytes": size, "tensors": list });
    Ok(report)
}

/// Token ids as i32: what other tools read `tokens` as.
fn integers(rows: &[Vec<i64>]) -> TensorData {
    let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
    // Ids were checked against the vocabulary, whose size is far below.
    let values: Vec<i32> = rows.iter().flatten().map(|&id| i32::try_from(id).unwrap_or(i32::MAX)).collect();
    TensorData::new(values, shape)
}

/// Where the numbers come from.
fn metadata(args: &RunArgs, lens: &Pretrained) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("format".to_owned(), "burn-lens activations".to_owned()),
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("model".to_owned(), lens.name.clone()),
        ("dtype".to_owned(), args.model.dtype.to_string()),
        ("process".to_owned(), process(args, lens)),
    ]);
    let mut add = |name: &str, value: String| metadata.insert(name.to_owned(), value);
    if args.model.control != Control::Trained {
        add("control", format!("{} with seed {}", args.model.control, args.model.seed));
    }
    if let Some(revision) = &args.model.revision {
        add("revision", revision.clone());
    }
    if let Some(layer) = args.stop_at_layer {
        add("stop_at_layer", layer.to_string());
    }
    if let Some(pos) = &args.pos {
        add("pos", pos.to_string());
    }
    if !args.edits.is_empty() {
        add("interventions", args.edits.texts().join(" "));
    }
    metadata
}

/// The steps that were taken, by name.
fn process(args: &RunArgs, lens: &Pretrained) -> String {
    use burn_lens::models::processing::Step;
    let left_out = |step: &Step| lens.left_out.iter().any(|(left_out, _)| left_out == step);
    match &args.model.process {
        Process::Default => {
            Process::Steps(Step::DEFAULT.into_iter().filter(|step| !left_out(step)).collect()).to_string()
        }
        process => process.to_string(),
    }
}
