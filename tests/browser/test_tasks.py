"""What is offered is what the checkpoints of the workers can do: depth, upscaling, and no more."""

from __future__ import annotations

from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.api.house import Hands
from tests.api.pictures import picture
from tests.browser.conftest import Visit
from tests.browser.hands import draw, told


def offered(page: Page, selector: str) -> list[str]:
    return [str(option.get_attribute("value")) for option in page.locator(selector).all()]


def test_only_what_a_worker_serves_can_be_chosen(
    visitor: Visit, atelier: tuple[httpx.Client, Hands], tmp_path: Path
) -> None:
    _, hands = atelier
    hands.serve("any", name="any")
    page = visitor.open()
    assert offered(page, "#checkpoint option") == ["any"]
    assert "depth-to-image" in offered(page, "#tasks input")
    expect(page.locator("#upscaler-part")).to_be_hidden()

    hands.serve("x4", name="x4")
    page = visitor.open()
    assert offered(page, "#checkpoint option") == ["any", "x4"]
    assert offered(page, "#upscaler option") == ["", "x4"]
    page.select_option("#checkpoint", "x4")
    assert offered(page, "#tasks input") == ["upscale"]
    expect(page.locator("#size-part")).to_be_hidden()
    expect(page.locator("#upscaler-part")).to_be_hidden()
    assert page.input_value("#noise_level") == "20"
    assert page.input_value("#num_inference_steps") == "75"

    source = tmp_path / "source.png"
    source.write_bytes(picture(128, 128))
    page.set_input_files("#source", source)
    with page.expect_response("**/v1/generations") as answer:
        draw(page, "sharper", noise_level=40)
    told(page, "#easel-foot", "Waiting")
    spec = answer.value.json()["spec"]
    assert (spec["task"], spec["noise_level"], spec["width"]) == ("upscale", 40, 512)


def test_depth_takes_a_picture_and_a_chain_ends_with_the_upscaler(
    visitor: Visit, atelier: tuple[httpx.Client, Hands], tmp_path: Path
) -> None:
    _, hands = atelier
    hands.serve("any", name="any")
    hands.serve("x4", name="x4")
    page = visitor.open()
    page.check("[name=task][value=depth-to-image]", force=True)
    assert page.input_value("#strength") == "0.75"
    page.click("#draw")
    told(page, "[data-field=image] .fault", "Choose the picture to start from")
    source = tmp_path / "source.png"
    source.write_bytes(picture(128, 128))
    page.set_input_files("#source", source)
    page.select_option("#upscaler", "x4")
    with page.expect_response("**/v1/generations") as answer:
        draw(page, "a room")
    told(page, "#easel-foot", "Waiting")
    spec = answer.value.json()["spec"]
    assert (spec["task"], spec["strength"]) == ("depth-to-image", 0.75)
    assert spec["upscaler"]["checkpoint"] == "x4"


def test_loras_and_an_autoencoder_are_asked_for_by_name_and_reused(
    visitor: Visit, atelier: tuple[httpx.Client, Hands]
) -> None:
    _, hands = atelier
    hands.serve("any", name="any")
    visitor.expected = ("status of 422",)
    page = visitor.open()
    page.click("#more summary")
    assert offered(page, "#lora-names option") == ["line-art", "pixel-art"]
    assert offered(page, "#vae option") == ["", "sharper"]
    page.select_option("#vae", "sharper")
    draw(page, loras="pixel-art:0.8, pixle-art:x")
    told(page, "[data-field=loras] .fault", "did you mean pixel-art")
    with page.expect_response("**/v1/generations") as answer:
        draw(page, loras=" pixel-art:0.8,line-art:-.5, ")
    record = answer.value.json()
    asked = [{"name": "pixel-art", "scale": 0.8}, {"name": "line-art", "scale": -0.5}]
    assert (record["spec"]["loras"], record["spec"]["vae"]) == (asked, "sharper")

    hands.succeed(record["id"], picture(128, 128))
    page.wait_for_selector(".frame.developed .shot img")
    page.click("#defaults")
    assert (page.input_value("#loras"), page.input_value("#vae")) == ("", "")
    page.click(".frame .shot")
    page.get_by_role("button", name="Reuse settings").click()
    assert page.input_value("#loras") == "pixel-art:0.8, line-art:-0.5"
    assert page.input_value("#vae") == "sharper"
    expect(page.locator(".notice")).to_have_count(0)


def test_who_comes_before_the_workers_is_told_when_one_is_ready(
    visitor: Visit, atelier: tuple[httpx.Client, Hands]
) -> None:
    _, hands = atelier
    hands.redis.flushall()
    page = visitor.open()
    told(page, ".notice", "No worker is ready yet")
    hands.serve("any", name="any")
    expect(page.locator(".notice")).to_have_count(0)
    assert offered(page, "#checkpoint option") == ["any"]
