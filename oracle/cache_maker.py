"""One case of an ActivationCache method: TransformerLens's answer beside the dense one."""

import logging
from dataclasses import dataclass

import torch
from cases import Cases, slice_as_json
from dense import Dense, labels_of, tensor_of
from transformer_lens import ActivationCache
from transformer_lens.utilities import Slice
from transformer_lens_dumps import DEFAULT_PROCESSING, REFACTOR, VARIANTS, build, tokens_of

logging.disable(logging.WARNING)
TOLERANCE = 1e-12
EVERY_FLAG = (*DEFAULT_PROCESSING, REFACTOR)


@dataclass
class Subject:
    """A model, how it is processed, and which cases to make of it."""

    name: str
    model: str
    processed: bool = False
    layout_only: bool = False


class Maker:
    def __init__(self, subject: Subject):
        variant = next(variant for variant in VARIANTS if variant.name == subject.model)
        self.subject, self.model, self.tokens = subject, build(variant), tokens_of(variant)
        if subject.processed:
            flags = {flag: flag in DEFAULT_PROCESSING for flag in EVERY_FLAG}
            self.model.load_and_process_state_dict(self.model.state_dict(), **flags)
        self.cfg, self.cases = self.model.cfg, Cases()
        self.logits, self.cache = self.model.run_with_cache(self.tokens)
        self.dense = Dense(self.model, dict(self.cache.cache_dict))
        generator = torch.Generator().manual_seed(7)
        self.onto = torch.randn(self.cfg.d_model, 2, generator=generator, dtype=torch.float64)
        self.cases.store("onto", self.onto)
        self.cases.store("tokens", self.tokens)
        self.unfolded = "ln_final.w" in self.dense.weights

    def fresh(self) -> ActivationCache:
        """No head results left over from an earlier call."""
        return ActivationCache(dict(self.dense.cache), self.model)

    def add(self, id, method, args, right, call, labels=None, wrong=None, note=None, **facts):
        """`right` is dense, `call(cache)` what TransformerLens gives, a tensor or (tensor, labels)."""
        try:
            found = call(self.fresh())
            error = None
        except (TypeError, KeyError, RuntimeError, AssertionError, AttributeError) as raised:
            found, error = None, type(raised).__name__
        theirs, their_labels = found if isinstance(found, tuple) else (found, labels)
        same = theirs is not None and theirs.shape == right.shape and their_labels == labels
        same = same and (right.numel() == 0 or (theirs - right).abs().max().item() < TOLERANCE)
        if wrong is None:
            assert same, f"{self.subject.name} {id}: TransformerLens differs ({error}), not said to be wrong"
        else:
            assert not same, f"{self.subject.name} {id}: said to be wrong, but it is right"
            facts["tl_gives"] = error or ("another shape" if theirs.shape != right.shape else "another value")
            if their_labels != labels:
                facts["tl_gives"] = "other rows"
        args = {name: slice_as_json(x) if name.endswith("_slice") else x for name, x in args.items()}
        facts |= {"labels": labels, "tl_wrong": wrong, "note": note}
        self.cases.add(id, method, args, right, **facts)

    def rows(self, id, method, args, rows, call, normalize="none", wrong=None, **facts):
        """A stack: `rows` are dense, not yet normalized, sliced or projected."""
        layer, mlp_input = args.get("layer"), args.get("mlp_input", False)
        rows = self.dense.normalize(rows, normalize, layer, mlp_input)
        labels = labels_of(rows)
        right = tensor_of(rows) if rows else torch.zeros(0, *self.dense.cache["hook_embed"].shape)
        right = Slice(args.get("pos_slice")).apply(right, dim=-2)
        onto = args.get("project_output_onto")
        if onto is not None:
            right = right @ (self.onto[:, 0] if onto == "onto[:, 0]" else self.onto)
        args = args | {"normalize": normalize}
        self.add(id, method, args, right, call, labels, wrong, **facts)

    def projection(self, onto):
        return {None: None, "onto": self.onto, "onto[:, 0]": self.onto[:, 0]}[onto]
