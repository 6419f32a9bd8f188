//! Trains the bundled demonstration model from a seed, and evaluates it.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use burn_lens_io::{save_safetensors, write_atomically};
use burn_lens_models::{HookedTransformer, Parameters, export, to_config_json};
use burn_lens_tensor::DeviceSpec;
use burn_lens_train::{
    Progress,
    language::{Evaluation, Language, demo_config, demo_training, evaluate},
    train,
};
use clap::Parser;

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
    #[arg(long, default_value_t = 3000)]
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
    let arguments = Arguments::parse();
    let Arguments { seed, steps, samples, .. } = arguments;
    let mut language = Language::new(seed);
    let model = demo_config(language.words());
    let num_params: usize = burn_lens_models::Param::all(&model)
        .iter()
        .map(|param| param.shape(&model).iter().product::<usize>())
        .sum();
    eprintln!("{num_params} parameters ({} KiB), {steps} steps of 1536 tokens", num_params * 4 / 1024);
    if arguments.dry_run {
        eprintln!("about a quarter of a second a step on one core: {} minutes", steps / 240 + 1);
        return Ok(());
    }
    let device = DeviceSpec::cpu().open()?;
    let build = |params: Parameters| HookedTransformer::new(model.clone(), params);
    let start = Instant::now();
    let text = language.clone();
    let mut observer = |progress: &Progress<'_>| {
        let done = progress.step + 1;
        if done % 50 == 0 || done == 10 {
            let seconds = start.elapsed().as_secs_f64();
            let (loss, norm) = (progress.loss, progress.grad_norm);
            let left = seconds / done as f64 * (steps - done) as f64;
            eprintln!("step {done}: loss {loss:.4}, gradient {norm:.3}, {seconds:.0} s, {left:.0} s left");
        }
        if arguments.evaluate_every.is_some_and(|every| done % every == 0) {
            match build(progress.parameters()).map(|model| evaluate(&model, &text, samples / 5, seed + 1)) {
                Ok(Ok(evaluation)) => report(&evaluation),
                failed => eprintln!("evaluation failed: {failed:?}"),
            }
        }
    };
    let training = demo_training(steps, seed);
    let params = train(&training, &model, &device, &mut language, &mut observer)?;
    let seconds = start.elapsed().as_secs_f64().round();
    let trained = build(params)?;
    let evaluation = evaluate(&trained, &language, samples, seed)?;
    report(&evaluation);
    save(&arguments.out, &trained, &language)?;
    let json = serde_json::json!({
        "evaluation": evaluation,
        "parameters": num_params,
        "seconds": seconds,
        "training": training,
    });
    write_atomically(arguments.out.join("evaluation.json"), |file| writeln!(file, "{json:#}"))?;
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
    fs::create_dir_all(out)?;
    let texts = [
        ("config.json", to_config_json(model.config())),
        ("tokenizer.json", language.words().tokenizer_json()),
        ("tokenizer_config.json", language.words().tokenizer_config_json(model.config().n_ctx)),
    ];
    for (name, text) in texts {
        write_atomically(out.join(name), |file| file.write_all(text.as_bytes()))?;
    }
    let tensors = export(model)?.into_iter().map(|(name, tensor)| Ok((name, tensor.into_data()?)));
    let tensors = tensors.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    save_safetensors(out.join("model.safetensors"), tensors, BTreeMap::new())?;
    Ok(())
}
