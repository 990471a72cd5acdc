import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from server.errors import GenerationFailed, NotFound, Unavailable
from server.spec import Upload
from server.workers.inputs import depth, inputs_of, latents_file, mask, rgb
from server.workers.png import encode_png
from server.workers.stage import Past
from tests.builders import (
    a_claim,
    a_claim_of,
    a_depth_to_image,
    a_hires,
    a_refiner,
    a_spec,
    an_image_to_image,
    an_inpainting,
    an_upload,
)


class Store(dict[str, bytes]):
    """What `read` finds, and how often it was asked."""

    reads = 0

    def read(self, key: str) -> bytes:
        self.reads += 1
        try:
            return self[key]
        except KeyError:
            raise NotFound(f"the image {key} is no longer stored") from None


def sent(store: Store, **keys: str) -> dict[str, Upload]:
    """Fields of a spec, and under which keys their pictures are."""
    digest = lambda key: hashlib.sha256(store[key]).hexdigest()  # noqa: E731
    return {field: an_upload(key, sha256=digest(key)) for field, key in keys.items()}


def file(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def flat(colour, mode="RGB", size=(6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


def test_from_noise_alone_nothing_is_read():
    store = Store()
    for inputs in inputs_of(a_claim(num_images=2), store.read):
        assert inputs.image is inputs.mask is inputs.depth is inputs.latents is None
    assert store.reads == 0


def test_what_was_sent_is_read_once_for_all_images():
    store = Store(image=file(flat("red")), mask=file(flat(255, "L")))
    spec = an_inpainting(num_images=3, **sent(store, image="image", mask_image="mask"))
    found = inputs_of(a_claim_of(spec), store.read)
    assert len(found) == 3
    assert store.reads == 2
    assert found[2].image.shape == (4, 6, 3)
    assert (found[2].image == (255, 0, 0)).all()
    assert (found[2].mask == 255).all()


def test_each_image_goes_on_from_what_the_stage_before_made_of_it():
    made = [np.full((4, 2, 3), value, np.float32) for value in (1.5, -2.5)]
    store = Store({str(i): latents_file(each) for i, each in enumerate(made)})
    spec = a_spec(refiner=a_refiner(), num_images=2)
    found = inputs_of(a_claim_of(spec, past=Past(handed=[["0", "1"]])), store.read)
    for inputs, each in zip(found, made, strict=True):
        np.testing.assert_array_equal(inputs.latents, each)
        assert inputs.image is None


def test_a_picture_handed_on_keeps_every_pixel():
    made = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    store = Store(made=encode_png(made, {}))
    spec = a_spec(refiner=a_refiner(switch_at=1.0))
    [found] = inputs_of(a_claim_of(spec, past=Past(handed=[["made"]])), store.read)
    np.testing.assert_array_equal(found.image, made)


def test_a_later_stage_does_not_start_from_what_was_sent():
    store = Store(made=latents_file(np.zeros((4, 2, 2), np.float32)))
    spec = an_image_to_image(hires=a_hires())
    [found] = inputs_of(a_claim_of(spec, past=Past(handed=[["made"]])), store.read)
    assert found.image is None
    assert store.reads == 1


def test_what_is_missing_is_said_in_words():
    with pytest.raises(GenerationFailed, match="sent as image is no longer in the image store"):
        inputs_of(a_claim_of(an_image_to_image()), Store().read)
    spec = a_spec(refiner=a_refiner())
    with pytest.raises(GenerationFailed, match="what stage 0 made of image 0 is no longer"):
        inputs_of(a_claim_of(spec, past=Past(handed=[["gone"]])), Store().read)


@pytest.mark.parametrize("field", ["image", "mask_image"])
def test_a_picture_that_is_not_the_one_that_was_sent_is_not_drawn_from(field):
    store = Store(image=file(flat("red")), mask=file(flat(255, "L")))
    spec = an_inpainting(**sent(store, image="image", mask_image="mask"))
    store[getattr(spec, field).key] = file(flat(0, "L"))
    with pytest.raises(GenerationFailed, match=f"sent as {field} is not as it was sent"):
        inputs_of(a_claim_of(spec), store.read)


def test_what_cannot_be_decoded_is_said_in_words():
    store = Store(image=b"text")
    claim = a_claim_of(an_image_to_image(**sent(store, image="image")))
    with pytest.raises(GenerationFailed, match="sent as image is no PNG"):
        inputs_of(claim, store.read)
    spec = a_spec(refiner=a_refiner())
    claim = a_claim_of(spec, past=Past(handed=[["made"]]))
    with pytest.raises(GenerationFailed, match="what stage 0 made of image 0 cannot be read"):
        inputs_of(claim, Store(made=b"12345678 no latents").read)


def test_a_store_that_is_away_is_not_a_failure():
    def away(key: str) -> bytes:
        raise Unavailable("the image store cannot be read")

    with pytest.raises(Unavailable):
        inputs_of(a_claim_of(an_image_to_image()), away)


def test_transparent_colours_are_white():
    picture = flat((200, 0, 0, 0), "RGBA")
    picture.putpixel((0, 0), (200, 0, 0, 255))
    found = rgb(picture)
    assert found[0, 0].tolist() == [200, 0, 0]
    assert (found[1:] == 255).all()


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (flat(255, "L"), 255),
        (flat("white"), 255),
        (flat("black"), 0),
        (flat(True, "1"), 255),
        (flat((255, 255, 255, 0), "RGBA"), 0),
        (flat((255, 255, 255, 255), "RGBA"), 255),
        (flat((255, 128), "LA"), 128),
        (flat("white").convert("P"), 255),
        (Image.fromarray(np.full((4, 6), 65535, np.uint16)), 255),
    ],
    ids=["grey", "white", "black", "bits", "clear", "opaque", "half", "palette", "16 bits"],
)
def test_a_mask_is_brightness_however_it_was_painted(picture, expected):
    found = mask(picture)
    assert (found.shape, found.dtype) == ((4, 6), np.uint8)
    assert (found == expected).all()


def test_sixteen_bits_of_depth_are_kept():
    fine = np.arange(24, dtype=np.uint16).reshape(4, 6) + 30_000
    with Image.open(io.BytesIO(file(Image.fromarray(fine)))) as picture:
        found = depth(picture)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, fine)


def test_a_depth_map_in_eight_bits_or_colours_is_read_too():
    assert (depth(flat(7, "L")) == 7).all()
    assert (depth(flat((7, 7, 7))) == 7).all()
    store = Store(image=file(flat("red")), depth=file(flat(9, "L")))
    spec = a_depth_to_image(**sent(store, image="image", depth_map="depth"))
    [found] = inputs_of(a_claim_of(spec), store.read)
    assert (found.depth == 9).all()
