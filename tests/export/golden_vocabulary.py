"""The recorded classifier of the golden data as a vocabulary `golden` of an exported repository."""

import json
from pathlib import Path

import numpy as np

from tests.export.standin import GOLDEN


def with_golden_vocabulary(made: Path, folder: Path) -> Path:
    """Fill the empty `folder` with links to the repository `made`, and with the vocabulary as files of its own."""
    for path in made.iterdir():
        if path.name != "text_encoder":
            (folder / path.name).symlink_to(path)
    vocabularies = folder / "text_encoder" / "vocabularies"
    vocabularies.mkdir(parents=True)
    for path in (made / "text_encoder").iterdir():
        if path.name != "vocabularies":
            (folder / "text_encoder" / path.name).symlink_to(path)
    for path in (made / "text_encoder" / "vocabularies").iterdir():
        (vocabularies / path.name).symlink_to(path)
    golden = json.loads((GOLDEN / "image1.json").read_text())
    classifier = np.load(GOLDEN / "classifier.npy")
    document = {
        "name": "golden",
        "classes": [[f"{index}"] * classifier.shape[1] for index in range(len(classifier))],
        "base": golden["base_classes"],
        "novel": golden["novel_classes"],
    }
    (vocabularies / "golden.json").write_text(json.dumps(document))
    np.savez(vocabularies / "golden.npz", embeddings=classifier.reshape(-1, classifier.shape[-1]))
    return folder
