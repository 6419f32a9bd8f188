//! Trains the bundled demonstration model from a seed, and evaluates it.

use std::{collections::BTreeMap, error::Error, fs, path::Path, path::PathBuf, time::Instant};

use burn_lens_io::{save_safetensors, write_atomically};
use burn_lens_models::{HookedTransformer, export, to_config_json};
use burn_lens_tensor::DeviceSpec;
use burn_lens_train::language::{
    Evaluation, Language, demo_config, demo_parameters, demo_training, evaluate,
};
use burn_lens_train::{Progress, train_from};
use clap::Parser;
use serde_json::json;

/// Trains the bundled demonstration model from a seed, and evaluates it.
#[derive(Parser)]
struct Arguments {
    /// Folder for the model, its tokenizer and evaluation.json.
    #[arg(long)]
    out: PathBuf,
    /// Where weights and text come from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training steps.
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Fresh sequences of each task in the evaluation.
    #[arg(long, default_value_t = 500)]
    samples: usize,
    /// Also evaluate every so many steps, on a fifth of the sequences.
    #[arg(long)]
    evaluate_every: Option<usize>,
    /// Say what it would cost, and stop.
    #[arg(long)]
    dry_run: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { out, seed, steps, samples, evaluate_every, dry_run } = Arguments::parse();
    let mut language = Language::new(seed);
    let model = demo_config(language.words());
    let sizes = model.params().into_iter().map(|param| param.shape(&model.dims()).iter().product::<usize>());
    let parameters: usize = sizes.sum();
    let tokens = language.tokens(steps);
    eprintln!("{parameters} parameters ({} KiB), {steps} steps, {tokens} tokens", parameters * 4 / 1024);
    // 0.12 ms a token on one core of 2020s hardware.
    eprintln!("about {} minutes on one core", tokens / 500_000 + 1);
    if dry_run {
        return Ok(());
    }
    let start = Instant::now();
    let text = language.clone();
    let mut observer = |progress: &Progress<'_>| {
        let (done, seconds) = (progress.step + 1, start.elapsed().as_secs_f64());
        if done % 50 == 0 {
            let left = seconds / done as f64 * (steps - done) as f64;
            eprintln!("step {done}: loss {:.4}, {seconds:.0} s, {left:.0} s left", progress.loss);
        }
        if evaluate_every.is_some_and(|every| done % every == 0) {
            let evaluated = HookedTransformer::new(model.clone(), progress.parameters())
                .map_err(Into::into)
                .and_then(|model| evaluate(&model, &text, samples / 5, seed + 1));
            evaluated.map_or_else(|error| eprintln!("evaluation failed: {error}"), |e| report(&e));
        }
    };
    let training = demo_training(steps, seed);
    let initial = demo_parameters(&model, seed, &DeviceSpec::cpu().open()?);
    let params = train_from(&training, &model, &initial, &mut language, &mut observer)?;
    let seconds = start.elapsed().as_secs();
    let trained = HookedTransformer::new(model, params)?;
    let evaluation = evaluate(&trained, &language, samples, seed)?;
    report(&evaluation);
    fs::create_dir_all(&out)?;
    save(&out, &trained, &language)?;
    let json = json!({
        "evaluation": evaluation, "parameters": parameters, "seconds": seconds, "training": training,
    });
    write_atomically(out.join("evaluation.json"), |file| writeln!(file, "{json:#}"))?;
    Ok(())
}

fn report(evaluation: &Evaluation) {
    for task in &evaluation.tasks {
        eprintln!("  {:16} {:6.2} %  of {}", task.task, task.accuracy * 100.0, task.answers);
    }
    let heads = evaluation.induction.iter().map(|head| format!("{} {:.2}", head.head, head.score));
    eprintln!("  induction: {}", heads.collect::<Vec<_>>().join(", "));
}

fn save(out: &Path, model: &HookedTransformer, language: &Language) -> Result<(), Box<dyn Error>> {
    let texts = [
        ("config.json", to_config_json(model.config())?),
        ("tokenizer.json", language.words().tokenizer_json()),
        ("tokenizer_config.json", language.words().tokenizer_config_json(model.config().n_ctx)),
    ];
    for (name, text) in texts {
        write_atomically(out.join(name), |file| file.write_all(text.as_bytes()))?;
    }
    let tensors = export(model)?.into_iter().map(|(name, tensor)| Ok((name, tensor.into_data()?)));
    let tensors = tensors.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    Ok(save_safetensors(out.join("model.safetensors"), tensors, BTreeMap::new())?)
}
