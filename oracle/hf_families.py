"""Tiny random checkpoints of the Hugging Face causal families, with float64 answers from their own code."""

import copy
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

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

import numpy
import torch
import transformers
from safetensors.torch import load_file

transformers.utils.logging.disable_progress_bar()

VOCAB, WIDTH, LAYERS, CONTEXT, POSITIONS = 37, 16, 2, 32, 8
TIED_BY_DEFAULT = ("GPT2", "GPTNeo", "OPT", "Gemma", "Gemma2")
N_PADS, N_NEW_TOKENS = 3, 12


@dataclass
class Variant:
    name: str
    family: str
    settings: dict = field(default_factory=dict)
    padded: bool = False
    generated: bool = False
    legacy: str | None = None
    """The 4.x version whose spelling `config.legacy.json` copies, if there is one."""


def base_settings(family: str) -> dict:
    common = dict(vocab_size=VOCAB, bos_token_id=1, eos_token_id=2)
    modern = dict(
        hidden_size=WIDTH,
        intermediate_size=20,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )
    grouped = dict(num_attention_heads=4, num_key_value_heads=2)
    match family:
        case "GPT2" | "GPTJ":
            sizes = dict(n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=CONTEXT, n_inner=20)
            extra = dict(rotary_dim=4) if family == "GPTJ" else {}
            return common | sizes | extra
        case "GPTNeo":
            return common | dict(
                hidden_size=WIDTH,
                num_layers=LAYERS,
                num_heads=2,
                intermediate_size=20,
                max_position_embeddings=CONTEXT,
                attention_types=[[["global", "local"], 1]],
                window_size=4,
            )
        case "OPT":
            modern.pop("intermediate_size")
            return common | modern | dict(ffn_dim=20, word_embed_proj_dim=WIDTH, pad_token_id=0)
        case "GPTNeoX":
            return common | modern
        case "Llama":
            return common | modern | dict(num_key_value_heads=2)
        case "Phi3":
            return common | modern | grouped | dict(pad_token_id=None, original_max_position_embeddings=CONTEXT)
        case "Gemma" | "Gemma2":
            return common | modern | grouped | dict(head_dim=8, pad_token_id=0)
        case "Mistral" | "Qwen2":
            return common | modern | grouped
        case "Qwen3":
            return common | modern | grouped | dict(head_dim=8)
    raise ValueError(family)


def rope(kind: str, **parameters) -> dict:
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0) | parameters)


NEOX_ROTARY = lambda factor: dict(  # noqa: E731
    rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=factor)
)

VARIANTS = [
    Variant("gpt2", "GPT2", padded=True, generated=True, legacy="4.41.0"),
    Variant("gpt2-inverse-layer-scale", "GPT2", dict(scale_attn_by_inverse_layer_idx=True)),
    Variant("gpt2-no-attn-scale", "GPT2", dict(scale_attn_weights=False)),
    Variant("gpt2-relu", "GPT2", dict(activation_function="relu", n_inner=None)),
    Variant("gpt2-gelu", "GPT2", dict(activation_function="gelu", layer_norm_epsilon=1e-3)),
    Variant("gpt2-untied", "GPT2", dict(tie_word_embeddings=False)),
    Variant("gpt-neo", "GPTNeo", legacy="4.41.0"),
    Variant("neox", "GPTNeoX", NEOX_ROTARY(0.25) | dict(hidden_size=32), padded=True, generated=True, legacy="4.41.0"),
    Variant("neox-sequential", "GPTNeoX", NEOX_ROTARY(1.0) | dict(use_parallel_residual=False)),
    Variant("neox-no-attention-bias", "GPTNeoX", NEOX_ROTARY(0.5) | dict(attention_bias=False, hidden_act="gelu_fast")),
    Variant("neox-tied", "GPTNeoX", NEOX_ROTARY(0.5) | dict(tie_word_embeddings=True, hidden_act="gelu_new")),
    Variant("gptj", "GPTJ", legacy="4.41.0"),
    Variant("opt", "OPT", padded=True, legacy="4.41.0"),
    Variant("opt-no-bias", "OPT", dict(enable_bias=False)),
    Variant("opt-plain-norm", "OPT", dict(layer_norm_elementwise_affine=False)),
    Variant("llama-mha", "Llama", legacy="4.28.0"),
    Variant(
        "llama-gqa",
        "Llama",
        dict(num_attention_heads=4, num_key_value_heads=2),
        padded=True,
        generated=True,
        legacy="4.45.0",
    ),
    Variant("llama-mqa", "Llama", dict(num_attention_heads=4, num_key_value_heads=1)),
    Variant("llama-tied", "Llama", dict(tie_word_embeddings=True)),
    Variant("llama-bias", "Llama", dict(attention_bias=True, mlp_bias=True)),
    Variant("llama-head-dim", "Llama", dict(num_attention_heads=2, num_key_value_heads=2, head_dim=6)),
    Variant("llama-rope-linear", "Llama", rope("linear", factor=2.0), legacy="4.36.0"),
    Variant(
        "llama-rope-llama3",
        "Llama",
        rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
            rope_theta=100.0,
        ),
        legacy="4.45.0",
    ),
    Variant(
        "llama-rope-yarn",
        "Llama",
        rope(
            "yarn",
            factor=4.0,
            beta_fast=2.0,
            beta_slow=1.0,
            original_max_position_embeddings=64,
            rope_theta=100.0,
        )
        | dict(max_position_embeddings=256),
        legacy="4.45.0",
    ),
    Variant("llama-rope-dynamic", "Llama", rope("dynamic", factor=2.0)),
    Variant("mistral", "Mistral", dict(sliding_window=4), padded=True, legacy="4.41.0"),
    Variant("mistral-full", "Mistral", dict(sliding_window=None, head_dim=6)),
    Variant("qwen2", "Qwen2", rope("default", rope_theta=1000000.0), legacy="4.41.0"),
    Variant("qwen2-tied", "Qwen2", dict(tie_word_embeddings=True)),
    Variant(
        "qwen2-sliding", "Qwen2", dict(use_sliding_window=True, sliding_window=4, max_window_layers=1), legacy="4.41.0"
    ),
    Variant(
        "qwen2-layer-types",
        "Qwen2",
        dict(
            use_sliding_window=True,
            sliding_window=4,
            max_window_layers=2,
            layer_types=["sliding_attention", "full_attention"],
        ),
    ),
    Variant("qwen3", "Qwen3", legacy="4.51.0"),
    Variant(
        "qwen3-sliding-tied",
        "Qwen3",
        dict(
            use_sliding_window=True,
            sliding_window=4,
            max_window_layers=1,
            tie_word_embeddings=True,
            attention_bias=True,
        ),
    ),
    Variant("gemma", "Gemma", dict(num_key_value_heads=1), legacy="4.41.0"),
    Variant(
        "gemma2",
        "Gemma2",
        dict(sliding_window=4, attn_logit_softcapping=5.0, final_logit_softcapping=3.0, query_pre_attn_scalar=24),
        padded=True,
        generated=True,
        legacy="4.44.0",
    ),
    Variant(
        "gemma2-no-softcap",
        "Gemma2",
        dict(
            sliding_window=4,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            query_pre_attn_scalar=8,
            layer_types=["full_attention", "sliding_attention"],
        ),
    ),
    Variant("phi3", "Phi3", legacy="4.44.0"),
    Variant(
        "phi3-partial-rotary",
        "Phi3",
        dict(
            num_attention_heads=2,
            num_key_value_heads=2,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5),
        ),
        legacy="4.50.0",
    ),
    Variant("phi3-sliding-tied", "Phi3", dict(sliding_window=4, tie_word_embeddings=True)),
]


def build(variant: Variant, config, double: bool):
    head = "LMHeadModel" if variant.family == "GPT2" else "ForCausalLM"
    model_class = getattr(transformers, variant.family + head)
    config = copy.deepcopy(config)
    config._attn_implementation = "eager"
    config.dtype = "float64" if double else "float32"
    return model_class(config).eval()


def build_double(variant: Variant, config, weights: dict):
    """To be called, and its result to be run, inside `float32_means_float64`."""
    model = build(variant, config, double=True)
    model.load_state_dict({name: weight.double() for name, weight in weights.items()})
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert not tensor.is_floating_point() or tensor.dtype == torch.float64, f"{name} is {tensor.dtype}"
    return model


@torch.no_grad()
def run(model, tokens, **inputs):
    return model(
        input_ids=tokens,
        labels=tokens,
        output_hidden_states=True,
        output_attentions=True,
        use_cache=False,
        **inputs,
    )


def golden_of(output, tokens) -> dict:
    golden = {"tokens": tokens, "logits": output.logits, "loss": output.loss}
    golden |= {f"hidden.{i}": hidden for i, hidden in enumerate(output.hidden_states)}
    golden |= {f"attn.{i}": pattern for i, pattern in enumerate(output.attentions)}
    return golden


def padded_inputs(tokens):
    """Row 0 as it is; row 1 pushed right by pads. Positions count real tokens, as HF's own generate does."""
    mask = torch.ones_like(tokens)
    mask[1, :N_PADS] = 0
    padded = tokens.clone()
    padded[1, N_PADS:] = tokens[1, :-N_PADS]
    padded[1, :N_PADS] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return padded, mask, positions


def check_precision(name: str, golden: dict, single, double_model) -> None:
    distance = (golden["logits"] - single.logits.double()).abs().max().item()
    assert 1e-9 < distance < 1e-3, f"{name}: float32 and float64 logits differ by {distance}"
    for key, tensor in golden.items():
        if tensor.is_floating_point() and key != "hidden.0":
            assert (tensor != tensor.to(torch.float32).double()).any(), f"{name}: {key} was rounded to float32"
    head = double_model.get_output_embeddings()
    last_hidden = golden[max(key for key in golden if key.startswith("hidden."))]
    with torch.no_grad():
        logits = head(last_hidden)
    cap = getattr(double_model.config, "final_logit_softcapping", None)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    assert (logits - golden["logits"]).abs().max() < 1e-12, f"{name}: the last hidden state is not the normalised one"
    print(f"{name}: max |f64 - f32| = {distance:.1e}, largest logit {golden['logits'].abs().max():.1f}")


def legacy_config(variant: Variant, config: dict) -> dict:
    """The same model as transformers 4.x would have described it."""
    old = copy.deepcopy(config)
    old["transformers_version"] = variant.legacy
    old["torch_dtype"] = old.pop("dtype")
    old.pop("layer_types", None)
    parameters = old.pop("rope_parameters", None)
    if old.get("head_dim") == WIDTH // old.get("num_attention_heads", 1) and "gemma" not in old["model_type"]:
        old.pop("head_dim")
    if variant.family == "GPTNeoX":
        old["rotary_emb_base"] = int(parameters["rope_theta"])
        old["rotary_pct"] = parameters["partial_rotary_factor"]
        old.pop("is_decoder")
    elif parameters is not None:
        old["rope_theta"] = parameters.pop("rope_theta")
        if variant.family == "Phi3":
            factor = parameters.pop("partial_rotary_factor")
            if factor != 1.0:
                old["partial_rotary_factor"] = factor
        kind = parameters["rope_type"]
        if kind == "default":
            old["rope_scaling"] = None
        elif kind == "linear":
            old["rope_scaling"] = {"type": "linear", "factor": parameters["factor"]}
        else:
            old["rope_scaling"] = parameters
        if variant.family.startswith("Gemma") or variant.family == "Qwen2":
            old.pop("rope_scaling")
    if variant.family == "Gemma":
        old["hidden_act"] = "gelu"  # As first released; every reader has to take it for the tanh approximation.
        old.pop("use_bidirectional_attention", None)
    if variant.family == "Gemma2":
        old["hidden_act"] = "gelu_pytorch_tanh"
        old["cache_implementation"] = "hybrid"
        old.pop("use_bidirectional_attention", None)
    if variant.family == "Qwen2" and old["sliding_window"] is None:
        old["sliding_window"] = 4
    if old["tie_word_embeddings"] and variant.family in TIED_BY_DEFAULT:
        old.pop("tie_word_embeddings")
    if old.get("pad_token_id", 0) is None and variant.family != "Phi3":
        old.pop("pad_token_id")
    if variant.name == "llama-mha":
        for key in ("num_key_value_heads", "attention_bias", "mlp_bias", "rope_theta", "rope_scaling"):
            old.pop(key)
    return dict(sorted(old.items()))


def check_legacy(variant: Variant, directory: Path, weights: dict, tokens, logits) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "config.json").write_text((directory / "config.legacy.json").read_text())
        config = transformers.AutoConfig.from_pretrained(scratch)
    with float32_means_float64():
        model = build_double(variant, config, weights)
        output = run(model, tokens)
    assert torch.equal(output.logits, logits), f"{variant.name}: the legacy config describes another model"


def check_reload(model_class, directory: Path, single) -> None:
    model = model_class.from_pretrained(directory, attn_implementation="eager").eval()
    tokens = load_file(directory / "golden.safetensors")["tokens"].long()
    assert torch.allclose(run(model, tokens).logits, single.logits, atol=1e-5), f"{directory.name} is stored wrongly"


def make(variant: Variant) -> None:
    seed = seed_of(variant.name)
    torch.manual_seed(seed)
    config_class = getattr(transformers, f"{variant.family}Config")
    config = config_class(**base_settings(variant.family) | variant.settings)
    model = build(variant, config, double=False)
    randomise(model.named_parameters(), seed, zero_centred_norms=variant.family.startswith("Gemma"))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}

    generator = torch.Generator().manual_seed(seed + 1)
    tokens = torch.randint(3, VOCAB, (2, POSITIONS), generator=generator)
    single = run(model, tokens)
    padded, mask, positions = padded_inputs(tokens)
    with float32_means_float64():
        double_model = build_double(variant, config, weights)
        with NoReducedPrecision():
            golden = golden_of(run(double_model, tokens), tokens)
            if variant.padded:
                output = run(double_model, padded, attention_mask=mask, position_ids=positions)
                golden |= {
                    "padded.tokens": padded,
                    "padded.attention_mask": mask,
                    "padded.position_ids": positions,
                    "padded.logits": output.logits,
                }
    check_precision(variant.name, golden, single, double_model)
    if variant.generated:
        model.generation_config.eos_token_id = None
        ids = model.generate(
            tokens[:1],
            attention_mask=torch.ones_like(tokens[:1]),
            max_new_tokens=N_NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        golden["generate.greedy"] = ids[0, POSITIONS:]
        assert golden["generate.greedy"].shape == (N_NEW_TOKENS,)

    directory = fixture_dir(variant.name)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        for name in ("config.json", "model.safetensors"):
            (directory / name).write_bytes((Path(scratch) / name).read_bytes())
    write_tensors(directory / "golden.safetensors", golden)
    check_reload(type(model), directory, single)
    if variant.legacy:
        config_json = json.loads((directory / "config.json").read_text())
        write_json(directory / "config.legacy.json", legacy_config(variant, config_json))
        check_legacy(variant, directory, weights, tokens, golden["logits"])
    write_manifest(directory, "hf_families.py", ["torch", "transformers", "safetensors"], seed=seed)
    if variant.name == "llama-mha":
        check_llama_by_hand(weights, golden)


def check_llama_by_hand(weights: dict, golden: dict) -> None:
    """A second opinion on the first layer (RMSNorm, rotary, softmax) in plain numpy."""
    weight = lambda name: weights[f"model.{name}"].double().numpy()  # noqa: E731
    n_heads, d_head = 2, WIDTH // 2

    def rms_norm(x, scale):
        return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    def heads(x):
        return x.reshape(2, POSITIONS, n_heads, d_head).transpose(0, 2, 1, 3)

    angles = numpy.outer(numpy.arange(POSITIONS), 10000.0 ** (-numpy.arange(0, d_head, 2) / d_head))
    cos, sin = numpy.tile(numpy.cos(angles), 2), numpy.tile(numpy.sin(angles), 2)

    def rotate(x):
        half = d_head // 2
        return x * cos + numpy.concatenate([-x[..., half:], x[..., :half]], -1) * sin

    x = weight("embed_tokens.weight")[golden["tokens"].numpy()]
    layer = "layers.0."
    normed = rms_norm(x, weight(layer + "input_layernorm.weight"))
    q, k, v = (heads(normed @ weight(f"{layer}self_attn.{name}_proj.weight").T) for name in "qkv")
    scores = rotate(q) @ rotate(k).swapaxes(-1, -2) / numpy.sqrt(d_head)
    scores = numpy.where(numpy.tri(POSITIONS, dtype=bool), scores, -numpy.inf)
    pattern = numpy.exp(scores - scores.max(-1, keepdims=True))
    pattern /= pattern.sum(-1, keepdims=True)
    z = (pattern @ v).transpose(0, 2, 1, 3).reshape(2, POSITIONS, WIDTH)
    x = x + z @ weight(layer + "self_attn.o_proj.weight").T
    normed = rms_norm(x, weight(layer + "post_attention_layernorm.weight"))
    gate, up = (normed @ weight(f"{layer}mlp.{name}_proj.weight").T for name in ("gate", "up"))
    x = x + (gate / (1 + numpy.exp(-gate)) * up) @ weight(layer + "mlp.down_proj.weight").T
    for ours, theirs in ((pattern, "attn.0"), (x, "hidden.1")):
        error = numpy.abs(ours - golden[theirs].numpy()).max()
        assert error < 1e-12, f"{theirs} differs from numpy by {error}"


if __name__ == "__main__":
    for variant in VARIANTS:
        make(variant)
