"""The key file: whom a key stands for, until when, and what becomes of a file that changes or is wrong."""

import hashlib
import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.adapters.keys import InvalidKeys, KeyFile, OpenDoor, line_of, new_key, read_keys, sha256_of
from service.core.access import Caller, Rate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def write(path: Path, *lines: str) -> None:
    """Put a file into its place whole, as a mounted Secret changes."""
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(lines))
    fresh.replace(path)


def test_without_a_file_everybody_is_the_public_tenant() -> None:
    assert OpenDoor().find(None) == OpenDoor().find("anything") == Caller("public")


def test_a_key_stands_for_its_tenant_and_several_may_stand_for_one(path: Path) -> None:
    old, new, other = new_key(), new_key(), new_key()
    write(
        path, "# keys of acme", line_of(old, tenant="acme"), "", line_of(new, tenant="acme"), line_of(other, tenant="b")
    )
    keys = KeyFile(path)
    found = [keys.find(key) for key in (old, new, other)]
    assert [caller.tenant for caller in found if caller] == ["acme", "acme", "b"]
    assert len({caller.key for caller in found if caller}) == 3


@pytest.mark.parametrize("key", [None, "", " ", "ovsam_", "é", "a" * 100_000])
def test_anything_else_stands_for_nobody(path: Path, key: str | None) -> None:
    known = new_key()
    write(path, line_of(known, tenant="acme"))
    keys = KeyFile(path)
    assert keys.find(key) is None
    assert keys.find(known[:-1]) is None
    assert keys.find(sha256_of(known)) is None


def test_an_empty_file_lets_nobody_in(path: Path) -> None:
    write(path)
    assert KeyFile(path).find(new_key()) is None
    assert KeyFile(path).find(None) is None


def test_the_file_and_what_is_told_of_a_caller_do_not_hold_the_key(path: Path) -> None:
    key = new_key()
    write(path, line_of(key, tenant="acme"))
    caller = KeyFile(path).find(key)
    assert key not in path.read_text()
    assert caller is not None
    assert caller.key == hashlib.sha256(key.encode()).hexdigest()[:12]


def test_a_key_ends_at_its_time(path: Path) -> None:
    key, now = new_key(), [1_000_000_000.0]
    write(path, line_of(key, tenant="acme", expires=datetime.fromtimestamp(now[0] + 60, UTC)))
    keys = KeyFile(path, clock=lambda: now[0])
    assert keys.find(key)
    now[0] += 60
    assert keys.find(key) is None


def test_a_key_may_have_a_rate_of_its_own(path: Path) -> None:
    plain, fast = new_key(), new_key()
    write(path, line_of(plain, tenant="a"), line_of(fast, tenant="a", rate=2.5, burst=10))
    keys = KeyFile(path)
    assert (keys.find(plain) or Caller("")).rate is None
    assert (keys.find(fast) or Caller("")).rate == Rate(2.5, 10)
    write(path, json.dumps({"tenant": "a", "sha256": sha256_of(fast), "rate": 7}))
    assert (KeyFile(path).find(fast) or Caller("")).rate == Rate(7.0, 7)


def test_keys_are_rotated_without_a_restart(path: Path) -> None:
    old, new = new_key(), new_key()
    write(path, line_of(old, tenant="acme"))
    keys = KeyFile(path, fresh_seconds=0)
    write(path, line_of(old, tenant="acme"), line_of(new, tenant="acme"))
    assert keys.find(old)
    assert keys.find(new)
    write(path, line_of(new, tenant="acme"))
    assert keys.find(old) is None
    assert keys.find(new)


def test_a_secret_that_kubernetes_swaps_by_a_link_is_read_again(tmp_path: Path) -> None:
    keys: list[str] = []
    for name in ("first", "second"):
        keys.append(new_key())
        (tmp_path / name).mkdir()
        write(tmp_path / name / "keys", line_of(keys[-1], tenant="acme"))
        os.utime(tmp_path / name / "keys", (0, 0))
    link = tmp_path / "data"
    link.symlink_to("first")
    ring = KeyFile(link / "keys", fresh_seconds=0)
    assert ring.find(keys[0])
    (tmp_path / "swap").symlink_to("second")
    (tmp_path / "swap").replace(link)
    assert [bool(ring.find(key)) for key in keys] == [False, True]


def test_a_bad_file_leaves_the_old_keys_in_force_and_is_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    write(path, line_of(key, tenant="acme"))
    keys = KeyFile(path, fresh_seconds=0)
    write(path, line_of(key, tenant="acme"), '{"tenant": "ACME", "sha256": "ovsam_secret"}')
    with caplog.at_level(logging.INFO):
        assert keys.find(key)
        assert keys.find(key)
    (record,) = caplog.records
    assert "line 2" in record.getMessage()
    assert "ovsam_secret" not in caplog.text
    path.unlink()
    assert keys.find(key), "nor does a file that is gone lock everybody out"
    write(path, line_of(new_key(), tenant="acme"))
    assert keys.find(key) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "needs tenant and sha256"),
        ('{"tenant": "a"}', "needs tenant and sha256"),
        ('{"tenant": "a", "sha256": "HASH", "rat": 1}', "may have"),
        ('{"tenant": "A b", "sha256": "HASH"}', "a tenant is"),
        ('{"tenant": "a:b", "sha256": "HASH"}', "a tenant is"),
        ('{"tenant": "{a}", "sha256": "HASH"}', "a tenant is"),
        ('{"tenant": "a/b", "sha256": "HASH"}', "a tenant is"),
        ('{"tenant": "", "sha256": "HASH"}', "a tenant is"),
        ('{"tenant": 1, "sha256": "HASH"}', "a tenant is"),
        ('{"tenant": "a", "sha256": "secret"}', "64 hex digits"),
        ('{"tenant": "a", "sha256": "HASH", "rate": 0}', "rate is"),
        ('{"tenant": "a", "sha256": "HASH", "rate": true}', "rate is"),
        ('{"tenant": "a", "sha256": "HASH", "rate": NaN}', "rate is"),
        ('{"tenant": "a", "sha256": "HASH", "rate": Infinity}', "rate is"),
        ('{"tenant": "a", "sha256": "HASH", "rate": 1, "burst": 0}', "burst"),
        ('{"tenant": "a", "sha256": "HASH", "rate": 1, "burst": 1.5}', "burst"),
        ('{"tenant": "a", "sha256": "HASH", "burst": 5}', "burst needs a rate"),
        ('{"tenant": "a", "sha256": "HASH", "expires": "tomorrow"}', "expires is"),
        ('{"tenant": "a", "sha256": "HASH", "expires": "2030-01-01"}', "with its zone"),
        ('{"tenant": "a", "sha256": "HASH", "expires": 5}', "expires is"),
    ],
)
def test_a_wrong_line_is_named_with_its_reason_and_without_its_hash(path: Path, line: str, reason: str) -> None:
    digest = sha256_of("key")
    write(path, "# a comment", line.replace("HASH", digest))
    with pytest.raises(InvalidKeys, match=reason) as failure:
        read_keys(path)
    assert f"line 2 of {path}" in str(failure.value)
    assert digest not in str(failure.value)


def test_a_key_that_stands_twice_is_a_mistake(path: Path) -> None:
    key = new_key()
    write(path, line_of(key, tenant="a"), line_of(key, tenant="b"))
    with pytest.raises(InvalidKeys, match="earlier line"):
        read_keys(path)


def test_keys_are_long_random_and_told_by_their_beginning() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("ovsam_") and len(key) == 49 for key in keys)
    with pytest.raises(InvalidKeys, match="a tenant is"):
        line_of(new_key(), tenant="not a tenant")
    soon = datetime.now(UTC) + timedelta(days=1)
    assert datetime.fromisoformat(json.loads(line_of(new_key(), tenant="a", expires=soon))["expires"]) <= soon
