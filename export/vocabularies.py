"""Names to text embeddings: synonyms, the 14 templates, and a run that can be interrupted and goes on."""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from export.labels import Float32Array
from export.parity import Runner
from export.repository import read_manifest, write_manifest

_CHUNK = 32
_TIMED_RUNS = 21
_BLOCK = 512  # rows that OpenBLAS multiplies by two columns without copying them first
_BETWEEN_SYNONYMS = re.compile(r"(?:_or_|/|,)(?![^()]*\))")
# float16 halves the file; rounding moves a logit (100 x cosine) by less than 0.01, a tenth of what uint8 maps may cost.
_STORED = np.float16
Vocabulary = dict[str, Any]


def split_synonyms(name: str) -> list[str]:
    """A name as data sets write it ("tv_monitor_or_screen", "Fire/Hydrant") -> its synonyms.

    Nothing is split in parentheses, where "tape_(sticky_cloth_or_paper)" explains one name.
    """
    parts = _BETWEEN_SYNONYMS.split(name)
    return [part for part in (part.replace("_", " ").lower().strip() for part in parts) if part]


def read_names(path: Path, *, name: str) -> Vocabulary:
    """A vocabulary from its JSON file, a JSON list (of names or of synonym lists) or a text file of one name a line."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
    if isinstance(content, dict):
        return content | {"name": name}
    classes = [split_synonyms(entry) if isinstance(entry, str) else list(entry) for entry in content]
    return {"name": name, "title": name, "licence": "", "source": path.name, "classes": classes}


class TextEmbedder:
    """The text encoder of a repository with its tokenizer and templates."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        folder = repository / "text_encoder"
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._run = Runner(folder / "1" / "model.onnx")
        manifest = read_manifest(repository)
        self.templates: list[str] = manifest["text"]["templates"]
        self.model_digests = [
            digest for path, digest in manifest["files"].items() if path.startswith("text_encoder/1/")
        ]

    def texts(self, texts: Sequence[str]) -> Float32Array:
        """Texts -> unit embeddings [M,D]."""
        ids = np.array([encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))], np.int64)
        embeddings: Float32Array = self._run({"token_ids": ids})["text_embedding"].astype(np.float32)
        return embeddings

    def names(self, names: Sequence[str]) -> Float32Array:
        """Names -> the unit mean over the templates of each name's unit embeddings, [M,D]."""
        total = sum(self.texts([template.replace("{}", name) for name in names]) for template in self.templates)
        means = np.asarray(total, np.float32)
        unit: Float32Array = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit


def add_vocabulary(embed: TextEmbedder, vocabulary: Vocabulary) -> Path:
    """Embed a vocabulary into the repository of `embed` and bring its manifest up to date; returns the file.

    Finished rows are kept on disk as they come, so the same command goes on after an interruption.
    """
    folder = embed.repository / "text_encoder" / "vocabularies"
    folder.mkdir(exist_ok=True)
    classes: list[list[str]] = vocabulary["classes"]
    words = [word for synonyms in classes for word in synonyms]
    unique = sorted(dict.fromkeys(words), key=len)
    rows = _embed_resumably(embed, unique, folder=folder, name=vocabulary["name"])
    place = {word: index for index, word in enumerate(unique)}
    target = folder / f"{vocabulary['name']}.npz"
    partial = folder / f".{vocabulary['name']}.npz"
    owners = np.repeat(np.arange(len(classes), dtype=np.int32), [len(synonyms) for synonyms in classes])
    np.savez(partial, embeddings=rows[[place[word] for word in words]], classes=owners)
    partial.replace(target)
    target.with_suffix(".json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    write_manifest(embed.repository, read_manifest(embed.repository))
    for leftover in folder.glob(f".{vocabulary['name']}.*.npy"):
        leftover.unlink()
    return target


def _embed_resumably(embed: TextEmbedder, words: Sequence[str], *, folder: Path, name: str) -> NDArray[np.float16]:
    """Words, short ones first so that like lengths share a call, -> [M,D]; a row of zeros is one still to do."""
    content = json.dumps([embed.templates, embed.model_digests, words])
    path = folder / f".{name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"
    if path.exists():
        rows = np.lib.format.open_memmap(path, mode="r+")
    else:
        width = embed.texts(["a"]).shape[1]
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=_STORED, shape=(len(words), width))
    with tqdm(total=len(words), unit="name", desc=name) as bar:
        for chunk in _chunks(len(words)):
            if not rows[chunk].any(axis=1).all():
                rows[chunk] = embed.names(words[chunk])
                rows.flush()
            bar.update(len(words[chunk]))
    return np.array(rows)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def ranking_milliseconds(path: Path) -> float:
    """Least time to rank all classes of a vocabulary for one prompt with two embeddings, read once by one thread."""
    with np.load(path) as arrays:
        embeddings, owners = arrays["embeddings"].astype(np.float32), arrays["classes"]
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    regions = np.random.default_rng(0).standard_normal((embeddings.shape[1], 2), dtype=np.float32)
    blocks = [embeddings[start : start + _BLOCK] for start in range(0, len(embeddings), _BLOCK)]
    times = []
    for _ in range(_TIMED_RUNS):
        started = time.perf_counter()
        best = np.maximum.reduceat(np.concatenate([block @ regions for block in blocks]), starts, axis=0)
        best -= best.max(0)
        (best - np.log(np.exp(best).sum(0))).sum(1).argmax()
        times.append(time.perf_counter() - started)
    return min(times) * 1e3
