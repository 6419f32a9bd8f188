"""The peer's side of `benches/patching.rs`: TransformerLens's patching sweeps, same shape, random weights, f32.

    OMP_NUM_THREADS=2 python benches/peers/peer_patching.py

Run it beside `cargo bench -p burn-lens-benches --bench patching` and compare; quote ratios. A cell costs it the
same wherever it is, so every third, fourth or 48th cell stands for a sweep
and times are scaled.
"""

import resource
import time
from functools import partial

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig, patching

BATCH, POS = 8, 16
patching.tqdm = lambda rows: rows


@torch.no_grad()
def main():
    config = HookedTransformerConfig(
        n_layers=12, d_model=768, n_heads=12, d_head=64, d_vocab=50257, n_ctx=1024, act_fn="gelu_new",
        normalization_type="LN", seed=0,
    )
    model = HookedTransformer(config)
    clean = (torch.arange(BATCH * POS) * 7919 % 50257).reshape(BATCH, POS)
    corrupt = (clean + 13) % 50257
    _, cache = model.run_with_cache(clean)
    metric = lambda logits: (logits[:, -1, 11] - logits[:, -1, 7]).mean()

    def report(name, cells, setter, hook, axes, every):
        import pandas

        sizes = {"layer": 12, "head": 12, "pos": POS}
        rows = pandas.MultiIndex.from_product([range(sizes[axis]) for axis in axes], names=axes).to_frame(index=False)
        rows = rows.iloc[every // 2 :: every].reset_index(drop=True)
        run = partial(patching.generic_activation_patch, model, corrupt, cache, metric, setter, hook, index_df=rows)
        start, cpu = time.perf_counter(), time.process_time()
        run()
        scale = cells / len(rows)
        wall, cpu = scale * (time.perf_counter() - start), scale * (time.process_time() - cpu)
        print(f"{name:<24} {cells:>5} cells {wall:8.2f} s wall {cpu:8.2f} s processor  (every {every})", flush=True)

    model(clean)
    report("head_out", 144, patching.layer_head_vector_patch_setter, "z", ["layer", "head"], 3)
    report("resid_pre", 192, patching.layer_pos_patch_setter, "resid_pre", ["layer", "pos"], 4)
    report("head_out_by_pos", 2304, patching.layer_pos_head_vector_patch_setter, "z", ["layer", "pos", "head"], 48)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
