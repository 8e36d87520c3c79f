"""How the page looks: nothing is cut off, every text can be read, and pictures of it for the README on request."""

import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.end_to_end.gateway import SAMPLES
from tests.end_to_end.web_page.coffee import COFFEE, COFFEE_SIZE, click_cup
from tests.end_to_end.web_page.visitor import DESKTOP, PHONE, Arrive, Visitor

PICTURES = Path(__file__).resolve().parents[1] / "pictures"
WANTED = "OVSAM_PICTURES" in os.environ  # write the README's pictures anew
LEAST_CONTRAST = 4.5  # WCAG 2.2, level AA
FAINT_TEXTS = """least => {
  const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const colour = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(value => channel(value / 255))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const [r, g, b, alpha = 1] = colour(getComputedStyle(node).backgroundColor);
      if (alpha > 0.7) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const hasText = node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter(node => node.checkVisibility() && hasText(node) && !node.closest(":disabled, .unseen, dialog:not([open])"))
    .map(node => {
      const [a, b] = [light(colour(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
      return [node.textContent.trim(), (a + 0.05) / (b + 0.05)];
    })
    .filter(([, ratio]) => ratio < least);
}"""
NAMELESS = """[...document.querySelectorAll("button, input, select, textarea, [role]")]
  .filter(node => node.checkVisibility() && node.getAttribute("role") !== "alert")
  .filter(node => !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby")
    || node.labels?.length || node.innerText.trim()))
  .map(node => node.outerHTML)"""
CUT_OFF = """[...document.querySelectorAll("button, h1, h2, .tool-group, .zoom")]
  .filter(node => node.checkVisibility() && !node.closest("ul, ol, .welcome"))
  .filter(node => { const box = node.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth + 0.5; })
  .map(node => node.outerHTML)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE, (320, 640)], ids=["desktop", "phone", "small"])
def test_everything_fits_and_can_be_read(arrive: Arrive, size: tuple[int, int], scheme: str) -> None:
    visitor = arrive(size=size, color_scheme=scheme)
    assert_fits(visitor, size)
    click_cup(visitor)
    assert_fits(visitor, size)
    visitor.press("?")
    expect(visitor.page.locator("#help")).to_be_visible()
    assert_fits(visitor, size)


def assert_fits(visitor: Visitor, size: tuple[int, int]) -> None:
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert visitor.page.evaluate(CUT_OFF) == []
    assert visitor.page.evaluate(NAMELESS) == []
    assert visitor.page.evaluate(FAINT_TEXTS, LEAST_CONTRAST) == []


def test_the_theme_can_be_chosen_and_is_kept(arrive: Arrive) -> None:
    visitor = arrive(color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = visitor.page.evaluate(background)
    visitor.page.get_by_label("Use dark colours").click()
    dark = visitor.page.evaluate(background)
    visitor.page.reload()
    assert visitor.page.evaluate(background) == dark != light


def test_pictures_of_the_page(arrive: Arrive, tmp_path: Path) -> None:
    """Two macaws on a desktop in light, a cup on a phone in dark: as the README shows them."""
    folder = PICTURES if WANTED else tmp_path
    folder.mkdir(exist_ok=True)
    desktop = arrive(color_scheme="light")
    desktop.open("parrots.jpg", (SAMPLES / "parrots.jpg").read_bytes())
    frame = desktop.frame(768, 512)
    desktop.press("p")
    for start, end in (((70, 170), (405, 511)), ((375, 95), (767, 511))):
        desktop.page.mouse.move(*frame.at(*start))
        desktop.page.mouse.down()
        desktop.page.mouse.move(*frame.at(*end), steps=3)
        desktop.page.mouse.up()
        desktop.answered()
    assert len(desktop.objects()) == 2
    save(desktop, folder / "page-desktop.jpg")
    phone = arrive(size=PHONE, density=2, is_mobile=True, has_touch=True, color_scheme="dark")
    phone.open("coffee.jpg", COFFEE)
    frame = phone.frame(*COFFEE_SIZE)
    phone.page.touchscreen.tap(*frame.at(285, 110))
    phone.answered()
    save(phone, folder / "page-phone.jpg")


def save(visitor: Visitor, path: Path) -> None:
    Image.fromarray(visitor.shot()).save(path, quality=82, optimize=True)
    assert path.stat().st_size < 250_000
