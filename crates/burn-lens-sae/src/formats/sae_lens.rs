//! SAELens: `cfg.json` and `sae_weights.safetensors`.

use super::SaeFormat;
use crate::saelens;

pub(super) static SAE_LENS: SaeFormat = SaeFormat {
    name: "SAELens",
    files: "cfg.json, sae_weights.safetensors",
    recognises: |files| files.says(&["d_in"]) && files.has_all(&["W_dec", "b_dec"]),
    draft: |files, _| {
        let config = files.config()?.clone();
        let mut draft = saelens::draft(config, files.weights)?;
        if draft.config.name == draft.settings.origin() {
            draft.config.name.clone_from(&files.origin);
        }
        Ok(draft)
    },
};
