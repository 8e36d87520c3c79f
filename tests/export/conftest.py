"""Repositories that several tests read; a test that writes takes a copy."""

import shutil
from pathlib import Path

import pytest

from tests.export.repositories import exported
from tests.export.tiny_network import tiny_network


@pytest.fixture(scope="session")
def tiny_repository() -> Path:
    """The tiny network's repository; read only."""
    return exported("tiny", tiny_network)


@pytest.fixture
def own_repository(tiny_repository: Path, tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(tiny_repository, tmp_path / "repository"))
