"""Masks and names come back to the picture, and a picture travels once."""

import json
from urllib.parse import urlsplit

import numpy as np
from playwright.sync_api import Route, expect
from pycocotools import mask as coco

from tests.end_to_end.gateway import Gateway
from tests.end_to_end.web_page.coffee import COFFEE, COFFEE_SIZE, CUP, SPOON, click_cup, expected_errors, packed, ramp
from tests.end_to_end.web_page.visitor import Arrive


def test_the_mask_is_painted_where_the_service_says_at_double_density(arrive: Arrive) -> None:
    visitor = arrive(density=2)
    with visitor.page.expect_response(lambda answer: urlsplit(answer.url).path == "/v1/segment") as answers:
        frame = click_cup(visitor)
    (result,) = answers.value.json()["results"]
    rle = result["mask"]
    mask = coco.decode({"size": rle["size"], "counts": rle["counts"].encode()})
    visitor.press("Escape")  # marks of the selected object lie over its mask
    places = [(x, y) for x in range(5, 600, 19) for y in range(60, 395, 17)]
    alpha = visitor.overlay_alpha([frame.at(*place) for place in places])
    agreed = [(opacity > 0) == bool(mask[y, x]) for (x, y), opacity in zip(places, alpha, strict=True)]
    assert 0.02 < mask.mean() < 0.9
    assert np.mean(agreed) > 0.97


def test_a_click_gives_mask_and_names_and_the_next_sends_no_image(arrive: Arrive) -> None:
    visitor = arrive()
    frame = click_cup(visitor)
    assert len(visitor.names()) == 5
    assert set(visitor.names()) & {"cup", "mug", "coffee", "coffee cup"}
    assert visitor.objects() == visitor.names()[:1]
    assert visitor.overlay_alpha([frame.at(CUP[0] + 15, CUP[1])])[0] > 0
    visitor.requests.clear()
    visitor.press("p")
    visitor.page.mouse.click(*frame.at(CUP[0] - 40, CUP[1] - 30))
    visitor.answered()
    clicks = [request for request in visitor.requests if request.method != "GET"]
    assert [urlsplit(request.url).path for request in clicks] == ["/v1/segment"]
    assert len(clicks[0].post_data_buffer or b"") < 1024
    assert len(visitor.last_prompt()["points"]) == 2
    assert "mask_ref" in visitor.last_prompt()
    expect(visitor.page.locator("#cost-chip")).to_contain_text("memory")
    expect(visitor.page.locator("#stages li")).not_to_have_count(0)


def test_a_picture_that_the_service_knows_is_not_sent_again(arrive: Arrive) -> None:
    arrive().open("coffee.jpg", COFFEE)
    visitor = arrive()
    visitor.open("again.jpg", COFFEE)
    asked = [(r.method, urlsplit(r.url).path.split(":")[0]) for r in visitor.requests if "/v1/images" in r.url]
    assert asked == [("HEAD", "/v1/images/sha256")]


def test_every_call_about_a_picture_names_it_to_load_balancers(arrive: Arrive) -> None:
    visitor = arrive()
    visitor.open("new.png", packed(ramp(70, 50)))
    visitor.page.mouse.click(*visitor.frame(70, 50).at(30, 20))
    visitor.answered()
    digest = visitor.segment_bodies()[-1]["image"]
    asked = {(r.method, urlsplit(r.url).path, r.headers.get("x-image-digest")) for r in visitor.requests}
    about = {("HEAD", f"/v1/images/{digest}"), ("POST", "/v1/images"), ("POST", "/v1/segment")}
    assert {(method, path, digest) for method, path in about} <= asked


def test_without_subtle_crypto_a_picture_is_named_once_the_service_has_named_it(arrive: Arrive) -> None:
    visitor = arrive()
    visitor.page.evaluate("delete Crypto.prototype.subtle")
    visitor.open("new.png", packed(ramp(71, 50)))
    visitor.page.mouse.click(*visitor.frame(71, 50).at(30, 20))
    visitor.answered()
    digest = visitor.segment_bodies()[-1]["image"]
    calls = [r for r in visitor.requests if r.method == "POST"]
    named = [(urlsplit(r.url).path, r.headers.get("x-image-digest")) for r in calls]
    assert named[0] == ("/v1/images", None)
    assert set(named[1:]) == {("/v1/segment", digest)}


def test_a_picture_that_the_service_forgot_is_sent_again(arrive: Arrive, gateway: Gateway) -> None:
    visitor = arrive()
    frame = click_cup(visitor)
    digest = visitor.segment_bodies()[-1]["image"]
    with gateway.client() as http:
        assert http.delete(f"/v1/images/{digest}").status_code == 204
    visitor.press("p", "n")
    with expected_errors(visitor):
        visitor.page.mouse.click(*frame.at(*SPOON))
        visitor.answered()
    assert len(visitor.objects()) == 2
    assert len(visitor.names()) == 5


def test_the_mouse_previews_what_a_click_would_give(arrive: Arrive) -> None:
    visitor = arrive()
    visitor.open("coffee.jpg", COFFEE)
    frame = visitor.frame(*COFFEE_SIZE)
    with visitor.page.expect_response(lambda answer: urlsplit(answer.url).path == "/v1/segment"):
        for step in range(20):
            visitor.page.mouse.move(*frame.at(CUP[0] - 20 + step, CUP[1]))
    visitor.page.wait_for_timeout(100)
    assert visitor.overlay_alpha([frame.at(CUP[0] + 15, CUP[1])])[0] > 0
    assert visitor.objects() == []
    previews = [json.loads(r.post_data or "") for r in visitor.requests if urlsplit(r.url).path == "/v1/segment"]
    assert len(previews) <= 5
    assert {preview["output"]["mask_ref"] for preview in previews} == {False}
    visitor.page.mouse.move(5, 5)
    assert visitor.overlay_alpha([frame.at(CUP[0] + 15, CUP[1])]) == [0]


def test_everything_names_each_object_once(arrive: Arrive) -> None:
    visitor = arrive()
    click_cup(visitor)

    def coarser(route: Route) -> None:
        route.continue_(post_data=json.dumps(json.loads(route.request.post_data or "") | {"grid": 4}))

    visitor.page.route("**/v1/segment/everything", coarser)
    visitor.page.select_option("#strictness", "0.3")
    visitor.press("a")
    expect(visitor.page.locator("#notices")).to_contain_text("objects found")
    found = visitor.objects()
    assert len(found) > 1
    assert all(name != "object" for name in found)
    visitor.press("a")
    expect(visitor.page.locator("#notices")).to_contain_text("No further objects")
    assert visitor.objects() == found
    visitor.press(".")
    assert len(visitor.names()) == 5
    visitor.press("Control+z")
    assert len(visitor.objects()) == 1
