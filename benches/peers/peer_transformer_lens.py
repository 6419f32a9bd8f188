"""The peer's side of `benches/forward.rs`: TransformerLens on the same shapes, random weights, f32.

    OMP_NUM_THREADS=2 python benches/peers/peer_transformer_lens.py

Run it beside `cargo bench -p burn-lens-benches` on an idle machine and compare medians; quote ratios.
"""

import statistics
import time

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

SHAPES = {
    "tiny 2x32": (dict(n_layers=4, d_model=64, n_heads=4, d_head=16, d_vocab=512), 2, 32, 100),
    "gpt2-small 1x64": (dict(n_layers=12, d_model=768, n_heads=12, d_head=64, d_vocab=50257), 1, 64, 10),
}


def median_ms(run, repeats):
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


@torch.no_grad()
def main():
    for name, (shape, batch, pos, repeats) in SHAPES.items():
        config = HookedTransformerConfig(n_ctx=1024, act_fn="gelu_new", normalization_type="LN", seed=0, **shape)
        model = HookedTransformer(config)
        tokens = torch.arange(batch * pos).reshape(batch, pos) * 7919 % shape["d_vocab"]
        no_op = [(lambda name: True, lambda tensor, hook: None)]
        print(f"{name}: unhooked {median_ms(lambda: model(tokens), repeats):.2f} ms")
        print(f"{name}: no-op hooks everywhere {median_ms(lambda: model.run_with_hooks(tokens, fwd_hooks=no_op), repeats):.2f} ms")
        print(f"{name}: everything cached {median_ms(lambda: model.run_with_cache(tokens), repeats):.2f} ms")


if __name__ == "__main__":
    main()
