//! Direct feature attribution: which positions a feature of `hook_z` read its activation from.
//!
//! `z` at a position is, head by head, the sum of the values of earlier positions weighted by the
//! attention pattern; a dictionary reads it linearly. So position `s` gave
//! `Σ_h pattern[h, t, s] · (v[s, h] · W_enc[h, f])` of what feature `f` reads at `t`.

use std::ops::Range;

use burn_lens_hooks::{ActivationCache, CacheOptions, HookPoint, Input, ReturnType, RunOptions};
use burn_lens_tensor::burn::tensor::Tensor;

use super::{
    FeatureData, FeatureError, SequenceData, SourceAttribution,
    collect::FeatureRun,
    parts::Parts,
    readout::{failed, host},
    select::Prompts as _,
};

/// Fills in the attributions of all sequences, if the dictionary reads `hook_z`. The prompts
/// shown are run once more, for their patterns and values.
pub(super) fn fill(
    run: &FeatureRun<'_>,
    parts: &Parts<'_>,
    drafts: &mut [FeatureData],
) -> Result<(), FeatureError> {
    let HookPoint::AttnZ(layer) = run.source.hook_in() else { return Ok(()) };
    let features: Vec<usize> = drafts.iter().map(|draft| draft.feature).collect();
    let readers = run.source.readers(&features).map_err(failed(run.source.name()))?;
    let Some(readers) = readers else { return Ok(()) };
    let readers = host(readers).map_err(failed(run.source.name()))?;
    let d_in = run.source.d_in();
    let mut wanted: Vec<(&[f32], &mut SequenceData)> = Vec::new();
    for (draft, reader) in drafts.iter_mut().zip(readers.chunks_exact(d_in)) {
        let sequences = draft.groups.iter_mut().flat_map(|group| &mut group.sequences);
        wanted.extend(sequences.map(|sequence| (reader, sequence)));
    }
    wanted.sort_by_key(|(_, sequence)| sequence.prompt);
    let mut rest = &mut wanted[..];
    while let Some((_, first)) = rest.first() {
        let prompts =
            first.prompt..(first.prompt + run.options.batch_prompts.max(1)).min(parts.run.n_prompts);
        let count = rest.partition_point(|(_, sequence)| sequence.prompt < prompts.end);
        let (mine, others) = std::mem::take(&mut rest).split_at_mut(count);
        rest = others;
        let batch = Batch::run(run, parts, layer, prompts)?;
        for (reader, sequence) in mine {
            sequence.attribution = Some(batch.attribution(reader, sequence));
        }
    }
    Ok(())
}

/// Patterns and values of some prompts.
struct Batch {
    prompts: Range<usize>,
    real: Vec<Range<usize>>,
    /// `[batch, head, query_pos, key_pos]`
    pattern: Vec<f32>,
    /// `[batch, pos, kv_head, d_head]`
    values: Vec<f32>,
    n_positions: usize,
    n_heads: usize,
    n_kv_heads: usize,
    d_head: usize,
}

impl Batch {
    fn run(
        run: &FeatureRun<'_>,
        parts: &Parts<'_>,
        layer: usize,
        prompts: Range<usize>,
    ) -> Result<Self, FeatureError> {
        let dims = run.model.dims();
        let (tokens, attention_mask) = run.tokens.input(prompts.clone(), &run.model.device());
        let points = [HookPoint::AttnV(layer), HookPoint::AttnPattern(layer)];
        let stop = (layer + 1 < dims.n_layers).then_some((layer + 1) as isize);
        let options = RunOptions {
            return_type: ReturnType::None,
            attention_mask,
            stop_at_layer: stop,
            ..RunOptions::default()
        };
        let (_, cache) =
            run.model.run_with_cache(&Input::Tokens(tokens), &options, &CacheOptions::names(points))?;
        let values = |point: HookPoint, cache: &ActivationCache| {
            host(cache.tensor::<Tensor<4>>(point)?).map_err(failed("the model"))
        };
        Ok(Self {
            real: prompts.clone().map(|prompt| parts.corpus.prompt(prompt).1).collect(),
            prompts,
            pattern: values(points[1], &cache)?,
            values: values(points[0], &cache)?,
            n_positions: parts.corpus.n_positions(),
            n_heads: dims.n_heads,
            n_kv_heads: dims.n_kv_heads,
            d_head: dims.d_head,
        })
    }

    fn attribution(&self, reader: &[f32], sequence: &SequenceData) -> SourceAttribution {
        let at = sequence.prompt - self.prompts.start;
        let target = sequence.start + sequence.target;
        let n = self.n_positions;
        let product =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let of_source = |source: usize| {
            let of_head = |head: usize| {
                let kv_head = head * self.n_kv_heads / self.n_heads;
                let value = ((at * n + source) * self.n_kv_heads + kv_head) * self.d_head;
                let weight = self.pattern[((at * self.n_heads + head) * n + target) * n + source];
                let reads = &reader[head * self.d_head..(head + 1) * self.d_head];
                f64::from(weight) * product(&self.values[value..value + self.d_head], reads)
            };
            if self.real[at].contains(&source) {
                (0..self.n_heads).map(of_head).sum::<f64>() as f32
            } else {
                0.0
            }
        };
        let values: Vec<f32> = (0..=target).map(of_source).collect();
        let strongest = (0..values.len()).rev().max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0);
        SourceAttribution { values, strongest }
    }
}
