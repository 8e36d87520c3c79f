"""Exported repositories for tests, kept in build/ under a digest of the code that made them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from export.network.ovsam import OpenVocabularySam
from export.publish import Precision, publish
from tests.export.standin import ROOT

_SOURCES = (
    "export/network/*.py",
    "export/variants.py",
    "export/graphs.py",
    "export/onnx_export.py",
    "export/publish.py",
    "export/repository.py",
    "export/tokenizer.py",
    "tests/export/tiny_network.py",
)
VOCABULARIES = Path(__file__).with_name("vocabularies")


def exported(name: str, network: Callable[[], OpenVocabularySam], *, precision: Precision = "float32") -> Path:
    """The repository of `network`, exported unless this code has exported it before."""
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    target = ROOT / "build" / "test-repositories" / f"{name}-{precision}-{digest.hexdigest()[:12]}"
    if not (target / "manifest.json").exists():
        publish(network(), target, precision=precision, vocabularies=VOCABULARIES, default_vocabulary="few")
    return target
