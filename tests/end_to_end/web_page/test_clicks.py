"""Clicks, taps, boxes and keys reach the service as the pixels that the person saw."""

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.end_to_end.web_page.coffee import COFFEE, COFFEE_SIZE, SPOON, click_cup, packed, ramp
from tests.end_to_end.web_page.visitor import PHONE, Arrive, Visitor

ORIENTATION = 0x0112


@pytest.mark.parametrize("density", [1, 2, 1.5])
def test_clicks_land_on_the_pixel_that_is_seen_at_any_zoom(arrive: Arrive, density: float) -> None:
    visitor = arrive(density=density)
    visitor.open("ramp.png", packed(ramp(200, 150)))
    visitor.press("p")  # the preview under the mouse would tint what is seen
    visitor.press("h")
    frame = visitor.frame(200, 150)
    for zoom, (x, y) in enumerate([(30, 40), (150, 100), (77, 31)]):
        visitor.page.mouse.move(*frame.at(100, 75))
        visitor.page.mouse.wheel(0, -220 * zoom)
        if zoom == 2:
            visitor.press("-")
        place = frame.at(100 + (x - 100) / (1 + zoom), 75 + (y - 75) / (1 + zoom))
        red, green = clicked_colour(visitor, *place)
        assert visitor.last_prompt()["points"] == [{"x": red, "y": green, "label": 1}]


def clicked_colour(visitor: Visitor, x: float, y: float) -> tuple[int, int]:
    """Click the middle of a device pixel near a window position; what the screenshot showed there."""
    column, row = int(x * visitor.density), int(y * visitor.density)
    red, green, _ = visitor.shot()[row, column]
    visitor.press("n")
    visitor.page.mouse.click((column + 0.5) / visitor.density, (row + 0.5) / visitor.density)
    visitor.answered()
    return int(red), int(green)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_clicks_land_right_in_a_photo_turned_by_exif(arrive: Arrive, orientation: int) -> None:
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = ramp(240, 160).transpose(undo[orientation])
    visitor = arrive()
    visitor.open("turned.jpg", packed(stored, "JPEG", quality=100, subsampling=0, exif=exif))
    expect(visitor.page.locator("#file-name")).to_contain_text("turned.jpg · 240")
    visitor.press("p", "h")
    place = visitor.frame(240, 160).at(190, 41)
    red, green = clicked_colour(visitor, *place)
    (point,) = visitor.last_prompt()["points"]
    assert abs(point["x"] - red) <= 3  # JPEG's own error
    assert abs(point["y"] - green) <= 3
    assert (abs(red - 190) <= 4, abs(green - 41) <= 4) == (True, True)


def test_a_tap_on_a_phone_lands_on_its_pixel(arrive: Arrive) -> None:
    visitor = arrive(size=PHONE, density=2, is_mobile=True, has_touch=True)
    visitor.open("ramp.png", packed(ramp(120, 160)))
    frame = visitor.frame(120, 160)
    visitor.page.touchscreen.tap(*frame.at(80, 30))
    visitor.answered()
    assert visitor.last_prompt()["points"] == [{"x": 80, "y": 30, "label": 1}]
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def test_right_click_shift_click_and_the_tool_take_away(arrive: Arrive) -> None:
    visitor = arrive()
    frame = click_cup(visitor)
    visitor.page.mouse.click(*frame.at(*SPOON), button="right")
    visitor.page.keyboard.down("Shift")
    visitor.page.mouse.click(*frame.at(150, 250))
    visitor.page.keyboard.up("Shift")
    visitor.press("x")
    visitor.page.mouse.click(*frame.at(100, 200))
    visitor.press("x")
    visitor.page.mouse.click(*frame.at(300, 180))
    visitor.answered()
    assert [point["label"] for point in visitor.last_prompt()["points"]] == [1, 0, 0, 0, 1]
    assert len(visitor.objects()) == 1


def test_a_dragged_box_makes_an_object(arrive: Arrive) -> None:
    visitor = arrive()
    visitor.open("coffee.jpg", COFFEE)
    frame = visitor.frame(*COFFEE_SIZE)
    visitor.page.mouse.move(*frame.at(180, 20))
    visitor.page.mouse.down()
    visitor.page.mouse.move(*frame.at(430, 300), steps=4)
    visitor.page.mouse.up()
    visitor.answered()
    box = visitor.last_prompt()["box"]
    assert np.abs(np.subtract(box, [180.5, 20.5, 430.5, 300.5])).max() <= 1
    assert len(visitor.names()) == 5


def test_the_keyboard_alone_is_enough(arrive: Arrive) -> None:
    visitor = arrive()
    visitor.open("coffee.jpg", COFFEE)
    visitor.page.locator("#stage").focus()
    visitor.press("ArrowRight", "Shift+ArrowDown", "Enter")
    visitor.answered()
    (point,) = visitor.last_prompt()["points"]
    assert (point["x"], point["y"]) == (301, 210)
    visitor.press("Shift+ArrowLeft", "Shift+Enter")
    visitor.answered()
    assert [p["label"] for p in visitor.last_prompt()["points"]] == [1, 0]
    visitor.press("n", "Shift+ArrowUp", "Enter")
    visitor.answered()
    assert len(visitor.objects()) == 2
    visitor.press(".")
    expect(visitor.page.locator("[aria-current=true]")).to_have_attribute("data-key", "select-1")
    visitor.press("?")
    expect(visitor.page.locator("#help")).to_be_visible()
    visitor.press("Escape")
    expect(visitor.page.locator("#help")).to_be_hidden()
