//! `burn-lens circuits`

mod heads;
mod pairs;
mod spectrum;
mod vectors;

use std::{collections::BTreeMap, path::PathBuf};

use burn_lens::{
    Pretrained,
    analysis::{Circuits, Folding},
    burn::tensor::TensorData,
    io::{save_safetensors, write_atomically},
    linalg::Values,
    models::HookedTransformer,
};
use burn_lens_viz::{Grid, Page, Section};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    args::ModelArgs,
    error::{CliError, check_folder},
    load::load,
    progress::Progress,
    report::{DIM, Report},
};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct CircuitsArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    /// What to show of its circuits
    #[arg(long, value_name = "WHAT")]
    pub(crate) show: Show,
    /// Of which matrix. eigenvalues: OV, QK, full_OV (if not given) or full_QK; composition: Q, K or V
    /// (all three if not given); svd: OV (if not given), w_in, w_gate, w_out, QK_left or QK_right
    #[arg(verbatim_doc_comment, long, value_name = "MATRIX")]
    pub(crate) of: Option<String>,
    /// Only this layer; for composition, only pairs with a head of it
    #[arg(long, value_name = "N")]
    pub(crate) layer: Option<usize>,
    /// Only this head; needs --layer
    #[arg(long, value_name = "N", requires = "layer")]
    pub(crate) head: Option<usize>,
    /// How many heads, pairs or singular vectors to show; all with --json and --save, but for vectors
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) top: usize,
    /// Leave the norms' weights out, instead of folding them into what reads through them
    #[arg(long)]
    pub(crate) raw: bool,
    /// Save the numbers here
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) save: Option<PathBuf>,
    /// Also write a page that opens offline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

const HELP: &str = "\
copying      Σ Re λ / Σ |λ| over the eigenvalues of each head's W_E OV W_U (1: attending to a token makes
             it likelier), and of OV alone
attention    what heads attend to by their weights: the same token, their own position, the one before
composition  how much each head reads of what earlier heads write: ‖L R‖ / (‖L‖ ‖R‖)
eigenvalues  of a circuit of each head
svd          the tokens behind singular vectors, through the unembedding
norms        Frobenius norms of OV and QK

Nothing is run: all of it comes from the weights.";

/// What to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    Copying,
    Attention,
    Composition,
    Eigenvalues,
    Svd,
    Norms,
}

/// What one kind of analysis has to show.
#[derive(Default)]
pub(crate) struct Shown {
    report: Report,
    json: Value,
    tensors: Vec<(String, TensorData)>,
    sections: Vec<Section>,
}

/// A loaded model and what is wanted of it.
pub(crate) struct Job<'a> {
    args: &'a CircuitsArgs,
    lens: &'a Pretrained,
    circuits: &'a Circuits<'a, HookedTransformer>,
    folding: Folding,
}

/// Shows what heads and MLPs read and write.
pub(crate) fn circuits(args: &CircuitsArgs, progress: &Progress) -> Result<Report, CliError> {
    for path in args.html.iter().chain(&args.save) {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let folding = if args.raw { Folding::Raw } else { Folding::Fold };
    let circuits = Circuits::new(&lens.model, folding)?;
    let job = Job { args, lens: &lens, circuits: &circuits, folding };
    job.check()?;
    let step = progress.step("decomposing");
    let shown = match args.show {
        Show::Copying => heads::copying(&job),
        Show::Attention => heads::attention(&job),
        Show::Norms => heads::norms(&job),
        Show::Composition => pairs::composition(&job),
        Show::Eigenvalues => spectrum::eigenvalues(&job),
        Show::Svd => vectors::svd(&job),
    }?;
    drop(step);
    job.finish(shown)
}

impl Job<'_> {
    /// Refuses a layer, head or matrix that makes no sense here.
    fn check(&self) -> Result<(), CliError> {
        let dims = self.circuits.dims();
        let outside = |what: &'static str, value: Option<usize>, count: usize| match value {
            Some(value) if value >= count => Err(CliError::OutOfRange { what, value, count }),
            _ => Ok(()),
        };
        outside("layer", self.args.layer, dims.n_layers)?;
        outside("head", self.args.head, dims.n_heads)?;
        if let (Some(of), Show::Copying | Show::Attention | Show::Norms) = (&self.args.of, self.args.show) {
            return Err(CliError::NoSuchMatrix { of: of.clone(), choices: "no --of" });
        }
        Ok(())
    }

    /// Whether a head is among those asked for.
    fn wanted(&self, layer: usize, head: usize) -> bool {
        self.args.layer.is_none_or(|wanted| wanted == layer)
            && self.args.head.is_none_or(|wanted| wanted == head)
    }

    /// The heads asked for, by layer.
    fn heads(&self) -> Vec<(usize, usize)> {
        let dims = self.circuits.dims();
        let all = (0..dims.n_layers).flat_map(|layer| (0..dims.n_heads).map(move |head| (layer, head)));
        all.filter(|&(layer, head)| self.wanted(layer, head)).collect()
    }

    /// A layer × head map.
    fn grid(&self, values: &Values) -> Grid {
        let dims = self.circuits.dims();
        let names = |count: usize| (0..count).map(|at| at.to_string()).collect();
        Grid::heat_map(["layer", "head"], names(dims.n_layers), names(dims.n_heads), values.data())
    }

    fn finish(&self, shown: Shown) -> Result<Report, CliError> {
        let Shown { mut report, json, tensors, sections } = shown;
        report.line(format_args!("\n{DIM}{}{DIM:#}", self.circuits.notes().join("; ")));
        let kind = format!("{:?}", self.args.show).to_lowercase();
        if let Some(path) = &self.args.save {
            let metadata = BTreeMap::from([
                ("format".to_owned(), format!("burn-lens circuits {kind}")),
                ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("model".to_owned(), self.lens.name.clone()),
                ("weights".to_owned(), self.circuits.notes().join("; ")),
            ]);
            save_safetensors(path, tensors, metadata)?;
            report.line(format_args!("wrote {}", path.display()));
        }
        if let Some(path) = &self.args.html {
            let page = Page {
                title: format!("Circuits of {}: {kind}", self.lens.name),
                lead: format!("From the weights alone: {}.", self.circuits.notes().join("; ")),
                sections,
                footer: format!(
                    "Written by burn-lens {}. This file needs no network.",
                    env!("CARGO_PKG_VERSION")
                ),
            };
            let html = page.to_html()?;
            write_atomically(path, |file| std::io::Write::write_all(file, html.as_bytes()))?;
            report.line(format_args!("wrote {}", path.display()));
        }
        report.json = json!({
            "model": self.lens.name,
            "show": kind,
            "notes": self.circuits.notes(),
            "result": json,
            "saved": self.args.save,
            "html": self.args.html,
        });
        Ok(report)
    }
}

/// A head as it is written: `L3H5`.
fn label((layer, head): (usize, usize)) -> String {
    format!("L{layer}H{head}")
}

/// Numbers for a file.
fn tensor(values: &Values) -> TensorData {
    TensorData::new(
        values.data().iter().map(|&value| value as f32).collect::<Vec<f32>>(),
        values.shape().to_vec(),
    )
}
