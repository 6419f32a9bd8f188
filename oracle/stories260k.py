"""Greedy continuations of a Llama checkpoint by transformers: `python oracle/stories260k.py MODEL_FOLDER`."""

import sys

from common import fixture_dir, write_json, write_manifest

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ["Once upon a time", "Lily and Tom went to the park.", ""]
N_NEW_TOKENS = 100


@torch.no_grad()
def continuation(model, tokenizer, prompt: str) -> dict:
    """Prompts get the tokenizer's own BOS; generation goes on past any end-of-text token."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"].long()
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=N_NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    best, second = model(output).logits[0, ids.shape[1] - 1 : -1].topk(2).values.unbind(-1)
    margin = (best - second).min().item()
    assert margin > 1e-3, f"the choice hangs on rounding: {margin}"
    return {
        "prompt": prompt,
        "prompt_ids": ids[0].tolist(),
        "new_ids": output[0, ids.shape[1] :].tolist(),
        "text": tokenizer.decode(output[0], skip_special_tokens=True),
        "smallest_logit_margin": round(margin, 4),
    }


def main(folder: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    directory = fixture_dir("stories260k")
    write_json(directory / "greedy.json", [continuation(model, tokenizer, prompt) for prompt in PROMPTS])
    write_manifest(directory, "stories260k.py MODEL_FOLDER", ["torch", "transformers", "tokenizers"])


if __name__ == "__main__":
    main(sys.argv[1])
