"""The peer's side of `cargo xtask bench-peers`: Hugging Face transformers or TransformerLens.

    python benches/peers/peer_server.py hf|tl CHECKPOINT

On standard input `time WORK BATCH POS` answers with milliseconds and a checksum of the result, `peak`
with the most memory that the process ever held, in KiB. Our side is `benches/src/bin/bench_peer.rs`.
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM, DynamicCache

NEW = 128


def ids(d_vocab, batch, pos):
    return torch.arange(batch * pos).reshape(batch, pos) * 7919 % d_vocab


def last_row(logits):
    return logits[-1, -1].float().abs().mean().item()


class HuggingFace:
    """Fused attention (SDPA)."""

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        self.model.eval()
        self.d_vocab = self.model.config.vocab_size

    @torch.no_grad()
    def time(self, work, tokens):
        start = time.perf_counter()
        if work == "logits":
            logits = self.model(tokens, use_cache=False).logits
            return time.perf_counter() - start, last_row(logits)
        if work == "last":
            logits = self.model(tokens, use_cache=False, logits_to_keep=1).logits
            return time.perf_counter() - start, last_row(logits)
        if work == "loss":
            loss = self.model(tokens, labels=tokens, use_cache=False).loss
            return time.perf_counter() - start, loss.item()
        if work == "generate":
            out = self.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
            )
            return time.perf_counter() - start, float(out[:, tokens.shape[1]].sum())
        if work == "decode":
            past = DynamicCache(config=self.model.config)
            self.model(tokens, past_key_values=past, use_cache=True, logits_to_keep=1)
            start = time.perf_counter()
            logits = self.model(tokens[:, :1], past_key_values=past, use_cache=True).logits
            return time.perf_counter() - start, last_row(logits)
        raise ValueError(work)


class TransformerLens:
    """The same weights, unprocessed."""

    def __init__(self, folder):
        from transformer_lens import HookedTransformer, HookedTransformerConfig
        from transformer_lens.pretrained import weight_conversions

        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        c = hf.config
        gpt2 = c.model_type == "gpt2"
        shape = dict(
            n_layers=c.num_hidden_layers,
            d_model=c.hidden_size,
            n_heads=c.num_attention_heads,
            d_head=c.hidden_size // c.num_attention_heads,
            d_mlp=4 * c.hidden_size if gpt2 else c.intermediate_size,
            d_vocab=c.vocab_size,
            n_ctx=c.max_position_embeddings,
            default_prepend_bos=False,
            device="cpu",
        )
        if gpt2:
            self.config = HookedTransformerConfig(
                act_fn="gelu_new", normalization_type="LN", eps=c.layer_norm_epsilon, original_architecture="GPT2LMHeadModel", **shape
            )
            state = weight_conversions.convert_gpt2_weights(hf, self.config)
        else:
            self.config = HookedTransformerConfig(
                act_fn="silu",
                normalization_type="RMS",
                eps=c.rms_norm_eps,
                positional_embedding_type="rotary",
                rotary_dim=shape["d_head"],
                rotary_adjacent_pairs=False,
                gated_mlp=True,
                final_rms=True,
                n_key_value_heads=c.num_key_value_heads,
                original_architecture="LlamaForCausalLM",
                **shape,
            )
            state = weight_conversions.convert_llama_weights(hf, self.config)
        self.model = HookedTransformer(self.config)
        state = self.model.fill_missing_keys(state)
        self.model.load_state_dict(state, strict=False)
        self.model.eval()
        self.d_vocab = c.vocab_size

    def time(self, work, tokens):
        start = time.perf_counter()
        if work == "backward":
            grads = {}
            hooks = [(lambda name: True, lambda grad, hook: grads.__setitem__(hook.name, grad.detach()))]
            for parameter in self.model.parameters():
                parameter.requires_grad_(False)
            self.model.embed.W_E.requires_grad_(True)
            cache = {}
            keep = [(lambda name: True, lambda x, hook: cache.__setitem__(hook.name, x.detach()))]
            with self.model.hooks(fwd_hooks=keep, bwd_hooks=hooks):
                loss = self.model(tokens, return_type="loss")
                loss.backward()
            elapsed = time.perf_counter() - start
            self.model.embed.W_E.grad = None
            return elapsed, loss.item()
        with torch.no_grad():
            if work == "logits":
                logits = self.model(tokens)
            elif work == "cache":
                logits, _ = self.model.run_with_cache(tokens)
            elif work == "cache-resid":
                logits, _ = self.model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_resid_post"))
            elif work == "loss":
                loss = self.model(tokens, return_type="loss")
                return time.perf_counter() - start, loss.item()
            else:
                raise ValueError(work)
            return time.perf_counter() - start, last_row(logits)


def peak():
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("VmHWM:"))


def main():
    torch.set_num_threads(int(sys.argv[3]))
    start = time.perf_counter()
    peer = {"hf": HuggingFace, "tl": TransformerLens}[sys.argv[1]](sys.argv[2])
    print(f"ready {1e3 * (time.perf_counter() - start):.3f}", flush=True)
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "peak":
            print(peak(), flush=True)
            continue
        work, batch, pos = rest[0], int(rest[1]), int(rest[2])
        seconds, checksum = peer.time(work, ids(peer.d_vocab, batch, pos))
        print(f"{1e3 * seconds:.3f} {checksum:e}", flush=True)


if __name__ == "__main__":
    main()
