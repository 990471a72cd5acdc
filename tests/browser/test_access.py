"""The pages for everybody: keys alone, narrow and wide, light and dark, and what axe finds."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visits
from tests.browser.hands import draw, finished, stroke, told
from tests.system.conftest import Served

GRAVE = ("serious", "critical")
NOTHING = "\u2013"


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]}"
        for rule in found
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_grave_fault_while_a_picture_is_made(visit: Visits, scheme: str) -> None:
    here = visit(color_scheme=scheme)
    here.expected = ("status of 422",)
    page = here.open()
    assert faults(page) == []
    draw(page, num_inference_steps=900)
    page.wait_for_selector(".fault")
    page.click("#vary summary")
    page.click("#more summary")
    assert faults(page) == []
    draw(page, num_inference_steps=20, num_images=2)
    finished(page)
    assert faults(page) == []
    page.locator(".frame .shot").first.click()
    page.click("#compare")
    assert faults(page) == []
    page.get_by_role("button", name="Draw from it").click()
    page.check("[name=task][value=inpainting]", force=True)
    stroke(page, (0.2, 0.2), (0.8, 0.8))
    assert faults(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_grave_fault_on_the_status_page(visit: Visits, scheme: str) -> None:
    assert faults(visit(color_scheme=scheme).open("/status")) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_grave_fault_in_the_reference(visit: Visits, scheme: str) -> None:
    page = visit(color_scheme=scheme).open("/docs")
    page.locator("#create_generation summary").click()
    assert faults(page) == []


def test_everything_can_be_done_by_keys(visit: Visits, house: Served) -> None:
    with house.client() as client:
        for _ in range(3):
            asked = {"prompt": "a red circle", "num_inference_steps": 1}
            client.post("/v1/generations", json=asked, headers={"Prefer": "wait=30"})
    page = visit().open()
    page.keyboard.press("Control+a")  # the prompt has the focus
    page.keyboard.type("a red circle on a blue background")
    page.keyboard.press("Control+Enter")
    finished(page)
    page.locator("#draw").focus()
    page.keyboard.press("Tab")
    shot = page.locator(".frame .shot")
    expect(shot).to_be_focused()
    assert shot.evaluate("s => getComputedStyle(s).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    expect(page.get_by_label("Close", exact=True)).to_be_focused()
    for _ in range(2):  # also when what had the focus is gone
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("Newer")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(shot).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#easel-foot a")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#checkpoint")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#source-part")).to_be_visible()


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_nothing_sticks_out_at_any_width(visit: Visits, width: int) -> None:
    page = visit(viewport={"width": width, "height": 800}, has_touch=width < 800).open()
    draw(page, "a red circle on a blue background " + "with-a-word-that-does-not-end" * 8)
    finished(page)
    sticks_out = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(sticks_out)
    page.locator(".tile").first.click()
    assert not page.evaluate(sticks_out)
    assert not page.locator("#detail").evaluate("d => d.scrollWidth > d.clientWidth")
    page.goto(page.url + "status")
    page.wait_for_selector(".queue")
    assert not page.evaluate(sticks_out)
    page.get_by_role("link", name="API").click()
    page.locator("#create_generation summary").click()
    assert not page.evaluate(sticks_out)


def test_the_colours_are_those_of_the_system_until_they_are_switched(visit: Visits) -> None:
    page = visit(color_scheme="dark").open()
    light, dark = re.compile(r"^rgb\((2\d\d(, )?){3}\)$"), re.compile(r"^rgb\((\d\d(, )?){3}\)$")
    ground = expect(page.locator("body"))  # the colours may follow the switch a frame later
    ground.to_have_css("background-color", dark)
    page.get_by_label("Dark colours").click()
    ground.to_have_css("background-color", light)
    page.reload()
    ground.to_have_css("background-color", light)
    page.emulate_media(color_scheme="light")
    page.get_by_label("Dark colours").click()
    ground.to_have_css("background-color", dark)


def test_who_wants_no_motion_gets_none(visit: Visits) -> None:
    page = visit().open()
    draw(page, num_inference_steps=150)
    page.wait_for_selector(".frame.drawing")
    moved = "s => parseFloat(getComputedStyle(s, '::after').animationDuration)"
    assert page.locator(".shot").evaluate(moved) < 0.001
    page.emulate_media(reduced_motion="no-preference")
    assert page.locator(".shot").evaluate(moved) > 1
    page.click("#cancel")
    told(page, "#frame", "Canceled")


def test_the_status_page_shows_what_happens(visit: Visits) -> None:
    page = visit().open()
    draw(page, num_inference_steps=150, num_images=4)
    told(page, "#easel-foot", "Drawing")
    status = page.context.new_page()
    status.goto(page.url + "status")
    told(status, ".queue h2", "demo")
    told(status, "#summary", "1 worker · 0 waiting · 1 being drawn")
    plots = status.locator(".plot strong")
    expect(plots).to_have_text(["0", "4", "25 %", "8", re.compile(r"\d+ ms")])
    page.click("#cancel")
    told(page, "#frame", "Canceled")
    expect(plots).to_have_text(["0", "0", "0 %", NOTHING, NOTHING])
