"""What a person waits for in the playground, in a headless browser before a private server."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Request, sync_playwright

from benchmarks.service import private_server
from benchmarks.timing import Figure, at_most

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
PROMPT = "a red circle on a blue background"


def figures(rounds: int) -> Iterator[Figure]:
    """First paint, and from Draw to a picture; medians of fresh windows. Nothing without a
    browser."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        print("playground: not measured, there is no Chromium on PATH")
        return
    with private_server() as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        visits = [visit(browser, str(client.base_url)) for _ in range(rounds)]
        browser.close()
    shown, drawn, weights = (statistics.median(each) for each in zip(*visits, strict=True))
    detail = f"medians of {rounds} fresh windows; the page weighs {weights / 1000:.0f} kB"
    yield at_most("(f) the playground's first contentful paint", shown, 1.0, "s", detail)
    yield at_most("(g) from Draw to the first picture, demo checkpoint", drawn, 3.0, "s")


def visit(browser: Browser, url: str) -> tuple[float, float, int]:
    """Seconds to the first paint, seconds from Draw to a decoded picture, bytes of the page."""
    context = browser.new_context()
    page = context.new_page()
    sizes: list[int] = []
    page.on(
        "requestfinished", lambda it: sizes.append(it.sizes()["responseBodySize"] * of_page(it))
    )
    page.goto(url)
    page.wait_for_selector("#tasks input")
    shown, weight = page.evaluate(PAINT) / 1000, sum(sizes)
    page.fill("#prompt", PROMPT)
    began = time.perf_counter()
    page.click("#draw:not([aria-busy])")
    page.wait_for_selector(".frame.developed .shot img")
    page.locator(".frame img").first.evaluate("image => image.decode()")
    drawn = time.perf_counter() - began
    context.close()
    return shown, drawn, weight


def of_page(request: Request) -> bool:
    """Whether it is a file of ours; what the API answers depends on what is served."""
    path = urlsplit(request.url).path
    return path == "/" or path.startswith("/playground/")
