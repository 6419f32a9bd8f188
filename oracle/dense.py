"""What ActivationCache methods should give, computed densely from the cached activations and the weights.

Independent of TransformerLens's ActivationCache: each part of the residual stream is written out by its formula,
and `check_sums` makes sure that parts sum to the cached stream in every block layout.
"""

import torch

LAYER_NORMS = ("LN", "LNPre")


class Dense:
    """Rows are lists of (label, tensor [batch, pos, d_model]); nothing is sliced here."""

    def __init__(self, model, cache: dict):
        self.model, self.cfg, self.cache = model, model.cfg, cache
        self.weights = dict(model.named_parameters())
        self.layers = model.cfg.n_layers
        self.parallel = model.cfg.parallel_attn_mlp
        self.has_mlp = not model.cfg.attn_only

    def layer(self, layer) -> int:
        return self.layers if layer in (None, -1) else layer

    def resid(self, layer, mlp_input=False):
        """The stream that is read there."""
        layer = self.layer(layer)
        if mlp_input and not self.parallel:
            return self.cache[f"blocks.{layer}.hook_resid_mid"]
        if layer == self.layers:
            return self.cache[f"blocks.{layer - 1}.hook_resid_post"]
        return self.cache[f"blocks.{layer}.hook_resid_pre"]

    def through(self, norm: str, x):
        """What a norm with the statistics of the run makes of a part: weight included, bias not."""
        scale = self.cache.get(f"{norm}.hook_scale")
        if scale is None:
            return x
        is_layer_norm = f"{norm}.b" in self.weights
        return (x - x.mean(-1, keepdim=True) if is_layer_norm else x) / scale * self.weights[f"{norm}.w"]

    def embeds(self):
        rows = [("embed", self.cache["hook_embed"])]
        if "hook_pos_embed" in self.cache and self.cfg.positional_embedding_type != "shortformer":
            rows.append(("pos_embed", self.cache["hook_pos_embed"]))
        return rows

    def attn_layers(self, layer, mlp_input):
        return range(self.layer(layer) + (1 if mlp_input and not self.parallel else 0))

    def attn_out(self, layer):
        return (f"{layer}_attn_out", self.cache[f"blocks.{layer}.hook_attn_out"])

    def mlp_out(self, layer):
        return (f"{layer}_mlp_out", self.cache[f"blocks.{layer}.hook_mlp_out"])

    def sublayers(self, layer, mlp_input=False, mode="all", incl_embeds=True):
        rows = self.embeds() if incl_embeds else []
        for block in self.attn_layers(layer, mlp_input):
            if mode != "mlp":
                rows.append(self.attn_out(block))
            if mode != "attn" and self.has_mlp and block < self.layer(layer):
                rows.append(self.mlp_out(block))
        return rows

    def w_o(self, layer, head):
        return self.weights[f"blocks.{layer}.attn.W_O"][head]

    def heads_of(self, layer):
        z = self.cache[f"blocks.{layer}.attn.hook_z"]
        written = [z[:, :, head] @ self.w_o(layer, head) for head in range(self.cfg.n_heads)]
        norm = f"blocks.{layer}.ln1_post"
        return [(f"L{layer}H{head}", self.through(norm, part)) for head, part in enumerate(written)]

    def heads(self, layer, mlp_input=False):
        return [row for block in self.attn_layers(layer, mlp_input) for row in self.heads_of(block)]

    def sources_of(self, layer):
        """A head's result by the position it was read from; they sum to the head's result."""
        pattern = self.cache[f"blocks.{layer}.attn.hook_pattern"]
        values = self.cache[f"blocks.{layer}.attn.hook_v"]
        values = values.repeat_interleave(self.cfg.n_heads // values.shape[2], dim=2)
        rows = []
        for head in range(self.cfg.n_heads):
            for source in range(pattern.shape[-1]):
                moved = pattern[:, head, :, source, None] * (values[:, source, head] @ self.w_o(layer, head))[:, None]
                rows.append((f"L{layer}H{head}<-{source}", self.through(f"blocks.{layer}.ln1_post", moved)))
        return rows

    def sources(self, layer):
        return [row for block in range(self.layer(layer)) for row in self.sources_of(block)]

    def neurons_of(self, layer):
        post, w_out = self.cache[f"blocks.{layer}.mlp.hook_post"], self.weights[f"blocks.{layer}.mlp.W_out"]
        if f"blocks.{layer}.mlp.hook_post_ln" in self.cache:
            raise NotImplementedError("neurons behind an inner norm")
        rows = [post[:, :, neuron, None] * w_out[neuron] for neuron in range(post.shape[-1])]
        return [(f"L{layer}N{i}", self.through(f"blocks.{layer}.ln2_post", row)) for i, row in enumerate(rows)]

    def neurons(self, layer):
        return [row for block in range(self.layer(layer) if self.has_mlp else 0) for row in self.neurons_of(block)]

    def bias(self, layer, mlp_input, mlp_biases):
        """b_O of each head stack and b_out of each neuron stack, as they reach the stream."""
        total = torch.zeros_like(self.cache["hook_embed"])
        for block in self.attn_layers(layer, mlp_input):
            total = total + self.through(f"blocks.{block}.ln1_post", self.weights[f"blocks.{block}.attn.b_O"])
        for block in range(self.layer(layer) if mlp_biases and self.has_mlp else 0):
            total = total + self.through(f"blocks.{block}.ln2_post", self.weights[f"blocks.{block}.mlp.b_out"])
        return [("bias", total)]

    def full(self, layer, mlp_input=False, expand_neurons=True):
        mlps = self.neurons(layer) if expand_neurons else self.sublayers(layer, False, "mlp", False)
        bias = self.bias(layer, mlp_input, mlp_biases=expand_neurons)
        return self.heads(layer, mlp_input) + mlps + self.embeds() + bias

    def accumulated(self, layer, incl_mid=False, mlp_input=False):
        layer, rows = self.layer(layer), []
        for block in range(layer + 1):
            name = "final_post" if block == self.layers else f"{block}_pre"
            rows.append((name, self.resid(block)))
            if mlp_input if block == layer else incl_mid:
                rows.append((f"{block}_mid", self.resid(block, mlp_input=True)))
        return rows

    def with_remainder(self, rows, layer):
        parts = sum((tensor for _, tensor in rows), torch.zeros_like(self.resid(layer)))
        return rows + [("remainder", self.resid(layer) - parts)]

    def norm_at(self, layer, mlp_input):
        """Its name, and whether it subtracts the mean."""
        layer = self.layer(layer)
        if self.cfg.normalization_type is None:
            return None, False
        if layer == self.layers:
            return "ln_final", self.cfg.normalization_type in LAYER_NORMS and not self.cfg.final_rms
        return f"blocks.{layer}.ln{2 if mlp_input else 1}", self.cfg.normalization_type in LAYER_NORMS

    def normalize(self, rows, how, layer, mlp_input=False):
        """`attribution`: centered, over the scale of the run, without weight and bias. `lens`: the norm itself."""
        norm, centered = self.norm_at(layer, mlp_input)
        if norm is None or how == "none":
            return rows
        rows = [(label, x - x.mean(-1, keepdim=True) if centered else x) for label, x in rows]
        if how == "attribution":
            return [(label, x / self.cache[f"{norm}.hook_scale"]) for label, x in rows]
        w, b = self.weights.get(f"{norm}.w", 1.0), self.weights.get(f"{norm}.b", 0.0)
        return [(label, x / (x.pow(2).mean(-1, keepdim=True) + self.cfg.eps).sqrt() * w + b) for label, x in rows]

    def directions(self, tokens, incorrect=None):
        """The final norm's weight belongs to the direction, its bias and b_U to a term of their own."""
        w_u, b_u = self.weights["unembed.W_U"], self.weights["unembed.b_U"]
        direction, constant = w_u.T[tokens], b_u[tokens]
        if incorrect is not None:
            direction, constant = direction - w_u.T[incorrect], constant - b_u[incorrect]
        constant = constant + direction @ self.weights.get("ln_final.b", torch.zeros(self.cfg.d_model))
        return direction * self.weights.get("ln_final.w", 1.0), constant

    def check_sums(self, rows, layer, mlp_input=False):
        total = sum(tensor for _, tensor in rows)
        error = (total - self.resid(layer, mlp_input)).abs().max()
        assert error < 1e-12, f"parts before layer {layer} miss the stream by {error}"


def tensor_of(rows):
    return torch.stack([tensor for _, tensor in rows])


def labels_of(rows):
    return [label for label, _ in rows]
