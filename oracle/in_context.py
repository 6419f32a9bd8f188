"""Models without a vocabulary: GPT2Model with a read-in and a read-out, its training, and scikit-learn's answers.

Writes fixtures/icl-gpt2 (a `.pth` state dict, its outputs, the output of every module, ten steps of AdamW) and
fixtures/icl-clusters (k-means, silhouette, linear classifiers, ridge and logistic regression).
"""

import numpy as np
import torch
from common import fixture_dir, float32_means_float64, randomise, seed_of, write_json, write_manifest, write_tensors
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import silhouette_samples, silhouette_score
from sklearn.svm import LinearSVC
from torch import nn
from transformers import GPT2Config, GPT2Model

D_IN, D_OUT, N_POSITIONS, N_LAYER, N_HEAD, N_EMBD = 3, 1, 9, 2, 2, 16


class TransformerModel(nn.Module):
    """As in the notebook: a read-in, GPT-2 without its vocabulary, a read-out."""

    def __init__(self):
        super().__init__()
        config = GPT2Config(
            vocab_size=7,
            n_positions=N_POSITIONS,
            n_embd=N_EMBD,
            n_layer=N_LAYER,
            n_head=N_HEAD,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            attn_implementation="eager",
        )
        self._read_in = nn.Linear(D_IN, N_EMBD)
        self._backbone = GPT2Model(config)
        self._read_out = nn.Linear(N_EMBD, D_OUT)

    def forward(self, x):
        return self._read_out(self._backbone(inputs_embeds=self._read_in(x)).last_hidden_state)


def activations(model, x):
    """The output of every module, by its name; of tuples the first."""
    kept = {}

    def keep(name):
        def hook(_module, _input, output):
            output = getattr(output, "last_hidden_state", output)
            if name.endswith(".attn"):
                kept[f"{name}.attn_dropout"] = output[1]  # called as a function in this version of transformers
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, torch.Tensor):
                kept[name] = output
        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        output = model(x)
    for handle in handles:
        handle.remove()
    return output, kept


def train(model, inputs, targets):
    """AdamW on the mean squared error at every position; decay on matrices only, clipped gradients."""
    trained = {name: p for name, p in model.named_parameters() if "wte" not in name}
    groups = [
        {"params": [p for p in trained.values() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in trained.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-8)
    kept = {}
    losses = []
    for step in range(len(inputs)):
        optimizer.zero_grad()
        loss = ((model(inputs[step])[..., 0] - targets[step]) ** 2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        if step in (0, len(inputs) - 1):
            kept |= {f"step{step + 1}/{name}": p.detach().clone() for name, p in trained.items()}
    return kept | {"losses": torch.stack(losses)}


def gpt2():
    directory = fixture_dir("icl-gpt2")
    generator = torch.Generator().manual_seed(seed_of("icl-gpt2"))
    model = TransformerModel().eval()
    randomise(model.named_parameters(), seed_of("icl-gpt2"))
    torch.save(model.state_dict(), directory / "model.pth")
    x = torch.randn(2, N_POSITIONS, D_IN, generator=generator)
    inputs = torch.randn(10, 4, N_POSITIONS, D_IN, generator=generator).double()
    targets = inputs.sum(-1) + 0.1 * torch.randn(10, 4, N_POSITIONS, generator=generator).double()
    golden = {"x": x, "inputs": inputs, "targets": targets}
    golden["output"], kept = activations(model, x)
    golden |= {f"module/{name}": value for name, value in kept.items()}
    with float32_means_float64():
        model = model.double()
        golden["output64"], _ = activations(model, x.double())
        golden |= train(model, inputs, targets)
    write_tensors(directory / "golden.safetensors", golden)
    write_manifest(directory, "in_context.py", ["torch", "transformers"])


def clusters():
    directory = fixture_dir("icl-clusters")
    tensors, facts = {}, {"kmeans": [], "silhouette": []}
    for k, dims, seed in [(2, 4, 0), (3, 5, 1), (5, 8, 2)]:
        rows, _ = make_blobs(n_samples=40, n_features=dims, centers=k, cluster_std=0.6, random_state=seed)
        fitted = KMeans(n_clusters=k, random_state=0, n_init=10).fit(rows)
        tensors[f"rows{k}"] = torch.tensor(rows)
        tensors[f"centers{k}"] = torch.tensor(fitted.cluster_centers_)
        facts["kmeans"].append({"k": k, "labels": fitted.labels_.tolist(), "inertia": fitted.inertia_})
        for clusters in range(2, 10):
            labels = KMeans(n_clusters=clusters, random_state=0, n_init=10).fit(rows).labels_
            facts["silhouette"].append({
                "rows": f"rows{k}",
                "labels": labels.tolist(),
                "score": silhouette_score(rows, labels),
                "first": silhouette_samples(rows, labels)[:5].tolist(),
            })
    generator = np.random.default_rng(3)
    for name, classes in [("two", 2), ("three", 3)]:
        x = generator.normal(size=(50, 4))
        y = np.argmax(x @ generator.normal(size=(4, classes)) + 0.5 * generator.normal(size=(50, classes)), axis=1)
        svc = LinearSVC(dual=False, tol=1e-12, max_iter=100000).fit(x, y)
        tensors |= {f"svc/{name}/x": torch.tensor(x), f"svc/{name}/coef": torch.tensor(svc.coef_)}
        tensors[f"svc/{name}/y"] = torch.tensor(y)
        tensors[f"svc/{name}/intercept"] = torch.tensor(svc.intercept_)
        facts[f"svc/{name}/accuracy"] = svc.score(x, y)
    x = generator.normal(size=(12, 4))
    y = x @ generator.normal(size=4) + 0.3 * generator.normal(size=12)
    labels = (y > 0).astype(int)
    tensors |= {"linear/x": torch.tensor(x), "linear/y": torch.tensor(y), "linear/labels": torch.tensor(labels)}
    for alpha in (0.1, 0.8):
        tensors[f"linear/ridge{alpha}"] = torch.tensor(Ridge(alpha=alpha, fit_intercept=False).fit(x, y).coef_)
    for count in (2, 12):
        fitted = LinearRegression(fit_intercept=False).fit(x[:count], y[:count])
        tensors[f"linear/least_squares{count}"] = torch.tensor(fitted.coef_)
    logistic = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10000).fit(x, labels)
    tensors["linear/logistic"] = torch.tensor(logistic.coef_[0])
    write_tensors(directory / "golden.safetensors", tensors)
    write_json(directory / "golden.json", facts)
    write_manifest(directory, "in_context.py", ["numpy", "scikit-learn"])


if __name__ == "__main__":
    gpt2()
    clusters()
