"""Small tokenizers of three kinds, with the ids and strings TransformerLens makes of some texts."""

import json

from common import fixture_dir, write_json, write_manifest

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import AutoTokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "When Mary and John went to the store, John gave a drink to Mary.",
    "The dog and the fox went over to the store.",
    "It's 2024, and they've 100 quick foxes; we'll see them!",
    "Éric mangea du pâté à Noël, l'été dernier.",
    "    indented = [x for x in range(10)]\n\treturn indented\n\n",
]
TEXTS = [
    "The quick brown fox",
    "When John and Mary went to the store, Mary gave",
    "",
    " ",
    "  two leading spaces",
    "trailing space ",
    "line one\nline two\n\n\tend",
    "It's they've WE'LL 2024",
    "café à Noël",
    "cafe\u0301",
    "emoji 🦊🙂 and 漢字",
    "👩‍👩‍👧",
    "special <|endoftext|> inside",
    "special <s> inside",
    "unknown §‽ words",
    "a\r\nb\u00a0c",
]
BATCH = ["The dog", "The quick brown fox jumps over", ""]
PACKAGES = ["tokenizers", "transformers", "transformer-lens"]


def train(tokenizer: Tokenizer, trainer) -> Tokenizer:
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return tokenizer


def byte_level() -> tuple[Tokenizer, dict]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    end = "<|endoftext|>"
    return train(tokenizer, trainer), dict(bos_token=end, eos_token=end, unk_token=end)


def metaspace_with_byte_fallback() -> tuple[Tokenizer, dict]:
    specials = ["<unk>", "<s>", "</s>"]
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    train(learner, trainers.BpeTrainer(vocab_size=100, special_tokens=specials, show_progress=False))
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    pieces = specials + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += [
        piece for piece, _ in sorted(learner.get_vocab().items(), key=lambda item: item[1]) if piece not in specials
    ]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in specials])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", vocab["<s>"])]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer, dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_level() -> tuple[Tokenizer, dict]:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]", "[BOS]", "[EOS]", "[PAD]"], show_progress=False)
    names = dict(bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]", pad_token="[PAD]")
    return train(tokenizer, trainer), names


KINDS = {
    "tokenizer-byte-level": byte_level,
    "tokenizer-byte-fallback": metaspace_with_byte_fallback,
    "tokenizer-word-level": word_level,
}


def lens_with(directory, vocab_size: int) -> HookedTransformer:
    config = HookedTransformerConfig(
        n_layers=1,
        d_model=4,
        d_head=4,
        n_heads=1,
        n_ctx=128,
        attn_only=True,
        d_vocab=vocab_size,
        device="cpu",
        init_weights=False,
    )
    model = HookedTransformer(config)
    model.set_tokenizer(AutoTokenizer.from_pretrained(directory))
    return model


def byte_table() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


def bytes_of(name: str, piece: str, special: bool) -> list[int]:
    if special:
        return list(piece.encode())
    if name == "tokenizer-byte-level":
        return [byte_table()[character] for character in piece]
    if piece.startswith("<0x") and piece.endswith(">"):
        return [int(piece[3:-1], 16)]
    return list(piece.replace("▁", " ").encode())


def case_of(name: str, model: HookedTransformer, text: str) -> dict:
    case = {"text": text}
    specials = set(model.tokenizer.all_special_ids)
    for key, prepend in (("without_bos", False), ("with_bos", True)):
        ids = model.to_tokens(text, prepend_bos=prepend)[0].long()
        entry = {"ids": ids.tolist()}
        if len(ids) > 0:
            pieces = model.tokenizer.convert_ids_to_tokens(ids.tolist())
            entry["string"] = model.to_string(ids)
            entry["str_tokens"] = model.to_str_tokens(ids)
            if "emoji" in text:
                entry["prefix_strings"] = [model.to_string(ids[: end + 1]) for end in range(len(ids))]
            entry["token_bytes"] = [
                bytes_of(name, piece, int(i) in specials) for piece, i in zip(pieces, ids, strict=True)
            ]
        case[key] = entry
    return case


def make(name: str) -> None:
    tokenizer, special_names = KINDS[name]()
    directory = fixture_dir(name)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128} | special_names,
    )
    model = lens_with(directory, tokenizer.get_vocab_size())
    batches = [
        {
            "prepend_bos": prepend,
            "padding_side": side,
            "ids": model.to_tokens(BATCH, prepend_bos=prepend, padding_side=side).tolist(),
        }
        for prepend in (False, True)
        for side in ("left", "right")
    ]
    cases = {
        "special_ids": {
            key.removesuffix("_token"): model.tokenizer.convert_tokens_to_ids(value)
            for key, value in special_names.items()
        },
        "pad_id": model.tokenizer.pad_token_id,
        "tokenizer_prepends_bos": model.cfg.tokenizer_prepends_bos,
        "cases": [case_of(name, model, text) for text in TEXTS],
        "batch": {"texts": BATCH, "padded": batches},
    }
    write_json(directory / "cases.json", cases)
    write_manifest(directory, "tokenizers_cases.py", PACKAGES)
    print(f"{name}: {tokenizer.get_vocab_size()} tokens, {len(TEXTS)} texts")


if __name__ == "__main__":
    for name in KINDS:
        make(name)
