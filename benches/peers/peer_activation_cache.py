"""The peer's side of `benches/activation_cache.rs`: TransformerLens on the same shape, random weights, f32.

    OMP_NUM_THREADS=2 python benches/peers/peer_activation_cache.py

Run it beside `cargo bench -p burn-lens-benches --bench activation_cache` on an idle machine and compare
medians; quote ratios. TransformerLens has no attribution that leaves rows unformed: by neuron it projects
neuron results of one layer after the other onto the direction.
"""

import resource
import statistics
import time

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

POS = 256


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
    config = HookedTransformerConfig(
        n_layers=12, d_model=768, n_heads=12, d_head=64, d_vocab=50257, n_ctx=1024, act_fn="gelu_new",
        normalization_type="LN", seed=0,
    )
    model = HookedTransformer(config)
    tokens = torch.arange(POS).reshape(1, POS) * 7919 % 50257
    _, cache = model.run_with_cache(tokens)

    def report(name, run, repeats):
        print(f"{name}: {median_ms(run, repeats):.2f} ms", flush=True)

    def head_results():
        for layer in range(12):
            cache.cache_dict.pop(f"blocks.{layer}.attn.hook_result", None)
        return cache.stack_head_results()

    def neurons_everywhere():
        direction = (model.W_U[:, 7] - model.W_U[:, 11])
        scale = cache["ln_final.hook_scale"]
        # Kept, as whoever asks for them does.
        return [cache.get_neuron_results(layer, project_output_onto=direction) / scale for layer in range(12)]

    report("stack_head_results", head_results, 3)
    parts = cache.decompose_resid()
    report("logit_attrs(decompose_resid)", lambda: cache.logit_attrs(cache.decompose_resid(), 7, 11), 10)
    report("stack_neuron_results at the last position", lambda: cache.stack_neuron_results(-1, pos_slice=-1), 10)
    heads = cache.stack_head_results()
    report("attribution by head, all positions (rows formed before)", lambda: cache.logit_attrs(heads, 7, 11), 5)
    report("attribution by neuron, all positions", neurons_everywhere, 3)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    del parts


if __name__ == "__main__":
    main()
