"""One tritonserver process: its flags, its end, and the shared memory that it must not leave behind."""

import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from environment import ServerEnvironment
from processes import Child, kill_session, spawn

log = logging.getLogger("triton")

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_PREFIX = "ovsam_triton_"
STUB_TIMEOUT = 120  # seconds for a stub to open its model
KILL_MARGIN = 2.0  # seconds beyond the server's own exit timeout


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where the server listens, what it serves (no names: all models) and how long its exit may take (seconds)."""

    repository: Path
    models: Sequence[str]
    http_port: int
    grpc_port: int
    metrics_port: int
    address: str
    exit_timeout: int
    extra: Sequence[str] = ()


@dataclass(slots=True)
class TritonServer:
    """Starts and ends the process; every end also frees the shared memory of its stubs."""

    environment: ServerEnvironment
    options: ServerOptions
    _process: Child | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process; it ends with this one, even when this one is killed."""
        remove_stale_shared_memory()
        self._process = spawn(self._command(), variables=self.environment.variables())

    @property
    def crashed(self) -> bool:
        """Whether a signal ended the server."""
        return self._process is not None and (self._process.returncode or 0) < 0

    def wait(self, seconds: float) -> int | None:
        """Return the exit code if the server ends within `seconds`, else None."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, *, grace: float) -> None:
        """Let work in hand finish for `grace` seconds; then, or on a second interrupt, kill the whole session."""
        if self._process is None:
            return
        try:
            self._process.terminate()
            if self.wait(grace + KILL_MARGIN) is None:
                log.warning("the server did not end within %.0f s: killing it", grace + KILL_MARGIN)
        except KeyboardInterrupt:
            log.warning("interrupted again: killing the server")
        finally:
            kill_session(self._process)  # stubs outlive a killed server for a while
            remove_shared_memory(_prefix(os.getpid()))
            self._process = None

    def _command(self) -> list[str]:
        options, environment = self.options, self.environment
        flags = {
            "model-repository": options.repository.resolve(),
            "backend-directory": environment.backends,
            "cache-directory": environment.caches,
            "model-control-mode": "explicit",
            "exit-on-error": "false",  # the supervisor decides: a restart serves what it can
            "http-address": options.address,
            "grpc-address": options.address,
            "metrics-address": options.address,
            "http-port": options.http_port,
            "grpc-port": options.grpc_port,
            "metrics-port": options.metrics_port,
            "allow-gpu-metrics": "false",
            "pinned-memory-pool-byte-size": 0,
            "exit-timeout-secs": options.exit_timeout,
            "log-info": "false",
            # One after the other: on busy cores stubs that start together miss a fixed deadline of 10 s and the server
            # dies (seen: 3 of 3 starts with four models at a load of 25 on two cores, 0 of 2 with one thread).
            "model-load-thread-count": 1,
        }
        # Every python-based backend reads the settings of `python`.
        backend = {"shm-region-prefix-name": _prefix(os.getpid()), "stub-timeout-seconds": STUB_TIMEOUT}
        command = [str(environment.executable), "--disable-auto-complete-config"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        command += [f"--load-model={model}" for model in options.models or ("*",)]
        command += [f"--backend-config=python,{name}={value}" for name, value in backend.items()]
        return [*command, *options.extra]


def remove_shared_memory(prefix: str) -> None:
    """Delete the regions that a killed server or stub left behind."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def remove_stale_shared_memory() -> None:
    """Delete the regions of launchers that were killed before they could clean up."""
    regions = SHARED_MEMORY.glob(f"{SHARED_MEMORY_PREFIX}*")
    owners = {region.name.removeprefix(SHARED_MEMORY_PREFIX).split("_")[0] for region in regions}
    for owner in owners:
        if owner.isdigit() and not Path("/proc", owner).exists():
            remove_shared_memory(_prefix(int(owner)))


def _prefix(launcher: int) -> str:
    return f"{SHARED_MEMORY_PREFIX}{launcher}_"
