"""The peer's side of `benches/circuits.rs`: TransformerLens on GPT-2 small's shape, random weights, f32.

    OMP_NUM_THREADS=2 python benches/peers/peer_circuits.py

Run it beside `cargo bench -p burn-lens-benches --bench circuits` on an idle machine and compare medians;
quote ratios. It needs 12 GB of memory.
"""

import resource
import statistics
import time

import torch
from transformer_lens import FactoredMatrix, HookedTransformer, HookedTransformerConfig, SVDInterpreter

SHAPE = dict(n_layers=12, d_model=768, n_heads=12, d_head=64, d_vocab=50257)


def measure(name, run, repeats):
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {1e3 * statistics.median(times):.0f} ms, {peak:.0f} MiB at most so far", flush=True)


@torch.no_grad()
def main():
    config = HookedTransformerConfig(n_ctx=1024, act_fn="gelu_new", normalization_type="LN", seed=0, **SHAPE)
    model = HookedTransformer(config)
    interpreter = SVDInterpreter(model)
    # A new matrix each time, from the model's weights, as on our side: results are cached in it.
    measure("OV singular values", lambda: model.OV.S, 5)
    measure("OV eigenvalues", lambda: model.OV.eigenvalues, 5)
    w_v, w_o = model.W_V, model.W_O
    measure("OV eigenvalues, weights stacked before", lambda: FactoredMatrix(w_v, w_o).eigenvalues, 5)
    measure("SVDInterpreter w_in", lambda: interpreter.get_singular_vectors("w_in", 0), 5)
    measure("full OV eigenvalues", lambda: (model.W_E @ model.OV @ model.W_U).eigenvalues, 1)
    measure("all_composition_scores Q", lambda: model.all_composition_scores("Q"), 1)


if __name__ == "__main__":
    main()
