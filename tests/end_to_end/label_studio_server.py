"""A real Label Studio and a real service beside it, each a process of its own on a free port of loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port

_TOKEN = "0123456789abcdef0123456789abcdef01234567"
_START_SECONDS = 1800  # Label Studio makes its database by hundreds of migrations, and a machine may be busy


@contextmanager
def process(command: list[str], environment: Mapping[str, str], *, url: str, log: Path) -> Iterator[None]:
    """Run a server until the body ends; it is up when `url` answers."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("OVSAM_")}
    with log.open("wb") as output:
        running = subprocess.Popen(command, env={**around, **environment}, stdout=output, stderr=output)
        try:
            _wait(running, url, log)
            yield
        finally:
            running.terminate()
            running.wait(30)


def _wait(running: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends and running.poll() is None:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"{url} did not come up:\n{log.read_text()[-2000:]}")


@dataclass
class Studio:
    """Label Studio's REST interface, as far as a test drives it."""

    http: httpx.Client
    service: str

    def project(self, config: str, image: Path) -> tuple[int, int]:
        """A new project with one picture, connected to the service: the task's and the model's number."""
        project = self._post("/api/projects", json={"title": "objects", "label_config": config})["id"]
        self._post(f"/api/projects/{project}/import", files={"file": (image.name, image.read_bytes(), "image/png")})
        tasks = self.http.get("/api/tasks", params={"project": project}).json()["tasks"]
        settings = {"url": f"{self.service}/integrations/label-studio", "title": "ovsam", "is_interactive": True}
        model = self._post("/api/ml", json={"project": project, **settings})
        assert model["state"] == "CO", model
        return int(tasks[0]["id"]), int(model["id"])

    def prompt(self, task: int, model: int, *regions: dict[str, Any]) -> list[dict[str, Any]]:
        """The regions that the editor is given for what the user drew."""
        body = {"task": task, "context": {"result": list(regions)}}
        answer = self._post(f"/api/ml/{model}/interactive-annotating", json=body)
        assert "errors" not in answer, answer
        return list(answer["data"]["result"])

    def retrieve_predictions(self, task: int) -> list[dict[str, Any]]:
        """The regions of the task's prediction, after "Retrieve predictions" in the data manager."""
        project = self.http.get(f"/api/tasks/{task}").json()["project"]
        selected = {"selectedItems": {"all": True, "excluded": []}, "project": project}
        query = {"id": "retrieve_tasks_predictions", "project": project}
        self._post("/api/dm/actions", params=query, json=selected)
        (prediction,) = self.http.get("/api/predictions", params={"task": task}).json()
        return list(prediction["result"])

    def encodes(self) -> float:
        """How often the service has run its image encoder."""
        lines = httpx.get(f"{self.service}/metrics").text.splitlines()
        counts = [line for line in lines if line.startswith('ovsam_batch_items_count{model="image_encoder"')]
        return sum(float(line.rsplit(" ", 1)[1]) for line in counts)

    def _post(self, path: str, **content: Any) -> dict[str, Any]:
        answer = self.http.post(path, **content)
        assert answer.is_success, answer.text
        return dict(answer.json())


@contextmanager
def label_studio(executable: str, folder: Path) -> Iterator[Studio]:
    """Start both, sign in by the legacy token, and end both."""
    studio, service = f"http://localhost:{free_port()}", f"http://127.0.0.1:{free_port()}"
    port = studio.rsplit(":", 1)[1]
    start = [executable, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", port]
    user = ["--username", "user@example.org", "--password", "a-long-password", "--user-token", _TOKEN]
    legacy = ["--enable-legacy-api-token", "--data-dir", str(folder)]
    local = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false", "COLLECT_ANALYTICS": "false"}
    own = {"OVSAM_PORT": service.rsplit(":", 1)[1], "OVSAM_FETCH_ALLOW": f"localhost:{port}"}
    own |= {"OVSAM_CACHE_DIR": str(folder / "ovsam"), "OVSAM_REQUEST_SECONDS": "90"}  # a busy machine is no failure
    headers = {"authorization": f"Token {_TOKEN}"}
    with (
        process([*start, *user, *legacy], local, url=f"{studio}/health", log=folder / "label-studio.log"),
        process([sys.executable, "-m", "service", "serve"], own, url=f"{service}/readyz", log=folder / "service.log"),
        httpx.Client(base_url=studio, headers=headers, timeout=120) as http,
    ):
        yield Studio(http, service)
