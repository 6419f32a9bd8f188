//! TransformerLens's short names: `k6`, `pre5`, `scale4ln1`, `("resid_post", 4)`.

use crate::{HookPoint, UnknownHook};

/// The full name behind a short one, as `transformer_lens.utils.get_act_name`.
///
/// Differences, all where the original returns a name that no hook has: `resid_pre3`,
/// `attn_out5` and `rot_q2` are understood like `pre5`.
///
/// ```
/// # use burn_lens_hooks::get_act_name;
/// assert_eq!(get_act_name("k6", None, None), "blocks.6.attn.hook_k");
/// assert_eq!(get_act_name("pre", Some(2), None), "blocks.2.mlp.hook_pre");
/// assert_eq!(get_act_name("scale4ln1", None, None), "blocks.4.ln1.hook_scale");
/// assert_eq!(get_act_name("resid_pre3", None, None), "blocks.3.hook_resid_pre");
/// assert_eq!(get_act_name("normalized", None, None), "ln_final.hook_normalized");
/// ```
#[must_use]
pub fn get_act_name(name: &str, layer: Option<isize>, layer_type: Option<&str>) -> String {
    if (name.contains('.') || name.starts_with("hook_")) && layer.is_none() && layer_type.is_none() {
        return name.to_owned();
    }
    let (mut name, mut layer, mut layer_type) = (name, layer, layer_type);
    if let Some((short, number, kind)) = split(name) {
        (name, layer, layer_type) = (short, Some(number), Some(kind));
    }
    let name = match name {
        "attn" => "pattern",
        "attn_logits" => "attn_scores",
        "key" => "k",
        "query" => "q",
        "value" => "v",
        "mlp_pre" => "pre",
        "mlp_mid" => "mid",
        "mlp_post" => "post",
        other => other,
    };
    let layer_type = match name {
        "k" | "v" | "q" | "z" | "rot_k" | "rot_q" | "result" | "pattern" | "attn_scores" => "attn",
        "pre" | "post" | "mid" | "pre_linear" => "mlp",
        _ => match layer_type.unwrap_or("") {
            "a" | "attention" => "attn",
            "m" => "mlp",
            "b" | "block" | "blocks" => "",
            other => other,
        },
    };
    let mut full = String::new();
    match layer {
        Some(layer) => full = format!("blocks.{layer}."),
        None if matches!(name, "scale" | "normalized") => full.push_str("ln_final."),
        None => {}
    }
    if !layer_type.is_empty() {
        full.push_str(layer_type);
        full.push('.');
    }
    format!("{full}hook_{name}")
}

/// `scale4ln1` into (`scale`, 4, `ln1`).
fn split(name: &str) -> Option<(&str, isize, &str)> {
    let start = name.find(|c: char| c.is_ascii_digit()).filter(|&at| at > 0)?;
    let short = &name[..start];
    if !short.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
        return None;
    }
    let digits = name[start..].find(|c: char| !c.is_ascii_digit()).map_or(name.len(), |end| start + end);
    Some((short, name[start..digits].parse().ok()?, &name[digits..]))
}

/// The hook behind a full or short name; `n_layers` resolves negative layers.
///
/// # Errors
///
/// If no hook has that name, or the layer is outside the model.
pub fn parse_act_name(
    name: &str,
    layer: Option<isize>,
    layer_type: Option<&str>,
    n_layers: usize,
) -> Result<HookPoint, UnknownHook> {
    let outside = |full: String| {
        let last = n_layers.saturating_sub(1);
        let parts: Vec<&str> = full.splitn(3, '.').collect();
        let nearest = match parts[..] {
            ["blocks", _, rest] => vec![format!("blocks.{last}.{rest}")],
            _ => Vec::new(),
        };
        UnknownHook { name: full, nearest }
    };
    let layer = match layer {
        Some(layer) if layer < 0 => {
            let at = n_layers.checked_sub(layer.unsigned_abs());
            Some(at.ok_or_else(|| outside(get_act_name(name, Some(layer), layer_type)))?.cast_signed())
        }
        other => other,
    };
    let point: HookPoint = get_act_name(name, layer, layer_type).parse()?;
    match point.layer() {
        Some(layer) if layer >= n_layers => Err(outside(point.to_string())),
        _ => Ok(point),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, layer: Option<isize>, layer_type: Option<&str>, expected: &str) {
        assert_eq!(get_act_name(name, layer, layer_type), expected);
    }

    /// The calls in `transformer_lens.utils.get_act_name`'s docstring, and its special cases.
    #[test]
    fn agrees_with_transformer_lens() {
        check("embed", None, None, "hook_embed");
        check("pos_embed", None, None, "hook_pos_embed");
        check("k", Some(6), Some("a"), "blocks.6.attn.hook_k");
        check("pre", Some(2), Some("m"), "blocks.2.mlp.hook_pre");
        check("resid_post", Some(4), None, "blocks.4.hook_resid_post");
        check("scale", Some(4), Some("ln1"), "blocks.4.ln1.hook_scale");
        check("post", Some(1), Some("block"), "blocks.1.mlp.hook_post");
        check("attn", Some(3), None, "blocks.3.attn.hook_pattern");
        check("attn_logits", Some(3), None, "blocks.3.attn.hook_attn_scores");
        check("mlp_out", Some(5), None, "blocks.5.hook_mlp_out");
        check("pre5", None, None, "blocks.5.mlp.hook_pre");
        check("blocks.1.hook_mlp_out", None, None, "blocks.1.hook_mlp_out");
    }

    #[test]
    fn parses_what_the_original_does_not() {
        check("attn_out5", None, None, "blocks.5.hook_attn_out");
        check("rot_q2", None, None, "blocks.2.attn.hook_rot_q");
        check("mlp_pre7", None, None, "blocks.7.mlp.hook_pre");
    }

    #[test]
    fn names_that_no_hook_has_are_errors() {
        assert!(parse_act_name("scale", Some(3), None, 4).is_err());
        assert!(parse_act_name("k", Some(4), None, 4).is_err());
        assert_eq!(parse_act_name("k", Some(-1), None, 4), Ok(HookPoint::AttnK(3)));
        assert!(parse_act_name("k", Some(-5), None, 4).is_err());
        let beyond = parse_act_name("blocks.9.hook_resid_pre", None, None, 4).unwrap_err();
        assert_eq!(beyond.name, "blocks.9.hook_resid_pre");
        assert_eq!(beyond.nearest, ["blocks.3.hook_resid_pre"]);
    }
}
