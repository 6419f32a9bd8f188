"""The random matrices of TransformerLens's FactoredMatrix demo, for `crates/burn-lens/examples/factored_matrix.rs`.

The demo drew C four times before it printed the norm that it shows.
"""

import torch
from common import fixture_dir, write_manifest, write_tensors

SEED = 50
DRAWS_OF_C = 4

if __name__ == "__main__":
    torch.manual_seed(SEED)
    a, b = torch.randn(5, 2), torch.randn(2, 5)
    for _ in range(DRAWS_OF_C):
        c = torch.randn(5, 300)
    target = fixture_dir("factored-matrix-demo")
    write_tensors(target / "inputs.safetensors", dict(A=a, B=b, C=c))
    write_manifest(target, "factored_matrix_demo.py", ["torch", "safetensors"], seed=SEED)
