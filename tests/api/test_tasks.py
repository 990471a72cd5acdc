"""Every task through the front door: what it needs, what it makes of sizes, what it keeps."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import threading
from typing import Any

import httpx
import pytest
from fastapi import Request
from PIL import Image

from server.api import acceptance
from server.api.body import LARGE, read_json
from server.api.records import GenerationRecord
from server.api.resolve import to_spec
from server.api.schemas import GenerationRequest
from server.spec import SPEC, ImageToImage
from tests.api.house import Hands
from tests.api.pictures import body, mask, picture, text


def spec_of(atelier: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = atelier.post("/v1/generations", json=body(**fields))
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()["spec"]
    return found


def refused(atelier: httpx.Client, **fields: Any) -> dict[str, str]:
    """Messages by field."""
    answer = atelier.post("/v1/generations", json=body(**fields))
    assert answer.status_code == 422, answer.text
    assert atelier.get("/v1/generations").json()["generations"] == []
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


TASKS: dict[str, dict[str, Any]] = {
    "image-to-image": {"image": picture()},
    "inpainting": {"image": picture(), "mask_image": mask()},
    "depth-to-image": {"image": picture(), "depth_map": mask()},
    "upscale": {"image": picture(), "checkpoint": "x4"},
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_accepted_with_what_it_needs(
    atelier: httpx.Client, painter: Hands, task: str
) -> None:
    answer = atelier.post("/v1/generations", json=body(task=task, **TASKS[task]))
    record = answer.json()
    assert answer.status_code == 202, answer.text
    assert GenerationRecord.model_validate(record, strict=False)
    assert record["spec"]["task"] == task
    assert record["spec"]["image"] == {
        "sha256": hashlib.sha256(picture()).hexdigest(),
        "width": 128,
        "height": 128,
    }
    assert record["stages"][0]["task"] == task
    assert atelier.get(record["urls"]["self"]).json()["spec"] == record["spec"]
    names = {"image": "image", "mask_image": "mask", "depth_map": "depth_map"}
    sent = {names[name] for name in TASKS[task] if name in names}
    assert painter.kept() == sorted(f"input-{name}.png" for name in sent)


def test_the_worker_finds_what_was_sent_as_it_was_sent(
    atelier: httpx.Client, painter: Hands
) -> None:
    sent = picture(form="WEBP", lossless=True)
    id = atelier.post("/v1/generations", json=body(task="image-to-image", image=sent)).json()["id"]
    kept = SPEC.validate_json(painter.redis.hget(f"darkroom:generation:{id}", "spec"))  # type: ignore[arg-type]
    assert isinstance(kept, ImageToImage)
    assert kept.image is not None
    assert kept.image.key == f"{id}/input-image.webp"
    assert (painter.images / kept.image.key).read_bytes() == sent


@pytest.mark.parametrize(
    ("task", "strength"), [("image-to-image", 0.75), ("inpainting", 1.0), ("depth-to-image", 0.75)]
)
def test_strength_comes_from_the_card(atelier: httpx.Client, task: str, strength: float) -> None:
    assert spec_of(atelier, task=task, **TASKS[task])["strength"] == strength


def test_inpainting_keeps_what_is_outside_unless_told_otherwise(atelier: httpx.Client) -> None:
    fields = {"task": "inpainting"} | TASKS["inpainting"]
    assert spec_of(atelier, **fields)["keep_outside"] is True
    spec = spec_of(atelier, **fields, keep_outside=False, padding_mask_crop=32)
    assert (spec["keep_outside"], spec["padding_mask_crop"]) == (False, 32)


def test_a_picture_without_a_task_is_told_which_tasks_take_one(atelier: httpx.Client) -> None:
    found = refused(atelier, image=picture(), mask_image=mask(), strength=0.5, noise_level=20)
    assert "image-to-image or inpainting or depth-to-image or upscale" in found["image"]
    assert found["mask_image"].endswith("it is for task inpainting")
    assert set(found) == {"image", "mask_image", "strength", "noise_level"}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_without_its_picture_is_refused(atelier: httpx.Client, task: str) -> None:
    checkpoint = TASKS[task].get("checkpoint", "any")
    assert "needs one" in refused(atelier, task=task, checkpoint=checkpoint)["image"]


def test_a_task_that_the_card_lacks_is_refused(atelier: httpx.Client) -> None:
    found = refused(atelier, task="image-to-image", image=picture(), checkpoint="x4")
    assert found == {"task": "task image-to-image: x4 offers upscale"}


def test_the_size_is_the_images_own(atelier: httpx.Client) -> None:
    spec = spec_of(atelier, task="image-to-image", image=picture(192, 136))
    assert (spec["width"], spec["height"]) == (192, 136)


def test_a_size_between_two_is_rounded_down_with_a_warning(atelier: httpx.Client) -> None:
    sent = body(task="image-to-image", image=picture(203, 136))
    record = atelier.post("/v1/generations", json=sent).json()
    assert (record["spec"]["width"], record["spec"]["height"]) == (200, 136)
    [warning] = record["warnings"]
    assert (warning["code"], warning["field"]) == ("size_adjusted", "image")
    assert "width 203 to 200" in warning["message"]
    assert "image" in refused(atelier_without(atelier, record), **sent, strict=True)


def atelier_without(atelier: httpx.Client, record: dict[str, Any]) -> httpx.Client:
    assert atelier.delete(record["urls"]["self"]).status_code == 204
    return atelier


def test_a_size_that_is_asked_for_is_drawn(atelier: httpx.Client) -> None:
    sent = body(task="image-to-image", image=picture(1000, 700), width=256, height=128)
    record = atelier.post("/v1/generations", json=sent).json()
    assert (record["spec"]["width"], record["spec"]["height"]) == (256, 128)
    assert record["warnings"] == []


@pytest.mark.parametrize(
    ("size", "right"),
    [((2000, 1000), "width 512 and height 256"), ((30, 60), "width 64 and height 128")],
)
def test_an_image_that_does_not_fit_is_told_what_would(
    atelier: httpx.Client, size: tuple[int, int], right: str
) -> None:
    assert right in refused(atelier, task="image-to-image", image=picture(*size))["image"]


def test_an_image_of_a_shape_that_never_fits_is_told_to_be_cropped(atelier: httpx.Client) -> None:
    assert "crop it" in refused(atelier, task="image-to-image", image=picture(2000, 20))["image"]


def test_a_mask_of_another_size_is_refused(atelier: httpx.Client) -> None:
    found = refused(atelier, task="inpainting", image=picture(), mask_image=mask(128, 120))
    assert "128 x 120" in found["mask_image"]


def test_a_depth_map_may_be_smaller_but_not_of_another_shape(atelier: httpx.Client) -> None:
    fields = {"task": "depth-to-image", "image": picture(256, 128)}
    assert spec_of(atelier, **fields, depth_map=mask(64, 32))["depth_map"]["width"] == 64
    assert spec_of(atelier, **fields)["depth_map"] is None


def test_a_depth_map_of_another_shape_is_refused(atelier: httpx.Client) -> None:
    fields = {"task": "depth-to-image", "image": picture(256, 128)}
    assert "not the shape" in refused(atelier, **fields, depth_map=mask(64, 64))["depth_map"]


def test_an_upscaled_picture_has_four_times_its_size(atelier: httpx.Client) -> None:
    fields = {"task": "upscale", "checkpoint": "x4", "image": picture(64, 128)}
    spec = spec_of(atelier, **fields, width=256)
    assert (spec["width"], spec["height"], spec["noise_level"]) == (256, 512, 20)


def test_an_upscaled_picture_cannot_have_another_size(atelier: httpx.Client) -> None:
    fields = {"task": "upscale", "checkpoint": "x4", "image": picture(64, 128)}
    assert "here 512" in refused(atelier, **fields, height=256)["height"]


def test_a_picture_that_is_too_large_to_upscale_is_told_its_size(atelier: httpx.Client) -> None:
    fields = {"task": "upscale", "checkpoint": "x4", "image": picture(1024, 1024)}
    assert "send it at 256 x 256" in refused(atelier, **fields)["image"]


def test_a_noise_level_beyond_the_card_is_refused(atelier: httpx.Client) -> None:
    fields = {"task": "upscale", "checkpoint": "x4", "image": picture()}
    assert "between 0 and 350" in refused(atelier, **fields, noise_level=351)["noise_level"]


def test_a_strength_that_leaves_no_step_is_refused(atelier: httpx.Client) -> None:
    fields = {"task": "image-to-image", "image": picture(), "num_inference_steps": 10}
    assert "no step of 10" in refused(atelier, **fields, strength=0.05)["strength"]


def test_sdxl_is_told_the_size_it_draws(atelier: httpx.Client) -> None:
    told = spec_of(atelier, checkpoint="xl", width=256, negative_prompt="blue")["sdxl"]
    assert told == {
        "prompt_2": "a red circle",
        "negative_prompt_2": "blue",
        "original_size": [256, 128],
        "crops_coords_top_left": [0, 0],
        "target_size": [256, 128],
        "negative_original_size": [256, 128],
        "negative_crops_coords_top_left": [0, 0],
        "negative_target_size": [256, 128],
        "aesthetic_score": 6.0,
        "negative_aesthetic_score": 2.5,
    }


def test_sdxl_is_told_what_the_caller_says(atelier: httpx.Client) -> None:
    said = {"prompt_2": "oil", "original_size": [512, 384], "crops_coords_top_left": [8, 16]}
    told = spec_of(atelier, checkpoint="xl", **said, negative_target_size=[64, 64])["sdxl"]
    assert told["prompt_2"] == "oil"
    assert told["negative_original_size"] == [512, 384]
    assert told["negative_crops_coords_top_left"] == [8, 16]
    assert told["negative_target_size"] == [64, 64]


def test_what_only_sdxl_reads_is_listed_as_ignored_elsewhere(atelier: httpx.Client) -> None:
    sent = body(prompt_2="oil", aesthetic_score=7.0)
    record = atelier.post("/v1/generations", json=sent).json()
    codes = [warning["code"] for warning in record["warnings"]]
    assert codes == ["prompt_2_ignored", "aesthetic_score_ignored"]
    assert record["spec"]["sdxl"] is None


def codes_of(atelier: httpx.Client, **fields: Any) -> list[str]:
    answer = atelier.post("/v1/generations", json=body(**fields))
    assert answer.status_code == 202, answer.text
    return [warning["code"] for warning in answer.json()["warnings"]]


def test_what_leads_away_from_something_is_listed_as_ignored_without_guidance(
    atelier: httpx.Client,
) -> None:
    said = {"negative_prompt_2": "oil", "negative_original_size": [64, 64]}
    assert codes_of(atelier, checkpoint="xl", **said) == []
    found = codes_of(atelier, checkpoint="xl", guidance_scale=1, **said)
    assert found == ["negative_prompt_2_ignored", "negative_original_size_ignored"]


def test_a_score_is_listed_as_ignored_where_no_refiner_reads_it(atelier: httpx.Client) -> None:
    said = {"aesthetic_score": 7.0, "checkpoint": "xl"}
    assert codes_of(atelier, **said) == ["aesthetic_score_ignored"]
    assert codes_of(atelier, **said, refiner={"checkpoint": "xl-refiner"}) == []
    over = {"task": "image-to-image", "image": picture()}
    assert codes_of(atelier, **said | {"checkpoint": "xl-refiner"}, **over) == []


@pytest.mark.parametrize("steps", [151, 10**400])
@pytest.mark.parametrize("strength", [0.5, 0.001])
def test_more_steps_than_can_be_drawn_are_refused_whatever_the_strength(
    atelier: httpx.Client, steps: int, strength: float
) -> None:
    fields = {"task": "image-to-image", "image": picture(), "strength": strength}
    assert (
        "between 1 and 150"
        in refused(atelier, **fields, num_inference_steps=steps)["num_inference_steps"]
    )


def test_prompts_loras_and_the_autoencoder_reach_the_spec(atelier: httpx.Client) -> None:
    spec = spec_of(
        atelier,
        prompt_syntax="a1111",
        long_prompts="reject",
        loras=[{"name": "pixel-art", "scale": 0.5}, {"name": "ink"}],
        vae="sharper",
    )
    assert (spec["prompt_syntax"], spec["long_prompts"]) == ("a1111", "reject")
    assert spec["loras"] == [{"name": "pixel-art", "scale": 0.5}, {"name": "ink", "scale": 1.0}]
    assert spec["vae"] == "sharper"


def test_a_long_prompt_is_read_in_chunks_by_default(atelier: httpx.Client) -> None:
    spec = spec_of(atelier)
    assert (spec["prompt_syntax"], spec["long_prompts"]) == ("plain", "chunk")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a\\b", ".hidden", "", "a\x00"])
def test_the_name_of_a_lora_is_never_a_path(atelier: httpx.Client, name: str) -> None:
    assert "loras.0.name" in refused(atelier, loras=[{"name": name}])
    assert "vae" in refused(atelier, vae=name)


def test_the_same_lora_twice_is_refused(atelier: httpx.Client) -> None:
    assert "more than once" in refused(atelier, loras=[{"name": "a"}] * 2)["loras.1.name"]
    assert "at most 8" in refused(atelier, loras=[{"name": str(i)} for i in range(9)])["loras"]


def test_a_great_many_loras_are_refused_before_they_are_compared(atelier: httpx.Client) -> None:
    answer = atelier.post("/v1/generations", json=body(loras=[{"name": "a"}] * 20_000))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["field"] == "loras"


def test_what_is_deleted_takes_with_it_what_was_sent(atelier: httpx.Client, painter: Hands) -> None:
    sent = body(task="image-to-image", image=picture())
    record = atelier.post("/v1/generations", json=sent).json()
    assert painter.kept() == ["input-image.png"]
    assert atelier.delete(record["urls"]["self"]).status_code == 204
    assert painter.kept() == []


def test_a_refusal_and_a_replay_leave_no_picture_behind(
    atelier: httpx.Client, painter: Hands
) -> None:
    painter.redis.delete("darkroom:served:x4")
    sent = body(task="upscale", image=picture(), checkpoint="x4")
    assert atelier.post("/v1/generations", json=sent).json()["code"] == "no_worker"
    assert painter.kept() == []
    headers = {"Idempotency-Key": "once"}
    again = body(task="image-to-image", image=picture())
    answers = [atelier.post("/v1/generations", json=again, headers=headers) for _ in range(2)]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert painter.kept() == ["input-image.png"]
    other = body(task="image-to-image", image=picture(136, 128))
    conflict = atelier.post("/v1/generations", json=other, headers=headers)
    assert conflict.json()["code"] == "idempotency_conflict"
    assert painter.kept() == ["input-image.png"]


def test_a_data_uri_is_read_as_its_base64_is(atelier: httpx.Client) -> None:
    for sent in (
        f"data:image/png;base64,{text(picture())}",
        f"DATA:image/PNG;name=a.png;base64,{text(picture())}",
        "\n".join(text(picture())[i : i + 76] for i in range(0, 4000, 76)),
    ):
        assert spec_of(atelier, task="image-to-image", image=sent)["image"]["width"] == 128


def test_a_photograph_is_turned_upright(atelier: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    sent = picture(192, 128, "JPEG", exif=exif)
    spec = spec_of(atelier, task="image-to-image", image=sent)
    assert (spec["width"], spec["height"]) == (128, 192)


def test_brackets_that_cannot_be_read_are_refused_before_anything_is_queued(
    atelier: httpx.Client,
) -> None:
    found = refused(atelier, prompt_syntax="a1111", prompt="(" * 80, negative_prompt="(a:1e9)")
    assert "brackets" in found["prompt"]
    assert spec_of(atelier, prompt="(" * 80)["prompt"] == "(" * 80, "plain ones are text"


def test_what_a1111_would_do_between_steps_is_listed_as_ignored(atelier: httpx.Client) -> None:
    sent = body(prompt="a [red:blue:0.5] circle AND a boat", prompt_syntax="a1111")
    warnings = atelier.post("/v1/generations", json=sent).json()["warnings"]
    codes = {warning["code"] for warning in warnings}
    assert codes == {"prompt_and_ignored", "prompt_editing_ignored"}
    assert {warning["field"] for warning in warnings} == {"prompt"}


def test_only_a_long_prompt_is_read_on_another_thread(
    atelier: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def resolve(*given: Any) -> Any:
        threads.append(threading.get_ident())
        return to_spec(*given)

    monkeypatch.setattr(acceptance, "to_spec", resolve)
    for prompt in ("a boat", "a boat " * 1000, "a boat"):
        assert spec_of(atelier, prompt=prompt)["prompt"] == prompt
    assert threads[0] == threads[2] != threads[1]


def test_a_body_is_not_kept_while_its_client_waits() -> None:
    kept: list[Request] = []

    async def read() -> None:
        sent = [{"type": "http.request", "body": b'{"prompt": "a boat"}'}]

        async def receive() -> Any:
            return sent.pop()

        head = [(b"content-type", b"application/json")]
        kept.append(Request({"type": "http", "headers": head}, receive))
        asked, _ = await read_json(kept[0], GenerationRequest)
        assert asked.prompt == "a boat"

    asyncio.run(read())
    assert not any(isinstance(held, bytes) for held in vars(kept[0]).values())


def test_a_large_picture_in_json_is_read(atelier: httpx.Client) -> None:
    noise = random.Random(0).randbytes(512 * 512 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (512, 512), noise).save(out, "PNG")
    assert len(out.getvalue()) > LARGE
    fields = {"task": "image-to-image", "image": out.getvalue()}
    assert spec_of(atelier, **fields)["image"]["width"] == 512
    assert "streng" in refused_after(atelier, streng=1, **fields)


def refused_after(atelier: httpx.Client, **fields: Any) -> str:
    return str(atelier.post("/v1/generations", json=body(**fields)).json()["detail"])


def test_a_sampler_that_only_begins_with_noise_is_refused_for_a_picture(
    atelier: httpx.Client, painter: Hands
) -> None:
    over = {"image": picture(), "sampler": "ipndm"}
    for fields in ({"task": "image-to-image"}, {"task": "inpainting", "mask_image": mask()}):
        said = refused(atelier, **over, **fields, strength=0.5)
        assert "from noise only" in said["sampler"]
    with_four_channels = refused(atelier, **over, task="inpainting", mask_image=mask(), strength=1)
    assert "any inpaints by adding noise" in with_four_channels["sampler"]
    assert spec_of(atelier, sampler="ipndm")["sampler"] == "ipndm"


def test_a_sampler_that_only_begins_with_noise_can_inpaint_where_that_is_all_that_is_done(
    atelier: httpx.Client,
) -> None:
    fields = {"task": "inpainting", "checkpoint": "painter", "sampler": "ipndm"}
    pictures = {"image": picture(), "mask_image": mask()}
    assert "at strength 1" in refused(atelier, **fields, **pictures, strength=0.9)["sampler"]
    assert spec_of(atelier, **fields, **pictures)["strength"] == 1


def test_who_nobody_serves_is_told_with_who_is_served_and_how_to_change_that(
    atelier: httpx.Client, painter: Hands
) -> None:
    for name in ("x4", "xl-refiner"):
        painter.redis.delete(f"darkroom:served:{name}", f"darkroom:worker:painter of {name}")
    answer = atelier.post("/v1/generations", json=body(upscaler={"checkpoint": "x4"}))
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    assert answer.json()["detail"] == (
        "no worker serves 'x4' at the moment; served now: demo, any, painter, xl; "
        "to serve it, add `--worker x4` to `darkroom serve`"
    )
    assert answer.headers["retry-after"] == "5"
