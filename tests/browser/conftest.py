"""A real browser before a real `darkroom serve` of the demo checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from redis import Redis

from tests.api.house import Hands, gateway
from tests.api.pictures import CARDS
from tests.redis_server import RedisServer
from tests.system.conftest import Served

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = [
    "--no-sandbox",  # CI is root in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
]
PATIENCE_MS = 20_000
WIDE = {"width": 1440, "height": 900}
WINDOW: dict[str, Any] = {"viewport": WIDE, "reduced_motion": "reduce"}
"""Without motion, which a browser without a GPU spends the cores on that draw."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They share one server, and one browser, so they share one process of pytest-xdist."""
    for item in items:
        if "house" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all of them; the gallery of each holds what the ones before have drawn."""
    if CHROMIUM is None:
        pytest.skip(f"there is no Chromium on PATH: none of {', '.join(NAMES)}")
    house = Served(tmp_path_factory.mktemp("house") / "data")
    house.until("Darkroom is ready")
    yield house
    assert house.stop() == 0, house.said


@pytest.fixture(scope="module")
def browser(house: Served) -> Iterator[Browser]:
    """Not for the session: while playwright runs, nothing else may run an event loop here."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


class Visit:
    """A page, all that it asked for, and all that it complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.asked: list[Request] = []
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()
        """Parts of complaints that belong to the test."""
        page.on("request", lambda request: self.asked.append(request))
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def open(self, path: str = "/") -> Page:
        """The page, when it can be used."""
        self.page.goto(self.url + path)
        self.page.wait_for_selector("#tasks input" if path == "/" else ".queue")
        return self.page

    def check(self) -> None:
        """No complaint, no request to anybody else, no worker or frame."""
        unexpected = [c for c in self.complaints if not any(part in c for part in self.expected)]
        assert unexpected == []
        schemes = {urlsplit(request.url)[:2] for request in self.asked}
        assert schemes <= {urlsplit(self.url)[:2], ("blob", ""), ("data", "")}

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


Visits = Callable[..., Visit]


@pytest.fixture(autouse=True)
def idle(house: Served) -> Iterator[None]:
    """What a test leaves behind must not slow the next one down."""
    yield
    with house.client() as client:
        for one in client.get("/v1/generations", params={"limit": 50}).json()["generations"]:
            if one["status"] in ("queued", "running"):
                client.post(one["urls"]["cancel"])


@pytest.fixture
def visit(browser: Browser, house: Served) -> Iterator[Visits]:
    """Somebody opens the page for the first time, in a window of their own."""
    with ExitStack() as stack:
        made: list[Visit] = []

        def visit(**window: Any) -> Visit:
            context = browser.new_context(**(WINDOW | window))
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            made.append(Visit(context.new_page(), house.url))
            return made[-1]

        yield visit
        for one in made:
            one.check()


@pytest.fixture
def page(visit: Visits) -> Page:
    """The playground on a wide, light screen."""
    return visit().open()


@pytest.fixture(scope="module")
def atelier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Hands]]:
    """A gateway whose cards offer every task, and somebody who plays its workers."""
    folder = tmp_path_factory.mktemp("atelier")
    (folder / "cards.toml").write_text(CARDS)
    for file in ("Lora/line-art", "Lora/pixel-art", "VAE/sharper"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / f"{file}.safetensors").touch()
    server = RedisServer()
    server.start()
    served = gateway(server.url, folder, catalog=folder / "cards.toml", models_dir=folder)
    with Redis.from_url(server.url) as redis, served as client:
        yield client, Hands(redis, folder)
    server.close()


@pytest.fixture
def visitor(browser: Browser, atelier: tuple[httpx.Client, Hands]) -> Iterator[Visit]:
    with browser.new_context(**WINDOW) as context:
        context.set_default_timeout(PATIENCE_MS)
        visit = Visit(context.new_page(), str(atelier[0].base_url).rstrip("/"))
        yield visit
        visit.check()
