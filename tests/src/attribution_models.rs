//! What attribution says about trained models.

use burn_lens::{
    analysis::{AttributionOptions, Component, Residuals, Unit, direct_logit_attribution},
    prelude::*,
};
use burn_lens_testkit::{device, shared_model};

use crate::common::{data, load};

/// On a repeated sequence, what each head adds to the logit of the right next token (less that of
/// the token before), and how much it attends to the token behind the earlier occurrence. Means over
/// the second half.
fn heads_on_repeats(model: &HookedTransformer, ids: &[i64]) -> Vec<((usize, usize), f64, f64)> {
    let len = ids.len() - 1;
    let row: Vec<i64> = [ids, &ids[1..]].concat();
    let tokens: Tensor<2, Int> =
        Tensor::from_data(burn::tensor::TensorData::new(row.clone(), [1, row.len()]), &device());
    let (_, cache) =
        model.run_with_cache(&tokens.into(), &RunOptions::default(), &CacheOptions::default()).unwrap();
    let residuals = Residuals::new(model, &cache).unwrap();
    let mut heads = std::collections::BTreeMap::<(usize, usize), [f64; 2]>::new();
    let queries: Vec<usize> = (len + 1..2 * len).collect();
    for &query in &queries {
        let options = AttributionOptions {
            answers: (row[query + 1] as usize).into(),
            against: Some((row[query - 1] as usize).into()),
            by: Unit::Head,
            pos_slice: Slice::Index(query as isize),
        };
        let attrs = direct_logit_attribution(&residuals, &options).unwrap();
        let values: Vec<f64> = attrs.values().into_data().iter().collect();
        for (component, value) in attrs.components().iter().zip(values) {
            if let Component::Head(layer, head) = *component {
                heads.entry((layer, head)).or_default()[0] += value;
            }
        }
    }
    for ((layer, head), sums) in &mut heads {
        let pattern: Vec<f64> = data(cache.get(HookPoint::AttnPattern(*layer)).unwrap()).iter().collect();
        let pos = row.len();
        for &query in &queries {
            sums[1] += pattern[(head * pos + query) * pos + query - len + 1];
        }
    }
    let count = queries.len() as f64;
    heads.into_iter().map(|(head, [adds, attends])| (head, adds / count, attends / count)).collect()
}

/// The head that writes most of the repeated token is one of those that look behind its earlier
/// occurrence, and by far more than chance.
#[track_caller]
fn check(model: &HookedTransformer, ids: &[i64]) {
    let heads = heads_on_repeats(model, ids);
    let best = heads.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let most = heads.iter().map(|head| head.2).fold(0.0, f64::max);
    let chance = 1.0 / ids.len() as f64;
    let found = best.0.0 > 0 && best.1 > 0.5 && best.2 >= 0.9 * most && best.2 > 3.0 * chance;
    assert!(found, "the head that adds most: {best:?} of {heads:?}");
}

#[test]
fn attribution_names_the_induction_head_of_the_bundled_model() {
    let lens = from_pretrained(
        burn_lens::DEMO,
        &LoadOptions { device: burn_lens_testkit::device_spec(), ..LoadOptions::default() },
    )
    .unwrap();
    let ids = lens.to_tokens(&["Paris door Mary cat store river Anna"]).unwrap().batch.ids[0].clone();
    check(&lens.model, &ids);
}

#[test]
fn attribution_names_the_induction_head_of_a_trained_checkpoint() {
    let Some(folder) = shared_model("induction-2l") else { return };
    let model = load(&folder, FloatType::F32);
    let ids: Vec<i64> = (0..20).map(|at| (at * 37 + 5) % 120).collect();
    check(&model, &ids);
}
