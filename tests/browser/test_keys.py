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
    yield served, create(served, "me")
    assert served.stop() == 0, served.said


def create(served: Served, name: str) -> str:
    """A new key of it."""
    made = ("keys", "create", name, "--data-dir", str(served.data_dir))
    key = subprocess.run(
        [sys.executable, "-m", "server", *made], capture_output=True, text=True, check=True
    )
    return key.stdout.strip()


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
    expect(page.get_by_role("textbox", name="API key")).to_be_focused()
    page.keyboard.type(key)
    if remember:
        page.get_by_label("Remember it on this device").check()
        page.get_by_role("textbox", name="API key").focus()
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


def test_a_key_can_be_forgotten_and_nothing_is_left_of_it(
    arrive: Callable[..., Visit], locked: tuple[Served, str]
) -> None:
    page = arrive().page
    show(page, locked[1], remember=True)
    page.wait_for_selector("#tasks input")
    page.fill("#prompt", "what nobody else should read")
    other = page.context.new_page()
    other.goto(locked[0].url)
    other.wait_for_selector("#tasks input")

    page.get_by_role("button", name="API key").click()
    told(page, "dialog.key", "of the key “me”")
    assert faults(page) == []
    page.get_by_role("button", name="Forget the key").click()
    for tab in (page, other):
        told(tab, "dialog.key", "This Darkroom wants a key")
        expect(tab.get_by_role("button", name="API key")).to_have_count(0)
        expect(tab.locator("#tiles li")).to_have_count(0)
        assert tab.input_value("#prompt") == ""
        assert tab.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    page.reload()
    told(page, "dialog.key", "This Darkroom wants a key")
    show(page, locked[1])
    page.wait_for_selector("#tasks input")


@pytest.mark.parametrize("path", ["/", "/status"])
def test_another_key_can_be_used(
    arrive: Callable[..., Visit], locked: tuple[Served, str], path: str
) -> None:
    other = create(locked[0], "somebody else")
    page = arrive(path).page
    show(page, locked[1])
    change = page.get_by_role("button", name="API key")
    change.click()
    page.keyboard.press("Escape")
    expect(page.locator("dialog.key")).to_have_count(0)
    change.click()
    show(page, "dr_no_such_key")
    told(page, "dialog.key", "That key is not good here")
    show(page, other)
    change.click()
    told(page, "dialog.key", "of the key “somebody else”")


def test_where_no_key_is_wanted_none_is_spoken_of(visit: Visits) -> None:
    page = visit().open()
    expect(page.locator("#change-key")).to_have_count(0)
    page.evaluate("localStorage.setItem('darkroom-key', 'of a house that had keys')")
    with page.expect_response("**/v1/usage"):
        page.reload()
    page.wait_for_selector("#tasks input")
    expect(page.locator("#change-key")).to_have_count(0)


def test_the_status_page_asks_too(arrive: Callable[..., Visit], locked: tuple[Served, str]) -> None:
    page = arrive("/status").page
    assert faults(page) == []
    show(page, locked[1])
    told(page, ".queue h2", "demo")
