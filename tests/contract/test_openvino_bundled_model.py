"""The committed model repository on OpenVINO, opened by the settings: the answers of ONNX Runtime on a photograph."""

from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from service.app import open_backend
from service.core.images import decode_image, resize_to_model
from service.core.types import Array
from service.settings import Settings
from service.telemetry import PrometheusObserver
from tests.deploy.manifests import ROOT

CPU_FLAGS = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
PHOTOGRAPH = ROOT / "service" / "transports" / "web" / "samples" / "coffee.jpg"


async def answers(engine: str, *, precision: str = "f32", encoded: dict[str, Array] | None = None) -> dict[str, Array]:
    """The photograph's embedding (unless one is given), and the mask of one click in its middle."""
    async with AsyncExitStack() as stack:
        chosen = {"engine": engine, "openvino_precision": precision, "threads": 1, "triton_url": ""}
        settings = Settings.model_validate(chosen)
        backend = await open_backend(settings, PrometheusObserver(), stack)
        size = backend.spec.input_size
        pixels = decode_image(PHOTOGRAPH.read_bytes(), max_pixels=10_000_000)
        frame, letterbox = resize_to_model(pixels, input_size=size)
        valid = np.array([letterbox.resized], np.int32)
        bundle = encoded or await backend.run("image_encoder", {"image": frame[None], "valid_size": valid})
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


async def test_a_lower_precision_is_the_image_encoders_alone() -> None:
    """From the same embedding the same mask, to the bit; a processor without bf16 gives the same embedding too."""
    exact = await answers("openvino")
    again = {name: tensor for name, tensor in exact.items() if name not in {"mask_logits", "boxes"}}
    lower = await answers("openvino", precision="bf16", encoded=again)
    np.testing.assert_array_equal(lower["mask_logits"], exact["mask_logits"])
    encoded = await answers("openvino", precision="bf16")
    masks = [answer["mask_logits"].astype(np.float32) > 0 for answer in (exact, encoded)]
    assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() > 0.97
    if "avx512_bf16" in CPU_FLAGS:
        assert (encoded["image_embedding"] != exact["image_embedding"]).any()
