"""Circuits of the trained checkpoints of `../shared/models` by TransformerLens, on their weights as they are.

    python oracle/trained_circuits.py [FOLDER]

The checkpoints are not part of the repository; what comes of them is small.
"""

import dataclasses
import json
import logging
import sys
from pathlib import Path

import torch
from circuits import PACKAGES, by_size
from common import fixture_dir, float32_means_float64, write_manifest, write_tensors
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig, SVDInterpreter
from transformer_lens.pretrained.weight_conversions import convert_llama_weights
from transformers import AutoModelForCausalLM

logging.disable(logging.WARNING)
VECTORS = 3
"""Singular vectors kept of each matrix."""


def own_format(folder: Path, config: dict) -> HookedTransformer:
    known = {field.name for field in dataclasses.fields(HookedTransformerConfig)}
    settings = {name: value for name, value in config.items() if name in known}
    settings |= dict(device="cpu", dtype=torch.float64, init_weights=False)
    model = HookedTransformer(HookedTransformerConfig(**settings))
    weights = {name: x.double() for name, x in load_file(folder / "model.safetensors").items()}
    missing, surplus = model.load_state_dict(weights, strict=False)
    assert not surplus and all(name.endswith(("mask", "IGNORE")) for name in missing), (missing, surplus)
    return model


def llama(folder: Path, config: dict) -> HookedTransformer:
    source = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    cfg = HookedTransformerConfig(
        d_model=config["hidden_size"], d_head=config["head_dim"], n_heads=config["num_attention_heads"],
        n_key_value_heads=config["num_key_value_heads"], d_mlp=config["intermediate_size"],
        n_layers=config["num_hidden_layers"], n_ctx=config["max_position_embeddings"], d_vocab=config["vocab_size"],
        act_fn="silu", normalization_type="RMS", gated_mlp=True, positional_embedding_type="rotary",
        rotary_dim=config["head_dim"], eps=config["rms_norm_eps"], final_rms=True, original_architecture="LlamaForCausalLM",
        device="cpu", dtype=torch.float64, init_weights=False,
    )  # fmt: skip
    model = HookedTransformer(cfg)
    weights = {name: x for name, x in convert_llama_weights(source, cfg).items()}
    model.load_state_dict(weights, strict=False)
    return model


def vectors(model: HookedTransformer) -> dict[str, torch.Tensor]:
    """Readouts of the first right singular vectors, and where grouped attention makes TransformerLens fail, none."""
    interpreter, cfg, found = SVDInterpreter(model), model.cfg, {}
    kinds = [] if cfg.n_key_value_heads else [("OV", l, h) for l in range(cfg.n_layers) for h in range(cfg.n_heads)]
    if not cfg.attn_only and cfg.normalization_type is None:
        kinds += [("w_in", layer, None) for layer in range(cfg.n_layers)]
    if not cfg.attn_only:
        kinds += [("w_out", layer, None) for layer in range(cfg.n_layers)]
    if cfg.d_vocab != cfg.d_vocab_out:
        return found  # It asserts d_vocab.
    for kind, layer, head in kinds:
        name = f"{kind}.{layer}" + ("" if head is None else f".{head}")
        found[name] = interpreter.get_singular_vectors(kind, layer, VECTORS, head)
    return found


@torch.no_grad()
def dump(folder: Path) -> dict[str, torch.Tensor]:
    config = json.loads((folder / "config.json").read_text())
    model = (llama if "architectures" in config else own_format)(folder, config).eval()
    cfg = model.cfg
    found = {"OV.singular_values": model.OV.S, "QK.singular_values": model.QK.S}
    spectra = {"OV": model.OV.eigenvalues, "QK": model.QK.eigenvalues}
    if cfg.d_vocab == cfg.d_vocab_out:
        spectra["full_OV"] = (model.W_E @ model.OV @ model.W_U).eigenvalues
    for name, spectrum in spectra.items():
        found[f"{name}.eigenvalues"] = torch.view_as_real(by_size(spectrum))
    if cfg.n_layers > 1:
        for mode in "QKV":
            found[f"composition.{mode}"] = model.all_composition_scores(mode)
    with float32_means_float64():
        return found | vectors(model)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    root = Path(__file__).resolve().parent.parent
    models = Path(sys.argv[1]) if len(sys.argv) > 1 else root.parent / "shared" / "models"
    target = fixture_dir("trained-circuits")
    for folder in sorted(models.iterdir()):
        write_tensors(target / f"{folder.name}.safetensors", dump(folder))
    write_manifest(target, "trained_circuits.py", PACKAGES)
