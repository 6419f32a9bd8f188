"""Activation patching, attribution patching, edge attribution and head detection on tiny models."""

import logging
from functools import partial
from itertools import product

import torch
from cases import Cases
from common import NoReducedPrecision, fixture_dir, float32_means_float64, seed_of, write_manifest
from transformer_lens import patching
from transformer_lens.head_detector import detect_head
from transformer_lens_dumps import PACKAGES, VARIANTS, VOCAB, build

logging.disable(logging.WARNING)
patching.tqdm = lambda rows: rows
TOLERANCE = 1e-12
POSITIONS, CHANGED, STEPS = 6, (1, 3), 5

MODELS = ("tl-ln", "tl-rms-gqa", "tl-local", "tl-parallel")
WITH_EDGES = ("tl-ln", "tl-rms-gqa")

# hook name, axes of the result, axes of the activation (None: never chosen), as TransformerLens names them
ACTIVATIONS = {
    "resid_pre": ("hook_resid_pre", ("pos",), (None, "pos")),
    "resid_mid": ("hook_resid_mid", ("pos",), (None, "pos")),
    "attn_out": ("hook_attn_out", ("pos",), (None, "pos")),
    "mlp_out": ("hook_mlp_out", ("pos",), (None, "pos")),
    "attn_head_out_by_pos": ("attn.hook_z", ("pos", "head"), (None, "pos", "head")),
    "attn_head_q_by_pos": ("attn.hook_q", ("pos", "head"), (None, "pos", "head")),
    "attn_head_k_by_pos": ("attn.hook_k", ("pos", "head"), (None, "pos", "head")),
    "attn_head_v_by_pos": ("attn.hook_v", ("pos", "head"), (None, "pos", "head")),
    "attn_head_pattern_by_pos": ("attn.hook_pattern", ("head", "dest_pos"), (None, "head", "dest_pos")),
    "attn_head_pattern_dest_src_pos": (
        "attn.hook_pattern",
        ("head", "dest_pos", "src_pos"),
        (None, "head", "dest_pos", "src_pos"),
    ),
    "attn_head_out_all_pos": ("attn.hook_z", ("head",), (None, None, "head")),
    "attn_head_q_all_pos": ("attn.hook_q", ("head",), (None, None, "head")),
    "attn_head_k_all_pos": ("attn.hook_k", ("head",), (None, None, "head")),
    "attn_head_v_all_pos": ("attn.hook_v", ("head",), (None, None, "head")),
    "attn_head_pattern_all_pos": ("attn.hook_pattern", ("head",), (None, "head")),
}
EVERY = {
    "block_every": (("resid_pre", "attn_out", "mlp_out"), ("layer", "pos")),
    "attn_head_all_pos_every": (("out", "q", "k", "v", "pattern"), ("layer", "head")),
    "attn_head_by_pos_every": (("out", "q", "k", "v", "pattern"), ("layer", "pos", "head")),
}


class Patching:
    def __init__(self, name: str):
        self.variant = next(variant for variant in VARIANTS if variant.name == name)
        self.model, self.cases = build(self.variant), Cases()
        generator = torch.Generator().manual_seed(seed_of(name) + 2)
        self.clean = torch.randint(0, VOCAB, (2, POSITIONS), generator=generator)
        self.corrupt = self.clean.clone()
        for position in CHANGED:
            self.corrupt[:, position] = (self.corrupt[:, position] + 1 + position) % VOCAB
        self.answers, self.against = torch.tensor([3, 8]), torch.tensor([10, 0])
        inputs = dict(clean=self.clean, corrupt=self.corrupt, answers=self.answers, against=self.against)
        for key, tensor in inputs.items():
            assert self.cases.store(key, tensor) == key

    def metric(self, logits):
        """The mean over prompts of logit[answer] - logit[against] at the last position."""
        rows = torch.arange(len(logits))
        return (logits[rows, -1, self.answers] - logits[rows, -1, self.against]).mean()

    @torch.no_grad()
    def run_both(self):
        logits, self.clean_cache = self.model.run_with_cache(self.clean)
        self.cases.add("metric.clean", "metric", {"tokens": "clean"}, self.metric(logits))
        logits, corrupt_cache = self.model.run_with_cache(self.corrupt)
        self.cases.add("metric.corrupt", "metric", {"tokens": "corrupt"}, self.metric(logits))
        self.corrupt_cache = dict(corrupt_cache.cache_dict)

    # Exact patching.

    def cell(self, hook_name, chosen: tuple) -> float:
        """One full forward with `corrupt[chosen] = clean[chosen]`."""

        def patch(activation, hook):
            patched = activation.clone()
            patched[chosen] = self.clean_cache[hook_name][chosen]
            return patched

        return self.metric(self.model.run_with_hooks(self.corrupt, fwd_hooks=[(hook_name, patch)])).item()

    def sweep(self, short_name, axes, layout):
        """By definition, apart from TransformerLens's setters: [layer, *axes]."""
        layers = []
        for layer in range(self.model.cfg.n_layers):
            name = f"blocks.{layer}.{short_name}"
            shape = self.clean_cache[name].shape
            sizes = [shape[layout.index(axis)] for axis in axes]
            cells = []
            for index in product(*map(range, sizes)):
                chosen = tuple(index[axes.index(axis)] if axis else slice(None) for axis in layout)
                cells.append(self.cell(name, chosen))
            layers.append(torch.tensor(cells).reshape(sizes))
        return torch.stack(layers)

    @torch.no_grad()
    def exact(self):
        has_mid = "blocks.0.hook_resid_mid" in self.corrupt_cache
        single = {}
        for name, (hook, axes, layout) in ACTIVATIONS.items():
            if name == "resid_mid" and not has_mid:
                continue
            call = getattr(patching, f"get_act_patch_{name}")
            theirs = call(self.model, self.corrupt, self.clean_cache, self.metric)
            right = single[name] = self.sweep(hook, axes, layout)
            assert theirs.shape == right.shape and torch.allclose(theirs, right, rtol=0, atol=TOLERANCE), name
            self.cases.add(f"get_act_patch.{name}", f"get_act_patch_{name}", {}, right, axes=["layer", *axes])
        for name, (kinds, axes) in EVERY.items():
            theirs = getattr(patching, f"get_act_patch_{name}")(self.model, self.corrupt, self.clean_cache, self.metric)
            suffix = name.removeprefix("attn_head_").removesuffix("_every")
            parts = [single[kind if name == "block_every" else f"attn_head_{kind}_{suffix}"] for kind in kinds]
            if name == "attn_head_by_pos_every":
                parts[-1] = parts[-1].transpose(1, 2)
            heads = self.model.cfg.n_heads
            pad = lambda x: torch.nn.functional.pad(x, (0, heads - x.shape[-1])) if axes[-1] == "head" else x
            right = torch.stack([pad(part) for part in parts])
            assert torch.allclose(theirs, right, rtol=0, atol=TOLERANCE), name
            note = (
                "k and v of grouped-query attention have fewer heads; the rest is zero"
                if self.model.cfg.n_key_value_heads
                else None
            )
            self.cases.add(f"get_act_patch.{name}", f"get_act_patch_{name}", {}, right, axes=["patch_type", *axes],
                           labels=list(kinds), note=note)  # fmt: skip

    # Attribution patching: a first-order estimate of `metric(patched) - metric(corrupt)`.

    def gradients(self, model, tokens, start=None):
        """Of the metric, with respect to every activation; `start` replaces the embedding."""
        gradients = {}

        def keep(gradient, hook):
            gradients[hook.name] = gradient.detach().clone()

        replaced = [] if start is None else [("blocks.0.hook_resid_pre", lambda x, hook: start + 0 * x)]
        with model.hooks(fwd_hooks=replaced, bwd_hooks=[(lambda name: True, keep)]):
            self.metric(model(tokens)).backward()
        model.zero_grad()
        return gradients

    def attribution(self):
        gradients = self.gradients(self.model, self.corrupt)
        for name, (hook, axes, layout) in ACTIVATIONS.items():
            names = [f"blocks.{layer}.{hook}" for layer in range(self.model.cfg.n_layers)]
            if names[0] not in self.corrupt_cache:
                continue
            right = torch.stack([self.estimate(full, gradients[full], layout) for full in names])
            self.cases.add(f"attribution_patch.{name}", "attribution_patch", {"activation": name}, right,
                           axes=["layer", *axes])  # fmt: skip
        self.check_estimates(gradients)
        if self.model.cfg.d_mlp:
            names = [f"blocks.{layer}.mlp.hook_post" for layer in range(self.model.cfg.n_layers)]
            layout = (None, "pos", "neuron")
            right = torch.stack([self.estimate(full, gradients[full], layout) for full in names])
            self.cases.add("attribution_patch.neurons", "attribution_patch", {"activation": "mlp.hook_post"}, right,
                           axes=["layer", "pos", "neuron"])  # fmt: skip

    def estimate(self, name, gradient, layout):
        """Σ (clean - corrupt) · gradient over every axis that is not chosen by."""
        product_ = (self.clean_cache[name] - self.corrupt_cache[name]) * gradient
        kept = [axis for axis, chosen in enumerate(layout) if chosen]
        return product_.sum([axis for axis in range(product_.ndim) if axis not in kept])

    @torch.no_grad()
    def check_estimates(self, gradients):
        """Against central differences, along the way from corrupt to clean."""
        step = 1e-5
        for name in ("blocks.0.hook_resid_pre", "blocks.1.attn.hook_pattern", "blocks.0.attn.hook_k"):
            difference = self.clean_cache[name] - self.corrupt_cache[name]
            move = lambda x, hook, by: x + by * difference
            at = lambda by: self.metric(
                self.model.run_with_hooks(self.corrupt, fwd_hooks=[(name, partial(move, by=by))])
            )
            slope = (at(step) - at(-step)) / (2 * step)
            assert torch.allclose(slope, (difference * gradients[name]).sum(), rtol=1e-6, atol=1e-9), name

    # Edge attribution: from what each node writes to what each node reads.

    def senders(self, cache):
        """Label, layer (of its block; attention before MLP), what it writes."""
        embed = cache["hook_embed"] + cache.get("hook_pos_embed", 0)
        rows = [("embed", -1, embed)]
        for layer, block in enumerate(self.model.blocks):
            z = cache[f"blocks.{layer}.attn.hook_z"]
            heads = [z[:, :, head] @ block.attn.W_O[head] for head in range(self.model.cfg.n_heads)]
            rows += [(f"L{layer}H{head}", 2 * layer, x) for head, x in enumerate(heads)]
            rows.append((f"M{layer}", 2 * layer + 1, cache[f"blocks.{layer}.hook_mlp_out"]))
        return rows

    def receivers(self, gradients):
        """Label, layer, gradient of the metric with respect to what it reads (before its norm)."""
        rows = []
        for layer in range(self.model.cfg.n_layers):
            for kind in "qkv":
                of_heads = gradients[f"blocks.{layer}.hook_{kind}_input"]
                rows += [(f"L{layer}H{i}.{kind}", 2 * layer, of_heads[:, :, i]) for i in range(of_heads.shape[2])]
            rows.append((f"M{layer}", 2 * layer + 1, gradients[f"blocks.{layer}.hook_mlp_in"]))
        last = self.model.cfg.n_layers - 1
        return rows + [("logits", 2 * last + 2, gradients[f"blocks.{last}.hook_resid_post"])]

    def edge_scores(self, gradients):
        clean, corrupt = self.senders(dict(self.clean_cache.cache_dict)), self.senders(self.corrupt_cache)
        receivers = self.receivers(gradients)
        scores = torch.zeros(len(clean), len(receivers))
        for i, ((_, sent_at, after), (_, _, before)) in enumerate(zip(clean, corrupt, strict=True)):
            for j, (_, read_at, gradient) in enumerate(receivers):
                if sent_at < read_at:
                    scores[i, j] = ((after - before) * gradient).sum()
        last = f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post"
        whole = ((self.clean_cache[last] - self.corrupt_cache[last]) * receivers[-1][2]).sum()
        assert torch.allclose(scores[:, -1].sum(), whole, rtol=0, atol=1e-11), "edges into the logits miss the stream"
        return scores, [label for label, _, _ in clean], [label for label, _, _ in receivers]

    def edges(self):
        model = build(self.variant, use_split_qkv_input=True, use_hook_mlp_in=True)
        start = {
            "clean": self.clean_cache["blocks.0.hook_resid_pre"],
            "corrupt": self.corrupt_cache["blocks.0.hook_resid_pre"],
        }
        along = [start["corrupt"] + k / STEPS * (start["clean"] - start["corrupt"]) for k in range(1, STEPS + 1)]
        cases = {
            "eap.corrupt": [self.gradients(model, self.corrupt)],
            "eap.clean": [self.gradients(model, self.clean)],
            "eap_ig": [self.gradients(model, self.corrupt, point) for point in along],
        }
        ends = {name: value[0] for name, value in cases.items()}
        again = self.gradients(model, self.corrupt, start["clean"])
        name = "blocks.1.hook_q_input"
        assert torch.allclose(ends["eap.clean"][name], again[name], rtol=0, atol=TOLERANCE)
        notes = {
            "eap.corrupt": "Σ (clean - corrupt) · gradient on the corrupt run",
            "eap.clean": "Σ (clean - corrupt) · gradient on the clean run",
            "eap_ig": "gradient: the mean over k = 1 … 5 of that with corrupt + k/5 (clean - corrupt) as embedding",
        }
        for name, steps in cases.items():
            gradients = {hook: sum(step[hook] for step in steps) / len(steps) for hook in steps[0]}
            scores, senders, receivers = self.edge_scores(gradients)
            self.cases.add(name, "edge_attribution", {"gradient_at": name.split(".")[-1], "steps": len(steps)}, scores,
                           axes=["sender", "receiver"], labels={"sender": senders, "receiver": receivers},
                           note=notes[name])  # fmt: skip

    # Head detection.

    @torch.no_grad()
    def heads(self):
        sequences = {"repeat": [0, 3, 5, 7, 3, 5, 7, 2], "pairs": [0, 4, 4, 9, 1, 9, 4, 6]}
        tokens = {name: torch.tensor([ids]) for name, ids in sequences.items()}
        self.model.to_tokens = lambda seq: torch.cat([tokens[s] for s in seq]) if isinstance(seq, list) else tokens[seq]
        for name, ids in tokens.items():
            self.cases.store(f"detect.{name}", ids)
        names = ("previous_token_head", "duplicate_token_head", "induction_head")
        for kind, measure, flags in product(names, ("mul", "abs"), product((False, True), (False, True))):
            args = dict(detection_pattern=kind, error_measure=measure, exclude_bos=flags[0])
            args |= dict(exclude_current_token=flags[1])
            for seq in ("repeat", "pairs"):
                suffix = "".join(f".{text}" for text, on in zip(("no_bos", "no_current"), flags, strict=True) if on)
                self.detect(f"detect_head.{kind}.{measure}.{seq}{suffix}", seq, tokens, args)
        args = dict(detection_pattern="induction_head", error_measure="mul", exclude_bos=False)
        args |= dict(exclude_current_token=False)
        self.detect("detect_head.both", ["repeat", "pairs"], tokens, args)
        self.detect("detect_head.chosen", "repeat", tokens, args | {"heads": [(0, 1), (1, 0)]})
        self.detect("detect_head.chosen_by_layer", "repeat", tokens, args | {"heads": {1: [0, 1]}})

    def detect(self, id, seq, tokens, args):
        """`abs` is kept with all its digits; TransformerLens rounds the error to three."""
        theirs = detect_head(self.model, seq, **args)
        sequences = seq if isinstance(seq, list) else [seq]
        right = torch.stack([self.score(tokens[name], args) for name in sequences]).mean(0)
        rounded = args["error_measure"] == "abs"
        assert torch.allclose(theirs, right, rtol=0, atol=5.1e-4 if rounded else TOLERANCE), id
        shown = args | {"seq": [f"detect.{name}" for name in sequences]}
        if isinstance(shown.get("heads"), dict):
            shown["heads"] = [[layer, head] for layer, heads in shown["heads"].items() for head in heads]
        facts = {"tl_wrong": "the error is rounded to three digits", "tl_gives": "another value"} if rounded else {}
        self.cases.add(id, "detect_head", shown, right, axes=["layer", "head"], **facts)

    def score(self, ids, args):
        cfg, n = self.model.cfg, ids.shape[1]
        _, cache = self.model.run_with_cache(ids)
        expected = torch.zeros(n, n)
        for q, k in product(range(n), range(n)):
            if args["detection_pattern"] == "previous_token_head":
                expected[q, k] = k == q - 1
            elif args["detection_pattern"] == "duplicate_token_head":
                expected[q, k] = k < q and ids[0, q] == ids[0, k]
            else:
                expected[q, k] = 0 < k <= q and k - 1 < q and ids[0, q] == ids[0, k - 1]
        kept = torch.ones(n, n)
        if args["exclude_bos"]:
            kept[:, 0] = 0
        if args["exclude_current_token"]:
            kept.fill_diagonal_(0)
        heads = args.get("heads")
        if isinstance(heads, dict):
            heads = [(layer, head) for layer, of_layer in heads.items() for head in of_layer]
        scores = torch.full((cfg.n_layers, cfg.n_heads), -1.0)
        for layer, head in heads or product(range(cfg.n_layers), range(cfg.n_heads)):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0, head]
            if args["error_measure"] == "mul":
                scores[layer, head] = (pattern * expected * kept).sum() / (pattern * kept).sum()
            else:
                scores[layer, head] = 1 - ((pattern - expected).abs() * kept).sum() / n
        return scores


def make(name: str) -> None:
    with float32_means_float64():
        subject = Patching(name)
        with NoReducedPrecision():
            subject.run_both()
            subject.exact()
            subject.attribution()
        if name in WITH_EDGES:
            subject.edges()
            subject.heads()
    directory = fixture_dir(f"patching-{name.removeprefix('tl-')}")
    metric = "mean over prompts of logit[answers] - logit[against] at the last position"
    subject.cases.write(directory, model=name, processing=[], metric=metric)
    write_manifest(directory, "patching.py", PACKAGES, seed=seed_of(name) + 2)


if __name__ == "__main__":
    for name in MODELS:
        make(name)
