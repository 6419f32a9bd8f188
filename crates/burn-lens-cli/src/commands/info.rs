//! `burn-lens info`

use burn_lens::{
    Pretrained,
    hooks::HookedModel as _,
    io::{PaddingSide, Tokenizer},
    models::{
        BlockLayout, MlpBias, MlpKind, ModelConfig, NormPlacement,
        components::{NormKind, Pairing, Positions, Rotary, RotaryScaling},
        processing::Step,
    },
    tensor::{AnyTensor, FloatType},
};
use serde_json::{Value, json};

use crate::{
    args::InfoArgs,
    error::CliError,
    load::load,
    next_tokens::{shown, token_text},
    progress::Progress,
    report::{Align, Report, bytes, grouped, pairs, table},
};

/// What a model is made of.
pub(crate) fn info(args: &InfoArgs, progress: &Progress) -> Result<Report, CliError> {
    let lens = load(&args.name, &args.model, progress)?;
    let config = lens.model.config();
    let counted = Counted::new(&lens);
    let mut report = Report::default();
    report.heading(format!("{} ({})", lens.name, config.architecture));
    report.text.push_str(&pairs(&sizes(config, &counted)));
    report.heading("Parts");
    report.text.push_str(&pairs(&parts(config)));
    report.heading("Processing");
    report.text.push_str(&steps_table(config));
    report.heading("Tokenizer");
    let takes = if config.dims().d_in > 0 { "vectors" } else { "token ids" };
    report.text.push_str(&tokenizer_text(lens.tokenizer.as_ref(), takes));
    report.json = json!({
        "model": lens.name,
        "architecture": config.architecture,
        "sizes": sizes_json(config),
        "parameters": counted.params,
        "tied": config.tied,
        "dtype": counted.dtype,
        "weight_bytes": counted.weights,
        "activation_bytes_per_position": counted.per_position,
        "parts": parts(config).into_iter().map(|(name, text)| (name.replace(' ', "_"), Value::from(text))).collect::<serde_json::Map<_, _>>(),
        "processing": Step::ALL.map(|step| json!({
            "step": step.name(),
            "default": Step::DEFAULT.contains(&step),
            "invalid_because": step.invalid_for(config),
        })),
        "tokenizer": lens.tokenizer.as_ref().map(tokenizer_json),
    });
    Ok(report)
}

/// What is counted in the loaded model.
struct Counted {
    /// A tied unembedding once.
    params: usize,
    dtype: String,
    weights: u64,
    /// Bytes of the activations that always fire, without those of position pairs.
    per_position: u64,
}

impl Counted {
    fn new(lens: &Pretrained) -> Self {
        let (config, dims) = (lens.model.config(), lens.model.dims());
        let all = lens.model.parameters();
        let tied = if config.tied { config.d_vocab_out * config.d_model } else { 0 };
        let dtype = FloatType::from_dtype(lens.model.dtype());
        let width = lens.model.dtype().size();
        let per_position = lens.model.firing().always.into_iter().map(|point| {
            let lens = point.axes().iter().filter_map(|&axis| dims.len_of(axis));
            if point.axes().contains(&burn_lens::hooks::Axis::KeyPos) { 0 } else { lens.product::<usize>() }
        });
        Self {
            params: all.num_params().saturating_sub(tied),
            dtype: dtype.map_or_else(|| format!("{:?}", lens.model.dtype()), |dtype| dtype.to_string()),
            weights: all.iter().map(|(_, tensor): (_, &AnyTensor)| tensor.num_bytes() as u64).sum(),
            per_position: (per_position.sum::<usize>() * width) as u64,
        }
    }
}

fn sizes_json(config: &ModelConfig) -> Value {
    let dims = config.dims();
    json!({
        "n_layers": dims.n_layers, "d_model": dims.d_model, "n_heads": dims.n_heads, "n_kv_heads": dims.n_kv_heads,
        "d_head": dims.d_head, "d_mlp": dims.d_mlp, "n_ctx": dims.n_ctx, "d_vocab": dims.d_vocab,
        "d_vocab_out": dims.d_vocab_out, "d_in": dims.d_in, "d_out": dims.d_out,
    })
}

fn sizes(config: &ModelConfig, counted: &Counted) -> Vec<(&'static str, String)> {
    let dims = config.dims();
    let heads = if dims.n_kv_heads == dims.n_heads {
        dims.n_heads.to_string()
    } else {
        format!("{} (for keys and values {})", dims.n_heads, dims.n_kv_heads)
    };
    let vocab = if dims.d_in > 0 {
        format!("none: vectors of {} numbers in, of {} out", dims.d_in, dims.d_out)
    } else if dims.d_vocab == dims.d_vocab_out {
        grouped(dims.d_vocab)
    } else {
        format!("{} (output {})", grouped(dims.d_vocab), grouped(dims.d_vocab_out))
    };
    let tied = if config.tied { " (unembedding tied to the embedding, counted once)" } else { "" };
    vec![
        ("layers", dims.n_layers.to_string()),
        ("d_model", dims.d_model.to_string()),
        ("heads", heads),
        ("d_head", dims.d_head.to_string()),
        ("d_mlp", if dims.d_mlp == 0 { "none".to_owned() } else { dims.d_mlp.to_string() }),
        ("context", format!("{} {}", grouped(dims.n_ctx), if dims.d_in > 0 { "vectors" } else { "tokens" })),
        ("vocabulary", vocab),
        ("parameters", format!("{}{tied}", grouped(counted.params))),
        ("weights", format!("{} in {}", bytes(counted.weights), counted.dtype)),
        ("activations", format!("{} per position, besides scores and patterns", bytes(counted.per_position))),
    ]
}

fn parts(config: &ModelConfig) -> Vec<(&'static str, String)> {
    vec![
        ("norm", norm(config)),
        ("positions", positions(&config.positions)),
        ("attention", attention(config)),
        ("windows", windows(&config.attention.windows)),
        ("mlp", mlp(config)),
        (
            "blocks",
            match config.layout {
                BlockLayout::Sequential => "attention, then MLP".to_owned(),
                BlockLayout::Parallel => "attention and MLP side by side".to_owned(),
            },
        ),
        ("logits", {
            let cap = config.logits_soft_cap.map(|cap| format!("soft-capped at {cap}"));
            let bias = config.unembed_bias.then(|| "with a bias".to_owned());
            let said: Vec<String> = [cap, bias].into_iter().flatten().collect();
            if said.is_empty() { "plain".to_owned() } else { said.join(", ") }
        }),
    ]
}

fn norm(config: &ModelConfig) -> String {
    let norm = config.norm;
    let name = |kind: NormKind| match kind {
        NormKind::None => "none",
        NormKind::Layer => "LayerNorm",
        NormKind::Rms => "RMSNorm",
    };
    let place = match norm.placement {
        NormPlacement::Pre => "before each half",
        NormPlacement::Post => "after each half",
        NormPlacement::Both => "before and after each half",
    };
    let mut text = format!("{} {place}, eps {:e}", name(norm.kind), norm.eps);
    if norm.kind == NormKind::None {
        "none".clone_into(&mut text);
    } else if !norm.weights {
        text.push_str(", weights folded away");
    }
    if norm.final_kind != norm.kind {
        text = format!("{text}; at the end {}", name(norm.final_kind));
    }
    if norm.after_embedding {
        text.push_str("; one more after the embedding");
    }
    text
}

fn positions(positions: &Positions) -> String {
    match positions {
        Positions::None => "none".to_owned(),
        Positions::Learned => "learned, added to the embedding".to_owned(),
        Positions::Alibi => "ALiBi: a bias on scores, linear in the distance".to_owned(),
        Positions::Rotary(rotary) => self::rotary(rotary),
    }
}

fn rotary(rotary: &Rotary) -> String {
    let pairs = match rotary.pairing {
        Pairing::Halves => "halves",
        Pairing::Adjacent => "neighbours",
    };
    let scaling = match &rotary.scaling {
        RotaryScaling::None => String::new(),
        scaling => format!(", scaled: {scaling:?}"),
    };
    let local =
        rotary.local_base.map_or_else(String::new, |base| format!(" ({base} in layers with a window)"));
    format!("rotary over {} dimensions, base {}{local}, pairs are {pairs}{scaling}", rotary.dim, rotary.base)
}

fn attention(config: &ModelConfig) -> String {
    let attention = &config.attention;
    let kind = match (attention.n_heads, attention.n_kv_heads) {
        (heads, groups) if heads == groups => "multi-head".to_owned(),
        (_, 1) => "multi-query".to_owned(),
        (heads, groups) => format!("grouped-query, {} heads share a key", heads / groups),
    };
    let direction = if attention.bidirectional { "bidirectional" } else { "causal" };
    let mut text = vec![format!("{kind}, {direction}"), format!("scores divided by {:.4}", attention.scale)];
    if attention.scale_by_inverse_layer {
        text.push("and by layer + 1".to_owned());
    }
    text.extend(attention.scores_soft_cap.map(|cap| format!("soft-capped at {cap}")));
    text.extend(attention.qk_norm_eps.map(|eps| format!("queries and keys normed (eps {eps:e})")));
    text.extend(attention.clip_qkv.map(|clip| format!("queries, keys and values clipped at {clip}")));
    text.extend(attention.sinks.then(|| "with sinks".to_owned()));
    text.push(match (attention.qkv_bias, attention.out_bias) {
        (true, true) => "biases".to_owned(),
        (true, false) => "biases on queries, keys and values only".to_owned(),
        (false, true) => "a bias on the output only".to_owned(),
        (false, false) => "no biases".to_owned(),
    });
    text.join(", ")
}

fn windows(windows: &[Option<usize>]) -> String {
    let local: Vec<String> = windows
        .iter()
        .enumerate()
        .filter(|(_, window)| window.is_some())
        .map(|(layer, _)| layer.to_string())
        .collect();
    let mut lengths: Vec<usize> = windows.iter().flatten().copied().collect();
    lengths.sort_unstable();
    lengths.dedup();
    let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
    match local.len() {
        0 => "none: each position sees everything before it".to_owned(),
        count if count == windows.len() => format!("{} positions in every layer", lengths.join(" or ")),
        _ => format!("{} positions in layers {}", lengths.join(" or "), local.join(", ")),
    }
}

fn mlp(config: &ModelConfig) -> String {
    let Some(mlp) = &config.mlp else { return "none (attention only)".to_owned() };
    let kind = match mlp.kind {
        MlpKind::Plain => "plain",
        MlpKind::Gated => "gated",
    };
    let bias = match (mlp.bias, mlp.kind) {
        (MlpBias::None, _) => "no biases",
        (MlpBias::BehindProduct, MlpKind::Gated) => "biases, one of them behind the product",
        _ => "biases",
    };
    format!("{kind}, {}, {bias}", mlp.act_fn)
}

fn steps_table(config: &ModelConfig) -> String {
    let row = |step: Step| {
        let default = if Step::DEFAULT.contains(&step) { "yes" } else { "no" };
        let valid = step
            .invalid_for(config)
            .map_or_else(|| "valid".to_owned(), |reason| format!("not valid: {reason}"));
        vec![format!("  {step}"), default.to_owned(), valid]
    };
    let columns = [("  step", Align::Left), ("in `default`", Align::Left), ("for this model", Align::Left)];
    table(&columns, &Step::ALL.map(row))
}

fn tokenizer_text(tokenizer: Option<&Tokenizer>, takes: &str) -> String {
    let Some(tokenizer) = tokenizer else { return format!("  none: the model takes {takes} only\n") };
    let special = |id: Option<i64>| {
        id.map_or_else(|| "none".to_owned(), |id| format!("{} (id {id})", shown(Some(tokenizer), id)))
    };
    pairs(&[
        ("tokens", grouped(tokenizer.vocab_size())),
        ("BOS", special(tokenizer.bos())),
        ("EOS", special(tokenizer.eos())),
        ("padding", format!("{}, on the {}", special(tokenizer.pad()), side(tokenizer))),
        ("unknown", special(tokenizer.unk())),
        ("prepend BOS", if tokenizer.default_prepend_bos() { "yes" } else { "no" }.to_owned()),
    ])
}

fn side(tokenizer: &Tokenizer) -> &'static str {
    match tokenizer.padding_side() {
        PaddingSide::Left => "left",
        PaddingSide::Right => "right",
    }
}

fn tokenizer_json(tokenizer: &Tokenizer) -> Value {
    let special =
        |id: Option<i64>| id.map(|id| json!({ "id": id, "token": token_text(Some(tokenizer), id) }));
    json!({
        "size": tokenizer.vocab_size(),
        "bos": special(tokenizer.bos()),
        "eos": special(tokenizer.eos()),
        "padding": special(tokenizer.pad()),
        "unknown": special(tokenizer.unk()),
        "padding_side": side(tokenizer),
        "prepend_bos": tokenizer.default_prepend_bos(),
    })
}
