//! The files of features.

use std::{collections::BTreeMap, path::Path};

use burn_lens::{
    Pretrained,
    hooks::HookPoint,
    io::{create_folder, save_safetensors, write_atomically, write_gzip},
    sae::features::{
        FeatureData, FeatureKind, FeatureRun, FeatureSet, GroupKind, Progress as Done, RunInfo, SCHEMA,
        Stage, TensorStore, TokenText, build,
        formats::{
            delphi,
            neuronpedia::{self, Batch},
            sae_vis::SaeVisData,
        },
    },
    token_texts,
};
use burn_lens_viz::{FeatureRow, feature_index, feature_script};
use serde_json::json;

use super::{Paced, args::OutArgs};
use crate::{
    error::CliError,
    progress::Progress,
    report::{Align, Report, grouped, table},
};

/// The entry of OUT that says where the features come from.
pub(super) const RUN: &str = "run.json";

/// The folder of features below OUT.
pub(super) const DATA: &str = "data";

/// Makes the features of a run and writes them.
pub(super) fn features(
    run: &FeatureRun<'_>,
    lens: &Pretrained,
    stores: &[&dyn TensorStore],
    args: &OutArgs,
    progress: &Progress,
) -> Result<Report, CliError> {
    create_folder(args.out.join(DATA))?;
    if args.html {
        create_folder(args.out.join("features"))?;
    }
    let mut written = Written { args, lens, rows: Vec::new(), kept: Vec::new() };
    let mut failure = None;
    let mut steps = Paced::new(progress, "steps", 3 * n_features(run));
    let mut sink = |data: FeatureData| {
        if failure.is_none() {
            failure = written.feature(data).err();
        }
        Ok(())
    };
    let mut report = |done: Done| steps.at(share(done));
    let info = build(run, stores, &mut sink, &mut report)?;
    drop(steps);
    if let Some(failure) = failure {
        return Err(failure);
    }
    written.rest(info, stores)
}

fn n_features(run: &FeatureRun<'_>) -> usize {
    use burn_lens::sae::features::FeatureChoice;
    match &run.options.features {
        FeatureChoice::All => run.source.n_features(),
        FeatureChoice::Some(features) => features.len(),
    }
}

/// How far the features have come, as one number: each is counted at each stage.
fn share(done: Done) -> usize {
    let stage = match done.stage {
        Stage::Run | Stage::Select => 0,
        Stage::Logits => 1,
        Stage::Effects => 2,
    };
    stage * done.total + done.done
}

/// What has been written.
struct Written<'a> {
    args: &'a OutArgs,
    lens: &'a Pretrained,
    rows: Vec<FeatureRow>,
    /// For formats that hold all features in one file.
    kept: Vec<FeatureData>,
}

impl Written<'_> {
    fn vocabulary(&self, set: &FeatureSet) -> BTreeMap<u32, TokenText> {
        let tokenizer = self.lens.tokenizer.as_ref();
        tokenizer.map(|tokenizer| token_texts(tokenizer, &set.token_ids())).unwrap_or_default()
    }

    fn feature(&mut self, data: FeatureData) -> Result<(), CliError> {
        let number = data.feature;
        let mut set = FeatureSet { schema: SCHEMA, features: vec![data], ..FeatureSet::default() };
        set.vocabulary = self.vocabulary(&set);
        write_text(&self.args.out.join(DATA).join(format!("{number}.json")), &set.to_json()?)?;
        let data = &set.features[0];
        if self.args.html {
            let script = feature_script(&set.vocabulary, data)?;
            write_text(&self.args.out.join("features").join(format!("{number}.js")), &script)?;
        }
        self.rows.push(row(&set, data));
        if self.args.neuronpedia || self.args.sae_vis {
            self.kept.extend(set.features);
        }
        Ok(())
    }

    fn rest(self, info: RunInfo, stores: &[&dyn TensorStore]) -> Result<Report, CliError> {
        let out = &self.args.out;
        write_text(
            &out.join(RUN),
            &serde_json::to_string_pretty(&info).map_err(|error| CliError::Setup(error.into()))?,
        )?;
        if self.args.html {
            // The feature that is seen first is one that can be seen.
            let first =
                self.rows.iter().filter(|row| row.kind == "sparse").max_by(|a, b| a.max.total_cmp(&b.max));
            let page = feature_index(
                &format!("Features of {}", info.sae),
                &info,
                &self.rows,
                first.map(|row| row.feature),
            )?;
            write_text(&out.join("index.html"), &page)?;
        }
        let mut set =
            FeatureSet { schema: SCHEMA, run: info, features: self.kept.clone(), ..FeatureSet::default() };
        set.vocabulary = self.vocabulary(&set);
        if self.args.neuronpedia {
            neuronpedia_files(&out.join("neuronpedia"), &set)?;
        }
        if self.args.sae_vis {
            write_text(&out.join("sae_vis.json"), &SaeVisData::from(&set).to_json()?)?;
        }
        if self.args.delphi {
            delphi_files(&out.join("delphi"), &set.run, stores)?;
        }
        Ok(report(&set.run, &self.rows, self.args))
    }
}

fn write_text(path: &Path, text: &str) -> Result<(), CliError> {
    Ok(write_atomically(path, |file| file.write_all(text.as_bytes()))?)
}

/// A feature in the list.
fn row(set: &FeatureSet, data: &FeatureData) -> FeatureRow {
    let top = data.groups.iter().find(|group| group.kind == GroupKind::Top);
    let strongest = top.and_then(|group| group.sequences.first());
    let token = strongest.and_then(|sequence| sequence.tokens.get(sequence.target));
    FeatureRow {
        feature: data.feature,
        label: data.label.clone(),
        kind: match data.kind {
            FeatureKind::Dead => "dead",
            FeatureKind::Constant => "constant",
            FeatureKind::Dense => "dense",
            FeatureKind::Sparse => "sparse",
        }
        .to_owned(),
        density: data.statistics.density(),
        n_active: data.statistics.n_active,
        max: f64::from(data.statistics.max),
        top: token.map_or_else(String::new, |&token| set.text_of(token)),
    }
}

fn neuronpedia_files(folder: &Path, set: &FeatureSet) -> Result<(), CliError> {
    let hook: Option<HookPoint> = set.run.hook.parse().ok();
    let source = neuronpedia::Source {
        model_id: set.run.model.clone(),
        layer: hook.and_then(HookPoint::layer).unwrap_or(0),
        sae_set: set.run.sae.clone(),
        ..neuronpedia::Source::default()
    };
    let bulk = folder.join(source.id());
    for folder in [folder, &bulk.join("features"), &bulk.join("activations")] {
        create_folder(folder)?;
    }
    write_text(&folder.join("batch-0.json"), &Batch::of(set, &source).to_json()?)?;
    let features = neuronpedia::to_lines(&neuronpedia::bulk_features(set, &source))?;
    write_gzip(bulk.join("features").join("batch-0.jsonl.gz"), &features)?;
    let activations = neuronpedia::to_lines(&neuronpedia::bulk_activations(set, &source))?;
    write_gzip(bulk.join("activations").join("batch-0.jsonl.gz"), &activations)?;
    Ok(())
}

fn delphi_files(folder: &Path, run: &RunInfo, stores: &[&dyn TensorStore]) -> Result<(), CliError> {
    /// As many as Delphi makes.
    const SPLITS: usize = 5;
    let folder = folder.join(&run.hook);
    create_folder(&folder)?;
    for split in delphi::cache(stores, SPLITS)? {
        save_safetensors(folder.join(split.file_name()), split.to_tensors(), BTreeMap::new())?;
    }
    let config = delphi::config(&run.model, run.n_positions, run.n_prompts * run.n_positions);
    write_text(&folder.join("config.json"), &config)
}

fn report(run: &RunInfo, rows: &[FeatureRow], args: &OutArgs) -> Report {
    /// So many features are listed.
    const LISTED: usize = 10;
    let mut report = Report::default();
    report.heading(format_args!("{} features of {} at {}", grouped(rows.len()), run.sae, run.hook));
    report.line(format_args!(
        "{} tokens of {} prompts were counted",
        grouped(run.n_tokens as usize),
        grouped(run.n_prompts)
    ));
    let mut strongest: Vec<&FeatureRow> = rows.iter().filter(|row| row.n_active > 0).collect();
    strongest.sort_by(|a, b| b.max.total_cmp(&a.max));
    let cells = |row: &&FeatureRow| {
        let density = format!("{:.3}%", 100.0 * row.density);
        vec![
            row.feature.to_string(),
            row.kind.clone(),
            density,
            format!("{:.3}", row.max),
            burn_lens_viz::visible(&row.top),
        ]
    };
    let columns = [
        ("feature", Align::Right),
        ("kind", Align::Left),
        ("density", Align::Right),
        ("max", Align::Right),
        ("strongest at", Align::Left),
    ];
    report.text.push_str(&table(&columns, &strongest.iter().take(LISTED).map(cells).collect::<Vec<_>>()));
    for note in &run.notes {
        report.line(format_args!("note: {note}"));
    }
    let out = args.out.display();
    report.line(format_args!("wrote {out}/{DATA}: a file for each feature"));
    if args.html {
        report.line(format_args!("wrote {out}/index.html: open it in a browser; it needs no network"));
    }
    report.json = json!({ "out": args.out, "run": run, "features": rows });
    report
}
