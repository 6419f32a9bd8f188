"""Every ActivationCache method with every form of its arguments, on the models of transformer_lens_dumps.py.

Each result of TransformerLens is compared with `dense.py`. Where they differ, or TransformerLens raises, the dense
value is kept and the case says what is wrong; a case said to be wrong that is not is an error.
"""

import torch
from cache_maker import TOLERANCE, Maker, Subject
from cases import slice_as_json
from common import NoReducedPrecision, fixture_dir, float32_means_float64, write_manifest
from dense import labels_of, tensor_of
from transformer_lens.utilities import Slice
from transformer_lens_dumps import DEFAULT_PROCESSING, PACKAGES

POSITIONS = {"index": 2, "last": -1, "range": (1, 4), "step": (0, 5, 2), "start": (3,), "list": [0, 3]}
NEURONS = {"index": 3, "range": (2, 5), "step": (0, 12, 4), "list": [0, 7]}

LAYER_ZERO = "the remainder at layer 0 is resid_post[-1], the end of the model; right is resid_pre[0]"
INT_NEURON = "an index as neuron_slice raises TypeError; right is one neuron of each layer, on an axis of 1"
UNFOLDED = "directions are W_U without the weight of an unfolded final norm"
BATCH_AXIS = "tokens of one for each prompt are laid along the position axis (an error, or wrong where equal)"
SHORTFORMER = "the positions of shortformer are not in the stream, yet are given as a part of it"
PARALLEL = "with mlp_input, attention that the MLP of a parallel block does not read is included"
POST_NORM = "results are those before the norm that follows the sublayer, so they do not sum to its output"
FINAL_RMS = "parts are centered at an RMS final norm because the blocks have LayerNorm"
NO_MLP = "accumulated_bias asks the missing MLP of an attention-only block for b_out: AttributeError by default"
UNSLICED = "batch_slice is ignored where the model has no norms"
NEURON_SCALE = "neurons are divided by the scale of ln1 where mlp_input=True asks for that of ln2 (when projected)"

SUBJECTS = [
    Subject("cache-ln", "tl-ln"),
    Subject("cache-ln-processed", "tl-ln", processed=True),
    Subject("cache-rms-gqa", "tl-rms-gqa"),
    Subject("cache-rms-gqa-processed", "tl-rms-gqa", processed=True),
    Subject("cache-attn-only", "tl-attn-only"),
    Subject("cache-parallel", "tl-parallel", layout_only=True),
    Subject("cache-shortformer", "tl-shortformer", layout_only=True),
    Subject("cache-norm-before-and-after", "tl-norm-before-and-after", layout_only=True),
    Subject("cache-post-embedding-ln", "tl-post-embedding-ln", layout_only=True),
    Subject("cache-final-rms", "tl-solu", layout_only=True),
]


class CacheCases(Maker):
    """Each method makes the cases of one ActivationCache method."""

    def accumulated(self, suffix, layer=None, incl_mid=False, mlp_input=False, normalize="none", pos=None, wrong=None):
        args = dict(layer=layer, incl_mid=incl_mid, mlp_input=mlp_input, pos_slice=pos)
        asked = args | dict(apply_ln=normalize != "none", return_labels=True)
        rows = self.dense.accumulated(layer, incl_mid, mlp_input)
        call = lambda cache: cache.accumulated_resid(**asked)
        self.rows(f"accumulated_resid.{suffix}", "accumulated_resid", args, rows, call, normalize, wrong)

    def accumulated_cases(self):
        for name, layer in {"default": None, "minus_one": -1, "zero": 0, "one": 1, "two": 2}.items():
            self.accumulated(f"layer_{name}", layer)
        norms = self.cfg.normalization_type is not None
        self.accumulated("lens", normalize="lens")
        self.accumulated("attribution_at_0", 0, normalize="attribution")
        self.accumulated("attribution_at_1", 1, normalize="attribution")
        two_modes = "one apply_ln for two things: at the end of the model it is a lens"
        self.accumulated("attribution", normalize="attribution", wrong=two_modes if norms else None)
        two_modes = "one apply_ln for two things: inside the model it is an attribution"
        self.accumulated("lens_at_1", 1, normalize="lens", wrong=two_modes if norms else None)
        for name, pos in POSITIONS.items():
            self.accumulated(f"pos_{name}", pos=pos)
            self.accumulated(f"lens_pos_{name}", pos=pos, normalize="lens")
        self.accumulated("attribution_at_1_pos_range", 1, normalize="attribution", pos=(1, 4))
        if self.cfg.attn_only:
            return
        for name, layer in {"default": None, "zero": 0, "one": 1}.items():
            self.accumulated(f"incl_mid_{name}", layer, incl_mid=True)
        for layer in (0, 1):
            self.accumulated(f"mlp_input_{layer}", layer, mlp_input=True)
            self.accumulated(f"mlp_input_{layer}_attribution", layer, mlp_input=True, normalize="attribution")
        self.accumulated("mid_and_mlp_input", 1, incl_mid=True, mlp_input=True)
        self.accumulated("mid_lens", incl_mid=True, normalize="lens", pos=-1)

    def decompose(
        self, suffix, layer=None, mlp_input=False, mode="all", normalize="none", pos=None, embeds=True, wrong=None
    ):
        args = dict(layer=layer, mlp_input=mlp_input, mode=mode, pos_slice=pos, incl_embeds=embeds)
        asked = args | dict(apply_ln=normalize != "none", return_labels=True)
        rows = self.dense.sublayers(layer, mlp_input, mode, embeds)
        if mode == "all" and embeds:
            self.dense.check_sums(rows, layer, mlp_input)
        call = lambda cache: cache.decompose_resid(**asked)
        self.rows(f"decompose_resid.{suffix}", "decompose_resid", args, rows, call, normalize, wrong)

    def decompose_cases(self):
        for name, layer in {"default": None, "minus_one": -1, "zero": 0, "one": 1, "two": 2}.items():
            self.decompose(f"layer_{name}", layer)
        self.decompose("attn", mode="attn")
        self.decompose("attn_no_embeds", mode="attn", embeds=False)
        self.decompose("no_embeds", embeds=False)
        self.decompose("pos_last", pos=-1)
        for layer in (None, 0, 1):
            self.decompose(f"attribution_at_{layer}", layer, normalize="attribution")
        for name, pos in POSITIONS.items():
            self.decompose(f"attribution_pos_{name}", pos=pos, normalize="attribution")
        if self.cfg.attn_only:
            return
        self.decompose("mlp", mode="mlp")
        self.decompose("mlp_no_embeds", mode="mlp", embeds=False)
        self.decompose("mlp_input_mlp", 1, mlp_input=True, mode="mlp")
        for layer in (0, 1):
            self.decompose(f"mlp_input_{layer}", layer, mlp_input=True)
            self.decompose(f"mlp_input_{layer}_attribution", layer, mlp_input=True, normalize="attribution")

    def heads(self, suffix, layer=None, remainder=False, normalize="none", pos=None, wrong=None):
        args = dict(layer=layer, incl_remainder=remainder, pos_slice=pos)
        asked = args | dict(apply_ln=normalize != "none", return_labels=True)
        rows = self.dense.heads(layer)
        rows = self.dense.with_remainder(rows, layer) if remainder else rows
        call = lambda cache: cache.stack_head_results(**asked)
        self.rows(f"stack_head_results.{suffix}", "stack_head_results", args, rows, call, normalize, wrong)

    def head_cases(self):
        for name, layer in {"default": None, "minus_one": -1, "zero": 0, "one": 1, "two": 2}.items():
            self.heads(f"layer_{name}", layer)
        self.heads("remainder", remainder=True)
        self.heads("remainder_at_1", 1, remainder=True)
        self.heads("remainder_at_0", 0, remainder=True, wrong=LAYER_ZERO)
        self.heads("remainder_at_0_attribution", 0, True, "attribution", pos=(1, 4), wrong=LAYER_ZERO)
        self.heads("attribution", normalize="attribution")
        self.heads("attribution_at_1", 1, normalize="attribution")
        self.heads("remainder_attribution", remainder=True, normalize="attribution")
        for name, pos in POSITIONS.items():
            self.heads(f"pos_{name}", pos=pos)
            self.heads(f"remainder_attribution_pos_{name}", None, True, "attribution", pos)

    def results(self, wrong=None):
        """compute_head_results of each layer, stacked: [layer, batch, pos, head, d_model]."""
        right = torch.stack([torch.stack([x for _, x in self.dense.heads_of(l)], -2) for l in range(self.cfg.n_layers)])

        def call(cache):
            cache.compute_head_results()
            return cache.stack_activation("result", sublayer_type="attn")

        self.add("compute_head_results", "compute_head_results", {}, right, call, wrong=wrong)

    def activation_cases(self):
        names = {"resid_pre": None, "pattern": "attn", "z": "attn", "scale": "ln1", "attn_out": None}
        if self.cfg.normalization_type is None:
            del names["scale"]
        if not self.cfg.attn_only:
            names |= {"post": "mlp", "mlp_out": None}
        for name, kind in names.items():
            hooks = [f"blocks.{l}.{kind + '.' if kind else ''}hook_{name}" for l in range(self.cfg.n_layers)]
            for layer in (None, -1, 1):
                right = torch.stack([self.dense.cache[hook] for hook in hooks[: self.dense.layer(layer)]])
                args = dict(activation_name=name, layer=layer, sublayer_type=kind)
                call = lambda cache: cache.stack_activation(**args)
                self.add(f"stack_activation.{name}.{layer}", "stack_activation", args, right, call)

    def neuron_results(self, suffix, layer, neurons=None, pos=None, onto=None, wrong=None):
        args = dict(layer=layer, neuron_slice=neurons, pos_slice=pos, project_output_onto=onto)
        rows = [row for _, row in self.dense.neurons_of(layer)]
        right = Slice(pos).apply(torch.stack(rows, dim=2), dim=1)
        right = Slice(neurons).apply(right, dim=-2)
        right = right if onto is None else right @ self.projection(onto)
        asked = args | dict(project_output_onto=self.projection(onto))
        call = lambda cache: cache.get_neuron_results(**asked)
        self.add(f"get_neuron_results.{suffix}", "get_neuron_results", args, right, call, wrong=wrong)

    def neuron_result_cases(self):
        self.neuron_results("all", 0)
        for name, neurons in NEURONS.items():
            self.neuron_results(f"neurons_{name}", 1, neurons)
        for name, pos in POSITIONS.items():
            self.neuron_results(f"pos_{name}", 1, (2, 5), pos)
        for onto, name in (("onto", "two"), ("onto[:, 0]", "one")):
            self.neuron_results(f"onto_{name}", 1, onto=onto)
            self.neuron_results(f"onto_{name}_pos", 0, [0, 7], -1, onto)

    def neurons(
        self, suffix, layer=None, neurons=None, pos=None, remainder=False, normalize="none", onto=None, wrong=None
    ):
        args = dict(
            layer=layer, neuron_slice=neurons, pos_slice=pos, incl_remainder=remainder, project_output_onto=onto
        )
        asked = args | dict(apply_ln=normalize != "none", return_labels=True, project_output_onto=self.projection(onto))
        numbers = Slice(neurons).indices(self.cfg.d_mlp)
        rows = []
        for block in range(self.dense.layer(layer)):
            of_block = self.dense.neurons_of(block)
            rows += [of_block[number] for number in numbers]
        rows = self.dense.with_remainder(rows, layer) if remainder else rows
        call = lambda cache: cache.stack_neuron_results(**asked)
        self.rows(f"stack_neuron_results.{suffix}", "stack_neuron_results", args, rows, call, normalize, wrong)

    def neuron_cases(self):
        for name, layer in {"default": None, "zero": 0, "one": 1}.items():
            self.neurons(f"layer_{name}", layer, pos=-1)
        self.neurons("layer_minus_one", -1, neurons=(2, 5))
        for name, chosen in NEURONS.items():
            wrong = INT_NEURON if name == "index" else None
            self.neurons(f"neurons_{name}", neurons=chosen, wrong=wrong)
            self.neurons(f"neurons_{name}_remainder", None, chosen, 2, True, "attribution", wrong=wrong)
        for name, pos in POSITIONS.items():
            self.neurons(f"pos_{name}_remainder", neurons=[0, 7], pos=pos, remainder=True)
            self.neurons(f"pos_{name}_attribution", neurons=[0, 7], pos=pos, normalize="attribution")
        self.neurons("remainder", pos=-1, remainder=True)
        self.neurons("remainder_at_0", 0, remainder=True, wrong=LAYER_ZERO)
        self.neurons("remainder_at_0_onto", 0, None, -1, True, "attribution", "onto", wrong=LAYER_ZERO)
        self.neurons("remainder_at_1", 1, pos=-1, remainder=True)
        for onto, name in (("onto", "two"), ("onto[:, 0]", "one")):
            self.neurons(f"onto_{name}", onto=onto)
            self.neurons(f"onto_{name}_remainder", None, (2, 5), 2, True, onto=onto)
            self.neurons(f"onto_{name}_attribution", None, None, (1, 4), True, "attribution", onto)
        self.neurons("attribution_at_1", 1, pos=-1, normalize="attribution")

    def full(self, suffix, layer=None, mlp_input=False, expand=True, normalize="none", pos=None, onto=None, wrong=None):
        args = dict(layer=layer, mlp_input=mlp_input, expand_neurons=expand, pos_slice=pos, project_output_onto=onto)
        asked = args | dict(apply_ln=normalize != "none", return_labels=True, project_output_onto=self.projection(onto))
        if self.cfg.attn_only and expand and layer != 0:
            wrong = NO_MLP
        rows = self.dense.full(layer, mlp_input, expand)
        self.dense.check_sums(rows, layer, mlp_input)
        call = lambda cache: cache.get_full_resid_decomposition(**asked)
        id, method = f"get_full_resid_decomposition.{suffix}", "get_full_resid_decomposition"
        self.rows(id, method, args, rows, call, normalize, wrong)

    def full_cases(self):
        self.full("default")
        for expand in (True, False):
            name = "neurons" if expand else "mlps"
            for layer in (-1, 0, 1):
                self.full(f"{name}_layer_{layer}", layer, expand=expand, pos=-1)
            self.full(f"{name}_attribution", expand=expand, normalize="attribution", pos=[0, 3])
            self.full(f"{name}_attribution_at_1", 1, expand=expand, normalize="attribution", pos=2)
            for onto in ("onto", "onto[:, 0]"):
                self.full(f"{name}_{onto}", expand=expand, onto=onto, pos=(1, 3) if onto == "onto" else 2)
                self.full(f"{name}_{onto}_attribution", expand=expand, normalize="attribution", onto=onto, pos=-1)
        for name, pos in POSITIONS.items():
            self.full(f"pos_{name}", expand=False, pos=pos)
        if self.cfg.attn_only:
            return
        for layer in (0, 1):
            self.full(f"mlp_input_{layer}", layer, mlp_input=True, pos=-1)
            self.full(f"mlp_input_{layer}_attribution", layer, True, True, "attribution", -1)
            wrong = NEURON_SCALE if layer else None
            self.full(f"mlp_input_{layer}_onto", layer, True, True, "attribution", -1, "onto", wrong)
            self.full(f"mlp_input_{layer}_mlps_onto", layer, True, False, "attribution", -1, "onto")

    def normalized_stack(self, suffix, layer=None, mlp_input=False, pos=None, batch=None, batchless=False, lens=False):
        """The stack is decompose_resid up to there, already at these positions (and prompts, where batchless)."""
        rows = self.dense.sublayers(layer, mlp_input)
        cut = lambda rows: Slice(pos).apply(tensor_of(rows), dim=-2)
        normalized = self.dense.normalize(rows, "lens" if lens else "attribution", layer, mlp_input)
        right = Slice(batch).apply(cut(normalized), dim=1)
        given = cut(rows)
        args = dict(layer=layer, mlp_input=mlp_input, pos_slice=pos, batch_slice=batch, has_batch_dim=not batchless)
        asked = args | dict(recompute_ln=lens)
        if batchless:
            given = Slice(batch).apply(given, dim=1)
        wrong = UNSLICED if self.cfg.normalization_type is None and batch is not None and not batchless else None
        call = lambda cache: cache.apply_ln_to_stack(given, **asked)
        args |= {"stack": "decompose_resid", "normalize": "lens" if lens else "attribution"}
        self.add(f"apply_ln_to_stack.{suffix}", "apply_ln_to_stack", args, right, call, labels_of(rows), wrong)

    def normalized_stack_cases(self):
        for layer in (None, -1, 0, 1):
            self.normalized_stack(f"layer_{layer}", layer)
        for name, pos in POSITIONS.items():
            self.normalized_stack(f"pos_{name}", pos=pos)
        for name, batch in {"index": 1, "range": (0, 1), "list": [1, 0]}.items():
            self.normalized_stack(f"batch_{name}", batch=batch)
            self.normalized_stack(f"batch_{name}_pos", 1, pos=(1, 4), batch=batch)
        self.normalized_stack("batchless", batch=1, batchless=True)
        self.normalized_stack("batchless_pos", pos=-1, batch=0, batchless=True)
        self.normalized_stack("lens", lens=True)
        self.normalized_stack("lens_pos", pos=2, lens=True)
        if not self.cfg.attn_only:
            for layer in (0, 1):
                self.normalized_stack(f"mlp_input_{layer}", layer, mlp_input=True)

    def attribute(
        self, suffix, axes, tokens, incorrect=None, source="decompose_resid", pos=None, batch=None, wrong=None
    ):
        """Attributions at the end of the model. `axes` are those of `tokens`: of batch and pos, any or none."""
        rows = {"decompose_resid": self.dense.sublayers(None), "stack_head_results": self.dense.heads(None)}
        rows |= {"get_full_resid_decomposition": self.dense.full(None), "sources": self.dense.sources(None)}
        rows = rows[source]
        tokens, incorrect = (None if x is None else torch.as_tensor(x) for x in (tokens, incorrect))
        directions, constant = self.dense.directions(tokens, incorrect)
        both = axes if axes != ["batch"] else ["batch", None]
        keep_batch, keep_pos = not isinstance(batch, int), not isinstance(pos, int)
        if both == ["batch", None] and keep_pos and keep_batch:
            directions = directions[:, None]
        normalized = tensor_of(self.dense.normalize(rows, "attribution", None))
        normalized = Slice(batch).apply(Slice(pos).apply(normalized, dim=-2), dim=1)
        right = (normalized * directions).sum(-1)
        given = Slice(pos).apply(tensor_of(rows), dim=-2)
        call = lambda cache: cache.logit_attrs(given, tokens, incorrect, pos_slice=pos, batch_slice=batch)
        args = dict(stack=source, axes=axes, tokens=tokens.tolist(), pos_slice=pos, batch_slice=batch)
        args["incorrect_tokens"] = None if incorrect is None else incorrect.tolist()
        id = f"logit_attrs.{suffix}"
        facts = {"unembed_bias": self.cases.store(f"{id}.unembed_bias", constant)}
        if source == "get_full_resid_decomposition" and pos is None and batch is None:
            self.check_logits(right, constant, axes, tokens, incorrect)
        unsliced = UNSLICED if self.cfg.normalization_type is None and batch is not None else None
        wrong = "; ".join(filter(None, [wrong, unsliced, UNFOLDED if self.unfolded else None])) or None
        self.add(id, "logit_attrs", args, right, call, labels_of(rows), wrong, **facts)

    def check_logits(self, right, constant, axes, tokens, incorrect):
        """All parts and the constant term sum to the logit."""

        def chosen(which):
            which = which[:, None] if axes == ["batch"] else which
            return self.logits.gather(-1, which.expand(self.logits.shape[:2])[..., None])[..., 0]

        logit = chosen(tokens) - (chosen(incorrect) if incorrect is not None else 0)
        constant = constant[:, None] if axes == ["batch"] else constant
        error = (right.sum(0) + constant - logit).abs().max().item()
        assert error < 1e-11, f"{self.subject.name}: attributions miss the logit by {error}"

    def logit_attr_cases(self):
        by_batch, wrong_by_batch = [3, 7], [5, 1]
        by_both = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
        wrong_by_both = [[0, 11, 12, 1, 2], [5, 4, 3, 2, 1]]
        by_pos = [12, 0, 4, 4, 9]
        full = "get_full_resid_decomposition"
        self.attribute("one", [], 4)
        self.attribute("one_against_one", [], 4, 9)
        self.attribute("one_heads", [], 4, 9, "stack_head_results")
        self.attribute("one_full", [], 4, 9, full)
        self.attribute("batch", ["batch"], by_batch, wrong=BATCH_AXIS)
        self.attribute("batch_against", ["batch"], by_batch, wrong_by_batch, wrong=BATCH_AXIS)
        self.attribute("batch_full", ["batch"], by_batch, wrong_by_batch, full, wrong=BATCH_AXIS)
        self.attribute("batch_where_pos_is_as_long", ["batch"], by_batch, pos=(1, 3), wrong=BATCH_AXIS)
        self.attribute("both", ["batch", "pos"], by_both)
        self.attribute("both_against", ["batch", "pos"], by_both, wrong_by_both, full)
        self.attribute("pos", ["pos"], by_pos)
        self.attribute("batch_pos_last", ["batch"], by_batch, wrong_by_batch, pos=-1)
        self.attribute("batch_pos_last_heads", ["batch"], by_batch, wrong_by_batch, "stack_head_results", pos=-1)
        self.attribute("one_pos_list", [], 4, 9, pos=[0, 3])
        self.attribute("one_batch_index", [], 4, 9, batch=1)
        self.attribute("one_batch_range", [], 4, 9, batch=(0, 1))
        self.attribute("one_batch_index_pos", [], 4, batch=0, pos=2)
        self.attribute("sources_pos_last", ["batch"], by_batch, wrong_by_batch, "sources", pos=-1)

    def without_batch_cases(self):
        """After apply_slice_to_batch_dim(1): the same methods on a cache without a batch axis."""
        calls = {
            "accumulated_resid": (self.dense.accumulated(None), "lens", dict(apply_ln=True)),
            "decompose_resid": (self.dense.sublayers(None), "attribution", dict(apply_ln=True)),
            "stack_head_results": (self.dense.heads(None), "attribution", dict(apply_ln=True)),
            "get_full_resid_decomposition": (
                self.dense.full(None),
                "none",
                dict(expand_neurons=not self.cfg.attn_only),
            ),
        }
        for pos in (None, -1):
            for method, (rows, normalize, extra) in calls.items():
                rows = self.dense.normalize(rows, normalize, None)
                right = Slice(pos).apply(tensor_of(rows)[:, 1], dim=-2)
                args = extra | dict(pos_slice=pos)
                call = lambda cache: self.on_one_prompt(cache, method, args)
                shown = args | {"layer": None, "normalize": normalize}
                before = [{"method": "apply_slice_to_batch_dim", "args": {"batch_slice": slice_as_json(1)}}]
                id = f"without_batch.{method}.{'all' if pos is None else 'last'}"
                self.add(id, method, shown, right, call, labels_of(rows), before=before)

    @staticmethod
    def on_one_prompt(cache, method, args):
        return getattr(cache.apply_slice_to_batch_dim(1), method)(return_labels=True, **args)

    def lens_cases(self):
        """Not methods of ActivationCache: what users make of them."""
        lens = tensor_of(self.dense.normalize(self.dense.accumulated(None, not self.cfg.attn_only), "lens", None))
        labels = labels_of(self.dense.accumulated(None, not self.cfg.attn_only))
        call = lambda cache: self.model.unembed(
            cache.accumulated_resid(apply_ln=True, incl_mid=not self.cfg.attn_only)[:, :, -1:]
        )[:, :, 0]
        logits = lens[:, :, -1] @ self.dense.weights["unembed.W_U"] + self.dense.weights["unembed.b_U"]
        note = "the last row is the model's own"
        args = {"incl_mid": not self.cfg.attn_only, "pos_slice": -1}
        self.add("logit_lens", "logit_lens", args, logits, call, labels, note=note)
        assert torch.allclose(logits[-1], self.logits[:, -1], rtol=0, atol=1e-11)
        rows = self.dense.sources(None)
        right = Slice(-1).apply(tensor_of(rows), dim=-2)
        heads = Slice(-1).apply(tensor_of(self.dense.heads(None)), dim=-2)
        assert torch.allclose(right.unflatten(0, (len(heads), -1)).sum(1), heads, rtol=0, atol=TOLERANCE)
        note = "a head's result by source position; not in TransformerLens"
        self.cases.add("sources", "sources", {"layer": None, "pos_slice": slice_as_json(-1)}, right,
                       labels=labels_of(rows), note=note)  # fmt: skip

    def everything(self):
        self.accumulated_cases()
        self.decompose_cases()
        self.results()
        self.head_cases()
        self.activation_cases()
        self.full_cases()
        self.normalized_stack_cases()
        self.logit_attr_cases()
        self.without_batch_cases()
        self.lens_cases()
        if not self.cfg.attn_only:
            self.neuron_result_cases()
            self.neuron_cases()

    def layout(self):
        """What a block layout changes: few cases, most of them wrong in TransformerLens."""
        model = self.subject.model
        parts = SHORTFORMER if model == "tl-shortformer" else None
        inside = POST_NORM if model == "tl-norm-before-and-after" else parts
        final = FINAL_RMS if model == "tl-solu" else None
        wrong_mlp_input = PARALLEL if model == "tl-parallel" else parts
        join = lambda *reasons: "; ".join(dict.fromkeys(filter(None, reasons))) or None
        for layer in (None, 0, 1):
            self.decompose(f"layer_{layer}", layer, wrong=parts)
            final_here = final if layer is None else None
            self.decompose(f"layer_{layer}_attribution", layer, normalize="attribution", wrong=join(parts, final_here))
            inside_here = inside if layer != 0 else parts
            self.full(f"layer_{layer}", layer, pos=-1, wrong=inside_here)
            self.full(f"layer_{layer}_attribution", layer, False, True, "attribution", (1, 3), None,
                      join(inside_here, final_here))  # fmt: skip
        for layer in (0, 1):
            self.decompose(f"mlp_input_{layer}", layer, mlp_input=True, wrong=wrong_mlp_input)
            self.full(f"mlp_input_{layer}", layer, True, pos=-1, wrong=join(wrong_mlp_input, inside))
        head_wrong = POST_NORM if model == "tl-norm-before-and-after" else None
        self.results(head_wrong)
        self.heads("default", wrong=head_wrong)
        self.heads("remainder_attribution", None, True, "attribution", wrong=join(head_wrong, final))
        self.neurons("default", pos=-1, wrong=head_wrong)
        self.neurons("remainder", neurons=[0, 7], remainder=True, wrong=head_wrong)
        full = "get_full_resid_decomposition"
        self.attribute("one_full", [], 4, 9, full, wrong=join(inside, final))
        self.attribute("both_full", ["batch", "pos"], self.tokens, self.tokens.flip(1), full, wrong=join(inside, final))


def make(subject: Subject) -> None:
    with float32_means_float64(), torch.no_grad():
        maker = CacheCases(subject)
        with NoReducedPrecision():
            maker.layout() if subject.layout_only else maker.everything()
    directory = fixture_dir(subject.name)
    processing = list(DEFAULT_PROCESSING) if subject.processed else []
    maker.cases.write(directory, model=subject.model, processing=processing)
    write_manifest(directory, "activation_cache.py", PACKAGES, seed=7)


if __name__ == "__main__":
    for subject in SUBJECTS:
        make(subject)
