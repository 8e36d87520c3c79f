"""Objects are corrected, renamed, taken back and brought back."""

from playwright.sync_api import expect

from tests.end_to_end.web_page.coffee import SPOON, click_cup
from tests.end_to_end.web_page.visitor import Arrive


def test_undo_and_redo_go_through_every_step_without_asking_again(arrive: Arrive) -> None:
    visitor = arrive()
    frame = click_cup(visitor)
    visitor.press("p", "n")
    visitor.page.mouse.click(*frame.at(*SPOON))
    visitor.answered()
    visitor.press("2")
    named = visitor.objects()
    assert named[1] == visitor.names()[1]
    visitor.press("Delete")
    assert visitor.objects() == named[:1]
    asked = len(visitor.segment_bodies())
    visitor.press("Control+z")
    assert visitor.objects() == named
    visitor.press("Control+z", "Control+z", "Control+z")
    assert visitor.objects() == []
    expect(visitor.page.locator("[data-command=undo]")).to_be_disabled()
    visitor.press("Control+Shift+Z", "Control+y", "Control+y")
    assert visitor.objects() == named
    assert len(visitor.segment_bodies()) == asked


def test_own_words_rename_what_is_there_and_what_comes(arrive: Arrive) -> None:
    visitor = arrive()
    frame = click_cup(visitor)
    visitor.page.select_option("#vocabulary", "own words")
    visitor.page.fill("#own-words", "espresso cup, bicycle; tree")
    expect(visitor.page.locator("#names .name-text")).to_have_count(3)
    assert sorted(visitor.names()) == ["bicycle", "espresso cup", "tree"]
    visitor.page.locator("#stage").focus()
    visitor.press("n")
    visitor.page.mouse.click(*frame.at(*SPOON))
    visitor.answered()
    assert sorted(visitor.names()) == ["bicycle", "espresso cup", "tree"]
    visitor.page.select_option("#vocabulary", "coco")
    expect(visitor.page.locator("#vocabulary-about")).to_contain_text("80 names")
    expect(visitor.page.locator("#names .name-text")).to_have_count(5)
    visitor.page.fill("#vocabulary-search", "cup")
    visitor.page.locator("#vocabulary-names .chip", has_text="cup").first.click()
    assert visitor.objects()[1] == "cup"


def test_a_name_of_ones_own_can_be_typed(arrive: Arrive) -> None:
    visitor = arrive()
    click_cup(visitor)
    visitor.press("e")
    visitor.page.keyboard.type("my favourite cup")
    visitor.press("Enter")
    assert visitor.objects() == ["my favourite cup"]
    expect(visitor.page.locator("#selected-hand")).to_be_visible()
    visitor.press("Control+z")
    assert visitor.objects() == visitor.names()[:1]
