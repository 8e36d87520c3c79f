"""The Dockerfile: linted, looked at, and its default target's steps run one by one in a fresh folder."""

import fnmatch
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.certificates import make_certificates
from tests.deploy.dockerfile import ImageFolder, Stage, lineage, read_stages
from tests.deploy.manifests import ROOT, build, one
from tests.ports import free_port

TEXT = (ROOT / "Dockerfile").read_text()
STAGES = read_stages(TEXT)
_START_SECONDS = 120.0  # as the HEALTHCHECK's start period
TARGETS = ("service", "service-gpu", "export")


def _lint(text: str) -> list[str]:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--format", "json", "-"], input=text, capture_output=True, text=True, check=False)
    return [finding["code"] for finding in json.loads(done.stdout)]


def test_hadolint_finds_nothing() -> None:
    assert _lint(TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("ARG PYTHON_IMAGE=python:3.11.11-slim-bookworm\n\nFROM ${PYTHON_IMAGE}", "FROM python:latest", "DL3007"),
        ("install -d -m 1777 /var/cache/ovsam", "cd /var && apt-get install curl", "DL3003"),
        ("USER 10001:10001\n# HTTP", "USER root\n# HTTP", "DL3002"),
    ],
)
def test_hadolint_catches_a_seeded_fault(old: str, new: str, code: str) -> None:
    assert old in TEXT
    assert code in _lint(TEXT.replace(old, new))


def test_the_default_target_is_the_service() -> None:
    assert set(TARGETS) <= STAGES.keys()
    assert list(STAGES)[-1] == "service"


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_a_numbered_user_and_says_what_it_is(target: str) -> None:
    steps = [step for stage in lineage(STAGES, target) for step in stage.steps]
    users = [arguments for name, arguments in steps if name == "USER"]
    assert users[-1] == "10001:10001"
    labels = " ".join(arguments for name, arguments in steps if name == "LABEL")
    assert all(f"org.opencontainers.image.{key}=" in labels for key in ("title", "description", "licenses"))


def test_the_base_is_pinned_and_a_digest_can_be_given() -> None:
    assert "ARG PYTHON_IMAGE=python:3.11.11-slim-bookworm\n" in TEXT
    bases = {stage.base for stage in STAGES.values() if stage.base not in STAGES}
    assert bases == {"${PYTHON_IMAGE}"}


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert let_in == {source for stage in STAGES.values() for source in stage.sources()}
    assert not any(fnmatch.fnmatch(".git", rule) or fnmatch.fnmatch(".venv", rule) for rule in let_in)


def test_the_ports_are_those_of_the_manifests() -> None:
    container = one(build("cpu"), "Deployment", "ovsam-gateway")["spec"]["template"]["spec"]["containers"][0]
    named = {str(port["containerPort"]) for port in container["ports"]}
    assert set(STAGES["runtime"].all("EXPOSE")[0].split()) == named


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    """The target `service`, built as the Dockerfile says, but in a folder."""
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = ImageFolder(tmp_path_factory.mktemp("image"), context=ROOT, python=python)
    for target in ("build", "service"):
        folder.build(lineage(STAGES, target))
    return folder


@pytest.mark.image
def test_the_image_knows_neither_torch_nor_pip(image: ImageFolder) -> None:
    found = image.run(
        ["python", "-c", "import importlib.util as u; print([n for n in ('torch', 'pip') if u.find_spec(n)])"]
    )
    assert found.strip() == "[]"
    assert image.run(["ovsam", "--help"])


@pytest.mark.image
def test_the_image_can_send_the_traces_that_the_manifests_may_ask_for(image: ImageFolder) -> None:
    assert image.run(["python", "-c", "import service.tracing_otlp"]) == ""


@pytest.mark.image
@pytest.mark.parametrize("tls", [False, True])
def test_the_image_serves_passes_its_health_check_and_ends(
    image: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, tls: bool
) -> None:
    monkeypatch.setitem(image.environment, "OVSAM_PORT", str(free_port()))
    if tls:
        made = make_certificates(tmp_path / "certificates")
        monkeypatch.setitem(image.environment, "OVSAM_TLS_CERT", str(made.server))
        monkeypatch.setitem(image.environment, "OVSAM_TLS_KEY", str(made.server_key))
    runtime: Stage = STAGES["runtime"]
    check = json.loads(runtime.all("HEALTHCHECK")[0].split("CMD ", 1)[1])
    process = image.start(Stage("", "", [*runtime.steps, *STAGES["service"].steps]), tmp_path / "log")
    try:
        _wait_until_healthy(image, check, process)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code in {0, -signal.SIGTERM}, (tmp_path / "log").read_text()


@pytest.mark.image
def test_a_health_check_without_a_service_fails(image: ImageFolder) -> None:
    check = json.loads(STAGES["runtime"].all("HEALTHCHECK")[0].split("CMD ", 1)[1])
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        image.environment["OVSAM_PORT"] = str(closed.getsockname()[1])
        with pytest.raises(AssertionError, match="no answer from port"):
            image.run(check)


def _wait_until_healthy(image: ImageFolder, check: list[str], process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            image.run(check)
        except AssertionError:
            assert process.poll() is None, "the service ended"
            assert time.monotonic() < end, "the service did not start"
            time.sleep(0.5)
        else:
            return
