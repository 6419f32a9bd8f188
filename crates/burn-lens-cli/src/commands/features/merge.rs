//! `burn-lens features merge`

use burn_lens::{
    FeatureFolder,
    sae::features::{FeatureRun, TensorStore, stored_run},
};

use super::{args::MergeArgs, output, run::ACTIVATIONS, setup::Setup, source};
use crate::{error::CliError, load::load, progress::Progress, report::Report};

/// Makes the features of shards that were run apart.
pub(super) fn merge(args: &MergeArgs, progress: &Progress) -> Result<Report, CliError> {
    let folders = args.shards.iter().map(|path| FeatureFolder::open(path.join(ACTIVATIONS)));
    let folders: Vec<FeatureFolder> = folders.collect::<Result<_, _>>()?;
    let stores: Vec<&dyn TensorStore> = folders.iter().map(|folder| folder as &dyn TensorStore).collect();
    let setup = Setup::load(stores[0])?;
    let (key, tokens) = stored_run(&stores)?;
    let lens = load(&setup.model, &setup.model_args()?, progress)?;
    let source = source::open(&setup, &lens, progress)?;
    let source_b = source::open_b(&setup, &lens, progress)?;
    let options = args.resources.of(key.options);
    let run = FeatureRun {
        model: &lens.model,
        model_name: &setup.model_name(),
        source: &*source,
        source_b: source_b.as_deref(),
        tokens: &tokens,
        options: &options,
    };
    output::features(&run, &lens, &stores, &args.out, progress)
}
