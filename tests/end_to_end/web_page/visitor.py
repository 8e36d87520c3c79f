"""A person at the page: a real headless Chromium, what it sends, and what it shows."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Download, FilePayload, Page, Request, expect, sync_playwright

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = (1280, 800)
PHONE = (390, 844)
_CHROMIUM = "chromium"  # Debian's
_SECONDS = 60.0  # for a machine that does much else
_SHOWN = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [x1, y1, x2, y2] = [canvas.width, canvas.height, 0, 0];
  for (let y = 0; y < canvas.height; y++) for (let x = 0; x < canvas.width; x++)
    if (data[4 * (y * canvas.width + x) + 3] > 127) {
      x1 = Math.min(x1, x); y1 = Math.min(y1, y); x2 = Math.max(x2, x + 1); y2 = Math.max(y2, y + 1);
    }
  return [x1, y1, x2, y2].map(side => side * canvas.clientWidth / canvas.width);
}"""
_PAINTED = """(canvas, points) => {
  const context = canvas.getContext("2d");
  const frame = canvas.getBoundingClientRect();
  const density = canvas.width / frame.width;
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  return points.map(([x, y]) => {
    const [i, j] = [Math.floor((x - frame.left) * density), Math.floor((y - frame.top) * density)];
    return data[4 * (j * canvas.width + i) + 3];
  });
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser that talks to nobody but the page's server."""
    with sync_playwright() as playwright:
        path = shutil.which(_CHROMIUM) or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Frame:
    """Where a picture of `size` lies in the browser's window, in CSS pixels."""

    left: float
    top: float
    scale: float
    size: tuple[int, int]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The window position of the middle of a picture's pixel."""
        return self.left + (x + 0.5) * self.scale, self.top + (y + 0.5) * self.scale


@dataclass
class Visitor:
    """One person with a browser window of their own."""

    page: Page
    url: str
    density: float
    errors: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        expect.set_options(timeout=_SECONDS * 1000)
        self.page.set_default_timeout(_SECONDS * 1000)
        self.page.on("request", self._record)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._note(message.type, message.text, message.location["url"]))
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-ready]")

    def _record(self, request: Request) -> None:
        self.requests.append(request)

    def _note(self, kind: str, text: str, url: str) -> None:
        asked_for_unknown = "404" in text and "/v1/images/sha256:" in url  # the browser tells every 404, even of HEAD
        if kind == "error" and not asked_for_unknown:
            self.errors.append(f"{text} {url}")

    def foreign_requests(self) -> list[str]:
        """Requests that left the page's own server."""
        own = urlsplit(self.url).netloc
        return [r.url for r in self.requests if urlsplit(r.url).scheme != "blob" and urlsplit(r.url).netloc != own]

    def open(self, name: str, content: bytes) -> None:
        """Open a picture as from the file dialog, and wait until the service has it."""
        self.choose_file(name, content)
        expect(self.page.locator("#file-name")).to_contain_text(name)
        expect(self.page.locator("#progress")).to_be_hidden()

    def choose_file(self, name: str, content: bytes) -> None:
        """Choose a file in the file dialog."""
        file: FilePayload = {"name": name, "mimeType": "image/jpeg", "buffer": content}
        self.page.set_input_files("#file", file)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def frame(self, width: int, height: int) -> Frame:
        """Where the whole picture is shown, read off the canvas itself."""
        self.settle()
        stage = self.page.locator("#stage").bounding_box()
        assert stage is not None
        x1, y1, x2, _ = self.page.locator("#picture").evaluate(_SHOWN)
        return Frame(stage["x"] + x1, stage["y"] + y1, (x2 - x1) / width, (width, height))

    def settle(self) -> None:
        """Wait until what was asked for is painted."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def answered(self) -> None:
        """Wait until no object waits for its answer."""
        expect(self.page.locator(".spinner")).to_have_count(0)
        self.settle()

    def objects(self) -> list[str]:
        """The names in the list of objects."""
        return [text.strip() for text in self.page.locator(".object-name").all_inner_texts()]

    def names(self) -> list[str]:
        """The best names of the selected object."""
        return [text.strip() for text in self.page.locator("#names .name-text").all_inner_texts()]

    def segment_bodies(self) -> list[dict[str, Any]]:
        """The JSON of every click's request, in order."""
        sent = [r.post_data or "" for r in self.requests if urlsplit(r.url).path == "/v1/segment"]
        return [body for body in map(json.loads, sent) if body["prompts"][0]["id"] != "preview"]

    def last_prompt(self) -> dict[str, Any]:
        """What the last click sent."""
        prompt: dict[str, Any] = self.segment_bodies()[-1]["prompts"][0]
        return prompt

    def shot(self) -> NDArray[np.uint8]:
        """The window as device pixels [H, W, 3]."""
        self.settle()
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))

    def overlay_alpha(self, points: list[tuple[float, float]]) -> list[int]:
        """How opaque masks and marks are at window positions."""
        self.settle()
        alpha: list[int] = self.page.locator("#overlay").evaluate(_PAINTED, points)
        return alpha

    def download(self, form: str) -> Download:
        """Press one of the export buttons."""
        with self.page.expect_download() as started:
            self.page.click(f"[data-export={form}]")
        return started.value


Arrive = Callable[..., Visitor]  # opens the page: size, density, and what else Playwright's new_context takes
