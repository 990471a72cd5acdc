import io

import numpy as np
import pytest
from PIL import Image

from server.workers.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (128, 128), (64, 200)])
def test_what_is_written_is_what_any_reader_reads(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels, {}))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_texts_survive_in_any_script():
    texts = {"parameters": "a café, Steps: 20", "darkroom": '{"prompt": "красный круг 🔴"}'}
    data = encode_png(np.zeros((8, 8, 3), np.uint8), texts)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.text == texts


def test_a_flat_picture_is_small():
    assert len(encode_png(np.full((512, 512, 3), 7, np.uint8), {})) < 10_000
