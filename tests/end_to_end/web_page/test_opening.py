"""Pictures come in by every way, and what goes wrong is told kindly."""

from playwright.sync_api import expect

from tests.end_to_end.web_page.coffee import SPOON, click_cup, expected_errors, packed, ramp
from tests.end_to_end.web_page.visitor import Arrive


def test_what_is_no_picture_is_refused_kindly_and_work_goes_on(arrive: Arrive) -> None:
    visitor = arrive()
    click_cup(visitor)
    kept = visitor.objects()
    with expected_errors(visitor):
        visitor.choose_file("notes.jpg", b"just text")
        alert = visitor.page.locator(".notice.problem")
        expect(alert).to_contain_text("Not a readable image")
        expect(alert).to_contain_text("JPEG, PNG, WebP")
    assert visitor.objects() == kept
    alert.get_by_label("Dismiss").click()
    expect(alert).to_have_count(0)


def test_a_lost_connection_is_told_and_can_be_tried_again(arrive: Arrive) -> None:
    visitor = arrive()
    frame = click_cup(visitor)
    visitor.press("p", "n")
    with expected_errors(visitor):
        visitor.page.context.set_offline(True)
        visitor.page.mouse.click(*frame.at(*SPOON))
        expect(visitor.page.locator(".notice.problem")).to_contain_text("cannot be reached")
        visitor.page.context.set_offline(False)
    visitor.page.click("#selected-note button")
    expect(visitor.page.locator("#names .name-text")).to_have_count(5)


def test_pictures_can_be_dropped_and_pasted(arrive: Arrive) -> None:
    visitor = arrive()
    give = """([kind, bytes]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(bytes)], `${kind}.png`, {type: "image/png"}));
        const event = kind === "drop"
            ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
            : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true});
        document.body.dispatchEvent(event);
    }"""
    for kind, size in (("drop", (40, 30)), ("paste", (50, 20))):
        visitor.page.evaluate(give, [kind, list(packed(ramp(*size)))])
        expect(visitor.page.locator("#file-name")).to_contain_text(f"{kind}.png · {size[0]}")
        expect(visitor.page.locator("#progress")).to_be_hidden()


def test_another_picture_keeps_the_way_back(arrive: Arrive) -> None:
    visitor = arrive()
    click_cup(visitor)
    kept = visitor.objects()
    visitor.open("ramp.png", packed(ramp(60, 40)))
    assert visitor.objects() == []
    visitor.page.get_by_role("button", name="Go back").click()
    assert visitor.objects() == kept
    expect(visitor.page.locator("#file-name")).to_contain_text("coffee.jpg")


def test_the_description_of_the_interface_asks_nobody_else(arrive: Arrive) -> None:
    """Swagger UI comes with the service: `arrive` refuses requests to other hosts."""
    visitor = arrive()
    visitor.page.goto(f"{visitor.url}/docs")
    expect(visitor.page.locator("#operations-default-segment_v1_segment_post")).to_be_visible()
    assert any("/docs/files/" in request.url for request in visitor.requests)
