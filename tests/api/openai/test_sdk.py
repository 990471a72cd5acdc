"""The `openai` package, unmodified, against a running gateway: what each call gives back."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import openai
import pytest
from openai.types import ImagesResponse
from PIL import Image

from tests.api.house import Hands, wait_until
from tests.api.openai.conftest import Artist, Sdk, cleared
from tests.api.pictures import mask, picture


def decoded(answer: ImagesResponse) -> list[bytes]:
    return [base64.b64decode(image.b64_json or "") for image in answer.data or ()]


def extra(answer: Any, name: str) -> Any:
    """A field that OpenAI's own answers do not have."""
    return answer.model_extra[name]


def uploaded(hands: Hands, artist: Artist, name: str) -> Image.Image:
    """A picture as the worker finds it."""
    with Image.open(hands.images / artist.drawn[-1] / f"input-{name}.png") as found:
        found.load()
        return found


def test_a_picture_comes_back_as_base64(sdk: openai.OpenAI, artist: Artist) -> None:
    answer = sdk.images.generate(prompt="a red circle", model="demo", size="128x128")
    assert decoded(answer) == [picture()]
    assert (answer.size, answer.output_format, answer.background) == ("128x128", "png", "opaque")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 0)
    assert (extra(answer, "id"), extra(answer, "warnings")) == (artist.drawn[0], [])
    assert artist.spec["task"] == "text-to-image"


def test_a_picture_comes_back_as_a_url(sdk: openai.OpenAI, client: httpx.Client) -> None:
    answer = sdk.images.generate(prompt="a red circle", response_format="url")
    assert answer.data is not None
    url = answer.data[0].url or ""
    assert url.startswith(str(client.base_url)), "absolute, by the address that was asked"
    assert httpx.get(url).content == picture()


def test_several_pictures_come_back_in_order(sdk: openai.OpenAI) -> None:
    answer = sdk.images.generate(prompt="a red circle", n=3, extra_body={"seed": 7})
    assert len(decoded(answer)) == 3
    assert [extra(image, "seed") for image in answer.data or ()] == [7, 8, 9]


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_every_format_can_be_asked_for(sdk: openai.OpenAI, form: Any) -> None:
    answer = sdk.images.generate(prompt="a red circle", output_format=form)
    assert Image.open(io.BytesIO(decoded(answer)[0])).format == form.upper()
    assert answer.output_format == form


def test_extra_body_carries_every_field_of_a_generation(sdk: openai.OpenAI, artist: Artist) -> None:
    fields = {
        "num_inference_steps": 9,
        "guidance_scale": 3.5,
        "sampler": "euler",
        "negative_prompt": "a square",
        "seed": 11,
        "width": 192,
        "height": 128,
        "hires": {"scale": 2.0},
    }
    sdk.images.generate(prompt="a red circle", extra_body=fields)
    assert {name: artist.spec[name] for name in fields if name != "hires"} == {
        name: value for name, value in fields.items() if name != "hires"
    }
    assert artist.spec["hires"]["width"] == 384


def test_an_edit_with_a_mask_draws_where_it_is_transparent(
    sdk: openai.OpenAI, hands: Hands, artist: Artist
) -> None:
    answer = sdk.images.edit(
        image=("in.png", picture()), mask=("mask.png", cleared()), prompt="a star", model="demo"
    )
    assert decoded(answer) == [picture()]
    assert (artist.spec["task"], artist.spec["prompt"]) == ("inpainting", "a star")
    seen = uploaded(hands, artist, "mask")
    assert seen.mode == "L"
    assert (seen.getpixel((10, 64)), seen.getpixel((100, 64))) == (255, 0)
    assert uploaded(hands, artist, "image").size == (128, 128)


def test_an_edit_without_a_mask_draws_over_the_whole(sdk: openai.OpenAI, artist: Artist) -> None:
    sdk.images.edit(image=picture(192, 128), prompt="a star", extra_body={"strength": 0.4})
    assert (artist.spec["task"], artist.spec["strength"]) == ("image-to-image", 0.4)
    assert (artist.spec["width"], artist.spec["height"]) == (192, 128)


def test_of_several_images_the_first_is_edited_and_the_answer_says_so(
    sdk: openai.OpenAI, hands: Hands, artist: Artist
) -> None:
    images = [picture(192, 128), picture(64, 64)]
    answer = sdk.images.edit(image=images, prompt="a star")
    assert uploaded(hands, artist, "image").size == (192, 128)
    assert [warning["code"] for warning in extra(answer, "warnings")] == ["images_ignored"]


def test_extra_body_of_a_form_may_be_nested(sdk: openai.OpenAI, artist: Artist) -> None:
    sdk.images.edit(
        image=picture(),
        prompt="123",
        extra_body={
            "seed": 5,
            "strict": True,
            "keep_outside": None,
            "sampler": "ddim",
            "hires": {"scale": 2, "strength": 0.5},
        },
    )
    spec = artist.spec
    assert (spec["seed"], spec["prompt"], spec["sampler"]) == (5, "123", "ddim")
    assert (spec["hires"]["width"], spec["hires"]["strength"]) == (256, 0.5)


def test_a_black_and_white_mask_may_be_sent_as_our_own_door_has_it(
    sdk: openai.OpenAI, hands: Hands, artist: Artist
) -> None:
    encoded = base64.b64encode(mask()).decode()
    sdk.images.edit(image=picture(), prompt="a star", extra_body={"mask_image": encoded})
    assert artist.spec["task"] == "inpainting"
    assert uploaded(hands, artist, "mask").getpixel((10, 64)) == 255


def test_a_variation_is_drawn_from_the_picture_alone(sdk: openai.OpenAI, artist: Artist) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        answer = sdk.images.create_variation(image=picture(), n=2, response_format="b64_json")
    assert len(decoded(answer)) == 2
    spec = artist.spec
    assert (spec["task"], spec["prompt"], spec["strength"]) == ("image-to-image", "", 0.6)


def test_previews_are_streamed_before_the_picture(
    sdk: openai.OpenAI, hands: Hands, artist: Artist
) -> None:
    artist.free.clear()
    with sdk.images.generate(
        prompt="a red circle", stream=True, partial_images=2, extra_body={"seed": 7}
    ) as stream:
        wait_until(artist.ids)
        [id] = artist.ids()
        hands.begin(id)
        events: list[Any] = []
        for number, seen in enumerate((b"first", b"second"), 1):
            assert hands.show(id, seen, number=number)
            events.append(next(stream))
        hands.succeed(id, b"PNG")
        events += stream
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [base64.b64decode(event.b64_json) for event in events] == [b"first", b"second", b"PNG"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert [event.output_format for event in events] == ["jpeg", "jpeg", "png"]
    assert {event.size for event in events} == {"128x128"}
    assert events[2].usage.total_tokens == 3
    assert artist.spec_of(id)["previews"] == 2


def test_previews_of_what_is_drawn_once_more_are_counted_from_the_beginning(
    sdk: openai.OpenAI, hands: Hands, artist: Artist
) -> None:
    artist.free.clear()
    with sdk.images.generate(prompt="a red circle", stream=True, partial_images=2) as stream:
        wait_until(artist.ids)
        [id] = artist.ids()
        hands.begin(id)
        counted: list[int] = []
        for number in (1, 2, 1, 2):  # another worker has taken over in the middle
            assert hands.show(id, b"a glimpse", number=number)
            counted.append(getattr(next(stream), "partial_image_index", -1))
        hands.succeed(id, b"PNG")
        assert [event.type for event in stream] == ["image_generation.completed"]
    assert counted == [0, 1, 0, 1]


def test_an_edit_is_streamed_as_its_twin(sdk: openai.OpenAI, artist: Artist) -> None:
    artist.previews = [b"a glimpse"]
    with sdk.images.edit(
        image=picture(), mask=cleared(), prompt="a star", stream=True, partial_images=1
    ) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert base64.b64decode(events[1].b64_json) == picture()
    assert artist.spec["task"] == "inpainting"


def test_a_stream_without_previews_ends_with_every_picture(
    sdk: openai.OpenAI, artist: Artist
) -> None:
    with sdk.images.generate(prompt="a red circle", n=2, stream=True) as stream:
        events = list(stream)
    assert [(event.type, extra(event, "index")) for event in events] == [
        ("image_generation.completed", 0),
        ("image_generation.completed", 1),
    ]
    assert artist.spec["previews"] == 0


def test_the_models_are_what_is_served(sdk: openai.OpenAI, hands: Hands) -> None:
    hands.serve("sd-v1-5", name="another")
    assert [model.id for model in sdk.models.list()] == ["demo", "sd-v1-5"]
    found = sdk.models.retrieve("demo")
    assert (found.id, found.object, found.owned_by) == ("demo", "model", "darkroom")


def test_an_alias_is_a_model(start: Any, artist: Artist, connect: Sdk) -> None:
    sdk = connect(start(aliases="gpt-image-1=demo dall-e-3=sd-v1-5"))
    assert [model.id for model in sdk.models.list()] == ["demo", "gpt-image-1"]
    assert extra(sdk.models.retrieve("dall-e-3"), "checkpoint") == "sd-v1-5"
    answer = sdk.images.generate(prompt="a red circle", model="gpt-image-1")
    assert extra(answer, "warnings") == [], "that is what the operator wants"
    assert artist.spec["checkpoint"] == "demo"


def test_a_name_of_openais_own_leads_to_the_default_and_says_so(
    sdk: openai.OpenAI, artist: Artist
) -> None:
    answer = sdk.images.generate(prompt="a red circle", model="gpt-image-1.5")
    [warning] = extra(answer, "warnings")
    assert warning["code"] == "model_substituted"
    assert "gpt-image-1.5" in warning["message"]
    assert "demo" in warning["message"]
    assert artist.spec["checkpoint"] == "demo"


@pytest.mark.parametrize(
    ("model", "by_address"), [("dall-e-3", True), ("gpt-image-1", False), ("demo", False)]
)
def test_each_model_answers_as_its_users_expect(
    sdk: openai.OpenAI, model: str, by_address: bool
) -> None:
    answer = sdk.images.generate(prompt="a red circle", model=model)
    assert answer.data is not None
    assert (answer.data[0].url is not None) is by_address
    assert (answer.data[0].b64_json is None) is by_address
