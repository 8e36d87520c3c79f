"""The committed gRPC code is what the committed proto generates, and the proto has no fault."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = "@bufbuild/buf@1.75.0"
OUT = ("--python_out", "--grpc_python_out", "--mypy_out", "--mypy_grpc_out")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outs = [f"{option}={'quiet:' if 'mypy' in option else ''}{folder}" for option in OUT]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outs, "service/transports/ovsam.proto"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PATH": path})
    return folder


@pytest.mark.parametrize("name", ["ovsam_pb2.py", "ovsam_pb2.pyi", "ovsam_pb2_grpc.py", "ovsam_pb2_grpc.pyi"])
def test_committed_code_is_what_the_proto_generates(generated: Path, name: str) -> None:
    committed = ROOT / "service" / "transports" / name
    assert (generated / "service" / "transports" / name).read_text() == committed.read_text()


@pytest.mark.skipif(shutil.which("npx") is None, reason="buf comes through npm, and npx is not there")
def test_buf_finds_no_fault_with_the_proto() -> None:
    ran = subprocess.run(["npx", "--yes", BUF, "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
