"""The tokenizer file beside the text encoder, as a function from texts to token ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Encoder

from service.adapters.manifest import InvalidRepository


class Tokenizer:
    """Texts -> int64 [M, T]; truncation and padding are the file's own."""

    def __init__(self, folder: Path) -> None:
        path = folder / "text_encoder" / "tokenizer.json"
        try:
            self._encoder = Encoder.from_file(str(path))
        except Exception as error:
            raise InvalidRepository(f"{path} cannot be read: {error}") from error

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Token ids of M texts."""
        return np.array([encoding.ids for encoding in self._encoder.encode_batch(list(texts))], dtype=np.int64)
