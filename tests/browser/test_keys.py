"""The pages of a Darkroom that wants a key: asked for once, sent with everything, kept by whoever
says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit, Visits
from tests.browser.hands import draw, told
from tests.browser.test_access import faults
from tests.system.conftest import Served


@pytest.fixture(scope="module")
def locked(house: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """A server of its own, and a key of it."""
    served = Served(tmp_path_factory.mktemp("locked") / "data")
    served.until("Darkroom is ready")
    made = ("keys", "create", "me", "--data-dir", str(served.data_dir))
    key = subprocess.run(
        [sys.executable, "-m", "server", *made], capture_output=True, text=True, check=True
    )
    yield served, key.stdout.strip()
    assert served.stop() == 0, served.said


@pytest.fixture
def arrive(visit: Visits, locked: tuple[Served, str]) -> Callable[..., Visit]:
    """Somebody opens a page of it, and is asked for a key."""

    def arrive(path: str = "/") -> Visit:
        here = visit()
        here.url = locked[0].url
        here.expected = ("status of 401",)
        here.page.goto(here.url + path)
        expect(here.page.locator("dialog.key")).to_be_visible()
        return here

    return arrive


def show(page: Page, key: str, *, remember: bool = False) -> None:
    """Type the key in, by keys alone."""
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(key)
    if remember:
        page.get_by_label("Remember it on this device").check()
        page.get_by_label("API key").focus()
    page.keyboard.press("Enter")


def test_who_shows_the_key_draws_and_sees_all_of_it(
    arrive: Callable[..., Visit], locked: tuple[Served, str]
) -> None:
    here = arrive()
    page = here.page
    assert faults(page) == []
    show(page, locked[1][:-4] + "AAAA")
    told(page, "dialog.key", "That key is not good here")
    show(page, locked[1])
    page.wait_for_selector("#tasks input")
    expect(page.locator("dialog.key")).to_have_count(0)
    here.asked.clear()
    draw(page, num_inference_steps=30)
    page.wait_for_selector(".frame.developed .shot img")
    for image in (".frame .shot img", ".tile img"):
        page.wait_for_selector(f"{image}[src^='blob:']")
        assert page.locator(image).first.evaluate("i => i.decode().then(() => i.naturalWidth)")
    page.wait_for_selector("#easel-foot a[download][href^='blob:']")
    asked = [request for request in here.asked if "/v1/" in request.url]
    for part in ("/events", "/images/0", "/preview"):
        assert any(part in request.url for request in asked), part
    sent = {request.all_headers().get("authorization") for request in asked}
    assert sent == {f"Bearer {locked[1]}"}
    assert not any(locked[1] in request.url for request in here.asked)


def test_a_key_is_forgotten_with_its_tab_unless_it_is_to_be_kept(
    arrive: Callable[..., Visit], locked: tuple[Served, str]
) -> None:
    here = arrive()
    show(here.page, locked[1])
    here.page.wait_for_selector("#tasks input")
    here.page.reload()
    here.page.wait_for_selector("#tasks input")
    other = here.page.context.new_page()
    other.goto(here.url)
    show(other, locked[1], remember=True)
    other.wait_for_selector("#tasks input")
    third = here.page.context.new_page()
    third.goto(here.url)
    third.wait_for_selector("#tasks input")
    expect(third.locator("dialog.key")).to_have_count(0)


def test_the_status_page_asks_too(arrive: Callable[..., Visit], locked: tuple[Served, str]) -> None:
    page = arrive("/status").page
    assert faults(page) == []
    show(page, locked[1])
    told(page, ".queue h2", "demo")
