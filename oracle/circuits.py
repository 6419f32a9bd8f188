"""FactoredMatrix, circuits of tiny models and SVDInterpreter: TransformerLens beside dense linear algebra."""

import logging
from itertools import product

import torch
from cases import Cases
from common import NoReducedPrecision, fixture_dir, float32_means_float64, write_manifest
from transformer_lens import FactoredMatrix, SVDInterpreter
from transformer_lens.utilities import composition_scores
from transformer_lens_dumps import DEFAULT_PROCESSING, PACKAGES, REFACTOR, VARIANTS, build

logging.disable(logging.WARNING)
TOLERANCE = 1e-10
ERRORS = (TypeError, KeyError, RuntimeError, AssertionError, AttributeError, IndexError)

GQA = "the parameters of grouped-query attention are called _W_V: KeyError"
UNFOLDED = "the weights of ln1 and ln_final are left out on an unfolded model"
HALF_FOLDED = "ln2's weight is folded in (not its centering), ln_final's is left out of the readout"
ELLIPSIS = "an ellipsis first in an index counts as one axis: AssertionError"

SHAPES = {
    "inner_below": ((), (), 5, 2, 5),
    "inner_below_wide": ((), (), 3, 2, 6),
    "inner_equal": ((), (), 4, 4, 4),
    "inner_equal_to_one_side": ((), (), 6, 3, 3),
    "inner_above": ((), (), 4, 7, 4),
    "inner_above_one_side": ((), (), 6, 4, 3),
    "inner_one": ((), (), 3, 1, 3),
    "sides_one": ((), (), 1, 3, 1),
    "one_axis": ((3,), (3,), 4, 2, 4),
    "one_axis_above": ((2,), (2,), 3, 5, 3),
    "two_axes": ((2, 3), (2, 3), 4, 2, 4),
    "broadcast": ((2, 1), (3,), 4, 2, 5),
    "broadcast_right": ((), (2,), 3, 2, 3),
}


def by_size(eigenvalues):
    """Sorted by real, then imaginary part; compare as sets where two are close."""
    rows = eigenvalues.reshape(-1, eigenvalues.shape[-1])
    key = lambda x: (round(x.real, 9), round(x.imag, 9))
    return torch.tensor([sorted(row, key=key) for row in rows.tolist()]).reshape(eigenvalues.shape)


def eigenvalues_of(a, b):
    """The `mdim` eigenvalues of BA: those of AB that are not zero, and zeros."""
    return by_size(torch.linalg.eigvals(b @ a))


def same(theirs, right) -> bool:
    if theirs is None or theirs.shape != right.shape:
        return False
    return theirs.numel() == 0 or (theirs - right).abs().max().item() < TOLERANCE


def add(cases, id, method, args, right, call, wrong=None, **facts):
    """`right` is dense, `call()` is TransformerLens."""
    try:
        theirs, error = call(), None
    except ERRORS as raised:
        theirs, error = None, type(raised).__name__
    is_same = same(theirs, right)
    assert is_same == (wrong is None), f"{id}: TransformerLens is {'right' if is_same else f'different ({error})'}"
    facts |= {"tl_wrong": wrong}
    if wrong is not None:
        facts["tl_gives"] = error or "another value"
    cases.add(id, method, args, right, **facts)


def random(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def factored_properties(cases, name, a, b):
    args = {"a": cases.store(f"{name}.a", a), "b": cases.store(f"{name}.b", b)}
    factored, dense = FactoredMatrix(a, b), a @ b
    k = min(a.shape[-2], a.shape[-1], b.shape[-1])
    _, s, vh = torch.linalg.svd(dense, full_matrices=False)
    s = s[..., :k]
    right_gram = dense.transpose(-2, -1) @ dense
    left_gram = dense @ dense.transpose(-2, -1)
    case = lambda method, right, call, **facts: add(cases, f"{name}.{method}", method, args, right, call, **facts)
    case("ab", dense, lambda: factored.AB)
    case("t", dense.transpose(-2, -1), lambda: factored.T.AB)
    case("s", s, lambda: factored.S)
    case("svd", dense, lambda: factored.U * factored.S[..., None, :] @ factored.V.transpose(-2, -1), note="U S Vᵀ")
    case("norm", dense.pow(2).sum((-2, -1)).sqrt(), factored.norm)
    case("make_even", dense, lambda: factored.make_even().AB)
    spread = torch.diag_embed(s)
    even = "AᵀA and BBᵀ of make_even: both diag(S)"
    case("make_even.left_gram", spread, lambda: gram(factored.make_even().A), note=even)
    case("make_even.right_gram", spread, lambda: gram(factored.make_even().B.transpose(-2, -1)), note=even)
    case("collapse_l.gram", right_gram, lambda: gram(factored.collapse_l()), note="XᵀX of X = collapse_l")
    case(
        "collapse_r.gram",
        left_gram,
        lambda: gram(factored.collapse_r().transpose(-2, -1)),
        note="XXᵀ of X = collapse_r",
    )
    case("get_corner", corner(dense, 2), lambda: factored.get_corner(2), note="k = 2; leading axes are cut as well")
    case("unsqueeze", dense.unsqueeze(0), lambda: factored.unsqueeze(0).AB)
    if a.shape[-2] == b.shape[-1]:
        case("ba", b @ a, lambda: factored.BA)
        trace = dense.diagonal(dim1=-2, dim2=-1).sum(-1)
        cases.add(f"{name}.trace", "trace", args, trace, note="not in TransformerLens")
        case("eigenvalues", eigenvalues_of(a, b), lambda: by_size(factored.eigenvalues))


def gram(x):
    return x.transpose(-2, -1) @ x


def corner(tensor, k):
    return tensor[tuple(slice(k) for _ in tensor.shape)]


def factored_products(cases, generator):
    """Products on either side, with the inner dimension that the result has."""
    for lead, (l, m, r) in product(((), (2,)), ((5, 2, 5), (3, 4, 6), (6, 4, 3))):
        name = f"product.{len(lead)}_axes.{l}x{m}x{r}"
        a, b = random(generator, *lead, l, m), random(generator, *lead, m, r)
        factors = {"a": cases.store(f"{name}.a", a), "b": cases.store(f"{name}.b", b)}
        others = {"vector": random(generator, r), "matrix": random(generator, r, 4), "narrow": random(generator, r, 1)}
        lefts = {"vector": random(generator, l), "matrix": random(generator, 4, l), "narrow": random(generator, 1, l)}
        f = FactoredMatrix(a, b)
        for kind, x in others.items():
            args = factors | {"other": cases.store(f"{name}.x_right_{kind}", x), "side": "right"}
            facts = {} if kind == "vector" else {"mdim": (f @ x).mdim}
            call = lambda: f @ x if kind == "vector" else (f @ x).AB
            add(cases, f"{name}.right_{kind}", "matmul", args, a @ b @ x, call, **facts)
        for kind, x in lefts.items():
            args = factors | {"other": cases.store(f"{name}.x_left_{kind}", x), "side": "left"}
            facts = {} if kind == "vector" else {"mdim": f.__rmatmul__(x).mdim}
            call = lambda: f.__rmatmul__(x) if kind == "vector" else f.__rmatmul__(x).AB
            add(cases, f"{name}.left_{kind}", "matmul", args, x @ (a @ b), call, **facts)
        c, d = random(generator, r, 3), random(generator, 3, l)
        g = FactoredMatrix(c, d)
        args = factors | {"other_a": cases.store(f"{name}.c", c), "other_b": cases.store(f"{name}.d", d)}
        args |= {"side": "right"}
        add(cases, f"{name}.factored", "matmul", args, a @ b @ c @ d, lambda: (f @ g).AB, mdim=(f @ g).mdim)
        add(cases, f"{name}.scalar", "mul", factors | {"scalar": -2.5}, a @ b * -2.5, lambda: (-2.5 * f).AB)
        e, h = random(generator, *lead, l, 3), random(generator, *lead, 3, r)
        args = factors | {"other_a": cases.store(f"{name}.e", e), "other_b": cases.store(f"{name}.h", h)}
        undefined = "sums and differences are not defined (TypeError)"
        f2 = FactoredMatrix(e, h)
        add(cases, f"{name}.sum", "add", args, a @ b + e @ h, lambda: (f + f2).AB, undefined)
        add(cases, f"{name}.difference", "sub", args, a @ b - e @ h, lambda: (f - f2).AB, undefined)


def factored_indices(cases, generator):
    """The tensor is the dense product indexed, ints on the last two axes kept as axes of length 1."""
    a, b = random(generator, 3, 7, 4), random(generator, 4, 9)
    args = {"a": cases.store("index.a", a), "b": cases.store("index.b", b)}
    dense, f = a @ b, FactoredMatrix(a, b)
    forms = {
        "0": ((0,), dense[0]),
        "1:3": ((slice(1, 3),), dense[1:3]),
        "0,1:3": ((0, slice(1, 3)), dense[0, 1:3]),
        "0,2": ((0, 2), dense[0, 2:3]),
        "0,-1": ((0, -1), dense[0, -1:]),
        "1,2,3": ((1, 2, 3), dense[1, 2:3, 3:4]),
        "1,-1,-1": ((1, -1, -1), dense[1, -1:, -1:]),
        ":,1:5:2,::3": ((slice(None), slice(1, 5, 2), slice(None, None, 3)), dense[:, 1:5:2, ::3]),
        "[0,2]": (([0, 2],), dense[[0, 2]]),
        "0,...,1": ((0, ..., 1), dense[0, ..., 1:2]),
        ":,[1,3],0": ((slice(None), [1, 3], 0), dense[:, [1, 3], 0:1]),
    }
    for text, (index, right) in forms.items():
        add(cases, f"index.{text}", "index", args | {"index": text}, right, lambda: f[index].AB)
    last = ((..., 0), dense[..., 0:1])
    add(cases, "index....,0", "index", args | {"index": "...,0"}, last[1], lambda: f[last[0]].AB, ELLIPSIS)


def dense_composition(left, right):
    norm = lambda x: x.pow(2).sum((-2, -1)).sqrt()
    return norm(left @ right) / norm(left) / norm(right)


def factored_compositions(cases, generator):
    for name, (left_lead, right_lead) in {"none": ((), ()), "both": ((2,), (3,)), "deep": ((2, 2), (3,))}.items():
        parts = [random(generator, *left_lead, 6, 2), random(generator, *left_lead, 2, 5)]
        parts += [random(generator, *right_lead, 5, 3), random(generator, *right_lead, 3, 4)]
        keys = ("left_a", "left_b", "right_a", "right_b")
        args = {key: cases.store(f"composition.{name}.{key}", x) for key, x in zip(keys, parts, strict=True)}
        left, right = parts[0] @ parts[1], parts[2] @ parts[3]
        spread = left.reshape(*left_lead, *(1 for _ in right_lead), 6, 5)
        scores = dense_composition(spread, right)
        call = lambda: composition_scores(FactoredMatrix(*parts[:2]), FactoredMatrix(*parts[2:]), broadcast_dims=True)
        add(cases, f"composition_scores.{name}", "composition_scores", args | {"broadcast": True}, scores, call)
    parts = [
        random(generator, 3, 6, 2),
        random(generator, 3, 2, 5),
        random(generator, 3, 5, 3),
        random(generator, 3, 3, 4),
    ]
    args = {key: cases.store(f"composition.paired.{key}", x) for key, x in zip(keys, parts, strict=True)}
    scores = dense_composition(parts[0] @ parts[1], parts[2] @ parts[3])
    call = lambda: composition_scores(FactoredMatrix(*parts[:2]), FactoredMatrix(*parts[2:]), broadcast_dims=False)
    add(cases, "composition_scores.paired", "composition_scores", args | {"broadcast": False}, scores, call)


def make_factored() -> None:
    cases, generator = Cases(), torch.Generator().manual_seed(11)
    for name, (a_lead, b_lead, l, m, r) in SHAPES.items():
        factored_properties(cases, name, random(generator, *a_lead, l, m), random(generator, *b_lead, m, r))
    factored_products(cases, generator)
    factored_indices(cases, generator)
    factored_compositions(cases, generator)
    directory = fixture_dir("circuits-factored")
    cases.write(directory, model=None, processing=[])
    write_manifest(directory, "circuits.py", PACKAGES, seed=11)


class Circuits:
    """The matrices of a model as they are, or (`folded`) with the norms' weights folded in; all dense."""

    def __init__(self, model, folded=False):
        self.cfg = model.cfg
        weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
        center = folded and self.cfg.normalization_type == "LN"
        read = lambda x, norm: fold(x, weights.get(f"{norm}.w") if folded else None, center)
        group = lambda name: (
            weights.get(name)
            if name in weights
            else weights[name.replace("W_", "_W_")].repeat_interleave(
                self.cfg.n_heads // self.cfg.n_key_value_heads, dim=0
            )
        )
        blocks = range(self.cfg.n_layers)
        stack = lambda kind: torch.stack([read(group(f"blocks.{l}.attn.{kind}"), f"blocks.{l}.ln1") for l in blocks])
        self.w_q, self.w_k, self.w_v = stack("W_Q"), stack("W_K"), stack("W_V")
        self.w_o = torch.stack([weights[f"blocks.{l}.attn.W_O"] for l in blocks])
        self.w_e, self.w_u = weights["embed.W_E"], read(weights["unembed.W_U"], "ln_final")
        if not self.cfg.attn_only:
            self.w_in = [read(weights[f"blocks.{l}.mlp.W_in"], f"blocks.{l}.ln2") for l in blocks]
            self.w_out = [weights[f"blocks.{l}.mlp.W_out"] for l in blocks]

    @property
    def ov(self):
        return self.w_v @ self.w_o

    @property
    def qk(self):
        return self.w_q @ self.w_k.transpose(-2, -1)


def fold(matrix, weight, center):
    """`[.., d_model, n]` behind a norm: diag(w) W, and for LayerNorm without what its mean would read."""
    matrix = matrix if weight is None else weight[:, None] * matrix
    return matrix - matrix.mean(-2, keepdim=True) if center else matrix


def all_compositions(circuits, mode):
    right = {"Q": circuits.qk, "K": circuits.qk.transpose(-2, -1), "V": circuits.ov}[mode]
    scores = dense_composition(circuits.ov[:, :, None, None], right[None, None])
    layers = torch.arange(circuits.cfg.n_layers)
    earlier = layers[:, None, None, None] < layers[None, None, :, None]
    return torch.where(earlier, scores, torch.zeros_like(scores))


def model_circuits(cases, model, circuits):
    s = lambda x: torch.linalg.svdvals(x)[..., : circuits.cfg.d_head]
    case = lambda name, right, call, **facts: add(cases, name, name.split(".")[0], {}, right, call, **facts)
    case("OV.singular_values", s(circuits.ov), lambda: model.OV.S)
    case("QK.singular_values", s(circuits.qk), lambda: model.QK.S)
    case("OV.eigenvalues", eigenvalues_of(circuits.w_v, circuits.w_o), lambda: by_size(model.OV.eigenvalues))
    keys = circuits.w_k.transpose(-2, -1)
    case("QK.eigenvalues", eigenvalues_of(circuits.w_q, keys), lambda: by_size(model.QK.eigenvalues))
    full = lambda: model.W_E @ model.OV @ model.W_U
    dense = circuits.w_e @ circuits.ov @ circuits.w_u
    case("full_OV", dense, lambda: full().AB, note="W_E OV W_U, [layer, head, source token, token]")
    eigenvalues = eigenvalues_of(circuits.w_e @ circuits.w_v, circuits.w_o @ circuits.w_u)
    case("full_OV.eigenvalues", eigenvalues, lambda: by_size(full().eigenvalues))
    copying = lambda x: x.real.sum(-1) / x.abs().sum(-1)
    case("copying_scores", copying(eigenvalues), lambda: copying(full().eigenvalues), note="Σ Re λ / Σ |λ| of full_OV")
    of_ov = eigenvalues_of(circuits.w_v, circuits.w_o)
    case("copying_scores.OV", copying(of_ov), lambda: copying(model.OV.eigenvalues), note="the same of OV alone")
    dense = circuits.w_e @ circuits.qk @ circuits.w_e.T
    case("full_QK", dense, lambda: (model.W_E @ model.QK @ model.W_E.T).AB, note="W_E QK W_Eᵀ, no score scale")
    case("OV.norm", circuits.ov.pow(2).sum((-2, -1)).sqrt(), lambda: model.OV.norm())
    case("QK.norm", circuits.qk.pow(2).sum((-2, -1)).sqrt(), lambda: model.QK.norm())
    for mode in "QKV":
        right = all_compositions(circuits, mode)
        add(cases, f"all_composition_scores.{mode}", "all_composition_scores", {"mode": mode}, right,
            lambda: model.all_composition_scores(mode), labels=model.all_head_labels())  # fmt: skip


def readouts(matrix, w_u, number):
    """[d_vocab_out, 1, number]: W_Uᵀ of each right singular vector; and the singular values."""
    _, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (vh[:number] @ w_u).T[:, None], s[:number]


def signed_like(theirs, right):
    """Flips columns, whose signs are arbitrary."""
    if theirs.shape != right.shape:
        return theirs
    signs = torch.sign((theirs * right).sum((0, 1)))
    return theirs * signs


def singular_vectors(cases, model, circuits, folding=None, wrong=None):
    """`wrong` gives what is wrong of one vector type; `folding` is whether norms are folded on the fly."""
    wrong = wrong or {}
    interpreter = SVDInterpreter(model)
    kinds = [("OV", layer, head) for layer in range(circuits.cfg.n_layers) for head in range(circuits.cfg.n_heads)]
    if not circuits.cfg.attn_only:
        kinds += [(kind, layer, None) for kind in ("w_in", "w_out") for layer in range(circuits.cfg.n_layers)]
    for kind, layer, head in kinds:
        number = circuits.cfg.d_head if kind == "OV" else circuits.cfg.d_model - 1
        matrix = {
            "OV": lambda: circuits.ov[layer, head],
            "w_in": lambda: circuits.w_in[layer].T,
            "w_out": lambda: circuits.w_out[layer],
        }[kind]()
        right, s = readouts(matrix, circuits.w_u, number)
        name = ".".join(str(part) for part in (kind, layer, head, {None: None, True: "folded", False: "raw"}[folding])
                        if part is not None)  # fmt: skip
        args = dict(vector_type=kind, layer_index=layer, num_vectors=number, head_index=head)
        call = lambda: signed_like(interpreter.get_singular_vectors(**args), right)
        args_shown = args | ({} if folding is None else {"fold": folding})
        id = f"get_singular_vectors.{name}"
        gaps = (s[:-1] - s[1:]).min().item()
        assert gaps > 1e-6, f"{id}: singular values too close to tell vectors apart"
        values = cases.store(f"{id}.singular_values", s)
        add(cases, id, "get_singular_vectors", args_shown, right, call, wrong.get(kind), singular_values=values,
            note="each column up to its sign")  # fmt: skip


def singular_vectors_unfolded(cases, model):
    grouped = model.cfg.n_key_value_heads is not None
    gqa = {"OV": GQA} if grouped else {}
    raw, folded = Circuits(model), Circuits(model, folded=True)
    singular_vectors(cases, model, raw, False, {"w_in": HALF_FOLDED} | gqa)
    wrong = {"w_in": HALF_FOLDED, "w_out": UNFOLDED, "OV": UNFOLDED} | gqa
    singular_vectors(cases, model, folded, True, wrong)


def make_model(name: str, processing: tuple[str, ...]) -> None:
    with float32_means_float64(), torch.no_grad():
        model = build(next(variant for variant in VARIANTS if variant.name == name))
        if processing:
            flags = {flag: flag in processing for flag in (*DEFAULT_PROCESSING, REFACTOR)}
            model.load_and_process_state_dict(model.state_dict(), **flags)
        cases, grouped = Cases(), model.cfg.n_key_value_heads is not None
        with NoReducedPrecision():
            model_circuits(cases, model, Circuits(model))
            if processing or model.cfg.normalization_type is None:
                singular_vectors(cases, model, Circuits(model), wrong={"OV": GQA} if grouped else None)
            else:
                singular_vectors_unfolded(cases, model)
    steps = {(): "", ("fold_ln",): "-folded", DEFAULT_PROCESSING: "-processed"}
    directory = fixture_dir(f"circuits-{name.removeprefix('tl-')}{steps[processing]}")
    cases.write(directory, model=name, processing=list(processing))
    write_manifest(directory, "circuits.py", PACKAGES)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    make_factored()
    for name, processing in product(("tl-ln", "tl-rms-gqa"), ((), ("fold_ln",), DEFAULT_PROCESSING)):
        make_model(name, processing)
    make_model("tl-attn-only", ())
