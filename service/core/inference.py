"""The three calls of the network on one image: its pixels, its prompts, its regions. Tensors in, values out."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

from service.core.bundles import Window, letterbox_of, mask_inputs, region_inputs, split_bundle
from service.core.images import decode_image, resize_to_model
from service.core.masks import clean_up_logits, low_res_box
from service.core.ports import ModelBackend
from service.core.prompts import prompt_inputs
from service.core.types import Array, Box, Float32Array, Letterbox, MaskPrediction, Prompt, Tensors, UInt8Array


async def encode_image(
    backend: ModelBackend, content: bytes, *, max_pixels: int, timeout: float | None, decoders: Executor | None = None
) -> dict[str, Tensors]:
    """Image bytes -> the parts of its embedding bundle. Raises InvalidImage or ImageTooLarge.

    `decoders` bounds how many images are decoded at a time, also while callers come and go: a thread cannot be stopped,
    and 50 megapixels take some 500 MB. Without them asyncio's own threads decode.
    """
    spec = backend.spec

    def prepare() -> tuple[UInt8Array, Letterbox]:
        return resize_to_model(decode_image(content, max_pixels=max_pixels), input_size=spec.input_size)

    frame, letterbox = await asyncio.get_running_loop().run_in_executor(decoders, prepare)
    inputs: dict[str, Array] = {"image": frame[None], "valid_size": np.array([letterbox.resized], dtype=np.int32)}
    bundle = await backend.run("image_encoder", inputs, timeout=timeout)
    return await asyncio.to_thread(split_bundle, bundle, letterbox, spec=spec)


async def decode_prompts(
    backend: ModelBackend, mask_part: Tensors, prompts: Sequence[Prompt], *, timeout: float | None
) -> list[MaskPrediction]:
    """One call for N prompts of one image, with the embedding sent once."""
    spec, letterbox = backend.spec, letterbox_of(mask_part)
    inputs = mask_inputs(mask_part) | prompt_inputs(prompts, letterbox, low_res_size=spec.low_res_size)
    answer = await backend.run("prompt_decoder", inputs, timeout=timeout)
    logits, boxes = answer["mask_logits"][0].astype(np.float32), answer["boxes"][0]
    visibility = answer["visibility"][0] if "visibility" in answer else np.ones(len(prompts), np.float32)

    def tidy() -> list[MaskPrediction]:
        predictions = []
        for row, prompt in enumerate(prompts):
            mask, box = logits[row], Box(*(float(side) for side in boxes[row]))
            if spec.clean_up is not None:
                mask = clean_up_logits(
                    mask, prompt, rules=spec.clean_up, letterbox=letterbox, input_size=spec.input_size
                )
                box = low_res_box(mask > 0, input_size=spec.input_size)
            predictions.append(MaskPrediction(logits=mask, box=box, visibility=float(visibility[row])))
        return predictions

    return tidy() if spec.clean_up is None else await asyncio.to_thread(tidy)


async def encode_regions(
    backend: ModelBackend,
    parts: Mapping[str, Tensors],
    windows: Sequence[Window],
    predictions: Sequence[MaskPrediction],
    *,
    timeout: float | None,
) -> list[tuple[Float32Array, ...]]:
    """Region embeddings [D] of N masks of one image, in the order of the manifest's `embeddings`."""
    spec = backend.spec
    inputs = region_inputs(parts, windows, spec=spec)
    inputs["boxes"] = np.array([[prediction.box for prediction in predictions]], dtype=np.float32)
    if spec.region_takes_masks:
        inputs["masks"] = np.stack([prediction.logits > 0 for prediction in predictions])[None].astype(np.uint8)
    answer = await backend.run("region_encoder", inputs, timeout=timeout)
    outputs = [answer[name][0].astype(np.float32) for name in spec.recognition.embeddings]
    return [tuple(output[row] for output in outputs) for row in range(len(predictions))]
