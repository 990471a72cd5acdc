import asyncio
import io
import json

import numpy as np
import pytest
from obstore.store import MemoryStore
from PIL import Image

from server.errors import Unavailable
from server.spec import OutputFormat
from server.storage import ObjectImageStore
from server.workers.publish import publish
from server.workers.simulated import FlatPicture
from tests.builders import a_claim


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
