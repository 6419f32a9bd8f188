"""Makes the random checkpoints of `cargo xtask bench-peers`: Hugging Face folders of known shapes.

    python benches/peers/make_checkpoints.py OUT [SHAPE ...]

Weights are normal with a standard deviation of 0.02, from a seed. No tokenizer is needed.
"""

import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

SHAPES = {
    "gpt2-small": (GPT2LMHeadModel, GPT2Config()),
    "llama-160m": (
        LlamaForCausalLM,
        LlamaConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            num_key_value_heads=4,
            vocab_size=32000,
            max_position_embeddings=2048,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
        ),
    ),
}


def main():
    out = Path(sys.argv[1])
    for name in sys.argv[2:] or SHAPES:
        folder = out / name
        if (folder / "model.safetensors").exists():
            continue
        make, config = SHAPES[name]
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        make(config).save_pretrained(folder)


if __name__ == "__main__":
    main()
