"""sae_vis 0.2.15 on a random model and dictionary that burn-lens reads too: the same numbers, and the time.

    python benches/peers/peer_sae_vis.py make DIR [--small]       writes a model, two dictionaries and tokens
    python benches/peers/peer_sae_vis.py run DIR --features 32    runs sae_vis, writes DIR/sae_vis.json
    burn-lens features run --model DIR/model --sae DIR/sae --tokens DIR/tokens.safetensors \\
        --features 0..32 --count-special --out DIR/ours --sae-vis
    python benches/peers/peer_sae_vis.py compare DIR              compares DIR/ours/sae_vis.json with it

The shape is that of gelu-1l (d_model 512, d_mlp 2048, 48,262 tokens, 16,384 features); `--small` is one that
takes seconds. Run both on an idle machine, with as many threads, and quote ratios.

The residual stream of the model has mean 0, because sae_vis does not subtract the mean in the final norm.
What it computes otherwise than it says is not compared: `docs/feature-data.md` lists that.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

HOOK = "blocks.0.mlp.hook_post"
GELU_1L = dict(d_model=512, n_heads=8, d_head=64, d_mlp=2048, d_vocab=48262, n_ctx=128)
SMALL = dict(d_model=32, n_heads=2, d_head=16, d_mlp=128, d_vocab=500, n_ctx=32)


def build(shape):
    config = HookedTransformerConfig(n_layers=1, act_fn="gelu_new", normalization_type="LNPre", seed=0, **shape)
    model = HookedTransformer(config).eval()
    for name in ["embed.W_E", "pos_embed.W_pos", "blocks.0.attn.W_O", "blocks.0.mlp.W_out"]:
        weight = model.get_parameter(name).data
        weight *= 3  # random models say nothing with the usual scale
        weight -= weight.mean(-1, keepdim=True)
    return model


@torch.inference_mode()
def dictionary(model, d_sae, tokens, seed, density):
    """A random one whose features are active at about `density` of the tokens."""
    generator = torch.Generator().manual_seed(seed)
    d_in = model.cfg.d_mlp
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    w_enc = normal(d_in, d_sae) / d_in**0.5
    w_dec = normal(d_sae, d_in)
    w_dec /= w_dec.norm(dim=-1, keepdim=True)
    b_dec = 0.1 * normal(d_in)
    _, cache = model.run_with_cache(tokens[:16], names_filter=HOOK, return_type=None)
    pre = (cache[HOOK].flatten(0, 1) - b_dec) @ w_enc
    kept = max(1, int(density * len(pre)))
    # Between two values, so that rounding decides nothing.
    b_enc = -pre.topk(kept + 1, dim=0).values[-2:].mean(0)
    return dict(W_enc=w_enc.contiguous(), W_dec=w_dec.contiguous(), b_enc=b_enc.contiguous(), b_dec=b_dec)


def make(folder, small):
    shape = SMALL if small else GELU_1L
    d_sae, n_prompts = (256, 64) if small else (16384, 4096)
    model = build(shape)
    tokens = torch.randint(0, shape["d_vocab"], (n_prompts, shape["n_ctx"]), generator=torch.Generator().manual_seed(1))
    (folder / "model").mkdir(parents=True, exist_ok=True)
    config = dict(architecture="HookedTransformer", n_layers=1, act_fn="gelu_new", normalization_type="LNPre",
                  eps=model.cfg.eps, d_vocab_out=shape["d_vocab"], attn_scale=shape["d_head"] ** 0.5,
                  positional_embedding_type="standard", original_architecture="HookedTransformer", **shape)
    (folder / "model" / "config.json").write_text(json.dumps(config, indent=2))
    buffers = ("mask", "IGNORE")
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith(buffers)}
    save_file(state, folder / "model" / "model.safetensors")
    save_file({"tokens": tokens}, folder / "tokens.safetensors")
    for name, seed in [("sae", 2), ("sae_b", 3)]:
        weights = dictionary(model, d_sae, tokens, seed, 1 / 32 if small else 1 / 256)
        (folder / name).mkdir(exist_ok=True)
        save_file(weights, folder / name / "sae_weights.safetensors")
        config = dict(architecture="standard", d_in=shape["d_mlp"], d_sae=d_sae, dtype="float32", device="cpu",
                      apply_b_dec_to_input=True, normalize_activations="none", reshape_activations="none",
                      metadata=dict(hook_name=HOOK))
        (folder / name / "cfg.json").write_text(json.dumps(config, indent=2))


def load(folder):
    shape = SMALL if json.loads((folder / "model" / "config.json").read_text())["d_model"] == 32 else GELU_1L
    model = build(shape)
    model.load_state_dict(load_file(folder / "model" / "model.safetensors"), strict=False)
    return model, load_file(folder / "tokens.safetensors")["tokens"]


def run(folder, n_features, n_prompts, second):
    from sae_vis.data_config_classes import SaeVisConfig
    from sae_vis.data_storing_fns import SaeVisData
    from sae_vis.model_fns import AutoEncoder, AutoEncoderConfig

    model, tokens = load(folder)

    def encoder(name):
        weights = load_file(folder / name / "sae_weights.safetensors")
        d_in, d_sae = weights["W_enc"].shape
        encoder = AutoEncoder(AutoEncoderConfig(d_in=d_in, d_hidden=d_sae))
        encoder.load_state_dict(weights)
        return encoder

    config = SaeVisConfig(hook_point=HOOK, features=range(n_features), verbose=True)
    arguments = dict(encoder=encoder("sae"), model=model, tokens=tokens[:n_prompts], cfg=config)
    if second:
        arguments["encoder_B"] = encoder("sae_b")
    start = time.perf_counter()
    data = SaeVisData.create(**arguments)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"sae_vis: {n_features} features over {tokens[:n_prompts].numel()} tokens, "
          f"{torch.get_num_threads()} threads: {seconds:.1f} s, {peak:.1f} GiB at most", flush=True)
    data.save_json(folder / "sae_vis.json")


class Distance:
    """The largest difference of a kind of number, relative to 1 or to the number."""

    def __init__(self):
        self.worst = {}

    def __call__(self, what, ours, theirs):
        for a, b in zip(ours, theirs, strict=True):
            worst, n = self.worst.get(what, (0.0, 0))
            self.worst[what] = (max(worst, abs(a - b) / max(1.0, abs(b))), n + 1)


def compare(folder):
    ours = json.loads((folder / "ours" / "sae_vis.json").read_text())["feature_data_dict"]
    theirs = json.loads((folder / "sae_vis.json").read_text())["feature_data_dict"]
    distance, windows = Distance(), 0
    for feature, data in theirs.items():
        mine = ours[feature]
        one, two = mine["logits_table_data"], data["logits_table_data"]
        for side in ["top_logits", "bottom_logits"]:
            distance(side, one[side], two[side])
        one, two = mine["feature_tables_data"], data["feature_tables_data"]
        distance("pearson with neurons", one["correlated_neurons_pearson"], two["correlated_neurons_pearson"])
        distance("cosine with neurons", one["correlated_neurons_cossim"], two["correlated_neurons_cossim"])
        title = data["acts_histogram_data"]["title"]
        assert mine["acts_histogram_data"]["title"] == title, (mine["acts_histogram_data"]["title"], title)
        sequences = {}
        for group in mine["sequence_data"]["seq_group_data"]:
            sequences |= {tuple(s["token_ids"]): s for s in group["seq_data"]}
        for group in data["sequence_data"]["seq_group_data"]:
            for sequence in group["seq_data"]:
                same = sequences.get(tuple(sequence["token_ids"]))
                if same is None:
                    continue  # another sample of an interval
                windows += 1
                distance("activations (they round to 4 digits)", same["feat_acts"], sequence["feat_acts"])
                distance("logit effects", same["token_logits"], sequence["token_logits"])
                # `std` with n - 1 and no epsilon there: a thousandth at d_model 512.
                distance("loss effects", same["loss_contribution"], sequence["loss_contribution"])
                for a, b in zip(same["top_logits"], sequence["top_logits"], strict=True):
                    if a and b:
                        distance("hover, top", a, b)
    print(f"{len(theirs)} features, {windows} windows that both show; largest differences:")
    for what, (worst, n) in distance.worst.items():
        print(f"  {what:40} {worst:.2e} of {n}")
    assert windows > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--second", action="store_true", help="with the second dictionary")
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.folder, arguments.small)
    elif arguments.what == "run":
        run(arguments.folder, arguments.features, arguments.prompts, arguments.second)
    else:
        compare(arguments.folder)


if __name__ == "__main__":
    main()
