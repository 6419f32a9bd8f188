"""Tiny dictionaries of every kind, in SAELens's format, with what SAELens makes of the same inputs.

Each `fixtures/sae-*` holds what `save_inference_model` or `save_model` wrote, and `cases.safetensors`: inputs,
pre-activations, codes and reconstructions in float64, and the same after folding (`folded_*`: decoder norms,
`scaled_*`: a scaling factor, `whitened_*`: a whitening), where SAELens allows it. Those of `CHECKPOINTS` hold what
`save_model` writes in training; their answers are those of what `save_inference_model` makes of the same dictionary.
`saeformat-sae-lens-training` is one of them trained on scaled activations, with the scale beside it.
"""

import argparse
import json
import tempfile
import warnings

from common import fixture_dir, seed_of, write_json, write_manifest, write_tensors

import torch

warnings.filterwarnings("ignore")
from sae_lens import SAE
from sae_lens.registry import get_sae_class, get_sae_training_class

D_IN, D_SAE, D_OUT, FACTOR, THRESHOLD = 8, 24, 6, 1.75, 0.45
HOOK, HOOK_OUT, HOOK_Z = "blocks.0.hook_resid_pre", "blocks.0.hook_mlp_out", "blocks.1.attn.hook_z"

# name: (architecture, what its configuration says)
CASES = {
    "standard": ("standard", {}),
    "standard-uncentred": ("standard", {"apply_b_dec_to_input": False}),
    "standard-layer-norm": ("standard", {"normalize_activations": "layer_norm"}),
    "standard-constant-norm": ("standard", {"normalize_activations": "constant_norm_rescale"}),
    "standard-hook-z": ("standard", {"reshape_activations": "hook_z"}),
    "gated": ("gated", {}),
    "gated-uncentred": ("gated", {"apply_b_dec_to_input": False}),
    "topk": ("topk", {"k": 4}),
    "topk-rescaled": ("topk", {"k": 4, "rescale_acts_by_decoder_norm": True}),
    "topk-few": ("topk", {"k": 8}),
    "topk-layer-norm": ("topk", {"k": 4, "normalize_activations": "layer_norm"}),
    "abstopk": ("abstopk", {"k": 4}),
    "abstopk-rescaled": ("abstopk", {"k": 4, "rescale_acts_by_decoder_norm": True}),
    "jumprelu": ("jumprelu", {}),
    "transcoder": ("transcoder", {"d_out": D_OUT, "apply_b_dec_to_input": False}),
    "transcoder-layer-norm": (
        "transcoder",
        {"d_out": D_OUT, "apply_b_dec_to_input": False, "normalize_activations": "layer_norm"},
    ),
    "skip-transcoder": ("skip_transcoder", {"d_out": D_OUT, "apply_b_dec_to_input": False}),
    "jumprelu-transcoder": ("jumprelu_transcoder", {"d_out": D_OUT, "apply_b_dec_to_input": False}),
    "jumprelu-skip-transcoder": ("jumprelu_skip_transcoder", {"d_out": D_OUT, "apply_b_dec_to_input": False}),
    "matching-pursuit": ("matching_pursuit", {"residual_threshold": 0.3}),
    "matching-pursuit-limited": (
        "matching_pursuit",
        {"residual_threshold": 0.0, "max_iterations": 3, "stop_on_duplicate_support": False},
    ),
    "matching-pursuit-uncentred": ("matching_pursuit", {"apply_b_dec_to_input": False}),
    "temporal": ("temporal", {"n_heads": 2, "bottleneck_factor": 4, "n_attn_layers": 2, "kval_topk": 5}),
    "temporal-untied": (
        "temporal",
        {
            "n_heads": 2,
            "bottleneck_factor": 4,
            "sae_diff_type": "relu",
            "tied_weights": False,
            "normalize_activations": "constant_scalar_rescale",
            "activation_normalization_factor": 0.7,
        },
    ),
}
TRAINED = {
    "batchtopk": ("batchtopk", {"k": 3.5, "rescale_acts_by_decoder_norm": True}),
    "matryoshka-batchtopk": ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [6, 12, D_SAE]}),
}
# Saved in training, as checkpoints are.
CHECKPOINTS = {
    "batchtopk-training": TRAINED["batchtopk"],
    "batchtopk-plain-training": ("batchtopk", {"k": 4, "rescale_acts_by_decoder_norm": False}),
    "matryoshka-batchtopk-training": TRAINED["matryoshka-batchtopk"],
}
SCALED = "sae-lens-training"
# Configurations as versions before 6 wrote them.
OLD = {
    "old-standard": {
        "hook_point": HOOK,
        "hook_point_layer": 0,
        "hook_point_head_index": None,
        "activation_fn_str": "relu",
        "normalize_activations": False,
        "expansion_factor": 3,
        "model_name": "tiny",
        "prepend_bos": True,
        "l1_coefficient": 0.001,
    },
    "old-topk": {
        "hook_name": HOOK_Z,
        "hook_layer": 1,
        "hook_head_index": None,
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4},
        "normalize_activations": "none",
        "finetuning_scaling_factor": False,
        "sae_lens_training_version": "4.0.0",
        "model_name": "tiny",
    },
}


def generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(name))


@torch.no_grad()
def randomise(sae, name: str) -> None:
    random = generator(name)
    for key, parameter in sorted(sae.named_parameters()):
        noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        if key == "threshold":
            noise = 0.4 * noise.abs()
        elif parameter.ndim == 1:
            noise = 0.3 * noise - (1.5 if name == "topk-few" and key == "b_enc" else 0.1)
        else:
            noise = noise / 3
        if sae.cfg.architecture() == "matching_pursuit" and key == "W_dec":
            noise = noise / noise.norm(dim=-1, keepdim=True)
        if sae.cfg.architecture() == "temporal" and parameter.ndim == 2:
            noise = 3 * noise  # its pre-activations are divided by 4 d_in
        parameter.copy_(noise)


def hooks(architecture: str, config: dict) -> dict:
    if config.get("reshape_activations") == "hook_z":
        return {"hook_name": HOOK_Z}
    out = {"hook_name_out": HOOK_OUT} if "transcoder" in architecture else {}
    return {"hook_name": HOOK, **out}


def make(name: str):
    architecture, config = (CASES | TRAINED | CHECKPOINTS)[name]
    get = get_sae_class if name in CASES else get_sae_training_class
    sae_class, config_class = get(architecture)
    sae = sae_class(config_class(d_in=D_IN, d_sae=D_SAE, dtype="float64", **config))
    metadata = {"model_name": "tiny", "context_size": 16, "neuronpedia_id": None, **hooks(architecture, config)}
    for key, value in metadata.items():
        sae.cfg.metadata[key] = value
    randomise(sae, name)
    return sae


def inputs(sae, name: str) -> torch.Tensor:
    x = torch.randn((2, 5, D_IN), generator=generator(name + " input"), dtype=torch.float64)
    x = 2 * x + 0.3
    if sae.cfg.reshape_activations == "hook_z":
        return x.reshape(2, 5, 2, D_IN // 2)
    return x


@torch.no_grad()
def run(sae, x: torch.Tensor) -> dict[str, torch.Tensor]:
    seen = {}
    sae.hook_sae_acts_pre.add_hook(lambda value, hook: seen.__setitem__("pre", value.clone()))
    acts = sae.encode(x)
    sae.reset_hooks()
    recons = sae.forward(x)
    return {"acts": acts, "recons": recons, **seen}


def whitening(name: str) -> tuple[torch.Tensor, ...]:
    random = generator(name + " whitening")
    mean = torch.randn(D_IN, generator=random, dtype=torch.float64)
    matrix = torch.randn((D_IN, D_IN), generator=random, dtype=torch.float64) / 3 + torch.eye(D_IN, dtype=torch.float64)
    return mean, matrix, torch.linalg.inv(matrix)


def folds(path, x: torch.Tensor, name: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What SAELens computes after each fold, and which folds it refuses."""
    tensors, refused = {}, []
    mean, matrix, inverse = whitening(name)
    for kind, fold in {
        "folded": lambda sae: sae.fold_W_dec_norm(),
        "scaled": lambda sae: sae.fold_activation_norm_scaling_factor(FACTOR),
        "whitened": lambda sae: sae.fold_activation_whitening(mean, matrix, inverse),
    }.items():
        sae = SAE.load_from_disk(path)
        try:
            fold(sae)
            result = run(sae, x)
        except (NotImplementedError, RuntimeError):
            refused.append(kind)
            continue
        tensors |= {f"{kind}_{key}": value for key, value in result.items()}
    return tensors | {"mean": mean, "whitening": matrix, "unwhitening": inverse}, refused


def finish(name: str, x: torch.Tensor, only_forward: bool = False) -> None:
    directory = fixture_dir(f"sae-{name}")
    sae = SAE.load_from_disk(directory)
    tensors, refused = ({}, []) if only_forward else folds(directory, x, name)
    tensors |= {"x": x, **run(sae, x)}
    write_tensors(directory / "cases.safetensors", tensors)
    seal(directory, seed=seed_of(name), refused=refused, factor=FACTOR)


def write(name: str) -> None:
    directory = fixture_dir(f"sae-{name}")
    sae = make(name)
    x = inputs(sae, name)
    if name in TRAINED:
        sae.topk_threshold.fill_(THRESHOLD)
        sae.save_inference_model(directory)
    else:
        sae.save_model(directory)
    config = json.loads((directory / "cfg.json").read_text())
    config["metadata"].pop("sae_lens_training_version", None)
    write_json(directory / "cfg.json", config)
    finish(name, x, only_forward=name in TRAINED)


@torch.no_grad()
def write_checkpoint(name: str, directory, factor: float | None = None) -> tuple[torch.Tensor, dict]:
    """What `save_model` writes, and what the dictionary that `save_inference_model` writes makes of inputs."""
    directory.mkdir(parents=True, exist_ok=True)
    sae = make(name)
    sae.topk_threshold.fill_(THRESHOLD)
    if factor is not None:
        sae.cfg.normalize_activations = "expected_average_only_in"
        write_json(directory / "activation_scaler.json", {"scaling_factor": factor})
    sae.save_model(directory)
    write_json(directory / "cfg.json", json.loads((directory / "cfg.json").read_text()))
    if factor is not None:
        sae.fold_activation_norm_scaling_factor(factor)
        sae.cfg.normalize_activations = "none"
    x = inputs(sae, name)
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        return x, run(SAE.load_from_disk(folder), x)


def write_checkpoints(names: list[str]) -> None:
    for name in [name for name in names if name in CHECKPOINTS]:
        directory = fixture_dir(f"sae-{name}")
        x, answers = write_checkpoint(name, directory)
        write_tensors(directory / "cases.safetensors", {"x": x, **answers})
        seal(directory, seed=seed_of(name), refused=[], factor=FACTOR)
    if SCALED in names:
        directory, folder = fixture_dir(f"saeformat-{SCALED}"), "checkpoints/100"
        x, answers = write_checkpoint("batchtopk-training", directory / folder, FACTOR)
        write_tensors(directory / "cases.safetensors", {"x": x, **answers})
        seal(directory, path=folder, hook=HOOK, hook_out=None)


def seal(directory, **facts) -> None:
    for file in directory.rglob("*.*"):
        file.chmod(0o644)
    write_manifest(directory, "sae.py", ["sae-lens", "torch"], **facts)
    print(directory)


def write_old(name: str) -> None:
    """The weights of another case, with a configuration of an older version."""
    directory = fixture_dir(f"sae-{name}")
    source = make("standard" if name == "old-standard" else "topk")
    tensors = dict(source.state_dict())
    tensors["scaling_factor"] = torch.ones(D_SAE, dtype=torch.float64)
    write_tensors(directory / "sae_weights.safetensors", tensors)
    write_json(directory / "cfg.json", {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float64", "device": "cpu", **OLD[name]})
    x = torch.randn((2, 5, D_IN), generator=generator(name + " input"), dtype=torch.float64)
    finish(name, x if name == "old-standard" else x.reshape(2, 5, 2, D_IN // 2), only_forward=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    names = parser.parse_args().names or [*CASES, *TRAINED, *CHECKPOINTS, SCALED, *OLD]
    for name in names:
        if name in OLD:
            write_old(name)
        elif name in CASES or name in TRAINED:
            write(name)
    write_checkpoints(names)


if __name__ == "__main__":
    main()
