"""Turn emoji and clip art into cut-outs: RGBA pictures of one object each, with a name, tags and a split."""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import resvg_py
from numpy.typing import NDArray
from tqdm import tqdm

from export.nano import ingredients
from export.nano.ingredients import source_folder

RENDER_SIZE = 288
MAX_SVG_BYTES = 400_000
SVG_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
UNUSABLE_CATEGORIES = {"Flags", "Symbols"}
UNUSABLE_EMOJI_GROUPS = {2, 8, 9}
"""emojibase's groups: components (skin tones), symbols, flags."""
FALSE_NAMES = {"hash", "card", "application", "desktop", "led", "unsorted", "clip art", "clipart", "image", "media"}
HELD_OUT = frozenset(Path(__file__).with_name("held_out_nouns.txt").read_text(encoding="utf-8").split())


@dataclass(frozen=True, slots=True)
class Cutout:
    """One object. `name` is its caption, `tags` are further words for it; `held_out` objects are never trained on."""

    path: str
    source: str
    name: str
    tags: tuple[str, ...]
    held_out: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture still to be rendered: SVG text, or the path of a bitmap or SVG file."""

    source: str
    name: str
    tags: tuple[str, ...]
    svg: str | None = None
    path: Path | None = None


def prepare_cutouts(work: Path, *, processes: int) -> None:
    """Render all drawings to `work/cutouts` and write their index."""
    folder = work / "cutouts"
    folder.mkdir(parents=True, exist_ok=True)
    drawings = list(_drawings(work))
    targets = [folder / f"{index:05d}.png" for index in range(len(drawings))]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        results = pool.map(_render, drawings, targets, chunksize=16)
        kept = list(tqdm(results, desc="cut-outs", total=len(drawings), unit="drawing"))
    index = [asdict(_describe(d, path)) for d, path, usable in zip(drawings, targets, kept, strict=True) if usable]
    (work / "cutouts.json").write_text(json.dumps(index, indent=0), encoding="utf-8")


def load_cutouts(work: Path) -> list[Cutout]:
    """The index written by `prepare_cutouts`."""
    rows = json.loads((work / "cutouts.json").read_text(encoding="utf-8"))
    return [Cutout(**{**row, "tags": tuple(row["tags"])}) for row in rows]


def read_cutout(work: Path, cutout: Cutout) -> NDArray[np.uint8]:
    """RGBA pixels, height x width x 4, straight alpha."""
    image = cv2.imread(str(work / "cutouts" / cutout.path), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


def _describe(drawing: Drawing, path: Path) -> Cutout:
    words = set(re.findall(r"[a-z]+", " ".join((drawing.name, *drawing.tags)).lower()))
    words |= {word.removesuffix("s") for word in words}
    return Cutout(path.name, drawing.source, drawing.name, drawing.tags, bool(words & HELD_OUT))


def _drawings(work: Path) -> Iterator[Drawing]:
    rows = json.loads((source_folder(work, ingredients.NAMES) / "package/en/data.json").read_text(encoding="utf-8"))
    emoji = {row["hexcode"].lower(): row for row in rows if row.get("group") not in UNUSABLE_EMOJI_GROUPS | {None}}
    for package, pattern in ((ingredients.FLUENT, "*.webp"), (ingredients.TWEMOJI, "*.svg")):
        for path in sorted(source_folder(work, package).rglob(pattern)):
            row = emoji.get(path.stem) or emoji.get(path.stem.replace("-fe0f", "")) or emoji.get(f"{path.stem}-fe0f")
            if row:
                yield Drawing(package.folder, row["label"], tuple(row.get("tags", ())), path=path)
    for package in (ingredients.NOTO, ingredients.OPENMOJI):
        yield from _iconify(package.folder, source_folder(work, package), emoji)
    for path in sorted(source_folder(work, ingredients.CLIPART).rglob("*.svg")):
        if path.stat().st_size <= MAX_SVG_BYTES:
            yield _clipart(path)


def _iconify(source: str, folder: Path, emoji: dict[str, Any]) -> Iterator[Drawing]:
    icons = json.loads(next(folder.rglob("icons.json")).read_text(encoding="utf-8"))
    metadata = json.loads(next(folder.rglob("metadata.json")).read_text(encoding="utf-8"))
    unusable = {name for category in UNUSABLE_CATEGORIES for name in metadata["categories"].get(category, ())}
    tags = {re.sub(r"[^a-z0-9]+", "-", row["label"].lower()): tuple(row.get("tags", ())) for row in emoji.values()}
    width, height = icons.get("width", 16), icons.get("height", 16)
    for name, icon in icons["icons"].items():
        if name in unusable or name not in tags:
            continue
        svg = f'<svg {SVG_NAMESPACES} viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        yield Drawing(source, name.replace("-", " "), tags[name], svg=svg)


def _clipart(path: Path) -> Drawing:
    text = path.read_text(encoding="utf-8", errors="replace")
    title = re.search(r"<dc:title>([^<]*)</dc:title>", text)
    subjects = re.findall(r"<rdf:li>([^<]*)</rdf:li>", text)
    folders = [path.parent.name, path.parent.parent.name]
    name = re.sub(r"[^a-z ]+", " ", (title[1] if title else "").lower()).strip()
    if not name or name in FALSE_NAMES:
        name = re.sub(r"_.*|\d+", "", path.stem).lower()
    tags = (tag.strip().lower() for tag in (*subjects, *folders))
    return Drawing(ingredients.CLIPART.folder, name, tuple(t for t in tags if t and t not in FALSE_NAMES), path=path)


def _render(drawing: Drawing, target: Path) -> bool:
    image = _rasterise(drawing)
    cropped = None if image is None else _crop_to_object(image)
    if cropped is None:
        return False
    return bool(cv2.imwrite(str(target), cropped, [cv2.IMWRITE_PNG_COMPRESSION, 1]))


def _rasterise(drawing: Drawing) -> NDArray[np.uint8] | None:
    if drawing.path is not None and drawing.path.suffix == ".webp":
        return cv2.imread(str(drawing.path), cv2.IMREAD_UNCHANGED)
    try:
        svg = drawing.svg or drawing.path.read_text(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
        rendered = resvg_py.svg_to_bytes(svg_string=svg, width=RENDER_SIZE, skip_system_fonts=True)
    except (ValueError, RuntimeError):
        return None
    encoded = base64.b64decode(rendered) if isinstance(rendered, str) else bytes(rendered)
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)


def _crop_to_object(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """BGRA cropped to its alpha; None unless it is one piece that is neither tiny, hair-thin nor a full rectangle."""
    if image.ndim != 3 or image.shape[2] != 4 or max(image.shape[:2]) > 4 * RENDER_SIZE:
        return None
    solid = (image[..., 3] > 127).astype(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(solid)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    x, y, width, height = cv2.boundingRect(solid)
    fill = areas.sum() / max(width * height, 1)
    if min(width, height) < 40 or not 0.12 < fill < 0.97 or areas.max() < 0.8 * areas.sum():
        return None
    cropped = image[y : y + height, x : x + width]
    scale = RENDER_SIZE / max(cropped.shape[:2])
    return cropped if scale >= 1 else cv2.resize(cropped, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
