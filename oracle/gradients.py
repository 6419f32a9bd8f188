"""Gradients of the loss at every hook point of two of the TransformerLens models, and one edited backward pass."""

from common import NoReducedPrecision, fixture_dir, float32_means_float64, write_tensors
from transformer_lens_dumps import VARIANTS, build, tokens_of

import torch

MODELS = ("tl-ln", "tl-rms-gqa")
EDITED_HOOK = "blocks.1.hook_resid_pre"
READ_HOOKS = ("hook_embed", "blocks.0.hook_resid_post", "blocks.0.hook_resid_pre", EDITED_HOOK)


def double_gradient(gradient, hook):
    return (2 * gradient,)


def loss_gradients(model, tokens) -> dict:
    loss, cache = model.run_with_cache(tokens, return_type="loss", incl_bwd=True, return_cache_object=False)
    gradients = {name: tensor for name, tensor in cache.items() if name.endswith("_grad")}
    parameters = {f"parameter.{name}": tensor.grad for name, tensor in model.named_parameters()}
    return {"tokens": tokens, "loss": loss} | gradients | parameters


def edited_gradients(model, tokens) -> dict:
    """Each hook sees the gradient with respect to its output, before any edit made at that same hook."""
    seen = {}

    def record(gradient, hook):
        seen[f"edited.{hook.name}_grad"] = gradient.clone()

    hooks = [(name, record) for name in READ_HOOKS] + [(EDITED_HOOK, double_gradient)]
    with model.hooks(bwd_hooks=hooks):
        model(tokens, return_type="loss").backward()
    return seen


def make(variant) -> None:
    tokens = tokens_of(variant)
    with float32_means_float64():
        model, model_to_edit = build(variant), build(variant)
        with NoReducedPrecision():
            golden = loss_gradients(model, tokens)
            edited = edited_gradients(model_to_edit, tokens)
    doubled = 2 * golden["hook_embed_grad"]
    assert torch.equal(edited["edited.hook_embed_grad"], doubled), (
        "all gradient below the edited hook passes through it"
    )
    check_by_difference(variant, tokens, golden)
    write_tensors(fixture_dir(variant.name) / "golden_grad.safetensors", golden | edited)
    silent = [name for name in hook_names(variant, tokens) if f"{name}_grad" not in golden]
    print(f"{variant.name}: loss {golden['loss'].item():.6f}, hooks without a gradient: {silent or 'none'}")


def hook_names(variant, tokens) -> list[str]:
    return list(build(variant).run_with_cache(tokens, return_cache_object=False)[1])


@torch.no_grad()
def check_by_difference(variant, tokens, golden) -> None:
    """A directional derivative at a few hooks, taken by central differences."""
    step = 1e-5
    for name in (
        "blocks.0.hook_resid_pre",
        "blocks.0.attn.hook_pattern",
        "blocks.1.attn.hook_k",
        "blocks.1.mlp.hook_post",
    ):
        gradient = golden[f"{name}_grad"]
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        losses = []
        for sign in (1.0, -1.0):
            with float32_means_float64():
                moved = lambda tensor, hook, move=sign * step * direction: tensor + move  # noqa: E731
                losses.append(build(variant).run_with_hooks(tokens, return_type="loss", fwd_hooks=[(name, moved)]))
        slope = (losses[0] - losses[1]) / (2 * step)
        error = abs((slope - (gradient * direction).sum()).item())
        assert error < 1e-7, f"{name}: {error}"


if __name__ == "__main__":
    for variant in VARIANTS:
        if variant.name in MODELS:
            make(variant)
