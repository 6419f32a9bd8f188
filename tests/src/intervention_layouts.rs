//! Sweeps equal a plain loop of hooked runs, written out here, in every block layout with every place
//! of the norms, with grouped queries, sliding windows and padding.

use std::sync::Arc;

use burn_lens::{
    analysis::interventions::{Engine, EngineOptions, Intervention, Metric, Sweep, SweepAxis},
    hooks::{BlockLayout, NormPlacement},
    models::components::Positions,
    prelude::*,
};

use crate::interventions::{POS, close, random_model};

/// Real tokens of two prompts: none padded, one padded on the left, one on the right.
const MASKS: [Option<[[i64; POS]; 2]>; 3] =
    [None, Some([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]), Some([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])];

/// One activation at one position becomes zero, or that of the clean run.
#[derive(Clone, Copy, Debug)]
struct Cell {
    at: HookPoint,
    pos: usize,
    head: Option<usize>,
    zero: bool,
}

impl Cell {
    fn intervention(self, clean: &Arc<ActivationCache>) -> Intervention {
        let one = if self.zero { Intervention::zero(self.at) } else { Intervention::patch(self.at, clean) };
        let one = one.pos(Slice::Index(self.pos as isize));
        match self.head {
            Some(head) => one.heads(Slice::Index(head as isize)),
            None => one,
        }
    }

    fn hook(self, clean: &Arc<ActivationCache>) -> Hook<'_> {
        let Self { at, pos, zero, .. } = self;
        let Some(head) = self.head else {
            return Hook::edit(at, move |x: Tensor<3>, _: &mut HookContext<'_>| {
                let [batch, _, width] = x.dims();
                let place = [0..batch, pos..pos + 1, 0..width];
                let new: Tensor<3> = clean.tensor(at).unwrap();
                let new = new.slice(place.clone());
                x.slice_assign(place, if zero { new.zeros_like() } else { new })
            });
        };
        Hook::edit(at, move |x: Tensor<4>, _: &mut HookContext<'_>| {
            let [batch, _, _, width] = x.dims();
            let place = [0..batch, pos..pos + 1, head..head + 1, 0..width];
            let new: Tensor<4> = clean.tensor(at).unwrap();
            let new = new.slice(place.clone());
            x.slice_assign(place, if zero { new.zeros_like() } else { new })
        })
    }
}

fn cells(model: &HookedTransformer) -> Vec<Cell> {
    let fires = model.firing().always;
    let kinds = |layer: usize| {
        [
            (HookPoint::ResidPre(layer), None, false),
            (HookPoint::AttnK(layer), Some(1), true),
            (HookPoint::AttnZ(layer), Some(3), false),
            (HookPoint::AttnOut(layer), None, true),
            (HookPoint::ResidMid(layer), None, false),
            (HookPoint::MlpOut(layer), None, false),
            (HookPoint::ResidPost(layer), None, true),
        ]
    };
    let at = |(at, head, zero)| (0..POS).map(move |pos| Cell { at, pos, head, zero });
    (0..2).flat_map(kinds).filter(|(at, ..)| fires.contains(at)).flat_map(at).collect()
}

/// The logit of token 3 less that of token 4 at each prompt's last token.
fn measured(logits: Tensor<3>, mask: Option<[[i64; POS]; 2]>) -> Vec<f64> {
    let [_, _, d_vocab] = logits.dims();
    let logits: Vec<f64> = logits.into_data().iter().collect();
    let last = |row: usize| mask.map_or(POS - 1, |mask| mask[row].iter().rposition(|&m| m == 1).unwrap());
    (0..2)
        .map(|row| {
            let at = (row * POS + last(row)) * d_vocab;
            logits[at + 3] - logits[at + 4]
        })
        .collect()
}

#[track_caller]
fn check(layout: usize, placement: usize, padding: usize) {
    let (norm, mlp, rotary) = (placement % 2, 1 + layout, 128 * padding.min(1));
    // Two layers, two key-value heads for two heads each, a window of three in the first layer.
    let model = random_model([2, 2, 2, layout, placement, norm, mlp, 1], 1 + rotary, 3);
    let config = model.config();
    assert_eq!(config.layout, [BlockLayout::Sequential, BlockLayout::Parallel][layout]);
    let places = [NormPlacement::Pre, NormPlacement::Post, NormPlacement::Both];
    assert_eq!(config.norm.placement, places[placement]);
    assert_eq!((config.attention.n_heads, config.attention.n_kv_heads), (4, 2));
    assert_eq!(config.attention.windows, [Some(3), None]);
    assert_eq!(matches!(config.positions, Positions::Rotary(_)), padding > 0);

    let ids = |ids: [[i64; POS]; 2]| Tensor::<2, Int>::from_data(ids, &model.device());
    let clean = ids([[1, 5, 3, 9, 0, 2], [4, 4, 10, 2, 7, 1]]);
    let corrupt = ids([[1, 5, 8, 9, 0, 2], [4, 4, 10, 2, 6, 1]]);
    let mask = MASKS[padding];
    let run = RunOptions { attention_mask: mask.map(ids), ..RunOptions::default() };
    let cache = model.run_with_cache(&(&clean).into(), &run, &CacheOptions::default()).unwrap().1;
    let (cache, cells) = (Arc::new(cache), cells(&model));

    let sweep = Sweep::list(
        SweepAxis::counted("cell", cells.len()),
        cells.iter().map(|cell| vec![cell.intervention(&cache)]).collect(),
    );
    let metric = Metric::logit_diff([3], [4]);
    let engine = Engine::new(&model, &corrupt, &run, &metric, EngineOptions::default()).unwrap();
    let prepared = engine.prepare(&sweep).unwrap();
    assert_eq!(prepared.cost().full, 0, "nothing is run in full");
    let result = engine.sweep(&sweep).unwrap();
    for (cell, found) in cells.iter().zip(&result.cells) {
        let output = model.run_with_hooks(&(&corrupt).into(), &run, vec![cell.hook(&cache)]).unwrap();
        let expected = measured(output.into_logits().unwrap(), mask);
        assert!(close(found, &expected), "{cell:?}: {found:?} against {expected:?}");
    }
}

#[test]
fn sequential_blocks() {
    for placement in 0..3 {
        (0..3).for_each(|padding| check(0, placement, padding));
    }
}

#[test]
fn parallel_blocks() {
    for placement in 0..3 {
        (0..3).for_each(|padding| check(1, placement, padding));
    }
}
