"""Tiny TransformerLens models: every activation under its hook name, optional hooks, edits, processed weights."""

import warnings
from dataclasses import dataclass, field

from common import (
    NoReducedPrecision,
    fixture_dir,
    float32_means_float64,
    randomise,
    seed_of,
    write_json,
    write_manifest,
    write_tensors,
)

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

warnings.filterwarnings("ignore")

VOCAB, WIDTH, HEADS, HEAD_WIDTH, MLP_WIDTH, LAYERS, CONTEXT, POSITIONS = 13, 8, 2, 4, 12, 2, 16, 5
PACKAGES = ["torch", "transformer-lens", "safetensors"]
BUFFERS = ("mask", "IGNORE", "rotary_sin", "rotary_cos")
UNSAVED_SETTINGS = {
    "device",
    "dtype",
    "n_devices",
    "seed",
    "init_mode",
    "init_weights",
    "initializer_range",
    "model_name",
    "tokenizer_name",
    "original_architecture",
    "from_checkpoint",
    "trust_remote_code",
}
DEFAULT_PROCESSING = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
REFACTOR = "refactor_factored_attn_matrices"


@dataclass
class Variant:
    name: str
    note: str
    settings: dict = field(default_factory=dict)
    optional_hooks: tuple[str, ...] = ()
    processing: dict[str, tuple[str, ...]] = field(default_factory=dict)


GATED_GQA = dict(
    normalization_type="RMS",
    positional_embedding_type="rotary",
    gated_mlp=True,
    act_fn="silu",
    n_heads=4,
    n_key_value_heads=2,
)
ROTARY = dict(positional_embedding_type="rotary", d_head=8)
LOCAL = dict(use_local_attn=True, window_size=3, attn_types=["global", "local"])

VARIANTS = [
    Variant(
        "tl-ln",
        "LayerNorm, learned positions, gelu_new",
        optional_hooks=("use_attn_result", "use_split_qkv_input", "use_attn_in", "use_hook_mlp_in", "use_hook_tokens"),
        processing={flag: (flag,) for flag in (*DEFAULT_PROCESSING, REFACTOR)}
        | {"default": DEFAULT_PROCESSING, "all": (*DEFAULT_PROCESSING, REFACTOR)},
    ),
    Variant(
        "tl-rms-gqa",
        "RMSNorm, rotary, grouped queries, gated silu",
        GATED_GQA,
        optional_hooks=("use_attn_result", "use_split_qkv_input", "ungroup_grouped_query_attention"),
        processing={flag: (flag,) for flag in DEFAULT_PROCESSING} | {"default": DEFAULT_PROCESSING},
    ),
    Variant("tl-attn-only", "attention only, no norm", dict(attn_only=True, normalization_type=None)),
    Variant(
        "tl-solu-ln",
        "SoLU with its inner LayerNorm",
        dict(act_fn="solu_ln"),
        processing={"fold_ln": ("fold_ln",), "default": DEFAULT_PROCESSING},
    ),
    Variant("tl-solu", "SoLU without the inner norm, RMS final norm", dict(act_fn="solu", final_rms=True)),
    Variant("tl-lnpre", "LayerNorm without weights", dict(normalization_type="LNPre", act_fn="relu")),
    Variant("tl-rmspre", "RMSNorm without weights", dict(normalization_type="RMSPre", act_fn="gelu")),
    Variant(
        "tl-rotary-adjacent",
        "rotary on adjacent pairs of the first half of each head",
        ROTARY | dict(rotary_dim=4, rotary_adjacent_pairs=True, parallel_attn_mlp=True),
    ),
    Variant(
        "tl-rotary-partial",
        "rotary halves, half of each head, linear scaling",
        ROTARY | dict(rotary_dim=4, rotary_scaling_factor=2.0),
    ),
    Variant("tl-parallel", "attention and MLP side by side", dict(parallel_attn_mlp=True, use_hook_mlp_in=True)),
    Variant("tl-alibi", "ALiBi", dict(positional_embedding_type="alibi")),
    Variant("tl-shortformer", "shortformer positions", dict(positional_embedding_type="shortformer")),
    Variant("tl-local", "alternating global and local attention, no score scale", LOCAL | dict(use_attn_scale=False)),
    Variant(
        "tl-rotary-local-base",
        "rotary with its own base on local layers and linear scaling on global ones",
        LOCAL | ROTARY | dict(rotary_base=1000, rotary_base_local=50, rotary_scaling_factor=2.0),
    ),
    Variant("tl-bidirectional", "no causal mask", dict(attention_dir="bidirectional")),
    Variant("tl-qk-norm", "RMSNorm on queries and keys of each head", GATED_GQA | dict(use_qk_norm=True)),
    Variant(
        "tl-soft-caps", "soft-capped scores and logits", dict(attn_scores_soft_cap=2.0, output_logits_soft_cap=3.0)
    ),
    Variant(
        "tl-norm-before-and-after",
        "RMSNorm before and after both sublayers",
        GATED_GQA | dict(use_normalization_before_and_after=True, act_fn="gelu_pytorch_tanh", d_head=6),
        processing={"default": DEFAULT_PROCESSING},
    ),
    Variant(
        "tl-ntk-by-parts",
        "Llama 3 rotary scaling",
        ROTARY | dict(use_NTK_by_parts_rope=True, NTK_original_ctx_len=16, rotary_base=100),
    ),
    Variant(
        "tl-yarn",
        "YaRN rotary scaling",
        ROTARY
        | dict(
            use_yarn_rope=True,
            yarn_factor=4.0,
            yarn_attention_factor=1.2,
            yarn_beta_fast=2.0,
            yarn_original_max_position_embeddings=64,
            rotary_base=100,
        ),
    ),
    Variant(
        "tl-yarn-untruncated",
        "YaRN without rounding of its correction range, global layers only",
        LOCAL
        | ROTARY
        | dict(
            use_yarn_rope=True,
            yarn_factor=4.0,
            yarn_beta_fast=2.0,
            yarn_truncate=False,
            yarn_global_attn_only=True,
            yarn_original_max_position_embeddings=64,
            rotary_base=100,
        ),
    ),
    Variant("tl-inverse-layer-scale", "scores divided by layer + 1", dict(scale_attn_by_inverse_layer_idx=True)),
    Variant("tl-d-vocab-out", "fewer output than input tokens", dict(d_vocab_out=5)),
    Variant("tl-post-embedding-ln", "LayerNorm after the embedding", dict(post_embedding_ln=True, act_fn="gelu_fast")),
    Variant("tl-relu2", "squared ReLU", dict(act_fn="relu2")),
    Variant(
        "tl-sinks", "attention sinks and clipped queries, keys, values", dict(use_attention_sinks=True, clip_qkv=0.8)
    ),
]

EDITS = {
    "q_input": dict(
        flag="use_split_qkv_input",
        hook="blocks.1.hook_q_input",
        does="[:, :, 1, :4] multiplied by 2",
    ),
    "result": dict(flag="use_attn_result", hook="blocks.1.attn.hook_result", does="[:, :, 0] set to 0"),
    "mlp_in": dict(flag="use_hook_mlp_in", hook="blocks.0.hook_mlp_in", does="[:, :, :4] multiplied by 2"),
    "attn_in": dict(flag="use_attn_in", hook="blocks.0.hook_attn_in", does="[:, :, 0] set to 0"),
}


def double_half_of_head_one(tensor, hook):
    tensor[:, :, 1, :4] *= 2
    return tensor


def zero_head_zero(tensor, hook):
    tensor[:, :, 0] = 0
    return tensor


def double_half(tensor, hook):
    tensor[:, :, :4] *= 2
    return tensor


EDIT_FUNCTIONS = {
    "q_input": double_half_of_head_one,
    "result": zero_head_zero,
    "mlp_in": double_half,
    "attn_in": zero_head_zero,
}


def build(variant: Variant, **flags) -> HookedTransformer:
    """The same weights every time, in float64, though each is exactly a float32."""
    sizes = dict(
        d_model=WIDTH,
        d_head=HEAD_WIDTH,
        n_heads=HEADS,
        d_mlp=MLP_WIDTH,
        n_layers=LAYERS,
        n_ctx=CONTEXT,
        d_vocab=VOCAB,
        act_fn="gelu_new",
        normalization_type="LN",
        init_weights=False,
        device="cpu",
        dtype=torch.float64,
    )
    model = HookedTransformer(HookedTransformerConfig(**sizes | variant.settings | flags))
    randomise(model.named_parameters(), seed_of(variant.name))
    return model.eval()


def weights_of(model: HookedTransformer) -> dict:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(BUFFERS)}


def config_of(model: HookedTransformer, note: str) -> dict:
    settings = {name: value for name, value in model.cfg.to_dict().items() if name not in UNSAVED_SETTINGS}
    return {"architecture": "HookedTransformer", "note": note} | settings


def tokens_of(variant: Variant):
    generator = torch.Generator().manual_seed(seed_of(variant.name) + 1)
    return torch.randint(0, VOCAB, (2, POSITIONS), generator=generator)


@torch.no_grad()
def dump(model: HookedTransformer, tokens) -> dict:
    with NoReducedPrecision():
        logits, cache = model.run_with_cache(tokens, return_cache_object=False)
    return {"tokens": tokens, "logits": logits} | cache


def new_or_different(dumped: dict, golden: dict) -> dict:
    def is_new(name):
        known = golden.get(name)
        return (
            known is None
            or known.shape != dumped[name].shape
            or not torch.allclose(dumped[name], known, rtol=0.0, atol=1e-12)
        )

    return {name: tensor for name, tensor in dumped.items() if is_new(name)}


def dump_edits(variant: Variant, tokens) -> dict:
    edited = {}
    for name, edit in EDITS.items():
        model = build(variant, **{edit["flag"]: True})
        with torch.no_grad():
            logits = model.run_with_hooks(tokens, fwd_hooks=[(edit["hook"], EDIT_FUNCTIONS[name])])
            distance = (logits - model(tokens)).abs().max()
        assert distance > 1e-2, f"edit {name} does not show: {distance}"
        edited[f"{name}.logits"] = logits
    return edited


def dump_processed(variant: Variant, flags: tuple[str, ...], tokens) -> tuple[dict, list[str]]:
    """The tensors that processing changed, and the names of those it took away."""
    model = build(variant)
    before = {name: tensor.clone() for name, tensor in weights_of(model).items()}
    every_flag = (*DEFAULT_PROCESSING, REFACTOR)
    with NoReducedPrecision():
        model.load_and_process_state_dict(model.state_dict(), **{flag: flag in flags for flag in every_flag})
    after = weights_of(model)
    changed = {name: tensor for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    with torch.no_grad():
        changed["logits"] = model(tokens)
        difference = changed["logits"].log_softmax(-1) - build(variant)(tokens).log_softmax(-1)
    if not variant.settings.get("final_rms"):
        assert difference.abs().max() < 1e-9, f"{variant.name} {flags}: processing changed the model"
    return changed, sorted(before.keys() - after.keys())


def make(variant: Variant) -> None:
    directory = fixture_dir(variant.name)
    tokens = tokens_of(variant)
    with torch.no_grad():
        as_shipped = build(variant)(tokens)
    with float32_means_float64():
        model = build(variant)
        golden = dump(model, tokens)
        facts = dict(
            seed=seed_of(variant.name),
            hooks_in_firing_order=[name for name in golden if name not in ("tokens", "logits")],
        )
        write_json(directory / "config.json", config_of(model, variant.note))
        write_tensors(directory / "golden.safetensors", golden)
        weights = weights_of(model)
        for flag in variant.optional_hooks:
            extra = {"use_split_qkv_input": True} if flag.startswith("ungroup") else {}
            with_hooks = dump(build(variant, **extra, **{flag: True}), tokens)
            write_tensors(directory / f"golden.{flag}.safetensors", new_or_different(with_hooks, golden))
        if variant.name == "tl-ln":
            write_tensors(directory / "golden.edits.safetensors", dump_edits(variant, tokens))
            facts["edits"] = EDITS
        if variant.processing:
            facts["processed"] = {}
        for name, flags in variant.processing.items():
            changed, removed = dump_processed(variant, flags, tokens)
            write_tensors(directory / f"processed.{name}.safetensors", changed)
            facts["processed"][name] = {"flags": list(flags), "removed": removed}
    single = {name: tensor.to(torch.float32) for name, tensor in weights.items()}
    assert all(torch.equal(single[name].double(), tensor) for name, tensor in weights.items())
    write_tensors(directory / "model.safetensors", single)
    write_manifest(directory, "transformer_lens_dumps.py", PACKAGES, **facts)
    distance = (as_shipped - golden["logits"]).abs().max().item()
    print(f"{variant.name}: |logits as shipped - logits in true f64| = {distance:.1e}")


if __name__ == "__main__":
    for variant in VARIANTS:
        make(variant)
