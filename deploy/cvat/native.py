"""CVAT's native functions over a running service, for `cvat-cli function create-native` and `run-agent`.

A frame is uploaded once and named by its digest afterwards; CVAT's agent keeps what `preprocess_image` returns. Needs
only what cvat-cli brings: cvat-sdk, Pillow, NumPy and urllib3.
"""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import urllib3
from cvat_sdk.masks import encode_mask
from numpy.typing import NDArray
from PIL import Image

_PNG = {"mask": "png", "bbox": False}
_TIMEOUT = urllib3.Timeout(connect=5, read=120)


@dataclass(frozen=True)
class Frame:
    """A frame as it was uploaded; its bytes stay at hand in case the service has dropped the embedding."""

    digest: str
    content: bytes


class Service:
    """The few calls of the REST interface that CVAT needs."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._key = {"x-api-key": key} if key else {}
        self._http = urllib3.PoolManager(timeout=_TIMEOUT)

    def upload(self, image: Image.Image) -> Frame:
        """Upload a frame, without loss, and have it embedded."""
        stream = io.BytesIO()
        image.convert("RGB").save(stream, format="PNG", compress_level=1)
        content = stream.getvalue()
        frame = Frame(f"sha256:{hashlib.sha256(content).hexdigest()}", content)
        self._call("POST", "/v1/images", content, "image/png")
        return frame

    def ask(self, path: str, frame: Frame, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The results for a frame, which is uploaded once more when it is no longer known."""
        content = json.dumps({"image": frame.digest, **body}).encode()
        answer = self._send("POST", path, content, "application/json")
        if answer.status == 404:
            self._call("POST", "/v1/images", frame.content, "image/png")
            answer = self._send("POST", path, content, "application/json")
        return list(_checked(answer)["results"])

    def default_names(self) -> list[str]:
        """The class names of the default vocabulary."""
        name = self._call("GET", "/v1/vocabularies")["default"]
        return list(self._call("GET", f"/v1/vocabularies/{name}")["names"])

    def _call(self, method: str, path: str, content: bytes = b"", kind: str = "application/json") -> dict[str, Any]:
        return _checked(self._send(method, path, content, kind))

    def _send(self, method: str, path: str, content: bytes, kind: str) -> urllib3.BaseHTTPResponse:
        return self._http.request(method, self._url + path, body=content, headers={"content-type": kind, **self._key})


class Interactor:
    """Clicks and boxes to masks."""

    spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    def __init__(self, service: Service) -> None:
        self._service = service

    def preprocess_image(
        self,
        context: cvataa.InteractionFunctionContext,  # noqa: ARG002 - the signature is CVAT's
        image: Image.Image,
    ) -> Frame:
        return self._service.upload(image)

    def detect(
        self,
        context: cvataa.InteractionFunctionContext,  # noqa: ARG002 - the signature is CVAT's
        pp_image: Frame,
        prompts: cvataa.InteractionPrompts,
    ) -> list[cvataa.InteractionResultShape]:
        points = [{"x": x, "y": y, "label": 1} for x, y in prompts.pos_points]
        points += [{"x": x, "y": y, "label": 0} for x, y in prompts.neg_points]
        prompt: dict[str, Any] = {"points": points}
        if prompts.bounding_box:
            (x1, y1), (x2, y2) = prompts.bounding_box
            prompt["box"] = [x1, y1, x2, y2]
        body = {"prompts": [prompt], "classify": None, "output": _PNG}
        masks = [_mask(result) for result in self._service.ask("/v1/segment", pp_image, body)]
        return [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask)) for mask in masks if mask.any()]


class Detector:
    """All objects of a frame whose best name is one of the labels, among these and the default vocabulary."""

    def __init__(self, service: Service, labels: Sequence[str]) -> None:
        self._service = service
        self._ids = {label: index for index, label in enumerate(labels)}
        self._names = list(dict.fromkeys([*labels, *service.default_names()]))
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(label, index, type="mask") for label, index in self._ids.items()]
        )

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[cvataa.DetectionAnnotation]:
        form = "polygon" if context.conv_mask_to_poly else "png"
        body = {
            "classify": {"names": self._names, "top_k": 1, "min_score": context.conf_threshold or 0.0},
            "output": {"mask": form, "simplify": 1.0, "bbox": False},
        }
        found = self._service.ask("/v1/segment/everything", self._service.upload(image), body)
        named = [(result, result["classes"][0]["name"]) for result in found if result["classes"]]
        return [shape for result, name in named if name in self._ids for shape in _shapes(result, self._ids[name])]


def create(url: str = "http://127.0.0.1:8000", labels: str = "", key: str = "") -> Interactor | Detector:
    """An interactor, or with `labels` (the task's own, separated by commas) a detector; `key` is an API key."""
    names = [label.strip() for label in labels.split(",") if label.strip()]
    service = Service(url, key)
    return Detector(service, names) if names else Interactor(service)


def _checked(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    fields = dict(json.loads(answer.data))
    if answer.status >= 400:
        raise RuntimeError(f"{fields.get('title')}: {fields.get('detail')}")
    return fields


def _mask(result: dict[str, Any]) -> NDArray[np.bool_]:
    if result.get("error"):
        raise RuntimeError(result["error"]["detail"])
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(result["mask"]["base64"]))).convert("1"))


def _shapes(result: dict[str, Any], label: int) -> list[cvataa.DetectionAnnotation]:
    """One mask, or the outlines as polygons, which have no holes in CVAT."""
    if result["mask"]["format"] == "png":
        mask = _mask(result)
        return [cvataa.mask(label, encode_mask(mask))] if mask.any() else []
    outlines = [ring["points"] for ring in result["mask"]["rings"] if not ring["hole"]]
    return [cvataa.polygon(label, [side for point in ring for side in point]) for ring in outlines if len(ring) >= 3]
