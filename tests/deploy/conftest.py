"""The marker of the one slow step here."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "image: runs the Dockerfile's steps, a whole pip install among them")
