"""The playground as a person uses it: draw, watch, cancel, paint, compare, come back."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visits
from tests.browser.hands import (
    PROMPT,
    draw,
    finished,
    newest,
    painted,
    picture,
    pixels,
    shown,
    stroke,
    told,
)
from tests.system.conftest import Served

LONG = {"num_inference_steps": 150, "num_images": 4}
FILES = (".css", ".js", ".svg")


def test_what_is_asked_for_is_drawn_and_seen(page: Page) -> None:
    draw(page)
    finished(page)
    assert shown(picture(page)) == ("circle", "red", "blue")
    told(page, "#easel-foot", PROMPT)
    expect(page.locator("#tiles li").first.locator("img")).to_be_visible()
    with page.expect_download() as download:
        page.locator("#easel-foot").get_by_role("link", name="Download").click()
    assert shown(pixels(download.value.path().read_bytes())) == ("circle", "red", "blue")


def test_the_page_weighs_less_than_150_kb(visit: Visits) -> None:
    here = visit()
    here.open()
    answers = [request.response() for request in here.asked]
    sent = {answer.url: answer for answer in answers if answer is not None and answer.ok}
    own = {url: a for url, a in sent.items() if url.endswith(FILES) or url == here.url + "/"}
    assert len(own) > 15
    assert sum(len(answer.body()) for answer in own.values()) < 150_000


def test_progress_and_previews_are_seen_and_escape_cancels(page: Page, house: Served) -> None:
    draw(page, **LONG)
    told(page, "#easel-foot", "Drawing · step")
    page.wait_for_selector(".frame.drawing .shot img")
    page.wait_for_selector("#easel-foot progress[value^='0.']")
    told(page, "#easel-foot .left", "left")
    assert newest(house.url)["status"] == "running"
    page.keyboard.press("Escape")
    told(page, "#frame", "Canceled")
    told(page, "#tiles li", "Canceled")
    told(page, "#announcer", "canceled")
    canceled = newest(house.url)
    assert canceled["status"] == "canceled"

    page.fill("#prompt", "something else")
    page.locator("#frame").get_by_role("button", name="Reuse settings").click()
    assert page.input_value("#prompt") == PROMPT
    page.locator("#frame").get_by_role("button", name="Delete").click()
    page.locator("#frame").get_by_role("button", name="Really delete").click()
    told(page, "#frame", "Nothing on the easel yet")
    assert httpx.get(f"{house.url}/v1/generations/{canceled['id']}").status_code == 410


def test_who_waits_sees_their_place_and_can_cancel_with_the_button(page: Page) -> None:
    for _ in range(7):  # the worker takes in twenty pictures at once
        with page.expect_response("**/v1/generations"):
            draw(page, **LONG)
        expect(page.locator("#draw[aria-busy]")).to_have_count(0)
    told(page, "#easel-foot", "1 ahead")
    page.click("#cancel")
    told(page, "#frame", "Canceled")
    page.locator("#tiles li").nth(1).locator("button").click()
    told(page, "#easel-foot", "Waiting")
    page.click("#cancel")
    told(page, "#frame", "Canceled")


def test_what_is_painted_is_drawn_again_and_the_rest_stays(
    page: Page, house: Served, tmp_path: Path
) -> None:
    source = tmp_path / "source.png"
    source.write_bytes(
        httpx.post(
            f"{house.url}/v1/generations",
            json={"prompt": PROMPT, "seed": 3},
            headers={"Accept": "image/png"},
            timeout=30,
        ).content
    )
    page.set_input_files("#source", source)
    expect(page.locator("[name=task]:checked")).to_have_value("image-to-image")
    page.check("[name=task][value=inpainting]", force=True)
    page.click("#draw")
    told(page, "[data-field=mask_image] .fault", "Paint over what is to be drawn again")

    stroke(page, (0.1, 0.9), (0.9, 0.9))
    page.get_by_role("button", name="Undo").click()
    assert painted(page) == 0
    stroke(page, (0.25, 0.25), (0.75, 0.25))
    before = painted(page)
    page.get_by_role("button", name="Eraser").click()
    stroke(page, (0.25, 0.25))
    assert 0 < painted(page) < before

    draw(page, "a green circle on a blue background")
    finished(page)
    mine, theirs = pixels(source.read_bytes()), picture(page)
    assert np.array_equal(mine[64:], theirs[64:])
    assert not np.array_equal(mine[:64], theirs[:64])
    assert newest(house.url)["spec"]["task"] == "inpainting"  # type: ignore[index]


def test_a_mask_can_be_painted_by_keys(page: Page, tmp_path: Path, house: Served) -> None:
    draw(page)
    finished(page)
    page.click(".frame .shot")
    page.get_by_role("button", name="Draw from it").click()
    page.check("[name=task][value=inpainting]", force=True)
    page.focus(".paper canvas")
    for key in ("[", "Space", "ArrowLeft", "Space", "u"):
        page.keyboard.press(key)
    once = painted(page)
    page.keyboard.press("Space")
    assert 0 < once < painted(page)


def test_the_gallery_and_the_form_survive_a_reload(visit: Visits) -> None:
    page = visit().open()
    draw(page, "a yellow star on a black background", num_inference_steps=12)
    finished(page)
    seed = page.input_value("#seed")
    page.reload()
    page.wait_for_selector(".tile img")
    assert page.input_value("#prompt") == "a yellow star on a black background"
    assert page.input_value("#num_inference_steps") == "12"

    draw(page, "a blue square on a white background")
    finished(page)
    page.locator(".tile").nth(1).click()
    told(page, "#detail-title", "a yellow star on a black background")
    told(page, "#detail dl", seed)
    page.get_by_role("button", name="Reuse settings").click()
    assert page.input_value("#prompt") == "a yellow star on a black background"
    assert page.input_value("#seed") == seed
    expect(page.get_by_label("Keep this seed")).to_have_attribute("aria-pressed", "true")


def test_a_drawing_goes_on_where_it_was_after_a_reload(page: Page) -> None:
    draw(page, **LONG)
    told(page, "#easel-foot", "Drawing · step")
    page.reload()
    told(page, "#easel-foot", "Drawing · step")
    page.click("#cancel")
    told(page, "#frame", "Canceled")


def test_a_drawing_is_followed_through_a_gateway_that_dies(visit: Visits, house: Served) -> None:
    here = visit()
    here.expected = ("ERR_",)  # the browser itself says what it could not reach
    page = here.open()
    draw(page, num_inference_steps=150)
    told(page, "#easel-foot", "Drawing · step")
    house.kill("gateway")
    finished(page)
    assert shown(picture(page)) == ("circle", "red", "blue")


def test_a_lost_connection_is_said_and_found_again(visit: Visits) -> None:
    here = visit()
    here.expected = ("ERR_",)
    page = here.open()
    status = page.context.new_page()
    status.goto(here.url + "/status")
    told(status, "#summary", "1 worker")
    for address in ("**/v1/generations/*", "**/events", "**/v1/queue"):
        page.context.route(address, lambda route: route.abort())
    draw(page)
    told(page, "#easel-foot", "Connection lost, trying again")
    told(page, "#announcer", "Connection lost")
    told(status, "#summary", "Old numbers, from")
    expect(status.locator("#queues.old")).to_be_visible()
    page.context.unroute_all()
    finished(page)
    told(status, "#summary", "1 worker")
    expect(status.locator(".old, .notice")).to_have_count(0)


def test_two_pictures_are_compared_by_a_slider(page: Page) -> None:
    draw(page, num_images=2)
    finished(page)
    page.locator(".frame .shot").nth(1).click()
    page.get_by_role("button", name="Compare").click()
    view = page.locator(".compare")
    assert view.evaluate("v => v.style.getPropertyValue('--split')") == "50%"
    page.keyboard.press("End")  # the slider has the focus
    assert view.evaluate("v => v.style.getPropertyValue('--split')") == "100%"
    left, right = view.locator("img.left"), view.locator("img.right")
    assert left.get_attribute("src") != right.get_attribute("src")


def test_a_copied_request_draws_the_same_picture_again(visit: Visits, tmp_path: Path) -> None:
    here = visit(permissions=["clipboard-read", "clipboard-write"])
    page = here.open()
    page.fill("#negative_prompt", 'it\'s "blurry"')
    draw(page, f"{PROMPT}, $HOME")
    finished(page)
    mine = picture(page)
    page.click(".frame .shot")

    def copied(what: str) -> str:
        page.get_by_role("button", name=f"Copy {what}").click()
        expect(page.locator("#announcer")).to_have_text(re.compile(f"{what[3:]}.* copied", re.I))
        text: str = page.evaluate("navigator.clipboard.readText()")
        return text

    assert re.match(rf"{re.escape(PROMPT)}, \$HOME\nNegative prompt: it's", copied("infotext"))
    subprocess.run([sys.executable, "-c", copied("as Python")], cwd=tmp_path, check=True)
    assert np.array_equal(pixels((tmp_path / "picture.png").read_bytes()), mine)
    (tmp_path / "picture.png").unlink()
    if shutil.which("curl"):
        subprocess.run(["sh", "-c", copied("as curl")], cwd=tmp_path, check=True)
        assert np.array_equal(pixels((tmp_path / "picture.png").read_bytes()), mine)


def test_a_seed_is_new_each_time_unless_it_is_kept(page: Page, house: Served) -> None:
    def drawn() -> str:
        with page.expect_response("**/v1/generations") as answer:
            draw(page, num_inference_steps=1)
        finished(page)
        return str(answer.value.json()["spec"]["seed"])

    first = drawn()
    assert page.input_value("#seed") == first
    assert drawn() != first
    page.get_by_label("Roll a seed and keep it").click()
    rolled = page.input_value("#seed")
    assert drawn() == drawn() == rolled
    page.get_by_label("Keep this seed", exact=True).click()
    assert drawn() != rolled


def test_a_sweep_is_shown_as_a_grid(visit: Visits) -> None:
    here = visit()
    here.expected = ("status of 422",)
    page = here.open()
    page.click("#vary summary")
    page.select_option("#vary-rows", "num_inference_steps")
    page.fill("#vary-rows-values", "2, 8")
    page.select_option("#vary-columns", "guidance_scale")
    page.fill("#vary-columns-values", "1.5, 4, 8")
    draw(page)
    finished(page)
    assert page.locator(".frame .grid tbody tr").count() == 2
    assert page.locator(".frame .grid img").count() == 6
    assert page.locator(".frame thead th").all_inner_texts()[1:] == ["1.5", "4", "8"]
    page.locator(".frame .grid button").nth(5).click()
    told(page, "#detail dl", "8")
    page.keyboard.press("Escape")
    page.fill("#vary-rows-values", "2, 9000")
    page.click("#draw")
    told(page, "#vary .fault", "between 1 and 150")


def test_what_cannot_be_varied_is_not_offered_or_said_beside_it_once(visit: Visits) -> None:
    here = visit()
    here.expected = ("status of 422",)
    page = here.open()
    page.click("#vary summary")
    expect(page.locator("#vary-rows [value=strength]")).to_have_count(0)
    page.select_option("#vary-rows", "sampler")
    expect(page.locator("#vary-columns [value=sampler]")).to_be_disabled()
    draw(page)
    expect(page.locator(".fault")).to_have_text("Give at least one value.")
    expect(page.locator("#vary-rows-values")).to_be_focused()
    page.fill("#vary-rows-values", "no such, nor this")
    page.click("#draw")
    told(page, ".fault", "Must be 'ddim'")
    expect(page.locator(".fault")).to_have_count(1)
    expect(page.locator(".notice")).to_have_count(0)
    page.select_option("#vary-rows", "")
    expect(page.locator("#vary-columns [value=sampler]")).to_be_enabled()
    page.check("[name=task][value=image-to-image]", force=True)
    expect(page.locator("#vary-rows [value=strength]")).to_have_count(1)


def test_an_error_is_shown_beside_its_field_until_that_changes(visit: Visits) -> None:
    here = visit()
    here.expected = ("status of 422",)
    page = here.open()
    draw(page, width=100, num_inference_steps=900)
    told(page, "[data-field=width] .fault", "Must be a multiple of 8")
    told(page, "[data-field=num_inference_steps] .fault", "between 1 and 150")
    expect(page.locator("#width")).to_be_focused()
    expect(page.locator("#width")).to_have_attribute("aria-invalid", "true")
    page.fill("#width", "128")
    assert page.locator("[data-field=width] .fault").count() == 0
    assert page.locator(".notice").count() == 0


def test_an_error_of_no_field_says_what_to_do(visit: Visits) -> None:
    here = visit()
    here.expected = ("ERR_", "Failed to load")
    page = here.open()
    page.context.set_offline(True)
    draw(page)
    told(page, ".notice.error", "Check that darkroom serve is running")
    expect(page.locator(".notice code")).to_have_text("darkroom serve")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    finished(page)
    assert page.locator(".notice").count() == 0


def test_tokens_are_counted_and_what_is_cut_is_marked(page: Page) -> None:
    page.fill("#prompt", PROMPT)
    told(page, "#prompt-count", "7 / 75 tokens")
    page.fill("#prompt", "🔴 red circle " * 60 + "the end")
    told(page, "#prompt-count", "read in")
    page.click("#more summary")
    page.select_option("#long_prompts", "truncate")
    told(page, "#prompt-count", "cut")
    cut = "".join(
        page.locator("#prompt").locator("xpath=..").locator("mark.cut").all_text_contents()
    )
    assert cut.endswith("the end")
    assert page.input_value("#prompt").endswith(cut)


def test_hostile_words_are_shown_as_words(page: Page) -> None:
    prompt = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
    page.fill("#negative_prompt", prompt)
    draw(page, prompt)
    finished(page)
    page.click(".frame .shot")
    told(page, "#detail-title", prompt)
    told(page, "#detail dl", prompt)
    page.reload()
    page.wait_for_selector(".tile img")
    assert page.title() == "Darkroom"
    assert page.locator("img[src=x]").count() == 0


def test_what_is_deleted_is_gone(page: Page, house: Served) -> None:
    draw(page)
    finished(page)
    id = newest(house.url)["id"]
    page.click(".frame .shot")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Really delete").click()
    told(page, "#announcer", "Deleted")
    assert httpx.get(f"{house.url}/v1/generations/{id}").status_code == 410
    page.keyboard.press("Escape")
    told(page, "#frame", "Nothing on the easel yet")
