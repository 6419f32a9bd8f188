"""The gpt2 fixture again in the other ways a checkpoint is stored, and one file that no reader may run."""

import json
import os
import pickle
import shutil
import zipfile
from contextlib import contextmanager

from common import FIXTURES, fixture_dir, write_json, write_manifest, write_tensors

import torch
from safetensors.torch import load_file

PACKAGES = ["torch", "safetensors"]
N_SHARDS = 3


def new_dir(name: str):
    directory = fixture_dir(name)
    shutil.copyfile(FIXTURES / "gpt2" / "config.json", directory / "config.json")
    write_manifest(directory, "checkpoint_formats.py", PACKAGES, golden="../gpt2/golden.safetensors")
    return directory


def split(weights: dict) -> list[dict]:
    names = list(weights)
    return [{name: weights[name] for name in names[i::N_SHARDS]} for i in range(N_SHARDS)]


def write_index(path, shards: dict[str, dict]) -> None:
    total = sum(tensor.nbytes for shard in shards.values() for tensor in shard.values())
    weight_map = {name: file for file, shard in shards.items() for name in shard}
    write_json(path, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def save_torch(weights: dict, path, zipped: bool = True) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    path.chmod(0o644)


@contextmanager
def storages_numbered_in_order():
    """The legacy format names storages by memory address, which would differ from run to run."""
    address = torch._C.StorageBase._cdata
    numbers = {}

    def number(storage):
        return numbers.setdefault(address.__get__(storage), 100000 + len(numbers))

    torch.UntypedStorage._cdata = property(number)
    try:
        yield
    finally:
        del torch.UntypedStorage._cdata


def shared_storage(weights: dict) -> dict:
    """As real .bin files are: the tied head present, and sharing its storage; one tensor a view of a larger one."""
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    padding_before = torch.cat([torch.zeros(3), weights["transformer.ln_f.bias"]])
    weights["transformer.ln_f.bias"] = padding_before[3:]
    matrix = weights["transformer.h.0.mlp.c_fc.weight"]
    weights["transformer.h.0.mlp.c_fc.weight"] = matrix.T.contiguous().T
    return weights


class Command:
    """Its pickle asks the reader to call a function; a reader that knows only tensors must refuse it."""

    def __reduce__(self):
        return os.system, ("touch PWNED",)


def write_malicious() -> None:
    directory = fixture_dir("malicious")
    body = pickle.dumps({"transformer.wte.weight": Command()}, protocol=2)
    with zipfile.ZipFile(directory / "pytorch_model.bin", "w") as archive:
        for name, data in (("data.pkl", body), ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", date_time=(1980, 1, 1, 0, 0, 0)), data)
    (directory / "pytorch_model.legacy.bin").write_bytes(body)
    write_manifest(
        directory, "checkpoint_formats.py", PACKAGES, expected="both files are refused and PWNED never exists"
    )


def main() -> None:
    weights = dict(sorted(load_file(FIXTURES / "gpt2" / "model.safetensors").items()))

    sharded = new_dir("gpt2-sharded")
    shards = {f"model-{i + 1:05}-of-{N_SHARDS:05}.safetensors": shard for i, shard in enumerate(split(weights))}
    for file, shard in shards.items():
        write_tensors(sharded / file, shard)
    write_index(sharded / "model.safetensors.index.json", shards)

    save_torch(shared_storage(weights), new_dir("gpt2-bin") / "pytorch_model.bin")
    with storages_numbered_in_order():
        save_torch(shared_storage(weights), new_dir("gpt2-bin-legacy") / "pytorch_model.bin", zipped=False)

    bin_sharded = new_dir("gpt2-bin-sharded")
    shards = {f"pytorch_model-{i + 1:05}-of-{N_SHARDS:05}.bin": shard for i, shard in enumerate(split(weights))}
    for file, shard in shards.items():
        save_torch(shard, bin_sharded / file)
    write_index(bin_sharded / "pytorch_model.bin.index.json", shards)

    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        directory = new_dir(f"gpt2-{name}")
        config = json.loads((directory / "config.json").read_text()) | {"dtype": str(dtype).removeprefix("torch.")}
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        write_tensors(directory / "model.safetensors", {key: tensor.to(dtype) for key, tensor in weights.items()})

    write_malicious()
    check()


def check() -> None:
    original = load_file(FIXTURES / "gpt2" / "model.safetensors")
    for name in ("gpt2-bin", "gpt2-bin-legacy"):
        loaded = torch.load(FIXTURES / name / "pytorch_model.bin", weights_only=True)
        assert all(torch.equal(loaded[key], tensor) for key, tensor in original.items()), name
    for path in sorted((FIXTURES / "malicious").glob("*.bin")):
        try:
            torch.load(path, weights_only=True)
        except pickle.UnpicklingError as refusal:
            assert "system" in str(refusal), refusal
        else:
            raise AssertionError(f"torch read {path.name}")


if __name__ == "__main__":
    main()
