"""Dictionaries of `sae.py` spliced into the model of `fixtures/tl-ln` by SAELens, and how well they do.

`fixtures/sae-splice/cases.json` lists runs (which dictionaries, with an error term or not, which edits, which tokens
are excluded), `cases.safetensors` what each gave: logits, the activations inside the dictionaries, gradients. A
dictionary of one head is not a run there: SAELens's `evals.py` alone knows what a head is (`one-head/logits`). The
numbers of `metrics.json` are computed of SAELens's runs by the formulas of its `evals.py`, in float64.
"""

import json
import warnings

from common import FIXTURES, fixture_dir, seed_of, write_json, write_manifest, write_tensors
from safetensors.torch import load_file

import torch

warnings.filterwarnings("ignore")
from sae import D_IN, D_SAE, generator
from sae_lens import SAE
from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer
from sae_lens.evals import get_recons_loss
from sae_lens.registry import get_sae_class
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformerConfig

MODEL = "tl-ln"
RESID = "blocks.0.hook_resid_pre"
Z = "blocks.1.attn.hook_z"
MLP = "blocks.1.hook_mlp_out"
TRANSCODER = "sae-splice-transcoder"
ONE_HEAD, HEAD, D_HEAD = "sae-splice-head", 1, 4

# name: dictionaries, error term, edits (hook, factor, addend, feature or None), excluded tokens
RUNS = {
    "plain": (["sae-standard"], False, [], []),
    "layer-norm": (["sae-standard-layer-norm"], False, [], []),
    "heads": (["sae-standard-hook-z"], False, [], []),
    "several": (["sae-jumprelu", "sae-standard-hook-z", TRANSCODER], False, [], []),
    "error": (["sae-topk"], True, [], []),
    "error-several": (["sae-gated", "sae-standard-hook-z", TRANSCODER], True, [], []),
    "ablate": (["sae-standard"], True, [(f"{RESID}.hook_sae_acts_post", 0.0, 0.0, 7)], []),
    "steer": (["sae-standard-layer-norm"], True, [(f"{RESID}.hook_sae_acts_post", 1.0, 2.5, 3)], []),
    "steer-plain": (["sae-standard-layer-norm"], False, [(f"{RESID}.hook_sae_acts_post", 1.0, 2.5, 3)], []),
    "steer-heads": (["sae-standard-hook-z"], True, [(f"{Z}.hook_sae_acts_post", 1.0, 2.5, 3)], []),
    "steer-transcoder": ([TRANSCODER], True, [(f"{MLP}.hook_sae_acts_post", 1.0, 2.5, 3)], []),
    "edit-input": (["sae-standard-layer-norm"], True, [(f"{RESID}.hook_sae_input", 0.5, 0.25, None)], []),
    "edit-pre": (["sae-topk"], True, [(f"{RESID}.hook_sae_acts_pre", -1.0, 0.5, None)], []),
    "edit-recons": (["sae-standard-layer-norm"], True, [(f"{RESID}.hook_sae_recons", 0.5, 0.0, None)], []),
    "edit-error": (["sae-standard"], True, [(f"{RESID}.hook_sae_error", 0.0, 0.0, None)], []),
    "edit-output": (["sae-standard"], False, [(f"{RESID}.hook_sae_output", 0.5, 0.0, None)], []),
    "excluded": (["sae-standard"], False, [], [5, 2]),
    "excluded-steer": (["sae-standard"], True, [(f"{RESID}.hook_sae_acts_post", 1.0, 2.5, 3)], [5, 2]),
}
TOKENS = [[5, 1, 7, 3, 2, 11], [5, 12, 0, 2, 9, 4], [5, 5, 8, 6, 10, 3]]


def model() -> HookedSAETransformer:
    config = json.loads((FIXTURES / MODEL / "config.json").read_text())
    config = {key: value for key, value in config.items() if key in HookedTransformerConfig.__dataclass_fields__}
    for key in ("n_params",):
        config.pop(key, None)
    cfg = HookedTransformerConfig(**config | {"dtype": torch.float64, "device": "cpu"})
    model = HookedSAETransformer(cfg)
    state = load_file(FIXTURES / MODEL / "model.safetensors")
    missing = model.load_state_dict({k: v.double() for k, v in state.items()}, strict=False)
    assert not missing.unexpected_keys, missing
    assert all("mask" in key or "IGNORE" in key for key in missing.missing_keys), missing
    return model.eval()


def write_transcoder() -> None:
    cfg = {"d_in": D_IN, "d_out": D_IN, "apply_b_dec_to_input": False}
    write(TRANSCODER, "transcoder", cfg, {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": MLP})


def write_head() -> None:
    cfg = {"d_in": D_HEAD, "normalize_activations": "layer_norm"}
    write(ONE_HEAD, "standard", cfg, {"hook_name": Z, "hook_head_index": HEAD})


@torch.no_grad()
def write(name: str, architecture: str, cfg: dict, metadata: dict) -> None:
    directory = fixture_dir(name)
    sae_class, config_class = get_sae_class(architecture)
    sae = sae_class(config_class(d_sae=D_SAE, dtype="float64", **cfg))
    for key, value in {"model_name": "tiny", **metadata}.items():
        sae.cfg.metadata[key] = value
    random = generator(name)
    for _, parameter in sorted(sae.named_parameters()):
        parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64) / 3)
    sae.save_model(directory)
    config = json.loads((directory / "cfg.json").read_text())
    write_json(directory / "cfg.json", config)
    x = torch.randn((2, 5, cfg["d_in"]), generator=random, dtype=torch.float64)
    seen = {}
    sae.hook_sae_acts_pre.add_hook(lambda value, hook: seen.__setitem__("pre", value.clone()))
    acts = sae.encode(x)
    sae.reset_hooks()
    write_tensors(directory / "cases.safetensors", {"x": x, "acts": acts, "recons": sae.forward(x), **seen})
    for file in directory.iterdir():
        file.chmod(0o644)
    write_manifest(directory, "sae_splice.py", ["sae-lens", "torch"], seed=seed_of(name))


def editing(factor: float, addend: float, feature: int | None):
    def edit(value, hook):
        value = value.clone()
        if feature is None:
            return value * factor + addend
        value[..., feature] = value[..., feature] * factor + addend
        return value

    return edit


def run(model, tokens, name: str) -> dict[str, torch.Tensor]:
    names, error, edits, excluded = RUNS[name]
    saes = [SAE.load_from_disk(FIXTURES / sae) for sae in names]
    kept = {}
    with model.saes(saes=saes, use_error_term=error, exclude_special_tokens=excluded or False):
        inside = [point for point in model.hook_dict if ".hook_sae_" in point]
        fwd = [(point, editing(*rest)) for point, *rest in edits]
        fwd += [(point, lambda value, hook: kept.__setitem__(hook.name, value.detach().clone())) for point in inside]
        logits = model.run_with_hooks(tokens, fwd_hooks=fwd)
    tensors = {f"{name}/{point}": value for point, value in kept.items()}
    return {f"{name}/logits": logits, **tensors}


def gradients(model, tokens) -> dict[str, torch.Tensor]:
    """Of the loss, at the activations of a dictionary with an error term."""
    sae = SAE.load_from_disk(FIXTURES / "sae-standard-layer-norm")
    kept = {}
    keep = lambda grad, hook: kept.__setitem__(hook.name, grad[0].clone() if isinstance(grad, tuple) else grad.clone())
    points = [f"{RESID}.hook_sae_acts_post", f"{RESID}.hook_sae_recons", "blocks.1.hook_resid_post"]
    with model.saes(saes=[sae], use_error_term=True):
        with model.hooks(bwd_hooks=[(point, keep) for point in points]):
            model(tokens, return_type="loss").backward()
    return {f"gradient/{point}": grad for point, grad in kept.items()}


@torch.no_grad()
def one_head(model, tokens) -> tuple[torch.Tensor, dict[str, float]]:
    """Logits with one head's activation replaced, and what `evals.py` says of such runs."""
    sae = SAE.load_from_disk(FIXTURES / ONE_HEAD)

    def replace(z, hook):
        z = z.clone()
        z[:, :, HEAD] = sae.decode(sae.encode(z[:, :, HEAD]))
        return z

    losses = get_recons_loss(sae, model, ActivationScaler(), tokens, compute_kl=True, compute_ce_loss=True)
    mean = lambda name: losses[name].mean().item()
    before_the_last = lambda name: losses[name][:, :-1].mean().item()
    return model.run_with_hooks(tokens, fwd_hooks=[(Z, replace)]), {
        "ce_clean": mean("ce_loss_without_sae"),
        "ce_sae": mean("ce_loss_with_sae"),
        "ce_zero": mean("ce_loss_with_ablation"),
        "kl_sae": before_the_last("kl_div_with_sae"),
        "kl_zero": before_the_last("kl_div_with_ablation"),
    }


@torch.no_grad()
def metrics(model, tokens, name: str) -> dict[str, float]:
    sae = SAE.load_from_disk(FIXTURES / name)
    hook = sae.cfg.metadata.hook_name_out or sae.cfg.metadata.hook_name
    clean, cache = model.run_with_cache(tokens)
    spliced = model.run_with_saes(tokens, saes=[sae], use_error_term=False)
    zeroed = model.run_with_hooks(tokens, fwd_hooks=[(hook, lambda value, hook: torch.zeros_like(value))])
    x = cache[sae.cfg.metadata.hook_name].flatten(0, 1)
    y = cache[hook].flatten(0, 1)
    acts = sae.encode(cache[sae.cfg.metadata.hook_name]).flatten(0, 1)
    y_hat = sae.forward(cache[sae.cfg.metadata.hook_name]).flatten(0, 1)
    x, y, y_hat = x.flatten(1), y.flatten(1), y_hat.flatten(1)

    def ce(logits):
        log_p = logits.log_softmax(-1)[:, :-1]
        return -log_p.gather(-1, tokens[:, 1:, None]).mean().item()

    def kl(logits):
        p = clean.log_softmax(-1)[:, :-1]
        return (p.exp() * (p - logits.log_softmax(-1)[:, :-1])).sum(-1).mean().item()

    losses = {"ce_clean": ce(clean), "ce_sae": ce(spliced), "ce_zero": ce(zeroed)}
    divergences = {"kl_sae": kl(spliced), "kl_zero": kl(zeroed)}
    residual = (y - y_hat).pow(2).sum(-1).mean()
    total = y.pow(2).sum(-1).mean() - y.mean(0).pow(2).sum()
    norms = y.norm(dim=-1), y_hat.norm(dim=-1)
    return {
        **losses,
        **divergences,
        "ce_score": (losses["ce_zero"] - losses["ce_sae"]) / (losses["ce_zero"] - losses["ce_clean"]),
        "kl_score": (divergences["kl_zero"] - divergences["kl_sae"]) / divergences["kl_zero"],
        "l0": (acts != 0).double().sum(-1).mean().item(),
        "l1": acts.abs().sum(-1).mean().item(),
        "mse": residual.item(),
        "explained_variance": (1 - residual / total).item(),
        "cosine": torch.cosine_similarity(y, y_hat, dim=-1).mean().item(),
        "l2_in": norms[0].mean().item(),
        "l2_out": norms[1].mean().item(),
        "l2_ratio": (norms[1] / norms[0]).mean().item(),
        "relative_reconstruction_bias": (y_hat.pow(2).sum(-1).mean() / (y * y_hat).sum(-1).mean()).item(),
        "densities": (acts != 0).double().mean(0).tolist(),
    }


def main() -> None:
    write_transcoder()
    write_head()
    subject, tokens = model(), torch.tensor(TOKENS)
    tensors = {"tokens": tokens, "clean/logits": subject(tokens)}
    for name in RUNS:
        tensors |= run(subject, tokens, name)
    tensors |= gradients(subject, tokens)
    tensors["one-head/logits"], losses = one_head(subject, tokens)
    directory = fixture_dir("sae-splice")
    write_tensors(directory / "cases.safetensors", tensors)
    runs = [
        {"name": name, "saes": saes, "error": error, "edits": edits, "excluded": excluded}
        for name, (saes, error, edits, excluded) in RUNS.items()
    ]
    write_json(directory / "cases.json", runs)
    names = ["sae-standard", "sae-topk", "sae-abstopk", "sae-standard-hook-z", "sae-standard-layer-norm", TRANSCODER]
    found = {name: metrics(subject, tokens, name) for name in names}
    write_json(directory / "metrics.json", found | {ONE_HEAD: losses})
    write_manifest(directory, "sae_splice.py", ["sae-lens", "transformer-lens", "torch"])
    print(directory)


if __name__ == "__main__":
    main()
