//! Trains the sparse autoencoder that is bundled with the demonstration model, from a seed.

use std::{collections::BTreeMap, error::Error, fs, path::PathBuf, time::Instant};

use burn_lens_hooks::HookPoint;
use burn_lens_io::{Checkpoint, save_safetensors, write_atomically};
use burn_lens_models::{HookedTransformer, architecture_config, load_parameters};
use burn_lens_tensor::{DeviceSpec, FloatType, burn::tensor::TensorData};
use burn_lens_train::{
    Batches as _, TrainConfig,
    language::Language,
    sae::{ActivationBuffer, SaeConfig, SaeStep, SaeWeights, Sparsity, train_sae},
};
use clap::{Parser, ValueEnum};
use serde_json::json;

/// Trains the sparse autoencoder that is bundled with the demonstration model, from a seed.
#[derive(Parser)]
struct Arguments {
    /// Folder for cfg.json, sae_weights.safetensors and training.json.
    #[arg(long)]
    out: PathBuf,
    /// The folder of the demonstration model.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../burn-lens/assets/demo"))]
    model: PathBuf,
    /// Which activation.
    #[arg(long, default_value = "blocks.1.hook_resid_post")]
    hook: HookPoint,
    /// What makes activations sparse.
    #[arg(long, default_value = "topk")]
    kind: Kind,
    /// How many features.
    #[arg(long, default_value_t = 384)]
    features: usize,
    /// How many of them may be active, for topk.
    #[arg(long, default_value_t = 12)]
    k: usize,
    /// What the sum of activations counts in the loss, for standard.
    #[arg(long, default_value_t = 3.0)]
    l1: f64,
    /// Training steps, of 1024 vectors each.
    #[arg(long, default_value_t = 4000)]
    steps: usize,
    /// Where weights and text come from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Standard,
    Topk,
}

/// Vectors in a step.
const BATCH: usize = 1024;

/// Vectors that are shuffled together.
const POOL: usize = 32 * BATCH;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = DeviceSpec::cpu().open()?;
    let (architecture, config) =
        architecture_config(&fs::read_to_string(arguments.model.join("config.json"))?)?;
    let mut weights = Checkpoint::open(&arguments.model)?;
    let params = load_parameters(architecture, &config, &mut weights, FloatType::F32, &device)?;
    let model = HookedTransformer::new(config, params)?;
    // Other text than the model was trained on.
    let mut language = Language::new(arguments.seed + 1000);
    let text = move |step| language.batch(step);
    let mut buffer = ActivationBuffer::new(&model, arguments.hook, text, (POOL, arguments.seed));
    let first = buffer.take(1)?;
    let d_in = first.dims()[1];
    let scale = (d_in as f64).sqrt() / buffer.mean_norm()?;
    let config = config_of(&arguments, d_in);
    let begun = Instant::now();
    let mut log: Vec<SaeStep> = Vec::new();
    let mut observer = |step: &SaeStep| {
        if step.step.is_multiple_of(100) || step.step + 1 == config.training.steps {
            let SaeStep { step, loss, explained_variance, l0, n_dead, .. } = *step;
            let seconds = begun.elapsed().as_secs_f64();
            eprintln!(
                "step {step}: loss {loss:.3}, explained {explained_variance:.4}, L0 {l0:.1}, {n_dead} dead, {seconds:.0} s"
            );
        }
        if step.step.is_multiple_of(100) || step.step + 1 == config.training.steps {
            log.push(*step);
        }
    };
    let mut data = |_| Ok(buffer.take(BATCH)? * scale);
    let trained = train_sae(&config, &device, &mut data, &mut observer)?.folded(scale);
    save(&arguments, &config, &trained)?;
    let json = json!({ "config": config, "hook": arguments.hook.to_string(), "scale": scale, "log": log });
    write_atomically(arguments.out.join("training.json"), |file| writeln!(file, "{json:#}"))?;
    Ok(())
}

fn config_of(arguments: &Arguments, d_in: usize) -> SaeConfig {
    let sparsity = match arguments.kind {
        Kind::Standard => Sparsity::L1 { coefficient: arguments.l1, warmup_steps: arguments.steps / 10 },
        Kind::Topk => Sparsity::TopK { k: arguments.k, auxiliary: 1.0 },
    };
    let training = TrainConfig {
        steps: arguments.steps,
        learning_rate: 2e-3,
        warmup_steps: arguments.steps / 20,
        final_fraction: 0.02,
        beta_2: 0.999,
        seed: arguments.seed,
        ..TrainConfig::default()
    };
    SaeConfig { d_in, d_sae: arguments.features, sparsity, dead_after: 100, training }
}

/// Writes it in SAELens's format.
fn save(arguments: &Arguments, config: &SaeConfig, weights: &SaeWeights) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(&arguments.out)?;
    let mut settings = json!({
        "architecture": "standard",
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": true,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": "demo",
            "hook_name": arguments.hook.to_string(),
            "prepend_bos": true,
            "neuronpedia_id": null,
        },
    });
    if let Sparsity::TopK { k, .. } = config.sparsity {
        settings["architecture"] = "topk".into();
        settings["k"] = k.into();
        settings["rescale_acts_by_decoder_norm"] = false.into();
    }
    write_atomically(arguments.out.join("cfg.json"), |file| writeln!(file, "{settings:#}"))?;
    let SaeWeights { w_enc, b_enc, w_dec, b_dec } = weights.clone();
    let tensors: Vec<(String, TensorData)> = [
        ("W_dec", w_dec.try_into_data()),
        ("W_enc", w_enc.try_into_data()),
        ("b_dec", b_dec.try_into_data()),
        ("b_enc", b_enc.try_into_data()),
    ]
    .into_iter()
    .map(|(name, data)| data.map(|data| (name.to_owned(), data)))
    .collect::<Result<_, _>>()?;
    Ok(save_safetensors(arguments.out.join("sae_weights.safetensors"), tensors, BTreeMap::new())?)
}
