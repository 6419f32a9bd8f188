//! `burn-lens convert`

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

use burn_lens::{
    Error as LensError, Pretrained,
    burn::tensor::TensorData,
    hooks::{CacheOptions, HookedModel as _, RunOptions},
    io::{Checkpoint, create_folder, read_settings, save_safetensors},
    models::convert::{Converter as _, NameTree, RuleTable, convert as converted},
    tensor::Weights as _,
};
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::clusters::examples;
use crate::{
    args::ModelArgs,
    error::{CliError, check_folder},
    load::load,
    progress::Progress,
    report::{Report, grouped, pairs},
};

#[derive(Debug, Args)]
#[command(
    after_help = HELP,
    group = ArgGroup::new("target").args(["save", "export", "activations"]).required(true)
)]
pub(crate) struct ConvertArgs {
    /// With --save a weights file (.pth, .pt, .bin, .safetensors) or a folder of them; else a MODEL
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// The table of rules
    #[arg(long, value_name = "RULES.toml|RULES.json")]
    rules: PathBuf,
    /// A key of the table's `model`, in place of what stands there: n_layers=2
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<Setting>,
    /// Write a MODEL for every other command to this folder; made if it is not there
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Write the weights of a MODEL under the names and in the shapes of the other program
    #[arg(long, value_name = "FILE.safetensors")]
    export: Option<PathBuf>,
    /// Run a MODEL on --vectors, and write what the other program's modules give, under their names
    #[arg(long, value_name = "FILE.safetensors", requires = "vectors")]
    activations: Option<PathBuf>,
    /// What to run on: a tensor `vectors` [batch, pos, d_in]
    #[arg(long, value_name = "FILE.safetensors", requires = "activations")]
    vectors: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

const HELP: &str = "\
docs/rules/gpt2-in-context.toml is an example; docs/in-context-learning.md says what rules can do. Every
tensor must be read or listed under `drop`, and every weight of the model given: whatever is left over or
missing is listed. Weights are held in --dtype; in the type that the file has, what is exported again is
the same bit by bit. No pickle is executed.";

/// `KEY=VALUE`
#[derive(Clone, Debug, PartialEq)]
struct Setting(String, Value);

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
                Ok(Self(key.to_owned(), value))
            }
            _ => Err(format!("`{text}` is no KEY=VALUE, as in n_layers=2")),
        }
    }
}

/// Reads or writes the checkpoint of another program.
pub(crate) fn convert(args: &ConvertArgs, progress: &Progress) -> Result<Report, CliError> {
    let mut table: RuleTable = read_settings(&args.rules)?;
    for Setting(key, value) in &args.set {
        table.model.insert(key.clone(), value.clone());
    }
    match (&args.save, &args.export, &args.activations, &args.vectors) {
        (Some(folder), ..) => save(args, &table, folder, progress),
        (_, Some(file), ..) => export(args, &table, file, progress),
        (.., Some(file), Some(vectors)) => activations(args, &table, (vectors, file), progress),
        _ => unreachable!("clap wants one of them"),
    }
}

fn save(
    args: &ConvertArgs,
    table: &RuleTable,
    folder: &PathBuf,
    progress: &Progress,
) -> Result<Report, CliError> {
    let source = args.source.display().to_string();
    let step = progress.step(&format!("converting {source}"));
    let mut weights = if args.source.is_dir() {
        Checkpoint::open(&args.source)?
    } else {
        Checkpoint::open_file(&args.source)?
    };
    let device = args.model.device.open().map_err(LensError::from)?;
    let found = converted(table, &mut weights, args.model.dtype, &device)?;
    create_folder(folder)?;
    let lens = Pretrained { name: source.clone(), model: found.model, tokenizer: None, left_out: Vec::new() };
    lens.save(folder)?;
    drop(step);
    let (read, dropped) = (weights.names().len() - found.dropped.len(), found.dropped);
    let parameters = lens.model.parameters().num_params();
    let mut report = Report::default();
    report.heading(&source);
    let left_out = if dropped.is_empty() { "none".to_owned() } else { dropped.join(", ") };
    report.text.push_str(&pairs(&[
        ("tensors read", read.to_string()),
        ("dropped", left_out),
        ("parameters", grouped(parameters)),
    ]));
    report.line(format_args!("wrote {}", folder.display()));
    report.json = json!({
        "source": args.source, "read": read, "dropped": dropped, "parameters": parameters, "save": folder,
    });
    Ok(report)
}

fn export(
    args: &ConvertArgs,
    table: &RuleTable,
    file: &PathBuf,
    progress: &Progress,
) -> Result<Report, CliError> {
    check_folder(file)?;
    let name = args.source.display().to_string();
    let lens = load(&name, &args.model, progress)?;
    let tensors = table.write(lens.model.parameters())?;
    let names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
    save_safetensors(file, tensors, BTreeMap::new())?;
    let mut report = Report::default();
    report.line(format_args!("wrote {} tensors to {}", names.len(), file.display()));
    report.json = json!({ "model": name, "tensors": names, "export": file });
    Ok(report)
}

fn activations(
    args: &ConvertArgs,
    table: &RuleTable,
    (vectors, file): (&PathBuf, &PathBuf),
    progress: &Progress,
) -> Result<Report, CliError> {
    check_folder(file)?;
    let lens = load(&args.source.display().to_string(), &args.model, progress)?;
    let input = examples::vectors(&lens, vectors)?;
    let options = CacheOptions::names(table.hooks(lens.model.config().n_layers)?);
    let (_, cache) = lens.model.run_with_cache(&input, &RunOptions::default(), &options)?;
    let found = table.activations(&lens.model, &cache)?;
    let shape = |data: &TensorData| format!("{:?}", data.shape().to_vec());
    let tree: NameTree<String> = found.iter().map(|(name, data)| (name, shape(data))).collect();
    let shapes: Vec<Value> =
        found.iter().map(|(name, data)| json!({ "name": name, "shape": data.shape().to_vec() })).collect();
    let tensors = found.iter().map(|(name, data)| (name.to_owned(), data.clone()));
    save_safetensors(file, tensors, BTreeMap::new())?;
    let mut report = Report::default();
    report.text.push_str(&tree.to_string());
    report.line(format_args!("wrote {}", file.display()));
    report.json = json!({ "model": lens.name, "modules": shapes, "activations": file });
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_json_or_text() {
        let parsed = |text: &str| text.parse::<Setting>().unwrap();
        assert_eq!(parsed("n_layers=2"), Setting("n_layers".to_owned(), 2.into()));
        assert_eq!(parsed("act_fn=relu"), Setting("act_fn".to_owned(), "relu".into()));
        assert_eq!(parsed("normalization_type=null").1, Value::Null);
        assert!("n_layers".parse::<Setting>().is_err() && "=2".parse::<Setting>().is_err());
    }
}
