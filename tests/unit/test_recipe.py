"""What is read back of a picture: manifests, infotexts, and whether two pictures are the same."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from server.errors import InvalidSpec
from server.infotext import texts
from server.recipe import (
    MAX_INFOTEXT,
    Looks,
    Manifest,
    looks_of,
    parse_infotext,
    quoted,
    texts_of,
)
from server.spec import OutputFormat
from server.workers.publish import encode
from tests.builders import a_spec, an_inpainting

FOREIGN = """a (cat:1.2), on a <lora:ink:0.5> mat
second line: with a colon, a comma, and: another
Negative prompt: blurry, bad
worse
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, \
Model hash: 6ce0161689, Model: sd-v1-5, Lora hashes: "ink: aaaa, oil: bbbb", \
Hashes: {"model": "6ce0161689", "vae": "x"}, Wildcard prompt: "a \\"b\\", \\nc", Version: v1.9.0"""


def test_an_infotext_of_a1111_is_read() -> None:
    said = parse_infotext(FOREIGN)
    assert said.prompt.startswith("a (cat:1.2), on a <lora:ink:0.5> mat\nsecond line: with")
    assert said.negative_prompt == "blurry, bad\nworse"
    assert said.settings["Sampler"] == "DPM++ 2M Karras"
    assert said.settings["Size"] == "512x768"
    assert said.settings["Lora hashes"] == "ink: aaaa, oil: bbbb"
    assert said.settings["Hashes"] == '{"model": "6ce0161689", "vae": "x"}'
    assert said.settings["Wildcard prompt"] == 'a "b", \nc'
    assert said.settings["Version"] == "v1.9.0"


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "settings"),
    [
        ("", "", "", {}),
        ("a cat", "a cat", "", {}),
        ("a cat, mood: dark", "a cat, mood: dark", "", {}),
        ("a cat\r\nNegative prompt: dog\r\nSteps: 5\r\n", "a cat", "dog", {"Steps": "5"}),
        ("\nNegative prompt: dog\nSteps: 5", "", "dog", {"Steps": "5"}),
        ("Steps: 5, Seed: 1, Size: 8x8", "", "", {"Steps": "5", "Seed": "1", "Size": "8x8"}),
    ],
)
def test_any_text_is_an_infotext(text, prompt, negative, settings) -> None:
    said = parse_infotext(text)
    assert (said.prompt, said.negative_prompt, said.settings) == (prompt, negative, settings)


@pytest.mark.parametrize("value", ["plain", "a, b", "a: b", 'a "b"', "{", " a ", '"', "a\nb", "ä"])
def test_a_value_is_read_as_it_was_written(value: str) -> None:
    line = f"Steps: 1, Model: {quoted(value)}, Version: x"
    assert parse_infotext(line).settings["Model"] == value


@pytest.mark.parametrize(
    "hostile",
    ["a", " ", ",a", 'a:"', 'a:"\\', "a:{"],
)
def test_a_hostile_line_takes_no_longer_than_a_long_one(hostile: str) -> None:
    began = time.process_time()
    parse_infotext(hostile * (MAX_INFOTEXT // len(hostile)))
    assert time.process_time() - began < 2


def test_a_manifest_comes_back_without_where_pictures_are_kept() -> None:
    made = Manifest(version="1", spec=an_inpainting(), sha256="ab" * 32)
    told = json.loads(made.text())
    assert told["darkroom"] == 1
    assert set(told["spec"]["image"]) == {"sha256", "width", "height"}
    assert "previews" not in told["spec"]
    assert "pixels_sha256" not in told
    back = Manifest.model_validate(told)
    assert back.spec.image.key == ""
    assert back.told() == told


def test_what_pictures_said_before_there_were_manifests_is_read() -> None:
    old = {"version": "0.0.1", "spec": a_spec().model_dump(mode="json")}
    assert Manifest.model_validate(old).spec == a_spec()


def test_a_manifest_of_a_later_format_is_refused() -> None:
    told = Manifest(spec=a_spec()).told() | {"darkroom": 2}
    with pytest.raises(ValueError, match="Input should be 1"):
        Manifest.model_validate(told)


@pytest.mark.parametrize("form", list(OutputFormat))
def test_every_format_says_its_infotext(form: OutputFormat) -> None:
    about = texts(a_spec(prompt="ein Käse 🧀"), 0, "1")
    with Image.open(io.BytesIO(encode(np.zeros((8, 8, 3), np.uint8), form, about))) as opened:
        said = texts_of(opened)
    assert said["parameters"] == about["parameters"]
    assert ("darkroom" in said) is (form is OutputFormat.PNG)


def test_a_picture_that_says_nothing_says_nothing() -> None:
    out = io.BytesIO()
    about = PngInfo()
    about.add_text("Comment", "hello")
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=about)
    with Image.open(out) as opened:
        assert texts_of(opened) == {}


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 48, 3), dtype=np.uint8)


def test_a_pixel_off_by_one_is_alike_and_not_the_same() -> None:
    pixels = noise(0)
    old = looks_of(Image.fromarray(pixels))
    assert old.same(old) is True
    assert old.alike(old) is True
    pixels[3, 3, 0] ^= 1
    new = looks_of(Image.fromarray(pixels))
    assert old.same(new) is False
    assert old.alike(new) is True


def test_another_picture_is_neither() -> None:
    old, new = looks_of(Image.fromarray(noise(0))), looks_of(Image.fromarray(noise(1)))
    assert (old.same(new), old.alike(new)) == (False, False)


@pytest.mark.parametrize("thumbnail", ["", "AAAA", "no base64 ä"])
def test_what_is_not_known_is_not_claimed(thumbnail: str) -> None:
    old, new = Looks("", thumbnail), looks_of(Image.fromarray(noise(0)))
    assert (old.same(new), old.alike(new)) == (None, None)


def test_an_infotext_that_nobody_wrote_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidSpec, match="at most 262,144"):
        parse_infotext("a" * (MAX_INFOTEXT + 1))
