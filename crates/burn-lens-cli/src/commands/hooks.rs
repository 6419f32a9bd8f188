//! `burn-lens hooks`

use std::collections::HashSet;

use burn_lens::hooks::{Axis, Firing, HookPoint, HookedModel as _, ModelDims, Selector};
use serde_json::{Value, json};

use crate::{
    args::HooksArgs,
    error::CliError,
    load::load,
    progress::Progress,
    report::{Align, Report, table},
};

/// The hooks of a model, in firing order.
pub(crate) fn hooks(args: &HooksArgs, progress: &Progress) -> Result<Report, CliError> {
    let lens = load(&args.name, &args.model, progress)?;
    let (firing, dims) = (lens.model.firing(), lens.model.dims());
    let optional: HashSet<HookPoint> = firing.optional.iter().copied().collect();
    let mut points = in_order(&firing);
    if !args.names.is_empty() {
        let chosen = chosen(&args.names, &points)?;
        points.retain(|point| chosen.contains(point));
    }
    let when = |point: &HookPoint| if optional.contains(point) { "optional" } else { "always" };
    let columns =
        [("name", Align::Left), ("shape", Align::Left), ("fires", Align::Left), ("what it is", Align::Left)];
    let row = |point: &HookPoint| {
        vec![point.to_string(), shape(*point, &dims), when(point).to_owned(), point.description().to_owned()]
    };
    let json = points.iter().map(|point| {
        json!({
            "name": point.to_string(),
            "axes": point.axes().iter().map(|axis| axis.name()).collect::<Vec<_>>(),
            "shape": point.axes().iter().map(|&axis| axis_json(axis, &dims)).collect::<Vec<_>>(),
            "fires": when(point),
            "description": point.description(),
        })
    });
    let mut report =
        Report { text: table(&columns, &points.iter().map(row).collect::<Vec<_>>()), json: json.collect() };
    if points.iter().any(|point| optional.contains(point)) {
        report.text.push_str("\nOptional hooks fire, and cost, only where one asks for them by name.\n");
    }
    Ok(report)
}

/// What the names select, optional hooks included.
fn chosen(names: &[String], points: &[HookPoint]) -> Result<HashSet<HookPoint>, CliError> {
    let everything = Firing { always: points.to_vec(), ..Firing::default() };
    let mut chosen = HashSet::new();
    for name in names {
        chosen.extend(Selector::from(name.as_str()).resolve(&everything)?);
    }
    Ok(chosen)
}

/// Both kinds together: each optional hook before the first of its block that comes later.
fn in_order(firing: &Firing) -> Vec<HookPoint> {
    let rank = |point: HookPoint| {
        let kinds = HookPoint::kinds(point.layer().unwrap_or(0));
        kinds.iter().position(|&kind| kind == point).unwrap_or(kinds.len())
    };
    let mut points = firing.always.clone();
    for &point in &firing.optional {
        let block = point.layer();
        let comes_behind = |other: &HookPoint| other.layer() == block && rank(*other) > rank(point);
        let end =
            points.iter().rposition(|other| other.layer() == block).map_or(points.len(), |last| last + 1);
        let at = points.iter().position(comes_behind).unwrap_or(end);
        points.insert(at, point);
    }
    points
}

fn shape(point: HookPoint, dims: &ModelDims) -> String {
    let word = |&axis: &Axis| dims.len_of(axis).map_or_else(|| axis.name().to_owned(), |len| len.to_string());
    format!("[{}]", point.axes().iter().map(word).collect::<Vec<_>>().join(", "))
}

fn axis_json(axis: Axis, dims: &ModelDims) -> Value {
    dims.len_of(axis).map_or_else(|| axis.name().into(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_hooks_stand_where_they_fire() {
        let always = vec![
            HookPoint::Embed,
            HookPoint::ResidPre(0),
            HookPoint::AttnZ(0),
            HookPoint::AttnOut(0),
            HookPoint::UnembedOut,
        ];
        let firing = Firing {
            always,
            optional: vec![HookPoint::Tokens, HookPoint::AttnIn(0), HookPoint::AttnResult(0)],
            ..Firing::default()
        };
        let names: Vec<String> = in_order(&firing).iter().map(ToString::to_string).collect();
        let expected = [
            "hook_tokens",
            "hook_embed",
            "blocks.0.hook_resid_pre",
            "blocks.0.hook_attn_in",
            "blocks.0.attn.hook_z",
            "blocks.0.attn.hook_result",
            "blocks.0.hook_attn_out",
            "unembed.hook_out",
        ];
        assert_eq!(names, expected);
    }
}
