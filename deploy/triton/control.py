"""What the supervisor asks of a running server over Triton's HTTP protocol, with the standard library alone.

`server_ready` and `model_ready` stay true when the process behind a model is dead, so health here means that a
tiny inference was really computed.
"""

import http.client
import json
import math
from dataclasses import dataclass
from typing import Any

ITEM_SIZES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "UINT32": 4, "INT32": 4, "FP32": 4}
ITEM_SIZES |= {"UINT64": 8, "INT64": 8, "FP64": 8, "BYTES": 4}  # BYTES: an empty string is its four-byte length


class ControlError(Exception):
    """The server could not be reached or answered with an error."""


@dataclass(frozen=True, slots=True)
class Control:
    """One server's HTTP endpoint; `timeout` is for questions that need no work (seconds)."""

    address: str
    port: int
    timeout: float

    def models(self) -> dict[str, str]:
        """List models: "" for one with a ready version, else why it has none."""
        states: dict[str, str] = {}
        for entry in self._ask("/v2/repository/index", {}):
            if entry.get("state") == "READY":
                states[entry["name"]] = ""
            else:
                states.setdefault(entry["name"], entry.get("reason") or entry.get("state") or "not loaded")
        return states

    def inference_count(self, model: str) -> int:
        """Count the requests that reached the model's process and came back (cached answers do not count)."""
        statistics = self._get(f"/v2/models/{model}/stats")["model_stats"]
        return sum(int(version["inference_count"]) for version in statistics)

    def probe(self, model: str, *, timeout: float) -> None:
        """Compute one inference on zeros; raise ControlError unless it succeeds in time."""
        header, tensors = probe_request(self._get(f"/v2/models/{model}/config"))
        head = json.dumps(header).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        self._send("POST", f"/v2/models/{model}/infer", head + tensors, headers=headers, timeout=timeout)

    def unload(self, model: str, *, timeout: float) -> None:
        """End the model's process."""
        self._ask(f"/v2/repository/models/{model}/unload", {}, timeout=timeout)

    def load(self, model: str, *, timeout: float) -> None:
        """Start the model's process and wait until it is ready."""
        self._ask(f"/v2/repository/models/{model}/load", {}, timeout=timeout)

    def _get(self, path: str) -> Any:
        return json.loads(self._send("GET", path, b""))

    def _ask(self, path: str, question: dict[str, Any], *, timeout: float | None = None) -> Any:
        return json.loads(self._send("POST", path, json.dumps(question).encode(), timeout=timeout) or b"null")

    def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> bytes:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout or self.timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ControlError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
        return answer


def probe_request(config: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Build a request of zeros in the shapes of the model's own warm-up sample; an open axis without sample is 1.

    It asks for one output, the first, so that the answer stays small. Source of the encoding: Triton's binary tensor
    data extension.
    """
    samples = config.get("model_warmup") or [{}]
    warm_up = samples[0].get("inputs", {})
    batch = [1] if config["max_batch_size"] > 0 else []
    inputs: list[dict[str, Any]] = []
    for tensor in config["input"]:
        if tensor["optional"] and tensor["name"] not in warm_up:
            continue
        dims = warm_up.get(tensor["name"], tensor)["dims"]
        shape = batch + [max(1, int(size)) for size in dims]
        datatype = tensor["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES")
        byte_size = math.prod(shape) * ITEM_SIZES[datatype]
        parameters = {"binary_data_size": byte_size}
        inputs.append({"name": tensor["name"], "shape": shape, "datatype": datatype, "parameters": parameters})
    output = {"name": config["output"][0]["name"], "parameters": {"binary_data": True}}
    total = sum(tensor["parameters"]["binary_data_size"] for tensor in inputs)
    return {"inputs": inputs, "outputs": [output]}, bytes(total)
