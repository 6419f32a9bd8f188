"""Cases: calls of a method with arguments, each with the tensor that is right."""

import json
from pathlib import Path

import torch
from common import write_tensors

Slice = int | tuple[int, ...] | list[int] | None


def slice_as_json(chosen: Slice):
    """`{"int": 1}`, `{"range": [start, end, step]}`, `{"list": [0, 3]}` or null."""
    if chosen is None:
        return None
    if isinstance(chosen, int):
        return {"int": chosen}
    if isinstance(chosen, tuple):
        return {"range": list(chosen)}
    return {"list": list(chosen)}


def write_rows(path: Path, about: dict, rows: list[dict]) -> None:
    """One case on a line."""
    head = json.dumps(about | {"cases": []}, ensure_ascii=False).removesuffix("]}")
    path.write_text(head + "\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n", encoding="utf-8")


class Cases:
    """Collects cases; two with equal tensors share one."""

    def __init__(self):
        self.rows: list[dict] = []
        self.tensors: dict[str, torch.Tensor] = {}

    def add(self, id: str, method: str, args: dict, tensor: torch.Tensor, **facts) -> None:
        """`facts` without a value (None) are left out."""
        assert all(row["id"] != id for row in self.rows), f"two cases {id}"
        assert torch.isfinite(tensor).all(), f"{id} is not finite"
        row = {"id": id, "method": method, "args": args, "tensor": self.store(id, tensor)}
        row["shape"] = list(tensor.shape)
        self.rows.append(row | {name: fact for name, fact in facts.items() if fact is not None})

    def store(self, name: str, tensor: torch.Tensor) -> str | None:
        """The name under which an equal tensor is in the file; None for one without elements."""
        if tensor.numel() == 0:
            return None
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        assert tensor.dtype in (torch.float64, torch.int64, torch.int32), f"{name} is {tensor.dtype}"
        for known, other in self.tensors.items():
            if other.dtype == tensor.dtype and torch.equal(other, tensor):
                return known
        assert name not in self.tensors, f"two tensors {name}"
        self.tensors[name] = tensor.detach().clone()
        return name

    def write(self, directory: Path, **about) -> None:
        write_rows(directory / "cases.json", about, self.rows)
        write_tensors(directory / "cases.safetensors", self.tensors)
        sizes = [(directory / name).stat().st_size for name in ("cases.json", "cases.safetensors")]
        wrong = sum("tl_wrong" in row for row in self.rows)
        print(
            f"{directory.name}: {len(self.rows)} cases, {wrong} wrong in TransformerLens, {sum(sizes) / 1024:.0f} KiB"
        )
