//! What single features of a dictionary do for an answer: each set to zero, and each set to what it is
//! in another run, on the bundled model with the bundled dictionary.
//!
//!     cargo run --release --example features_patched

use std::sync::Arc;

use burn_lens::{
    analysis::interventions::{Engine, EngineOptions, Intervention, Metric, Sweep, SweepAxis},
    load_sae,
    prelude::*,
    sae::{SaeOptions, SplicedSae, sae_hooks},
};

const CLEAN: &str = "When Mary and John went to the store , John gave a drink to";
const CORRUPT: &str = "When Mary and John went to the store , Mary gave a drink to";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let lens = from_pretrained("demo", &LoadOptions::default())?;
    let sae = SplicedSae::new(load_sae("demo", &SaeOptions::on(&lens.model.device()))?).with_error_term();
    let at = format!("{}.hook_sae_acts_post", sae.sae.config().hook_in()?);
    let acts: HookPoint = at.parse()?;
    let _installed = lens.model.hook_scope(sae_hooks(&lens.model, &[sae])?)?;

    // The features that differ most at the last position.
    let (clean, corrupt) = (lens.to_tokens(&[CLEAN])?, lens.to_tokens(&[CORRUPT])?);
    let kept = |tokens: &burn_lens::Tokens| {
        lens.model.run_with_cache(&tokens.input(), &tokens.options(), &CacheOptions::names([acts]))
    };
    let (from, base) = (kept(&clean)?.1, kept(&corrupt)?.1);
    let last = |cache: &ActivationCache| -> Result<Vec<f64>, Box<dyn std::error::Error>> {
        let x: Tensor<3> = cache.tensor(acts)?;
        let [_, pos, _] = x.dims();
        Ok(x.narrow(1, pos - 1, 1).into_data().iter().collect())
    };
    let (after, before) = (last(&from)?, last(&base)?);
    let mut features: Vec<usize> = (0..after.len()).collect();
    let moved = |&feature: &usize| (after[feature] - before[feature]).abs();
    features.sort_by(|a, b| moved(b).total_cmp(&moved(a)));
    features.truncate(8);

    // A cell for each, twice: zero, and as in the clean run.
    let from = Arc::new(from);
    let place = |one: Intervention, feature: usize| {
        vec![one.units(Slice::Index(feature as isize)).pos(Slice::Index(-1))]
    };
    let zero = features.iter().map(|&feature| place(Intervention::zero(acts), feature));
    let patch = features.iter().map(|&feature| place(Intervention::patch(acts, &from), feature));
    let labels = features.iter().map(ToString::to_string).collect();
    let sweep = Sweep {
        axes: vec![
            SweepAxis::new("edit", vec!["zero".to_owned(), "patch".to_owned()]),
            SweepAxis::new("feature", labels),
        ],
        cells: zero.chain(patch).map(Some).collect(),
    };
    let token = |text: &str| -> Result<usize, Box<dyn std::error::Error>> {
        Ok(usize::try_from(lens.tokenizer()?.to_single_token(text)?)?)
    };
    let metric = Metric::logit_diff([token(" Mary")?], [token(" John")?]);
    let (input, options) = (corrupt.input(), corrupt.options());
    let engine = Engine::new(&lens.model, input, &options, &metric, EngineOptions::default())?;
    let result = engine.sweep(&sweep)?;

    println!(
        "Mary less John, corrupt run: {:+.3}\n{:>8}{:>10}{:>10}",
        result.base_value(),
        "feature",
        "zero",
        "patch"
    );
    for (at, feature) in features.iter().enumerate() {
        let values = result.values();
        println!("{feature:>8}{:>+10.3}{:>+10.3}", values[at], values[features.len() + at]);
    }
    Ok(())
}
