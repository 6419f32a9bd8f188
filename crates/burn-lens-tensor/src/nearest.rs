//! "Did you mean …": the names closest to one that is not known.

/// At most three of `candidates`, the closest to `name` first, and only those that are close.
///
/// Closeness is Damerau–Levenshtein distance, plus an exemption for names that contain `name`
/// or are contained in it, so that `hook_patern` finds `hook_pattern` and `q_proj` finds
/// `model.layers.0.self_attn.q_proj.weight`.
///
/// ```
/// # use burn_lens_tensor::nearest;
/// assert_eq!(nearest("vulcan", ["cpu", "vulkan", "wgpu"]), ["vulkan"]);
/// assert!(nearest("tpu-v5-pod", ["vulkan", "metal"]).is_empty());
/// ```
pub fn nearest<I>(name: &str, candidates: I) -> Vec<String>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    const MOST: usize = 3;
    let allowed = name.chars().count().div_ceil(3).max(1);
    let mut scored: Vec<(usize, String)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let candidate = candidate.as_ref();
            let distance = strsim::damerau_levenshtein(name, candidate);
            let contains = !name.is_empty() && (candidate.contains(name) || name.contains(candidate));
            (distance <= allowed || contains).then(|| (distance, candidate.to_owned()))
        })
        .collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(MOST).map(|(_, candidate)| candidate).collect()
}
