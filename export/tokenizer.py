"""CLIP's byte-pair tokenizer as a `tokenizers` file, so that the service needs no code of CLIP's.

`clip_merges.txt.xz` holds the 48,894 merges CLIP uses of its published list (OpenAI CLIP, MIT licence; taken from
open_clip_torch, MIT licence). CLIP also repairs broken Unicode and HTML entities before this step; names given here are
expected to be clean.
"""

import lzma
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from export.variants import TextSizes

_MERGES = Path(__file__).with_name("clip_merges.txt.xz")
_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PRINTABLE = (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))


def build_tokenizer(sizes: TextSizes) -> Tokenizer:
    """Texts to ids between 49406 and 49407, cut to the context with 49407 last, padded with 0 to the longest text."""
    with lzma.open(_MERGES, "rt", encoding="utf-8") as lines:
        merges = [(a, b) for a, b in (line.split() for line in lines)]
    letters = _byte_letters()
    words = [*letters, *(letter + _WORD_END for letter in letters), *(a + b for a, b in merges), _START, _END]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(
        models.BPE(ids, merges, unk_token=_END, continuing_subword_prefix="", end_of_word_suffix=_WORD_END)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(_START, ids[_START]), (_END, ids[_END])]
    )
    tokenizer.enable_truncation(sizes.context)
    # Causal attention makes the length of the padding irrelevant, so a call pays for its longest text only.
    tokenizer.enable_padding(pad_id=0, pad_token=words[0])
    return tokenizer


def _byte_letters() -> list[str]:
    """One visible letter for each byte, in the order of CLIP's ids: printable bytes first."""
    hidden = [byte for byte in range(256) if byte not in _PRINTABLE]
    return [chr(byte) for byte in _PRINTABLE] + [chr(256 + index) for index in range(len(hidden))]
