//! `burn-lens attention-clusters`: what heads do on sequences of examples.

mod args;
mod describe;
pub(crate) mod examples;
mod page;

use std::path::{Path, PathBuf};

use burn_lens::{
    Pretrained,
    analysis::clusters::{Examples, Selection, Swept, sweep},
    hooks::HookedModel,
};
use burn_lens_viz::{QuadrantFigure, VizError};
use serde_json::{Value, json};

pub(crate) use args::ClustersArgs;

use crate::{
    commands::train::checkpoints,
    error::{CliError, check_folder},
    files::{beside, write_bytes},
    load::load,
    progress::Progress,
    report::Report,
};

/// What was found at one place.
struct Place<'a> {
    /// The checkpoint, where there are several.
    checkpoint: Option<&'a str>,
    /// The sequence's number.
    sample: usize,
    x: &'a [Vec<f64>],
    y: &'a [f64],
    swept: &'a Swept,
}

/// Clusters the attention of heads, and says what the clusters are.
pub(crate) fn attention_clusters(args: &ClustersArgs, progress: &Progress) -> Result<Report, CliError> {
    let out = &args.out;
    for path in out.svg.iter().chain(&out.png).chain(&out.html) {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let examples = examples::examples(&lens, args.examples.as_deref(), &args.sample)?;
    check(args, &lens)?;
    let models = if args.checkpoints { earlier(args, progress)? } else { vec![(String::new(), lens)] };
    let models: Vec<(&str, &dyn HookedModel)> =
        models.iter().map(|(name, lens)| (name.as_str(), &lens.model as &dyn HookedModel)).collect();
    let selection =
        Selection { layers: args.layer.clone(), heads: args.head.clone(), ..Selection::default() };
    let step = progress.step("clustering");
    let swept = sweep(&models, &examples, &selection, &args.clusters.options(args.model.seed))?;
    drop(step);
    let places: Vec<Place<'_>> = swept.iter().map(|swept| place(args, &examples, swept)).collect();
    finish(args, &places)
}

/// Refuses layers and heads that the model does not have.
fn check(args: &ClustersArgs, lens: &Pretrained) -> Result<(), CliError> {
    let dims = lens.model.dims();
    for (what, values, count) in [("layer", &args.layer, dims.n_layers), ("head", &args.head, dims.n_heads)] {
        if let Some(&value) = values.iter().find(|&&value| value >= count) {
            return Err(CliError::OutOfRange { what, value, count });
        }
    }
    Ok(())
}

/// The checkpoints of the training, by step.
fn earlier(args: &ClustersArgs, progress: &Progress) -> Result<Vec<(String, Pretrained)>, CliError> {
    let load = |(name, path): (String, PathBuf)| {
        Ok((name, load(&path.display().to_string(), &args.model, progress)?))
    };
    checkpoints(Path::new(&args.name))?.into_iter().map(load).collect()
}

fn place<'a>(args: &ClustersArgs, examples: &'a Examples, swept: &'a Swept) -> Place<'a> {
    Place {
        checkpoint: args.checkpoints.then_some(swept.checkpoint.as_str()),
        sample: args.sample[swept.sample],
        x: &examples.x[swept.sample],
        y: &examples.y[swept.sample],
        swept,
    }
}

impl Place<'_> {
    fn title(&self) -> String {
        let Swept { layer, head, .. } = self.swept;
        let of = self.checkpoint.map_or_else(String::new, |name| format!(" of {name}"));
        format!("layer {layer}, head {head}, sample {}{of}", self.sample)
    }

    /// In the names of files.
    fn name(&self) -> String {
        let Swept { layer, head, .. } = self.swept;
        let of = self.checkpoint.map_or_else(String::new, |name| format!("{name}-"));
        format!("{of}layer{layer}-head{head}-sample{}", self.sample)
    }

    /// The composite figure; none where nothing could be clustered.
    fn figure(&self) -> Option<QuadrantFigure> {
        let clusters = self.swept.clusters.as_ref().ok()?;
        Some(QuadrantFigure {
            title: self.title(),
            pattern: self.swept.pattern.pattern().to_vec(),
            x: self.x.to_vec(),
            y: self.y.to_vec(),
            x_clusters: clusters.x.labels.clone(),
            y_clusters: clusters.y.labels.clone(),
        })
    }

    fn json(&self) -> Value {
        let Swept { layer, head, .. } = self.swept;
        let mut json = json!({
            "checkpoint": self.checkpoint, "layer": layer, "head": head, "sample": self.sample,
            "pattern": self.swept.pattern.pattern(), "x": self.x, "y": self.y,
        });
        match &self.swept.clusters {
            Ok(clusters) => json["clusters"] = json!(clusters),
            Err(error) => json["refused"] = error.to_string().into(),
        }
        json
    }
}

/// Writes pictures and says what was found.
fn finish(args: &ClustersArgs, places: &[Place<'_>]) -> Result<Report, CliError> {
    let mut report = Report::default();
    match places {
        [one] => match &one.swept.clusters {
            Ok(clusters) => describe::one(one, clusters, &mut report)?,
            Err(error) => {
                let reason = error.to_string();
                return Err(CliError::NotClustered { place: one.title(), reason });
            }
        },
        many => describe::many(many, &mut report),
    }
    let mut files = Vec::new();
    for place in places {
        files.extend(pictures(args, place, places.len() > 1)?);
    }
    if let Some(path) = &args.out.html {
        let html = page::page(&args.name, places)?.to_html()?;
        write_bytes(path, html.as_bytes())?;
        files.push(path.clone());
    }
    if !files.is_empty() {
        report.line("");
    }
    for file in &files {
        report.line(format_args!("wrote {}", file.display()));
    }
    let places: Vec<Value> = places.iter().map(Place::json).collect();
    report.json = json!({ "model": args.name, "places": places, "files": files });
    Ok(report)
}

/// The figure of a place, and its sweep over k.
fn pictures(args: &ClustersArgs, place: &Place<'_>, many: bool) -> Result<Vec<PathBuf>, CliError> {
    let (Some(figure), Ok(clusters)) = (place.figure(), &place.swept.clusters) else {
        return Ok(Vec::new());
    };
    let sweep = describe::sweep_plot(&place.title(), clusters);
    let mut files = Vec::new();
    let mut write = |path: &Path, draw: Draw, suffix: &str| -> Result<(), CliError> {
        let place = if many { format!("-{}", place.name()) } else { String::new() };
        let path = beside(path, &format!("{place}{suffix}"));
        write_bytes(&path, &draw?)?;
        files.push(path);
        Ok(())
    };
    if let Some(path) = &args.out.svg {
        write(path, figure.to_svg().map(String::into_bytes), "")?;
        write(path, sweep.to_svg().map(String::into_bytes), "-k")?;
    }
    if let Some(path) = &args.out.png {
        write(path, figure.to_png(), "")?;
        write(path, sweep.to_png(), "-k")?;
    }
    Ok(files)
}

/// A picture's bytes.
type Draw = Result<Vec<u8>, VizError>;
