"""Child processes that cannot outlive us, whatever ends us."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

Child = subprocess.Popen[bytes]
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def spawn(command: Sequence[str], *, variables: Mapping[str, str], output: IO[bytes] | int | None = None) -> Child:
    """Start a child in a session of its own: Ctrl-C reaches us alone, and we end the child in order.

    It gets SIGTERM when we die. `output` takes both its streams; None leaves them as ours.
    """
    libc = ctypes.CDLL(None)

    def end_with_parent() -> None:
        libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)

    return subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - safe here: the programs that spawn have one thread
    )


def kill_session(child: Child) -> None:
    """End a child and all that it started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
