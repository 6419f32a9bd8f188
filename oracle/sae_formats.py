"""Tiny dictionaries in the formats of other programs, with what those programs' own code makes of inputs.

The classes here compute what the published ones do: dictionary_learning (`dictionary.py`, `trainers/`), OpenAI's
sparse_autoencoder (`model.py`), EleutherAI's sparsify (`sparse_coder.py`), Llama Scope (`lm_saes/sae.py`, November
2024), Gemma Scope (the tutorial's JumpReLUSAE) and the AutoEncoder of sae_visualizer (`model_fns.py`). Weights are
float32 in the files; codes and reconstructions are computed of them in float64.
"""

import argparse
import shutil

import numpy as np
from common import fixture_dir, seed_of, write_json, write_manifest, write_tensors

import torch
from torch.nn.functional import linear, relu

D, H = 8, 24


class Random:
    def __init__(self, name: str):
        self.generator = torch.Generator().manual_seed(seed_of(name))

    def __call__(self, *shape: int, scale: float = 0.4) -> torch.Tensor:
        return (scale * torch.randn(shape, generator=self.generator, dtype=torch.float64)).float()

    def input(self) -> torch.Tensor:
        return 2 * torch.randn((2, 5, D), generator=self.generator, dtype=torch.float64) + 0.3


def wide(state: dict) -> dict:
    return {key: value.double() for key, value in state.items() if value.is_floating_point()}


def top(pre: torch.Tensor, k: int) -> torch.Tensor:
    values, indices = relu(pre).topk(k, dim=-1)
    return torch.zeros_like(pre).scatter_(-1, indices, values)


def dictionary_learning(dict_class: str):
    def make(random: Random, path):
        linear_state = {"encoder.weight": random(H, D), "decoder.weight": random(D, H)}
        plain = {"W_enc": random(D, H), "W_dec": random(H, D), "b_enc": random(H), "b_dec": random(D)}
        k, threshold = torch.tensor(4, dtype=torch.int), torch.tensor(0.35)
        state = {
            "AutoEncoder": {**linear_state, "encoder.bias": random(H), "bias": random(D)},
            "AutoEncoderNew": {**linear_state, "encoder.bias": random(H), "decoder.bias": random(D)},
            "GatedAutoEncoder": {
                **linear_state,
                "decoder_bias": random(D),
                "r_mag": random(H),
                "gate_bias": random(H),
                "mag_bias": random(H),
            },
            "JumpReluAutoEncoder": {**plain, "threshold": random(H).abs()},
            "AutoEncoderTopK": {
                **linear_state,
                "encoder.bias": random(H),
                "b_dec": random(D),
                "k": k,
                "threshold": torch.tensor(-1.0),
            },
            "BatchTopKSAE": {
                **linear_state,
                "encoder.bias": random(H),
                "b_dec": random(D),
                "k": k,
                "threshold": threshold,
            },
            "MatryoshkaBatchTopKSAE": {
                **plain,
                "k": k,
                "threshold": threshold,
                "group_sizes": torch.tensor([6, 6, 12]),
            },
        }[dict_class]
        torch.save(state, path / "ae.pt")
        trainer = {"dict_class": dict_class, "activation_dim": D, "dict_size": H, "layer": 1, "lm_name": "org/tiny"}
        if "TopK" in dict_class:
            trainer |= {"k": 4, "submodule_name": "mlp_layer_1"}
        write_json(path / "config.json", {"trainer": trainer, "buffer": {"d_submodule": D, "ctx_len": 16}})
        s, x = wide(state), random.input()
        if dict_class == "AutoEncoder":
            acts = relu(linear(x - s["bias"], s["encoder.weight"], s["encoder.bias"]))
            recons = linear(acts, s["decoder.weight"]) + s["bias"]
        elif dict_class == "AutoEncoderNew":
            acts = relu(linear(x, s["encoder.weight"], s["encoder.bias"]))
            recons = linear(acts, s["decoder.weight"], s["decoder.bias"])
        elif dict_class == "GatedAutoEncoder":
            shared = linear(x - s["decoder_bias"], s["encoder.weight"])
            gate = (shared + s["gate_bias"] > 0).double()
            acts = gate * relu(s["r_mag"].exp() * shared + s["mag_bias"])
            recons = linear(acts, s["decoder.weight"]) + s["decoder_bias"]
        elif dict_class == "JumpReluAutoEncoder":
            pre = x @ s["W_enc"] + s["b_enc"]
            acts = relu(pre * (pre > s["threshold"]))
            recons = acts @ s["W_dec"] + s["b_dec"]
        elif dict_class == "MatryoshkaBatchTopKSAE":
            pre = relu((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"])
            acts = pre * (pre > s["threshold"])
            recons = acts @ s["W_dec"] + s["b_dec"]
        else:
            pre = relu(linear(x - s["b_dec"], s["encoder.weight"], s["encoder.bias"]))
            acts = top(pre, 4) if dict_class == "AutoEncoderTopK" else pre * (pre > s["threshold"])
            recons = linear(acts, s["decoder.weight"]) + s["b_dec"]
        hook = "blocks.1.hook_mlp_out" if "TopK" in dict_class else "blocks.1.hook_resid_post"
        return x, acts, recons, hook, None

    return "ae", make


def sparsify(folder: str, hook: str, hook_out: str | None = None, **config):
    def make(random: Random, path):
        skip, transcode = config.get("skip_connection", False), config.get("transcode", False)
        state = {
            "encoder.weight": random(H, D),
            "encoder.bias": random(H),
            "W_dec": random(H, D),
            "b_dec": random(D),
            **({"W_skip": random(D, D)} if skip else {}),
        }
        write_tensors(path / "sae.safetensors", state)
        cfg = {
            "activation": "topk",
            "expansion_factor": 32,
            "normalize_decoder": True,
            "num_latents": 0,
            "k": 4,
            "multi_topk": False,
            "skip_connection": False,
            "transcode": False,
            **config,
            "d_in": D,
        }
        if not cfg["num_latents"]:
            cfg["expansion_factor"] = H // D
        write_json(path / "cfg.json", cfg)
        s, x = wide(state), random.input()
        pre = linear(x if transcode else x - s["b_dec"], s["encoder.weight"], s["encoder.bias"])
        if cfg["activation"] == "groupmax":
            values, indices = relu(pre).unflatten(-1, (cfg["k"], -1)).max(dim=-1)
            indices = indices + torch.arange(0, H, H // cfg["k"])
            acts = torch.zeros_like(pre).scatter_(-1, indices, values)
        else:
            acts = top(pre, cfg["k"])
        recons = acts @ s["W_dec"] + s["b_dec"]
        if skip:
            recons = recons + x @ s["W_skip"].mT
        return x, acts, recons, hook, hook_out

    return folder, make


def openai(folder: str, file: str, hook: str, activation: str, **inner):
    def make(random: Random, path):
        state = {
            "pre_bias": random(D),
            "encoder.weight": random(H, D),
            "latent_bias": random(H),
            "decoder.weight": random(D, H),
            "stats_last_nonzero": torch.zeros(H, dtype=torch.long),
            "latents_activation_frequency": torch.ones(H),
            "latents_mean_square": torch.zeros(H),
        }
        values = {"activation": activation, "activation_state_dict": inner}
        torch.save({**state, **values}, path / file)
        s, x = wide(state), random.input()
        normalize = activation == "TopK"
        mean, z = x.mean(-1, keepdim=True), x
        std = (x - mean).std(-1, keepdim=True)
        if normalize:
            z = (x - mean) / (std + 1e-5)
        pre = linear(z - s["pre_bias"], s["encoder.weight"], s["latent_bias"])
        acts = top(pre, inner["k"]) if normalize else relu(pre)
        recons = linear(acts, s["decoder.weight"]) + s["pre_bias"]
        return x, acts, recons * std + mean if normalize else recons, hook, None

    return folder, make


def gemma_scope(random: Random, path):
    state = {"w_enc": random(D, H), "w_dec": random(H, D), "b_enc": random(H), "b_dec": random(D)}
    state["threshold"] = random(H).abs()
    np.savez(path / "params.npz", **{key: value.numpy() for key, value in state.items()})
    s, x = wide(state), random.input()
    pre = x @ s["w_enc"] + s["b_enc"]
    acts = (pre > s["threshold"]) * relu(pre)
    return x, acts, acts @ s["w_dec"] + s["b_dec"], "blocks.3.attn.hook_z", None


def gemma_scope_embedding(random: Random, path):
    """The vectors that Hugging Face embeds are smaller by sqrt(d) than hook_embed."""
    state = {"w_enc": random(D, H), "w_dec": random(H, D), "b_enc": random(H), "b_dec": random(D)}
    state["threshold"] = random(H).abs()
    np.savez_compressed(path / "params.npz", **{key: value.numpy() for key, value in state.items()})
    s, x = wide(state), random.input()
    pre = x / D**0.5 @ s["w_enc"] + s["b_enc"]
    acts = (pre > s["threshold"]) * relu(pre)
    return x, acts, (acts @ s["w_dec"] + s["b_dec"]) * D**0.5, "hook_embed", None


def gemma_scope_2(random: Random, path):
    state = {"w_enc": random(D, H), "w_dec": random(H, D), "b_enc": random(H), "b_dec": random(D)}
    state |= {"threshold": random(H).abs(), "affine_skip_connection": random(D, D)}
    write_tensors(path / "params.safetensors", state)
    config = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-270m",
        "hf_hook_point_in": "model.layers.2.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.2.post_feedforward_layernorm.output",
        "affine_connection": True,
    }
    write_json(path / "config.json", config)
    s, x = wide(state), random.input()
    pre = x @ s["w_enc"] + s["b_enc"]
    acts = (pre > s["threshold"]) * relu(pre)
    recons = acts @ s["w_dec"] + s["b_dec"] + x @ s["affine_skip_connection"]
    return x, acts, recons, "blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out"


def llama_scope(random: Random, path):
    state = {"encoder.weight": random(H, D), "encoder.bias": random(H)}
    state |= {"decoder.weight": random(D, H), "decoder.bias": random(D)}
    (path / "checkpoints").mkdir()
    write_tensors(path / "checkpoints" / "final.safetensors", state)
    norm, threshold = 5.5, 0.4
    config = {
        "hook_point_in": "blocks.1.hook_resid_post",
        "hook_point_out": "blocks.1.hook_resid_post",
        "d_model": D,
        "d_sae": H,
        "act_fn": "jumprelu",
        "jump_relu_threshold": threshold,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": norm, "out": norm},
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "use_glu_encoder": False,
        "top_k": 4,
    }
    write_json(path / "hyperparams.json", config)
    s, x = wide(state), random.input()
    factor = D**0.5 / norm
    pre = linear(x * factor, s["encoder.weight"], s["encoder.bias"])
    acts = pre.where(pre > threshold, 0)
    recons = linear(acts, s["decoder.weight"], s["decoder.bias"]) / factor
    return x, acts, recons, config["hook_point_in"], None


def original(random: Random, path):
    state = {"W_enc": random(D, H), "b_enc": random(H), "W_dec": random(H, D), "b_dec": random(D)}
    torch.save(state, path / "25.pt")
    write_json(path / "25_cfg.json", {"seed": 42, "dict_mult": H // D, "d_mlp": D, "l1_coeff": 0.0003, "lr": 0.001})
    s, x = wide(state), random.input()
    acts = relu((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"])
    return x, acts, acts @ s["W_dec"] + s["b_dec"], "blocks.0.mlp.hook_post", None


DICTIONARIES = [
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
]
MLP = "blocks.2.hook_mlp_out"
CASES = {
    **{f"dictionary-learning-{name.lower()}": dictionary_learning(name) for name in DICTIONARIES},
    "sparsify": sparsify("layers.2", "blocks.2.hook_resid_post"),
    "sparsify-unnormalised": sparsify("h.2.attn", "blocks.2.hook_attn_out", normalize_decoder=False),
    "sparsify-groupmax": sparsify("layers.2.mlp", MLP, activation="groupmax", num_latents=H),
    "sparsify-transcoder": sparsify("layers.2.mlp", "blocks.2.mlp.hook_in", MLP, transcode=True),
    "sparsify-skip": sparsify(
        "layers.2.mlp", "blocks.2.mlp.hook_in", MLP, transcode=True, skip_connection=True, num_latents=H
    ),
    "openai-topk": openai(
        "resid_post_mlp_v5_32k/autoencoders", "1.pt", "blocks.1.hook_resid_post", "TopK", k=4, postact_fn="ReLU"
    ),
    "openai-relu": openai("mlp_post_act/autoencoders", "1.pt", "blocks.1.mlp.hook_post", "ReLU"),
    "gemma-scope": ("gemma-scope-2b-pt-att/layer_3/width_16k/average_l0_71", gemma_scope),
    "gemma-scope-embedding": ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", gemma_scope_embedding),
    "gemma-scope-2": ("transcoder/layer_2_width_16k", gemma_scope_2),
    "llama-scope": ("Llama3_1-8B-Base-L1R-8x", llama_scope),
    "original": ("sparse_autoencoder", original),
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    for name in parser.parse_args().names or CASES:
        folder, make = CASES[name]
        directory = fixture_dir(f"saeformat-{name}")
        shutil.rmtree(directory)
        path = directory / folder
        path.mkdir(parents=True)
        x, acts, recons, hook, hook_out = make(Random(name), path)
        write_tensors(directory / "cases.safetensors", {"x": x, "acts": acts, "recons": recons})
        facts = {"path": folder, "hook": hook, "hook_out": hook_out}
        write_manifest(directory, "sae_formats.py", ["torch", "numpy"], seed=seed_of(name), **facts)
        print(directory)


if __name__ == "__main__":
    main()
