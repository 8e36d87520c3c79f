"""Makes the environment that a real tritonserver needs, once, from public Python packages.

The wheel `nvidia-pytriton` carries NVIDIA's server and its python backend. The stub that runs our backend needs
numpy 1, which must not leak into the gateway's environment: hence a virtual environment of its own.
"""

import ctypes
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("triton")

REQUIREMENTS = ("nvidia-pytriton==0.7.0", "numpy==1.26.4", "onnxruntime==1.31.1")
DEFAULT_ROOT = Path(__file__).resolve().parents[2] / "build" / "triton"
OWN_BACKENDS = Path(__file__).resolve().parent / "backends"
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class EnvironmentFailed(Exception):
    """The server environment cannot be made here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class ServerEnvironment:
    """Where the pieces of the server lie below `root`."""

    root: Path

    @property
    def venv(self) -> Path:
        """Packages of the server and its stubs."""
        return self.root / "venv"

    @property
    def backends(self) -> Path:
        """Triton's backend directory."""
        return self.root / "backends"

    @property
    def caches(self) -> Path:
        """Triton's cache directory."""
        return self.root / "caches"

    @property
    def packaged(self) -> Path:
        """Files of the server inside the wheel."""
        return self.venv / "lib" / f"python{PYTHON_VERSION}" / "site-packages" / "pytriton" / "tritonserver"

    @property
    def executable(self) -> Path:
        """The tritonserver binary."""
        return self.packaged / "bin" / "tritonserver"

    def variables(self) -> dict[str, str]:
        """Environment variables: the stub finds its packages through `python3` on PATH, libpython by its folder."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
        return kept | {
            "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "LD_LIBRARY_PATH": os.pathsep.join(path for path in libraries if path),
            "PYTHONNOUSERSITE": "1",
        }


def prepare(root: Path = DEFAULT_ROOT) -> ServerEnvironment:
    """Return a complete environment below `root`; one that is absent, half made or of other versions is made first."""
    _check_platform()
    environment = ServerEnvironment(root=root.resolve())
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second launcher waits for the first one's install
        stamp = root / "complete.json"
        wanted = json.dumps({"python": PYTHON_VERSION, "requirements": REQUIREMENTS})
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _install(environment)
            _lay_out(environment)
            stamp.write_text(wanted)
        _copy_own_backends(environment)
    return environment


def _check_platform() -> None:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise EnvironmentFailed("the packaged tritonserver runs on x86-64 Linux only; use NVIDIA's container elsewhere")
    library = f"libpython{PYTHON_VERSION}.so.1.0"
    for name in (str(Path(sysconfig.get_config_var("LIBDIR")) / library), library):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return
    remedy = f"Triton's stub needs Python as a shared library (Debian: apt install libpython{PYTHON_VERSION})"
    raise EnvironmentFailed(f"{library} not found: {remedy}")


def _install(environment: ServerEnvironment) -> None:
    log.info("making the server's environment in %s (290 MB, once)", environment.root)
    python = environment.venv / "bin" / "python"
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(environment.venv)],
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", *REQUIREMENTS],
    )
    for command in commands:
        if subprocess.run(command, check=False).returncode != 0:
            raise EnvironmentFailed(f"failed: {' '.join(command)}")
    if not environment.executable.exists():
        raise EnvironmentFailed(f"no tritonserver for Python {PYTHON_VERSION} in {REQUIREMENTS[0]}")


def _lay_out(environment: ServerEnvironment) -> None:
    """Copy what the server refuses as a link, link what finds its libraries only from its real place."""
    for folder in (environment.backends, environment.caches):
        shutil.rmtree(folder, ignore_errors=True)
    python_backend = environment.backends / "python"
    python_backend.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(environment.packaged / "backends" / "python" / name, python_backend / name)
    stub = environment.packaged / "python_backend_stubs" / PYTHON_VERSION / "triton_python_backend_stub"
    (python_backend / stub.name).symlink_to(stub)
    shutil.copytree(environment.packaged / "caches", environment.caches)


def _copy_own_backends(environment: ServerEnvironment) -> None:
    """Renew our files at each launch, each at one stroke: another server may be reading it."""
    for source in OWN_BACKENDS.glob("*/model.py"):
        target = environment.backends / source.parent.name / source.name
        target.parent.mkdir(exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}")
        shutil.copy2(source, fresh)
        fresh.replace(target)
