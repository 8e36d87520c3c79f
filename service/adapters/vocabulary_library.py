"""The vocabularies that a model repository ships, and text embeddings kept on disk between starts."""

import json
import logging
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from service.core.types import Float32Array, Vocabulary

_log = logging.getLogger(__name__)


class FolderLibrary:
    """`text_encoder/vocabularies/*.json`, ready-made `.npz` beside them, and computed embeddings in `cache`."""

    def __init__(self, repository: Path, *, cache: Path) -> None:
        self._folder = repository / "text_encoder" / "vocabularies"
        self._cache = cache / "text_embeddings"

    def names(self) -> Sequence[str]:
        """The shipped vocabularies, small ones first."""
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_size)
        return tuple(path.stem for path in files)

    def load(self, name: str) -> Vocabulary | None:
        """A shipped vocabulary; None when there is none of this name."""
        if name not in self._names:
            return None
        fields = json.loads((self._folder / f"{name}.json").read_text())
        return Vocabulary(
            name=name,
            classes=tuple(tuple(synonyms) for synonyms in fields["classes"]),
            base=frozenset(fields.get("base", ())),
            novel=frozenset(fields.get("novel", ())),
            title=fields.get("title", ""),
            licence=fields.get("licence", ""),
            source=fields.get("source", ""),
        )

    def embeddings(self, name: str, digest: str) -> Float32Array | None:
        """Embeddings shipped for `name`, or computed before under `digest`; a damaged file counts as none."""
        shipped = self._folder / f"{name}.npz"
        try:
            if name in self._names and shipped.exists():
                with np.load(shipped) as arrays:
                    return np.asarray(arrays["embeddings"], dtype=np.float32)
            return np.asarray(np.load(self._cache / f"{digest}.npy"), dtype=np.float32)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            _log.warning("text embeddings of %s are unreadable and will be made again: %s", name, error)
            return None

    def keep(self, digest: str, embeddings: Float32Array) -> None:
        """Keep embeddings as float16, moved into place whole; a disk that cannot be written costs only time later."""
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._cache, delete=False) as file:
                np.save(file, embeddings.astype(np.float16))
            Path(file.name).replace(self._cache / f"{digest}.npy")
        except OSError as error:
            _log.warning("text embeddings cannot be kept in %s: %s", self._cache, error)
