"""Just enough of Dockerfile's language to look at our own and to run its steps without a container engine."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_IMAGE_PATHS = ("/opt/ovsam", "/opt/LICENSE", "/src", "/models", "/var/cache/ovsam")


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM with its instructions, as (name, arguments)."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.steps if name == instruction]

    def sources(self) -> list[str]:
        """What it copies from the build's context."""
        copies = [arguments.split() for arguments in self.all("COPY") if not arguments.startswith("--from")]
        return [source for copy in copies for source in copy[:-1]]


def read_stages(text: str) -> dict[str, Stage]:
    """The stages by name, in order."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, arguments = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = arguments.partition(" AS ")
            stages[name] = Stage(name, base)
        elif stages:
            stages[name].steps.append((instruction, re.sub(r"\s+", " ", arguments).strip()))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and those it is built on, the first one first."""
    stage = stages[name]
    return [*lineage(stages, stage.base), stage] if stage.base in stages else [stage]


class ImageFolder:
    """A folder that stands for the image's root: paths of the image are moved under it."""

    def __init__(self, root: Path, *, context: Path, python: Path) -> None:
        self._root = root
        self._context = context
        self._folder = root
        tools = root / "usr" / "local" / "bin"
        tools.mkdir(parents=True)
        (tools / "python").symlink_to(python)
        self._system_path = f"{tools}:{os.environ['PATH']}"
        self.environment = {"PATH": self._system_path}

    def inside(self, text: str) -> str:
        """A text with the image's paths moved under the folder."""
        pattern = "|".join(re.escape(path) for path in _IMAGE_PATHS)
        return re.sub(rf"(?<![\w/.])({pattern})(?![\w-])", lambda match: f"{self._root}{match[1]}", text)

    def build(self, stages: list[Stage]) -> None:
        """Do what a stage and those under it say."""
        self.environment = {"PATH": self._system_path}
        for instruction, arguments in (step for stage in stages for step in stage.steps):
            if instruction == "ENV":
                variables = dict(pair.split("=", 1) for pair in self.inside(arguments).split())
                own = [place for place in variables.get("PATH", "").split(":") if place.startswith(str(self._root))]
                self.environment |= variables | {"PATH": ":".join([*own, self._system_path])}
            elif instruction == "WORKDIR":
                self._folder = Path(self.inside(arguments))
                self._folder.mkdir(parents=True, exist_ok=True)
            elif instruction == "COPY" and not arguments.startswith("--from"):
                self._copy(*arguments.split())
            elif instruction == "RUN":
                self.run(["sh", "-ec", self.inside(arguments)])

    def run(self, command: list[str], *, timeout: float = 600) -> str:
        """Run a command in the image's working folder with the image's environment only."""
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def start(self, stage: Stage, log: Path) -> "subprocess.Popen[bytes]":
        """Start ENTRYPOINT with CMD."""
        command = [*json.loads(stage.all("ENTRYPOINT")[-1]), *json.loads(stage.all("CMD")[-1])]
        command[0] = shutil.which(command[0], path=self.environment["PATH"]) or command[0]
        with log.open("wb") as out:
            return subprocess.Popen(command, cwd=self._folder, env=self.environment, stdout=out, stderr=out)

    def _copy(self, *arguments: str) -> None:
        *sources, target = arguments
        place = self._folder / self.inside(target) if target.startswith("/") else self._folder / target
        for source in (self._context / name for name in sources):
            if source.is_dir():
                shutil.copytree(source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                destination = place / source.name if len(sources) > 1 or place.is_dir() else place
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, destination)
