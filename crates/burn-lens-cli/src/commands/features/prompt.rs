//! `burn-lens features prompt`

use std::{collections::HashMap, path::Path};

use burn_lens::{
    FeatureFolder, Pretrained,
    io::{TokenOptions, read_text},
    sae::features::{
        FeatureOptions, FeatureRun, FeatureSet, FeatureStatistics, PromptFeature, PromptMetric, TokenTable,
        prompt_features,
    },
};
use burn_lens_viz::visible;
use serde_json::json;

use super::{
    args::{Metric, PromptArgs},
    output::DATA,
    run::ACTIVATIONS,
    setup::Setup,
    source,
};
use crate::{
    error::CliError,
    load::load,
    progress::Progress,
    report::{Align, Report, table},
};

/// Ranks the features at each token of a prompt.
pub(super) fn prompt(args: &PromptArgs, progress: &Progress) -> Result<Report, CliError> {
    let setup = Setup::load(&FeatureFolder::open(args.path.join(ACTIVATIONS))?)?;
    let lens = load(&setup.model, &setup.model_args()?, progress)?;
    let source = source::open(&setup, &lens, progress)?;
    let tokens = lens.tokenizer()?.to_tokens(&[args.prompt.as_str()], TokenOptions::default())?;
    let tokens = TokenTable::new(&tokens.ids, None)?;
    let options: FeatureOptions = setup.options.clone();
    let run = FeatureRun {
        model: &lens.model,
        model_name: &setup.model_name(),
        source: &*source,
        source_b: None,
        tokens: &tokens,
        options: &options,
    };
    let mut known = Known { path: &args.path, read: HashMap::new() };
    let found = prompt_features(&run, &mut |feature, activation| known.quantile(feature, activation))?;
    Ok(report(args, &lens, &tokens, &found))
}

/// What is known of the features that are met.
struct Known<'a> {
    path: &'a Path,
    read: HashMap<usize, Option<FeatureStatistics>>,
}

impl Known<'_> {
    fn quantile(&mut self, feature: usize, activation: f32) -> Option<f64> {
        let file = self.path.join(DATA).join(format!("{feature}.json"));
        let read = || {
            // A feature that was not asked for has no file.
            let set = FeatureSet::from_json(&read_text(file).ok()?).ok()?;
            set.features.into_iter().next().map(|data| data.statistics)
        };
        let statistics = self.read.entry(feature).or_insert_with(read);
        statistics.as_ref().map(|statistics| statistics.quantile_of(activation))
    }
}

fn report(args: &PromptArgs, lens: &Pretrained, tokens: &TokenTable, found: &[PromptFeature]) -> Report {
    let metric = match args.by {
        Metric::Activation => PromptMetric::Activation,
        Metric::Quantile => PromptMetric::Quantile,
        Metric::Loss => PromptMetric::LossEffect,
    };
    let text = |token: u32| {
        let text = lens.tokenizer.as_ref().map(|tokenizer| tokenizer.to_single_str_token(i64::from(token)));
        text.and_then(Result::ok).map_or_else(|| token.to_string(), |token| visible(&token.text))
    };
    let mut rows = Vec::new();
    let mut ranked_json = Vec::new();
    for (position, &token) in tokens.tokens(0..1).iter().enumerate() {
        let ranked: Vec<&PromptFeature> = metric.ranked(found, position).into_iter().take(args.top).collect();
        rows.extend(ranked.iter().enumerate().map(|(at, feature)| {
            let number =
                |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |x| format!("{x:.digits$}"));
            let effect = feature.loss_effect.map_or("-".to_owned(), |effect| format!("{effect:+.4}"));
            let likelier = feature.hover.as_ref().and_then(|hover| hover.top.first());
            vec![
                if at == 0 { position.to_string() } else { String::new() },
                if at == 0 { text(token) } else { String::new() },
                feature.feature.to_string(),
                format!("{:.3}", feature.activation),
                number(feature.quantile, 4),
                effect,
                likelier.map_or_else(String::new, |likelier| text(likelier.token)),
            ]
        }));
        ranked_json
            .push(json!({ "position": position, "token": token, "text": text(token), "features": ranked }));
    }
    let mut report = Report::default();
    let columns = [
        ("pos", Align::Right),
        ("token", Align::Left),
        ("feature", Align::Right),
        ("activation", Align::Right),
        ("quantile", Align::Right),
        ("loss effect", Align::Right),
        ("makes likelier", Align::Left),
    ];
    report.text.push_str(&table(&columns, &rows));
    report.json = json!({ "by": metric, "positions": ranked_json });
    report
}
