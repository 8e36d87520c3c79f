"""The committed model repository on OpenVINO, opened by the settings: the answers of ONNX Runtime on a photograph."""

from contextlib import AsyncExitStack

import numpy as np

from service.app import open_backend
from service.core.images import decode_image, resize_to_model
from service.core.types import Array
from service.settings import Settings
from service.telemetry import PrometheusObserver
from tests.deploy.manifests import ROOT

PHOTOGRAPH = ROOT / "service" / "transports" / "web" / "samples" / "coffee.jpg"


async def answers(engine: str) -> dict[str, Array]:
    """The photograph's embedding, and the mask of one click in its middle."""
    async with AsyncExitStack() as stack:
        settings = Settings.model_validate({"engine": engine, "threads": 1, "triton_url": ""})
        backend = await open_backend(settings, PrometheusObserver(), stack)
        size = backend.spec.input_size
        pixels = decode_image(PHOTOGRAPH.read_bytes(), max_pixels=10_000_000)
        frame, letterbox = resize_to_model(pixels, input_size=size)
        valid = np.array([letterbox.resized], np.int32)
        bundle = await backend.run("image_encoder", {"image": frame[None], "valid_size": valid})
        prompt: dict[str, Array] = {
            "point_coords": np.array([[[[size / 2, size / 3]]]], np.float32),
            "point_labels": np.ones((1, 1, 1), np.int32),
            "mask_input": np.zeros((1, 1, 1, 1), np.float32),
            "has_mask_input": np.zeros((1, 1), np.float32),
        }
        embedding = {name: bundle[name] for name in backend.spec.mask_tensors}
        return bundle | await backend.run("prompt_decoder", embedding | prompt)


async def test_the_bundled_model_answers_alike_on_both_engines() -> None:
    first, second = await answers("onnxruntime"), await answers("openvino")
    assert list(first) == list(second)
    mask, other = (answer["mask_logits"].astype(np.float32) > 0 for answer in (first, second))
    assert mask.any()
    assert (mask & other).sum() / (mask | other).sum() > 0.99
    expected = first["image_embedding"].astype(np.float32)
    assert np.abs(second["image_embedding"].astype(np.float32) - expected).max() < 0.02 * expected.std()
