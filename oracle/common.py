"""What every oracle script shares: where fixtures go, how they are written, and a true float64 mode."""

import json
import os
import re
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
SINGLE = torch.float32
"""The real one, also inside `float32_means_float64`."""
REDUCED_DTYPES = (SINGLE, torch.float16, torch.bfloat16)


def fixture_dir(name: str) -> Path:
    path = FIXTURES / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_json(path: Path, value) -> None:
    """Indented, but with each list of integers on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\n\s*(-?\d+(?:,\n\s*-?\d+)*)\n\s*\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    path.write_text(text + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Tensors are copied, so tied or sliced ones are stored in full; integers become i32."""
    plain = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        if tensor.dtype in (torch.int64, torch.bool):
            tensor = tensor.to(torch.int32)
        plain[name] = tensor.clone(memory_format=torch.contiguous_format)
    save_file(plain, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_manifest(directory: Path, script: str, packages: list[str], **facts) -> None:
    write_json(
        directory / "MANIFEST.json",
        {
            "command": f"python oracle/{script}",
            "packages": {name: version(name) for name in packages},
            **facts,
        },
    )


def seed_of(name: str) -> int:
    return sum((index + 1) * ord(letter) for index, letter in enumerate(name))


@torch.no_grad()
def randomise(named_parameters, seed: int, zero_centred_norms: bool = False) -> None:
    """Gives every parameter values large enough that leaving one out shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(named_parameters):
        noise = torch.randn(parameter.shape, generator=generator, dtype=SINGLE)
        is_norm_weight = parameter.ndim == 1 and name.endswith(("weight", ".w"))
        centre = 1.0 if is_norm_weight and not zero_centred_norms else 0.0
        std = 0.5 if "emb" in name or "wte" in name or "W_E" in name else 0.35
        parameter.copy_(centre + std * noise)


@contextmanager
def float32_means_float64():
    """Model code that asks for float32 (norms, softmax, rotary tables, losses) gets float64 instead."""
    saved = torch.float32, torch.float, torch.Tensor.float, torch.get_default_dtype()
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved[:3]
        torch.set_default_dtype(saved[3])


class NoReducedPrecision(TorchDispatchMode):
    """Fails on the first operation whose result has fewer bits than float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.dtype in REDUCED_DTYPES:
                raise AssertionError(f"{func} gave {leaf.dtype} in a float64 run")
        return result
