//! `center_writing_weights` and `center_unembed`: constants that nothing reads, removed.

use burn::tensor::Tensor;

use super::Draft;
use crate::{ModelError, Param};

/// Everything that writes to the stream gets mean zero over `d_model`: layer norm subtracts
/// that mean before anything reads the stream.
pub(super) fn writing_weights(draft: &mut Draft) {
    let mut matrices = vec![Param::PosEmbed];
    let mut vectors = Vec::new();
    if draft.config.norm.after_embedding {
        // The embedding is normed first; its norm's output is what enters the stream.
        vectors.extend([Param::EmbedLnB]);
    } else {
        matrices.extend([Param::Embed, Param::ReadInW]);
        vectors.push(Param::ReadInB);
    }
    for l in 0..draft.config.n_layers {
        matrices.extend([Param::WO(l), Param::WOut(l)]);
        vectors.extend([Param::BO(l), Param::BOut(l)]);
    }
    for param in matrices {
        if let Some(w) = draft.params.find::<2>(param) {
            draft.params.insert(param, w.clone() - w.mean_dim(1));
        }
    }
    for param in vectors {
        if let Some(b) = draft.params.find::<1>(param) {
            draft.params.insert(param, b.clone() - b.mean());
        }
    }
    draft.config.tied = false;
}

/// Logits get mean zero over the vocabulary: softmax ignores a constant.
pub(super) fn unembed(draft: &mut Draft) -> Result<(), ModelError> {
    let w: Tensor<2> = draft.params.get(Param::WU)?;
    draft.params.insert(Param::WU, w.clone() - w.mean_dim(1));
    if let Some(b) = draft.params.find::<1>(Param::BU) {
        draft.params.insert(Param::BU, b.clone() - b.mean());
    }
    draft.config.tied = false;
    Ok(())
}
