"""What a person does on the playground, and sees."""

from __future__ import annotations

import io

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from demo.evaluate import judge

PROMPT = "a red circle on a blue background"
Pixels = NDArray[np.uint8]


def draw(page: Page, prompt: str = PROMPT, **fields: object) -> None:
    """Fill in the form and press Draw."""
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    page.fill("#prompt", prompt)
    page.click("#draw:not([aria-busy])")


def finished(page: Page) -> None:
    """Until the picture is on the easel, decoded."""
    page.wait_for_selector(".frame.developed .shot img, .frame.swept img")
    for image in page.locator(".frame img").all():
        image.evaluate("image => image.decode()")


def newest(url: str) -> dict[str, object]:
    """The record of what was submitted last."""
    found: dict[str, object] = httpx.get(f"{url}/v1/generations?limit=1").json()["generations"][0]
    return found


def picture(page: Page, selector: str = ".frame .shot img") -> Pixels:
    """The pixels of a picture on the page."""
    address = page.locator(selector).first.evaluate("image => image.src")
    return pixels(httpx.get(address).content)


def pixels(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def shown(found: Pixels) -> tuple[str, str, str]:
    """The shape, its colour and the background, judged by the pixels."""
    verdict = judge(found.astype(np.float32))
    return verdict.shape, verdict.colour, verdict.background


def stroke(page: Page, *places: tuple[float, float]) -> None:
    """Paint a line on the mask through places given as shares of its sides."""
    canvas = page.locator(".paper canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    for number, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def painted(page: Page) -> float:
    """The share of the mask that is painted."""
    share: float = page.locator(".paper canvas").evaluate(
        """canvas => {
          const { width, height } = canvas;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          return data.filter((value, i) => i % 4 === 3 && value > 127).length / (width * height);
        }"""
    )
    return share


def told(page: Page, selector: str, text: str) -> None:
    """It says so, or will in a moment."""
    expect(page.locator(selector).first).to_contain_text(text)
