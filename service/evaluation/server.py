"""An own server process for a model repository, so that a folder can be asked like a service."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAGE = re.compile(r"page\s+(http://\S+)/")
_KEPT = frozenset({"OVSAM_CACHE_DIR", "OVSAM_THREADS"})  # other settings may name ports and engines that are in use
_SECONDS = 600.0  # the largest model loads in a minute on a slow disk


class NoServer(Exception):
    """A folder that cannot be served."""


def check_target(target: str) -> None:
    """Raise NoServer for what is neither a URL nor a model repository, before any time is spent on it."""
    if not _is_url(target) and not (Path(target) / "manifest.json").is_file():
        raise NoServer(f"{target} is neither a URL nor a model repository")


@contextmanager
def served(target: str) -> Iterator[str]:
    """The URL of a service: the target's own, or that of a server started on the model repository it names."""
    if _is_url(target):
        yield target
        return
    variables = {key: value for key, value in os.environ.items() if not key.startswith("OVSAM_") or key in _KEPT}
    variables["OVSAM_REQUEST_SECONDS"] = "600"
    command = [sys.executable, "-m", "service", "--model-repository", target, "serve", "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603 - ourselves
        try:
            yield _await_page(process, log)
        finally:
            process.terminate()
            process.wait()


def _is_url(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def _await_page(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """The address that the server prints when its model has answered a probe."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        found = _PAGE.search(log.read_text())
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise NoServer(f"the server did not start:\n{log.read_text()}")
