//! `burn-lens steer`

use std::{collections::BTreeMap, path::PathBuf};

use burn_lens::{
    Pretrained,
    analysis::interventions::{SteeringPos, SteeringVector},
    burn::tensor::Tensor,
    hooks::{Hook, HookContext, HookPoint, HookedModel as _, RunError, parse_act_name},
    io::{TokenOptions, save_safetensors},
    models::GenerateOptions,
};
use clap::{Args, builder::PossibleValuesParser};
use serde_json::json;

use crate::{
    args::ModelArgs,
    error::{CliError, check_folder},
    load::load,
    next_tokens::{next_token_table, next_tokens},
    progress::Progress,
    prompts::values,
    report::{DIM, Report},
};

#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = HELP)]
pub(crate) struct SteerArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    /// Texts that the vector leads to
    #[arg(long, value_name = "TEXT", num_args = 1.., required = true)]
    pub(crate) positive: Vec<String>,
    /// Texts that it leads away from
    #[arg(long, value_name = "TEXT", num_args = 1.., required = true)]
    pub(crate) negative: Vec<String>,
    /// The stream that is steered: resid_pre3, resid_post5, mlp_out2, …
    #[arg(long, value_name = "NAME")]
    pub(crate) at: String,
    /// mean: the difference of the means of both kinds. contrastive: the mean over pairs of texts of
    /// the direction from one to the other
    #[arg(verbatim_doc_comment, long, default_value = "mean", value_name = "METHOD", value_parser = PossibleValuesParser::new(["mean", "contrastive"]))]
    pub(crate) method: String,
    /// Fit on the mean over each text rather than on its last token
    #[arg(long)]
    pub(crate) over_text: bool,
    /// How often the vector is added
    #[arg(long, default_value_t = 1.0, value_name = "X", allow_negative_numbers = true)]
    pub(crate) factor: f64,
    /// Show what the vector does to the next tokens of these texts
    #[arg(long, short, value_name = "TEXT", num_args = 1..)]
    pub(crate) prompt: Vec<String>,
    /// Also continue them by so many tokens
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    /// Save the vector, for --add of `run` and `generate`
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

const USAGE: &str = "burn-lens steer <MODEL> --positive <TEXT>... --negative <TEXT>... --at <NAME> [--prompt <TEXT>...] \
                     [--save <FILE.safetensors>] [OPTIONS]";

const HELP: &str = "\
The vector is added at every position. A saved one is added by other commands, too:
  burn-lens generate MODEL --prompt TEXT --add resid_post1=steer.safetensors*4";

/// Fits a steering vector, and shows what it does.
pub(crate) fn steer(args: &SteerArgs, progress: &Progress) -> Result<Report, CliError> {
    if let Some(path) = &args.save {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let at = parse_act_name(&args.at, None, None, lens.model.dims().n_layers).map_err(RunError::from)?;
    let texts = |texts: &[String]| -> Result<Vec<Vec<i64>>, CliError> {
        let one = |text: &String| -> Result<Vec<i64>, CliError> {
            Ok(lens.to_tokens_with(&[text], TokenOptions::default())?.batch.ids.remove(0))
        };
        texts.iter().map(one).collect()
    };
    let (positive, negative) = (texts(&args.positive)?, texts(&args.negative)?);
    let pos = if args.over_text { SteeringPos::Mean } else { SteeringPos::Last };
    let step = progress.step("fitting a steering vector");
    let both = [&positive[..], &negative[..]];
    let vector = match args.method.as_str() {
        "contrastive" => SteeringVector::contrastive(&lens.model, at, both, pos)?,
        _ => SteeringVector::mean_difference(&lens.model, at, both, pos)?,
    };
    drop(step);
    let mut report = Report::default();
    let norm = vector.norm()?;
    report.heading(format_args!("steering at `{at}`: a vector of length {norm:.3}, times {}", args.factor));
    let mut shown = Vec::new();
    for prompt in &args.prompt {
        shown.push(effect(args, &lens, &vector, prompt, &mut report)?);
    }
    if let Some(path) = &args.save {
        let data = vector.vector.clone().into_data();
        let notes =
            BTreeMap::from([("hook".to_owned(), at.to_string()), ("method".to_owned(), args.method.clone())]);
        save_safetensors(path, [("direction".to_owned(), data)], notes)?;
        report.line(format_args!(
            "\nwrote {}; add it with --add {}={}",
            path.display(),
            args.at,
            path.display()
        ));
    }
    report.json = json!({
        "model": lens.name, "at": at.to_string(), "method": args.method, "norm": norm, "factor": args.factor,
        "vector": values(vector.vector)?, "prompts": shown, "save": args.save,
    });
    Ok(report)
}

fn hook(vector: &SteeringVector, factor: f64) -> (HookPoint, Tensor<3>) {
    (vector.at, vector.vector.clone().unsqueeze::<3>() * factor)
}

fn effect(
    args: &SteerArgs,
    lens: &Pretrained,
    vector: &SteeringVector,
    prompt: &str,
    report: &mut Report,
) -> Result<serde_json::Value, CliError> {
    const MOST: usize = 5;
    let steering = || {
        let (at, add) = hook(vector, args.factor);
        vec![Hook::edit(at, move |x: Tensor<3>, _: &mut HookContext<'_>| x + add.clone())]
    };
    let tokens = lens.to_tokens(&[prompt])?;
    let next = |hooks: Vec<Hook<'_>>| -> Result<Vec<crate::next_tokens::NextToken>, CliError> {
        let logits = lens.model.run_with_hooks(&tokens.input(), &tokens.options(), hooks)?.into_logits()?;
        let pos = logits.dims()[1];
        let logits = values(logits.narrow(1, pos - 1, 1))?;
        Ok(next_tokens(&logits, MOST, lens.tokenizer.as_ref()))
    };
    let (plain, steered) = (next(Vec::new())?, next(steering())?);
    report.heading(format_args!("{prompt:?}"));
    report.line(format_args!("{DIM}without the vector{DIM:#}"));
    report.text.push_str(&next_token_table(&plain));
    report.line(format_args!("{DIM}with it{DIM:#}"));
    report.text.push_str(&next_token_table(&steered));
    let mut continued = Vec::new();
    if args.max_new_tokens > 0 {
        let options = GenerateOptions { max_new_tokens: args.max_new_tokens, ..GenerateOptions::default() };
        for (name, hooks) in [("without", Vec::new()), ("with", steering())] {
            let text = lens.generate(&[prompt], &options, &[], hooks)?.remove(0).text;
            report.line(format_args!("{DIM}{name}:{DIM:#} {text}"));
            continued.push(text);
        }
    }
    Ok(json!({ "prompt": prompt, "without": plain, "with": steered, "continued": continued }))
}
