"""Writes what `burn-lens features run` is timed on: gelu-1l's shape with random weights, a random dictionary of
16,384 features, and prompts of 128 random tokens.

    python benches/peers/write_gelu_1l.py DIR [PROMPTS]
    burn-lens features run --model DIR/model --sae DIR/sae --tokens DIR/tokens.safetensors --out DIR/out

PROMPTS is 4096 if not given: 524,288 tokens. Each feature is active at about one token of 256.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

D_MLP, D_SAE, D_VOCAB, N_POSITIONS = 2048, 16_384, 48_262, 128
HOOK = "blocks.0.mlp.hook_post"


@torch.no_grad()
def main(folder, n_prompts):
    config = HookedTransformerConfig(
        n_layers=1, d_model=512, n_heads=8, d_head=64, d_mlp=D_MLP, d_vocab=D_VOCAB, n_ctx=1024,
        act_fn="gelu_new", normalization_type="LN", seed=0,
    )
    model = HookedTransformer(config)
    tokens = torch.randint(D_VOCAB, (n_prompts, N_POSITIONS), generator=torch.Generator().manual_seed(1))
    _, cache = model.run_with_cache(tokens[:16], names_filter=HOOK)
    x = cache[HOOK].flatten(0, 1)

    w_enc = torch.randn(D_MLP, D_SAE, generator=torch.Generator().manual_seed(2)) * 0.02
    w_dec = torch.randn(D_SAE, D_MLP, generator=torch.Generator().manual_seed(3)) * 0.02
    kept = -(-len(x) // 256)
    b_enc = -(x @ w_enc).topk(kept, dim=0).values[-1]

    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "sae").mkdir(exist_ok=True)
    keys = ["n_layers", "d_model", "n_heads", "d_head", "d_mlp", "d_vocab", "d_vocab_out", "n_ctx", "act_fn",
            "normalization_type", "eps", "positional_embedding_type", "attention_dir"]
    values = {key: getattr(config, key) for key in keys}
    text = json.dumps({"architecture": "HookedTransformer", **values})
    (folder / "model/config.json").write_text(text)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()
               if not name.endswith(("mask", "IGNORE"))}
    save_file(weights, folder / "model/model.safetensors")
    text = json.dumps({"architecture": "standard", "d_in": D_MLP, "d_sae": D_SAE, "dtype": "float32",
                       "metadata": {"hook_name": HOOK}})
    (folder / "sae/cfg.json").write_text(text)
    dictionary = {"W_enc": w_enc, "W_dec": w_dec, "b_enc": b_enc.contiguous(), "b_dec": torch.zeros(D_MLP)}
    save_file(dictionary, folder / "sae/sae_weights.safetensors")
    save_file({"tokens": tokens.to(torch.int32)}, folder / "tokens.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4096)
