//! What each feature's direction does to the logits by itself.

use super::{
    FeatureData, FeatureError, FeatureOptions, Histogram, LogitEffects, TokenValue,
    kernels::Largest,
    readout::{Readout, failed},
    threads,
};

/// Fills in the logit tables of features, and the effects on the tokens of their sequences.
///
/// `directions` holds their centered directions, row by row. As many rows of effects are in memory
/// at a time as a part of the budget allows.
pub(super) fn fill(
    drafts: &mut [FeatureData],
    readout: &Readout,
    directions: &[f32],
    options: &FeatureOptions,
) -> Result<(), FeatureError> {
    let (d, d_vocab) = (readout.d_model(), readout.d_vocab());
    let at_once = (options.memory / 4 / (4 * d_vocab as u64)).clamp(1, 256) as usize;
    for (drafts, directions) in drafts.chunks_mut(at_once).zip(directions.chunks(at_once * d)) {
        let rows = readout.upload(directions.to_vec());
        let effects = readout.project(&rows, 0, d_vocab).map_err(failed("the unembedding"))?;
        let ranges = threads::divide(std::iter::repeat_n(1, drafts.len()), options.n_threads());
        let parts = threads::split(drafts, 1, &ranges);
        threads::run(ranges.into_iter().zip(parts).collect(), |(range, drafts)| {
            let rows = effects[range.start * d_vocab..range.end * d_vocab].chunks_exact(d_vocab);
            for (draft, row) in drafts.iter_mut().zip(rows) {
                draft.logits = Some(table(row, options));
                for sequence in draft.groups.iter_mut().flat_map(|group| &mut group.sequences) {
                    let effect = |&token: &u32| row.get(token as usize).copied().unwrap_or(0.0);
                    sequence.logit_effects = sequence.tokens.iter().map(effect).collect();
                }
            }
        });
    }
    Ok(())
}

fn table(row: &[f32], options: &FeatureOptions) -> LogitEffects {
    let (mut top, mut bottom) = (Largest::new(options.n_logit_rows), Largest::new(options.n_logit_rows));
    let mut n_not_finite = 0;
    for (token, &value) in (0..).zip(row) {
        top.offer(token, value);
        bottom.offer(token, -value);
        n_not_finite += u64::from(!value.is_finite());
    }
    let values = |found: &[(u32, f32)], sign: f32| {
        found.iter().map(|&(token, value)| TokenValue { token, value: sign * value }).collect()
    };
    LogitEffects {
        top: values(&top.found, 1.0),
        bottom: values(&bottom.found, -1.0),
        histogram: Histogram::of(row, options.n_bins),
        n_not_finite,
    }
}
