import asyncio
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from obstore.store import MemoryStore
from PIL import Image

from server.errors import Unavailable
from server.recipe import looks_of
from server.spec import Axis, Metrics, OutputFormat, Quantization, Sweep
from server.storage import ObjectImageStore
from server.workers.inputs import inputs_of
from server.workers.publish import hand_on, publish
from server.workers.simulated import FlatLatents, FlatPicture
from server.workers.stage import Past
from tests.builders import a_claim, a_claim_of, a_refiner, a_spec, an_image_to_image, an_upscaler


@pytest.fixture
def store():
    return ObjectImageStore(MemoryStore())


def test_an_image_is_stored_under_a_key_of_its_execution_and_carries_its_recipe(store):
    claim = a_claim(seed=7, num_images=2)
    images = publish(claim, [FlatPicture(128, 128, s).array() for s in (7, 8)], store, "1.2.3")
    assert [i.key for i in images] == [f"{claim.id}/{i}-{claim.execution}.png" for i in (0, 1)]
    assert [i.seed for i in images] == [7, 8]
    with Image.open(io.BytesIO(asyncio.run(store.get(images[1].key)))) as image:
        image.load()
        recipe = json.loads(image.text["darkroom"])
        assert recipe["spec"]["seed"] == 8
        assert recipe["spec"]["num_images"] == 1
        assert "Seed: 8, Size: 128x128, Model: demo" in image.text["parameters"]
        assert recipe["pixels_sha256"] == images[1].pixels_sha256 == looks_of(image).pixels_sha256
        assert recipe["thumbnail"] == images[1].thumbnail
    assert images[0].pixels_sha256 != images[1].pixels_sha256


def test_what_weights_of_eight_bits_have_drawn_says_so(store):
    pixels = [FlatPicture(32, 32, 1).array()]
    sweep = Sweep(axes=(Axis(field="seed", values=(1,)),))
    claim = a_claim(sweep=sweep)
    for info in publish(claim, pixels, store, "1", quantization=Quantization.INT8):
        assert info.quantization is Quantization.INT8
        with Image.open(io.BytesIO(asyncio.run(store.get(info.key)))) as image:
            assert json.loads(image.text["darkroom"])["quantization"] == "int8"


def test_so_does_what_an_earlier_stage_has_drawn_with_them(store):
    seconds = dict.fromkeys((n for n in Metrics.model_fields if n.endswith("_seconds")), 1.0)
    rest = {"steps": 1, "mean_batch_rows": 2.0, "peak_memory_bytes": 1, "worker": "w"}
    before = Metrics(**seconds, **rest, quantization=Quantization.FP8)
    claim = replace(a_claim(), past=Past(metrics=(before,)))
    [info] = publish(claim, [FlatPicture(32, 32, 1).array()], store, "1")
    assert info.quantization is Quantization.FP8


def test_exact_weights_are_not_mentioned(store):
    [info] = publish(a_claim(), [FlatPicture(32, 32, 1).array()], store, "1")
    assert info.quantization is Quantization.NONE
    with Image.open(io.BytesIO(asyncio.run(store.get(info.key)))) as image:
        assert "quantization" not in json.loads(image.text["darkroom"])


def test_pictures_are_compared_as_drawn_whatever_their_file(store):
    pixels = [FlatPicture(64, 32, 1).array()]
    made = [publish(a_claim(output_format=form), pixels, store, "1")[0] for form in OutputFormat]
    assert len({info.pixels_sha256 for info in made}) == 1
    assert len({info.sha256 for info in made}) == len(OutputFormat)


def test_a_grid_does_not_say_where_pictures_are_kept(store):
    sweep = Sweep(axes=(Axis(field="strength", values=(0.2, 0.8)),))
    claim = a_claim_of(an_image_to_image(sweep=sweep, num_images=2))
    *_, grid = publish(claim, [FlatPicture(32, 32, s).array() for s in (1, 2)], store, "1")
    with Image.open(io.BytesIO(asyncio.run(store.get(grid.key)))) as image:
        assert "key" not in json.loads(image.text["darkroom"])["spec"]["image"]
        assert grid.pixels_sha256 == looks_of(image).pixels_sha256


@pytest.mark.parametrize("form", [OutputFormat.WEBP, OutputFormat.JPEG])
def test_other_formats_carry_the_infotext_where_readers_look(store, form):
    [info] = publish(a_claim(output_format=form), [FlatPicture(64, 32, 1).array()], store, "1")
    with Image.open(io.BytesIO(asyncio.run(store.get(info.key)))) as image:
        assert image.size == (64, 32)
        assert image.format == form.value.upper()
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert "a red circle" in comment.removeprefix(b"UNICODE\0").decode("utf-16-be")


@pytest.mark.parametrize("form", list(OutputFormat))
def test_the_longest_prompts_fit_into_every_format(store, form):
    claim = a_claim(output_format=form, prompt="\U0001f534" * 20_000, negative_prompt="é" * 20_000)
    assert publish(claim, [FlatPicture(64, 32, 1).array()], store, "1")


def test_a_store_that_refuses_is_said_so(store, monkeypatch):
    def refuse(*_):
        raise Unavailable("full")

    monkeypatch.setattr(store, "put", refuse)
    with pytest.raises(Unavailable):
        publish(a_claim(), [FlatPicture(8, 8, 1).array()], store, "1")


def test_pixels_are_not_changed_on_the_way(store):
    picture = FlatPicture(16, 16, 3)
    [info] = publish(a_claim(), [picture.array()], store, "1")
    with Image.open(io.BytesIO(asyncio.run(store.get(info.key)))) as image:
        np.testing.assert_array_equal(np.asarray(image), picture.array())


@pytest.mark.parametrize(
    ("refiner", "suffix", "made"),
    [
        (a_refiner(), "safetensors", FlatLatents(128, 128, 7)),
        (a_refiner(switch_at=1.0), "png", FlatPicture(128, 128, 7)),
    ],
)
def test_what_is_handed_on_is_what_the_next_stage_starts_from(store, refiner, suffix, made):
    spec = a_spec(refiner=refiner, num_images=2)
    claim = a_claim_of(spec)
    keys = hand_on(claim, [made.array(), made.array()], store)
    assert keys == tuple(f"{claim.id}/stage-0-{i}-{claim.execution}.{suffix}" for i in (0, 1))
    for inputs in inputs_of(a_claim_of(spec, past=Past(handed=[keys])), store.read):
        given = inputs.latents if suffix == "safetensors" else inputs.image
        np.testing.assert_array_equal(given, made.array())


def test_the_images_of_a_chain_carry_the_recipe_of_the_whole(store):
    spec = a_spec(refiner=a_refiner(), upscaler=an_upscaler())
    claim = a_claim_of(spec, past=Past(handed=[["a"], ["b"]]))
    [info] = publish(claim, [FlatPicture(512, 512, 1).array()], store, "1")
    assert (info.width, info.height) == (512, 512)
    with Image.open(io.BytesIO(store.read(info.key))) as image:
        recipe = json.loads(image.text["darkroom"])["spec"]
    assert recipe["checkpoint"] == "demo"
    assert recipe["refiner"]["checkpoint"] == "refiner"


@pytest.mark.parametrize("form", list(OutputFormat))
def test_a_sweep_is_published_with_its_values_and_a_grid(store, form):
    axes = (Axis(field="sampler", values=("euler", "ddim")), Axis(field="seed", values=(5, 9)))
    claim = a_claim(sweep=Sweep(axes=axes), num_images=4, output_format=form)
    pictures = [FlatPicture(128, 128, seed).array() for seed in range(4)]
    *images, grid = publish(claim, pictures, store, "1", [False, True, False, False])
    assert [image.seed for image in images] == [5, 9, 5, 9]
    assert images[1].varied == {"sampler": "euler", "seed": 9}
    assert [image.grid for image in (*images, grid)] == [False] * 4 + [True]
    assert [image.nsfw for image in (*images, grid)] == [False, True, False, False, True]
    assert grid.key == f"{claim.id}/grid-{claim.execution}.{form.value}"
    with Image.open(io.BytesIO(store.read(grid.key))) as image:
        assert image.size == (grid.width, grid.height)
        assert image.width > 256
        assert image.height > 256
