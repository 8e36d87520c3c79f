"""DNS rebinding against the running service, whose names come from a real name server through the system's resolver."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.end_to_end.gateway import ROOT
from tests.end_to_end.rebinding import INSIDE, PUBLIC

Turns = dict[str, dict[str, Any]]
_UNSHARE = ("unshare", "--map-root-user", "--mount", "--net")


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Turns:
    """What became of each fetch."""
    allowed = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"this system gives no network of one's own: {allowed.stderr.strip()}")
    command = [*_UNSHARE, sys.executable, "-m", "tests.end_to_end.rebinding", str(tmp_path_factory.mktemp("rebinding"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found: Turns = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_careless_caller_is_led_inside(turns: Turns) -> None:
    """So the name server does rebind, and there is something inside to be reached."""
    seen = {"names": [PUBLIC, INSIDE], "public": [], "inside": ["/picture"]}
    assert turns["careless"] == {"status": 200, **seen}


def test_a_name_is_asked_for_once_and_the_judged_address_is_called(turns: Turns) -> None:
    seen = {"names": [PUBLIC], "public": ["/picture"], "inside": []}
    assert turns["rebound between judging and calling"] == {"status": 201, **seen}


def test_a_name_that_was_public_before_is_judged_anew(turns: Turns) -> None:
    seen = {"names": [INSIDE], "public": [], "inside": []}
    assert turns["rebound between two fetches"] == {"status": 403, **seen}


def test_a_redirects_target_is_judged_anew(turns: Turns) -> None:
    seen = {"names": [PUBLIC, INSIDE], "public": ["/moved"], "inside": []}
    assert turns["rebound between a redirect and its target"] == {"status": 403, **seen}


def test_a_name_that_stays_public_is_fetched_from(turns: Turns) -> None:
    seen = {"names": [PUBLIC], "public": ["/picture"], "inside": []}
    assert turns["bound well"] == {"status": 201, **seen}
