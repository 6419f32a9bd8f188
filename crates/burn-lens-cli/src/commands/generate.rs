//! `burn-lens generate`

use burn_lens::{
    Completion, Pretrained,
    io::{TokenOptions, Tokenizer},
    models::{FinishReason, GenerateOptions, Sampling},
};
use serde_json::json;

use crate::{
    args::GenerateArgs,
    edits::Texts,
    error::CliError,
    load::load,
    progress::Progress,
    report::{BOLD, Report},
};

/// Continues prompts.
pub(crate) fn generate(args: &GenerateArgs, progress: &Progress) -> Result<Report, CliError> {
    let mut lens = load(&args.name, &args.model, progress)?;
    if let (Some(prepend_bos), Some(tokenizer)) = (args.prepend_bos, &mut lens.tokenizer) {
        tokenizer.set_default_prepend_bos(prepend_bos);
    }
    let hooks = if args.edits.is_empty() {
        Vec::new()
    } else {
        args.edits.hooks(&lens, &texts(args, &lens)?, progress)?
    };
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            frequency_penalty: args.frequency_penalty,
            repetition_penalty: args.repetition_penalty,
        },
        stop_at_eos: !args.no_eos,
        use_past_kv_cache: !args.no_kv_cache,
        seed: args.model.seed,
        ..GenerateOptions::default()
    };
    let step = progress.step("generating");
    let completions = lens.generate(&args.prompt, &options, &args.stop, hooks)?;
    drop(step);
    report(args, lens.tokenizer()?, &completions)
}

/// Where positions are, for interventions.
fn texts(args: &GenerateArgs, lens: &Pretrained) -> Result<Texts, CliError> {
    let tokenizer = lens.tokenizer()?;
    let mut lengths = Vec::with_capacity(args.prompt.len());
    for prompt in &args.prompt {
        let batch = tokenizer.to_tokens(&[prompt], TokenOptions::default())?;
        lengths.extend(batch.ids.iter().map(Vec::len));
    }
    Ok(Texts::of_generation(&lengths, args.max_new_tokens, lens.model.config().n_ctx))
}

fn report(
    args: &GenerateArgs,
    tokenizer: &Tokenizer,
    completions: &[Completion],
) -> Result<Report, CliError> {
    let mut report = Report::default();
    let mut list = Vec::new();
    for (at, (prompt, completion)) in args.prompt.iter().zip(completions).enumerate() {
        let continuation = continuation(tokenizer, completion)?;
        if at > 0 {
            report.line("");
        }
        report.line(format_args!("{prompt}{BOLD}{continuation}{BOLD:#}"));
        list.push(json!({
            "prompt": prompt,
            "continuation": continuation,
            "prompt_tokens": completion.prompt,
            "tokens": completion.tokens,
            "finish": finish(completion.finish),
        }));
    }
    report.json = list.into();
    Ok(report)
}

/// The new text with the white space that stands between it and the prompt: some tokenizers
/// leave out that of the first token when they decode it alone.
fn continuation(tokenizer: &Tokenizer, completion: &Completion) -> Result<String, CliError> {
    let all = [&completion.prompt[..], &completion.tokens[..]].concat();
    let (before, whole) = (tokenizer.to_string(&completion.prompt)?, tokenizer.to_string(&all)?);
    Ok(whole.strip_prefix(&before).map_or_else(|| completion.text.clone(), str::to_owned))
}

fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Eos => "eos",
        FinishReason::Stop => "stop",
        FinishReason::Context => "context",
    }
}
