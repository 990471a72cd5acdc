"""Hires fix, refiners, upscalers and sweeps: what they become, and what cannot go together."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.broker import keys
from server.spec import GenerationState
from tests.api.house import Hands
from tests.api.pictures import body, mask, picture


def accepted(atelier: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = atelier.post("/v1/generations", json=body(**fields))
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(atelier: httpx.Client, **fields: Any) -> dict[str, str]:
    """Messages by field."""
    answer = atelier.post("/v1/generations", json=body(**fields))
    assert answer.status_code == 422, answer.text
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


def test_hires_without_a_word_doubles_the_size(atelier: httpx.Client) -> None:
    record = accepted(atelier, width=192, hires={})
    assert record["spec"]["hires"] == {
        "width": 384,
        "height": 256,
        "enlarged": "latents",
        "strength": 0.7,
        "num_inference_steps": 20,
    }
    tasks = [(stage["checkpoint"], stage["task"]) for stage in record["stages"]]
    assert tasks == [("any", "text-to-image"), ("any", "image-to-image")]


def test_hires_is_rounded_down_to_what_can_be_drawn(atelier: httpx.Client) -> None:
    hires = accepted(atelier, width=200, hires={"scale": 1.3, "enlarged": "picture"})["spec"][
        "hires"
    ]
    assert (hires["width"], hires["height"], hires["enlarged"]) == (256, 160, "picture")
    exact = accepted(atelier, hires={"width": 320, "height": 320, "num_inference_steps": 5})
    assert exact["spec"]["hires"]["width"] == 320


@pytest.mark.parametrize(
    ("hires", "field"),
    [
        ({"width": 256}, "hires.height"),
        ({"width": 256, "height": 256, "scale": 2}, "hires.scale"),
        ({"width": 256, "height": 384}, "hires.width"),
        ({"width": 260, "height": 260}, "hires.width"),
        ({"scale": 8}, "hires.width"),
        ({"strength": 0.01}, "hires.strength"),
        ({"num_inference_steps": 10**9}, "hires.num_inference_steps"),
        ({"num_inference_steps": 10**400}, "hires.num_inference_steps"),
        ({"scale": 0.5}, "hires.scale"),
        ({"width": -8, "height": -8}, "hires.width"),
        ({"upscaler": "Latent"}, "hires.upscaler"),
    ],
)
def test_a_hires_that_cannot_be_is_refused(
    atelier: httpx.Client, hires: dict[str, Any], field: str
) -> None:
    assert field in refused(atelier, hires=hires)


@pytest.mark.parametrize("width", [-128, 10**400, 0, 4096])
def test_a_wrong_size_is_told_before_it_is_enlarged(atelier: httpx.Client, width: int) -> None:
    assert set(refused(atelier, width=width, hires={})) == {"width"}


def test_a_refiner_takes_over_within_the_schedule(atelier: httpx.Client) -> None:
    fields = {"checkpoint": "xl", "num_inference_steps": 25, "sampler": "ddim"}
    record = accepted(atelier, **fields, refiner={"checkpoint": "xl-refiner"})
    assert record["spec"]["refiner"] == {
        "checkpoint": "xl-refiner",
        "switch_at": 0.8,
        "strength": 0.3,
        "num_inference_steps": 25,
        "guidance_scale": 6.0,
        "sampler": "ddim",
        "sigmas": "default",
    }
    assert [stage["status"] for stage in record["stages"]] == ["queued", "queued"]


def test_a_refiner_with_a_strength_draws_over_the_finished_picture(atelier: httpx.Client) -> None:
    refiner = {"checkpoint": "xl-refiner", "strength": 0.5}
    spec = accepted(atelier, refiner=refiner)["spec"]
    assert (spec["refiner"]["switch_at"], spec["refiner"]["num_inference_steps"]) == (1.0, 30)
    assert spec["refiner"]["sampler"] == "euler"
    assert spec["sdxl"]["original_size"] == [128, 128], "the refiner needs it"


def test_an_ensembles_refiner_has_no_strength(atelier: httpx.Client) -> None:
    refiner = {"checkpoint": "xl-refiner", "strength": 0.5, "switch_at": 0.7}
    record = accepted(atelier, checkpoint="xl", refiner=refiner)
    assert [warning["code"] for warning in record["warnings"]] == ["refiner_strength_ignored"]


@pytest.mark.parametrize(
    ("checkpoint", "refiner", "field", "word"),
    [
        ("xl", {"checkpoint": "nobody"}, "refiner.checkpoint", "these can: "),
        ("xl", {"checkpoint": "x4"}, "refiner.checkpoint", "offers upscale"),
        ("any", {"checkpoint": "xl-refiner"}, "refiner.checkpoint", "family sdxl"),
        ("xl", {"checkpoint": "xl-refiner", "sampler": "ddim"}, "refiner.sampler", "euler"),
        ("xl", {"checkpoint": "xl-refiner", "sigmas": "karras"}, "refiner.sigmas", "default"),
        ("xl", {"checkpoint": "xl-refiner", "switch_at": 0}, "refiner.switch_at", "greater"),
        ("xl", {"checkpoint": "xl-refiner", "guidance_scale": 51}, "refiner.guidance_scale", "50"),
        ("xl", {"switch_at": 0.5}, "refiner.checkpoint", "required"),
        ("xl", "xl-refiner", "refiner", "JSON object"),
    ],
)
def test_a_refiner_that_does_not_fit_is_refused(
    atelier: httpx.Client, checkpoint: str, refiner: Any, field: str, word: str
) -> None:
    assert word in refused(atelier, checkpoint=checkpoint, refiner=refiner)[field]


def test_an_upscaler_draws_it_four_times_as_large(atelier: httpx.Client) -> None:
    spec = accepted(atelier, upscaler={"checkpoint": "x4"})["spec"]
    assert spec["upscaler"] == {
        "checkpoint": "x4",
        "noise_level": 20,
        "num_inference_steps": 75,
        "guidance_scale": 4.0,
        "sampler": "ddim",
        "sigmas": "default",
    }
    assert (spec["width"], spec["height"]) == (128, 128)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"upscaler": {"checkpoint": "any"}}, "upscaler.checkpoint"),
        ({"width": 512, "height": 512, "upscaler": {"checkpoint": "x4"}}, "upscaler"),
        ({"hires": {"scale": 3}, "upscaler": {"checkpoint": "x4"}}, "upscaler"),
        ({"upscaler": {"checkpoint": "x4", "noise_level": 351}}, "upscaler.noise_level"),
    ],
)
def test_an_upscaler_that_cannot_is_refused(
    atelier: httpx.Client, fields: dict[str, Any], field: str
) -> None:
    assert field in refused(atelier, **fields)


def test_what_inpainting_keeps_is_not_drawn_over(atelier: httpx.Client) -> None:
    fields = {"task": "inpainting", "image": picture(), "mask_image": mask()}
    found = refused(atelier, **fields, hires={}, refiner={"checkpoint": "any", "strength": 0.3})
    assert set(found) == {"hires", "refiner"}


def test_every_checkpoint_of_a_chain_must_be_served(atelier: httpx.Client, painter: Hands) -> None:
    painter.redis.delete(keys.served("x4"))
    answer = atelier.post("/v1/generations", json=body(upscaler={"checkpoint": "x4"}))
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    assert "x4" in answer.json()["detail"]


def test_the_stages_tell_where_it_is(atelier: httpx.Client, painter: Hands) -> None:
    record = accepted(atelier, checkpoint="xl", hires={}, upscaler={"checkpoint": "x4"})
    here = keys.generation(record["id"])
    painter.redis.hset(here, mapping={"status": "running", "handed": '[["a.png"]]'})

    def seen() -> list[str]:
        stages = atelier.get(record["urls"]["self"]).json()["stages"]
        return [stage["status"] for stage in stages]

    assert seen() == ["succeeded", "running", "queued"]
    painter.end(record["id"], GenerationState.FAILED, "out_of_memory", "too large")
    assert seen() == ["succeeded", "failed", "canceled"]


def test_a_sweep_has_a_picture_for_each_combination(atelier: httpx.Client) -> None:
    sweep = {"num_inference_steps": [5, 10], "guidance_scale": [1.5, 2, 3]}
    spec = accepted(atelier, sweep=sweep, seed=3)["spec"]
    assert spec["num_images"] == 6
    assert spec["sweep"]["axes"] == [
        {"field": "num_inference_steps", "values": [5, 10]},
        {"field": "guidance_scale", "values": [1.5, 2.0, 3.0]},
    ]
    assert (spec["num_inference_steps"], spec["guidance_scale"]) == (5, 1.5)


def test_the_axes_keep_the_order_they_were_sent_in(atelier: httpx.Client) -> None:
    sweep = {"guidance_scale": [4], "sampler": ["ddim", "euler"]}
    axes = accepted(atelier, sweep=sweep)["spec"]["sweep"]["axes"]
    assert [axis["field"] for axis in axes] == ["guidance_scale", "sampler"]
    assert axes[1]["values"] == ["ddim", "euler"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sweep": {}}, "sweep"),
        ({"sweep": {"guidance_scale": []}}, "sweep.guidance_scale"),
        ({"sweep": {"seed": [1], "sampler": ["ddim"], "guidance_scale": [1]}}, "sweep"),
        ({"sweep": {"colour": ["red"]}}, "sweep.colour"),
        ({"sweep": {"sampler": ["magic"]}}, "sweep.sampler.0"),
        ({"sweep": {"num_inference_steps": [5, 2.5]}}, "sweep.num_inference_steps.1"),
        ({"sweep": {"num_inference_steps": [5, 151]}}, "sweep.num_inference_steps"),
        ({"sweep": {"guidance_scale": [1, 99]}}, "sweep.guidance_scale"),
        ({"sweep": {"strength": [0.5]}}, "sweep.strength"),
        ({"sweep": {"seed": [1, 2]}, "num_images": 2}, "num_images"),
        ({"sweep": {"seed": [1, 2]}, "seed": 3}, "seed"),
        ({"sweep": {"seed": [1, 2]}, "hires": {}}, "hires"),
        ({"sweep": {"seed": [1, 2]}, "upscaler": {"checkpoint": "x4"}}, "upscaler"),
        ({"sweep": {"seed": list(range(65))}}, "sweep"),
        ({"sweep": {"seed": list(range(5000)), "guidance_scale": [1.5] * 5000}}, "sweep"),
        ({"sweep": {"sampler": ["ddim", "euler"]}, "sigmas": "karras"}, "sigmas"),
        ({"sweep": {"sampler": ["euler", "ddim"]}, "sigmas": "karras"}, "sigmas"),
        (
            {"sweep": {"sampler": ["euler", "lcm"]}, "num_inference_steps": 60},
            "num_inference_steps",
        ),
    ],
)
def test_a_sweep_that_cannot_be_drawn_is_refused(
    atelier: httpx.Client, fields: dict[str, Any], field: str
) -> None:
    assert field in refused(atelier, **fields)


def test_samplers_without_a_choice_of_sigmas_can_be_swept(atelier: httpx.Client) -> None:
    assert accepted(atelier, sweep={"sampler": ["euler", "ddim"]})["spec"]["sigmas"] == "default"
    assert accepted(atelier, sweep={"sampler": ["euler", "lms"]})["spec"]["sigmas"] == "karras"


def test_a_sweep_of_strengths_is_for_pictures(atelier: httpx.Client) -> None:
    fields = {"task": "image-to-image", "image": picture(), "sweep": {"strength": [0.2, 0.8]}}
    assert accepted(atelier, **fields)["spec"]["strength"] == 0.2


def test_what_one_picture_of_a_sweep_ignores_is_listed_once(atelier: httpx.Client) -> None:
    fields = {"negative_prompt": "blue", "sweep": {"guidance_scale": [1, 4], "seed": [1, 2]}}
    warnings = accepted(atelier, **fields)["warnings"]
    assert [warning["code"] for warning in warnings] == ["negative_prompt_ignored"]


def test_a_negative_prompt_that_a_later_stage_reads_is_not_ignored(atelier: httpx.Client) -> None:
    fields = {"negative_prompt": "blue", "guidance_scale": 1}
    [warning] = accepted(atelier, **fields)["warnings"]
    assert warning["code"] == "negative_prompt_ignored"
    assert accepted(atelier, **fields, upscaler={"checkpoint": "x4"})["warnings"] == []


def test_what_has_succeeded_without_a_step_is_finished(
    atelier: httpx.Client, painter: Hands
) -> None:
    fields = {"task": "image-to-image", "image": picture(), "strength": 0}
    record = accepted(atelier, checkpoint="demo", **fields)
    painter.succeed(record["id"], steps=0)
    progress = atelier.get(record["urls"]["self"]).json()["progress"]
    assert progress == {"steps_done": 0, "steps_total": 0, "fraction": 1.0}


def test_the_grid_is_told_apart_from_the_pictures(atelier: httpx.Client, painter: Hands) -> None:
    record = accepted(atelier, checkpoint="demo", sweep={"seed": [7, 8]})
    painter.succeed(record["id"], b"one", b"two", b"all", grid=True)
    seen = atelier.get(record["urls"]["self"]).json()
    assert [image["index"] for image in seen["images"]] == [0, 1]
    assert seen["grid"]["url"].endswith("/images/2")
    assert atelier.get(seen["grid"]["url"]).content == b"all"


def test_a_picture_of_a_sweep_is_its_grid(atelier: httpx.Client, painter: Hands) -> None:
    headers = {"Idempotency-Key": "sweep", "Accept": "image/png", "Prefer": "wait=0"}
    sent = body(checkpoint="demo", sweep={"seed": [7, 8]})
    id = atelier.post("/v1/generations", json=sent, headers=headers).json()["id"]
    painter.succeed(id, b"one", b"two", b"all", grid=True)
    answer = atelier.post("/v1/generations", json=sent, headers=headers)
    assert answer.content == b"all"
    assert answer.headers["content-location"].endswith("/images/2")
